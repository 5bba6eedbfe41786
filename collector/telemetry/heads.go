package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
)

// heads decides by itself which traces that begin here are not sampled, and has the
// SDK make the spans of the others only: it takes half a microsecond more to make one
// that it then drops. Nothing here begins a new trace below a span (WithNewRoot).
type heads struct {
	embedded.TracerProvider
	sdk   *sdktrace.TracerProvider
	share headShare
}

// Tracer implements trace.TracerProvider.
func (h heads) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return headTracer{sdk: h.sdk.Tracer(name, options...), share: h.share}
}

type headTracer struct {
	embedded.Tracer
	sdk   trace.Tracer
	share headShare
}

// Start implements trace.Tracer. What has a parent is sampled as that is.
func (t headTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if explains(name) || trace.SpanContextFromContext(ctx).IsValid() {
		return t.sdk.Start(ctx, name, options...)
	}
	low := rand.Uint64()
	if t.share.has(low) {
		return t.sdk.Start(ctx, name, options...)
	}
	own := trace.SpanContextConfig{TraceID: traceID(low), SpanID: spanID()}
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(own))
	return ctx, trace.SpanFromContext(ctx)
}

// headShare is the share of traces that are sampled, as a bound on the last 63 bits of
// their ids: so services that sample by the id alone, as OpenTelemetry's ratio sampler
// does, take the same ones.
type headShare uint64

func newHeadShare(ratio float64) headShare { return headShare(ratio * (1 << 63)) }

// has reports whether a trace is sampled whose id ends in low.
func (s headShare) has(low uint64) bool { return low>>1 < uint64(s) }

// NewIDs implements sdktrace.IDGenerator: the SDK begins traces that are sampled.
func (s headShare) NewIDs(context.Context) (trace.TraceID, trace.SpanID) {
	low := rand.Uint64()
	if s > 0 {
		low = rand.Uint64N(uint64(s))<<1 | low&1
	}
	return traceID(low), spanID()
}

// NewSpanID implements sdktrace.IDGenerator.
func (s headShare) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return spanID() }

// traceID makes an id that ends in low. Ids are not secret.
func traceID(low uint64) (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[:8], rand.Uint64()|1)
	binary.BigEndian.PutUint64(id[8:], low)
	return id
}

func spanID() (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}
