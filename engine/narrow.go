package engine

import (
	"fmt"
	"math"
	"slices"
)

// narrowFloat is a float of 8 bits or less: its exponent and mantissa bits, the
// exponent's bias, and the largest finite value. Codes beyond that are NaN, and in
// Float8E5M2 infinities.
type narrowFloat struct {
	exp, man, bias int
	largest        float64
	infinite       bool
	// unsignedZero marks the forms whose code of -0 is NaN, the only one.
	unsignedZero bool
	nan          uint8
}

var narrowFloats = map[DType]*narrowFloat{
	Float8E4M3FN:   {exp: 4, man: 3, bias: 7, largest: 448, nan: 0x7f},
	Float8E4M3FNUZ: {exp: 4, man: 3, bias: 8, largest: 240, unsignedZero: true, nan: 0x80},
	Float8E5M2:     {exp: 5, man: 2, bias: 15, largest: 57344, infinite: true, nan: 0x7f},
	Float8E5M2FNUZ: {exp: 5, man: 2, bias: 16, largest: 57344, unsignedZero: true, nan: 0x80},
	// What has no NaN takes -0 for it.
	Float4E2M1: {exp: 2, man: 1, bias: 1, largest: 6, nan: 0x8},
}

var narrowValues = func() map[DType]*[256]float64 {
	tables := map[DType]*[256]float64{Float8E8M0: {}}
	for c := range tables[Float8E8M0] {
		tables[Float8E8M0][c] = math.Ldexp(1, c-127)
	}
	tables[Float8E8M0][255] = math.NaN()
	for d, f := range narrowFloats {
		tables[d] = &[256]float64{}
		for c := range tables[d] {
			tables[d][c] = f.decode(uint8(c))
		}
	}
	return tables
}()

func (f *narrowFloat) decode(c uint8) float64 {
	bits := f.exp + f.man
	sign, exp, man := c>>bits&1, int(c>>f.man)&(1<<f.exp-1), float64(c&(1<<f.man-1))
	v := math.Ldexp(man, 1-f.bias-f.man)
	if exp > 0 {
		v = math.Ldexp(1+math.Ldexp(man, -f.man), exp-f.bias)
	}
	switch {
	case f.unsignedZero && c == f.nan:
		return math.NaN()
	case v > f.largest && (!f.infinite || man != 0):
		return math.NaN()
	case v > f.largest:
		v = math.Inf(1)
	}
	if sign == 1 {
		return -v
	}
	return v
}

// encode rounds to nearest, ties to even. What is too large becomes the largest
// value where it saturates, else an infinity or NaN.
func (f *narrowFloat) encode(v float64, saturate bool) uint8 {
	if v != v {
		return f.nan
	}
	var sign uint8
	if math.Signbit(v) {
		sign = 1 << (f.exp + f.man)
	}
	abs := math.Abs(v)
	if saturate {
		abs = min(abs, f.largest)
	}
	if abs == 0 && f.unsignedZero {
		return 0
	}
	if abs == 0 {
		return sign
	}
	// Between powers of two the codes stand evenly, below the smallest as in it.
	_, e := math.Frexp(abs)
	e = max(e-1, 1-f.bias)
	steps := math.RoundToEven(math.Ldexp(abs, f.man-e))
	switch {
	case math.Ldexp(steps, e-f.man) > f.largest && f.infinite:
		return sign | (1<<f.exp-1)<<f.man
	case math.Ldexp(steps, e-f.man) > f.largest:
		return sign | f.nan
	case steps == 0 && f.unsignedZero:
		return 0
	}
	// A mantissa rounded up to the next power of two carries by itself.
	return sign | uint8(int(steps)+(e+f.bias-1)<<f.man)
}

// ScaleRounding says how a number between two powers of two becomes a Float8E8M0.
type ScaleRounding uint8

// The roundings of Float8E8M0.
const (
	ScaleUp ScaleRounding = iota
	ScaleDown
	ScaleNearest
)

func encodeScale(v float64, saturate bool, mode ScaleRounding) uint8 {
	b := math.Float32bits(float32(v))
	exp, man := int(b>>23&0xff), b&0x7fffff
	if exp == 255 {
		return 255
	}
	up := mode == ScaleUp && man > 0
	if mode == ScaleNearest {
		up = man > 1<<22 || man == 1<<22 && exp > 0
	}
	if up && (exp < 254 || !saturate) {
		exp++
	}
	return uint8(exp)
}

// IsNarrow reports whether d is a type of less than 8 bits or a float of 8: models
// keep weights in them, and little but conversions computes with them.
func (d DType) IsNarrow() bool { return d >= Uint4 && d <= Float4E2M1 }

// Storage returns the type whose Go type holds d's elements: that of its bits for
// half precision, and one byte an element for the narrow types.
func (d DType) Storage() DType {
	switch {
	case d == Float16 || d == BFloat16:
		return Uint16
	case d == Int4 || d == Int2:
		return Int8
	case d.IsNarrow():
		return Uint8
	}
	return d
}

// Bits returns the bits of one element in a model file; 0 for String.
func (d DType) Bits() int {
	switch d {
	case Uint4, Int4, Float4E2M1:
		return 4
	case Uint2, Int2:
		return 2
	}
	return 8 * d.Size()
}

// SetNarrow writes v into a tensor of a narrow type. Integers are rounded, halves away from
// zero, and wrap, as onnxruntime's do (the standard says neither); floats saturate where asked to.
func (t *Tensor) SetNarrow(v []float64, saturate bool, mode ScaleRounding) error {
	bits := 8 - t.dtype.Bits()
	switch f := narrowFloats[t.dtype]; {
	case !t.dtype.IsNarrow() || len(v) != t.Len():
		return fmt.Errorf("%d numbers for %s %v", len(v), t.dtype, t.shape)
	case t.dtype == Float8E8M0:
		for i, e := range v {
			Data[uint8](t)[i] = encodeScale(e, saturate, mode)
		}
	case f != nil:
		for i, e := range v {
			Data[uint8](t)[i] = f.encode(e, saturate || t.dtype == Float4E2M1)
		}
	case t.dtype.Storage() == Int8:
		for i, e := range v {
			Data[int8](t)[i] = int8(wrapped(math.Round(e))) << bits >> bits
		}
	default:
		for i, e := range v {
			Data[uint8](t)[i] = uint8(wrapped(math.Round(e))) << bits >> bits
		}
	}
	return nil
}

// wrapped truncates; what does not fit an int64 is 0.
func wrapped(v float64) int64 {
	if v > -(1<<62) && v < 1<<62 {
		return int64(v)
	}
	return 0
}

// IsList reports whether d is no type of tensors: a Sequence, or Nothing.
func (d DType) IsList() bool { return d == Sequence || d == Nothing }

// list is the data of a sequence.
type list struct {
	items []*Tensor
	bytes int64
}

// NewSequence returns a sequence of values as one value, whose only dimension is
// their number.
func NewSequence(items []*Tensor) *Tensor {
	l := &list{items: slices.Clone(items)}
	for _, t := range items {
		l.bytes += t.Bytes()
	}
	return l.tensor()
}

func (l *list) tensor() *Tensor { return &Tensor{dtype: Sequence, shape: []int{len(l.items)}, data: l} }

// Insert returns a sequence with one value more, at a place from 0 to its length.
func (t *Tensor) Insert(at int, item *Tensor) *Tensor {
	l, _ := t.data.(*list)
	return (&list{items: slices.Insert(slices.Clone(l.items), at, item), bytes: l.bytes + item.Bytes()}).tensor()
}

// Erase returns a sequence without the value at a place.
func (t *Tensor) Erase(at int) *Tensor {
	l, _ := t.data.(*list)
	return (&list{items: slices.Delete(slices.Clone(l.items), at, at+1), bytes: l.bytes - l.items[at].Bytes()}).tensor()
}

// Bytes is the memory that the elements take, text not counted.
func (t *Tensor) Bytes() int64 {
	if l, ok := t.data.(*list); ok {
		return l.bytes + int64(len(l.items))*stringBytes
	}
	size := t.dtype.Size()
	if t.dtype == String {
		size = stringBytes
	}
	return int64(t.Len()) * int64(size)
}

// stringBytes is the memory of one string element without its text.
const stringBytes = 16

// NewNothing returns an optional value that is not there. One that is there is
// itself.
func NewNothing() *Tensor { return &Tensor{dtype: Nothing, shape: []int{0}} }

// Items returns the values of a sequence, which the caller must not change; nil for
// anything else.
func (t *Tensor) Items() []*Tensor {
	if l, ok := t.data.(*list); ok {
		return l.items
	}
	return nil
}
