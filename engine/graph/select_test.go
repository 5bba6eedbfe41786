package graph

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestScatteredElements holds ScatterElements against its definition, element by element:
// every reduction, axes and indices counted from the end, indices of fewer places than the
// data, and places that are written more than once.
func TestScatteredElements(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 8))
	for round := range 400 {
		reduction := []string{"none", "add", "mul", "min", "max"}[round%5]
		rank := 1 + r.IntN(4)
		shape, some := make([]int, rank), make([]int, rank)
		axis := r.IntN(rank)
		for k := range shape {
			shape[k] = 1 + r.IntN(5)
			some[k] = 1 + r.IntN(shape[k])
		}
		some[axis] = r.IntN(8) // may be more than there are, and none
		at := make([]int64, volume(some))
		for i := range at {
			at[i] = int64(r.IntN(2*shape[axis]) - shape[axis])
		}
		data, updates := scatterData(r, volume(shape)), scatterData(r, volume(some))
		want, from, to := slices.Clone(data), rowMajor(some), rowMajor(shape)
		for i, j := range at {
			d := int(j+int64(shape[axis])) % shape[axis] * to[axis]
			for k := range shape {
				if k != axis {
					d += i / from[k] % some[k] * to[k]
				}
			}
			switch v := updates[i]; reduction {
			case "none":
				want[d] = v
			case "add":
				want[d] += v
			case "mul":
				want[d] *= v
			case "min":
				want[d] = min(want[d], v)
			case "max":
				want[d] = max(want[d], v)
			}
		}
		if r.IntN(2) == 0 {
			axis -= rank
		}
		n := &Node{Op: "ScatterElements", Version: 18, Inputs: []string{"x", "i", "u"}, Outputs: []string{"y"}, Attrs: Attrs{
			"axis": {Kind: AttrInt, Int: int64(axis)}, "reduction": {Kind: AttrString, String: reduction},
		}}
		got := scatterRun(t, n, shape, some, data, at, updates)
		whole := scatterRun(t, n, shape, some, asInt64(data), at, asInt64(updates))
		if !slices.Equal(got, want) || !slices.Equal(whole, asInt64(want)) {
			t.Errorf("%s along %d of %v at %v of %v: %v and %v, want %v", reduction, axis, shape, at, some, got, whole, want)
		}
	}
}

// scatterData are small whole numbers, so that every order of adding gives the same.
func scatterData(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.IntN(7) - 3)
	}
	return v
}

func asInt64(v []float32) []int64 {
	out := make([]int64, len(v))
	for i, e := range v {
		out[i] = int64(e)
	}
	return out
}

func scatterRun[T float32 | int64](t *testing.T, n *Node, shape, some []int, data []T, at []int64, updates []T) []T {
	t.Helper()
	x, err := engine.Of(slices.Clone(data), shape...)
	if err != nil {
		t.Fatal(err)
	}
	i, err := engine.Of(slices.Clone(at), some...)
	if err != nil {
		t.Fatal(err)
	}
	u, err := engine.Of(slices.Clone(updates), some...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(&Graph{Inputs: []engine.Spec{{Name: "x", DType: x.DType()}, {Name: "i", DType: engine.Int64}, {Name: "u", DType: u.DType()}}, Outputs: n.Outputs, Nodes: []*Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Run(t.Context(), Options{}, engine.Values{{Name: "x", Tensor: x}, {Name: "i", Tensor: i}, {Name: "u", Tensor: u}}, n.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(engine.Data[T](x), data) {
		t.Errorf("%v was written over", data)
	}
	return engine.Data[T](run.Value("y"))
}

// TestScatterOfConditions: conditions have no order, so the least or largest of them is
// refused before a run, as is a sum of text.
func TestScatterOfConditions(t *testing.T) {
	for _, c := range []struct {
		d         engine.DType
		reduction string
		refused   bool
	}{{engine.Bool, "min", true}, {engine.Bool, "max", true}, {engine.String, "add", true}, {engine.Bool, "add", false}, {engine.Bool, "mul", false}, {engine.String, "none", false}} {
		for _, op := range []string{"ScatterElements", "ScatterND"} {
			n := &Node{Op: op, Version: 18, Inputs: []string{"x", "i", "u"}, Outputs: []string{"y"}, Attrs: Attrs{"reduction": {Kind: AttrString, String: c.reduction}}}
			g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: c.d, Shape: []int{2, 2}}, {Name: "i", DType: engine.Int64, Shape: []int{2, 2}}, {Name: "u", DType: c.d, Shape: []int{2, 2}}}, Outputs: []string{"y"}, Nodes: []*Node{n}}
			_, err := Compile(g)
			var u *engine.UnsupportedError
			if errors.As(err, &u) != c.refused || !c.refused && err != nil {
				t.Errorf("%s %s of %s: %v", op, c.reduction, c.d, err)
			}
		}
	}
}
