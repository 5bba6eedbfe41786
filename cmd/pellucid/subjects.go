package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
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

// subject is what the store is asked for.
func (s *server) subject(x api.Subject) clickhouse.Subject {
	return clickhouse.Subject{
		Tenant: collector.DefaultTenant, Model: x.Model, ExternalID: x.ExternalID, PredictionID: x.PredictionID, Where: x.Where,
		Stored: func(f *collector.Field, value string) ([]string, error) {
			key, err := s.cfg.hashKey()()
			if err != nil {
				return nil, err
			}
			return f.StoredAs(key, value)
		},
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
func (s *server) stays() []string {
	out := []string{
		"sums by minute in bins_1m and traffic_1m, which name nobody",
		"bin edges and category names in references, which are of many rows",
		"ids of predictions in alert_events and in the audit log, which lead nowhere any more",
		"backups, and disks' own copies of deleted blocks",
	}
	if s.spool.Stats().BadStretches > 0 {
		out = append(out, "damaged bytes that the spool has set aside (*.bad)")
	}
	if n := s.dead.Len(); n > 0 {
		out = append(out, fmt.Sprintf("dead letters, which are not searched: there are %d, see /api/v1/dead-letters", n))
	}
	if s.cfg.Telemetry.OTLP != "" {
		out = append(out, "spans that were sent to the OTLP endpoint")
	}
	return out
}

var errBusy = fmt.Errorf("another erasure, export or retention run is under way: %w", collector.ErrUnavailable)

// eraseSubject deletes a subject's rows and proves it by counts. It is recorded
// before anything is deleted, and when it is done.
func (s *server) eraseSubject(ctx context.Context, r api.ErasureRequest) (api.Erasure, error) {
	if !s.erasing.TryLock() {
		return api.Erasure{}, errBusy
	}
	defer s.erasing.Unlock()
	x := s.subject(r.Subject)
	out := api.Erasure{DryRun: r.DryRun, Stays: s.stays()}
	waiting := s.drained(ctx)
	if waiting != nil && (ctx.Err() != nil || !errors.Is(waiting, api.ErrPending)) {
		return out, waiting
	}
	entry := audit.Entry{Action: "erase", Tenant: x.Tenant, Model: x.Model, Object: s.audited().about(r.Subject)}
	if r.DryRun || waiting != nil {
		e, err := s.store.CountSubject(ctx, x)
		if err != nil {
			return out, asked(err)
		}
		out.Pending, out.Before, out.Unsearched = waiting != nil, e.Before, e.Unsearched
		entry.Counts, entry.Outcome = e.Before, "dry run"
		if !r.DryRun {
			entry.Outcome = "pending"
		}
		return out, s.audit.Append(ctx, entry, true)
	}
	begun := false
	e, err := s.store.Erase(ctx, x, func(ctx context.Context, e *clickhouse.Erasure) error {
		entry.Counts = e.Before
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
		return s.audit.Append(ctx, entry, true)
	})
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if begun {
			entry.Outcome = "failed"
			err = errors.Join(err, s.audit.Append(ctx, entry, true))
		}
		return out, asked(err)
	}
	out.Before, out.After, out.Unsearched = e.Before, e.After, e.Unsearched
	if r.Forget != "" {
		if out.Keys, err = s.forget(ctx, x.Tenant, r.Forget); err != nil {
			entry.Outcome = "failed"
			return out, errors.Join(fmt.Errorf("the rows are deleted, the subject's key is not: %w", err), s.audit.Append(ctx, entry, true))
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
	return out, s.audit.Append(ctx, entry, true)
}

// exportSubject writes everything stored of a subject, a JSON object a line, the
// counts first. It is recorded before the first line.
func (s *server) exportSubject(ctx context.Context, r api.Subject, w io.Writer) error {
	if !s.exporting.TryLock() {
		return errBusy
	}
	defer s.exporting.Unlock()
	waiting := s.drained(ctx)
	if waiting != nil && (ctx.Err() != nil || !errors.Is(waiting, api.ErrPending)) {
		return waiting
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	x := s.subject(r)
	return asked(s.store.ExportSubject(ctx, x, func(e *clickhouse.Erasure) error {
		err := s.audit.Append(ctx, audit.Entry{
			Action: "export", Tenant: x.Tenant, Model: x.Model, Object: s.audited().about(r), Counts: e.Before,
		}, true)
		if err != nil {
			return err
		}
		return enc.Encode(map[string]any{"subject": map[string]any{"counts": e.Before, "pending": waiting != nil, "unsearched": e.Unsearched}})
	}, func(row clickhouse.SubjectRow) error { return enc.Encode(row) }))
}
