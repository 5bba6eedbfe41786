package blas

// Transpose writes the transpose of from, rows x cols, to to. It panics where either
// has another size.
func Transpose(to, from []float32, rows, cols int) {
	checkSize(rows, cols, 0)
	if len(from) != rows*cols || len(to) != rows*cols {
		panic("blas: a matrix of another size")
	}
	// What is in whole squares of vectors is done by a kernel, what is in squares of 4 beside
	// and below them by another, the rest element by element.
	high, wide := 0, 0
	if s := machine[float32](); s != nil {
		high, wide = rows/4*4, cols/4*4
		squares(s, to, from, rows, cols)
	}
	if wide == 0 {
		high = 0
	}
	for i := range rows {
		start := 0
		if i < high {
			start = wide
		}
		for j := start; j < cols; j++ {
			to[j*rows+i] = from[i*cols+j]
		}
	}
}

// squares transposes what is in whole squares of 4.
func squares(s *arch, to, from []float32, rows, cols int) {
	high, wide := rows/s.vector*s.vector, cols/s.vector*s.vector
	if wide == 0 {
		high = 0
	}
	for i := 0; i < high; i += s.vector {
		s.transpose(bytes(to[i:]), bytes(from[i*cols:]), 4*rows, 4*cols, wide/s.vector)
	}
	if rows < 4 {
		return
	}
	for j := wide; j+4 <= cols; j += 4 {
		s.transpose4(bytes(to[j*rows:]), bytes(from[j:]), 4*rows, 4*cols, 16, 16*cols, rows/4)
	}
	for i := high; i+4 <= rows && wide > 0; i += 4 {
		s.transpose4(bytes(to[i:]), bytes(from[i*cols:]), 4*rows, 4*cols, 16*rows, 16, wide/4)
	}
}
