package clickhouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

const (
	one = "0af7651916cd43dd8448eb211c80319c"
	two = "1af7651916cd43dd8448eb211c80319c"
)

// TestSpansThatAServerLost: a server that is killed may keep the token of spans whose rows
// it lost, and take what is sent again for a repeat.
func TestSpansThatAServerLost(t *testing.T) {
	s := open(t)
	spans := []Span{span(one, base), span(one, base.Add(time.Second)), span(two, base)}
	for i := range spans {
		spans[i].SpanID = fmt.Sprint("s", i)
	}
	insert := func() {
		t.Helper()
		if err := s.InsertSpans(t.Context(), "token", spans); err != nil {
			t.Fatal(err)
		}
	}
	insert()
	insert()
	if n := number(t, s, "SELECT count() FROM otel_traces"); n != 3 {
		t.Fatalf("%v spans of 3", n)
	}
	exec(t, s, "ALTER TABLE otel_traces DELETE WHERE SpanId != 's1' SETTINGS mutations_sync = 2")
	insert()
	if n := number(t, s, "SELECT count() FROM otel_traces"); n != 3 {
		t.Errorf("%v spans of 3 after the server lost two", n)
	}
	if n := number(t, s, "SELECT uniqExact(SpanId) FROM otel_traces"); n != 3 {
		t.Errorf("%v different spans of 3", n)
	}
}

// TestTracesWithoutTheirTimes: the narrow table of traces' times may lack rows after a
// kill; spans are found all the same.
func TestTracesWithoutTheirTimes(t *testing.T) {
	s := open(t)
	if err := s.InsertSpans(t.Context(), "1", []Span{span(one, base), span(one, base.Add(2*time.Minute))}); err != nil {
		t.Fatal(err)
	}
	exec(t, s, "TRUNCATE TABLE otel_traces_trace_id_ts")
	if got, err := s.SpansByTrace(t.Context(), one); err != nil || len(got) != 2 {
		t.Errorf("without its times: %d spans, %v", len(got), err)
	}
	if err := s.InsertSpans(t.Context(), "2", []Span{span(one, base.Add(time.Minute))}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.SpansByTrace(t.Context(), one); err != nil || len(got) != 3 {
		t.Errorf("with a part of its times: %d spans, %v", len(got), err)
	}
}

// TestRecordsOfALostCursor: what a spool hands out once more, cut into other batches under
// other tokens, is stored and counted once.
func TestRecordsOfALostCursor(t *testing.T) {
	s, m := open(t), newMaker(t)
	ref := m.reference(t, 100)
	w := writer(t, s, WriterConfig{Reference: func(string) *stats.Reference { return ref }})
	var records []collector.Record
	for i := range 30 {
		records = append(records, record(m.prediction(t, 1+i%3, base.Add(time.Duration(i)*time.Minute))))
	}
	schema := m.schemaRecord(t)
	write(t, w, "a", append([]collector.Record{schema}, records[:10]...)...)
	write(t, w, "b", records[10:20]...)
	before := cells(t, s)
	again := func(token string, records ...collector.Record) {
		t.Helper()
		if err := w.Write(t.Context(), &collector.Batch{Token: token, Records: records, Again: true}); err != nil {
			t.Fatal(err)
		}
	}
	again("c", append([]collector.Record{schema}, records[:15]...)...)
	again("d", records[15:20]...)
	sameCells(t, "handed out again", cells(t, s), before)
	again("e", records[18:]...)
	again("f", records[20:]...)
	rows := 0.0
	for i := range 30 {
		rows += float64(1 + i%3)
	}
	if n := number(t, s, "SELECT count() FROM predictions"); n != rows {
		t.Errorf("%v rows of %v", n, rows)
	}
	if n := number(t, s, "SELECT uniqExact(id, row) FROM predictions"); n != rows {
		t.Errorf("%v different rows of %v", n, rows)
	}
	if n := number(t, s, "SELECT sum(rows) FROM traffic_1m"); n != rows {
		t.Errorf("traffic counts %v of %v rows", n, rows)
	}
}
