package onnx

import (
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/tree"
)

// walker finds out what a graph is for by walking it backwards.
type walker struct{ program *graph.Program }

// passes are the operators that hand their first input on unchanged in meaning.
var passes = map[string]bool{
	"Identity": true, "Cast": true, "Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "ZipMap": true, "Dropout": true,
}

// source walks back over nodes that only pass on, and returns the node that
// makes the value and the value's name.
func (w *walker) source(name string) (*graph.Node, string) {
	for {
		n := w.program.Producer(name)
		if n == nil || !passes[n.Op] {
			return n, name
		}
		name = n.Inputs[0]
	}
}

// classes finds the labels of the classifier whose label or probabilities are an
// output, in the order of the probabilities' columns.
func (w *walker) classes(outputs []string) []string {
	for _, out := range outputs {
		if c := labelsOf(w.program.Producer(out)); c != nil {
			return c
		}
		n, _ := w.source(out)
		if n == nil {
			continue
		}
		if c := labelsOf(n); c != nil {
			return c
		}
		if n.Op == "ArrayFeatureExtractor" {
			// scikit-learn's networks: the labels picked by ArgMax.
			if c := labelTexts(w.program.Constant(n.Inputs[0])); len(c) > 1 {
				return c
			}
		}
	}
	return nil
}

func labelsOf(n *graph.Node) []string {
	if n == nil || n.Op != "ZipMap" && n.Op != graph.OpClassifierOutput && n.Op != graph.OpSVMOutput {
		return nil
	}
	if s := n.Attrs["classlabels_strings"].Strings; len(s) > 0 {
		return s
	}
	var out []string
	for _, v := range append(slices.Clone(n.Attrs["classlabels_int64s"].Ints), n.Attrs["classlabels_ints"].Ints...) {
		out = append(out, strconv.FormatInt(v, 10))
	}
	return out
}

func labelTexts(t *engine.Tensor) []string {
	if t == nil {
		return nil
	}
	if s := engine.Data[string](t); s != nil {
		return s
	}
	v, ok := t.Float64s()
	if !ok {
		return nil
	}
	out := make([]string, len(v))
	for i, f := range v {
		out[i] = strconv.FormatFloat(f, 'g', -1, 64)
	}
	return out
}

// missing reports whether the graph has a place where NaN is a missing value:
// trees whose file says where it goes, or an imputer or a test for NaN.
func (w *walker) missing(g *graph.Graph, producer string) bool {
	for _, n := range g.Nodes {
		switch n.Op {
		case graph.OpTreeScores:
			// Where none is marked, NaN goes to the false branch of every node, but
			// scikit-learn's converter marks none for forests that learned otherwise.
			marks := n.Attrs["nodes_missing_value_tracks_true"].Ints
			if slices.Contains(marks, 1) || len(marks) > 0 && producer != "skl2onnx" {
				return true
			}
		case "Imputer":
			if v := n.Attrs["replaced_value_float"]; v.Float != v.Float {
				return true
			}
		case "IsNaN":
			return true
		case "Equal": // NaN alone is another than itself
			if n.Inputs[0] == n.Inputs[1] {
				return true
			}
		}
	}
	return false
}

// markUnread marks the inputs that no node reads, as converters keep them of columns that were
// dropped.
func markUnread(info *engine.Info, g *graph.Graph) {
	read := map[string]bool{}
	for _, name := range g.Outputs {
		read[name] = true
	}
	noteRead(g, read)
	for i := range info.Inputs {
		info.Inputs[i].Unread = !read[info.Inputs[i].Name]
	}
}

func noteRead(g *graph.Graph, read map[string]bool) {
	for _, n := range g.Nodes {
		for _, name := range n.Inputs {
			read[name] = true
		}
		for _, a := range n.Attrs {
			if a.Graph == nil {
				continue
			}
			for _, name := range a.Graph.Outputs {
				read[name] = true
			}
			noteRead(a.Graph, read)
		}
	}
}

// links are the operators behind a regressor that a tree model's link can be.
var links = map[string]tree.Link{"Sigmoid": tree.LinkSigmoid, "Exp": tree.LinkExp, "Softmax": tree.LinkSoftmax}

// ensemble recognises a graph that is one tree ensemble over its input, or over
// columns each made of one feature, and the output that its margins feed through nothing but a link.
func (w *walker) ensemble(g *graph.Graph, info *engine.Info) (*treeModel, bool) {
	var scores *graph.Node
	for _, n := range g.Nodes {
		if n.Op != graph.OpTreeScores {
			continue
		}
		if scores != nil {
			return nil, false
		}
		scores = n
	}
	if scores == nil || len(info.Features) == 0 {
		return nil, false
	}
	m := &treeModel{}
	width := len(info.Features)
	if len(info.Inputs) != 1 || !w.isInput(scores.Inputs[0], info.Inputs[0].Name) {
		m.columns = scores.Inputs[0]
		if m.features = w.columnsOf(m.columns, info); m.features == nil {
			return nil, false
		}
		width = len(m.features)
	}
	s := w.program.Trees(scores)
	if s == nil || s.Aggregate != "SUM" || s.Ensemble.Features > width {
		return nil, false
	}
	for _, out := range info.Outputs {
		if !out.DType.IsFloat() {
			continue
		}
		if link, ok := w.link(out.Name, scores.Outputs[0]); ok {
			e := *s.Ensemble
			e.Features, e.Link, e.LinkScale, e.Groups = width, link, 1, groups(m.features)
			m.ensemble, m.output = &e, out.Name
			return m, true
		}
	}
	return nil, false
}

// isInput reports whether a value is the graph's input, perhaps cast to another
// float type.
func (w *walker) isInput(name, input string) bool {
	for name != input {
		n := w.program.Producer(name)
		if n == nil || n.Op != "Identity" && n.Op != "Cast" {
			return false
		}
		d, _ := w.program.Type(name)
		if !d.IsFloat() {
			return false
		}
		name = n.Inputs[0]
	}
	return true
}

// link returns the link between margins and an output, when nothing else is
// between them.
func (w *walker) link(output, margin string) (tree.Link, bool) {
	link := tree.LinkIdentity
	name := output
	for name != margin {
		n := w.program.Producer(name)
		if n == nil {
			return "", false
		}
		next, ok := w.nodeLink(n, name)
		if !ok || next != tree.LinkIdentity && link != tree.LinkIdentity {
			return "", false
		}
		if next != tree.LinkIdentity {
			link = next
		}
		name = n.Inputs[0]
	}
	return link, true
}

func (w *walker) nodeLink(n *graph.Node, name string) (tree.Link, bool) {
	if passes[n.Op] {
		d, _ := w.program.Type(name)
		return tree.LinkIdentity, d.IsFloat()
	}
	if l, ok := links[n.Op]; ok {
		return l, true
	}
	if n.Op == "Mul" {
		// onnxmltools ends LightGBM's probabilities with a product by 1.
		return tree.LinkIdentity, w.isOne(n.Inputs[1])
	}
	second := n.Attrs["second_class"].String
	if n.Op == graph.OpClassifierOutput {
		if name != n.Outputs[len(n.Outputs)-1] {
			return "", false
		}
	} else if n.Op != graph.OpPostTransform {
		return "", false
	}
	single := second == graph.SecondMixed || second == graph.SecondPositive
	switch n.Attrs["post_transform"].String {
	case "NONE":
		return tree.LinkIdentity, true
	case "LOGISTIC":
		if single || n.Op == graph.OpPostTransform {
			return tree.LinkSigmoid, true
		}
		return tree.LinkSigmoidEach, true
	case "SOFTMAX":
		if single { // it is not taken
			return tree.LinkIdentity, true
		}
		return tree.LinkSoftmax, true
	}
	return "", false
}

func (w *walker) isOne(name string) bool {
	t := w.program.Constant(name)
	if t == nil || t.Len() != 1 {
		return false
	}
	v, ok := t.Float64s()
	return ok && v[0] == 1
}
