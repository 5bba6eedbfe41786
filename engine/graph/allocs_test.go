//go:build !race

// The race detector has pools forget at random, and counts what it needs itself.

package graph

import (
	"runtime/debug"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestRunsAllocateResultsOnly: from its second run on a session makes no object but the
// results and the list of them, whatever the network is and however often the shapes of its
// inputs have changed before.
func TestRunsAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties the kernels' pools
	for name, g := range allocationGraphs(t) {
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(name, err)
		}
		opt := Options{Arena: &Arena{}}
		for _, rows := range []int{16, 40, 16} {
			in := engine.Values{{Name: "x", Tensor: noise(t, g.r, rows, 32)}, {Name: "which", Tensor: mustBool(t, true)}}
			var out engine.Values
			run := func() {
				if out, err = p.Outputs(t.Context(), opt, in, g.Outputs); err != nil {
					t.Fatal(name, err)
				}
			}
			run()
			count := testing.AllocsPerRun(20, run)
			most := testing.AllocsPerRun(20, func() {
				results := make(engine.Values, len(out))
				for i := range out {
					if results[i].Tensor, err = Clone(out[i].Tensor); err != nil {
						t.Fatal(err)
					}
				}
				listed = results
			})
			if count > most {
				t.Errorf("%s over %d rows: %v objects a run, its results are %v", name, rows, count, most)
			}
		}
	}
}

// listed keeps a list from the stack.
var listed engine.Values
