package blas

import (
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine/vector"
)

// TestHalvesAreTheirFloats holds products with a matrix in 16 bits to the bits of those
// with the matrix it stands for.
func TestHalvesAreTheirFloats(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 16))
		for _, size := range [][3]int{{1, 1, 1}, {1, 70, 40}, {3, 31, 5}, {14, 32, 512}, {20, 33, 513}, {5, 1100, 1030}, {200, 130, 600}} {
			m, n, k := size[0], size[1], size[2]
			for _, trans := range []bool{false, true} {
				for _, precision := range []vector.Precision{vector.Half, vector.Brain} {
					ld := n
					if trans {
						ld = k
					}
					bits, wide := make([]uint16, k*n), make([]float32, k*n)
					for i := range bits {
						bits[i] = precision.Bits(float32(r.NormFloat64()))
						wide[i] = precision.Value(bits[i])
					}
					a, got, want := make([]float32, m*k), make([]float32, m*n), make([]float32, m*n)
					for i := range a {
						a[i] = float32(r.NormFloat64())
					}
					Gemm(1, false, trans, m, n, k, 1, a, k, wide, ld, 0, want, n)
					p := PackHalves(trans, k, n, bits, ld, precision)
					for _, threads := range []int{1, 3} {
						p.Gemm(threads, false, m, 1, a, k, 0, got, n)
						same(t, "halves", got, want)
					}
				}
			}
		}
	})
}
