package golden

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestSmallOutputsAreCompared: outputs are held to what their own size allows, so that small
// ones are not all alike, and what is left of large ones is.
func TestSmallOutputsAreCompared(t *testing.T) {
	for name, c := range map[string]struct {
		got, want []float64
		same      bool
	}{
		"the same":           {[]float64{1e-4, -2e-4}, []float64{1e-4, -2e-4}, true},
		"small and negated":  {[]float64{-1e-4}, []float64{1e-4}, false},
		"small and nothing":  {[]float64{1e-4, 2e-5}, []float64{0, 0}, false},
		"small, off by 1 %":  {[]float64{1.01e-2}, []float64{1e-2}, false},
		"small, off by 1e-4": {[]float64{1.0001e-2}, []float64{1e-2}, true},
		"left of large ones": {[]float64{1, 9e-4}, []float64{1, 0}, true},
		"beside huge ones":   {[]float64{1e6, 2e-3}, []float64{1e6, 0}, false},
		"huge":               {[]float64{1.0005e6}, []float64{1e6}, true},
		"nothing":            {[]float64{5e-8}, []float64{0}, true},
	} {
		err := Compare(tensor(t, c.got), tensor(t, c.want))
		if (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func tensor(t *testing.T, values []float64) *engine.Tensor {
	t.Helper()
	x, err := engine.New(engine.Float64, len(values))
	if err != nil {
		t.Fatal(err)
	}
	copy(engine.Data[float64](x), values)
	return x
}
