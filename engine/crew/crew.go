// Package crew shares the parts of one computation among goroutines.
//
// To wake a sleeping thread takes longer than a small product of matrices does, so
// a goroutine that has helped looks out for the next computation for as long again
// before it ends, as does a caller for the last part before it sleeps: within a run of a
// network the second kernel finds the first one's helper awake. Nothing outlives that.
// Work that is not worth waking anyone is shared while somebody is awake, and wakes
// somebody once as much of it has come in a row (Worth).
//
// Who computes which part is chance, though each goroutine begins with parts that lie
// together, the same ones each time: what it read the last time is in its processor's
// caches. Callers cut their work so that this cannot matter to a result's bits.
package crew

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a goroutine looks out before it gives up: what waking it costs, 70
// to 110 us on a virtual machine whose idle processors halt.
const patience = 100 * time.Microsecond

// job is the parts of one call. Jobs are pooled, so that a call makes no objects.
type job struct {
	f     func(part int)
	lanes []lane
	left  atomic.Int32
	done  sync.WaitGroup // of the parts, for a caller that sleeps
	// state is how many goroutines are at the job, and, times a place, how many more it asks
	// for. One that comes late finds that it asks for none, so that it need not be waited for
	// before the job is used again.
	state  atomic.Int64
	failed atomic.Pointer[Failed]
}

const place = 1 << 32

// lane is the parts that a goroutine takes first: one that finds the same data in the same
// lane finds it in its processor's caches. Lanes do not share a line of them.
type lane struct {
	next atomic.Int32
	end  int32
	_    [56]byte
}

var (
	jobs = sync.Pool{New: func() any { return new(job) }}
	// board has the jobs that ask for helpers; one that finds no room is its caller's alone.
	board [32]atomic.Pointer[job]
	// wanted are the places of all of them, coming the helpers that were started and do not
	// look yet, looking those that do.
	wanted, coming, looking atomic.Int32
)

// Run calls f once for each part, 0 to parts, on up to threads goroutines, of which the
// caller's is one, and returns when all have returned. A panic in any is the caller's.
func Run(threads, parts int, f func(part int)) {
	threads = min(threads, parts, runtime.GOMAXPROCS(0))
	if threads < 2 {
		for i := range parts {
			f(i)
		}
		return
	}
	j := jobs.Get().(*job)
	j.f = f
	if cap(j.lanes) < threads {
		j.lanes = make([]lane, threads)
	}
	j.lanes = j.lanes[:threads]
	for i := range j.lanes {
		j.lanes[i].next.Store(int32(parts * i / threads))
		j.lanes[i].end = int32(parts * (i + 1) / threads)
	}
	j.left.Store(int32(parts))
	j.done.Add(parts)
	at := j.ask(int32(threads - 1))
	j.take(0)
	j.unask(at)
	if !soon(func() bool { return j.left.Load() == 0 }) {
		j.done.Wait()
	}
	failed := j.failed.Load()
	j.leave()
	if failed != nil {
		panic(failed)
	}
}

// ask puts the job on the board for so many helpers, starts those that are too few, and
// returns where it is; it is -1 where there is no room.
func (j *job) ask(helpers int32) int {
	j.state.Store(1)
	at := 0
	for board[at].Load() != nil || !board[at].CompareAndSwap(nil, j) {
		if at++; at == len(board) {
			return -1
		}
	}
	j.state.Add(int64(helpers) * place)
	for n := wanted.Add(helpers) - looking.Load() - coming.Load(); n > 0; n-- {
		coming.Add(1)
		go help()
	}
	return at
}

// unask takes the job off the board once there is no part that nobody has taken.
func (j *job) unask(at int) {
	if at < 0 {
		return
	}
	board[at].Store(nil)
	for {
		s := j.state.Load()
		if j.state.CompareAndSwap(s, s%place) {
			wanted.Add(-int32(s / place))
			return
		}
	}
}

// join takes a place in a job that asks for helpers, and returns its lane.
func join() (j *job, lane int) {
	for i := range board {
		j := board[i].Load()
		if j == nil {
			continue
		}
		for s := j.state.Load(); s >= place; s = j.state.Load() {
			if j.state.CompareAndSwap(s, s-place+1) {
				wanted.Add(-1)
				return j, int(s / place)
			}
		}
	}
	return nil, 0
}

// The least work that is worth sharing with a helper that is awake, and with one that has
// to be woken, which need not be in time for this work to be for the next.
const (
	leastAwake = 4 * time.Microsecond
	leastWork  = 32 * time.Microsecond
)

// little is the work that was not worth waking anyone: how long it took, and when the last
// of it came.
var little struct{ took, last atomic.Int64 }

// epoch is what times are counted from.
var epoch = time.Now()

// Worth is how many goroutines, of threads at most, to share work among that takes one so
// long. Where works that are not worth waking a helper have followed each other for as
// long as that takes, one is woken for those to come.
func Worth(threads int, work time.Duration) int {
	threads = min(threads, runtime.GOMAXPROCS(0))
	switch {
	case threads < 2 || work < leastAwake:
		return 1
	case work >= leastWork || awake():
		return threads
	}
	now := int64(time.Since(epoch))
	if now-little.last.Swap(now) > int64(patience+work) {
		little.took.Store(0)
	}
	if little.took.Add(int64(work)) > int64(patience) {
		little.took.Store(0)
		if coming.Add(1) == 1 {
			go help()
		} else {
			coming.Add(-1)
		}
	}
	return 1
}

// awake reports whether a helper looks out for work.
func awake() bool { return looking.Load() > 0 }

// soon reports whether a condition comes true before patience ends. The goroutine keeps its
// place: to give it up and to get it again costs more than most of these waits. Its
// processor goes to another thread that waits for it, which may be the one that is waited
// for; where that has it for long, the machine has other work, and for a while nobody waits
// so.
func soon(is func() bool) bool {
	const looks = 64
	start := time.Since(epoch)
	if start < time.Duration(busy.Load()) {
		return is()
	}
	for last := start; ; {
		for range looks {
			if is() {
				return true
			}
		}
		now := time.Since(epoch)
		switch {
		case now-last > taken:
			busy.Store(int64(now + busyFor))
			return is()
		case now-start > patience:
			return false
		}
		last = now
		yield()
	}
}

// taken is how long a processor that was given away was taken away, and busyFor how long
// the machine counts as busy after that, which it does until busy.
const (
	taken   = 500 * time.Microsecond
	busyFor = 100 * time.Millisecond
)

var busy atomic.Int64

// take computes parts while there are any, those of a lane first.
func (j *job) take(first int) {
	for k := range j.lanes {
		l := &j.lanes[(first+k)%len(j.lanes)]
		for {
			i := l.next.Add(1) - 1
			if i >= l.end {
				break
			}
			j.part(int(i))
		}
	}
}

func (j *job) part(i int) {
	defer func() {
		if e := recover(); e != nil {
			j.fail(e)
		}
		j.left.Add(-1)
		j.done.Done()
	}()
	j.f(i)
}

// Failed is what Run panics with where a part of several goroutines has: its value, and the
// program counters of where it was, since the stack of Run's caller does not say so.
type Failed struct {
	Value any
	At    []uintptr
}

// Error implements error, so that a crash prints the value.
func (f *Failed) Error() string { return fmt.Sprintf("a part of a computation: %v", f.Value) }

// fail keeps a panic for the caller. It is a function of its own for the sake of the parts
// that have none: only its argument is an object.
func (j *job) fail(e any) {
	f, ok := e.(*Failed)
	if !ok { // else it is of a crew within this one
		var at [64]uintptr
		f = &Failed{e, slices.Clone(at[:runtime.Callers(2, at[:])])}
	}
	j.failed.CompareAndSwap(nil, f)
}

// leave gives the job back where nobody else is at it.
func (j *job) leave() {
	if j.state.Add(-1) == 0 {
		j.f = nil
		j.failed.Store(nil)
		jobs.Put(j)
	}
}

// help works on jobs until none comes.
func help() {
	looking.Add(1)
	coming.Add(-1)
	for {
		for j, lane := join(); j != nil; j, lane = join() {
			looking.Add(-1)
			j.take(lane)
			looking.Add(1)
			j.leave()
		}
		if soon(func() bool { return wanted.Load() > 0 }) {
			continue
		}
		// Who asks from here on starts another; who asked before is seen.
		looking.Add(-1)
		if wanted.Load() == 0 {
			return
		}
		looking.Add(1)
	}
}
