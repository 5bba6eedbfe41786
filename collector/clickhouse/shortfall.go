package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

// A rollup has no insert batch: what it lacks is found by sums over minutes. The rows
// of each batch have sums, and so have all rows and the rollup; what the rollup is short
// of has to be, in every minute, exactly the sums of some of the batches. Only then are
// those counted again, from their rows. Where nothing adds up nothing is done but said,
// and nothing is ever taken away: after an erasure and after retention a rollup counts
// more than there is, by right.

// sums are what is compared: rows, requests and bytes, or counted bins; the last is a
// fingerprint, so that batches of one size are told apart by what is in them.
type sums [4]int64

func (a sums) minus(b sums) sums {
	for i := range a {
		a[i] -= b[i]
	}
	return a
}

// holds reports whether b can be a part of a.
func (a sums) holds(b sums) bool {
	for i := range a {
		if b[i] > a[i] {
			return false
		}
	}
	return true
}

// series is a rollup's share of one version, under one set of bins for bins_1m.
type series struct{ tenant, model, version, binsID string }

// share is what one insert of a batch has in a series, by minute. part tells those of a
// batch apart.
type share struct {
	batch   string
	part    string
	order   int // of the batch, the oldest first
	minutes map[int64]sums
}

const (
	// maxShareMinutes bounds what is looked at together, maxSteps the search.
	maxShareMinutes = 1_000_000
	maxSteps        = 200_000
	// maxShortRounds bounds how often a rollup is filled up before that is given up.
	maxShortRounds = 4
)

// rollup is one of the two tables of sums, as the queries for it and how to fill it.
type rollup struct {
	name, insert string
	// rows are sums of predictions, kept of the rollup; where is which predictions are
	// counted, binsID and part name a series and a share of it.
	rows, kept, table, where, binsID, part string
	send                                   func(w *Writer, ctx context.Context, token string, k series, where string, args []any) error
}

var trafficRollup = rollup{
	name: "traffic", insert: collector.InsertTraffic, table: "traffic_1m", where: "1", binsID: "''", part: "''",
	rows: "toInt64(count()), toInt64(countIf(row = 0)), toInt64(sum(bytes)), toInt64(sum(cityHash64(toString(route), toUInt8(intDiv(status, 100))) % 65521))",
	kept: "toInt64(sum(rows)), toInt64(sum(requests)), toInt64(sum(bytes)), toInt64(sum(rows * (cityHash64(toString(route), status_class) % 65521)))",
	send: (*Writer).sendTrafficOf,
}

var binsRollup = rollup{
	name: "bins_1m", insert: collector.InsertBins, table: "bins_1m", binsID: "toString(bins_id)",
	part: "concat(toString(toYYYYMM(received_at)), ':', toString(digest))", // of a chunk

	where: binsWhere,
	rows: fmt.Sprintf("sum("+unitsSQL+" * toInt64(arrayCount(b -> b != %[1]d, bins))), toInt64(0), toInt64(0),"+
		" sum("+unitsSQL+" * toInt64(arraySum((b, i) -> if(b = %[1]d, 0, cityHash64(b, toUInt32(i)) %% 65521), bins, arrayEnumerate(bins))))", stats.BinNone),
	kept: "sum(" + unitsSQL + "), toInt64(0), toInt64(0), sum(" + unitsSQL + " * toInt64(cityHash64(bin, toUInt32(field + 1)) % 65521))",
	send: (*Writer).sendBinsOf,
}

// binsWhere is which rows the writer counts in bins_1m.
const binsWhere = "bins_id != '' AND route != 'explain' AND status < 400"

const rowMinute = "toInt64(toUnixTimestamp(toStartOfMinute(toDateTime(time, 'UTC'))))"

// restoreRollups counts again what the rollups have lost of some batches, and returns
// how many inserts that took.
func (w *Writer) restoreRollups(ctx context.Context, batches []string, planned string) (int, error) {
	total := 0
	for _, r := range []rollup{trafficRollup, binsRollup} {
		n, err := w.restoreRollup(ctx, &r, batches, planned)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (w *Writer) restoreRollup(ctx context.Context, r *rollup, batches []string, planned string) (int, error) {
	sent := 0
	for round := 0; ; round++ {
		var lost map[series][]share
		inexact := 0
		look := attempt{name: "sums of " + r.name, run: func(ctx context.Context, _ string) (err error) {
			lost, inexact, err = w.shortfall(ctx, r, batches, planned)
			return err
		}}
		if _, err := w.retry(ctx, batches[0], look); err != nil {
			return sent, err
		}
		if inexact > 0 && round == 0 {
			w.cfg.Log.Warn("a rollup is short of the rows that are stored, and no set of batches accounts for that exactly: it is to be held against all of them",
				"rollup", r.table, "series", inexact)
			if w.cfg.Uncounted != nil {
				w.cfg.Uncounted()
			}
		}
		if len(lost) == 0 {
			return sent, nil
		}
		if round == maxShortRounds {
			w.cfg.Log.Error("a rollup takes what it lacks and does not have it", "rollup", r.table, "series", len(lost))
			return sent, nil
		}
		for _, k := range sortedSeries(lost) {
			for _, sh := range lost[k] {
				if err := w.fillShare(ctx, r, k, &sh, round); err != nil {
					return sent, err
				}
				sent++
			}
		}
	}
}

func sortedSeries(m map[series][]share) []series {
	out := make([]series, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b series) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.model, b.model), cmp.Compare(a.version, b.version), cmp.Compare(a.binsID, b.binsID))
	})
	return out
}

// fillShare counts the rows of a share into the rollup once more. The token is another
// each round: one that was noted and whose rows are gone would not help.
func (w *Writer) fillShare(ctx context.Context, r *rollup, k series, sh *share, round int) error {
	where, args, err := w.without(r.insert)
	if err != nil {
		return err
	}
	where = "tenant = ? AND model = ? AND version = ? AND " + r.binsID + " = ? AND insert_batch = ? AND " + r.part + " = ? AND " + r.where + " AND " + where
	args = append([]any{k.tenant, k.model, k.version, k.binsID, sh.batch, sh.part}, args...)
	token := fmt.Sprintf("%s:kept:%s:%d:%s:%s:%s:%s:%s", sh.batch, r.name, round, sh.part, k.binsID, k.tenant, k.model, k.version)
	_, err = w.retry(ctx, sh.batch, attempt{name: r.name, token: token, run: func(ctx context.Context, token string) error {
		return r.send(w, ctx, token, k, where, args)
	}})
	return err
}

// without leaves out the predictions that are stored and whose part in a rollup is a
// dead letter.
func (w *Writer) without(insert string) (where string, args []any, err error) {
	if w.cfg.Dead == nil {
		return "1", nil, nil
	}
	var ids []string
	for _, l := range w.cfg.Dead.List() {
		if l.Insert == insert {
			ids = append(ids, l.Record)
		}
	}
	switch {
	case len(ids) == 0:
		return "1", nil, nil
	case len(ids) > askedIDs:
		return "", nil, fmt.Errorf("%d parts of rollups are dead letters: too many to leave out", len(ids))
	}
	return "id NOT IN (?)", []any{ids}, nil
}

// shortfall finds which of the batches a rollup lacks, by series; inexact counts the
// series that are short of something else. planned is the batch that was on its way: its
// rows may be stored and not counted yet.
func (w *Writer) shortfall(ctx context.Context, r *rollup, batches []string, planned string) (lost map[series][]share, inexact int, err error) {
	where, args, err := w.without(r.insert)
	if err != nil {
		w.cfg.Log.Error("a rollup cannot be held against its rows", "rollup", r.table, "error", err)
		return nil, 0, nil
	}
	if planned != "" {
		batches = append(slices.Clone(batches), planned)
	}
	shares, err := w.store.shares(ctx, r, batches, where, args)
	if errors.Is(err, errManyMinutes) {
		w.cfg.Log.Error("a rollup cannot be held against its rows", "rollup", r.table, "error", err)
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	lost = map[series][]share{}
	for k, list := range shares {
		short, err := w.store.short(ctx, r, k, list, where, args)
		if err != nil {
			return nil, 0, err
		}
		found, exact := explain(short, list)
		if !exact {
			inexact++
		}
		// Whoever drains counts it in its turn.
		found = slices.DeleteFunc(found, func(sh share) bool { return sh.batch == planned })
		if len(found) > 0 {
			lost[k] = found
		}
	}
	return lost, inexact, nil
}

var errManyMinutes = fmt.Errorf("the rows of the batches are of more than %d minutes", maxShareMinutes)

// scanAll has every row scanned.
func scanAll(rows driver.Rows, scan func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return unavailable(rows.Err())
}

// shares sums up the rows of batches by series and minute.
func (s *Store) shares(ctx context.Context, r *rollup, batches []string, where string, args []any) (map[series][]share, error) {
	order := map[string]int{}
	for i, b := range batches {
		order[b] = i
	}
	type key struct {
		series
		batch, part string
	}
	found, n := map[key]map[int64]sums{}, 0
	for some := range slices.Chunk(batches, 1000) {
		rows, err := s.conn.Query(ctx, "SELECT toString(tenant), toString(model), toString(version), "+r.binsID+" AS b, toString(insert_batch) AS i, "+r.part+" AS p, "+
			rowMinute+" AS m, "+r.rows+" FROM predictions WHERE insert_batch IN (?) AND "+r.where+" AND "+where+" GROUP BY tenant, model, version, b, i, p, m",
			append([]any{some}, args...)...)
		if err != nil {
			return nil, unavailable(err)
		}
		err = scanAll(rows, func() error {
			var k key
			var m int64
			var v sums
			if err := rows.Scan(&k.tenant, &k.model, &k.version, &k.binsID, &k.batch, &k.part, &m, &v[0], &v[1], &v[2], &v[3]); err != nil {
				return fmt.Errorf("scan: %w", err)
			}
			if n++; n > maxShareMinutes {
				return errManyMinutes
			}
			if found[k] == nil {
				found[k] = map[int64]sums{}
			}
			found[k][m] = v
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := map[series][]share{}
	for k, minutes := range found {
		out[k.series] = append(out[k.series], share{k.batch, k.part, order[k.batch], minutes})
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b share) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.part, b.part)) })
	}
	return out, nil
}

// short is by how much a rollup counts less than the rows that are stored, in the
// minutes of some batches.
func (s *Store) short(ctx context.Context, r *rollup, k series, list []share, where string, args []any) (minuteSums, error) {
	out := minuteSums{}
	first, last := int64(1<<62), int64(0)
	for _, sh := range list {
		for m := range sh.minutes {
			out[m] = sums{}
			first, last = min(first, m), max(last, m)
		}
	}
	from, to := time.Unix(first, 0).UTC(), time.Unix(last+60, 0).UTC()
	in, of := k.where()
	err := s.eachMinute(ctx, "SELECT "+rowMinute+" AS m, "+r.rows+" FROM predictions WHERE "+in+
		" AND time >= ? AND time < ? AND "+r.where+" AND "+where+" GROUP BY m", append(append(of, from, to), args...), func(m int64, v sums) {
		if _, ok := out[m]; ok {
			out[m] = v
		}
	})
	if err != nil {
		return nil, err
	}
	return out, s.minusKept(ctx, r, k, out)
}

func (s *Store) eachMinute(ctx context.Context, query string, args []any, do func(m int64, v sums)) error {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		var m int64
		var v sums
		if err := rows.Scan(&m, &v[0], &v[1], &v[2], &v[3]); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		do(m, v)
		return nil
	})
}

// explain finds the shares that together are what is short, in every minute. exact is
// false where something is short that they do not account for.
func explain(short map[int64]sums, list []share) (lost []share, exact bool) {
	exact = true
	for _, group := range together(list) {
		x := &search{left: map[int64]sums{}, oldest: map[int64]int{}, steps: maxSteps}
		for _, sh := range group {
			for m := range sh.minutes {
				x.left[m] = short[m]
			}
		}
		if found, ok := x.find(group); ok {
			lost = append(lost, found...)
		} else {
			exact = false
		}
	}
	slices.SortFunc(lost, func(a, b share) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.part, b.part)) })
	return lost, exact
}

// together groups shares by the minutes they have in common.
func together(list []share) [][]share {
	group := make([]int, len(list))
	root := func(i int) int {
		for group[i] != i {
			group[i] = group[group[i]]
			i = group[i]
		}
		return i
	}
	of := map[int64]int{}
	for i, sh := range list {
		group[i] = i
		for m := range sh.minutes {
			if j, ok := of[m]; ok {
				group[root(i)] = root(j)
			} else {
				of[m] = i
			}
		}
	}
	parts := map[int][]share{}
	for i, sh := range list {
		parts[root(i)] = append(parts[root(i)], sh)
	}
	out := make([][]share, 0, len(parts))
	for _, p := range parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b []share) int { return cmp.Compare(a[0].order, b[0].order) })
	return out
}

// search looks for a set of shares that are all that is left to account for.
type search struct {
	left   map[int64]sums
	oldest map[int64]int // of a minute, the first share that is undecided
	steps  int
}

// wants reports whether a minute lacks something, or does not add up.
func (x *search) wants(m int64) bool {
	v := x.left[m]
	return v[0] > 0 || v[0] == 0 && v != sums{}
}

func (x *search) wanting() bool {
	for m := range x.left {
		if x.wants(m) {
			return true
		}
	}
	return false
}

// find first takes what follows of itself, then tries, the newest first: those are what
// a power cut takes.
func (x *search) find(group []share) ([]share, bool) {
	taken, group := x.settle(group)
	if !x.wanting() {
		return taken, true
	}
	for i := len(group) - 1; i >= 0; i-- {
		for m := range group[i].minutes {
			x.oldest[m] = i
		}
	}
	for m := range x.left {
		if _, some := x.oldest[m]; !some && x.wants(m) {
			return nil, false
		}
	}
	return x.from(group, len(group)-1, taken)
}

// settle leaves out shares that are more than is short, and takes those of a minute that
// are just what is short of it, as long as there are such.
func (x *search) settle(group []share) (taken, open []share) {
	for {
		open = slices.DeleteFunc(slices.Clone(group), func(sh share) bool { return !x.fits(sh) })
		sum := map[int64]sums{}
		for _, sh := range open {
			for m, v := range sh.minutes {
				sum[m] = sum[m].minus(sums{}.minus(v))
			}
		}
		before := len(taken)
		rest := open[:0:0]
		for _, sh := range open {
			if x.whole(sh, sum) && x.fits(sh) {
				taken = append(taken, sh)
				x.take(sh, 1)
				for m, v := range sh.minutes {
					sum[m] = sum[m].minus(v)
				}
			} else {
				rest = append(rest, sh)
			}
		}
		if len(taken) == before && len(rest) == len(group) {
			return taken, rest
		}
		group = rest
	}
}

// whole reports whether all shares of some minute are short in it.
func (x *search) whole(sh share, sum map[int64]sums) bool {
	for m := range sh.minutes {
		if v := x.left[m]; v[0] > 0 && v == sum[m] {
			return true
		}
	}
	return false
}

func (x *search) from(group []share, at int, taken []share) ([]share, bool) {
	if at < 0 {
		return slices.Clone(taken), !x.wanting()
	}
	if x.steps--; x.steps < 0 {
		return nil, false
	}
	sh := group[at]
	if x.fits(sh) {
		x.take(sh, 1)
		if x.done(sh, at) {
			if found, ok := x.from(group, at-1, append(taken, sh)); ok {
				return found, true
			}
		}
		x.take(sh, -1)
	}
	if !x.done(sh, at) {
		return nil, false
	}
	return x.from(group, at-1, taken)
}

// done reports whether the minutes that no older share could fill lack nothing.
func (x *search) done(sh share, at int) bool {
	for m := range sh.minutes {
		if x.oldest[m] == at && x.wants(m) {
			return false
		}
	}
	return true
}

func (x *search) fits(sh share) bool {
	for m, v := range sh.minutes {
		if !x.left[m].holds(v) {
			return false
		}
	}
	return true
}

func (x *search) take(sh share, sign int64) {
	for m, v := range sh.minutes {
		for i := range v {
			v[i] *= sign
		}
		x.left[m] = x.left[m].minus(v)
	}
}

// sendTrafficOf counts rows into traffic_1m.
func (w *Writer) sendTrafficOf(ctx context.Context, token string, k series, where string, args []any) error {
	rows, err := w.store.conn.Query(ctx, "SELECT toString(route), status, toUnixTimestamp64Micro(time), row, weight, bytes, total_ns FROM predictions WHERE "+where, args...)
	if err != nil {
		return unavailable(err)
	}
	var b trafficBlock
	err = scanAll(rows, func() error {
		var (
			route      string
			status     uint16
			at, total  int64
			row, bytes uint32
			weight     float64
		)
		if err := rows.Scan(&route, &status, &at, &row, &weight, &bytes, &total); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		b.add(k.tenant, k.model, k.version, route, status, at, row, weight, bytes, total)
		return nil
	})
	if err != nil {
		return err
	}
	return w.store.sendTraffic(ctx, token, &b)
}

// sendBinsOf counts rows into bins_1m.
func (w *Writer) sendBinsOf(ctx context.Context, token string, k series, where string, args []any) error {
	rows, err := w.store.conn.Query(ctx, "SELECT time, weight, bins FROM predictions WHERE "+where, args...)
	if err != nil {
		return unavailable(err)
	}
	counts := &binCounts{}
	err = scanAll(rows, func() error {
		var at time.Time
		var weight float64
		var bins []uint16
		if err := rows.Scan(&at, &weight, &bins); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		counts.add(at, bins, weight, weight)
		return nil
	})
	if err != nil {
		return err
	}
	return w.store.insertBins(ctx, token, chunk{tenant: k.tenant, model: k.model, version: k.version, binsID: k.binsID}, counts)
}
