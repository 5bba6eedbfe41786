package explain_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain"
)

// tokenOracle is what testdata/make_tokens.py has written.
type tokenOracle struct {
	Inputs      map[string][][]int64
	Output      string
	Steps       int
	Predictions []float64
	Cases       map[string]struct {
		Request collector.ExplainRequest
		Phi     [][]float64
	}
}

func tokenModel(t *testing.T) (*collector.ModelVersion, engine.Values, *tokenOracle) {
	t.Helper()
	v, err := repository.Offline("testdata/tokens.onnx", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var o tokenOracle
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	var in engine.Values
	for _, s := range v.Info.Inputs {
		rows := o.Inputs[s.Name]
		x, err := engine.Of(slices.Concat(rows...), len(rows), len(rows[0]))
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, engine.Named{Name: s.Name, Tensor: x})
	}
	return v, in, &o
}

// TestTokens holds the attributions of a transformer's tokens against captum's.
func TestTokens(t *testing.T) {
	v, in, o := tokenModel(t)
	if len(o.Cases) != 6 {
		t.Fatalf("%d cases", len(o.Cases))
	}
	for name, c := range o.Cases {
		t.Run(name, func(t *testing.T) {
			req := c.Request
			req.Output = o.Output
			integrated := req.Method == ""
			if integrated {
				req.Steps = o.Steps
			}
			list, err := explain.Explain(t.Context(), v, in, req)
			if err != nil {
				t.Fatal(err)
			}
			ids := "input_ids"
			if req.Input != "" {
				ids = req.Input
			}
			for r := range list {
				e := &list[r]
				if math.Abs(e.Prediction-o.Predictions[r]) > 1e-5 || len(e.Attributions) != len(c.Phi[r]) {
					t.Fatalf("row %d: prediction %v and %d attributions, want %v and %d", r, e.Prediction, len(e.Attributions), o.Predictions[r], len(c.Phi[r]))
				}
				scale := 0.0
				for _, phi := range c.Phi[r] {
					scale = max(scale, math.Abs(phi))
				}
				for k, a := range e.Attributions {
					if math.Abs(a.Phi-c.Phi[r][k]) > 1e-4*scale || a.Value != float64(o.Inputs[ids][r][k]) || a.Feature != ids+"["+string(rune('0'+k))+"]" {
						t.Errorf("row %d, position %d: %+v, want %v", r, k, a, c.Phi[r][k])
					}
				}
				if integrated && e.Certificate.Residual > 1e-4*max(1, math.Abs(e.Prediction-e.Base)) {
					t.Errorf("row %d misses the prediction by %v", r, e.Certificate.Residual)
				}
				if !strings.Contains(e.Certificate.BaseDefinition, ids) {
					t.Errorf("the certificate does not name the ids: %s", e.Certificate.BaseDefinition)
				}
			}
		})
	}
}

// TestTokensSettle: without fixed steps their number grows until the sum is complete.
func TestTokensSettle(t *testing.T) {
	v, in, o := tokenModel(t)
	list, err := explain.Explain(t.Context(), v, in, collector.ExplainRequest{Output: o.Output, Baseline: []float64{0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Certificate.ResidualRelative > 1e-3 {
			t.Errorf("residual %v of %v", e.Certificate.Residual, e.Prediction-e.Base)
		}
		if want := `the vector of id 0 at every position (other inputs' vectors are held as they are)`; e.Certificate.Baseline != want {
			t.Errorf("baseline %q, want %q", e.Certificate.Baseline, want)
		}
	}
	// The padding of the first row is its own baseline.
	for _, a := range list[0].Attributions[4:] {
		if a.Phi != 0 {
			t.Errorf("padding has %v", a.Phi)
		}
	}
}

func TestTokensRefused(t *testing.T) {
	v, in, _ := tokenModel(t)
	for reason, req := range map[string]collector.ExplainRequest{
		"no input \"words\"":                 {Input: "words"},
		"neither of floats":                  {Input: "attention_mask"},
		"baseline of 2 ids":                  {Baseline: []float64{1, 2}},
		"whole numbers":                      {Baseline: []float64{0.5}},
		"look up the baseline's ids":         {Baseline: []float64{20}},
		"ids have no background":             {Background: []byte("[[1]]")},
		"one tree ensemble":                  {Method: explain.TreeSHAP},
		"baseline and steps belong":          {Method: explain.Saliency, Baseline: []float64{0}},
		"input belongs to a gradient method": {Method: explain.TreeSHAP, Input: "input_ids"},
	} {
		_, err := explain.Explain(t.Context(), v, in, req)
		if !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%+v: %v, want %q", req, err, reason)
		}
	}
}

// TestMixedInputs: floats are attributed to where nothing is named, else the one input
// that is, the ids of a batch of one in another type among them.
func TestMixedInputs(t *testing.T) {
	v, err := repository.Offline("testdata/mixed.onnx", "", 1)
	if err != nil {
		t.Fatal(err)
	}
	x, errX := engine.Of([]float32{2, 3}, 1, 2)
	ids, errI := engine.Of([]int32{1, 3, 0}, 1, 3)
	z, errZ := engine.Of([]float32{7}, 1, 1)
	if err := errors.Join(errX, errI, errZ); err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: x}, {Name: "ids", Tensor: ids}, {Name: "z", Tensor: z}}
	// The vectors' sums are 1, 5, 9, 13; those of the row 19, x adds up to 5: y = 102.
	for _, c := range []struct {
		req  collector.ExplainRequest
		base float64
		phi  []float64
	}{
		{collector.ExplainRequest{}, 0, []float64{38, 57, 7}},
		{collector.ExplainRequest{Input: "z"}, 95, []float64{7}},
		{collector.ExplainRequest{Input: "x", Baseline: []float64{1, 0}}, 26, []float64{19, 57}},
		{collector.ExplainRequest{Input: "ids"}, 7, []float64{25, 65, 5}},
		{collector.ExplainRequest{Input: "ids", Baseline: []float64{1}}, 82, []float64{0, 40, -20}},
		{collector.ExplainRequest{Input: "ids", Method: explain.InputXGradient}, 7, []float64{25, 65, 5}},
		{collector.ExplainRequest{Input: "ids", Method: explain.Saliency}, 0, []float64{10, 10, 10}},
	} {
		list, err := explain.Explain(t.Context(), v, in, c.req)
		if err != nil {
			t.Errorf("%+v: %v", c.req, err)
			continue
		}
		e := &list[0]
		if math.Abs(e.Base-c.base) > 1e-4 || e.Prediction != 102 || len(e.Attributions) != len(c.phi) {
			t.Errorf("%+v: base %v, prediction %v, %d attributions", c.req, e.Base, e.Prediction, len(e.Attributions))
			continue
		}
		for k, a := range e.Attributions {
			if math.Abs(a.Phi-c.phi[k]) > 1e-4 {
				t.Errorf("%+v: attribution %d is %v, want %v", c.req, k, a.Phi, c.phi[k])
			}
		}
	}
}
