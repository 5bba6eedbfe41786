package autodiff

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// layers is y = softmax(tanh(x w) v), with h and z on the way.
func layers(t *testing.T) (*graph.Program, engine.Values) {
	t.Helper()
	g := &graph.Graph{
		Inputs:    []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{-1, 3}}},
		Outputs:   []string{"y", "z"},
		Constants: map[string]*engine.Tensor{"w": noise(3, 4), "v": noise(4, 3)},
		Nodes: []*graph.Node{
			node("MatMul", []string{"x", "w"}, "a"), node("Tanh", []string{"a"}, "h"),
			node("MatMul", []string{"h", "v"}, "z"), node("Softmax", []string{"z"}, "y"),
		},
	}
	p, err := graph.Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	return p, engine.Values{{Name: "x", Tensor: tensor([]float64{0.1, -0.4, 0.3, 0.7, 0.2, -0.5}, 2, 3)}}
}

// scalar is what a gradient is of, computed from outputs, a number a row.
type scalar func(y, z []float64) float64

// hold compares a gradient with central differences by the elements of x, which is an
// input or an inner tensor.
func hold(t *testing.T, p *graph.Program, in engine.Values, name string, got *engine.Tensor, f scalar) {
	t.Helper()
	x := engine.Data[float64](in.Get(name))
	g := engine.Data[float64](got)
	rows := in.Get(name).Rows()
	at := func(r int) float64 {
		var inner engine.Values
		if name != "x" {
			inner = engine.Values{{Name: name, Tensor: in.Get(name)}}
		}
		run, err := p.Run(t.Context(), graph.Options{Keep: true, Given: inner}, in, []string{"y", "z"})
		if err != nil {
			t.Fatal(err)
		}
		return f(engine.Data[float64](run.Value("y"))[3*r:3*r+3], engine.Data[float64](run.Value("z"))[3*r:3*r+3])
	}
	for i := range x {
		const h = 1e-6
		r, old := i/(len(x)/rows), x[i]
		x[i] = old + h
		up := at(r)
		x[i] = old - h
		down := at(r)
		x[i] = old
		if want := (up - down) / (2 * h); math.Abs(g[i]-want) > 1e-8 {
			t.Errorf("by %s[%d]: %v, central difference %v", name, i, g[i], want)
		}
	}
}

// TestInnerTensors: gradients by an inner tensor, as it is computed and as it is given.
func TestInnerTensors(t *testing.T) {
	p, in := layers(t)
	second := func(y, _ []float64) float64 { return y[1] }
	own, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "y", Index: 1}, []string{"h", "x", "z"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Run(t.Context(), graph.Options{Keep: true}, in, []string{"h"})
	if err != nil {
		t.Fatal(err)
	}
	h := run.Value("h")
	if !slices.Equal(own.Inputs[0].Tensor.Shape(), h.Shape()) {
		t.Fatalf("shape %v", own.Inputs[0].Tensor.Shape())
	}
	hold(t, p, append(slices.Clone(in), engine.Named{Name: "h", Tensor: h}), "h", own.Inputs[0].Tensor, second)
	hold(t, p, in, "x", own.Inputs[1].Tensor, second)

	elsewhere := append(slices.Clone(in), engine.Named{Name: "h", Tensor: noise(2, 4)})
	given, err := Gradient(t.Context(), p, graph.Options{}, elsewhere, engine.Target{Name: "y", Index: 1}, []string{"h"})
	if err != nil {
		t.Fatal(err)
	}
	hold(t, p, elsewhere, "h", given.Inputs[0].Tensor, second)
	if given.Value[0] == own.Value[0] {
		t.Error("what was given was not taken")
	}
	for _, bad := range []engine.Named{{Name: "h", Tensor: noise(2, 3)}, {Name: "w", Tensor: noise(3, 4)}, {Name: "nothing", Tensor: noise(2, 3)}} {
		_, err := Gradient(t.Context(), p, graph.Options{}, append(slices.Clone(in), bad), engine.Target{Name: "y"}, []string{"x"})
		var wrong *engine.InputError
		if !errors.As(err, &wrong) {
			t.Errorf("%s given: %v", bad.Name, err)
		}
	}
}

// TestWeighted: sums, differences over several outputs and losses need no node in the
// file, and other weights no other plan of the program.
func TestWeighted(t *testing.T) {
	p, in := layers(t)
	run, err := p.Run(t.Context(), graph.Options{Keep: true}, in, []string{"y"})
	if err != nil {
		t.Fatal(err)
	}
	y := engine.Data[float64](run.Value("y"))
	classes := []int{2, 0}
	slopes := make([]float64, len(y)) // of the cross entropy by the probabilities
	for r, c := range classes {
		slopes[3*r+c] = -1 / y[3*r+c]
	}
	for _, c := range []struct {
		name    string
		weights engine.Values
		f       scalar
	}{
		{"sum", engine.Values{{Name: "z", Tensor: tensor([]float64{1, 1, 1}, 1, 3)}}, func(_, z []float64) float64 { return z[0] + z[1] + z[2] }},
		{"mixed", engine.Values{{Name: "z", Tensor: tensor([]float64{0, 2, -1}, 3)}, {Name: "y", Tensor: tensor([]float64{3, 0, 0, 3, 0, 0}, 2, 3)}}, func(y, z []float64) float64 { return 2*z[1] - z[2] + 3*y[0] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := Weighted(t.Context(), p, graph.Options{}, in, c.weights, []string{"x"})
			if err != nil {
				t.Fatal(err)
			}
			hold(t, p, in, "x", g.Inputs[0].Tensor, c.f)
			z := engine.Data[float64](values(t, p, in, "z"))
			for r, v := range g.Value {
				if want := c.f(y[3*r:3*r+3], z[3*r:3*r+3]); math.Abs(v-want) > 1e-12 {
					t.Errorf("value of row %d is %v, want %v", r, v, want)
				}
			}
		})
	}
	loss, err := Weighted(t.Context(), p, graph.Options{}, in, engine.Values{{Name: "y", Tensor: tensor(slopes, 2, 3)}}, []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	for r, c := range classes {
		part, err := in.Slice(r, r+1)
		if err != nil {
			t.Fatal(err)
		}
		g, err := loss.Inputs.Slice(r, r+1)
		if err != nil {
			t.Fatal(err)
		}
		hold(t, p, part, "x", g[0].Tensor, func(y, _ []float64) float64 { return -math.Log(y[c]) })
	}
	for _, bad := range []engine.Values{nil, {{Name: "z", Tensor: tensor([]float64{1, 1}, 2)}}, {{Name: "nothing", Tensor: noise(3)}}, {{Name: "z", Tensor: noise(12)}}} {
		var wrong *engine.InputError
		if _, err := Weighted(t.Context(), p, graph.Options{}, in, bad, []string{"x"}); !errors.As(err, &wrong) {
			t.Errorf("weights %v: %v", bad, err)
		}
	}
}

// idsNet is a net over ids: the vectors of ids[:, 1:] and of a token put before them, from a
// table in floats, and from one in 8 bits of ids themselves; z adds all of it up.
func idsNet(t *testing.T) (*graph.Program, engine.Values) {
	t.Helper()
	g := &graph.Graph{
		Inputs: []engine.Spec{{Name: "ids", DType: engine.Int64, Shape: []int{-1, 3}}, {Name: "other", DType: engine.Int32, Shape: []int{-1, 1}}},
		Constants: map[string]*engine.Tensor{
			"table": noise(9, 2), "octets": tensor([]uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 6, 2), "small": noise(4, 2),
			"scale": tensor([]float64{0.5}), "from": ints(1), "to": ints(9), "axis": ints(1), "first": tensor([]int64{8, 8}, 2, 1), "pad": tensor([]int64{0}), "sum": ints(1, 2),
		},
		Outputs: []string{"z"},
		Nodes: []*graph.Node{
			node("Slice", []string{"ids", "from", "to", "axis"}, "tail"),
			{Op: "Concat", Version: 20, Inputs: []string{"first", "tail"}, Outputs: []string{"all"}, Attrs: graph.Attrs{"axis": aInt(1)}},
			node("Gather", []string{"table", "all"}, "v"),
			node("Gather", []string{"octets", "ids"}, "raw"),
			{Op: "DequantizeLinear", Version: 20, Inputs: []string{"raw", "scale"}, Outputs: []string{"q"}, Attrs: graph.Attrs{}},
			// A position that counts what is no padding is no id.
			node("Equal", []string{"ids", "pad"}, "padding"),
			{Op: "Cast", Version: 20, Inputs: []string{"padding"}, Outputs: []string{"counts"}, Attrs: graph.Attrs{"to": aInt(7)}},
			node("Gather", []string{"small", "counts"}, "positions"),
			node("Gather", []string{"small", "other"}, "o"),
			node("Sum", []string{"v", "q", "positions", "o"}, "s"),
			node("ReduceSum", []string{"s", "sum"}, "z"),
		},
	}
	p, err := graph.Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	return p, engine.Values{{Name: "ids", Tensor: tensor([]int64{3, 1, 0, 2, 5, 4}, 2, 3)}, {Name: "other", Tensor: tensor([]int32{1, 3}, 2, 1)}}
}

// embedsCodes: a table in 4 bits is one as well.
func embedsCodes(t *testing.T) {
	p, err := graph.Compile(&graph.Graph{
		Nodes: []*graph.Node{
			{Op: "GatherBlockQuantized", Domain: graph.DomainContrib, Version: 1, Inputs: []string{"codes", "ids", "scales"}, Outputs: []string{"v"}, Attrs: graph.Attrs{"block_size": {Kind: graph.AttrInt, Int: 16}}},
			{Op: "Mul", Version: 14, Inputs: []string{"v", "v"}, Outputs: []string{"z"}, Attrs: graph.Attrs{}},
		},
		Inputs: []engine.Spec{{Name: "ids", DType: engine.Int64, Shape: []int{-1}}}, Outputs: []string{"z"},
		Constants: map[string]*engine.Tensor{"codes": tensor(make([]uint8, 7*8), 7, 8), "scales": tensor([]float32{1, 1, 1, 1, 1, 1, 1}, 7, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "ids", Tensor: tensor([]int64{3, 6}, 2)}}
	list, err := Embeddings(t.Context(), p, graph.Options{}, in, "ids")
	if err != nil || len(list) != 1 || list[0].Name != "v" || list[0].Entries != 7 || list[0].Width != 16 {
		t.Fatalf("%+v, %v", list, err)
	}
	g, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "z"}, []string{"v"})
	if err != nil {
		t.Fatal(err)
	}
	d, _ := g.Inputs[0].Tensor.Float64s() // of a row's first v v, where v is -8
	if len(d) != 32 || d[0] != -16 || d[16] != -16 || d[1] != 0 || d[17] != 0 {
		t.Errorf("gradient %v", d)
	}
}

// TestEmbeddings: which values hold vectors of which ids, through what moves ids, and
// that they have gradients.
func TestEmbeddings(t *testing.T) {
	p, in := idsNet(t)
	if got := EmbeddedInputs(p); !slices.Equal(got, []string{"ids", "other"}) {
		t.Errorf("embedded inputs %q", got)
	}
	list, err := Embeddings(t.Context(), p, graph.Options{}, in, "ids")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b engine.Embedding) int { return b.Entries - a.Entries })
	if len(list) != 2 || list[0].Name != "v" || list[1].Name != "q" || list[0].Entries != 9 || list[1].Entries != 6 {
		t.Fatalf("embeddings %+v", list)
	}
	if want := []int{-1, 1, 2, -1, 4, 5}; !slices.Equal(list[0].Of, want) || list[0].Width != 2 {
		t.Errorf("ids %v, want %v", list[0].Of, want)
	}
	if want := []int{0, 1, 2, 3, 4, 5}; !slices.Equal(list[1].Of, want) {
		t.Errorf("ids %v, want %v", list[1].Of, want)
	}
	in = append(in, engine.Named{Name: "v", Tensor: noise(2, 3, 2)})
	g, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "z"}, []string{"v", "q"})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range g.Inputs {
		d, _ := v.Tensor.Float64s()
		if slices.ContainsFunc(d, func(x float64) bool { return x != 1 }) || len(d) != 12 {
			t.Errorf("gradient by %s is %v", v.Name, d)
		}
	}
	t.Run("of codes", embedsCodes)
	var wrong *engine.InputError
	if _, err := Embeddings(t.Context(), p, graph.Options{}, in, "nothing"); !errors.As(err, &wrong) {
		t.Errorf("of no input: %v", err)
	}
	if _, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "z"}, []string{"ids"}); !errors.As(err, &wrong) {
		t.Errorf("by ids: %v", err)
	}
}
