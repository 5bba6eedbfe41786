package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
)

// NBits is the constant matrix of a MatMulNBits node: K x N codes of 4 or 8 bits, with a
// scale and a zero for each block of a column.
type NBits struct {
	K, N         int
	bits, block  int
	codes        []uint8
	scale, zero  []float32
	blocks, blob int
}

// The inputs of MatMulNBits.
const (
	nbitsCodes = iota + 1
	nbitsScale
	nbitsZero
	nbitsOrder
	// NBitsBias is the place of what is added to each row.
	NBitsBias
)

// NewNBits reads the matrix of node n, whose inputs have the given constants.
func NewNBits(n *Node, constants []*engine.Tensor) (*NBits, error) {
	w := &NBits{K: int(n.Attrs["K"].Int), N: int(n.Attrs["N"].Int), bits: 4, block: int(n.Attrs["block_size"].Int)}
	if a, ok := n.Attrs["bits"]; ok {
		w.bits = int(a.Int)
	}
	for i, name := range n.Inputs {
		if i > 0 && name != "" && i != NBitsBias && (i >= len(constants) || constants[i] == nil) {
			return nil, n.unsupported("input %d (%q), which is no constant", i, name)
		}
	}
	if w.bits != 4 && w.bits != 8 {
		return nil, n.unsupported("codes of %d bits", w.bits)
	}
	if w.K < 1 || w.N < 1 || w.block < 16 || w.block&(w.block-1) != 0 || w.K > maxDimension || w.N > maxDimension || w.block > maxDimension {
		return nil, n.corrupt("a matrix of %d x %d in blocks of %d", w.K, w.N, w.block)
	}
	w.blocks, w.blob = (w.K+w.block-1)/w.block, w.block*w.bits/8
	codes, scale := constants[nbitsCodes], constants[nbitsScale]
	if w.codes = engine.Data[uint8](codes); w.codes == nil || codes.DType() != engine.Uint8 || len(w.codes) != w.N*w.blocks*w.blob {
		return nil, n.corrupt("codes of %s %v for %d x %d in blocks of %d", codes.DType(), codes.Shape(), w.K, w.N, w.block)
	}
	if !scale.DType().IsFloat() || scale.Len() != w.N*w.blocks {
		return nil, n.corrupt("scales of %s %v for %d columns of %d blocks", scale.DType(), scale.Shape(), w.N, w.blocks)
	}
	w.scale = singlesOf(scale)
	return w, w.readZeros(n, arg(constants, nbitsZero))
}

// maxDimension keeps products of two dimensions within an int.
const maxDimension = 1 << 30

func singlesOf(t *engine.Tensor) []float32 {
	v, _ := t.Float64s()
	out := make([]float32, len(v))
	for i, e := range v {
		out[i] = float32(e)
	}
	return out
}

// readZeros reads zero points: numbers, or codes as the matrix has them, of which a
// column's fill whole bytes; half of the range where there are none.
func (w *NBits) readZeros(n *Node, t *engine.Tensor) error {
	w.zero = make([]float32, w.N*w.blocks)
	column := (w.blocks*w.bits + 7) / 8
	switch {
	case t == nil:
		for i := range w.zero {
			w.zero[i] = float32(int(1) << (w.bits - 1))
		}
	case t.DType().IsFloat() && t.Len() == len(w.zero):
		w.zero = singlesOf(t)
	case t.DType() == engine.Uint8 && t.Len() == w.N*column:
		v := engine.Data[uint8](t)
		for i := range w.zero {
			w.zero[i] = float32(codeAt(v[i/w.blocks*column:], i%w.blocks, w.bits))
		}
	default:
		return n.corrupt("zero points of %s %v for %d columns of %d blocks", t.DType(), t.Shape(), w.N, w.blocks)
	}
	return nil
}

// codeAt is code i of a row of them; of 4 bits, the first of a byte is the low one.
func codeAt(v []uint8, i, bits int) uint8 {
	if bits == 8 {
		return v[i]
	}
	return v[i/2] >> (i % 2 * 4) & 15
}

// WriteColumns writes columns from to to of w as floats, one after the other.
func WriteColumns[T float](w *NBits, out []T, from, to int) {
	for j := from; j < to; j++ {
		column := out[(j-from)*w.K:][:w.K]
		codes := w.codes[j*w.blocks*w.blob:]
		for l := range column {
			at := j*w.blocks + l/w.block
			column[l] = T((float32(codeAt(codes, l, w.bits)) - w.zero[at]) * w.scale[at])
		}
	}
}

// NBitsColumns is how many columns are made floats at once.
const NBitsColumns = 64

// pack lays the matrix out, its codes as they are, nil where that is not to be.
func (w *NBits) pack(h *held) *blas.Packed[float32] {
	size := packedBytes(w.K, w.N, engine.Uint8)*int64(w.bits)/8 + 2*packedBytes(w.blocks, w.N, engine.Float32)
	if !h.lay(size) {
		return nil
	}
	zero, shift := w.zero, uint8(0)
	if w.bits == 8 {
		// Bytes and zeros both less 128 are as far from each other.
		zero, shift = slices.Clone(zero), 0x80
		for i := range zero {
			zero[i] -= 128
		}
	}
	p := blas.PackBlocks(w.K, w.N, w.bits, w.block, func(j int, to []int8) {
		codes := w.codes[j*w.blocks*w.blob:]
		for l := range to {
			to[l] = int8(codeAt(codes, l, w.bits) ^ shift)
		}
	}, w.scale, zero)
	if p == nil {
		h.give(size)
	}
	return p
}

// multiplyNBits is a w for a of so many rows, without its layout: some columns at a time.
func multiplyNBits[T float](x *Exec, w *NBits, rows int, a, out []T) error {
	if err := x.reserve(dtypeOf[T](), NBitsColumns*w.K); err != nil {
		return err
	}
	borrowed(NBitsColumns*w.K, func(wide []T) {
		for from := 0; from < w.N && rows > 0; from += NBitsColumns {
			to := min(from+NBitsColumns, w.N)
			WriteColumns(w, wide, from, to)
			blas.Gemm(x.threads, false, true, rows, to-from, w.K, 1, a, w.K, wide, w.K, 0, out[from:], w.N)
		}
	})
	return nil
}

func buildNBits(b *builder) (Kernel, error) {
	// Of the levels of accuracy each allows what is computed here: floats.
	for _, name := range []string{"K", "N", "bits", "block_size", "accuracy_level"} {
		b.attrs.int(name, 0)
	}
	if b.attrs.int("weight_prepacked", 0) != 0 {
		return nil, b.node.unsupported("weights laid out for one runtime (weight_prepacked)")
	}
	if len(b.node.Inputs) > nbitsOrder && b.node.Inputs[nbitsOrder] != "" {
		return nil, b.node.unsupported("input g_idx")
	}
	w, err := NewNBits(b.node, b.constants)
	if err != nil {
		return nil, err
	}
	packed := w.pack(b.held)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() == engine.Float64 {
			return one(runNBits[float64](x, w, nil, in))
		}
		return one(runNBits[float32](x, w, packed, in))
	}, nil
}

func runNBits[T float](x *Exec, w *NBits, packed *blas.Packed[T], in []*engine.Tensor) (*engine.Tensor, error) {
	shape := slices.Clone(in[0].Shape())
	last := len(shape) - 1
	a, bias := engine.Data[T](in[0]), arg(in, NBitsBias)
	if a == nil && in[0].Len() > 0 {
		return nil, typeError(in[0])
	}
	if last < 0 || shape[last] != w.K {
		return nil, misfit("an operand of shape %v for a matrix of %d rows", shape, w.K)
	}
	if bias != nil && (bias.DType() != in[0].DType() || bias.Len() != w.N) {
		return nil, misfit("a bias of %s %v for %d columns", bias.DType(), bias.Shape(), w.N)
	}
	shape[last] = w.N
	t, out, err := rawOf[T](x, shape...)
	if err != nil {
		return nil, err
	}
	rows := volume(shape[:last])
	if packed != nil {
		packed.Gemm(x.threads, false, rows, 1, a, w.K, 0, out, w.N)
	} else if err := multiplyNBits(x, w, rows, a, out); err != nil {
		return nil, err
	}
	if bias == nil {
		return t, nil
	}
	more := engine.Data[T](bias)
	for i := range out {
		out[i] += more[i%w.N]
	}
	return t, nil
}
