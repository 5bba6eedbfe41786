package trees

import (
	"math"
	"strconv"

	"github.com/pellucid/pellucid/engine/tree"
)

// fitted is a node of a tree that is done. A leaf has no left child.
type fitted struct {
	left, right int32
	feature     int32
	// threshold parts numbers, those below go left; categories in set go right.
	threshold   float32
	categorical bool
	set         []int32
	missingLeft bool
	gain, cover float32
	value       float32
}

// Model is what was fitted. It is immutable.
type Model struct {
	opt         Options
	features    int
	names       []string
	categorical []bool
	categories  [][]string // names, nil of features without
	classes     []string
	// stored is the base behind the link, margins before it.
	stored, margins []float32
	trees           [][]fitted // outputs after each other, then rounds
	nodes           int
}

func newModel(d *Data, o *Options, stored, margins []float32) *Model {
	m := &Model{opt: *o, features: d.Features, stored: stored, margins: margins, classes: d.ClassNames}
	m.opt.Valid, m.opt.Progress = nil, nil
	for f := range d.Features {
		m.names = append(m.names, d.name(f))
		m.categorical = append(m.categorical, d.categorical(f))
		m.categories = append(m.categories, d.names(f))
	}
	return m
}

// fitted returns the tree that t has grown, with the covers of its leaves.
func (b *binned) fitted(t *grower, covers []float64) []fitted {
	out := make([]fitted, len(t.nodes))
	for i := len(out) - 1; i >= 0; i-- {
		n := &t.nodes[i]
		o := &out[i]
		if n.left == 0 {
			o.cover, o.value = float32(covers[i]), n.value
			continue
		}
		covers[i] = covers[n.left] + covers[n.right]
		s := &n.split
		c := &b.cut[s.feature]
		*o = fitted{
			left: n.left, right: n.right, feature: int32(s.feature), missingLeft: s.missingLeft,
			categorical: c.categorical, gain: min(s.gain, math.MaxFloat32), cover: float32(covers[i]), // files have no infinity
		}
		switch {
		case c.categorical:
			for _, bin := range s.set {
				o.set = append(o.set, c.codes[bin])
			}
		case s.bin == 0:
			o.threshold = c.begin
		case s.bin < c.values:
			o.threshold = c.cuts[s.bin-1]
		default:
			o.threshold = c.end
		}
	}
	return out
}

// Features returns the number of features, Outputs of margins, Rounds of trees of each.
func (m *Model) Features() int { return m.features }

// Outputs returns the number of margins a row has.
func (m *Model) Outputs() int { return m.opt.outputs() }

// Rounds returns the number of trees of each output.
func (m *Model) Rounds() int { return len(m.trees) / m.Outputs() }

// Nodes returns the number of nodes of all trees.
func (m *Model) Nodes() int {
	n := 0
	for _, t := range m.trees {
		n += len(t)
	}
	return n
}

// Ensemble returns the model in the form that engine/tree predicts with.
func (m *Model) Ensemble() *tree.Ensemble {
	e := &tree.Ensemble{
		Features: m.features, Outputs: m.Outputs(), Float32: true, Covers: tree.CoverHessian, Link: m.link(),
		Trees: make([]tree.Tree, len(m.trees)),
	}
	for _, v := range m.margins {
		e.Base = append(e.Base, float64(v))
	}
	for i, nodes := range m.trees {
		t := &e.Trees[i]
		t.Output = i % e.Outputs
		t.Nodes, t.Values = make([]tree.Node, len(nodes)), make([]float64, len(nodes))
		for j := range nodes {
			t.Values[j] = float64(nodes[j].value)
			t.Nodes[j] = nodes[j].node(t)
		}
	}
	return e
}

// node returns n in the form of engine/tree. There a set goes left.
func (n *fitted) node(t *tree.Tree) tree.Node {
	if n.left == 0 {
		return tree.Node{Cover: float64(n.cover)}
	}
	o := tree.Node{
		Feature: n.feature, Left: n.left, Right: n.right, Rule: tree.Less, Threshold: float64(n.threshold),
		DefaultLeft: n.missingLeft, Cover: float64(n.cover),
	}
	if !n.categorical {
		return o
	}
	o.Rule, o.Threshold, o.Set = tree.InSet, 0, int32(len(t.Sets))
	o.Left, o.Right, o.DefaultLeft = n.right, n.left, !n.missingLeft
	var set tree.Bitset
	for _, c := range n.set {
		for int(c/64) >= len(set) {
			set = append(set, 0)
		}
		set[c/64] |= 1 << (c % 64)
	}
	t.Sets = append(t.Sets, set)
	return o
}

func (m *Model) link() tree.Link {
	switch m.opt.Loss {
	case Logistic:
		return tree.LinkSigmoid
	case Softmax:
		return tree.LinkSoftmax
	case Poisson:
		return tree.LinkExp
	}
	return tree.LinkIdentity
}

// decimal writes the shortest text that reads back.
func decimal(b []byte, v float32) []byte { return strconv.AppendFloat(b, float64(v), 'E', -1, 32) }
