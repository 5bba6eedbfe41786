package onnx

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// unread are the element types of TensorProto.DataType that the engine has none for.
var unread = map[int]string{14: "COMPLEX64", 15: "COMPLEX128", 27: "FLOAT6E2M3", 28: "FLOAT6E3M2"}

// typeName is what the standard calls an element type that is not read.
func typeName(dtype int) string {
	if name := unread[dtype]; name != "" {
		return name
	}
	return fmt.Sprintf("ONNX type %d", dtype)
}

// tensor turns t into a tensor, reading external data below dir where it has any.
func (t *tensorProto) tensor(dir string) (*engine.Tensor, error) {
	d := graph.TypeOfONNX(t.dtype)
	if d == engine.Invalid {
		return nil, &engine.UnsupportedError{What: fmt.Sprintf("tensor %q of %s", t.name, typeName(t.dtype))}
	}
	if t.segment {
		return nil, &engine.UnsupportedError{What: fmt.Sprintf("tensor %q in segments", t.name)}
	}
	if len(t.dims) > maxDims {
		return nil, corrupt("tensor %q has %d dimensions", t.name, len(t.dims))
	}
	shape := make([]int, len(t.dims))
	for i, v := range t.dims {
		shape[i] = int(v)
	}
	n, err := engine.Elements(shape)
	if err != nil {
		return nil, corrupt("tensor %q: %v", t.name, err)
	}
	if t.location == 1 {
		raw, err := t.readExternal(dir, n, d)
		if err != nil {
			return nil, err
		}
		return (&tensorProto{name: t.name, owned: true}).fromRaw(d, raw, n, shape)
	}
	if t.hasRaw {
		return t.fromRaw(d, t.raw, n, shape)
	}
	return t.fromTyped(d, n, shape)
}

// readExternal reads the tensor's bytes from a file of the model's folder; a
// name, or a link, that leads out of the folder is refused.
func (t *tensorProto) readExternal(dir string, n int, d engine.DType) (b []byte, err error) {
	name := filepath.FromSlash(t.external["location"])
	if dir == "" || !filepath.IsLocal(name) {
		return nil, corrupt("tensor %q: external data %q is not in the model's folder", t.name, name)
	}
	var at [2]int64
	for i, key := range []string{"offset", "length"} {
		if s, ok := t.external[key]; ok {
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil || v < 0 {
				return nil, corrupt("tensor %q: external %s %q", t.name, key, s)
			}
			at[i] = v
		}
	}
	if d.Bits() == 0 || n > maxFile/d.Size() {
		return nil, fmt.Errorf("tensor %q of %d elements: %w", t.name, n, engine.ErrTooLarge)
	}
	want := int64((n*d.Bits() + 7) / 8)
	if _, ok := t.external["length"]; ok && at[1] != want {
		return nil, corrupt("tensor %q: external length %d, its shape needs %d", t.name, at[1], want)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open external data of tensor %q: %w", t.name, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	// Asked before opening: opening a pipe would wait for its writer.
	st, err := root.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("open external data of tensor %q: %w", t.name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, corrupt("tensor %q: external data %q is not a regular file", t.name, name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open external data of tensor %q: %w", t.name, err)
	}
	defer f.Close()
	if at[0] > st.Size()-want {
		return nil, corrupt("tensor %q: external data ends after %d bytes", t.name, st.Size())
	}
	b = make([]byte, want)
	if _, err := io.ReadFull(io.NewSectionReader(f, at[0], want), b); err != nil {
		return nil, fmt.Errorf("read external data of tensor %q: %w", t.name, err)
	}
	return b, nil
}

func (t *tensorProto) fromRaw(d engine.DType, raw []byte, n int, shape []int) (*engine.Tensor, error) {
	if d == engine.String || n > math.MaxInt/64 || len(raw) != (n*d.Bits()+7)/8 {
		return nil, corrupt("tensor %q has %d raw bytes for %d elements of %s", t.name, len(raw), n, d)
	}
	if d.IsNarrow() {
		return fromCodes(d, raw, n, shape)
	}
	if t.owned && len(raw) >= manyBytes && lies(raw, d.Size()) {
		return view(d, raw, n, shape)
	}
	o, err := engine.New(d, shape...)
	if err != nil {
		return nil, err
	}
	switch d {
	case engine.Bool:
		for i, b := range raw {
			engine.Data[bool](o)[i] = b != 0
		}
	case engine.Uint8:
		copy(engine.Data[uint8](o), raw)
	case engine.Int8:
		fill(engine.Data[int8](o), raw)
	case engine.Uint16, engine.Float16, engine.BFloat16:
		fill(engine.Data[uint16](o), raw)
	case engine.Int16:
		fill(engine.Data[int16](o), raw)
	case engine.Uint32:
		fill(engine.Data[uint32](o), raw)
	case engine.Int32:
		fill(engine.Data[int32](o), raw)
	case engine.Uint64:
		fill(engine.Data[uint64](o), raw)
	case engine.Int64:
		fill(engine.Data[int64](o), raw)
	case engine.Float32:
		fill(engine.Data[float32](o), raw)
	case engine.Float64:
		fill(engine.Data[float64](o), raw)
	}
	return o, nil
}

// fromCodes reads elements of a narrow type, which are packed from the lowest bits
// of a byte on.
func fromCodes(d engine.DType, raw []byte, n int, shape []int) (*engine.Tensor, error) {
	bits := d.Bits()
	codes := make([]uint8, n)
	for i := range codes {
		at := i * bits
		codes[i] = raw[at/8] >> (at % 8) << (8 - bits) >> (8 - bits)
	}
	if d.Storage() == engine.Uint8 {
		t, err := engine.Of(codes, shape...)
		if err != nil {
			return nil, err
		}
		return t.As(d)
	}
	signed := make([]int8, n)
	for i, c := range codes {
		signed[i] = int8(c<<(8-bits)) >> (8 - bits)
	}
	t, err := engine.Of(signed, shape...)
	if err != nil {
		return nil, err
	}
	return t.As(d)
}

func unpack[T any](dst []T, at func(i int) T) {
	for i := range dst {
		dst[i] = at(i)
	}
}

// fromTyped reads the typed fields, one number an element.
func (t *tensorProto) fromTyped(d engine.DType, n int, shape []int) (*engine.Tensor, error) {
	if d.IsNarrow() {
		// Each number is a byte of what raw data would be.
		raw := make([]byte, len(t.ints))
		for i, v := range t.ints {
			raw[i] = byte(v)
		}
		return t.fromRaw(d, raw, n, shape)
	}
	have := len(t.ints)
	switch d {
	case engine.Float32:
		have = len(t.floats)
	case engine.Float64:
		have = len(t.doubles)
	case engine.String:
		have = len(t.strings)
	}
	if have != n {
		return nil, corrupt("tensor %q has %d elements, its shape needs %d", t.name, have, n)
	}
	ints := t.ints
	switch d {
	case engine.Float32:
		return engine.Of(t.floats, shape...)
	case engine.Float64:
		return engine.Of(t.doubles, shape...)
	case engine.String:
		return engine.Of(t.strings, shape...)
	case engine.Int64:
		return engine.Of(ints, shape...)
	}
	o, err := engine.New(d, shape...)
	if err != nil {
		return nil, err
	}
	switch d {
	case engine.Bool:
		unpack(engine.Data[bool](o), func(i int) bool { return ints[i] != 0 })
	case engine.Uint8:
		unpack(engine.Data[uint8](o), func(i int) uint8 { return uint8(ints[i]) })
	case engine.Int8:
		unpack(engine.Data[int8](o), func(i int) int8 { return int8(ints[i]) })
	case engine.Uint16, engine.Float16, engine.BFloat16:
		unpack(engine.Data[uint16](o), func(i int) uint16 { return uint16(ints[i]) })
	case engine.Int16:
		unpack(engine.Data[int16](o), func(i int) int16 { return int16(ints[i]) })
	case engine.Uint32:
		unpack(engine.Data[uint32](o), func(i int) uint32 { return uint32(ints[i]) })
	case engine.Int32:
		unpack(engine.Data[int32](o), func(i int) int32 { return int32(ints[i]) })
	case engine.Uint64:
		unpack(engine.Data[uint64](o), func(i int) uint64 { return uint64(ints[i]) })
	}
	return o, nil
}
