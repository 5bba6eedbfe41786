package clickhouse

import (
	"context"
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retention says how long rows are kept from when they were received. Zero keeps
// them for ever. Times are whole days in UTC: what is past goes between midnight and
// the next run, so that a partition is written anew once a day at most, and not for
// every row of it.
type Retention struct {
	// Default is of the models that Models does not name.
	Default time.Duration
	Models  map[string]time.Duration
	// Traces is of spans, by when they began.
	Traces time.Duration
}

// None reports whether everything is kept for ever.
func (r *Retention) None() bool {
	limited := r.Default > 0 || r.Traces > 0
	for _, d := range r.Models {
		limited = limited || d > 0
	}
	return !limited
}

// Of is how long a model's rows are kept; 0 is for ever.
func (r *Retention) Of(model string) time.Duration {
	if d, ok := r.Models[model]; ok {
		return d
	}
	return r.Default
}

const wholeDay = 24 * time.Hour

// cutoff is the time before which rows are past; zero where none is.
func cutoff(now time.Time, keep time.Duration) time.Time {
	if keep <= 0 {
		return time.Time{}
	}
	return now.UTC().Add(-keep).Truncate(wholeDay)
}

// last is the cutoff before which rows are past whatever model they are of; zero
// where some are kept for ever.
func (r *Retention) last(now time.Time) time.Time {
	at := cutoff(now, r.Default)
	for _, d := range r.Models {
		if c := cutoff(now, d); c.Before(at) {
			at = c
		}
	}
	return at
}

// past is the condition on a table's rows that they are past. Rows of no model are
// past when every model's would be.
func (r *Retention) past(now time.Time, at string) predicate {
	p := predicate{sql: "multiIf("}
	older := func(c time.Time) {
		if c.IsZero() {
			p.sql += "0"
			return
		}
		p.sql += at + " < fromUnixTimestamp64Milli(?, 'UTC')"
		p.args = append(p.args, c.UnixMilli())
	}
	p.sql += "model = '', "
	older(r.last(now))
	for _, model := range slices.Sorted(stdmaps.Keys(r.Models)) {
		p.sql += ", model = ?, "
		p.args = append(p.args, model)
		older(cutoff(now, r.Models[model]))
	}
	p.sql += ", "
	older(cutoff(now, r.Default))
	p.sql += ")"
	return p
}

// expiry is what is past in a run.
type expiry struct {
	*found
	last   time.Time
	rows   predicate // predictions that are past
	months []int     // partitions of predictions that have some
	counts map[string]int64
}

// Retain deletes what is past. before is called when it is known how much that is,
// and has to wait until the batches that are on their way are acknowledged; its error
// ends the run. What Retain returns are the rows deleted by table.
//
// A month of predictions that is past whatever model a row is of is dropped whole,
// also with rows that come late: after an outage longer than their time they go in
// the hour they come. Sums in the rollups stay.
func (s *Store) Retain(ctx context.Context, r Retention, now time.Time, before func(ctx context.Context, counts map[string]int64) error) (map[string]int64, error) {
	prefix, err := prefixOf(erasePrefix)
	if err != nil {
		return nil, err
	}
	done := s.use(prefix)
	defer done()
	x := &expiry{found: &found{s: s, prefix: prefix, counts: map[string]int64{}}, last: r.last(now), counts: map[string]int64{}}
	err = x.run(ctx, &r, now, before)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return x.counts, errors.Join(err, s.Tidy(tidy, prefix))
}

func (x *expiry) run(ctx context.Context, r *Retention, now time.Time, before func(context.Context, map[string]int64) error) error {
	if err := x.find(ctx, r, now); err != nil {
		return fmt.Errorf("find what is past its time: %w", err)
	}
	spans, err := x.spanPartitions(ctx, cutoff(now, r.Traces))
	if err != nil {
		return fmt.Errorf("find what is past its time: %w", err)
	}
	if err := before(ctx, x.counts); err != nil {
		return err
	}
	// Labels and explanations first: what they are of is not found afterwards.
	for _, t := range targets[1:3] {
		if x.counts[t.table] == 0 {
			continue
		}
		if err := x.s.mutate(ctx, t.table, "", x.own(t), x.list(t)); err != nil {
			return err
		}
	}
	for _, month := range x.months {
		if err := x.dropMonth(ctx, month); err != nil {
			return err
		}
	}
	for _, p := range spans {
		if err := x.s.everywhere(ctx, "ALTER TABLE "+x.s.cluster.stored(p.table)+" DROP PARTITION ID '"+p.id+"'"); err != nil {
			return fmt.Errorf("drop a day of %s: %w", p.table, unavailable(err))
		}
	}
	if x.counts["undecodable"] == 0 {
		return nil
	}
	return x.s.mutate(ctx, "undecodable", "", x.own(targets[5]), x.list(targets[5]))
}

// find notes which rows are past.
func (x *expiry) find(ctx context.Context, r *Retention, now time.Time) error {
	x.rows = r.past(now, "received_at")
	if err := x.findMonths(ctx, r, now); err != nil {
		return err
	}
	// The predictions that labels or explanations go with; of the others nothing but
	// their own rows is deleted.
	keys := x.rows
	keys.sql += " AND ((tenant, id) IN (SELECT tenant, target_id FROM feedback) OR (tenant, id) IN (SELECT tenant, target_id FROM explanations)" +
		" OR external_id != '' AND (tenant, external_id) IN (SELECT tenant, external_id FROM feedback))"
	if err := x.note(ctx, targets[0], keys); err != nil {
		return err
	}
	for i, at := range []string{1: "received_at", 2: "stored_at"} {
		if at == "" {
			continue
		}
		t := targets[i]
		own := r.past(now, at)
		// Those of removed predictions, of whatever tenant, and old ones.
		with, err := x.condition(t, &Subject{}, x.rows)
		if err != nil {
			return err
		}
		where := predicate{
			sql:  strings.Replace(with.sql, "tenant = ?", "1", 1) + " OR " + own.sql,
			args: own.args,
		}
		if err := x.note(ctx, t, where); err != nil {
			return err
		}
		x.counts[t.table] = x.found.counts[t.table]
	}
	where := predicate{sql: "0"}
	if !x.last.IsZero() {
		where = predicate{sql: "stored_at < fromUnixTimestamp64Milli(?, 'UTC')", args: []any{x.last.UnixMilli()}}
	}
	if err := x.note(ctx, targets[5], where); err != nil {
		return err
	}
	x.counts["undecodable"] = x.found.counts["undecodable"]
	return nil
}

// findMonths counts the predictions that are past, by partition.
func (x *expiry) findMonths(ctx context.Context, r *Retention, now time.Time) error {
	newest := cutoff(now, r.Default)
	for _, d := range r.Models {
		if c := cutoff(now, d); c.After(newest) {
			newest = c
		}
	}
	if newest.IsZero() {
		return nil
	}
	rows, err := x.s.conn.Query(ctx, "SELECT toYYYYMM(received_at) AS month, countIf("+x.rows.sql+") AS past FROM predictions"+
		" WHERE received_at < fromUnixTimestamp64Milli(?, 'UTC') GROUP BY month HAVING past > 0 ORDER BY month", append(slices.Clone(x.rows.args), newest.UnixMilli())...)
	if err != nil {
		return unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var month uint32
		var past uint64
		if err := rows.Scan(&month, &past); err != nil {
			return err
		}
		x.months = append(x.months, int(month))
		x.counts["predictions"] += int64(past)
	}
	return unavailable(rows.Err())
}

// dropMonth deletes what is past of one partition of predictions: all of it where
// nothing that could be in it is to be kept.
func (x *expiry) dropMonth(ctx context.Context, month int) error {
	end := time.Date(month/100, time.Month(month%100)+1, 1, 0, 0, 0, 0, time.UTC)
	id := strconv.Itoa(month)
	if !x.last.IsZero() && !end.After(x.last) {
		if err := x.s.everywhere(ctx, "ALTER TABLE "+x.s.cluster.stored("predictions")+" DROP PARTITION ID '"+id+"'"); err != nil {
			return fmt.Errorf("drop a month of predictions: %w", unavailable(err))
		}
		return nil
	}
	// The mark makes this mutation known among others; it holds for every row.
	mark := x.prefix + id
	where := predicate{sql: x.rows.sql + " AND '" + mark + "' != ''", args: x.rows.args}
	return x.s.mutateArgs(ctx, "predictions", "IN PARTITION ID '"+id+"' ", where, mark)
}

// partition is a partition of a table.
type partition struct{ table, id string }

// spanPartitions finds the days of spans that are past. A day is the server's own, so
// one that ends within a day of the cutoff stays for another.
func (x *expiry) spanPartitions(ctx context.Context, before time.Time) ([]partition, error) {
	if before.IsZero() {
		return nil, nil
	}
	var out []partition
	for _, t := range targets[3:5] {
		ids, err := x.s.strings(ctx, "SELECT DISTINCT partition_id FROM "+x.s.cluster.system("parts")+" WHERE database = "+x.s.cluster.current()+" AND active AND table = ? AND match(partition_id, '^[0-9]{8}$') AND partition_id < ? ORDER BY partition_id",
			x.s.cluster.local(t.table), before.Add(-wholeDay).Format("20060102"))
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			out = append(out, partition{t.table, id})
		}
		n, err := x.s.ask(ctx, "SELECT sum(rows) FROM "+x.s.cluster.shards("parts")+" WHERE database = "+x.s.cluster.current()+
			" AND active AND table = ? AND partition_id IN (?)", x.s.cluster.local(t.table), append(ids, ""))
		if err != nil {
			return nil, err
		}
		x.counts[t.table] = int64(n)
	}
	return out, nil
}

// DigestsWithRows returns which of the digests have predictions stored.
func (s *Store) DigestsWithRows(ctx context.Context, digests []string) (map[string]bool, error) {
	list, err := s.strings(ctx, "SELECT DISTINCT toString(digest) FROM predictions WHERE digest IN (?)", append(slices.Clone(digests), ""))
	if err != nil {
		return nil, fmt.Errorf("ask which versions have predictions: %w", err)
	}
	out := map[string]bool{}
	for _, d := range list {
		out[d] = true
	}
	return out, nil
}
