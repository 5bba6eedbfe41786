package table

import (
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// Halves returns the inputs with numbers where the model takes half precision made that,
// to the nearest: no file of rows holds halves, and an array may have any precision. What
// is no number, or is finite and beyond the type's range, is refused by an
// *engine.InputError.
func Halves(info *engine.Info, in engine.Values) (engine.Values, error) {
	out := slices.Clone(in)
	for i, v := range in {
		spec := specOf(info, v.Name)
		if spec == nil || spec.DType != engine.Float16 && spec.DType != engine.BFloat16 || spec.DType == v.Tensor.DType() {
			continue
		}
		wide, ok := v.Tensor.Float64s()
		if !ok {
			return nil, &engine.InputError{Input: v.Name, Reason: "type " + v.Tensor.DType().String() + " is not the model's " + spec.DType.String()}
		}
		p := vector.Half
		if spec.DType == engine.BFloat16 {
			p = vector.Brain
		}
		bits := make([]uint16, len(wide))
		for k, f := range wide {
			bits[k] = halfBits(p, f)
			if math.IsInf(float64(p.Value(bits[k])), 0) && !math.IsInf(f, 0) {
				return nil, &engine.InputError{Input: v.Name, Reason: "a value is too large for " + spec.DType.String()}
			}
		}
		t, err := engine.OfBits(spec.DType, bits, v.Tensor.Shape()...)
		if err != nil {
			return nil, err
		}
		out[i].Tensor = t
	}
	return out, nil
}

func specOf(info *engine.Info, name string) *engine.Spec {
	for i := range info.Inputs {
		if info.Inputs[i].Name == name {
			return &info.Inputs[i]
		}
	}
	return nil
}

// halfBits are those of the half next to v. On the way float32 is rounded to odd, so that
// v is rounded once: the last digit says on which side of a half's middle it lies.
func halfBits(p vector.Precision, v float64) uint16 {
	f := float32(v)
	b := math.Float32bits(f)
	if v == v && float64(f) != v && b&1 == 0 {
		if math.Abs(float64(f)) > math.Abs(v) {
			b--
		} else {
			b++
		}
	}
	return p.Bits(math.Float32frombits(b))
}
