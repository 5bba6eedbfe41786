package events

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestADamagedHalfThatWaitsInVain is told as one that is damaged, and set aside, once.
func TestADamagedHalfThatWaitsInVain(t *testing.T) {
	for _, rows := range []string{"[1]", "[1,2]"} {
		r := openRig(t, func(c *Config) { c.Wait = time.Minute })
		r.rec.known["m"] = true
		r.must(t, event(request, "a", "m", `{"instances":`+rows+`}`), Waiting)
		path := r.half(t)
		if err := os.Truncate(path, 40); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(time.Minute)
		for range 3 {
			r.sweep(t.Context())
			r.clock.forward(time.Hour)
		}
		r.dropped(t, rows, Dropped{Damaged: 1})
		if info, err := os.Stat(path + aside); err != nil || info.Size() != 40 {
			t.Errorf("%s: %v", rows, err)
		}
		if n, bytes := r.Waiting(); n != 0 || bytes != 0 || len(r.rec.rows) != 0 {
			t.Errorf("%s: %d halves of %d bytes wait, %d rows", rows, n, bytes, len(r.rec.rows))
		}
		r.Close()
		r.reopen(t, func(c *Config) { c.Drops = &Drops{} })
		r.dropped(t, "by the next start", Dropped{})
	}
}

// TestADamagedHalfOfAPair leaves the other to wait for it.
func TestADamagedHalfOfAPair(t *testing.T) {
	r := openRig(t, nil)
	r.must(t, event(request, "a", "m", `{"instances":[1,2]}`), Waiting)
	r.rec.err = collector.ErrFull
	if _, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1,2]}`)); !errors.Is(err, collector.ErrFull) {
		t.Fatal(err)
	}
	r.rec.err = nil
	if names, err := filepath.Glob(filepath.Join(r.dir, "*.response"+suffix)); err != nil || len(names) != 1 || os.Truncate(names[0], 3) != nil {
		t.Fatal(names, err)
	}
	r.sweep(t.Context())
	r.dropped(t, "damaged", Dropped{Damaged: 1})
	r.must(t, event(response, "a", "m", `{"predictions":[1,2]}`), Recorded)
}

// TestAHalfTakenAwayWhileNothingRuns is missed by the next start, once, after a stop and after
// a kill; after the machine went down it may have been recorded, and is not counted.
func TestAHalfTakenAwayWhileNothingRuns(t *testing.T) {
	for _, c := range []struct {
		name  string
		close bool
		boot  bool
		want  Dropped
	}{{"stopped", true, false, Dropped{Gone: 1}}, {"killed", false, false, Dropped{Gone: 1}}, {"stopped, and another boot", true, true, Dropped{Gone: 1}}, {"the machine down", false, true, Dropped{}}} {
		r := openRig(t, nil)
		for _, id := range []string{"a", "b", "c"} {
			r.must(t, event(request, id, "m", `{"instances":[1]}`), Waiting)
		}
		r.must(t, event(response, "b", "m", `{"predictions":[1]}`), Recorded)
		if c.close {
			r.Close()
		}
		if c.boot { // as the list says
			r.list.Boot = "another"
			if err := r.writeHeader(); err != nil {
				t.Fatal(err)
			}
		}
		names, err := filepath.Glob(filepath.Join(r.dir, "*"+suffix))
		if err != nil || len(names) != 2 || os.Remove(names[0]) != nil {
			t.Fatal(names, err)
		}
		for start := range 3 {
			drops := &Drops{}
			r.reopen(t, func(c *Config) { c.Drops = drops })
			r.dropped(t, fmt.Sprint(c.name, ", start ", start), c.want) // as what was dropped lately from the second on
			if n, _ := r.Waiting(); n != 1 {
				t.Errorf("%s: %d wait", c.name, n)
			}
		}
		r.clock.forward(LatelyFor)
		r.reopen(t, func(c *Config) { c.Drops = &Drops{} })
		r.dropped(t, c.name+", later", Dropped{})
	}
}

// TestAHalfTakenAwayAfterEveryCrash: a half that was acknowledged and waits is missed at
// whatever operation the process was killed, one that is recorded is not, and what is told was
// taken.
func TestAHalfTakenAwayAfterEveryCrash(t *testing.T) {
	crashes, missed := 0, 0
	for name, story := range stories {
		for seed := range uint64(9) {
			for k, more := 1, true; more; k++ {
				w := &world{disk: newDisk(seed), now: began, rows: map[string]string{}, acked: map[half]string{}, known: true}
				if err := w.start(); err != nil {
					t.Fatal(err)
				}
				w.disk.CrashAt = w.disk.Ops() + k
				err := story(w)
				what := fmt.Sprintf("%s, seed %d, operation %d", name, seed, k)
				if more = w.disk.Down(); err != nil && !more {
					t.Fatalf("%s: %v", what, err)
				}
				w.fall()
				taken := w.files()
				for _, n := range taken {
					w.disk.Drop(n)
				}
				if err := w.start(); err != nil {
					t.Fatal(err)
				}
				got := w.room.cfg.Drops.Now()
				if got.Gone > int64(len(taken)) || got.Total() != got.Gone {
					t.Fatalf("%s: %d were taken, told is %+v", what, len(taken), got)
				}
				if len(w.acked) > 0 && len(w.rows) == 0 && got.Gone == 0 {
					t.Fatalf("%s: %v acknowledged, taken and not missed: %q", what, w.acked, taken)
				}
				crashes, missed = crashes+1, missed+int(got.Gone)
			}
		}
	}
	t.Logf("%d crashes, %d halves missed", crashes, missed)
	if missed == 0 {
		t.Error("the test proves nothing")
	}
}

// TestAListThatIsGone or emptied is told, and made anew.
func TestAListThatIsGone(t *testing.T) {
	for what, take := range map[string]func(path string) error{
		"gone": os.Remove, "emptied": func(p string) error { return os.Truncate(p, 0) },
		"damaged": func(p string) error { return os.WriteFile(p, make([]byte, 2*headerSize), 0o600) },
	} {
		r := openRig(t, nil)
		r.must(t, event(request, "a", "m", `{"instances":[1]}`), Waiting)
		r.Close()
		if err := take(r.listPath()); err != nil {
			t.Fatal(err)
		}
		if got, err := Check(r.dir, r.cfg.Key); err != nil || got.Unnamed != 1 || got.Whole || got.Waiting != 1 {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
		for start, want := range []int{1, 0} {
			var told []string
			r.reopen(t, func(c *Config) { c.Lost = func(s string) { told = append(told, s) } })
			if len(told) != want || want > 0 && !strings.Contains(told[0], listName) {
				t.Errorf("%s, start %d: %q", what, start, told)
			}
			r.Close()
		}
		if err := os.Remove(r.half(t)); err != nil {
			t.Fatal(err)
		}
		if got, err := Check(r.dir, r.cfg.Key); err != nil || got.Missing != 1 || !got.Sure {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// TestAListThatGoesWhileTheServerRuns is made anew with what waits.
func TestAListThatGoesWhileTheServerRuns(t *testing.T) {
	r := openRig(t, nil)
	for _, id := range []string{"a", "b"} {
		r.must(t, event(request, id, "m", `{"instances":[1]}`), Waiting)
	}
	if err := os.Remove(r.listPath()); err != nil {
		t.Fatal(err)
	}
	r.must(t, event(request, "c", "m", `{"instances":[1]}`), Waiting)
	r.must(t, event(response, "a", "m", `{"predictions":[1]}`), Recorded)
	if got, err := Check(r.dir, r.cfg.Key); err != nil || got.Waiting != 2 || got.Unnamed != 0 || got.Missing != 0 || !got.Whole {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHalvesUnderAnotherKey are not damaged: that one may come back.
func TestHalvesUnderAnotherKey(t *testing.T) {
	r := openRig(t, func(c *Config) { c.Wait = time.Minute })
	r.rec.known["m"] = true
	r.must(t, event(request, "a", "m", `{"instances":[1]}`), Waiting)
	r.Close()
	other := func() ([]byte, error) { return []byte("another secret"), nil }
	r.reopen(t, func(c *Config) { c.Key = other })
	r.clock.forward(time.Hour)
	r.sweep(t.Context())
	if _, err := r.Take(t.Context(), event(response, "a", "m", `{"predictions":[1]}`)); !errors.Is(err, collector.ErrUnavailable) {
		t.Error(err)
	}
	r.dropped(t, "under another key", Dropped{})
	if got, err := Check(r.dir, other); err != nil || !got.OtherKey || got.Damaged != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	r.Close()
	r.reopen(t, nil)
	r.must(t, event(response, "a", "m", `{"predictions":[1]}`), Recorded)
}

// TestLately: what was dropped counts for as long as there was some within the time, over
// starts too.
func TestLately(t *testing.T) {
	d, at := &Drops{}, time.Unix(1_700_000_000, 0)
	for i, c := range []struct {
		after     time.Duration
		add, want int64
	}{
		{0, 0, 0}, {time.Second, 3, 3}, {LatelyFor - 1, 0, 3}, {0, 2, 5}, {LatelyFor - 1, 0, 5}, {1, 0, 0}, {time.Hour, 0, 0}, {1, 1, 1}, {LatelyFor - 1, 1, 2}, {LatelyFor, 0, 0},
	} {
		at = at.Add(c.after)
		lately, last := d.add(Dropped{Gone: c.add}, at)
		next := &Drops{}
		next.restore(lately, last, at)
		for _, d := range []*Drops{d, next} {
			if got := d.Lately(at).Gone; got != c.want {
				t.Errorf("%d: %d, want %d", i, got, c.want)
			}
		}
	}
}
