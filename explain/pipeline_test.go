package explain_test

import (
	"math"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/explain"
)

// TestPipelines holds forests behind imputers and scalers to shap's values of the
// forest on the prepared columns.
func TestPipelines(t *testing.T) {
	for _, name := range []string{"forest", "boosting"} {
		t.Run(name, func(t *testing.T) {
			var want struct {
				Background, Rows [][]*float64
				Base             float64
				Phi              [][]float64
			}
			readJSON(t, "testdata/pipeline_"+name+".json", &want)
			m, err := modelfile.Open("testdata/pipeline_" + name + ".onnx")
			if err != nil {
				t.Fatal(err)
			}
			v := &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}
			rows := bind(t, m.Info(), flat(want.Rows), len(want.Rows))
			v.Background = func() (engine.Values, string, bool) {
				return bind(t, m.Info(), flat(want.Background), len(want.Background)), "rows", true
			}
			got, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for r := range got {
				if d := difference(t, &got[r], append(want.Phi[r], want.Base)); d > 1e-5 {
					t.Errorf("row %d is off by %.2g of its largest value", r, d)
				}
				for i, a := range got[r].Attributions {
					if x := want.Rows[r][i]; x != nil && a.Value != *x {
						t.Errorf("row %d shows %v of feature %d, the row has %v", r, a.Value, i, *x)
					}
				}
			}
		})
	}
}

func flat(rows [][]*float64) []float64 {
	var out []float64
	for _, row := range rows {
		for _, v := range row {
			if v == nil {
				out = append(out, math.NaN())
			} else {
				out = append(out, *v)
			}
		}
	}
	return out
}

// TestEncodedColumns holds forests over encoded text columns to the Shapley values
// of the whole pipeline, where all columns that an encoder makes of one are one
// player.
func TestEncodedColumns(t *testing.T) {
	for _, name := range []string{"onehot", "ordinal"} {
		t.Run(name, func(t *testing.T) {
			var want struct {
				Background, Rows map[string][]any
				Base             float64
				Phi              [][]float64
			}
			readJSON(t, "testdata/pipeline_"+name+".json", &want)
			m, err := modelfile.Open("testdata/pipeline_" + name + ".onnx")
			if err != nil {
				t.Fatal(err)
			}
			v := &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}
			v.Background = func() (engine.Values, string, bool) { return named(t, m.Info(), want.Background), "rows", true }
			got, err := explain.Explain(t.Context(), v, named(t, m.Info(), want.Rows), collector.ExplainRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want.Phi) {
				t.Fatalf("%d explanations of %d rows", len(got), len(want.Phi))
			}
			for r := range got {
				if d := difference(t, &got[r], append(want.Phi[r], want.Base)); d > 1e-5 {
					t.Errorf("row %d is off by %.2g of its largest value", r, d)
				}
				if a := got[r].Attributions[1]; a.Feature != "city" || a.Value != want.Rows["city"][r] {
					t.Errorf("row %d shows %s = %v, the row has %v", r, a.Feature, a.Value, want.Rows["city"][r])
				}
			}
		})
	}
}

// named binds columns of numbers and text.
func named(t *testing.T, info *engine.Info, columns map[string][]any) engine.Values {
	t.Helper()
	var in engine.Values
	for _, s := range info.Inputs {
		var numbers []float64
		var text []string
		for _, v := range columns[s.Name] {
			switch v := v.(type) {
			case float64:
				numbers = append(numbers, v)
			case string:
				text = append(text, v)
			}
		}
		x, err := engine.Of(text, len(text))
		if text == nil {
			x, err = engine.Of(numbers, len(numbers))
		}
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, engine.Named{Name: s.Name, Tensor: x})
	}
	bound, _, err := engine.Bind(info, in)
	if err != nil {
		t.Fatal(err)
	}
	return bound
}
