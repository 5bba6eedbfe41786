package treeshap_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/explaintest"
	"github.com/pellucid/pellucid/explain/treeshap"
)

// shapes are the kinds of random ensemble every property is tried on.
var shapes = []explaintest.Options{
	{Plain: true},
	{Features: 6, Outputs: 3, Trees: 7, Depth: 6},
	{Features: 7, Outputs: 2, Trees: 3, Depth: 9, Vector: true},
	{Features: 5, Depth: 8, Float32: true, ZeroCovers: true},
	{Features: 2, Depth: 12, Trees: 2},
	{Features: 8, Depth: 5, Trees: 6, Outputs: 1, ZeroCovers: true},
}

func each(t *testing.T, seeds int, f func(t *testing.T, rng *rand.Rand, e *tree.Ensemble)) {
	t.Helper()
	for i, o := range shapes {
		for seed := range seeds {
			t.Run(fmt.Sprintf("shape%d/seed%d", i, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(i), uint64(seed)))
				f(t, rng, explaintest.Ensemble(rng, o))
			})
		}
	}
}

// near fails unless got is want within tol of the largest |want|.
func near(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	scale := 1e-300
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tol*max(scale, 1e-3)) {
			t.Fatalf("%s[%d] = %v, want %v (scale %v)", what, i, got[i], want[i], scale)
		}
	}
}

func TestPathMatchesEnumeration(t *testing.T) {
	each(t, 6, func(t *testing.T, rng *rand.Rand, e *tree.Ensemble) {
		m, k := e.Features, e.Outputs
		const n = 37 // two blocks and a part
		rows := explaintest.Rows(rng, n, m, 0.15)
		p, err := treeshap.Prepare(e)
		if err != nil {
			t.Fatal(err)
		}
		phi := make([]float64, n*k*m)
		if err := p.Explain(rows, phi); err != nil {
			t.Fatal(err)
		}
		pairs := make([]float64, 3*k*m*m)
		if err := p.Interactions(rows[:3*m], pairs); err != nil {
			t.Fatal(err)
		}
		for r := range n {
			x := rows[r*m : (r+1)*m]
			for o := range k {
				got := phi[(r*k+o)*m : (r*k+o+1)*m]
				checkEfficiency(t, got, p.Base()[o], explaintest.Margin(e, x, o))
				if r >= 3 {
					continue
				}
				want, err := explaintest.Shapley(explaintest.PathGame(e, x, o), m)
				if err != nil {
					t.Fatal(err)
				}
				near(t, "phi", got, want, 1e-12)
				want, err = explaintest.Interactions(explaintest.PathGame(e, x, o), m)
				if err != nil {
					t.Fatal(err)
				}
				near(t, "interactions", pairs[(r*k+o)*m*m:(r*k+o+1)*m*m], want, 1e-12)
			}
		}
	})
}

func checkEfficiency(t *testing.T, phi []float64, base, margin float64) {
	t.Helper()
	sum := base
	scale := math.Abs(base) + math.Abs(margin)
	for _, v := range phi {
		sum += v
		scale += math.Abs(v)
	}
	if math.Abs(sum-margin) > 1e-13*scale {
		t.Fatalf("base + sum(phi) = %v, margin %v", sum, margin)
	}
}

func TestBackgroundMatchesEnumeration(t *testing.T) {
	each(t, 4, func(t *testing.T, rng *rand.Rand, e *tree.Ensemble) {
		m, k := e.Features, e.Outputs
		const n = 3
		rows := explaintest.Rows(rng, n, m, 0.15)
		set := explaintest.Rows(rng, 23, m, 0.15)
		b, err := treeshap.NewBackground(e, set, "set")
		if err != nil {
			t.Fatal(err)
		}
		phi, pairs := make([]float64, n*k*m), make([]float64, n*k*m*m)
		if err := b.Explain(rows, phi); err != nil {
			t.Fatal(err)
		}
		if err := b.Interactions(rows, pairs); err != nil {
			t.Fatal(err)
		}
		stored := reread(t, e, b)
		again := make([]float64, len(phi))
		if err := stored.Explain(rows, again); err != nil {
			t.Fatal(err)
		}
		near(t, "stored", again, phi, 0)
		for r := range n {
			x := rows[r*m : (r+1)*m]
			for o := range k {
				game := explaintest.BackgroundGame(e, x, set, o)
				got := phi[(r*k+o)*m : (r*k+o+1)*m]
				checkEfficiency(t, got, b.Base()[o], explaintest.Margin(e, x, o))
				want, err := explaintest.Shapley(game, m)
				if err != nil {
					t.Fatal(err)
				}
				near(t, "phi", got, want, 1e-12)
				want, err = explaintest.Interactions(game, m)
				if err != nil {
					t.Fatal(err)
				}
				near(t, "interactions", pairs[(r*k+o)*m*m:(r*k+o+1)*m*m], want, 1e-12)
			}
		}
	})
}

// reread stores b and reads it back.
func reread(t *testing.T, e *tree.Ensemble, b *treeshap.Background) *treeshap.Background {
	t.Helper()
	data, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := treeshap.ReadBackground(e, data)
	if err != nil {
		t.Fatal(err)
	}
	if stored.Digest() != b.Digest() || stored.Rows() != b.Rows() {
		t.Fatalf("stored as %q with %d rows, read %q with %d", b.Digest(), b.Rows(), stored.Digest(), stored.Rows())
	}
	second, err := stored.AppendBinary(nil)
	if err != nil || !bytes.Equal(data, second) {
		t.Fatalf("a background read back is stored differently (%v)", err)
	}
	return stored
}

// TestManyFeaturesOnAPath tries paths of 100 distinct features, where patterns
// take two words, against the sum over single background rows and, for both
// kinds of values, against efficiency.
func TestManyFeaturesOnAPath(t *testing.T) {
	const m = 100
	e := &tree.Ensemble{Features: m, Outputs: 1, Base: []float64{0.5}, Covers: tree.CoverCount, Link: tree.LinkIdentity}
	rng := rand.New(rand.NewPCG(7, 7))
	tr := tree.Tree{}
	cover := 1e6
	for f := range m {
		at := int32(len(tr.Nodes))
		tr.Nodes = append(tr.Nodes,
			tree.Node{Feature: int32(f), Threshold: 0, Rule: tree.Less, Left: at + 1, Right: at + 2, Cover: cover},
			tree.Node{Cover: cover * 0.1})
		tr.Values = append(tr.Values, 0, rng.NormFloat64())
		cover *= 0.9
	}
	tr.Nodes = append(tr.Nodes, tree.Node{Cover: cover})
	tr.Values = append(tr.Values, 3)
	e.Trees = []tree.Tree{tr}
	// Rows are 1 but for a few features, so that paths are walked far down.
	rows := make([]float64, 4*m)
	for i := range rows {
		rows[i] = 1
	}
	for _, at := range []int{75, 97, m + 30, m + 80, 2*m + 5, 2*m + 75, 3*m + 90, 3*m + 95} {
		rows[at] = -1
	}
	x, set := rows[:m], rows[m:]
	p, err := treeshap.Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	phi := make([]float64, m)
	if err := p.Explain(x, phi); err != nil {
		t.Fatal(err)
	}
	checkEfficiency(t, phi, p.Base()[0], explaintest.Margin(e, x, 0))
	b, err := treeshap.NewBackground(e, set, "set")
	if err != nil {
		t.Fatal(err)
	}
	if err := reread(t, e, b).Explain(x, phi); err != nil {
		t.Fatal(err)
	}
	checkEfficiency(t, phi, b.Base()[0], explaintest.Margin(e, x, 0))
	pairs := make([]float64, m*m)
	if err := b.Interactions(x, pairs); err != nil {
		t.Fatal(err)
	}
	sums := make([]float64, m)
	for i := range sums {
		for j := range m {
			sums[i] += pairs[i*m+j]
		}
	}
	near(t, "rows of the matrix", sums, phi, 1e-12)
	want := make([]float64, m)
	for r := range 3 {
		for i, v := range againstOne(e, x, set[r*m:(r+1)*m]) {
			want[i] += v / 3
		}
	}
	near(t, "phi", phi, want, 1e-12)
}

// againstOne enumerates the features in which two rows differ.
func againstOne(e *tree.Ensemble, x, z []float64) []float64 {
	var differ []int
	for i := range x {
		if x[i] != z[i] {
			differ = append(differ, i)
		}
	}
	game := func(s uint) float64 {
		mixed := append([]float64(nil), z...)
		for i, f := range differ {
			if s>>i&1 == 1 {
				mixed[f] = x[f]
			}
		}
		return explaintest.Margin(e, mixed, 0)
	}
	out := make([]float64, len(x))
	values, err := explaintest.Shapley(game, len(differ))
	if err != nil {
		panic(err)
	}
	for i, f := range differ {
		out[f] = values[i]
	}
	return out
}

// TestDummySymmetryLinearity holds the axioms to account directly.
func TestDummySymmetryLinearity(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a := explaintest.Ensemble(rng, explaintest.Options{Features: 6, Trees: 5, Depth: 7})
	b := explaintest.Ensemble(rng, explaintest.Options{Features: 6, Trees: 4, Depth: 5})
	both := &tree.Ensemble{Features: 8, Outputs: 1, Base: []float64{a.Base[0] + b.Base[0]}, Covers: tree.CoverCount, Trees: append(append([]tree.Tree{}, a.Trees...), b.Trees...)}
	a.Features, b.Features = 8, 8 // features 6 and 7 are tested nowhere
	rows := explaintest.Rows(rng, 20, 8, 0.1)
	one, two, sum := values(t, a, rows), values(t, b, rows), values(t, both, rows)
	for i := range sum {
		if math.Abs(sum[i]-one[i]-two[i]) > 1e-12 {
			t.Fatalf("value %d: %v of the sum, %v and %v of the parts", i, sum[i], one[i], two[i])
		}
		if i%8 >= 6 && sum[i] != 0 {
			t.Fatalf("feature %d is never tested but has phi %v", i%8, sum[i])
		}
	}
	// Two features used in the same way on equal values share alike.
	n := func(f int32, l, r int32, c float64) tree.Node {
		return tree.Node{Feature: f, Left: l, Right: r, Rule: tree.LessEqual, Threshold: 0, Cover: c}
	}
	s := &tree.Ensemble{Features: 2, Outputs: 1, Base: []float64{0}, Covers: tree.CoverCount, Trees: []tree.Tree{
		{Nodes: []tree.Node{n(0, 1, 2, 8), n(1, 3, 4, 4), n(1, 5, 6, 4), {Cover: 2}, {Cover: 2}, {Cover: 2}, {Cover: 2}}, Values: []float64{0, 0, 0, 1, 5, 5, 11}},
	}}
	phi := values(t, s, []float64{1, 1})
	if math.Abs(phi[0]-phi[1]) > 1e-15 || phi[0] == 0 {
		t.Fatalf("symmetric features got %v", phi)
	}
}

func values(t *testing.T, e *tree.Ensemble, rows []float64) []float64 {
	t.Helper()
	p, err := treeshap.Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	phi := make([]float64, len(rows)*e.Outputs)
	if err := p.Explain(rows, phi); err != nil {
		t.Fatal(err)
	}
	return phi
}

// TestSameBits explains rows alone, in batches and from several goroutines.
func TestSameBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	e := explaintest.Ensemble(rng, explaintest.Options{Features: 9, Outputs: 2, Trees: 20, Depth: 8})
	p, err := treeshap.Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	rows := explaintest.Rows(rng, n, 9, 0.1)
	want := make([]float64, n*18)
	if err := p.Explain(rows, want); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got := make([]float64, 18)
			for r := range n {
				if err := p.Explain(rows[r*9:(r+1)*9], got); err != nil {
					t.Error(err)
					return
				}
				for i := range got {
					if math.Float64bits(got[i]) != math.Float64bits(want[r*18+i]) {
						t.Errorf("row %d alone: %v, in a batch %v", r, got[i], want[r*18+i])
						return
					}
				}
			}
		}()
	}
	wg.Wait()
	one := make([]float64, 18)
	if allocs := testing.AllocsPerRun(50, func() { _ = p.Explain(rows[:9], one) }); allocs > 0 {
		t.Errorf("%v allocations a row", allocs)
	}
}

func TestPrepareRefuses(t *testing.T) {
	good := func() *tree.Ensemble {
		return explaintest.Ensemble(rand.New(rand.NewPCG(5, 5)), explaintest.Options{})
	}
	cases := []struct {
		name  string
		spoil func(*tree.Ensemble)
		want  error
	}{
		{"no covers", func(e *tree.Ensemble) { e.Covers = tree.CoverNone }, treeshap.ErrNoCovers},
		{"negative cover", func(e *tree.Ensemble) { e.Trees[0].Nodes[1].Cover = -1 }, engine.ErrCorrupt},
		{"NaN cover", func(e *tree.Ensemble) { e.Trees[0].Nodes[0].Cover = math.NaN() }, engine.ErrCorrupt},
		{"child above parent", func(e *tree.Ensemble) { e.Trees[0].Nodes[1].Left, e.Trees[0].Nodes[1].Right = 1, 0 }, engine.ErrCorrupt},
		{"feature out of range", func(e *tree.Ensemble) { e.Trees[0].Nodes[0].Feature = 99 }, engine.ErrCorrupt},
		{"values missing", func(e *tree.Ensemble) { e.Trees[0].Values = nil }, engine.ErrCorrupt},
		{"base missing", func(e *tree.Ensemble) { e.Base = nil }, engine.ErrCorrupt},
	}
	for _, c := range cases {
		e := good()
		c.spoil(e)
		if _, err := treeshap.Prepare(e); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	p, err := treeshap.Prepare(good())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Explain(make([]float64, 7), make([]float64, 7)); err == nil {
		t.Error("7 values were taken for rows of 5")
	}
}

func TestReadBackgroundRefuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	e := explaintest.Ensemble(rng, explaintest.Options{})
	other := explaintest.Ensemble(rng, explaintest.Options{})
	b, err := treeshap.NewBackground(e, explaintest.Rows(rng, 10, 5, 0.1), "set")
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := treeshap.ReadBackground(other, data); !errors.Is(err, treeshap.ErrOtherModel) {
		t.Errorf("another model's background: %v", err)
	}
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 1
		if _, err := treeshap.ReadBackground(e, bad); err == nil {
			t.Fatalf("byte %d was changed unnoticed", i)
		}
		if _, err := treeshap.ReadBackground(e, data[:i]); !errors.Is(err, engine.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := treeshap.NewBackground(e, nil, "none"); err == nil {
		t.Error("a background without rows was taken")
	}
}

func FuzzReadBackground(f *testing.F) {
	rng := rand.New(rand.NewPCG(8, 8))
	e := explaintest.Ensemble(rng, explaintest.Options{Features: 4, Trees: 2, Depth: 3})
	b, err := treeshap.NewBackground(e, explaintest.Rows(rng, 10, 4, 0.1), "set")
	if err != nil {
		f.Fatal(err)
	}
	data, err := b.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	head := len(data) - len(treeshap.Body(data))
	f.Add(treeshap.Body(data)[:len(treeshap.Body(data))-8])
	rows := explaintest.Rows(rng, 2, 4, 0.1)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := treeshap.ReadBackground(e, treeshap.Seal(append(append([]byte(nil), data[:head]...), body...)))
		if err != nil {
			return
		}
		phi := make([]float64, 8)
		if err := got.Explain(rows, phi); err != nil {
			t.Fatal(err)
		}
		for r := range 2 {
			checkFinite(t, phi[r*4:r*4+4])
		}
	})
}

func checkFinite(t *testing.T, phi []float64) {
	t.Helper()
	for _, v := range phi {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("phi %v", phi)
		}
	}
}

func BenchmarkPath(b *testing.B) {
	for _, rows := range []int{1, 256} {
		b.Run(fmt.Sprintf("500x6/rows=%d", rows), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(9, 9))
			e := explaintest.Ensemble(rng, explaintest.Options{Features: 50, Trees: 500, Depth: 6, Plain: true, Float32: true})
			p, err := treeshap.Prepare(e)
			if err != nil {
				b.Fatal(err)
			}
			x, phi := explaintest.Rows(rng, rows, 50, 0), make([]float64, rows*50)
			b.ResetTimer()
			for range b.N {
				if err := p.Explain(x, phi); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*rows), "us/row")
		})
	}
}

func BenchmarkBackground(b *testing.B) {
	rng := rand.New(rand.NewPCG(9, 9))
	e := explaintest.Ensemble(rng, explaintest.Options{Features: 50, Trees: 500, Depth: 6, Plain: true, Float32: true})
	set, err := treeshap.NewBackground(e, explaintest.Rows(rng, 100, 50, 0), "set")
	if err != nil {
		b.Fatal(err)
	}
	x, phi := explaintest.Rows(rng, 16, 50, 0), make([]float64, 16*50)
	b.ResetTimer()
	for range b.N {
		if err := set.Explain(x, phi); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*16), "us/row")
}
