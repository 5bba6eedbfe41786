package graph

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestPaddedFiltersAreBounded: a filter of one channel takes the room of many, which a
// model of nothing else must not multiply its size by.
func TestPaddedFiltersAreBounded(t *testing.T) {
	for _, c := range []struct {
		out, in int
		last    bool
	}{{1, 1 << 10, true}, {1, 1 << 18, false}, {64, 1 << 12, true}} {
		g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}, Outputs: []string{"y"}}
		w, err := engine.New(engine.Float32, c.out, c.in, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		g.Constants["w"] = w
		g.Nodes = []*Node{{Op: "Conv", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"y"}, Attrs: Attrs{}}}
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		if last := p.fused != nil; last != c.last {
			t.Errorf("%d channels of %d: channels last is %v, want %v", c.out, c.in, last, c.last)
		}
	}
}
