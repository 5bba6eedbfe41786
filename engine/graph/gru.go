package graph

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// gru is one direction of such a node, for all rows at once.
type gru struct {
	*Recurrent
	threads int
	// weights are of the input, and of the state for the gates and for the candidate;
	// packed are those laid out.
	weights [3][]float32
	packed  [3]*blas.Packed[float32]
	// sums has for each step and row those of the gates update and reset and of the
	// candidate's input; h is the state of all rows, inner what it adds to the candidate,
	// bias what goes into that of its own.
	sums, h, inner, bias []float32
	// state is for the gates' part of a product with the state.
	state []float32
}

// add adds the product of rows of a with the weights i to c, or writes it.
func (g *gru) add(i int, beta float32, c, a []float32, rows, width, depth int) {
	if p := g.packed[i]; p != nil {
		p.Gemm(g.threads, false, rows, 1, a, max(depth, 1), beta, c, width)
		return
	}
	scaledMatmul(g.threads, beta, c, a, g.weights[i], rows, width, depth, false, true)
}

func runGRU(x *Exec, n *Node, weights *recurrentWeights, in []*engine.Tensor) ([]*engine.Tensor, error) {
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
	size, rows, part := r.Hidden, r.Steps*r.Batch, r.Batch*r.Hidden
	_, room, err := rawOf[float32](x, rows+r.Batch, 3*size)
	if err != nil {
		return nil, err
	}
	if t := arg(in, 5); t != nil {
		copy(h, engine.Data[float32](t))
	}
	for d := range r.Directions {
		state := room[rows*3*size:]
		g := &gru{Recurrent: r, threads: x.threads, sums: room[:rows*3*size], h: h[d*part:][:part], state: state[:2*part], inner: state[2*part:]}
		if g.packed = weights.of(in[1], in[2], d); g.packed[0] == nil {
			g.weights[0] = engine.Data[float32](in[1])[d*3*size*r.Inputs:][:3*size*r.Inputs]
			rec := engine.Data[float32](in[2])[d*3*size*size:][:3*size*size]
			g.weights[1], g.weights[2] = rec[:2*size*size], rec[2*size*size:]
		}
		g.begin(arg(in, 3), d)
		g.add(0, 1, g.sums, engine.Data[float32](in[0]), rows, 3*size, r.Inputs)
		for k := range r.Steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			step := r.at(d, k, r.Steps)
			g.step(g.sums[step*r.Batch*3*size:][:r.Batch*3*size])
			copy(y[r.YAt(step, d, 0):], g.h)
		}
	}
	out := x.list(2)
	out[0], out[1] = all, last
	return out, nil
}

// begin sets the sums to the biases of direction d, but for the candidate's of the state.
func (g *gru) begin(t *engine.Tensor, d int) {
	n := g.Hidden
	if t == nil {
		clear(g.sums)
		return
	}
	bias := engine.Data[float32](t)[d*6*n:][:6*n]
	for at := 0; at < len(g.sums); at += 3 * n {
		vector.Binary(vector.Add, g.sums[at:at+2*n], bias[:2*n], bias[3*n:5*n])
		copy(g.sums[at+2*n:at+3*n], bias[2*n:3*n])
	}
	g.bias = bias[5*n:]
}

// step goes from one state to the next.
func (g *gru) step(sums []float32) {
	n := g.Hidden
	g.add(1, 0, g.state, g.h, g.Batch, 2*n, n)
	for b := range g.Batch {
		gates := sums[b*3*n:][:2*n]
		vector.Binary(vector.Add, gates, gates, g.state[b*2*n:][:2*n])
	}
	if g.resetLast {
		g.candidate(g.h)
		for b := range g.Batch {
			vector.GRU(sums[b*3*n:][:3*n], g.inner[b*n:][:n], g.h[b*n:][:n])
		}
		return
	}
	// What the state adds to the candidate is of the state that the gate lets through.
	kept := g.state[:g.Batch*n]
	for b := range g.Batch {
		reset := kept[b*n:][:n]
		vector.Sigmoid.Apply(reset, sums[b*3*n+n:][:n])
		vector.Binary(vector.Mul, reset, reset, g.h[b*n:][:n])
	}
	g.candidate(kept)
	for b := range g.Batch {
		own := sums[b*3*n+2*n:][:n]
		vector.Binary(vector.Add, own, own, g.inner[b*n:][:n])
		clear(g.inner[b*n:][:n])
		vector.GRU(sums[b*3*n:][:3*n], g.inner[b*n:][:n], g.h[b*n:][:n])
	}
}

// candidate sets inner to what a state adds to the candidate.
func (g *gru) candidate(state []float32) {
	n := g.Hidden
	g.add(2, 0, g.inner, state, g.Batch, n, n)
	for b := range g.Batch {
		if g.bias != nil {
			vector.Binary(vector.Add, g.inner[b*n:][:n], g.inner[b*n:][:n], g.bias)
		}
	}
}
