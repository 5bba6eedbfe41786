package graph

import (
	"math"
	"slices"
	"sync"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// octetEnd is what follows sums of bytes.
type octetEnd struct {
	// scale is of each column's sums, over that of the result where that is bytes; shift
	// comes to it. whole comes to the sums.
	scale, shift []float32
	whole        []int32
	zeros        []int32 // of a matrix
	// bytes says that the result is rounded to those of a scale.
	bytes     bool
	to        qgemm.Scale
	low, high float32
	// then is a function of pieces of the result, made once so that a run makes none.
	then func(row, col int, v []float32)
}

// pieces is fn as engine/qgemm calls it.
func pieces(fn *vector.Function) func(row, col int, v []float32) {
	return func(_, _ int, v []float32) { fn.Apply(v, v) }
}

// round has the scale and shift be those of the result's steps, which low and high are
// given in.
func (e *octetEnd) round() {
	if !e.bytes {
		return
	}
	for j := range e.scale {
		e.scale[j] = float32(float64(e.scale[j]) / float64(e.to.Scale))
		e.shift[j] = float32(float64(e.shift[j]) / float64(e.to.Scale))
	}
	least, most := e.to.Range()
	e.low, e.high = min(max(e.low/e.to.Scale, least), most), max(min(e.high/e.to.Scale, most), least)
}

// finishes are used again once a run has given them back.
var finishes = sync.Pool{New: func() any { return new(qgemm.Finish) }}

// finish is what engine/qgemm is given for a result over rows; done gives it back.
func (e *octetEnd) finish() *qgemm.Finish {
	f := finishes.Get().(*qgemm.Finish)
	*f = qgemm.Finish{Whole: e.whole, Scale: e.scale, Shift: e.shift, Low: e.low, High: e.high, Zero: int32(e.to.Zero)}
	return f
}

func done(f *qgemm.Finish) {
	*f = qgemm.Finish{}
	finishes.Put(f)
}

// octetOperand is a constant right operand with what its bytes stand for.
type octetOperand struct {
	t     *engine.Tensor
	scale []float32
	zero  *engine.Tensor
}

// operand reads what DequantizeLinear makes of constant bytes, with one scale or one for
// each of n places on an axis.
func (o *octeter) operand(slot, axis int) (w octetOperand, ok bool) {
	i := o.f.p.producer[slot]
	if i < 0 || o.f.p.constants[slot] != nil {
		return w, false
	}
	s := &o.f.p.steps[i]
	if s.node.Op != "DequantizeLinear" || s.node.Domain != DomainONNX || !onlyAxis(s.node) || o.f.p.typeOf(slot) != engine.Float32 {
		return w, false
	}
	w.t = o.f.p.constantOf(s.in[0])
	scales := o.f.p.constantOf(s.in[1])
	if w.t == nil || scales == nil || !isOctet(w.t.DType()) || scales.DType() != engine.Float32 || len(w.t.Shape()) <= axis || w.t.Len() == 0 {
		return w, false
	}
	if s.input(2) >= 0 {
		if w.zero = o.f.p.constants[s.in[2]]; w.zero == nil {
			return w, false
		}
	}
	at := 1
	if a, has := s.node.Attrs["axis"]; has {
		at = int(a.Int)
	}
	if at < 0 {
		at += len(w.t.Shape())
	}
	w.scale = eachColumn(scales, w.t.Shape()[axis], at == axis)
	for _, v := range w.scale {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return w, false
		}
	}
	return w, w.scale != nil && (w.zero == nil || w.zero.Len() == 1 || w.zero.Len() == len(w.scale) && at == axis)
}

// bias is a constant of n elements, given or made of constants, with ones around it in so
// many dimensions after it at most, nil where it is something else.
func (o *octeter) bias(slot, n, after int) []float32 {
	t := o.constant(slot)
	if t == nil || t.DType() != engine.Float32 || t.Len() != n {
		return nil
	}
	shape := t.Shape()
	at := slices.Index(shape, n)
	if n == 1 {
		at = len(shape) - 1 - after
	}
	if at < 0 || len(shape)-1-at != after {
		return nil
	}
	return engine.Data[float32](t)
}

// wholeBias is a bias in 32 bits of the very steps of the sums, nil where it is something
// else. It comes to the sums before they are scaled, as onnxruntime adds it.
func (o *octeter) wholeBias(slot int, in float32, scale []float32) []int32 {
	if slot < 0 || o.f.p.constants[slot] != nil {
		return nil
	}
	i := o.f.p.producer[slot]
	if i < 0 {
		return nil
	}
	s := &o.f.p.steps[i]
	if s.node.Op != "DequantizeLinear" || s.node.Domain != DomainONNX || !onlyAxis(s.node) || s.in[0] < 0 || s.in[1] < 0 {
		return nil
	}
	v, steps := engine.Data[int32](constantData(o.f.p.constants[s.in[0]])), o.f.p.constants[s.in[1]]
	if len(v) != len(scale) || steps == nil || steps.DType() != engine.Float32 {
		return nil
	}
	if z := s.input(2); z >= 0 {
		if zero := o.f.p.constants[z]; zero == nil || slices.ContainsFunc(engine.Data[int32](zero), func(z int32) bool { return z != 0 }) {
			return nil
		}
	}
	by := eachColumn(steps, len(v), true)
	for j := range by {
		const close = 1e-6 // they are rounded products
		if want := float64(in) * float64(scale[j]); !(math.Abs(float64(by[j])-want) <= close*want) {
			return nil
		}
	}
	if by == nil {
		return nil
	}
	return v
}

// weighed sets the scales of sums of bytes of a scale, and what the bias is.
func (e *octetEnd) weighed(in float32, scale, bias []float32) {
	e.scale, e.shift, e.whole = make([]float32, len(scale)), make([]float32, len(scale)), make([]int32, len(scale))
	for j, v := range scale {
		e.scale[j] = in * v
	}
	copy(e.shift, bias)
}

// conv is a convolution of what bytes stand for.
func (o *octeter) conv(i int) bool {
	s := &o.f.p.steps[i]
	r, ok := o.rounded[s.in[0]]
	if !ok || s.in[1] < 0 || o.octetWeights(s, s.in[1]) == nil {
		return false
	}
	w, ok := o.operand(s.in[1], 0)
	if !ok || !o.fits(r.bytes, len(w.t.Shape())) {
		return false
	}
	n := w.t.Shape()[0]
	var bias []float32
	if b := s.input(2); b >= 0 {
		if bias = o.bias(b, n, 0); bias == nil {
			return false
		}
	}
	f := layFilter(o.f.p.packs, o.f.p.held, s.node, w.t, w.zero)
	if f == nil {
		return false
	}
	e := octetEnd{}
	from := o.needLast(r.bytes, len(w.t.Shape()))
	last := o.follow(i, &e, false)
	if whole := o.wholeBias(s.input(2), r.scale.Scale, w.scale); whole != nil {
		e.weighed(r.scale.Scale, w.scale, nil)
		copy(e.whole, whole)
	} else {
		e.weighed(r.scale.Scale, w.scale, bias)
	}
	e.round()
	o.convolve(s.node, f, &e, int32(r.scale.Zero), []int{from}, last)
	return true
}

// convolve adds the step of a convolution, whose first input lies with its channels last.
func (o *octeter) convolve(n *Node, f *octetFilter, e *octetEnd, zero int32, in []int, last int) {
	o.any = true
	k := &octetConv{node: n, f: f, end: *e, zero: zero, shape: f.of.Shape()}
	if len(in) == 1 {
		k.end.whole = make([]int32, f.shape.Out)
		f.whole(k.end.whole, zero, e.whole)
	}
	rank := len(k.shape)
	if !e.bytes {
		s := octetStep(n, k.run, in, []int{last})
		if rank < 5 {
			s.givesLast = rank
		}
		o.emit(s)
		o.there[last] = true
		return
	}
	o.emit(octetStep(n, k.run, in, []int{o.lie(last, rank)}))
}

// linearConv is QLinearConv.
func (o *octeter) linearConv(s *step) bool {
	scale, ok := o.scaleOf(s.in[1], s.in[2])
	to, ok2 := o.scaleOf(s.in[6], s.in[7])
	w := o.octetWeights(s, s.in[3])
	if !ok || !ok2 || !o.octetsOf(s.in[0], s.in[2]) || !o.octetsOf(s.out[0], s.in[7]) || w == nil || o.f.p.constants[s.in[0]] != nil || o.f.p.constantOf(s.in[3]) == nil || o.f.p.constantOf(s.in[4]) == nil || o.f.p.constantOf(s.in[5]) == nil {
		return false
	}
	n, rank := w.Shape()[0], len(w.Shape())
	scales := eachColumn(o.f.p.constants[s.in[4]], n, true)
	if scales == nil || !o.fits(s.in[0], rank) {
		return false
	}
	e := octetEnd{bytes: true, to: to, low: float32(math.Inf(-1)), high: float32(math.Inf(1))}
	e.weighed(scale.Scale, scales, nil)
	if b := s.input(8); b >= 0 {
		v := engine.Data[int32](constantData(o.f.p.constants[b]))
		if len(v) != n {
			return false
		}
		copy(e.whole, v)
	}
	f := layFilter(o.f.p.packs, o.f.p.held, s.node, w, o.f.p.constants[s.in[5]])
	if f == nil {
		return false
	}
	e.round()
	from := o.needLast(o.bytesOf(s.in[0]), rank)
	o.convolve(s.node, f, &e, int32(scale.Zero), []int{from}, o.unsigned(s.out[0]))
	return true
}

// constantData is t, or a tensor of nothing.
func constantData(t *engine.Tensor) *engine.Tensor {
	if t != nil {
		return t
	}
	return &engine.Tensor{}
}

// matrix lays a right operand out, nil where that takes too much.
func (o *octeter) matrix(t *engine.Tensor, trans bool) *octetMatrix {
	laid := packed{t, trans}
	if known := o.f.p.packs[laid]; known != nil {
		if m, ok := known.packed.(*octetMatrix); ok {
			return m
		}
	}
	k, n := t.Shape()[0], t.Shape()[1]
	if trans {
		k, n = n, k
	}
	if !o.f.p.held.lay(qgemm.Bytes(n, k)) {
		return nil
	}
	m := newOctetMatrix(t, trans)
	if o.f.p.packs[laid] == nil {
		o.f.p.packs[laid] = &weights{tensor: t, packed: m}
	}
	return m
}

// product is a product of what bytes stand for with a constant matrix of such.
func (o *octeter) product(i int) bool {
	s := &o.f.p.steps[i]
	r, ok := o.rounded[s.in[0]]
	if !ok || s.in[1] < 0 {
		return false
	}
	gemm, trans, axis := s.node.Op == "Gemm", false, 1
	if gemm {
		b := &builder{node: s.node, attrs: &attrReader{node: s.node, read: map[string]bool{}}}
		g := gemmOf(b)
		if g.alpha != 1 || g.transA || g.beta != 1 && s.input(2) >= 0 {
			return false
		}
		if trans = g.transB; trans {
			axis = 0
		}
	}
	w, ok := o.operand(s.in[1], axis)
	if !ok || len(w.t.Shape()) != 2 {
		return false
	}
	n := w.t.Shape()[axis]
	var bias []float32
	if b := s.input(2); b >= 0 {
		if bias = o.bias(b, n, 0); bias == nil {
			return false
		}
	}
	m := o.matrix(w.t, trans)
	if m == nil {
		return false
	}
	e := octetEnd{}
	var err error
	if e.zeros, err = zerosOf(w.zero, n, m.shift); err != nil {
		return false
	}
	from := o.need(r.bytes)
	i, bias = o.biased(i, n, 0, bias)
	last := o.follow(i, &e, true)
	e.weighed(r.scale.Scale, w.scale, bias)
	e.round()
	k := &octetMatMul{m: m, end: e, zero: int32(r.scale.Zero), flat: gemm}
	o.emit(octetStep(s.node, k.run, []int{from}, []int{last}))
	o.there[last], o.any = true, true
	return true
}

// biased takes a constant of n elements that is added to what step i gives, and returns
// the step that gives the sum.
func (o *octeter) biased(i, n, after int, bias []float32) (int, []float32) {
	out := o.f.p.steps[i].out[0]
	next := o.f.only(out)
	if bias != nil || next < 0 || o.taken[next] || !o.f.is(next, "Add") {
		return i, bias
	}
	other, ok := o.f.other(next, out)
	if !ok {
		return i, bias
	}
	if bias = o.bias(other, n, after); bias == nil {
		return i, nil
	}
	o.taken[next] = true
	return next, bias
}

// dynamic is DynamicQuantizeLinear, of which a convolution wants the channels last.
func (o *octeter) dynamic(s *step) bool {
	rank := 0
	if len(s.out) == 3 && o.f.p.typeOf(s.in[0]) == engine.Float32 {
		rank = o.wantsLast(s.out[0])
	}
	if rank != 3 && rank != 4 {
		return false
	}
	at := o.lie(s.out[0], rank)
	t := *s
	t.op, t.takesLast = functionOp, rank
	t.in, t.out = []int{o.need(s.in[0])}, slices.Clone(s.out)
	t.out[0] = at
	o.emit(t)
	for _, slot := range s.out[1:] {
		if slot >= 0 {
			o.there[slot] = true
		}
	}
	return true
}

// scaled is MatMulInteger or ConvInteger with what makes floats of its sums: a Cast, and a
// product with the product of what the operands' steps are, of which the right one's are
// constant.
func (o *octeter) scaled(i int) bool {
	s := &o.f.p.steps[i]
	w := o.f.p.constantOf(s.in[1])
	if w == nil || !isOctet(w.DType()) || o.f.p.typeOf(s.in[0]) != engine.Uint8 || s.input(3) >= 0 && o.f.p.constants[s.in[3]] == nil || s.input(2) >= 0 && o.f.p.typeOf(s.in[2]) != engine.Uint8 {
		return false
	}
	image := s.node.Op == "ConvInteger"
	if image && (o.octetWeights(s, s.in[1]) == nil || !o.fits(s.in[0], len(w.Shape()))) || !image && (len(w.Shape()) != 2 || w.Len() == 0) {
		return false
	}
	cast := o.f.only(s.out[0])
	if cast < 0 || o.f.p.steps[cast].node.Op != "Cast" || o.f.p.steps[cast].node.Domain != DomainONNX || o.f.p.typeOf(o.f.p.steps[cast].out[0]) != engine.Float32 {
		return false
	}
	by := o.f.only(o.f.p.steps[cast].out[0])
	if !o.f.is(by, "Mul") {
		return false
	}
	factor, ok := o.f.other(by, o.f.p.steps[cast].out[0])
	if !ok || o.f.p.constants[factor] != nil || !o.f.is(o.f.p.producer[factor], "Mul") {
		return false
	}
	n, axis := w.Shape()[len(w.Shape())-1], 0
	if image {
		n, axis = w.Shape()[0], len(w.Shape())-2
	}
	m := &o.f.p.steps[o.f.p.producer[factor]]
	x, scale := m.in[0], o.scales(m.in[1], n, axis)
	if scale == nil {
		x, scale = m.in[1], o.scales(m.in[0], n, axis)
	}
	if scale == nil || !o.isOne(x) {
		return false
	}
	var zero *engine.Tensor
	if z := s.input(3); z >= 0 {
		zero = o.f.p.constants[z]
	}
	e := octetEnd{}
	var matrix *octetMatrix
	var filter *octetFilter
	if image {
		filter = layFilter(o.f.p.packs, o.f.p.held, s.node, w, zero)
	} else if matrix = o.matrix(w, false); matrix != nil {
		var err error
		if e.zeros, err = zerosOf(zero, n, matrix.shift); err != nil {
			return false
		}
	}
	if filter == nil && matrix == nil {
		return false
	}
	in := []int{-1, o.need(x)}
	if in[0] = s.in[0]; image {
		in[0] = o.needLast(in[0], len(w.Shape()))
	} else {
		in[0] = o.need(in[0])
	}
	if z := s.input(2); z >= 0 {
		in = append(in, o.need(z))
	}
	o.taken[cast], o.taken[by] = true, true
	end, bias := o.biased(by, n, axis, nil)
	e.weighed(1, scale, bias)
	e.low, e.high = float32(math.Inf(-1)), float32(math.Inf(1))
	last := o.bounded(end, &e)
	if image {
		o.convolve(s.node, filter, &e, 0, in, last)
		return true
	}
	k := &octetMatMul{m: matrix, end: e}
	o.emit(octetStep(s.node, k.run, in, []int{last}))
	o.there[last], o.any = true, true
	return true
}

// bounded takes the one function that follows step i's result.
func (o *octeter) bounded(i int, e *octetEnd) (last int) {
	last = o.f.p.steps[i].out[0]
	next := o.f.only(last)
	if next < 0 || o.taken[next] || o.f.follows(next, last, 2) == nil {
		return last
	}
	low, high, ok := o.f.functions[next].Bounds()
	if ok {
		e.low, e.high = low, high
	} else {
		e.then = pieces(o.f.functions[next])
	}
	o.taken[next] = true
	return o.f.p.steps[next].out[0]
}

// scales are a constant of one number, or one for each of n columns or channels.
func (o *octeter) scales(slot, n, after int) []float32 {
	t := o.f.p.constantOf(slot)
	if t == nil || t.DType() != engine.Float32 {
		return nil
	}
	if v := engine.Data[float32](t); len(v) == 1 {
		return slices.Repeat(v, n)
	}
	return o.bias(slot, n, after)
}

// isOne reports whether a value is the scale that DynamicQuantizeLinear gives.
func (o *octeter) isOne(slot int) bool {
	i := o.f.p.producer[slot]
	return i >= 0 && o.f.p.steps[i].node.Op == "DynamicQuantizeLinear" && o.f.p.steps[i].node.Domain == DomainONNX && len(o.f.p.steps[i].out) > 1 && o.f.p.steps[i].out[1] == slot
}

// pair is a sum or a product of what two values of bytes stand for, that is rounded.
func (o *octeter) pair(i int) bool {
	s := &o.f.p.steps[i]
	if !o.f.is(i, "Add") && !o.f.is(i, "Mul") || len(s.in) != 2 {
		return false
	}
	a, ok := o.rounded[s.in[0]]
	b, ok2 := o.rounded[s.in[1]]
	if !ok || !ok2 {
		return false
	}
	taken, e := slices.Clone(o.taken), octetEnd{}
	last := o.follow(i, &e, false)
	if !e.bytes || !math.IsInf(float64(e.high), 1) {
		o.taken = taken
		return false
	}
	k := &octetPair{a: a.scale, b: b.scale, to: e.to, low: float32(math.Inf(-1)), product: s.node.Op == "Mul"}
	if !math.IsInf(float64(e.low), -1) {
		k.low = e.low / e.to.Scale
	}
	o.any = true
	if rank := o.rank(a.bytes); rank > 0 && rank == o.rank(b.bytes) {
		in := []int{o.needLast(a.bytes, rank), o.needLast(b.bytes, rank)}
		o.emit(octetStep(s.node, k.run, in, []int{o.lie(last, rank)}))
		return true
	}
	o.emit(octetStep(s.node, k.run, []int{o.need(a.bytes), o.need(b.bytes)}, []int{last}))
	o.there[last] = true
	return true
}

// largest is a pool over bytes, over what they stand for, or over another function of them.
func (o *octeter) largest(s *step) bool {
	if len(s.out) != 1 || o.there[s.in[0]] {
		return false
	}
	b, pooled := s.in[0], s.out[0]
	r, stands := o.rounded[b]
	t := o.tables[b]
	tabled := !stands && t != nil && t.floats != nil
	switch {
	case stands:
		b = r.bytes
	case tabled:
		b = t.base
	case o.f.p.typeOf(b) != engine.Uint8:
		return false
	}
	rank := o.rank(b)
	if rank == 0 || len(s.node.Attrs["kernel_shape"].Ints) != rank-2 {
		return false
	}
	if stands || tabled {
		pooled = o.slot(engine.Uint8)
	}
	from := o.needLast(b, rank)
	if tabled {
		order, values, ok := orderOf(t.floats)
		if !ok {
			return false
		}
		at := o.slot(engine.Uint8)
		o.emit(octetStep(s.node, tableBytes(order), []int{from}, []int{at}))
		from, o.tables[s.out[0]] = at, &octetTable{base: pooled, floats: values}
	}
	o.emit(octetStep(s.node, octetPool(s.node, rank), []int{from}, []int{o.lie(pooled, rank)}))
	if o.any = true; stands {
		o.floats(s.out[0], pooled, r.scale)
	}
	return true
}

// orderOf gives a byte for each of 256 numbers, the larger the larger they are, and the
// numbers that those bytes stand for; ok is false where some are none.
func orderOf(floats []float32) (order []uint8, values []float32, ok bool) {
	values = slices.Clone(floats)
	slices.Sort(values)
	if values[0] != values[0] { // sorted before all others
		return nil, nil, false
	}
	values = slices.Compact(values)
	for _, v := range floats {
		i, _ := slices.BinarySearch(values, v)
		order = append(order, uint8(i))
	}
	for len(values) < len(floats) {
		values = append(values, values[len(values)-1])
	}
	return order, values, true
}

// means is the mean over whole images.
func (o *octeter) means(s *step) bool {
	r, ok := o.rounded[s.in[0]]
	rank := o.rank(r.bytes)
	if !ok || o.there[s.in[0]] || rank == 0 || len(s.out) != 1 {
		return false
	}
	o.emit(octetStep(s.node, octetMeans(r.scale, rank), []int{o.needLast(r.bytes, rank)}, []int{s.out[0]}))
	o.there[s.out[0]], o.any = true, true
	return true
}
