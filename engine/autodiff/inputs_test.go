package autodiff

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// frees reports whether constant i of a check may be an input that has a rule.
func (c *check) frees(i int) bool {
	at := len(c.in) + i
	return c.constants[i].DType() == engine.Float64 && refusedInputs[c.op][at] == ""
}

// TestEveryInput holds the gradients by what is a constant in TestCentralDifferences.
func TestEveryInput(t *testing.T) {
	for i, c := range allChecks() {
		c.free = true
		has := false
		for k, v := range c.constants {
			has = has || v != nil && c.frees(k)
		}
		if c.in == nil || !has {
			continue
		}
		t.Run(fmt.Sprintf("%d %s", i, c.op), func(t *testing.T) {
			p, in := c.program(t)
			compareCentral(t, p, in, fmt.Sprintf("y%d", c.target), c.whole)
		})
	}
}

// place is an input of an operator.
type place struct {
	domain, op string
	at         int
}

// wholeInputs are inputs that no check gives anything, which are never floats: a condition, a
// number of turns, places, a length, an axis. Those of com.microsoft are refused at load.
var wholeInputs = []place{
	{"", "If", 0},
	{"", "Loop", 0},
	{"", "Loop", 1},
	{"", "Scan", 0},
	{"", "Where", 0},
	{"", "Scatter", 1},
	{"", "ScatterElements", 1},
	{"", "ScatterND", 1},
	{"", "SequenceAt", 1},
	{"", "SequenceErase", 1},
	{"", "SequenceInsert", 2},
	{"", "SplitToSequence", 1},
	{graph.DomainContrib, "MatMulNBits", 4},
	{graph.DomainContrib, "GroupQueryAttention", 12},
	{graph.DomainContrib, "GroupQueryAttention", 13},
	{graph.DomainContrib, "GroupQueryAttention", 14},
	{graph.DomainContrib, "GroupQueryAttention", 15},
	{graph.DomainContrib, "GroupQueryAttention", 16},
}

// heldInputs are those that checks differentiate by, and whole ones those that take no floats.
func heldInputs(t *testing.T) (held, whole map[place]bool) {
	t.Helper()
	held, whole = map[place]bool{}, map[place]bool{}
	for _, p := range wholeInputs {
		whole[p] = true
	}
	for _, c := range append(allChecks(), checkedElsewhere()...) {
		for i, shape := range c.in {
			if shape != nil {
				held[place{c.domain, c.op, i}] = true
			}
		}
		for _, at := range c.by {
			held[place{c.domain, c.op, at}] = true
		}
		for i, k := range c.constants {
			at := place{c.domain, c.op, len(c.in) + i}
			switch {
			case k == nil || c.in == nil:
			case c.frees(i):
				held[at] = true
			case !k.DType().IsFloat() && !runsOn(t, c, i, engine.Float64) && !runsOn(t, c, i, engine.Float32):
				whole[at] = true
			}
		}
	}
	return held, whole
}

// runsOn reports whether a check's operator takes its constant i as one of floats.
func runsOn(t *testing.T, c check, i int, d engine.DType) bool {
	t.Helper()
	floats, err := graph.Cast(c.constants[i], d)
	if err != nil {
		t.Fatal(err)
	}
	c.constants = slices.Clone(c.constants)
	c.constants[i] = floats
	p, in, err := c.compile()
	if err != nil {
		return false
	}
	_, err = p.Run(t.Context(), graph.Options{}, in, []string{fmt.Sprintf("y%d", c.target)})
	return err == nil
}

// TestEveryInputIsChecked: every input of an operator with a rule is one that a check
// differentiates by, or one of refusedInputs, or takes no floats. The number of some has no end:
// of these the first two stand for all.
func TestEveryInputIsChecked(t *testing.T) {
	held, whole := heldInputs(t)
	const noEnd = 17
	count := 0
	for _, domain := range graph.Domains() {
		for _, op := range graph.Operators(domain) {
			most := 0
			for version := range 40 {
				n := &graph.Node{Op: op, Domain: domain, Version: version}
				if graph.Defined(n) && ruleOf[float64](n) != nil {
					most = max(most, graph.MostInputs(n))
				}
			}
			if most > noEnd {
				most = 2
			}
			for i := range most {
				at := place{domain, op, i}
				if held[at] {
					count++
				}
				if _, refused := refusedInputs[op][i]; !held[at] && !whole[at] && !refused {
					t.Errorf("%s: no check is by input %d, and no reason says why", op, i)
				}
			}
		}
	}
	t.Logf("%d inputs are held", count)
}

// TestRefusedInputs: by none of them is a gradient a silent zero.
func TestRefusedInputs(t *testing.T) {
	for op, list := range refusedInputs {
		for at, reason := range list {
			n := &graph.Node{Op: op, Version: 20, Inputs: slices.Repeat([]string{""}, at+1), Outputs: []string{"y"}}
			n.Inputs[at] = "x"
			b := &back[float64]{needed: map[string]bool{"x": true}, grads: map[string][]float64{"y": {1}}}
			var refused *engine.NotDifferentiableError
			if err := b.node(n); !errors.As(err, &refused) || refused.Reason != reason || reason == "" {
				t.Errorf("%s by input %d: %v", op, at, err)
			}
		}
	}
}
