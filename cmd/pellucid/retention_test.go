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
		"retention: {default: 90d, models: {loans: 30d, audited: none}, traces: 2w}": "default 90d, models map[audited:none loans:30d], traces 14d",
		"retention: {models: {loans: 48h}}":                                          "default none, models map[loans:2d], traces none",
		"retention: {default: 36h}":                                                  "line 1",
		"retention: {default: soon}":                                                 "line 1",
		"retention: {tenants: {a: 1d}}":                                              "tenants",
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
