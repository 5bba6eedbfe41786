package main

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestNamesOfOutputsRepeatNothing: who tells of predictions names their outputs and features.
// What is private of a row, and what a pattern finds, is in no name that is kept.
func TestNamesOfOutputsRepeatNothing(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "features: [{name: owner, private: drop}]\n")
	place(t, models, "risks/1/model.yaml", "features: [{name: owner, private: mask}]\n")
	cfg := testConfig(t, models)
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.Patterns = []patternConfig{{Name: "email"}}
	r := startRig(t, cfg)
	first := `{"model":"loans","id":"n1","features":{"owner":"Annabel Lee","age":41,"seen by eve@example.org":2},"outputs":{"risk of annabel lee":0.25,"risk of ANNABEL LEE":0.5,"to ann@example.org":1,"score":0.75}}`
	var said struct {
		Accepted int
		Results  []collector.ImportResult
	}
	take := func(path, body string) {
		t.Helper()
		said.Results = nil
		if r.post(t, path, body, &said); said.Accepted != 1 {
			t.Fatalf("%s: %+v", body, said)
		}
	}
	take("/api/v1/predictions", first)
	// Another row names them by its own values.
	take("/api/v1/predictions", `{"model":"loans","id":"n2","features":{"owner":"Bob","age":7,"seen by bob@example.org":3},"outputs":{"risk of Bob":0.125,"to bob@example.org":2,"score":0.5}}`)
	event := func(kind, id, body string) {
		t.Helper()
		res, err := http.Post(r.url+"/api/v1/cloudevents", "application/cloudevents+json", strings.NewReader(
			`{"specversion":"1.0","id":"`+id+`","type":"org.kubeflow.serving.inference.`+kind+`","source":"x","inferenceservicename":"risks","data":`+body+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", body, res.Status, err)
		}
	}
	event("request", "e1", `{"instances":[{"owner":"Annabel Lee","age":41}]}`)
	event("response", "e1", `{"predictions":[{"Annabel Lee":0.5,"plain":1}]}`)
	r.stored(t)
	for id, want := range map[string][]string{"n1": {"risk of ***", "to [email]", "score"}, "n2": {"risk of ***", "to [email]", "score"}, "e1": {"***", "plain"}} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		for _, name := range want {
			if p.Outputs[name] == nil || len(p.Outputs) != len(want) {
				t.Errorf("%s: outputs %v, want %v", id, p.Outputs, want)
			}
		}
		if id != "e1" && p.Features["seen by [email]"] == nil {
			t.Errorf("%s: features %v", id, p.Features)
		}
	}
	secrets := []string{"annabel", "example.org"}
	db := r.database(t)
	for table := range strings.FieldsSeq(sql(t, db, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View'")) {
		rows := strings.ToLower(sql(t, db, "SELECT * FROM `"+table+"` FORMAT TSV"))
		for _, s := range secrets {
			if strings.Contains(rows, s) {
				t.Errorf("table %s holds %q: %.1000s", table, s, rows)
			}
		}
	}
	_, metrics, _ := r.call(t, "GET", "/metrics", "")
	if !strings.Contains(string(metrics), "ml_server_import_names_total 8") {
		t.Errorf("the names are not counted: %s", metrics)
	}
	r.halt(t)
	kept, err := filepath.Glob(filepath.Join(cfg.Data, "models", "*", ".external.json"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("%v, %v", kept, err)
	}
	for _, path := range kept {
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if err != nil || strings.Contains(strings.ToLower(string(b)), s) {
				t.Errorf("%s holds %q: %s, %v", path, s, b, err)
			}
		}
	}
	if log := strings.ToLower(r.log.String()); strings.Contains(log, secrets[0]) || strings.Contains(log, secrets[1]) {
		t.Error("the log holds one")
	}
}

// TestOutputsCalledLikeWhatIsPrivate: an output that is called like a private feature may be that
// one, also in a version, or a model, that has no such feature.
func TestOutputsCalledLikeWhatIsPrivate(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "features: [{name: owner, private: drop}, {name: pay, private: hash}]\n")
	cfg := testConfig(t, models)
	cfg.Capture.Private = map[string]string{"shops.ssn": "drop", "*.pin": "mask"}
	r := startRig(t, cfg)
	send := func(model, version, outputs string) (accepted int, reason string) {
		t.Helper()
		var said struct {
			Accepted int
			Results  []collector.ImportResult
		}
		_, b, _ := r.call(t, "POST", "/api/v1/predictions", `{"model":"`+model+`","version":"`+version+`","features":{"age":41},"outputs":{`+outputs+`}}`)
		if err := json.Unmarshal(b, &said); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return said.Accepted, string(b)
	}
	for _, x := range []struct{ model, version, outputs string }{
		{"loans", "new", `"score":0.5,"owner":"CANARY-1"`},
		{"loans", "new", `"score":0.5,"OWNER":"CANARY-2"`},
		{"loans", "other", `"in.owner":"CANARY-3"`},
		{"loans", "other", `"pay":73731773.25`},
		{"shops", "1", `"ssn":"CANARY-4"`},
		{"shops", "", `"a":1,"pin":"CANARY-5"`},
	} {
		if n, why := send(x.model, x.version, x.outputs); n != 0 || !strings.Contains(why, "has the name of a private feature") {
			t.Errorf("%v: %d accepted, %q", x, n, why)
		}
	}
	for _, x := range []struct{ model, version, outputs string }{
		{"loans", "new", `"score":0.5,"owners":"a"`}, {"loans", "numbered", `"0":0.5,"1":0.5`}, {"shops", "1", `"f0":1,"f1":2`}, {"others", "1", `"ssn":"b"`},
	} {
		if n, why := send(x.model, x.version, x.outputs); n != 1 {
			t.Errorf("%v is refused: %q", x, why)
		}
	}
	// A version that is known by then is held to it too.
	if n, _ := send("loans", "new", `"score":0.5,"owner":"CANARY-6"`); n != 0 {
		t.Error("a known version takes it")
	}
	r.stored(t)
	r.halt(t)
	err := filepath.WalkDir(cfg.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(path, string(filepath.Separator)+"clickhouse"+string(filepath.Separator)) {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "CANARY-") {
			t.Errorf("%s holds one", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
