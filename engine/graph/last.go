package graph

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/vector"
)

// laster has the images between convolutions lie with their channels side by side,
// [N, H, W, C], as engine/convolve takes them; lines, of one dimension, are images one
// element high. From the first convolution on, what is
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
	// ranks are of the values in last: 4 of images, 3 of lines.
	ranks map[int]int
	// room is how many elements filters may still take: those of few channels are
	// padded with zeros.
	room int
	// at is the step of the old program that is looked at.
	at int
	// readers are how often a slot is read in the program as it was.
	readers []int
	// open are convolutions that may take in more, by the slot that they give.
	open map[int]*convolution
	// deferred are the pads that a convolution may take in, by the slot that they give.
	deferred map[int]deferred
}

// channelsLast rewrites the steps of a fused program.
func channelsLast(f *fuser) {
	l := &laster{f: f, last: map[int]int{}, made: map[int]bool{}, ranks: map[int]int{}, readers: make([]int, len(f.p.names)), open: map[int]*convolution{}, deferred: map[int]deferred{}}
	l.room = leastRoom
	for _, c := range f.p.constants {
		if c != nil && c.DType() == engine.Float32 {
			l.room += mostPadded * c.Len()
		}
	}
	for i := range f.p.steps {
		if w := f.p.steps[i].narrow; w != nil && !f.gone[i] {
			l.room += mostPadded * int(tensorBytes(w.t)/4)
		}
	}
	// Of what a model may hold a part is left for copies of weights and their images.
	const share = 16
	l.room = int(min(int64(l.room), f.p.held.left()/share))
	room := l.room
	defer func() { f.p.held.lay(4 * int64(max(room-l.room, 0))) }()
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
		live = live || l.suits(&f.p.steps[i]) || f.p.steps[i].takesLast > 0 || f.p.steps[i].givesLast > 0
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
		if s := &f.p.steps[i]; !f.gone[i] && !l.defers(s) && !l.step(s) {
			l.plain(s)
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

// suits reports whether s is a convolution for engine/convolve: of one or two
// dimensions, its weights constant, one group, several of many channels, or each channel by
// itself.
func (l *laster) suits(s *step) bool {
	n := s.node
	if n.Domain != DomainONNX || n.Op != "Conv" && n.Op != "ConvTranspose" || len(s.in) < 2 || s.in[0] < 0 || s.in[1] < 0 || s.out[0] < 0 || l.f.p.types[s.in[0]] != engine.Float32 {
		return false
	}
	w := l.f.filterWeights(s)
	if w == nil || w.Len() == 0 || !l.fits(s.in[0], len(w.Shape())) {
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
	groups := int64(1)
	if a, ok := n.Attrs["group"]; ok {
		groups = a.Int
	}
	many := groups > 1 && shape[1] >= leastGrouped && int64(out) >= groups*leastGrouped && int64(out)%groups == 0
	size := filterLen(s, w, out)
	if many {
		size = int(groups) * convolve.FilterLen(out/int(groups), w.Len()/out)
	}
	if size > l.room {
		return false
	}
	if n.Op == "ConvTranspose" {
		return groups == 1 && len(shape) == 4 && besides(n, shape[2:])
	}
	return groups == 1 || groups == int64(shape[0]) && shape[1] == 1 || many && s.narrow == nil
}

// leastGrouped is from how many channels a group on convolutions are for engine/convolve,
// which pads fewer with zeros.
const leastGrouped = 8

// fits reports whether a value may be one of that many dimensions with its channels last.
func (l *laster) fits(slot, rank int) bool {
	known, ok := l.ranks[slot]
	return (rank == 3 || rank == 4) && (!ok || known == rank)
}

// rankOf is how many dimensions a step's values have, of those that are known, 0 where
// they have not all the same.
func (l *laster) rankOf(in []int) int {
	rank := 0
	for _, slot := range in {
		switch r, ok := l.ranks[slot]; {
		case !ok || r == rank:
		case rank > 0:
			return 0
		default:
			rank = r
		}
	}
	return rank
}

// wide is a node over lines as one over images.
func wide(n *Node, rank int) *Node {
	if rank == 4 {
		return n
	}
	w := *n
	w.Attrs = maps.Clone(n.Attrs)
	for name, first := range map[string]int64{"kernel_shape": 1, "strides": 1, "dilations": 1} {
		if a, ok := w.Attrs[name]; ok && len(a.Ints) > 0 {
			a.Ints = append([]int64{first}, a.Ints...)
			w.Attrs[name] = a
		}
	}
	if a := w.Attrs["pads"]; len(a.Ints) == 2 {
		a.Ints = []int64{0, a.Ints[0], 0, a.Ints[1]}
		w.Attrs["pads"] = a
	}
	return &w
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
	if pad, ok := l.deferred[slot]; ok {
		delete(l.deferred, slot)
		l.plain(pad.step)
		return
	}
	from, ok := l.last[slot]
	if !ok || !l.made[slot] {
		return
	}
	if slices.ContainsFunc(l.steps, func(s step) bool { return slices.Contains(s.out, slot) }) {
		return
	}
	delete(l.open, slot)
	l.steps = append(l.steps, step{node: l.maker(from), op: functionOp, kernel: channelsFirst(l.ranks[slot]), in: []int{from}, out: []int{slot}})
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

// of returns the slot of a value of that many dimensions with its channels last, for
// node n.
func (l *laster) of(slot int, n *Node, rank int) int {
	if at, ok := l.last[slot]; ok {
		delete(l.open, slot)
		return at
	}
	at := l.slot()
	l.last[slot], l.ranks[slot] = at, rank
	if l.transposed(slot, at, rank) {
		return at
	}
	l.steps = append(l.steps, step{node: n, op: functionOp, kernel: lastOf(rank), in: []int{slot}, out: []int{at}})
	return at
}

// transposed has the transpose that gives slot, where nothing else reads that, give what
// has its channels last instead.
func (l *laster) transposed(slot, at, rank int) bool {
	i := slices.IndexFunc(l.steps, func(s step) bool { return slices.Contains(s.out, slot) })
	if i < 0 || l.readers[slot] != 1 || l.steps[i].op == functionOp || l.steps[i].node.Op != "Transpose" || l.steps[i].node.Domain != DomainONNX {
		return false
	}
	perm, err := permutation(l.steps[i].node.Attrs["perm"].Ints, rank)
	if err != nil {
		return false
	}
	s := &l.steps[i]
	*s = step{node: s.node, op: functionOp, kernel: transposedLast(perm), in: s.in, out: []int{at}}
	return true
}

// squeeze is a Squeeze that makes lines of images one element wide or high.
func (l *laster) squeeze(s *step, rank int) bool {
	axes := s.node.Attrs["axes"].Ints
	if s.node.Version >= 13 {
		if len(s.in) < 2 || s.in[1] < 0 || l.f.p.constants[s.in[1]] == nil {
			return false
		}
		axes = engine.Data[int64](l.f.p.constants[s.in[1]])
	}
	if rank != 4 || len(axes) != 1 || axes[0]%4 == 0 || axes[0] == 1 || axes[0] == -3 || !l.fits(s.out[0], 3) {
		return false
	}
	at := 2
	if axes[0] == 2 || axes[0] == -2 {
		at = 1
	}
	l.add(s, 3, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		d := in[0].Shape()
		if d[at] != 1 {
			return nil, errUnfused
		}
		return view(x, in[0], []int{d[0], 1, d[3-at], d[3]})
	}, l.of(s.in[0], s.node, 4))
	return true
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
func (l *laster) add(s *step, rank int, kernel Kernel, in ...int) {
	out := slices.Clone(s.out)
	for i, slot := range s.out {
		if slot >= 0 {
			out[i] = l.slot()
			l.last[slot], l.made[slot], l.ranks[slot] = out[i], true, rank
		}
	}
	l.steps = append(l.steps, step{node: s.node, op: functionOp, kernel: kernel, in: in, out: out})
}

// step adds s in the new layout; it reports false where s is not known there, or has
// nothing to do with it.
func (l *laster) step(s *step) bool {
	if s.takesLast > 0 || s.givesLast > 0 {
		l.octets(s)
		return true
	}
	if l.suits(s) {
		l.convolution(s)
		return true
	}
	if s.node.Domain != DomainONNX || !slices.ContainsFunc(s.in, l.is) || len(s.out) == 0 || s.out[0] < 0 {
		return false
	}
	rank := l.rankOf(s.in)
	if rank == 0 {
		return false
	}
	if fn := l.function(s); fn != nil {
		if l.after(s.in[0], s.out[0], func(c *convolution) bool { return c.follow(fn) }) {
			return true
		}
		l.add(s, rank, functionKernel(fn, 1), l.of(s.in[0], s.node, rank))
		return true
	}
	switch s.node.Op {
	case "Add", "Sub", "Mul", "Div", "Pow":
		return l.arithmetic(s, rank)
	case "Identity", "Cast":
		if l.f.p.typeOf(s.out[0]) != engine.Float32 {
			return false
		}
		l.add(s, rank, func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return in[:1], nil }, l.of(s.in[0], s.node, rank))
		return true
	case "Shape":
		l.steps = append(l.steps, step{node: s.node, op: functionOp, kernel: shapeLast(s.kernel, rank), in: []int{l.of(s.in[0], s.node, rank)}, out: s.out})
		return true
	case "Sqrt":
		l.add(s, rank, s.kernel, l.of(s.in[0], s.node, rank))
		return true
	case "Concat":
		if axis := s.node.Attrs["axis"].Int; axis != 1 && axis != int64(1-rank) || slices.Contains(s.in, -1) {
			return false
		}
		in := make([]int, len(s.in))
		for i, slot := range s.in {
			in[i] = l.of(slot, s.node, rank)
		}
		l.add(s, rank, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return concatAll(x, in, 3) }, in...)
		return true
	case "Split":
		return l.split(s, rank)
	case "Slice":
		return l.slice(s, rank)
	case "Squeeze":
		return l.squeeze(s, rank)
	case "ReduceMean":
		return l.mean(s, rank)
	case "GlobalMaxPool":
		l.add(s, rank, mostLast, l.of(s.in[0], s.node, rank))
		return true
	case "MaxPool", "AveragePool", "GlobalAveragePool":
		if len(s.out) > 1 {
			return false
		}
		l.add(s, rank, poolLast(wide(s.node, rank)), l.of(s.in[0], s.node, rank))
		return true
	case "BatchNormalization":
		return l.affine(s, s.in[0], constantLen(l.f.p.constants, s.in[1]), rank)
	case "Resize", "Upsample":
		return rank == 4 && l.resize(s)
	}
	return false
}

// octets is a step of bytes, whose floats lie as they are taken and given here.
func (l *laster) octets(s *step) {
	in := slices.Clone(s.in)
	for i, slot := range s.in {
		switch {
		case i == 0 && s.takesLast > 0:
			in[0] = l.of(slot, s.node, s.takesLast)
		case slot >= 0:
			l.first(slot)
		}
	}
	if s.givesLast > 0 {
		l.add(s, s.givesLast, s.kernel, in...)
		return
	}
	l.steps = append(l.steps, step{node: s.node, op: functionOp, kernel: s.kernel, in: in, out: s.out})
}

// resize is s where it takes the nearest elements of all, or blends a few.
func (l *laster) resize(s *step) bool {
	r := readResize(s.node)
	if r.antialias || r.coordinates == "tf_crop_and_resize" || !l.is(s.in[0]) || slices.ContainsFunc(s.in[1:], l.is) {
		return false
	}
	in := slices.Clone(s.in)
	in[0] = l.of(s.in[0], s.node, 4)
	kernel := resizeLast(s.node)
	if r.mode != "nearest" {
		kernel = blendLast(s.node)
	}
	l.add(s, 4, kernel, in...)
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
		if s.rank > l.ranks[s.in[0]] {
			return nil
		}
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
	l.last[out], l.made[out], l.ranks[out] = l.last[slot], true, l.ranks[slot]
	delete(l.open, slot)
	delete(l.made, slot)
	delete(l.last, slot)
	l.open[out] = c
	return true
}

// affine is s where it scales and shifts the channels, of which there are n.
func (l *laster) affine(s *step, slot, n, rank int) bool {
	if n < 1 || !l.is(slot) {
		return false
	}
	scale, shift, ok := l.f.affine(l.at, slot, n, rank)
	if !ok {
		return false
	}
	a, b := single32(scale), single32(shift)
	l.add(s, rank, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if shape := in[0].Shape(); len(shape) != 4 || shape[3] != n {
			return nil, errUnfused
		}
		t, out, err := overOf(x, in[0])
		if err != nil {
			return nil, err
		}
		src := engine.Data[float32](in[0])
		share(x, x.inParts(len(src)/n), len(src)/n, rowsWork{out, src, a, b})
		return x.one(t, nil)
	}, l.of(slot, s.node, rank))
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
func (l *laster) arithmetic(s *step, rank int) bool {
	if len(s.in) != 2 {
		return false
	}
	in := []int{-1, -1}
	for i, slot := range s.in {
		switch {
		case slot < 0:
			return false
		case l.is(slot), l.f.p.constants[slot] == nil && l.known(slot, rank):
		case l.f.p.constants[slot] == nil:
			return false
		default:
			if n := l.f.p.constants[slot].Len(); n > 1 && l.affine(s, s.in[1-i], n, rank) {
				return true
			}
			at, ok := l.constant(slot, rank)
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
			in[i] = l.of(slot, s.node, rank)
		}
	}
	l.add(s, rank, arithmeticLast(s), in...)
	return true
}

// known reports whether a value that does not lie with its channels last has so many
// dimensions for sure: a Reshape gives it.
func (l *laster) known(slot, rank int) bool {
	i := l.f.p.producer[slot]
	if i < 0 || l.f.p.types[slot] != engine.Float32 || !l.fits(slot, rank) {
		return false
	}
	s := &l.f.p.steps[i]
	return s.op != functionOp && s.node.Domain == DomainONNX && s.node.Op == "Reshape" && constantLen(l.f.p.constants, s.in[1]) == rank
}

// mean is a ReduceMean over all places of an image or a line, which is a pool.
func (l *laster) mean(s *step, rank int) bool {
	axes, keep := s.node.Attrs["axes"].Ints, true
	if a, ok := s.node.Attrs["keepdims"]; ok {
		keep = a.Int != 0
	}
	if len(s.in) > 1 && s.in[1] >= 0 {
		if l.f.p.constants[s.in[1]] == nil {
			return false
		}
		axes = engine.Data[int64](l.f.p.constants[s.in[1]])
	}
	folded := make([]bool, rank)
	for _, a := range axes {
		if a < 0 {
			a += int64(rank)
		}
		if a < 2 || a >= int64(rank) {
			return false
		}
		folded[a] = true
	}
	if slices.Contains(folded[2:], false) {
		return false
	}
	in := l.of(s.in[0], s.node, rank)
	if keep {
		l.add(s, rank, meanLast(4), in)
		return true
	}
	l.steps = append(l.steps, step{node: s.node, op: functionOp, kernel: meanLast(2), in: []int{in}, out: s.out})
	return true
}

// constant is one that is broadcast over values of that rank, with its channels last.
func (l *laster) constant(slot, rank int) (int, bool) {
	t := l.f.p.constants[slot]
	shape := t.Shape()
	if len(shape) > rank || t.DType() != engine.Float32 {
		return 0, false
	}
	full := append(slices.Repeat([]int{1}, rank-len(shape)), shape...)
	if slices.Max(full) == 1 {
		return slot, true
	}
	view, err := t.Reshape(full...)
	if err != nil {
		return 0, false
	}
	if !l.f.p.held.lay(tensorBytes(view)) {
		return 0, false
	}
	out, err := lastOf(rank)(&Exec{limit: defaultMaxBytes}, []*engine.Tensor{view})
	if err != nil {
		l.f.p.held.give(tensorBytes(view))
		return 0, false
	}
	return l.f.constant(out[0]), true
}

// split is a Split of the channels.
func (l *laster) split(s *step, rank int) bool {
	axis := s.node.Attrs["axis"].Int
	if axis != 1 && axis != int64(1-rank) || !l.is(s.in[0]) || slices.Contains(s.out, -1) {
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
	l.add(s, rank, func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		parts := given
		if len(parts) == 0 {
			parts = evenParts(x, in[0].Shape()[3], outs)
		}
		return splitLast(x, in[0], parts, outs)
	}, l.of(s.in[0], s.node, rank))
	return true
}

// lastAxes are where the dimensions of a value are once its channels lie last, by its
// rank.
var lastAxes = map[int][]int64{3: {0, 3, 2}, 4: {0, 3, 1, 2}}

// slice is a Slice by constants. The last dimensions are told by their place, which
// differs.
func (l *laster) slice(s *step, rank int) bool {
	if s.node.Version < 10 || !l.is(s.in[0]) || len(s.in) < 4 {
		return false
	}
	for i, slot := range s.in[1:] {
		if slot >= 0 && l.f.p.constants[slot] == nil || slot < 0 && i < 3 {
			return false
		}
	}
	axes, err := intsOf(l.f.p.constants[s.in[3]])
	if err != nil {
		return false
	}
	moved := make([]int64, len(axes))
	for i, a := range axes {
		if a < 0 {
			a += rank
		}
		if a < 0 || a >= rank {
			return false
		}
		moved[i] = lastAxes[rank][a]
	}
	t, err := engine.Of(moved, len(moved))
	if err != nil {
		return false
	}
	in := slices.Clone(s.in)
	in[0], in[3] = l.of(s.in[0], s.node, rank), l.f.constant(t)
	l.add(s, rank, s.kernel, in...)
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
	rank  int   // of the images in the file
	// padded says that the second input is how wide the images are padded first. added is the
	// input that is added to the sums, 0 for none; bounded and then are what follows.
	padded    bool
	added     int
	bounded   bool
	low, high float32
	then      *vector.Function
	// seen is the geometry over images of the shape that was last met.
	seen atomic.Pointer[overImages]
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
	if c.added > 0 || c.bounded || c.then != nil || c.filter == nil || c.node.Op != "Conv" {
		return false
	}
	s := l.steps[c.step]
	c.added = len(s.in)
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
	w := l.f.filterWeights(s)
	rank, shape, weights := len(w.Shape()), w.Shape(), engine.Data[float32](w)
	if rank == 3 {
		shape = []int{shape[0], shape[1], 1, shape[2]}
	}
	taps := shape[2] * shape[3]
	c := &convolution{node: wide(s.node, rank), shape: shape, rank: rank, low: float32(math.Inf(-1)), high: float32(math.Inf(1))}
	switch groups := s.node.Attrs["group"].Int; {
	case s.narrow != nil:
		n := s.narrow
		c.filter = convolve.NewNarrow(shape[0], shape[1], taps, convolve.Narrow{Bytes: n.bytes, Halves: n.halves, Precision: n.precision, Scale: n.scale, Zero: n.zero}, l.bias(s))
	case s.node.Op == "ConvTranspose":
		c.filter = transposedFilter(shape, weights, l.bias(s))
	case groups > 1 && shape[1] > 1:
		c.filter = convolve.NewGrouped(int(groups), shape[0]/int(groups), shape[1], taps, weights, l.bias(s))
	case groups > 1:
		c.each = convolve.NewEach(shape[0], taps, weights, l.bias(s))
		l.room -= c.each.Len()
	case rank == 4 && convolve.Winogradable(shape[0], shape[1], taps) && adjacent(s.node) && convolve.FilterLen(shape[0], shape[1]*taps)+convolve.WinogradLen(shape[0], shape[1]) <= l.room:
		// Most windows of such filters go by Winograd's algorithm.
		c.filter = convolve.NewFilterLater(shape[0], shape[1], taps, weights, l.bias(s))
		c.quick = convolve.NewWinograd(c.filter, weights, l.bias(s))
		l.room -= convolve.WinogradLen(shape[0], shape[1])
	default:
		c.filter = convolve.NewFilter(shape[0], shape[1], taps, weights, l.bias(s))
	}
	if c.filter != nil {
		l.room -= c.filter.Len()
	}
	l.f.laid[s.in[1]] = true
	if s.function != nil {
		c.follow(s.function)
	}
	var in []int
	if pad, ok := l.deferred[s.in[0]]; ok {
		delete(l.deferred, s.in[0])
		l.first(pad.widths)
		in, c.padded = []int{l.of(pad.step.in[0], s.node, rank), pad.widths}, true
	} else {
		in = []int{l.of(s.in[0], s.node, rank)}
	}
	c.step = len(l.steps)
	l.add(s, rank, c.run, in...)
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
