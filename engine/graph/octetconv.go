package graph

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
)

// octetFilter is the weights of a convolution of bytes that were laid out.
type octetFilter struct {
	of     *engine.Tensor
	shape  qgemm.Shape
	filter *qgemm.Filter
}

// octetShape is the form of weights that engine/qgemm has convolutions of: over lines, images
// and volumes.
func octetShape(n *Node, shape []int) (s qgemm.Shape, ok bool) {
	groups := 1
	if a, has := n.Attrs["group"]; has {
		groups = int(a.Int)
	}
	if len(shape) < 3 || len(shape) > 5 || volume(shape) == 0 || groups < 1 || shape[0]%groups != 0 {
		return s, false
	}
	w, err := windowAttrs(n, len(shape)-2)
	if err != nil {
		return s, false
	}
	return qgemm.Shape{Out: shape[0], Inner: shape[1], Groups: groups, Kernel: threeOf(shape[2:], 1), Dilations: threeOf(w.dilations, 1)}, true
}

// threeOf is a list of up to three dimensions as one of three.
func threeOf(v []int, first int) [3]int {
	of := [3]int{first, first, first}
	copy(of[3-len(v):], v)
	return of
}

// newOctetFilter lays weights out, less their zero points. It is nil where engine/qgemm has
// no such convolution.
func newOctetFilter(n *Node, t, zero *engine.Tensor) (*octetFilter, error) {
	shape, ok := octetShape(n, t.Shape())
	if !ok || !isOctet(t.DType()) {
		return nil, nil
	}
	v, shift := signedOctets(t)
	zeros, err := zerosOf(zero, shape.Out, shift)
	if err != nil {
		return nil, err
	}
	return &octetFilter{of: t, shape: shape, filter: qgemm.NewFilter(shape, v, zeros)}, nil
}

// filterOf lays input i out, whose zero points are input z, where both are constant; else
// it is nil.
func filterOf(b *builder, i, z int) *octetFilter {
	if i >= len(b.constants) || b.constants[i] == nil {
		return nil
	}
	var zero *engine.Tensor
	if z < len(b.constants) {
		if zero = b.constants[z]; zero == nil && b.node.Inputs[z] != "" {
			return nil
		}
	}
	return layFilter(b.packs, b.held, b.node, b.constants[i], zero)
}

// layFilter is newOctetFilter, once for all nodes that convolve so with the same weights;
// it is nil where that takes too much.
func layFilter(laid packs, h *held, n *Node, t, zero *engine.Tensor) *octetFilter {
	shape, ok := octetShape(n, t.Shape())
	if !ok {
		return nil
	}
	of, key := [2]*engine.Tensor{zero, t}, packed{t, false}
	if known := laid[key]; known != nil && known.of == of {
		if f, ok := known.packed.(*octetFilter); ok && f.shape == shape {
			return f
		}
	}
	size := qgemm.FilterBytes(shape)
	if !h.lay(size) {
		return nil
	}
	f, err := newOctetFilter(n, t, zero)
	if f == nil || err != nil { // which a run tells
		h.give(size)
		return nil
	}
	if laid != nil && laid[key] == nil {
		laid[key] = &weights{tensor: t, of: of, packed: f}
	}
	return f
}

// octetWindow is the geometry of a convolution over volumes of a shape, as the file has
// it; ok is false where there is nothing to compute.
func octetWindow(n *Node, shape, weights []int) (c *Conv, w *qgemm.Window, ok bool, err error) {
	plain := *n
	plain.Op = "Conv"
	if c, err = NewConv(&plain, shape, weights); err != nil {
		return nil, nil, false, err
	}
	if w, err = octetWindows(c.Windows, shape); err != nil {
		return nil, nil, false, err
	}
	return c, w, volume(c.Result) > 0 && volume(shape) > 0, nil
}

// octetWindows are windows over volumes of a shape, as the file has it.
func octetWindows(c *Windows, shape []int) (*qgemm.Window, error) {
	room := float64(shape[0]) * float64(qgemm.Rounded(shape[1]))
	for i, d := range shape[2:] {
		room *= float64(d) + float64(c.before[i]) + float64(c.after[i]) + float64(c.Kernel[i])*float64(c.dilations[i])
	}
	if room > mostSurrounded {
		return nil, fmt.Errorf("images of %v with pads of %v and %v: %w", shape, c.before, c.after, engine.ErrTooLarge)
	}
	return &qgemm.Window{
		Batch: shape[0], Channels: shape[1], Size: threeOf(shape[2:], 1), Windows: threeOf(c.Out, 1), Kernel: threeOf(c.Kernel, 1),
		Strides: threeOf(c.strides, 1), Dilations: threeOf(c.dilations, 1), Before: threeOf(c.before, 0),
	}, nil
}

// lastShape appends to a list a shape of the file with its channels last; a line is an image
// one element high, as laster has it.
func lastShape(to, shape []int) []int {
	to = append(to, shape[0])
	if len(shape) == 3 {
		to = append(to, 1)
	}
	return append(append(to, shape[2:]...), shape[1])
}

// firstShape is the way back, to so many dimensions.
func firstShape(to, last []int, rank int) []int {
	n := len(last) - 1
	if rank == 3 {
		return append(to, last[0], last[n], last[n-1])
	}
	return append(append(to, last[0], last[n]), last[1:n]...)
}

// mostOctetRank is how many dimensions volumes of bytes have at most.
const mostOctetRank = 5

// mostSurrounded bounds the bytes of images with what is around them, so that their sizes
// are numbers; how many a run may have is less.
const mostSurrounded = 1 << 40

// whole writes what comes to the sums for the zero point of what is convolved, and more.
func (f *octetFilter) whole(to []int32, zero int32, more []int32) {
	corrections(to, f.filter.Sums(), nil, zero, 0)
	for j, e := range more {
		to[j] += e
	}
}

// slide convolves volumes of bytes whose channels lie last. end is given what sums there
// are.
func (f *octetFilter) slide(x *Exec, w *qgemm.Window, src []uint8, zero int32, end *qgemm.Finish) error {
	threads := max(x.threads, 1)
	if err := x.reserve(engine.Uint8, f.filter.Room(threads, w)); err != nil {
		return err
	}
	var scratch []uint8
	if n := f.filter.Scratch(w); n > 0 {
		var err error
		if _, scratch, err = rawOf[uint8](x, n); err != nil {
			return err
		}
	}
	f.filter.Convolve(threads, w, src, uint8(zero), scratch, end)
	return nil
}

// octetPlan is how a step convolves volumes of bytes as the file has them. It is read only.
type octetPlan struct {
	conv   *Conv
	window *qgemm.Window
	filter qgemm.Shape
	last   []int // the result's shape with its channels last
}

// planOctets works out the plan of a step with such inputs, nil where there is none. t and
// weights are two of them.
func planOctets(x *Exec, n *Node, in []*engine.Tensor, t, weights *engine.Tensor) (*octetPlan, error) {
	if p := recall[octetPlan](x, in); p != nil {
		return p, nil
	}
	filter, suits := octetShape(n, weights.Shape())
	if !isOctet(t.DType()) || !isOctet(weights.DType()) || !suits || len(t.Shape()) != len(weights.Shape()) {
		return nil, nil
	}
	c, w, ok, err := octetWindow(n, t.Shape(), weights.Shape())
	if err != nil || !ok {
		return nil, err
	}
	p := &octetPlan{c, w, filter, lastShape(nil, c.Result)}
	remember(x, in, p)
	return p, nil
}

// convOctets convolves volumes of bytes, t of the step's inputs, less their zero points; ok is
// false where it does not. end makes the result of n channels, of the given shape with
// the channels last.
func convOctets(x *Exec, n *Node, f *octetFilter, in []*engine.Tensor, t, zx, weights, zw *engine.Tensor, end func(n int, shape []int) (*engine.Tensor, *qgemm.Finish, error)) (o *engine.Tensor, ok bool, err error) {
	zero, one := oneZero(zx)
	if !one {
		return nil, false, nil
	}
	p, err := planOctets(x, n, in, t, weights)
	if err != nil || p == nil {
		return nil, false, err
	}
	if f == nil || f.of != weights {
		if err := x.reserve(engine.Int8, int(qgemm.FilterBytes(p.filter))); err != nil {
			return nil, false, err
		}
		if f, err = newOctetFilter(n, weights, zw); f == nil || err != nil {
			return nil, false, err
		}
	}
	v, shift, err := unsignedOctets(x, t)
	if err != nil {
		return nil, false, err
	}
	_, last, err := rawOf[uint8](x, len(v))
	if err != nil {
		return nil, false, err
	}
	c, channels := p.conv, p.filter.Out
	turnedOf(last, v, c.Batch, t.Shape()[1], c.Plane())
	made, fin, err := end(channels, p.last)
	if err != nil {
		return nil, false, err
	}
	defer done(fin)
	_, whole, err := rawOf[int32](x, channels)
	if err != nil {
		return nil, false, err
	}
	f.whole(whole, zero+shift, fin.Whole)
	fin.Whole = whole
	if err := f.slide(x, p.window, last, zero+shift, fin); err != nil {
		return nil, false, err
	}
	if o, err = x.make(made.DType(), c.Result, false); err != nil {
		return nil, false, err
	}
	positions := c.Positions()
	if made.DType() == engine.Int32 {
		turnedOf(engine.Data[int32](o), engine.Data[int32](made), c.Batch, positions, channels)
	} else {
		turnedOf(octetsOf(o), octetsOf(made), c.Batch, positions, channels)
	}
	return o, true, nil
}

// turnedOf transposes n matrices, in squares that stay in the cache.
func turnedOf[T uint8 | int32](to, from []T, n, rows, cols int) {
	if rows == 1 || cols == 1 {
		copy(to, from)
		return
	}
	for i := range n {
		src, dst := from[i*rows*cols:][:rows*cols], to[i*rows*cols:][:rows*cols]
		for r := 0; r < rows; r += turnedSide {
			for c := 0; c < cols; c += turnedSide {
				turnSquare(dst, src, rows, cols, r, c)
			}
		}
	}
}

const turnedSide = 32

// turnSquare transposes the square that begins in row r and column c.
func turnSquare[T uint8 | int32](dst, src []T, rows, cols, r, c int) {
	for j := c; j < min(c+turnedSide, cols); j++ {
		out := dst[j*rows+r:][:min(turnedSide, rows-r)]
		at := r*cols + j
		for k := range out {
			out[k] = src[at]
			at += cols
		}
	}
}

// requantise is what becomes of sums in QLinearConv and QLinearMatMul: their scales over
// the result's, and its zero point.
func requantise(x *Exec, sx, sw, sy *engine.Tensor, zy *engine.Tensor, n int) (*qgemm.Finish, error) {
	left, err := scalarOf(sx)
	if err != nil {
		return nil, err
	}
	y, err := scalarOf(sy)
	if err != nil {
		return nil, err
	}
	w, ok := x.float64s(sw)
	zero, one := oneZero(zy)
	if !ok || len(w) != n && len(w) != 1 || !one {
		return nil, fmt.Errorf("scales of %s %v for %d columns", sw.DType(), sw.Shape(), n)
	}
	_, scale, err := rawOf[float32](x, n)
	if err != nil {
		return nil, err
	}
	_, shift, err := newOf[float32](x, n)
	if err != nil {
		return nil, err
	}
	for j := range scale {
		scale[j] = onlyScale(left, w[min(j, len(w)-1)], y)
	}
	f := finishes.Get().(*qgemm.Finish)
	*f = qgemm.Finish{Zero: zero, Scale: scale, Shift: shift}
	f.Low, f.High = outOfOctets(zy.DType(), zero)
	return f, nil
}

// onlyScale is that of a sum of products, over the result's, as onnxruntime has it.
func onlyScale(a, b, y float64) float32 { return float32(float32(a)*float32(b)) / float32(y) }

// linearProduct is QLinearMatMul where its right operand is a matrix with a scale for each
// column at most; ok is false elsewhere.
func linearProduct(x *Exec, w *octetMatrix, in []*engine.Tensor) (t *engine.Tensor, ok bool, err error) {
	if in[1].Len() != 1 || !isOctet(in[7].DType()) || len(in[3].Shape()) != 2 || in[4].Len() != 1 && len(in[4].Shape()) != 1 {
		return nil, false, nil
	}
	shape, err := matMulShapeOf(x, in[0], in[3])
	if err != nil {
		return nil, false, err
	}
	ok, err = octetProduct(x, w, in[0], in[2], in[3], in[5], shape, func(n int) (*qgemm.Finish, error) {
		f, err := requantise(x, in[1], in[4], in[6], in[7], n)
		if err != nil {
			return nil, err
		}
		if t, err = x.make(in[7].DType(), shape.Out, false); err == nil {
			f.Bytes = octetsOf(t)
		}
		return f, err
	})
	return t, ok, err
}

// linearConv is QLinearConv; ok is false where this does not compute it.
func linearConv(x *Exec, n *Node, held *octetFilter, in []*engine.Tensor) (*engine.Tensor, bool, error) {
	if !isOctet(in[7].DType()) || in[1].Len() != 1 {
		return nil, false, nil
	}
	return convOctets(x, n, held, in, in[0], in[2], in[3], in[5], func(channels int, shape []int) (*engine.Tensor, *qgemm.Finish, error) {
		f, err := requantise(x, in[1], in[4], in[6], in[7], channels)
		if err != nil {
			return nil, nil, err
		}
		if b := arg(in, 8); b != nil {
			v := engine.Data[int32](b)
			if len(v) != channels {
				return nil, nil, fmt.Errorf("bias of %s %v for %d channels", b.DType(), b.Shape(), channels)
			}
			f.Whole = v
		}
		t, err := x.make(in[7].DType(), shape, false)
		if err == nil {
			f.Bytes = octetsOf(t)
		}
		return t, f, err
	})
}
