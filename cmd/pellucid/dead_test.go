package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

type deadPage struct {
	Letters []collector.DeadLetter `json:"dead_letters"`
	Count   int
}

// selfFires are the built-in rules that fire now, as Alertmanager's clients see them.
func (r *rig) selfFires(t *testing.T) string {
	t.Helper()
	var list []struct{ Labels map[string]string }
	r.get(t, "/api/v2/alerts", &list)
	var names []string
	for _, a := range list {
		names = append(names, a.Labels["alertname"])
	}
	return strings.Join(names, " ")
}

// pellucid runs a command line and returns what it prints.
func pellucid(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run(t.Context(), args, &out, &errs); status != 0 {
		t.Fatalf("pellucid %s: %d %s", strings.Join(args, " "), status, &errs)
	}
	return out.String()
}

// TestDeadLetters: what the store refuses is seen, mended and driven again, once
// however often it is driven and whatever is killed in between.
func TestDeadLetters(t *testing.T) {
	models := notedModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	db := r.database(t)
	total := func(what string, want int) {
		t.Helper()
		r.stored(t)
		if got := sql(t, db, "SELECT count(), uniqExact(id, row), (SELECT sum(rows) FROM traffic_1m) FROM predictions"); got != fmt.Sprintf("%d\t%d\t%d", want, want, want) {
			t.Errorf("%s: rows, different rows and rows counted are %s, want %d", what, got, want)
		}
	}
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_denmark CHECK NOT has(str, 'DK')")
	r.post(t, "/api/v1/predictions", strings.ReplaceAll(importList(0, 30), `"note":null`, `"note":"`+canaryText+`"`), nil)
	total("at first", 20)
	var list deadPage
	r.get(t, "/api/v1/dead-letters?limit=4", &list)
	if list.Count != 10 || len(list.Letters) != 4 || list.Letters[0].Reason != "VIOLATED_CONSTRAINT" || list.Letters[0].Model != "elsewhere" {
		t.Fatalf("letters: %+v", list)
	}
	id := list.Letters[0].ID
	var one api.DeadLetter
	r.get(t, "/api/v1/dead-letters/"+id, &one)
	if len(one.Predictions) != 1 || one.Predictions[0].Features["country"] != "DK" || one.Predictions[0].ID != one.Record {
		t.Errorf("one letter: %+v", one)
	}
	var dead collector.StoredPrediction
	if r.get(t, "/api/v1/predictions/"+one.Record, &dead); dead.ID != one.Record || dead.Features["country"] != "DK" {
		t.Errorf("a prediction that is a dead letter: %+v", dead)
	}
	for _, path := range []string{"/api/v1/dead-letters/" + id, "/ui/dead-letters/" + id, "/ui/health", "/ui/", "/metrics"} {
		status, b, _ := r.call(t, "GET", path, "")
		if status != http.StatusOK || bytes.Contains(b, []byte(canaryText)) {
			t.Errorf("%s: %d, or it has what is private", path, status)
		}
		if path == "/metrics" && !strings.Contains(string(b), `ml_spool_dead_letters{error_type="VIOLATED_CONSTRAINT",ml_model_name="elsewhere"`) {
			t.Error("the metrics do not tell of dead letters")
		}
		if path == "/ui/health" && !strings.Contains(string(b), `data-letter="`+id) {
			t.Error("the page does not show the letter")
		}
	}
	// Sent again, with other values: what was acknowledged first counts.
	var again struct{ Accepted, Duplicate int }
	r.post(t, "/api/v1/predictions", `[{"model":"elsewhere","id":`+strconv.Quote(one.Record)+`,"features":{"country":"NO"},"outputs":{"score":0.25}}]`, &again)
	if total("with one sent again", 20); again.Duplicate != 1 || again.Accepted != 0 {
		t.Errorf("a dead letter's prediction sent again: %+v", again)
	}
	if strings.Contains(r.log.String(), "DK") {
		t.Error("the log quotes a refused value")
	}
	until(t, "the alert fires", func() bool { return r.selfFires(t) == "PellucidDeadLetters" })
	if got := pellucid(t, "spool", "dead", "list", "--url", r.url); strings.Count(got, "\n") != 10 || !strings.Contains(got, id) {
		t.Errorf("spool dead list: %s", got)
	}
	if got := pellucid(t, "spool", "dead", "list", "--dir", filepath.Join(cfg.Data, "spool", "dead")); strings.Count(got, "\n") != 10 {
		t.Errorf("spool dead list of the folder: %s", got)
	}
	if got := pellucid(t, "spool", "dead", "show", "--url", r.url, id); !strings.Contains(got, one.Record) {
		t.Errorf("spool dead show: %s", got)
	}
	if got := pellucid(t, "spool", "dead", "show", "--url", r.url, id[:20]); !strings.Contains(got, one.Record) || !strings.Contains(got, `"predictions"`) {
		t.Errorf("spool dead show of the beginning of an id: %s", got)
	}
	twice := []collector.DeadLetter{{ID: "ab12"}, {ID: "ab34"}, {ID: "ab"}}
	for id, want := range map[string]string{"ab": "ab", "ab1": "ab12", "a": "", "c": "", "": ""} {
		if l, err := namedDead(twice, id); (err == nil) != (want != "") || err == nil && l.ID != want {
			t.Errorf("%q means %+v, %v", id, l, err)
		}
	}
	// One that is refused again is a letter again; one without its features is stored.
	pellucid(t, "spool", "dead", "drive", "--url", r.url, id)
	r.stored(t)
	r.get(t, "/api/v1/dead-letters", &list)
	if last := list.Letters[9]; list.Count != 10 || last.Record != one.Record || last.Tries != 2 {
		t.Errorf("driven in vain: %+v", list)
	}
	r.post(t, "/api/v1/dead-letters/drive", `{"ids":["`+list.Letters[9].ID+`"],"without_features":true}`, nil)
	total("one without features", 21)
	var stored collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+one.Record, &stored)
	if stored.Capture != "cut" || len(stored.Features) != 0 || stored.Outputs["score"] == nil {
		t.Errorf("stored without features: %+v", stored)
	}
	for _, bad := range []string{`{}`, `{"ids":["x"],"all":true}`, `{"ids":["none"]}`, `{"all":true} 1`, `{"every":true}`} {
		if status, b, _ := r.call(t, "POST", "/api/v1/dead-letters/drive", bad); status != http.StatusBadRequest && status != http.StatusNotFound {
			t.Errorf("%s: %d %s", bad, status, b)
		}
	}
	r.get(t, "/api/v1/dead-letters", &list)
	var deleted struct{ Deleted int }
	for _, l := range list.Letters[:2] {
		status, b, _ := r.call(t, "DELETE", "/api/v1/dead-letters/"+l.ID, "")
		decode(t, "DELETE", status, b, &deleted)
		if status, _, _ := r.call(t, "DELETE", "/api/v1/dead-letters/"+l.ID, ""); deleted.Deleted != 1 || status != http.StatusNotFound {
			t.Errorf("deleted %d, then %d", deleted.Deleted, status)
		}
	}
	// The store is away while all are driven, twice, and the server ends; one letter
	// was said to be on its way and was not yet appended.
	f.cut()
	r.get(t, "/api/v1/dead-letters", &list)
	all := list.Letters
	for range 2 {
		r.post(t, "/api/v1/dead-letters/drive", `{"ids":["`+all[0].ID+`","`+all[1].ID+`","`+all[2].ID+`"]}`, nil)
	}
	if status, b, _ := r.call(t, "DELETE", "/api/v1/dead-letters/"+all[0].ID, ""); status != http.StatusUnprocessableEntity {
		t.Errorf("deleted on its way: %d %s", status, b)
	}
	if err := r.dead.SetDriving([]string{all[3].ID}, true); err != nil {
		t.Fatal(err)
	}
	waiting := r.spool.Stats()
	if n := waiting.Appended - waiting.Acked; n != 3 { // what is on its way is not sent again
		t.Errorf("%d records wait", n)
	}
	r.halt(t)
	sql(t, db, "ALTER TABLE predictions DROP CONSTRAINT no_denmark")
	f.open(t)
	r = startRig(t, cfg)
	total("after a restart", 24)
	r.get(t, "/api/v1/dead-letters", &list)
	if list.Count != 4 {
		t.Fatalf("%d letters", list.Count)
	}
	for _, l := range list.Letters {
		if l.Driving {
			t.Errorf("a letter that was never appended is on its way: %+v", l)
		}
	}
	for range 2 {
		if _, err := r.driveDead(context.Background(), api.DriveRequest{All: true}); err != nil {
			t.Fatal(err)
		}
	}
	total("home", 28) // of 30, two were deleted
	if n := r.dead.Len(); n != 0 {
		t.Errorf("%d letters left", n)
	}
	until(t, "the alert is resolved", func() bool { return r.selfFires(t) == "" })
	until(t, "its history is stored", func() bool {
		return sql(t, db, "SELECT uniqExact(state) FROM alert_events WHERE rule = 'PellucidDeadLetters'") == "2"
	})
}

// TestLagAlert: a store that stays away fires PellucidLagging, on the page and in the
// log although its history cannot be written, and its return resolves it.
func TestLagAlert(t *testing.T) {
	models, cases := threeModels(t)
	cfg := testConfig(t, models)
	cfg.Alerts.Lag = duration(1) // any lag at all
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.cut()
	r.infer(t, "xgb", cases["xgb"])
	until(t, "the alert fires", func() bool { return r.selfFires(t) == "PellucidLagging" })
	until(t, "the drain has failed", func() bool { return r.writer.Health().Err != nil })
	st := r.status(t.Context())
	if st.Lag <= 0 || st.Waiting == 0 || st.Store == "ok" || st.Fill <= 0 || st.StoreSince.IsZero() {
		t.Errorf("status %+v", st)
	}
	if !strings.Contains(r.log.String(), "PellucidLagging") {
		t.Error("the log does not say so")
	}
	if status, b, _ := r.call(t, "GET", "/ui/health", ""); status != http.StatusOK || !strings.Contains(string(b), "The store cannot be written") {
		t.Errorf("the page: %d %s", status, b)
	}
	f.open(t)
	r.stored(t)
	if lag := r.spool.Stats().Lag; lag != 0 {
		t.Errorf("nothing waits, and the lag is %s", lag)
	}
	until(t, "the alert is resolved", func() bool { return r.selfFires(t) == "" })
	until(t, "its history is stored", func() bool {
		return sql(t, r.database(t), "SELECT uniqExact(state) FROM alert_events WHERE rule = 'PellucidLagging'") == "2"
	})
}

// TestDeadLetterIsChanged: one value of a letter is mended by hand, and it is stored with
// that, marked, and said in the audit log without the value; what is private cannot be.
func TestDeadLetterIsChanged(t *testing.T) {
	models := t.TempDir()
	place(t, models, "elsewhere/7/model.yaml", "task: binary\nclasses: [no, yes]\nfeatures: [{name: note, private: mask}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	db := r.database(t)
	sql(t, db, "ALTER TABLE predictions ADD CONSTRAINT no_denmark CHECK NOT has(str, 'DK')")
	sql(t, db, "ALTER TABLE feedback ADD CONSTRAINT no_maybe CHECK label != 'maybe'")
	r.post(t, "/api/v1/predictions", strings.ReplaceAll(importList(0, 6), `"note":null`, `"note":"`+canaryText+`"`), nil)
	r.post(t, "/api/v1/feedback", `[{"prediction_id":"order-0.0","label":"maybe"}]`, nil)
	r.stored(t)
	var list deadPage
	r.get(t, "/api/v1/dead-letters", &list)
	if list.Count != 3 {
		t.Fatalf("letters: %+v", list)
	}
	letters := map[string]collector.DeadLetter{}
	for _, l := range list.Letters {
		letters[l.Insert+" "+l.Record] = l
	}
	first, second, label := letters["predictions order-2.2"], letters["predictions order-5.2"], letters["feedback order-0.0"]
	for _, bad := range []string{
		`"edit":{"set":{"note":"` + canaryText + `"}}`, `"edit":{"drop":["note"]}`, `"edit":{"set":{"nosuch":"1"}}`, `"edit":{"set":{"label":"no"}}`, `"edit":{"set":{"amount":"much"}}`, `"edit":{"drop":["nosuch"]}`,
		`"edit":{"set":{"vip":"perhaps"}}`, `"edit":{}`, `"edit":{"row":1,"set":{"amount":"1"}}`, `"edit":{"row":-1,"drop":["amount"]}`, `"without_features":true,"edit":{"drop":["amount"]}`,
		`"edit":{"set":{"country":"` + strings.Repeat("x", 2000) + `"}}`,
	} {
		if status, b, _ := r.call(t, "POST", "/api/v1/dead-letters/drive", `{"ids":["`+first.ID+`"],`+bad+`}`); status != http.StatusBadRequest || leaks(b) != "" {
			t.Errorf("%s: %d %s", bad, status, b)
		}
	}
	if status, b, _ := r.call(t, "POST", "/api/v1/dead-letters/drive", `{"ids":["`+label.ID+`"],"edit":{"set":{"label":""}}}`); status != http.StatusBadRequest {
		t.Errorf("an empty label: %d %s", status, b)
	}
	// What is on its way as it was may be stored so.
	if err := r.dead.SetDriving([]string{first.ID}, true); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{`"edit":{"set":{"country":"SE"}}`, `"without_features":true`} {
		if status, b, _ := r.call(t, "POST", "/api/v1/dead-letters/drive", `{"ids":["`+first.ID+`"],`+change+`}`); status < 400 || status >= 500 || !strings.Contains(string(b), "on its way to the store as it is") {
			t.Errorf("%s of a letter that is driven: %d %s", change, status, b)
		}
	}
	if err := r.dead.SetDriving([]string{first.ID}, false); err != nil {
		t.Fatal(err)
	}
	// Nor is a value set that has become private since.
	place(t, models, "elsewhere/7/model.yaml", "task: binary\nclasses: [no, yes]\nfeatures: [{name: note, private: mask}, {name: country, private: drop}]\n")
	r.post(t, "/v2/repository/models/elsewhere/load", "{}", nil)
	if status, b, _ := r.call(t, "POST", "/api/v1/dead-letters/drive", `{"ids":["`+first.ID+`"],"edit":{"set":{"country":"SE"}}}`); status != http.StatusBadRequest || !strings.Contains(string(b), "private (drop)") {
		t.Errorf("a value that is private by now: %d %s", status, b)
	}
	place(t, models, "elsewhere/7/model.yaml", "task: binary\nclasses: [no, yes]\nfeatures: [{name: note, private: mask}]\n")
	r.post(t, "/v2/repository/models/elsewhere/load", "{}", nil)
	before := len(actions(auditEntries(t, cfg.Data)))
	pellucid(t, "spool", "dead", "edit", "--url", r.url, first.ID, "--set", "country=SE", "--set", "amount=7", "--drop", "amount")
	pellucid(t, "spool", "dead", "edit", "--url", r.url, second.ID[:20], "--set", "country=NO", "--set", "vip=true")
	pellucid(t, "spool", "dead", "edit", "--url", r.url, label.ID, "--set", "label=yes")
	until(t, "all are stored", func() bool { r.get(t, "/api/v1/dead-letters", &list); return list.Count == 0 })
	var a, b, c collector.StoredPrediction
	r.get(t, "/api/v1/predictions/order-2.2", &a)
	r.get(t, "/api/v1/predictions/order-5.2", &b)
	r.get(t, "/api/v1/predictions/order-0.0", &c)
	if a.Features["country"] != "SE" || a.Features["amount"] != nil || a.Features["note"] != "***" || a.Capture != collector.CaptureRedacted || a.Outputs["score"] == nil {
		t.Errorf("the first: %+v", a)
	}
	if b.Features["country"] != "NO" || b.Features["vip"] != true || b.Features["amount"] != 5.5 {
		t.Errorf("the second: %+v", b)
	}
	if len(c.Labels) == 0 || c.Labels[0].Label != "yes" {
		t.Errorf("the label: %+v", c.Labels)
	}
	list2 := auditEntries(t, cfg.Data)
	if got := strings.Join(actions(list2)[before:], "; "); strings.Count(got, "dead_letters.edit elsewhere") < 2 || strings.Count(got, "dead_letters.edit") != 3 {
		t.Errorf("recorded %s", got)
	}
	for _, e := range list2 {
		if e.Action == "dead_letters.edit" && strings.Contains(e.Object, first.ID) && e.Object != "dead letter "+first.ID+": amount, country, amount" {
			t.Errorf("entry %+v", e)
		}
	}
}
