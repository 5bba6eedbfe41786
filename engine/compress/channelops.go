package compress

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// wherever are further operators that take index by index, once shapes are known.
var wherever = map[string]bool{"Where": true, "Reciprocal": true, "Round": true, "Not": true, "Equal": true, "Greater": true, "Less": true, "Shrink": true}

// spatial are the operators that treat each channel, along axis 1, alone.
var spatial = map[string]bool{
	"MaxPool": true, "AveragePool": true, "LpPool": true, "GlobalAveragePool": true, "GlobalMaxPool": true, "GlobalLpPool": true,
	"Resize": true, "Upsample": true,
}

// reshapes give the same elements in the same order another shape.
var reshapes = map[string]bool{"Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true}

var reductions = map[string]bool{"ReduceMean": true, "ReduceSum": true, "ReduceMax": true, "ReduceMin": true, "ReduceL2": true, "ReduceL1": true, "ReduceSumSquare": true}

// node takes in one node. A reason has all parts that it reads stay.
func (t *tracer) node(n *onnx.FileNode) (why string) {
	if len(n.Outputs) == 0 || len(n.Inputs) == 0 {
		return ""
	}
	if n.Domain == "" && (n.Op == "Conv" || n.Op == "ConvTranspose") {
		return t.convolution(n)
	}
	if n.Domain == "" && (n.Op == "MatMul" || n.Op == "Gemm") {
		return t.product(n)
	}
	reads := false
	for _, in := range n.Inputs {
		_, ok := t.lanes[in]
		reads = reads || ok
	}
	if !reads {
		return ""
	}
	l, first := t.lanes[n.Inputs[0]]
	unknown := fmt.Sprintf("%s (%s) reads it", label(n), n.Op)
	switch {
	case n.Domain != "":
		return unknown
	case slices.ContainsFunc(n.Outputs[1:], func(out string) bool { return t.reads[out] > 0 }) && n.Op != "Split":
		return unknown
	case pointwise[n.Op] || wherever[n.Op]:
		return t.elementwise(n)
	case n.Op == "Concat":
		return t.concat(n)
	case !first:
		return unknown
	case spatial[n.Op]:
		return t.pool(n, l)
	case n.Op == "BatchNormalization", n.Op == "InstanceNormalization":
		return t.normalise(n, l)
	case reshapes[n.Op]:
		return t.reshape(n, l)
	case reductions[n.Op]:
		return t.reduce(n, l)
	}
	switch n.Op {
	case "Transpose":
		return t.transpose(n, l)
	case "Softmax", "LogSoftmax":
		return t.softmax(n, l)
	case "Pad":
		return t.pad(n, l)
	case "Gather":
		return t.gather(n, l)
	case "Split":
		return t.split(n, l)
	case "Shape":
		return t.shape(n, l)
	}
	return unknown
}

// weightOf is the plain weight that an input of a node is, with as many dimensions, or nil.
func (t *tracer) weightOf(n *onnx.FileNode, i, atLeast int) *onnx.Weight {
	if i >= len(n.Inputs) {
		return nil
	}
	w := t.file.Weight(n.Inputs[i])
	if w == nil || len(w.Shape) < atLeast || w.DType != engine.Float32 && w.DType != engine.Float64 {
		return nil
	}
	return w
}

// convolution makes channels of its weights' first axis and takes those of its input in
// along the second; ConvTranspose has it the other way round.
func (t *tracer) convolution(n *onnx.FileNode) (why string) {
	w := t.weightOf(n, 1, 3)
	if w == nil || w.Len == 0 {
		return "the weights of " + label(n) + " are no constant of floats"
	}
	l, given := t.lanes[n.Inputs[0]]
	if given && l.axis != 1 {
		return label(n) + " reads it along another axis than the channels"
	}
	groups := int(n.Number("group", 1))
	makes, takes := 0, 1
	if n.Op == "ConvTranspose" {
		makes, takes = 1, 0
		if groups != 1 {
			return label(n) + " is a transposed convolution in groups"
		}
	}
	if groups < 1 || w.Shape[0]%groups != 0 || given && w.Shape[takes]*groups != len(l.parts) {
		return label(n) + " does not fit its weights"
	}
	if groups > 1 && w.Shape[1] == 1 {
		return t.depthwise(n, w, l, given, groups)
	}
	if given {
		width := w.Shape[takes]
		for i, p := range l.parts {
			t.tie(l.parts[i%width], p)
		}
		c := t.mark(w, takes, l.parts[:width])
		c.takes, c.input, c.from = n, n.Inputs[0], 1
	}
	parts := t.fresh(n, w, makes, 1)
	each := len(parts) / groups
	for i, p := range parts {
		t.tie(parts[i%each], p)
	}
	t.choose(parts)
	t.biases(n, parts)
	return ""
}

// depthwise filters each channel alone: what it makes goes with what it is made of.
func (t *tracer) depthwise(n *onnx.FileNode, w *onnx.Weight, l lane, given bool, groups int) (why string) {
	parts := t.fresh(n, w, 0, 1)
	if !given {
		t.keepParts(parts, "each channel is made of one that has to stay")
		return ""
	}
	each := len(parts) / groups
	for i, p := range parts {
		t.tie(l.parts[i/each], p)
	}
	t.amends = append(t.amends, amend{node: n, attribute: "group", parts: l.parts})
	t.biases(n, parts)
	return ""
}

// biases cuts what is added to each part that a node has made.
func (t *tracer) biases(n *onnx.FileNode, parts []int) {
	if len(n.Inputs) < 3 || n.Inputs[2] == "" {
		return
	}
	b := t.weightOf(n, 2, 0)
	switch {
	case b == nil:
		t.keepParts(parts, "the bias of "+label(n)+" is no constant of floats")
	case b.Len == 1 && len(parts) > 1:
	case len(b.Shape) == 0 || b.Len != len(parts) || b.Shape[len(b.Shape)-1] != b.Len:
		t.keepParts(parts, "the bias of "+label(n)+" is not one number each")
	default:
		t.mark(b, len(b.Shape)-1, parts)
	}
}

// product is MatMul or Gemm: with a weight it takes the last axis in and makes another,
// between two values their leading axes meet.
func (t *tracer) product(n *onnx.FileNode) (why string) {
	if len(n.Inputs) < 2 {
		return ""
	}
	l, given := t.lanes[n.Inputs[0]]
	shape := t.shapes[n.Inputs[0]]
	w, in, out, ok := t.linear(n)
	if !ok || w.Len == 0 {
		if n.Op == "Gemm" || t.file.Weight(n.Inputs[1]) != nil {
			return fmt.Sprintf("%s (%s) reads it", label(n), n.Op)
		}
		return t.batched(n)
	}
	if given && len(shape) > 0 && l.axis != len(shape)-1 {
		if n.Op == "Gemm" {
			return label(n) + " reads it as rows"
		}
		return t.pass(n, l.axis, l.parts)
	}
	if given {
		if w.Shape[in] != len(l.parts) {
			return label(n) + " does not fit its weights"
		}
		c := t.mark(w, in, l.parts)
		c.takes, c.input, c.from = n, n.Inputs[0], l.axis
	}
	if len(shape) == 0 {
		return ""
	}
	parts := t.fresh(n, w, out, len(shape)-1)
	if n.Op == "Gemm" {
		t.biases(n, parts)
	}
	return ""
}

// batched is a product of two values.
func (t *tracer) batched(n *onnx.FileNode) (why string) {
	for _, in := range n.Inputs {
		if l, ok := t.lanes[in]; ok && l.axis >= len(t.shapes[in])-2 {
			return label(n) + " multiplies two values along it"
		}
	}
	return t.elementwise(n)
}

// elementwise has what a node reads meet index by index, shapes aligned at their ends.
func (t *tracer) elementwise(n *onnx.FileNode) (why string) {
	rank := len(t.shapes[n.Outputs[0]])
	var found *lane // its axis counted from the end of the result
	for _, in := range n.Inputs {
		l, ok := t.lanes[in]
		if !ok {
			continue
		}
		l.axis += rank - len(t.shapes[in])
		switch {
		case found == nil:
			found = &l
		case found.axis != l.axis:
			return label(n) + " has it meet another along another axis"
		case len(l.parts) == 1 && len(found.parts) > 1:
			t.keepParts(l.parts, "it is spread over others")
		case len(found.parts) == 1 && len(l.parts) > 1:
			t.keepParts(found.parts, "it is spread over others")
			found = &l
		case len(found.parts) != len(l.parts):
			return label(n) + " has it meet another of another width"
		}
		for i, p := range l.parts {
			if len(l.parts) == len(found.parts) {
				t.tie(found.parts[i], p)
			}
		}
	}
	if found == nil {
		return ""
	}
	for i, in := range n.Inputs {
		if _, ok := t.lanes[in]; ok || in == "" {
			continue
		}
		if why := t.meets(n, i, *found, rank); why != "" {
			return why
		}
	}
	return t.pass(n, found.axis, found.parts)
}

// meets takes in what a value with parts meets: one element for all, or a constant with
// one each.
func (t *tracer) meets(n *onnx.FileNode, i int, l lane, rank int) (why string) {
	name := n.Inputs[i]
	shape, ok := t.shapes[name]
	if !ok {
		return fmt.Sprintf("it meets %q, whose shape is not known", clip(name))
	}
	axis := l.axis - (rank - len(shape))
	if axis < 0 || shape[axis] == 1 {
		return ""
	}
	w := t.weightOf(n, i, 1)
	if w == nil && shape[axis] == len(l.parts) && t.reshaped(name, axis, l.parts) {
		return ""
	}
	if w == nil || shape[axis] != len(l.parts) {
		return fmt.Sprintf("it meets %q, which has one element each and is no constant of floats", clip(name))
	}
	t.mark(w, axis, l.parts)
	return ""
}

// reshaped takes in a constant of one number each that the graph gives another shape, as
// Paddle's exporter writes biases.
func (t *tracer) reshaped(name string, axis int, parts []int) bool {
	m := t.makers[name]
	if m == nil || m.Domain != "" || !reshapes[m.Op] || t.reads[name] != 1 {
		return false
	}
	w := t.weightOf(m, 0, 1)
	if w == nil || w.Len != len(parts) || m.Op == "Reshape" && t.amendInput(m, 1, axis, parts) != "" {
		return false
	}
	t.lanes[name] = lane{axis, parts}
	t.mark(w, slices.Index(w.Shape, w.Len), parts)
	return true
}

// concat puts parts side by side, or hands them through side by side along another axis.
func (t *tracer) concat(n *onnx.FileNode) (why string) {
	rank := len(t.shapes[n.Outputs[0]])
	axis := int(n.Number("axis", 0))
	if axis < 0 {
		axis += rank
	}
	var all []int
	along := -1
	for _, in := range n.Inputs {
		l, ok := t.lanes[in]
		switch {
		case !ok:
			return label(n) + " puts it beside what has no parts that can go"
		case along >= 0 && l.axis != along:
			return label(n) + " puts it beside another along another axis"
		}
		along = l.axis
		if l.axis == axis {
			all = append(all, l.parts...)
			continue
		}
		if all == nil {
			all = l.parts
		}
		if len(all) != len(l.parts) {
			return label(n) + " does not fit"
		}
		for i, p := range l.parts {
			t.tie(all[i], p)
		}
	}
	return t.pass(n, along, all)
}

func (t *tracer) pool(n *onnx.FileNode, l lane) (why string) {
	if l.axis != 1 {
		return fmt.Sprintf("%s (%s) reads it", label(n), n.Op)
	}
	// Resize takes the sizes of the result as its input 3, all of them.
	if n.Op == "Resize" && len(n.Inputs) > 3 && n.Inputs[3] != "" {
		if _, _, _, ok := n.Attr("axes"); ok {
			return label(n) + " says its axes"
		}
		if why := t.amendInput(n, 3, 1, l.parts); why != "" {
			return why
		}
	}
	return t.pass(n, 1, l.parts)
}

// normalise cuts the numbers of each channel, and remembers how much it makes of one.
func (t *tracer) normalise(n *onnx.FileNode, l lane) (why string) {
	if l.axis != 1 || n.Number("training_mode", 0) != 0 {
		return fmt.Sprintf("%s (%s) reads it", label(n), n.Op)
	}
	for i := range n.Inputs[1:] {
		if w := t.weightOf(n, i+1, 1); w == nil || w.Len != len(l.parts) || len(w.Shape) != 1 {
			return "the numbers of " + label(n) + " are no constants of floats, one each"
		}
	}
	for i := range n.Inputs[1:] {
		t.mark(t.file.Weight(n.Inputs[i+1]), 0, l.parts)
	}
	scale, err := t.file.Weight(n.Inputs[1]).Value()
	if err != nil {
		return err.Error()
	}
	gains, _ := scale.Float64s()
	gains = slices.Clone(gains)
	if n.Op == "BatchNormalization" && len(n.Inputs) == 5 {
		v, err := t.file.Weight(n.Inputs[4]).Value()
		if err != nil {
			return err.Error()
		}
		variances, _ := v.Float64s()
		for i := range gains {
			gains[i] /= math.Sqrt(max(0, variances[i]) + n.Number("epsilon", 1e-5))
		}
	}
	for i, p := range l.parts {
		if _, ok := t.gain[p]; !ok {
			t.gain[p] = math.Abs(gains[i])
		}
	}
	return t.pass(n, 1, l.parts)
}

// reshape follows parts to where the same elements lie: they keep an axis, become part
// of one with what is behind them, or are split into heads of several each.
func (t *tracer) reshape(n *onnx.FileNode, l lane) (why string) {
	from, to := t.shapes[n.Inputs[0]], t.shapes[n.Outputs[0]]
	if l.axis >= len(from) {
		return label(n) + " has no known shape"
	}
	axis, before, lead := -1, 1, 1
	for _, d := range from[:l.axis] {
		lead *= d
	}
	for i, d := range to {
		if before == lead && d > 1 || before == lead && len(l.parts) == 1 {
			axis = i
			break
		}
		before *= d
	}
	if axis < 0 {
		return label(n) + " joins it with what is before it"
	}
	width, parts := to[axis], l.parts
	switch {
	case width == len(l.parts):
	case width > len(l.parts) && behind(from, l.axis, width):
		if width > maxParts {
			return label(n) + " makes too many of it"
		}
		each := width / len(l.parts)
		parts = make([]int, width)
		for i := range parts {
			parts[i] = l.parts[i/each]
		}
	default:
		if axis, parts = t.heads(to, axis, l.parts); axis < 0 {
			return label(n) + " mixes it with others"
		}
	}
	if n.Op == "Reshape" {
		if v := t.integers(n.Inputs[1]); axis < len(v) && v[axis] == 0 && axis != l.axis {
			return label(n) + " takes its length from another axis"
		}
		if why := t.amendInput(n, 1, axis, parts); why != "" {
			return why
		}
	}
	return t.pass(n, axis, parts)
}

// behind tells whether an axis and some of those behind it have width elements together.
func behind(shape []int, axis, width int) bool {
	n := 1
	for _, d := range shape[axis:] {
		if n *= d; n >= width {
			break
		}
	}
	return n == width
}

// heads splits parts into those of axis and the ones behind it. Of two axes the first
// is of heads, whose elements go together; of three the one in the middle, as where
// queries, keys and values come of one product.
func (t *tracer) heads(to []int, axis int, parts []int) (int, []int) {
	end, n := axis, 1
	for end < len(to) && n < len(parts) {
		n *= to[end]
		end++
	}
	if n != len(parts) || end-axis < 2 || end-axis > 3 {
		return -1, nil
	}
	at := end - 2
	size, inner := to[at], to[end-1]
	out := make([]int, size)
	for i := range out {
		out[i] = parts[i*inner]
	}
	for i, p := range parts {
		t.tie(out[i/inner%size], p)
	}
	t.choose(out)
	return at, out
}

func (t *tracer) reduce(n *onnx.FileNode, l lane) (why string) {
	from, to := t.shapes[n.Inputs[0]], t.shapes[n.Outputs[0]]
	axes, _, _, _ := n.Attr("axes")
	if len(n.Inputs) > 1 && n.Inputs[1] != "" {
		if axes = t.integers(n.Inputs[1]); axes == nil {
			return "the axes of " + label(n) + " are no constant"
		}
	}
	axis := l.axis
	for _, a := range axes {
		if a < 0 {
			a += int64(len(from))
		}
		if int(a) < l.axis && len(to) < len(from) {
			axis--
		}
		if int(a) == l.axis {
			axes = nil
			break
		}
	}
	if len(axes) == 0 {
		return label(n) + " reduces it"
	}
	return t.pass(n, axis, l.parts)
}

func (t *tracer) transpose(n *onnx.FileNode, l lane) (why string) {
	perm, _, _, _ := n.Attr("perm")
	axis := len(t.shapes[n.Inputs[0]]) - 1 - l.axis
	if len(perm) > 0 {
		axis = slices.Index(perm, int64(l.axis))
	}
	return t.pass(n, axis, l.parts)
}

// softmax weighs along an axis: what it reads is no part's own size.
func (t *tracer) softmax(n *onnx.FileNode, l lane) (why string) {
	rank := len(t.shapes[n.Inputs[0]])
	def := -1.0
	if t.file.Opset("") < 13 {
		def = 1
	}
	axis := int(n.Number("axis", def))
	if axis < 0 {
		axis += rank
	}
	if axis == l.axis || t.file.Opset("") < 13 && l.axis > axis {
		return label(n) + " (Softmax) weighs one by the others"
	}
	t.weighs(n.Inputs[0])
	return t.pass(n, l.axis, l.parts)
}

// weighs marks what makes the parts of a value as only weighing others.
func (t *tracer) weighs(name string) {
	todo, seen := []string{name}, map[string]bool{}
	for len(todo) > 0 {
		name, todo = todo[len(todo)-1], todo[:len(todo)-1]
		n := t.makers[name]
		if _, ok := t.lanes[name]; !ok || seen[name] || n == nil {
			continue
		}
		seen[name] = true
		if slices.ContainsFunc(t.sources, func(m *source) bool { return m.node == n }) {
			t.behind[n] = true
			continue
		}
		todo = append(todo, n.Inputs...)
	}
}

func (t *tracer) pad(n *onnx.FileNode, l lane) (why string) {
	pads, _, _, _ := n.Attr("pads")
	if len(n.Inputs) > 1 {
		pads = t.integers(n.Inputs[1])
	}
	rank := len(t.shapes[n.Inputs[0]])
	if len(n.Inputs) > 3 || len(pads) != 2*rank || pads[l.axis] != 0 || pads[rank+l.axis] != 0 {
		return label(n) + " (Pad) reads it"
	}
	return t.pass(n, l.axis, l.parts)
}

func (t *tracer) gather(n *onnx.FileNode, l lane) (why string) {
	if len(n.Inputs) < 2 {
		return label(n) + " does not fit"
	}
	if _, ok := t.lanes[n.Inputs[1]]; ok {
		return label(n) + " (Gather) finds by it"
	}
	axis := int(n.Number("axis", 0))
	if axis < 0 {
		axis += len(t.shapes[n.Inputs[0]])
	}
	at, ok := t.shapes[n.Inputs[1]]
	switch {
	case axis == l.axis || !ok:
		return label(n) + " (Gather) picks of it"
	case axis < l.axis:
		return t.pass(n, l.axis-1+len(at), l.parts)
	}
	return t.pass(n, l.axis, l.parts)
}

// split takes parts apart again, or hands them on to each of its results.
func (t *tracer) split(n *onnx.FileNode, l lane) (why string) {
	axis := int(n.Number("axis", 0))
	if axis < 0 {
		axis += len(t.shapes[n.Inputs[0]])
	}
	at := 0
	for i, out := range n.Outputs {
		shape, ok := t.shapes[out]
		if !ok || l.axis >= len(shape) {
			return label(n) + " has results of no known shape"
		}
		width := shape[l.axis]
		if axis != l.axis {
			at = 0
		}
		if at+width > len(l.parts) {
			return label(n) + " does not fit"
		}
		mine := l.parts[at : at+width]
		t.lanes[out] = lane{l.axis, mine}
		at += width
		if axis != l.axis {
			continue
		}
		// Sizes that are not said are the same for all, and so must be what goes.
		switch _, _, _, said := n.Attr("split"); {
		case said:
			return label(n) + " (Split) says its sizes in an attribute"
		case len(n.Inputs) > 1 && n.Inputs[1] != "":
			if why := t.amendInput(n, 1, i, mine); why != "" {
				return why
			}
		default:
			for k, p := range mine {
				t.tie(l.parts[k], p)
			}
		}
	}
	return ""
}

// shape lets the shape of a value be asked, where only other dimensions are taken of it.
func (t *tracer) shape(n *onnx.FileNode, l lane) (why string) {
	rank := len(t.shapes[n.Inputs[0]])
	from, to := int(n.Number("start", 0)), int(n.Number("end", float64(rank)))
	why = fmt.Sprintf("%s (Shape) asks how many there are", label(n))
	if from < 0 {
		from += rank
	}
	if to < 0 {
		to += rank
	}
	out := n.Outputs[0]
	if l.axis < from || l.axis >= to {
		return ""
	}
	if t.reads[out] != t.readsOf(out) {
		return why
	}
	for _, m := range t.readers[out] {
		if m.Domain != "" || !t.elsewhere(m, l.axis-from, to-from) {
			return why
		}
	}
	return ""
}

// elsewhere tells whether a node that reads a shape takes other elements of it than one.
func (t *tracer) elsewhere(n *onnx.FileNode, at, size int) bool {
	switch {
	case n.Op == "Gather" && len(n.Inputs) == 2:
		picked := t.integers(n.Inputs[1])
		for _, i := range picked {
			if i < 0 {
				i += int64(size)
			}
			if int(i) == at {
				return false
			}
		}
		return picked != nil
	case n.Op == "Slice" && (len(n.Inputs) == 3 || len(n.Inputs) == 4):
		from, to := t.integers(n.Inputs[1]), t.integers(n.Inputs[2])
		if len(from) != 1 || len(to) != 1 {
			return false
		}
		a, b := from[0], to[0]
		if a < 0 {
			a += int64(size)
		}
		if b < 0 {
			b += int64(size)
		}
		return int64(at) < a || int64(at) >= b
	}
	return false
}

// integers returns a constant of whole numbers, or nil.
func (t *tracer) integers(name string) []int64 {
	w := t.file.Weight(name)
	if w == nil || w.DType != engine.Int64 && w.DType != engine.Int32 || w.Len > 64 {
		return nil
	}
	v, err := w.Value()
	if err != nil {
		return nil
	}
	if w.DType == engine.Int64 {
		return engine.Data[int64](v)
	}
	var out []int64
	for _, x := range engine.Data[int32](v) {
		out = append(out, int64(x))
	}
	return out
}

// amendInput notes that element at of an input that says a shape tells how many parts
// there are; nothing has to change where it says 0 or -1, which are made of the rest.
func (t *tracer) amendInput(n *onnx.FileNode, input, at int, parts []int) (why string) {
	why = fmt.Sprintf("the shape that %s is given is computed", label(n))
	if input >= len(n.Inputs) {
		return ""
	}
	name := n.Inputs[input]
	if c := t.makers[name]; c != nil && c.Domain == "" && c.Op == "Concat" {
		if t.reads[name] != 1 {
			return why
		}
		for i, in := range c.Inputs {
			shape := t.shapes[in]
			if len(shape) != 1 {
				return why
			}
			if at < shape[0] {
				return t.amendInput(c, i, at, parts)
			}
			at -= shape[0]
		}
		return why
	}
	v := t.integers(name)
	switch {
	case at >= len(v):
		return why
	case v[at] == int64(len(parts)):
		t.amends = append(t.amends, amend{node: n, input: input, at: at, parts: parts})
		return ""
	case v[at] == 0 && n.Number("allowzero", 0) == 0, v[at] == -1:
		return ""
	}
	return fmt.Sprintf("%s is given another shape than it makes", label(n))
}
