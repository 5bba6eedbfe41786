package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// table is an embedding spelled as the product of one-hot vectors with weights: a row is
// looked up for each number, one more where the number is none of them. What is done to
// every element of a row alone has been done to the table.
type table struct {
	rows, cols int
	v          []float32
	// rank is the least dimensions of the numbers.
	rank int
}

// oneHot looks for a table whose product is step i.
func (f *fuser) oneHot(i int) {
	if !f.is(i, "MatMul") {
		return
	}
	s := &f.p.steps[i]
	w := f.p.constantOf(s.in[1])
	cast := f.p.producer[s.in[0]]
	if w == nil || len(w.Shape()) != 2 || w.Len() == 0 || cast < 0 || f.gone[cast] || f.only(s.in[0]) != i || f.p.steps[cast].node.Op != "Cast" {
		return
	}
	equal := f.p.producer[f.p.steps[cast].in[0]]
	if equal < 0 || f.gone[equal] || f.only(f.p.steps[cast].in[0]) != cast || f.p.steps[equal].node.Op != "Equal" {
		return
	}
	for _, k := range []int{equal, cast} {
		if f.p.steps[k].node.Domain != DomainONNX {
			return
		}
	}
	t := &table{rows: w.Shape()[0], cols: w.Shape()[1]}
	ids := -1
	for k, slot := range f.p.steps[equal].in {
		if c := f.p.constantOf(slot); c != nil && isCounting(c, t.rows) {
			ids, t.rank = f.p.steps[equal].in[1-k], max(2, len(c.Shape()))
			break
		}
	}
	if ids < 0 || f.p.constantOf(ids) != nil || !t.fill(engine.Data[float32](w)) || !f.p.held.lay(4*int64(len(t.v))) {
		return
	}
	last, taken := i, []int{equal, cast, i}
	for {
		out := f.p.steps[last].out[0]
		next := f.only(out)
		if next < 0 || !f.tabled(t, next, out) {
			break
		}
		last, taken = next, append(taken, next)
	}
	f.become(last, step{node: s.node, op: functionOp, kernel: t.run, in: []int{ids}}, taken...)
	f.functions[last] = nil
}

// isCounting reports whether a constant is 0, 1 and so on to n, along its last axis.
func isCounting(t *engine.Tensor, n int) bool {
	shape := t.Shape()
	if t.Len() != n || len(shape) == 0 || shape[len(shape)-1] != n || t.DType() != engine.Int64 && t.DType() != engine.Int32 {
		return false
	}
	for i := range n {
		if engine.Data[int64](t) != nil && engine.Data[int64](t)[i] != int64(i) || engine.Data[int32](t) != nil && engine.Data[int32](t)[i] != int32(i) {
			return false
		}
	}
	return true
}

// fill takes the weights as a sum of products has them; it reports false where one is no
// number, which would be in every row.
func (t *table) fill(w []float32) bool {
	t.v = make([]float32, (t.rows+1)*t.cols)
	for i, e := range w {
		if e-e != 0 {
			return false
		}
		t.v[i] = e + 0 // no negative zeros
	}
	return true
}

// tabled has the table take in step i, which reads slot.
func (f *fuser) tabled(t *table, i, slot int) bool {
	if fn := f.follows(i, slot, math.MaxInt); fn != nil {
		fn.Apply(t.v, t.v)
		t.rank = max(t.rank, f.p.steps[i].rank)
		return true
	}
	o, ok := f.other(i, slot)
	c := f.p.constantOf(o)
	if !ok || !f.is(i, "Add") || c == nil || c.DType() != engine.Float32 || c.Len() != t.cols || len(c.Shape()) == 0 || c.Shape()[len(c.Shape())-1] != t.cols {
		return false
	}
	t.rank = max(t.rank, len(c.Shape()))
	for r := range t.rows + 1 {
		row := t.v[r*t.cols:][:t.cols]
		vector.Binary(vector.Add, row, row, engine.Data[float32](c))
	}
	return true
}

func (t *table) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	from := in[0].Shape()
	last := len(from) - 1
	if len(from) < t.rank || from[last] != 1 {
		return nil, errUnfused
	}
	shape := x.shaped(from)
	shape[last] = t.cols
	o, out, err := rawOf[float32](x, shape...)
	if err != nil {
		return nil, err
	}
	switch in[0].DType() {
	case engine.Int64:
		ids := engine.Data[int64](in[0])
		share(x, x.inParts(len(ids)), len(ids), looking[int64]{t, out, ids})
	case engine.Int32:
		ids := engine.Data[int32](in[0])
		share(x, x.inParts(len(ids)), len(ids), looking[int32]{t, out, ids})
	default:
		return nil, errUnfused
	}
	return x.one(o, nil)
}

// looking is the rows of a table that ids ask for.
type looking[T int32 | int64] struct {
	t   *table
	out []float32
	ids []T
}

func (w *looking[T]) part(from, to int) {
	t := w.t
	for i, id := range w.ids[from:to] {
		row := t.rows
		if id >= 0 && int64(id) < int64(t.rows) {
			row = int(id)
		}
		copy(w.out[(from+i)*t.cols:][:t.cols], t.v[row*t.cols:])
	}
}
