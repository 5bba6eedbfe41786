package onnx

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/crew"
	"github.com/pellucid/pellucid/engine/graph"
)

// manyBytes is from how many on a tensor's bytes are not copied where that can be
// spared. The length of so many takes three bytes in the file, at least.
const manyBytes = 1 << 14

// number is an element that has the bytes of the file.
type number interface {
	uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64
}

// ordered says that numbers lie in memory as in a file: their lowest byte first.
var ordered = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// fill copies raw, which has as many bytes as dst.
func fill[T number](dst []T, raw []byte) {
	if ordered {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(raw)), raw)
		return
	}
	if _, err := binary.Decode(raw, binary.LittleEndian, dst); err != nil {
		panic("onnx: raw bytes of another size") // which fromRaw has compared
	}
}

// lies reports whether raw can be seen as elements of so many bytes.
func lies(raw []byte, size int) bool {
	return (ordered || size == 1) && uintptr(unsafe.Pointer(unsafe.SliceData(raw)))%uintptr(size) == 0
}

// seen is raw, which lies as it must, as n elements.
func seen[T number](raw []byte, n int, shape []int) (*engine.Tensor, error) {
	return engine.Of(unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw))), n), shape...)
}

// view is a tensor whose elements are raw, which lies as it must and is nobody else's.
func view(d engine.DType, raw []byte, n int, shape []int) (*engine.Tensor, error) {
	switch d {
	case engine.Uint8:
		return engine.Of(raw, shape...)
	case engine.Int8:
		return seen[int8](raw, n, shape)
	case engine.Float16, engine.BFloat16:
		return engine.OfBits(d, unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(raw))), n), shape...)
	case engine.Uint16:
		return seen[uint16](raw, n, shape)
	case engine.Int16:
		return seen[int16](raw, n, shape)
	case engine.Uint32:
		return seen[uint32](raw, n, shape)
	case engine.Int32:
		return seen[int32](raw, n, shape)
	case engine.Uint64:
		return seen[uint64](raw, n, shape)
	case engine.Int64:
		return seen[int64](raw, n, shape)
	case engine.Float32:
		return seen[float32](raw, n, shape)
	case engine.Float64:
		return seen[float64](raw, n, shape)
	}
	// A bool is any byte in a file, and zero or one in memory.
	o, err := engine.New(d, shape...)
	if err == nil {
		for i, b := range raw {
			engine.Data[bool](o)[i] = b != 0
		}
	}
	return o, err
}

// own makes the bytes of the file, of that length, the model's: large tensors lie in them,
// and those that begin where their elements cannot are moved a little, over the length before
// them, which was read. Small ones are copied, and large ones too where much else would
// be kept with them, which nobody counts.
func (m *modelProto) own(length int) {
	large := m.graph.large(nil)
	for _, fn := range m.functions {
		large = largeOf(fn.nodes, large)
	}
	sum := 0
	for _, t := range large {
		sum += len(t.raw)
	}
	if sum < length/4*3 {
		return
	}
	crew.Run(runtime.GOMAXPROCS(0), len(large), func(i int) { large[i].settle() })
}

// large appends the large tensors of a graph, and of those in its nodes.
func (g *graphProto) large(to []*tensorProto) []*tensorProto {
	for _, t := range g.initializers {
		to = t.large(to)
	}
	return largeOf(g.nodes, to)
}

func largeOf(nodes []*nodeProto, to []*tensorProto) []*tensorProto {
	for _, n := range nodes {
		for _, a := range n.attrs {
			if a.t != nil {
				to = a.t.large(to)
			}
			if a.graph != nil {
				to = a.graph.large(to)
			}
		}
	}
	return to
}

func (t *tensorProto) large(to []*tensorProto) []*tensorProto {
	if len(t.raw) < manyBytes {
		return to
	}
	return append(to, t)
}

// settle moves the raw bytes to where they lie as they must.
func (t *tensorProto) settle() {
	t.owned = true
	size := uintptr(graph.TypeOfONNX(t.dtype).Size())
	if size == 0 || t.room == nil {
		return
	}
	by := int(uintptr(unsafe.Pointer(unsafe.SliceData(t.raw))) % size)
	if by == 0 || by > len(t.room)-len(t.raw) {
		return
	}
	at := t.room[len(t.room)-len(t.raw)-by:]
	copy(at, t.raw)
	t.raw, t.room = at[:len(t.raw)], nil
}
