package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestWeightsAndThreads holds that products give the same bits whether their
// right operand is a constant, laid out once, or an input, on any number of
// threads and for any number of rows.
func TestWeightsAndThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		op      string
		trans   int64
		m, n, k int
	}{
		{"MatMul", 0, 300, 310, 200},
		{"MatMul", 0, 7, 5, 33},
		{"MatMul", 0, 9, 1, 70},
		{"MatMul", 0, 3, 40, 0},
		{"Gemm", 0, 130, 64, 300},
		{"Gemm", 1, 130, 64, 300},
		{"Gemm", 1, 4, 10, 64},
		{"Gemm", 1, 3, 1, 64},
	} {
		t.Run(fmt.Sprint(c.op, c.trans, c.m, c.n, c.k), func(t *testing.T) {
			a := random(t, r, c.m, c.k)
			b := random(t, r, c.k, c.n)
			if c.trans != 0 {
				b = random(t, r, c.n, c.k)
			}
			want := multiply(t, c.op, c.trans, a, b, false, 1)
			for _, threads := range []int{1, 3} {
				for _, constant := range []bool{false, true} {
					if got := multiply(t, c.op, c.trans, a, b, constant, threads); !slices.Equal(got, want) {
						t.Errorf("constant %v, %d threads: other bits", constant, threads)
					}
				}
			}
			first, err := engine.Of(engine.Data[float32](a)[:c.k], 1, c.k)
			if err != nil {
				t.Fatal(err)
			}
			if got := multiply(t, c.op, c.trans, first, b, true, 1); !slices.Equal(got, want[:c.n]) {
				t.Error("a row alone: other bits")
			}
			hold(t, c.trans != 0, a, b, c.n, c.k, want)
		})
	}
}

func random(t *testing.T, r *rand.Rand, shape ...int) *engine.Tensor {
	t.Helper()
	v := make([]float32, shape[0]*shape[1])
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	x, err := engine.Of(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func multiply(t *testing.T, op string, trans int64, a, b *engine.Tensor, constant bool, threads int) []float32 {
	t.Helper()
	n := &Node{Op: op, Version: 17, Inputs: []string{"a", "b"}, Outputs: []string{"c"}, Attrs: Attrs{}}
	if trans != 0 {
		n.Attrs["transB"] = Attr{Kind: AttrInt, Int: trans}
	}
	g := &Graph{Inputs: []engine.Spec{{Name: "a", DType: engine.Float32}}, Outputs: []string{"c"}, Nodes: []*Node{n}, Constants: map[string]*engine.Tensor{}}
	in := engine.Values{{Name: "a", Tensor: a}}
	if constant {
		g.Constants["b"] = b
	} else {
		g.Inputs = append(g.Inputs, engine.Spec{Name: "b", DType: engine.Float32})
		in = append(in, engine.Values{{Name: "b", Tensor: b}}...)
	}
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Run(t.Context(), Options{Threads: threads}, in, g.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Data[float32](run.Value("c"))
}

func hold(t *testing.T, trans bool, a, b *engine.Tensor, n, k int, got []float32) {
	t.Helper()
	av, bv := engine.Data[float32](a), engine.Data[float32](b)
	for at, v := range got {
		i, j, sum := at/n, at%n, 0.0
		for l := range k {
			w := l*n + j
			if trans {
				w = j*k + l
			}
			sum += float64(av[i*k+l]) * float64(bv[w])
		}
		if math.Abs(float64(v)-sum) > 1e-4*math.Sqrt(float64(k+1)) {
			t.Fatalf("element %d is %v, want %v", at, v, sum)
		}
	}
}
