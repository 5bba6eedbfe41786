package onnx_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// exported is a model that one of the field's exporters wrote: with what onnxruntime answers,
// what the library computes (none where the exporter writes something else), and its gradients.
type exported struct {
	edge
	Library   [][]byte `json:"library"`
	Gradients []struct {
		Output string `json:"output"`
		Input  string `json:"input"`
		Index  int    `json:"index"`
		Values []byte `json:"values"`
	} `json:"gradients"`
}

// exporters are the archives of testdata by name, with how many cases each has.
var exporters = map[string]int{"keras": 117, "paddle": 60, "hummingbird": 35, "jax": 35, "flow": 32}

// TestExporters: what Keras, PaddlePaddle, Hummingbird, JAX and PyTorch's control flow are
// written as answers as in onnxruntime, in its types and shapes, and as the library does.
func TestExporters(t *testing.T) {
	for name := range exporters {
		cases := exportedBy(t, name)
		for i := range cases {
			if err := cases[i].compare(t); err != nil {
				t.Errorf("%s: %s: %v", name, cases[i].Name, err)
			}
		}
	}
}

func exportedBy(t *testing.T, name string) []exported {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []exported
	if err := json.NewDecoder(z).Decode(&cases); err != nil || len(cases) != exporters[name] {
		t.Fatalf("%s: %d cases, want %d, %v", name, len(cases), exporters[name], err)
	}
	return cases
}

// TestOptionalInput: an optional input behind the others is none of those that a server
// asks for, and is refused where one comes.
func TestOptionalInput(t *testing.T) {
	cases := exportedBy(t, "flow")
	c := &cases[slices.IndexFunc(cases, func(c exported) bool { return c.Name == "optional given" })]
	m, err := onnx.Read(c.Model, "")
	if err != nil {
		t.Fatal(err)
	}
	info := m.Info()
	if len(info.Inputs) != 1 || info.Inputs[0].Name != "x" || len(info.Optional) != 1 || info.Optional[0].Name != "y" {
		t.Fatalf("inputs %v, optional %v", info.Inputs, info.Optional)
	}
	in, err := tensors(c.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := engine.Bind(info, in[:1]); err != nil {
		t.Error(err)
	}
	var refused *engine.InputError
	if _, _, err := engine.Bind(info, in); !errors.As(err, &refused) || refused.Input != "y" {
		t.Errorf("error %v, want one of y", err)
	}
}

func (c *exported) compare(t *testing.T) error {
	s, in, got, err := c.run(t)
	if err != nil {
		return err
	}
	library, err := tensors(c.Library)
	if err != nil {
		return err
	}
	for i, w := range library {
		if err := ofScale(got[i].Tensor, w.Tensor); err != nil {
			return fmt.Errorf("output %q of the library: %w", w.Name, err)
		}
	}
	for _, g := range c.Gradients {
		_, want, err := onnx.ReadTensor(g.Values)
		if err != nil {
			return err
		}
		d, err := s.(engine.Differentiator).Gradient(t.Context(), in, engine.Target{Name: g.Output, Index: g.Index}, []string{g.Input})
		if err != nil {
			return err
		}
		if err := ofScale(d.Inputs[0].Tensor, want); err != nil {
			return fmt.Errorf("gradient of %s[%d] by %s: %w", g.Output, g.Index, g.Input, err)
		}
	}
	return nil
}

// ofScale compares to 1e-4 of the largest that is wanted; what is no float has to be the same.
func ofScale(got, want *engine.Tensor) error {
	if !want.DType().IsFloat() {
		return agree(got, want)
	}
	g, _ := got.Float64s()
	w, _ := want.Float64s()
	scale := 0.0
	for _, v := range w {
		if !math.IsInf(v, 0) {
			scale = max(scale, math.Abs(v))
		}
	}
	if len(g) != len(w) {
		return fmt.Errorf("%d elements, want %d", len(g), len(w))
	}
	for i := range w {
		same := g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i])
		if !same && !(math.Abs(g[i]-w[i]) <= 1e-4*scale) {
			return fmt.Errorf("element %d is %v, want %v", i, g[i], w[i])
		}
	}
	return nil
}
