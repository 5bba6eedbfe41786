package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/keys"
)

// auditEntries reads the audit log of a data folder, which has to be whole.
func auditEntries(t *testing.T, data string) []audit.Entry {
	t.Helper()
	key, err := keys.ReadSecret(filepath.Join(data, "audit", "key"))
	if err != nil {
		t.Fatal(err)
	}
	var out []audit.Entry
	r, err := audit.Verify(filepath.Join(data, "audit"), key, nil, func(e *audit.Entry) { out = append(out, *e) })
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("the audit log: %v", r.Problems)
	}
	return out
}

// actions are what was done, without the log's own entries.
func actions(list []audit.Entry) (out []string) {
	for _, e := range list {
		if !strings.HasPrefix(e.Action, "audit.") {
			out = append(out, strings.TrimSpace(e.Action+" "+e.Model+" "+e.Outcome))
		}
	}
	return out
}

func doctorOn(t *testing.T, cfg config, more ...string) (status int, checks map[string]result) {
	t.Helper()
	var out, errs bytes.Buffer
	args := append([]string{"doctor", "--data", cfg.Data, "--models", cfg.Models, "--clickhouse", cfg.ClickHouse, "--format", "json"}, more...)
	status = run(t.Context(), args, &out, &errs)
	var got struct {
		OK     bool     `json:"ok"`
		Checks []result `json:"checks"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s%s", err, &out, &errs)
	}
	if got.OK != (status == 0) {
		t.Errorf("status %d says other than %s", status, &out)
	}
	checks = map[string]result{}
	for _, c := range got.Checks {
		checks[c.Check] = c
	}
	return status, checks
}

// TestWhoReadWhatIsRecorded reads, lists, counts, explains and administers, and looks
// into the log, which must not tell a value.
func TestWhoReadWhatIsRecorded(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	cfg.Audit.HeadFile = filepath.Join(t.TempDir(), "heads")
	r := startRig(t, cfg)
	c.rows = c.rows[:1]
	h := r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"`+canaryText+`"}`), nil)
	id := h.Get("Pellucid-Prediction-Id")
	r.stored(t)
	if list := auditEntries(t, cfg.Data); len(actions(list)) != 0 {
		t.Errorf("a prediction is recorded: %+v", list)
	}
	where := "&where=" + url.QueryEscape("external_id = '"+canaryText+"'")
	r.get(t, "/api/v1/predictions/"+id, nil)
	r.get(t, "/api/v1/predictions?model=xgb"+where, nil)
	r.get(t, "/api/v1/predictions?model=xgb&count=true"+where, nil)
	r.post(t, "/api/v1/predictions/"+id+"/explain", `{}`, nil)
	r.post(t, "/v2/repository/models/xgb/unload", "", nil)
	r.post(t, "/v2/repository/models/xgb/load", "", nil)
	for _, act := range []string{"load", "unload"} {
		if status, b, _ := r.call(t, "POST", "/v2/repository/models/"+canaryText+"/"+act, ""); status < 400 {
			t.Errorf("%s of no model: %d %s", act, status, b)
		}
	}
	r.call(t, "POST", "/api/v1/subjects/erase", `{"model":"`+canaryText+`","external_id":"`+canaryText+`","dry_run":true}`)
	for _, made := range []string{"?model=" + canaryText, "?model=xgb&version=" + canaryText} {
		r.call(t, "GET", "/api/v1/predictions"+made, "")
	}
	if status, _, _ := r.call(t, "GET", "/api/v1/predictions/"+canaryText, ""); status != http.StatusNotFound {
		t.Fatalf("an id that is not: %d", status)
	}

	list := auditEntries(t, cfg.Data)
	want := []string{
		"read xgb", "read xgb", "count xgb", "explain xgb", "model.unload xgb", "model.load xgb",
		"model.load " + r.audit.Hash(canaryText), "model.load " + r.audit.Hash(canaryText) + " failed", "model.unload " + r.audit.Hash(canaryText), "model.unload " + r.audit.Hash(canaryText) + " failed",
		"erase " + r.audit.Hash(canaryText) + " dry run", "read " + r.audit.Hash(canaryText), "read xgb",
	}
	if got := actions(list); !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	for _, e := range list {
		switch {
		case e.Action == "explain" && (e.TraceID == "" || e.Object != "prediction "+id):
			t.Errorf("explain: %+v", e)
		case e.Action == "count" && e.Object != "predictions where external_id = "+r.audit.Hash(canaryText):
			t.Errorf("count: %+v", e)
		case !strings.HasPrefix(e.Action, "audit.") && !strings.HasPrefix(e.Actor, "loopback 127.0.0.1:"):
			t.Errorf("actor: %+v", e)
		}
	}
	raw, err := os.ReadFile(filepath.Join(cfg.Data, "audit", "00000001.log"))
	if err != nil || leaks(raw) != "" {
		t.Errorf("the log holds a value, or %v", err)
	}
	if status, checks := doctorOn(t, cfg, "--audit-head", cfg.Audit.HeadFile); status != 0 {
		t.Errorf("the doctor beside a running server: %+v", checks)
	}

	// What cannot be recorded is not read; predictions go on.
	if err := r.audit.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/v1/predictions/" + id, "/api/v1/predictions?model=xgb", "/ui/predictions/" + id + ".0"} {
		if status, b, _ := r.call(t, "GET", path, ""); status != http.StatusServiceUnavailable || bytes.Contains(b, []byte(canaryText)) {
			t.Errorf("unrecorded: %s: %d %s", path, status, b)
		}
	}
	if status, b, _ := r.call(t, "POST", "/v2/repository/models/xgb/unload", ""); status != http.StatusServiceUnavailable {
		t.Errorf("unrecorded: unload: %d %s", status, b)
	}
	r.infer(t, "xgb", c)
}

// TestDoctorFindsWhatWasDone damages a data folder in the ways the doctor looks for.
func TestDoctorFindsWhatWasDone(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	cfg.Audit.HeadFile = filepath.Join(t.TempDir(), "heads")
	r := startRig(t, cfg)
	id, _ := r.infer(t, "xgb", c)
	r.get(t, "/api/v1/predictions/"+id, nil)
	v, err := r.models.Find("xgb", "")
	if err != nil {
		t.Fatal(err)
	}
	digest := v.Digest
	r.halt(t)
	if status, checks := doctorOn(t, cfg, "--audit-head", cfg.Audit.HeadFile); status != 0 || !strings.Contains(checks["audit"].Detail, "heads fit") || checks["kept"].Detail != "1 versions are what their digests say" {
		t.Fatalf("a whole folder: %+v", checks)
	}
	path := filepath.Join(cfg.Data, "audit", "00000001.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for what, b := range map[string][]byte{
		"cut":     bytes.Join(lines[:len(lines)-2], nil),
		"changed": bytes.Replace(whole, []byte(`"action":"read"`), []byte(`"action":"rest"`), 1),
		"dropped": bytes.Join(append(slices.Clone(lines[:1]), lines[2:]...), nil),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if status, checks := doctorOn(t, cfg); status != 1 || checks["audit"].OK {
			t.Errorf("the audit log was %s: %d %+v", what, status, checks["audit"])
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(cfg.Data, "models", digest, "model.*"))
	if err != nil || len(kept) == 0 {
		t.Fatal(kept, err)
	}
	if err := os.WriteFile(kept[0], []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, checks := doctorOn(t, cfg); status != 1 || checks["kept"].OK || !strings.Contains(checks["kept"].Detail, digest) {
		t.Errorf("a stored model was changed: %d %+v", status, checks["kept"])
	}
	if status, checks := doctorOn(t, cfg, "--audit-head", filepath.Join(t.TempDir(), "none")); status != 1 || checks["audit"].OK {
		t.Errorf("heads that are gone: %d %+v", status, checks["audit"])
	}
}

// TestWhoWasRefusedIsRecorded: what nobody on this machine asks for of sealed values is
// refused, and in the log; so are rows explained that were brought along.
func TestWhoWasRefusedIsRecorded(t *testing.T) {
	cfg := sealedFlights(t)
	r := startRig(t, cfg)
	id := r.post(t, "/v2/models/flights/infer", flightBody(canaryText, canaryNumber), nil).Get("Pellucid-Prediction-Id") + ".0"
	r.stored(t)
	// Through a proxy nobody is known to be on this machine.
	ask := func(method, path, body string, elsewhere bool) int {
		req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if elsewhere {
			req.Header.Set("X-Forwarded-For", "127.0.0.1")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const byID, brought, listed = "prediction ", "rows brought along, version 1", "predictions"
	var want, got []string
	for _, c := range []struct {
		method, path, body string
		elsewhere          bool
		status             int
		entry              string
	}{
		{"POST", "/v2/models/flights/explain", flightBody(canaryText, canaryNumber), false, 200, "explain flights  " + brought},
		{"POST", "/v2/models/flights/explain", flightBody(canaryText, canaryNumber), true, 422, "explain flights refused " + brought},
		{"POST", "/api/v1/predictions/" + id + "/explain", `{}`, true, 422, "explain flights refused " + byID + id},
		{"POST", "/ui/predictions/" + id + "/explain", "", false, 422, "explain flights refused " + byID + id},
		{"GET", "/api/v1/predictions/" + id + "?unseal=true", "", true, 422, "unseal flights refused " + byID + id},
		{"GET", "/api/v1/predictions?model=flights&unseal=true", "", true, 422, "unseal flights refused " + listed},
		{"GET", "/api/v1/predictions/" + id, "", true, 200, "read flights  " + byID + id},
		{"GET", "/api/v1/predictions/" + canaryText, "", true, 404, ""},
		{"POST", "/api/v1/keys/rotate", "", true, 403, "keys.rotate  refused "},
		{"POST", "/api/v1/keys/forget", `{"subject":"` + canaryText + `"}`, true, 403, "keys.forget  refused "},
	} {
		if status := ask(c.method, c.path, c.body, c.elsewhere); status != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, status, c.status)
		}
		if c.entry != "" {
			want = append(want, c.entry)
		}
	}
	for _, e := range auditEntries(t, cfg.Data) {
		if !strings.HasPrefix(e.Action, "audit.") {
			got = append(got, strings.Join([]string{e.Action, e.Model, e.Outcome, e.Object}, " "))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	raw, err := os.ReadFile(filepath.Join(cfg.Data, "audit", "00000001.log"))
	if err != nil || leaks(raw) != "" {
		t.Errorf("the log holds a value, or %v", err)
	}
	// What cannot be recorded is not explained.
	if err := r.audit.Close(); err != nil {
		t.Fatal(err)
	}
	for _, elsewhere := range []bool{false, true} {
		if status := ask("POST", "/v2/models/flights/explain", flightBody(canaryText, canaryNumber), elsewhere); status != http.StatusServiceUnavailable {
			t.Errorf("unrecorded: %d", status)
		}
	}
	if status := ask("POST", "/api/v1/keys/rotate", "", true); status != http.StatusServiceUnavailable {
		t.Errorf("an unrecorded refusal: %d", status)
	}
}

// TestExportIsRecorded: rows that are taken out past the server are in its audit log first,
// through the server while it runs, and nothing is taken out that is not.
func TestExportIsRecorded(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	c.rows = c.rows[:1]
	r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"`+canaryText+`"}`), nil)
	r.stored(t)
	args := []string{"export", "--model", "xgb", "--clickhouse", cfg.ClickHouse, "--from", "2020-01-01", "--where", "external_id = '" + canaryText + "'"}
	beside := append(slices.Clone(args), "--data", cfg.Data)
	for _, more := range [][]string{append(slices.Clone(beside), "--url", r.url), append(slices.Clone(args), "--data", t.TempDir(), "--url", r.url)} {
		if status, out, errOut := command(t, more...); status != 0 || !strings.Contains(out, canaryText) {
			t.Fatalf("%d %s%s", status, out, errOut)
		}
	}
	if status, out, errOut := command(t, append(slices.Clone(beside), "--url", "http://127.0.0.1:1")...); status == 0 || out != "" || !strings.Contains(errOut, "audit log") {
		t.Errorf("without a server to record it: %d %s%s", status, out, errOut)
	}
	if status, _, errOut := command(t, append(slices.Clone(args), "--data", t.TempDir())...); status != 0 || !strings.Contains(errOut, "nothing records this export") {
		t.Errorf("where there is no log: %d %s", status, errOut)
	}
	about := "predictions from 2020-01-01T00:00:00Z where external_id = " + r.audit.Hash(canaryText)
	r.halt(t)
	if status, out, errOut := command(t, beside...); status != 0 || !strings.Contains(out, canaryText) {
		t.Fatalf("with no server: %d %s%s", status, out, errOut)
	}
	list := auditEntries(t, cfg.Data)
	if got := actions(list); !slices.Equal(got, []string{"export xgb", "export xgb", "export xgb"}) {
		t.Fatalf("recorded %q", got)
	}
	for i, e := range slices.DeleteFunc(list, func(e audit.Entry) bool { return e.Action != "export" }) {
		if who := map[bool]string{true: "command line", false: "loopback 127.0.0.1:"}[i == 2]; e.Object != about || e.Counts["predictions"] != 1 || !strings.HasPrefix(e.Actor, who) {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
}
