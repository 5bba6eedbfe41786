package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine"
)

// rounded is v as a half precision type holds it.
func rounded(d engine.DType, v float64) float64 {
	return float64(engine.HalfToFloat32(d, halfBits(d, v)))
}

// halfSoftmax is softmax in half precision. The operator is defined by others, each
// of which rounds what it makes; results differ from those rounded once by more than
// half precision's last digit.
func halfSoftmax(x *Exec, t *engine.Tensor, outer, n, inner int, logs bool) (*engine.Tensor, error) {
	v, err := floats(x, t)
	if err != nil {
		return nil, err
	}
	o, err := x.New(t.DType(), t.Shape()...)
	if err != nil || len(v) == 0 {
		return o, err
	}
	d := t.DType()
	e := x.wide(n)
	for i := range outer {
		for j := range inner {
			line := v[i*n*inner+j:]
			top, sum := math.Inf(-1), 0.0
			for k := range n {
				top = max(top, line[k*inner])
			}
			for k := range n {
				e[k] = rounded(d, math.Exp(rounded(d, line[k*inner]-top)))
				sum += e[k]
				if d == engine.BFloat16 {
					sum = rounded(d, sum)
				}
			}
			sum = rounded(d, sum)
			for k := range n {
				if logs {
					line[k*inner] = rounded(d, line[k*inner]-top) - rounded(d, math.Log(sum))
				} else {
					line[k*inner] = e[k] / sum
				}
			}
		}
	}
	return o, storeFloats(o, v)
}
