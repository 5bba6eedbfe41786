package catboost

import (
	"fmt"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// nanValues is what NaN is taken for before it is compared. The names mean what
// they say: with AsTrue it is also above the border of the largest float32, which
// the library puts there to tell NaN from every finite value.
var nanValues = map[string]float32{
	"AsIs":    float32(math.NaN()),
	"AsFalse": float32(math.Inf(-1)),
	"AsTrue":  float32(math.Inf(1)),
}

// maxLevels bounds the levels of an oblivious tree; the library's are 16.
const maxLevels = 27

// readEnsemble translates the trees.
func (r *reader) readEnsemble() (*tree.Ensemble, error) {
	d := r.doc
	if len(d.Oblivious) > 0 && len(d.Trees) > 0 {
		return nil, corruptf("both oblivious_trees and trees")
	}
	if n := len(d.Oblivious) + len(d.Trees); n > maxTrees {
		return nil, corruptf("%d trees, more than %d", n, maxTrees)
	}
	e := &tree.Ensemble{Covers: tree.CoverWeight}
	var err error
	if e.Outputs, err = r.outputs(); err != nil {
		return nil, err
	}
	if e.Base, err = r.base(e.Outputs); err != nil {
		return nil, err
	}
	b := &builder{reader: r, ensemble: e, scale: d.Scale.scale}
	if d.Scale.bias == nil {
		b.scale = 1
	}
	for i := range d.Oblivious {
		if err := b.oblivious(&d.Oblivious[i]); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	for i, n := range d.Trees {
		if err := b.nonSymmetric(n); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	if b.unweighted {
		e.Covers = tree.CoverNone
	}
	e.Features = len(r.features)
	if len(r.categorical) > 0 {
		r.atLeastOne()
		e.Features, e.Groups = len(r.columns.list), r.columns.groups()
	}
	return e, nil
}

// outputs tells the number of margins: that of the first leaf, which every other
// must have.
func (r *reader) outputs() (int, error) {
	d := r.doc
	k := max(1, len(d.Scale.bias))
	switch {
	case len(d.Oblivious) > 0:
		t := &d.Oblivious[0]
		if len(t.Splits) > maxLevels {
			return 0, corruptf("an oblivious tree of %d levels", len(t.Splits))
		}
		k = len(t.Values) >> len(t.Splits)
	case len(d.Trees) > 0:
		n := d.Trees[0]
		for n != nil && n.Value == nil {
			n = n.Left
		}
		if n == nil {
			return 0, corruptf("a tree has no leaf")
		}
		k = len(n.Value)
	}
	if k < 1 || k > tree.MaxOutputs {
		return 0, corruptf("%d outputs, not between 1 and %d", k, tree.MaxOutputs)
	}
	return k, nil
}

// base returns the bias of each margin. Older files have one for all, which is 0
// where there are several.
func (r *reader) base(outputs int) ([]float64, error) {
	bias := r.doc.Scale.bias
	if len(bias) == outputs {
		return bias, nil
	}
	if len(bias) > 1 || len(bias) == 1 && bias[0] != 0 {
		return nil, corruptf("%d biases for %d outputs", len(bias), outputs)
	}
	return make([]float64, outputs), nil
}

// builder appends trees to an ensemble.
type builder struct {
	reader   *reader
	ensemble *tree.Ensemble
	scale    float64
	// nodes counts those written out of oblivious trees, whose file is short.
	nodes int
	// unweighted says that a leaf has no weight.
	unweighted bool
}

// output is what the trees add to: one margin, or all of them.
func (b *builder) output() int {
	if b.ensemble.Outputs == 1 {
		return 0
	}
	return -1
}

// oblivious writes a tree out, level by level. A leaf's number has bit i set where
// the answer to split i was yes. The order of the splits means nothing to a
// prediction but does to the covers: in the library's Shapley values the last one
// is the root.
func (b *builder) oblivious(src *obliviousTree) error {
	k, levels := b.ensemble.Outputs, len(src.Splits)
	if levels > maxLevels || len(src.Values) != k<<levels {
		return corruptf("%d leaf values for %d levels and %d outputs", len(src.Values), levels, k)
	}
	leaves := 1 << levels
	if len(src.Weights) != leaves {
		if len(src.Weights) != 0 {
			return corruptf("%d leaf weights for %d leaves", len(src.Weights), leaves)
		}
		b.unweighted = true
	}
	inner := leaves - 1
	if b.nodes += inner + leaves; b.nodes > tree.MaxNodes {
		return fmt.Errorf("more than %d nodes: %w", tree.MaxNodes, engine.ErrTooLarge)
	}
	t := tree.Tree{Output: b.output(), Nodes: make([]tree.Node, inner+leaves), Values: make([]float64, (inner+leaves)*k)}
	at := 0
	for level := range levels {
		n, err := b.reader.node(&src.Splits[levels-1-level])
		if err != nil {
			return err
		}
		for range 1 << level {
			n.Left, n.Right = int32(2*at+1), int32(2*at+2)
			t.Nodes[at] = n
			at++
		}
	}
	for i := range leaves {
		for c, v := range src.Values[i*k : i*k+k] {
			t.Values[(inner+i)*k+c] = v * b.scale
		}
		if len(src.Weights) > 0 {
			t.Nodes[inner+i].Cover = src.Weights[i]
		}
	}
	b.add(t)
	return nil
}

// add sums the covers up and appends the tree.
func (b *builder) add(t tree.Tree) {
	for i := len(t.Nodes) - 1; i >= 0; i-- {
		if n := &t.Nodes[i]; !n.IsLeaf() {
			n.Cover = t.Nodes[n.Left].Cover + t.Nodes[n.Right].Cover
		}
	}
	b.ensemble.Trees = append(b.ensemble.Trees, t)
}

// nonSymmetric writes a tree of nested nodes out. The decoder bounds the nesting.
func (b *builder) nonSymmetric(root *node) error {
	t := tree.Tree{Output: b.output()}
	if err := b.grow(&t, root); err != nil {
		return err
	}
	b.add(t)
	return nil
}

func (b *builder) grow(t *tree.Tree, src *node) error {
	k, at := b.ensemble.Outputs, len(t.Nodes)
	if src == nil {
		return corruptf("a node has no child")
	}
	t.Nodes, t.Values = append(t.Nodes, tree.Node{}), append(t.Values, make([]float64, k)...)
	if src.Value != nil {
		if len(src.Value) != k || src.Left != nil || src.Right != nil {
			return corruptf("a leaf of %d values for %d outputs, or one with children", len(src.Value), k)
		}
		for c, v := range src.Value {
			t.Values[at*k+c] = v * b.scale
		}
		if src.Weight == nil {
			b.unweighted = true
			return nil
		}
		t.Nodes[at].Cover = *src.Weight
		return nil
	}
	if src.Split == nil {
		return corruptf("a node has neither a value nor a split")
	}
	n, err := b.reader.node(src.Split)
	if err != nil {
		return err
	}
	n.Left = int32(len(t.Nodes))
	if err := b.grow(t, src.Left); err != nil {
		return err
	}
	n.Right = int32(len(t.Nodes))
	if err := b.grow(t, src.Right); err != nil {
		return err
	}
	t.Nodes[at] = n
	return nil
}

// The kinds of split, as the file calls them.
const (
	kindFloat     = "FloatFeature"
	kindOneHot    = "OneHotFeature"
	kindStatistic = "OnlineCtr"
)

// binIndex resolves split_index, which counts the borders of all numbers, then
// the one-hot values, then the borders of all statistics.
type binIndex struct {
	spans []span
	total int
}

type span struct {
	kind        string
	first, item int
}

func (b *binIndex) add(kind string, item, n int) {
	if n > 0 {
		b.spans = append(b.spans, span{kind, b.total, item})
		b.total += n
	}
}

// find returns what split_index i is: item's at'th border or value.
func (b *binIndex) find(i int) (s span, at int, ok bool) {
	if i < 0 || i >= b.total {
		return span{}, 0, false
	}
	low, high := 0, len(b.spans)
	for high-low > 1 {
		if mid := (low + high) / 2; b.spans[mid].first <= i {
			low = mid
		} else {
			high = mid
		}
	}
	return b.spans[low], i - b.spans[low].first, true
}

// node makes the inner node of a split: what the library answers "no" goes left.
// The library itself reads split_index alone; what else the file says of a split
// has to be the same.
func (r *reader) node(s *split) (tree.Node, error) {
	if s.Type != kindFloat && s.Type != kindOneHot && s.Type != kindStatistic {
		return tree.Node{}, &engine.UnsupportedError{What: "split_type " + strconv.Quote(short(s.Type))}
	}
	if s.Index == nil {
		return tree.Node{}, corruptf("a split has no split_index")
	}
	bin, at, ok := r.bins.find(*s.Index)
	if !ok || bin.kind != s.Type {
		return tree.Node{}, corruptf("split_index %d is no %s", *s.Index, s.Type)
	}
	if s.Type == kindOneHot {
		if c := r.categorical[bin.item]; bin.item != s.Cat || c.values[at] != s.Value {
			return tree.Node{}, corruptf("split_index %d is another category than the split's", *s.Index)
		}
		return tree.Node{Feature: r.oneHot(bin.item, s.Value), Rule: tree.Less, Threshold: 0.5, DefaultLeft: true}, nil
	}
	var borders []float32
	var column int32
	nan := float32(math.NaN())
	if s.Type == kindFloat {
		f := r.numeric[bin.item]
		if bin.item != s.Float {
			return tree.Node{}, corruptf("split_index %d is of another feature than the split's", *s.Index)
		}
		borders, nan, column = f.borders, f.nan, r.number(f)
	} else {
		borders, column = r.doc.Features.CTRs[bin.item].Borders, r.statistic(bin.item)
	}
	if s.Border == nil || *s.Border != borders[at] {
		return tree.Node{}, corruptf("split_index %d has another border than the split", *s.Index)
	}
	rule, threshold := above(borders[at])
	return tree.Node{Feature: column, Rule: rule, Threshold: threshold, DefaultLeft: !(nan > borders[at])}, nil
}

// above returns the rule that goes left for those float64 values that are not
// above border once they are rounded to float32: below the middle of border and
// the next float32, which itself is rounded to the even one of the two.
func above(border float32) (tree.Rule, float64) {
	if math.IsInf(float64(border), 1) {
		return tree.LessEqual, math.Inf(1)
	}
	next := math.Nextafter32(border, float32(math.Inf(1)))
	middle := (finite(border) + finite(next)) / 2
	if math.Float32bits(next)&1 == 1 {
		middle = math.Nextafter(middle, math.Inf(1))
	}
	return tree.Less, middle
}

// finite is v, with the power of two that rounding takes infinity for.
func finite(v float32) float64 {
	if math.IsInf(float64(v), 0) {
		return math.Copysign(1<<127*2, float64(v))
	}
	return float64(v)
}
