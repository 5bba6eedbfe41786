package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// specials are the values that go astray most easily.
var specials = []float64{
	math.NaN(), 0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), ZeroThreshold, -ZeroThreshold, 2e-35, -2e-35,
	1, -1, 0.5, -0.5, 2.7, 64, 1e10, math.MaxFloat32, -math.MaxFloat32, 1e-45,
}

// randomEnsemble grows trees of every rule and kind of missing value.
func randomEnsemble(r *rand.Rand, float32s, plain bool, outputs int) *Ensemble {
	e := &Ensemble{Features: 1 + r.IntN(6), Outputs: outputs, Float32: float32s, Link: LinkIdentity, Base: make([]float64, outputs)}
	for k := range e.Base {
		e.Base[k] = round(e, r.NormFloat64())
	}
	for i := range 1 + r.IntN(30) {
		t := Tree{Output: i % outputs, Sets: []Bitset{{0x5}, {1 << 2, 1}, {}}}
		if outputs > 1 && i%3 == 0 {
			t.Output = -1
		}
		switch r.IntN(12) {
		case 0:
			chain(r, e, &t, 1+r.IntN(1200), plain)
		case 1:
			grow(r, e, &t, 14, plain)
		default:
			grow(r, e, &t, r.IntN(9), plain)
		}
		if !float32s && !plain && t.Output >= 0 && i%4 == 0 {
			addLinear(r, e, &t)
		}
		e.Trees = append(e.Trees, t)
	}
	return e
}

func round(e *Ensemble, v float64) float64 {
	if e.Float32 {
		return float64(float32(v))
	}
	return v
}

func grow(r *rand.Rand, e *Ensemble, t *Tree, depth int, plain bool) int32 {
	at := int32(len(t.Nodes))
	t.Nodes = append(t.Nodes, Node{})
	for range t.Width(e) {
		t.Values = append(t.Values, 0)
	}
	if depth == 0 || r.IntN(6) == 0 {
		for k := range t.Width(e) {
			t.Values[int(at)*t.Width(e)+k] = round(e, r.NormFloat64())
		}
		return at
	}
	n := randomSplit(r, e, plain)
	n.Left = grow(r, e, t, depth-1, plain)
	n.Right = grow(r, e, t, depth-1, plain)
	t.Nodes[at] = n
	return at
}

func randomSplit(r *rand.Rand, e *Ensemble, plain bool) Node {
	n := Node{Feature: int32(r.IntN(e.Features)), Rule: Rule(r.IntN(7)), Missing: Missing(r.IntN(3)), DefaultLeft: r.IntN(2) == 0, Set: int32(r.IntN(3))}
	if plain || r.IntN(2) == 0 {
		n.Rule, n.Missing = Rule(r.IntN(4)), Missing(r.IntN(2))
	}
	n.Threshold = round(e, r.NormFloat64())
	if r.IntN(2) == 0 {
		n.Threshold = round(e, specials[1+r.IntN(len(specials)-1)])
	}
	if plain && math.IsInf(n.Threshold, 1) {
		n.Threshold = 3
	}
	return n
}

// chain grows a tree of one long path.
func chain(r *rand.Rand, e *Ensemble, t *Tree, depth int, plain bool) {
	for range depth {
		at := grow(r, e, t, 0, plain)
		n := randomSplit(r, e, plain)
		leaf := grow(r, e, t, 0, plain)
		n.Left, n.Right = leaf, leaf+1
		if r.IntN(2) == 0 {
			n.Left, n.Right = n.Right, n.Left
		}
		clear(t.Values[int(at)*t.Width(e):][:t.Width(e)])
		t.Nodes[at] = n
	}
	grow(r, e, t, 0, plain)
}

func addLinear(r *rand.Rand, e *Ensemble, t *Tree) {
	t.Linear = make([]LinearLeaf, len(t.Nodes))
	for i := range t.Nodes {
		if t.Nodes[i].IsLeaf() && r.IntN(2) == 0 {
			t.Linear[i] = LinearLeaf{Const: r.NormFloat64(), Features: []int32{int32(r.IntN(e.Features))}, Coefs: []float64{r.NormFloat64()}}
		}
	}
}

// naive is the definition: walk each tree with Tree.Left, add in order.
func naive[T float](e *Ensemble, x []T) []T {
	out := make([]T, e.Outputs)
	for k, b := range e.Base {
		out[k] = T(b)
	}
	for i := range e.Trees {
		t := &e.Trees[i]
		at := int32(0)
		for !t.Nodes[at].IsLeaf() {
			n := &t.Nodes[at]
			if t.Left(n, float64(x[n.Feature])) {
				at = n.Left
			} else {
				at = n.Right
			}
		}
		if t.Output >= 0 {
			out[t.Output] += leafValue(t, at, x)
			continue
		}
		for k := range out {
			out[k] += T(t.Values[int(at)*e.Outputs+k])
		}
	}
	return out
}

func testAgainstNaive[T float, K key](t *testing.T, plain bool) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		e := randomEnsemble(r, isFloat32(T(0)), plain, 1+round%3)
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		p := compile[T, K](e)
		// Both forms are tried, whichever would be chosen, with the kernels that
		// this machine has.
		p.wide = nil
		if round%4 > 1 {
			p.wide = newWide[T, K](e)
		}
		for i := range p.trees {
			if plain && !p.trees[i].plain {
				t.Fatal("a tree of comparisons was not compiled")
			}
		}
		rows := []int{1, 7, 8, 9, 130, 300, 600}[round%7]
		x := make([]T, rows*e.Features)
		for i := range x {
			x[i] = T(r.NormFloat64())
			// Half of the rounds have no NaN, the kernels' other half.
			if from := round % 2; r.IntN(2) == 0 {
				x[i] = T(specials[from+r.IntN(len(specials)-from)])
			}
		}
		got := make([]T, rows*e.Outputs)
		if err := p.margins(context.Background(), x, rows, got, 1+round%4); err != nil {
			t.Fatal(err)
		}
		for row := range rows {
			want := naive(e, x[row*e.Features:(row+1)*e.Features])
			for k, w := range want {
				if g := got[row*e.Outputs+k]; g != w && (g == g || w == w) {
					t.Fatalf("round %d row %d output %d: %v, want %v", round, row, k, g, w)
				}
			}
		}
	}
}

func TestEvaluate(t *testing.T) {
	t.Run("float32", func(t *testing.T) { testAgainstNaive[float32, uint32](t, false) })
	t.Run("float64", func(t *testing.T) { testAgainstNaive[float64, uint64](t, false) })
	t.Run("compiled float32", func(t *testing.T) { testAgainstNaive[float32, uint32](t, true) })
	t.Run("compiled float64", func(t *testing.T) { testAgainstNaive[float64, uint64](t, true) })
}

// TestLeft pins the conventions that the libraries differ in.
func TestLeft(t *testing.T) {
	tr := &Tree{Sets: []Bitset{{1<<0 | 1<<2, 1}}} // 0, 2, 64
	nan := math.NaN()
	tests := []struct {
		name string
		n    Node
		x    float64
		want bool
	}{
		{"XGBoost: equal goes right", Node{Rule: Less, Threshold: 1}, 1, false},
		{"LightGBM: equal goes left", Node{Rule: LessEqual, Threshold: 1}, 1, true},
		{"NaN left", Node{DefaultLeft: true, Threshold: -9}, nan, true},
		{"NaN right", Node{Threshold: 9}, nan, false},
		{"NaN is 0 where nothing is missing", Node{Rule: LessEqual, Missing: MissingNone, Threshold: 0}, nan, true},
		{"NaN is 0, compared", Node{Rule: LessEqual, Missing: MissingNone, Threshold: -1, DefaultLeft: true}, nan, false},
		{"zero is missing", Node{Rule: LessEqual, Missing: MissingZero, Threshold: -1, DefaultLeft: true}, 0, true},
		{"-0 is missing", Node{Rule: LessEqual, Missing: MissingZero, Threshold: 1}, math.Copysign(0, -1), false},
		{"the zero threshold is missing", Node{Rule: LessEqual, Missing: MissingZero, Threshold: 1}, ZeroThreshold, false},
		{"above it is not", Node{Rule: LessEqual, Missing: MissingZero, Threshold: 1}, 1.1e-35, true},
		{"NaN with zeros missing", Node{Rule: LessEqual, Missing: MissingZero, Threshold: 1}, nan, false},
		{"in the set", Node{Rule: InSet}, 64, true},
		{"truncated into the set", Node{Rule: InSet}, 2.9, true},
		{"not in the set", Node{Rule: InSet}, 1, false},
		{"beyond the set", Node{Rule: InSet}, 500, false},
		{"far beyond", Node{Rule: InSet}, 1e30, false},
		{"negative", Node{Rule: InSet}, -3, false},
		{"XGBoost: -0.5 is negative", Node{Rule: InSet, Missing: MissingNaN}, -0.5, false},
		{"LightGBM: -0.5 is category 0", Node{Rule: InSet, Missing: MissingNone}, -0.5, true},
		{"LightGBM: NaN goes right whatever the default", Node{Rule: InSet, Missing: MissingNone, DefaultLeft: true}, nan, false},
		{"XGBoost: NaN follows the default", Node{Rule: InSet, Missing: MissingNaN, DefaultLeft: true}, nan, true},
	}
	for _, tt := range tests {
		if got := tr.Left(&tt.n, tt.x); got != tt.want {
			t.Errorf("%s: left is %v, want %v", tt.name, got, tt.want)
		}
	}
}

func valid() *Ensemble {
	return &Ensemble{Features: 2, Outputs: 1, Base: []float64{0}, Float32: true, Link: LinkIdentity, Trees: []Tree{{
		Nodes:  []Node{{Left: 1, Right: 2, Threshold: 0.5}, {}, {}},
		Values: []float64{0, 1, 2},
		Sets:   []Bitset{{1}},
	}}}
}

func TestValidate(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		damage func(*Ensemble)
		want   string
	}{
		{"no outputs", func(e *Ensemble) { e.Outputs = 0 }, "outputs"},
		{"too many features", func(e *Ensemble) { e.Features = MaxFeatures + 1 }, "features"},
		{"base", func(e *Ensemble) { e.Base = nil }, "base"},
		{"NaN base", func(e *Ensemble) { e.Base[0] = math.NaN() }, "NaN"},
		{"link", func(e *Ensemble) { e.Link = "cloglog" }, "link"},
		{"no nodes", func(e *Ensemble) { e.Trees[0] = Tree{} }, "no nodes"},
		{"output", func(e *Ensemble) { e.Trees[0].Output = 1 }, "output 1"},
		{"values", func(e *Ensemble) { e.Trees[0].Values = []float64{1} }, "leaf values"},
		{"feature", func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = 2 }, "feature 2"},
		{"negative feature", func(e *Ensemble) { e.Trees[0].Nodes[0].Feature = -1 }, "feature -1"},
		{"rule", func(e *Ensemble) { e.Trees[0].Nodes[0].Rule = 9 }, "rule"},
		{"missing", func(e *Ensemble) { e.Trees[0].Nodes[0].Missing = 9 }, "missing"},
		{"set", func(e *Ensemble) { e.Trees[0].Nodes[0].Rule = InSet; e.Trees[0].Nodes[0].Set = 1 }, "category set"},
		{"NaN threshold", func(e *Ensemble) { e.Trees[0].Nodes[0].Threshold = math.NaN() }, "NaN"},
		{"NaN leaf", func(e *Ensemble) { e.Trees[0].Values[2] = math.NaN() }, "tree 0: node 2: a leaf is NaN"},
		{"NaN in a linear leaf", func(e *Ensemble) {
			e.Trees[0].Linear = make([]LinearLeaf, 3)
			e.Trees[0].Linear[1].Const = math.NaN()
		}, "tree 0: node 1: a linear leaf is NaN"},
		{"threshold of float64", func(e *Ensemble) { e.Trees[0].Nodes[0].Threshold = 0.1 }, "float32"},
		{"child out of range", func(e *Ensemble) { e.Trees[0].Nodes[0].Right = 3 }, "child 3"},
		{"one child", func(e *Ensemble) { e.Trees[0].Nodes[0].Right = 0 }, "child 0"},
		{"a circle", func(e *Ensemble) { e.Trees[0].Nodes[1] = Node{Left: 1, Right: 2} }, "out of order"},
		{"twins", func(e *Ensemble) { e.Trees[0].Nodes[0].Right = 1 }, "two parents"},
		{"an orphan", func(e *Ensemble) {
			e.Trees[0].Nodes = append(e.Trees[0].Nodes, Node{})
			e.Trees[0].Values = append(e.Trees[0].Values, 0)
		}, "no parent"},
		{"linear of another length", func(e *Ensemble) { e.Trees[0].Linear = make([]LinearLeaf, 1) }, "linear"},
		{"linear feature", func(e *Ensemble) {
			e.Trees[0].Linear = make([]LinearLeaf, 3)
			e.Trees[0].Linear[1] = LinearLeaf{Features: []int32{7}, Coefs: []float64{1}}
		}, "linear feature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := valid()
			tt.damage(e)
			err := e.Validate()
			if !errors.Is(err, engine.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrCorrupt with %q", err, tt.want)
			}
		})
	}
}

// TestInfiniteThresholds are no damage: libraries write them for splits by what is missing.
func TestInfiniteThresholds(t *testing.T) {
	inf := math.Inf(1)
	for _, threshold := range []float64{inf, -inf} {
		e := valid()
		e.Trees[0].Nodes[0].Threshold = threshold
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		s, err := NewModel(e, &engine.Info{Missing: true, Features: make([]engine.Feature, 2)}).NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rows := []float32{-1, 0, 1, 0, float32(inf), 0, float32(-inf), 0, float32(math.NaN()), 0}
		x, err := engine.Of(rows, 5, 2)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), engine.Values{{Name: InputName, Tensor: x}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range engine.Data[float32](out[0].Tensor) {
			want := float32(2) // right: NaN too, whose default is not left
			if float64(rows[2*i]) < threshold {
				want = 1
			}
			if got != want {
				t.Errorf("%v < %v: leaf %v, want %v", rows[2*i], threshold, got, want)
			}
		}
	}
}

func TestApply(t *testing.T) {
	tests := []struct {
		link Link
		k    int
		in   []float64
		want []float64
	}{
		{LinkIdentity, 1, []float64{-2, 3}, []float64{-2, 3}},
		{LinkSigmoid, 1, []float64{0, 1}, []float64{0.5, 1 / (1 + math.Exp(-2))}}, // slope 2
		{LinkSigmoidEach, 2, []float64{0, 1}, []float64{0.5, 1 / (1 + math.Exp(-2))}},
		{LinkSoftmax, 2, []float64{1000, 1000, 0, math.Log(3)}, []float64{0.5, 0.5, 0.25, 0.75}},
		{LinkExp, 1, []float64{0, 1}, []float64{1, math.E}},
		{LinkProbit, 1, []float64{0, 1.959963984540054}, []float64{0.5, 0.975}},
		{LinkArgmax, 3, []float64{1, 3, 3, 5, 4, 3}, []float64{1, 0}},
		{LinkStep, 1, []float64{-1, 0, 2}, []float64{0, 0, 1}},
		{LinkLog1pExp, 1, []float64{0}, []float64{math.Ln2}},
		{LinkSquare, 1, []float64{-3, 2}, []float64{-9, 4}},
	}
	for _, tt := range tests {
		got := Apply(tt.link, 2, append([]float64(nil), tt.in...), tt.k)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.link, got, tt.want)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-tt.want[i]) > 1e-12 {
				t.Errorf("%s: %v, want %v", tt.link, got, tt.want)
			}
		}
	}
}

// TestSigmoidFloat32 holds the ends: XGBoost never answers 0, and never NaN.
func TestSigmoidFloat32(t *testing.T) {
	got := Apply(LinkSigmoid, 1, []float32{-1e6, 1e6, float32(math.Inf(-1))}, 1)
	if got[0] <= 0 || got[1] != 1 || got[2] != got[0] {
		t.Errorf("sigmoid of -1e6, 1e6, -Inf is %v", got)
	}
}

// FuzzEvaluate holds both paths to the definition on random ensembles and any row.
func FuzzEvaluate(f *testing.F) {
	f.Add(uint64(1), []byte("\x00\x00\xc0\x7f\x00\x00\x80\x3f"))
	f.Add(uint64(2), []byte{0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0x80, 0xff})
	f.Fuzz(func(t *testing.T, seed uint64, data []byte) {
		r := rand.New(rand.NewPCG(seed, 1))
		e := randomEnsemble(r, true, seed%2 == 0, 1+int(seed>>1%2))
		x := make([]float32, e.Features)
		for i := range x {
			if len(data) >= 4 {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data))
				data = data[4:]
			}
		}
		want := naive(e, x)
		p := compile[float32, uint32](e)
		p.wide = newWide[float32, uint32](e)
		got := make([]float32, e.Outputs)
		for _, run := range []func(){
			func() { p.wideBlock(x, 1, got) },
			func() { p.block(x, 0, 1, got) },
		} {
			copy(got, p.base)
			run()
			for k := range got {
				if got[k] != want[k] && (got[k] == got[k] || want[k] == want[k]) {
					t.Fatalf("output %d of %v: %v, want %v", k, x, got[k], want[k])
				}
			}
		}
	})
}

// TestManyThresholds has features of far more thresholds than a column of bins.
func TestManyThresholds(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, missing := range []bool{false, true} {
		e := bushy()
		for i := range e.Trees {
			for j := range e.Trees[i].Nodes {
				n := &e.Trees[i].Nodes[j]
				n.Feature %= 2
				n.DefaultLeft = r.IntN(2) == 0
			}
		}
		p := compile[float32, uint32](e)
		p.wide = newWide[float32, uint32](e)
		if len(p.wide.segments) < 100 {
			t.Fatalf("%d segments", len(p.wide.segments))
		}
		const rows = 700
		x := make([]float32, rows*e.Features)
		for i := range x {
			x[i] = float32(r.NormFloat64())
			if missing && r.IntN(5) == 0 {
				x[i] = float32(math.NaN())
			}
		}
		got := make([]float32, rows)
		if err := p.margins(t.Context(), x, rows, got, 1); err != nil {
			t.Fatal(err)
		}
		for row := range rows {
			if want := naive(e, x[row*e.Features:][:e.Features])[0]; got[row] != want {
				t.Fatalf("row %d: %v, want %v", row, got[row], want)
			}
		}
	}
}

func values(t *testing.T, x []float32, features int) engine.Values {
	t.Helper()
	in, err := engine.Of(x, len(x)/features, features)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: InputName, Tensor: in}}
}

func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, link := range []Link{LinkIdentity, LinkSoftmax, LinkArgmax} {
		e := randomEnsemble(r, true, false, 3)
		e.Link = link
		m := NewModel(e, &engine.Info{Missing: true})
		if got, output := m.(Holder).Trees(); got != e || output != OutputName {
			t.Errorf("the model does not hold its ensemble")
		}
		x := make([]float32, 300*e.Features)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		enginetest.TestModel(t, m, values(t, x, e.Features))
	}
}

func TestLinearLeavesAreNoHolder(t *testing.T) {
	e := valid()
	e.Float32 = false
	e.Trees[0].Linear = make([]LinearLeaf, 3)
	if _, ok := NewModel(e, &engine.Info{}).(Holder); ok {
		t.Error("a model with linear leaves offers its trees to be explained")
	}
}

func TestSessionRefuses(t *testing.T) {
	m := NewModel(valid(), &engine.Info{Missing: true})
	s, err := m.NewSession(engine.SessionOptions{MaxBytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(context.Background(), values(t, make([]float32, 100), 2), nil); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("50 rows in 100 bytes: %v, want ErrTooLarge", err)
	}
	var e *engine.InputError
	if _, err := s.Run(context.Background(), values(t, make([]float32, 3), 3), nil); !errors.As(err, &e) {
		t.Errorf("three columns of two: %v, want an InputError", err)
	}
	if _, err := s.Run(context.Background(), nil, nil); !errors.As(err, &e) {
		t.Errorf("no input: %v, want an InputError", err)
	}
	if _, err := s.Run(context.Background(), values(t, make([]float32, 2), 2), []string{"leaf"}); !errors.As(err, &e) {
		t.Errorf("an unknown output: %v, want an InputError", err)
	}
}

// TestSingleRowAllocates holds the price of one row: nothing beyond the output
// (its data, boxed, its tensor, the shape twice, the list).
func TestSingleRowAllocates(t *testing.T) {
	m := NewModel(valid(), &engine.Info{Missing: true})
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	in, want := values(t, []float32{1, 2}, 2), []string{OutputName}
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := s.Run(context.Background(), in, want); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 6 {
		t.Errorf("%v allocations for one row", allocs)
	}
}

// bushy is 500 complete trees of depth 6 over 30 features.
func bushy() *Ensemble {
	r := rand.New(rand.NewPCG(5, 6))
	e := &Ensemble{Features: 30, Outputs: 1, Base: []float64{0}, Float32: true, Link: LinkSigmoid}
	for range 500 {
		t := Tree{Nodes: make([]Node, 127), Values: make([]float64, 127)}
		for i := range 127 {
			if i < 63 {
				t.Nodes[i] = Node{Feature: int32(r.IntN(30)), Left: int32(2*i + 1), Right: int32(2*i + 2), Threshold: float64(float32(r.NormFloat64()))}
			} else {
				t.Values[i] = float64(float32(r.NormFloat64()))
			}
		}
		e.Trees = append(e.Trees, t)
	}
	return e
}

func BenchmarkPredict(b *testing.B) {
	e := bushy()
	m := NewModel(e, &engine.Info{})
	r := rand.New(rand.NewPCG(7, 8))
	for _, c := range []struct {
		name    string
		rows    int
		missing bool
	}{{"1", 1, false}, {"1 missing", 1, true}, {"10000", 10000, false}, {"10000 missing", 10000, true}} {
		x := make([]float32, c.rows*e.Features)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		if c.missing {
			x[3] = float32(math.NaN())
			for i := 0; i < len(x); i += 17 {
				x[i] = float32(math.NaN())
			}
		}
		t, err := engine.Of(x, c.rows, e.Features)
		if err != nil {
			b.Fatal(err)
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("rows="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Run(context.Background(), engine.Values{{Name: InputName, Tensor: t}}, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.rows), "ns/row")
		})
	}
}

// TestLargeTrees: large trees go through larger blocks, which gives the bits of rows alone
// on any number of threads.
func TestLargeTrees(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 12))
	e := &Ensemble{Features: 7, Outputs: 1, Float32: true, Link: LinkIdentity, Base: []float64{0.5}}
	for range 3 {
		tree := Tree{}
		var add func(depth int) int32
		add = func(depth int) int32 {
			i := int32(len(tree.Nodes))
			tree.Nodes, tree.Values = append(tree.Nodes, Node{}), append(tree.Values, float64(float32(r.NormFloat64())))
			if depth > 0 {
				left, right := add(depth-1), add(depth-1)
				tree.Nodes[i] = Node{Feature: int32(r.IntN(7)), Left: left, Right: right, Rule: Less, Threshold: float64(r.Float32())}
			}
			return i
		}
		add(12)
		e.Trees = append(e.Trees, tree)
	}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	p := compile[float32, uint32](e)
	p.wide = nil
	const rows = 9001
	if size := p.blockSize(rows, 1); size <= blockRows || size%lanes != 0 {
		t.Fatalf("blocks of %d rows", size)
	}
	x, want, got := make([]float32, rows*7), make([]float32, rows), make([]float32, rows)
	for i := range x {
		if x[i] = r.Float32(); r.IntN(50) == 0 {
			x[i] = float32(math.NaN())
		}
	}
	for i := range rows {
		if err := p.margins(t.Context(), x[i*7:(i+1)*7], 1, want[i:i+1], 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, threads := range []int{1, 2, 3} {
		if err := p.margins(t.Context(), x, rows, got, threads); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d threads: other bits than rows alone (%v)", threads, err)
		}
	}
}
