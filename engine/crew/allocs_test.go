//go:build !race

// The race detector has pools forget at random.

package crew

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNoObjects: a call of a function that is there makes none.
func TestNoObjects(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	f := func(int) {}
	if n := objects(1000, func() { Run(2, 4, f) }); n > 100 {
		t.Fatalf("%d objects of 1000 calls", n)
	}
}

// TestLateHelpersMakeNoObjects: where something else has the other processors, helpers come when
// calls are long over, and those to come are enough for the next calls.
func TestLateHelpersMakeNoObjects(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for awake() {
		time.Sleep(time.Millisecond)
	}
	var started, end atomic.Bool
	var other sync.WaitGroup
	other.Go(func() {
		for !end.Load() {
			started.Store(true)
		}
	})
	for !started.Load() {
		runtime.Gosched()
	}
	f := func(int) {}
	n := objects(1000, func() { Run(2, 4, f) })
	end.Store(true)
	other.Wait()
	if n > 100 {
		t.Fatalf("%d objects of 1000 calls", n)
	}
}

// objects is how many so many calls make, beside what the first of all fill pools with.
func objects(calls int, call func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties them
	for range 10 {
		call()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		call()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
