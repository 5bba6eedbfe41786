package main

import (
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// offline is a demo model's year, computed without a server.
type offline struct {
	version *collector.ModelVersion
	scores  []float64 // by row of the table
	fields  []stats.Column
}

// year holds the demo's flights and both models' answers to them; it is computed
// once.
var year struct {
	once    sync.Once
	flights *flights
	models  map[string]*offline
	err     error
}

func demoYear(t *testing.T) (*flights, map[string]*offline) {
	t.Helper()
	year.once.Do(func() {
		if year.flights, year.err = readFlights("demo/data/flights.parquet", replayFrom); year.err != nil {
			return
		}
		year.models = map[string]*offline{}
		for name, path := range map[string]string{"flights_gbm": gbm + "model.ubj", "flights_mlp": mlp + "model.onnx"} {
			if year.models[name], year.err = computeYear(t, path); year.err != nil {
				return
			}
		}
	})
	if year.err != nil {
		t.Fatal(year.err)
	}
	return year.flights, year.models
}

func computeYear(t *testing.T, path string) (*offline, error) {
	t.Helper()
	v, err := repository.Offline(path, "", 2)
	if err != nil {
		return nil, err
	}
	v.Info.Task, v.Info.Classes = engine.TaskBinary, []string{"on_time", "late"}
	in, err := year.flights.table.Inputs(v.Info)
	if err != nil {
		return nil, err
	}
	rows, n, err := engine.Bind(v.Info, in)
	if err != nil {
		return nil, err
	}
	o := &offline{version: v}
	var decided []string
	for from := 0; from < n; from += blockRows {
		part, err := rows.Slice(from, min(from+blockRows, n))
		if err != nil {
			return nil, err
		}
		out, err := v.Predict(t.Context(), part, nil)
		if err != nil {
			return nil, err
		}
		s, d := collector.Scores(v.Info, out)
		o.scores, decided = append(o.scores, s...), append(decided, d...)
	}
	cols, err := collector.Flatten(v.Schema.Features, rows, n)
	if err != nil {
		return nil, err
	}
	o.fields = collector.StatColumns(v.Schema, v.Info.Task, cols, n, o.scores, decided)
	return o, nil
}

// reference is the one the server makes of a demo model's reference.parquet.
func (o *offline) reference(t *testing.T, path string) *stats.Reference {
	t.Helper()
	_, rows, err := inputRows(o.version.Info, path)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := repository.BuildReference(t.Context(), o.version, rows, "reference.parquet")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// counts bins the given rows of the year by a reference.
func (o *offline) counts(t *testing.T, ref *stats.Reference, rows []int) []stats.Counts {
	t.Helper()
	out := make([]stats.Counts, len(ref.Fields))
	for i := range ref.Fields {
		c := o.fields[i].Take(rows)
		if c.Name != ref.Fields[i].Name {
			t.Fatalf("field %d is %s and %s", i, c.Name, ref.Fields[i].Name)
		}
		switch {
		case c.Strings != nil:
			out[i] = ref.Fields[i].CountStrings(c.Strings)
		case ref.Fields[i].Kind == stats.KindCategorical:
			names := make([]string, len(c.Numbers))
			for j, x := range c.Numbers {
				if !math.IsNaN(x) {
					names[j] = stats.CategoryName(x)
				}
			}
			out[i] = ref.Fields[i].CountStrings(names)
		default:
			out[i] = ref.Fields[i].CountNumbers(c.Numbers)
		}
	}
	return out
}

// between returns the replayed flights of [from, to).
func (f *flights) between(from, to time.Time) (rows []int, list []flight) {
	at := func(when time.Time) int {
		i, _ := slices.BinarySearchFunc(f.list, when, func(one flight, when time.Time) int { return one.departs.Compare(when) })
		return i
	}
	list = f.list[at(from):at(to)]
	for _, one := range list {
		rows = append(rows, one.row)
	}
	return rows, list
}

func readDemo(t *testing.T, name string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join("demo/data", name))), v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type expectedPeriod struct {
	From, To       time.Time
	Rows, Labelled int
	AUC            map[string]float64
	MeanScore      map[string]float64 `json:"mean_score"`
}

// TestDemoModelsGiveTheirLibrariesPredictions runs both models on the year and
// compares with XGBoost's, onnxruntime's and scikit-learn's numbers.
func TestDemoModelsGiveTheirLibrariesPredictions(t *testing.T) {
	var want struct {
		Features map[string][]string
		Replayed expectedPeriod
		Months   []expectedPeriod
		Rows     []struct {
			ExternalID  string `json:"external_id"`
			Features    map[string]any
			Predictions map[string]float64
		}
	}
	readDemo(t, "expected.json", &want)
	f, models := demoYear(t)
	if len(want.Rows) != 40 || len(want.Months) != 9 || len(f.list) != want.Replayed.Rows {
		t.Fatalf("%d rows, %d months, %d flights of %d", len(want.Rows), len(want.Months), len(f.list), want.Replayed.Rows)
	}
	row := map[string]int{}
	for _, one := range f.list {
		row[one.id] = one.row
	}
	for _, r := range want.Rows {
		at, ok := row[r.ExternalID]
		for name, p := range r.Predictions {
			tolerance := 1e-6
			if name == "flights_mlp" {
				tolerance = 1e-5
			}
			if got := models[name].scores[at]; !ok || !(math.Abs(got-p) <= tolerance) {
				t.Errorf("%s of %s: %.9g, want %.9g (%t)", name, r.ExternalID, got, p, ok)
			}
		}
	}
	want.Replayed.From, want.Replayed.To = f.list[0].departs, f.list[len(f.list)-1].departs.Add(time.Second)
	for name, o := range models {
		for i, feature := range o.version.Info.Features {
			if feature.Name != want.Features[name][i] {
				t.Errorf("%s feature %d is %s", name, i, feature.Name)
			}
		}
		for _, p := range append(want.Months, want.Replayed) {
			checkPeriod(t, f, name, o, p)
		}
	}
}

func checkPeriod(t *testing.T, f *flights, name string, o *offline, p expectedPeriod) {
	t.Helper()
	_, list := f.between(p.From, p.To)
	var scores []float64
	var late, decided []bool
	sum := 0.0
	for _, one := range list {
		s := o.scores[one.row]
		sum += s
		if one.late >= 0 {
			scores, late, decided = append(scores, s), append(late, one.late == 1), append(decided, s > 0.5)
		}
	}
	got, err := stats.BinaryPerformance(scores, decided, late, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != p.Rows || len(scores) != p.Labelled {
		t.Errorf("%s from %s: %d rows and %d labels, want %d and %d", name, p.From, len(list), len(scores), p.Rows, p.Labelled)
	}
	if auc := got.Metrics["auc"]; !(math.Abs(auc-p.AUC[name]) <= 1e-6) {
		t.Errorf("%s from %s: AUC %.9f, want %.9f", name, p.From, auc, p.AUC[name])
	}
	if mean := sum / float64(len(list)); !(math.Abs(mean-p.MeanScore[name]) <= 1e-5) {
		t.Errorf("%s from %s: mean score %.9f, want %.9f", name, p.From, mean, p.MeanScore[name])
	}
}

// TestWeeklyDriftAgreesWithEvidently compares which features drifted in which
// week. The definitions differ in bins and in thresholds, so not all agree.
func TestWeeklyDriftAgreesWithEvidently(t *testing.T) {
	var want struct {
		Weeks []struct {
			Week     string
			From, To time.Time
			Rows     int
			PSI      map[string]float64
			Drifted  map[string]bool
		}
	}
	readDemo(t, "evidently_weekly.json", &want)
	f, models := demoYear(t)
	o := models["flights_gbm"]
	ref := o.reference(t, gbm+"reference.parquet")
	agree, all, drifted := 0, 0, 0
	for _, w := range want.Weeks {
		rows, _ := f.between(w.From, w.To)
		if len(rows) != w.Rows {
			t.Fatalf("%s has %d rows, want %d", w.Week, len(rows), w.Rows)
		}
		report := stats.Compare(ref, o.counts(t, ref, rows), len(rows), stats.Options{Tests: []stats.Test{stats.PSI}})
		for _, d := range report.Features {
			flag, ok := w.Drifted[d.Name]
			if !ok {
				continue // the prediction, which goes by the model's name there
			}
			all++
			if flag {
				drifted++
			}
			if flag == (d.State == stats.StateDrifted) {
				agree++
			} else {
				t.Logf("%s %s: PSI %.4f over %.4f here, %.4f there", w.Week, d.Name, d.Tests[stats.PSI].Value, d.Tests[stats.PSI].Threshold, w.PSI[d.Name])
			}
		}
	}
	if all != 15*len(want.Weeks) || drifted == 0 || drifted == all {
		t.Fatalf("%d flags, %d of them drifted, over %d weeks", all, drifted, len(want.Weeks))
	}
	t.Logf("%d of %d flags agree", agree, all)
	if agree*10 < all*9 {
		t.Errorf("%d of %d flags agree: less than 90 %%", agree, all)
	}
}

// TestDemoRulesOverTheYear replays the demo's rules on drift and performance over
// the year and holds what fires, and when, against the list of the year's
// incidents, which was made before any rule.
func TestDemoRulesOverTheYear(t *testing.T) {
	rules, err := readRules("demo/data/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, models := demoYear(t)
	refs := map[string]*stats.Reference{}
	for name, o := range models {
		refs[name] = o.reference(t, filepath.Join("demo/data/models", name, "1/reference.parquet"))
	}
	rules = slices.DeleteFunc(rules, func(r alerts.Rule) bool { return r.Kind != alerts.KindDrift && r.Kind != alerts.KindPerformance })
	for _, r := range rules {
		for _, feature := range r.Features {
			if !slices.ContainsFunc(refs[r.Model].Fields, func(b stats.FieldBins) bool { return b.Name == feature }) {
				t.Errorf("rule %s watches %q, which %s has not", r.Name, feature, r.Model)
			}
		}
	}
	events, err := alerts.Replay(t.Context(), rules, yearSource(t, f, models, refs), f.list[0].departs, f.list[len(f.list)-1].departs)
	if err != nil {
		t.Fatal(err)
	}
	checkAgainstIncidents(t, spellsOf(events, f.list[len(f.list)-1].departs))
	checkIncidents(t, f)
}

// yearSource answers rules from the year in memory.
func yearSource(t *testing.T, f *flights, models map[string]*offline, refs map[string]*stats.Reference) alerts.Source {
	windows := map[alerts.Query]alerts.Window{} // rules share them
	return alerts.Source{
		Window: func(_ context.Context, q alerts.Query) (alerts.Window, error) {
			w, ok := windows[q]
			if !ok {
				rows, _ := f.between(q.From, q.To)
				w = alerts.Window{Version: "1", Reference: refs[q.Model], Counts: models[q.Model].counts(t, refs[q.Model], rows), Rows: len(rows)}
				windows[q] = w
			}
			return w, nil
		},
		Performance: func(_ context.Context, q alerts.Query) (alerts.Labelled, error) {
			_, list := f.between(q.From, q.To)
			var scores []float64
			var late []bool
			for _, one := range list {
				if one.late >= 0 {
					scores, late = append(scores, models[q.Model].scores[one.row]), append(late, one.late == 1)
				}
			}
			if len(scores) == 0 {
				return alerts.Labelled{Version: "1"}, nil
			}
			p, err := stats.BinaryPerformance(scores, nil, late, nil)
			return alerts.Labelled{Version: "1", Performance: p}, err
		},
	}
}

// spell is a time an alert fired for.
type spell struct{ from, to time.Time }

func (s spell) String() string {
	return s.from.Format(time.DateOnly) + " to " + s.to.Format(time.DateOnly)
}

// spellsOf returns when each rule fired; what still does ends at end.
func spellsOf(events []alerts.Event, end time.Time) map[string][]spell {
	out := map[string][]spell{}
	for _, e := range events {
		rule := e.Alert.Rule
		switch {
		case e.Alert.State == alerts.Firing:
			out[rule] = append(out[rule], spell{e.At, end})
		case e.From == alerts.Firing:
			out[rule][len(out[rule])-1].to = e.At
		}
	}
	return out
}

// during reports whether a rule fired at any time of [from, to).
func during(list []spell, from, to time.Time) bool {
	return slices.ContainsFunc(list, func(s spell) bool { return s.from.Before(to) && s.to.After(from) })
}

// checkAgainstIncidents: every month whose weather the list says moved fires the
// weather rule and no other month does; AUC alerts fire where and only where the
// list has AUC below the limit; nothing fires for what the list says nothing
// should, and rules that fired in the seasons resolve.
func checkAgainstIncidents(t *testing.T, fired map[string][]spell) {
	t.Helper()
	var doc struct {
		Incidents []struct {
			Kind     string
			From, To time.Time
			Evidence map[string]any
			Features map[string]any
		}
	}
	readDemo(t, "incidents.json", &doc)
	for rule, list := range fired {
		t.Logf("%s fired %v", rule, list)
	}
	seasons := 0
	for _, in := range doc.Incidents {
		if in.Kind != "season" {
			continue
		}
		seasons++
		moved := 0.0
		for _, feature := range []string{"temp", "dewp", "humid", "pressure"} {
			by, _ := in.Features[feature].(float64)
			moved = max(moved, by)
		}
		if moved >= 1 && !during(fired["gbm-weather-drift"], in.From.AddDate(0, 0, 14), in.To) {
			t.Errorf("%s: the weather moved by %.1f deviations and no alert says so", in.From.Format("January"), moved)
		}
		for rule, key := range map[string]string{"gbm-auc": "auc_flights_gbm", "mlp-auc": "auc_flights_mlp"} {
			auc, ok := in.Evidence[key].(float64)
			if !ok {
				t.Fatalf("no %s in %v", key, in.Evidence)
			}
			// The rule looks at 28 days once a week, so a month's own number is seen
			// at the latest a week after its end.
			if auc < 0.645 && !during(fired[rule], in.From, in.To.AddDate(0, 0, 7)) {
				t.Errorf("%s: AUC of %g and %s did not fire", in.From.Format("January"), auc, rule)
			}
			if auc > 0.69 && during(fired[rule], in.To.AddDate(0, 0, -1), in.To) {
				t.Errorf("%s: AUC of %g and %s fires on its last day", in.From.Format("January"), auc, rule)
			}
		}
	}
	if seasons != 9 {
		t.Fatalf("%d seasons", seasons)
	}
	if list := fired["gbm-schedule-drift"]; len(list) > 0 {
		t.Errorf("the list says that no timetable change moves a distribution, and the rule fired %v", list)
	}
	resolved := 0
	for _, list := range fired {
		resolved += max(0, len(list)-1)
	}
	if len(fired) < 4 || resolved == 0 {
		t.Errorf("%d rules fired, %d spells ended", len(fired), resolved)
	}
}

// checkIncidents holds the list of incidents against the flights themselves.
func checkIncidents(t *testing.T, f *flights) {
	t.Helper()
	var doc struct {
		Incidents []struct {
			Kind, Title string
			From, To    time.Time
			Evidence    map[string]any
		}
	}
	readDemo(t, "incidents.json", &doc)
	last := f.list[len(f.list)-1].departs
	checked := 0
	for _, in := range doc.Incidents {
		if in.Title == "" || !in.From.Before(in.To) || in.From.After(last) {
			t.Errorf("incident %+v", in)
		}
		if in.Kind != "disruption" || in.From.Before(f.list[0].departs) {
			continue
		}
		rows, _ := f.between(in.From, in.To)
		if n, ok := in.Evidence["flights"].(float64); !ok || len(rows) == 0 || math.Abs(float64(len(rows))-n) > 0.1*n {
			t.Errorf("%s from %s: %d flights, it says %v", in.Title, in.From, len(rows), in.Evidence["flights"])
		}
		checked++
	}
	if checked == 0 {
		t.Error("no disruption to check")
	}
}
