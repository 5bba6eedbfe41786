package onnx_test

import (
	"math"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// TestMissingWhereNothingReads: NaN is taken in an input that no node reads, as converters keep
// them of dropped columns, and by a graph that asks for it as another than itself; not elsewhere.
func TestMissingWhereNothingReads(t *testing.T) {
	model := func(masked bool) engine.Model {
		g := &graph.Graph{Outputs: []string{"y"}, Constants: map[string]*engine.Tensor{}}
		for _, name := range []string{"a", "dropped"} {
			g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 1}})
		}
		g.Constants["none"], _ = engine.Of([]float32{-1}, 1)
		node := func(op, out string, in ...string) {
			g.Nodes = append(g.Nodes, &graph.Node{Name: out, Op: op, Version: onnx.EncodedOpset, Inputs: in, Outputs: []string{out}})
		}
		x := "a"
		if masked {
			node("Equal", "same", "a", "a")
			node("Where", "known", "same", "a", "none")
			x = "known"
		}
		node("Add", "y", x, "none")
		data, err := onnx.Encode(&onnx.Made{Graph: g, Producer: "test", Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1, 1}}}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := onnx.Read(data, "")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		masked     bool
		a, dropped float32
		want       float32
		refused    string
	}{
		{false, 3, nan, 2, ""},
		{false, nan, 1, 0, `input "a"`},
		{true, nan, nan, -2, ""},
	} {
		m := model(c.masked)
		in := engine.Values{}
		for i, v := range []float32{c.a, c.dropped} {
			x, err := engine.Of([]float32{v}, 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, engine.Named{Name: m.Info().Inputs[i].Name, Tensor: x})
		}
		bound, _, err := engine.Bind(m.Info(), in)
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), bound, nil)
		if err != nil || engine.Data[float32](out[0].Tensor)[0] != c.want {
			t.Errorf("%+v: %v, %v", c, out, err)
		}
	}
}
