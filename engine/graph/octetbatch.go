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
	quickFloats(x, v, out, 1, float32(zero+shift))
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
	var scales [3]float64
	for i, at := range [3]int{1, 4, 6} {
		if scales[i], err = scalarOf(in[at]); err != nil {
			return nil, false, err
		}
	}
	zero, one := oneZero(in[7])
	if !one {
		return nil, false, nil
	}
	if t, err = x.make(in[7].DType(), y.Shape(), false); err != nil {
		return nil, false, err
	}
	v, out := engine.Data[float32](y), octetsOf(t)
	steps, flip := qgemm.Scale{Scale: 1, Zero: float32(zero)}, t.DType() == engine.Int8
	if flip {
		steps.Zero += 128
	}
	share(x, x.inParts(len(v)), len(v), requantising{out, v, [1]float32{onlyScale(scales[0], scales[1], scales[2])}, steps, flip})
	return t, true, nil
}

// requantising is sums, times a factor, that become bytes, which flip makes signed.
type requantising struct {
	out   []uint8
	v     []float32
	by    [1]float32
	steps qgemm.Scale
	flip  bool
}

func (w *requantising) part(from, to int) {
	v, out := w.v[from:to], w.out[from:to]
	vector.Binary(vector.Mul, v, v, w.by[:])
	qgemm.ToBytes(out, v, w.steps)
	if w.flip {
		for i, b := range out {
			out[i] = b ^ 0x80
		}
	}
}
