package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// half sends a half of a prediction of a model's version as a payload logger does.
func (r *rig) half(t *testing.T, kind, id, model, version, data string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/cloudevents", strings.NewReader(fmt.Sprintf(
		`{"specversion":"1.0","id":%q,"type":"org.kubeflow.serving.inference.%s","source":"http://localhost:9081/","time":"2024-05-01T12:00:00Z","inferenceservicename":%q,"endpoint":%q,"data":%s}`, id, kind, model, version, data)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

const (
	askedHalf    = `{"instances":[{"width":1,"owner":"` + canaryText + `","income":7318492.5}]}`
	answeredHalf = `{"predictions":[{"score":0.5,"text":"dear ` + canaryText + `"}]}`
)

// taken and closed hold what becomes of halves.
func (r *rig) taken(t *testing.T, when, id, model, version string, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		if status, b, _ := r.half(t, kind, id, model, version, map[string]string{"request": askedHalf, "response": answeredHalf}[kind]); status != http.StatusOK {
			t.Errorf("%s: the %s of %s: %d %s", when, kind, id, status, b)
		}
	}
}

func (r *rig) closed(t *testing.T, when, model, version string, kinds ...string) {
	t.Helper()
	before, _ := r.events.Waiting()
	for _, kind := range kinds {
		status, b, header := r.half(t, kind, "closed", model, version, map[string]string{"request": askedHalf, "response": answeredHalf}[kind])
		if after, _ := r.events.Waiting(); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || after != before || leaks([]byte(b)) != "" {
			t.Errorf("%s: the %s of version %s of %s, which is closed: %d %s, Retry-After %q, %d wait, %d before", when, kind, version, model, status, b, header.Get("Retry-After"), after, before)
		}
	}
}

func (r *rig) load(t *testing.T, model string, want int) {
	t.Helper()
	if status, b, _ := r.call(t, "POST", "/v2/repository/models/"+model+"/load", ""); status != want {
		t.Errorf("load %s: %d %s", model, status, b)
	}
}

// loosen has all versions of models say that nothing is private, and makes each known by a
// row that has no canary.
func (r *rig) loosen(t *testing.T, models string, names ...string) {
	t.Helper()
	plain := strings.NewReplacer(canaryText, "somebody", "7318492.5", "5")
	for _, name := range names {
		place(t, models, name+"/1/model.yaml", "task: binary\n")
		r.call(t, "POST", "/v2/repository/models/"+name+"/load", "") // an error where nothing was imported yet
		for _, version := range []string{"1", "2", "3"} {
			for kind, data := range map[string]string{"request": askedHalf, "response": answeredHalf} {
				if status, b, _ := r.half(t, kind, "plain", name, version, plain.Replace(data)); status != http.StatusOK {
					t.Errorf("loosened, version %s of %s: %d %s", version, name, status, b)
				}
			}
		}
	}
}

// hidden holds that nothing of the canaries is stored, kept or said.
func (r *rig) hidden(t *testing.T, cfg config, ids ...string) {
	t.Helper()
	r.stored(t)
	for _, id := range ids {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if p.Features["width"] != 1.0 || p.Outputs["score"] != 0.5 || leaks(fmt.Append(nil, p)) != "" {
			t.Errorf("%s: %+v", id, p)
		}
	}
	if rows := sql(t, r.database(t), "SELECT * FROM predictions FORMAT TSV"); leaks([]byte(rows)) != "" {
		t.Errorf("stored: %s", rows)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}

// TestAHalfOfAClosedVersionIsNotTaken: what is to be private of it is not known, and would
// not lie with it. What was private when it is taken stays so.
func TestAHalfOfAClosedVersionIsNotTaken(t *testing.T) {
	const hides = "features: [{name: owner, private: drop}, {name: income, private: mask}]\n"
	models := t.TempDir()
	for _, name := range []string{"known", "unknown"} {
		place(t, models, name+"/1/model.yaml", hides)
	}
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	// Declared and not imported yet, beside such a one, and what nothing declares.
	r.taken(t, "at first", "a", "known", "1", "request", "response")
	r.taken(t, "at first", "b", "known", "2", "request", "response")
	r.taken(t, "at first", "c", "unknown", "1", "request")
	r.taken(t, "at first", "d", "unknown", "2", "request")
	r.taken(t, "at first", "e", "free", "1", "request") // is never joined: nothing of it is private
	for what, spoil := range map[string]func(path string) error{
		"a key misspelt": func(path string) error {
			return os.WriteFile(path, []byte("features: [{name: owner, privat: drop}]\n"), 0o600)
		},
		"half a file":       func(path string) error { return os.WriteFile(path, []byte("features: [{name: ow"), 0o600) },
		"0 bytes":           func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link to nothing": func(path string) error { return os.Symlink("nothing", path) },
	} {
		for _, name := range []string{"known", "unknown"} {
			path := models + "/" + name + "/1/model.yaml"
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			r.load(t, name, http.StatusBadRequest)
			r.closed(t, what, name, "1", "request", "response")
			r.closed(t, what, name, "3", "request", "response")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			place(t, models, name+"/1/model.yaml", hides)
		}
		r.load(t, "known", http.StatusOK)
		r.call(t, "POST", "/v2/repository/models/unknown/load", "") // nothing was imported of it
		r.taken(t, what, "e2", "free", "1", "request")
	}
	if err := os.Rename(models+"/known", models+"/away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("known", models+"/known"); err != nil {
		t.Fatal(err)
	}
	r.load(t, "known", http.StatusBadRequest)
	r.closed(t, "the folder cannot be read", "known", "1", "request", "response")
	r.closed(t, "the folder cannot be read", "known", "3", "request", "response")
	if err := os.Remove(models + "/known"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(models+"/away", models+"/known"); err != nil {
		t.Fatal(err)
	}
	r.load(t, "known", http.StatusOK)
	// The sender sends again, and the rules are loosened before the answers come.
	for id, at := range map[string][2]string{"f": {"known", "1"}, "g": {"known", "3"}, "h": {"unknown", "3"}} {
		r.taken(t, "mended", id, at[0], at[1], "request")
	}
	r.loosen(t, models, "known", "unknown")
	for id, at := range map[string][2]string{"c": {"unknown", "1"}, "d": {"unknown", "2"}, "f": {"known", "1"}, "g": {"known", "3"}, "h": {"unknown", "3"}} {
		r.taken(t, "loosened", id, at[0], at[1], "response")
	}
	r.hidden(t, cfg, "a", "b", "c", "d", "f", "g", "h")
}

// TestAnAnswerAloneRepeatsNothing: what it was an answer to is not known, so that what it
// repeats of that cannot be looked for. Names of classes stay.
func TestAnAnswerAloneRepeatsNothing(t *testing.T) {
	models := t.TempDir()
	place(t, models, "known/1/model.yaml", "task: binary\nclasses: [low, high]\nfeatures: [{name: owner, private: drop}, {name: income, private: mask}]\n")
	cfg := testConfig(t, models)
	cfg.Capture.PairTimeout = duration(200 * time.Millisecond)
	r := startRig(t, cfg)
	answer := strings.Replace(answeredHalf, "{\"score", `{"class":"high","score`, 1)
	for id, halves := range map[string][]string{"a": {"request", "response"}, "b": {"response"}} {
		for _, kind := range halves {
			if status, b, _ := r.half(t, kind, id, "known", "1", map[string]string{"request": askedHalf, "response": answer}[kind]); status != http.StatusOK {
				t.Fatalf("%s of %s: %d %s", kind, id, status, b)
			}
		}
	}
	until(t, "all is recorded", func() bool { n, _ := r.events.Waiting(); return n == 0 })
	r.stored(t)
	for id, want := range map[string]string{"a": "dear ***", "b": "***"} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if p.Outputs["text"] != want || p.Outputs["class"] != "high" || p.Outputs["score"] != 0.5 {
			t.Errorf("%s: %+v", id, p)
		}
	}
	r.hidden(t, cfg)
}

// TestAHalfWithoutItsKeyIsNotTaken: after a start without the keys of private fields it is
// not known how to hide them.
func TestAHalfWithoutItsKeyIsNotTaken(t *testing.T) {
	models := t.TempDir()
	for name, how := range map[string]string{"sealed": "seal", "later": "seal", "hashed": "hash"} {
		place(t, models, name+"/1/model.yaml", "features: [{name: owner, private: "+how+"}, {name: income, private: "+how+"}]\n")
	}
	cfg := testConfig(t, models)
	cfg.Capture.Key.File, cfg.Capture.KeyFile = writeKEK(t, "1"), t.TempDir()+"/hash.key"
	if err := os.WriteFile(cfg.Capture.KeyFile, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Capture.Private = map[string]string{"ruled.owner": "seal", "ruled.income": "drop"}
	r := startRig(t, cfg)
	r.taken(t, "at first", "a", "sealed", "1", "request", "response")
	r.taken(t, "at first", "b", "hashed", "1", "request", "response")
	r.stored(t)
	r.halt(t)
	right := map[string]string{cfg.Capture.Key.File: readFile(t, cfg.Capture.Key.File), cfg.Capture.KeyFile: readFile(t, cfg.Capture.KeyFile)}
	write := func(path, key string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, wrong := range []string{readFile(t, writeKEK(t, "2")), "", "no key\n"} {
		write(cfg.Capture.Key.File, wrong)
		r = startRig(t, cfg)
		for _, at := range [][2]string{{"sealed", "1"}, {"sealed", "2"}, {"later", "1"}, {"later", "2"}} {
			r.closed(t, "without the key of keys", at[0], at[1], "request", "response")
		}
		r.closed(t, "without the key of a rule", "ruled", "1", "request") // it holds for features
		r.taken(t, "without the key of keys", "z", "hashed", "1", "request", "response")
		r.taken(t, "without the key of keys", "z", "free", "1", "request")
		r.halt(t)
	}
	write(cfg.Capture.KeyFile, "no key\n")
	r = startRig(t, cfg)
	for _, name := range []string{"sealed", "later", "hashed", "free"} { // the room has its key from there
		r.closed(t, "without any key", name, "1", "request", "response")
		r.closed(t, "without any key", name, "2", "request", "response")
	}
	for path, key := range right {
		write(path, key)
	}
	r.load(t, "sealed", http.StatusOK)
	r.load(t, "hashed", http.StatusOK)
	r.call(t, "POST", "/v2/repository/models/later/load", "") // nothing was imported of it
	ids := map[string][2]string{"c": {"sealed", "1"}, "d": {"sealed", "2"}, "e": {"later", "1"}, "f": {"later", "2"}, "g": {"hashed", "1"}, "h": {"hashed", "2"}, "i": {"ruled", "1"}}
	for id, at := range ids {
		r.taken(t, "with its key", id, at[0], at[1], "request")
	}
	r.loosen(t, models, "sealed", "later", "hashed")
	for id, at := range ids {
		r.taken(t, "loosened", id, at[0], at[1], "response")
	}
	r.hidden(t, cfg, "c", "d", "e", "f", "g", "h", "i")
}

// TestATextRepeatsNoOtherRow: a text among outputs may repeat what is private in another row
// of its request, of a pair of events or of a list.
func TestATextRepeatsNoOtherRow(t *testing.T) {
	models := t.TempDir()
	place(t, models, "known/1/model.yaml", "features: [{name: owner, private: drop}, {name: income, private: mask}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	const (
		asked    = `{"width":1,"owner":"` + canaryText + `","income":7318492.5}`
		other    = `{"width":1,"owner":"Miss Nobody","income":1}`
		answered = `{"score":0.5,"text":"dear ` + canaryText + `"}`
		plain    = `{"score":0.5,"text":"dear Nobody and friends"}`
	)
	for kind, data := range map[string]string{"request": `{"instances":[` + asked + "," + other + `]}`, "response": `{"predictions":[` + plain + "," + answered + `]}`} {
		if status, b, _ := r.half(t, kind, "pair", "known", "1", data); status != http.StatusOK {
			t.Fatalf("%s: %d %s", kind, status, b)
		}
	}
	r.post(t, "/api/v1/predictions", `[{"id":"one","model":"known","features":`+other+`,"outputs":`+answered+`},{"id":"two","model":"known","features":`+asked+`,"outputs":`+plain+`}]`, nil)
	r.stored(t)
	var p collector.StoredPrediction
	if r.get(t, "/api/v1/predictions/one", &p); p.Outputs["text"] != "dear ***" {
		t.Errorf("%+v", p)
	}
	r.hidden(t, cfg, "pair.0", "pair.1", "one", "two")
}
