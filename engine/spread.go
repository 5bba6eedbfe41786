package engine

import (
	"fmt"
	"slices"
)

// Spread returns k rows of v at even distances, or v itself where it has no more. Every
// tensor must have as many rows as the first.
func (v Values) Spread(k int) (Values, error) {
	if len(v) == 0 || v[0].Tensor.Rows() <= k {
		return v, nil
	}
	r := &Rows{Values: v, N: v[0].Tensor.Rows(), axes: make([]int, len(v))}
	for i := range v {
		if t := v[i].Tensor; len(t.shape) == 0 || t.Rows() != r.N {
			return nil, fmt.Errorf("%q: %d rows of shape %v where the first has %d", v[i].Name, k, t.shape, r.N)
		}
	}
	s, err := r.Spread(k)
	if err != nil {
		return nil, err
	}
	return s.Values, nil
}

// Rows are canonical inputs with the places of their rows. They lie along the first
// dimension of every input, or where a file says other dimensions are open along those,
// as the state of a recurrent network [2, -1, 128] has them; what has none
// belongs to all rows.
type Rows struct {
	Values
	// N is how many there are; 1 where the inputs are no rows.
	N int
	// axes are where the rows of each input lie, -1 for one that all share; nil where
	// there are none.
	axes []int
}

// RowsOf finds the rows of inputs that Bind returned for the model's info.
func RowsOf(info *Info, in Values) *Rows {
	whole := &Rows{Values: in, N: 1}
	first := slices.IndexFunc(info.Inputs, func(s Spec) bool { return len(s.Shape) > 0 && s.Shape[0] == -1 })
	if first < 0 || len(in) != len(info.Inputs) {
		return whole
	}
	r := &Rows{Values: in, N: in[first].Tensor.Rows()}
	for i, s := range info.Inputs {
		axis, ok := rowAxis(s.Shape, in[i].Tensor.shape, r.N)
		if !ok {
			return whole
		}
		r.axes = append(r.axes, axis)
	}
	return r
}

// rowAxis is the first open dimension, and of n, -1 where none is open; ok is false where
// open ones count something else.
func rowAxis(says, shape []int, n int) (axis int, ok bool) {
	if len(says) != len(shape) {
		return 0, false
	}
	open := false
	for a, d := range says {
		if d != -1 {
			continue
		}
		if shape[a] == n {
			return a, a == 0 || says[0] != -1
		}
		open = true
	}
	return -1, !open
}

// Apart reports whether a part of the rows can be given to the model alone.
func (r *Rows) Apart() bool { return r.axes != nil }

// First reports whether every input has its rows along its first dimension.
func (r *Rows) First() bool {
	return r.axes != nil && !slices.ContainsFunc(r.axes, func(a int) bool { return a != 0 })
}

// Slice returns rows from (included) to to (excluded).
func (r *Rows) Slice(from, to int) (Values, error) {
	if from == 0 && to == r.N {
		return r.Values, nil
	}
	if r.axes == nil || from < 0 || to < from || to > r.N {
		return nil, fmt.Errorf("rows %d to %d of %d: out of range", from, to, r.N)
	}
	if r.First() {
		return r.Values.Slice(from, to)
	}
	at := make([]int, to-from)
	for i := range at {
		at[i] = from + i
	}
	return r.take(at)
}

// Spread returns k of the rows at even distances, or r itself where it has no more.
func (r *Rows) Spread(k int) (*Rows, error) {
	if r.N <= k || r.axes == nil {
		return r, nil
	}
	if k < 1 {
		return nil, fmt.Errorf("%d of %d rows", k, r.N)
	}
	at := make([]int, k)
	for i := range at {
		at[i] = i * r.N / k
	}
	return r.Take(at)
}

// Take returns the rows at those places, in that order.
func (r *Rows) Take(at []int) (*Rows, error) {
	v, err := r.take(at)
	if err != nil {
		return nil, err
	}
	return &Rows{Values: v, N: len(at), axes: r.axes}, nil
}

func (r *Rows) take(at []int) (Values, error) {
	if r.axes == nil || slices.ContainsFunc(at, func(i int) bool { return i < 0 || i >= r.N }) {
		return nil, fmt.Errorf("%d rows of %d: out of range", len(at), r.N)
	}
	out := make(Values, len(r.Values))
	for i, v := range r.Values {
		out[i] = v
		if r.axes[i] < 0 {
			continue
		}
		t, err := v.Tensor.take(r.axes[i], at)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", v.Name, err)
		}
		out[i].Tensor = t
	}
	return out, nil
}

// take returns the elements at those places along an axis.
func (t *Tensor) take(axis int, at []int) (*Tensor, error) {
	s := &Tensor{dtype: t.dtype, shape: slices.Clone(t.shape)}
	s.shape[axis] = len(at)
	inner := 1
	for _, d := range t.shape[axis+1:] {
		inner *= d
	}
	if s.data = takeData(t, inner, t.shape[axis], at); s.data == nil {
		return nil, fmt.Errorf("rows of a %s", t.dtype)
	}
	return s, nil
}

func takeData(t *Tensor, inner, n int, at []int) any {
	switch d := t.data.(type) {
	case *[]bool:
		return hold(takeRows(*d, inner, n, at))
	case *[]uint8:
		return hold(takeRows(*d, inner, n, at))
	case *[]uint16:
		return hold(takeRows(*d, inner, n, at))
	case *[]uint32:
		return hold(takeRows(*d, inner, n, at))
	case *[]uint64:
		return hold(takeRows(*d, inner, n, at))
	case *[]int8:
		return hold(takeRows(*d, inner, n, at))
	case *[]int16:
		return hold(takeRows(*d, inner, n, at))
	case *[]int32:
		return hold(takeRows(*d, inner, n, at))
	case *[]int64:
		return hold(takeRows(*d, inner, n, at))
	case *[]float32:
		return hold(takeRows(*d, inner, n, at))
	case *[]float64:
		return hold(takeRows(*d, inner, n, at))
	case *[]string:
		return hold(takeRows(*d, inner, n, at))
	}
	return nil
}

func takeRows[T any](d []T, inner, n int, at []int) []T {
	out := make([]T, 0, len(d)/max(n, 1)*len(at))
	for ; len(d) > 0; d = d[n*inner:] {
		for _, r := range at {
			out = append(out, d[r*inner:(r+1)*inner]...)
		}
	}
	return out
}
