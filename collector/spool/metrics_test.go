package spool

import (
	"context"
	"errors"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

// TestMetricsDoNotWaitForADisk: the metrics of all of the server are read together, so who has
// the lock while he writes a file must not keep anybody from them.
func TestMetricsDoNotWaitForADisk(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	d := deadAt(t, vfs.OS{})
	d.cfg.Dir = t.TempDir()
	if err := errors.Join(d.Observe(provider), d.Bury([]collector.DeadLetter{aLetter("b", 1)})); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, read := metricdata.ResourceMetrics{}, make(chan error, 1)
	go func() { read <- reader.Collect(ctx, &got) }()
	select {
	case err := <-read:
		if err != nil || len(got.ScopeMetrics) == 0 {
			t.Fatalf("%v, %d scopes", err, len(got.ScopeMetrics))
		}
	case <-ctx.Done():
		t.Fatal("the metrics wait")
	}
}
