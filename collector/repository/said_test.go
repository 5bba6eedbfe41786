package repository

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// said is a served and an imported version whose model.yaml hides a feature, and one served
// without a model.yaml of its own beside the first.
type said struct {
	*fixture
	r    *Repository
	a, b string // features of the served model
}

var saidInfo = &engine.Info{
	Features: []engine.Feature{{Name: "town"}, {Name: "name"}},
	Inputs:   []engine.Spec{{Name: "town", DType: engine.Float32, Shape: []int{-1}}, {Name: "name", DType: engine.Float32, Shape: []int{-1}}},
	Outputs:  []engine.Spec{{Name: "score", DType: engine.Float64, Shape: []int{-1}}},
}

func (s *said) imports(name, version string) (*collector.ModelVersion, error) {
	return s.r.External(name, version, func() (*engine.Info, error) { return saidInfo, nil })
}

func newSaid(t *testing.T, poll time.Duration) *said {
	t.Helper()
	s := &said{fixture: newFixture(t)}
	s.model(t, "m/1")
	plain, err := s.open(t, time.Hour).Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	s.a, s.b = plain.Info.Features[0].Name, plain.Info.Features[1].Name
	s.model(t, "m/2")
	s.hide(t, s.a, "town")
	s.r = s.open(t, poll)
	if _, err := s.imports("made", "1"); err != nil {
		t.Fatal(err)
	}
	s.private(t, "at first", "m/1 "+s.a, "m/2 "+s.a, "made/1 town")
	return s
}

// hide writes what hides one feature of each.
func (s *said) hide(t *testing.T, served, imported string) {
	t.Helper()
	s.write(t, "m/1/model.yaml", "features: [{name: "+served+", private: drop}]\n")
	s.write(t, "made/1/model.yaml", "features: [{name: "+imported+", private: drop}]\n")
}

// private holds what is private in versions: "model/version feature...", or "closed" for
// one that must not answer.
func (s *said) private(t *testing.T, when string, want ...string) {
	t.Helper()
	for _, w := range want {
		at, hidden, _ := strings.Cut(w, " ")
		name, version, _ := strings.Cut(at, "/")
		v, err := s.r.Find(name, version)
		if name == "made" && err != nil {
			v, err = s.imports(name, version)
		}
		if hidden == "closed" {
			if st := state(s.r, name, version); !errors.Is(err, collector.ErrNotReady) || !strings.Contains(fmt.Sprint(err), "opens by itself") || st.State == "READY" || st.Reason == "" {
				t.Errorf("%s: %s answers: %v, %v, %+v", when, at, privateOf(v), err, st)
			}
			if err := s.r.Load(t.Context(), name); err == nil {
				t.Errorf("%s: %s is loaded", when, name)
			}
			continue
		}
		var got []string
		for _, p := range privateOf(v) {
			got = append(got, strings.Fields(p)[0])
		}
		wanted := strings.Fields(hidden)
		slices.Sort(wanted)
		if err != nil || !slices.Equal(got, wanted) {
			t.Errorf("%s: %s: %v, %v, want %v", when, at, got, err, wanted)
		}
	}
}

// look is a look at its time.
func (s *said) look(t *testing.T) {
	t.Helper()
	later(s.r)
	if err := s.r.refresh(t.Context()); err != nil {
		t.Log(err)
	}
}

// later lets as much time go by as there is between two looks.
func later(r *Repository) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.models {
		for _, s := range m.versions {
			s.pending.ended = s.pending.ended.Add(-r.cfg.Poll)
		}
	}
	for _, of := range []map[string]finding{r.waiting, r.astrayHid} {
		for file, f := range of {
			f.ended = f.ended.Add(-r.cfg.Poll)
			of[file] = f
		}
	}
}

// TestWhatLooksTheSameIsRead: a model.yaml of the same size and time as before is told by
// its content, changed in place and put in its place.
func TestWhatLooksTheSameIsRead(t *testing.T) {
	for _, how := range []string{"in place", "renamed", "loaded"} {
		s := newSaid(t, time.Hour)
		for _, at := range []string{"m/1", "made/1"} {
			path := filepath.Join(s.dir, filepath.FromSlash(at), "model.yaml")
			was, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(strings.Replace(string(text), "town", "name", 1), "name: "+s.a, "name: "+s.b, 1)
			to := path
			if how == "renamed" {
				to += ".new"
			}
			if err := errors.Join(os.WriteFile(to, []byte(changed), 0o600), os.Rename(to, path), os.Chtimes(path, was.ModTime(), was.ModTime())); err != nil {
				t.Fatal(err)
			}
			if now, err := os.Stat(path); err != nil || now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime()) {
				t.Fatalf("it does not look the same: %v", err)
			}
		}
		if how == "loaded" {
			for _, name := range []string{"m", "made"} {
				if err := s.r.Load(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		} else {
			s.look(t)
			s.look(t) // it hides less of one field
		}
		s.private(t, how, "m/1 "+s.b, "m/2 "+s.b, "made/1 name")
	}
}

// TestWhatCannotBeTakenUpCloses its version, and those that take over what it says, until
// it can be.
func TestWhatCannotBeTakenUpCloses(t *testing.T) {
	s := newSaid(t, time.Hour)
	replace := func(with func(path string) error) {
		t.Helper()
		for _, at := range []string{"m/1", "made/1"} {
			path := filepath.Join(s.dir, filepath.FromSlash(at), "model.yaml")
			if err := errors.Join(os.RemoveAll(path), with(path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := func(text string) func(path string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	for _, c := range []struct {
		what string
		with func(path string) error
	}{
		{"a key misspelt", text("features: [{name: town, privat: drop}]\n")},
		{"half a file", text("features:\n  - {name: to")},
		{"not of text", text("\xfe\xff\x00f\x00e\x00a\x00t\x00u\x00r\x00e\x00s")},
		{"0 bytes", text("")},
		{"too much", text(strings.Repeat("#", maxConfig+1))},
		{"more names than columns", text("feature_names: [x]\n")},
		{"a folder", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"a link to nothing", func(path string) error { return os.Symlink("nothing", path) }},
		{"a link to itself", func(path string) error { return os.Symlink("model.yaml", path) }},
		{"a device", func(path string) error { return os.Symlink("/dev/zero", path) }},
	} {
		replace(c.with)
		s.look(t)
		s.private(t, c.what, "m/1 closed", "m/2 closed", "made/1 closed")
		replace(func(string) error { return nil })
		s.hide(t, s.a, "town")
		s.look(t)
		s.private(t, c.what+", mended", "m/1 "+s.a, "m/2 "+s.a, "made/1 town")
	}
}

// TestWhatCannotBeReadCloses: a version's folder, a model's and that of all models.
func TestWhatCannotBeReadCloses(t *testing.T) {
	s := newSaid(t, time.Hour)
	if _, err := s.imports("free", "1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		paths  []string
		closed []string
	}{
		{"versions", []string{"m/1", "made/1"}, []string{"m/1", "m/2", "made/1", "made/2"}},
		{"models", []string{"m", "made"}, []string{"m/1", "m/2", "made/1", "made/2"}},
		{"all", []string{""}, []string{"m/1", "m/2", "made/1", "made/2", "free/1", "new/1"}},
	} {
		for _, how := range []string{"a link to itself", "not permitted"} {
			if how == "not permitted" && os.Geteuid() == 0 {
				continue // root reads all
			}
			for _, p := range c.paths {
				path := filepath.Join(s.dir, p)
				var err error
				if how == "not permitted" {
					err = os.Chmod(path, 0)
				} else {
					err = errors.Join(os.Rename(path, path+".away"), os.Symlink(filepath.Base(path), path))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			// What lies where the folder was moved to must not count.
			s.look(t)
			for _, at := range c.closed {
				name, version, _ := strings.Cut(at, "/")
				if name == "m" {
					s.private(t, c.what+" "+how, at+" closed")
					continue
				}
				if v, err := s.imports(name, version); !errors.Is(err, collector.ErrNotReady) {
					t.Errorf("%s %s: %s is imported: %v %v", c.what, how, at, v, err)
				}
			}
			for _, p := range c.paths {
				path := filepath.Join(s.dir, p)
				err := os.Chmod(path, 0o700)
				if how != "not permitted" {
					err = errors.Join(os.Remove(path), os.Rename(path+".away", path))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			s.look(t)
			s.private(t, c.what+" readable", "m/1 "+s.a, "m/2 "+s.a, "made/1 town", "free/1")
		}
	}
}

// TestWhatHidesLessIsFoundTwice: half a file that is a file hides less at once; what hides
// more is in force at once, and nothing is recorded by rules that are neither.
func TestWhatHidesLessIsFoundTwice(t *testing.T) {
	s := newSaid(t, time.Hour)
	both := func(first, second string) {
		t.Helper()
		for at, names := range map[string][2]string{"m/1": {s.a, s.b}, "made/1": {"town", "name"}} {
			text := "features:\n  - {name: " + names[0] + ", private: " + first + "}\n"
			if second != "" {
				text += "  - {name: " + names[1] + ", private: " + second + "}\n"
			}
			s.write(t, at+"/model.yaml", text)
		}
	}
	two := []string{"m/1 " + s.a + " " + s.b, "m/2 " + s.a + " " + s.b, "made/1 town name"}
	one := []string{"m/1 " + s.a, "m/2 " + s.a, "made/1 town"}
	both("mask", "drop")
	s.look(t)
	s.look(t)
	s.private(t, "two", two...)
	both("mask", "") // the first half
	s.look(t)
	s.private(t, "half, seen once", two...)
	both("mask", "drop")
	s.look(t)
	s.private(t, "whole again", two...)
	both("mask", "")
	s.look(t)
	s.private(t, "seen once", two...)
	s.look(t)
	s.private(t, "seen twice", one...)
	both("drop", "mask")
	s.look(t)
	s.private(t, "stricter", two...)
	both("mask", "drop") // more of one, less of the other
	s.look(t)
	for _, at := range []string{"m", "made"} {
		if v, err := s.r.Find(at, "1"); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s: more of one, less of the other: %v, %v", at, privateOf(v), err)
		}
	}
	s.look(t)
	s.private(t, "both", two...)
	both("mask", "")
	for _, name := range []string{"m", "made"} {
		if err := s.r.Load(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	s.private(t, "loaded", one...)
	if err := os.Remove(filepath.Join(s.dir, "m", "1", "model.yaml")); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	s.look(t)
	s.private(t, "gone", one...)
	s.write(t, "m/1/model.yaml", "{}\n")
	s.look(t)
	s.private(t, "nothing, seen once", one...)
	s.look(t)
	s.private(t, "nothing, seen twice", "m/1", "m/2")
}

// TestABrokenFileThatIsDeleted: an imported model goes on under what it said last.
func TestABrokenFileThatIsDeleted(t *testing.T) {
	s := newSaid(t, time.Hour)
	for _, gone := range []string{"made/1/model.yaml", "made/1", "made"} {
		s.hide(t, s.a, "town")
		s.look(t)
		s.write(t, "made/1/model.yaml", "features: [{name: tow")
		s.look(t)
		s.private(t, "broken", "made/1 closed")
		if err := os.RemoveAll(filepath.Join(s.dir, filepath.FromSlash(gone))); err != nil {
			t.Fatal(err)
		}
		if err := s.r.Load(t.Context(), "made"); err != nil {
			t.Errorf("%s is gone: %v", gone, err)
		}
		s.private(t, gone+" is gone", "made/1 town")
	}
}

// TestALongLoadClosesMeanwhile what it is to hide more of.
func TestALongLoadClosesMeanwhile(t *testing.T) {
	s := newSaid(t, 5*time.Millisecond)
	s.model(t, "other/1")
	s.write(t, "other/1/model.yaml", "features: [{name: "+s.a+", private: drop}]\n")
	within(t, "the other one answers", func() bool {
		_, err := s.r.Find("other", "1")
		return err == nil
	})
	s.r.loading.Lock() // no version is loaded until this is given back
	s.write(t, "m/1/model.yaml", "features: [{name: "+s.a+", private: drop}, {name: "+s.b+", private: drop}]\n")
	within(t, "it is closed", func() bool {
		_, err := s.r.Find("m", "1")
		return errors.Is(err, collector.ErrNotReady) && strings.Contains(err.Error(), beingRead)
	})
	// What changes now is not waited for: imported ones go by it, served ones are closed.
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: drop}, {name: name, private: drop}]\n")
	within(t, "the imported one is under it", func() bool {
		v, err := s.r.Find("made", "1")
		return err == nil && len(privateOf(v)) == 2
	})
	path := filepath.Join(s.dir, "other/1/model.yaml")
	if err := os.Rename(path, path+".was"); err != nil {
		t.Fatal(err)
	}
	s.write(t, "other/1/model.yaml", "features: [{name: "+s.b+", private: drop}]\n")
	within(t, "the other one is closed", func() bool {
		_, err := s.r.Find("other", "1")
		return errors.Is(err, collector.ErrNotReady) && strings.Contains(err.Error(), beingRead)
	})
	if err := os.Rename(path+".was", path); err != nil { // of the same size, time and identity
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // looks, which must not put it in place of the one to come
	s.r.loading.Unlock()
	within(t, "the other one is what it was", func() bool {
		v, err := s.r.Find("other", "1")
		return err == nil && slices.Equal(privateOf(v), []string{s.a + " drop"})
	})
	within(t, "it is in force", func() bool {
		v, err := s.r.Find("m", "1")
		w, err2 := s.r.Find("m", "2")
		return errors.Join(err, err2) == nil && len(privateOf(v)) == 2 && len(privateOf(w)) == 2
	})
}

// TestWhatIsNotBroughtBackStaysClosed: an imported version without its key is not made anew
// without its rules, also when its folder has gone.
func TestWhatIsNotBroughtBackStaysClosed(t *testing.T) {
	for _, gone := range []string{"", "made/1/model.yaml", "made"} {
		s := &said{fixture: newFixture(t)}
		s.write(t, "made/1/model.yaml", "features: [{name: town, private: hash}]\n")
		var lost atomic.Bool
		open := func() {
			t.Helper()
			r, err := Open(t.Context(), Config{Dir: s.dir, Store: s.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), HashKey: func() ([]byte, error) {
				if lost.Load() {
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
		open()
		if _, err := s.imports("made", "1"); err != nil {
			t.Fatal(err)
		}
		lost.Store(true)
		open()
		s.private(t, "without a key", "made/1 closed")
		if gone != "" {
			if err := os.RemoveAll(filepath.Join(s.dir, filepath.FromSlash(gone))); err != nil {
				t.Fatal(err)
			}
		}
		s.look(t)
		if v, err := s.imports("made", "1"); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("without %q: %v, %v", gone, privateOf(v), err)
		}
		lost.Store(false)
		s.look(t)
		s.private(t, "with its key", "made/1 town")
		if !s.r.Private() {
			t.Error("nothing is private")
		}
	}
}

// TestANewVersionBesideHalfAFile does not take over what hides less and was not found twice.
func TestANewVersionBesideHalfAFile(t *testing.T) {
	s := newSaid(t, time.Hour)
	s.write(t, "made/1/model.yaml", "task: binary\n")
	for _, when := range []string{"before a look", "seen once"} {
		if v, err := s.imports("made", "2"); !errors.Is(err, collector.ErrNotReady) {
			t.Errorf("%s: %v, %v", when, privateOf(v), err)
		}
		s.look(t)
	}
	if v, err := s.imports("made", "2"); err != nil || len(privateOf(v)) > 0 {
		t.Errorf("seen twice: %v, %v", privateOf(v), err)
	}
}

// TestNothingIsPrivateOnceAllIsOpen: texts of spans are kept again without a restart, and not
// before the last private field is open.
func TestNothingIsPrivateOnceAllIsOpen(t *testing.T) {
	s := newSaid(t, time.Hour)
	is := func(when string, private bool) {
		t.Helper()
		for range 3 {
			s.look(t) // what hides less is taken up when it is found twice
		}
		if s.r.Private() != private {
			t.Errorf("%s: private %t", when, s.r.Private())
		}
	}
	is("at first", true)
	s.write(t, "m/1/model.yaml", "{}\n")
	is("one model is open", true)
	s.write(t, "made/1/model.yaml", "{}\n")
	is("all is open", false)
	s.private(t, "all is open", "m/1", "m/2", "made/1")
	s.write(t, "made/1/model.yaml", "features: [{name: town, private: dr")
	is("a file cannot be read", true)
	s.write(t, "made/1/model.yaml", "task: binary\n")
	is("it can be read", false)
	s.write(t, "new/1/model.yaml", "features: [{name: town, private: drop}]\n")
	is("one that nothing came of", true)
	if err := os.RemoveAll(filepath.Join(s.dir, "new")); err != nil {
		t.Fatal(err)
	}
	is("what its folder said last holds for what may yet come", true)
	if v, err := s.imports("new", "2"); err != nil || len(privateOf(v)) != 1 {
		t.Errorf("%v, %v", privateOf(v), err)
	}
}
