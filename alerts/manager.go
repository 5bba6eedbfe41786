package alerts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// Config of a Manager.
type Config struct {
	Rules []Rule
	Source
	// Notify takes alerts that began to fire or were resolved. An error means
	// that they were not taken and are offered again at the next evaluation.
	Notify func(ctx context.Context, alerts []Alert) error
	// StatePath is the local log of states; "" keeps them in memory only.
	StatePath string
	// URL returns where an alert can be looked at; nil gives none.
	URL func(a *Alert) string
	// CatchUp is how many evaluations of a rule that fell behind are made up for
	// at once; 0 means 1000. Older ones are left out.
	CatchUp int
}

// Manager evaluates rules and keeps their states. Its methods may be called at
// the same time; evaluations happen one after the other.
type Manager struct {
	cfg Config
	// evaluating serialises Evaluate, so that mu is never held over a query.
	evaluating sync.Mutex

	mu     sync.RWMutex // guards everything declared below
	states map[string]Status
	log    *stateLog
}

// New opens the state log and returns a manager. States of rules that are no
// longer there are forgotten.
func New(cfg Config) (*Manager, error) {
	cfg.CatchUp = cmp.Or(cfg.CatchUp, 1000)
	m := &Manager{cfg: cfg, states: map[string]Status{}}
	if cfg.StatePath == "" {
		return m, nil
	}
	log, states, err := openLog(cfg.StatePath)
	if err != nil {
		return nil, err
	}
	m.log = log
	for i := range cfg.Rules {
		r := &cfg.Rules[i]
		s, ok := states[r.Name]
		if !ok {
			continue
		}
		m.states[s.Rule] = s
		if s.Definition != "" {
			continue
		}
		// Of an earlier release, which did not say: the rule is taken for the same.
		s.Definition, s.Labels = r.definition(), r.labels()
		if err := m.keep(s, false); err != nil {
			return nil, errors.Join(err, log.close())
		}
	}
	return m, nil
}

// Close syncs and closes the state log. The manager must not be used after it.
func (m *Manager) Close() error {
	m.evaluating.Lock()
	defer m.evaluating.Unlock()
	if m.log == nil {
		return nil
	}
	log := m.log
	m.log = nil
	return log.close()
}

// Evaluate makes every evaluation that is due at event time now, of the rules of
// one model or of all ("" ), and sends what changed. first is the event time of the
// model's first data: a rule that was never evaluated begins there, so that the
// same data gives the same alerts however fast it came; zero begins it now. Trouble with a rule's data
// is its signal, not an error; an error is trouble with the state or the
// messages.
func (m *Manager) Evaluate(ctx context.Context, model string, first, now time.Time) error {
	m.evaluating.Lock()
	defer m.evaluating.Unlock()
	var errs []error
	for i := range m.cfg.Rules {
		r := &m.cfg.Rules[i]
		if model != "" && r.Model != model {
			continue
		}
		if known := m.status(r.Name).Definition; known != "" && known != r.definition() {
			if err := m.judgeAnew(ctx, r, now); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		for _, at := range r.due(m.status(r.Name).EvaluatedAt, first, now, m.cfg.CatchUp) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := m.step(ctx, r, at); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, m.resend(ctx))...)
}

// step makes one evaluation.
func (m *Manager) step(ctx context.Context, r *Rule, at time.Time) error {
	sig := r.Check(ctx, m.cfg.Source, at)
	if err := ctx.Err(); err != nil {
		return err // the signal is of our own stopping: not an evaluation
	}
	next, changed := m.status(r.Name).Next(r, sig, at)
	return m.settle(ctx, r, next, changed)
}

// judgeAnew evaluates a rule that was edited under its name, at the newest time that is
// due: as if it had been in force for as long as it has to hold. An alert of the earlier
// definition goes on or is resolved by what this one finds, and where this finds no data
// or an error it stays as it is; its history stays in any case.
func (m *Manager) judgeAnew(ctx context.Context, r *Rule, now time.Time) error {
	at := floorTo(now, r.Every)
	var s Status
	for i := r.steps(m.cfg.CatchUp) - 1; i >= 0; i-- {
		to := at.Add(-r.Every * time.Duration(i))
		sig := r.Check(ctx, m.cfg.Source, to)
		if err := ctx.Err(); err != nil {
			return err
		}
		s, _ = s.Next(r, sig, to)
	}
	old := m.status(r.Name)
	if old.State == Firing && !maps.Equal(old.Labels, r.labels()) {
		if err := m.endOther(ctx, r, old, at); err != nil {
			return err
		}
		old.State = Resolved
	}
	if old.State != Firing {
		return m.settle(ctx, r, s, s.State == Firing)
	}
	sig := s.Signal
	switch next, changed := old.Next(r, sig, at); {
	case s.State == Firing || sig.State != stats.StateDrifted:
		return m.settle(ctx, r, next, changed)
	default: // what this definition finds has not held for long enough
		next.State, next.ResolvedAt, next.Held = Resolved, at, 0
		return m.settle(ctx, r, next, true)
	}
}

// endOther says of the alert that a rule had under other labels that it is over: no
// evaluation will.
func (m *Manager) endOther(ctx context.Context, r *Rule, old Status, at time.Time) error {
	if m.cfg.Notify == nil {
		return nil
	}
	old.State, old.ResolvedAt = Resolved, at
	a := r.alert(old, m.cfg.URL)
	a.Labels, a.Fingerprint = old.Labels, fingerprint(old.Labels)
	a.Model, a.Kind, a.Severity = old.Labels["model"], Kind(old.Labels["kind"]), old.Labels["severity"]
	if err := m.cfg.Notify(ctx, []Alert{a}); err != nil {
		return fmt.Errorf("send the end of alert %q as it was: %w", r.Name, err)
	}
	return nil
}

// settle keeps what an evaluation came to, and sends what changed.
func (m *Manager) settle(ctx context.Context, r *Rule, next Status, changed bool) error {
	next.Definition, next.Labels = r.definition(), r.labels()
	if changed {
		next.Unsent = m.cfg.Notify != nil
		next.Samples, next.SamplesError = m.samples(ctx, r, next)
	}
	if err := m.keep(next, changed); err != nil {
		return err
	}
	if !changed || m.cfg.Notify == nil {
		return nil
	}
	return m.send(ctx, r, next)
}

// samples asks for predictions that show what fires. None is better than no
// alert, so trouble is told in the alert instead.
func (m *Manager) samples(ctx context.Context, r *Rule, s Status) (ids []string, trouble string) {
	if m.cfg.Samples == nil || s.State != Firing {
		return s.Samples, s.SamplesError
	}
	q := Query{Model: r.Model, Version: cmp.Or(r.Version, s.Shown.Version), From: s.Shown.From, To: s.Shown.To}
	ids, err := m.cfg.Samples(ctx, q, s.Shown.Findings)
	if err != nil {
		return nil, err.Error()
	}
	return ids, ""
}

// send offers one alert; a status is marked as sent once it was taken.
func (m *Manager) send(ctx context.Context, r *Rule, s Status) error {
	if err := m.cfg.Notify(ctx, []Alert{r.alert(s, m.cfg.URL)}); err != nil {
		return fmt.Errorf("send alert %q: %w", r.Name, err)
	}
	s.Unsent = false
	return m.keep(s, false)
}

// resend offers again what was not taken, also before a restart.
func (m *Manager) resend(ctx context.Context) error {
	if m.cfg.Notify == nil {
		return nil
	}
	var errs []error
	for i := range m.cfg.Rules {
		r := &m.cfg.Rules[i]
		if s := m.status(r.Name); s.Unsent {
			errs = append(errs, m.send(ctx, r, s))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) status(rule string) Status {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.states[rule]
}

func (m *Manager) keep(s Status, sync bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[s.Rule] = s
	if m.log == nil {
		return nil
	}
	if err := m.log.append(s, sync); err != nil {
		return err
	}
	return m.log.compact(m.states)
}

// Alerts returns the alerts of all rules that are not inactive, by rule name.
func (m *Manager) Alerts() []Alert {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := []Alert{}
	for i := range m.cfg.Rules {
		r := &m.cfg.Rules[i]
		s := m.states[r.Name]
		if s.State == "" || s.State == Inactive {
			continue
		}
		out = append(out, r.alert(s, m.cfg.URL))
	}
	slices.SortFunc(out, func(a, b Alert) int { return cmp.Compare(a.Rule, b.Rule) })
	return out
}

// Statuses returns the status of every rule in the rules' order, those never
// evaluated with only their name.
func (m *Manager) Statuses() []Status {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]Status, len(m.cfg.Rules))
	for i := range m.cfg.Rules {
		out[i] = m.states[m.cfg.Rules[i].Name]
		out[i].Rule = m.cfg.Rules[i].Name
		out[i].State = cmp.Or(out[i].State, Inactive)
	}
	return out
}

// Rules returns the rules.
func (m *Manager) Rules() []Rule { return slices.Clone(m.cfg.Rules) }

// Event is one change of an alert in a replay.
type Event struct {
	At    time.Time `json:"at"`
	From  State     `json:"from"`
	Alert Alert     `json:"alert"`
}

// Replay tells what the rules would have done over [from, to]: every change of
// state, in the order of event time, then of the rules. It keeps and sends
// nothing.
func Replay(ctx context.Context, rules []Rule, src Source, from, to time.Time) ([]Event, error) {
	states := make([]Status, len(rules))
	var events []Event
	for {
		i, at := nextStep(rules, states, from)
		if i < 0 || at.After(to) {
			return events, nil
		}
		if err := ctx.Err(); err != nil {
			return events, err
		}
		r := &rules[i]
		next, _ := states[i].Next(r, r.Check(ctx, src, at), at)
		before := cmp.Or(states[i].State, Inactive)
		states[i] = next
		if before != next.State {
			events = append(events, Event{At: at, From: before, Alert: r.alert(next, nil)})
		}
	}
}

// nextStep returns the rule whose evaluation comes next.
func nextStep(rules []Rule, states []Status, from time.Time) (int, time.Time) {
	best, when := -1, time.Time{}
	for i := range rules {
		at := states[i].EvaluatedAt.Add(rules[i].Every)
		if states[i].EvaluatedAt.IsZero() {
			if at = floorTo(from, rules[i].Every); at.Before(from) {
				at = at.Add(rules[i].Every)
			}
		}
		if best < 0 || at.Before(when) {
			best, when = i, at
		}
	}
	return best, when
}
