package graph

import (
	"math"
	"sync"
	"time"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/crew"
	"github.com/pellucid/pellucid/engine/vector"
)

// attended is softmax(scale q k + mask) v in one step: matrix by matrix of the dimensions
// before the last two, so that the scores stay in the caches. Transposes around it are only
// other strides.
type attended struct {
	scale float32
	// mask says that the fourth input is added to the scores.
	mask bool
	// perms are what q, k and v are seen through, nil where as they are; out is what the
	// result is to be seen through, so that its dimensions are the product's.
	perms [3][]int
	out   []int
	// axis is the softmax's, which is to be the last.
	axis int
}

// attention looks for one whose softmax is step i.
func (f *fuser) attention(i int) {
	s := &f.p.steps[i]
	if !f.is(i, "Softmax") || s.node.Version < 13 {
		return
	}
	a := &attended{scale: 1, axis: -1}
	if axis, ok := s.node.Attrs["axis"]; ok {
		a.axis = int(axis.Int)
	}
	if a.axis != -1 && a.axis != 3 {
		return
	}
	taken, mask := []int{i}, -1
	scores, below := s.in[0], i // below reads scores
	up := func() int {
		m := f.p.producer[scores]
		if m < 0 || f.only(scores) != below || f.gone[m] {
			return -1
		}
		return m
	}
	if m := up(); f.is(m, "Add") {
		product := func(slot int) bool {
			by := f.p.producer[slot]
			return f.is(by, "MatMul") || f.is(by, "Div") || f.is(by, "Mul")
		}
		in := f.p.steps[m].in
		scores, mask = in[0], in[1]
		if !product(scores) || f.only(scores) != m {
			scores, mask = mask, scores
		}
		if f.p.typeOf(mask) != engine.Float32 {
			return
		}
		a.mask, below, taken = true, m, append(taken, m)
	}
	if m := up(); f.is(m, "Div") || f.is(m, "Mul") {
		from := f.p.steps[m].in[0]
		factor, ok := f.by(m, from)
		if !ok {
			from = f.p.steps[m].in[1]
			if factor, ok = f.by(m, from); !ok {
				return
			}
		}
		if factor == 0 || math.IsInf(float64(factor), 0) || factor != factor {
			return // the product would not be computed
		}
		a.scale, scores, below, taken = factor, from, m, append(taken, m)
	}
	first, last := up(), f.only(s.out[0])
	if !f.is(first, "MatMul") || !f.is(last, "MatMul") || f.p.steps[last].in[0] != s.out[0] || f.p.steps[last].in[1] == s.out[0] {
		return
	}
	taken = append(taken, first, last)
	in := []int{f.p.steps[first].in[0], f.p.steps[first].in[1], f.p.steps[last].in[1]}
	for k, reader := range []int{first, first, last} {
		in[k], taken = f.through(a, k, in[k], reader, taken)
	}
	if a.mask {
		in = append(in, mask)
	}
	f.attend(a, taken, last, in)
}

// through looks at operand k through the transpose that makes it for its reader only.
func (f *fuser) through(a *attended, k, slot, reader int, taken []int) (from int, all []int) {
	t := f.p.producer[slot]
	if !f.is(t, "Transpose") || f.only(slot) != reader {
		return slot, taken
	}
	perm := f.perm(t)
	n := len(perm)
	if n < 3 || perm[n-1] != n-1 && (k != 1 || perm[n-2] != n-1) {
		return slot, taken // neither rows nor columns lie in one piece
	}
	a.perms[k] = perm
	return f.p.steps[t].in[0], append(taken, t)
}

// perm is that of step i, a transpose, nil where it has none or is of more dimensions than
// attention's operands.
func (f *fuser) perm(i int) []int {
	given := f.p.steps[i].node.Attrs["perm"].Ints
	perm, err := permutation(given, len(given))
	if err != nil || len(given) > mostSeen {
		return nil
	}
	return perm
}

// attend makes step last, or the transpose of what it gives, the whole.
func (f *fuser) attend(a *attended, taken []int, last int, in []int) {
	if t := f.only(f.p.steps[last].out[0]); f.is(t, "Transpose") {
		if perm := f.perm(t); len(perm) >= 3 && perm[len(perm)-1] == len(perm)-1 {
			a.out, last, taken = make([]int, len(perm)), t, append(taken, t)
			for i, from := range perm {
				a.out[from] = i
			}
		}
	}
	for _, k := range taken {
		f.gone[k] = k != last
	}
	s := &f.p.steps[last]
	f.p.steps[last] = step{node: s.node, op: functionOp, kernel: a.run, in: in, out: s.out}
	f.changed = true
}

// mostSeen is how many dimensions an operand of attention has at most.
const mostSeen = 6

// seen is a tensor of as many dimensions, maybe transposed; those that it lacks are ones
// before its own.
type seen struct {
	v              []float32
	shape, strides [mostSeen]int
}

// The last two dimensions, those of matrices.
const seenRows, seenColumns = mostSeen - 2, mostSeen - 1

// seenThrough looks at a tensor through a transpose, where perm is not nil.
func seenThrough(t *engine.Tensor, perm []int) (s seen, ok bool) {
	rank := len(t.Shape())
	if t.DType() != engine.Float32 || rank < 3 || rank > mostSeen || perm != nil && len(perm) != rank || t.Len() == 0 {
		return s, false
	}
	s.v = engine.Data[float32](t)
	var from [mostSeen]int
	for i, step := rank-1, 1; i >= 0; i-- {
		from[i] = step
		step *= t.Shape()[i]
	}
	for i := range s.shape {
		s.shape[i] = 1
	}
	for i := range rank {
		k, at := i, mostSeen-rank+i
		if perm != nil {
			k = perm[i]
		}
		s.shape[at], s.strides[at] = t.Shape()[k], from[k]
	}
	return s, true
}

// at is matrix i of those before the last two dimensions.
func (s *seen) at(i int) []float32 { return s.v[s.offset(i):] }

func (s *seen) offset(i int) int {
	at := 0
	for d := seenRows - 1; d >= 0 && i > 0; d-- {
		at += i % s.shape[d] * s.strides[d]
		i /= s.shape[d]
	}
	return at
}

// like reports whether two have the same dimensions before the last two.
func (s *seen) like(o *seen) bool {
	return [seenRows]int(s.shape[:seenRows]) == [seenRows]int(o.shape[:seenRows])
}

// scoreRoom is about how many scores are made at once, leastRows of how many rows at
// least.
const scoreRoom, leastRows = 1 << 14, 28

func (a *attended) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	q, ok0 := seenThrough(in[0], a.perms[0])
	k, ok1 := seenThrough(in[1], a.perms[1])
	v, ok2 := seenThrough(in[2], a.perms[2])
	rank := len(in[0].Shape())
	if !ok0 || !ok1 || !ok2 || len(in[1].Shape()) != rank || len(in[2].Shape()) != rank || a.axis != -1 && a.axis != rank-1 || a.out != nil && len(a.out) != rank {
		return nil, errUnfused
	}
	rows, depth, keys, size := q.shape[seenRows], q.shape[seenColumns], k.shape[seenColumns], v.shape[seenColumns]
	if !k.like(&q) || !v.like(&q) || k.shape[seenRows] != depth || v.shape[seenRows] != keys || k.strides[seenRows] != 1 && k.strides[seenColumns] != 1 {
		return nil, errUnfused
	}
	full := q.shape
	full[seenColumns] = keys
	var mask maskOf
	if a.mask {
		var ok bool
		if mask, ok = newMask(in[3], full); !ok || len(in[3].Shape()) > rank {
			return nil, errUnfused
		}
	}
	full[seenColumns] = size
	shape := x.ints(rank)
	for i, d := range full[mostSeen-rank:] {
		if a.out != nil {
			i = a.out[i]
		}
		shape[i] = d
	}
	t, _, err := rawOf[float32](x, shape...)
	if err != nil {
		return nil, err
	}
	out, _ := seenThrough(t, a.out)
	step := min(rows, max(leastRows, scoreRoom/keys))
	blocks := (rows + step - 1) / step
	n := volume(q.shape[:seenRows]) * blocks
	products := float64(n*step) * float64(keys) * float64(depth+size)
	threads := max(1, min(crew.Worth(x.threads, time.Duration(products/attendedPerNanosecond)), n))
	if err := x.reserve(engine.Float32, threads*step*keys); err != nil {
		return nil, err
	}
	w := attendings.Get().(*attending)
	w.attended, w.of, w.maskOf = a, [4]seen{q, k, v, out}, mask
	w.n, w.threads, w.step, w.blocks, w.rows = n, threads, step, blocks, rows
	crew.Run(threads, threads, w.f)
	w.attended, w.of, w.maskOf = nil, [4]seen{}, maskOf{}
	attendings.Put(w)
	return x.one(t, nil)
}

// attending is the work of one run. Its functions are made once, so that a run makes none.
type attending struct {
	*attended
	of [4]seen
	maskOf
	n, threads, step, blocks, rows int
	f                              func(part int)
}

var attendings = sync.Pool{New: func() any {
	w := new(attending)
	w.f = w.work
	return w
}}

// work computes the blocks of a thread.
func (w *attending) work(part int) {
	r := rooms.Get().(*room)
	scores := r.of(w.step * w.of[1].shape[seenColumns])
	for i := w.n * part / w.threads; i < w.n*(part+1)/w.threads; i++ {
		from := i % w.blocks * w.step
		w.block(scores, i/w.blocks, from, min(from+w.step, w.rows))
	}
	rooms.Put(r)
}

// attendedPerNanosecond is about how many products a thread computes in one, with what is
// done between them.
const attendedPerNanosecond = 48

// block computes rows from to to of matrix i.
func (w *attending) block(scores []float32, i, from, to int) {
	q, k, v, out, mask := &w.of[0], &w.of[1], &w.of[2], &w.of[3], &w.maskOf
	rows, depth, keys, size := to-from, q.shape[seenColumns], k.shape[seenColumns], v.shape[seenColumns]
	// One of k's strides is 1; a dimension of one element may have any.
	trans, ldk, least := k.strides[seenColumns] != 1, k.strides[seenRows], keys
	if trans {
		ldk, least = k.strides[seenColumns], depth
	}
	line := q.strides[seenRows]
	blas.Gemm(1, false, trans, rows, keys, depth, w.scale, q.at(i)[from*line:], max(line, depth), k.at(i), max(ldk, least), 0, scores, keys)
	for r := range rows {
		row := scores[r*keys : (r+1)*keys]
		if mask.v != nil {
			vector.Binary(vector.Add, row, row, mask.row(i, from+r))
		}
		vector.Softmax(row, row)
	}
	line = out.strides[seenRows]
	blas.Gemm(1, false, false, rows, size, keys, 1, scores, keys, v.at(i), max(v.strides[seenRows], size), 0, out.at(i)[from*line:], max(line, size))
}

// maskOf is what is added to scores, broadcast.
type maskOf struct {
	seen
	// width is the elements of a row, or 1.
	width int
}

// newMask looks at a mask of scores of a shape.
func newMask(t *engine.Tensor, full [mostSeen]int) (m maskOf, ok bool) {
	shape := t.Shape()
	if t.DType() != engine.Float32 || len(shape) > mostSeen || t.Len() == 0 {
		return m, false
	}
	m.v, m.shape, m.width = engine.Data[float32](t), full, 1
	for i, step := len(shape)-1, 1; i >= 0; i-- {
		at := mostSeen - len(shape) + i
		switch shape[i] {
		case 1:
		case full[at]:
			m.strides[at] = step
		default:
			return m, false
		}
		step *= shape[i]
	}
	if m.strides[seenColumns] != 0 {
		m.width = full[seenColumns]
	}
	return m, true
}

// row is row r of matrix i.
func (m *maskOf) row(i, r int) []float32 {
	at := m.offset(i) + r*m.strides[seenRows]
	return m.v[at : at+m.width]
}
