// Package collector is the vocabulary of what moves: the plain records that
// cross rooms (Prediction, Feedback, Explanation, Certificate, ModelVersion and
// the questions asked of the store) and the byte form that predictions and
// labels take in the spool.
//
// It owns no goroutine, no connection and no policy. Its rooms (proxy,
// repository, capture, spool, clickhouse, telemetry) import this package and
// the engine, never each other; cmd joins them.
package collector

import (
	"errors"
	"sync/atomic"
	"time"
)

// DefaultTenant is the tenant of every request until authentication exists.
const DefaultTenant = "default"

// Errors that callers test for.
var (
	// ErrNotFound: no such model, version, prediction or explanation.
	ErrNotFound = errors.New("not found")
	// ErrNotReady: the model or version exists but cannot answer now.
	ErrNotReady = errors.New("not ready")
	// ErrFull: the spool could not take the record in time.
	ErrFull = errors.New("spool full")
	// ErrRefused: asked for something that policy forbids (a private field, a
	// method the model has no basis for). The message says why.
	ErrRefused = errors.New("refused")
	// ErrBadQuery: a filter, cursor or span that cannot be understood.
	ErrBadQuery = errors.New("bad query")
	// ErrUnavailable: the store cannot be asked now.
	ErrUnavailable = errors.New("store unavailable")
	// ErrForgotten: the key of a sealed value was deleted.
	ErrForgotten = errors.New("its key was deleted: the value is gone")
)

// How much of a request is stored (Prediction.Capture).
const (
	CaptureFull     = "full"
	CaptureRedacted = "redacted" // but for what patterns took out of its features, or an operator changed in a dead letter
	CaptureInputs   = "inputs"   // without outputs: too large, or not of the declared shapes and too many to be kept otherwise
	CaptureCut      = "cut"      // without features: they were too large
	CaptureSampled  = "sampled"  // without features, by a rule; with their bins
	CaptureNone     = "none"     // without features, or not at all
)

// Route says how a prediction came to be recorded.
type Route string

// The routes. Rows brought to an explain request are recorded under
// RouteExplain and stay out of drift and performance.
const (
	RouteInfer    Route = "infer"    // Open Inference Protocol v2
	RoutePredict  Route = "predict"  // KServe v1
	RouteExplain  Route = "explain"  // rows brought to an explain request
	RouteImported Route = "imported" // predictions made elsewhere
)

// Prediction is one answered (or failed) request of Rows rows of one model
// version. Rows share everything but their values, event times and external
// ids. Where Rows is 1 the prediction's id is ID; row i of more is ID.i.
type Prediction struct {
	ID   string
	Rows int
	// ReceivedAt is our own clock, to the millisecond: the time inside a
	// UUIDv7 ID.
	ReceivedAt time.Time
	// Times are event times to the microsecond: one for all rows, or one each.
	Times []time.Time
	// ExternalIDs are the caller's own ids: none, one for all rows, or one each.
	ExternalIDs []string

	Tenant, Model, Version, Digest string
	Route                          Route
	// TraceID and SpanID are lower-case hex.
	TraceID, SpanID string
	// Status is the HTTP status of the answer, Error its message when it
	// failed. Neither ever holds a feature's value.
	Status int
	Error  string
	// Answered says that the answer has gone out, or goes out whether the prediction is
	// recorded or not: one of a failure, a text that was passed on as it was made. It is not
	// written.
	Answered bool
	// BrokenOff says that texts among the outputs may end in the midst of a word: the
	// stream that they came by did not come to its end. It is not written.
	BrokenOff bool
	// Capture says what of the request is stored: "full", "redacted" (but for what
	// patterns took out of its features), "inputs" (outputs absent), "cut", "sampled" or "none" (features absent).
	Capture string
	// Weight is the number of predictions that each row stands for, 1 but where whoever
	// made it elsewhere said otherwise or refused requests were sampled; 0 means 1.
	Weight float64
	// FeatureShare is the chance by which the features were kept, where that was below
	// 1: those of a row then stand for Weight/FeatureShare predictions. 0 means 1.
	FeatureShare float64
	Latency      Stages
	// Attempts are the requests to an upstream that it took, one where it was not
	// asked again; none where the model runs here.
	Attempts []Attempt

	// Schema names the fields of Features and Outputs. Decoders fill SchemaID
	// only; the schema itself is stored once.
	SchemaID string
	Features Columns
	Outputs  Columns
	// Scores is the number a row is watched by, one a row: P(second class) for
	// binary, the largest probability for multiclass, the value for regression
	// and ranking; NaN where the model gives none. Decided is the class decided
	// for, one a row, empty but for classification.
	Scores  []float64
	Decided []string

	// Bins are those of every row under the reference BinsID, one row after the
	// other as BinRow gives them, where the features were sampled out: drift counts
	// them all the same. Both are empty otherwise.
	Bins   []uint16
	BinsID string

	// Label came with a prediction made elsewhere, observed at LabelObservedAt; it is
	// stored if the prediction is, and only then. Empty means none.
	Label           string
	LabelObservedAt time.Time
	// LabelArrival is that of the label, as of Feedback.
	LabelArrival time.Time
}

// Stages are where a request's time went, in nanoseconds. They add up to less
// than Total, which also has what lies between them.
type Stages struct {
	Decode, Model, Encode, Capture, Total int64
}

// Columns hold Rows rows of a schema's fields by element type: row r of the
// float32 fields is F32[r*n : (r+1)*n] where n is the sum of those fields'
// Elements, in the fields' order; likewise the others. Integers and booleans
// are I64 (uint64 by its bits). NaN and the empty string are missing values.
type Columns struct {
	F32 []float32
	F64 []float64
	I64 []int64
	Str []string
}

// Feedback is a label for a past prediction, joined when it is read.
type Feedback struct {
	// PredictionID is our id of one row (ID, or ID.i of a batch); ExternalID
	// the caller's. One of them is set.
	PredictionID, ExternalID string
	// Model narrows an ExternalID to one model; empty means all of the tenant.
	Model  string
	Tenant string
	// Label is the truth as the caller wrote it: a number, a class name.
	Label string
	// ObservedAt is event time; ReceivedAt our own clock.
	ObservedAt, ReceivedAt time.Time
	// Arrival tells which of several labels came last, and so counts: Arrivals.Next.
	Arrival time.Time
}

// Arrivals gives labels their order. The clock alone does not: two labels come within
// one of its ticks, and it may be set back.
type Arrivals struct{ last atomic.Int64 }

// Next returns now in whole microseconds, or the microsecond after the one it returned
// last where that is later. Of two processes the clocks decide.
func (a *Arrivals) Next(now time.Time) time.Time {
	for {
		last := a.last.Load()
		next := max(now.UnixMicro(), last+1)
		if a.last.CompareAndSwap(last, next) {
			return time.UnixMicro(next).UTC()
		}
	}
}

// StoredPrediction is one row as the API shows it.
type StoredPrediction struct {
	ID         string             `json:"id"`
	Time       time.Time          `json:"time"`
	ReceivedAt time.Time          `json:"received_at"`
	Model      string             `json:"model"`
	Version    string             `json:"version"`
	TraceID    string             `json:"trace_id"`
	Features   map[string]any     `json:"features"`
	Outputs    map[string]any     `json:"outputs"`
	Status     int                `json:"status"`
	Error      string             `json:"error"`
	LatencyMS  map[string]float64 `json:"latency_ms"`
	Labels     []StoredLabel      `json:"labels"`

	Digest     string `json:"digest,omitempty"`
	Route      Route  `json:"route,omitempty"`
	SpanID     string `json:"span_id,omitempty"`
	ExternalID string `json:"external_id,omitempty"`
	Capture    string `json:"capture,omitempty"`
	// Weight is the number of predictions that it stands for; 0 means 1.
	Weight float64 `json:"weight,omitempty"`
	// Attempts are those of the prediction.
	Attempts []Attempt `json:"attempts,omitempty"`
	// Raw is the row in its own types, for whoever must compute with it again.
	Raw RawRow `json:"-"`
}

// Attempt is one request to an upstream: the status that it answered, 0 where it gave
// none, and the milliseconds that took.
type Attempt struct {
	Status int     `json:"status"`
	MS     float64 `json:"ms"`
}

// StoredLabel is one label of a prediction, newest first; the newest counts.
type StoredLabel struct {
	Label      string    `json:"label"`
	ObservedAt time.Time `json:"observed_at"`
	ReceivedAt time.Time `json:"received_at"`
	// Arrival orders labels.
	Arrival time.Time `json:"-"`
}

// RawRow is one row's features and outputs in their own types.
type RawRow struct {
	SchemaID          string
	Features, Outputs Columns
	// Score and Decided as in Prediction, of this row.
	Score   float64
	Decided string
	// Weight is how many predictions the row's features stand for, where it was read from
	// the store; 0 means 1.
	Weight float64
}

// Query selects stored predictions. From and To bound event time; zero means
// unbounded. Where is the small filter grammar, never SQL.
type Query struct {
	Tenant, Model, Version string
	From, To               time.Time
	// ExternalID is the caller's own id of the rows; empty means any.
	ExternalID string
	Where      string
	Limit      int
	Cursor     string
	// Routes to include; empty means every route.
	Routes []Route
}

// Page is a listing: predictions newest first and where to go on.
type Page struct {
	Predictions []StoredPrediction `json:"predictions"`
	Next        string             `json:"next,omitempty"`
}
