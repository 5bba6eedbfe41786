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
	s.private(t, "gone, before a look", "made/1 town name", "made/2 town name")
	if v, err := s.imports("made", "4"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("a new one before a look: %v, %v", privateOf(v), err)
	}
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

// TestABareFileAndItsFolder: the model.yaml in models/NAME/1 is that of models/NAME.onnx, and
// changes with it like any other; two models are no version.
func TestABareFileAndItsFolder(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.put(t, s.oracle.Model, "bare.json")
	s.look(t)
	s.private(t, "a bare file", "bare/1")
	for _, c := range []struct {
		yaml  string
		looks int
		want  string
	}{
		{"features: [{name: " + s.a + ", private: drop}]\n", 1, " " + s.a},
		{"features: [{name: " + s.a + ", private: drop}, {name: " + s.b + ", private: drop}]\n", 1, " " + s.a + " " + s.b},
		{"features: [{name: " + s.b + ", private: drop}]\n", 2, " " + s.b},
		{"features: [{name: " + s.a + ", privat: drop}]\n", 1, " closed"},
		{"features: [{name: " + s.a + ", private: drop}]\nreference: rows.csv\n", 1, " closed"},
		{"{}\n", 2, ""},
		{"features: [{name: " + s.a + ", private: drop}]\n", 1, " " + s.a},
	} {
		s.write(t, "bare/1/model.yaml", c.yaml)
		for range c.looks {
			s.look(t)
		}
		s.private(t, c.yaml, "bare/1"+c.want)
	}
	v, err := s.r.Find("bare", "1")
	if err != nil {
		t.Fatal(err)
	}
	back, err := s.r.fromStore(v.Digest)
	if err != nil || len(privateOf(back.version)) != 1 || back.version.Schema.ID != v.Schema.ID {
		t.Errorf("from the store: %v", err)
	}
	s.put(t, s.oracle.Model, "bare/1/model.json")
	s.look(t)
	if st := state(s.r, "bare", "1"); !strings.Contains(st.Reason, "more than one model file") {
		t.Errorf("two models: %+v", st)
	}
	if err := os.Remove(filepath.Join(s.dir, "bare.json")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	s.private(t, "in its folder", "bare/1 "+s.a)
}

// TestAVersionThatWasImportedAndIsServed goes when its folder does, and what is imported of it
// then is new.
func TestAVersionThatWasImportedAndIsServed(t *testing.T) {
	s := newSaid(t, time.Hour)
	info := &engine.Info{Outputs: saidInfo.Outputs}
	for _, name := range []string{s.a, s.b} {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1}})
	}
	imports := func(want ...string) {
		t.Helper()
		v, err := s.r.External("m", "5", func() (*engine.Info, error) { return info, nil })
		if err != nil || !slices.Equal(privateOf(v), want) {
			t.Errorf("imported: %v, %v, want %v", privateOf(v), err, want)
		}
	}
	imports(s.a + " drop")
	s.model(t, "m/5")
	s.look(t)
	if v, err := s.r.Find("m", "5"); err != nil || v.Model == nil {
		t.Fatal(v, err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "m/5")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	if v, err := s.r.Find("m", "5"); !errors.Is(err, collector.ErrNotFound) {
		t.Errorf("without its folder: %v, %v", v, err)
	}
	if err := errors.Join(s.r.Unload(t.Context(), "m"), s.r.Load(t.Context(), "m")); err != nil {
		t.Error(err)
	}
	s.write(t, "m/1/model.yaml", "features: [{name: "+s.a+", private: drop}, {name: "+s.b+", private: drop}]\n")
	s.look(t)
	imports(s.a+" drop", s.b+" drop")
	s.write(t, "m/1/model.yaml", "features: [{name: "+s.a+", privat: drop}]\n")
	s.look(t)
	if v, err := s.r.External("m", "5", func() (*engine.Info, error) { return info, nil }); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("beside half a file: %v, %v", privateOf(v), err)
	}
}

// TestAnImportWhoseOwnFileIsDeleted keeps what that said and takes over what the others say.
func TestAnImportWhoseOwnFileIsDeleted(t *testing.T) {
	for _, gone := range []string{"made/3", "made/3/model.yaml"} {
		for _, down := range []bool{false, true} {
			s := newSaid(t, time.Hour)
			s.write(t, "made/3/model.yaml", "features: [{name: name, private: bucket}, {name: town, kind: categorical}]\n")
			s.look(t)
			s.private(t, "its own", "made/1 town", "made/3 name")
			if down {
				s.r.Close()
			}
			if err := os.RemoveAll(filepath.Join(s.dir, gone)); err != nil {
				t.Fatal(err)
			}
			if down {
				s.r = s.open(t, time.Hour)
			} else {
				s.look(t)
			}
			what := gone + " gone"
			s.private(t, what, "made/1 town", "made/3 name town", "made/4 name town")
			s.write(t, "made/1/model.yaml", "features: [{name: town, privat: drop}]\n")
			s.look(t)
			s.private(t, what+", the other broken", "made/1 closed", "made/3 closed")
			s.write(t, "made/1/model.yaml", "{}\n")
			s.look(t)
			s.look(t)
			s.private(t, what+", the other open", "made/1", "made/3 name")
			s.write(t, "made/3/model.yaml", "{}\n")
			s.look(t)
			s.look(t)
			s.private(t, "its own again", "made/1", "made/3")
		}
	}
}

// TestImportsUnderRulesThatComeAndGo: a rule for all models makes an imported version another
// one, which follows the others all the same.
func TestImportsUnderRulesThatComeAndGo(t *testing.T) {
	s := newSaid(t, time.Hour)
	if _, err := s.imports("made", "2"); err != nil {
		t.Fatal(err)
	}
	rules := []collector.PrivateRule{{Pattern: "*.name", Private: collector.PrivacyMask}}
	for _, r := range [][]collector.PrivateRule{rules, nil, rules} {
		s.r.Close()
		var err error
		if s.r, err = Open(t.Context(), Config{Dir: s.dir, Store: s.store, Poll: time.Hour, Rules: r, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.r.Close)
		by := ""
		if r != nil {
			by = " name"
		}
		s.private(t, "started"+by, "made/1 town"+by, "made/2 town"+by, "made/3 town"+by)
		s.hide(t, s.a, "town, private: drop}, {name: name")
		s.look(t)
		s.private(t, "more"+by, "made/1 town name", "made/2 town name")
		s.hide(t, s.a, "town")
		s.look(t)
		s.look(t)
		s.private(t, "less"+by, "made/1 town"+by, "made/2 town"+by)
	}
}

// TestAMisnamedFileCloses: whoever writes a model.yml means something private.
func TestAMisnamedFileCloses(t *testing.T) {
	for _, name := range []string{"model.yml", "MODEL.YAML", "Model.yaml"} {
		s := newSaid(t, time.Hour)
		if _, err := s.imports("made", "2"); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{"m/1", "made/1"} {
			dir := filepath.Join(s.dir, at)
			if err := os.Rename(filepath.Join(dir, "model.yaml"), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		s.look(t)
		s.private(t, name, "m/1 closed", "m/2 closed", "made/1 closed", "made/2 closed")
		if st := state(s.r, "m", "1"); !strings.Contains(st.Reason, name) {
			t.Errorf("%+v", st)
		}
		s.hide(t, s.a, "town")
		s.look(t)
		s.private(t, name+" beside model.yaml", "m/1 "+s.a, "m/2 "+s.a, "made/1 town", "made/2 town")
	}
}

// TestWhatAVersionSaidThatNeverLoaded or whose folder is away holds in those that say nothing.
func TestWhatAVersionSaidThatNeverLoaded(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "broken/1/model.json", "{")
	s.write(t, "broken/1/model.yaml", "features: [{name: name, private: drop}]\n")
	s.look(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "broken")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	if v, err := s.imports("broken", "2"); err != nil || !slices.Equal(privateOf(v), []string{"name drop"}) {
		t.Errorf("of one that never loaded: %v, %v", privateOf(v), err)
	}
	// A folder that is away for a moment, or since the start.
	s.write(t, "made/2/model.yaml", "features: [{name: town, private: drop}, {name: name, private: drop}]\n")
	s.look(t)
	s.private(t, "two folders", "made/1 town", "made/2 town name", "made/9 town name")
	away := func(now bool) {
		t.Helper()
		from, to := filepath.Join(s.dir, "made/2"), filepath.Join(s.dir, "made/.away")
		if !now {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	away(true)
	if v, err := s.imports("made", "10"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("a new one while a folder is away: %v, %v", privateOf(v), err)
	}
	s.look(t)
	s.look(t)
	s.private(t, "away", "made/9 town name", "made/11 town name")
	s.r.Close()
	s.r = s.open(t, time.Hour)
	s.private(t, "away at the start", "made/9 town name", "made/12 town name")
	away(false)
	s.look(t)
	s.private(t, "back", "made/2 town name", "made/9 town name")
	// Served without a model.yaml beside one that goes.
	if err := os.RemoveAll(filepath.Join(s.dir, "m/1")); err != nil {
		t.Fatal(err)
	}
	s.model(t, "m/3")
	s.look(t)
	s.look(t)
	s.private(t, "served, the other gone", "m/2 "+s.a, "m/3 "+s.a)
}

// TestAModelThatIsTakenAway leaves a version that imports may be told of.
func TestAModelThatIsTakenAway(t *testing.T) {
	s := newSaid(t, time.Hour)
	if err := os.Remove(filepath.Join(s.dir, "m/1/model.json")); err != nil {
		t.Fatal(err)
	}
	s.write(t, "m/1/model.yaml", "features: [{name: town, private: drop}, {name: name, private: drop}]\n")
	s.look(t)
	s.look(t) // it hides less of one feature
	if v, err := s.r.Find("m", "1"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("without its model: %v, %v", v, err)
	}
	if v, err := s.imports("m", "1"); err != nil || len(privateOf(v)) != 2 {
		t.Errorf("imported: %v, %v", privateOf(v), err)
	}
}

// TestALostKeyThatIsNoLongerNeeded: an imported version that took over what is sealed opens
// when the others hide it in a way that needs no key.
func TestALostKeyThatIsNoLongerNeeded(t *testing.T) {
	s := &said{fixture: newFixture(t)}
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: hash}]\n")
	key := []byte("a key of sixteen or more bytes")
	open := func() {
		t.Helper()
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
	open()
	s.private(t, "with a key", "made/1 town", "made/9 town")
	s.r.Close()
	key = nil
	open()
	s.private(t, "without", "made/1 closed", "made/9 closed")
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: drop}]\n")
	s.look(t)
	s.look(t)
	s.private(t, "needed no more", "made/1 town", "made/9 town", "made/10 town")
}
