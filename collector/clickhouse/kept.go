package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// A power cut may take from a server what it has confirmed. After one, the batches
// that were acknowledged shortly before are looked for, record by record and whatever
// batch has stored them, and what is missing is sent again under other tokens: the old
// ones may be known although their rows are gone. Records that have, or had, a dead
// letter are left alone, and nothing is noted of these batches that would be in the way
// of the one that is still on its way. Rollups come last (shortfall.go).

// Kept names batches that were acknowledged before a power cut; the spool is one.
type Kept interface {
	// Unchecked returns their tokens, the oldest first, until Checked says that all of
	// them are stored; Kept returns one.
	Unchecked() []string
	Kept(token string) (*collector.Batch, error)
	Checked() error
	// Planned is the token of the batch that is on its way, "" for none.
	Planned() string
}

// recheck stores what a power cut has taken. It fails only when ctx is done.
func (w *Writer) recheck(ctx context.Context) error {
	if w.cfg.Kept == nil {
		return nil
	}
	tokens := w.cfg.Kept.Unchecked()
	if len(tokens) == 0 {
		return nil
	}
	began, restored := time.Now(), 0
	for _, token := range tokens {
		var b *collector.Batch
		err := w.insist(ctx, token, func() (err error) { b, err = w.cfg.Kept.Kept(token); return err })
		if err != nil {
			return err
		}
		n, err := w.restore(ctx, b)
		if err != nil {
			return err
		}
		restored += n
	}
	parts, err := w.restoreRollups(ctx, tokens, w.cfg.Kept.Planned())
	if err != nil {
		return err
	}
	if err := w.insist(ctx, tokens[0], w.cfg.Kept.Checked); err != nil {
		return err
	}
	w.mu.Lock()
	w.health.Restored += uint64(restored + parts)
	w.mu.Unlock()
	w.cfg.Log.Warn("looked after a power cut for what was acknowledged before it", "batches", len(tokens), "records sent again", restored,
		"rollups sent again", parts, "took", time.Since(began))
	return nil
}

// restore sends the records of a batch that are not there, and returns how many.
func (w *Writer) restore(ctx context.Context, b *collector.Batch) (int, error) {
	p := w.sortAs(b, true)
	// Its duplicates were dropped, and with them their labels.
	if err := w.dropStored(ctx, p); err != nil {
		return 0, err
	}
	p.labels()
	w.bin(ctx, p)
	total := 0
	for _, inserts := range []func(*plan) []insert{w.rowInserts, w.otherInserts} {
		for _, in := range inserts(p) {
			runs, err := w.lacking(ctx, p, in)
			if err != nil {
				return total, err
			}
			for _, r := range runs {
				if _, _, err := w.place(ctx, b.Token, in.only(r[0], r[1])); err != nil {
					return total, err
				}
				total += r[1] - r[0]
			}
		}
	}
	return total, ctx.Err()
}

// lacking are the ranges of an insert's records that are to be sent again.
func (w *Writer) lacking(ctx context.Context, p *plan, in insert) (runs [][2]int, err error) {
	var found func(int) bool
	part := 0
	look := attempt{name: "what is kept", run: func(ctx context.Context, _ string) (err error) {
		found, part, err = in.here(ctx)
		return err
	}}
	if _, err := w.retry(ctx, p.token, look); err != nil {
		return nil, fmt.Errorf("look for a kept batch: %w", err)
	}
	if part > 0 {
		w.cfg.Log.Error("rows of some predictions are stored and others of the same are not: they are left as they are", "batch", p.token, "predictions", part)
	}
	for i := range in.n {
		if found(i) || in.buried(i) || w.wasBuried(in, i) {
			continue
		}
		if k := len(runs) - 1; k >= 0 && runs[k][1] == i {
			runs[k][1]++
		} else {
			runs = append(runs, [2]int{i, i + 1})
		}
	}
	return runs, nil
}

// wasBuried reports whether a record became a dead letter that is no more: stored by
// another batch, or deleted by somebody.
func (w *Writer) wasBuried(in insert, i int) bool {
	if w.cfg.Dead == nil {
		return false
	}
	_, gone := w.cfg.Dead.Gone(in.letter(i).ID)
	return gone
}

func (w *Writer) broughtHome(letter, batch string) bool {
	by, gone := w.cfg.Dead.Gone(letter)
	return gone && by == batch
}

// only is the part of an insert from lo to hi as one of its own. The token names the
// range: the same range is the same data.
func (in insert) only(lo, hi int) insert {
	out := insert{
		name: in.name, token: in.token + ":kept:" + strconv.Itoa(lo) + "-" + strconv.Itoa(hi), n: hi - lo,
		run: func(ctx context.Context, token string, l, h int) error { return in.run(ctx, token, lo+l, lo+h) },
		stored: func(ctx context.Context, l, h int, open func(int) bool) (bool, error) {
			return in.stored(ctx, lo+l, lo+h, func(i int) bool { return i < lo || i >= hi || open(i-lo) })
		},
		buried: func(i int) bool { return in.buried(lo + i) },
		bury:   func(i int) { in.bury(lo + i) },
		letter: func(i int) collector.DeadLetter { return in.letter(lo + i) },
	}
	return out
}

// herePredictions tells which predictions are there, by id and of whatever batch: one
// that was refused at first may have come with another.
func (s *Store) herePredictions(ctx context.Context, batch string, month int, part []decoded) (func(int) bool, int, error) {
	whole, err := s.hasPredictions(ctx, batch, month, part)
	if err != nil || whole {
		return func(int) bool { return true }, 0, err
	}
	ids := map[owner][]string{}
	for i := range part {
		o := owner{part[i].p.Tenant, part[i].p.Model}
		ids[o] = append(ids[o], part[i].p.ID)
	}
	rows := map[owner]map[string]uint64{}
	for o, list := range ids {
		rows[o] = map[string]uint64{}
		for some := range slices.Chunk(list, askedIDs) {
			if err := s.countIDs(ctx, o, some, rows[o]); err != nil {
				return nil, 0, err
			}
		}
	}
	count := func(i int) uint64 { return rows[owner{part[i].p.Tenant, part[i].p.Model}][part[i].p.ID] }
	broken := 0
	for i := range part {
		if n := count(i); n > 0 && n < uint64(max(part[i].p.Rows, 1)) {
			broken++
		}
	}
	return func(i int) bool { return count(i) > 0 }, broken, nil
}

func (s *Store) countIDs(ctx context.Context, o owner, ids []string, into map[string]uint64) error {
	// Every column is read, as in hasPredictions.
	rows, err := s.conn.Query(ctx, "SELECT id, countIf(NOT ignore(*)) FROM predictions WHERE tenant = ? AND model = ? AND id IN (?) GROUP BY id", o.tenant, o.model, ids)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		var id string
		var n uint64
		if err := rows.Scan(&id, &n); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		into[id] = n
		return nil
	})
}

// hereOf tells which of n keys a query finds, whose first parameter they are.
func hereOf[K comparable](ctx context.Context, s *Store, query string, n int, key func(i int) K, args ...any) (func(int) bool, int, error) {
	keys, found := make([]K, n), map[K]bool{}
	for i := range keys {
		keys[i] = key(i)
	}
	for some := range slices.Chunk(keys, askedIDs) {
		if err := scanKeys(ctx, s, query, append([]any{some}, args...), found); err != nil {
			return nil, 0, err
		}
	}
	return func(i int) bool { return found[keys[i]] }, 0, nil
}

func scanKeys[K comparable](ctx context.Context, s *Store, query string, args []any, found map[K]bool) error {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return unavailable(err)
	}
	return scanAll(rows, func() error {
		var k K
		if err := rows.Scan(&k); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		found[k] = true
		return nil
	})
}
