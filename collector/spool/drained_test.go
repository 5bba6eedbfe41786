package spool

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

// small are spools that have room for one segment and not for another beside it.
var small = map[string]func(*Config, *vfstest.FS){
	"disk":    func(_ *Config, m *vfstest.FS) { m.Capacity = 120 << 10 },
	"maximum": func(c *Config, _ *vfstest.FS) { c.MaxBytes = 100 << 10 },
	"machine": func(c *Config, _ *vfstest.FS) { c.MaxBytes, c.Level = 100<<10, LevelMachine },
	"machine's disk": func(c *Config, m *vfstest.FS) { // with its ledger
		m.Capacity, c.Level = 700<<10, LevelMachine
	},
	// A quota is not in what the disk says that it has free.
	"quota": func(_ *Config, m *vfstest.FS) {
		there := map[string]bool{}
		m.Fail, m.Refuses = func(op, name string) error {
			if _, ok := segmentNumber(name); !ok {
				return nil
			}
			switch op {
			case "create":
				there[name] = true
			case "remove":
				delete(there, name)
			case "reserve":
				if len(there) > 1 {
					return syscall.EDQUOT
				}
			}
			return nil
		}, true
	},
}

// TestDrainedSpoolTakesRecords: a spool that was full goes on when all of it is stored,
// where it has room for one segment only.
func TestDrainedSpoolTakesRecords(t *testing.T) {
	for name, limit := range small {
		t.Run(name, func(t *testing.T) {
			disk, cfg := newDisk(1), smallConfig(LevelProcess)
			limit(&cfg, disk)
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			for range 5 {
				for err == nil {
					err = w.append(s, 5000)
				}
				if !errors.Is(err, collector.ErrFull) || !s.Stats().Full {
					t.Fatalf("a full spool says %v, %+v", err, s.Stats())
				}
				if err := w.drain(s); err != nil {
					t.Fatal(err)
				}
				if err = w.append(s, 5000); err != nil || s.Stats().Full {
					t.Fatalf("append after draining: %v, %+v", err, s.Stats())
				}
			}
			if err := w.drain(s); err != nil {
				t.Fatal(err)
			}
			w.check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := walk(disk, "/spool", nil); err != nil || !r.OK() {
				t.Errorf("verify: %q (%v)", r.Problems(), err)
			}
		})
	}
}

// TestFullSpoolFindsRoomByItself: what was full is not for ever when nobody appends, as
// a server that says so gets no requests.
func TestFullSpoolFindsRoomByItself(t *testing.T) {
	for name, limit := range small {
		t.Run(name, func(t *testing.T) {
			disk, cfg := newDisk(1), smallConfig(LevelProcess)
			limit(&cfg, disk)
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			w := newWorld(t)
			for err == nil {
				err = w.append(s, 5000)
			}
			s.regain()
			if st := s.Stats(); !st.Full || st.Fill != 1 {
				t.Fatalf("nothing is stored, and there is room: %+v", st)
			}
			if err := w.drain(s); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(time.Minute); s.Stats().Full; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("full for ever: %+v", s.Stats())
				}
			}
			if st := s.Stats(); st.Fill > 0.1 {
				t.Errorf("nothing waits: %+v", st)
			}
			if err := w.append(s, 5000); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDrainedSegmentIsNotFill: what is all stored, and goes when its room is wanted, is
// nothing to be alarmed about.
func TestDrainedSegmentIsNotFill(t *testing.T) {
	for _, name := range []string{"disk", "maximum"} {
		disk, cfg := newDisk(1), smallConfig(LevelProcess)
		small[name](&cfg, disk)
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		for range 10 {
			if err := w.append(s, 5000); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Fill < 0.3 {
			t.Errorf("%s: 50 KB wait: %+v", name, st)
		}
		if err := w.drain(s); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Fill != 0 {
			t.Errorf("%s: nothing waits: %+v", name, st)
		}
		_ = s.Close()
	}
}

// TestSmallSpoolGoesOnWhileItIsDrained: a bound of less than four segments is cut into
// smaller ones, so that it need not be empty to take records again.
func TestSmallSpoolGoesOnWhileItIsDrained(t *testing.T) {
	disk, cfg := newDisk(1), smallConfig(LevelProcess)
	cfg.SegmentBytes, cfg.MaxBytes, cfg.BatchBytes = 64<<20, 1<<20, 16<<20
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := newWorld(t)
	for err == nil {
		err = w.append(s, 5000)
	}
	st := s.Stats()
	if st.Segments < 4 || st.Bytes > cfg.MaxBytes {
		t.Fatalf("%+v", st)
	}
	s.Flush()
	b := next(t, s)
	w.insert(b)
	if err := s.Ack(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := w.append(s, 5000); err != nil || s.Stats().Pending < st.Pending/2 {
		t.Errorf("with most of it waiting: %v, %+v", err, s.Stats())
	}
	if err := w.drain(s); err != nil {
		t.Fatal(err)
	}
	w.check()
}

// TestDrainedSpoolAmongAppends loses and doubles nothing while a small spool is filled from
// several sides and drained beside that.
func TestDrainedSpoolAmongAppends(t *testing.T) {
	for _, level := range []Level{LevelProcess, LevelMachine} {
		cfg := realConfig(t)
		cfg.Level, cfg.MaxBytes, cfg.FullTimeout = level, minSegment, time.Millisecond
		s := mustOpen(t, cfg)
		var mu sync.Mutex
		taken := map[string]bool{}
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i, n := 0, 0; n < 200 && t.Context().Err() == nil; i++ {
					// An id an attempt: one that was refused may be stored all the same.
					id := fmt.Sprintf("id-%d-%d", k, i)
					if s.Append(t.Context(), prediction(id, 3000)) != nil {
						continue
					}
					n++
					mu.Lock()
					taken[id] = true
					mu.Unlock()
				}
			}()
		}
		ended := make(chan struct{})
		go func() { defer close(ended); wg.Wait() }()
		stored := map[string]int{}
		for left := true; left; {
			select {
			case <-ended:
				left = s.Stats().Pending > 0
			default:
			}
			if s.Stats().Pending == 0 {
				time.Sleep(time.Millisecond)
				continue
			}
			b := next(t, s)
			for i := range b.Records {
				stored[b.Records[i].ID]++
			}
			if err := s.Ack(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		for id := range taken {
			if stored[id] == 0 {
				t.Errorf("%s: %s was acknowledged and is lost", level, id)
			}
		}
		for id, n := range stored {
			if n != 1 {
				t.Errorf("%s: %s is stored %d times", level, id, n)
			}
		}
		if st := s.Stats(); st.Failures == 0 || len(taken) != 800 {
			t.Errorf("%s: it was never full: %+v", level, st)
		}
	}
}
