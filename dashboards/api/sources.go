// Package api serves the admin JSON: listings of predictions, drift,
// performance, traffic and alerts. It also declares Sources, the questions that
// these answers and the pages of package dashboards are made of.
//
// It keeps no state and decides nothing: whatever it shows it asked for. The
// data plane (predict, explain, read by id, feedback) belongs to
// collector/proxy.
package api

import (
	"context"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// Window is a question about one model over a span of event time, optionally
// cut in steps. A zero From or To is unbounded; an empty Version is the highest
// live one.
type Window struct {
	Tenant, Model, Version string
	From, To               time.Time
	// Step cuts the span in chunks, each aligned to From; 0 asks for the whole.
	Step time.Duration
	// Tests narrows drift to these tests, the deciding one first.
	Tests []stats.Test
	// Segment narrows to the rows this filter selects.
	Segment string
}

// TrafficPoint is what happened in one step: requests, rows, and how long they
// took, which is nil (in JSON null) where no request was timed.
type TrafficPoint struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Requests float64   `json:"requests"`
	Rows     float64   `json:"rows"`
	Errors   float64   `json:"errors"`
	P50MS    *float64  `json:"p50_ms"`
	P99MS    *float64  `json:"p99_ms"`
}

// Performance is how well a version did where labels have come, whole and by
// step.
type Performance struct {
	Model   string             `json:"model"`
	Version string             `json:"version"`
	Task    string             `json:"task"`
	Rows    PerformanceRows    `json:"rows"`
	Metrics map[string]float64 `json:"metrics"`
	State   stats.State        `json:"state"`
	Reason  string             `json:"reason,omitempty"`
	Chunks  []PerformanceChunk `json:"chunks,omitempty"`
}

// PerformanceRows says how many predictions there are, how many have labels, and
// how many of those were left out because label or score mean nothing to the task.
type PerformanceRows struct {
	Predictions float64 `json:"predictions"`
	Labelled    float64 `json:"labelled"`
	Unusable    float64 `json:"unusable"`
}

// PerformanceChunk is Performance over one step.
type PerformanceChunk struct {
	Start   time.Time          `json:"start"`
	End     time.Time          `json:"end"`
	Rows    PerformanceRows    `json:"rows"`
	Metrics map[string]float64 `json:"metrics"`
	State   stats.State        `json:"state"`
	Reason  string             `json:"reason,omitempty"`
}

// Span is one line of a trace.
type Span struct {
	ID         string            `json:"id"`
	Parent     string            `json:"parent"`
	Name       string            `json:"name"`
	Service    string            `json:"service"`
	Start      time.Time         `json:"start"`
	Duration   time.Duration     `json:"duration_ns"`
	Status     string            `json:"status"`
	Attributes map[string]string `json:"attributes"`
}

// EventsDropped says why CloudEvents were dropped: they fit no version, or their file was damaged or gone.
type EventsDropped struct{ Unfit, Damaged, Gone int64 }

// Total is all of them.
func (e EventsDropped) Total() int64 { return e.Unfit + e.Damaged + e.Gone }

// Status is how the server itself is doing.
type Status struct {
	// Waiting is how many records the spool holds that ClickHouse does not yet,
	// WaitingBytes their size, Lag the age of the oldest.
	Waiting      int64
	WaitingBytes int64
	Lag          time.Duration
	// LagLimit is the lag above which an alert fires.
	LagLimit time.Duration
	// In and Out are records a second into the spool and out of it.
	In, Out float64
	// Fill is the share of the spool that is taken, Full that the last record found no
	// room, DiskBytes what it takes on disk.
	Fill      float64
	Full      bool
	DiskBytes int64
	// Lost and Damaged count records and bytes; Batches and Rows what was stored since
	// the start.
	Lost, Damaged, Batches, Rows int64
	// Missing counts segments of the spool that were gone, or cut short, when the server
	// started, with records that were not stored.
	Missing int64
	// Dropped counts CloudEvents since the start that were taken and will not be recorded, by
	// why, and DroppedRows rows of others.
	Dropped     EventsDropped
	DroppedRows int64
	// Losses says what was found gone from the data folder, or another than before,
	// until the operator deletes the file LossesFile there.
	Losses      []string
	LossesFile  string
	Durability  string
	DeadLetters int
	// Store is "ok" or why ClickHouse cannot be asked, StoreSince since when, Refused
	// that it refuses what it is sent, which waiting alone will not mend.
	Store      string
	StoreSince time.Time
	Refused    bool
}

// Sources are the questions that pages and answers are made of. All but Dead are
// required; cmd fills them.
type Sources struct {
	Models      func() []*collector.ModelVersion
	States      func(ctx context.Context) []collector.ModelState
	Traffic     func(ctx context.Context, w Window) ([]TrafficPoint, error)
	Drift       func(ctx context.Context, w Window) (stats.Report, error)
	Performance func(ctx context.Context, w Window) (Performance, error)
	// Bins gives one feature's shares by bin, reference beside current.
	Bins       func(ctx context.Context, w Window, feature string) (Bins, error)
	List       func(ctx context.Context, q collector.Query) (collector.Page, error)
	Count      func(ctx context.Context, q collector.Query) (int64, error)
	Prediction func(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error)
	Explain    func(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error)
	Spans      func(ctx context.Context, traceID string) ([]Span, error)
	// Privacy says what of a row is private, for whoever asks with ctx.
	Privacy func(ctx context.Context, p *collector.StoredPrediction) (Privacy, error)
	// Extent is the span of event time that a model's stored predictions cover.
	Extent func(ctx context.Context, tenant, model, version string) (from, to time.Time, err error)
	Alerts func() []alerts.Alert
	// PastAlerts is what fired and what became of it, the newest first; the
	// alerts that fire now are among it.
	PastAlerts func(ctx context.Context, q AlertQuery) (PastAlerts, error)
	// Rules are the alert rules in force, the built-in ones last.
	Rules func() []Rule
	// Receivers are the names of the channels that alerts are sent to.
	Receivers []string
	// Dead are the dead letters; nil where there are none to be kept.
	Dead   *DeadLetters
	Status func(ctx context.Context) Status
	// Now is the server's clock.
	Now func() time.Time
}

// Privacy is what of a stored row is private.
type Privacy struct {
	// Features and Outputs name the private ones with what is done to them (drop, mask,
	// hash, bucket, seal), or "pattern" where a pattern took something out of the text.
	Features, Outputs map[string]string
	// Sealed says that there are sealed values, MayUnseal that who asks may see them,
	// Unsealed that the row shows them.
	Sealed, MayUnseal, Unsealed bool
}

// Bins is one feature's distribution, reference beside current, with a name for
// each bin that a person can read.
type Bins struct {
	Feature   string     `json:"feature"`
	Kind      stats.Kind `json:"kind"`
	Labels    []string   `json:"labels"`
	Reference []float64  `json:"reference"`
	Current   []float64  `json:"current"`
}

// Rule is an alert rule and where it stands. Times are event time.
type Rule struct {
	Name string `json:"name"`
	// File is where it stands, "built in" for a rule about Pellucid itself.
	File    string `json:"file"`
	Model   string `json:"model,omitempty"`
	Version string `json:"version,omitempty"`
	Kind    string `json:"kind"`
	// Condition and Timing are the rule in words.
	Condition   string            `json:"condition"`
	Timing      string            `json:"timing"`
	Severity    string            `json:"severity"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	State       string            `json:"state"`
	// Since is when the state began, for one that is pending, firing or resolved.
	Since time.Time `json:"since,omitzero"`
	// EvaluatedAt is the end of the window that was judged last, Signal what was found in
	// it (ok, drifted, no_data, no_reference, error), Reason why.
	EvaluatedAt time.Time `json:"evaluated_at,omitzero"`
	Signal      string    `json:"signal,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	// Error says why the rule cannot be judged.
	Error string `json:"error,omitempty"`
}

// AlertQuery asks for alerts by what became of them. A zero field means any.
type AlertQuery struct {
	Tenant, Model, Rule string
	// State is "firing" for alerts that were never resolved, or "resolved".
	State string
	// From and To select the alerts that were firing at some time of [From, To).
	From, To time.Time
	Limit    int
	Cursor   string
}

// PastAlerts is one page of a listing of alerts.
type PastAlerts struct {
	Alerts []PastAlert `json:"alerts"`
	Next   string      `json:"next,omitempty"`
}

// PastAlert is one alert from when it began to fire to when it was resolved.
// Times are event time.
type PastAlert struct {
	Rule        string `json:"rule"`
	Fingerprint string `json:"fingerprint"`
	Model       string `json:"model"`
	Version     string `json:"version"`
	Kind        string `json:"kind"`
	Severity    string `json:"severity"`
	// State is firing, resolved, or unwatched: never resolved, but its rule is gone
	// or watches something else by now.
	State string `json:"state"`
	// StartsAt is zero where only the end is known, EndsAt while there is none.
	StartsAt time.Time `json:"starts_at,omitzero"`
	EndsAt   time.Time `json:"ends_at,omitzero"`
	// Value is the first number at fault, Features all of them as name=value when
	// the alert began, LastFeatures when they were last at fault.
	Value        float64 `json:"value"`
	Features     string  `json:"features"`
	LastFeatures string  `json:"last_features,omitempty"`
	Summary      string  `json:"summary"`
	// From and To bound the window that made it fire; Predictions are ids of some
	// of the window's predictions.
	From        time.Time `json:"from,omitzero"`
	To          time.Time `json:"to,omitzero"`
	Predictions []string  `json:"predictions"`
}
