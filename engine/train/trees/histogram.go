package trees

import "math"

// sum is a sum of gradients and hessians, in units of the tree's scale.
type sum struct{ g, h int64 }

func (a sum) plus(b sum) sum  { return sum{a.g + b.g, a.h + b.h} }
func (a sum) minus(b sum) sum { return sum{a.g - b.g, a.h - b.h} }

// A row's gradient and hessian share one integer, g<<packShift + h, so that a bin of a
// histogram takes one addition. g is at most 2^19 and h below 2^20: as many as
// packRows of them fit before the halves would meet, and are then added to wide sums.
const (
	packShift = 32
	packBits  = 19
	packRows  = 4096
)

// scale maps gradients and hessians to integers by powers of two, which are exact, and
// back by their inverses.
type scale struct{ g, h, inverseG, inverseH float64 }

// scaleOf makes the largest magnitudes fill the bits.
func scaleOf(maxG, maxH float64) scale {
	of := func(v float64) float64 {
		if !(v > 0) {
			return 1
		}
		_, e := math.Frexp(v) // v < 2^e
		return math.Ldexp(1, packBits-e)
	}
	g, h := of(maxG), of(maxH)
	return scale{g, h, 1 / g, 1 / h}
}

func (s scale) pack(g, h float32) int64 {
	return int64(math.RoundToEven(float64(g)*s.g))<<packShift + int64(math.RoundToEven(float64(h)*s.h))
}

// values returns a sum as it was before scaling.
func (s scale) values(v sum) (g, h float64) {
	return float64(v.g) * s.inverseG, float64(v.h) * s.inverseH
}

// local is what one thread adds up in: packed sums of 256 bins a feature.
type local struct {
	packed [][256]int64
	part   []sum   // where several threads build one histogram
	rows   []int64 // packed gradients of a block of rows, in its order
}

func newLocal(b *binned) *local {
	return &local{packed: make([][256]int64, b.stride), rows: make([]int64, packRows)}
}

// build sums the gradients of rows by bin into hist, which is overwritten.
func (t *grower) build(hist []sum, rows []int32) {
	parts := make([]bool, len(t.locals))
	spread(len(rows), len(t.locals), 2*packRows, func(part, from, to int) {
		l, into := t.locals[part], hist
		if part > 0 {
			if l.part == nil {
				l.part = make([]sum, len(hist))
			}
			into = l.part
			parts[part] = true
		}
		clear(into)
		for at := from; at < to; at += packRows {
			l.add(t, into, rows[at:min(at+packRows, to)])
		}
		if counted := into[t.bins.total:]; len(counted) > 0 {
			t.count(counted, rows[from:to])
		}
	})
	for p, used := range parts {
		if !used {
			continue
		}
		for i, v := range t.locals[p].part {
			hist[i] = hist[i].plus(v)
		}
	}
}

// width is the length of a histogram: the sums of all bins, and where a side of a split
// has a least number of rows their numbers behind, as hessians of sums.
func (b *binned) width(o *Options) int {
	if o.MinChildRows > 1 {
		return 2 * b.total
	}
	return b.total
}

// count adds the numbers of rows by bin.
func (t *grower) count(into []sum, rows []int32) {
	b := t.bins
	for _, f := range t.features {
		column, first := b.byColumn[f*b.rows:(f+1)*b.rows], b.cut[f].first
		for _, r := range rows {
			into[first+int(column[r])].h++
		}
	}
}

// add adds at most packRows rows to hist.
func (l *local) add(t *grower, hist []sum, rows []int32) {
	b := t.bins
	packed := l.rows[:len(rows)]
	for i, r := range rows {
		packed[i] = t.packed[r]
	}
	whole := int(rows[len(rows)-1]-rows[0]) == len(rows)-1 // rows are in order
	for at := 0; at < b.features; at += block {
		if !t.used(at) {
			continue
		}
		into := (*[block][256]int64)(l.packed[at : at+block])
		if whole {
			addRun(into, b.byRow[int(rows[0])*b.stride+at:], b.stride, packed)
		} else {
			addRows(into, b.byRow[at:], b.stride, rows, packed)
		}
		for f := at; f < min(at+block, b.features); f++ {
			c := &b.cut[f]
			widen(hist[c.first:c.first+c.values+1], into[f-at][:])
		}
		for f := max(b.features-at, 0); f < block; f++ {
			into[f][0] = 0 // padding counts too
		}
	}
}

// widen adds packed sums to wide ones, and clears them.
func widen(hist []sum, packed []int64) {
	packed = packed[:len(hist)]
	for i, v := range packed {
		h := int64(uint32(v))
		hist[i].g += (v - h) >> packShift
		hist[i].h += h
		packed[i] = 0
	}
}

// addRows is the innermost loop of a fit: a block of features of rows that are given.
func addRows(into *[block][256]int64, bins []uint8, stride int, rows []int32, packed []int64) {
	packed = packed[:len(rows)]
	for i, r := range rows {
		v := packed[i]
		at := int(r) * stride
		b := (*[block]uint8)(bins[at : at+block])
		into[0][b[0]] += v
		into[1][b[1]] += v
		into[2][b[2]] += v
		into[3][b[3]] += v
		into[4][b[4]] += v
		into[5][b[5]] += v
		into[6][b[6]] += v
		into[7][b[7]] += v
	}
}

// addRun is addRows of rows that follow each other.
func addRun(into *[block][256]int64, bins []uint8, stride int, packed []int64) {
	for i, v := range packed {
		at := i * stride
		b := (*[block]uint8)(bins[at : at+block])
		into[0][b[0]] += v
		into[1][b[1]] += v
		into[2][b[2]] += v
		into[3][b[3]] += v
		into[4][b[4]] += v
		into[5][b[5]] += v
		into[6][b[6]] += v
		into[7][b[7]] += v
	}
}
