package alerts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// Query asks for one model's window of event time, [From, To).
type Query struct {
	Model, Version string
	From, To       time.Time
}

// Window is what a drift rule needs: the reference and the counts of the rows in
// the window, field by field, binned by that reference.
type Window struct {
	// Version is the one that was counted, where the query named none.
	Version   string
	Reference *stats.Reference
	Counts    []stats.Counts
	Rows      int
	// Features are the names that can be watched, known before there is a
	// reference; nil where they are not.
	Features []string
}

// Labelled is what a performance rule needs.
type Labelled struct {
	Version     string
	Performance stats.Performance
}

// Traffic is what rules on errors and latency need.
type Traffic struct {
	Version          string
	Requests, Failed int
	// LatencyMS holds p50, p90, p95 and p99 of the answered requests.
	LatencyMS map[string]float64
}

// Finding is one feature (or metric) of a signal.
type Finding struct {
	Feature   string  `json:"feature,omitempty"`
	Test      string  `json:"test"`
	Value     float64 `json:"value"`
	Threshold float64 `json:"threshold"`
}

// Signal is what one evaluation of a rule found.
type Signal struct {
	// State is ok, drifted (the condition holds), no_data, no_reference or error.
	State  stats.State `json:"state"`
	Reason string      `json:"reason,omitempty"`
	// Findings hold the features over their threshold, largest excess first; for
	// other kinds the one metric.
	Findings []Finding `json:"findings,omitempty"`
	Version  string    `json:"version,omitempty"`
	Rows     int       `json:"rows"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
}

// Source answers what rules ask. A nil field makes its kind of rule an error.
type Source struct {
	Window      func(ctx context.Context, q Query) (Window, error)
	Performance func(ctx context.Context, q Query) (Labelled, error)
	Traffic     func(ctx context.Context, q Query) (Traffic, error)
	// Self returns a number about Pellucid itself, by the metric's name.
	Self func(ctx context.Context, metric string) (float64, error)
	// Samples returns ids of predictions that show what was found, a few of
	// them; nil means none.
	Samples func(ctx context.Context, q Query, findings []Finding) ([]string, error)
}

// Check evaluates the rule at event time at: over the window that ends then, or the
// rule's delay before.
func (r *Rule) Check(ctx context.Context, src Source, at time.Time) Signal {
	to := at.Add(-r.Delay)
	q := Query{Model: r.Model, Version: r.Version, From: to.Add(-r.Window), To: to}
	var s Signal
	var err error
	switch r.Kind {
	case KindDrift:
		s, err = r.checkWindow(ctx, src, q)
	case KindPerformance:
		s, err = r.checkLabelled(ctx, src, q)
	case KindSelf:
		s, err = r.checkSelf(ctx, src)
	default:
		s, err = r.checkTraffic(ctx, src, q)
	}
	if err != nil {
		s = Signal{State: stats.StateError, Reason: err.Error()}
	}
	s.From, s.To, s.Version = q.From, q.To, cmp.Or(s.Version, r.Version)
	return s
}

func (r *Rule) checkWindow(ctx context.Context, src Source, q Query) (Signal, error) {
	if src.Window == nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: no drift here", r.Name)
	}
	w, err := src.Window(ctx, q)
	if err != nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: %w", r.Name, err)
	}
	if bad := r.Unwatched(w.Features); w.Features != nil && len(bad) > 0 {
		return Signal{State: stats.StateError, Reason: unwatched(bad[0]), Version: w.Version, Rows: w.Rows}, nil
	}
	opt := stats.Options{Tests: []stats.Test{r.Test}, MinRows: r.MinRows}
	if r.Above != nil {
		opt.Thresholds = map[stats.Test]float64{r.Test: *r.Above}
	}
	s := r.driftSignal(stats.Compare(w.Reference, w.Counts, w.Rows, opt))
	s.Version, s.Rows = w.Version, w.Rows
	return s, nil
}

func (r *Rule) driftSignal(rep stats.Report) Signal {
	s := Signal{State: rep.State, Reason: rep.Reason}
	if len(rep.Features) == 0 {
		return s
	}
	judged, seen := 0, map[string]bool{}
	for _, f := range rep.Features {
		if r.Features != nil && !slices.Contains(r.Features, f.Name) {
			continue
		}
		seen[f.Name] = true
		switch f.State {
		case stats.StateDrifted:
			t := f.Tests[r.Test]
			s.Findings = append(s.Findings, Finding{f.Name, string(r.Test), t.Value, t.Threshold})
			judged++
		case stats.StateOK:
			judged++
		default:
			s.State, s.Reason = f.State, cmp.Or(f.Reason, s.Reason)
		}
	}
	for _, name := range r.Features {
		if !seen[name] {
			return Signal{State: stats.StateError, Reason: unwatched(name)}
		}
	}
	slices.SortStableFunc(s.Findings, func(a, b Finding) int {
		return cmp.Compare(b.Value/b.Threshold, a.Value/a.Threshold)
	})
	switch {
	case len(s.Findings) >= r.AtLeast:
		s.State, s.Reason = stats.StateDrifted, ""
	case judged > 0:
		s.State, s.Reason = stats.StateOK, ""
	}
	return s
}

func unwatched(name string) string {
	return fmt.Sprintf("feature %q is not watched: the model has no such feature, or it is private", name)
}

// Unwatched returns those of the rule's features that are not among a model's.
func (r *Rule) Unwatched(features []string) []string {
	var out []string
	for _, name := range r.Features {
		if !slices.Contains(features, name) {
			out = append(out, name)
		}
	}
	return out
}

func (r *Rule) checkLabelled(ctx context.Context, src Source, q Query) (Signal, error) {
	if src.Performance == nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: no performance here", r.Name)
	}
	l, err := src.Performance(ctx, q)
	if err != nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: %w", r.Name, err)
	}
	p := l.Performance
	s := Signal{State: stats.StateNoData, Version: l.Version, Rows: p.Rows}
	if p.Rows < r.MinRows {
		s.Reason = fmt.Sprintf("%d labelled rows, a verdict needs %d", p.Rows, r.MinRows)
		if r.Delay == 0 {
			s.Reason += " (labels that come later count only in a rule with a delay)"
		}
		return s, nil
	}
	v, ok := p.Metrics[stats.Metric(r.Metric)]
	if !ok {
		s.Reason = fmt.Sprintf("%s is not defined for these rows", r.Metric)
		return s, nil
	}
	r.judge(&s, r.Metric, v)
	return s, nil
}

func (r *Rule) checkTraffic(ctx context.Context, src Source, q Query) (Signal, error) {
	if src.Traffic == nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: no traffic here", r.Name)
	}
	t, err := src.Traffic(ctx, q)
	if err != nil {
		return Signal{}, fmt.Errorf("evaluate rule %q: %w", r.Name, err)
	}
	s := Signal{State: stats.StateNoData, Version: t.Version, Rows: t.Requests}
	if t.Requests < r.MinRows || t.Requests == 0 {
		s.Reason = fmt.Sprintf("%d requests, a verdict needs %d", t.Requests, r.MinRows)
		return s, nil
	}
	if r.Kind == KindErrors {
		r.judge(&s, "error_rate", float64(t.Failed)/float64(t.Requests))
		return s, nil
	}
	v, ok := t.LatencyMS[r.Metric]
	if !ok {
		s.Reason = "no answered request"
		return s, nil
	}
	r.judge(&s, r.Metric, v)
	return s, nil
}

// judge holds one number against the rule's threshold.
func (r *Rule) judge(s *Signal, metric string, v float64) {
	limit, breach := 0.0, false
	if r.Above != nil {
		limit, breach = *r.Above, v > *r.Above
	} else {
		limit, breach = *r.Below, v < *r.Below
	}
	s.Findings = []Finding{{Test: metric, Value: v, Threshold: limit}}
	s.State = stats.StateOK
	if breach {
		s.State = stats.StateDrifted
	}
}
