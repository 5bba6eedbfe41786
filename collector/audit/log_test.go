package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

func config(t *testing.T) Config {
	t.Helper()
	return Config{Dir: filepath.Join(t.TempDir(), "audit"), Key: testKey, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func openLog(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func add(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		e := Entry{Action: "read", Tenant: "default", Model: "loans", Object: fmt.Sprintf("prediction <%d> & \"é\"\n", i), Counts: map[string]int64{"rows": int64(i)}}
		if err := l.Append(collector.WithActor(t.Context(), "loopback 127.0.0.1:9"), e, i%5 == 0); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, cfg Config, heads ...string) *Report {
	t.Helper()
	r, err := Verify(cfg.Dir, testKey, heads, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantOK(t *testing.T, r *Report) {
	t.Helper()
	if !r.OK() {
		t.Fatalf("problems: %s", strings.Join(r.Problems, "\n"))
	}
}

func wantProblem(t *testing.T, r *Report, part string) {
	t.Helper()
	if !strings.Contains(strings.Join(r.Problems, "\n"), part) {
		t.Errorf("want a problem with %q, have %q", part, r.Problems)
	}
}

// written makes a log of several files and returns them by name.
func written(t *testing.T) (Config, map[string][]byte) {
	t.Helper()
	cfg := config(t)
	cfg.fileBytes = 1500
	l := openLog(t, cfg)
	add(t, l, 14)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	names, err := fileNames(cfg.Dir)
	if err != nil || len(names) < 3 {
		t.Fatalf("files %v, %v", names, err)
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(cfg.Dir, fileName(n)))
		if err != nil {
			t.Fatal(err)
		}
		files[fileName(n)] = b
	}
	wantOK(t, verify(t, cfg))
	return cfg, files
}

func put(t *testing.T, cfg Config, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cfg.Dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEntriesSayWhoDidWhat(t *testing.T) {
	cfg := config(t)
	l := openLog(t, cfg)
	add(t, l, 3)
	if err := l.Append(t.Context(), Entry{Action: "retention"}, true); err != nil {
		t.Fatal(err)
	}
	var got []Entry
	r, err := Verify(cfg.Dir, testKey, nil, func(e *Entry) { got = append(got, *e) })
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, r)
	if len(got) != 5 || got[3].Object != "prediction <2> & \"é\"\n" || got[3].Actor != "loopback 127.0.0.1:9" || got[3].Counts["rows"] != 2 || got[4].Actor != collector.OwnActor {
		t.Errorf("entries: %+v", got)
	}
	if r.Last != 5 || r.Head.MAC != l.Head().MAC || r.Heads != 1 {
		t.Errorf("report: %+v", r)
	}
	if _, err := Verify(cfg.Dir, []byte("another key of enough bytes"), nil, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := Verify(cfg.Dir, []byte("another key of enough bytes"), nil, nil); r.OK() {
		t.Error("another key vouches for the log")
	}
}

// TestEveryFlippedByteIsFound changes each byte of every file, one at a time, in two
// of its bits by turns.
func TestEveryFlippedByteIsFound(t *testing.T) {
	cfg, files := written(t)
	for name, b := range files {
		for i := range b {
			for _, bit := range []int{i % 8, (i + 5) % 8} {
				b[i] ^= 1 << bit
				put(t, cfg, name, b)
				b[i] ^= 1 << bit
				if verify(t, cfg).OK() {
					t.Fatalf("%s: bit %d of byte %d (%q) changed, and all is said to be well", name, bit, i, b[i])
				}
			}
		}
		put(t, cfg, name, b)
	}
	wantOK(t, verify(t, cfg))
}

// TestEveryCutIsFound shortens the last file to each length, and takes whole files.
func TestEveryCutIsFound(t *testing.T) {
	cfg, files := written(t)
	names, _ := fileNames(cfg.Dir)
	for i, n := range names {
		b := files[fileName(n)]
		for size := range b {
			put(t, cfg, fileName(n), b[:size])
			if verify(t, cfg).OK() {
				t.Fatalf("%s cut to %d of %d bytes, and all is said to be well", fileName(n), size, len(b))
			}
		}
		if err := os.Remove(filepath.Join(cfg.Dir, fileName(n))); err != nil {
			t.Fatal(err)
		}
		if verify(t, cfg).OK() {
			t.Errorf("file %d of %d is gone, and all is said to be well", i+1, len(names))
		}
		put(t, cfg, fileName(n), b)
	}
}

// TestEveryMoveIsFound drops, doubles and swaps entries.
func TestEveryMoveIsFound(t *testing.T) {
	cfg, files := written(t)
	for name, b := range files {
		lines := bytes.SplitAfter(b, []byte("\n"))
		lines = lines[:len(lines)-1]
		for i := range lines {
			try := func(what string, changed [][]byte) {
				put(t, cfg, name, bytes.Join(changed, nil))
				if verify(t, cfg).OK() {
					t.Errorf("%s line %d %s, and all is said to be well", name, i+1, what)
				}
			}
			try("dropped", append(append([][]byte{}, lines[:i]...), lines[i+1:]...))
			try("doubled", append(append([][]byte{}, lines[:i+1]...), lines[i:]...))
			for j := range i {
				changed := append([][]byte{}, lines...)
				changed[i], changed[j] = changed[j], changed[i]
				try(fmt.Sprintf("swapped with %d", j+1), changed)
			}
		}
		put(t, cfg, name, b)
	}
	wantOK(t, verify(t, cfg))
}

// TestRewrittenHistoryNeedsTheHeadElsewhere plays whoever has the key and the
// folder: only the heads elsewhere show that the log is another one.
func TestRewrittenHistoryNeedsTheHeadElsewhere(t *testing.T) {
	cfg := config(t)
	cfg.HeadFile = filepath.Join(t.TempDir(), "heads")
	l := openLog(t, cfg)
	add(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantOK(t, verify(t, cfg, cfg.HeadFile))
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	again := cfg
	again.HeadFile = ""
	l = openLog(t, again)
	add(t, l, 9)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantOK(t, verify(t, cfg))
	wantProblem(t, verify(t, cfg, cfg.HeadFile), "rewritten")
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, again)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, verify(t, cfg, cfg.HeadFile), "cut off")
	wantProblem(t, verify(t, cfg, filepath.Join(t.TempDir(), "none")), "missing or empty")
}

// TestEditedLineIsNotACutLog: heads behind an entry that was changed cannot be looked
// for, which is not to say that the log was cut off.
func TestEditedLineIsNotACutLog(t *testing.T) {
	cfg := config(t)
	l := openLog(t, cfg)
	add(t, l, 5)
	if err := l.Close(); err != nil { // exports the head
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, fileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[2] = bytes.Replace(lines[2], []byte("{"), []byte("{ "), 1)
	put(t, cfg, fileName(1), bytes.Join(lines, nil))
	r := verify(t, cfg)
	wantProblem(t, r, "line 3")
	wantProblem(t, r, "held against nothing")
	for _, p := range r.Problems {
		if strings.Contains(p, "cut off") {
			t.Errorf("said: %s", p)
		}
	}
	put(t, cfg, fileName(1), bytes.Join(lines[:2], nil))
	wantProblem(t, verify(t, cfg), "cut off")
}

// TestTornTailIsCutAndSaidSo ends the file in the middle of an entry, as a crash
// may, at every place.
func TestTornTailIsCutAndSaidSo(t *testing.T) {
	cfg := config(t)
	l := openLog(t, cfg)
	add(t, l, 2)
	if err := l.Append(t.Context(), Entry{Action: "read", Object: "the one that is torn"}, false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, fileName(1))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, err := os.ReadFile(filepath.Join(cfg.Dir, headName)) // of the start: it was killed
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	begin := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for size := begin + 1; size < len(whole); size++ {
		put(t, cfg, fileName(1), whole[:size])
		put(t, cfg, headName, head)
		if r := verify(t, cfg); !r.OK() || r.Unfinished != int64(size-begin) {
			t.Fatalf("cut at %d: %+v", size, r)
		}
		l := openLog(t, cfg)
		add(t, l, 1)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var cut string
		r, err := Verify(cfg.Dir, testKey, nil, func(e *Entry) {
			if e.Action == actionCut {
				cut = e.Object
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		wantOK(t, r)
		if want := fmt.Sprintf("%d bytes at the end of 00000001.log", size-begin); cut != want {
			t.Fatalf("cut at %d: %q is noted, not %q", size, cut, want)
		}
	}
}

// TestDamageIsKeptAndToldForEver opens a log whose middle was changed: what is
// there stays, what comes is chained to what is good, and the doctor goes on telling.
func TestDamageIsKeptAndToldForEver(t *testing.T) {
	cfg := config(t)
	l := openLog(t, cfg)
	add(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, fileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[3] = bytes.Replace(lines[3], []byte("loans"), []byte("risks"), 1)
	put(t, cfg, fileName(1), bytes.Join(lines, nil))
	l = openLog(t, cfg)
	add(t, l, 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, cfg)
	wantProblem(t, r, "00000001.log line 4")
	wantProblem(t, r, "tells of damage")
	if r.Files != 2 || r.Last < 7 {
		t.Errorf("after the damage: %+v", r)
	}
	if kept, _ := os.ReadFile(path); !bytes.Equal(kept, bytes.Join(lines, nil)) {
		t.Error("the damaged file was changed")
	}
}

// TestSizeIsBoundedAndTheDropIsAnEntry writes more than the folder may hold.
func TestSizeIsBoundedAndTheDropIsAnEntry(t *testing.T) {
	cfg := config(t)
	cfg.fileBytes = 600
	l := openLog(t, cfg)
	add(t, l, 100)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fileNames(cfg.Dir)
	if err != nil || len(names) != maxFiles || names[0] == 1 {
		t.Fatalf("files %v, %v", names, err)
	}
	r := verify(t, cfg)
	wantOK(t, r)
	if r.First == 1 || r.Last < 100 {
		t.Errorf("report %+v", r)
	}
	l = openLog(t, cfg)
	add(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantOK(t, verify(t, cfg))
	names, _ = fileNames(cfg.Dir)
	if err := os.Remove(filepath.Join(cfg.Dir, fileName(names[0]))); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, verify(t, cfg), "no entry says that they were deleted")
}

// TestManyAtOnce has entries come from many goroutines.
func TestManyAtOnce(t *testing.T) {
	cfg := config(t)
	cfg.fileBytes = 20_000
	l := openLog(t, cfg)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				if err := l.Append(context.Background(), Entry{Action: "read"}, i%25 == 0); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if r := verify(t, cfg); !r.OK() || r.Last < 400 {
		t.Errorf("while it is open: %+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), Entry{Action: "read"}, false); !errors.Is(err, collector.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// TestWhatCannotBeWrittenIsRefused takes the file away under the log, as a disk that
// fails does, and lets it have another.
func TestWhatCannotBeWrittenIsRefused(t *testing.T) {
	cfg := config(t)
	l := openLog(t, cfg)
	add(t, l, 2)
	l.mu.Lock()
	path := l.file.Name()
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := l.file
	l.file = readOnly
	l.mu.Unlock()
	for range 2 {
		if err := l.Append(t.Context(), Entry{Action: "read"}, false); !errors.Is(err, collector.ErrUnavailable) {
			t.Fatalf("an entry that could not be written: %v", err)
		}
	}
	l.mu.Lock()
	l.file = whole
	l.mu.Unlock()
	add(t, l, 2)
	if err := errors.Join(readOnly.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, cfg); !r.OK() || r.Last != 5 {
		t.Errorf("afterwards: %+v", r)
	}
}

func TestHashIsKeyed(t *testing.T) {
	a, b := config(t), config(t)
	b.Key = []byte("another key of enough bytes")
	la, lb := openLog(t, a), openLog(t, b)
	if la.Hash("x") == la.Hash("y") || la.Hash("x") == lb.Hash("x") || la.Hash("x") != HashWith(testKey, "x") {
		t.Error("the hash is not one of value and key")
	}
}

// TestClockJumps: the chain is one of numbers and MACs, whatever the times of its entries.
func TestClockJumps(t *testing.T) {
	cfg := config(t)
	cfg.fileBytes = 1500
	at := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return at }
	cfg.HeadFile = filepath.Join(t.TempDir(), "heads")
	for i, d := range []time.Duration{0, -time.Hour, 24 * time.Hour, -5 * 365 * 24 * time.Hour, 70 * 365 * 24 * time.Hour, -56 * 365 * 24 * time.Hour} {
		at = at.Add(d)
		l := openLog(t, cfg)
		add(t, l, 3)
		at = at.Add(-d / 2) // and while it is open
		add(t, l, 3)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		r := verify(t, cfg, cfg.HeadFile)
		wantOK(t, r)
		if got := l.Head().Seq; got < uint64(6*(i+1)) {
			t.Errorf("the chain ends at %d", got)
		}
	}
}

// TestHeadInTheLog: every export is a line of the log, from which the chain can be
// verified as from the file.
func TestHeadInTheLog(t *testing.T) {
	cfg := config(t)
	var out lines
	cfg.Log, cfg.HeadEvery = slog.New(slog.NewJSONHandler(&out, nil)), 10*time.Millisecond
	l := openLog(t, cfg)
	add(t, l, 4)
	want := l.Head()
	heads := func() (list []Head) {
		for line := range strings.Lines(out.String()) {
			var h struct {
				Msg string `json:"msg"`
				Head
			}
			if err := json.Unmarshal([]byte(line), &h); err != nil {
				t.Fatal(err)
			}
			if h.Msg == "audit head" {
				list = append(list, h.Head)
			}
		}
		return list
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list := heads()
		if len(list) > 1 && list[len(list)-1].Seq == want.Seq && list[len(list)-1].MAC == want.MAC {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log tells of %+v, not of %+v", list, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The lines, put in a file, are heads; and they tell of a tail that was cut.
	path := filepath.Join(t.TempDir(), "heads")
	for _, h := range heads() {
		if err := appendHead(path, h); err != nil {
			t.Fatal(err)
		}
	}
	wantOK(t, verify(t, cfg, path))
	name := filepath.Join(cfg.Dir, fileName(1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
	put(t, cfg, fileName(1), b[:cut])
	if r := verify(t, cfg, path); r.OK() {
		t.Error("a cut tail fits the heads of the log")
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
