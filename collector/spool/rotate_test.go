package spool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRotateFreesWhatIsAcknowledged has the bytes of acknowledged records leave the
// disk although no segment is full.
func TestRotateFreesWhatIsAcknowledged(t *testing.T) {
	for _, level := range []Level{LevelProcess, LevelMachine, LevelNone} {
		t.Run(string(level), func(t *testing.T) {
			cfg := realConfig(t)
			cfg.Level = level
			s := mustOpen(t, cfg)
			w := newWorld(t)
			if err := w.append(s, 50); err != nil {
				t.Fatal(err)
			}
			mark, err := s.Rotate()
			if err != nil {
				t.Fatal(err)
			}
			if !s.Before(mark) {
				t.Fatal("a record that nobody acknowledged is said to be gone")
			}
			b := next(t, s)
			if err := s.Ack(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if s.Before(mark) {
				t.Error("after the acknowledgement the segment is still there")
			}
			// Acknowledged first, rotated later: the reader, who waits, deletes it.
			if err := w.append(s, 50); err != nil {
				t.Fatal(err)
			}
			if err := s.Ack(t.Context(), next(t, s)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var reader sync.WaitGroup
			reader.Add(1)
			go func() { defer reader.Done(); _, _ = s.Next(ctx) }()
			if mark, err = s.Rotate(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); s.Before(mark); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("an acknowledged segment stays")
				}
			}
			cancel()
			reader.Wait()
			left, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range left {
				if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "id-") {
					t.Errorf("%s still has a record", path)
				}
			}
			if again, err := s.Rotate(); err != nil || again != mark {
				t.Errorf("an empty segment was ended: %d, then %d, %v", mark, again, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Rotate(); !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// TestRotateAmongAppends loses and doubles nothing of what is appended beside it.
func TestRotateAmongAppends(t *testing.T) {
	s := mustOpen(t, realConfig(t))
	var wg sync.WaitGroup
	for range 4 {
		w := newWorld(t)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 100 {
				if err := w.append(s, 20); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range 20 {
		if _, err := s.Rotate(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	got := 0
	for got < 400 {
		b := next(t, s)
		got += len(b.Records)
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); got != 400 || st.Appended != st.Acked {
		t.Errorf("%d records read, %+v", got, st)
	}
}

// TestRotateOnAFullDisk: what an erasure waits for goes from the disk although there is
// no room for another segment, and appending goes on when there is.
func TestRotateOnAFullDisk(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		disk := newDisk(1)
		cfg := smallConfig(LevelProcess)
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		if err := w.append(s, 3); err != nil {
			t.Fatal(err)
		}
		if restarted {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = open(cfg, disk); err != nil {
				t.Fatal(err)
			}
		}
		disk.Capacity = disk.Used() + 100
		mark, err := s.Rotate()
		if err != nil {
			t.Fatalf("restarted %t: %v", restarted, err)
		}
		if !s.Before(mark) {
			t.Fatal("records that nobody acknowledged are said to be gone")
		}
		if err := s.Append(t.Context(), prediction("none", 20)); err == nil {
			t.Fatal("there is room for a segment: nothing is tested")
		}
		for s.Before(mark) {
			if err := s.Ack(t.Context(), next(t, s)); err != nil {
				t.Fatal(err)
			}
		}
		disk.Capacity = 0
		for _, id := range []string{"later", "last"} {
			if err := s.Append(t.Context(), prediction(id, 20)); err != nil {
				t.Fatal(err)
			}
		}
		if b := next(t, s); b.From.Segment < mark {
			t.Errorf("restarted %t: segment %d, the mark is %d", restarted, b.From.Segment, mark)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if ids, _, err := drainIDs(disk); err != nil || len(ids) != 2 {
			t.Errorf("restarted %t: %v, %v", restarted, ids, err)
		}
	}
}
