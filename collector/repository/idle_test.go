package repository

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/pellucid/pellucid/collector"
)

// TestUnloadedVersionNeverAnswersAgain: what stands in its place and is refused does not
// bring it back.
func TestUnloadedVersionNeverAnswersAgain(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r := f.open(t, time.Hour)
	if err := r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "m")); err != nil {
		t.Fatal(err)
	}
	f.write(t, "m/1/model.json", "{}")
	if err := r.Load(t.Context(), "m"); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("load of a refused file: %v", err)
	}
	if v, err := r.Find("m", ""); err == nil {
		t.Errorf("version %s answers", v.Digest)
	}
	if s := state(r, "m", "1"); s.State != "UNAVAILABLE" || s.Reason == "unloaded" || s.Reason == "" {
		t.Errorf("state %+v", s)
	}
	f.model(t, "m/1")
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Error(err)
	}
}

// TestIdleVersionsLeaveMemory: a version that is unloaded, replaced or was read back
// from the store is freed, and explained all the same.
func TestIdleVersionsLeaveMemory(t *testing.T) {
	f := newFixture(t)
	f.model(t, "m/1")
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: time.Hour, MaxIdle: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	v, err := r.Find("m", "")
	if err != nil {
		t.Fatal(err)
	}
	digest, gone := v.Digest, weak.Make(v)
	v = nil
	free := func(what string) {
		t.Helper()
		for range 5 {
			runtime.GC()
		}
		if gone.Value() != nil {
			t.Errorf("%s: the version is still in memory", what)
		}
		v, err := r.ByDigest(digest)
		if err != nil {
			t.Fatal(err)
		}
		f.answers(t, v)
		gone = weak.Make(v)
	}
	if err := r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	free("unloaded")
	free("read back")
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if v, err = r.Find("m", ""); err != nil || v.Digest != digest {
		t.Fatalf("loaded again: %v", err)
	}
	gone, v = weak.Make(v), nil
	f.write(t, "m/1/notes.md", "changed\n")
	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	free("replaced")
	r.cfg.MaxIdle = 1 << 30
	kept, err := r.ByDigest(digest)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.ByDigest(digest); err != nil || again != kept {
		t.Errorf("within the bound it is read twice: %v", err)
	}
}

// TestTheLeastLatelyUsedIsForgotten: of two idle versions and room for one.
func TestTheLeastLatelyUsedIsForgotten(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"m/1", "m/2"} {
		f.model(t, name)
		f.write(t, name+"/notes.md", name)
	}
	r := f.open(t, time.Hour)
	var digests []string
	for _, version := range []string{"1", "2"} {
		v, err := r.Find("m", version)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, v.Digest)
	}
	if err := r.Unload(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	for _, first := range []int{0, 1} {
		kept, err := r.ByDigest(digests[1-first])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ByDigest(digests[first]); err != nil {
			t.Fatal(err)
		}
		if again, err := r.ByDigest(digests[1-first]); err != nil || again != kept {
			t.Fatalf("two that fit: %v", err)
		}
		r.mu.Lock()
		r.cfg.MaxIdle = r.archive[digests[0]].bytes
		r.trim()
		if r.archive[digests[first]] != nil || r.archive[digests[1-first]] == nil {
			t.Errorf("the one used last is not the one kept")
		}
		r.cfg.MaxIdle = 1 << 30
		r.mu.Unlock()
	}
}
