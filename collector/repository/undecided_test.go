package repository

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// textTown describes rows in which town is a text, and kind one of few numbers.
func textTown() (*engine.Info, error) {
	info := *saidInfo
	info.Features = []engine.Feature{{Name: "town", Categorical: true}, {Name: "name"}}
	info.Inputs = []engine.Spec{{Name: "town", DType: engine.String, Shape: []int{-1}}, saidInfo.Inputs[1]}
	return &info, nil
}

// TestABucketOfWhatIsTextHere is dropped in a version that takes it over: there is no rounding a
// text, and nothing that anybody has to decide. It goes with what the others say.
func TestABucketOfWhatIsTextHere(t *testing.T) {
	s := newSaid(t, time.Hour)
	imported := func(when, version string, want ...string) {
		t.Helper()
		v, err := s.r.External("made", version, textTown)
		if err == nil {
			v, err = s.r.Find("made", version)
		}
		if err != nil || !slices.Equal(privateOf(v), want) {
			t.Errorf("%s: version %s: %v, %v, want %v", when, version, privateOf(v), err, want)
		}
	}
	s.write(t, "made/1/model.yaml", "{}\n")
	s.write(t, "made/4/model.yaml", "features: [{name: name, kind: categorical}]\n")
	s.look(t)
	s.look(t)
	imported("at first", "2")
	imported("at first", "4")
	if err := os.RemoveAll(filepath.Join(s.dir, "made/4")); err != nil {
		t.Fatal(err)
	}
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: bucket}, {name: name, private: bucket}]\n")
	s.look(t)
	for _, gone := range []string{"", "made/1", "made"} {
		if gone != "" {
			if err := os.RemoveAll(filepath.Join(s.dir, gone)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			s.look(t)
			imported("gone: "+gone, "2", "name bucket", "town drop")
			imported("gone: "+gone, "3"+gone[:min(1, len(gone))], "name bucket", "town drop")
			imported("gone: "+gone, "4", "name drop", "town drop") // of few numbers that stand for something
		}
		s.r.Close()
		s.r = s.open(t, time.Hour)
	}
	s.write(t, "made/1/model.yaml", "features: [{name: name, private: bucket}]\n")
	s.look(t)
	s.look(t)
	imported("loosened", "2", "name bucket")

	// One that is served has categories where another has numbers.
	s.put(t, "../../engine/xgboost/testdata/categorical.json", "cat/2/model.json")
	s.look(t)
	v, err := s.r.Find("cat", "2")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(v.Info.Features, func(f engine.Feature) bool { return f.Categorical })
	name := v.Info.Features[i].Name
	s.write(t, "cat/1/model.yaml", "features: [{name: "+name+", private: bucket}]\n")
	s.look(t)
	for range 2 {
		if v, err := s.r.Find("cat", "2"); err != nil || !slices.Equal(privateOf(v), []string{name + " drop"}) {
			t.Errorf("served: %v, %v", privateOf(v), err)
		}
		if err := s.r.Load(t.Context(), "cat"); err != nil {
			t.Error(err)
		}
	}
}

// TestAKeyThatIsNoLongerNeeded opens imported versions that could not be brought back, however
// what needed it went, once that is found twice; those that need it say what is to be done.
func TestAKeyThatIsNoLongerNeeded(t *testing.T) {
	for _, yaml := range []string{"{}\n", "features: [{name: town, private: bucket}]\n", "features: [{name: name, private: mask}]\n"} {
		s := newSaid(t, time.Hour)
		key := []byte("a key of sixteen or more bytes")
		open := func() {
			t.Helper()
			s.r.Close()
			r, err := Open(t.Context(), Config{Dir: s.dir, Store: s.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), HashKey: func() ([]byte, error) {
				if key == nil {
					return nil, errors.New("no key today")
				}
				return key, nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			s.r = r
		}
		want := strings.ReplaceAll(strings.Trim(strings.NewReplacer("{}", "", "features: [{name: ", " ", ", private: bucket}]", "", ", private: mask}]", "").Replace(yaml), "\n"), "  ", " ")
		open()
		s.write(t, "made/1/model.yaml", "features: [{name: town, private: hash}]\n")
		s.look(t)
		s.look(t)
		s.private(t, "with a key", "made/1 town", "made/9 town")
		key = nil
		open()
		s.private(t, "without", "made/1 closed", "made/9 closed")
		if _, err := s.imports("made", "9"); err == nil || !strings.Contains(err.Error(), `version "1"`) || !strings.Contains(err.Error(), "made/9/model.yaml") {
			t.Errorf("it is not said what is to be done: %v", err)
		}
		s.write(t, "made/1/model.yaml", yaml)
		s.look(t)
		if v, err := s.r.Find("made", "9"); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s: found once: %v, %v", yaml, privateOf(v), err)
		}
		if v, err := s.imports("made", "9"); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s: found once: %v, %v", yaml, privateOf(v), err)
		}
		s.look(t)
		s.look(t)
		for _, version := range []string{"1", "9"} { // without an import
			if v, err := s.r.Find("made", version); err != nil {
				t.Errorf("%s: version %s: %v, %v", yaml, version, v, err)
			}
		}
		s.private(t, yaml, "made/1"+want, "made/9"+want, "made/10"+want)
		open()
		s.private(t, yaml+" after a start", "made/1"+want, "made/9"+want, "made/10"+want)
	}
}

// TestAModelYAMLOfItsOwn opens an imported version whose key is lost for good, with the folder of
// the one that it was taken over from.
func TestAModelYAMLOfItsOwn(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "m/3/model.yaml", "features: [{name: "+s.a+", private: hash}]\n")
	key := true
	open := func() {
		t.Helper()
		s.r.Close()
		r, err := Open(t.Context(), Config{Dir: s.dir, Store: s.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), HashKey: func() ([]byte, error) {
			if !key {
				return nil, errors.New("no key today")
			}
			return []byte("a key of sixteen or more bytes"), nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		s.r = r
	}
	s.write(t, "m/1/model.yaml", "{}\n")
	s.write(t, "m/2/model.yaml", "{}\n")
	open()
	s.look(t)
	s.look(t)
	if v, err := s.r.External("m", "9", s.served); err != nil || !slices.Equal(privateOf(v), []string{s.a + " hash"}) {
		t.Fatal(privateOf(v), err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "m/3")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	key = false
	open()
	for range 3 {
		s.look(t)
		if v, err := s.r.Find("m", "9"); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), `version "3"`) || !strings.Contains(err.Error(), "m/9/model.yaml") {
			t.Errorf("without the key: %v, %v", v, err)
		}
		if v, err := s.r.External("m", "10", s.served); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), `version "3"`) || !strings.Contains(err.Error(), "m/10/model.yaml") {
			t.Errorf("a new one: %v, %v", v, err)
		}
		if v, err := s.r.Find("m", ""); err != nil || v.Version != "2" {
			t.Errorf("without a version: %v, %v", v, err)
		}
	}
	s.write(t, "m/9/model.yaml", "features: [{name: "+s.a+", private: drop}]\n")
	s.look(t)
	s.look(t)
	if v, err := s.r.Find("m", "9"); err != nil || !slices.Equal(privateOf(v), []string{s.a + " drop"}) {
		t.Errorf("of its own: %v, %v", privateOf(v), err)
	}
	s.write(t, "m/9/model.yaml", "features: [{name: "+s.a+", private: hash}]\n")
	s.look(t)
	if v, err := s.r.Find("m", "9"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("that needs the key: %v, %v", privateOf(v), err)
	}
}

// TestWhatCouldNotBeTakenOver is not in the open once the folder is gone of the version that says
// so: it was never in force, and is meant.
func TestWhatCouldNotBeTakenOver(t *testing.T) {
	s := newSaid(t, time.Hour)
	if _, err := s.imports("made", "2"); err != nil {
		t.Fatal(err)
	}
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: drop}, {name: name, private: hash}]\n") // there is no key
	s.look(t)
	s.private(t, "without a key", "made/1 closed", "made/2 closed")
	for _, gone := range []string{"made/1", "made"} {
		if err := os.RemoveAll(filepath.Join(s.dir, gone)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s.look(t)
			if v, err := s.r.Find("made", "2"); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(err.Error(), `version "1"`) || !strings.Contains(err.Error(), "made/2/model.yaml") {
				t.Errorf("%s is gone: %v, %v", gone, privateOf(v), err)
			}
			s.private(t, "itself", "made/1 closed")
		}
	}
	s.write(t, "made/2/model.yaml", "features: [{name: name, private: mask}]\n")
	s.look(t)
	s.look(t)
	s.private(t, "one of its own", "made/2 name")
}

// TestWhatOnlyAGlanceSaw: a model.yaml that hides more closes its version as soon as it is seen, be it
// that others are being loaded; gone before it is read for that, what it said stays.
func TestWhatOnlyAGlanceSaw(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "m/1/model.yaml", "features: [{name: "+s.a+", private: drop}, {name: "+s.b+", private: drop}]\n")
	s.r.glance()
	if v, err := s.r.Find("m", "1"); !errors.Is(err, collector.ErrNotReady) {
		t.Fatalf("seen: %v, %v", privateOf(v), err)
	}
	if err := os.Remove(filepath.Join(s.dir, "m/1/model.yaml")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	s.private(t, "gone", "m/1 "+s.a+" "+s.b)
}
