package graph

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pellucid/pellucid/engine"
)

// bodyVersion is the operator set that bodies are written in.
const bodyVersion = 24

// body writes down an operator that is defined by others: a graph of those, for
// inputs of one shape and type. Its values are named by what op returns.
type body struct {
	graph *Graph
	in    []*engine.Tensor
	err   error // the first constant that could not be made
}

// composer writes an operator's body. It may look at the inputs' shapes and types,
// never at their elements: a body serves every run of the same shapes.
type composer func(f *body) error

func newBody(in []*engine.Tensor) *body {
	f := &body{graph: &Graph{Constants: map[string]*engine.Tensor{}}, in: in}
	for i, t := range in {
		if t != nil {
			f.graph.Inputs = append(f.graph.Inputs, engine.Spec{Name: bodyInput(i), DType: t.DType(), Shape: t.Shape()})
		}
	}
	return f
}

func bodyInput(i int) string { return "in" + strconv.Itoa(i) }

// given returns the name of input i, or "" where it is left out.
func (f *body) given(i int) string {
	if arg(f.in, i) == nil {
		return ""
	}
	return bodyInput(i)
}

func (f *body) shape(i int) []int { return f.in[i].Shape() }

// ops appends a node of several outputs.
func (f *body) ops(op string, outs int, attrs Attrs, inputs ...string) []string {
	if attrs == nil {
		attrs = Attrs{}
	}
	n := &Node{Op: op, Version: bodyVersion, Inputs: inputs, Attrs: attrs}
	for i := range outs {
		n.Outputs = append(n.Outputs, fmt.Sprintf("%s%d.%d", op, len(f.graph.Nodes), i))
	}
	f.graph.Nodes = append(f.graph.Nodes, n)
	return n.Outputs
}

// op appends a node and returns its output.
func (f *body) op(op string, inputs ...string) string { return f.ops(op, 1, nil, inputs...)[0] }

// with appends a node that has attributes.
func (f *body) with(op string, attrs Attrs, inputs ...string) string {
	return f.ops(op, 1, attrs, inputs...)[0]
}

// made is a constant that may not have come about, of an input of a strange type.
func (f *body) made(t *engine.Tensor, err error) string {
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return ""
	}
	return f.constant(t)
}

func (f *body) constant(t *engine.Tensor) string {
	name := "constant" + strconv.Itoa(len(f.graph.Constants))
	f.graph.Constants[name] = t
	return name
}

func (f *body) ints(v ...int) string {
	wide := make([]int64, len(v))
	for i, e := range v {
		wide[i] = int64(e)
	}
	return f.made(engine.Of(wide, len(v)))
}

// number is a scalar of type d.
func (f *body) number(d engine.DType, v float64) string {
	t, err := engine.New(d)
	if err == nil {
		err = storeFloats(t, []float64{v})
	}
	return f.made(t, err)
}

// count is the column or row 0, 1, ... of whole numbers.
func (f *body) count(shape ...int) string {
	v := make([]int64, volume(shape))
	for i := range v {
		v[i] = int64(i)
	}
	return f.made(engine.Of(v, shape...))
}

func (f *body) cast(x string, d engine.DType) string {
	return f.with("Cast", Attrs{"to": {Kind: AttrInt, Int: int64(onnxTypes[d])}}, x)
}

// cut takes elements from to to of an axis.
func (f *body) cut(x string, axis, from, to int) string {
	return f.op("Slice", x, f.ints(from), f.ints(to), f.ints(axis))
}

func (f *body) concat(axis int, x ...string) string {
	return f.with("Concat", Attrs{"axis": {Kind: AttrInt, Int: int64(axis)}}, x...)
}

func (f *body) transpose(x string, perm ...int64) string {
	return f.with("Transpose", Attrs{"perm": {Kind: AttrInts, Ints: perm}}, x)
}

func (f *body) axis(op string, axis int, x ...string) string {
	return f.with(op, Attrs{"axis": {Kind: AttrInt, Int: int64(axis)}}, x...)
}

func (f *body) give(outputs ...string) { f.graph.Outputs = append(f.graph.Outputs, outputs...) }

// onnxTypes is TypeOfONNX back.
var onnxTypes = func() map[engine.DType]int {
	m := map[engine.DType]int{}
	for n := range 32 {
		if d := TypeOfONNX(n); d != engine.Invalid {
			m[d] = n
		}
	}
	return m
}()

// maxBodies bounds the programs that a composite operator remembers.
const maxBodies = 16

// composed is a composite operator of a model: its bodies by the inputs' shapes.
type composed struct {
	compose composer
	mu      sync.Mutex
	bodies  map[string]*Program
}

// program returns the body for these inputs.
func (c *composed) program(in []*engine.Tensor) (*Program, error) {
	var key strings.Builder
	for _, t := range in {
		if t == nil {
			key.WriteString("-;")
			continue
		}
		fmt.Fprintf(&key, "%d%v;", t.DType(), t.Shape())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.bodies[key.String()]; p != nil {
		return p, nil
	}
	p, err := written(c.compose, in)
	if err != nil {
		return nil, err
	}
	if len(c.bodies) >= maxBodies {
		clear(c.bodies)
	}
	c.bodies[key.String()] = p
	return p, nil
}

func bodyValues(in []*engine.Tensor) engine.Values {
	var v engine.Values
	for i, t := range in {
		if t != nil {
			v = append(v, engine.Named{Name: bodyInput(i), Tensor: t})
		}
	}
	return v
}

// given are bodyValues in a list that the next inner run uses again; specs are the inputs
// that are there.
func (x *Exec) given(specs []engine.Spec, in []*engine.Tensor) engine.Values {
	if x.memory == nil {
		return bodyValues(in)
	}
	f := x.memory.arena.next()
	f.given = f.given[:0]
	for _, t := range in {
		if t != nil {
			f.given = append(f.given, engine.Named{Name: specs[len(f.given)].Name, Tensor: t})
		}
	}
	return f.given
}

func (c *composed) kernel(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	p := recall[Program](x, in)
	if p == nil {
		var err error
		if p, err = c.program(in); err != nil {
			return nil, err
		}
		remember(x, in, p)
	}
	return p.within(x, x.given(p.graph.Inputs, in))
}

// within runs a program inside a kernel, on the kernel's memory, and returns its
// outputs, in a list that the next one to run inside it uses again.
func (p *Program) within(x *Exec, in engine.Values) ([]*engine.Tensor, error) {
	if x.inner == nil {
		x.inner = new(int)
	}
	if *x.inner += len(p.steps) + 1; *x.inner > maxInner {
		return nil, fmt.Errorf("inner graphs of more than %d nodes: %w", maxInner, engine.ErrTooLarge)
	}
	ctx := x.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	left := x.limit - x.live - x.slack
	if left <= 0 {
		return nil, fmt.Errorf("run an inner graph: %w", engine.ErrTooLarge)
	}
	opt := Options{MaxBytes: left, Threads: x.threads, inner: x.inner, Cost: x.cost, base: x.base + x.live}
	if x.memory != nil {
		opt.Arena = x.memory.arena // what the run gives leaves it, what it is given never was in it
	}
	r, err := p.Run(ctx, opt, in, p.graph.Outputs)
	if err != nil {
		return nil, err
	}
	defer r.release()
	// Not lent by the step: a loop's has many turns, whose values would all stay until it ends.
	var out []*engine.Tensor
	if r.frame == nil {
		out = make([]*engine.Tensor, len(p.graph.Outputs))
	} else {
		out = slices.Grow(r.frame.results[:0], len(p.graph.Outputs))[:len(p.graph.Outputs)]
		r.frame.results = out
	}
	for i, name := range p.graph.Outputs {
		out[i] = r.Value(name)
		if !p.Owns(out[i]) {
			if r.frame != nil {
				x.memory.adopt(&r.frame.buffers, out[i])
			}
			continue
		}
		// A constant belongs to the model, a view of one too; what a node makes may be
		// its caller's.
		if out[i], err = Clone(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// composite is an operator that read describes by others.
func composite(def opDef, read func(b *builder) (composer, error)) opDef {
	def.compose = read
	def.build = func(b *builder) (Kernel, error) {
		c, err := read(b)
		if err != nil {
			return nil, err
		}
		return (&composed{compose: c, bodies: map[string]*Program{}}).kernel, nil
	}
	return def
}

// IsComposite reports whether a node's operator is one that others define.
func IsComposite(n *Node) bool {
	op, err := lookup(n)
	return err == nil && op.definition() != nil
}

func (op *opDef) definition() func(b *builder) (composer, error) {
	if op.compose != nil {
		return op.compose
	}
	return op.means
}

// BodyOf returns what a composite node stands for, over inputs named as the values
// are; its outputs are the node's, in order.
func BodyOf(n *Node, in []*engine.Tensor) (*Program, engine.Values, error) {
	op, err := lookup(n)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}, constants: make([]*engine.Tensor, len(in))}
	for _, t := range in {
		d := engine.Invalid
		if t != nil {
			d = t.DType()
		}
		b.inputs = append(b.inputs, d)
	}
	c, err := op.definition()(b)
	if err != nil {
		return nil, nil, err
	}
	p, err := written(c, in)
	return p, bodyValues(in), err
}

// written writes a body down and compiles it.
func written(c composer, in []*engine.Tensor) (*Program, error) {
	f := newBody(in)
	if err := c(f); err != nil {
		return nil, err
	}
	if f.err != nil {
		return nil, f.err
	}
	return compileIn(f.graph, nil, packs{})
}
