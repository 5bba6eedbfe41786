package telemetry

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/pellucid/pellucid/collector"
)

// Bounds of one OTLP request that is taken in.
const (
	maxOTLPBody  = 32 << 20 // bytes, decompressed
	maxOTLPSpans = 100_000
	maxOTLPDays  = 100 // that its spans begin on: each is a partition of the table
	writeTime    = 8 * time.Second
)

// Spans may begin in these years: the table's times hold no others.
var (
	earliestSpan = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latestSpan   = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// IntakeConfig says where traces of other programs go.
type IntakeConfig struct {
	// Write stores spans; an error is answered as one to try again after, so Write
	// must count the same spans once. Required.
	Write func(ctx context.Context, spans []Span) error
	// Predict records the predictions among them, each id once, and says what
	// became of each; an error is answered as one to try again after. nil takes
	// spans only.
	Predict func(ctx context.Context, predictions []*collector.Imported) ([]collector.ImportResult, error)
	// Why is what of Predict's error may be told to whoever sent the spans: why not now, and
	// what mends it. nil, and "", tell nothing.
	Why func(err error) string
	// Private reports whether a field of any model here is private: no text of another
	// program is kept then that is not known, by conventions or by Known*, to repeat none.
	// nil keeps all, but for what a trace's spans repeat of its predictions.
	Private func() bool
	// KnownTexts are names and messages, KnownAttributes keys of attributes of which the
	// operator says that they repeat nothing private; Model reports whether there is a
	// model of that name.
	KnownTexts, KnownAttributes []string
	Model                       func(name string) bool
	// BrokenOff takes out of a text that is cut here what its end may be the beginning of;
	// nil takes out nothing.
	BrokenOff func(text string) string
	// Instance is the service.instance.id of this process, whose own spans make no
	// predictions; another Pellucid's are known by their tracers' names.
	Instance string
	// Meter counts what is refused and Log tells of it, once a minute: a partial
	// success reaches nobody through most SDKs. nil means neither.
	Meter metric.MeterProvider
	Log   *slog.Logger
}

// Intake takes traces from other programs by OTLP, over HTTP (Handler) and gRPC
// (Register). It answers when they are stored, and nothing of them is sent on.
type Intake struct {
	cfg                IntakeConfig
	refused, forgotten metric.Int64Counter
	said               traceValues
	known              knownTexts
	// building bounds how many requests' values are made ready to be looked for at a time.
	building chan struct{}

	mu       sync.Mutex // guards what follows
	told     time.Time  // when spans were last said to be refused
	withheld bool       // texts of spans were said to be left out
}

// NewIntake returns an Intake.
func NewIntake(cfg IntakeConfig) *Intake {
	if cfg.Meter == nil {
		cfg.Meter = noop.NewMeterProvider()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	in := &Intake{cfg: cfg, building: make(chan struct{}, 2)}
	in.said.limit(maxSaid, saidFor)
	in.known = knownTexts{texts: cfg.KnownTexts, keys: cfg.KnownAttributes, model: cfg.Model}
	var err error
	in.refused, err = cfg.Meter.Meter("github.com/pellucid/pellucid/collector/telemetry").Int64Counter("ml.intake.spans.refused",
		metric.WithUnit("{span}"), metric.WithDescription("Spans taken in by OTLP that were left out, or are no predictions as they mean to be."))
	if err != nil {
		cfg.Log.Warn("refused spans are not counted", "error", err)
	}
	in.forgotten, err = cfg.Meter.Meter("github.com/pellucid/pellucid/collector/telemetry").Int64Counter("ml.intake.traces.forgotten",
		metric.WithUnit("{trace}"), metric.WithDescription("Traces of predictions taken in by OTLP whose values were forgotten before their time, so that later spans of them are stored as they come."))
	if err != nil {
		cfg.Log.Warn("forgotten traces are not counted", "error", err)
	}
	return in
}

// tell makes it known here that spans were refused. Why is the sender's to read: it
// may name what he sent.
func (in *Intake) tell(ctx context.Context, n int64) {
	in.refused.Add(ctx, n)
	in.mu.Lock()
	defer in.mu.Unlock()
	if now := time.Now(); now.Sub(in.told) >= logEvery {
		in.told = now
		in.cfg.Log.WarnContext(ctx, "spans sent by OTLP were refused; why is in the answer's partial_success, which most SDKs do not show", "spans", n)
	}
}

// intakeError is why a request is not taken: status is HTTP's, 503 to try again.
type intakeError struct {
	status  int
	message string
}

func (e *intakeError) Error() string { return e.message }

// why says what was not done, and why where that may be told to whoever sent it.
func (in *Intake) why(what string, err error) string {
	if in.cfg.Why == nil {
		return what
	}
	if reason := in.cfg.Why(err); reason != "" {
		return what + ": " + reason
	}
	return what
}

// storing says why spans are not stored: a store's own words may repeat what is in them.
func storing(err error) string {
	const what = "the spans could not be stored now"
	if errors.Is(err, collector.ErrUnavailable) {
		return what + ": " + collector.ErrUnavailable.Error()
	}
	return what
}

// take stores a request's spans, after the predictions among them: those are as
// durable as the spool makes them, and do not wait for the store.
func (in *Intake) take(ctx context.Context, req ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, *intakeError) {
	res := ptraceotlp.NewExportResponse()
	private := in.private()
	spans, rejected := in.rows(ctx, req.Traces())
	if n, d := len(spans), days(spans); n > maxOTLPSpans || d > maxOTLPDays {
		return res, &intakeError{http.StatusRequestEntityTooLarge, fmt.Sprintf("%d spans of %d days in one request, the limits are %d and %d", n, d, maxOTLPSpans, maxOTLPDays)}
	}
	var why []string
	if rejected > 0 {
		why = append(why, fmt.Sprintf("%d spans without a trace id, a span id or a time between 1970 and 2262 were left out", rejected))
	}
	if in.cfg.Predict != nil {
		refused, first, err := in.predict(ctx, req.Traces())
		if err != nil {
			return res, &intakeError{http.StatusServiceUnavailable, in.why("the predictions among the spans could not be recorded now", err)}
		}
		if refused > 0 {
			why = append(why, fmt.Sprintf("%d spans were stored, and are no predictions as they mean to be; the first: %s", refused, first))
			rejected += refused
		}
		if !private && in.private() {
			// These predictions made a model known that has private fields: its spans are not
			// the last that are kept in full.
			spans, _ = in.rows(ctx, req.Traces())
		}
	}
	if len(spans) > 0 {
		// A store that has stopped answering is one that is away; SDKs wait ten seconds.
		ctx, cancel := context.WithTimeout(ctx, writeTime)
		defer cancel()
		if err := in.cfg.Write(ctx, spans); err != nil {
			return res, &intakeError{http.StatusServiceUnavailable, storing(err)}
		}
	}
	if rejected > 0 {
		in.tell(ctx, rejected)
		res.PartialSuccess().SetRejectedSpans(rejected)
		res.PartialSuccess().SetErrorMessage(strings.Join(why, "; "))
	}
	return res, nil
}

// rows are the spans of a request as they may be kept.
func (in *Intake) rows(ctx context.Context, traces ptrace.Traces) (spans []Span, rejected int64) {
	if !in.private() {
		return spansOf(traces, in.scrubbers(ctx, traces))
	}
	spans, rejected = in.known.spans(traces)
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.withheld && slices.ContainsFunc(spans, func(s Span) bool { return s.SpanAttributes[leftOut] != "" }) {
		in.withheld = true
		in.cfg.Log.WarnContext(ctx, "a model has private fields: of the spans of other programs names, messages and attributes are kept only where they are known to repeat none; capture.known_texts and capture.known_attributes say which else, capture.texts: cleaned keeps what a search leaves")
	}
	return spans, rejected
}

// private reports whether only known texts of spans are kept.
func (in *Intake) private() bool { return in.cfg.Private != nil && in.cfg.Private() }

// predict records the predictions among spans and counts those that are refused.
func (in *Intake) predict(ctx context.Context, traces ptrace.Traces) (refused int64, first string, err error) {
	list, reasons := in.predictionsOf(traces)
	if len(reasons) > 0 {
		refused, first = int64(len(reasons)), reasons[0].Error()
	}
	if len(list) == 0 {
		return refused, first, nil
	}
	results, err := in.cfg.Predict(ctx, list)
	if err != nil {
		return 0, "", err
	}
	for _, r := range results {
		if r.Status != collector.ImportRefused {
			continue
		}
		if refused++; first == "" {
			first = r.Error
		}
	}
	return refused, first, nil
}

// Handler takes traces by OTLP/HTTP: protobuf and JSON, plain or gzip
// (opentelemetry-proto, "OTLP/HTTP Request").
func (in *Intake) Handler() http.Handler {
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
		res, refused := in.take(r.Context(), req)
		if refused != nil {
			if refused.status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "1")
			}
			refuseOTLP(w, refused.status, refused.message)
			return
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

// storable reports whether a span can be a row of the table.
func storable(s ptrace.Span) bool {
	start := s.StartTimestamp().AsTime()
	return !s.TraceID().IsEmpty() && !s.SpanID().IsEmpty() && !start.Before(earliestSpan) && start.Before(latestSpan)
}

func days(spans []Span) int {
	seen := map[int64]bool{}
	for i := range spans {
		seen[spans[i].Timestamp.Unix()/86400] = true
	}
	return len(seen)
}
