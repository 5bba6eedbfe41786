package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/dashboards/api"
)

// fails runs a command line that has to fail with a status, and returns what it prints.
func fails(t *testing.T, status int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), args, &out, &errs); got != status {
		t.Fatalf("pellucid %s: %d, want %d: %s %s", strings.Join(args, " "), got, status, &out, &errs)
	}
	return out.String() + errs.String()
}

// sums are what the rollups and the table count.
func (r *rig) sums(t *testing.T) string {
	t.Helper()
	return r.admin(t, "SELECT (SELECT count() FROM predictions), (SELECT sum(rows) FROM traffic_1m), (SELECT sum(weight) FROM bins_1m)")
}

// TestDamagedRollupsAreMended damages a part of each rollup of a whole server with its
// own engine, and of sealed features: its next start tells and counts them again, once;
// what is lost in another way the commands find and mend.
func TestDamagedRollupsAreMended(t *testing.T) {
	cfg := sealedFlights(t)
	cfg.ClickHouse = ""
	r := startRig(t, cfg)
	for i := range 3 {
		for range 4 {
			r.post(t, "/v2/models/flights/infer", flightBody([]string{"UA", "AA", canaryText}[i], 40+float64(i)), nil)
		}
		r.stored(t)
	}
	want := r.sums(t)
	if !strings.HasPrefix(want, "12\t12\t") || strings.HasSuffix(want, "\t0") {
		t.Fatalf("counted %s", want)
	}
	if got := pellucid(t, "rollups", "check", "--url", r.url); !strings.Contains(got, "count every row of 1 days") {
		t.Errorf("nothing is damaged: %s", got)
	}
	if strings.Contains(r.log.String(), "parts of rollups are damaged") {
		t.Error("damage is told where there is none")
	}
	r.halt(t)
	for _, column := range []string{"latency", "field"} {
		damage(t, cfg.Data, column, truncated)
	}
	r = startRig(t, cfg)
	until(t, "the rollups are counted again", func() bool { return strings.Contains(r.log.String(), "the rollups count the rows that are stored") })
	if got := r.sums(t); got != want {
		t.Errorf("counted again: %s, want %s", got, want)
	}
	for _, said := range []string{"parts of rollups are damaged", "pellucid rollups repair --url " + r.url, "rollup=bins_1m", "rollup=traffic_1m"} {
		if !strings.Contains(r.log.String(), said) {
			t.Errorf("the log does not say %q", said)
		}
	}
	if got, err := checkRollups(t.Context(), patient{config: r.cfg}); err != nil || !strings.Contains(got, " damaged parts, made good") {
		t.Errorf("doctor: %q, %v", got, err)
	}
	if err := os.Remove(filepath.Join(cfg.Data, asideFile)); err != nil {
		t.Fatal(err)
	}
	if got, err := checkRollups(t.Context(), patient{config: r.cfg}); err == nil || !strings.Contains(err.Error(), "pellucid rollups repair") {
		t.Errorf("doctor, not known to be made good: %q, %v", got, err)
	}
	// Looked at, and found whole: so it is known again.
	if got := pellucid(t, "rollups", "repair", "--url", r.url); !strings.Contains(got, "count every row") {
		t.Errorf("repair: %s", got)
	}
	r.halt(t)
	damage(t, cfg.Data, "latency", flipped)
	r = startRig(t, cfg)
	until(t, "a flipped bit is mended", func() bool { return strings.Contains(r.log.String(), "the rollups count the rows that are stored") })
	if got := r.sums(t); got != want {
		t.Errorf("with a flipped bit: %s, want %s", got, want)
	}
	r.halt(t)
	r = startRig(t, cfg)
	r.lost(t, want)
	if strings.Contains(r.log.String(), "parts of rollups are damaged") {
		t.Error("what was made good is told at the next start")
	}
	var said []string
	for _, e := range auditEntries(t, cfg.Data) {
		if e.Action == "rollups.repair" {
			said = append(said, fmt.Sprintf("%s %t %t", e.Outcome, e.Counts["traffic_1m minutes"] > 0, e.Counts["bins_1m minutes"] > 0))
		}
	}
	if want := []string{"begun false false", " true true", "begun false false", " true false", "begun false false", " true false"}; !slices.Equal(said, want) {
		t.Errorf("recorded %q, want %q", said, want)
	}
}

// TestRollupsAreCountedAgainAfterASpoolWent: a batch whose rows are stored and whose spool
// has gone before they were counted is counted from its rows.
func TestRollupsAreCountedAgainAfterASpoolWent(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ClickHouse = ""
	r := startRig(t, cfg)
	r.post(t, "/api/v1/predictions", notedList(0, 20), nil)
	r.stored(t)
	r.admin(t, "INSERT INTO predictions SELECT * REPLACE (concat(id, 'x') AS id, 'uncounted' AS insert_batch) FROM predictions LIMIT 7")
	if got := r.sums(t); !strings.HasPrefix(got, "27\t20\t") {
		t.Fatalf("rows and rows counted are %s", got)
	}
	r.halt(t)
	if err := os.Rename(filepath.Join(cfg.Data, "spool"), filepath.Join(cfg.Data, "away")); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	until(t, "the rollups are counted again", func() bool { return strings.Contains(r.log.String(), "the rollups count the rows that are stored") })
	if got := r.sums(t); !strings.HasPrefix(got, "27\t27\t") {
		t.Errorf("rows and rows counted are %s", got)
	}
	if got, err := checkRollups(t.Context(), patient{config: r.cfg}); err != nil {
		t.Errorf("doctor, after they were counted: %q, %v", got, err)
	}
	r.uncounted()
	if got, err := checkRollups(t.Context(), patient{config: r.cfg}); err == nil || !strings.Contains(err.Error(), "rows are stored that the rollups may not count") {
		t.Errorf("doctor, before: %q, %v", got, err)
	}
	held := func() bool {
		_, err := checkRollups(t.Context(), patient{config: r.cfg})
		return err == nil
	}
	until(t, "they are held against the rows again", held)
	// What is known of them is lost, as a power cut left it before the file was synced.
	if err := os.Truncate(filepath.Join(cfg.Data, asideFile), 0); err != nil {
		t.Fatal(err)
	}
	r.rollups.kick <- struct{}{}
	until(t, "they are held against the rows once more", held)
}

// lost takes all of a rollup away, and has the commands tell and mend it.
func (r *rig) lost(t *testing.T, want string) {
	t.Helper()
	r.admin(t, "TRUNCATE TABLE traffic_1m")
	got := fails(t, 1, "rollups", "check", "--url", r.url)
	if !strings.Contains(got, "traffic_1m: model flights, version 1, ") || !strings.Contains(got, "short of 12 rows") || !strings.Contains(got, "pellucid rollups repair") {
		t.Errorf("check: %s", got)
	}
	var told api.Recount
	if err := json.Unmarshal([]byte(fails(t, 1, "rollups", "check", "--format", "json", "--url", r.url)), &told); err != nil || len(told.Short) != 1 || told.Short[0].Missing != 12 || told.Repaired {
		t.Errorf("check as JSON: %+v, %v", told, err)
	}
	if got := pellucid(t, "rollups", "repair", "--url", r.url); !strings.Contains(got, "counted again: 12 rows") {
		t.Errorf("repair: %s", got)
	}
	if got := r.sums(t); got != want {
		t.Errorf("repaired: %s, want %s", got, want)
	}
	r.erasing <- struct{}{}
	if got := fails(t, 1, "rollups", "repair", "--url", r.url); !strings.Contains(got, "under way") {
		t.Errorf("beside an erasure: %s", got)
	}
	r.erasing.give()
	r.storeFull = func() bool { return true }
	if got := fails(t, 1, "rollups", "check", "--url", r.url); !strings.Contains(got, "disk of ClickHouse is full") {
		t.Errorf("on a full disk: %s", got)
	}
	r.storeFull = nil
	for _, bad := range []string{``, `{"mend":true}`, `{} {}`} {
		if status, b, _ := r.call(t, "POST", "/api/v1/rollups/recount", bad); status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", bad, status, b)
		}
	}
	fails(t, 2, "rollups", "check", "--format", "xml")
}

// truncated and flipped damage a file: the one is found when a server loads the part,
// the other when it reads it.
func truncated(path string) error { return os.Truncate(path, 1) }

func flipped(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 4
	return os.WriteFile(path, b, 0o600)
}

// damage damages a file of every part of the rollup that has a column.
func damage(t *testing.T, data, column string, how func(path string) error) {
	t.Helper()
	columns, err := filepath.Glob(filepath.Join(data, "clickhouse", "data", "store", "*", "*", "all_*", "columns.txt"))
	if err != nil {
		t.Fatal(err)
	}
	cut := 0
	for _, path := range columns {
		// traffic_1m is the only table with a latency, bins_1m with a field.
		if !strings.Contains(readFile(t, path), "`"+column+"`") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.bin"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", path, files, err)
		}
		if err := how(files[0]); err != nil {
			t.Fatal(err)
		}
		cut++
	}
	if cut == 0 {
		t.Fatalf("no part with column %s", column)
	}
}

// TestDamagedRowsAreTold: a part of the rows that is damaged is set aside by the next start, and the
// doctor says so until its folder is deleted.
func TestDamagedRowsAreTold(t *testing.T) {
	cfg := sealedFlights(t)
	cfg.ClickHouse = ""
	r := startRig(t, cfg)
	r.post(t, "/v2/models/flights/infer", flightBody("UA", 40), nil)
	r.stored(t)
	if _, err := checkAside(t.Context(), patient{config: r.cfg}); err != nil {
		t.Errorf("nothing is damaged: %v", err)
	}
	r.halt(t)
	store := filepath.Join(cfg.Data, "clickhouse", "data", "store", "*", "*")
	parts, err := filepath.Glob(filepath.Join(store, "20*_*", "columns.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range parts {
		if !strings.Contains(readFile(t, path), "`insert_batch`") || !strings.Contains(readFile(t, path), "`f32`") {
			continue
		}
		if err := os.Truncate(filepath.Join(filepath.Dir(path), "checksums.txt"), 1); err != nil {
			t.Fatal(err)
		}
	}
	r = startRig(t, cfg)
	_, err = checkAside(t.Context(), patient{config: r.cfg})
	for _, want := range []string{
		"1 damaged parts were set aside (predictions/broken", "1 of predictions)",
		"in an insert that failed, as where a full disk cut it, were sent again: they are stored", "damaged after its insert was confirmed is gone",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a part is set aside, and %q is not said: %v", want, err)
		}
	}
	broken, err := filepath.Glob(filepath.Join(store, "detached", "broken*"))
	if err != nil || len(broken) != 1 {
		t.Fatal(broken, err)
	}
	if err := os.RemoveAll(broken[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := checkAside(t.Context(), patient{config: r.cfg}); err != nil {
		t.Errorf("once it is deleted: %v", err)
	}
}

// TestAsideIsTold: each table's parts are counted, and of spans alone it is said what nobody sends again.
func TestAsideIsTold(t *testing.T) {
	const given = "pellucid_telemetry_spans_total"
	text := asideText([]string{"otel_traces/broken-on-start_20260102_5_5_0", "otel_traces/broken-on-start_20260102_7_7_0", "predictions/broken-on-start_202601_5_5_1"})
	if want := "3 damaged parts were set aside (otel_traces/broken-on-start_20260102_5_5_0 first; 2 of otel_traces, 1 of predictions)"; !strings.HasPrefix(text, want) || !strings.Contains(text, given) {
		t.Error(text)
	}
	if text := asideText([]string{"predictions/broken-on-start_202601_5_5_1"}); strings.Contains(text, given) {
		t.Error(text)
	}
}

// TestShortagesAreTheApis holds the store's form against the API's.
func TestShortagesAreTheApis(t *testing.T) {
	text := recountText(&api.Recount{Days: 3, Short: []api.Shortage{api.Shortage(clickhouse.Shortage{Rollup: "bins_1m", Model: "m", Version: "2", BinsID: "x", Minutes: 4, Missing: 5})}, Unread: []string{"y"}})
	if !strings.Contains(text, "bins_1m: model m, version 2") || !strings.Contains(text, "4 minutes, short of 5 bins") || !strings.Contains(text, "reference y") {
		t.Error(text)
	}
}
