package blas

import (
	"sync"
	"unsafe"
)

// The blocks of a product. depth products are summed before they go to c, which
// is part of what a result's bits are, so it cannot follow the processor's caches;
// the rest only decides what stays in which of them: blockRows of a in the second
// level, blockCols of b there or in the third. Measured on Zen 5: a depth of 512
// is 1 to 4 % faster than 256 although a panel of b, of 64 KiB, then comes from
// the second level.
const (
	depth     = 512
	blockRows = 192
	blockCols = 1024
	// directTiles is up to how many tiles of rows b is read where it lies: laying it
	// out would take longer than it saves.
	directTiles = 12
	// thenColumns is how many columns are finished at once: calls for fewer would cost
	// more than the second level of the cache does.
	thenColumns = 256
	// rowPad keeps copied rows of a in different sets of the first level.
	rowPad = 16
	// kernelRows bounds the rows of a kernel, kernelVectors its vectors.
	kernelRows, kernelVectors = 14, 8
	// tableLanes is the length of the longest mask of a kernel of AVX2.
	tableLanes = 16
)

// product is c = alpha op(a) op(b) + beta c.
type product[T Float] struct {
	m, n, k        int
	alpha, beta    T
	a, b, c        []T
	lda, ldb, ldc  int
	transA, transB bool
	// panels is b laid out by packAll; b is nil then.
	panels []T
	// bytes is b in 8 bits; b and panels are nil then.
	bytes *bytePanels
	// narrow is b where that is in 8 or 16 bits and there are no kernels; the others are nil then.
	narrow *narrow
	// then is called for each piece of a row of c that is done, nil for nobody.
	then func(row, col int, c []T)
}

// finish calls then for a part of c that is done, which is in the caches still.
func (p *product[T]) finish(rows, cols span) {
	for i := rows.from; p.then != nil && i < rows.to; i++ {
		p.then(i, cols.from, p.c[i*p.ldc+cols.from:i*p.ldc+cols.to])
	}
}

// kernels are by rows and vectors; where there is none there is nil.
type kernels [kernelRows + 1][kernelVectors + 1]func(*byte)

// arch is what a processor has for an element type.
type arch struct {
	// vector is the elements of a register, rows how many rows a kernel can have.
	vector, rows int
	kernels      *kernels
	// masked says that kernels read no more of b than its mask has.
	masked bool
	// copyRows copies k rows of two vectors.
	copyRows func(to, from *byte, stride, k int)
	// transpose turns vector rows, stride apart, into columns.
	transpose func(to, from *byte, columns, stride, blocks int)
	// transpose4 turns blocks of 4 x 4, a step apart; of float32 only.
	transpose4 func(to, from *byte, toStride, fromStride, toStep, fromStep, blocks int)
	// widen makes rows of a panel out of bytes; of float32 only.
	widen func(to, from, scale, zero *byte, k int)
	// widenHalf is widen out of bytes that have one column's code in their low four bits, and
	// in the others that of the column half a panel on.
	widenHalf func(to, from, scale, zero *byte, k int)
}

// width is how many columns of b a panel has.
func (s *arch) width() int { return 2 * s.vector }

// tile is what a kernel is called with; the generator knows the offsets.
type tile[T Float] struct {
	a      unsafe.Pointer
	rs, ks uintptr // bytes between rows of a, and between its products
	b      unsafe.Pointer
	bs, bp uintptr // bytes between products of b, and between its panels
	c      unsafe.Pointer
	cs, k  uintptr
	// mask has a bit for each column of c; table is the same for AVX2, nil where
	// all columns are there.
	mask  uint64
	table unsafe.Pointer
	// next is what the loop fetches into the second level, the row of a panel for
	// each product, and ns the bytes between them.
	next        unsafe.Pointer
	ns          uintptr
	alpha, beta T
}

// workspace is the scratch memory of one thread.
type workspace[T Float] struct {
	tile   tile[T]
	a, b   []T
	square square[T]
	// As many ones as zeros: from somewhere on, they are a mask.
	masks32 [2 * tableLanes]int32
	masks64 [2 * tableLanes]int64
}

func newWorkspace[T Float]() *workspace[T] {
	w := &workspace[T]{}
	for i := range tableLanes {
		w.masks32[i], w.masks64[i] = -1, -1
	}
	return w
}

var (
	workspaces32 = sync.Pool{New: func() any { return newWorkspace[float32]() }}
	workspaces64 = sync.Pool{New: func() any { return newWorkspace[float64]() }}
)

func pool[T Float]() *sync.Pool {
	if size[T]() == 4 {
		return &workspaces32
	}
	return &workspaces64
}

func size[T Float]() int {
	var t T
	return int(unsafe.Sizeof(t))
}

func gemm[T Float](threads int, p product[T]) {
	if p.m == 0 || p.n == 0 {
		return
	}
	if p.k == 0 || p.alpha == 0 {
		scale(&p)
		p.finish(span{0, p.m}, span{0, p.n})
		return
	}
	s := machine[T]()
	if s == nil {
		if p.narrow != nil {
			gemmNarrow(&p)
		} else {
			gemmGonum(&p)
		}
		p.finish(span{0, p.m}, span{0, p.n})
		return
	}
	if p.n == 1 && p.transB && p.panels == nil && p.bytes == nil {
		p.transB, p.ldb = false, 1
	}
	if p.n == 1 && p.ldc == 1 && p.panels == nil && p.bytes == nil && p.then == nil && p.m > 1 {
		// A column is a row of the transposed product, which has vectors.
		p.m, p.n, p.ldc = 1, p.m, p.m
		p.a, p.b, p.lda, p.ldb = p.b, p.a, p.ldb, p.lda
		p.transA, p.transB = !p.transB, !p.transA
	}
	if threads > 1 && parallel(s, threads, &p) {
		return
	}
	w := pool[T]().Get().(*workspace[T])
	w.run(s, &p, span{0, p.m}, span{0, p.n})
	w.release()
}

// release gives the workspace back without holding on to anybody's matrices.
func (w *workspace[T]) release() {
	w.tile = tile[T]{}
	pool[T]().Put(w)
}

// scale is c = beta c.
func scale[T Float](p *product[T]) {
	for i := range p.m {
		row := p.c[i*p.ldc:][:p.n]
		if p.beta == 0 {
			clear(row)
			continue
		}
		for j := range row {
			row[j] *= p.beta
		}
	}
}

// span is from up to, but without, to.
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

// next cuts the first step off s.
func (s span) next(step int) (head, tail span) {
	cut := min(s.from+step, s.to)
	return span{s.from, cut}, span{cut, s.to}
}

// run computes rows x cols of c. cols begins with a panel.
func (w *workspace[T]) run(s *arch, p *product[T], rows, cols span) {
	height := tileRows(rows.len(), s.rows)
	for cols.len() > 0 {
		var across span
		across, cols = cols.next(blockCols)
		for down := (span{0, p.k}); down.len() > 0; {
			var block span
			block, down = down.next(depth)
			w.tile.k = uintptr(block.len())
			w.tile.alpha, w.tile.beta = p.alpha, 1
			if block.from == 0 {
				w.tile.beta = p.beta
			}
			b := w.panelsOf(s, p, block, across, rows.len() > directTiles*s.rows)
			for left := rows; left.len() > 0; b.pack = false {
				var some span
				some, left = left.next(blockRows / height * height)
				step := w.rowsOf(p, block, some, height, across.len()/s.width())
				w.tiles(s, p, &b, some, height, step)
			}
		}
	}
}

// tileRows is how many rows each kernel call gets: as even as can be, since
// those of few rows wait for their sums.
func tileRows(rows, most int) int {
	calls := (rows + most - 1) / most
	return (rows + calls - 1) / calls
}

// panels says where a block of b lies, and how it comes there.
type panels struct {
	block, cols span
	// The panels of width columns lie panel bytes apart, their products stride. The
	// last, narrower one may lie elsewhere.
	first, last               unsafe.Pointer
	panel, stride, lastStride uintptr
	// pack says that the panels are still to be laid out, each before its first tile.
	pack bool
	// source is where the next panels will be read first, nil where that is not in
	// rows as kernels read them.
	source                    unsafe.Pointer
	sourcePanel, sourceStride uintptr
}

// columns are those of panel q.
func (b *panels) columns(q, width int) span {
	return span{b.cols.from + q*width, min(b.cols.from+(q+1)*width, b.cols.to)}
}

// panelsOf chooses where a block of b is read: from p.panels, in place where few
// tiles read it, or from w.b.
func (w *workspace[T]) panelsOf(s *arch, p *product[T], block, cols span, pack bool) panels {
	width, size := s.width(), uintptr(size[T]())
	whole, count := cols.len()/width, (cols.len()+width-1)/width
	step := uintptr(width) * size
	b := panels{block: block, cols: cols, panel: uintptr(block.len()) * step, stride: step}
	direct := false
	switch {
	case p.panels != nil:
		all := (p.n + width - 1) / width * width
		b.first = unsafe.Pointer(&p.panels[block.from*all+cols.from*block.len()])
		b.source, b.sourcePanel, b.sourceStride = b.first, b.panel, b.stride
	case pack || p.transB || p.bytes != nil:
		w.b = grown(w.b, count*width*block.len())
		b.first, b.pack = unsafe.Pointer(&w.b[0]), true
	default:
		b.first = unsafe.Pointer(&p.b[block.from*p.ldb+cols.from])
		b.panel, b.stride, direct = step, uintptr(p.ldb)*size, true
	}
	if p.panels == nil && !p.transB && p.bytes == nil {
		b.source = unsafe.Pointer(&p.b[block.from*p.ldb+cols.from])
		b.sourcePanel, b.sourceStride = step, uintptr(p.ldb)*size
	}
	b.last = unsafe.Add(b.first, uintptr(count-1)*b.panel)
	b.lastStride = b.stride
	if direct && whole < count && !s.masked {
		w.b = grown(w.b, width*block.len())
		packPanel(s, p, &w.square, w.b, block, b.columns(whole, width))
		b.last, b.lastStride = unsafe.Pointer(&w.b[0]), step
	}
	return b
}

// grown is s with room for n elements, whatever they are.
func grown[T Float](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:cap(s)]
}

// The panels that have to read a block of a before a copy of it is worth making: of rows
// that would fight for the same set of the first level, and of columns. Rows that share
// every second set or fourth are read as fast where they lie.
const (
	panelsOfRows    = 16
	panelsOfColumns = 4
	oneSet          = 4096
)

// rowsOf sets where the kernels find a block of a that so many panels read: in place, or
// copied. It returns the bytes from one tile to the next.
func (w *workspace[T]) rowsOf(p *product[T], block, rows span, height, panels int) uintptr {
	size := uintptr(size[T]())
	w.tile.rs, w.tile.ks = uintptr(p.lda)*size, size
	if !p.transA {
		w.tile.a = unsafe.Pointer(&p.a[rows.from*p.lda+block.from])
		if panels <= panelsOfRows || rows.len() == 1 || w.tile.rs%oneSet != 0 {
			return uintptr(height) * w.tile.rs
		}
		w.a = grown(w.a, blockRows*(depth+rowPad))
		for i := range rows.len() {
			copy(w.a[i*(depth+rowPad):], p.a[(rows.from+i)*p.lda+block.from:][:block.len()])
		}
		w.tile.a, w.tile.rs = unsafe.Pointer(&w.a[0]), (depth+rowPad)*size
		return uintptr(height) * w.tile.rs
	}
	w.tile.rs, w.tile.ks = size, uintptr(p.lda)*size
	w.tile.a = unsafe.Pointer(&p.a[block.from*p.lda+rows.from])
	if panels <= panelsOfColumns || rows.len() == 1 {
		return uintptr(height) * size
	}
	// Tiles one after the other, each by products.
	w.a = grown(w.a, blockRows*(depth+rowPad))
	to := w.a
	for left := rows; left.len() > 0; {
		var some span
		some, left = left.next(height)
		for l := block.from; l < block.to; l++ {
			copy(to[:height], p.a[l*p.lda+some.from:l*p.lda+some.to])
			to = to[height:]
		}
	}
	w.tile.a, w.tile.ks = unsafe.Pointer(&w.a[0]), uintptr(height)*size
	return w.tile.ks * w.tile.k
}

// tiles calls the kernels for rows of c and the columns of b, whose tiles of a are
// step bytes apart.
func (w *workspace[T]) tiles(s *arch, p *product[T], b *panels, rows span, height int, step uintptr) {
	t, size, width := &w.tile, uintptr(size[T]()), s.width()
	t.cs, t.bp = uintptr(p.ldc)*size, b.panel
	whole, count := b.cols.len()/width, (b.cols.len()+width-1)/width
	first, done := t.a, b.cols.from
	for q := 0; q < count; {
		vecs, columns := 2, width
		t.b, t.bs, t.mask, t.table = unsafe.Add(b.first, uintptr(q)*b.panel), b.stride, 1<<width-1, nil
		switch {
		case q+4 <= whole && s.kernels[height][8] != nil:
			vecs, columns = 8, 4*width
		case q+2 <= whole && s.kernels[height][4] != nil:
			vecs, columns = 4, 2*width
		case q == whole:
			columns = b.cols.len() - q*width
			vecs = (columns + s.vector - 1) / s.vector
			t.b, t.bs, t.mask, t.table = b.last, b.lastStride, 1<<columns-1, w.maskOf(s, columns, vecs)
		}
		column, end := b.cols.from+q*width, q+(columns+width-1)/width
		for ; b.pack && q < end; q++ {
			to := w.b[q*width*b.block.len():]
			if p.bytes != nil {
				p.bytes.widen(s, bytes(to), p.n, b.block, b.cols.from+q*width)
				continue
			}
			packPanel(s, p, &w.square, to, b.block, b.columns(q, width))
		}
		t.next, t.ns = t.b, t.bs
		if b.source != nil && end < whole {
			t.next, t.ns = unsafe.Add(b.source, uintptr(end)*b.sourcePanel), b.sourceStride
		}
		t.a = first
		for left := rows; ; t.a = unsafe.Add(t.a, step) {
			var some span
			some, left = left.next(height)
			t.c = unsafe.Pointer(&p.c[some.from*p.ldc+column])
			s.kernels[some.len()][vecs]((*byte)(unsafe.Pointer(t)))
			if left.len() == 0 {
				break
			}
		}
		q = end
		if after := column + columns; b.block.to == p.k && (after-done >= thenColumns || q >= count) {
			p.finish(rows, span{done, after})
			done = after
		}
	}
	t.a = first
}

// maskOf is the mask of AVX2 for columns of vecs vectors, nil for all.
func (w *workspace[T]) maskOf(s *arch, columns, vecs int) unsafe.Pointer {
	switch {
	case s.masked || columns == vecs*s.vector:
		return nil
	case size[T]() == 4:
		return unsafe.Pointer(&w.masks32[tableLanes-columns])
	default:
		return unsafe.Pointer(&w.masks64[tableLanes-columns])
	}
}
