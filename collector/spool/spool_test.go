package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

func realConfig(t testing.TB) Config {
	t.Helper()
	return folderConfig(t.TempDir())
}

func folderConfig(dir string) Config {
	return Config{Dir: dir, SegmentBytes: minSegment, MinFreeBytes: -1, BatchAge: time.Millisecond, Logger: quiet}
}

func mustOpen(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func next(t testing.TB, s *Spool) *collector.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBatchIsHandedOutUntilAcknowledged(t *testing.T) {
	cfg := realConfig(t)
	s := mustOpen(t, cfg)
	w := newWorld(t)
	for range 3 {
		if err := w.append(s, 50); err != nil {
			t.Fatal(err)
		}
	}
	first := next(t, s)
	if again := next(t, s); again != first || len(first.Records) != 3 {
		t.Fatalf("%d records, then another batch", len(first.Records))
	}
	if first.Records[1].ID != "id-1" || first.Records[1].TraceID == "" {
		t.Errorf("keys %q %q", first.Records[1].ID, first.Records[1].TraceID)
	}
	if err := w.append(s, 50); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	again := next(t, s)
	if again.Token != first.Token || len(again.Records) != 3 {
		t.Fatalf("after a restart: token %s with %d records, want %s with 3", again.Token, len(again.Records), first.Token)
	}
	if err := s.Ack(t.Context(), &collector.Batch{Token: "other"}); err == nil {
		t.Error("a batch that was never handed out is acknowledged")
	}
	if err := s.Ack(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if b := next(t, s); len(b.Records) != 1 || b.Records[0].ID != "id-3" || b.Token == first.Token {
		t.Fatalf("second batch %+v", b)
	}
}

func TestBatchLimits(t *testing.T) {
	cfg := realConfig(t)
	cfg.BatchRows, cfg.BatchBytes, cfg.BatchAge = 4, 10_000, time.Hour
	s := mustOpen(t, cfg)
	rows := func(n int) collector.Record {
		p := &collector.Prediction{ID: "p", Rows: n}
		return collector.Record{Kind: collector.KindPrediction, Version: 1, Payload: collector.AppendPrediction(nil, p)}
	}
	for _, n := range []int{3, 1, 1, 9} {
		if err := s.Append(t.Context(), rows(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), prediction("large", 30_000)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1, 1, 1} { // 3+1 rows; 1 row; 9 rows; one record above the bytes
		s.Flush()
		b := next(t, s)
		if len(b.Records) != want {
			t.Fatalf("%d records, want %d", len(b.Records), want)
		}
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Append(t.Context(), rows(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a batch that is neither full nor old: %v", err)
	}
}

func TestFoldersBelongToOneProcess(t *testing.T) {
	cfg := realConfig(t)
	mustOpen(t, cfg)
	_, err := Open(cfg)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) {
		t.Fatalf("second open: %v", err)
	}
	if runtime.GOOS != "windows" && !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("the process is not named: %v", err)
	}
}

func TestFind(t *testing.T) {
	for _, bound := range []int{0, 1} { // the default, and one that no segment fits in
		cfg := realConfig(t)
		cfg.IndexRecords = bound
		s := mustOpen(t, cfg)
		for i := range 300 {
			if err := s.Append(t.Context(), prediction(fmt.Sprintf("p%d", i), 1000+i)); err != nil {
				t.Fatal(err)
			}
		}
		label := collector.AppendFeedback(nil, &collector.Feedback{PredictionID: "p7.1", Label: "x"})
		if err := s.Append(t.Context(), collector.Record{Kind: collector.KindFeedback, Version: 1, Payload: label, ID: "p7.1"}); err != nil {
			t.Fatal(err)
		}
		look := func(id string, want ...string) {
			t.Helper()
			got, err := s.Find(id)
			var ids []string
			for _, r := range got {
				ids = append(ids, r.ID)
			}
			if err != nil || !slices.Equal(ids, want) {
				t.Errorf("bound %d: %s finds %q, %v; want %q", bound, id, ids, err, want)
			}
		}
		look("p7", "p7")
		look("p7.1", "p7", "p7.1")
		look("p299", "p299")
		look("absent")
		look("")
		look("trace:00000000000000000000000000001007", "p7")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, cfg)
		look("p7.1", "p7", "p7.1")
		look("trace:00000000000000000000000000001299", "p299")
		if err := newWorld(t).drain(s); err != nil {
			t.Fatal(err)
		}
		look("p7")
	}
}

func TestLevelNoneWritesSoon(t *testing.T) {
	cfg := realConfig(t)
	cfg.Level = LevelNone
	s := mustOpen(t, cfg)
	w := newWorld(t)
	for range 100 {
		if err := w.append(s, 50); err != nil {
			t.Fatal(err)
		}
	}
	if b := next(t, s); len(b.Records) == 0 {
		t.Fatal("an empty batch")
	}
	if err := w.append(s, 50); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	if err := w.drain(s); err != nil {
		t.Fatal(err)
	}
	w.check()
}

func TestClosedSpool(t *testing.T) {
	s := mustOpen(t, realConfig(t))
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(context.Background())
		done <- err
	}()
	time.Sleep(5 * time.Millisecond)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("a waiting reader gets %v", err)
	}
	if err := s.Append(t.Context(), prediction("x", 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("append gets %v", err)
	}
	if err := s.Ack(t.Context(), &collector.Batch{}); !errors.Is(err, ErrClosed) {
		t.Errorf("ack gets %v", err)
	}
	names, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*"+segmentSuffix))
	if err != nil || len(names) != 0 {
		t.Errorf("an empty spool leaves %q, %v", names, err)
	}
}

func TestConcurrentAppendReadAck(t *testing.T) {
	for _, level := range []Level{LevelProcess, LevelMachine} {
		cfg := realConfig(t)
		cfg.Level = level
		s := mustOpen(t, cfg)
		const writers, each = 16, 200
		var wg sync.WaitGroup
		for g := range writers {
			wg.Go(func() {
				for i := range each {
					id := fmt.Sprintf("w%d-%d", g, i)
					if err := s.Append(context.Background(), prediction(id, i)); err != nil {
						t.Errorf("append: %v", err)
					}
					if i%50 != 0 {
						continue
					}
					if _, err := s.Find(id); err != nil {
						t.Errorf("find: %v", err)
					}
				}
			})
		}
		seen := map[string]int{}
		for len(seen) < writers*each {
			b := next(t, s)
			for _, r := range b.Records {
				seen[r.ID]++
				if seen[r.ID] > 1 {
					t.Fatalf("%s came %d times", r.ID, seen[r.ID])
				}
			}
			if err := s.Ack(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if st := s.Stats(); st.Appended != writers*each || st.Acked != st.Appended || st.Pending != 0 {
			t.Errorf("stats %+v", st)
		}
	}
}

func TestRecordTooLarge(t *testing.T) {
	cfg := realConfig(t)
	cfg.MaxRecordBytes = 1000
	s := mustOpen(t, cfg)
	if err := s.Append(t.Context(), prediction("x", 2000)); !errors.Is(err, ErrTooLarge) || errors.Is(err, collector.ErrFull) {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, prediction("x", 10)); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	for what, cfg := range map[string]Config{
		"no folder": {}, `level "fast"`: {Dir: "x", Level: "fast"}, "segment of 1 bytes": {Dir: "x", SegmentBytes: 1},
		"maximum of 5 bytes": {Dir: "x", MaxBytes: 5}, "record limit": {Dir: "x", MaxRecordBytes: 1 << 30}, "negative limit": {Dir: "x", BatchRows: -1},
	} {
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDumpAndVerifyOfALiveFolder(t *testing.T) {
	s := mustOpen(t, realConfig(t))
	w := newWorld(t)
	for range 20 {
		if err := w.append(s, 9000); err != nil {
			t.Fatal(err)
		}
	}
	next(t, s)
	r, err := Verify(s.cfg.Dir)
	if err != nil || !r.OK() || len(r.Segments) != 3 || !r.Planned {
		t.Fatalf("%+v, %v", r, err)
	}
	n := 0
	for _, seg := range r.Segments {
		n += seg.Records
	}
	if n != 20 || r.Segments[2].LastSeq != 20 { // seven of 9.1 kB fit in 64 KiB
		t.Errorf("%d records, last seq %d", n, r.Segments[2].LastSeq)
	}
	var out bytes.Buffer
	if err := Dump(&out, s.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cursor node=", "planned=1:48-", "segment 3 ", "seq=20 prediction v1", `id="id-19"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the dump has no %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "xxxx") {
		t.Error("the dump shows a feature's value")
	}
	name := s.path(s.segments[1])
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = Verify(s.cfg.Dir); err != nil || r.OK() || r.Segments[1].Damaged == 0 {
		t.Errorf("damage is not seen: %+v, %v", r, err)
	}
}

// latency collects how long appends took.
type latency struct {
	mu sync.Mutex
	d  []time.Duration
}

func (l *latency) report(b *testing.B) {
	slices.Sort(l.d)
	if n := len(l.d); n > 0 {
		b.ReportMetric(float64(l.d[n/2].Nanoseconds()), "p50-ns")
		b.ReportMetric(float64(l.d[n*99/100].Nanoseconds()), "p99-ns")
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, level := range []Level{LevelProcess, LevelMachine, LevelNone} {
		for _, writers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("level=%s/writers=%d", level, writers), func(b *testing.B) { benchmarkAppend(b, level, writers) })
		}
	}
}

func benchmarkAppend(b *testing.B, level Level, writers int) {
	cfg := Config{Dir: b.TempDir(), Level: level, Logger: quiet, FullTimeout: 5 * time.Second}
	s := mustOpen(b, cfg)
	rec := prediction("0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", 200)
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() { // keeps the folder small, as the writer to the store does
		for {
			batch, err := s.Next(ctx)
			if err != nil || s.Ack(ctx, batch) != nil {
				return
			}
		}
	})
	var all latency
	b.SetBytes(int64(len(rec.Payload)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		n := b.N / writers
		if w < b.N%writers {
			n++
		}
		wg.Go(func() {
			took := make([]time.Duration, 0, n/16+1)
			for i := range n {
				start := time.Now()
				if err := s.Append(context.Background(), rec); err != nil {
					b.Errorf("append: %v", err)
					return
				}
				if i%16 == 0 {
					took = append(took, time.Since(start))
				}
			}
			all.mu.Lock()
			all.d = append(all.d, took...)
			all.mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	all.report(b)
	cancel()
	reader.Wait()
}

// TestAgeGoesOnOverBatches: how long the oldest record has waited is not forgotten when the
// batch before it is acknowledged, and is nothing when nothing waits.
func TestAgeGoesOnOverBatches(t *testing.T) {
	cfg := realConfig(t)
	cfg.BatchRows, cfg.BatchAge = 1, time.Hour
	s := mustOpen(t, cfg)
	for i := range 3 {
		p := &collector.Prediction{ID: "p", Rows: 1, ReceivedAt: time.Now().Add(-time.Duration(3-i) * time.Hour)}
		if err := s.Append(t.Context(), collector.Record{Kind: collector.KindPrediction, Version: 1, Payload: collector.AppendPrediction(nil, p)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		b := next(t, s)
		if lag := s.Stats().Lag; lag < time.Duration(3-i)*time.Hour {
			t.Errorf("batch %d: %s", i, lag)
		}
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if lag := s.Stats().Lag; (i < 2) != (lag >= time.Duration(2-i)*time.Hour && lag > 0) {
			t.Errorf("after batch %d: %s", i, lag)
		}
	}
}

// TestManySegmentsAreNotWaitedFor: what can grow no more does not wait for a batch to fill, so
// that many small segments, as kills leave them, cost an insert each and not the age of a batch.
func TestManySegmentsAreNotWaitedFor(t *testing.T) {
	const segments = 110
	disk := manySegments(t, segments, 0, false)
	cfg := smallConfig(LevelProcess)
	cfg.BatchBytes, cfg.BatchAge = 16<<20, time.Hour
	s, err := open(cfg, disk)
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	for range segments {
		b := next(t, s)
		records += len(b.Records)
		if err := s.Ack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); records != 3*segments || st.Pending != 0 {
		t.Errorf("%d records, %+v", records, st)
	}
	if err := s.Append(t.Context(), prediction("young", 20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the segment that grows does not wait for its batch: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
