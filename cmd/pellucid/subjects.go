package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/capture"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/dashboards/api"
)

// settleTime bounds the wait for what is on its way to the store.
const settleTime = 30 * time.Second

// drained waits until everything that was recorded before is stored, acknowledged and
// gone from the spool's files.
func (s *server) drained(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.settleTime, settleTime))
	defer cancel()
	mark, err := s.spool.Rotate()
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrPending, err)
	}
	for s.spool.Before(mark) {
		s.spool.Flush()
		if s.noRoom() {
			return fmt.Errorf("%w: %w", api.ErrPending, errNoRoom)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", api.ErrPending, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	// Spans have a road of their own, without a promise.
	if err := s.telemetry.Flush(ctx); err != nil {
		return fmt.Errorf("%w: %w", api.ErrPending, err)
	}
	return nil
}

// errNoRoom is why records will not be stored, however long one waits.
var errNoRoom = errors.New("the disk of ClickHouse is full, so they cannot be stored, and nothing can be erased before they are: free some room and ask again")

// noRoom reports whether the store takes nothing now because its disk is full.
func (s *server) noRoom() bool {
	if clickhouse.IsFull(s.writer.Health().Err) {
		return true
	}
	return s.storeFull != nil && s.storeFull()
}

// subject is what the store is asked for. An id that patterns have hashed is known by its
// clear form from wherever: who names it would else be told that nothing is left.
func (s *server) subject(ctx context.Context, x api.Subject) clickhouse.Subject {
	field, _ := s.clearForms(ctx)
	return clickhouse.Subject{
		Tenant: collector.DefaultTenant, Model: x.Model, ExternalID: x.ExternalID, PredictionID: x.PredictionID, Where: x.Where,
		Stored: field, StoredID: storedIDs(s.cfg.hashKey()),
	}
}

// clearForms are what a filter's clear values may be stored as. Whoever may not see private
// values may not try them either: a caller from elsewhere compares with what is stored.
func (s *server) clearForms(ctx context.Context) (field func(*collector.Field, string) ([]string, error), id func(string) ([]string, error)) {
	may, key := mayUnseal(ctx), s.cfg.hashKey()
	field = func(f *collector.Field, value string) ([]string, error) {
		switch stored := collector.IsHash(value); {
		case f.Private != collector.PrivacyHash || stored && !may:
			return []string{value}, nil
		case !may:
			return nil, fmt.Errorf("feature %q is stored as a hash: only callers on this machine may name clear values of it", f.Name)
		}
		k, err := key()
		if err != nil {
			return nil, err
		}
		forms, err := f.StoredAs(k, value)
		if errors.Is(err, collector.ErrRefused) && collector.IsHash(value) {
			return []string{value}, nil // a stored one, of another key
		}
		return forms, err
	}
	if may && s.patterns != nil {
		id = storedIDs(key)
	}
	return field, id
}

// storedIDs turns an id into what patterns may have made of it, those of now or any
// that were in use before.
func storedIDs(key func() ([]byte, error)) func(id string) ([]string, error) {
	known := map[string][]string{}
	return func(id string) ([]string, error) {
		if forms, ok := known[id]; ok {
			return forms, nil
		}
		key, err := key()
		if err != nil {
			return nil, err
		}
		names := capture.PatternNames()
		forms := []string{id}
		for set := 1; set < 1<<len(names); set++ {
			use := map[string]capture.PatternAction{}
			for i, name := range names {
				if set>>i&1 == 1 {
					use[name] = capture.PatternHash
				}
			}
			p, err := capture.NewPatterns(use, key)
			if err != nil {
				return nil, err
			}
			forms = append(forms, p.ID(id))
		}
		slices.Sort(forms)
		known[id] = slices.Compact(forms)
		return known[id], nil
	}
}

// about describes a subject without a word of who it is.
func (a audited) about(x api.Subject) string {
	switch {
	case x.ExternalID != "":
		return "external_id " + a.s.audit.Hash(x.ExternalID)
	case x.PredictionID != "":
		return a.named(x.PredictionID)
	}
	return "where " + clickhouse.RedactWhere(x.Where, a.s.audit.Hash)
}

// stays is what an erasure does not reach.
func (s *server) stays(ctx context.Context) []string {
	out := []string{
		"sums by minute in bins_1m and traffic_1m, which name nobody",
		"bin edges and category names in references, which are of many rows",
		"ids of predictions in alert_events and in the audit log, which lead nowhere any more",
		"backups, and disks' own copies of deleted blocks",
	}
	// The embedded engine's own log holds no values. Another server's does, and so do tables
	// of logs that an operator switches on.
	if s.cfg.ClickHouse != "" {
		out = append(out, "values and statements in the ClickHouse server's own logs, and in its system.*_log tables")
	} else if exists(filepath.Join(s.cfg.Data, "clickhouse", "config.d")) {
		out = append(out, "statements in system.*_log tables, where clickhouse/config.d switches them on")
	}
	if _, kept := s.dead.Damaged(); kept || s.spool.Stats().BadStretches > 0 {
		out = append(out, "damaged bytes that the spool has set aside (*.bad)")
	}
	if s.cfg.Cluster != "" || s.cfg.ClickHouse != "" {
		out = append(out, "what other servers of Pellucid that write to the same ClickHouse have in spools, dead letters and events of their own")
	}
	switch aside, err := s.store.SetAsideRows(ctx); {
	case err != nil:
		out = append(out, "damaged parts that ClickHouse may have set aside (detached): it could not be asked")
	case len(aside) > 0:
		out = append(out, fmt.Sprintf("%d damaged parts that ClickHouse has set aside (detached/broken* in its data folder), and spans of predictions that were in them", len(aside)))
	}
	if s.cfg.Telemetry.OTLP != "" {
		out = append(out, "spans that were sent to the OTLP endpoint")
	}
	return out
}

// notNow is answered as a store that cannot be asked now is, and does not say that it cannot.
type notNow string

func (e notNow) Error() string { return string(e) }

func (notNow) Unwrap() error { return collector.ErrUnavailable }

// turn is a lock that is waited for, by whoever asked first; make(turn, 1) is one.
type turn chan struct{}

// take waits for the turn, but not for ever.
func (t turn) take(ctx context.Context, atMost time.Duration) bool {
	late := time.NewTimer(atMost)
	defer late.Stop()
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-late.C:
	}
	return false
}

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) give() { <-t }

// pass lets those go first who wait for the turn.
func (t turn) pass() {
	t.give()
	t <- struct{}{}
}

const errBusy = notNow("another erasure, export, retention run or recount of the rollups is under way: ask again")

// eraseSubject deletes a subject's rows and proves it by counts. It is recorded
// before anything is deleted, and when it is done.
func (s *server) eraseSubject(ctx context.Context, r api.ErasureRequest) (api.Erasure, error) {
	if !s.erasing.take(ctx, cmp.Or(s.settleTime, settleTime)) {
		return api.Erasure{}, errBusy
	}
	defer s.erasing.give()
	// Letters that are driven now come home or back before anything is looked for.
	s.driveMu.Lock()
	defer s.driveMu.Unlock()
	x := s.subject(ctx, r.Subject)
	out := api.Erasure{DryRun: r.DryRun, Stays: s.stays(ctx)}
	o, err := s.holdHalves(ctx, &x)
	if err != nil {
		return out, asked(err)
	}
	defer o.release()
	if r.DryRun {
		o.release() // a logger might not send again what is refused meanwhile
	}
	waiting := s.drained(ctx)
	if waiting != nil && (ctx.Err() != nil || !errors.Is(waiting, api.ErrPending) || !r.DryRun && errors.Is(waiting, errNoRoom)) {
		return out, waiting
	}
	if err := s.findLetters(ctx, &x, o); err != nil {
		return out, asked(err)
	}
	entry := audit.Entry{Action: "erase", Tenant: x.Tenant, Model: s.audited().known(x.Model, "", x.Model), Object: s.audited().about(r.Subject)}
	if r.DryRun || waiting != nil {
		e, err := s.countSubject(ctx, &x, o)
		if err != nil {
			return out, asked(err)
		}
		out.Pending, out.Before = waiting != nil, e.Before
		out.Unsearched, out.UnsearchedIn = sum(e.Unsearched), e.Unsearched
		entry.Counts, entry.Outcome = e.Before, "dry run"
		if !r.DryRun {
			entry.Outcome = "pending"
		}
		return out, s.audit.Append(ctx, entry, true)
	}
	begun := false
	e, err := s.store.Erase(ctx, x, func(ctx context.Context, e *clickhouse.Erasure) error {
		if err := o.count(ctx, e); err != nil {
			return err
		}
		entry.Counts = maps.Clone(e.Before)
		if n := e.Before["predictions"]; r.Expect != nil && *r.Expect != n {
			entry.Outcome = "refused"
			return errors.Join(fmt.Errorf("there are %d predictions, not the %d that were expected: %w", n, *r.Expect, collector.ErrRefused),
				s.audit.Append(ctx, entry, true))
		}
		// What was found may be of a batch that is under way since.
		if err := s.drained(ctx); err != nil {
			return err
		}
		entry.Outcome, begun = "begun", true
		if err := s.audit.Append(ctx, entry, true); err != nil {
			return err
		}
		return s.eraseOutside(o)
	})
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if begun {
			entry.Outcome = "failed"
			err = errors.Join(err, s.audit.Append(ctx, entry, true))
		}
		return out, asked(err)
	}
	maps.Copy(e.After, o.left)
	out.Before, out.After = e.Before, e.After
	out.Unsearched, out.UnsearchedIn = sum(e.Unsearched), e.Unsearched
	return out, s.erased(ctx, r, &out, e, entry)
}

// erased is the end of an erasure: the key, if it is to go, and what is recorded.
func (s *server) erased(ctx context.Context, r api.ErasureRequest, out *api.Erasure, e *clickhouse.Erasure, entry audit.Entry) (err error) {
	if r.Forget != "" {
		if out.Keys, _, err = s.forget(ctx, entry.Tenant, r.Forget); err != nil {
			entry.Outcome = "failed"
			return errors.Join(fmt.Errorf("the rows are deleted, the subject's key is not: %w", err), s.audit.Append(ctx, entry, true))
		}
	}
	if !e.FilesGoneBy.IsZero() {
		out.FilesGoneBy = &e.FilesGoneBy
	}
	entry.Outcome, entry.Counts = "", map[string]int64{}
	if r.Forget != "" {
		entry.Counts["keys"] = int64(out.Keys)
	}
	for table, n := range e.Before {
		entry.Counts[table] = n
		entry.Counts[table+" left"] = e.After[table]
	}
	return s.audit.Append(ctx, entry, true)
}

// exportSubject writes everything stored of a subject, a JSON object a line, the
// counts first. It is recorded before the first line.
func (s *server) exportSubject(ctx context.Context, r api.Subject, w io.Writer) error {
	if !s.exporting.TryLock() {
		return errBusy
	}
	defer s.exporting.Unlock()
	x := s.subject(ctx, r)
	o, err := s.holdHalves(ctx, &x)
	if err != nil {
		return asked(err)
	}
	o.release() // they are read, and may be recorded meanwhile
	waiting := s.drained(ctx)
	if waiting != nil && (ctx.Err() != nil || !errors.Is(waiting, api.ErrPending)) {
		return waiting
	}
	if err := s.findLetters(ctx, &x, o); err != nil {
		return asked(err)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err = s.store.ExportSubject(ctx, x, func(e *clickhouse.Erasure) error {
		if err := o.count(ctx, e); err != nil {
			return err
		}
		err := s.audit.Append(ctx, audit.Entry{
			Action: "export", Tenant: x.Tenant, Model: s.audited().known(x.Model, "", x.Model), Object: s.audited().about(r), Counts: e.Before,
		}, true)
		if err != nil {
			return err
		}
		return enc.Encode(map[string]any{"subject": map[string]any{
			"counts": e.Before, "pending": waiting != nil, "unsearched": sum(e.Unsearched), "unsearched_in": e.Unsearched,
		}})
	}, func(row clickhouse.SubjectRow) error { return enc.Encode(row) })
	if err != nil {
		return asked(err)
	}
	return s.exportOutside(ctx, o, func(kind string, v any) error { return enc.Encode(map[string]any{kind: v}) })
}
