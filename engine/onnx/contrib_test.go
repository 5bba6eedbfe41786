package onnx_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// flat is a float32 tensor of a case.
type flat struct {
	Name  string    `json:"name"`
	Shape []int     `json:"shape"`
	Data  []float32 `json:"data"`
}

// TestContrib: onnxruntime's own operators answer as it does.
func TestContrib(t *testing.T) {
	f, err := os.Open("testdata/contrib.json.gz")
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
	if err := json.NewDecoder(z).Decode(&cases); err != nil || len(cases) != 16 {
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
				x, err := engine.Of(v.Data, v.Shape...)
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
				got := engine.Data[float32](out[i].Tensor)
				if len(got) != len(want.Data) {
					t.Fatalf("%s: %v, want %v", want.Name, out[i].Tensor.Shape(), want.Shape)
				}
				for k, v := range want.Data {
					if d := math.Abs(float64(got[k] - v)); !(d <= 1e-5*max(1, math.Abs(float64(v)))) {
						t.Errorf("%s[%d]: %v, want %v", want.Name, k, got[k], v)
					}
				}
			}
		})
	}
}
