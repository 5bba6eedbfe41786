package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// bounded fills in the bounds that a question left open: the span of event time
// there is. ok is false where there is no prediction at all.
func (s *server) bounded(ctx context.Context, w *api.Window) (ok bool, err error) {
	return s.boundedBy(ctx, w, s.store.Extent)
}

func (s *server) boundedBy(ctx context.Context, w *api.Window, extent func(ctx context.Context, tenant, model, version string) (first, last time.Time, rows uint64, err error)) (ok bool, err error) {
	if !w.From.IsZero() && !w.To.IsZero() {
		return true, w.Bounded()
	}
	first, last, _, err := extent(ctx, w.Tenant, w.Model, w.Version)
	if err != nil || last.IsZero() {
		return false, err
	}
	if w.From.IsZero() {
		w.From = first
	}
	if w.To.IsZero() {
		w.To = last.Truncate(time.Minute).Add(time.Minute)
	}
	return w.From.Before(w.To), w.Bounded()
}

// find returns the version a window is about and puts its number in w.
func (s *server) find(w *api.Window) (*collector.ModelVersion, error) {
	if w.Segment != "" {
		return nil, fmt.Errorf("segment is known but not built yet: %w", collector.ErrBadQuery)
	}
	v, err := s.models.Known(w.Model, w.Version)
	if errors.Is(err, collector.ErrNotReady) {
		return nil, api.Conflict(err) // it takes somebody to load, mend or import it
	}
	if err != nil {
		return nil, err
	}
	w.Version = v.Version
	return v, nil
}

func (s *server) drift(ctx context.Context, w api.Window) (stats.Report, error) {
	v, err := s.find(&w)
	if err != nil {
		return stats.Report{}, err
	}
	opt := stats.Options{Tests: w.Tests}
	ref := v.Reference()
	ok, err := s.bounded(ctx, &w)
	if err != nil || !ok || ref == nil {
		return stats.Compare(ref, padded(nil, ref), 0, opt), err
	}
	whole, err := s.counts(ctx, w, ref, 0)
	if err != nil {
		return stats.Report{}, err
	}
	report := stats.Compare(ref, whole[0].Fields, int(math.Round(whole[0].Rows)), opt)
	if w.Step == 0 {
		return report, nil
	}
	steps, err := s.counts(ctx, w, ref, w.Step)
	if err != nil {
		return stats.Report{}, err
	}
	for _, c := range steps {
		rows := int(math.Round(c.Rows))
		one := stats.Compare(ref, c.Fields, rows, opt)
		start, end := c.Start, c.End
		report.Chunks = append(report.Chunks, stats.Chunk{
			Start: &start, End: &end, Rows: rows, Features: one.Features, Dataset: one.Dataset, State: one.State,
		})
	}
	return report, nil
}

// counts asks for bin counts and gives every field of the reference a place.
func (s *server) counts(ctx context.Context, w api.Window, ref *stats.Reference, step time.Duration) ([]clickhouse.BinWindow, error) {
	list, err := s.store.BinCounts(ctx, w.Tenant, w.Model, w.Version, ref.ID, w.From, w.To, step)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Fields = padded(list[i].Fields, ref)
	}
	return list, nil
}

func padded(counts []stats.Counts, ref *stats.Reference) []stats.Counts {
	if ref == nil {
		return nil
	}
	for len(counts) < len(ref.Fields) {
		counts = append(counts, stats.Counts{})
	}
	return counts[:len(ref.Fields)]
}

// bins gives one field's counts by its coarse bins, with names for people.
func (s *server) bins(ctx context.Context, w api.Window, feature string) (api.Bins, error) {
	v, err := s.find(&w)
	if err != nil {
		return api.Bins{}, err
	}
	ref := v.Reference()
	if ref == nil {
		return api.Bins{}, fmt.Errorf("model %q has no reference: %w", w.Model, collector.ErrNotFound)
	}
	i := slices.IndexFunc(ref.Fields, func(f stats.FieldBins) bool { return f.Name == feature && f.Kind != stats.KindNone })
	if i < 0 {
		return api.Bins{}, fmt.Errorf("feature %q is not watched: %w", feature, collector.ErrNotFound)
	}
	cur := stats.Counts{}
	if ok, err := s.bounded(ctx, &w); err != nil {
		return api.Bins{}, err
	} else if ok {
		list, err := s.counts(ctx, w, ref, 0)
		if err != nil {
			return api.Bins{}, err
		}
		cur = list[0].Fields[i]
	}
	return binsOf(v, &ref.Fields[i], i, ref.Counts[i], cur)
}

func binsOf(v *collector.ModelVersion, f *stats.FieldBins, i int, ref, cur stats.Counts) (api.Bins, error) {
	b := api.Bins{Feature: f.Name, Kind: f.Kind}
	var err error
	if b.Reference, err = f.Fold(ref); err != nil {
		return b, err
	}
	if b.Current, err = f.Fold(cur); err != nil {
		return b, err
	}
	for _, slot := range f.Slots() {
		b.Labels = append(b.Labels, slotName(v, i, slot.Label))
	}
	return b, nil
}

// slotName turns a category's code into its name where the model knows it.
func slotName(v *collector.ModelVersion, field int, label string) string {
	if field >= len(v.Info.Features) {
		return label
	}
	code, err := strconv.Atoi(label)
	if cats := v.Info.Features[field].Categories; err == nil && code >= 0 && code < len(cats) {
		return cats[code]
	}
	return label
}

func (s *server) traffic(ctx context.Context, w api.Window) ([]api.TrafficPoint, error) {
	if _, err := s.find(&w); err != nil {
		return nil, err
	}
	if ok, err := s.boundedBy(ctx, &w, s.store.TrafficExtent); err != nil || !ok {
		return []api.TrafficPoint{}, err
	}
	list, err := s.store.Traffic(ctx, w.Tenant, w.Model, w.Version, w.From, w.To, w.Step)
	if err != nil {
		return nil, err
	}
	out := make([]api.TrafficPoint, len(list))
	for i, t := range list {
		out[i] = api.TrafficPoint{
			Start: t.Start, End: t.End, Requests: float64(t.Requests), Rows: float64(t.Rows), Errors: float64(t.Errors),
			P50MS: milliseconds(t.P50), P99MS: milliseconds(t.P99),
		}
	}
	return out, nil
}

// milliseconds of a quantile in seconds: nil of no request, and of requests that were
// answered elsewhere, which have no time here.
func milliseconds(q float64) *float64 {
	if ms := q * 1000; ms > 0 && !math.IsInf(ms, 0) {
		return &ms
	}
	return nil
}

func (s *server) performance(ctx context.Context, w api.Window) (api.Performance, error) {
	v, err := s.find(&w)
	if err != nil {
		return api.Performance{}, err
	}
	p := api.Performance{Model: w.Model, Version: w.Version, Task: string(v.Info.Task), State: stats.StateNoData, Metrics: map[string]float64{}}
	ok, err := s.bounded(ctx, &w)
	if err != nil || !ok {
		p.Reason = "no predictions"
		return p, err
	}
	rows, err := s.store.Labelled(ctx, w.Tenant, w.Model, w.Version, w.From, w.To)
	if err != nil {
		return p, err
	}
	counts, err := s.store.Traffic(ctx, w.Tenant, w.Model, w.Version, w.From, w.To, w.Step)
	if err != nil {
		return p, err
	}
	measure(v, rows, &p)
	for _, t := range counts {
		p.Rows.Predictions += float64(t.Rows)
	}
	if w.Step > 0 {
		p.Chunks = performanceChunks(v, rows, counts)
	}
	return p, nil
}

// measure holds labelled rows against the model and says what was left out.
func measure(v *collector.ModelVersion, rows []clickhouse.LabelledRow, p *api.Performance) {
	p.Rows.Labelled = float64(len(rows))
	if len(rows) == 0 {
		p.Reason = "no labels in this window yet"
		return
	}
	got, unusable, err := performanceOf(v, rows)
	if err != nil {
		p.State, p.Reason = stats.StateError, err.Error()
		return
	}
	p.Rows.Unusable, p.Reason = float64(unusable), ""
	var said []string
	if unusable > 0 {
		said = append(said, fmt.Sprintf("%d of %d labelled rows are left out: %s", unusable, len(rows), unusableReason(v)))
	}
	if unusable < len(rows) {
		p.State = stats.StateOK
	}
	for name, m := range got.Metrics {
		if math.IsNaN(m) || math.IsInf(m, 0) {
			said = append(said, fmt.Sprintf("%s is not a finite number", name))
			continue
		}
		p.Metrics[string(name)] = m
	}
	slices.Sort(said)
	p.Reason = strings.Join(said, "; ")
}

func performanceChunks(v *collector.ModelVersion, rows []clickhouse.LabelledRow, counts []clickhouse.TrafficWindow) []api.PerformanceChunk {
	out := make([]api.PerformanceChunk, 0, len(counts))
	at := 0
	for _, t := range counts {
		from := at
		for at < len(rows) && rows[at].Time.Before(t.End) {
			at++
		}
		p := api.Performance{State: stats.StateNoData, Metrics: map[string]float64{}}
		measure(v, rows[from:at], &p)
		p.Rows.Predictions = float64(t.Rows)
		out = append(out, api.PerformanceChunk{Start: t.Start, End: t.End, Rows: p.Rows, Metrics: p.Metrics, State: p.State, Reason: p.Reason})
	}
	return out
}

// performanceOf holds scores against labels by the model's task. Rows whose label
// or score mean nothing to the task are left out and counted: one label of
// somebody's mistake must not hide the rest.
func performanceOf(v *collector.ModelVersion, rows []clickhouse.LabelledRow) (p stats.Performance, unusable int, err error) {
	var weights, scores, truth []float64
	var decided, labels []string
	var chosen, positive []bool
	yes := "1"
	if len(v.Info.Classes) == 2 {
		yes = v.Info.Classes[1]
	}
	task := v.Info.Task
	for i := range rows {
		r := &rows[i]
		switch task {
		case engine.TaskBinary:
			is, ok := isPositive(v, r.Label)
			if !ok || math.IsNaN(r.Score) {
				continue
			}
			scores, chosen, positive = append(scores, r.Score), append(chosen, r.Decided == yes), append(positive, is)
		case engine.TaskMulticlass:
			class, ok := className(v, r.Label)
			if !ok {
				continue
			}
			decided, labels = append(decided, r.Decided), append(labels, class)
		case engine.TaskRegression, engine.TaskRanking:
			t, err := strconv.ParseFloat(r.Label, 64)
			if sum := t + r.Score; err != nil || math.IsNaN(sum) || math.IsInf(sum, 0) {
				continue
			}
			scores, truth = append(scores, r.Score), append(truth, t)
		default:
			return p, 0, fmt.Errorf("no performance is defined for the task %q", task)
		}
		weights = append(weights, r.Weight)
	}
	switch unusable = len(rows) - len(weights); task {
	case engine.TaskBinary:
		p, err = stats.BinaryPerformance(scores, chosen, positive, weights)
	case engine.TaskMulticlass:
		p, err = stats.MulticlassPerformance(decided, labels, weights)
	default:
		p, err = stats.RegressionPerformance(scores, truth, weights)
	}
	return p, unusable, err
}

// unusableReason says what a label must be. It names no label: what came may be
// private.
func unusableReason(v *collector.ModelVersion) string {
	switch v.Info.Task {
	case engine.TaskBinary:
		return fmt.Sprintf("a label is neither a class of the model %v nor 0 or 1, or a score is no number", v.Info.Classes)
	case engine.TaskMulticlass:
		if n := unnamedClasses(v.Info); len(v.Info.Classes) == 0 {
			return fmt.Sprintf("a label is not the number of one of the %d classes", n)
		}
		return fmt.Sprintf("a label is no class of the model %v", v.Info.Classes)
	}
	return "a label or a score is not a finite number"
}

// isPositive reads a label of a binary model: a class by name, or 0 and 1, or
// true and false.
func isPositive(v *collector.ModelVersion, label string) (yes, ok bool) {
	if i := slices.Index(v.Info.Classes, label); i >= 0 {
		return i == 1, true
	}
	if b, err := strconv.ParseBool(label); err == nil {
		return b, true
	}
	if f, err := strconv.ParseFloat(label, 64); err == nil && (f == 0 || f == 1) {
		return f == 1, true
	}
	return false, false
}

// className reads a label of a multi-class model: a class by name, or by number.
// Where it cannot be known which there are any label is one.
func className(v *collector.ModelVersion, label string) (class string, ok bool) {
	n := len(v.Info.Classes)
	if n == 0 {
		n = unnamedClasses(v.Info)
	}
	if n == 0 || slices.Contains(v.Info.Classes, label) {
		return label, true
	}
	i, err := strconv.Atoi(label)
	switch {
	case err != nil || i < 0 || i >= n:
		return "", false
	case len(v.Info.Classes) == 0:
		return strconv.Itoa(i), true
	}
	return v.Info.Classes[i], true
}

// unnamedClasses is how many classes a model without names of them has: as many
// as it gives scores a row. 0 is unknown: an output of labels has names of its own.
func unnamedClasses(info *engine.Info) int {
	n := 0
	for _, o := range info.Outputs {
		if !o.DType.IsFloat() {
			return 0
		}
		if len(o.Shape) == 2 && o.Shape[1] > 1 {
			n = max(n, o.Shape[1])
		}
	}
	return n
}

// alertSource answers what rules ask.
func (s *server) alertSource() alerts.Source {
	return alerts.Source{
		Window: func(ctx context.Context, q alerts.Query) (alerts.Window, error) {
			v, err := s.models.Known(q.Model, q.Version)
			if err != nil {
				return alerts.Window{}, err
			}
			out := alerts.Window{Version: v.Version, Reference: v.Reference(), Features: watchable(v)}
			if out.Reference == nil {
				return out, nil
			}
			list, err := s.counts(ctx, api.Window{Tenant: collector.DefaultTenant, Model: q.Model, Version: v.Version, From: q.From, To: q.To}, out.Reference, 0)
			if err != nil {
				return out, err
			}
			out.Counts, out.Rows = list[0].Fields, int(math.Round(list[0].Rows))
			return out, nil
		},
		Performance: func(ctx context.Context, q alerts.Query) (alerts.Labelled, error) {
			v, err := s.models.Known(q.Model, q.Version)
			if err != nil {
				return alerts.Labelled{}, err
			}
			rows, err := s.store.Labelled(ctx, collector.DefaultTenant, q.Model, v.Version, q.From, q.To)
			if err != nil || len(rows) == 0 {
				return alerts.Labelled{Version: v.Version}, err
			}
			p, _, err := performanceOf(v, rows)
			for name, m := range p.Metrics {
				if math.IsNaN(m) || math.IsInf(m, 0) {
					delete(p.Metrics, name)
				}
			}
			return alerts.Labelled{Version: v.Version, Performance: p}, err
		},
		Traffic: func(ctx context.Context, q alerts.Query) (alerts.Traffic, error) {
			v, err := s.models.Known(q.Model, q.Version)
			if err != nil {
				return alerts.Traffic{}, err
			}
			list, err := s.store.Traffic(ctx, collector.DefaultTenant, q.Model, v.Version, q.From, q.To, 0)
			if err != nil {
				return alerts.Traffic{}, err
			}
			t := list[0]
			out := alerts.Traffic{Version: v.Version, Requests: int(t.Requests), Failed: int(t.Errors), LatencyMS: map[string]float64{}}
			for name, q := range map[string]float64{"p50": t.P50, "p90": t.P90, "p99": t.P99} {
				if !math.IsNaN(q) {
					out.LatencyMS[name] = q * 1000
				}
			}
			return out, nil
		},
		Samples: s.samples,
	}
}

// watchable are the names that a drift rule may watch in a version.
func watchable(v *collector.ModelVersion) []string {
	out := []string{collector.PredictionField}
	for i := range v.Schema.Features {
		if f := &v.Schema.Features[i]; f.Private != collector.PrivacyDrop && f.Elements == 1 {
			out = append(out, f.Name)
		}
	}
	return out
}

// warnOfRules says at start which rules watch features that their model does not
// have: nobody looks at the state of a rule that never fires.
func (s *server) warnOfRules(rules []alerts.Rule) {
	for i := range rules {
		r := &rules[i]
		v, err := s.models.Known(r.Model, r.Version)
		if err != nil {
			continue // it may come yet
		}
		if bad := r.Unwatched(watchable(v)); len(bad) > 0 {
			s.log.Error("an alert rule watches features that the model does not have, or that are private",
				"rule", r.Name, "model", r.Model, "version", v.Version, "features", bad)
		}
	}
}

// samples returns a few predictions of the window that fired.
func (s *server) samples(ctx context.Context, q alerts.Query, _ []alerts.Finding) ([]string, error) {
	p, err := s.store.List(ctx, collector.Query{
		Tenant: collector.DefaultTenant, Model: q.Model, Version: q.Version, From: q.From, To: q.To, Limit: 3,
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, one := range p.Predictions {
		ids = append(ids, one.ID)
	}
	return ids, nil
}
