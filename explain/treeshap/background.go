package treeshap

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// maxPatterns bounds the words of patterns a background may hold (512 MiB).
const maxPatterns = 64 << 20

// denseBits is the number of distinct features up to which a leaf's patterns
// are counted in an array.
const denseBits = 10

// Background is an ensemble prepared for Shapley values against a background
// set. It is the artifact that is stored with a model version (AppendBinary,
// ReadBackground). For every leaf it holds how many background rows satisfy which of the
// leaf's distinct path features, as a histogram of bit patterns: no row of the
// set, and all that the values need of it, whatever its size. It is immutable
// and safe for concurrent use.
type Background struct {
	ensemble *tree.Ensemble
	digest   string
	rows     int
	base     []float64
	trees    []backgroundTree
	cost     int64
	errBound float64
	scratch  sync.Pool
}

// backgroundTree is one tree with its leaves' histograms: leaf l has patterns
// first[l] to first[l+1], each of words(l) words of bits, and as many counts.
type backgroundTree struct {
	*layout
	tree   *tree.Tree
	leafAt []int32 // node of each leaf
	leaves []histogram
}

// histogram counts patterns of width words each, in ascending order.
type histogram struct {
	width    int
	patterns []uint64
	counts   []float64
}

// NewBackground counts the patterns of rows (row-major, Features wide) in e.
// The digest names the set in certificates; nothing else of it is kept.
func NewBackground(e *tree.Ensemble, rows []float64, digest string) (*Background, error) {
	b, err := layBackground(e, digest)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || len(rows)%e.Features != 0 {
		return nil, fmt.Errorf("background of %d values for %d features: need one row or more", len(rows), e.Features)
	}
	b.rows = len(rows) / e.Features
	x := make([]float64, len(rows))
	round(x, rows, e.Float32)
	left := maxPatterns
	for i := range b.trees {
		used, err := b.trees[i].count(x, e.Features, left)
		if err != nil {
			return nil, fmt.Errorf("count background patterns of tree %d: %w", i, err)
		}
		left -= used
	}
	b.finish()
	return b, nil
}

// layBackground prepares everything but the histograms.
func layBackground(e *tree.Ensemble, digest string) (*Background, error) {
	if err := checkEnsemble(e); err != nil {
		return nil, err
	}
	b := &Background{ensemble: e, digest: digest, trees: make([]backgroundTree, len(e.Trees))}
	for i := range e.Trees {
		l, err := lay(e, &e.Trees[i])
		if err != nil {
			return nil, fmt.Errorf("prepare tree %d: %w", i, err)
		}
		t := &b.trees[i]
		t.layout, t.tree = l, &e.Trees[i]
		t.leafAt = make([]int32, 0, l.leaves)
		t.leaves = make([]histogram, l.leaves)
		for j := range l.nodes {
			if !l.nodes[j].leaf {
				continue
			}
			t.leaves[len(t.leafAt)].width = max(1, (int(l.nodes[j].distinct)+63)/64)
			t.leafAt = append(t.leafAt, int32(j))
		}
	}
	return b, nil
}

// finish computes the mean margins and the cost from the histograms.
func (b *Background) finish() {
	b.base = append([]float64(nil), b.ensemble.Base...)
	scale := 0.0
	for i := range b.trees {
		t := &b.trees[i]
		b.cost += int64(len(t.nodes))
		largest := 0.0
		for l := range t.leaves {
			h := &t.leaves[l]
			b.cost += int64(len(h.patterns))
			nd := &t.nodes[t.leafAt[l]]
			share := h.full(int(nd.distinct)) / float64(b.rows)
			for k := range t.stride {
				v := t.tree.Values[int(nd.src)*t.stride+k]
				b.base[max(t.tree.Output, 0)+k] += share * v
				largest = max(largest, math.Abs(v))
			}
		}
		scale += largest
	}
	b.errBound = scale * float64(len(b.trees)+64) * (1.0 / (1 << 52))
	b.scratch.New = func() any { return b.newMix() }
}

// full returns the count of the pattern of d ones.
func (h *histogram) full(d int) float64 {
	n := len(h.counts)
	if n == 0 {
		return 0
	}
	// Patterns ascend, so the full one can only be the last.
	last := h.patterns[(n-1)*h.width:]
	set := 0
	for _, w := range last {
		set += bits.OnesCount64(w)
	}
	if set != d {
		return 0
	}
	return h.counts[n-1]
}

// count fills the tree's histograms from rows and returns the words used.
func (t *backgroundTree) count(x []float64, features, room int) (used int, err error) {
	n := len(x) / features
	dense := make([][]uint32, len(t.leaves))
	sparse := make([]map[uint64]uint32, len(t.leaves))
	wide := make([]map[string]uint32, len(t.leaves))
	for l := range t.leaves {
		switch d := t.nodes[t.leafAt[l]].distinct; {
		case d <= denseBits:
			dense[l] = make([]uint32, 1<<d)
		case d <= 64:
			sparse[l] = map[uint64]uint32{}
		default:
			wide[l] = map[string]uint32{}
		}
	}
	m := newMixTree(t)
	var key []byte
	for row := range n {
		m.patterns(t, x[row*features:(row+1)*features])
		for l, at := range t.leafAt {
			switch {
			case dense[l] != nil:
				dense[l][m.pattern[at]]++
			case sparse[l] != nil:
				sparse[l][m.pattern[at]]++
				used++
			default:
				key = appendWords(key[:0], m.widePattern(t, l))
				wide[l][string(key)]++
				used += t.leaves[l].width
			}
		}
		if used > room {
			used = held(sparse, wide, t)
		}
		if used > room {
			return 0, fmt.Errorf("more than %d distinct patterns: %w", maxPatterns, engine.ErrTooLarge)
		}
	}
	for l := range t.leaves {
		t.leaves[l].collect(dense[l], sparse[l], wide[l])
	}
	return t.words(), nil
}

// held counts the words of the patterns counted so far.
func held(sparse []map[uint64]uint32, wide []map[string]uint32, t *backgroundTree) int {
	n := 0
	for l := range t.leaves {
		n += len(sparse[l]) + len(wide[l])*t.leaves[l].width
	}
	return n
}

func (t *backgroundTree) words() int {
	n := 0
	for l := range t.leaves {
		n += len(t.leaves[l].patterns)
	}
	return n
}

// collect turns whichever counter is set into the histogram.
func (h *histogram) collect(dense []uint32, sparse map[uint64]uint32, wide map[string]uint32) {
	for p, n := range dense {
		if n > 0 {
			h.patterns = append(h.patterns, uint64(p))
			h.counts = append(h.counts, float64(n))
		}
	}
	for p := range sparse {
		h.patterns = append(h.patterns, p)
	}
	if sparse != nil {
		slices.Sort(h.patterns)
		for _, p := range h.patterns {
			h.counts = append(h.counts, float64(sparse[p]))
		}
	}
	keys := make([]string, 0, len(wide))
	for k := range wide {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		h.patterns = append(h.patterns, wordsOf(k)...)
		h.counts = append(h.counts, float64(wide[k]))
	}
}

// appendWords appends words as bytes, the last word first and big-endian, so
// that keys sort as the numbers they spell.
func appendWords(key []byte, words []uint64) []byte {
	for i := len(words) - 1; i >= 0; i-- {
		for s := 56; s >= 0; s -= 8 {
			key = append(key, byte(words[i]>>s))
		}
	}
	return key
}

func wordsOf(key string) []uint64 {
	words := make([]uint64, len(key)/8)
	for i := range words {
		at := len(key) - 8*(i+1)
		for _, c := range []byte(key[at : at+8]) {
			words[i] = words[i]<<8 | uint64(c)
		}
	}
	return words
}

// Base returns the mean margin of each output over the background. The caller
// must not change it.
func (b *Background) Base() []float64 { return b.base }

// Digest returns the name the set was given.
func (b *Background) Digest() string { return b.digest }

// Rows returns the number of rows of the set.
func (b *Background) Rows() int { return b.rows }

// Cost returns the steps that one row of Explain takes, roughly.
func (b *Background) Cost() int64 { return b.cost }

// ErrorBound returns a bound of the rounding error of any phi.
func (b *Background) ErrorBound() float64 { return b.errBound }

// Explain computes the Shapley values of rows, which are row-major and Features
// wide, into phi[row][output][feature].
func (b *Background) Explain(rows, phi []float64) error {
	m, k := b.ensemble.Features, b.ensemble.Outputs
	n, err := checkSizes(rows, phi, m, m*k)
	if err != nil {
		return err
	}
	clear(phi)
	w := b.scratch.Get().(*mix)
	defer b.scratch.Put(w)
	for row := range n {
		round(w.x, rows[row*m:(row+1)*m], b.ensemble.Float32)
		own := phi[row*m*k : (row+1)*m*k]
		for i := range b.trees {
			w.values(&b.trees[i], own, m, 1/float64(b.rows))
		}
	}
	return nil
}

// Interactions computes the pairwise Shapley interaction values of rows against
// the background into dst[row][output][feature][feature], in the form of
// Path.Interactions.
func (b *Background) Interactions(rows, dst []float64) error {
	m, k := b.ensemble.Features, b.ensemble.Outputs
	n, err := checkSizes(rows, dst, m, m*m*k)
	if err != nil {
		return err
	}
	clear(dst)
	w := b.newMix()
	for row := range n {
		round(w.x, rows[row*m:(row+1)*m], b.ensemble.Float32)
		own := dst[row*m*m*k : (row+1)*m*m*k]
		for i := range b.trees {
			w.matrices(&b.trees[i], own, m, 1/float64(b.rows))
		}
		for out := range k {
			shareInteractions(own[out*m*m:(out+1)*m*m], m)
		}
	}
	return nil
}

// mix is the state of explaining one row against a background.
type mix struct {
	mixTree
	x []float64
	// acc[pos] sums a leaf's parts by distinct feature, pair[pos][pos] by two.
	acc, pair []float64
	// feature[pos] is the leaf's pos'th distinct feature.
	feature []int32
}

// mixTree finds a row's pattern at every leaf of a tree.
type mixTree struct {
	pattern []uint64 // by node, for the first 64 distinct features
	left    []bool   // by node
	wide    []uint64
}

func newMixTree(t *backgroundTree) mixTree {
	return mixTree{
		pattern: make([]uint64, len(t.nodes)),
		left:    make([]bool, len(t.nodes)),
		wide:    make([]uint64, (t.distinct+63)/64+1),
	}
}

func (b *Background) newMix() *mix {
	nodes, distinct := 1, 1
	for i := range b.trees {
		nodes = max(nodes, len(b.trees[i].nodes))
		distinct = max(distinct, b.trees[i].distinct)
	}
	return &mix{
		mixTree: mixTree{pattern: make([]uint64, nodes), left: make([]bool, nodes), wide: make([]uint64, distinct/64+1)},
		x:       make([]float64, b.ensemble.Features),
		acc:     make([]float64, distinct),
		feature: make([]int32, distinct),
	}
}

// patterns fills pattern and left for row x.
func (m *mixTree) patterns(t *backgroundTree, x []float64) {
	m.pattern[0] = 0
	for i := range t.nodes {
		nd := &t.nodes[i]
		if nd.leaf {
			continue
		}
		src := &t.tree.Nodes[nd.src]
		left := t.tree.Left(src, x[src.Feature])
		m.left[i] = left
		l, r := int32(i)+1, t.right(int32(i))
		m.pattern[l] = t.nodes[l].extend(m.pattern[i], left)
		m.pattern[r] = t.nodes[r].extend(m.pattern[i], !left)
	}
}

// extend returns the pattern at nd, given the one above it and whether the row
// takes the edge.
func (nd *node) extend(above uint64, goes bool) uint64 {
	if nd.pos >= 64 {
		return above
	}
	bit := uint64(1) << nd.pos
	switch {
	case !goes:
		return above &^ bit
	case nd.prev < 0:
		return above | bit
	}
	return above
}

// widePattern returns the row's pattern at leaf l, of more than 64 distinct
// features, after patterns has filled left.
func (m *mixTree) widePattern(t *backgroundTree, l int) []uint64 {
	p := m.wide[:t.leaves[l].width]
	clear(p)
	at := t.leafAt[l]
	for i := int32(0); i != at; {
		next, goes := i+1, m.left[i]
		if r := t.right(i); at >= r {
			next, goes = r, !goes
		}
		nd := &t.nodes[next]
		bit := uint64(1) << (nd.pos & 63)
		switch {
		case !goes:
			p[nd.pos>>6] &^= bit
		case nd.prev < 0:
			p[nd.pos>>6] |= bit
		}
		i = next
	}
	return p
}

// features fills feature with the distinct features of the path to leaf l.
func (m *mix) features(t *backgroundTree, l int) {
	at := t.leafAt[l]
	for i := int32(0); i != at; {
		next := i + 1
		if r := t.right(i); at >= r {
			next = r
		}
		nd := &t.nodes[next]
		m.feature[nd.pos] = nd.feature
		i = next
	}
}

// values adds tree t's part to phi.
func (m *mix) values(t *backgroundTree, phi []float64, features int, scale float64) {
	m.patterns(t, m.x)
	for l := range t.leaves {
		h := &t.leaves[l]
		nd := &t.nodes[t.leafAt[l]]
		acc := m.acc[:nd.distinct]
		clear(acc)
		var any bool
		if h.width == 1 {
			any = h.values(acc, m.pattern[t.leafAt[l]])
		} else {
			any = h.wideValues(acc, m.widePattern(t, l))
		}
		if !any {
			continue
		}
		m.features(t, l)
		for k := range t.stride {
			v := t.tree.Values[int(nd.src)*t.stride+k] * scale
			own := phi[(max(t.tree.Output, 0)+k)*features:][:features]
			for pos, a := range acc {
				own[m.feature[pos]] += v * a
			}
		}
	}
}

// values adds to acc, by distinct feature, the sum over the background of the
// unit leaf's Shapley values, for a row of pattern x. It reports whether there
// was any.
func (h *histogram) values(acc []float64, x uint64) bool {
	full := ^uint64(0) >> (64 - len(acc))
	if len(acc) == 0 {
		return false
	}
	found := false
	for i, b := range h.patterns {
		if x|b != full || x == b {
			continue
		}
		found = true
		only, rest := x&^b, b&^x
		p, n := bits.OnesCount64(only), bits.OnesCount64(rest)
		if w := h.counts[i] * weight(p, n); p > 0 {
			for s := only; s != 0; s &= s - 1 {
				acc[bits.TrailingZeros64(s)] += w
			}
		}
		if n == 0 {
			continue
		}
		w := h.counts[i] * weight(n, p)
		for s := rest; s != 0; s &= s - 1 {
			acc[bits.TrailingZeros64(s)] -= w
		}
	}
	return found
}

// split compares a wide pattern with the row's: only and rest are filled with
// the positions that only the row, or only the background row, satisfies. ok is
// false when some position is satisfied by neither.
func split(x, b []uint64, d int, only, rest []int) (p, n []int, ok bool) {
	p, n = only[:0], rest[:0]
	for pos := range d {
		xs, bs := x[pos>>6]>>(pos&63)&1 == 1, b[pos>>6]>>(pos&63)&1 == 1
		switch {
		case xs && !bs:
			p = append(p, pos)
		case bs && !xs:
			n = append(n, pos)
		case !xs:
			return p, n, false
		}
	}
	return p, n, true
}

// wideValues is values for patterns of more than one word.
func (h *histogram) wideValues(acc []float64, x []uint64) bool {
	var only, rest []int
	found := false
	for i, c := range h.counts {
		var ok bool
		only, rest, ok = split(x, h.patterns[i*h.width:(i+1)*h.width], len(acc), only, rest)
		if !ok || len(only)+len(rest) == 0 {
			continue
		}
		found = true
		for _, pos := range only {
			acc[pos] += c * weight(len(only), len(rest))
		}
		for _, pos := range rest {
			acc[pos] -= c * weight(len(rest), len(only))
		}
	}
	return found
}

// matrices adds tree t's part to the raw interaction matrices of one row.
func (m *mix) matrices(t *backgroundTree, dst []float64, features int, scale float64) {
	m.patterns(t, m.x)
	for l := range t.leaves {
		h := &t.leaves[l]
		nd := &t.nodes[t.leafAt[l]]
		d := int(nd.distinct)
		x := m.wide[:1]
		if h.width > 1 {
			x = m.widePattern(t, l)
		} else {
			x[0] = m.pattern[t.leafAt[l]]
		}
		m.pair = slices.Grow(m.pair[:0], d*d)[:d*d]
		clear(m.pair)
		if !h.matrix(m.pair, d, x) {
			continue
		}
		m.features(t, l)
		for k := range t.stride {
			v := t.tree.Values[int(nd.src)*t.stride+k] * scale
			m.addMatrix(dst[(max(t.tree.Output, 0)+k)*features*features:], d, features, v)
		}
	}
}

func (m *mix) addMatrix(own []float64, d, features int, v float64) {
	for a := range d {
		for b := range d {
			own[int(m.feature[a])*features+int(m.feature[b])] += v * m.pair[a*d+b]
		}
	}
}

// matrix adds to pair the unit leaf's values on the diagonal and the interaction
// index of each two features on one side of it, summed over the background.
func (h *histogram) matrix(pair []float64, d int, x []uint64) bool {
	var only, rest []int
	found := false
	for i, c := range h.counts {
		var ok bool
		only, rest, ok = split(x, h.patterns[i*h.width:(i+1)*h.width], d, only, rest)
		p, n := len(only), len(rest)
		if !ok || p+n == 0 {
			continue
		}
		found = true
		for i, a := range only {
			pair[a*d+a] += c * weight(p, n)
			addPairs(pair, d, a, only[i+1:], c*pairWeight(p-2, n))
			addPairs(pair, d, a, rest, -c*pairWeight(p-1, n-1))
		}
		for i, a := range rest {
			pair[a*d+a] -= c * weight(n, p)
			addPairs(pair, d, a, rest[i+1:], c*pairWeight(p, n-2))
		}
	}
	return found
}

func addPairs(pair []float64, d, a int, others []int, w float64) {
	for _, b := range others {
		pair[a*d+b] += w
	}
}

// weight returns (p-1)! n! / (p+n)!, the Shapley value of each of p features
// that must all be present while n others must be absent; 0 for p = 0.
func weight(p, n int) float64 {
	if p+n < len(weights) {
		return weights[p][n]
	}
	return computeWeight(p, n)
}

// weights holds weight(p, n) for the patterns of one word.
var weights = func() (w [66][66]float64) {
	for p := range w {
		for n := range w {
			w[p][n] = computeWeight(p, n)
		}
	}
	return w
}()

// computeWeight divides 1/p by the binomial of p+n over p. Beyond float64's
// range the binomial is infinite and the weight zero, far below any rounding.
func computeWeight(p, n int) float64 {
	if p == 0 {
		return 0
	}
	binomial := 1.0
	for i := 1; i <= min(p, n); i++ {
		binomial *= float64(max(p, n) + i)
		binomial /= float64(i)
	}
	return 1 / (float64(p) * binomial)
}

// pairWeight returns a! b! / (a+b+1)!.
func pairWeight(a, b int) float64 {
	if a < 0 || b < 0 {
		return 0
	}
	return weight(a+1, b)
}
