package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// gemmOpset is the first operator set in which arithmetic broadcasts by shape alone.
const gemmOpset = 7

// pointwise are the operators whose every element is made of those at the same place
// of their inputs.
var pointwise = map[string]bool{
	"Relu": true, "Tanh": true, "Sigmoid": true, "Gelu": true, "LeakyRelu": true, "Elu": true, "Selu": true, "Celu": true, "Softplus": true,
	"Softsign": true, "HardSigmoid": true, "HardSwish": true, "Mish": true, "ThresholdedRelu": true, "PRelu": true, "Clip": true, "Identity": true,
	"Abs": true, "Neg": true, "Exp": true, "Sqrt": true, "Erf": true, "Sin": true, "Cos": true, "Floor": true, "Ceil": true, "Sign": true,
	"Add": true, "Sub": true, "Mul": true, "Div": true, "Pow": true, "Max": true, "Min": true, "Swish": true, "Dropout": true, "Cast": true,
}

// layer is a hidden layer whose units can be dropped: a linear node, what is done to
// each of its units alone, and the linear nodes that read the result.
type layer struct {
	units int
	// makes is the linear node that makes the units.
	makes *onnx.FileNode
	// slices are the tensors with the units along an axis.
	slices []slice
	// reads are the nodes that take the units in, with the axis of their weights.
	reads []reader
	// values are the names of everything of that width.
	values []string
	// last is the value the readers take, where there is only one.
	last string
}

// slice is a weight with the units along one axis.
type slice struct {
	w    *onnx.Weight
	axis int
}

// reader is a linear node that takes the units in.
type reader struct {
	node *onnx.FileNode
	slice
	input string
}

// structurer drops hidden units of one file.
type structurer struct {
	file    *onnx.File
	reads   map[string]int
	readers map[string][]*onnx.FileNode
	makers  map[string]*onnx.FileNode
}

// structured drops, of every hidden layer between two linear nodes, the share of
// units that matter least, with their rows and columns, and then of channels and heads.
func structured(ctx context.Context, in Input, share float64) (*Result, error) {
	r := &Result{Data: in.Data}
	layers, err := hiddenUnits(ctx, in, share, r)
	if err != nil {
		return nil, err
	}
	in.Data = r.Data
	done, stay, err := dropChannels(ctx, in, share, r)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if !done[l.label] {
			r.note("%s", l.why)
		}
	}
	r.Notes = append(r.Notes, stay...)
	if len(r.Changes) == 0 {
		return nil, refuse("no hidden layer stands between two MatMul or Gemm nodes with nothing but elementwise operators between them, no channel of a convolution and no head of attention can go%s", obstacles(r.Notes))
	}
	return r, nil
}

// staying is a node that keeps its units, and the reason.
type staying struct{ label, why string }

// hiddenUnits drops units of hidden layers. Where rows are given, what the
// dropped units gave is predicted from those that stay, and the next layer's weights
// and bias take that over.
func hiddenUnits(ctx context.Context, in Input, share float64, r *Result) (stay []staying, err error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	if v := f.Opset(""); v < gemmOpset {
		return nil, refuse("the file imports operator set %d of ai.onnx, hidden layers are recognised since %d", v, gemmOpset)
	}
	if err := leaveInner(f, r); err != nil {
		return nil, err
	}
	s := newStructurer(f)
	var layers []*layer
	for _, n := range f.Nodes() {
		l, why := s.layer(n)
		if l != nil {
			layers = append(layers, l)
		} else if why != "" {
			stay = append(stay, staying{label(n), fmt.Sprintf("%s stays as it is: %s", label(n), why)})
		}
	}
	if len(layers) == 0 {
		return stay, nil
	}
	measured, err := measure(ctx, in, layers)
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		drop := int(math.Round(share * float64(l.units)))
		drop = min(drop, l.units-1)
		if drop < 1 {
			stay = append(stay, staying{label(l.makes), fmt.Sprintf("%s keeps its %d units: the share is less than one", label(l.makes), l.units)})
			continue
		}
		moved, err := s.drop(l, measured[i], drop)
		if err != nil {
			return nil, err
		}
		r.change(label(l.makes), "%d of %d units dropped%s", drop, l.units, moved)
	}
	if len(r.Changes) == 0 {
		return stay, nil
	}
	r.Data, err = f.Bytes()
	return stay, err
}

func newStructurer(f *onnx.File) *structurer {
	s := &structurer{file: f, reads: f.Readers(), readers: map[string][]*onnx.FileNode{}, makers: map[string]*onnx.FileNode{}}
	for _, n := range f.Nodes() {
		for _, name := range n.Outputs {
			s.makers[name] = n
		}
		for i, name := range n.Inputs {
			if name != "" && slices.Index(n.Inputs, name) == i {
				s.readers[name] = append(s.readers[name], n)
			}
		}
	}
	return s
}

// shownObstacles is how many reasons of a refusal are told.
const shownObstacles = 8

// obstacles tells what was in the way, each with its reason.
func obstacles(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	more := ""
	if n := len(notes) - shownObstacles; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return ": " + strings.Join(notes[:min(len(notes), shownObstacles)], "; ") + more
}

// leaveInner notes that the weights of graphs within nodes stay, by the nodes.
func leaveInner(f *onnx.File, r *Result) error {
	graphs, err := f.Graphs()
	if err != nil {
		return err
	}
	var nodes []string
	for _, g := range graphs[1:] {
		matrix := func(w *onnx.Weight) bool {
			return len(w.Shape) > 1 && (w.DType == engine.Float32 || w.DType == engine.Float64)
		}
		if what := fmt.Sprintf("%s (%s)", label(g.Within), g.Within.Op); slices.ContainsFunc(g.Weights(), matrix) && !slices.Contains(nodes, what) {
			nodes = append(nodes, what)
		}
	}
	if len(nodes) > 0 {
		r.note("the weights in the graphs within %s stay as they are", strings.Join(nodes, ", "))
	}
	return nil
}

func label(n *onnx.FileNode) string {
	if n.Name != "" {
		return n.Name
	}
	return n.Op + " of " + clip(n.Outputs[0])
}

// linear returns the weight of a MatMul or Gemm, and the axes of what it takes in and
// what it makes; ok is false for any other node.
func (s *structurer) linear(n *onnx.FileNode) (w *onnx.Weight, in, out int, ok bool) {
	if n.Domain != "" || n.Op != "MatMul" && n.Op != "Gemm" || len(n.Inputs) < 2 || len(n.Outputs) != 1 {
		return nil, 0, 0, false
	}
	w = s.file.Weight(n.Inputs[1])
	if w == nil || len(w.Shape) != 2 || w.DType != engine.Float32 && w.DType != engine.Float64 {
		return nil, 0, 0, false
	}
	if n.Number("transA", 0) != 0 {
		return nil, 0, 0, false
	}
	if n.Number("transB", 0) != 0 {
		return w, 1, 0, true
	}
	return w, 0, 1, true
}

// layer follows what node n makes up to the next linear nodes. Without a layer, why
// says what is in the way, or is "" where n is not linear, or the last.
func (s *structurer) layer(n *onnx.FileNode) (l *layer, why string) {
	w, _, axis, ok := s.linear(n)
	if !ok {
		return nil, ""
	}
	l = &layer{units: w.Shape[axis], makes: n}
	if why = s.take(l, w, axis); why != "" || l.units < 2 {
		return nil, why
	}
	if len(n.Inputs) > 2 && n.Inputs[2] != "" {
		if why = s.operand(l, n.Inputs[2]); why != "" {
			return nil, why
		}
	}
	in := map[string]bool{n.Outputs[0]: true}
	l.values = []string{n.Outputs[0]}
	for i := 0; i < len(l.values); i++ {
		name := l.values[i]
		if s.reads[name] != s.readsOf(name) {
			return nil, fmt.Sprintf("%q is an output of the model, or read by an inner graph", clip(name))
		}
		for _, m := range s.readers[name] {
			if why := s.follow(l, name, m, in); why != "" {
				return nil, why
			}
		}
	}
	for _, name := range l.values[1:] {
		if why := s.operands(l, name, in); why != "" {
			return nil, why
		}
	}
	if len(l.reads) == 0 {
		return nil, "nothing linear reads what it makes"
	}
	l.last = l.reads[0].input
	for _, r := range l.reads {
		if r.input != l.last {
			l.last = ""
		}
	}
	return l, ""
}

// readsOf counts the reads of a name by the main graph's nodes.
func (s *structurer) readsOf(name string) int {
	n := 0
	for _, m := range s.readers[name] {
		for _, in := range m.Inputs {
			if in == name {
				n++
			}
		}
	}
	return n
}

// follow takes in node m, which reads a value of the layer.
func (s *structurer) follow(l *layer, name string, m *onnx.FileNode, in map[string]bool) (why string) {
	if w, axis, _, ok := s.linear(m); ok && m.Inputs[0] == name && !slices.Contains(m.Inputs[1:], name) {
		if s.reads[w.Name] != 1 || w.Shape[axis] != l.units {
			return fmt.Sprintf("%s shares its weights, or they do not fit", label(m))
		}
		l.reads = append(l.reads, reader{node: m, slice: slice{w, axis}, input: name})
		return ""
	}
	// Behind a Gemm, whose result is a matrix, the units are also the channels.
	normal := m.Op == "BatchNormalization" && l.makes.Op == "Gemm" && m.Number("training_mode", 0) == 0 && m.Inputs[0] == name
	if m.Domain != "" || !pointwise[m.Op] && !normal || len(m.Outputs) != 1 {
		return fmt.Sprintf("%s (%s) reads it", label(m), m.Op)
	}
	if !in[m.Outputs[0]] {
		in[m.Outputs[0]] = true
		l.values = append(l.values, m.Outputs[0])
	}
	return ""
}

// operands checks what else the node that makes a value takes.
func (s *structurer) operands(l *layer, name string, in map[string]bool) (why string) {
	for _, x := range s.makers[name].Inputs {
		if x == "" || in[x] {
			continue
		}
		if why := s.operand(l, x); why != "" {
			return why
		}
	}
	return ""
}

// operand takes in a constant that meets the units: one number for all, or one each.
func (s *structurer) operand(l *layer, name string) (why string) {
	w := s.file.Weight(name)
	switch {
	case w == nil:
		return fmt.Sprintf("it meets %q, which is no constant", clip(name))
	case w.Len == 1:
		return ""
	case len(w.Shape) > 0 && w.Len == l.units && w.Shape[len(w.Shape)-1] == l.units:
		return s.take(l, w, len(w.Shape)-1)
	}
	return fmt.Sprintf("the shape %v of %q is not one number a unit", w.Shape, clip(name))
}

// take notes a weight to be cut; one that something else reads too cannot be.
func (s *structurer) take(l *layer, w *onnx.Weight, axis int) (why string) {
	if s.reads[w.Name] != 1 {
		return fmt.Sprintf("its constant %q is used more than once", clip(w.Name))
	}
	l.slices = append(l.slices, slice{w, axis})
	return ""
}

// measured is what is known of a hidden layer.
type measured struct {
	// weight tells how much each unit matters.
	weight []float64
	// given is what the units give, row by row, and mean their means; nil where it
	// was not seen.
	given, mean []float64
}

// measure runs the rows through the model and weighs each unit by the spread of what
// it gives times the size of the weights that take it in. Without rows, and where
// several values are taken in, the size of its own weights stands for the spread.
func measure(ctx context.Context, in Input, layers []*layer) ([]*measured, error) {
	var names []string
	for _, l := range layers {
		if l.last != "" && len(in.Rows) > 0 {
			names = append(names, l.last)
		}
	}
	seen := map[string]*given{}
	if len(names) > 0 {
		m, err := modelfile.Read(in.Name, in.Data, in.Dir)
		if err != nil {
			return nil, err
		}
		rows, err := engine.RowsOf(m.Info(), in.Rows).Spread(maxRows)
		if err != nil {
			return nil, err
		}
		// A row of input can be many of a layer, one a word: each block keeps its part.
		keep := (maxRows*calibrated + rows.N - 1) / max(rows.N, 1)
		if err := eachBlock(ctx, m, rows.Values, names, func(v engine.Values) {
			for _, o := range v {
				if seen[o.Name] == nil {
					seen[o.Name] = &given{}
				}
				seen[o.Name].add(o.Tensor, keep)
			}
		}); err != nil {
			return nil, fmt.Errorf("measure hidden units: %w", err)
		}
	}
	out := make([]*measured, len(layers))
	for i, l := range layers {
		m, err := l.look(seen[l.last])
		if err != nil {
			return nil, err
		}
		for _, r := range l.reads {
			size, err := norms(r.slice)
			if err != nil {
				return nil, err
			}
			for u := range m.weight {
				m.weight[u] *= size[u]
			}
		}
		out[i] = m
	}
	return out, nil
}

// given is what was seen of a value: rows of width numbers.
type given struct {
	width int
	v     []float64
}

// add takes in at most keep rows of what a run gave.
func (g *given) add(t *engine.Tensor, keep int) {
	v, ok := t.Float64s()
	if !ok || len(v) == 0 || len(t.Shape()) == 0 {
		return
	}
	g.width = t.Shape()[len(t.Shape())-1]
	g.v = append(g.v, thin(v, g.width, keep)...)
}

// look returns how much each unit varies, and what it gives, by what was seen, if anything.
func (l *layer) look(g *given) (*measured, error) {
	if g == nil || g.width != l.units {
		size, err := norms(l.slices[0])
		return &measured{weight: size}, err
	}
	m := &measured{given: thin(g.v, l.units, maxRows), mean: make([]float64, l.units), weight: make([]float64, l.units)}
	n := float64(len(m.given) / l.units)
	for i, x := range m.given {
		m.mean[i%l.units] += x / n
	}
	for i, x := range m.given {
		d := x - m.mean[i%l.units]
		m.weight[i%l.units] += d * d / n
	}
	for u := range m.weight {
		m.weight[u] = math.Sqrt(m.weight[u])
		if math.IsNaN(m.weight[u]) || math.IsInf(m.weight[u], 0) {
			return nil, refuse("a hidden unit is no finite number on these rows")
		}
	}
	return m, nil
}

// thin keeps at most so many of the rows of v, at even distances.
func thin(v []float64, width, keep int) []float64 {
	n := len(v) / width
	if n <= keep {
		return v
	}
	out := make([]float64, 0, keep*width)
	for i := range keep {
		r := i * n / keep
		out = append(out, v[r*width:(r+1)*width]...)
	}
	return out
}

// norms returns the size of a weight's part of each unit.
func norms(s slice) ([]float64, error) {
	t, err := s.w.Value()
	if err != nil {
		return nil, err
	}
	v, _ := t.Float64s()
	out := make([]float64, s.w.Shape[s.axis])
	inner := 1
	for _, d := range s.w.Shape[s.axis+1:] {
		inner *= d
	}
	for i, x := range v {
		out[i/inner%len(out)] += x * x
	}
	for u := range out {
		out[u] = math.Sqrt(out[u])
	}
	return out, nil
}

// drop removes the units of least weight.
func (s *structurer) drop(l *layer, m *measured, n int) (moved string, err error) {
	at := make([]int, l.units)
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(m.weight[a], m.weight[b]) })
	gone, keep := at[:n], at[n:]
	slices.Sort(gone)
	slices.Sort(keep)
	if m.given != nil {
		for _, r := range l.reads {
			if err := s.takeOver(r, m, gone, keep); err != nil {
				return "", err
			}
		}
		moved = "; the next weights take over what they gave, as far as the others tell it"
	}
	cut := slices.Clone(l.slices)
	for _, r := range l.reads {
		cut = append(cut, r.slice)
	}
	names := slices.Clone(l.values)
	for _, c := range cut {
		if err := s.cut(c, keep); err != nil {
			return "", err
		}
		names = append(names, c.w.Name)
	}
	s.file.Reshaped(names...)
	return moved, nil
}

func (s *structurer) cut(c slice, keep []int) error {
	t, err := c.w.Value()
	if err != nil {
		return err
	}
	v, _ := t.Float64s()
	shape := slices.Clone(c.w.Shape)
	width := shape[c.axis]
	inner := 1
	for _, d := range shape[c.axis+1:] {
		inner *= d
	}
	shape[c.axis] = len(keep)
	out := make([]float64, 0, len(v)/width*len(keep))
	for from := 0; from < len(v); from += width * inner {
		for _, u := range keep {
			out = append(out, v[from+u*inner:from+(u+1)*inner]...)
		}
	}
	o, err := floatsLike(t, out, shape)
	if err != nil {
		return err
	}
	return s.file.Replace(c.w, o)
}

// bias finds the bias behind a linear node, and what a change of the node's product
// counts there.
func (s *structurer) bias(n *onnx.FileNode) (w *onnx.Weight, scale float64) {
	if n.Op == "Gemm" && len(n.Inputs) > 2 {
		beta := n.Number("beta", 1)
		if beta == 0 {
			return nil, 0
		}
		return s.own(n.Inputs[2]), n.Number("alpha", 1) / beta
	}
	next := s.readers[n.Outputs[0]]
	if n.Op != "MatMul" || len(next) != 1 || s.reads[n.Outputs[0]] != 1 || next[0].Op != "Add" || next[0].Domain != "" {
		return nil, 0
	}
	for _, in := range next[0].Inputs {
		if in != n.Outputs[0] {
			return s.own(in), 1
		}
	}
	return nil, 0
}

// own returns a vector of weights that nothing else reads, or nil.
func (s *structurer) own(name string) *onnx.Weight {
	w := s.file.Weight(name)
	if w == nil || s.reads[name] != 1 || w.Len < 1 || len(w.Shape) == 0 || w.Shape[len(w.Shape)-1] != w.Len {
		return nil
	}
	return w
}
