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
	r := clickhouse.Retention{Default: time.Duration(c.Default), Traces: time.Duration(c.Traces), Models: map[string]time.Duration{}}
	for name, d := range c.Models {
		r.Models[name] = time.Duration(d)
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
	if !s.erasing.TryLock() {
		return nil, errBusy
	}
	defer s.erasing.Unlock()
	began := time.Now()
	run := &api.RetentionRun{At: began.UTC().Truncate(time.Millisecond), Removed: map[string]int64{}, Versions: []string{}}
	entry := audit.Entry{Action: "retention", Object: s.cfg.Retention.text()}
	begun := false
	removed, err := s.store.Retain(ctx, policy, now, func(ctx context.Context, counts map[string]int64) error {
		// What is past may be of a batch under way: deleted before it is acknowledged it
		// would count as lost and be sent again.
		if err := s.drained(ctx); err != nil {
			return err
		}
		if sum(counts) == 0 {
			return nil
		}
		e := entry
		e.Outcome, e.Counts, begun = "begun", counts, true
		return s.audit.Append(ctx, e, true)
	})
	if err == nil {
		maps.Copy(run.Removed, removed)
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
		if policy.Of(v.Name) > 0 {
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
		if policy.Of(v.Name) <= 0 || needed[v.Digest] {
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
	return fmt.Sprintf("default %s, models %v, traces %s", c.Default, c.Models, c.Traces)
}

// retentionStatus tells of the policy and its last run.
func (s *server) retentionStatus(context.Context) api.Retention {
	c := &s.cfg.Retention
	out := api.Retention{Policy: api.RetentionPolicy{Default: c.Default.String(), Traces: c.Traces.String(), Models: map[string]string{}}}
	for name, d := range c.Models {
		out.Policy.Models[name] = d.String()
	}
	s.retention.mu.Lock()
	defer s.retention.mu.Unlock()
	out.Last = s.retention.last
	if next := s.retention.next; !next.IsZero() {
		out.Next = &next
	}
	return out
}
