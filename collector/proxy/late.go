package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/pellucid/pellucid/collector"
)

// LateSpan is a span that is made when it is over: whether a call failed or was slow
// is known only then, and most calls are neither.
type LateSpan struct {
	// Own is what the span is known by already; Parent is invalid for a root.
	Own, Parent trace.SpanContext
	Name        string
	Kind        trace.SpanKind
	Start, End  time.Time
	Attributes  []attribute.KeyValue
	Code        codes.Code
	Description string
}

// refusals bounds the spans kept of refused requests, for each status from 400 to 499
// alone: what many do wrong does not hide what one does.
type refusals [100]*rate.Limiter

func (r *refusals) limit(perSecond int) {
	for i := range r {
		if perSecond > 0 {
			r[i] = rate.NewLimiter(rate.Limit(perSecond), perSecond)
		}
	}
}

// keepsFailed reports whether a request that ended with that status is one whose spans
// are kept; f may be nil.
func (s *Server) keepsFailed(status int, f *failure) bool {
	if f != nil && f.shed {
		status = http.StatusTooManyRequests // a flood of these has no more spans than one of 4xx
	}
	if status < http.StatusBadRequest || status >= http.StatusInternalServerError {
		return status >= http.StatusInternalServerError
	}
	l := s.refusals[status-http.StatusBadRequest]
	return l != nil && l.Allow()
}

// keepsLate reports whether the spans of a call are kept that the sampler did not
// choose. It is asked once, while the call's span is still open.
func (k *call) keepsLate(status int, took time.Duration, f *failure) bool {
	if k.s.cfg.Keep == nil || k.span.IsRecording() {
		return false
	}
	return k.s.cfg.KeepSlower > 0 && took > k.s.cfg.KeepSlower || k.s.keepsFailed(status, f)
}

// keepLate keeps the spans of a call. Its stages are where its record has them.
func (k *call) keepLate(status int, took time.Duration, f *failure) {
	root := LateSpan{
		Own: k.sc, Parent: k.caller, Name: k.name(), Kind: trace.SpanKindServer, Start: k.start, End: k.start.Add(took),
		Attributes: []attribute.KeyValue{attrPredictionID.String(k.id), attrHTTPStatus.Int(status)},
	}
	if k.c != nil {
		root.Attributes = append(root.Attributes, k.httpAttributes()...)
	}
	if k.v != nil {
		root.Attributes = append(root.Attributes, k.modelAttributes()...)
	}
	root.failed(status, f)
	k.s.cfg.Keep(root)
	if k.v == nil {
		return
	}
	at := k.start.Add(time.Duration(k.stages.Decode))
	for _, stage := range [...]struct {
		name string
		took int64
	}{{"model.run", k.stages.Model}, {"capture", k.stages.Capture}} {
		if stage.took == 0 {
			continue
		}
		end := at.Add(time.Duration(stage.took))
		k.s.cfg.Keep(LateSpan{
			Own: k.sc.WithSpanID(newSpanID()), Parent: k.sc, Name: stage.name, Kind: trace.SpanKindInternal, Start: at, End: end, Attributes: k.modelAttributes(),
		})
		at = end.Add(time.Duration(k.stages.Encode))
	}
}

// failed notes how a span's request failed; f may be nil where nothing but the status
// is known.
func (l *LateSpan) failed(status int, f *failure) {
	if status < http.StatusBadRequest {
		return
	}
	l.Attributes = append(l.Attributes, attrErrorType.String(strconv.Itoa(status)))
	if status < http.StatusInternalServerError {
		return
	}
	l.Code, l.Description = codes.Error, http.StatusText(status)
	if f != nil {
		l.Description = f.recorded()
	}
}

// ended counts a request that was refused, whatever route of the shared server it came by,
// and keeps a span of one that failed and has none. Where the answer is still to be written
// it names the trace.
func (s *Server) ended(c echo.Context, start time.Time, err error) {
	res := c.Response()
	if err == nil && res.Status < http.StatusBadRequest {
		return
	}
	r := c.Request()
	f, status := (*failure)(nil), res.Status
	var he *echo.HTTPError
	switch {
	case err == nil || res.Committed:
	case ours(r.URL.Path):
		f = asFailure(err)
		status = f.status
	case errors.As(err, &he):
		status = he.Code
	default:
		status = http.StatusInternalServerError
	}
	route := pattern(c)
	s.Refused(r.Context(), route, status)
	if s.cfg.Keep == nil || res.Header()["Traceparent"] != nil {
		return // who has told a trace has seen to its spans
	}
	name := method(r)
	attributes := []attribute.KeyValue{attrHTTPMethod.String(name)}
	if route != "" {
		name += " " + route
		attributes = append(attributes, attrHTTPRoute.String(route))
	}
	own := s.keepFailed(extract(context.Background(), propagation.HeaderCarrier(r.Header)), name, start, status, f, attributes)
	if own.IsValid() && !res.Committed {
		res.Header().Set("Traceparent", traceparent(own))
	}
}

// pattern is the route that a request's path fits, "" where none does: echo then has that
// of a route nearby.
func pattern(c echo.Context) string {
	if reflect.ValueOf(c.Handler()).Pointer() == reflect.ValueOf(echo.NotFoundHandler).Pointer() {
		return ""
	}
	return c.Path()
}

// Refused counts a request that was answered with that status, if it is one from 400 to
// 499. route is one that is served, or "" where there is none of what was asked.
func (s *Server) Refused(ctx context.Context, route string, status int) {
	if status < http.StatusBadRequest || status >= http.StatusInternalServerError {
		return
	}
	s.countRefused(ctx, route, status)
}

func (s *Server) countRefused(ctx context.Context, route string, status int) {
	if route == "" {
		route = "none"
	}
	s.metrics.refused.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(attrHTTPRoute.String(route), attrHTTPStatus.Int(status))))
}

// Unread is a call by gRPC that was answered before a handler saw it.
type Unread struct {
	// Carrier has the caller's trace context.
	Carrier propagation.TextMapCarrier
	// Method is one that is served, or "" where there is none of what was asked; Infers says
	// that it asks for predictions.
	Method string
	Infers bool
	Start  time.Time
	// Status is what it was answered with in HTTP: 4xx, or 503 where too many were under way.
	Status int
}

// Unread counts such a call, and keeps a span of it, as of one that a handler refused.
func (s *Server) Unread(x Unread) {
	ctx := context.Background()
	if x.Infers {
		s.metrics.request(ctx, labels{route: string(collector.RouteInfer), status: x.Status}, time.Since(x.Start).Seconds(), 0, 0)
	}
	s.countRefused(ctx, x.Method, x.Status)
	if s.cfg.Keep == nil {
		return
	}
	name := strings.TrimPrefix(x.Method, "/")
	if name == "" {
		name = http.MethodPost // as by HTTP: what else was asked for may be anything
	}
	var f *failure
	if x.Status == http.StatusServiceUnavailable {
		f = tooMany()
	}
	s.keepFailed(extract(ctx, x.Carrier), name, x.Start, x.Status, f, nil)
}

// KeepFailed keeps a span of a request that did not come by HTTP, is no inference and
// failed with what is that status in HTTP.
func (s *Server) KeepFailed(carrier propagation.TextMapCarrier, name string, start time.Time, status int) {
	if s.cfg.Keep != nil {
		s.keepFailed(extract(context.Background(), carrier), name, start, status, nil, nil)
	}
}

// keepFailed keeps a failed request's span and returns its ids, which are not valid
// where it is not kept.
func (s *Server) keepFailed(ctx context.Context, name string, start time.Time, status int, f *failure, attributes []attribute.KeyValue) trace.SpanContext {
	if !s.keepsFailed(status, f) {
		return trace.SpanContext{}
	}
	caller := trace.SpanContextFromContext(ctx)
	l := LateSpan{
		Own: ownSpanContext(caller), Parent: caller, Name: name, Kind: trace.SpanKindServer, Start: start, End: time.Now(),
		Attributes: append(attributes, attrHTTPStatus.Int(status)),
	}
	l.failed(status, f)
	s.cfg.Keep(l)
	return l.Own
}

// method is a request's method as it may be written down: one that is not HTTP's own
// may be anything.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

func newSpanID() (id trace.SpanID) {
	putUint64(id[:], rand.Uint64()|1)
	return id
}
