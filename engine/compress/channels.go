package compress

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// lane says that a value has parts that can go along one of its axes: which part each
// index belongs to. Several indices of one part go together.
type lane struct {
	axis  int
	parts []int
}

// cutting is a weight with parts along one of its axes.
type cutting struct {
	slice
	parts []int
	// node makes the parts by this weight, or takes them in from the value input with
	// the parts along axis from; both are empty where the weight only meets them.
	makes, takes *onnx.FileNode
	input        string
	from         int
}

// amend is a number in the file that says how many of parts there are: an element of a
// constant that says a shape, or an attribute.
type amend struct {
	node      *onnx.FileNode
	input, at int
	attribute string
	parts     []int
}

const (
	// maxParts bounds what is kept for one value.
	maxParts = 1 << 22
	// guessed stands for a dimension that the file leaves open, where no rows say it.
	guessed = 64
)

// tracer follows the channels of convolutions and the heads of attention through one
// file: what a node makes are fresh parts, what meets them index by index ties parts
// together (residual sums, the groups of a convolution, queries and keys), and what it
// does not know keeps them in the file, with the reason.
type tracer struct {
	*structurer
	// shapes are those of all values in one run.
	shapes map[string][]int
	lanes  map[string]lane
	// parents join parts that go together, groups those that stand for one another when
	// the least important are chosen. A part is a channel or a head once something has
	// said so.
	parents, groups partition
	kept            map[int]string // why a part stays, by any of its members
	chosen          map[int]bool   // parts that are channels or heads
	gain            map[int]float64
	cuts            []*cutting
	amends          []amend
	sources         []*source
	// behind are the nodes whose result only weighs others, through a Softmax.
	behind map[*onnx.FileNode]bool
}

// source are the fresh parts of a node.
type source struct {
	node  *onnx.FileNode
	parts []int
}

// partition is a union-find forest.
type partition []int

func (p partition) find(x int) int {
	for p[x] != x {
		p[x] = p[p[x]]
		x = p[x]
	}
	return x
}

// union joins two; the smaller number stands for both, so that the result does not
// depend on the order.
func (p partition) union(a, b int) {
	a, b = p.find(a), p.find(b)
	p[max(a, b)] = min(a, b)
}

// trace follows every node of the file.
func trace(f *onnx.File, shapes map[string][]int) *tracer {
	t := &tracer{
		structurer: newStructurer(f), shapes: shapes, lanes: map[string]lane{}, kept: map[int]string{},
		chosen: map[int]bool{}, gain: map[int]float64{}, behind: map[*onnx.FileNode]bool{},
	}
	for _, w := range f.Weights() {
		t.shapes[w.Name] = w.Shape
	}
	for _, n := range f.Nodes() {
		if why := t.node(n); why != "" {
			for _, in := range n.Inputs {
				t.keep(in, why)
			}
		}
		for _, out := range n.Outputs {
			if l, ok := t.lanes[out]; ok && t.reads[out] != t.readsOf(out) {
				t.keepParts(l.parts, fmt.Sprintf("%q is an output of the model, or read by an inner graph", clip(out)))
			}
		}
	}
	return t
}

// fresh gives a node new parts along an axis of its weight, and its result along an
// axis of that.
func (t *tracer) fresh(n *onnx.FileNode, w *onnx.Weight, weightAxis, axis int) []int {
	parts := make([]int, w.Shape[weightAxis])
	for i := range parts {
		parts[i] = len(t.parents)
		t.parents = append(t.parents, parts[i])
		t.groups = append(t.groups, parts[0])
	}
	t.sources = append(t.sources, &source{n, parts})
	t.lanes[n.Outputs[0]] = lane{axis, parts}
	t.mark(w, weightAxis, parts).makes = n
	return parts
}

// mark notes a weight with parts along an axis. One that something else reads too
// cannot be cut.
func (t *tracer) mark(w *onnx.Weight, axis int, parts []int) *cutting {
	c := &cutting{slice: slice{w, axis}, parts: parts}
	t.cuts = append(t.cuts, c)
	switch {
	case w.DType != engine.Float32 && w.DType != engine.Float64:
		t.keepParts(parts, fmt.Sprintf("%q is %s", clip(w.Name), w.DType))
	case t.reads[w.Name] != 1:
		t.keepParts(parts, fmt.Sprintf("its constant %q is used more than once", clip(w.Name)))
	}
	return c
}

// tie has parts go together.
func (t *tracer) tie(a, b int) {
	a, b = t.parents.find(a), t.parents.find(b)
	if a == b {
		return
	}
	why := t.kept[a]
	if why == "" {
		why = t.kept[b]
	}
	chosen := t.chosen[a] || t.chosen[b]
	t.parents.union(a, b)
	t.groups.union(a, b)
	root := min(a, b)
	t.chosen[root] = chosen
	if why != "" {
		t.kept[root] = why
	}
}

// keep has the parts of a value stay.
func (t *tracer) keep(name, why string) {
	if l, ok := t.lanes[name]; ok {
		t.keepParts(l.parts, why)
	}
}

func (t *tracer) keepParts(parts []int, why string) {
	for _, p := range parts {
		if root := t.parents.find(p); t.kept[root] == "" {
			t.kept[root] = why
		}
	}
}

// choose says that parts are channels or heads.
func (t *tracer) choose(parts []int) {
	for _, p := range parts {
		t.chosen[t.parents.find(p)] = true
	}
}

// pass hands the parts of a value on to the first result of a node.
func (t *tracer) pass(n *onnx.FileNode, axis int, parts []int) (why string) {
	shape, ok := t.shapes[n.Outputs[0]]
	if !ok || axis < 0 || axis >= len(shape) || shape[axis] != len(parts) || len(parts) > maxParts {
		return fmt.Sprintf("what %s (%s) makes of it does not have it along an axis", label(n), n.Op)
	}
	t.lanes[n.Outputs[0]] = lane{axis, parts}
	return ""
}

// observed runs a row or two of the rows, or of zeros where there are none, and returns
// the shape of every value of the main graph.
func observed(ctx context.Context, in Input, f *onnx.File) (map[string][]int, error) {
	m, err := modelfile.Read(in.Name, in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	values, err := few(in, m.Info())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range f.Nodes() {
		for _, out := range n.Outputs {
			if out != "" && f.Weight(out) == nil {
				names = append(names, out)
			}
		}
	}
	session, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return nil, err
	}
	out, err := session.Run(ctx, values, names)
	if rows := engine.RowsOf(m.Info(), values); errors.Is(err, engine.ErrTooLarge) && rows.N > 1 {
		if values, err = rows.Slice(0, 1); err == nil {
			out, err = session.Run(ctx, values, names)
		}
	}
	if err != nil {
		return nil, err
	}
	shapes := map[string][]int{}
	for _, v := range slices.Concat(values, out) {
		if v.Tensor.DType() != engine.Sequence {
			shapes[v.Name] = v.Tensor.Shape()
		}
	}
	return shapes, nil
}

// few are two rows of those given, or of zeros.
func few(in Input, info *engine.Info) (engine.Values, error) {
	if len(in.Rows) > 0 {
		rows := engine.RowsOf(info, in.Rows)
		return rows.Slice(0, min(2, rows.N))
	}
	var out engine.Values
	for _, s := range info.Inputs {
		shape := slices.Clone(s.Shape)
		for i, d := range shape {
			switch {
			case d >= 0:
			case i == 0:
				shape[i] = 2
			default:
				shape[i] = guessed
			}
		}
		if n, err := engine.Elements(shape); err != nil || n > 1<<26 || s.DType > engine.String {
			return nil, fmt.Errorf("input %q is no tensor of a known size", clip(s.Name))
		}
		t, err := engine.New(s.DType, shape...)
		if err != nil {
			return nil, err
		}
		out = append(out, engine.Named{Name: s.Name, Tensor: t})
	}
	return out, nil
}
