package treeshap

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/explaintest"
)

// form is one of the ways a machine may run, which give the same bits.
type form struct {
	name    string
	stride  int
	kernels *kernelSet
}

func forms() []form {
	out := []form{{"plain", lanes, nil}, {"plain, five rows at once", 5, nil}, {"plain, one row", 1, nil}}
	for name, set := range kernelSets() {
		out = append(out, form{name, lanes, set})
	}
	return out
}

// explainAs explains rows in a given form.
func explainAs(t *testing.T, p *Path, rows []float64, f form) []float64 {
	t.Helper()
	q := &Path{ensemble: p.ensemble, router: p.router, trees: append([]pathTree(nil), p.trees...), columns: p.columns, block: p.block, points: p.points}
	w := q.newWalk()
	w.machine.stride, w.machine.kernels = f.stride, f.kernels
	q.scratch.New = func() any { return w }
	phi := make([]float64, len(rows)/p.ensemble.Features*p.ensemble.Features*p.ensemble.Outputs)
	if err := q.Explain(rows, phi); err != nil {
		t.Fatal(err)
	}
	return phi
}

// TestForms holds all forms of the machine, and rows alone, to the same bits.
func TestForms(t *testing.T) {
	if len(kernelSets()) == 0 {
		t.Log("this machine has the plain form only")
	}
	shapes := []explaintest.Options{
		{Plain: true, Features: 30, Depth: 6, Trees: 8, Float32: true},
		{Features: 6, Outputs: 3, Trees: 7, Depth: 6, ZeroCovers: true},
		{Features: 7, Outputs: 2, Trees: 3, Depth: 9, Vector: true},
		{Features: 40, Depth: 8, Trees: 3},
		{Features: 40, Depth: 11, Trees: 2},
		{Features: 12, Depth: 15, Trees: 2},
		{Features: 1, Depth: 3, Trees: 9},
	}
	for i, o := range shapes {
		for seed := range 7 {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(seed)))
			e := explaintest.Ensemble(rng, o)
			p, err := Prepare(e)
			if err != nil {
				t.Fatal(err)
			}
			n := []int{1, 3, 7, 9, 64, 65, 600}[seed]
			rows := explaintest.Rows(rng, n, e.Features, 0.1)
			want := explainAs(t, p, rows, forms()[0])
			for _, f := range forms() {
				same(t, f.name, explainAs(t, p, rows, f), want)
				alone := explainAs(t, p, rows[(n-1)*e.Features:], f)
				same(t, "a row alone, "+f.name, alone, want[(n-1)*len(alone):])
			}
			got := make([]float64, n*e.Features*e.Outputs)
			if err := p.Explain(rows, got); err != nil {
				t.Fatal(err)
			}
			same(t, "as it chooses", got, want)
		}
	}
}

// pairsAs computes interactions in a given form.
func pairsAs(p *Path, rows []float64, f form) []float64 {
	plan := p.pairPlan()
	w := plan.newWalk(p)
	w.machine.stride, w.machine.kernels = f.stride, f.kernels
	q := &pairPlan{trees: plan.trees, pairs: plan.pairs}
	q.scratch.New = func() any { return w }
	m := p.ensemble.Features
	dst := make([]float64, len(rows)*m*p.ensemble.Outputs)
	q.interactions(p, rows, dst, len(rows)/m)
	return dst
}

// TestPairForms holds all forms to the same bits, and those to the walk row by row
// of ensembles that are too large for a plan.
func TestPairForms(t *testing.T) {
	shapes := []explaintest.Options{
		{Plain: true, Features: 30, Depth: 6, Trees: 8, Float32: true},
		{Features: 6, Outputs: 3, Trees: 7, Depth: 6, ZeroCovers: true},
		{Features: 7, Outputs: 2, Trees: 3, Depth: 8, Vector: true},
		{Features: 40, Depth: 10, Trees: 2},
		{Features: 1, Depth: 3, Trees: 9},
	}
	rng := rand.New(rand.NewPCG(5, 5))
	ensembles := []*tree.Ensemble{chainOf(rng, 13), chainOf(rng, 18), chainOf(rng, 32)}
	for _, o := range shapes {
		ensembles = append(ensembles, explaintest.Ensemble(rng, o))
	}
	for i, e := range ensembles {
		p, err := Prepare(e)
		if err != nil {
			t.Fatal(err)
		}
		m := e.Features
		for _, n := range []int{1, 3, 9, 64, 70} {
			rows := explaintest.Rows(rng, n, m, 0.1)
			want := pairsAs(p, rows, forms()[0])
			for _, f := range forms() {
				same(t, f.name, pairsAs(p, rows, f), want)
			}
			alone := pairsAs(p, rows[(n-1)*m:], forms()[len(forms())-1])
			same(t, "a row alone", alone, want[(n-1)*len(alone):])
			got, walked := want, make([]float64, len(want))
			p.walkInteractions(rows, walked, n)
			for at := 0; at < len(got); at += m * m {
				shareInteractions(got[at:][:m*m], m)
				shareInteractions(walked[at:][:m*m], m)
			}
			largest := 0.0
			for _, v := range walked {
				largest = max(largest, math.Abs(v))
			}
			for j, v := range got {
				if math.Abs(v-walked[j]) > 1e-9*largest {
					t.Fatalf("ensemble %d: value %d is %v, walked %v", i, j, v, walked[j])
				}
			}
		}
	}
}

// TestManyPairs has more points than a plan takes.
func TestManyPairs(t *testing.T) {
	e := chainOf(rand.New(rand.NewPCG(6, 6)), 35)
	p, err := Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	if p.pairPlan() != nil {
		t.Fatal("a plan beyond its bounds")
	}
	x := explaintest.Rows(rand.New(rand.NewPCG(7, 7)), 1, 35, 0)
	phi, pairs := make([]float64, 35), make([]float64, 35*35)
	if err := p.Explain(x, phi); err != nil {
		t.Fatal(err)
	}
	if err := p.Interactions(x, pairs); err != nil {
		t.Fatal(err)
	}
	for i, want := range phi {
		sum := 0.0
		for _, v := range pairs[i*35:][:35] {
			sum += v
		}
		if math.Abs(sum-want) > 1e-12 {
			t.Errorf("feature %d: a row of interactions sums to %v, phi is %v", i, sum, want)
		}
	}
}

// TestLeavesOnly has no split to share out.
func TestLeavesOnly(t *testing.T) {
	e := &tree.Ensemble{Features: 2, Outputs: 1, Base: []float64{1}, Covers: tree.CoverCount, Link: tree.LinkIdentity}
	e.Trees = []tree.Tree{{Nodes: []tree.Node{{Cover: 3}}, Values: []float64{2}}}
	p, err := Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	phi := []float64{9, 9, 9, 9}
	if err := p.Explain(make([]float64, 4), phi); err != nil {
		t.Fatal(err)
	}
	same(t, "phi", phi, make([]float64, 4))
	if p.Base()[0] != 3 {
		t.Errorf("base %v, want 3", p.Base()[0])
	}
}

func same(t *testing.T, what string, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// TestPoints tries each number of quadrature points that has a kernel, and
// more, on chains of distinct features with small trees beside them; the values are held to efficiency and to
// the plain form.
func TestPoints(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for d := 1; d <= 35; d++ {
		e := chainOf(rng, d)
		p, err := Prepare(e)
		if err != nil {
			t.Fatal(err)
		}
		if p.points != (d+1)/2 {
			t.Fatalf("%d points for %d features", p.points, d)
		}
		rows := make([]float64, 70*d)
		for i := range rows {
			rows[i] = rng.NormFloat64() + 1
		}
		phi := make([]float64, len(rows))
		if err := p.Explain(rows, phi); err != nil {
			t.Fatal(err)
		}
		for _, f := range forms() {
			same(t, f.name, explainAs(t, p, rows, f), phi)
		}
		for r := range 70 {
			sum := p.base[0]
			for _, v := range phi[r*d : (r+1)*d] {
				sum += v
			}
			if want := explaintest.Margin(e, rows[r*d:(r+1)*d], 0); math.Abs(sum-want) > 1e-13*(1+math.Abs(want)) {
				t.Fatalf("%d features: base and values sum to %v, the margin is %v", d, sum, want)
			}
		}
	}
}

// chainOf is a tree of one path with d distinct features. Beside it are leaves, and
// splits on features of the path.
func chainOf(rng *rand.Rand, d int) *tree.Ensemble {
	e := &tree.Ensemble{Features: d, Outputs: 1, Base: []float64{0.5}, Covers: tree.CoverCount, Link: tree.LinkIdentity}
	tr := tree.Tree{}
	add := func(n tree.Node, value float64) int32 {
		tr.Nodes, tr.Values = append(tr.Nodes, n), append(tr.Values, value)
		return int32(len(tr.Nodes) - 1)
	}
	var grow func(cover float64, depth int, from int)
	grow = func(cover float64, depth, from int) {
		if depth == 0 || rng.IntN(4) == 0 {
			add(tree.Node{Cover: cover}, rng.NormFloat64())
			return
		}
		share := 0.1 + 0.8*rng.Float64()
		at := add(tree.Node{Feature: int32(rng.IntN(from + 1)), Rule: tree.Less, Cover: cover, Threshold: rng.NormFloat64()}, 0)
		tr.Nodes[at].Left = at + 1
		grow(cover*share, depth-1, from)
		tr.Nodes[at].Right = int32(len(tr.Nodes))
		grow(cover*(1-share), depth-1, from)
	}
	cover := 1e6
	for f := range d {
		at := add(tree.Node{Feature: int32(f), Rule: tree.Less, Left: int32(len(tr.Nodes)) + 1, Cover: cover}, 0)
		share := 0.1 + 0.2*rng.Float64()
		grow(cover*share, 2, f)
		tr.Nodes[at].Right = int32(len(tr.Nodes))
		cover *= 1 - share
	}
	add(tree.Node{Cover: cover}, 3)
	e.Trees = []tree.Tree{tr}
	return e
}
