package events

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestHalvesOfAFolderThatIsAway: none is taken, given up, recorded or erased until the folder
// is back, when each is recorded once; so is one whose folder went while it was recorded.
func TestHalvesOfAFolderThatIsAway(t *testing.T) {
	r := openRig(t, func(c *Config) {
		c.Ours = func() error {
			if _, err := os.Stat(c.Dir); err != nil {
				return &collector.GoneError{Folder: "events"}
			}
			return nil
		}
	})
	away := r.dir + ".away"
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	r.must(t, event(request, "known", "m", `{"instances":[1]}`), Waiting)
	r.must(t, event(response, "known", "m", `{"predictions":[1]}`), Recorded)
	r.must(t, event(request, "alone", "m", `{"instances":[2]}`), Waiting)
	r.must(t, event(request, "paired", "m", `{"instances":[3]}`), Waiting)
	all := func(*Half) (bool, error) { return true, nil }
	held, err := r.Hold(t.Context(), all)
	if err != nil || held.Len() != 2 {
		t.Fatalf("%+v, %v", held, err)
	}
	move(r.dir, away)
	var gone *collector.GoneError
	if left, err := held.Delete(); left != 2 || !errors.As(err, &gone) {
		t.Errorf("erase: %d left, %v", left, err)
	}
	held.Release()
	for _, e := range []Event{event(request, "new", "m", `{"instances":[4]}`), event(response, "paired", "m", `{"predictions":[3]}`)} {
		if got, err := r.Take(t.Context(), e); !errors.As(err, &gone) {
			t.Errorf("%s: %+v, %v", e.ID, got, err)
		}
	}
	if _, err := r.Hold(t.Context(), all); !errors.As(err, &gone) {
		t.Errorf("search: %v", err)
	}
	r.clock.forward(48 * time.Hour)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 2 || len(r.rec.rows) != 1 {
		t.Errorf("away: %d halves wait, %d rows", n, len(r.rec.rows))
	}
	move(away, r.dir)
	took := r.cfg.Record
	r.cfg.Record = func(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
		move(r.dir, away)
		return took(ctx, rows)
	}
	r.must(t, event(response, "paired", "m", `{"predictions":[3]}`), Recorded)
	if n, _ := r.Waiting(); n != 2 {
		t.Errorf("taken while it was recorded: %d halves wait", n)
	}
	move(away, r.dir)
	r.cfg.Record = took
	r.clock.forward(48 * time.Hour)
	r.sweep(t.Context())
	if n, _ := r.Waiting(); n != 0 || len(r.rec.rows) != 3 || r.files(t) != 0 {
		t.Errorf("back: %d halves wait, %d rows, %d files", n, len(r.rec.rows), r.files(t))
	}
}
