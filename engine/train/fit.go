package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// Fitted is a model that was fitted, and how that went.
type Fitted struct {
	// Model is the file, ONNX where Fit or Tune made it.
	Model []byte
	// Loss and Optimiser are those that were used.
	Loss      Loss
	Optimiser Optimiser
	// Training and Held are the rows that moved weights and those held out, in order.
	Training, Held []int
	// Weights is how many numbers were fitted, Layers names them.
	Weights int
	Layers  []string
	// Epochs were run; Best is the one whose weights were kept, 0 where none was better
	// than the beginning.
	Epochs, Best int
	// TrainingLoss and HeldLoss are the mean losses of the weights kept, without the L2
	// penalty; HeldLoss is NaN where nothing was held out.
	TrainingLoss, HeldLoss float64
	// Tuned says that a network was fitted anew, HeldBefore what its loss over the rows
	// held out was.
	Tuned      bool
	HeldBefore float64
	// Output is the file's output that Measure reads, Margins whether it is what a
	// softmax or a sigmoid is still to be taken of.
	Output  string
	Margins bool
}

// network is a multi-layer perceptron, or with no hidden layer a linear model.
type network struct {
	layout
	widths     []int // of the input, the hidden layers and the output
	activation string
}

func newNetwork(inputs, outputs int, c *Config) (*network, error) {
	n := &network{widths: slices.Concat([]int{inputs}, c.Hidden, []int{outputs}), activation: Activations[c.Activation]}
	for i := range len(n.widths) - 1 {
		if err := n.add(fmt.Sprintf("layer%d.weight", i), true, n.widths[i], n.widths[i+1]); err != nil {
			return nil, err
		}
		if err := n.add(fmt.Sprintf("layer%d.bias", i), false, n.widths[i+1]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// start draws the first weights: those of a linear model are 0; else He's of layers
// before a rectifier and Glorot's of all others, both uniform.
func (n *network) start(seed uint64) []float64 {
	x := make([]float64, n.size)
	if len(n.widths) == 2 {
		return x
	}
	r := rand.New(rand.NewPCG(seed, streamInit))
	for i, p := range n.params {
		if !p.penalised {
			continue
		}
		in, out := float64(p.shape[0]), float64(p.shape[1])
		limit := math.Sqrt(6 / (in + out))
		if last := i/2 == len(n.widths)-2; !last && n.activation != "Tanh" && n.activation != "Sigmoid" {
			limit = math.Sqrt(6 / in)
		}
		for j := p.at; j < p.at+p.n; j++ {
			x[j] = (2*r.Float64() - 1) * limit
		}
	}
	return x
}

// forward adds the layers behind the value x, whose params have the names of the
// layout, and returns the margins' name.
func (n *network) forward(m *maker, x string) string {
	for i := 0; i < len(n.params); i += 2 {
		x = m.op("Gemm", nil, x, n.params[i].name, n.params[i+1].name)
		if i+2 < len(n.params) {
			x = m.op(n.activation, nil, x)
		}
	}
	return x
}

// The names of what a program that fits is given.
const (
	rowsInput   = "rows"
	labelInput  = "labels"
	weightInput = "weights"
)

// Fit fits a model to labelled rows and writes it as ONNX.
func Fit(ctx context.Context, columns []Column, labels *Labels, cfg Config) (*Fitted, error) {
	c, err := cfg.check()
	if err != nil {
		return nil, err
	}
	rows := 0
	if len(columns) > 0 {
		rows = columns[0].len()
	}
	if err := checkColumns(columns, rows); err != nil {
		return nil, err
	}
	if err := labels.check(rows); err != nil {
		return nil, err
	}
	loss, err := labels.lossOf(c.Loss)
	if err == nil {
		c, err = c.choose(loss, len(c.Hidden) == 0)
	}
	if err != nil {
		return nil, err
	}
	training, held, err := labels.split(c.Hold, c.Seed)
	if err == nil {
		err = labels.learnable(training)
	}
	if err != nil {
		return nil, err
	}
	e, err := encode(columns, training)
	if err != nil {
		return nil, err
	}
	outputs := 1
	if loss == CrossEntropy {
		outputs = len(labels.Classes)
	}
	n, err := newNetwork(e.width, outputs, &c)
	if err != nil {
		return nil, err
	}
	f := &Fitted{Loss: loss, Optimiser: c.Optimiser, Training: training, Held: held, Weights: n.size}
	for _, p := range n.params {
		f.Layers = append(f.Layers, p.name)
	}
	s := labels.scaleOf(loss, training)
	o, err := n.objective(e, labels, s, &c)
	if err != nil {
		return nil, err
	}
	x := n.start(c.Seed)
	out, err := descend(ctx, o, c, x, training, held, s.unit(loss))
	if err != nil {
		return nil, err
	}
	f.take(out)
	n.unscale(x, s)
	return f, n.write(f, e, x, labels)
}

func (f *Fitted) take(o outcome) {
	f.Epochs, f.Best, f.TrainingLoss, f.HeldLoss = o.epochs, o.best, o.training, o.held
}

// objective is the network's loss over rows. A linear model's is of 64 bits, so that
// its minimum is found to the last digits of the weights in the file.
func (n *network) objective(e *encoder, labels *Labels, s scale, c *Config) (*objective, error) {
	if len(n.widths) == 2 {
		return n.objectiveOf(engine.Float64, e, labels, s, c)
	}
	e.prepare()
	return n.objectiveOf(engine.Float32, e, labels, s, c)
}

func (n *network) objectiveOf(d engine.DType, e *encoder, labels *Labels, s scale, c *Config) (*objective, error) {
	outputs := n.widths[len(n.widths)-1]
	m := &maker{g: &graph.Graph{Constants: map[string]*engine.Tensor{}}}
	m.g.Inputs = []engine.Spec{
		{Name: rowsInput, DType: d, Shape: []int{-1, e.width}},
		{Name: labelInput, DType: d, Shape: []int{-1, outputs}},
		{Name: weightInput, DType: d, Shape: []int{-1, 1}},
	}
	margins := n.forward(m, rowsInput)
	o := &objective{layout: n.layout, dtype: d, l2: c.L2, threads: c.Threads, maxBytes: c.MaxBytes, total: labels.total}
	o.loss = m.loss(c, d, deltaOf(c, s), margins, labelInput, weightInput)
	o.inputs = func(rows []int) (engine.Values, error) {
		x, err := e.rows(rows, d)
		if err != nil {
			return nil, err
		}
		y, w, err := labels.targets(rows, d, outputs, s)
		return engine.Values{{Name: rowsInput, Tensor: x}, {Name: labelInput, Tensor: y}, {Name: weightInput, Tensor: w}}, err
	}
	return o, o.compile(m)
}

// deltaOf is where Huber's loss turns, in scaled labels.
func deltaOf(c *Config, s scale) float64 {
	if c.Delta == 0 {
		return 1
	}
	return c.Delta / s.deviation
}

// compile makes the program, with the params as inputs.
func (o *objective) compile(m *maker) error {
	if m.err != nil {
		return m.err
	}
	for _, p := range o.params {
		m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: p.name, DType: o.dtype, Shape: p.shape})
	}
	m.g.Outputs = []string{o.loss}
	var err error
	o.program, err = graph.Compile(m.g)
	return err
}

// unscale gives the last layer the unit of the labels.
func (n *network) unscale(x []float64, s scale) {
	weight, bias := n.params[len(n.params)-2], n.params[len(n.params)-1]
	for i := weight.at; i < weight.at+weight.n; i++ {
		x[i] *= s.deviation
	}
	for i := bias.at; i < bias.at+bias.n; i++ {
		x[i] = x[i]*s.deviation + s.mean
	}
}

// write makes the file. Two classes have two margins, of which the first is 0, so that
// the last step is a softmax: a gradient and an explanation find the margin before it.
func (n *network) write(f *Fitted, e *encoder, x []float64, labels *Labels) error {
	for _, v := range x {
		if math.Abs(v) > math.MaxFloat32 || v != v {
			return fmt.Errorf("write the model: a weight is no number of 32 bits: %w", ErrDiverged)
		}
	}
	names := map[string]bool{matrixInput: true}
	for i := range e.columns {
		names[e.columns[i].column.Name] = true
	}
	// No column's name begins with the prefix, nor is one of the outputs.
	prefix := fresh("pellucid/", func(s string) bool { return hasPrefix(names, s) })
	m := &maker{prefix: prefix, g: &graph.Graph{Constants: map[string]*engine.Tensor{}}}
	last := *n
	last.params = slices.Clone(n.params)
	params, err := n.tensors(x, engine.Float32)
	if err != nil {
		return err
	}
	if f.Loss == Logistic {
		if err := twoMargins(params); err != nil {
			return err
		}
	}
	for i := range params {
		last.params[i].name = prefix + params[i].Name
		m.g.Constants[last.params[i].name] = params[i].Tensor
	}
	margins := last.forward(m, e.write(m))
	taken := func(s string) bool { return names[s] }
	made := &onnx.Made{Graph: m.g, Producer: "pellucid", Metadata: map[string]string{"loss": string(f.Loss)}}
	if f.Loss.Classifies() {
		f.Output = fresh("probabilities", taken)
		writeClasses(m, made, margins, fresh("label", taken), f.Output, labels.Classes)
	} else {
		f.Output = fresh("prediction", taken)
		op := "Identity"
		if f.Loss == Poisson {
			op = "Exp"
		}
		m.op(op, nil, margins)
		m.call(f.Output)
		m.g.Outputs = []string{f.Output}
		made.Outputs = []engine.Spec{{Name: f.Output, DType: engine.Float32, Shape: []int{-1, 1}}}
	}
	if m.err != nil {
		return m.err
	}
	if len(m.g.Inputs) == 1 && m.g.Inputs[0].Name == matrixInput && m.g.Inputs[0].DType == engine.Float32 {
		list := make([]string, len(e.columns))
		for i := range e.columns {
			list[i] = e.columns[i].column.Name
		}
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		made.Metadata["feature_names"] = string(text)
	}
	f.Model, err = onnx.Encode(made)
	return err
}

// twoMargins puts a margin of 0 before that of the second class.
func twoMargins(params engine.Values) error {
	for i := len(params) - 2; i < len(params); i++ {
		v := engine.Data[float32](params[i].Tensor)
		shape := slices.Clone(params[i].Tensor.Shape())
		shape[len(shape)-1] = 2
		wide := make([]float32, 0, 2*len(v))
		for _, w := range v {
			wide = append(wide, 0, w)
		}
		t, err := engine.Of(wide, shape...)
		if err != nil {
			return err
		}
		params[i].Tensor = t
	}
	return nil
}

// writeClasses adds the probabilities and the likeliest class's label, whole numbers
// where all labels are.
func writeClasses(m *maker, made *onnx.Made, margins, label, probabilities string, classes []string) {
	m.op("Softmax", graph.Attrs{"axis": integer(1)}, margins)
	m.call(probabilities)
	best := m.op("ArgMax", graph.Attrs{"axis": integer(1), "keepdims": integer(0)}, margins)
	d, list := engine.String, ""
	if numbers := Wholes(classes); numbers != nil {
		d, list = engine.Int64, m.constant(engine.Of(numbers, len(numbers)))
	} else {
		list = m.constant(engine.Of(classes, len(classes)))
	}
	m.op("Reshape", nil, m.ml("ArrayFeatureExtractor", nil, list, best), m.ints(-1))
	m.call(label)
	m.g.Outputs = []string{label, probabilities}
	made.Outputs = []engine.Spec{{Name: label, DType: d, Shape: []int{-1}}, {Name: probabilities, DType: engine.Float32, Shape: []int{-1, len(classes)}}}
}

// Wholes returns classes as whole numbers, nil where one is not written as one.
func Wholes(classes []string) []int64 {
	out := make([]int64, len(classes))
	for i, s := range classes {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strconv.FormatInt(v, 10) != s {
			return nil
		}
		out[i] = v
	}
	return out
}

// fresh lengthens a name until it is not taken.
func fresh(name string, taken func(string) bool) string {
	for taken(name) {
		name += "_"
	}
	return name
}

func hasPrefix(names map[string]bool, prefix string) bool {
	for s := range names {
		if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}
