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

// unpack computes step i where it is of a constant that unpacks says so of.
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
	if !f.unpacks(in[0], s.out[0]) {
		return
	}
	out, err := s.call(&Exec{limit: *budget}, in)
	if err != nil || len(out) != 1 || out[0] == nil {
		return // it fails when it is run, as it would have
	}
	if !f.p.held.lay(tensorBytes(out[0])) {
		return
	}
	*budget -= tensorBytes(out[0])
	f.p.constants[s.out[0]] = out[0]
	f.gone[i], f.changed = true, true
	for _, r := range f.readers[s.out[0]] {
		if t := &f.p.steps[r]; !f.gone[r] && t.op != functionOp {
			f.rebuild(t, map[int]bool{s.out[0]: true})
		}
	}
}

// fewUnpacked is up to how many elements a constant is unpacked whatever reads it.
const fewUnpacked = 1 << 14

// unpacks reports whether what slot is made of constant c is to be computed once: where a
// convolution reads it, where it is small, and where a product does that has no kernel for
// what c is kept in.
func (f *fuser) unpacks(c *engine.Tensor, slot int) bool {
	if c.DType() == engine.Int32 {
		return true
	}
	products := len(f.readers[slot]) > 0
	for _, r := range f.readers[slot] {
		n := f.p.steps[r].node
		if n.Domain != DomainONNX {
			products = false
			continue
		}
		switch n.Op {
		case "Conv", "ConvTranspose":
			return true
		case "MatMul", "Gemm":
		case "LSTM", "GRU", "RNN":
			if isOctet(c.DType()) {
				return false // they keep bytes
			}
			products = false
		default:
			products = false
		}
	}
	if products {
		return !isOctet(c.DType()) || len(c.Shape()) != 2
	}
	return c.Len() <= fewUnpacked
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
	if !ok || !(scale > 0) || zero == nil || !isCode(zero.DType()) || zero.Len() != 1 {
		return
	}
	z, _ := oneZero(zero)
	least, most := outOfCodes(zero.DType(), z)
	fn, x := vector.Snap(scale, least, most), s.in[0]
	f.replace(back, x, fn, i)
	f.unranked(back)
	if r := f.p.producer[x]; fn.NotBelow() && f.is(r, "Relu") && f.only(x) == back {
		f.replace(back, f.p.steps[r].in[0], fn, r)
		f.unranked(back)
	}
}

// outOfCodes are the bounds of a value's steps, away from its zero point.
func outOfCodes(d engine.DType, zero int32) (low, high float32) {
	least, most := rangeOf(d)
	return float32(least) - float32(zero), float32(most) - float32(zero)
}

// unranked says that step m, a function that rounds, takes values of any dimensions: its
// scale gives a number none.
func (f *fuser) unranked(m int) {
	s := &f.p.steps[m]
	s.rank, s.kernel = 0, functionKernel(s.function, 0)
}

// unpacksEarly reports whether a step makes floats of a small constant that nothing computes
// with as it is kept: what is made of it in turn may be constant too.
func (f *fuser) unpacksEarly(s *step) bool {
	if s.node.Op != "DequantizeLinear" || len(s.in) < 2 || s.in[0] < 0 || len(s.out) != 1 || s.out[0] < 0 {
		return false
	}
	c := f.p.constants[s.in[0]]
	if c == nil || c.Len() > fewUnpacked {
		return false
	}
	for _, r := range f.readers[s.out[0]] {
		n := f.p.steps[r].node
		if n.Domain != DomainONNX {
			return false
		}
		switch n.Op {
		case "Conv", "ConvTranspose", "MatMul", "Gemm", "Gather", "LSTM", "GRU", "RNN":
			return c.Len() == 1
		}
	}
	return true
}

// pass has what reads an Identity of what DequantizeLinear makes read that itself, so that
// those who compute with what it is kept in find it.
func (f *fuser) pass(i int) {
	s := &f.p.steps[i]
	if s.node.Domain != DomainONNX || s.node.Op != "Identity" || len(s.in) != 1 || s.in[0] < 0 || len(s.out) != 1 || s.out[0] < 0 || f.outputs[s.out[0]] {
		return
	}
	from, out := f.p.producer[s.in[0]], s.out[0]
	if from < 0 || f.p.steps[from].node.Domain != DomainONNX || f.p.steps[from].node.Op != "DequantizeLinear" || f.p.types[s.in[0]] != f.p.types[out] {
		return
	}
	for _, r := range f.readers[out] {
		if f.p.steps[r].node.Captured > 0 {
			return
		}
	}
	for _, r := range f.readers[out] {
		t := &f.p.steps[r]
		t.in = slices.Clone(t.in)
		for k, slot := range t.in {
			if slot == out {
				t.in[k] = s.in[0]
			}
		}
	}
	f.readers[s.in[0]] = append(slices.DeleteFunc(f.readers[s.in[0]], func(r int) bool { return r == i }), f.readers[out]...)
	f.readers[out] = nil
	f.gone[i], f.changed = true, true
}
