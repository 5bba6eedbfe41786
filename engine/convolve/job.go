package convolve

import "sync"

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
	// threads share count strips, or parts of step windows, of images whole images or lines
	// of one, perImage of which are to an image.
	threads, count, step, images, lines, perImage int
	padding                                       float32
	slide                                         func(*byte) // of each, which then needs no padding
	strips, parts, squares                        func(part int)
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

// share cuts the count for so many threads.
func (j *job) share(threads int, f func(part int)) {
	j.threads = max(1, min(threads, j.count))
	parallel(j.threads, f)
}

// byStrips computes all strips, on up to threads goroutines.
func (j *job) byStrips(threads int) {
	j.images, j.lines = j.w.cut(threads)
	j.perImage = (j.w.Lines + j.lines - 1) / j.lines
	j.count = (j.w.Batch + j.images - 1) / j.images * j.perImage
	j.share(threads, j.strips)
}

func (j *job) doStrips(part int) {
	r := rooms.Get().(*room)
	for i := j.count * part / j.threads; i < j.count*(part+1)/j.threads; i++ {
		s := &r.strip
		*s = strip{image: i / j.perImage * j.images, line: i % j.perImage * j.lines}
		s.images, s.lines = min(j.images, j.w.Batch-s.image), min(j.lines, j.w.Lines-s.line)
		if j.slide != nil {
			j.each.slides(j.slide, &j.w, s, j.dst, j.src, j.end)
			continue
		}
		j.w.find(s, r, j.src, j.padding)
		if j.each != nil {
			j.each.strip(&j.w, s, j.dst, j.end)
		} else {
			j.filter.strip(&j.w, s, j.dst, j.end)
		}
	}
	r.release()
}

// doParts computes parts of a flat window.
func (j *job) doParts(part int) {
	r, f := rooms.Get().(*room), j.filter
	for i := j.count * part / j.threads; i < j.count*(part+1)/j.threads; i++ {
		from, to := i*j.step, min((i+1)*j.step, j.w.Across)
		finish, some := j.end, &r.window
		*some = j.w
		some.Width, some.Across = to-from, to-from
		if finish.Add != nil {
			finish.Add = finish.Add[from*f.out : to*f.out]
		}
		src := j.src[from*f.in : to*f.in]
		r.strip = strip{images: 1, lines: 1, src: src, perLine: len(src), perImage: len(src)}
		f.strip(some, &r.strip, j.dst[from*f.out:to*f.out], finish)
	}
	r.release()
}

// doSquares computes strips by squares.
func (j *job) doSquares(part int) {
	r, f := rooms.Get().(*room), j.quick
	defer r.release()
	elements, planes, products, rest := f.room(&j.w, j.images, j.lines)
	v := r.of(elements + planes + products + rest)
	r.window = padded(&j.w)
	p, t := &r.window, &r.turn
	*t = turn{Winograd: f, w: &j.w, dst: j.dst, end: j.end, planes: v[elements:][:planes], products: v[elements+planes:][:products], rest: v[elements+planes+products:]}
	for i := j.count * part / j.threads; i < j.count*(part+1)/j.threads; i++ {
		s := &r.strip
		*s = strip{image: i / j.perImage * j.images, line: i % j.perImage * j.lines * squareWindows}
		s.images, s.lines = min(j.images, j.w.Batch-s.image), min(j.lines*squareWindows, p.Lines-s.line)
		p.find(s, r, j.src, 0)
		t.strip(s)
	}
}
