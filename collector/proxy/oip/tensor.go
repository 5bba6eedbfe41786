package oip

import (
	"math"

	"github.com/pellucid/pellucid/engine"
)

// maxRank bounds the number of dimensions of a tensor.
const maxRank = 16

// reader reads the elements of one tensor in JSON, and may then read another. at is the
// number of elements read so far.
type reader struct {
	s    *scanner
	name string
	elem func() error
	n    int
	at   int
	slab engine.Slab // where the tensors lie
	// f32 and f64 are where elements of these types go; the functions that put them there
	// are made once.
	f32            []float32
	f64            []float64
	read32, read64 func() error
}

// data reads the elements of a tensor from s: a flat list of all of them, or
// lists nested exactly as the shape says.
func (s *scanner) data(name string, d engine.DType, shape []int) (*engine.Tensor, error) {
	return new(reader).data(s, name, d, shape)
}

func (r *reader) data(s *scanner, name string, d engine.DType, shape []int) (*engine.Tensor, error) {
	n, err := s.room(name, d, shape)
	if err != nil {
		return nil, err
	}
	t, err := r.slab.New(d, shape...)
	if err != nil {
		return nil, refuse("tensor %q: %s", clip(name), err)
	}
	r.s, r.name, r.n, r.at = s, name, n, 0
	r.elem = r.into(t)
	return t, r.all(shape)
}

// room returns the number of elements of shape, refusing types that JSON cannot
// carry and shapes that the rest of the body is too short for, before anything
// is allocated for them.
func (s *scanner) room(name string, d engine.DType, shape []int) (int, error) {
	if d == engine.Float16 || d == engine.BFloat16 {
		return 0, refuse("tensor %q: %s cannot be sent as JSON: use the binary tensor extension", clip(name), d)
	}
	n, err := engine.Elements(shape)
	if err != nil {
		return 0, refuse("tensor %q: %s", clip(name), err)
	}
	// An element takes at least two bytes, its own and a comma.
	if left := len(s.b) - s.i; n > (left+1)/2 {
		return 0, refuse("tensor %q: shape %v needs %d elements, data has fewer", clip(name), shape, n)
	}
	return n, nil
}

// all reads the whole data list.
func (r *reader) all(shape []int) error {
	s := r.s
	if s.peek() != '[' {
		return refuse("tensor %q: data must be a list", clip(r.name))
	}
	if len(shape) > 1 && s.second() == '[' {
		return r.nested(shape)
	}
	if err := r.row(r.n, shape); err != nil {
		return err
	}
	return nil
}

// second returns the first byte inside the list that s stands before.
func (s *scanner) second() byte {
	at := *s
	at.i++
	return at.peek()
}

// nested reads lists nested as shape.
func (r *reader) nested(shape []int) error {
	if len(shape) == 0 {
		return r.mismatch() // a list where the first cell was a value
	}
	if len(shape) == 1 {
		return r.row(shape[0], shape)
	}
	s := r.s
	if s.peek() != '[' {
		return r.mismatch()
	}
	s.i++
	for k := range shape[0] {
		if k > 0 && s.peek() != ',' {
			return r.mismatch()
		} else if k > 0 {
			s.i++
		}
		if err := r.nested(shape[1:]); err != nil {
			return err
		}
	}
	if s.peek() != ']' {
		return r.mismatch()
	}
	s.i++
	return nil
}

// row reads one list of exactly n elements.
func (r *reader) row(n int, shape []int) error {
	s := r.s
	if s.peek() != '[' {
		return r.mismatch()
	}
	s.i++
	for k := range n {
		if k > 0 {
			if s.peek() != ',' {
				return r.short(shape)
			}
			s.i++
		}
		switch s.peek() {
		case '[':
			return r.mismatch()
		case ']':
			return r.short(shape)
		}
		if err := r.elem(); err != nil {
			return r.fault(err)
		}
		r.at++
	}
	switch s.peek() {
	case ']':
		s.i++
		return nil
	case 0:
		return s.fault("unexpected end")
	}
	if n > 0 && s.peek() != ',' {
		return s.fault("expected ',' or ']'")
	}
	return refuse("tensor %q: data has more elements than its shape has", clip(r.name))
}

func (r *reader) short(shape []int) error {
	if c := r.s.peek(); c != ']' {
		return r.s.fault("expected ',' or ']'")
	}
	return refuse("tensor %q: data has fewer elements than its shape %v", clip(r.name), shape)
}

func (r *reader) mismatch() error {
	if r.s.peek() == 0 {
		return r.s.fault("unexpected end")
	}
	return refuse("tensor %q: the nesting of data does not follow its shape", clip(r.name))
}

// fault adds the tensor's name and the element's index to an element's error.
func (r *reader) fault(err error) error {
	return refuse("tensor %q: element %d: %s", clip(r.name), Number(r.at), err)
}

// into returns the function that reads one element into t.
func (r *reader) into(t *engine.Tensor) func() error {
	switch t.DType() {
	case engine.Float32:
		if r.f32 = engine.Data[float32](t); r.read32 == nil {
			r.read32 = r.float32
		}
		return r.read32
	case engine.Float64:
		if r.f64 = engine.Data[float64](t); r.read64 == nil {
			r.read64 = r.float64
		}
		return r.read64
	case engine.Bool:
		d := engine.Data[bool](t)
		return func() (err error) { d[r.at], err = r.bool(); return err }
	case engine.String:
		d := engine.Data[string](t)
		return func() (err error) { d[r.at], err = r.string(); return err }
	case engine.Int8:
		return signedInto(r, engine.Data[int8](t), 8)
	case engine.Int16:
		return signedInto(r, engine.Data[int16](t), 16)
	case engine.Int32:
		return signedInto(r, engine.Data[int32](t), 32)
	case engine.Int64:
		return signedInto(r, engine.Data[int64](t), 64)
	case engine.Uint8:
		return unsignedInto(r, engine.Data[uint8](t), 8)
	case engine.Uint16:
		return unsignedInto(r, engine.Data[uint16](t), 16)
	case engine.Uint32:
		return unsignedInto(r, engine.Data[uint32](t), 32)
	}
	return unsignedInto(r, engine.Data[uint64](t), 64)
}

func (r *reader) float32() error {
	missing, num, err := r.numeric()
	if err != nil {
		return err
	}
	if missing {
		r.f32[r.at] = float32(math.NaN())
		return nil
	}
	v, ok := num.float32()
	if !ok {
		return errRange
	}
	r.f32[r.at] = v
	return nil
}

func (r *reader) float64() error {
	missing, num, err := r.numeric()
	if err != nil {
		return err
	}
	if missing {
		r.f64[r.at] = math.NaN()
		return nil
	}
	v, ok := num.float64()
	if !ok {
		return errRange
	}
	r.f64[r.at] = v
	return nil
}

func signedInto[T int8 | int16 | int32 | int64](r *reader, d []T, bits uint) func() error {
	return func() error {
		missing, num, err := r.numeric()
		if err != nil {
			return err
		}
		if missing {
			return refuse("null in an integer tensor")
		}
		v, err := num.signed(bits)
		d[r.at] = T(v)
		return err
	}
}

func unsignedInto[T uint8 | uint16 | uint32 | uint64](r *reader, d []T, bits uint) func() error {
	return func() error {
		missing, num, err := r.numeric()
		if err != nil {
			return err
		}
		if missing {
			return refuse("null in an integer tensor")
		}
		v, err := num.unsigned(bits)
		d[r.at] = T(v)
		return err
	}
}

// numeric reads a number, or null (missing).
func (r *reader) numeric() (missing bool, num number, err error) {
	switch r.s.peek() {
	case 'n':
		return true, num, r.s.literal("null")
	case '"':
		return false, num, refuse("a string in a numeric tensor")
	case 't', 'f':
		return false, num, refuse("a boolean in a numeric tensor")
	case '{':
		return false, num, refuse("an object in a numeric tensor")
	}
	num, err = r.s.number()
	return false, num, err
}

// bool reads true or false, or the numbers 1 and 0, which several clients send.
func (r *reader) bool() (bool, error) {
	switch c := r.s.peek(); c {
	case 't', 'f':
		return r.s.boolean()
	case '0', '1':
		num, err := r.s.number()
		if err != nil {
			return false, err
		}
		v, err := num.unsigned(1)
		return v == 1, err
	}
	return false, refuse("not a boolean")
}

// string reads a string; null is the empty string, which is missing.
func (r *reader) string() (string, error) {
	switch r.s.peek() {
	case 'n':
		return "", r.s.literal("null")
	case '"':
		return r.s.str()
	}
	return "", refuse("not a string")
}
