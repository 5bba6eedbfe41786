package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/clickhouse"
	"github.com/pellucid/pellucid/dashboards/api"
)

const (
	// retentionEvery is the time between runs, retentionRetry after one that another
	// erasure was in the way of.
	retentionEvery = time.Hour
	retentionRetry = time.Minute
)

// retentionState is what is told of the runs.
type retentionState struct {
	mu   sync.Mutex
	last *api.RetentionRun
	next time.Time
}

// policy is the configuration's retention.
func (c *retentionConfig) policy() clickhouse.Retention {
	r := clickhouse.Retention{
		Default: time.Duration(c.Default), Traces: time.Duration(c.Traces), Models: map[string]time.Duration{}, Tenants: map[string]time.Duration{},
	}
	for name, d := range c.Models {
		r.Models[name] = time.Duration(d)
	}
	for name, d := range c.Tenants {
		r.Tenants[name] = time.Duration(d)
	}
	return r
}

// startRetention has rows removed that are past their time, now and every hour. It
// first drops what an erasure of an earlier process left.
func (s *server) startRetention(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.retentionLoop(ctx)
	}()
	s.onStop("retention", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
	return nil
}

func (s *server) retentionLoop(ctx context.Context) {
	policy := s.cfg.Retention.policy()
	for {
		wait := retentionEvery
		if err := s.store.Tidy(ctx, ""); err != nil && ctx.Err() == nil {
			s.log.Warn("what an erasure left could not be tidied up", "error", err)
		}
		if !policy.None() {
			run, err := s.retain(ctx, policy, time.Now())
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, errBusy):
				wait = retentionRetry
			case err != nil:
				s.log.Error("retention failed: the next run tries again", "error", err)
			default:
				s.log.Info("retention", "removed", run.Removed, "versions", run.Versions, "took_ms", run.TookMS)
			}
			s.retention.mu.Lock()
			s.retention.next = time.Now().Add(wait).UTC()
			s.retention.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// retain removes what is past its time, and records it: before, how much it is, and
// afterwards what was removed.
func (s *server) retain(ctx context.Context, policy clickhouse.Retention, now time.Time) (*api.RetentionRun, error) {
	if !s.erasing.tryTake() {
		return nil, errBusy
	}
	defer s.erasing.give()
	began := time.Now()
	run := &api.RetentionRun{At: began.UTC().Truncate(time.Millisecond), Removed: map[string]int64{}, Versions: []string{}}
	entry := audit.Entry{Action: "retention", Object: s.cfg.Retention.text()}
	begun := false
	var past []string // dead letters
	removed, err := s.store.Retain(ctx, policy, now, func(ctx context.Context, counts map[string]int64) error {
		// What is past may be of a batch under way: deleted before it is acknowledged it
		// would count as lost and be sent again.
		if err := s.drained(ctx); err != nil {
			return err
		}
		var err error
		if past, err = s.pastLetters(&policy, now); err != nil {
			return err
		}
		e := entry
		e.Outcome, e.Counts = "begun", maps.Clone(counts)
		e.Counts[countLetters] = int64(len(past))
		if sum(e.Counts) == 0 {
			return nil
		}
		begun = true
		return s.audit.Append(ctx, e, true)
	})
	if err == nil {
		maps.Copy(run.Removed, removed)
		// After the rows: a part of a row in a rollup that is a letter is not counted again.
		run.Removed[countLetters], err = s.expireLetters(past)
	}
	if err == nil {
		run.Versions, err = s.dropVersions(ctx, policy)
	}
	run.TookMS = time.Since(began).Milliseconds()
	entry.Counts = maps.Clone(run.Removed)
	if len(run.Versions) > 0 {
		entry.Counts["versions"] = int64(len(run.Versions))
	}
	if err != nil {
		run.Error, entry.Outcome = err.Error(), "failed"
	}
	if begun || err == nil {
		err = errors.Join(err, s.audit.Append(context.WithoutCancel(ctx), entry, true))
	}
	s.retention.mu.Lock()
	s.retention.last = run
	s.retention.mu.Unlock()
	return run, err
}

// pastLetters are the dead letters of what was received too long ago. Where that is not
// in a letter it counts from when it was refused; one that cannot be read, or is
// nobody's, is kept as long as anything.
func (s *server) pastLetters(policy *clickhouse.Retention, now time.Time) ([]string, error) {
	var past []string
	for _, l := range s.dead.List() {
		whole, err := s.dead.Get(l.ID)
		if errors.Is(err, collector.ErrNotFound) {
			continue // it has come home
		}
		if err != nil {
			return nil, err
		}
		if received, keep := letterTime(policy, whole); clickhouse.Past(now, received, keep) {
			past = append(past, l.ID)
		}
	}
	return past, nil
}

// letterTime is when what is in a letter was received, and how long it is kept.
func letterTime(policy *clickhouse.Retention, l *collector.DeadLetter) (received time.Time, keep time.Duration) {
	switch l.Kind {
	case collector.KindPrediction, collector.KindImported, collector.KindRefused:
		if p, err := collector.DecodePrediction(l.Payload); err == nil {
			return p.ReceivedAt, policy.Of(p.Tenant, p.Model)
		}
	case collector.KindFeedback:
		if f, err := collector.DecodeFeedback(l.Payload); err == nil {
			return f.ReceivedAt, policy.Of(f.Tenant, f.Model)
		}
	case collector.KindExplanation:
		if e, err := collector.DecodeExplanation(l.Payload); err == nil {
			return l.At, policy.OfModel(e.Model)
		}
	}
	return l.At, policy.Longest()
}

// expireLetters deletes dead letters for good, but for those on their way to the store.
func (s *server) expireLetters(ids []string) (int64, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	s.driveMu.Lock()
	defer s.driveMu.Unlock()
	n, err := s.dead.Expire(ids)
	return int64(n), err
}

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// dropVersions deletes the stored versions of models whose rows have a time, that
// answer nothing and of which no prediction is left: nothing can be explained with
// them. The spool has been worked off.
func (s *server) dropVersions(ctx context.Context, policy clickhouse.Retention) ([]string, error) {
	dropped := []string{}
	retired, err := s.models.Retired()
	if err != nil {
		return dropped, err
	}
	var digests []string
	for _, v := range retired {
		if policy.Of("", v.Name) > 0 {
			digests = append(digests, v.Digest)
		}
	}
	if len(digests) == 0 {
		return dropped, nil
	}
	needed, err := s.store.DigestsWithRows(ctx, digests)
	if err != nil {
		return dropped, err
	}
	for _, v := range retired {
		if policy.Of("", v.Name) <= 0 || needed[v.Digest] {
			continue
		}
		e := audit.Entry{Action: "model.drop", Model: v.Name, Object: fmt.Sprintf("version %s, digest %s", v.Version, v.Digest)}
		err := s.act(ctx, e, func() error { return s.models.Drop(v.Digest) })
		switch {
		case errors.Is(err, collector.ErrNotReady), errors.Is(err, collector.ErrRefused), errors.Is(err, collector.ErrNotFound):
			continue // it is being loaded, or answers again
		case err != nil:
			return dropped, err
		}
		dropped = append(dropped, v.Digest)
	}
	return dropped, nil
}

// text is the policy in a line.
func (c *retentionConfig) text() string {
	return fmt.Sprintf("default %s, models %v, tenants %v, traces %s", c.Default, c.Models, c.Tenants, c.Traces)
}

// retentionStatus tells of the policy and its last run.
func (s *server) retentionStatus(context.Context) api.Retention {
	c := &s.cfg.Retention
	out := api.Retention{Policy: api.RetentionPolicy{Default: c.Default.String(), Traces: c.Traces.String(), Models: map[string]string{}, Tenants: map[string]string{}}}
	for name, d := range c.Models {
		out.Policy.Models[name] = d.String()
	}
	for name, d := range c.Tenants {
		out.Policy.Tenants[name] = d.String()
	}
	s.retention.mu.Lock()
	defer s.retention.mu.Unlock()
	out.Last = s.retention.last
	if next := s.retention.next; !next.IsZero() {
		out.Next = &next
	}
	return out
}
