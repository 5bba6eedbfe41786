// Package capture turns an answered request into a record and hands it to the
// spool. It is the privacy choke point: nothing else appends predictions, labels
// or explanations, and what a version's schema marks as private is taken out
// here, before a single byte is encoded.
//
// Patterns, where there are any, look for what nobody marked in the texts that are
// left: features, outputs, errors, external ids, labels.
//
// It owns no file and no goroutine. It never retries, and looks at what a value is only
// for patterns and where a rule keeps outliers; it never puts a value into a span, a
// metric, a log or an error.
//
// Invariants: a schema is in the spool before the first prediction under it that
// this process captures; Prediction returns after Append has returned, so that
// the durability level holds when an answer is sent.
package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// OnFull is the operator's choice for predictions when the spool takes no more.
type OnFull string

// The choices.
const (
	// OnFullReject: the prediction is not answered.
	OnFullReject OnFull = "reject"
	// OnFullServe: it is answered, the loss is counted and said.
	OnFullServe OnFull = "serve"
)

// Config says where records go. Zero values mean the stated defaults.
type Config struct {
	// Append writes one record and returns when it is as durable as configured;
	// its error wraps collector.ErrFull where there was no room. It must not keep
	// the payload. Required.
	Append func(ctx context.Context, rec collector.Record) error
	// OnFull is OnFullReject by default.
	OnFull OnFull
	// MaxBytes bounds a request's stored features, and its outputs apart; a larger request
	// is stored without them and says "cut", larger outputs are left out and it says
	// "inputs". 1 MiB by default, and 24 MiB (negative, too) at most: both are in one record.
	MaxBytes int
	// Backlog counts the records that the spool has taken and those of them that have
	// left it; with SpoolBytes, its size, and Waiting, the bytes that wait in it at the
	// start, it bounds what refused requests take of it.
	// One without a limit counts as 4 GiB here, as it is by default: a flood must not have
	// the disk. Without Backlog only their rate is bounded.
	Backlog             func() (appended, acked uint64)
	SpoolBytes, Waiting int64
	// Sample says which predictions keep their features; none means all.
	Sample []SampleRule
	// Bins computes the bins of a row whose features are sampled out as
	// collector.BinRow does, which it is by default; sealed features need keys.
	Bins func(ref *stats.Reference, s *collector.Schema, p *collector.Prediction, row int, dst []uint16) []uint16
	// MaxError bounds the stored text of an error, 1,024 bytes by default.
	MaxError int
	// Patterns find what is private by its form; nil finds nothing.
	Patterns *Patterns
	// Schema finds the schema of a version, nil for unknown. Explanations of
	// versions with private fields are refused; without Schema the versions
	// captured in this process are known, which are all whose rows were brought
	// along (of a stored row Explanation.Sealed says it).
	Schema func(model, version string) *collector.Schema
	// TracerProvider and MeterProvider are the global ones by default.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
}

// mostBytes keeps the record of a request with its answer, bins among it, below the 64 MiB
// of the spool's: an answer that cannot be recorded could not be given.
const mostBytes = 24 << 20

func (c Config) applyDefaultsAndValidate() (Config, error) {
	if c.Append == nil {
		return c, errors.New("capture: no Append")
	}
	if c.OnFull == "" {
		c.OnFull = OnFullReject
	}
	if c.OnFull != OnFullReject && c.OnFull != OnFullServe {
		return c, fmt.Errorf("capture: unknown on_full %q (reject or serve)", c.OnFull)
	}
	if err := checkSampleRules(c.Sample); err != nil {
		return c, err
	}
	if c.Bins == nil {
		c.Bins = collector.BinRow
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 20
	}
	if c.MaxBytes < 0 || c.MaxBytes > mostBytes {
		c.MaxBytes = mostBytes
	}
	if c.SpoolBytes <= 0 {
		c.SpoolBytes = 4 << 30
	}
	if c.MaxError <= 0 {
		c.MaxError = 1024
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	return c, nil
}

const (
	attrModelName    = attribute.Key("ml.model.name")
	attrModelVersion = attribute.Key("ml.model.version")
	attrPredictionID = attribute.Key("ml.prediction.id")
	attrResult       = attribute.Key("ml.capture.result")
	attrKind         = attribute.Key("ml.capture.kind")
)

// Capturer records predictions, labels and explanations. It is safe for
// concurrent use.
type Capturer struct {
	cfg     Config
	tracer  trace.Tracer
	metrics *instruments
	buffers sync.Pool
	refused *refused
	// labelled is nil where no rule samples.
	labelled *labelled

	// schemas holds, by id, the schemas that are in the spool already.
	schemas sync.Map
	// made are the schemas for shapes that no model declares.
	made struct {
		sync.Mutex
		byID map[string]*collector.Schema
	}
	// versions holds the schemas in use by model and version.
	versions sync.Map
	// recent and appended are the last of both, to be told by their pointer.
	recent   atomic.Pointer[weak.Pointer[collector.ModelVersion]]
	appended atomic.Pointer[collector.Schema]
	// schemaMu lets one goroutine at a time append a schema.
	schemaMu sync.Mutex
}

type versionKey struct{ model, version string }

// New returns a Capturer.
func New(cfg Config) (*Capturer, error) {
	cfg, err := cfg.applyDefaultsAndValidate()
	if err != nil {
		return nil, err
	}
	m, err := newInstruments(cfg.MeterProvider)
	if err != nil {
		return nil, fmt.Errorf("make capture metrics: %w", err)
	}
	c := &Capturer{
		cfg: cfg, metrics: m, tracer: cfg.TracerProvider.Tracer("github.com/pellucid/pellucid/collector/capture"),
		buffers: sync.Pool{New: func() any { return new([]byte) }},
		refused: newRefused(cfg.SpoolBytes, cfg.Waiting, cfg.Backlog),
	}
	if len(cfg.Sample) > 0 {
		c.labelled = newLabelled()
	}
	return c, nil
}

// Prediction records p, an answered or failed request of version v, with its
// canonical inputs and outputs; in or out is nil where the request did not get
// that far. It fills p's schema id, features, outputs, scores, weight and
// Capture. It returns when the record is appended. An error wraps
// collector.ErrFull where the spool has no room and the choice is to reject; with
// OnFullServe it returns nil then and p.Capture is "none".
func (c *Capturer) Prediction(ctx context.Context, p *collector.Prediction, v *collector.ModelVersion, in, out engine.Values) error {
	start := time.Now()
	if parent := trace.SpanFromContext(ctx); parent.SpanContext().IsValid() && !parent.IsRecording() {
		// The SDK would make a span only to forget it.
		return c.prediction(ctx, start, p, v, in, out)
	}
	ctx, span := c.tracer.Start(ctx, "capture", trace.WithSpanKind(trace.SpanKindInternal))
	defer span.End()
	err := c.prediction(ctx, start, p, v, in, out)
	span.SetAttributes(attrModelName.String(p.Model), attrModelVersion.String(p.Version), attrResult.String(p.Capture))
	if collector.OwnID(p.ID) {
		span.SetAttributes(attrPredictionID.String(p.ID))
	}
	if err != nil {
		span.SetStatus(codes.Error, errorClass(err))
	}
	return err
}

func (c *Capturer) prediction(ctx context.Context, start time.Time, p *collector.Prediction, v *collector.ModelVersion, in, out engine.Values) error {
	isRefused := isRefused(p)
	if isRefused {
		weight, ok := c.refused.take(p, start)
		if !ok {
			p.Capture = collector.CaptureNone
			c.metrics.refused.Add(1)
			return nil
		}
		p.Weight = weight
	}
	schema, err := c.fill(p, v, in, out)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// A new subject's key could not be written: as little as the record could be.
		return c.decide(ctx, p, fmt.Errorf("capture prediction %s: %w: %w", p.ID, collector.ErrFull, err))
	}
	if err != nil {
		c.unrecorded(ctx, p, p.Answered)
		return fmt.Errorf("capture prediction %s: %w", p.ID, err)
	}
	p.SchemaID = schema.ID
	if err := c.ensureSchema(ctx, schema); err != nil {
		return c.decide(ctx, p, fmt.Errorf("capture schema of prediction %s: %w", p.ID, err))
	}
	ready := time.Now()
	if p.Latency.Capture == 0 {
		p.Latency.Capture = ready.Sub(start).Nanoseconds()
	}
	buf := c.buffers.Get().(*[]byte)
	*buf = collector.AppendPrediction((*buf)[:0], p)
	kind := collector.KindPrediction
	switch {
	case p.Route == collector.RouteImported:
		kind = collector.KindImported
	case isRefused:
		kind = collector.KindRefused
		if !c.refused.reserve(p, len(*buf)) {
			c.release(buf)
			p.Capture = collector.CaptureNone
			c.metrics.refused.Add(1)
			return nil
		}
	}
	err = c.appendAt(ctx, ready, collector.Record{
		Kind: kind, Version: (*buf)[0], Payload: *buf, ID: p.ID, TraceID: p.TraceID,
	})
	size := len(*buf)
	c.release(buf)
	if isRefused {
		c.refused.settle(size, err == nil)
	}
	if err != nil {
		return c.decide(ctx, p, fmt.Errorf("capture prediction %s: %w", p.ID, err))
	}
	if p.Capture == collector.CaptureSampled {
		c.metrics.sampled.Add(1)
	}
	return nil
}

// maxBuffer is the largest buffer worth keeping.
const maxBuffer = 1 << 20

func (c *Capturer) release(buf *[]byte) {
	if cap(*buf) <= maxBuffer {
		c.buffers.Put(buf)
	}
}

// decide applies the operator's choice to a prediction that was not appended. One
// made elsewhere has no answer to give up: its sender is told.
func (c *Capturer) decide(ctx context.Context, p *collector.Prediction, err error) error {
	var gone *collector.GoneError
	served := c.cfg.OnFull == OnFullServe && p.Route != collector.RouteImported && (errors.Is(err, collector.ErrFull) || errors.As(err, &gone))
	c.unrecorded(ctx, p, served || p.Answered)
	if served {
		return nil
	}
	return err
}

// unrecorded notes that a prediction has no record, which is a loss where it is answered:
// whoever gets no answer is told to ask again.
func (c *Capturer) unrecorded(ctx context.Context, p *collector.Prediction, answered bool) {
	p.Capture = collector.CaptureNone
	if answered {
		c.metrics.lost.Add(ctx, 1, c.metrics.lostOf...)
		c.metrics.lostRows.Add(ctx, int64(max(p.Rows, 1)), c.metrics.lostOf...)
	}
}

// fill redacts, bounds and flattens: after it p holds what may be written, and
// nothing else.
// The schema is that by which it lies.
func (c *Capturer) fill(p *collector.Prediction, v *collector.ModelVersion, in, out engine.Values) (*collector.Schema, error) {
	c.know(v)
	p.Features, p.Outputs, p.Scores, p.Decided = collector.Columns{}, collector.Columns{}, nil, nil
	p.Bins, p.BinsID = nil, ""
	c.redactTexts(p)
	if p.Weight == 0 {
		p.Weight = 1
	}
	if p.Rows <= 0 || p.Rows > collector.MaxRows {
		return nil, fmt.Errorf("%d rows", p.Rows)
	}
	p.Capture = collector.CaptureFull
	schema, err := v.Schema, error(nil)
	switch {
	case in == nil:
		p.Capture = collector.CaptureNone
	case requestBytes(in) > c.cfg.MaxBytes:
		p.Capture = collector.CaptureCut
	default:
		if schema, err = c.fillFeatures(p, schema, in); err != nil {
			return nil, fmt.Errorf("features: %w", err)
		}
	}
	if out == nil {
		return schema, nil
	}
	var declared bool
	if schema, declared, err = c.fillOutputs(p, schema, out); err != nil {
		return nil, fmt.Errorf("outputs: %w", err)
	}
	if v.Info != nil && declared {
		// Values that lie as declared may still be cut into other rows: of those no number
		// is this prediction's.
		if scores, decided := collector.Scores(v.Info, out); max(len(scores), len(decided)) == p.Rows {
			p.Scores, p.Decided = scores, decided
		}
	}
	collector.WithoutInputs(v, in, p.Outputs.Str)
	collector.WithoutInputs(v, in, p.Decided) // what was decided is made of an output
	c.redactColumn(schema.Outputs, p.Outputs.Str, p.Rows, p.BrokenOff)
	c.redactColumn(nil, p.Decided, len(p.Decided), p.BrokenOff)
	c.sample(p, v, schema)
	return schema, nil
}

// fillFeatures lays the inputs out, and returns the schema by which they lie. It leaves
// out what the schema drops: this is the choke point.
func (c *Capturer) fillFeatures(p *collector.Prediction, schema *collector.Schema, in engine.Values) (_ *collector.Schema, err error) {
	at := collector.Scope{Tenant: p.Tenant, Model: p.Model}
	p.Features, err = collector.FlattenFor(at, schema.Features, in, p.Rows)
	if p.Rows == 1 && errors.Is(err, collector.ErrShape) {
		// Inputs that are no rows of each other: the request was one prediction, and the
		// model's schema has room for one row of each.
		var shaped *collector.Schema
		shaped, err = c.shaped(schema, in, nil, p.Rows)
		if err != nil {
			return nil, err
		}
		if shaped == nil {
			p.Features, p.Capture = collector.Columns{}, collector.CaptureNone
			return schema, nil
		}
		schema = shaped
		p.Features, err = collector.FlattenFor(at, schema.Features, in, p.Rows)
	}
	if err != nil {
		return nil, err
	}
	if c.redactColumn(schema.Features, p.Features.Str, p.Rows, false) {
		p.Capture = collector.CaptureRedacted
	}
	return schema, nil
}

// fillOutputs lays the outputs out, and returns the schema by which they lie. The model
// answered, so the caller is answered and the answer kept, whatever shape it has; declared
// is false for one that the model does not declare, of which no score can be told. What
// would have to be kept once a row and is too large for that is left out, and said to be.
func (c *Capturer) fillOutputs(p *collector.Prediction, schema *collector.Schema, out engine.Values) (_ *collector.Schema, declared bool, err error) {
	size := requestBytes(out)
	p.Outputs, err = collector.Flatten(schema.Outputs, out, p.Rows)
	declared = !errors.Is(err, collector.ErrShape)
	if declared && (err != nil || size <= c.cfg.MaxBytes) {
		return schema, true, err
	}
	p.Outputs = collector.Columns{}
	var shaped *collector.Schema
	if !declared && size <= c.cfg.MaxBytes/p.Rows {
		if shaped, err = c.shaped(schema, nil, out, p.Rows); err != nil {
			return nil, false, err
		}
	}
	if shaped == nil {
		if p.Capture == collector.CaptureFull {
			p.Capture = collector.CaptureInputs
		}
		return schema, declared, nil
	}
	p.Outputs, err = collector.Flatten(shaped.Outputs, out, p.Rows)
	return shaped, false, err
}

// maxShaped is how many schemas a process makes besides those of its versions: each
// is a row of the store, and a filter is compiled against all that a model has.
const maxShaped = 256

// shaped is the schema for values that are not shaped as s says, nil where there is none
// that may be used.
func (c *Capturer) shaped(s *collector.Schema, in, out engine.Values, rows int) (*collector.Schema, error) {
	made, ok, err := s.ForShapes(in, out, rows)
	if err != nil || !ok {
		return nil, err
	}
	c.made.Lock()
	defer c.made.Unlock()
	if known := c.made.byID[made.ID]; known != nil {
		return known, nil
	}
	if len(c.made.byID) >= maxShaped {
		return nil, nil
	}
	if c.made.byID == nil {
		c.made.byID = map[string]*collector.Schema{}
	}
	c.made.byID[made.ID] = made
	return made, nil
}

// Schema returns the schema of that id that this process has recorded predictions under,
// nil for another.
func (c *Capturer) Schema(id string) *collector.Schema {
	s, _ := c.schemas.Load(id)
	schema, _ := s.(*collector.Schema)
	return schema
}

// redactTexts takes out of what was said beside the values what patterns find.
func (c *Capturer) redactTexts(p *collector.Prediction) {
	// Before the text is cut, which could leave a part that is no more found.
	p.Error = bounded(c.cfg.Patterns.Text(p.Error), c.cfg.MaxError)
	p.Label = c.cfg.Patterns.Text(p.Label)
	if c.cfg.Patterns == nil || len(p.ExternalIDs) == 0 {
		return
	}
	ids := make([]string, len(p.ExternalIDs)) // the caller has the others
	for i, id := range p.ExternalIDs {
		ids[i] = c.cfg.Patterns.ID(id)
	}
	p.ExternalIDs = ids
}

// Clean takes out of a text what patterns find, as of what was captured.
func (c *Capturer) Clean(text string) string { return c.cfg.Patterns.Text(text) }

// redactColumn takes out of the texts of rows what patterns find, but where a text
// stands for a private field: a hash or a sealed value is no text. brokenOff says that
// the texts did. It reports whether it found anything.
func (c *Capturer) redactColumn(fields []collector.Field, texts []string, rows int, brokenOff bool) (any bool) {
	if c.cfg.Patterns == nil || rows <= 0 || len(texts) < rows {
		return false
	}
	clean := c.cfg.Patterns.Text
	if brokenOff {
		clean = c.cfg.Patterns.BrokenOff
	}
	width := len(texts) / rows
	skip := make([]bool, width)
	for i := range fields {
		if array, at, ok := collector.FieldPosition(fields, i); ok && array == "Str" && fields[i].Private != collector.PrivacyNone {
			skip[at] = true
		}
	}
	for k, s := range texts {
		if skip[k%width] {
			continue
		}
		if t := clean(s); t != s {
			texts[k], any = t, true
		}
	}
	return any
}

// requestBytes is what the inputs of a request take. Dropped columns count too:
// the bound is on the request.
func requestBytes(in engine.Values) int {
	n := 0
	for _, v := range in {
		if t := v.Tensor; t.DType() == engine.String {
			for _, str := range engine.Data[string](t) {
				n += len(str) + 2
			}
		} else {
			n += t.Len() * max(t.DType().Size(), 1)
		}
	}
	return n
}

// bounded cuts s to at most n bytes of whole characters.
func bounded(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// know notes the schema that a version is recorded under. A version that comes again
// and again is known by its pointer.
func (c *Capturer) know(v *collector.ModelVersion) {
	if last := c.recent.Load(); last != nil && last.Value() == v {
		return
	}
	if known, _ := c.versions.Load(versionKey{v.Name, v.Version}); known != v.Schema {
		c.versions.Store(versionKey{v.Name, v.Version}, v.Schema)
	}
	last := weak.Make(v) // an unloaded version is not to stay in memory for this
	c.recent.Store(&last)
}

// ensureSchema appends the schema once a process, before the first prediction
// under it.
func (c *Capturer) ensureSchema(ctx context.Context, s *collector.Schema) error {
	if c.appended.Load() == s {
		return nil
	}
	if _, ok := c.schemas.Load(s.ID); ok {
		c.appended.Store(s)
		return nil
	}
	c.schemaMu.Lock()
	defer c.schemaMu.Unlock()
	if _, ok := c.schemas.Load(s.ID); ok {
		return nil
	}
	b, err := collector.EncodeSchema(s)
	if err != nil {
		return err
	}
	if err := c.append(ctx, collector.Record{Kind: collector.KindSchema, Version: collector.SchemaVersion, Payload: b}); err != nil {
		return err
	}
	c.schemas.Store(s.ID, s)
	return nil
}

// Feedback records a label. A label that cannot be written is an error whatever
// OnFull says: its acknowledgement is all the caller has.
func (c *Capturer) Feedback(ctx context.Context, f *collector.Feedback) error {
	if c.cfg.Patterns != nil {
		clean := *f
		clean.Label, clean.ExternalID = c.cfg.Patterns.Text(f.Label), c.cfg.Patterns.ID(f.ExternalID)
		f = &clean
	}
	buf := c.buffers.Get().(*[]byte)
	*buf = collector.AppendFeedback((*buf)[:0], f)
	err := c.append(ctx, collector.Record{
		Kind: collector.KindFeedback, Version: collector.FeedbackVersion, Payload: *buf, ID: f.PredictionID,
	})
	c.release(buf)
	if err != nil {
		return fmt.Errorf("capture feedback: %w", err)
	}
	if c.labelled != nil {
		c.labelled.add(f)
	}
	return nil
}

// Explanation records an explanation that was given. One of a version with
// private fields is refused: its other parts would tell, by subtraction, the
// part of the field that is not there.
func (c *Capturer) Explanation(ctx context.Context, e *collector.Explanation) error {
	if len(e.Sealed) > 0 {
		return fmt.Errorf("capture explanation: %w: feature %q of model %q is sealed", collector.ErrRefused, e.Sealed[0], e.Model)
	}
	if s := c.schemaOf(e.Model, e.Version); s != nil {
		for i := range s.Features {
			if s.Features[i].Private != collector.PrivacyNone {
				return fmt.Errorf("capture explanation: %w: feature %q of model %q is private", collector.ErrRefused, s.Features[i].Name, e.Model)
			}
		}
	}
	b, err := collector.EncodeExplanation(c.redactExplanation(e))
	if err != nil {
		return fmt.Errorf("capture explanation: %w", err)
	}
	err = c.append(ctx, collector.Record{
		Kind: collector.KindExplanation, Version: collector.ExplanationVersion, Payload: b, ID: e.PredictionID,
	})
	if err != nil {
		return fmt.Errorf("capture explanation: %w", err)
	}
	return nil
}

// redactExplanation is e with what patterns find in its values taken out.
func (c *Capturer) redactExplanation(e *collector.Explanation) *collector.Explanation {
	if c.cfg.Patterns == nil {
		return e
	}
	clean := *e
	clean.Attributions = slices.Clone(e.Attributions)
	for i := range clean.Attributions {
		if text, ok := clean.Attributions[i].Value.(string); ok {
			clean.Attributions[i].Value = c.cfg.Patterns.Text(text)
		}
	}
	return &clean
}

func (c *Capturer) schemaOf(model, version string) *collector.Schema {
	if c.cfg.Schema != nil {
		if s := c.cfg.Schema(model, version); s != nil {
			return s
		}
	}
	s, _ := c.versions.Load(versionKey{model, version})
	schema, _ := s.(*collector.Schema)
	return schema
}

func (c *Capturer) append(ctx context.Context, rec collector.Record) error {
	return c.appendAt(ctx, time.Now(), rec)
}

// appendAt is append at a time that has just been looked at.
func (c *Capturer) appendAt(ctx context.Context, start time.Time, rec collector.Record) error {
	err := c.cfg.Append(ctx, rec)
	c.metrics.appended(ctx, rec.Kind, len(rec.Payload), time.Since(start), err)
	return err
}

// errorClass names an error for a span: a class, never its text.
func errorClass(err error) string {
	var gone *collector.GoneError
	switch {
	case errors.As(err, &gone):
		return "spool gone"
	case errors.Is(err, collector.ErrFull):
		return "spool full"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "cancelled"
	}
	return "capture failed"
}
