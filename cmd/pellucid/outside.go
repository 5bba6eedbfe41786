package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/proxy/events"
)

// What an erasure counts besides the tables.
const (
	countLetters = "dead_letters"
	countHalves  = "waiting_halves"
)

// outside is what of a subject lies outside of the store.
type outside struct {
	held    *events.Held           // nil where halves cannot be the subject's
	unknown int64                  // halves that may be
	letters []string               // ids of dead letters
	maybe   int64                  // letters that may be
	about   map[string][]string    // letters of labels and explanations by whose they are
	rows    []clickhouse.Elsewhere // of predictions among the halves and letters
	left    map[string]int64
}

func (o *outside) release() {
	if o.held != nil {
		o.held.Release()
	}
}

// holdHalves finds the waiting halves of a subject and keeps them from being recorded.
// Payload loggers send no id of the caller's, so none is found by that.
func (s *server) holdHalves(ctx context.Context, x *clickhouse.Subject) (*outside, error) {
	o := &outside{left: map[string]int64{}}
	if x.ExternalID != "" || x.PredictionID == "" && x.Where == "" {
		return o, nil
	}
	held, err := s.events.Hold(ctx, func(h *events.Half) (bool, error) {
		v, err := s.halfOf(x, h)
		switch v {
		case clickhouse.Maybe:
			o.unknown++
		case clickhouse.Yes:
			n := max(len(h.Rows), 1)
			for i := range n {
				o.rows = append(o.rows, clickhouse.Elsewhere{Model: h.Model, ID: collector.RowID(h.ID, i, n), TraceID: h.TraceID})
			}
		}
		return v == clickhouse.Yes, err
	})
	if err != nil {
		return nil, err
	}
	o.held, o.unknown = held, o.unknown+held.Unread
	return o, nil
}

// means reports whether a subject's prediction id means a request or a row of it.
func means(id, request string, rows int) bool {
	if id == request {
		return true
	}
	if base, _, alone := collector.SplitID(request); alone && base == id && collector.OwnID(id) {
		return true // a row that another system sent alone
	}
	base, row, one := collector.SplitID(id)
	return one && base == request && row < rows
}

func (s *server) halfOf(x *clickhouse.Subject, h *events.Half) (clickhouse.Verdict, error) {
	switch {
	case x.PredictionID != "" && (h.Unreadable && means(x.PredictionID, h.ID, collector.MaxRows) || means(x.PredictionID, h.ID, len(h.Rows))):
		return clickhouse.Yes, nil
	case x.PredictionID != "" || h.Model != x.Model:
		return clickhouse.No, nil
	}
	var outputs []collector.Field
	if v, err := s.models.Known(h.Model, h.Version); err == nil {
		outputs = v.Schema.Outputs
	}
	best := clickhouse.No
	for i := range max(len(h.Rows), 1) {
		row := &clickhouse.Outside{OutputFields: outputs, Columns: map[string]any{
			"id": h.ID, "model": h.Model, "version": h.Version, "trace_id": h.TraceID, "span_id": h.SpanID, "external_id": "",
		}}
		if !h.Unreadable {
			row.Columns["row"], row.Columns["rows"] = int64(i), int64(len(h.Rows))
		}
		if at, err := time.Parse(time.RFC3339Nano, h.Time); err == nil {
			row.Columns["time"] = at
		}
		if i < len(h.Rows) {
			values, err := halfValues(h.Rows[i])
			if err != nil {
				return clickhouse.Maybe, nil //nolint:nilerr // counted as not searched
			}
			if h.Half == "request" {
				row.Features = values
			} else {
				row.Outputs = values
			}
		}
		v, err := x.Matches(row)
		if err != nil {
			return v, err
		}
		best = max(best, v)
	}
	return best, nil
}

// halfValues are the values of half a row as they came.
func halfValues(row map[string]json.RawMessage) (map[string]any, error) {
	out := make(map[string]any, len(row))
	for name, raw := range row {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

// countSubject counts what an erasure would delete.
func (s *server) countSubject(ctx context.Context, x *clickhouse.Subject, o *outside) (*clickhouse.Erasure, error) {
	var out *clickhouse.Erasure
	err := s.store.CountSubjectWith(ctx, *x, func(ctx context.Context, e *clickhouse.Erasure) error {
		out = e
		return o.count(ctx, e)
	})
	return out, err
}

// findLetters finds the subject's dead letters. The store is searched after it, since
// labels and spans of a letter may be stored.
func (s *server) findLetters(ctx context.Context, x *clickhouse.Subject, o *outside) error {
	o.letters, o.maybe, o.about = nil, 0, map[string][]string{}
	for _, l := range s.dead.List() {
		whole, err := s.dead.Get(l.ID)
		if errors.Is(err, collector.ErrNotFound) {
			continue // it has come home
		}
		if err != nil {
			return err
		}
		found, err := s.letterOf(ctx, x, whole)
		if errors.Is(err, clickhouse.ErrWhere) {
			return err
		}
		if err != nil {
			return fmt.Errorf("search dead letter %s: %w", l.ID, err)
		}
		switch {
		case found.verdict == clickhouse.Yes:
			o.letters = append(o.letters, l.ID)
			o.rows = append(o.rows, found.rows...)
		case found.about != "":
			o.about[found.about] = append(o.about[found.about], l.ID)
		case found.verdict == clickhouse.Maybe:
			o.maybe++
		}
	}
	x.Elsewhere = o.rows
	return nil
}

// count adds the letters of labels and explanations of predictions that were found, and
// counts what lies outside.
func (o *outside) count(ctx context.Context, e *clickhouse.Erasure) error {
	found, err := e.HasPredictions(ctx, slices.Collect(maps.Keys(o.about)))
	if err != nil {
		return err
	}
	for id := range found {
		o.letters = append(o.letters, o.about[id]...)
	}
	slices.Sort(o.letters)
	e.Before[countLetters], e.Before[countHalves] = int64(len(o.letters)), 0
	if o.held != nil {
		e.Before[countHalves] = int64(o.held.Len())
	}
	if o.maybe > 0 {
		e.Unsearched[countLetters] = o.maybe
	}
	if o.unknown > 0 {
		e.Unsearched[countHalves] = o.unknown
	}
	return nil
}

// foundLetter is what a letter is to a subject.
type foundLetter struct {
	verdict clickhouse.Verdict
	about   string                 // the prediction that a label or an explanation is about
	rows    []clickhouse.Elsewhere // of a prediction that is the subject's
}

func (s *server) letterOf(ctx context.Context, x *clickhouse.Subject, l *collector.DeadLetter) (found foundLetter, err error) {
	forms, err := x.ExternalForms()
	if err != nil {
		return found, err
	}
	switch l.Kind {
	case collector.KindSchema:
		return found, nil
	case collector.KindPrediction, collector.KindImported, collector.KindRefused:
		if p, err := collector.DecodePrediction(l.Payload); err == nil {
			found.verdict, err = s.predictionOf(ctx, x, p, forms)
			if found.verdict == clickhouse.Yes {
				found.rows = letterRows(p)
			}
			return found, err
		}
	case collector.KindFeedback:
		if f, err := collector.DecodeFeedback(l.Payload); err == nil {
			return foundLetter{verdict: labelOf(x, f, forms), about: f.PredictionID}, nil
		}
	case collector.KindExplanation:
		if e, err := collector.DecodeExplanation(l.Payload); err == nil {
			base, _, _ := collector.SplitID(e.PredictionID)
			if x.PredictionID != "" && (x.PredictionID == e.PredictionID || x.PredictionID == base) {
				found.verdict = clickhouse.Yes
			}
			found.about = e.PredictionID
			return found, nil
		}
	}
	found.verdict, err = x.InBytes(l.Payload)
	return found, err
}

// letterRows are the rows that a letter would be stored as.
func letterRows(p *collector.Prediction) []clickhouse.Elsewhere {
	out := make([]clickhouse.Elsewhere, max(p.Rows, 1))
	for i := range out {
		out[i] = clickhouse.Elsewhere{Model: p.Model, ID: p.ID, Row: i, ExternalID: p.ExternalID(i), TraceID: p.TraceID}
	}
	return out
}

func labelOf(x *clickhouse.Subject, f *collector.Feedback, forms []string) clickhouse.Verdict {
	base, _, _ := collector.SplitID(f.PredictionID)
	switch {
	case f.Tenant != x.Tenant:
		return clickhouse.No
	case x.ExternalID != "" && f.ExternalID != "" && slices.Contains(forms, f.ExternalID) && (x.Model == "" || f.Model == x.Model):
		return clickhouse.Yes
	case x.PredictionID != "" && (x.PredictionID == f.PredictionID || x.PredictionID == base):
		return clickhouse.Yes
	case x.ExternalID == "" && f.PredictionID == "":
		return clickhouse.Maybe // by an id of the caller's, which may be that of what was found
	}
	return clickhouse.No
}

func (s *server) predictionOf(ctx context.Context, x *clickhouse.Subject, p *collector.Prediction, forms []string) (clickhouse.Verdict, error) {
	rows := max(p.Rows, 1)
	switch {
	case p.Tenant != x.Tenant || x.Model != "" && x.Model != p.Model:
		return clickhouse.No, nil
	case x.PredictionID != "" && means(x.PredictionID, p.ID, rows):
		return clickhouse.Yes, nil
	case x.ExternalID != "" && slices.ContainsFunc(p.ExternalIDs, func(id string) bool { return slices.Contains(forms, id) }):
		return clickhouse.Yes, nil
	case x.Where == "":
		return clickhouse.No, nil
	}
	schema, err := s.schemaNamed(ctx, p.SchemaID)
	if errors.Is(err, collector.ErrNotFound) {
		schema, err = nil, nil // nobody knows what its values are
	}
	if err != nil {
		return clickhouse.No, err
	}
	stored := collector.StoredRows(p, &collector.Schema{})
	if schema != nil {
		stored = collector.StoredRows(p, schema)
	}
	best := clickhouse.No
	for i := range stored {
		row := outsideRow(p, &stored[i], i)
		if schema != nil && p.SchemaID != "" {
			row.Features, row.Fields = stored[i].Features, schema.Features
			row.Outputs, row.OutputFields = stored[i].Outputs, schema.Outputs
		}
		v, err := x.Matches(row)
		if err != nil {
			return v, err
		}
		best = max(best, v)
	}
	return best, nil
}

// outsideRow is a row of a letter with the columns that it would have.
func outsideRow(p *collector.Prediction, r *collector.StoredPrediction, i int) *clickhouse.Outside {
	return &clickhouse.Outside{Redacted: p.Capture == collector.CaptureRedacted, Columns: map[string]any{
		"id": p.ID, "model": p.Model, "version": p.Version, "digest": p.Digest, "route": string(p.Route), "trace_id": p.TraceID, "span_id": p.SpanID,
		"external_id": r.ExternalID, "error": p.Error, "capture": p.Capture, "decided": r.Raw.Decided, "row": int64(i), "rows": int64(p.Rows),
		"status": int64(p.Status), "score": r.Raw.Score, "weight": p.Weight, "attempts": int64(len(p.Attempts)), "latency_ms": float64(p.Latency.Total) / 1e6, "time": r.Time, "received_at": p.ReceivedAt,
	}}
}

// eraseOutside deletes what was found. Everything that was driven has been drained.
func (s *server) eraseOutside(o *outside) error {
	if err := s.settleDriven(); err != nil {
		return err
	}
	if _, err := s.dead.Erase(o.letters); err != nil {
		return err
	}
	for _, id := range o.letters {
		if _, err := s.dead.Get(id); !errors.Is(err, collector.ErrNotFound) {
			o.left[countLetters]++
		}
	}
	o.left[countLetters] += 0 // it is told, also where there are none
	o.left[countHalves] = 0
	if o.held == nil {
		return nil
	}
	left, err := o.held.Delete()
	o.left[countHalves] = left
	return err
}

// exportOutside gives the letters and halves that were found.
func (s *server) exportOutside(ctx context.Context, o *outside, give func(kind string, v any) error) error {
	for _, id := range o.letters {
		l, err := s.deadLetter(ctx, id)
		if errors.Is(err, collector.ErrNotFound) {
			continue // it has come home since it was counted
		}
		if err != nil {
			return err
		}
		if err := give("dead_letter", l); err != nil {
			return err
		}
	}
	if o.held == nil {
		return nil
	}
	return o.held.Each(func(h *events.Half) error { return give("waiting_half", s.shownHalf(h)) })
}

// shownHalf is a half without what would not be stored of it in clear. What is private
// of a version that is not known, or closed, is not known either.
func (s *server) shownHalf(h *events.Half) *events.Half {
	out := *h
	out.Rows = nil
	v, err := s.models.Find(h.Model, h.Version)
	if err != nil {
		return &out
	}
	fields := v.Schema.Features
	if h.Half == "response" {
		fields = v.Schema.Outputs
	}
	for _, row := range h.Rows {
		shown := map[string]json.RawMessage{}
		for name, raw := range row {
			i := slices.IndexFunc(fields, func(f collector.Field) bool { return f.Name == name })
			if i < 0 || fields[i].Private == collector.PrivacyDrop {
				continue
			}
			if fields[i].Private != collector.PrivacyNone {
				raw = json.RawMessage(`"` + collector.Masked + `"`)
			}
			shown[name] = s.redactedJSON(raw)
		}
		out.Rows = append(out.Rows, shown)
	}
	return &out
}

// redactedJSON is a value without what patterns find in it.
func (s *server) redactedJSON(raw json.RawMessage) json.RawMessage {
	var text string
	if s.patterns == nil || json.Unmarshal(raw, &text) != nil {
		return raw
	}
	clean, err := json.Marshal(s.patterns.Text(text))
	if err != nil {
		return nil
	}
	return clean
}
