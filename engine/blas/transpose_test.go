package blas

import "testing"

func TestTranspose(t *testing.T) {
	eachMachine(t, testTranspose)
}

func testTranspose(t *testing.T) {
	for _, rows := range []int{0, 1, 3, 4, 7, 8, 15, 16, 17, 22, 33, 64} {
		for _, cols := range []int{0, 1, 3, 4, 7, 8, 15, 16, 17, 22, 33, 64} {
			from, to := make([]float32, rows*cols), make([]float32, rows*cols)
			for i := range from {
				from[i] = float32(i)
			}
			Transpose(to, from, rows, cols)
			for i := range rows {
				for j := range cols {
					if to[j*rows+i] != from[i*cols+j] {
						t.Fatalf("%d x %d: element %d, %d is %v", rows, cols, j, i, to[j*rows+i])
					}
				}
			}
		}
	}
}
