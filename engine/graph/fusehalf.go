package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// widener has what a network in half precision computes stay in float32 from one node to
// the next, as onnxruntime has it on a CPU: a value is rounded where a Cast of the file
// makes it a half that another makes a float again, and where it leaves the network or
// meets an operator that is not known here. Operators compute in float32 anyway; what
// goes is the rounding between them, so that results are nearer to those of the network
// that was converted, and everything that is fused there is fused.
//
// That is for networks: programs with constant matrices, of a model. An operator's
// definition written out, in a file or here (body.go), rounds after each node, as ONNX says.
//
// A value in half precision has a second slot in float32. That of the file is hidden
// unless somebody wants it, who gets the program as it was written.
type widener struct {
	p     *Program
	steps []step
	// wide are the slots in float32 of halves; made are the halves that are there.
	wide map[int]int
	made map[int]bool
	// casts are the file's own Casts to half of a float, which come where one asks.
	casts map[int]step
	// same are floats that are another slot.
	same    map[int]int
	outputs map[int]bool
}

// moves are operators that put elements elsewhere, or read none. They do so with halves
// where nothing made floats of them.
var moves = map[string]bool{
	"Concat": true, "DepthToSpace": true, "Expand": true, "Flatten": true, "Gather": true, "GatherElements": true, "GatherND": true,
	"Pad": true, "Reshape": true, "ReverseSequence": true, "Slice": true, "SpaceToDepth": true, "Split": true, "Squeeze": true,
	"Tile": true, "Transpose": true, "Trilu": true, "Unsqueeze": true, "Where": true, "Shape": true, "Size": true,
}

// computesWide are those that compute in float32 or float64, beside the ones whose definition says so.
var computesWide = map[string]bool{"Softmax": true, "LogSoftmax": true, "LSTM": true, "GRU": true, "RNN": true, "Dropout": true}

func isHalf(d engine.DType) bool { return d == engine.Float16 || d == engine.BFloat16 }

// precisionOf is what a half's type is to package vector.
func precisionOf(d engine.DType) vector.Precision {
	if d == engine.BFloat16 {
		return vector.Brain
	}
	return vector.Half
}

// widened returns p with halves computed in float32, p itself where that saves no
// rounding.
func widened(p *Program) *Program {
	w := &widener{
		p: &Program{
			packs: p.packs, graph: p.graph, slots: p.slots, names: slices.Clone(p.names), constants: slices.Clone(p.constants),
			types: slices.Clone(p.types), producer: slices.Clone(p.producer), held: p.held,
		},
		wide: map[int]int{}, made: map[int]bool{}, casts: map[int]step{}, same: map[int]int{}, outputs: map[int]bool{},
	}
	if !w.pays(p.steps) {
		return p
	}
	for slot, d := range w.p.types {
		w.made[slot] = isHalf(d) && (w.p.producer[slot] < 0 || w.p.constants[slot] != nil)
	}
	for _, name := range p.graph.Outputs {
		w.outputs[p.slots[name]] = true
	}
	for i := range p.steps {
		s := p.steps[i]
		s.in = slices.Clone(s.in)
		for k, slot := range s.in {
			if to, ok := w.same[slot]; ok {
				s.in[k] = to
			}
		}
		if !w.cast(&s) && !w.identity(&s) && !w.step(&s) {
			w.plain(&s)
		}
	}
	for slot := range w.p.types[:len(p.types)] {
		if w.outputs[slot] && isHalf(w.p.types[slot]) {
			w.half(slot)
		}
	}
	for i := range w.steps {
		for _, slot := range w.steps[i].out {
			if slot >= 0 {
				w.p.producer[slot] = i
			}
		}
	}
	w.p.steps = w.steps
	return w.p
}

// pays reports whether a node that computes reads what another one has made, or a Cast.
func (w *widener) pays(steps []step) bool {
	weighs := slices.ContainsFunc(w.p.constants, func(c *engine.Tensor) bool {
		return c != nil && len(c.Shape()) > 1 && (isHalf(c.DType()) || c.DType() == engine.Float32)
	})
	if !weighs || w.p.held == nil {
		return false
	}
	made := map[int]bool{}
	for i := range steps {
		s := &steps[i]
		half := slices.ContainsFunc(s.in, func(slot int) bool { return slot >= 0 && isHalf(w.p.types[slot]) })
		known := s.node.Domain == DomainONNX && (s.op.half || computesWide[s.node.Op] || moves[s.node.Op] || s.node.Op == "Cast" || s.node.Op == "Identity")
		if !known || !half && s.node.Op != "Cast" {
			continue
		}
		if half && !moves[s.node.Op] && s.node.Op != "Identity" && slices.ContainsFunc(s.in, func(slot int) bool { return made[slot] }) {
			return true
		}
		for _, slot := range s.out {
			if slot >= 0 && isHalf(w.p.types[slot]) && w.p.constants[slot] == nil {
				made[slot] = true
			}
		}
	}
	return false
}

// slot adds one in float32 without a name.
func (w *widener) slot() int {
	p := w.p
	p.names, p.constants, p.types, p.producer = append(p.names, ""), append(p.constants, nil), append(p.types, engine.Float32), append(p.producer, -1)
	return len(p.names) - 1
}

var castOp = &opDef{minIn: 1, maxIn: 1, maxOut: 1}

// convert is a Cast of its own.
func convert(n *Node, from, to int, d engine.DType) step {
	return step{
		node: &Node{Name: n.Name, Op: "Cast", Domain: DomainONNX, Version: 13, Attrs: map[string]Attr{}}, op: castOp,
		kernel: func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			return one(castTensor(x, in[0], d, true))
		},
		in: []int{from}, out: []int{to},
	}
}

// float returns the slot of a half in float32, for node n.
func (w *widener) float(slot int, n *Node) int {
	if at, ok := w.wide[slot]; ok {
		return at
	}
	at := w.slot()
	w.wide[slot] = at
	w.steps = append(w.steps, convert(n, slot, at, engine.Float32))
	return at
}

// half sees to it that a value in half precision is there.
func (w *widener) half(slot int) {
	if w.made[slot] {
		return
	}
	w.made[slot] = true
	if s, ok := w.casts[slot]; ok {
		w.steps = append(w.steps, s)
		return
	}
	if from, ok := w.wide[slot]; ok {
		w.steps = append(w.steps, convert(w.p.graph.Nodes[0], from, slot, w.p.types[slot]))
	}
}

// plain keeps a step as it is.
func (w *widener) plain(s *step) {
	for _, slot := range s.in {
		if slot >= 0 && isHalf(w.p.types[slot]) {
			w.half(slot)
		}
	}
	for _, slot := range s.out {
		if slot >= 0 {
			w.made[slot] = true
		}
	}
	w.steps = append(w.steps, *s)
}

// cast is a Cast of the file between a half and a float; it reports false where it is
// none.
func (w *widener) cast(s *step) bool {
	if s.node.Op != "Cast" || s.node.Domain != DomainONNX || s.in[0] < 0 || s.out[0] < 0 {
		return false
	}
	from, to := w.p.types[s.in[0]], w.p.types[s.out[0]]
	switch {
	case from == engine.Float32 && isHalf(to):
		w.wide[s.out[0]], w.casts[s.out[0]] = s.in[0], *s
		return true
	case !isHalf(from) || to != engine.Float32:
		return false
	}
	at, ok := w.wide[s.in[0]]
	_, rounds := w.casts[s.in[0]]
	switch {
	case rounds:
		fn := vector.Rounded(precisionOf(from))
		w.steps = append(w.steps, step{node: s.node, op: functionOp, kernel: quickMap(nil, fn), in: []int{at}, out: s.out, function: fn})
	case ok && !w.outputs[s.out[0]]:
		w.same[s.out[0]] = at
	case ok:
		w.steps = append(w.steps, step{
			node: s.node, op: &opDef{minIn: 1, maxIn: 1, maxOut: 1, view: true}, in: []int{at}, out: s.out,
			kernel: func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return one(in[0], nil) },
		})
	case w.p.constants[s.in[0]] != nil && !w.outputs[s.out[0]]:
		w.same[s.out[0]] = w.float(s.in[0], s.node)
	default:
		return false
	}
	return true
}

// identity is another name for a value in float32; it reports false where s is none.
func (w *widener) identity(s *step) bool {
	if s.node.Op != "Identity" || s.node.Domain != DomainONNX || s.in[0] < 0 || s.out[0] < 0 || !isHalf(w.p.types[s.in[0]]) {
		return false
	}
	at, ok := w.wide[s.in[0]]
	if _, rounds := w.casts[s.in[0]]; !ok || rounds || w.p.constants[s.in[0]] != nil {
		return false
	}
	w.wide[s.out[0]] = at
	return true
}

// step adds s over floats instead of halves; it reports false where that is not known
// to be the same but for rounding.
func (w *widener) step(s *step) bool {
	n := s.node
	if n.Domain != DomainONNX || n.Captured > 0 || s.op.lists || s.op.compose != nil || !s.op.half && !computesWide[n.Op] && !moves[n.Op] {
		return false
	}
	half, known := false, false
	for _, slot := range s.in {
		if slot < 0 {
			continue
		}
		d := w.p.types[slot]
		if d == engine.Invalid {
			return false
		}
		half = half || isHalf(d)
		_, ok := w.wide[slot]
		known = known || ok && w.p.constants[slot] == nil
	}
	if !half || moves[n.Op] && !known {
		return false
	}
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}, packs: w.p.packs, held: w.p.held}
	for _, slot := range s.in {
		d := w.p.typeOf(slot)
		if isHalf(d) {
			d = engine.Float32
			b.constants = append(b.constants, nil) // which it becomes
		} else {
			b.constants = append(b.constants, w.p.constantOf(slot))
		}
		b.inputs = append(b.inputs, d)
	}
	kernel, err := s.op.build(b)
	if err != nil {
		return false
	}
	for i, slot := range s.out {
		if slot < 0 {
			continue
		}
		d := w.p.types[slot]
		if isHalf(d) {
			d = engine.Float32
		}
		if b.outType(s.op, i) != d {
			return false
		}
	}
	t := step{node: n, op: s.op, kernel: kernel, in: slices.Clone(s.in), out: slices.Clone(s.out)}
	for k, slot := range t.in {
		if slot >= 0 && isHalf(w.p.types[slot]) {
			t.in[k] = w.float(slot, n)
		}
	}
	for k, slot := range t.out {
		if slot >= 0 && isHalf(w.p.types[slot]) {
			t.out[k] = w.slot()
			w.wide[slot] = t.out[k]
		}
	}
	w.steps = append(w.steps, t)
	return true
}
