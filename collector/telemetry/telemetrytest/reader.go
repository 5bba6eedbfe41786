// Package telemetrytest reads metrics in tests. It owns no metric.
package telemetrytest

import (
	"context"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Reader is a provider whose metrics a test reads: those of the server are read together, so
// that one which waits keeps all of them.
func Reader() (p *sdkmetric.MeterProvider, read func(t *testing.T)) {
	reader := sdkmetric.NewManualReader()
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), func(t *testing.T) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		got, done := metricdata.ResourceMetrics{}, make(chan error, 1)
		go func() { done <- reader.Collect(ctx, &got) }()
		select {
		case err := <-done:
			if err != nil || len(got.ScopeMetrics) == 0 {
				t.Fatalf("%v, %d scopes", err, len(got.ScopeMetrics))
			}
		case <-ctx.Done():
			t.Fatal("the metrics wait")
		}
	}
}
