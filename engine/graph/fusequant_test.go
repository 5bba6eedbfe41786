package graph

import (
	"context"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestFusedRounding has a pair of QuantizeLinear and DequantizeLinear, with and without a
// Relu before, give the same bits in one step as in two.
func TestFusedRounding(t *testing.T) {
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for name, c := range map[string]struct {
		zero   *engine.Tensor
		bottom bool // the range begins at 0
	}{
		"uint8 0": {of(engine.Of([]uint8{0})), true}, "uint8 131": {of(engine.Of([]uint8{131})), false},
		"int8 -128": {of(engine.Of([]int8{-128})), true}, "int8 5": {of(engine.Of([]int8{5})), false},
		"uint16 0": {of(engine.Of([]uint16{0})), true}, "uint16 40000": {of(engine.Of([]uint16{40000})), false},
		"int16 -32768": {of(engine.Of([]int16{-32768})), true}, "int16 17": {of(engine.Of([]int16{17})), false},
	} {
		for _, relu := range []bool{false, true} {
			node := func(op, out string, in ...string) *Node {
				return &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}}
			}
			g := &Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1}}}, Outputs: []string{"y"},
				Constants: map[string]*engine.Tensor{"s": of(engine.Of([]float32{0.0371})), "z": c.zero},
			}
			from := "x"
			if relu {
				g.Nodes, from = append(g.Nodes, node("Relu", "r", "x")), "r"
			}
			g.Nodes = append(g.Nodes, node("QuantizeLinear", "q", from, "s", "z"), node("DequantizeLinear", "y", "q", "s", "z"))
			p, err := Compile(g)
			if err != nil {
				t.Fatal(err)
			}
			if want := 1; relu && c.bottom || !relu {
				if p.fused == nil || len(p.fused.steps) != want {
					t.Errorf("%s, relu %t: not one step", name, relu)
				}
			}
			v := make([]float32, 5000)
			for i := range v {
				v[i] = (float32(i) - 2500) * 0.00371 // halves of a step among them
			}
			in := engine.Values{{Name: "x", Tensor: of(engine.Of(v, len(v)))}}
			fused, err := p.Run(context.Background(), Options{}, in, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			plain, err := p.Run(context.Background(), Options{}, in, []string{"y", "q"})
			if err != nil {
				t.Fatal(err)
			}
			a, b := engine.Data[float32](fused.Value("y")), engine.Data[float32](plain.Value("y"))
			for i := range a {
				if a[i] != b[i] {
					t.Fatalf("%s, relu %t: of %g is %g in one step, %g in two", name, relu, v[i], a[i], b[i])
				}
			}
		}
	}
}
