package graph

import (
	"sync"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// allocationGraphs are the kinds of networks whose runs are counted.
func allocationGraphs(t *testing.T) map[string]*plainGraph {
	dense := newPlainGraph(t)
	dense.node("Gemm", "a", nil, "x", dense.weigh("w1", 32, 64), dense.weigh("b1", 64))
	dense.node("Relu", "b", nil, "a")
	dense.node("Gemm", "c", nil, "b", dense.weigh("w2", 64, 80), dense.weigh("b2", 80))
	dense.node("Softmax", "y", nil, "c")
	conv := newPlainGraph(t)
	pads := Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1}}}
	conv.node("Unsqueeze", "u", nil, "x", wholeOf(conv, "one", 1))
	conv.node("Conv", "a", pads, "u", conv.weigh("w1", 8, 1, 3))
	conv.node("Relu", "b", nil, "a")
	for i, name := range []string{"c", "d", "e"} {
		conv.node("Conv", name, pads, []string{"b", "c", "d"}[i], conv.weigh("w"+name, 8, 8, 3))
	}
	conv.node("GlobalAveragePool", "y", nil, "e")
	branch := newPlainGraph(t)
	branch.Inputs = append(branch.Inputs, engine.Spec{Name: "which", DType: engine.Bool})
	then := newPlainGraph(t)
	then.Inputs = nil
	then.node("Exp", "t1", nil, "x")
	then.node("Tanh", "y", nil, "t1")
	branch.node("If", "a", Attrs{"then_branch": {Kind: AttrGraph, Graph: then.Graph}, "else_branch": {Kind: AttrGraph, Graph: then.Graph}}, "which")
	Capture(branch.Nodes[0])
	branch.node("Sigmoid", "y", nil, "a")
	attention := newPlainGraph(t)
	attention.node("Reshape", "h", nil, "x", wholeOf(attention, "heads", 1, -1, 4, 8))
	attention.node("Transpose", "q", Attrs{"perm": {Kind: AttrInts, Ints: []int64{0, 2, 1, 3}}}, "h")
	attention.node("Transpose", "k", Attrs{"perm": {Kind: AttrInts, Ints: []int64{0, 2, 3, 1}}}, "h")
	attention.node("MatMul", "s", nil, "q", "k")
	attention.node("Softmax", "p", Attrs{"axis": {Kind: AttrInt, Int: -1}}, "s")
	attention.node("MatMul", "y", nil, "p", "q")
	lstm := newPlainGraph(t)
	lstm.node("Unsqueeze", "u", nil, "x", wholeOf(lstm, "zero", 0))
	lstm.node("LSTM", "y", Attrs{"hidden_size": {Kind: AttrInt, Int: 16}}, "u", lstm.weigh("w", 1, 64, 32), lstm.weigh("r", 1, 64, 16))
	norm := newPlainGraph(t)
	axis := Attrs{"axes": {Kind: AttrInts, Ints: []int64{-1}}}
	norm.node("ReduceMean", "m", axis, "x")
	norm.node("Sub", "d", nil, "x", "m")
	norm.node("Mul", "q", nil, "d", "d")
	norm.node("ReduceMean", "v", axis, "q")
	norm.Constants["eps"] = mustOf(t, []float32{1e-5})
	norm.node("Add", "e", nil, "v", "eps")
	norm.node("Sqrt", "r", nil, "e")
	norm.node("Div", "n", nil, "d", "r")
	norm.node("Mul", "s", nil, "n", norm.weigh("scale", 32))
	norm.node("Transpose", "t", nil, "s")
	norm.node("Slice", "u", nil, "t", wholeOf(norm, "from", 1), wholeOf(norm, "to", 9))
	norm.node("Concat", "w", Attrs{"axis": {Kind: AttrInt}}, "u", "t")
	norm.node("Relu", "y", nil, "w")
	return map[string]*plainGraph{
		"dense": dense, "conv": conv, "branch": branch, "attention": attention, "lstm": lstm, "norm": norm,
		"loop": loopGraph(t), "shapes": shapesGraph(t), "block": blockGraph(t),
		"pads": padsGraph(t), "bytes": octetsGraph(t), "dynamic": dynamicGraph(t),
	}
}

// octetsGraph is of images in 8 bits.
func octetsGraph(t *testing.T) *plainGraph {
	g := newOctetGraph(t)
	g.node("Reshape", "images", nil, "x", wholeOf(g.plainGraph, "size", -1, 2, 4, 4))
	g.images("images", 2, false)
	return g.plainGraph
}

// dynamicGraph convolves images in 8 bits whose scale each run finds.
func dynamicGraph(t *testing.T) *plainGraph {
	g := newOctetGraph(t)
	g.node("Reshape", "images", nil, "x", wholeOf(g.plainGraph, "size", -1, 2, 4, 4))
	g.Nodes = append(g.Nodes, &Node{Op: "DynamicQuantizeLinear", Version: 17, Inputs: []string{"images"}, Outputs: []string{"b", "s", "z"}, Attrs: Attrs{}})
	v := make([]int8, 10*2*9)
	for i := range v {
		v[i] = int8(g.r.Uint32())
	}
	sums := g.op("ConvInteger", nil, "b", put(g, v, 10, 2, 3, 3), "z")
	g.node("Sigmoid", "y", nil, g.op("Mul", nil, g.op("Cast", Attrs{"to": Attr{Kind: AttrInt, Int: 1}}, sums), g.op("Mul", nil, "s", put(g, []float32{0.01}))))
	return g.plainGraph
}

// padsGraph pads lines by what their shape says.
func padsGraph(t *testing.T) *plainGraph {
	g := newPlainGraph(t)
	g.node("Unsqueeze", "u", nil, "x", wholeOf(g, "one", 1))
	g.node("Conv", "a", nil, "u", g.weigh("w1", 8, 1, 3))
	g.node("Shape", "shape", nil, "a")
	g.node("Gather", "n", nil, "shape", wholeOf(g, "two", 2))
	g.node("Sub", "more", nil, wholeOf(g, "whole", 32), "n")
	g.node("Concat", "pads", Attrs{"axis": {Kind: AttrInt}}, wholeOf(g, "none", 0, 0, 0, 0, 0), "more")
	g.node("Pad", "b", nil, "a", "pads")
	g.node("Conv", "y", nil, "b", g.weigh("w2", 8, 8, 3))
	return g
}

// loopGraph carries two states, one of which is the one before of the other, and stacks a
// new value, a state, the turn and a value from outside.
func loopGraph(t *testing.T) *plainGraph {
	body := newPlainGraph(t)
	body.Inputs = []engine.Spec{{Name: "i", DType: engine.Int64}, {Name: "c", DType: engine.Bool}, {Name: "s", DType: engine.Float32}, {Name: "old", DType: engine.Float32}}
	body.node("Mul", "m", nil, "s", "x")
	body.node("Tanh", "next", nil, "m")
	body.node("Sub", "d", nil, "next", "old")
	body.node("Cast", "turn", Attrs{"to": {Kind: AttrInt, Int: 1}}, "i")
	body.node("Identity", "go", nil, "c")
	body.node("Identity", "was", nil, "s")
	body.node("Identity", "out", nil, "x")
	body.node("Identity", "i2", nil, "i")
	body.Outputs = []string{"go", "next", "was", "d", "was", "i2", "out"}
	g := newPlainGraph(t)
	g.Constants["true"] = mustBool(t, true)
	turns := wholeOf(g, "turns", 5)
	g.node("Exp", "e", nil, "x")
	g.node("Loop", "last", Attrs{"body": {Kind: AttrGraph, Graph: body.Graph}}, turns, "true", "e", "x")
	loop := g.Nodes[1]
	loop.Outputs = []string{"last", "before", "ds", "states", "is", "xs"}
	Capture(loop)
	g.node("Cast", "turnsOf", Attrs{"to": {Kind: AttrInt, Int: 1}}, "is")
	zero := wholeOf(g, "zero", 0)
	sums := []string{"last", "before"}
	for _, name := range []string{"ds", "states", "xs", "turnsOf"} {
		g.node("ReduceSum", "sum"+name, Attrs{"keepdims": {Kind: AttrInt}}, name, zero)
		sums = append(sums, "sum"+name)
	}
	at := sums[0]
	for _, name := range sums[1:] {
		g.node("Add", at+"+", nil, at, name)
		at += "+"
	}
	g.node("Relu", "y", nil, at)
	return g
}

// shapesGraph is arithmetic of shapes as exporters spell it: positions, a mask, and a value
// given the shape that it has.
func shapesGraph(t *testing.T) *plainGraph {
	g := newPlainGraph(t)
	zero, one, width := wholeOf(g, "zero", 0), wholeOf(g, "one", 1), wholeOf(g, "width", 2, 16)
	g.Constants["0"], g.Constants["1"] = wholeNumber(t, 0), wholeNumber(t, 1)
	g.node("Exp", "e", nil, "x")
	g.node("Shape", "shape", nil, "e")
	g.node("Gather", "rows", nil, "shape", "0")
	g.node("Range", "counted", nil, "0", "rows", "1")
	g.node("Cast", "places", Attrs{"to": {Kind: AttrInt, Int: 1}}, "counted")
	g.node("Unsqueeze", "column", nil, "places", one)
	g.node("Slice", "first", nil, "shape", zero, one)
	g.node("Concat", "split", Attrs{"axis": {Kind: AttrInt}}, "first", width)
	g.node("ConstantOfShape", "zeros", nil, "split")
	g.node("Reshape", "halves", nil, "e", "split")
	g.node("Add", "z", nil, "halves", "zeros")
	g.node("Reshape", "whole", nil, "z", "shape")
	g.node("Add", "y", nil, "whole", "column")
	return g
}

// blockGraph is a block of a transformer.
func blockGraph(t *testing.T) *plainGraph {
	g := newPlainGraph(t)
	perm := Attrs{"perm": {Kind: AttrInts, Ints: []int64{0, 2, 1, 3}}}
	heads, flat := wholeOf(g, "heads", 1, -1, 4, 8), wholeOf(g, "flat", -1, 32)
	g.Constants["root"] = mustOf(t, []float32{2.8})
	g.node("LayerNormalization", "n", nil, "x", g.weigh("ns", 32), g.weigh("nb", 32))
	for _, name := range []string{"q", "k", "v"} {
		g.node("MatMul", name+"0", nil, "n", g.weigh("w"+name, 32, 32))
		g.node("Add", name+"1", nil, name+"0", g.weigh("b"+name, 32))
		g.node("Reshape", name+"2", nil, name+"1", heads)
		g.node("Transpose", name, perm, name+"2")
	}
	g.node("Transpose", "kt", Attrs{"perm": {Kind: AttrInts, Ints: []int64{0, 1, 3, 2}}}, "k")
	g.node("MatMul", "s0", nil, "q", "kt")
	g.node("Div", "s", nil, "s0", "root")
	g.node("Softmax", "p", Attrs{"axis": {Kind: AttrInt, Int: -1}}, "s")
	g.node("MatMul", "c0", nil, "p", "v")
	g.node("Transpose", "c1", perm, "c0")
	g.node("Reshape", "c", nil, "c1", flat)
	g.node("MatMul", "o", nil, "c", g.weigh("wo", 32, 32))
	g.node("Add", "r", nil, "o", "x")
	g.node("MatMul", "f", nil, "r", g.weigh("w1", 32, 64))
	g.node("Tanh", "h", nil, "f")
	g.node("MatMul", "f2", nil, "h", g.weigh("w2", 64, 32))
	g.node("Add", "y", nil, "f2", "r")
	return g
}

// TestRunsBesideEachOther runs one program in several sessions at a time, over inputs of
// several sizes, and holds every result, at once and after all runs, against one alone: what
// runs use again is a session's or lent to one of them.
func TestRunsBesideEachOther(t *testing.T) {
	for name, g := range allocationGraphs(t) {
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(name, err)
		}
		const sizes = 3
		var in [sizes]engine.Values
		var want [sizes][]float32
		for i := range in {
			in[i] = engine.Values{{Name: "x", Tensor: noise(t, g.r, 16+8*i, 32)}, {Name: "which", Tensor: mustBool(t, true)}}
			want[i] = computed(t, p, Options{}, in[i], "y")
		}
		var all sync.WaitGroup
		for session := range 4 {
			all.Add(1)
			go func() {
				defer all.Done()
				opt := Options{Arena: &Arena{}, Threads: 1 + session%2}
				var got [][]float32
				for i := range 30 {
					out, err := p.Outputs(t.Context(), opt, in[i%sizes], g.Outputs)
					if err != nil {
						t.Error(name, err)
						return
					}
					got = append(got, engine.Data[float32](out[0].Tensor))
				}
				for i, v := range got {
					if !same32(v, want[i%sizes]) {
						t.Errorf("%s: run %d of session %d is another", name, i, session)
						return
					}
				}
			}()
		}
		all.Wait()
	}
}
