package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine"
)

// alike runs a graph as it was written and in fewer steps, on one thread and on several,
// and holds the results against each other.
func alike(t *testing.T, g *Graph, in engine.Values, steps int) {
	t.Helper()
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	if steps > 0 && (p.fused == nil || len(p.fused.steps) != steps) {
		t.Fatalf("fused to %d steps, not to %d", len(p.fused.steps), steps)
	}
	name := g.Outputs[0]
	plain := computed(t, p, Options{Keep: true}, in, name)
	quick := computed(t, p, Options{Arena: &Arena{}}, in, name)
	if len(plain) != len(quick) {
		t.Fatalf("%d elements, want %d", len(quick), len(plain))
	}
	for i, v := range plain {
		if d := math.Abs(float64(quick[i] - v)); !(d <= 1e-5*max(1, math.Abs(float64(v)))) {
			t.Fatalf("element %d is %v, want %v", i, quick[i], v)
		}
	}
	for _, threads := range []int{2, 5} {
		if !slices.Equal(quick, computed(t, p, Options{Arena: &Arena{}, Threads: threads}, in, name)) {
			t.Errorf("other bits on %d threads", threads)
		}
	}
	if steps > 0 && len(p.odd) > 0 {
		t.Error("sent back to the graph as it was written")
	}
}

func attrInts(v ...int64) Attr { return Attr{Kind: AttrInts, Ints: v} }

// TestAttentionInOneStep: with and without a mask, a scale and the transposes, of few
// and of many keys.
func TestAttentionInOneStep(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 7))
	for _, c := range []struct{ batch, heads, rows, keys, depth, size int }{{2, 3, 5, 5, 8, 8}, {1, 1, 1, 1, 1, 1}, {3, 2, 1, 9, 4, 6}, {2, 4, 70, 300, 16, 24}, {1, 2, 130, 1, 5, 1}} {
		for form := range 16 {
			t.Run(fmt.Sprint(c, form), func(t *testing.T) {
				g := &Graph{
					Inputs:  []engine.Spec{{Name: "q", DType: engine.Float32}, {Name: "k", DType: engine.Float32}, {Name: "v", DType: engine.Float32}, {Name: "m", DType: engine.Float32}},
					Outputs: []string{"y"}, Constants: map[string]*engine.Tensor{},
				}
				add := func(op, out string, attrs Attrs, in ...string) {
					g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
				}
				q, k, v, masks := []int{c.batch, c.heads, c.rows, c.depth}, []int{c.batch, c.heads, c.depth, c.keys}, []int{c.batch, c.heads, c.keys, c.size}, []int{c.batch, 1, 1, c.keys}
				names := []string{"q", "k", "v"}
				if form&1 != 0 {
					perm := attrInts(0, 2, 1, 3)
					q, v, names = []int{c.batch, c.rows, c.heads, c.depth}, []int{c.batch, c.keys, c.heads, c.size}, []string{"qt", "kt", "vt"}
					add("Transpose", "qt", Attrs{"perm": perm}, "q")
					add("Transpose", "vt", Attrs{"perm": perm}, "v")
					switch form & 2 {
					case 0:
						k = []int{c.batch, c.keys, c.heads, c.depth}
						add("Transpose", "kt", Attrs{"perm": attrInts(0, 2, 3, 1)}, "k")
					default:
						k = []int{c.batch, c.heads, c.keys, c.depth}
						add("Transpose", "kt", Attrs{"perm": attrInts(0, 1, 3, 2)}, "k")
					}
				}
				last := "s"
				add("MatMul", "s", Attrs{}, names[0], names[1])
				if form&4 != 0 {
					g.Constants["root"] = noise(t, r)
					add([]string{"Div", "Mul"}[form&1], "scaled", Attrs{}, "s", "root")
					last = "scaled"
				}
				if form&8 != 0 {
					if form&2 != 0 {
						masks = []int{c.heads, c.rows, 1}
					}
					add("Add", "masked", Attrs{}, last, "m")
					last = "masked"
				}
				add("Softmax", "p", Attrs{"axis": {Kind: AttrInt, Int: -1}}, last)
				add("MatMul", "o", Attrs{}, "p", names[2])
				add("Transpose", "y", Attrs{"perm": attrInts(0, 2, 1, 3)}, "o")
				in := engine.Values{{Name: "q", Tensor: noise(t, r, q...)}, {Name: "k", Tensor: noise(t, r, k...)}, {Name: "v", Tensor: noise(t, r, v...)}, {Name: "m", Tensor: noise(t, r, masks...)}}
				alike(t, g, in, 1)
			})
		}
	}
}

// TestAttentionOfDimensions: matrices that lie in other dimensions than those of a batch and
// its heads, with masks of fewer, and transposes of any order that leaves rows in one piece.
func TestAttentionOfDimensions(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 8))
	sizes := []int{2, 3, 2, 4}
	for rank := 3; rank <= 6; rank++ {
		for form := range 24 {
			g := &Graph{
				Inputs:  []engine.Spec{{Name: "q", DType: engine.Float32}, {Name: "k", DType: engine.Float32}, {Name: "v", DType: engine.Float32}, {Name: "m", DType: engine.Float32}},
				Outputs: []string{"y"}, Constants: map[string]*engine.Tensor{"root": noise(t, r)},
			}
			add := func(op, out string, attrs Attrs, in ...string) {
				g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
			}
			lead := sizes[:rank-2]
			shaped := func(rows, columns int) []int { return append(slices.Clone(lead), rows, columns) }
			in := engine.Values{}
			// given adds an input that is seen as of that shape, through a transpose where the form says so.
			given := func(bit int, name string, shape []int) string {
				if form&bit == 0 {
					in = append(in, engine.Named{Name: name, Tensor: noise(t, r, shape...)})
					return name
				}
				perm := append(r.Perm(rank-1), rank-1)
				if name == "k" && form&8 != 0 {
					last := slices.Index(perm, rank-2)
					perm[last], perm[rank-2], perm[rank-1] = perm[rank-2], rank-1, rank-2
				}
				from, order := make([]int, rank), Attr{Kind: AttrInts}
				for i, p := range perm {
					from[p] = shape[i]
					order.Ints = append(order.Ints, int64(p))
				}
				in = append(in, engine.Named{Name: name, Tensor: noise(t, r, from...)})
				add("Transpose", name+"t", Attrs{"perm": order}, name)
				return name + "t"
			}
			add("MatMul", "s", Attrs{}, given(1, "q", shaped(9, 8)), given(2, "k", shaped(8, 5)))
			add("Mul", "scaled", Attrs{}, "s", "root")
			masks := shaped(9, 5)
			for i := range form % 5 {
				masks[i%rank] = 1
			}
			in = append(in, engine.Named{Name: "m", Tensor: noise(t, r, masks[form%3:]...)})
			add("Add", "masked", Attrs{}, "scaled", "m")
			add("Softmax", "p", Attrs{"axis": {Kind: AttrInt, Int: -1}}, "masked")
			add("MatMul", "o", Attrs{}, "p", given(4, "v", shaped(5, 7)))
			order := Attr{Kind: AttrInts, Ints: []int64{int64(rank - 1)}}
			for _, p := range r.Perm(rank - 1) {
				order.Ints = append(order.Ints, int64(p))
			}
			steps := 2 // columns that do not lie in one piece are laid so by a step of their own
			if form&16 != 0 {
				order.Ints, steps = append(order.Ints[1:], int64(rank-1)), 1
			}
			add("Transpose", "y", Attrs{"perm": order}, "o")
			alike(t, g, in, steps)
		}
	}
}

// TestWhatFollowsAProduct: biases, another value, a function, in the orders exporters
// write them in.
func TestWhatFollowsAProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 7))
	for _, c := range []struct{ rows, depth, width int }{{1, 70, 300}, {3, 70, 300}, {200, 70, 300}, {1, 4, 4}, {7, 3, 5}, {70001, 8, 6}, {13, 9, 8}} {
		rows, depth, width := c.rows, c.depth, c.width
		for form := range 16 {
			t.Run(fmt.Sprint(c, form), func(t *testing.T) {
				g := &Graph{
					Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}, {Name: "z", DType: engine.Float32}}, Outputs: []string{"y"},
					Constants: map[string]*engine.Tensor{"w": noise(t, r, depth, width), "wt": noise(t, r, width, depth), "b": noise(t, r, width), "c": noise(t, r, 1, width)},
				}
				last, n := "", 0
				add := func(op string, attrs Attrs, in ...string) {
					last = fmt.Sprint("v", n)
					n++
					g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{last}, Attrs: attrs})
				}
				switch form & 3 {
				case 0:
					add("MatMul", Attrs{}, "x", "w")
					add("Add", Attrs{}, "b", last)
				case 1:
					add("Gemm", Attrs{}, "x", "w", "c")
				case 2:
					add("Gemm", Attrs{"transB": {Kind: AttrInt, Int: 1}}, "x", "wt", "b")
				default:
					add("Gemm", Attrs{"transB": {Kind: AttrInt, Int: 1}, "beta": {Kind: AttrFloat, Float: 0}}, "x", "wt", "b")
				}
				if form&4 != 0 {
					add("Add", Attrs{}, "z", last)
				}
				if form&8 != 0 {
					add("Relu", Attrs{}, last)
				} else {
					add("Tanh", Attrs{}, last)
				}
				g.Outputs[0] = last
				alike(t, g, engine.Values{{Name: "x", Tensor: noise(t, r, rows, depth)}, {Name: "z", Tensor: noise(t, r, rows, width)}}, 1)
				// A value that is added to each row is not one that fits.
				alike(t, g, engine.Values{{Name: "x", Tensor: noise(t, r, rows, depth)}, {Name: "z", Tensor: noise(t, r, 1, width)}}, 1)
			})
		}
	}
}

// TestNormsOnThreads holds that rows computed on several threads are the same bits.
func TestNormsOnThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	axis := Attrs{"axis": {Kind: AttrInt, Int: -1}}
	for op, inputs := range map[string][]string{
		"LayerNormalization": {"x", "s", "b"}, "InstanceNormalization": {"x", "c", "c"}, "Softmax": {"x"}, "LogSoftmax": {"x"},
	} {
		t.Run(op, func(t *testing.T) {
			attrs := axis
			if op == "InstanceNormalization" {
				attrs = Attrs{}
			}
			g := &Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y"},
				Nodes:     []*Node{{Op: op, Version: 17, Inputs: inputs, Outputs: []string{"y"}, Attrs: attrs}},
				Constants: map[string]*engine.Tensor{"s": noise(t, r, 130), "b": noise(t, r, 130), "c": noise(t, r, 11)},
			}
			alike(t, g, engine.Values{{Name: "x", Tensor: noise(t, r, 7, 11, 50, 130)}}, 0)
		})
	}
}

// TestProductsOfBytes: weights in 8 bits, with every form of scales and zeros, are
// multiplied by without the matrix of floats that they stand for.
func TestProductsOfBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 7))
	const depth, width = 90, 70
	for form := range 16 {
		t.Run(fmt.Sprint(form), func(t *testing.T) {
			trans, columns, unsigned, zeros := form&1 != 0, form&2 != 0, form&4 != 0, form&8 != 0
			shape, axis := []int{depth, width}, int64(1)
			if trans {
				shape, axis = []int{width, depth}, 0
			}
			d, scales := engine.Int8, []int(nil)
			if unsigned {
				d = engine.Uint8
			}
			if columns {
				scales = []int{width}
			}
			random := func(shape ...int) *engine.Tensor {
				q, err := engine.New(d, shape...)
				if err != nil {
					t.Fatal(err)
				}
				for i := range q.Len() {
					if unsigned {
						engine.Data[uint8](q)[i] = uint8(r.IntN(256))
					} else {
						engine.Data[int8](q)[i] = int8(r.IntN(256) - 128)
					}
				}
				return q
			}
			g := &Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Outputs: []string{"y"},
				Constants: map[string]*engine.Tensor{"q": random(shape...), "s": noise(t, r, scales...), "b": noise(t, r, width)},
			}
			from := &Node{Op: "DequantizeLinear", Version: 17, Inputs: []string{"q", "s"}, Outputs: []string{"w"}, Attrs: Attrs{"axis": {Kind: AttrInt, Int: axis}}}
			if zeros {
				g.Constants["z"] = random(scales...)
				from.Inputs = append(from.Inputs, "z")
			}
			g.Nodes = []*Node{from, {Op: "MatMul", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"y"}, Attrs: Attrs{}}}
			if trans {
				g.Nodes[1] = &Node{Op: "Gemm", Version: 17, Inputs: []string{"x", "w", "b"}, Outputs: []string{"y"}, Attrs: Attrs{"transB": {Kind: AttrInt, Int: 1}}}
			}
			for _, rows := range []int{1, 5, 230} {
				alike(t, g, engine.Values{{Name: "x", Tensor: noise(t, r, rows, depth)}}, 1)
			}
			p, err := Compile(g)
			if err != nil {
				t.Fatal(err)
			}
			// Less memory than the floats would take is enough.
			in := engine.Values{{Name: "x", Tensor: noise(t, r, 1, depth)}}
			if _, err := p.Run(t.Context(), Options{MaxBytes: 4 * width}, in, g.Outputs); err != nil {
				t.Errorf("in the memory of the result: %v", err)
			}
		})
	}
}

// TestProductsAmongOthers: products, sums and functions in any order give the same in
// fewer steps. Every value has one shape, so that any may be added to any.
func TestProductsAmongOthers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	const width = 24
	for range 400 {
		rows := 1 + r.IntN(9)
		g := &Graph{
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}, {Name: "z", DType: engine.Float32}}, Outputs: []string{"y"},
			Constants: map[string]*engine.Tensor{"w": shrunk(t, r, width, width), "u": shrunk(t, r, width, width), "b": noise(t, r, width), "c": noise(t, r, 1, width)},
		}
		names := []string{"x", "z"}
		pick := func() string { // the late ones more often
			return names[len(names)-1-min(r.IntN(len(names)), r.IntN(len(names)))]
		}
		for n := range 3 + r.IntN(12) {
			op, in, attrs := "", []string(nil), Attrs{}
			switch r.IntN(8) {
			case 0, 1:
				op, in = "MatMul", []string{pick(), []string{"w", "u"}[r.IntN(2)]}
			case 2:
				op, in = "Gemm", []string{pick(), []string{"w", "u"}[r.IntN(2)], []string{"b", "c"}[r.IntN(2)]}
				attrs = Attrs{"transB": {Kind: AttrInt, Int: int64(r.IntN(2))}}
			case 3:
				op, in = "Add", []string{pick(), []string{"b", "c"}[r.IntN(2)]}
			case 4, 5:
				op, in = "Add", []string{pick(), pick()}
			case 6:
				op, in = []string{"Mul", "Sub"}[r.IntN(2)], []string{pick(), pick()}
			default:
				op, in = []string{"Relu", "Tanh", "Sigmoid"}[r.IntN(3)], []string{pick()}
			}
			if len(in) == 2 && op != "MatMul" && r.IntN(2) == 0 {
				in[0], in[1] = in[1], in[0]
			}
			name := fmt.Sprint("v", n)
			g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{name}, Attrs: attrs})
			names = append(names, name)
		}
		last := names[len(names)-1]
		g.Nodes = append(g.Nodes, &Node{Op: "Tanh", Version: 17, Inputs: []string{last}, Outputs: []string{"y"}, Attrs: Attrs{}})
		alike(t, g, engine.Values{{Name: "x", Tensor: noise(t, r, rows, width)}, {Name: "z", Tensor: noise(t, r, rows, width)}}, 0)
		if t.Failed() {
			for _, n := range g.Nodes {
				t.Logf("%s = %s%v", n.Outputs[0], n.Op, n.Inputs)
			}
			return
		}
	}
}

// shrunk is noise that a product keeps about as large as it is.
func shrunk(t *testing.T, r *rand.Rand, shape ...int) *engine.Tensor {
	t.Helper()
	n := noise(t, r, shape...)
	for i, v := range engine.Data[float32](n) {
		engine.Data[float32](n)[i] = v / float32(math.Sqrt(float64(shape[0])))
	}
	return n
}
