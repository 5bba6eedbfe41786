package repository

import (
	"bytes"
	"errors"
	"fmt"
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

// both is a model.yaml that hides both features of the served model.
func (s *said) both() string {
	return "features: [{name: " + s.a + ", private: drop}, {name: " + s.b + ", private: drop}]\n"
}

// isClosed holds versions to be closed while what their model.yaml says is put in force.
func (s *said) isClosed(t *testing.T, versions ...string) {
	t.Helper()
	for _, at := range versions {
		name, version, _ := strings.Cut(at, "/")
		within(t, at+" is closed", func() bool {
			_, err := s.r.Find(name, version)
			return errors.Is(err, collector.ErrNotReady) && strings.Contains(err.Error(), beingRead)
		})
	}
}

// TestAllThatMayHideMoreIsClosedBeforeAnyIsLoaded, those that follow it too: what is loaded before
// it may be long, and nothing goes by the older rules meanwhile.
func TestAllThatMayHideMoreIsClosedBeforeAnyIsLoaded(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.model(t, "other/1")
	s.look(t)
	s.write(t, "m/1/model.yaml", s.both())
	s.write(t, "other/1/model.yaml", s.both())
	s.r.loading.Lock() // no version is loaded until this is given back
	done := make(chan error, 1)
	go func() { done <- s.r.refresh(t.Context()) }()
	s.isClosed(t, "m/1", "m/2", "other/1")
	s.r.loading.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.private(t, "loaded", "m/1 "+s.a+" "+s.b, "m/2 "+s.a+" "+s.b, "other/1 "+s.a+" "+s.b)
}

// TestALoadThatLooksOvertakeIsInForce: looks come while a large model is loaded. Those that find
// what it is loaded for do not have it loaded again; where they find its files changed it stays
// closed, and has the model that was loaded.
func TestALoadThatLooksOvertakeIsInForce(t *testing.T) {
	for _, edited := range []bool{false, true} {
		s := newSaid(t, time.Hour)
		s.write(t, "m/1/model.yaml", s.both())
		s.write(t, "m/1/weights.bin", "the model is another one")
		was, err := s.r.Find("m", "1")
		if err != nil {
			t.Fatal(err)
		}
		s.r.loading.Lock()
		done := make(chan error, 1)
		go func() { done <- s.r.refresh(t.Context()) }()
		s.isClosed(t, "m/1", "m/2")
		if edited {
			s.write(t, "m/1/model.yaml", "# edited\n"+s.both())
		}
		for range 3 {
			s.r.glance()
		}
		s.r.loading.Unlock()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !edited {
			s.private(t, "looked at meanwhile", "m/1 "+s.a+" "+s.b, "m/2 "+s.a+" "+s.b)
			continue
		}
		s.isClosed(t, "m/1", "m/2")
		loaded := s.r.slotOf("m", "1").live.version.Model
		if loaded == was.Model {
			t.Error("what was loaded is not in place")
		}
		s.look(t)
		s.private(t, "edited meanwhile", "m/1 "+s.a+" "+s.b, "m/2 "+s.a+" "+s.b)
		if is, err := s.r.Find("m", "1"); err != nil || is.Model != loaded {
			t.Errorf("the model was loaded twice: %v", err)
		}
	}
}

// TestAFailedLoadThatLooksOvertakeIsTold: its reason is not lost.
func TestAFailedLoadThatLooksOvertakeIsTold(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "m/1/model.yaml", s.both())
	s.write(t, "m/1/model.json", "{")
	s.r.loading.Lock()
	done := make(chan error, 1)
	go func() { done <- s.r.refresh(t.Context()) }()
	s.isClosed(t, "m/1")
	s.r.glance()
	s.r.loading.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := state(s.r, "m", "1"); st.State != "UNAVAILABLE" || !strings.Contains(st.Reason, "model.json") {
		t.Errorf("%+v", st)
	}
}

// TestAChangedModelYAMLLoadsNoModel: the version is another one, of the same model in memory; one
// whose model file or weights changed as well is read anew. The digests are those of files read.
func TestAChangedModelYAMLLoadsNoModel(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.put(t, s.oracle.Model, "bare.json")
	s.write(t, "m/1/more.bin", "weights")
	s.look(t)
	model := func(at string) *collector.ModelVersion {
		t.Helper()
		v, err := s.r.Find(filepath.Dir(at), filepath.Base(at))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	all := []string{"m/1", "m/2", "bare/1"}
	was := map[string]*collector.ModelVersion{}
	step := func(what string, anew ...string) {
		t.Helper()
		s.look(t)
		s.look(t)
		fresh := &fixture{dir: s.dir, store: t.TempDir()}
		read := fresh.open(t, time.Hour)
		for _, at := range all {
			is := model(at)
			if old := was[at]; old != nil && (is.Model == old.Model) == slices.Contains(anew, at) {
				t.Errorf("%s: %s: of the model that was there: %t", what, at, is.Model == old.Model)
			}
			v, err := read.Find(is.Name, is.Version)
			if err != nil || v.Digest != is.Digest {
				t.Errorf("%s: %s is %s, read anew it would be %v, %v", what, at, is.Digest, v, err)
			}
			if back, err := s.r.fromStore(is.Digest); err != nil || back.version.Schema.ID != is.Schema.ID {
				t.Errorf("%s: %s from the store: %v", what, at, err)
			}
			was[at] = is
		}
	}
	step("at first")
	s.write(t, "m/1/model.yaml", s.both())
	s.write(t, "bare/1/model.yaml", s.both())
	step("more is hidden")
	s.write(t, "m/1/.model.yaml.swp", "an editor")
	s.write(t, "m/1/model.yaml", "features: [{name: "+s.a+", private: mask}]\n")
	s.write(t, "bare/1/model.yaml", "{}\n")
	step("less is hidden")
	s.write(t, "m/1/model.yaml", "{}\n")
	step("nothing is")
	s.put(t, s.oracle.Model, "m/1/model.json")
	s.put(t, s.oracle.Model, "bare.json")
	s.write(t, "m/1/model.yaml", s.both())
	step("the file is another", "m/1", "bare/1")
	s.write(t, "m/1/more.bin", "other weights")
	step("weights are", "m/1")
}

// TestAChangedModelYAMLIsGated: a version that did not reproduce its golden data does not because
// its model is not loaded again.
func TestAChangedModelYAMLIsGated(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "m/1/test_data_set_0/input_0.pb", "nothing that could be read")
	s.write(t, "m/1/model.yaml", s.both())
	s.look(t)
	if st := state(s.r, "m", "1"); st.State != "UNAVAILABLE" || !strings.Contains(st.Reason, "golden") {
		t.Errorf("%+v", st)
	}
}

// TestWhatIsSmallIsLoadedFirst, and by a look of its own while large models are loaded; what takes
// over is after what it takes over.
func TestWhatIsSmallIsLoadedFirst(t *testing.T) {
	of := func(name, version, rules string, bytes int64) source {
		return source{name: name, version: version, rules: rules, bytes: bytes}
	}
	todo := []source{of("a", "1", "x", 100), of("b", "1", "x", 300), of("c", "1", noRules, 5), of("a", "2", noRules, 1), of("b", "2", noRules, 400), of("d", "1", "x", 50)}
	weights := inLoadOrder(todo)
	var got []string
	for i, s := range todo {
		got = append(got, fmt.Sprint(s.name, s.version, " ", weights[i]))
	}
	if want := []string{"c1 5", "d1 50", "a1 100", "a2 100", "b1 300", "b2 400"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s := newSaid(t, time.Hour)
	s.model(t, "large/1")
	if err := os.Truncate(filepath.Join(s.dir, "large/1/model.json"), smallModel+1); err != nil {
		t.Fatal(err)
	}
	s.model(t, "large/2")
	s.write(t, "large/1/model.yaml", "{}\n")
	s.write(t, "m/1/model.yaml", s.both())
	s.model(t, "small/1")
	later(s.r)
	if err := s.r.look(t.Context(), "", false, smallModel); err != nil {
		t.Fatal(err)
	}
	s.private(t, "what is small", "m/1 "+s.a+" "+s.b, "m/2 "+s.a+" "+s.b, "small/1")
	for _, version := range []string{"1", "2"} {
		if st := state(s.r, "large", version); st.Reason != "" || st.State == "READY" {
			t.Errorf("what is large: %+v", st)
		}
	}
}

// served is what describes imports of the served model.
func (s *said) served() (*engine.Info, error) {
	info := &engine.Info{Outputs: saidInfo.Outputs}
	for _, name := range []string{s.a, s.b} {
		info.Features = append(info.Features, engine.Feature{Name: name})
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1}})
	}
	return info, nil
}

// TestAModelThatComesBackWithoutItsYAML is served by the next look, or load, under what it said
// last, be it that imports have been told of it meanwhile, until a model.yaml says otherwise.
func TestAModelThatComesBackWithoutItsYAML(t *testing.T) {
	for _, imported := range []bool{false, true} {
		for _, how := range []string{"look", "load", "start"} {
			for _, bare := range []bool{false, true} {
				what := fmt.Sprintf("imported %t, %s, bare %t", imported, how, bare)
				s := newSaid(t, time.Hour)
				if bare { // its folder may have had a model, or only a model.yaml
					if err := os.Remove(filepath.Join(s.dir, "m/1/model.json")); err != nil {
						t.Fatal(err)
					}
					s.look(t)
				}
				if err := os.RemoveAll(filepath.Join(s.dir, "m")); err != nil {
					t.Fatal(err)
				}
				s.look(t)
				s.look(t)
				if imported {
					if v, err := s.r.External("m", "1", s.served); err != nil || v.Config.PrivateFeature() != s.a {
						t.Fatalf("%s: %v", what, err)
					}
				}
				if bare {
					s.put(t, s.oracle.Model, "m.json")
				} else {
					s.model(t, "m/1")
					s.model(t, "m/2")
				}
				switch how {
				case "look":
					s.look(t)
				case "load":
					if err := s.r.Load(t.Context(), "m"); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				case "start":
					s.r.Close()
					s.r = s.open(t, time.Hour)
				}
				here := []string{"m/1 " + s.a}
				if !bare {
					here = append(here, "m/2 "+s.a)
				}
				for range 3 {
					s.private(t, what, here...)
					if v, err := s.r.Find("m", "1"); err != nil || v.Model == nil {
						t.Errorf("%s: it is not served: %v, %v", what, v, err)
					}
					s.look(t)
				}
				s.model(t, "m/5") // as does what takes over from it
				s.r.Close()
				s.r = s.open(t, time.Hour)
				if err := s.r.Load(t.Context(), "m"); err != nil {
					t.Error(err)
				}
				s.private(t, what+", started again", here...)
				s.write(t, "m/1/model.yaml", "{}\n")
				s.look(t)
				s.look(t)
				s.private(t, what+", opened", "m/1")
				if !bare {
					s.private(t, what+", opened", "m/2")
				}
			}
		}
	}
}

// TestWhatLiesUnderAnUpstreamsName: a model.yaml there that hides more than the upstream's
// configuration, or cannot be read, shuts the upstream.
func TestWhatLiesUnderAnUpstreamsName(t *testing.T) {
	f := newFixture(t)
	var log bytes.Buffer
	cfg := collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "name", Private: collector.PrivacyDrop}}}
	version := func() *collector.ModelVersion {
		info, err := applyConfig(saidInfo, cfg)
		if err != nil {
			t.Fatal(err)
		}
		schema, err := collector.NewSchema(info, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return &collector.ModelVersion{Name: "far", Version: "1", Digest: "far", Info: info, Schema: schema, Config: cfg}
	}
	f.write(t, "far/3/model.yaml", "features: [{name: town, private: drop}]\n")
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: time.Hour, Remote: map[string]collector.ModelConfig{"far": cfg}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if err := r.Shut("far"); err != nil {
		t.Errorf("before it is known what it has: %v", err)
	}
	r.AddRemote(version())
	holds := func(what, says string) {
		t.Helper()
		err := r.Shut("far")
		_, found := r.Find("far", "1")
		_, known := r.Policies("far", "1", []string{"town", "name"})
		_, another := r.External("far", "9", func() (*engine.Info, error) { return saidInfo, nil })
		st := state(r, "far", "1")
		if says == "" {
			if all := errors.Join(err, found, known, another); all != nil || st.State != "READY" {
				t.Errorf("%s: %v, %+v", what, all, st)
			}
			return
		}
		for _, e := range []error{err, found, known, another} {
			if !errors.Is(e, collector.ErrNotReady) || !strings.Contains(e.Error(), says) || !strings.Contains(e.Error(), "configuration") {
				t.Errorf("%s: %v", what, e)
			}
		}
		if st.State != "UNAVAILABLE" || !strings.Contains(st.Reason, says) || !strings.Contains(log.String(), filepath.Base(says)) {
			t.Errorf("%s: %+v", what, st)
		}
		if v, err := r.Known("far", "1"); err != nil {
			t.Errorf("what is stored of it: %v, %v", v, err)
		}
	}
	holds("at the start", "far/3/model.yaml")
	for i, c := range []struct{ yaml, says string }{
		{"{}\n", ""},
		{"features: [{name: name, private: drop}]\n", ""},
		{"features: [{name: name, private: mask}]\n", ""},
		{"features: [{name: name, private: dr", "far/3/model.yaml"},
		{"", "far/3/model.yaml"},
		{"features: [{name: b, private: drop}]\nfeature_names: [a, b]\n", ""},
		{"features: [{name: a, private: hash}]\nfeature_names: [a, b]\n", "far/3/model.yaml"},
		{"features: [{name: elsewhere, private: drop}]\n", ""},
	} {
		f.write(t, "far/3/model.yaml", c.yaml)
		for range 2 { // what hides less is found again
			later(r)
			if i%2 == 0 {
				err = r.refresh(t.Context())
			} else {
				r.glance()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		holds(c.yaml, c.says)
	}
	if !r.Private() {
		t.Error("nothing is private")
	}
	path := filepath.Join(f.dir, "far")
	if err := errors.Join(os.RemoveAll(path), os.Symlink("far", path)); err != nil {
		t.Fatal(err)
	}
	r.glance()
	holds("a link to itself", "far")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.glance()
	holds("nothing", "")
}

// TestAModelOfAnImportedVersion is served though it is to hide less than what was imported: that is
// found twice, and no look in between begins that anew.
func TestAModelOfAnImportedVersion(t *testing.T) {
	s := newSaid(t, time.Hour)
	if v, err := s.r.External("m", "5", s.served); err != nil || v.Config.PrivateFeature() != s.a {
		t.Fatal(v, err)
	}
	s.write(t, "m/1/model.yaml", "{}\n")
	s.model(t, "m/5")
	for range 3 {
		s.look(t)
	}
	s.private(t, "served", "m/1", "m/5")
	if v, err := s.r.Find("m", "5"); err != nil || v.Model == nil {
		t.Errorf("it is not served: %v, %v", v, err)
	}
}

// TestAModelYAMLDeletedUnderAnUpstreamsName opens nothing, nor does a start after that: it is told
// from one that was never there until the configuration says it or the folder has gone.
func TestAModelYAMLDeletedUnderAnUpstreamsName(t *testing.T) {
	f := newFixture(t)
	private := filepath.Join(t.TempDir(), "models.private")
	var r *Repository
	open := func(hidden ...string) {
		t.Helper()
		if r != nil {
			r.Close()
		}
		var cfg collector.ModelConfig
		for _, name := range hidden {
			cfg.Features = append(cfg.Features, collector.FeatureConfig{Name: name, Private: collector.PrivacyDrop})
		}
		schema, err := collector.NewSchema(saidInfo, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = Open(t.Context(), Config{Dir: f.dir, Store: f.store, Private: private, Poll: time.Hour, Remote: map[string]collector.ModelConfig{"far": cfg}, Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		r.AddRemote(&collector.ModelVersion{Name: "far", Version: "1", Digest: "far", Info: saidInfo, Schema: schema, Config: cfg})
	}
	is := func(when string, shut bool) {
		t.Helper()
		for range 2 {
			later(r)
			if err := r.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := r.Shut("far")
			if shut != errors.Is(err, collector.ErrNotReady) || shut && !strings.Contains(err.Error(), "far/1/model.yaml") {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	deleted := func(at string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(f.dir, at)); err != nil {
			t.Fatal(err)
		}
	}
	f.write(t, "far/1/model.yaml", "features: [{name: town, private: drop}, {name: name, private: drop}]\n")
	f.write(t, "far/2/model.yaml", "{}\n")
	open("name")
	is("as it is", true)
	deleted("far/1/model.yaml")
	is("deleted", true)
	r.glance()
	is("looked at", true)
	open("name")
	is("after a start", true)
	deleted("far/1")
	is("its version's folder too", true)
	open("name", "town")
	is("configured", false)
	open("name")
	is("no longer configured", true)
	f.write(t, "far/1/model.yaml", "{}\n")
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	is("it says nothing", false)
	deleted("far/1/model.yaml")
	is("what said nothing is deleted", false)
	f.write(t, "far/1/model.yaml", "features: [{name: town, private: drop}]\n")
	is("it says something again", true)
	deleted("far")
	is("the folder has gone", false)
	if v, err := r.External("far", "9", func() (*engine.Info, error) { return saidInfo, nil }); err != nil || !slices.Equal(privateOf(v), []string{"name drop"}) {
		t.Errorf("an import once the folder has gone: %v, %v", privateOf(v), err)
	}
	open("name")
	f.write(t, "far/2/model.yaml", "{}\n")
	is("another folder after a start", false)
}
