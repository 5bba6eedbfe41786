package trees

import (
	"cmp"
	"math"
	"slices"
)

// leastGain is what a split has to gain at least, as in XGBoost.
const leastGain = 1e-6

// split is a way to part a node's rows. Rows whose bin is below bin go left, of
// categories those whose bin is not in set; missing ones where missingLeft says.
type split struct {
	gain        float32
	feature     int
	bin         int
	set         []uint8 // bins that go right, of categories
	missingLeft bool
	left, right sum
	rows        int // that go left, where they are counted
}

// bounds keep the values of the leaves below a node within what monotone constraints
// leave.
type bounds struct{ low, high float64 }

// rootBounds are what a loss leaves to all leaves.
func (o *Options) rootBounds() bounds {
	if o.Loss == Poisson {
		return bounds{-poissonStep, poissonStep}
	}
	return bounds{math.Inf(-1), math.Inf(1)}
}

// weight is the value of a leaf, but for the rate.
func (t *grower) weight(g, h float64, b bounds) float64 {
	if h <= 0 || h < t.opt.MinChildWeight {
		return 0
	}
	return min(max(-g/(h+t.opt.Lambda), b.low), b.high)
}

// gain is how far a leaf lowers the loss, doubled.
func (t *grower) gain(g, h float64, b bounds) float64 {
	if h <= 0 {
		return 0
	}
	if !t.bounded {
		return g * g / (h + t.opt.Lambda)
	}
	w := t.weight(g, h, b)
	return -(2*g + (h+t.opt.Lambda)*w) * w
}

// scan is the search of one node.
type scan struct {
	*grower
	hist   []sum
	rows   int // of the node
	total  sum
	bounds bounds
	parent float64
}

// find returns the best split of a node, whose gain is 0 where there is none.
func (t *grower) find(hist []sum, n *node) split {
	s := scan{grower: t, hist: hist, rows: n.to - n.from, total: n.sum, bounds: n.bounds}
	g, h := t.scale.values(n.sum)
	s.parent = t.gain(g, h, n.bounds)
	features := t.level(n.depth)
	found := make([]split, len(features))
	spread(len(features), len(t.locals), 8, func(_, from, to int) {
		for i := from; i < to; i++ {
			found[i] = s.feature(features[i])
		}
	})
	best := split{}
	for _, c := range found {
		if c.gain > best.gain {
			best = c
		}
	}
	if best.gain <= leastGain || float64(best.gain) < t.opt.Gamma {
		return split{}
	}
	return best
}

// few reports whether a side has fewer rows than it must have, left of them on the left.
func (s *scan) few(left int) bool {
	return s.opt.MinChildRows > 1 && min(left, s.rows-left) < s.opt.MinChildRows
}

// counts are the numbers of rows of a feature's bins, nil where they do not matter.
func (s *scan) counts(c *feature) []sum {
	if s.opt.MinChildRows <= 1 {
		return nil
	}
	return s.hist[s.bins.total+c.first:][:c.values+1]
}

func countOf(counts []sum, bin int) int {
	if counts == nil {
		return 0
	}
	return int(counts[bin].h)
}

func (s *scan) feature(f int) split {
	c := &s.bins.cut[f]
	hist := s.hist[c.first : c.first+c.values+1]
	if c.categorical {
		return s.categories(f, c, hist)
	}
	missing, counts := hist[c.values], s.counts(c)
	gone := countOf(counts, c.values)
	best := s.numbers(f, hist[:c.values], counts, split{})
	if missing == (sum{}) {
		return best
	}
	// Missing right has one place more: behind all that have a value. Missing left
	// has the same one before them, with the sides exchanged.
	first := 0
	for first < c.values-1 && hist[first] == (sum{}) {
		first++
	}
	s.try(&best, split{feature: f, bin: c.values, left: s.total.minus(missing), rows: s.rows - gone})
	if o := s.numbers(f, hist[:c.values], counts, split{left: missing, missingLeft: true, rows: gone}); o.gain > best.gain {
		best = o
	}
	s.try(&best, split{feature: f, bin: first, left: missing, missingLeft: true, rows: gone})
	return best
}

// numbers tries the places between the bins of hist, where begin is what goes left of
// the first. Of places of equal gain it takes the first, or with missing values on the
// left the last, as XGBoost does, which comes from the other side.
func (s *scan) numbers(f int, hist, counts []sum, begin split) split {
	left, rows, missingLeft := begin.left, begin.rows, begin.missingLeft
	best := split{feature: f, missingLeft: missingLeft}
	least := max(s.opt.MinChildWeight, math.SmallestNonzeroFloat64)
	for b, v := range hist[:len(hist)-1] {
		rows += countOf(counts, b)
		if v == (sum{}) {
			if missingLeft && best.gain > 0 && best.bin == b {
				best.bin = b + 1
			}
			continue
		}
		left = left.plus(v)
		gl, hl := s.scale.values(left)
		gr, hr := s.scale.values(s.total.minus(left))
		if hr < least {
			break
		}
		if hl < least || s.few(rows) {
			continue
		}
		if gain := s.pair(f, gl, hl, gr, hr); gain > best.gain || missingLeft && gain == best.gain {
			best.gain, best.bin, best.left = gain, b+1, left
		}
	}
	best.right = s.total.minus(best.left)
	return best
}

// pair is the gain of a split into two sums.
func (s *scan) pair(f int, gl, hl, gr, hr float64) float32 {
	if !s.bounded {
		l, r := hl+s.opt.Lambda, hr+s.opt.Lambda
		return float32((gl*gl*r+gr*gr*l)/(l*r) - s.parent)
	}
	if m := s.opt.Monotone; m != nil && m[f] != 0 {
		if d := s.weight(gr, hr, s.bounds) - s.weight(gl, hl, s.bounds); d*float64(m[f]) < 0 {
			return 0
		}
	}
	return float32(s.gain(gl, hl, s.bounds) + s.gain(gr, hr, s.bounds) - s.parent)
}

// try keeps c where it is better than best. The left sum is given.
func (s *scan) try(best *split, c split) {
	c.right = s.total.minus(c.left)
	gl, hl := s.scale.values(c.left)
	gr, hr := s.scale.values(c.right)
	if hl <= 0 || hr <= 0 || hl < s.opt.MinChildWeight || hr < s.opt.MinChildWeight || s.few(c.rows) {
		return
	}
	if c.gain = s.pair(c.feature, gl, hl, gr, hr); c.gain > best.gain {
		*best = c
	}
}

// maxSet bounds the categories of a split, as XGBoost does: sets that are larger
// fit the noise of rare ones.
const maxSet = 64

// categories tries sets of categories, in the order of the leaf that each alone would
// be. What is in no set goes left: categories without a bin of their own and those
// never seen.
func (s *scan) categories(f int, c *feature, hist []sum) split {
	best := split{}
	order := make([]uint8, 0, len(c.codes))
	for b := range c.codes {
		if hist[b].h > 0 {
			order = append(order, uint8(b))
		}
	}
	missing, counts := hist[c.values], s.counts(c)
	try := func(right sum, set []uint8) {
		n, rows := len(set), s.rows
		for _, b := range set {
			rows -= countOf(counts, int(b))
		}
		s.try(&best, split{feature: f, left: s.total.minus(right), missingLeft: true, set: set[:n:n], rows: rows})
		if missing != (sum{}) {
			s.try(&best, split{feature: f, left: s.total.minus(right).minus(missing), set: set[:n:n], rows: rows - countOf(counts, c.values)})
		}
	}
	if s.opt.OneVsRest {
		for i, b := range order {
			try(hist[b], order[i:i+1])
		}
		return best
	}
	slices.SortStableFunc(order, func(a, b uint8) int {
		return cmp.Compare(s.slope(hist[a]), s.slope(hist[b]))
	})
	right := sum{}
	for i := range min(len(order), maxSet) {
		right = right.plus(hist[order[i]])
		try(right, order[:i+1])
	}
	right = sum{}
	for i := len(order) - 1; i >= max(len(order)-maxSet, 0); i-- {
		right = right.plus(hist[order[i]])
		try(right, order[i:])
	}
	return best
}

func (s *scan) slope(v sum) float64 {
	g, h := s.scale.values(v)
	return -g / (h + s.opt.Lambda)
}
