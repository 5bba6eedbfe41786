package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// narrowed is a constant in 8 or 16 bits that a step makes floats of: whoever reads those can
// keep the constant as it is and make floats of a part at a time.
type narrowed struct {
	t *engine.Tensor
	// bytes are signed, of numbers (byte - zero) scale, where both are one number or one for
	// each place on an axis; halves have no scale.
	bytes       []int8
	halves      []uint16
	precision   vector.Precision
	scale, zero []float32
	axis        int
}

// narrowOf returns what a value is made of, ok where that is such a constant.
func (f *fuser) narrowOf(slot int) (w narrowed, ok bool) {
	if slot < 0 || f.p.constantOf(slot) != nil || f.p.typeOf(slot) != engine.Float32 || f.outputs[slot] {
		return w, false
	}
	i := f.p.producer[slot]
	if i < 0 || f.gone[i] {
		return w, false
	}
	s := &f.p.steps[i]
	if s.node.Domain != DomainONNX || len(s.in) == 0 {
		return w, false
	}
	if w.t = f.p.constantOf(s.in[0]); w.t == nil || w.t.Len() == 0 {
		return w, false
	}
	switch {
	case s.node.Op == "Cast" && isHalf(w.t.DType()):
		w.halves, w.precision = engine.Data[uint16](w.t), precisionOf(w.t.DType())
		return w, true
	case s.node.Op != "DequantizeLinear" || !isOctet(w.t.DType()) || !onlyAxis(s.node) || s.op == functionOp:
		return w, false
	}
	scale := f.p.constantOf(s.in[1])
	var zero *engine.Tensor
	if z := s.input(2); z >= 0 {
		if zero = f.p.constantOf(z); zero == nil {
			return w, false
		}
	}
	return w, w.of(scale, zero, dequantiseAxis(s.node, len(w.t.Shape())))
}

// dequantiseAxis is that of a DequantizeLinear of so many dimensions.
func dequantiseAxis(n *Node, rank int) int {
	axis := 1
	if a, ok := n.Attrs["axis"]; ok {
		axis = int(a.Int)
	}
	if axis < 0 {
		axis += rank
	}
	return axis
}

// of sets the bytes of w and what they stand for; it reports false where scales are not
// one number or one for each place on an axis.
func (w *narrowed) of(scale, zero *engine.Tensor, axis int) bool {
	if scale == nil || scale.DType() != engine.Float32 {
		return false
	}
	var shift int32
	w.bytes, shift = signedOctets(w.t)
	w.scale, w.axis, w.zero = slices.Clone(engine.Data[float32](scale)), axis, []float32{0}
	if zero != nil {
		v, ok := zero.Float64s()
		if !ok || len(v) != len(w.scale) {
			return false
		}
		w.zero = single32(v)
	} else {
		w.zero = make([]float32, len(w.scale))
	}
	for i := range w.zero {
		// Bytes and zeros both less 128 are as far from each other.
		w.zero[i] -= float32(shift)
	}
	return len(w.scale) == 1 || axis >= 0 && axis < len(w.t.Shape()) && len(scale.Shape()) == 1 && len(w.scale) == w.t.Shape()[axis]
}

// rowStack is a constant [directions, rows, depth], or with the last two the other way round
// where turned, of which a recurrent node multiplies by the rows. Those in 8 or 16 bits stay
// so.
type rowStack struct {
	narrowed
	floats      []float32
	turned      bool
	rows, depth int
	// scales and zeros are of each row of each direction.
	scales, zeros []float32
}

// newStack reads one, ok where its scales are of rows at most.
func newStack(w narrowed, turned bool) (m *rowStack, ok bool) {
	shape := w.t.Shape()
	if len(shape) != 3 || w.t.Len() == 0 {
		return nil, false
	}
	m = &rowStack{narrowed: w, turned: turned, rows: shape[1], depth: shape[2]}
	if turned {
		m.rows, m.depth = m.depth, m.rows
	}
	if w.bytes == nil {
		m.floats = engine.Data[float32](w.t)
		return m, m.floats != nil || m.halves != nil
	}
	n := shape[0] * m.rows
	m.scales, m.zeros = make([]float32, n), make([]float32, n)
	for i := range n {
		at := 0
		switch {
		case len(w.scale) == 1:
		case len(w.scale) == n && w.axis < 0:
			at = i
		case w.axis == 0:
			at = i / m.rows
		case w.axis == 1 && !turned || w.axis == 2 && turned:
			at = i % m.rows
		default:
			return nil, false
		}
		m.scales[i], m.zeros[i] = w.scale[at], w.zero[at]
	}
	return m, true
}

// size is what all rows take laid out, in parts parts at most.
func (m *rowStack) size(parts int) int64 {
	d := engine.Float32
	switch {
	case m.bytes != nil:
		d = engine.Int8
	case m.halves != nil:
		d = engine.Float16
	}
	return int64(m.t.Shape()[0]) * (packedBytes(m.depth, m.rows+(parts-1)*panelColumns, d) + 8*int64(m.rows))
}

// pack lays out rows from to to of direction d.
func (m *rowStack) pack(d, from, to int) *blas.Packed[float32] {
	n, k := to-from, m.depth
	at, ld := (d*m.rows+from)*k, k
	if m.turned {
		at, ld = d*m.rows*k+from, m.rows
	}
	end := at + n*k
	if m.turned {
		end = at + (k-1)*ld + n
	}
	switch {
	case m.bytes != nil:
		return blas.PackBytes(!m.turned, k, n, m.bytes[at:end], ld, m.scales[d*m.rows+from:][:n], m.zeros[d*m.rows+from:][:n])
	case m.halves != nil:
		return blas.PackHalves(!m.turned, k, n, m.halves[at:end], ld, m.precision)
	}
	return blas.Pack(!m.turned, k, n, m.floats[at:end], ld)
}

// recurrent has step i, an LSTM, a GRU or an RNN as nearly all are, keep its weights as the
// file has them where those are in 8 or 16 bits.
func (f *fuser) recurrent(i int) {
	s := &f.p.steps[i]
	if f.gone[i] || s.node.Domain != DomainONNX || gates[s.node.Op] == 0 || len(s.in) < 3 || !quickNode(s.node, s.input(4) >= 0, s.input(7) >= 0) {
		return
	}
	var stacks [2]*rowStack
	in, any := slices.Clone(s.in), false
	for k := range stacks {
		w, ok := f.narrowOf(s.in[1+k])
		if any = any || ok; ok {
			in[1+k] = f.p.steps[f.p.producer[s.in[1+k]]].in[0]
		} else if w = (narrowed{t: f.p.constantOf(s.in[1+k])}); w.t == nil {
			return
		}
		if stacks[k], ok = newStack(w, false); !ok {
			return
		}
	}
	if !any {
		return
	}
	r := &recurrentWeights{w: stacks[0].t, r: stacks[1].t}
	if !r.lay(s.node.Op, f.p.held, stacks) {
		return
	}
	made := s.in[1:3]
	n := s.node
	f.become(i, step{node: n, op: functionOp, in: in, kernel: func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		for i, t := range in {
			if t != nil && i != 1 && i != 2 && t.DType() != engine.Float32 {
				return nil, errUnfused
			}
		}
		return r.run(x, n, false, in)
	}})
	for _, slot := range made {
		if k := f.p.producer[slot]; k >= 0 && len(f.readers[slot]) == 0 && !f.outputs[slot] {
			f.gone[k] = true
		}
	}
}

// quickNode reports whether a recurrent node is as nearly all are: with the usual functions,
// of the whole of every row, no clipping and no peepholes.
func quickNode(n *Node, lengths, peepholes bool) bool {
	_, clips := n.Attrs["clip"]
	return !lengths && !peepholes && !clips && n.Attrs["input_forget"].Int == 0 && n.Attrs["layout"].Int == 0 && usuallyActive(n)
}

// usuallyActive reports whether a recurrent node has the usual functions, which some exporters
// name all the same.
func usuallyActive(n *Node) bool {
	usual, names := usualActivations[n.Op], n.Attrs["activations"].Strings
	for i, name := range names {
		if name != usual[i%len(usual)] {
			return false
		}
	}
	return len(names)%len(usual) == 0
}

// quickRecurrent reports whether a node is such a one over float32.
func quickRecurrent(n *Node, in []*engine.Tensor) bool {
	for _, t := range in {
		if t != nil && t.DType() != engine.Float32 {
			return false
		}
	}
	return quickNode(n, arg(in, 4) != nil, arg(in, 7) != nil)
}

// recurrentWeights are a node's weights where they are constants: laid out once, for each
// direction the input's and the state's, of which a GRU's candidate has its own. A nil one is
// none.
type recurrentWeights struct {
	w, r   *engine.Tensor
	panels [][3]*blas.Packed[float32]
}

// recurrentWeightsOf lays out what a node of such an operator multiplies by.
func recurrentWeightsOf(b *builder, op string) *recurrentWeights {
	if b.constants[1] == nil || b.constants[2] == nil || b.constants[1].DType() != engine.Float32 || b.constants[2].DType() != engine.Float32 {
		return nil
	}
	r := &recurrentWeights{w: b.constants[1], r: b.constants[2]}
	w, ok := newStack(narrowed{t: r.w}, false)
	s, ok2 := newStack(narrowed{t: r.r}, false)
	if !ok || !ok2 || !r.lay(op, b.held, [2]*rowStack{w, s}) {
		return nil
	}
	return r
}

// lay lays out the input's weights and the state's; it reports false where they find no
// room, or are of other shapes than they must be, which a run tells.
func (r *recurrentWeights) lay(op string, h *held, of [2]*rowStack) bool {
	n, directions := of[1].depth, of[0].t.Shape()[0]
	rows := gates[op] * n
	if of[1].t.Shape()[0] != directions || of[0].rows != rows || of[1].rows != rows || !h.lay(of[0].size(1)+of[1].size(2)) {
		return false
	}
	for d := range directions {
		p := [3]*blas.Packed[float32]{of[0].pack(d, 0, rows)}
		if op == "GRU" {
			p[1], p[2] = of[1].pack(d, 0, 2*n), of[1].pack(d, 2*n, rows)
		} else {
			p[1] = of[1].pack(d, 0, rows)
		}
		r.panels = append(r.panels, p)
	}
	return true
}

// of returns what was laid out of weights for a direction: nothing where they are others.
func (r *recurrentWeights) of(w, rec *engine.Tensor, d int) (p [3]*blas.Packed[float32]) {
	if r != nil && r.w == w && r.r == rec {
		p = r.panels[d]
	}
	return p
}

// run runs a quick node; where it is quantised, an LSTM's state is rounded to 8 bits before
// each product.
func (r *recurrentWeights) run(x *Exec, n *Node, quantised bool, in []*engine.Tensor) ([]*engine.Tensor, error) {
	switch n.Op {
	case "GRU":
		return runGRU(x, n, r, in)
	case "RNN":
		return runRNN(x, n, r, in)
	}
	return runLSTM(x, n, r, quantised, in)
}
