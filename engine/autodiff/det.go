package autodiff

import (
	"math"

	"github.com/pellucid/pellucid/engine/graph"
)

// det adds the cofactors: d det(X) / dX, which a matrix without an inverse has too.
func det[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	x, d := b.value(n.Inputs[0]), b.grads[n.Outputs[0]]
	shape := b.shape(n.Inputs[0])
	size := shape[len(shape)-1]
	each := size * size
	a := make([]float64, each)
	for m, seed := range d {
		for i := range a {
			a[i] = float64(x[m*each+i])
		}
		for i, c := range cofactors(a, size) {
			g[m*each+i] += seed * T(c)
		}
	}
	return nil
}

// cofactors returns those of the n x n matrix a, which it overwrites. With rows and columns
// exchanged until the largest pivot left comes first, a = L U; L has determinant 1, and of
//
//	U = | V  u |   the adjugate is   | w det(V) inv(V)   -det(V) inv(V) u |
//	    | 0  w |                     | 0                  det(V)          |
//
// which no zero in the place of w spoils. Where V has one, a is short of two ranks or more,
// and all cofactors are 0.
func cofactors(a []float64, n int) []float64 {
	c := make([]float64, len(a))
	if n == 0 {
		return c
	}
	rows, cols, sign := eliminate(a, n)
	first := sign // det(V), with the sign of the exchanges
	for i := range n - 1 {
		first *= a[i*n+i]
	}
	if first == 0 {
		return c
	}
	y := make([]float64, n)
	for k := range n {
		// Column k of the adjugate is that of U times that of inv(L), which is made here.
		clear(y)
		y[k] = 1
		for i := k + 1; i < n; i++ {
			for j := k; j < i; j++ {
				y[i] -= a[i*n+j] * y[j]
			}
		}
		last := y[n-1]
		for i := range n - 1 {
			y[i] = a[n*n-1]*y[i] - last*a[i*n+n-1]
		}
		for i := n - 2; i >= 0; i-- {
			for j := i + 1; j < n-1; j++ {
				y[i] -= a[i*n+j] * y[j]
			}
			y[i] /= a[i*n+i]
		}
		for i := range n {
			c[rows[k]*n+cols[i]] = first * y[i]
		}
	}
	return c
}

// eliminate makes a its L (below the diagonal) and U, and returns which row and column of a
// stands where, and the sign of the exchanges.
func eliminate(a []float64, n int) (rows, cols []int, sign float64) {
	sign = 1
	for i := range n {
		rows, cols = append(rows, i), append(cols, i)
	}
	for k := range n {
		r, c := k, k
		for i := k; i < n; i++ {
			for j := k; j < n; j++ {
				if math.Abs(a[i*n+j]) > math.Abs(a[r*n+c]) {
					r, c = i, j
				}
			}
		}
		if a[r*n+c] == 0 {
			return rows, cols, sign
		}
		if r != k {
			sign, rows[r], rows[k] = -sign, rows[k], rows[r]
			for j := range n {
				a[k*n+j], a[r*n+j] = a[r*n+j], a[k*n+j]
			}
		}
		if c != k {
			sign, cols[c], cols[k] = -sign, cols[k], cols[c]
			for i := range n {
				a[i*n+k], a[i*n+c] = a[i*n+c], a[i*n+k]
			}
		}
		for i := k + 1; i < n; i++ {
			a[i*n+k] /= a[k*n+k]
			for j := k + 1; j < n; j++ {
				a[i*n+j] -= a[i*n+k] * a[k*n+j]
			}
		}
	}
	return rows, cols, sign
}
