package proxy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestAnImportedOutputOfAPrivateName is refused without its value, since its sender may have named the
// private column among what the model answered; that of a model which declares it itself is its answer.
func TestAnImportedOutputOfAPrivateName(t *testing.T) {
	info := &engine.Info{
		Format: collector.ImportedFormat, Missing: true,
		Inputs:   []engine.Spec{{Name: "income", DType: engine.Float64, Shape: []int{-1}}},
		Features: []engine.Feature{{Name: "income"}},
		Outputs:  []engine.Spec{{Name: "income", DType: engine.Float64, Shape: []int{-1}}},
	}
	cfg := collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "income", Private: collector.PrivacyDrop}}}
	schema, err := collector.NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	of := func(format string, row *collector.Imported, cfg collector.ModelConfig) error {
		is := *info
		is.Format = format
		row.Outputs = map[string]json.RawMessage{"income": json.RawMessage("73219")}
		_, _, err := importedValues(&collector.ModelVersion{Info: &is, Schema: schema, Config: cfg}, row, func() collector.Scrubber { return collector.Scrubber{} })
		return err
	}
	err = of(collector.ImportedFormat, &collector.Imported{}, cfg)
	if f := asFailure(err); err == nil || f.status != 400 || f.value != "" || !strings.Contains(f.message, `"income"`) || strings.Contains(f.message, "73219") {
		t.Errorf("%v, %+v", err, f)
	}
	for _, err := range []error{of("onnx", &collector.Imported{}, cfg), of(collector.ImportedFormat, &collector.Imported{Info: info}, cfg), of(collector.ImportedFormat, &collector.Imported{}, collector.ModelConfig{})} {
		if err != nil {
			t.Error(err)
		}
	}
}
