package graph

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// runRNN runs a quick RNN, all rows at once.
func runRNN(x *Exec, n *Node, weights *recurrentWeights, in []*engine.Tensor) ([]*engine.Tensor, error) {
	r, err := recurrentShape(x, n, in, weights != nil)
	if err != nil {
		return nil, err
	}
	all, y, err := newOf[float32](x, r.outputShape()...)
	if err != nil {
		return nil, err
	}
	last, h, err := newOf[float32](x, r.Directions, r.Batch, r.Hidden)
	if err != nil {
		return nil, err
	}
	width, rows, part := r.Hidden, r.Steps*r.Batch, r.Batch*r.Hidden
	_, sums, err := rawOf[float32](x, rows, width)
	if err != nil {
		return nil, err
	}
	if t := arg(in, 5); t != nil {
		copy(h, engine.Data[float32](t))
	}
	for d := range r.Directions {
		packed := weights.of(in[1], in[2], d)
		add := func(i int, c, a []float32, rows, depth int) {
			if p := packed[i]; p != nil {
				p.Gemm(x.threads, false, rows, 1, a, max(depth, 1), 1, c, width)
				return
			}
			matmul(x.threads, c, a, engine.Data[float32](in[1+i])[d*width*depth:][:width*depth], rows, width, depth, false, true)
		}
		beginSums(sums, arg(in, 3), d, width)
		add(0, sums, engine.Data[float32](in[0]), rows, r.Inputs)
		state := h[d*part:][:part]
		for k := range r.Steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			step := r.at(d, k, r.Steps)
			now := sums[step*part:][:part]
			add(1, now, state, r.Batch, width)
			vector.Tanh.Apply(state, now)
			copy(y[r.YAt(step, d, 0):], state)
		}
	}
	outs := x.list(2)
	outs[0], outs[1] = all, last
	return outs, nil
}

// beginSums sets the sums of so many columns to both biases of direction d.
func beginSums(sums []float32, t *engine.Tensor, d, width int) {
	if t == nil {
		clear(sums)
		return
	}
	bias := engine.Data[float32](t)[d*2*width:][:2*width]
	for at := 0; at < len(sums); at += width {
		vector.Binary(vector.Add, sums[at:at+width], bias[:width], bias[width:])
	}
}
