package vector

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestNormRows(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 2))
	onEach(t, func(t *testing.T) {
		for _, n := range lengths[1:] {
			for _, rows := range []int{0, 1, 3} {
				src, scale, bias := make([]float32, n*rows), make([]float32, n), make([]float32, n)
				for i := range src {
					src[i] = float32(100 + r.NormFloat64())
				}
				for i := range scale {
					scale[i], bias[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
				}
				got, means, invs := guarded(n*rows), guarded(rows), guarded(rows)
				NormRows(got[guard:guard+n*rows], src, scale, bias, 1e-3, means[guard:guard+rows], invs[guard:guard+rows])
				held(t, got)
				held(t, means)
				held(t, invs)
				inPlace := append([]float32(nil), src...)
				NormRows(inPlace, inPlace, scale, bias, 1e-3, nil, nil)
				for row := range rows {
					mean, variance := 0.0, 0.0
					for _, v := range src[row*n : (row+1)*n] {
						mean += float64(v) / float64(n)
					}
					for _, v := range src[row*n : (row+1)*n] {
						variance += (float64(v) - mean) * (float64(v) - mean) / float64(n)
					}
					inv := 1 / math.Sqrt(variance+1e-3)
					if math.Abs(float64(means[guard+row])-mean) > 1e-7*mean || math.Abs(float64(invs[guard+row])-inv) > 1e-7*inv {
						t.Fatalf("row %d of %d elements has %v and %v, want %v and %v", row, n, means[guard+row], invs[guard+row], mean, inv)
					}
					want := make([]float32, n)
					Norm(want, src[row*n:(row+1)*n], scale, bias, means[guard+row], invs[guard+row])
					for i, w := range want {
						if g := got[guard+row*n+i]; !same(g, w) || !same(inPlace[row*n+i], w) {
							t.Fatalf("element %d of %d in row %d is %v, in place %v, want %v", i, n, row, g, inPlace[row*n+i], w)
						}
					}
				}
			}
		}
	})
}

// A row that has no number has none in its result, and the next is as it would be alone.
func TestNormRowsKeepRowsApart(t *testing.T) {
	onEach(t, func(t *testing.T) {
		const n = 13
		src, one := make([]float32, 2*n), make([]float32, n)
		for i := range src {
			src[i] = float32(i * i)
		}
		for i := range one {
			one[i] = 1
		}
		src[n-1] = float32(math.NaN())
		got, alone := make([]float32, 2*n), make([]float32, n)
		NormRows(got, src, one, one, 0, nil, nil)
		NormRows(alone, src[n:], one, one, 0, nil, nil)
		for i := range n {
			if got[i] == got[i] || got[n+i] != alone[i] {
				t.Fatalf("element %d is %v and in the next row %v, want NaN and %v", i, got[i], got[n+i], alone[i])
			}
		}
	})
}

func TestFewColumns(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 3))
	onEach(t, func(t *testing.T) {
		for k := 1; k <= MostFew; k++ {
			for n := 1; n <= MostFew; n++ {
				weights, bias := make([]float32, k*n), make([]float32, n)
				for _, v := range [][]float32{weights, bias} {
					for i := range v {
						v[i] = float32(r.NormFloat64())
					}
				}
				f, plain := NewFewColumns(k, n, weights, bias), NewFewColumns(k, n, weights, nil)
				for _, rows := range []int{0, 1, 2, 3, 7, 8, 9, 31, 66} {
					src, want := make([]float32, rows*k), make([]float32, rows*n)
					for i := range src {
						src[i] = float32(r.NormFloat64())
					}
					if rows > 3 {
						src[k] = float32(math.NaN()) // of the second row only
					}
					for i := range want {
						sum := 0.0
						for l := range k {
							sum += float64(src[i/n*k+l]) * float64(weights[l*n+i%n])
						}
						want[i] = float32(sum)
					}
					got, without := guarded(rows*n), guarded(rows*n)
					f.Product(got[guard:guard+rows*n], src)
					plain.Product(without[guard:guard+rows*n], src)
					held(t, got)
					held(t, without)
					for i, w := range want {
						g, p, b := float64(got[guard+i]), float64(without[guard+i]), float64(bias[i%n])
						if w != w && g != g && p != p {
							continue
						}
						if !(math.Abs(g-float64(w)-b) <= 1e-5 && math.Abs(p-float64(w)) <= 1e-5) {
							t.Fatalf("element %d of %d rows of %d x %d is %v and without bias %v, want %v and %v", i, rows, k, n, g, p, float64(w)+b, w)
						}
					}
				}
			}
		}
	})
}
