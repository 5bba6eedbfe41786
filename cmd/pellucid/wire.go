package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/events"
	"github.com/pellucid/pellucid/collector/telemetry"
	"github.com/pellucid/pellucid/dashboards"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain"
)

// startWriter joins capture to the spool and the spool to ClickHouse.
func (s *server) startWriter(context.Context) error {
	c, err := capture.New(capture.Config{
		Patterns: s.patterns, Append: s.spool.Append, OnFull: capture.OnFull(s.cfg.Capture.OnFull), MaxBytes: int(s.cfg.Capture.Body),
		Sample: s.cfg.Capture.rules(), Bins: s.binner.Row,
		Backlog: s.backlog, SpoolBytes: int64(s.cfg.Capture.SpoolBytes), Waiting: s.spool.Stats().Pending,
		TracerProvider: s.telemetry.TracerProvider(), MeterProvider: s.telemetry.MeterProvider(),
	})
	if err != nil {
		return err
	}
	s.capturer = c
	if err := s.spool.Observe(s.telemetry.MeterProvider()); err != nil {
		return err
	}
	if err := s.dead.Observe(s.telemetry.MeterProvider()); err != nil {
		return err
	}
	if err := s.marks.observe(s.telemetry.MeterProvider()); err != nil {
		return err
	}
	wcfg := clickhouse.WriterConfig{Source: s.spool, Reference: s.models.Reference, Schema: s.schemaOf, Dead: s.dead, Kept: s.spool, Log: s.log, Uncounted: s.uncounted, Recounted: s.rollups.spoolMissed}
	if s.engine != nil {
		wcfg.Doubt = s.engine.NearlyFull
		s.storeFull = func() bool { return s.engine.NearlyFull(time.Now()) }
		wcfg.Full = s.storeFull
	}
	w, err := clickhouse.NewWriter(s.store, wcfg)
	if err != nil {
		return err
	}
	s.writer = w
	if err := w.Observe(s.telemetry.MeterProvider()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.onStop("writer", func(stopCtx context.Context) error {
		s.drain(stopCtx)
		cancel()
		return <-done
	})
	return nil
}

// backlog counts the spool's records, those taken and those that have left it.
func (s *server) backlog() (appended, acked uint64) {
	st := s.spool.Stats()
	return st.Appended, st.Acked
}

// drain gives what is still in the spool a moment to reach ClickHouse. What does
// not get there stays in the spool for the next start.
func (s *server) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if st := s.spool.Stats(); st.Appended == st.Acked || s.writer.Health().Err != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// schemaOf finds a schema without the store, which may be away: that of a version
// that has answered in this process (an upstream's is known nowhere else), or of a
// live one.
func (s *server) schemaOf(id string) *collector.Schema {
	if known := s.capturer.Schema(id); known != nil {
		return known
	}
	for _, v := range s.models.Live() {
		if v.Schema.ID == id {
			return v.Schema
		}
	}
	return nil
}

// capture records a prediction. Of an upstream that was closed since it was asked, as somebody
// means something to be private in it, nothing is kept that was said or answered.
func (s *server) capture(ctx context.Context, p *collector.Prediction, v *collector.ModelVersion, in, out engine.Values) error {
	if len(s.upstreams) > 0 {
		if err := s.models.Shut(p.Model); err != nil {
			in, out = nil, nil
			if p.Error != "" {
				p.Error = err.Error()
			}
		}
	}
	return s.capturer.Prediction(ctx, p, v, in, out)
}

func (s *server) proxyConfig() proxy.Config {
	return proxy.Config{
		Models: auditedModels{s.models, s}, Upstreams: s.upstreams,
		Events:  func(ctx context.Context, e events.Event) (events.Outcome, error) { return s.events.Take(ctx, e) },
		Capture: s.capture, Feedback: s.feedback, External: s.models.Imported, OutputNamed: s.models.OutputNamed, Name: s.patterns.Text, Recorded: s.recorded, BatchRows: s.batchRows,
		KnownError: s.knownError(),
		Said:       func(ctx context.Context, traces map[string][]json.RawMessage) { s.intake.Said(ctx, traces) },
		Explain:    s.audited().ExplainRows, ExplainStored: s.audited().Explain, ReadPrediction: s.audited().Prediction,
		RecordExplanations: s.recordExplanations, Ready: s.ready,
		TracerProvider: s.telemetry.TracerProvider(), MeterProvider: s.telemetry.MeterProvider(), Logger: s.log,
		Keep: s.keepSpan, KeepSlower: time.Duration(s.cfg.Telemetry.KeepSlower), KeepRefused: noneAs(s.cfg.Telemetry.KeepRefused),
		MaxBody: int64(s.cfg.Limits.Body), Timeout: time.Duration(s.cfg.Limits.Timeout), MaxInFlight: s.cfg.Limits.InFlight,
		AllowNonLoopback: s.cfg.AllowUnauthenticated, UI: "/ui/", Version: build(),
	}
}

// onlyKnown reports whether only known texts of other programs are kept.
func (s *server) onlyKnown() bool {
	return s.cfg.Capture.Texts != textsCleaned && (s.models.Private() || s.privateUpstream)
}

// knownError says which errors of imported predictions repeat nothing; nil where all are
// searched.
func (s *server) knownError() func(string) bool {
	if s.cfg.Capture.Texts == textsCleaned {
		return nil
	}
	return func(text string) bool {
		return telemetry.KnownError(text) || slices.Contains(s.cfg.Capture.KnownTexts, text)
	}
}

// whyLater is why a request is to be sent again later, as it is answered to all others.
func whyLater(err error) string {
	if status, message, _ := proxy.Failure(err); status == http.StatusServiceUnavailable {
		return message
	}
	return ""
}

// noneAs is a limit whose zero means none, where a negative one does.
func noneAs(limit int) int {
	if limit == 0 {
		return -1
	}
	return limit
}

// keepSpan has a span of the data plane kept after the fact.
func (s *server) keepSpan(l proxy.LateSpan) {
	s.telemetry.Keep(telemetry.Late{
		Scope: "github.com/pellucid/pellucid/collector/proxy", Own: l.Own, Parent: l.Parent, Name: l.Name, Kind: l.Kind,
		Start: l.Start, End: l.End, Attributes: l.Attributes, Code: l.Code, Description: l.Description,
	})
}

// ready says why the server should get no traffic. A ClickHouse that is away is
// no reason: predictions go on into the spool; nor is a full spool where the operator
// has them served all the same.
func (s *server) ready() error {
	if s.cfg.Capture.OnFull != string(capture.OnFullServe) && s.spool.Stats().Full {
		return cmp.Or(s.marks.ours(markedSpool)(), collector.ErrFull)
	}
	return nil
}

// batchRows returns how many rows a request has that waits in the spool.
func (s *server) batchRows(id string) (rows int, known bool) {
	records, err := s.spool.Find(id)
	if err != nil {
		return 0, false
	}
	for _, r := range records {
		if r.Kind == collector.KindPrediction && r.ID == id {
			return collector.PayloadRows(r.Kind, r.Payload), true
		}
	}
	return 0, false
}

// recorded reports whether a model's prediction of that id waits in the spool, or is a dead
// letter, which counts as well as what came after it. What left the spool earlier is known to
// the store, which drops the second of an id.
func (s *server) recorded(model, id string) bool {
	if s.dead.Holds(model, id) {
		return true
	}
	records, err := s.spool.Find(id)
	if err != nil {
		return false
	}
	for _, r := range records {
		if r.Kind != collector.KindImported && r.Kind != collector.KindPrediction || r.ID != id {
			continue
		}
		if p, err := collector.DecodePrediction(r.Payload); err == nil && p.Model == model {
			return true
		}
	}
	return false
}

func (s *server) feedback(ctx context.Context, labels []collector.Feedback) error {
	for i := range labels {
		if err := s.capturer.Feedback(ctx, &labels[i]); err != nil {
			return err
		}
	}
	return nil
}

// recordExplanations keeps explanations, but for those of sealed features: what they
// tell is for the one who asked.
func (s *server) recordExplanations(ctx context.Context, list []collector.Explanation) error {
	for i := range list {
		if len(list[i].Sealed) > 0 {
			continue
		}
		if err := s.capturer.Explanation(ctx, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// showPrediction is readPrediction for whoever asked.
func (s *server) showPrediction(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	rows, err := s.readPrediction(ctx, ref)
	if err != nil {
		return nil, err
	}
	return rows, s.shown(ctx, ref.Tenant, rows)
}

// readPrediction answers from the spool what is not in ClickHouse yet. A record
// leaves the spool only after it is stored, so looking there first misses
// nothing.
func (s *server) readPrediction(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	waiting, err := s.fromSpool(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(waiting) > 0 && (ref.Model != "" || !madeElsewhere(waiting)) {
		return waiting, nil
	}
	rows, err := s.store.Prediction(ctx, ref)
	switch {
	case len(waiting) > 0 && err == nil:
		return append(waiting, ofOthers(rows, waiting)...), nil
	case len(waiting) > 0 && (errors.Is(err, collector.ErrNotFound) || errors.Is(err, collector.ErrUnavailable)):
		return waiting, nil // what is known without the store is not kept back
	case errors.Is(err, collector.ErrNotFound):
		if dead, derr := s.fromDead(ctx, ref); derr != nil || len(dead) > 0 {
			return dead, derr
		}
	}
	return rows, err
}

// madeElsewhere reports whether the id of one of the rows was, which other models may have
// too.
func madeElsewhere(rows []collector.StoredPrediction) bool {
	return slices.ContainsFunc(rows, func(p collector.StoredPrediction) bool { return p.Route == collector.RouteImported })
}

// ofOthers are those of rows that are of no model of known.
func ofOthers(rows, known []collector.StoredPrediction) []collector.StoredPrediction {
	return slices.DeleteFunc(rows, func(p collector.StoredPrediction) bool {
		return slices.ContainsFunc(known, func(k collector.StoredPrediction) bool { return k.Model == p.Model })
	})
}

// fromSpool answers what waits in the spool. An id in full comes before a row of the
// request that the rest of the id names.
func (s *server) fromSpool(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	request, row, oneRow := collector.SplitID(ref.ID)
	records, err := s.spool.Find(ref.ID)
	if err != nil {
		return nil, err
	}
	var whole, part []collector.StoredPrediction
	for _, r := range records {
		if r.Kind == collector.KindDriven {
			l, err := collector.DecodeDeadLetter(r.Payload)
			if err != nil || l.Rollup() {
				continue
			}
			r.Kind, r.Payload = l.Kind, l.Payload
		}
		if r.Kind != collector.KindPrediction && r.Kind != collector.KindImported && r.Kind != collector.KindRefused {
			continue
		}
		p, err := collector.DecodePrediction(r.Payload)
		if err != nil {
			return nil, err
		}
		if ref.Model != "" && p.Model != ref.Model {
			continue
		}
		schema := s.schemaOf(p.SchemaID)
		if schema == nil {
			if schema, err = s.store.Schema(ctx, p.SchemaID); err != nil {
				return nil, err
			}
		}
		switch rows := collector.StoredRows(p, schema); {
		case !oneRow || p.ID != request:
			whole = append(whole, rows...)
		case row < len(rows):
			part = append(part, rows[row])
		}
	}
	if len(whole) > 0 {
		return whole, nil
	}
	return part, nil
}

// explainStored explains a past prediction with the very version that made it.
func (s *server) explainStored(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
	rows, err := s.readPrediction(ctx, ref)
	if err != nil {
		return nil, err
	}
	var out []collector.Explanation
	for i := range rows {
		list, err := s.explainRow(ctx, ref.Tenant, &rows[i], req)
		if err != nil {
			return nil, &ofModelError{rows[i].Model, fmt.Errorf("explain prediction %s: %w", rows[i].ID, err)}
		}
		out = append(out, list...)
	}
	return out, nil
}

func (s *server) explainRow(ctx context.Context, tenant string, p *collector.StoredPrediction, req collector.ExplainRequest) ([]collector.Explanation, error) {
	if p.Status >= 400 {
		return nil, fmt.Errorf("it failed with status %d, there is nothing to explain: %w", p.Status, collector.ErrRefused)
	}
	if p.Capture == collector.CaptureRedacted {
		return nil, fmt.Errorf("capture.patterns took something out of its features: %w", collector.ErrRefused)
	}
	if p.Capture != collector.CaptureFull && p.Capture != collector.CaptureInputs {
		return nil, fmt.Errorf("its features are not stored (capture: %s): %w", p.Capture, collector.ErrRefused)
	}
	v, err := s.versionOf(p)
	if err != nil {
		return nil, err
	}
	if err := s.sameRules(ctx, p, v); err != nil {
		return nil, err
	}
	if same, err := s.sameFeatures(ctx, p, v); err != nil || !same {
		return nil, cmp.Or(err, fmt.Errorf("its features are not recorded as its model has them now: their shapes differ, or what is private of them has changed since: %w", collector.ErrRefused))
	}
	row := p.Raw
	row.SchemaID = "" // that of other outputs, perhaps
	open, sealed := v.Unsealed()
	if len(sealed) > 0 {
		if row, err = s.openRow(ctx, tenant, v, p); err != nil {
			return nil, err
		}
	}
	in, err := collector.Unflatten(open.Schema, v.Info, []collector.RawRow{row})
	if err != nil {
		return nil, err
	}
	list, err := s.explainer.Explain(ctx, open, in, req)
	for i := range list {
		list[i].PredictionID, list[i].Sealed = p.ID, sealed
	}
	return list, err
}

// versionOf is the version that made a row. The store keeps files once, whatever models
// they are of, and rules of capture.private go by the model's name: the live version of
// that name goes first.
func (s *server) versionOf(p *collector.StoredPrediction) (*collector.ModelVersion, error) {
	for _, v := range s.models.Live() {
		if v.Name == p.Model && v.Digest == p.Digest {
			return v, nil
		}
	}
	return s.models.ByDigest(p.Digest)
}

// sameRules refuses a row in which something is private that is not so in v: what is
// recorded of it is not what the model saw.
func (s *server) sameRules(ctx context.Context, p *collector.StoredPrediction, v *collector.ModelVersion) error {
	if p.Raw.SchemaID == v.Schema.ID {
		return nil
	}
	schema, err := s.schemaNamed(ctx, p.Raw.SchemaID)
	if err != nil {
		return err
	}
	for i := range schema.Features {
		f := &schema.Features[i]
		if f.Private != collector.PrivacyNone && (i >= len(v.Schema.Features) || v.Schema.Features[i].Private != f.Private) {
			return fmt.Errorf("feature %q was private when it was recorded: %w", f.Name, collector.ErrRefused)
		}
	}
	return nil
}

// sameFeatures reports whether a row's features lie as v's schema has them, whatever its
// outputs.
func (s *server) sameFeatures(ctx context.Context, p *collector.StoredPrediction, v *collector.ModelVersion) (bool, error) {
	if p.Raw.SchemaID == v.Schema.ID {
		return true, nil
	}
	schema, err := s.schemaNamed(ctx, p.Raw.SchemaID)
	if err != nil {
		return false, err
	}
	return schema.SameFeatures(v.Schema), nil
}

// openRow opens a row's sealed values to explain it, for who may have that.
func (s *server) openRow(ctx context.Context, tenant string, v *collector.ModelVersion, p *collector.StoredPrediction) (collector.RawRow, error) {
	if !mayUnseal(ctx) {
		return collector.RawRow{}, fmt.Errorf("feature %q is sealed: %w", v.Schema.Sealed()[0], errMayNotUnseal)
	}
	if same, err := s.sameFeatures(ctx, p, v); err != nil || !same {
		return collector.RawRow{}, cmp.Or(err, fmt.Errorf("%w: what is private of its version has changed since", collector.ErrRefused))
	}
	return collector.OpenRow(collector.Scope{Tenant: tenant, Model: p.Model}, v.Schema, p.Raw)
}

// writeSpans stores spans, one insert a day of theirs: a table's partition is a
// day, and one insert may meet only so many.
func (s *server) writeSpans(ctx context.Context, spans []telemetry.Span) error {
	days := map[string][]telemetry.Span{}
	for i := range spans {
		day := spans[i].Timestamp.UTC().Format(time.DateOnly)
		days[day] = append(days[day], spans[i])
	}
	for _, list := range days {
		if err := s.writeDay(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) writeDay(ctx context.Context, spans []telemetry.Span) error {
	out := make([]clickhouse.Span, len(spans))
	h := sha256.New()
	for i := range spans {
		sp := cleanSpan(s.patterns, spans[i])
		fmt.Fprintln(h, sp.TraceID, sp.SpanID)
		out[i] = clickhouse.Span{
			Start: sp.Timestamp, Duration: time.Duration(sp.Duration), TraceID: sp.TraceID, SpanID: sp.SpanID,
			ParentSpanID: sp.ParentSpanID, TraceState: sp.TraceState, Name: sp.SpanName, Kind: sp.SpanKind,
			ServiceName: sp.ServiceName, Resource: sp.ResourceAttributes, ScopeName: sp.ScopeName, Version: sp.ScopeVersion,
			Attributes: sp.SpanAttributes, StatusCode: sp.StatusCode, StatusMessage: sp.StatusMessage,
		}
		for _, e := range sp.Events {
			out[i].Events = append(out[i].Events, clickhouse.SpanEvent{Time: e.Timestamp, Name: e.Name, Attributes: e.Attributes})
		}
		for _, l := range sp.Links {
			out[i].Links = append(out[i].Links, clickhouse.SpanLink(l))
		}
	}
	return s.store.InsertSpans(ctx, hex.EncodeToString(h.Sum(nil)), out)
}

// recordAlerts keeps the history of alerts. An event bears the time of the change
// itself, so that a message that is offered again, at a later evaluation, is the
// same event.
func (s *server) recordAlerts(ctx context.Context, list []alerts.Alert) error {
	events := make([]clickhouse.AlertEvent, len(list))
	token := "alerts"
	for i, a := range list {
		at := a.StartsAt
		if a.State == alerts.Resolved {
			at = a.EndsAt
		}
		id := fmt.Sprintf("%s %s %d", a.Fingerprint, a.State, at.UnixMicro())
		token += " " + id
		events[i] = clickhouse.AlertEvent{
			ID: id, Time: at, Tenant: collector.DefaultTenant, Rule: a.Rule, Fingerprint: a.Fingerprint,
			Model: a.Model, ModelVersion: a.Version, State: string(a.State), Labels: a.Labels, Annotations: a.Annotations,
		}
		if len(a.Findings) > 0 {
			events[i].Value = a.Findings[0].Value
		}
	}
	return s.store.InsertAlertEvents(ctx, token, events)
}

// pastAlerts tells what fired and what became of it.
func (s *server) pastAlerts(ctx context.Context, q api.AlertQuery) (api.PastAlerts, error) {
	list, next, err := s.store.PastAlerts(ctx, clickhouse.AlertQuery(q))
	if err != nil {
		return api.PastAlerts{}, asked(err)
	}
	firing := map[string]bool{}
	for _, a := range s.alerts() {
		firing[a.Fingerprint] = a.State == alerts.Firing || a.State == alerts.Silenced
	}
	out := api.PastAlerts{Alerts: make([]api.PastAlert, len(list)), Next: next}
	for i := range list {
		out.Alerts[i] = pastAlert(&list[i], firing[list[i].Fingerprint])
	}
	return out, nil
}

func pastAlert(a *clickhouse.PastAlert, firing bool) api.PastAlert {
	p := api.PastAlert{
		Rule: a.Rule, Fingerprint: a.Fingerprint, Model: a.Model, Version: a.ModelVersion, Kind: a.Labels["kind"], Severity: a.Labels["severity"],
		State: "unwatched", StartsAt: a.Start, EndsAt: a.End, Value: a.Value, Features: a.Annotations["features"], LastFeatures: a.Last["features"],
		Summary: a.Annotations["summary"], Predictions: []string{},
	}
	switch {
	case !a.End.IsZero():
		p.State = string(alerts.Resolved)
	case firing:
		p.State = string(alerts.Firing)
	}
	if ids := a.Annotations["predictions"]; ids != "" {
		p.Predictions = strings.Split(ids, ",")
	}
	if from, to, ok := strings.Cut(a.Annotations["window"], "/"); ok {
		// A rule may write its own text there: then there is no window to show.
		first, err1 := time.Parse(time.RFC3339, from)
		last, err2 := time.Parse(time.RFC3339, to)
		if err1 == nil && err2 == nil {
			p.From, p.To = first, last
		}
	}
	return p
}

func (s *server) registerPages(e *echo.Echo) error {
	src := s.audited().sources(s.sources())
	api.Register(e, src)
	api.RegisterRetention(e, s.retentionStatus)
	api.RegisterRollups(e, s.recountRollups)
	api.RegisterSubjects(e, api.Subjects{Erase: s.eraseSubject, Export: s.exportSubject, Exported: s.audited().export})
	return dashboards.Register(e, dashboards.Config{
		Sources: src, Build: build(), Methods: explain.Methods,
		Rules: func() int { return len(s.manager.Rules()) },
	})
}

func (s *server) sources() *api.Sources {
	receivers := []string{"log"}
	for i := range s.webhooks {
		receivers = append(receivers, fmt.Sprintf("webhook-%d", i+1))
	}
	return &api.Sources{
		Models: s.models.Live, States: s.proxy.States,
		Traffic: s.traffic, Drift: s.drift, Performance: s.performance, Bins: s.bins,
		List: func(ctx context.Context, q collector.Query) (collector.Page, error) {
			p, err := s.store.List(ctx, q)
			if err != nil {
				return collector.Page{}, asked(err)
			}
			return *p, s.shown(ctx, q.Tenant, p.Predictions)
		},
		Count: func(ctx context.Context, q collector.Query) (int64, error) {
			n, err := s.store.Count(ctx, q)
			return int64(n), asked(err)
		},
		Prediction: s.showPrediction, Explain: s.explainAndRecord, Spans: s.spans, Privacy: s.privacy,
		Extent: func(ctx context.Context, tenant, model, version string) (time.Time, time.Time, error) {
			first, last, _, err := s.store.TrafficExtent(ctx, tenant, model, version)
			return first, last, err
		},
		Alerts: s.alerts, PastAlerts: s.pastAlerts, Receivers: receivers, Rules: s.rules, Dead: s.deadLetters(), Status: s.status, Now: time.Now,
	}
}

// asked marks a filter or cursor that the store cannot understand as the caller's
// mistake.
func asked(err error) error {
	if errors.Is(err, clickhouse.ErrWhere) || errors.Is(err, clickhouse.ErrCursor) || errors.Is(err, clickhouse.ErrSubject) {
		return fmt.Errorf("%w: %w", collector.ErrBadQuery, err)
	}
	return err
}

// explainAndRecord explains for a page, which shows sealed features only where the
// request says so.
func (s *server) explainAndRecord(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
	list, err := s.explainStored(ctx, ref, req)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(e collector.Explanation) bool { return len(e.Sealed) > 0 }); i >= 0 && !asksUnseal(ctx) {
		return nil, &ofModelError{list[i].Model, fmt.Errorf("%w: feature %q is sealed: add ?unseal=true to see what the prediction rests on", collector.ErrRefused, list[i].Sealed[0])}
	}
	return list, s.recordExplanations(ctx, list)
}

func (s *server) spans(ctx context.Context, traceID string) ([]api.Span, error) {
	list, err := s.store.SpansByTrace(ctx, traceID)
	if err != nil && !errors.Is(err, collector.ErrNotFound) {
		return nil, err
	}
	out := make([]api.Span, len(list))
	for i, sp := range list {
		out[i] = api.Span{
			ID: sp.SpanID, Parent: sp.ParentSpanID, Name: sp.Name, Service: sp.ServiceName, Start: sp.Start,
			Duration: sp.Duration, Status: sp.StatusCode, Attributes: sp.Attributes,
		}
	}
	return out, nil
}
