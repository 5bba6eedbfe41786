package graph

import (
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestResultsAreTheCallers writes over results that are what a session keeps, a view of an
// input, and one value twice, and holds the next runs against ones without a session.
func TestResultsAreTheCallers(t *testing.T) {
	g := newPlainGraph(t)
	g.Constants["0"], g.Constants["1"] = wholeNumber(t, 0), wholeNumber(t, 1)
	g.node("Shape", "shape", nil, "x")
	g.node("Gather", "rows", nil, "shape", "0")
	g.node("Range", "range", nil, "0", "rows", "1")
	g.node("Cast", "places", Attrs{"to": {Kind: AttrInt, Int: 1}}, "range")
	g.node("Identity", "same", nil, "places")
	g.node("Reshape", "column", nil, "places", wholeOf(g, "as", -1, 1))
	g.node("Add", "sum", nil, "x", "column")
	g.node("Reshape", "flat", nil, "x", wholeOf(g, "all", -1))
	g.node("Reshape", "long", nil, "sum", "all")
	g.Outputs = []string{"sum", "long", "flat", "column", "same", "places", "sum"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Arena: &Arena{}}
	for i := range 12 {
		in := engine.Values{{Name: "x", Tensor: noise(t, g.r, 3+i/3%2*4, 8)}}
		before := slices.Clone(engine.Data[float32](in[0].Tensor))
		out, err := p.Outputs(t.Context(), opt, in, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		for k, name := range g.Outputs {
			v := engine.Data[float32](out[k].Tensor)
			if want := computed(t, p, Options{}, in, name); !same32(v, want) {
				t.Fatalf("run %d: %s is %v, want %v", i, name, v, want)
			}
		}
		for k := range out {
			if name := out[k].Name; name != "flat" { // a session gives a copy of an input's view, which this is not
				for j := range engine.Data[float32](out[k].Tensor) {
					engine.Data[float32](out[k].Tensor)[j] = -99
				}
			}
		}
		if !slices.Equal(before, engine.Data[float32](in[0].Tensor)) {
			t.Fatal("a result is an input")
		}
	}
}

// TestViewsOutliveTheRun: what a run gives as a view of an input stays what it is when the
// session goes on, with other shapes.
func TestViewsOutliveTheRun(t *testing.T) {
	g := newPlainGraph(t)
	g.node("Unsqueeze", "u", nil, "x", wholeOf(g, "zero", 0))
	g.node("Exp", "e", nil, "u")
	g.node("Identity", "y", nil, "u")
	g.Outputs = []string{"y", "e"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Arena: &Arena{}}
	var kept []*engine.Tensor
	var want [][]float32
	for i := range 6 {
		x := noise(t, g.r, 2+i%3, 4)
		out, err := p.Outputs(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		kept, want = append(kept, out[0].Tensor), append(want, slices.Clone(engine.Data[float32](x)))
		for k, y := range kept {
			if !slices.Equal(y.Shape(), []int{1, 2 + k%3, 4}) || !slices.Equal(engine.Data[float32](y), want[k]) {
				t.Fatalf("run %d: the result of run %d is %v of shape %v", i, k, engine.Data[float32](y), y.Shape())
			}
		}
	}
	for _, v := range opt.Arena.views {
		if engine.Data[float32](v) != nil {
			t.Error("a view holds on to an input after the run")
		}
	}
}

// TestKeptShapesAreBounded: what shapes decide is kept within its bounds, and is computed
// again where it is not, to the same values.
func TestKeptShapesAreBounded(t *testing.T) {
	g := newPlainGraph(t)
	wholeOf(g, "many", 1<<15)
	g.node("Shape", "shape", nil, "x")
	g.node("ConstantOfShape", "c", Attrs{"value": {Kind: AttrTensor, Tensor: mustOf(t, []float32{2}, 1)}}, "shape")
	g.node("Concat", "wide", Attrs{"axis": {Kind: AttrInt}}, "many", "shape")
	g.node("ConstantOfShape", "large", Attrs{"value": {Kind: AttrTensor, Tensor: mustOf(t, []float32{3}, 1)}}, "wide")
	g.node("ReduceMean", "mean", Attrs{"keepdims": {Kind: AttrInt}}, "large")
	g.node("Mul", "m", nil, "c", "mean")
	g.node("Add", "y", nil, "m", "x")
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Arena: &Arena{}}
	for i := range 8 {
		in := engine.Values{{Name: "x", Tensor: noise(t, g.r, 1+i%4, 10)}}
		out, err := p.Outputs(t.Context(), opt, in, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		if want := computed(t, p, Options{}, in, "y"); !same32(engine.Data[float32](out[0].Tensor), want) {
			t.Fatalf("run %d is another", i)
		}
		held := int64(0)
		for _, steps := range opt.Arena.derived {
			for k := range steps {
				held += steps[k].bytes()
			}
		}
		if held != opt.Arena.keeping || held > mostDerived || held == 0 {
			t.Fatalf("%d bytes kept, counted as %d", held, opt.Arena.keeping)
		}
	}
}
