// Package crew shares the parts of one computation among goroutines.
//
// To wake a sleeping thread takes about as long as a small product of matrices does, so
// a goroutine that has helped looks out for the next computation for as long again
// before it ends, as does a caller for the last part before it sleeps: within a run of a
// network the second kernel finds the first one's helper awake. Nothing outlives that.
//
// Who computes which part is chance. Callers cut their work so that this cannot matter to
// a result's bits.
package crew

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a goroutine looks out before it gives up: what waking it costs.
const patience = 40 * time.Microsecond

// job is the parts of one call. Jobs are pooled, so that a call makes no objects.
type job struct {
	f     func(part int)
	parts int32
	taken atomic.Int32
	left  atomic.Int32
	done  sync.WaitGroup // of the parts, for a caller that sleeps
	// holders are the goroutines that may still look at the job.
	holders atomic.Int32
	failed  atomic.Pointer[any]
}

// helper is a goroutine that has time. Its mail is the job that it is given.
type helper struct {
	mail atomic.Pointer[job]
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
	j.f, j.parts = f, int32(parts)
	j.taken.Store(0)
	j.left.Store(int32(parts))
	j.holders.Store(int32(threads))
	j.done.Add(parts)
	for range threads - 1 {
		j.offer()
	}
	j.take()
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

// Ready reports whether a helper is awake, so that little work is worth sharing.
func Ready() bool {
	for i := range seats {
		if seats[i].Load() != nil {
			return true
		}
	}
	return false
}

// soon reports whether a condition comes true before patience ends. The processor is
// kept: to give it up and to get it again costs more than most of these waits.
func soon(is func() bool) bool {
	const looks = 64
	for start := time.Now(); ; {
		for range looks {
			if is() {
				return true
			}
		}
		if time.Since(start) > patience {
			return false
		}
	}
}

// offer gives the job to a helper that waits, or to another.
func (j *job) offer() {
	for i := range seats {
		if h := seats[i].Load(); h != nil && seats[i].CompareAndSwap(h, nil) {
			h.mail.Store(j)
			return
		}
	}
	h := helpers.Get().(*helper)
	h.mail.Store(j)
	go h.run()
}

// take computes parts while there are any.
func (j *job) take() {
	for {
		i := j.taken.Add(1) - 1
		if i >= j.parts {
			return
		}
		j.part(int(i))
	}
}

func (j *job) part(i int) {
	defer func() {
		if e := recover(); e != nil {
			j.failed.CompareAndSwap(nil, &e)
		}
		j.left.Add(-1)
		j.done.Done()
	}()
	j.f(i)
}

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
		j := h.mail.Swap(nil)
		j.take()
		j.leave()
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
