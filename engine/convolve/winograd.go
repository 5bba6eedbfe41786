package convolve

import (
	"math"
	"unsafe"

	"github.com/pellucid/pellucid/engine/vector"
)

// Winograd is a filter of 3 x 3 taps for windows a step of one apart, by Winograd's
// algorithm F(4x4, 3x3): squares of 6 x 6 elements become as many planes, whose products
// with transformed weights, a quarter of the multiplications, become squares of 4 x 4
// windows. It is immutable and safe for concurrent use.
//
// Its points are 0, 11/16 and 3/2 of either sign, and infinity: with the usual 1 and 2 the
// mean error is more than twice as large, and the largest four times.
type Winograd struct {
	in, out int
	planes  [squareElements]*Filter
	bias    []float32
	// plain is for strips with elements that are no numbers, which would reach windows
	// that do not meet them.
	plain *Filter
}

const (
	squareSide     = 6
	squareElements = squareSide * squareSide
	squareWindows  = 4
)

// winogradChannels is what channels must be a multiple of, as the kernels of squares have
// no masks, and leastWinograd how many there must be for fewer products to outweigh
// the transformations.
const winogradChannels, leastWinograd = 16, 32

// mostWinograd bounds the products of channels whose transformed weights are kept; with
// more, reading them takes longer than what they spare.
const mostWinograd = 1 << 16

// fewSquares is from how many squares an image has on that products with the planes'
// weights are worth their reading; it must not depend on the batch, as bits would.
const fewSquares = 12

// NewWinograd lays out what f holds for Winograd's algorithm, nil where it would not
// serve: other filters than of 3 x 3 taps and many, but not too many channels, or no
// kernels. It works on all cores, as loads wait for it.
func NewWinograd(f *Filter, weights, bias []float32) *Winograd {
	if f.groups > 1 || !Winogradable(f.out, f.in, f.taps) {
		return nil
	}
	if len(weights) != f.out*f.in*f.taps || bias != nil && len(bias) != f.out {
		panic("convolve: weights or biases of another size")
	}
	w := &Winograd{in: f.in, out: f.out, bias: make([]float32, f.out), plain: f}
	copy(w.bias, bias)
	// The planes lie one after the other, each as a filter of one tap.
	plane, none := panelsLen(f.out, f.in), make([]float32, FilterLen(f.out, 0))
	all := make([]float32, squareElements*plane)
	for k := range w.planes {
		w.planes[k] = &Filter{groups: 1, in: f.in, out: f.out, taps: 1, width: f.width, panels: all[k*plane:][:plane], bias: none}
	}
	eachPanel(f.panelCount(), len(weights), func(panel int, room *[]float32) {
		o, n := f.channel(panel)
		n = min(n, f.width)
		turned := transposed(room, weights[9*f.in*o:][:9*f.in*n], n)
		var q square
		var scratch [squareElements * winogradChannels]float32
		for c := range f.in {
			q = square{
				src: pointer(turned, 9*c*n), srcPixel: uintptr(4 * n), dst: pointer(all, o*f.in+c*f.width), dstPixel: uintptr(4 * plane),
				channels: uintptr(n), scratch: pointer(scratch[:], 0),
			}
			kernels.weigh((*byte)(unsafe.Pointer(&q)))
		}
	})
	return w
}

// Winogradable reports whether NewWinograd serves a filter.
func Winogradable(out, in, taps int) bool {
	return kernels != nil && taps == 9 && in%winogradChannels == 0 && out%winogradChannels == 0 && min(in, out) >= leastWinograd && in*out <= mostWinograd
}

// WinogradLen is how many elements a Winograd filter takes in memory.
func WinogradLen(out, in int) int { return squareElements*FilterLen(out, in) + out }

// mostLine bounds the elements of the planes and products of a line of squares, of which
// there is one at least at a time.
const mostLine = 1 << 22

// Suits reports whether the algorithm serves these windows: a step of one apart, and
// enough of them, but not too many on a line, that squares are many and mostly full.
func (f *Winograd) Suits(w *Window) bool {
	one := [2]int{1, 1}
	high, across := squaresOf(w.Lines), squaresOf(w.Across)
	return kernels != nil && w.Kernel == [2]int{3, 3} && w.Strides == one && w.Dilations == one && high*across >= fewSquares &&
		across <= mostLine/(squareElements*(f.in+f.out)) &&
		3*w.Lines*w.Across >= 2*squareWindows*squareWindows*high*across
}

func squaresOf(windows int) int { return (windows + squareWindows - 1) / squareWindows }

// square is what a kernel is called with; the generator knows the offsets.
type square struct {
	src               unsafe.Pointer
	srcPixel, srcLine uintptr
	dst               unsafe.Pointer
	dstPixel, dstLine uintptr
	bias, add         unsafe.Pointer
	channels          uintptr // the kernel counts them down
	scratch           unsafe.Pointer
	low, high         float32
}

// planeBytes is how much of the planes there should be at once, at least fewPlanes
// squares of them.
const (
	planeBytes = 512 << 10
	fewPlanes  = 28
)

// cut is how the lines of squares are cut into strips for so many threads.
func (f *Winograd) cut(w *Window, threads int) cuts {
	want := max(planeBytes/(4*squareElements*(f.in+f.out)), fewPlanes)
	across := squaresOf(w.Across)
	return cut(w.Batch, squaresOf(w.Lines), (want+across-1)/across, threads)
}

// padded is w with whole squares of windows.
func padded(w *Window) Window {
	p := *w
	p.Lines, p.Across = squareWindows*squaresOf(w.Lines), squareWindows*squaresOf(w.Across)
	return p
}

// room is how many elements one strip's squares, planes and products have, and what
// the kernels need beside them.
func (f *Winograd) room(w *Window, images, lines int) (elements, planes, products, rest int) {
	squares := images * lines * squaresOf(w.Across)
	elements = images * (squareWindows*lines + 2) * (squareWindows*squaresOf(w.Across) + 2) * f.in
	return elements, squareElements * squares * f.in, squareElements * squares * f.out, squareElements*winogradChannels + 2*squareWindows*squareWindows*f.out
}

// Scratch is how many elements a run on so many threads needs at most beside the images.
func (f *Winograd) Scratch(threads int, w *Window) int {
	images, lines := f.cut(w, 1).most(w.Batch, squaresOf(w.Lines))
	elements, planes, products, rest := f.room(w, images, lines)
	return max(threads, 1) * (elements + planes + products + rest)
}

// Convolve is Filter.Convolve, for windows that it suits.
func (f *Winograd) Convolve(threads int, w *Window, dst, src []float32, end Finish) {
	w.check(dst, src, f.out)
	if w.Channels != f.in || !f.Suits(w) || end.Add != nil && len(end.Add) != len(dst) {
		panic("convolve: a filter for other windows")
	}
	j := jobs.Get().(*job)
	j.w, j.quick, j.dst, j.src, j.end = *w, f, dst, src, end
	// A quarter of the products of sums.
	threads = j.worth(threads, f.out, 9*f.in/4)
	j.cuts, j.groups = f.cut(w, threads), 1
	j.count = j.cuts.batch * j.cuts.lines
	j.share(threads, j.squares)
	j.release()
}

// turn is what one thread works with.
type turn struct {
	*Winograd
	w                      *Window
	dst                    []float32
	end                    Finish
	planes, products, rest []float32
	square                 square
}

// strip computes the windows of some lines of squares.
func (t *turn) strip(s *strip) {
	across, high := squaresOf(t.w.Across), s.lines/squareWindows
	squares := s.images * high * across
	real := *s
	real.lines = min(s.lines, t.w.Lines-s.line)
	if sum := vector.Sum(s.src[:t.needed(s)]); math.IsNaN(sum) || math.IsInf(sum, 0) {
		t.plain.ready()
		t.plain.strip(t.w, &real, t.dst, t.end)
		return
	}
	q := &t.square
	*q = square{
		srcPixel: uintptr(4 * t.in), srcLine: uintptr(4 * s.perLine), dstPixel: uintptr(4 * squares * t.in),
		scratch: pointer(t.rest, 0),
	}
	for i := range squares {
		q.src = pointer(s.src, i/(high*across)*s.perImage+i/across%high*squareWindows*s.perLine+i%across*squareWindows*t.in)
		q.dst, q.channels = pointer(t.planes, i*t.in), uintptr(t.in)
		kernels.enter((*byte)(unsafe.Pointer(q)))
	}
	one := [2]int{1, 1}
	flat := Window{Batch: 1, Height: 1, Width: squares, Channels: t.in, Lines: 1, Across: squares, Kernel: one, Strides: one, Dilations: one}
	open := Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
	for k, f := range t.Winograd.planes {
		plane := t.planes[k*squares*t.in:][:squares*t.in]
		f.strip(&flat, &strip{images: 1, lines: 1, src: plane, perLine: len(plane), perImage: len(plane)}, t.products[k*squares*t.out:][:squares*t.out], open)
	}
	for i := range squares {
		t.leave(s, i, squares, i/(high*across), i/across%high*squareWindows, i%across*squareWindows)
	}
	t.end.apply(t.w, &real, t.dst, t.out, 0, t.out)
}

// needed is how many elements the squares of a strip meet, from the first on.
func (t *turn) needed(s *strip) int {
	high, across := s.lines+2, squareWindows*squaresOf(t.w.Across)+2
	return (s.images-1)*s.perImage + (high-1)*s.perLine + across*t.in
}

// leave writes the windows of square i, the first of which is line y and column x of
// an image of the strip. Those that are not there are written beside.
func (t *turn) leave(s *strip, i, squares, image, y, x int) {
	q, w := &t.square, t.w
	at := (((s.image+image)*w.Lines+s.line+y)*w.Across + x) * t.out
	rows, cols := min(squareWindows, w.Lines-s.line-y), min(squareWindows, w.Across-x)
	*q = square{
		src: pointer(t.products, i*t.out), srcPixel: uintptr(4 * squares * t.out), bias: pointer(t.bias, 0), channels: uintptr(t.out),
		scratch: pointer(t.rest, 0), low: t.end.Low, high: t.end.High,
	}
	if rows == squareWindows && cols == squareWindows {
		q.dst, q.dstPixel, q.dstLine = pointer(t.dst, at), uintptr(4*t.out), uintptr(4*w.Across*t.out)
		if t.end.Add != nil {
			q.add = pointer(t.end.Add, at)
		}
		kernels.leave((*byte)(unsafe.Pointer(q)))
		return
	}
	line := squareWindows * t.out
	to, add := t.rest[squareElements*winogradChannels:][:squareWindows*line], t.rest[squareElements*winogradChannels+squareWindows*line:][:squareWindows*line]
	q.dst, q.dstPixel, q.dstLine = pointer(to, 0), uintptr(4*t.out), uintptr(4*line)
	if t.end.Add != nil {
		for r := range rows {
			copy(add[r*line:][:cols*t.out], t.end.Add[at+r*w.Across*t.out:])
		}
		q.add = pointer(add, 0)
	}
	kernels.leave((*byte)(unsafe.Pointer(q)))
	for r := range rows {
		copy(t.dst[at+r*w.Across*t.out:][:cols*t.out], to[r*line:])
	}
}
