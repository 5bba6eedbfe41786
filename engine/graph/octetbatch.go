package graph

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
	"github.com/pellucid/pellucid/engine/vector"
)

// exactDepth is up to how many products of two differences of bytes a sum in float32 is
// exact, in whatever order: none is above 2^24.
const exactDepth = 1 << 24 / (255 * 255)

// differences are the bytes of t less a zero point, as floats.
func differences(x *Exec, t *engine.Tensor, zero int32) (*engine.Tensor, error) {
	v, shift, err := unsignedOctets(x, t)
	if err != nil {
		return nil, err
	}
	o, out, err := rawOf[float32](x, t.Shape()...)
	if err != nil {
		return nil, err
	}
	steps := qgemm.Scale{Scale: 1, Zero: float32(zero + shift)}
	x.parts(len(v), func(from, to int) { qgemm.ToFloats(out[from:to], v[from:to], steps) })
	return o, nil
}

// exactProducts are the sums of a x b of bytes less one zero point each, of which neither is
// a constant matrix, as attention has them: in float32, which is exact where ok is true.
func exactProducts(x *Exec, a, za, b, zb *engine.Tensor) (y *engine.Tensor, ok bool, err error) {
	zeroA, oneA := oneZero(za)
	zeroB, oneB := oneZero(zb)
	if !isOctet(a.DType()) || !isOctet(b.DType()) || !oneA || !oneB || a.Len() == 0 || b.Len() == 0 || len(a.Shape()) < 2 || len(b.Shape()) < 2 {
		return nil, false, nil
	}
	if k := a.Shape()[len(a.Shape())-1]; k > exactDepth {
		return nil, false, nil
	}
	wideA, err := differences(x, a, zeroA)
	if err != nil {
		return nil, false, err
	}
	wideB, err := differences(x, b, zeroB)
	if err != nil {
		return nil, false, err
	}
	y, err = runMatMul[float32](x, nil, wideA, wideB)
	return y, err == nil, err
}

// batchedProduct is QLinearMatMul of such operands with one scale each; ok is false
// elsewhere.
func batchedProduct(x *Exec, in []*engine.Tensor) (t *engine.Tensor, ok bool, err error) {
	if in[1].Len() != 1 || in[4].Len() != 1 || in[6].Len() != 1 || !isOctet(in[7].DType()) {
		return nil, false, nil
	}
	y, ok, err := exactProducts(x, in[0], in[2], in[3], in[5])
	if err != nil || !ok {
		return nil, false, err
	}
	f, err := requantise(in[1], in[4], in[6], in[7], 1)
	if err != nil {
		return nil, false, err
	}
	if t, err = x.make(in[7].DType(), y.Shape(), false); err != nil {
		return nil, false, err
	}
	v, out := engine.Data[float32](y), octetsOf(t)
	steps, flip := qgemm.Scale{Scale: 1, Zero: float32(f.Zero)}, t.DType() == engine.Int8
	if flip {
		steps.Zero += 128
	}
	x.parts(len(v), func(from, to int) {
		vector.Binary(vector.Mul, v[from:to], v[from:to], f.Scale)
		qgemm.ToBytes(out[from:to], v[from:to], steps)
		if flip {
			for i, b := range out[from:to] {
				out[from+i] = b ^ 0x80
			}
		}
	})
	return t, true, nil
}
