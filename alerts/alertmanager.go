package alerts

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GettableAlert is an alert in the shape of Alertmanager's API, version 2.
type GettableAlert struct {
	Annotations  map[string]string `json:"annotations"`
	EndsAt       string            `json:"endsAt"`
	Fingerprint  string            `json:"fingerprint"`
	Receivers    []Receiver        `json:"receivers"`
	StartsAt     string            `json:"startsAt"`
	Status       AlertStatus       `json:"status"`
	UpdatedAt    string            `json:"updatedAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
	Labels       map[string]string `json:"labels"`
}

// Receiver names a channel.
type Receiver struct {
	Name string `json:"name"`
}

// AlertStatus says whether an alert is active or suppressed.
type AlertStatus struct {
	InhibitedBy []string `json:"inhibitedBy"`
	SilencedBy  []string `json:"silencedBy"`
	State       string   `json:"state"`
}

// Filter selects alerts as the parameters of GET /api/v2/alerts do.
type Filter struct {
	// Matchers such as alertname="x", severity=~"warn.*", team!="a".
	Matchers []string
	// Active, Silenced and Inhibited include alerts in that state; nil means
	// true, as in Alertmanager.
	Active, Silenced, Inhibited *bool
	// Receiver is a regular expression over the whole receiver name.
	Receiver string
}

const amTime = "2006-01-02T15:04:05.000Z07:00"

// farEnd is how far ahead of its last update a firing alert is said to end, since
// Alertmanager's clients expect an end.
const farEnd = 24 * time.Hour

// Gettable returns the alerts that fire, as GET /api/v2/alerts answers them.
// Pending and resolved alerts are not part of that answer. A bad matcher is an
// error for the client (400).
func Gettable(list []Alert, receivers []string, f Filter) ([]GettableAlert, error) {
	out := []GettableAlert{}
	matchers, err := parseMatchers(f.Matchers)
	if err != nil {
		return nil, err
	}
	named, err := receiverNames(receivers, f.Receiver)
	if err != nil {
		return nil, err
	}
	for i := range list {
		a := &list[i]
		if !f.shows(a.State) || len(named) == 0 {
			continue
		}
		if !slices.ContainsFunc(matchers, func(m matcher) bool { return !m.matches(a.Labels) }) {
			out = append(out, gettable(a, named))
		}
	}
	slices.SortFunc(out, func(a, b GettableAlert) int { return cmp.Compare(a.Fingerprint, b.Fingerprint) })
	return out, nil
}

func (f *Filter) shows(s State) bool {
	on := func(b *bool) bool { return b == nil || *b }
	switch s {
	case Firing:
		return on(f.Active)
	case Silenced:
		return on(f.Silenced)
	}
	return false
}

func receiverNames(receivers []string, pattern string) ([]Receiver, error) {
	if len(receivers) == 0 {
		receivers = []string{"log"}
	}
	re, err := regexp.Compile("^(?:" + cmp.Or(pattern, ".*") + ")$")
	if err != nil {
		return nil, fmt.Errorf("receiver %q is not a regular expression", pattern)
	}
	var out []Receiver
	for _, r := range receivers {
		if re.MatchString(r) {
			out = append(out, Receiver{Name: r})
		}
	}
	return out, nil
}

func gettable(a *Alert, receivers []Receiver) GettableAlert {
	end := a.EndsAt
	if end.IsZero() {
		end = a.UpdatedAt.Add(farEnd)
	}
	g := GettableAlert{
		Annotations: a.Annotations, Labels: a.Labels, Fingerprint: a.Fingerprint, Receivers: receivers, GeneratorURL: a.GeneratorURL,
		StartsAt: a.StartsAt.UTC().Format(amTime), EndsAt: end.UTC().Format(amTime), UpdatedAt: a.UpdatedAt.UTC().Format(amTime),
		Status: AlertStatus{InhibitedBy: []string{}, SilencedBy: []string{}, State: "active"},
	}
	if a.State == Silenced {
		g.Status.State = "suppressed"
	}
	return g
}

type matcher struct {
	name, value string
	negate      bool
	re          *regexp.Regexp
}

var matcherForm = regexp.MustCompile(`^\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*$`)

// parseMatchers reads matchers; one text may hold several in braces.
func parseMatchers(texts []string) ([]matcher, error) {
	var out []matcher
	for _, text := range texts {
		text = strings.TrimSpace(text)
		parts := []string{text}
		if strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") {
			parts = splitQuoted(text[1 : len(text)-1])
		}
		for _, part := range parts {
			m, err := parseMatcher(part)
			if err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	return out, nil
}

// splitQuoted splits at commas outside of quotes.
func splitQuoted(s string) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	if strings.TrimSpace(s[start:]) != "" {
		out = append(out, s[start:])
	}
	return out
}

func parseMatcher(text string) (matcher, error) {
	p := matcherForm.FindStringSubmatch(text)
	if p == nil {
		return matcher{}, fmt.Errorf("matcher %q is not like name=\"value\"", text)
	}
	m := matcher{name: p[1], value: p[3], negate: p[2][0] == '!'}
	if strings.HasPrefix(m.value, `"`) {
		v, err := strconv.Unquote(m.value)
		if err != nil {
			return matcher{}, fmt.Errorf("matcher %q: the value is not well quoted", text)
		}
		m.value = v
	}
	if p[2][1:] == "~" {
		re, err := regexp.Compile("^(?:" + m.value + ")$")
		if err != nil {
			return matcher{}, fmt.Errorf("matcher %q: not a regular expression", text)
		}
		m.re = re
	}
	return m, nil
}

func (m *matcher) matches(labels map[string]string) bool {
	v := labels[m.name]
	if m.re != nil {
		return m.re.MatchString(v) != m.negate
	}
	return (v == m.value) != m.negate
}
