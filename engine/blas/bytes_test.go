package blas

import (
	"math/rand/v2"
	"testing"
)

// TestBytesAreTheirFloats holds products with a matrix in 8 bits to the bits of those
// with the matrix it stands for.
func TestBytesAreTheirFloats(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 8))
		for _, size := range [][3]int{{1, 1, 1}, {1, 70, 40}, {3, 31, 5}, {14, 32, 512}, {20, 33, 513}, {5, 1100, 1030}, {200, 130, 600}} {
			m, n, k := size[0], size[1], size[2]
			for _, trans := range []bool{false, true} {
				q, wide := make([]int8, k*n), make([]float32, k*n)
				scale, zero := make([]float32, n), make([]float32, n)
				for j := range n {
					scale[j], zero[j] = r.Float32(), float32(r.IntN(255)-128)
				}
				ld := n
				if trans {
					ld = k
				}
				for i := range q {
					j := i % n
					if trans {
						j = i / k
					}
					q[i] = int8(r.IntN(256) - 128)
					wide[i] = (float32(q[i]) - zero[j]) * scale[j]
				}
				a, got, want := make([]float32, m*k), make([]float32, m*n), make([]float32, m*n)
				for i := range a {
					a[i] = float32(r.NormFloat64())
				}
				Gemm(1, false, trans, m, n, k, 1, a, k, wide, ld, 0, want, n)
				p := PackBytes(trans, k, n, q, ld, scale, zero)
				for _, threads := range []int{1, 3} {
					p.Gemm(threads, false, m, 1, a, k, 0, got, n)
					same(t, "bytes", got, want)
				}
			}
		}
	})
}

// TestBlocksAreTheirFloats: codes of 4 and 8 bits with scales of groups of rows, the last
// of which may be short.
func TestBlocksAreTheirFloats(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(2, 8))
		for _, size := range [][4]int{{1, 1, 16, 16}, {1, 70, 40, 16}, {3, 31, 1100, 32}, {14, 64, 512, 128}, {20, 33, 513, 256}, {200, 130, 600, 1024}, {5, 40, 100, 48}} {
			m, n, k, group := size[0], size[1], size[2], size[3]
			for _, bits := range []int{4, 8} {
				groups := (k + group - 1) / group
				q, wide := make([]int8, k*n), make([]float32, k*n)
				scale, zero := make([]float32, n*groups), make([]float32, n*groups)
				for i := range scale {
					scale[i], zero[i] = r.Float32(), float32(r.IntN(1<<bits))
				}
				for i := range q {
					if q[i] = int8(r.IntN(256) - 128); bits == 4 {
						q[i] &= 15
					}
					at := i/k*groups + i%k/group
					wide[i] = (float32(q[i]) - zero[at]) * scale[at]
				}
				p := PackBlocks(k, n, bits, group, func(j int, to []int8) { copy(to, q[j*k:]) }, scale, zero)
				if p == nil {
					if machine[float32]() != nil {
						t.Fatal("no layout although there are kernels")
					}
					continue
				}
				a, got, want := make([]float32, m*k), make([]float32, m*n), make([]float32, m*n)
				for i := range a {
					a[i] = float32(r.NormFloat64())
				}
				Gemm(1, false, true, m, n, k, 1, a, k, wide, k, 0, want, n)
				for _, threads := range []int{1, 3} {
					p.Gemm(threads, false, m, 1, a, k, 0, got, n)
					same(t, "blocks", got, want)
				}
			}
		}
	})
}
