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
	return map[string]*plainGraph{"dense": dense, "conv": conv, "branch": branch, "attention": attention, "lstm": lstm, "norm": norm}
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
