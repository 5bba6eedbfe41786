package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestReduceOfFloats holds the loops of float32 against those of float64, which go element
// by element: axes at the end, at the front, between others and apart, of odd lengths.
func TestReduceOfFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	for op := range reductions {
		for _, c := range []struct{ shape, axes []int }{
			{[]int{3, 5, 7, 37}, []int{1, 2}},
			{[]int{2, 4, 3, 16}, []int{1, 2}},
			{[]int{5, 33}, []int{1}},
			{[]int{33, 5}, []int{0}},
			{[]int{3, 9, 2}, []int{0, 2}},
			{[]int{41}, []int{0}},
			{[]int{2, 1, 3}, []int{1}},
			{[]int{3, 2, 1500}, []int{1}},
			{[]int{2, 3, 2100}, []int{1}},
			{[]int{2, 0, 20}, []int{1}},
			{[]int{2, 0}, []int{1}},
		} {
			for _, special := range []bool{false, true} {
				if volume(c.shape) == 0 && special {
					continue
				}
				in := noise(t, r, c.shape...)
				if special {
					v := engine.Data[float32](in)
					v[0], v[len(v)/2] = float32(math.NaN()), float32(math.Inf(-1))
				}
				axes, keep := make([]int64, len(c.axes)), int64(r.IntN(2))
				for i, a := range c.axes {
					axes[i] = int64(a)
				}
				attrs := Attrs{"axes": attrInts(axes...), "keepdims": {Kind: AttrInt, Int: keep}}
				g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y", "z"}}
				add := func(op, in, out string, attrs Attrs) {
					g.Nodes = append(g.Nodes, &Node{Op: op, Version: 12, Inputs: []string{in}, Outputs: []string{out}, Attrs: attrs})
				}
				add(op, "x", "y", attrs)
				add("Cast", "x", "wide", Attrs{"to": {Kind: AttrInt, Int: 11}})
				add(op, "wide", "folded", attrs)
				add("Cast", "folded", "z", Attrs{"to": {Kind: AttrInt, Int: 1}})
				p, err := Compile(g)
				if err != nil {
					t.Fatal(err)
				}
				values := engine.Values{{Name: "x", Tensor: in}}
				got, want := computed(t, p, Options{}, values, "y"), computed(t, p, Options{}, values, "z")
				name := fmt.Sprint(op, c.shape, c.axes, special)
				if len(got) != len(want) {
					t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
				}
				for i, w := range want {
					if g := got[i]; g != w && (g == g || w == w) && !(math.Abs(float64(g-w)) <= 1e-6*max(1, math.Abs(float64(w)))) {
						t.Fatalf("%s: element %d is %v, want %v", name, i, g, w)
					}
				}
			}
		}
	}
}

// TestWhereOfFloats: a condition, and branches, of all and of some of the dimensions.
func TestWhereOfFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 4))
	shapes := [][]int{{3, 5, 7}, {}, {7}, {5, 1}, {3, 1, 1}, {1, 5, 7}}
	at := func(shape []int, i, j, k int) int {
		index, of := []int{i, j, k}, 0
		for d, size := range shape {
			of = of*size + min(index[3-len(shape)+d], size-1)
		}
		return of
	}
	for _, ca := range shapes {
		for _, cb := range shapes {
			for _, cc := range shapes {
				if volume(ca) != 105 && volume(cb) != 105 && volume(cc) != 105 {
					continue
				}
				pick := make([]bool, volume(ca))
				for i := range pick {
					pick[i] = r.IntN(2) == 0
				}
				cond, err := engine.Of(pick, ca...)
				if err != nil {
					t.Fatal(err)
				}
				a, b := noise(t, r, cb...), noise(t, r, cc...)
				g := &Graph{
					Inputs: []engine.Spec{{Name: "c", DType: engine.Bool}, {Name: "a", DType: engine.Float32}, {Name: "b", DType: engine.Float32}}, Outputs: []string{"y"},
					Nodes: []*Node{{Op: "Where", Version: 16, Inputs: []string{"c", "a", "b"}, Outputs: []string{"y"}, Attrs: Attrs{}}},
				}
				p, err := Compile(g)
				if err != nil {
					t.Fatal(err)
				}
				got := computed(t, p, Options{}, engine.Values{{Name: "c", Tensor: cond}, {Name: "a", Tensor: a}, {Name: "b", Tensor: b}}, "y")
				if len(got) != 105 {
					t.Fatalf("%v %v %v: %d elements", ca, cb, cc, len(got))
				}
				for n, v := range got {
					i, j, k := n/35, n/7%5, n%7
					want := engine.Data[float32](b)[at(cc, i, j, k)]
					if pick[at(ca, i, j, k)] {
						want = engine.Data[float32](a)[at(cb, i, j, k)]
					}
					if v != want {
						t.Fatalf("%v %v %v: element %d is %v, want %v", ca, cb, cc, n, v, want)
					}
				}
			}
		}
	}
}

// TestNegOfZeros: the sign of a zero turns too.
func TestNegOfZeros(t *testing.T) {
	in := []float32{0, float32(math.Copysign(0, -1)), 1, float32(math.Inf(1)), 1e-42, -3, 0, 0, float32(math.Copysign(0, -1))}
	x, err := engine.Of(in, len(in))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(&Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y"},
		Nodes: []*Node{{Op: "Neg", Version: 13, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: Attrs{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range computed(t, p, Options{}, engine.Values{{Name: "x", Tensor: x}}, "y") {
		if math.Float32bits(v) != math.Float32bits(-in[i]) {
			t.Errorf("element %d is %v, want %v", i, v, -in[i])
		}
	}
}

// TestBatchNormOfFloats: rows of channels, which are computed at once, and channels of
// several neighbours, held against float64.
func TestBatchNormOfFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 4))
	for _, shape := range [][]int{{5, 37}, {3, 16}, {4, 3, 7}, {2, 5, 1, 1}, {0, 4}, {1, 1}} {
		x, names := noise(t, r, shape...), []string{"x", "scale", "bias", "mean", "variance"}
		g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y", "z"}, Constants: map[string]*engine.Tensor{}}
		values := engine.Values{{Name: "x", Tensor: x}}
		wide := []string{"x64"}
		for _, name := range names[1:] {
			p := noise(t, r, shape[1])
			if name == "variance" {
				for i, v := range engine.Data[float32](p) {
					engine.Data[float32](p)[i] = v * v
				}
			}
			values = append(values, engine.Named{Name: name, Tensor: p})
			g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float32})
			wide = append(wide, name+"64")
		}
		add := func(op string, in []string, out string, attrs Attrs) {
			g.Nodes = append(g.Nodes, &Node{Op: op, Version: 15, Inputs: in, Outputs: []string{out}, Attrs: attrs})
		}
		for i, name := range names {
			add("Cast", []string{name}, wide[i], Attrs{"to": {Kind: AttrInt, Int: 11}})
		}
		add("BatchNormalization", names, "y", Attrs{})
		add("BatchNormalization", wide, "wide", Attrs{})
		add("Cast", []string{"wide"}, "z", Attrs{"to": {Kind: AttrInt, Int: 1}})
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		got, want := computed(t, p, Options{}, values, "y"), computed(t, p, Options{}, values, "z")
		if len(got) != volume(shape) || len(want) != len(got) {
			t.Fatalf("%v: %d and %d elements", shape, len(got), len(want))
		}
		for i, w := range want {
			if !(math.Abs(float64(got[i]-w)) <= 1e-5*max(1, math.Abs(float64(w)))) {
				t.Fatalf("%v: element %d is %v, want %v", shape, i, got[i], w)
			}
		}
	}
}
