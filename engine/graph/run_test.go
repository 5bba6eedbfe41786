package graph

import (
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// plainGraph has nodes of version 17, over one input x, and gives y.
type plainGraph struct {
	*Graph
	t *testing.T
	r *rand.Rand
}

func newPlainGraph(t *testing.T) *plainGraph {
	g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}, Outputs: []string{"y"}}
	return &plainGraph{g, t, rand.New(rand.NewPCG(3, 9))}
}

func (g *plainGraph) weigh(name string, shape ...int) string {
	g.Constants[name] = noise(g.t, g.r, shape...)
	return name
}

func (g *plainGraph) node(op, out string, attrs Attrs, in ...string) {
	if attrs == nil {
		attrs = Attrs{}
	}
	g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
}

func wholeOf(g *plainGraph, name string, v ...int64) string {
	t, err := engine.Of(v, len(v))
	if err != nil {
		g.t.Fatal(err)
	}
	g.Constants[name] = t
	return name
}

func mustBool(t *testing.T, v bool) *engine.Tensor {
	t.Helper()
	b, err := engine.Of([]bool{v})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBranchesKeepWhatTheyGive runs a graph in which the results of an If's branch, new
// ones and those that it was given, go on and are written over, with one arena.
func TestBranchesKeepWhatTheyGive(t *testing.T) {
	g := newPlainGraph(t)
	g.Inputs = append(g.Inputs, engine.Spec{Name: "which", DType: engine.Bool})
	g.Outputs = []string{"y", "a", "e"}
	side := func(op string) Attr {
		b := newPlainGraph(t)
		b.Inputs, b.Outputs = nil, []string{"p", "q"}
		b.node(op, "p", nil, "h")
		b.node("Identity", "q", nil, "p")
		return Attr{Kind: AttrGraph, Graph: b.Graph}
	}
	g.node("Exp", "h", nil, "x")
	g.node("If", "a", Attrs{"then_branch": side("Tanh"), "else_branch": side("Identity")}, "which")
	g.Nodes[1].Outputs = []string{"a", "b"}
	Capture(g.Nodes[1])
	g.node("Relu", "c", nil, "b")
	g.node("Neg", "d", nil, "h")
	g.node("Sigmoid", "e", nil, "d")
	g.node("Add", "y", nil, "c", "e")
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	arena := &Arena{}
	var got, want [][]float32
	for i := range 12 {
		in := engine.Values{{Name: "x", Tensor: noise(t, g.r, 3+i%3*20, 32)}, {Name: "which", Tensor: mustBool(t, i%2 == 0)}}
		for _, opt := range []Options{{Arena: arena}, {}} {
			r, err := p.Run(t.Context(), opt, in, g.Outputs)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range g.Outputs {
				if v := engine.Data[float32](r.Value(name)); opt.Arena != nil {
					got = append(got, v)
				} else {
					want = append(want, v)
				}
			}
		}
	}
	for i := range got {
		if !same32(got[i], want[i]) {
			t.Fatalf("result %d is another", i)
		}
	}
}

// TestOddShapesAreRemembered holds that what the program of fewer steps sends back is
// not tried there again, and that other shapes are.
func TestOddShapesAreRemembered(t *testing.T) {
	g := newPlainGraph(t)
	g.node("Conv", "a", nil, "x", g.weigh("w", 4, 2, 1))
	g.node("Relu", "y", nil, "a")
	p, err := Compile(g.Graph)
	if err != nil || p.fused == nil {
		t.Fatal(err)
	}
	tried := 0
	for i := range p.fused.steps {
		s := &p.fused.steps[i]
		kernel := s.kernel
		if i == 0 {
			s.kernel = func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
				tried++
				return kernel(x, in)
			}
		}
	}
	for i, c := range []struct{ batch, tried int }{{2, 1}, {0, 2}, {0, 2}, {2, 3}, {0, 3}} {
		r, err := p.Run(t.Context(), Options{}, engine.Values{{Name: "x", Tensor: noise(t, g.r, c.batch, 2, 5)}}, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		if y := r.Value("y"); y.Len() != c.batch*4*5 || tried != c.tried {
			t.Errorf("run %d: %d elements, %d times in fewer steps instead of %d", i, y.Len(), tried, c.tried)
		}
	}
}
