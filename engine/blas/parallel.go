package blas

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// leastWork is how many products a part must have to be worth handing over: a
// goroutine can take as long to wake as 30 us, which is 2^22 of them.
const leastWork = 1 << 22

// partsPerThread is how many parts there are for each thread, where they are not
// too small: one whose processor is taken from it then leaves them to others.
const partsPerThread = 3

// job is one product on several threads. Jobs are pooled, with the function that
// goroutines run.
type job[T Float] struct {
	s            *arch
	p            product[T]
	down, across int
	taken        atomic.Int32
	pending      sync.WaitGroup
	// holders are the goroutines that may still look at the job.
	holders atomic.Int32
	work    func()
}

var (
	jobs32 = sync.Pool{New: func() any { return newJob[float32]() }}
	jobs64 = sync.Pool{New: func() any { return newJob[float64]() }}
)

func newJob[T Float]() *job[T] {
	j := &job[T]{}
	j.work = j.parts
	return j
}

func jobs[T Float]() *sync.Pool {
	if size[T]() == 4 {
		return &jobs32
	}
	return &jobs64
}

// parallel cuts c into a grid, whose parts the threads take one after the other,
// and reports whether that was worth it.
func parallel[T Float](s *arch, threads int, p *product[T]) bool {
	work := float64(p.m) * float64(p.n) * float64(p.k) / leastWork
	threads = min(threads, runtime.GOMAXPROCS(0))
	parts := int(min(float64(threads*partsPerThread), work))
	if threads < 2 || parts < 2 {
		return false
	}
	down, across := grid(s, parts, p.m, p.n)
	if down*across < 2 {
		return false
	}
	j := jobs[T]().Get().(*job[T])
	j.s, j.p, j.down, j.across = s, *p, down, across
	threads = min(threads, down*across)
	j.taken.Store(0)
	j.holders.Store(int32(threads))
	j.pending.Add(down * across)
	for range threads - 1 {
		go j.work()
	}
	j.take()
	// A goroutine that comes too late for any part is not waited for.
	j.pending.Wait()
	j.leave()
	return true
}

func (j *job[T]) parts() {
	j.take()
	j.leave()
}

// leave gives the job back when nobody looks at it any more.
func (j *job[T]) leave() {
	if j.holders.Add(-1) == 0 {
		j.p = product[T]{}
		jobs[T]().Put(j)
	}
}

// take computes parts while there are any.
func (j *job[T]) take() {
	for {
		i := int(j.taken.Add(1)) - 1
		if i >= j.down*j.across {
			return
		}
		j.part(i/j.across, i%j.across)
		j.pending.Done()
	}
}

// grid is how many parts c is cut into downwards and across, at most parts. Each
// is packed for anew, so they should be as square as can be.
func grid(s *arch, parts, m, n int) (down, across int) {
	panels := (n + s.width() - 1) / s.width()
	tiles := (m + s.rows - 1) / s.rows
	down, across = 1, 1
	best := float64(m) * float64(n)
	for d := 1; d <= min(parts, tiles); d++ {
		a := min(parts/d, panels)
		rows, cols := float64((m+d-1)/d), float64((panels+a-1)/a*s.width())
		// Reading a row or a column costs about as much as a few products with it.
		if cost := (rows + packCost) * (cols + packCost); cost < best || down*across == 1 && d*a > 1 {
			best, down, across = cost, d, a
		}
	}
	return down, across
}

const packCost = 8

// part computes the part of the job in row d and column a of its grid.
func (j *job[T]) part(d, a int) {
	panels := (j.p.n + j.s.width() - 1) / j.s.width()
	rows := span{j.p.m * d / j.down, j.p.m * (d + 1) / j.down}
	cols := span{panels * a / j.across * j.s.width(), min(panels*(a+1)/j.across*j.s.width(), j.p.n)}
	w := pool[T]().Get().(*workspace[T])
	w.run(j.s, &j.p, rows, cols)
	w.release()
}
