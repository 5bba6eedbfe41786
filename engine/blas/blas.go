// Package blas multiplies matrices: gonum's BLAS with kernels of our own for
// AVX-512 and AVX2 where the processor has them, gonum's elsewhere (other
// processors, and the build tags noasm and purego).
//
// Gemm and Packed are what the engine calls; Implementation is the same behind
// gonum's interfaces, which blas32 and blas64 use in a program that links this package.
//
// Invariants of our kernels: an element of the result is a sum over k in order,
// in blocks of depth fused multiply-adds, then scaled and added. So its bits
// depend on its row of a, its column of b and nothing else: not on the number of
// rows or of threads, nor on whether b was packed or which set of kernels there
// is. Products with 0 are not left out: 0 x Inf is NaN, as it is not in
// gonum's kernels. Scratch memory is pooled and bounded, and a call on one
// thread allocates nothing once the pool is warm.
package blas

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// Float is an element type that can be multiplied.
type Float interface{ float32 | float64 }

// Gemm computes c = alpha op(a) op(b) + beta c on up to threads threads, where op
// transposes on demand: op(a) is m x k, op(b) k x n and c m x n, all row-major
// with their strides. With beta 0, c is not read. Like gonum it panics where the
// sizes contradict each other or the slices. Where gonum's kernels do the work
// they choose their threads themselves.
func Gemm[T Float](threads int, transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	checkSize(m, n, k)
	checkMatrix("A", transA, m, k, len(a), lda)
	checkMatrix("B", transB, k, n, len(b), ldb)
	checkMatrix("C", false, m, n, len(c), ldc)
	gemm(threads, product[T]{
		m: m, n: n, k: k, alpha: alpha, beta: beta,
		a: a, lda: lda, transA: transA, b: b, ldb: ldb, transB: transB, c: c, ldc: ldc,
	})
}

// Packed is a matrix b that was laid out once for many products. It is immutable
// and safe for concurrent use.
type Packed[T Float] struct {
	k, n   int
	panels []T
	bytes  *bytePanels
	// b is kept where there are no kernels to lay it out for, or narrow.
	b      []T
	ldb    int
	trans  bool
	narrow *narrow
}

// Kernels reports whether the processor has kernels of ours.
func Kernels() bool { return machine[float32]() != nil }

// Pack lays out op(b), which is k x n, in as much memory with n rounded up to 32 at
// most. The caller must not change b afterwards.
func Pack[T Float](transB bool, k, n int, b []T, ldb int) *Packed[T] {
	checkSize(0, n, k)
	checkMatrix("B", transB, k, n, len(b), ldb)
	s := machine[T]()
	if s == nil {
		return &Packed[T]{k: k, n: n, b: b, ldb: ldb, trans: transB}
	}
	return &Packed[T]{k: k, n: n, panels: packAll(s, &product[T]{k: k, n: n, b: b, ldb: ldb, transB: transB})}
}

// Gemm computes c = alpha op(a) b + beta c for op(a) of m rows, to the bits that
// the function Gemm computes.
func (p *Packed[T]) Gemm(threads int, transA bool, m int, alpha T, a []T, lda int, beta T, c []T, ldc int) {
	p.GemmThen(threads, transA, m, alpha, a, lda, beta, c, ldc, nil)
}

// GemmThen is Gemm, and calls then, where it is not nil, once for each element of the
// result, by pieces of rows: for the elements from col on of a row, which then may
// change. It does so while they are in a cache, on the thread that has computed them.
func (p *Packed[T]) GemmThen(threads int, transA bool, m int, alpha T, a []T, lda int, beta T, c []T, ldc int, then func(row, col int, c []T)) {
	checkSize(m, p.n, p.k)
	checkMatrix("A", transA, m, p.k, len(a), lda)
	checkMatrix("C", false, m, p.n, len(c), ldc)
	gemm(threads, product[T]{
		m: m, n: p.n, k: p.k, alpha: alpha, beta: beta,
		a: a, lda: lda, transA: transA, b: p.b, ldb: p.ldb, transB: p.trans, panels: p.panels, bytes: p.bytes, narrow: p.narrow, c: c, ldc: ldc, then: then,
	})
}

func checkSize(m, n, k int) {
	if m < 0 || n < 0 || k < 0 {
		panic("blas: a negative size")
	}
}

// checkMatrix panics where op(x), of rows x cols, does not fit into length
// elements. It does not overflow.
func checkMatrix(name string, trans bool, rows, cols, length, stride int) {
	if trans {
		rows, cols = cols, rows
	}
	if stride < max(1, cols) {
		panic("blas: bad leading dimension of " + name)
	}
	if rows > 0 && cols > 0 && (length < cols || (length-cols)/stride < rows-1) {
		panic("blas: insufficient length of " + name)
	}
}

// Implementation is gonum's BLAS with our products of matrices, and of transposed
// matrices with vectors, where the processor has kernels for them. The zero value
// runs on one thread.
type Implementation struct {
	gonum.Implementation
	// Threads bounds the threads of one call.
	Threads int
}

var (
	_ blas.Float32 = Implementation{}
	_ blas.Float64 = Implementation{}
)

// Sgemm is gonum's Sgemm.
func (i Implementation) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	if machine[float32]() == nil {
		i.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	// With these factors gonum checks its arguments and does nothing.
	i.Implementation.Sgemm(tA, tB, m, n, k, 0, a, lda, b, ldb, 1, c, ldc)
	gemm(i.Threads, product[float32]{
		m: m, n: n, k: k, alpha: alpha, beta: beta,
		a: a, lda: lda, transA: tA != blas.NoTrans, b: b, ldb: ldb, transB: tB != blas.NoTrans, c: c, ldc: ldc,
	})
}

// Dgemm is gonum's Dgemm.
func (i Implementation) Dgemm(tA, tB blas.Transpose, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	if machine[float64]() == nil {
		i.Implementation.Dgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	i.Implementation.Dgemm(tA, tB, m, n, k, 0, a, lda, b, ldb, 1, c, ldc)
	gemm(i.Threads, product[float64]{
		m: m, n: n, k: k, alpha: alpha, beta: beta,
		a: a, lda: lda, transA: tA != blas.NoTrans, b: b, ldb: ldb, transB: tB != blas.NoTrans, c: c, ldc: ldc,
	})
}

// Sgemv is gonum's Sgemv. Only the transposed one is ours: the other is dot
// products, which are faster in gonum's order.
func (i Implementation) Sgemv(tA blas.Transpose, m, n int, alpha float32, a []float32, lda int, x []float32, incX int, beta float32, y []float32, incY int) {
	if machine[float32]() == nil || tA == blas.NoTrans || incX < 0 || incY != 1 {
		i.Implementation.Sgemv(tA, m, n, alpha, a, lda, x, incX, beta, y, incY)
		return
	}
	i.Implementation.Sgemv(tA, m, n, 0, a, lda, x, incX, 1, y, incY)
	gemm(i.Threads, ofVector(m, n, alpha, a, lda, x, incX, beta, y))
}

// Dgemv is gonum's Dgemv; see Sgemv.
func (i Implementation) Dgemv(tA blas.Transpose, m, n int, alpha float64, a []float64, lda int, x []float64, incX int, beta float64, y []float64, incY int) {
	if machine[float64]() == nil || tA == blas.NoTrans || incX < 0 || incY != 1 {
		i.Implementation.Dgemv(tA, m, n, alpha, a, lda, x, incX, beta, y, incY)
		return
	}
	i.Implementation.Dgemv(tA, m, n, 0, a, lda, x, incX, 1, y, incY)
	gemm(i.Threads, ofVector(m, n, alpha, a, lda, x, incX, beta, y))
}

// ofVector is y = alpha op(a) x + beta y for the transpose of a: a row x times a.
func ofVector[T Float](m, n int, alpha T, a []T, lda int, x []T, incX int, beta T, y []T) product[T] {
	return product[T]{m: 1, n: n, k: m, alpha: alpha, beta: beta, a: x, lda: incX, transA: true, b: a, ldb: lda, c: y, ldc: n}
}
