// Package treeshap computes exact Shapley values, and pairwise Shapley
// interactions, of tree ensembles: the path-dependent ones that XGBoost and
// LightGBM call contributions (Path), and those against a background set
// (Background), which shap calls interventional.
//
// It owns the mathematics and the prepared state of one ensemble. It reads no
// file, knows no feature name and no request, and samples nothing: every number
// is a closed form or a quadrature that is exact for the polynomial at hand.
//
// Invariants: prepared state is immutable and safe for concurrent use; routing
// is tree.Tree.Left on inputs rounded as the ensemble rounds them, so an
// explanation takes the same branches as the prediction; a row's bits depend
// neither on the rows beside it nor on how many there are; base + sum(phi) is
// the ensemble's margin in float64.
//
// One formula holds for all of it. For one leaf of value v and its distinct path
// features, let o_j be 1 when the row satisfies all the leaf's splits on j, and
// r_j either the product of the cover ratios of those splits (path-dependent) or
// the same bit of a background row. Then
//
//	phi_i = v * Int_0^1 (o_i - r_i) * prod_{j != i} (r_j (1-t) + o_j t) dt
//
// and a second difference factor in place of a second product term gives the
// interaction of two features.
package treeshap

import (
	"errors"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// ErrNoCovers is returned by Prepare for an ensemble whose file keeps no covers:
// path-dependent values have no basis there.
var ErrNoCovers = errors.New("the model file keeps no node covers, so path-dependent Shapley values cannot be computed from it; give a background")

// maxDepth bounds the depth of a tree, and with it the stack of a walk.
const maxDepth = 4096

// node is one node of a tree in depth-first order, left child first: the left
// child of node i is i+1 and its right child is the node after the left one's
// subtree.
type node struct {
	// src is the node's index in the tree.Tree.
	src int32
	// end is the first node after this one's subtree.
	end int32
	// feature and left describe the edge that leads here; -1 at the root.
	feature int32
	left    bool
	leaf    bool
	// prev is the nearest node above whose edge tests the same feature, or -1.
	prev int32
	// pos is the place of the edge's feature among the distinct features of the
	// path, in order of first use; distinct how many there are down to here.
	pos, distinct int32
	// leafIndex counts the leaves from the left.
	leafIndex int32
}

// layout is a tree in depth-first order.
type layout struct {
	nodes []node
	// depth is the largest number of edges, distinct of distinct features, on
	// any path.
	depth, distinct, leaves int
	// stride is the number of values a leaf.
	stride int
}

// lay puts t in depth-first order and checks what a walk relies on.
func lay(e *tree.Ensemble, t *tree.Tree) (*layout, error) {
	stride, err := checkTree(t, e.Features, e.Outputs)
	if err != nil {
		return nil, err
	}
	l := &layout{nodes: make([]node, 0, len(t.Nodes)), stride: stride}
	type frame struct {
		src, parent int32
		depth       int
		left        bool
	}
	stack := []frame{{src: 0, parent: -1}}
	// parents finds the way up; open the nodes whose subtree has not ended.
	parents := make([]int32, 0, len(t.Nodes))
	for len(stack) > 0 {
		f := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if f.depth > maxDepth {
			return nil, fmt.Errorf("tree deeper than %d: %w", maxDepth, engine.ErrTooLarge)
		}
		if len(l.nodes) == len(t.Nodes) {
			return nil, fmt.Errorf("a node has more than one parent: %w", engine.ErrCorrupt)
		}
		src := &t.Nodes[f.src]
		n := node{src: f.src, feature: -1, prev: -1, pos: -1, left: f.left, leaf: src.IsLeaf()}
		if f.parent >= 0 {
			l.place(&n, f.parent, parents, t, e.Groups)
		}
		i := int32(len(l.nodes))
		parents = append(parents, f.parent)
		l.depth = max(l.depth, f.depth)
		l.distinct = max(l.distinct, int(n.distinct))
		if n.leaf {
			n.leafIndex = int32(l.leaves)
			l.leaves++
		} else {
			stack = append(stack, frame{src.Right, i, f.depth + 1, false}, frame{src.Left, i, f.depth + 1, true})
		}
		l.nodes = append(l.nodes, n)
	}
	for i := len(l.nodes) - 1; i >= 0; i-- {
		l.nodes[i].end = max(l.nodes[i].end, int32(i+1))
		if p := parents[i]; p >= 0 {
			l.nodes[p].end = max(l.nodes[p].end, l.nodes[i].end)
		}
	}
	return l, nil
}

// place fills what n owes to the path above it.
func (l *layout) place(n *node, parent int32, parents []int32, t *tree.Tree, groups []int32) {
	n.feature = t.Nodes[l.nodes[parent].src].Feature
	if groups != nil {
		n.feature = groups[n.feature]
	}
	n.distinct = l.nodes[parent].distinct
	for p := parent; p > 0; p = parents[p] {
		if l.nodes[p].feature == n.feature {
			n.prev, n.pos = p, l.nodes[p].pos
			return
		}
	}
	n.pos = n.distinct
	n.distinct++
}

// right returns the index of node i's right child.
func (l *layout) right(i int32) int32 { return l.nodes[i+1].end }

// checkEnsemble checks the shape of e as a whole.
func checkEnsemble(e *tree.Ensemble) error {
	switch {
	case e == nil:
		return errors.New("no ensemble")
	case e.Features <= 0 || e.Outputs <= 0:
		return fmt.Errorf("ensemble of %d features and %d outputs: %w", e.Features, e.Outputs, engine.ErrCorrupt)
	case len(e.Base) != e.Outputs:
		return fmt.Errorf("ensemble of %d outputs has %d base values: %w", e.Outputs, len(e.Base), engine.ErrCorrupt)
	case e.Groups != nil && len(e.Groups) != e.Features:
		return fmt.Errorf("ensemble of %d features has %d groups: %w", e.Features, len(e.Groups), engine.ErrCorrupt)
	}
	return nil
}

// checkTree checks what a walk of t relies on and returns the values a leaf.
func checkTree(t *tree.Tree, features, outputs int) (stride int, err error) {
	stride = 1
	if t.Output < 0 {
		stride = outputs
	}
	n := len(t.Nodes)
	if n == 0 || n > math.MaxInt32 || len(t.Values) != n*stride || t.Output >= outputs {
		return 0, fmt.Errorf("tree of %d nodes, %d values, output %d: %w", n, len(t.Values), t.Output, engine.ErrCorrupt)
	}
	for i := range t.Nodes {
		nd := &t.Nodes[i]
		if nd.IsLeaf() {
			continue
		}
		if int(nd.Left) <= i || int(nd.Right) <= i || int(nd.Left) >= n || int(nd.Right) >= n || nd.Left == nd.Right {
			return 0, fmt.Errorf("node %d has children %d and %d of %d: %w", i, nd.Left, nd.Right, n, engine.ErrCorrupt)
		}
		if nd.Feature < 0 || int(nd.Feature) >= features {
			return 0, fmt.Errorf("node %d tests feature %d of %d: %w", i, nd.Feature, features, engine.ErrCorrupt)
		}
		if nd.Rule == tree.InSet && (nd.Set < 0 || int(nd.Set) >= len(t.Sets)) {
			return 0, fmt.Errorf("node %d uses category set %d of %d: %w", i, nd.Set, len(t.Sets), engine.ErrCorrupt)
		}
	}
	return stride, nil
}

// round copies src to dst as the ensemble rounds its inputs.
func round(dst, src []float64, float32s bool) {
	if !float32s {
		copy(dst, src)
		return
	}
	for i, v := range src {
		dst[i] = float64(float32(v))
	}
}

// checkSizes returns the number of rows when rows and dst fit together.
func checkSizes(rows, dst []float64, features, perRow int) (int, error) {
	if len(rows)%features != 0 {
		return 0, fmt.Errorf("%d values are no whole number of rows of %d features", len(rows), features)
	}
	n := len(rows) / features
	if len(dst) != n*perRow {
		return 0, fmt.Errorf("destination of %d values for %d rows of %d", len(dst), n, perRow)
	}
	return n, nil
}

// shareInteractions turns one output's raw matrix m (width by width: the values
// phi on the diagonal, the two halves of each pair's index off it) into the form
// shap and XGBoost print: half of each pair's interaction in [i][j] and in
// [j][i], and on the diagonal what is left of phi.
func shareInteractions(m []float64, width int) {
	for i := range width {
		for j := i + 1; j < width; j++ {
			half := (m[i*width+j] + m[j*width+i]) / 2
			m[i*width+j], m[j*width+i] = half, half
		}
	}
	for i := range width {
		for j := range width {
			if j != i {
				m[i*width+i] -= m[i*width+j]
			}
		}
	}
}
