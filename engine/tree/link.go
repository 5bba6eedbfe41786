package tree

import (
	"math"
	"slices"
)

type float interface{ float32 | float64 }

func (l Link) known() bool {
	switch l {
	case LinkIdentity, LinkSigmoid, LinkSoftmax, LinkExp, LinkProbit, LinkArgmax,
		LinkStep, LinkLog1pExp, LinkSquare, LinkSigmoidEach, LinkSorted, LinkSoftplusSum, LinkMeanVariance:
		return true
	}
	return false
}

// Width returns the number of predictions a row of k margins becomes.
func (l Link) Width(k int) int {
	if l == LinkArgmax {
		return 1
	}
	return k
}

// Apply turns the margins of whole rows, k each, into predictions in place and
// returns them: the same slice, or its head where Width is smaller than k. In
// float32 it takes the steps XGBoost takes, in float64 those of LightGBM, so
// that the last bits agree as well. scale is the slope of a sigmoid, 0 meaning 1.
func Apply[T float32 | float64](l Link, scale float64, margins []T, k int) []T {
	if scale == 0 {
		scale = 1
	}
	each := func(f func(T) T) []T {
		for i, m := range margins {
			margins[i] = f(m)
		}
		return margins
	}
	switch l {
	case LinkSigmoid, LinkSigmoidEach:
		return each(func(m T) T { return sigmoid(m, T(scale)) })
	case LinkExp:
		return each(exp[T])
	case LinkProbit:
		return each(func(m T) T { return T(0.5 * math.Erfc(-float64(m)/math.Sqrt2)) })
	case LinkStep:
		return each(step[T])
	case LinkLog1pExp:
		return each(func(m T) T { return T(math.Log1p(math.Exp(float64(m)))) })
	case LinkSquare:
		return each(func(m T) T { return T(math.Copysign(float64(m*m), float64(m))) })
	case LinkSoftmax:
		for i := 0; i+k <= len(margins); i += k {
			softmax(margins[i : i+k])
		}
	case LinkSorted:
		for i := 0; i+k <= len(margins); i += k {
			slices.Sort(margins[i : i+k])
		}
	case LinkSoftplusSum:
		for i := 0; i+k <= len(margins); i += k {
			softplusSum(margins[i : i+k])
		}
	case LinkMeanVariance:
		for i := 1; i < len(margins); i += 2 {
			margins[i] = exp(2 * margins[i])
		}
	case LinkArgmax:
		rows := len(margins) / k
		for r := range rows {
			margins[r] = T(argmax(margins[r*k : r*k+k]))
		}
		return margins[:rows]
	}
	return margins
}

func exp[T float](x T) T { return T(math.Exp(float64(x))) }

func step[T float](m T) T {
	if m > 0 {
		return 1
	}
	return 0
}

func sigmoid[T float](m, scale T) T {
	if isFloat32(m) {
		// XGBoost caps the exponent so that exp stays finite, and its answer
		// stays above zero.
		x := min(-m*scale, 88.7)
		return 1 / (exp(x) + 1 + 1e-16)
	}
	return 1 / (1 + exp(-scale*m))
}

func isFloat32[T float](T) bool {
	var v any = T(0)
	_, ok := v.(float32)
	return ok
}

// softmax sums in float64 in both precisions, as both libraries do.
func softmax[T float](m []T) {
	top := m[0]
	for _, v := range m[1:] {
		top = max(top, v)
	}
	sum := 0.0
	for i, v := range m {
		m[i] = exp(v - top)
		sum += float64(m[i])
	}
	for i := range m {
		m[i] /= T(sum)
	}
}

func softplusSum[T float](m []T) {
	for i := 1; i < len(m); i++ {
		x := float64(m[i])
		m[i] = m[i-1] + T(StepFloor) + T(max(x, 0)+math.Log1p(math.Exp(-math.Abs(x))))
	}
}

func argmax[T float](m []T) int {
	best := 0
	for i, v := range m {
		if v > m[best] {
			best = i
		}
	}
	return best
}
