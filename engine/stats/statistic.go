package stats

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Epsilon is the least share a bin counts with in a PSI.
const Epsilon = 1e-4

// pair is one field's reference and current counts in the same places.
type pair struct {
	bins               *FieldBins
	ref, cur           []float64 // coarse, by Slots
	fineRef, fineCur   []float64 // numeric only, without missing
	refTotal, curTotal float64
	// noise is 1/n_ref + 1/n_cur, what sampling alone does to shares.
	noise            float64
	refRows, curRows int
}

func newPair(f *FieldBins, ref, cur Counts, refRows, curRows int) (*pair, error) {
	p := &pair{bins: f, refRows: refRows, curRows: curRows, noise: 1/float64(refRows) + 1/float64(curRows)}
	var err error
	if p.ref, err = f.Fold(ref); err != nil {
		return nil, err
	}
	if p.cur, err = f.Fold(cur); err != nil {
		return nil, err
	}
	p.refTotal, p.curTotal = sum(p.ref), sum(p.cur)
	if f.Kind == KindNumeric {
		p.fineRef, p.fineCur = f.fine(ref), f.fine(cur)
	}
	return p, nil
}

// missingSlot is the place of missing values.
func (p *pair) missingSlot() int {
	if p.bins.Kind == KindNumeric {
		return len(p.ref) - 1
	}
	return len(p.ref) - 2
}

func (p *pair) refMissing() float64 { return p.ref[p.missingSlot()] / p.refTotal }
func (p *pair) curMissing() float64 { return p.cur[p.missingSlot()] / p.curTotal }

// run computes one test; ok is false where the field's kind does not have it.
//
// Each threshold is the effect that matters plus what noise alone gives on
// average. With w^2 = sum (p-q)^2/p, whose mean under no drift is
// (B-1)(1/n_ref + 1/n_cur): PSI ~ w^2, Jensen-Shannon ~ w^2/(8 ln 2) bits,
// Hellinger^2 ~ w^2/8. The mean of the Kolmogorov distribution is
// sqrt(pi/2) ln 2 = 0.8687.
func (p *pair) run(t Test, opt Options) (TestResult, bool) {
	limit := opt.threshold(t)
	free := float64(len(p.ref)-1) * p.noise
	r := TestResult{Bins: len(p.ref)}
	switch t {
	case PSI:
		r.Value = PSIOfCounts(p.ref, p.cur)
		r.Threshold = limit + free
	case JensenShannon:
		r.Value = JensenShannonOfCounts(p.ref, p.cur)
		r.Threshold = math.Sqrt(limit*limit + free/(8*math.Ln2))
	case Hellinger:
		r.Value = HellingerOfCounts(p.ref, p.cur)
		r.Threshold = math.Sqrt(limit*limit + free/8)
	case ChiSquare:
		return p.chiSquare(limit), true
	case MissingRate:
		return p.missingRate(limit), true
	case KolmogorovSmirnov:
		return p.kolmogorovSmirnov(limit)
	case Wasserstein:
		return p.wasserstein(limit)
	default:
		return r, false
	}
	return r, true
}

// PSIOfCounts returns the population stability index, sum (r-c) ln(r/c) over
// shares of at least Epsilon.
func PSIOfCounts(ref, cur []float64) float64 {
	n, m := sum(ref), sum(cur)
	if n <= 0 || m <= 0 {
		return 0
	}
	var v float64
	for i := range ref {
		r, c := max(ref[i]/n, Epsilon), max(cur[i]/m, Epsilon)
		v += (r - c) * math.Log(r/c)
	}
	return v
}

// JensenShannonOfCounts returns the Jensen-Shannon distance, base 2: the square
// root of the divergence, 0 to 1.
func JensenShannonOfCounts(ref, cur []float64) float64 {
	n, m := sum(ref), sum(cur)
	if n <= 0 || m <= 0 {
		return 0
	}
	var v float64
	for i := range ref {
		r, c := ref[i]/n, cur[i]/m
		mid := (r + c) / 2
		v += entropyTerm(r, mid) + entropyTerm(c, mid)
	}
	return math.Sqrt(min(max(v/(2*math.Ln2), 0), 1))
}

func entropyTerm(p, mid float64) float64 {
	if p <= 0 {
		return 0
	}
	return p * math.Log(p/mid)
}

// HellingerOfCounts returns the Hellinger distance, 0 to 1.
func HellingerOfCounts(ref, cur []float64) float64 {
	n, m := sum(ref), sum(cur)
	if n <= 0 || m <= 0 {
		return 0
	}
	var v float64
	for i := range ref {
		d := math.Sqrt(ref[i]/n) - math.Sqrt(cur[i]/m)
		v += d * d
	}
	return math.Sqrt(min(v/2, 1))
}

// ChiSquareOfCounts returns the chi-square statistic of the 2 x k table without
// continuity correction, its degrees of freedom (bins that are empty on both
// sides are left out) and the p-value.
func ChiSquareOfCounts(ref, cur []float64) (stat float64, df int, p float64) {
	n, m := sum(ref), sum(cur)
	if n <= 0 || m <= 0 {
		return 0, 0, 1
	}
	for i := range ref {
		t := ref[i] + cur[i]
		if t <= 0 {
			continue
		}
		df++
		er, ec := t*n/(n+m), t*m/(n+m)
		stat += (ref[i]-er)*(ref[i]-er)/er + (cur[i]-ec)*(cur[i]-ec)/ec
	}
	if df--; df <= 0 {
		return 0, 0, 1
	}
	return stat, df, chiSquareTail(stat, df)
}

// chiSquareTail is the survival function of the chi-square distribution.
func chiSquareTail(stat float64, df int) float64 {
	if math.IsInf(stat, 1) {
		return 0
	}
	return mathext.GammaIncRegComp(float64(df)/2, stat/2)
}

// chiSquare reports the size-free effect w = sqrt(chi2 (1/n + 1/m)) (Cohen's w
// of the pooled shares), whose square has mean df (1/n + 1/m) under no drift.
func (p *pair) chiSquare(limit float64) TestResult {
	// Shares on the scale of rows, so that weights do not count as evidence.
	ref, cur := scaled(p.ref, float64(p.refRows)), scaled(p.cur, float64(p.curRows))
	stat, df, pv := ChiSquareOfCounts(ref, cur)
	return TestResult{
		Value:     math.Sqrt(stat * p.noise),
		PValue:    &pv,
		Threshold: math.Sqrt(limit*limit + float64(df)*p.noise),
		Statistic: &stat,
		Bins:      df + 1,
	}
}

func scaled(c []float64, total float64) []float64 {
	s := sum(c)
	if s == total {
		return c
	}
	out := make([]float64, len(c))
	for i, v := range c {
		out[i] = v * total / s
	}
	return out
}

// missingRate reports the change of the share of missing values, either way, with
// the p-value of the pooled two-proportion z test.
func (p *pair) missingRate(limit float64) TestResult {
	r, c := p.refMissing(), p.curMissing()
	n, m := float64(p.refRows), float64(p.curRows)
	pooled := (r*n + c*m) / (n + m)
	se := math.Sqrt(pooled * (1 - pooled) * p.noise)
	pv := 1.0
	if se > 0 {
		pv = math.Erfc(math.Abs(c-r) / se / math.Sqrt2)
	}
	return TestResult{
		Value:     math.Abs(c - r),
		PValue:    &pv,
		Threshold: limit + se*math.Sqrt(2/math.Pi),
		Bins:      2,
	}
}

// kolmogorovMean is the mean of the Kolmogorov distribution.
var kolmogorovMean = math.Sqrt(math.Pi/2) * math.Ln2

// kolmogorovSmirnov reports D at the fine edges, over present values. The D of
// the raw rows lies in [Value, Value+Bound].
func (p *pair) kolmogorovSmirnov(limit float64) (TestResult, bool) {
	n, m, ok := p.presentRows()
	if !ok {
		return TestResult{}, false
	}
	d, upper := ksOfCounts(p.fineRef, p.fineCur)
	bound := upper - d
	pv := KolmogorovTail(int(math.Round(n*m/(n+m))), d)
	return TestResult{
		Value:     d,
		PValue:    &pv,
		Threshold: limit + kolmogorovMean*math.Sqrt(1/n+1/m),
		Bins:      len(p.fineRef),
		Bound:     &bound,
	}, true
}

// presentRows returns how many rows of each side have a value; ok is false for a
// field that is not numeric, whose bins are keyed and so in no order, or that lacks
// values on one side.
func (p *pair) presentRows() (n, m float64, ok bool) {
	if p.bins.Kind != KindNumeric || p.bins.Keyed() {
		return 0, 0, false
	}
	n = sum(p.fineRef) / p.refTotal * float64(p.refRows)
	m = sum(p.fineCur) / p.curTotal * float64(p.curRows)
	return n, m, n > 0 && m > 0
}

// ksOfCounts returns the largest difference of the distribution functions at the
// edges, and the largest there can be between them.
func ksOfCounts(ref, cur []float64) (d, upper float64) {
	n, m := sum(ref), sum(cur)
	var f, g float64
	for i := range ref {
		f1, g1 := f+ref[i]/n, g+cur[i]/m
		upper = max(upper, f1-g, g1-f)
		f, g = f1, g1
		if i < len(ref)-1 {
			d = max(d, math.Abs(f-g))
		}
	}
	return d, min(max(upper, d), 1)
}

// wasserstein reports the distance of the distributions clipped to the
// reference's range, in units of the reference's standard deviation, taking each
// fine bin as evenly filled.
func (p *pair) wasserstein(limit float64) (TestResult, bool) {
	n, m, ok := p.presentRows()
	if !ok {
		return TestResult{}, false
	}
	cut := p.cuts()
	var v, noise, bound, f, g float64
	a, b := sum(p.fineRef), sum(p.fineCur)
	for i := range p.fineRef {
		f1, g1 := f+p.fineRef[i]/a, g+p.fineCur[i]/b
		w := cut[i+1] - cut[i]
		est := w * meanAbsLinear(f-g, f1-g1)
		most := w * max(f1-g, g1-f, 0)
		least := w * max(f-g1, g-f1, 0)
		v += est
		bound += max(most-est, est-least)
		h := (f + f1 + g + g1) / 4
		noise += w * math.Sqrt(max(h*(1-h), 0))
		f, g = f1, g1
	}
	unit := max(p.bins.Std, 0.001)
	v, bound, noise = v/unit, bound/unit, noise/unit
	if math.IsInf(v+bound+noise, 0) || math.IsNaN(v+bound+noise) {
		return TestResult{}, false // a range beyond float64
	}
	return TestResult{
		Value:     v,
		Threshold: limit + noise*math.Sqrt(2/math.Pi*(1/n+1/m)),
		Bins:      len(p.fineRef),
		Bound:     &bound,
	}, true
}

// cuts returns the ends of the fine bins, the outer ones at the reference's
// extremes.
func (p *pair) cuts() []float64 {
	e := p.bins.Edges
	out := make([]float64, len(e)+2)
	copy(out[1:], e)
	out[0], out[len(out)-1] = p.bins.Min, p.bins.Max
	if len(e) > 0 {
		out[0] = min(out[0], e[0])
		out[len(out)-1] = max(out[len(out)-1], e[len(e)-1])
	}
	return out
}

// meanAbsLinear returns the mean of |x| as x goes evenly from a to b.
func meanAbsLinear(a, b float64) float64 {
	if a*b >= 0 {
		return math.Abs(a+b) / 2
	}
	return (a*a + b*b) / (2 * (math.Abs(a) + math.Abs(b)))
}

func sum(s []float64) float64 {
	var t float64
	for _, v := range s {
		t += v
	}
	return t
}
