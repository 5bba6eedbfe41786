// Package stats is the arithmetic of watching: bins of a reference, drift
// statistics as functions of sorted columns or of bin counts, and performance
// metrics. Everything in it is a pure function of its arguments.
//
// It never reads a clock, a file or a database, and it imports nothing of ours:
// the offline command feeds it from files, the server from counts made by SQL,
// and both get the same numbers.
//
// Invariants: no statistic is NaN or infinite in a Report; a field that cannot
// be judged has a state that says so; the same counts give the same Report.
package stats

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
)

// Reserved bin ids, the same in every set of bins, so that SQL can name them.
const (
	BinMissing uint16 = 65535 // NaN, or the empty string of a category
	BinOther   uint16 = 65534 // a category of the reference beyond the cap
	BinUnseen  uint16 = 65533 // a category the reference does not have
	// BinNone marks a field that has no bin: private, or not a scalar.
	BinNone uint16 = 65532
)

// Limits of a set of bins.
const (
	// CoarseBins is how many quantile bins PSI and its kin use, FineBins how
	// many the tests on distribution functions use.
	CoarseBins = 10
	FineBins   = 100
	// DefaultCategories is the cap of CutCategorical when none is given.
	DefaultCategories = 100
	// MaxOthers bounds how many categories beyond the cap are remembered by
	// name. Those past it count as unseen on both sides.
	MaxOthers = 10_000

	maxOrdinaryBins = int(BinNone)
)

// Kind is how a field is binned.
type Kind string

// The kinds. A field of KindNone is not watched (private, or not a scalar).
const (
	KindNumeric     Kind = "numeric"
	KindCategorical Kind = "categorical"
	KindNone        Kind = "none"
)

// FieldBins are the bins of one field, cut from a reference.
//
// Numeric: Edges are the fine edges, ascending and distinct; value x falls in
// bin i where i is the number of edges < x, so bin 0 is (-inf, Edges[0]] and bin
// len(Edges) is (Edges[last], +inf). Coarse lists the indexes into Edges that
// are the coarse (decile) edges, which PSI and Jensen-Shannon use; the fine ones
// serve Kolmogorov-Smirnov and Wasserstein.
//
// Categorical: Categories are in order of falling count; category i is bin i.
// The bins of a categorical number (a code) are keyed by its shortest decimal.
type FieldBins struct {
	Name       string    `json:"name"`
	Kind       Kind      `json:"kind"`
	Edges      []float64 `json:"edges,omitempty"`
	Coarse     []int     `json:"coarse,omitempty"`
	Categories []string  `json:"categories,omitempty"`
	// Others are the reference's categories beyond the cap; they share BinOther.
	Others []string `json:"others,omitempty"`
	// Min, Max and Std describe the finite values of a numeric reference: the
	// Wasserstein distance is taken over [Min, Max] in units of Std (population).
	Min float64 `json:"min,omitempty"`
	Max float64 `json:"max,omitempty"`
	Std float64 `json:"std,omitempty"`
	// Sealed holds the real bins of a field whose values are sealed, for whoever has
	// the key: the numbers of the bins are then in an order that the key makes, and
	// neither Edges nor Categories say what is in them.
	Sealed string `json:"sealed,omitempty"`

	index map[string]uint16
}

// Keyed reports whether the bins have no order and no meaning without a key.
func (f *FieldBins) Keyed() bool { return f.Sealed != "" }

// Bin returns the bin of a number of a KindNumeric field.
func (f *FieldBins) Bin(x float64) uint16 {
	if math.IsNaN(x) {
		return BinMissing
	}
	return uint16(sort.SearchFloat64s(f.Edges, x))
}

// BinString returns the bin of a category of a KindCategorical field. The empty
// string is a missing value.
func (f *FieldBins) BinString(s string) uint16 {
	if s == "" {
		return BinMissing
	}
	if f.index == nil {
		return f.scan(s)
	}
	if b, ok := f.index[s]; ok {
		return b
	}
	return BinUnseen
}

// BinCode returns the bin of a category that is a number. NaN is missing.
func (f *FieldBins) BinCode(x float64) uint16 {
	return f.BinString(CategoryName(x))
}

// scan serves bins that were written as a literal, which have no index: building
// one here would race with other readers.
func (f *FieldBins) scan(s string) uint16 {
	if i := slices.Index(f.Categories, s); i >= 0 {
		return uint16(i)
	}
	if slices.Contains(f.Others, s) {
		return BinOther
	}
	return BinUnseen
}

// CategoryName returns the name under which a numeric category is binned: its
// shortest decimal, or "" for NaN.
func CategoryName(x float64) string {
	switch {
	case math.IsNaN(x):
		return ""
	case x == 0:
		return "0" // not "-0"
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// CutNumeric cuts the bins of a numeric field from its reference values. NaN is
// missing and takes no part.
//
// An edge lies half way between two neighbouring values of the reference, at
// the place whose share of the reference is nearest to each percent (fine) and
// each tenth (coarse). Values that the reference and a request hold in different
// precision therefore share a bin. A column of few distinct values gets an edge
// between every two of them; a constant column one on either side of its value.
func CutNumeric(name string, values []float64) FieldBins {
	s := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) {
			s = append(s, v)
		}
	}
	slices.Sort(s)
	return cutSorted(name, s, nil)
}

// cutNumeric is CutNumeric where row i stands for weights[i] rows; nil is 1 each.
func cutNumeric(name string, values, weights []float64) FieldBins {
	if weights == nil {
		return CutNumeric(name, values)
	}
	order := make([]int, 0, len(values))
	for i, v := range values {
		if !math.IsNaN(v) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(values[a], values[b]), cmp.Compare(a, b)) })
	s, before := make([]float64, len(order)), make([]float64, len(order)+1)
	for k, i := range order {
		s[k], before[k+1] = values[i], before[k]+weights[i]
	}
	return cutSorted(name, s, before)
}

// cutSorted cuts bins of sorted values; before[i] is the weight of the first i of them, nil
// where each weighs 1.
func cutSorted(name string, s, before []float64) FieldBins {
	f := FieldBins{Name: name, Kind: KindNumeric}
	if len(s) == 0 {
		return f
	}
	f.Min, f.Max, f.Std = spread(s, before)
	bounds := distinctBounds(s, FineBins)
	if len(bounds) == 0 {
		f.Edges = aroundConstant(s[0])
		f.Coarse = indexes(len(f.Edges))
		return f
	}
	fine := bounds
	if len(bounds) >= FineBins {
		fine = quantileBounds(s, before, FineBins)
	}
	coarse := bounds
	if len(bounds) >= CoarseBins {
		coarse = quantileBounds(s, before, CoarseBins)
	}
	f.Edges = make([]float64, len(fine))
	for i, b := range fine {
		f.Edges[i] = between(s[b-1], s[b])
	}
	f.Coarse = make([]int, len(coarse))
	for i, b := range coarse {
		f.Coarse[i], _ = slices.BinarySearch(fine, b)
	}
	return f
}

// distinctBounds returns the positions at which sorted values change, or only
// the first limit of them.
func distinctBounds(s []float64, limit int) []int {
	var bounds []int
	for i := upper(s, s[0]); i < len(s) && len(bounds) < limit; i = upper(s, s[i]) {
		bounds = append(bounds, i)
	}
	return bounds
}

// quantileBounds returns, for k = 1..parts-1, the position of a change of value
// that is nearest to k/parts of the rows, each once.
func quantileBounds(s, before []float64, parts int) []int {
	bounds := make([]int, 0, parts)
	for k := 1; k < parts; k++ {
		var b int
		if before != nil {
			b = nearestWeight(s, before, before[len(s)]*float64(k)/float64(parts))
		} else {
			// In rows times parts, so that nested grids compare the same integers.
			b = nearestBound(s, k*len(s), parts)
		}
		if len(bounds) == 0 || b > bounds[len(bounds)-1] {
			bounds = append(bounds, b)
		}
	}
	return bounds
}

// nearestBound returns the position of a change of value nearest to num/den. The
// caller knows that there is one.
func nearestBound(s []float64, num, den int) int {
	p := min(max((num+den/2)/den, 1), len(s)-1)
	if s[p-1] < s[p] {
		return p
	}
	lo, hi := lower(s, s[p]), upper(s, s[p])
	if lo == 0 {
		return hi
	}
	if hi == len(s) || num-lo*den <= hi*den-num {
		return lo
	}
	return hi
}

// nearestWeight returns the position of a change of value before which lies nearest to a
// weight. The caller knows that there is one.
func nearestWeight(s, before []float64, weight float64) int {
	p := min(max(sort.SearchFloat64s(before, weight), 1), len(s))
	lo, hi := lower(s, s[p-1]), upper(s, s[p-1])
	if hi == len(s) || lo > 0 && weight-before[lo] <= before[hi]-weight {
		return lo
	}
	return hi
}

func lower(s []float64, v float64) int { return sort.SearchFloat64s(s, v) }

func upper(s []float64, v float64) int {
	return sort.Search(len(s), func(i int) bool { return s[i] > v })
}

// between returns a finite number e with a <= e < b.
func between(a, b float64) float64 {
	a = max(a, -math.MaxFloat64)
	if math.IsInf(b, 1) {
		return a + (math.MaxFloat64-a)/2
	}
	if e := a/2 + b/2; e >= a && e < b {
		return e
	}
	return a
}

func aroundConstant(c float64) []float64 {
	if math.IsInf(c, 0) {
		return []float64{math.Copysign(math.MaxFloat64, c)}
	}
	gap := math.Abs(c) * 1e-6
	if gap < 1e-30 {
		gap = 1e-30
	}
	lo, hi := c-gap, c+gap
	if math.IsInf(lo, 0) || math.IsInf(hi, 0) {
		return []float64{c}
	}
	return []float64{lo, hi}
}

// spread returns minimum, maximum and population standard deviation of the
// finite values of sorted s, weighted as in cutSorted.
func spread(s, before []float64) (lo, hi, std float64) {
	for len(s) > 0 && math.IsInf(s[0], -1) {
		s, before = s[1:], before[min(1, len(before)):]
	}
	for len(s) > 0 && math.IsInf(s[len(s)-1], 1) {
		s = s[:len(s)-1]
	}
	if len(s) == 0 {
		return 0, 0, 0
	}
	lo, hi = s[0], s[len(s)-1]
	if std = populationStd(s, before); math.IsInf(std, 0) || math.IsNaN(std) {
		std = hi/2 - lo/2
	}
	return lo, hi, std
}

func populationStd(s, before []float64) float64 {
	if before != nil {
		return weightedStd(s, before)
	}
	m := mean(s)
	var ss float64
	for _, v := range s {
		ss += (v - m) * (v - m)
	}
	return math.Sqrt(ss / float64(len(s)))
}

func weightedStd(s, before []float64) float64 {
	var sum, ss float64
	total := before[len(s)] - before[0]
	for i, v := range s {
		sum += v * (before[i+1] - before[i])
	}
	for i, v := range s {
		ss += (v - sum/total) * (v - sum/total) * (before[i+1] - before[i])
	}
	return math.Sqrt(ss / total)
}

func mean(s []float64) float64 {
	var sum float64
	for _, v := range s {
		sum += v
	}
	return sum / float64(len(s))
}

// CutCategorical cuts the bins of a categorical field from its reference values:
// the most frequent categories up to limit (0 means DefaultCategories), ties by
// name. The empty string is missing and takes no part.
func CutCategorical(name string, values []string, limit int) FieldBins {
	return cutCategorical(name, values, nil, limit)
}

// cutCategorical is CutCategorical where row i stands for weights[i] rows; nil is 1 each.
func cutCategorical(name string, values []string, weights []float64, limit int) FieldBins {
	if limit <= 0 {
		limit = DefaultCategories
	}
	limit = min(limit, maxOrdinaryBins)
	n := map[string]float64{}
	for i, v := range values {
		if v != "" {
			n[v] += weightOf(weights, i)
		}
	}
	names := make([]string, 0, len(n))
	for v := range n {
		names = append(names, v)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(n[b], n[a]), cmp.Compare(a, b))
	})
	f := FieldBins{Name: name, Kind: KindCategorical, Categories: names}
	if len(names) > limit {
		f.Categories = names[:limit:limit]
		f.Others = names[limit:min(len(names), limit+MaxOthers)]
	}
	f.buildIndex()
	return f
}

// CutCodes is CutCategorical for categories that are numbers.
func CutCodes(name string, values []float64, limit int) FieldBins {
	return CutCategorical(name, codeNames(values), limit)
}

func codeNames(values []float64) []string {
	names := map[float64]string{}
	out := make([]string, len(values))
	for i, v := range values {
		if math.IsNaN(v) {
			continue
		}
		s, ok := names[v]
		if !ok {
			s = CategoryName(v)
			names[v] = s
		}
		out[i] = s
	}
	return out
}

func (f *FieldBins) buildIndex() {
	f.index = make(map[string]uint16, len(f.Categories)+len(f.Others))
	for _, c := range f.Others {
		f.index[c] = BinOther
	}
	for i, c := range f.Categories {
		f.index[c] = uint16(i)
	}
}

// UnmarshalJSON reads bins, checks them and readies them for concurrent use.
func (f *FieldBins) UnmarshalJSON(data []byte) error {
	type plain FieldBins
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("read bins: %w", err)
	}
	g := FieldBins(p)
	if err := g.Validate(); err != nil {
		return err
	}
	if g.Kind == KindCategorical {
		g.buildIndex()
	}
	*f = g
	return nil
}

// Validate reports what is wrong with bins that came from outside.
func (f *FieldBins) Validate() error {
	switch f.Kind {
	case KindNone:
		return nil
	case KindCategorical:
		return f.validateCategories()
	case KindNumeric:
		return f.validateEdges()
	}
	return fmt.Errorf("bins of %q: unknown kind %q", f.Name, f.Kind)
}

func (f *FieldBins) validateCategories() error {
	if len(f.Categories) > maxOrdinaryBins {
		return fmt.Errorf("bins of %q: %d categories, at most %d", f.Name, len(f.Categories), maxOrdinaryBins)
	}
	seen := make(map[string]bool, len(f.Categories)+len(f.Others))
	for _, list := range [][]string{f.Categories, f.Others} {
		for _, c := range list {
			if c == "" || seen[c] {
				return fmt.Errorf("bins of %q: category %q is empty or there twice", f.Name, c)
			}
			seen[c] = true
		}
	}
	return nil
}

func (f *FieldBins) validateEdges() error {
	if len(f.Edges) >= maxOrdinaryBins {
		return fmt.Errorf("bins of %q: %d edges, at most %d", f.Name, len(f.Edges), maxOrdinaryBins-1)
	}
	for i, e := range f.Edges {
		if math.IsNaN(e) || math.IsInf(e, 0) || i > 0 && e <= f.Edges[i-1] {
			return fmt.Errorf("bins of %q: edge %d is not finite and above the one before", f.Name, i)
		}
	}
	for i, c := range f.Coarse {
		if c < 0 || c >= len(f.Edges) || i > 0 && c <= f.Coarse[i-1] {
			return fmt.Errorf("bins of %q: coarse edge %d is not an edge above the one before", f.Name, i)
		}
	}
	return nil
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
