package spool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestAnotherFolderInItsPlace: while the spool's folder is away, or another is in its place,
// nothing is acknowledged, and nothing of the other is written, read or removed, though its
// segments have the same numbers. Once it is back all goes on where it was.
func TestAnotherFolderInItsPlace(t *testing.T) {
	home := t.TempDir()
	cfg := realConfig(t)
	cfg.Dir = filepath.Join(home, "spool")
	away := filepath.Join(home, "away")
	s := mustOpen(t, cfg)
	for _, id := range []string{"one", "two"} {
		if err := s.Append(t.Context(), prediction(id, 20)); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	batch := next(t, s)
	if err := s.Append(t.Context(), prediction("three", 20)); err != nil {
		t.Fatal(err)
	}
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * linkedEvery)
	}
	refused := func(when string) {
		t.Helper()
		if err := s.Append(t.Context(), prediction("refused", 20)); errors.Is(err, collector.ErrFull) || !errors.Is(err, errNotOurs) {
			t.Errorf("%s: append: %v", when, err)
		}
		if err := s.Ack(t.Context(), batch); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: acknowledge: %v", when, err)
		}
	}
	rename(cfg.Dir, away)
	refused("away")

	theirs := cfg
	other := mustOpen(t, theirs) // another process would, having found none
	if err := other.Append(t.Context(), prediction("theirs", 20)); err != nil {
		t.Fatal(err)
	}
	before := contentsOf(t, cfg.Dir)
	refused("another in its place")
	if after := contentsOf(t, cfg.Dir); !slices.Equal(before, after) {
		t.Errorf("the other folder was %q and is %q", before, after)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}

	rename(cfg.Dir, filepath.Join(home, "other"))
	rename(away, cfg.Dir)
	if err := s.Ack(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), prediction("four", 20)); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	var got []string
	for range 2 { // the segment that was given up, and the one after it
		b := next(t, s)
		for i := range b.Records {
			got = append(got, b.Records[i].ID)
		}
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"three", "four"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

// TestAWaitingReaderDoesNotSkipAFolderThatIsAway: what waits is not given up for damaged.
func TestAWaitingReaderDoesNotSkipAFolderThatIsAway(t *testing.T) {
	home := t.TempDir()
	cfg := realConfig(t)
	cfg.Dir = filepath.Join(home, "spool")
	s := mustOpen(t, cfg)
	if err := s.Append(t.Context(), prediction("one", 20)); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	if err := os.Rename(cfg.Dir, filepath.Join(home, "away")); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Next(t.Context()); !errors.Is(err, errNotOurs) {
		t.Errorf("%+v, %v", b, err)
	}
	if err := os.Rename(filepath.Join(home, "away"), cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if b := next(t, s); len(b.Records) != 1 || b.Records[0].ID != "one" || s.Stats().BadStretches != 0 {
		t.Errorf("%+v, %d stretches given up", b, s.Stats().BadStretches)
	}
}

// contentsOf are the files of a folder with what is in them.
func contentsOf(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Name()+" "+string(b))
	}
	return out
}
