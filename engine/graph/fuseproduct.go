package graph

import (
	"slices"
	"sync"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// follows is what is done to a product of matrices while it is in the caches: a bias of
// each column, another value added, a function.
type follows struct {
	bias []float32
	// added is the step's input that is added, 0 for none.
	added int
	then  *vector.Function
}

// end is what is done to each piece of a product of n columns; also is what is added. Its
// function is made once, so that a run makes none.
type end struct {
	follows
	also []float32
	n    int
	f    func(row, col int, c []float32)
}

var ends = sync.Pool{New: func() any {
	e := new(end)
	e.f = e.apply
	return e
}}

func (e *end) apply(row, col int, c []float32) {
	if e.bias != nil {
		vector.Binary(vector.Add, c, c, e.bias[col:col+len(c)])
	}
	if e.also != nil {
		vector.Binary(vector.Add, c, c, e.also[row*e.n+col:][:len(c)])
	}
	if e.then != nil {
		e.then.Apply(c, c)
	}
}

// product takes what follows a product with constant weights into it.
func (f *fuser) product(i int) {
	s := &f.p.steps[i]
	gemm := f.is(i, "Gemm")
	if !gemm && !f.is(i, "MatMul") {
		return
	}
	in := []int{s.in[0], s.in[1]}
	from := f.dequantised(s.in[1])
	half := f.halfMatrix(s.in[1])
	switch {
	case from != nil:
		in[1] = from.in[0]
	case half != nil:
		in[1] = half.in[0]
	}
	w := f.p.constantOf(in[1])
	if w == nil || from == nil && half == nil && w.DType() != engine.Float32 || len(w.Shape()) != 2 {
		return
	}
	b := &builder{node: s.node, attrs: &attrReader{node: s.node, read: map[string]bool{}}, constants: []*engine.Tensor{nil, w}, packs: f.p.packs, held: f.p.held}
	g := gemmOf(b)
	n := w.Shape()[1]
	if gemm && g.transB {
		n = w.Shape()[0]
	}
	then := follows{}
	if gemm && (g.alpha != 1 || !f.gemmBias(s, g, n, &then)) {
		return
	}
	last, taken := i, []int{i}
	for next := f.only(s.out[0]); next >= 0 && then.then == nil; next = f.only(f.p.steps[last].out[0]) {
		out := f.p.steps[last].out[0]
		other, two := f.other(next, out)
		switch {
		case f.follows(next, out, 2) != nil:
			then.then = f.functions[next]
		case !f.is(next, "Add") || !two || then.added > 0:
			next = -1
		case then.bias == nil && f.perColumn(other, n) != nil:
			then.bias = f.perColumn(other, n)
		case f.p.typeOf(other) == engine.Float32 && f.p.constantOf(other) == nil:
			then.added, in = len(in), append(in, other)
		default:
			next = -1
		}
		if next < 0 {
			break
		}
		last, taken = next, append(taken, next)
	}
	switch {
	case from != nil:
		g.weights = f.bytesOf(from, g.transB)
	case half != nil:
		g.weights = f.halvesOf(w, g.transB)
	case last > i:
		g.weights = weightsOf(b, 1, g.transB)
	}
	if g.weights == nil {
		return
	}
	if from != nil && f.only(s.in[1]) == i {
		f.gone[f.p.producer[s.in[1]]] = true
	}
	for _, k := range taken {
		f.gone[k] = k != last
	}
	f.changed = true
	var few *vector.FewColumns
	if from == nil && !g.transA {
		few = fewColumns(w, g.transB, then.bias)
	}
	f.p.steps[last] = step{node: s.node, op: functionOp, kernel: productKernel(g, gemm, then, few), in: in, out: f.p.steps[last].out}
}

// dequantised returns the step that makes a value from a constant matrix of 8 bits, or
// nil.
func (f *fuser) dequantised(slot int) *step {
	i := f.p.producer[slot]
	if i < 0 || f.p.constantOf(slot) != nil || f.p.typeOf(slot) != engine.Float32 {
		return nil
	}
	s := &f.p.steps[i]
	if s.node.Op != "DequantizeLinear" || s.node.Domain != DomainONNX || s.node.Attrs["block_size"].Int != 0 {
		return nil
	}
	if w := f.p.constantOf(s.in[0]); w == nil || w.DType() != engine.Int8 && w.DType() != engine.Uint8 || len(w.Shape()) != 2 {
		return nil
	}
	return s
}

// leastBytes is from how many columns on a matrix is smaller in panels of bytes than
// it would be in floats.
const leastBytes = 8

// bytesOf lays out the matrix in 8 bits that a step makes floats of, nil where its
// scales are not one for all or one for each column.
func (f *fuser) bytesOf(s *step, trans bool) *weights {
	w := f.p.constantOf(s.in[0])
	laid := packed{w, trans}
	of := [2]*engine.Tensor{f.p.constantOf(s.in[1]), nil}
	if len(s.in) > 2 {
		of[1] = f.p.constantOf(s.in[2])
	}
	if known := f.p.packs[laid]; known != nil && known.of == of {
		return known
	}
	k, n, axis := w.Shape()[0], w.Shape()[1], 1
	if trans {
		k, n, axis = n, k, 0
	}
	if k == 0 || n < leastBytes {
		return nil
	}
	at := 1
	if a, ok := s.node.Attrs["axis"]; ok {
		at = int(a.Int)
	}
	if at < 0 {
		at += 2
	}
	scale, zero := eachColumn(of[0], n, at == axis), make([]float32, n)
	if len(s.in) > 2 && s.in[2] >= 0 {
		zero = eachColumn(of[1], n, at == axis)
	}
	if scale == nil || zero == nil || of[0].DType() != engine.Float32 {
		return nil
	}
	if !f.p.held.lay(packedBytes(k, n, engine.Int8) + 8*int64(n)) {
		return nil
	}
	q := engine.Data[int8](w)
	if u := engine.Data[uint8](w); u != nil {
		// Bytes and zeros both less 128 are as far from each other.
		q = make([]int8, len(u))
		for i, v := range u {
			q[i] = int8(v ^ 0x80)
		}
		for j := range zero {
			zero[j] -= 128
		}
	}
	out := &weights{tensor: w, of: of, packed: blas.PackBytes(trans, k, n, q, w.Shape()[1], scale, zero)}
	f.p.packs[laid] = out
	return out
}

// eachColumn returns a copy of a constant of n elements, or of one n times, where it may
// have one for each column; else nil.
func eachColumn(t *engine.Tensor, n int, columns bool) []float32 {
	if t == nil {
		return nil
	}
	v, ok := t.Float64s()
	if ok && len(v) == 1 {
		v = slices.Repeat(v, n)
	} else if !ok || !columns || len(v) != n || len(t.Shape()) != 1 {
		return nil
	}
	out := make([]float32, n)
	for i, e := range v {
		out[i] = float32(e)
	}
	return out
}

// gemmBias reads what a Gemm adds, where that is a constant for each column or nothing.
func (f *fuser) gemmBias(s *step, g gemm, n int, then *follows) bool {
	if len(s.in) < 3 || s.in[2] < 0 || g.beta == 0 {
		return true
	}
	then.bias = f.perColumn(s.in[2], n)
	return g.beta == 1 && then.bias != nil
}

// perColumn returns a constant float32 that is one row of n elements, or nil.
func (f *fuser) perColumn(slot, n int) []float32 {
	t := f.p.constantOf(slot)
	if t == nil || t.DType() != engine.Float32 || t.Len() != n || len(t.Shape()) == 0 || len(t.Shape()) > 2 || t.Shape()[len(t.Shape())-1] != n {
		return nil
	}
	return engine.Data[float32](t)
}

// productKernel is MatMul or Gemm with what follows, by few, which has the bias, where that
// is not nil.
func productKernel(g gemm, is2D bool, then follows, few *vector.FewColumns) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a := in[0]
		p := packedOf[float32](g.weights, in[1])
		if p == nil || a.DType() != engine.Float32 || then.added > 0 && in[then.added].DType() != engine.Float32 || is2D && len(a.Shape()) != 2 || len(a.Shape()) < 2 {
			return nil, errUnfused
		}
		shape := x.shaped(a.Shape())
		k, n := in[1].Shape()[0], in[1].Shape()[1]
		if g.transB {
			k, n = n, k
		}
		last := len(shape) - 1
		if g.transA {
			shape[0], shape[1] = shape[1], shape[0]
		}
		if shape[last] != k {
			return nil, errUnfused
		}
		shape[last] = n
		other := arg(in, then.added)
		// Another value that is broadcast, or broadcasts the product, comes later.
		late := then.added > 0 && !slices.Equal(other.Shape(), shape)
		t, out, err := rawOf[float32](x, shape...)
		if err != nil {
			return nil, err
		}
		e := ends.Get().(*end)
		e.follows, e.n, e.also = then, n, nil
		if late {
			e.then = nil
		} else if then.added > 0 {
			e.also = engine.Data[float32](other)
		}
		rows := volume(shape[:last])
		if few != nil {
			e.bias = nil
			x.fewProduct(rows, fewWork{few, out, engine.Data[float32](a), k, n, e.f})
		} else {
			p.GemmThen(x.threads, g.transA, rows, 1, engine.Data[float32](a), max(a.Shape()[last], 1), 0, out, max(n, 1), e.f)
		}
		e.follows, e.also = follows{}, nil
		ends.Put(e)
		if !late {
			return x.one(t, nil)
		}
		if t, err = zipVector(x, t, other, vector.Add); err != nil || then.then == nil {
			return x.one(t, err)
		}
		return quickMap(nil, then.then)(x, []*engine.Tensor{t})
	}
}
