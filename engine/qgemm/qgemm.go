// Package qgemm multiplies matrices of bytes: unsigned ones on the left, signed ones on
// the right, which are laid out once, with sums in 32 bits; slides windows over images of
// bytes whose channels lie last; and has the loops between floats and bytes. By AVX-512
// with VNNI or by AVX2 where the processor has them, and in plain Go elsewhere (other
// processors, and the build tags noasm and purego).
//
// Invariants: sums are exact modulo 2^32, so their bits depend on no order, thread or
// kernel; nothing saturates on the way. What is made of sums and what is rounded is
// computed in float32 step by step, without fused operations: all forms give the same
// bits.
//
// Operands of other signs are the callers' to shift: x and its zero point both plus or
// less 128 are as far from each other.
package qgemm

import (
	"runtime"
	"sync"
	"unsafe"
)

// group is how many bytes are multiplied and summed at once.
const group = 4

// Rounded is n rounded up to whole groups: what a run takes.
func Rounded(n int) int { return (n + group - 1) / group * group }

// Weights is a right operand that was laid out. It is immutable and safe for concurrent
// use.
type Weights struct {
	m *machine
	// n is how many columns it has. Its rows are runs of so many groups each.
	n, runs, groups int
	// length is how many bytes of a run are no filling.
	length int
	panels []int8
	sums   []int32
}

// Pack lays out n columns whose rows are runs of length bytes each, of which at gives
// one. Runs are filled up with zeros to whole groups.
func Pack(n, runs, length int, at func(run, i, col int) int8) *Weights {
	if n < 0 || runs < 1 || length < 0 {
		panic("qgemm: a negative size")
	}
	m := kernels
	w := &Weights{m: m, n: n, runs: runs, groups: Rounded(length) / group, length: length, sums: make([]int32, n)}
	w.panels = make([]int8, w.groups*runs*group*m.rounded(n))
	for first := 0; first < n; first += m.width() {
		some := min(m.width(), n-first)
		wide := m.rounded(some) * group
		panel := w.panels[w.groups*runs*group*first:]
		for j := range some {
			for r := range runs {
				for i := range length {
					v := at(r, i, first+j)
					panel[(r*w.groups+i/group)*wide+j*group+i%group] = v
					w.sums[first+j] += int32(v)
				}
			}
		}
	}
	return w
}

// PackMatrix lays out op(b), which is k x n, in one run.
func PackMatrix(transB bool, k, n int, b []int8) *Weights {
	if len(b) != k*n {
		panic("qgemm: a matrix of another size")
	}
	return Pack(n, 1, k, func(_, i, col int) int8 {
		if transB {
			return b[col*k+i]
		}
		return b[i*n+col]
	})
}

// Bytes is what Pack lays out at most for so many columns and rows.
func Bytes(n, rows int) int64 {
	const columns = 16 // of the narrowest panel, at most
	return (int64(n)+columns-1)/columns*columns*(int64(rows)+group-1) + 4*int64(n)
}

// Sums are those of the columns.
func (w *Weights) Sums() []int32 { return w.sums }

// Columns is how many there are.
func (w *Weights) Columns() int { return w.n }

// Depth is how many bytes a row of the left operand has, in all its runs.
func (w *Weights) Depth() int { return w.runs * w.groups * group }

// Left is the left operand: rows of runs, which may overlap.
type Left struct {
	Src  []uint8
	Rows int
	// Row i is number i%Across on line i/Across%Lines of plane i/Across/Lines%Planes of an
	// image.
	Across, Lines, Planes               int
	PerRow, PerLine, PerPlane, PerImage int
	// Offsets are where the runs are, from the beginning of a row.
	Offsets []int
}

// Matrix is the left operand that is m rows of depth bytes, which is a whole number of
// groups.
func Matrix(src []uint8, m, depth int) Left {
	return Left{Src: src, Rows: m, Across: max(m, 1), Lines: 1, Planes: 1, PerRow: depth, Offsets: origin}
}

var origin = []int{0}

func (a *Left) row(i int) int {
	line := i / a.Across
	plane := line / a.Lines
	return i%a.Across*a.PerRow + line%a.Lines*a.PerLine + plane%a.Planes*a.PerPlane + plane/a.Planes*a.PerImage
}

// pointers are to the rows from one on.
func (a *Left) pointers(to []unsafe.Pointer, from int) {
	for i := 0; i < len(to); {
		// Those of a line lie evenly.
		at, n := a.row(from+i), min(a.Across-(from+i)%a.Across, len(to)-i)
		first := unsafe.Pointer(unsafe.SliceData(a.Src[at : at+(n-1)*a.PerRow]))
		for k := range n {
			to[i+k] = unsafe.Add(first, k*a.PerRow)
		}
		i += n
	}
}

// check panics where a row reaches out of the source.
func (a *Left) check(w *Weights) {
	if a.Rows < 0 || a.Across < 1 || a.Lines < 1 || a.Planes < 1 || len(a.Offsets) != w.runs || a.PerRow < 0 || a.PerLine < 0 || a.PerPlane < 0 || a.PerImage < 0 {
		panic("qgemm: rows of another form than the weights")
	}
	if a.Rows == 0 {
		return
	}
	lines, planes := (a.Rows-1)/a.Across, (a.Rows-1)/a.Across/a.Lines
	last := min(a.Across-1, a.Rows-1)*a.PerRow + min(a.Lines-1, lines)*a.PerLine + min(a.Planes-1, planes)*a.PerPlane + planes/a.Planes*a.PerImage
	for _, o := range a.Offsets {
		if o < 0 || last+o+w.groups*group > len(a.Src) {
			panic("qgemm: rows that reach out of their source")
		}
	}
}

// Finish is what becomes of the sums: (sum + Whole) Scale + Shift of each column, kept
// between Low and High, goes to Floats, or, rounded and with Zero added, to Bytes; or
// the sum + Whole to Sums. Rows lie one after the other there.
type Finish struct {
	Whole        []int32
	Scale, Shift []float32
	Low, High    float32
	Zero         int32
	Floats       []float32
	Bytes        []uint8
	Sums         []int32
	// Zeros, where there are any, are taken from the weights of each column.
	Zeros []int32
	// Then is called for pieces of rows of Floats that are done.
	Then func(row, col int, v []float32)
	// The columns are those from first on of rows of wide ones, where that is not 0.
	first, wide int
}

// rowOf is how many columns the result has that has n of these.
func (f *Finish) rowOf(n int) int {
	if f.wide > 0 {
		return f.wide
	}
	return n
}

func (f *Finish) check(n, rows int) {
	size := max(len(f.Floats), len(f.Bytes), len(f.Sums))
	if size != f.rowOf(n)*rows || f.first+n > f.rowOf(n) || len(f.Whole) != n || f.Sums == nil && (len(f.Scale) != n || len(f.Shift) != n) || f.Zeros != nil && len(f.Zeros) != n {
		panic("qgemm: a result of another size")
	}
}

// stripRows is how many rows are worked on at once: their sums of a panel stay in the
// first level of the cache. A panel is read for several strips one after the other, up to
// mostStrips and as long as new bytes of their rows are few enough for the second level.
const (
	stripRows  = 96
	mostStrips = 16
	stripsSize = 256 << 10
)

// tile is what a kernel of products is called with; the generator knows the offsets.
type tile struct {
	rows, b, c           unsafe.Pointer
	stride, groups, runs int
	offsets              unsafe.Pointer
}

// block is what a kernel of results is called with; the generator knows the offsets.
type block struct {
	sums                unsafe.Pointer
	sumStride           int
	whole, scale, shift unsafe.Pointer
	out                 unsafe.Pointer
	outStride           int
	lines, cols         int
	low, high           float32
	zero                int32
}

// most is the width of the widest panel.
const most = 64

// workspace is the scratch memory of one thread.
type workspace struct {
	tile  tile
	block block
	rows  [mostStrips * stripRows]unsafe.Pointer
	sums  [stripRows * most]int32
	// of the columns of a panel, filled up.
	whole        [most]int32
	scale, shift [most]float32
	// words are elements laid out for filters of each channel by itself, more the sums of
	// those, offsets where taps are.
	words, more []int32
	offsets     []int
	line        []uint8 // of a pool
	pairs       pairTile
	begin       [eachLanes]int32
	strip       eachStrip
	left        Left
	part        Finish
	params      [8]float32
	ends        [2 * 16]float32
}

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

func borrow() *workspace { return workspaces.Get().(*workspace) }

// release gives the workspace back without holding on to anybody's matrices.
func (s *workspace) release() {
	s.tile, s.block, s.pairs, s.left, s.part = tile{}, block{}, pairTile{}, Left{}, Finish{}
	s.strip = eachStrip{}
	workspaces.Put(s)
}

// leastWork is how many products a part must have to be worth a thread.
const leastWork = 1 << 23

// Multiply computes the product on up to threads threads.
func (w *Weights) Multiply(threads int, a *Left, f *Finish) {
	a.check(w)
	f.check(w.n, a.Rows)
	if a.Rows == 0 || w.n == 0 {
		return
	}
	most := min(max(stripsSize/(max(a.PerRow, 1)*stripRows), 1), mostStrips) * stripRows
	panels := (w.n + w.m.width() - 1) / w.m.width()
	work := float64(a.Rows) * float64(w.n) * float64(w.Depth()) / leastWork
	threads = min(threads, runtime.GOMAXPROCS(0), int(work))
	if threads > 1 {
		most = min(most, max((a.Rows/threads+stripRows-1)/stripRows, 1)*stripRows)
	}
	strips, across := (a.Rows+most-1)/most, 1
	if threads > 1 && strips < 2*threads {
		across = min(panels, threads)
	}
	p := product{w, a, f, most, panels, across}
	if threads < 2 {
		for part := range strips * across {
			p.part(part)
		}
		return
	}
	j := newJob()
	j.product = p
	j.run(threads, strips*across, j.products)
}

// product is what Multiply computes in parts, of most rows at most and a share of the panels
// each, of which there are so many across.
type product struct {
	w                    *Weights
	a                    *Left
	f                    *Finish
	most, panels, across int
}

func (m *product) part(part int) {
	s := borrow()
	defer s.release()
	from, p := part/m.across*m.most, part%m.across
	rows := min(m.most, m.a.Rows-from)
	m.a.pointers(s.rows[:rows], from)
	for q := m.panels * p / m.across; q < m.panels*(p+1)/m.across; q++ {
		for done := 0; done < rows; done += stripRows {
			s.panel(m.w, m.a, m.f, from+done, s.rows[done:min(done+stripRows, rows)], q)
		}
	}
	clear(s.rows[:rows])
}

// panel computes the rows of a strip, which begins with row from, and the columns of one
// panel.
func (s *workspace) panel(w *Weights, a *Left, f *Finish, from int, pointers []unsafe.Pointer, q int) {
	rows := len(pointers)
	m := w.m
	col := q * m.width()
	cols := min(m.width(), w.n-col)
	vecs := m.rounded(cols) / m.lanes
	wide := vecs * m.lanes
	depth := w.Depth()
	if depth == 0 {
		clear(s.sums[:rows*wide])
	} else {
		s.tile = tile{b: unsafe.Pointer(&w.panels[depth*col]), stride: 4 * wide, groups: w.groups, runs: w.runs, offsets: unsafe.Pointer(&a.Offsets[0])}
		for i := 0; i < rows; i += m.rows {
			s.tile.rows, s.tile.c = unsafe.Pointer(&pointers[i]), unsafe.Pointer(&s.sums[i*wide])
			if some := min(m.rows, rows-i); m.dots != nil {
				m.dots[some][vecs]((*byte)(unsafe.Pointer(&s.tile)))
			} else {
				s.plain(w, a, from+i, some, q)
			}
		}
	}
	if f.Zeros != nil {
		s.less(w, a, f, from, rows, col, cols, wide)
	}
	s.finish(f, s.sums[:rows*wide], wide, from, rows, col, cols, w.n)
}

// less takes the columns' zeros, times the sum of its row, from each sum.
func (s *workspace) less(w *Weights, a *Left, f *Finish, from, rows, col, cols, wide int) {
	for i := range rows {
		at, sum := a.row(from+i), int32(0)
		for _, o := range a.Offsets {
			for _, v := range a.Src[at+o:][:w.length] {
				sum += int32(v)
			}
		}
		line := s.sums[i*wide:][:cols]
		for j, z := range f.Zeros[col : col+cols] {
			line[j] -= sum * z
		}
	}
}

// finish makes results of the sums of rows, stride apart, of n columns of which these are
// cols from col on.
func (s *workspace) finish(f *Finish, sums []int32, stride, row, rows, col, cols, n int) {
	n = f.rowOf(n)
	if f.Sums != nil {
		for i := range rows {
			line, out := sums[i*stride:][:cols], f.Sums[(row+i)*n+f.first+col:][:cols]
			for j, v := range f.Whole[col : col+cols] {
				out[j] = line[j] + v
			}
		}
		return
	}
	whole := cols
	if kernels.finishBytes == nil {
		whole = 0
	} else if !kernels.masked {
		whole = cols / kernels.lanes * kernels.lanes
	}
	if whole > 0 {
		s.kernel(f, sums, stride, row, rows, col, whole, n)
	}
	if whole < cols {
		f.plain(sums[whole:], stride, row, rows, col+whole, cols-whole, n)
	}
	if f.Then != nil {
		for i := range rows {
			f.Then(row+i, f.first+col, f.Floats[(row+i)*n+f.first+col:][:cols])
		}
	}
}

// kernel is finish by a kernel, which reads whole vectors.
func (s *workspace) kernel(f *Finish, sums []int32, stride, row, rows, col, cols, n int) {
	lanes := kernels.lanes
	for done := 0; done < cols; {
		some := min(most, cols-done)
		at := col + done
		b := &s.block
		*b = block{
			sums: unsafe.Pointer(&sums[done]), sumStride: 4 * stride, lines: rows, cols: some, low: f.Low, high: f.High, zero: f.Zero,
			whole: unsafe.Pointer(&f.Whole[at]), scale: unsafe.Pointer(&f.Scale[at]), shift: unsafe.Pointer(&f.Shift[at]), outStride: n,
		}
		if some%lanes != 0 {
			copy(s.whole[:], f.Whole[at:at+some])
			copy(s.scale[:], f.Scale[at:at+some])
			copy(s.shift[:], f.Shift[at:at+some])
			b.whole, b.scale, b.shift = unsafe.Pointer(&s.whole), unsafe.Pointer(&s.scale), unsafe.Pointer(&s.shift)
		}
		if f.Floats != nil {
			b.out, b.outStride = unsafe.Pointer(&f.Floats[row*n+f.first+at]), 4*n
			kernels.finishFloats((*byte)(unsafe.Pointer(b)))
		} else {
			b.out = unsafe.Pointer(&f.Bytes[row*n+f.first+at])
			kernels.finishBytes((*byte)(unsafe.Pointer(b)))
		}
		done += some
	}
}

// plain is finish in plain Go.
func (f *Finish) plain(sums []int32, stride, row, rows, col, cols, n int) {
	for i := range rows {
		for j := range cols {
			v := float32(float32(sums[i*stride+j]+f.Whole[col+j]) * f.Scale[col+j])
			v = kept(v+f.Shift[col+j], f.Low, f.High)
			if f.Floats != nil {
				f.Floats[(row+i)*n+f.first+col+j] = v
			} else {
				f.Bytes[(row+i)*n+f.first+col+j] = uint8(nearest(v) + f.Zero)
			}
		}
	}
}

// plain computes the sums of a tile in plain Go.
func (s *workspace) plain(w *Weights, a *Left, row, rows, q int) {
	wide := s.tile.stride / 4
	panel := w.panels[w.Depth()*q*w.m.width():]
	c := unsafe.Slice((*int32)(s.tile.c), rows*wide)
	for i := range rows {
		line := c[i*wide:][:wide]
		clear(line)
		at := a.row(row + i)
		for r, o := range a.Offsets {
			for g := range w.groups {
				x := a.Src[at+o+g*group:][:group]
				b := panel[(r*w.groups+g)*wide*group:][:wide*group]
				for j := range line {
					b := b[j*group:][:group]
					line[j] += int32(x[0])*int32(b[0]) + int32(x[1])*int32(b[1]) + int32(x[2])*int32(b[2]) + int32(x[3])*int32(b[3])
				}
			}
		}
	}
}
