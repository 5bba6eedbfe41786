package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestDirectConvolutions holds convolutions that need no table of windows against
// those by the table, over random geometries, with the same bits on any number of
// threads.
func TestDirectConvolutions(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		d := 1 + r.IntN(2)
		groups := []int{1, 1, 2, 5}[r.IntN(4)]
		inner, outer := 1+r.IntN(4), 1+r.IntN(4)
		x, w := []int{1 + r.IntN(3), groups * inner}, []int{groups * outer, inner}
		n := &Node{Op: "Conv", Version: 17, Inputs: []string{"a", "b", "bias"}, Outputs: []string{"c"}, Attrs: Attrs{}}
		var strides, dilations, pads []int64
		for range d {
			w = append(w, 1+r.IntN(4))
			strides, dilations = append(strides, int64(1+r.IntN(3))), append(dilations, int64(1+r.IntN(3)))
			x = append(x, 10+r.IntN(30))
		}
		for range 2 * d {
			pads = append(pads, int64(r.IntN(4)))
		}
		for name, v := range map[string][]int64{"strides": strides, "dilations": dilations, "pads": pads} {
			n.Attrs[name] = Attr{Kind: AttrInts, Ints: v}
		}
		n.Attrs["group"] = Attr{Kind: AttrInt, Int: int64(groups)}
		t.Run(fmt.Sprint(i, x, w, strides, dilations, pads), func(t *testing.T) {
			in, weights, bias := noise(t, r, x...), noise(t, r, w...), noise(t, r, w[0])
			c, err := NewConv(n, x, w)
			if err != nil {
				t.Fatal(err)
			}
			if newLayout(c.Windows) == nil {
				t.Fatal("has no layout")
			}
			want := make([]float64, volume(c.Result))
			wide := func(v *engine.Tensor) []float64 { f, _ := v.Float64s(); return f }
			Gather(c, want, wide(in), wide(weights))
			for i := range want {
				want[i] += wide(bias)[i/c.Positions()%w[0]]
			}
			first := convolved(t, n, 1, in, weights, bias)
			for i, v := range first {
				if math.Abs(float64(v)-want[i]) > 1e-5*float64(inner*c.Taps) {
					t.Fatalf("element %d is %v, want %v", i, v, want[i])
				}
			}
			if !slices.Equal(first, convolved(t, n, 3, in, weights, bias)) {
				t.Error("other bits on three threads")
			}
		})
	}
}

func noise(t *testing.T, r *rand.Rand, shape ...int) *engine.Tensor {
	t.Helper()
	v := make([]float32, volume(shape))
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	x, err := engine.Of(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func convolved(t *testing.T, n *Node, threads int, in ...*engine.Tensor) []float32 {
	t.Helper()
	g := &Graph{Outputs: n.Outputs, Nodes: []*Node{n}}
	var values engine.Values
	for i, v := range in {
		g.Inputs = append(g.Inputs, engine.Spec{Name: n.Inputs[i], DType: engine.Float32})
		values = append(values, engine.Named{Name: n.Inputs[i], Tensor: v})
	}
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Run(t.Context(), Options{Threads: threads}, values, g.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Data[float32](run.Value(n.Outputs[0]))
}

// TestScatterIsTheTranspose holds what goes back through a convolution against its
// definition by the table of windows.
func TestScatterIsTheTranspose(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 4))
	for range 200 {
		d := 1 + r.IntN(3)
		x, w := []int{1, 2}, []int{3, 2}
		n := &Node{Op: "Conv", Attrs: Attrs{}}
		var strides, dilations, pads []int64
		for range d {
			x, w = append(x, 7+r.IntN(6)), append(w, 1+r.IntN(3))
			strides, dilations = append(strides, int64(1+r.IntN(3))), append(dilations, int64(1+r.IntN(3)))
		}
		for range 2 * d {
			pads = append(pads, int64(r.IntN(3)))
		}
		for name, v := range map[string][]int64{"strides": strides, "dilations": dilations, "pads": pads} {
			n.Attrs[name] = Attr{Kind: AttrInts, Ints: v}
		}
		c, err := NewConv(n, x, w)
		if err != nil {
			t.Fatal(err)
		}
		small, weights := engine.Data[float32](noise(t, r, c.Result...)), engine.Data[float32](noise(t, r, w...))
		got, want := make([]float32, volume(x)), make([]float64, volume(x))
		Scatter(c, got, small, weights)
		for o := range c.Outer {
			for p := range c.Positions() {
				for i := range c.Inner * c.Taps {
					if at := c.Index()[p*c.Taps+i%c.Taps]; at >= 0 {
						want[i/c.Taps*c.Plane()+int(at)] += float64(small[o*c.Positions()+p]) * float64(weights[o*c.Inner*c.Taps+i])
					}
				}
			}
		}
		for i, v := range want {
			if math.Abs(float64(got[i])-v) > 1e-4 {
				t.Fatalf("%v %v %v: element %d is %v, want %v", x, w, pads, i, got[i], v)
			}
		}
	}
}
