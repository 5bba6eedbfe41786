package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// wallClock is a clock that is set from outside, back and forth.
type wallClock struct {
	mu  sync.Mutex
	rng *rand.Rand
	off time.Duration
	set int // how often it was
}

// jumps are those of leap seconds, summer time, dead batteries and mistyped years.
var jumps = []time.Duration{time.Second, time.Hour, 24 * time.Hour, 40 * 24 * time.Hour, 5 * 365 * 24 * time.Hour, 70 * 365 * 24 * time.Hour}

func (c *wallClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.off)
}

func (c *wallClock) jump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set++
	if d := jumps[c.rng.IntN(len(jumps))]; c.rng.IntN(2) == 0 {
		c.off += d
	} else {
		c.off -= d
	}
	c.off = min(max(c.off, -80*365*24*time.Hour), 100*365*24*time.Hour)
}

// TestClockJumps sets the clock between any two operations, over kills and power cuts of
// the machine after which the store has lost what it confirmed since the start before.
func TestClockJumps(t *testing.T) {
	const rounds = 300
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	sent, set, downs, acknowledged := 0, 0, 0, 0
	for round := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, round))
		// The disk asks from several goroutines, under its lock.
		when := rand.New(rand.NewPCG(seed+1, round))
		clock := &wallClock{rng: rand.New(rand.NewPCG(seed+2, round))}
		w, disk := newWorld(t), newDisk(seed+round)
		w.what = fmt.Sprintf("round %d:", round)
		cfg, boot := keepConfig(), 0
		cfg.Now = clock.now
		bootAs(disk, "boot-0")
		disk.Fail = func(string, string) error {
			if when.IntN(20) == 0 {
				clock.jump()
			}
			return nil
		}
		for range 5 {
			known := len(w.order)
			jumping := disk.Fail
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			disk.CrashAt = disk.Ops() + 1 + rng.IntN(150)
			if err = w.look(s); err == nil {
				err = w.workload(s, rng, 20)
			}
			_ = s.Close()
			if err != nil && !disk.Down() {
				t.Fatalf("round %d: %v", round, err)
			}
			if disk.Down() {
				downs++
			}
			power := rng.IntN(2) == 0
			disk = disk.After(power)
			if disk.Fail = jumping; power {
				boot++
				w.lose(rng.IntN(len(w.order) - known + 1))
			}
			bootAs(disk, fmt.Sprint("boot-", boot))
		}
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := errors.Join(w.look(s), w.drain(s)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		w.check()
		if lag := s.Stats().Lag; lag != 0 {
			t.Fatalf("round %d: nothing waits and the lag is %s", round, lag)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		sent, set, acknowledged = sent+w.sentAgain, set+clock.set, acknowledged+len(w.acked)
	}
	if sent < 100 {
		t.Fatalf("only %d batches were sent again", sent)
	}
	t.Logf("%d runs, %d jumps, %d kills and power cuts, %d batches sent again, %d acknowledged, 0 lost, 0 doubled", rounds, set, downs, sent, acknowledged)
}

// TestClockSetBackKeepsNothingForEver: segments acknowledged by a clock that was years
// ahead stay for KeepFor after the start that finds them so, not until those years are over.
func TestClockSetBackKeepsNothingForEver(t *testing.T) {
	for _, jump := range []time.Duration{-70 * 365 * 24 * time.Hour, -time.Hour, time.Hour, 70 * 365 * 24 * time.Hour} {
		w, disk := newWorld(t), newDisk(1)
		bootAs(disk, "boot-0")
		clock := &wallClock{}
		cfg := keepConfig()
		cfg.Now, cfg.KeepFor = clock.now, time.Hour
		s, err := open(cfg, disk)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if err := w.append(s, 10_000); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.drain(s); err != nil {
			t.Fatal(err)
		}
		if s.Stats().Kept == 0 {
			t.Fatal("nothing is kept to begin with")
		}
		clock.off = jump
		if s.dropFinished(); s.Stats().Kept == 0 {
			t.Fatalf("jump of %s: a running server forgets at once what it is to keep", jump)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.KeepFor = 30 * time.Millisecond
		if s, err = open(cfg, disk); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); s.Stats().Kept > 0; time.Sleep(5 * time.Millisecond) {
			if s.dropFinished(); time.Now().After(deadline) {
				t.Fatalf("jump of %s: %d bytes are kept for ever", jump, s.Stats().Kept)
			}
		}
		w.check()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
