package proxy

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// durationBuckets start low enough for a tree model's answer.
var durationBuckets = []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10}

// instruments are the metrics of this package. Labels are names of models that
// are served, never names out of a request.
type instruments struct {
	duration                   metric.Float64Histogram
	requests                   metric.Int64Counter
	bytesIn, bytesOut          metric.Int64Counter
	active                     metric.Int64UpDownCounter
	panics, captureFailures    metric.Int64Counter
	feedbackTaken, feedbackBad metric.Int64Counter

	// sets keeps one measurement option a label set, because building one costs
	// more than the rest of a measurement.
	sets sync.Map // labels -> *options
}

// options is a label set as the instruments take it.
type options struct {
	record []metric.RecordOption
	add    []metric.AddOption
}

// labels is one label set of the request metrics.
type labels struct {
	model, version, route string
	status                int
}

func newInstruments(p metric.MeterProvider) (*instruments, error) {
	m := p.Meter("github.com/pellucid/pellucid/collector/proxy")
	in := &instruments{}
	var errs [9]error
	in.duration, errs[0] = m.Float64Histogram("ml.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's first byte to its answer's last."),
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	in.requests, errs[1] = m.Int64Counter("ml.server.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Inference and explanation requests; unknown models have no name."))
	in.bytesIn, errs[2] = m.Int64Counter("ml.server.request.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of request bodies, decompressed."))
	in.bytesOut, errs[3] = m.Int64Counter("ml.server.response.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of answers, before compression."))
	in.active, errs[4] = m.Int64UpDownCounter("ml.server.active_requests", metric.WithUnit("{request}"),
		metric.WithDescription("Inference and explanation requests under way."))
	in.panics, errs[5] = m.Int64Counter("ml.server.panics", metric.WithUnit("{panic}"),
		metric.WithDescription("Panics caught while serving."))
	in.captureFailures, errs[6] = m.Int64Counter("ml.server.capture.failures", metric.WithUnit("{prediction}"),
		metric.WithDescription("Predictions that could not be captured."))
	in.feedbackTaken, errs[7] = m.Int64Counter("ml.server.feedback.accepted", metric.WithUnit("{label}"),
		metric.WithDescription("Labels accepted."))
	in.feedbackBad, errs[8] = m.Int64Counter("ml.server.feedback.refused", metric.WithUnit("{label}"),
		metric.WithDescription("Labels refused."))
	return in, errors.Join(errs[:]...)
}

// option returns the measurement options of a label set.
func (in *instruments) option(l labels) *options {
	if o, ok := in.sets.Load(l); ok {
		return o.(*options)
	}
	set := metric.WithAttributeSet(attribute.NewSet(
		attrModelName.String(l.model), attrModelVersion.String(l.version),
		attrHTTPRoute.String(l.route), attrHTTPStatus.Int(l.status)))
	o := &options{record: []metric.RecordOption{set}, add: []metric.AddOption{set}}
	in.sets.Store(l, o)
	return o
}

// request records one finished request.
func (in *instruments) request(ctx context.Context, l labels, seconds float64, bytesIn, bytesOut int64) {
	o := in.option(l)
	in.duration.Record(ctx, seconds, o.record...)
	in.requests.Add(ctx, 1, o.add...)
	in.bytesIn.Add(ctx, bytesIn, o.add...)
	in.bytesOut.Add(ctx, bytesOut, o.add...)
}
