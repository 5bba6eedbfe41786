package blas

import (
	"sync"
	"time"

	"github.com/pellucid/pellucid/engine/crew"
)

// leastPart is how many products each part should have, where there is one for each thread.
const leastPart = 1 << 18

// partsPerThread is how many parts there are for each thread, where they are not
// too small: one whose processor is taken from it then leaves them to others.
const partsPerThread = 3

// fewRows is up to how many rows a product takes as long as with so many: until then
// reading b bounds it.
const fewRows = 4

// perNanosecond is how many products a thread computes in one on a slow machine; fast ones do twice
// as many.
const perNanosecond = 64

// job is one product on several threads. Jobs are pooled, with the function that
// goroutines run.
type job[T Float] struct {
	s            *arch
	p            product[T]
	down, across int
	f            func(part int)
}

var (
	jobs32 = sync.Pool{New: func() any { return newJob[float32]() }}
	jobs64 = sync.Pool{New: func() any { return newJob[float64]() }}
)

func newJob[T Float]() *job[T] {
	j := &job[T]{}
	j.f = func(part int) { j.part(part/j.across, part%j.across) }
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
	work := float64(max(p.m, fewRows)) * float64(p.n) * float64(p.k)
	threads = crew.Worth(threads, time.Duration(work/perNanosecond))
	if threads < 2 {
		return false
	}
	parts := max(float64(threads), min(float64(threads*partsPerThread), work/leastPart))
	down, across := grid(s, int(parts), p.m, p.n)
	if down*across < 2 {
		return false
	}
	j := jobs[T]().Get().(*job[T])
	j.s, j.p, j.down, j.across = s, *p, down, across
	crew.Run(threads, down*across, j.f)
	j.p = product[T]{}
	jobs[T]().Put(j)
	return true
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
