package audit

import (
	"testing"

	"github.com/pellucid/pellucid/collector/telemetry/telemetrytest"
)

// TestMetricsDoNotWaitForADisk: who has the lock while he writes a file must not keep anybody
// from the metrics.
func TestMetricsDoNotWaitForADisk(t *testing.T) {
	provider, read := telemetrytest.Reader()
	l := openLog(t, config(t))
	if err := l.Observe(provider); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	read(t)
}
