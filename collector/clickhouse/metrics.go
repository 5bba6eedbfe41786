package clickhouse

import (
	"context"

	"go.opentelemetry.io/otel/metric"
)

// Observe makes p tell of the writer whenever metrics are read.
func (w *Writer) Observe(p metric.MeterProvider) error {
	_, err := p.Meter("github.com/pellucid/pellucid/collector/clickhouse").Int64ObservableCounter("ml.server.import.duplicates", metric.WithUnit("{prediction}"),
		metric.WithDescription("Predictions made elsewhere that were accepted and not stored, since another with the same id was."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(w.Health().Duplicates))
			return nil
		}))
	return err
}
