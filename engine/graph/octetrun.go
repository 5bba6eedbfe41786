package graph

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// octetVolumes reports whether t is unsigned bytes of so many dimensions in the file, laid
// out with their channels last, or may be.
func octetVolumes(t *engine.Tensor, rank int) bool {
	s := t.Shape()
	return t.DType() == engine.Uint8 && len(s) == max(rank, 4) && (rank > 3 || s[1] == 1)
}

// octetsLast lays volumes of bytes of so many dimensions out with their channels last.
func octetsLast(rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		if in[0].DType() != engine.Uint8 || len(s) != rank {
			return nil, errUnfused
		}
		t, out, err := rawOf[uint8](x, lastShape(x.ints(mostOctetRank)[:0], s)...)
		if err != nil {
			return nil, err
		}
		turnedOf(out, engine.Data[uint8](in[0]), s[0], s[1], volume(s[2:]))
		return x.one(t, nil)
	}
}

// octetsFirst lays them out as the file has them.
func octetsFirst(rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if !octetVolumes(in[0], rank) {
			return nil, errUnfused
		}
		s := firstShape(x.ints(mostOctetRank)[:0], in[0].Shape(), rank)
		t, out, err := rawOf[uint8](x, s...)
		if err != nil {
			return nil, err
		}
		turnedOf(out, engine.Data[uint8](in[0]), s[0], volume(s[2:]), s[1])
		return x.one(t, nil)
	}
}

// flip makes unsigned bytes of signed ones, 128 more, or the other way round.
func flip(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	if !isOctet(in[0].DType()) {
		return nil, errUnfused
	}
	d := engine.Int8
	if in[0].DType() == engine.Int8 {
		d = engine.Uint8
	}
	t, err := x.make(d, in[0].Shape(), false)
	if err != nil {
		return nil, err
	}
	out := octetsOf(t)
	for i, v := range octetsOf(in[0]) {
		out[i] = v ^ 0x80
	}
	return x.one(t, nil)
}

// tableBytes gives for each byte another.
func tableBytes(of []uint8) Kernel {
	table := [256]uint8(of)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Uint8 {
			return nil, errUnfused
		}
		t, out, err := rawOf[uint8](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[uint8](in[0])
		share(x, x.inParts(len(src)), len(src), tabling{out, src, &table})
		return x.one(t, nil)
	}
}

// tabling is bytes that are looked up.
type tabling struct {
	out, src []uint8
	table    *[256]uint8
}

func (w *tabling) part(from, to int) { qgemm.Table(w.out[from:to], w.src[from:to], w.table) }

// octetsToFloats is bytes that a function makes floats of.
type octetsToFloats struct {
	f   func(out []float32, src []uint8)
	out []float32
	src []uint8
}

func (w *octetsToFloats) part(from, to int) { w.f(w.out[from:to], w.src[from:to]) }

// octetFloats is a kernel that makes floats of bytes, of values of that many dimensions
// where rank is not 0.
func octetFloats(rank int, f func(out []float32, src []uint8)) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Uint8 || rank > 0 && len(in[0].Shape()) != rank || len(in[0].Shape()) == 0 {
			return nil, errUnfused
		}
		t, out, err := rawOf[float32](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[uint8](in[0])
		share(x, x.inParts(len(src)), len(src), octetsToFloats{f, out, src})
		return x.one(t, nil)
	}
}

func tableFloats(of []float32, rank int) Kernel {
	table := [256]float32(of)
	return octetFloats(rank, func(out []float32, src []uint8) {
		// Several at a time, which takes as long wherever the loop lies.
		const some = 8
		whole := len(src) / some * some
		for i := 0; i < whole; i += some {
			to, of := (*[some]float32)(out[i:]), (*[some]uint8)(src[i:])
			to[0], to[1], to[2], to[3] = table[of[0]], table[of[1]], table[of[2]], table[of[3]]
			to[4], to[5], to[6], to[7] = table[of[4]], table[of[5]], table[of[6]], table[of[7]]
		}
		for i, b := range src[whole:] {
			out[whole+i] = table[b]
		}
	})
}

func floatsOf(scale qgemm.Scale, rank int) Kernel {
	return octetFloats(rank, func(out []float32, src []uint8) { qgemm.ToFloats(out, src, scale) })
}

// roundOctets rounds floats.
func roundOctets(scale qgemm.Scale) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Float32 {
			return nil, errUnfused
		}
		t, out, err := rawOf[uint8](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[float32](in[0])
		share(x, x.inParts(len(src)), len(src), rounding{out, src, scale})
		return x.one(t, nil)
	}
}

// dynamicEnd is what follows sums of bytes whose scale and zero point are in[1] and in[2],
// where they are; else it is e and zero.
func dynamicEnd(x *Exec, e *octetEnd, zero int32, in []*engine.Tensor) (*qgemm.Finish, int32, error) {
	f := e.finish()
	if len(in) == 1 {
		return f, zero, nil
	}
	by := engine.Data[float32](in[1])
	if len(by) != 1 {
		return nil, 0, errUnfused
	}
	if len(in) > 2 {
		z, ok := oneZero(in[2])
		if !ok || in[2].DType() != engine.Uint8 {
			return nil, 0, errUnfused
		}
		zero = z
	}
	_, scale, err := rawOf[float32](x, len(e.scale))
	if err != nil {
		return nil, 0, err
	}
	vector.Binary(vector.Mul, scale, e.scale, by)
	f.Scale = scale
	return f, zero, nil
}

// result makes the tensor that f is given, of bytes or of floats.
func (e *octetEnd) result(x *Exec, f *qgemm.Finish, shape []int) (t *engine.Tensor, err error) {
	if e.bytes {
		t, f.Bytes, err = rawOf[uint8](x, shape...)
		return t, err
	}
	t, f.Floats, err = rawOf[float32](x, shape...)
	f.Then = e.then
	return t, err
}

// octetConv is a convolution of volumes of bytes whose channels lie last.
type octetConv struct {
	node  *Node
	f     *octetFilter
	end   octetEnd
	zero  int32
	shape []int // of the weights
	seen  atomic.Pointer[overOctets]
}

// overOctets is the geometry over volumes of a shape, of which result is that of the
// output. It is read only.
type overOctets struct {
	shape, result []int
	window        *qgemm.Window
}

// over returns the geometry over volumes of a shape.
func (k *octetConv) over(s []int) (*overOctets, error) {
	if g := k.seen.Load(); g != nil && slices.Equal(g.shape, s) {
		return g, nil
	}
	c, w, ok, err := octetWindow(k.node, firstShape(nil, s, len(k.shape)), k.shape)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errUnfused
	}
	g := &overOctets{slices.Clone(s), lastShape(nil, c.Result), w}
	k.seen.Store(g)
	return g, nil
}

func (k *octetConv) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	rank := len(k.shape)
	if !octetVolumes(in[0], rank) {
		return nil, errUnfused
	}
	g, err := k.over(in[0].Shape())
	if err != nil {
		return nil, err
	}
	f, zero, err := dynamicEnd(x, &k.end, k.zero, in)
	if err != nil {
		return nil, err
	}
	if len(in) > 1 {
		n := k.f.shape.Out
		if err := x.reserve(engine.Int32, n); err != nil {
			return nil, err
		}
		room := octetRooms.Get().(*octetRoom)
		defer octetRooms.Put(room)
		room.whole = slices.Grow(room.whole[:0], n)[:n]
		k.f.whole(room.whole, zero, f.Whole)
		f.Whole = room.whole
	}
	t, err := k.end.result(x, f, g.result)
	if err != nil {
		return nil, err
	}
	if err := k.f.slide(x, g.window, engine.Data[uint8](in[0]), zero, f); err != nil {
		return nil, err
	}
	done(f)
	if k.end.bytes || rank < 5 {
		return x.one(t, nil)
	}
	// Nobody else has floats of volumes with their channels last.
	s := firstShape(x.ints(mostOctetRank)[:0], g.result, rank)
	first, out, err := rawOf[float32](x, s...)
	if err == nil {
		turned(x, out, engine.Data[float32](t), s[0], volume(s[2:]), s[1])
	}
	return x.one(first, err)
}

// octetMatMul is a product of bytes with a constant matrix.
type octetMatMul struct {
	m    *octetMatrix
	end  octetEnd
	zero int32
	// flat says that it is of two matrices only.
	flat bool
}

func (k *octetMatMul) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	a := in[0]
	shape := x.shaped(a.Shape())
	last := len(shape) - 1
	if a.DType() != engine.Uint8 || last < 1 || k.flat && last != 1 || shape[last] != k.m.k || a.Len() == 0 {
		return nil, errUnfused
	}
	shape[last] = k.m.n
	f, zero, err := dynamicEnd(x, &k.end, k.zero, in)
	if err != nil {
		return nil, err
	}
	t, err := k.end.result(x, f, shape)
	if err != nil {
		return nil, err
	}
	err = multiplyOctets(x, a, zero, k.m, k.end.zeros, volume(shape[:last]), f)
	done(f)
	return x.one(t, err)
}

// octetPair is a sum or a product of two values.
type octetPair struct {
	a, b, to qgemm.Scale
	low      float32 // in steps of the result
	product  bool
}

// perPair is how many elements of a value that is repeated are laid side by side.
const perPair = 4096

// joinOf is qgemm.Add or qgemm.Mul.
type joinOf func(out, a, b []uint8, ofA, ofB, to qgemm.Scale, low float32)

// joining is a pair of values of one shape.
type joining struct {
	k         *octetPair
	out, a, b []uint8
	ofA, ofB  qgemm.Scale
	join      joinOf
}

func (w *joining) part(from, to int) {
	w.join(w.out[from:to], w.a[from:to], w.b[from:to], w.ofA, w.ofB, w.k.to, w.k.low)
}

func (k *octetPair) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	a, b, ofA, ofB := in[0], in[1], k.a, k.b
	if a.DType() != engine.Uint8 || b.DType() != engine.Uint8 {
		return nil, errUnfused
	}
	join := qgemm.Add
	if k.product {
		join = qgemm.Mul
	}
	if len(a.Shape()) == 4 && len(b.Shape()) == 4 && perChannel(a.Shape(), b.Shape()) {
		a, b, ofA, ofB = b, a, ofB, ofA
	}
	if a.Len() == 1 {
		a, b, ofA, ofB = b, a, ofB, ofA
	}
	u, v := engine.Data[uint8](a), engine.Data[uint8](b)
	switch {
	case b.Len() == 1 && len(b.Shape()) <= len(a.Shape()) && len(u) > len(allOctets):
		return k.tabled(x, a, v[0], ofA, ofB, join)
	case slices.Equal(a.Shape(), b.Shape()):
		t, out, err := rawOf[uint8](x, a.Shape()...)
		if err != nil {
			return nil, err
		}
		share(x, x.inParts(len(out)), len(out), joining{k, out, u, v, ofA, ofB, join})
		return x.one(t, nil)
	case len(a.Shape()) == 4 && len(b.Shape()) == 4 && perChannel(b.Shape(), a.Shape()):
		t, out, err := rawOf[uint8](x, a.Shape()...)
		if err != nil {
			return nil, err
		}
		s := a.Shape()
		c, pixels := s[3], s[1]*s[2]
		// One image's channels for some pixels, so that loops are long.
		some := max(1, min(pixels, perPair/c))
		_, again, err := rawOf[uint8](x, some*c)
		if err != nil {
			return nil, err
		}
		for i := range s[0] {
			for p := range some {
				copy(again[p*c:], v[i*c:(i+1)*c])
			}
			for at := i * pixels * c; at < (i+1)*pixels*c; at += some * c {
				end := min(at+some*c, (i+1)*pixels*c)
				join(out[at:end], u[at:end], again[:end-at], ofA, ofB, k.to, k.low)
			}
		}
		return x.one(t, nil)
	}
	return k.broadcast(x, in, join)
}

// tabled joins the values of a with one byte: each of 256 results is computed once.
func (k *octetPair) tabled(x *Exec, a *engine.Tensor, with uint8, ofA, ofB qgemm.Scale, join joinOf) ([]*engine.Tensor, error) {
	t, out, err := rawOf[uint8](x, a.Shape()...)
	if err != nil {
		return nil, err
	}
	_, room, err := rawOf[uint8](x, 2*len(allOctets))
	if err != nil {
		return nil, err
	}
	table, repeated := (*[256]uint8)(room), room[len(allOctets):]
	for i := range repeated {
		repeated[i] = with
	}
	join(table[:], allOctets, repeated, ofA, ofB, k.to, k.low)
	share(x, x.inParts(len(out)), len(out), tabling{out, engine.Data[uint8](a), table})
	return x.one(t, nil)
}

// broadcast lays out what is repeated first.
func (k *octetPair) broadcast(x *Exec, in []*engine.Tensor, join joinOf) ([]*engine.Tensor, error) {
	shape, err := x.broadcast(in[0].Shape(), in[1].Shape())
	if err != nil {
		return nil, err
	}
	var wide [2][]uint8
	for i, t := range in {
		strides := x.ints(len(shape))
		strideInto(strides, t.Shape())
		if t, err = strided(x, t, 0, shape, strides); err != nil {
			return nil, err
		}
		wide[i] = engine.Data[uint8](t)
	}
	t, out, err := rawOf[uint8](x, shape...)
	if err != nil {
		return nil, err
	}
	share(x, x.inParts(len(out)), len(out), joining{k, out, wide[0], wide[1], k.a, k.b, join})
	return x.one(t, nil)
}

// octetPool is the largest of windows over volumes of so many dimensions whose channels lie
// last.
func octetPool(n *Node, rank int) Kernel {
	var seen atomic.Pointer[overOctets]
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if !octetVolumes(in[0], rank) || in[0].Len() == 0 {
			return nil, errUnfused
		}
		g := seen.Load()
		if g == nil || !slices.Equal(g.shape, in[0].Shape()) {
			var err error
			if g, err = poolOverOctets(n, in[0].Shape(), rank); err != nil {
				return nil, err
			}
			seen.Store(g)
		}
		w := g.window
		t, out, err := rawOf[uint8](x, g.result...)
		if err != nil {
			return nil, err
		}
		var scratch []uint8
		if n := qgemm.PoolScratch(w); n > 0 {
			if _, scratch, err = rawOf[uint8](x, n); err != nil {
				return nil, err
			}
		}
		qgemm.Pool(max(x.threads, 1), w, out, engine.Data[uint8](in[0]), scratch)
		return x.one(t, nil)
	}
}

// poolOverOctets is the geometry of a pool over volumes of a shape.
func poolOverOctets(n *Node, shape []int, rank int) (*overOctets, error) {
	s := firstShape(nil, shape, rank)
	p, err := PoolWindows(n, s)
	if err != nil {
		return nil, err
	}
	if volume(p.Out) == 0 {
		return nil, errUnfused
	}
	w, err := octetWindows(p, s)
	if err != nil {
		return nil, err
	}
	return &overOctets{slices.Clone(shape), lastShape(nil, append([]int{s[0], s[1]}, p.Out...)), w}, nil
}

// sumRooms have room for sums of bytes.
var sumRooms = sync.Pool{New: func() any { return new([]int64) }}

// octetMeans are those of the channels of whole volumes, as the file has them.
func octetMeans(scale qgemm.Scale, rank int) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if !octetVolumes(in[0], rank) || in[0].Len() == 0 {
			return nil, errUnfused
		}
		last := in[0].Shape()
		batch, c := last[0], last[len(last)-1]
		n := in[0].Len() / batch / c
		s := x.ints(rank)
		for i := range s {
			s[i] = 1
		}
		s[0], s[1] = batch, c
		t, out, err := rawOf[float32](x, s...)
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Int64, c); err != nil {
			return nil, err
		}
		room := sumRooms.Get().(*[]int64)
		defer sumRooms.Put(room)
		*room = slices.Grow((*room)[:0], c)[:c]
		sums := *room
		src := engine.Data[uint8](in[0])
		for i := range batch {
			qgemm.Columns(sums, src[i*n*c:][:n*c])
			for j, sum := range sums {
				out[i*c+j] = float32((float64(sum)/float64(n) - float64(scale.Zero)) * float64(scale.Scale))
			}
		}
		return x.one(t, nil)
	}
}
