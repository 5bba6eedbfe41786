package telemetry

import (
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Span is one row of otel_traces: the columns and the spelling of the
// OpenTelemetry Collector's ClickHouse exporter, so that rows written by us and
// by a collector are told apart by nothing.
type Span struct {
	Timestamp                      time.Time // start, to the nanosecond
	TraceID, SpanID, ParentSpanID  string    // lower-case hex; no parent is empty
	TraceState, SpanName, SpanKind string
	ServiceName                    string
	ResourceAttributes             map[string]string
	ScopeName, ScopeVersion        string
	SpanAttributes                 map[string]string
	Duration                       uint64 // nanoseconds
	StatusCode, StatusMessage      string
	Events                         []SpanEvent
	Links                          []SpanLink
}

// SpanEvent is one entry of the Events columns.
type SpanEvent struct {
	Timestamp  time.Time
	Name       string
	Attributes map[string]string
}

// SpanLink is one entry of the Links columns.
type SpanLink struct {
	TraceID, SpanID, TraceState string
	Attributes                  map[string]string
}

// kinds and statuses are spelled as the collector spells them.
var kinds = map[trace.SpanKind]string{
	trace.SpanKindInternal: "Internal",
	trace.SpanKindServer:   "Server",
	trace.SpanKindClient:   "Client",
	trace.SpanKindProducer: "Producer",
	trace.SpanKindConsumer: "Consumer",
}

var statuses = map[codes.Code]string{codes.Unset: "Unset", codes.Ok: "Ok", codes.Error: "Error"}

// newSpan copies an ended span into its row, but for the trace state: that is the caller's,
// who may have written anything into it.
func newSpan(s sdktrace.ReadOnlySpan) Span {
	c := s.SpanContext()
	row := Span{
		Timestamp:          s.StartTime(),
		TraceID:            c.TraceID().String(),
		SpanID:             c.SpanID().String(),
		SpanName:           s.Name(),
		SpanKind:           kinds[s.SpanKind()],
		ResourceAttributes: resourceTexts(s.Resource()),
		ScopeName:          s.InstrumentationScope().Name,
		ScopeVersion:       s.InstrumentationScope().Version,
		SpanAttributes:     texts(s.Attributes()),
		Duration:           uint64(max(0, s.EndTime().Sub(s.StartTime()))),
		StatusCode:         statuses[s.Status().Code],
		StatusMessage:      s.Status().Description,
	}
	if p := s.Parent(); p.HasSpanID() {
		row.ParentSpanID = p.SpanID().String()
	}
	row.ServiceName = row.ResourceAttributes["service.name"]
	for _, e := range s.Events() {
		row.Events = append(row.Events, SpanEvent{Timestamp: e.Time, Name: e.Name, Attributes: texts(e.Attributes)})
	}
	for _, l := range s.Links() {
		row.Links = append(row.Links, SpanLink{
			TraceID: l.SpanContext.TraceID().String(), SpanID: l.SpanContext.SpanID().String(),
			Attributes: texts(l.Attributes),
		})
	}
	return row
}

// described is a resource as the table holds it.
type described struct {
	of    *resource.Resource
	texts map[string]string
}

// lastResource is the last one rendered: a process has one, which every span bears.
var lastResource atomic.Pointer[described]

// resourceTexts renders a resource. The map is shared: nobody writes to it.
func resourceTexts(r *resource.Resource) map[string]string {
	if d := lastResource.Load(); d != nil && d.of == r {
		return d.texts
	}
	d := &described{r, texts(r.Attributes())}
	lastResource.Store(d)
	return d.texts
}

// texts renders attributes as the table holds them; never nil.
func texts(list []attribute.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}
