package main

import (
	"cmp"
	"errors"
	"strings"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

// builtIn is the file of the rules about Pellucid itself.
const builtIn = "built in"

// rules are all alert rules with where they stand.
func (s *server) rules() []api.Rule {
	out := []api.Rule{}
	for _, m := range []struct {
		manager *alerts.Manager
		file    string
	}{{s.manager, s.cfg.Alerts.Rules}, {s.self.manager, builtIn}} {
		states := m.manager.Statuses()
		for i, r := range m.manager.Rules() {
			out = append(out, s.ruleOf(&r, &states[i], m.file))
		}
	}
	return out
}

func (s *server) ruleOf(r *alerts.Rule, st *alerts.Status, file string) api.Rule {
	out := api.Rule{
		Name: r.Name, File: file, Model: r.Model, Version: r.Version, Kind: string(r.Kind), Condition: r.Condition(), Timing: r.Timing(),
		Severity: r.Severity, Labels: r.Labels, Annotations: r.Annotations,
		State: string(st.State), EvaluatedAt: st.EvaluatedAt, Signal: string(st.Signal.State), Reason: st.Signal.Reason,
	}
	switch st.State {
	case alerts.Pending:
		out.Since = st.ActiveAt
	case alerts.Firing:
		out.Since = st.FiredAt
	case alerts.Resolved:
		out.Since = st.ResolvedAt
	}
	if st.Signal.State == stats.StateError {
		out.Error = cmp.Or(st.Signal.Reason, "it could not be evaluated")
	}
	if st.EvaluatedAt.IsZero() {
		behind := stats.FormatDuration(lateness)
		if r.Delay > 0 {
			behind = stats.FormatDuration(r.Delay) + " and " + behind
		}
		out.Reason = "not due yet: windows are judged " + behind + " behind the newest prediction"
	}
	if r.Kind != alerts.KindSelf {
		out.Error = cmp.Or(s.unjudged(r), out.Error)
	}
	return out
}

// unjudged says why a rule cannot be judged as the server stands, whatever was found when
// it last was.
func (s *server) unjudged(r *alerts.Rule) string {
	v, err := s.models.Find(r.Model, r.Version)
	switch {
	case errors.Is(err, collector.ErrNotFound):
		return "no such model or version answers here, or has answered"
	case err != nil:
		return err.Error()
	}
	if bad := r.Unwatched(watchable(v)); len(bad) > 0 {
		return "the model has no such features, or they are private: " + strings.Join(bad, ", ")
	}
	return ""
}
