package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// leastHalves is from how many elements on a matrix is laid out in 16 bits: products of few
// rows are faster with floats, which smaller ones are laid out as where there are kernels.
const leastHalves = 1 << 18

// keepsHalves reports whether step i makes floats of a constant in 16 bits that only products
// multiply by, or convolutions or recurrent nodes have as weights. It is left to them; what they do not take is computed by
// widenRest.
func (f *fuser) keepsHalves(i int) bool {
	s := &f.p.steps[i]
	if s.node.Op != "Cast" || s.node.Domain != DomainONNX || len(s.in) != 1 || s.in[0] < 0 || s.out[0] < 0 || f.outputs[s.out[0]] || f.p.types[s.out[0]] != engine.Float32 {
		return false
	}
	w := f.p.constants[s.in[0]]
	if w == nil || !isHalf(w.DType()) {
		return false
	}
	if f.keepsFilters(s.out[0], w.Shape()) {
		return true
	}
	if len(w.Shape()) == 3 {
		return w.Len() >= leastHalves && f.keepsStack(s.out[0])
	}
	if len(w.Shape()) != 2 {
		return false
	}
	for _, r := range f.readers[s.out[0]] {
		n := &f.p.steps[r]
		if f.gone[r] || !slices.Contains(n.in, s.out[0]) {
			continue // a product has taken it
		}
		if n.node.Domain != DomainONNX || n.node.Op != "MatMul" && n.node.Op != "Gemm" || n.in[1] != s.out[0] || n.in[0] == s.out[0] || f.p.constantOf(n.in[0]) != nil {
			return false
		}
	}
	return len(f.readers[s.out[0]]) > 0
}

// keepsTable reports whether step i makes floats of a constant in 16 bits that others only
// pick from: those make floats of what they pick.
func (f *fuser) keepsTable(i int) bool {
	s := &f.p.steps[i]
	if s.node.Op != "Cast" || s.node.Domain != DomainONNX || len(s.in) != 1 || s.in[0] < 0 || s.out[0] < 0 || f.outputs[s.out[0]] || f.p.types[s.out[0]] != engine.Float32 {
		return false
	}
	w, slot := f.p.constants[s.in[0]], s.out[0]
	if w == nil || !isHalf(w.DType()) || len(f.readers[slot]) == 0 {
		return false
	}
	for _, r := range f.readers[slot] {
		n := &f.p.steps[r]
		if f.gone[r] || n.op == functionOp || n.node.Domain != DomainONNX || n.node.Op != "Gather" || n.in[0] != slot || n.in[1] == slot {
			return false
		}
	}
	for _, r := range slices.Clone(f.readers[slot]) {
		n := f.p.steps[r]
		pick := n.kernel
		f.become(r, step{node: n.node, op: functionOp, in: []int{s.in[0], n.in[1]}, kernel: func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			out, err := pick(x, in)
			if err != nil {
				return nil, err
			}
			return one(castTensor(x, out[0], engine.Float32, true))
		}})
	}
	f.gone[i], f.changed = true, true
	return true
}

// keepsStack reports whether only recurrent nodes read a value, as their weights.
func (f *fuser) keepsStack(slot int) bool {
	for _, r := range f.readers[slot] {
		n := &f.p.steps[r]
		if f.gone[r] || !slices.Contains(n.in, slot) {
			continue
		}
		if n.node.Domain != DomainONNX || gates[n.node.Op] == 0 || n.in[0] == slot || slices.Contains(n.in[3:], slot) || !quickNode(n.node, n.input(4) >= 0, n.input(7) >= 0) {
			return false
		}
	}
	return len(f.readers[slot]) > 0
}

// halfMatrix returns the step that makes a value from a constant matrix in 16 bits, or nil.
func (f *fuser) halfMatrix(slot int) *step {
	i := f.p.producer[slot]
	if i < 0 || f.p.constantOf(slot) != nil || !f.keepsHalves(i) {
		return nil
	}
	return &f.p.steps[i]
}

// halvesOf lays out a constant matrix in 16 bits, as floats where it is small, nil where it
// finds no room.
func (f *fuser) halvesOf(w *engine.Tensor, trans bool) *weights {
	laid := packed{w, trans}
	if known := f.p.packs[laid]; known != nil {
		return known
	}
	k, n := w.Shape()[0], w.Shape()[1]
	if trans {
		k, n = n, k
	}
	d := w.DType()
	if w.Len() < leastHalves && blas.Kernels() || min(k, n) < panelColumns/2 {
		d = engine.Float32
	}
	if !fillsPanels(k, n, d) || !f.p.held.lay(packedBytes(k, n, d)) {
		return nil
	}
	out := &weights{tensor: w}
	if d == engine.Float32 {
		out.packed = blas.Pack(trans, k, n, widenedFloats(w), w.Shape()[1])
	} else {
		out.packed = blas.PackHalves(trans, k, n, engine.Data[uint16](w), w.Shape()[1], precisionOf(d))
	}
	f.p.packs[laid] = out
	return out
}

// widenedFloats are the elements of a tensor in 16 bits.
func widenedFloats(w *engine.Tensor) []float32 {
	v := make([]float32, w.Len())
	vector.Widen(precisionOf(w.DType()), v, engine.Data[uint16](w))
	return v
}

// widenRest computes what keepsHalves has left where a step still reads it.
func (f *fuser) widenRest() {
	for _, i := range f.kept {
		if f.gone[i] {
			continue
		}
		s := &f.p.steps[i]
		reads := func(t *step) bool { return slices.Contains(t.in, s.out[0]) }
		var readers []*step
		for k := range f.p.steps {
			if !f.gone[k] && reads(&f.p.steps[k]) {
				readers = append(readers, &f.p.steps[k])
			}
		}
		if len(readers) == 0 {
			f.gone[i] = true
			continue
		}
		w := f.p.constants[s.in[0]]
		if !f.p.held.lay(4 * int64(w.Len())) {
			continue // it is computed by each run
		}
		out, err := castTensor(&Exec{limit: 4 * int64(w.Len())}, w, engine.Float32, true)
		if err != nil {
			f.p.held.give(4 * int64(w.Len()))
			continue
		}
		f.p.constants[s.out[0]] = out
		f.gone[i], f.changed = true, true
		for _, r := range readers {
			if r.op != functionOp {
				f.rebuild(r, map[int]bool{s.out[0]: true})
			}
		}
	}
}
