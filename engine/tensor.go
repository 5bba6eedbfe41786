package engine

import (
	"fmt"
	"math"
	"slices"
)

// DType is the element type of a tensor.
type DType uint8

// The element types. Float16 and BFloat16 hold their bits in uint16, the narrow
// types theirs in a byte.
const (
	Invalid DType = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	Float16
	BFloat16
	Float32
	Float64
	String
	// The narrow types, which models keep weights in.
	Uint4
	Int4
	Uint2
	Int2
	Float8E4M3FN
	Float8E4M3FNUZ
	Float8E5M2
	Float8E5M2FNUZ
	Float8E8M0
	Float4E2M1
	// Sequence and Nothing are no types of tensors: a list of values, and an
	// optional value that is not there.
	Sequence
	Nothing
)

var dtypeNames = [...]string{
	"INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
	"UINT4", "INT4", "UINT2", "INT2", "FP8E4M3FN", "FP8E4M3FNUZ", "FP8E5M2", "FP8E5M2FNUZ", "FP8E8M0", "FP4E2M1", "SEQUENCE", "NOTHING",
}

var dtypeSizes = [...]int{0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}

// String returns the type's name in the Open Inference Protocol, which has none for
// those behind String.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return "INVALID"
}

// Size returns the bytes of one element; 0 for String, whose elements vary.
func (d DType) Size() int { return dtypeSizes[d] }

// IsFloat reports whether d is one of the floating point types.
func (d DType) IsFloat() bool { return d >= Float16 && d <= Float64 }

// IsInteger reports whether d is a signed or unsigned integer type.
func (d DType) IsInteger() bool { return d >= Uint8 && d <= Int64 }

// ParseDType returns the type of that Open Inference Protocol name.
func ParseDType(name string) (DType, bool) {
	for i, n := range dtypeNames {
		if n == name && i != 0 && DType(i) <= String {
			return DType(i), true
		}
	}
	return Invalid, false
}

// Element is the set of Go types a tensor's data may have.
type Element interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64 | string
}

// Tensor is a dense row-major array. Its data slice has exactly as many
// elements as its shape says.
type Tensor struct {
	dtype DType
	shape []int
	data  any // *[]T of the type's storage, *list of a sequence
}

// hold returns elements as a tensor has them: by where their slice lies, so that the slices of
// many tensors may be one object (Slab).
func hold[T any](d []T) any { return &d }

// Elements returns the product of the dimensions, or an error when one is
// negative or the product does not fit an int.
func Elements(shape []int) (int, error) {
	// Errors have copies, so that a caller's list may stay on its stack.
	n := 1
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", slices.Clone(shape))
		}
		if d != 0 && n > math.MaxInt/d {
			return 0, fmt.Errorf("shape %v is too large", slices.Clone(shape))
		}
		n *= d
	}
	return n, nil
}

// Of wraps data in a tensor of the given shape, without copying. The element
// type follows from T; use OfBits for Float16 and BFloat16.
func Of[T Element](data []T, shape ...int) (*Tensor, error) {
	n, err := Elements(shape)
	if err != nil {
		return nil, err
	}
	if n != len(data) {
		return nil, fmt.Errorf("shape %v needs %d elements, got %d", slices.Clone(shape), n, len(data))
	}
	return &Tensor{dtype: dtypeOf[T](), shape: slices.Clone(shape), data: hold(data)}, nil
}

// OfBits wraps the bits of Float16 or BFloat16 elements in a tensor.
func OfBits(d DType, bits []uint16, shape ...int) (*Tensor, error) {
	t, err := Of(bits, shape...)
	if err != nil {
		return nil, err
	}
	if d != Float16 && d != BFloat16 {
		return nil, fmt.Errorf("type %s is not stored as bits", d)
	}
	t.dtype = d
	return t, nil
}

// New returns a zeroed tensor.
func New(d DType, shape ...int) (*Tensor, error) {
	n, err := Elements(shape)
	if err != nil {
		return nil, err
	}
	t := &Tensor{dtype: d, shape: slices.Clone(shape)}
	switch d.Storage() {
	case Bool:
		t.data = hold(make([]bool, n))
	case Uint8:
		t.data = hold(make([]uint8, n))
	case Uint16:
		t.data = hold(make([]uint16, n))
	case Uint32:
		t.data = hold(make([]uint32, n))
	case Uint64:
		t.data = hold(make([]uint64, n))
	case Int8:
		t.data = hold(make([]int8, n))
	case Int16:
		t.data = hold(make([]int16, n))
	case Int32:
		t.data = hold(make([]int32, n))
	case Int64:
		t.data = hold(make([]int64, n))
	case Float32:
		t.data = hold(make([]float32, n))
	case Float64:
		t.data = hold(make([]float64, n))
	case String:
		t.data = hold(make([]string, n))
	default:
		return nil, fmt.Errorf("no tensor of type %s", d)
	}
	return t, nil
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return Bool
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case float32:
		return Float32
	case float64:
		return Float64
	}
	return String
}

// Data returns the tensor's elements, not a copy, or nil when they are not of
// type T.
func Data[T Element](t *Tensor) []T {
	d, ok := t.data.(*[]T)
	if !ok {
		return nil
	}
	return *d
}

// DType returns the element type.
func (t *Tensor) DType() DType { return t.dtype }

// Shape returns the dimensions; the caller must not change them.
func (t *Tensor) Shape() []int { return t.shape }

// Len returns the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// Rows returns dimension 0, or 1 for a scalar.
func (t *Tensor) Rows() int {
	if len(t.shape) == 0 {
		return 1
	}
	return t.shape[0]
}

// RowLen returns the number of elements of one row.
func (t *Tensor) RowLen() int {
	n := 1
	for _, d := range t.shape[min(1, len(t.shape)):] {
		n *= d
	}
	return n
}

// Reshape returns a tensor with the same data and another shape of the same
// number of elements.
func (t *Tensor) Reshape(shape ...int) (*Tensor, error) {
	n, err := Elements(shape)
	if err != nil {
		return nil, err
	}
	if n != t.Len() {
		return nil, fmt.Errorf("reshape %v to %v: the number of elements differs", t.shape, slices.Clone(shape))
	}
	return &Tensor{dtype: t.dtype, shape: slices.Clone(shape), data: t.data}, nil
}

// View makes t what of.Reshape(shape...) returns, without an object for it. It is for who has
// the only reference to t, an arena say: to everybody else tensors are immutable.
func (t *Tensor) View(of *Tensor, shape ...int) error {
	n, err := Elements(shape)
	if err != nil {
		return err
	}
	if n != of.Len() {
		return fmt.Errorf("view %v as %v: the number of elements differs", of.shape, slices.Clone(shape))
	}
	t.dtype, t.data = of.dtype, of.data
	if !slices.Equal(t.shape, shape) {
		t.shape = slices.Clone(shape) // others may have the list that was there
	}
	return nil
}

// Forget lets go of the elements of a tensor that View is called on next.
func (t *Tensor) Forget() { t.data = nil }

// As returns a tensor whose elements are t's seen as another type of the same
// storage, sharing the data.
func (t *Tensor) As(d DType) (*Tensor, error) {
	if t.dtype.Storage() != d.Storage() || t.dtype.IsList() {
		return nil, fmt.Errorf("elements of %s seen as %s", t.dtype, d)
	}
	return &Tensor{dtype: d, shape: t.shape, data: t.data}, nil
}

// Slice returns rows from (included) to to (excluded), sharing the data.
func (t *Tensor) Slice(from, to int) (*Tensor, error) {
	if len(t.shape) == 0 || from < 0 || to < from || to > t.shape[0] {
		return nil, fmt.Errorf("rows %d to %d of shape %v: out of range", from, to, t.shape)
	}
	k := t.RowLen()
	s := &Tensor{dtype: t.dtype, shape: slices.Clone(t.shape)}
	s.shape[0] = to - from
	switch d := t.data.(type) {
	case *[]bool:
		s.data = hold((*d)[from*k : to*k])
	case *[]uint8:
		s.data = hold((*d)[from*k : to*k])
	case *[]uint16:
		s.data = hold((*d)[from*k : to*k])
	case *[]uint32:
		s.data = hold((*d)[from*k : to*k])
	case *[]uint64:
		s.data = hold((*d)[from*k : to*k])
	case *[]int8:
		s.data = hold((*d)[from*k : to*k])
	case *[]int16:
		s.data = hold((*d)[from*k : to*k])
	case *[]int32:
		s.data = hold((*d)[from*k : to*k])
	case *[]int64:
		s.data = hold((*d)[from*k : to*k])
	case *[]float32:
		s.data = hold((*d)[from*k : to*k])
	case *[]float64:
		s.data = hold((*d)[from*k : to*k])
	case *[]string:
		s.data = hold((*d)[from*k : to*k])
	default:
		return nil, fmt.Errorf("rows of a %s", t.dtype)
	}
	return s, nil
}

// Float64s returns the elements as float64: the data itself for Float64, a
// converted copy for every other numeric type and Bool (0 or 1). ok is false
// for String and lists. Integers beyond 2^53 are rounded.
func (t *Tensor) Float64s() (out []float64, ok bool) {
	if d := Data[float64](t); d != nil {
		return d, true
	}
	if t.dtype == String || t.dtype.IsList() {
		return nil, false
	}
	out = make([]float64, t.Len())
	t.Widen(out)
	return out, true
}

// Widen writes what Float64s returns into out, which has as many elements; those of String and
// of lists it leaves.
func (t *Tensor) Widen(out []float64) {
	switch d := t.data.(type) {
	case *[]float64:
		copy(out, *d)
	case *[]float32:
		widen(out, *d)
	case *[]uint8:
		if values := narrowValues[t.dtype]; values != nil {
			for i, c := range *d {
				out[i] = values[c]
			}
			return
		}
		widen(out, *d)
	case *[]uint16:
		if t.dtype == Uint16 {
			widen(out, *d)
			return
		}
		for i, b := range *d {
			out[i] = float64(HalfToFloat32(t.dtype, b))
		}
	case *[]uint32:
		widen(out, *d)
	case *[]uint64:
		widen(out, *d)
	case *[]int8:
		widen(out, *d)
	case *[]int16:
		widen(out, *d)
	case *[]int32:
		widen(out, *d)
	case *[]int64:
		widen(out, *d)
	case *[]bool:
		for i, b := range *d {
			out[i] = 0
			if b {
				out[i] = 1
			}
		}
	}
}

func widen[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32](out []float64, d []T) {
	for i, v := range d {
		out[i] = float64(v)
	}
}

// HalfToFloat32 decodes the bits of a Float16 or BFloat16 element, exactly.
func HalfToFloat32(d DType, b uint16) float32 {
	if d == BFloat16 {
		return math.Float32frombits(uint32(b) << 16)
	}
	sign := uint32(b>>15) << 31
	exp := uint32(b >> 10 & 0x1f)
	frac := uint32(b & 0x3ff)
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
	// Zero or subnormal: frac * 2^-24 is exact in float32.
	v := float32(frac) / (1 << 24)
	return math.Float32frombits(sign | math.Float32bits(v))
}
