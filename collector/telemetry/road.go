package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
)

// road is where this process sends its spans: export takes a batch there, close
// ends the connection. A nil export is no road.
type road struct {
	export func(ctx context.Context, spans []sdktrace.ReadOnlySpan) error
	close  func(ctx context.Context) error
	// retryFor is how long a batch sampled by chance is offered again; 0 where the road
	// itself retries any batch, by its protocol's own rules.
	retryFor time.Duration
}

// attempt calls export once. A panic in it is an error: it must not end the process.
func (r road) attempt(ctx context.Context, spans []sdktrace.ReadOnlySpan) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			kind, stack := collector.Panicked(p)
			err = fmt.Errorf("write spans: panic: %s at %s", kind, stack[0])
		}
	}()
	return r.export(ctx, spans)
}

// newRoad picks the one road of this process: the endpoint where there is one,
// else the writer, else none.
func newRoad(ctx context.Context, cfg Config) (road, error) {
	if cfg.OTLPEndpoint != "" {
		e, err := newOTLP(ctx, cfg.OTLPEndpoint)
		if err != nil {
			return road{}, fmt.Errorf("set up OTLP to %q: %w", shown(cfg.OTLPEndpoint), err)
		}
		export := func(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
			return e.ExportSpans(ctx, stateless(spans))
		}
		return road{export: export, close: e.Shutdown}, nil
	}
	if cfg.WriteSpans == nil {
		return road{}, nil
	}
	export := func(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
		rows := make([]Span, len(spans))
		for i, s := range spans {
			rows[i] = newSpan(s)
		}
		return cfg.WriteSpans(ctx, rows)
	}
	return road{export: export, close: func(context.Context) error { return nil }, retryFor: cfg.RetryFor}, nil
}

// statelessSpan is a span without the trace state of whoever called: that is passed on
// to upstreams, and is anybody's text, which is not recorded.
type statelessSpan struct{ sdktrace.ReadOnlySpan }

// SpanContext returns the span's context without a trace state.
func (s statelessSpan) SpanContext() trace.SpanContext {
	return s.ReadOnlySpan.SpanContext().WithTraceState(trace.TraceState{})
}

// Parent returns the parent's context without a trace state.
func (s statelessSpan) Parent() trace.SpanContext {
	return s.ReadOnlySpan.Parent().WithTraceState(trace.TraceState{})
}

// Links returns the links without trace states.
func (s statelessSpan) Links() []sdktrace.Link {
	out := slices.Clone(s.ReadOnlySpan.Links())
	for i := range out {
		out[i].SpanContext = out[i].SpanContext.WithTraceState(trace.TraceState{})
	}
	return out
}

func stateless(spans []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	out := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		out[i] = statelessSpan{s}
	}
	return out
}

// parseEndpoint reads an address; one without a scheme is gRPC's.
func parseEndpoint(endpoint string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "grpc://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, errors.New("it is no address") // the error repeats it
	}
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("want scheme://host:port, with no user, query or fragment")
	}
	return u, nil
}

// shown is an endpoint for messages: without what may be a secret in it.
func shown(endpoint string) string {
	endpoint, _, _ = strings.Cut(endpoint, "?")
	endpoint, _, _ = strings.Cut(endpoint, "#")
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, rest = "", endpoint
	} else {
		scheme += "://"
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + rest
}

// besideSpans is where an endpoint takes another signal than spans ("metrics", "logs"):
// its address, and the path over HTTP. It is nil where there is no endpoint, or one
// whose path is for spans only.
func besideSpans(endpoint, signal string) (u *url.URL, path string, err error) {
	if endpoint == "" {
		return nil, "", nil
	}
	if u, err = parseEndpoint(endpoint); err != nil {
		return nil, "", err
	}
	base, spans := strings.CutSuffix(u.Path, "/v1/traces")
	if u.Scheme != "grpc" && u.Scheme != "grpcs" && !spans && base != "" && base != "/" {
		return nil, "", nil
	}
	return u, strings.TrimSuffix(base, "/") + "/v1/" + signal, nil
}

// newOTLP makes the exporter an endpoint's scheme asks for. It does not wait for
// a connection.
func newOTLP(ctx context.Context, endpoint string) (*otlptrace.Exporter, error) {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "http", "https":
		return newOTLPHTTP(ctx, u)
	case "grpc", "grpcs":
		if u.Path != "" && u.Path != "/" {
			return nil, errors.New("OTLP over gRPC has no path")
		}
		opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(u.Host), otlptracegrpc.WithTimeout(attemptTimeout)}
		if u.Scheme == "grpc" {
			opts = append(opts, otlptracegrpc.WithInsecure())
		}
		return otlptracegrpc.New(ctx, opts...)
	}
	return nil, fmt.Errorf("unknown scheme %q: want http, https, grpc or grpcs", u.Scheme)
}

func newOTLPHTTP(ctx context.Context, u *url.URL) (*otlptrace.Exporter, error) {
	path := u.Path
	if path == "" || path == "/" {
		path = "/v1/traces"
	}
	opts := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(u.Host), otlptracehttp.WithURLPath(path), otlptracehttp.WithTimeout(attemptTimeout),
	}
	if u.Scheme == "http" {
		opts = append(opts, otlptracehttp.WithInsecure())
	}
	return otlptracehttp.New(ctx, opts...)
}
