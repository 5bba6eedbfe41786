package clickhouse

import (
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// TestInsertsThatTheServerLostAreSentAgain: a server killed between noting an
// insert's token and its rows takes every further attempt for a repeat. Whatever
// tables have lost their rows in that way, the next attempt at the batch brings
// them back, once.
func TestInsertsThatTheServerLostAreSentAgain(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	cfg := WriterConfig{Reference: func(string) *stats.Reference { return ref }}
	before := m.prediction(t, 7, base)
	write(t, writer(t, s, cfg), "before", m.schemaRecord(t), record(before))
	p, failed := m.prediction(t, 20, base.Add(90*time.Second)), m.prediction(t, 1, base.Add(time.Hour))
	p.Weight = 2.5
	failed.Status, failed.Scores, failed.Decided = 500, nil, nil
	doc, err := collector.EncodeExplanation(&collector.Explanation{PredictionID: p.ID + ".3", Model: "delay", Version: "1", Method: "tree_shap"})
	if err != nil {
		t.Fatal(err)
	}
	records := []collector.Record{
		m.schemaRecord(t), record(p), record(failed),
		feedback(&collector.Feedback{Tenant: "default", PredictionID: p.ID + ".1", Label: "1", ObservedAt: base, ReceivedAt: base}),
		{Kind: collector.KindExplanation, Version: collector.ExplanationVersion, Payload: doc},
		{Kind: 99, Version: 1, Payload: []byte("?")},
	}
	counts := map[string]float64{
		"SELECT count() FROM predictions": 28, "SELECT uniqExact(id, row) FROM predictions": 28, "SELECT sum(rows) FROM traffic_1m": 28,
		"SELECT sum(requests) FROM traffic_1m WHERE status_class = 5": 1, "SELECT sum(weight) FROM bins_1m WHERE field = 0": 7 + 20*2.5,
		"SELECT count() FROM feedback": 1, "SELECT count() FROM explanations": 1, "SELECT count() FROM undecodable": 1, "SELECT uniqExact(id) FROM schemas": 1,
	}
	check := func(what string) {
		t.Helper()
		for sql, want := range counts {
			if got := number(t, s, sql); got != want {
				t.Errorf("%s: %s is %v, want %v", what, sql, got, want)
			}
		}
	}
	write(t, writer(t, s, cfg), "b", records...)
	check("at first")
	for table, where := range map[string]string{
		"predictions": "insert_batch = 'b'", "traffic_1m": "minute > toStartOfMinute(toDateTime('2026-11-03 12:00:00', 'UTC'))",
		"bins_1m": "minute > toStartOfMinute(toDateTime('2026-11-03 12:00:00', 'UTC'))", "feedback": "1", "explanations": "1", "undecodable": "1", "schemas": "1",
	} {
		// Empty parts go by themselves after a while, and the server forgets their tokens.
		if err := s.conn.Exec(t.Context(), "ALTER TABLE "+table+" MODIFY SETTING remove_empty_parts = 0"); err != nil {
			t.Fatal(err)
		}
		if err := s.conn.Exec(t.Context(), "ALTER TABLE "+table+" DELETE WHERE "+where+" SETTINGS mutations_sync = 2"); err != nil {
			t.Fatal(err)
		}
		write(t, writer(t, s, cfg), "b", records...)
		check(table + " lost its rows")
		write(t, writer(t, s, cfg), "b", records...)
		check(table + ", once more")
	}
	for _, table := range []string{"predictions", "traffic_1m", "bins_1m"} {
		if err := s.conn.Exec(t.Context(), "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
			t.Fatal(err)
		}
	}
	check("merged")
}
