package oip

import (
	"math"
	"strconv"
)

// pow10 holds the powers of ten that float64 represents exactly.
var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// quick converts a number whose mantissa and power of ten are both exact in
// float64: then one multiplication or division rounds once, and is the correctly
// rounded value.
func (n *number) quick() (float64, bool) {
	if !n.exact || n.mant > 1<<53 || n.exp < -22 || n.exp > 22 {
		return 0, false
	}
	f := float64(n.mant)
	if n.exp < 0 {
		f /= pow10[-n.exp]
	} else {
		f *= pow10[n.exp]
	}
	if n.neg {
		f = -f
	}
	return f, true
}

// float64 returns the nearest float64; ok is false when that is infinite.
func (n *number) float64() (v float64, ok bool) {
	if v, ok = n.quick(); ok {
		return v, true
	}
	v, err := strconv.ParseFloat(string(n.tok), 64)
	return v, err == nil
}

// float32 returns the nearest float32; ok is false when that is infinite.
func (n *number) float32() (v float32, ok bool) {
	if f, quick := n.quick(); quick {
		// Rounding twice is rounding once unless the float64 lies exactly between
		// two float32, or below the range where their spacing is uniform.
		const half, mask = 1 << 28, 1<<29 - 1
		a := math.Abs(f)
		if math.Float64bits(f)&mask != half && (a == 0 || a >= 0x1p-126) && a < math.MaxFloat32 {
			return float32(f), true
		}
	}
	w, err := strconv.ParseFloat(string(n.tok), 32)
	return float32(w), err == nil
}

// appendFloat appends the shortest decimal that reads back as exactly f in that
// many bits, the way JavaScript writes it. f is finite.
func appendFloat(dst []byte, f float64, bits int) []byte {
	a := math.Abs(f)
	format := byte('f')
	if a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, bits)
	if format == 'e' {
		// e-09 to e-9
		if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
	}
	return dst
}
