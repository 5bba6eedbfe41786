package repository

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestReferencesRepeatNoPrivateInput: a class that the model makes of what it was given is
// a category of the reference's prediction, which is kept and shown. Classes that are
// declared stay.
func TestReferencesRepeatNoPrivateInput(t *testing.T) {
	const canary = "Schwanenwerder"
	texts := []string{canary, "late", canary, "on_time"}
	info := &engine.Info{
		Task: engine.TaskMulticlass, Classes: []string{"late"},
		Features: []engine.Feature{{Name: "town", Categorical: true}},
		Inputs:   []engine.Spec{{Name: "town", DType: engine.String, Shape: []int{-1}}},
		Outputs:  []engine.Spec{{Name: "label", DType: engine.String, Shape: []int{-1}}},
	}
	cfg := collector.ModelConfig{Classes: []string{"late"}, Features: []collector.FeatureConfig{{Name: "town", Private: collector.PrivacyDrop}}}
	schema, err := collector.NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := &collector.ModelVersion{Name: "m", Version: "1", Info: info, Schema: schema, Config: cfg}
	v.Predict = func(_ context.Context, in engine.Values, _ []string) (engine.Values, error) {
		return engine.Values{{Name: "label", Tensor: in[0].Tensor}}, nil
	}
	in, err := engine.Of(texts, len(texts))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := BuildReference(t.Context(), v, engine.Values{{Name: "town", Tensor: in}}, "rows")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(ref)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), canary) || strings.Contains(string(doc), "on_time") || !strings.Contains(string(doc), `"late"`) {
		t.Errorf("%s", doc)
	}
}
