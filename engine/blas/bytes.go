package blas

import (
	"unsafe"

	"github.com/pellucid/pellucid/engine/vector"
)

// bytePanels is a matrix in 8 bits, laid out as packAll lays out one of floats: an
// element is a byte less the zero, times the scale of its column. Panels are made floats
// where and when they are read, into the memory of a thread, so that the matrix takes a
// quarter of what it would.
type bytePanels struct {
	panels []int8
	// scale and zero are of each column, with zeros up to a whole panel.
	scale, zero []float32
	width       int
	// groups is the matrix where its scales are of groups of rows; nothing else is set then.
	groups *groupPanels
	// halves are the panels of a matrix in 16 bits; the others are nil then.
	halves    []uint16
	precision vector.Precision
}

// PackBytes lays out op(b), which is k x n, of elements (b - zero) scale with a scale
// and a zero for each column, in k bytes a column with n rounded up to 32 at most. Its
// products have the bits of those of the float32 matrix. The caller must not change what it
// gives afterwards.
func PackBytes(transB bool, k, n int, b []int8, ldb int, scale, zero []float32) *Packed[float32] {
	checkSize(0, n, k)
	checkMatrix("B", transB, k, n, len(b), ldb)
	if len(scale) != n || len(zero) != n {
		panic("blas: not as many scales and zeros as columns")
	}
	s := machine[float32]()
	if s == nil {
		return &Packed[float32]{k: k, n: n, narrow: &narrow{trans: transB, ldb: ldb, codes: b, scale: scale, zero: zero}}
	}
	at := func(l, j int) int {
		if transB {
			return j*ldb + l
		}
		return l*ldb + j
	}
	width := s.width()
	all := (n + width - 1) / width * width
	p := &bytePanels{panels: make([]int8, k*all), scale: make([]float32, all), zero: make([]float32, all), width: width}
	copy(p.scale, scale)
	copy(p.zero, zero)
	for down := (span{0, k}); down.len() > 0; {
		var block span
		block, down = down.next(depth)
		for l := block.from; l < block.to; l++ {
			for j := range n {
				p.panels[block.from*all+(j-j%width)*block.len()+(l-block.from)*width+j%width] = b[at(l, j)]
			}
		}
	}
	return &Packed[float32]{k: k, n: n, bytes: p}
}

// widen makes floats of the panel of a block that begins at a column.
func (b *bytePanels) widen(s *arch, to *byte, n int, block span, column int) {
	switch {
	case b.groups != nil:
		b.groups.widen(s, to, block, column)
		return
	case b.halves != nil:
		b.widenHalves(to, n, block, column)
		return
	}
	all := (n + b.width - 1) / b.width * b.width
	from := b.panels[block.from*all+column*block.len():][:b.width*block.len()]
	s.widen(to, (*byte)(unsafe.Pointer(&from[0])), bytes(b.scale[column:]), bytes(b.zero[column:]), block.len())
}
