package convolve

import (
	"math"
	"runtime"
	"sync"
	"unsafe"

	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/crew"
)

// Filter is a convolution's weights and biases, laid out once for many runs. It is
// safe for concurrent use.
type Filter struct {
	// in and out are the channels of a group.
	groups, in, out, taps int
	// panels are of width channels each: for every tap and input channel their weights,
	// zeros beyond the last channel.
	width        int
	panels, bias []float32
	// later makes panels of the weights, once; nil where they are made.
	later   *sync.Once
	weights []float32
	// narrow, where there is one, is what there is instead of panels.
	narrow *narrow
}

// plainWidth is the width of panels where there are no kernels.
const plainWidth = 16

// NewFilter lays out weights [out, in, taps] and, unless it is nil, a bias for each
// output channel. It works on all cores, as loads wait for it.
func NewFilter(out, in, taps int, weights, bias []float32) *Filter {
	return NewGrouped(1, out, in, taps, weights, bias)
}

// NewGrouped is NewFilter for groups of out channels each, which are of in channels each of the
// images: weights [groups * out, in, taps].
func NewGrouped(groups, out, in, taps int, weights, bias []float32) *Filter {
	f := newFilter(groups, out, in, taps, weights, bias)
	f.layOut()
	f.later = nil
	return f
}

// NewFilterLater is NewFilter for a filter that may not be needed: its weights, which must
// not change, are laid out when it is used first.
func NewFilterLater(out, in, taps int, weights, bias []float32) *Filter {
	return newFilter(1, out, in, taps, weights, bias)
}

func newFilter(groups, out, in, taps int, weights, bias []float32) *Filter {
	if groups < 1 || out < 1 || in < 1 || taps < 1 || len(weights) != groups*out*in*taps || bias != nil && len(bias) != groups*out {
		panic("convolve: weights or biases of another size")
	}
	f := &Filter{groups: groups, in: in, out: out, taps: taps, width: panelWidth(), weights: weights, later: new(sync.Once)}
	f.bias = make([]float32, f.panelCount()*f.width)
	for q := 0; q < f.panelCount() && bias != nil; q++ {
		o, n := f.channel(q)
		copy(f.bias[q*f.width:], bias[o:o+min(n, f.width)])
	}
	return f
}

// channel is the first channel of panel q, and how many its group has from there on.
func (f *Filter) channel(q int) (first, left int) {
	per := (f.out + f.width - 1) / f.width
	at := q % per * f.width
	return q/per*f.out + at, f.out - at
}

// channels is how many the images have, and how many the results.
func (f *Filter) channels() (in, out int) { return f.groups * f.in, f.groups * f.out }

// ready lays the weights out where they are not yet.
func (f *Filter) ready() {
	if f.later != nil {
		f.later.Do(f.layOut)
	}
}

func (f *Filter) layOut() {
	depth := f.taps * f.in
	panels := make([]float32, f.groups*panelsLen(f.out, depth))
	eachPanel(f.panelCount(), f.groups*f.out*depth, func(q int, room *[]float32) {
		o, n := f.channel(q)
		n = min(n, f.width)
		panel, weights := panels[q*f.width*depth:][:f.width*depth], f.weights[o*depth:][:n*depth]
		if f.taps == 1 && n == f.width {
			blas.Transpose(panel, weights, n, depth)
			return
		}
		turned := transposed(room, weights, n)
		for c := range f.in {
			for t := range f.taps {
				copy(panel[(t*f.in+c)*f.width:], turned[(c*f.taps+t)*n:][:n])
			}
		}
	})
	f.panels, f.weights = panels, nil
}

// transposed returns the transpose of some rows, in the room.
func transposed(room *[]float32, v []float32, rows int) []float32 {
	if len(*room) < len(v) {
		*room = make([]float32, len(v))
	}
	to := (*room)[:len(v)]
	blas.Transpose(to, v, rows, len(v)/rows)
	return to
}

// eachPanel calls f for each panel of a filter of so many weights, on all cores where they are
// many, with room.
func eachPanel(panels, weights int, f func(q int, room *[]float32)) {
	threads := 1
	if weights >= manyWeights {
		threads = min(runtime.GOMAXPROCS(0), panels)
	}
	crew.Run(threads, threads, func(part int) {
		var room []float32
		for p := panels * part / threads; p < panels*(part+1)/threads; p++ {
			f(p, &room)
		}
	})
}

// manyWeights is from how many on laying them out takes longer than to wake a thread.
const manyWeights = 1 << 16

// panelWidth is how many channels a panel has.
func panelWidth() int {
	if kernels != nil {
		return 2 * kernels.lanes
	}
	return plainWidth
}

// panelsLen is how many elements the panels of a filter have, of depth weights for each
// output channel.
func panelsLen(out, depth int) int {
	width := panelWidth()
	return (out + width - 1) / width * width * depth
}

// FilterLen is how many elements a filter of one group takes in memory that has depth weights
// for each output channel; one of several takes that for each.
func FilterLen(out, depth int) int {
	return panelsLen(out, depth+1)
}

// Len is how many elements, or what takes as much, the filter takes in memory.
func (f *Filter) Len() int {
	if f.narrow == nil {
		return f.groups * FilterLen(f.out, f.taps*f.in)
	}
	// Biases, scales and zeros are floats.
	return len(f.bias) + (len(f.narrow.bytes)+2*len(f.narrow.halves)+3)/4 + len(f.narrow.scale) + len(f.narrow.zero)
}

// tile is what a kernel is called with; the generator knows the offsets.
type tile struct {
	a  unsafe.Pointer
	rs uintptr // bytes between windows
	// deltas are from behind each run of k elements to the next.
	deltas unsafe.Pointer
	taps   uintptr
	k      uintptr
	b      unsafe.Pointer
	bp     uintptr // bytes between panels
	c      unsafe.Pointer
	cs     uintptr
	bias   unsafe.Pointer
	add    unsafe.Pointer
	as     uintptr
	// mask has a bit for each channel; table is the same for AVX2.
	mask  uint64
	table unsafe.Pointer
	// next is what the loop fetches into the second level, ns bytes at a time.
	next      unsafe.Pointer
	ns        uintptr
	low, high float32
}

// kernelRows bounds the rows of a tile, kernelVectors its vectors.
const kernelRows, kernelVectors = 14, 8

// tileKernels are by rows and vectors; where there is none there is nil.
type tileKernels [kernelRows + 1][kernelVectors + 1]func(*byte)

// masks are as many ones as zeros: from somewhere on, they are a mask of AVX2.
var masks = func() (m [32]int32) {
	for i := range 16 {
		m[i] = -1
	}
	return m
}()

// Convolve writes the windows' products with a filter to dst, which has an element for
// each window and output channel, on up to threads threads. It panics where sizes
// contradict each other.
func (f *Filter) Convolve(threads int, w *Window, dst, src []float32, end Finish) {
	in, out := f.channels()
	w.check(dst, src, out)
	if w.Channels != in || w.taps() != f.taps || end.Add != nil && len(end.Add) != len(dst) {
		panic("convolve: a filter for other windows")
	}
	f.ready()
	j := jobs.Get().(*job)
	j.filter, j.dst, j.src, j.end = f, dst, src, end
	if w.isFlat() {
		j.w = w.flattened()
		f.flat(j.worth(threads, out, f.in), j)
	} else {
		j.w = w.upright()
		j.byStrips(j.worth(threads, out, f.taps*f.in))
	}
	j.release()
}

// flat is Convolve for windows of one element, in parts as long as strips.
func (f *Filter) flat(threads int, j *job) {
	most := max(stripBytes/(4*j.w.Channels), 4*kernelRows) / kernelRows
	tiles := (j.w.Across + kernelRows - 1) / kernelRows
	j.groups = f.parts(&j.w, tiles/4, threads)
	j.count = even((tiles+most-1)/most, max(threads/j.groups, 1), tiles)
	j.share(threads, j.parts)
}

// parts is how many groups of panels are worth computing apart where the windows can be
// cut into so many parts: one where there are enough of those, unless the weights that
// every thread then reads are more than the images that every thread reads else.
func (f *Filter) parts(w *Window, parts, threads int) int {
	fewer := f.groups*f.taps*f.in*f.out <= w.Batch*w.Height*w.Width*w.Channels
	if threads < 2 || w.Batch >= threads || parts >= threads && fewer {
		return 1
	}
	return min(threads, f.panelCount())
}

// part is a group of the panels: from which, up to but without which.
func (f *Filter) part(i, groups int) [2]int {
	n := f.panelCount()
	return [2]int{n * i / groups, n * (i + 1) / groups}
}

func (f *Filter) panelCount() int { return f.groups * ((f.out + f.width - 1) / f.width) }

// runs are the pieces of a window that lie side by side, of so many of the images' channels:
// how many elements each has, and where they begin.
func (w *Window) runs(s *strip, channels int, offsets []int) (k int, at []int) {
	at, k = offsets[:0], channels
	across := w.Kernel[1]
	if w.Dilations[1] == 1 && channels == w.Channels {
		k, across = k*across, 1
	}
	for y := range w.Kernel[0] {
		for x := range across {
			at = append(at, y*w.Dilations[0]*s.perLine+x*w.Dilations[1]*w.Channels)
		}
	}
	return k, at
}

// dimension is one that a strip's windows lie in: how many there are, and how many
// elements apart they read and write.
type dimension struct{ n, src, dst int }

// order is how a strip's windows are gone through, the last dimension by tiles: windows
// side by side, or those of all images at one place where that is more.
func (f *Filter) order(w *Window, s *strip) [3]dimension {
	_, out := f.channels()
	images := dimension{s.images, s.perImage, w.Lines * w.Across * out}
	lines := dimension{s.lines, w.Strides[0] * s.perLine, w.Across * out}
	across := dimension{w.Across, w.Strides[1] * w.Channels, out}
	if s.images > w.Across && w.Across < fewAcross {
		return [3]dimension{lines, across, images}
	}
	return [3]dimension{images, lines, across}
}

// fewAcross is from how many windows on a line on they fill tiles well.
const fewAcross = 7

// strip computes a strip of windows, panel by panel.
func (f *Filter) strip(w *Window, s *strip, dst []float32, finish Finish) {
	r := rooms.Get().(*room)
	defer r.release()
	t := &r.tile
	k, at := w.runs(s, f.in, r.offsets)
	r.offsets = at
	_, out := f.channels()
	last := at[len(at)-1] + (f.groups-1)*f.in + k
	r.chains = chains(r.chains[:0], at, k)
	for i := range at {
		if i+1 < len(at) {
			at[i] = 4 * (at[i+1] - at[i] - k)
		}
	}
	by := f.order(w, s)
	*t = tile{rs: uintptr(4 * by[2].src), bp: uintptr(4 * f.taps * f.in * f.width), cs: uintptr(4 * by[2].dst), as: uintptr(4 * by[2].dst)}
	// Nothing is read beyond the strip's last window.
	_ = s.src[(s.images-1)*s.perImage+(s.lines-1)*w.Strides[0]*s.perLine+(w.Across-1)*w.Strides[1]*w.Channels+last-1]
	_ = dst[((s.image+s.images-1)*w.Lines+s.line+s.lines)*w.Across*out-1]
	height := tileRows(by[2].n, t.rs)
	from, end := s.panels[0], s.panels[1]
	if end == 0 {
		end = f.panelCount()
	}
	for q := from; q < end; {
		o, channels := f.channel(q)
		vecs, wide := f.vectors(height, min(channels, (end-q)*f.width))
		own := f.in * (o / f.out) // the group's first channel of the images
		channels = min(wide*f.width, channels)
		t.mask, t.table = 1<<min(channels, 32)-1, unsafe.Pointer(&masks[max(0, 16-channels)])
		weights := f.floats(q, r)
		t.start(weights)
		left := f.ahead(&by, t, q+wide, height)
		for i, c := range r.chains {
			// The first has the bias and what is added, each other what was before it.
			part := Finish{Add: finish.Add, Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
			t.bias, t.add = pointer(f.bias, q*f.width), nil
			if i > 0 {
				part.Add, t.bias = dst, unsafe.Pointer(&noBias)
			}
			if i == len(r.chains)-1 {
				part.Low, part.High = finish.Low, finish.High
			}
			t.start(weights[c.done*f.width:])
			t.deltas, t.taps, t.k, t.low, t.high = unsafe.Pointer(&at[c.run]), uintptr(c.runs), uintptr(c.k), part.Low, part.High
			left = f.panel(left, &by, s.src[own+c.at:], t, dst, part, (s.image*w.Lines+s.line)*w.Across*out+o, min(channels, f.width), height, vecs)
		}
		q += wide
	}
	first, _ := f.channel(from)
	behind, left := f.channel(end - 1)
	finish.apply(w, s, dst, out, first, behind+min(left, f.width))
}

// mostChain is how many products are summed one after the other, about: the error of a sum
// grows with those before, so that of several shorter ones is smaller.
const mostChain = 128

// chain is some products of each window: those of the elements of some runs, or of a part
// of one. The first element is so many from the window's first; done are the products
// before it.
type chain struct{ run, runs, k, at, done int }

// noBias is that of the chains of a panel, or of four, behind the first.
var noBias [4 * 2 * 16]float32

// chains cuts the products of a window whose runs, of k elements, begin at these places.
func chains(to []chain, at []int, k int) []chain {
	runs := max(mostChain/k, 1)
	parts := (k + mostChain - 1) / mostChain
	for i := 0; i < len(at); i += runs {
		for part := range parts {
			from, end := k*part/parts, k*(part+1)/parts
			to = append(to, chain{run: i, runs: min(runs, len(at)-i), k: end - from, at: at[i] + from, done: i*k + from})
		}
	}
	return to
}

// tileRows is how many windows each tile gets: as even as can be. Windows that are a
// whole number of 4 KiB apart fight for the same few lines of the first level.
func tileRows(windows int, step uintptr) int {
	most := 1
	if kernels != nil {
		most = kernels.rows
	}
	if step%4096 == 0 {
		most = (most + 1) / 2
	}
	calls := (windows + most - 1) / most
	return (windows + calls - 1) / calls
}

// vectors is how many vectors the tiles of the next panel have where so many channels are
// left, and how many panels those are.
func (f *Filter) vectors(height, left int) (vecs, wide int) {
	if f.narrow != nil {
		left = min(left, f.width) // one panel is made floats at a time
	}
	if kernels == nil {
		return 2, 1
	}
	switch of := &kernels.tiles[height]; {
	case left >= 4*f.width && of[8] != nil:
		return 8, 4
	case left >= 2*f.width && of[4] != nil:
		return 4, 2
	case left <= f.width/2:
		return 1, 1
	}
	return 2, 1
}

// ahead has the tiles fetch the panel that comes next, each a part of it, and returns how
// many bytes it has.
func (f *Filter) ahead(by *[3]dimension, t *tile, q, height int) uintptr {
	size := f.taps * f.in * f.width
	t.next, t.ns = t.b, 0
	if q >= f.panelCount() || f.narrow != nil {
		return 0
	}
	const cacheLine = 64
	steps := by[0].n * by[1].n * ((by[2].n + height - 1) / height) * f.taps * f.in
	t.next = pointer(f.panels, q*size)
	t.ns = uintptr((4*size/cacheLine+steps-1)/steps) * cacheLine
	return uintptr(4 * size)
}

// panel computes a chain of a panel's channels of all windows of a strip, the first of which
// is written at dst[at]. It returns how many of the limit's bytes are to be fetched yet: a
// pointer beyond them would be one to nothing.
func (f *Filter) panel(limit uintptr, by *[3]dimension, src []float32, t *tile, dst []float32, end Finish, at, channels, height, vecs int) uintptr {
	first, per := t.next, t.ns*t.k*t.taps
	done := uintptr(0)
	for i := range by[0].n {
		for k := range by[1].n {
			from, to := i*by[0].src+k*by[1].src, at+i*by[0].dst+k*by[1].dst
			for x := 0; x < by[2].n; x += height {
				rows := min(height, by[2].n-x)
				t.a = pointer(src, from+x*by[2].src)
				t.c = pointer(dst, to+x*by[2].dst)
				if end.Add != nil {
					t.add = pointer(end.Add, to+x*by[2].dst)
				}
				if kernels == nil {
					tileGo(t, rows, channels, f.width)
					continue
				}
				kernels.tiles[rows][vecs]((*byte)(unsafe.Pointer(t)))
				if done += per; done < limit {
					t.next = unsafe.Add(first, done)
				} else {
					t.next, t.ns = t.b, 0
				}
			}
		}
	}
	return limit - min(done, limit)
}

// tileGo is a kernel in plain Go.
func tileGo(t *tile, rows, channels, width int) {
	var sums [plainWidth]float32
	deltas := unsafe.Slice((*int)(t.deltas), t.taps)
	for r := range uintptr(rows) {
		copy(sums[:], unsafe.Slice((*float32)(t.bias), width))
		a, b := unsafe.Add(t.a, r*t.rs), unsafe.Slice((*float32)(t.b), int(t.taps*t.k)*width)
		for i, d := range deltas {
			for _, x := range unsafe.Slice((*float32)(a), t.k) {
				for j, v := range b[:width] {
					sums[j] += x * v
				}
				b = b[width:]
			}
			if i+1 < len(deltas) {
				a = unsafe.Add(a, 4*int(t.k)+d)
			}
		}
		c := unsafe.Slice((*float32)(unsafe.Add(t.c, r*t.cs)), channels)
		for j := range c {
			v := sums[j]
			if t.add != nil {
				v += *(*float32)(unsafe.Add(t.add, r*t.as+uintptr(4*j)))
			}
			c[j] = bounded(v, t.low, t.high)
		}
	}
}

// bounded is v between low and high, NaN where it is.
func bounded(v, low, high float32) float32 {
	if v < low {
		return low
	}
	if v > high {
		return high
	}
	return v
}
