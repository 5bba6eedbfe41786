package treeshap

import (
	"math"
	"sync"

	"github.com/pellucid/pellucid/engine/tree"
)

// Interactions of up to 64 rows at once need little beside the values. What a node
// that splits on feature i adds to phi is a sum over the points of s = c kappa g
// (see program.go). Another feature j of the path above it has the difference factor
//
//	G = (1 - r) / (r (1-t) + t)   where the row satisfies j's splits above
//	G = -1 / (1-t)                where it does not
//
// with r the product of cover ratios of those splits, and the sum of s G is what the
// node adds to the pair's index. So a pair costs a node a multiplication and addition
// a point, and the second form of G is one sum for all of a node's pairs.

// maxPairFloats bounds the sums of 64 rows, and maxGains the bytes of a tree's G.
const maxPairFloats, maxGains = 4 << 20, 1 << 31

// pairEntry is a pair that a node adds to.
type pairEntry struct {
	// plane is the offset, in bytes, of the rows that satisfy the other feature's
	// splits; gain that of its G; column that of the pair's sums.
	plane, gain, column uint32
}

// pairTree is a tree compiled for interactions; what op i adds to are entries
// [ends[i-1], ends[i]).
type pairTree struct {
	pathTree
	entries []pairEntry
	ends    []int32
	// gains are G where the splits are satisfied, by product and point; the first
	// are G where they are not.
	gains []float64
}

// pairPlan is an ensemble compiled for interactions.
type pairPlan struct {
	trees []pairTree
	// pairs are the features of each column, twice the same for the feature's phi.
	pairs   [][2]int32
	scratch sync.Pool
}

// pairCompiler is what a compiler of interactions has beside.
type pairCompiler struct {
	tree    *pairTree
	columns map[[2]int32]uint32
	gains   map[float64]uint32
	// edges has the last edge of each distinct feature of the path.
	edges []int32
}

// pairPlan returns nil where the sums or tables would be too large: then rows are
// walked one by one. What it returns depends on the ensemble only.
func (p *Path) pairPlan() *pairPlan {
	p.pairsOnce.Do(func() {
		if p.pairs = p.compilePairs(); p.pairs != nil {
			p.held.Add(p.pairs.bytes())
		}
	})
	return p.pairs
}

func (p *Path) compilePairs() *pairPlan {
	if p.points > keptPoints || 2*p.depth+2 > math.MaxUint16 {
		return nil
	}
	plan := &pairPlan{trees: make([]pairTree, len(p.trees))}
	columns := map[[2]int32]uint32{}
	for i := range p.trees {
		t := &plan.trees[i]
		t.pathTree = p.trees[i]
		t.program, t.looped = program{}, true
		c := &pairCompiler{tree: t, columns: columns, gains: map[float64]uint32{}, edges: make([]int32, t.distinct+1)}
		for _, x := range t.rule.t {
			t.gains = append(t.gains, -1/(1-x))
		}
		if err := t.compileFor(nil, c); err != nil || len(t.gains)*8 > maxGains {
			return nil
		}
		if len(columns)*lanes*p.ensemble.Outputs > maxPairFloats {
			return nil
		}
	}
	plan.pairs = make([][2]int32, len(columns))
	for pair, i := range columns {
		plan.pairs[i] = pair
	}
	plan.scratch.New = func() any { return plan.newWalk(p) }
	return plan
}

// node adds the entries of node i, whose op was the last, and returns the column of
// its feature's phi.
func (c *pairCompiler) node(in *compiler, i int32) uint32 {
	t := c.tree
	feature := t.nodes[i+1].feature
	for len(t.ends) < len(t.program.ops)-1 {
		t.ends = append(t.ends, int32(len(t.entries)))
	}
	for _, edge := range c.edges[:t.nodes[i].distinct] {
		other := t.nodes[edge].feature
		if other == feature {
			continue
		}
		t.entries = append(t.entries, pairEntry{in.sats[edge] * planeBytes, c.gain(t.after[edge]), c.column(feature, other) * columnBytes})
	}
	t.ends = append(t.ends, int32(len(t.entries)))
	return c.column(feature, feature)
}

// gain returns where the G of r is found.
func (c *pairCompiler) gain(r float64) uint32 {
	at, ok := c.gains[r]
	if !ok {
		t := c.tree
		at = uint32(8 * len(t.gains))
		c.gains[r] = at
		for _, x := range t.rule.t {
			t.gains = append(t.gains, (1-r)/(float64(r*(1-x))+x))
		}
	}
	return at
}

func (c *pairCompiler) column(a, b int32) uint32 {
	pair := [2]int32{min(a, b), max(a, b)}
	column, ok := c.columns[pair]
	if !ok {
		column = uint32(len(c.columns))
		c.columns[pair] = column
	}
	return column
}

// pairRun is the state of one call.
type pairRun struct {
	machine machine
	in      *tree.RouterInput
	x, sums []float64
	// gains has s, acc what a pair gets.
	gains, acc []float64
}

func (plan *pairPlan) newWalk(p *Path) *pairRun {
	planes, slots := 1, 1
	for i := range plan.trees {
		t := &plan.trees[i]
		planes = max(planes, t.program.tests+len(t.program.sats)+1)
		slots = max(slots, t.program.slots*t.n)
	}
	stride := max(1, min(lanes, slotBytes/8/slots))
	kernels := bestKernels()
	if stride != lanes {
		kernels = nil
	}
	return &pairRun{
		machine: machine{stride: stride, slots: make([]float64, slots*stride), planes: make([]tree.Plane, planes), kernels: kernels},
		in:      p.router.NewInput(),
		x:       make([]float64, lanes*p.ensemble.Features),
		sums:    make([]float64, lanes*len(plan.pairs)*p.ensemble.Outputs),
		gains:   make([]float64, lanes*p.points),
		acc:     make([]float64, 2*lanes),
	}
}

// interactions adds the raw matrices of n rows to dst.
func (plan *pairPlan) interactions(p *Path, rows, dst []float64, n int) {
	m, k := p.ensemble.Features, p.ensemble.Outputs
	w := plan.scratch.Get().(*pairRun)
	defer plan.scratch.Put(w)
	for at := 0; at < n; at += lanes {
		c := min(lanes, n-at)
		w.explain(p, plan, rows[at*m:(at+c)*m], c)
		for row := range c {
			for out := range k {
				own := dst[((at+row)*k+out)*m*m:][:m*m]
				for i, pair := range plan.pairs {
					own[int(pair[0])*m+int(pair[1])] = w.sums[(out*len(plan.pairs)+i)*lanes+row]
				}
			}
		}
	}
}

func (w *pairRun) explain(p *Path, plan *pairPlan, rows []float64, n int) {
	x := w.x[:len(rows)]
	clear(w.sums)
	round(x, rows, p.ensemble.Float32)
	p.router.Fill(w.in, x)
	perOutput := len(plan.pairs) * lanes
	for i := range plan.trees {
		t := &plan.trees[i]
		if t.program.tests == 0 {
			continue
		}
		p.router.Left(w.in, i, w.machine.planes)
		t.program.satisfy(w.machine.planes, 1)
		for v := range t.stride {
			w.run(t, v, n, w.sums[(max(t.tree.Output, 0)+v)*perOutput:][:perOutput])
		}
	}
}

// run adds the value'th values of t for n rows to sums.
func (w *pairRun) run(t *pairTree, value, n int, sums []float64) {
	m := &w.machine
	p := &t.program
	leaves := p.leaves[value*t.layout.leaves:][:t.layout.leaves]
	m.weigh(&t.pathTree, min(m.stride, (n+7)/8*8))
	if m.kernels != nil {
		m.kernels.runPairs(w, t, sums, leaves, n)
		return
	}
	for off := 0; off < n; off += m.stride {
		f := frame{place: place{m: m, t: &t.pathTree, n: t.n, rows: min(m.stride, n-off), off: off, phi: sums, leaves: leaves}}
		from := int32(0)
		for i := range p.ops {
			if t.ends[i] > from {
				w.weighted(&f, &p.ops[i])
				for _, e := range t.entries[from:t.ends[i]] {
					w.pair(&f, &e, t.gains)
				}
				from = t.ends[i]
			}
			f.step(&p.ops[i])
		}
	}
}

// weighted computes the s of a node, and what all its pairs get where the other
// feature's splits are not satisfied. It comes before the node's op, which may
// write over a child's slot.
func (w *pairRun) weighted(f *frame, o *op) {
	test, before := f.masks(o)
	_, kappas := f.rates(o)
	not := w.acc[lanes:][:f.rows]
	clear(not)
	var left, right []float64
	vL, vR := 0.0, 0.0
	if o.kind == opLeftLeaf || o.kind == opBottom {
		vL = f.leaves[o.left]
	}
	if o.kind == opRightLeaf || o.kind == opBottom {
		vR = f.leaves[o.right]
	}
	for q := range f.n {
		c, s := f.point(int(o.c), q), w.gains[q*lanes:][:f.rows]
		if o.kind == opUp || o.kind == opRightLeaf {
			left = f.point(int(o.left), q)
		}
		if o.kind == opUp || o.kind == opLeftLeaf {
			right = f.point(int(o.right), q)
		}
		gain := -1 / (1 - f.t.rule.t[q])
		for l := range s {
			hL, hR := vL, vR
			if left != nil {
				hL = left[l]
			}
			if right != nil {
				hR = right[l]
			}
			m := math.FMA(o.second, hR, float64(o.first*hL))
			g := choose(before>>l, choose(test>>l, hL, hR)-m, 0)
			s[l] = float64(float64(c[l]*kappas[q]) * g)
			not[l] = math.FMA(s[l], gain, not[l])
		}
	}
}

// pair adds to a pair.
func (w *pairRun) pair(f *frame, e *pairEntry, gains []float64) {
	acc, not := w.acc[:f.rows], w.acc[lanes:][:f.rows]
	clear(acc)
	for q, g := range gains[e.gain/8:][:f.n] {
		for l, s := range w.gains[q*lanes:][:f.rows] {
			acc[l] = math.FMA(s, g, acc[l])
		}
	}
	plane := f.m.planes[e.plane/planeBytes][0] >> f.off
	sums := f.phi[int(e.column)/8+f.off:][:f.rows]
	for l, a := range acc {
		sums[l] += choose(plane>>l, a, not[l])
	}
}
