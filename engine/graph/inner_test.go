package graph

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestConstantsReachInnerGraphs has a branch read what follows from constants outside of
// it, and an LSTM multiply by such weights: both programs give the same, and the one of
// fewer steps computes it once.
func TestConstantsReachInnerGraphs(t *testing.T) {
	const inputs, hidden, batch, steps = 24, 40, 3, 5
	r := rand.New(rand.NewPCG(8, 1))
	slice := func(v int64) *engine.Tensor {
		s, err := engine.Of([]int64{v}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	node := func(op, out string, in ...string) *Node {
		return &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: Attrs{}}
	}
	lstm := node("LSTM", "y", "x", "w3", "r3", "b3")
	lstm.Outputs, lstm.Attrs["hidden_size"] = []string{"y", "h", "c"}, Attr{Kind: AttrInt, Int: hidden}
	branch := &Graph{Outputs: []string{"h"}, Nodes: []*Node{node("Unsqueeze", "w3", "half", "first"), node("Unsqueeze", "r3", "r", "first"), node("Unsqueeze", "b3", "b", "first"), lstm}}
	same := &Graph{Outputs: []string{"o"}, Nodes: []*Node{node("Identity", "o", "x")}}
	choice := node("If", "z", "c")
	choice.Attrs["then_branch"], choice.Attrs["else_branch"] = Attr{Kind: AttrGraph, Graph: branch}, Attr{Kind: AttrGraph, Graph: same}
	Capture(choice)
	g := &Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}, {Name: "c", DType: engine.Bool}}, Outputs: []string{"z"},
		Nodes: []*Node{node("Slice", "half", "w", "zero", "end", "zero"), choice},
		Constants: map[string]*engine.Tensor{
			"w": noise(t, r, 8*hidden, inputs), "r": noise(t, r, 4*hidden, hidden), "b": noise(t, r, 8*hidden), "zero": slice(0), "end": slice(4 * hidden), "first": slice(0),
		},
	}
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	if p.fused == nil || len(p.fused.steps) != 1 {
		t.Fatal("the slice of the weights was not computed once")
	}
	cond, err := engine.Of([]bool{true})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: noise(t, r, steps, batch, inputs)}, {Name: "c", Tensor: cond}}
	quick, plain := computed(t, p, Options{Arena: &Arena{}}, in, "z"), computed(t, p, Options{Keep: true}, in, "z")
	if !slices.Equal(quick, plain) {
		t.Error("other numbers in fewer steps")
	}
}

// TestMapTurnsAreCounted: the lists of what each value of a sequence is given with are within
// the memory of a run, as a file may ask for millions of them.
func TestMapTurnsAreCounted(t *testing.T) {
	n := &Node{Op: "SequenceMap", Version: 17, Inputs: []string{"list"}, Outputs: []string{"y"}, Attrs: Attrs{"body": {Kind: AttrGraph, Graph: &Graph{
		Inputs: []engine.Spec{{Name: "v", DType: engine.Float32}}, Outputs: []string{"v"},
	}}}}
	const items = 100
	in := []*engine.Tensor{engine.NewSequence(slices.Repeat([]*engine.Tensor{mustOf(t, []float32{1}, 1)}, items))}
	for limit, fits := range map[int64]bool{items * 24: true, items*24 - 1: false} {
		turns, _, err := TurnsOf(NewExec(limit), n, in)
		switch {
		case fits && (err != nil || len(turns.Given) != items):
			t.Errorf("within %d bytes: %v", limit, err)
		case !fits && !errors.Is(err, engine.ErrTooLarge):
			t.Errorf("within %d bytes: error %v, want that they are too few", limit, err)
		}
	}
}
