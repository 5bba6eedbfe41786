package capture

import (
	"context"
	"errors"
	"sync/atomic"
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
	collector.KindRefused: "refused",
}

// instruments are the metrics of this package. What is counted at every record is
// counted here and told when it is asked for: an SDK counter takes ten times as
// long.
type instruments struct {
	// lost counts answers, lostRows the rows of them.
	lost, lostRows metric.Int64Counter
	lostOf         []metric.AddOption // a prediction, of which alone there is an answer without a record
	seconds        metric.Float64Histogram
	// sampled counts rows without features, refused those that did not become rows.
	sampled, refused atomic.Int64
	series           map[collector.Kind]*series
}

// series is what is counted of one kind.
type series struct {
	record          []metric.RecordOption
	observe         []metric.ObserveOption
	captured, bytes atomic.Int64
}

func newInstruments(p metric.MeterProvider) (*instruments, error) {
	m := p.Meter("github.com/pellucid/pellucid/collector/capture")
	in := &instruments{series: map[collector.Kind]*series{}}
	var errs [7]error
	captured, err := m.Int64ObservableCounter("ml.capture.records", metric.WithUnit("{record}"),
		metric.WithDescription("Records appended to the spool."))
	errs[0] = err
	in.lost, errs[1] = m.Int64Counter("ml.capture.lost", metric.WithUnit("{record}"),
		metric.WithDescription("Predictions that were answered and have no record, since the spool was full or could not be written."))
	in.lostRows, errs[6] = m.Int64Counter("ml.capture.lost.rows", metric.WithUnit("{row}"),
		metric.WithDescription("Rows of those predictions: a batch is one prediction of many."))
	bytes, err := m.Int64ObservableCounter("ml.capture.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the records appended to the spool."))
	errs[2] = err
	in.seconds, errs[3] = m.Float64Histogram("ml.capture.append.duration", metric.WithUnit("s"),
		metric.WithDescription("Time until a record was as durable as configured."),
		metric.WithExplicitBucketBoundaries(appendBuckets...))
	sampled, err := m.Int64ObservableCounter("ml.capture.sampled", metric.WithUnit("{prediction}"),
		metric.WithDescription("Predictions recorded without their features, by a rule."))
	errs[4] = err
	refused, err := m.Int64ObservableCounter("ml.capture.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests refused before their model saw them that another's row stands for."))
	errs[5] = err
	for k, name := range kinds {
		set := metric.WithAttributeSet(attribute.NewSet(attrKind.String(name)))
		if k == collector.KindPrediction {
			in.lostOf = []metric.AddOption{set}
		}
		in.series[k] = &series{record: []metric.RecordOption{set}, observe: []metric.ObserveOption{set}}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(sampled, in.sampled.Load())
		o.ObserveInt64(refused, in.refused.Load())
		for _, s := range in.series {
			if n := s.captured.Load(); n > 0 {
				o.ObserveInt64(captured, n, s.observe...)
				o.ObserveInt64(bytes, s.bytes.Load(), s.observe...)
			}
		}
		return nil
	}, captured, bytes, sampled, refused)
	return in, err
}

func (in *instruments) appended(ctx context.Context, k collector.Kind, n int, d time.Duration, err error) {
	s := in.series[k]
	in.seconds.Record(ctx, d.Seconds(), s.record...)
	if err != nil {
		return
	}
	s.captured.Add(1)
	s.bytes.Add(int64(n))
}
