package graph

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// term is an operand of an equation on the way, by its strides: it may be what others were
// made to.
type term struct {
	t       *engine.Tensor
	strides []int
}

// sub is the equation of some terms of this one that gives the labels kept, in their order.
func (e *Einsum) sub(kept []int, terms ...term) *Einsum {
	order := slices.Clone(kept)
	for l := range e.Size {
		if slices.Contains(kept, l) {
			continue
		}
		if slices.ContainsFunc(terms, func(t term) bool { return t.strides[l] != 0 }) {
			order = append(order, l)
		}
	}
	s := &Einsum{Out: len(kept)}
	for _, l := range order {
		s.Size = append(s.Size, e.Size[l])
	}
	s.Shape = s.Size[:s.Out:s.Out]
	for _, t := range terms {
		own := make([]int, len(order))
		for i, l := range order {
			own[i] = t.strides[l]
		}
		s.Strides = append(s.Strides, own)
	}
	s.products = newContraction(s)
	return s
}

// terms are how many products an equation visits where each is computed by itself.
func (e *Einsum) terms() float64 {
	n := 1.0
	for _, d := range e.Size {
		n *= float64(d)
	}
	return n
}

// cost is what an equation takes, in products: of two operands what either has alone is
// summed first.
func (e *Einsum) cost() float64 {
	switch len(e.Strides) {
	case 1:
		return e.terms()
	case 2:
		shared, alone := 1.0, [2]float64{1, 1}
		own := [2]float64{1, 1}
		for l, n := range e.Size {
			for i := range own {
				if e.Strides[i][l] != 0 {
					own[i] *= float64(n)
				}
			}
			switch first, second := e.Strides[0][l] != 0, e.Strides[1][l] != 0; {
			case l >= e.Out && first && !second:
				alone[0] *= float64(n)
			case l >= e.Out && second && !first:
				alone[1] *= float64(n)
			default:
				shared *= float64(n)
			}
		}
		for i := range own {
			if alone[i] > 1 {
				shared += own[i]
			}
		}
		return shared
	}
	total := 0.0
	e.plan(func(_, _ int, s *Einsum) { total += s.cost() })
	return total
}

// plan visits the pairs that an equation of more than two operands is computed by: i and j
// of what is left are the next, whose product comes last among it. Of all pairs the one
// that takes the fewest products is next, of those the one whose result is smallest.
func (e *Einsum) plan(each func(i, j int, s *Einsum)) {
	var left []term
	for _, s := range e.Strides {
		left = append(left, term{strides: s})
	}
	for len(left) > 2 {
		var next *Einsum
		var at [2]int
		var kept []int
		least, smallest := math.Inf(1), math.Inf(1)
		for i := range left {
			for j := i + 1; j < len(left); j++ {
				labels := e.kept(left, i, j)
				s := e.sub(labels, left[i], left[j])
				cost, size := s.cost(), 1.0
				for _, n := range s.Shape {
					size *= float64(n)
				}
				if next == nil || cost < least || cost == least && size < smallest {
					next, at, kept, least, smallest = s, [2]int{i, j}, labels, cost, size
				}
			}
		}
		each(at[0], at[1], next)
		left = append(slices.Delete(slices.Delete(left, at[1], at[1]+1), at[0], at[0]+1), term{strides: e.dense(kept)})
	}
	var out []int
	for l := range e.Out {
		out = append(out, l)
	}
	each(0, 1, e.sub(out, left...))
}

// kept are the labels of two terms that the output has, or another.
func (e *Einsum) kept(left []term, i, j int) []int {
	var kept []int
	for l := range e.Size {
		if left[i].strides[l] == 0 && left[j].strides[l] == 0 {
			continue
		}
		needed := l < e.Out
		for k := range left {
			needed = needed || k != i && k != j && left[k].strides[l] != 0
		}
		if needed {
			kept = append(kept, l)
		}
	}
	return kept
}

// dense are the strides, by label, of a tensor that has these in their order.
func (e *Einsum) dense(labels []int) []int {
	sizes := make([]int, len(labels))
	for i, l := range labels {
		sizes[i] = e.Size[l]
	}
	out := make([]int, len(e.Size))
	for i, stride := range rowMajor(sizes) {
		out[labels[i]] = stride
	}
	return out
}

// einsum computes an equation: one of many operands pair by pair.
func einsum[T float](x *Exec, e *Einsum, in []*engine.Tensor) (*engine.Tensor, error) {
	if len(in) <= 2 || slices.Contains(e.Size, 0) {
		return einsumPair[T](x, e, in)
	}
	left := slices.Clone(in)
	var failed error
	e.plan(func(i, j int, s *Einsum) {
		if failed != nil {
			return
		}
		if failed = s.bounded(); failed != nil {
			return
		}
		var t *engine.Tensor
		t, failed = einsumPair[T](x, s, []*engine.Tensor{left[i], left[j]})
		left = append(slices.Delete(slices.Delete(left, j, j+1), i, i+1), t)
	})
	if failed != nil {
		return nil, failed
	}
	return left[0], nil
}

// bounded refuses a result that no memory holds, before its size is counted in integers.
func (e *Einsum) bounded() error {
	size := 1.0
	for _, n := range e.Shape {
		size *= float64(n)
	}
	if size > maxEinsum {
		return fmt.Errorf("a product of %.3g elements: %w", size, engine.ErrTooLarge)
	}
	return nil
}

// einsumPair computes an equation of one operand or two: by products of matrices where
// there is something to multiply.
func einsumPair[T float](x *Exec, e *Einsum, in []*engine.Tensor) (*engine.Tensor, error) {
	if len(in) == 1 && !slices.Contains(e.Size, 0) {
		return einsumOne[T](x, e, in[0])
	}
	if e.products != nil {
		return contract[T](x, e.products, in)
	}
	return einsumTerms[T](x, e, in)
}

// einsumOne is an operand with its dimensions in another order, its diagonals, or its sums
// over some labels.
func einsumOne[T float](x *Exec, e *Einsum, in *engine.Tensor) (*engine.Tensor, error) {
	if e.Out == len(e.Size) {
		if volume(e.Size) == in.Len() {
			return transposed(x, in, e.Shape, e.Strides[0])
		}
		return strided(x, in, 0, e.Shape, e.Strides[0])
	}
	t, out, err := rawOf[T](x, e.Shape...)
	if err != nil {
		return nil, err
	}
	sumStrided(out, engine.Data[T](in), e.Size, e.Strides[0], volume(e.Size[e.Out:]))
	return t, nil
}

// sumStrided sums each so many neighbours of a view.
func sumStrided[T float](sums, v []T, shape, strides []int, terms int) {
	sum := 0.0
	walkStrided(shape, strides, 0, func(at, s, n int) {
		for i := range n {
			sum += float64(v[s+i])
			if (at+i+1)%terms == 0 {
				sums[(at+i)/terms], sum = T(sum), 0
			}
		}
	})
}

// EinsumGradient adds to g what arrives at operand k, where d arrives at the result: the
// equation of d and the other operands, spread over what only operand k has.
func EinsumGradient[T float](ctx context.Context, limit int64, e *Einsum, k int, d *engine.Tensor, in []*engine.Tensor, g []T) error {
	if slices.Contains(e.Size, 0) {
		return nil
	}
	terms := []term{{d, append(rowMajor(e.Shape), make([]int, len(e.Size)-e.Out)...)}}
	for i, t := range in {
		if i != k {
			terms = append(terms, term{t, e.Strides[i]})
		}
	}
	var kept, own []int
	for l := range e.Size {
		if e.Strides[k][l] == 0 {
			continue
		}
		own = append(own, l)
		if slices.ContainsFunc(terms, func(t term) bool { return t.strides[l] != 0 }) {
			kept = append(kept, l)
		}
	}
	operands := make([]*engine.Tensor, len(terms))
	for i, t := range terms {
		operands[i] = t.t
	}
	x := NewExec(limit)
	x.ctx = ctx
	part, err := einsum[T](x, e.sub(kept, terms...), operands)
	if err != nil {
		return err
	}
	sizes, from, to := make([]int, len(own)), make([]int, len(own)), make([]int, len(own))
	dense := e.dense(kept)
	for i, l := range own {
		sizes[i], from[i], to[i] = e.Size[l], dense[l], e.Strides[k][l]
	}
	v := engine.Data[T](part)
	both := &Einsum{Size: sizes, Out: len(own), Shape: sizes, Strides: [][]int{from, to}}
	both.Each(func(_ int, at []int) bool {
		g[at[1]] += v[at[0]]
		return true
	})
	return nil
}
