package tree

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sync"
)

const (
	// maxColumns bounds what a block's bins take (2 MiB) and, with it, the
	// thresholds' tables (4 or 8 MiB an ensemble).
	maxColumns = 4096
	// maxOdd is how many conditions of a tree may be other than x < t on the wide
	// path, where each is decided for every row, by Tree.Left.
	maxOdd = 6
)

// wide is a compiled ensemble for many rows at once: each value is replaced by
// the number of its column's thresholds that it is not below, one byte; each
// condition of each tree is then decided for 64 rows by one comparison of bytes,
// all of a tree's conditions, needed or not; and the rows are led to the leaves
// by bit operations, 512 at a time (see kernels.go). Comparisons are exact, so
// the leaves are those of a walk.
type wide[T float, K key] struct {
	segments []segment[K]
	columns  int
	trees    []wideTree[T]
	// walks says that some tree is walked.
	walks bool
	// least is the number of rows from which on the wide path is the faster.
	least   int
	scratch sync.Pool
}

// wideTree is a tree on the wide path; one of no tests is walked instead.
type wideTree[T float] struct {
	tests []test
	odd   []oddTest
	// width is the number of values a leaf, bits that of a leaf's number.
	width, leaves, bits int
	values              []T
}

// oddTest is a test that bins do not decide.
type oddTest struct{ at, node int32 }

// segment has up to 255 thresholds of a feature, in order, and fills the columns
// of bins that its tests read. The unused keys are the largest.
type segment[K key] struct {
	feature int32
	// high is the offset of the column where NaN is above all thresholds, low
	// of that where it is below; -1 where no test reads it.
	high, low int32
	// half is half of the power of two above the number of thresholds.
	half uint8
	keys [256]K
}

// wideScratch is what one block needs. A big object begins at a page, so what comes
// first here is in whole cache lines: the kernels' accesses do not straddle two.
type wideScratch struct {
	space exitSpace
	// exit has the leaves' numbers, high what is above their lowest eight bits.
	exit, high [wideRows]byte
	bins       []byte
}

// newWide compiles e for the wide path, or returns nil where it has too many
// columns.
func newWide[T float, K key](e *Ensemble) *wide[T, K] {
	w := &wide[T, K]{trees: make([]wideTree[T], len(e.Trees))}
	if !w.segment(e, isWide[T]) {
		return nil
	}
	for i := range e.Trees {
		if isWide[T](&e.Trees[i]) {
			w.add(e, i)
		} else {
			w.walks = true
		}
	}
	w.scratch.New = func() any { return &wideScratch{bins: make([]byte, max(1, w.columns)*wideRows)} }
	return w
}

// weigh sets least and reports whether there is such a number, by what walks and
// the wide path took on one machine, in nanoseconds: a tree costs so much a node
// however few the rows, and a value, a tree and a node so much a row.
func (w *wide[T, K]) weigh(e *Ensemble) bool {
	walk, row, fixed := 0.0, 0.0, 0.0
	for i := range w.segments {
		row += 3
		if i == 0 || w.segments[i].feature != w.segments[i-1].feature {
			row += 9
		}
	}
	for i := range w.trees {
		t := &w.trees[i]
		if len(t.tests) == 0 {
			continue
		}
		walk += 1.6 * float64(e.Trees[i].Depth())
		row += 0.5 + 3*float64(len(t.odd))
		fixed += 2.3 * float64(len(t.tests))
	}
	if row+fixed/wideRows >= walk {
		return false
	}
	w.least = max(lanes, int(fixed/(walk-row)))
	return true
}

// Depth returns the number of splits on t's longest path.
func (t *Tree) Depth() int {
	depth := make([]int32, len(t.Nodes))
	deepest := int32(0)
	for i := range t.Nodes {
		n := &t.Nodes[i]
		deepest = max(deepest, depth[i])
		if !n.IsLeaf() {
			depth[n.Left], depth[n.Right] = depth[i]+1, depth[i]+1
		}
	}
	return int(deepest)
}

// isWide reports whether t can be on the wide path.
func isWide[T float](t *Tree) bool {
	odd, leaves := 0, 0
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.IsLeaf() {
			leaves++
		} else if isOdd[T](n) {
			odd++
		}
	}
	return t.Linear == nil && leaves > 1 && leaves <= maxExits && odd <= maxOdd
}

func isOdd[T float](n *Node) bool {
	_, _, ok := lessForm[T](n)
	return !ok || !zeroIsOrdinary(n)
}

type threshold[K key] struct {
	feature int32
	key     K
}

// segment makes the segments that the trees taken need, or reports that there
// would be too many.
func (w *wide[T, K]) segment(e *Ensemble, taken func(*Tree) bool) bool {
	all := w.thresholds(e, taken)
	for len(all) > 0 {
		f := all[0].feature
		n := 0
		for n < len(all) && all[n].feature == f {
			n++
		}
		w.addSegments(all[:n])
		all = all[n:]
	}
	return len(w.segments) <= maxColumns/2
}

// thresholds returns the distinct thresholds of the trees taken, in order.
func (w *wide[T, K]) thresholds(e *Ensemble, taken func(*Tree) bool) []threshold[K] {
	var all []threshold[K]
	for i := range e.Trees {
		t := &e.Trees[i]
		if !taken(t) {
			continue
		}
		for j := range t.Nodes {
			n := &t.Nodes[j]
			if n.IsLeaf() || isOdd[T](n) {
				continue
			}
			v, _, _ := lessForm[T](n)
			all = append(all, threshold[K]{n.Feature, K(keyOf(v))})
		}
	}
	slices.SortFunc(all, compareThresholds[K])
	return slices.Compact(all)
}

func compareThresholds[K key](a, b threshold[K]) int {
	return cmp.Or(cmp.Compare(a.feature, b.feature), cmp.Compare(a.key, b.key))
}

// addSegments makes the segments of one feature's thresholds.
func (w *wide[T, K]) addSegments(all []threshold[K]) {
	for chunk := range slices.Chunk(all, math.MaxUint8) {
		s := segment[K]{feature: chunk[0].feature, high: -1, low: -1, half: uint8(1 << (bits.Len(uint(len(chunk))) - 1))}
		for i := range s.keys {
			s.keys[i] = ^K(0)
		}
		for i, t := range chunk {
			s.keys[i] = t.key
		}
		w.segments = append(w.segments, s)
	}
}

// test returns the column's offset and the bound of x < t at n.
func (w *wide[T, K]) test(n *Node, key K, nanBelow bool) test {
	i, found := slices.BinarySearchFunc(w.segments, threshold[K]{n.Feature, key}, func(s segment[K], t threshold[K]) int {
		return compareThresholds(threshold[K]{s.feature, s.keys[0]}, t)
	})
	if !found {
		i-- // the segment that begins below
	}
	s := &w.segments[i]
	column := &s.high
	if nanBelow {
		column = &s.low
	}
	if *column < 0 {
		*column = int32(w.columns * wideRows)
		w.columns++
	}
	at, _ := slices.BinarySearch(s.keys[:], key)
	return test{column: uint32(*column), bound: uint8(at + 1)}
}

// add compiles tree i.
func (w *wide[T, K]) add(e *Ensemble, i int) {
	t, to := &e.Trees[i], &w.trees[i]
	to.width = t.Width(e)
	slots := make([]uint16, len(t.Nodes))
	inner := uint16(0)
	for j := range t.Nodes {
		if !t.Nodes[j].IsLeaf() {
			slots[j] = inner
			inner++
			continue
		}
		slots[j] = uint16(maxExits + to.leaves)
		to.leaves++
		for _, v := range t.Values[j*to.width:][:to.width] {
			to.values = append(to.values, T(v))
		}
	}
	to.bits = bits.Len(uint(to.leaves - 1))
	to.tests = make([]test, 0, inner)
	for j := range t.Nodes {
		n := &t.Nodes[j]
		if n.IsLeaf() {
			continue
		}
		v, swap, _ := lessForm[T](n)
		var own test
		if isOdd[T](n) {
			to.odd = append(to.odd, oddTest{int32(len(to.tests)), int32(j)})
			swap = false
		} else {
			own = w.test(n, K(keyOf(v)), t.Left(n, math.NaN()) != swap)
		}
		own.below, own.above = slots[n.Left], slots[n.Right]
		if swap {
			own.below, own.above = own.above, own.below
		}
		to.tests = append(to.tests, own)
	}
}

// fill computes the bins of n rows of x.
func (w *wide[T, K]) fill(bins []byte, x []T, n, features int) {
	for rest := w.segments; len(rest) > 0; {
		own := 1
		for own < len(rest) && rest[own].feature == rest[0].feature {
			own++
		}
		// The largest of bins is what NaN gets here: above all thresholds.
		column := x[rest[0].feature:]
		var missing bool
		if own == 1 {
			missing = fillSegment(&rest[0], bins[rest[0].column():][:n], column, features)
		} else {
			missing = fillSegments(rest[:own], bins, column, n, features)
		}
		for i := range rest[:own] {
			fillLow(&rest[i], bins, column, n, features, missing)
		}
		rest = rest[own:]
	}
}

// column returns the offset of the column that is computed; fillLow makes the
// other one of it. Each segment has one, as tests made it.
func (s *segment[K]) column() int32 {
	if s.high >= 0 {
		return s.high
	}
	return s.low
}

// fillLow makes the column where NaN is below all thresholds.
func fillLow[T float, K key](s *segment[K], bins []byte, x []T, n, stride int, missing bool) {
	if s.low < 0 {
		return
	}
	low := bins[s.low:][:n]
	if s.high >= 0 {
		copy(low, bins[s.high:][:n])
	}
	if !missing {
		return
	}
	for r := range low {
		if v := x[r*stride]; v != v {
			low[r] = 0
		}
	}
}

// fillSegments computes the columns of a feature of many thresholds by one search
// a row: in the segments before that where it ends all thresholds are below, in
// those after it none.
func fillSegments[T float, K key](segments []segment[K], bins []byte, x []T, n, stride int) (missing bool) {
	var places [wideRows]int32
	var heads [16]K
	few := heads[:min(len(segments)-1, len(heads))]
	for i := range few {
		few[i] = segments[i+1].keys[0]
	}
	for r := range n {
		k := K(keyOf(x[r*stride]))
		missing = missing || k == ^K(0)
		at := 0
		for _, head := range few {
			at += int(notBelow(k, head) & 1)
		}
		for end := len(segments); at >= len(heads) && end-at > 1; {
			if middle := (at + end) / 2; k >= segments[middle].keys[0] {
				at = middle
			} else {
				end = middle
			}
		}
		s := &segments[at]
		var b uint8
		for step := s.half; step > 0; step >>= 1 {
			b += step & notBelow(k, s.keys[b+step-1])
		}
		places[r] = int32(at)*math.MaxUint8 + int32(b)
	}
	for i := range segments {
		to, before := bins[segments[i].column():][:n], int32(i)*math.MaxUint8
		for r := range to {
			to[r] = uint8(min(max(places[r]-before, 0), math.MaxUint8))
		}
	}
	return missing
}

// fillSegment computes one column of bins, of every stride'th value of x, and
// reports whether one is NaN. Four searches run side by side, without a branch.
func fillSegment[T float, K key](s *segment[K], bins []byte, x []T, stride int) (missing bool) {
	keys, half := &s.keys, s.half
	at := 0
	for len(bins) >= 4 {
		k0, k1, k2, k3 := K(keyOf(x[at])), K(keyOf(x[at+stride])), K(keyOf(x[at+2*stride])), K(keyOf(x[at+3*stride]))
		missing = missing || max(k0, k1, k2, k3) == ^K(0)
		var b0, b1, b2, b3 uint8
		for step := half; step > 0; step >>= 1 {
			b0 += step & notBelow(k0, keys[b0+step-1])
			b1 += step & notBelow(k1, keys[b1+step-1])
			b2 += step & notBelow(k2, keys[b2+step-1])
			b3 += step & notBelow(k3, keys[b3+step-1])
		}
		bins[0], bins[1], bins[2], bins[3] = b0, b1, b2, b3
		bins = bins[4:]
		at += 4 * stride
	}
	for i := range bins {
		k := K(keyOf(x[at]))
		missing = missing || k == ^K(0)
		bins[i] = 0
		for step := half; step > 0; step >>= 1 {
			bins[i] += step & notBelow(k, keys[bins[i]+step-1])
		}
		at += stride
	}
	return missing
}

// notBelow returns 255 where k >= t, else 0.
func notBelow[K key](k, t K) uint8 {
	_, below := bits.Sub64(uint64(k), uint64(t), 0)
	return uint8(below) - 1
}

// exits finds the leaves of the n rows of x whose bins s has.
func (t *wideTree[T]) exits(s *wideScratch, src *Tree, x []T, n, features int) {
	words := (n + 63) / 64
	conditions(s.space.conditions[:], s.bins, t.tests, words)
	for _, o := range t.odd {
		s.space.conditions[o.at] = leftPlane(src, &src.Nodes[o.node], x, n, features)
	}
	clear(s.space.reach[maxExits+t.leaves : maxExits+1<<t.bits])
	exits(&s.space, t.tests, t.bits, words)
	numbers(&s.exit, s.space.conditions[:min(t.bits, 8)], words)
	if t.bits > 8 {
		numbers(&s.high, s.space.conditions[8:t.bits], words)
	}
}

// leftPlane returns which of n rows of x go left at node.
func leftPlane[T float](t *Tree, node *Node, x []T, n, features int) (out plane) {
	at := int(node.Feature)
	for row := range n {
		if t.Left(node, float64(x[at])) {
			out[row/64] |= 1 << (row % 64)
		}
		at += features
	}
	return out
}

// wideBlock adds the leaves of n rows, at most wideRows, to out.
func (p *program[T, K]) wideBlock(x []T, n int, out []T) {
	s := p.wide.scratch.Get().(*wideScratch)
	p.wide.fill(s.bins, x, n, p.features)
	var keys []K
	missing := false
	if p.wide.walks {
		space := p.keySpace(len(x))
		defer p.keys.Put(space)
		keys = (*space)[:len(x)]
		missing = fillKeys(keys, x)
	}
	for i := range p.trees {
		t := &p.wide.trees[i]
		if len(t.tests) > 0 {
			t.exits(s, &p.source.Trees[i], x, n, p.features)
			t.add(s, n, p.source.Trees[i].Output, p.outputs, out)
			continue
		}
		whole := n - n%lanes
		p.treeOverRows(&p.trees[i], i, x, keys, whole, out, missing)
		for r := whole; r < n; r++ {
			at, end := r*p.features, (r+1)*p.features
			p.treeOverRow(&p.trees[i], i, x[at:end], keys[at:end], out[r*p.outputs:(r+1)*p.outputs])
		}
	}
	p.wide.scratch.Put(s)
}

// add adds the values of the leaves that s has of n rows to out, which has
// outputs values a row.
func (t *wideTree[T]) add(s *wideScratch, n, output, outputs int, out []T) {
	values := t.values
	switch {
	case outputs == 1 && t.bits <= 8:
		out = out[:n]
		for r, e := range s.exit[:n] {
			out[r] += values[e]
		}
	case output >= 0:
		for r := range n {
			out[r*outputs+output] += values[s.leaf(t.bits, r)]
		}
	default:
		for r := range n {
			v := values[s.leaf(t.bits, r)*outputs:][:outputs]
			for k := range v {
				out[r*outputs+k] += v[k]
			}
		}
	}
}

// leaf returns the number of row r's leaf.
func (s *wideScratch) leaf(bits, r int) int {
	if bits <= 8 {
		return int(s.exit[r])
	}
	return int(s.exit[r]) | int(s.high[r])<<8
}
