package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector/strictyaml"
)

// start makes a Telemetry that is shut down with the test.
func start(t *testing.T, cfg Config) *Telemetry {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	tel, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	return tel
}

// sink collects written spans.
type sink struct {
	mu    sync.Mutex
	spans []Span
}

func (s *sink) write(_ context.Context, spans []Span) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(s.spans, spans...)
	return nil
}

func (s *sink) all() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Span(nil), s.spans...)
}

func flush(t *testing.T, tel *Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tel.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func endSpans(t *testing.T, tel *Telemetry, n int) {
	t.Helper()
	tracer := tel.TracerProvider().Tracer("test")
	for range n {
		_, span := tracer.Start(t.Context(), "work")
		span.End()
	}
}

func TestSpanBecomesItsRow(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 1, ServiceVersion: "1.2.3", InstanceID: "one", WriteSpans: out.write})
	tracer := tel.TracerProvider().Tracer("scope", trace.WithInstrumentationVersion("9"))
	begin := time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
	ctx, parent := tracer.Start(t.Context(), "infer", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(begin))
	linked := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	_, child := tracer.Start(ctx, "model.run", trace.WithTimestamp(begin),
		trace.WithLinks(trace.Link{SpanContext: linked, Attributes: []attribute.KeyValue{attribute.Int("l", 1)}}))
	child.SetAttributes(attribute.String("s", "x"), attribute.Int("i", 7), attribute.Bool("b", true),
		attribute.Float64("f", 0.5), attribute.StringSlice("list", []string{"a", "b"}),
		attribute.String("long", strings.Repeat("x", maxValueLength+1)))
	child.AddEvent("happened", trace.WithTimestamp(begin.Add(time.Microsecond)), trace.WithAttributes(attribute.String("k", "v")))
	child.SetStatus(codes.Error, "it broke")
	child.End(trace.WithTimestamp(begin.Add(1500 * time.Nanosecond)))
	parent.End(trace.WithTimestamp(begin.Add(time.Millisecond)))
	flush(t, tel)

	got := out.all()
	if len(got) != 2 {
		t.Fatalf("wrote %d spans, want 2", len(got))
	}
	resource := got[0].ResourceAttributes
	for k, want := range map[string]string{"service.name": "pellucid", "service.version": "1.2.3", "service.instance.id": "one", "telemetry.sdk.language": "go"} {
		if resource[k] != want {
			t.Errorf("resource attribute %s is %q, want %q", k, resource[k], want)
		}
	}
	want := Span{
		Timestamp: begin, Duration: 1500, SpanName: "model.run", SpanKind: "Internal",
		TraceID: parent.SpanContext().TraceID().String(), SpanID: child.SpanContext().SpanID().String(),
		ParentSpanID: parent.SpanContext().SpanID().String(), ServiceName: "pellucid", ResourceAttributes: resource,
		ScopeName: "scope", ScopeVersion: "9", StatusCode: "Error", StatusMessage: "it broke",
		SpanAttributes: map[string]string{"s": "x", "i": "7", "b": "true", "f": "0.5", "list": `["a","b"]`, "long": strings.Repeat("x", maxValueLength)},
		Events:         []SpanEvent{{Timestamp: begin.Add(time.Microsecond), Name: "happened", Attributes: map[string]string{"k": "v"}}},
		Links:          []SpanLink{{TraceID: "01" + strings.Repeat("0", 30), SpanID: "02" + strings.Repeat("0", 14), Attributes: map[string]string{"l": "1"}}},
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("child row\n got %+v\nwant %+v", got[0], want)
	}
	if p := got[1]; p.ParentSpanID != "" || p.SpanKind != "Server" || p.StatusCode != "Unset" || p.Duration != 1e6 || p.SpanAttributes == nil {
		t.Errorf("parent row %+v", p)
	}
}

func TestCallersDecisionIsFollowed(t *testing.T) {
	for _, c := range []struct {
		name, traceparent string
		ratio             float64
		kept              bool
	}{
		{"sampled by the caller", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 0, true},
		{"not sampled by the caller", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", 1, false},
		{"no caller, all", "", 1, true},
		{"no caller, none", "", 0, false},
		{"not a trace context", "00-zz-b7ad6b7169203331-01", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out sink
			tel := start(t, Config{SampleRatio: c.ratio, WriteSpans: out.write})
			carrier := propagation.MapCarrier{"traceparent": c.traceparent, "baggage": "k=v"}
			ctx := tel.Propagator().Extract(t.Context(), carrier)
			ctx, span := tel.TracerProvider().Tracer("test").Start(ctx, "infer")
			forwarded := propagation.MapCarrier{}
			tel.Propagator().Inject(ctx, forwarded)
			span.End()
			flush(t, tel)
			if got := len(out.all()) == 1; got != c.kept {
				t.Errorf("kept is %v, want %v", got, c.kept)
			}
			if !strings.Contains(forwarded["traceparent"], span.SpanContext().SpanID().String()) || forwarded["baggage"] != "k=v" {
				t.Errorf("forwarded %v", forwarded)
			}
		})
	}
}

func TestSampleRatio(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 0.25, WriteSpans: out.write})
	const n = 8000
	endSpans(t, tel, n)
	flush(t, tel)
	// Six standard deviations of a binomial.
	if got, want := float64(len(out.all())), 0.25*n; math.Abs(got-want) > 6*math.Sqrt(n*0.25*0.75) {
		t.Errorf("kept %v of %d, want about %v", got, n, want)
	}
}

func TestFullQueueDropsAndNeverBlocks(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var out sink
	tel := start(t, Config{SampleRatio: 1, QueueSize: 10, BatchSize: 5, FlushEvery: time.Hour, WriteSpans: func(ctx context.Context, s []Span) error {
		once.Do(func() { close(entered) })
		<-release
		return out.write(ctx, s)
	}})
	endSpans(t, tel, 5)
	<-entered // the goroutine holds five and is stuck
	begin := time.Now()
	endSpans(t, tel, 1000)
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("1000 spans took %v while the writer was stuck", d)
	}
	if s := tel.Stats(); s.Dropped != 990 || s.Waiting != 10 || s.Written != 0 {
		t.Errorf("while stuck: %+v, want 990 dropped and 10 waiting", s)
	}
	close(release)
	flush(t, tel)
	if s := tel.Stats(); s != (Stats{Written: 15, Dropped: 990}) || len(out.all()) != 15 {
		t.Errorf("after: %+v and %d rows, want 15 written", s, len(out.all()))
	}
}

func TestRetryOffersTheSameSpans(t *testing.T) {
	var calls [][]Span
	tel := start(t, Config{SampleRatio: 1, FlushEvery: time.Hour, WriteSpans: func(_ context.Context, s []Span) error {
		calls = append(calls, s)
		if len(calls) < 3 {
			return errors.New("the store is away")
		}
		return nil
	}})
	endSpans(t, tel, 4)
	flush(t, tel)
	if len(calls) != 3 || !reflect.DeepEqual(calls[0], calls[1]) || !reflect.DeepEqual(calls[1], calls[2]) {
		t.Errorf("%d attempts, or not of the same spans", len(calls))
	}
	if s := tel.Stats(); s != (Stats{Written: 4}) {
		t.Errorf("%+v, want 4 written", s)
	}
}

func TestGivingUpIsCountedAndSaid(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(context.Context, []Span) error
		want  string
	}{
		{"error", func(context.Context, []Span) error { return errors.New("the store is away") }, "the store is away"},
		{"panic", func(context.Context, []Span) error { panic("a bug") }, "write spans: panic: a value of type string at github.com/pellucid/pellucid/collector/telemetry.TestGivingUpIsCountedAndSaid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			tel := start(t, Config{
				SampleRatio: 1, RetryFor: 150 * time.Millisecond, FlushEvery: time.Hour, WriteSpans: c.write,
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			endSpans(t, tel, 4)
			flush(t, tel)
			if s := tel.Stats(); s != (Stats{Failed: 4}) {
				t.Errorf("%+v, want 4 failed", s)
			}
			if !strings.Contains(log.String(), c.want) || strings.Contains(log.String(), "a bug") {
				t.Errorf("log %q does not say %q", log.String(), c.want)
			}
		})
	}
}

// TestPanicIsNotOnItsSpan: the SDK notes what ends a span by a panic, and a panic may hold
// anything.
func TestPanicIsNotOnItsSpan(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 1, WriteSpans: out.write})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic ended with the span")
			}
		}()
		_, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "work")
		defer span.End()
		panic("a private value")
	}()
	flush(t, tel)
	if got := out.all(); len(got) != 1 || len(got[0].Events) != 0 {
		t.Errorf("spans %+v", got)
	}
}

func TestShutdownWritesWhatWaits(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 1, FlushEvery: time.Hour, WriteSpans: out.write})
	endSpans(t, tel, 100)
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(out.all()); n != 100 {
		t.Errorf("wrote %d, want 100", n)
	}
	endSpans(t, tel, 1) // too late, and harmless
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Errorf("second shutdown: %v", err)
	}
}

func TestShutdownReportsLoss(t *testing.T) {
	for _, c := range []struct {
		name  string
		heeds bool
	}{{"writer heeds its context", true}, {"writer does not", false}} {
		t.Run(c.name, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			tel, err := New(t.Context(), Config{
				SampleRatio: 1, QueueSize: 100, BatchSize: 10, Logger: slog.New(slog.DiscardHandler),
				WriteSpans: func(ctx context.Context, _ []Span) error {
					if !c.heeds {
						<-release
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			endSpans(t, tel, 25)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err = tel.Shutdown(ctx)
			if err == nil || !regexp.MustCompile(`\d+ spans were not written`).MatchString(err.Error()) {
				t.Errorf("error %v does not count the spans", err)
			}
			if d := time.Since(begin); d > 4*time.Second {
				t.Errorf("shutdown took %v after a deadline of 100 ms", d)
			}
			if s := tel.Stats(); c.heeds && s.Failed+s.Dropped != 25 {
				t.Errorf("%+v does not account for 25 spans", s)
			}
		})
	}
}

func TestMetricsEndpoint(t *testing.T) {
	var out sink
	tel := start(t, Config{SampleRatio: 1, WriteSpans: out.write})
	h, err := tel.MeterProvider().Meter("test").Float64Histogram("ml.test.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "infer")
	h.Record(ctx, 0.2, metric.WithAttributes(attribute.String("ml.model.name", "m")))
	span.End()
	flush(t, tel)
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, req)
	body := rec.Body.String()
	for _, want := range []string{
		"go_goroutines ", "process_start_time_seconds ", `target_info{`, `service_name="pellucid"`,
		`ml_test_duration_seconds_count{ml_model_name="m"} 1`,
		`pellucid_telemetry_spans_total{pellucid_span_kept="false",pellucid_span_outcome="written"} 1`, "# EOF",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	exemplar := regexp.MustCompile(`(?m)^ml_test_duration_seconds_bucket.* # \{([^}]*)\} 0\.2 `).FindStringSubmatch(body)
	if exemplar == nil || !strings.Contains(exemplar[1], `trace_id="`+span.SpanContext().TraceID().String()+`"`) {
		t.Errorf("exemplar %q does not name the trace", exemplar)
	}
}

func TestConfigIsRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"sample ratio":   {SampleRatio: 1.5},
		"is not between": {SampleRatio: math.NaN()},
		"negative":       {QueueSize: -1},
		"unknown scheme": {OTLPEndpoint: "ftp://localhost:1"},
		"want scheme":    {OTLPEndpoint: "http://"},
		"no user":        {OTLPEndpoint: "http://user:secret@localhost:1"},
		"no path":        {OTLPEndpoint: "grpc://localhost:1/v1/traces"},
	} {
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: error %v, want one that says %q", cfg, err, name)
		}
	}
}

// TestCollectorConfiguration holds otel-config.yaml to what it promises: loopback
// listeners, one exporter, the table as it is. e2e/otelcol runs it for real.
func TestCollectorConfiguration(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "otel-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Receivers map[string]struct {
			Protocols map[string]map[string]any `yaml:"protocols"`
		} `yaml:"receivers"`
		Processors map[string]any            `yaml:"processors"`
		Exporters  map[string]map[string]any `yaml:"exporters"`
		Service    struct {
			Pipelines map[string]struct {
				Receivers, Processors, Exporters []string
			} `yaml:"pipelines"`
			Telemetry map[string]any `yaml:"telemetry"`
		} `yaml:"service"`
	}
	if err := strictyaml.Decode(data, "otel-config.yaml", &c); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"grpc", "http"} {
		endpoint, _ := c.Receivers["otlp"].Protocols[protocol]["endpoint"].(string)
		if !strings.Contains(endpoint, "127.0.0.1:") {
			t.Errorf("%s listens on %q", protocol, endpoint)
		}
	}
	if e := c.Exporters["clickhouse"]; len(c.Exporters) != 1 || e["create_schema"] != false || e["traces_table_name"] != "otel_traces" || e["async_insert"] != false {
		t.Errorf("exporters are %v", c.Exporters)
	}
	p := c.Service.Pipelines["traces"]
	if len(c.Service.Pipelines) != 1 || !reflect.DeepEqual(p.Exporters, []string{"clickhouse"}) || p.Processors[0] != "memory_limiter" {
		t.Errorf("pipelines are %+v", c.Service.Pipelines)
	}
}
