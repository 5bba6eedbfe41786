package onnx_test

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"os"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// treeCase is what onnxruntime answers for one way to write a tree ensemble.
type treeCase struct {
	Name   string    `json:"name"`
	Model  string    `json:"model"`
	Scores []float64 `json:"scores"`
	Width  int       `json:"width"`
	Labels []int64   `json:"labels"`
}

// TestTreeClasses: what the specification leaves open (ids without weights or with several, base values,
// what follows the sum) is what onnxruntime makes of it, or refused by name.
func TestTreeClasses(t *testing.T) {
	f, err := os.Open("testdata/treeclasses.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []treeCase
	if err := json.NewDecoder(z).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	x, err := engine.Of([]float32{-1, -1, -1, 1, 1, -1, 1, 1, 0.25, 3}, 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	right, refused := 0, 0
	for _, c := range cases {
		data, err := base64.StdEncoding.DecodeString(c.Model)
		if err != nil {
			t.Fatal(err)
		}
		m, err := onnx.Read(data, "")
		var unsupported *engine.UnsupportedError
		if errors.As(err, &unsupported) {
			refused++
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(context.Background(), engine.Values{{Name: "x", Tensor: x}}, nil)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if worst := c.worst(out); worst > 1e-5 {
			got, _ := out[len(out)-1].Tensor.Float64s()
			t.Errorf("%s: off by %v: %v, not %v", c.Name, worst, got, c.Scores)
			continue
		}
		right++
	}
	if right < 1268 {
		t.Errorf("%d of %d cases are right, %d refused", right, len(cases), refused)
	}
}

// worst is how far an answer is off, in units of 1 or of what is to be.
func (c *treeCase) worst(out engine.Values) float64 {
	got, _ := out[len(out)-1].Tensor.Float64s()
	if len(got) != len(c.Scores) {
		return math.Inf(1)
	}
	worst := 0.0
	for i, v := range got {
		worst = max(worst, math.Abs(v-c.Scores[i])/max(1, math.Abs(c.Scores[i])))
	}
	for i, v := range c.Labels {
		if engine.Data[int64](out[0].Tensor)[i] != v {
			return math.Inf(1)
		}
	}
	return worst
}
