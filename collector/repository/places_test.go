package repository

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// rowsOf describes a version by imported rows that have these features, as imports do: in the
// order of their names.
func rowsOf(features ...string) *engine.Info {
	info := &engine.Info{Format: collector.ImportedFormat, Outputs: []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}}}
	for _, name := range slices.Sorted(slices.Values(features)) {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float64, Shape: []int{-1}})
	}
	return info
}

func numbered(form string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(form, i))
	}
	return out
}

// TestPlaces: what is private in a version is so in imported rows of another that only number
// their values, by the places of the model's own columns; where these are not known nothing
// that is but numbered is in the open.
func TestPlaces(t *testing.T) {
	f := newFixture(t)
	for _, at := range []string{"m/1", "gone/1", "ruled/1"} {
		f.put(t, "../../engine/xgboost/testdata/categorical.json", at+"/model.json") // whose columns have names
	}
	plain, err := f.open(t, time.Hour).Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	var v []string
	for _, feature := range plain.Info.Features {
		v = append(v, feature.Name)
	}
	n, last := len(v), len(v)-1
	if n < 4 {
		t.Fatalf("features %v: too few for this test", v)
	}
	for _, at := range []string{"m/1", "gone/1"} {
		f.write(t, at+"/model.yaml", fmt.Sprintf("features: [{name: %s, private: drop}, {name: %s, private: mask}]\nsubject: %s\n", v[1], v[last], v[0]))
	}
	f.write(t, "told/1/model.yaml", "features: [{name: email, private: mask}, {name: town, private: drop}]\n") // of imports, in no order
	r, err := Open(t.Context(), Config{
		Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
		Rules: []collector.PrivateRule{{Pattern: "ruled." + v[2], Private: collector.PrivacyMask}, {Pattern: "alone.email", Private: collector.PrivacyMask}, {Pattern: "found.email", Private: collector.PrivacyMask}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	f_ := func(i int) string { return fmt.Sprintf("f%d", i) }
	sorted := func(list ...string) []string { slices.Sort(list); return list }
	cases := []struct {
		name, model string
		features    []string
		want        []string
	}{
		{"by name", "m", v, sorted(v[1]+" drop", v[last]+" mask")},
		{"a row", "m", numbered("f%d", n), sorted(f_(1)+" drop", f_(last)+" mask")},
		{"a tensor", "m", numbered("input[%d]", n), sorted("input[1] drop", fmt.Sprintf("input[%d] mask", last))},
		{"a tensor beside another", "m", append(numbered("x[%d]", n), "y"), sorted("x[1] drop", fmt.Sprintf("x[%d] mask", last))},
		{"columns", "m", numbered("Column_%d", n), sorted("Column_1 drop", fmt.Sprintf("Column_%d mask", last))},
		{"fewer", "m", numbered("f%d", n-1), all(numbered("f%d", n-1), "drop")},
		{"more", "m", numbered("f%d", n+1), all(numbered("f%d", n+1), "drop")},
		{"from one", "m", numbered("f%d", n+1)[1:], all(numbered("f%d", n+1)[1:], "drop")},
		{"a matrix in a row", "m", numbered("x[0,%d]", n), all(numbered("x[0,%d]", n), "drop")},
		{"other names", "m", []string{"rooms", "street", "f0"}, []string{"f0 drop"}},
		{"other names only", "m", []string{"rooms", "street"}, nil},
		{"a name of a kind", "m", numbered("dense_%d", n), sorted("dense_1 drop", fmt.Sprintf("dense_%d mask", last))},
		{"two numbers", "m", numbered("input_0_%d", n), all(numbered("input_0_%d", n), "drop")},
		{"other scripts and signs", "m", []string{"№1", "№2", "№3", "№4", "№5"}, all([]string{"№1", "№2", "№3", "№4", "№5"}, "drop")},
		{"in no order", "told", numbered("f%d", 3), all(numbered("f%d", 3), "drop")},
		{"parts of one", "told", []string{"email[0]", "email[1]", "town"}, []string{"email[0] mask", "email[1] mask", "town drop"}},
		{"by a rule's name", "ruled", numbered("f%d", n), []string{"f2 mask"}},
		{"a rule's name, other widths", "ruled", numbered("f%d", 2), all(numbered("f%d", 2), "drop")},
		{"a rule alone", "alone", []string{"f0", "town"}, []string{"f0 drop"}},
		{"a rule that finds it", "found", []string{"f0", "email"}, []string{"email mask"}},
		{"nothing private", "free", numbered("f%d", 3), nil},
	}
	for again := range 2 {
		for i, c := range cases {
			version := fmt.Sprintf("v%d", i)
			policies, err := r.Policies(c.model, version, slices.Sorted(slices.Values(c.features)))
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			got, err := r.External(c.model, version, func() (*engine.Info, error) { return rowsOf(c.features...), nil })
			if err != nil || !slices.Equal(privateOf(got), c.want) {
				t.Errorf("%s (%d): %v, %v, want %v", c.name, again, privateOf(got), err, c.want)
				continue
			}
			var told []string
			for name, policy := range policies {
				if policy != collector.PrivacyNone {
					told = append(told, name+" "+string(policy))
				}
			}
			if slices.Sort(told); !slices.Equal(told, c.want) {
				t.Errorf("%s (%d): policies %v, want %v", c.name, again, told, c.want)
			}
		}
		if got, err := r.External("m", "v1", nil); err != nil || got.Config.Subject != "f0" {
			t.Errorf("the subject by its place: %v", err)
		}
		// The same after a start, with the others' folder gone.
		for _, gone := range []string{"m", "gone"} {
			if err := os.RemoveAll(filepath.Join(f.dir, gone)); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		if r, err = Open(t.Context(), r.cfg); err != nil {
			t.Fatal(err)
		}
	}
	// And those that come then.
	got, err := r.External("gone", "late", func() (*engine.Info, error) { return rowsOf(numbered("f%d", n)...), nil })
	if err != nil || !slices.Equal(privateOf(got), sorted(f_(1)+" drop", f_(last)+" mask")) {
		t.Errorf("once the folder has gone: %v, %v", privateOf(got), err)
	}
}

// TestPlacesBeyondTen: names in their order are not places in theirs.
func TestPlacesBeyondTen(t *testing.T) {
	h := newHanding(rowsOf(numbered("f%d", 12)...))
	var columns []string
	for i := range 12 {
		columns = append(columns, fmt.Sprintf("name%c", 'a'+i))
	}
	h.take(collector.ModelConfig{FeatureNames: columns, Features: []collector.FeatureConfig{{Name: "namec", Private: collector.PrivacyDrop}}}, nil)
	if got := h.done(); len(got.Features) != 1 || got.Features[0].Name != "f2" {
		t.Errorf("%+v", got.Features)
	}
}

// TestPlacesOnceTheModelIsThere: what was hidden whole opens by itself when the order of the
// columns is known.
func TestPlacesOnceTheModelIsThere(t *testing.T) {
	f := newFixture(t)
	f.write(t, "m/1/model.yaml", "features: [{name: nothing, private: drop}]\n")
	r := f.open(t, time.Hour)
	private := func(want ...string) {
		t.Helper()
		got, err := r.External("m", "2", func() (*engine.Info, error) { return rowsOf(numbered("f%d", 6)...), nil })
		if err != nil || !slices.Equal(privateOf(got), want) {
			t.Errorf("%v, %v, want %v", privateOf(got), err, want)
		}
	}
	private("f0 drop", "f1 drop", "f2 drop", "f3 drop", "f4 drop", "f5 drop")
	f.model(t, "m/1")
	f.write(t, "m/1/model.yaml", "feature_names: [a, b, c, d, e, f]\nfeatures: [{name: c, private: drop}]\n")
	for range 4 {
		later(r)
		if err := r.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := r.Find("m", "1"); err != nil {
		t.Fatal(v, err)
	}
	private("f2 drop")
}
