package repository

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestImportsOfAnUnloadedModelStayPrivate: unloading stops answers. What is told of other
// versions is recorded by the same rules, the first time and every time after.
func TestImportsOfAnUnloadedModelStayPrivate(t *testing.T) {
	s := newSaid(t, time.Hour)
	info := &engine.Info{Outputs: saidInfo.Outputs}
	for _, name := range []string{s.a, s.b} {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1}})
	}
	before, err := s.r.External("m", "3", func() (*engine.Info, error) { return info, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m", "made"} {
		if err := s.r.Unload(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for _, version := range []string{"3", "4", "4", "3", "", "4"} {
			v, err := s.r.External("m", version, func() (*engine.Info, error) { return info, nil })
			if err != nil || v.Config.PrivateFeature() != s.a || version == "3" && v.Digest != before.Digest {
				t.Errorf("%s, version %q: %+v, %v", when, version, v, err)
			}
		}
		for _, version := range []string{"1", "1", "2", "2"} {
			if v, err := s.imports("made", version); err != nil || v.Config.PrivateFeature() != "town" {
				t.Errorf("%s, version %q of one that is only imported: %+v, %v", when, version, v, err)
			}
		}
		if v, err := s.r.External("m", "1", func() (*engine.Info, error) { return info, nil }); err == nil && when == "unloaded" {
			t.Errorf("a served version that is unloaded takes imports: %+v", v)
		}
	}
	check("unloaded")
	for _, name := range []string{"m", "made"} {
		if err := s.r.Load(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	check("loaded again")
	s.r.Close()
	s.r = s.open(t, time.Hour)
	check("after a restart")
}

// TestAnImportIsNotWhatAnswers: a version that only imports know of does not take the
// place of one that is served, whatever it is called.
func TestAnImportIsNotWhatAnswers(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r := f.open(t, time.Hour)
	describe := func() (*engine.Info, error) { return saidInfo, nil }
	for _, version := range []string{"9", "0"} {
		if v, err := r.External("m", version, describe); err != nil || v.Version != version {
			t.Fatal(v, err)
		}
	}
	if v, err := r.Find("m", ""); err != nil || v.Version != "1" || v.Model == nil {
		t.Errorf("what answers is %+v, %v", v, err)
	}
	if v, err := r.Find("m", "9"); err != nil || v.Version != "9" {
		t.Errorf("version 9: %+v, %v", v, err)
	}
	for _, version := range []string{"2", "10"} {
		if _, err := r.External("only", version, describe); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := r.Find("only", ""); err != nil || v.Version != "10" {
		t.Errorf("of imports alone: %+v, %v", v, err)
	}
}

// TestImportsOfAnUpstreamsNameStayPrivate: what is configured of an upstream holds for
// every version of its name, also while it cannot be reached.
func TestImportsOfAnUpstreamsNameStayPrivate(t *testing.T) {
	f := newFixture(t)
	cfg := collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "town", Private: collector.PrivacyDrop}, {Name: "elsewhere", Private: collector.PrivacyMask}}}
	r, err := Open(t.Context(), Config{
		Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
		Remote: map[string]collector.ModelConfig{"up": cfg},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	for _, version := range []string{"7", "7", "", "1", "8"} {
		v, err := r.External("up", version, func() (*engine.Info, error) { return saidInfo, nil })
		if err != nil || v.Config.PrivateFeature() != "town" || !r.Private() {
			t.Errorf("version %q: %+v, %v", version, v, err)
		}
	}
	if v, err := r.External("other", "1", func() (*engine.Info, error) { return saidInfo, nil }); err != nil || v.Config.PrivateFeature() != "" {
		t.Errorf("another name: %+v, %v", v, err)
	}
}

// TestAnUnloadedModelsFilesAreFollowed: unloading stops answers, not the looks at what is
// private in what is imported: the version's own file, broken ones, and those of served
// versions beside it, also once their folder has gone.
func TestAnUnloadedModelsFilesAreFollowed(t *testing.T) {
	s := newSaid(t, time.Hour)
	yaml := func(at, text string) { s.write(t, at+"/model.yaml", text) }
	if _, err := s.imports("made", "2"); err != nil {
		t.Fatal(err)
	}
	if err := s.r.Unload(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	imported := func(when, version string, want ...string) {
		t.Helper()
		v, err := s.imports("made", version)
		if err != nil || !slices.Equal(privateOf(v), want) {
			t.Errorf("%s: version %s: %v, %v, want %v", when, version, privateOf(v), err, want)
		}
	}
	yaml("made/1", "features: [{name: town, private: drop}, {name: name, private: mask}]\n")
	s.look(t)
	imported("more", "1", "name mask", "town drop")
	imported("more", "2", "name mask", "town drop")
	yaml("made/1", "features: [{name: town, privat: drop}]\n")
	s.look(t)
	for _, version := range []string{"1", "2"} {
		if v, err := s.imports("made", version); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("broken: version %s: %v, %v", version, privateOf(v), err)
		}
	}
	yaml("made/1", "features: [{name: town, private: drop}]\n")
	s.look(t)
	s.look(t)
	imported("mended", "1", "town drop")
	yaml("made/2", "features: [{name: name, private: drop}]\n")
	s.look(t)
	s.look(t) // it hides less too
	imported("one of its own", "2", "name drop")

	// A served one's, which goes while its model is unloaded.
	info := &engine.Info{Features: []engine.Feature{{Name: s.a}, {Name: s.b}}, Outputs: saidInfo.Outputs, Inputs: []engine.Spec{
		{Name: s.a, DType: engine.Float32, Shape: []int{-1}}, {Name: s.b, DType: engine.Float32, Shape: []int{-1}},
	}}
	yaml("m/2", "{}\n")
	s.look(t)
	s.look(t)
	hidden := func(when string, want ...string) {
		t.Helper()
		slices.Sort(want)
		v, err := s.r.External("m", "3", func() (*engine.Info, error) { return info, nil })
		if err != nil || !slices.Equal(privateOf(v), want) {
			t.Errorf("%s: %v, %v, want %v", when, privateOf(v), err, want)
		}
	}
	hidden("at first", s.a+" drop")
	if err := s.r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	yaml("m/1", "features: [{name: "+s.a+", private: drop}, {name: "+s.b+", private: drop}]\n")
	s.look(t)
	hidden("unloaded", s.a+" drop", s.b+" drop")
	if err := os.RemoveAll(filepath.Join(s.dir, "m", "1")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.look(t)
	}
	hidden("and gone", s.a+" drop", s.b+" drop")
	s.r.Close()
	s.r = s.open(t, time.Hour)
	s.look(t)
	hidden("after a start", s.a+" drop", s.b+" drop")
}

// TestWhatIsKeptOnIsHandedOn: a served version that came back without its model.yaml stays under
// what it said last, and so do those that take it over, whatever others say.
func TestWhatIsKeptOnIsHandedOn(t *testing.T) {
	s := newSaid(t, time.Hour)
	info := &engine.Info{Features: []engine.Feature{{Name: s.a}, {Name: s.b}}, Outputs: saidInfo.Outputs, Inputs: []engine.Spec{
		{Name: s.a, DType: engine.Float32, Shape: []int{-1}}, {Name: s.b, DType: engine.Float32, Shape: []int{-1}},
	}}
	s.write(t, "m/2/model.yaml", "{}\n")
	s.look(t)
	s.look(t)
	hidden := func(when string) {
		t.Helper()
		for range 3 {
			s.look(t)
			if v, err := s.r.External("m", "3", func() (*engine.Info, error) { return info, nil }); err != nil || !slices.Equal(privateOf(v), []string{s.a + " drop"}) {
				t.Fatalf("%s: %v, %v", when, privateOf(v), err)
			}
		}
	}
	hidden("at first")
	if err := os.RemoveAll(filepath.Join(s.dir, "m", "1")); err != nil {
		t.Fatal(err)
	}
	hidden("gone")
	s.model(t, "m/1")
	hidden("back")
	if v, err := s.r.Find("m", "1"); err != nil || !slices.Equal(privateOf(v), []string{s.a + " drop"}) {
		t.Errorf("itself: %v, %v", privateOf(v), err)
	}
	s.r.Close()
	s.r = s.open(t, time.Hour)
	hidden("after a start")
}
