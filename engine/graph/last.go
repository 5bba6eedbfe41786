package graph

import (
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/vector"
)

// laster has the images between convolutions lie with their channels side by side,
// [N, H, W, C], as engine/convolve takes them. From the first convolution on, what is
// computed of such a value is computed in that layout where its operator is known
// here; what others, or the caller, want of it is laid out as the file says.
//
// A value in that layout has a slot of its own; that of the file's value is hidden
// unless somebody wants it.
type laster struct {
	f *fuser
	// steps are the new program's.
	steps []step
	// last are the slots of values with their channels last, by the file's slots; made
	// are those that steps compute, the rest are laid out for them.
	last map[int]int
	made map[int]bool
	// room is how many elements filters may still take: those of few channels are
	// padded with zeros.
	room int
	// at is the step of the old program that is looked at.
	at int
	// readers are how often a slot is read in the program as it was.
	readers []int
	// open are convolutions that may take in more, by the slot that they give.
	open map[int]*convolution
}

// channelsLast rewrites the steps of a fused program.
func channelsLast(f *fuser) {
	l := &laster{f: f, last: map[int]int{}, made: map[int]bool{}, readers: make([]int, len(f.p.names)), open: map[int]*convolution{}}
	l.room = leastRoom
	for _, c := range f.p.constants {
		if c != nil && c.DType() == engine.Float32 {
			l.room += mostPadded * c.Len()
		}
	}
	live := false
	for i := range f.p.steps {
		if f.gone[i] {
			continue
		}
		for _, slot := range f.p.steps[i].in {
			if slot >= 0 {
				l.readers[slot]++
			}
		}
		live = live || l.suits(&f.p.steps[i])
	}
	if !live {
		return
	}
	for slot, out := range f.outputs {
		if out {
			l.readers[slot]++
		}
	}
	for i := range f.p.steps {
		l.at = i
		if !f.gone[i] && !l.step(&f.p.steps[i]) {
			l.plain(&f.p.steps[i])
		}
	}
	for slot, out := range f.outputs {
		if out {
			l.first(slot)
		}
	}
	f.p.steps, f.gone, f.changed = l.steps, make([]bool, len(l.steps)), true
}

// mostPadded is how many times the constants' elements all filters may take, beside
// leastRoom.
const (
	mostPadded = 6
	leastRoom  = 1 << 20
)

// suits reports whether s is a convolution for engine/convolve: of two dimensions, its
// weights constant, one group or each channel by itself.
func (l *laster) suits(s *step) bool {
	n := s.node
	if n.Domain != DomainONNX || n.Op != "Conv" && n.Op != "ConvTranspose" || len(s.in) < 2 || s.in[0] < 0 || s.in[1] < 0 || s.out[0] < 0 || l.f.p.types[s.in[0]] != engine.Float32 {
		return false
	}
	w := l.f.p.constants[s.in[1]]
	if w == nil || w.DType() != engine.Float32 || len(w.Shape()) != 4 || w.Len() == 0 {
		return false
	}
	shape := w.Shape()
	out := shape[0]
	if n.Op == "ConvTranspose" {
		out = shape[1]
	}
	if b := l.bias(s); len(s.in) > 2 && s.in[2] >= 0 && len(b) != out {
		return false
	}
	if convolve.FilterLen(out, w.Len()/out) > l.room {
		return false
	}
	groups := int64(1)
	if a, ok := n.Attrs["group"]; ok {
		groups = a.Int
	}
	if n.Op == "ConvTranspose" {
		return groups == 1 && besides(n, shape[2:])
	}
	return groups == 1 || groups == int64(shape[0]) && shape[1] == 1
}

// besides reports whether the windows of a transposed convolution lie side by side.
func besides(n *Node, kernel []int) bool {
	w, err := windowAttrs(n, 2)
	if err != nil || !slices.Equal(w.strides, kernel) {
		return false
	}
	mode := n.Attrs["auto_pad"].String
	for _, name := range []string{"output_padding", "output_shape"} {
		if len(n.Attrs[name].Ints) > 0 {
			return false
		}
	}
	return (mode == "" || mode == "NOTSET") && slices.Max(w.dilations) == 1 && slices.Max(append(w.before, w.after...)) == 0
}

// whole reports whether no window of a pool meets padding.
func whole(n *Node) bool {
	mode := n.Attrs["auto_pad"].String
	return (mode == "" || mode == "NOTSET" || mode == "VALID") && n.Attrs["ceil_mode"].Int == 0 &&
		(mode == "VALID" || !slices.ContainsFunc(n.Attrs["pads"].Ints, func(p int64) bool { return p != 0 }))
}

// bias is a convolution's constant bias, or nil.
func (l *laster) bias(s *step) []float32 {
	if len(s.in) < 3 || s.in[2] < 0 || l.f.p.constants[s.in[2]] == nil {
		return nil
	}
	return engine.Data[float32](l.f.p.constants[s.in[2]])
}

// plain keeps a step as it is.
func (l *laster) plain(s *step) {
	for _, slot := range s.in {
		if slot >= 0 {
			l.first(slot)
		}
	}
	l.steps = append(l.steps, *s)
}

// first sees to it that a value is there as the file has it.
func (l *laster) first(slot int) {
	from, ok := l.last[slot]
	if !ok || !l.made[slot] {
		return
	}
	if slices.ContainsFunc(l.steps, func(s step) bool { return slices.Contains(s.out, slot) }) {
		return
	}
	delete(l.open, slot)
	l.steps = append(l.steps, step{node: l.maker(from), op: functionOp, kernel: channelsFirst, in: []int{from}, out: []int{slot}})
}

// maker is the node of the step that gives a slot, for errors.
func (l *laster) maker(slot int) *Node {
	for i := len(l.steps) - 1; i >= 0; i-- {
		if slices.Contains(l.steps[i].out, slot) {
			return l.steps[i].node
		}
	}
	return nil
}

// of returns the slot of a value with its channels last, for node n.
func (l *laster) of(slot int, n *Node) int {
	if at, ok := l.last[slot]; ok {
		delete(l.open, slot)
		return at
	}
	at := l.slot()
	l.last[slot] = at
	l.steps = append(l.steps, step{node: n, op: functionOp, kernel: lastOf, in: []int{slot}, out: []int{at}})
	return at
}

// slot adds one without a name.
func (l *laster) slot() int {
	p := l.f.p
	p.names, p.constants, p.types, p.producer = append(p.names, ""), append(p.constants, nil), append(p.types, engine.Float32), append(p.producer, -1)
	l.f.readers, l.f.outputs = append(l.f.readers, nil), append(l.f.outputs, false)
	return len(p.names) - 1
}

// is reports whether a slot's value is computed with its channels last.
func (l *laster) is(slot int) bool { return slot >= 0 && l.made[slot] }

// add appends a step whose inputs are of the new layout; its outputs are put there.
func (l *laster) add(s *step, kernel Kernel, in ...int) {
	out := slices.Clone(s.out)
	for i, slot := range s.out {
		if slot >= 0 {
			out[i] = l.slot()
			l.last[slot], l.made[slot] = out[i], true
		}
	}
	l.steps = append(l.steps, step{node: s.node, op: functionOp, kernel: kernel, in: in, out: out})
}

// step adds s in the new layout; it reports false where s is not known there, or has
// nothing to do with it.
func (l *laster) step(s *step) bool {
	if l.suits(s) {
		l.convolution(s)
		return true
	}
	if s.node.Domain != DomainONNX || !slices.ContainsFunc(s.in, l.is) || len(s.out) == 0 || s.out[0] < 0 {
		return false
	}
	if fn := l.function(s); fn != nil {
		if l.after(s.in[0], s.out[0], func(c *convolution) bool { return c.follow(fn) }) {
			return true
		}
		l.add(s, functionKernel(fn), l.of(s.in[0], s.node))
		return true
	}
	switch s.node.Op {
	case "Add", "Sub", "Mul", "Div":
		return l.arithmetic(s)
	case "Concat":
		axis := s.node.Attrs["axis"].Int
		if axis != 1 && axis != -3 || slices.Contains(s.in, -1) {
			return false
		}
		in := make([]int, len(s.in))
		for i, slot := range s.in {
			in[i] = l.of(slot, s.node)
		}
		l.add(s, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return concatAll(x, in, 3) }, in...)
		return true
	case "Split":
		return l.split(s)
	case "MaxPool", "AveragePool", "GlobalAveragePool":
		if len(s.out) > 1 || s.node.Op == "AveragePool" && !whole(s.node) {
			return false
		}
		l.add(s, poolLast(s.node), l.of(s.in[0], s.node))
		return true
	case "BatchNormalization":
		return l.affine(s, s.in[0], constantLen(l.f.p.constants, s.in[1]))
	case "Resize", "Upsample":
		return l.resize(s)
	}
	return false
}

// resize is s where it takes the nearest elements of all.
func (l *laster) resize(s *step) bool {
	r := readResize(s.node)
	if r.mode != "nearest" || r.coordinates == "tf_crop_and_resize" || !l.is(s.in[0]) || slices.ContainsFunc(s.in[1:], l.is) {
		return false
	}
	in := slices.Clone(s.in)
	in[0] = l.of(s.in[0], s.node)
	l.add(s, resizeLast(s.node), in...)
	return true
}

func constantLen(constants []*engine.Tensor, slot int) int {
	if slot < 0 || constants[slot] == nil {
		return 0
	}
	return constants[slot].Len()
}

// function is what s is of one value, or nil.
func (l *laster) function(s *step) *vector.Function {
	if s.node.Op == "Conv" || s.in[0] < 0 || !l.is(s.in[0]) {
		return nil
	}
	if s.function != nil {
		return s.function
	}
	return l.f.functionOf(s)
}

// after has the convolution that gives slot, where there is one that only this reads,
// take more in, and give out instead.
func (l *laster) after(slot, out int, take func(c *convolution) bool) bool {
	c := l.open[slot]
	if c == nil || l.readers[slot] != 1 || !take(c) {
		return false
	}
	l.last[out], l.made[out] = l.last[slot], true
	delete(l.open, slot)
	delete(l.made, slot)
	delete(l.last, slot)
	l.open[out] = c
	return true
}

// affine is s where it scales and shifts the channels, of which there are n.
func (l *laster) affine(s *step, slot, n int) bool {
	if n < 1 || !l.is(slot) {
		return false
	}
	scale, shift, ok := l.f.affine(l.at, slot, n, 4)
	if !ok {
		return false
	}
	a, b := single32(scale), single32(shift)
	l.add(s, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if shape := in[0].Shape(); len(shape) != 4 || shape[3] != n {
			return nil, errUnfused
		}
		t, out, err := rawOf[float32](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[float32](in[0])
		x.parts(len(src)/n, func(from, to int) { convolve.Rows(out[from*n:to*n], src[from*n:to*n], a, b) })
		return one(t, nil)
	}, l.of(slot, s.node))
	return true
}

func single32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, e := range v {
		out[i] = float32(e)
	}
	return out
}

// arithmetic is s of two such values, or of one and a constant.
func (l *laster) arithmetic(s *step) bool {
	if len(s.in) != 2 {
		return false
	}
	in := []int{-1, -1}
	for i, slot := range s.in {
		switch {
		case slot < 0:
			return false
		case l.is(slot):
		case l.f.p.constants[slot] == nil:
			return false
		default:
			if n := l.f.p.constants[slot].Len(); n > 1 && l.affine(s, s.in[1-i], n) {
				return true
			}
			at, ok := l.constant(slot)
			if !ok {
				return false
			}
			in[i] = at
		}
	}
	if s.node.Op == "Add" && l.is(s.in[0]) && l.is(s.in[1]) && s.in[0] != s.in[1] {
		for i, slot := range s.in {
			other := s.in[1-i]
			if l.after(slot, s.out[0], func(c *convolution) bool { return c.join(l, l.last[other]) }) {
				delete(l.open, other)
				return true
			}
		}
	}
	for i, slot := range s.in {
		if in[i] < 0 {
			in[i] = l.of(slot, s.node)
		}
	}
	l.add(s, arithmeticLast(s), in...)
	return true
}

// constant is one that is broadcast over images, with its channels last.
func (l *laster) constant(slot int) (int, bool) {
	t := l.f.p.constants[slot]
	shape := t.Shape()
	if len(shape) > 4 || t.DType() != engine.Float32 {
		return 0, false
	}
	wide := append(slices.Repeat([]int{1}, 4-len(shape)), shape...)
	if slices.Max(wide[1:]) == 1 {
		return slot, true
	}
	view, err := t.Reshape(wide...)
	if err != nil {
		return 0, false
	}
	out, err := lastOf(&Exec{limit: defaultMaxBytes}, []*engine.Tensor{view})
	if err != nil {
		return 0, false
	}
	return l.f.constant(out[0]), true
}

// split is a Split of the channels.
func (l *laster) split(s *step) bool {
	axis := s.node.Attrs["axis"].Int
	if axis != 1 && axis != -3 || !l.is(s.in[0]) || slices.Contains(s.out, -1) {
		return false
	}
	given, outs := toInts(s.node.Attrs["split"].Ints), len(s.out)
	if len(s.in) > 1 && s.in[1] >= 0 {
		t := l.f.p.constants[s.in[1]]
		if t == nil {
			return false
		}
		var err error
		if given, err = intsOf(t); err != nil {
			return false
		}
	}
	l.add(s, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		parts := given
		if len(parts) == 0 {
			parts = evenParts(in[0].Shape()[3], outs)
		}
		return splitLast(x, in[0], parts, outs)
	}, l.of(s.in[0], s.node))
	return true
}

// convolution is a step of engine/convolve that is being put together.
type convolution struct {
	step   int
	node   *Node
	filter *convolve.Filter
	// quick, where there is one, is for windows that it suits.
	quick *convolve.Winograd
	each  *convolve.Each
	shape []int // of the weights
	// added is the slot of what is added to the sums, bounded and then are what follows.
	added     bool
	bounded   bool
	low, high float32
	then      *vector.Function
}

// follow takes in a function.
func (c *convolution) follow(fn *vector.Function) bool {
	if c.then != nil || c.bounded {
		return false
	}
	if low, high, ok := fn.Bounds(); ok {
		c.low, c.high, c.bounded = low, high, true
		return true
	}
	c.then = fn
	return true
}

// join takes in a sum with the value of a slot: the step moves to where that is there.
func (c *convolution) join(l *laster, slot int) bool {
	if c.added || c.bounded || c.then != nil || c.filter == nil || c.node.Op != "Conv" {
		return false
	}
	c.added = true
	s := l.steps[c.step]
	s.in = append(slices.Clone(s.in), slot)
	l.steps = slices.Delete(l.steps, c.step, c.step+1)
	for _, other := range l.open {
		if other.step > c.step {
			other.step--
		}
	}
	c.step = len(l.steps)
	l.steps = append(l.steps, s)
	return true
}

func (l *laster) convolution(s *step) {
	w := l.f.p.constants[s.in[1]]
	shape, weights := w.Shape(), engine.Data[float32](w)
	taps := shape[2] * shape[3]
	c := &convolution{node: s.node, shape: shape, low: float32(math.Inf(-1)), high: float32(math.Inf(1))}
	switch groups := s.node.Attrs["group"].Int; {
	case s.node.Op == "ConvTranspose":
		c.filter = transposedFilter(shape, weights, l.bias(s))
	case groups > 1:
		c.each = convolve.NewEach(shape[0], taps, weights, l.bias(s))
	default:
		c.filter = convolve.NewFilter(shape[0], shape[1], taps, weights, l.bias(s))
	}
	if s.function != nil {
		c.follow(s.function)
	}
	if c.filter != nil {
		l.room -= c.filter.Len()
	}
	if more := convolve.WinogradLen(shape[0], shape[1]); c.filter != nil && more <= l.room && adjacent(s.node) {
		if c.quick = convolve.NewWinograd(c.filter, weights, l.bias(s)); c.quick != nil {
			l.room -= more
		}
	}
	in := l.of(s.in[0], s.node)
	c.step = len(l.steps)
	l.add(s, c.run, in)
	l.open[s.out[0]] = c
}

// adjacent reports whether n is a convolution whose windows are a step of one apart.
func adjacent(n *Node) bool {
	w, err := windowAttrs(n, 2)
	return err == nil && n.Op == "Conv" && slices.Max(append(w.strides, w.dilations...)) == 1
}

// transposedFilter makes of each element the window of a transposed convolution: its
// taps one after the other, all channels of each.
func transposedFilter(shape []int, weights, bias []float32) *convolve.Filter {
	in, out, taps := shape[0], shape[1], shape[2]*shape[3]
	turned, all := make([]float32, len(weights)), make([]float32, out*taps)
	for c := range in {
		for o := range out {
			for t := range taps {
				turned[(t*out+o)*in+c] = weights[(c*out+o)*taps+t]
			}
		}
	}
	for i := range all {
		if bias != nil {
			all[i] = bias[i%out]
		}
	}
	return convolve.NewFilter(out*taps, in, 1, turned, all)
}
