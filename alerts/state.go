package alerts

import (
	"slices"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// State is where an alert stands.
type State string

// The states. Silenced is a firing alert that a silence covers.
const (
	Inactive State = "inactive"
	Pending  State = "pending"
	Firing   State = "firing"
	Resolved State = "resolved"
	Silenced State = "silenced"
)

// Status is all that is remembered of a rule. It is a value: Next returns the
// following one.
type Status struct {
	Rule  string `json:"rule"`
	State State  `json:"state"`
	// Definition is a digest of the rule that was evaluated, Labels those of its alert.
	// They are empty in a status that an earlier release kept.
	Definition string            `json:"definition,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// EvaluatedAt is the event time of the last evaluation.
	EvaluatedAt time.Time `json:"evaluated_at"`
	// ActiveAt is when the condition began to hold, FiredAt when the alert began
	// to fire, ResolvedAt when it stopped.
	ActiveAt   time.Time `json:"active_at,omitzero"`
	FiredAt    time.Time `json:"fired_at,omitzero"`
	ResolvedAt time.Time `json:"resolved_at,omitzero"`
	// Held counts the evaluations in a row for which the condition held.
	Held int `json:"held,omitempty"`
	// Signal is what the last evaluation found; Shown what the alert shows: the
	// last signal for which the condition held.
	Signal  Signal   `json:"signal"`
	Shown   Signal   `json:"shown"`
	Samples []string `json:"samples,omitempty"`
	// SamplesError says why there are no samples, where asking for them failed.
	SamplesError string `json:"samples_error,omitempty"`
	// Unsent marks a firing or resolved message that has not been taken yet.
	Unsent bool `json:"unsent,omitempty"`
}

// Next returns the status after an evaluation at event time at. changed says that
// the alert began to fire or was resolved, which is worth a message.
func (s Status) Next(r *Rule, sig Signal, at time.Time) (next Status, changed bool) {
	next = s
	next.Rule, next.EvaluatedAt, next.Signal = r.Name, at, sig
	if next.State == "" {
		next.State = Inactive
	}
	switch sig.State {
	case stats.StateDrifted:
		return next.held(r, sig, at)
	case stats.StateOK:
		return next.ended(at)
	}
	return next, false // not known: nothing changes
}

func (s Status) held(r *Rule, sig Signal, at time.Time) (Status, bool) {
	s.Shown = sig
	s.Held++
	switch s.State {
	case Firing:
		return s, false
	case Pending:
	default:
		s.State, s.ActiveAt, s.Held = Pending, at, 1
		s.FiredAt, s.ResolvedAt, s.Samples, s.SamplesError = time.Time{}, time.Time{}, nil, ""
	}
	if s.Held < r.ForEvaluations || at.Sub(s.ActiveAt) < r.ForDuration {
		return s, false
	}
	s.State, s.FiredAt = Firing, at
	return s, true
}

func (s Status) ended(at time.Time) (Status, bool) {
	s.Held = 0
	switch s.State {
	case Firing:
		s.State, s.ResolvedAt = Resolved, at
		return s, true
	case Resolved:
		if !s.Unsent {
			s.State = Inactive
		}
	default:
		s.State = Inactive
	}
	return s, false
}

// due returns the evaluation times of a rule after its last one up to now: whole
// multiples of Every since 1970. A rule never evaluated begins after first, the
// model's first data, and its delay, or with the newest where first is zero; one that
// fell behind by more than limit steps has only the newest limit.
func (r *Rule) due(last, first, now time.Time, limit int) []time.Time {
	newest := floorTo(now, r.Every)
	if last.IsZero() {
		if first.IsZero() {
			return []time.Time{newest}
		}
		last = first.Add(r.Delay)
	}
	var out []time.Time
	for t := newest; t.After(last) && len(out) < limit; t = t.Add(-r.Every) {
		out = append(out, t)
	}
	slices.Reverse(out)
	return out
}

func floorTo(t time.Time, d time.Duration) time.Time {
	us, step := t.UnixMicro(), d.Microseconds()
	q := us / step
	if us%step < 0 {
		q--
	}
	return time.UnixMicro(q * step).UTC()
}
