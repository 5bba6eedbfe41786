package graph

import (
	"fmt"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// paddedGraph is a convolution, a Pad and another convolution. The widths are constants, or
// made of the image's shape as TensorFlow's are.
func paddedGraph(t *testing.T, conv Attrs, channels, groups int, computed bool, widths ...int64) *plainGraph {
	t.Helper()
	g := newPlainGraph(t)
	rank := len(widths) / 2
	ones, window := []int{1, 1}[:rank-2], []int{3, 5}[:rank-2]
	g.node("Conv", "a", nil, "x", g.weigh("w1", append([]int{channels, 4}, ones...)...))
	g.node("Relu", "b", nil, "a")
	pads := wholeOf(g, "pads", widths...)
	if computed {
		g.node("Shape", "shape", nil, "b")
		g.node("Gather", "n", nil, "shape", wholeOf(g, "two", 2))
		g.node("Sub", "none", nil, "n", "n")
		g.node("Add", "wide", nil, pads, "none")
		pads = "wide"
	}
	g.node("Pad", "c", nil, "b", pads)
	conv["group"] = Attr{Kind: AttrInt, Int: int64(groups)}
	g.node("Conv", "d", conv, "c", g.weigh("w2", append([]int{channels, channels / groups}, window...)...))
	g.node("Add", "e", nil, "d", g.weigh("s", append([]int{channels}, ones...)...))
	g.node("Relu", "y", nil, "e")
	return g
}

// TestPadsOfConvolutions: a convolution takes the pads before it for its own, of images and
// lines, of all channels together and each by itself, beside pads of its own; where they
// change from run to run, as the shapes do, and where they are not for it.
func TestPadsOfConvolutions(t *testing.T) {
	for i, c := range []struct {
		conv   Attrs
		widths []int64
		taken  bool
	}{
		{Attrs{}, []int64{0, 0, 1, 2, 0, 0, 0, 3}, true},
		{Attrs{"strides": attrInts(2, 2)}, []int64{0, 0, 0, 1, 0, 0, 1, 2}, true},
		{Attrs{"pads": attrInts(1, 0, 0, 2)}, []int64{0, 0, 1, 2, 0, 0, 0, 3}, true},
		{Attrs{"auto_pad": Attr{Kind: AttrString, String: "VALID"}}, []int64{0, 0, 1, 1, 0, 0, 1, 1}, true},
		{Attrs{"auto_pad": Attr{Kind: AttrString, String: "SAME_UPPER"}}, []int64{0, 0, 1, 1, 0, 0, 1, 1}, false},
		{Attrs{"dilations": attrInts(2, 1)}, []int64{0, 0, 4, 0, 0, 0, 4, 0}, true},
		{Attrs{}, []int64{0, 0, 0, 0, 0, 0, 0, 0}, true},
		{Attrs{}, []int64{0, 0, -1, 2, 0, 0, 0, 3}, false},
		{Attrs{}, []int64{1, 0, 0, 0, 0, 0, 0, 0}, false},
		{Attrs{}, []int64{0, 0, 2, 0, 0, 1}, true},
		{Attrs{"pads": attrInts(1, 1), "strides": attrInts(2)}, []int64{0, 0, 2, 0, 0, 1}, true},
	} {
		for _, groups := range []int{1, 32} {
			for _, computes := range []bool{false, true} {
				t.Run(fmt.Sprint(i, groups, computes), func(t *testing.T) {
					attrs := Attrs{}
					for k, v := range c.conv {
						attrs[k] = v
					}
					g := paddedGraph(t, attrs, 32, groups, computes, c.widths...)
					p, err := Compile(g.Graph)
					if err != nil {
						t.Fatal(err)
					}
					pads := 0
					for _, s := range p.fused.steps {
						if s.node.Op == "Pad" {
							pads++
						}
					}
					if !computes && (pads == 0) != c.taken {
						t.Errorf("%d pads are left", pads)
					}
					arena := &Arena{}
					for _, size := range [][]int{{2, 4, 9, 11}, {1, 4, 8, 6}, {2, 4, 9, 11}} {
						in := engine.Values{{Name: "x", Tensor: noise(t, g.r, size[:len(c.widths)/2]...)}}
						near(t, "y", computed(t, p, Options{Arena: arena}, in, "y"), computed(t, p, Options{Keep: true}, in, "y"), 30)
					}
					if c.taken && len(p.odd) > 0 {
						t.Error("sent back to the graph as it was written")
					}
				})
			}
		}
	}
}
