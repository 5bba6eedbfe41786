package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestEventsByPlaceOfRowsWithNames: rows that come by place, of a version that is known by rows with
// names, are in the order of a served version's columns that are called so. Where no such order is
// known they are refused, and nothing of them is in the open.
func TestEventsByPlaceOfRowsWithNames(t *testing.T) {
	models := t.TempDir()
	model, err := os.ReadFile("../../engine/xgboost/testdata/categorical.json")
	if err != nil {
		t.Fatal(err)
	}
	place(t, models, "shop/1/model.json", string(model))
	place(t, models, "shop/1/model.yaml", "features: [{name: colour, private: drop}]\n")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	names := r.models.Columns("shop", "1")
	if len(names) != 5 || names[1] != "colour" {
		t.Fatalf("%v: too few for this test", names)
	}
	half := func(kind, id, version, data string, want int) {
		t.Helper()
		if status, b, _ := r.half(t, kind, id, "shop", version, data); status != want || leaks([]byte(b)) != "" {
			t.Errorf("%s of %s of version %s: %d %s", kind, id, version, status, b)
		}
	}
	byName := func(names []string, second string) string {
		values := make([]string, len(names))
		for i, name := range names {
			values[i] = fmt.Sprintf("%q:%d", name, i)
			if i == 1 {
				values[i] = fmt.Sprintf("%q:%q", name, second)
			}
		}
		return `{"instances":[{` + strings.Join(values, ",") + `}]}`
	}
	const byPlace = `[[10,"` + canaryText + `",12,13,14]]`
	other := append([]string{"another"}, names[1:]...)
	for version, of := range map[string][]string{"2": names, "3": other} {
		half("request", "named"+version, version, byName(of, "red"), http.StatusOK)
		half("response", "named"+version, version, `{"predictions":[1]}`, http.StatusOK)
	}
	for id, data := range map[string]string{"kserve": `{"instances":` + byPlace + `}`, "seldon": `{"data":{"ndarray":` + byPlace + `}}`} {
		half("request", id, "2", data, http.StatusOK)
		half("response", id, "2", `{"predictions":[1]}`, http.StatusOK)
		half("request", id+"3", "3", data, http.StatusOK) // it waits
		half("response", id+"3", "3", `{"predictions":[1]}`, http.StatusBadRequest)
	}
	r.stored(t)
	want := map[string]any{names[0]: 10.0, names[2]: 12.0, names[3]: 13.0, names[4]: 14.0}
	for _, id := range []string{"kserve", "seldon"} {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if !maps.Equal(p.Features, want) || p.Version != "2" {
			t.Errorf("%s: %+v, want %v", id, p, want)
		}
	}
	if n := sql(t, r.database(t), "SELECT count() FROM predictions WHERE version = '3'"); strings.TrimSpace(n) != "1" {
		t.Errorf("rows of the version of other names: %s", n)
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}
