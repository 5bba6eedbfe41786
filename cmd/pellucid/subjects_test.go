package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/dashboards/api"
)

// holding lists the files of a folder that hold a canary. Files may go while it looks.
func holding(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // deleted meanwhile
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(canaryText)) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// admin runs a statement on a rig's own engine, and returns its answer.
func (r *rig) admin(t *testing.T, query string) string {
	t.Helper()
	env := r.engine.Env()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+env.HTTPAddress()+"/?database="+env.Database, strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-ClickHouse-User", env.AdminUser)
	req.Header.Set("X-ClickHouse-Key", env.AdminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s", query, err, b)
	}
	return strings.TrimSpace(string(b))
}

// TestErasedPersonIsNotOnTheDisk follows somebody's id and features through an
// erasure, on an engine of its own, to the last byte of the data folder. At level machine
// the spool keeps what is acknowledged for a while.
func TestErasedPersonIsNotOnTheDisk(t *testing.T) {
	for _, level := range []string{"process", "machine"} {
		t.Run(level, func(t *testing.T) { erasePerson(t, level) })
	}
}

func erasePerson(t *testing.T, level string) {
	t.Helper()
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	cfg.ClickHouse = ""
	cfg.Capture.Durability = level
	r := startRig(t, cfg)
	r.halt(t)
	// Of the server and not of its tables, which at level machine may not say so.
	dir := filepath.Join(cfg.Data, "clickhouse", "config.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const soon = "<clickhouse><merge_tree><old_parts_lifetime>1</old_parts_lifetime><cleanup_delay_period>1</cleanup_delay_period>" +
		"<max_cleanup_delay_period>1</max_cleanup_delay_period><cleanup_delay_period_random_add>0</cleanup_delay_period_random_add></merge_tree></clickhouse>"
	if err := os.WriteFile(filepath.Join(dir, "soon.xml"), []byte(soon), 0o600); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	c.rows = c.rows[:1]
	h := r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"`+canaryText+`"}`), nil)
	id := h.Get("Pellucid-Prediction-Id")
	other := r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"bob"}`), nil).Get("Pellucid-Prediction-Id")
	for i := range 3 {
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"model":"churn","id":"order-%d","external_id":"%s","features":{"name":"%s %d","age":4%d},"outputs":{"score":0.5}}`,
			i, canaryText, canaryText, i, i), nil)
	}
	r.post(t, "/api/v1/feedback", `[{"external_id":"`+canaryText+`","label":"1"},{"prediction_id":"`+id+`","label":"1"},{"external_id":"bob","label":"0"}]`, nil)
	r.post(t, "/api/v1/predictions/"+id+"/explain", `{}`, nil)
	if len(holding(t, cfg.Data)) == 0 {
		t.Fatal("the canary is not even written: the search sees nothing")
	}

	var got api.Erasure
	request := `{"external_id":"` + canaryText + `"`
	r.post(t, "/api/v1/subjects/erase", request+`,"dry_run":true}`, &got)
	if got.Before["predictions"] != 4 || got.Before["feedback"] != 2 || got.Before["explanations"] != 1 || got.Before["otel_traces"] == 0 || got.After != nil || !got.DryRun {
		t.Fatalf("a dry run: %+v", got)
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", request+`,"expect":3}`); status != http.StatusUnprocessableEntity {
		t.Fatalf("another number than expected: %d %s", status, b)
	}
	got = api.Erasure{}
	r.post(t, "/api/v1/subjects/erase", request+`,"expect":4}`, &got)
	for table, n := range got.After {
		if n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
	}
	if got.Before["predictions"] != 4 || len(got.After) != 8 || got.FilesGoneBy == nil || got.FilesGoneBy.After(time.Now().Add(12*time.Minute)) || len(got.Stays) == 0 {
		t.Errorf("the proof: %+v", got)
	}
	if status, _, _ := r.call(t, "GET", "/api/v1/predictions/"+id, ""); status != http.StatusNotFound {
		t.Errorf("an erased prediction: %d", status)
	}
	r.get(t, "/api/v1/predictions/"+other, nil)
	until(t, "the old files are gone", func() bool { return len(holding(t, cfg.Data)) == 0 })
	if leaks([]byte(r.log.String())) != "" {
		t.Error("the log holds the canary")
	}
	r.halt(t)
	if paths := holding(t, cfg.Data); len(paths) > 0 {
		t.Errorf("the canary is in %q", paths)
	}
	list := auditEntries(t, cfg.Data)
	if got := actions(list); !slices.Equal(got, []string{"explain xgb", "erase  dry run", "erase  refused", "erase  begun", "erase", "read xgb"}) {
		t.Errorf("recorded %q", got)
	}
}

// TestExportIsEverythingOfASubject reads a subject through the command, while some of
// it is still in the spool, and erases it with the other.
func TestExportIsEverythingOfASubject(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	r := startRig(t, testConfig(t, models))
	c.rows = c.rows[:1]
	id := r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"ann"}`), nil).Get("Pellucid-Prediction-Id")
	r.post(t, "/api/v1/feedback", `{"external_id":"ann","label":"1"}`, nil)
	r.post(t, "/api/v1/predictions/"+id+"/explain", `{}`, nil)
	status, out, errOut := command(t, "export", "--external-id", "ann", "--url", r.url)
	if status != 0 {
		t.Fatalf("%d %s", status, errOut)
	}
	kinds := map[string]int{}
	var first struct {
		Subject struct {
			Counts  map[string]int64
			Pending bool
		}
	}
	for scan := bufio.NewScanner(strings.NewReader(out)); scan.Scan(); {
		var line map[string]json.RawMessage
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			t.Fatalf("%v in %s", err, scan.Text())
		}
		if len(kinds) == 0 {
			if err := json.Unmarshal(scan.Bytes(), &first); err != nil {
				t.Fatal(err)
			}
		}
		for kind := range line {
			kinds[kind]++
		}
	}
	if kinds["subject"] != 1 || kinds["prediction"] != 1 || kinds["feedback"] != 1 || kinds["explanation"] != 1 || kinds["span"] == 0 || first.Subject.Pending || !strings.Contains(out, id) {
		t.Errorf("exported %v, %+v", kinds, first)
	}
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{"erase", "--external-id", "ann", "--url", r.url}, 2, "--yes"},
		{[]string{"erase", "--url", r.url}, 2, "one of external_id"},
		{[]string{"erase", "--model", "xgb", "--where", "nothing = 1", "--url", r.url}, 2, "unknown name"},
		{[]string{"export", "--external-id", "ann", "--from", "2026-01-01", "--url", r.url}, 2, "--from"},
		{[]string{"erase", "--external-id", "ann", "--dry-run", "--url", r.url}, 0, "predictions 1"},
		{[]string{"erase", "--external-id", "ann", "--yes", "--url", r.url}, 0, "left: dead_letters 0 explanations 0 feedback 0"},
		{[]string{"erase", "--external-id", "ann", "--dry-run", "--url", r.url}, 0, "predictions 0"},
	} {
		status, out, errOut := command(t, c.args...)
		if status != c.status || !strings.Contains(out+errOut, c.say) {
			t.Errorf("%v: %d %s%s; want %d with %q", c.args, status, out, errOut, c.status, c.say)
		}
	}
	for _, body := range []string{`{"external_id":"a","where":"score > 1","model":"xgb"}`, `{"externalid":"a"}`, `{"external_id":1}`, `[]`, ``, `{"external_id":"a"}{}`, `{"external_id":"` + strings.Repeat("a", 70_000) + `"}`} {
		if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", body); status != http.StatusBadRequest {
			t.Errorf("%.60s: %d %s", body, status, b)
		}
	}
}

// TestErasureWaitsForTheSpool asks while the store is away and something waits for it.
func TestErasureWaitsForTheSpool(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	r.settleTime = 200 * time.Millisecond
	c.rows = c.rows[:1]
	if err := r.drained(t.Context()); err != nil {
		t.Fatalf("with nothing on its way: %v", err)
	}
	f.cut()
	r.post(t, "/v2/models/xgb/infer", c.body(`{"external_id":"ann"}`), nil)
	if err := r.drained(t.Context()); !errors.Is(err, api.ErrPending) {
		t.Errorf("while a record waits: %v", err)
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/subjects/erase", `{"external_id":"ann"}`); status != http.StatusServiceUnavailable {
		t.Errorf("while the store is away: %d %s", status, b)
	}
	f.open(t)
	r.settleTime = 0
	var got api.Erasure
	r.post(t, "/api/v1/subjects/erase", `{"external_id":"ann"}`, &got)
	if got.Pending || got.Before["predictions"] != 1 || got.After["predictions"] != 0 {
		t.Errorf("when it is back: %+v", got)
	}
}

// TestErasureTakesClearValuesOfHashedFeatures names somebody by a value that only its
// keyed hash is stored of.
func TestErasureTakesClearValuesOfHashedFeatures(t *testing.T) {
	models := t.TempDir()
	place(t, models, "churn/1/model.yaml", "features:\n  - {name: customer, private: hash}\n  - {name: account, private: hash}\n")
	r := startRig(t, testConfig(t, models))
	for i, who := range []string{canaryText, "bob"} {
		r.post(t, "/api/v1/predictions", fmt.Sprintf(`{"model":"churn","id":"order-%d","features":{"customer":%q,"account":%d.25,"age":41},"outputs":{"score":0.5}}`, i, who, 17+i), nil)
	}
	r.stored(t)
	var p struct{ Features map[string]any }
	r.get(t, "/api/v1/predictions/order-0", &p)
	if stored, ok := p.Features["customer"].(string); !ok || len(stored) != 32 {
		t.Fatalf("not stored as a hash: %v", p.Features)
	}
	for where, want := range map[string]int64{
		"customer = '" + canaryText + "'": 1, "customer in ('" + canaryText + "', 'bob')": 2, "customer = 'nobody'": 0, "account = 17.25": 1, "account = '18.25' and age = 41": 1,
	} {
		var got api.Erasure
		r.post(t, "/api/v1/subjects/erase", fmt.Sprintf(`{"model":"churn","where":%q,"dry_run":true}`, where), &got)
		if got.Before["predictions"] != want {
			t.Errorf("%s: %d predictions, want %d", where, got.Before["predictions"], want)
		}
	}
	var got api.Erasure
	r.post(t, "/api/v1/subjects/erase", `{"model":"churn","where":"customer = '`+canaryText+`'"}`, &got)
	if got.After["predictions"] != 0 || got.Before["predictions"] != 1 {
		t.Errorf("erased: %+v", got)
	}
	r.get(t, "/api/v1/predictions/order-1", nil)
	raw, err := os.ReadFile(filepath.Join(r.cfg.Data, "audit", "00000001.log"))
	if err != nil || leaks(raw) != "" {
		t.Errorf("the audit log holds the value, or %v", err)
	}
}
