package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestWhatIsWorthASpan: with nothing sampled, slow requests and explanations have
// their spans in the store all the same.
func TestWhatIsWorthASpan(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	none := 0.0
	cfg := testConfig(t, models)
	cfg.Telemetry.Sample, cfg.Telemetry.KeepSlower = &none, duration(time.Hour)
	r := startRig(t, cfg)
	one := *c
	one.rows = c.rows[:1]
	usual := r.post(t, "/v2/models/m/infer", one.body(""), nil)
	explained := r.post(t, "/v2/models/m/explain", one.body(""), nil)
	id := r.post(t, "/api/v1/predictions/"+usual.Get("Pellucid-Prediction-Id")+"/explain", `{}`, nil)
	r.halt(t)
	cfg.Telemetry.KeepSlower = duration(time.Nanosecond)
	r = startRig(t, cfg)
	slow := r.post(t, "/v2/models/m/infer", one.body(""), nil)
	db := r.database(t)
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := func(traceparent string) string {
		t.Helper()
		return sql(t, db, "SELECT arrayStringConcat(arraySort(groupArray(SpanName || ':' || SpanKind || ':' || toString(ParentSpanId = ''))), ' ') FROM otel_traces WHERE TraceId = '"+strings.Split(traceparent, "-")[1]+"'")
	}
	for what, got := range map[string][2]string{
		"usual":           {spans(usual.Get("Traceparent")), ""},
		"explained":       {spans(explained.Get("Traceparent")), "capture:Internal:0 explain m:Server:1 explain:Internal:0 model.run:Internal:0"},
		"explained by id": {spans(id.Get("Traceparent")), "explain:Server:1"},
		"slow":            {spans(slow.Get("Traceparent")), "capture:Internal:0 model.run:Internal:0 predict m:Server:1"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: spans %q, not %q", what, got[0], got[1])
		}
	}
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/"+slow.Get("Pellucid-Prediction-Id")+".0", &p)
	if n := sql(t, db, "SELECT count() FROM otel_traces WHERE SpanId = '"+p.SpanID+"' AND SpanName = 'predict m' AND Duration > 0"); n != "1" {
		t.Errorf("%s spans have the id that the prediction names", n)
	}
}
