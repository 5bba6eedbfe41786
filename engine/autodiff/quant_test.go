package autodiff

import (
	"context"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// TestStraightThrough has rounding pass the gradient on within its range, and nothing
// beyond.
func TestStraightThrough(t *testing.T) {
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	node := func(op, out string, in ...string) *graph.Node {
		return &graph.Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}}
	}
	p, err := graph.Compile(&graph.Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}}, Outputs: []string{"y"},
		Constants: map[string]*engine.Tensor{"s": of(engine.Of([]float32{0.5})), "z": of(engine.Of([]uint8{100})), "f": of(engine.Of([]float32{3}))},
		Nodes:     []*graph.Node{node("QuantizeLinear", "q", "x", "s", "z"), node("DequantizeLinear", "d", "q", "s", "z"), node("Mul", "y", "d", "f")},
	})
	if err != nil {
		t.Fatal(err)
	}
	// From -50 to 77.5 is the range.
	in := engine.Values{{Name: "x", Tensor: of(engine.Of([]float32{0, 1.3, -49.9, 77.6, -51, 78, 1000}, 7, 1))}}
	g, err := Gradient(context.Background(), p, graph.Options{}, in, engine.Target{Name: "y"}, []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{3, 3, 3, 3, 0, 0, 0} {
		if got := engine.Data[float32](g.Inputs[0].Tensor)[i]; got != want {
			t.Errorf("row %d: gradient %g, want %g", i, got, want)
		}
	}
}
