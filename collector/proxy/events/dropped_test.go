package events

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/telemetry/telemetrytest"
)

func (r *rig) dropped(t *testing.T, what string, want Dropped) {
	t.Helper()
	if got := r.cfg.Drops.Now(); got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// half is the one file of a room.
func (r *rig) half(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, "*"+suffix))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	return names[0]
}

// TestDroppedHalvesAreCounted: what was answered "waiting" and is never recorded is counted,
// once, by why.
func TestDroppedHalvesAreCounted(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait, c.GiveUp = time.Minute, time.Hour })
	r.must(t, event(request, "a", "unknown", `{"instances":[1]}`), Waiting)
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	r.dropped(t, "while it waits", Dropped{})
	r.clock.forward(time.Hour)
	for range 3 {
		r.sweep(t.Context())
	}
	r.dropped(t, "given up", Dropped{Unfit: 1})

	r.must(t, event(request, "b", "m", `{"instances":[1]}`), Waiting)
	if err := os.Truncate(r.half(t), 3); err != nil {
		t.Fatal(err)
	}
	r.must(t, event(response, "b", "m", `{"predictions":[1]}`), Waiting)
	r.dropped(t, "damaged", Dropped{Unfit: 1, Damaged: 1})
	if err := os.Remove(r.half(t)); err != nil {
		t.Fatal(err)
	}
	r.clock.forward(time.Minute)
	for range 3 {
		r.sweep(t.Context())
	}
	r.dropped(t, "gone", Dropped{Unfit: 1, Damaged: 1, Gone: 1})
	if got := r.cfg.Drops.Now().Total(); got != 3 {
		t.Errorf("%d in all", got)
	}
}

// TestAHalfThatCannotBeDeletedIsCountedOnce: one whose file stays is given up again and again.
func TestAHalfThatCannotBeDeletedIsCountedOnce(t *testing.T) {
	w := &world{disk: newDisk(1), now: began, rows: map[string]string{}, acked: map[half]string{}}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	if err := w.send(request); err != nil {
		t.Fatal(err)
	}
	w.disk.Fail = func(op, _ string) error {
		if op == "remove" {
			return errors.New("no")
		}
		return nil
	}
	w.now = w.now.Add(48 * time.Hour)
	for range 3 {
		w.room.sweep(t.Context())
		w.now = w.now.Add(time.Hour)
		if got := w.room.cfg.Drops.Now(); got != (Dropped{}) {
			t.Errorf("its file is there: %+v", got)
		}
	}
	w.disk.Fail = nil
	for range 3 {
		w.room.sweep(t.Context())
		w.now = w.now.Add(time.Hour)
	}
	if got := w.room.cfg.Drops.Now(); got != (Dropped{Unfit: 1}) {
		t.Errorf("%+v", got)
	}
}

// TestRefusedRowsAreCounted: rows that fit no version, of halves whose other rows are recorded
// when nobody asks, or of one that is finished when its other comes too late.
func TestRefusedRowsAreCounted(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait = time.Minute })
	r.rec.known["m"] = true
	fails := false
	r.cfg.Record = func(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
		if fails {
			return nil, collector.ErrFull
		}
		var fit []*collector.Imported
		out := make([]collector.ImportResult, len(rows))
		for i, p := range rows {
			if out[i] = (collector.ImportResult{Status: collector.ImportRefused, Error: "it must be a number"}); string(p.Features["f0"]) != `"x"` {
				fit, out[i].Status = append(fit, p), collector.ImportAccepted
			}
		}
		_, err := r.rec.take(ctx, fit)
		return out, err
	}
	r.must(t, event(request, "alone", "m", `{"instances":[1,"x","x"]}`), Waiting)
	r.clock.forward(time.Minute)
	r.sweep(t.Context())
	r.dropped(t, "alone", Dropped{Rows: 2})

	r.must(t, event(request, "pair", "m", `{"instances":[1,"x"]}`), Waiting)
	fails = true
	if _, err := r.Take(t.Context(), event(response, "pair", "m", `{"predictions":[1,2]}`)); !errors.Is(err, collector.ErrFull) {
		t.Fatal(err)
	}
	fails = false
	r.sweep(t.Context())
	r.dropped(t, "a pair", Dropped{Rows: 3})

	r.must(t, event(request, "late", "m", `{"instances":[1,"x"]}`), Waiting)
	fails = true
	r.clock.forward(time.Minute)
	r.sweep(t.Context()) // it has begun to be recorded alone
	fails = false
	r.must(t, event(response, "late", "m", `{"predictions":[1,2]}`), Duplicate)
	r.dropped(t, "too late", Dropped{Rows: 4})

	// The sender of the second half is told of its rows; those of the first were acknowledged.
	r.must(t, event(request, "told", "m", `{"instances":[1,"x"]}`), Waiting)
	if got, err := r.Take(t.Context(), event(response, "told", "m", `{"predictions":[1,2]}`)); err != nil || got.Refused != 1 {
		t.Fatal(got, err)
	}
	r.dropped(t, "whose sender was told", Dropped{Rows: 4})
	if n, _ := r.Waiting(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// TestPairsThatNoLongerFitAreCounted: both halves are in files, the rules have changed, and
// the second goes.
func TestPairsThatNoLongerFitAreCounted(t *testing.T) {
	provider, read := telemetrytest.Reader()
	r := openRig(t, func(c *Config) { c.MeterProvider = provider })
	fails := true
	r.cfg.Record = func(_ context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
		if fails {
			return nil, collector.ErrFull
		}
		out := make([]collector.ImportResult, len(rows))
		for i := range out {
			out[i] = collector.ImportResult{Status: collector.ImportRefused, Error: "not known"}
		}
		return out, nil
	}
	r.must(t, event(request, "a", "m", `{"instances":[1,2]}`), Waiting)
	if _, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1,2]}`)); !errors.Is(err, collector.ErrFull) {
		t.Fatal(err)
	}
	fails = false
	r.sweep(t.Context())
	r.dropped(t, "a pair", Dropped{Unfit: 1})
	read(t)
}
