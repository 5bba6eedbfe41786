package stats

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"testing"
)

// The expected values come from scipy, scikit-learn and Evidently through
// testdata/make_stats.py.
type oracle struct {
	Numeric []struct {
		Name            string
		Ref, Cur        []*float64
		Integer         bool
		KS, Wasserstein float64
		KSP             float64 `json:"ks_p"`
		KSAsymp         float64 `json:"ks_asymp"`
		EV              map[Test]float64
	}
	Categorical []struct {
		Name      string
		Ref, Cur  []string
		Table     [2][]float64
		Chi2      float64
		Chi2P     float64 `json:"chi2_p"`
		DF        int
		JS2       float64
		Hellinger float64
		EV        map[Test]float64
	}
	Kstwo []struct {
		N     int
		D, SF float64
	}
	Binary []struct {
		Name    string
		Labels  []int
		Scores  []float64
		Weights []float64
		Metrics map[Metric]float64
	}
	Regression []struct {
		Truth, Values, Weights []float64
		Metrics                map[Metric]float64
	}
	Multiclass struct {
		Labels, Decided []string
		Accuracy        float64
		MacroF1         float64 `json:"macro_f1"`
	}
}

func loadOracle(t *testing.T) *oracle {
	t.Helper()
	f, err := os.Open("testdata/stats.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var o oracle
	if err := json.NewDecoder(z).Decode(&o); err != nil {
		t.Fatal(err)
	}
	if len(o.Numeric) < 8 || len(o.Categorical) < 4 || len(o.Kstwo) < 50 || len(o.Binary) < 4 {
		t.Fatal("the oracle lost cases")
	}
	return &o
}

// near holds |got-want| <= tol max(1,|want|); strictly relative when tol is
// negative.
func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	limit := tol * max(1, math.Abs(want))
	if tol < 0 {
		limit = -tol*math.Abs(want) + 1e-300
	}
	if !(math.Abs(got-want) <= limit) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func values(in []*float64) []float64 {
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = math.NaN()
		if v != nil {
			out[i] = *v
		}
	}
	return out
}

func TestNumericAgainstScipyAndEvidently(t *testing.T) {
	for _, c := range loadOracle(t).Numeric {
		ref, cur := values(c.Ref), values(c.Cur)
		d, p := KSOfSorted(sortedPresent(ref), sortedPresent(cur))
		near(t, c.Name+" ks", d, c.KS, 1e-14)
		near(t, c.Name+" ks p", p, c.KSP, -1e-8)
		near(t, c.Name+" wasserstein", WassersteinOfSorted(sortedPresent(ref), sortedPresent(cur)), c.Wasserstein, 1e-12)
		rep, err := CompareColumns([]Column{{Name: "x", Kind: KindNumeric, Numbers: ref, Integer: c.Integer}},
			[]Column{{Name: "x", Kind: KindNumeric, Numbers: cur, Integer: c.Integer}}, Options{Profile: ProfileEvidently})
		if err != nil {
			t.Fatal(err)
		}
		got := rep.Features[0].Tests
		if len(got) != len(c.EV) {
			t.Errorf("%s: tests %v, want %v", c.Name, got, c.EV)
		}
		for test, want := range c.EV {
			near(t, c.Name+" evidently "+string(test), got[test].Value, want, 1e-10)
		}
		binnedHoldsItsBound(t, c.Name, ref, cur, d)
	}
}

// binnedHoldsItsBound: the statistics of bin counts lie within their stated
// bounds of the exact ones.
func binnedHoldsItsBound(t *testing.T, name string, ref, cur []float64, exact float64) {
	t.Helper()
	rep, err := CompareColumns([]Column{{Name: "x", Kind: KindNumeric, Numbers: ref}}, []Column{{Name: "x", Kind: KindNumeric, Numbers: cur}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ks := rep.Features[0].Tests[KolmogorovSmirnov]
	if exact < ks.Value-1e-12 || exact > ks.Value+*ks.Bound+1e-12 {
		t.Errorf("%s: exact D %v is not in [%v, +%v]", name, exact, ks.Value, *ks.Bound)
	}
	f := CutNumeric("x", ref)
	clip := func(s []float64) []float64 {
		out := sortedPresent(s)
		for i, v := range out {
			out[i] = min(max(v, f.Min), f.Max)
		}
		return out
	}
	w := rep.Features[0].Tests[Wasserstein]
	want := WassersteinOfSorted(clip(ref), clip(cur)) / max(f.Std, 0.001)
	if math.Abs(w.Value-want) > *w.Bound+1e-9 {
		t.Errorf("%s: wasserstein %v +- %v, exact %v", name, w.Value, *w.Bound, want)
	}
}

func TestCategoricalAgainstScipyAndEvidently(t *testing.T) {
	for _, c := range loadOracle(t).Categorical {
		stat, df, p := ChiSquareOfCounts(c.Table[0], c.Table[1])
		near(t, c.Name+" chi2", stat, c.Chi2, 1e-12)
		near(t, c.Name+" chi2 p", p, c.Chi2P, -1e-9)
		if df != c.DF {
			t.Errorf("%s: df %d, want %d", c.Name, df, c.DF)
		}
		near(t, c.Name+" js", JensenShannonOfCounts(c.Table[0], c.Table[1]), c.JS2, 1e-10)
		near(t, c.Name+" hellinger", HellingerOfCounts(c.Table[0], c.Table[1]), c.Hellinger, 1e-12)
		rep, err := CompareColumns([]Column{{Name: "x", Kind: KindCategorical, Strings: c.Ref}},
			[]Column{{Name: "x", Kind: KindCategorical, Strings: c.Cur}}, Options{Profile: ProfileEvidently})
		if err != nil {
			t.Fatal(err)
		}
		for test, want := range c.EV {
			near(t, c.Name+" evidently "+string(test), rep.Features[0].Tests[test].Value, want, 1e-8)
		}
	}
}

func TestKolmogorovTailAgainstScipy(t *testing.T) {
	for _, c := range loadOracle(t).Kstwo {
		got := KolmogorovTail(c.N, c.D)
		if math.Abs(got-c.SF) > 1e-12 && math.Abs(got-c.SF) > 1e-7*c.SF {
			t.Errorf("KolmogorovTail(%d, %v) = %v, want %v", c.N, c.D, got, c.SF)
		}
	}
}

func TestPerformanceAgainstScikitLearn(t *testing.T) {
	o := loadOracle(t)
	for _, c := range o.Binary {
		labels := make([]bool, len(c.Labels))
		for i, l := range c.Labels {
			labels[i] = l == 1
		}
		got, err := BinaryPerformance(c.Scores, nil, labels, c.Weights)
		if err != nil {
			t.Fatal(err)
		}
		for m, want := range c.Metrics {
			near(t, c.Name+" "+string(m), got.Metrics[m], want, 1e-12)
		}
	}
	for _, c := range o.Regression {
		got, err := RegressionPerformance(c.Values, c.Truth, c.Weights)
		if err != nil {
			t.Fatal(err)
		}
		for m, want := range c.Metrics {
			near(t, string(m), got.Metrics[m], want, 1e-12)
		}
	}
	got, err := MulticlassPerformance(o.Multiclass.Decided, o.Multiclass.Labels, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "accuracy", got.Metrics[MetricAccuracy], o.Multiclass.Accuracy, 1e-12)
	near(t, "macro F1", got.Metrics[MetricMacroF1], o.Multiclass.MacroF1, 1e-12)
}
