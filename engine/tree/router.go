package tree

import (
	"math"
	"unsafe"
)

// RouterRows is how many rows a Router decides at once.
const RouterRows = wideRows

// Plane has one bit for each of RouterRows rows: row r's is bit r%64 of word r/64.
type Plane = [RouterRows / 64]uint64

// Router decides which way rows go at all inner nodes of an ensemble, reached or
// not, as Tree.Left does, many rows at once. It is immutable and safe for
// concurrent use.
//
// Besides the ensemble it keeps 12 bytes an inner node and 2 KiB for each 255
// thresholds of a feature, at most 8 MiB.
type Router struct {
	ensemble *Ensemble
	wide     *wide[float64, uint64]
	trees    []routed
}

// routed is one tree; its tests are the inner nodes in their order.
type routed struct {
	tests []test
	// odd tests are decided by Tree.Left; those flipped are x >= t.
	odd     []oddTest
	flipped []int32
}

// RouterInput is a block of rows, made ready by Router.Fill.
type RouterInput struct {
	x    []float64
	rows int
	bins []byte
}

// Bytes is about what the router takes beside its ensemble.
func (r *Router) Bytes() int64 {
	n := int64(len(r.wide.segments)) * int64(unsafe.Sizeof(segment[uint64]{}))
	for i := range r.trees {
		t := &r.trees[i]
		n += int64(unsafe.Sizeof(*t)) + int64(cap(t.tests))*int64(unsafe.Sizeof(test{})) + int64(cap(t.odd))*int64(unsafe.Sizeof(oddTest{})) + 4*int64(cap(t.flipped))
	}
	return n
}

// NewRouter compiles an ensemble.
func NewRouter(e *Ensemble) *Router {
	r := &Router{ensemble: e, wide: &wide[float64, uint64]{}, trees: make([]routed, len(e.Trees))}
	binned := r.wide.segment(e, func(*Tree) bool { return true })
	if !binned {
		r.wide.segments = nil
	}
	for i := range e.Trees {
		r.add(i, binned)
	}
	return r
}

func (r *Router) add(i int, binned bool) {
	t, to := &r.ensemble.Trees[i], &r.trees[i]
	for j := range t.Nodes {
		n := &t.Nodes[j]
		if n.IsLeaf() {
			continue
		}
		at := int32(len(to.tests))
		var own test
		if !binned || isOdd[float64](n) {
			to.odd = append(to.odd, oddTest{at, int32(j)})
		} else {
			v, swap, _ := lessForm[float64](n)
			own = r.wide.test(n, key64(v), t.Left(n, math.NaN()) != swap)
			if swap {
				to.flipped = append(to.flipped, at)
			}
		}
		to.tests = append(to.tests, own)
	}
}

// NewInput returns space for a block of rows.
func (r *Router) NewInput() *RouterInput {
	// One column at least, which tests that are not binned are pointed at.
	return &RouterInput{bins: make([]byte, max(1, r.wide.columns)*wideRows)}
}

// Fill makes in of up to RouterRows rows, Features wide, rounded to float32
// already in a Float32 ensemble. It keeps x.
func (r *Router) Fill(in *RouterInput, x []float64) {
	in.x, in.rows = x, len(x)/r.ensemble.Features
	r.wide.fill(in.bins, x, in.rows, r.ensemble.Features)
}

// Left sets planes[i] to the rows of in that go left at the i'th inner node of a
// tree, in the order of Tree.Nodes. Bits beyond the rows mean nothing.
func (r *Router) Left(in *RouterInput, tree int, planes []Plane) {
	t, src := &r.trees[tree], &r.ensemble.Trees[tree]
	own := planes[:len(t.tests)]
	if hasWide() || in.rows > 32 {
		conditions(own, in.bins, t.tests, (in.rows+63)/64)
	} else {
		for i, test := range t.tests {
			var word uint64
			for row, b := range in.bins[test.column:][:in.rows] {
				if b < test.bound {
					word |= 1 << row
				}
			}
			own[i][0] = word
		}
	}
	for _, i := range t.flipped {
		for w := range own[i] {
			own[i][w] = ^own[i][w]
		}
	}
	for _, o := range t.odd {
		own[o.at] = leftPlane(src, &src.Nodes[o.node], in.x, in.rows, r.ensemble.Features)
	}
}
