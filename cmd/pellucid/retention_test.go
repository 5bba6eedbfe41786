package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
)

// TestRetentionRemovesRowsAndThenTheModel lets a version's rows pass their time, once
// while it answers and once when it does not any more.
func TestRetentionRemovesRowsAndThenTheModel(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	other := treeCase(t, models, "kept", lightgbmData, "objective_binary")
	cfg := testConfig(t, models)
	cfg.Retention = retentionConfig{Default: keepFor(90 * 24 * time.Hour), Models: map[string]keepFor{"kept": 0}}
	r := startRig(t, cfg)
	until(t, "the first run", func() bool { return r.retentionStatus(t.Context()).Last != nil })
	id, _ := r.infer(t, "xgb", c)
	keptID, _ := r.infer(t, "kept", other)
	r.post(t, "/api/v1/predictions/"+id+".0/explain", `{}`, nil)
	r.post(t, "/api/v1/feedback", `{"prediction_id":"`+id+`.0","label":"1"}`, nil)
	v, err := r.models.Find("xgb", "")
	if err != nil {
		t.Fatal(err)
	}
	policy := cfg.Retention.policy()
	run, err := r.retain(t.Context(), policy, time.Now().Add(89*24*time.Hour))
	if err != nil || run.Removed["predictions"] != 0 || len(run.Versions) != 0 {
		t.Fatalf("before its time: %+v, %v", run, err)
	}
	run, err = r.retain(t.Context(), policy, time.Now().Add(92*24*time.Hour))
	if err != nil || run.Removed["predictions"] != int64(len(c.rows)) || run.Removed["feedback"] != 1 || run.Removed["explanations"] != 1 || len(run.Versions) != 0 {
		t.Fatalf("while it answers: %+v, %v", run, err)
	}
	if status, _, _ := r.call(t, "GET", "/api/v1/predictions/"+id, ""); status != http.StatusNotFound {
		t.Errorf("a prediction past its time: %d", status)
	}
	r.get(t, "/api/v1/predictions/"+keptID, nil)
	if err := os.RemoveAll(filepath.Join(models, "xgb")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(models, "kept")); err != nil {
		t.Fatal(err)
	}
	until(t, "it answers no more", func() bool { _, err := r.models.Find("xgb", ""); return errors.Is(err, collector.ErrNotFound) })
	until(t, "nor does the other", func() bool { _, err := r.models.Find("kept", ""); return errors.Is(err, collector.ErrNotFound) })
	run, err = r.retain(t.Context(), policy, time.Now())
	if err != nil || !slices.Equal(run.Versions, []string{v.Digest}) {
		t.Fatalf("when it answers no more: %+v, %v", run, err)
	}
	// Of the other predictions are left: it can be explained.
	r.post(t, "/api/v1/predictions/"+keptID+".0/explain", `{}`, nil)

	var got api.Retention
	r.get(t, "/api/v1/retention", &got)
	if got.Policy.Default != "90d" || got.Policy.Models["kept"] != "none" || got.Policy.Traces != "none" || got.Last == nil || got.Next == nil || len(got.Last.Versions) != 1 {
		t.Errorf("told: %+v", got)
	}
	var said []string
	for _, e := range auditEntries(t, cfg.Data) {
		if e.Action == "retention" || e.Action == "model.drop" {
			said = append(said, strings.TrimSpace(e.Action+" "+e.Outcome))
			if e.Actor != collector.OwnActor {
				t.Errorf("actor of %+v", e)
			}
		}
	}
	if want := []string{"retention", "retention", "retention begun", "retention", "model.drop", "retention"}; !slices.Equal(said, want) {
		t.Errorf("recorded %q, want %q", said, want)
	}
}

// TestRetentionIsWholeDays reads the configuration's words.
func TestRetentionIsWholeDays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	for text, want := range map[string]string{
		"retention: {default: 90d, models: {loans: 30d, audited: none}, traces: 2w}":                "default 90d, models map[audited:none loans:30d], tenants map[], traces 14d",
		"retention: {models: {loans: 48h}}":                                                         "default none, models map[loans:2d], tenants map[], traces none",
		"retention: {default: 1d, tenants: {acme: 30d, beta: none}}":                                "default 1d, models map[], tenants map[acme:30d beta:none], traces none",
		"retention: {tenants: {acme: 1h}}":                                                          "line 1",
		"retention: {subjects: {a: 1d}}":                                                            "subjects",
		"retention: {tenants: {a: 1d}}\nclickhouse: \"clickhouse://h/d\"\nclickhouse_cluster: prod": "tenants map[a:1d]",
		"retention: {default: 36h}":                                                                 "line 1",
		"retention: {default: soon}":                                                                "line 1",
		"retention: {tenants: {a: 1d}}":                                                             "tenants",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fs := serveCommand().Flags()
		if err := fs.Set("config", path); err != nil {
			t.Fatal(err)
		}
		cfg, err := loadConfig(fs, func(string) string { return "" })
		got := cfg.Retention.text()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestRetentionOfDeadLetters: what is set aside goes when its model's or its tenant's
// time is over, what nobody can read when everybody's is, and is counted.
func TestRetentionOfDeadLetters(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	day := keepFor(24 * time.Hour)
	cfg.Retention = retentionConfig{Default: 90 * day, Models: map[string]keepFor{"loans": 30 * day}, Tenants: map[string]keepFor{"acme": 10 * day}}
	r := startRig(t, cfg)
	until(t, "the first run", func() bool { return r.retentionStatus(t.Context()).Last != nil })
	now := time.Now()
	prediction := func(tenant, model string, at time.Time) []byte {
		return collector.AppendPrediction(nil, &collector.Prediction{ID: tenant + model, Tenant: tenant, Model: model, Rows: 1, ReceivedAt: at})
	}
	explained, err := collector.EncodeExplanation(&collector.Explanation{PredictionID: "x.0", Model: "loans"})
	if err != nil {
		t.Fatal(err)
	}
	letters := []collector.DeadLetter{
		{ID: "acme", Kind: collector.KindPrediction, Payload: prediction("acme", "delay", now)},
		{ID: "loans", Kind: collector.KindImported, Payload: prediction("default", "loans", now)},
		{ID: "bins", Insert: collector.InsertBins, Kind: collector.KindPrediction, Payload: prediction("default", "loans", now)},
		{ID: "label", Kind: collector.KindFeedback, Payload: collector.AppendFeedback(nil, &collector.Feedback{Tenant: "default", Model: "loans", PredictionID: "x", Label: "1", ObservedAt: now, ReceivedAt: now})},
		{ID: "explanation", Kind: collector.KindExplanation, Payload: explained},
		{ID: "received long ago", Kind: collector.KindPrediction, Payload: prediction("default", "delay", now.AddDate(0, 0, -60))},
		{ID: "delay", Kind: collector.KindPrediction, Payload: prediction("default", "delay", now)},
		{ID: "unreadable", Kind: collector.KindPrediction, Payload: []byte("?" + canaryText)},
		{ID: "driven", Driving: true, Kind: collector.KindPrediction, Payload: prediction("acme", "loans", now)},
	}
	for i := range letters {
		letters[i].Batch, letters[i].Position, letters[i].At, letters[i].Tries = "b", i, now, 1
	}
	if err := r.dead.Bury(letters); err != nil {
		t.Fatal(err)
	}
	policy := cfg.Retention.policy()
	for _, step := range []struct {
		days int
		gone string
	}{{9, ""}, {12, "acme"}, {12, ""}, {32, "bins explanation label loans received long ago"}, {89, ""}, {92, "delay unreadable"}} {
		before := r.dead.List()
		run, err := r.retain(t.Context(), policy, now.AddDate(0, 0, step.days))
		if err != nil {
			t.Fatal(err)
		}
		var gone []string
		for _, l := range before {
			if _, err := r.dead.Get(l.ID); errors.Is(err, collector.ErrNotFound) {
				gone = append(gone, l.ID)
			}
		}
		slices.Sort(gone)
		if got := strings.Join(gone, " "); got != step.gone || run.Removed["dead_letters"] != int64(len(gone)) {
			t.Errorf("after %d days %q are gone, want %q; told %v", step.days, got, step.gone, run.Removed)
		}
	}
	if left := r.dead.List(); len(left) != 1 || left[0].ID != "driven" {
		t.Errorf("left: %+v", left)
	}
	if paths := holding(t, filepath.Join(cfg.Data, "spool")); len(paths) > 0 {
		t.Errorf("letters that are gone are in %v", paths)
	}
	var total, begun int64
	for _, e := range auditEntries(t, cfg.Data) {
		if e.Action == "retention" && e.Outcome == "" {
			total += e.Counts["dead_letters"]
		}
		if e.Action == "retention" && e.Outcome == "begun" {
			begun++
		}
	}
	if total != 8 || begun < 3 {
		t.Errorf("recorded %d letters, begun %d times", total, begun)
	}
}
