package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs/vfstest"
)

var quiet = slog.New(slog.DiscardHandler)

// newDisk is one that never writes what a sync of its file has failed to write: nothing that
// is written to such a file again may be relied on.
func newDisk(seed uint64) *vfstest.FS {
	disk := vfstest.New(seed)
	disk.Unforgiving = true
	return disk
}

func smallConfig(level Level) Config {
	return Config{
		Dir: "/spool", Level: level, SegmentBytes: minSegment, MinFreeBytes: -1, FullTimeout: 5 * time.Millisecond,
		BatchBytes: 40 << 10, BatchRows: 1000, BatchAge: time.Millisecond, Logger: quiet,
	}
}

func prediction(id string, size int) collector.Record {
	p := &collector.Prediction{
		ID: id, TraceID: "00000000000000000000000000" + fmt.Sprintf("%06d", size), Rows: 1, ReceivedAt: time.UnixMilli(1_700_000_000_000),
		Tenant: collector.DefaultTenant, Model: "m", Features: collector.Columns{Str: []string{strings.Repeat("x", size)}},
	}
	return collector.Record{
		Kind: collector.KindPrediction, Version: 1,
		Payload: collector.AppendPrediction(nil, p), ID: p.ID, TraceID: p.TraceID,
	}
}

// world is a client, a store that counts a token once, and what both remember
// across crashes.
type world struct {
	t         *testing.T
	attempted map[string]bool
	acked     map[string]bool
	store     map[string][]string // by token
	planned   map[string]string   // token -> the ids handed out with it
	next      int
	order     []string // tokens as they were first stored
	sentAgain int
	what      string // the case at hand, for messages
}

func newWorld(t *testing.T) *world {
	return &world{t: t, attempted: map[string]bool{}, acked: map[string]bool{}, store: map[string][]string{}, planned: map[string]string{}}
}

func (w *world) append(s *Spool, size int) error {
	id := fmt.Sprintf("id-%d", w.next)
	w.next++
	w.attempted[id] = true
	err := s.Append(context.Background(), prediction(id, size))
	if err == nil {
		w.acked[id] = true
	}
	return err
}

// appendTogether has several records go with one write, as those of requests that come at once do.
func (w *world) appendTogether(s *Spool, sizes []int) error {
	s.mu.Lock()
	s.writing = true // by this goroutine: whoever appends follows
	s.mu.Unlock()
	errs := make([]error, len(sizes))
	var done sync.WaitGroup
	for i, size := range sizes {
		id := fmt.Sprintf("id-%d", w.next)
		w.next++
		w.attempted[id] = true
		rec := prediction(id, size)
		done.Go(func() { errs[i] = s.Append(context.Background(), rec) })
		for joined := false; !joined; runtime.Gosched() {
			s.mu.Lock()
			joined = len(s.pending.records) > i
			s.mu.Unlock()
		}
	}
	err := s.lead()
	done.Wait()
	for i := range sizes {
		if errs[i] == nil && err != nil {
			w.t.Fatalf("a record is acknowledged whose write failed: %v", err)
		}
		if errs[i] == nil { // else the write failed, or came late
			w.acked[fmt.Sprintf("id-%d", w.next-len(sizes)+i)] = true
		}
	}
	return err
}

// insert is what is stored of a batch: a known token changes nothing.
func (w *world) insert(b *collector.Batch) {
	w.t.Helper()
	var ids []string
	for _, r := range b.Records {
		ids = append(ids, r.ID)
	}
	list := strings.Join(ids, ",")
	if b.Again { // what other batches have stored is asked for by its id
		for token, stored := range w.store {
			if token != b.Token {
				ids = slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(stored, id) })
			}
		}
	}
	if before, ok := w.planned[b.Token]; ok && before != list {
		w.t.Fatalf("token %s was handed out with %s and then with %s", b.Token, before, list)
	}
	if !slices.Contains(w.order, b.Token) {
		w.order = append(w.order, b.Token)
	}
	w.planned[b.Token] = list
	w.store[b.Token] = ids
}

// drain stores everything that is there. It gives up at the first error.
func (w *world) drain(s *Spool) error {
	s.Flush()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if s.Stats().Pending == 0 {
			cancel()
			return nil
		}
		b, err := s.Next(ctx)
		cancel()
		if err != nil {
			return err
		}
		w.insert(b)
		if err := s.Ack(context.Background(), b); err != nil {
			return err
		}
	}
}

// check holds acknowledged <= stored <= attempted, each at most once.
func (w *world) check() {
	w.t.Helper()
	seen := map[string]int{}
	for _, ids := range w.store {
		for _, id := range ids {
			seen[id]++
		}
	}
	for id := range w.acked {
		if seen[id] == 0 {
			w.t.Fatalf("%s %s was acknowledged and is lost (%d acknowledged, %d stored)", w.what, id, len(w.acked), len(seen))
		}
	}
	for id, n := range seen {
		if n > 1 {
			w.t.Fatalf("%s %s is stored %d times", w.what, id, n)
		}
		if !w.attempted[id] {
			w.t.Fatalf("%s was never sent", id)
		}
	}
}

// workload appends and drains until an error or the end. All of its choices
// come from rng.
func (w *world) workload(s *Spool, rng *rand.Rand, steps int) error {
	for range steps {
		sizes := []int{500 + rng.IntN(12_000)}
		for range max(0, rng.IntN(10)-5) {
			sizes = append(sizes, 100+rng.IntN(8_000))
		}
		if err := w.appendTogether(s, sizes); err != nil {
			if errors.Is(err, vfstest.ErrCrashed) {
				return err
			}
			continue // an injected error: answered with 503
		}
		if rng.IntN(5) != 0 {
			continue
		}
		s.Flush()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		b, err := s.Next(ctx)
		cancel()
		if err != nil {
			return err
		}
		if rng.IntN(3) != 0 {
			w.insert(b)
			if err := s.Ack(context.Background(), b); err != nil {
				return err
			}
		}
	}
	return s.Close()
}

// crashOnce runs a workload that crashes at the k-th operation and the recovery
// after it, which crashes too at its recoverAt-th. It reports whether the crash
// came.
func crashOnce(t *testing.T, cfg Config, power bool, k, recoverAt int, seed uint64) (acknowledged int, crashed bool) {
	t.Helper()
	w := newWorld(t)
	disk := newDisk(seed)
	disk.CrashAt = k
	boot := 0
	thisBoot(disk, fmt.Sprint("boot-", boot))
	cfg.Lost = func(what string) {
		t.Fatalf("seed %d, operation %d, recovery %d: a crash is told as a loss: %s", seed, k, recoverAt, what)
	}
	run := func(steps int) bool {
		s, err := open(cfg, disk)
		if err == nil {
			err = w.workload(s, rand.New(rand.NewPCG(seed, 2)), steps)
			_ = s.Close()
		}
		crashed := disk.Down()
		if err != nil && !crashed {
			t.Fatalf("seed %d, operation %d: %v", seed, k, err)
		}
		disk = disk.After(power)
		if power {
			boot++
		}
		thisBoot(disk, fmt.Sprint("boot-", boot))
		return crashed
	}
	if !run(30) { // writes, of one to five records
		return 0, false
	}
	disk.CrashAt = recoverAt
	run(5)
	if r, err := walk(disk, "/spool", nil); err != nil || !r.OK() {
		t.Fatalf("seed %d, operation %d, recovery %d: verify takes a crash for damage: %q (%v)", seed, k, recoverAt, r.Problems(), err)
	}
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatalf("seed %d, operation %d: open after the crash: %v", seed, k, err)
	}
	if n := s.Stats().Missing; n != 0 {
		t.Fatalf("seed %d, operation %d, recovery %d: %d segments are missed that went by rights", seed, k, recoverAt, n)
	}
	if err := w.drain(s); err != nil {
		t.Fatalf("seed %d, operation %d: drain after the crash: %v", seed, k, err)
	}
	w.check()
	if err := s.Close(); err != nil {
		t.Fatalf("seed %d, operation %d: close: %v", seed, k, err)
	}
	return len(w.acked), true
}

func TestCrashAtEveryOperation(t *testing.T) {
	for _, c := range []struct {
		level Level
		power bool
		// max is what the spool may take: no more than one segment, so that it goes on only
		// where the active one ends when all of it is acknowledged.
		max int64
	}{
		{LevelProcess, false, 0},
		{LevelMachine, false, 0},
		{LevelMachine, true, 0},
		{LevelProcess, false, minSegment},
		{LevelMachine, false, minSegment},
		{LevelMachine, true, minSegment},
	} {
		t.Run(fmt.Sprintf("%s/power=%t/max=%d", c.level, c.power, c.max), func(t *testing.T) {
			cfg := smallConfig(c.level)
			cfg.MaxBytes, cfg.FullTimeout = c.max, time.Millisecond
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			runs, acknowledged := 0, 0
			// How much a workload does goes by its seed: one, and on until enough was tried.
			for round := uint64(0); round == 0 || (round < 8 && runs < 1000); round++ {
				seed := seed + 1000*round
				for k := 1; ; k++ {
					if _, crashed := crashOnce(t, cfg, c.power, k, 1+k%7, seed); !crashed {
						break
					}
					for recoverAt := range 20 {
						n, _ := crashOnce(t, cfg, c.power, k, recoverAt, seed+uint64(recoverAt))
						acknowledged += n
						runs++
					}
				}
			}
			if runs < 1000 {
				t.Fatalf("only %d crashes were tried", runs)
			}
			t.Logf("%d crashes, %d acknowledged, 0 lost, 0 doubled", runs, acknowledged)
		})
	}
}

// A power cut at LevelProcess may lose records; it may never lose the rest,
// invent any or store one twice.
func TestPowerCutAtProcessLevel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for k := uint64(1); k < 400; k++ {
		w := newWorld(t)
		disk := newDisk(seed + k)
		disk.CrashAt = int(k)
		if s, err := open(smallConfig(LevelProcess), disk); err == nil {
			_ = w.workload(s, rand.New(rand.NewPCG(seed, k)), 40)
			_ = s.Close()
		}
		w.acked = map[string]bool{}
		// What was planned and then lost in part keeps its token with fewer records.
		w.planned = map[string]string{}
		s, err := open(smallConfig(LevelProcess), disk.After(true))
		if err != nil {
			t.Fatalf("operation %d: %v", k, err)
		}
		if err := w.append(s, 100); err != nil {
			t.Fatalf("operation %d: %v", k, err)
		}
		if err := w.drain(s); err != nil {
			t.Fatalf("operation %d: %v", k, err)
		}
		w.check()
		_ = s.Close()
	}
}

func TestRandomFailures(t *testing.T) {
	const rounds = 300
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	errs, downs, acknowledged := 0, 0, 0
	for round := range uint64(rounds) {
		e, d, a := randomFailures(t, seed, round)
		errs, downs, acknowledged = errs+e, downs+d, acknowledged+a
	}
	t.Logf("%d runs, %d errors, %d kills and power cuts, %d acknowledged, 0 lost, 0 doubled", rounds, errs, downs, acknowledged)
}

// TestSyncThatFailedInAnEarlierLife: a sync and the cut after it failed, the next process finds
// the record in the page cache, and the power is cut in its life. The goroutines' turns decide
// whether it comes so, hence the repeats.
func TestSyncThatFailedInAnEarlierLife(t *testing.T) {
	for range 20 {
		randomFailures(t, 1795745118402799571, 224)
	}
}

// TestDrainedSegmentBehindAKeptOne: the newest segment is acknowledged and removed to make room,
// and the header of the one after it names a kept one as the one before.
func TestDrainedSegmentBehindAKeptOne(t *testing.T) {
	randomFailures(t, 1795791908599370132, 6)
}

func randomFailures(t *testing.T, seed, round uint64) (errs, downs, acknowledged int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, round))
	level := []Level{LevelProcess, LevelMachine}[rng.IntN(2)]
	w := newWorld(t)
	disk := newDisk(seed + round)
	for range 4 {
		var mu sync.Mutex
		disk.Fail = func(op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if name == "LOCK" || rng.IntN(12) != 0 {
				return nil
			}
			if strings.HasSuffix(name, segmentSuffix) && op != "remove" {
				errs++
				return []error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)]
			}
			return nil
		}
		disk.CrashAt = 1 + rng.IntN(300)
		s, err := open(smallConfig(level), disk)
		if err == nil {
			_ = w.workload(s, rand.New(rand.NewPCG(seed, round)), 30)
			_ = s.Close()
		}
		if len(touched(disk)) > 0 {
			t.Fatalf("round %d: written or synced again after a failed sync: %v", round, touched(disk))
		}
		if disk.Down() {
			downs++
		}
		disk = disk.After(level == LevelMachine && rng.IntN(2) == 0)
	}
	if r, err := walk(disk, "/spool", nil); err != nil || !r.OK() {
		t.Fatalf("round %d: verify takes failures for damage: %q (%v)", round, r.Problems(), err)
	}
	s, err := open(smallConfig(level), disk)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	if err := w.drain(s); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	w.check()
	_ = s.Close()
	return errs, downs, len(w.acked)
}

func TestSyncFailureSealsTheSegment(t *testing.T) {
	disk := newDisk(1)
	failing := ""
	disk.Fail = func(op, name string) error {
		if op == "sync" && name == failing {
			return syscall.EIO
		}
		return nil
	}
	s, err := open(smallConfig(LevelMachine), disk)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if err := w.append(s, 100); err != nil {
		t.Fatal(err)
	}
	failing = segmentName(1)
	if err := w.append(s, 100); !errors.Is(err, collector.ErrFull) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("append with a failing sync: %v", err)
	}
	if err := w.append(s, 100); err != nil {
		t.Fatalf("append after a failed sync: %v", err)
	}
	if st := s.Stats(); st.Segments != 2 || st.Failures != 1 || st.Appended != 2 {
		t.Fatalf("stats %+v", st)
	}
	if err := w.drain(s); err != nil {
		t.Fatal(err)
	}
	w.check()
	if len(w.store) != 2 || len(touched(disk)) != 0 {
		t.Fatalf("%d batches, touched after failure: %v", len(w.store), touched(disk))
	}
}

func TestFullDisk(t *testing.T) {
	for name, limit := range map[string]func(*Config, *vfstest.FS){
		"disk":    func(_ *Config, m *vfstest.FS) { m.Capacity = 300 << 10 },
		"maximum": func(c *Config, _ *vfstest.FS) { c.MaxBytes = 200 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			disk, cfg := newDisk(1), smallConfig(LevelProcess)
			limit(&cfg, disk)
			s, err := open(cfg, disk)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			for err == nil {
				err = w.append(s, 5000)
			}
			if !errors.Is(err, collector.ErrFull) {
				t.Fatalf("a full spool says %v", err)
			}
			if len(w.acked) < 20 || !s.Stats().Full {
				t.Fatalf("%d records before it was full, %+v", len(w.acked), s.Stats())
			}
			start := time.Now()
			for range 20 {
				if err := w.append(s, 5000); !errors.Is(err, collector.ErrFull) {
					t.Fatalf("a full spool says %v", err)
				}
			}
			if d := time.Since(start); d > time.Second {
				t.Fatalf("20 refusals took %s", d)
			}
			if err := w.drain(s); err != nil {
				t.Fatalf("drain a full spool: %v", err)
			}
			if err := w.append(s, 5000); err != nil || s.Stats().Full {
				t.Fatalf("append after draining: %v, %+v", err, s.Stats())
			}
			if err := w.drain(s); err != nil {
				t.Fatal(err)
			}
			w.check()
		})
	}
}
