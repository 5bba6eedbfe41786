package table

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestHalves: numbers become the halves that NumPy's astype(float16) makes of them, rounded
// once; a number beyond them and text are refused.
func TestHalves(t *testing.T) {
	numbers := []float64{
		1 + 0x1p-11, 1 + 0x1p-11 + 0x1p-40, 1 + 3*0x1p-11, 1 + 3*0x1p-11 - 0x1p-40, 65504, 65519.99999999, math.Copysign(0, -1), 1e-8,
		0x1p-25, 0x1p-25 + 0x1p-65, 0.1, -1.0 / 3, 5e-324, math.Inf(1),
	}
	want := []uint16{0x3c00, 0x3c01, 0x3c02, 0x3c01, 0x7bff, 0x7bff, 0x8000, 0, 0, 1, 0x2e66, 0xb555, 0, 0x7c00}
	info := &engine.Info{Inputs: []engine.Spec{{Name: "x", DType: engine.Float16, Shape: []int{-1}}, {Name: "y", DType: engine.Float32, Shape: []int{-1}}}}
	x, err := engine.Of(numbers, len(numbers))
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: x}, {Name: "y", Tensor: x}}
	out, err := Halves(info, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := engine.Data[uint16](out[0].Tensor); !slices.Equal(got, want) || out[0].Tensor.DType() != engine.Float16 {
		t.Errorf("%#x, want %#x", got, want)
	}
	if out[1].Tensor != x || in[0].Tensor != x {
		t.Error("what is no half, or the caller's, was changed")
	}
	for _, bad := range []*engine.Tensor{of(t, []float64{65520}), of(t, []float64{-1e300}), of(t, []string{"1"})} {
		var refused *engine.InputError
		if _, err := Halves(info, engine.Values{{Name: "x", Tensor: bad}}); !errors.As(err, &refused) {
			t.Errorf("%s: %v", bad.DType(), err)
		}
	}
}

func of[T engine.Element](t *testing.T, v []T) *engine.Tensor {
	t.Helper()
	x, err := engine.Of(v, len(v))
	if err != nil {
		t.Fatal(err)
	}
	return x
}
