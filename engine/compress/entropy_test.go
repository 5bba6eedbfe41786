package compress

import (
	"encoding/json"
	"math"
	"testing"
)

// even draws what testdata/make_entropy.py does: values whose shares are evenly spread.
func even(name string) []float32 {
	const count = 300_000
	out := make([]float32, count)
	for i := range out {
		p := (float64(i) + 0.5) / count
		laplace := -math.Log(2 - 2*p)
		if p < 0.5 {
			laplace = math.Log(2 * p)
		}
		out[i] = float32(map[string]float64{
			"normal": math.Sqrt2 * math.Erfinv(2*p-1), "laplace": laplace, "logistic": math.Log(p / (1 - p)), "exponential": -math.Log(1 - p),
			"rectified": max(laplace, 0), "uniform": 2*p - 1, "apart": -1.5 - 1.3*p,
		}[name])
	}
	return out
}

// TestEntropyOracle holds the divergence of a range against SciPy's, bin by bin, and the
// range that is chosen against onnxruntime's in the same values with bins and levels of
// the same width (testdata/make_entropy.py). The least of a flat curve lies elsewhere with
// every detail, so a choice may differ by a fifth, but not in what it tells.
func TestEntropyOracle(t *testing.T) {
	var want []struct {
		Name                   string
		Low, High, Least, Most float64
		Divergence             map[int]float64
	}
	if err := json.Unmarshal(file(t, "testdata/entropy.json"), &want); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		v := even(w.Name)
		s := &span{}
		s.widen(v)
		s.bins, s.sizes = make([]float64, histogram), make([]float64, histogram)
		s.count(v)
		levels, size := 255, max(w.Most, -w.Least)
		if w.Least < 0 && w.Most > 0 {
			levels = 128
		}
		at := func(bins int) float64 {
			beyond := 0.0
			for _, n := range s.sizes[bins:] {
				beyond += n
			}
			return divergence(s.sizes[:bins], beyond, levels)
		}
		for bins, d := range w.Divergence {
			if got := at(bins); math.Abs(got-d) > 1e-5+1e-4*d {
				t.Errorf("%s: %d bins diverge by %g, SciPy says %g", w.Name, bins, got, d)
			}
		}
		ours, theirs := s.threshold(), max(w.High, -w.Low)
		if w.Name == "rectified" {
			continue // half of it are zeros, which onnxruntime counts
		}
		if math.Abs(ours-theirs) > 0.2*theirs {
			t.Errorf("%s: a threshold of %g, onnxruntime finds %g", w.Name, ours, theirs)
		}
		bins := int(theirs/size*histogram + 0.5)
		if a, b := at(int(ours/size*histogram+0.5)), at(min(bins, histogram)); a > b+1e-9 {
			t.Errorf("%s: diverges by %g, at onnxruntime's threshold by %g", w.Name, a, b)
		}
	}
}

// TestEntropyOfFew holds that a range is not cut to the edge of what was seen: few values,
// all far from 0, whose edge alone would have a form that tells everything of it.
func TestEntropyOfFew(t *testing.T) {
	v := make([]float32, 256)
	for i := range v {
		v[i] = -1.5 - 1.36*float32(i)/float32(len(v)-1)
	}
	s := &span{}
	s.widen(v)
	s.bins, s.sizes = make([]float64, histogram), make([]float64, histogram)
	s.count(v)
	if got := s.threshold(); got < 2.8 {
		t.Errorf("values from -2.86 to -1.5 are cut at %g", got)
	}
}
