package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

const bootPath = "/boot_id"

func keepConfig() Config {
	cfg := smallConfig(LevelMachine)
	cfg.BootIDPath = bootPath
	return cfg
}

// bootAs says which run of the machine it is.
func bootAs(disk *vfstest.FS, id string) { disk.Put(bootPath, []byte(id+"\n")) }

// touched is what was done to files after a sync of them had failed, but that the cursor is
// written again, which a reader can do without.
func touched(disk *vfstest.FS) []string {
	return slices.DeleteFunc(disk.Touched(), func(name string) bool { return strings.HasPrefix(name, "write ") && filepath.Base(name) == cursorName })
}

// look looks for what a power cut may have taken from the store, and stores what is
// missing.
func (w *world) look(s *Spool) error {
	for _, token := range s.Unchecked() {
		b, err := s.Kept(token)
		if err != nil {
			return err
		}
		if b.Token != token {
			w.t.Fatalf("asked for %s, got %s", token, b.Token)
		}
		if w.store[token] == nil {
			w.insert(b)
			w.sentAgain++
		}
	}
	return s.Checked()
}

// lose takes the last n batches from the store.
func (w *world) lose(n int) {
	for _, token := range w.order[len(w.order)-min(n, len(w.order)):] {
		delete(w.store, token)
	}
}

// TestStoreThatLosesTheLastBatches cuts the power at every operation, and the store
// loses batches it has confirmed: everything acknowledged is there once all the same.
func TestStoreThatLosesTheLastBatches(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	runs, sent, acknowledged := 0, 0, 0
	once := func(k int, round uint64) bool {
		rng := rand.New(rand.NewPCG(seed+round, uint64(k)))
		w, disk := newWorld(t), newDisk(seed+round+uint64(k))
		boot := 0
		bootAs(disk, "boot-0")
		run := func(crashAt, steps int) (crashed bool) {
			disk.CrashAt = crashAt
			s, err := open(keepConfig(), disk)
			if err == nil {
				if err = w.look(s); err == nil {
					err = w.workload(s, rng, steps)
				}
				_ = s.Close()
			}
			if crashed = disk.Down(); err != nil && !crashed {
				t.Fatalf("seed %d, operation %d: %v", seed+round, k, err)
			}
			power := rng.IntN(4) > 0
			disk = disk.After(power)
			if power {
				boot++
				w.lose(rng.IntN(6))
			}
			bootAs(disk, fmt.Sprint("boot-", boot))
			return crashed
		}
		if !run(k, 40) {
			return false
		}
		for range 3 {
			run(1+rng.IntN(60), 8)
		}
		s, err := open(keepConfig(), disk)
		if err != nil {
			t.Fatalf("seed %d, operation %d: %v", seed+round, k, err)
		}
		if err := errors.Join(w.look(s), w.drain(s)); err != nil {
			t.Fatalf("seed %d, operation %d: %v", seed+round, k, err)
		}
		w.check()
		if len(s.Unchecked()) > 0 {
			t.Fatal("checked, and still offered")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		runs, sent, acknowledged = runs+1, sent+w.sentAgain, acknowledged+len(w.acked)
		return true
	}
	// How much a round does goes by its seed: four rounds, and on until enough was tried.
	for round := uint64(0); round < 4 || (round < 16 && (runs < 500 || sent < 500)); round++ {
		for k := 1; once(k, round); k++ {
		}
	}
	if runs < 500 || sent < 500 {
		t.Fatalf("only %d power cuts, %d batches sent again", runs, sent)
	}
	t.Logf("%d power cuts, %d batches sent again, %d acknowledged, 0 lost, 0 doubled", runs, sent, acknowledged)
}

// TestSameBootOffersNothing: only a power cut puts in doubt what the store confirmed.
func TestSameBootOffersNothing(t *testing.T) {
	disk := newDisk(1)
	bootAs(disk, "a")
	w := newWorld(t)
	for i, c := range []struct {
		boot string
		want bool
	}{{"a", false}, {"a", false}, {"b", true}, {"b", false}, {"", true}, {"", true}} {
		bootAs(disk, c.boot)
		s, err := open(keepConfig(), disk)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(s.Unchecked()) > 0; got != c.want {
			t.Errorf("start %d, boot %q: offered %t", i, c.boot, got)
		}
		if found, err := s.Find("id-0"); err != nil || len(found) > 0 {
			t.Errorf("what is kept is found as if it waited: %v, %v", found, err)
		}
		if st := s.Stats(); st.Pending != 0 || st.Appended != st.Acked {
			t.Errorf("what is kept counts as pending: %+v", st)
		}
		if err := errors.Join(w.look(s), w.append(s, 300), w.drain(s), s.Close()); err != nil {
			t.Fatal(err)
		}
		disk = disk.After(false)
	}
	w.check()
}

// TestKeptSegmentsGoInTime, with the reader idle.
func TestKeptSegmentsGoInTime(t *testing.T) {
	cfg := realConfig(t)
	cfg.Level, cfg.KeepFor = LevelMachine, 150*time.Millisecond
	s, w := mustOpen(t, cfg), newWorld(t)
	for range 30 {
		if err := w.append(s, 9000); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.drain(s); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	if st.Segments < 3 || st.Kept == 0 || st.Bytes < st.Kept || st.Pending != 0 {
		t.Fatalf("nothing is kept: %+v", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = s.Next(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); s.Stats().Segments > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("kept for ever: %+v", s.Stats())
		}
	}
	cancel()
	<-done
}

// TestKeptSegmentsRefuseNothing: they give way to records, the oldest first.
func TestKeptSegmentsRefuseNothing(t *testing.T) {
	for name, limit := range map[string]func(*Config, *vfstest.FS){
		"disk":    func(_ *Config, m *vfstest.FS) { m.Capacity = ledgerFileSize + 300<<10 },
		"maximum": func(c *Config, _ *vfstest.FS) { c.MaxBytes = 200 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			disk, cfg := newDisk(1), keepConfig()
			limit(&cfg, disk)
			bootAs(disk, "a")
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			for range 400 {
				if err := w.append(s, 5000); err != nil {
					t.Fatalf("with %+v: %v", s.Stats(), err)
				}
				if err := w.drain(s); err != nil {
					t.Fatal(err)
				}
			}
			st := s.Stats()
			if st.Kept == 0 || st.Fill > 0.7 || st.Full || cfg.MaxBytes > 0 && st.Bytes > cfg.MaxBytes {
				t.Errorf("%+v", st)
			}
			w.check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			// The newest are the ones that are left.
			bootAs(disk, "b")
			if s, err = open(cfg, disk); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tokens := s.Unchecked()
			if k := len(tokens); k == 0 || k == 400 || !slices.Equal(tokens, w.order[400-k:]) {
				t.Errorf("%d batches are left of 400, or not the last", len(tokens))
			}
			// In doubt they are not merely kept.
			for err == nil {
				err = w.append(s, 5000)
			}
			if !errors.Is(err, collector.ErrFull) || !slices.Equal(s.Unchecked(), tokens) {
				t.Errorf("%d batches in doubt, %v", len(s.Unchecked()), err)
			}
			if err := errors.Join(w.look(s), w.append(s, 5000), w.drain(s)); err != nil {
				t.Error(err)
			}
			w.check()
		})
	}
}

// TestWhatIsErasedIsNeverSentAgain cuts the power at every operation around a rotation:
// once Before says that nothing is left, no start offers what was acknowledged before it.
func TestWhatIsErasedIsNeverSentAgain(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	runs, erasures := 0, 0
	once := func(k int, early bool) bool {
		disk := newDisk(seed + uint64(k))
		bootAs(disk, "a")
		disk.CrashAt = k
		cfg, w := keepConfig(), newWorld(t)
		if early {
			cfg.KeepFor = time.Nanosecond // the files go before anybody asks
		}
		erased := map[string]bool{}
		s, err := open(cfg, disk)
		if err == nil {
			for i := 0; i < 12 && err == nil; i++ {
				if err = w.append(s, 8000); err == nil {
					err = w.drain(s)
				}
				if err != nil || i != 7 {
					continue
				}
				var mark uint64
				if mark, err = s.Rotate(); err != nil {
					continue
				}
				s.readMu.Lock()
				s.dropFinished()
				s.readMu.Unlock()
				if !s.Before(mark) {
					erasures++
					for _, token := range w.order {
						erased[token] = true
					}
				}
			}
			if err == nil {
				err = s.Close()
			}
		}
		if err != nil && !disk.Down() {
			t.Fatalf("seed %d, operation %d: %v", seed, k, err)
		}
		crashed := disk.Down()
		disk = disk.After(true)
		bootAs(disk, "b")
		if s, err = open(cfg, disk); err != nil {
			t.Fatalf("seed %d, operation %d: %v", seed, k, err)
		}
		defer s.Close()
		for _, token := range s.Unchecked() {
			if erased[token] {
				t.Fatalf("seed %d, operation %d: an erased batch is offered again", seed, k)
			}
		}
		runs++
		return crashed
	}
	for _, early := range []bool{false, true} {
		for round := 0; round < 3 || (round < 12 && (runs < 300 || erasures < 50)); round++ {
			for k := 1; once(k, early); k++ {
			}
			seed++
		}
	}
	if runs < 300 || erasures < 50 {
		t.Fatalf("only %d power cuts, %d erasures", runs, erasures)
	}
}

// TestRotateWaitsForWhatIsInDoubt: an erasure must not take away what the store may
// have lost.
func TestRotateWaitsForWhatIsInDoubt(t *testing.T) {
	disk, w := newDisk(1), newWorld(t)
	bootAs(disk, "a")
	s, err := open(keepConfig(), disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.append(s, 500), w.drain(s), s.Close()); err != nil {
		t.Fatal(err)
	}
	bootAs(disk, "b")
	if s, err = open(keepConfig(), disk); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mark, err := s.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	s.readMu.Lock()
	s.dropFinished()
	s.readMu.Unlock()
	if !s.Before(mark) || len(s.Unchecked()) != 1 {
		t.Fatal("a batch in doubt is gone")
	}
	w.lose(1)
	if err := w.look(s); err != nil {
		t.Fatal(err)
	}
	if w.check(); s.Before(mark) {
		t.Error("looked for, and still there")
	}
}

// TestLostCursorIsMadeFromTheLedger: what is merely kept is not delivered again.
func TestLostCursorIsMadeFromTheLedger(t *testing.T) {
	disk, w := newDisk(1), newWorld(t)
	bootAs(disk, "a")
	s, err := open(keepConfig(), disk)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := errors.Join(w.append(s, 9000), w.drain(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.append(s, 500), s.Close()); err != nil {
		t.Fatal(err)
	}
	disk = folderWith(disk, cursorName, []byte(strings.Repeat("?", cursorFileSize)))
	bootAs(disk, "a")
	if s, err = open(keepConfig(), disk); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := w.drain(s); err != nil {
		t.Fatal(err)
	}
	w.check()
	if len(w.store) != 11 {
		t.Errorf("%d batches, want 11", len(w.store))
	}
}

// TestDamagedLedger: a flipped bit costs the memory of one batch, or of all, never a
// record, and never brings back what was forgotten.
func TestDamagedLedger(t *testing.T) {
	disk, w := newDisk(1), newWorld(t)
	bootAs(disk, "a")
	s, err := open(keepConfig(), disk)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(w.append(s, 500), w.drain(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data := disk.Data(join("/spool", ledgerName))
	places := []int{}
	for at := range ledgerHeadSize {
		places = append(places, at, ledgerSlot+at)
	}
	for at := range 4 * ledgerEntry {
		places = append(places, ledgerEntriesAt+at)
	}
	for _, at := range places {
		flipped := slices.Clone(data)
		flipped[at] ^= 0x80
		bad := folderWith(disk, ledgerName, flipped)
		bootAs(bad, "b")
		s, err := open(keepConfig(), bad)
		if errors.Is(err, ErrVersion) {
			continue
		}
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		n := len(s.Unchecked())
		slot := at < ledgerEntriesAt
		if slot && n != 3 && n != 0 || !slot && n != 2 && n != 3 {
			t.Errorf("byte %d: %d batches are offered", at, n)
		}
		if err := errors.Join(w.look(s), w.append(s, 100), w.drain(s), s.Close()); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	w.check()
	for _, n := range []int{0, 10, ledgerSlot, ledgerEntriesAt + 70} {
		cut := folderWith(disk, ledgerName, data[:n])
		bootAs(cut, "b")
		s, err := open(keepConfig(), cut)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if err := errors.Join(w.look(s), s.Close()); err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	flipped := slices.Clone(data)
	flipped[4], flipped[ledgerSlot+4] = 9, 9
	if _, err := open(keepConfig(), folderWith(disk, ledgerName, flipped)); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer ledger: %v", err)
	}
}

// TestLedgerThatFails is written anew, and where that fails too nothing is acknowledged.
func TestLedgerThatFails(t *testing.T) {
	disk, w := newDisk(1), newWorld(t)
	bootAs(disk, "a")
	s, err := open(keepConfig(), disk)
	if err != nil {
		t.Fatal(err)
	}
	failing := map[string]error{}
	disk.Fail = func(op, name string) error { return failing[op+" "+name] }
	if err := errors.Join(w.append(s, 500), w.drain(s), w.append(s, 500)); err != nil {
		t.Fatal(err)
	}
	failing["sync "+ledgerName], failing["sync "+ledgerName+".new"] = syscall.EIO, syscall.EIO
	b := next(t, s)
	w.insert(b)
	if err := s.Ack(t.Context(), b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("acknowledged without its ledger: %v", err)
	}
	delete(failing, "sync "+ledgerName+".new")
	if err := s.Ack(t.Context(), next(t, s)); err != nil {
		t.Fatal(err)
	}
	if len(touched(disk)) > 0 {
		t.Errorf("written after a failed sync: %v", touched(disk))
	}
	delete(failing, "sync "+ledgerName)
	if err := errors.Join(w.append(s, 500), w.drain(s), s.Close()); err != nil {
		t.Fatal(err)
	}
	// Without room for it, acknowledging goes on: else nothing would make room.
	bootAs(disk, "b")
	if s, err = open(keepConfig(), disk); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Unchecked(); !slices.Equal(got, w.order) {
		t.Errorf("%d batches remembered, want %d", len(got), len(w.order))
	}
	if err := errors.Join(w.look(s), w.append(s, 500)); err != nil {
		t.Fatal(err)
	}
	failing["write "+ledgerName], failing["write "+ledgerName+".new"] = syscall.EIO, syscall.ENOSPC
	if err := w.drain(s); err != nil {
		t.Error(err)
	}
	w.check()
}

// TestLedgerGoesRound remembers the last batches when there are more than it has room
// for.
func TestLedgerGoesRound(t *testing.T) {
	cfg := keepConfig()
	disk := newDisk(1)
	bootAs(disk, "a")
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(ledgerEntries + 10) {
		s.ledger.keep(acknowledged{plan: plan{segment: 1, from: headerSize + i, to: headerSize + i + 1}, number: s.ledger.next, at: i})
	}
	if err := s.replaceLedger(s.ledger.head); err != nil {
		t.Fatal(err)
	}
	if err := s.ledger.add(plan{segment: 1, from: 1 << 20, to: 1 << 21}, time.Now()); err != nil {
		t.Fatal(err)
	}
	l, found, damaged, err := readLedger(s.ledger.file)
	if err != nil || !found || damaged > 0 || len(l.entries) != ledgerEntries || l.next != ledgerEntries+11 || l.entries[0].number != 11 || l.last().Offset != 1<<21 {
		t.Fatalf("%d entries, next %d, %d damaged, %t, %v", len(l.entries), l.next, damaged, found, err)
	}
	_ = s.Close()
}

// TestLevelProcessKeepsNothing, nor a ledger that a start at another level has left.
func TestLevelProcessKeepsNothing(t *testing.T) {
	cfg := realConfig(t)
	cfg.Level = LevelMachine
	for _, level := range []Level{LevelMachine, LevelProcess, LevelMachine} {
		cfg.Level = level
		s, w := mustOpen(t, cfg), newWorld(t)
		for range 20 {
			if err := errors.Join(w.append(s, 9000), w.drain(s)); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); (st.Kept > 0) != (level == LevelMachine) {
			t.Errorf("%s: %+v", level, st)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(cfg.Dir, ledgerName))
		if (err == nil) != (level == LevelMachine) {
			t.Errorf("%s: ledger: %v", level, err)
		}
		if r, err := Verify(cfg.Dir); err != nil || !r.OK() || (r.Remembered > 0) != (level == LevelMachine) {
			t.Errorf("%s: %+v, %v", level, r, err)
		}
	}
}

// TestPlannedWaitsForNobody: what is planned is told while the reader waits for records, also
// where what had been planned before is gone.
func TestPlannedWaitsForNobody(t *testing.T) {
	cfg := realConfig(t)
	s := mustOpen(t, cfg)
	if err := s.Append(t.Context(), prediction("one", 20)); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b, err := s.Next(ctx)
	if err != nil || s.Planned() != b.Token {
		t.Fatalf("planned %q: %v", s.Planned(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(cfg.Dir, "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v: %v", segments, err)
	}
	for _, name := range segments {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, cfg)
	if s.Planned() != b.Token {
		t.Errorf("after the start %q is planned", s.Planned())
	}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = s.Next(ctx) }()
	defer func() { cancel(); <-done }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		told := make(chan string, 1)
		go func() { told <- s.Planned() }()
		select {
		case token := <-told:
			if token == "" {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody says what is planned while the reader waits")
		}
		if time.Now().After(deadline) {
			t.Fatal("what is gone stays planned")
		}
	}
}
