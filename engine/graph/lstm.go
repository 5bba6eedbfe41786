package graph

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// lstm is one direction of such a node, for all rows at once.
type lstm struct {
	*Recurrent
	threads int
	// weights are of a gate's input, or of the state before; packed are those laid out.
	weights [2][]float32
	packed  [3]*blas.Packed[float32]
	// sums has for each step and row those of the gates input, output, forget and cell;
	// h and c are the state of all rows.
	sums, h, c []float32
	// octets has room for the state as numbers of 8 bits, and near for what those stand for,
	// where the weights are multiplied by that.
	octets []uint8
	near   []float32
}

// add adds the product of rows of a with the weights i to c.
func (l *lstm) add(i int, c, a []float32, rows, width, depth int) {
	if p := l.packed[i]; p != nil {
		p.Gemm(l.threads, false, rows, 1, a, max(depth, 1), 1, c, width)
		return
	}
	matmul(l.threads, c, a, l.weights[i], rows, width, depth, false, true)
}

// runLSTM runs a quick LSTM; where it is quantised its state is rounded to 8 bits before
// each product.
func runLSTM(x *Exec, n *Node, weights *recurrentWeights, quantised bool, in []*engine.Tensor) ([]*engine.Tensor, error) {
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
	cell, c, err := newOf[float32](x, r.Directions, r.Batch, r.Hidden)
	if err != nil {
		return nil, err
	}
	width, rows := 4*r.Hidden, r.Steps*r.Batch
	_, sums, err := rawOf[float32](x, rows, width)
	if err != nil {
		return nil, err
	}
	for i, state := range [][]float32{h, c} {
		if t := arg(in, 5+i); t != nil {
			copy(state, engine.Data[float32](t))
		}
	}
	part := r.Batch * r.Hidden
	var octets []uint8
	var near []float32
	if quantised {
		if _, octets, err = rawOf[uint8](x, part); err != nil {
			return nil, err
		}
		if _, near, err = rawOf[float32](x, part); err != nil {
			return nil, err
		}
	}
	for d := range r.Directions {
		l := &lstm{Recurrent: r, threads: x.threads, sums: sums, h: h[d*part:][:part], c: c[d*part:][:part], octets: octets, near: near}
		if l.packed = weights.of(in[1], in[2], d); l.packed[0] == nil {
			l.weights[0] = engine.Data[float32](in[1])[d*width*r.Inputs:][:width*r.Inputs]
			l.weights[1] = engine.Data[float32](in[2])[d*width*r.Hidden:][:width*r.Hidden]
		}
		beginSums(l.sums, arg(in, 3), d, width)
		l.add(0, sums, engine.Data[float32](in[0]), rows, width, r.Inputs)
		for k := range r.Steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			step := r.at(d, k, r.Steps)
			l.step(sums[step*r.Batch*width:][:r.Batch*width])
			copy(y[r.YAt(step, d, 0):], l.h)
		}
	}
	outs := x.list(3)
	outs[0], outs[1], outs[2] = all, last, cell
	return outs, nil
}

// step goes from one state to the next.
func (l *lstm) step(gates []float32) {
	n := l.Hidden
	h := l.h
	if l.near != nil {
		to := dynamicScale(h)
		qgemm.ToBytes(l.octets, h, to)
		qgemm.ToFloats(l.near, l.octets, to)
		h = l.near
	}
	l.add(1, gates, h, l.Batch, 4*n, n)
	for b := range l.Batch {
		vector.LSTM(gates[b*4*n:][:4*n], l.c[b*n:][:n], l.h[b*n:][:n])
	}
}

// OpQuantisedLSTM is an LSTM whose weights, of 8 bits, are multiplied by its state in 8 bits,
// as onnxruntime's quantiser has it. Its input is the caller's to round; its attributes are
// hidden_size and direction. Behind an LSTM's inputs, of which the weights are
// [directions, depth, rows], it has the scale and the zero point of the input's weights and
// those of the state's: one a direction, or one a row of each.
const OpQuantisedLSTM = "QuantisedLSTM"

// quantisedInputs is how many inputs a QuantisedLSTM has.
const quantisedInputs = 12

// quantisedStack reads weights in 8 bits with their scales.
func quantisedStack(n *Node, t, scale, zero *engine.Tensor) (*rowStack, error) {
	w := narrowed{t: t}
	if len(t.Shape()) != 3 || !isOctet(t.DType()) || scale.DType() != engine.Float32 || scale.Len() != zero.Len() {
		return nil, n.corrupt("weights of %s %v with scales of %s %v", t.DType(), t.Shape(), scale.DType(), scale.Shape())
	}
	flat, err := scale.Reshape(scale.Len())
	if err != nil {
		return nil, err
	}
	axis := 0
	if scale.Len() != t.Shape()[0] { // of each row, which is no axis
		axis = -1
	}
	ok := w.of(flat, zero, max(axis, 0)) || axis < 0
	w.axis = axis
	m, fits := newStack(w, true)
	if !ok || !fits {
		return nil, n.corrupt("weights of %s %v with scales of %v", t.DType(), t.Shape(), scale.Shape())
	}
	return m, nil
}

// quantisedWeights lays out those of a node, nil where lay does not.
func quantisedWeights(n *Node, h *held, in []*engine.Tensor) (*recurrentWeights, error) {
	var stacks [2]*rowStack
	for i := range stacks {
		scale, zero := in[8+2*i], in[9+2*i]
		if in[1+i] == nil || scale == nil || zero == nil {
			return nil, n.corrupt("weights without scales")
		}
		var err error
		if stacks[i], err = quantisedStack(n, in[1+i], scale, zero); err != nil {
			return nil, err
		}
	}
	r := &recurrentWeights{w: in[1], r: in[2]}
	if !r.lay("LSTM", h, stacks) {
		return nil, nil
	}
	return r, nil
}

func buildQuantisedLSTM(b *builder) (Kernel, error) {
	own := *b.node
	own.Op = "LSTM"
	b.attrs.int("hidden_size", 0)
	b.attrs.string("direction", "")
	if _, err := readRecurrent(&own); err != nil {
		return nil, err
	}
	if len(b.constants) != quantisedInputs {
		return nil, b.node.corrupt("%d inputs, of %d", len(b.constants), quantisedInputs)
	}
	var laid *recurrentWeights
	if constant := slices.Concat(b.constants[1:3], b.constants[8:quantisedInputs]); !slices.Contains(constant, nil) {
		var err error
		if laid, err = quantisedWeights(b.node, b.held, b.constants); err != nil {
			return nil, err
		}
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		for i, t := range in[:8] {
			if t != nil && i != 1 && i != 2 && (t.DType() != engine.Float32 || i == 4 || i == 7) {
				return nil, fmt.Errorf("an LSTM with weights of 8 bits over %s, or with lengths or peepholes", in[0].DType())
			}
		}
		weights := laid
		if weights == nil {
			if err := x.reserve(engine.Int8, 2*(in[1].Len()+in[2].Len())); err != nil {
				return nil, err
			}
			var err error
			if weights, err = quantisedWeights(b.node, nil, in); err != nil {
				return nil, err
			}
			if weights == nil {
				return nil, misfit("weights %v and %v", in[1].Shape(), in[2].Shape())
			}
		}
		// An LSTM's weights lie the other way round.
		turned := slices.Clone(in[:8])
		for i := 1; i <= 2; i++ {
			s := in[i].Shape()
			var err error
			if turned[i], err = in[i].Reshape(s[0], s[2], s[1]); err != nil {
				return nil, err
			}
		}
		given := *weights
		given.w, given.r = turned[1], turned[2]
		return given.run(x, &own, true, turned)
	}, nil
}

func init() {
	register(DomainLocal, map[string]opDef{OpQuantisedLSTM: {since: 1, minIn: 3, maxIn: quantisedInputs, maxOut: 3, build: buildQuantisedLSTM}})
}
