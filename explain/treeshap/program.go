package treeshap

import (
	"math"

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

// op is one step of a program. Slots hold a float64 a point and row.
type op struct {
	kind uint32
	// c is the slot of the node's c; to that of the result.
	c, to uint32
	// left and right are the children's slots, or their leaves.
	left, right uint32
	// test and before are the planes of the rows that go left at the node, and of
	// those that satisfy its feature's splits above.
	test, before uint32
	// feature is the place of the feature's values.
	feature uint32
}

// The kinds of op.
const (
	opDown      = iota // c of a child that is no leaf
	opUp               // h of a node, and what it adds to phi
	opLeftLeaf         // opUp where the left child is a leaf
	opRightLeaf        // opUp where the right child is
	opBottom           // opUp where both are
	opFork             // opDown and opBottom of both children, then opUp
)

const (
	// lanes is how many rows a machine takes at most.
	lanes = 64
	// constants come before those of the points: of opDown the child's rho, and
	// what is added to it times tau where the row goes left and right; of the
	// others the children's rho. The ops of an opFork's children follow it.
	constants = 3
	// chunk is how many ops' constants are computed at a time, where they are
	// not kept.
	chunk = 1024
)

// program is the compiled form of a tree.
type program struct {
	ops []op
	// nodes are the ops' nodes: of opDown the child, else the node itself.
	nodes []int32
	// sats make the planes after the tests': the rows that satisfy the path's
	// splits on the feature of an edge, down to it. The last plane has all rows.
	sats   []satisfied
	tests  int
	slots  int
	leaves []float64 // by value, by leaf
	// consts are the ops' constants, one after the other; nil where they would
	// be too big.
	consts []float64
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
	tests   []int32
	sats    map[int32]uint32
	ones    uint32
	columns map[int32]uint32
}

// compile makes t's program; columns has the place of each feature's values, and
// gets those that it lacks.
func (t *pathTree) compile(columns map[int32]uint32) {
	c := &compiler{t: t, tests: make([]int32, len(t.tree.Nodes)), sats: map[int32]uint32{}, columns: columns}
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
	}
	c.ones = uint32(p.tests + len(c.sats))
	c.satisfy()
	p.slots = 2*t.depth + 1
	if p.tests > 0 {
		c.visit(0, 0, uint32(2*t.depth))
	}
	for v := range t.stride {
		for i := range t.nodes {
			if t.nodes[i].leaf {
				p.leaves = append(p.leaves, t.tree.Values[int(t.nodes[i].src)*t.stride+v])
			}
		}
	}
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
func (c *compiler) visit(i int32, depth, to uint32) {
	t := c.t
	last := uint32(2 * t.depth)
	at := [2]uint32{uint32(t.depth) + depth + 1, last}
	kinds := [2]uint32{opLeftLeaf, opRightLeaf}
	up := op{kind: opUp, c: depth, to: to, test: c.test(i), before: c.before(i + 1), feature: c.column(t.nodes[i+1].feature)}
	if c.isBottom(i+1) && c.isBottom(t.right(i)) {
		up.kind, up.left, up.right = opFork, at[0], at[1]
		c.emit(up, i)
		c.visit(i+1, depth+1, at[0])
		c.visit(t.right(i), depth+1, at[1])
		return
	}
	for side, j := range [2]int32{i + 1, t.right(i)} {
		if !t.nodes[j].leaf {
			c.emit(op{kind: opDown, c: depth, to: depth + 1, test: up.test, before: up.before}, j)
			c.visit(j, depth+1, at[side])
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
	c.emit(up, i)
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

func (c *compiler) emit(o op, node int32) {
	p := &c.t.program
	p.ops, p.nodes = append(p.ops, o), append(p.nodes, node)
}

// width returns the number of constants an op.
func (t *pathTree) width() int { return constants + 2*t.n }

// constantsOf fills in the constants of op i.
func (t *pathTree) constantsOf(i int, dst []float64) {
	node := t.program.nodes[i]
	r := 0.0
	if t.program.ops[i].kind == opDown {
		rho := t.rho[node]
		dst[0], dst[1], dst[2], r = rho, 1-rho, -rho, t.before[node]
		if !t.nodes[node].left {
			dst[1], dst[2] = dst[2], dst[1]
		}
	} else {
		dst[0], dst[1], dst[2], r = t.rho[node+1], t.rho[t.right(node)], 0, t.before[node+1]
	}
	tau, kappa := dst[constants:constants+t.n], dst[constants+t.n:constants+2*t.n]
	for q, x := range t.rule.t {
		f := float64(r*(1-x)) + x
		tau[q], kappa[q] = x/f, r/(f*f)
	}
}

// keep computes all constants.
func (t *pathTree) keep() {
	w := t.width()
	t.program.consts = make([]float64, len(t.program.ops)*w)
	for i := range t.program.ops {
		t.constantsOf(i, t.program.consts[i*w:(i+1)*w])
	}
}

// machine runs programs.
type machine struct {
	// stride is the number of floats a point of a slot has, at most lanes.
	stride int
	slots  []float64
	planes []tree.Plane
	// points is the number that the first slot's weights are those of.
	points int
	// kernels says that the processor's own form is taken.
	kernels bool
	consts  []float64
}

// run adds to phi, which has lanes floats a column, the value'th values of t for
// rows rows of a word of the planes, at most lanes.
func (m *machine) run(t *pathTree, value, word, rows int, phi []float64) {
	p := &t.program
	leaves := p.leaves[value*t.layout.leaves:][:t.layout.leaves]
	if m.points != t.n {
		m.points = t.n
		for q, w := range t.rule.w {
			for l := range m.stride {
				m.slots[q*m.stride+l] = w
			}
		}
	}
	for off := 0; off < rows; off += m.stride {
		n := min(m.stride, rows-off)
		if p.consts != nil {
			m.steps(t, p.ops, p.consts, word, off, n, phi, leaves)
			continue
		}
		w := t.width()
		for at, end := 0, 0; at < len(p.ops); at = end {
			end = p.cut(at)
			ops := p.ops[at:end]
			consts := m.consts[:len(ops)*w]
			for i := range ops {
				t.constantsOf(at+i, consts[i*w:(i+1)*w])
			}
			m.steps(t, ops, consts, word, off, n, phi, leaves)
		}
	}
}

// cut returns the end of the chunk of ops that begins at at: no opFork is parted
// from its children.
func (p *program) cut(at int) int {
	end := min(at+chunk, len(p.ops))
	for _, back := range [2]int{2, 1} {
		if p.ops[max(at, end-back)].kind == opFork {
			return min(end+3-back, len(p.ops))
		}
	}
	return end
}

func (m *machine) steps(t *pathTree, ops []op, consts []float64, word, off, rows int, phi, leaves []float64) {
	if m.kernels && t.n <= maxKernelPoints {
		runKernel(t.n, ops, consts, m.slots, m.planes, word, phi, leaves, rows)
		return
	}
	w := t.width()
	f := frame{m: m, n: t.n, rows: rows, off: off, word: word, phi: phi, leaves: leaves}
	for i := 0; i < len(ops); i++ {
		k := consts[i*w:]
		if ops[i].kind != opFork {
			f.step(&ops[i], k)
			continue
		}
		f.fork((*[3]op)(ops[i:]), k, w)
		i += 2
	}
}

// frame is one run of the plain form.
type frame struct {
	m                  *machine
	n, rows, off, word int
	phi, leaves        []float64
	delta, sum         [lanes]float64
}

// masks returns the rows that go left, and those that satisfy what is above.
func (f *frame) masks(o *op) (test, before uint64) {
	return f.m.planes[o.test][f.word] >> f.off, f.m.planes[o.before][f.word] >> f.off
}

func (f *frame) fork(o *[3]op, k []float64, width int) {
	test, before := f.masks(&o[0])
	tau := k[constants : constants+f.n]
	left, right := k[0], k[1]
	f.down(o[0].c, o[1].c, [3]float64{left, 1 - left, -left}, tau, test, before)
	f.step(&o[1], k[width:])
	f.down(o[0].c, o[2].c, [3]float64{right, -right, 1 - right}, tau, test, before)
	f.step(&o[2], k[2*width:])
	f.up(&o[0], k, test, before)
}

func (f *frame) step(o *op, k []float64) {
	test, before := f.masks(o)
	switch o.kind {
	case opDown:
		f.down(o.c, o.to, [3]float64(k), k[constants:constants+f.n], test, before)
	case opBottom:
		f.bottom(o, k, test, before)
	default:
		f.up(o, k, test, before)
	}
}

// point returns the rows of point q of a slot.
func (f *frame) point(slot uint32, q int) []float64 {
	return f.m.slots[(int(slot)*f.n+q)*f.m.stride:][:f.rows]
}

func (f *frame) down(from, into uint32, k [3]float64, taus []float64, test, before uint64) {
	rho, delta := k[0], f.delta[:f.rows]
	for l := range delta {
		d := k[2]
		if test>>l&1 == 1 {
			d = k[1]
		}
		if before>>l&1 == 0 {
			d = 0
		}
		delta[l] = d
	}
	for q, tau := range taus {
		c, to := f.point(from, q), f.point(into, q)
		for l, d := range delta {
			to[l] = c[l] * math.FMA(tau, d, rho)
		}
	}
}

func (f *frame) up(o *op, k []float64, test, before uint64) {
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
		tau, kappa := k[constants+q], k[constants+f.n+q]
		c, to := f.point(o.c, q), f.point(o.to, q)
		if o.kind != opLeftLeaf {
			left = f.point(o.left, q)
		}
		if o.kind != opRightLeaf {
			right = f.point(o.right, q)
		}
		for l := range sum {
			hL, hR := vL, vR
			if left != nil {
				hL = left[l]
			}
			if right != nil {
				hR = right[l]
			}
			m := math.FMA(k[1], hR, float64(k[0]*hL))
			g := hR - m
			if test>>l&1 == 1 {
				g = hL - m
			}
			if before>>l&1 == 0 {
				g = 0
			}
			t := float64(c[l] * kappa)
			if q == 0 {
				sum[l] = float64(t * g)
			} else {
				sum[l] = math.FMA(t, g, sum[l])
			}
			to[l] = math.FMA(tau, g, m)
		}
	}
	phi := f.phi[int(o.feature)*lanes+f.off:][:f.rows]
	for l, s := range sum {
		phi[l] += s
	}
}

func (f *frame) bottom(o *op, k []float64, test, before uint64) {
	vL, vR := f.leaves[o.left], f.leaves[o.right]
	m := math.FMA(k[1], vR, float64(k[0]*vL))
	gains, sum := f.delta[:f.rows], f.sum[:f.rows]
	for l := range gains {
		g := vR - m
		if test>>l&1 == 1 {
			g = vL - m
		}
		if before>>l&1 == 0 {
			g = 0
		}
		gains[l] = g
	}
	for q := range f.n {
		tau, kappa := k[constants+q], k[constants+f.n+q]
		c, to := f.point(o.c, q), f.point(o.to, q)
		for l, g := range gains {
			if q == 0 {
				sum[l] = float64(c[l] * kappa)
			} else {
				sum[l] = math.FMA(c[l], kappa, sum[l])
			}
			to[l] = math.FMA(tau, g, m)
		}
	}
	phi := f.phi[int(o.feature)*lanes+f.off:][:f.rows]
	for l, g := range gains {
		phi[l] = math.FMA(g, sum[l], phi[l])
	}
}
