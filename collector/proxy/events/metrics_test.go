package events

import (
	"testing"

	"github.com/pellucid/pellucid/collector/telemetry/telemetrytest"
)

// TestMetricsDoNotWaitForADisk: who has the lock while he writes a file must not keep anybody
// from the metrics.
func TestMetricsDoNotWaitForADisk(t *testing.T) {
	provider, read := telemetrytest.Reader()
	r := openRig(t, func(c *Config) { c.MeterProvider = provider })
	r.mu.Lock()
	defer r.mu.Unlock()
	read(t)
}
