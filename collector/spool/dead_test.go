package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
)

func aLetter(batch string, position int) collector.DeadLetter {
	r := prediction(fmt.Sprintf("p-%s-%d", batch, position), 40)
	return collector.DeadLetter{
		ID: collector.DeadLetterID(batch, position, "predictions"), Batch: batch, Position: position, Insert: "predictions", Code: 469,
		Reason: "VIOLATED_CONSTRAINT", At: time.UnixMilli(1_700_000_000_000 + int64(position)).UTC(), Tries: 1, Model: "m", Rows: 1,
		Kind: r.Kind, Version: r.Version, Payload: r.Payload,
	}
}

func deadAt(t *testing.T, fs vfs.FS) *Dead {
	t.Helper()
	lost := func(what string) { t.Errorf("what a crash may do is told as a loss: %s", what) }
	d, err := openDead(DeadConfig{Dir: "/dead", Logger: quiet, Lost: lost}, fs)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestLostDeadLettersAreTold: damage to what was durable, and a file that is gone, are told
// by a start and by Verify in the same words, until something else counts.
func TestLostDeadLettersAreTold(t *testing.T) {
	const name = "0000000000000001.dead"
	cut := func(by int) func(string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, b[:len(b)-by], 0o600)
		}
	}
	flip := func(at int) func(string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[(len(b)+at)%len(b)] ^= 0x55
			return os.WriteFile(path, b, 0o600)
		}
	}
	frame := func(i int) int {
		l := aLetter("b", i)
		b, err := collector.EncodeDeadLetter(&l)
		if err != nil {
			t.Fatal(err)
		}
		return frameSize + len(b)
	}
	for _, c := range []struct {
		name   string
		damage func(path string) error
		left   int
		want   string
	}{
		{"whole", func(string) error { return nil }, 3, ""},
		{"gone", os.Remove, 0, name + " is gone, with 3 dead letters"},
		{"emptied", func(path string) error { return os.Truncate(path, 0) }, 0, "bytes of " + name + " are damaged or gone, with 3 of 3 dead letters"},
		{"cut", cut(10), 2, fmt.Sprintf("%d bytes of %s are damaged or gone, with 1 of 3 dead letters", frame(2), name)},
		{"cut between letters", cut(frame(2)), 2, fmt.Sprintf("%d bytes of %s are damaged or gone, with 1 of 3 dead letters", frame(2), name)},
		{"a bit of the first", flip(headerSize + frameSize + 3), 2, fmt.Sprintf("%d bytes of %s are damaged or gone, with 1 of 3 dead letters", frame(0), name)},
		{"a bit of the last", flip(-3), 2, fmt.Sprintf("%d bytes of %s are damaged or gone, with 1 of 3 dead letters", frame(2), name)},
		{"bytes behind the end", func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("PF of a write that was torn")
			return errors.Join(err, f.Close())
		}, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			var lost []string
			open := func() *Dead {
				lost = nil
				d, err := OpenDead(DeadConfig{Dir: filepath.Join(folder, "dead"), Logger: quiet, Lost: func(what string) { lost = append(lost, what) }})
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			told := func(d *Dead, want string) {
				t.Helper()
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				bytes, _ := d.Damaged()
				if (want == "") != (len(lost) == 0) || len(lost) > 0 && (len(lost) != 1 || !strings.Contains(lost[0], want)) || strings.Contains(want, "bytes") != (bytes > 0) {
					t.Errorf("told %q and %d bytes, want %q", lost, bytes, want)
				}
			}
			verified := func(want string) {
				t.Helper()
				r, err := Verify(folder)
				if err != nil || r.OK() != (want == "") || !strings.Contains(strings.Join(r.Dead, ";"), want) {
					t.Errorf("verified: %q, %v; want %q", r.Dead, err, want)
				}
			}
			d := open()
			for i := range 3 {
				if err := d.Bury([]collector.DeadLetter{aLetter("b", i)}); err != nil {
					t.Fatal(err)
				}
			}
			told(d, "")
			verified("")
			if err := c.damage(filepath.Join(folder, "dead", name)); err != nil {
				t.Fatal(err)
			}
			verified(c.want)
			if d = open(); d.Len() != c.left {
				t.Errorf("%d letters are left, want %d", d.Len(), c.left)
			}
			told(d, c.want)
			d = open()
			if again := c.want; c.name != "gone" { // a file that is gone is told once
				told(d, again)
			} else {
				told(d, "")
			}
			// A letter that comes is kept in a file of another number, and all is well.
			d = open()
			if err := errors.Join(d.Begin("c"), d.Bury([]collector.DeadLetter{aLetter("c", 9)}), d.Close()); err != nil {
				t.Fatal(err)
			}
			verified("")
			if d = open(); d.Len() != c.left+1 {
				t.Errorf("%d letters, want one more than %d", d.Len(), c.left)
			}
			told(d, "")
		})
	}
}

func TestDeadLettersStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dead")
	open := func() *Dead {
		d, err := OpenDead(DeadConfig{Dir: dir, MaxLetters: 5, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("a folder was made for nothing")
	}
	list := []collector.DeadLetter{aLetter("b", 3), aLetter("b", 1), aLetter("b", 2)}
	for range 2 { // the batch is offered again
		if err := d.Bury(list); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Bury([]collector.DeadLetter{aLetter("c", 1), aLetter("c", 2), aLetter("c", 3)}); !errors.Is(err, collector.ErrFull) || d.Len() != 3 {
		t.Errorf("beyond the bound: %v, %d letters", err, d.Len())
	}
	if err := errors.Join(d.Begin("b"), d.Divide("b", "t1", 7), d.Divide("b", "t2", -1), d.SetDriving([]string{list[0].ID}, true)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a start reads what was, also what a rewriting has kept
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = open()
		if !divided(d, "t1", 7) || !divided(d, "t2", -1) || divided(d, "t3", -1) || len(d.Buried("b")) != 3 {
			t.Fatal("what was noted of the batch is gone")
		}
		got, err := d.Get(list[0].ID)
		if err != nil || string(got.Payload) != string(list[0].Payload) || !got.Driving || got.Position != 3 || got.Kind != collector.KindPrediction {
			t.Fatalf("%+v, %v", got, err)
		}
		d.mu.Lock()
		err = d.rewrite()
		d.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	read, err := ReadDead(dir)
	if err != nil || len(read) != 3 || read[0].Position != 1 || len(read[0].Payload) == 0 {
		t.Errorf("read beside a server: %v, %v", read, err)
	}
	if err := d.Begin("b"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Delete([]string{list[1].ID}); !errors.Is(err, collector.ErrNotReady) {
		t.Errorf("deleted while its batch is on its way: %v", err)
	}
	if err := d.Finish("b", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Delete([]string{list[1].ID, list[0].ID}); !errors.Is(err, collector.ErrRefused) || d.Len() != 3 {
		t.Errorf("deleted while it is driven: %v", err)
	}
	if n, err := d.Delete([]string{list[1].ID, list[1].ID, "none"}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if err := errors.Join(d.Begin("d"), d.Finish("d", []string{list[0].ID, "none"})); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = open()
	defer d.Close()
	if d.Len() != 1 || !d.Applies(list[0].ID, "d") || d.Applies(list[0].ID, "e") || d.Applies(list[1].ID, "d") || !d.Applies(list[2].ID, "e") {
		t.Errorf("%d letters; home %t %t %t %t", d.Len(), d.Applies(list[0].ID, "d"), d.Applies(list[0].ID, "e"), d.Applies(list[1].ID, "d"), d.Applies(list[2].ID, "e"))
	}
	if _, err := d.Get(list[0].ID); !errors.Is(err, collector.ErrNotFound) {
		t.Errorf("a letter that is home: %v", err)
	}
}

// TestDeadLettersSurviveEveryCrash: whatever operation the machine dies in, what a
// method had said is there is there after it.
func TestDeadLettersSurviveEveryCrash(t *testing.T) {
	crashes, letters := 0, 0
	for _, power := range []bool{false, true} {
		for k := 1; ; k++ {
			fs := newDisk(uint64(k))
			fs.CrashAt = k
			buried, gone, split := map[string]bool{}, map[string]bool{}, map[string]bool{}
			maybe := map[string]bool{}
			d := deadAt(t, fs)
			steps := func() error {
				for i := range 6 {
					l := aLetter("b", i)
					maybe[l.ID] = true
					if err := d.Bury([]collector.DeadLetter{l}); err != nil {
						return err
					}
					buried[l.ID] = true
					token := fmt.Sprint("t", i)
					if err := d.Divide("b", token, len(split)-1); err != nil {
						return err
					}
					split[token] = true
					if i == 3 {
						id := aLetter("b", 0).ID
						delete(buried, id)
						if err := d.Finish("x", []string{id}); err != nil {
							return err
						}
						gone[id] = true
						d.mu.Lock()
						err := d.rewrite()
						d.mu.Unlock()
						if err != nil {
							return err
						}
					}
				}
				return nil
			}
			err := steps()
			d = deadAt(t, fs.After(power))
			for id := range buried {
				if l, gerr := d.Get(id); gerr != nil || len(l.Payload) == 0 {
					t.Fatalf("crash at %d (power %t): letter lost: %v", k, power, gerr)
				}
			}
			for token := range split {
				if _, ok := d.Divided("b", token); !ok {
					t.Fatalf("crash at %d (power %t): that %s was divided is forgotten", k, power, token)
				}
			}
			for id := range gone {
				if _, gerr := d.Get(id); gerr == nil {
					t.Fatalf("crash at %d (power %t): a letter that was home is back", k, power)
				}
			}
			for _, l := range d.List() {
				if !maybe[l.ID] {
					t.Fatalf("crash at %d: letter %s of nobody", k, l.ID)
				}
			}
			// And it goes on.
			if err := d.Bury([]collector.DeadLetter{aLetter("later", 1)}); err != nil {
				t.Fatalf("crash at %d (power %t): %v", k, power, err)
			}
			if err == nil {
				if k < 20 {
					t.Fatalf("only %d operations", k)
				}
				break
			}
			crashes, letters = crashes+1, letters+len(buried)
		}
	}
	t.Logf("%d crashes, %d letters acknowledged, 0 lost, 0 of those that were gone back", crashes, letters)
}

// TestDamagedDeadLetters: bytes that cannot be read are kept aside, the rest is
// read, and a failed write is never continued in the same file.
func TestDamagedDeadLetters(t *testing.T) {
	fs := newDisk(1)
	d := deadAt(t, fs)
	for i := range 4 {
		if err := d.Bury([]collector.DeadLetter{aLetter("b", i)}); err != nil {
			t.Fatal(err)
		}
	}
	id := aLetter("b", 1).ID
	at := d.letters[id].at + frameSize + 20
	f, err := fs.Open("/dead/"+deadName(1), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("????"), at); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(id); err == nil {
		t.Error("a damaged letter was handed out")
	}
	d, err = openDead(DeadConfig{Dir: "/dead", Logger: quiet}, fs)
	if err != nil {
		t.Fatal(err)
	}
	names, _ := vfs.Files(fs, "/dead")
	if d.Len() != 3 || !slices.ContainsFunc(names, func(n string) bool { return filepath.Ext(n) == ".bad" }) {
		t.Errorf("%d letters, files %v", d.Len(), names)
	}
	if err := d.Bury([]collector.DeadLetter{aLetter("c", 1)}); err != nil {
		t.Fatal(err)
	}
	fs.Fail = func(op, _ string) error {
		if op == "sync" {
			return errors.New("input/output error")
		}
		return nil
	}
	if err := d.Bury([]collector.DeadLetter{aLetter("c", 2)}); err == nil || d.Len() != 4 {
		t.Errorf("a failed sync was not told: %v, %d letters", err, d.Len())
	}
	fs.Fail = nil
	if err := d.Bury([]collector.DeadLetter{aLetter("c", 1), aLetter("c", 2)}); err != nil {
		t.Fatal(err)
	}
	if len(touched(fs)) > 0 {
		t.Errorf("written after a failed sync: %v", touched(fs))
	}
	if d = deadAt(t, fs); d.Len() != 5 {
		t.Errorf("%d letters, want 5", d.Len())
	}
}

func FuzzDecodeDeadLetter(f *testing.F) {
	l := aLetter("b", 1)
	b, err := collector.EncodeDeadLetter(&l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 9, 1, 0, 2, 0, 0, 0, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		collector.PayloadKeys(collector.KindDriven, b)
		collector.PayloadRows(collector.KindDriven, b)
		l, err := collector.DecodeDeadLetter(b)
		if err != nil {
			return
		}
		again, err := collector.EncodeDeadLetter(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collector.DecodeDeadLetter(again); err != nil {
			t.Fatal(err)
		}
	})
}

// TestErasedLettersLeaveNoByte erases a letter, when others went before it, and looks
// through the folder.
func TestErasedLettersLeaveNoByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dead")
	d, err := OpenDead(DeadConfig{Dir: dir, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	list := []collector.DeadLetter{aLetter("b", 0), aLetter("b", 1), aLetter("b", 2)}
	for i := range list {
		list[i].Payload = fmt.Appendf(nil, "the secret of number %d", i)
	}
	if err := errors.Join(d.Bury(list), d.Finish("b", nil)); err != nil {
		t.Fatal(err)
	}
	holds := func(what string, want ...bool) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 1 {
			t.Fatalf("%q, %v", names, err)
		}
		b, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if got := strings.Contains(string(b), string(list[i].Payload)); got != want[i] {
				t.Errorf("%s: letter %d is in the file: %t", what, i, got)
			}
		}
	}
	if n, err := d.Delete([]string{list[0].ID}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	holds("deleted", true, true, true)
	if n, err := d.Erase([]string{list[1].ID}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	holds("erased", false, false, true)
	if err := d.SetDriving([]string{list[2].ID}, true); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Erase([]string{list[2].ID}); n != 0 || !errors.Is(err, collector.ErrRefused) {
		t.Errorf("on its way: %d, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = OpenDead(DeadConfig{Dir: dir, Logger: quiet}); err != nil || d.Len() != 1 {
		t.Fatalf("after a start: %v", err)
	}
	defer d.Close()
	if got, err := d.Get(list[2].ID); err != nil || !got.Driving || string(got.Payload) != string(list[2].Payload) {
		t.Errorf("the letter that stays: %+v, %v", got, err)
	}
}

// TestGoneLettersAreRemembered across a rewriting of the file and a restart, until they
// are refused anew.
func TestGoneLettersAreRemembered(t *testing.T) {
	disk := newDisk(1)
	d, err := openDead(DeadConfig{Dir: "/dead", Logger: quiet}, disk)
	if err != nil {
		t.Fatal(err)
	}
	letter := func(position int) collector.DeadLetter {
		return collector.DeadLetter{
			ID: collector.DeadLetterID("a", position, "predictions"), Batch: "a", Position: position, Insert: "predictions",
			Kind: collector.KindPrediction, Version: 1, Payload: []byte("payload"),
		}
	}
	list := []collector.DeadLetter{letter(0), letter(1), letter(2)}
	if err := d.Bury(list); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Delete([]string{list[0].ID}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := d.Finish("b", []string{list[1].ID}); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		for i, want := range []struct {
			batch string
			gone  bool
		}{{"", true}, {"b", true}, {"", false}} {
			if batch, gone := d.Gone(list[i].ID); batch != want.batch || gone != want.gone {
				t.Errorf("%s: letter %d: %q, %t", what, i, batch, gone)
			}
		}
	}
	check("at first")
	for _, what := range []string{"written anew", "and again"} {
		d.broken = true // the next batch has the file written anew
		if err := errors.Join(d.Begin("c"), d.Close()); err != nil {
			t.Fatal(err)
		}
		if d, err = openDead(DeadConfig{Dir: "/dead", Logger: quiet}, disk); err != nil {
			t.Fatal(err)
		}
		check(what)
	}
	if err := d.Bury(list[:1]); err != nil {
		t.Fatal(err)
	}
	d.broken = true
	if err := errors.Join(d.Begin("c"), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = openDead(DeadConfig{Dir: "/dead", Logger: quiet}, disk); err != nil {
		t.Fatal(err)
	}
	if _, gone := d.Gone(list[0].ID); gone || d.Len() != 2 {
		t.Errorf("refused anew: gone %t, %d letters", gone, d.Len())
	}
}

func divided(d *Dead, token string, around int) bool {
	alone, ok := d.Divided("b", token)
	return ok && alone == around
}
