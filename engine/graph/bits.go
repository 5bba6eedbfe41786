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

func zipBits[T signed | unsigned](x *Exec, a, b *engine.Tensor, op string) ([]*engine.Tensor, error) {
	return one(zip(x, a, b, bitFunc[T](op, uint64(a.DType().Bits()))))
}

func bitKernel(op string) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a, b := in[0], in[1]
		switch a.DType() {
		case engine.Int64:
			return zipBits[int64](x, a, b, op)
		case engine.Int32:
			return zipBits[int32](x, a, b, op)
		case engine.Int16:
			return zipBits[int16](x, a, b, op)
		case engine.Int8:
			return zipBits[int8](x, a, b, op)
		case engine.Uint64:
			return zipBits[uint64](x, a, b, op)
		case engine.Uint32:
			return zipBits[uint32](x, a, b, op)
		case engine.Uint16:
			return zipBits[uint16](x, a, b, op)
		case engine.Uint8:
			return zipBits[uint8](x, a, b, op)
		}
		return nil, typeError(a)
	}
}

func bitwise(op string) opDef {
	return opDef{since: 18, minIn: 2, maxIn: 2, maxOut: 1, accept: intTypes, build: func(*builder) (Kernel, error) { return bitKernel(op), nil }}
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
	xor := bitKernel("BitwiseXor")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		ones, err := x.New(in[0].DType())
		if err != nil {
			return nil, err
		}
		storeInts(ones, []int64{-1})
		return xor(x, []*engine.Tensor{in[0], ones})
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
