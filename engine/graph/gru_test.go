package graph

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestGRUIsThatOfFloat64 holds a GRU over float32 against the same one over float64, which
// each row and step computes by itself.
func TestGRUIsThatOfFloat64(t *testing.T) {
	for _, direction := range []string{"forward", "reverse", "bidirectional"} {
		for _, last := range []int64{0, 1} {
			for _, constant := range []bool{true, false} {
				for _, whole := range []bool{true, false} {
					t.Run(fmt.Sprint(direction, last, constant, whole), func(t *testing.T) {
						d := 1
						if direction == "bidirectional" {
							d = 2
						}
						got, want := gruOf(t, engine.Float32, direction, d, last, constant, whole), gruOf(t, engine.Float64, direction, d, last, constant, whole)
						for i := range want {
							g, _ := got[i].Float64s()
							w, _ := want[i].Float64s()
							for k := range w {
								if !(math.Abs(g[k]-w[k]) <= 1e-5) {
									t.Fatalf("output %d, element %d is %v, want %v", i, k, g[k], w[k])
								}
							}
						}
					})
				}
			}
		}
	}
}

// gruOf runs a GRU of 19 cells over 3 rows of 7 steps; whole says that it has biases and a
// state to begin with.
func gruOf(t *testing.T, d engine.DType, direction string, directions int, last int64, constant, whole bool) []*engine.Tensor {
	t.Helper()
	g := newPlainGraph(t)
	g.Inputs, g.Outputs = nil, []string{"y", "z"}
	const n, inputs = 19, 5
	in := engine.Values{}
	give := func(name string, fixed bool, shape ...int) string {
		v, err := Cast(noise(t, g.r, shape...), d)
		if err != nil {
			t.Fatal(err)
		}
		if fixed {
			g.Constants[name] = v
			return name
		}
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: d})
		in = append(in, engine.Named{Name: name, Tensor: v})
		return name
	}
	names := []string{give("x", false, 7, 3, inputs), give("w", constant, directions, 3*n, inputs), give("r", constant, directions, 3*n, n)}
	if whole {
		names = append(names, give("b", constant, directions, 6*n), "", give("h", false, directions, 3, n))
	}
	g.node("GRU", "y", Attrs{
		"hidden_size": {Kind: AttrInt, Int: n}, "direction": {Kind: AttrString, String: direction}, "linear_before_reset": {Kind: AttrInt, Int: last},
	}, names...)
	g.Nodes[0].Outputs = []string{"y", "z"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	arena := &Arena{}
	var out []*engine.Tensor
	for range 2 { // what a run leaves behind is not the next one's
		run, err := p.Run(context.Background(), Options{Arena: arena}, in, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		out = []*engine.Tensor{run.Value("y"), run.Value("z")}
	}
	return out
}
