package clickhouse

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestCancelAfterSendLeavesTheConnectionAlone ends the context of an insert as
// soon as it has succeeded, as every caller with a time limit does. The driver
// watches that context for a moment longer than its insert and would close a
// connection that the next question already has.
func TestCancelAfterSendLeavesTheConnectionAlone(t *testing.T) {
	s := open(t)
	// The driver's watching goroutine must be late for this to show: others keep
	// the processors busy.
	var stop atomic.Bool
	defer stop.Store(true)
	for range 4 * runtime.GOMAXPROCS(0) {
		go func() {
			for !stop.Load() {
				runtime.Gosched()
			}
		}()
	}
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := s.sendRows(ctx, fmt.Sprintf("token-%d", i), "INSERT INTO schemas (id, doc)", 1, func(int) []any {
			return []any{fmt.Sprintf("schema-%d", i), "{}"}
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.strings(t.Context(), "SELECT doc FROM schemas WHERE id = ? LIMIT 1", "none"); err != nil {
			t.Fatalf("after insert %d: %v", i, err)
		}
	}
}

// TestCancelDuringAnInsertStopsIt holds that the insert still obeys its context.
func TestCancelDuringAnInsertStopsIt(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.sendRows(ctx, "token", "INSERT INTO schemas (id, doc)", 2, func(i int) []any {
		if i == 1 {
			cancel()
		}
		return []any{fmt.Sprintf("schema-%d", i), "{}"}
	})
	if err == nil {
		t.Fatal("an insert whose context had ended succeeded")
	}
	if _, err := s.strings(t.Context(), "SELECT doc FROM schemas LIMIT 1"); err != nil {
		t.Fatal(err)
	}
}
