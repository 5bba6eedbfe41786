package graph

import (
	"math/bits"
	"slices"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
)

// scratch is what a run's steps make lists of: shapes, strides, and results. A step's are
// whatever they are once the next one begins.
type scratch struct {
	numbers slab[int]
	tensors slab[*engine.Tensor]
	flags   slab[bool]
	lists   [][]*engine.Tensor
	// works are what share needs, by the type of what is worked on.
	works map[any]any
	// rooms are what steps ask for of other types, by type; begins are all of them.
	rooms  map[any]any
	begins []interface{ begin() }
}

// begin gives up what the step before had.
func (s *scratch) begin() {
	if s != nil {
		s.numbers.begin()
		s.tensors.begin()
		s.flags.begin()
		for _, r := range s.begins {
			r.begin()
		}
	}
}

// scratchOf is ints for elements of any type without pointers. What is of more than mostSlab elements
// is better a tensor of the run's memory (rawOf), which is counted and kept.
func scratchOf[T any](x *Exec, n int) []T {
	if x.scratch == nil {
		return make([]T, n)
	}
	return roomFor[slab[T]](x.scratch).take(n)
}

// reset gives up what the step before had.
type reset[S any] interface {
	*S
	begin()
}

// roomFor is what s has of a type.
func roomFor[S any, P reset[S]](s *scratch) P {
	key := any((*S)(nil))
	if r, ok := s.rooms[key].(P); ok {
		return r
	}
	if s.rooms == nil {
		s.rooms = map[any]any{}
	}
	r := P(new(S))
	s.rooms[key] = r
	s.begins = append(s.begins, r)
	return r
}

// keptOf is roomFor of a step, and made anew where a kernel is run apart from a program.
func keptOf[S any, P reset[S]](x *Exec) P {
	if x.scratch == nil {
		return P(new(S))
	}
	return roomFor[S, P](x.scratch)
}

// slab lends parts of one list. What does not fit is in another, which takes its place, so
// that a step of many turns holds on to no more than it uses.
type slab[T any] struct {
	v    []T
	used int
	// asked is how many elements the step has asked for, those of larger lists of its own too.
	asked int
}

// slabSize is how many elements a list has at least, mostSlab at most.
const (
	slabSize = 512
	mostSlab = 1 << 14
)

// begin gives up what the step before had, and makes room for as much in one list.
func (s *slab[T]) begin() {
	if s.asked > len(s.v) && len(s.v) < mostSlab && s.asked > slabSize {
		s.v = make([]T, min(s.asked, mostSlab))
	}
	s.used, s.asked = 0, 0
}

func (s *slab[T]) take(n int) []T {
	s.asked += n
	if s.v == nil || s.used+n > len(s.v) {
		if n > slabSize {
			return make([]T, n)
		}
		s.v, s.used = make([]T, max(slabSize, len(s.v))), 0
	}
	out := s.v[s.used : s.used+n : s.used+n]
	s.used += n
	clear(out)
	return out
}

// copies are what copier made for one type, so many of which the step has in use.
type copies[T engine.Element] struct {
	all  []*mover[T]
	used int
}

// mover copies runs of elements.
type mover[T engine.Element] struct {
	to, from []T
	run      func(d, s, n int)
}

func (c *mover[T]) move(d, s, n int) {
	if n == 1 {
		c.to[d] = c.from[s]
		return
	}
	copy(c.to[d:d+n], c.from[s:s+n])
}

func (c *copies[T]) begin() {
	for _, e := range c.all[:c.used] {
		e.to, e.from = nil, nil
	}
	c.used = 0
}

// copierFor is copier for one type.
func copierFor[T engine.Element](x *Exec, dst, src *engine.Tensor) func(d, s, n int) {
	c := &copies[T]{}
	if x.scratch != nil {
		c = roomFor[copies[T]](x.scratch)
	}
	if c.used == len(c.all) {
		e := new(mover[T])
		e.run = e.move
		c.all = append(c.all, e)
	}
	e := c.all[c.used]
	c.used++
	e.to, e.from = engine.Data[T](dst), engine.Data[T](src)
	return e.run
}

// ints returns n zeros that are the kernel's until its step ends. It is for the goroutine
// that the kernel was called on, and not to be kept.
func (x *Exec) ints(n int) []int {
	switch {
	case x.scratch == nil:
		return make([]int, n)
	case n > mostSlab && bits.UintSize == 64:
		v := roomOf[int64](x, n)
		clear(v)
		return unsafe.Slice((*int)(unsafe.Pointer(unsafe.SliceData(v))), n)
	}
	return x.scratch.numbers.take(n)
}

// flags is ints of what is so or not.
func (x *Exec) flags(n int) []bool {
	if x.scratch == nil {
		return make([]bool, n)
	}
	return x.scratch.flags.take(n)
}

// rowMajor is rowMajor as ints has it.
func (x *Exec) rowMajor(shape []int) []int {
	out, step := x.ints(len(shape)), 1
	for i := len(shape) - 1; i >= 0; i-- {
		out[i] = step
		step *= shape[i]
	}
	return out
}

// shaped is a copy of a shape, as ints has it.
func (x *Exec) shaped(shape []int) []int {
	out := x.ints(len(shape))
	copy(out, shape)
	return out
}

// joined is two parts of a shape, as ints has it.
func (x *Exec) joined(a, b []int) []int {
	return append(append(x.ints(len(a) + len(b))[:0], a...), b...)
}

// one is the result of a kernel that has one, as ints has it.
func (x *Exec) one(t *engine.Tensor, err error) ([]*engine.Tensor, error) {
	if err != nil {
		return nil, err
	}
	out := x.list(1)
	out[0] = t
	return out, nil
}

// list is a list of n tensors, as ints has it.
func (x *Exec) list(n int) []*engine.Tensor {
	if x.scratch == nil {
		return make([]*engine.Tensor, n)
	}
	return x.scratch.tensors.take(n)
}

// pair is the results of a kernel that has two, as ints has it.
func (x *Exec) pair(a, b *engine.Tensor) []*engine.Tensor {
	out := x.list(2)
	out[0], out[1] = a, b
	return out
}

// gives says whether the tensors that the step makes next may be what the run's caller gets,
// and returns what was said before.
func (x *Exec) gives(yes bool) (was bool) {
	if x.memory != nil {
		was, x.memory.gives = x.memory.gives, yes
	}
	return was
}

// roomOf is scratchOf for any number of elements, whatever they are.
func roomOf[T engine.Element](x *Exec, n int) []T {
	if n > slabSize && x.scratch != nil {
		gives := x.gives(false)
		t := x.memory.tensor(dtypeOf[T](), n, []int{n}, false)
		if x.gives(gives); t != nil {
			return engine.Data[T](t)
		}
	}
	return scratchOf[T](x, n)
}

// seen is roomOf for what is not so yet.
func (x *Exec) seen(n int) []bool {
	out := roomOf[bool](x, n)
	clear(out)
	return out
}

// wide is roomOf for float64.
func (x *Exec) wide(n int) []float64 { return roomOf[float64](x, n) }

// float64s is Tensor.Float64s as ints has it, to be read only.
func (x *Exec) float64s(t *engine.Tensor) ([]float64, bool) {
	if d := t.DType(); x.scratch == nil || d == engine.Float64 || d == engine.String || d.IsList() {
		return t.Float64s()
	}
	out := x.wide(t.Len())
	t.Widen(out)
	return out, true
}

// mostPieces bounds the lists that lists keeps for the next step that has some.
const mostPieces = 1 << 12

// lists is so many empty lists, for a step that asks for them once.
func (x *Exec) lists(n int) [][]*engine.Tensor {
	if x.scratch == nil {
		return make([][]*engine.Tensor, n)
	}
	l := slices.Grow(x.scratch.lists[:0], n)[:n]
	for i := range l {
		if cap(l[i]) > mostPieces {
			l[i] = nil
		}
		clear(l[i][:cap(l[i])])
		l[i] = l[i][:0]
	}
	x.scratch.lists = l
	return l
}

// intsOf is intsOf as ints has it.
func (x *Exec) intsOf(t *engine.Tensor) ([]int, error) {
	switch t.DType() {
	case engine.Int64:
		return copyInts(x.ints(t.Len()), engine.Data[int64](t)), nil
	case engine.Int32:
		return copyInts(x.ints(t.Len()), engine.Data[int32](t)), nil
	}
	return intsOf(t)
}

func copyInts[T int32 | int64](out []int, v []T) []int {
	for i, e := range v {
		out[i] = int(e)
	}
	return out
}
