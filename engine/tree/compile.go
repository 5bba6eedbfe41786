package tree

import (
	"math"
	"sync"
)

// key is a value's bits in an order that unsigned integers compare as floats
// do. With keys a step down a tree is arithmetic without a branch: a comparison
// of floats, whose result addresses the next node, would be compiled to a jump,
// which on real data is mispredicted every other time.
type key interface{ uint32 | uint64 }

// Both zeros have one key; NaN, whatever its bits, has the largest.
func key32(v float32) uint32 {
	b := math.Float32bits(v)
	switch {
	case v == 0:
		return 1 << 31
	case v != v:
		return math.MaxUint32
	}
	return b ^ (uint32(int32(b)>>31) | 1<<31)
}

func key64(v float64) uint64 {
	b := math.Float64bits(v)
	switch {
	case v == 0:
		return 1 << 63
	case v != v:
		return math.MaxUint64
	}
	return b ^ (uint64(int64(b)>>63) | 1<<63)
}

// keyOf returns v's key in the low bits that T needs.
func keyOf[T float](v T) uint64 {
	if isFloat32(v) {
		return uint64(key32(float32(v)))
	}
	return key64(float64(v))
}

// split is a compiled node: 16 bytes in float32, 24 in float64. The children of
// an inner node are neighbours: the right one at next, the left one after it. A
// leaf leads to itself, so that walks of several rows or trees can share one
// loop whose length is the deepest tree's.
type split[K key] struct {
	// threshold is the key that a value's key must be below to go left. A
	// leaf's is 0, which none is below.
	threshold K
	// column is twice the feature, plus 1 where NaN goes left.
	column uint32
	next   int32
}

// program is a compiled ensemble.
type program[T float, K key] struct {
	source   *Ensemble
	features int
	outputs  int
	base     []T
	splits   []split[K]
	// leaves has the value of each leaf, the first of a vector leaf, by the
	// index of its split.
	leaves []T
	trees  []compiledTree
	// values holds the vectors of vector leaves: those of the leaf compiled to
	// index i start at values[vectorAt[i]].
	values   []T
	vectorAt []int32
	// keys keeps buffers for the keys of a block of rows.
	keys sync.Pool
	// wide is for many rows at once; nil where walks are faster.
	wide *wide[T, K]
}

type compiledTree struct {
	root, depth int32
	output      int32
	// plain says that every decision is x < threshold with a fixed way for NaN;
	// the other trees are walked in their source form.
	plain bool
}

func compile[T float, K key](e *Ensemble) *program[T, K] {
	p := &program[T, K]{source: e, features: e.Features, outputs: e.Outputs, trees: make([]compiledTree, len(e.Trees))}
	p.base = make([]T, len(e.Base))
	for i, b := range e.Base {
		p.base[i] = T(b)
	}
	total := 0
	for i := range e.Trees {
		total += len(e.Trees[i].Nodes)
	}
	p.splits = make([]split[K], 0, total)
	p.leaves = make([]T, total)
	c := compiler[T, K]{p: p}
	for i := range e.Trees {
		p.trees[i] = c.tree(&e.Trees[i])
	}
	if hasWide() {
		if w := newWide[T, K](e); w != nil && w.weigh(e) {
			p.wide = w
		}
	}
	return p
}

type compiler[T float, K key] struct {
	p     *program[T, K]
	queue []compileItem
}

type compileItem struct{ node, at, depth int32 }

func (c *compiler[T, K]) tree(t *Tree) compiledTree {
	root := int32(len(c.p.splits))
	out := compiledTree{root: root, output: int32(t.Output)}
	if !isPlain[T](t) {
		return out
	}
	out.plain = true
	c.p.splits = append(c.p.splits, split[K]{})
	if t.Output < 0 && c.p.vectorAt == nil {
		c.p.vectorAt = make([]int32, cap(c.p.splits))
	}
	c.queue = append(c.queue[:0], compileItem{0, root, 0})
	// Breadth first: the levels every row visits lie together.
	for i := 0; i < len(c.queue); i++ {
		it := c.queue[i]
		n := &t.Nodes[it.node]
		if n.IsLeaf() {
			c.leaf(t, it)
			out.depth = max(out.depth, it.depth)
			continue
		}
		right := int32(len(c.p.splits))
		c.p.splits = append(c.p.splits, split[K]{}, split[K]{})
		threshold, swap, _ := lessForm[T](n)
		first, second, nanLeft := n.Left, n.Right, t.Left(n, math.NaN())
		if swap {
			first, second, nanLeft = second, first, !nanLeft
		}
		s := split[K]{threshold: K(keyOf(threshold)), column: uint32(n.Feature) << 1, next: right}
		if nanLeft {
			s.column |= 1
		}
		c.p.splits[it.at] = s
		c.queue = append(c.queue, compileItem{second, right, it.depth + 1}, compileItem{first, right + 1, it.depth + 1})
	}
	return out
}

func (c *compiler[T, K]) leaf(t *Tree, it compileItem) {
	k := len(t.Values) / len(t.Nodes)
	vector := t.Values[int(it.node)*k:][:k]
	c.p.splits[it.at] = split[K]{next: it.at}
	c.p.leaves[it.at] = T(vector[0])
	if t.Output >= 0 {
		return
	}
	c.p.vectorAt[it.at] = int32(len(c.p.values))
	for _, v := range vector {
		c.p.values = append(c.p.values, T(v))
	}
}

// isPlain reports whether every decision of t can be written x < threshold.
func isPlain[T float](t *Tree) bool {
	if t.Linear != nil {
		return false
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.IsLeaf() {
			continue
		}
		if _, _, ok := lessForm[T](n); !ok || !zeroIsOrdinary(n) {
			return false
		}
	}
	return true
}

// lessForm writes a rule as x < threshold, with the children swapped or not. ok
// is false where that cannot be: sets, equality, and x <= +Inf.
func lessForm[T float](n *Node) (threshold T, swap, ok bool) {
	t := T(n.Threshold)
	switch n.Rule {
	case Less:
		return t, false, true
	case GreaterEqual:
		return t, true, true
	case LessEqual, Greater:
		if math.IsInf(float64(t), 1) {
			return 0, false, false
		}
		return nextAbove(t), n.Rule == Greater, true
	}
	return 0, false, false
}

// nextAbove returns the smallest T above t, so that x <= t is x < nextAbove(t).
func nextAbove[T float](t T) T {
	if isFloat32(t) {
		return T(math.Nextafter32(float32(t), float32(math.Inf(1))))
	}
	return T(math.Nextafter(float64(t), math.Inf(1)))
}

// zeroIsOrdinary reports whether zeros, where they count as missing at n, go
// the way their comparison would send them anyhow.
func zeroIsOrdinary(n *Node) bool {
	if n.Missing != MissingZero {
		return true
	}
	if n.Rule != LessEqual {
		return false
	}
	if n.DefaultLeft {
		return n.Threshold >= ZeroThreshold
	}
	return n.Threshold < -ZeroThreshold
}
