package proxy

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// TestLateSpans: of calls that nobody sampled those are kept that failed by our fault
// or were slow, with the ids that the caller was told.
func TestLateSpans(t *testing.T) {
	var kept []LateSpan
	slower := time.Hour
	serve := func() *rig {
		return newRig(t, func(c *Config) {
			c.Keep, c.KeepSlower = func(l LateSpan) { kept = append(kept, l) }, slower
		})
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	bad := inputs(tensor("input", "FP32", "[1,3]", "[777,2,3]"))
	r := serve()
	if r.do("POST", "/v2/models/lin/infer", goodBody); len(kept) != 0 {
		t.Fatalf("a usual call keeps %+v", kept)
	}
	for range 100 {
		r.do("POST", "/v2/models/lin/infer", "{")
	}
	if len(kept) < 10 || len(kept) > 90 || kept[0].Code != codes.Unset || kept[0].Name != "predict lin" {
		t.Fatalf("of 100 mistakes of a caller's %d are kept: %+v", len(kept), kept)
	}
	kept = nil
	w := r.do("POST", "/v2/models/lin/infer", bad, "traceparent", parent)
	if w.Code != 500 || len(kept) != 2 {
		t.Fatalf("%d, %d spans kept", w.Code, len(kept))
	}
	root := kept[0]
	if root.Name != "predict lin" || root.Kind != trace.SpanKindServer || root.Code != codes.Error || root.Parent.SpanID().String() != "b7ad6b7169203331" ||
		traceparent(root.Own) != w.Header().Get("Traceparent") || !root.End.After(root.Start) {
		t.Errorf("kept %+v", root)
	}
	slower, kept = time.Nanosecond, nil
	w = serve().do("POST", "/v2/models/lin/infer", goodBody)
	if w.Code != 200 || len(kept) < 2 || kept[0].Code != codes.Unset || traceparent(kept[0].Own) != w.Header().Get("Traceparent") {
		t.Fatalf("%d: %+v", w.Code, kept)
	}
	for _, stage := range kept[1:] {
		if stage.Parent.SpanID() != kept[0].Own.SpanID() || stage.Own.TraceID() != kept[0].Own.TraceID() || stage.Own.SpanID() == kept[0].Own.SpanID() ||
			stage.Start.Before(kept[0].Start) || stage.End.After(kept[0].End) || stage.Kind != trace.SpanKindInternal {
			t.Errorf("stage %+v of %+v", stage, kept[0])
		}
	}
	kept = nil
	sampled := newRig(t, func(c *Config) {
		c.TracerProvider, c.KeepSlower, c.Keep = &recorder{}, time.Nanosecond, func(l LateSpan) { kept = append(kept, l) }
	})
	if sampled.do("POST", "/v2/models/lin/infer", goodBody); len(kept) != 0 {
		t.Errorf("what is sampled is kept twice: %+v", kept)
	}
}
