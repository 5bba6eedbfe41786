package repository

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestWhatWasPrivateIsKnownWithoutItsFile: a version whose model.yaml has gone together with
// what says what was private last, be it alone, with its copy or with the whole store, hides
// what it did, and that is told once; a model.yaml of its own opens it.
func TestWhatWasPrivateIsKnownWithoutItsFile(t *testing.T) {
	const gone = "what was private last"
	for _, c := range []struct {
		name string
		take func(store, private string) error
		told bool
	}{
		{"nothing else", func(string, string) error { return nil }, false},
		{"the file", func(store, _ string) error { return os.Remove(filepath.Join(store, inForceFile)) }, true},
		{"the copy", func(_, private string) error { return os.Remove(private) }, false},
		{"the copy emptied", func(_, private string) error { return os.Truncate(private, 0) }, true},
		{"the file emptied", func(store, _ string) error { return os.Truncate(filepath.Join(store, inForceFile), 0) }, true},
		{"the file cut", func(store, _ string) error { return os.Truncate(filepath.Join(store, inForceFile), 9) }, true},
		{"the file is null", func(store, _ string) error {
			return os.WriteFile(filepath.Join(store, inForceFile), []byte("null"), 0o600)
		}, true},
		{"the file is {}", func(store, _ string) error {
			return os.WriteFile(filepath.Join(store, inForceFile), []byte("{}"), 0o600)
		}, true},
		{"the file is of another kind", func(store, _ string) error {
			return os.WriteFile(filepath.Join(store, inForceFile), []byte(`{"other": {"1": {}}, "m": []}`), 0o600)
		}, true},
		{"both", func(store, private string) error {
			return errors.Join(os.Remove(filepath.Join(store, inForceFile)), os.Remove(private))
		}, true},
		{"the file, and the copy emptied", func(store, private string) error {
			return errors.Join(os.Remove(filepath.Join(store, inForceFile)), os.Truncate(private, 0))
		}, true},
		{"the whole store", func(store, _ string) error { return os.RemoveAll(store) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			private := filepath.Join(t.TempDir(), "models.private")
			var told []string
			open := func() *Repository {
				t.Helper()
				told = nil
				r, err := Open(t.Context(), Config{
					Dir: f.dir, Store: f.store, Private: private, Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
					Missed: func(what []string) error { told = append(told, what...); return nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(r.Close)
				return r
			}
			hides := func(when string, want collector.Privacy) {
				t.Helper()
				r := open()
				defer r.Close()
				v, err := r.Find("m", "1")
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				if got := policyIn(v.Config, v.Info.Features[0].Name); got != want {
					t.Errorf("%s: it is private by %q, want %q", when, got, want)
				}
			}
			f.model(t, "m/1")
			f.model(t, "open/1")
			r := open()
			v, err := r.Find("m", "1")
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			f.write(t, "m/1/model.yaml", "features: [{name: "+v.Info.Features[0].Name+", private: mask}]\n")
			hides("as it is", collector.PrivacyMask)
			if len(told) > 0 {
				t.Errorf("as it is: told %q", told)
			}
			if err := errors.Join(os.Remove(filepath.Join(f.dir, "m/1/model.yaml")), c.take(f.store, private)); err != nil {
				t.Fatal(err)
			}
			if err := CheckSaid(f.store, private, ""); (err == nil) != (c.name == "nothing else") {
				t.Errorf("checked: %v", err)
			}
			hides("gone", collector.PrivacyMask)
			if is := strings.Contains(strings.Join(told, "\n"), gone); is != c.told || len(told) > 1 {
				t.Errorf("told %q", told)
			}
			hides("gone before", collector.PrivacyMask)
			if err := CheckSaid(f.store, private, ""); len(told) > 0 || err != nil {
				t.Errorf("again: told %q, checked: %v", told, err)
			}
			f.write(t, "m/1/model.yaml", "{}\n")
			r = open()
			defer r.Close()
			if err := r.Load(t.Context(), "m"); err != nil {
				t.Fatal(err)
			}
			if v, err := r.Find("m", "1"); err != nil || v.Config.PrivateFeature() != "" {
				t.Errorf("opened: %+v, %v", v, err)
			}
			if v, err := r.Find("open", "1"); err != nil || v.Config.PrivateFeature() != "" {
				t.Errorf("the open one: %+v, %v", v, err)
			}
		})
	}
}

// TestWhatWasPrivateIsDamagedTwice: no start guesses at it, and the error says which files are
// damaged, and what to do, which works.
func TestWhatWasPrivateIsDamagedTwice(t *testing.T) {
	f := newFixture(t)
	private := filepath.Join(t.TempDir(), "models.private")
	own := filepath.Join(f.store, inForceFile)
	open := func() (*Repository, error) {
		return Open(t.Context(), Config{Dir: f.dir, Store: f.store, Private: private, Poll: time.Hour, Log: slog.New(slog.DiscardHandler)})
	}
	f.model(t, "m/1")
	f.write(t, "m/1/model.yaml", "features: [{name: f0, private: mask}]\n")
	r, err := open()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := errors.Join(os.Remove(filepath.Join(f.dir, "m/1/model.yaml")), os.Truncate(own, 9), os.Truncate(private, 0)); err != nil {
		t.Fatal(err)
	}
	for _, copied := range []string{"emptied", "{}", "gone"} {
		if copied == "{}" {
			if err := errors.Join(os.WriteFile(own, []byte("{}"), 0o600), os.WriteFile(private, []byte("{}\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		r, err = open()
		if err == nil {
			r.Close()
		}
		for _, says := range []string{own, private, "backup", "take"} {
			if !strings.Contains(fmt.Sprint(err), says) {
				t.Errorf("the copy is %s: %v, which does not say %q", copied, err, says)
			}
		}
		if err := CheckSaid(f.store, private, ""); err == nil {
			t.Errorf("the copy is %s: checked", copied)
		}
		if copied == "emptied" {
			continue
		}
		if err := os.RemoveAll(private); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if r, err = open(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if v, err := r.Find("m", "1"); err != nil || policyIn(v.Config, "f0") != collector.PrivacyMask {
		t.Errorf("taken from the store: %v, %v", privateOf(v), err)
	}
}

// TestWhatWasPrivateIsLost: of a version that hid something nothing is left that says what. It is
// closed and told, as is what is new beside it, until its model.yaml says what it hides; what never
// hid anything stays open.
func TestWhatWasPrivateIsLost(t *testing.T) {
	for _, by := range []string{"the kept copies", "a twin"} {
		f := newFixture(t)
		private, list := filepath.Join(t.TempDir(), "models.private"), filepath.Join(t.TempDir(), "models.kept")
		var told []string
		open := func() *Repository {
			t.Helper()
			told = nil
			r, err := Open(t.Context(), Config{
				Dir: f.dir, Store: f.store, Private: private, Kept: list, Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
				Missed: func(what []string) error { told = append(told, what...); return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			return r
		}
		f.model(t, "m/1")
		f.model(t, "open/1")
		f.write(t, "m/1/model.yaml", "features: [{name: f0, private: mask}]\n")
		open().Close()
		if by == "a twin" { // the same files under another name, which the store has already
			f.model(t, "twin/1")
			f.write(t, "twin/1/model.yaml", "features: [{name: f0, private: mask}]\n")
			open().Close()
			if err := os.Remove(filepath.Join(f.dir, "twin/1/model.yaml")); err != nil {
				t.Fatal(err)
			}
		}
		hid, other := map[string]string{"a twin": "twin", "the kept copies": "m"}[by], "m"
		if err := errors.Join(os.Remove(filepath.Join(f.dir, "m/1/model.yaml")), os.Remove(filepath.Join(f.store, inForceFile)), os.Remove(private)); err != nil {
			t.Fatal(err)
		}
		if by == "the kept copies" {
			dirs, err := filepath.Glob(filepath.Join(f.store, "*", versionFile))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range dirs {
				if err := os.RemoveAll(filepath.Dir(file)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := CheckSaid(f.store, private, list); err == nil {
			t.Errorf("%s: checked", by)
		}
		for i := range 3 {
			r := open()
			if is := strings.Contains(strings.Join(told, "\n"), "what was private last"); is != (i == 0) {
				t.Errorf("%s: told %q", by, told)
			}
			if v, err := r.Find(hid, "1"); err == nil {
				t.Errorf("%s: it answers: %v", by, privateOf(v))
			}
			if st := state(r, hid, "1"); !strings.Contains(st.Reason, hid+"/1/model.yaml") {
				t.Errorf("%s: %+v", by, st)
			}
			v, err := r.Find("open", "1")
			if err != nil || v.Config.PrivateFeature() != "" {
				t.Fatalf("%s: the open one: %v", by, err)
			}
			if n, err := r.External(hid, "9", func() (*engine.Info, error) { return v.Info, nil }); !errors.Is(err, collector.ErrNotReady) {
				t.Errorf("%s: an import beside it: %v, %v", by, privateOf(n), err)
			}
			if v, err := r.Find(other, "1"); by == "a twin" && (err != nil || policyIn(v.Config, "f0") != collector.PrivacyMask) {
				t.Errorf("what the store says: %v", err)
			}
			r.Close()
		}
		f.write(t, hid+"/1/model.yaml", "{}\n")
		r := open()
		v, err := r.Find(hid, "1")
		if err != nil || v.Config.PrivateFeature() != "" {
			t.Fatalf("%s: opened: %v", by, err)
		}
		if n, err := r.External(hid, "9", func() (*engine.Info, error) { return v.Info, nil }); err != nil || n.Config.PrivateFeature() != "" {
			t.Errorf("%s: an import once it is open: %v", by, err)
		}
		r.Close()
	}
}

// TestAnOlderStore put back opens nothing that what is kept outside of it says was private since.
func TestAnOlderStore(t *testing.T) {
	f := newFixture(t)
	private, older := filepath.Join(t.TempDir(), "models.private"), filepath.Join(t.TempDir(), "older")
	open := func() *said {
		t.Helper()
		r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Private: private, Poll: time.Hour, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return &said{fixture: f, r: r}
	}
	s := open()
	for _, name := range []string{"made", "made2"} {
		if v, err := s.imports(name, "1"); err != nil || len(privateOf(v)) > 0 {
			t.Fatal(privateOf(v), err)
		}
	}
	s.r.Close()
	if err := os.CopyFS(older, os.DirFS(f.store)); err != nil {
		t.Fatal(err)
	}
	s = open()
	f.write(t, "made/1/model.yaml", "features: [{name: town, private: drop}]\n")
	f.write(t, "made2/2/model.yaml", "features: [{name: town, private: drop}]\n")
	s.look(t)
	want := []string{"made/1 town", "made2/1 town"}
	s.private(t, "before", want...)
	if err := errors.Join(os.RemoveAll(filepath.Join(f.dir, "made")), os.RemoveAll(filepath.Join(f.dir, "made2"))); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	s.private(t, "deleted", want...)
	s.r.Close()
	if err := errors.Join(os.RemoveAll(f.store), os.CopyFS(f.store, os.DirFS(older))); err != nil {
		t.Fatal(err)
	}
	s = open()
	s.private(t, "an older store", want...)
}
