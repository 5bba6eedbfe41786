package clickhouse

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine/stats"
)

// kill -9 of the engine in the middle of inserts, five times: every batch the
// writer acknowledged is there once, and so are the rollups.
func TestKilledEngineLosesAndDoublesNothing(t *testing.T) {
	e, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, m := openDSN(t, e.Env().DSN()), newMaker(t)
	ref := m.reference(t, 300)
	src := &list{}
	rows := 0
	for i := range 120 {
		b := &collector.Batch{Token: fmt.Sprintf("b%03d", i), Records: []collector.Record{m.schemaRecord(t)}}
		for k := range 50 {
			p := m.prediction(t, 1+k%4, base.AddDate(0, k%2, 0).Add(time.Duration(i)*time.Second))
			rows += p.Rows
			b.Records = append(b.Records, record(p))
		}
		src.batches = append(src.batches, b)
	}
	w := writer(t, s, WriterConfig{Source: src, Backoff: 20 * time.Millisecond, Reference: func(string) *stats.Reference { return ref }})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	total := src.left()
	for round := 1; round <= 5; round++ {
		for src.left() > total-total*round/6 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(m.rng.Intn(20)) * time.Millisecond)
		if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for src.left() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d batches left after a minute: %v", src.left(), w.Health().Err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.consistent(t, s, rows)
	h := w.Health()
	if e.Restarts() < 5 || h.Retries == 0 || h.Err != nil {
		t.Errorf("%d deaths, health %+v", e.Restarts(), h)
	}
	t.Logf("%d rows in %d batches, %d kills, %d retries", rows, total, e.Restarts(), h.Retries)
}
