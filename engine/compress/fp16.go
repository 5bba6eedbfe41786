package compress

import (
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// castOpset is the first operator set whose Cast names its type by a number.
const castOpset = 6

// The numbers of element types in TensorProto.DataType.
const (
	onnxFloat  = 1
	onnxDouble = 11
)

// derivedCost is about what a node and a second name take in the file, besides the
// name's own length.
const derivedCost = 48

// fp16 keeps each weight in half precision, and casts it back to its own type where it
// is read: any runtime runs that, and the arithmetic stays what it was. Weights that
// half precision cannot hold, and those that a cast would make larger, stay.
func fp16(in Input) (*Result, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	if f.Opset("") < castOpset {
		return nil, refuse("the file imports operator set %d of ai.onnx, and weights are cast since %d", f.Opset(""), castOpset)
	}
	graphs, err := f.Graphs()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	floats, large := 0, 0
	scales := scalesOf(graphs)
	for _, g := range graphs {
		n, over, err := halve(g, scales, r)
		if err != nil {
			return nil, err
		}
		floats, large = floats+n, large+over
	}
	if len(r.Changes) == 0 {
		switch {
		case floats == 0:
			return nil, refuse("the graphs hold no float weights (what ai.onnx.ml's operators hold in attributes has no half form)")
		case large > 0:
			return nil, refuse("no weight fits half precision, which ends at 65504")
		}
		return nil, refuse("no weight is large enough to become smaller: each takes a Cast of about %d bytes", derivedCost)
	}
	r.Data, err = f.Bytes()
	return r, err
}

// halve keeps the weights of one graph in half precision; floats are those it has, large
// those that do not fit.
func halve(g *onnx.File, scales map[*onnx.Weight]bool, r *Result) (floats, large int, err error) {
	for _, w := range g.Weights() {
		if w.DType != engine.Float32 && w.DType != engine.Float64 || scales[w] {
			continue
		}
		floats++
		if w.Len*(w.DType.Size()-2) <= derivedCost+2*len(w.Name) {
			continue
		}
		t, err := w.Value()
		if err != nil {
			return 0, 0, err
		}
		bits, lost, fits := halves(t)
		if !fits {
			large++
			r.note("%s stays %s: half precision ends at 65504", w.Name, w.DType)
			continue
		}
		name := w.Name
		if err := castWeight(g, w, bits); err != nil {
			return 0, 0, err
		}
		r.change(name, "%d elements of %s kept as FP16%s", t.Len(), t.DType(), lostText(lost))
	}
	return floats, large, nil
}

// scalesOf finds the scales of quantised tensors: often too small for half precision,
// and multiplied with many numbers.
func scalesOf(graphs []*onnx.File) map[*onnx.Weight]bool {
	out := map[*onnx.Weight]bool{}
	for _, g := range graphs {
		for _, n := range g.Nodes() {
			if n.Domain == "" && (n.Op == "DequantizeLinear" || n.Op == "QuantizeLinear") && len(n.Inputs) > 1 {
				out[g.Weight(n.Inputs[1])] = true
			}
		}
	}
	return out
}

func lostText(lost int) string {
	switch lost {
	case 0:
		return ""
	case 1:
		return "; 1 was too small and is 0"
	}
	return ", of which " + count(lost, "was", "were") + " too small and 0 now"
}

func castWeight(f *onnx.File, w *onnx.Weight, bits []uint16) error {
	to := int64(onnxFloat)
	if w.DType == engine.Float64 {
		to = onnxDouble
	}
	t, err := engine.OfBits(engine.Float16, bits, w.Shape...)
	if err != nil {
		return err
	}
	return f.Derive(w, "/fp16", t, func(from, name string) []onnx.NewNode {
		return []onnx.NewNode{{Name: f.Fresh(name + "/cast"), Op: "Cast", Inputs: []string{from}, Outputs: []string{name}, Ints: map[string]int64{"to": to}}}
	})
}

// halves rounds a float tensor to half precision. lost counts those that became
// zero; fits is false where a finite one would become infinite.
func halves(t *engine.Tensor) (bits []uint16, lost int, fits bool) {
	v, _ := t.Float64s()
	bits = make([]uint16, len(v))
	for i, x := range v {
		bits[i] = half(x)
		if bits[i]&0x7fff == 0x7c00 && !math.IsInf(x, 0) {
			return nil, 0, false
		}
		if bits[i]&0x7fff == 0 && x != 0 {
			lost++
		}
	}
	return bits, lost, true
}

// half rounds to the nearest half-precision number, ties to even.
func half(x float64) uint16 {
	sign := uint16(0)
	if math.Signbit(x) {
		sign = 0x8000
	}
	a := math.Abs(x)
	switch {
	case a != a:
		return sign | 0x7e00
	case a >= 65520:
		return sign | 0x7c00
	case a < 1.0/(1<<14):
		return sign | uint16(math.RoundToEven(a*(1<<24)))
	}
	frac, exp := math.Frexp(a) // a = frac * 2^exp, frac in [0.5, 1)
	m := uint16(math.RoundToEven(frac * 2048))
	// A mantissa rounded up to 2048 carries into the exponent by itself.
	return sign | (uint16(exp+13)<<10 + m)
}
