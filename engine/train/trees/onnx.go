package trees

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/train"
)

// The names of an ONNX file's input and outputs. A classifier has a label and the
// probabilities of the classes, everything else one prediction a row.
const (
	InputName         = "input"
	LabelName         = "label"
	ProbabilitiesName = "probabilities"
	PredictionName    = "prediction"
)

// ensemble collects the lists that ONNX keeps trees as.
type ensemble struct {
	ints   map[string][]int64
	floats map[string][]float32
	modes  []string
	leaf   string // prefix of the leaves' lists
}

// ONNX writes the model as a TreeEnsembleClassifier or TreeEnsembleRegressor, which
// knows splits of one category against all others but no sets: a model with sets is
// refused (see Options.OneVsRest). Unlike XGBoost's, a file of two classes has the
// probabilities of both.
func (m *Model) ONNX() ([]byte, error) {
	classes := map[Loss]int{Logistic: 2, Softmax: m.opt.Classes}[m.opt.Loss]
	e := &ensemble{ints: map[string][]int64{}, floats: map[string][]float32{}, leaf: "target"}
	if classes > 0 {
		e.leaf = "class"
	}
	for t, nodes := range m.trees {
		out := int64(t % m.Outputs())
		if m.opt.Loss == Logistic {
			out = 1
		}
		for i := range nodes {
			if len(nodes[i].set) > 1 {
				return nil, &engine.UnsupportedError{What: "a split by a set of categories in an ONNX file", Reason: "fit with one-vs-rest splits, or write XGBoost's JSON"}
			}
			e.node(t, i, &nodes[i], out)
		}
	}
	base := m.margins
	if m.opt.Loss == Logistic {
		// With a weight of the first class too, runtimes take the two for classes of
		// their own; from one score alone they would make probabilities by rules that
		// depend on the signs of all leaves, and of base values onnxruntime has rules
		// for two classes as well. So the base is a tree that is a single leaf.
		base = nil
		e.node(len(m.trees), 0, &fitted{value: m.margins[0]}, 1)
		e.addLeaf(len(m.trees), 0, 0, 0)
	}
	names, err := json.Marshal(m.names)
	if err != nil {
		return nil, fmt.Errorf("write feature names: %w", err)
	}
	g := &graph.Graph{}
	made := &onnx.Made{Graph: g, Producer: "pellucid", Metadata: map[string]string{}}
	n := &graph.Node{Name: "trees", Domain: graph.DomainML, Attrs: e.attrs(base)}
	name, err := m.inputs(g)
	if err != nil {
		return nil, err
	}
	if len(g.Nodes) == 0 {
		made.Metadata["feature_names"] = string(names)
	}
	n.Inputs = []string{name}
	g.Nodes = append(g.Nodes, n)
	if classes > 0 {
		d := m.classifier(n, classes)
		made.Outputs = []engine.Spec{
			{Name: n.Outputs[0], DType: d, Shape: []int{-1}},
			{Name: n.Outputs[1], DType: engine.Float32, Shape: []int{-1, classes}},
		}
	} else {
		m.regressor(g, n)
		made.Outputs = []engine.Spec{{Name: m.output(PredictionName), DType: engine.Float32, Shape: []int{-1, 1}}}
	}
	for _, s := range made.Outputs {
		g.Outputs = append(g.Outputs, s.Name)
	}
	return onnx.Encode(made)
}

// inputs gives a graph its inputs and returns the name of the matrix that they make:
// they are one matrix, or where categories have names one column a feature, since
// those are text. What is no name that was learnt becomes -1, which is in no set.
func (m *Model) inputs(g *graph.Graph) (string, error) {
	if !m.named() {
		g.Inputs = []engine.Spec{{Name: InputName, DType: engine.Float32, Shape: []int{-1, m.features}}}
		return InputName, nil
	}
	taken := func(s string) bool { return slices.Contains(m.names, s) }
	parts := make([]string, m.features)
	for f, name := range m.names {
		d, names := engine.Float32, m.categories[f]
		if parts[f] = name; names != nil {
			d = engine.String
			keys, codes := append(slices.Clone(names), ""), make([]float32, len(names)+1)
			for i := range names {
				codes[i] = float32(i)
			}
			codes[len(names)] = float32(math.NaN()) // no text is a missing value
			parts[f] = fresh(fmt.Sprintf("code_%d", f), taken)
			g.Nodes = append(g.Nodes, &graph.Node{
				Name: parts[f], Domain: graph.DomainML, Op: "LabelEncoder", Inputs: []string{name}, Outputs: []string{parts[f]},
				Attrs: graph.Attrs{
					"keys_strings":  {Kind: graph.AttrStrings, Strings: keys},
					"values_floats": {Kind: graph.AttrFloats, Floats: codes},
					"default_float": {Kind: graph.AttrFloat, Float: -1},
				},
			})
		}
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: d, Shape: []int{-1, 1}})
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	all := fresh("features", taken)
	g.Nodes = append(g.Nodes, &graph.Node{
		Name: all, Op: "Concat", Inputs: parts, Outputs: []string{all}, Attrs: graph.Attrs{"axis": {Kind: graph.AttrInt, Int: 1}},
	})
	return all, nil
}

// fresh lengthens a name until it is not taken.
func fresh(name string, taken func(string) bool) string {
	for taken(name) {
		name += "_"
	}
	return name
}

// output is the name of an output, which no input of a column may have.
func (m *Model) output(name string) string {
	if !m.named() {
		return name
	}
	return fresh(name, func(s string) bool { return slices.Contains(m.names, s) })
}

// Output is the name of the ONNX file's output of probabilities, or of predictions.
func (m *Model) Output() string {
	if m.opt.Loss == Logistic || m.opt.Loss == Softmax {
		return m.output(ProbabilitiesName)
	}
	return m.output(PredictionName)
}

// classifier makes the label, whose type it returns, and the probabilities.
func (m *Model) classifier(n *graph.Node, classes int) engine.DType {
	n.Op = "TreeEnsembleClassifier"
	n.Outputs = []string{m.output(LabelName), m.output(ProbabilitiesName)}
	n.Attrs["post_transform"] = graph.Attr{Kind: graph.AttrString, String: "SOFTMAX"}
	labels := make([]int64, classes)
	for i := range labels {
		labels[i] = int64(i)
	}
	if m.classes != nil {
		if labels = train.Wholes(m.classes); labels == nil {
			n.Attrs["classlabels_strings"] = graph.Attr{Kind: graph.AttrStrings, Strings: m.classes}
			return engine.String
		}
	}
	n.Attrs["classlabels_int64s"] = graph.Attr{Kind: graph.AttrInts, Ints: labels}
	return engine.Int64
}

// regressor makes the prediction of the margin.
func (m *Model) regressor(g *graph.Graph, n *graph.Node) {
	n.Op = "TreeEnsembleRegressor"
	n.Outputs = []string{m.output(PredictionName)}
	n.Attrs["n_targets"] = graph.Attr{Kind: graph.AttrInt, Int: 1}
	if m.opt.Loss == Poisson {
		n.Outputs = []string{m.output("margin")}
		g.Nodes = append(g.Nodes, &graph.Node{Name: "mean", Op: "Exp", Inputs: n.Outputs, Outputs: []string{m.output(PredictionName)}})
	}
}

func (e *ensemble) node(t, i int, n *fitted, out int64) {
	mode, value, yes, no, missing := "BRANCH_LT", n.threshold, n.left, n.right, n.missingLeft
	switch {
	case n.left == 0:
		mode, value = "LEAF", 0
		e.addLeaf(t, i, out, n.value)
	case n.categorical: // a category in the set goes right
		mode, value, yes, no, missing = "BRANCH_EQ", float32(n.set[0]), n.right, n.left, !n.missingLeft
	}
	tracks := int64(0)
	if missing && n.left != 0 {
		tracks = 1
	}
	e.modes = append(e.modes, mode)
	e.floats["nodes_values"] = append(e.floats["nodes_values"], value)
	for name, v := range map[string]int64{
		"nodes_treeids": int64(t), "nodes_nodeids": int64(i), "nodes_featureids": int64(n.feature),
		"nodes_truenodeids": int64(yes), "nodes_falsenodeids": int64(no), "nodes_missing_value_tracks_true": tracks,
	} {
		e.ints[name] = append(e.ints[name], v)
	}
}

func (e *ensemble) addLeaf(t, i int, out int64, weight float32) {
	e.floats[e.leaf+"_weights"] = append(e.floats[e.leaf+"_weights"], weight)
	for name, v := range map[string]int64{"_treeids": int64(t), "_nodeids": int64(i), "_ids": out} {
		e.ints[e.leaf+name] = append(e.ints[e.leaf+name], v)
	}
}

func (e *ensemble) attrs(base []float32) graph.Attrs {
	a := graph.Attrs{
		"nodes_modes": {Kind: graph.AttrStrings, Strings: e.modes},
	}
	if base != nil {
		a["base_values"] = graph.Attr{Kind: graph.AttrFloats, Floats: base}
	}
	for name, v := range e.ints {
		a[name] = graph.Attr{Kind: graph.AttrInts, Ints: v}
	}
	for name, v := range e.floats {
		a[name] = graph.Attr{Kind: graph.AttrFloats, Floats: v}
	}
	return a
}
