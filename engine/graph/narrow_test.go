package graph

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// recurrentGraph is a node over weights in 8 bits, or in half precision, that are made floats.
func recurrentGraph(t *testing.T, op, form string, hidden int) *octetGraph {
	g := newOctetGraph(t)
	rows, inputs := gates[op]*hidden, 40
	weigh := func(depth int) string {
		n := 2 * rows * depth
		v, q := make([]float32, n), make([]int8, n)
		for i := range v {
			v[i] = 0.2 * (g.r.Float32() - 0.5)
			q[i] = int8(g.r.IntN(256) - 128)
		}
		shape := []int{2, rows, depth}
		switch form {
		case "half", "brain":
			d, p, to := engine.Float16, vector.Half, int64(1)
			if form == "brain" {
				d, p = engine.BFloat16, vector.Brain
			}
			half := make([]uint16, n)
			vector.Narrow(p, half, v)
			h, err := engine.OfBits(d, half, shape...)
			if err != nil {
				t.Fatal(err)
			}
			name := g.name()
			g.Constants[name] = h
			return g.op("Cast", Attrs{"to": Attr{Kind: AttrInt, Int: to}}, name)
		case "rows":
			scale := make([]float32, rows)
			for i := range scale {
				scale[i] = 0.0005 * (1 + g.r.Float32())
			}
			return g.op("DequantizeLinear", Attrs{"axis": {Kind: AttrInt, Int: 1}}, put(g, q, shape...), put(g, scale, rows), put(g, make([]int8, rows), rows))
		}
		u := make([]uint8, n)
		for i := range u {
			u[i] = uint8(q[i])
		}
		return g.op("DequantizeLinear", nil, put(g, u, shape...), put(g, []float32{0.001}), put(g, []uint8{130}))
	}
	w, r := weigh(inputs), weigh(hidden)
	g.op(op, Attrs{"hidden_size": {Kind: AttrInt, Int: int64(hidden)}, "direction": {Kind: AttrString, String: "bidirectional"}}, "x", w, r, g.weigh("bias", 2, 2*rows))
	g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
	return g
}

// TestNarrowRecurrent: weights in 8 and 16 bits are not made floats whole, and give what those
// floats do.
func TestNarrowRecurrent(t *testing.T) {
	for _, op := range []string{"LSTM", "GRU", "RNN"} {
		for _, form := range []string{"one", "rows", "half", "brain"} {
			t.Run(fmt.Sprint(op, " ", form), func(t *testing.T) {
				hidden := 48
				if form == "half" || form == "brain" {
					hidden = 1 << 9
				}
				g := recurrentGraph(t, op, form, hidden)
				x := noise(t, g.r, 5, 3, 40)
				p, err := Compile(g.Graph)
				if err != nil {
					t.Fatal(err)
				}
				in := engine.Values{{Name: "x", Tensor: x}}
				want, err := p.Run(context.Background(), Options{Keep: true}, in, []string{"y"})
				if err != nil {
					t.Fatal(err)
				}
				var before []float32
				for _, threads := range []int{1, 2} {
					got, err := p.fused.Run(context.Background(), Options{Threads: threads}, in, []string{"y"})
					if err != nil {
						t.Fatal(err)
					}
					a, b := engine.Data[float32](got.Value("y")), engine.Data[float32](want.Value("y"))
					for i := range b {
						if math.Abs(float64(a[i]-b[i])) > 2e-6 || before != nil && a[i] != before[i] {
							t.Fatalf("element %d: %g, want %g", i, a[i], b[i])
						}
					}
					before = a
				}
				if n := fusedSteps(p, "DequantizeLinear") + fusedSteps(p, "Cast"); n > 0 {
					t.Errorf("%d steps make floats", n)
				}
				constants, laid := p.Held()
				if laid > 2*constants {
					t.Errorf("%d bytes laid out of %d", laid, constants)
				}
			})
		}
	}
}
