package qgemm

import (
	"sync"

	"github.com/pellucid/pellucid/engine/crew"
)

// job is one work on several threads. Its functions are made once, and jobs are pooled, so
// that a run makes no objects.
type job struct {
	product product
	around  surrounding
	pool    pool
	each    *eachStrip
	// lines are those that parts share, of rows or of windows; vectors are each's.
	lines, parts, vectors int

	products, rows, windows, strips func(part int)
}

var jobs = sync.Pool{New: func() any {
	j := new(job)
	j.products = j.product.part
	j.rows = func(part int) { j.around.rows(j.lines*part/j.parts, j.lines*(part+1)/j.parts) }
	j.windows = func(part int) { j.pool.lines(j.lines*part/j.parts, j.lines*(part+1)/j.parts) }
	j.strips = j.strip
	return j
}}

func newJob() *job { return jobs.Get().(*job) }

// run has threads compute the parts, and gives the job back without holding on to anybody's
// matrices.
func (j *job) run(threads, parts int, f func(part int)) {
	j.parts = parts
	crew.Run(threads, parts, f)
	j.product, j.around, j.pool, j.each = product{}, surrounding{}, pool{}, nil
	jobs.Put(j)
}

// strip computes a strip of filters of each channel by itself.
func (j *job) strip(part int) {
	own := borrow()
	j.each.part(own, part, j.vectors)
	own.forget()
	own.release()
}
