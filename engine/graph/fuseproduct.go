package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
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

// product takes what follows a product with constant weights into it.
func (f *fuser) product(i int) {
	s := &f.p.steps[i]
	gemm := f.is(i, "Gemm")
	if !gemm && !f.is(i, "MatMul") {
		return
	}
	w := f.p.constantOf(s.in[1])
	if w == nil || w.DType() != engine.Float32 || len(w.Shape()) != 2 {
		return
	}
	b := &builder{node: s.node, attrs: &attrReader{node: s.node, read: map[string]bool{}}, constants: []*engine.Tensor{nil, w}, packs: f.p.packs}
	g := gemmOf(b)
	n := w.Shape()[1]
	if gemm && g.transB {
		n = w.Shape()[0]
	}
	then, in := follows{}, []int{s.in[0], s.in[1]}
	if gemm && (g.alpha != 1 || !f.gemmBias(s, g, n, &then)) {
		return
	}
	last, taken := i, []int{i}
	for next := f.only(s.out[0]); next >= 0 && then.then == nil; next = f.only(f.p.steps[last].out[0]) {
		out := f.p.steps[last].out[0]
		other, two := f.other(next, out)
		switch {
		case f.functions[next] != nil && f.p.steps[next].in[0] == out:
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
	if last == i {
		return
	}
	if g.weights = weightsOf(b, 1, g.transB); g.weights == nil {
		return
	}
	for _, k := range taken {
		f.gone[k] = k != last
	}
	f.changed = true
	f.p.steps[last] = step{node: s.node, op: functionOp, kernel: productKernel(g, gemm, then), in: in, out: f.p.steps[last].out}
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

// productKernel is MatMul or Gemm with what follows.
func productKernel(g gemm, is2D bool, then follows) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a := in[0]
		p := packedOf[float32](g.weights, in[1])
		if p == nil || a.DType() != engine.Float32 || then.added > 0 && in[then.added].DType() != engine.Float32 || is2D && len(a.Shape()) != 2 || len(a.Shape()) < 2 {
			return nil, errUnfused
		}
		shape := slices.Clone(a.Shape())
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
		var added []float32
		other := arg(in, then.added)
		// Another value that is broadcast, or broadcasts the product, comes later.
		late := then.added > 0 && !slices.Equal(other.Shape(), shape)
		if then.added > 0 && !late {
			added = engine.Data[float32](other)
		}
		t, out, err := rawOf[float32](x, shape...)
		if err != nil {
			return nil, err
		}
		rows := volume(shape[:last])
		p.GemmThen(x.threads, g.transA, rows, 1, engine.Data[float32](a), max(a.Shape()[last], 1), 0, out, max(n, 1), func(row, col int, c []float32) {
			if then.bias != nil {
				vector.Binary(vector.Add, c, c, then.bias[col:col+len(c)])
			}
			if added != nil {
				vector.Binary(vector.Add, c, c, added[row*n+col:][:len(c)])
			}
			if then.then != nil && !late {
				then.then.Apply(c, c)
			}
		})
		if !late {
			return one(t, nil)
		}
		if t, err = zipVector(x, t, other, vector.Add); err != nil || then.then == nil {
			return one(t, err)
		}
		return quickMap(nil, then.then)(x, []*engine.Tensor{t})
	}
}
