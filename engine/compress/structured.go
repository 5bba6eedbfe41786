package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

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
// units that matter least, with their rows and columns. What a dropped unit gave on
// average goes into the next layer's bias where there is one and rows are given.
func structured(ctx context.Context, in Input, share float64) (*Result, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	if v := f.Opset(""); v < gemmOpset {
		return nil, refuse("the file imports operator set %d of ai.onnx, hidden layers are recognised since %d", v, gemmOpset)
	}
	s := newStructurer(f)
	r := &Result{}
	var layers []*layer
	for _, n := range f.Nodes() {
		l, why := s.layer(n)
		if l != nil {
			layers = append(layers, l)
		} else if why != "" {
			r.note("%s stays as it is: %s", label(n), why)
		}
	}
	if len(layers) == 0 {
		return nil, refuse("no hidden layer stands between two MatMul or Gemm nodes with nothing but elementwise operators between them%s", first(r.Notes))
	}
	units, err := measure(ctx, in, layers)
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		drop := int(math.Round(share * float64(l.units)))
		drop = min(drop, l.units-1)
		if drop < 1 {
			r.note("%s keeps its %d units: the share is less than one", label(l.makes), l.units)
			continue
		}
		moved, err := s.drop(l, units[i], drop)
		if err != nil {
			return nil, err
		}
		r.change(label(l.makes), "%d of %d units dropped%s", drop, l.units, moved)
	}
	if len(r.Changes) == 0 {
		return nil, refuse("every hidden layer is too small to lose a unit")
	}
	r.Data, err = f.Bytes()
	return r, err
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

func first(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	return " (" + notes[0] + ")"
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

// unit is what is known of one hidden unit: how much it matters, and what it gives on
// average.
type unit struct{ weight, mean float64 }

// measure runs the rows through the model and weighs each unit by the spread of what
// it gives times the size of the weights that take it in. Without rows, and where
// several values are taken in, the size of its own weights stands for the spread.
func measure(ctx context.Context, in Input, layers []*layer) ([][]unit, error) {
	out := make([][]unit, len(layers))
	var names []string
	for i, l := range layers {
		out[i] = make([]unit, l.units)
		if l.last != "" && len(in.Rows) > 0 {
			names = append(names, l.last)
		}
	}
	var run engine.Values
	if len(names) > 0 {
		m, err := modelfile.Read(in.Name, in.Data, in.Dir)
		if err != nil {
			return nil, err
		}
		session, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			return nil, err
		}
		rows, err := few(in.Rows)
		if err != nil {
			return nil, err
		}
		if run, err = session.Run(ctx, rows, names); err != nil {
			return nil, fmt.Errorf("measure hidden units: %w", err)
		}
	}
	for i, l := range layers {
		spread, err := l.spread(run, out[i])
		if err != nil {
			return nil, err
		}
		for u := range out[i] {
			out[i][u].weight = spread[u]
		}
		for _, r := range l.reads {
			size, err := norms(r.slice)
			if err != nil {
				return nil, err
			}
			for u := range out[i] {
				out[i][u].weight *= size[u]
			}
		}
	}
	return out, nil
}

// few returns the first rows, as many as are measured.
func few(rows engine.Values) (engine.Values, error) {
	n := rows[0].Tensor.Rows()
	if n <= maxRows {
		return rows, nil
	}
	return rows.Slice(0, maxRows)
}

// spread returns how much each unit varies, and notes its mean.
func (l *layer) spread(run engine.Values, units []unit) ([]float64, error) {
	t := run.Get(l.last)
	if l.last == "" || t == nil || t.Len() == 0 || t.Len()%l.units != 0 || t.Shape()[len(t.Shape())-1] != l.units {
		return norms(l.slices[0])
	}
	v, _ := t.Float64s()
	n := float64(len(v) / l.units)
	for i, x := range v {
		units[i%l.units].mean += x / n
	}
	out := make([]float64, l.units)
	for i, x := range v {
		d := x - units[i%l.units].mean
		out[i%l.units] += d * d / n
	}
	for u := range out {
		out[u] = math.Sqrt(out[u])
		if math.IsNaN(out[u]) || math.IsInf(out[u], 0) {
			return nil, refuse("a hidden unit is no finite number on these rows")
		}
	}
	return out, nil
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
func (s *structurer) drop(l *layer, units []unit, n int) (moved string, err error) {
	at := make([]int, len(units))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(units[a].weight, units[b].weight) })
	gone, keep := at[:n], at[n:]
	slices.Sort(keep)
	biased := 0
	for _, r := range l.reads {
		did, err := s.shift(r, units, gone)
		if err != nil {
			return "", err
		}
		if did {
			biased++
		}
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
	if biased > 0 && biased == len(l.reads) {
		moved = "; what they gave on average is in the next bias"
	}
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

// shift adds what the units that go gave on average to the bias behind a reader: its
// own, or that of the Add which alone takes what it makes.
func (s *structurer) shift(r reader, units []unit, gone []int) (bool, error) {
	any := false
	for _, u := range gone {
		any = any || units[u].mean != 0
	}
	b, scale := s.bias(r.node)
	if !any || b == nil {
		return false, nil
	}
	w, err := r.w.Value()
	if err != nil {
		return false, err
	}
	v, _ := w.Float64s()
	t, err := b.Value()
	if err != nil {
		return false, err
	}
	bias, _ := t.Float64s()
	bias = slices.Clone(bias)
	outs := len(bias)
	if len(v) != outs*r.w.Shape[r.axis] {
		return false, nil
	}
	for k := range bias {
		for _, u := range gone {
			at := u*outs + k
			if r.axis == 1 {
				at = k*r.w.Shape[1] + u
			}
			bias[k] += scale * units[u].mean * v[at]
		}
	}
	o, err := floatsLike(t, bias, b.Shape)
	if err != nil {
		return false, err
	}
	return true, s.file.Replace(b, o)
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
