package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// TestAFolderThatWaitsForImports loads a folder that says how predictions made elsewhere are
// recorded before the first has come: that is no fault of whoever asks, and the index says
// what it waits for. Its page says that it is not ready.
func TestAFolderThatWaitsForImports(t *testing.T) {
	models := t.TempDir()
	place(t, models, "waits/1/model.yaml", "task: binary\n")
	place(t, models, "wrong/1/model.yaml", "tusk: binary\n")
	r := startRig(t, testConfig(t, models))
	r.post(t, "/v2/repository/models/waits/load", "{}", nil)
	var list []collector.ModelState
	r.post(t, "/v2/repository/index", "{}", &list)
	if len(list) != 2 || list[0].Name != "waits" || list[0].State != "UNAVAILABLE" || !strings.HasPrefix(list[0].Reason, "nothing has been imported yet") {
		t.Errorf("listed %+v", list)
	}
	if status, b, _ := r.call(t, "POST", "/v2/repository/models/wrong/load", "{}"); status != http.StatusBadRequest || !strings.Contains(string(b), "tusk") {
		t.Errorf("one that is wrong: %d %s", status, b)
	}
	place(t, models, "waits/2/model.yaml", "tusk: binary\n")
	if status, b, _ := r.call(t, "POST", "/v2/repository/models/waits/load", "{}"); status != http.StatusBadRequest {
		t.Errorf("one beside a version that is wrong: %d %s", status, b)
	}
	status, b, _ := r.call(t, "GET", "/ui/models/waits", "")
	if page := string(b); status != http.StatusConflict || !strings.Contains(page, "<title>Not ready") || strings.Contains(page, "Conflict") {
		t.Errorf("its page: %d %s", status, page)
	}
}

// TestReasonsNameNoPlaces: what a version cannot be served for names its files from the
// models' folder on, not where on the server's disk that is.
func TestReasonsNameNoPlaces(t *testing.T) {
	models := t.TempDir()
	place(t, models, "bad/1/model.onnx", "this is no model")
	place(t, models, "bad/2/model.yaml", "reference: ref.csv\n")
	place(t, models, "bad/2/model.onnx", "nor this")
	r := startRig(t, testConfig(t, models))
	for _, ask := range []struct{ method, path, body string }{
		{"POST", "/v2/models/bad/infer", `{"inputs":[]}`},
		{"POST", "/v2/models/bad/versions/1/infer", `{"inputs":[]}`},
		{"GET", "/v2/models/bad/ready", ""},
		{"POST", "/v2/repository/index", "{}"},
		{"POST", "/v2/repository/models/bad/load", "{}"},
		{"GET", "/api/v1/models", ""},
		{"GET", "/ui/models/bad", ""},
	} {
		_, b, _ := r.call(t, ask.method, ask.path, ask.body)
		if strings.Contains(string(b), models) || strings.Contains(string(b), filepath.Dir(models)) {
			t.Errorf("%s %s: %s", ask.method, ask.path, b)
		}
	}
}

// TestImportsUnderNewRulesAfterARestart has the server's own rules change what a version
// that is imported is: it is brought back whole, with nothing to say against it.
func TestImportsUnderNewRulesAfterARestart(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "task: binary\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", `{"id":"a","model":"loans","features":{"who":"x","age":41},"outputs":{"score":0.5}}`, nil)
	r.stored(t)
	r.halt(t)
	cfg.Capture.Private = map[string]string{"loans.who": "drop"}
	for start := range 2 {
		r = startRig(t, cfg)
		r.post(t, "/v2/repository/models/loans/load", "{}", nil)
		var list []collector.ModelState
		r.post(t, "/v2/repository/index", "{}", &list)
		if len(list) != 1 || list[0].State != "READY" || list[0].Reason != "" || list[0].Private["who"] != collector.PrivacyDrop {
			t.Errorf("start %d: %+v", start, list)
		}
		r.halt(t)
	}
}

// TestErasureOnAFullDisk answers at once, and what it waits for: time alone does not help.
func TestErasureOnAFullDisk(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	r.settleTime = time.Hour // it is not waited for
	c.rows = c.rows[:1]
	f.cut()
	r.storeFull = func() bool { return true }
	r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"ann"}`), nil)
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", `{"external_id":"ann"}`); status != http.StatusServiceUnavailable || !strings.Contains(string(b), "full") {
		t.Errorf("while the disk is full: %d %s", status, b)
	}
	r.storeFull = nil
	f.open(t)
	var got api.Erasure
	r.post(t, "/api/v1/subjects/erase", `{"external_id":"ann"}`, &got)
	if got.Pending || got.Before["predictions"] != 1 || got.After["predictions"] != 0 {
		t.Errorf("when it has room: %+v", got)
	}
}
