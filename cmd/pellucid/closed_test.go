package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestAClosedModelIsShown with the reason, also on pages, and what is stored of it stays
// readable; it opens when its model.yaml is mended or its key is back.
func TestAClosedModelIsShown(t *testing.T) {
	const hides = "features: [{name: note, private: seal}]\n"
	models := t.TempDir()
	place(t, models, "elsewhere/7/model.yaml", hides)
	cfg := testConfig(t, models)
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.Private = map[string]string{"elsewhere.Amount": "drop"} // there is an amount
	r := startRig(t, cfg)
	if log := r.log.String(); !strings.Contains(log, "matches no field of any model") || !strings.Contains(log, "key=elsewhere.Amount") {
		t.Error("a key of capture.private that matches nothing is not warned of")
	}
	row := strings.Replace(importRow(1), `"note":null`, `"note":"a"`, 1)
	r.post(t, "/api/v1/predictions", row, nil)
	r.stored(t)
	load := func(want int, says string) {
		t.Helper()
		if status, b, _ := r.call(t, "POST", "/v2/repository/models/elsewhere/load", "{}"); status != want || !strings.Contains(string(b), says) {
			t.Errorf("load: %d %s", status, b)
		}
	}
	shown := func(state, reason string) {
		t.Helper()
		var list struct{ Models []collector.ModelState }
		r.get(t, "/api/v1/models", &list)
		if len(list.Models) != 1 || list.Models[0].State != state || !strings.Contains(list.Models[0].Reason, reason) || !reflect.DeepEqual(list.Models[0].Private, map[string]collector.Privacy{"note": collector.PrivacySeal}) {
			t.Errorf("listed %+v", list.Models)
		}
		for _, path := range []string{"/ui/", "/ui/models/elsewhere", "/ui/predictions?model=elsewhere"} {
			status, b, _ := r.call(t, "GET", path, "")
			if status != http.StatusOK || !strings.Contains(path, "predictions") && reason != "" && !strings.Contains(string(b), reason) {
				t.Errorf("%s: %d %s", path, status, b)
			}
			if strings.HasSuffix(path, "/elsewhere") && !strings.Contains(string(b), "note (seal)") {
				t.Errorf("%s does not say what is private", path)
			}
		}
		if status, b, _ := r.call(t, "GET", "/api/v1/models/elsewhere/traffic", ""); status != http.StatusOK {
			t.Errorf("what is stored: %d %s", status, b)
		}
	}
	load(http.StatusOK, "")
	shown("READY", "")
	place(t, models, "elsewhere/7/model.yaml", "features: [{name: note, privat: seal}]\n")
	load(http.StatusBadRequest, "opens by itself")
	shown("UNAVAILABLE", "unknown key privat")
	closed := func(says string) {
		t.Helper()
		if status, b, _ := r.call(t, "POST", "/api/v1/predictions", strings.Replace(row, "order-1", "order-2", 1)); status != http.StatusServiceUnavailable || !strings.Contains(string(b), says) || !strings.Contains(string(b), "opens by itself") {
			t.Errorf("an import: %d %s", status, b)
		}
	}
	closed("unknown key privat")
	place(t, models, "elsewhere/7/model.yaml", hides)
	load(http.StatusOK, "")
	shown("READY", "")
	r.halt(t)

	key := cfg.Capture.Key.File
	right := readFile(t, key)
	for _, wrong := range []string{readFile(t, writeKEK(t, "2")), ""} {
		if err := os.WriteFile(key, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		r = startRig(t, cfg)
		closed("key")
		load(http.StatusBadRequest, "key")
		if err := os.WriteFile(key, []byte(right), 0o600); err != nil {
			t.Fatal(err)
		}
		load(http.StatusOK, "")
		shown("READY", "")
		r.halt(t)
	}
}

// TestNothingOfARequestIsRecordedOfWhichOneRowIsClosed: without an id a row would be there
// twice once all is sent again.
func TestNothingOfARequestIsRecordedOfWhichOneRowIsClosed(t *testing.T) {
	models := t.TempDir()
	place(t, models, "closed/1/model.yaml", "features: [{name: x, privat: drop}]\n")
	r := startRig(t, testConfig(t, models))
	row := func(model string) string { return `{"model":"` + model + `","features":{"x":1},"outputs":{"y":2}}` }
	if status, b, _ := r.call(t, "POST", "/api/v1/predictions", "["+row("open")+","+row("closed")+"]"); status != http.StatusServiceUnavailable {
		t.Errorf("one open, one closed: %d %s", status, b)
	}
	r.post(t, "/api/v1/predictions", row("open"), nil)
	r.stored(t)
	var list struct{ Predictions []json.RawMessage }
	if r.get(t, "/api/v1/predictions?model=open", &list); len(list.Predictions) != 1 {
		t.Errorf("%d rows of the open one", len(list.Predictions))
	}
}

// TestAnUpstreamUnderAModelYAML: a file in the models' folder hides what the upstream's configuration
// does not. Nothing is asked of it or recorded by any road until the folder has gone.
func TestAnUpstreamUnderAModelYAML(t *testing.T) {
	asked, slow := make(chan struct{}, 100), make(chan struct{})
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			asked <- struct{}{}
			if b, err := io.ReadAll(r.Body); err != nil || bytes.Contains(b, []byte("Zwickau")) {
				<-slow
			}
			fmt.Fprint(w, `{"model_name":"w","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1]}]}`)
			return
		}
		fmt.Fprint(w, `{"name":"w","versions":["1"],"platform":"p","ready":true,"inputs":[{"name":"town","datatype":"BYTES","shape":[-1]},{"name":"x","datatype":"FP32","shape":[-1]}],`+
			`"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}`)
	}))
	defer far.Close()
	models := t.TempDir()
	place(t, models, "w/1/model.yaml", "features: [{name: town, private: drop}]\n")
	cfg := testConfig(t, models)
	cfg.Upstreams = upstreamsOf(t, "upstreams: [{name: w, url: "+far.URL+"}]")
	r := startRig(t, cfg)
	const infer = `{"inputs":[{"name":"town","datatype":"BYTES","shape":[1],"data":["Aachen"]},{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`
	roads := map[string]string{
		"/v2/models/w/infer":   infer,
		"/v1/models/w:predict": `{"instances":[{"town":"Aachen","x":1}]}`,
		"/api/v1/predictions":  `{"model":"w","version":"1","features":{"town":"Aachen","x":1},"outputs":{"y":2}}`,
	}
	var index []collector.ModelState
	until(t, "the upstream is shut", func() bool {
		r.post(t, "/v2/repository/index", "{}", &index)
		return len(index) == 1 && index[0].State == "UNAVAILABLE" && strings.Contains(index[0].Reason, "town")
	})
	for path, body := range roads {
		if status, b, _ := r.call(t, "POST", path, body); status != http.StatusServiceUnavailable || !strings.Contains(string(b), "w/1/model.yaml") {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	if len(asked) > 0 {
		t.Error("the upstream was asked")
	}
	if err := os.RemoveAll(filepath.Join(models, "w")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is open", func() bool {
		status, _, _ := r.call(t, "POST", "/v2/models/w/infer", infer)
		return status == http.StatusOK
	})
	r.post(t, "/api/v1/predictions", roads["/api/v1/predictions"], nil)
	// One that is under way when the file comes is recorded without its values.
	done := make(chan int)
	go func() {
		status, _, _ := r.call(t, "POST", "/v2/models/w/infer", strings.Replace(infer, "Aachen", "Zwickau", 1))
		done <- status
	}()
	for range len(asked) {
		<-asked
	}
	<-asked
	place(t, models, "w/1/model.yaml", "features: [{name: town, private: drop}]\n")
	until(t, "the upstream is shut again", func() bool {
		r.post(t, "/v2/repository/index", "{}", &index)
		return index[0].State == "UNAVAILABLE"
	})
	close(slow)
	if status := <-done; status != http.StatusOK {
		t.Errorf("what was under way is answered %d", status)
	}
	r.stored(t)
	db := r.database(t)
	if got := sql(t, db, "SELECT count(), countIf(has(str, 'Aachen')), countIf(has(str, 'Zwickau')), countIf(capture = 'none') FROM predictions"); got != "3\t2\t0\t1" {
		t.Errorf("rows, of Aachen, of Zwickau, without features: %s", got)
	}
}

// TestAnImportSaysWhyItWaits on standard error, once a reason.
func TestAnImportSaysWhyItWaits(t *testing.T) {
	answers := []string{"closed for this", "closed for this", "closed for that", ""}
	var n int
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		why := answers[n]
		n++
		if why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"accepted":1,"results":[{"status":"accepted"}]}`)
	}))
	defer far.Close()
	rows := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(rows, []byte("x,y\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	cmd := importCommand()
	cmd.SetArgs([]string{"--model", "m", "--outputs", "y", "--url", far.URL, rows})
	cmd.SetOut(&out)
	cmd.SetErr(&said)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, why := range []string{"closed for this", "closed for that"} {
		if strings.Count(said.String(), why) != 1 {
			t.Errorf("%q is not said once: %s", why, said.String())
		}
	}
	if !strings.Contains(out.String(), "1 accepted") {
		t.Error(out.String())
	}
}
