package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// metricReaders are where the metrics go besides /metrics: every minute to the
// endpoint where there is one. An endpoint whose path is for spans only gets none.
func metricReaders(ctx context.Context, cfg Config, own sdkmetric.Producer) ([]sdkmetric.Option, error) {
	u, path, err := besideSpans(cfg.OTLPEndpoint, "metrics")
	if err != nil {
		return nil, fmt.Errorf("set up OTLP to %q: %w", shown(cfg.OTLPEndpoint), err)
	}
	if u == nil {
		return nil, nil
	}
	var e sdkmetric.Exporter
	if u.Scheme == "grpc" || u.Scheme == "grpcs" {
		e, err = otlpmetricgrpc.New(ctx, grpcMetricOptions(u)...)
	} else {
		opts := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpoint(u.Host), otlpmetrichttp.WithURLPath(path), otlpmetrichttp.WithTimeout(attemptTimeout)}
		if u.Scheme == "http" {
			opts = append(opts, otlpmetrichttp.WithInsecure())
		}
		e, err = otlpmetrichttp.New(ctx, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("set up OTLP to %q: %w", shown(cfg.OTLPEndpoint), err)
	}
	return []sdkmetric.Option{sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&quiet{Exporter: e, log: cfg.Logger}, sdkmetric.WithProducer(own)))}, nil
}

func grpcMetricOptions(u *url.URL) []otlpmetricgrpc.Option {
	opts := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(u.Host), otlpmetricgrpc.WithTimeout(attemptTimeout)}
	if u.Scheme == "grpc" {
		opts = append(opts, otlpmetricgrpc.WithInsecure())
	}
	return opts
}

// quiet says once that metrics cannot be sent, and once that they can again: many
// endpoints take spans only, and there is a next time every minute.
type quiet struct {
	sdkmetric.Exporter
	log    *slog.Logger
	failed atomic.Bool
}

// Export implements sdkmetric.Exporter.
func (q *quiet) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	err := q.Exporter.Export(ctx, m)
	if was := q.failed.Swap(err != nil); was != (err != nil) {
		if err != nil {
			q.log.Warn("metrics cannot be sent by OTLP; this is said once", "error", err)
		} else {
			q.log.Info("metrics are sent by OTLP again")
		}
	}
	return nil
}
