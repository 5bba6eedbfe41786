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
// them for ever. A model's own time, or a tenant's, goes before the default; of a row
// whose model and tenant both have one the shorter holds. Times are whole days in UTC:
// what is past goes between midnight and the next run, so that a partition is written
// anew once a day at most, and not for every row of it.
type Retention struct {
	// Default is of the rows whose model and tenant are named nowhere.
	Default time.Duration
	Models  map[string]time.Duration
	Tenants map[string]time.Duration
	// Traces is of spans, by when they began.
	Traces time.Duration
}

// None reports whether everything is kept for ever.
func (r *Retention) None() bool {
	limited := r.Default > 0 || r.Traces > 0
	for _, named := range []map[string]time.Duration{r.Models, r.Tenants} {
		for _, d := range named {
			limited = limited || d > 0
		}
	}
	return !limited
}

// Of is how long the rows of a tenant's model are kept; 0 is for ever. What is of no
// model is kept as long as any model's is.
func (r *Retention) Of(tenant, model string) time.Duration {
	of, named := r.Tenants[tenant]
	if model == "" {
		if named {
			return of
		}
		return r.longest(r.Models)
	}
	m, ok := r.Models[model]
	switch {
	case ok && named:
		return shorter(m, of)
	case ok:
		return m
	case named:
		return of
	}
	return r.Default
}

// OfModel is how long what is of a model is kept where nobody knows the tenant.
func (r *Retention) OfModel(model string) time.Duration {
	if m, ok := r.Models[model]; ok {
		return m
	}
	if model == "" {
		return r.Longest()
	}
	return r.longest(r.Tenants)
}

// Longest is how long what is of nobody that is known is kept; 0 is for ever.
func (r *Retention) Longest() time.Duration { return longer(r.longest(r.Models), r.longest(r.Tenants)) }

// longest is the longest of the default and others.
func (r *Retention) longest(named map[string]time.Duration) time.Duration {
	out := r.Default
	for _, d := range named {
		out = longer(out, d)
	}
	return out
}

func shorter(a, b time.Duration) time.Duration {
	if longer(a, b) == a {
		return b
	}
	return a
}

func longer(a, b time.Duration) time.Duration {
	if a <= 0 || b <= 0 {
		return 0
	}
	return max(a, b)
}

const wholeDay = 24 * time.Hour

// cutoff is the time before which rows are past; zero where none is.
func cutoff(now time.Time, keep time.Duration) time.Time {
	if keep <= 0 {
		return time.Time{}
	}
	return now.UTC().Add(-keep).Truncate(wholeDay)
}

// Past reports whether what was received at a time and is kept for so long is past.
func Past(now, received time.Time, keep time.Duration) bool {
	return received.Before(cutoff(now, keep))
}

// last is the cutoff before which rows are past whosever they are; zero where some are
// kept for ever.
func (r *Retention) last(now time.Time) time.Time { return cutoff(now, r.Longest()) }

// newest is the cutoff after which no row is past; zero where none is.
func (r *Retention) newest(now time.Time) time.Time {
	at := cutoff(now, r.Default)
	for _, named := range []map[string]time.Duration{r.Models, r.Tenants} {
		for _, d := range named {
			if c := cutoff(now, d); c.After(at) {
				at = c
			}
		}
	}
	return at
}

// past is the condition on a table's rows that they are past, whose tenant is in a
// column; "" for a table that does not know: its rows are past when every tenant's
// would be. A row is past before a number of milliseconds since 1970, which is 0 for
// never; of two such cutoffs the later is that of the shorter time.
func (r *Retention) past(now time.Time, at, tenant string) predicate {
	ms := func(d time.Duration) int64 {
		if c := cutoff(now, d); !c.IsZero() {
			return c.UnixMilli()
		}
		return 0
	}
	// own is the cutoff that a name has, or -1.
	own := func(column string, named map[string]time.Duration) predicate {
		names, cutoffs := []string{""}, []int64{-1} // lists must have something in them
		for _, name := range slices.Sorted(stdmaps.Keys(named)) {
			names, cutoffs = append(names, name), append(cutoffs, ms(named[name]))
		}
		return predicate{sql: "transform(toString(" + column + "), ?, ?, toInt64(-1))", args: []any{names, cutoffs}}
	}
	or := func(p predicate, other time.Duration) predicate {
		return predicate{sql: "if(" + p.sql + " >= 0, " + p.sql + ", ?)", args: slices.Concat(p.args, p.args, []any{ms(other)})}
	}
	model := own("model", r.Models)
	ofNone, ofModel := predicate{sql: "?", args: []any{ms(r.Longest())}}, or(model, r.longest(r.Tenants))
	if tenant != "" {
		of := own(tenant, r.Tenants)
		both := predicate{sql: "greatest(" + model.sql + ", " + of.sql + ")", args: slices.Concat(model.args, of.args)}
		ofNone, ofModel = or(of, r.longest(r.Models)), or(both, r.Default)
	}
	return predicate{
		sql:  "toUnixTimestamp64Milli(" + at + ") < if(model = '', " + ofNone.sql + ", " + ofModel.sql + ")",
		args: slices.Concat(ofNone.args, ofModel.args),
	}
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
	prefix, err := s.keysPrefix(erasePrefix)
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
	x.rows = r.past(now, "received_at", "tenant")
	if err := x.findMonths(ctx, r, now); err != nil {
		return err
	}
	// The predictions that labels or explanations go with; of the others nothing but
	// their own rows is deleted.
	keys := x.rows
	keys.sql += " AND ((tenant, " + rowTargetID + ") IN (SELECT tenant, target_id FROM feedback) OR " + rowTargetID + " IN (SELECT target_id FROM explanations)" +
		" OR external_id != '' AND (tenant, external_id) IN (SELECT tenant, external_id FROM feedback))"
	if err := x.note(ctx, targets[0], keys); err != nil {
		return err
	}
	// Explanations carry no tenant yet but go with their predictions; what is left of
	// others is past when every tenant's is.
	for i, own := range map[int]predicate{1: r.past(now, "received_at", "tenant"), 2: r.past(now, "stored_at", "")} {
		t := targets[i]
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
	newest := r.newest(now)
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
