package repository

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestDropTakesRetiredVersionsOnly: a version that answers, or that Load brings back,
// is not for retention.
func TestDropTakesRetiredVersionsOnly(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	f.write(t, "m/1/notes.md", "the first\n")
	first := f.open(t, time.Hour)
	old, err := first.Find("m", "")
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "m/1/notes.md", "the second\n")
	r := f.open(t, time.Hour)
	live, err := r.Find("m", "")
	if err != nil || live.Digest == old.Digest {
		t.Fatalf("the second version: %v, %v", live, err)
	}
	if err := os.MkdirAll(filepath.Join(r.cfg.Store, strings.Repeat("a", 64)), 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err := r.Retired(); err != nil || len(list) != 1 || list[0] != (StoredVersion{"m", "1", old.Digest}) {
		t.Fatalf("retired: %v, %v", list, err)
	}
	if err := r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := r.Drop(live.Digest); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("an unloaded version: %v", err)
	}
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := r.Drop(live.Digest); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("a live version: %v", err)
	}
	r.loading.RLock()
	if err := r.Drop(old.Digest); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("while one is being loaded: %v", err)
	}
	r.loading.RUnlock()
	if _, err := r.ByDigest(old.Digest); err != nil {
		t.Fatal(err)
	}
	if err := r.Drop(old.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ByDigest(old.Digest); !errors.Is(err, collector.ErrNotFound) {
		t.Errorf("a dropped version: %v", err)
	}
	if good, wrong, err := CheckStore(r.cfg.Store); err != nil || good != 1 || len(wrong) != 1 {
		t.Errorf("the store: %d good, %v, %v", good, wrong, err)
	}
	for _, digest := range []string{old.Digest, "../../etc", ""} {
		if err := r.Drop(digest); !errors.Is(err, collector.ErrNotFound) {
			t.Errorf("digest %q: %v", digest, err)
		}
	}
}

// TestAReferenceAlone: an upstream's version has nothing in the store but its reference.
func TestAReferenceAlone(t *testing.T) {
	dir := t.TempDir()
	of := func(digit string) string { return filepath.Join(dir, strings.Repeat(digit, 64)) }
	for path, text := range map[string]string{
		filepath.Join(of("a"), referenceFile): "{}",
		filepath.Join(of("b"), referenceFile): "{}",
		filepath.Join(of("b"), "model.json"):  "{}", // whose description has gone
		filepath.Join(of("c"), "notes"):       "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if good, wrong, err := CheckStore(dir); err != nil || good != 0 || len(wrong) != 2 {
		t.Errorf("%d good, %v, %v", good, wrong, err)
	}
}
