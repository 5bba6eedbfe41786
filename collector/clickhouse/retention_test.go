package clickhouse

import (
	"context"
	"errors"
	stdmaps "maps"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

func nothing(context.Context, map[string]int64) error { return nil }

// aged writes one prediction of a model, with a label and an explanation, received so
// many days before now.
func (m *maker) aged(t *testing.T, now time.Time, model string, days int) (*collector.Prediction, []collector.Record) {
	t.Helper()
	return m.agedOf(t, now, "default", model, days)
}

func (m *maker) agedOf(t *testing.T, now time.Time, tenant, model string, days int) (*collector.Prediction, []collector.Record) {
	t.Helper()
	at := now.Add(-time.Duration(days) * wholeDay)
	p := m.prediction(t, 1, at)
	p.Tenant, p.Model, p.Digest = tenant, model, "digest-"+model
	p.ExternalIDs = []string{model + "-" + p.ID}
	return p, []collector.Record{
		record(p), explanation(t, p.ID, model),
		feedback(&collector.Feedback{PredictionID: p.ID, Tenant: tenant, Label: "1", ObservedAt: at, ReceivedAt: now}),
		feedback(&collector.Feedback{ExternalID: p.ExternalIDs[0], Tenant: tenant, Label: "1", ObservedAt: at, ReceivedAt: now}),
	}
}

// TestRetentionByModel keeps each model's rows for as long as it says, in months that
// are dropped whole and in such that are not.
func TestRetentionByModel(t *testing.T) {
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	type row struct {
		model  string
		days   int
		tenant string
	}
	var rows []row
	for _, tenant := range []string{"default", "acme"} {
		rows = append(rows, row{"loans", 1, tenant}, row{"loans", 29, tenant}, row{"loans", 32, tenant}, row{"loans", 200, tenant}, row{"delay", 32, tenant},
			row{"delay", 89, tenant}, row{"delay", 92, tenant}, row{"delay", 200, tenant}, row{"kept", 200, tenant})
	}
	acme := func(d time.Duration) map[string]time.Duration { return map[string]time.Duration{"acme": d} }
	for name, c := range map[string]struct {
		r    Retention
		gone func(row) bool
	}{
		"default and models": {Retention{Default: 90 * wholeDay, Models: map[string]time.Duration{"loans": 30 * wholeDay}}, func(r row) bool {
			return r.model == "loans" && r.days > 30 || r.days > 90
		}},
		"one is exempt": {Retention{Default: 90 * wholeDay, Models: map[string]time.Duration{"kept": 0}}, func(r row) bool { return r.days > 90 && r.model != "kept" }},
		"one only":      {Retention{Models: map[string]time.Duration{"loans": 30 * wholeDay}}, func(r row) bool { return r.model == "loans" && r.days > 30 }},
		"nothing":       {Retention{}, func(row) bool { return false }},
		"a tenant":      {Retention{Tenants: acme(30 * wholeDay)}, func(r row) bool { return r.tenant == "acme" && r.days > 30 }},
		"a tenant that is exempt": {Retention{Default: 90 * wholeDay, Models: map[string]time.Duration{"loans": 30 * wholeDay}, Tenants: acme(0)}, func(r row) bool {
			return r.model == "loans" && r.days > 30 || r.days > 90 && r.tenant != "acme"
		}},
		"the shorter holds": {Retention{Models: map[string]time.Duration{"loans": 30 * wholeDay, "kept": 0}, Tenants: acme(90 * wholeDay)}, func(r row) bool {
			return r.model == "loans" && r.days > 30 || r.tenant == "acme" && r.days > 90
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := open(t), newMaker(t)
			w := writer(t, s, WriterConfig{})
			written := map[row]*collector.Prediction{}
			records := []collector.Record{m.schemaRecord(t)}
			for _, r := range rows {
				p, list := m.agedOf(t, now, r.tenant, r.model, r.days)
				written[r] = p
				records = append(records, list...)
			}
			write(t, w, "b", records...)
			var gone int64
			for _, r := range rows {
				if c.gone(r) {
					gone++
				}
			}
			removed, err := s.Retain(t.Context(), c.r, now, nothing)
			if err != nil {
				t.Fatal(err)
			}
			if removed["predictions"] != gone || removed["feedback"] != 2*gone || removed["explanations"] != gone {
				t.Errorf("removed %v, want %d predictions with two labels and an explanation each", removed, gone)
			}
			for _, r := range rows {
				p := written[r]
				_, err := s.Prediction(t.Context(), collector.Ref{Tenant: r.tenant, ID: p.ID})
				if found := !errors.Is(err, collector.ErrNotFound); found == c.gone(r) {
					t.Errorf("%+v: %v", r, err)
				}
				labels := number(t, s, "SELECT count() FROM feedback WHERE target_id = ? OR external_id = ?", p.ID, p.ExternalIDs[0])
				explained := number(t, s, "SELECT count() FROM explanations WHERE target_id = ?", p.ID)
				if (labels == 0) != c.gone(r) || (explained == 0) != c.gone(r) {
					t.Errorf("%+v has %v labels and %v explanations", r, labels, explained)
				}
			}
			if got := number(t, s, "SELECT sum(rows) FROM traffic_1m"); got != float64(len(rows)) {
				t.Errorf("the rollup has %v rows: sums stay", got)
			}
			again, err := s.Retain(t.Context(), c.r, now, nothing)
			if err != nil || again["predictions"]+again["feedback"]+again["explanations"] != 0 {
				t.Errorf("the next run removed %v, %v", again, err)
			}
			if left, err := s.strings(t.Context(), "SELECT name FROM system.tables WHERE database = currentDatabase() AND match(name, '^(erase|count)_')"); err != nil || len(left) > 0 {
				t.Errorf("tables left: %v, %v", left, err)
			}
		})
	}
}

// TestRetentionOfSpans drops days of spans, with the table that finds them.
func TestRetentionOfSpans(t *testing.T) {
	s := open(t)
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	for i, days := range []int{0, 6, 7, 10, 400} {
		id := string(rune('a'+i)) + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		if err := s.InsertSpans(t.Context(), id, []Span{span(id, now.Add(-time.Duration(days)*wholeDay))}); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := s.Retain(t.Context(), Retention{Traces: 7 * wholeDay}, now, nothing)
	if err != nil || removed["otel_traces"] != 2 || removed["otel_traces_trace_id_ts"] != 2 {
		t.Fatalf("removed %v, %v", removed, err)
	}
	if got := number(t, s, "SELECT count() FROM otel_traces"); got != 3 {
		t.Errorf("%v spans are left", got)
	}
}

// TestRetentionAsksFirst tells how much it will remove, and removes nothing where that
// is refused.
func TestRetentionAsksFirst(t *testing.T) {
	s, m := open(t), newMaker(t)
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	_, list := m.aged(t, now, "loans", 40)
	junk := collector.Record{Kind: collector.KindPrediction, Version: 9, Payload: []byte{9}}
	write(t, writer(t, s, WriterConfig{}), "b", append(list, m.schemaRecord(t), junk)...)
	before := tables(t, s)
	no := errors.New("no")
	var told map[string]int64
	r := Retention{Default: 30 * wholeDay}
	if _, err := s.Retain(t.Context(), r, now, func(_ context.Context, counts map[string]int64) error {
		told = stdmaps.Clone(counts)
		return no
	}); !errors.Is(err, no) {
		t.Fatal(err)
	}
	if got := tables(t, s); !stdmaps.Equal(got, before) || told["predictions"] != 1 || told["feedback"] != 2 || told["explanations"] != 1 {
		t.Errorf("told %v; %v became %v", told, before, got)
	}
	// Its own clock is the server's: far enough ahead everything is past.
	removed, err := s.Retain(t.Context(), r, time.Now().Add(100*wholeDay), nothing)
	if err != nil || removed["undecodable"] != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if got := tables(t, s); got["predictions"]+got["feedback"]+got["explanations"]+got["undecodable"] != 0 {
		t.Errorf("left %v", got)
	}
}

func TestCutoffsAreWholeDays(t *testing.T) {
	now := time.Date(2026, 11, 20, 15, 4, 5, 0, time.FixedZone("x", 3*3600))
	if got, want := cutoff(now, 30*wholeDay), time.Date(2026, 10, 21, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("cutoff %s, want %s", got, want)
	}
	r := Retention{Default: 90 * wholeDay, Models: map[string]time.Duration{"a": 120 * wholeDay, "b": 10 * wholeDay}}
	if got := r.last(now); !got.Equal(cutoff(now, 120*wholeDay)) {
		t.Errorf("last %s", got)
	}
	r.Models["c"] = 0
	if got := r.last(now); !got.IsZero() || r.Of("", "c") != 0 || r.Of("", "b") != 10*wholeDay || r.Of("", "z") != 90*wholeDay {
		t.Errorf("with one exempt: last %s", got)
	}
}

// TestRetentionIsTheSameInSQL holds the condition on rows against Of, for tenants and
// models that have a time, have none, and are not named; and that of a table which does
// not know the tenant against the longest of all.
func TestRetentionIsTheSameInSQL(t *testing.T) {
	s := open(t)
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	exec(t, s, "CREATE TABLE ages (tenant LowCardinality(String), model LowCardinality(String), at DateTime64(3,'UTC'), days UInt32) ENGINE = MergeTree ORDER BY tenant")
	tenants, models := []string{"", "default", "acme", "it's", "kept"}, []string{"", "loans", "delay", "kept", "a'b"}
	for _, tenant := range tenants {
		for _, model := range models {
			for _, days := range []int{5, 15, 25, 45, 95, 700} {
				if err := s.conn.Exec(t.Context(), "INSERT INTO ages SELECT ?, ?, fromUnixTimestamp64Milli(?, 'UTC'), ?", tenant, model,
					now.Add(-time.Duration(days)*wholeDay).UnixMilli(), days); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	day := func(n int) time.Duration { return time.Duration(n) * wholeDay }
	for _, r := range []Retention{
		{},
		{Default: day(30)},
		{Models: map[string]time.Duration{"loans": day(10), "a'b": day(90)}},
		{Default: day(90), Models: map[string]time.Duration{"loans": day(10), "kept": 0}, Tenants: map[string]time.Duration{"acme": day(30), "kept": 0, "it's": day(20)}},
		{Default: day(20), Tenants: map[string]time.Duration{"acme": day(60), "default": day(10)}},
		{Tenants: map[string]time.Duration{"kept": 0}},
	} {
		known, unknown := r.past(now, "at", "tenant"), r.past(now, "at", "")
		rows, err := s.conn.Query(t.Context(), "SELECT toString(tenant), toString(model), days, toBool("+known.sql+"), toBool("+unknown.sql+") FROM ages", append(known.args, unknown.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := scanAll(rows, func() error {
			var tenant, model string
			var days uint32
			var got, gotAll bool
			if err := rows.Scan(&tenant, &model, &days, &got, &gotAll); err != nil {
				return err
			}
			n++
			at := now.Add(-day(int(days)))
			if want := Past(now, at, r.Of(tenant, model)); got != want {
				t.Errorf("%+v: %q of %q, %d days: %t, want %t", r, model, tenant, days, got, want)
			}
			if want := Past(now, at, r.OfModel(model)); gotAll != want {
				t.Errorf("%+v: %q of nobody known, %d days: %t, want %t", r, model, days, gotAll, want)
			}
			for _, tenant := range tenants {
				if gotAll && !Past(now, at, r.Of(tenant, model)) {
					t.Errorf("%+v: %q, %d days, is past and not of tenant %q", r, model, days, tenant)
				}
			}
			if Past(now, at, r.Longest()) && !(got && gotAll) || got && at.After(r.newest(now)) {
				t.Errorf("%+v: %q of %q, %d days: longest %s, newest %s", r, model, tenant, days, r.Longest(), r.newest(now))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n != len(tenants)*len(models)*6 {
			t.Errorf("%d rows", n)
		}
	}
}

// TestRetentionLeavesAnotherTenantsLabels: two tenants may have predictions of the same
// id elsewhere made.
func TestRetentionLeavesAnotherTenantsLabels(t *testing.T) {
	s, m := open(t), newMaker(t)
	now := time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)
	records := []collector.Record{m.schemaRecord(t)}
	for _, tenant := range []string{"acme", "beta"} {
		p, _ := m.agedOf(t, now, tenant, "loans", 50)
		p.ID = "order-1"
		records = append(records, record(p), feedback(&collector.Feedback{PredictionID: p.ID, Tenant: tenant, Model: "loans", Label: "1", ObservedAt: now, ReceivedAt: now}))
	}
	write(t, writer(t, s, WriterConfig{}), "b", records...)
	removed, err := s.Retain(t.Context(), Retention{Tenants: map[string]time.Duration{"acme": 30 * wholeDay}}, now, nothing)
	if err != nil || removed["predictions"] != 1 || removed["feedback"] != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	for _, table := range []string{"predictions", "feedback"} {
		if got := number(t, s, "SELECT countIf(tenant = 'beta') * 10 + count() FROM "+table); got != 11 {
			t.Errorf("%s: %v", table, got)
		}
	}
}
