package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
	"github.com/pellucid/pellucid/engine/stats"
)

// summed is what a writer has stored: rows with bins of their own, and rows before
// them that were back-filled; of two versions, two months, several routes and failures.
type summed struct {
	s   *Store
	m   *maker
	ref *stats.Reference
	w   *Writer
	// oneDay has all rows be of one day.
	oneDay bool
}

func newSummed(t *testing.T, s *Store) *summed {
	t.Helper()
	x := &summed{s: s, m: newMaker(t)}
	x.ref = x.m.reference(t, 300)
	x.w = writer(t, s, WriterConfig{Backoff: time.Millisecond, BackoffMax: 10 * time.Millisecond, Reference: func(digest string) *stats.Reference {
		if digest == "late" {
			return nil
		}
		return x.ref
	}})
	x.w.even = true
	return x
}

// batch writes a batch of n predictions.
func (x *summed) batch(t *testing.T, token string, n int) {
	t.Helper()
	records := []collector.Record{x.m.schemaRecord(t)}
	for i := range n {
		at := base.AddDate(0, -(i % 2), i%3)
		if x.oneDay {
			at = base
		}
		p := x.m.prediction(t, 1+i%3, at.Add(time.Duration(i)*20*time.Second))
		p.Latency.Total = int64(i+1) * 1_000_000
		switch i % 7 {
		case 1:
			p.Route = collector.RouteExplain
		case 2:
			p.Status = 500
		case 3, 4:
			p.Version, p.Digest = "2", "late"
			p.Weight, p.FeatureShare = 1.3, 0.1*float64(i%7)
		case 5:
			p.Weight = 4.7
		}
		records = append(records, record(p))
	}
	write(t, x.w, token, records...)
}

func (x *summed) backfill(t *testing.T) {
	t.Helper()
	if err := x.s.SaveReference(t.Context(), "default", "delay", "2", "late", x.ref); err != nil {
		t.Fatal(err)
	}
	if n, err := x.s.Backfill(t.Context(), "default", "delay", "2", "late", x.ref); err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

// cells are both rollups by cell; latency and the time of the last row by quantile and
// second are cells of their own.
func cells(t *testing.T, s *Store) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, q := range []string{
		"SELECT concat('bins ', version, ' ', toString(minute), ' ', toString(field), ' ', toString(bin)) AS k, sum(weight) FROM bins_1m GROUP BY k",
		"SELECT concat('rows ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, toFloat64(sum(rows)) FROM traffic_1m GROUP BY k",
		"SELECT concat('requests ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, toFloat64(sum(requests)) FROM traffic_1m GROUP BY k",
		"SELECT concat('bytes ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, toFloat64(sum(bytes)) FROM traffic_1m GROUP BY k",
		"SELECT concat('weight ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, sum(weight) FROM traffic_1m GROUP BY k",
		"SELECT concat('last ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, toFloat64(max(last)) FROM traffic_1m GROUP BY k",
		"SELECT concat('p90 ', version, ' ', route, ' ', toString(status_class), ' ', toString(minute)) AS k, toFloat64(quantilesTDigestIfMerge(0.5, 0.9, 0.99)(latency)[2]) FROM traffic_1m GROUP BY k",
	} {
		rows, err := s.conn.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if err := scanAll(rows, func() error {
			var k string
			var v float64
			if err := rows.Scan(&k, &v); err != nil {
				return err
			}
			out[k] = v
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func sameCells(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	wrong := 0
	for k, w := range want {
		g, ok := got[k]
		if !ok || !(math.Abs(g-w) <= 1e-9*math.Abs(w) || math.IsNaN(g) && math.IsNaN(w)) {
			if wrong++; wrong < 5 {
				t.Errorf("%s: %s is %v, want %v", what, k, g, w)
			}
		}
	}
	if len(got) != len(want) || wrong > 0 {
		t.Errorf("%s: %d cells are wrong; %d of %d are there", what, wrong, len(got), len(want))
	}
}

func (x *summed) recount(t *testing.T, repair bool) *Recount {
	t.Helper()
	out, err := x.w.Recount(t.Context(), Recounting{Repair: repair})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Unread) > 0 {
		t.Errorf("unread: %v", out.Unread)
	}
	return out
}

func activeParts(t *testing.T, s *Store, table string) []string {
	t.Helper()
	parts, err := s.strings(t.Context(), "SELECT path FROM system.parts WHERE database = currentDatabase() AND table = ? AND active AND rows > 0 ORDER BY name", table)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

// TestDamagedPartOfARollup damages a part of each rollup on the disk of a server, which
// sets them aside at its next start: that is told, with what is short, and what is short
// is counted again from the rows.
func TestDamagedPartOfARollup(t *testing.T) {
	server := &shard{cfg: embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}}
	server.start(t)
	t.Cleanup(func() { server.stop(t) })
	x := newSummed(t, openDSN(t, server.engine.Env().DSN()))
	for _, table := range []string{"traffic_1m", "bins_1m"} {
		exec(t, x.s, "SYSTEM STOP MERGES "+table)
	}
	for i := range 4 {
		x.batch(t, fmt.Sprint("b", i), 60)
	}
	x.backfill(t)
	want := cells(t, x.s)
	var damaged []string
	for _, table := range []string{"traffic_1m", "bins_1m"} {
		parts := activeParts(t, x.s, table)
		damaged = append(damaged, parts[len(parts)/2])
	}
	if aside, err := x.s.SetAside(t.Context()); err != nil || len(aside) > 0 {
		t.Fatalf("set aside: %v, %v", aside, err)
	}
	if out := x.recount(t, false); len(out.Short) > 0 || out.Days == 0 {
		t.Fatalf("nothing is damaged: %+v", out)
	}
	server.stop(t)
	for _, path := range damaged {
		files, err := filepath.Glob(filepath.Join(path, "*.bin"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", path, files, err)
		}
		if err := os.Truncate(files[0], 3); err != nil {
			t.Fatal(err)
		}
	}
	server.start(t)
	aside, err := x.s.SetAside(t.Context())
	if err != nil || len(aside) != 2 || !strings.HasPrefix(aside[0], "bins_1m/broken") || !strings.HasPrefix(aside[1], "traffic_1m/broken") {
		t.Fatalf("set aside: %v, %v", aside, err)
	}
	before := cells(t, x.s)
	out := x.recount(t, false)
	tables := map[string]bool{}
	for _, sh := range out.Short {
		tables[sh.Rollup] = true
		if sh.Missing <= 0 || sh.Minutes == 0 || !sh.To.After(sh.From) || sh.From.Before(base.AddDate(0, -1, 0)) || sh.Tenant != "default" || sh.Model != "delay" {
			t.Errorf("short: %+v", sh)
		}
	}
	if !tables["bins_1m"] || !tables["traffic_1m"] {
		t.Errorf("short: %+v", out.Short)
	}
	sameCells(t, "only looked at", cells(t, x.s), before)
	if again := x.recount(t, true); fmt.Sprint(again.Short) != fmt.Sprint(out.Short) {
		t.Errorf("repaired %+v, told %+v", again.Short, out.Short)
	}
	sameCells(t, "counted again", cells(t, x.s), want)
	if out := x.recount(t, true); len(out.Short) > 0 {
		t.Errorf("and then: %+v", out)
	}
}

// TestFlippedBitInARollup flips a bit in a part of each rollup of a running server, which
// keeps it: it is told, set aside and counted again.
func TestFlippedBitInARollup(t *testing.T) {
	server := &shard{cfg: embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}}
	server.start(t)
	t.Cleanup(func() { server.stop(t) })
	x := newSummed(t, openDSN(t, server.engine.Env().DSN()))
	for i := range 4 {
		x.batch(t, fmt.Sprint("b", i), 60)
	}
	want := cells(t, x.s)
	if out := x.recount(t, false); len(out.Damaged)+len(out.Short) > 0 {
		t.Fatalf("nothing is damaged: %+v", out)
	}
	for _, table := range []string{"traffic_1m", "bins_1m"} {
		exec(t, x.s, "OPTIMIZE TABLE "+table+" FINAL")
		parts := activeParts(t, x.s, table)
		files, err := filepath.Glob(filepath.Join(parts[0], "*.bin"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%v: %v, %v", parts, files, err)
		}
		flipBit(t, files[0])
	}
	out := x.recount(t, false)
	if len(out.Damaged) != 2 || !strings.HasPrefix(out.Damaged[0], "bins_1m/all_") || !strings.HasPrefix(out.Damaged[1], "traffic_1m/all_") || len(out.Short) > 0 {
		t.Fatalf("told: %+v", out)
	}
	if again := x.recount(t, true); fmt.Sprint(again.Damaged) != fmt.Sprint(out.Damaged) || len(again.Short) < 2 {
		t.Errorf("repaired: %+v", again)
	}
	sameCells(t, "counted again", cells(t, x.s), want)
	if out := x.recount(t, true); len(out.Damaged)+len(out.Short) > 0 {
		t.Errorf("and then: %+v", out)
	}
	if aside, err := x.s.SetAside(t.Context()); err != nil || fmt.Sprint(aside) != fmt.Sprint(out.Damaged) {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

func flipBit(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	// In place, as a disk would do it: the server has the file open.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b[len(b)/2:len(b)/2+1], int64(len(b)/2))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecountAfterAnything takes parts and single rows out of the rollups, and rows out
// of the table as an erasure does: what is short is counted again, what counts more than
// there is stays, and a second run finds nothing.
func TestRecountAfterAnything(t *testing.T) {
	x := newSummed(t, open(t))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 5 {
		x.batch(t, fmt.Sprint("b", i), 50)
	}
	x.backfill(t)
	want := cells(t, x.s)
	lose := (&station{s: x.s}).lose
	for round := range 5 {
		switch round {
		case 0:
			lose(t, rng, "traffic_1m")
			lose(t, rng, "bins_1m")
		case 1: // some of what is of one minute
			exec(t, x.s, fmt.Sprintf("ALTER TABLE bins_1m UPDATE weight = weight - 1 WHERE weight > 1 AND (field + bin + toUnixTimestamp(minute) / 60) %% 3 = %d SETTINGS mutations_sync = 2", rng.IntN(3)))
			exec(t, x.s, "ALTER TABLE traffic_1m UPDATE rows = rows - 1 WHERE rows > 1 SETTINGS mutations_sync = 2")
		case 2:
			exec(t, x.s, "TRUNCATE TABLE traffic_1m")
		case 3:
			exec(t, x.s, "TRUNCATE TABLE bins_1m")
		default:
			exec(t, x.s, "OPTIMIZE TABLE bins_1m FINAL")
			exec(t, x.s, "ALTER TABLE bins_1m DELETE WHERE toMinute(minute) % 2 = 0 SETTINGS mutations_sync = 2")
		}
		if out := x.recount(t, true); len(out.Short) == 0 {
			t.Errorf("round %d: nothing was short", round)
		}
		sameCells(t, fmt.Sprint("round ", round), cells(t, x.s), want)
		if out := x.recount(t, true); len(out.Short) > 0 {
			t.Errorf("round %d, and then: %+v", round, out.Short)
		}
		if t.Failed() {
			return
		}
	}
	// After an erasure the rollups count more; then some of it is lost.
	exec(t, x.s, "ALTER TABLE predictions DELETE WHERE cityHash64(id) % 3 = 0 SETTINGS mutations_sync = 2")
	if out := x.recount(t, true); len(out.Short) > 0 {
		t.Errorf("after an erasure: %+v", out.Short)
	}
	sameCells(t, "after an erasure", cells(t, x.s), want)
	exec(t, x.s, "ALTER TABLE bins_1m DELETE WHERE toMinute(minute) % 2 = 0 SETTINGS mutations_sync = 2")
	exec(t, x.s, "ALTER TABLE traffic_1m DELETE WHERE toMinute(minute) % 2 = 1 SETTINGS mutations_sync = 2")
	if out := x.recount(t, true); len(out.Short) == 0 {
		t.Error("nothing was short after an erasure")
	}
	got := cells(t, x.s)
	less := 0
	for k, w := range want {
		kind, _, _ := strings.Cut(k, " ")
		minute := 0
		if _, err := fmt.Sscanf(k[strings.Index(k, ":")+1:], "%d", &minute); err != nil {
			t.Fatal(err)
		}
		lost := minute%2 == 0
		if kind != "bins" {
			lost = !lost
		}
		switch {
		case kind == "last" || kind == "p90":
		case math.Abs(got[k]-w) <= 1e-9*w:
		case !lost:
			t.Errorf("%s was not short and is %v, before %v", k, got[k], w)
		case got[k] > w:
			t.Errorf("%s is %v, more than there ever was (%v)", k, got[k], w)
		case got[k] < w:
			less++
		}
	}
	if less == 0 {
		t.Error("what was erased is counted again")
	}
	if out := x.recount(t, true); len(out.Short) > 0 {
		t.Errorf("and then: %+v", out.Short)
	}
}

// failing is a connection of which the k-th change fails, before the server has it or
// after; those that come later fail too, or not.
type failing struct {
	driver.Conn
	left       int
	after, one bool
}

var errFailing = errors.New("the connection is gone")

// fails says whether a change fails, and whether the server has it all the same.
func (f *failing) fails() (fails, has bool) {
	f.left--
	return f.left == 0 || f.left < 0 && !f.one, f.left == 0 && f.after
}

func (f *failing) Exec(ctx context.Context, query string, args ...any) error {
	fails, has := f.fails()
	if !fails || has {
		if err := f.Conn.Exec(ctx, query, args...); err != nil {
			return err
		}
	}
	if fails {
		return errFailing
	}
	return nil
}

func (f *failing) PrepareBatch(ctx context.Context, query string, opts ...driver.PrepareBatchOption) (driver.Batch, error) {
	fails, has := f.fails()
	if fails && !has {
		return nil, errFailing
	}
	b, err := f.Conn.PrepareBatch(ctx, query, opts...)
	if fails {
		return failingBatch{b}, err
	}
	return b, err
}

type failingBatch struct{ driver.Batch }

func (f failingBatch) Send() error { return errors.Join(f.Batch.Send(), errFailing) }

// TestRecountThatDies ends a run at each of its changes, before the server has it and
// after: the next run leaves the right counts. An insert whose answer alone is lost is
// sent again and counts once.
func TestRecountThatDies(t *testing.T) {
	x := newSummed(t, open(t))
	x.oneDay = true
	for i := range 2 {
		x.batch(t, fmt.Sprint("b", i), 14)
	}
	x.backfill(t)
	want := cells(t, x.s)
	conn := x.s.conn
	for _, mode := range []failing{{after: false}, {after: true}, {after: true, one: true}, {after: false, one: true}} {
		died := 0
		for k := 1; ; k++ {
			exec(t, x.s, "ALTER TABLE bins_1m DELETE WHERE field < 2 SETTINGS mutations_sync = 2")
			exec(t, x.s, "ALTER TABLE traffic_1m UPDATE rows = rows - 1, requests = 0 WHERE version = '1' SETTINGS mutations_sync = 2")
			exec(t, x.s, "ALTER TABLE traffic_1m DELETE WHERE version = '2' SETTINGS mutations_sync = 2")
			f := mode
			f.Conn, f.left = conn, k
			x.s.conn = &f
			_, err := x.w.Recount(t.Context(), Recounting{Repair: true})
			x.s.conn = conn
			if err != nil && !errors.Is(err, errFailing) {
				t.Fatal(err)
			}
			if err != nil {
				x.recount(t, true)
			}
			sameCells(t, fmt.Sprintf("died at %d of %+v: %v", k, mode, err), cells(t, x.s), want)
			if t.Failed() {
				return
			}
			if f.left > 0 {
				break
			}
			died++
		}
		if died < 5 {
			t.Errorf("%+v: died only %d times", mode, died)
		}
	}
}

// TestRecountWaitsForTheBatchUnderWay: rows that are stored and not counted yet are
// not short, whichever process began their batch.
func TestRecountWaitsForTheBatchUnderWay(t *testing.T) {
	x := newStation(t)
	records, rows, _ := x.m.batchWith(t, 30, base)
	x.append(t, records...)
	x.spool.Flush()
	b, err := x.spool.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := WriterConfig{Source: x.spool, Kept: x.spool, Dead: x.dead, Reference: func(string) *stats.Reference { return x.ref }}
	w := writer(t, x.s, cfg)
	p := w.sort(b)
	w.bin(t.Context(), p)
	for _, in := range w.rowInserts(p) {
		if _, _, err := w.place(t.Context(), b.Token, in); err != nil {
			t.Fatal(err)
		}
	}
	w = writer(t, x.s, cfg) // another process
	w.startEven()
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	asked := make(chan error, 2)
	go func() {
		_, err := w.Recount(soon, Recounting{Repair: true})
		asked <- err
	}()
	if err := <-asked; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("recounted beside a batch under way: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		out, err := w.Recount(ctx, Recounting{Repair: true})
		if err == nil && len(out.Short) > 0 {
			err = fmt.Errorf("short: %+v", out.Short)
		}
		asked <- err
	}()
	go func() { done <- w.Run(ctx) }()
	if err := <-asked; err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	x.m.consistent(t, x.s, rows)
	w = writer(t, x.s, cfg) // and nothing is under way
	w.startEven()
	if out, err := w.Recount(t.Context(), Recounting{}); err != nil || len(out.Short) > 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestRecountOnCluster takes parts of the rollups from one of two shards.
func TestRecountOnCluster(t *testing.T) {
	_, pair := openPair(t)
	x := newSummed(t, pair[0])
	for i := range 3 {
		x.batch(t, fmt.Sprint("b", i), 40)
	}
	x.backfill(t)
	want := cells(t, x.s)
	for _, s := range pair {
		exec(t, s, "TRUNCATE TABLE bins_1m_local")
		exec(t, s, "ALTER TABLE traffic_1m_local UPDATE rows = rows - 1 WHERE rows > 1 SETTINGS mutations_sync = 2")
		if out := x.recount(t, true); len(out.Short) == 0 {
			t.Error("nothing was short")
		}
		sameCells(t, "on a cluster", cells(t, x.s), want)
	}
	if aside, err := x.s.SetAside(t.Context()); err != nil || len(aside) > 0 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
	c := cluster{name: "prod", database: "pellucid"}
	if c.across("clusterAllReplicas", "detached_parts") != "clusterAllReplicas('prod', system.detached_parts)" {
		t.Error("not of every replica")
	}
}
