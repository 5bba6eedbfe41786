package repository

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine"
)

// TestKeptVersionsThatAreGoneAreMissed: what somebody takes out of the store is told once,
// by name; what Drop takes out, what is served again and what nobody listed is not.
func TestKeptVersionsThatAreGoneAreMissed(t *testing.T) {
	f := newFixture(t)
	list := filepath.Join(t.TempDir(), "kept")
	var missed []string
	var refused error
	open := func() *Repository {
		t.Helper()
		missed = nil
		r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.DiscardHandler), Kept: list, Missed: func(what []string) error {
			missed = append(missed, what...)
			return refused
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	live := func(notes string) StoredVersion {
		t.Helper()
		f.write(t, "m/1/notes.md", notes)
		r := open()
		defer r.Close()
		v, err := r.Find("m", "1")
		if err != nil {
			t.Fatal(err)
		}
		return StoredVersion{"m", "1", v.Digest}
	}
	take := func(v StoredVersion) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(f.store, v.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	f.model(t, "m/1")
	first, second, third, last := live("1"), live("2"), live("3"), live("4")
	r := open()
	info, err := r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	told, err := r.External("told", "7", func() (*engine.Info, error) { return info.Info, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Drop(first.Digest); err != nil {
		t.Fatal(err)
	}
	r.Close()
	other := StoredVersion{"told", "7", told.Digest}
	lines := func(list ...StoredVersion) (out []string) {
		for _, v := range list {
			out = append(out, v.Gone())
		}
		return out
	}
	take(second)
	take(last) // it is served, so its files are there
	take(other)
	want := []StoredVersion{second, last, other}
	if got, err := MissingVersions(list, f.store); err != nil || !slices.Equal(got, want) {
		t.Errorf("missing %v (%v), want %v", got, err, want)
	}
	refused = errors.New("no room")
	want = []StoredVersion{second, other}
	for range 2 { // as nobody was told
		open().Close()
		if !slices.Equal(missed, lines(want...)) {
			t.Errorf("missed %v, want %v", missed, want)
		}
	}
	refused = nil
	open().Close()
	if !slices.Equal(missed, lines(want...)) {
		t.Errorf("told: missed %v, want %v", missed, want)
	}
	open().Close()
	if left, err := MissingVersions(list, f.store); len(missed) > 0 || err != nil || len(left) > 0 {
		t.Errorf("told before: missed %v, %v (%v)", missed, left, err)
	}
	// Half a line at the end, of a disk that was full.
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, append(b, "+ 00ab"...), 0o600); err != nil {
		t.Fatal(err)
	}
	take(third)
	open().Close()
	if want := []StoredVersion{third}; !slices.Equal(missed, lines(want...)) {
		t.Errorf("with half a line: missed %v, want %v", missed, want)
	}
	before, err := os.Stat(list)
	if err != nil {
		t.Fatal(err)
	}
	open().Close()
	if after, err := os.Stat(list); err != nil || !os.SameFile(before, after) {
		t.Errorf("a start that finds all there writes the list anew (%v)", err)
	}
}
