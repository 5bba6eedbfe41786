package clickhouse

import (
	"context"
	"slices"
	"time"
)

// Whether a rollup lacks what one insert counts cannot be told from its being short of
// something: rows of a batch whose spool was taken away may be stored and never be
// counted, and another server's may be on their way. So what is short is accounted for
// by the batches that have rows in the same minutes, as after a power cut (shortfall.go),
// and only where the insert is among those that together are exactly what is short is it
// sent again. What else is short is told: a recount finds it cell by cell.

// ownShare stands for the insert that is asked about among the shares.
const ownShare = "\x00own"

// shareKey names a share of a series.
type shareKey struct{ batch, part string }

type minuteSums map[int64]sums

func (a minuteSums) add(m int64, v sums) {
	have := a[m]
	for i := range v {
		have[i] += v[i]
	}
	a[m] = have
}

// counts tells whether a rollup that is short has the rows of an insert, which are items
// of a batch; missing are those that are known not to be counted.
func (w *Writer) counts(ctx context.Context, r *rollup, batch string, items, missing []*decoded) (bool, error) {
	kept, others := true, false
	for k, own := range seriesOf(r, items) {
		lost, rest, err := w.store.lacks(ctx, r, k, batch, own, missing)
		if err != nil {
			return false, err
		}
		kept, others = kept && !lost, others || rest
	}
	if kept && others && w.cfg.Uncounted != nil {
		w.cfg.Uncounted()
	}
	return kept, nil
}

// seriesOf sorts predictions by what they count in.
func seriesOf(r *rollup, items []*decoded) map[series][]*decoded {
	out := map[series][]*decoded{}
	for _, d := range items {
		k := series{tenant: d.p.Tenant, model: d.p.Model, version: d.p.Version}
		if r.table == binsRollup.table {
			k.binsID = d.binsID
		}
		out[k] = append(out[k], d)
	}
	return out
}

// lacks reports whether own is among what a series is short of, in the minutes of own, and
// whether it is short of anything else.
func (s *Store) lacks(ctx context.Context, r *rollup, k series, batch string, own, missing []*decoded) (lost, others bool, err error) {
	mine := minuteSums{}
	parts := map[shareKey]bool{}
	all, err := s.sharesIn(ctx, r, k, own)
	if err != nil {
		return false, false, err
	}
	err = s.sharesOf(ctx, r, k, own, func(of shareKey, m int64, v sums) {
		mine.add(m, v)
		parts[of] = true
		if all[of] != nil {
			all[of].add(m, sums{}.minus(v))
		}
	})
	if err == nil {
		err = s.sharesOf(ctx, r, k, missing, func(of shareKey, m int64, v sums) {
			if _, ok := mine[m]; ok && all[of] != nil {
				all[of].add(m, sums{}.minus(v))
			}
		})
	}
	if err != nil || len(mine) == 0 {
		return false, false, err
	}
	list := []share{{batch: ownShare, order: len(all), minutes: mine}}
	short := minuteSums{}
	for m, v := range mine {
		short.add(m, v)
	}
	for of, minutes := range all {
		sh := share{batch: of.batch, part: of.part, minutes: map[int64]sums{}}
		for m, v := range minutes {
			if _, ok := mine[m]; !ok || v == (sums{}) {
				continue
			}
			short.add(m, v)
			sh.minutes[m] = v
		}
		// The rest of the insert is counted, or missing.
		if len(sh.minutes) > 0 && (of.batch != batch || !parts[of]) {
			list = append(list, sh)
		}
	}
	if err := s.minusKept(ctx, r, k, short); err != nil {
		return false, false, err
	}
	found, exact := explain(short, list)
	lost = slices.ContainsFunc(found, func(sh share) bool { return sh.batch == ownShare })
	others = !exact || slices.ContainsFunc(found, func(sh share) bool { return sh.batch != ownShare && sh.batch != batch })
	return lost, others, nil
}

func (k series) where() (string, []any) {
	where, args := "tenant = ? AND model = ? AND version = ?", []any{k.tenant, k.model, k.version}
	if k.binsID != "" {
		where, args = where+" AND bins_id = ?", append(args, k.binsID)
	}
	return where, args
}

// eachShare sums up rows by share and minute.
func (s *Store) eachShare(ctx context.Context, r *rollup, k series, where string, more []any, do func(of shareKey, m int64, v sums)) error {
	in, args := k.where()
	rows, err := s.conn.Query(ctx, "SELECT toString(insert_batch) AS i, "+r.part+" AS p, "+rowMinute+" AS m, "+r.rows+" FROM predictions WHERE "+in+" AND "+r.where+" AND "+where+
		" GROUP BY i, p, m", append(args, more...)...)
	if err != nil {
		return unavailable(err)
	}
	n := 0
	return scanAll(rows, func() error {
		var of shareKey
		var m int64
		var v sums
		if err := rows.Scan(&of.batch, &of.part, &m, &v[0], &v[1], &v[2], &v[3]); err != nil {
			return err
		}
		if n++; n > maxShareMinutes {
			return errManyMinutes
		}
		do(of, m, v)
		return nil
	})
}

// sharesIn are all that is stored of a series between the first and the last minute of
// some predictions.
func (s *Store) sharesIn(ctx context.Context, r *rollup, k series, items []*decoded) (map[shareKey]minuteSums, error) {
	from, to := between(items)
	out := map[shareKey]minuteSums{}
	return out, s.eachShare(ctx, r, k, "time >= ? AND time < ?", []any{from, to}, func(of shareKey, m int64, v sums) {
		if out[of] == nil {
			out[of] = minuteSums{}
		}
		out[of].add(m, v)
	})
}

// sharesOf are those of some predictions.
func (s *Store) sharesOf(ctx context.Context, r *rollup, k series, items []*decoded, do func(of shareKey, m int64, v sums)) error {
	ids := make([]string, 0, len(items))
	for _, d := range items {
		if d.p.Tenant == k.tenant && d.p.Model == k.model && d.p.Version == k.version {
			ids = append(ids, d.p.ID)
		}
	}
	for some := range slices.Chunk(ids, askedIDs) {
		if err := s.eachShare(ctx, r, k, "id IN (?)", []any{some}, do); err != nil {
			return err
		}
	}
	return nil
}

// minusKept takes from sums by minute what the rollup has.
func (s *Store) minusKept(ctx context.Context, r *rollup, k series, short minuteSums) error {
	first, last := int64(1<<62), int64(0)
	for m := range short {
		first, last = min(first, m), max(last, m)
	}
	in, args := k.where()
	return s.eachMinute(ctx, "SELECT toInt64(toUnixTimestamp(minute)) AS m, "+r.kept+" FROM "+r.table+" WHERE "+in+" AND minute >= ? AND minute < ? GROUP BY m",
		append(args, time.Unix(first, 0).UTC(), time.Unix(last+60, 0).UTC()), func(m int64, v sums) {
			if _, ok := short[m]; ok {
				short.add(m, sums{}.minus(v))
			}
		})
}

// between are the first minute of some predictions' rows and the end of the last.
func between(items []*decoded) (from, to time.Time) {
	for _, sp := range spansOf(items) {
		if from.IsZero() || sp.from.Before(from) {
			from = sp.from
		}
		if sp.to.After(to) {
			to = sp.to
		}
	}
	return from, to
}
