package clickhouse

import (
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// TestMigrateLeavesTablesAlone: a start writes no table's definition anew. On a full
// disk that would leave it empty, and nothing would start any more.
func TestMigrateLeavesTablesAlone(t *testing.T) {
	s := open(t)
	times := func() string {
		t.Helper()
		list, err := s.strings(t.Context(), "SELECT name || ' ' || toString(metadata_modification_time) FROM system.tables WHERE database = currentDatabase() ORDER BY name")
		if err != nil || len(list) < 10 {
			t.Fatal(list, err)
		}
		return strings.Join(list, "\n")
	}
	before := times()
	time.Sleep(1100 * time.Millisecond) // the times are whole seconds
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := times(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// What an earlier Pellucid made gets the column that it lacks, and no row is lost.
	m := newMaker(t)
	w := writer(t, s, WriterConfig{})
	write(t, w, "old", m.schemaRecord(t), record(m.prediction(t, 3, base)),
		feedback(&collector.Feedback{PredictionID: "p", Tenant: "default", Label: "x", ObservedAt: base, ReceivedAt: base, Arrival: base.Add(time.Second)}))
	exec(t, s, "ALTER TABLE predictions DROP COLUMN feature_weight, DROP COLUMN attempt_status, DROP COLUMN attempt_ms")
	exec(t, s, "ALTER TABLE feedback DROP COLUMN arrival")
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, w, "new", m.schemaRecord(t), record(m.prediction(t, 2, base)))
	if got := number(t, s, "SELECT sum(feature_weight) FROM predictions"); got != 5 {
		t.Errorf("rows stand for %v", got)
	}
	if got := number(t, s, "SELECT countIf(arrival = received_at) FROM feedback"); got != 1 {
		t.Errorf("labels of before with their time of arrival: %v", got)
	}
	for _, m := range migrations() {
		if strings.HasPrefix(m, "ALTER") {
			t.Errorf("a migration that changes a table at every start: %s", title(m))
		}
	}
}
