package qgemm

import (
	"runtime"
	"slices"
)

// Window is the geometry: of Batch volumes of Size elements of so many channels each, which
// lie last, and of Windows over each volume. Dimensions are depth, height and width; those
// that images and lines lack are 1. The first window begins Before elements before the
// volume.
type Window struct {
	Batch, Channels                                   int
	Size, Windows, Kernel, Strides, Dilations, Before [3]int
}

// count is how many windows there are.
func (w *Window) count() int { return w.Batch * volumeOf(w.Windows) }

func volumeOf(v [3]int) int { return v[0] * v[1] * v[2] }

// reach is how many elements the windows meet in each dimension, padding included.
func (w *Window) reach() (met [3]int) {
	for d := range met {
		met[d] = (w.Windows[d]-1)*w.Strides[d] + (w.Kernel[d]-1)*w.Dilations[d] + 1
	}
	return met
}

// whole says that no window meets what is around the volumes.
func (w *Window) whole() bool {
	met := w.reach()
	return w.Before == [3]int{} && met[0] <= w.Size[0] && met[1] <= w.Size[1] && met[2] <= w.Size[2]
}

// check panics where the windows are none, or src is not of them.
func (w *Window) check(src int) {
	ok := w.Batch > 0 && w.Channels > 0 && src == w.Batch*volumeOf(w.Size)*w.Channels
	for d := range 3 {
		ok = ok && w.Windows[d] > 0 && w.Kernel[d] > 0 && w.Strides[d] > 0 && w.Dilations[d] > 0 && w.Before[d] >= 0
	}
	if !ok {
		panic("qgemm: volumes or windows of another size")
	}
}

// Shape is that of a filter's weights: Out channels, of Inner ones each, in Groups, for
// windows of such a form.
type Shape struct {
	Out, Inner, Groups int
	Kernel, Dilations  [3]int
}

func (s *Shape) taps() int { return volumeOf(s.Kernel) }

// Filter is the weights of a convolution over volumes whose channels lie last, laid out.
// It is immutable and safe for concurrent use.
type Filter struct {
	shape Shape
	// padded is how many channels a volume's elements are filled up to, slack how many
	// bytes may be read behind the last.
	padded, slack int
	// parts are of groups that are computed together; each is, for a filter of each channel
	// by itself, what there is instead.
	parts []part
	each  *each
	// zeros are of the weights of the channels of output, nil where they are none, or part
	// of them.
	zeros, sums []int32
}

// part is the weights of some groups.
type part struct {
	// channels are the volumes' that it reads, from one on; first is the first of output.
	from, channels, first int
	// apart says that the elements of a window's row do not lie side by side.
	apart   bool
	weights *Weights
}

// NewFilter lays out weights [out, inner, kernel], less zeros of each channel of output,
// nil for 0.
func NewFilter(s Shape, weights []int8, zeros []int32) *Filter {
	if s.Out < 1 || s.Inner < 1 || s.Groups < 1 || s.Out%s.Groups != 0 || s.taps() < 1 || len(weights) != s.Out*s.Inner*s.taps() || zeros != nil && len(zeros) != s.Out {
		panic("qgemm: weights of another size")
	}
	f := &Filter{shape: s, padded: s.Groups * s.Inner, sums: make([]int32, s.Out)}
	for o := range s.Out {
		for _, v := range weights[o*s.Inner*s.taps():][:s.Inner*s.taps()] {
			f.sums[o] += int32(v)
			if zeros != nil {
				f.sums[o] -= zeros[o]
			}
		}
	}
	if s.Groups > 1 && s.Inner == 1 && s.Out == s.Groups {
		f.each = newEach(&s, weights, zeros)
		if f.slack = f.each.ahead() * s.Out; f.slack > 0 || s.Out%eachLanes != 0 {
			f.slack += eachLanes
		}
		return f
	}
	f.zeros = zeros
	if s.Groups == 1 {
		f.padded = Rounded(s.Inner)
		f.parts = []part{s.together(weights)}
		return f
	}
	// Groups of few channels of output share vectors. What is taken from sums of all of a
	// row's elements is not of one group only.
	some, outer := 1, s.Out/s.Groups
	if zeros == nil {
		some = max(1, min(kernels.lanes/outer, s.Groups))
	}
	for g := 0; g < s.Groups; g += some {
		p := s.grouped(weights, g, min(some, s.Groups-g))
		if p.channels%group != 0 {
			f.slack = group
		}
		f.parts = append(f.parts, p)
	}
	return f
}

// together lays out the weights of one group: a row of a window is one run where its
// elements lie side by side.
func (s *Shape) together(weights []int8) part {
	padded, runs, across := Rounded(s.Inner), s.Kernel[0]*s.Kernel[1], s.Kernel[2]
	p := part{channels: s.Inner, apart: s.Kernel[2] > 1 && s.Dilations[2] > 1}
	if p.apart {
		runs, across = s.taps(), 1
	}
	p.weights = Pack(s.Out, runs, across*padded, func(run, i, col int) int8 {
		if i%padded >= s.Inner {
			return 0
		}
		return weights[(col*s.Inner+i%padded)*s.taps()+run*across+i/padded]
	})
	return p
}

// grouped lays out those of some groups: a channel of output has zeros for the channels of
// the others.
func (s *Shape) grouped(weights []int8, g, some int) part {
	outer, taps := s.Out/s.Groups, s.taps()
	p := part{from: g * s.Inner, channels: some * s.Inner, first: g * outer, apart: true}
	p.weights = Pack(some*outer, taps, p.channels, func(run, i, col int) int8 {
		if i/s.Inner != col/outer {
			return 0
		}
		return weights[((p.first+col)*s.Inner+i%s.Inner)*taps+run]
	})
	return p
}

// FilterBytes is what NewFilter lays out at most.
func FilterBytes(s Shape) int64 {
	taps, groups := int64(s.taps()), int64(s.Groups)
	if s.Groups == 1 {
		return Bytes(s.Out, Rounded(s.Inner)*s.taps())
	}
	// A vector's columns for all channels of as many groups as it has columns at most.
	outer := int64(s.Out) / groups
	wide := (outer + mostLanes - 1) / mostLanes * mostLanes
	some := max(1, mostLanes/max(outer, 1))
	together := (groups/some + 1) * wide * taps * (some*int64(s.Inner) + group)
	alone := groups * wide * taps * int64(Rounded(s.Inner))
	return max(together, alone) + 8*int64(s.Out)
}

// mostLanes is the widest vector's.
const mostLanes = 16

// Sums are those of the weights, less their zeros, of each channel of output.
func (f *Filter) Sums() []int32 { return f.sums }

// around is what volumes are copied into, and its size: with the padding that is read.
func (f *Filter) around(w *Window) (padded Window, size [3]int) {
	if f.each != nil {
		return f.each.around(w)
	}
	return *w, w.reach()
}

// inPlace says that windows are read where they lie.
func (f *Filter) inPlace(w *Window) bool {
	if f.slack > 0 || f.padded != w.Channels {
		return false
	}
	if f.each != nil { // whose rows are as long as windows meet them
		return w.Before[2] == 0 && w.reach()[2] == w.Size[2]
	}
	return w.whole()
}

// Scratch is how many bytes a run needs beside the volumes.
func (f *Filter) Scratch(w *Window) int {
	if f.inPlace(w) {
		return 0
	}
	_, size := f.around(w)
	return w.Batch*volumeOf(size)*f.padded + f.slack
}

// Room is how many bytes a run makes by itself on so many threads.
func (f *Filter) Room(threads int, w *Window) int {
	if f.each == nil {
		return 0
	}
	var s eachStrip
	f.each.over(&s, 1, w) // fewer threads have longer strips
	return threads * 4 * eachLanes * (w.Kernel[0]*s.rows*s.across + w.Windows[2])
}

// Convolve slides the filter over volumes of src; what is around them is padding. scratch
// has Scratch bytes.
func (f *Filter) Convolve(threads int, w *Window, src []uint8, padding uint8, scratch []uint8, end *Finish) {
	w.check(len(src))
	if w.Channels != f.shape.Groups*f.shape.Inner || w.Kernel != f.shape.Kernel || f.dilated(w) {
		panic("qgemm: windows of another form than the weights")
	}
	c, size := w.Channels, w.Size
	if !f.inPlace(w) {
		if len(scratch) != f.Scratch(w) {
			panic("qgemm: too little room")
		}
		var padded Window
		c = f.padded
		padded, size = f.around(w)
		surround(threads, &padded, scratch, src, padding, size, c)
		src = scratch
	}
	if f.each != nil {
		f.each.convolve(threads, w, src, padding, end)
		return
	}
	s := borrow()
	defer s.release()
	end.check(f.shape.Out, w.count())
	for i := range f.parts {
		p := &f.parts[i]
		s.left, s.part = f.left(s, p, w, src, size, c), *end
		n, fin := p.weights.n, &s.part
		fin.first, fin.wide = p.first, f.shape.Out
		fin.Whole = end.Whole[p.first:][:n]
		if end.Sums == nil {
			fin.Scale, fin.Shift = end.Scale[p.first:][:n], end.Shift[p.first:][:n]
		}
		if f.zeros != nil {
			fin.Zeros = f.zeros[p.first:][:n]
		}
		p.weights.Multiply(threads, &s.left, fin)
	}
}

// dilated says that windows' rows lie apart as the weights' do not: what is laid out in one
// run depends on that.
func (f *Filter) dilated(w *Window) bool {
	return f.shape.Kernel[2] > 1 && w.Dilations[2] != f.shape.Dilations[2]
}

// left is where a part's rows are in volumes of a size and of c channels.
func (f *Filter) left(s *workspace, p *part, w *Window, src []uint8, size [3]int, c int) Left {
	line := size[2] * c
	plane := size[1] * line
	s.offsets = s.offsets[:0]
	for z := range w.Kernel[0] {
		for y := range w.Kernel[1] {
			for x := range w.Kernel[2] {
				if x == 0 || p.apart {
					s.offsets = append(s.offsets, z*w.Dilations[0]*plane+y*w.Dilations[1]*line+x*w.Dilations[2]*c+p.from)
				}
			}
		}
	}
	return Left{
		Src: src, Rows: w.count(), Across: w.Windows[2], Lines: w.Windows[1], Planes: w.Windows[0],
		PerRow: w.Strides[2] * c, PerLine: w.Strides[1] * line, PerPlane: w.Strides[0] * plane, PerImage: size[0] * plane, Offsets: s.offsets,
	}
}

// surround copies volumes of w into larger ones, of size elements of c channels.
func surround(threads int, w *Window, to, src []uint8, padding uint8, size [3]int, c int) {
	s := surrounding{*w, to, src, padding, size, c}
	rows := w.Batch * size[0] * size[1]
	if threads < 2 || rows*size[2]*c <= 1<<18 {
		s.rows(0, rows)
		return
	}
	j := newJob()
	j.around, j.lines = s, rows
	j.run(threads, threads, j.rows)
}

// surrounding is what surround does.
type surrounding struct {
	w       Window
	to, src []uint8
	padding uint8
	size    [3]int
	c       int
}

// rows does some rows.
func (s *surrounding) rows(begin, end int) {
	w, to, src, padding, size, c := &s.w, s.to, s.src, s.padding, s.size, s.c
	wide := size[2]
	first := min(w.Before[2], wide)
	n := max(0, min(w.Size[2], wide-first))
	for i := begin; i < end; i++ {
		row := to[i*wide*c:][:wide*c]
		z, y := i/size[1]%size[0]-w.Before[0], i%size[1]-w.Before[1]
		if z < 0 || z >= w.Size[0] || y < 0 || y >= w.Size[1] {
			fill(row, padding, w.Channels, c)
			continue
		}
		fill(row[:first*c], padding, w.Channels, c)
		from := src[((i/size[1]/size[0]*w.Size[0]+z)*w.Size[1]+y)*w.Size[2]*w.Channels:]
		if c == w.Channels {
			copy(row[first*c:(first+n)*c], from)
		} else {
			widen(row[first*c:(first+n)*c], from, w.Channels, c)
		}
		fill(row[(first+n)*c:], padding, w.Channels, c)
	}
}

// widen fills elements of some channels up to c with zeros.
func widen(row, from []uint8, channels, c int) {
	if channels == 3 && c == 4 {
		for x := 0; x+4 <= len(row); x += 4 {
			to, three := row[x:x+4:x+4], from[:3:3]
			to[0], to[1], to[2], to[3] = three[0], three[1], three[2], 0
			from = from[3:]
		}
		return
	}
	for x := 0; x+c <= len(row); x += c {
		element := row[x:][:c]
		clear(element[copy(element, from[:channels]):])
		from = from[channels:]
	}
}

// fill has every element of c bytes be so many of v, and zeros.
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

// PoolScratch is how many bytes Pool needs beside the volumes.
func PoolScratch(w *Window) int {
	if w.whole() {
		return 0
	}
	return w.Batch * volumeOf(w.reach()) * w.Channels
}

// Pool is the largest byte of each window; what is around the volumes is 0.
func Pool(threads int, w *Window, dst, src, scratch []uint8) {
	w.check(len(src))
	c, size := w.Channels, w.Size
	if len(dst) != w.count()*c || len(scratch) != PoolScratch(w) {
		panic("qgemm: volumes or windows of another size")
	}
	if !w.whole() {
		size = w.reach()
		surround(threads, w, scratch, src, 0, size, c)
		src = scratch
	}
	s := borrow()
	defer s.release()
	line := size[2] * c
	s.offsets = s.offsets[:0]
	for z := range w.Kernel[0] {
		for y := range w.Kernel[1] {
			s.offsets = append(s.offsets, (z*w.Dilations[0]*size[1]+y*w.Dilations[1])*line)
		}
	}
	rows := len(s.offsets)
	for x := range w.Kernel[2] {
		s.offsets = append(s.offsets, x*w.Dilations[2]*c)
	}
	p := pool{w: w, size: size, dst: dst, src: src, down: s.offsets[:rows], across: s.offsets[rows:]}
	lines := w.Batch * w.Windows[0] * w.Windows[1]
	parts := 1
	if threads > 1 && len(dst) > 1<<16 {
		parts = min(threads, runtime.GOMAXPROCS(0))
	}
	if parts == 1 {
		p.lines(0, lines)
		return
	}
	j := newJob()
	j.pool, j.lines = p, lines
	j.run(parts, parts, j.windows)
}

// pool is what a part of Pool needs: where the lines of a window are, and the elements of one.
type pool struct {
	w            *Window
	size         [3]int
	dst, src     []uint8
	down, across []int
}

// lines computes some lines of windows: the largest of a window's lines first, as they are long
// and windows share them.
func (p *pool) lines(from, to int) {
	s := borrow()
	defer s.release()
	w, c := p.w, p.w.Channels
	line := p.size[2] * c
	s.line = slices.Grow(s.line[:0], line)[:line]
	for i := from; i < to; i++ {
		at := i / w.Windows[1]
		image, z, y := at/w.Windows[0], at%w.Windows[0]*w.Strides[0], i%w.Windows[1]*w.Strides[1]
		Largest(s.line, p.src[((image*p.size[0]+z)*p.size[1]+y)*line:], p.down)
		for x := range w.Windows[2] {
			Largest(p.dst[(i*w.Windows[2]+x)*c:][:c], s.line[x*w.Strides[2]*c:], p.across)
		}
	}
}
