package vector

import (
	"math"
	"math/rand/v2"
	"testing"
)

// nearest is the definition: the number of p next to v, of two as near the one whose last
// bit is 0.
func nearest(p Precision, v float32) float64 {
	digits, least, most := 11, -24, 65504.0
	if p == Brain {
		digits, least, most = 8, -133, 0x1.fep127
	}
	if v != v || math.IsInf(float64(v), 0) {
		return float64(v)
	}
	_, e := math.Frexp(float64(v))
	unit := math.Ldexp(1, max(e-digits, least))
	r := math.RoundToEven(float64(v)/unit) * unit
	if math.Abs(r) > most {
		return math.Copysign(math.Inf(1), r)
	}
	return r
}

func TestHalves(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	src := values(70000)
	for i := range src[:4000] { // about ties, and about where numbers end
		src[i] = nearby(r, []float32{65504, 65519.99, 65520, 0x1p-14, 0x1p-24, 0x1p-25, 0x1p-133, 0x1p-134, 0x1.fep127, 1}[i%10])
	}
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	onEach(t, func(t *testing.T) {
		for _, p := range []Precision{Half, Brain} {
			wide, back := make([]float32, len(all)), make([]uint16, len(all))
			Widen(p, wide, all)
			Narrow(p, back, wide)
			for i, v := range wide {
				if !same(v, p.Value(all[i])) || v == v && back[i] != all[i] || v != v && p.Value(back[i]) == p.Value(back[i]) {
					t.Fatalf("precision %d: %#04x became %v and %#04x", p, all[i], v, back[i])
				}
			}
			bits, rounded := make([]uint16, len(src)), make([]float32, len(src))
			Narrow(p, bits, src)
			Rounded(p).Apply(rounded, src)
			for i, v := range src {
				want := float32(nearest(p, v))
				if !same(p.Value(bits[i]), want) || !same(rounded[i], want) || p.Bits(v) != bits[i] && v == v {
					t.Fatalf("precision %d: %x became %x and %x, want %x", p, v, p.Value(bits[i]), rounded[i], want)
				}
			}
			for _, n := range lengths {
				got, bits := guarded(n), make([]uint16, n+2)
				Narrow(p, bits[1:n+1], src[3:3+n])
				Widen(p, got[guard:guard+n], bits[1:n+1])
				held(t, got)
				for i := range n {
					if !same(got[guard+i], rounded[3+i]) {
						t.Fatalf("element %d of %d is %v, want %v", i, n, got[guard+i], rounded[3+i])
					}
				}
				if bits[0] != 0 || bits[n+1] != 0 {
					t.Fatal("written outside of dst")
				}
			}
		}
	})
}

// nearby is a number a few units from v, of either sign.
func nearby(r *rand.Rand, v float32) float32 {
	b := math.Float32bits(v) + uint32(r.IntN(9)) - 4
	return math.Float32frombits(b | uint32(r.IntN(2))<<31)
}

func TestGRU(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 8))
	onEach(t, func(t *testing.T) {
		for _, n := range lengths {
			gates, inner, h, was := make([]float32, 3*n), make([]float32, n), guarded(n), make([]float32, n)
			for i := range gates {
				gates[i] = float32(4 * r.NormFloat64())
			}
			for i := range n {
				inner[i], was[i] = float32(r.NormFloat64()), float32(2*r.Float64()-1)
			}
			copy(h[guard:], was)
			GRU(gates, inner, h[guard:guard+n])
			held(t, h)
			for i := range n {
				s := func(v float32) float64 { return 1 / (1 + math.Exp(-float64(v))) }
				y := math.Tanh(float64(gates[2*n+i]) + s(gates[n+i])*float64(inner[i]))
				want := (1-s(gates[i]))*y + s(gates[i])*float64(was[i])
				if got := float64(h[guard+i]); !(math.Abs(got-want) <= 1e-6) {
					t.Fatalf("cell %d of %d is %v, want %v", i, n, got, want)
				}
			}
		}
	})
}
