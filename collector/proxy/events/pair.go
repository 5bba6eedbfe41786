package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pellucid/pellucid/collector"
)

// How rows come to be recorded, so that all rows of a pair are recorded alike whatever
// interrupts it:
//
//   - Both halves are in files before the first row is recorded, where there are several.
//     Nothing but recording all rows of both takes either away; a start, and the sweep
//     where recording failed, goes on with it. Rows that are recorded already are then
//     duplicates.
//   - A half alone is renamed before its first row is recorded. While it has that name
//     the other half comes too late.
//
// A single row is recorded or not, and needs neither.

// recorded counts what became of rows.
type recorded struct {
	accepted, duplicate, refused int
	reason                       string // why the first refused one was
	capture                      string // of the first that is not stored whole, how much is
}

// any reports whether rows are recorded, now or before.
func (c recorded) any() bool { return c.accepted+c.duplicate > 0 }

func (c recorded) outcome() Outcome {
	out := Outcome{Status: Recorded, Refused: c.refused, Reason: c.reason, Capture: c.capture}
	if c.accepted == 0 {
		out.Status = Duplicate
	}
	return out
}

// record records rows.
func (r *Room) record(ctx context.Context, rows []*collector.Imported) (c recorded, err error) {
	results, err := r.cfg.Record(ctx, rows)
	if err != nil {
		return c, err
	}
	for i, x := range results {
		switch x.Status {
		case collector.ImportAccepted:
			c.accepted++
			c.capture = cmp.Or(c.capture, x.Capture)
		case collector.ImportDuplicate:
			c.duplicate++
		default:
			if c.refused++; c.refused == 1 {
				c.reason = x.Error
				if len(rows) > 1 {
					c.reason = fmt.Sprintf("row %d: %s", i+1, x.Error)
				}
			}
		}
	}
	return c, nil
}

// secondsBeyond lets second halves pass the room's bounds by a quarter: they stay for as
// long as their rows take to be recorded, and a room full of first ones must become empty.
const secondsBeyond = 4

// join takes a half whose other waits.
func (r *Room) join(ctx context.Context, p place, k *kept) (Outcome, error) {
	other := p.other()
	if r.waiting[other].held || r.waiting[p].held {
		return Outcome{}, fmt.Errorf("the other half is being searched or erased: %w", collector.ErrUnavailable)
	}
	if r.waiting[other].alone || r.waiting[p].alone {
		return r.tooLate(ctx, p, k)
	}
	o, err := r.load(other)
	if err != nil {
		return Outcome{}, err
	}
	_, before := r.waiting[p]
	if before { // as it came first
		if k, err = r.load(p); err != nil {
			return Outcome{}, err
		}
	}
	for _, p := range []place{p, other} {
		if err := r.setAlone(p, false); err != nil { // not begun, but perhaps not synced
			return Outcome{}, err
		}
	}
	rows, err := r.rows(pairOf(k, o))
	if err != nil {
		return Outcome{}, err
	}
	if len(rows) > 1 && !before {
		if err := r.keep(p, k, secondsBeyond); err != nil {
			return Outcome{}, err
		}
	}
	return r.finish(ctx, p, other, rows)
}

func pairOf(a, b *kept) (req, res *kept) {
	if a.Half == request {
		return a, b
	}
	return b, a
}

// tooLate takes a half whose other is being recorded alone, which is finished first. Where
// it cannot be, as no version is known that it fits, the two are joined after all.
func (r *Room) tooLate(ctx context.Context, p place, k *kept) (Outcome, error) {
	first := p.other()
	if r.waiting[p].alone {
		first = p
	}
	if k, c, err := r.recordAlone(ctx, first); err != nil {
		return Outcome{}, err
	} else if c.any() {
		r.dropRows(first, k, c.refused)
		return Outcome{Status: Duplicate}, nil
	}
	return r.join(ctx, p, k)
}

// finish records the rows of two halves and then deletes their files: the second's first,
// since the first was acknowledged and will not come again.
func (r *Room) finish(ctx context.Context, second, first place, rows []*collector.Imported) (Outcome, error) {
	c, err := r.record(ctx, rows)
	if err != nil {
		r.soon(second)
		r.soon(first)
		return Outcome{}, err
	}
	if !c.any() {
		r.forget(second)
		return Outcome{}, refuse(c.reason) // the other half goes on waiting, and is recorded alone
	}
	r.remember(first.key)
	r.forget(second)
	r.forget(first)
	return c.outcome(), nil
}

// forget deletes a half where it is in a file.
func (r *Room) forget(p place) {
	if _, ok := r.waiting[p]; ok {
		r.drop(p)
	}
}

func (r *Room) remember(key string) {
	if r.done[key] {
		return
	}
	delete(r.done, r.ring[r.next])
	r.ring[r.next] = key
	r.done[key] = true
	r.next = (r.next + 1) % rememberDone
}

// soon has the next sweep look at one half of a pair, which has begun to be recorded.
func (r *Room) soon(p place) {
	if e, ok := r.waiting[p]; ok {
		if _, whole := r.waiting[p.other()]; whole {
			e.due = r.cfg.Now()
			r.waiting[p] = e
		}
	}
}

// later has a sweep look at a half again when it has waited once more.
func (r *Room) later(p place) {
	if e, ok := r.waiting[p]; ok {
		e.due = r.cfg.Now().Add(r.cfg.Wait)
		r.waiting[p] = e
	}
}

// sweep goes on with what was interrupted, and records alone what has waited for long
// enough.
func (r *Room) sweep(ctx context.Context) {
	if r.cfg.Ours() != nil {
		return // whoever sends a half is told
	}
	r.mu.Lock()
	var due []place
	for p, e := range r.waiting {
		if !r.cfg.Now().Before(e.due) {
			due = append(due, p)
		}
	}
	r.unlock()
	for _, p := range due {
		if ctx.Err() != nil {
			return
		}
		r.goOn(ctx, p)
	}
}

// goOn records what is due of a half and of its other.
func (r *Room) goOn(ctx context.Context, p place) {
	r.mu.Lock()
	defer r.unlock()
	r.lookAgain(p)
	r.lookAgain(p.other())
	e, ok := r.waiting[p]
	o, whole := r.waiting[p.other()]
	switch {
	case !ok || e.held || o.held || r.cfg.Ours() != nil:
		return // its other half has come, it is about to be erased, or its file cannot be had
	case whole && o.alone && !e.alone:
		p = p.other() // what was begun is finished first
		fallthrough
	case !whole || e.alone || o.alone:
		r.single(ctx, p)
	default:
		r.pair(ctx, p)
	}
}

// pair goes on recording two halves that are both in files.
func (r *Room) pair(ctx context.Context, second place) {
	first := second.other()
	if r.waiting[second].since.Before(r.waiting[first].since) {
		first, second = second, first
	}
	k, out, err := r.again(ctx, second, first)
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		// Whoever sent it is told when it comes again: it was not acknowledged.
		r.cfg.Logger.Warn("both halves of a prediction are there and do not fit each other or any version: the second is not recorded", r.about(second, k)...)
		r.giveUp(second)
	case errors.Is(err, errDamaged):
		r.setAsideOrTell(second)
		r.setAsideOrTell(first)
		r.later(second)
		r.later(first)
	case err != nil:
		r.tell(second, "two halves of a prediction cannot be recorded yet, and are kept", r.about(second, k)...)
		r.later(second)
		r.later(first)
	default:
		r.dropRows(first, k, out.Refused)
	}
}

// giveUp drops a half for good. One whose file cannot be deleted is given up again.
func (r *Room) giveUp(p place) {
	r.forget(p)
	if _, stays := r.waiting[p]; !stays {
		r.count(Dropped{Unfit: 1})
	}
}

func (r *Room) again(ctx context.Context, second, first place) (*kept, Outcome, error) {
	k, err := r.load(second)
	if err != nil {
		return nil, Outcome{}, err
	}
	o, err := r.load(first)
	if err != nil {
		return k, Outcome{}, err
	}
	for _, p := range []place{second, first} {
		if err := r.setAlone(p, false); err != nil { // not begun, but perhaps not synced
			return k, Outcome{}, err
		}
	}
	rows, err := r.rows(pairOf(k, o))
	if err != nil {
		return k, Outcome{}, err
	}
	out, err := r.finish(ctx, second, first, rows)
	return k, out, err
}

// single records a half whose other has not come in time.
func (r *Room) single(ctx context.Context, p place) {
	e := r.waiting[p]
	k, c, err := r.recordAlone(ctx, p)
	switch {
	case err == nil && c.any():
		r.dropRows(p, k, c.refused)
	case errors.Is(err, errDamaged):
		r.setAsideOrTell(p)
		r.later(p)
	case err == nil && r.cfg.Now().Sub(e.since) >= r.cfg.GiveUp:
		r.cfg.Logger.Error("an event is given up: it fits no version that is known", append(r.about(p, k), "waited", r.cfg.GiveUp)...)
		r.giveUp(p)
	default:
		r.tell(p, "an event whose other half has not come cannot be recorded alone yet, and is kept", append(r.about(p, k), "fits", err != nil)...)
		r.later(p)
	}
}

// setAsideOrTell is setAside where nobody waits for an answer.
func (r *Room) setAsideOrTell(p place) {
	if err := r.setAside(p); err != nil {
		r.tell(p, "half of a prediction that waited is damaged and cannot be set aside yet", "half", p.half, "error", err)
	}
}

// tell says something of a half once.
func (r *Room) tell(p place, what string, about ...any) {
	if e, ok := r.waiting[p]; ok && !e.told {
		r.cfg.Logger.Warn(what, about...)
		e.told = true
		r.waiting[p] = e
	}
}

// about names a half in the log, by what its sender can find it by. What is wrong with it
// may repeat values, and is not for the log.
func (r *Room) about(p place, k *kept) []any {
	what := []any{"half", p.half}
	if k != nil {
		what = append(what, "model", cut(k.Model), "version", cut(k.Version), "id", cut(r.cfg.LogID(k.ID)))
	}
	return what
}

// cut bounds a name out of an event in a line of the log.
func cut(s string) string {
	const limit = 100
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// recordAlone records a half, which it returns, without the other. Where none of its rows
// is recorded, as they fit no version so far, it goes on waiting.
func (r *Room) recordAlone(ctx context.Context, p place) (k *kept, c recorded, err error) {
	if k, err = r.load(p); err != nil {
		return nil, c, err
	}
	req, res := k, (*kept)(nil)
	if k.Half == response {
		req, res = nil, k
	}
	rows, err := r.rows(req, res)
	var wrong *Refusal
	if err != nil {
		if errors.As(err, &wrong) {
			err = r.setAlone(p, false)
		}
		return k, c, err
	}
	if len(rows) > 1 {
		if err := r.setAlone(p, true); err != nil {
			return k, c, err
		}
	}
	if c, err = r.record(ctx, rows); err != nil {
		return k, c, err
	}
	if !c.any() {
		return k, c, r.setAlone(p, false)
	}
	r.remember(p.key)
	r.drop(p)
	return k, c, nil
}

// setAlone says in a file's name whether its rows are being recorded alone, durably, since
// what is recorded next depends on it.
func (r *Room) setAlone(p place, alone bool) error {
	e, ok := r.waiting[p]
	if !ok || e.alone == alone && !e.unsynced {
		return nil
	}
	if e.alone != alone {
		from, to := r.named(p, suffix), r.named(p, suffixAlone)
		if !alone {
			from, to = to, from
		}
		if err := r.disk.Rename(from, to); err != nil {
			return fmt.Errorf("rename the file of an event: %w: %w", collector.ErrFull, err)
		}
		e.alone, e.unsynced = alone, r.cfg.Sync
		r.waiting[p] = e
	}
	if e.unsynced {
		if err := r.disk.SyncDir(r.cfg.Dir); err != nil {
			return fmt.Errorf("sync the folder of events: %w: %w", collector.ErrFull, err)
		}
		e.unsynced = false
		r.waiting[p] = e
	}
	return nil
}
