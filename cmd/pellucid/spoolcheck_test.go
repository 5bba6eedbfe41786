package main

import (
	"bytes"
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
