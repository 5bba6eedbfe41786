package graph

import (
	"bytes"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// octeter rewrites what lies between DequantizeLinear and QuantizeLinear, and the
// products of bytes that are scaled afterwards, into steps that compute with the bytes.
//
// Products and convolutions sum in integers and round once, to within a step of the
// result's scale of what the file's nodes give in float32; everything else gives the same
// bytes. What only depends on one value of bytes, element by element, is a table of 256
// results, whatever nodes it is made of; it is computed by those nodes' own kernels.
//
// Images whose channels lie last have slots of their own, as those of laster have.
type octeter struct {
	f     *fuser
	steps []step
	taken []bool
	// there are the slots of the file's values that are made, as the file has them.
	there []bool
	// rounded are values of float32 that DequantizeLinear makes of bytes.
	rounded map[int]rounded8
	// tables are values that are made of one of bytes.
	tables map[int]*octetTable
	// last are where values of bytes lie with their channels last, ranks how many dimensions
	// those have in the file.
	last, ranks map[int]int
	// flipped are, of values of signed bytes, those of unsigned ones, which are 128 more.
	flipped map[int]int
	// any says that something was rewritten.
	any bool
}

// rounded8 is a value of bytes and what they stand for.
type rounded8 struct {
	bytes int
	scale qgemm.Scale
}

// octetTable is what each byte of base becomes: floats, or bytes.
type octetTable struct {
	base   int
	floats []float32
	bytes  []uint8
}

var allOctets = func() []uint8 {
	v := make([]uint8, 256)
	for i := range v {
		v[i] = uint8(i)
	}
	return v
}()

// octets rewrites the steps of f.
func octets(f *fuser) {
	if !slices.ContainsFunc(f.p.steps, func(s step) bool {
		return s.node.Domain == DomainONNX && (s.node.Op == "DequantizeLinear" || s.node.Op == "MatMulInteger" || s.node.Op == "ConvInteger" || s.node.Op == "QLinearConv")
	}) {
		return
	}
	o := &octeter{f: f, taken: slices.Clone(f.gone), there: make([]bool, len(f.p.names)), rounded: map[int]rounded8{}, tables: map[int]*octetTable{}, last: map[int]int{}, ranks: map[int]int{}, flipped: map[int]int{}}
	for slot, by := range f.p.producer {
		o.there[slot] = by < 0 || f.p.constants[slot] != nil
	}
	for i := range f.p.steps {
		if !o.taken[i] && !o.step(i) {
			o.plain(&f.p.steps[i])
		}
	}
	for slot, out := range f.outputs {
		if out {
			o.own(slot)
		}
	}
	if o.any {
		o.snap()
		f.restart(o.steps)
		for i := range f.p.steps {
			f.cutBefore(i)
		}
	}
}

// snap makes one function of each two steps of which one rounds what the other alone makes
// floats of again.
func (o *octeter) snap() {
	readers, makers := make([]int, len(o.f.p.names)), map[int]int{}
	for i := range o.steps {
		for _, slot := range o.steps[i].in {
			if slot >= 0 {
				readers[slot]++
			}
		}
		if o.steps[i].rounds.Scale > 0 {
			makers[o.steps[i].out[0]] = i
		}
	}
	gone := make([]bool, len(o.steps))
	for k := range o.steps {
		s := &o.steps[k]
		i, ok := makers[firstInput(s)]
		if !ok || s.widens.Scale == 0 || s.widens != o.steps[i].rounds || readers[s.in[0]] != 1 || o.f.outputs[s.in[0]] {
			continue
		}
		low, high := s.widens.Range()
		fn := vector.Snap(s.widens.Scale, low, high)
		gone[i] = true
		*s = step{node: s.node, op: functionOp, kernel: functionKernel(fn, 1), in: o.steps[i].in, out: s.out, function: fn}
	}
	at := 0
	o.steps = slices.DeleteFunc(o.steps, func(step) bool {
		at++
		return gone[at-1]
	})
}

// cutBefore takes a Relu into step i, where that rounds from 0 on.
func (f *fuser) cutBefore(i int) {
	s := &f.p.steps[i]
	if s.function == nil || !s.function.NotBelow() || f.gone[i] {
		return
	}
	x := s.in[0]
	if r := f.p.producer[x]; f.is(r, "Relu") && f.only(x) == i {
		f.replace(i, f.p.steps[r].in[0], s.function, r)
	}
}

func firstInput(s *step) int {
	if len(s.in) == 0 {
		return -1
	}
	return s.in[0]
}

// restart has f go on with other steps.
func (f *fuser) restart(steps []step) {
	p := f.p
	p.steps, f.changed = steps, true
	f.gone, f.functions = make([]bool, len(steps)), make([]*vector.Function, len(steps))
	f.readers = make([][]int, len(p.names))
	for i := range steps {
		s := &steps[i]
		for _, slot := range s.in {
			if slot >= 0 {
				f.readers[slot] = append(f.readers[slot], i)
			}
		}
		for _, slot := range s.out {
			if slot >= 0 {
				p.producer[slot] = i
			}
		}
		if f.functions[i] = s.function; s.op != functionOp {
			f.functions[i] = f.functionOf(s)
		}
	}
}

// slot adds one without a name.
func (o *octeter) slot(d engine.DType) int {
	p := o.f.p
	p.names, p.constants, p.types, p.producer = append(p.names, ""), append(p.constants, nil), append(p.types, d), append(p.producer, -1)
	o.f.readers, o.f.outputs = append(o.f.readers, nil), append(o.f.outputs, false)
	o.there = append(o.there, false)
	return len(p.names) - 1
}

func (o *octeter) emit(s step) { o.steps = append(o.steps, s) }

// op is a step of this pass for errors of a node.
func octetStep(n *Node, kernel Kernel, in, out []int) step {
	return step{node: n, op: functionOp, kernel: kernel, in: in, out: out}
}

// node is that of the step that made a slot in the file, and a node of no file's where none did:
// what another's operator says of its outputs would be taken for true of this one's.
func (o *octeter) node(slot int) *Node {
	if i := o.f.p.producer[slot]; i >= 0 && i < len(o.f.p.steps) {
		return o.f.p.steps[i].node
	}
	return &Node{Op: "Bytes"}
}

// plain keeps a step as it is.
func (o *octeter) plain(s *step) {
	t := *s
	t.in = slices.Clone(s.in)
	for i, slot := range t.in {
		if slot >= 0 {
			t.in[i] = o.need(slot)
		}
	}
	o.emit(t)
	for _, slot := range s.out {
		if slot >= 0 {
			o.there[slot] = true
		}
	}
}

// need sees to it that a value is there as the file has it, and returns where.
func (o *octeter) need(slot int) int {
	if o.there[slot] {
		return slot
	}
	t := o.tables[slot]
	if t != nil && t.bytes != nil && bytes.Equal(t.bytes, allOctets) {
		return o.need(t.base)
	}
	return o.own(slot)
}

// own is need in the very slot.
func (o *octeter) own(slot int) int {
	if o.there[slot] {
		return slot
	}
	n, t := o.node(slot), o.tables[slot]
	u, flipped := o.flipped[slot]
	switch {
	case flipped:
		o.emit(octetStep(n, flip, []int{o.need(u)}, []int{slot}))
	case t == nil:
		o.emit(octetStep(n, octetsFirst(o.rank(slot)), []int{o.last[slot]}, []int{slot}))
	case t.floats == nil && o.rank(slot) > 0:
		o.emit(octetStep(n, octetsFirst(o.rank(slot)), []int{o.needLast(slot, o.rank(slot))}, []int{slot}))
	case t.floats == nil:
		o.emit(octetStep(n, tableBytes(t.bytes), []int{o.need(t.base)}, []int{slot}))
	case o.rank(t.base) == 3 || o.rank(t.base) == 4:
		rank := o.rank(t.base)
		s := octetStep(n, o.toFloats(slot, 4), []int{o.needLast(t.base, rank)}, []int{slot})
		s.givesLast, s.widens = rank, o.widens(slot)
		o.emit(s)
	default:
		s := octetStep(n, o.toFloats(slot, 0), []int{o.need(t.base)}, []int{slot})
		s.widens = o.widens(slot)
		o.emit(s)
	}
	o.there[slot] = true
	return slot
}

// widens is the scale of a value that stands for the bytes its table is of, no scale where
// it is another function of them.
func (o *octeter) widens(slot int) qgemm.Scale {
	if r, ok := o.rounded[slot]; ok && r.bytes == o.tables[slot].base {
		return r.scale
	}
	return qgemm.Scale{}
}

// toFloats is the kernel that makes a value of the bytes that its table is of, which have
// that many dimensions where rank is not 0.
func (o *octeter) toFloats(slot, rank int) Kernel {
	if scale := o.widens(slot); scale.Scale > 0 {
		return floatsOf(scale, rank)
	}
	return tableFloats(o.tables[slot].floats, rank)
}

// rank is how many dimensions a value of bytes has in the file that lies, or is made of one
// that does, with its channels last; 0 where none does.
func (o *octeter) rank(slot int) int {
	if _, ok := o.last[slot]; ok {
		return o.ranks[slot]
	}
	if t := o.tables[slot]; t != nil {
		return o.rank(t.base)
	}
	return 0
}

// lie has a value of so many dimensions lie with its channels last in a slot of its own,
// which is returned.
func (o *octeter) lie(slot, rank int) int {
	at := o.slot(engine.Uint8)
	o.last[slot], o.ranks[slot] = at, rank
	return at
}

// fits reports whether a value may have so many dimensions.
func (o *octeter) fits(slot, rank int) bool {
	known := o.rank(slot)
	return known == 0 || known == rank
}

// needLast returns where a value of bytes, which fits, lies with its channels last.
func (o *octeter) needLast(slot, rank int) int {
	if at, ok := o.last[slot]; ok {
		return at
	}
	t := o.tables[slot]
	switch {
	case t != nil && bytes.Equal(t.bytes, allOctets):
		o.last[slot], o.ranks[slot] = o.needLast(t.base, rank), rank
	case t != nil && !o.there[slot]:
		from := o.needLast(t.base, rank)
		o.emit(octetStep(o.node(slot), tableBytes(t.bytes), []int{from}, []int{o.lie(slot, rank)}))
	default:
		from := o.need(slot)
		o.emit(octetStep(o.node(slot), octetsLast(rank), []int{from}, []int{o.lie(slot, rank)}))
	}
	return o.last[slot]
}

// scaleOf reads one scale and zero point of bytes, which are those of the unsigned ones.
func (o *octeter) scaleOf(scale, zero int) (qgemm.Scale, bool) {
	s, ok := o.f.number(scale)
	if !ok || !(s > 0) || math.IsInf(float64(s), 0) {
		return qgemm.Scale{}, false
	}
	if zero < 0 {
		return qgemm.Scale{Scale: s}, true
	}
	z := o.f.p.constants[zero]
	v, one := oneZero(z)
	if z == nil || !isOctet(z.DType()) || !one {
		return qgemm.Scale{}, false
	}
	if z.DType() == engine.Int8 {
		v += 128
	}
	return qgemm.Scale{Scale: s, Zero: float32(v)}, true
}

// unsigned returns the slot for the unsigned bytes of one that is to be made.
func (o *octeter) unsigned(slot int) int {
	if o.f.p.typeOf(slot) != engine.Int8 {
		return slot
	}
	u := o.slot(engine.Uint8)
	o.flipped[slot] = u
	return u
}

// bytesOf returns the slot of the unsigned bytes of one that there is.
func (o *octeter) bytesOf(slot int) int {
	if u, ok := o.flipped[slot]; ok || o.f.p.typeOf(slot) != engine.Int8 {
		if ok {
			return u
		}
		return slot
	}
	from := o.need(slot)
	u := o.unsigned(slot)
	o.emit(octetStep(o.node(slot), flip, []int{from}, []int{u}))
	o.there[u] = true
	return u
}

// input returns input i of a step, -1 where it was left out.
func (s *step) input(i int) int {
	if i < len(s.in) {
		return s.in[i]
	}
	return -1
}

// onlyAxis reports whether n has no attribute but an axis, which does not matter where
// there is one scale.
func onlyAxis(n *Node) bool {
	for name := range n.Attrs {
		if name != "axis" {
			return false
		}
	}
	return true
}

// quantises returns the scale where step i rounds float32 to bytes by one scale.
func (o *octeter) quantises(i int) (qgemm.Scale, bool) {
	s := &o.f.p.steps[i]
	if s.node.Domain != DomainONNX || s.node.Op != "QuantizeLinear" || s.in[0] < 0 || o.f.p.types[s.in[0]] != engine.Float32 ||
		!o.octetsOf(s.out[0], s.input(2)) || !onlyAxis(s.node) || s.op == functionOp {
		return qgemm.Scale{}, false
	}
	return o.scaleOf(s.in[1], s.input(2))
}

// octetsOf reports whether a value is of bytes, of the type of its zero point.
func (o *octeter) octetsOf(slot, zero int) bool {
	d := o.f.p.typeOf(slot)
	return isOctet(d) && (zero < 0 && d == engine.Uint8 || zero >= 0 && o.f.p.typeOf(zero) == d)
}

// step rewrites step i; it reports false where it is to stay.
func (o *octeter) step(i int) bool {
	s := &o.f.p.steps[i]
	if s.node.Domain != DomainONNX && s.op != functionOp || len(s.out) == 0 || s.out[0] < 0 || len(s.in) == 0 || s.in[0] < 0 {
		return false
	}
	if s.op != functionOp {
		switch s.node.Op {
		case "DequantizeLinear":
			return o.dequantise(s)
		case "QuantizeLinear":
			return o.quantise(i)
		case "DynamicQuantizeLinear":
			return o.dynamic(s)
		case "MatMulInteger", "ConvInteger":
			return o.scaled(i)
		case "QLinearConv":
			return o.linearConv(s)
		case "Conv":
			return o.conv(i)
		case "MatMul", "Gemm":
			return o.product(i)
		case "MaxPool":
			return o.largest(s)
		case "GlobalAveragePool":
			return o.means(s)
		case "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Gather":
			return o.move(s)
		}
	}
	return o.table(s) || o.pair(i)
}

// dequantise keeps in mind what a step makes.
func (o *octeter) dequantise(s *step) bool {
	b, f := s.in[0], s.out[0]
	if c := o.f.p.constants[b]; c != nil {
		if c.Len() != 1 {
			return o.gathered(s, c)
		}
		if v := o.constant(f); v != nil { // one number, that tables may need
			o.f.p.constants[f], o.there[f] = v, true
			return true
		}
		return false
	}
	scale, ok := o.scaleOf(s.in[1], s.input(2))
	if !ok || !o.octetsOf(b, s.input(2)) || o.f.p.typeOf(f) != engine.Float32 || !onlyAxis(s.node) {
		return false
	}
	o.floats(f, o.bytesOf(b), scale)
	return true
}

// gathered is a constant that some rows are taken of: as bytes.
func (o *octeter) gathered(s *step, c *engine.Tensor) bool {
	f := s.out[0]
	if !isOctet(c.DType()) || o.f.outputs[f] || o.f.p.typeOf(f) != engine.Float32 || !onlyAxis(s.node) || slices.ContainsFunc(o.f.readers[f], func(r int) bool {
		g := o.f.p.steps[r].node
		return g.Domain != DomainONNX || g.Op != "Gather" || o.f.p.steps[r].in[0] != f
	}) {
		return false
	}
	scale, ok := o.f.number(s.in[1])
	zero, one := int32(0), true
	if z := s.input(2); z >= 0 {
		zero, one = oneZero(o.f.p.constants[z])
		one = one && o.f.p.constants[z] != nil
	}
	if !ok || !one {
		return false
	}
	b := s.in[0]
	if c.DType() == engine.Int8 {
		if !o.f.p.held.lay(tensorBytes(c)) {
			return false
		}
		v, shift, err := unsignedOctets(&Exec{limit: defaultMaxBytes}, c)
		if err != nil {
			return false
		}
		t, err := engine.Of(v, c.Shape()...)
		if err != nil {
			return false
		}
		b, zero = o.f.constant(t), zero+shift
		o.there = append(o.there, true)
	}
	o.any = true
	o.floats(f, b, qgemm.Scale{Scale: scale, Zero: float32(zero)})
	return true
}

// floats has slot f stand for the bytes of slot b.
func (o *octeter) floats(f, b int, scale qgemm.Scale) {
	v := make([]float32, 256)
	qgemm.ToFloats(v, allOctets, scale)
	base, known := b, o.tables[b]
	if known != nil && !o.there[b] {
		base = known.base
		for i, e := range known.bytes {
			v[i] = (float32(e) - scale.Zero) * scale.Scale
		}
	}
	o.rounded[f], o.tables[f] = rounded8{b, scale}, &octetTable{base: base, floats: v}
}

// constant returns the value of a slot that is, or that DequantizeLinear makes of, a
// constant, else nil.
func (o *octeter) constant(slot int) *engine.Tensor {
	if slot < 0 {
		return nil
	}
	if c := o.f.p.constants[slot]; c != nil {
		return c
	}
	i := o.f.p.producer[slot]
	if i < 0 || o.f.p.steps[i].node.Op != "DequantizeLinear" || o.f.p.steps[i].node.Domain != DomainONNX {
		return nil
	}
	s := &o.f.p.steps[i]
	in := make([]*engine.Tensor, len(s.in))
	for k, slot := range s.in {
		if slot < 0 {
			continue
		}
		if in[k] = o.f.p.constants[slot]; in[k] == nil {
			return nil
		}
	}
	out, err := s.call(&Exec{limit: foldedBytes}, in)
	if err != nil || len(out) != 1 {
		return nil
	}
	return out[0]
}

// quantise is a step that rounds what is no product.
func (o *octeter) quantise(i int) bool {
	scale, ok := o.quantises(i)
	s := &o.f.p.steps[i]
	if !ok {
		return false
	}
	if t := o.tables[s.in[0]]; t != nil && t.floats != nil {
		b := make([]uint8, 256)
		qgemm.ToBytes(b, t.floats, scale)
		o.tables[o.unsigned(s.out[0])] = &octetTable{base: t.base, bytes: b}
		return true
	}
	from, out := o.need(s.in[0]), o.unsigned(s.out[0])
	rank := o.wantsLast(s.out[0])
	if rank != 3 && rank != 4 {
		t := octetStep(s.node, roundOctets(scale), []int{from}, []int{out})
		t.rounds = scale
		o.emit(t)
		o.there[out] = true
		return true
	}
	t := octetStep(s.node, roundOctets(scale), []int{from}, []int{o.lie(out, rank)})
	t.takesLast, t.rounds = rank, scale
	o.emit(t)
	return true
}

// wantsLast is how many dimensions a convolution takes the bytes for, or what they stand
// for, that reads them; 0 where none does.
func (o *octeter) wantsLast(slot int) int {
	for _, r := range o.f.readers[slot] {
		s, w := &o.f.p.steps[r], (*engine.Tensor)(nil)
		switch s.node.Op {
		case "DequantizeLinear":
			if len(s.out) == 1 && s.out[0] >= 0 {
				w = o.convolvedBy(s.out[0])
			}
		case "ConvInteger":
			w = o.octetWeights(s, s.input(1))
		case "QLinearConv":
			w = o.octetWeights(s, s.input(3))
		}
		if w != nil {
			return len(w.Shape())
		}
	}
	return 0
}

// convolvedBy are the weights that a value of floats is convolved with, or nil.
func (o *octeter) convolvedBy(slot int) *engine.Tensor {
	for _, r := range o.f.readers[slot] {
		if c := &o.f.p.steps[r]; c.node.Op == "Conv" {
			if w := o.octetWeights(c, c.input(1)); w != nil {
				return w
			}
		}
	}
	return nil
}

// octetWeights are the constant bytes of a convolution of images that engine/qgemm has,
// given as they are or as what they stand for, else nil.
func (o *octeter) octetWeights(s *step, slot int) *engine.Tensor {
	if slot < 0 {
		return nil
	}
	w := o.f.p.constants[slot]
	if w == nil {
		i := o.f.p.producer[slot]
		if i < 0 || o.f.p.steps[i].node.Op != "DequantizeLinear" || o.f.p.steps[i].node.Domain != DomainONNX {
			return nil
		}
		w = o.f.p.constantOf(o.f.p.steps[i].in[0])
	}
	if w == nil || !isOctet(w.DType()) {
		return nil
	}
	if _, ok := octetShape(s.node, w.Shape()); !ok {
		return nil
	}
	return w
}

// tabled are operators whose elements depend on those of their operands in the same place.
var tabled = map[string]bool{
	"Relu": true, "Clip": true, "Sigmoid": true, "HardSigmoid": true, "HardSwish": true, "Tanh": true, "LeakyRelu": true, "Elu": true, "Erf": true, "Gelu": true,
	"Sqrt": true, "Exp": true, "Neg": true, "Abs": true, "Mul": true, "Add": true, "Sub": true, "Div": true, "Pow": true, "Softplus": true, "Swish": true,
}

// table is a step of operands that are made of one value of bytes, and of numbers.
func (o *octeter) table(s *step) bool {
	if len(s.out) != 1 || o.f.p.typeOf(s.out[0]) != engine.Float32 || s.function == nil && !tabled[s.node.Op] || s.op == functionOp && s.function == nil {
		return false
	}
	base, in := -1, make([]*engine.Tensor, len(s.in))
	for i, slot := range s.in {
		if slot < 0 {
			continue
		}
		if c := o.f.p.constants[slot]; c != nil {
			if c.Len() != 1 || len(c.Shape()) > 1 {
				return false
			}
			in[i] = c
			continue
		}
		t := o.tables[slot]
		if t == nil || t.floats == nil || base >= 0 && t.base != base {
			return false
		}
		base = t.base
		var err error
		if in[i], err = engine.Of(t.floats, 256); err != nil {
			return false
		}
	}
	if base < 0 {
		return false
	}
	out, err := s.call(&Exec{limit: foldedBytes}, in)
	if err != nil || len(out) != 1 || out[0] == nil || out[0].DType() != engine.Float32 || out[0].Len() != 256 {
		return false
	}
	o.tables[s.out[0]] = &octetTable{base: base, floats: slices.Clone(engine.Data[float32](out[0]))}
	return true
}

// move is a step that makes no elements: of bytes, it makes bytes.
func (o *octeter) move(s *step) bool {
	r, ok := o.rounded[s.in[0]]
	if !ok || len(s.out) != 1 || o.there[s.in[0]] {
		return false
	}
	t := *s
	t.in = slices.Clone(s.in)
	t.in[0] = o.need(r.bytes)
	for i, slot := range t.in[1:] {
		if slot >= 0 {
			t.in[i+1] = o.need(slot)
		}
	}
	at := o.slot(engine.Uint8)
	t.out = []int{at}
	o.emit(t)
	o.there[at] = true
	o.floats(s.out[0], at, r.scale)
	return true
}

// follow walks on from a step's result over what bounds it, to where it is rounded, where
// it is. then, where it may be anything, is a function that follows; last is the slot that
// is given.
func (o *octeter) follow(i int, e *octetEnd, anything bool) (last int) {
	e.low, e.high = float32(math.Inf(-1)), float32(math.Inf(1))
	last = o.f.p.steps[i].out[0]
	for next := o.f.only(last); next >= 0 && !o.taken[next]; next = o.f.only(last) {
		s := &o.f.p.steps[next]
		if scale, ok := o.quantises(next); ok && s.in[0] == last && e.then == nil {
			e.to, e.bytes = scale, true
			o.taken[next] = true
			return o.unsigned(s.out[0])
		}
		fn := o.f.follows(next, last, 2)
		if fn == nil || e.then != nil {
			return last
		}
		if low, high, ok := fn.Bounds(); ok {
			e.low, e.high = min(max(e.low, low), high), max(min(e.high, high), low)
		} else if after := o.f.only(s.out[0]); anything && (after < 0 || o.f.p.steps[after].node.Op != "QuantizeLinear") {
			e.then = pieces(fn)
		} else {
			return last
		}
		o.taken[next] = true
		last = s.out[0]
	}
	return last
}
