package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/collector/keys"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// auditKey is the path of the key that signs the audit log.
func (c *config) auditKey() string {
	if c.Audit.KeyFile != "" {
		return c.Audit.KeyFile
	}
	return filepath.Join(c.Data, "audit", "key")
}

// auditDir is the audit log's folder.
func (c *config) auditDir() string { return filepath.Join(c.Data, "audit") }

// startAudit opens the audit log, whose folder the spool's lock guards.
func (s *server) startAudit(context.Context) error {
	found := s.marks.look(markedAudit)
	dir, err := s.cfg.dir("audit")
	if err != nil {
		return err
	}
	path := s.cfg.auditKey()
	if s.cfg.Audit.KeyFile == "" {
		if _, err := keys.MakeSecret(path); err != nil {
			return err
		}
	}
	key, err := keys.ReadSecret(path)
	if err != nil {
		return usage(fmt.Errorf("read the audit log's key: %w", err))
	}
	l, err := audit.Open(audit.Config{Dir: dir, Ours: s.marks.ours(markedAudit), Key: key, HeadFile: s.cfg.Audit.HeadFile, MaxBytes: int64(s.cfg.Audit.Bytes), Log: s.log})
	if err != nil {
		return err
	}
	s.audit = l
	s.marks.settle(found)
	s.onStop("audit log", func(context.Context) error { return l.Close() })
	return l.Observe(s.telemetry.MeterProvider())
}

// offlineAudit opens the audit log of a data folder that no server uses. record has an
// act recorded before it is done, and again where it failed; object, if any, says what it
// is about, given the log's keyed hash. Where there is no log nothing is.
func (c *config) offlineAudit(ctx context.Context) (record func(e audit.Entry, object func(hash func(string) string) string, do func() error) error, done func() error, err error) {
	dir := c.auditDir()
	if !exists(dir) {
		return func(_ audit.Entry, _ func(func(string) string) string, do func() error) error { return do() }, func() error { return nil }, nil
	}
	lock, err := spool.Lock(filepath.Join(c.Data, "spool"))
	if errors.Is(err, spool.ErrLocked) {
		return nil, nil, fmt.Errorf("a server uses the folder, and its audit log: ask it, or stop it: %w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := keys.ReadSecret(c.auditKey())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the audit log's key: %w", err), lock.Close())
	}
	l, err := audit.Open(audit.Config{Dir: dir, Key: key, HeadFile: c.Audit.HeadFile, MaxBytes: int64(c.Audit.Bytes), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	record = func(e audit.Entry, object func(hash func(string) string) string, do func() error) error {
		if object != nil {
			e.Object = object(l.Hash)
		}
		return recorded(ctx, l, e, do)
	}
	return record, func() error { return errors.Join(l.Close(), lock.Close()) }, nil
}

// withPeer names who is at the other end of a connection, once for all its requests:
// before there is authentication an address is all that is known.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	peer := c.RemoteAddr().String()
	name := "unauthenticated "
	if host, _, err := net.SplitHostPort(peer); err == nil && loopback(host) {
		name = "loopback "
	}
	return collector.WithActor(ctx, name+peer)
}

// audited answers questions and has each recorded before its answer is given: what
// cannot be recorded is not answered. Predictions are not among it.
type audited struct{ s *server }

func (s *server) audited() audited { return audited{s} }

// told records that something was read.
func (a audited) told(ctx context.Context, action, model, object string, rows int) error {
	return a.s.audit.Append(ctx, audit.Entry{
		Action: action, Tenant: collector.DefaultTenant, Model: a.known(model, "", model), Object: object, Counts: map[string]int64{"rows": int64(rows)},
	}, false)
}

// refused records that something was asked for and refused, and returns err: that of the
// log where it could not be recorded. Other errors are no refusals, and not recorded.
func (a audited) refused(ctx context.Context, action, model, object string, err error) error {
	if !errors.Is(err, collector.ErrRefused) {
		return err
	}
	if unrecorded := a.s.audit.Append(ctx, audit.Entry{
		Action: action, Tenant: collector.DefaultTenant, Model: a.known(model, "", model), Object: object, Outcome: "refused",
	}, false); unrecorded != nil {
		return unrecorded
	}
	return err
}

// known is a model's name or version where there is such a one. What somebody made up
// may be anything, and is kept as a hash.
func (a audited) known(model, version, text string) string {
	if _, err := a.s.models.Find(model, version); text == "" || !errors.Is(err, collector.ErrNotFound) {
		return text
	}
	return a.s.audit.Hash(text)
}

// named is an id as it may be kept: ours and trace ids say nothing about anybody, an
// id made elsewhere may be a name.
func (a audited) named(id string) string {
	own, _, _ := collector.SplitID(id)
	if trace, ok := strings.CutPrefix(id, "trace:"); ok && len(trace) == 32 && strings.Trim(strings.ToLower(trace), "0123456789abcdef") == "" {
		return id
	}
	if _, err := uuid.Parse(own); err == nil && len(own) == 36 {
		return "prediction " + id
	}
	return "prediction " + a.s.audit.Hash(id)
}

// Prediction reads a stored prediction.
func (a audited) Prediction(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	rows, err := a.s.showPrediction(ctx, ref)
	model := ""
	if len(rows) > 0 {
		model = rows[0].Model
	}
	if err != nil {
		return nil, a.refused(ctx, reading(ctx), model, a.named(ref.ID), err)
	}
	return rows, a.told(ctx, reading(ctx), model, a.named(ref.ID), len(rows))
}

// reading names what a caller does who sees rows, sealed values opened or not.
func reading(ctx context.Context) string {
	if asksUnseal(ctx) {
		return "unseal"
	}
	return "read"
}

// Explain explains a stored prediction.
func (a audited) Explain(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
	return a.explained(ctx, ref, req, a.s.explainStored)
}

func (a audited) explained(ctx context.Context, ref collector.Ref, req collector.ExplainRequest, explain explainByID) ([]collector.Explanation, error) {
	list, err := explain(ctx, ref, req)
	if err != nil {
		model := ref.Model
		if of := (*ofModelError)(nil); errors.As(err, &of) {
			model = of.model
		}
		return nil, a.refused(ctx, "explain", model, a.named(ref.ID), err)
	}
	return list, a.told(ctx, "explain", modelOf(list), a.named(ref.ID), len(list))
}

// explainByID explains a stored prediction.
type explainByID = func(context.Context, collector.Ref, collector.ExplainRequest) ([]collector.Explanation, error)

// ofModelError is an error about a row of that model.
type ofModelError struct {
	model string
	error
}

func (e *ofModelError) Unwrap() error { return e.error }

// ExplainRows explains rows that were brought along. They have no id yet, and their values
// are not for the log: it has the version that they were explained with.
func (a audited) ExplainRows(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
	object := "rows brought along, version " + a.known(v.Name, v.Version, v.Version)
	list, err := a.s.explain(ctx, v, rows, req)
	if err != nil {
		return nil, a.refused(ctx, "explain", v.Name, object, err)
	}
	return list, a.told(ctx, "explain", v.Name, object, len(list))
}

// query describes a question without the values in it.
func (a audited) query(q collector.Query) string {
	of := a.question(q.Model, q.Version, q.From, q.To, q.Where)
	if q.ExternalID != "" {
		of += " of external_id " + a.s.audit.Hash(q.ExternalID)
	}
	return of
}

func (a audited) question(model, version string, from, to time.Time, where string) string {
	return question(a.known(model, version, version), from, to, where, a.s.audit.Hash)
}

// question describes which rows are asked for; hash is for the values of the filter.
func question(version string, from, to time.Time, where string, hash func(string) string) string {
	parts := []string{"predictions"}
	if version != "" {
		parts = append(parts, "version "+version)
	}
	if !from.IsZero() {
		parts = append(parts, "from "+from.UTC().Format(time.RFC3339))
	}
	if !to.IsZero() {
		parts = append(parts, "to "+to.UTC().Format(time.RFC3339))
	}
	if where != "" {
		parts = append(parts, "where "+clickhouse.RedactWhere(where, hash))
	}
	return strings.Join(parts, " ")
}

// export records that somebody is about to take rows out of the store, past the server,
// and says how many there are.
func (a audited) export(ctx context.Context, r api.ExportRequest) (uint64, error) {
	q := collector.Query{Tenant: collector.DefaultTenant, Model: r.Model, Version: r.Version, From: r.From, To: r.To, Where: r.Where}
	n, err := a.s.store.Count(ctx, q)
	if err != nil {
		return 0, asked(err)
	}
	return n, a.s.audit.Append(ctx, audit.Entry{
		Action: "export", Tenant: q.Tenant, Model: a.known(q.Model, "", q.Model), Object: a.query(q), Counts: map[string]int64{"predictions": int64(n)},
	}, true)
}

// sources has everything recorded that shows rows, or counts those of a filter: a
// narrow one is about somebody. Sums over all rows are about nobody.
func (a audited) sources(src *api.Sources) *api.Sources {
	list, count, spans := src.List, src.Count, src.Spans
	src.Prediction = a.Prediction
	explain := src.Explain
	src.Explain = func(ctx context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
		return a.explained(ctx, ref, req, explain)
	}
	src.List = func(ctx context.Context, q collector.Query) (collector.Page, error) {
		p, err := list(ctx, q)
		if err != nil {
			return p, a.refused(ctx, reading(ctx), q.Model, a.query(q), err)
		}
		return p, a.told(ctx, reading(ctx), q.Model, a.query(q), len(p.Predictions))
	}
	src.Count = func(ctx context.Context, q collector.Query) (int64, error) {
		n, err := count(ctx, q)
		if err != nil || q.Where == "" && q.ExternalID == "" {
			return n, err
		}
		return n, a.told(ctx, "count", q.Model, a.query(q), int(n))
	}
	src.Spans = func(ctx context.Context, id string) ([]api.Span, error) {
		got, err := spans(ctx, id)
		if err != nil || len(got) == 0 {
			return got, err
		}
		return got, a.told(ctx, "read", "", "spans of "+a.named("trace:"+id), len(got))
	}
	src.Drift = segment(a, src.Drift)
	src.Performance = segment(a, src.Performance)
	src.Traffic = segment(a, src.Traffic)
	return src
}

// segment has a question about the rows of a segment recorded.
func segment[T []api.TrafficPoint | api.Performance | stats.Report](a audited, ask func(context.Context, api.Window) (T, error)) func(context.Context, api.Window) (T, error) {
	return func(ctx context.Context, w api.Window) (T, error) {
		got, err := ask(ctx, w)
		if err != nil || w.Segment == "" {
			return got, err
		}
		return got, a.told(ctx, "count", w.Model, a.question(w.Model, w.Version, w.From, w.To, w.Segment), 0)
	}
}

func modelOf(list []collector.Explanation) string {
	if len(list) == 0 {
		return ""
	}
	return list[0].Model
}

// auditedModels has it recorded that models are loaded and unloaded by request.
type auditedModels struct {
	*repository.Repository
	s *server
}

// Load makes a model's newest versions answer.
func (m auditedModels) Load(ctx context.Context, name string) error {
	return m.s.act(ctx, audit.Entry{Action: "model.load", Model: m.s.audited().known(name, "", name)}, func() error { return m.Repository.Load(ctx, name) })
}

// Unload makes a model stop answering.
func (m auditedModels) Unload(ctx context.Context, name string) error {
	return m.s.act(ctx, audit.Entry{Action: "model.unload", Model: m.s.audited().known(name, "", name)}, func() error { return m.Repository.Unload(ctx, name) })
}

// act records an act before it is done, and again where it failed.
func (s *server) act(ctx context.Context, e audit.Entry, do func() error) error {
	return recorded(ctx, s.audit, e, do)
}

func recorded(ctx context.Context, l *audit.Log, e audit.Entry, do func() error) error {
	if err := l.Append(ctx, e, true); err != nil {
		return err
	}
	err := do()
	if err != nil {
		e.Outcome = "failed"
		err = errors.Join(err, l.Append(ctx, e, false))
	}
	return err
}
