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

// TestInputsOfTwoLengths: flat inputs whose lengths the file calls by two names are no columns,
// which have one length.
func TestInputsOfTwoLengths(t *testing.T) {
	value := func(name, batch string) []byte {
		dim := append([]byte{0x12, byte(len(batch))}, batch...) // dim_param
		shape := append([]byte{0x0a, byte(len(dim))}, dim...)
		tensor := append([]byte{0x08, 1, 0x12, byte(len(shape))}, shape...) // FLOAT
		kind := append([]byte{0x0a, byte(len(tensor))}, tensor...)
		return append(append([]byte{0x0a, byte(len(name))}, name...), append([]byte{0x12, byte(len(kind))}, kind...)...)
	}
	for _, c := range []struct {
		batches []string
		apart   bool
	}{{[]string{"n", "k"}, true}, {[]string{"n", "n"}, false}, {[]string{"n", ""}, false}, {[]string{"unk__1", "unk__2"}, false}, {[]string{"", "n", "k"}, true}} {
		p := &modelProto{graph: &graphProto{}}
		for i, batch := range c.batches {
			v, err := decodeValue(value(string(rune('a'+i)), batch))
			if err != nil {
				t.Fatal(err)
			}
			p.graph.inputs = append(p.graph.inputs, v)
		}
		if got := p.apart(); got != c.apart {
			t.Errorf("%q: %t", c.batches, got)
		}
	}
}
