package xgboost

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// maxCategory is XGBoost's own bound on category codes; maxSetWords bounds the
// memory of all category sets of a model.
const (
	maxCategory = 1 << 24
	maxSetWords = 1 << 25
)

// dart reads a DART booster: a gbtree and one weight a tree.
func (l *learner) dart(booster object) (engine.Model, error) {
	inner, err := booster.object("gbtree")
	if err != nil {
		return nil, err
	}
	drop, err := booster.numbers("weight_drop")
	if err != nil {
		return nil, err
	}
	return l.trees(inner, &drop)
}

// knows refuses an object with members that no version so far has written there: what another
// makes of the trees, as 3.3 did of the weights that dart had kept elsewhere, nobody here knows.
func knows(o object, name string, members ...string) error {
	for _, m := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(members, m) {
			return &engine.UnsupportedError{What: fmt.Sprintf("member %q of %s, which a later XGBoost writes", short(m), name)}
		}
	}
	return nil
}

// trees reads a gbtree booster; weights has one factor a tree, or is nil.
func (l *learner) trees(booster object, weights *numbers) (engine.Model, error) {
	model, err := booster.object("model")
	if err != nil {
		return nil, err
	}
	list, err := model.list("trees")
	if err != nil {
		return nil, err
	}
	outputs, err := model.numbers("tree_info")
	if err == nil {
		err = knows(booster, "gradient_booster", "name", "model", "weight_drop")
	}
	if err == nil {
		err = knows(model, "model", "trees", "tree_info", "gbtree_model_param", "iteration_indptr", "cats", "weight_drop")
	}
	if err != nil {
		return nil, err
	}
	// Where dart is a kind of gbtree they are the booster's (3.3) or its model's (3.4).
	for _, o := range []object{booster, model} {
		if _, ok := o["weight_drop"]; !ok || weights != nil {
			continue
		}
		drop, err := o.numbers("weight_drop")
		if err != nil {
			return nil, err
		}
		if drop.Len() > 0 {
			weights = &drop
		}
	}
	if outputs.Len() != len(list) || weights != nil && weights.Len() != len(list) {
		return nil, corruptf("%d trees, but tree_info or weight_drop is of another length", len(list))
	}
	e := &tree.Ensemble{
		Features: l.features, Outputs: l.outputs, Float32: true,
		Covers: tree.CoverHessian, Link: l.objective.link,
		Trees: make([]tree.Tree, len(list)),
		Base:  make([]float64, l.outputs),
	}
	for k, b := range l.base {
		e.Base[k] = float64(b)
	}
	words := 0
	for i := range list {
		o, ok := list[i].(object)
		if !ok {
			return nil, corruptf("tree %d is not an object", i)
		}
		r := treeReader{o: o, learner: l, weight: 1, words: &words}
		if r.output, ok = outputs.Int(i); !ok {
			return nil, corruptf("tree %d: its class is not an integer", i)
		}
		if weights != nil {
			r.weight = float32(weights.At(i))
		}
		if e.Trees[i], err = r.read(); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	if err := l.categories(model); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	l.detail("trees", strconv.Itoa(len(list)))
	return tree.NewModel(e, l.info), nil
}

// treeReader reads one tree.
type treeReader struct {
	o       object
	learner *learner
	output  int32
	weight  float32
	words   *int

	n                        int
	left, right, feature     numbers
	condition, defaultLeft   numbers
	splitType, hessian       numbers
	width                    int     // values a leaf
	leafWeights, baseWeights numbers // of vector leaves
	sets                     map[int32]tree.Bitset
}

func (r *treeReader) read() (tree.Tree, error) {
	if err := r.arrays(); err != nil {
		return tree.Tree{}, err
	}
	if err := r.categorySets(); err != nil {
		return tree.Tree{}, err
	}
	order, position, err := r.reachable()
	if err != nil {
		return tree.Tree{}, err
	}
	t := tree.Tree{
		Nodes:  make([]tree.Node, len(order)),
		Values: make([]float64, len(order)*r.width),
		Output: int(r.output),
	}
	if r.width > 1 {
		t.Output = -1
	}
	for at, id := range order {
		n := &t.Nodes[at]
		if r.hessian.Len() > 0 {
			n.Cover = r.hessian.At(int(id))
		}
		if r.isLeaf(int(id)) {
			if err := r.leaf(int(id), t.Values[at*r.width:][:r.width]); err != nil {
				return tree.Tree{}, err
			}
			continue
		}
		if err := r.split(&t, n, id, position); err != nil {
			return tree.Tree{}, err
		}
	}
	return t, nil
}

// arrays fetches the tree's arrays and checks that they are of one length.
func (r *treeReader) arrays() error {
	param, err := r.o.object("tree_param")
	if err != nil {
		return err
	}
	if r.n, err = param.count("num_nodes", tree.MaxNodes); err != nil {
		return err
	}
	if r.width, err = param.count("size_leaf_vector", tree.MaxOutputs); err != nil {
		return err
	}
	r.width = max(r.width, 1) // 0 in versions before 2.0
	if r.width > 1 && r.width != r.learner.outputs {
		return corruptf("leaves of %d values for %d outputs", r.width, r.learner.outputs)
	}
	for _, f := range []struct {
		key      string
		into     *numbers
		optional bool
	}{
		{"left_children", &r.left, false},
		{"right_children", &r.right, false},
		{"split_indices", &r.feature, false},
		{"split_conditions", &r.condition, false},
		{"default_left", &r.defaultLeft, false},
		{"split_type", &r.splitType, true},
		{"sum_hessian", &r.hessian, r.width > 1}, // vector leaves had none before 3.1
	} {
		if *f.into, err = r.o.optionalNumbers(f.key); err != nil {
			return err
		}
		if f.into.Len() != r.n && (!f.optional || f.into.Len() != 0) {
			return corruptf("%q has %d elements for %d nodes", f.key, f.into.Len(), r.n)
		}
	}
	if r.n == 0 {
		return corruptf("no nodes")
	}
	if r.width == 1 {
		return nil
	}
	if r.leafWeights, err = r.o.optionalNumbers("leaf_weights"); err != nil {
		return err
	}
	if r.baseWeights, err = r.o.optionalNumbers("base_weights"); err != nil {
		return err
	}
	return nil
}

func (r *treeReader) isLeaf(id int) bool {
	v, ok := r.left.Int(id)
	return ok && v == -1
}

// reachable returns the node ids breadth first from the root, and each id's
// position there. Pruned nodes stay in the file's arrays but are in no tree.
func (r *treeReader) reachable() (order, position []int32, err error) {
	position = make([]int32, r.n)
	order = append(make([]int32, 0, r.n), 0)
	for i := 0; i < len(order); i++ {
		id := int(order[i])
		if r.isLeaf(id) {
			continue
		}
		for _, children := range [2]numbers{r.left, r.right} {
			c, ok := children.Int(id)
			if !ok || c <= 0 || int(c) >= r.n || position[c] != 0 {
				return nil, nil, corruptf("node %d: a child that is no node, or has another parent", id)
			}
			position[c] = int32(len(order))
			order = append(order, c)
		}
	}
	return order, position, nil
}

// leaf writes the values of leaf id, times the tree's weight, in float32.
func (r *treeReader) leaf(id int, values []float64) error {
	from, at := r.condition, id
	if r.width > 1 {
		from, at = r.baseWeights, id*r.width
		if r.leafWeights.Len() > 0 { // since 3.1: leaves only, numbered in right_children
			leaf, ok := r.right.Int(id)
			if !ok || leaf < 0 {
				return corruptf("node %d: not the number of a leaf", id)
			}
			from, at = r.leafWeights, int(leaf)*r.width
		}
	}
	if at+len(values) > from.Len() {
		return corruptf("node %d: its leaf values are missing", id)
	}
	for k := range values {
		values[k] = float64(r.weight * float32(from.At(at+k)))
	}
	return nil
}

// split fills in inner node id. A categorical split lists the categories that
// go right, so its children are exchanged: InSet sends its set left.
func (r *treeReader) split(t *tree.Tree, n *tree.Node, id int32, position []int32) error {
	feature, ok := r.feature.Int(int(id))
	if !ok {
		return corruptf("node %d: its feature is not an integer", id)
	}
	left, _ := r.left.Int(int(id))
	right, _ := r.right.Int(int(id))
	n.Feature = feature
	n.Left, n.Right = position[left], position[right]
	n.DefaultLeft = r.defaultLeft.At(int(id)) != 0
	if r.splitType.Len() == 0 || r.splitType.At(int(id)) == 0 {
		n.Rule = tree.Less
		n.Threshold = float64(float32(r.condition.At(int(id))))
		return nil
	}
	set, ok := r.sets[id]
	if !ok {
		return corruptf("node %d: a categorical split without categories", id)
	}
	n.Rule = tree.InSet
	n.Left, n.Right, n.DefaultLeft = n.Right, n.Left, !n.DefaultLeft
	n.Set = int32(len(t.Sets))
	t.Sets = append(t.Sets, set)
	if feature >= 0 && int(feature) < len(r.learner.info.Features) {
		r.learner.info.Features[feature].Categorical = true
	}
	return nil
}

// categorySets reads the sets of the categorical splits, by node id.
func (r *treeReader) categorySets() error {
	var nodes, segments, sizes, all numbers
	for key, into := range map[string]*numbers{
		"categories_nodes": &nodes, "categories_segments": &segments,
		"categories_sizes": &sizes, "categories": &all,
	} {
		var err error
		if *into, err = r.o.optionalNumbers(key); err != nil {
			return err
		}
	}
	if segments.Len() != nodes.Len() || sizes.Len() != nodes.Len() {
		return corruptf("%d categorical nodes, but their segments are of another number", nodes.Len())
	}
	r.sets = make(map[int32]tree.Bitset, nodes.Len())
	listed := 0
	for i := range nodes.Len() {
		id, ok1 := nodes.Int(i)
		begin, ok2 := segments.Int(i)
		size, ok3 := sizes.Int(i)
		if !ok1 || !ok2 || !ok3 || begin < 0 || size < 0 || int(begin)+int(size) > all.Len() {
			return corruptf("categories of split %d are out of range", i)
		}
		// Segments do not overlap, else a small file could ask for endless work.
		if listed += int(size); listed > all.Len() {
			return corruptf("the categories of split %d overlap with others", i)
		}
		set, err := r.set(all, int(begin), int(size))
		if err != nil {
			return err
		}
		r.sets[id] = set
	}
	return nil
}

func (r *treeReader) set(all numbers, begin, size int) (tree.Bitset, error) {
	top := int32(-1)
	for i := begin; i < begin+size; i++ {
		c, ok := all.Int(i)
		if !ok || c < 0 || c >= maxCategory {
			return nil, corruptf("a category is out of range")
		}
		top = max(top, c)
	}
	set := make(tree.Bitset, int(top+64)/64)
	if *r.words += len(set); *r.words > maxSetWords {
		return nil, fmt.Errorf("category sets: %w", engine.ErrTooLarge)
	}
	for i := begin; i < begin+size; i++ {
		c, _ := all.Int(i)
		set[c/64] |= 1 << (c % 64)
	}
	return set, nil
}
