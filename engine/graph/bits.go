package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine"
)

// bitFunc is a function of two integers bit by bit. A shift by more bits than there
// are, or by fewer than none, leaves what the sign fills in.
func bitFunc[T signed | unsigned](op string, width uint64) func(a, b T) T {
	switch op {
	case "BitwiseAnd":
		return func(a, b T) T { return a & b }
	case "BitwiseOr":
		return func(a, b T) T { return a | b }
	case "BitwiseXor":
		return func(a, b T) T { return a ^ b }
	case "LEFT":
		return func(a, b T) T {
			if b < 0 || uint64(b) >= width {
				return 0
			}
			return a << uint64(b)
		}
	}
	return func(a, b T) T {
		if b < 0 || uint64(b) >= width {
			return a >> (width - 1) >> 1
		}
		return a >> uint64(b)
	}
}

func zippedBits[T signed | unsigned](op string, width uint64) zipped {
	return zippedOf(bitFunc[T](op, width))
}

func bitsOf(op string) []zipped {
	return []zipped{
		engine.Int64: zippedBits[int64](op, 64), engine.Int32: zippedBits[int32](op, 32), engine.Int16: zippedBits[int16](op, 16), engine.Int8: zippedBits[int8](op, 8),
		engine.Uint64: zippedBits[uint64](op, 64), engine.Uint32: zippedBits[uint32](op, 32), engine.Uint16: zippedBits[uint16](op, 16), engine.Uint8: zippedBits[uint8](op, 8),
	}
}

func bitKernel(op string) Kernel {
	list := bitsOf(op)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(by(list, x, in[0], in[1]))
	}
}

func bitwise(op string) opDef {
	kernel := bitKernel(op)
	return opDef{since: 18, minIn: 2, maxIn: 2, maxOut: 1, accept: intTypes, build: func(*builder) (Kernel, error) { return kernel, nil }}
}

func buildBitShift(b *builder) (Kernel, error) {
	direction := b.attrs.string("direction", "")
	if direction != "LEFT" && direction != "RIGHT" {
		return nil, b.node.corrupt("direction %q", direction)
	}
	return bitKernel(direction), nil
}

// buildBitwiseNot is an exclusive or with all bits.
func buildBitwiseNot(*builder) (Kernel, error) {
	xor, all := bitsOf("BitwiseXor"), [...]int64{-1}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		ones, err := x.New(in[0].DType())
		if err != nil {
			return nil, err
		}
		storeInts(ones, all[:])
		return x.one(by(xor, x, in[0], ones))
	}, nil
}

// floorMod is the remainder that has the divisor's sign, as Python's is.
func floorMod(a, b float64) float64 {
	r := math.Mod(a, b)
	switch {
	case r == 0:
		return math.Copysign(0, b)
	case (r < 0) != (b < 0):
		return r + b
	}
	return r
}

func init() {
	register(DomainONNX, map[string]opDef{
		"BitwiseAnd": bitwise("BitwiseAnd"), "BitwiseOr": bitwise("BitwiseOr"), "BitwiseXor": bitwise("BitwiseXor"),
		"BitwiseNot": {since: 18, minIn: 1, maxIn: 1, maxOut: 1, accept: intTypes, build: buildBitwiseNot},
		"BitShift":   {since: 11, minIn: 2, maxIn: 2, maxOut: 1, accept: intTypes, build: buildBitShift},
	})
}
