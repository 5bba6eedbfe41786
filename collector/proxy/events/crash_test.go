package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// newDisk is one that keeps a journal: of a rename that was not synced either name is there.
// An append to the spool is one of its operations, too.
func newDisk(seed uint64) *vfstest.FS {
	disk := vfstest.New(seed)
	disk.Journal, disk.Refuses, disk.ModTime = true, true, began
	disk.Put(vfs.BootIDPath, []byte("the first\n"))
	return disk
}

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// rowsSent is how many rows the pairs here have.
const rowsSent = 3

var sentData = map[half]string{request: `{"instances":[1,2,3]}`, response: `{"predictions":[4,5,6]}`}

// world is a sender, and a spool that has every row of which it was told.
type world struct {
	disk  *vfstest.FS
	room  *Room
	now   time.Time
	power bool
	rows  map[string]string // what of a row is recorded: "both", "request" or "response"
	acked map[half]string
	known bool
	boots int
}

func (w *world) record(_ context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
	out := make([]collector.ImportResult, len(rows))
	for i, p := range rows {
		of := "both"
		switch {
		case p.Outputs == nil:
			of = string(request)
		case p.Features == nil:
			of = string(response)
		}
		if w.known = w.known || of == "both"; !w.known {
			out[i] = collector.ImportResult{Status: collector.ImportRefused, Error: "not known"}
			continue
		}
		if w.rows[p.ID] != "" {
			out[i].Status = collector.ImportDuplicate
			continue
		}
		done, err := w.disk.Step("row", p.ID)
		if done {
			w.rows[p.ID] = of
		}
		if err != nil {
			return nil, err
		}
		out[i].Status = collector.ImportAccepted
	}
	return out, nil
}

func (w *world) start() error {
	var err error
	w.room, err = open(Config{
		Dir: "/events", Key: func() ([]byte, error) { return []byte("a secret of the machine's"), nil }, Sync: w.power, Record: w.record,
		Names: func(string, string) []string { return nil }, Wait: time.Minute, Now: func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler),
	}, w.disk)
	return err
}

// files are those of halves, whatever became of them.
func (w *world) files() []string {
	return slices.DeleteFunc(w.disk.Names(), func(n string) bool { return !strings.HasPrefix(n, "/events/") || n == "/events/"+listName })
}

// send is a sender that tries a half once; where it is acknowledged it does not again.
func (w *world) send(h half) error {
	if w.acked[h] != "" {
		return nil
	}
	got, err := w.room.Take(context.Background(), event(h, "a", "m", sentData[h]))
	if err == nil {
		w.acked[h] = got.Status
	}
	return err
}

// fall has the process killed, or the machine's power cut.
func (w *world) fall() {
	w.disk = w.disk.After(w.power)
	if w.power {
		w.boots++
		w.disk.Put(vfs.BootIDPath, fmt.Appendf(nil, "the next %d\n", w.boots))
	}
}

// settle lets all time pass, and the model become known, so that nothing waits any more.
func (w *world) settle() {
	w.known = true
	for range 5 {
		w.now = w.now.Add(time.Minute)
		w.room.sweep(context.Background())
	}
}

// check holds that all rows are recorded and alike, or none where nothing was
// acknowledged, and that answers are true.
func (w *world) check(t *testing.T, what string) {
	t.Helper()
	kinds := map[string]int{}
	for _, of := range w.rows {
		kinds[of]++
	}
	if n, _ := w.room.Waiting(); n > 0 || len(w.files()) > 0 {
		t.Fatalf("%s: %d halves wait, %d files, %v", what, n, len(w.files()), kinds)
	}
	if got := w.room.cfg.Drops.Now(); got != (Dropped{}) {
		t.Fatalf("%s: nothing was dropped, told is %+v", what, got)
	}
	switch {
	case len(kinds) > 1 || len(w.rows) != 0 && len(w.rows) != rowsSent:
		t.Fatalf("%s: the rows are not recorded alike: %v", what, w.rows)
	case len(w.acked) > 0 && len(w.rows) == 0:
		t.Fatalf("%s: %v acknowledged, and nothing recorded", what, w.acked)
	}
	for h, answer := range w.acked {
		if answer == Recorded && kinds["both"] == 0 {
			t.Fatalf("%s: the %s was answered %q, and is not: %v", what, h, answer, kinds)
		}
	}
}

// stories are what happens to a pair until all is well, or the machine goes down.
var stories = map[string]func(w *world) error{
	"in time": func(w *world) error {
		return errors.Join(w.send(request), w.send(response))
	},
	"in the other order": func(w *world) error {
		return errors.Join(w.send(response), w.send(request))
	},
	"too late": func(w *world) error {
		err := w.send(request)
		w.now = w.now.Add(2 * time.Minute)
		w.room.sweep(context.Background())
		return errors.Join(err, w.send(response))
	},
	"too late, of a model that is not known before": func(w *world) error {
		w.known = false
		err := w.send(request)
		w.now = w.now.Add(2 * time.Minute)
		w.room.sweep(context.Background())
		return errors.Join(err, w.send(response))
	},
}

// TestCrashAtEveryOperation: whatever a crash interrupts, the rows of a pair are recorded
// alike in the end, whether the sender comes again or not, and soon or late.
func TestCrashAtEveryOperation(t *testing.T) {
	crashes, acknowledged := 0, 0
	for name, story := range stories {
		for _, power := range []bool{false, true} {
			for seed := range uint64(9) {
				for again := range 8 { // which comes again, and whether first some time passes
					for k := 1; ; k++ {
						w := &world{disk: newDisk(seed), now: began, power: power, rows: map[string]string{}, acked: map[half]string{}, known: true}
						if err := w.start(); err != nil {
							t.Fatal(err)
						}
						what := fmt.Sprintf("%s, power %t, seed %d, again %d, operation %d", name, power, seed, again, k)
						w.disk.CrashAt = w.disk.Ops() + k
						if err := story(w); err != nil && !w.disk.Down() {
							t.Fatalf("%s: %v", what, err)
						}
						down := w.disk.Down()
						w.recover(t, what, again, int(seed))
						w.check(t, what)
						if !down {
							break
						}
						crashes++
						acknowledged += len(w.acked)
					}
				}
			}
		}
	}
	t.Logf("%d crashes, %d halves acknowledged, 0 lost, 0 doubled", crashes, acknowledged)
	if crashes < 1000 {
		t.Errorf("%d crashes: the test proves nothing", crashes)
	}
}

// recover starts again, goes down once more on the way, and then ends well.
func (w *world) recover(t *testing.T, what string, again, secondCrash int) {
	t.Helper()
	for _, at := range []int{secondCrash, 0} {
		w.fall()
		w.disk.CrashAt = at
		if err := w.start(); err != nil && !w.disk.Down() {
			t.Fatalf("%s: start: %v", what, err)
		}
		if w.disk.Down() {
			continue
		}
		if again&4 != 0 {
			w.now = w.now.Add(2 * time.Minute)
		}
		w.room.sweep(context.Background())
		for i, h := range []half{request, response} {
			if again&(1<<i) == 0 {
				continue
			}
			if err := w.send(h); err != nil && !w.disk.Down() {
				t.Fatalf("%s: the %s again: %v", what, h, err)
			}
		}
	}
	w.settle()
}

// TestErrorAtEveryOperation: what fails without a crash, a full disk or a full spool, leaves
// no half pair either, and what is not acknowledged may be sent again.
func TestErrorAtEveryOperation(t *testing.T) {
	runs, acknowledged := 0, 0
	for name, story := range stories {
		for _, power := range []bool{false, true} {
			for again := range 4 {
				for k, more := 1, true; more; k++ {
					for _, lasts := range []int{1, 2, 7} {
						w := &world{disk: newDisk(1), now: began, power: power, rows: map[string]string{}, acked: map[half]string{}, known: true}
						if err := w.start(); err != nil {
							t.Fatal(err)
						}
						n := 0
						w.disk.Fail = func(op, _ string) error {
							if op == "remove" {
								return nil
							}
							if n++; n >= k && n < k+lasts {
								return fmt.Errorf("%s: %w", op, collector.ErrFull)
							}
							return nil
						}
						what := fmt.Sprintf("%s, power %t, again %d, %d errors from operation %d", name, power, again, lasts, k)
						if err := story(w); err != nil && !errors.Is(err, collector.ErrFull) {
							t.Fatalf("%s: %v", what, err)
						}
						w.disk.Fail = nil
						for i, h := range []half{request, response} {
							if again&(1<<i) == 0 {
								continue
							}
							if err := w.send(h); err != nil {
								t.Fatalf("%s: the %s again: %v", what, h, err)
							}
						}
						w.settle()
						w.check(t, what)
						more = n >= k
						if more {
							runs++
							acknowledged += len(w.acked)
						}
					}
				}
			}
		}
	}
	t.Logf("%d runs with 1, 2 or 7 errors, %d halves acknowledged, 0 lost, 0 doubled", runs, acknowledged)
}

// TestFilesThatCannotBeDeleted leaves what was recorded once, and says so for ever.
func TestFilesThatCannotBeDeleted(t *testing.T) {
	w := &world{disk: newDisk(1), now: began, rows: map[string]string{}, acked: map[half]string{}, known: true}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	w.disk.Fail = func(op, name string) error {
		if op == "remove" && strings.HasSuffix(name, suffix) {
			return errors.New("no")
		}
		return nil
	}
	if err := stories["in time"](w); err != nil || w.acked[response] != Recorded {
		t.Fatalf("%v %v", w.acked, err)
	}
	w.settle()
	w.disk.Fail = nil
	w.settle()
	w.check(t, "files that could not be deleted for a time")
}

// TestARenameThatHappenedAlthoughItFailed leaves no half waiting that could be recorded: what
// is on the disk counts, not what was answered.
func TestARenameThatHappenedAlthoughItFailed(t *testing.T) {
	for name, story := range stories {
		for seed := range uint64(16) {
			for k := 1; k <= 4; k++ {
				w := &world{disk: newDisk(seed), now: began, power: seed%2 == 0, rows: map[string]string{}, acked: map[half]string{}, known: true}
				w.disk.Refuses = false // it happens in half of the runs
				if err := w.start(); err != nil {
					t.Fatal(err)
				}
				n := 0
				w.disk.Fail = func(op, _ string) error {
					if op != "rename" && op != "remove" {
						return nil
					}
					if n++; n == k {
						return fmt.Errorf("%s: %w", op, collector.ErrFull)
					}
					return nil
				}
				what := fmt.Sprintf("%s, seed %d, rename or removal %d", name, seed, k)
				if err := story(w); err != nil && !errors.Is(err, collector.ErrFull) {
					t.Fatalf("%s: %v", what, err)
				}
				w.disk.Fail = nil
				for _, h := range []half{request, response} {
					if err := w.send(h); err != nil {
						t.Fatalf("%s: the %s again: %v", what, h, err)
					}
				}
				w.settle()
				w.check(t, what)
			}
		}
	}
}

// TestAHalfWhoseFileIsGone: it waits for nothing any more, and what comes again is taken
// anew.
func TestAHalfWhoseFileIsGone(t *testing.T) {
	for _, again := range []half{request, response} {
		w := &world{disk: newDisk(1), now: began, rows: map[string]string{}, acked: map[half]string{}, known: true}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		if err := w.send(request); err != nil {
			t.Fatal(err)
		}
		for _, name := range w.files() {
			w.disk.Drop(name)
		}
		delete(w.acked, again)
		if err := w.send(again); err != nil || w.acked[again] != Waiting {
			t.Errorf("the %s after it: %q, %v", again, w.acked[again], err)
		}
		delete(w.acked, again.other())
		if err := w.send(again.other()); err != nil || w.acked[again.other()] != Recorded || len(w.rows) != rowsSent {
			t.Errorf("the %s: %q, %v, %v", again.other(), w.acked[again.other()], err, w.rows)
		}
	}
}
