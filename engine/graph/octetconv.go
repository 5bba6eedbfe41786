package graph

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/qgemm"
)

// octetFilter is the weights of a convolution of bytes that were laid out.
type octetFilter struct {
	of     *engine.Tensor
	filter *qgemm.Filter
	// zeros are those of the weights' channels, nil where they are 0, or part of the filter.
	zeros []int32
	// dilations and each are what else the layout depends on.
	dilations []int
	each      bool
	// per is how many elements a window has.
	per int
}

// octetGroups reports whether engine/qgemm has convolutions of these weights: all
// channels together, or each by itself.
func octetGroups(n *Node, shape []int) (each, ok bool) {
	groups := int64(1)
	if a, has := n.Attrs["group"]; has {
		groups = a.Int
	}
	each = groups > 1
	return each, len(shape) == 4 && volume(shape) > 0 && (!each || groups == int64(shape[0]) && shape[1] == 1)
}

// newOctetFilter lays weights out, less their zero points. It is nil where engine/qgemm has
// no such convolution.
func newOctetFilter(n *Node, t, zero *engine.Tensor) (*octetFilter, error) {
	shape := t.Shape()
	each, ok := octetGroups(n, shape)
	if !ok || !isOctet(t.DType()) {
		return nil, nil
	}
	w, err := windowAttrs(n, 2)
	if err != nil {
		return nil, err
	}
	v, shift := signedOctets(t)
	f := &octetFilter{of: t, dilations: w.dilations, each: each, per: shape[1] * shape[2] * shape[3]}
	if f.zeros, err = zerosOf(zero, shape[0], shift); err != nil {
		return nil, err
	}
	if each {
		f.filter, f.zeros = qgemm.NewEach(shape[0], [2]int(shape[2:]), v, f.zeros), nil
	} else {
		f.filter = qgemm.NewFilter(shape[0], shape[1], [2]int(shape[2:]), [2]int(w.dilations), v)
	}
	return f, nil
}

// filterBytes is what newOctetFilter lays out at most.
func filterBytes(shape []int) int64 {
	return qgemm.Bytes(shape[0], qgemm.Rounded(shape[1])*shape[2]*shape[3]) + 64*int64(shape[2]*shape[3])
}

// filterOf lays input i out, whose zero points are input z, where both are constant; else
// it is nil.
func filterOf(b *builder, i, z int) *octetFilter {
	if i >= len(b.constants) || b.constants[i] == nil || len(b.constants[i].Shape()) != 4 {
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
	of, key := [2]*engine.Tensor{zero, t}, packed{t, false}
	if known := laid[key]; known != nil && known.of == of {
		f, ok := known.packed.(*octetFilter)
		w, err := windowAttrs(n, 2)
		if each, _ := octetGroups(n, t.Shape()); ok && err == nil && f.each == each && slices.Equal(f.dilations, w.dilations) {
			return f
		}
	}
	size := filterBytes(t.Shape())
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

// octetWindow is the geometry of a convolution over images of a shape, as the file has
// it; ok is false where there is nothing to compute.
func octetWindow(n *Node, shape, weights []int) (c *Conv, w *convolve.Window, ok bool, err error) {
	plain := *n
	plain.Op = "Conv"
	if c, err = NewConv(&plain, shape, weights); err != nil {
		return nil, nil, false, err
	}
	room := float64(shape[0]) * float64(qgemm.Rounded(shape[1]))
	for i, d := range shape[2:] {
		room *= float64(d) + float64(c.before[i]) + float64(c.after[i]) + float64(c.Kernel[i])*float64(c.dilations[i])
	}
	if room > mostSurrounded {
		return nil, nil, false, fmt.Errorf("images of %v with pads of %v and %v: %w", shape, c.before, c.after, engine.ErrTooLarge)
	}
	return c, windowOf(c.Windows, []int{shape[0], shape[2], shape[3], shape[1]}), volume(c.Result) > 0 && volume(shape) > 0, nil
}

// mostSurrounded bounds the bytes of images with what is around them, so that their sizes
// are numbers; how many a run may have is less.
const mostSurrounded = 1 << 40

// slide convolves images of bytes whose channels lie last. end is given what sums there
// are.
func (f *octetFilter) slide(x *Exec, w *convolve.Window, src []uint8, zero int32, end *qgemm.Finish) error {
	sums := f.filter.Sums()
	room := f.filter.Scratch(w)
	if err := x.reserve(engine.Int32, len(sums)); err != nil {
		return err
	}
	_, scratch, err := rawOf[uint8](x, room)
	if err != nil {
		return err
	}
	whole := make([]int32, len(sums))
	corrections(whole, sums, f.zeros, zero, f.per)
	for j, e := range end.Whole {
		whole[j] += e
	}
	end.Whole, end.Zeros = whole, f.zeros
	f.filter.Convolve(max(x.threads, 1), w, src, uint8(zero), scratch, end)
	return nil
}

// convOctets convolves images of bytes as the file has them, less their zero points; ok is
// false where it does not. end makes the result of n channels, of the given shape with
// the channels last.
func convOctets(x *Exec, n *Node, f *octetFilter, in, zx, weights, zw *engine.Tensor, end func(n int, shape []int) (*engine.Tensor, *qgemm.Finish, error)) (t *engine.Tensor, ok bool, err error) {
	zero, one := oneZero(zx)
	s, ws := in.Shape(), weights.Shape()
	if !one || !isOctet(in.DType()) || !isOctet(weights.DType()) || len(s) != 4 || len(ws) != 4 {
		return nil, false, nil
	}
	c, w, ok, err := octetWindow(n, s, ws)
	if err != nil || !ok {
		return nil, false, err
	}
	if f == nil || f.of != weights {
		if err := x.reserve(engine.Int8, int(filterBytes(ws))); err != nil {
			return nil, false, err
		}
		if f, err = newOctetFilter(n, weights, zw); f == nil || err != nil {
			return nil, false, err
		}
	}
	v, shift, err := unsignedOctets(x, in)
	if err != nil {
		return nil, false, err
	}
	_, last, err := rawOf[uint8](x, len(v))
	if err != nil {
		return nil, false, err
	}
	turnedOf(last, v, s[0], s[1], s[2]*s[3])
	made, fin, err := end(ws[0], []int{c.Result[0], c.Result[2], c.Result[3], c.Result[1]})
	if err != nil {
		return nil, false, err
	}
	if err := f.slide(x, w, last, zero+shift, fin); err != nil {
		return nil, false, err
	}
	if t, err = x.make(made.DType(), c.Result, false); err != nil {
		return nil, false, err
	}
	positions := c.Positions()
	if made.DType() == engine.Int32 {
		turnedOf(engine.Data[int32](t), engine.Data[int32](made), c.Batch, positions, ws[0])
	} else {
		turnedOf(octetsOf(t), octetsOf(made), c.Batch, positions, ws[0])
	}
	return t, true, nil
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
func requantise(sx, sw, sy *engine.Tensor, zy *engine.Tensor, n int) (*qgemm.Finish, error) {
	x, err := scalarOf(sx)
	if err != nil {
		return nil, err
	}
	y, err := scalarOf(sy)
	if err != nil {
		return nil, err
	}
	w, ok := sw.Float64s()
	zero, one := oneZero(zy)
	if w = eachOf(w, n); !ok || len(w) != n || !one {
		return nil, fmt.Errorf("scales of %s %v for %d columns", sw.DType(), sw.Shape(), n)
	}
	f := &qgemm.Finish{Zero: zero, Scale: make([]float32, n), Shift: make([]float32, n), Whole: make([]int32, n)}
	for j := range w {
		f.Scale[j] = float32(x * w[j] / y)
	}
	f.Low, f.High = outOfOctets(zy.DType(), zero)
	return f, nil
}

// linearProduct is QLinearMatMul where its right operand is a matrix with a scale for each
// column at most; ok is false elsewhere.
func linearProduct(x *Exec, w *octetMatrix, in []*engine.Tensor) (t *engine.Tensor, ok bool, err error) {
	if in[1].Len() != 1 || !isOctet(in[7].DType()) || len(in[3].Shape()) != 2 || in[4].Len() != 1 && len(in[4].Shape()) != 1 {
		return nil, false, nil
	}
	shape, err := NewMatMulShape(in[0].Shape(), in[3].Shape())
	if err != nil {
		return nil, false, err
	}
	ok, err = octetProduct(x, w, in[0], in[2], in[3], in[5], shape, func(_, n int) (*qgemm.Finish, error) {
		f, err := requantise(in[1], in[4], in[6], in[7], n)
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
	return convOctets(x, n, held, in[0], in[2], in[3], in[5], func(channels int, shape []int) (*engine.Tensor, *qgemm.Finish, error) {
		f, err := requantise(in[1], in[4], in[6], in[7], channels)
		if err != nil {
			return nil, nil, err
		}
		if b := arg(in, 8); b != nil {
			v := engine.Data[int32](b)
			if len(v) != channels {
				return nil, nil, fmt.Errorf("bias of %s %v for %d channels", b.DType(), b.Shape(), channels)
			}
			copy(f.Whole, v)
		}
		t, err := x.make(in[7].DType(), shape, false)
		if err == nil {
			f.Bytes = octetsOf(t)
		}
		return t, f, err
	})
}
