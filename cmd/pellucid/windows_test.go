package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestLabelsThatMeanNothingAreLeftOut: one wrong label is counted and hides
// nothing, whatever the task.
func TestLabelsThatMeanNothingAreLeftOut(t *testing.T) {
	row := func(score float64, decided, label string) clickhouse.LabelledRow {
		return clickhouse.LabelledRow{Score: score, Decided: decided, Label: label, Weight: 1}
	}
	nan := math.NaN()
	probabilities := []engine.Spec{{Name: "p", DType: engine.Float32, Shape: []int{-1, 3}}}
	for _, c := range []struct {
		outputs  []engine.Spec
		task     engine.Task
		classes  []string
		rows     []clickhouse.LabelledRow
		metric   string
		want     float64
		unusable float64
		state    stats.State
	}{
		{nil, engine.TaskBinary, []string{"good", "bad"}, []clickhouse.LabelledRow{row(0.9, "bad", "bad"), row(0.1, "good", "0"), row(0.2, "good", "secret-4711")}, "accuracy", 1, 1, stats.StateOK},
		{nil, engine.TaskBinary, nil, []clickhouse.LabelledRow{row(0.9, "1", "true"), row(nan, "0", "0"), row(0.2, "0", "2")}, "accuracy", 1, 2, stats.StateOK},
		{nil, engine.TaskMulticlass, []string{"a", "b", "c"}, []clickhouse.LabelledRow{row(1, "a", "a"), row(1, "b", "1"), row(1, "a", "z"), row(1, "c", "3")}, "accuracy", 1, 2, stats.StateOK},
		{nil, engine.TaskMulticlass, nil, []clickhouse.LabelledRow{row(1, "a", "a"), row(1, "b", "z")}, "accuracy", 0.5, 0, stats.StateOK},
		{nil, engine.TaskRegression, nil, []clickhouse.LabelledRow{row(1, "", "2"), row(1, "", "x"), row(1, "", "inf"), row(nan, "", "1"), row(1, "", "1e999")}, "mae", 1, 4, stats.StateOK},
		{nil, engine.TaskRegression, nil, []clickhouse.LabelledRow{row(1, "", "x")}, "mae", 0, 1, stats.StateNoData},
		{probabilities, engine.TaskMulticlass, nil, []clickhouse.LabelledRow{row(1, "0", "0"), row(1, "2", "02"), row(1, "0", "3"), row(1, "0", "a"), row(1, "0", "-1")}, "accuracy", 1, 3, stats.StateOK},
	} {
		v := &collector.ModelVersion{Info: &engine.Info{Task: c.task, Classes: c.classes, Outputs: c.outputs}}
		p := api.Performance{Metrics: map[string]float64{}, State: stats.StateNoData}
		measure(v, c.rows, &p)
		if p.State != c.state || p.Metrics[c.metric] != c.want || p.Rows.Unusable != c.unusable || (p.Reason != "") != (c.unusable > 0) || strings.Contains(p.Reason, "4711") {
			t.Errorf("%s of %v: %+v", c.task, c.rows, p)
		}
	}
}

// TestOldAndHugeValuesAreAnswered: a prediction of 1970 and a label of 1e308 leave
// every question with an answer or a reason.
func TestOldAndHugeValuesAreAnswered(t *testing.T) {
	models := t.TempDir()
	place(t, models, "reg/1/model.yaml", "task: regression\n")
	r := startRig(t, testConfig(t, models))
	body := make([]string, 0, 4)
	for i, at := range []string{"1970-01-01T00:00:00Z", "2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z", "2024-05-03T00:00:00Z"} {
		body = append(body, fmt.Sprintf(`{"id":"r%d","model":"reg","time":%q,"features":{"a":%d},"outputs":{"y":%d},"label":"%d"}`, i, at, i, i, i+1))
	}
	r.post(t, "/api/v1/predictions", "["+strings.Join(body, ",")+"]", nil)
	r.post(t, "/api/v1/feedback", `[{"prediction_id":"r2","label":1e308},{"prediction_id":"r3","label":"nonsense"}]`, nil)
	r.stored(t)
	for path, want := range map[string]int{
		"traffic?step=1d": 400, "performance?step=1d": 400, "drift?step=1d": 400, "traffic?step=7d": 200, "performance?step=7d": 200, "traffic": 200,
		"traffic?from=1970-01-01&step=1d": 400, "performance?step=1d&to=9999-01-01": 400, "traffic?from=1677-01-01": 400, "traffic?to=2300-01-01": 400,
		"traffic?from=2024-05-01&step=1d": 200, "performance?from=2024-05-01&step=1d": 200, "traffic?from=2099-01-01&step=1m": 200, "traffic?to=2100-01-01&from=1970-01-01": 200,
	} {
		status, b, _ := r.call(t, "GET", "/api/v1/models/reg/"+path, "")
		if status != want || status == http.StatusBadRequest && !strings.Contains(string(b), "1970") && !strings.Contains(string(b), "5000") {
			t.Errorf("%s: %d %s", path, status, b)
		}
		if !json.Valid(b) {
			t.Errorf("%s: %s is not JSON", path, b)
		}
	}
	var p api.Performance
	r.get(t, "/api/v1/models/reg/performance?from=2024-05-01", &p)
	if _, rmse := p.Metrics["rmse"]; rmse || p.Metrics["mae"] < 1e300 || p.State != stats.StateOK || p.Rows.Unusable != 1 || p.Rows.Labelled != 3 ||
		!strings.Contains(p.Reason, "rmse is not a finite number") || !strings.Contains(p.Reason, "1 of 3 labelled rows are left out") {
		t.Errorf("performance %+v", p)
	}
	if status, b, _ := r.call(t, "GET", "/ui/models/reg", ""); status != http.StatusOK {
		t.Errorf("the page: %d %s", status, b)
	}
}

// TestRulesOnFeaturesThatAreNotThere: a misspelt feature would make a rule that
// never fires; it is said at start.
func TestRulesOnFeaturesThatAreNotThere(t *testing.T) {
	models, _ := threeModels(t)
	place(t, models, "rules.yaml", "rules:\n  - {name: misspelt, model: xgb, kind: drift, features: [f0, nope, prediction]}\n"+
		"  - {name: fine, model: xgb, kind: drift, features: [f0, prediction]}\n  - {name: elsewhere, model: unknown, kind: drift, features: [x]}\n")
	cfg := testConfig(t, models)
	cfg.Alerts.Rules = models + "/rules.yaml"
	r := startRig(t, cfg)
	log := r.log.String()
	if !strings.Contains(log, "rule=misspelt") || !strings.Contains(log, "[nope]") || strings.Contains(log, "rule=fine") || strings.Contains(log, "rule=elsewhere") {
		t.Errorf("the log says %s", log)
	}
	w, err := r.alertSource().Window(t.Context(), alerts.Query{Model: "xgb"})
	if err != nil || w.Reference != nil || len(w.Features) < 2 {
		t.Errorf("%+v %v", w, err)
	}
}

// TestFailuresAfterTheLastAnswerAreTraffic: a model that answers nothing any more has
// errors to show, without anybody naming the time.
func TestFailuresAfterTheLastAnswerAreTraffic(t *testing.T) {
	models := t.TempDir()
	place(t, models, "reg/1/model.yaml", "task: regression\n")
	r := startRig(t, testConfig(t, models))
	row := func(id, at, status string) string {
		return `{"id":"` + id + `","model":"reg","version":"1","time":"2024-05-01T` + at + `:00Z","features":{"x":1},"outputs":{"y":2}` + status + `}`
	}
	r.post(t, "/api/v1/predictions", "["+row("a", "12:00", "")+","+row("b", "12:05", `,"status":500,"error":"no"`)+","+row("c", "13:05", `,"status":503,"error":"no"`)+"]", nil)
	r.stored(t)
	var traffic struct{ Chunks []api.TrafficPoint }
	r.get(t, "/api/v1/models/reg/traffic", &traffic)
	requests, errors := 0., 0.
	for _, p := range traffic.Chunks {
		requests, errors = requests+p.Requests, errors+p.Errors
	}
	if requests != 3 || errors != 2 {
		t.Errorf("%g requests, %g errors: %+v", requests, errors, traffic.Chunks)
	}
}

// TestNoRequestHasNoLatency: a step without a request, or with none that was served here,
// has null for its latency and not the best there could be.
func TestNoRequestHasNoLatency(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	r := startRig(t, testConfig(t, models))
	for _, at := range []string{"12:10", "14:10"} {
		r.post(t, "/v2/models/m/infer", c.body(`{"event_time":"2024-05-01T`+at+`:00Z"}`), nil)
	}
	r.post(t, "/api/v1/predictions", `{"model":"elsewhere","id":"a","time":"2024-05-01T12:10:00Z","features":{"x":1},"outputs":{"y":2}}`, nil)
	r.stored(t)
	for model, want := range map[string]string{"m": "some null some ", "elsewhere": "null null null "} {
		_, b, _ := r.call(t, "GET", "/api/v1/models/"+model+"/traffic?from=2024-05-01T12:00:00Z&to=2024-05-01T15:00:00Z&step=1h", "")
		var traffic struct{ Chunks []map[string]any }
		if err := json.Unmarshal(b, &traffic); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, p := range traffic.Chunks {
			for _, name := range []string{"p50_ms", "p99_ms"} {
				v, there := p[name]
				if ms, is := v.(float64); !there || is && ms <= 0 || (v == nil) != (p["p50_ms"] == nil) {
					t.Errorf("%s: %s is %v", model, name, v)
				}
			}
			got += map[bool]string{true: "null ", false: "some "}[p["p50_ms"] == nil]
		}
		if got != want {
			t.Errorf("%s: latencies %s: %s", model, got, b)
		}
	}
}

// TestPerformanceOfLabelsThatComeLate: labels come ten days after their predictions. A rule
// without a delay finds none in the windows that it judges; one with it fires.
func TestPerformanceOfLabelsThatComeLate(t *testing.T) {
	models := t.TempDir()
	place(t, models, "loans/1/model.yaml", "task: binary\n")
	place(t, models, "rules.yaml", "rules:\n  - {name: at once, model: loans, kind: performance, metric: accuracy, below: 0.8, window: 5d, every: 1d, min_rows: 50}\n"+
		"  - {name: later, model: loans, kind: performance, metric: accuracy, below: 0.8, window: 5d, every: 1d, min_rows: 50, delay: 10d}\n")
	cfg := testConfig(t, models)
	cfg.Alerts.Rules = models + "/rules.yaml"
	r := startRig(t, cfg)
	rule := func(name string) api.Rule {
		t.Helper()
		var list struct{ Rules []api.Rule }
		r.get(t, "/api/v1/rules", &list)
		for _, one := range list.Rules {
			if one.Name == name {
				return one
			}
		}
		t.Fatalf("no rule %q", name)
		return api.Rule{}
	}
	first := time.Date(2024, 5, 1, 6, 0, 0, 0, time.UTC)
	send := func(from, to int) {
		t.Helper()
		var rows []string
		for d := from; d < to; d++ {
			for i := range 20 {
				rows = append(rows, fmt.Sprintf(`{"id":"d%d-%d","model":"loans","version":"1","time":%q,"features":{"x":1},"outputs":{"score":0.9}}`,
					d, i, first.AddDate(0, 0, d).Add(time.Duration(i)*time.Minute).Format(time.RFC3339)))
			}
		}
		r.post(t, "/api/v1/predictions", "["+strings.Join(rows, ",")+"]", nil)
		r.stored(t)
	}
	send(0, 9)
	until(t, "the windows are judged as they come", func() bool {
		return rule("at once").EvaluatedAt.Equal(time.Date(2024, 5, 9, 0, 0, 0, 0, time.UTC))
	})
	if got := rule("later"); !got.EvaluatedAt.IsZero() || !strings.Contains(got.Reason, "10d and 15m behind") || !strings.Contains(got.Timing, "5d that ended 10d before") {
		t.Errorf("not due yet: %+v", got)
	}
	var labels []string
	for d := range 4 { // what the rule without a delay has judged already
		for i := range 20 {
			labels = append(labels, fmt.Sprintf(`{"model":"loans","prediction_id":"d%d-%d","label":"%d"}`, d, i, i%2))
		}
	}
	r.post(t, "/api/v1/feedback", "["+strings.Join(labels, ",")+"]", nil)
	r.stored(t)
	send(15, 18)
	until(t, "the windows are judged with their labels", func() bool {
		return rule("later").EvaluatedAt.Equal(time.Date(2024, 5, 18, 0, 0, 0, 0, time.UTC))
	})
	if got := rule("later"); got.State != string(alerts.Firing) || !got.Since.Equal(time.Date(2024, 5, 14, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("with a delay: %+v", got)
	}
	if got := rule("at once"); !got.Since.IsZero() || !strings.Contains(got.Reason, "with a delay") {
		t.Errorf("without a delay: %+v", got)
	}
}
