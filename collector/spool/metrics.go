package spool

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// Observe makes m tell of the spool whenever metrics are read: what waits to be
// stored and for how long, whether there is room, and what was lost or damaged.
func (s *Spool) Observe(p metric.MeterProvider) error {
	m := p.Meter("github.com/pellucid/pellucid/collector/spool")
	var errs [8]error
	var records, size, disk, full metric.Int64ObservableGauge
	var lost, failures, damaged metric.Int64ObservableCounter
	var age metric.Float64ObservableGauge
	records, errs[0] = m.Int64ObservableGauge("ml.spool.pending.records", metric.WithUnit("{record}"),
		metric.WithDescription("Records that are not in ClickHouse yet."))
	size, errs[1] = m.Int64ObservableGauge("ml.spool.pending.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the spool that are not in ClickHouse yet."))
	disk, errs[2] = m.Int64ObservableGauge("ml.spool.disk.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes the spool takes on disk."))
	age, errs[3] = m.Float64ObservableGauge("ml.spool.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest record that no batch has taken has waited."))
	full, errs[4] = m.Int64ObservableGauge("ml.spool.full", metric.WithUnit("{flag}"),
		metric.WithDescription("1 when the last record found no room, else 0."))
	lost, errs[5] = m.Int64ObservableCounter("ml.spool.lost", metric.WithUnit("{record}"),
		metric.WithDescription("Records taken at durability none that could not be written."))
	failures, errs[6] = m.Int64ObservableCounter("ml.spool.write.failures", metric.WithUnit("{write}"),
		metric.WithDescription("Writes to the spool that failed."))
	damaged, errs[7] = m.Int64ObservableCounter("ml.spool.damaged.bytes", metric.WithUnit("By"),
		metric.WithDescription("Damaged bytes found and set aside."))
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
		o.ObserveFloat64(age, st.OldestAge.Seconds())
		o.ObserveInt64(full, isFull)
		o.ObserveInt64(lost, int64(st.Lost))
		o.ObserveInt64(failures, int64(st.Failures))
		o.ObserveInt64(damaged, int64(st.BadBytes))
		return nil
	}, records, size, disk, age, full, lost, failures, damaged)
	return err
}
