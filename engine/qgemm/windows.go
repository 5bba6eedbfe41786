package qgemm

import (
	"runtime"

	"github.com/pellucid/pellucid/engine/convolve"
)

// Filter is the weights of a convolution over images whose channels lie last, laid out.
// It is immutable and safe for concurrent use.
type Filter struct {
	// inner is the channels of the images, padded how many of them rows have.
	inner, padded int
	kernel        [2]int
	// apart says that the elements of a window's row do not lie side by side.
	apart   bool
	weights *Weights
	// each are, for a filter of each channel by itself, words by taps and channels.
	each []int32
	sums []int32
}

// NewFilter lays out weights [out, inner, kernel] for windows of such dilations.
func NewFilter(out, inner int, kernel, dilations [2]int, weights []int8) *Filter {
	taps := kernel[0] * kernel[1]
	if out < 1 || inner < 1 || taps < 1 || len(weights) != out*inner*taps {
		panic("qgemm: weights of another size")
	}
	f := &Filter{inner: inner, padded: Rounded(inner), kernel: kernel, apart: kernel[1] > 1 && dilations[1] > 1}
	runs, across := kernel[0], kernel[1]
	if f.apart {
		runs, across = taps, 1
	}
	f.weights = Pack(out, runs, across*f.padded, func(run, i, col int) int8 {
		if i%f.padded >= inner {
			return 0
		}
		return weights[(col*inner+i%f.padded)*taps+run*across+i/f.padded]
	})
	f.sums = f.weights.sums
	return f
}

// eachLanes is what the channels of a filter of each by itself are filled up to.
const eachLanes = 16

// NewEach lays out weights [channels, 1, kernel], of each channel by itself, less the
// channels' zeros, nil for 0: products of words leave room for that.
func NewEach(channels int, kernel [2]int, weights []int8, zeros []int32) *Filter {
	taps := kernel[0] * kernel[1]
	if channels < 1 || taps < 1 || len(weights) != channels*taps {
		panic("qgemm: weights of another size")
	}
	f := &Filter{inner: channels, kernel: kernel, padded: (channels + eachLanes - 1) / eachLanes * eachLanes, sums: make([]int32, channels)}
	f.each = make([]int32, taps*f.padded)
	for c := range channels {
		for t := range taps {
			v := int32(weights[c*taps+t])
			if zeros != nil {
				v -= zeros[c]
			}
			f.each[t*f.padded+c] = int32(uint16(int16(v)))
			f.sums[c] += v
		}
	}
	return f
}

// Sums are those of the weights of each channel of output.
func (f *Filter) Sums() []int32 { return f.sums }

// reach is how many elements the windows meet in a dimension, padding included.
func reach(w *convolve.Window, d, windows int) int {
	return (windows-1)*w.Strides[d] + (w.Kernel[d]-1)*w.Dilations[d] + 1
}

// inPlace says that windows are read where they lie.
func (f *Filter) inPlace(w *convolve.Window) bool {
	if w.Before != [2]int{} || reach(w, 0, w.Lines) > w.Height || reach(w, 1, w.Across) > w.Width {
		return false
	}
	return f.padded == f.inner
}

// Scratch is how many bytes a run needs beside the images.
func (f *Filter) Scratch(w *convolve.Window) int {
	if f.inPlace(w) {
		return 0
	}
	channels := f.padded
	if f.each != nil {
		channels = f.inner
	}
	return w.Batch*reach(w, 0, w.Lines)*reach(w, 1, w.Across)*channels + eachLanes
}

// Convolve slides the filter over images of src; what is around them is padding. scratch
// has Scratch bytes.
func (f *Filter) Convolve(threads int, w *convolve.Window, src []uint8, padding uint8, scratch []uint8, end *Finish) {
	if w.Batch < 1 || w.Lines < 1 || w.Across < 1 || w.Channels != f.inner || w.Kernel != f.kernel || len(src) != w.Batch*w.Height*w.Width*w.Channels {
		panic("qgemm: images or windows of another size")
	}
	c, high, wide := w.Channels, w.Height, w.Width
	if !f.inPlace(w) {
		if len(scratch) != f.Scratch(w) {
			panic("qgemm: too little room")
		}
		if c = f.padded; f.each != nil {
			c = f.inner
		}
		high, wide = reach(w, 0, w.Lines), reach(w, 1, w.Across)
		surround(threads, w, scratch, src, padding, high, wide, c)
		src = scratch
	}
	s := borrow()
	defer s.release()
	s.offsets = s.offsets[:0]
	for y := range w.Kernel[0] {
		for x := range w.Kernel[1] {
			if x == 0 || f.apart || f.each != nil {
				s.offsets = append(s.offsets, (y*w.Dilations[0]*wide+x*w.Dilations[1])*c)
			}
		}
	}
	a := Left{
		Src: src, Rows: w.Batch * w.Lines * w.Across, Across: w.Across, Lines: w.Lines,
		PerRow: w.Strides[1] * c, PerLine: w.Strides[0] * wide * c, PerImage: high * wide * c, Offsets: s.offsets,
	}
	if f.each == nil {
		f.weights.Multiply(threads, &a, end)
		return
	}
	f.eachOf(threads, &a, end)
}

// surround copies images of w into larger ones.
func surround(threads int, w *convolve.Window, to, src []uint8, padding uint8, high, wide, c int) {
	rows := w.Batch * high
	parts := 1
	if threads > 1 && rows*wide*c > 1<<18 {
		parts = threads
	}
	parallel(threads, parts, func(part int) {
		for i := rows * part / parts; i < rows*(part+1)/parts; i++ {
			row := to[i*wide*c:][:wide*c]
			y := i%high - w.Before[0]
			if y < 0 || y >= w.Height {
				fill(row, padding, w.Channels, c)
				continue
			}
			first := min(w.Before[1], wide)
			n := max(0, min(w.Width, wide-first))
			fill(row[:first*c], padding, w.Channels, c)
			from := src[(i/high*w.Height+y)*w.Width*w.Channels:]
			if c == w.Channels {
				copy(row[first*c:(first+n)*c], from)
			} else {
				for x := range n {
					pixel := row[(first+x)*c:][:c]
					clear(pixel[copy(pixel, from[x*w.Channels:][:w.Channels]):])
				}
			}
			fill(row[(first+n)*c:], padding, w.Channels, c)
		}
	})
}

// fill has every pixel of c bytes be so many of v, and zeros.
func fill(row []uint8, v uint8, channels, c int) {
	if v == 0 || len(row) == 0 {
		clear(row)
		return
	}
	for i := range channels {
		row[i] = v
	}
	clear(row[channels:c])
	for n := c; n < len(row); n *= 2 {
		copy(row[n:], row[:n])
	}
}

// eachOf computes the windows of a filter of each channel by itself, line by line.
func (f *Filter) eachOf(threads int, a *Left, end *Finish) {
	end.check(f.inner, a.Rows)
	if f.inner == 0 {
		return
	}
	lines := (a.Rows + a.Across - 1) / a.Across
	threads = min(threads, runtime.GOMAXPROCS(0), a.Rows*len(a.Offsets)*f.inner/(leastWork/64))
	parallel(threads, lines, func(line int) {
		s := borrow()
		defer s.release()
		if n := a.Across * f.padded; cap(s.more) < n {
			s.more = make([]int32, n)
		}
		more := s.more[:a.Across*f.padded]
		for x := range a.Across {
			f.window(a, more[x*f.padded:][:f.padded], a.row(line*a.Across+x))
		}
		s.finish(end, more, f.padded, line*a.Across, a.Across, 0, f.inner, f.inner)
	})
}

// window sums one.
func (f *Filter) window(a *Left, to []int32, at int) {
	n := 0
	if kernels.taps != nil {
		// Images are read in place only where channels are whole vectors, else there is
		// room behind them.
		n = f.padded
		for _, o := range a.Offsets {
			_ = a.Src[at+o : at+o+n]
		}
		kernels.taps(&to[0], &a.Src[at], &f.each[0], &a.Offsets[0], len(a.Offsets), n)
	}
	for c := n; c < f.inner; c++ {
		sum := int32(0)
		for t, o := range a.Offsets {
			sum += int32(a.Src[at+o+c]) * int32(int16(f.each[t*f.padded+c]))
		}
		to[c] = sum
	}
}

// PoolScratch is how many bytes Pool needs beside the images.
func PoolScratch(w *convolve.Window) int {
	if whole(w) {
		return 0
	}
	return w.Batch * reach(w, 0, w.Lines) * reach(w, 1, w.Across) * w.Channels
}

// whole says that no window meets what is around the images.
func whole(w *convolve.Window) bool {
	return w.Before == [2]int{} && reach(w, 0, w.Lines) <= w.Height && reach(w, 1, w.Across) <= w.Width
}

// Pool is the largest byte of each window; what is around the images is 0.
func Pool(threads int, w *convolve.Window, dst, src, scratch []uint8) {
	c, high, wide := w.Channels, w.Height, w.Width
	if len(dst) != w.Batch*w.Lines*w.Across*c || len(src) != w.Batch*high*wide*c || len(scratch) != PoolScratch(w) {
		panic("qgemm: images or windows of another size")
	}
	if !whole(w) {
		high, wide = reach(w, 0, w.Lines), reach(w, 1, w.Across)
		surround(threads, w, scratch, src, 0, high, wide, c)
		src = scratch
	}
	// The largest of the lines first: they are long, and windows share them.
	line := wide * c
	down, across := make([]int, w.Kernel[0]), make([]int, w.Kernel[1])
	for i := range down {
		down[i] = i * w.Dilations[0] * line
	}
	for i := range across {
		across[i] = i * w.Dilations[1] * c
	}
	parts := 1
	if threads > 1 && len(dst) > 1<<16 {
		parts = min(threads, runtime.GOMAXPROCS(0))
	}
	rows := w.Batch * w.Lines
	parallel(parts, parts, func(part int) {
		most := make([]uint8, line)
		for i := rows * part / parts; i < rows*(part+1)/parts; i++ {
			Largest(most, src[(i/w.Lines*high+i%w.Lines*w.Strides[0])*line:], down)
			for x := range w.Across {
				Largest(dst[(i*w.Across+x)*c:][:c], most[x*w.Strides[1]*c:], across)
			}
		}
	})
}
