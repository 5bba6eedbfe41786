package graph

import (
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/vector"
)

// leastNarrow is from how many elements on a convolution's weights stay in 8 or 16 bits.
// Where Winograd's algorithm takes fewer products of floats they must be more.
const (
	leastNarrow         = 1 << 16
	leastNarrowWinograd = 1 << 18
)

// keepsNarrow reports whether a convolution with weights of that shape may keep them narrow:
// over lines or images, all channels together.
func keepsNarrow(n *Node, shape []int) bool {
	if n.Domain != DomainONNX || n.Op != "Conv" || len(shape) != 3 && len(shape) != 4 {
		return false
	}
	if a, ok := n.Attrs["group"]; ok && a.Int != 1 {
		return false
	}
	least := leastNarrow
	if len(shape) == 4 && convolve.Winogradable(shape[0], shape[1], shape[2]*shape[3]) && adjacent(n) {
		least = leastNarrowWinograd
	}
	return volume(shape) >= least
}

// keepsFilters reports whether only convolutions read a value, as weights of that shape that
// they may keep narrow.
func (f *fuser) keepsFilters(slot int, shape []int) bool {
	for _, r := range f.readers[slot] {
		n := &f.p.steps[r]
		if f.gone[r] || !slices.Contains(n.in, slot) {
			continue
		}
		if !keepsNarrow(n.node, shape) || n.in[1] != slot || n.in[0] == slot || n.input(2) == slot {
			return false
		}
	}
	return len(f.readers[slot]) > 0
}

// narrowFilters has convolutions read constants in 8 or 16 bits as they are.
func (f *fuser) narrowFilters() {
	for i := range f.p.steps {
		s := &f.p.steps[i]
		if !f.is(i, "Conv") || len(s.in) < 2 || s.in[1] < 0 || s.in[1] == s.in[0] {
			continue
		}
		slot := s.in[1]
		w, ok := f.narrowOf(slot)
		if !ok || !w.each(0) || !f.keepsFilters(slot, w.t.Shape()) {
			continue
		}
		t := *s
		t.in = slices.Clone(s.in)
		t.in[1] = f.p.steps[f.p.producer[slot]].in[0]
		t.op, t.narrow = functionOp, &w
		t.kernel = narrowKernel(s.node, &w, nil)
		f.become(i, t)
		if len(f.readers[slot]) == 0 {
			f.gone[f.p.producer[slot]] = true
		}
	}
}

// each has w have a scale and a zero for each place on an axis, where it has scales; it
// reports false where they are of another.
func (w *narrowed) each(axis int) bool {
	n := w.t.Shape()[axis]
	switch {
	case w.bytes == nil:
		return true
	case len(w.scale) == 1:
		w.scale, w.zero = slices.Repeat(w.scale, n), slices.Repeat(w.zero, n)
	case w.axis != axis:
		return false
	}
	w.axis = axis
	return !slices.ContainsFunc(w.scale, func(v float32) bool { return v-v != 0 })
}

// scaled is w with the scales of channels of output, times more.
func (w *narrowed) scaled(by []float64) *narrowed {
	to := *w
	if to.scale = make([]float32, len(by)); w.scale == nil {
		for c, v := range by {
			to.scale[c] = float32(v)
		}
		return &to
	}
	for c, v := range by {
		to.scale[c] = float32(float64(w.scale[c]) * v)
	}
	return &to
}

// wide makes floats of all.
func (w *narrowed) wide(x *Exec) (*engine.Tensor, error) {
	t, out, err := rawOf[float32](x, w.t.Shape()...)
	if err != nil {
		return nil, err
	}
	if w.halves != nil {
		vector.Widen(w.precision, out, w.halves)
	}
	per := len(out) / w.t.Shape()[0]
	for i := range out {
		switch c := i / per; {
		case w.bytes != nil:
			out[i] = (float32(w.bytes[i]) - w.zero[c]) * w.scale[c]
		case w.scale != nil:
			out[i] *= w.scale[c]
		}
	}
	return t, nil
}

// narrowKernel is a convolution whose weights nobody has laid out, and what follows it.
func narrowKernel(n *Node, w *narrowed, then *vector.Function) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Float32 {
			return nil, errUnfused
		}
		c, err := convOf(x, n, in, in[0].Shape(), w.t.Shape())
		if err != nil {
			return nil, err
		}
		wide, err := w.wide(x)
		if err != nil {
			return nil, err
		}
		operands := x.list(3)
		operands[0], operands[1], operands[2] = in[0], wide, arg(in, 2)
		return x.one(convThen[float32](x, n, c, operands, then))
	}
}

// weighNarrow is weigh for weights in 8 or 16 bits, which become part of their scales.
func (f *fuser) weighNarrow(i int, scales, bias []float64, then *vector.Function, out int) bool {
	s := &f.p.steps[i]
	w := s.narrow
	if slices.ContainsFunc(scales, func(v float64) bool { return v != 1 }) {
		w = w.scaled(scales)
	}
	sum := 0.0
	for _, v := range w.scale {
		sum += math.Abs(float64(v))
	}
	b := make([]float32, len(bias))
	for k, v := range bias {
		b[k] = float32(v)
		sum += math.Abs(float64(b[k]))
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) || !f.p.held.lay(4*int64(len(b))) {
		return false
	}
	biases, err := engine.Of(b, len(b))
	if err != nil {
		return false
	}
	f.p.steps[i] = step{
		node: s.node, op: functionOp, kernel: narrowKernel(s.node, w, then), in: []int{s.in[0], s.in[1], f.constant(biases)}, out: []int{out}, function: then, narrow: w,
	}
	return true
}

// filterLen is how many elements, or what takes as much, the filter of a convolution takes at
// most.
func filterLen(s *step, w *engine.Tensor, out int) int {
	n := convolve.FilterLen(out, w.Len()/out)
	if s.narrow == nil {
		return n
	}
	const room = 128 // for biases, scales and zeros of a panel that is not full
	return n*w.DType().Size()/4 + 3*out + room
}

// filterWeights are the constant weights of a convolution, in whatever type it keeps them, or
// nil.
func (f *fuser) filterWeights(s *step) *engine.Tensor {
	if s.narrow != nil {
		return s.narrow.t
	}
	if w := f.p.constantOf(s.in[1]); w != nil && w.DType() == engine.Float32 {
		return w
	}
	return nil
}
