package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// longRow is a prediction made elsewhere with a text of many bytes.
func longRow(i int) string {
	return fmt.Sprintf(`{"model":"elsewhere","version":"7","id":"long-%d","time":"2026-05-01T12:00:00Z","features":{"note":%q},"outputs":{"score":0.5}}`,
		i, strings.Repeat(fmt.Sprintf("%07d ", i), 4<<10))
}

// heapInUse is what this process holds once what it no longer needs is gone.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestOutageCostsDiskNotMemory: while ClickHouse is away 64 MiB of records go to the spool.
// Beside the batch that is tried, which the first half makes full, little of them stays in
// memory; then they are stored, once.
func TestOutageCostsDiskNotMemory(t *testing.T) {
	const rows, each, most = 2048, 32, 8 << 20
	cfg := testConfig(t, t.TempDir())
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	send := func(from int) {
		t.Helper()
		list := make([]string, each)
		for i := range list {
			list[i] = longRow(from + i)
		}
		r.post(t, "/api/v1/predictions", "["+strings.Join(list, ",")+"]", nil)
	}
	send(0)
	r.stored(t)
	f.cut()
	before, then := int64(0), int64(0)
	for from := each; from < rows; from += each {
		if from == rows/2 {
			before, then = heapInUse(), r.spool.Stats().Pending
		}
		send(from)
	}
	now := r.spool.Stats().Pending
	if now-then < 30<<20 {
		t.Fatalf("only %d bytes came to the spool", now-then)
	}
	grown := heapInUse() - before
	t.Logf("memory grew by %d bytes while %d came to the spool", grown, now-then)
	if grown > most {
		t.Errorf("more than %d", most)
	}
	f.open(t)
	until(t, "all is stored", func() bool { return r.spool.Stats().Pending == 0 })
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT count(), uniqExact(id) FROM predictions"); got != fmt.Sprintf("%d\t%d", rows, rows) {
		t.Errorf("stored %s", got)
	}
}

// TestSlowClickHouse: each piece of its answers comes a quarter of a second late. Predictions
// are answered without waiting for it, the lag is told, and all is stored once.
func TestSlowClickHouse(t *testing.T) {
	models, cases := threeModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.late.Store(int64(250 * time.Millisecond))
	body, waited := cases["xgb"].whole().body(""), false
	const requests = 400
	for range requests {
		if status, b, h := r.call(t, "POST", "/v2/models/xgb/infer", body); status != http.StatusOK || h.Get("Pellucid-Capture") != "full" {
			t.Fatalf("%d %s", status, b)
		}
		waited = waited || r.spool.Stats().Lag > 0
	}
	if !waited {
		t.Error("nothing ever waited for a store that is slow")
	}
	if _, metrics, _ := r.call(t, "GET", "/metrics", ""); !strings.Contains(string(metrics), "ml_spool_lag") {
		t.Error("the lag is no metric")
	}
	until(t, "all is stored", func() bool { return r.spool.Stats().Pending == 0 })
	f.late.Store(0)
	r.stored(t)
	if got := sql(t, r.database(t), "SELECT uniqExact(id), count() = uniqExact(id, row) FROM predictions"); got != fmt.Sprintf("%d\t1", requests) {
		t.Errorf("stored %s, want %d", got, requests)
	}
	if files, err := filepath.Glob(filepath.Join(cfg.Data, "spool", "*.bad")); err != nil || len(files) > 0 {
		t.Errorf("set aside: %v (%v)", files, err)
	}
}

// TestTooManyParts: a table that takes no more parts, be it that of the rows or a rollup that comes after
// them, has rows wait, and they are stored and counted once when it takes them again.
func TestTooManyParts(t *testing.T) {
	const each, refused = 4, "SELECT sum(value) FROM system.errors WHERE name = 'TOO_MANY_PARTS'"
	r := startRig(t, sealedFlights(t))
	send := func() {
		t.Helper()
		for i := range each {
			r.post(t, "/v2/models/flights/infer", flightBody("UA", 40+float64(i)), nil)
		}
	}
	send()
	r.stored(t)
	for i, table := range []string{"predictions", "bins_1m", "traffic_1m"} {
		table = r.database(t) + "." + table
		sql(t, "default", "SYSTEM STOP MERGES "+table)
		sql(t, "default", "ALTER TABLE "+table+" MODIFY SETTING parts_to_throw_insert = 1")
		before := sql(t, "default", refused)
		send()
		until(t, table+" refuses", func() bool { return sql(t, "default", refused) != before })
		if st := r.spool.Stats(); st.Appended == st.Acked {
			t.Errorf("%s: nothing waits", table)
		}
		sql(t, "default", "ALTER TABLE "+table+" RESET SETTING parts_to_throw_insert")
		sql(t, "default", "SYSTEM START MERGES "+table)
		r.stored(t)
		rows := (i + 2) * each
		want := fmt.Sprintf("%d\t%d\t%d\t1", rows, rows, rows)
		if got := sql(t, r.database(t), "SELECT count(), uniqExact(id, row), (SELECT sum(rows) FROM traffic_1m), (SELECT sum(weight) > 0 FROM bins_1m) FROM predictions"); got != want {
			t.Errorf("%s: stored %s, want %s", table, got, want)
		}
	}
	if got := pellucid(t, "rollups", "check", "--url", r.url); !strings.Contains(got, "count every row of 1 days") {
		t.Error(got)
	}
}
