package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// Program is a compiled graph: checked, ordered, with a kernel for every node.
type Program struct {
	graph *Graph
	steps []step
	// slots maps a value's name to its slot; names is the reverse.
	slots map[string]int
	names []string
	// constants and types are by slot.
	constants []*engine.Tensor
	types     []engine.DType
	held      *held
	// producer is the step that makes a slot, -1 for inputs and constants.
	producer []int
	// derives says what each step's outputs follow from.
	derives []derivation
	// fused is the same program in fewer steps, nil where there is none; hidden are
	// the slots that such a program does not make.
	fused  *Program
	hidden []bool
	// packs are the weights that were laid out, of inner programs too.
	packs packs
	// own are the first elements of the constants, and of those of fused.
	own map[unsafe.Pointer]bool
	// plans are those of what was wanted before.
	mu    sync.Mutex
	plans []*plan
	// odd are shapes of the inputs that fused did not take: their runs take the program
	// as it was written at once.
	odd     [][]int
	someOdd atomic.Bool
}

// step is one node with its kernel; in and out are slots, -1 where left out.
type step struct {
	node    *Node
	op      *opDef
	kernel  Kernel
	in, out []int
	// function is what a step of a fused program is of one value, or what follows a
	// convolution there; nil where it is nothing of the kind. rank is the least dimensions
	// that the value has, or the nodes it was made of give it more.
	function *vector.Function
	rank     int
	// plain says that no list goes through an operator that takes some.
	plain bool
	// trees are those of a TreeScores.
	trees *TreeScores
	// narrow are the weights of a convolution that keeps them in 8 or 16 bits; then the second
	// input is their constant.
	narrow *narrowed
	// takesLast is how many dimensions the first input has in the file where it is taken with
	// its channels last, givesLast those of the outputs that are given so; else 0. laster sees
	// to it.
	takesLast, givesLast int
	// rounds is the scale of a step that makes bytes of floats, widens that of one that
	// makes floats of bytes.
	rounds, widens qgemm.Scale
}

// Compile checks g, orders its nodes and builds their kernels. What it refuses
// it refuses by name: an *engine.UnsupportedError for an operator, a version, an
// attribute or an element type, an error wrapping engine.ErrCorrupt for a graph
// that contradicts itself.
//
// The program holds DefaultHeld bytes at most.
func Compile(g *Graph) (*Program, error) { return CompileWithin(g, DefaultHeld) }

// CompileWithin is Compile for a program that may hold so many bytes: its constants,
// which it is refused for where they are more, with an error that wraps
// engine.ErrTooLarge, and weights that are laid out for their kernels, which stay as
// they are where they do not fit.
func CompileWithin(g *Graph, limit int64) (*Program, error) {
	return compileIn(g, &held{limit: limit}, packs{})
}

func compileIn(g *Graph, h *held, laid packs) (*Program, error) {
	p := &Program{graph: g, slots: map[string]int{}, held: h, packs: laid}
	for _, in := range g.Inputs {
		d := in.DType
		if d == engine.Nothing {
			d = engine.Invalid // an optional value is there or not
		}
		if err := p.define(in.Name, d, -1); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(g.Constants))
	for name := range g.Constants {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := p.define(name, g.Constants[name].DType(), -1); err != nil {
			return nil, err
		}
		if err := h.constant(name, g.Constants[name]); err != nil {
			return nil, err
		}
		p.constants[p.slots[name]] = g.Constants[name]
	}
	order, err := sortNodes(g)
	if err != nil {
		return nil, err
	}
	for _, n := range order {
		if err := p.add(n); err != nil {
			return nil, err
		}
	}
	for _, name := range g.Outputs {
		if _, ok := p.slots[name]; !ok {
			return nil, fmt.Errorf("output %q is made by no node: %w", name, engine.ErrCorrupt)
		}
	}
	p.derives = p.derivations()
	if p.fused = fuse(p); p.fused != nil {
		p.fused.derives = p.fused.derivations()
	}
	p.own = map[unsafe.Pointer]bool{}
	for _, c := range p.constants {
		p.claim(c)
	}
	if p.fused != nil {
		for _, c := range p.fused.constants {
			p.claim(c)
		}
	}
	return p, nil
}

func (p *Program) claim(t *engine.Tensor) {
	if at := firstOf(t); at != nil {
		p.own[at] = true
	}
}

// Owns reports whether t's elements are those of a constant of the program, or of a
// view of one: no kernel makes a view that begins elsewhere than what it is of.
func (p *Program) Owns(t *engine.Tensor) bool {
	at := firstOf(t)
	return at != nil && p.own[at]
}

func (p *Program) define(name string, d engine.DType, producer int) error {
	if name == "" {
		return fmt.Errorf("a value without a name: %w", engine.ErrCorrupt)
	}
	if _, dup := p.slots[name]; dup {
		return fmt.Errorf("value %q is defined twice: %w", name, engine.ErrCorrupt)
	}
	p.slots[name] = len(p.names)
	p.names = append(p.names, name)
	p.constants = append(p.constants, nil)
	p.types = append(p.types, d)
	p.producer = append(p.producer, producer)
	return nil
}

// sortNodes orders nodes so that each comes after those it reads from, keeping
// the file's order where it can.
func sortNodes(g *Graph) ([]*Node, error) {
	maker := map[string]int{}
	for i, n := range g.Nodes {
		for _, out := range n.Outputs {
			if _, dup := maker[out]; dup && out != "" {
				return nil, fmt.Errorf("value %q is defined twice: %w", out, engine.ErrCorrupt)
			}
			maker[out] = i
		}
	}
	waits := make([]int, len(g.Nodes))
	readers := make([][]int, len(g.Nodes))
	for i, n := range g.Nodes {
		for _, in := range n.Inputs {
			if m, ok := maker[in]; ok && in != "" {
				waits[i]++
				readers[m] = append(readers[m], i)
			}
		}
	}
	var ready []int
	for i, w := range waits {
		if w == 0 {
			ready = append(ready, i)
		}
	}
	order := make([]*Node, 0, len(g.Nodes))
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		order = append(order, g.Nodes[i])
		for _, r := range readers[i] {
			if waits[r]--; waits[r] == 0 {
				ready = append(ready, r)
			}
		}
	}
	if len(order) == len(g.Nodes) {
		return order, nil
	}
	for i, w := range waits {
		if w > 0 {
			return nil, fmt.Errorf("node %q (%s) is part of a cycle: %w", g.Nodes[i].Label(), g.Nodes[i].Title(), engine.ErrCorrupt)
		}
	}
	return nil, fmt.Errorf("the graph has a cycle: %w", engine.ErrCorrupt)
}

// add appends node n, whose inputs are all defined.
func (p *Program) add(n *Node) error {
	op, err := lookup(n)
	if err != nil {
		return err
	}
	s := step{node: n, op: op}
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}, packs: p.packs, held: p.held}
	for _, name := range n.Inputs {
		slot := -1
		if name != "" {
			var ok bool
			if slot, ok = p.slots[name]; !ok {
				return n.corrupt("reads %q, which is neither an input, an initialiser nor made by a node", name)
			}
		}
		s.in = append(s.in, slot)
		b.inputs = append(b.inputs, p.typeOf(slot))
		b.constants = append(b.constants, p.constantOf(slot))
	}
	if err := checkArity(n, op); err != nil {
		return err
	}
	if err := checkTypes(b, op); err != nil {
		return err
	}
	if s.kernel, err = op.build(b); err != nil {
		return err
	}
	s.plain, s.trees = b.plain, b.trees
	if err := b.attrs.done(); err != nil {
		return err
	}
	for i, name := range n.Outputs {
		slot := -1
		if name != "" {
			if err := p.define(name, b.outType(op, i), len(p.steps)); err != nil {
				return err
			}
			slot = p.slots[name]
		}
		s.out = append(s.out, slot)
	}
	p.steps = append(p.steps, s)
	return p.fold(n)
}

// fold makes the output of a Constant node a constant, so that builders of later
// nodes see it.
func (p *Program) fold(n *Node) error {
	if n.Op != "Constant" || n.Domain != DomainONNX {
		return nil
	}
	s := &p.steps[len(p.steps)-1]
	out, err := s.kernel(&Exec{limit: defaultMaxBytes}, nil)
	if err != nil {
		return err
	}
	if err := p.held.constant(n.Label(), out[0]); err != nil {
		return err
	}
	p.constants[s.out[0]] = out[0]
	p.types[s.out[0]] = out[0].DType()
	return nil
}

func (p *Program) typeOf(slot int) engine.DType {
	if slot < 0 {
		return engine.Invalid
	}
	return p.types[slot]
}

func (p *Program) constantOf(slot int) *engine.Tensor {
	if slot < 0 {
		return nil
	}
	return p.constants[slot]
}

func checkArity(n *Node, op *opDef) error {
	if given := len(n.Inputs) - n.Captured; given < op.minIn || given > op.maxIn {
		return n.corrupt("has %d inputs, the operator takes %d to %d", given, op.minIn, op.maxIn)
	}
	for i := range op.minIn {
		if n.Inputs[i] == "" && i >= op.optional {
			return n.corrupt("input %d is left out but not optional", i)
		}
	}
	if len(n.Outputs) == 0 {
		return n.corrupt("has no output")
	}
	for i, out := range n.Outputs {
		if out != "" && i >= op.maxOut {
			return n.unsupported("output %d (%q)", i, out)
		}
	}
	return nil
}

// Graph returns the graph that was compiled; the caller must not change it.
func (p *Program) Graph() *Graph { return p.graph }

// Constant returns the value called name where it is a constant, else nil.
func (p *Program) Constant(name string) *engine.Tensor {
	slot, ok := p.slots[name]
	if !ok {
		return nil
	}
	return p.constants[slot]
}

// Type returns the element type of the value called name, Invalid where it is
// not known before a run, and whether there is such a value.
func (p *Program) Type(name string) (engine.DType, bool) {
	slot, ok := p.slots[name]
	if !ok {
		return engine.Invalid, false
	}
	return p.types[slot], true
}

// Producer returns the node that makes the value called name, or nil.
func (p *Program) Producer(name string) *Node {
	slot, ok := p.slots[name]
	if !ok || p.producer[slot] < 0 {
		return nil
	}
	return p.steps[p.producer[slot]].node
}

// Trees returns what a TreeScores node of the program computes, or nil.
func (p *Program) Trees(n *Node) *TreeScores {
	for i := range p.steps {
		if p.steps[i].node == n {
			return p.steps[i].trees
		}
	}
	return nil
}

// Nodes returns the program's nodes in an order in which they can run.
func (p *Program) Nodes() []*Node {
	nodes := make([]*Node, len(p.steps))
	for i := range p.steps {
		nodes[i] = p.steps[i].node
	}
	return nodes
}

// Options bound one run.
type Options struct {
	// MaxBytes bounds live intermediate values; 0 means 1 GiB.
	MaxBytes int64
	// MaxInner bounds the nodes run in inner graphs, such as a loop's turns; 0 means
	// 8 million.
	MaxInner int
	// Threads bounds the threads of one operator; 0 means 1. They change no bit of
	// what is computed.
	Threads int
	// Arena, where there is one, keeps memory for the next run, within MaxBytes. It has
	// no effect with Keep.
	Arena *Arena
	// Keep keeps every value that was computed, as a gradient needs.
	Keep bool
	// Given are values taken in the place of those that nodes make, of the same type and
	// shape. Only with Keep, where nothing is written over.
	Given engine.Values
	// Cost, where it is not nil, is told what the run takes.
	Cost *Cost
	// base is what the runs around an inner one hold, for Cost.
	base int64
	// inner counts the nodes run in inner graphs, for the whole of a run.
	inner *int
	// brief says that the Run is released.
	brief bool
}

const defaultMaxBytes = 1 << 30

// Run is what one execution computed: the wanted values, and with Options.Keep
// every other, with the nodes in the order they ran.
type Run struct {
	program *Program
	values  []*engine.Tensor
	steps   []int
	// frame is an inner run's, until it is released.
	frame *frame
	arena *Arena
	// Live is the bytes held at the end of the run, by intermediate values.
	Live int64
}

// Value returns a computed value, an input or a constant, or nil.
func (r *Run) Value(name string) *engine.Tensor {
	slot, ok := r.program.slots[name]
	if !ok {
		return nil
	}
	return r.values[slot]
}

// Nodes returns the nodes that ran, in order.
func (r *Run) Nodes() []*Node {
	nodes := make([]*Node, len(r.steps))
	for i, s := range r.steps {
		nodes[i] = r.program.steps[s].node
	}
	return nodes
}

// Run computes the values named in want from the inputs.
func (p *Program) Run(ctx context.Context, opt Options, in engine.Values, want []string) (*Run, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if p.fused != nil && !opt.Keep && (opt.Cost == nil || !opt.Cost.AsWritten) && p.fused.makes(want) && !p.isOdd(in) {
		r, err := p.runFused(ctx, opt, in, want)
		if err == nil || errors.Is(err, engine.ErrTooLarge) || ctx.Err() != nil {
			return r, err
		}
		if errors.Is(err, errUnfused) {
			p.addOdd(in)
		}
		// What fails is told by the nodes of the file.
	}
	if opt.Keep {
		opt.Arena = nil
	}
	if opt.Arena != nil && opt.inner == nil {
		opt.Arena.begin(opt.brief)
	}
	f := opt.Arena.frame()
	r, err := p.run(ctx, opt, in, want, f)
	if err != nil || r.frame == nil {
		opt.Arena.done(f)
	}
	if opt.Arena != nil && opt.inner == nil && opt.Arena.slack && errors.Is(err, engine.ErrTooLarge) {
		// What other runs left must not decide whether this one has room.
		*opt.Arena = Arena{}
		opt.Arena = nil
		return p.Run(ctx, opt, in, want)
	}
	return r, err
}

// Outputs is Run for a caller who wants the values only: with an arena, the next run uses
// all else again.
func (p *Program) Outputs(ctx context.Context, opt Options, in engine.Values, want []string) (engine.Values, error) {
	opt.brief = !opt.Keep
	r, err := p.Run(ctx, opt, in, want)
	if err != nil {
		return nil, err
	}
	defer r.release()
	out := make(engine.Values, len(want))
	for i, name := range want {
		t := r.Value(name)
		if r.frame != nil {
			if t, err = r.frame.buffers.leaves(t); err != nil {
				return nil, err
			}
		}
		out[i] = engine.Named{Name: name, Tensor: t}
	}
	if r.frame != nil {
		r.frame.buffers.settle()
	}
	return out, nil
}

// run is Run in a frame, which an inner or a brief run with an arena keeps until its
// results were taken.
func (p *Program) run(ctx context.Context, opt Options, in engine.Values, want []string, f *frame) (*Run, error) {
	var r *Run
	if opt.inner == nil && !opt.brief || opt.Arena == nil {
		r = &Run{program: p, values: slices.Clone(p.constants)}
	} else {
		f.values = append(f.values[:0], p.constants...)
		f.run = Run{program: p, values: f.values, frame: f, arena: opt.Arena}
		r = &f.run
	}
	if err := p.bindInputs(r, in); err != nil {
		return nil, err
	}
	pl, err := p.planned(want)
	if err != nil {
		return nil, err
	}
	x := f.begin(ctx, opt, len(p.names))
	given, err := p.given(opt)
	if err != nil {
		return nil, err
	}
	if f.kept = nil; opt.Arena != nil && opt.Arena.brief {
		f.kept = opt.Arena.derivedOf(p)
	}
	for k, i := range pl.steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := p.exec(f, r, i, pl, k)
		if err == nil && given != nil {
			err = p.replace(r, &p.steps[i], given)
		}
		if err != nil {
			if opt.Arena != nil {
				opt.Arena.slack = opt.Arena.slack || x.slack > 0
			}
			if opt.inner == nil {
				err = p.blame(i, err)
			}
			return nil, err
		}
		if !opt.Keep {
			x.free(r.values, pl.dead[k])
		}
	}
	r.steps, r.Live = pl.steps, x.live
	return r, nil
}

// given are Options.Given by slot, nil where there are none.
func (p *Program) given(opt Options) (map[int]*engine.Tensor, error) {
	if len(opt.Given) == 0 || !opt.Keep {
		return nil, nil
	}
	m := make(map[int]*engine.Tensor, len(opt.Given))
	for i := range opt.Given {
		name := opt.Given[i].Name
		slot, ok := p.slots[name]
		if !ok || p.producer[slot] < 0 || p.constants[slot] != nil {
			return nil, &engine.InputError{Input: name, Reason: "is neither an input nor made by a node"}
		}
		m[slot] = opt.Given[i].Tensor
	}
	return m, nil
}

// replace puts given values in the place of those that a step has made: what it made says
// which type and shape they need.
func (p *Program) replace(r *Run, s *step, given map[int]*engine.Tensor) error {
	for _, slot := range s.out {
		if slot < 0 || given[slot] == nil {
			continue
		}
		made, t := r.values[slot], given[slot]
		if t.DType() != made.DType() || !slices.Equal(t.Shape(), made.Shape()) {
			return &engine.InputError{Input: p.names[slot], Reason: fmt.Sprintf("is %s of shape %v, its node makes %s of %v", t.DType(), t.Shape(), made.DType(), made.Shape())}
		}
		r.values[slot] = t
	}
	return nil
}

// begin sets up a frame for a run over so many slots.
func (f *frame) begin(ctx context.Context, opt Options, slots int) *Exec {
	f.owned = slices.Grow(f.owned[:0], slots)[:slots]
	clear(f.owned)
	x := &f.exec
	*x = Exec{ctx: ctx, limit: opt.MaxBytes, threads: opt.Threads, owned: f.owned, inner: opt.inner, cost: opt.Cost, base: opt.base}
	if x.inner == nil {
		f.inner = 0
		if opt.MaxInner > 0 {
			f.inner = maxInner - min(opt.MaxInner, maxInner)
		}
		x.inner = &f.inner
	}
	if opt.Arena != nil {
		if f.buffers.held == nil {
			f.buffers.held = map[unsafe.Pointer]*buffer{}
		}
		f.buffers.arena, f.buffers.exec = opt.Arena, x
		x.memory, x.scratch = &f.buffers, &f.scratch
	}
	return x
}

// release ends an inner run, whose results were taken.
func (r *Run) release() {
	if r.frame != nil {
		r.arena.done(r.frame)
	}
}

// maxOdd bounds the shapes that a program remembers.
const maxOdd = 32

// shapesOf are the shapes of a run's inputs, one after the other.
func (p *Program) shapesOf(in engine.Values) []int {
	var all []int
	for _, spec := range p.graph.Inputs {
		all = addShape(all, in.Get(spec.Name))
	}
	return all
}

// isOdd reports whether a run over inputs of these shapes was sent back before.
func (p *Program) isOdd(in engine.Values) bool {
	if !p.someOdd.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.odd, func(s []int) bool { return p.hasShapes(in, s) })
}

// hasShapes reports whether a run's inputs are of shapes as shapesOf tells them.
func (p *Program) hasShapes(in engine.Values, shapes []int) bool {
	var ok bool
	for _, spec := range p.graph.Inputs {
		if shapes, ok = cutShape(shapes, in.Get(spec.Name)); !ok {
			return false
		}
	}
	return len(shapes) == 0
}

// cutShape takes what shapesOf tells of one tensor from the beginning of a list, where it is
// that.
func cutShape(shapes []int, t *engine.Tensor) (rest []int, ok bool) {
	if t == nil {
		if len(shapes) == 0 || shapes[0] != -1 {
			return nil, false
		}
		return shapes[1:], true
	}
	s := t.Shape()
	if len(shapes) < 2+len(s) || shapes[0] != int(t.DType()) || shapes[1] != len(s) || !slices.Equal(shapes[2:2+len(s)], s) {
		return nil, false
	}
	return shapes[2+len(s):], true
}

// addShape appends what cutShape takes.
func addShape(shapes []int, t *engine.Tensor) []int {
	if t == nil {
		return append(shapes, -1)
	}
	return append(append(shapes, int(t.DType()), len(t.Shape())), t.Shape()...)
}

func (p *Program) addOdd(in engine.Values) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.odd) == maxOdd {
		p.odd = slices.Delete(p.odd, 0, 1)
	}
	p.odd = append(p.odd, p.shapesOf(in))
	p.someOdd.Store(true)
}

// makes reports whether none of the values is hidden.
func (p *Program) makes(want []string) bool {
	for _, name := range want {
		if slot, ok := p.slots[name]; ok && p.hidden[slot] {
			return false
		}
	}
	return true
}

// runFused runs the program in fewer steps.
func (p *Program) runFused(ctx context.Context, opt Options, in engine.Values, want []string) (*Run, error) {
	r, err := p.fused.Run(ctx, opt, in, want)
	if err != nil {
		return nil, err
	}
	for _, name := range want {
		slot := p.slots[name]
		if p.constants[slot] != nil || p.fused.constants[slot] == nil {
			continue
		}
		// Here it is a constant, which belongs to the model; in the file a node makes it.
		if r.values[slot], err = Clone(r.values[slot]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// bindInputs puts the caller's tensors in their slots. engine.Bind has already
// checked them; this guards the kernels' invariants against a caller who did not.
func (p *Program) bindInputs(r *Run, in engine.Values) error {
	for _, spec := range p.graph.Inputs {
		t := in.Get(spec.Name)
		if t == nil && spec.DType == engine.Nothing {
			t = engine.NewNothing()
		}
		if t == nil {
			return &engine.InputError{Input: spec.Name, Reason: "is missing"}
		}
		if t.DType() != spec.DType && spec.DType != engine.Invalid && spec.DType != engine.Nothing {
			return &engine.InputError{Input: spec.Name, Reason: fmt.Sprintf("has type %s, the model takes %s", t.DType(), spec.DType)}
		}
		if spec.Shape != nil && len(spec.Shape) != len(t.Shape()) {
			return &engine.InputError{Input: spec.Name, Reason: fmt.Sprintf("has %d dimensions, the model takes %d", len(t.Shape()), len(spec.Shape))}
		}
		for i, d := range spec.Shape {
			if d >= 0 && d != t.Shape()[i] {
				return &engine.InputError{Input: spec.Name, Reason: fmt.Sprintf("dimension %d is %d, the model takes %d", i, t.Shape()[i], d)}
			}
		}
		r.values[p.slots[spec.Name]] = t
	}
	return nil
}

// plan lists the steps that the wanted values need, and for each of them the slots that
// no later step reads. It is read only.
type plan struct {
	want  []string
	steps []int
	dead  [][]int
	// gives says for each step whether it makes a value that is wanted.
	gives []bool
}

// maxPlans bounds the plans that a program remembers.
const maxPlans = 16

// planned is plan, remembered.
func (p *Program) planned(want []string) (*plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pl := range p.plans {
		if slices.Equal(pl.want, want) {
			return pl, nil
		}
	}
	pl, err := p.plan(want)
	if err != nil {
		return nil, err
	}
	if len(p.plans) >= maxPlans {
		p.plans = nil
	}
	p.plans = append(p.plans, pl)
	return pl, nil
}

func (p *Program) plan(want []string) (*plan, error) {
	needed := make([]bool, len(p.names))
	wanted := make([]bool, len(p.names))
	for _, name := range want {
		slot, ok := p.slots[name]
		if !ok {
			return nil, &engine.InputError{Reason: fmt.Sprintf("no value %q in the graph", name)}
		}
		needed[slot], wanted[slot] = true, true
	}
	pl := &plan{want: slices.Clone(want)}
	seen := make([]bool, len(p.names))
	for i := len(p.steps) - 1; i >= 0; i-- {
		s := &p.steps[i]
		if !slices.ContainsFunc(s.out, func(o int) bool { return o >= 0 && needed[o] && p.constants[o] == nil }) {
			continue
		}
		var dead []int
		for _, slot := range append(slices.Clone(s.in), s.out...) {
			if slot < 0 {
				continue
			}
			needed[slot] = true
			if seen[slot] {
				continue
			}
			seen[slot] = true
			if !wanted[slot] && p.producer[slot] >= 0 && p.constants[slot] == nil {
				dead = append(dead, slot)
			}
		}
		pl.steps, pl.dead = append(pl.steps, i), append(pl.dead, dead)
		pl.gives = append(pl.gives, slices.ContainsFunc(s.out, func(o int) bool { return o >= 0 && wanted[o] }))
	}
	slices.Reverse(pl.steps)
	slices.Reverse(pl.gives)
	slices.Reverse(pl.dead)
	return pl, nil
}

// exec runs step i, the k-th of a plan.
func (p *Program) exec(f *frame, r *Run, i int, pl *plan, k int) error {
	x, s := &f.exec, &p.steps[i]
	f.in = slices.Grow(f.in[:0], len(s.in))[:len(s.in)]
	in := f.in
	if s.holds() {
		in = make([]*engine.Tensor, len(s.in)) // a list may keep it
	}
	for i, slot := range s.in {
		in[i] = nil
		if slot >= 0 {
			in[i] = r.values[slot]
		}
	}
	from := fromElements
	x.geometry = nil
	if f.kept != nil {
		from, x.geometry = p.derives[i], &f.kept[i].geometry
	}
	if from != fromElements && f.kept[i].serves(from, in) {
		x.give(r, s, f.kept[i].out)
		return nil
	}
	before := x.live
	x.scratch.begin()
	if x.memory != nil {
		x.memory.keeps, x.memory.gives = from != fromElements, pl.gives[k] && x.memory.arena.brief
		x.memory.begin(s, in, pl.dead[k])
	}
	out, err := s.call(x, in)
	if err != nil {
		return wrapNode(s.node, err)
	}
	if x.cost != nil {
		x.cost.count(s, in, out, x.base+x.live)
	}
	x.live = before
	for i, slot := range s.out {
		if slot >= 0 && (i >= len(out) || out[i] == nil) {
			return fmt.Errorf("run node %q (%s): made no output %d", s.node.Label(), s.node.Title(), i)
		}
	}
	x.give(r, s, out)
	if from != fromElements {
		x.memory.arena.keep(&f.kept[i], from, in, out, x.limit)
	}
	x.memory.end(s, out)
	return nil
}

// holds reports whether a list that the step makes may hold its inputs. Identity makes none
// that is not there already.
func (s *step) holds() bool { return s.op.lists && !s.op.branches && !s.op.view && !s.plain }

// give puts a step's outputs in their slots.
func (x *Exec) give(r *Run, s *step, out []*engine.Tensor) {
	for i, slot := range s.out {
		if slot < 0 {
			continue
		}
		r.values[slot] = out[i]
		if !s.op.view {
			x.owned[slot] = tensorBytes(out[i])
			x.live += x.owned[slot]
		}
	}
}
