package graph

import (
	"fmt"
	"slices"
	"sort"

	"github.com/pellucid/pellucid/engine"
)

// maxInner bounds the nodes run in inner graphs during one run: the bodies of
// loops within loops would let a small file ask for endless work.
const maxInner = 1 << 23

// Capture adds to n's inputs the values that its inner graphs read by name from
// the graph around them, so that order, memory and gradients know of them.
func Capture(n *Node) {
	var names []string
	for _, a := range n.Attrs {
		if a.Graph != nil {
			names = append(names, outside(a.Graph)...)
		}
	}
	if len(names) == 0 {
		return
	}
	sort.Strings(names)
	names = slices.Compact(names)
	n.Inputs = append(slices.Clone(n.Inputs), names...)
	n.Captured = len(names)
}

// outside lists the values a graph reads but does not make. The nodes within it
// have been through Capture themselves.
func outside(g *Graph) []string {
	made := map[string]bool{"": true}
	for _, in := range g.Inputs {
		made[in.Name] = true
	}
	for name := range g.Constants {
		made[name] = true
	}
	for _, n := range g.Nodes {
		for _, out := range n.Outputs {
			made[out] = true
		}
	}
	var names []string
	for _, n := range g.Nodes {
		for _, in := range n.Inputs {
			if !made[in] {
				names = append(names, in)
			}
		}
	}
	for _, out := range g.Outputs {
		if !made[out] {
			names = append(names, out)
		}
	}
	return names
}

// inner is a compiled inner graph.
type inner struct {
	program *Program
	// params are its own inputs; captured come after them, found at the outer
	// node's inputs at.
	params, captured []string
	at               []int
}

// compileInner compiles an inner graph whose own inputs have these types.
func (b *builder) compileInner(g *Graph, types []engine.DType) (*inner, error) {
	if len(g.Inputs) != len(types) {
		return nil, b.node.corrupt("its inner graph has %d inputs, %d are needed", len(g.Inputs), len(types))
	}
	given := len(b.node.Inputs) - b.node.Captured
	if given < 0 {
		return nil, b.node.corrupt("has %d inputs of %d captured", len(b.node.Inputs), b.node.Captured)
	}
	in := &inner{}
	body := &Graph{Outputs: g.Outputs, Nodes: g.Nodes, Constants: map[string]*engine.Tensor{}}
	for name, t := range g.Constants {
		body.Constants[name] = t
	}
	for i, spec := range g.Inputs {
		in.params = append(in.params, spec.Name)
		body.Inputs = append(body.Inputs, engine.Spec{Name: spec.Name, DType: types[i]})
	}
	place := make(map[string]int, b.node.Captured)
	for i, name := range b.node.Inputs[given:] {
		place[name] = given + i
	}
	seen := map[string]bool{}
	for _, name := range outside(g) {
		at, ok := place[name]
		if !ok {
			return nil, b.node.corrupt("its inner graph reads %q, which is nowhere", name)
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		if t := b.constants[at]; t != nil {
			body.Constants[name] = t
			continue
		}
		in.captured, in.at = append(in.captured, name), append(in.at, at)
		body.Inputs = append(body.Inputs, engine.Spec{Name: name, DType: b.inType(at)})
	}
	var err error
	in.program, err = compileIn(body, b.held, b.packs)
	return in, err
}

// run runs the inner graph. outer are the inputs of the node it belongs to.
func (g *inner) run(x *Exec, params, outer []*engine.Tensor) ([]*engine.Tensor, error) {
	if x.memory == nil {
		return g.program.within(x, g.values(params, outer))
	}
	f := x.memory.arena.next()
	f.given = g.appendValues(f.given[:0], params, outer)
	return g.program.within(x, f.given)
}

// outputTypes are the types of the inner graph's outputs, where known.
func (g *inner) outputTypes() []engine.DType {
	var types []engine.DType
	for _, name := range g.program.graph.Outputs {
		d, _ := g.program.Type(name)
		types = append(types, d)
	}
	return types
}

func buildIf(b *builder) (Kernel, error) {
	var branches [2]*inner
	for i, name := range []string{"else_branch", "then_branch"} {
		g, err := b.attrs.graph(name)
		if err != nil {
			return nil, err
		}
		if len(g.Outputs) != len(b.node.Outputs) {
			return nil, b.node.corrupt("a branch of %d outputs for %d", len(g.Outputs), len(b.node.Outputs))
		}
		if branches[i], err = b.compileInner(g, nil); err != nil {
			return nil, err
		}
	}
	b.result = branches[0].outputTypes()
	for i, d := range branches[1].outputTypes() {
		if b.result[i] != d {
			b.result[i] = engine.Invalid
		}
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		cond := engine.Data[bool](in[0])
		if len(cond) != 1 {
			return nil, fmt.Errorf("a condition of %d elements", len(cond))
		}
		if cond[0] {
			return branches[1].run(x, nil, in)
		}
		return branches[0].run(x, nil, in)
	}, nil
}

// scan is a Scan node: states first, then the tensors it walks along.
type scan struct {
	body            *inner
	states, scans   int
	inAxes, outAxes []int64
	inBack, outBack []int64 // 1 walks from the end
	// empty are the results of no step, nil where their shapes are not known.
	empty []*engine.Tensor
}

// readScan reads a node's attributes, and the graph that each step runs.
func readScan(b *builder) (*scan, *Graph, error) {
	g, err := b.attrs.graph("body")
	if err != nil {
		return nil, nil, err
	}
	s := &scan{
		scans: b.attrs.int("num_scan_inputs", 0), inAxes: b.attrs.ints("scan_input_axes"), outAxes: b.attrs.ints("scan_output_axes"),
		inBack: b.attrs.ints("scan_input_directions"), outBack: b.attrs.ints("scan_output_directions"),
	}
	given := len(b.node.Inputs) - b.node.Captured
	s.states = given - s.scans
	if s.scans < 1 || s.states < 0 || len(g.Outputs) < s.states || len(b.node.Outputs) > len(g.Outputs) {
		return nil, nil, b.node.corrupt("%d inputs of which %d are walked, a body of %d outputs", given, s.scans, len(g.Outputs))
	}
	outs := len(g.Outputs) - s.states
	for _, l := range []struct{ have, want int }{{len(s.inAxes), s.scans}, {len(s.outAxes), outs}, {len(s.inBack), s.scans}, {len(s.outBack), outs}} {
		if l.have != 0 && l.have != l.want {
			return nil, nil, b.node.corrupt("%d axes or directions for %d tensors", l.have, l.want)
		}
	}
	return s, g, nil
}

func buildScan(b *builder) (Kernel, error) {
	s, g, err := readScan(b)
	if err != nil {
		return nil, err
	}
	given := len(b.node.Inputs) - b.node.Captured
	if s.body, err = b.compileInner(g, b.inputs[:given]); err != nil {
		return nil, err
	}
	b.result, b.plain = s.body.outputTypes(), true
	if s.empty, err = emptyResults(g, b.result, s.states); err != nil {
		return nil, err
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return s.walk(x, in[:given], in, x.lists(len(g.Outputs)-s.states))
	}, nil
}

func at64(v []int64, i int) int {
	if i < len(v) {
		return int(v[i])
	}
	return 0
}

// walking is how a Scan walks along tensors of certain shapes, and how far.
type walking struct {
	length int
	along  []along
}

// along is an axis of a tensor: the others, and how far the elements of it are apart.
type along struct {
	step           int
	shape, strides []int
}

// walking returns how tensors like in are walked along.
func (s *scan) walking(x *Exec, in []*engine.Tensor) (*walking, error) {
	if w := recall[walking](x, in); w != nil {
		return w, nil
	}
	w := &walking{length: -1}
	for i := range s.scans {
		shape := in[s.states+i].Shape()
		a, err := normAxis(at64(s.inAxes, i), len(shape))
		if err != nil {
			return nil, err
		}
		if w.length >= 0 && shape[a] != w.length {
			return nil, fmt.Errorf("walks along %d and %d elements", w.length, shape[a])
		}
		w.length = shape[a]
		strides := rowMajor(shape)
		step := strides[a]
		w.along = append(w.along, along{step: step, shape: slices.Delete(slices.Clone(shape), a, a+1), strides: slices.Delete(strides, a, a+1)})
	}
	remember(x, in, w)
	return w, nil
}

// element copies out element i of t.
func (a *along) element(x *Exec, t *engine.Tensor, i int) (*engine.Tensor, error) {
	live := x.live
	out, err := strided(x, t, i*a.step, a.shape, a.strides)
	x.live = live // gone before the next element is taken
	return out, err
}

// elements sets the walked params of step t.
func (s *scan) elements(x *Exec, params, in []*engine.Tensor, w *walking, t int) error {
	for i := range s.scans {
		step := t
		if at64(s.inBack, i) == 1 {
			step = w.length - 1 - t
		}
		var err error
		if params[s.states+i], err = w.along[i].element(x, in[s.states+i], step); err != nil {
			return err
		}
	}
	return nil
}

// walk walks along in; outer are all inputs of the node.
func (s *scan) walk(x *Exec, in, outer []*engine.Tensor, pieces [][]*engine.Tensor) ([]*engine.Tensor, error) {
	w, err := s.walking(x, in)
	if err != nil {
		return nil, err
	}
	params := x.list(s.states + s.scans)
	copy(params, in)
	for t := range w.length {
		if err := s.elements(x, params, in, w, t); err != nil {
			return nil, err
		}
		out, err := s.body.run(x, params, outer)
		if err != nil {
			return nil, err
		}
		for i, t := range out[s.states:] {
			if err := x.reserve(t.DType(), t.Len()); err != nil {
				return nil, err
			}
			pieces[i] = append(pieces[i], t)
			x.memory.pin(t, 1)
		}
		x.memory.turned(params, out[:s.states])
		copy(params, out[:s.states])
	}
	result := x.list(s.states + len(pieces))
	copy(result, params[:s.states])
	for i, list := range pieces {
		if at64(s.outBack, i) == 1 {
			slices.Reverse(list)
		}
		var t *engine.Tensor
		if len(list) == 0 && i < len(s.empty) && at64(s.outAxes, i) == 0 {
			t = s.empty[i]
		}
		if t == nil {
			if t, err = stack(x, list, at64(s.outAxes, i)); err != nil {
				return nil, err
			}
		}
		result[s.states+i] = t
		for _, piece := range list {
			x.memory.pin(piece, -1)
		}
	}
	return result, nil
}

// stack joins tensors of one shape along a new axis.
func stack(x *Exec, list []*engine.Tensor, axis int) (*engine.Tensor, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("a walk along nothing has no result")
	}
	first := list[0]
	a, err := normAxis(axis, len(first.Shape())+1)
	if err != nil {
		return nil, err
	}
	shape := x.ints(len(first.Shape()) + 1)
	copy(shape, first.Shape()[:a])
	shape[a] = len(list)
	copy(shape[a+1:], first.Shape()[a:])
	out, err := x.New(first.DType(), shape...)
	if err != nil {
		return nil, err
	}
	outer, inner := split(shape, a)
	for i, t := range list {
		if t.DType() != first.DType() || !slices.Equal(t.Shape(), first.Shape()) {
			return nil, fmt.Errorf("steps make %s %v and %s %v", first.DType(), first.Shape(), t.DType(), t.Shape())
		}
		lay(out, t, outer, len(list)*inner, i*inner, inner)
	}
	return out, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"If":   {since: 1, minIn: 1, maxIn: 1, maxOut: 1 << 16, accept: boolType, lists: true, branches: true, result: fromBuilder, build: buildIf},
		"Scan": {since: 9, minIn: 1, maxIn: 1 << 16, maxOut: 1 << 16, result: fromBuilder, build: buildScan},
	})
}
