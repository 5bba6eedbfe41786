package tree

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Cut says what to leave out of an ensemble, in terms of the ensemble a reader made
// of a file, so that the file's writer (engine/xgboost, engine/lightgbm) can leave it
// out there.
type Cut struct {
	// Keep is how many trees stay, from the first; the others go.
	Keep int
	// Leaves has for each tree that stays the inner nodes that become leaves, by
	// index in Tree.Nodes, with their values in the ensemble's own unit.
	Leaves []map[int32][]float64
}

// Check refuses a cut that does not fit an ensemble.
func (c *Cut) Check(e *Ensemble) error {
	if c.Keep < 1 || c.Keep > len(e.Trees) || len(c.Leaves) != 0 && len(c.Leaves) != c.Keep {
		return fmt.Errorf("cut to %d trees, with leaves of %d: the model has %d", c.Keep, len(c.Leaves), len(e.Trees))
	}
	for i, leaves := range c.Leaves {
		t := &e.Trees[i]
		width := 1
		if t.Output < 0 {
			width = e.Outputs
		}
		for n, v := range leaves {
			if n < 0 || int(n) >= len(t.Nodes) || t.Nodes[n].IsLeaf() || len(v) != width {
				return fmt.Errorf("cut tree %d at node %d to %d values: no inner node of it, or of another width", i, n, len(v))
			}
			// Means of hostile covers and leaves may be none; formats hold them in float32.
			if slices.ContainsFunc(v, func(x float64) bool { return math.IsNaN(x) || math.IsInf(float64(float32(x)), 0) }) {
				return fmt.Errorf("cut tree %d at node %d to %v: a leaf must be a finite number", i, n, v)
			}
		}
	}
	return nil
}

// Of returns the nodes of tree i that become leaves.
func (c *Cut) Of(i int) map[int32][]float64 {
	if i < len(c.Leaves) {
		return c.Leaves[i]
	}
	return nil
}

// Held returns the ensemble of a model that is one.
func Held(m engine.Model) (*Ensemble, bool) {
	h, ok := m.(Holder)
	if !ok {
		return nil, false
	}
	e, _ := h.Trees()
	return e, e != nil
}

// Root makes a leaf of the whole of tree i, unless it is one already.
func (c *Cut) Root(e *Ensemble, i int, value []float64) {
	if len(e.Trees[i].Nodes) > 1 {
		c.Leaves[i] = map[int32][]float64{0: value}
	}
}
