package calibrate

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// The names of a standalone file's input and output.
const (
	InputName  = "score"
	OutputName = "calibrated"
)

// The numbers of element types in ONNX.
const (
	floatONNX  = 1
	doubleONNX = 11
)

// leastOpset is the first in which axes are inputs.
const leastOpset = 13

// ONNX writes the calibrator as a model of its own, from scores [N] of one class or
// [N, K] of more to as many probabilities, both FP32.
func (c *Calibrator) ONNX() ([]byte, error) {
	shape := []int{-1}
	if c.classes > 1 {
		shape = []int{-1, c.classes}
	}
	g := &graph.Graph{Inputs: []engine.Spec{{Name: InputName, DType: engine.Float32, Shape: shape}}, Outputs: []string{OutputName}}
	w := writer{fresh: func(name string) string { return name }, constants: map[string]*engine.Tensor{}, names: map[string]int{}}
	if err := w.write(c, InputName, OutputName); err != nil {
		return nil, fmt.Errorf("write calibration: %w", err)
	}
	g.Nodes, g.Constants = w.nodes, w.constants
	return onnx.Encode(&onnx.Made{
		Graph: g, Producer: "pellucid",
		Outputs: []engine.Spec{{Name: OutputName, DType: engine.Float32, Shape: shape}},
	})
}

// Append writes the ONNX model in data with the calibrator behind the output called
// output, which is of [N] or [N, 1] scores of one class or [N, K] of more, and returns
// the name of the output that stands in its place. An output of labels is made anew, under
// its own name: that of the largest calibrated score. Where that cannot be, its name is
// returned as stays, with why: it says what the scores before calibration do.
func (c *Calibrator) Append(data []byte, output string) (file []byte, name, stays string, err error) {
	f, err := onnx.Edit(data, "")
	if err != nil {
		return nil, "", "", err
	}
	if v := f.Opset(""); v < leastOpset {
		return nil, "", "", &engine.UnsupportedError{What: "calibration behind a model", Version: fmt.Sprint(v), Reason: fmt.Sprintf("its operator set is before %d", leastOpset)}
	}
	m, err := onnx.Read(data, "")
	if err != nil {
		return nil, "", "", err
	}
	shape := []int{-1}
	for _, s := range m.Info().Outputs {
		if s.Name == output {
			shape = s.Shape
		}
	}
	if c.classes > 1 && (len(shape) != 2 || shape[1] >= 0 && shape[1] != c.classes) {
		return nil, "", "", fmt.Errorf("output %q is of shape %v, not of %d classes", output, shape, c.classes)
	}
	if len(shape) == 2 && shape[1] > 1 && c.classes == 1 {
		return nil, "", "", fmt.Errorf("output %q is of shape %v, not of one score a row", output, shape)
	}
	name = f.Fresh(output + "_" + OutputName)
	w := writer{fresh: f.Fresh, constants: map[string]*engine.Tensor{}, names: map[string]int{}}
	if err := w.write(c, output, name); err != nil {
		return nil, "", "", fmt.Errorf("write calibration: %w", err)
	}
	if stays, err = w.label(f, m.Info(), c.classes, output, name); err != nil {
		return nil, "", "", fmt.Errorf("write labels: %w", err)
	}
	if err := f.Append(w.nodes, w.constants, output, engine.Spec{Name: name, DType: engine.Float32, Shape: shape}); err != nil {
		return nil, "", "", err
	}
	if file, err = f.Bytes(); err != nil {
		return nil, "", "", err
	}
	if _, err := onnx.Read(file, ""); err != nil {
		return nil, "", "", fmt.Errorf("read what was written: %w", err)
	}
	return file, name, stays, nil
}

// label makes the output of labels, where there is one, of the calibrated scores: the node
// that made it gives it another name.
func (w *writer) label(f *onnx.File, info *engine.Info, classes int, scores, calibrated string) (stays string, err error) {
	var label *engine.Spec
	for i := range info.Outputs {
		if o := &info.Outputs[i]; o.Name != scores && (o.DType == engine.Int64 || o.DType == engine.String) && len(o.Shape) == 1 {
			if label != nil {
				return label.Name + " and " + o.Name + ", of which one may be the label", nil
			}
			label = o
		}
	}
	switch {
	case label == nil:
		return "", nil
	case len(info.Classes) != classes || classes < 2:
		return label.Name + ", since the file does not say which class each score is of", nil
	case f.Readers()[label.Name] != 1:
		return label.Name + ", which other nodes read", nil
	}
	list := ""
	if label.DType == engine.String {
		t, err := engine.Of(info.Classes, classes)
		if err != nil {
			return "", err
		}
		list = w.name("constant")
		w.constants[list] = t
	} else {
		numbers := make([]int64, classes)
		for i, s := range info.Classes {
			if numbers[i], err = strconv.ParseInt(s, 10, 64); err != nil {
				return label.Name + ", since a class is no whole number", nil
			}
		}
		list = constant(w, numbers, classes)
	}
	for _, n := range f.Nodes() {
		at := slices.Index(n.Outputs, label.Name)
		if at < 0 {
			continue
		}
		if err := f.SetOutput(n, at, f.Fresh(label.Name+"_uncalibrated")); err != nil {
			return "", err
		}
		best := w.op("ArgMax", graph.Attrs{"axis": {Kind: graph.AttrInt, Int: 1}, "keepdims": {Kind: graph.AttrInt}}, calibrated)
		w.op("Gather", integer("axis", 0), list, best)
		w.nodes[len(w.nodes)-1].Outputs[0] = label.Name
		return "", w.err
	}
	return label.Name + ", which no node makes", nil
}

// writer collects nodes that compute in float64.
type writer struct {
	nodes     []*graph.Node
	constants map[string]*engine.Tensor
	fresh     func(string) string
	names     map[string]int
	err       error
}

func (w *writer) name(base string) string {
	w.names[base]++
	return w.fresh(fmt.Sprintf("calibrate_%s_%d", base, w.names[base]))
}

// op adds a node of one output and returns its name.
func (w *writer) op(op string, attrs graph.Attrs, in ...string) string {
	out := w.name(op)
	w.nodes = append(w.nodes, &graph.Node{Name: out, Op: op, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// constant keeps values of a shape; none is a scalar.
func constant[T float64 | int64](w *writer, v []T, shape ...int) string {
	t, err := engine.Of(v, shape...)
	if err != nil && w.err == nil {
		w.err = err
	}
	name := w.name("constant")
	w.constants[name] = t
	return name
}

func integer(name string, v int64) graph.Attrs {
	return graph.Attrs{name: {Kind: graph.AttrInt, Int: v}}
}

func (w *writer) write(c *Calibrator, from, to string) error {
	x := c.odds.write(w, w.op("Cast", integer("to", doubleONNX), from))
	switch {
	case c.inverse != 0:
		x = w.op("Softmax", integer("axis", 1), w.op("Mul", nil, x, constant(w, []float64{c.inverse})))
	case c.classes == 1:
		x = w.single(c, 0, x)
	default:
		x = w.each(c, x)
	}
	w.nodes = append(w.nodes, &graph.Node{Name: w.name("Cast"), Op: "Cast", Inputs: []string{x}, Outputs: []string{to}, Attrs: integer("to", floatONNX)})
	return w.err
}

// each maps the columns of x and puts them together.
func (w *writer) each(c *Calibrator, x string) string {
	axis := constant(w, []int64{1}, 1)
	column := func(i, k int) string {
		one := w.op("Gather", integer("axis", 1), x, constant(w, []int64{int64(k)}))
		return w.op("Unsqueeze", nil, w.single(c, i, one), axis)
	}
	if c.classes == 2 {
		p := column(0, 1)
		return w.op("Concat", integer("axis", 1), w.op("Sub", nil, constant(w, []float64{1}), p), p)
	}
	var columns []string
	for k := range c.classes {
		columns = append(columns, column(k, k))
	}
	all := w.op("Concat", integer("axis", 1), columns...)
	sum := w.op("ReduceSum", integer("keepdims", 1), all, axis)
	none := w.op("Equal", nil, sum, constant(w, []float64{0}))
	return w.op("Where", nil, none, constant(w, []float64{1 / float64(c.classes)}), w.op("Div", nil, all, sum))
}

// single maps a score of any shape.
func (w *writer) single(c *Calibrator, i int, x string) string {
	if c.curves == nil {
		s := c.slopes[i]
		z := w.op("Add", nil, w.op("Mul", nil, x, constant(w, []float64{-s.A})), constant(w, []float64{-s.B}))
		return w.op("Sigmoid", nil, z)
	}
	// Each step between two points adds the share of it that x is above the first.
	curve := c.curves[i]
	n := len(curve.X) - 1
	base := constant(w, []float64{curve.Y[0]})
	if n == 0 {
		return w.op("Add", nil, w.op("Mul", nil, x, constant(w, []float64{0})), base)
	}
	width, rise := make([]float64, n), make([]float64, n)
	for j := range n {
		width[j], rise[j] = curve.X[j+1]-curve.X[j], curve.Y[j+1]-curve.Y[j]
	}
	last := constant(w, []int64{-1}, 1)
	above := w.op("Sub", nil, w.op("Unsqueeze", nil, x, last), constant(w, curve.X[:n], n))
	share := w.op("Div", nil, above, constant(w, width, n))
	share = w.op("Min", nil, w.op("Max", nil, share, constant(w, []float64{0})), constant(w, []float64{1}))
	return w.op("Add", nil, w.op("MatMul", nil, share, constant(w, rise, n)), base)
}
