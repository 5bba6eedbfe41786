package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// Network is an ONNX network whose dense layers can be fitted anew.
type Network struct {
	// Info is what the network says of itself.
	Info *engine.Info
	// Loss is the one its last step is made for: of a softmax, cross_entropy, of a
	// sigmoid logistic, of an exponential poisson. It is "" where the output is what the
	// last layer gives, and any loss may be meant.
	Loss Loss
	// Output is the output that is fitted, Width its number of margins.
	Output string
	Width  int

	file    *onnx.File
	graph   *graph.Graph
	program *graph.Program
	margins string
	dense   []dense // from the last
}

// dense is a layer x W + b.
type dense struct {
	input        string
	weight, bias string // bias may be ""
	width        int
}

// Open takes an ONNX network apart; dir is the folder of its external data. It refuses
// one without a dense layer whose weights it holds.
func Open(data []byte, dir string) (*Network, error) {
	m, err := onnx.Read(data, dir)
	if err != nil {
		return nil, err
	}
	n := &Network{Info: m.Info()}
	if n.graph, err = onnx.ReadGraph(data, dir); err != nil {
		return nil, err
	}
	if n.program, err = graph.Compile(n.graph); err != nil {
		return nil, err
	}
	if n.file, err = onnx.Edit(data, dir); err != nil {
		return nil, err
	}
	for _, s := range n.Info.Outputs {
		if s.DType == engine.Float32 || s.DType == engine.Float64 {
			n.Output = s.Name
		}
	}
	if n.Output == "" {
		return nil, errors.New("fit a network anew: it has no output of 32 or 64-bit numbers")
	}
	n.findMargins()
	n.findDense()
	if len(n.dense) == 0 {
		return nil, fmt.Errorf("fit a network anew: before output %q is no dense layer (Gemm, or MatMul with Add) whose weights are 32 or 64-bit initialisers that nothing else reads", n.Output)
	}
	n.Width = n.dense[0].width
	return n, nil
}

// Classes names the classes in the order of the margins: as the file does, else by
// number.
func (n *Network) Classes() []string {
	if len(n.Info.Classes) > 0 {
		return n.Info.Classes
	}
	out := make([]string, max(n.Width, 2))
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

// findMargins walks back from the output to what the last sigmoid, softmax or
// exponential is taken of.
func (n *Network) findMargins() {
	n.margins = n.Output
	name := n.Output
	for {
		p := n.program.Producer(name)
		if p == nil {
			return
		}
		switch p.Op {
		case "Softmax", "LogSoftmax":
			n.Loss, n.margins = CrossEntropy, p.Inputs[0]
			return
		case "Sigmoid":
			n.Loss, n.margins = Logistic, p.Inputs[0]
			return
		case "Exp":
			n.Loss, n.margins = Poisson, p.Inputs[0]
			return
		case "Identity", "Cast", "Dropout", "ZipMap", "Reshape", "Flatten", "Squeeze", "Unsqueeze":
			name = p.Inputs[0]
		case "Concat": // 1-p and p, as scikit-learn's converter writes two classes
			name = p.Inputs[len(p.Inputs)-1]
		default:
			return
		}
	}
}

// findDense lists the dense layers on the way to the margins, from the last.
func (n *Network) findDense() {
	reads := n.file.Readers()
	readers := map[string][]*graph.Node{}
	for _, node := range n.graph.Nodes {
		for _, in := range node.Inputs {
			readers[in] = append(readers[in], node)
		}
	}
	nodes, _ := n.before(n.margins, "")
	slices.Reverse(nodes)
	for _, node := range nodes {
		if node.Op != "Gemm" && node.Op != "MatMul" || node.Domain != graph.DomainONNX || node.Attrs["transA"].Int != 0 {
			continue
		}
		w := n.program.Constant(node.Inputs[1])
		if !n.tunable(node.Inputs[1], reads) || len(w.Shape()) != 2 {
			continue
		}
		d := dense{input: node.Inputs[0], weight: node.Inputs[1], width: w.Shape()[1]}
		if node.Attrs["transB"].Int != 0 {
			d.width = w.Shape()[0]
		}
		switch next := readers[node.Outputs[0]]; {
		case node.Op == "Gemm" && len(node.Inputs) > 2:
			d.bias = node.Inputs[2]
		case node.Op == "MatMul" && len(next) == 1 && next[0].Op == "Add" && reads[node.Outputs[0]] == 1:
			d.bias = next[0].Inputs[0]
			if d.bias == node.Outputs[0] {
				d.bias = next[0].Inputs[1]
			}
		}
		if d.bias != "" && !n.tunable(d.bias, reads) {
			d.bias = ""
		}
		n.dense = append(n.dense, d)
	}
}

// tunable reports whether a value is a tensor of the file that one node reads.
func (n *Network) tunable(name string, reads map[string]int) bool {
	t := n.program.Constant(name)
	return t != nil && n.file.Weight(name) != nil && reads[name] == 1 && (t.DType() == engine.Float32 || t.DType() == engine.Float64)
}

// before returns the nodes that a value is made by, in order, as far back as the value
// cut, and whether they read an input of the network.
func (n *Network) before(name, cut string) (nodes []*graph.Node, fromInput bool) {
	wanted := map[string]bool{name: true}
	made := map[string]bool{}
	// The program's order is not the file's: go round until nothing is added.
	for again := true; again; {
		again = false
		for v := range wanted {
			if made[v] || v == cut {
				continue
			}
			made[v] = true
			p := n.program.Producer(v)
			if p == nil {
				continue
			}
			for _, in := range p.Inputs {
				again = again || in != "" && !wanted[in]
				wanted[in] = true
			}
		}
	}
	for _, node := range n.graph.Nodes {
		if slices.ContainsFunc(node.Outputs, func(o string) bool { return o != "" && o != cut && wanted[o] }) {
			nodes = append(nodes, node)
		}
	}
	for _, s := range n.graph.Inputs {
		fromInput = fromInput || wanted[s.Name] && s.Name != cut
	}
	return nodes, fromInput
}

// linearOps are the nodes that leave a loss behind them convex in a layer before them.
var linearOps = []string{"Gemm", "MatMul", "Add", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}

// tuning is one fit of a network's layers.
type tuning struct {
	*Network
	layout
	cfg    Config
	labels *Labels
	nodes  []*graph.Node
	// rows is what the nodes are given of each row: the network's inputs, or the value
	// that the first layer fitted reads, computed once.
	rows engine.Values
	// cut is the name of that value, "" for the network's inputs.
	cut string
	// dtype is the params'; wide says that they are fitted in 64 bits.
	dtype engine.DType
	wide  bool
}

// Tune fits the last dense layers anew to labelled rows, canonical inputs of the network
// (engine.Bind), and writes the network with them. All else in the file stays as it is.
func (n *Network) Tune(ctx context.Context, in engine.Values, labels *Labels, cfg Config) (*Fitted, error) {
	c, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if len(in) == 0 {
		return nil, errors.New("fit a network anew: it is given no input")
	}
	if err := labels.check(in[0].Tensor.Rows()); err != nil {
		return nil, err
	}
	if len(c.Hidden) > 0 {
		return nil, errors.New("fit a network anew: its layers are what they are, hidden ones cannot be given")
	}
	if c.Loss, err = n.lossFor(c.Loss, labels); err != nil {
		return nil, err
	}
	t := &tuning{Network: n, cfg: c, labels: labels, rows: in}
	x, err := t.pick()
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
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	if t.cfg, err = c.choose(c.Loss, t.wide); err != nil {
		return nil, err
	}
	o, err := t.objective()
	if err != nil {
		return nil, err
	}
	before, err := measure(ctx, o, x, held)
	if err != nil {
		return nil, fmt.Errorf("the network as it is, over the rows held out: %w", err)
	}
	out, err := descend(ctx, o, t.cfg, x, training, held, 1)
	if err != nil {
		return nil, err
	}
	f := &Fitted{
		Loss: c.Loss, Optimiser: t.cfg.Optimiser, Training: training, Held: held, Weights: t.size,
		Output: n.Output, Margins: n.Loss == "", HeldBefore: before, Tuned: true,
	}
	f.take(out)
	return f, t.write(f, x)
}

// lossFor is the loss of the network's last step, which labels have to be of.
func (n *Network) lossFor(asked Loss, labels *Labels) (Loss, error) {
	loss := n.Loss
	switch {
	case loss == "" && asked == "" && labels.Class != nil && n.Width > 1:
		loss = CrossEntropy
	case loss == "":
		var err error
		if loss, err = labels.lossOf(asked); err != nil {
			return "", err
		}
	case asked != "" && asked != loss:
		return "", fmt.Errorf("output %q ends in what loss %s is of, not %s", n.Output, loss, asked)
	}
	if loss.Classifies() != (labels.Class != nil) {
		return "", fmt.Errorf("output %q is for loss %s, and the labels are %s", n.Output, loss, map[bool]string{true: "classes", false: "numbers"}[labels.Class != nil])
	}
	want := 1
	if loss == CrossEntropy {
		want = len(labels.Classes)
	}
	if n.Width != want || loss == Logistic && len(labels.Classes) != 2 {
		return "", fmt.Errorf("output %q has %d margins, and loss %s of these labels %d", n.Output, n.Width, loss, want)
	}
	return loss, nil
}

// pick lays out the layers to be fitted and returns what they are.
func (t *tuning) pick() ([]float64, error) {
	k := orElse(t.cfg.Layers, 1)
	if k < 0 {
		k = len(t.dense)
	}
	if k > len(t.dense) {
		return nil, fmt.Errorf("fit %d dense layers anew: the network has %d", k, len(t.dense))
	}
	var x []float64
	for _, d := range t.dense[:k] {
		for i, name := range []string{d.weight, d.bias} {
			if name == "" {
				continue
			}
			v := t.program.Constant(name)
			if t.dtype == engine.Invalid {
				t.dtype = v.DType()
			}
			if v.DType() != t.dtype {
				return nil, fmt.Errorf("fit a network anew: %q is %s, and other weights %s", name, v.DType(), t.dtype)
			}
			wide, _ := v.Float64s()
			x = append(x, wide...)
			if err := t.add(name, i == 0, v.Shape()...); err != nil {
				return nil, err
			}
		}
	}
	return x, nil
}

// maxKept bounds the values that are computed once and kept.
const maxKept = 2 << 30

// prepare finds the nodes that are to run at each step. What is before the first layer
// fitted does not change, so it is computed once, unless something else behind it reads
// the network's inputs too or it would take too much memory.
func (t *tuning) prepare(ctx context.Context) error {
	first := t.dense[0]
	for _, d := range t.dense {
		if t.has(d.weight) {
			first = d
		}
	}
	nodes, fromInput := t.before(t.margins, first.input)
	if !fromInput {
		kept, err := t.compute(ctx, first.input)
		if err != nil {
			return err
		}
		if kept != nil {
			t.rows, t.cut, t.nodes = engine.Values{{Name: first.input, Tensor: kept}}, first.input, nodes
			t.wide = t.dtype == engine.Float32 && kept.DType() == engine.Float32 && t.layers() == 1 && !slices.ContainsFunc(nodes, func(n *graph.Node) bool {
				return !slices.Contains(linearOps, n.Op)
			})
			return nil
		}
	}
	t.nodes, _ = t.before(t.margins, "")
	return nil
}

func (t *tuning) has(name string) bool {
	return slices.ContainsFunc(t.params, func(p param) bool { return p.name == name })
}

func (t *tuning) layers() int {
	n := 0
	for _, p := range t.params {
		if p.penalised {
			n++
		}
	}
	return n
}

// compute returns a value of all rows, nil where it is too large to keep.
func (t *tuning) compute(ctx context.Context, name string) (*engine.Tensor, error) {
	if t.program.Producer(name) == nil { // an input
		for _, v := range t.rows {
			if v.Name == name {
				return v.Tensor, nil
			}
		}
	}
	n := t.rows[0].Tensor.Rows()
	var all []float32
	var shape []int
	opt := graph.Options{MaxBytes: t.cfg.MaxBytes, Threads: t.cfg.Threads}
	for from := 0; from < n; from += measured {
		some, err := t.rows.Slice(from, min(from+measured, n))
		if err != nil {
			return nil, err
		}
		run, err := t.program.Run(ctx, opt, some, []string{name})
		if err != nil {
			return nil, err
		}
		v := run.Value(name)
		data := engine.Data[float32](v)
		if data == nil || v.Rows() != some[0].Tensor.Rows() || shape != nil && !slices.Equal(shape, v.Shape()[1:]) || int64(n)*int64(v.RowLen())*4 > maxKept {
			return nil, nil
		}
		shape = slices.Clone(v.Shape()[1:])
		all = append(all, data...)
	}
	return engine.Of(all, append([]int{n}, shape...)...)
}

// objective is the loss of the nodes over rows.
func (t *tuning) objective() (*objective, error) {
	taken := map[string]bool{}
	for _, n := range t.graph.Nodes {
		for _, name := range slices.Concat(n.Inputs, n.Outputs) {
			taken[name] = true
		}
	}
	for _, s := range t.graph.Inputs {
		taken[s.Name] = true
	}
	prefix := fresh("pellucid/", func(s string) bool { return hasPrefix(taken, s) })
	d := t.dtype
	if t.wide {
		d = engine.Float64
	}
	// A weight may stand in a Constant node.
	nodes := slices.DeleteFunc(slices.Clone(t.nodes), func(n *graph.Node) bool { return t.has(n.Outputs[0]) })
	m := &maker{prefix: prefix, g: &graph.Graph{Nodes: nodes, Constants: map[string]*engine.Tensor{}}}
	if err := t.constants(m.g.Constants); err != nil {
		return nil, err
	}
	for _, v := range t.rows {
		in := v.Tensor.DType()
		if t.wide {
			in = engine.Float64
		}
		m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: v.Name, DType: in})
	}
	m.g.Inputs = append(m.g.Inputs, engine.Spec{Name: prefix + labelInput, DType: d}, engine.Spec{Name: prefix + weightInput, DType: d})
	margins := m.op("Reshape", nil, t.margins, m.ints(-1, int64(t.Width)))
	o := &objective{layout: t.layout, dtype: d, l2: t.cfg.L2, threads: t.cfg.Threads, maxBytes: t.cfg.MaxBytes, total: t.labels.total}
	o.loss = m.loss(&t.cfg, d, orElse(t.cfg.Delta, 1), margins, prefix+labelInput, prefix+weightInput)
	o.inputs = func(rows []int) (engine.Values, error) {
		in, err := take(t.rows, rows)
		if err != nil {
			return nil, err
		}
		if t.wide {
			v, _ := in[0].Tensor.Float64s()
			if in[0].Tensor, err = engine.Of(v, in[0].Tensor.Shape()...); err != nil {
				return nil, err
			}
		}
		y, w, err := t.labels.targets(rows, d, t.Width, noScale)
		return append(in, engine.Named{Name: prefix + labelInput, Tensor: y}, engine.Named{Name: prefix + weightInput, Tensor: w}), err
	}
	return o, o.compile(m)
}

// constants copies those that the nodes read and that are not fitted.
func (t *tuning) constants(into map[string]*engine.Tensor) error {
	for _, n := range t.nodes {
		for _, name := range n.Inputs {
			v := t.graph.Constants[name]
			if v == nil || t.has(name) {
				continue
			}
			if t.wide && v.DType() == engine.Float32 {
				wide, _ := v.Float64s()
				var err error
				if v, err = engine.Of(wide, v.Shape()...); err != nil {
					return err
				}
			}
			into[name] = v
		}
	}
	return nil
}

// write puts the fitted weights in the file.
func (t *tuning) write(f *Fitted, x []float64) error {
	for _, v := range x {
		if v != v || math.Abs(v) > math.MaxFloat32 {
			return fmt.Errorf("write the network: a weight is no number of 32 bits: %w", ErrDiverged)
		}
	}
	fitted, err := t.tensors(x, t.dtype)
	if err != nil {
		return err
	}
	for _, v := range fitted {
		f.Layers = append(f.Layers, v.Name)
		if err := t.file.Replace(t.file.Weight(v.Name), v.Tensor); err != nil {
			return err
		}
	}
	f.Model, err = t.file.Bytes()
	return err
}
