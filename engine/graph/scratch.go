package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// scratch is what a run's steps make lists of: shapes, strides, and results. A step's are
// whatever they are once the next one begins.
type scratch struct {
	numbers slab[int]
	tensors slab[*engine.Tensor]
	flags   slab[bool]
	wide    slab[float64]
	lists   [][]*engine.Tensor
	// works are what share needs, by the type of what is worked on.
	works map[any]any
}

// begin gives up what the step before had.
func (s *scratch) begin() {
	if s != nil {
		s.numbers.begin()
		s.tensors.begin()
		s.flags.begin()
		s.wide.begin()
	}
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

// ints returns n zeros that are the kernel's until its step ends. It is for the goroutine
// that the kernel was called on, and not to be kept.
func (x *Exec) ints(n int) []int {
	if x.scratch == nil {
		return make([]int, n)
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

// float64s is Tensor.Float64s as ints has it, to be read only.
func (x *Exec) float64s(t *engine.Tensor) ([]float64, bool) {
	v := engine.Data[float32](t)
	if v == nil || x.scratch == nil {
		return t.Float64s()
	}
	out := x.scratch.wide.take(len(v))
	for i, e := range v {
		out[i] = float64(e)
	}
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
