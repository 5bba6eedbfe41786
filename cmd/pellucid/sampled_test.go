package main

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestSampledFeatures serves the same model twice, once under a sample rule, and
// holds the two against each other: what is sampled is who can be explained, not
// what is counted.
func TestSampledFeatures(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "all", xgboostData, "base_binary_logistic")
	treeCase(t, models, "some", xgboostData, "base_binary_logistic")
	var reference strings.Builder
	names := make([]string, len(c.rows[0]))
	for i := range names {
		names[i] = fmt.Sprintf("f%d", i)
	}
	reference.WriteString(strings.Join(names, ",") + "\n")
	rng := rand.New(rand.NewPCG(4, 1))
	random := func() []float64 {
		row := make([]float64, len(names))
		for i := range row {
			row[i] = float64(float32(rng.Float64()*2 - 1))
		}
		return row
	}
	line := func(row []float64) string {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(row), " ", ","), "[]") + "\n"
	}
	for range 2000 {
		reference.WriteString(line(random()))
	}
	// So that every later row lies within it, but for those that shall not.
	ends := make([]float64, len(names))
	for _, end := range []float64{-1, 1} {
		for i := range ends {
			ends[i] = end
		}
		reference.WriteString(line(ends))
	}
	for _, m := range []string{"all", "some"} {
		place(t, models, m+"/1/reference.csv", reference.String())
		place(t, models, m+"/1/model.yaml", "task: binary\nreference: reference.csv\n")
	}
	cfg := testConfig(t, models)
	share := 0.25
	cfg.Capture.Sample = []sampleConfig{{Model: "some", Share: &share}}
	r := startRig(t, cfg)

	const n = 1200
	captured := map[string]int{}
	var sampled, kept, outlier string
	labels := map[string][]string{}
	for i := range n {
		rows := [][]float64{random()}
		switch {
		case i%100 == 99:
			rows[0][1] = 7
		case i%10 == 0:
			rows = append(rows, random(), random())
		}
		for _, m := range []string{"all", "some"} {
			one := &servedCase{input: "input", datatype: "FP32", rows: rows}
			h := r.post(t, "/v2/models/"+m+"/infer", one.body(fmt.Sprintf(`{"event_time":%q}`, time.Date(2024, 5, 1, i%24, i%60, 0, 0, time.UTC).Format(time.RFC3339))), nil)
			id, how := h.Get("Pellucid-Prediction-Id"), h.Get("Pellucid-Capture")
			labels[m] = append(labels[m], fmt.Sprintf(`{"prediction_id":"%s.0","label":"%d"}`, id, i%2))
			if m == "all" {
				if how != "full" {
					t.Fatalf("without a rule: captured %q", how)
				}
				continue
			}
			captured[how]++
			switch {
			case i%100 == 99:
				outlier = id
				if how != "full" {
					t.Errorf("an outlier is captured %q", how)
				}
			case how == "sampled":
				sampled = id
			default:
				kept = id
			}
		}
	}
	if captured["full"]+captured["sampled"] != n || captured["full"] < n/4-80 || captured["full"] > n/4+100 {
		t.Errorf("captured %v of %d", captured, n)
	}
	for _, m := range []string{"all", "some"} {
		r.post(t, "/api/v1/feedback", "["+strings.Join(labels[m], ",")+"]", nil)
	}
	r.stored(t)

	reports := map[string]stats.Report{}
	performance := map[string]any{}
	for _, m := range []string{"all", "some"} {
		var rep stats.Report
		r.get(t, "/api/v1/models/"+m+"/drift?step=1h", &rep)
		reports[m] = rep
		var perf map[string]any
		r.get(t, "/api/v1/models/"+m+"/performance", &perf)
		delete(perf, "model")
		performance[m] = perf
	}
	if rep := reports["all"]; rep.Rows.Current != n+2*n/10 || len(rep.Features) < len(names) {
		t.Errorf("%d rows, %d features", rep.Rows.Current, len(rep.Features))
	}
	if !reflect.DeepEqual(reports["all"], reports["some"]) {
		t.Errorf("drift with all features %+v\nwith some %+v", reports["all"], reports["some"])
	}
	if !reflect.DeepEqual(performance["all"], performance["some"]) {
		t.Errorf("performance with all features %v\nwith some %v", performance["all"], performance["some"])
	}

	for _, id := range []string{kept, outlier} {
		if got := r.explained(t, id+".0", `{}`); len(got) != 1 {
			t.Errorf("%s: %d explanations", id, len(got))
		}
	}
	status, body, _ := r.call(t, "POST", "/api/v1/predictions/"+sampled+"/explain", `{}`)
	if status != 422 || !strings.Contains(string(body), "sampled") {
		t.Errorf("explain a sampled prediction: %d %s", status, body)
	}
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+sampled+".0", &p)
	if p.Capture != collector.CaptureSampled || len(p.Features) != 0 || len(p.Outputs) == 0 {
		t.Errorf("stored %+v", p)
	}
	db := r.database(t)
	// The weights of the rows that have features stand for those that have none.
	if w := sql(t, db, "SELECT abs(sum(feature_weight) / count() - 1) < 0.15, countIf(feature_weight = 4) > 0, countIf(capture = 'sampled' AND (length(f32) > 0 OR feature_weight != 0) OR weight != 1) FROM predictions WHERE model = 'some'"); w != "1\t1\t0" {
		t.Errorf("weights: %s", w)
	}
	status, metrics, _ := r.call(t, "GET", "/metrics", "")
	if want := fmt.Sprintf("ml_capture_sampled_total %d", captured["sampled"]); status != 200 || !strings.Contains(string(metrics), want) {
		t.Errorf("no %q among the metrics", want)
	}
	// An export has the columns of the model, whatever its first row lacks, and labels.
	out := filepath.Join(t.TempDir(), "some.csv")
	if status, _, stderr := command(t, "export", "--clickhouse", r.dsn, "--model", "some", "--output", out); status != 0 {
		t.Fatal(stderr)
	}
	lines, err := csv.NewReader(strings.NewReader(readFile(t, out))).ReadAll()
	if err != nil || len(lines) != n+2*n/10+1 {
		t.Fatalf("%d lines exported, %v", len(lines), err)
	}
	capture, label, feature := slices.Index(lines[0], "capture"), slices.Index(lines[0], "label"), slices.Index(lines[0], "f0")
	empty, labelled := 0, 0
	for _, line := range lines[1:] {
		if (line[feature] == "") != (line[capture] == "sampled") {
			t.Fatalf("exported %v", line)
		}
		if line[feature] == "" {
			empty++
		}
		if line[label] != "" {
			labelled++
		}
	}
	if empty == 0 || labelled != n {
		t.Errorf("%d rows without features, %d with a label", empty, labelled)
	}
}
