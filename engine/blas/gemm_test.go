package blas

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/testblas"
)

// TestGonum runs gonum's own tests, all that testblas has for float64, those of the
// routines that are ours on several threads; TestAgainstPlain holds both types to the same
// code.
func TestGonum(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		for _, threads := range []int{0, 1, 3} {
			testblas.TestDgemm(t, Implementation{Threads: threads})
			testblas.DgemvTest(t, Implementation{Threads: threads})
		}
		i := Implementation{Threads: 2}
		for name, test := range map[string]func(*testing.T){
			"dasum": func(t *testing.T) { testblas.DasumTest(t, i) }, "daxpy": func(t *testing.T) { testblas.DaxpyTest(t, i) },
			"dcopy": func(t *testing.T) { testblas.DcopyTest(t, i) }, "ddot": func(t *testing.T) { testblas.DdotTest(t, i) },
			"dnrm2": func(t *testing.T) { testblas.Dnrm2Test(t, i) }, "drot": func(t *testing.T) { testblas.DrotTest(t, i) },
			"drotg": func(t *testing.T) { testblas.DrotgTest(t, i, false) }, "drotm": func(t *testing.T) { testblas.DrotmTest(t, i) },
			"drotmg": func(t *testing.T) { testblas.DrotmgTest(t, i) }, "dscal": func(t *testing.T) { testblas.DscalTest(t, i) },
			"dswap": func(t *testing.T) { testblas.DswapTest(t, i) }, "idamax": func(t *testing.T) { testblas.IdamaxTest(t, i) },

			"dgbmv": func(t *testing.T) { testblas.DgbmvTest(t, i) }, "dger": func(t *testing.T) { testblas.DgerTest(t, i) },
			"dsbmv": func(t *testing.T) { testblas.DsbmvTest(t, i) }, "dspmv": func(t *testing.T) { testblas.DspmvTest(t, i) },
			"dspr": func(t *testing.T) { testblas.DsprTest(t, i) }, "dspr2": func(t *testing.T) { testblas.Dspr2Test(t, i) },
			"dsymv": func(t *testing.T) { testblas.DsymvTest(t, i) }, "dsyr": func(t *testing.T) { testblas.DsyrTest(t, i) },
			"dsyr2": func(t *testing.T) { testblas.Dsyr2Test(t, i) }, "dtbmv": func(t *testing.T) { testblas.DtbmvTest(t, i) },
			"dtbsv": func(t *testing.T) { testblas.DtbsvTest(t, i) }, "dtpmv": func(t *testing.T) { testblas.DtpmvTest(t, i) },
			"dtpsv": func(t *testing.T) { testblas.DtpsvTest(t, i) }, "dtrmv": func(t *testing.T) { testblas.DtrmvTest(t, i) },
			"dtrsv": func(t *testing.T) { testblas.DtrsvTest(t, i) }, "dtxmv": func(t *testing.T) { testblas.DtxmvTest(t, i) },

			"dsymm": func(t *testing.T) { testblas.DsymmTest(t, i) }, "dsyr2k": func(t *testing.T) { testblas.Dsyr2kTest(t, i) },
			"dsyrk": func(t *testing.T) { testblas.DsyrkTest(t, i) }, "dtrmm": func(t *testing.T) { testblas.DtrmmTest(t, i) },
			"dtrsm": func(t *testing.T) { testblas.DtrsmTest(t, i) },
		} {
			t.Run(name, test)
		}
	})
}

// TestGonumUsesTheKernels: a product of gonum's matrices has the bits of ours.
func TestGonumUsesTheKernels(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	a, b, c := newMatrix[float64](r, 70, 90, false), newMatrix[float64](r, 90, 50, false), newMatrix[float64](r, 70, 50, false)
	Gemm(1, false, false, 70, 50, 90, 1, a.data, a.stride, b.data, b.stride, 0, c.data, c.stride)
	general := func(x *matrix[float64]) blas64.General {
		return blas64.General{Rows: x.rows, Cols: x.cols, Stride: x.stride, Data: x.data}
	}
	got := newMatrix[float64](r, 70, 50, false)
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, general(a), general(b), 0, general(got))
	for i := range 70 {
		for j := range 50 {
			if got.data[got.at(i, j)] != c.data[c.at(i, j)] {
				t.Fatalf("row %d, column %d: %v, ours %v", i, j, got.data[got.at(i, j)], c.data[c.at(i, j)])
			}
		}
	}
	if _, ours := blas32.Implementation().(Implementation); ours != (machine[float32]() != nil) {
		t.Errorf("float32 by %T", blas32.Implementation())
	}
}

// matrix is op(x) of rows x cols inside poison: values that no product may read
// or write.
type matrix[T Float] struct {
	data, whole        []T // whole has guards around data
	rows, cols, stride int
	trans              bool
}

const (
	guard  = 19
	poison = -777
)

func newMatrix[T Float](r *rand.Rand, rows, cols int, trans bool) *matrix[T] {
	x := &matrix[T]{rows: rows, cols: cols, trans: trans}
	sr, sc := rows, cols
	if trans {
		sr, sc = cols, rows
	}
	x.stride = max(1, sc) + r.IntN(4)*r.IntN(10)
	n := 0
	if sr > 0 && sc > 0 {
		n = (sr-1)*x.stride + sc
	}
	x.whole = make([]T, n+2*guard)
	for i := range x.whole {
		x.whole[i] = poison
	}
	x.data = x.whole[guard : guard+n]
	for i := range rows {
		for j := range cols {
			x.data[x.at(i, j)] = T(r.NormFloat64())
		}
	}
	return x
}

func (x *matrix[T]) at(i, j int) int {
	if x.trans {
		i, j = j, i
	}
	return i*x.stride + j
}

func (x *matrix[T]) clone() *matrix[T] {
	y := *x
	y.whole = slices.Clone(x.whole)
	y.data = y.whole[guard : guard+len(x.data)]
	return &y
}

// call runs the product into c, from the packed matrix too, and holds one to the
// bits of the other.
func call[T Float](t testing.TB, threads int, alpha T, a, b *matrix[T], beta T, c *matrix[T]) {
	packed, then := c.clone(), c.clone()
	Gemm(threads, a.trans, b.trans, a.rows, b.cols, a.cols, alpha, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride)
	Pack(b.trans, b.rows, b.cols, b.data, b.stride).Gemm(threads, a.trans, a.rows, alpha, a.data, a.stride, beta, packed.data, c.stride)
	same(t, "packed", c.data, packed.data)
	// What follows is done once to each element, and to nothing else.
	Pack(b.trans, b.rows, b.cols, b.data, b.stride).GemmThen(threads, a.trans, a.rows, alpha, a.data, a.stride, beta, then.data, c.stride, func(row, col int, v []T) {
		if at := row*c.stride + col; len(v) > 0 && &v[0] != &then.data[at] || col+len(v) > c.cols {
			panic("another place than it says")
		}
		for i := range v {
			v[i] = 3 - v[i]
		}
	})
	for i := range c.rows {
		for j := range c.cols {
			packed.data[c.at(i, j)] = 3 - packed.data[c.at(i, j)]
		}
	}
	same(t, "then", then.data, packed.data)
}

func same[T Float](t testing.TB, what string, got, want []T) {
	t.Helper()
	for i := range got {
		if math.Float64bits(float64(got[i])) != math.Float64bits(float64(want[i])) && (got[i] == got[i] || want[i] == want[i]) {
			t.Fatalf("%s: element %d is %v, the other way gives %v", what, i, got[i], want[i])
		}
	}
}

// hold checks c against the sum in float64, and that nothing else was written.
// The error of a sum of k products is bounded by its length, its absolute values
// and the type's precision.
func hold[T Float](t testing.TB, alpha T, a, b *matrix[T], beta T, before, c *matrix[T]) {
	t.Helper()
	eps := math.Ldexp(1, -23)
	if size[T]() == 8 {
		eps = math.Ldexp(1, -52)
	}
	inside := make([]bool, len(c.data))
	for i := range c.rows {
		for j := range c.cols {
			at := c.at(i, j)
			inside[at] = true
			var sum, magnitude float64
			for l := range a.cols {
				p := float64(a.data[a.at(i, l)]) * float64(b.data[b.at(l, j)])
				sum, magnitude = sum+p, magnitude+math.Abs(p)
			}
			sum, magnitude = sum*float64(alpha), magnitude*math.Abs(float64(alpha))
			if beta != 0 {
				sum += float64(beta) * float64(before.data[at])
				magnitude += math.Abs(float64(beta) * float64(before.data[at]))
			}
			got := float64(c.data[at])
			if math.IsNaN(sum) || math.IsInf(sum, 0) {
				if math.IsNaN(sum) != math.IsNaN(got) || !math.IsNaN(sum) && got != sum {
					t.Fatalf("element %d, %d of %dx%dx%d is %v, want %v", i, j, c.rows, c.cols, a.cols, got, sum)
				}
				continue
			}
			if bound := eps * (magnitude*float64(a.cols+3) + 1e-30); !(math.Abs(got-sum) <= bound) {
				t.Fatalf("element %d, %d of %dx%dx%d (trans %v %v, alpha %v, beta %v) is %v, want %v, off by %g with a bound of %g",
					i, j, c.rows, c.cols, a.cols, a.trans, b.trans, alpha, beta, got, sum, math.Abs(got-sum), bound)
			}
		}
	}
	for i, in := range inside {
		if !in && c.data[i] != poison {
			t.Fatalf("element %d between the rows of c was written", i)
		}
	}
	for i := range guard {
		if c.whole[i] != poison || c.whole[len(c.whole)-1-i] != poison {
			t.Fatal("memory around c was written")
		}
	}
}

// sizes has those around the sizes of tiles, panels and blocks.
var sizes = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 47, 48, 63, 64, 65, 100, 127, 128, 129, 130, 200}

func TestAgainstPlain(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		t.Run("float32", againstPlain[float32])
		t.Run("float64", againstPlain[float64])
	})
}

func againstPlain[T Float](t *testing.T) {
	factors := []T{0, 1, -1, 0.5, 2.25}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		m, n, k := sizes[r.IntN(len(sizes))], sizes[r.IntN(len(sizes))], sizes[r.IntN(len(sizes))]
		switch r.IntN(20) {
		case 0:
			k = depth + r.IntN(2*depth+2) - 1
		case 1:
			m = blockRows + r.IntN(40) - 20
		case 2:
			n, k = blockCols+r.IntN(80)-40, min(k, 20)
		}
		alpha, beta := factors[r.IntN(len(factors))], factors[r.IntN(len(factors))]
		a, b := newMatrix[T](r, m, k, r.IntN(2) > 0), newMatrix[T](r, k, n, r.IntN(2) > 0)
		if r.IntN(8) == 0 {
			a = wide(a, 2048)
		}
		c := newMatrix[T](r, m, n, false)
		before := c.clone()
		if beta == 0 {
			for i := range m {
				for j := range n {
					c.data[c.at(i, j)] = T(math.NaN())
				}
			}
		}
		call(t, 1+r.IntN(4), alpha, a, b, beta, c)
		hold(t, alpha, a, b, beta, before, c)
	}
}

// wide is x with a stride that puts its rows into the same sets of a cache.
func wide[T Float](x *matrix[T], stride int) *matrix[T] {
	y := *x
	y.stride = stride
	y.data = make([]T, stride*max(x.rows, x.cols))
	for i := range y.data {
		y.data[i] = poison
	}
	for i := range x.rows {
		for j := range x.cols {
			y.data[y.at(i, j)] = x.data[x.at(i, j)]
		}
	}
	return &y
}

// TestNotFinite holds NaN and infinities, 0 x Inf among them, to the plain sum.
func TestNotFinite(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		t.Run("float32", notFinite[float32])
		t.Run("float64", notFinite[float64])
	})
}

func notFinite[T Float](t *testing.T) {
	special := []T{0, T(math.Inf(1)), T(math.Inf(-1)), T(math.NaN())}
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		m, n, k := 1+r.IntN(40), 1+r.IntN(70), 1+r.IntN(40)
		a, b, c := newMatrix[T](r, m, k, r.IntN(2) > 0), newMatrix[T](r, k, n, r.IntN(2) > 0), newMatrix[T](r, m, n, false)
		for range 1 + r.IntN(4) {
			a.data[a.at(r.IntN(m), r.IntN(k))] = special[r.IntN(len(special))]
			b.data[b.at(r.IntN(k), r.IntN(n))] = special[r.IntN(len(special))]
		}
		before := c.clone()
		call(t, 1, 1, a, b, 1, c)
		hold(t, 1, a, b, 1, before, c)
	}
}

// TestSameBits holds that a row's results depend neither on the other rows nor on
// threads, which explanations of stored predictions rely on.
func TestSameBits(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		t.Run("float32", sameBits[float32])
		t.Run("float64", sameBits[float64])
	})
}

func sameBits[T Float](t *testing.T) {
	if machine[T]() == nil {
		t.Skip("gonum's kernels promise no such thing")
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range [][3]int{{230, 300, 600}, {70, 2100, 300}, {500, 33, 257}, {400, 1, 300}} {
		m, n, k := s[0], s[1], s[2]
		a, b, c := newMatrix[T](r, m, k, false), newMatrix[T](r, k, n, r.IntN(2) > 0), newMatrix[T](r, m, n, false)
		c.stride = n
		c.data = make([]T, m*n)
		Gemm(1, false, b.trans, m, n, k, 1, a.data, a.stride, b.data, b.stride, 0, c.data, n)
		withAVX2(t, func() {
			d := make([]T, m*n)
			Gemm(1, false, b.trans, m, n, k, 1, a.data, a.stride, b.data, b.stride, 0, d, n)
			same(t, "other kernels", d, c.data)
		})
		for _, threads := range []int{2, 3, 4, 7} {
			d := make([]T, m*n)
			Gemm(threads, false, b.trans, m, n, k, 1, a.data, a.stride, b.data, b.stride, 0, d, n)
			same(t, fmt.Sprint(threads, " threads"), d, c.data)
		}
		for range 20 {
			from := r.IntN(m)
			to := from + 1 + r.IntN(m-from)
			d := make([]T, (to-from)*n)
			Gemm(1, false, b.trans, to-from, n, k, 1, a.data[from*a.stride:], a.stride, b.data, b.stride, 0, d, n)
			same(t, fmt.Sprint("rows ", from, " to ", to), d, c.data[from*n:to*n])
		}
	}
}

// TestVectors holds Sgemv and Dgemv to gonum's; testblas tests only the latter.
func TestVectors(t *testing.T) {
	eachMachine(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		i := Implementation{Threads: 2}
		for range 300 {
			m, n, inc := 1+r.IntN(90), 1+r.IntN(90), 1+r.IntN(3)
			tA, k, l := blas.NoTrans, n, m
			if r.IntN(2) > 0 {
				tA, k, l = blas.Trans, m, n
			}
			a := newMatrix[float32](r, m, n, false)
			x, y := make([]float32, k*inc), make([]float32, l)
			for j := range x {
				x[j] = float32(r.NormFloat64())
			}
			want := append([]float32{}, y...)
			i.Sgemv(tA, m, n, 1.5, a.data, a.stride, x, inc, 0.5, y, 1)
			i.Implementation.Sgemv(tA, m, n, 1.5, a.data, a.stride, x, inc, 0.5, want, 1)
			for j := range y {
				if d := math.Abs(float64(y[j] - want[j])); d > 1e-4 {
					t.Fatalf("element %d of %dx%d is %v, want %v", j, m, n, y[j], want[j])
				}
			}
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	const n = 200
	a, b, c := make([]float32, n*n), make([]float32, n*n), make([]float32, n*n)
	p := Pack(false, n, n, b, n)
	for name, f := range map[string]func(){
		"transposed": func() { Gemm(1, true, true, n, n, n, 1, a, n, b, n, 0, c, n) },
		"column":     func() { Gemm(1, false, false, n, 1, n, 1, a, n, b, 1, 0, c, 1) },
		"packed":     func() { p.Gemm(1, false, n, 1, a, n, 0, c, n) },
	} {
		if machine[float32]() == nil {
			t.Skip("gonum's kernels allocate")
		}
		// The garbage collector empties pools: less than one a run, rounded down.
		if got := testing.AllocsPerRun(100, f); got > 0 {
			t.Errorf("%s: %v allocations a call", name, got)
		}
	}
}

func TestPanicsOnSizes(t *testing.T) {
	x := make([]float64, 6)
	for name, f := range map[string]func(){
		"negative":     func() { Gemm(1, false, false, -1, 1, 1, 1, x, 1, x, 1, 0, x, 1) },
		"short a":      func() { Gemm(1, false, false, 3, 1, 3, 1, x, 3, x, 1, 0, x, 1) },
		"short b":      func() { Gemm(1, false, false, 1, 3, 3, 1, x, 3, x, 3, 0, x, 3) },
		"short c":      func() { Gemm(1, false, false, 3, 3, 1, 1, x, 1, x, 3, 0, x, 3) },
		"stride of a":  func() { Gemm(1, true, false, 3, 1, 1, 1, x, 2, x, 1, 0, x, 1) },
		"stride of b":  func() { Pack(false, 2, 3, x, 2) },
		"overflow":     func() { Gemm(1, false, false, math.MaxInt, 1, 1, 1, x, math.MaxInt, x, 1, 0, x, 1) },
		"packed's row": func() { Pack(false, 2, 3, x, 3).Gemm(1, false, 2, 1, x[:3], 2, 0, x, 3) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// FuzzShapes multiplies matrices of any shape.
func FuzzShapes(f *testing.F) {
	f.Add(uint16(1), uint16(2), uint16(3), uint8(0), uint64(1))
	f.Add(uint16(15), uint16(33), uint16(257), uint8(3), uint64(2))
	f.Fuzz(func(t *testing.T, m, n, k uint16, flags uint8, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		rows, cols, inner := int(m%300), int(n%300), int(k%600)
		a, b := newMatrix[float32](r, rows, inner, flags&1 > 0), newMatrix[float32](r, inner, cols, flags&2 > 0)
		c := newMatrix[float32](r, rows, cols, false)
		before := c.clone()
		alpha, beta := float32(flags>>2&3), float32(flags>>4&3)
		call(t, 1+int(flags>>6), alpha, a, b, beta, c)
		hold(t, alpha, a, b, beta, before, c)
	})
}
