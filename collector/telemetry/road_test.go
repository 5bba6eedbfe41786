package telemetry

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// TestTraceStatesAreNotSent: a caller's trace state is anybody's text. It is passed on to
// upstreams, and is in no span that is sent.
func TestTraceStatesAreNotSent(t *testing.T) {
	state, err := trace.ParseTraceState("vendor=canary")
	if err != nil {
		t.Fatal(err)
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state})
	in := tracetest.SpanStubs{{Name: "s", SpanContext: sc, Parent: sc, Links: []sdktrace.Link{{SpanContext: sc}}}}.Snapshots()
	for _, s := range stateless(in) {
		for what, got := range map[string]trace.SpanContext{"span": s.SpanContext(), "parent": s.Parent(), "link": s.Links()[0].SpanContext} {
			if got.TraceState().Len() != 0 || got.TraceID() != sc.TraceID() || got.SpanID() != sc.SpanID() || !got.IsSampled() {
				t.Errorf("%s: %+v", what, got)
			}
		}
		if s.Name() != "s" {
			t.Errorf("name %q", s.Name())
		}
	}
	if in[0].SpanContext().TraceState().Len() != 1 || in[0].Links()[0].SpanContext.TraceState().Len() != 1 {
		t.Error("what was given was changed")
	}
}

// TestShown: no password or token of an endpoint is in a message.
func TestShown(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://u:secret@host:4318/v1?t=secret#secret": "http://host:4318/v1",
		"u:secret@host:4317":                           "host:4317",
		"http://a:sec@ret@host":                        "http://host",
		"grpc://host:4317":                             "grpc://host:4317",
		"":                                             "",
	} {
		if got := shown(endpoint); got != want {
			t.Errorf("%q is shown as %q", endpoint, got)
		}
	}
}
