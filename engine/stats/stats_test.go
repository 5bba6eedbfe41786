package stats

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func normal(r *rand.Rand, n int, shift float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = r.NormFloat64() + shift
	}
	return out
}

func numericColumn(v []float64) []Column { return []Column{{Name: "x", Kind: KindNumeric, Numbers: v}} }

func TestCutNumericIsNestedAndEven(t *testing.T) {
	f := CutNumeric("x", normal(rand.New(rand.NewPCG(1, 2)), 10_000, 0))
	if len(f.Edges) != FineBins-1 || len(f.Coarse) != CoarseBins-1 {
		t.Fatalf("%d fine and %d coarse edges", len(f.Edges), len(f.Coarse))
	}
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := f.Fold(f.CountNumbers(normal(rand.New(rand.NewPCG(1, 2)), 10_000, 0)))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range c[:CoarseBins] {
		if n != 1000 {
			t.Errorf("coarse bin %d holds %v of 10000", i, n)
		}
	}
}

func TestCutNumericDiscrete(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name   string
		values []float64
		edges  []float64
		coarse int
	}{
		{"two", []float64{0, 1, 1, 0, nan}, []float64{0.5}, 1},
		{"atom at the top", append(slices.Repeat([]float64{10}, 99), 2), []float64{6}, 1},
		{"atom at the bottom", append(slices.Repeat([]float64{0}, 99), 2), []float64{1}, 1},
		{"empty", []float64{nan}, nil, 0},
	} {
		f := CutNumeric(c.name, c.values)
		if !slices.Equal(f.Edges, c.edges) || len(f.Coarse) != c.coarse {
			t.Errorf("%s: edges %v coarse %v", c.name, f.Edges, f.Coarse)
		}
	}
	f := CutNumeric("constant", []float64{5, 5, 5})
	if f.Bin(4) == f.Bin(5) || f.Bin(6) == f.Bin(5) || f.Bin(5) != f.Bin(float64(float32(5))) {
		t.Errorf("constant column: edges %v", f.Edges)
	}
}

func TestBinsSurvivePrecision(t *testing.T) {
	v := make([]float64, 1000)
	for i := range v {
		v[i] = float64(i) / 10
	}
	f := CutNumeric("x", v)
	for _, x := range v {
		if f.Bin(x) != f.Bin(float64(float32(x))) {
			t.Fatalf("%v changes its bin as float32", x)
		}
	}
}

func TestBinsAgreeWithCounts(t *testing.T) {
	v := append(normal(rand.New(rand.NewPCG(3, 4)), 5000, 0), math.Inf(1), math.Inf(-1), math.NaN())
	f := CutNumeric("x", v)
	want := Counts{}
	for _, x := range v {
		want[f.Bin(x)]++
	}
	got := f.CountNumbers(v)
	for b, n := range want {
		if got[b] != n {
			t.Errorf("bin %d: %v, want %v", b, got[b], n)
		}
	}
}

func TestCategoricalBins(t *testing.T) {
	f := CutCategorical("c", []string{"a", "a", "b", "c", "c", "c", "", "d"}, 2)
	if !slices.Equal(f.Categories, []string{"c", "a"}) || !slices.Equal(f.Others, []string{"b", "d"}) {
		t.Fatalf("categories %v others %v", f.Categories, f.Others)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var g FieldBins
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	literal := FieldBins{Kind: KindCategorical, Categories: f.Categories, Others: f.Others}
	for s, want := range map[string]uint16{"c": 0, "a": 1, "b": BinOther, "d": BinOther, "z": BinUnseen, "": BinMissing} {
		for _, h := range []*FieldBins{&f, &g, &literal} {
			if got := h.BinString(s); got != want {
				t.Errorf("BinString(%q) = %d, want %d", s, got, want)
			}
		}
	}
	codes := CutCodes("n", []float64{3, 3, 1, math.NaN()}, 0)
	if codes.BinCode(3) != 0 || codes.BinCode(float64(float32(1))) != 1 || codes.BinCode(2) != BinUnseen || codes.BinCode(math.NaN()) != BinMissing {
		t.Errorf("codes %v", codes.Categories)
	}
}

func TestForeignBinsAreRefused(t *testing.T) {
	f := CutNumeric("x", []float64{1, 2, 3})
	for _, c := range []Counts{{7: 1}, {BinUnseen: 1}, {0: -1}, {0: math.NaN()}} {
		if _, err := f.Fold(c); err == nil {
			t.Errorf("Fold(%v) was taken", c)
		}
	}
	rep := Compare(&Reference{Fields: []FieldBins{f}, Counts: []Counts{{0: 1}}, Rows: 1}, []Counts{{9: 600}}, 600, Options{})
	if rep.Features[0].State != StateError || rep.State != StateError {
		t.Errorf("states %s, %s", rep.Features[0].State, rep.State)
	}
}

func TestIdentityIsZeroAndBoundsHold(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		k := 2 + r.IntN(20)
		a, b := make([]float64, k), make([]float64, k)
		for i := range a {
			a[i], b[i] = float64(r.IntN(50)), float64(r.IntN(50))
		}
		a[0], b[k-1] = a[0]+1, b[k-1]+1
		for name, f := range map[string]func(x, y []float64) float64{"psi": PSIOfCounts, "js": JensenShannonOfCounts, "hellinger": HellingerOfCounts} {
			if v := f(a, a); math.Abs(v) > 1e-7 {
				t.Errorf("%s of equals is %v", name, v)
			}
			x, y := f(a, b), f(b, a)
			if math.Abs(x-y) > 1e-12 {
				t.Errorf("%s is not symmetric: %v, %v", name, x, y)
			}
			if x < 0 || name != "psi" && x > 1 {
				t.Errorf("%s is %v", name, x)
			}
		}
	}
	if d := JensenShannonOfCounts([]float64{5, 0}, []float64{0, 3}); d != 1 {
		t.Errorf("distance of disjoint counts is %v", d)
	}
}

// Without drift the verdict must be ok nearly always, whatever the number of
// rows; with a real shift it must not be.
func TestFalseAlarmRate(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	ref, err := NewReference(numericColumn(normal(r, 3000, 0)), "")
	if err != nil {
		t.Fatal(err)
	}
	const trials = 300
	for _, n := range []int{500, 2000} {
		var psi float64
		alarms := map[Test]int{}
		for range trials {
			c := ref.Fields[0].CountNumbers(normal(r, n, 0))
			f := Compare(ref, []Counts{c}, n, Options{}).Features[0]
			psi += f.Tests[PSI].Value - (f.Tests[PSI].Threshold - 0.1)
			for name, res := range f.Tests {
				if res.Drifted {
					alarms[name]++
				}
			}
		}
		for name, k := range alarms {
			if k > trials/100 {
				t.Errorf("%s: %d false alarms of %d at %d rows", name, k, trials, n)
			}
		}
		// The correction takes away the mean, with one bin (missing) to spare; the
		// one reference drawn adds its own chi-square noise of 9 degrees.
		if mean := psi / trials; math.Abs(mean) > 2*(1.0/3000+1.0/float64(n))+3*math.Sqrt(18)/3000 {
			t.Errorf("corrected PSI without drift is %v on average at %d rows", mean, n)
		}
	}
	c := ref.Fields[0].CountNumbers(normal(r, 500, 0.7))
	for name, res := range Compare(ref, []Counts{c}, 500, Options{}).Features[0].Tests {
		if !res.Drifted && name != MissingRate {
			t.Errorf("%s does not see a shift of 0.7: %v <= %v", name, res.Value, res.Threshold)
		}
	}
}

func TestStates(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	ref, err := NewReference(numericColumn(normal(r, 1000, 0)), "file")
	if err != nil {
		t.Fatal(err)
	}
	count := func(n int, shift float64) []Counts { return []Counts{ref.Fields[0].CountNumbers(normal(r, n, shift))} }
	for _, c := range []struct {
		ref  *Reference
		cur  []Counts
		rows int
		want State
	}{
		{nil, nil, 0, StateNoReference},
		{ref, count(499, 3), 499, StateNoData},
		{ref, count(500, 3), 500, StateDrifted},
		{ref, count(500, 0), 500, StateOK},
		{ref, []Counts{{}}, 0, StateNoData},
		{ref, nil, 0, StateError},
	} {
		rep := Compare(c.ref, c.cur, c.rows, Options{})
		if rep.State != c.want {
			t.Errorf("%d rows: state %s (%s), want %s", c.rows, rep.State, rep.Reason, c.want)
		}
		if _, err := json.Marshal(rep); err != nil {
			t.Errorf("report is not JSON: %v", err)
		}
	}
}

func TestPSIThresholdIsTheDesigns(t *testing.T) {
	f := CutNumeric("x", normal(rand.New(rand.NewPCG(1, 1)), 1000, 0))
	ref := f.CountNumbers(normal(rand.New(rand.NewPCG(1, 1)), 1000, 0))
	d := CompareField(&f, ref, ref, 1000, 800, Options{Tests: []Test{PSI}})
	if want := 0.1 + 10*(1.0/1000+1.0/800); math.Abs(d.Tests[PSI].Threshold-want) > 1e-15 || d.Tests[PSI].Bins != 11 {
		t.Errorf("threshold %v with %d bins, want %v with 11", d.Tests[PSI].Threshold, d.Tests[PSI].Bins, want)
	}
}

func TestMissingValuesDrift(t *testing.T) {
	v := normal(rand.New(rand.NewPCG(2, 2)), 1000, 0)
	holes := slices.Clone(v)
	for i := range 200 {
		holes[i] = math.NaN()
	}
	rep, err := CompareColumns(numericColumn(v), numericColumn(holes), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := rep.Features[0]
	if !f.Tests[PSI].Drifted || !f.Tests[MissingRate].Drifted || math.Abs(f.Tests[MissingRate].Value-0.2) > 1e-12 || f.MissingCurrent != 0.2 {
		t.Errorf("%+v", f)
	}
}

func TestChunks(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2013, 1, d, 5, 0, 0, 0, time.UTC) }
	times := []time.Time{day(3), day(1), day(1), day(2)}
	by, err := ParseChunk("1d")
	if err != nil {
		t.Fatal(err)
	}
	spans, err := Chunks(times, 4, by)
	if err != nil || len(spans) != 3 || !slices.Equal(spans[0].Rows, []int{1, 2}) || !spans[2].Start.Equal(day(3)) {
		t.Errorf("%v, %v", spans, err)
	}
	if by, err = ParseChunk("3"); err != nil || by.Rows != 3 {
		t.Errorf("%v, %v", by, err)
	}
	if spans, err = Chunks(nil, 4, by); err != nil || len(spans) != 2 || len(spans[1].Rows) != 1 {
		t.Errorf("%v, %v", spans, err)
	}
	for _, s := range []string{"", "0", "-1", "d", "1y", "-3h", "99999999d"} {
		if _, err := ParseChunk(s); err == nil {
			t.Errorf("ParseChunk(%q) was taken", s)
		}
	}
}

func TestUnbuiltProfileIsRefusedByName(t *testing.T) {
	_, err := CompareColumns(numericColumn([]float64{1}), numericColumn([]float64{1}), Options{Profile: ProfileNannyML})
	if err == nil || !strings.Contains(err.Error(), "nannyml") {
		t.Errorf("%v", err)
	}
}

func FuzzFieldBinsJSON(f *testing.F) {
	f.Add([]byte(`{"name":"x","kind":"numeric","edges":[1,2],"coarse":[0]}`), 1.5)
	f.Add([]byte(`{"name":"x","kind":"categorical","categories":["a"],"others":["b"]}`), 0.0)
	f.Fuzz(func(t *testing.T, data []byte, x float64) {
		var b FieldBins
		if json.Unmarshal(data, &b) != nil || b.Kind == KindNone {
			return
		}
		c := b.CountNumbers([]float64{x, -x, 0})
		if _, err := b.Fold(c); err != nil {
			t.Fatal(err)
		}
		d := CompareField(&b, c, c, 3, 3, Options{})
		if _, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]string{"7d": "7d", "2w": "14d", "36h": "36h", "90m": "90m", "1h": "1h", "1m30s": "1m30s", "250ms": "250ms"} {
		d, err := ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		got := FormatDuration(d)
		if back, err := ParseDuration(got); got != want || err != nil || back != d {
			t.Errorf("%s is written %s, want %s (%v)", text, got, want, err)
		}
	}
}
