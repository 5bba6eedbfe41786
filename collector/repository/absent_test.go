package repository

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestAFolderThatComesLater: a models' folder that is not there at a start is looked at when it comes,
// and nothing is open in between that it hid before. Once it was there, its absence closes all; as
// does a link to nothing.
func TestAFolderThatComesLater(t *testing.T) {
	s := newSaid(t, 10*time.Millisecond)
	s.r.Close()
	away := s.dir + ".away"
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(s.dir, away)
	s.r = s.open(t, 10*time.Millisecond)
	if v, err := s.imports("made", "1"); err != nil || !slices.Equal(privateOf(v), []string{"town drop"}) {
		t.Errorf("before it is there: %v, %v", privateOf(v), err)
	}
	if v, err := s.imports("made", "2"); err != nil || !slices.Equal(privateOf(v), []string{"town drop"}) {
		t.Errorf("another version: %v, %v", privateOf(v), err)
	}
	if v, err := s.imports("fresh", "1"); err != nil || len(privateOf(v)) > 0 {
		t.Errorf("of which nothing was said: %v, %v", privateOf(v), err)
	}
	if err := os.MkdirAll(filepath.Join(away, "fresh/1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(away, "fresh/1/model.yaml"), []byte("features: [{name: town, private: drop}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	move(away, s.dir)
	within(t, "what it says is in force", func() bool {
		v, err := s.imports("fresh", "1")
		return err == nil && slices.Equal(privateOf(v), []string{"town drop"})
	})
	within(t, "what it has is served", func() bool { _, err := s.r.Find("m", "1"); return err == nil })
	move(s.dir, away)
	within(t, "gone, it closes all", func() bool { _, err := s.r.Find("fresh", "1"); return errors.Is(err, collector.ErrNotReady) })
	s.r.Close()
	if err := os.Symlink(filepath.Join(s.dir, "nowhere"), s.dir); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(t.Context(), Config{Dir: s.dir, Store: s.store}); err == nil {
		r.Close()
		t.Error("a link to nothing is taken for no folder")
	}
}
