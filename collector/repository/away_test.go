package repository

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestAStoreThatIsAway: while the store is gone, or another is in its place, nothing is put
// there, no new version answers and none is told of as not kept; what answers goes on, but
// where it is to hide more. All is taken up when the store is back.
func TestAStoreThatIsAway(t *testing.T) {
	f := newFixture(t)
	f.store = filepath.Join(t.TempDir(), "models")
	f.model(t, "m/1")
	var gone *collector.GoneError
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Ours: func() error {
		if !exists(filepath.Join(f.store, "ours")) {
			return &collector.GoneError{Folder: "models"}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if err := os.WriteFile(filepath.Join(f.store, "ours"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live := func(version string) func() bool {
		return func() bool { _, err := r.Find("m", version); return err == nil }
	}
	within(t, "version 1", live("1"))
	v, err := r.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.store, f.store+".away"); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		f.model(t, "m/2")
		within(t, when+": version 2 is refused", func() bool {
			r.mu.RLock()
			defer r.mu.RUnlock()
			s := r.slotOf("m", "2")
			return s != nil && s.live == nil && s.reason != ""
		})
		if _, err := r.External("told", "1", func() (*engine.Info, error) { return v.Info, nil }); !errors.As(err, &gone) {
			t.Errorf("%s: import: %v", when, err)
		}
		if _, err := r.fromStore(v.Digest); !errors.As(err, &gone) {
			t.Errorf("%s: read back: %v", when, err)
		}
		if err := r.Drop(v.Digest); !errors.As(err, &gone) {
			t.Errorf("%s: drop: %v", when, err)
		}
		if err := r.SetReference(v.Digest, v.Reference()); !errors.As(err, &gone) {
			t.Errorf("%s: reference: %v", when, err)
		}
		if !live("1")() {
			t.Errorf("%s: version 1 does not answer", when)
		}
	}
	check("away")
	if _, err := os.Stat(f.store); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store was made again (%v)", err)
	}
	if err := os.Mkdir(f.store, 0o700); err != nil {
		t.Fatal(err)
	}
	check("another in its place")
	f.write(t, "m/1/model.yaml", "features: [{name: "+v.Info.Features[0].Name+", private: drop}]\n")
	within(t, "version 1 is closed", func() bool { return !live("1")() })
	if left, err := os.ReadDir(f.store); err != nil || len(left) > 0 {
		t.Errorf("the other store has %v (%v)", left, err)
	}
	if err := errors.Join(os.Remove(f.store), os.Rename(f.store+".away", f.store)); err != nil {
		t.Fatal(err)
	}
	within(t, "version 1 again", live("1"))
	within(t, "version 2", live("2"))
	if v, err := r.Find("m", "1"); err != nil || v.Config.PrivateFeature() == "" {
		t.Errorf("nothing is private: %+v, %v", v, err)
	}
}
