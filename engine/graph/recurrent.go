package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Recurrent is the geometry of an RNN, GRU or LSTM node: X is [Steps, Batch,
// Inputs], the state Hidden wide, with one or two directions. Where the batch comes
// first (layout 1), XAt, YAt and StateAt know.
type Recurrent struct {
	Op                           string
	Steps, Batch, Inputs, Hidden int
	Directions                   int
	// backwards says that the only direction is from the end.
	backwards, resetLast, couples, batchFirst bool
	clip                                      float64
	// acts are the functions of each direction, three of them at most.
	acts  [][]squash
	given recurrentGiven
}

// recurrentGiven is what the inputs of such a node hold.
type recurrentGiven struct {
	// lengths are the steps of each row, nil where they are all.
	lengths []int
	// data holds the inputs in float64, nil where one is left out.
	data [8][]float64
}

// squash is an activation function and its derivative from what goes in and comes
// out.
type squash struct {
	f func(x float64) float64
	d func(x, y float64) float64
}

// gates is how many blocks of Hidden rows W and R have.
var gates = map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4}

// usualActivations are the functions of a direction where the node names none.
var usualActivations = map[string][]string{"RNN": {"Tanh"}, "GRU": {"Sigmoid", "Tanh"}, "LSTM": {"Sigmoid", "Tanh", "Tanh"}}

func step01(x float64) float64 {
	if x > 0 {
		return 1
	}
	return 0
}

// squashOf returns the function of that name; alpha and beta return its parameters.
func squashOf(name string, alpha, beta func(def float64) float64) (squash, bool) {
	switch name {
	case "Tanh":
		return squash{math.Tanh, func(_, y float64) float64 { return 1 - y*y }}, true
	case "Sigmoid":
		return squash{sigmoid, func(_, y float64) float64 { return y * (1 - y) }}, true
	case "Relu":
		return squash{func(x float64) float64 { return max(x, 0) }, func(x, _ float64) float64 { return step01(x) }}, true
	case "Softsign":
		return squash{func(x float64) float64 { return x / (1 + math.Abs(x)) }, func(x, _ float64) float64 { s := 1 + math.Abs(x); return 1 / (s * s) }}, true
	case "Softplus":
		return squash{softplus, func(x, _ float64) float64 { return sigmoid(x) }}, true
	case "Affine":
		a, b := alpha(1), beta(0)
		return squash{func(x float64) float64 { return a*x + b }, func(_, _ float64) float64 { return a }}, true
	case "LeakyRelu":
		a := alpha(0.01)
		slope := func(x, _ float64) float64 { return step01(x) + a*(1-step01(x)) }
		return squash{func(x float64) float64 { return x * slope(x, 0) }, slope}, true
	case "ThresholdedRelu":
		a := alpha(1)
		return squash{func(x float64) float64 { return x * step01(x-a) }, func(x, _ float64) float64 { return step01(x - a) }}, true
	case "ScaledTanh":
		a, b := alpha(1), beta(1)
		return squash{func(x float64) float64 { return a * math.Tanh(b*x) }, func(x, _ float64) float64 { t := math.Tanh(b * x); return a * b * (1 - t*t) }}, true
	case "HardSigmoid":
		a, b := alpha(0.2), beta(0.5)
		return squash{func(x float64) float64 { return min(max(a*x+b, 0), 1) }, func(_, y float64) float64 { return a * step01(y) * step01(1-y) }}, true
	case "Elu":
		a := alpha(1)
		return squash{
			func(x float64) float64 { return max(x, 0) + a*math.Expm1(min(x, 0)) },
			func(x, _ float64) float64 { return step01(x) + (1-step01(x))*a*math.Exp(min(x, 0)) },
		}, true
	}
	return squash{}, false
}

// readSquashes reads the functions of all directions of a node.
func readSquashes(n *Node, directions int) ([][]squash, error) {
	usual := usualActivations[n.Op]
	names := n.Attrs["activations"].Strings
	if len(names) == 0 {
		names = slices.Repeat(usual, directions)
	}
	if len(names) != directions*len(usual) {
		return nil, n.corrupt("%d activations for %d directions", len(names), directions)
	}
	next := func(list []float32) func(def float64) float64 {
		return func(def float64) float64 {
			if len(list) == 0 {
				return def
			}
			v := float64(list[0])
			list = list[1:]
			return v
		}
	}
	alpha, beta := next(n.Attrs["activation_alpha"].Floats), next(n.Attrs["activation_beta"].Floats)
	acts := make([][]squash, directions)
	for i, name := range names {
		s, ok := squashOf(name, alpha, beta)
		if !ok {
			return nil, n.unsupported("activation %q", name)
		}
		acts[i/len(usual)] = append(acts[i/len(usual)], s)
	}
	return acts, nil
}

// NewRecurrent works out the geometry of a node for its inputs.
func NewRecurrent(n *Node, in []*engine.Tensor) (*Recurrent, error) {
	x := new(Exec)
	r, err := recurrentShape(x, n, in, false)
	if err != nil {
		return nil, err
	}
	r.given, err = r.read(x, in)
	return r, err
}

// read reads the inputs' elements.
func (r *Recurrent) read(x *Exec, in []*engine.Tensor) (g recurrentGiven, err error) {
	if t := arg(in, 4); t != nil {
		if g.lengths, err = x.intsOf(t); err != nil {
			return g, err
		}
		if len(g.lengths) != r.Batch || slices.ContainsFunc(g.lengths, func(n int) bool { return n < 0 || n > r.Steps }) {
			return g, fmt.Errorf("sequence_lens %v for %d rows of %d steps", t.Shape(), r.Batch, r.Steps)
		}
	}
	for i := range g.data {
		if t := arg(in, i); t != nil && i != 4 {
			g.data[i], _ = x.float64s(t)
		}
	}
	return g, nil
}

// recurrentShape is NewRecurrent without the inputs' elements. Weights may be of another type
// where they were laid out.
func recurrentShape(xc *Exec, n *Node, in []*engine.Tensor, laid bool) (*Recurrent, error) {
	if r := recall[Recurrent](xc, in); r != nil {
		return r, nil
	}
	x, w := in[0].Shape(), in[1].Shape()
	r, err := readRecurrent(n)
	if err != nil {
		return nil, err
	}
	if len(x) != 3 || len(w) != 3 {
		return nil, fmt.Errorf("input %v and weights %v", x, w)
	}
	r.Steps, r.Batch, r.Inputs = x[0], x[1], x[2]
	h, g, d := r.Hidden, gates[n.Op], r.Directions
	if r.batchFirst {
		r.Steps, r.Batch = x[1], x[0]
	}
	state := r.stateShape()
	want := map[int][]int{1: {d, g * h, r.Inputs}, 2: {d, g * h, h}, 3: {d, 2 * g * h}, 5: state, 6: state, 7: {d, 3 * h}}
	for i, shape := range want {
		if t := arg(in, i); t != nil && (!slices.Equal(t.Shape(), shape) || t.DType() != in[0].DType() && (!laid || i != 1 && i != 2)) {
			return nil, fmt.Errorf("input %d is %s %v, want %s %v", i, t.DType(), t.Shape(), in[0].DType(), shape)
		}
	}
	remember(xc, in, r)
	return r, nil
}

// readRecurrent reads what the attributes say.
func readRecurrent(n *Node) (*Recurrent, error) {
	r := &Recurrent{
		Op: n.Op, Hidden: int(n.Attrs["hidden_size"].Int), Directions: 1, resetLast: n.Attrs["linear_before_reset"].Int == 1,
		couples: n.Attrs["input_forget"].Int == 1, batchFirst: n.Attrs["layout"].Int == 1, clip: math.Inf(1),
	}
	switch n.Attrs["direction"].String {
	case "", "forward":
	case "reverse":
		r.backwards = true
	case "bidirectional":
		r.Directions = 2
	default:
		return nil, n.corrupt("direction %q", n.Attrs["direction"].String)
	}
	if a, ok := n.Attrs["clip"]; ok {
		r.clip = float64(a.Float)
	}
	if r.Hidden < 1 || r.Hidden > 1<<20 || !(r.clip > 0) {
		return nil, n.corrupt("hidden_size %d, clip %v", r.Hidden, r.clip)
	}
	var err error
	r.acts, err = readSquashes(n, r.Directions)
	return r, err
}

// XAt is where row b's step t begins in X, YAt where its state after it does in Y,
// and StateAt where it does in a first or last state, both of direction d.
func (r *Recurrent) XAt(t, b int) int {
	if r.batchFirst {
		return (b*r.Steps + t) * r.Inputs
	}
	return (t*r.Batch + b) * r.Inputs
}

// YAt is explained at XAt.
func (r *Recurrent) YAt(t, d, b int) int {
	if r.batchFirst {
		return ((b*r.Steps+t)*r.Directions + d) * r.Hidden
	}
	return ((t*r.Directions+d)*r.Batch + b) * r.Hidden
}

// StateAt is explained at XAt.
func (r *Recurrent) StateAt(d, b int) int {
	if r.batchFirst {
		return (b*r.Directions + d) * r.Hidden
	}
	return (d*r.Batch + b) * r.Hidden
}

// at is the step that direction d of a row of n steps takes as its k'th.
func (r *Recurrent) at(d, k, n int) int {
	if d == 1 || r.backwards {
		return n - 1 - k
	}
	return k
}

// Cell is one direction's parameters in float64, and the tape of its steps, which one that has a
// room does without.
type Cell struct {
	*Recurrent
	D                  int
	row                int
	w, rec, bias, peep []float64
	act                []squash
	H, C               []float64 // the state of one row
	tape               []tape
	room               []float64
	used               int
}

// tape keeps of a step what its derivative needs.
type tape struct {
	step       int
	h, c       []float64 // the state before it
	pre, gate  []float64 // the gates' sums, and the gates
	next, held []float64 // the state c after it, and the function of it that o lets out
	inner      []float64 // a GRU's recurrent part of the candidate
}

// Row walks row b of the batch in direction d and calls each after every step with
// the step and the state.
func (r *Recurrent) Row(d, b int, each func(step int, h []float64)) *Cell {
	c := new(Cell)
	c.walk(r, &r.given, d, b, each)
	return c
}

// cellRoom is how many numbers a step and the state it is of take, for each of the state's.
const cellRoom = 18

// floats returns n zeros, which in a room are the step's.
func (c *Cell) floats(n int) []float64 {
	if c.room == nil {
		return make([]float64, n)
	}
	out := c.room[c.used:][:n:n]
	c.used += n
	clear(out)
	return out
}

// joined is the elements of some lists.
func (c *Cell) joined(lists ...[]float64) []float64 {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	out := c.floats(n)[:0]
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// walk is Row.
func (c *Cell) walk(r *Recurrent, given *recurrentGiven, d, b int, each func(step int, h []float64)) {
	c.Recurrent, c.D, c.row, c.act, c.used = r, d, b, r.acts[d], 0
	g, h := gates[r.Op]*r.Hidden, r.Hidden
	part := func(i, size int) []float64 {
		if given.data[i] == nil {
			return make([]float64, size)
		}
		return given.data[i][d*size : (d+1)*size]
	}
	c.w, c.rec, c.bias = part(1, g*r.Inputs), part(2, g*h), part(3, 2*g)
	if given.data[7] != nil {
		c.peep = part(7, 3*h)
	}
	c.H, c.C = c.floats(h), c.floats(h)
	if given.data[5] != nil {
		copy(c.H, given.data[5][r.StateAt(d, b):])
	}
	if given.data[6] != nil {
		copy(c.C, given.data[6][r.StateAt(d, b):])
	}
	n := r.Steps
	if given.lengths != nil {
		n = given.lengths[b]
	}
	state := c.used
	for k := range n {
		t := r.at(d, k, n)
		made := c.forward(t, given.data[0][r.XAt(t, b):][:r.Inputs])
		if c.room == nil {
			c.tape = append(c.tape, made)
		}
		c.used = state
		each(t, c.H)
	}
}

// linear returns W x + R h + both biases of gate rows from to to.
func (c *Cell) linear(x, h []float64, from, to int, recurrentOnly, inputOnly bool) []float64 {
	total := gates[c.Op] * c.Hidden
	out := c.floats(to - from)
	for i := range out {
		row := from + i
		s := 0.0
		if !recurrentOnly {
			s += c.bias[row]
			for j, v := range x {
				s += c.w[row*c.Inputs+j] * v
			}
		}
		if !inputOnly {
			s += c.bias[total+row]
			for j, v := range h {
				s += c.rec[row*c.Hidden+j] * v
			}
		}
		out[i] = s
	}
	return out
}

// squashed clips sums and puts them through function k.
func (c *Cell) squashed(k int, pre []float64) []float64 {
	out := c.floats(len(pre))
	for i, v := range pre {
		pre[i] = min(max(v, -c.clip), c.clip)
		out[i] = c.act[k].f(pre[i])
	}
	return out
}

// slope is the derivative of function k at a clipped sum.
func (c *Cell) slope(k int, pre, y float64) float64 {
	if math.Abs(pre) >= c.clip {
		return 0
	}
	return c.act[k].d(pre, y)
}

func (c *Cell) forward(step int, x []float64) tape {
	n := c.Hidden
	t := tape{step: step, h: c.joined(c.H), c: c.joined(c.C)}
	switch c.Op {
	case "RNN":
		t.pre = c.linear(x, c.H, 0, n, false, false)
		t.gate = c.squashed(0, t.pre)
		copy(c.H, t.gate)
	case "LSTM":
		c.forwardLSTM(&t, x)
	case "GRU": // update, reset, candidate
		c.forwardGRU(&t, x)
	}
	return t
}

// forwardLSTM has gates in the order input, output, forget, cell, and peepholes for
// the first three.
func (c *Cell) forwardLSTM(t *tape, x []float64) {
	n := c.Hidden
	t.pre = c.linear(x, c.H, 0, 4*n, false, false)
	if c.peep != nil {
		for i := range n {
			t.pre[i] += c.peep[i] * c.C[i]
			t.pre[2*n+i] += c.peep[2*n+i] * c.C[i]
		}
	}
	in, forget, cell := c.squashed(0, t.pre[:n]), c.squashed(0, t.pre[2*n:3*n]), c.squashed(1, t.pre[3*n:])
	for i := range n {
		if c.couples {
			forget[i] = 1 - in[i]
		}
		c.C[i] = forget[i]*c.C[i] + in[i]*cell[i]
		if c.peep != nil {
			t.pre[n+i] += c.peep[n+i] * c.C[i]
		}
	}
	out := c.squashed(0, t.pre[n:2*n])
	t.next = c.joined(c.C)
	t.held = c.floats(n)
	for i := range n {
		t.held[i] = c.act[2].f(c.C[i])
		c.H[i] = out[i] * t.held[i]
	}
	t.gate = c.joined(in, out, forget, cell)
}

func (c *Cell) forwardGRU(t *tape, x []float64) {
	n := c.Hidden
	t.pre = c.linear(x, c.H, 0, 2*n, false, false)
	t.gate = c.squashed(0, t.pre)
	candidate := c.linear(x, nil, 2*n, 3*n, false, true)
	if c.resetLast {
		t.inner = c.linear(nil, c.H, 2*n, 3*n, true, false)
	} else {
		reset := c.floats(n)
		for i := range reset {
			reset[i] = t.gate[n+i] * c.H[i]
		}
		t.inner = c.linear(nil, reset, 2*n, 3*n, true, false)
	}
	for i := range n {
		inner := t.inner[i]
		if c.resetLast {
			inner *= t.gate[n+i]
		}
		candidate[i] += inner
	}
	y := c.squashed(1, candidate)
	for i := range n {
		c.H[i] = (1-t.gate[i])*y[i] + t.gate[i]*c.H[i]
	}
	t.pre, t.gate = c.joined(t.pre, candidate), c.joined(t.gate, y)
}

// To takes the gradients of a node's inputs, by their places, an element at a time; nil where
// nobody asks for one. That of sequence_lens has none.
type To [8]func(at int, v float64)

// Back walks the steps back: dh returns what arrives at the state after a step from
// outside. h and cell are the gradients of the last state.
func (c *Cell) Back(h, cell []float64, dh func(step int) []float64, to *To) {
	dH, dC := slices.Clone(h), slices.Clone(cell)
	for k := len(c.tape) - 1; k >= 0; k-- {
		t := &c.tape[k]
		for i, v := range dh(t.step) {
			dH[i] += v
		}
		in, rec, kept := c.gateGradients(t, dH, dC)
		if to[0] != nil {
			c.toInput(t, in, to[0])
		}
		c.toParameters(t, in, rec, to)
		next := kept
		for row, d := range rec {
			reset := 1.0
			for j := range next {
				if c.Op == "GRU" && !c.resetLast && row >= 2*c.Hidden {
					reset = t.gate[c.Hidden+j]
				}
				next[j] += d * c.rec[row*c.Hidden+j] * reset
			}
		}
		dH = next
	}
	for i, d := range [2][]float64{dH, dC} {
		if add := to[5+i]; add != nil {
			for j, v := range d {
				add(c.StateAt(c.D, c.row)+j, v)
			}
		}
	}
}

func (c *Cell) toInput(t *tape, in []float64, add func(at int, v float64)) {
	gx := make([]float64, c.Inputs)
	for row, d := range in {
		for j := range gx {
			gx[j] += d * c.w[row*c.Inputs+j]
		}
	}
	at := c.XAt(t.step, c.row)
	for j, v := range gx {
		add(at+j, v)
	}
}

// toParameters adds to the gradients of weights, biases and peepholes: in and rec are those of
// the gates' sums as the input and as the state see them.
func (c *Cell) toParameters(t *tape, in, rec []float64, to *To) {
	n, rows := c.Hidden, len(in)
	if add := to[1]; add != nil {
		x := c.given.data[0][c.XAt(t.step, c.row):][:c.Inputs]
		for row, d := range in {
			for j, v := range x {
				add((c.D*rows+row)*c.Inputs+j, d*v)
			}
		}
	}
	if add := to[2]; add != nil {
		for row, d := range rec {
			for j, v := range t.h {
				if c.Op == "GRU" && !c.resetLast && row >= 2*n {
					v *= t.gate[n+j]
				}
				add((c.D*rows+row)*n+j, d*v)
			}
		}
	}
	if add := to[3]; add != nil {
		for row := range rows {
			add(c.D*2*rows+row, in[row])
			add((c.D*2+1)*rows+row, rec[row])
		}
	}
	if add := to[7]; add != nil && c.peep != nil {
		for i := range n {
			add(c.D*3*n+i, in[i]*t.c[i])
			add((c.D*3+1)*n+i, in[n+i]*t.next[i])
			add((c.D*3+2)*n+i, in[2*n+i]*t.c[i])
		}
	}
}

// gateGradients returns the gradients of the gates' sums as the input sees them and
// as the state sees them, and what goes to the state before directly. dC becomes
// that of the step before.
func (c *Cell) gateGradients(t *tape, dH, dC []float64) (in, rec, kept []float64) {
	n := c.Hidden
	kept = make([]float64, n)
	in = make([]float64, gates[c.Op]*n)
	switch c.Op {
	case "RNN":
		for i, y := range t.gate {
			in[i] = dH[i] * c.slope(0, t.pre[i], y)
		}
	case "LSTM":
		for i := range n {
			c.lstmGradients(t, i, dH, dC, in)
		}
	case "GRU":
		return c.gruGradients(t, dH, in, kept)
	}
	return in, in, kept
}

// lstmGradients sets the four gradients of element i, and that of the cell before.
func (c *Cell) lstmGradients(t *tape, i int, dH, dC, in []float64) {
	n := c.Hidden
	gi, o, f, g := t.gate[i], t.gate[n+i], t.gate[2*n+i], t.gate[3*n+i]
	in[n+i] = dH[i] * t.held[i] * c.slope(0, t.pre[n+i], o)
	d := dC[i] + dH[i]*o*c.act[2].d(t.next[i], t.held[i])
	if c.peep != nil {
		d += in[n+i] * c.peep[n+i]
	}
	toIn, toForget := d*g, d*t.c[i]
	if c.couples {
		toIn, toForget = toIn-toForget, 0
	}
	in[i] = toIn * c.slope(0, t.pre[i], gi)
	in[2*n+i] = toForget * c.slope(0, t.pre[2*n+i], f)
	in[3*n+i] = d * gi * c.slope(1, t.pre[3*n+i], g)
	dC[i] = d * f
	if c.peep != nil {
		dC[i] += in[i]*c.peep[i] + in[2*n+i]*c.peep[2*n+i]
	}
}

func (c *Cell) gruGradients(t *tape, dH, in, kept []float64) (a, b, k []float64) {
	n := c.Hidden
	for i := range n {
		z, y := t.gate[i], t.gate[2*n+i]
		in[i] = dH[i] * (t.h[i] - y) * c.slope(0, t.pre[i], z)
		in[2*n+i] = dH[i] * (1 - z) * c.slope(1, t.pre[2*n+i], y)
		kept[i] = dH[i] * z
	}
	rec := slices.Clone(in)
	for i := range n {
		reset := t.gate[n+i]
		arrives := in[2*n+i] * t.inner[i]
		if c.resetLast {
			rec[2*n+i] *= reset
		} else {
			arrives = 0
			for row := range n {
				arrives += in[2*n+row] * c.rec[(2*n+row)*n+i]
			}
			arrives *= t.h[i]
		}
		in[n+i] = arrives * c.slope(0, t.pre[n+i], reset)
		rec[n+i] = in[n+i]
	}
	return in, rec, kept
}

func buildRecurrent(b *builder) (Kernel, error) {
	n := b.node
	for _, name := range []string{"hidden_size", "linear_before_reset", "layout", "input_forget"} {
		b.attrs.int(name, 0)
	}
	b.attrs.string("direction", "")
	b.attrs.strings("activations")
	b.attrs.floats("activation_alpha")
	b.attrs.floats("activation_beta")
	b.attrs.float("clip", 0)
	if _, err := readRecurrent(n); err != nil {
		return nil, err
	}
	weights := recurrentWeightsOf(b, n.Op)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if quickRecurrent(n, in) {
			return weights.run(x, n, false, in)
		}
		return runCells(x, n, in)
	}, nil
}

// runCells runs what no quick kernel does, row by row in float64.
func runCells(x *Exec, n *Node, in []*engine.Tensor) ([]*engine.Tensor, error) {
	r, err := recurrentShape(x, n, in, false)
	if err != nil {
		return nil, err
	}
	given, err := r.read(x, in)
	if err != nil {
		return nil, err
	}
	biases := 2 * gates[r.Op] * r.Hidden * r.Directions
	if err := x.reserve(engine.Float64, in[0].Len()+in[1].Len()+in[2].Len()+biases+cellRoom*r.Hidden); err != nil {
		return nil, err
	}
	if given.data[3] == nil {
		given.data[3] = x.wide(biases)
		clear(given.data[3])
	}
	gives := x.gives(false)
	out := x.list(3)
	if out[0], err = x.New(engine.Float64, r.outputShape()...); err != nil {
		return nil, err
	}
	for i := 1; i < len(out); i++ {
		if out[i], err = x.New(engine.Float64, r.stateShape()...); err != nil {
			return nil, err
		}
	}
	all, yh, yc := engine.Data[float64](out[0]), engine.Data[float64](out[1]), engine.Data[float64](out[2])
	c := Cell{room: x.wide(cellRoom * r.Hidden)}
	for dir := range r.Directions {
		for row := range r.Batch {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			c.walk(r, &given, dir, row, func(step int, h []float64) { copy(all[r.YAt(step, dir, row):], h) })
			copy(yh[r.StateAt(dir, row):], c.H)
			copy(yc[r.StateAt(dir, row):], c.C)
		}
	}
	x.gives(gives)
	for i := range out {
		if out[i], err = castTensor(x, out[i], in[0].DType(), true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// stateShape is that of a first or last state.
func (r *Recurrent) stateShape() []int {
	if r.batchFirst {
		return []int{r.Batch, r.Directions, r.Hidden}
	}
	return []int{r.Directions, r.Batch, r.Hidden}
}

func (r *Recurrent) outputShape() []int {
	if r.batchFirst {
		return []int{r.Batch, r.Steps, r.Directions, r.Hidden}
	}
	return []int{r.Steps, r.Directions, r.Batch, r.Hidden}
}

func init() {
	def := opDef{since: 7, minIn: 3, maxIn: 6, maxOut: 2, accept: floatTypes, build: buildRecurrent}
	lstm := def
	lstm.maxIn, lstm.maxOut = 8, 3
	register(DomainONNX, map[string]opDef{"RNN": def, "GRU": def, "LSTM": lstm})
}
