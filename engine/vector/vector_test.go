package vector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// values are of all classes: zeros, denormals, small, usual, large, infinite, NaN.
func values(n int) []float32 {
	r := rand.New(rand.NewPCG(7, 9))
	special := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1e-40, -1e-40, math.MaxFloat32, -math.MaxFloat32,
		88.72, 88.73, 89, -87.33, -87.34, -103.9, -104, -105, 0.625, -0.625, 0.92, -0.92, 4, -4, 6, -6, 3, -3, 0.5,
	}
	out := make([]float32, n)
	for i := range out {
		switch r.IntN(4) {
		case 0:
			out[i] = special[r.IntN(len(special))]
		case 1:
			out[i] = math.Float32frombits(r.Uint32())
		case 2:
			out[i] = float32(r.NormFloat64())
		default:
			out[i] = float32(20 * r.NormFloat64())
		}
	}
	return out
}

// lengths are around the vectors' and the blocks'.
var lengths = []int{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130, 1000}

func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func TestBinaryIsGos(t *testing.T) {
	onEach(t, func(t *testing.T) {
		all := values(4000)
		for op := Add; op <= PRelu; op++ {
			for _, n := range lengths {
				for _, form := range []string{"both", "first", "second", "neither"} {
					a, b := all[:n], all[1500:1500+n]
					sa, sb := 1, 1
					if form == "second" || form == "neither" {
						a, sa = all[2:3], 0
					}
					if form == "first" || form == "neither" {
						b, sb = all[5:6], 0
					}
					got, want := guarded(n), make([]float32, n)
					Binary(op, got[guard:guard+n], a, b)
					binaryGo(op, want, a, b, sa, sb)
					for i, w := range want {
						if !same(got[guard+i], w) {
							t.Fatalf("op %d, %s, element %d of %d is %v, want %v", op, form, i, n, got[guard+i], w)
						}
					}
					held(t, got)
				}
			}
		}
	})
}

const guard = 20

// guarded has room for n elements and what nobody may write to around them.
func guarded(n int) []float32 {
	v := make([]float32, n+2*guard)
	for i := range v {
		v[i] = 12345
	}
	return v
}

func held(t *testing.T, v []float32) {
	t.Helper()
	for i := range guard {
		if v[i] != 12345 || v[len(v)-1-i] != 12345 {
			t.Fatal("written outside of dst")
		}
	}
}

func TestFunctions(t *testing.T) {
	functions := map[string]struct {
		f *Function
		// ulps are allowed, and slack for what cancels, relative to the element.
		ulps, slack float64
	}{
		"relu": {Relu, 0, 0}, "clip": {Clip(-1, 6), 0, 0}, "affine": {Affine(1.5, -0.25), 1, 0},
		"affineClip": {AffineClip(1.0/6, 0.5, 0, 1), 1, 0}, "gate": {Gate(1, 3, 0, 6, 1.0/6), 2, 0},
		"snap": {Snap(0.0371, -117, 138), 0, 0},
		"exp":  {&Function{kind: exp}, 3, 0}, "sigmoid": {Sigmoid, 3, 0}, "silu": {Silu, 3, 0}, "tanh": {Tanh, 3, 0}, "erf": {Erf, 3, 0}, "gelu": {Gelu, 3, 1.0 / (1 << 22)},
		"leaky": {Leaky(0.2), 0, 0}, "softplus": {Softplus, 3, 0}, "elu": {Elu(1.5, 1, 1), 3, 0}, "celu": {Elu(0.5, 2, 1), 3, 0}, "selu": {Elu(1.7580993, 1, 1.050701), 3, 0}, "mish": {Mish, 3, 0},
		"abs": {Abs, 0, 0}, "sqrt": {Sqrt, 0, 0}, "reciprocal": {Reciprocal, 0, 0}, "floor": {Floor, 0, 0}, "ceil": {Ceil, 0, 0}, "round": {Round, 0, 0}, "sign": {Sign, 0, 0},
		"log": {Log, 2, 0}, "sin": {Sin, 2, 0}, "cos": {Cos, 2, 0}, "softsign": {Softsign, 2, 0}, "above": {Above(0.25), 0, 0},
		"pow 2": {Power(2), 0, 0}, "pow 3": {Power(3), 1, 0}, "pow 4": {Power(4), 1, 0}, "pow 1/2": {Power(0.5), 0, 0}, "pow -1": {Power(-1), 0, 0}, "pow 1.7": {Power(1.7), 1, 0},
		"pow -1/2": {Power(-0.5), 1, 0}, "pow 0": {Power(0), 0, 0}, "pow -3": {Power(-3), 1, 0}, "pow inf": {Power(float32(math.Inf(1))), 0, 0}, "pow nan": {Power(float32(math.NaN())), 0, 0},
		"cubicGate": {CubicGate(1.5957691216, 0.0713548162726), 3, 1.0 / (1 << 22)},
	}
	onEach(t, func(t *testing.T) {
		src := values(20000)
		for name, c := range functions {
			t.Run(name, func(t *testing.T) {
				got := guarded(len(src))
				c.f.Apply(got[guard:guard+len(src)], src)
				held(t, got)
				for i, v := range src {
					g, want := float64(got[guard+i]), float64(float32(c.f.of(float64(v))))
					if math.IsNaN(g) != math.IsNaN(want) || math.IsInf(g, 0) != math.IsInf(want, 0) && math.Abs(want) < 3.4e38 {
						t.Fatalf("of %v is %v, want %v", v, g, want)
					}
					if math.IsNaN(g) || g == want || (name == "silu" || name == "mish") && v < -87 && v*float32(want) >= 0 && math.Abs(g) < 1e-35 {
						continue // the sigmoid or exp is a denormal number
					}
					_, e := math.Frexp(want)
					if off := math.Abs(g - want); off > c.ulps*math.Ldexp(1, max(e-24, -149))+c.slack*math.Abs(float64(v)) && math.Abs(want) > 0x1p-126 {
						t.Fatalf("of %v is %v, want %v: %.1f ulp", v, g, want, off/math.Ldexp(1, e-24))
					}
				}
				shifted, want := make([]float32, len(src)), make([]float32, len(src))
				Binary(Add, want, src, []float32{0.75})
				c.f.Apply(want, want)
				c.f.Add(shifted, src, 0.75)
				for i, v := range want {
					if !same(shifted[i], v) && shifted[i] != v {
						t.Fatalf("of %v + 0.75 is %v, want %v", src[i], shifted[i], v)
					}
				}
				for _, n := range lengths {
					part := guarded(n)
					c.f.Apply(part[guard:guard+n], src[3:3+n])
					held(t, part)
					for i := range n {
						if !same(part[guard+i], got[guard+3+i]) {
							t.Fatalf("element %d of %d alone: other bits", i, n)
						}
					}
				}
			})
		}
	})
}

// TestNearZeros holds what passes through 0 to the right value right beside it, where what
// is taken away from the argument leaves little.
func TestNearZeros(t *testing.T) {
	var turns, ones []float32
	for k := 1; k < 1<<16; k++ {
		v := float32(float64(k) * math.Pi / 2)
		turns = append(turns, math.Nextafter32(v, 0), v, math.Nextafter32(v, math.MaxFloat32), -v)
	}
	for up, down, k := float32(1), float32(1), 0; k < 100_000; k++ {
		up, down = math.Nextafter32(up, 2), math.Nextafter32(down, 0)
		ones = append(ones, up, down)
	}
	onEach(t, func(t *testing.T) {
		for _, c := range []struct {
			name string
			f    *Function
			src  []float32
		}{{"sin", Sin, turns}, {"cos", Cos, turns}, {"log", Log, ones}} {
			got := make([]float32, len(c.src))
			c.f.Apply(got, c.src)
			for i, v := range c.src {
				want := c.f.of(float64(v))
				_, e := math.Frexp(want)
				if off := math.Abs(float64(got[i]) - want); !(off <= 2*math.Ldexp(1, e-24)) {
					t.Fatalf("%s of %v is %v, want %v: %.1f ulp", c.name, v, got[i], want, off/math.Ldexp(1, e-24))
				}
			}
		}
	})
}

func TestSumsAndNorm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	onEach(t, func(t *testing.T) {
		for _, n := range lengths {
			v, scale, bias := make([]float32, n), make([]float32, n), make([]float32, n)
			sum, squares, top := 0.0, 0.0, math.Inf(-1)
			for i := range v {
				v[i], scale[i], bias[i] = float32(3+r.NormFloat64()), float32(r.NormFloat64()), float32(r.NormFloat64())
				sum += float64(v[i])
				squares += (float64(v[i]) - 3) * (float64(v[i]) - 3)
				top = max(top, float64(v[i]))
			}
			if got := Sum(v); math.Abs(got-sum) > 1e-9 {
				t.Errorf("the sum of %d is %v, want %v", n, got, sum)
			}
			if got := Squares(v, 3); math.Abs(got-squares) > 1e-9 {
				t.Errorf("the squares of %d are %v, want %v", n, got, squares)
			}
			if got := Largest(v); float64(got) != top {
				t.Errorf("the largest of %d is %v, want %v", n, got, top)
			}
			if n > 0 {
				got, all := guarded(n), 0.0
				Softmax(got[guard:guard+n], v)
				held(t, got)
				for _, e := range v {
					all += math.Exp(float64(e) - top)
				}
				for i, e := range v {
					if want := math.Exp(float64(e)-top) / all; math.Abs(float64(got[guard+i])-want) > 1e-6*want {
						t.Errorf("the softmax of %d has %v at %d, want %v", n, got[guard+i], i, want)
					}
				}
			}
			got := guarded(n)
			Norm(got[guard:guard+n], v, scale, bias, 3, 0.5)
			held(t, got)
			for i := range v {
				want := (float64(v[i])-3)*0.5*float64(scale[i]) + float64(bias[i])
				if math.Abs(float64(got[guard+i])-want) > 1e-6 {
					t.Fatalf("norm of element %d is %v, want %v", i, got[guard+i], want)
				}
			}
		}
	})
}

func TestColumns(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	onEach(t, func(t *testing.T) {
		for _, n := range lengths {
			v, means := make([]float32, n), make([]float64, n)
			sums, squares, wantSums, wantSquares := make([]float64, n+1), make([]float64, n+1), make([]float64, n), make([]float64, n)
			for i := range means {
				means[i] = r.NormFloat64()
			}
			sums[n], squares[n] = 7, 7
			for range 3 {
				for i := range v {
					v[i] = float32(r.NormFloat64())
					wantSums[i] += float64(v[i])
					wantSquares[i] += (float64(v[i]) - means[i]) * (float64(v[i]) - means[i])
				}
				SumColumns(sums[:n], v)
				SquareColumns(squares[:n], v, means)
			}
			for i := range v {
				if sums[i] != wantSums[i] || math.Abs(squares[i]-wantSquares[i]) > 1e-14*wantSquares[i] {
					t.Fatalf("column %d of %d: %v and %v, want %v and %v", i, n, sums[i], squares[i], wantSums[i], wantSquares[i])
				}
			}
			if sums[n] != 7 || squares[n] != 7 {
				t.Fatal("written beyond the sums")
			}
		}
	})
}

func TestTaps(t *testing.T) {
	src := values(1200)
	for i := range src {
		if i%50 != 0 && (src[i] != src[i] || math.Abs(float64(src[i])) > 100) {
			src[i] = float32(i % 7)
		}
	}
	offsets, weights := []int{0, 1, 2, 40, 41, 42, 80, 81, 150}, []float32{1, -2, 0.5, 3, 1, 1, -1, 0.25, 2}
	onEach(t, func(t *testing.T) {
		for _, n := range lengths {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				sums, most := guarded(n), guarded(n)
				Taps(sums[guard:guard+n], src, weights, offsets, 0.5)
				Most(most[guard:guard+n], src, offsets, -1)
				held(t, sums)
				held(t, most)
				for i := range n {
					sum, size, top := 0.5, 0.5, float32(-1)
					for k, o := range offsets {
						sum += float64(weights[k]) * float64(src[i+o])
						size += math.Abs(float64(weights[k]) * float64(src[i+o]))
						top = max(top, src[i+o])
					}
					if g := float64(sums[guard+i]); math.IsNaN(g) != math.IsNaN(sum) || math.Abs(g-sum) > 1e-6*size {
						t.Fatalf("sum %d is %v, want %v", i, g, sum)
					}
					if g := most[guard+i]; g != top && (g == g || top == top) {
						t.Fatalf("largest %d is %v, want %v", i, g, top)
					}
				}
			})
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	onEach(t, func(t *testing.T) {
		v, one, offsets := make([]float32, 100), make([]float32, 1), []int{0, 1}
		clip := Clip(0, 6)
		if n := testing.AllocsPerRun(100, func() {
			Binary(Add, v, v, one)
			clip.Apply(v, v)
			Exp(v, v, 1)
			Softmax(v, v)
			Norm(v, v, v, v, 0, 1)
			Taps(v[:40], v[50:], v[:2], offsets, 0)
			one[0] = float32(Sum(v)+Squares(v, 1)) + Largest(v)
		}); n > 0.5 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestLSTM(t *testing.T) {
	onEach(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 1))
		for _, n := range lengths {
			gates, c, h := make([]float32, 4*n), guarded(n), guarded(n)
			for i := range gates {
				gates[i] = float32(4 * r.NormFloat64())
			}
			before := make([]float32, n)
			for i := range before {
				before[i] = float32(r.NormFloat64())
			}
			copy(c[guard:], before)
			LSTM(gates, c[guard:guard+n], h[guard:guard+n])
			held(t, c)
			held(t, h)
			squash := func(v float32) float64 { return 1 / (1 + math.Exp(-float64(v))) }
			for i, old := range before {
				state := squash(gates[2*n+i])*float64(old) + squash(gates[i])*math.Tanh(float64(gates[3*n+i]))
				if math.Abs(state-float64(c[guard+i])) > 1e-6*max(1, math.Abs(state)) || math.Abs(squash(gates[n+i])*math.Tanh(state)-float64(h[guard+i])) > 1e-6 {
					t.Fatalf("cell %d of %d: %v and %v", i, n, c[guard+i], h[guard+i])
				}
			}
		}
	})
}
