package onnx

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// The operator sets the reader takes. A version below 7 is what converters write
// for graphs whose few operators have not changed since; an operator that has is
// refused by name, as are those of later sets that the engine does not know.
const (
	minOpset   = 1
	maxOpset   = 28
	maxOpsetML = 5
)

// Read decodes an ONNX model. dir is the folder that holds the model's external
// data, or "" where there is none. The model is also a tree.Holder where its
// graph is one tree ensemble over its feature matrix, and its sessions are
// engine.Differentiators.
//
// What the engine cannot run exactly is refused: an *engine.UnsupportedError
// names the operator, the operator set and the node.
//
// The model holds graph.DefaultHeld bytes at most.
func Read(data []byte, dir string) (engine.Model, error) {
	return ReadWithin(data, dir, graph.DefaultHeld)
}

// ReadWithin is Read for a model that may hold so many bytes, its weights in the forms
// that they are laid out in counted.
func ReadWithin(data []byte, dir string, limit int64) (engine.Model, error) {
	p, g, err := readGraph(data, dir, false)
	if err != nil {
		return nil, err
	}
	return compile(p, g, limit)
}

// Take is ReadWithin for data that nobody else uses from then on, whatever it returns: the
// model's weights lie in it where they can, and some of it is moved for that.
func Take(data []byte, dir string, limit int64) (engine.Model, error) {
	p, g, err := readGraph(data, dir, true)
	if err != nil {
		return nil, err
	}
	return compile(p, g, limit)
}

func compile(p *modelProto, g *graph.Graph, limit int64) (engine.Model, error) {
	program, err := graph.CompileWithin(g, limit)
	if err != nil {
		return nil, fmt.Errorf("compile ONNX graph: %w", err)
	}
	return newModel(p, g, program)
}

// ReadGraph decodes an ONNX model into a graph that is not compiled yet, so that it
// can be changed first: engine/train makes inputs of its weights.
func ReadGraph(data []byte, dir string) (*graph.Graph, error) {
	_, g, err := readGraph(data, dir, false)
	return g, err
}

func readGraph(data []byte, dir string, owned bool) (*modelProto, *graph.Graph, error) {
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("a model of %d bytes: %w", len(data), engine.ErrTooLarge)
	}
	p, err := decodeModel(data)
	if err != nil {
		return nil, nil, fmt.Errorf("decode ONNX model: %w", err)
	}
	if err := p.checkOpsets(); err != nil {
		return nil, nil, err
	}
	if owned {
		p.own(len(data))
	}
	g, err := p.convert(dir)
	return p, g, err
}

func (p *modelProto) checkOpsets() error {
	v, ok := p.opsets[graph.DomainONNX]
	if len(p.opsets) == 0 {
		return corrupt("the model imports no operator set")
	}
	if ok && (v < minOpset || v > maxOpset) {
		return &engine.UnsupportedError{What: "operator set ai.onnx", Version: fmt.Sprint(v), Reason: fmt.Sprintf("the engine has %d to %d", minOpset, maxOpset)}
	}
	for _, fn := range p.functions {
		if v := fn.opsets[graph.DomainONNX]; v > maxOpset {
			return &engine.UnsupportedError{What: fmt.Sprintf("operator set ai.onnx of function %q", fn.id.name), Version: fmt.Sprint(v), Reason: fmt.Sprintf("the engine has %d to %d", minOpset, maxOpset)}
		}
	}
	if v := p.opsets[graph.DomainML]; v > maxOpsetML {
		return &engine.UnsupportedError{What: "operator set ai.onnx.ml", Version: fmt.Sprint(v), Reason: fmt.Sprintf("the engine has 1 to %d", maxOpsetML)}
	}
	return nil
}

// convert turns the decoded graph into an engine graph.
func (p *modelProto) convert(dir string) (*graph.Graph, error) {
	g, err := p.convertGraph(p.graph, scope{opsets: p.opsets}, dir)
	if err != nil {
		return nil, err
	}
	for _, v := range p.graph.inputs {
		if _, constant := g.Constants[v.name]; constant {
			continue
		}
		if v.kind == "sequence" && v.inner == "tensor" {
			g.Inputs = append(g.Inputs, engine.Spec{Name: v.name, DType: engine.Sequence, Shape: []int{-1}})
			continue
		}
		if v.kind == "optional" && (v.inner == "tensor" || v.inner == "sequence") {
			g.Inputs = append(g.Inputs, engine.Spec{Name: v.name, DType: engine.Nothing})
			continue
		}
		if v.kind == "map" {
			spec, err := p.takeMap(v, g)
			if err != nil {
				return nil, err
			}
			g.Inputs = append(g.Inputs, spec)
			continue
		}
		d := graph.TypeOfONNX(v.dtype)
		if v.kind != "tensor" || d == engine.Invalid {
			return nil, &engine.UnsupportedError{What: fmt.Sprintf("input %q: a %s of %s", v.name, v.kind, typeName(v.dtype))}
		}
		g.Inputs = append(g.Inputs, engine.Spec{Name: v.name, DType: d, Shape: v.shape})
	}
	p.splitSequences(g)
	return g, p.checkOutputs()
}

// convertGraph turns a graph without its inputs, which the caller adds.
func (p *modelProto) convertGraph(from *graphProto, at scope, dir string) (*graph.Graph, error) {
	g := &graph.Graph{Constants: map[string]*engine.Tensor{}}
	for _, t := range from.initializers {
		if _, dup := g.Constants[t.name]; dup || t.name == "" {
			return nil, corrupt("initializer %q is defined twice or has no name", t.name)
		}
		v, err := t.tensor(dir)
		if err != nil {
			return nil, err
		}
		g.Constants[t.name] = v
	}
	for _, t := range from.sparse {
		name := ""
		if t.values != nil {
			name = t.values.name
		}
		if _, dup := g.Constants[name]; dup || name == "" {
			return nil, corrupt("sparse initializer %q is defined twice or has no name", name)
		}
		v, err := p.writtenOut(t, dir)
		if err != nil {
			return nil, err
		}
		g.Constants[name] = v
	}
	for _, v := range from.outputs {
		g.Outputs = append(g.Outputs, v.name)
	}
	if len(g.Outputs) == 0 {
		return nil, corrupt("the graph has no output")
	}
	for _, n := range from.nodes {
		nodes, err := p.nodeIn(n, at, dir)
		if err != nil {
			return nil, err
		}
		g.Nodes = append(g.Nodes, nodes...)
	}
	return g, nil
}

// zipped reports whether an output is made by a ZipMap.
func (p *modelProto) zipped(name string) bool {
	return slices.ContainsFunc(p.graph.nodes, func(n *nodeProto) bool {
		return n.op == "ZipMap" && n.domain == graph.DomainML && len(n.outputs) > 0 && n.outputs[0] == name
	})
}

// checkOutputs refuses outputs that the engine has no values of.
func (p *modelProto) checkOutputs() error {
	for _, v := range p.graph.outputs {
		list := (v.kind == "sequence" || v.kind == "optional") && v.inner != "value"
		if v.kind != "tensor" && v.kind != "" && !list && !p.zipped(v.name) {
			return &engine.UnsupportedError{What: fmt.Sprintf("output %q: a %s", v.name, v.kind)}
		}
	}
	return nil
}

// implied are the operator sets that a model has without importing them, as onnxruntime
// reads what its own optimizer has left out.
var implied = map[string]int{domainContrib: 1, graph.DomainML: maxOpsetML}

// nodeIn converts a node of the model's graph or of a function.
func (p *modelProto) nodeIn(n *nodeProto, at scope, dir string) ([]*graph.Node, error) {
	if fn := p.functions[functionID{n.domain, n.op, n.overload}]; fn != nil {
		return p.call(n, fn, at, dir)
	}
	version, ok := at.opsets[n.domain]
	if !ok {
		version, ok = implied[n.domain]
	}
	out := &graph.Node{Name: n.name, Domain: n.domain, Op: n.op, Version: version, Inputs: n.inputs, Outputs: n.outputs, Attrs: graph.Attrs{}}
	if n.op == "" {
		return nil, corrupt("node %q has no operator", n.name)
	}
	if !ok {
		return nil, &engine.UnsupportedError{What: "operator " + out.Title(), Node: out.Label(), Reason: "the model does not import its operator set"}
	}
	for _, a := range n.attrs {
		if a.ref != "" && at.params == nil {
			return nil, corrupt("node %q: attribute %q refers to a function's parameter", out.Label(), a.name)
		}
		if a = a.resolved(at.params); a == nil {
			continue
		}
		v, err := a.attr(out, dir)
		if err == nil && v.Kind == graph.AttrTensor && v.Tensor == nil {
			v.Tensor, err = p.writtenOut(a.sparse, dir)
		}
		if err == nil && a.graph != nil {
			v.Graph, err = p.body(a.graph, at, dir)
		}
		if err != nil {
			return nil, err
		}
		if _, dup := out.Attrs[a.name]; dup {
			return nil, corrupt("node %q: attribute %q is given twice", out.Label(), a.name)
		}
		out.Attrs[a.name] = v
	}
	graph.Capture(out)
	switch {
	case n.domain == domainContrib:
		return lowerContrib(out)
	case n.domain == graph.DomainONNX:
		return lowerOptimised(out)
	case n.domain != graph.DomainML:
		return []*graph.Node{out}, nil
	case n.op == "SVMClassifier" || n.op == "SVMRegressor":
		return lowerSVM(out)
	case n.op == "TreeEnsemble":
		return lowerTreeEnsemble(out)
	}
	return lower(out)
}

// body converts the graph of an attribute. Its inputs may have no type: that
// follows from what the node is given.
func (p *modelProto) body(from *graphProto, at scope, dir string) (*graph.Graph, error) {
	g, err := p.convertGraph(from, at, dir)
	if err != nil {
		return nil, err
	}
	for _, v := range from.outputs {
		g.OutputSpecs = append(g.OutputSpecs, engine.Spec{Name: v.name, DType: graph.TypeOfONNX(v.dtype), Shape: v.shape})
	}
	for _, v := range from.inputs {
		if _, constant := g.Constants[v.name]; !constant {
			g.Inputs = append(g.Inputs, engine.Spec{Name: v.name, DType: graph.TypeOfONNX(v.dtype), Shape: v.shape})
		}
	}
	return g, nil
}

// attr converts one attribute. Old exporters leave the type out; it then follows
// from the field that is set.
func (a *attrProto) attr(n *graph.Node, dir string) (graph.Attr, error) {
	v := graph.Attr{Float: a.f, Int: a.i, String: a.s, Floats: a.floats, Ints: a.ints, Strings: a.strings}
	switch {
	case a.kind == 1:
		v.Kind = graph.AttrFloat
	case a.kind == 2:
		v.Kind = graph.AttrInt
	case a.kind == 3:
		v.Kind = graph.AttrString
	case a.kind == 4 || a.kind == 0 && a.t != nil:
		v.Kind = graph.AttrTensor
	case a.kind == 6 || a.kind == 0 && a.floats != nil:
		v.Kind = graph.AttrFloats
	case a.kind == 7 || a.kind == 0 && a.ints != nil:
		v.Kind = graph.AttrInts
		v.Ints = append([]int64{}, a.ints...)
	case a.kind == 8 || a.kind == 0 && a.strings != nil:
		v.Kind = graph.AttrStrings
	case a.graph != nil || a.kind == 5 || a.kind == 10:
		v.Kind = graph.AttrGraph
	case a.sparse != nil && (a.kind == 11 || a.kind == 0) && n.Op == "Constant":
		v.Kind = graph.AttrTensor // the caller writes it out
		return v, nil
	case a.kind == 13:
		v.Kind = graph.AttrType
	case a.kind == 0 && a.s != "":
		v.Kind = graph.AttrString
	default:
		return v, corrupt("node %q: attribute %q has kind %d", n.Label(), a.name, a.kind)
	}
	if v.Kind != graph.AttrTensor {
		return v, nil
	}
	if a.t == nil {
		return v, corrupt("node %q: attribute %q has no tensor", n.Label(), a.name)
	}
	var err error
	v.Tensor, err = a.t.tensor(dir)
	return v, err
}

// MarginSuffix names the margins of a classifier or regressor: the name of its
// score output with this behind.
const MarginSuffix = "/margin"

// lower splits ai.onnx.ml's classifiers and regressors in the margins and what
// is made of them, so that a gradient or an explanation can ask for the margins.
func lower(n *graph.Node) ([]*graph.Node, error) {
	local := func(op string, in, out []string, attrs graph.Attrs) *graph.Node {
		return &graph.Node{Name: n.Name, Domain: graph.DomainLocal, Op: op, Version: n.Version, Inputs: in, Outputs: out, Attrs: attrs}
	}
	classifier := n.Op == "LinearClassifier" || n.Op == "TreeEnsembleClassifier"
	if !classifier && n.Op != "LinearRegressor" && n.Op != "TreeEnsembleRegressor" {
		return []*graph.Node{n}, nil
	}
	outs := 1
	if classifier {
		outs = 2
	}
	if len(n.Inputs) != 1 || len(n.Outputs) == 0 || len(n.Outputs) > outs {
		return nil, corrupt("node %q (%s) has %d inputs and %d outputs", n.Label(), n.Title(), len(n.Inputs), len(n.Outputs))
	}
	scores := n.Outputs[len(n.Outputs)-1]
	margin := scores + MarginSuffix
	post := graph.Attr{Kind: graph.AttrString, String: "NONE"}
	if a, ok := n.Attrs["post_transform"]; ok {
		post = a
	}
	attrs, second, err := scoreAttrs(n, classifier)
	if err != nil {
		return nil, err
	}
	if n.Op == "LinearClassifier" && second == graph.SecondOwn {
		post.String = "NONE" // of a single score onnxruntime takes LOGISTIC only
	}
	op := graph.OpLinearScores
	if n.Op == "TreeEnsembleClassifier" || n.Op == "TreeEnsembleRegressor" {
		op = graph.OpTreeScores
	}
	first := local(op, n.Inputs, []string{margin}, attrs)
	if op == graph.OpTreeScores && attrs["n_targets"].Int == 1 && post.String != "PROBIT" {
		// onnxruntime transforms the score of one target by PROBIT only.
		post.String = "NONE"
	}
	if !classifier {
		return []*graph.Node{first, local(graph.OpPostTransform, []string{margin}, n.Outputs, graph.Attrs{"post_transform": post})}, nil
	}
	finish := graph.Attrs{"post_transform": post, "second_class": {Kind: graph.AttrString, String: second}}
	for _, name := range []string{"classlabels_ints", "classlabels_int64s", "classlabels_strings"} {
		if a, ok := n.Attrs[name]; ok && len(a.Ints)+len(a.Strings) > 0 {
			finish[name] = a
		}
	}
	return []*graph.Node{first, local(graph.OpClassifierOutput, []string{margin}, n.Outputs, finish)}, nil
}

var linearAttrs = map[string]bool{
	"coefficients": true, "intercepts": true, "multi_class": true, "post_transform": true, "targets": true,
	"classlabels_ints": true, "classlabels_strings": true,
}

var treeAttrs = map[string]bool{
	"nodes_treeids": true, "nodes_nodeids": true, "nodes_featureids": true, "nodes_modes": true,
	"nodes_values": true, "nodes_values_as_tensor": true, "nodes_truenodeids": true, "nodes_falsenodeids": true,
	"nodes_missing_value_tracks_true": true, "nodes_hitrates": true, "nodes_hitrates_as_tensor": true,
	"class_treeids": true, "class_nodeids": true, "class_ids": true, "class_weights": true, "class_weights_as_tensor": true,
	"target_treeids": true, "target_nodeids": true, "target_ids": true, "target_weights": true, "target_weights_as_tensor": true,
	"base_values": true, "base_values_as_tensor": true, "post_transform": true, "n_targets": true, "aggregate_function": true,
	"classlabels_int64s": true, "classlabels_strings": true,
}

// scoreAttrs is what the scores' node needs to know, and how a second class is
// made of a single score.
func scoreAttrs(n *graph.Node, classifier bool) (graph.Attrs, string, error) {
	known := linearAttrs
	linear := n.Op == "LinearClassifier" || n.Op == "LinearRegressor"
	if !linear {
		known = treeAttrs
	}
	attrs := graph.Attrs{}
	for name, a := range n.Attrs {
		if !known[name] {
			return nil, "", &engine.UnsupportedError{What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(), Reason: fmt.Sprintf("attribute %q", name)}
		}
		if name != "post_transform" && name != "multi_class" {
			attrs[name] = a
		}
	}
	if linear {
		return linearScoreAttrs(n, attrs, classifier)
	}
	if classifier {
		attrs["classifier"] = graph.Attr{Kind: graph.AttrInt, Int: 1}
	} else if _, ok := attrs["n_targets"]; !ok {
		return nil, "", corrupt("node %q (%s) has no n_targets", n.Label(), n.Title())
	}
	s, err := graph.NewTreeScores(&graph.Node{Name: n.Name, Domain: n.Domain, Op: n.Op, Version: n.Version, Outputs: n.Outputs, Attrs: attrs}, engine.Float32)
	if err != nil {
		return nil, "", err
	}
	return attrs, s.Second, nil
}

func linearScoreAttrs(n *graph.Node, attrs graph.Attrs, classifier bool) (graph.Attrs, string, error) {
	outs := int64(1)
	if a, ok := attrs["targets"]; ok {
		outs = a.Int
	}
	if classifier {
		outs = int64(len(attrs["classlabels_ints"].Ints) + len(attrs["classlabels_strings"].Strings))
		if len(attrs["intercepts"].Floats) == 1 && outs == 2 {
			return singleScore(n, attrs)
		}
	}
	return graph.Attrs{"coefficients": attrs["coefficients"], "intercepts": attrs["intercepts"], "targets": {Kind: graph.AttrInt, Int: outs}}, graph.SecondNone, nil
}

// singleScore gives each of two classes a score where the file has one, the second's, and
// the label is by its sign: the first's is what onnxruntime makes of it, 1 less the score,
// or by LOGISTIC, which is taken of both, its negative.
func singleScore(n *graph.Node, attrs graph.Attrs) (graph.Attrs, string, error) {
	own, first, second := attrs["coefficients"].Floats, float32(1), graph.SecondOwn
	switch post := n.Attrs["post_transform"].String; post {
	case "LOGISTIC":
		first, second = 0, graph.SecondNone
	case "", "NONE", "SOFTMAX", "SOFTMAX_ZERO":
	default:
		return nil, "", &engine.UnsupportedError{What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(), Reason: fmt.Sprintf("post_transform %q of two classes with one score", post)}
	}
	coefs := make([]float32, 0, 2*len(own))
	for _, c := range own {
		coefs = append(coefs, -c)
	}
	coefs = append(coefs, own...)
	bias := attrs["intercepts"].Floats[0]
	return graph.Attrs{
		"coefficients": {Kind: graph.AttrFloats, Floats: coefs},
		"intercepts":   {Kind: graph.AttrFloats, Floats: []float32{first - bias, bias}},
		"targets":      {Kind: graph.AttrInt, Int: 2},
	}, second, nil
}
