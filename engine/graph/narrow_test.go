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
		q := make([]int8, n)
		for i := range q {
			q[i] = int8(g.r.IntN(256) - 128)
		}
		shape := []int{2, rows, depth}
		switch form {
		case "half", "brain":
			return narrowWeights(g, form, shape)
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
				sameFused(t, op, p, engine.Values{{Name: "x", Tensor: x}}, 2e-6)
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

// TestNarrowFilters: convolutions that take in floats keep weights in 8 and 16 bits, with the
// normalisation, the sum and the function that follow them.
func TestNarrowFilters(t *testing.T) {
	for _, form := range []string{"one", "channels", "unsigned", "half", "brain"} {
		for _, kernel := range []int{1, 3} {
			for _, line := range []bool{false, true} {
				g := newOctetGraph(t)
				shape := []int{256, 384, kernel, kernel}[:4]
				if line {
					shape = shape[:3]
				}
				x := noise(t, g.r, append([]int{2, shape[1]}, []int{9, 7}[:len(shape)-2]...)...)
				conv := func(x string) string {
					return g.op("Conv", Attrs{"auto_pad": {Kind: AttrString, String: "SAME_UPPER"}}, x, narrowWeights(g, form, shape), g.weigh("bias", shape[0]))
				}
				each := func(low float32) string {
					v := make([]float32, shape[0])
					for i := range v {
						v[i] = low + g.r.Float32()
					}
					return put(g, v, len(v))
				}
				a := g.op("Relu", nil, g.op("BatchNormalization", nil, conv("x"), each(0.5), each(-0.5), each(-0.5), each(0.5)))
				g.node("Add", "y", nil, a, conv("x"))
				p, err := Compile(g.Graph)
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%s, kernel %d, line %t", form, kernel, line)
				sameFused(t, name, p, engine.Values{{Name: "x", Tensor: x}}, 1e-5)
				if n := fusedSteps(p, "DequantizeLinear") + fusedSteps(p, "Cast") + fusedSteps(p, "BatchNormalization"); n > 0 {
					t.Errorf("%s: %d steps make floats", name, n)
				}
				if constants, laid := p.Held(); laid > constants+constants/2 {
					t.Errorf("%s: %d bytes laid out of %d", name, laid, constants)
				}
			}
		}
	}
}

// sameFused runs a program in fewer steps, with the same bits on any threads, and as it was
// written: they differ by no more than the tolerance of the largest element.
func sameFused(t *testing.T, name string, p *Program, in engine.Values, tolerance float64) {
	t.Helper()
	want, err := p.Run(context.Background(), Options{Keep: true}, in, []string{"y"})
	if err != nil {
		t.Fatal(err)
	}
	largest := 0.0
	for _, v := range engine.Data[float32](want.Value("y")) {
		largest = max(largest, math.Abs(float64(v)))
	}
	var before []float32
	for _, threads := range []int{1, 2, 3} {
		got, err := p.fused.Run(context.Background(), Options{Threads: threads}, in, []string{"y"})
		if err != nil {
			t.Fatal(name, err)
		}
		a, b := engine.Data[float32](got.Value("y")), engine.Data[float32](want.Value("y"))
		if len(a) != len(b) {
			t.Fatalf("%s: %v %v, want %v %v", name, got.Value("y").DType(), got.Value("y").Shape(), want.Value("y").DType(), want.Value("y").Shape())
		}
		for i := range b {
			if !(math.Abs(float64(a[i]-b[i])) <= tolerance*largest) || before != nil && a[i] != before[i] {
				t.Fatalf("%s, element %d on %d threads: %g, want %g", name, i, threads, a[i], b[i])
			}
		}
		before = a
	}
}

// narrowWeights are constant weights in few bits, as what makes floats of them gives them.
func narrowWeights(g *octetGraph, form string, shape []int) string {
	n := volume(shape)
	switch form {
	case "channels":
		return g.octets(0, false, shape...)
	case "unsigned":
		return g.octets(0, true, shape...)
	case "one":
		v := make([]int8, n)
		for i := range v {
			v[i] = int8(g.r.Uint32())
		}
		return g.op("DequantizeLinear", nil, put(g, v, shape...), put(g, []float32{0.0003}))
	}
	d, p := engine.Float16, vector.Half
	if form == "brain" {
		d, p = engine.BFloat16, vector.Brain
	}
	v, half := make([]float32, n), make([]uint16, n)
	for i := range v {
		v[i] = 0.1 * (g.r.Float32() - 0.5)
	}
	vector.Narrow(p, half, v)
	h, err := engine.OfBits(d, half, shape...)
	if err != nil {
		g.t.Fatal(err)
	}
	name := g.name()
	g.Constants[name] = h
	return g.op("Cast", Attrs{"to": Attr{Kind: AttrInt, Int: 1}}, name)
}
