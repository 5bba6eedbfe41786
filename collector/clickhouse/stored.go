package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// The questions here are asked where an insert may have been lost by a server that
// was killed: seldom, so they may cost something. Rollups have no insert batch to
// be known by; they are held against the rows they are of.

// number asks for one number.
func (s *Store) number(ctx context.Context, query string, args ...any) (float64, error) {
	var x float64
	if err := s.conn.QueryRow(ctx, "SELECT toFloat64(("+query+"))", args...).Scan(&x); err != nil {
		return 0, fmt.Errorf("ask for a number: %w", unavailable(err))
	}
	return x, nil
}

// hasPredictions reports whether all rows of a part of a batch are stored.
func (s *Store) hasPredictions(ctx context.Context, batch string, month int, part []decoded) (bool, error) {
	type span struct {
		first, last string
		rows        int
	}
	spans := map[owner]span{}
	for i := range part {
		p := part[i].p
		o := owner{p.Tenant, p.Model}
		sp, ok := spans[o]
		if !ok {
			sp.first, sp.last = p.ID, p.ID
		}
		sp.first, sp.last, sp.rows = min(sp.first, p.ID), max(sp.last, p.ID), sp.rows+max(p.Rows, 1)
		spans[o] = sp
	}
	for o, sp := range spans {
		// Every column is read: a damaged one is an error, and the server has to be
		// started again before it can be told what is missing.
		n, err := s.number(ctx, "SELECT countIf(NOT ignore(*)) FROM predictions WHERE tenant = ? AND model = ? AND id >= ? AND id <= ? AND insert_batch = ? AND toYYYYMM(received_at) = ?",
			o.tenant, o.model, sp.first, sp.last, batch, month)
		if err != nil || n < float64(sp.rows) {
			return false, err
		}
	}
	return true, nil
}

// versionSpan is the event time of a version's rows in a batch, by whole minutes.
type versionSpan struct{ from, to time.Time }

type versionKey struct{ tenant, model, version string }

func spansOf(items []*decoded) map[versionKey]versionSpan {
	out := map[versionKey]versionSpan{}
	each(items, func(d *decoded, _ int, at time.Time) {
		k := versionKey{d.p.Tenant, d.p.Model, d.p.Version}
		from := at.Truncate(time.Minute)
		sp, ok := out[k]
		if !ok || from.Before(sp.from) {
			sp.from = from
		}
		if to := from.Add(time.Minute); to.After(sp.to) {
			sp.to = to
		}
		out[k] = sp
	})
	return out
}

// hasIDs reports whether all rows of some predictions of a batch are stored, one by
// one: spans of ids overlap where a batch was divided.
func (s *Store) hasIDs(ctx context.Context, batch string, month int, part []decoded) (bool, error) {
	ids, rows := map[owner][]string{}, map[owner]int{}
	for i := range part {
		o := owner{part[i].p.Tenant, part[i].p.Model}
		ids[o] = append(ids[o], part[i].p.ID)
		rows[o] += max(part[i].p.Rows, 1)
	}
	for o, list := range ids {
		found := 0.0
		for some := range slices.Chunk(list, askedIDs) {
			n, err := s.number(ctx, "SELECT countIf(NOT ignore(*)) FROM predictions WHERE tenant = ? AND model = ? AND id IN (?) AND insert_batch = ? AND toYYYYMM(received_at) = ?",
				o.tenant, o.model, some, batch, month)
			if err != nil {
				return false, err
			}
			found += n
		}
		if found < float64(rows[o]) {
			return false, nil
		}
	}
	return true, nil
}

// hasTraffic reports whether the rollup has as many rows as are stored, over the
// time of items, but for those of missing, which are known not to be counted.
func (s *Store) hasTraffic(ctx context.Context, items, missing []*decoded) (bool, error) {
	for k, sp := range spansOf(items) {
		counted, err := s.number(ctx, "SELECT sum(rows) FROM traffic_1m WHERE tenant = ? AND model = ? AND version = ? AND minute >= ? AND minute < ?",
			k.tenant, k.model, k.version, sp.from, sp.to)
		if err != nil {
			return false, err
		}
		stored, err := s.number(ctx, "SELECT count() FROM predictions WHERE tenant = ? AND model = ? AND version = ? AND time >= ? AND time < ?",
			k.tenant, k.model, k.version, sp.from, sp.to)
		each(missing, func(d *decoded, _ int, at time.Time) {
			if k == (versionKey{d.p.Tenant, d.p.Model, d.p.Version}) && !at.Before(sp.from) && at.Before(sp.to) {
				stored--
			}
		})
		if err != nil || counted < stored {
			return false, err
		}
	}
	return true, nil
}

// hasBins reports whether the rollup has the weight that is stored, over the
// minutes of some counts and in the field that counts most, but for the rows of
// missing, which are known not to be counted.
func (s *Store) hasBins(ctx context.Context, c chunk, counts *binCounts, missing []*decoded) (bool, error) {
	var from, to int64
	fields := map[uint16]float64{}
	for i, r := range counts.rows() {
		if i == 0 {
			from = r.minute
		}
		from, to = min(from, r.minute), max(to, r.minute)
		fields[r.field] += r.weight
	}
	best := uint16(0)
	for f, w := range fields {
		if w > fields[best] || w == fields[best] && f < best {
			best = f
		}
	}
	if len(fields) == 0 {
		return true, nil
	}
	inRollup, err := s.number(ctx, "SELECT sum(weight) FROM bins_1m WHERE tenant = ? AND model = ? AND version = ? AND bins_id = ? AND field = ? AND minute >= ? AND minute <= ?",
		c.tenant, c.model, c.version, c.binsID, best, time.Unix(from, 0).UTC(), time.Unix(to, 0).UTC())
	if err != nil {
		return false, err
	}
	stored, err := s.number(ctx, "SELECT sumIf("+unitsSQL+", length(bins) > ? AND bins[?] != ?) / 1048576 FROM predictions WHERE tenant = ? AND model = ? AND version = ? AND bins_id = ?"+
		" AND route != 'explain' AND status < 400 AND time >= ? AND time < ?",
		best, best+1, stats.BinNone, c.tenant, c.model, c.version, c.binsID, time.Unix(from, 0).UTC(), time.Unix(to+60, 0).UTC())
	each(missing, func(d *decoded, r int, at time.Time) {
		same := d.p.Tenant == c.tenant && d.p.Model == c.model && d.p.Version == c.version && d.binsID == c.binsID
		bins := d.row(r)
		if same && at.Unix() >= from && at.Unix() < to+60 && len(bins) > int(best) && bins[best] != stats.BinNone {
			stored -= counted(weightOf(d.p))
		}
	})
	return inRollup >= stored*(1-1e-9), err
}

// hasPositions reports whether a table has these rows of a batch.
func (s *Store) hasPositions(ctx context.Context, table, batch string, positions []uint32) (bool, error) {
	found := 0.0
	for some := range slices.Chunk(positions, askedIDs) {
		n, err := s.number(ctx, "SELECT countIf(NOT ignore(*)) FROM "+table+" WHERE insert_batch = ? AND position IN (?)", batch, some)
		if err != nil {
			return false, err
		}
		found += n
	}
	return found >= float64(len(positions)), nil
}

func (s *Store) hasSchemas(ctx context.Context, ids []string) (bool, error) {
	n, err := s.number(ctx, "SELECT uniqExact(id) FROM schemas WHERE id IN (?)", ids)
	return n >= float64(len(ids)), err
}

// hasExplanations reports whether every explanation is there, of this batch or of
// another: the same one twice is one.
func (s *Store) hasExplanations(ctx context.Context, part []storedExplanation) (bool, error) {
	hashes := map[uint64]bool{}
	for _, x := range part {
		hashes[x.hash()] = true
	}
	list := make([]uint64, 0, len(hashes))
	for h := range hashes {
		list = append(list, h)
	}
	n, err := s.number(ctx, "SELECT uniqExact(doc_hash) FROM explanations WHERE doc_hash IN (?)", list)
	return n >= float64(len(list)), err
}
