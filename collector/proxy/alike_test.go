package proxy

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestWhatARowSaysUnderALikeName is looked for in texts as what it has in the private feature is,
// though the row is refused. What the version knows as another feature is not.
func TestWhatARowSaysUnderALikeName(t *testing.T) {
	v := &collector.ModelVersion{
		Schema: &collector.Schema{Features: []collector.Field{{Name: "town", Private: collector.PrivacyDrop}, {Name: "Town"}, {Name: "age"}}},
		Config: collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "town", Private: collector.PrivacyDrop}}},
	}
	row := &collector.Imported{Features: map[string]json.RawMessage{"town": []byte(`"a"`), "Town": []byte(`"b"`), "TOWN": []byte(`"c"`), "home.town": []byte(`"d"`), "towns": []byte(`"e"`), "age": []byte(`1`)}}
	var got []string
	for _, raw := range privateOf(v, row) {
		got = append(got, string(raw))
	}
	if slices.Sort(got); !slices.Equal(got, []string{`"a"`, `"c"`, `"d"`}) {
		t.Errorf("%v", got)
	}
}
