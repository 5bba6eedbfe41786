package qgemm

import (
	"runtime"
	"unsafe"
)

// Filters of each channel by itself. Windows' elements are laid out first for a vector of
// channels at a time: each of the volume's elements becomes a double word a channel, its
// byte and that of the element that the next tap of a row meets as two words. So a
// multiplication takes two taps of each channel, of words, which have room for weights
// less their zeros; and an element is widened once for all windows that meet it. Where
// there is an instruction for it, and weights are bytes, it is those of four taps, as bytes.

// eachLanes is how many channels are computed together.
const eachLanes = 16

// each is the weights of such a filter.
type each struct {
	channels int
	kernel   [3]int
	// some is how many taps a double word has: two or four.
	some int
	// words are, for each vector of channels, those of a row's taps so many by so many; rows
	// are the sums of each row's taps.
	words, rows []int32
}

// perRow is how many double words a window's row has.
func (e *each) perRow() int { return (e.kernel[2] + e.some - 1) / e.some }

// taps is how many a window has.
func (e *each) taps() int { return e.kernel[0] * e.kernel[1] * e.perRow() }

// ahead is how many elements behind the last are read.
func (e *each) ahead() int {
	if e.some == 4 {
		return e.some - 1
	}
	return 0
}

func newEach(s *Shape, weights []int8, zeros []int32) *each {
	e := &each{channels: s.Out, kernel: s.Kernel, some: 2}
	if kernels.quadUp != nil && zeros == nil && s.Kernel[2] > 2 && s.Dilations[2] == 1 {
		e.some = 4
	}
	e.words = make([]int32, (s.Out+eachLanes-1)/eachLanes*eachLanes*e.taps())
	e.rows = make([]int32, (s.Out+eachLanes-1)/eachLanes*eachLanes*s.Kernel[0]*s.Kernel[1])
	bits, mask := 32/e.some, uint32(1)<<(32/e.some)-1
	for c := range s.Out {
		of := e.words[c/eachLanes*eachLanes*e.taps():]
		for t := range s.taps() {
			v := int32(weights[c*s.taps()+t])
			if zeros != nil {
				v -= zeros[c]
			}
			row, x := t/s.Kernel[2], t%s.Kernel[2]
			e.rows[(c/eachLanes*s.Kernel[0]*s.Kernel[1]+row)*eachLanes+c%eachLanes] += v
			of[(row*e.perRow()+x/e.some)*eachLanes+c%eachLanes] |= int32((uint32(v) & mask) << (bits * (x % e.some)))
		}
	}
	return e
}

// eachBytes is about how much a strip's elements take: they should stay in the second level
// of cache.
const eachBytes = 128 << 10

// eachStrip is how a filter goes through the volumes: lines of windows over rows of
// elements. Rows that are padding are left out: what they would give is the same for all
// windows.
type eachStrip struct {
	*each
	w *Window
	// src are volumes whose rows have all elements that windows meet.
	src     []uint8
	padding int32
	// A strip has so many lines of windows, its planes so many rows, step apart, of so many
	// elements.
	lines, rows, step, across int
	end                       *Finish
}

// around is the padding that a filter needs copied: that of rows.
func (e *each) around(w *Window) (padded Window, size [3]int) {
	padded = *w
	padded.Before[0], padded.Before[1] = 0, 0
	return padded, [3]int{w.Size[0], w.Size[1], w.reach()[2]}
}

// over sets how volumes are gone through.
func (e *each) over(s *eachStrip, threads int, w *Window) {
	*s = eachStrip{each: e, w: w, across: w.reach()[2], lines: 1, rows: w.Kernel[1], step: w.Dilations[1]}
	if w.Dilations[1] > 1 || w.Strides[1] >= w.Kernel[1] {
		return // lines share no rows
	}
	row := 4 * eachLanes * s.across * w.Kernel[0]
	s.lines = max(1, min(w.Windows[1], (eachBytes/row-w.Kernel[1])/w.Strides[1]+1))
	if threads > 1 {
		s.lines = min(s.lines, (w.Windows[1]+threads-1)/threads)
	}
	s.rows = (s.lines-1)*w.Strides[1] + w.Kernel[1]
}

// convolve computes volumes whose rows have all elements that windows meet.
func (e *each) convolve(threads int, w *Window, src []uint8, padding uint8, end *Finish) {
	end.check(e.channels, w.count())
	vectors := (e.channels + eachLanes - 1) / eachLanes
	work := w.count() * e.taps() * vectors / (leastWork / 256)
	threads = max(1, min(threads, runtime.GOMAXPROCS(0), work))
	ws := borrow()
	defer ws.release()
	s := &ws.strip
	e.over(s, threads, w)
	s.src, s.padding, s.end = src, int32(padding), end
	n := w.Batch * w.Windows[0] * ((w.Windows[1] + s.lines - 1) / s.lines) * vectors
	if threads < 2 {
		for i := range n {
			s.part(ws, i, vectors)
		}
		ws.forget()
		return
	}
	j := newJob()
	j.each, j.vectors = s, vectors
	j.run(threads, n, j.strips)
}

// part computes a strip of one vector of channels.
func (s *eachStrip) part(ws *workspace, i, vectors int) {
	strips := (s.w.Windows[1] + s.lines - 1) / s.lines
	plane, strip := i/vectors/strips, i/vectors%strips
	s.strip(ws, plane, strip*s.lines, i%vectors)
}

// strip computes the lines from one on of a plane of windows, for one vector of channels.
func (s *eachStrip) strip(ws *workspace, plane, line, vector int) {
	w := s.w
	lines := min(s.lines, w.Windows[1]-line)
	if kernels.pairUp != nil {
		s.layOut(ws, plane, line, s.rows-(s.lines-lines)*w.Strides[1], vector)
	}
	n := w.Windows[2]
	if cap(ws.more) < n*eachLanes {
		ws.more = make([]int32, n*eachLanes)
	}
	more := ws.more[:n*eachLanes]
	cols := min(eachLanes, s.channels-vector*eachLanes)
	for l := range lines {
		if kernels.pairUp != nil {
			s.sums(ws, more, plane, line, l, vector)
		} else {
			s.plain(more, plane, line+l, vector)
		}
		ws.finish(s.end, more, eachLanes, (plane*w.Windows[1]+line+l)*n, n, vector*eachLanes, cols, s.channels)
	}
}

// at is the plane or row of elements that a tap meets, -1 where that is padding.
func (w *Window) at(d, window, tap int) int {
	at := window*w.Strides[d] + tap*w.Dilations[d] - w.Before[d]
	if at >= w.Size[d] {
		return -1
	}
	return max(at, -1)
}

// layOut lays a strip's rows out.
func (s *eachStrip) layOut(ws *workspace, plane, line, rows, vector int) {
	w, c := s.w, s.w.Channels
	image := plane / w.Windows[0]
	room := w.Kernel[0] * s.rows * s.across * eachLanes
	if cap(ws.words) < room {
		ws.words = make([]int32, room)
	}
	ws.words = ws.words[:room]
	// The last element of a row has none that its next tap meets.
	ahead := w.Dilations[2]
	some := max(0, s.across-ahead)
	for tap := range w.Kernel[0] {
		z := w.at(0, plane%w.Windows[0], tap)
		for r := range rows {
			y := line*w.Strides[1] - w.Before[1] + r*s.step
			if z < 0 || y < 0 || y >= w.Size[1] {
				continue
			}
			from := ((image*w.Size[0]+z)*w.Size[1]+y)*s.across*c + vector*eachLanes
			to := ws.words[(tap*s.rows+r)*s.across*eachLanes:][:s.across*eachLanes]
			_ = s.src[from+(s.across-1+s.ahead())*c+eachLanes-1]
			if s.some == 4 {
				kernels.quadUp(&to[0], &s.src[from], s.across, c)
				continue
			}
			if some > 0 {
				kernels.pairUp(&to[0], &s.src[from], some, c, ahead*c)
			}
			kernels.pairUp(&to[some*eachLanes], &s.src[from+some*c], s.across-some, c, 0)
		}
	}
}

// mostWords bounds what a workspace keeps.
const mostWords = 1 << 18

func (s *workspace) forget() {
	if cap(s.words) > mostWords {
		s.words = nil
	}
	if cap(s.more) > mostWords {
		s.more = nil
	}
}

// begin is what the sums of a line begin with: what rows that are padding give.
func (s *eachStrip) begin(to *[eachLanes]int32, row, vector int) {
	for j, v := range s.each.rows[(vector*s.kernel[0]*s.kernel[1]+row)*eachLanes:][:eachLanes] {
		to[j] += s.padding * v
	}
}

// sums computes a line's windows of what was laid out.
func (s *eachStrip) sums(ws *workspace, to []int32, plane, first, line, vector int) {
	w := s.w
	ws.offsets = ws.offsets[:0]
	begin := &ws.begin
	clear(begin[:])
	furthest := 0
	for z := range w.Kernel[0] {
		for y := range w.Kernel[1] {
			row := z*w.Kernel[1] + y
			if w.at(0, plane%w.Windows[0], z) < 0 || w.at(1, first+line, y) < 0 {
				s.begin(begin, row, vector)
				continue
			}
			for x := range s.perRow() {
				furthest = (z*s.rows+line*w.Strides[1]+y)*s.across + x*s.some*w.Dilations[2]
				ws.offsets = append(ws.offsets, 4*eachLanes*furthest, 4*eachLanes*(row*s.perRow()+x))
			}
		}
	}
	n := w.Windows[2]
	if len(ws.offsets) == 0 {
		for i := range n {
			copy(to[i*eachLanes:], begin[:])
		}
		return
	}
	_ = ws.words[(furthest+(n-1)*w.Strides[2])*eachLanes+eachLanes-1]
	weights := s.words[vector*eachLanes*s.taps():][:eachLanes*s.taps()]
	t := &ws.pairs
	*t = pairTile{
		src: unsafe.Pointer(&ws.words[0]), step: 4 * eachLanes * w.Strides[2], weights: unsafe.Pointer(&weights[0]),
		offsets: unsafe.Pointer(&ws.offsets[0]), taps: len(ws.offsets) / 2, dst: unsafe.Pointer(&to[0]), begin: unsafe.Pointer(begin),
	}
	of := &kernels.pairs
	if s.some == 4 {
		of = &kernels.quads
	}
	t.run(of, n)
}

// pairTile is what a kernel of pairs is called with; the generator knows the offsets.
type pairTile struct {
	src              unsafe.Pointer
	step             int // bytes from one window to the next
	weights, offsets unsafe.Pointer
	taps             int // each has an offset of elements and one of weights
	dst              unsafe.Pointer
	blocks           int            // of so many windows as the kernel has
	begin            unsafe.Pointer // what sums begin with
}

// run computes n windows. What is left of whole blocks is computed with some of the last
// one's windows again.
func (t *pairTile) run(of *pairKernels, n int) {
	src, dst := t.src, t.dst
	k := len(pairWindows) - 1
	for pairWindows[k] > n {
		k--
	}
	some := pairWindows[k]
	t.blocks = n / some
	of[k]((*byte)(unsafe.Pointer(t)))
	if n%some == 0 {
		return
	}
	t.src, t.dst, t.blocks = unsafe.Add(src, (n-some)*t.step), unsafe.Add(dst, (n-some)*4*eachLanes), 1
	of[k]((*byte)(unsafe.Pointer(t)))
}

// pairWindows are how many windows the kernels compute at once.
var pairWindows = [...]int{1, 4, 8}

// pairKernels are by pairWindows.
type pairKernels [len(pairWindows)]func(*byte)

// plain computes a line in plain Go.
func (s *eachStrip) plain(to []int32, plane, line, vector int) {
	w, c := s.w, s.w.Channels
	image, n := plane/w.Windows[0], w.Windows[2]
	weights := s.words[vector*eachLanes*s.taps():]
	cols := min(eachLanes, s.channels-vector*eachLanes)
	var begin [eachLanes]int32
	clear(to)
	for tap := range volumeOf(w.Kernel) {
		row, x := tap/w.Kernel[2], tap%w.Kernel[2]
		z, y := w.at(0, plane%w.Windows[0], row/w.Kernel[1]), w.at(1, line, row%w.Kernel[1])
		if z < 0 || y < 0 {
			if x == 0 {
				s.begin(&begin, row, vector)
			}
			continue
		}
		words := weights[(row*s.perRow()+x/s.some)*eachLanes:][:eachLanes]
		for i := range n {
			src := s.src[(((image*w.Size[0]+z)*w.Size[1]+y)*s.across+i*w.Strides[2]+x*w.Dilations[2])*c+vector*eachLanes:]
			for j, v := range src[:cols] {
				to[i*eachLanes+j] += int32(v) * int32(int16(words[j]>>(16*(x%2))))
			}
		}
	}
	for i := range n {
		for j, v := range begin {
			to[i*eachLanes+j] += v
		}
	}
}
