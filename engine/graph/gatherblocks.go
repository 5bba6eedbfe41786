package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// gatherBlocks is GatherBlockQuantized along the first axis: rows of codes with a scale and a
// zero point for each block of the last one, of which those that are asked for become numbers.
type gatherBlocks struct {
	block, bits int
	last        int // the axis that has blocks, -1 for the last
}

func buildGatherBlocks(b *builder) (Kernel, error) {
	g := &gatherBlocks{block: b.attrs.int("block_size", 128), bits: b.attrs.int("bits", 4), last: b.attrs.int("quantize_axis", 1)}
	if axis := b.attrs.int("gather_axis", 0); axis != 0 {
		return nil, b.node.unsupported("gather_axis %d", axis)
	}
	if g.bits != 4 && g.bits != 8 {
		return nil, b.node.unsupported("codes of %d bits", g.bits)
	}
	if g.block < 16 || g.block&(g.block-1) != 0 || g.block > maxDimension {
		return nil, b.node.corrupt("blocks of %d", g.block)
	}
	switch b.inType(0) {
	case engine.Uint8, engine.Uint4, engine.Int4, engine.Invalid:
	default:
		return nil, b.node.unsupported("codes of %s", b.inType(0))
	}
	if z := b.inType(3); z != engine.Invalid && z != b.inType(0) {
		return nil, b.node.corrupt("zero points of %s for codes of %s", z, b.inType(0))
	}
	if t := arg(b.constants, 0); t != nil && g.last != -1 && g.last != len(t.Shape())-1 {
		return nil, b.node.unsupported("quantize_axis %d of codes of shape %v, which is not the last", g.last, t.Shape())
	}
	b.result = []engine.DType{b.inType(2)}
	return g.run, nil
}

// codes are those of a tensor in rows of a width: of bytes that have two the low four bits first.
type codes struct {
	unsigned []uint8
	signed   []int8
	width    int
	two      bool
}

func (g *gatherBlocks) codesOf(t *engine.Tensor, width int) codes {
	if t.DType() == engine.Int4 {
		return codes{signed: engine.Data[int8](t), width: width}
	}
	return codes{unsigned: engine.Data[uint8](t), width: width, two: t.DType() == engine.Uint8 && g.bits == 4}
}

func (c *codes) at(row, i int) float32 {
	switch {
	case c.signed != nil:
		return float32(c.signed[row*c.width+i])
	case c.two:
		return float32(codeAt(c.unsigned[row*c.width:], i, 4))
	}
	return float32(c.unsigned[row*c.width+i])
}

func (g *gatherBlocks) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	data, scales, zeros := in[0], engine.Data[float32](in[2]), arg(in, 3)
	shape, blocked := data.Shape(), in[2].Shape()
	last := len(shape) - 1
	if d := data.DType(); d != engine.Uint8 && d != engine.Uint4 && d != engine.Int4 {
		return nil, typeError(data)
	}
	if last < 1 || g.last != -1 && g.last != last {
		return nil, misfit("codes of shape %v whose blocks lie along axis %d", shape, g.last)
	}
	if scales == nil && in[2].Len() > 0 {
		return nil, typeError(in[2])
	}
	code, perByte := g.codesOf(data, shape[last]), 1
	if code.two {
		perByte = 2
	}
	width := shape[last] * perByte
	blocks := (width + g.block - 1) / g.block
	if len(blocked) != len(shape) || blocked[last] != blocks || !slices.Equal(blocked[:last], shape[:last]) {
		return nil, misfit("scales of shape %v for codes of shape %v in blocks of %d", blocked, shape, g.block)
	}
	var zero codes
	zeroWidth, middle := (blocks+perByte-1)/perByte, float32(0)
	switch {
	case zeros != nil:
		if z := zeros.Shape(); zeros.DType() != data.DType() || len(z) != len(shape) || z[last] != zeroWidth || !slices.Equal(z[:last], shape[:last]) {
			return nil, misfit("zero points of %s %v for codes of %s %v in blocks of %d", zeros.DType(), z, data.DType(), shape, g.block)
		}
		zero = g.codesOf(zeros, zeroWidth)
	case data.DType() == engine.Uint8:
		middle = float32(int(1) << (g.bits - 1))
	}
	index, err := x.positions(in[1], shape[0])
	if err != nil {
		return nil, err
	}
	final := x.ints(len(in[1].Shape()) + last)
	copy(final[copy(final, in[1].Shape()):], shape[1:])
	final[len(final)-1] = width
	t, out, err := rawOf[float32](x, final...)
	if err != nil {
		return nil, err
	}
	rows := volume(shape[1:last]) // of one index
	for i, j := range index {
		for r := range rows {
			row := j*rows + r
			to := out[(i*rows+r)*width:][:width]
			for b := range blocks {
				scale, z := scales[row*blocks+b], middle
				if zeros != nil {
					z = zero.at(row, b)
				}
				for l := b * g.block; l < min((b+1)*g.block, width); l++ {
					to[l] = (code.at(row, l) - z) * scale
				}
			}
		}
	}
	return x.one(t, nil)
}
