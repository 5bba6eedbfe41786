package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// suppression holds a NonMaxSuppression node's inputs.
type suppression struct {
	boxes  []float64
	centre bool
	iou    float64
	// order are the boxes by score, kept and picked those that stay, and their indices; aside
	// are the places of those of them that are in no lane.
	order, picked []int
	kept          []box
	aside         []int32
	lanes         lanes
	// all are the picked ones of all classes: batch, class, index.
	all []int64
}

// begin gives up what the step before had.
func (s *suppression) begin() { s.boxes, s.all = nil, s.all[:0] }

func buildNonMaxSuppression(b *builder) (Kernel, error) {
	centre := b.attrs.int("center_point_box", 0) == 1
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		bs, ss := in[0].Shape(), in[1].Shape()
		boxes, ok := x.float64s(in[0])
		scores, also := x.float64s(in[1])
		if !ok || !also || len(bs) != 3 || len(ss) != 3 || bs[2] != 4 || bs[0] != ss[0] || bs[1] != ss[2] {
			return nil, misfit("boxes of shape %v with scores of %v", bs, ss)
		}
		given := [3]float64{0, 0, math.Inf(-1)} // the most boxes, how far they overlap, the least score
		for i := range given {
			if t := arg(in, 2+i); t != nil && t.Len() > 0 {
				v, err := scalarOf(t)
				if err != nil {
					return nil, err
				}
				given[i] = v
			}
		}
		s := &suppression{}
		if x.scratch != nil {
			s = roomFor[suppression](x.scratch)
		}
		s.centre, s.iou = centre, given[1]
		most, least := clampIndex(given[0], math.MaxInt32), given[2]
		n := bs[1]
		if err := x.reserve(engine.Int64, (2+boxNumbers+wideBox)*n); err != nil {
			return nil, err
		}
		for line := range ss[0] * ss[1] {
			s.boxes = boxes[line/ss[1]*n*4:][:n*4]
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			for _, i := range s.pick(scores[line*n:(line+1)*n], most, least) {
				s.all = append(s.all, int64(line/ss[1]), int64(line%ss[1]), int64(i))
			}
		}
		t, picked, err := rawOf[int64](x, len(s.all)/3, 3)
		if err != nil {
			return nil, err
		}
		copy(picked, s.all)
		return x.one(t, nil)
	}, nil
}

// box is one as overlap reads it.
type box struct {
	// corners are the least and greatest coordinates on both axes.
	corners [4]float64
	area    float64
}

// boxNumbers are those of a box.
const boxNumbers = 5

// pick takes the boxes with the best scores above least, but for those that overlap
// with a better one. What it returns is its own until it is called again.
func (s *suppression) pick(scores []float64, most int, least float64) []int {
	s.order, s.picked, s.kept, s.aside = s.order[:0], s.picked[:0], s.kept[:0], s.aside[:0]
	for i, v := range scores {
		if v > least {
			s.order = append(s.order, i)
		}
	}
	slices.SortStableFunc(s.order, func(i, j int) int {
		switch {
		case scores[i] > scores[j]:
			return -1
		case scores[i] < scores[j]:
			return 1
		}
		return 0
	})
	s.lay()
	for _, i := range s.order {
		if len(s.kept) >= most {
			break
		}
		if b := s.box(i); !s.suppressed(&b) {
			s.keep(&b)
			s.kept, s.picked = append(s.kept, b), append(s.picked, i)
		}
	}
	return s.picked
}

// lanes are even parts of an axis, with the places of the kept boxes that each meets: those
// that do not share a lane do not overlap.
type lanes struct {
	axis        int // 0 or 1, as a box's corners have it
	start, size float64
	boxes       [][]int32
}

// A box that meets more than wideBox lanes is kept aside, where every other one looks; few
// boxes have none.
const mostLanes, wideBox, fewBoxes = 1 << 12, 16, 64

// lay makes lanes of the axis along which the boxes to look at reach further, for their
// size. There are none where boxes without a common point suppress one another.
func (s *suppression) lay() {
	l := &s.lanes
	for i := range l.boxes {
		l.boxes[i] = l.boxes[i][:0]
	}
	l.boxes = l.boxes[:0]
	if len(s.order) < fewBoxes || !(s.iou >= 0) {
		return
	}
	best := 0.0
	for axis := range 2 {
		low, high, sizes := math.Inf(1), math.Inf(-1), 0.0
		for _, i := range s.order {
			c := s.corners(i)
			low, high, sizes = min(low, c[axis]), max(high, c[axis+2]), sizes+max(c[axis+2]-c[axis], 0)
		}
		// What is no number, or without an end, leaves the boxes without lanes.
		n := (high - low) / sizes * float64(len(s.order))
		if n > best && !math.IsInf(n, 0) {
			best, l.axis, l.start, l.size = n, axis, low, high-low
		}
	}
	if best < 2 {
		return
	}
	n := int(min(4*best, mostLanes, float64(len(s.order))))
	if l.size /= float64(n); l.size == 0 {
		return
	}
	l.boxes = slices.Grow(l.boxes, n)[:n]
}

// of are the first and the last lane that a box meets.
func (l *lanes) of(b *box) (first, last int) {
	at := func(v float64) int { return int(min(max((v-l.start)/l.size, 0), float64(len(l.boxes)-1))) }
	return at(b.corners[l.axis]), at(b.corners[l.axis+2])
}

// keep puts the box that is kept next where others look for it.
func (s *suppression) keep(b *box) {
	at := int32(len(s.kept))
	if l := &s.lanes; len(l.boxes) > 0 {
		if first, last := l.of(b); last-first < wideBox {
			for i := first; i <= last; i++ {
				l.boxes[i] = append(l.boxes[i], at)
			}
			return
		}
	}
	s.aside = append(s.aside, at)
}

// suppressed reports whether a box overlaps with one that is kept.
func (s *suppression) suppressed(b *box) bool {
	if s.overlaps(b, s.aside) {
		return true
	}
	if len(s.lanes.boxes) == 0 {
		return false
	}
	first, last := s.lanes.of(b)
	for i := first; i <= last; i++ {
		if s.overlaps(b, s.lanes.boxes[i]) {
			return true
		}
	}
	return false
}

func (s *suppression) overlaps(b *box, kept []int32) bool {
	for _, i := range kept {
		if overlap(b, &s.kept[i]) > s.iou {
			return true
		}
	}
	return false
}

// overlap is the area that two boxes share over that which they cover.
func overlap(a, b *box) float64 {
	h := min(a.corners[2], b.corners[2]) - max(a.corners[0], b.corners[0])
	if h <= 0 {
		return 0
	}
	w := min(a.corners[3], b.corners[3]) - max(a.corners[1], b.corners[1])
	if w <= 0 {
		return 0
	}
	return h * w / (a.area + b.area - h*w)
}

func (s *suppression) box(i int) box {
	c := s.corners(i)
	return box{corners: c, area: (c[2] - c[0]) * (c[3] - c[1])}
}

// corners are a box's least and greatest coordinates on both axes.
func (s *suppression) corners(i int) [4]float64 {
	b := s.boxes[4*i : 4*i+4]
	if s.centre {
		return [4]float64{b[1] - b[3]/2, b[0] - b[2]/2, b[1] + b[3]/2, b[0] + b[2]/2}
	}
	return [4]float64{min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])}
}

// evenGrid are the pairs of an AffineGrid node.
type evenGrid struct {
	size, strides []int
	align         bool
}

// affineGrid puts the points of an even grid through matrices.
func affineGrid(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	size, err := x.intsOf(in[1])
	if err != nil {
		return nil, err
	}
	shape := in[0].Shape()
	d := len(size) - 2
	if d != 2 && d != 3 || len(shape) != 3 || shape[0] != size[0] || shape[1] != d || shape[2] != d+1 {
		return nil, misfit("matrices of shape %v for a grid of %d dimensions, or of another batch", shape, d)
	}
	m := keptOf[LinearMap](x)
	m.Shape = x.ints(d + 2)
	m.Shape[0], m.Shape[d+1] = size[0], d
	copy(m.Shape[1:], size[2:])
	if _, err := engine.Elements(m.Shape); err != nil {
		return nil, fmt.Errorf("%w: %w", err, engine.ErrTooLarge)
	}
	m.Each = eachOf(x, evenGrid{size: size, strides: x.rowMajor(size[2:]), align: n.Attrs["align_corners"].Int == 1})
	return m, nil
}

func (g *evenGrid) each(f func(out, in int, weight float64)) {
	spatial, d := g.size[2:], len(g.strides)
	var coordinates [4]float64
	at, points := coordinates[:d+1], volume(spatial)
	at[d] = 1
	for i := range g.size[0] * points {
		for k, s := range g.strides {
			// Coordinates begin with the last axis.
			at[d-1-k] = gridPoint(i%points/s%spatial[k], spatial[k], g.align)
		}
		for r := range d {
			for c, v := range at {
				f(i*d+r, (i/points*d+r)*(d+1)+c, v)
			}
		}
	}
}

// gridPoint is where element i of n lies between -1 and 1.
func gridPoint(i, n int, align bool) float64 {
	if align {
		return 2*float64(i)/max(float64(n-1), 1) - 1
	}
	return (2*float64(i)+1)/float64(n) - 1
}

// buildHardmax marks the first largest element of each line.
func buildHardmax(b *builder) (Kernel, error) {
	b.attrs.int("axis", 0)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		outer, n, inner, err := SoftmaxSpan(b.node, in[0].Shape())
		if err != nil {
			return nil, err
		}
		v, err := floats(x, in[0])
		if err != nil {
			return nil, err
		}
		o, err := x.New(in[0].DType(), in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		y := x.wide(len(v))
		clear(y)
		for line := range outer * inner {
			start := line/inner*n*inner + line%inner
			if n > 0 {
				y[start+int(argExtreme(v[start:], n, inner, true, false))*inner] = 1
			}
		}
		return x.one(o, storeFloats(o, y))
	}, nil
}

// buildDet is the determinant of square matrices, by elimination.
func buildDet(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		r := len(shape)
		if r < 2 || shape[r-1] != shape[r-2] {
			return nil, fmt.Errorf("a determinant of shape %v", shape)
		}
		wide, err := castTensor(x, in[0], engine.Float64, false)
		if err != nil {
			return nil, err
		}
		o, err := x.New(in[0].DType(), shape[:r-2]...)
		if err != nil {
			return nil, err
		}
		n, v := shape[r-1], engine.Data[float64](wide)
		y := x.wide(o.Len())
		for i := range y {
			y[i] = determinant(v[i*n*n:(i+1)*n*n], n)
		}
		return x.one(o, storeFloats(o, y))
	}, nil
}

func determinant(m []float64, n int) float64 {
	det := 1.0
	for c := range n {
		pivot := c
		for r := c + 1; r < n; r++ {
			if math.Abs(m[r*n+c]) > math.Abs(m[pivot*n+c]) {
				pivot = r
			}
		}
		if m[pivot*n+c] == 0 {
			return 0
		}
		if pivot != c {
			det = -det
			for k := range n {
				m[c*n+k], m[pivot*n+k] = m[pivot*n+k], m[c*n+k]
			}
		}
		det *= m[c*n+c]
		for r := c + 1; r < n; r++ {
			f := m[r*n+c] / m[c*n+c]
			for k := c; k < n; k++ {
				m[r*n+k] -= f * m[c*n+k]
			}
		}
	}
	return det
}

func init() {
	register(DomainONNX, map[string]opDef{
		"NonMaxSuppression": {since: 10, minIn: 2, maxIn: 5, maxOut: 1, accept: floatTypes, result: isInt64, build: buildNonMaxSuppression},
		"Hardmax":           {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, build: buildHardmax},
		"Det":               {since: 11, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: buildDet},
	})
	linearOp("AffineGrid", opDef{since: 20, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true},
		func(b *builder) error { b.attrs.int("align_corners", 0); return nil }, affineGrid)
}
