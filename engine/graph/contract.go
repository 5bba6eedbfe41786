package graph

import (
	"cmp"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
)

// contraction is an equation of two operands as products of matrices, one for each
// element of its batch labels. Labels of one element are in none of the lists: they
// move nothing.
type contraction struct {
	*Einsum
	// batch are the labels that both operands and the output have, rows those that the
	// first and the output have, columns the second and the output, inner both operands.
	batch, rows, columns, inner []int
	// alone are those that one operand only has, and the output not.
	alone [2][]int
}

// leastContracted is from how many multiplications on a product of matrices costs less
// than visiting its terms.
const leastContracted = 32

// newContraction returns nil where the terms are better visited: there are other than two
// operands, or nothing to multiply, or the matrices are tiny.
func newContraction(e *Einsum) *contraction {
	if len(e.Strides) != 2 || slices.Contains(e.Size, 0) {
		return nil
	}
	c := &contraction{Einsum: e}
	for l, n := range e.Size {
		first, second, out := e.Strides[0][l] != 0, e.Strides[1][l] != 0, l < e.Out
		switch {
		case n == 1:
		case first && second && out:
			c.batch = append(c.batch, l)
		case first && out:
			c.rows = append(c.rows, l)
		case second && out:
			c.columns = append(c.columns, l)
		case first && second:
			c.inner = append(c.inner, l)
		case first:
			c.alone[0] = append(c.alone[0], l)
		default:
			c.alone[1] = append(c.alone[1], l)
		}
	}
	if float64(c.volume(c.rows))*float64(c.volume(c.columns))*float64(c.volume(c.inner)) < leastContracted {
		return nil
	}
	return c
}

func (c *contraction) sizes(labels ...int) []int {
	out := make([]int, len(labels))
	for i, l := range labels {
		out[i] = c.Size[l]
	}
	return out
}

func (c *contraction) volume(labels []int) int { return volume(c.sizes(labels...)) }

// step is how far the next element of labels lies, as if they were one; ok is false where
// they lie otherwise.
func (c *contraction) step(labels, strides []int) (step int, ok bool) {
	for i := len(labels) - 1; i >= 0; i-- {
		l := labels[i]
		if i == len(labels)-1 {
			step = strides[l]
		} else if next := labels[i+1]; strides[l] != strides[next]*c.Size[next] {
			return 0, false
		}
	}
	return step, true
}

// placed is how a matrix of labels lies among others: where its rows begin and whether it
// lies transposed. ok is false where it lies otherwise.
func (c *contraction) placed(rows, columns, strides []int) (stride int, trans, ok bool) {
	down, ok1 := c.step(rows, strides)
	across, ok2 := c.step(columns, strides)
	high, wide := c.volume(rows), c.volume(columns)
	switch {
	case !ok1 || !ok2:
		return 0, false, false
	case (len(columns) == 0 || across == 1) && (len(rows) == 0 || down >= wide):
		return max(down, wide), false, true
	case (len(rows) == 0 || down == 1) && (len(columns) == 0 || across >= high):
		return max(across, high), true, true
	}
	return 0, false, false
}

// factor is the matrices of an operand or of the result, one for each element of the
// batch labels.
type factor[T float] struct {
	data    []T
	strides []int // by label
	stride  int   // of a matrix' rows
	trans   bool
}

// factorOf reads an operand as it lies where that can be multiplied, else a copy.
func factorOf[T float](x *Exec, c *contraction, t *engine.Tensor, strides, rows, columns []int) (m factor[T], err error) {
	var ok bool
	m.strides = strides
	if m.stride, m.trans, ok = c.placed(rows, columns, strides); !ok {
		labels := slices.Concat(c.batch, rows, columns)
		from := make([]int, len(labels))
		for i, l := range labels {
			from[i] = strides[l]
		}
		if shape := c.sizes(labels...); volume(shape) == t.Len() {
			t, err = transposed(x, t, shape, from)
		} else { // a diagonal has fewer
			t, err = strided(x, t, 0, shape, from)
		}
		if err != nil {
			return m, err
		}
		m.strides = c.dense(labels)
		m.stride, m.trans, _ = c.placed(rows, columns, m.strides)
	}
	m.data = engine.Data[T](t)
	return m, nil
}

// withoutAlone sums an operand over the labels that it has alone: what the other one is
// multiplied by is their sum.
func withoutAlone[T float](x *Exec, c *contraction, operand int, t *engine.Tensor) (*engine.Tensor, []int, error) {
	strides, alone := c.Strides[operand], c.alone[operand]
	if len(alone) == 0 {
		return t, strides, nil
	}
	var labels []int
	for l, n := range c.Size {
		if n > 1 && strides[l] != 0 && !slices.Contains(alone, l) {
			labels = append(labels, l)
		}
	}
	out, sums, err := rawOf[T](x, c.sizes(labels...)...)
	if err != nil {
		return nil, nil, err
	}
	all := slices.Concat(labels, alone)
	from := make([]int, len(all))
	for i, l := range all {
		from[i] = strides[l]
	}
	sumStrided(sums, engine.Data[T](t), c.sizes(all...), from, c.volume(alone))
	return out, c.dense(labels), nil
}

// contract computes an equation of two operands by products of matrices.
func contract[T float](x *Exec, c *contraction, in []*engine.Tensor) (*engine.Tensor, error) {
	var operands [2]*engine.Tensor
	var strides [2][]int
	for i := range operands {
		var err error
		if operands[i], strides[i], err = withoutAlone[T](x, c, i, in[i]); err != nil {
			return nil, err
		}
	}
	rows, columns := c.rows, c.columns
	if len(rows) > 0 && (len(columns) == 0 || slices.Max(rows) > slices.Max(columns)) {
		// The output's last label is the first operand's: its columns then lie side by side.
		operands[0], operands[1], strides[0], strides[1] = operands[1], operands[0], strides[1], strides[0]
		rows, columns = columns, rows
	}
	slices.SortFunc(c.inner, func(k, l int) int { return cmp.Compare(strides[0][l], strides[0][k]) })
	a, err := factorOf[T](x, c, operands[0], strides[0], rows, c.inner)
	if err != nil {
		return nil, err
	}
	b, err := factorOf[T](x, c, operands[1], strides[1], c.inner, columns)
	if err != nil {
		return nil, err
	}
	to := append(rowMajor(c.Shape), make([]int, len(c.Size)-c.Out)...)
	stride, trans, ok := c.placed(rows, columns, to)
	if ok && !trans {
		t, out, err := rawOf[T](x, c.Shape...)
		if err != nil {
			return nil, err
		}
		return t, multiplyEach(x, c, rows, columns, a, b, factor[T]{data: out, strides: to, stride: stride})
	}
	labels := slices.Concat(c.batch, rows, columns)
	t, out, err := rawOf[T](x, c.sizes(labels...)...)
	if err != nil {
		return nil, err
	}
	dense := c.dense(labels)
	if err := multiplyEach(x, c, rows, columns, a, b, factor[T]{data: out, strides: dense, stride: c.volume(columns)}); err != nil {
		return nil, err
	}
	return transposed(x, t, c.Shape, dense[:c.Out])
}

// multiplyEach computes the product of each element of the batch labels.
func multiplyEach[T float](x *Exec, c *contraction, rows, columns []int, a, b, out factor[T]) error {
	m, n, k := c.volume(rows), c.volume(columns), c.volume(c.inner)
	index := make([]int, len(c.batch))
	var atA, atB, to int
	for range c.volume(c.batch) {
		if x.ctx != nil && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		blas.Gemm(x.threads, a.trans, b.trans, m, n, k, 1, a.data[atA:], a.stride, b.data[atB:], b.stride, 0, out.data[to:], out.stride)
		for i := len(index) - 1; i >= 0; i-- {
			l := c.batch[i]
			index[i]++
			turns := 1
			if index[i] == c.Size[l] {
				turns, index[i] = 1-c.Size[l], 0
			}
			atA, atB, to = atA+turns*a.strides[l], atB+turns*b.strides[l], to+turns*out.strides[l]
			if turns == 1 {
				break
			}
		}
	}
	return nil
}
