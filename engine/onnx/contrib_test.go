package onnx_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// flat is a tensor of a case.
type flat struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"`
	Shape []int     `json:"shape"`
	Data  []float64 `json:"data"`
}

func (f *flat) tensor() (*engine.Tensor, error) {
	switch f.Type {
	case "uint8":
		return engine.Of(as[uint8](f.Data), f.Shape...)
	case "int8":
		return engine.Of(as[int8](f.Data), f.Shape...)
	case "int32":
		return engine.Of(as[int32](f.Data), f.Shape...)
	case "int64":
		return engine.Of(as[int64](f.Data), f.Shape...)
	case "int16":
		return engine.Of(as[int16](f.Data), f.Shape...)
	case "uint16":
		return engine.Of(as[uint16](f.Data), f.Shape...)
	case "bool":
		set := make([]bool, len(f.Data))
		for i, v := range f.Data {
			set[i] = v != 0
		}
		return engine.Of(set, f.Shape...)
	}
	return engine.Of(as[float32](f.Data), f.Shape...)
}

func as[T uint8 | int8 | int16 | uint16 | int32 | int64 | float32](v []float64) []T {
	out := make([]T, len(v))
	for i, e := range v {
		out[i] = T(e)
	}
	return out
}

// TestContrib: onnxruntime's own operators answer as it does.
func TestContrib(t *testing.T) {
	answers(t, "testdata/contrib.json.gz", 90)
}

// TestContrib2: so do those of language models, of its optimizer's fusions and of its
// quantiser.
func TestContrib2(t *testing.T) {
	answers(t, "testdata/contrib2.json.gz", 173)
}

// TestGatherBlocks: so do embeddings in 4 and 8 bits.
func TestGatherBlocks(t *testing.T) {
	answers(t, "testdata/gatherblocks.json.gz", 32)
}

// TestOctets: convolutions in 8 bits of all forms give the very bytes that onnxruntime does.
func TestOctets(t *testing.T) {
	answers(t, "testdata/octets.json.gz", 142)
}

// TestResize: of random sizes and scales, the same pixels are read as onnxruntime reads.
func TestResize(t *testing.T) {
	answers(t, "testdata/resize.json.gz", 402)
}

// answers runs an archive's cases, of which there are n.
func answers(t *testing.T, archive string, n int) {
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name    string `json:"name"`
		Model   []byte `json:"model"`
		Inputs  []flat `json:"inputs"`
		Outputs []flat `json:"outputs"`
	}
	if err := json.NewDecoder(z).Decode(&cases); err != nil || len(cases) != n {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			m, err := onnx.Read(c.Model, "")
			if err != nil {
				t.Fatal(err)
			}
			s, err := m.NewSession(engine.SessionOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var in engine.Values
			for _, v := range c.Inputs {
				x, err := v.tensor()
				if err != nil {
					t.Fatal(err)
				}
				in = append(in, engine.Named{Name: v.Name, Tensor: x})
			}
			out, err := s.Run(context.Background(), in, nil)
			if err != nil || len(out) != len(c.Outputs) {
				t.Fatalf("%d outputs, %v", len(out), err)
			}
			for i, want := range c.Outputs {
				got, _ := out[i].Tensor.Float64s()
				if len(got) != len(want.Data) {
					t.Fatalf("%s: %v, want %v", want.Name, out[i].Tensor.Shape(), want.Shape)
				}
				tolerance := 1e-5
				if want.Type != "float32" {
					tolerance = 0
				}
				for k, v := range want.Data {
					if d := math.Abs(got[k] - v); !(d <= tolerance*max(1, math.Abs(v))) {
						t.Errorf("%s[%d]: %v, want %v", want.Name, k, got[k], v)
					}
				}
			}
		})
	}
}

// TestContribRefused: what is not done is refused by name, and a node that lacks what it
// must have is corrupt.
func TestContribRefused(t *testing.T) {
	one := graph.Attr{Kind: graph.AttrInt, Int: 1}
	eight := slices.Repeat([]string{"x"}, 8)
	grouped := []string{"x", "x", "x", "", "", "x", "x"}
	lstm := []string{"x", "x", "x", "", "", "", "", "", "x", "x", "x", "x"}
	for _, c := range []struct {
		op          string
		inputs      []string
		attrs       graph.Attrs
		unsupported bool
	}{
		{"GroupQueryAttention", []string{"x"}, nil, false},
		{"GroupQueryAttention", grouped, graph.Attrs{"num_heads": one, "kv_num_heads": one, "qk_output": one}, true},
		{"GroupQueryAttention", grouped, graph.Attrs{"num_heads": one, "kv_num_heads": one, "k_quant_type": {Kind: graph.AttrString, String: "PER_TENSOR"}}, true},
		{"GroupQueryAttention", append(slices.Clone(grouped), "", "", "", "", "", "x"), graph.Attrs{"num_heads": one, "kv_num_heads": one}, true},
		{"GroupQueryAttention", grouped, graph.Attrs{"num_heads": one}, false},
		{"RotaryEmbedding", []string{"x", "x", "x", "x"}, graph.Attrs{"is_packed_batching": one}, true},
		{"BeamSearch", []string{"x", "x", "x", "x", "x"}, nil, true},
		{"Attention", []string{"x"}, nil, false},
		{"Attention", []string{"x", "x"}, graph.Attrs{"do_rotary": {Kind: graph.AttrInt, Int: 1}}, true},
		{"MultiHeadAttention", []string{"x", "x", "x"}, nil, false},
		{"MultiHeadAttention", []string{"x"}, graph.Attrs{"num_heads": one}, true}, // packed
		{"MultiHeadAttention", []string{"x", "x"}, graph.Attrs{"num_heads": one}, true},
		{"MatMulNBits", []string{"x", "x", "x"}, nil, true}, // no constants
		{"Gelu", []string{"x"}, graph.Attrs{"approximate": {Kind: graph.AttrString, String: "tanh"}}, true},
		{"FusedMatMul", []string{"x", "x"}, graph.Attrs{"transBatchC": one}, true},
		{"FusedConv", []string{"x", "x"}, graph.Attrs{"activation": {Kind: graph.AttrString, String: "Affine"}}, true},
		{"FusedGemm", []string{"x", "x"}, graph.Attrs{"activation": {Kind: graph.AttrString, String: "Relu"}, "activation_alpha": {Kind: graph.AttrFloat, Float: 1}}, true},
		{"CDist", []string{"x", "x"}, graph.Attrs{"metric": {Kind: graph.AttrString, String: "cosine"}}, true},
		{"NhwcMaxPool", []string{"x"}, nil, true},
		{"QLinearConv", eight, graph.Attrs{"channels_last": one}, true},
		{"QAttention", eight[:5], graph.Attrs{"num_heads": one, "do_rotary": one}, true},
		{"DynamicQuantizeLSTM", lstm, graph.Attrs{"hidden_size": one, "clip": {Kind: graph.AttrFloat, Float: 1}}, true},
		{"DynamicQuantizeLSTM", lstm, graph.Attrs{"hidden_size": one, "activations": {Kind: graph.AttrStrings, Strings: []string{"Relu", "Tanh", "Tanh"}}}, true},
		{"DynamicQuantizeLSTM", append(append(slices.Clone(lstm[:4]), "x"), lstm[5:]...), graph.Attrs{"hidden_size": one}, true},
		{"SkipSimplifiedLayerNormalization", []string{"x", "x"}, nil, false},
		{"QLinearSigmoid", []string{"x", "x", "", "x", "x"}, nil, true},
		{"QLinearAveragePool", []string{"x", "x", "x", "x", "x"}, graph.Attrs{"channels_last": {Kind: graph.AttrInt, Int: 1}}, true},
		{"QLinearConcat", []string{"x", "x", "x", "x", "x", "x"}, nil, false},
		{"QGemm", []string{"x", "x", "x", "x", "x", "x"}, graph.Attrs{"alpha": {Kind: graph.AttrFloat, Float: 2}}, true},
		{"QGemm", []string{"x", "x", "x", "x", "x"}, nil, false},
		{"BiasGelu", []string{"x"}, nil, false},
	} {
		file, err := onnx.Encode(&onnx.Made{
			Graph: &graph.Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}}, Outputs: []string{"y"},
				Nodes: []*graph.Node{{Name: "n", Domain: "com.microsoft", Op: c.op, Version: 1, Inputs: c.inputs, Outputs: []string{"y"}, Attrs: c.attrs}},
			},
			Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1, 1}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		// The import of the operator set, which Encode does not write: field 8 of the model.
		file = append(file, "\x42\x11\x0a\x0dcom.microsoft\x10\x01"...)
		_, err = onnx.Read(file, "")
		var unsupported *engine.UnsupportedError
		if errors.As(err, &unsupported) != c.unsupported || errors.Is(err, engine.ErrCorrupt) == c.unsupported {
			t.Errorf("%s: %v", c.op, err)
		}
	}
}
