package telemetry

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Late is a span that is over before it is made: one that was not sampled and turned
// out to be worth keeping.
type Late struct {
	// Scope names the instrumentation, Own the span: its ids have been told already.
	// Parent is invalid for a root.
	Scope       string
	Own, Parent trace.SpanContext
	Name        string
	Kind        trace.SpanKind
	Start, End  time.Time
	Attributes  []attribute.KeyValue
	Code        codes.Code
	Description string
}

// Keep has a span written as if it had been sampled. It never blocks.
func (t *Telemetry) Keep(l Late) {
	ctx := context.WithValue(context.Background(), lateKey{}, l.Own)
	if l.Parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, l.Parent)
	}
	_, span := t.late.Tracer(l.Scope).Start(ctx, l.Name, trace.WithSpanKind(l.Kind), trace.WithTimestamp(l.Start), trace.WithAttributes(l.Attributes...))
	if l.Code != codes.Unset {
		span.SetStatus(l.Code, l.Description)
	}
	span.End(trace.WithTimestamp(l.End))
}

type lateKey struct{}

// lateIDs gives a late span the ids that it has.
type lateIDs struct{}

func (lateIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	own, _ := ctx.Value(lateKey{}).(trace.SpanContext)
	return own.TraceID(), own.SpanID()
}

func (lateIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	own, _ := ctx.Value(lateKey{}).(trace.SpanContext)
	return own.SpanID()
}

// keepExplained samples what explains, whatever else is sampled: there is little of
// it, and who asks for it may ask how it came about.
type keepExplained struct{ sdktrace.Sampler }

// ShouldSample samples spans named "explain" and "explain <model>".
func (s keepExplained) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if explains(p.Name) {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	}
	return s.Sampler.ShouldSample(p)
}

// explains reports whether a span of that name is one of what explains.
func explains(name string) bool {
	return name == "explain" || strings.HasPrefix(name, "explain ")
}
