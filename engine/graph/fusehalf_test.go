package graph

import (
	"context"
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// halfGraph is a network in half precision over x [n, 24]: products, an activation, a sum
// with what was before and a softmax. Where keep says so it takes and gives float32; pair
// has a Cast to half and back between, as nodes that stay in float32 have.
func halfGraph(t *testing.T, d engine.DType, keep, pair bool) *plainGraph {
	g := newPlainGraph(t)
	half := Attrs{"to": {Kind: AttrInt, Int: map[engine.DType]int64{engine.Float16: 10, engine.BFloat16: 16}[d]}}
	single := Attrs{"to": {Kind: AttrInt, Int: 1}}
	weigh := func(name string, shape ...int) string {
		v := noise(t, g.r, shape...)
		for i, e := range engine.Data[float32](v) {
			engine.Data[float32](v)[i] = e / 8
		}
		w, err := Cast(v, d)
		if err != nil {
			t.Fatal(err)
		}
		g.Constants[name] = w
		return name
	}
	x, y := "x", "y"
	g.Inputs[0].DType = d
	if keep {
		g.Inputs[0].DType = engine.Float32
		g.node("Cast", "xh", half, "x")
		x, y = "xh", "yh"
	}
	g.node("MatMul", "a", nil, x, weigh("w1", 24, 40))
	g.node("Add", "b", nil, "a", weigh("b1", 40))
	g.node("Relu", "c", nil, "b")
	if pair {
		g.node("Cast", "c1", single, "c")
		g.node("Tanh", "c2", nil, "c1")
		g.node("Cast", "c3", half, "c2")
		g.node("Cast", "c4", single, "c3")
		g.node("Exp", "c5", nil, "c4")
		g.node("Cast", "c6", half, "c5")
	} else {
		g.node("Identity", "c6", nil, "c")
	}
	g.node("Gemm", "e", nil, "c6", weigh("w2", 40, 24), weigh("b2", 24))
	g.node("Add", "f", nil, "e", x)
	g.node("Softmax", y, Attrs{"axis": {Kind: AttrInt, Int: -1}}, "f")
	if keep {
		g.node("Cast", "y", single, "yh")
	}
	return g
}

// TestHalvesStayWide runs such networks as they are written and in fewer steps: results
// differ by what the rounding between nodes makes, a value that is asked for is that of
// the file, and no step but those at the ends sees a half.
func TestHalvesStayWide(t *testing.T) {
	for d, off := range map[engine.DType]float64{engine.Float16: 2e-3, engine.BFloat16: 2e-2} {
		for _, keep := range []bool{false, true} {
			for _, pair := range []bool{false, true} {
				g := halfGraph(t, d, keep, pair)
				p, err := Compile(g.Graph)
				if err != nil {
					t.Fatal(err)
				}
				if p.fused == nil {
					t.Fatal("nothing is fused")
				}
				halves := 0
				for _, s := range p.fused.steps {
					for _, slot := range s.in {
						if isHalf(p.fused.typeOf(slot)) && p.fused.constants[slot] == nil {
							halves++
						}
					}
				}
				if halves > 1 {
					t.Errorf("%s: %d steps read halves", d, halves)
				}
				x, err := Cast(noise(t, g.r, 9, 24), g.Inputs[0].DType)
				if err != nil {
					t.Fatal(err)
				}
				in := engine.Values{{Name: "x", Tensor: x}}
				got, err := p.Run(context.Background(), Options{Arena: &Arena{}}, in, []string{"y"})
				if err != nil {
					t.Fatal(err)
				}
				want, err := p.Run(context.Background(), Options{Keep: true}, in, []string{"y"})
				if err != nil {
					t.Fatal(err)
				}
				a, _ := got.Value("y").Float64s()
				b, _ := want.Value("y").Float64s()
				for i := range b {
					if !(math.Abs(a[i]-b[i]) <= off) {
						t.Fatalf("%s: element %d is %v, as written %v", d, i, a[i], b[i])
					}
				}
				inner, err := p.Run(context.Background(), Options{}, in, []string{"c"})
				if err != nil || inner.Value("c").DType() != d {
					t.Fatalf("the value between nodes: %v, %v", inner, err)
				}
			}
		}
	}
}

// TestPairOfCastsRounds has a Cast to half that another takes back round, whatever is
// fused.
func TestPairOfCastsRounds(t *testing.T) {
	g := halfGraph(t, engine.Float16, true, true)
	g.Outputs = []string{"c4", "c2"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Run(context.Background(), Options{}, engine.Values{{Name: "x", Tensor: noise(t, g.r, 4, 24)}}, g.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Cast(run.Value("c2"), engine.Float16)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := run.Value("c4").Float64s()
	b, _ := want.Float64s()
	c, _ := run.Value("c2").Float64s()
	rounded := false
	for i := range b {
		if a[i] != b[i] {
			t.Fatalf("element %d is %v, want %v", i, a[i], b[i])
		}
		rounded = rounded || a[i] != c[i]
	}
	if !rounded {
		t.Fatal("nothing was to be rounded")
	}
}

// TestMatricesStayHalves compiles products with large matrices in 16 bits, one alone and
// one that a Gemm multiplies by with a factor, and a matrix that a Cast makes float32:
// only what no product takes is made floats, and all give what the program as written
// gives.
func TestMatricesStayHalves(t *testing.T) {
	g := newPlainGraph(t)
	for name, shape := range map[string][]int{"w1": {256, 1024}, "w2": {1024, 256}, "w3": {256, 1024}} {
		v := noise(t, g.r, shape...)
		for i, e := range engine.Data[float32](v) {
			engine.Data[float32](v)[i] = e / 32
		}
		w, err := Cast(v, engine.Float16)
		if err != nil {
			t.Fatal(err)
		}
		g.Constants[name] = w
		g.node("Cast", name+"f", Attrs{"to": {Kind: AttrInt, Int: 1}}, name)
	}
	g.node("MatMul", "a", nil, "x", "w1f")
	g.node("Gemm", "b", Attrs{"transB": {Kind: AttrInt, Int: 1}}, "a", "w1f")
	g.node("MatMul", "c", nil, "a", "w2f")
	g.node("Add", "d", nil, "b", "c")
	g.node("Gemm", "y", Attrs{"alpha": {Kind: AttrFloat, Float: 0.5}}, "d", "w3f")
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	const elements = 256 * 1024
	// Both ways of the first and the second in 16 bits; the third as floats, and laid out.
	if _, laid := p.Held(); laid != elements*(2+2+2+4+4) {
		t.Errorf("%d bytes are laid out", laid)
	}
	in := engine.Values{{Name: "x", Tensor: noise(t, g.r, 5, 256)}}
	got, err := p.Run(context.Background(), Options{}, in, []string{"y"})
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Run(context.Background(), Options{Keep: true}, in, []string{"y"})
	if err != nil {
		t.Fatal(err)
	}
	b := engine.Data[float32](want.Value("y"))
	for i, v := range engine.Data[float32](got.Value("y")) {
		if !(math.Abs(float64(v-b[i])) <= 1e-4) {
			t.Fatalf("element %d is %v, as written %v", i, v, b[i])
		}
	}
}
