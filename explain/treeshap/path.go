package treeshap

import (
	"fmt"
	"math"
	"sync"

	"gonum.org/v1/gonum/integrate/quad"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

const (
	// maxBlock is how many rows walk a tree together; masks are uint64.
	maxBlock = 16
	// walkBytes bounds the stack of one walk; deep trees get smaller blocks.
	walkBytes = 4 << 20
	// tableFloats bounds the edge tables kept per ensemble (64 MiB). Trees
	// beyond it compute theirs as they go, to the same bits.
	tableFloats = 8 << 20
	// variants of an edge for a row: satisfied so far and here, satisfied until
	// here, and not satisfied above already.
	variants = 3
)

// Path is an ensemble prepared for path-dependent Shapley values. It is
// immutable and safe for concurrent use.
type Path struct {
	ensemble *tree.Ensemble
	trees    []pathTree
	base     []float64
	block    int
	depth    int
	points   int
	distinct int
	cost     int64
	errBound float64
	scratch  sync.Pool
}

// pathTree is one tree with its quadrature.
type pathTree struct {
	*layout
	tree *tree.Tree
	// n is the number of points: exact for the tree's largest number of
	// distinct features on a path.
	n int
	// before and after are the products of the cover ratios of the path's
	// splits on the edge's feature, without and with the edge.
	before, after []float64
	// rule are the points and weights; table is nil where it would be too big.
	rule  *rule
	table []float64
}

// rule is a Gauss-Legendre rule on [0, 1].
type rule struct{ t, w []float64 }

// Prepare checks e and computes what its walks need. It returns ErrNoCovers for
// an ensemble without covers, and an error that wraps engine.ErrCorrupt for
// covers that are no weights.
func Prepare(e *tree.Ensemble) (*Path, error) {
	if err := checkEnsemble(e); err != nil {
		return nil, err
	}
	if e.Covers == tree.CoverNone || e.Covers == "" {
		return nil, ErrNoCovers
	}
	p := &Path{ensemble: e, trees: make([]pathTree, len(e.Trees)), base: append([]float64(nil), e.Base...), depth: 1, points: 1}
	rules := map[int]*rule{}
	room := tableFloats
	for i := range e.Trees {
		t := &p.trees[i]
		if err := t.prepare(&e.Trees[i], e, rules); err != nil {
			return nil, fmt.Errorf("prepare tree %d: %w", i, err)
		}
		if size := len(t.nodes) * 2 * variants * t.n; size <= room {
			room -= size
			t.fill()
		}
		p.depth, p.points = max(p.depth, t.depth), max(p.points, t.n)
		p.distinct = max(p.distinct, t.distinct)
		p.cost += int64(len(t.nodes)) * int64(t.n) * int64(t.stride)
		p.errBound += t.addMeans(p.base)
	}
	// Each phi is a sum over trees and paths of products of at most 2 depth
	// factors, each rounded once.
	p.errBound *= float64(2*p.depth*p.points+len(e.Trees)) * (1.0 / (1 << 52))
	p.block = max(1, min(maxBlock, walkBytes/((p.depth+1)*p.points*16)))
	p.scratch.New = func() any { return p.newWalk() }
	return p, nil
}

func (t *pathTree) prepare(src *tree.Tree, e *tree.Ensemble, rules map[int]*rule) error {
	l, err := lay(e, src)
	if err != nil {
		return err
	}
	t.layout, t.tree = l, src
	t.n = max(1, (l.distinct+1)/2)
	t.before, t.after = make([]float64, len(l.nodes)), make([]float64, len(l.nodes))
	t.before[0], t.after[0] = 1, 1
	for i := range l.nodes {
		if l.nodes[i].leaf {
			continue
		}
		if err := t.ratios(int32(i)); err != nil {
			return err
		}
	}
	if t.rule = rules[t.n]; t.rule == nil {
		t.rule = legendre(t.n)
		rules[t.n] = t.rule
	}
	return nil
}

// ratios fills the cover products of node i's children.
func (t *pathTree) ratios(i int32) error {
	parent := t.tree.Nodes[t.nodes[i].src].Cover
	for _, c := range [2]int32{i + 1, t.right(i)} {
		cover := t.tree.Nodes[t.nodes[c].src].Cover
		if !(cover >= 0) || !(parent >= 0) || math.IsInf(cover, 0) || math.IsInf(parent, 0) {
			return fmt.Errorf("node %d has cover %v below a node of cover %v: %w", t.nodes[c].src, cover, parent, engine.ErrCorrupt)
		}
		ratio := 0.5 // no training row came here: XGBoost's rule for zero covers
		if parent > 0 {
			ratio = cover / parent
		}
		t.before[c] = 1
		if prev := t.nodes[c].prev; prev >= 0 {
			t.before[c] = t.after[prev]
		}
		t.after[c] = t.before[c] * ratio
	}
	return nil
}

// addMeans adds the tree's expected values to base and returns the largest
// absolute value of a leaf.
func (t *pathTree) addMeans(base []float64) float64 {
	reach := make([]float64, len(t.nodes))
	reach[0] = 1
	largest := 0.0
	for i := range t.nodes {
		nd := &t.nodes[i]
		if nd.leaf {
			largest = max(largest, t.addLeaf(base, nd.src, reach[i]))
			continue
		}
		for _, c := range [2]int32{int32(i) + 1, t.right(int32(i))} {
			reach[c] = reach[i] * t.ratio(c)
		}
	}
	return largest
}

func (t *pathTree) addLeaf(base []float64, src int32, weight float64) float64 {
	largest := 0.0
	for k := range t.stride {
		v := t.tree.Values[int(src)*t.stride+k]
		base[max(t.tree.Output, 0)+k] += weight * v
		largest = max(largest, math.Abs(v))
	}
	return largest
}

// ratio returns the share of the parent's cover that goes to node c.
func (t *pathTree) ratio(c int32) float64 {
	if t.before[c] > 0 {
		return t.after[c] / t.before[c]
	}
	return 0
}

// legendre returns the rule of n points on [0, 1].
func legendre(n int) *rule {
	r := &rule{t: make([]float64, n), w: make([]float64, n)}
	quad.Legendre{}.FixedLocations(r.t, r.w, 0, 1)
	return r
}

// fill computes the tables of all edges.
func (t *pathTree) fill() {
	size := 2 * variants * t.n
	t.table = make([]float64, len(t.nodes)*size)
	for i := 1; i < len(t.nodes); i++ {
		t.edge(int32(i), t.table[i*size:(i+1)*size])
	}
}

// edge computes for the edge to node i, at every point: by what the running
// product of the path is multiplied (ratio), and by how much the difference
// factor of the edge's feature changes (delta), for each of the three variants.
// With F(r, o) = r(1-t) + o t, G(r, o) = (o-r)/F(r, o), and the edge taking r to
// r' and o to o':
//
//	o=1 o'=1: ratio F(r',1)/F(r,1), delta (r-r')/(F(r',1) F(r,1))
//	o=1 o'=0: ratio r'(1-t)/F(r,1), delta -1/((1-t) F(r,1))
//	o=0 o'=0: ratio r'/r,           delta 0
//
// F is at least the smallest t, so nothing is divided by zero.
func (t *pathTree) edge(i int32, dst []float64) {
	n := t.n
	r, rp := t.before[i], t.after[i]
	for q, x := range t.rule.t {
		f, fp := r*(1-x)+x, rp*(1-x)+x
		dst[q] = fp / f
		dst[n+q] = rp * (1 - x) / f
		dst[2*n+q] = t.ratio(i)
		dst[3*n+q] = (r - rp) / (fp * f)
		dst[4*n+q] = -1 / ((1 - x) * f)
		dst[5*n+q] = 0
	}
}

// Base returns the expected value of each output: the sum of the trees' cover
// weighted means and the ensemble's Base. The caller must not change it.
func (p *Path) Base() []float64 { return p.base }

// Points returns the largest number of quadrature points of any tree.
func (p *Path) Points() int { return p.points }

// Depth returns the largest number of splits on a path.
func (p *Path) Depth() int { return p.depth }

// Cost returns the multiplications that one row of Explain takes, roughly.
func (p *Path) Cost() int64 { return p.cost }

// ErrorBound returns a bound of the rounding error of any phi.
func (p *Path) ErrorBound() float64 { return p.errBound }

// Explain computes the Shapley values of rows, which are row-major and
// Features wide, into phi[row][output][feature]. It allocates nothing per row.
func (p *Path) Explain(rows, phi []float64) error {
	m, k := p.ensemble.Features, p.ensemble.Outputs
	n, err := checkSizes(rows, phi, m, m*k)
	if err != nil {
		return err
	}
	clear(phi)
	w := p.scratch.Get().(*walk)
	defer p.scratch.Put(w)
	for at := 0; at < n; at += p.block {
		w.rows = min(p.block, n-at)
		round(w.x[:w.rows*m], rows[at*m:(at+w.rows)*m], p.ensemble.Float32)
		w.phi = phi[at*m*k : (at+w.rows)*m*k]
		for i := range p.trees {
			t := &p.trees[i]
			for v := range t.stride {
				w.start(t, v)
			}
		}
	}
	w.phi = nil
	return nil
}

// walk is the state of one walk of a block of rows through a tree.
type walk struct {
	features, perRow int
	block            int
	rows             int
	x, phi           []float64
	// sat[i] has bit b set when row b satisfies the path's splits on the
	// feature of node i's edge, down to node i.
	sat []uint64
	// c[depth] and h[depth] hold, row by row and point by point, the running
	// product on the way down and the sums of leaves on the way up.
	c, h  []float64
	local []float64

	tree         *pathTree
	value, shift int
}

func (p *Path) newWalk() *walk {
	nodes := 0
	for i := range p.trees {
		nodes = max(nodes, len(p.trees[i].nodes))
	}
	return &walk{
		features: p.ensemble.Features,
		perRow:   p.ensemble.Features * p.ensemble.Outputs,
		block:    p.block,
		x:        make([]float64, p.block*p.ensemble.Features),
		sat:      make([]uint64, nodes),
		c:        make([]float64, (p.depth+1)*p.block*p.points),
		h:        make([]float64, (p.depth+1)*p.block*p.points),
		local:    make([]float64, (p.depth+1)*2*variants*p.points),
	}
}

// start walks tree t for the value'th value of its leaves.
func (w *walk) start(t *pathTree, value int) {
	if len(t.nodes) == 1 {
		return
	}
	w.tree, w.value = t, value
	w.shift = (max(t.tree.Output, 0) + value) * w.features
	for b := range w.rows {
		copy(w.c[b*t.n:(b+1)*t.n], t.rule.w)
	}
	w.visit(0, 0)
}

// visit adds the part of the subtree under inner node i, whose running products
// are at depth, and leaves the subtree's sums there.
func (w *walk) visit(i int32, depth int) {
	t := w.tree
	size := w.rows * t.n
	h := w.h[depth*w.block*t.n:][:size]
	clear(h)
	left := w.goLeft(&t.tree.Nodes[t.nodes[i].src])
	all := uint64(1)<<w.rows - 1
	for _, j := range [2]int32{i + 1, t.right(i)} {
		nd := &t.nodes[j]
		goes := left
		if !nd.left {
			goes = all &^ left
		}
		before := all
		if nd.prev >= 0 {
			before = w.sat[nd.prev]
		}
		now := before & goes
		w.sat[j] = now
		table := w.edgeTable(j, depth)
		c := w.c[depth*w.block*t.n:][:size]
		phi := w.phi[w.shift+int(nd.feature):]
		if nd.leaf {
			v := t.tree.Values[int(nd.src)*t.stride+w.value]
			if v != 0 {
				w.leaf(c, h, table, phi, before, now, v)
			}
			continue
		}
		w.down(c, w.c[(depth+1)*w.block*t.n:][:size], table, before, now)
		w.visit(j, depth+1)
		w.up(w.h[(depth+1)*w.block*t.n:][:size], h, table[variants*t.n:], phi, before, now)
	}
}

// edgeTable returns the table of the edge to node j.
func (w *walk) edgeTable(j int32, depth int) []float64 {
	t := w.tree
	size := 2 * variants * t.n
	if t.table != nil {
		return t.table[int(j)*size:][:size]
	}
	// The table is still needed after the child's own walk, so each depth has
	// its own; the left child is done with it when the right one begins.
	local := w.local[depth*size:][:size]
	t.edge(j, local)
	return local
}

// goLeft returns the rows of the block that go left at nd.
func (w *walk) goLeft(nd *tree.Node) uint64 {
	var left uint64
	at := int(nd.Feature)
	if nd.Rule == tree.Less && nd.Missing == tree.MissingNaN {
		for b := range w.rows {
			v := w.x[at]
			at += w.features
			if v < nd.Threshold || v != v && nd.DefaultLeft {
				left |= 1 << b
			}
		}
		return left
	}
	for b := range w.rows {
		if w.tree.tree.Left(nd, w.x[at]) {
			left |= 1 << b
		}
		at += w.features
	}
	return left
}

// variant returns the offset of row b's variant in an edge table of n points.
func variant(before, now uint64, b, n int) int {
	return (variants - 1 - int(before>>b&1) - int(now>>b&1)) * n
}

func (w *walk) down(c, next, table []float64, before, now uint64) {
	n := w.tree.n
	for b := range w.rows {
		ratio := table[variant(before, now, b, n):][:n]
		from, to := c[b*n:][:n], next[b*n:][:n]
		for q, r := range ratio {
			to[q] = from[q] * r
		}
	}
}

func (w *walk) up(child, h, delta, phi []float64, before, now uint64) {
	n := w.tree.n
	for b := range w.rows {
		d := delta[variant(before, now, b, n):][:n]
		from, to := child[b*n:][:n], h[b*n:][:n]
		sum := 0.0
		for q, v := range from {
			sum += v * d[q]
			to[q] += v
		}
		phi[b*w.perRow] += sum
	}
}

// leaf is down and up at once.
func (w *walk) leaf(c, h, table, phi []float64, before, now uint64, value float64) {
	n := w.tree.n
	for b := range w.rows {
		at := variant(before, now, b, n)
		ratio, d := table[at:][:n], table[variants*n+at:][:n]
		from, to := c[b*n:][:n], h[b*n:][:n]
		sum := 0.0
		for q, r := range ratio {
			v := from[q] * r * value
			sum += v * d[q]
			to[q] += v
		}
		phi[b*w.perRow] += sum
	}
}
