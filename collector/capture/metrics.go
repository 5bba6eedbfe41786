package capture

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/pellucid/pellucid/collector"
)

// appendBuckets resolve a write to the page cache as well as a synced one.
var appendBuckets = []float64{1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.05, 0.25, 1}

// kinds are the label sets, made once: one costs more than a measurement.
var kinds = map[collector.Kind]string{
	collector.KindPrediction: "prediction", collector.KindFeedback: "feedback",
	collector.KindExplanation: "explanation", collector.KindSchema: "schema", collector.KindImported: "imported",
}

type instruments struct {
	captured, lost, bytes metric.Int64Counter
	seconds               metric.Float64Histogram
	add                   map[collector.Kind][]metric.AddOption
	record                map[collector.Kind][]metric.RecordOption
}

func newInstruments(p metric.MeterProvider) (*instruments, error) {
	m := p.Meter("github.com/pellucid/pellucid/collector/capture")
	in := &instruments{add: map[collector.Kind][]metric.AddOption{}, record: map[collector.Kind][]metric.RecordOption{}}
	var errs [4]error
	in.captured, errs[0] = m.Int64Counter("ml.capture.records", metric.WithUnit("{record}"),
		metric.WithDescription("Records appended to the spool."))
	in.lost, errs[1] = m.Int64Counter("ml.capture.lost", metric.WithUnit("{record}"),
		metric.WithDescription("Records that could not be appended."))
	in.bytes, errs[2] = m.Int64Counter("ml.capture.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the records appended to the spool."))
	in.seconds, errs[3] = m.Float64Histogram("ml.capture.append.duration", metric.WithUnit("s"),
		metric.WithDescription("Time until a record was as durable as configured."),
		metric.WithExplicitBucketBoundaries(appendBuckets...))
	for k, name := range kinds {
		set := metric.WithAttributeSet(attribute.NewSet(attrKind.String(name)))
		in.add[k], in.record[k] = []metric.AddOption{set}, []metric.RecordOption{set}
	}
	return in, errors.Join(errs[:]...)
}

func (in *instruments) appended(ctx context.Context, k collector.Kind, n int, d time.Duration, err error) {
	in.seconds.Record(ctx, d.Seconds(), in.record[k]...)
	if err != nil {
		return
	}
	in.captured.Add(ctx, 1, in.add[k]...)
	in.bytes.Add(ctx, int64(n), in.add[k]...)
}

// lose counts a record that is not in the spool though it should be.
func (in *instruments) lose(ctx context.Context, k collector.Kind) { in.lost.Add(ctx, 1, in.add[k]...) }
