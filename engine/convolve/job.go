package convolve

import (
	"sync"
	"time"

	"github.com/pellucid/pellucid/engine/crew"
)

// job is one run of a filter over a window's images. Its functions are made once, so that a
// run makes none.
type job struct {
	w      Window
	filter *Filter
	each   *Each
	quick  *Winograd
	dst    []float32
	src    []float32
	end    Finish
	// cuts, or count parts of the windows, are each for the groups of the filter's panels.
	cuts          cuts
	count, groups int
	padding       float32
	slide         func(*byte) // of each, which then needs no padding
	// strips, parts and squares compute one of the count for one of the groups.
	strips, parts, squares func(part int)
}

var jobs = sync.Pool{New: func() any {
	j := new(job)
	j.strips, j.parts, j.squares = j.doStrips, j.doParts, j.doSquares
	return j
}}

// release gives the job back without holding on to anybody's images.
func (j *job) release() {
	*j = job{strips: j.strips, parts: j.parts, squares: j.squares}
	jobs.Put(j)
}

// perNanosecond is about how many products a thread computes in one.
const perNanosecond = 128

// crewWorth is crew.Worth; tests share any work.
var crewWorth = crew.Worth

// worth is how many of the threads a job of so many products for each window's channel is
// worth sharing among.
func (j *job) worth(threads, channels, products int) int {
	return crewWorth(threads, time.Duration(float64(j.w.Batch*j.w.Lines)*float64(j.w.Across)*float64(channels)*float64(products)/perNanosecond))
}

// share has the threads compute all there is to a job.
func (j *job) share(threads int, f func(part int)) { crew.Run(threads, j.count*j.groups, f) }

// byStrips computes all strips, on up to threads goroutines.
func (j *job) byStrips(threads int) {
	j.groups = 1
	if j.filter != nil {
		j.groups = j.filter.parts(&j.w, j.w.Lines, threads)
	}
	if j.slide != nil {
		j.cuts = j.each.cut(&j.w, threads)
	} else {
		j.cuts = j.w.cut(max(threads/j.groups, 1))
	}
	j.count = j.cuts.batch * j.cuts.lines
	j.share(threads, j.strips)
}

// doStrips computes a strip. What a thread does one after the other are the same panels'.
func (j *job) doStrips(part int) {
	r := rooms.Get().(*room)
	defer r.release()
	s := &r.strip
	*s = j.cuts.of(part%j.count, j.w.Batch, j.w.Lines)
	if j.slide != nil {
		j.each.slides(j.slide, &j.w, s, j.dst, j.src, j.end)
		return
	}
	j.w.find(s, r, j.src, j.padding)
	if j.each != nil {
		j.each.strip(&j.w, s, j.dst, j.end)
		return
	}
	s.panels = j.filter.part(part/j.count, j.groups)
	j.filter.strip(&j.w, s, j.dst, j.end)
}

// doParts computes a part of a flat window.
func (j *job) doParts(part int) {
	r, f := rooms.Get().(*room), j.filter
	defer r.release()
	// In whole tiles, but for the last.
	i, tiles := part%j.count, (j.w.Across+kernelRows-1)/kernelRows
	from, to := tiles*i/j.count*kernelRows, min(tiles*(i+1)/j.count*kernelRows, j.w.Across)
	finish, some := j.end, &r.window
	in, out := f.channels()
	*some = j.w
	some.Width, some.Across = to-from, to-from
	if finish.Add != nil {
		finish.Add = finish.Add[from*out : to*out]
	}
	src := j.src[from*in : to*in]
	r.strip = strip{images: 1, lines: 1, panels: f.part(part/j.count, j.groups), src: src, perLine: len(src), perImage: len(src)}
	f.strip(some, &r.strip, j.dst[from*out:to*out], finish)
}

// doSquares computes a strip by squares.
func (j *job) doSquares(part int) {
	r, f := rooms.Get().(*room), j.quick
	defer r.release()
	high := squaresOf(j.w.Lines)
	images, lines := j.cuts.most(j.w.Batch, high)
	elements, planes, products, rest := f.room(&j.w, images, lines)
	v := r.of(elements + planes + products + rest)
	r.window = padded(&j.w)
	p, t, s := &r.window, &r.turn, &r.strip
	*t = turn{Winograd: f, w: &j.w, dst: j.dst, end: j.end, planes: v[elements:][:planes], products: v[elements+planes:][:products], rest: v[elements+planes+products:]}
	*s = j.cuts.of(part, j.w.Batch, high)
	s.line, s.lines = s.line*squareWindows, s.lines*squareWindows
	p.find(s, r, j.src, 0)
	t.strip(s)
}
