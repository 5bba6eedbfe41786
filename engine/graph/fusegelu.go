package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// cubic is a polynomial of one value up to its third power, the lowest first.
type cubic [4]float64

func (c cubic) times(d cubic) (p cubic, ok bool) {
	for i, a := range c {
		for k, b := range d {
			switch {
			case a == 0 || b == 0:
			case i+k >= len(p):
				return p, false
			default:
				p[i+k] += a * b
			}
		}
	}
	return p, true
}

// spelled is what is found while nodes are read as one function of x.
type spelled struct {
	x     int
	taken []int
	// rank is the most dimensions of a number among them: the result has as many.
	rank int
	// left bounds the nodes that are looked at.
	left int
}

// scalar is number, whatever its dimensions.
func (f *fuser) scalar(slot int) (v float64, rank int, ok bool) {
	t := f.p.constantOf(slot)
	if t == nil || t.DType() != engine.Float32 || t.Len() != 1 {
		return 0, 0, false
	}
	v = float64(engine.Data[float32](t)[0])
	return v, len(t.Shape()), !math.IsNaN(v) && !math.IsInf(v, 0)
}

// polynomial reads a slot as a polynomial of x, however it is spelled.
func (f *fuser) polynomial(slot int, s *spelled) (c cubic, ok bool) {
	if slot == s.x {
		return cubic{1: 1}, true
	}
	if v, rank, ok := f.scalar(slot); ok {
		s.rank = max(s.rank, rank)
		return cubic{v}, true
	}
	if slot < 0 || s.left == 0 {
		return c, false
	}
	s.left--
	i := f.p.producer[slot]
	switch {
	case f.is(i, "Add"), f.is(i, "Sub"), f.is(i, "Mul"), f.is(i, "Div"), f.is(i, "Pow"):
	default:
		return c, false
	}
	in := f.p.steps[i].in
	if len(in) != 2 {
		return c, false
	}
	s.taken = append(s.taken, i)
	a, ok := f.polynomial(in[0], s)
	if !ok {
		return c, false
	}
	b, ok := f.polynomial(in[1], s)
	if !ok {
		return c, false
	}
	number := b == cubic{b[0]}
	switch {
	case f.is(i, "Add"), f.is(i, "Sub"):
		sign := 1.0
		if f.is(i, "Sub") {
			sign = -1
		}
		for k := range c {
			c[k] = a[k] + sign*b[k]
		}
		return c, true
	case f.is(i, "Mul"):
		return a.times(b)
	case f.is(i, "Div"):
		if !number || b[0] == 0 {
			return c, false
		}
		return a.times(cubic{1 / b[0]})
	case number && b[0] == 2:
		return a.times(a)
	case number && b[0] == 3:
		if c, ok = a.times(a); !ok {
			return c, false
		}
		return c.times(a)
	}
	return c, false
}

// mostSpelled is how many nodes a function's argument may be spelled in.
const mostSpelled = 12

// gate is what x (1 + s(p(x))) / 2 is where step i is s, the error function or the
// hyperbolic tangent; nil where it is nothing that is known.
func (f *fuser) gate(i, x int) (*vector.Function, *spelled) {
	s := &spelled{x: x, left: mostSpelled}
	p, ok := f.polynomial(f.p.steps[i].in[0], s)
	if !ok || p[0] != 0 || p[2] != 0 {
		return nil, nil
	}
	if f.is(i, "Erf") {
		if p[3] != 0 || math.Abs(p[1]-math.Sqrt2/2) > 1e-6 {
			return nil, nil
		}
		return vector.Gelu, s
	}
	// (1 + tanh(u)) / 2 is sigmoid(2u).
	a, b := float32(2*p[1]), float32(2*p[3])
	if !(a > 0 && b > 0 && a < 1e3 && b < 1e3) {
		return nil, nil
	}
	return vector.CubicGate(a, b), s
}

// gelu looks for the function whose error function or hyperbolic tangent is step i: one is
// added to that, and the sum, x and a half are multiplied in any order.
func (f *fuser) gelu(i int) {
	add := f.only(f.p.steps[i].out[0])
	if !f.is(add, "Add") {
		return
	}
	o, ok := f.other(add, f.p.steps[i].out[0])
	one, rank, number := f.scalar(o)
	if !ok || !number || one != 1 {
		return
	}
	var fn *vector.Function
	var found *spelled
	factor, last, chain := 1.0, add, []int{i, add}
	for range 3 {
		out := f.p.steps[last].out[0]
		next := f.only(out)
		if next < 0 || !f.is(next, "Mul") && !f.is(next, "Div") {
			return
		}
		o, ok := f.other(next, out)
		v, r, number := f.scalar(o)
		switch {
		case !ok || f.is(next, "Div") && (!number || v == 0 || f.p.steps[next].in[0] != out):
			return
		case number && f.is(next, "Div"):
			factor, rank = factor/v, max(rank, r)
		case number:
			factor, rank = factor*v, max(rank, r)
		case fn != nil:
			return
		default:
			if fn, found = f.gate(i, o); fn == nil {
				var by float64
				if fn, found, by = f.scaledGate(i, o); fn == nil {
					return
				}
				factor *= by
			}
		}
		last, chain = next, append(chain, next)
		if fn != nil && factor == 0.5 {
			break
		}
	}
	if fn == nil || factor != 0.5 {
		return
	}
	chain = append(chain, found.taken...)
	if !f.closed(chain, last) {
		return
	}
	f.replace(last, found.x, fn, chain...)
	f.rank(last, max(rank, found.rank))
}

// scaledGate is gate where slot is x times a number.
func (f *fuser) scaledGate(i, slot int) (fn *vector.Function, s *spelled, by float64) {
	scale := f.p.producer[slot]
	if !f.is(scale, "Mul") && !f.is(scale, "Div") || len(f.p.steps[scale].in) != 2 {
		return nil, nil, 0
	}
	for k, number := range f.p.steps[scale].in {
		v, rank, ok := f.scalar(number)
		if !ok || v == 0 || f.is(scale, "Div") && k == 0 {
			continue
		}
		if f.is(scale, "Div") {
			v = 1 / v
		}
		if fn, s = f.gate(i, f.p.steps[scale].in[1-k]); fn != nil {
			s.taken, s.rank = append(s.taken, scale), max(s.rank, rank)
			return fn, s, v
		}
	}
	return nil, nil, 0
}
