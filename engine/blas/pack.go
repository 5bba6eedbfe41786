package blas

import "unsafe"

// packAll lays out all of b: by blocks of depth, in each by panels.
func packAll[T Float](s *arch, p *product[T]) []T {
	width := s.width()
	all := (p.n + width - 1) / width * width
	to, q := make([]T, p.k*all), &square[T]{}
	for down := (span{0, p.k}); down.len() > 0; {
		var block span
		block, down = down.next(depth)
		for at := 0; at < p.n; at += width {
			packPanel(s, p, q, to[block.from*all+at*block.len():], block, span{at, min(at+width, p.n)})
		}
	}
	return to
}

// packPanel lays out one panel: for each product, width columns of b, with zeros
// where b has no more.
func packPanel[T Float](s *arch, p *product[T], q *square[T], to []T, block, cols span) {
	width, size := s.width(), size[T]()
	to = to[:width*block.len()]
	if !p.transB && cols.len() == width {
		s.copyRows(bytes(to), bytes(p.b[block.from*p.ldb+cols.from:]), p.ldb*size, block.len())
		return
	}
	if cols.len() < width {
		clear(to)
	}
	if !p.transB {
		for l := range block.len() {
			copy(to[l*width:], p.b[(block.from+l)*p.ldb+cols.from:][:cols.len()])
		}
		return
	}
	for done := 0; done < cols.len(); done += s.vector {
		packSquares(s, p, q, to[done:], block, span{cols.from + done, min(cols.from+done+s.vector, cols.to)})
	}
}

// square is room for as many columns as a vector has elements, as rows, and for a
// square of them turned.
type square[T Float] struct {
	rows   [maxVector * (depth + maxVector)]T
	turned [maxVector * maxVector]T
}

const maxVector = 16

// fewProducts is up to where turning squares does not pay.
const fewProducts = 4

// packSquares lays out at most a vector of columns of a transposed b, square by
// square. What is not whole goes through q.
func packSquares[T Float](s *arch, p *product[T], q *square[T], to []T, block, cols span) {
	width, size, n := s.width(), size[T](), s.vector
	from, stride := p.b[cols.from*p.ldb+block.from:], p.ldb
	whole, rest := block.len()/n, block.len()%n
	if block.len() <= fewProducts {
		for j := range cols.len() {
			for l, v := range from[j*stride:][:block.len()] {
				to[l*width+j] = v
			}
		}
		return
	}
	if cols.len() < n || rest > 0 {
		// Only the last square where the columns are all there.
		at := 0
		if cols.len() == n {
			at = whole * n
		}
		for j := range n {
			row := q.rows[j*(depth+maxVector):][:block.len()]
			if j < cols.len() {
				copy(row[at:], from[j*stride+at:])
			} else {
				clear(row)
			}
		}
		if rest > 0 {
			s.transpose(bytes(q.turned[:]), bytes(q.rows[whole*n:]), n*size, (depth+maxVector)*size, 1)
		}
		for l := range rest {
			copy(to[(whole*n+l)*width:][:cols.len()], q.turned[l*n:])
		}
	}
	if cols.len() < n {
		from, stride = q.rows[:], depth+maxVector
	}
	if whole > 0 {
		s.transpose(bytes(to), bytes(from), width*size, stride*size, whole)
	}
}

func bytes[T Float](s []T) *byte { return (*byte)(unsafe.Pointer(&s[0])) }
