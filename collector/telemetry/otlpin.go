package telemetry

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// Bounds of one OTLP request that is taken in.
const (
	maxOTLPBody  = 32 << 20 // bytes, decompressed
	maxOTLPSpans = 100_000
	maxOTLPDays  = 100 // that its spans begin on: each is a partition of the table
)

// Spans may begin in these years: the table's times hold no others.
var (
	earliestSpan = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latestSpan   = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// OTLPHandler takes traces from other programs by OTLP/HTTP (protobuf and JSON,
// plain or gzip; opentelemetry-proto, "OTLP/HTTP Request"). It answers when write
// has stored them; an error of write is 503, which clients by the protocol send
// again, so write must count the same spans once. Nothing of it is sent on.
func OTLPHandler(write func(ctx context.Context, spans []Span) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/x-protobuf" && kind != "application/json" {
			refuseOTLP(w, http.StatusUnsupportedMediaType, "the content type is neither application/x-protobuf nor application/json")
			return
		}
		req := ptraceotlp.NewExportRequest()
		if status, err := readOTLP(w, r, kind, req); err != nil {
			refuseOTLP(w, status, err.Error())
			return
		}
		spans, rejected := spansOf(req.Traces())
		if n, d := len(spans), days(spans); n > maxOTLPSpans || d > maxOTLPDays {
			refuseOTLP(w, http.StatusRequestEntityTooLarge,
				fmt.Sprintf("%d spans of %d days in one request, the limits are %d and %d", n, d, maxOTLPSpans, maxOTLPDays))
			return
		}
		if len(spans) > 0 {
			if err := write(r.Context(), spans); err != nil {
				w.Header().Set("Retry-After", "1")
				refuseOTLP(w, http.StatusServiceUnavailable, "the spans could not be stored now")
				return
			}
		}
		res := ptraceotlp.NewExportResponse()
		if rejected > 0 {
			res.PartialSuccess().SetRejectedSpans(rejected)
			res.PartialSuccess().SetErrorMessage("spans without a trace id, a span id or a time between 1970 and 2262 were left out")
		}
		body, err := res.MarshalProto()
		if kind == "application/json" {
			body, err = res.MarshalJSON()
		}
		if err != nil {
			refuseOTLP(w, http.StatusInternalServerError, "the answer could not be encoded")
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(body) // a client that has gone cannot be told so
	})
}

// refuseOTLP answers with an error as text: a Status in the protocol's own form
// is optional, and no client reads more of it than the message.
func refuseOTLP(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, message+"\n") // as above
}

// readOTLP reads and decodes the body.
func readOTLP(w http.ResponseWriter, r *http.Request, kind string, req ptraceotlp.ExportRequest) (status int, err error) {
	defer func() {
		if p := recover(); p != nil { // of the decoder, on bytes of a stranger's
			status, err = http.StatusBadRequest, errors.New("the body cannot be decoded")
		}
	}()
	var body io.Reader = http.MaxBytesReader(w, r.Body, maxOTLPBody)
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		if body, err = gzip.NewReader(body); err != nil {
			return http.StatusBadRequest, errors.New("the body is not gzip")
		}
	default:
		return http.StatusUnsupportedMediaType, errors.New("the content encoding is neither identity nor gzip")
	}
	data, err := io.ReadAll(io.LimitReader(body, maxOTLPBody+1))
	var large *http.MaxBytesError
	if errors.As(err, &large) || len(data) > maxOTLPBody {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", maxOTLPBody)
	}
	if err != nil {
		return http.StatusBadRequest, errors.New("the body could not be read whole")
	}
	if kind == "application/json" {
		err = req.UnmarshalJSON(data)
	} else {
		err = req.UnmarshalProto(data)
	}
	if err != nil {
		return http.StatusBadRequest, errors.New("the body is not an ExportTraceServiceRequest")
	}
	return http.StatusOK, nil
}

// spansOf turns traces into rows, and counts the spans that can be none.
func spansOf(traces ptrace.Traces) (spans []Span, rejected int64) {
	for _, rs := range traces.ResourceSpans().All() {
		resource := attributeTexts(rs.Resource().Attributes())
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				start := s.StartTimestamp().AsTime()
				if s.TraceID().IsEmpty() || s.SpanID().IsEmpty() || start.Before(earliestSpan) || !start.Before(latestSpan) {
					rejected++
					continue
				}
				spans = append(spans, spanOf(s, resource, ss.Scope()))
			}
		}
	}
	return spans, rejected
}

func days(spans []Span) int {
	seen := map[int64]bool{}
	for i := range spans {
		seen[spans[i].Timestamp.Unix()/86400] = true
	}
	return len(seen)
}

func spanOf(s ptrace.Span, resource map[string]string, scope pcommon.InstrumentationScope) Span {
	row := Span{
		Timestamp: s.StartTimestamp().AsTime(), TraceID: s.TraceID().String(), SpanID: s.SpanID().String(), ParentSpanID: s.ParentSpanID().String(),
		TraceState: s.TraceState().AsRaw(), SpanName: s.Name(), SpanKind: s.Kind().String(),
		ServiceName: resource["service.name"], ResourceAttributes: resource, ScopeName: scope.Name(), ScopeVersion: scope.Version(),
		SpanAttributes: attributeTexts(s.Attributes()), StatusCode: s.Status().Code().String(), StatusMessage: s.Status().Message(),
	}
	if end := s.EndTimestamp(); end > s.StartTimestamp() {
		row.Duration = uint64(end - s.StartTimestamp())
	}
	for _, e := range s.Events().All() {
		at := e.Timestamp().AsTime()
		if at.Before(earliestSpan) || !at.Before(latestSpan) {
			at = row.Timestamp
		}
		row.Events = append(row.Events, SpanEvent{Timestamp: at, Name: e.Name(), Attributes: attributeTexts(e.Attributes())})
	}
	for _, l := range s.Links().All() {
		row.Links = append(row.Links, SpanLink{TraceID: l.TraceID().String(), SpanID: l.SpanID().String(), TraceState: l.TraceState().AsRaw(), Attributes: attributeTexts(l.Attributes())})
	}
	return row
}

// attributeTexts renders attributes as the collector's exporter does; never nil.
func attributeTexts(m pcommon.Map) map[string]string {
	out := make(map[string]string, m.Len())
	for k, v := range m.All() {
		out[k] = v.AsString()
	}
	return out
}
