package stats

import (
	"cmp"
	"math"
	"slices"
)

// The definitions of Evidently 0.7 (legacy/calculations/stattests): missing and
// infinite values are left out on each side.

var evidentlyThresholds = map[Test]float64{
	PSI: 0.1, JensenShannon: 0.1, Hellinger: 0.1, Wasserstein: 0.1, KolmogorovSmirnov: 0.05, ChiSquare: 0.05,
}

func (p *prepared) evidently(cur []*Column, rows int) (Report, error) {
	r := Report{Profile: ProfileEvidently, Rows: RowCounts{Current: rows}}
	r.Features = make([]FieldDrift, len(p.raw))
	forEach(len(p.raw), p.opt.Threads, func(i int) {
		if p.raw[i].Kind != KindNone {
			r.Features[i] = p.evidentlyField(i, cur[i])
		}
	})
	for i := range p.raw {
		if p.raw[i].Kind != KindNone {
			r.Rows.Reference = p.raw[i].Len()
		}
	}
	r.Features = slices.DeleteFunc(r.Features, func(d FieldDrift) bool { return d.Kind == "" })
	r.Dataset, r.State = summarise(r.Features, p.opt.Share)
	return r, nil
}

func (p *prepared) evidentlyField(i int, cur *Column) FieldDrift {
	ref := &p.raw[i]
	d := FieldDrift{Name: ref.Name, Kind: ref.Kind, Tests: map[Test]TestResult{}, State: StateNoData}
	e := evidentlyPair{numeric: ref.Kind == KindNumeric, integer: ref.Integer && cur.Integer}
	if e.numeric {
		if cur.Strings != nil {
			d.State, d.Reason = StateError, "text where the reference has numbers"
			return d
		}
		e.ref, e.cur = p.sorted[i], sortedPresent(cur.Numbers)
		e.refN, e.curN = len(e.ref), len(e.cur)
	} else {
		e.count(ref, cur)
	}
	d.MissingReference = 1 - float64(e.refN)/float64(max(ref.Len(), 1))
	d.MissingCurrent = 1 - float64(e.curN)/float64(max(cur.Len(), 1))
	if e.refN == 0 || e.curN == 0 {
		d.Reason = "a side has no values"
		return d
	}
	for _, t := range p.opt.Tests {
		r, ok := e.run(t, p.opt)
		if !ok || math.IsNaN(r.Value) || math.IsInf(r.Value, 0) {
			continue
		}
		d.Decides = cmp.Or(d.Decides, t)
		d.Tests[t] = r
	}
	switch {
	case d.Decides == "":
		d.Reason = "no test asked for applies to this field"
	case d.Tests[d.Decides].Drifted:
		d.State = StateDrifted
	default:
		d.State = StateOK
	}
	return d
}

// evidentlyPair is one column: sorted numbers, or counts by category.
type evidentlyPair struct {
	numeric, integer bool
	ref, cur         []float64
	refCats, curCats []float64 // counts, by the same categories
	refN, curN       int
}

func (e *evidentlyPair) count(ref, cur *Column) {
	names := map[string]int{}
	add := func(c *Column, counts *[]float64, n *int) {
		values := c.Strings
		if values == nil {
			values = codeNames(c.Numbers)
		}
		for _, v := range values {
			if v == "" {
				continue
			}
			i, ok := names[v]
			if !ok {
				i = len(names)
				names[v] = i
			}
			for len(*counts) <= i {
				*counts = append(*counts, 0)
			}
			(*counts)[i]++
			*n++
		}
	}
	add(ref, &e.refCats, &e.refN)
	add(cur, &e.curCats, &e.curN)
	for len(e.refCats) < len(names) {
		e.refCats = append(e.refCats, 0)
	}
	for len(e.curCats) < len(names) {
		e.curCats = append(e.curCats, 0)
	}
}

func (e *evidentlyPair) run(t Test, opt Options) (TestResult, bool) {
	limit, ok := opt.Thresholds[t]
	if !ok {
		limit = evidentlyThresholds[t]
	}
	r := TestResult{Threshold: limit}
	switch {
	case t == PSI:
		ref, cur := e.binned()
		r.Value, r.Bins = evidentlyPSI(ref, cur), len(ref)
	case t == JensenShannon:
		ref, cur := e.binned()
		// Natural logarithm: sqrt(ln 2) times the distance of base 2.
		r.Value, r.Bins = JensenShannonOfCounts(ref, cur)*math.Sqrt(math.Ln2), len(ref)
	case t == Hellinger:
		ref, cur := e.refCats, e.curCats
		if e.numeric {
			edges := sturges(distinct(e.ref, e.cur), e.integer)
			ref, cur = histogram(e.ref, edges), histogram(e.cur, edges)
		}
		r.Value, r.Bins = HellingerOfCounts(ref, cur), len(ref)
	case t == Wasserstein && e.numeric:
		r.Value = WassersteinOfSorted(e.ref, e.cur) / max(populationStd(e.ref, nil), 0.001)
	case t == KolmogorovSmirnov && e.numeric:
		d, p := KSOfSorted(e.ref, e.cur)
		return TestResult{Value: p, PValue: &p, Threshold: limit, Drifted: p <= limit, Statistic: &d}, true
	case t == ChiSquare && !e.numeric:
		return e.chiSquare(limit)
	default:
		return r, false
	}
	r.Drifted = r.Value >= limit
	return r, true
}

// binned returns counts in Sturges bins over both sides, or by value where the
// reference has few of them.
func (e *evidentlyPair) binned() (ref, cur []float64) {
	if !e.numeric {
		return e.refCats, e.curCats
	}
	if len(distinct(e.ref, nil)) > 20 {
		edges := sturges(merge(e.ref, e.cur), e.integer)
		return histogram(e.ref, edges), histogram(e.cur, edges)
	}
	values := distinct(e.ref, e.cur)
	ref, cur = make([]float64, len(values)), make([]float64, len(values))
	for i, v := range values {
		ref[i] = float64(upper(e.ref, v) - lower(e.ref, v))
		cur[i] = float64(upper(e.cur, v) - lower(e.cur, v))
	}
	return ref, cur
}

func merge(a, b []float64) []float64 {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return out
}

func distinct(a, b []float64) []float64 { return slices.Compact(merge(a, b)) }

// evidentlyPSI fills empty bins of each side with 1e-4, or a millionth of the
// smallest share where that is not above 1e-4.
func evidentlyPSI(ref, cur []float64) float64 {
	r, c := filledShares(ref), filledShares(cur)
	var v float64
	for i := range r {
		v += (r[i] - c[i]) * math.Log(r[i]/c[i])
	}
	return v
}

func filledShares(counts []float64) []float64 {
	n := sum(counts)
	least := math.Inf(1)
	out := make([]float64, len(counts))
	for i, c := range counts {
		out[i] = c / n
		if c > 0 {
			least = min(least, out[i])
		}
	}
	fill := Epsilon
	if least <= Epsilon {
		fill = least / 1e6
	}
	for i, v := range out {
		if v == 0 {
			out[i] = fill
		}
	}
	return out
}

// sturges returns numpy's edges for bins="sturges" of sorted values. For integer
// types numpy makes bins at least 1 wide.
func sturges(s []float64, integer bool) []float64 {
	lo, hi := s[0], s[len(s)-1]
	width := (hi - lo) / (math.Log2(float64(len(s))) + 1)
	if integer && width < 1 && width > 0 {
		width = 1
	}
	if lo == hi {
		lo, hi = lo-0.5, hi+0.5
	}
	n := 1
	if width > 0 {
		n = max(int(math.Ceil((hi-lo)/width)), 1)
	}
	edges := make([]float64, n+1)
	step := (hi - lo) / float64(n)
	for i := range edges {
		edges[i] = float64(i)*step + lo
	}
	edges[n] = hi
	return edges
}

// histogram counts sorted values in [e0,e1), [e1,e2), ..., the last closed.
func histogram(s, edges []float64) []float64 {
	out := make([]float64, len(edges)-1)
	from := lower(s, edges[0])
	for i := range out {
		to := lower(s, edges[i+1])
		if i == len(out)-1 {
			to = upper(s, edges[i+1])
		}
		out[i] = float64(to - from)
		from = to
	}
	return out
}

// chiSquare is the one-way test of the current counts against the reference's
// shares. A category that the reference lacks gives p 0; a single one no value.
func (e *evidentlyPair) chiSquare(limit float64) (TestResult, bool) {
	df := len(e.refCats) - 1
	if df < 1 {
		return TestResult{}, false
	}
	scale := float64(e.curN) / float64(e.refN)
	var stat float64
	for i, r := range e.refCats {
		if r == 0 {
			stat = math.Inf(1)
			break
		}
		d := e.curCats[i] - r*scale
		stat += d * d / (r * scale)
	}
	p := chiSquareTail(stat, df)
	res := TestResult{Value: p, PValue: &p, Threshold: limit, Drifted: p < limit, Bins: df + 1}
	if !math.IsInf(stat, 1) {
		res.Statistic = &stat
	}
	return res, true
}
