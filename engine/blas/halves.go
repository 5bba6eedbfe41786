package blas

import (
	"unsafe"

	"github.com/pellucid/pellucid/engine/vector"
)

// PackHalves is Pack for a matrix in 16 bits, which stays in them: panels are made floats
// where and when they are read, as those of bytes are. Its products have the bits of those
// of the float32 matrix. The caller must not change b afterwards.
func PackHalves(transB bool, k, n int, b []uint16, ldb int, p vector.Precision) *Packed[float32] {
	checkSize(0, n, k)
	checkMatrix("B", transB, k, n, len(b), ldb)
	s := machine[float32]()
	if s == nil {
		return &Packed[float32]{k: k, n: n, narrow: &narrow{trans: transB, ldb: ldb, halves: b, precision: p}}
	}
	width := s.width()
	all := (n + width - 1) / width * width
	to := make([]uint16, k*all)
	for down := (span{0, k}); down.len() > 0; {
		var block span
		block, down = down.next(depth)
		for at := 0; at < n; at += width {
			panel, columns := to[block.from*all+at*block.len():], min(width, n-at)
			for l := range block.len() {
				row := panel[l*width:][:columns]
				if !transB {
					copy(row, b[(block.from+l)*ldb+at:])
					continue
				}
				for j := range row {
					row[j] = b[(at+j)*ldb+block.from+l]
				}
			}
		}
	}
	return &Packed[float32]{k: k, n: n, bytes: &bytePanels{halves: to, precision: p, width: width}}
}

// widenHalves makes floats of the panel of a block that begins at a column.
func (b *bytePanels) widenHalves(to *byte, n int, block span, column int) {
	all := (n + b.width - 1) / b.width * b.width
	from := b.halves[block.from*all+column*block.len():][:b.width*block.len()]
	vector.Widen(b.precision, unsafe.Slice((*float32)(unsafe.Pointer(to)), len(from)), from)
}
