//go:build !race

// The race detector has pools forget at random, and counts what it needs itself.

package graph

import (
	"maps"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// TestRunsAllocateResultsOnly: from its second run on a session makes no object but the
// results and the list of them, whatever the network is and however often the shapes of its
// inputs have changed before.
func TestRunsAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties the kernels' pools
	for name, g := range allocationGraphs(t) {
		s := newAllocating(t, g, 1)
		for _, rows := range []int{16, 40, 16} {
			count := testing.AllocsPerRun(20, s.over(rows))
			if most := testing.AllocsPerRun(20, s.copyResults); count > most {
				t.Errorf("%s over %d rows: %v objects a run, its results are %v", name, rows, count, most)
			}
		}
	}
}

// TestThreadsAllocateNothing: a run on two threads makes no more objects than on one, where
// all that kernels share is worth it.
func TestThreadsAllocateNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	graphs := allocationGraphs(t)
	maps.Copy(graphs, sharedGraphs(t))
	const rows = 2048
	for name, g := range graphs {
		one := testing.AllocsPerRun(4, newAllocating(t, g, 1).over(rows))
		if two := enginetest.SharedObjects(one, newAllocating(t, g, 2).over(rows)); two > one {
			t.Errorf("%s: %v objects a run on two threads, %v on one", name, two, one)
		}
	}
}

// allocating is a session whose objects are counted.
type allocating struct {
	t   *testing.T
	g   *plainGraph
	p   *Program
	opt Options
	out engine.Values
}

func newAllocating(t *testing.T, g *plainGraph, threads int) *allocating {
	t.Helper()
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	return &allocating{t: t, g: g, p: p, opt: Options{Arena: &Arena{}, Threads: threads}}
}

// over is a run over so many rows, of which it does the first.
func (s *allocating) over(rows int) (run func()) {
	in := engine.Values{{Name: "x", Tensor: noise(s.t, s.g.r, rows, 32)}, {Name: "which", Tensor: mustBool(s.t, true)}}
	run = func() {
		var err error
		if s.out, err = s.p.Outputs(s.t.Context(), s.opt, in, s.g.Outputs); err != nil {
			s.t.Fatal(err)
		}
	}
	run()
	return run
}

// copyResults makes what the last run gave.
func (s *allocating) copyResults() {
	results := make(engine.Values, len(s.out))
	for i := range s.out {
		var err error
		if results[i].Tensor, err = Clone(s.out[i].Tensor); err != nil {
			s.t.Fatal(err)
		}
	}
	listed = results
}

// listed keeps a list from the stack.
var listed engine.Values

// sharedGraphs are of kernels that share their work from 2,048 rows of x on.
func sharedGraphs(t *testing.T) map[string]*plainGraph {
	text := func(s string) Attr { return Attr{Kind: AttrString, String: s} }
	graphs := map[string]*plainGraph{}
	shaped := func(name string, shape ...int64) *plainGraph {
		g := newPlainGraph(t)
		g.node("Reshape", "r", nil, "x", wholeOf(g, "shape", shape...))
		graphs[name] = g
		return g
	}
	shaped("sum", -1).node("Add", "y", nil, "r", "r")
	shaped("logarithms", -1, 32).node("LogSoftmax", "y", Attrs{"axis": {Kind: AttrInt, Int: -1}}, "r")
	shaped("columns", -1, 16, 32).node("Softmax", "y", Attrs{"axis": {Kind: AttrInt, Int: 1}}, "r")
	g := shaped("instances", 1, 4, -1)
	g.node("InstanceNormalization", "y", nil, "r", g.weigh("scale", 4), g.weigh("bias", 4))
	g = shaped("resize", 1, 2, -1, 128)
	g.Nodes = append(g.Nodes, &Node{
		Op: "Resize", Version: 19, Inputs: []string{"r", "", "", wholeOf(g, "sizes", 1, 2, 300, 200)}, Outputs: []string{"y"}, Attrs: Attrs{"mode": text("linear")},
	})
	g = shaped("images", -1, 2, 16, 16)
	g.Nodes = append(g.Nodes, &Node{
		Op: "Resize", Version: 19, Inputs: []string{"r", "", wholeOfFloats(g, "scales", 1, 1, 1.5, 1.5)}, Outputs: []string{"y"}, Attrs: Attrs{"mode": text("linear")},
	})
	shaped("means", -1, 4, 16, 16).node("AveragePool", "y", Attrs{"kernel_shape": ints(3, 3)}, "r")
	g = shaped("layers", 2, 2, 128, -1)
	g.node("Conv", "a", Attrs{"pads": ints(1, 1, 1, 1)}, "r", g.weigh("w1", 8, 2, 3, 3))
	g.node("Conv", "b", Attrs{"pads": ints(1, 1, 1, 1)}, "a", g.weigh("w2", 8, 8, 3, 3))
	g.node("Relu", "y", nil, "b")
	for name, signed := range map[string]bool{"products": false, "signed products": true} {
		graphs[name] = productsOfOctets(t, signed)
	}
	graphs["pairs"] = pairsOfOctets(t)
	return graphs
}

func wholeOfFloats(g *plainGraph, name string, v ...float32) string {
	g.Constants[name] = mustOf(g.t, v, len(v))
	return name
}

// productsOfOctets multiplies bytes by constants and by bytes that are no constants, as
// attention in 8 bits does, between convolutions of more bytes.
func productsOfOctets(t *testing.T, signed bool) *plainGraph {
	g := newOctetGraph(t)
	zero := put(g, []uint8{120})
	if signed {
		zero = put(g, []int8{-8})
	}
	scale, by, small := put(g, []float32{0.05}), put(g, []float32{0.002}), put(g, []float32{0.5})
	q := g.op("QuantizeLinear", nil, g.op("Reshape", nil, "x", put(g, []int64{-1, 32, 32}, 3)), scale, zero)
	v, zeros := make([]int8, 32*32), make([]int8, 32)
	for i := range v {
		v[i] = int8(g.r.Uint32())
	}
	zeros[3] = 5
	scales := make([]float32, 32)
	for i := range scales {
		scales[i] = 0.002
	}
	dense := g.op("QLinearMatMul", nil, q, scale, zero, put(g, v, 32, 32), put(g, scales, 32), put(g, zeros, 32), small, zero)
	turned := g.op("Transpose", Attrs{"perm": ints(0, 2, 1)}, dense)
	pair := g.op("QLinearMatMul", nil, q, scale, zero, turned, by, zero, small, zero)
	whole := g.op("MatMulInteger", nil, pair, put(g, v, 32, 32), zero)
	sums := g.op("Cast", Attrs{"to": {Kind: AttrInt, Int: 1}}, whole)
	g.node("Add", "y", nil, sums, g.op("DequantizeLinear", nil, pair, small, zero))
	return g.plainGraph
}

// pairsOfOctets adds images in 8 bits, and looks bytes up.
func pairsOfOctets(t *testing.T) *plainGraph {
	g := newOctetGraph(t)
	a := g.pair(g.op("Reshape", nil, "x", put(g, []int64{-1, 4, 32, 32}, 4)), 0.05, 120)
	w := g.octets(0, false, 16, 4, 3, 3)
	b := g.pair(g.op("Conv", Attrs{"pads": ints(1, 1, 1, 1)}, a, w), 0.05, 120)
	c := g.pair(g.op("Conv", Attrs{"pads": ints(1, 1, 1, 1)}, b, g.octets(0, false, 16, 16, 3, 3)), 0.05, 120)
	s := g.pair(g.op("Sigmoid", nil, g.pair(g.op("Add", nil, b, c), 0.1, 110)), 0.004, 0)
	d := g.pair(g.op("Conv", Attrs{"pads": ints(1, 1, 1, 1), "group": {Kind: AttrInt, Int: 16}}, s, g.octets(0, false, 16, 1, 3, 3)), 0.05, 120)
	g.node("MaxPool", "y", Attrs{"kernel_shape": ints(2, 2), "strides": ints(2, 2)}, d)
	return g.plainGraph
}
