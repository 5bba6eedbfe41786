package blas

import (
	"sync"

	"github.com/pellucid/pellucid/engine/vector"
)

// narrowColumns is how many columns of a narrow matrix are made floats at once. The last ones
// are up to twice as many, so that gonum takes each piece in the way it takes the whole: its
// sums are of blocks where there are four and more of 64 x 64.
const narrowColumns = 256

// narrow is a matrix in 8 or 16 bits as it was given, where there are no kernels to lay it out
// for. Its columns are made floats some at a time, for each product anew.
type narrow struct {
	trans bool
	ldb   int
	codes []int8
	// scale and zero are of each column of codes.
	scale, zero []float32
	// halves is the matrix in 16 bits; the others are nil then.
	halves    []uint16
	precision vector.Precision
}

// widen makes floats of columns, as a matrix of the same order without gaps, and returns its
// leading dimension.
func (w *narrow) widen(to []float32, k int, columns span) (ld int) {
	rows, each, from := k, columns.len(), columns.from
	if w.trans {
		rows, each, from = columns.len(), k, columns.from*w.ldb
	}
	for i := range rows {
		row, at := to[i*each:][:each], from+i*w.ldb
		switch {
		case w.halves != nil:
			vector.Widen(w.precision, row, w.halves[at:][:each])
		case w.trans:
			scale, zero := w.scale[columns.from+i], w.zero[columns.from+i]
			for j, code := range w.codes[at:][:each] {
				row[j] = (float32(code) - zero) * scale
			}
		default:
			scale, zero := w.scale[columns.from:columns.to], w.zero[columns.from:columns.to]
			for j, code := range w.codes[at:][:each] {
				row[j] = (float32(code) - zero[j]) * scale[j]
			}
		}
	}
	return each
}

var narrowRooms = sync.Pool{New: func() any { return new([]float32) }}

// gemmNarrow is gemmGonum for a narrow matrix.
func gemmNarrow[T Float](p *product[T]) {
	room := narrowRooms.Get().(*[]float32)
	defer narrowRooms.Put(room)
	q := *p
	q.narrow, q.transB = nil, p.narrow.trans
	for at := 0; at < p.n; at += q.n {
		if q.n = narrowColumns; p.n-at < 2*narrowColumns {
			q.n = p.n - at
		}
		*room = grown(*room, p.k*q.n)
		q.ldb = p.narrow.widen(*room, p.k, span{at, at + q.n})
		q.b, q.c = any(*room).([]T), p.c[at:]
		gemmGonum(&q)
	}
}
