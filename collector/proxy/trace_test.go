package proxy

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder is a tracer provider that keeps its spans.
type recorder struct {
	embedded.TracerProvider
	mu    sync.Mutex
	spans []*keptSpan
}

func (r *recorder) Tracer(string, ...trace.TracerOption) trace.Tracer { return keptTracer{r: r} }

type keptTracer struct {
	embedded.Tracer
	r *recorder
}

func (k keptTracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	parent := trace.SpanContextFromContext(ctx)
	cfg := trace.SpanContextConfig{TraceID: parent.TraceID(), SpanID: trace.SpanID{7, byte(len(k.r.spans) + 1)}, TraceState: parent.TraceState(), TraceFlags: trace.FlagsSampled}
	if !parent.IsValid() {
		cfg.TraceID = trace.TraceID{9}
	}
	c := trace.NewSpanStartConfig(o...)
	s := &keptSpan{name: name, kind: c.SpanKind(), parent: parent.SpanID(), sc: trace.NewSpanContext(cfg), attrs: map[attribute.Key]attribute.Value{}}
	k.r.spans = append(k.r.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

type keptSpan struct {
	noop.Span
	name   string
	kind   trace.SpanKind
	parent trace.SpanID
	sc     trace.SpanContext
	attrs  map[attribute.Key]attribute.Value
	status codes.Code
	ended  time.Time
}

func (s *keptSpan) IsRecording() bool                { return true }
func (s *keptSpan) SpanContext() trace.SpanContext   { return s.sc }
func (s *keptSpan) SetStatus(c codes.Code, _ string) { s.status = c }
func (s *keptSpan) End(...trace.SpanEndOption)       { s.ended = time.Now() }

func (s *keptSpan) SetAttributes(kv ...attribute.KeyValue) {
	for _, a := range kv {
		s.attrs[a.Key] = a.Value
	}
}

func TestSpans(t *testing.T) {
	rec := &recorder{}
	r := newRig(t, func(c *Config) { c.TracerProvider = rec })
	w := r.do("POST", "/v2/models/lin/infer", goodBody, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate", "a=b")
	if w.Code != 200 || len(rec.spans) != 2 {
		t.Fatalf("%d, %d spans", w.Code, len(rec.spans))
	}
	server, run := rec.spans[0], rec.spans[1]
	if server.name != "predict lin" || server.kind != trace.SpanKindServer || server.parent.String() != "b7ad6b7169203331" || server.sc.TraceState().String() != "a=b" {
		t.Errorf("server span %+v", server)
	}
	if run.name != "model.run" || run.kind != trace.SpanKindInternal || run.parent != server.sc.SpanID() || run.ended.IsZero() || server.ended.IsZero() {
		t.Errorf("run span %+v", run)
	}
	if got := w.Header().Get("Traceparent"); got != "00-0af7651916cd43dd8448eb211c80319c-"+server.sc.SpanID().String()+"-01" {
		t.Errorf("traceparent %s", got)
	}
	want := map[attribute.Key]string{
		attrModelName: "lin", attrModelVersion: "1", attrModelDigest: "d1", attrFramework: "xgboost", attrTask: "regression", attrBatchSize: "1",
		attrFeatureCount: "3", attrHTTPStatus: "200", attrHTTPMethod: "POST", attrURLPath: "/v2/models/lin/infer",
		attrHTTPRoute: "/v2/models/:model/infer", attrPredictionID: r.tape.last(t).ID,
	}
	for k, v := range want {
		if got := server.attrs[k].String(); got != v {
			t.Errorf("%s is %q, want %q", k, got, v)
		}
	}
	r.do("POST", "/v2/models/lin/infer", inputs(tensor("input", "FP32", "[1,3]", "[777,2,3]")))
	server, run = rec.spans[2], rec.spans[3]
	if server.status != codes.Error || run.status != codes.Error || server.attrs[attrErrorType].String() != "500" {
		t.Errorf("failed spans %+v %+v", server, run)
	}
	r.do("POST", "/v2/models/who/infer", goodBody)
	if s := rec.spans[4]; s.name != "predict" || s.status == codes.Error || s.ended.IsZero() {
		t.Errorf("unknown model's span %s", fmt.Sprint(s))
	}
}
