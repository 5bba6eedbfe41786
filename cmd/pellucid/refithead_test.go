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

// turnedFlight is a row whose world has turned: the network learnt that evenings are late, now
// mornings are.
func turnedFlight(i int) (features []float64, late int) {
	hour := float64(i * 7 % 24)
	features = []float64{float64(1 + i%7), hour, float64(i * 13 % 60), float64(200 + i*37%2000), float64(40 + i*11%50), float64(30 + i*5%40), float64(30 + i*17%60), float64(i * 3 % 25), 0, 10}
	if hour < 12 != (i%11 == 0) { // not always
		late = 1
	}
	return features, late
}

// TestRefitHead walks the way of a drifted network: it is served, its predictions are
// recorded in ClickHouse, their labels come back by feedback, and what the store then holds
// is enough to fit its head anew. The server takes the new version by itself, and measures
// that its loss is lower on labelled rows that neither has learnt.
func TestRefitHead(t *testing.T) {
	dir := t.TempDir()
	models := filepath.Join(dir, "models")
	if err := os.CopyFS(filepath.Join(models, "flights_mlp"), os.DirFS("demo/data/models/flights_mlp")); err != nil {
		t.Fatal(err)
	}
	r := startRig(t, testConfig(t, models))
	names := []string{"day_of_week", "hour", "minute", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "visib"}
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	// ask sends row i to a version and its label after it, and returns the loss of the answer.
	ask := func(version string, i int) float64 {
		t.Helper()
		row, late := turnedFlight(i)
		var inputs []string
		for k, name := range names {
			inputs = append(inputs, fmt.Sprintf(`{"name": %q, "datatype": "FP32", "shape": [1, 1], "data": [%g]}`, name, row[k]))
		}
		id := fmt.Sprintf("v%s-%d", version, i)
		var got struct {
			Outputs []struct {
				Name string    `json:"name"`
				Data []float64 `json:"data"`
			} `json:"outputs"`
		}
		r.post(t, "/v2/models/flights_mlp/versions/"+version+"/infer", fmt.Sprintf(`{"parameters": {"event_time": %q, "external_id": %q}, "inputs": [%s], "outputs": [{"name": "probabilities"}]}`,
			at.Add(time.Duration(i)*time.Minute).Format(time.RFC3339), id, strings.Join(inputs, ", ")), &got)
		r.post(t, "/api/v1/feedback", fmt.Sprintf(`{"external_id": %q, "label": "%d"}`, id, late), nil)
		return -math.Log(got.Outputs[0].Data[late])
	}
	const rows, fresh = 300, 100
	for i := range rows {
		ask("1", i)
	}
	r.stored(t)
	export := filepath.Join(dir, "may.csv")
	until(t, "the labels", func() bool {
		status, _, stderr := command(t, "export", "--model", "flights_mlp", "--output", export, "--clickhouse", r.dsn)
		if status != 0 {
			t.Fatal(stderr)
		}
		text := readFile(t, export)
		if !strings.HasPrefix(text, strings.Join(exported, ",")) || !strings.Contains(text, ",_label,") {
			t.Fatalf("the network's own label is not told from the truth: %.200s", text)
		}
		return strings.Count(text, ",full,1,0,")+strings.Count(text, ",full,1,1,") == rows
	})
	status, out, stderr := command(t, "model", "fit", "--from", filepath.Join(models, "flights_mlp", "1", "model.onnx"), "--input", export, "--label", "label", "--time", "time",
		"--output", filepath.Join(models, "flights_mlp", "2"))
	if status != 0 || !strings.Contains(out, "17 weights of coefficient2, intercepts2") {
		t.Fatalf("status %d: %s%s", status, out, stderr)
	}
	until(t, "version 2", func() bool {
		status, _, _ := r.call(t, "GET", "/v2/models/flights_mlp/versions/2/ready", "")
		return status == 200
	})
	loss := map[string]float64{}
	for i := 1000; i < 1000+fresh; i++ {
		for _, version := range []string{"1", "2"} {
			loss[version] += ask(version, i) / fresh
		}
	}
	if !(loss["2"] < loss["1"]-0.1) {
		t.Errorf("a loss of %v before and %v after", loss["1"], loss["2"])
	}
	r.stored(t)
	for version, want := range loss {
		until(t, "the metrics of version "+version, func() bool {
			var p api.Performance
			r.get(t, "/api/v1/models/flights_mlp/performance?from=2026-05-01T16:40:00Z&to=2026-05-03T00:00:00Z&version="+version, &p)
			return p.Rows.Labelled == fresh && math.Abs(p.Metrics[string(stats.MetricLogLoss)]-want) < 1e-6
		})
	}
	t.Logf("loss %.4f before, %.4f after", loss["1"], loss["2"])
}
