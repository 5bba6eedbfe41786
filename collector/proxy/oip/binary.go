package oip

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

var le = binary.LittleEndian

// fromBinary decodes the little-endian bytes of one tensor: BOOL is one byte of
// 0 or 1, BYTES is a uint32 length and the bytes of each element. It lies in slab.
func fromBinary(slab *engine.Slab, name string, d engine.DType, shape []int, raw []byte) (*engine.Tensor, error) {
	n, err := engine.Elements(shape)
	if err != nil {
		return nil, refuse("tensor %q: %s", clip(name), err)
	}
	if d == engine.String {
		return stringsFrom(slab, name, shape, n, raw)
	}
	// The division keeps n*size from overflowing.
	if size := d.Size(); len(raw)%size != 0 || len(raw)/size != n {
		return nil, refuse("tensor %q: shape %v of %s does not fit %d bytes of binary data", clip(name), shape, d, len(raw))
	}
	t, err := slab.New(d, shape...)
	if err != nil {
		return nil, refuse("tensor %q: %s", clip(name), err)
	}
	if d == engine.Bool {
		if i := slices.IndexFunc(raw, func(b byte) bool { return b > 1 }); i >= 0 {
			return nil, refuse("tensor %q: element %d: a BOOL byte is neither 0 nor 1", clip(name), Number(i))
		}
	}
	if !numbersInto(t, raw) {
		return nil, refuse("tensor %q: %s cannot be sent as bytes", clip(name), d)
	}
	return t, nil
}

func stringsFrom(slab *engine.Slab, name string, shape []int, n int, raw []byte) (*engine.Tensor, error) {
	if n > len(raw)/4 {
		return nil, refuse("tensor %q: shape %v of BYTES does not fit %d bytes of binary data", clip(name), shape, len(raw))
	}
	t, err := slab.New(engine.String, shape...)
	if err != nil {
		return nil, err
	}
	out := engine.Data[string](t)
	for i := range out {
		if len(raw) < 4 || uint64(le.Uint32(raw)) > uint64(len(raw)-4) {
			return nil, refuse("tensor %q: element %d reaches beyond its binary data", clip(name), Number(i))
		}
		size := int(le.Uint32(raw))
		out[i] = string(raw[4 : 4+size])
		raw = raw[4+size:]
	}
	if len(raw) > 0 {
		return nil, refuse("tensor %q: %d bytes of binary data are left over", clip(name), len(raw))
	}
	return t, nil
}

// numbersInto reads the bytes of as many elements as the tensor has.
func numbersInto(t *engine.Tensor, raw []byte) bool {
	switch t.DType() {
	case engine.Bool:
		for i, b := range raw {
			if b > 1 {
				return false
			}
			engine.Data[bool](t)[i] = b == 1
		}
	case engine.Uint8:
		copy(engine.Data[uint8](t), raw)
	case engine.Int8:
		into(engine.Data[int8](t), raw, 1, func(b []byte) int8 { return int8(b[0]) })
	case engine.Uint16, engine.Float16, engine.BFloat16:
		into(engine.Data[uint16](t), raw, 2, le.Uint16)
	case engine.Int16:
		into(engine.Data[int16](t), raw, 2, func(b []byte) int16 { return int16(le.Uint16(b)) })
	case engine.Uint32:
		into(engine.Data[uint32](t), raw, 4, le.Uint32)
	case engine.Int32:
		into(engine.Data[int32](t), raw, 4, func(b []byte) int32 { return int32(le.Uint32(b)) })
	case engine.Float32:
		into(engine.Data[float32](t), raw, 4, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) })
	case engine.Uint64:
		into(engine.Data[uint64](t), raw, 8, le.Uint64)
	case engine.Int64:
		into(engine.Data[int64](t), raw, 8, func(b []byte) int64 { return int64(le.Uint64(b)) })
	case engine.Float64:
		into(engine.Data[float64](t), raw, 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) })
	default:
		return false
	}
	return true
}

func into[T engine.Element](dst []T, raw []byte, size int, decode func([]byte) T) {
	for i := range dst {
		dst[i] = decode(raw[i*size:])
	}
}

// DecodeRaw decodes a body that is the bytes of one tensor and nothing else
// (Inference-Header-Content-Length 0): the model must have one input with at
// most one varying dimension besides the first, which is a batch of one.
// Outputs are then wanted as raw bytes.
func DecodeRaw(body []byte, inputs []engine.Spec) (*Request, error) {
	if len(inputs) != 1 {
		return nil, refuse("a raw binary request needs a model with one input, this one has %d", Number(len(inputs)))
	}
	shape, err := rawShape(inputs[0], len(body))
	if err != nil {
		return nil, err
	}
	spec := inputs[0]
	if spec.DType == engine.String {
		// The whole body is the one element, without a length before it.
		t, err := engine.Of([]string{string(body)}, shape...)
		return rawRequest(spec.Name, t), err
	}
	t, err := fromBinary(&engine.Slab{}, spec.Name, spec.DType, shape, body)
	if err != nil {
		return nil, err
	}
	return rawRequest(spec.Name, t), nil
}

func rawRequest(name string, t *engine.Tensor) *Request {
	return &Request{Binary: true, Inputs: []Item{{Name: name, Tensor: t, Binary: true}}}
}

// rawShape fills in the shape of a raw tensor of size bytes.
func rawShape(spec engine.Spec, size int) ([]int, error) {
	shape := append([]int(nil), spec.Shape...)
	known, open := 1, -1
	for i, d := range shape {
		switch {
		case d >= 0:
			known *= d
		case i == 0 && len(shape) > 1:
			shape[0] = 1
		case open >= 0:
			return nil, refuse("a raw binary request cannot say the shape of input %q: more than one dimension varies", Own(spec.Name))
		default:
			open = i
		}
	}
	if spec.DType == engine.String {
		if open >= 0 {
			shape[open] = 1
		}
		if n, err := engine.Elements(shape); err != nil || n != 1 {
			return nil, refuse("a raw binary request of BYTES must be one element")
		}
		return shape, nil
	}
	if open < 0 {
		return shape, nil
	}
	row := known * spec.DType.Size()
	if row == 0 || size%row != 0 {
		return nil, refuse("input %q: %d bytes are no whole number of elements", Own(spec.Name), size)
	}
	shape[open] = size / row
	return shape, nil
}

// binaryLen returns the number of bytes of a tensor in binary form.
func binaryLen(t *engine.Tensor) int {
	if t.DType() != engine.String {
		return t.Len() * t.DType().Size()
	}
	n := 0
	for _, s := range engine.Data[string](t) {
		n += 4 + len(s)
	}
	return n
}

// appendBinary appends a tensor in binary form.
func appendBinary(dst []byte, t *engine.Tensor) []byte {
	switch t.DType() {
	case engine.Bool:
		for _, v := range engine.Data[bool](t) {
			b := byte(0)
			if v {
				b = 1
			}
			dst = append(dst, b)
		}
	case engine.Uint8:
		dst = append(dst, engine.Data[uint8](t)...)
	case engine.Int8:
		for _, v := range engine.Data[int8](t) {
			dst = append(dst, byte(v))
		}
	case engine.Uint16, engine.Float16, engine.BFloat16:
		for _, v := range engine.Data[uint16](t) {
			dst = le.AppendUint16(dst, v)
		}
	case engine.Int16:
		for _, v := range engine.Data[int16](t) {
			dst = le.AppendUint16(dst, uint16(v))
		}
	case engine.Uint32:
		for _, v := range engine.Data[uint32](t) {
			dst = le.AppendUint32(dst, v)
		}
	case engine.Int32:
		for _, v := range engine.Data[int32](t) {
			dst = le.AppendUint32(dst, uint32(v))
		}
	case engine.Float32:
		for _, v := range engine.Data[float32](t) {
			dst = le.AppendUint32(dst, math.Float32bits(v))
		}
	case engine.Uint64:
		for _, v := range engine.Data[uint64](t) {
			dst = le.AppendUint64(dst, v)
		}
	case engine.Int64:
		for _, v := range engine.Data[int64](t) {
			dst = le.AppendUint64(dst, uint64(v))
		}
	case engine.Float64:
		for _, v := range engine.Data[float64](t) {
			dst = le.AppendUint64(dst, math.Float64bits(v))
		}
	case engine.String:
		for _, v := range engine.Data[string](t) {
			dst = le.AppendUint32(dst, uint32(len(v)))
			dst = append(dst, v...)
		}
	}
	return dst
}
