package treeshap

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// A tree's program computes the path-dependent values of up to 64 rows at once.
// With c the product of the path's F(r, o) at every quadrature point, weights
// included, and h of a node the sum over the leaves below it of value times what
// their paths multiply c by, the node that splits on a feature whose product of
// cover ratios above is r and whose splits above the row satisfies has
//
//	M = rho_L h_L + rho_R h_R     the children, by cover
//	X = h_L or h_R                where the row goes
//	g = X - M
//	F = r (1-t) + t,  tau = t / F,  kappa = r / F^2
//	h = M + tau g
//	phi of the feature += sum over points of c kappa g
//	c of a child = c (rho + tau ((1 if the row goes there) - rho))
//
// and where the row does not satisfy the feature's splits above, g is 0 and
// children have c rho. A feature's first split has r = 1.
//
// The operations, fused multiplications among them, are the same in every form of
// the machine, so that a row's bits do not depend on it.

// op is one step of a program, of 48 bytes. Slots hold a float64 a point and row.
type op struct {
	kind uint16
	// c is the slot of the node's c; to that of the result.
	c, to uint16
	// left and right are the children's slots, or their leaves.
	left, right uint32
	// test and before are the offsets, in bytes, of the planes of the rows that go
	// left at the node, and of those that satisfy its feature's splits above.
	test, before uint32
	// feature is the offset, in bytes, of the feature's values.
	feature uint32
	// rates finds tau and kappa; see pathTree.rates.
	rates uint32
	// first and second are the children's rho; of opDown, the child's and 1
	// where it is the left one.
	first, second float64
}

// The kinds of op.
const (
	opDown      = iota // c of a child that is no leaf
	opUp               // h of a node, and what it adds to phi
	opLeftLeaf         // opUp where the left child is a leaf
	opRightLeaf        // opUp where the right child is
	opBottom           // opUp where both are
	opFork             // opDown and opBottom of both children, whose ops follow, then opUp
)

const (
	// lanes is how many rows a machine takes at most.
	lanes = 64
	// planeBytes and columnBytes are what a plane and a column of phi take.
	planeBytes  = tree.RouterRows / 8
	columnBytes = lanes * 8
	// keptPoints is the number of points up to which tau and kappa are kept, and for
	// which there are kernels; unrolledPoints that up to which those have no loop.
	keptPoints, unrolledPoints = 16, 8
	// maxPlanes, maxColumns and maxProducts keep an op's offsets in 32 bits.
	maxPlanes, maxColumns, maxProducts = 1 << 26, 1 << 23, 1 << 24
)

// program is the compiled form of a tree.
type program struct {
	ops []op
	// sats make the planes after the tests': the rows that satisfy the path's
	// splits on the feature of an edge, down to it. The last plane has all rows.
	sats   []satisfied
	tests  int
	slots  int
	leaves []float64 // by value, by leaf
	// products are the distinct r of the ops, the first of them 1; rates their
	// taus and kappas, nil beyond keptPoints.
	products, rates []float64
}

// satisfied is before and test, or before and not test.
type satisfied struct {
	test, before uint32
	right        bool
}

// compiler compiles one tree.
type compiler struct {
	t *pathTree
	// tests has the place of each tree.Node's test, sats the plane of each edge
	// that a later one needs.
	tests    []int32
	sats     map[int32]uint32
	ones     uint32
	columns  map[int32]uint32
	products map[float64]uint32
	// pairs makes a program of interactions, which has no opFork; else it is nil.
	pairs *pairCompiler
}

// compile makes t's program; columns has the place of each feature's values, and
// gets those that it lacks.
func (t *pathTree) compile(columns map[int32]uint32) error {
	return t.compileFor(columns, nil)
}

func (t *pathTree) compileFor(columns map[int32]uint32, pairs *pairCompiler) error {
	c := &compiler{
		t: t, tests: make([]int32, len(t.tree.Nodes)), sats: map[int32]uint32{}, columns: columns, products: map[float64]uint32{},
		pairs: pairs,
	}
	p := &t.program
	for i := range t.tree.Nodes {
		if !t.tree.Nodes[i].IsLeaf() {
			c.tests[i] = int32(p.tests)
			p.tests++
		}
	}
	for i := range t.nodes {
		if prev := t.nodes[i].prev; prev >= 0 && c.sats[prev] == 0 {
			c.sats[prev] = 1
		}
		if pairs != nil && i > 0 && !t.nodes[i].leaf {
			c.sats[int32(i)] = 1
		}
	}
	c.ones = uint32(p.tests + len(c.sats))
	c.satisfy()
	p.slots = 2*t.depth + 1
	if p.tests > 0 {
		c.product(1)
		c.visit(0, 0, uint16(2*t.depth))
	}
	if p.tests+len(p.sats) >= maxPlanes || len(columns) > maxColumns || len(p.products) > maxProducts {
		return fmt.Errorf("tree of %d splits: %w", p.tests, engine.ErrTooLarge)
	}
	for v := range t.stride {
		for i := range t.nodes {
			if t.nodes[i].leaf {
				p.leaves = append(p.leaves, t.tree.Values[int(t.nodes[i].src)*t.stride+v])
			}
		}
	}
	if t.n <= keptPoints {
		wide := t.kappaAt()
		p.rates = make([]float64, len(p.products)*2*wide)
		for i, r := range p.products {
			t.computeRates(r, p.rates[i*2*wide:])
		}
	}
	return nil
}

// satisfy numbers the planes of edges. Nodes come after those above them.
func (c *compiler) satisfy() {
	t := c.t
	var visit func(i int32)
	visit = func(i int32) {
		for _, j := range [2]int32{i + 1, t.right(i)} {
			if _, needed := c.sats[j]; needed {
				p := &t.program
				c.sats[j] = uint32(p.tests + len(p.sats))
				p.sats = append(p.sats, satisfied{c.test(i), c.before(j), !t.nodes[j].left})
			}
			if !t.nodes[j].leaf {
				visit(j)
			}
		}
	}
	if !t.nodes[0].leaf {
		visit(0)
	}
}

func (c *compiler) test(i int32) uint32 { return uint32(c.tests[c.t.nodes[i].src]) }

// before returns the plane of the rows that satisfy what is above the edge to j.
func (c *compiler) before(j int32) uint32 {
	if prev := c.t.nodes[j].prev; prev >= 0 {
		return c.sats[prev]
	}
	return c.ones
}

// visit compiles the subtree of inner node i, whose h goes to a slot. Right
// children share one slot: their h is used at once.
func (c *compiler) visit(i int32, depth, to uint16) {
	t := c.t
	right := t.right(i)
	at := [2]uint32{uint32(t.depth) + uint32(depth) + 1, uint32(2 * t.depth)}
	up := op{
		kind: opUp, c: depth, to: to, test: c.test(i) * planeBytes, before: c.before(i+1) * planeBytes,
		rates: c.product(t.before[i+1]),
		first: t.rho[i+1], second: t.rho[right], left: at[0], right: at[1],
	}
	if c.pairs == nil {
		up.feature = c.column(t.nodes[i+1].feature) * columnBytes
	}
	p := &t.program
	if c.pairs == nil && c.isBottom(i+1) && c.isBottom(right) {
		up.kind = opFork
		p.ops = append(p.ops, up)
		c.visit(i+1, depth+1, uint16(at[0]))
		c.visit(right, depth+1, uint16(at[1]))
		return
	}
	kinds := [2]uint16{opLeftLeaf, opRightLeaf}
	for side, j := range [2]int32{i + 1, right} {
		if !t.nodes[j].leaf {
			down := up
			down.kind, down.to, down.first, down.second = opDown, depth+1, t.rho[j], float64(1-side)
			p.ops = append(p.ops, down)
			c.descend(j, depth+1, uint16(at[side]))
			continue
		}
		at[side] = uint32(t.nodes[j].leafIndex)
		if up.kind == opUp {
			up.kind = kinds[side]
		} else {
			up.kind = opBottom
		}
	}
	up.left, up.right = at[0], at[1]
	p.ops = append(p.ops, up)
	if c.pairs != nil {
		up := &p.ops[len(p.ops)-1]
		up.feature = c.pairs.node(c, i) * columnBytes
	}
}

// descend is visit of a node whose edge interactions have to know of.
func (c *compiler) descend(j int32, depth, to uint16) {
	if c.pairs == nil {
		c.visit(j, depth, to)
		return
	}
	edge := &c.pairs.edges[c.t.nodes[j].pos]
	above := *edge
	*edge = j
	c.visit(j, depth, to)
	*edge = above
}

// product returns where the rates of r are found.
func (c *compiler) product(r float64) uint32 {
	p := &c.t.program
	i, ok := c.products[r]
	if !ok {
		i = uint32(len(p.products))
		c.products[r] = i
		p.products = append(p.products, r)
	}
	if c.t.n <= keptPoints {
		return i * uint32(2*c.t.kappaAt()*8)
	}
	return i
}

// isBottom reports whether i is an inner node over two leaves.
func (c *compiler) isBottom(i int32) bool {
	return !c.t.nodes[i].leaf && c.t.nodes[i+1].leaf && c.t.nodes[c.t.right(i)].leaf
}

// column returns the place of a feature's values.
func (c *compiler) column(feature int32) uint32 {
	column, ok := c.columns[feature]
	if !ok {
		column = uint32(len(c.columns))
		c.columns[feature] = column
	}
	return column
}

// kappaAt is where the kappas begin after the taus of a product: a kernel that loops
// over the points has them at one place.
func (t *pathTree) kappaAt() int {
	if t.n <= keptPoints && (t.n > unrolledPoints || t.looped) {
		return keptPoints
	}
	return t.n
}

// computeRates fills in the taus and kappas of r.
func (t *pathTree) computeRates(r float64, dst []float64) {
	at := t.kappaAt()
	for q, x := range t.rule.t {
		f := float64(r*(1-x)) + x
		dst[q], dst[at+q] = x/f, r/(f*f)
	}
}

// machine runs programs.
type machine struct {
	// stride is the number of floats a point of a slot has, at most lanes.
	stride int
	slots  []float64
	planes []tree.Plane
	// points is the number whose weights the first slot has, for weighed rows.
	points, weighed int
	// kernels are the processor's own form, nil for the plain one.
	kernels *kernelSet
	// rates has room for those that are not kept, one for the slots of one row.
	rates, one []float64
}

// run adds to phi, which has lanes floats a column, the value'th values of t for
// rows rows of a word of the planes, at most lanes.
func (m *machine) run(t *pathTree, value, word, rows int, phi []float64) {
	p := &t.program
	leaves := p.leaves[value*t.layout.leaves:][:t.layout.leaves]
	if m.kernels != nil && t.n <= keptPoints {
		m.weigh(t, min(m.stride, (rows+7)/8*8))
		m.kernels.run(t.n, p, m.slots, m.planes, word, phi, leaves, rows)
		return
	}
	if rows == 1 {
		m.runOne(t, word, phi, leaves)
		return
	}
	m.weigh(t, min(m.stride, (rows+7)/8*8))
	for off := 0; off < rows; off += m.stride {
		f := frame{place: place{m: m, t: t, n: t.n, rows: min(m.stride, rows-off), off: off, word: word, phi: phi, leaves: leaves}}
		for i := 0; i < len(p.ops); i++ {
			if p.ops[i].kind != opFork {
				f.step(&p.ops[i])
				continue
			}
			f.fork((*[3]op)(p.ops[i:]))
			i += 2
		}
	}
}

// weigh puts the weights of t's points into the first slot.
func (m *machine) weigh(t *pathTree, rows int) {
	if m.points == t.n && m.weighed >= rows {
		return
	}
	m.points, m.weighed = t.n, rows
	for q, w := range t.rule.w {
		to := m.slots[q*m.stride:][:rows]
		for l := range to {
			to[l] = w
		}
	}
}

// place is where a run of the plain form is: rows from off on of a word.
type place struct {
	m                  *machine
	t                  *pathTree
	n, rows, off, word int
	phi, leaves        []float64
}

// frame is one run of the plain form for several rows.
type frame struct {
	place
	delta, sum [lanes]float64
}

// masks returns the rows that go left, and those that satisfy what is above.
func (f *place) masks(o *op) (test, before uint64) {
	return f.m.planes[o.test/planeBytes][f.word] >> f.off, f.m.planes[o.before/planeBytes][f.word] >> f.off
}

// rates returns the taus and kappas of o.
func (f *place) rates(o *op) (tau, kappa []float64) {
	p := &f.t.program
	rates := f.m.rates
	if p.rates != nil {
		rates = p.rates[o.rates/8:]
	} else {
		f.t.computeRates(p.products[o.rates], rates)
	}
	at := f.t.kappaAt()
	return rates[:f.n], rates[at : at+f.n]
}

func (f *frame) fork(o *[3]op) {
	f.down(&o[0], o[1].c, o[0].first, true)
	f.step(&o[1])
	f.down(&o[0], o[2].c, o[0].second, false)
	f.step(&o[2])
	f.up(&o[0])
}

func (f *frame) step(o *op) {
	switch o.kind {
	case opDown:
		f.down(o, o.to, o.first, o.second == 1)
	case opBottom:
		f.bottom(o)
	default:
		f.up(o)
	}
}

// phiAt returns the rows' values of o's feature.
func (f *frame) phiAt(o *op) []float64 {
	return f.phi[int(o.feature)/8+f.off:][:f.rows]
}

// point returns the rows of point q of a slot.
func (f *frame) point(slot, q int) []float64 {
	return f.m.slots[(slot*f.n+q)*f.m.stride:][:f.rows]
}

// choose returns a where the lowest bit is set, else b, without a branch, which on
// real rows would be mispredicted every other time.
func choose(bit uint64, a, b float64) float64 {
	mask := -(bit & 1)
	return math.Float64frombits(math.Float64bits(a)&mask | math.Float64bits(b)&^mask)
}

// down computes the c of a child of o's node.
func (f *frame) down(o *op, into uint16, rho float64, left bool) {
	test, before := f.masks(o)
	taus, _ := f.rates(o)
	if !left {
		test = ^test
	}
	delta := f.delta[:f.rows]
	for l := range delta {
		delta[l] = choose(before>>l, choose(test>>l, 1-rho, -rho), 0)
	}
	for q, tau := range taus {
		c, to := f.point(int(o.c), q), f.point(int(into), q)
		for l, d := range delta {
			to[l] = c[l] * math.FMA(tau, d, rho)
		}
	}
}

func (f *frame) up(o *op) {
	test, before := f.masks(o)
	taus, kappas := f.rates(o)
	var left, right []float64
	vL, vR := 0.0, 0.0
	if o.kind == opLeftLeaf {
		vL = f.leaves[o.left]
	}
	if o.kind == opRightLeaf {
		vR = f.leaves[o.right]
	}
	sum := f.sum[:f.rows]
	for q := range f.n {
		tau, kappa := taus[q], kappas[q]
		c, to := f.point(int(o.c), q), f.point(int(o.to), q)
		if o.kind != opLeftLeaf {
			left = f.point(int(o.left), q)
		}
		if o.kind != opRightLeaf {
			right = f.point(int(o.right), q)
		}
		for l := range sum {
			hL, hR := vL, vR
			if left != nil {
				hL = left[l]
			}
			if right != nil {
				hR = right[l]
			}
			m := math.FMA(o.second, hR, float64(o.first*hL))
			g := choose(before>>l, choose(test>>l, hL, hR)-m, 0)
			t := float64(c[l] * kappa)
			if q == 0 {
				sum[l] = float64(t * g)
			} else {
				sum[l] = math.FMA(t, g, sum[l])
			}
			to[l] = math.FMA(tau, g, m)
		}
	}
	phi := f.phiAt(o)
	for l, s := range sum {
		phi[l] += s
	}
}

func (f *frame) bottom(o *op) {
	test, before := f.masks(o)
	taus, kappas := f.rates(o)
	vL, vR := f.leaves[o.left], f.leaves[o.right]
	m := math.FMA(o.second, vR, float64(o.first*vL))
	gains, sum := f.delta[:f.rows], f.sum[:f.rows]
	for l := range gains {
		gains[l] = choose(before>>l, choose(test>>l, vL-m, vR-m), 0)
	}
	for q := range f.n {
		tau, kappa := taus[q], kappas[q]
		c, to := f.point(int(o.c), q), f.point(int(o.to), q)
		for l, g := range gains {
			if q == 0 {
				sum[l] = float64(c[l] * kappa)
			} else {
				sum[l] = math.FMA(c[l], kappa, sum[l])
			}
			to[l] = math.FMA(tau, g, m)
		}
	}
	phi := f.phiAt(o)
	for l, g := range gains {
		phi[l] = math.FMA(g, sum[l], phi[l])
	}
}
