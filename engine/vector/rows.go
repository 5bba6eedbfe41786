package vector

import "math"

// NormRows is Norm of each row of len(scale) elements, by its own mean and by the inverse
// of the root of its variance + eps, both computed in float64. means and invs take them,
// one for each row, and may be nil.
func NormRows(dst, src, scale, bias []float32, eps float64, means, invs []float32) {
	n := len(scale)
	if n == 0 || len(dst) == 0 {
		return
	}
	rows := len(dst) / n
	if len(src) != len(dst) || len(bias) != n || rows*n != len(dst) || means != nil && len(means) != rows || len(invs) != len(means) {
		panic("vector: slices of different lengths")
	}
	s := borrow()
	defer s.release()
	if kernels != nil {
		step, mean, inv := 4, &s.all[0], &s.all[1]
		if means == nil {
			step = 0
		} else {
			mean, inv = &means[0], &invs[0]
		}
		s.parts[0], s.parts[1], s.parts[2] = float64(n), eps, 1
		kernels.normRows(&dst[0], &src[0], &scale[0], &bias[0], &s.parts[0], mean, inv, step, n, rows)
		return
	}
	for r := range rows {
		row := src[r*n : (r+1)*n]
		mean := s.sum(row) / float64(n)
		inv := 1 / math.Sqrt(Squares(row, mean)/float64(n)+eps)
		if means != nil {
			means[r], invs[r] = float32(mean), float32(inv)
		}
		Norm(dst[r*n:(r+1)*n], row, scale, bias, float32(mean), float32(inv))
	}
}

// MostFew is how many rows and columns a matrix of FewColumns has at most.
const MostFew = 8

// FewColumns is a matrix that many short rows are multiplied by, several in each vector,
// and what is added to them.
type FewColumns struct {
	k, n    int
	weights []float32
	bias    []float32
	// tables are for vectors of lanes elements, each of which takes some rows.
	tables     []float32
	lanes, row int
}

// NewFewColumns lays out a matrix of k x n, at most MostFew each; bias may be nil.
func NewFewColumns(k, n int, weights, bias []float32) *FewColumns {
	if k < 1 || k > MostFew || n < 1 || n > MostFew || len(weights) != k*n || bias != nil && len(bias) != n {
		panic("vector: a matrix of another size")
	}
	if bias == nil {
		bias = make([]float32, n)
	}
	f := &FewColumns{k: k, n: n, weights: weights, bias: bias}
	if kernels == nil {
		return f
	}
	f.lanes = kernels.lanes
	f.row = f.lanes / max(k, n)
	f.tables = make([]float32, (1+2*k)*f.lanes)
	for i := range f.row * n {
		row, column := i/n, i%n
		f.tables[i] = bias[column]
		for l := range k {
			at := f.tables[(1+2*l)*f.lanes:]
			at[i] = math.Float32frombits(uint32(row*k + l))
			at[f.lanes+i] = weights[l*n+column]
		}
	}
	return f
}

// Product is dst = src times the matrix + bias, row by row; dst may not be src.
func (f *FewColumns) Product(dst, src []float32) {
	rows := len(src) / f.k
	if rows*f.k != len(src) || rows*f.n != len(dst) {
		panic("vector: slices of different lengths")
	}
	if kernels == nil || kernels.lanes != f.lanes {
		f.product(dst, src)
		return
	}
	whole, rest := rows/f.row, rows%f.row
	if whole > 0 {
		kernels.fewColumns(&dst[0], &src[0], &f.tables[0], f.k, whole, f.row*f.k, f.row*f.n)
	}
	if rest > 0 {
		kernels.fewColumns(&dst[whole*f.row*f.n], &src[whole*f.row*f.k], &f.tables[0], f.k, 1, rest*f.k, rest*f.n)
	}
}

func (f *FewColumns) product(dst, src []float32) {
	for ; len(src) > 0; dst, src = dst[f.n:], src[f.k:] {
		for j := range f.n {
			sum := float32(0)
			for l, v := range src[:f.k] {
				sum += v * f.weights[l*f.n+j]
			}
			dst[j] = sum + f.bias[j]
		}
	}
}
