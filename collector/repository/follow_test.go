package repository

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestImportsFollowTheOthers: an imported version without a model.yaml of its own is under
// what the others say now, closes with them, and keeps that when they have gone.
func TestImportsFollowTheOthers(t *testing.T) {
	s := newSaid(t, time.Hour)
	restart := func() { s.r.Close(); s.r = s.open(t, time.Hour) }
	yaml := func(text string) { s.write(t, "made/1/model.yaml", text) }
	for _, version := range []string{"2", "3"} {
		if _, err := s.imports("made", version); err != nil {
			t.Fatal(err)
		}
	}
	for _, again := range []bool{false, true} {
		s.private(t, "as recorded first", "made/1 town", "made/2 town", "made/3 town")
		yaml("features: [{name: town, private: drop}, {name: name, private: mask}]\n")
		if s.look(t); again {
			restart()
		}
		s.private(t, "more", "made/1 town name", "made/2 town name", "made/3 town name")
		for _, broken := range []string{"features: [{name: town, privat: drop}]\n", "", "features: [{name: elsewhere, private: drop}]\nfeature_names: [a]\n"} {
			yaml(broken)
			if s.look(t); again {
				restart()
			}
			s.private(t, "broken", "made/1 closed", "made/2 closed", "made/3 closed")
			yaml("features: [{name: town, private: drop}, {name: name, private: mask}]\n")
			s.look(t)
			s.private(t, "mended", "made/1 town name", "made/2 town name", "made/3 town name")
		}
		yaml("features: [{name: town, private: drop}]\n")
		if s.look(t); again {
			restart()
		}
		s.private(t, "less, seen once", "made/1 town name", "made/2 town name", "made/3 town name")
		s.look(t)
		s.private(t, "less", "made/1 town", "made/2 town", "made/3 town")
	}
	yaml("features: [{name: town, private: drop}, {name: name, private: mask}]\n")
	if err := s.r.Load(t.Context(), "made"); err != nil {
		t.Fatal(err)
	}
	s.private(t, "loaded", "made/2 town name")
	if err := os.RemoveAll(filepath.Join(s.dir, "made")); err != nil {
		t.Fatal(err)
	}
	s.private(t, "gone, before a look", "made/1 town name", "made/2 town name", "made/4 town name")
	s.look(t)
	s.private(t, "gone", "made/1 town name", "made/2 town name", "made/5 town name")
	restart()
	s.private(t, "gone and started", "made/1 town name", "made/2 town name", "made/4 town name", "made/6 town name")
	// One of its own says what it says; the others follow what there is.
	s.write(t, "made/2/model.yaml", "features: [{name: name, private: drop}]\n")
	s.look(t)
	s.look(t)
	s.private(t, "with a folder again", "made/1 town name", "made/2 name", "made/4 town name", "made/7 town name")
	s.write(t, "made/1/model.yaml", "{}\n")
	s.look(t)
	s.look(t)
	s.private(t, "all of them", "made/1", "made/2 name", "made/4 name", "made/7 name", "made/8 name")
}

// TestImportsAfterTheFolderOfAServedModel: what was private in a served version is so in
// imports of the model when nothing lies there any more.
func TestImportsAfterTheFolderOfAServedModel(t *testing.T) {
	s := newSaid(t, time.Hour)
	if err := os.RemoveAll(filepath.Join(s.dir, "m")); err != nil {
		t.Fatal(err)
	}
	info := &engine.Info{Outputs: saidInfo.Outputs}
	for _, name := range []string{s.a, s.b} {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1}})
	}
	describe := func() (*engine.Info, error) { return info, nil }
	for _, version := range []string{"7", "8"} {
		s.look(t)
		if v, err := s.r.External("m", version, describe); err != nil || v.Config.PrivateFeature() != s.a {
			t.Errorf("version %s: %+v, %v", version, v, err)
		}
		s.r.Close()
		s.r = s.open(t, time.Hour)
	}
}

// TestAStartDoesNotGoByHalfAFile: what hides less than when the version was last here waits
// for a second look, also of one that nothing was imported of.
func TestAStartDoesNotGoByHalfAFile(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "new/1/model.yaml", "features: [{name: name, private: drop}]\n")
	s.look(t)
	s.r.Close()
	for _, file := range []string{"m/1", "made/1", "new/1"} {
		s.write(t, file+"/model.yaml", "features:\n")
	}
	s.r = s.open(t, time.Hour)
	for _, version := range []string{"1", "2"} {
		if v, err := s.r.Find("m", version); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("m/%s at the start: %v, %v", version, privateOf(v), err)
		}
	}
	s.private(t, "at the start", "made/1 town")
	for _, at := range []string{"new/1", "new/2", "made/2"} {
		if v, err := s.imports(filepath.Dir(at), filepath.Base(at)); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s at the start: %v, %v", at, privateOf(v), err)
		}
	}
	s.hide(t, s.a, "town")
	s.write(t, "new/1/model.yaml", "features: [{name: name, private: drop}, {name: town, private: drop}]\n")
	s.look(t)
	for _, at := range []string{"new/1", "new/2"} {
		if v, err := s.imports("new", filepath.Base(at)); err != nil || len(privateOf(v)) != 2 {
			t.Errorf("%s written whole: %v, %v", at, privateOf(v), err)
		}
	}
	s.private(t, "written whole", "m/1 "+s.a, "m/2 "+s.a, "made/1 town")
	// What is meant is in force at the second look, and at the next start at once.
	s.r.Close()
	for _, file := range []string{"m/1", "made/1", "new/1"} {
		s.write(t, file+"/model.yaml", "features: []\n")
	}
	s.r = s.open(t, time.Hour)
	s.look(t)
	s.private(t, "at the second look", "m/1", "m/2", "made/1")
	s.r.Close()
	s.r = s.open(t, time.Hour)
	s.private(t, "at the next start", "m/1", "m/2", "made/1")
}
