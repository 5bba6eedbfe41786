package spool

import (
	"errors"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/telemetry/telemetrytest"
	"github.com/pellucid/pellucid/collector/vfs"
)

// TestMetricsDoNotWaitForADisk: who has the lock while he writes a file must not keep anybody
// from the metrics.
func TestMetricsDoNotWaitForADisk(t *testing.T) {
	provider, read := telemetrytest.Reader()
	d := deadAt(t, vfs.OS{})
	d.cfg.Dir = t.TempDir()
	if err := errors.Join(d.Observe(provider), d.Bury([]collector.DeadLetter{aLetter("b", 1)})); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	read(t)
}
