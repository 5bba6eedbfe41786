package onnx

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestFixedBatchHasNoFeatures: several rows that are always asked together are one
// request, of which no column is one value.
func TestFixedBatchHasNoFeatures(t *testing.T) {
	for _, c := range []struct {
		shape []int
		want  int
	}{{[]int{-1, 5}, 5}, {[]int{1, 5}, 5}, {[]int{2, 5}, 0}, {[]int{0, 5}, 0}, {[]int{7}, 0}, {[]int{-1}, 1}, {[]int{1}, 1}, {[]int{3, 1}, 0}} {
		if got := len(features([]engine.Spec{{Name: "x", DType: engine.Float32, Shape: c.shape}}, nil)); got != c.want {
			t.Errorf("%v: %d features", c.shape, got)
		}
	}
}
