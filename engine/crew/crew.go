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
	"runtime"
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
	// holders are the goroutines that may still look at the job.
	holders atomic.Int32
	failed  atomic.Pointer[any]
}

// lane is the parts that a goroutine takes first: one that finds the same data in the same
// lane finds it in its processor's caches. Lanes do not share a line of them.
type lane struct {
	next atomic.Int32
	end  int32
	_    [56]byte
}

// helper is a goroutine that has time. Its mail is the job that it is given, and its lane.
type helper struct {
	mail atomic.Pointer[job]
	lane int
	run  func()
}

var (
	jobs    = sync.Pool{New: func() any { return new(job) }}
	helpers sync.Pool // which init fills: a helper gives itself back
	// seats are where helpers wait. One that finds none ends.
	seats [16]atomic.Pointer[helper]
)

func init() {
	helpers.New = func() any {
		h := new(helper)
		h.run = h.work
		return h
	}
}

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
	j.holders.Store(int32(threads))
	j.done.Add(parts)
	for i := 1; i < threads; i++ {
		j.offer(i)
	}
	j.take(0)
	// A helper that comes too late for any part is not waited for.
	if !soon(func() bool { return j.left.Load() == 0 }) {
		j.done.Wait()
	}
	failed := j.failed.Load()
	j.leave()
	if failed != nil {
		panic(*failed)
	}
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
		go helpers.Get().(*helper).run()
	}
	return 1
}

// awake reports whether a helper looks out for work.
func awake() bool {
	for i := range seats {
		if seats[i].Load() != nil {
			return true
		}
	}
	return false
}

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

// offer gives the job to a helper that waits, or to another.
func (j *job) offer(lane int) {
	for i := range seats {
		if h := seats[i].Load(); h != nil && seats[i].CompareAndSwap(h, nil) {
			h.lane = lane
			h.mail.Store(j)
			return
		}
	}
	h := helpers.Get().(*helper)
	h.lane = lane
	h.mail.Store(j)
	go h.run()
}

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

// fail keeps a panic for the caller. It is a function of its own for the sake of the parts
// that have none: only its argument is an object.
func (j *job) fail(e any) { j.failed.CompareAndSwap(nil, &e) }

// leave gives the job back when nobody looks at it any more.
func (j *job) leave() {
	if j.holders.Add(-1) == 0 {
		j.f = nil
		j.failed.Store(nil)
		jobs.Put(j)
	}
}

// work helps with jobs until none comes.
func (h *helper) work() {
	for {
		if j := h.mail.Swap(nil); j != nil {
			j.take(h.lane)
			j.leave()
		}
		if !h.wait() {
			helpers.Put(h)
			return
		}
	}
}

// wait reports whether another job came.
func (h *helper) wait() bool {
	for i := range seats {
		if !seats[i].CompareAndSwap(nil, h) {
			continue
		}
		has := func() bool { return h.mail.Load() != nil }
		if soon(has) {
			return true
		}
		if seats[i].CompareAndSwap(h, nil) {
			return false
		}
		// Taken meanwhile: its job is about to come.
		for !has() {
			runtime.Gosched()
		}
		return true
	}
	return false
}
