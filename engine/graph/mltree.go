package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// TreeScores is what a TreeScores node computes: an ensemble whose margins are
// the scores, or, for MIN and MAX, single trees whose extreme is taken.
type TreeScores struct {
	Ensemble *tree.Ensemble
	// Aggregate is SUM (AVERAGE is folded into the leaves), MIN or MAX.
	Aggregate string
	// Second is how a classifier of two labels gets its second class.
	Second string
	// Missing says that the file tells where a missing value goes.
	Missing bool
}

// treeAttrs holds the parallel arrays of an ai.onnx.ml tree ensemble.
type treeAttrs struct {
	n                              *Node
	treeIDs, nodeIDs, features     []int64
	trueIDs, falseIDs, missingTrue []int64
	modes                          []string
	values                         []float64
	leafTree, leafNode, leafID     []int64
	leafWeight                     []float64
	base                           []float64
	outputs                        int
	float32                        bool
	aggregate                      string
}

func (a *treeAttrs) floats(name string) []float64 {
	if t := a.n.Attrs[name+"_as_tensor"].Tensor; t != nil {
		a.float32 = a.float32 && t.DType() != engine.Float64
		v, _ := t.Float64s()
		return v
	}
	return widen32(a.n.Attrs[name].Floats)
}

func readTreeAttrs(n *Node, d engine.DType) (*treeAttrs, error) {
	prefix := "target"
	labels := 0
	if n.Attrs["classifier"].Int == 1 {
		prefix = "class"
		labels = max(len(n.Attrs["classlabels_int64s"].Ints), len(n.Attrs["classlabels_strings"].Strings))
	}
	ints := func(name string) []int64 { return n.Attrs[name].Ints }
	a := &treeAttrs{
		n: n, treeIDs: ints("nodes_treeids"), nodeIDs: ints("nodes_nodeids"), features: ints("nodes_featureids"),
		trueIDs: ints("nodes_truenodeids"), falseIDs: ints("nodes_falsenodeids"), missingTrue: ints("nodes_missing_value_tracks_true"),
		modes: n.Attrs["nodes_modes"].Strings, leafTree: ints(prefix + "_treeids"), leafNode: ints(prefix + "_nodeids"),
		leafID: ints(prefix + "_ids"), outputs: labels, float32: d != engine.Float64, aggregate: "SUM",
	}
	if v := n.Attrs["aggregate_function"].String; v != "" {
		a.aggregate = v
	}
	if prefix == "target" {
		a.outputs = int(n.Attrs["n_targets"].Int)
	}
	a.values, a.leafWeight, a.base = a.floats("nodes_values"), a.floats(prefix+"_weights"), a.floats("base_values")
	count := len(a.nodeIDs)
	for _, l := range []int{len(a.treeIDs), len(a.features), len(a.trueIDs), len(a.falseIDs), len(a.modes), len(a.values)} {
		if l != count || count == 0 {
			return nil, n.corrupt("its node arrays have different lengths")
		}
	}
	if len(a.missingTrue) != 0 && len(a.missingTrue) != count {
		return nil, n.corrupt("nodes_missing_value_tracks_true has %d elements for %d nodes", len(a.missingTrue), count)
	}
	leaves := len(a.leafNode)
	if len(a.leafTree) != leaves || len(a.leafID) != leaves || len(a.leafWeight) != leaves {
		return nil, n.corrupt("its leaf arrays have different lengths")
	}
	if a.outputs < 1 || a.outputs > 1<<20 {
		return nil, n.corrupt("%d outputs", a.outputs)
	}
	return a, nil
}

// NewTreeScores builds the ensemble of a TreeScores node whose input has type d.
func NewTreeScores(n *Node, d engine.DType) (*TreeScores, error) {
	a, err := readTreeAttrs(n, d)
	if err != nil {
		return nil, err
	}
	s := &TreeScores{Aggregate: a.aggregate, Missing: slices.Contains(a.missingTrue, 1)}
	if err := a.secondClass(s); err != nil {
		return nil, err
	}
	if err := a.settleVotes(s); err != nil {
		return nil, err
	}
	e := &tree.Ensemble{Outputs: a.outputs, Base: make([]float64, a.outputs), Float32: a.float32, Covers: tree.CoverNone, Link: tree.LinkIdentity}
	if len(a.base) != 0 && len(a.base) != a.outputs {
		return nil, n.corrupt("%d base values for %d outputs", len(a.base), a.outputs)
	}
	copy(e.Base, a.base)
	if err := a.trees(e); err != nil {
		return nil, err
	}
	switch s.Aggregate {
	case "SUM", "MIN", "MAX":
	case "AVERAGE":
		s.Aggregate = "SUM"
		for i := range e.Trees {
			for j := range e.Trees[i].Values {
				e.Trees[i].Values[j] /= float64(len(e.Trees))
			}
		}
	default:
		return nil, n.unsupported("aggregate_function %q", s.Aggregate)
	}
	s.Ensemble = e
	return s, e.Validate()
}

// secondClass folds a classifier of two labels whose leaves all vote for the first
// class into a single score, and chooses how its label is found.
func (a *treeAttrs) secondClass(s *TreeScores) error {
	if a.n.Attrs["classifier"].Int != 1 || a.outputs > 2 || len(a.leafID) == 0 {
		return nil
	}
	if a.outputs == 1 {
		return a.n.unsupported("a classifier of one label")
	}
	same := true
	for _, id := range a.leafID {
		same = same && id == a.leafID[0]
	}
	fold := same && a.leafID[0] == 0
	if len(a.base) == 2 {
		// onnxruntime drops the second class's sum here, or the first base value.
		return a.n.unsupported("two base values for two classes, which runtimes add in different ways")
	}
	if len(a.base) == 1 && !fold {
		// onnxruntime gives it to the first class, or to none.
		return a.n.unsupported("one base value for two classes, which runtimes add in different ways")
	}
	s.Second = SecondOwn
	if same && a.positive() {
		s.Second = SecondOwnPositive
	}
	if !fold {
		return nil
	}
	s.Second = SecondMixed
	if a.positive() {
		s.Second = SecondPositive
	}
	a.outputs = 1
	return nil
}

type nodeKey struct{ tree, node int64 }

// trees builds every tree, in the order of their first nodes.
func (a *treeAttrs) trees(e *tree.Ensemble) error {
	index := make(map[nodeKey]int, len(a.nodeIDs))
	var order []int64
	first := map[int64]int{}
	for i, id := range a.nodeIDs {
		key := nodeKey{a.treeIDs[i], id}
		if _, dup := index[key]; dup {
			return a.n.corrupt("node %d of tree %d is defined twice", id, key.tree)
		}
		index[key] = i
		if _, ok := first[key.tree]; !ok {
			first[key.tree] = i
			order = append(order, key.tree)
		}
	}
	leaves := make(map[nodeKey][]int, len(a.leafNode))
	for i, id := range a.leafNode {
		key := nodeKey{a.leafTree[i], id}
		if _, ok := index[key]; !ok {
			return a.n.corrupt("a leaf weight for node %d of tree %d, which is not there", id, key.tree)
		}
		if a.leafID[i] < 0 || int(a.leafID[i]) >= a.outputs {
			return a.n.corrupt("a leaf weight for output %d of %d", a.leafID[i], a.outputs)
		}
		leaves[key] = append(leaves[key], i)
	}
	single := a.singleOutputs()
	for _, id := range order {
		t, err := a.tree(first[id], index, leaves, single[id], e)
		if err != nil {
			return err
		}
		e.Trees = append(e.Trees, *t)
	}
	return nil
}

// singleOutputs tells for each tree the output that all its leaves feed, or -1.
func (a *treeAttrs) singleOutputs() map[int64]int {
	single := map[int64]int{}
	for i, t := range a.leafTree {
		out, ok := single[t]
		if !ok {
			single[t] = int(a.leafID[i])
		} else if out != int(a.leafID[i]) {
			single[t] = -1
		}
	}
	return single
}

func (a *treeAttrs) tree(root int, index map[nodeKey]int, leaves map[nodeKey][]int, output int, e *tree.Ensemble) (*tree.Tree, error) {
	t := &tree.Tree{Output: output}
	width := 1
	if output < 0 {
		width = a.outputs
	}
	// Depth first, so that children come after their parents.
	pending := []int{root}
	place := map[int]int32{root: 0}
	t.Nodes = append(t.Nodes, tree.Node{})
	for len(pending) > 0 {
		i := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		at := place[i]
		node, leaf, err := a.node(i)
		if err != nil {
			return nil, err
		}
		if leaf {
			continue
		}
		e.Features = max(e.Features, int(node.Feature)+1)
		var kids [2]int32
		for k, id := range []int64{a.trueIDs[i], a.falseIDs[i]} {
			child, ok := index[nodeKey{a.treeIDs[i], id}]
			if !ok {
				return nil, a.n.corrupt("node %d of tree %d has no child %d", a.nodeIDs[i], a.treeIDs[i], id)
			}
			if _, seen := place[child]; seen {
				return nil, a.n.corrupt("node %d of tree %d has two parents", id, a.treeIDs[i])
			}
			kids[k] = int32(len(t.Nodes))
			place[child] = kids[k]
			t.Nodes = append(t.Nodes, tree.Node{})
			pending = append(pending, child)
		}
		node.Left, node.Right = kids[0], kids[1]
		t.Nodes[at] = node
	}
	if len(t.Nodes)*width > 1<<24 {
		return nil, fmt.Errorf("a tree of %d nodes and %d outputs: %w", len(t.Nodes), width, engine.ErrTooLarge)
	}
	t.Values = make([]float64, len(t.Nodes)*width)
	for i, at := range place {
		if t.Nodes[at].IsLeaf() {
			a.leaf(t.Values[int(at)*width:][:width], i, leaves[nodeKey{a.treeIDs[i], a.nodeIDs[i]}])
		}
	}
	return t, nil
}

// leaf sets the values of leaf i, which has the listed weights: one, or one of each
// output. A target that is the only one has as onnxruntime keeps it the first of them,
// or without any the number that stands where splits have theirs.
func (a *treeAttrs) leaf(values []float64, i int, listed []int) {
	if a.oneTarget() {
		values[0] = a.values[i]
		if len(listed) > 0 {
			values[0] = a.leafWeight[listed[0]]
		}
		return
	}
	seen := make([]bool, len(values))
	for _, l := range listed {
		col := 0
		if len(values) > 1 {
			col = int(a.leafID[l])
		}
		switch v, w := &values[col], a.leafWeight[l]; {
		case a.aggregate == "MIN" && seen[col]:
			*v = min(*v, w)
		case a.aggregate == "MAX" && seen[col]:
			*v = max(*v, w)
		default:
			*v += w
		}
		seen[col] = true
	}
}

// oneTarget reports whether the ensemble is a regressor of one target.
func (a *treeAttrs) oneTarget() bool { return a.outputs == 1 && a.n.Attrs["classifier"].Int != 1 }

var treeRules = map[string]tree.Rule{
	"BRANCH_LEQ": tree.LessEqual, "BRANCH_LT": tree.Less, "BRANCH_GT": tree.Greater,
	"BRANCH_GTE": tree.GreaterEqual, "BRANCH_EQ": tree.Equal, "BRANCH_NEQ": tree.NotEqual,
}

func (a *treeAttrs) node(i int) (n tree.Node, leaf bool, err error) {
	if a.modes[i] == "LEAF" {
		return n, true, nil
	}
	rule, ok := treeRules[a.modes[i]]
	if !ok {
		return n, false, a.n.unsupported("node mode %q", a.modes[i])
	}
	if a.features[i] < 0 || a.features[i] > 1<<24 {
		return n, false, a.n.corrupt("feature %d", a.features[i])
	}
	missing := len(a.missingTrue) > 0 && a.missingTrue[i] == 1
	n = tree.Node{
		Feature: int32(a.features[i]), Rule: rule, Threshold: a.values[i], Missing: tree.MissingNaN,
		// Every comparison with NaN is false but !=.
		DefaultLeft: missing || rule == tree.NotEqual,
	}
	return n, false, nil
}

func buildTreeScores(b *builder) (Kernel, error) {
	for name := range b.node.Attrs {
		b.attrs.ignore(name) // engine/onnx passes on the known ones only
	}
	d := b.inType(0)
	s, err := NewTreeScores(b.node, d)
	if err != nil {
		return nil, err
	}
	if err := b.held.trees(b.node, s.Ensemble.Bytes()); err != nil {
		return nil, err
	}
	b.trees = s
	result := engine.Float32
	if !s.Ensemble.Float32 {
		result = engine.Float64
	}
	b.result = []engine.DType{result}
	if s.Aggregate != "SUM" {
		return s.extreme(), nil
	}
	eval := tree.NewEvaluator(s.Ensemble)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if result == engine.Float32 {
			return x.one(treeMargins[float32](x, in[0], s.Ensemble, eval))
		}
		return x.one(treeMargins[float64](x, in[0], s.Ensemble, eval))
	}, nil
}

// features casts the input and cuts it to the columns the ensemble reads.
func treeInput[T float](x *Exec, t *engine.Tensor, features int) ([]T, int, error) {
	rows, cols, err := matrix(t)
	if err != nil {
		return nil, 0, err
	}
	if cols < features {
		return nil, 0, fmt.Errorf("%d features for trees that read %d", cols, features)
	}
	w, err := castTensor(x, t, dtypeOf[T](), true)
	if err != nil {
		return nil, 0, err
	}
	src := engine.Data[T](w)
	if cols == features {
		return src, rows, nil
	}
	_, cut, err := newOf[T](x, rows, features)
	if err != nil {
		return nil, 0, err
	}
	for r := range rows {
		copy(cut[r*features:(r+1)*features], src[r*cols:])
	}
	return cut, rows, nil
}

func treeMargins[T float](x *Exec, t *engine.Tensor, e *tree.Ensemble, v *tree.Evaluator) (*engine.Tensor, error) {
	data, rows, err := treeInput[T](x, t, e.Features)
	if err != nil {
		return nil, err
	}
	o, out, err := newOf[T](x, rows, e.Outputs)
	if err != nil {
		return nil, err
	}
	ctx := x.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	return o, tree.Margins(ctx, v, data, rows, out, 1)
}

// extreme is the kernel of the aggregates MIN and MAX, which no library's
// exporter makes; it walks plainly.
func (s *TreeScores) extreme() Kernel {
	e := s.Ensemble
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		data, rows, err := treeInput[float64](x, in[0], e.Features)
		if err != nil {
			return nil, err
		}
		o, out, err := newOf[float64](x, rows, e.Outputs)
		if err != nil {
			return nil, err
		}
		seen := roomOf[bool](x, e.Outputs)
		for r := range rows {
			clear(seen)
			s.extremeRow(data[r*e.Features:(r+1)*e.Features], out[r*e.Outputs:(r+1)*e.Outputs], seen)
		}
		d := engine.Float32
		if !e.Float32 {
			d = engine.Float64
		}
		return x.one(castTensor(x, o, d, true))
	}
}

func (s *TreeScores) extremeRow(row, out []float64, seen []bool) {
	e := s.Ensemble
	put := func(k int, v float64) {
		if !seen[k] || s.Aggregate == "MIN" && v < out[k] || s.Aggregate == "MAX" && v > out[k] {
			out[k], seen[k] = v, true
		}
	}
	for i := range e.Trees {
		t := &e.Trees[i]
		n := int32(0)
		for !t.Nodes[n].IsLeaf() {
			if t.Left(&t.Nodes[n], row[t.Nodes[n].Feature]) {
				n = t.Nodes[n].Left
			} else {
				n = t.Nodes[n].Right
			}
		}
		if t.Output >= 0 {
			put(t.Output, t.Values[n])
			continue
		}
		for k := range e.Outputs {
			put(k, t.Values[int(n)*e.Outputs+k])
		}
	}
	for k := range out {
		out[k] += e.Base[k]
	}
}
