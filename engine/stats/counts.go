package stats

import (
	"fmt"
	"math"
	"strconv"
)

// Add adds other's counts to c.
func (c Counts) Add(other Counts) {
	for b, n := range other {
		c[b] += n
	}
}

// Total returns the weight of all bins but BinNone.
func (c Counts) Total() float64 {
	var t float64
	for _, b := range sortedBins(c) {
		if b != BinNone {
			t += c[b]
		}
	}
	return t
}

// CountNumbers returns how many of xs fall in each bin of a field, numeric or of
// categorical codes.
func (f *FieldBins) CountNumbers(xs []float64) Counts {
	if f.Kind == KindCategorical {
		return f.CountStrings(codeNames(xs))
	}
	n := make([]int, len(f.Edges)+1)
	missing := 0
	for _, x := range xs {
		if math.IsNaN(x) {
			missing++
			continue
		}
		n[searchEdges(f.Edges, x)]++
	}
	c := make(Counts, len(n)+1)
	for i, k := range n {
		if k > 0 {
			c[uint16(i)] = float64(k)
		}
	}
	if missing > 0 {
		c[BinMissing] = float64(missing)
	}
	return c
}

// searchEdges returns the number of edges < x. It halves the range without a
// branch that depends on the data, which random values would mispredict.
func searchEdges(edges []float64, x float64) int {
	base, n := 0, len(edges)
	for n > 1 {
		half := n / 2
		step := 0
		if edges[base+half-1] < x {
			step = half
		}
		base += step
		n -= half
	}
	if n == 1 && edges[base] < x {
		base++
	}
	return base
}

// CountStrings returns how many of xs fall in each bin of a categorical field.
func (f *FieldBins) CountStrings(xs []string) Counts {
	byName := map[string]int{}
	for _, x := range xs {
		byName[x]++
	}
	c := Counts{}
	for x, n := range byName {
		c[f.BinString(x)] += float64(n)
	}
	return c
}

// Slot says what a place of FieldBins.Fold's answer counts.
type Slot struct {
	// Label is for people: an interval, a category, "(missing)".
	Label string `json:"label"`
	// Lower and Upper bound a numeric bin: (Lower, Upper]; nil is unbounded.
	Lower *float64 `json:"lower,omitempty"`
	Upper *float64 `json:"upper,omitempty"`
}

// Slots returns what the places of Fold's answer mean. Numeric: the coarse bins,
// then missing. Categorical: the categories, then other (where the reference has
// categories beyond the cap), missing, unseen. Their number is the B of a PSI.
func (f *FieldBins) Slots() []Slot {
	var s []Slot
	if f.Kind == KindNumeric {
		return append(f.intervals(), Slot{Label: "(missing)"})
	}
	for _, c := range f.Categories {
		s = append(s, Slot{Label: c})
	}
	if len(f.Others) > 0 {
		s = append(s, Slot{Label: "(other)"})
	}
	return append(s, Slot{Label: "(missing)"}, Slot{Label: "(unseen)"})
}

func (f *FieldBins) intervals() []Slot {
	s := make([]Slot, len(f.Coarse)+1)
	for i := range s {
		if f.Keyed() {
			s[i].Label = "sealed " + strconv.Itoa(i+1)
			continue
		}
		lo, hi := "-inf", "inf"
		if i > 0 {
			v := f.Edges[f.Coarse[i-1]]
			s[i].Lower, lo = &v, strconv.FormatFloat(v, 'g', 5, 64)
		}
		end := ")"
		if i < len(f.Coarse) {
			v := f.Edges[f.Coarse[i]]
			s[i].Upper, hi = &v, strconv.FormatFloat(v, 'g', 5, 64)
			end = "]"
		}
		s[i].Label = "(" + lo + ", " + hi + end
	}
	return s
}

// Fold returns the counts of the coarse bins, by place (see Slots). A bin id
// that these bins do not have is an error: the counts belong to another
// reference.
func (f *FieldBins) Fold(c Counts) ([]float64, error) {
	if f.Kind != KindNumeric && f.Kind != KindCategorical {
		return nil, fmt.Errorf("fold counts of %q: the field has no bins", f.Name)
	}
	out := make([]float64, f.slots())
	for _, b := range sortedBins(c) {
		n := c[b]
		i, ok := f.slot(b)
		if !ok {
			return nil, fmt.Errorf("fold counts of %q: bin %d is not in the reference", f.Name, b)
		}
		if i >= 0 {
			out[i] += n
		}
	}
	for i, n := range out {
		if n < 0 || math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, fmt.Errorf("fold counts of %q: place %d counts %v", f.Name, i, n)
		}
	}
	return out, nil
}

func (f *FieldBins) slots() int {
	if f.Kind == KindNumeric {
		return len(f.Coarse) + 2
	}
	n := len(f.Categories) + 2
	if len(f.Others) > 0 {
		n++
	}
	return n
}

// slot returns the place of a bin; -1 is a bin that is not counted.
func (f *FieldBins) slot(b uint16) (int, bool) {
	last := f.slots() - 1
	switch b {
	case BinNone:
		return -1, true
	case BinMissing:
		if f.Kind == KindNumeric {
			return last, true
		}
		return last - 1, true
	case BinUnseen:
		return last, f.Kind == KindCategorical
	case BinOther:
		return last - 2, f.Kind == KindCategorical && len(f.Others) > 0
	}
	if f.Kind == KindCategorical {
		return int(b), int(b) < len(f.Categories)
	}
	if int(b) > len(f.Edges) {
		return 0, false
	}
	i := 0
	for i < len(f.Coarse) && f.Coarse[i] < int(b) {
		i++
	}
	return i, true
}

// fine returns the counts of the fine bins of a numeric field, without missing.
func (f *FieldBins) fine(c Counts) []float64 {
	out := make([]float64, len(f.Edges)+1)
	for b, n := range c {
		if int(b) < len(out) {
			out[b] = n
		}
	}
	return out
}
