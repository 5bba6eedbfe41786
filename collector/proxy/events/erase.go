package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Half is a half that waits, as it can be searched.
type Half struct {
	ID      string    `json:"id"`
	Model   string    `json:"model"`
	Version string    `json:"version"`
	Half    string    `json:"half"` // "request" or "response"
	Time    string    `json:"time,omitempty"`
	TraceID string    `json:"trace_id,omitempty"`
	SpanID  string    `json:"span_id,omitempty"`
	Since   time.Time `json:"since"`
	// Rows are features of a request, outputs of a response, by name. Unreadable says
	// that there are none because its payload fits nothing any more.
	Rows       []map[string]json.RawMessage `json:"rows,omitempty"`
	Unreadable bool                         `json:"unreadable,omitempty"`
}

// Held are halves that were found. They are neither joined nor recorded until Release.
type Held struct {
	// Unread counts those that could not be decrypted.
	Unread int64

	room   *Room
	places []place
	has    map[place]bool
}

// Hold records what has waited for long enough and then finds, among what waits, the
// halves that match says yes to, whose other half is refused for now; where that is in a
// file already it is found with it. A half comes as a whole: with every row of its request.
func (r *Room) Hold(ctx context.Context, match func(*Half) (bool, error)) (*Held, error) {
	if err := r.cfg.Ours(); err != nil {
		return nil, fmt.Errorf("search waiting events: %w", err)
	}
	r.sweep(ctx)
	h := &Held{room: r, has: map[place]bool{}}
	r.mu.Lock()
	places := make([]place, 0, len(r.waiting))
	for p := range r.waiting {
		places = append(places, p)
	}
	r.unlock()
	for _, p := range places {
		err := ctx.Err()
		if err == nil {
			err = r.hold(h, p, match)
		}
		if err != nil {
			h.Release()
			return nil, fmt.Errorf("search waiting events: %w", err)
		}
	}
	return h, nil
}

func (r *Room) hold(h *Held, p place, match func(*Half) (bool, error)) error {
	r.mu.Lock()
	defer r.unlock()
	if _, ok := r.waiting[p]; !ok {
		return nil // recorded meanwhile
	}
	half, err := r.half(p)
	if gone := r.cfg.Ours(); err != nil && gone != nil {
		return gone
	}
	if err != nil {
		h.Unread++
		return nil //nolint:nilerr // counted: its key may be lost
	}
	yes, err := match(half)
	if err != nil || !yes {
		return err
	}
	for _, p := range []place{p, p.other()} {
		if e, ok := r.waiting[p]; ok && !h.has[p] {
			e.held = true
			r.waiting[p] = e
			h.has[p] = true
			h.places = append(h.places, p)
		}
	}
	return nil
}

// half reads a half that waits.
func (r *Room) half(p place) (*Half, error) {
	k, err := r.load(p)
	if err != nil {
		return nil, err
	}
	out := &Half{ID: k.ID, Model: k.Model, Version: k.Version, Half: string(k.Half), Time: k.Time, TraceID: k.Trace, SpanID: k.Span, Since: k.Since}
	if out.Rows, err = r.rowsOf(k); err != nil {
		out.Unreadable = true
		return out, nil
	}
	now, err := r.policies(k, out.Rows)
	if err != nil {
		now = nil // nothing of what was private is shown while it is not known what is
	}
	k.hide(out.Rows, now)
	return out, nil
}

// Len is how many halves were found.
func (h *Held) Len() int { return len(h.places) }

// Each gives the halves, one in memory at a time, but those that were recorded since.
func (h *Held) Each(f func(*Half) error) error {
	for _, p := range h.places {
		h.room.mu.Lock()
		_, waits := h.room.waiting[p]
		var half *Half
		var err error
		if waits {
			half, err = h.room.half(p)
		}
		h.room.unlock()
		if err != nil {
			return err
		}
		if !waits {
			continue
		}
		if err := f(half); err != nil {
			return err
		}
	}
	return nil
}

// Release lets the halves go on waiting that were not deleted.
func (h *Held) Release() {
	h.room.mu.Lock()
	defer h.room.unlock()
	for _, p := range h.places {
		if e, ok := h.room.waiting[p]; ok {
			e.held = false
			h.room.waiting[p] = e
		}
	}
}

// Delete deletes the halves for good, and returns how many of them are left.
func (h *Held) Delete() (left int64, err error) {
	r := h.room
	r.mu.Lock()
	defer r.unlock()
	if err := r.cfg.Ours(); err != nil {
		return int64(len(h.places)), fmt.Errorf("delete waiting events: %w", err)
	}
	for _, p := range h.places {
		if rerr := r.discard(p); rerr != nil {
			err = errors.Join(err, fmt.Errorf("delete a waiting event: %w", rerr))
			left++
			continue
		}
		r.bytes -= r.waiting[p].size // none where it is gone already
		delete(r.waiting, p)
	}
	if len(h.places) == 0 {
		return left, err
	}
	return left, errors.Join(err, r.disk.SyncDir(r.cfg.Dir))
}
