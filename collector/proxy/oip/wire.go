package oip

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// Wire is a tensor as the protocol's gRPC form has it: raw bytes, or elements in
// the list of its datatype.
type Wire struct {
	Name, Datatype string
	Shape          []int64
	// Raw counts where IsRaw is set.
	Raw   []byte
	IsRaw bool

	Bools   []bool
	Ints    []int32
	Longs   []int64
	Uints   []uint32
	ULongs  []uint64
	Floats  []float32
	Doubles []float64
	Bytes   [][]byte
}

// Columns reads tensors that are one column a feature straight into the model's matrix, the
// only item then, without memory for each; at sets w to the i-th of n and reports whether
// it has no parameters. It knows no errors: what it does not take is for Item to read, or
// to refuse.
func Columns(info *engine.Info, n, size int, at func(i int, w *Wire) bool) (items []Item, ok bool) {
	if !engine.Gathers(info) || n != len(info.Features) {
		return nil, false
	}
	g, w, name := gathered{info: info}, Wire{}, make([]byte, 0, 64)
	for i := range n {
		w = Wire{}
		d, known := engine.Invalid, false
		if at(i, &w) {
			d, known = engine.ParseDType(w.Datatype)
		}
		if dims := len(w.Shape); !known || dims < 1 || dims > 2 || dims == 2 && (w.Shape[1] != 1 || d == engine.String) ||
			w.Shape[0] < 1 || w.Shape[0] > int64(size) || !g.start(int(w.Shape[0]), size) {
			return nil, false
		}
		name = append(name[:0], w.Name...)
		f, ok := g.gather.Feature(name)
		if !ok || !g.wire(f, d, &w) {
			return nil, false
		}
	}
	matrix, ok := g.gather.Matrix()
	return []Item{{Name: info.Inputs[0].Name, Tensor: matrix, Binary: w.IsRaw}}, ok
}

// wire puts a column into feature f.
func (g *gathered) wire(f int, d engine.DType, w *Wire) bool {
	if w.IsRaw {
		return g.binary(f, d, w.Raw)
	}
	if w.elements() != g.rows {
		return false
	}
	if d == engine.String {
		for r, text := range w.Bytes {
			if !g.gather.Name(f, r, text) {
				return false
			}
		}
		return len(w.Bytes) == g.rows
	}
	t := g.scratch(d)
	return t != nil && w.into(t) && g.gather.Fill(f, t)
}

// into copies the elements from the list of the tensor's type, which must have all.
func (w *Wire) into(t *engine.Tensor) bool {
	switch t.DType() {
	case engine.Bool:
		return copy(engine.Data[bool](t), w.Bools) == t.Len()
	case engine.Int8:
		return narrowed(engine.Data[int8](t), w.Ints)
	case engine.Int16:
		return narrowed(engine.Data[int16](t), w.Ints)
	case engine.Int32:
		return copy(engine.Data[int32](t), w.Ints) == t.Len()
	case engine.Int64:
		return copy(engine.Data[int64](t), w.Longs) == t.Len()
	case engine.Uint8:
		return narrowed(engine.Data[uint8](t), w.Uints)
	case engine.Uint16:
		return narrowed(engine.Data[uint16](t), w.Uints)
	case engine.Uint32:
		return copy(engine.Data[uint32](t), w.Uints) == t.Len()
	case engine.Uint64:
		return copy(engine.Data[uint64](t), w.ULongs) == t.Len()
	case engine.Float32:
		return copy(engine.Data[float32](t), w.Floats) == t.Len()
	case engine.Float64:
		return copy(engine.Data[float64](t), w.Doubles) == t.Len()
	case engine.String:
		for i, b := range w.Bytes[:min(len(w.Bytes), t.Len())] {
			engine.Data[string](t)[i] = string(b)
		}
		return len(w.Bytes) == t.Len()
	}
	return false // has raw contents only
}

func narrowed[T int8 | int16 | uint8 | uint16, W int32 | uint32](dst []T, wide []W) bool {
	if len(wide) != len(dst) {
		return false
	}
	for i, v := range wide {
		if dst[i] = T(v); W(dst[i]) != v {
			return false
		}
	}
	return true
}

// elements counts those of all lists.
func (w *Wire) elements() int {
	return len(w.Bools) + len(w.Ints) + len(w.Longs) + len(w.Uints) + len(w.ULongs) + len(w.Floats) + len(w.Doubles) + len(w.Bytes)
}

// Item reads the tensor of a request, whose tensors lie in slab.
func (w *Wire) Item(slab *engine.Slab, params Params) (Item, error) {
	it := Item{Name: w.Name, Params: params, Binary: w.IsRaw}
	d, ok := engine.ParseDType(w.Datatype)
	switch {
	case w.Name == "":
		return it, refuse("an input has no name")
	case !ok:
		return it, refuse("tensor %q: unknown datatype %q", clip(w.Name), clip(w.Datatype))
	case len(w.Shape) > maxRank:
		return it, refuse("tensor %q: its shape has more than %d dimensions", clip(w.Name), Number(maxRank))
	case params.Get("shared_memory_region") != nil:
		return it, refuse("tensor %q: shared memory is not supported", clip(w.Name))
	}
	shape := make([]int, len(w.Shape))
	for i, n := range w.Shape {
		if shape[i] = int(n); n < 0 || int64(shape[i]) != n {
			return it, refuse("tensor %q: a dimension of its shape is negative or too large", clip(w.Name))
		}
	}
	var err error
	if w.IsRaw {
		it.Tensor, err = fromBinary(slab, w.Name, d, shape, w.Raw)
		return it, err
	}
	if it.Tensor, err = w.typed(slab, d, shape); err != nil {
		return it, refuse("tensor %q: its contents do not fit its datatype %s and shape", clip(w.Name), d)
	}
	return it, nil
}

// typed takes the elements from the list of the datatype; another list must be
// empty, since its elements would be lost.
func (w *Wire) typed(slab *engine.Slab, d engine.DType, shape []int) (*engine.Tensor, error) {
	total := w.elements()
	if n, err := engine.Elements(shape); err != nil || n != total {
		return nil, fmt.Errorf("%d elements: %w", total, engine.ErrTooLarge)
	}
	t, err := slab.New(d, shape...)
	if err != nil {
		return nil, err
	}
	if !w.into(t) {
		return nil, fmt.Errorf("not all are %s", d)
	}
	return t, nil
}

// NewWire is the tensor of an answer, raw or in the list of its datatype.
func NewWire(it *Item, raw bool) *Wire {
	t := it.Tensor
	w := &Wire{Name: it.Name, Datatype: t.DType().String(), IsRaw: raw}
	for _, n := range t.Shape() {
		w.Shape = append(w.Shape, int64(n))
	}
	if raw {
		w.Raw = appendBinary(make([]byte, 0, binaryLen(t)), t)
		return w
	}
	switch t.DType() {
	case engine.Bool:
		w.Bools = engine.Data[bool](t)
	case engine.Int8:
		w.Ints = widen[int32](engine.Data[int8](t))
	case engine.Int16:
		w.Ints = widen[int32](engine.Data[int16](t))
	case engine.Int32:
		w.Ints = engine.Data[int32](t)
	case engine.Int64:
		w.Longs = engine.Data[int64](t)
	case engine.Uint8:
		w.Uints = widen[uint32](engine.Data[uint8](t))
	case engine.Uint16:
		w.Uints = widen[uint32](engine.Data[uint16](t))
	case engine.Uint32:
		w.Uints = engine.Data[uint32](t)
	case engine.Uint64:
		w.ULongs = engine.Data[uint64](t)
	case engine.Float32:
		w.Floats = engine.Data[float32](t)
	case engine.Float64:
		w.Doubles = engine.Data[float64](t)
	case engine.String:
		for _, s := range engine.Data[string](t) {
			w.Bytes = append(w.Bytes, []byte(s))
		}
	}
	return w
}

func widen[W int32 | uint32, T int8 | int16 | uint8 | uint16](list []T) []W {
	out := make([]W, len(list))
	for i, v := range list {
		out[i] = W(v)
	}
	return out
}

// NewRequest puts a request that did not come as JSON together: its outputs are
// wanted as they are, whatever JSON cannot carry.
func NewRequest(id string, params Params, inputs []Item, outputs []OutputRequest) (*Request, error) {
	if len(inputs) > maxItems || len(outputs) > maxItems || len(params) > maxParams {
		return nil, refuse("more than %d tensors or %d parameters", Number(maxItems), Number(maxParams))
	}
	for i := range outputs {
		outputs[i].Binary = true
		for _, p := range [...]string{"classification", "shared_memory_region"} {
			if v := outputs[i].Params.Get(p); v != nil && v != int64(0) {
				return nil, refuse("output %q: parameter %q is not supported", clip(outputs[i].Name), Own(p))
			}
		}
	}
	return &Request{ID: id, HasID: id != "", Params: params, Inputs: inputs, Outputs: outputs, Binary: true}, unique(inputs)
}
