package autodiff

import (
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// TestDetOfNoInverse: a matrix short of one rank has cofactors, one short of two has none.
func TestDetOfNoInverse(t *testing.T) {
	for _, c := range []struct{ x, want []float64 }{
		{[]float64{1, 2, 3, 2, 4, 6, 1, 0, 1}, []float64{4, 4, -4, -2, -2, 2, 0, 0, 0}},
		{[]float64{1, 2, 3, 2, 4, 6, 3, 6, 9}, make([]float64, 9)},
		{make([]float64, 9), make([]float64, 9)},
		{[]float64{0, 0, 2, 0, 3, 0, 4, 0, 0}, []float64{0, 0, -12, 0, -8, 0, -6, 0, 0}},
	} {
		g := &graph.Graph{
			Nodes: []*graph.Node{node("Det", []string{"x"}, "y")}, Outputs: []string{"y"},
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{1, 3, 3}}},
		}
		p, err := graph.Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: tensor(c.x, 1, 3, 3)}}
		got, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "y"}, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range engine.Data[float64](got.Inputs[0].Tensor) {
			if !(math.Abs(v-c.want[i]) <= 1e-12) {
				t.Errorf("det %v: gradient %v at %d, want %v", c.x, v, i, c.want[i])
			}
		}
	}
}
