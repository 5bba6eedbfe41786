package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// persevere is a workload on a disk with errors: whatever fails is answered with an
// error or tried again, and the rest goes on.
func (w *world) persevere(s *Spool, rng *rand.Rand, steps int) {
	for range steps {
		_ = w.append(s, 500+rng.IntN(12_000)) // answered with 503
		if rng.IntN(3) != 0 {
			continue
		}
		s.Flush()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		b, err := s.Next(ctx)
		cancel()
		if err != nil {
			continue
		}
		if rng.IntN(3) != 0 {
			w.insert(b)
			_ = s.Ack(context.Background(), b) // offered again, and known to the store
		}
		_, _ = s.Find("id-1")
		_ = s.Stats()
	}
}

// failOnce has the k-th operation on a folder in use fail and looks at what a later start
// makes of it. It reports whether there were that many operations.
func failOnce(t *testing.T, level Level, power, forGood bool, k int, seed uint64) (came, refused bool, acknowledged int) {
	t.Helper()
	w, disk := newWorld(t), newDisk(seed)
	cfg := keepConfig()
	cfg.Level = level
	bootAs(disk, "boot-0")
	rng := rand.New(rand.NewPCG(seed, 3))
	first, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	w.persevere(first, rng, 12)
	node := first.cursor.node
	disk = disk.After(power)
	boot := "boot-0"
	if power {
		boot = "boot-1"
	}
	bootAs(disk, boot)

	// On a full disk what is merely kept gives way, and with it what a power cut takes then.
	fault := []error{syscall.EIO, syscall.ENOSPC}[k%2]
	if power {
		fault = syscall.EIO
	}
	failure := disk.FailAt(k, forGood, fault)
	s, err := open(cfg, disk)
	if err == nil {
		if s.cursor.node != node {
			t.Fatalf("seed %d, operation %d: the folder was taken for a new one", seed, k)
		}
		if err := w.look(s); err == nil {
			w.persevere(s, rng, 12)
		}
		_ = s.Close()
	}
	what, came := failure.Came()
	refused = err != nil
	w.what = fmt.Sprintf("seed %d, operation %d (%s):", seed, k, what)
	if refused && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("seed %d, operation %d: the start is refused without the reason: %v", seed, k, err)
	}
	if refused && disk.Locked() {
		t.Fatalf("seed %d, operation %d: the folder stays locked after %v", seed, k, err)
	}
	if len(touched(disk)) > 0 {
		t.Fatalf("seed %d, operation %d: written or synced again after a failed sync: %v", seed, k, touched(disk))
	}
	disk = disk.After(power)
	if power {
		w.lose(rng.IntN(3))
		boot = "boot-2"
	}
	bootAs(disk, boot)
	s, err = open(cfg, disk)
	if err != nil {
		t.Fatalf("seed %d, operation %d: open once the disk is well: %v", seed, k, err)
	}
	if s.cursor.node != node {
		t.Fatalf("seed %d, operation %d: the folder was taken for a new one", seed, k)
	}
	if err := errors.Join(w.look(s), w.drain(s)); err != nil {
		t.Fatalf("seed %d, operation %d: %v", seed, k, err)
	}
	w.check()
	if err := s.Close(); err != nil {
		t.Fatalf("seed %d, operation %d: close: %v", seed, k, err)
	}
	return came, refused, len(w.acked)
}

// TestErrorAtEveryOperation has every operation fail, reads, lists and closes among them,
// once and from then on: nothing acknowledged is lost or stored twice, and a folder that
// cannot be read keeps the server from starting instead of passing for a new one.
func TestErrorAtEveryOperation(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, c := range []struct {
		level          Level
		power, forGood bool
	}{
		{LevelProcess, false, false},
		{LevelProcess, false, true},
		{LevelMachine, false, false},
		{LevelMachine, true, false},
		{LevelMachine, true, true},
	} {
		t.Run(fmt.Sprintf("%s/power=%t/forGood=%t", c.level, c.power, c.forGood), func(t *testing.T) {
			runs, starts, acknowledged := 0, 0, 0
			// How much a round does goes by its seed: three rounds, and on until enough was tried.
			for round := uint64(0); round < 3 || (round < 12 && (runs < 200 || starts < 20)); round++ {
				for k := 1; ; k++ {
					came, refused, acked := failOnce(t, c.level, c.power, c.forGood, k, seed+round)
					if !came {
						break
					}
					runs, acknowledged = runs+1, acknowledged+acked
					if refused {
						starts++
					}
				}
			}
			if runs < 200 || starts < 20 {
				t.Fatalf("only %d errors were tried, of them %d at a start", runs, starts)
			}
			t.Logf("%d errors, %d starts refused, %d acknowledged, 0 lost, 0 doubled", runs, starts, acknowledged)
		})
	}
}

// TestUnreadableCursorAndLedger names the files whose error was once taken for a folder
// without them, after which each kept batch went out under a new token.
func TestUnreadableCursorAndLedger(t *testing.T) {
	for _, name := range []string{cursorName, ledgerName} {
		for _, op := range []string{"open", "read"} {
			w, disk := newWorld(t), newDisk(1)
			bootAs(disk, "boot-0")
			s, err := open(keepConfig(), disk)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.append(s, 100), w.drain(s), s.Close()); err != nil {
				t.Fatal(err)
			}
			disk.Fail = func(o, n string) error {
				if o == op && n == name {
					return syscall.EIO
				}
				return nil
			}
			if s, err := open(keepConfig(), disk); !errors.Is(err, syscall.EIO) {
				t.Fatalf("%s of %s fails: opened %v, error %v", op, name, s != nil, err)
			}
			disk.Fail = nil
			if s, err = open(keepConfig(), disk); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.append(s, 100), w.drain(s), s.Close()); err != nil {
				t.Fatal(err)
			}
			w.check()
			if k := len(w.store); k != 2 {
				t.Fatalf("%s of %s: %d batches are stored, not 2", op, name, k)
			}
		}
	}
}

// TestDeadLettersSurviveEveryError: whatever operation fails, once or from then on, what a
// method had said is there is there for the next start, and a folder that cannot be read
// does not pass for one without letters.
func TestDeadLettersSurviveEveryError(t *testing.T) {
	errs, letters := 0, 0
	for _, forGood := range []bool{false, true} {
		refused := 0
		for k := 1; ; k++ {
			disk := newDisk(uint64(k))
			buried, split := map[string]bool{}, map[string]bool{}
			add := func(d *Dead, from, n int) {
				for i := from; i < from+n; i++ {
					if l := aLetter("b", i); d.Bury([]collector.DeadLetter{l}) == nil {
						buried[l.ID] = true
					}
					if token := fmt.Sprint("t", i); d.Divide("b", token, i) == nil {
						split[token] = true
					}
				}
			}
			add(deadAt(t, disk), 0, 3)
			failure := disk.FailAt(k, forGood, syscall.EIO)
			d, err := openDead(DeadConfig{Dir: "/dead", Logger: quiet}, disk)
			if err == nil {
				add(d, 3, 3)
				d.mu.Lock()
				_ = d.rewrite() // what it says is held below
				d.mu.Unlock()
				add(d, 6, 2)
			} else if refused++; !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d: refused without the reason: %v", k, err)
			}
			what, came := failure.Came()
			d = deadAt(t, disk.After(false))
			for id := range buried {
				if l, err := d.Get(id); err != nil || len(l.Payload) == 0 {
					t.Fatalf("operation %d fails (%s): letter lost: %v", k, what, err)
				}
			}
			for token := range split {
				if _, ok := d.Divided("b", token); !ok {
					t.Fatalf("operation %d fails: that %s was divided is forgotten", k, token)
				}
			}
			if !came {
				break
			}
			errs, letters = errs+1, letters+len(buried)
		}
		if refused < 3 {
			t.Fatalf("only %d errors at a start", refused)
		}
	}
	t.Logf("%d errors, %d letters acknowledged, 0 lost", errs, letters)
}

// TestDiskThatLies: some syncs say yes and do nothing, and the power is cut. Of segments, what
// was acknowledged may be lost then, by no fault of ours; nothing is stored twice or made up,
// what is left is stored, and where the mark reached the disk the loss is told. Of other files
// nothing is lost.
func TestDiskThatLies(t *testing.T) {
	for _, what := range []string{segmentSuffix, cursorName, ledgerName, headName, ""} {
		t.Run("about "+what, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			var sum lie
			const rounds = 200
			for round := range uint64(rounds) {
				lied(t, what, seed, round, &sum)
			}
			t.Logf("%d runs, %d acknowledged, %d lost in %d power cuts, 0 doubled, %d told, %d told for nothing", rounds, sum.acknowledged, sum.lost, sum.losses, sum.told, sum.false)
			switch segments := what == segmentSuffix || what == ""; {
			case sum.lies < rounds:
				t.Errorf("the disk lied %d times", sum.lies)
			case segments && (sum.lost == 0 || sum.told == 0):
				t.Error("nothing was lost, or told")
			case !segments && sum.lost > 0:
				t.Error("what was synced is lost")
			}
		})
	}
}

// lie is what became of disks that lied.
type lie struct{ lies, acknowledged, lost, losses, told, false int }

// lied has a disk lie about the syncs of files whose names end so.
func lied(t *testing.T, what string, seed, round uint64, sum *lie) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, round))
	disk := newDisk(seed + round)
	disk.Lies = func(name string) bool {
		lies := strings.Contains(name, what) && rng.IntN(3) == 0 // under a new name too, until it is renamed
		if lies {
			sum.lies++
		}
		return lies
	}
	disk.CrashAt = 20 + rng.IntN(300)
	thisBoot(disk, "boot-0")
	w := newWorld(t)
	s, err := open(smallConfig(LevelMachine), disk)
	if err == nil {
		_ = w.workload(s, rand.New(rand.NewPCG(seed, round)), 40)
		_ = s.Close()
	}
	disk = disk.After(true)
	thisBoot(disk, "boot-1")
	acked := w.acked
	w.acked, w.planned = map[string]bool{}, map[string]string{} // a planned batch may be shorter
	saw := false
	cfg := smallConfig(LevelMachine)
	cfg.Lost = func(string) { saw = true }
	if s, err = open(cfg, disk); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	if err := w.append(s, 100); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	if err := w.drain(s); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	w.what = fmt.Sprintf("round %d:", round)
	w.check()
	_ = s.Close()
	stored := map[string]bool{}
	for _, ids := range w.store {
		for _, id := range ids {
			stored[id] = true
		}
	}
	gone := 0
	for id := range acked {
		if !stored[id] {
			gone++
		}
	}
	sum.acknowledged, sum.lost = sum.acknowledged+len(acked), sum.lost+gone
	switch {
	case gone > 0 && saw:
		sum.losses++
		sum.told++
	case gone > 0:
		sum.losses++
	case saw:
		sum.false++
		if len(acked) == 0 {
			t.Errorf("round %d: a loss is told where nothing was acknowledged", round)
		}
	}
}

// TestCloseTellsALostSync: a full disk that takes back what was written and answered, as one
// that gives room late may, fails Close: a stop is then no success.
func TestCloseTellsALostSync(t *testing.T) {
	disk := newDisk(1)
	s, err := open(keepConfig(), disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := newWorld(t).append(s, 10); err != nil {
		t.Fatal(err)
	}
	disk.Fail = func(op, _ string) error {
		if op == "sync" {
			return syscall.ENOSPC
		}
		return nil
	}
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}
