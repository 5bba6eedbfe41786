package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxSeries bounds the label sets of one metric; more share one series.
	maxSeries = 2000
	// maxValueLength cuts an attribute's text.
	maxValueLength = 2048
)

// Config says how spans are sampled and where they go.
type Config struct {
	// ServiceName is "pellucid" when empty; ServiceVersion is left out when empty.
	ServiceName, ServiceVersion string
	// InstanceID names this process among others; empty means a random one.
	InstanceID string

	// SampleRatio is the share of traces kept when the caller has not decided:
	// 0 keeps none of them, 1 all. A caller's own decision is followed, but for what
	// explains, which is always kept.
	SampleRatio float64

	// OTLPEndpoint sends metrics there, and spans instead of to WriteSpans: an http:// or
	// https:// address (OTLP/HTTP; the path defaults to /v1/traces), or
	// grpc://host:port, grpcs://host:port or plain host:port (OTLP/gRPC).
	OTLPEndpoint string
	// WriteSpans stores a batch of spans. It is called by two goroutines, each of which
	// comes after an error again with the very same spans, so a writer that derives a
	// deduplication token from them stores them once. With neither an endpoint
	// nor a writer spans are made (their ids appear in records and exemplars)
	// and forgotten.
	WriteSpans func(ctx context.Context, spans []Span) error

	// KeepSlower has the spans of a sampled request that took longer kept like those of
	// one that failed; 0 means of none. See Telemetry.Keep for requests not sampled.
	KeepSlower time.Duration
	// KeptBytes bounds the memory of spans of failed, slow and explained requests that
	// wait for WriteSpans, which they are offered to for as long as the process runs; 0
	// means 64 MiB.
	KeptBytes int64
	// QueueSize is how many other ended spans may wait; 0 means 16384. RetryFor is how
	// long a batch of these is offered to WriteSpans before it is given up and counted;
	// 0 means one minute.
	QueueSize int
	RetryFor  time.Duration
	// BatchSize is how many spans are written at once; 0 means 2048. FlushEvery is how
	// long a span waits for company; 0 means one second.
	BatchSize  int
	FlushEvery time.Duration

	// Logger takes what the SDK and the queue have to say; nil means the default.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.ServiceName == "" {
		c.ServiceName = "pellucid"
	}
	if c.InstanceID == "" {
		c.InstanceID = uuid.NewString()
	}
	if math.IsNaN(c.SampleRatio) || c.SampleRatio < 0 || c.SampleRatio > 1 {
		return c, fmt.Errorf("sample ratio %g is not between 0 and 1", c.SampleRatio)
	}
	if c.QueueSize < 0 || c.BatchSize < 0 || c.FlushEvery < 0 || c.RetryFor < 0 || c.KeptBytes < 0 || c.KeepSlower < 0 {
		return c, errors.New("sizes and times of spans cannot be negative")
	}
	c.QueueSize = cmp.Or(c.QueueSize, 16384)
	c.BatchSize = cmp.Or(c.BatchSize, 2048)
	c.FlushEvery = cmp.Or(c.FlushEvery, time.Second)
	c.RetryFor = cmp.Or(c.RetryFor, time.Minute)
	c.KeptBytes = cmp.Or(c.KeptBytes, 64<<20)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Telemetry holds the providers of one process.
type Telemetry struct {
	tracers  *sdktrace.TracerProvider
	heads    heads                    // of tracers
	late     *sdktrace.TracerProvider // of spans that are over; see Keep
	logs     *sdklog.LoggerProvider   // nil without an endpoint; see LogTee
	meters   *sdkmetric.MeterProvider
	counted  histograms // of meters
	registry *prometheus.Registry
	tails    *tails // of tracers and late
	log      *slog.Logger
	stop     sync.Once
	instance string
}

// Instance is this process's service.instance.id.
func (t *Telemetry) Instance() string { return t.instance }

// New builds the providers and starts the queue's goroutine, which Shutdown
// stops. It changes nothing global: see SetGlobal.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure telemetry: %w", err)
	}
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("describe this service: %w", err)
	}
	t := &Telemetry{registry: prometheus.NewRegistry(), log: cfg.Logger}
	if id, ok := res.Set().Value("service.instance.id"); ok {
		t.instance = id.AsString()
	}
	t.counted.all = &histogramList{}
	if t.meters, err = newMeters(ctx, cfg, t.registry, res, t.counted.all); err != nil {
		return nil, err
	}
	t.counted.sdk = t.meters
	if t.logs, err = newLogs(ctx, cfg, res); err != nil {
		return nil, err
	}
	r, err := newRoad(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.tails = newTails(cfg, r)
	var whole, late sdktrace.SpanProcessor
	if r.export != nil {
		whole, late = t.tails, lateTails{t.tails}
	}
	share := newHeadShare(cfg.SampleRatio)
	t.tracers = newTracers(res, whole, sdktrace.WithIDGenerator(share),
		sdktrace.WithSampler(keepExplained{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))}))
	t.heads = heads{sdk: t.tracers, share: share}
	t.late = newTracers(res, late, sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(lateIDs{}))
	if err := t.observeSpans(); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// newResource describes this process; OTEL_RESOURCE_ATTRIBUTES and
// OTEL_SERVICE_NAME win over the configuration, as users of OpenTelemetry expect.
func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{
		attribute.String("service.name", cfg.ServiceName),
		attribute.String("service.instance.id", cfg.InstanceID),
	}
	if cfg.ServiceVersion != "" {
		attrs = append(attrs, attribute.String("service.version", cfg.ServiceVersion))
	}
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attrs...), resource.WithFromEnv())
}

func newMeters(ctx context.Context, cfg Config, registry *prometheus.Registry, res *resource.Resource, own sdkmetric.Producer) (*sdkmetric.MeterProvider, error) {
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register runtime metrics: %w", err)
		}
	}
	// Names are translated the same way whatever the process-wide defaults of
	// the Prometheus library say: registry.yaml promises them.
	reader, err := promexporter.New(
		promexporter.WithRegisterer(registry),
		promexporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		promexporter.WithoutScopeInfo(),
		promexporter.WithProducer(own),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the Prometheus exporter: %w", err)
	}
	opts, err := metricReaders(ctx, cfg, own)
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewMeterProvider(append(opts,
		sdkmetric.WithReader(reader),
		sdkmetric.WithResource(res),
		sdkmetric.WithExemplarFilter(exemplar.TraceBasedFilter),
		sdkmetric.WithCardinalityLimit(maxSeries),
	)...), nil
}

// newTracers makes a provider; p is nil where spans go nowhere.
func newTracers(res *resource.Resource, p sdktrace.SpanProcessor, more ...sdktrace.TracerProviderOption) *sdktrace.TracerProvider {
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxValueLength
	// What a panic says may be anything: the SDK would note it on the spans that it ends.
	opts := append([]sdktrace.TracerProviderOption{sdktrace.WithResource(res), sdktrace.WithRawSpanLimits(limits), sdktrace.WithoutPanicRecording()}, more...)
	if p != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(p))
	}
	return sdktrace.NewTracerProvider(opts...)
}

// observeSpans publishes what became of the spans.
func (t *Telemetry) observeSpans() error {
	outcome, kept := attribute.Key("pellucid.span.outcome"), attribute.Key("pellucid.span.kept")
	as := func(o string, k bool) metric.ObserveOption {
		return metric.WithAttributeSet(attribute.NewSet(outcome.String(o), kept.Bool(k)))
	}
	observe := func(_ context.Context, o metric.Int64Observer) error {
		for k, s := range map[bool]Stats{true: t.tails.kept.stats(), false: t.tails.sampled.stats()} {
			o.Observe(int64(s.Written), as("written", k))
			o.Observe(int64(s.Dropped), as("dropped", k))
			o.Observe(int64(s.Failed), as("failed", k))
		}
		return nil
	}
	_, err := t.meters.Meter("github.com/pellucid/pellucid/collector/telemetry").Int64ObservableCounter(
		"pellucid.telemetry.spans", metric.WithUnit("{span}"),
		metric.WithDescription("Spans by what became of them, written, dropped (queue full) or failed (given up), and whether they are of failed, slow or explained requests, which are kept."),
		metric.WithInt64Callback(observe))
	if err != nil {
		return fmt.Errorf("observe spans: %w", err)
	}
	return nil
}

// TracerProvider makes the tracers of every room.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.heads }

// MeterProvider makes the meters of every room.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.counted }

// Propagator reads and writes W3C trace context and baggage.
func (t *Telemetry) Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// SetGlobal makes the providers, the propagator and the logger those of the
// whole process, for libraries that ask OpenTelemetry for them. Only cmd calls it.
func (t *Telemetry) SetGlobal() {
	otel.SetTracerProvider(t.heads)
	otel.SetMeterProvider(t.counted)
	otel.SetTextMapPropagator(t.Propagator())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.log.Warn("opentelemetry", "error", err) }))
}

// MetricsHandler answers Prometheus. Exemplars, with the trace id of a sampled
// request, appear in the OpenMetrics form, which Prometheus asks for.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
		ErrorLog:            slog.NewLogLogger(t.log.Handler(), slog.LevelWarn),
	})
}

// Flush writes every span that has ended before the call, and whose request has.
func (t *Telemetry) Flush(ctx context.Context) error {
	if err := t.tracers.ForceFlush(ctx); err != nil {
		return fmt.Errorf("flush spans: %w", err)
	}
	return nil
}

// Stats counts the spans so far.
func (t *Telemetry) Stats() Stats {
	k, s := t.tails.kept.stats(), t.tails.sampled.stats()
	return Stats{Written: k.Written + s.Written, Dropped: k.Dropped + s.Dropped, Failed: k.Failed + s.Failed, Waiting: k.Waiting + s.Waiting}
}

// Shutdown writes what waits, until ctx ends, and stops. Spans that could not be
// written are counted in the error and in Stats. Calling it again does nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var err error
	t.stop.Do(func() {
		err = errors.Join(t.tracers.Shutdown(ctx), t.meters.Shutdown(ctx))
		if t.logs != nil {
			err = errors.Join(err, t.logs.Shutdown(ctx))
		}
	})
	if err != nil {
		return fmt.Errorf("shut down telemetry: %w", err)
	}
	return nil
}
