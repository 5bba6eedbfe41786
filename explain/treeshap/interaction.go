package treeshap

import "github.com/pellucid/pellucid/engine/tree"

// Interactions computes the pairwise Shapley interaction values of rows into
// dst[row][output][feature][feature], in the form of XGBoost's
// pred_interactions: half of each pair's interaction on either side of the
// diagonal, and on the diagonal what is left of the feature's own phi, so that a
// row of the matrix sums to phi and the whole matrix to margin minus base.
func (p *Path) Interactions(rows, dst []float64) error {
	m, k := p.ensemble.Features, p.ensemble.Outputs
	n, err := checkSizes(rows, dst, m, m*m*k)
	if err != nil {
		return err
	}
	clear(dst)
	if plan := p.pairPlan(); plan != nil {
		plan.interactions(p, rows, dst, n)
	} else {
		p.walkInteractions(rows, dst, n)
	}
	for i := 0; i < len(dst); i += m * m {
		shareInteractions(dst[i:][:m*m], m)
	}
	return nil
}

// walkInteractions adds the raw matrices a row at a time, for ensembles without a
// plan.
func (p *Path) walkInteractions(rows, dst []float64, n int) {
	m, k := p.ensemble.Features, p.ensemble.Outputs
	w := newPairWalk(p)
	for row := range n {
		round(w.x, rows[row*m:(row+1)*m], p.ensemble.Float32)
		own := dst[row*m*m*k : (row+1)*m*m*k]
		for i := range p.trees {
			w.tree = &p.trees[i]
			for v := range w.tree.stride {
				out := max(w.tree.tree.Output, 0) + v
				w.start(v, own[out*m*m:(out+1)*m*m])
			}
		}
	}
}

// pairWalk is the state of one row's walk with interactions.
type pairWalk struct {
	features int
	x, m     []float64
	tree     *pathTree
	value    int
	sat      []bool
	c, h     []float64
	// g[pos] is the difference factor G of the path's pos'th distinct feature
	// at every point, feature[pos] that feature; saved[depth] is what an edge
	// put aside and table[depth] the edge's table.
	g, saved, table []float64
	feature         []int32
}

func newPairWalk(p *Path) *pairWalk {
	nodes := 0
	for i := range p.trees {
		nodes = max(nodes, len(p.trees[i].nodes))
	}
	floats := (p.depth + 1) * p.points
	return &pairWalk{
		features: p.ensemble.Features,
		x:        make([]float64, p.ensemble.Features),
		sat:      make([]bool, nodes),
		c:        make([]float64, floats),
		h:        make([]float64, floats),
		g:        make([]float64, (p.distinct+1)*p.points),
		saved:    make([]float64, floats),
		table:    make([]float64, floats*2*variants),
		feature:  make([]int32, p.distinct+1),
	}
}

func (w *pairWalk) start(value int, m []float64) {
	if len(w.tree.nodes) == 1 {
		return
	}
	w.value, w.m = value, m
	copy(w.c, w.tree.rule.w)
	w.visit(0, 0)
}

func (w *pairWalk) visit(i int32, depth int) {
	t := w.tree
	n := t.n
	clear(w.h[depth*n:][:n])
	src := &t.tree.Nodes[t.nodes[i].src]
	left := t.tree.Left(src, w.x[src.Feature])
	for _, j := range [2]int32{i + 1, t.right(i)} {
		w.child(j, depth, left == t.nodes[j].left, src)
	}
}

// child adds the part of the subtree under node j.
func (w *pairWalk) child(j int32, depth int, goes bool, src *tree.Node) {
	t := w.tree
	n := t.n
	nd := &t.nodes[j]
	before := nd.prev < 0 || w.sat[nd.prev]
	w.sat[j] = before && goes
	at := variants - 1
	if before {
		at--
	}
	if w.sat[j] {
		at--
	}
	table := w.table[depth*2*variants*n:][:2*variants*n]
	t.edge(j, table)
	ratio, delta := table[at*n:][:n], table[(variants+at)*n:][:n]
	c, next := w.c[depth*n:][:n], w.c[(depth+1)*n:][:n]
	for q := range n {
		next[q] = c[q] * ratio[q]
	}
	g, saved := w.g[int(nd.pos)*n:][:n], w.saved[depth*n:][:n]
	if nd.prev < 0 {
		clear(g)
		w.feature[nd.pos] = nd.feature
	}
	copy(saved, g)
	for q := range n {
		g[q] += delta[q]
	}
	h, below := w.h[depth*n:][:n], w.h[(depth+1)*n:][:n]
	if nd.leaf {
		v := t.tree.Values[int(nd.src)*t.stride+w.value]
		for q := range n {
			below[q] = next[q] * v
		}
	} else {
		w.visit(j, depth+1)
	}
	copy(g, saved)
	for q := range n {
		h[q] += below[q]
		// From here on below is the part of it that the edge's change carries.
		below[q] *= delta[q]
	}
	w.pairs(nd, below)
}

// pairs adds the edge's part to its feature and to the feature's pairs with the
// other features of the path.
func (w *pairWalk) pairs(nd *node, part []float64) {
	n := len(part)
	row := w.m[int(nd.feature)*w.features:][:w.features]
	for _, v := range part {
		row[nd.feature] += v
	}
	for pos := range int(nd.distinct) {
		if pos == int(nd.pos) {
			continue
		}
		sum := 0.0
		for q, v := range part {
			sum += v * w.g[pos*n+q]
		}
		row[w.feature[pos]] += sum
	}
}
