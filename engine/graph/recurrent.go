package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Recurrent is the geometry of an RNN, GRU or LSTM node: X is [Steps, Batch,
// Inputs], the state Hidden wide, with one or two directions.
type Recurrent struct {
	Op                           string
	Steps, Batch, Inputs, Hidden int
	Directions                   int
	// backwards says that the only direction is from the end.
	backwards, relu, resetLast bool
	// data holds the inputs in float64, nil where one is left out.
	data [7][]float64
}

// gates is how many blocks of Hidden rows W and R have.
var gates = map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4}

// NewRecurrent works out the geometry and refuses what is not computed in full:
// lengths of their own, peepholes, clipping, other activations than the default.
func NewRecurrent(n *Node, in []*engine.Tensor) (*Recurrent, error) {
	x, w := in[0].Shape(), in[1].Shape()
	r := &Recurrent{Op: n.Op, Hidden: int(n.Attrs["hidden_size"].Int), Directions: 1}
	switch n.Attrs["direction"].String {
	case "", "forward":
	case "reverse":
		r.backwards = true
	case "bidirectional":
		r.Directions = 2
	default:
		return nil, n.corrupt("direction %q", n.Attrs["direction"].String)
	}
	r.relu = slices.Contains(n.Attrs["activations"].Strings, "Relu")
	r.resetLast = n.Attrs["linear_before_reset"].Int == 1
	if len(x) != 3 || len(w) != 3 {
		return nil, fmt.Errorf("input %v and weights %v", x, w)
	}
	r.Steps, r.Batch, r.Inputs = x[0], x[1], x[2]
	h, g := r.Hidden, gates[n.Op]
	if h < 1 || h > 1<<20 || arg(in, 4) != nil || arg(in, 7) != nil {
		return nil, n.unsupported("hidden_size %d, sequence lengths or peepholes", h)
	}
	want := map[int][]int{
		1: {r.Directions, g * h, r.Inputs}, 2: {r.Directions, g * h, h}, 3: {r.Directions, 2 * g * h},
		5: {r.Directions, r.Batch, h}, 6: {r.Directions, r.Batch, h},
	}
	for i, shape := range want {
		if t := arg(in, i); t != nil && (!slices.Equal(t.Shape(), shape) || t.DType() != in[0].DType()) {
			return nil, fmt.Errorf("input %d is %s %v, want %s %v", i, t.DType(), t.Shape(), in[0].DType(), shape)
		}
	}
	for i := range r.data {
		if t := arg(in, i); t != nil {
			r.data[i], _ = t.Float64s()
		}
	}
	return r, nil
}

// at is the step that direction d takes as its k'th.
func (r *Recurrent) at(d, k int) int {
	if d == 1 || r.backwards {
		return r.Steps - 1 - k
	}
	return k
}

// Cell is one direction's parameters in float64, and the tape of its steps.
type Cell struct {
	*Recurrent
	D            int
	w, rec, bias []float64
	H, C         []float64 // the state of one row
	tape         []tape
}

// tape keeps of a step what its derivative needs.
type tape struct {
	step       int
	h, c       []float64 // the state before it
	gate, next []float64 // activated gates; the state c after it
	inner      []float64 // a GRU's recurrent part of the candidate
}

// Row walks row b of the batch in direction d and calls each after every step with
// the step and the state.
func (r *Recurrent) Row(d, b int, each func(step int, h []float64)) *Cell {
	c := &Cell{Recurrent: r, D: d}
	g, h := gates[r.Op]*r.Hidden, r.Hidden
	part := func(i, size int) []float64 {
		if r.data[i] == nil {
			return make([]float64, size)
		}
		return r.data[i][d*size : (d+1)*size]
	}
	c.w, c.rec, c.bias = part(1, g*r.Inputs), part(2, g*h), part(3, 2*g)
	c.H = slices.Clone(part(5, r.Batch*h)[b*h : (b+1)*h])
	c.C = slices.Clone(part(6, r.Batch*h)[b*h : (b+1)*h])
	for k := range r.Steps {
		t := r.at(d, k)
		c.forward(t, r.data[0][(t*r.Batch+b)*r.Inputs:][:r.Inputs])
		each(t, c.H)
	}
	return c
}

// linear returns W x + R h + both biases of gate rows from to to.
func (c *Cell) linear(x, h []float64, from, to int, recurrentOnly, inputOnly bool) []float64 {
	total := gates[c.Op] * c.Hidden
	out := make([]float64, to-from)
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

func (c *Cell) forward(step int, x []float64) {
	n := c.Hidden
	t := tape{step: step, h: slices.Clone(c.H), c: slices.Clone(c.C)}
	switch c.Op {
	case "RNN":
		t.gate = c.linear(x, c.H, 0, n, false, false)
		for i, v := range t.gate {
			t.gate[i] = math.Tanh(v)
			if c.relu {
				t.gate[i] = max(v, 0)
			}
		}
		copy(c.H, t.gate)
	case "LSTM": // gates in the order input, output, forget, cell
		t.gate = c.linear(x, c.H, 0, 4*n, false, false)
		for i := range n {
			in, out, forget := sigmoid(t.gate[i]), sigmoid(t.gate[n+i]), sigmoid(t.gate[2*n+i])
			cell := math.Tanh(t.gate[3*n+i])
			t.gate[i], t.gate[n+i], t.gate[2*n+i], t.gate[3*n+i] = in, out, forget, cell
			c.C[i] = forget*c.C[i] + in*cell
			c.H[i] = out * math.Tanh(c.C[i])
		}
		t.next = slices.Clone(c.C)
	case "GRU": // update, reset, candidate
		c.forwardGRU(&t, x)
	}
	c.tape = append(c.tape, t)
}

func (c *Cell) forwardGRU(t *tape, x []float64) {
	n := c.Hidden
	t.gate = c.linear(x, c.H, 0, 2*n, false, false)
	for i := range t.gate {
		t.gate[i] = sigmoid(t.gate[i])
	}
	candidate := c.linear(x, nil, 2*n, 3*n, false, true)
	if c.resetLast {
		t.inner = c.linear(nil, c.H, 2*n, 3*n, true, false)
	} else {
		reset := make([]float64, n)
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
		candidate[i] = math.Tanh(candidate[i] + inner)
		c.H[i] = (1-t.gate[i])*candidate[i] + t.gate[i]*c.H[i]
	}
	t.gate = append(t.gate, candidate...)
}

// Back walks the steps back: dh returns what arrives at the state after a step from
// outside, dx takes the gradient of a step's input. h and c are the gradients of
// the last state.
func (c *Cell) Back(h, cell []float64, dh func(step int) []float64, dx func(step int, g []float64)) {
	dH, dC := slices.Clone(h), slices.Clone(cell)
	for k := len(c.tape) - 1; k >= 0; k-- {
		t := &c.tape[k]
		for i, v := range dh(t.step) {
			dH[i] += v
		}
		in, rec, kept := c.gateGradients(t, dH, dC)
		gx := make([]float64, c.Inputs)
		for row, d := range in {
			for j := range gx {
				gx[j] += d * c.w[row*c.Inputs+j]
			}
		}
		dx(t.step, gx)
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
			in[i] = dH[i] * (1 - y*y)
			if c.relu {
				in[i] = 0
				if y > 0 {
					in[i] = dH[i]
				}
			}
		}
	case "LSTM":
		for i := range n {
			gi, o, f, g := t.gate[i], t.gate[n+i], t.gate[2*n+i], t.gate[3*n+i]
			y := math.Tanh(t.next[i])
			d := dC[i] + dH[i]*o*(1-y*y)
			in[i], in[n+i] = d*g*gi*(1-gi), dH[i]*y*o*(1-o)
			in[2*n+i], in[3*n+i] = d*t.c[i]*f*(1-f), d*gi*(1-g*g)
			dC[i] = d * f
		}
	case "GRU":
		return c.gruGradients(t, dH, in, kept)
	}
	return in, in, kept
}

func (c *Cell) gruGradients(t *tape, dH, in, kept []float64) (a, b, k []float64) {
	n := c.Hidden
	for i := range n {
		z, y := t.gate[i], t.gate[2*n+i]
		in[i] = dH[i] * (t.h[i] - y) * z * (1 - z)
		in[2*n+i] = dH[i] * (1 - z) * (1 - y*y)
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
		in[n+i] = arrives * reset * (1 - reset)
		rec[n+i] = in[n+i]
	}
	return in, rec, kept
}

func buildRecurrent(b *builder) (Kernel, error) {
	n := b.node
	b.attrs.int("hidden_size", 0)
	b.attrs.string("direction", "")
	b.attrs.int("linear_before_reset", 0)
	activations := b.attrs.strings("activations")
	usual := map[string][]string{"RNN": {"Tanh"}, "GRU": {"Sigmoid", "Tanh"}, "LSTM": {"Sigmoid", "Tanh", "Tanh"}}[n.Op]
	for i, a := range activations {
		if a != usual[i%len(usual)] && !(n.Op == "RNN" && a == "Relu" && activations[0] == a) {
			return nil, n.unsupported("activations %q", activations)
		}
	}
	if b.attrs.int("layout", 0) != 0 || b.attrs.int("input_forget", 0) != 0 {
		return nil, n.unsupported("layout or input_forget")
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		r, err := NewRecurrent(n, in)
		if err != nil {
			return nil, err
		}
		d := in[0].DType()
		shape := []int{r.Directions, r.Batch, r.Hidden}
		if err := x.reserve(engine.Float64, in[0].Len()+in[1].Len()+in[2].Len()+r.Steps*8*r.Hidden); err != nil {
			return nil, err
		}
		var out []*engine.Tensor
		for _, s := range [][]int{append([]int{r.Steps}, shape...), shape, shape} {
			t, err := x.New(engine.Float64, s...)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
		y, yh, yc := engine.Data[float64](out[0]), engine.Data[float64](out[1]), engine.Data[float64](out[2])
		for dir := range r.Directions {
			for row := range r.Batch {
				at := (dir*r.Batch + row) * r.Hidden
				c := r.Row(dir, row, func(step int, h []float64) { copy(y[step*len(yh)+at:], h) })
				copy(yh[at:], c.H)
				copy(yc[at:], c.C)
			}
		}
		for i := range out {
			if out[i], err = castTensor(x, out[i], d, true); err != nil {
				return nil, err
			}
		}
		return out, nil
	}, nil
}

func init() {
	def := opDef{since: 7, minIn: 3, maxIn: 6, maxOut: 2, accept: floatTypes, build: buildRecurrent}
	lstm := def
	lstm.maxIn, lstm.maxOut = 8, 3
	register(DomainONNX, map[string]opDef{"RNN": def, "GRU": def, "LSTM": lstm})
}
