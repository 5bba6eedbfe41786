package trees

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// block is the width in which histograms take features: rows of bins are padded to
// whole blocks.
const block = 8

// feature is how one column is cut. Bins count from 0; the last one, number values,
// is of what is missing.
type feature struct {
	// cuts has the lower bounds of bins 1, 2, ... of a column of numbers: what is
	// below cuts[0] is in bin 0. All values are above begin and below end.
	cuts       []float32
	begin, end float32
	// codes has the categories that have a bin of their own, in order. With other
	// set, the bin behind them is of all that have none.
	categorical, other bool
	codes              []int32
	// values is the number of bins but that of what is missing, first the place of
	// bin 0 among those of all features.
	values, first int
	keys          [256]uint32 // cuts as sortable integers, padded
}

// binned is data as bins.
type binned struct {
	rows, features int
	// stride is the length of a row in byRow, whose columns are those of byColumn.
	stride   int
	byRow    []uint8
	byColumn []uint8
	cut      []feature
	total    int // bins of all features
}

// sampleRows is how many rows quantiles are taken of.
const sampleRows = 1 << 20

// newBins cuts the columns of d and puts its values into bins.
func newBins(ctx context.Context, d *Data, o *Options) (*binned, error) {
	b := &binned{cut: make([]feature, d.Features)}
	spread(d.Features, o.Threads, 1, func(_, from, to int) {
		var s sorter
		for f := from; f < to && ctx.Err() == nil; f++ {
			if d.categorical(f) {
				b.cut[f] = cutCategories(d, f)
			} else {
				b.cut[f] = s.cutNumbers(d, f, o.Bins)
			}
		}
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for f := range b.cut {
		b.cut[f].first = b.total
		b.total += b.cut[f].values + 1
	}
	return b.of(ctx, d, o, true)
}

// of puts the values of d into the bins of b, by rows, and by columns where asked.
func (b *binned) of(ctx context.Context, d *Data, o *Options, columns bool) (*binned, error) {
	n := d.rows()
	out := &binned{rows: n, features: d.Features, cut: b.cut, total: b.total}
	out.stride = (d.Features + block - 1) / block * block
	need := int64(n) * int64(out.stride)
	if columns {
		need += int64(n) * int64(d.Features)
	}
	if need > o.MaxBytes {
		return nil, fmt.Errorf("bins of %d rows and %d features: %w", n, d.Features, engine.ErrTooLarge)
	}
	out.byRow = make([]uint8, n*out.stride)
	if columns {
		out.byColumn = make([]uint8, n*d.Features)
	}
	spread(n, o.Threads, 256, func(_, from, to int) {
		const some = 1024
		for at := from; at < to && ctx.Err() == nil; at += some {
			for f := range out.cut {
				out.column(d, f, at, min(at+some, to))
			}
		}
	})
	return out, ctx.Err()
}

// column bins rows from..to of column f.
func (b *binned) column(d *Data, f, from, to int) {
	c := &b.cut[f]
	for r := from; r < to; r++ {
		bin := c.bin(d.X[r*d.Features+f])
		b.byRow[r*b.stride+f] = bin
		if b.byColumn != nil {
			b.byColumn[f*b.rows+r] = bin
		}
	}
}

// bin returns the bin of a value.
func (c *feature) bin(v float32) uint8 {
	if v != v || c.categorical && v < 0 {
		return uint8(c.values)
	}
	if c.categorical {
		at, ok := slices.BinarySearch(c.codes, int32(v))
		if !ok && !c.other {
			return uint8(c.values) // a category not seen; only held-out rows have one
		}
		if !ok {
			at = len(c.codes)
		}
		return uint8(at)
	}
	key, at := sortable(v), 0
	for step := 128; step > 0; step >>= 1 {
		// No branch: it would be foretold wrongly every other time.
		at += step & int((int64(c.keys[(at+step-1)&255])-int64(key)-1)>>63)
	}
	return uint8(at)
}

// sortable maps floats to integers of the same order; -0 is 0.
func sortable(v float32) uint32 {
	b := math.Float32bits(v + 0)
	if v == 0 {
		b = 0
	}
	if b>>31 == 1 {
		return ^b
	}
	return b | 1<<31
}

func unsortable(k uint32) float32 {
	if k>>31 == 1 {
		return math.Float32frombits(k &^ (1 << 31))
	}
	return math.Float32frombits(^k)
}

// sorter sorts columns; its buffers are kept between them.
type sorter struct{ keys, other []uint32 }

// cutNumbers cuts a column at quantiles of its values, or where it has no more
// distinct ones than bins between all of them.
func (s *sorter) cutNumbers(d *Data, f, bins int) feature {
	n := d.rows()
	step := (n + sampleRows - 1) / sampleRows
	s.keys = s.keys[:0]
	for r := 0; r < n; r += step {
		if v := d.X[r*d.Features+f]; v == v {
			s.keys = append(s.keys, sortable(v))
		}
	}
	s.sort()
	c := feature{}
	distinct := s.distinct(bins)
	if distinct == nil {
		distinct = s.quantiles(bins)
	}
	for i, k := range distinct {
		if i > 0 {
			c.cuts = append(c.cuts, unsortable(k))
		}
	}
	for i := range c.keys {
		c.keys[i] = math.MaxUint32
		if i < len(c.cuts) {
			c.keys[i] = sortable(c.cuts[i])
		}
	}
	c.values = len(c.cuts) + 1
	if len(s.keys) > 0 {
		// As XGBoost puts them.
		least, top := float64(unsortable(s.keys[0])), float64(unsortable(s.keys[len(s.keys)-1]))
		c.begin = float32(max(least-(math.Abs(least)+1e-5), -math.MaxFloat32))
		c.end = float32(min(top+(math.Abs(top)+1e-5), math.MaxFloat32))
	}
	return c
}

// sort is a radix sort of 11 bits a pass.
func (s *sorter) sort() {
	const bits, size = 11, 1 << 11
	s.other = slices.Grow(s.other[:0], len(s.keys))[:len(s.keys)]
	for shift := 0; shift < 32; shift += bits {
		var at [size + 1]int
		for _, k := range s.keys {
			at[k>>shift&(size-1)+1]++
		}
		for i := range size {
			at[i+1] += at[i]
		}
		for _, k := range s.keys {
			i := k >> shift & (size - 1)
			s.other[at[i]] = k
			at[i]++
		}
		s.keys, s.other = s.other, s.keys
	}
}

// distinct lists the distinct keys, nil where they are more than limit.
func (s *sorter) distinct(limit int) []uint32 {
	out := make([]uint32, 0, limit)
	for i, k := range s.keys {
		if i > 0 && k == s.keys[i-1] {
			continue
		}
		if len(out) == limit {
			return nil
		}
		out = append(out, k)
	}
	return out
}

// quantiles picks the first key and bins-1 more, so that about as many rows are
// between each two. A key that many rows have takes a bin of its own, and the rest is
// shared by what is left.
func (s *sorter) quantiles(bins int) []uint32 {
	n := len(s.keys)
	out := append(make([]uint32, 0, bins), s.keys[0])
	for at := 0; len(out) < bins; {
		at += max((n-at)/(bins-len(out)+1), 1)
		for at < n && s.keys[at] <= out[len(out)-1] {
			at++
		}
		if at >= n {
			break
		}
		out = append(out, s.keys[at])
		// The rest of the rows of this value are in its bin whatever follows.
		for begin := at; at > 0 && begin > 0 && s.keys[begin-1] == s.keys[at]; begin-- {
			at = begin - 1
		}
	}
	return out
}

// cutCategories gives the most frequent categories a bin of their own.
func cutCategories(d *Data, f int) feature {
	counts := map[int32]int{}
	for r := range d.rows() {
		if v := d.X[r*d.Features+f]; v >= 0 {
			counts[int32(v)]++
		}
	}
	c := feature{categorical: true}
	for code := range counts {
		c.codes = append(c.codes, code)
	}
	slices.SortFunc(c.codes, func(a, b int32) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	if len(c.codes) > MaxBins {
		c.codes, c.other = c.codes[:MaxBins-1], true
	}
	slices.Sort(c.codes)
	c.values = len(c.codes)
	if c.other {
		c.values++
	}
	return c
}
