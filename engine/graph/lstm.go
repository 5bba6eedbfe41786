package graph

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/qgemm"
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

// lstmWeights are a node's weights where they are constants: laid out once, for each
// direction. A nil one is none.
type lstmWeights struct {
	w, r       *engine.Tensor
	inputs     []*blas.Packed[float32]
	recurrents []*blas.Packed[float32]
}

// lstmWeightsOf lays out what an LSTM node multiplies by.
func lstmWeightsOf(b *builder) *lstmWeights {
	if b.node.Op != "LSTM" && b.node.Op != OpQuantisedLSTM || b.constants[1] == nil || b.constants[2] == nil {
		return nil
	}
	l := &lstmWeights{w: b.constants[1], r: b.constants[2]}
	for _, m := range []struct {
		t  *engine.Tensor
		to *[]*blas.Packed[float32]
	}{{l.w, &l.inputs}, {l.r, &l.recurrents}} {
		shape := m.t.Shape()
		if m.t.DType() != engine.Float32 || len(shape) != 3 || m.t.Len() == 0 {
			return nil
		}
		if !b.held.lay(int64(shape[0]) * packedBytes(shape[2], shape[1], engine.Float32)) {
			return nil
		}
		for d := range shape[0] {
			*m.to = append(*m.to, blas.Pack(true, shape[2], shape[1], engine.Data[float32](m.t)[d*shape[1]*shape[2]:][:shape[1]*shape[2]], shape[2]))
		}
	}
	return l
}

// lstm is one direction of such a node, for all rows at once.
type lstm struct {
	*Recurrent
	threads int
	// weights are of a gate's input, or of the state before; packed are those laid out.
	weights [2][]float32
	packed  [2]*blas.Packed[float32]
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
func runLSTM(x *Exec, n *Node, weights *lstmWeights, quantised bool, in []*engine.Tensor) ([]*engine.Tensor, error) {
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
		l.weights[0] = engine.Data[float32](in[1])[d*width*r.Inputs:][:width*r.Inputs]
		l.weights[1] = engine.Data[float32](in[2])[d*width*r.Hidden:][:width*r.Hidden]
		if weights != nil && weights.w == in[1] && weights.r == in[2] {
			l.packed = [2]*blas.Packed[float32]{weights.inputs[d], weights.recurrents[d]}
		}
		l.begin(arg(in, 3), d)
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
	return []*engine.Tensor{all, last, cell}, nil
}

// begin sets the sums to both biases of direction d.
func (l *lstm) begin(t *engine.Tensor, d int) {
	width := 4 * l.Hidden
	if t == nil {
		clear(l.sums)
		return
	}
	bias := engine.Data[float32](t)[d*2*width:][:2*width]
	for at := 0; at < len(l.sums); at += width {
		vector.Binary(vector.Add, l.sums[at:at+width], bias[:width], bias[width:])
	}
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

// OpQuantisedLSTM is an LSTM whose weights are multiplied by its state in 8 bits, as
// onnxruntime's quantiser has it. Its input is the caller's to round; its attributes are
// hidden_size and direction.
const OpQuantisedLSTM = "QuantisedLSTM"

func buildQuantisedLSTM(b *builder) (Kernel, error) {
	own := *b.node
	own.Op = "LSTM"
	b.attrs.int("hidden_size", 0)
	b.attrs.string("direction", "")
	if _, err := readRecurrent(&own); err != nil {
		return nil, err
	}
	weights := lstmWeightsOf(b)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if !quickLSTM(&own, in) {
			return nil, fmt.Errorf("an LSTM with weights of 8 bits over %s, or with lengths or peepholes", in[0].DType())
		}
		return runLSTM(x, &own, weights, true, in)
	}, nil
}

func init() {
	register(DomainLocal, map[string]opDef{OpQuantisedLSTM: {since: 1, minIn: 3, maxIn: 8, maxOut: 3, accept: floatTypes, build: buildQuantisedLSTM}})
}
