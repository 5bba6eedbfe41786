package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

var day0 = time.Date(2013, 4, 1, 0, 0, 0, 0, time.UTC)

func day(n int) time.Time { return day0.AddDate(0, 0, n) }

func rules(t *testing.T, text string) []Rule {
	t.Helper()
	r, err := ParseRules([]byte(text), "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const oneRule = `
rules:
  - name: drift
    model: flights
    kind: drift
    features: [dep_hour]
    window: 1d
    every: 1d
    for: 2
    labels: {team: risk}
    annotations: {summary: "{{ features }} of {{model}} over {{ rows }} rows"}
`

func TestRulesRefused(t *testing.T) {
	for body, want := range map[string]string{
		"model: m, kind: drift":                                                    "name and model",
		"name: a, model: m, kind: magic":                                           "magic",
		"name: a, model: m, kind: drift, test: pis":                                "pis",
		"name: a, model: m, kind: drift, wndow: 1d":                                "wndow",
		"name: a, model: m, kind: drift, window: 1y":                               "window",
		"name: a, model: m, kind: drift, every: 1ms":                               "second",
		"name: a, model: m, kind: drift, for: 0":                                   "for",
		"name: a, model: m, kind: drift, features: []":                             "features",
		"name: a, model: m, kind: drift, features: [x], k_of_n: 2":                 "k_of_n",
		"name: a, model: m, kind: drift, above: .nan":                              "finite",
		"name: a, model: m, kind: performance, metric: auc":                        "above and below",
		"name: a, model: m, kind: performance, metric: acu, below: 1":              "acu",
		"name: a, model: m, kind: errors":                                          "above",
		"name: a, model: m, kind: latency, metric: p42, above: 1":                  "p42",
		"name: a, model: m, kind: errors, above: 1, test: psi":                     "drift",
		"name: a, model: m, kind: drift, labels: {model: x}":                       "label",
		`name: a, model: m, kind: drift, labels: {x: "{{ value }}"}`:               "annotation",
		`name: a, model: m, kind: drift, annotations: {x: "{{ nothing }}"}`:        "nothing",
		"name: a, model: m, kind: drift, min_rows: -1":                             "min_rows",
		"name: a, model: m, kind: drift, delay: 30d":                               "delay belongs to kind performance",
		"name: a, model: m, kind: errors, above: 1, delay: 30d":                    "delay belongs to kind performance",
		"name: a, model: m, kind: latency, above: 1, delay: 30d":                   "delay belongs to kind performance",
		"name: a, model: m, kind: performance, metric: auc, below: 1, delay: 1y":   "delay",
		"name: a, model: m, kind: performance, metric: auc, below: 1, delay: 400d": "366 days",
	} {
		_, err := ParseRules([]byte("rules:\n  - {"+body+"}\n"), "rules.yaml")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rules.yaml") {
			t.Errorf("%s: %v", body, err)
		}
	}
	twice := "rules:\n  - {name: a, model: m, kind: drift}\n  - {name: a, model: m, kind: drift}\n"
	if _, err := ParseRules([]byte(twice), "r"); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v", err)
	}
}

// The state machine, a letter an evaluation: d the condition holds, o it does
// not, n no data, e error. Want: - inactive, p pending, F firing, R resolved.
// TestFeatureThatIsNotThere: a rule that watches nothing says so, also before
// there is a reference to hold it against.
func TestFeatureThatIsNotThere(t *testing.T) {
	r := rules(t, oneRule)[0]
	for _, c := range []struct {
		features []string
		state    stats.State
	}{{[]string{"dest"}, stats.StateError}, {[]string{"dest", "dep_hour"}, stats.StateNoReference}, {nil, stats.StateNoReference}} {
		s := r.Check(t.Context(), Source{Window: func(context.Context, Query) (Window, error) {
			return Window{Version: "1", Features: c.features}, nil
		}}, day(2))
		if s.State != c.state || c.state == stats.StateError && !strings.Contains(s.Reason, "dep_hour") {
			t.Errorf("%v: %s %q", c.features, s.State, s.Reason)
		}
	}
}

func TestStateMachine(t *testing.T) {
	for _, c := range []struct {
		name          string
		evaluations   int
		duration      time.Duration
		in, want      string
		notifications int
	}{
		{"at once", 1, 0, "odoodo", "-FR-FR", 4},
		{"two in a row", 2, 0, "dodddo", "p-pFFR", 2},
		{"no data keeps pending", 2, 0, "dnd", "ppF", 1},
		{"no data keeps firing", 1, 0, "dnneno", "FFFFFR", 2},
		{"no data from the start", 1, 0, "nne", "---", 0},
		{"for two days", 1, 48 * time.Hour, "dddo", "ppFR", 2},
		{"fires again after resolved", 1, 0, "dod", "FRF", 3},
	} {
		r := &Rule{Name: "r", ForEvaluations: c.evaluations, ForDuration: c.duration}
		var s Status
		got, sent := "", 0
		for i, in := range c.in {
			sig := Signal{State: map[rune]stats.State{'d': stats.StateDrifted, 'o': stats.StateOK, 'n': stats.StateNoData, 'e': stats.StateError}[in]}
			var changed bool
			if s, changed = s.Next(r, sig, day(i)); changed {
				sent++
			}
			got += map[State]string{Inactive: "-", Pending: "p", Firing: "F", Resolved: "R"}[s.State]
		}
		if got != c.want || sent != c.notifications {
			t.Errorf("%s: %s gives %s and %d messages, want %s and %d", c.name, c.in, got, sent, c.want, c.notifications)
		}
	}
}

// source shifts dep_hour on the days of the set.
func source(t *testing.T, shifted map[int]bool) Source {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	sample := func(n int, by float64) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = r.NormFloat64() + by
		}
		return out
	}
	ref, err := stats.NewReference([]stats.Column{{Name: "dep_hour", Kind: stats.KindNumeric, Numbers: sample(2000, 0)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	still, moved := ref.Fields[0].CountNumbers(sample(1000, 0)), ref.Fields[0].CountNumbers(sample(1000, 1))
	return Source{
		Window: func(_ context.Context, q Query) (Window, error) {
			if q.To.Sub(q.From) != 24*time.Hour || q.Model != "flights" {
				t.Errorf("query %+v", q)
			}
			c := still
			if shifted[int(q.To.Sub(day0)/(24*time.Hour))] {
				c = moved
			}
			return Window{Version: "1", Reference: ref, Counts: []stats.Counts{c}, Rows: 1000}, nil
		},
		Samples: func(context.Context, Query, []Finding) ([]string, error) { return []string{"id1", "id2"}, nil },
	}
}

func TestManagerSendsKeepsAndRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alerts.log")
	var sent []Alert
	down := false
	cfg := Config{
		Rules: rules(t, oneRule), Source: source(t, map[int]bool{3: true, 4: true, 5: true}), StatePath: path,
		Notify: func(_ context.Context, list []Alert) error {
			if down {
				return errors.New("away")
			}
			sent = append(sent, list...)
			return nil
		},
	}
	start := func() *Manager {
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ctx := context.Background()
	m := start()
	for d := range 4 {
		if err := m.Evaluate(ctx, "", time.Time{}, day(d).Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if a := m.Alerts(); len(a) != 1 || a[0].State != Pending || len(sent) != 0 {
		t.Fatalf("day 3: %+v, sent %d", a, len(sent))
	}
	// Killed: no Close, and a torn last line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("0badc0de {\"rule\":\"dri"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	m = start()
	down = true
	if err := m.Evaluate(ctx, "flights", time.Time{}, day(4)); err == nil {
		t.Error("a message that was not taken is no error")
	}
	m = start() // the message is owed after a restart too
	down = false
	if err := m.Evaluate(ctx, "flights", time.Time{}, day(4)); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || sent[0].State != Firing || !sent[0].StartsAt.Equal(day(4)) {
		t.Fatalf("sent %+v", sent)
	}
	a := sent[0]
	if a.Findings[0].Feature != "dep_hour" || a.Rows != 1000 || len(a.Samples) != 2 || a.Labels["team"] != "risk" || !a.From.Equal(day(3)) {
		t.Errorf("alert %+v", a)
	}
	if s := a.Annotations["summary"]; !strings.HasPrefix(s, "dep_hour=") || !strings.HasSuffix(s, "of flights over 1000 rows") {
		t.Errorf("summary %q", s)
	}
	// Two days at once are made up for one by one.
	if err := m.Evaluate(ctx, "", time.Time{}, day(7)); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 2 || sent[1].State != Resolved || !sent[1].EndsAt.Equal(day(6)) || sent[1].Fingerprint != a.Fingerprint {
		t.Fatalf("sent %+v", sent)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := start().Alerts(); len(got) != 0 {
		t.Errorf("after the end: %+v", got)
	}
}

func TestReplayEqualsManager(t *testing.T) {
	r := rules(t, oneRule)
	events, err := Replay(context.Background(), r, source(t, map[int]bool{3: true, 4: true, 8: true}), day(0), day(10))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range events {
		got += string(e.Alert.State[0]) + e.At.Format("02 ")
	}
	if got != "p04 f05 r06 i07 p09 i10 " {
		t.Errorf("replay: %s", got)
	}
}

func TestKinds(t *testing.T) {
	r := rules(t, `
rules:
  - {name: auc, model: m, kind: performance, metric: auc, below: 0.7}
  - {name: err, model: m, kind: errors, above: 0.01, min_rows: 10}
  - {name: p99, model: m, kind: latency, above: 20, min_rows: 10}
`)
	src := Source{
		Performance: func(context.Context, Query) (Labelled, error) {
			return Labelled{Performance: stats.Performance{Rows: 600, Metrics: map[stats.Metric]float64{stats.MetricAUC: 0.65}}}, nil
		},
		Traffic: func(context.Context, Query) (Traffic, error) {
			return Traffic{Requests: 100, Failed: 1, LatencyMS: map[string]float64{"p99": 25}}, nil
		},
	}
	for i, want := range []stats.State{stats.StateDrifted, stats.StateOK, stats.StateDrifted} {
		if got := r[i].Check(context.Background(), src, day(1)); got.State != want {
			t.Errorf("%s: %+v", r[i].Name, got)
		}
	}
	if got := r[0].Check(context.Background(), Source{}, day(1)); got.State != stats.StateError || got.Reason == "" {
		t.Errorf("no source: %+v", got)
	}
}

func TestCorruptMiddleIsRefused(t *testing.T) {
	line, err := encodeLine(Status{Rule: "a", State: Firing})
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte("junk\n"), line...)
	if _, _, err := decodeLog(bad); err == nil {
		t.Error("a bad line before a good one was taken")
	}
	for cut := range line {
		states, good, err := decodeLog(append(append([]byte{}, line...), line[:cut]...))
		if err != nil || good != len(line) || states["a"].State != Firing {
			t.Fatalf("cut at %d: %d good, %v", cut, good, err)
		}
	}
}

func TestCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.log")
	l, _, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Status{Rule: "a", State: Firing, Samples: []string{strings.Repeat("x", compactBytes)}}
	if err := l.append(s, false); err != nil {
		t.Fatal(err)
	}
	s.Samples = nil
	if err := l.compact(map[string]Status{"a": s}); err != nil {
		t.Fatal(err)
	}
	s.State = Resolved
	if err := errors.Join(l.append(s, true), l.close()); err != nil {
		t.Fatal(err)
	}
	_, states, err := openLog(path)
	if err != nil || states["a"].State != Resolved {
		t.Errorf("%v, %v", states, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 10_000 {
		t.Errorf("%v, %v", info.Size(), err)
	}
}

func TestGettable(t *testing.T) {
	list := []Alert{
		{Rule: "a", State: Firing, Labels: map[string]string{"alertname": "a", "severity": "warning"}, Annotations: map[string]string{}, Fingerprint: "1", StartsAt: day(1), UpdatedAt: day(2)},
		{Rule: "b", State: Pending, Labels: map[string]string{"alertname": "b"}},
		{Rule: "c", State: Resolved, Labels: map[string]string{"alertname": "c"}},
		{Rule: "d", State: Silenced, Labels: map[string]string{"alertname": "d", "severity": "page, now"}, Fingerprint: "2"},
	}
	no := false
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "a d"},
		{Filter{Silenced: &no}, "a"},
		{Filter{Active: &no}, "d"},
		{Filter{Matchers: []string{`alertname="a"`}}, "a"},
		{Filter{Matchers: []string{`alertname=~"a|d"`, `severity!="warning"`}}, "d"},
		{Filter{Matchers: []string{`{severity="page, now",alertname!~"a"}`}}, "d"},
		{Filter{Matchers: []string{`severity=~"warn"`}}, ""},
		{Filter{Receiver: "mail"}, ""},
	} {
		got, err := Gettable(list, []string{"webhook"}, c.f)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, g := range got {
			names = append(names, g.Labels["alertname"])
		}
		if s := strings.Join(names, " "); s != c.want {
			t.Errorf("%+v: %q, want %q", c.f, s, c.want)
		}
	}
	for _, bad := range []string{"", "x", `a="b`, `a=~"("`, `{a}`} {
		if _, err := Gettable(list, nil, Filter{Matchers: []string{bad}}); err == nil {
			t.Errorf("matcher %q was taken", bad)
		}
	}
	got, err := Gettable(list[:1], []string{"webhook"}, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	want := `[{"annotations":{},"endsAt":"2013-04-04T00:00:00.000Z","fingerprint":"1","receivers":[{"name":"webhook"}],"startsAt":"2013-04-02T00:00:00.000Z","status":{"inhibitedBy":[],"silencedBy":[],"state":"active"},"updatedAt":"2013-04-03T00:00:00.000Z","labels":{"alertname":"a","severity":"warning"}}]`
	if err != nil || string(b) != want {
		t.Errorf("%s", b)
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte(oneRule))
	f.Add([]byte("rules:\n  - {name: a, model: m, kind: performance, metric: auc, below: 0.5, for: 2h}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseRules(data, "fuzz")
		if err != nil {
			return
		}
		for i := range list {
			sig := Signal{State: stats.StateDrifted}
			s, _ := Status{}.Next(&list[i], sig, day(1))
			list[i].alert(s, nil)
			if len(list[i].due(day(0), time.Time{}, day(1), 10)) > 10 {
				t.Fatal("more steps than asked for")
			}
		}
	})
}

func FuzzDecodeLog(f *testing.F) {
	line, err := encodeLine(Status{Rule: "a", State: Firing})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(line, line[:9]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, good, err := decodeLog(data); err == nil && good > len(data) {
			t.Fatal("more good bytes than bytes")
		}
	})
}

// TestHistoryIsJudgedFromItsFirstRow: a rule that meets a model's data all at once
// is evaluated at the same times as one that saw it come.
func TestHistoryIsJudgedFromItsFirstRow(t *testing.T) {
	r := &Rule{Every: 24 * time.Hour}
	first := day(1).Add(3 * time.Hour)
	all := r.due(time.Time{}, first, day(9).Add(time.Hour), 100)
	var slowly []time.Time
	last := time.Time{}
	for h := range 24 * 9 {
		for _, at := range r.due(last, first, day(1).Add(time.Duration(h)*time.Hour+3*time.Hour), 100) {
			slowly, last = append(slowly, at), at
		}
	}
	if len(all) != 8 || !all[0].Equal(day(2)) || !slices.Equal(all, slowly[:len(all)]) {
		t.Errorf("at once %v, slowly %v", all, slowly)
	}
	if got := r.due(time.Time{}, first, day(9), 3); len(got) != 3 || !got[2].Equal(day(9)) {
		t.Errorf("with a limit: %v", got)
	}
}

// TestAnEditedRuleIsAnother: under the same name it is judged again at once by what it says
// now, on data that stands still too, and its alert goes on or ends by that.
func TestAnEditedRuleIsAnother(t *testing.T) {
	moved := map[int]bool{3: true, 4: true, 5: true, 6: true}
	for _, c := range []struct {
		name, before, after string
		state               State
		sent                []State
		since               int
	}{
		{"not at all", "", "", Firing, []State{Firing}, 4},
		{"its words", "of {{model}}", "in {{model}}", Firing, []State{Firing}, 4},
		{"less strict, holds", "for: 2", "for: 1", Firing, []State{Firing}, 4},
		{"too strict", "for: 2", "above: 1e6", Resolved, []State{Firing, Resolved}, 4},
		{"not for long enough", "for: 2", "for: 5", Resolved, []State{Firing, Resolved}, 4},
		{"other labels", "team: risk", "team: ops", Firing, []State{Firing, Resolved, Firing}, 6},
		{"no longer there to watch", "[dep_hour]", "[dep_minute]", Firing, []State{Firing}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent []Alert
			cfg := Config{
				Rules: rules(t, oneRule), Source: source(t, moved), StatePath: filepath.Join(t.TempDir(), "alerts.log"),
				Notify: func(_ context.Context, list []Alert) error { sent = append(sent, list...); return nil },
			}
			evaluate := func(until int) []Status {
				m, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Evaluate(t.Context(), "flights", day(0), day(until)); err != nil {
					t.Fatal(err)
				}
				states := m.Statuses()
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				return states
			}
			evaluate(6)
			cfg.Rules = rules(t, strings.Replace(oneRule, c.before, c.after, 1))
			for range 2 { // the second changes nothing
				s := evaluate(6)[0]
				if s.State != c.state || !s.FiredAt.Equal(day(c.since)) || !s.EvaluatedAt.Equal(day(6)) {
					t.Errorf("%s since %s, at %s (%+v)", s.State, s.FiredAt, s.EvaluatedAt, s.Signal)
				}
			}
			var states []State
			for _, a := range sent {
				states = append(states, a.State)
			}
			if !slices.Equal(states, c.sent) {
				t.Fatalf("sent %v, want %v", states, c.sent)
			}
			if len(sent) == 3 && (sent[1].Fingerprint != sent[0].Fingerprint || sent[2].Fingerprint == sent[0].Fingerprint || sent[1].Labels["team"] != "risk") {
				t.Errorf("another alert ended: %+v", sent[1].Labels)
			}
			if len(sent) == 2 && (sent[1].Fingerprint != sent[0].Fingerprint || !sent[1].EndsAt.Equal(day(6))) {
				t.Errorf("ended as %+v", sent[1])
			}
		})
	}
}

// TestAnEditedRuleFiresAtOnce where what it says now has held for as long as it asks for.
func TestAnEditedRuleFiresAtOnce(t *testing.T) {
	var sent []Alert
	cfg := Config{
		Rules: rules(t, strings.Replace(oneRule, "for: 2", "above: 1e6", 1)), Source: source(t, map[int]bool{5: true, 6: true}), StatePath: filepath.Join(t.TempDir(), "alerts.log"),
		Notify: func(_ context.Context, list []Alert) error { sent = append(sent, list...); return nil },
	}
	for _, text := range []string{"", oneRule} {
		if text != "" {
			cfg.Rules = rules(t, text)
		}
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Evaluate(t.Context(), "", day(0), day(6).Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 1 || sent[0].State != Firing || !sent[0].StartsAt.Equal(day(6)) {
		t.Errorf("sent %+v", sent)
	}
}

const lateRule = `
rules:
  - {name: auc, model: loans, kind: performance, metric: auc, below: 0.7, window: 1d, every: 1d, delay: 3d}
`

// lateSource has labels that come three days after their predictions; those of the
// first day are poor. now is how far event time has come.
func lateSource(now *time.Time) Source {
	return Source{Performance: func(_ context.Context, q Query) (Labelled, error) {
		if q.From.Before(day(0)) || now.Before(q.To.AddDate(0, 0, 3)) {
			return Labelled{Version: "1"}, nil
		}
		auc := 0.9
		if q.From.Equal(day(0)) {
			auc = 0.5
		}
		return Labelled{Version: "1", Performance: stats.Performance{Rows: 1000, Metrics: map[stats.Metric]float64{stats.MetricAUC: auc}}}, nil
	}}
}

// TestLabelsThatComeLate: without a delay a window is judged while nothing in it is
// labelled, and never again; with one it is judged once its labels are there.
func TestLabelsThatComeLate(t *testing.T) {
	for _, c := range []struct {
		name, rule, sent string
		evaluated        int
	}{
		{"no delay", strings.Replace(lateRule, ", delay: 3d", "", 1), "", 6},
		{"a delay", lateRule, "firing 04-05 of 04-01 to 04-02, resolved 04-06 of 04-01 to 04-02", 6},
		{"too long a delay", strings.Replace(lateRule, "3d", "9d", 1), "", -1},
	} {
		var now time.Time
		var sent []string
		m, err := New(Config{Rules: rules(t, c.rule), Source: lateSource(&now), Notify: func(_ context.Context, list []Alert) error {
			for _, a := range list {
				at := a.StartsAt
				if a.State == Resolved {
					at = a.EndsAt
				}
				sent = append(sent, string(a.State)+at.Format(" 01-02 of ")+a.From.Format("01-02 to ")+a.To.Format("01-02"))
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		for hour := range 24*6 + 1 {
			now = day(0).Add(time.Duration(hour) * time.Hour)
			if err := m.Evaluate(t.Context(), "loans", day(0), now); err != nil {
				t.Fatal(err)
			}
		}
		s := m.Statuses()[0]
		if got := strings.Join(sent, ", "); got != c.sent {
			t.Errorf("%s: sent %q", c.name, got)
		}
		if c.evaluated < 0 && !s.EvaluatedAt.IsZero() || c.evaluated >= 0 && !s.EvaluatedAt.Equal(day(c.evaluated)) {
			t.Errorf("%s: judged last at %s", c.name, s.EvaluatedAt)
		}
		if hinted := strings.Contains(s.Signal.Reason, "delay"); hinted != (c.name == "no delay") {
			t.Errorf("%s: %q", c.name, s.Signal.Reason)
		}
	}
}

// TestAnEditedDelayIsJudgedAnew as every other edit is.
func TestAnEditedDelayIsJudgedAnew(t *testing.T) {
	var now time.Time
	var sent []Alert
	cfg := Config{
		Source: lateSource(&now), StatePath: filepath.Join(t.TempDir(), "alerts.log"),
		Notify: func(_ context.Context, list []Alert) error { sent = append(sent, list...); return nil },
	}
	for _, text := range []string{strings.Replace(lateRule, ", delay: 3d", "", 1), lateRule} {
		cfg.Rules = rules(t, text)
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for d := range 4 { // each day as it comes; of the second rule only the last is new
			now = day(max(d+1, int(m.Statuses()[0].EvaluatedAt.Sub(day0)/(24*time.Hour))))
			if err := m.Evaluate(t.Context(), "loans", day(0), now); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 1 || sent[0].State != Firing || !sent[0].StartsAt.Equal(day(4)) || !sent[0].To.Equal(day(1)) {
		t.Errorf("sent %+v", sent)
	}
}

// TestDefinitionsOutliveARelease: a field that a rule does not use leaves its digest as
// it was, or every rule would be judged anew after an update.
func TestDefinitionsOutliveARelease(t *testing.T) {
	r := rules(t, oneRule)[0]
	if got := r.definition(); got != "e14a5e150165b946" {
		t.Errorf("the definition is %s", got)
	}
}

func TestRulesInWords(t *testing.T) {
	for body, want := range map[string]string{
		"kind: drift": "psi above its own threshold for at least 1 of all features; over 1d, every 1h, of at least 500 rows",
		"kind: drift, features: [a, b], k_of_n: 2, above: 0.2, window: 7d, every: 1d, for: 2": "psi above 0.2 for at least 2 of a, b; over 7d, every 1d, for 2 evaluations in a row, of at least 500 rows",
		"kind: drift, features: [a], test: kolmogorov_smirnov":                                "kolmogorov_smirnov above its own threshold for a; over 1d, every 1h, of at least 500 rows",
		"kind: performance, metric: auc, below: 0.65, min_rows: 9":                            "auc below 0.65; over 1d, every 1h, of at least 9 rows",
		"kind: performance, metric: auc, below: 0.65, window: 7d, every: 1d, delay: 30d":      "auc below 0.65; over 7d that ended 30d before, every 1d, of at least 500 rows",
		"kind: errors, above: 0.05, for: 2h":                                                  "share of failed requests above 0.05; over 1d, every 1h, for 2h, of at least 500 rows",
		"kind: latency, above: 250":                                                           "p99 above 250 ms; over 1d, every 1h, of at least 500 rows",
	} {
		r := rules(t, "rules:\n  - {name: a, model: m, "+body+"}\n")[0]
		if got := r.Condition() + "; " + r.Timing(); got != want {
			t.Errorf("%s: %s", body, got)
		}
	}
}
