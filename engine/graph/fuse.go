package graph

import (
	"errors"
	"math"
	"runtime"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/crew"
	"github.com/pellucid/pellucid/engine/vector"
)

// fuser rewrites a program's steps into fewer ones that compute the same outputs:
// what follows from constants is computed once, what scales and shifts the channels
// of a convolution becomes part of its weights, activations that exporters spell in
// several nodes become one function, which is part of the convolution before it.
//
// Values keep their slots; those that are no longer made are hidden, and a run that
// wants one, or keeps all for a gradient, takes the program as it was written.
type fuser struct {
	p *Program
	// readers are the steps that read a slot, once for each time; outputs are the
	// slots that the graph gives.
	readers [][]int
	outputs []bool
	gone    []bool
	// functions are of steps that are one.
	functions []*vector.Function
	// kept are steps that make floats of matrices in 16 bits, for the products to take.
	kept []int
	// laid are constants that a convolution has copied, and reads no more.
	laid    map[int]bool
	changed bool
}

// fuse returns the rewritten program, nil where there is nothing to rewrite.
func fuse(p *Program) *Program {
	from := p
	p = widened(p)
	f := &fuser{
		changed: p != from,
		p: &Program{
			packs: p.packs, graph: p.graph, steps: slices.Clone(p.steps), slots: p.slots, names: slices.Clone(p.names), constants: slices.Clone(p.constants),
			types: slices.Clone(p.types), producer: slices.Clone(p.producer), held: p.held,
		},
		readers: make([][]int, len(p.names)), outputs: make([]bool, len(p.names)),
		gone: make([]bool, len(p.steps)), functions: make([]*vector.Function, len(p.steps)), laid: map[int]bool{},
	}
	for i := range f.p.steps {
		s := &f.p.steps[i]
		for _, slot := range s.in {
			if slot >= 0 {
				f.readers[slot] = append(f.readers[slot], i)
			}
		}
	}
	for _, name := range p.graph.Outputs {
		f.outputs[p.slots[name]] = true
	}
	for i := range f.p.steps {
		f.pass(i)
	}
	f.fold()
	for i := range f.p.steps {
		if f.functions[i] = f.p.steps[i].function; f.functions[i] == nil {
			f.functions[i] = f.functionOf(&f.p.steps[i])
		}
	}
	for i := range f.p.steps {
		f.activation(i)
		f.expansion(i)
	}
	octets(f)
	f.narrowFilters()
	f.rounding()
	for i := range f.p.steps {
		f.attention(i)
		f.norm(i)
		f.oneHot(i)
	}
	for i := range f.p.steps {
		f.convolution(i)
		f.product(i)
		f.recurrent(i)
	}
	f.widenRest()
	f.deepConvolutions()
	channelsLast(f)
	if !f.changed {
		return nil
	}
	return f.finish(from)
}

// finish drops the steps that are gone, of what from was made.
func (f *fuser) finish(from *Program) *Program {
	p := f.p
	p.hidden = make([]bool, len(p.names))
	var steps []step
	for i, s := range p.steps {
		if f.gone[i] {
			continue
		}
		for _, slot := range s.out {
			if slot >= 0 {
				p.producer[slot] = len(steps)
			}
		}
		steps = append(steps, s)
	}
	p.steps = steps
	f.forget(from)
	made := make([]bool, len(p.names))
	for _, s := range steps {
		for _, slot := range s.out {
			if slot >= 0 {
				made[slot] = true
			}
		}
	}
	for slot, by := range p.producer {
		p.hidden[slot] = by >= 0 && !made[slot] && p.constants[slot] == nil
	}
	return p
}

// forget drops what no step reads any more of the constants that were made here: those
// without a name, and those of a name that a convolution has copied: who asks for them gets
// the program as it was written, which makes them.
func (f *fuser) forget(from *Program) {
	read := make([]bool, len(f.p.names))
	for _, s := range f.p.steps {
		for _, slot := range s.in {
			if slot >= 0 {
				read[slot] = true
			}
		}
	}
	for slot, name := range f.p.names {
		made := name == "" || f.laid[slot] && from.constants[slot] == nil && !f.outputs[slot]
		if made && !read[slot] && f.p.constants[slot] != nil {
			f.p.held.give(tensorBytes(f.p.constants[slot]))
			f.p.constants[slot] = nil
		}
	}
}

// foldable are the operators that are computed once where all they read is constant:
// such as put shapes and scales together.
var foldable = map[string]bool{
	"Add": true, "Sub": true, "Mul": true, "Div": true, "Neg": true, "Sqrt": true, "Reciprocal": true, "Floor": true, "Ceil": true, "Exp": true,
	"Cast": true, "Slice": true, "Concat": true, "Reshape": true, "Transpose": true, "Squeeze": true, "Unsqueeze": true, "Gather": true,
	"Identity": true, "Flatten": true, "Shape": true, "Expand": true, "Equal": true, "Not": true, "Where": true, "Pow": true,
	"Mod": true, "QuantizeLinear": true,
	"Abs": true, "Sign": true, "Round": true, "Log": true, "Sin": true, "Cos": true, "Tan": true, "Tanh": true, "Sigmoid": true, "Relu": true, "Erf": true, "Softplus": true,
	"Clip": true, "Min": true, "Max": true, "Sum": true, "Mean": true, "And": true, "Or": true, "Xor": true, "Less": true, "LessOrEqual": true, "Greater": true,
	"GreaterOrEqual": true, "ReduceMean": true, "ReduceSum": true, "ReduceMax": true, "ReduceMin": true, "ReduceProd": true, "ReduceL2": true, "ReduceSumSquare": true,
	"Range": true, "ConstantOfShape": true, "Tile": true, "Pad": true, "Split": true, "Trilu": true, "Size": true, "CumSum": true, "EyeLike": true, "OneHot": true,
	"GatherND": true, "GatherElements": true, "ScatterND": true, "ScatterElements": true, "BatchNormalization": true, "LayerNormalization": true, "Softmax": true,
	"ArgMax": true, "NonZero": true, "CastLike": true,
}

// foldedProduct bounds the multiplications of a product of constants that is computed once,
// as the angles of rotary positions are: what a load takes is bounded.
const foldedProduct = 1 << 24

// folds reports whether a step, whose inputs are constants, is computed once.
func folds(s *step, in []*engine.Tensor) bool {
	if s.node.Op != "MatMul" {
		return foldable[s.node.Op]
	}
	a, b := in[0].Shape(), in[1].Shape()
	return len(b) > 0 && len(a) > 0 && in[0].Len() < foldedProduct/max(1, b[len(b)-1]) && in[1].Len() < foldedProduct/max(1, in[0].Len()/max(1, a[len(a)-1]))
}

// foldedBytes is what folding may need beyond twice the graph's own constants.
const foldedBytes = 16 << 20

func (f *fuser) fold() {
	budget, found := int64(foldedBytes), map[int]bool{}
	for _, c := range f.p.constants {
		if c != nil {
			budget += 2 * tensorBytes(c)
			if isHalf(c.DType()) { // it may become a float32 first
				budget += 2 * tensorBytes(c)
			}
		}
	}
	for i := range f.p.steps {
		if f.gone[i] {
			continue
		}
		s := &f.p.steps[i]
		may := foldable[s.node.Op] || s.node.Op == "MatMul" || f.unpacksEarly(s)
		if s.node.Domain != DomainONNX || !may || s.node.Captured > 0 || len(s.out) == 0 || s.out[0] < 0 {
			f.rebuild(s, found)
			continue
		}
		if f.keepsHalves(i) {
			f.kept = append(f.kept, i)
			continue
		}
		if f.keepsTable(i) {
			continue
		}
		in := make([]*engine.Tensor, len(s.in))
		known := len(in) > 0
		for k, slot := range s.in {
			if slot >= 0 {
				in[k] = f.p.constants[slot]
				known = known && in[k] != nil
			}
		}
		if !known || !folds(s, in) && !f.unpacksEarly(s) {
			f.rebuild(s, found)
			continue
		}
		// What cannot be computed fails when it is run, as it would have.
		out, err := s.call(&Exec{limit: min(budget, f.p.held.left())}, in)
		if err != nil || !f.lay(s, out) {
			f.rebuild(s, found)
			continue
		}
		for k, slot := range s.out {
			if slot >= 0 {
				budget -= tensorBytes(out[k])
				found[slot], f.p.constants[slot] = true, out[k]
			}
		}
		f.gone[i], f.changed = true, true
		budget += f.release(s, found)
	}
}

// release drops what was found on the way to what a step, which is gone, was the last to
// read: weights go through several steps before they are ready. It returns its bytes. Who
// asks for it by its name gets it from the program as it was written.
func (f *fuser) release(s *step, found map[int]bool) (bytes int64) {
	for _, slot := range s.in {
		if slot < 0 || !found[slot] || f.outputs[slot] || slices.ContainsFunc(f.readers[slot], func(i int) bool { return !f.gone[i] }) {
			continue
		}
		bytes += tensorBytes(f.p.constants[slot])
		f.p.constants[slot] = nil
		delete(found, slot)
	}
	f.p.held.give(bytes)
	return bytes
}

// lay reports whether what a step made of constants can be kept, and counts it as held.
func (f *fuser) lay(s *step, out []*engine.Tensor) bool {
	var bytes int64
	for k, slot := range s.out {
		if slot < 0 {
			continue
		}
		if k >= len(out) || out[k] == nil || out[k].DType().IsList() {
			return false
		}
		bytes += tensorBytes(out[k])
	}
	return f.p.held.lay(bytes)
}

// rebuild makes a step's kernel anew where some of what it reads was found to be
// constant: weights are laid out once, and what an inner graph makes of them is computed
// once. Graphs are not nested deep enough for the doubling at each level to matter.
func (f *fuser) rebuild(s *step, found map[int]bool) {
	if s.op.build == nil || !slices.ContainsFunc(s.in, func(slot int) bool { return found[slot] }) {
		return
	}
	b := &builder{node: s.node, attrs: &attrReader{node: s.node, read: map[string]bool{}}, packs: f.p.packs, held: f.p.held}
	for _, slot := range s.in {
		b.inputs = append(b.inputs, f.p.typeOf(slot))
		b.constants = append(b.constants, f.p.constantOf(slot))
	}
	if kernel, err := s.op.build(b); err == nil { // it was built before, from less
		s.kernel, f.changed = kernel, true
	}
}

// only returns the one step that reads a slot nobody else may ask for, or -1.
func (f *fuser) only(slot int) int {
	if f.outputs[slot] || len(f.readers[slot]) != 1 || f.gone[f.readers[slot][0]] {
		return -1
	}
	return f.readers[slot][0]
}

// number returns a constant of one float32 element.
func (f *fuser) number(slot int) (float32, bool) {
	if slot < 0 || f.p.constants[slot] == nil {
		return 0, false
	}
	v := engine.Data[float32](f.p.constants[slot])
	if len(v) != 1 || len(f.p.constants[slot].Shape()) > 1 {
		return 0, false
	}
	return v[0], true
}

// is reports whether step i, where there is one, is that operator over float32.
func (f *fuser) is(i int, op string) bool {
	if i < 0 || f.gone[i] {
		return false
	}
	s := &f.p.steps[i]
	// A step that was made of several still bears the node of one of them.
	return s.op != functionOp && s.node.Domain == DomainONNX && s.node.Op == op && len(s.out) > 0 && s.out[0] >= 0 && s.in[0] >= 0 && f.p.types[s.in[0]] == engine.Float32
}

// functionOf returns the function that a step is, or nil.
func (f *fuser) functionOf(s *step) *vector.Function {
	n := s.node
	if n.Domain != DomainONNX || len(s.in) == 0 || s.in[0] < 0 || f.p.types[s.in[0]] != engine.Float32 {
		return nil
	}
	attr := func(name string, def float32) float32 {
		if a, ok := n.Attrs[name]; ok {
			return a.Float
		}
		return def
	}
	switch n.Op {
	case "Relu":
		return vector.Relu
	case "Sigmoid":
		return vector.Sigmoid
	case "Tanh":
		return vector.Tanh
	case "Softplus":
		return vector.Softplus
	case "Mish":
		return vector.Mish
	case "LeakyRelu":
		return vector.Leaky(attr("alpha", 0.01))
	case "Elu":
		return vector.Elu(attr("alpha", 1), 1, 1)
	case "HardSwish":
		return vector.Gate(1.0/6, 0.5, 0, 1, 1)
	case "HardSigmoid":
		return vector.AffineClip(attr("alpha", 0.2), attr("beta", 0.5), 0, 1)
	case "Gelu":
		return geluFunction(n.Attrs["approximate"].String)
	case "Clip":
		if low, high, ok := f.bounds(s); ok {
			return vector.Clip(low, high)
		}
	}
	return nil
}

// bounds are a Clip's, where they are constants.
func (f *fuser) bounds(s *step) (low, high float32, ok bool) {
	b := [2]float32{float32(math.Inf(-1)), float32(math.Inf(1))}
	if s.node.Version < 11 {
		for i, name := range []string{"min", "max"} {
			if a, ok := s.node.Attrs[name]; ok {
				b[i] = a.Float
			}
		}
		return b[0], b[1], b[0] == b[0] && b[1] == b[1]
	}
	for i := range b {
		if i+1 >= len(s.in) || s.in[i+1] < 0 {
			continue
		}
		v, ok := f.number(s.in[i+1])
		if !ok || v != v {
			return 0, 0, false
		}
		b[i] = v
	}
	return b[0], b[1], true
}

// other returns what step i joins slot with, and whether slot is one operand only.
func (f *fuser) other(i, slot int) (int, bool) {
	in := f.p.steps[i].in
	switch {
	case len(in) != 2 || in[0] == in[1]:
		return -1, false
	case in[0] == slot:
		return in[1], true
	case in[1] == slot:
		return in[0], true
	}
	return -1, false
}

// by returns the number that step i, a division or a product, multiplies slot by.
func (f *fuser) by(i, slot int) (float32, bool) {
	switch {
	case i >= 0 && len(f.p.steps[i].in) != 2:
	case f.is(i, "Div") && f.p.steps[i].in[0] == slot:
		if v, ok := f.number(f.p.steps[i].in[1]); ok && v != 0 {
			return 1 / v, true
		}
	case f.is(i, "Mul"):
		if o, ok := f.other(i, slot); ok {
			return f.number(o)
		}
	}
	return 0, false
}

// activation looks for one whose last node but scales is a product of x with what
// step i, a function of x, gives.
func (f *fuser) activation(i int) {
	s := &f.p.steps[i]
	if f.gone[i] {
		return
	}
	switch {
	case f.is(i, "Sigmoid"):
		if f.gated(i, s.in[0], vector.Silu, i) {
			return
		}
	case f.is(i, "HardSigmoid"):
		n := s.node
		alpha, beta := float32(0.2), float32(0.5)
		if a, ok := n.Attrs["alpha"]; ok {
			alpha = a.Float
		}
		if a, ok := n.Attrs["beta"]; ok {
			beta = a.Float
		}
		f.gated(i, s.in[0], vector.Gate(alpha, beta, 0, 1, 1), i)
	case f.is(i, "Clip"):
		f.hardSwish(i)
	case f.is(i, "Tanh") && f.mish(i):
	case f.is(i, "Erf"), f.is(i, "Tanh"):
		f.gelu(i)
	}
}

// gated makes the product of x and step i's result, where nobody else reads that,
// the function of x; steps are gone with it.
func (f *fuser) gated(i, x int, fn *vector.Function, steps ...int) bool {
	m := f.only(f.p.steps[i].out[0])
	if !f.is(m, "Mul") {
		return false
	}
	if o, ok := f.other(m, f.p.steps[i].out[0]); !ok || o != x {
		return false
	}
	f.replace(m, x, fn, steps...)
	return true
}

// mish is x times what step i, a Tanh, gives of Softplus of x.
func (f *fuser) mish(i int) bool {
	slot := f.p.steps[i].in[0]
	soft := f.p.producer[slot]
	return f.is(soft, "Softplus") && f.only(slot) == i && f.gated(i, f.p.steps[soft].in[0], vector.Mish, i, soft)
}

// replace makes step m the function of x.
func (f *fuser) replace(m, x int, fn *vector.Function, steps ...int) {
	f.become(m, step{node: f.p.steps[m].node, op: functionOp, kernel: functionKernel(fn, 1), in: []int{x}, function: fn, rank: 1}, steps...)
	f.functions[m] = fn
}

// rank says that step m is a function of values of so many dimensions at least: a number
// of more among its nodes would give others some.
func (f *fuser) rank(m, rank int) {
	s := &f.p.steps[m]
	s.rank = max(s.rank, rank)
	s.kernel = functionKernel(s.function, s.rank)
}

// become makes step m what it and steps were, with m's outputs.
func (f *fuser) become(m int, s step, steps ...int) {
	for _, i := range append(steps, m) {
		for _, slot := range f.p.steps[i].in {
			if slot >= 0 {
				f.readers[slot] = slices.DeleteFunc(f.readers[slot], func(r int) bool { return r == i })
			}
		}
		f.gone[i] = i != m
	}
	s.out = f.p.steps[m].out
	f.p.steps[m] = s
	for _, slot := range s.in {
		if slot >= 0 {
			f.readers[slot] = append(f.readers[slot], m)
		}
	}
	f.changed = true
}

// closed reports whether nothing but steps reads what steps other than last make.
func (f *fuser) closed(steps []int, last int) bool {
	for _, i := range steps {
		if i == last {
			continue
		}
		for _, slot := range f.p.steps[i].out {
			if slot >= 0 && (f.outputs[slot] || slices.ContainsFunc(f.readers[slot], func(r int) bool { return !slices.Contains(steps, r) })) {
				return false
			}
		}
	}
	return true
}

// follows returns the function that step i is of a slot, where that has so many
// dimensions at least; else nil.
func (f *fuser) follows(i, slot, rank int) *vector.Function {
	if i < 0 || f.functions[i] == nil || f.p.steps[i].in[0] != slot || f.p.steps[i].rank > rank {
		return nil
	}
	return f.functions[i]
}

// errUnfused sends a run back to the program as it was written.
var errUnfused = errors.New("not as fused steps take it")

// functionKernel is a function where several nodes were. A constant of that many
// dimensions among them gives a value as many, which the function does not.
func functionKernel(fn *vector.Function, rank int) Kernel {
	quick := quickMap(nil, fn)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Float32 || len(in[0].Shape()) < rank {
			return nil, errUnfused
		}
		return quick(x, in)
	}
}

// functionOp is what a function is to a run.
var functionOp = &opDef{minIn: 1, maxIn: 1, maxOut: 1}

// hardSwish is x Clip(x + a, low, high), maybe scaled.
func (f *fuser) hardSwish(clip int) {
	s := &f.p.steps[clip]
	low, high, ok := f.bounds(s)
	add := f.p.producer[s.in[0]]
	if !ok || !f.is(add, "Add") || f.only(s.in[0]) != clip {
		return
	}
	x := f.p.steps[add].in[0]
	shift, ok := f.number(f.p.steps[add].in[1])
	if !ok {
		x = f.p.steps[add].in[1]
		if shift, ok = f.number(f.p.steps[add].in[0]); !ok {
			return
		}
	}
	m := f.only(s.out[0])
	if !f.gated(clip, x, vector.Gate(1, shift, low, high, 1), clip, add) {
		return
	}
	f.scaled(m, x, func(factor float32) *vector.Function { return vector.Gate(1, shift, low, high, factor) })
}

// scaled takes what scales step m, a function of x, into it.
func (f *fuser) scaled(m, x int, fn func(factor float32) *vector.Function) bool {
	next := f.only(f.p.steps[m].out[0])
	factor, ok := f.by(next, f.p.steps[m].out[0])
	if !ok {
		return false
	}
	f.replace(next, x, fn(factor), m)
	return true
}

// affine is what step i does to each of n channels of a value of the given rank: a
// scale and a shift, ok where it does only that.
func (f *fuser) affine(i, slot, n, rank int) (scale, shift []float64, ok bool) {
	s := &f.p.steps[i]
	scale, shift = slices.Repeat([]float64{1}, n), make([]float64, n)
	if f.is(i, "BatchNormalization") && s.in[0] == slot {
		if a, ok := s.node.Attrs["training_mode"]; ok && a.Int != 0 || len(s.out) != 1 {
			return nil, nil, false
		}
		var v [4][]float64
		for k := range v {
			if v[k], ok = f.perChannel(s.in[k+1], n, 2, true); !ok {
				return nil, nil, false
			}
		}
		eps := 1e-5
		if a, ok := s.node.Attrs["epsilon"]; ok {
			eps = float64(a.Float)
		}
		for c := range n {
			scale[c] = v[0][c] / math.Sqrt(v[3][c]+eps)
			shift[c] = v[1][c] - v[2][c]*scale[c]
		}
		return scale, shift, true
	}
	o, ok := f.other(i, slot)
	if !ok {
		return nil, nil, false
	}
	v, ok := f.perChannel(o, n, rank, false)
	if !ok {
		return nil, nil, false
	}
	switch first := s.in[0] == slot; {
	case f.is(i, "Add"):
		shift = v
	case f.is(i, "Mul"):
		scale = v
	case f.is(i, "Sub") && first:
		for c := range v {
			shift[c] = -v[c]
		}
	case f.is(i, "Div") && first:
		for c := range v {
			scale[c] = 1 / v[c]
		}
	default:
		return nil, nil, false
	}
	return scale, shift, true
}

// perChannel returns a constant's value for each channel of a value of that rank, or
// of a plain list.
func (f *fuser) perChannel(slot, n, rank int, list bool) ([]float64, bool) {
	if slot < 0 || f.p.constants[slot] == nil || f.p.types[slot] != engine.Float32 {
		return nil, false
	}
	t := f.p.constants[slot]
	v, ok := t.Float64s()
	shape := t.Shape()
	switch {
	case !ok || len(shape) > rank:
		return nil, false
	case list:
		return v, len(shape) == 1 && len(v) == n
	case len(v) == 1:
		return slices.Repeat(v, n), true
	case len(v) != n || len(shape) < rank-1 || shape[len(shape)-rank+1] != n:
		return nil, false
	}
	return v, true
}

// convolution takes what follows a convolution into it.
func (f *fuser) convolution(i int) {
	s := &f.p.steps[i]
	if !f.is(i, "Conv") && (s.narrow == nil || f.gone[i]) || s.in[1] < 0 {
		return
	}
	weights := f.filterWeights(s)
	if weights == nil {
		return
	}
	shape := weights.Shape()
	if len(shape) < 3 || shape[0] == 0 || weights.Len() == 0 {
		return
	}
	n, rank := shape[0], len(shape)
	bias := make([]float64, n)
	if len(s.in) > 2 && s.in[2] >= 0 {
		var ok bool
		if bias, ok = f.perChannel(s.in[2], n, rank, true); !ok {
			return
		}
		bias = slices.Clone(bias)
	}
	scales := slices.Repeat([]float64{1}, n)
	out, taken := s.out[0], []int(nil)
	var then *vector.Function
	for next := f.only(out); next >= 0 && then == nil; next = f.only(out) {
		scale, shift, ok := f.affine(next, out, n, rank)
		switch {
		case ok:
			for c := range n {
				scales[c] *= scale[c]
				bias[c] = bias[c]*scale[c] + shift[c]
			}
		case f.follows(next, out, rank) != nil:
			then = f.functions[next]
		default:
			next = -1
		}
		if next < 0 {
			break
		}
		taken = append(taken, next)
		out = f.p.steps[next].out[0]
	}
	if len(taken) == 0 {
		return
	}
	if f.weigh(i, scales, bias, then, out) {
		for _, t := range taken {
			f.gone[t] = true
		}
		f.changed = true
	}
}

// weigh gives convolution i other weights and what follows; it reports false where a
// weight would be no number.
func (f *fuser) weigh(i int, scales, bias []float64, then *vector.Function, out int) bool {
	s := &f.p.steps[i]
	if s.narrow != nil {
		return f.weighNarrow(i, scales, bias, then, out)
	}
	old := f.p.constants[s.in[1]]
	v := engine.Data[float32](old)
	if !f.p.held.lay(4 * int64(len(v)+len(bias))) {
		return false
	}
	w, b := make([]float32, len(v)), make([]float32, len(bias))
	if !weighed(w, v, scales) {
		return false
	}
	for k, e := range bias {
		if b[k] = float32(e); b[k]-b[k] != 0 {
			return false
		}
	}
	weights, err := engine.Of(w, old.Shape()...)
	if err != nil {
		return false
	}
	biases, err := engine.Of(b, len(b))
	if err != nil {
		return false
	}
	n := s.node
	f.laid[s.in[1]] = true
	kernel := func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Float32 {
			return nil, errUnfused
		}
		c, err := convOf(x, n, in, in[0].Shape(), in[1].Shape())
		if err != nil {
			return nil, err
		}
		return x.one(convThen[float32](x, n, c, in, then))
	}
	f.p.steps[i] = step{
		node: n, op: functionOp, kernel: kernel, in: []int{s.in[0], f.constant(weights), f.constant(biases)}, out: []int{out}, function: then,
	}
	return true
}

// weighed writes weights, as many for each channel, times their channel's scale, on all cores
// where they are many; it reports false where a product is no number.
func weighed(to, weights []float32, scales []float64) bool {
	const many, infinite, least = 1 << 16, 0x7fffffff, 1 << 23
	parts := min(len(scales), len(weights)/many+1)
	over := make([]uint32, parts)
	per := len(weights) / len(scales)
	crew.Run(runtime.GOMAXPROCS(0), parts, func(part int) {
		bits := uint32(0)
		for c := len(scales) * part / parts; c < len(scales)*(part+1)/parts; c++ {
			scale, to := scales[c], to[c*per:][:per]
			for i, e := range weights[c*per:][:per] {
				v := float32(float64(e) * scale)
				to[i] = v
				// The highest exponent, that of what is no number, and one more is the sign.
				bits |= math.Float32bits(v)&infinite + least
			}
		}
		over[part] = bits
	})
	return !slices.ContainsFunc(over, func(bits uint32) bool { return bits>>31 != 0 })
}

// constant adds a constant without a name.
func (f *fuser) constant(t *engine.Tensor) int {
	f.p.names = append(f.p.names, "")
	f.p.constants = append(f.p.constants, t)
	f.p.types = append(f.p.types, t.DType())
	f.p.producer = append(f.p.producer, -1)
	f.readers = append(f.readers, nil)
	f.outputs = append(f.outputs, false)
	return len(f.p.names) - 1
}
