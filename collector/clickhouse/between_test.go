package clickhouse

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// plannedOnly is a Kept that is asked for its planned batch only.
type plannedOnly struct {
	asked
	token atomic.Value
}

type asked interface{ Kept }

func (p *plannedOnly) Planned() string { return p.token.Load().(string) }

// TestBetweenDoesNotWaitForWhatNeverComes: a batch that an earlier process had planned may be
// damaged; once the spool has given it up nothing is under way.
func TestBetweenDoesNotWaitForWhatNeverComes(t *testing.T) {
	kept := &plannedOnly{}
	kept.token.Store("an earlier batch")
	w := &Writer{turn: make(chan struct{}, 1), cfg: WriterConfig{Kept: kept}}
	w.startEven()
	ran := make(chan error, 1)
	go func() { ran <- w.between(t.Context(), func() error { return nil }) }()
	select {
	case <-ran:
		t.Fatal("it did not wait for a batch that may be partly stored")
	case <-time.After(60 * time.Millisecond):
	}
	kept.token.Store("")
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	// One that this process began is waited for, whatever is planned.
	w.begun = true
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := w.between(ctx, func() error { return nil }); err == nil {
		t.Error("it did not wait for a batch under way")
	}
}

// TestBetweenGivesUp a batch that does not end, as where the store is away or its disk full.
func TestBetweenGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Writer{turn: make(chan struct{}, 1)}
		w.turn <- struct{}{}
		began := time.Now()
		err := w.between(t.Context(), func() error { return nil })
		if !errors.Is(err, collector.ErrUnavailable) || time.Since(began) != turnWait {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
