package clickhouse

import (
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// halfStored stores the rows of a batch and not what they count in the rollups: its
// process was killed in between, and its spool never came back.
func halfStored(t *testing.T, w *Writer, token string, records ...collector.Record) {
	t.Helper()
	p := w.sort(&collector.Batch{Token: token, Records: records})
	w.bin(t.Context(), p)
	for _, in := range w.rowInserts(p) {
		if _, _, err := w.place(t.Context(), token, in); err != nil {
			t.Fatal(err)
		}
	}
}

// TestABatchThatWasCountedFromItsRows: a spool is away for one start, which counts what its batch
// had stored and not counted, and comes back: the batch counts once.
func TestABatchThatWasCountedFromItsRows(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	cfg := WriterConfig{Reference: func(string) *stats.Reference { return ref }}
	records, rows := []collector.Record{m.schemaRecord(t)}, 0
	for i := range 30 {
		p := m.prediction(t, 1+i%4, base.Add(time.Duration(i)*9*time.Second))
		rows += p.Rows
		records = append(records, record(p))
	}
	write(t, writer(t, s, cfg), "before", m.schemaRecord(t), record(m.prediction(t, 3, base)))
	halfStored(t, writer(t, s, cfg), "away", records...)
	other := writer(t, s, cfg)
	other.even = true
	if _, err := other.Recount(t.Context(), Recounting{Repair: true}); err != nil {
		t.Fatal(err)
	}
	m.consistent(t, s, rows+3)
	cfg.Recounted = true
	w := writer(t, s, cfg)
	write(t, w, "away", records...)
	m.consistent(t, s, rows+3)
	write(t, w, "after", record(m.prediction(t, 2, base)))
	m.consistent(t, s, rows+5)
	// And one that nobody has counted.
	again := m.prediction(t, 4, base)
	halfStored(t, writer(t, s, cfg), "again", record(again))
	write(t, writer(t, s, cfg), "again", record(again))
	m.consistent(t, s, rows+9)
}

// TestABatchIsHeldAgainstItsOwnRows: a spool that is put in another's place offers its batch
// once more, while the store has rows of the other's batch, of the same minutes, that no
// rollup has counted and nobody will. The batch counts once, whether the rollups had it or
// had lost it, the drain goes on, and what the other's rows lack is told and counted again.
func TestABatchIsHeldAgainstItsOwnRows(t *testing.T) {
	for name, lose := range map[string]string{"stored": "", "bins lost": "bins_1m", "traffic lost": "traffic_1m"} {
		t.Run(name, func(t *testing.T) {
			s, m := open(t), newMaker(t)
			ref := m.reference(t, 100)
			told := 0
			cfg := WriterConfig{Reference: func(string) *stats.Reference { return ref }, Uncounted: func() { told++ }}
			at := func(i int) time.Time { return base.Add(time.Duration(i) * 7 * time.Second) }
			batch := func(from, rows int) []collector.Record {
				records := []collector.Record{m.schemaRecord(t)}
				for i := range 20 {
					p := m.prediction(t, 1+(i+from)%rows, at(i+from))
					p.Weight = 1 + float64(i%3)/2
					records = append(records, record(p))
				}
				return records
			}
			older, other := batch(0, 3), batch(2, 5)
			write(t, writer(t, s, cfg), "older", older...)
			counted := func() [2]float64 {
				return [2]float64{number(t, s, "SELECT sum(rows) FROM traffic_1m"), number(t, s, "SELECT sum(weight) FROM bins_1m")}
			}
			want := counted()
			halfStored(t, writer(t, s, cfg), "other", other...)
			if lose != "" {
				if err := s.conn.Exec(t.Context(), "ALTER TABLE "+lose+" DELETE WHERE 1 SETTINGS mutations_sync = 2"); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				write(t, writer(t, s, cfg), "older", older...)
				if got := counted(); got != want {
					t.Fatalf("the rollups count %v, want %v", got, want)
				}
				if told == 0 {
					t.Error("it was not told that rows are stored that no rollup counts")
				}
				told = 0
			}
			w := writer(t, s, cfg)
			w.even = true
			if _, err := w.Recount(t.Context(), Recounting{Repair: true}); err != nil {
				t.Fatal(err)
			}
			if rows := number(t, s, "SELECT count() FROM predictions"); counted()[0] != rows {
				t.Errorf("counted again, traffic has %v of %v rows", counted()[0], rows)
			}
			write(t, writer(t, s, cfg), "older", older...)
			if told > 0 {
				t.Error("told although nothing is short")
			}
			m.consistent(t, s, int(number(t, s, "SELECT count() FROM predictions")))
		})
	}
}
