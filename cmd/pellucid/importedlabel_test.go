package main

import (
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestImportedLabelIsThePredictions: a label that comes with a prediction made
// elsewhere is stored with it, once however often both are sent, and takes no later
// correction back.
func TestImportedLabelIsThePredictions(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	const list = `[{"model":"e","id":"a","features":{"x":1},"outputs":{"p":0.5},"label":"1"},{"model":"e","id":"b","features":{"x":2},"outputs":{"p":0.5},"label":"0"},{"model":"e","id":"c","features":{"x":3},"outputs":{"p":0.5}}]`
	var got imports
	r.post(t, "/api/v1/predictions", list, &got)
	if got.Accepted != 3 {
		t.Fatalf("%+v", got)
	}
	r.stored(t)
	r.post(t, "/api/v1/feedback", `{"prediction_id":"a","label":"0"}`, nil)
	r.stored(t)
	r.post(t, "/api/v1/predictions", list, nil)
	r.stored(t)
	r.halt(t)
	r = startRig(t, cfg) // which knows no recent id
	r.post(t, "/api/v1/predictions", list, nil)
	r.post(t, "/api/v1/predictions", `{"model":"e","id":"d","features":{"x":4},"outputs":{"p":0.5},"label":"1"}`, nil)
	r.stored(t)
	if n := sql(t, r.database(t), "SELECT count(), uniqExact(prediction_id, label), uniqExact(insert_batch, position) FROM feedback"); n != "4\t4\t4" {
		t.Errorf("labels stored, different, by key: %s", n)
	}
	for id, want := range map[string]int{"a": 2, "b": 1, "c": 0, "d": 1} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if len(p.Labels) != want || id == "a" && p.Labels[0].Label != "0" {
			t.Errorf("%s has labels %+v", id, p.Labels)
		}
	}
}
