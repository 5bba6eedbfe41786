package graph

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestGivenPlansOnce: values given in the place of a node's, whatever they are, need no
// other plan.
func TestGivenPlansOnce(t *testing.T) {
	x, err := engine.Of([]float32{1, 2, 3}, 3)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(&Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{3}}}, Outputs: []string{"y"},
		Nodes: []*Node{
			{Op: "Neg", Version: 20, Inputs: []string{"x"}, Outputs: []string{"n"}, Attrs: Attrs{}},
			{Op: "Abs", Version: 20, Inputs: []string{"n"}, Outputs: []string{"y"}, Attrs: Attrs{}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n, err := engine.Of([]float32{float32(i), -4, 5}, 3)
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Run(t.Context(), Options{Keep: true, Given: engine.Values{{Name: "n", Tensor: n}}}, engine.Values{{Name: "x", Tensor: x}}, []string{"y", "n"})
		if err != nil {
			t.Fatal(err)
		}
		if y := engine.Data[float32](r.Value("y")); y[0] != float32(i) || y[1] != 4 || y[2] != 5 {
			t.Errorf("given %d: %v", i, y)
		}
	}
	if len(p.plans) != 1 {
		t.Errorf("%d plans", len(p.plans))
	}
}
