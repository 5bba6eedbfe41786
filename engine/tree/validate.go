package tree

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Limits of an ensemble. They bound the memory a hostile model file can ask for
// and keep every index in an int32.
const (
	MaxFeatures = 1 << 24
	MaxOutputs  = 1 << 16
	MaxNodes    = 1 << 28 // over all trees
	MaxValues   = 1 << 28 // over all trees
)

// Validate checks the invariants that evaluation and attribution rely on. Its
// errors wrap engine.ErrCorrupt.
func (e *Ensemble) Validate() error {
	if err := e.validateHead(); err != nil {
		return corrupt(err)
	}
	nodes, values := 0, 0
	for i := range e.Trees {
		t := &e.Trees[i]
		if err := e.validateTree(t); err != nil {
			return corrupt(fmt.Errorf("tree %d: %w", i, err))
		}
		nodes += len(t.Nodes)
		values += len(t.Values)
		if nodes > MaxNodes || values > MaxValues {
			return corrupt(fmt.Errorf("more than %d nodes", MaxNodes))
		}
	}
	return nil
}

func corrupt(err error) error { return fmt.Errorf("%w: %w", engine.ErrCorrupt, err) }

func (e *Ensemble) validateHead() error {
	switch {
	case e.Features < 0 || e.Features > MaxFeatures:
		return fmt.Errorf("%d features, want 0 to %d", e.Features, MaxFeatures)
	case e.Outputs < 1 || e.Outputs > MaxOutputs:
		return fmt.Errorf("%d outputs, want 1 to %d", e.Outputs, MaxOutputs)
	case len(e.Base) != e.Outputs:
		return fmt.Errorf("%d base values for %d outputs", len(e.Base), e.Outputs)
	case !e.Link.known():
		return fmt.Errorf("unknown link %q", e.Link)
	case e.Link == LinkMeanVariance && e.Outputs != 2:
		return fmt.Errorf("%d outputs for a mean and a variance", e.Outputs)
	case e.Groups != nil && len(e.Groups) != e.Features:
		return fmt.Errorf("%d groups for %d features", len(e.Groups), e.Features)
	}
	for i, g := range e.Groups {
		if g < 0 || int(g) > i {
			return fmt.Errorf("feature %d is in the group of %d", i, g)
		}
	}
	for _, b := range e.Base {
		if math.IsNaN(b) {
			return fmt.Errorf("a base value is NaN")
		}
	}
	return nil
}

func (e *Ensemble) validateTree(t *Tree) error {
	k := t.Width(e)
	switch {
	case len(t.Nodes) == 0:
		return fmt.Errorf("no nodes")
	case len(t.Nodes) > MaxNodes || len(t.Values) > MaxValues:
		return fmt.Errorf("more than %d nodes", MaxNodes)
	case t.Output < -1 || t.Output >= e.Outputs:
		return fmt.Errorf("output %d of %d", t.Output, e.Outputs)
	case len(t.Values) != len(t.Nodes)*k:
		return fmt.Errorf("%d leaf values for %d nodes of %d", len(t.Values), len(t.Nodes), k)
	case t.Linear != nil && (len(t.Linear) != len(t.Nodes) || k != 1):
		return fmt.Errorf("%d linear leaves for %d nodes", len(t.Linear), len(t.Nodes))
	}
	parented := make([]bool, len(t.Nodes))
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.IsLeaf() {
			if slices.ContainsFunc(t.Values[i*k:(i+1)*k], isNaN) {
				return fmt.Errorf("node %d: a leaf is NaN", i)
			}
			if err := e.validateLinear(t, i); err != nil {
				return err
			}
			continue
		}
		if err := e.validateSplit(t, n); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		for _, c := range [2]int32{n.Left, n.Right} {
			if int(c) <= i || int(c) >= len(t.Nodes) {
				return fmt.Errorf("node %d: child %d is out of order", i, c)
			}
			if parented[c] {
				return fmt.Errorf("node %d has two parents", c)
			}
			parented[c] = true
		}
	}
	for i, ok := range parented[1:] {
		if !ok {
			return fmt.Errorf("node %d has no parent", i+1)
		}
	}
	return nil
}

func isNaN(v float64) bool { return math.IsNaN(v) }

func (e *Ensemble) validateSplit(t *Tree, n *Node) error {
	switch {
	case n.Feature < 0 || int(n.Feature) >= e.Features:
		return fmt.Errorf("feature %d of %d", n.Feature, e.Features)
	case n.Rule > InSet:
		return fmt.Errorf("unknown rule %d", n.Rule)
	case n.Missing > MissingZero:
		return fmt.Errorf("unknown missing type %d", n.Missing)
	case n.Rule == InSet && (n.Set < 0 || int(n.Set) >= len(t.Sets)):
		return fmt.Errorf("category set %d of %d", n.Set, len(t.Sets))
	case n.Rule != InSet && math.IsNaN(n.Threshold):
		return fmt.Errorf("threshold is NaN")
	case n.Rule != InSet && e.Float32 && float64(float32(n.Threshold)) != n.Threshold:
		return fmt.Errorf("threshold is not a float32")
	}
	return nil
}

func (e *Ensemble) validateLinear(t *Tree, node int) error {
	if t.Linear == nil {
		return nil
	}
	l := &t.Linear[node]
	if len(l.Features) != len(l.Coefs) {
		return fmt.Errorf("node %d: %d coefficients for %d features", node, len(l.Coefs), len(l.Features))
	}
	if math.IsNaN(l.Const) || slices.ContainsFunc(l.Coefs, isNaN) {
		return fmt.Errorf("node %d: a linear leaf is NaN", node)
	}
	for _, f := range l.Features {
		if f < 0 || int(f) >= e.Features {
			return fmt.Errorf("node %d: linear feature %d of %d", node, f, e.Features)
		}
	}
	return nil
}

// Width returns the number of values a leaf of t has in ensemble e.
func (t *Tree) Width(e *Ensemble) int {
	if t.Output < 0 {
		return e.Outputs
	}
	return 1
}

// Linear reports whether some leaf of e is a linear model. Such an ensemble has
// no Shapley values of the tree kind.
func (e *Ensemble) Linear() bool {
	for i := range e.Trees {
		if e.Trees[i].Linear != nil {
			return true
		}
	}
	return false
}
