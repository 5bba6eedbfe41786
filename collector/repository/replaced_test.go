package repository

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAFileReplacedWhileItIsLoaded is not kept under the digest of another, nor is that one served:
// the next look takes up what is there by then.
func TestAFileReplacedWhileItIsLoaded(t *testing.T) {
	f := newFixture(t)
	r := f.open(t, time.Hour)
	f.model(t, "m/1")
	l, err := r.list()
	if err != nil || len(l.found) != 1 {
		t.Fatal(l, err)
	}
	s := l.found[0]
	h, _, err := r.load(t.Context(), &s)
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(f.store, h.version.Digest)
	if err := os.RemoveAll(kept); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, s.file))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "m/1/"+s.file, string(text)+"\n")

	if err := r.keep(s, h); !errors.Is(err, errReplaced) {
		t.Errorf("replaced before it was kept: %v", err)
	}
	again := l.found[0]
	if _, _, err := r.load(t.Context(), &again); !errors.Is(err, errReplaced) {
		t.Errorf("replaced after it was found: %v", err)
	}
	r.install(t.Context(), l.found[0], false)
	if st := state(r, "m", "1"); st.State == "READY" || st.Reason == "" {
		t.Errorf("%+v", st)
	}
	if left, err := os.ReadDir(f.store); err != nil || len(left) != 0 {
		t.Errorf("left in the store: %v, %v", left, err)
	}
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := state(r, "m", "1"); st.State != "READY" {
		t.Errorf("the next look: %+v", st)
	}
	if good, wrong, err := CheckStore(f.store); good != 1 || len(wrong) > 0 || err != nil {
		t.Errorf("%d good, %v, %v", good, wrong, err)
	}
}
