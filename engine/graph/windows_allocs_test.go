//go:build !race

package graph

import (
	"runtime/debug"
	"testing"
)

// TestWindowsAllocateResultsOnly is TestRunsAllocateResultsOnly of windows over lines, images
// and volumes alone, of bytes and of float64 too.
func TestWindowsAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for name, g := range windowGraphs(t) {
		s := newAllocating(t, g, 1)
		for _, rows := range []int{16, 64} {
			run := s.over(rows)
			run()
			count := testing.AllocsPerRun(5, run)
			if most := testing.AllocsPerRun(5, s.copyResults); count > most {
				t.Errorf("%s over %d rows: %v objects a run, its results are %v", name, rows, count, most)
			}
		}
	}
}

func windowGraphs(t *testing.T) map[string]*plainGraph {
	graphs := map[string]*plainGraph{}
	// of begins a graph whose value v is x, as numbers from -100 to 100 of a type, in a shape.
	of := func(name string, d int64, shape ...int64) *octetGraph {
		g := newOctetGraph(t)
		g.node("Mul", "s", nil, "x", put(g, []float32{40}))
		g.node("Cast", "c", Attrs{"to": {Kind: AttrInt, Int: d}}, "s")
		g.node("Reshape", "v", nil, "c", put(g, shape, len(shape)))
		graphs[name] = g.plainGraph
		return g
	}
	for _, shape := range [][]int64{{-1, 4, 8}, {-1, 4, 8, 8}, {-1, 4, 4, 4, 4}} {
		n := len(shape) - 2
		dims, two := string(rune('0'+n)), Attrs{"kernel_shape": ints([]int64{2, 2, 2}[:n]...)}
		for _, op := range []string{"MaxPool", "AveragePool", "LpPool"} {
			of(op+" "+dims, 1, shape...).node(op, "y", two, "v")
			of(op+" of float64 "+dims, 11, shape...).node(op, "y", two, "v")
		}
		w := []int{4, 4, 2, 2, 2}[:n+2]
		for _, op := range []string{"Conv", "ConvTranspose"} {
			g := of(op+" "+dims, 1, shape...)
			g.node(op, "y", nil, "v", g.weigh("w", w...))
			g = of(op+" of float64 "+dims, 11, shape...)
			g.node(op, "y", nil, "v", put(g, make([]float64, volume(w)), w...))
		}
		for _, groups := range []int{1, 4} {
			w, at := append([]int{4, 4 / groups}, w[2:]...), Attrs{"group": {Kind: AttrInt, Int: int64(groups)}}
			scale := []float32{0.1}
			g := of("ConvInteger "+dims+string(rune('0'+groups)), 2, shape...)
			g.node("ConvInteger", "y", at, "v", put(g, make([]int8, volume(w)), w...))
			g = of("QLinearConv "+dims+string(rune('0'+groups)), 3, shape...)
			zero := put(g, []int8{3})
			g.node("QLinearConv", "y", at, "v", put(g, scale), zero, put(g, make([]int8, volume(w)), w...), put(g, scale), put(g, []int8{0}), put(g, scale), zero, put(g, make([]int32, 4), 4))
		}
	}
	of("Det", 1, -1, 4, 4).node("Det", "y", nil, "v")
	g := of("DFT", 1, 1, -1, 16, 2)
	g.Nodes = append(g.Nodes, &Node{Op: "DFT", Version: 20, Inputs: []string{"v"}, Outputs: []string{"y"}, Attrs: Attrs{}})
	return graphs
}
