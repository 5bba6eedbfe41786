package explain_test

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/explain"
)

// precisionCase is what testdata/make_precisions.py has written.
type precisionCase struct {
	Name, Type, Compute string
	Model               []byte
	Rows                [][]float64
	Prediction          []float64
	Phi                 map[string][][]float64
}

// rounding is what a number of a type may be off, relative to itself; what several such
// are summed to is off by some of it.
var rounding = map[string]float64{"FP64": 1e-7, "FP32": 2e-6, "FP16": 1.0 / (1 << 11), "BF16": 1.0 / (1 << 8)}

// TestPrecisions holds the attributions of a network over inputs of every type of floats,
// and of integers that are made floats, against its own in float64 by torch.
func TestPrecisions(t *testing.T) {
	f, err := os.Open("testdata/precisions.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []precisionCase
	if err := json.NewDecoder(z).Decode(&cases); err != nil || len(cases) != 10 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for i := range cases {
		t.Run(cases[i].Name, cases[i].check)
	}
}

func (c *precisionCase) check(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, c.Model, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := repository.Offline(path, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	var flat []float64
	for _, r := range c.Rows {
		flat = append(flat, r...)
	}
	wide, err := engine.Of(flat, len(c.Rows), len(c.Rows[0]))
	if err != nil {
		t.Fatal(err)
	}
	x, err := graph.Cast(wide, v.Info.Inputs[0].DType)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{explain.Saliency, explain.InputXGradient, explain.IntegratedGradients} {
		req := collector.ExplainRequest{Method: method, Output: "y[1]"}
		if method == explain.IntegratedGradients && !c.half() {
			req.Steps = 64 // with fewer the quadrature is what it is off by
		}
		list, err := explain.Explain(t.Context(), v, engine.Values{{Name: "x", Tensor: x}}, req)
		if err != nil || len(list) != len(c.Rows) {
			t.Fatalf("%s: %d answers, %v", method, len(list), err)
		}
		for r := range list {
			c.same(t, method, r, &list[r])
		}
	}
}

// half says that something is rounded to half precision.
func (c *precisionCase) half() bool {
	return max(rounding[c.Type], rounding[c.Compute]) > rounding["FP32"]
}

func (c *precisionCase) same(t *testing.T, method string, r int, e *collector.Explanation) {
	t.Helper()
	tolerance := 16 * rounding[c.Compute]
	if given := rounding[c.Type]; method == explain.IntegratedGradients && given > rounding[c.Compute] {
		tolerance = 16 * given // points on the way are those that the input can be
	}
	want, largest := c.Phi[method][r], 0.0
	for _, p := range want {
		largest = max(largest, math.Abs(p))
	}
	if math.Abs(e.Prediction-c.Prediction[r]) > tolerance*max(1, math.Abs(c.Prediction[r])) || len(e.Attributions) != len(want) {
		t.Fatalf("%s of row %d: prediction %g and %d attributions, want %g and %d", method, r, e.Prediction, len(e.Attributions), c.Prediction[r], len(want))
	}
	for i, a := range e.Attributions {
		if !(math.Abs(a.Phi-want[i]) <= tolerance*largest) {
			t.Errorf("%s of row %d: element %d has %g, want %g (largest %g, off by %.1g)", method, r, i, a.Phi, want[i], largest, math.Abs(a.Phi-want[i])/largest)
		}
		if a.Value != c.Rows[r][i] {
			t.Errorf("%s of row %d: element %d is shown as %v, is %v", method, r, i, a.Value, c.Rows[r][i])
		}
	}
	if method == explain.IntegratedGradients && c.half() && (e.Certificate.Points > 32 || e.Certificate.ErrorEstimate > tolerance*max(1, math.Abs(e.Prediction))) {
		t.Errorf("row %d: %d points and a gap of %g", r, e.Certificate.Points, e.Certificate.ErrorEstimate)
	}
}
