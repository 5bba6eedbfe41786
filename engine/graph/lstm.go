package graph

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// quickLSTM reports whether a node is an LSTM over float32 as nearly all are: with the
// usual functions, of the whole of every row, no clipping and no peepholes.
func quickLSTM(n *Node, in []*engine.Tensor) bool {
	if n.Op != "LSTM" || arg(in, 4) != nil || arg(in, 7) != nil {
		return false
	}
	for _, t := range in {
		if t != nil && t.DType() != engine.Float32 {
			return false
		}
	}
	_, clips := n.Attrs["clip"]
	return !clips && n.Attrs["input_forget"].Int == 0 && n.Attrs["layout"].Int == 0 && len(n.Attrs["activations"].Strings) == 0
}

// lstm is one direction of such a node, for all rows at once.
type lstm struct {
	*Recurrent
	threads int
	// gates has a step's sums for each row, of the gates input, output, forget and
	// cell; h and c are the state, h and c of all rows.
	gates, h, c []float32
}

func runLSTM(x *Exec, n *Node, in []*engine.Tensor) ([]*engine.Tensor, error) {
	r, err := recurrentShape(n, in)
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
	cell, c, err := newOf[float32](x, r.Directions, r.Batch, r.Hidden)
	if err != nil {
		return nil, err
	}
	width, rows := 4*r.Hidden, r.Steps*r.Batch
	if err := x.reserve(engine.Float32, rows*width+width); err != nil {
		return nil, err
	}
	for i, state := range [][]float32{h, c} {
		if t := arg(in, 5+i); t != nil {
			copy(state, engine.Data[float32](t))
		}
	}
	sums, bias := make([]float32, rows*width), make([]float32, width)
	part := r.Batch * r.Hidden
	for d := range r.Directions {
		if t := arg(in, 3); t != nil {
			b := engine.Data[float32](t)[d*2*width:][:2*width]
			vector.Binary(vector.Add, bias, b[:width], b[width:])
		}
		for i := range rows {
			copy(sums[i*width:], bias)
		}
		w := engine.Data[float32](in[1])[d*width*r.Inputs:][:width*r.Inputs]
		matmul(x.threads, sums, engine.Data[float32](in[0]), w, rows, width, r.Inputs, false, true)
		l := &lstm{Recurrent: r, threads: x.threads, h: h[d*part:][:part], c: c[d*part:][:part]}
		rec := engine.Data[float32](in[2])[d*width*r.Hidden:][:width*r.Hidden]
		for k := range r.Steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			step := r.at(d, k, r.Steps)
			l.gates = sums[step*r.Batch*width:][:r.Batch*width]
			l.step(rec)
			copy(y[r.YAt(step, d, 0):], l.h)
		}
	}
	return []*engine.Tensor{all, last, cell}, nil
}

// step goes from one state to the next.
func (l *lstm) step(rec []float32) {
	n := l.Hidden
	matmul(l.threads, l.gates, l.h, rec, l.Batch, 4*n, n, false, true)
	for b := range l.Batch {
		g, h, c := l.gates[b*4*n:][:4*n], l.h[b*n:][:n], l.c[b*n:][:n]
		vector.Sigmoid.Apply(g[:3*n], g[:3*n])
		in, out, forget, candidate := g[:n], g[n:2*n], g[2*n:3*n], g[3*n:]
		vector.Tanh.Apply(candidate, candidate)
		vector.Binary(vector.Mul, c, c, forget)
		vector.Binary(vector.Mul, in, in, candidate)
		vector.Binary(vector.Add, c, c, in)
		vector.Tanh.Apply(h, c)
		vector.Binary(vector.Mul, h, h, out)
	}
}
