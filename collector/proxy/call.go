package proxy

import (
	"bytes"
	"context"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// call is one inference or explanation request on its way through the server.
// It belongs to the request's goroutine.
type call struct {
	s    *Server
	c    echo.Context    // nil for one that came by gRPC
	ctx  context.Context //nolint:containedctx // a call lives exactly as long as its request
	span trace.Span
	sc   trace.SpanContext
	// caller is the span that the call is a part of elsewhere, if any.
	caller trace.SpanContext
	start  time.Time
	route  collector.Route
	// turnedAway says that it goes no further from the start: a flood of such has few spans,
	// whatever is sampled.
	turnedAway bool

	id       string
	received time.Time
	body     *bytes.Buffer           // nil once it is decoded
	v        *collector.ModelVersion // nil until it is found
	bound    engine.Values           // nil until the inputs are known to fit the model

	rows        int
	times       []time.Time
	externalIDs []string
	stages      collector.Stages
	attempts    []collector.Attempt
	in, out     int64 // bytes
	captured    string
	passedOn    bool   // the answer goes out as it is made, before it is recorded
	parent      string // the traceparent of the answer
	record      collector.Prediction
	// values backs the answer's header values.
	values [4]string
	// now backs the times of a record whose request has none.
	now [1]time.Time
}

// Options of spans, made once.
var (
	serverSpan   = trace.WithSpanKind(trace.SpanKindServer)
	internalSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindInternal)}
)

// header sets a header of the answer without a slice of its own; slot is its
// place in values.
func (k *call) header(slot int, name, value string) {
	k.values[slot] = value
	if k.c == nil {
		return // it is read from values
	}
	k.c.Response().Header()[name] = k.values[slot : slot+1 : slot+1]
}

// handler answers a call whose version has been found.
type handler func(*call) error

// byPath returns the route of a model named in the path.
func (s *Server) byPath(route collector.Route, answer handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		model, version, err := names(c)
		if err != nil {
			return err
		}
		return s.call(c, route, model, version, answer)
	}
}

// call runs one request from the look-up of its model to its last byte.
func (s *Server) call(c echo.Context, route collector.Route, model, version string, answer handler) error {
	k := &call{s: s, c: c, start: time.Now(), route: route, rows: 1, captured: "none"}
	s.metrics.active.Add(1)
	defer s.metrics.active.Add(-1)
	if err := k.identify(); err != nil {
		return err
	}
	v, err := s.find(c.Request().Context(), model, version)
	if err == nil {
		k.v = v
	}
	r := c.Request()
	k.trace(r.Context(), propagation.HeaderCarrier(r.Header))
	if k.span.IsRecording() {
		k.span.SetAttributes(k.httpAttributes()...)
	}
	if err == nil {
		// The body is read before a place is taken: who sends slowly holds up
		// nobody but himself.
		k.body, err = s.readBody(c)
	}
	if err == nil {
		err = k.again(model, version)
	}
	if err == nil {
		err = k.admit(answer)
	}
	k.drop()
	k.end(err)
	return nil
}

// again looks the version up once more when the body is there: what is private in it may
// have changed while somebody sent slowly.
func (k *call) again(model, version string) error {
	v, err := k.s.find(k.c.Request().Context(), model, version)
	if err != nil {
		k.v = nil
		return err
	}
	if v != k.v {
		k.v = v
		if k.span.IsRecording() {
			k.span.SetAttributes(k.modelAttributes()...)
		}
	}
	return nil
}

// httpAttributes describe the request. A path with a model that nobody knows may be
// anything, and is left out; its route is there.
func (k *call) httpAttributes() []attribute.KeyValue {
	r := k.c.Request()
	list := []attribute.KeyValue{attrHTTPMethod.String(method(r)), attrHTTPRoute.String(k.c.Path())}
	if k.v != nil {
		list = append(list, attrURLPath.String(r.URL.Path))
	}
	return list
}

// drop gives the body's buffer back once its bytes are not needed any more.
func (k *call) drop() {
	if k.body != nil {
		putBuffer(k.body)
		k.body = nil
	}
}

// identify gives the request its id and the time that is inside it.
func (k *call) identify() error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	k.id = id.String()
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	k.received = time.UnixMilli(ms).UTC()
	return nil
}

// trace starts the server span and puts the ids on the answer. Every answer has
// a trace id, also where no tracing is configured.
func (k *call) trace(ctx context.Context, from propagation.TextMapCarrier) {
	ctx = extract(ctx, from)
	tracer := k.s.tracer
	if k.turnedAway {
		tracer = noop.Tracer{}
	}
	k.ctx, k.span = tracer.Start(ctx, k.name(), serverSpan, trace.WithTimestamp(k.start))
	k.sc, k.caller = k.span.SpanContext(), trace.SpanContextFromContext(ctx)
	if !k.sc.IsValid() || k.sc.SpanID() == k.caller.SpanID() {
		k.sc = ownSpanContext(k.caller)
		k.ctx = trace.ContextWithSpanContext(k.ctx, k.sc)
	}
	k.parent = traceparent(k.sc)
	k.header(0, "Traceparent", k.parent)
	k.header(1, "Pellucid-Prediction-Id", k.id)
	if !k.span.IsRecording() {
		return
	}
	k.span.SetAttributes(attrPredictionID.String(k.id))
	if k.v != nil {
		k.span.SetAttributes(k.modelAttributes()...)
	}
}

// name is that of the call's span. A name out of the request would make as many as
// there are typos.
func (k *call) name() string {
	name := "predict"
	if k.route == collector.RouteExplain {
		name = "explain"
	}
	if k.v != nil {
		name += " " + k.v.Name
	}
	return name
}

// child starts a span below the call's. Below one that is not kept there is none:
// the SDK would make one only to forget it.
func (k *call) child(name string) (context.Context, trace.Span) {
	if !k.span.IsRecording() {
		return k.ctx, noop.Span{}
	}
	return k.s.tracer.Start(k.ctx, name, internalSpan...)
}

func (k *call) modelAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attrModelName.String(k.v.Name), attrModelVersion.String(k.v.Version), attrModelDigest.String(k.v.Digest),
		attrFramework.String(k.v.Info.Format), attrTask.String(string(k.v.Info.Task)),
	}
}

// ownSpanContext makes ids where no tracer does, in the caller's trace if there
// is one. They are not secret, so they need no cryptographic randomness.
func ownSpanContext(parent trace.SpanContext) trace.SpanContext {
	var t trace.TraceID
	var sp trace.SpanID
	putUint64(t[:8], rand.Uint64())
	putUint64(t[8:], rand.Uint64()|1)
	putUint64(sp[:], rand.Uint64()|1)
	cfg := trace.SpanContextConfig{TraceID: t, SpanID: sp}
	if parent.IsValid() {
		cfg.TraceID, cfg.TraceFlags, cfg.TraceState = parent.TraceID(), parent.TraceFlags(), parent.TraceState()
	}
	return trace.NewSpanContext(cfg)
}

func putUint64(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (8 * i))
	}
}

// traceparent writes a span context in W3C's form.
func traceparent(sc trace.SpanContext) string {
	t, sp := sc.TraceID(), sc.SpanID()
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, sp[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{byte(sc.TraceFlags() & trace.FlagsSampled)})
	return string(b)
}

// admit sheds what is too much and bounds the rest in time.
func (k *call) admit(answer handler) error {
	if k.s.inFlight.Add(1) > int64(k.s.cfg.MaxInFlight) {
		k.s.inFlight.Add(-1)
		return tooMany()
	}
	defer k.s.inFlight.Add(-1)
	limit := k.s.cfg.Timeout
	if k.route == collector.RouteExplain {
		limit = k.s.cfg.ExplainTimeout
	}
	ctx := k.ctx
	var cancel context.CancelFunc
	k.ctx, cancel = context.WithDeadline(ctx, k.start.Add(limit))
	defer func() { cancel(); k.ctx = ctx }()
	return k.guarded(answer)
}

// guarded runs answer and turns a panic into an error, so that a request which
// made the model panic is recorded like any other that failed.
func (k *call) guarded(answer handler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = k.s.Panicked(k.ctx, r)
		}
	}()
	return answer(k)
}

// end answers a failed call, records it, and closes span and metrics.
func (k *call) end(err error) {
	status := http.StatusOK
	var f *failure
	if err != nil {
		f = asFailure(err)
		status = f.status
		k.refuse(f)
		k.span.SetAttributes(attrErrorType.String(strconv.Itoa(status)))
		if status >= http.StatusInternalServerError {
			k.span.SetStatus(codes.Error, f.recorded())
		}
	}
	l := labels{route: string(k.route), status: status}
	if k.v != nil {
		l.model, l.version = k.v.Name, k.v.Version
	}
	took := time.Since(k.start)
	// Decided before the measurement, so that its exemplar names what will be found,
	// and before the span ends, after which it says of itself that it is not recorded.
	late, ctx := k.keepsLate(status, took, f), k.ctx
	if late {
		ctx = trace.ContextWithSpanContext(ctx, k.sc.WithTraceFlags(k.sc.TraceFlags().WithSampled(true)))
	}
	k.s.metrics.request(ctx, l, took.Seconds(), k.in, k.out)
	if k.span.IsRecording() {
		k.span.SetAttributes(attrHTTPStatus.Int(status))
	}
	k.span.End()
	if late {
		k.keepLate(status, took, f)
	}
}

// refuse records a failed call, then answers it: row by row with what was asked
// where that fits the model, else as one row without values.
func (k *call) refuse(f *failure) {
	if f.cause != nil {
		name, version := "", ""
		if k.v != nil {
			name, version = k.v.Name, k.v.Version
		}
		k.s.log.ErrorContext(k.ctx, "prediction failed", "model", name, "version", version,
			"prediction_id", k.id, "status", f.status, "error", f.cause)
	}
	if k.v != nil && !f.noRow && k.captured == "none" && k.s.cfg.Capture != nil {
		k.recordFailed(f, nil)
	}
	k.header(2, "Pellucid-Capture", k.captured)
	if k.c != nil {
		writeFailure(k.c, f)
	}
}

// recordFailed records what was asked, as far as it is known, why there is no answer, and
// what of one was sent before it broke off.
func (k *call) recordFailed(f *failure, out engine.Values) {
	if k.bound == nil {
		k.rows, k.times, k.externalIDs = 1, first(k.times), first(k.externalIDs)
	}
	p := k.prediction(f.status)
	p.Error, p.Answered, p.BrokenOff = f.recorded(), true, out != nil
	if k.bound == nil {
		p.Capture = collector.CaptureNone
	}
	if err := k.s.cfg.Capture(k.traced(), p, k.v, k.bound, out); err != nil {
		k.s.log.ErrorContext(k.ctx, "capture of a failed prediction failed", "prediction_id", k.id, "error", err)
		return
	}
	k.captured = p.Capture
	k.stages.Capture = p.Latency.Capture
	if k.rows > 1 {
		k.s.batches.add(k.id, k.rows)
	}
}

func first[T any](s []T) []T { return s[:min(1, len(s))] }

// prediction describes the call for the record, but for its values.
func (k *call) prediction(status int) *collector.Prediction {
	k.stages.Total = int64(time.Since(k.start))
	k.record = collector.Prediction{
		ID: k.id, Rows: k.rows, ReceivedAt: k.received, Times: k.times, ExternalIDs: k.externalIDs,
		Tenant: collector.DefaultTenant, Model: k.v.Name, Version: k.v.Version, Digest: k.v.Digest,
		Route: k.route, TraceID: k.parent[3:35], SpanID: k.parent[36:52],
		Status: status, Capture: collector.CaptureFull, Weight: 1, Latency: k.stages, Attempts: k.attempts,
	}
	if len(k.record.Times) == 0 {
		k.now[0] = k.received
		k.record.Times = k.now[:]
	}
	return &k.record
}

// capture records an answered call. Its answer may be sent when this returns
// nil, and not before, but for a text that is passed on as it is made.
func (k *call) capture(in, out engine.Values) error {
	if k.s.cfg.Capture == nil {
		k.header(2, "Pellucid-Capture", k.captured)
		return nil
	}
	p := k.prediction(http.StatusOK)
	p.Answered = k.passedOn
	err := k.s.cfg.Capture(k.traced(), p, k.v, in, out)
	k.stages.Capture = p.Latency.Capture
	if err != nil {
		if !k.passedOn {
			k.s.metrics.captureFailures.Add(k.ctx, 1)
		}
		f := asFailure(err)
		f.noRow = true
		return f
	}
	k.captured = p.Capture
	if k.rows > 1 {
		k.s.batches.add(k.id, k.rows)
	}
	k.header(2, "Pellucid-Capture", p.Capture)
	return nil
}

// traced is a context with the call's span and nothing else: a client that leaves
// has still been predicted for, and what looks for the span finds it at once.
func (k *call) traced() context.Context {
	if k.span.SpanContext().SpanID() == k.sc.SpanID() {
		return trace.ContextWithSpan(context.Background(), k.span)
	}
	return trace.ContextWithSpanContext(context.Background(), k.sc)
}

// rowID returns the prediction id of a row of the call.
func (k *call) rowID(r int) string {
	if k.rows == 1 {
		return k.id
	}
	return k.id + "." + strconv.Itoa(r)
}
