package compress

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/tree"
)

// mlDomain is the domain of ONNX's operators of classical models.
const mlDomain = "ai.onnx.ml"

// treeNode is a TreeEnsembleClassifier or Regressor on its way to fewer nodes. Its
// trees stand in parallel lists, one element a node and one a leaf's weight.
type treeNode struct {
	node   *onnx.FileNode
	prefix string // of the leaves' lists
	// lists by attribute, each []int64, []float32, []float64 or []string.
	lists map[string]any
	// nodes and leaves are the lengths of the two kinds of list.
	nodes, leaves int
	trees         [][]int // by tree, positions of its nodes as engine/graph numbers them
	weights       map[[2]int64][]int
}

// cutONNX cuts the one tree ensemble of an ONNX file. Trees that are a single leaf are
// then added up in one.
func cutONNX(in Input, cut tree.Cut) ([]byte, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	var found *onnx.FileNode
	for _, n := range f.Nodes() {
		if n.Domain == mlDomain && (n.Op == "TreeEnsembleClassifier" || n.Op == "TreeEnsembleRegressor") {
			if found != nil {
				return nil, refuse("the graph has more than one tree ensemble")
			}
			found = n
		}
	}
	if found == nil {
		return nil, refuse("the trees are in no TreeEnsembleClassifier or TreeEnsembleRegressor of ai.onnx.ml")
	}
	t, err := readTreeNode(found)
	if err != nil {
		return nil, err
	}
	if len(t.trees) != len(cut.Leaves) {
		return nil, refuse("the file holds %d trees where %d were read", len(t.trees), len(cut.Leaves))
	}
	if err := t.cut(cut); err != nil {
		return nil, err
	}
	return f.Bytes()
}

func readTreeNode(n *onnx.FileNode) (*treeNode, error) {
	t := &treeNode{node: n, prefix: "target", lists: map[string]any{}}
	if n.Op == "TreeEnsembleClassifier" {
		t.prefix = "class"
	}
	for _, name := range n.AttrNames() {
		if !strings.HasPrefix(name, "nodes_") && !strings.HasPrefix(name, t.prefix+"_") {
			continue
		}
		if err := t.read(name); err != nil {
			return nil, err
		}
	}
	ids := t.ints("nodes_nodeids")
	t.nodes, t.leaves = len(ids), len(t.ints(t.prefix+"_nodeids"))
	for _, name := range []string{"nodes_treeids", "nodes_truenodeids", "nodes_falsenodeids"} {
		if len(t.ints(name)) != t.nodes {
			return nil, refuse("%q has %d elements for %d nodes", name, len(t.ints(name)), t.nodes)
		}
	}
	for _, name := range []string{"_treeids", "_ids"} {
		if len(t.ints(t.prefix+name)) != t.leaves {
			return nil, refuse("%q has another length than the leaves", t.prefix+name)
		}
	}
	if len(t.texts("nodes_modes")) != t.nodes {
		return nil, refuse("\"nodes_modes\" has another length than the nodes")
	}
	return t, t.order()
}

// read takes in one list, from whichever field holds it.
func (t *treeNode) read(name string) error {
	tensor, err := t.node.AttrTensor(name)
	if err != nil {
		return err
	}
	if tensor != nil {
		switch tensor.DType() {
		case engine.Float64:
			t.lists[name] = engine.Data[float64](tensor)
		case engine.Float32:
			t.lists[name] = engine.Data[float32](tensor)
		default:
			return refuse("%q is a tensor of %s", name, tensor.DType())
		}
		return nil
	}
	ints, floats, texts, _ := t.node.Attr(name)
	switch {
	case len(ints) > 0:
		t.lists[name] = ints
	case len(floats) > 0:
		t.lists[name] = floats
	case len(texts) > 0:
		t.lists[name] = texts
	}
	return nil
}

func (t *treeNode) ints(name string) []int64 {
	v, _ := t.lists[name].([]int64)
	return v
}

func (t *treeNode) texts(name string) []string {
	v, _ := t.lists[name].([]string)
	return v
}

// order finds the trees, by their first nodes, and in each the nodes in the order in
// which engine/graph numbers them: from the root, the true child before the false one,
// the false one's own children first.
func (t *treeNode) order() error {
	trees, ids := t.ints("nodes_treeids"), t.ints("nodes_nodeids")
	index := make(map[[2]int64]int, t.nodes)
	var roots []int
	seen := map[int64]bool{}
	for i := range ids {
		index[[2]int64{trees[i], ids[i]}] = i
		if !seen[trees[i]] {
			seen[trees[i]] = true
			roots = append(roots, i)
		}
	}
	for _, root := range roots {
		place := []int{root}
		for pending := []int{root}; len(pending) > 0; {
			i := pending[len(pending)-1]
			pending = pending[:len(pending)-1]
			if t.texts("nodes_modes")[i] == "LEAF" {
				continue
			}
			for _, id := range []int64{t.ints("nodes_truenodeids")[i], t.ints("nodes_falsenodeids")[i]} {
				child, ok := index[[2]int64{trees[i], id}]
				if !ok || len(place) > t.nodes {
					return refuse("node %d of tree %d has no child %d, or is its own", ids[i], trees[i], id)
				}
				place = append(place, child)
				pending = append(pending, child)
			}
		}
		t.trees = append(t.trees, place)
	}
	t.weights = make(map[[2]int64][]int, t.leaves)
	for i, id := range t.ints(t.prefix + "_nodeids") {
		key := [2]int64{t.ints(t.prefix + "_treeids")[i], id}
		t.weights[key] = append(t.weights[key], i)
	}
	return nil
}

// leafWeight is one weight of a leaf, on its way to the file.
type leafWeight struct {
	tree, node, id int64
	value          float64
	from           int // position in the lists that were read, -1 for a new one
}

// cut writes the node with the trees cut.
func (t *treeNode) cut(cut tree.Cut) error {
	average := t.average()
	var keep []int           // positions of the nodes that stay
	leaf := map[int]bool{}   // those of them that become leaves
	var weights []leafWeight // of all leaves
	var sum []leafWeight     // of trees that are a single leaf
	stump := -1              // the root that stands for all of these
	for i, place := range t.trees {
		gone, cuts := cut.Of(i), map[int][]float64{}
		for at, v := range gone {
			cuts[place[at]] = v
		}
		one := len(place) == 1 || cuts[place[0]] != nil
		if one && !average {
			if stump < 0 {
				stump = place[0]
				keep = append(keep, stump)
				leaf[stump] = true
			}
			sum = append(sum, t.leafWeights(place[0], cuts[place[0]], t.outputOf(place), len(t.trees))...)
			continue
		}
		for _, at := range t.reach(place, cuts) {
			keep = append(keep, at)
			v, made := cuts[at]
			leaf[at] = made
			if made || t.texts("nodes_modes")[at] == "LEAF" {
				weights = append(weights, t.leafWeights(at, v, t.outputOf(place), len(t.trees))...)
			}
		}
	}
	weights = append(weights, t.added(sum, stump)...)
	if err := t.signs(weights); err != nil {
		return err
	}
	return t.write(keep, leaf, weights)
}

// average reports whether the trees' sum is divided by their number.
func (t *treeNode) average() bool { return t.node.Text("aggregate_function") == "AVERAGE" }

// outputOf returns the id that all of a tree's leaves feed, or -1.
func (t *treeNode) outputOf(place []int) int64 {
	out := int64(-2)
	for _, at := range place {
		for _, w := range t.weights[t.key(at)] {
			id := t.ints(t.prefix + "_ids")[w]
			if out == -2 {
				out = id
			} else if out != id {
				return -1
			}
		}
	}
	return out
}

func (t *treeNode) key(at int) [2]int64 {
	return [2]int64{t.ints("nodes_treeids")[at], t.ints("nodes_nodeids")[at]}
}

// reach lists the nodes of a tree that stay, the root first.
func (t *treeNode) reach(place []int, cuts map[int][]float64) []int {
	child := make(map[[2]int64]int, len(place))
	for _, at := range place {
		child[t.key(at)] = at
	}
	out := []int{place[0]}
	for i := 0; i < len(out); i++ {
		at := out[i]
		if cuts[at] != nil || t.texts("nodes_modes")[at] == "LEAF" {
			continue
		}
		id := t.ints("nodes_treeids")[at]
		out = append(out, child[[2]int64{id, t.ints("nodes_truenodeids")[at]}], child[[2]int64{id, t.ints("nodes_falsenodeids")[at]}])
	}
	return out
}

// leafWeights returns the weights of a leaf: those it has, or of one that is made the
// values, which are of output id, or where that is -1 of all outputs.
func (t *treeNode) leafWeights(at int, values []float64, id int64, trees int) []leafWeight {
	key := t.key(at)
	if values == nil {
		var out []leafWeight
		listed := t.weights[key]
		if t.prefix == "target" && t.node.Number("n_targets", 0) == 1 {
			// The one target's: the first, or the number of the node (see engine/graph).
			if len(listed) == 0 {
				return []leafWeight{{key[0], key[1], 0, t.float("nodes_values", at), -1}}
			}
			listed = listed[:1]
		}
		for _, w := range listed {
			out = append(out, leafWeight{key[0], key[1], t.ints(t.prefix + "_ids")[w], t.float(t.prefix+"_weights", w), w})
		}
		return out
	}
	scale := 1.0
	if t.average() {
		scale = float64(trees) // the reader divided by it
	}
	out := make([]leafWeight, len(values))
	for k, v := range values {
		out[k] = leafWeight{key[0], key[1], max(id, 0), v * scale, -1}
		if id < 0 {
			out[k].id = int64(k)
		}
	}
	return out
}

// float is element i of a list of either precision, whichever attribute has it.
func (t *treeNode) float(name string, i int) float64 {
	for _, list := range []any{t.lists[name], t.lists[name+"_as_tensor"]} {
		switch v := list.(type) {
		case []float32:
			return float64(v[i])
		case []float64:
			return v[i]
		}
	}
	return 0
}

// added sums the weights of single leaves into those of one node.
func (t *treeNode) added(sum []leafWeight, stump int) []leafWeight {
	if stump < 0 {
		return nil
	}
	total := map[int64]float64{}
	for _, w := range sum {
		total[w.id] += w.value
	}
	var out []leafWeight
	key := t.key(stump)
	for _, id := range slices.Sorted(maps.Keys(total)) {
		out = append(out, leafWeight{key[0], key[1], id, total[id], -1})
	}
	return out
}

// signs refuses a cut after which a classifier of two classes would make the second
// one's score in another way: that follows from whether any weight is negative.
func (t *treeNode) signs(weights []leafWeight) error {
	if t.prefix != "class" {
		return nil
	}
	negative := func(w leafWeight) bool { return w.value < 0 }
	before := false
	for i := range t.leaves {
		before = before || t.float("class_weights", i) < 0
	}
	if before != slices.ContainsFunc(weights, negative) {
		return refuse("no leaf of the trees that are left is negative, by which runtimes would make the classes' scores in another way")
	}
	return nil
}

// write gives the node its new lists.
func (t *treeNode) write(keep []int, leaf map[int]bool, weights []leafWeight) error {
	for _, name := range slices.Sorted(maps.Keys(t.lists)) {
		var list any
		var err error
		if strings.HasPrefix(name, "nodes_") {
			list, err = t.nodeList(name, keep, leaf)
		} else {
			list, err = t.leafList(name, weights)
		}
		if err == nil {
			err = t.node.SetAttr(name, list)
		}
		if err != nil {
			return fmt.Errorf("write trees: %w", err)
		}
	}
	return nil
}

func (t *treeNode) nodeList(name string, keep []int, leaf map[int]bool) (any, error) {
	clear := name != "nodes_treeids" && name != "nodes_nodeids" && !strings.HasPrefix(name, "nodes_hitrates")
	switch v := t.lists[name].(type) {
	case []int64:
		return subset(v, t.nodes, keep, leaf, clear, 0)
	case []string:
		return subset(v, t.nodes, keep, leaf, clear, "LEAF")
	case []float32:
		out, err := subset(v, t.nodes, keep, leaf, clear, 0)
		return t.asTensor(name, out, err)
	case []float64:
		out, err := subset(v, t.nodes, keep, leaf, clear, 0)
		return t.asTensor(name, out, err)
	}
	return nil, refuse("%q is no list", name)
}

// subset keeps some elements of a list of n; of nodes that become leaves they are
// what leaves have, where clear says so.
func subset[T any](v []T, n int, keep []int, leaf map[int]bool, clear bool, empty T) ([]T, error) {
	if len(v) != n {
		return nil, refuse("a list of %d elements for %d nodes", len(v), n)
	}
	out := make([]T, len(keep))
	for i, at := range keep {
		out[i] = v[at]
		if leaf[at] && clear {
			out[i] = empty
		}
	}
	return out, nil
}

func (t *treeNode) leafList(name string, weights []leafWeight) (any, error) {
	pick := func(f func(leafWeight) int64) []int64 {
		out := make([]int64, len(weights))
		for i, w := range weights {
			out[i] = f(w)
		}
		return out
	}
	switch strings.TrimPrefix(name, t.prefix) {
	case "_treeids":
		return pick(func(w leafWeight) int64 { return w.tree }), nil
	case "_nodeids":
		return pick(func(w leafWeight) int64 { return w.node }), nil
	case "_ids":
		return pick(func(w leafWeight) int64 { return w.id }), nil
	}
	values := make([]float64, len(weights))
	for i, w := range weights {
		values[i] = w.value
	}
	switch t.lists[name].(type) {
	case []float32:
		narrow := make([]float32, len(values))
		for i, v := range values {
			narrow[i] = float32(v)
		}
		return t.asTensor(name, narrow, nil)
	case []float64:
		return t.asTensor(name, values, nil)
	}
	return nil, refuse("%q is no list of weights", name)
}

// asTensor wraps a list whose attribute is a tensor.
func (t *treeNode) asTensor(name string, list any, err error) (any, error) {
	if err != nil || !strings.HasSuffix(name, "_as_tensor") {
		return list, err
	}
	switch v := list.(type) {
	case []float32:
		return engine.Of(v, len(v))
	case []float64:
		return engine.Of(v, len(v))
	}
	return nil, refuse("%q is no list of numbers", name)
}
