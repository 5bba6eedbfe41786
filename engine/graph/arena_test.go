package graph

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestArenaChangesNothing runs graphs that share and reuse values in every way, with
// one arena for many runs of different sizes, and holds each result against a run
// without: at once, and after all of the runs.
func TestArenaChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	ops := []string{"Add", "Mul", "Sub", "Relu", "Sigmoid", "Reshape", "Identity", "Sum", "Transpose", "Softmax", "MatMul", "Concat", "SequenceConstruct"}
	for range 150 {
		g := &Graph{Inputs: []engine.Spec{{Name: "v0", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}}
		w := noise(t, r, 12, 12)
		same, err := engine.Of([]int64{-1, 12}, 2)
		if err != nil {
			t.Fatal(err)
		}
		g.Constants["w"], g.Constants["same"], g.Constants["row"] = w, same, noise(t, r, 12)
		names := []string{"v0"}
		pick := func() string { return names[max(0, len(names)-1-r.IntN(min(len(names), 4)))] }
		for range 25 {
			op := ops[r.IntN(len(ops))]
			n := &Node{Op: op, Version: 17, Inputs: []string{pick()}, Outputs: []string{"v" + string(rune('A'+len(g.Nodes)))}, Attrs: Attrs{}}
			switch op {
			case "Add", "Mul", "Sub":
				n.Inputs = append(n.Inputs, []string{pick(), "row"}[r.IntN(2)])
			case "Sum":
				n.Inputs = append(n.Inputs, pick(), n.Inputs[0])
			case "Reshape":
				n.Inputs = append(n.Inputs, "same")
			case "MatMul":
				n.Inputs = append(n.Inputs, "w")
			case "Transpose":
				n.Attrs["perm"] = Attr{Kind: AttrInts, Ints: []int64{0, 1}}
			case "Concat":
				// A list holds a value that comes out of it again.
				n.Attrs["axis"] = Attr{Kind: AttrInt, Int: 0}
			case "SequenceConstruct":
				list := &Node{Op: op, Version: 17, Inputs: []string{n.Inputs[0], n.Inputs[0]}, Outputs: []string{n.Outputs[0] + "list"}, Attrs: Attrs{}}
				g.Nodes = append(g.Nodes, list)
				g.Constants[n.Outputs[0]+"at"] = wholeNumber(t, 1)
				n = &Node{Op: "SequenceAt", Version: 17, Inputs: []string{list.Outputs[0], n.Outputs[0] + "at"}, Outputs: n.Outputs, Attrs: Attrs{}}
			}
			g.Nodes = append(g.Nodes, n)
			names = append(names, n.Outputs[0])
		}
		g.Outputs = []string{names[len(names)-1], names[len(names)/2]}
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		arena := &Arena{}
		var results [][]float32
		var wanted [][]float32
		for i := range 6 {
			in := engine.Values{{Name: "v0", Tensor: noise(t, r, 7+5*(i%3), 12)}}
			for _, o := range g.Outputs {
				plain := computed(t, p, Options{}, in, o)
				results, wanted = append(results, computed(t, p, Options{Arena: arena}, in, o)), append(wanted, slices.Clone(plain))
				if !same32(results[len(results)-1], plain) {
					t.Fatalf("run %d: another result", i)
				}
			}
		}
		for i := range results {
			if !same32(results[i], wanted[i]) {
				t.Fatalf("result %d was written over by a later run", i)
			}
		}
	}
}

// same32 is equality in which NaN is like NaN.
func same32(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return x == y || x != x && y != y })
}

func wholeNumber(t *testing.T, v int64) *engine.Tensor {
	t.Helper()
	s, err := engine.Of([]int64{v})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func computed(t *testing.T, p *Program, opt Options, in engine.Values, name string) []float32 {
	t.Helper()
	run, err := p.Run(t.Context(), opt, in, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return engine.Data[float32](run.Value(name))
}

// TestRunsUseTheirMemoryAgain holds that after the first run a session allocates
// nothing for inner values, and that results are the same bits on any number of
// threads where values are large enough to be shared among them.
func TestRunsUseTheirMemoryAgain(t *testing.T) {
	const side, channels = 128, 8
	r := rand.New(rand.NewPCG(4, 4))
	g := &Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y"},
		Constants: map[string]*engine.Tensor{"w": noise(t, r, channels, channels, 3, 3), "d": noise(t, r, channels, 1, 3, 3), "s": noise(t, r, channels, 1, 1)},
	}
	pads := Attr{Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}
	add := func(op, out string, attrs Attrs, in ...string) {
		if attrs == nil {
			attrs = Attrs{}
		}
		g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	}
	add("Conv", "a", Attrs{"pads": pads}, "x", "w")
	add("Conv", "b", Attrs{"pads": pads, "group": {Kind: AttrInt, Int: channels}}, "a", "d")
	add("Exp", "c", nil, "b")
	add("Mul", "e", nil, "c", "s")
	add("Add", "f", nil, "e", "x")
	add("Tanh", "g", nil, "f")
	add("Transpose", "h", Attrs{"perm": {Kind: AttrInts, Ints: []int64{0, 2, 3, 1}}}, "g")
	add("Softmax", "i", Attrs{"axis": {Kind: AttrInt, Int: -1}}, "h")
	add("ReduceMean", "y", Attrs{"axes": {Kind: AttrInts, Ints: []int64{1, 2}}}, "i")
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: noise(t, r, 1, channels, side, side)}}
	arena := &Arena{}
	want := computed(t, p, Options{Arena: arena}, in, "y")
	if arena.made == 0 {
		t.Fatal("the arena was not asked")
	}
	made := arena.made
	for range 5 {
		computed(t, p, Options{Arena: arena}, in, "y")
	}
	if arena.made != made {
		t.Errorf("%d buffers more than the %d of the first run", arena.made-made, made)
	}
	for _, threads := range []int{2, 3, 7} {
		if !slices.Equal(want, computed(t, p, Options{Arena: arena, Threads: threads}, in, "y")) {
			t.Errorf("other bits on %d threads", threads)
		}
	}
}
