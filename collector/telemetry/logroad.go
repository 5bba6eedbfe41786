package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
)

// newLogs makes what sends log lines to the endpoint, with the trace id of the request
// they are about; nil where there is no endpoint, or one whose path is for spans only.
func newLogs(ctx context.Context, cfg Config, res *resource.Resource) (*sdklog.LoggerProvider, error) {
	u, path, err := besideSpans(cfg.OTLPEndpoint, "logs")
	if err != nil {
		return nil, fmt.Errorf("set up OTLP to %q: %w", shown(cfg.OTLPEndpoint), err)
	}
	if u == nil {
		return nil, nil //nolint:nilnil // nowhere to send to, no provider: both are told by nil
	}
	var e sdklog.Exporter
	if u.Scheme == "grpc" || u.Scheme == "grpcs" {
		e, err = otlploggrpc.New(ctx, grpcLogOptions(u)...)
	} else {
		opts := []otlploghttp.Option{otlploghttp.WithEndpoint(u.Host), otlploghttp.WithURLPath(path), otlploghttp.WithTimeout(attemptTimeout)}
		if u.Scheme == "http" {
			opts = append(opts, otlploghttp.WithInsecure())
		}
		e, err = otlploghttp.New(ctx, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("set up OTLP to %q: %w", shown(cfg.OTLPEndpoint), err)
	}
	return sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithAttributeValueLengthLimit(maxValueLength),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(&quietLogs{Exporter: e, log: cfg.Logger}))), nil
}

func grpcLogOptions(u *url.URL) []otlploggrpc.Option {
	opts := []otlploggrpc.Option{otlploggrpc.WithEndpoint(u.Host), otlploggrpc.WithTimeout(attemptTimeout)}
	if u.Scheme == "grpc" {
		opts = append(opts, otlploggrpc.WithInsecure())
	}
	return opts
}

// quietLogs says once that log lines cannot be sent: each would else make another.
type quietLogs struct {
	sdklog.Exporter
	log  *slog.Logger
	said atomic.Bool
}

// Export implements sdklog.Exporter.
func (q *quietLogs) Export(ctx context.Context, records []sdklog.Record) error {
	if err := q.Exporter.Export(ctx, records); err != nil && !q.said.Swap(true) {
		q.log.Warn("log lines cannot be sent by OTLP; this is said once", "error", err)
	}
	return nil
}

// LogTee is a log handler that passes everything on to another once there is one: a
// log begins before the telemetry that sends it.
type LogTee struct {
	base   slog.Handler
	second *atomic.Pointer[slog.Handler]
	made   []func(slog.Handler) slog.Handler
}

// NewLogTee returns a handler over base.
func NewLogTee(base slog.Handler) *LogTee {
	return &LogTee{base: base, second: &atomic.Pointer[slog.Handler]{}}
}

// Send has what is logged from now on sent by t, too, where t has an endpoint.
func (l *LogTee) Send(t *Telemetry) {
	if t.logs == nil {
		return
	}
	var h slog.Handler = otelslog.NewHandler("github.com/pellucid/pellucid", otelslog.WithLoggerProvider(t.logs))
	l.second.Store(&h)
}

// Enabled implements slog.Handler; base decides.
func (l *LogTee) Enabled(ctx context.Context, level slog.Level) bool {
	return l.base.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *LogTee) Handle(ctx context.Context, r slog.Record) error {
	if h := l.second.Load(); h != nil {
		second := *h
		for _, f := range l.made {
			second = f(second)
		}
		// It queues; what it cannot send is its own to tell.
		_ = second.Handle(ctx, r.Clone())
	}
	return l.base.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *LogTee) WithAttrs(attrs []slog.Attr) slog.Handler {
	return l.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (l *LogTee) WithGroup(name string) slog.Handler {
	return l.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (l *LogTee) with(f func(slog.Handler) slog.Handler) *LogTee {
	return &LogTee{base: f(l.base), second: l.second, made: append(l.made[:len(l.made):len(l.made)], f)}
}
