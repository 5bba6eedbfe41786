package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
)

// segmentsOf makes a spool of n segments with the records of one start each.
func segmentsOf(t testing.TB, dir string, n, records int, record func(i int) collector.Record) []string {
	t.Helper()
	for i := range n {
		s, err := spool.Open(spool.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for k := range records {
			if err := s.Append(t.Context(), record(i*records+k)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) != n {
		t.Fatalf("%d segments, want %d (%v)", len(names), n, err)
	}
	return names
}

func waitingRecord(i int) collector.Record {
	p := &collector.Prediction{ID: fmt.Sprintf("id-%d", i), Rows: 1, Tenant: collector.DefaultTenant, Model: "m"}
	return collector.Record{Kind: collector.KindPrediction, Version: 1, Payload: collector.AppendPrediction(nil, p), ID: p.ID}
}

// lettersOf makes a file of dead letters.
func lettersOf(t *testing.T, dir string, n int) string {
	t.Helper()
	d, err := spool.OpenDead(spool.DeadConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]collector.DeadLetter, n)
	for i := range list {
		r := waitingRecord(i)
		list[i] = collector.DeadLetter{
			ID: collector.DeadLetterID("b", i, collector.InsertPredictions), Batch: "b", Position: i, Insert: collector.InsertPredictions,
			Kind: r.Kind, Version: r.Version, Payload: r.Payload,
		}
	}
	if err := errors.Join(d.Bury(list), d.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.dead"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%q, %v", names, err)
	}
	return names[0]
}

// TestLostDeadLettersAreTold: a start that misses letters says so wherever a lost record is
// told of.
func TestLostDeadLettersAreTold(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := startRig(t, cfg)
	r.halt(t)
	if err := os.Remove(lettersOf(t, filepath.Join(cfg.Data, "spool", "dead"), 2)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r = startRig(t, cfg)
		const want = "dead letters are lost: 0000000000000001.dead is gone, with 2 dead letters"
		if got := r.marks.losses(); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("losses %q", got)
		}
		if _, b, _ := r.call(t, "GET", "/metrics", ""); !strings.Contains(string(b), "\npellucid_data_losses 1\n") {
			t.Error("the metric does not tell")
		}
		if _, checks := doctorOn(t, cfg); !strings.Contains(fmt.Sprint(checks), want) {
			t.Errorf("doctor: %+v", checks)
		}
		r.halt(t)
	}
	if err := os.Remove(filepath.Join(cfg.Data, lossesFile)); err != nil {
		t.Fatal(err)
	}
	r = startRig(t, cfg)
	if got := r.marks.losses(); len(got) != 0 {
		t.Errorf("told again after the operator has read it: %q", got)
	}
}

// TestSpoolDamageIsToldByCommands: `spool verify` and `doctor` fail, and say where, for what a
// crash cannot have made.
func TestSpoolDamageIsToldByCommands(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, names []string) error
		want   string
	}{
		{"whole", func(*testing.T, []string) error { return nil }, ""},
		{"gone", func(_ *testing.T, names []string) error { return os.Remove(names[1]) }, "segment 2 is gone"},
		{"an older one cut", func(_ *testing.T, names []string) error { return os.Truncate(names[1], 100) }, "bytes shorter than it was"},
		{"the newest cut after it was closed", func(_ *testing.T, names []string) error { return os.Truncate(names[2], 100) }, "segment 3 is 278 bytes shorter than it was"},
		{"the cursor emptied", func(_ *testing.T, names []string) error {
			return os.Truncate(filepath.Join(filepath.Dir(names[0]), "cursor"), 0)
		}, "the cursor cannot be read"},
		{"the cursor gone", func(_ *testing.T, names []string) error {
			return os.Remove(filepath.Join(filepath.Dir(names[0]), "cursor"))
		}, "the cursor is gone"},
		{"dead letters cut", func(t *testing.T, names []string) error {
			return os.Truncate(lettersOf(t, filepath.Join(filepath.Dir(names[0]), "dead"), 3), 100)
		}, "bytes of 0000000000000001.dead are damaged or gone, with 3 of 3 dead letters"},
		{"dead letters gone", func(t *testing.T, names []string) error {
			return os.Remove(lettersOf(t, filepath.Join(filepath.Dir(names[0]), "dead"), 2))
		}, "0000000000000001.dead is gone, with 2 dead letters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := t.TempDir()
			dir := filepath.Join(data, "spool")
			if err := c.damage(t, segmentsOf(t, dir, 3, 4, waitingRecord)); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			status := run(t.Context(), []string{"spool", "verify", dir}, &out, &errs)
			if c.want == "" && status != 0 || c.want != "" && (status != 1 || !strings.Contains(errs.String(), c.want)) {
				t.Errorf("verify: status %d, %s%s", status, &out, &errs)
			}
			_, checks := doctorOn(t, config{Data: data, Models: t.TempDir(), ClickHouse: "clickhouse://pellucid:none@127.0.0.1:1/pellucid"})
			if got := checks["spool"]; got.OK != (c.want == "") || !strings.Contains(got.Detail, c.want) {
				t.Errorf("doctor: %+v", got)
			}
		})
	}
}

// TestDoctorChecksTables flips a byte in a part of predictions of a running server: only
// `doctor --tables` tells, with the part's name, and that it cannot look without a server.
func TestDoctorChecksTables(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "xgb", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	cfg.ClickHouse = ""
	r := startRig(t, cfg)
	r.infer(t, "xgb", c)
	r.stored(t)
	if status, checks := doctorOn(t, cfg, "--tables"); status != 0 || !strings.Contains(checks["tables"].Detail, "are as they were written") {
		t.Fatalf("whole: %d %+v", status, checks)
	}
	path := strings.TrimSpace(r.admin(t, "SELECT path FROM system.parts WHERE table = 'predictions' AND active LIMIT 1"))
	files, err := filepath.Glob(filepath.Join(path, "*.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q: %v, %v", path, files, err)
	}
	if err := flipped(files[0]); err != nil {
		t.Fatal(err)
	}
	if status, checks := doctorOn(t, cfg); status != 0 {
		t.Errorf("without --tables: %d %+v", status, checks)
	}
	status, checks := doctorOn(t, cfg, "--tables")
	if got := checks["tables"]; status != 1 || got.OK || !strings.Contains(got.Detail, "1 damaged parts: predictions/"+filepath.Base(path)) {
		t.Errorf("flipped: %d %+v", status, got)
	}
	var out, errs bytes.Buffer
	run(t.Context(), []string{"doctor", "--data", cfg.Data, "--models", cfg.Models, "--tables"}, &out, &errs)
	for _, want := range []string{"checking predictions: ", "damaged: predictions/" + filepath.Base(path)} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("stderr does not say %q: %s", want, &errs)
		}
	}
	r.halt(t)
	if status, checks := doctorOn(t, cfg, "--tables"); status != 1 || !strings.Contains(checks["tables"].Detail, "not running") {
		t.Errorf("without a server: %d %+v", status, checks["tables"])
	}
}

// TestDoctorGoesByTheDurability: tables that a power cut can take rows from are nothing to
// the doctor of a server that does not promise to survive one, and fail it where it does.
func TestDoctorGoesByTheDurability(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ClickHouse = ""
	r := startRig(t, cfg)
	path := filepath.Join(t.TempDir(), "pellucid.yaml")
	if err := os.WriteFile(path, []byte("capture: {durability: machine}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, checks := doctorOn(t, cfg, "--config", path); status != 0 {
		t.Errorf("as made: %+v", checks)
	}
	for _, setting := range []string{"fsync_after_insert", "min_rows_to_fsync_after_merge"} {
		r.admin(t, "ALTER TABLE feedback MODIFY SETTING "+setting+" = 0")
		if status, checks := doctorOn(t, cfg); status != 0 {
			t.Errorf("%s at level process: %+v", setting, checks)
		}
		status, checks := doctorOn(t, cfg, "--config", path)
		if got := checks["store"]; status != 1 || got.OK || !strings.Contains(got.Detail, "table feedback ") || !strings.Contains(got.Detail, setting) {
			t.Errorf("%s at level machine: %d %+v", setting, status, got)
		}
		r.admin(t, "ALTER TABLE feedback RESET SETTING "+setting)
	}
	r.admin(t, "ALTER TABLE feedback MODIFY TTL toDateTime(received_at) + INTERVAL 1 DAY")
	if status, checks := doctorOn(t, cfg); status != 1 || !strings.Contains(checks["store"].Detail, "ALTER TABLE feedback REMOVE TTL") {
		t.Errorf("a TTL: %+v", checks["store"])
	}
}
