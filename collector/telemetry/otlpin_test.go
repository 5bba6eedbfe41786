package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
)

// taken keeps what a handler writes, or fails.
type taken struct {
	mu    sync.Mutex
	spans []Span
	err   error
	calls int
}

func (s *taken) write(_ context.Context, spans []Span) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		err := s.err
		s.err = nil
		return err
	}
	s.spans = append(s.spans, spans...)
	return nil
}

// TestSpansOfARealSDK: what an unmodified OpenTelemetry SDK sends by OTLP/HTTP
// becomes the rows that our own spans would be, after a failure too.
func TestSpansOfARealSDK(t *testing.T) {
	s := &taken{err: errors.New("the store is away")}
	server := httptest.NewServer(NewIntake(IntakeConfig{Write: s.write}).Handler())
	defer server.Close()
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(server.URL+"/v1/traces"), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		t.Fatal(err)
	}
	keep := &copied{}
	res := resource.NewSchemaless(attribute.String("service.name", "elsewhere"), attribute.Int("replica", 3))
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSyncer(exporter), sdktrace.WithSyncer(keep))
	tracer := provider.Tracer("test", trace.WithInstrumentationVersion("1.2"))
	ctx, parent := tracer.Start(t.Context(), "outer", trace.WithSpanKind(trace.SpanKindServer))
	_, child := tracer.Start(ctx, "inner", trace.WithLinks(trace.Link{SpanContext: parent.SpanContext(), Attributes: []attribute.KeyValue{attribute.Bool("b", true)}}))
	child.SetAttributes(attribute.String("a", "x"), attribute.Float64("f", 0.5), attribute.Int64Slice("l", []int64{1, 2}))
	child.AddEvent("half way", trace.WithAttributes(attribute.Int("n", 7)))
	child.SetStatus(codes.Error, "on purpose")
	child.End()
	parent.End()
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.spans) != 2 || s.calls != 3 {
		t.Fatalf("%d spans in %d calls", len(s.spans), s.calls)
	}
	for i, want := range keep.rows {
		got := s.spans[i]
		if got.TraceID != want.TraceID || got.SpanID != want.SpanID || got.ParentSpanID != want.ParentSpanID || got.SpanName != want.SpanName || got.SpanKind != want.SpanKind ||
			got.ServiceName != "elsewhere" || got.ResourceAttributes["replica"] != "3" || got.ScopeName != "test" || got.ScopeVersion != "1.2" ||
			!got.Timestamp.Equal(want.Timestamp) || got.Duration != want.Duration || got.StatusCode != want.StatusCode || got.StatusMessage != want.StatusMessage ||
			len(got.Events) != len(want.Events) || len(got.Links) != len(want.Links) {
			t.Errorf("span %d is\n%+v, ours would be\n%+v", i, got, want)
		}
	}
	if inner := s.spans[0]; inner.SpanAttributes["a"] != "x" || inner.SpanAttributes["f"] != "0.5" || inner.SpanAttributes["l"] != "[1,2]" ||
		inner.Events[0].Attributes["n"] != "7" || inner.Links[0].Attributes["b"] != "true" {
		t.Errorf("attributes of %+v", inner)
	}
}

// copied makes our own rows of what the SDK ends.
type copied struct{ rows []Span }

func (k *copied) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		k.rows = append(k.rows, newSpan(s))
	}
	return nil
}

func (k *copied) Shutdown(context.Context) error { return nil }

// oneSpan is a request in OTLP's JSON form, whose ids are hexadecimal.
const oneSpan = `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"json"}}]},"scopeSpans":[{"scope":{"name":"s"},"spans":[
{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173","name":"a span","kind":2,
"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","attributes":[{"key":"my.attr","value":{"intValue":"10"}}]},
{"traceId":"","spanId":"","name":"nobody's","startTimeUnixNano":"1544712660000000000"}]}]}]}`

func TestOTLPRequests(t *testing.T) {
	s := &taken{}
	h := NewIntake(IntakeConfig{Write: s.write}).Handler()
	f := func(name, kind, encoding, body string, want int, says string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/v1/traces", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(oneSpan))
	_ = z.Close()
	f("JSON", "application/json; charset=utf-8", "", oneSpan, 200, `"rejectedSpans":"1"`)
	f("gzip", "application/json", "gzip", packed.String(), 200, "")
	f("nothing", "application/x-protobuf", "", "", 200, "")
	if len(s.spans) != 2 || s.spans[0].TraceID != "5b8efff798038103d269b633813fc60c" || s.spans[0].SpanKind != "Server" || s.spans[0].Duration != uint64(time.Second) ||
		s.spans[0].SpanAttributes["my.attr"] != "10" || s.spans[0].StatusCode != "Unset" {
		t.Errorf("spans %+v", s.spans)
	}
	f("another type", "text/plain", "", oneSpan, 415, "content type")
	f("another encoding", "application/json", "br", oneSpan, 415, "encoding")
	f("not gzip", "application/json", "gzip", oneSpan, 400, "gzip")
	f("not JSON", "application/json", "", "{", 400, "ExportTraceServiceRequest")
	f("not protobuf", "application/x-protobuf", "", "\xff\xff\xff", 400, "ExportTraceServiceRequest")
	packed.Reset()
	z = gzip.NewWriter(&packed)
	_, _ = io.CopyN(z, zeros{}, maxOTLPBody+10)
	_ = z.Close()
	f("a bomb", "application/json", "gzip", packed.String(), 413, "larger")
	s.err = errors.New("secret trouble")
	f("store away", "application/json", "", oneSpan, 503, "could not be stored")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// onePrediction is a span whose attributes have every type.
const onePrediction = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
	"startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[
	{"key":"ml.model.name","value":{"stringValue":"m"}},{"key":"ml.features.x","value":{"intValue":"3"}},{"key":"ml.features.d","value":{"doubleValue":0.5}},
	{"key":"ml.features","value":{"kvlistValue":{"values":[{"key":"b","value":{"boolValue":true}},{"key":"n","value":{}}]}}},
	{"key":"ml.outputs","value":{"stringValue":"{\"y\":[1,2]}"}},{"key":"ml.outputs.z","value":{"arrayValue":{"values":[{"doubleValue":1},{"doubleValue":2}]}}},
	{"key":"ml.prediction.score","value":{"doubleValue":0.25}}]}]}]}]}`

// checkPrediction holds what is made of any span to what its receiver relies on.
func checkPrediction(t *testing.T, p *collector.Imported) {
	t.Helper()
	if p.Model == "" && p.Info == nil || p.ID == "" || len(p.TraceID) != 32 || len(p.SpanID) != 16 || len(p.Features)+len(p.Outputs) > maxSpanValues+1 {
		t.Errorf("prediction %+v", p)
	}
	for _, values := range []map[string]json.RawMessage{p.Features, p.Outputs, p.Content} {
		for name, raw := range values {
			if !json.Valid(raw) {
				t.Errorf("%q is %s", name, raw)
			}
		}
	}
}

func FuzzOTLP(f *testing.F) {
	f.Add([]byte(oneSpan), true)
	f.Add([]byte{0x0a, 0x00}, false)
	f.Add([]byte(onePrediction), true)
	f.Fuzz(func(t *testing.T, body []byte, asJSON bool) {
		r := httptest.NewRequest(http.MethodPost, "/v1/traces", bytes.NewReader(body))
		r.Header.Set("Content-Type", map[bool]string{true: "application/json", false: "application/x-protobuf"}[asJSON])
		w := httptest.NewRecorder()
		NewIntake(IntakeConfig{
			Write: func(_ context.Context, spans []Span) error {
				for _, s := range spans {
					if len(s.TraceID) != 32 || s.Timestamp.Before(earliestSpan) {
						t.Errorf("span %+v", s)
					}
				}
				return nil
			},
			Predict: func(_ context.Context, list []*collector.Imported) ([]collector.ImportResult, error) {
				for _, p := range list {
					checkPrediction(t, p)
				}
				return make([]collector.ImportResult, len(list)), nil
			},
		}).Handler().ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 400 && w.Code != 413 {
			t.Errorf("%d", w.Code)
		}
	})
}
