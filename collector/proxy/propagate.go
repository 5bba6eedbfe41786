package proxy

import (
	"context"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

var (
	w3c  = propagation.TraceContext{}
	zipk = b3.New(b3.WithInjectEncoding(b3.B3SingleHeader | b3.B3MultipleHeader))
)

// fromB3 marks a context whose trace came in B3's headers.
type fromB3 struct{}

// extract reads the caller's trace context: W3C's, or where there is none B3's, in
// one header or several.
func extract(ctx context.Context, from propagation.TextMapCarrier) context.Context {
	ctx = w3c.Extract(ctx, from)
	if trace.SpanContextFromContext(ctx).IsValid() || from.Get("B3") == "" && from.Get("X-B3-Traceid") == "" {
		return ctx
	}
	ctx = zipk.Extract(ctx, from)
	if trace.SpanContextFromContext(ctx).IsValid() {
		ctx = context.WithValue(ctx, fromB3{}, true)
	}
	return ctx
}

// inject writes the trace context for an upstream: W3C's, and B3's beside it where
// the caller's was.
func inject(ctx context.Context, to propagation.TextMapCarrier) {
	w3c.Inject(ctx, to)
	if ctx.Value(fromB3{}) != nil {
		zipk.Inject(ctx, to)
	}
}
