package alerts

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// Alert is a rule's alert as it is shown and sent.
type Alert struct {
	Rule     string `json:"rule"`
	Model    string `json:"model"`
	Version  string `json:"version"`
	Kind     Kind   `json:"kind"`
	State    State  `json:"state"`
	Severity string `json:"severity"`
	// Labels identify the alert, Annotations describe it.
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	// Fingerprint is a hash of the labels, the same for as long as the rule keeps
	// its name, model, kind, severity and labels.
	Fingerprint string `json:"fingerprint"`
	// StartsAt is when the alert began to fire (for a pending one: to hold),
	// EndsAt when it was resolved; zero while it was not. Both are event time.
	StartsAt  time.Time `json:"starts_at"`
	EndsAt    time.Time `json:"ends_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at"`
	// Findings are the features and numbers at fault, From to To the window they
	// were found in, Samples ids of predictions that show it.
	Findings     []Finding `json:"findings"`
	From         time.Time `json:"from"`
	To           time.Time `json:"to"`
	Rows         int       `json:"rows"`
	Samples      []string  `json:"samples,omitempty"`
	GeneratorURL string    `json:"generator_url,omitempty"`
	// Signal and Reason tell of the last evaluation, so that an alert kept alive
	// by missing data can be seen as such.
	Signal string `json:"signal"`
	Reason string `json:"reason,omitempty"`
}

// alert makes the alert of a rule in a status.
func (r *Rule) alert(s Status, url func(*Alert) string) Alert {
	a := Alert{
		Rule: r.Name, Model: r.Model, Version: s.Shown.Version, Kind: r.Kind, State: s.State, Severity: r.Severity,
		StartsAt: s.FiredAt, EndsAt: s.ResolvedAt, UpdatedAt: s.EvaluatedAt,
		Findings: s.Shown.Findings, From: s.Shown.From, To: s.Shown.To, Rows: s.Shown.Rows, Samples: s.Samples,
		Signal: string(s.Signal.State), Reason: s.Signal.Reason,
	}
	if a.Reason == "" && s.SamplesError != "" {
		a.Reason = "no sample predictions: " + s.SamplesError
	}
	if a.StartsAt.IsZero() {
		a.StartsAt = s.ActiveAt
	}
	fill := r.filler(&a)
	a.Labels = map[string]string{"alertname": r.Name, "model": r.Model, "kind": string(r.Kind), "severity": r.Severity}
	if r.Kind == KindSelf {
		delete(a.Labels, "model")
	}
	if r.Version != "" {
		a.Labels["version"] = r.Version
	}
	for k, v := range r.Labels {
		a.Labels[k] = fill(v)
	}
	a.Annotations = map[string]string{
		"summary":     r.summary(&a),
		"features":    a.features(),
		"window":      a.From.Format(time.RFC3339) + "/" + a.To.Format(time.RFC3339),
		"rows":        strconv.Itoa(a.Rows),
		"predictions": strings.Join(a.Samples, ","),
	}
	for k, v := range r.Annotations {
		a.Annotations[k] = fill(v)
	}
	maps.DeleteFunc(a.Annotations, func(_, v string) bool { return v == "" })
	a.Fingerprint = fingerprint(a.Labels)
	if url != nil {
		a.GeneratorURL = url(&a)
	}
	return a
}

// labels are those of the rule's alert, which no evaluation changes.
func (r *Rule) labels() map[string]string { return r.alert(Status{}, nil).Labels }

// features lists the findings as name=value, the largest excess first.
func (a *Alert) features() string {
	parts := make([]string, len(a.Findings))
	for i, f := range a.Findings {
		name := f.Test
		if f.Feature != "" {
			name = f.Feature
		}
		parts[i] = name + "=" + number(f.Value)
	}
	return strings.Join(parts, ", ")
}

func (r *Rule) summary(a *Alert) string {
	if r.Kind == KindDrift {
		return fmt.Sprintf("%s: %d of its features drifted by %s over %s", r.Model, len(a.Findings), r.Test, stats.FormatDuration(r.Window))
	}
	if len(a.Findings) == 0 {
		return ""
	}
	f, over := a.Findings[0], stats.FormatDuration(r.Window)
	if r.Delay > 0 {
		over += " that ended " + stats.FormatDuration(r.Delay) + " before"
	}
	return fmt.Sprintf("%s: %s is %s over %s, the limit is %s", r.Model, f.Test, number(f.Value), over, number(f.Threshold))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// filler returns how to replace the placeholders of a text.
func (r *Rule) filler(a *Alert) func(string) string {
	value, threshold := "", ""
	if len(a.Findings) > 0 {
		value, threshold = number(a.Findings[0].Value), number(a.Findings[0].Threshold)
	}
	values := map[string]string{
		"rule": r.Name, "model": r.Model, "version": a.Version, "kind": string(r.Kind), "severity": r.Severity,
		"test": string(r.Test), "metric": r.Metric, "value": value, "threshold": threshold, "features": a.features(),
		"rows": strconv.Itoa(a.Rows), "window": stats.FormatDuration(r.Window),
		"from": a.From.Format(time.RFC3339), "to": a.To.Format(time.RFC3339),
	}
	return func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(m string) string {
			return values[placeholder.FindStringSubmatch(m)[1]]
		})
	}
}

// fingerprint hashes labels as Alertmanager does: FNV-1a over the sorted names
// and values, each closed by 0xff.
func fingerprint(labels map[string]string) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		// A hash.Hash never returns an error.
		_, _ = h.Write([]byte(name + "\xff" + labels[name] + "\xff"))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
