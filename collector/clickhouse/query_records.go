package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// Explanations returns the stored explanations of a prediction's rows ("<id>" of
// a request: of all its rows), oldest first.
func (s *Store) Explanations(ctx context.Context, tenant, id string) ([]collector.Explanation, error) {
	base, row := splitRowID(id)
	where, args := "tenant = ? AND target_id = ?", []any{tenant, base}
	if base != id {
		where += " AND target_row = ?"
		args = append(args, row)
	}
	docs, err := s.strings(ctx, "SELECT doc FROM explanations FINAL WHERE "+where+" ORDER BY stored_at, target_row, method, output LIMIT 10000", args...)
	if err != nil {
		return nil, fmt.Errorf("find explanations of %q: %w", id, err)
	}
	out := make([]collector.Explanation, 0, len(docs))
	for _, d := range docs {
		e, err := collector.DecodeExplanation([]byte(d))
		if err != nil {
			return nil, fmt.Errorf("find explanations of %q: %w", id, err)
		}
		out = append(out, *e)
	}
	return out, nil
}

// Span is one row of otel_traces: the columns of the OpenTelemetry Collector's
// ClickHouse exporter. Ids are lower-case hex.
type Span struct {
	Start              time.Time
	Duration           time.Duration
	TraceID, SpanID    string
	ParentSpanID       string
	TraceState         string
	Name, Kind         string // Kind is "Server", "Internal", "Client", ...
	ServiceName        string
	Resource           map[string]string
	ScopeName, Version string
	Attributes         map[string]string
	StatusCode         string // "Unset", "Ok" or "Error"
	StatusMessage      string
	Events             []SpanEvent
	Links              []SpanLink
}

// SpanEvent is one event of a span.
type SpanEvent struct {
	Time       time.Time
	Name       string
	Attributes map[string]string
}

// SpanLink is one link of a span.
type SpanLink struct {
	TraceID, SpanID, TraceState string
	Attributes                  map[string]string
}

const spanColumns = "Timestamp, TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind, ServiceName, ResourceAttributes, ScopeName, ScopeVersion," +
	" SpanAttributes, Duration, StatusCode, StatusMessage, Events.Timestamp, Events.Name, Events.Attributes, Links.TraceId, Links.SpanId, Links.TraceState, Links.Attributes"

// InsertSpans stores spans. token makes a repeated call count once.
func (s *Store) InsertSpans(ctx context.Context, token string, spans []Span) error {
	if len(spans) == 0 {
		return nil
	}
	err := s.sendSpans(ctx, token, spans)
	if err != nil {
		s.spansUnsure.Store(time.Now().UnixNano())
		return fmt.Errorf("insert spans: %w", unavailable(err))
	}
	if time.Since(time.Unix(0, s.spansUnsure.Load())) > spansUnsureFor {
		return nil
	}
	// A server that was killed may have noted the token of rows which it then lost, and
	// take what its sender sends again for a repeat.
	lost, err := s.spansLost(ctx, spans)
	if err == nil && len(lost) > 0 {
		var own string
		if own, err = prefixOf("spans_"); err == nil {
			err = s.sendSpans(ctx, own, lost)
		}
	}
	if err != nil {
		return fmt.Errorf("insert spans that the server has lost: %w", unavailable(err))
	}
	return nil
}

// spansUnsureFor is for how long after the start, or an insert that failed, every insert
// of spans is looked for: so long senders try again.
const spansUnsureFor = 15 * time.Minute

func (s *Store) sendSpans(ctx context.Context, token string, spans []Span) error {
	b := newSpanBlock()
	for i := range spans {
		b.add(&spans[i])
	}
	return s.sendBlock(ctx, token, "INSERT INTO otel_traces ("+spanColumns+")", b.columns(), len(spans))
}

// spansLost returns those of the spans that are not stored.
func (s *Store) spansLost(ctx context.Context, spans []Span) ([]Span, error) {
	var lost []Span
	for part := range slices.Chunk(spans, askedIDs/2) {
		have, first, last := map[string]bool{}, part[0].Start, part[0].Start
		var traces []string
		for i := range part {
			sp := &part[i]
			if sp.Start.Before(first) {
				first = sp.Start
			}
			if sp.Start.After(last) {
				last = sp.Start
			}
			if !have[sp.TraceID] {
				have[sp.TraceID] = true
				traces = append(traces, sp.TraceID)
			}
		}
		clear(have)
		found, err := s.strings(ctx, "SELECT DISTINCT concat(TraceId, SpanId) FROM otel_traces WHERE TraceId IN (?) AND Timestamp >= ? AND Timestamp <= ?",
			traces, first.Add(-time.Second), last.Add(time.Second))
		if err != nil {
			return nil, err
		}
		for _, key := range found {
			have[key] = true
		}
		for i := range part {
			if !have[part[i].TraceID+part[i].SpanID] {
				lost = append(lost, part[i])
			}
		}
	}
	return lost, nil
}

func present(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// SpansByTrace returns the spans of a trace in order of their start.
func (s *Store) SpansByTrace(ctx context.Context, traceID string) ([]Span, error) {
	traceID = strings.ToLower(traceID)
	// The narrow table bounds the time first, with an hour to spare: a server that is
	// killed may lose rows of it whose spans it keeps. Of a trace it does not know at all
	// every day is looked at.
	rows, err := s.conn.Query(ctx, "WITH (SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId = ?) AS first,"+
		" (SELECT max(End) FROM otel_traces_trace_id_ts WHERE TraceId = ?) AS last SELECT "+spanColumns+
		" FROM otel_traces WHERE TraceId = ? AND (toUnixTimestamp(last) = 0 OR Timestamp >= first - 3600 AND Timestamp <= last + 3600) ORDER BY Timestamp, SpanId LIMIT 100000", traceID, traceID, traceID)
	if err != nil {
		return nil, fmt.Errorf("find spans of trace %q: %w", traceID, unavailable(err))
	}
	defer rows.Close()
	var out []Span
	for rows.Next() {
		var (
			x                           Span
			duration                    uint64
			eventTimes                  []time.Time
			eventNames                  []string
			eventAttrs, linkAttrs       []map[string]string
			linkTraces, linkIDs, linkTS []string
		)
		err := rows.Scan(&x.Start, &x.TraceID, &x.SpanID, &x.ParentSpanID, &x.TraceState, &x.Name, &x.Kind, &x.ServiceName, &x.Resource, &x.ScopeName, &x.Version,
			&x.Attributes, &duration, &x.StatusCode, &x.StatusMessage, &eventTimes, &eventNames, &eventAttrs, &linkTraces, &linkIDs, &linkTS, &linkAttrs)
		if err != nil {
			return nil, fmt.Errorf("find spans of trace %q: %w", traceID, err)
		}
		x.Start, x.Duration = x.Start.UTC(), time.Duration(duration)
		for i := range eventTimes {
			x.Events = append(x.Events, SpanEvent{eventTimes[i].UTC(), eventNames[i], eventAttrs[i]})
		}
		for i := range linkTraces {
			x.Links = append(x.Links, SpanLink{linkTraces[i], linkIDs[i], linkTS[i], linkAttrs[i]})
		}
		out = append(out, x)
	}
	return out, unavailable(rows.Err())
}

// AlertEvent is one change of an alert's state.
type AlertEvent struct {
	// ID makes a repeated insert of the event count once.
	ID                         string
	Time                       time.Time
	Tenant, Rule, Fingerprint  string
	Model, ModelVersion, State string
	Value                      float64
	Labels, Annotations        map[string]string
}

// InsertAlertEvents stores events; token makes a repeated call count once.
func (s *Store) InsertAlertEvents(ctx context.Context, token string, events []AlertEvent) error {
	if len(events) == 0 {
		return nil
	}
	err := s.sendRows(ctx, token, "INSERT INTO alert_events (id, time, tenant, rule, fingerprint, model, version, state, value, labels, annotations)", len(events), func(i int) []any {
		e := &events[i]
		return []any{e.ID, e.Time.UTC(), e.Tenant, e.Rule, e.Fingerprint, e.Model, e.ModelVersion, e.State, e.Value, present(e.Labels), present(e.Annotations)}
	})
	if err != nil {
		return fmt.Errorf("insert alert events: %w", unavailable(err))
	}
	return nil
}

// AlertEvents returns the events of [from, to), newest first, of one rule where
// rule is not empty.
func (s *Store) AlertEvents(ctx context.Context, tenant, rule string, from, to time.Time, limit int) ([]AlertEvent, error) {
	if limit <= 0 || limit > maxLimit {
		limit = maxLimit
	}
	rows, err := s.conn.Query(ctx, "SELECT id, time, tenant, rule, fingerprint, model, version, state, value, labels, annotations FROM alert_events FINAL"+
		" WHERE tenant = ? AND (? = '' OR rule = ?) AND time >= fromUnixTimestamp64Micro(?, 'UTC') AND time < fromUnixTimestamp64Micro(?, 'UTC')"+
		" ORDER BY time DESC, id DESC LIMIT ?", tenant, rule, rule, from.UnixMicro(), to.UnixMicro(), limit)
	if err != nil {
		return nil, fmt.Errorf("read alert events: %w", unavailable(err))
	}
	defer rows.Close()
	var out []AlertEvent
	for rows.Next() {
		var e AlertEvent
		if err := rows.Scan(&e.ID, &e.Time, &e.Tenant, &e.Rule, &e.Fingerprint, &e.Model, &e.ModelVersion, &e.State, &e.Value, &e.Labels, &e.Annotations); err != nil {
			return nil, fmt.Errorf("read alert events: %w", err)
		}
		e.Time = e.Time.UTC()
		out = append(out, e)
	}
	return out, unavailable(rows.Err())
}

// AlertQuery asks for alerts by what became of them. A zero field means any.
type AlertQuery struct {
	Tenant, Model, Rule string
	// State is "firing" for alerts that have not been resolved, or "resolved".
	State string
	// From and To select the alerts that were firing at some time of [From, To).
	From, To time.Time
	Limit    int
	// Cursor is the Next of the page before.
	Cursor string
}

// PastAlert is an alert from the event that began it to the one that ended it.
type PastAlert struct {
	Rule, Fingerprint, Model, ModelVersion string
	// Start is when it began to fire (zero where only its end is known), End when
	// it was resolved (zero while it fires).
	Start, End time.Time
	// Value and Annotations are those it began with, Last the ones it ended with.
	Value               float64
	Labels, Annotations map[string]string
	Last                map[string]string
}

// pastAlerts makes one row of all the events of an alert up to its end: nth is
// how often the alert had been resolved before. began orders the rows; it falls
// back on the end where no event tells of the beginning.
const pastAlerts = `SELECT any_rule, fingerprint, any_model, first_version, start, end, first_value, first_labels, first_annotations, last_annotations, began, nth FROM (
 SELECT fingerprint, nth, any(rule) AS any_rule, any(model) AS any_model,
  argMin(version, (state, time)) AS first_version, argMin(value, (state, time)) AS first_value, argMin(labels, (state, time)) AS first_labels,
  argMin(annotations, (state, time)) AS first_annotations, argMaxIf(annotations, time, state = 'resolved') AS last_annotations,
  minIf(time, state = 'firing') AS start, maxIf(time, state = 'resolved') AS end, if(toUnixTimestamp64Micro(start) = 0, end, start) AS began
 FROM (SELECT rule, fingerprint, model, version, state, time, value, labels, annotations, toUInt32(countIf(state = 'resolved')
    OVER (PARTITION BY fingerprint ORDER BY time, state ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - (state = 'resolved')) AS nth
  FROM alert_events FINAL WHERE tenant = ? AND (? = '' OR model = ?) AND (? = '' OR rule = ?) AND state IN ('firing', 'resolved'))
 GROUP BY fingerprint, nth)`

// PastAlerts returns the alerts that a query selects, the newest first, and the
// cursor of the next page ("" on the last).
func (s *Store) PastAlerts(ctx context.Context, q AlertQuery) ([]PastAlert, string, error) {
	where, args := []string{"true"}, []any{q.Tenant, q.Model, q.Model, q.Rule, q.Rule}
	add := func(sql string, arg ...any) {
		where, args = append(where, sql), append(args, arg...)
	}
	switch q.State {
	case "":
	case "firing":
		add("toUnixTimestamp64Micro(end) = 0")
	case "resolved":
		add("toUnixTimestamp64Micro(end) != 0")
	default:
		return nil, "", fmt.Errorf("%w: state %q is neither firing nor resolved", ErrWhere, q.State)
	}
	if !q.From.IsZero() {
		add("(toUnixTimestamp64Micro(end) = 0 OR end > fromUnixTimestamp64Micro(?, 'UTC'))", q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		add("began < fromUnixTimestamp64Micro(?, 'UTC')", q.To.UnixMicro())
	}
	if q.Cursor != "" {
		c, err := parseCursor(q.Cursor)
		if err != nil {
			return nil, "", err
		}
		add("(began, fingerprint, nth) < (fromUnixTimestamp64Micro(?, 'UTC'), ?, ?)", c.micros, c.id, c.row)
	}
	limit := q.Limit
	if limit <= 0 || limit > maxLimit {
		limit = maxLimit
	}
	return s.pastAlerts(ctx, pastAlerts+" WHERE "+strings.Join(where, " AND ")+" ORDER BY began DESC, fingerprint DESC, nth DESC LIMIT ?", limit, append(args, limit+1))
}

func (s *Store) pastAlerts(ctx context.Context, query string, limit int, args []any) (out []PastAlert, next string, err error) {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("read past alerts: %w", unavailable(err))
	}
	defer rows.Close()
	var last cursor
	for rows.Next() {
		var (
			a          PastAlert
			began      time.Time
			start, end time.Time
			nth        uint32
		)
		if err := rows.Scan(&a.Rule, &a.Fingerprint, &a.Model, &a.ModelVersion, &start, &end, &a.Value, &a.Labels, &a.Annotations, &a.Last, &began, &nth); err != nil {
			return nil, "", fmt.Errorf("read past alerts: %w", err)
		}
		if len(out) == limit {
			next = last.String()
			break
		}
		a.Start, a.End = known(start), known(end)
		last = cursor{began.UnixMicro(), a.Fingerprint, nth}
		out = append(out, a)
	}
	return out, next, unavailable(rows.Err())
}

// known turns the time that stands for none, 1970, into Go's own.
func known(t time.Time) time.Time {
	if t.Unix() == 0 {
		return time.Time{}
	}
	return t.UTC()
}
