package clickhouse

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// TestADrainLooksAgainOnceTheDiskHasRoom: it does not wait out what it began to wait while
// the disk was full, and does where the disk was not.
func TestADrainLooksAgainOnceTheDiskHasRoom(t *testing.T) {
	var asked atomic.Int64
	for name, full := range map[string]func() bool{
		"full at first":   func() bool { return asked.Add(1) <= 3 },
		"full since then": func() bool { n := asked.Add(1); return n > 1 && n <= 3 },
	} {
		asked.Store(0)
		w := &Writer{cfg: WriterConfig{Full: full}, roomEvery: time.Millisecond}
		if room, err := w.pause(t.Context(), time.Hour); !room || err != nil {
			t.Errorf("%s: room %t, %v", name, room, err)
		}
	}
	w := &Writer{cfg: WriterConfig{Full: func() bool { return true }}, roomEvery: time.Millisecond}
	if room, err := w.pause(t.Context(), 20*time.Millisecond); room || err != nil {
		t.Errorf("full all the time: room %t, %v", room, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if room, err := w.pause(ctx, time.Hour); room || err == nil {
		t.Errorf("ended: room %t, %v", room, err)
	}
}
