package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Drops counts what was taken into a room and left it without being recorded. Its zero value
// is ready for use.
type Drops struct {
	mu sync.Mutex
	// now is since the start, lately without a pause of LatelyFor and until at, which a start
	// takes over.
	now, lately Dropped
	at          time.Time
}

// LatelyFor is how long what was dropped counts as dropped lately, after the last of it.
const LatelyFor = time.Hour

// Dropped is what Drops has counted. What is sent again after it was dropped counts as well.
type Dropped struct {
	// Unfit are events that fit no version that is known, or not their other half; Damaged and Gone
	// those whose file was.
	Unfit   int64 `json:"unfit"`
	Damaged int64 `json:"damaged"`
	Gone    int64 `json:"gone"`
	// Rows fit no version and belong to events whose other rows are recorded. Of those whose
	// sender was told so there are none.
	Rows int64 `json:"rows"`
}

// Total is all events.
func (d Dropped) Total() int64 { return d.Unfit + d.Damaged + d.Gone }

func (d Dropped) plus(n Dropped) Dropped {
	return Dropped{d.Unfit + n.Unfit, d.Damaged + n.Damaged, d.Gone + n.Gone, d.Rows + n.Rows}
}

// Now is what is counted so far, with what an earlier start had lately.
func (d *Drops) Now() Dropped {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// Lately is what was dropped without a pause of LatelyFor, nothing when that has passed since.
func (d *Drops) Lately(now time.Time) Dropped {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.at) >= LatelyFor {
		return Dropped{}
	}
	return d.lately
}

// add counts, and returns what is to be kept for the next start.
func (d *Drops) add(n Dropped, now time.Time) (lately Dropped, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n == (Dropped{}) {
		return d.lately, d.at
	}
	if now.Sub(d.at) >= LatelyFor {
		d.lately = Dropped{}
	}
	d.now, d.lately, d.at = d.now.plus(n), d.lately.plus(n), now.UTC()
	return d.lately, d.at
}

// restore takes over what an earlier start has kept.
func (d *Drops) restore(lately Dropped, at, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lately, d.at = lately, at; at.After(now) { // the clock was set back
		d.at = now
	}
	if now.Sub(d.at) < LatelyFor {
		d.now = d.now.plus(lately)
	}
}

// dropRows counts rows that were refused, when the half whose they are is gone: until then they
// come again.
func (r *Room) dropRows(p place, k *kept, n int) {
	if _, again := r.waiting[p]; n == 0 || again {
		return
	}
	r.count(Dropped{Rows: int64(n)})
	r.cfg.Logger.Warn("rows of a prediction fit no version and are not recorded", append(r.about(p, k), "rows", n)...)
}

// observe publishes what waits and what was dropped.
func (r *Room) observe() error {
	m := r.cfg.MeterProvider.Meter("github.com/pellucid/pellucid/collector/proxy/events")
	var errs [4]error
	var halves, size metric.Int64ObservableGauge
	var dropped, rows metric.Int64ObservableCounter
	halves, errs[0] = m.Int64ObservableGauge("ml.events.waiting", metric.WithUnit("{event}"),
		metric.WithDescription("CloudEvents whose other half has not come yet."))
	size, errs[1] = m.Int64ObservableGauge("ml.events.waiting.bytes", metric.WithUnit("By"), metric.WithDescription("Bytes of their files."))
	dropped, errs[2] = m.Int64ObservableCounter("ml.events.dropped", metric.WithUnit("{event}"),
		metric.WithDescription("CloudEvents that waited and were not recorded: they fit no version that is known, or their file was damaged or gone."))
	rows, errs[3] = m.Int64ObservableCounter("ml.events.dropped.rows", metric.WithUnit("{row}"),
		metric.WithDescription("Rows of recorded CloudEvents that fit no version and are not recorded, of which no sender was told."))
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	var err error
	r.watched, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n, bytes := r.Waiting()
		o.ObserveInt64(halves, int64(n))
		o.ObserveInt64(size, bytes)
		d := r.cfg.Drops.Now()
		for why, n := range map[string]int64{"unfit": d.Unfit, "damaged": d.Damaged, "gone": d.Gone} {
			o.ObserveInt64(dropped, n, metric.WithAttributes(attribute.String("error.type", why)))
		}
		o.ObserveInt64(rows, d.Rows)
		return nil
	}, halves, size, dropped, rows)
	return err
}
