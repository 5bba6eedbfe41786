//go:build !race

// The race detector has pools forget at random, and counts what it needs itself.

package graph

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestRunsAllocateLittle bounds the objects of a run after the first, of each kind of
// network: what is left are the outputs and the list of them, and what an LSTM reads.
func TestRunsAllocateLittle(t *testing.T) {
	most := map[string]float64{"dense": 10, "conv": 13, "branch": 10, "attention": 13, "lstm": 30, "norm": 11}
	for name, g := range allocationGraphs(t) {
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(name, err)
		}
		in := engine.Values{{Name: "x", Tensor: noise(t, g.r, 16, 32)}, {Name: "which", Tensor: mustBool(t, true)}}
		opt := Options{Arena: &Arena{}}
		count := testing.AllocsPerRun(20, func() {
			if _, err := p.Outputs(t.Context(), opt, in, g.Outputs); err != nil {
				t.Fatal(name, err)
			}
		})
		if count > most[name] {
			t.Errorf("%s: %v objects a run, at most %v", name, count, most[name])
		}
	}
}
