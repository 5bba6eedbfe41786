package clickhouse

import (
	"context"
	"fmt"
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
	err := s.sendRows(ctx, token, "INSERT INTO otel_traces ("+spanColumns+")", len(spans), func(i int) []any {
		x := &spans[i]
		var (
			eventTimes                  = make([]time.Time, len(x.Events))
			eventNames                  = make([]string, len(x.Events))
			eventAttrs                  = make([]map[string]string, len(x.Events))
			linkTraces, linkIDs, linkTS = make([]string, len(x.Links)), make([]string, len(x.Links)), make([]string, len(x.Links))
			linkAttrs                   = make([]map[string]string, len(x.Links))
		)
		for k, e := range x.Events {
			eventTimes[k], eventNames[k], eventAttrs[k] = e.Time.UTC(), e.Name, present(e.Attributes)
		}
		for k, l := range x.Links {
			linkTraces[k], linkIDs[k], linkTS[k], linkAttrs[k] = l.TraceID, l.SpanID, l.TraceState, present(l.Attributes)
		}
		return []any{
			x.Start.UTC(), x.TraceID, x.SpanID, x.ParentSpanID, x.TraceState, x.Name, x.Kind, x.ServiceName, present(x.Resource), x.ScopeName, x.Version,
			present(x.Attributes), uint64(max(x.Duration, 0)), x.StatusCode, x.StatusMessage, eventTimes, eventNames, eventAttrs, linkTraces, linkIDs, linkTS, linkAttrs,
		}
	})
	if err != nil {
		return fmt.Errorf("insert spans: %w", unavailable(err))
	}
	return nil
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
	// The narrow table bounds the time first; its ends are whole seconds.
	rows, err := s.conn.Query(ctx, "WITH (SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId = ?) AS first,"+
		" (SELECT max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId = ?) AS last SELECT "+spanColumns+
		" FROM otel_traces WHERE TraceId = ? AND Timestamp >= first AND Timestamp <= last ORDER BY Timestamp, SpanId LIMIT 100000", traceID, traceID, traceID)
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
