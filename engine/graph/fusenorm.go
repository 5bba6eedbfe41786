package graph

import (
	"math"
	"slices"
	"sync"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// normed is LayerNormalization along one axis, as exporters spell it: mean, distances,
// mean of their squares (or mean of squares less square of the mean), root, quotient,
// scale and shift.
type normed struct {
	// axis is as the nodes have it, rank what dimensions the input has where that is
	// told, least the fewest it may have.
	axis, rank, least int
	eps               float64
	// count is how many elements were taken to be on the axis, 0 where nobody says.
	count float64
	// scale and bias are along the axis, nil where there are none.
	scale, bias []float32
}

// normMatch is what is found while nodes are read as one.
type normMatch struct {
	f *fuser
	normed
	x   int
	set bool
	// shapes are slots of shapes that statistics were given: the input's, one long along
	// the axis.
	shapes, taken []int
}

// over says that a mean is of a slot, along an axis; all must agree.
func (m *normMatch) over(x, axis int) bool {
	if !m.set {
		m.x, m.axis, m.set = x, axis, true
	}
	return m.x == x && m.axis == axis
}

// is takes in the step that makes a slot, where it is that operator.
func (m *normMatch) is(slot int, op string) (*step, bool) {
	if slot < 0 || !m.f.is(m.f.p.producer[slot], op) {
		return nil, false
	}
	m.taken = append(m.taken, m.f.p.producer[slot])
	return &m.f.p.steps[m.f.p.producer[slot]], true
}

// shaped looks through what gives a statistic its shape.
func (m *normMatch) shaped(slot int) (from int, kept bool) {
	for {
		s, ok := m.is(slot, "Reshape")
		if !ok {
			if s, ok = m.is(slot, "Expand"); !ok {
				return slot, kept
			}
		}
		if m.f.p.constantOf(s.in[1]) != nil {
			return slot, false // of inputs of one shape only
		}
		m.shapes, slot, kept = append(m.shapes, s.in[1]), s.in[0], true
	}
}

// mean returns what a slot is the mean of, and whether it keeps the axis.
func (m *normMatch) mean(slot int) (of, axis int, kept, ok bool) {
	slot, kept = m.shaped(slot)
	s, ok := m.is(slot, "ReduceMean")
	if !ok {
		var share float64
		if s, share, ok = m.shareOfSum(slot); !ok || m.count != 0 && m.count != 1/share {
			return 0, 0, false, false
		}
		m.count = 1 / share
	}
	axis, keep, ok := m.f.oneAxis(s)
	return s.in[0], axis, kept || keep, ok
}

// shareOfSum is a sum times a number.
func (m *normMatch) shareOfSum(slot int) (sum *step, share float64, ok bool) {
	s, ok := m.is(slot, "Mul")
	if !ok || len(s.in) != 2 {
		return nil, 0, false
	}
	for k, in := range s.in {
		v, rank, number := m.f.scalar(in)
		if !number || !(v > 0) || rank > 0 {
			continue
		}
		sum, ok = m.is(s.in[1-k], "ReduceSum")
		return sum, v, ok
	}
	return nil, 0, false
}

// oneAxis is the axis of a reduction along one, by constants.
func (f *fuser) oneAxis(s *step) (axis int, keep, ok bool) {
	since := 18
	if s.node.Op == "ReduceSum" {
		since = 13
	}
	axes := s.node.Attrs["axes"].Ints
	if s.node.Version >= since {
		if len(s.in) < 2 || s.in[1] < 0 || f.p.constants[s.in[1]] == nil {
			return 0, false, false
		}
		axes = engine.Data[int64](f.p.constants[s.in[1]])
	}
	keep = true
	if a, ok := s.node.Attrs["keepdims"]; ok {
		keep = a.Int != 0
	}
	if len(axes) != 1 || axes[0] < -maxRank || axes[0] > maxRank {
		return 0, false, false
	}
	return int(axes[0]), keep, true
}

// square returns what a slot is the square of.
func (m *normMatch) square(slot int) (of int, ok bool) {
	if s, ok := m.is(slot, "Mul"); ok {
		return s.in[0], len(s.in) == 2 && s.in[0] == s.in[1]
	}
	s, ok := m.is(slot, "Pow")
	if !ok {
		return 0, false
	}
	v, rank, ok := m.f.scalar(s.in[1])
	m.least = max(m.least, rank)
	return s.in[0], ok && v == 2
}

// centred reports whether a slot is what was averaged, less the mean.
func (m *normMatch) centred(slot int) bool {
	before := *m
	s, ok := m.is(slot, "Sub")
	if ok {
		var of, axis int
		var kept bool
		of, axis, kept, ok = m.mean(s.in[1])
		ok = ok && kept && of == s.in[0] && m.over(of, axis)
	}
	if !ok {
		*m = before
	}
	return ok
}

// variance reports whether a slot is the variance, with the axis kept.
func (m *normMatch) variance(slot int) bool {
	slot, shaped := m.shaped(slot)
	before := *m
	if of, axis, kept, ok := m.mean(slot); ok && (kept || shaped) {
		if d, ok := m.square(of); ok && m.centred(d) && m.axis == axis {
			return true
		}
	}
	*m = before
	if s, ok := m.is(slot, "Max"); ok {
		for k, in := range s.in {
			if v, rank, number := m.f.scalar(in); number && v == 0 && rank == 0 && len(s.in) == 2 {
				slot = s.in[1-k]
				break
			}
		}
	}
	// The mean of squares less the square of the mean.
	s, ok := m.is(slot, "Sub")
	if !ok {
		return false
	}
	of, axis, kept, ok := m.mean(s.in[0])
	if !ok {
		return false
	}
	x, ok := m.square(of)
	if !ok || !m.over(x, axis) {
		return false
	}
	root, ok := m.square(s.in[1])
	if !ok {
		return false
	}
	of, axis, also, ok := m.mean(root)
	return ok && of == x && axis == m.axis && also == kept && (kept || shaped)
}

// along returns a constant that lies along the axis and is one long elsewhere, or nil.
func (m *normMatch) along(slot int) []float32 {
	t := m.f.p.constantOf(slot)
	if t == nil || t.DType() != engine.Float32 || t.Len() < 2 {
		return nil
	}
	shape := t.Shape()
	at := slices.IndexFunc(shape, func(d int) bool { return d != 1 })
	if shape[at] != t.Len() {
		return nil
	}
	behind := len(shape) - 1 - at
	if m.axis < 0 && behind != -m.axis-1 {
		return nil
	}
	if m.axis >= 0 {
		if m.rank != 0 && m.rank != m.axis+behind+1 {
			return nil
		}
		m.rank = m.axis + behind + 1
	}
	other := m.scale
	if other == nil {
		other = m.bias
	}
	if other != nil && len(other) != t.Len() {
		return nil
	}
	m.least = max(m.least, len(shape))
	return engine.Data[float32](t)
}

// norm looks for a normalisation whose root is step i.
func (f *fuser) norm(i int) {
	if !f.is(i, "Sqrt") {
		return
	}
	add := f.p.producer[f.p.steps[i].in[0]]
	if !f.is(add, "Add") {
		return
	}
	m := &normMatch{f: f, taken: []int{i, add}}
	for k, in := range f.p.steps[add].in {
		eps, rank, number := f.scalar(in)
		if !number || eps < 0 || len(f.p.steps[add].in) != 2 {
			continue
		}
		m.eps, m.least = eps, max(m.least, rank)
		if m.variance(f.p.steps[add].in[1-k]) {
			f.normalise(m, i)
		}
		return
	}
}

// normalise looks at what follows the root.
func (f *fuser) normalise(m *normMatch, root int) {
	last, inverse, done := root, false, false
	for ; m.bias == nil; m.taken = append(m.taken, last) {
		next := f.only(f.p.steps[last].out[0])
		if next < 0 || !m.after(next, f.p.steps[last].out[0], &inverse, &done) {
			break
		}
		last = next
	}
	if !done || !f.closed(m.taken, last) {
		return
	}
	k := m.normed
	f.become(last, step{node: f.p.steps[last].node, op: functionOp, kernel: k.run, in: append([]int{m.x}, m.shapes...)}, m.taken...)
	f.functions[last] = nil
}

// after takes in step i, which reads slot: the root or its inverse, maybe scaled, and once
// the distances are divided by it, what is done.
func (m *normMatch) after(i, slot int, inverse, done *bool) bool {
	f := m.f
	if f.is(i, "Reciprocal") && !*inverse && !*done {
		*inverse = true
		return true
	}
	if f.is(i, "Div") && !*inverse && !*done && f.p.steps[i].in[1] == slot {
		over := f.p.steps[i].in[0]
		if v, rank, ok := f.scalar(over); ok && v == 1 {
			m.least, *inverse = max(m.least, rank), true
			return true
		}
		*done = m.centred(over)
		return *done
	}
	other, ok := f.other(i, slot)
	switch {
	case !ok:
		return false
	case f.is(i, "Mul") && *inverse && !*done && m.centred(other):
		*done = true
		return true
	case f.is(i, "Mul") && (*inverse || *done) && m.scale == nil:
		m.scale = m.along(other)
		return m.scale != nil
	case f.is(i, "Add") && *done:
		m.bias = m.along(other)
		return m.bias != nil
	}
	return false
}

// fits returns the axis of an input, ok where the input and the shapes that the nodes made
// on the way are what the step was made for.
func (k *normed) fits(in []*engine.Tensor) (axis int, ok bool) {
	shape := in[0].Shape()
	if in[0].DType() != engine.Float32 || in[0].Len() == 0 || k.rank > 0 && len(shape) != k.rank || len(shape) < k.least {
		return 0, false
	}
	axis, err := normAxis(k.axis, len(shape))
	if err != nil {
		return 0, false
	}
	n := shape[axis]
	if k.scale != nil && len(k.scale) != n || k.bias != nil && len(k.bias) != n || k.count != 0 && math.Abs(k.count-float64(n)) > 1e-6*k.count {
		return 0, false
	}
	for _, t := range in[1:] {
		if t == nil || t.DType() != engine.Int64 || t.Len() != len(shape) {
			return 0, false
		}
		for i, d := range engine.Data[int64](t) {
			if want := shape[i]; i == axis && d != 1 || i != axis && d != int64(want) {
				return 0, false
			}
		}
	}
	return axis, true
}

func (k *normed) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	axis, ok := k.fits(in)
	if !ok {
		return nil, errUnfused
	}
	outer, inner := split(in[0].Shape(), axis)
	n, src := in[0].Shape()[axis], engine.Data[float32](in[0])
	t, out, err := overOf(x, in[0])
	if err != nil {
		return nil, err
	}
	if err := x.reserve(engine.Float64, 4*max(inner, n)*max(1, x.threads)); err != nil {
		return nil, err
	}
	share(x, x.inRows(outer, n*inner), outer, normedWork{k, out, src, n, inner})
	return x.one(t, nil)
}

// normedWork is what is normalised: blocks of n lines of inner elements.
type normedWork struct {
	k        *normed
	out, src []float32
	n, inner int
}

func (w *normedWork) part(from, to int) {
	r := columnRooms.Get().(*columnRoom)
	defer columnRooms.Put(r)
	if w.inner == 1 {
		scale, bias := w.k.parameters(r, w.n)
		vector.NormRows(w.out[from*w.n:to*w.n], w.src[from*w.n:to*w.n], scale, bias, w.k.eps, nil, nil)
		return
	}
	for o := from; o < to; o++ {
		at, end := o*w.n*w.inner, (o+1)*w.n*w.inner
		w.k.columns(r, w.out[at:end], w.src[at:end], w.inner)
	}
}

// columnRoom is what a normalisation has beside its input and its result.
type columnRoom struct {
	wide   []float64
	single []float32
}

var columnRooms = sync.Pool{New: func() any { return new(columnRoom) }}

// of returns so many elements of either, whatever they are.
func (r *columnRoom) of(n int) ([]float64, []float32) {
	if cap(r.wide) < n {
		r.wide, r.single = make([]float64, n), make([]float32, n)
	}
	return r.wide[:n], r.single[:n]
}

// parameters are scale and bias, ones and zeros where there are none.
func (k *normed) parameters(r *columnRoom, n int) (scale, bias []float32) {
	scale, bias = k.scale, k.bias
	if scale != nil && bias != nil {
		return scale, bias
	}
	_, v := r.of(2 * n)
	if scale == nil {
		scale = v[:n]
		for i := range scale {
			scale[i] = 1
		}
	}
	if bias == nil {
		bias = v[n:]
		clear(bias)
	}
	return scale, bias
}

// columns normalises what lies below each other, the axis not being the last. dst may be src.
func (k *normed) columns(r *columnRoom, dst, src []float32, inner int) {
	n := len(src) / inner
	wide, single := r.of(2 * inner)
	sums, means, centre, inv := wide[:inner], wide[inner:], single[:inner], single[inner:]
	clear(means)
	for i := range n {
		vector.SumColumns(means, src[i*inner:(i+1)*inner])
	}
	for i := range means {
		means[i] /= float64(n)
		centre[i] = float32(means[i])
	}
	clear(sums)
	for i := range n {
		vector.SquareColumns(sums, src[i*inner:(i+1)*inner], means)
	}
	for i, s := range sums {
		inv[i] = float32(1 / math.Sqrt(s/float64(n)+k.eps))
	}
	for i := range n {
		row := dst[i*inner : (i+1)*inner]
		vector.Binary(vector.Sub, row, src[i*inner:(i+1)*inner], centre)
		vector.Binary(vector.Mul, row, row, inv)
		if k.scale == nil && k.bias == nil {
			continue
		}
		scale, shift := float32(1), float32(0)
		if k.scale != nil {
			scale = k.scale[i]
		}
		if k.bias != nil {
			shift = k.bias[i]
		}
		vector.Scale(row, row, scale, shift)
	}
}
