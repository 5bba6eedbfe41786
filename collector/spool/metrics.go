package spool

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Observe makes m tell of the spool whenever metrics are read: what waits to be
// stored and for how long, whether there is room, and what was lost or damaged.
func (s *Spool) Observe(p metric.MeterProvider) error {
	m := p.Meter("github.com/pellucid/pellucid/collector/spool")
	var errs [11]error
	var records, size, disk, full metric.Int64ObservableGauge
	var lost, failures, damaged, missing metric.Int64ObservableCounter
	var age, lag, fill metric.Float64ObservableGauge
	records, errs[0] = m.Int64ObservableGauge("ml.spool.pending.records", metric.WithUnit("{record}"),
		metric.WithDescription("Records that are not in ClickHouse yet."))
	size, errs[1] = m.Int64ObservableGauge("ml.spool.pending.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the spool that are not in ClickHouse yet."))
	disk, errs[2] = m.Int64ObservableGauge("ml.spool.disk.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes the spool takes on disk."))
	age, errs[3] = m.Float64ObservableGauge("ml.spool.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest record has waited that is not acknowledged by ClickHouse: the same as ml.spool.lag, by its earlier name."))
	full, errs[4] = m.Int64ObservableGauge("ml.spool.full", metric.WithUnit("{flag}"),
		metric.WithDescription("1 when the last record found no room, else 0."))
	lost, errs[5] = m.Int64ObservableCounter("ml.spool.lost", metric.WithUnit("{record}"),
		metric.WithDescription("Records taken at durability none that could not be written."))
	failures, errs[6] = m.Int64ObservableCounter("ml.spool.write.failures", metric.WithUnit("{write}"),
		metric.WithDescription("Writes to the spool that failed."))
	damaged, errs[7] = m.Int64ObservableCounter("ml.spool.damaged.bytes", metric.WithUnit("By"),
		metric.WithDescription("Damaged bytes found and set aside."))
	lag, errs[8] = m.Float64ObservableGauge("ml.spool.lag", metric.WithUnit("s"),
		metric.WithDescription("How long ago the oldest record came that is not in ClickHouse yet."))
	fill, errs[9] = m.Float64ObservableGauge("ml.spool.fill", metric.WithUnit("1"),
		metric.WithDescription("Share that is taken of what the spool may take."))
	missing, errs[10] = m.Int64ObservableCounter("ml.spool.segments.missing", metric.WithUnit("{segment}"),
		metric.WithDescription("Segments with records not in ClickHouse yet that a start found gone or cut short."))
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := s.Stats()
		isFull := int64(0)
		if st.Full {
			isFull = 1
		}
		o.ObserveInt64(records, int64(st.Appended-st.Acked))
		o.ObserveInt64(size, st.Pending)
		o.ObserveInt64(disk, st.Bytes)
		o.ObserveFloat64(age, st.Lag.Seconds())
		o.ObserveFloat64(lag, st.Lag.Seconds())
		o.ObserveFloat64(fill, st.Fill)
		o.ObserveInt64(full, isFull)
		o.ObserveInt64(lost, int64(st.Lost))
		o.ObserveInt64(failures, int64(st.Failures))
		o.ObserveInt64(damaged, int64(st.BadBytes))
		o.ObserveInt64(missing, int64(st.Missing))
		return nil
	}, records, size, disk, age, lag, fill, full, lost, failures, damaged, missing)
	return err
}

// maxDeadModels bounds the label sets of dead letters: what is beyond it counts
// under the model "other".
const maxDeadModels = 100

// Observe makes m tell how many letters there are, by model and reason.
func (d *Dead) Observe(p metric.MeterProvider) error {
	m := p.Meter("github.com/pellucid/pellucid/collector/spool")
	letters, err := m.Int64ObservableGauge("ml.spool.dead_letters", metric.WithUnit("{record}"),
		metric.WithDescription("Records, or their parts in rollups, that the store refuses for what is in them."))
	if err != nil {
		return err
	}
	damaged, err := m.Int64ObservableCounter("ml.spool.dead_letters.damaged.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of dead letters that the start found damaged or gone."))
	if err != nil {
		return err
	}
	// A set that has become empty is still told, as 0, so that an alert on it ends.
	told := map[[2]string]bool{}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for k, n := range d.byReason(told) {
			o.ObserveInt64(letters, n, metric.WithAttributes(attribute.String("ml.model.name", k[0]), attribute.String("error.type", k[1])))
		}
		bytes, _ := d.Damaged()
		o.ObserveInt64(damaged, int64(bytes)) //nolint:gosec // bytes of one file
		return nil
	}, letters, damaged)
	return err
}

// byReason counts letters by model and reason, and adds what it has to told.
func (d *Dead) byReason(told map[[2]string]bool) map[[2]string]int64 {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	out := map[[2]string]int64{}
	for k := range told {
		out[k] = 0
	}
	for k, n := range d.shown.counts {
		if !told[k] && len(told) >= maxDeadModels {
			k[0] = "other"
		}
		told[k] = true
		out[k] += n
	}
	return out
}
