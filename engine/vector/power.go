package vector

import "math"

// power has no kernel: it is computed in float64, element by element.
const power = unaries

// Power is v to the power of an exponent, as math.Pow has it: of a number below 0 NaN
// unless the exponent is whole.
func Power(exponent float32) *Function {
	switch exponent {
	case -1:
		return Reciprocal
	default:
		return &Function{power, [5]float32{exponent}}
	}
}

func (f *Function) power(dst, src []float32) {
	dst = dst[:len(src)]
	switch p := float64(f.params[0]); p {
	case 2:
		Binary(Mul, dst, src, src)
	case 3:
		for i, e := range src {
			v := float64(e)
			dst[i] = float32(v * v * v)
		}
	case 4:
		for i, e := range src {
			v := float64(e) * float64(e)
			dst[i] = float32(v * v)
		}
	case 0.5:
		for i, e := range src {
			if e == float32(math.Inf(-1)) {
				e = -e
			}
			dst[i] = float32(math.Sqrt(float64(e))) + 0 // of zeros the positive one
		}
	default:
		for i, e := range src {
			dst[i] = float32(powerOf(float64(e), p))
		}
	}
}

// powerOf is math.Pow, which for numbers above 0 takes twice as long. What a logarithm's
// error makes of the result is far below float32.
func powerOf(v, p float64) float64 {
	if v > 0 && p != 0 && !math.IsInf(p, 0) && p == p {
		return math.Exp(p * math.Log(v))
	}
	return math.Pow(v, p)
}
