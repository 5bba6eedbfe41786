package telemetry

import (
	"encoding/binary"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// TestHeadsAgreeWithTheRatioSampler holds the decision against OpenTelemetry's: a service
// that samples by the id alone takes the traces that are taken here.
func TestHeadsAgreeWithTheRatioSampler(t *testing.T) {
	const ratio = 0.3
	tel := start(t, Config{SampleRatio: ratio, WriteSpans: new(sink).write})
	tracer := tel.TracerProvider().Tracer("test")
	sampled, ids := 0, map[trace.TraceID]bool{}
	const n = 4000
	for range n {
		ctx, span := tracer.Start(t.Context(), "predict m")
		sc := span.SpanContext()
		id := sc.TraceID()
		if takes := float64(binary.BigEndian.Uint64(id[8:])>>1) < ratio*(1<<63); takes != sc.IsSampled() || takes != span.IsRecording() {
			t.Fatalf("trace %s: sampled is %v, recording %v, the ratio sampler says %v", id, sc.IsSampled(), span.IsRecording(), takes)
		}
		if !sc.IsValid() || trace.SpanContextFromContext(ctx).SpanID() != sc.SpanID() || ids[id] {
			t.Fatalf("span context %v", sc)
		}
		ids[id] = true
		_, part := tracer.Start(ctx, "model.run")
		child := part.SpanContext()
		part.End()
		if child.TraceID() != id || child.SpanID() == sc.SpanID() || child.IsSampled() != sc.IsSampled() {
			t.Fatalf("a child of %v is %v", sc, child)
		}
		span.End()
		if sc.IsSampled() {
			sampled++
		}
	}
	if sampled == 0 || sampled == n {
		t.Errorf("%d of %d are sampled", sampled, n)
	}
}
