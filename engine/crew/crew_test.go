package crew

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestEachPartOnce: from many callers at once, calls within calls among them.
func TestEachPartOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for n := range 200 {
				threads, parts := 1+n%5, n%23
				calls := make([]atomic.Int32, parts)
				var inner atomic.Int32
				Run(threads, parts, func(i int) {
					calls[i].Add(1)
					Run(threads, 3, func(int) { inner.Add(1) })
				})
				for i := range calls {
					if c := calls[i].Load(); c != 1 {
						t.Errorf("%d threads: part %d of %d was called %d times", threads, i, parts, c)
					}
				}
				if c := inner.Load(); int(c) != 3*parts {
					t.Errorf("%d calls within, want %d", c, 3*parts)
				}
			}
		})
	}
	callers.Wait()
}

// TestPanicIsTheCallers, whichever goroutine met it; the next call is none the worse.
func TestPanicIsTheCallers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for n := range 100 {
		var calls atomic.Int32
		got := func() (e any) {
			defer func() { e = recover() }()
			Run(3, 7, func(i int) {
				calls.Add(1)
				if i == n%7 {
					panic("part")
				}
			})
			return nil
		}()
		failed, ok := got.(*Failed)
		if !ok || failed.Value != "part" || calls.Load() != 7 || failed.Error() != "a part of a computation: part" {
			t.Fatalf("panic %v after %d calls", got, calls.Load())
		}
		if at := runtime.CallersFrames(failed.At); !saysPart(at) {
			t.Fatal("it does not say where it was")
		}
		Run(3, 7, func(int) { calls.Add(1) })
		if calls.Load() != 14 {
			t.Fatalf("%d calls", calls.Load())
		}
	}
}

// TestHelpersEnd: nothing waits for ever.
func TestHelpersEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	before := runtime.NumGoroutine()
	Run(4, 100, func(int) { runtime.Gosched() })
	for runtime.NumGoroutine() > before || awake() {
		time.Sleep(time.Millisecond)
	}
}

// TestLittleWorkWakesAHelper, once enough of it has come in a row, and work that is seldom
// does not.
func TestLittleWorkWakesAHelper(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for awake() {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		if Worth(2, leastWork/2) != 1 || awake() {
			t.Fatal("a helper was woken for little work")
		}
		time.Sleep(2 * patience)
	}
	for Worth(2, leastWork/2) == 1 {
		runtime.Gosched()
	}
	if Worth(2, leastAwake-1) != 1 || Worth(1, time.Hour) != 1 || Worth(3, leastWork) != 3 {
		t.Fatal("as many goroutines for any work")
	}
	var calls atomic.Int32
	Run(2, 9, func(int) { calls.Add(1) })
	if calls.Load() != 9 {
		t.Fatalf("%d calls", calls.Load())
	}
	for awake() {
		time.Sleep(time.Millisecond)
	}
}

// TestBoardIsFull: callers that find no room compute all parts.
func TestBoardIsFull(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var calls atomic.Int32
	var within func(depth int)
	within = func(depth int) {
		Run(2, 3, func(part int) {
			calls.Add(1)
			if part == 0 && depth > 0 {
				within(depth - 1)
			}
		})
	}
	within(2 * len(board))
	if want := int32(3 * (2*len(board) + 1)); calls.Load() != want {
		t.Fatalf("%d calls, want %d", calls.Load(), want)
	}
	for awake() || coming.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	if n := wanted.Load(); n != 0 {
		t.Fatalf("%d helpers are wanted when nobody asks", n)
	}
}

func BenchmarkRun(b *testing.B) {
	f := func(int) {}
	for b.Loop() {
		Run(2, 2, f)
	}
}

// saysPart reports whether a part of this file is among frames.
func saysPart(frames *runtime.Frames) bool {
	for more := true; more; {
		var f runtime.Frame
		if f, more = frames.Next(); strings.Contains(f.Function, "TestPanicIsTheCallers") {
			return true
		}
	}
	return false
}
