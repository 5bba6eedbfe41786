package events

import (
	"context"
	"errors"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Drops counts what was taken into a room and left it without being recorded. Its zero value
// is ready for use.
type Drops struct{ unfit, damaged, gone, rows atomic.Int64 }

// Dropped is what Drops has counted. What is sent again after it was dropped counts as well.
type Dropped struct {
	// Unfit are events that fit no version that is known, or not their other half; Damaged and Gone
	// those whose file was.
	Unfit, Damaged, Gone int64
	// Rows fit no version and belong to events whose other rows are recorded. Of those whose
	// sender was told so there are none.
	Rows int64
}

// Total is all events.
func (d Dropped) Total() int64 { return d.Unfit + d.Damaged + d.Gone }

// Now is what is counted so far.
func (d *Drops) Now() Dropped {
	return Dropped{Unfit: d.unfit.Load(), Damaged: d.damaged.Load(), Gone: d.gone.Load(), Rows: d.rows.Load()}
}

// dropRows counts rows that were refused, when the half whose they are is gone: until then they
// come again.
func (r *Room) dropRows(p place, k *kept, n int) {
	if _, again := r.waiting[p]; n == 0 || again {
		return
	}
	r.cfg.Drops.rows.Add(int64(n))
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
