package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// code is a number that QuantizeLinear makes, of whole bytes.
type code interface{ int8 | uint8 | int16 | uint16 }

// isCode reports whether d is one of code.
func isCode(d engine.DType) bool { return isOctet(d) || d == engine.Int16 || d == engine.Uint16 }

// ladder is the scales of the runs of a tensor's elements that have the same: run elements
// after each other, and those of all scales again and again.
type ladder struct {
	scale, zero []float32
	run         int
}

// ladderOf reads scales in float32 and their zero points, ok where they are one for all, or
// one for each place on the axis of s.
func (s spread) ladderOf(x *Exec, shape []int, scales, zeros *engine.Tensor) (l ladder, ok bool) {
	l.scale = engine.Data[float32](scales)
	if len(l.scale) == 0 || s.block != 0 && len(l.scale) > 1 || slices.Contains(shape, 0) {
		return l, false
	}
	l.zero = scratchOf[float32](x, len(l.scale))
	if zeros != nil {
		v, known := x.float64s(zeros)
		if !known || len(v) != len(l.scale) {
			return l, false
		}
		for i, z := range v {
			l.zero[i] = float32(z)
		}
	}
	if len(l.scale) == 1 {
		l.run = volume(shape)
		return l, true
	}
	a, err := normAxis(s.axis, len(shape))
	if err != nil || len(scales.Shape()) != 1 || shape[a] != len(l.scale) {
		return l, false
	}
	_, l.run = split(shape, a)
	return l, true
}

// walk visits the runs among elements from to to.
func (l *ladder) walk(from, to int, f func(from, to int, scale, zero float32)) {
	for from < to {
		k := from / l.run
		end := min((k+1)*l.run, to)
		k %= len(l.scale)
		f(from, end, l.scale[k], l.zero[k])
		from = end
	}
}

// codesOf rounds floats.
func codesOf[T code](x *Exec, t *engine.Tensor, l *ladder) (*engine.Tensor, error) {
	o, out, err := rawOf[T](x, t.Shape()...)
	if err != nil {
		return nil, err
	}
	least, most := rangeOf(o.DType())
	v := engine.Data[float32](t)
	share(x, x.inParts(len(v)), len(v), coding[T]{*l, out, v, float32(least), float32(most)})
	return o, nil
}

// coding is floats that become codes between two bounds.
type coding[T code] struct {
	l           ladder
	out         []T
	v           []float32
	least, most float32
}

func (w *coding[T]) part(from, to int) {
	w.l.walk(from, to, func(from, to int, scale, zero float32) {
		roundCodes(w.out[from:to], w.v[from:to], scale, zero, w.least-zero, w.most-zero)
	})
}

// roundCodes cuts to the range before it rounds, which gives the same: the range ends at
// whole numbers. NaN becomes 0, as everywhere in this package.
func roundCodes[T code](out []T, v []float32, scale, zero, low, high float32) {
	shift := int32(zero)
	for i, f := range v {
		q := f / scale
		if q != q {
			out[i] = 0
			continue
		}
		q = min(max(q, low), high)
		q = (q + 3<<22) - 3<<22 // rounds to the nearest integer, ties to even
		out[i] = T(int32(q) + shift)
	}
}

// quickCodes is QuantizeLinear from float32 to whole numbers of 8 or 16 bits; ok is false
// where it is something else.
func (s spread) quickCodes(x *Exec, t, scales, zeros *engine.Tensor, d engine.DType) (o *engine.Tensor, ok bool, err error) {
	if t.DType() != engine.Float32 || !isCode(d) || zeros != nil && zeros.DType() != d {
		return nil, false, nil
	}
	l, ok := s.ladderOf(x, t.Shape(), scales, zeros)
	if !ok {
		return nil, false, nil
	}
	switch d {
	case engine.Int8:
		o, err = codesOf[int8](x, t, &l)
	case engine.Uint8:
		o, err = codesOf[uint8](x, t, &l)
	case engine.Int16:
		o, err = codesOf[int16](x, t, &l)
	default:
		o, err = codesOf[uint16](x, t, &l)
	}
	return o, true, err
}

// floatsOfCodes is the way back.
func floatsOfCodes[T code](x *Exec, t *engine.Tensor, l *ladder) (*engine.Tensor, error) {
	o, out, err := rawOf[float32](x, t.Shape()...)
	if err != nil {
		return nil, err
	}
	q := engine.Data[T](t)
	share(x, x.inParts(len(q)), len(q), decoding[T]{*l, out, q})
	return o, nil
}

// decoding is the way back of coding.
type decoding[T code] struct {
	l   ladder
	out []float32
	q   []T
}

func (w *decoding[T]) part(from, to int) {
	w.l.walk(from, to, func(from, to int, scale, zero float32) {
		out := w.out[from:to]
		for i, c := range w.q[from:to] {
			out[i] = (float32(c) - zero) * scale
		}
	})
}

// quickFloatsOf is DequantizeLinear to float32 of whole numbers of 8 or 16 bits; ok is
// false where it is something else.
func (s spread) quickFloatsOf(x *Exec, t, scales, zeros *engine.Tensor) (o *engine.Tensor, ok bool, err error) {
	if !isCode(t.DType()) {
		return nil, false, nil
	}
	l, ok := s.ladderOf(x, t.Shape(), scales, zeros)
	if !ok {
		return nil, false, nil
	}
	switch t.DType() {
	case engine.Int8:
		o, err = floatsOfCodes[int8](x, t, &l)
	case engine.Uint8:
		o, err = floatsOfCodes[uint8](x, t, &l)
	case engine.Int16:
		o, err = floatsOfCodes[int16](x, t, &l)
	default:
		o, err = floatsOfCodes[uint16](x, t, &l)
	}
	return o, true, err
}
