package onnx

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// ensemble5 writes a TreeEnsemble (ai.onnx.ml 5) in the form of the older operators,
// which have a node for a leaf and no sets: a set becomes one node for each member.
type ensemble5 struct {
	n                          *graph.Node
	features, trueIDs, falseID []int64
	trueLeaf, falseLeaf        []int64
	missing, targets           []int64
	modes                      []uint8
	splits, weights            []float64
	sets                       [][]float64
	// room is how many nodes the sets may be written out to.
	room  int
	tree  int64
	count int

	nodes treeNodes
}

// treeNodes are the parallel arrays that come out.
type treeNodes struct {
	trees, ids, features, yes, no, missing []int64
	modes                                  []string
	values                                 []float64
	leafTrees, leafIDs, leafTargets        []int64
	leafWeights                            []float64
}

var modes5 = []string{"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}

const modeMember = 6

func (e *ensemble5) corrupt(format string, args ...any) error {
	return corrupt("node %q (%s): %s", e.n.Label(), e.n.Title(), fmt.Sprintf(format, args...))
}

// lowerTreeEnsemble makes the scores' node of a TreeEnsemble and their transformation.
func lowerTreeEnsemble(n *graph.Node) ([]*graph.Node, error) {
	if len(n.Inputs) != 1 || len(n.Outputs) != 1 {
		return nil, corrupt("node %q (%s) has %d inputs and %d outputs", n.Label(), n.Title(), len(n.Inputs), len(n.Outputs))
	}
	e, err := readEnsemble5(n)
	if err != nil {
		return nil, err
	}
	for i, root := range n.Attrs["tree_roots"].Ints {
		e.tree, e.count = int64(i), 0
		if _, err := e.add(root, false, 0); err != nil {
			return nil, err
		}
	}
	transform := map[int64]string{0: "NONE", 1: "SOFTMAX", 2: "LOGISTIC", 3: "SOFTMAX_ZERO", 4: "PROBIT"}[n.Attrs["post_transform"].Int]
	aggregate := int64(1)
	if a, ok := n.Attrs["aggregate_function"]; ok {
		aggregate = a.Int
	}
	sum := map[int64]string{0: "AVERAGE", 1: "SUM", 2: "MIN", 3: "MAX"}[aggregate]
	if transform == "" || sum == "" {
		return nil, e.corrupt("post_transform %d, aggregate_function %d", n.Attrs["post_transform"].Int, aggregate)
	}
	attrs, err := e.attrs(sum)
	if err != nil {
		return nil, err
	}
	scores := &graph.Node{Name: n.Name, Domain: graph.DomainLocal, Op: graph.OpTreeScores, Version: n.Version, Inputs: n.Inputs, Outputs: n.Outputs, Attrs: attrs}
	if targets, ok := n.Attrs["n_targets"]; (!ok || targets.Int == 1) && transform != "PROBIT" {
		transform = "NONE" // as onnxruntime does it, here and in TreeEnsembleRegressor
	}
	if transform == "SOFTMAX" || transform == "LOGISTIC" {
		// 1 is SOFTMAX and 2 LOGISTIC by the specification, the other way round in onnxruntime.
		return nil, &engine.UnsupportedError{
			What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(),
			Reason: fmt.Sprintf("post_transform %d of several targets, which runtimes read in different ways", n.Attrs["post_transform"].Int),
		}
	}
	if transform == "NONE" {
		return []*graph.Node{scores}, nil
	}
	if n.Attrs["nodes_splits"].Tensor.DType() == engine.Float64 {
		return nil, &engine.UnsupportedError{What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(), Reason: "post_transform " + transform + " of double precision"}
	}
	margin := n.Outputs[0] + MarginSuffix
	scores.Outputs = []string{margin}
	return []*graph.Node{
		scores,
		{
			Name: n.Name, Domain: graph.DomainLocal, Op: graph.OpPostTransform, Version: n.Version, Inputs: []string{margin}, Outputs: n.Outputs,
			Attrs: graph.Attrs{"post_transform": {Kind: graph.AttrString, String: transform}},
		},
	}, nil
}

var known5 = map[string]bool{
	"aggregate_function": true, "post_transform": true, "tree_roots": true, "nodes_hitrates": true, "nodes_missing_value_tracks_true": true,
	"nodes_modes": true, "leaf_weights": true, "leaf_targetids": true, "nodes_falsenodeids": true, "n_targets": true, "nodes_trueleafs": true,
	"nodes_featureids": true, "nodes_splits": true, "nodes_falseleafs": true, "nodes_truenodeids": true, "membership_values": true,
}

func readEnsemble5(n *graph.Node) (*ensemble5, error) {
	ints := func(name string) []int64 { return n.Attrs[name].Ints }
	e := &ensemble5{
		n: n, features: ints("nodes_featureids"), trueIDs: ints("nodes_truenodeids"), falseID: ints("nodes_falsenodeids"),
		trueLeaf: ints("nodes_trueleafs"), falseLeaf: ints("nodes_falseleafs"), missing: ints("nodes_missing_value_tracks_true"), targets: ints("leaf_targetids"),
	}
	for name := range n.Attrs {
		if !known5[name] {
			return nil, &engine.UnsupportedError{What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(), Reason: fmt.Sprintf("attribute %q", name)}
		}
	}
	for name, to := range map[string]*[]float64{"nodes_splits": &e.splits, "leaf_weights": &e.weights} {
		t := n.Attrs[name].Tensor
		if t == nil {
			return nil, e.corrupt("has no %s", name)
		}
		*to, _ = t.Float64s()
	}
	if t := n.Attrs["nodes_modes"].Tensor; t != nil {
		e.modes = engine.Data[uint8](t)
	}
	count := len(e.splits)
	for _, l := range []int{len(e.features), len(e.trueIDs), len(e.falseID), len(e.trueLeaf), len(e.falseLeaf), len(e.modes)} {
		if l != count || count == 0 {
			return nil, e.corrupt("its node arrays have different lengths")
		}
	}
	if len(e.weights) != len(e.targets) || len(e.missing) != 0 && len(e.missing) != count {
		return nil, e.corrupt("its leaf arrays have different lengths")
	}
	return e, e.readSets()
}

// readSets splits membership_values, which NaN separates, among the nodes that test
// for a set, in their order.
func (e *ensemble5) readSets() error {
	e.sets = make([][]float64, len(e.modes))
	var values []float64
	if t := e.n.Attrs["membership_values"].Tensor; t != nil {
		values, _ = t.Float64s()
	}
	// A node may be written once for each value of a set above it.
	e.room = 1<<16 + 16*(len(e.modes)+len(values))
	at := 0
	for i, mode := range e.modes {
		if mode != modeMember {
			continue
		}
		for ; at < len(values) && !math.IsNaN(values[at]); at++ {
			e.sets[i] = append(e.sets[i], values[at])
		}
		at++
		if len(e.sets[i]) == 0 {
			return e.corrupt("node %d has no set", i)
		}
	}
	return nil
}

// add writes out a node or a leaf that stands inside depth others, and returns its id.
func (e *ensemble5) add(i int64, leaf bool, depth int) (int64, error) {
	if len(e.nodes.ids) >= e.room || depth > 1<<16 {
		return 0, fmt.Errorf("node %q: trees of more than %d nodes or %d deep: %w", e.n.Label(), e.room, 1<<16, engine.ErrTooLarge)
	}
	if leaf {
		if i < 0 || int(i) >= len(e.weights) {
			return 0, e.corrupt("leaf %d of %d", i, len(e.weights))
		}
		id := e.node(0, 0, "LEAF", 0)
		n := &e.nodes
		n.leafTrees, n.leafIDs = append(n.leafTrees, e.tree), append(n.leafIDs, id)
		n.leafTargets, n.leafWeights = append(n.leafTargets, e.targets[i]), append(n.leafWeights, e.weights[i])
		return id, nil
	}
	if i < 0 || int(i) >= len(e.modes) {
		return 0, e.corrupt("node %d of %d", i, len(e.modes))
	}
	missing := int64(0)
	if len(e.missing) > 0 {
		missing = e.missing[i]
	}
	if e.modes[i] < modeMember {
		id := e.node(e.features[i], missing, modes5[e.modes[i]], e.splits[i])
		return id, e.children(i, depth, nil)
	}
	if e.modes[i] > modeMember {
		return 0, e.corrupt("mode %d", e.modes[i])
	}
	return e.member(i, missing, e.sets[i], depth)
}

// member writes a test for one of a set: the true branch of each is a copy.
func (e *ensemble5) member(i, missing int64, set []float64, depth int) (int64, error) {
	id := e.node(e.features[i], missing, "BRANCH_EQ", set[0])
	var rest func() (int64, error)
	if len(set) > 1 {
		rest = func() (int64, error) { return e.member(i, missing, set[1:], depth+1) }
	}
	return id, e.children(i, depth, rest)
}

// children writes both branches of node i, of which otherwise stands for the second.
func (e *ensemble5) children(i int64, depth int, otherwise func() (int64, error)) error {
	at := len(e.nodes.ids) - 1
	yes, err := e.add(e.trueIDs[i], e.trueLeaf[i] != 0, depth+1)
	if err != nil {
		return err
	}
	if otherwise == nil {
		otherwise = func() (int64, error) { return e.add(e.falseID[i], e.falseLeaf[i] != 0, depth+1) }
	}
	no, err := otherwise()
	if err != nil {
		return err
	}
	e.nodes.yes[at], e.nodes.no[at] = yes, no
	return nil
}

// node appends a node of the tree and returns its id.
func (e *ensemble5) node(feature, missing int64, mode string, value float64) int64 {
	n, id := &e.nodes, int64(e.count)
	e.count++
	n.trees, n.ids = append(n.trees, e.tree), append(n.ids, id)
	n.features, n.missing = append(n.features, feature), append(n.missing, missing)
	n.yes, n.no = append(n.yes, 0), append(n.no, 0)
	n.modes, n.values = append(n.modes, mode), append(n.values, value)
	return id
}

// attrs are the attributes of the scores' node.
func (e *ensemble5) attrs(aggregate string) (graph.Attrs, error) {
	n := &e.nodes
	attrs := graph.Attrs{
		"nodes_modes": {Kind: graph.AttrStrings, Strings: n.modes}, "aggregate_function": {Kind: graph.AttrString, String: aggregate},
		"n_targets": {Kind: graph.AttrInt, Int: 1},
	}
	if a, ok := e.n.Attrs["n_targets"]; ok {
		attrs["n_targets"] = a
	}
	for name, v := range map[string][]int64{
		"nodes_treeids": n.trees, "nodes_nodeids": n.ids, "nodes_featureids": n.features, "nodes_truenodeids": n.yes, "nodes_falsenodeids": n.no,
		"nodes_missing_value_tracks_true": n.missing, "target_treeids": n.leafTrees, "target_nodeids": n.leafIDs, "target_ids": n.leafTargets,
	} {
		attrs[name] = graph.Attr{Kind: graph.AttrInts, Ints: v}
	}
	single := e.n.Attrs["nodes_splits"].Tensor.DType() != engine.Float64
	for name, v := range map[string][]float64{"nodes_values": n.values, "target_weights": n.leafWeights} {
		t, err := engine.Of(v, len(v))
		if err == nil && single {
			t, err = float32s(v)
		}
		if err != nil {
			return nil, err
		}
		attrs[name+"_as_tensor"] = graph.Attr{Kind: graph.AttrTensor, Tensor: t}
	}
	return attrs, nil
}

func float32s(v []float64) (*engine.Tensor, error) {
	out := make([]float32, len(v))
	for i, e := range v {
		out[i] = float32(e)
	}
	return engine.Of(out, len(out))
}
