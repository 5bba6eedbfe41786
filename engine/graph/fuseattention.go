package graph

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/crew"
	"github.com/pellucid/pellucid/engine/vector"
)

// attended is softmax(scale q k + mask) v in one step, for operands of four dimensions:
// row by row of the batch and head by head, so that the scores stay in the caches.
// Transposes around it are only other strides.
type attended struct {
	scale float32
	// mask says that the fourth input is added to the scores.
	mask bool
	// perms are what q, k and v are seen through, nil where as they are; out is what the
	// result is.
	perms [3][]int
	out   []int
}

// attention looks for one whose softmax is step i.
func (f *fuser) attention(i int) {
	s := &f.p.steps[i]
	if !f.is(i, "Softmax") || s.node.Version < 13 {
		return
	}
	axis := int64(-1)
	if a, ok := s.node.Attrs["axis"]; ok {
		axis = a.Int
	}
	if axis != -1 && axis != 3 {
		return
	}
	a := &attended{scale: 1}
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
	perm := toInts(f.p.steps[t].node.Attrs["perm"].Ints)
	if !slices.Equal(perm, []int{0, 2, 1, 3}) && (k != 1 || !slices.Equal(perm, []int{0, 2, 3, 1}) && !slices.Equal(perm, []int{0, 1, 3, 2})) {
		return slot, taken
	}
	a.perms[k] = perm
	return f.p.steps[t].in[0], append(taken, t)
}

// attend makes step last, or the transpose of what it gives, the whole.
func (f *fuser) attend(a *attended, taken []int, last int, in []int) {
	if t := f.only(f.p.steps[last].out[0]); f.is(t, "Transpose") && slices.Equal(toInts(f.p.steps[t].node.Attrs["perm"].Ints), []int{0, 2, 1, 3}) {
		a.out, last, taken = []int{0, 2, 1, 3}, t, append(taken, t)
	}
	for _, k := range taken {
		f.gone[k] = k != last
	}
	s := &f.p.steps[last]
	f.p.steps[last] = step{node: s.node, op: functionOp, kernel: a.run, in: in, out: s.out}
	f.changed = true
}

// seen is a tensor of four dimensions, maybe transposed; one of three is of one batch.
type seen struct {
	v              []float32
	shape, strides [4]int
}

func seenThrough(t *engine.Tensor, perm []int) (s seen, ok bool) {
	rank := len(t.Shape())
	if t.DType() != engine.Float32 || rank != 4 && (rank != 3 || perm != nil) || t.Len() == 0 {
		return s, false
	}
	s.v = engine.Data[float32](t)
	from := rowMajor(t.Shape())
	if rank == 3 {
		s.shape[0], s.strides[0] = 1, t.Len()
		copy(s.shape[1:], t.Shape())
		copy(s.strides[1:], from)
		return s, true
	}
	for i := range 4 {
		k := i
		if perm != nil {
			k = perm[i]
		}
		s.shape[i], s.strides[i] = t.Shape()[k], from[k]
	}
	return s, true
}

// at is the matrix of batch b and head h.
func (s *seen) at(b, h int) []float32 { return s.v[b*s.strides[0]+h*s.strides[1]:] }

// scoreRoom is about how many scores are made at once, leastRows of how many rows at
// least.
const scoreRoom, leastRows = 1 << 14, 28

func (a *attended) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	q, ok0 := seenThrough(in[0], a.perms[0])
	k, ok1 := seenThrough(in[1], a.perms[1])
	v, ok2 := seenThrough(in[2], a.perms[2])
	rank := len(in[0].Shape())
	if !ok0 || !ok1 || !ok2 || len(in[1].Shape()) != rank || len(in[2].Shape()) != rank || rank == 3 && a.out != nil {
		return nil, errUnfused
	}
	batch, heads, rows, depth, keys, size := q.shape[0], q.shape[1], q.shape[2], q.shape[3], k.shape[3], v.shape[3]
	same := func(s *seen, n int) bool { return s.shape[0] == batch && s.shape[1] == heads && s.shape[2] == n }
	if !same(&k, depth) || !same(&v, keys) || k.strides[2] != 1 && k.strides[3] != 1 {
		return nil, errUnfused
	}
	var mask maskOf
	if a.mask {
		var ok bool
		if mask, ok = newMask(in[3], batch, heads, rows, keys); !ok || len(in[3].Shape()) > rank {
			return nil, errUnfused
		}
	}
	shape := x.ints(4)
	shape[0], shape[1], shape[2], shape[3] = batch, heads, rows, size
	if a.out != nil {
		shape[1], shape[2] = rows, heads
	}
	t, _, err := rawOf[float32](x, shape[4-rank:]...)
	if err != nil {
		return nil, err
	}
	out, _ := seenThrough(t, a.out)
	step := min(rows, max(leastRows, scoreRoom/keys))
	blocks := (rows + step - 1) / step
	n := batch * heads * blocks
	products := float64(n*step) * float64(keys) * float64(depth+size)
	threads := max(1, min(crew.Worth(x.threads, time.Duration(products/attendedPerNanosecond)), n))
	if err := x.reserve(engine.Float32, threads*step*keys); err != nil {
		return nil, err
	}
	w := attendings.Get().(*attending)
	w.attended, w.of, w.maskOf = a, [4]seen{q, k, v, out}, mask
	w.n, w.threads, w.step, w.blocks, w.heads, w.rows = n, threads, step, blocks, heads, rows
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
	n, threads, step, blocks, heads, rows int
	f                                     func(part int)
}

var attendings = sync.Pool{New: func() any {
	w := new(attending)
	w.f = w.work
	return w
}}

// work computes the blocks of a thread.
func (w *attending) work(part int) {
	r := rooms.Get().(*room)
	scores := r.of(w.step * w.of[1].shape[3])
	for i := w.n * part / w.threads; i < w.n*(part+1)/w.threads; i++ {
		b, h, from := i/w.blocks/w.heads, i/w.blocks%w.heads, i%w.blocks*w.step
		w.block(scores, b, h, from, min(from+w.step, w.rows))
	}
	rooms.Put(r)
}

// attendedPerNanosecond is about how many products a thread computes in one, with what is
// done between them.
const attendedPerNanosecond = 48

// block computes rows from to to of a head.
func (w *attending) block(scores []float32, b, h, from, to int) {
	q, k, v, out, mask := &w.of[0], &w.of[1], &w.of[2], &w.of[3], &w.maskOf
	rows, depth, keys, size := to-from, q.shape[3], k.shape[3], v.shape[3]
	// One of k's strides is 1; a dimension of one element may have any.
	trans, ldk := k.strides[3] != 1, k.strides[2]
	if trans {
		ldk = k.strides[3]
	}
	least := keys
	if trans {
		least = depth
	}
	blas.Gemm(1, false, trans, rows, keys, depth, w.scale, q.at(b, h)[from*q.strides[2]:], max(q.strides[2], depth), k.at(b, h), max(ldk, least), 0, scores, keys)
	for r := range rows {
		row := scores[r*keys : (r+1)*keys]
		if mask.v != nil {
			vector.Binary(vector.Add, row, row, mask.row(b, h, from+r))
		}
		vector.Softmax(row, row)
	}
	blas.Gemm(1, false, false, rows, size, keys, 1, scores, keys, v.at(b, h), max(v.strides[2], size), 0, out.at(b, h)[from*out.strides[2]:], max(out.strides[2], size))
}

// maskOf is what is added to scores, broadcast.
type maskOf struct {
	v       []float32
	strides [3]int
	// width is the elements of a row, or 1.
	width int
}

func newMask(t *engine.Tensor, batch, heads, rows, keys int) (m maskOf, ok bool) {
	shape := t.Shape()
	full := []int{batch, heads, rows, keys}
	if t.DType() != engine.Float32 || len(shape) > 4 || t.Len() == 0 {
		return m, false
	}
	for i, d := range shape {
		if want := full[4-len(shape)+i]; d != want && d != 1 {
			return m, false
		}
	}
	strides := broadcastStrides(shape, full)
	m.v, m.width = engine.Data[float32](t), 1
	if strides[3] != 0 {
		m.width = keys
	}
	copy(m.strides[:], strides)
	return m, true
}

func (m *maskOf) row(b, h, r int) []float32 {
	at := b*m.strides[0] + h*m.strides[1] + r*m.strides[2]
	return m.v[at : at+m.width]
}
