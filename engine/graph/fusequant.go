package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// rounding makes one function of each pair of QuantizeLinear and DequantizeLinear that
// only rounds, and computes once what DequantizeLinear makes of constants for a
// convolution, or of a bias: the numbers are the same.
func (f *fuser) rounding() {
	budget := int64(foldedBytes)
	for _, c := range f.p.constants {
		if c != nil {
			budget += 8 * int64(c.Len())
		}
	}
	for i := range f.p.steps {
		if f.gone[i] || f.p.steps[i].node.Domain != DomainONNX {
			continue
		}
		switch f.p.steps[i].node.Op {
		case "DequantizeLinear":
			f.unpack(i, &budget)
		case "QuantizeLinear":
			f.snap(i)
		}
	}
}

// unpack computes step i where it is of a constant that a convolution reads, or of one
// of 32 bits.
func (f *fuser) unpack(i int, budget *int64) {
	s := &f.p.steps[i]
	in := make([]*engine.Tensor, len(s.in))
	for k, slot := range s.in {
		if slot < 0 {
			continue
		}
		if in[k] = f.p.constants[slot]; in[k] == nil {
			return
		}
	}
	if len(in) < 2 || in[0] == nil || in[1] == nil || len(s.out) != 1 || s.out[0] < 0 {
		return
	}
	convolved := slices.ContainsFunc(f.readers[s.out[0]], func(r int) bool {
		n := f.p.steps[r].node
		return n.Domain == DomainONNX && n.Op == "Conv"
	})
	if !convolved && in[0].DType() != engine.Int32 {
		return
	}
	out, err := s.call(&Exec{limit: *budget}, in)
	if err != nil || len(out) != 1 || out[0] == nil {
		return // it fails when it is run, as it would have
	}
	*budget -= tensorBytes(out[0])
	f.p.constants[s.out[0]] = out[0]
	f.gone[i], f.changed = true, true
}

// snap makes step i, and the DequantizeLinear that alone reads it, the function they are
// together. What only cuts off what lies below 0 before is part of it where the range
// begins there.
func (f *fuser) snap(i int) {
	s := &f.p.steps[i]
	if len(s.in) != 3 || s.in[0] < 0 || s.in[2] < 0 || f.p.types[s.in[0]] != engine.Float32 || len(s.out) != 1 || s.out[0] < 0 {
		return
	}
	back := f.only(s.out[0])
	if back < 0 {
		return
	}
	d := &f.p.steps[back]
	if d.node.Domain != DomainONNX || d.node.Op != "DequantizeLinear" || len(d.in) != 3 || d.in[0] != s.out[0] || d.in[1] != s.in[1] || d.in[2] != s.in[2] {
		return
	}
	for _, n := range []*Node{s.node, d.node} {
		for name := range n.Attrs {
			if name != "axis" {
				return // another type or precision
			}
		}
	}
	scale, ok := f.number(s.in[1])
	zero := f.p.constants[s.in[2]]
	if !ok || !(scale > 0) || zero == nil || zero.DType() != engine.Uint8 || zero.Len() != 1 {
		return
	}
	z := float32(engine.Data[uint8](zero)[0])
	fn, x := vector.Snap(scale, -z, 255-z), s.in[0]
	f.replace(back, x, fn, i)
	if r := f.p.producer[x]; fn.NotBelow() && f.is(r, "Relu") && f.only(x) == back {
		f.replace(back, f.p.steps[r].in[0], fn, r)
	}
}
