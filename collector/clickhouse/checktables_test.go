package clickhouse

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/collector/clickhouse/embedded"
	"github.com/pellucid/pellucid/collector/clickhouse/embedded/embeddedtest"
)

// TestCheckTables flips a bit in a part of predictions on the disk of a running server: the
// check names that part and no other, and counts every part of every table.
func TestCheckTables(t *testing.T) {
	server := &shard{cfg: embedded.Config{Dir: t.TempDir(), ChildCommand: embeddedtest.ChildCommand(t), Log: quiet()}}
	server.start(t)
	t.Cleanup(func() { server.stop(t) })
	x := newSummed(t, openDSN(t, server.engine.Env().DSN()))
	for i := range 3 {
		x.batch(t, fmt.Sprint("b", i), 60)
	}
	check := func() (tables []string, whole int, damaged []DamagedPart) {
		t.Helper()
		err := x.s.CheckTables(t.Context(), TableChecks{
			Table: func(table string, _, _ uint64) { tables = append(tables, table) },
			Part: func(p DamagedPart, ok bool) {
				if ok {
					whole++
				} else {
					damaged = append(damaged, p)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return tables, whole, damaged
	}
	exec(t, x.s, "OPTIMIZE TABLE predictions FINAL")
	tables, whole, damaged := check()
	for _, table := range []string{"predictions", "feedback", "otel_traces", "bins_1m", "traffic_1m"} {
		if !slices.Contains(tables, table) {
			t.Errorf("%s is not checked: %v", table, tables)
		}
	}
	if len(damaged) > 0 || whole == 0 {
		t.Fatalf("%d parts are whole, damaged: %+v", whole, damaged)
	}
	part := activeParts(t, x.s, "predictions")[0]
	files, err := filepath.Glob(filepath.Join(part, "*.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", part, files, err)
	}
	flipBit(t, files[0])
	if _, _, damaged = check(); len(damaged) != 1 || damaged[0].Table != "predictions" || damaged[0].Part != filepath.Base(part) || damaged[0].Reason == "" {
		t.Errorf("told: %+v", damaged)
	}
}
