package engine_test

import (
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestNumbersAsCategories is the one rule of what a number means to a feature whose
// categories have names: a value where any of them is a number, else a code.
func TestNumbersAsCategories(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name       string
		categories []string
		column     any
		want       []float64
	}{
		{"integers", []string{"100", "-7", "0", "3"}, []int64{3, -7, 0, 100, 1}, []float64{3, 1, 2, 0, nan}},
		{"floats for integers", []string{"100", "-7", "0", "3"}, []float64{3, -7, math.Copysign(0, -1), 1e2, 2.5, nan}, []float64{3, 1, 2, 0, nan, nan}},
		{"bytes", []string{"100", "3"}, []uint8{3, 100, 0}, []float64{1, 0, nan}},
		{"unsigned", []string{"18446744073709551615", "3"}, []uint64{math.MaxUint64, 3, 1 << 63}, []float64{0, 1, nan}},
		{"beyond float64", []string{"9007199254740993", "9007199254740992"}, []int64{9007199254740993, 9007199254740992, 9007199254740994}, []float64{0, 1, nan}},
		{"single", []string{"0.1", "0.25"}, []float32{0.1, 0.25, 0.5}, []float64{0, 1, nan}},
		{"by value", []string{"0100", "2.0"}, []int64{100, 2}, []float64{0, 1}},
		{"which is meant", []string{"01", "1.0", "1e1", "10"}, []int64{1, 10}, []float64{nan, 3}},
		{"some are text", []string{"other", "1", "2"}, []int64{1, 2, 0}, []float64{1, 2, nan}},
		{"truths", []string{"True", "False"}, []bool{true, false}, []float64{0, 1}},
		{"truths as numbers", []string{"True", "False"}, []int32{1, 0, 2}, []float64{0, 1, nan}},
		{"text", []string{"red", "True", "inf", "nan"}, []int64{1, 3, 0}, []float64{1, 3, 0}},
		{"none", nil, []int64{1, 3, 0}, []float64{1, 3, 0}},
	} {
		for _, rows := range []int{1, 40} { // looked up one by one, and by a map
			info := &engine.Info{
				Format: "lightgbm", Missing: true, Inputs: []engine.Spec{{Name: "input", DType: engine.Float64, Shape: []int{-1, 1}}},
				Features: []engine.Feature{{Name: "c", Categorical: true, Categories: tt.categories}},
			}
			for i, want := range tt.want {
				in, _, err := engine.Bind(info, engine.Values{{Name: "c", Tensor: repeated(t, tt.column, i, rows)}})
				if err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				got := engine.Data[float64](in[0].Tensor)[rows-1]
				if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
					t.Errorf("%s: element %d of %d rows is %v, want %v", tt.name, i, rows, got, want)
				}
			}
		}
	}
}

// repeated is a column of one element of a list, n times.
func repeated(t *testing.T, list any, i, n int) *engine.Tensor {
	t.Helper()
	switch v := list.(type) {
	case []int64:
		return copies(t, v[i], n)
	case []int32:
		return copies(t, v[i], n)
	case []uint64:
		return copies(t, v[i], n)
	case []uint8:
		return copies(t, v[i], n)
	case []float64:
		return copies(t, v[i], n)
	case []float32:
		return copies(t, v[i], n)
	case []bool:
		return copies(t, v[i], n)
	}
	t.Fatalf("no column of %T", list)
	return nil
}

func copies[T engine.Element](t *testing.T, v T, n int) *engine.Tensor {
	t.Helper()
	list := make([]T, n)
	for i := range list {
		list[i] = v
	}
	return tensor(t, list, n)
}
