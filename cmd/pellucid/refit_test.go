package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestRefit walks the README's commands: a model is served, its labelled predictions are
// exported, trees are fitted to them, and the server takes the new version, whose
// categories are text, whose drift is watched from its first request and whose labels
// are measured.
func TestRefit(t *testing.T) {
	dir := t.TempDir()
	models := filepath.Join(dir, "models")
	row := func(i int) (city string, age float64, late int) {
		city, age = []string{"Zürich", "Genf", "Bern"}[i%3], float64(i*37%80)
		if city == "Genf" && age > 30 || age > 70 {
			late = 1
		}
		return city, age, late
	}
	var first strings.Builder
	first.WriteString("city,age,late\n")
	for i := range 300 {
		city, age, _ := row(i)
		fmt.Fprintf(&first, "%s,%g,%d\n", city, age, i%7%2) // it knows nothing of what is late
	}
	place(t, dir, "first.csv", first.String())
	fit := func(args ...string) string {
		t.Helper()
		status, out, stderr := command(t, append([]string{"model", "fit", "--kind", "trees", "--rounds", "30"}, args...)...)
		if status != 0 {
			t.Fatalf("status %d: %s%s", status, out, stderr)
		}
		return out
	}
	fit("--input", filepath.Join(dir, "first.csv"), "--label", "late", "--output", filepath.Join(models, "delays", "1"))
	r := startRig(t, testConfig(t, models))
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	ask := func(version string, i int, say func(late int, score float64)) {
		t.Helper()
		city, age, late := row(i)
		var got struct {
			Outputs []struct {
				Data []float64 `json:"data"`
			} `json:"outputs"`
		}
		id := fmt.Sprintf("v%s-%d", version, i)
		r.post(t, "/v2/models/delays/versions/"+version+"/infer", fmt.Sprintf(
			`{"parameters": {"event_time": %q, "external_id": %q}, "inputs": [{"name": "city", "datatype": "BYTES", "shape": [1], "data": [%q]}, {"name": "age", "datatype": "FP32", "shape": [1], "data": [%g]}]}`,
			at.Add(time.Duration(i)*time.Minute).Format(time.RFC3339), id, city, age), &got)
		r.post(t, "/api/v1/feedback", fmt.Sprintf(`{"external_id": %q, "label": "%d"}`, id, late), nil)
		say(late, got.Outputs[0].Data[0])
	}
	for i := range 240 {
		ask("1", i, func(int, float64) {})
	}
	r.stored(t)
	july := filepath.Join(dir, "july.csv")
	until(t, "the labels", func() bool {
		status, _, stderr := command(t, "export", "--model", "delays", "--output", july, "--clickhouse", r.dsn)
		if status != 0 {
			t.Fatal(stderr)
		}
		b, err := os.ReadFile(july)
		return err == nil && strings.Count(string(b), ",full,1,0,")+strings.Count(string(b), ",full,1,1,") == 240
	})
	out := fit("--input", july, "--label", "label", "--time", "time", "--features", "city,age", "--output", filepath.Join(models, "delays", "2"))
	if !strings.Contains(out, "the last 48 by time held out") || !strings.Contains(out, "the export's own, column weight") {
		t.Error(out)
	}
	until(t, "version 2", func() bool {
		status, _, _ := r.call(t, "GET", "/v2/models/delays/versions/2/ready", "")
		return status == 200
	})
	for i := 1000; i < 1060; i++ {
		ask("2", i, func(late int, score float64) {
			if math.Abs(score-float64(late)) > 0.5 {
				t.Errorf("row %d: a score of %v, and late is %d", i, score, late)
			}
		})
	}
	r.stored(t)
	window := "version=2&from=2026-05-01T00:00:00Z&to=2026-05-03T00:00:00Z"
	until(t, "its metrics", func() bool {
		var p api.Performance
		r.get(t, "/api/v1/models/delays/performance?"+window, &p)
		return p.Rows.Labelled == 60 && p.Metrics[string(stats.MetricAUC)] > 0.9
	})
	var d stats.Report
	r.get(t, "/api/v1/models/delays/drift?"+window, &d)
	if d.Provisional || d.Rows.Reference != 192 || d.Rows.Current != 60 || len(d.Features) < 2 || d.Features[0].Name != "city" || d.Features[0].State == "" {
		t.Errorf("drift %+v", d)
	}
}
