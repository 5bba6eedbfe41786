package blas

// Transpose writes the transpose of from, rows x cols, to to. It panics where either
// has another size.
func Transpose(to, from []float32, rows, cols int) {
	checkSize(rows, cols, 0)
	if len(from) != rows*cols || len(to) != rows*cols {
		panic("blas: a matrix of another size")
	}
	// What is in whole squares is done by the kernel, the rest element by element.
	high, wide := 0, 0
	if s := machine[float32](); s != nil {
		high, wide = rows/s.vector*s.vector, cols/s.vector*s.vector
		for i := 0; i < high && wide > 0; i += s.vector {
			s.transpose(bytes(to[i:]), bytes(from[i*cols:]), 4*rows, 4*cols, wide/s.vector)
		}
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
