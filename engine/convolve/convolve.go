// Package convolve slides windows over images whose channels lie side by side, [N, H,
// W, C] of float32: convolutions, depthwise ones and pools, by AVX-512 or AVX2 where
// the processor has them and in plain Go elsewhere (other processors, and the build
// tags noasm and purego).
//
// In that layout a row of a window is one run of elements, so that a convolution is a
// product of matrices whose left side is read where it lies: only images that need
// padding are copied, some lines at a time. Filters are laid out once.
//
// Invariants: an element of a convolution is its bias and then the products of the
// window's elements in their order, by rows, columns and channels, each a fused
// multiply-add where there are kernels, and what is added to it; beyond some hundred, products
// are summed by themselves and then added. Then come its bounds. So its bits depend on its window only: not on the batch, the threads or the kernels, of
// which AVX-512 and AVX2 give the same.
package convolve

import (
	"sync"
	"unsafe"

	"github.com/pellucid/pellucid/engine/vector"
)

// Window is the geometry: of Batch images of Height x Width x Channels elements, and of
// Lines x Across windows over each. The first window begins Before elements before the
// image.
type Window struct {
	Batch, Height, Width, Channels     int
	Lines, Across                      int
	Kernel, Strides, Dilations, Before [2]int
}

// reach is how many elements the windows meet in a dimension, padding included.
func (w *Window) reach(d, windows int) int {
	return (windows-1)*w.Strides[d] + (w.Kernel[d]-1)*w.Dilations[d] + 1
}

// inside says that no window meets padding.
func (w *Window) inside() bool {
	return w.Before == [2]int{} && w.reach(0, w.Lines) <= w.Height && w.reach(1, w.Across) <= w.Width
}

func (w *Window) taps() int { return w.Kernel[0] * w.Kernel[1] }

// upright is w, or w turned where images are one element wide: their elements lie the
// same, and its lines are the ones that have windows side by side.
func (w *Window) upright() Window {
	t := *w
	if w.Width == 1 && w.Across == 1 && w.Kernel[1] == 1 && w.Before[1] == 0 {
		t.Height, t.Width, t.Lines, t.Across = 1, w.Height, 1, w.Lines
		for _, d := range []*[2]int{&t.Kernel, &t.Strides, &t.Dilations, &t.Before} {
			d[0], d[1] = d[1], d[0]
		}
	}
	return t
}

// isFlat says that each window is one element, and that they follow each other as the
// images' elements do.
func (w *Window) isFlat() bool {
	one := [2]int{1, 1}
	return w.Kernel == one && w.Strides == one && w.Before == [2]int{} && w.Lines == w.Height && w.Across == w.Width
}

// flattened is w, which is flat, with all windows on one line.
func (w *Window) flattened() Window {
	one := [2]int{1, 1}
	n := w.Batch * w.Height * w.Width
	return Window{Batch: 1, Height: 1, Width: n, Channels: w.Channels, Lines: 1, Across: n, Kernel: one, Strides: one, Dilations: one}
}

// check panics where src and dst are not of the images and windows, of so many channels.
func (w *Window) check(dst, src []float32, channels int) {
	ok := w.Batch > 0 && w.Channels > 0 && w.Lines > 0 && w.Across > 0 && channels > 0
	for d := range 2 {
		ok = ok && w.Kernel[d] > 0 && w.Strides[d] > 0 && w.Dilations[d] > 0 && w.Before[d] >= 0
	}
	if !ok || len(src) != w.Batch*w.Height*w.Width*w.Channels || len(dst) != w.Batch*w.Lines*w.Across*channels {
		panic("convolve: images or windows of another size")
	}
}

// stripBytes is how much of the images is worked on at once: it should stay in the
// second level of cache beside a panel of weights.
const stripBytes = 256 << 10

// cuts is how images are cut into strips: those of a batch into so many, and the lines of
// one, where it is alone, into so many.
type cuts struct{ batch, lines int }

// of is strip i of a batch of so many images of so many lines.
func (c cuts) of(i, batch, lines int) strip {
	b, l := i/c.lines, i%c.lines
	s := strip{image: batch * b / c.batch, line: lines * l / c.lines}
	s.images, s.lines = batch*(b+1)/c.batch-s.image, lines*(l+1)/c.lines-s.line
	return s
}

// most is how many images and lines a strip has at most.
func (c cuts) most(batch, lines int) (int, int) {
	return (batch + c.batch - 1) / c.batch, (lines + c.lines - 1) / c.lines
}

// cut cuts a batch of images of so many lines into strips of up to most lines, as even as
// can be, and into as many for each thread.
func cut(batch, lines, most, threads int) cuts {
	most = max(most, 1)
	c := cuts{batch: batch, lines: (lines + most - 1) / most}
	if c.lines == 1 {
		images := min(most/lines, (batch+threads-1)/threads)
		c.batch = even((batch+images-1)/images, threads, batch)
	}
	if batch < threads {
		// Few strips, as each reads all weights.
		c.lines = even(c.lines, threads, lines)
	}
	return c
}

// even is n, or the next number that leaves all threads as much, most at most.
func even(n, threads, most int) int {
	return min((n+threads-1)/threads*threads, most)
}

// cut is how the windows are cut into strips for so many threads.
func (w *Window) cut(threads int) cuts {
	line := 4 * w.Strides[0] * w.reach(1, w.Across) * w.Channels
	return cut(w.Batch, w.Lines, stripBytes/line, threads)
}

// Scratch is how many elements a run on so many threads needs at most beside the images.
func (w *Window) Scratch(threads int) int {
	if w.inside() {
		return 0
	}
	u := w.upright()
	// The strips of one thread are the largest, and it may be groups of panels that are shared.
	images, lines := u.cut(1).most(u.Batch, u.Lines)
	return max(threads, 1) * images * u.reach(0, lines) * u.reach(1, u.Across) * u.Channels
}

// strip is some lines of windows over some images.
type strip struct {
	image, images, line, lines int
	// panels of the filter, all where there are none.
	panels [2]int
	// src begins where the first window does; the other elements are its distances from
	// one image and one line of elements to the next.
	src               []float32
	perImage, perLine int
}

// find sets where a strip's elements are: in the images, or copied with padding.
func (w *Window) find(s *strip, r *room, src []float32, padding float32) {
	c := w.Channels
	if w.inside() {
		s.perLine, s.perImage = w.Width*c, w.Height*w.Width*c
		s.src = src[s.image*s.perImage+s.line*w.Strides[0]*s.perLine:]
		return
	}
	high := w.reach(0, s.lines)
	s.perLine = w.reach(1, w.Across) * c
	s.perImage = high * s.perLine
	s.src = r.of(s.images * s.perImage)
	first := min(w.Before[1]*c, s.perLine)
	end := max(first, min(first+w.Width*c, s.perLine))
	for i := range s.images * high {
		row := s.src[i*s.perLine:][:s.perLine]
		y := s.line*w.Strides[0] - w.Before[0] + i%high
		if y < 0 || y >= w.Height {
			fill(row, padding)
			continue
		}
		fill(row[:first], padding)
		copy(row[first:end], src[((s.image+i/high)*w.Height+y)*w.Width*c:])
		fill(row[end:], padding)
	}
}

func fill(row []float32, v float32) {
	if v == 0 {
		clear(row)
		return
	}
	for i := range row {
		row[i] = v
	}
}

// room is scratch memory that is used again.
type room struct {
	v []float32
	// panel is of a filter in 8 or 16 bits.
	panel   []float32
	offsets []int
	chains  []chain
	edges   []edge
	tile    tile
	line    line
	strip   strip
	window  Window
	turn    turn
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// mostRoom bounds the elements that are kept for the next time.
const mostRoom = 1 << 20

func (r *room) of(n int) []float32 {
	if cap(r.v) < n {
		r.v = make([]float32, n)
	}
	return r.v[:n]
}

// release gives the room back without holding on to anybody's images.
func (r *room) release() {
	if cap(r.v) > mostRoom {
		r.v = nil
	}
	if cap(r.panel) > mostRoom {
		r.panel = nil
	}
	r.tile, r.line, r.strip, r.turn = tile{}, line{}, strip{}, turn{}
	rooms.Put(r)
}

// Finish is what becomes of a sum: Add, where there is one, has an element for each and
// is added; then the sum is kept between Low and High, and is given to Then.
type Finish struct {
	Add       []float32
	Low, High float32
	Then      *vector.Function
}

// apply does what is not done in the kernel, for whole lines of windows or for channels
// from up to to of them.
func (f *Finish) apply(w *Window, s *strip, dst []float32, channels, from, to int) {
	if f.Then == nil {
		return
	}
	if to-from < channels {
		for i := range s.images {
			first := ((s.image+i)*w.Lines + s.line) * w.Across
			for at := range s.lines * w.Across {
				v := dst[(first+at)*channels:][from:to]
				f.Then.Apply(v, v)
			}
		}
		return
	}
	line := w.Across * channels
	for i := range s.images {
		v := dst[((s.image+i)*w.Lines+s.line)*line:][:s.lines*line]
		f.Then.Apply(v, v)
	}
}

func pointer(v []float32, at int) unsafe.Pointer { return unsafe.Pointer(&v[at]) }
