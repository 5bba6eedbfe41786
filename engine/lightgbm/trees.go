package lightgbm

import (
	"bytes"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// endsTrees reports whether no tree follows a line. LightGBM 2.0 has none of its own for that.
func endsTrees(line []byte, version string) bool {
	return string(line) == "end of trees" || version == "v2" && string(line) == "feature importances:"
}

// readTrees reads the blocks from the first "Tree=" to "end of trees".
func readTrees(p *parser, h *header, e *tree.Ensemble) error {
	for {
		if p.done() {
			return corruptf("the file ends before \"end of trees\"")
		}
		line := bytes.TrimSpace(p.line())
		if len(line) == 0 {
			continue
		}
		if endsTrees(line, h.version) {
			break
		}
		if !bytes.HasPrefix(line, []byte("Tree=")) {
			return corruptf("a line that is neither a tree nor the end of trees")
		}
		if len(e.Trees) == maxTrees {
			return fmt.Errorf("more than %d trees: %w", maxTrees, engine.ErrTooLarge)
		}
		t, covered, err := readTree(p.block(nil))
		if err != nil {
			return fmt.Errorf("tree %d: %w", len(e.Trees), err)
		}
		if !covered {
			e.Covers = tree.CoverNone
		}
		t.Output = len(e.Trees) % h.outputs
		e.Trees = append(e.Trees, t)
	}
	if h.trees >= 0 && h.trees != len(e.Trees) {
		return corruptf("%d trees, but tree_sizes announces %d", len(e.Trees), h.trees)
	}
	if len(e.Trees)%h.outputs != 0 {
		return corruptf("%d trees do not make whole iterations of %d", len(e.Trees), h.outputs)
	}
	return nil
}

// treeFields are the parsed arrays of one tree.
type treeFields struct {
	leaves                         int
	feature, decision, left, right []int32
	threshold                      []float64
	leafValue                      []float64
	leafCount, internalCount       []float64
	linear                         []tree.LinearLeaf
	sets                           []tree.Bitset
}

// readTree translates one tree; covered is false where a tree with splits has
// no row counts.
func readTree(f fields) (t tree.Tree, covered bool, err error) {
	a, err := parseTree(f)
	if err != nil {
		return t, false, err
	}
	inner := a.leaves - 1
	t.Nodes = make([]tree.Node, 0, inner+a.leaves)
	t.Values = make([]float64, inner+a.leaves)
	t.Sets = a.sets
	if a.linear != nil {
		t.Linear = make([]tree.LinearLeaf, inner+a.leaves)
	}
	// Breadth first from the root. A reference below 0 is the complement of a
	// leaf's number. Every node is referred to once, so they come out even.
	refs := append(make([]int32, 0, inner+a.leaves), 0)
	if inner == 0 {
		refs[0] = ^int32(0)
	}
	seen := make(map[int32]bool, inner+a.leaves)
	for i := 0; i < len(refs); i++ {
		ref := refs[i]
		if seen[ref] || int(ref) >= inner || int(^ref) >= a.leaves {
			return t, false, corruptf("a child that is no node, or has two parents")
		}
		seen[ref] = true
		if ref < 0 {
			t.Nodes = append(t.Nodes, a.leaf(&t, i, int(^ref)))
			continue
		}
		n, err := a.split(int(ref))
		if err != nil {
			return t, false, fmt.Errorf("split %d: %w", ref, err)
		}
		n.Left, n.Right = int32(len(refs)), int32(len(refs)+1)
		t.Nodes = append(t.Nodes, n)
		refs = append(refs, a.left[ref], a.right[ref])
	}
	if len(refs) != inner+a.leaves {
		return t, false, corruptf("%d of %d nodes are reached from the root", len(refs), inner+a.leaves)
	}
	return t, inner == 0 || a.leafCount != nil && a.internalCount != nil, nil
}

func (a *treeFields) leaf(t *tree.Tree, at, leaf int) tree.Node {
	t.Values[at] = a.leafValue[leaf]
	if a.linear != nil {
		l := &a.linear[leaf]
		if len(l.Features) == 0 {
			t.Values[at] = l.Const
		}
		t.Linear[at] = *l
	}
	var n tree.Node
	if a.leafCount != nil {
		n.Cover = a.leafCount[leaf]
	}
	return n
}

// The bits of decision_type.
const (
	categoricalBit = 1
	defaultLeftBit = 2
	missingShift   = 2
)

func (a *treeFields) split(i int) (tree.Node, error) {
	n := tree.Node{Feature: a.feature[i], DefaultLeft: a.decision[i]&defaultLeftBit != 0}
	if a.internalCount != nil {
		n.Cover = a.internalCount[i]
	}
	if a.decision[i] < 0 || a.decision[i] > 15 {
		return n, corruptf("unknown bits in decision_type")
	}
	if a.decision[i]&categoricalBit != 0 {
		set := a.threshold[i]
		if set != math.Trunc(set) || set < 0 || int(set) >= len(a.sets) {
			return n, corruptf("a category set that is not there")
		}
		// Whatever the missing type says, NaN is in no set and goes right.
		n.Rule, n.Missing, n.Set, n.DefaultLeft = tree.InSet, tree.MissingNone, int32(set), false
		return n, nil
	}
	n.Rule, n.Threshold = tree.LessEqual, a.threshold[i]
	switch a.decision[i] >> missingShift {
	case 0:
		n.Missing = tree.MissingNone
	case 1:
		n.Missing = tree.MissingZero
	case 2:
		n.Missing = tree.MissingNaN
	default:
		return n, corruptf("unknown missing type in decision_type")
	}
	return n, nil
}

func parseTree(f fields) (*treeFields, error) {
	a := &treeFields{}
	var err error
	if a.leaves, err = f.count("num_leaves", 1, tree.MaxNodes/2); err != nil {
		return nil, err
	}
	if a.leafValue, err = f.floats("leaf_value", a.leaves, false); err != nil {
		return nil, err
	}
	if a.leafCount, err = f.floats("leaf_count", a.leaves, true); err != nil {
		return nil, err
	}
	inner := a.leaves - 1
	for _, x := range []struct {
		key  string
		into *[]int32
	}{
		{"split_feature", &a.feature},
		{"decision_type", &a.decision},
		{"left_child", &a.left},
		{"right_child", &a.right},
	} {
		if *x.into, err = f.integers(x.key, inner); err != nil {
			return nil, err
		}
	}
	if a.threshold, err = f.floats("threshold", inner, false); err != nil {
		return nil, err
	}
	if a.internalCount, err = f.floats("internal_count", inner, true); err != nil {
		return nil, err
	}
	if a.sets, err = parseSets(f); err != nil {
		return nil, err
	}
	if string(bytes.TrimSpace(f["is_linear"])) == "1" {
		a.linear, err = parseLinear(f, a.leaves)
	}
	return a, err
}

// parseSets reads the bitsets of the categorical splits: 32-bit words, those of
// set i from cat_boundaries[i] to cat_boundaries[i+1].
func parseSets(f fields) ([]tree.Bitset, error) {
	count := 0
	if _, ok := f["num_cat"]; ok {
		var err error
		if count, err = f.count("num_cat", 0, tree.MaxNodes/2); err != nil {
			return nil, err
		}
	}
	if count == 0 {
		return nil, nil
	}
	bounds, err := f.integers("cat_boundaries", count+1)
	if err != nil {
		return nil, err
	}
	words, err := f.words("cat_threshold", int(max(bounds[count], 0)))
	if err != nil {
		return nil, err
	}
	sets := make([]tree.Bitset, count)
	for i := range sets {
		from, to := bounds[i], bounds[i+1]
		if from < 0 || to < from || int(to) > len(words) {
			return nil, corruptf("\"cat_boundaries\" is not ascending")
		}
		set := make(tree.Bitset, (to-from+1)/2)
		for j, w := range words[from:to] {
			set[j/2] |= uint64(w) << (32 * (j % 2))
		}
		sets[i] = set
	}
	return sets, nil
}

// parseLinear reads the linear models of the leaves.
func parseLinear(f fields, leaves int) ([]tree.LinearLeaf, error) {
	consts, err := f.floats("leaf_const", leaves, false)
	if err != nil {
		return nil, err
	}
	counts, err := f.integers("num_features", leaves)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, c := range counts {
		if c < 0 || c > tree.MaxFeatures {
			return nil, corruptf("a linear leaf of %d features", c)
		}
		total += int(c)
	}
	features, err := f.integers("leaf_features", total)
	if err != nil {
		return nil, err
	}
	coefs, err := f.floats("leaf_coeff", total, false)
	if err != nil {
		return nil, err
	}
	out := make([]tree.LinearLeaf, leaves)
	at := 0
	for i, c := range counts {
		end := at + int(c)
		out[i] = tree.LinearLeaf{Const: consts[i], Features: features[at:end:end], Coefs: coefs[at:end:end]}
		at = end
	}
	return out, nil
}
