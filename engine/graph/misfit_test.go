package graph

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestValuesThatDoNotFitAreTheCallers: what an operator cannot do with a caller's numbers
// is an error of the input, which holds none of them.
func TestValuesThatDoNotFitAreTheCallers(t *testing.T) {
	for _, c := range []struct {
		op    string
		given []int64
		say   string
	}{
		{"Gather", []int64{77777}, "outside an axis of 3"},
		{"Gather", []int64{-77777}, "outside an axis of 3"},
		{"Reshape", []int64{77777}, "number of elements"},
		{"Reshape", []int64{77777, -1}, "number of elements"},
		{"Reshape", []int64{-1, -1}, "two dimensions"},
		{"Reshape", []int64{-77777, 1}, "negative dimension"},
	} {
		g := newPlainGraph(t)
		g.Inputs = []engine.Spec{{Name: "i", DType: engine.Int64, Shape: []int{-1}}}
		g.node(c.op, "y", nil, g.weigh("w", 3, 2), "i")
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		given, err := engine.Of(c.given, len(c.given))
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Run(t.Context(), Options{}, engine.Values{{Name: "i", Tensor: given}}, []string{"y"})
		var e *engine.InputError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), c.op) || strings.Contains(err.Error(), "77777") {
			t.Errorf("%s %v: %v", c.op, c.given, err)
		}
	}
}

// TestShapesThatDoNotFitAreTheCallers: inputs whose shapes are fine alone and not together.
func TestShapesThatDoNotFitAreTheCallers(t *testing.T) {
	for _, op := range []string{"Add", "MatMul", "Concat"} {
		g := newPlainGraph(t)
		g.Inputs = []engine.Spec{{Name: "a", DType: engine.Float32, Shape: []int{-1, -1}}, {Name: "b", DType: engine.Float32, Shape: []int{-1, -1}}}
		var attrs Attrs
		if op == "Concat" {
			attrs = Attrs{"axis": Attr{Kind: AttrInt, Int: 1}}
		}
		g.node(op, "y", attrs, "a", "b")
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "a", Tensor: noise(t, g.r, 2, 3)}, {Name: "b", Tensor: noise(t, g.r, 5, 3)}}
		_, err = p.Run(t.Context(), Options{}, in, []string{"y"})
		var e *engine.InputError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), op) || e.Input != "a" || !strings.Contains(e.Reason, `"b"`) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestWhoIsToBlame: an error within an inner graph is of the inputs of the outer one that
// it works on; what follows from constants alone is the model's.
func TestWhoIsToBlame(t *testing.T) {
	g := newPlainGraph(t)
	branch := &Graph{Outputs: []string{"s"}, Nodes: []*Node{{Name: "inside", Op: "Add", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"s"}}}}
	g.Inputs = []engine.Spec{{Name: "unused", DType: engine.Float32}, {Name: "x", DType: engine.Float32}, {Name: "c", DType: engine.Bool}}
	g.weigh("w", 3)
	choose := &Node{Name: "choose", Op: "If", Version: 17, Inputs: []string{"c"}, Outputs: []string{"y"}, Attrs: Attrs{
		"then_branch": {Kind: AttrGraph, Graph: branch}, "else_branch": {Kind: AttrGraph, Graph: branch},
	}}
	Capture(choose)
	g.Nodes = append(g.Nodes, choose)
	g.node("Reshape", "z", nil, "w", wholeOf(g, "shape", 4))
	g.Outputs = []string{"y", "z"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	yes, err := engine.Of([]bool{true})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "unused", Tensor: noise(t, g.r, 1)}, {Name: "x", Tensor: noise(t, g.r, 2)}, {Name: "c", Tensor: yes}}
	_, err = p.Run(t.Context(), Options{}, in, []string{"y"})
	var e *engine.InputError
	if !errors.As(err, &e) || e.Input != "x" || !strings.Contains(e.Reason, `"c"`) || !strings.Contains(e.Reason, `node "inside"`) || strings.Contains(e.Reason, "unused") {
		t.Errorf("within a branch: %v", err)
	}
	var none *engine.InputError
	if _, err = p.Run(t.Context(), Options{}, in, []string{"z"}); err == nil || errors.As(err, &none) {
		t.Errorf("of constants: %v", err)
	}
}

// TestWhatIsNotTooLarge: a shape below 0 and a range of what is no number are a caller's mistakes,
// and no matter of memory.
func TestWhatIsNotTooLarge(t *testing.T) {
	g := newPlainGraph(t)
	g.Inputs = []engine.Spec{{Name: "n", DType: engine.Int64, Shape: []int{-1}}, {Name: "to", DType: engine.Float32, Shape: []int{}}}
	g.node("ConstantOfShape", "filled", nil, "n")
	g.Constants["from"], g.Constants["by"] = mustOf(t, []float32{0}), mustOf(t, []float32{1})
	g.node("Range", "counted", nil, "from", "to", "by")
	g.Outputs = []string{"filled", "counted"}
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := engine.Of([]int64{2, -77777}, 2)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "n", Tensor: sizes}, {Name: "to", Tensor: mustOf(t, []float32{float32(math.NaN())})}}
	for _, name := range []string{"filled", "counted"} {
		_, err := p.Run(t.Context(), Options{}, in, []string{name})
		var e *engine.InputError
		if !errors.As(err, &e) || errors.Is(err, engine.ErrTooLarge) || strings.Contains(err.Error(), "77777") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConcatNeedsAnAxis, as it does since operator set 4.
func TestConcatNeedsAnAxis(t *testing.T) {
	g := newPlainGraph(t)
	g.node("Concat", "y", nil, "x", "x")
	if _, err := Compile(g.Graph); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("without an axis: %v", err)
	}
}

// TestGradientsOfLongTransformsAreBounded: a gradient walks all weights of a transform, whose
// number its lines make, too.
func TestGradientsOfLongTransformsAreBounded(t *testing.T) {
	for _, c := range []struct {
		shape []int
		large bool
	}{{[]int{1, 1 << 17, 1}, true}, {[]int{16, 1 << 15, 1}, true}, {[]int{2, 1 << 10, 1}, false}} {
		x, err := engine.New(engine.Float32, c.shape...)
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{Op: "DFT", Version: 17, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: Attrs{}}
		if _, ok, err := NewLinearMap(n, []*engine.Tensor{x}); !ok || errors.Is(err, engine.ErrTooLarge) != c.large {
			t.Errorf("%v: %t, %v", c.shape, ok, err)
		}
	}
}
