package main

import (
	"strings"
	"testing"
)

// TestWhatIsDecidedRepeatsNothing: a class that is no declared one is a text among outputs
// like any other, also in the column of what was decided and what is made of it.
func TestWhatIsDecidedRepeatsNothing(t *testing.T) {
	const canary = "Schwanenwerder"
	models := t.TempDir()
	place(t, models, "impl/1/model.yaml", "task: multiclass\nclasses: [late, on_time]\nfeatures: [{name: town, private: drop}]\n")
	r := startRig(t, testConfig(t, models))
	r.post(t, "/api/v1/predictions", `[{"model":"impl","version":"1","id":"a","features":{"town":"`+canary+`"},"outputs":{"label":"`+canary+`"}},`+
		`{"model":"impl","version":"1","id":"b","features":{"town":"late"},"outputs":{"label":"late"}}]`, nil)
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT id, decided, arrayStringConcat(out_str) FROM predictions ORDER BY id"); strings.Contains(got, canary) || !strings.Contains(got, "b\tlate\tlate") {
		t.Errorf("stored %q", got)
	}
}
