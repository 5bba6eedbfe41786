package treeshap

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"gonum.org/v1/gonum/integrate/quad"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

const (
	// slotBytes bounds the slots of a machine: those of very deep trees have
	// fewer rows.
	slotBytes = 4 << 20
	// phiFloats bounds the values that are summed at once (8 MiB), if that
	// leaves 64 rows.
	phiFloats = 1 << 20
	// variants of an edge for a row: satisfied so far and here, satisfied until
	// here, and not satisfied above already.
	variants = 3
)

// Path is an ensemble prepared for path-dependent Shapley values. It is
// immutable and safe for concurrent use.
//
// Besides the ensemble it keeps about 200 bytes a node, at most 256 more for each
// that tests a feature again (7 MB for 500 trees of depth 6), and the router's
// tables.
type Path struct {
	ensemble *tree.Ensemble
	router   *tree.Router
	trees    []pathTree
	base     []float64
	// columns are the features that are tested, in the order of their sums.
	columns  []int32
	block    int
	depth    int
	points   int
	distinct int
	cost     int64
	errBound float64
	scratch  sync.Pool
	// pairs is what interactions need, made when they are first asked for.
	pairs     *pairPlan
	pairsOnce sync.Once
	// held is what Bytes tells.
	held atomic.Int64
}

// pathTree is one tree with its quadrature.
type pathTree struct {
	*layout
	tree *tree.Tree
	// n is the number of points: exact for the tree's largest number of
	// distinct features on a path.
	n int
	// rho is the share of the parent's cover. before and after are the products
	// of those of the path's splits on the edge's feature, without and with the
	// edge.
	rho, before, after []float64
	rule               *rule
	program            program
	// looped says that only kernels that loop over the points run the program.
	looped bool
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
	columns := map[int32]uint32{}
	for i := range e.Trees {
		t := &p.trees[i]
		if err := t.prepare(&e.Trees[i], e, rules); err != nil {
			return nil, fmt.Errorf("prepare tree %d: %w", i, err)
		}
		if err := t.compile(columns); err != nil {
			return nil, fmt.Errorf("prepare tree %d: %w", i, err)
		}
		p.depth, p.points = max(p.depth, t.depth), max(p.points, t.n)
		p.distinct = max(p.distinct, t.distinct)
		p.cost += int64(len(t.nodes)) * int64(t.n) * int64(t.stride)
		p.errBound += t.addMeans(p.base)
	}
	// Each phi is a sum over trees and paths of products of at most 2 depth
	// factors, each rounded once.
	p.errBound *= float64(2*p.depth*p.points+len(e.Trees)) * (1.0 / (1 << 52))
	p.router = tree.NewRouter(e)
	p.columns = make([]int32, len(columns))
	for f, i := range columns {
		p.columns[i] = f
	}
	words := max(1, min(tree.RouterRows/lanes, phiFloats/(lanes*e.Outputs*max(1, len(columns)))))
	p.block = words * lanes
	p.scratch.New = func() any { return p.newWalk() }
	p.count()
	return p, nil
}

func (t *pathTree) prepare(src *tree.Tree, e *tree.Ensemble, rules map[int]*rule) error {
	l, err := lay(e, src)
	if err != nil {
		return err
	}
	t.layout, t.tree = l, src
	t.n = max(1, (l.distinct+1)/2)
	t.rho, t.before, t.after = make([]float64, len(l.nodes)), make([]float64, len(l.nodes)), make([]float64, len(l.nodes))
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
		t.rho[c], t.after[c] = ratio, t.before[c]*ratio
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
		c := min(p.block, n-at)
		w.explain(p, rows[at*m:(at+c)*m], c)
		w.scatter(p, phi[at*m*k:(at+c)*m*k], c)
	}
	return nil
}

// walk is the state of one call of Explain.
type walk struct {
	machine machine
	in      *tree.RouterInput
	x       []float64
	// phi are the sums by word of rows, output, column and row of the word.
	phi []float64
}

func (p *Path) newWalk() *walk {
	planes, slots := 1, 1
	for i := range p.trees {
		t := &p.trees[i]
		planes = max(planes, t.program.tests+len(t.program.sats)+1)
		slots = max(slots, t.program.slots*t.n)
	}
	stride := max(1, min(lanes, slotBytes/8/slots))
	kernels := bestKernels()
	if stride != lanes {
		kernels = nil
	}
	return &walk{
		machine: machine{
			stride: stride, slots: make([]float64, slots*stride), planes: make([]tree.Plane, planes),
			rates: make([]float64, 2*p.points), one: make([]float64, slots), kernels: kernels,
		},
		in: p.router.NewInput(),
	}
}

// explain sums the values of n rows, at most a block.
func (w *walk) explain(p *Path, rows []float64, n int) {
	words := (n + lanes - 1) / lanes
	perWord := p.ensemble.Outputs * len(p.columns) * lanes
	if len(w.phi) < words*perWord {
		w.phi = make([]float64, words*perWord)
	}
	if len(w.x) < len(rows) {
		w.x = make([]float64, len(rows))
	}
	clear(w.phi[:words*perWord])
	round(w.x[:len(rows)], rows, p.ensemble.Float32)
	p.router.Fill(w.in, w.x[:len(rows)])
	for i := range p.trees {
		t := &p.trees[i]
		if t.program.tests == 0 {
			continue
		}
		p.router.Left(w.in, i, w.machine.planes)
		t.program.satisfy(w.machine.planes, words)
		for word := range words {
			in := min(lanes, n-word*lanes)
			for v := range t.stride {
				output := max(t.tree.Output, 0) + v
				w.machine.run(t, v, word, in, w.phi[word*perWord+output*len(p.columns)*lanes:][:len(p.columns)*lanes])
			}
		}
	}
}

// satisfy fills in the planes after the tests'.
func (p *program) satisfy(planes []tree.Plane, words int) {
	ones := &planes[p.tests+len(p.sats)]
	for w := range words {
		ones[w] = ^uint64(0)
	}
	for i := range p.sats {
		s := &p.sats[i]
		to, test, before := &planes[p.tests+i], &planes[s.test], &planes[s.before]
		for w := range words {
			if s.right {
				to[w] = before[w] &^ test[w]
			} else {
				to[w] = before[w] & test[w]
			}
		}
	}
}

// scatter writes the sums of n rows to phi.
func (w *walk) scatter(p *Path, phi []float64, n int) {
	m, k, c := p.ensemble.Features, p.ensemble.Outputs, len(p.columns)
	for row := range n {
		from := row/lanes*k*c*lanes + row%lanes
		for out := range k {
			to := phi[(row*k+out)*m:][:m]
			for i, f := range p.columns {
				to[f] = w.phi[from+(out*c+i)*lanes]
			}
		}
	}
}
