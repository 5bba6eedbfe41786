package blas

import (
	"runtime"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/gonum"
)

// init has gonum's own packages, mat among them, multiply by our kernels where the
// processor has them: before any of them can have begun.
func init() {
	if machine[float32]() != nil {
		blas32.Use(Implementation{Threads: runtime.NumCPU()})
		blas64.Use(Implementation{Threads: runtime.NumCPU()})
	}
}

// gemmGonum is gemm by gonum's kernels. They skip products with an element of a
// that is 0; where b holds NaN or infinities a plain loop is used, so that
// 0 x Inf is NaN as it is with kernels of our own.
func gemmGonum[T Float](p *product[T]) {
	rows, cols := p.k, p.n
	if p.transB {
		rows, cols = cols, rows
	}
	for i := range rows {
		if !allFinite(p.b[i*p.ldb:][:cols]) {
			gemmPlain(p)
			return
		}
	}
	ta, tb := blas.NoTrans, blas.NoTrans
	if p.transA {
		ta = blas.Trans
	}
	if p.transB {
		tb = blas.Trans
	}
	switch c := any(p.c).(type) {
	case []float32:
		gonum.Implementation{}.Sgemm(ta, tb, p.m, p.n, p.k, float32(p.alpha), any(p.a).([]float32), p.lda, any(p.b).([]float32), p.ldb, float32(p.beta), c, p.ldc)
	case []float64:
		gonum.Implementation{}.Dgemm(ta, tb, p.m, p.n, p.k, float64(p.alpha), any(p.a).([]float64), p.lda, any(p.b).([]float64), p.ldb, float64(p.beta), c, p.ldc)
	}
}

func allFinite[T Float](v []T) bool {
	var s T
	for _, e := range v {
		s += e * 0 // NaN once any element is NaN or infinite
	}
	return s == 0
}

func gemmPlain[T Float](p *product[T]) {
	ai, ak := p.lda, 1
	if p.transA {
		ai, ak = ak, ai
	}
	bk, bj := p.ldb, 1
	if p.transB {
		bk, bj = bj, bk
	}
	for i := range p.m {
		row := p.c[i*p.ldc:][:p.n]
		for j := range row {
			var sum T
			for l := range p.k {
				sum += p.a[i*ai+l*ak] * p.b[l*bk+j*bj]
			}
			sum *= p.alpha
			if p.beta != 0 {
				sum += p.beta * row[j]
			}
			row[j] = sum
		}
	}
}
