package convolve

import (
	"math"
	"unsafe"
)

// Each has weights for each channel by itself: those of the taps one after the other,
// a channel's number of elements each; a bias for each channel.
type Each struct {
	channels, taps int
	weights, bias  []float32
	// largest says that windows' largest elements are wanted.
	largest bool
	// finite says that all weights are numbers.
	finite bool
	// pieces are the weights of group channels after those of others, where the images are
	// crowded.
	pieces []float32
	group  int
}

// NewEach lays out weights [channels, taps] and, unless it is nil, a bias for each.
func NewEach(channels, taps int, weights, bias []float32) *Each {
	if channels < 1 || taps < 1 || len(weights) != channels*taps || bias != nil && len(bias) != channels {
		panic("convolve: weights or biases of another size")
	}
	e := &Each{channels: channels, taps: taps, weights: make([]float32, channels*taps), bias: make([]float32, channels)}
	copy(e.bias, bias)
	e.finite = true
	for c := range channels {
		for t := range taps {
			v := weights[c*taps+t]
			e.weights[t*channels+c] = v
			e.finite = e.finite && v-v == 0
		}
	}
	if crowded(channels) {
		e.pieces, e.group = make([]float32, 0, len(e.weights)), groupChannels
		if taps >= manyTaps {
			e.group /= 2
		}
		for c := 0; c < channels; c += e.group {
			for t := range taps {
				e.pieces = append(e.pieces, e.weights[t*channels+c:][:e.group]...)
			}
		}
	}
	return e
}

// Len is how many elements it takes in memory.
func (e *Each) Len() int { return len(e.weights) + len(e.bias) + len(e.pieces) }

// Largest takes the largest element of each channel's windows, NaN where one is.
func Largest(channels, taps int) *Each {
	e := &Each{channels: channels, taps: taps, bias: make([]float32, channels), largest: true}
	fill(e.bias, float32(math.Inf(-1)))
	return e
}

// line is what a kernel is called with: windows on one line. The generator knows the
// offsets.
type line struct {
	dst      unsafe.Pointer
	dstStep  uintptr
	src      unsafe.Pointer
	srcStep  uintptr
	weights  unsafe.Pointer
	wStep    uintptr
	offsets  unsafe.Pointer
	taps     uintptr
	windows  uintptr
	channels uintptr // the kernel counts them down
	bias     unsafe.Pointer
	low      float32
	high     float32
	table    unsafe.Pointer // the mask of AVX2 for the last channels
	// What follows is of slides only. There srcStep is from one element to the next,
	// offsets and taps are of rows, and windows those of a line that meet no edge.
	lines, srcLine uintptr
	// before and after are how many windows of a line meet its edges.
	before, after uintptr
	edges         unsafe.Pointer
	first         uintptr // bytes from a line's first element to the windows that meet none
	left, edge    uintptr // the kernel's own
}

// edge is a window that meets a line's edge: the bytes to its first element there is and
// to the weight of that one, the taps of a row that it has, and the bytes from behind
// their weights to the next row's.
type edge struct{ src, weights, taps, skip int }

// mostSlide bounds the taps a row, and the steps between windows, of slides.
const mostSlide, mostSlideStride = 7, 2

// slideKernels are by the taps of a window's row and by the elements from one window to
// the next; where there is none there is nil.
type slideKernels [mostSlide + 1][mostSlideStride + 1]func(*byte)

// Convolve joins each channel's windows in dst, which has an element for each window
// and channel, on up to threads threads. It panics where sizes contradict each other.
// Finish.Add must be nil.
func (e *Each) Convolve(threads int, w *Window, dst, src []float32, end Finish) {
	w.check(dst, src, e.channels)
	if w.Channels != e.channels || w.taps() != e.taps || end.Add != nil {
		panic("convolve: weights for other windows")
	}
	padding := float32(0)
	if e.largest {
		padding = float32(math.Inf(-1))
	}
	j := jobs.Get().(*job)
	j.w, j.each, j.dst, j.src, j.end, j.padding = w.upright(), e, dst, src, end, padding
	j.slide = e.slide(&j.w)
	j.byStrips(j.worth(threads, e.channels, perEach*e.taps))
	j.release()
}

// perEach is how many products of a filter take as long as one of these.
const perEach = 2

// strip computes a strip of windows, line by line.
func (e *Each) strip(w *Window, s *strip, dst []float32, end Finish) {
	r := rooms.Get().(*room)
	defer r.release()
	at, last := r.offsets[:0], 0
	for y := range w.Kernel[0] {
		for x := range w.Kernel[1] {
			last = y*w.Dilations[0]*s.perLine + x*w.Dilations[1]*w.Channels
			at = append(at, 4*last)
		}
	}
	r.offsets = at
	// Nothing is read beyond the strip's last window.
	_ = s.src[(s.images-1)*s.perImage+(s.lines-1)*w.Strides[0]*s.perLine+(w.Across-1)*w.Strides[1]*w.Channels+last+w.Channels-1]
	_ = dst[((s.image+s.images-1)*w.Lines+s.line+s.lines)*w.Across*e.channels-1]
	l := &r.line
	for i := range s.images {
		for y := range s.lines {
			*l = line{
				dst: pointer(dst, ((s.image+i)*w.Lines+s.line+y)*w.Across*e.channels), dstStep: uintptr(4 * e.channels),
				src: pointer(s.src, i*s.perImage+y*w.Strides[0]*s.perLine), srcStep: uintptr(4 * w.Strides[1] * w.Channels),
				wStep: uintptr(4 * e.channels), offsets: unsafe.Pointer(&at[0]), taps: uintptr(e.taps), windows: uintptr(w.Across),
				channels: uintptr(e.channels), bias: pointer(e.bias, 0), low: end.Low, high: end.High,
			}
			if !e.largest {
				l.weights = pointer(e.weights, 0)
			}
			l.run(e.largest)
		}
	}
	end.apply(w, s, dst, e.channels, 0, e.channels)
}

// slide is the kernel for a window's form, nil where none has it. Those leave out the taps
// that meet padding, which add nothing where all weights are numbers.
func (e *Each) slide(w *Window) func(*byte) {
	if kernels == nil || e.largest || !e.finite || w.Dilations != [2]int{1, 1} || w.Kernel[1] > mostSlide || w.Strides[1] > mostSlideStride {
		return nil
	}
	for d, size := range [2]int{w.Height, w.Width} {
		// Each window meets the image.
		last := ([2]int{w.Lines, w.Across}[d]-1)*w.Strides[d] - w.Before[d]
		if w.Before[d] >= w.Kernel[d] || last >= size {
			return nil
		}
	}
	if w.Kernel[1] > w.Width { // some could meet both ends of a line
		return nil
	}
	return kernels.slides[w.Kernel[1]][w.Strides[1]]
}

// Elements that are a multiple of crowdedBytes apart fight for few sets of the first level
// of cache, as do their windows and weights: what is loaded beside an element is gone
// before it is wanted. Of such images groupChannels channels are computed at a time, a line
// after the other, so that what lies beside each other is read and written at once. Where
// the sets are one or two, or each element is in many windows, their elements are copied side
// by side first; of windows of many taps half as many channels at a time.
const (
	crowdedBytes  = 1024
	groupChannels = 128
	manyTaps      = 49
)

func crowded(channels int) bool { return 4*channels%crowdedBytes == 0 }

// copies reports whether windows of crowded images are slid over copies: not where each
// element is in few windows.
func (e *Each) copies(w *Window) bool {
	return e.taps >= manyTaps || 4*e.channels%(4*crowdedBytes) == 0 || 4*e.channels%(2*crowdedBytes) == 0 && w.Strides[1] == 1
}

// cut is how windows are cut into strips for so many threads: where some channels are copied
// at a time, a strip is of what is copied, as windows of neighbouring strips share lines.
func (e *Each) cut(w *Window, threads int) cuts {
	some := *w
	if e.pieces != nil && e.copies(w) {
		some.Channels = e.group
	}
	return some.cut(threads)
}

// Scratch is how many elements a run on so many threads needs beside the images.
func (e *Each) Scratch(threads int, w *Window) int {
	if e.pieces == nil || !e.copies(w) {
		return w.Scratch(threads)
	}
	u := w.upright()
	_, lines := e.cut(&u, 1).most(u.Batch, u.Lines) // those of one thread are the largest
	return max(w.Scratch(threads), max(threads, 1)*u.reach(0, lines)*u.Width*e.group)
}

// slides computes a strip of windows of the images where they lie, or of copies of some
// channels of them.
func (e *Each) slides(slide func(*byte), w *Window, s *strip, dst, src []float32, end Finish) {
	r := rooms.Get().(*room)
	defer r.release()
	p, tap := piece{count: e.channels, step: e.channels}, e.channels
	if e.pieces != nil {
		p.count, tap = e.group, e.group
		if e.copies(w) {
			p.step = e.group
		}
	}
	before, after := r.edgesOf(w, 4*p.step, 4*tap)
	r.line = line{
		dstStep: uintptr(4 * e.channels), srcStep: uintptr(4 * p.step), wStep: uintptr(4 * tap), windows: uintptr(w.Across - before - after),
		low: end.Low, high: end.High, table: unsafe.Pointer(&masks[16-p.count%8]), srcLine: uintptr(4 * w.Strides[0] * w.Width * p.step),
		before: uintptr(before), after: uintptr(after), edges: unsafe.Pointer(unsafe.SliceData(r.edges)),
		first: uintptr(4 * max(before*w.Strides[1]-w.Before[1], 0) * p.step),
	}
	image := w.Height * w.Width * e.channels
	for i := s.image; i < s.image+s.images; i++ {
		for p.channel = 0; p.channel < e.channels; p.channel += p.count {
			p.src, p.top, p.at = src[i*image:][:image], 0, p.channel
			if p.step < e.channels {
				p.copied(w, s, r, e.channels)
			}
			e.slidePiece(slide, w, s, &p, r, dst[i*w.Lines*w.Across*e.channels:][:w.Lines*w.Across*e.channels])
		}
	}
	end.apply(w, s, dst, e.channels, 0, e.channels)
}

// piece is some channels of an image, count of them: those of each element are step places
// behind those of the one before it, those of the first of line top at a place of src.
type piece struct {
	channel, count, step int
	src                  []float32
	top, at              int
}

// copied makes p, which is of a whole image, a copy of what a strip's windows meet.
func (p *piece) copied(w *Window, s *strip, r *room, channels int) {
	p.top = max(s.line*w.Strides[0]-w.Before[0], 0)
	bottom := min((s.line+s.lines-1)*w.Strides[0]-w.Before[0]+w.Kernel[0], w.Height)
	from := p.src[p.top*w.Width*channels+p.channel:]
	p.at = 0
	p.src = r.of((bottom - p.top) * w.Width * p.step)
	for i := range (bottom - p.top) * w.Width {
		copy(p.src[i*p.step:][:p.count], from[i*channels:])
	}
}

// slidePiece computes a strip's windows of a piece of an image.
func (e *Each) slidePiece(slide func(*byte), w *Window, s *strip, p *piece, r *room, dst []float32) {
	for y := s.line; y < s.line+s.lines; {
		from, to, lines := w.alike(y, s.line+s.lines)
		if p.count < e.channels {
			lines = 1
		}
		r.offsets = r.offsets[:0]
		for k := range to - from {
			r.offsets = append(r.offsets, 4*k*w.Width*p.step)
		}
		top := y*w.Strides[0] - w.Before[0] + from - p.top
		// Nothing is read beyond the last line's windows, nor written.
		_ = p.src[(top+(lines-1)*w.Strides[0]+to-from)*w.Width*p.step-1]
		_ = dst[(y+lines)*w.Across*e.channels-1]
		l := &r.line
		l.dst, l.src = pointer(dst, y*w.Across*e.channels+p.channel), pointer(p.src, top*w.Width*p.step+p.at)
		l.bias = pointer(e.bias, p.channel)
		if p.count < e.channels {
			l.weights = pointer(e.pieces, p.channel*e.taps+from*w.Kernel[1]*p.count)
		} else {
			l.weights = pointer(e.weights, from*w.Kernel[1]*e.channels)
		}
		l.offsets, l.taps, l.channels, l.lines = unsafe.Pointer(&r.offsets[0]), uintptr(to-from), uintptr(p.count), uintptr(lines)
		slide((*byte)(unsafe.Pointer(l)))
		y += lines
	}
}

// alike says which rows of the windows of line y the image has, and how many lines have
// the same from there on, up to but without the end.
func (w *Window) alike(y, end int) (from, to, lines int) {
	rows := func(y int) (from, to int) {
		top := y*w.Strides[0] - w.Before[0]
		return max(-top, 0), min(w.Height-top, w.Kernel[0])
	}
	from, to = rows(y)
	for lines = 1; y+lines < end; lines++ {
		if f, t := rows(y + lines); f != from || t != to || f > 0 {
			break
		}
	}
	return from, to, lines
}

// edgesOf finds the windows of a line that meet its edges: how many there are before the
// others and after them. An element is so many bytes from the next, and so is a tap's weights.
func (r *room) edgesOf(w *Window, element, tap int) (before, after int) {
	r.edges = r.edges[:0]
	for i := range w.Across {
		x := i*w.Strides[1] - w.Before[1]
		from, to := max(-x, 0), min(w.Width-x, w.Kernel[1])
		switch {
		case from > 0:
			before++
		case to < w.Kernel[1]:
			after++
		default:
			continue
		}
		r.edges = append(r.edges, edge{src: (x + from) * element, weights: from * tap, taps: to - from, skip: (w.Kernel[1] - to + from) * tap})
	}
	return before, after
}

// run computes a line.
func (l *line) run(largest bool) {
	switch {
	case kernels == nil:
		l.plain(largest)
	case largest:
		l.table = unsafe.Pointer(&masks[16-l.channels%8])
		kernels.most((*byte)(unsafe.Pointer(l)))
	default:
		l.table = unsafe.Pointer(&masks[16-l.channels%8])
		kernels.sum((*byte)(unsafe.Pointer(l)))
	}
}

// plain is run in plain Go.
func (l *line) plain(largest bool) {
	offsets := unsafe.Slice((*int)(l.offsets), l.taps)
	for c := range l.channels {
		for i := range l.windows {
			sum := *(*float32)(unsafe.Add(l.bias, 4*c))
			for t, o := range offsets {
				v := *(*float32)(unsafe.Add(l.src, int(i*l.srcStep+4*c)+o))
				if largest {
					sum = max(sum, v)
				} else {
					sum += v * *(*float32)(unsafe.Add(l.weights, uintptr(t)*l.wStep+4*c))
				}
			}
			*(*float32)(unsafe.Add(l.dst, i*l.dstStep+4*c)) = bounded(sum, l.low, l.high)
		}
	}
}

// Rows is dst = src scale + shift for rows of so many channels, all with the same
// channels' scales and shifts; a nil scale is ones, a nil shift zeros.
func Rows(dst, src, scale, shift []float32) {
	n := max(len(scale), len(shift))
	if n == 0 || len(dst) != len(src) || len(src)%n != 0 || scale != nil && len(scale) != n || shift != nil && len(shift) != n {
		panic("convolve: rows of another size")
	}
	if len(src) == 0 {
		return
	}
	r := rooms.Get().(*room)
	defer r.release()
	fixed := r.of(2 * n)
	if scale == nil {
		scale = fixed[:n]
		fill(scale, 1)
	}
	if shift == nil {
		shift = fixed[n:]
		clear(shift)
	}
	r.offsets = append(r.offsets[:0], 0)
	r.line = line{
		dst: pointer(dst, 0), dstStep: uintptr(4 * n), src: pointer(src, 0), srcStep: uintptr(4 * n), weights: pointer(scale, 0),
		offsets: unsafe.Pointer(&r.offsets[0]), taps: 1, windows: uintptr(len(src) / n), channels: uintptr(n), bias: pointer(shift, 0),
		low: float32(math.Inf(-1)), high: float32(math.Inf(1)),
	}
	r.line.run(false)
}

// Means writes to dst, of rows of so many channels, the means of every n rows of src.
func Means(dst, src []float32, n, channels int) {
	if n < 1 || channels < 1 || len(dst)%channels != 0 || len(src) != n*len(dst) {
		panic("convolve: rows of another size")
	}
	if len(dst) == 0 {
		return
	}
	r := rooms.Get().(*room)
	defer r.release()
	fixed := r.of(2 * channels)
	fill(fixed[:channels], 1/float32(n))
	clear(fixed[channels:])
	r.offsets = r.offsets[:0]
	for i := range n {
		r.offsets = append(r.offsets, 4*i*channels)
	}
	r.line = line{
		dst: pointer(dst, 0), dstStep: uintptr(4 * channels), src: pointer(src, 0), srcStep: uintptr(4 * n * channels),
		weights: pointer(fixed, 0), offsets: unsafe.Pointer(&r.offsets[0]), taps: uintptr(n), windows: uintptr(len(dst) / channels),
		channels: uintptr(channels), bias: pointer(fixed, channels), low: float32(math.Inf(-1)), high: float32(math.Inf(1)),
	}
	r.line.run(false)
}
