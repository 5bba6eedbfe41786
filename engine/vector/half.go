package vector

import "math"

// Precision is one of the two forms of a number in 16 bits.
type Precision int

// Half has 11 bits of precision and reaches to 65504, Brain has 8 and reaches as far as
// float32.
const (
	Half Precision = iota
	Brain
)

// Value is the number that 16 bits are, exactly.
func (p Precision) Value(bits uint16) float32 {
	if p == Brain {
		return math.Float32frombits(uint32(bits) << 16)
	}
	sign, rest := uint32(bits>>15)<<31, uint32(bits&0x7fff)
	switch {
	case rest > 0x7c00: // no number: made a quiet one, as processors do
		return math.Float32frombits(sign | 0x7fc00000 | rest<<13)
	case rest == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	case rest >= 0x400:
		return math.Float32frombits(sign | (rest<<13 + 112<<23))
	}
	// Zero or subnormal: a multiple of 2^-24 is exact in float32.
	return math.Float32frombits(sign | math.Float32bits(float32(rest)/(1<<24)))
}

// Bits are those of the number next to v, ties to even.
func (p Precision) Bits(v float32) uint16 {
	b := math.Float32bits(v)
	if p == Brain {
		if v != v {
			return uint16(b>>16) | 0x40
		}
		return uint16((b + 0x7fff + b>>16&1) >> 16)
	}
	sign, a := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case a > 0x7f800000:
		return sign | 0x7e00 | uint16(a>>13&0x3ff)
	case a >= 0x477ff000: // from 65520 on the next would be 65536
		return sign | 0x7c00
	case a < 0x38800000: // below 2^-14 lie multiples of 2^-24, as they do just above 1/2 in float32
		return sign | uint16(math.Float32bits(math.Float32frombits(a)+0.5)-0x3f000000)
	}
	return sign | uint16((a+0xfff+a>>13&1)>>13-112<<10)
}

// Rounded is v as 16 bits hold it.
func Rounded(p Precision) *Function {
	if p == Brain {
		return roundedBrain
	}
	return roundedHalf
}

var roundedHalf, roundedBrain = &Function{kind: toHalf}, &Function{kind: toBrain}

// halves are the kernels of a precision, for whole vectors.
type halves struct {
	widen  func(dst *float32, src *uint16, n int)
	narrow func(dst *uint16, src *float32, n int)
}

// Widen is dst = src, element by element, exactly.
func Widen(p Precision, dst []float32, src []uint16) {
	if len(dst) != len(src) {
		panic("vector: slices of different lengths")
	}
	whole := 0
	if kernels != nil {
		if whole = len(src) / kernels.lanes * kernels.lanes; whole > 0 {
			kernels.halves[p].widen(&dst[0], &src[0], whole)
		}
	}
	for i, b := range src[whole:] {
		dst[whole+i] = p.Value(b)
	}
}

// Narrow is dst = src, each rounded to the nearest, ties to even.
func Narrow(p Precision, dst []uint16, src []float32) {
	if len(dst) != len(src) {
		panic("vector: slices of different lengths")
	}
	whole := 0
	if kernels != nil {
		if whole = len(src) / kernels.lanes * kernels.lanes; whole > 0 {
			kernels.halves[p].narrow(&dst[0], &src[0], whole)
		}
	}
	for i, v := range src[whole:] {
		dst[whole+i] = p.Bits(v)
	}
}
