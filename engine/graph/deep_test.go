package graph

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestDeepConvolutions holds convolutions over three dimensions against those of the
// program as it is written, on one thread and on three to the same bits.
func TestDeepConvolutions(t *testing.T) {
	ints := func(v ...int64) Attr { return Attr{Kind: AttrInts, Ints: v} }
	for i, c := range []struct {
		x, w  []int
		attrs Attrs
	}{
		{[]int{2, 3, 5, 7, 9}, []int{8, 3, 3, 3, 3}, Attrs{"pads": ints(1, 1, 1, 1, 1, 1)}},
		{[]int{1, 48, 4, 20, 20}, []int{64, 48, 3, 3, 3}, Attrs{"pads": ints(1, 1, 1, 1, 1, 1)}},
		{[]int{1, 48, 4, 20, 20}, []int{64, 48, 1, 3, 3}, Attrs{"pads": ints(0, 1, 1, 0, 1, 1)}},
		{[]int{1, 5, 6, 6, 6}, []int{17, 5, 3, 1, 1}, Attrs{"pads": ints(1, 0, 0, 1, 0, 0), "strides": ints(2, 1, 1)}},
		{[]int{3, 4, 9, 8, 7}, []int{6, 4, 3, 2, 3}, Attrs{"dilations": ints(2, 1, 2), "strides": ints(1, 2, 1), "pads": ints(3, 0, 2, 2, 1, 1)}},
		{[]int{1, 2, 5, 6, 7}, []int{3, 2, 2, 2, 2}, Attrs{"auto_pad": {Kind: AttrString, String: "SAME_LOWER"}}},
	} {
		for _, after := range []string{"", "Relu", "Sigmoid"} {
			t.Run(fmt.Sprint(i, after), func(t *testing.T) {
				g := newPlainGraph(t)
				names := []string{"x", g.weigh("w", c.w...), g.weigh("b", c.w[0])}
				for k, v := range engine.Data[float32](g.Constants["w"]) { // so that sums are about 1
					engine.Data[float32](g.Constants["w"])[k] = v / float32(math.Sqrt(float64(volume(c.w[1:]))))
				}
				if after == "" {
					g.node("Conv", "y", c.attrs, names[:2]...)
				} else {
					g.node("Conv", "s", c.attrs, names...)
					g.node(after, "y", nil, "s")
				}
				p, err := Compile(g.Graph)
				if err != nil {
					t.Fatal(err)
				}
				if p.fused == nil || len(p.fused.steps) != 1 {
					t.Fatal("it is no step of its own")
				}
				in := engine.Values{{Name: "x", Tensor: noise(t, g.r, c.x...)}}
				var got [2][]float32
				for k, threads := range []int{1, 3} {
					run, err := p.fused.Run(context.Background(), Options{Threads: threads, Arena: &Arena{}}, in, g.Outputs)
					if err != nil {
						t.Fatal(err)
					}
					got[k] = engine.Data[float32](run.Value("y"))
				}
				if !slices.Equal(got[0], got[1]) {
					t.Fatal("other bits on three threads")
				}
				want, err := p.Run(context.Background(), Options{Keep: true}, in, g.Outputs)
				if err != nil {
					t.Fatal(err)
				}
				all, largest := engine.Data[float32](want.Value("y")), 0.0
				for _, v := range all {
					largest = max(largest, math.Abs(float64(v)))
				}
				for k, v := range all {
					if !(math.Abs(float64(v)-float64(got[0][k])) <= 1e-5*largest) {
						t.Fatalf("element %d is %v, want %v", k, got[0][k], v)
					}
				}
			})
		}
	}
}
