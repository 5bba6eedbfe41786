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
	n := v[0].Tensor.Rows()
	out := make(Values, len(v))
	for i := range v {
		t := v[i].Tensor
		if k < 1 || len(t.shape) == 0 || t.Rows() != n {
			return nil, fmt.Errorf("%q: %d rows of shape %v where the first has %d", v[i].Name, k, t.shape, n)
		}
		s := &Tensor{dtype: t.dtype, shape: slices.Clone(t.shape)}
		s.shape[0] = k
		if s.data = spreadData(t, n, k); s.data == nil {
			return nil, fmt.Errorf("%q: rows of a %s", v[i].Name, t.dtype)
		}
		out[i] = Named{Name: v[i].Name, Tensor: s}
	}
	return out, nil
}

func spreadData(t *Tensor, n, k int) any {
	switch d := t.data.(type) {
	case *[]bool:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]uint8:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]uint16:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]uint32:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]uint64:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]int8:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]int16:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]int32:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]int64:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]float32:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]float64:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	case *[]string:
		return hold(spreadRows(*d, t.RowLen(), n, k))
	}
	return nil
}

func spreadRows[T any](d []T, width, n, k int) []T {
	out := make([]T, 0, k*width)
	for i := range k {
		r := i * n / k
		out = append(out, d[r*width:(r+1)*width]...)
	}
	return out
}
