package telemetry

import (
	"maps"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/pellucid/pellucid/collector"
)

// Texts of spans are written as the collector's exporter writes them, without the values
// of the predictions of their traces. They are taken out before anything is put together:
// of bytes and of lists and maps, at any depth, nothing could be told afterwards.

// spansOf turns traces into rows, and counts the spans that can be none. by takes out of
// the texts of a trace what its predictions are made of.
func spansOf(traces ptrace.Traces, by map[pcommon.TraceID]collector.Scrubber) (spans []Span, rejected int64) {
	for _, rs := range traces.ResourceSpans().All() {
		// The resource and the scope are told by every trace's spans that are under them.
		var all []collector.Scrubber
		seen := map[pcommon.TraceID]bool{}
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				if x, ok := by[s.TraceID()]; ok && !seen[s.TraceID()] {
					seen[s.TraceID()] = true
					all = append(all, x)
				}
			}
		}
		resource := attributeTexts(rs.Resource().Attributes(), all)
		for _, ss := range rs.ScopeSpans().All() {
			scope := Span{
				ServiceName: resource["service.name"], ResourceAttributes: resource,
				ScopeName: programText(ss.Scope().Name(), all), ScopeVersion: programText(ss.Scope().Version(), all),
			}
			for _, s := range ss.Spans().All() {
				if !storable(s) {
					rejected++
					continue
				}
				spans = append(spans, spanOf(s, scope, by[s.TraceID()]))
			}
		}
	}
	return spans, rejected
}

// spanOf completes the row of a span that has what its resource and scope say.
func spanOf(s ptrace.Span, row Span, x collector.Scrubber) Span {
	placed(s, &row)
	row.TraceState, row.SpanName, row.StatusMessage = x.Text(s.TraceState().AsRaw()), x.Text(s.Name()), x.Text(s.Status().Message())
	by := []collector.Scrubber{x}
	if x.Empty() {
		by = nil
	}
	row.SpanAttributes = attributeTexts(s.Attributes(), by)
	for _, e := range s.Events().All() {
		attributes := attributeTexts(e.Attributes(), by)
		maps.DeleteFunc(attributes, func(key, _ string) bool { return spoken(e.Name(), key) })
		row.Events = append(row.Events, SpanEvent{Timestamp: eventTime(e, row.Timestamp), Name: x.Text(e.Name()), Attributes: attributes})
	}
	for _, l := range s.Links().All() {
		row.Links = append(row.Links, SpanLink{
			TraceID: l.TraceID().String(), SpanID: l.SpanID().String(), TraceState: x.Text(l.TraceState().AsRaw()), Attributes: attributeTexts(l.Attributes(), by),
		})
	}
	return row
}

// placed says what is no text of a span: its place in the trace, its times and its kind.
func placed(s ptrace.Span, row *Span) {
	row.Timestamp, row.TraceID, row.SpanID, row.ParentSpanID = s.StartTimestamp().AsTime(), s.TraceID().String(), s.SpanID().String(), s.ParentSpanID().String()
	row.SpanKind, row.StatusCode = s.Kind().String(), s.Status().Code().String()
	if end := s.EndTimestamp(); end > s.StartTimestamp() {
		row.Duration = uint64(end - s.StartTimestamp())
	}
}

// eventTime is an event's time, its span's where the table cannot hold it.
func eventTime(e ptrace.SpanEvent, span time.Time) time.Time {
	if at := e.Timestamp().AsTime(); !at.Before(earliestSpan) && at.Before(latestSpan) {
		return at
	}
	return span
}

// attributeTexts renders attributes as the collector's exporter does, but for the
// values of predictions; never nil.
func attributeTexts(m pcommon.Map, by []collector.Scrubber) map[string]string {
	out := make(map[string]string, m.Len())
	for k, v := range m.All() {
		if value(k) {
			continue
		}
		text := v.AsString()
		for _, x := range by {
			text, k = attributeText(k, v, text, x), keyText(k, x)
		}
		out[k] = text
	}
	return out
}

// keyText is a key, of which what has a dot is a program's.
func keyText(k string, x collector.Scrubber) string {
	if strings.Contains(k, ".") {
		return x.Long(k)
	}
	return x.Text(k)
}

// attributeText is text, which says v in part already cleaned by others, without the
// values that x takes out.
func attributeText(key string, v pcommon.Value, text string, x collector.Scrubber) string {
	if holdsBytes(v, x) {
		return collector.Masked
	}
	switch {
	case strings.HasPrefix(key, "service."), strings.HasPrefix(key, "telemetry."), strings.HasPrefix(key, "ml."), strings.HasPrefix(key, "gen_ai."):
		return x.Sure(text)
	}
	return x.Text(text)
}

// programText is a name or version of a program's own.
func programText(s string, by []collector.Scrubber) string {
	for _, x := range by {
		s = x.Sure(s)
	}
	return s
}

// holdsBytes reports whether bytes that may hold a value are in v.
func holdsBytes(v pcommon.Value, x collector.Scrubber) bool {
	switch v.Type() {
	case pcommon.ValueTypeBytes:
		return x.Bytes(v.Bytes().AsRaw())
	case pcommon.ValueTypeSlice:
		for _, one := range v.Slice().All() {
			if holdsBytes(one, x) {
				return true
			}
		}
	case pcommon.ValueTypeMap:
		for _, one := range v.Map().All() {
			if holdsBytes(one, x) {
				return true
			}
		}
	}
	return false
}
