package proxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// durationBuckets start low enough for a tree model's answer.
var durationBuckets = []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10}

// instruments are the metrics of this package. Labels are names of models that
// are served, never names out of a request.
//
// What is counted at every request is counted here and told when it is asked for:
// an SDK counter takes ten times as long.
type instruments struct {
	duration                   metric.Float64Histogram
	panics, captureFailures    metric.Int64Counter
	refused                    metric.Int64Counter
	feedbackTaken, feedbackBad metric.Int64Counter
	importNames                metric.Int64Counter

	active atomic.Int64
	sets   sync.Map // labels -> *series
	count  atomic.Int64
}

// maxSeries bounds the label sets, as the SDK bounds those of its instruments;
// what is beyond shares one without labels.
const maxSeries = 2000

// series is what is counted under one label set.
type series struct {
	record                      []metric.RecordOption
	observe                     []metric.ObserveOption
	requests, bytesIn, bytesOut atomic.Int64
}

// labels is one label set of the request metrics.
type labels struct {
	model, version, route string
	status                int
}

func newInstruments(p metric.MeterProvider) (*instruments, error) {
	m := p.Meter("github.com/pellucid/pellucid/collector/proxy")
	in := &instruments{}
	var errs [11]error
	in.duration, errs[0] = m.Float64Histogram("ml.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's first byte to its answer's last."),
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	requests, err := m.Int64ObservableCounter("ml.server.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Inference and explanation requests; unknown models have no name."))
	errs[1] = err
	bytesIn, err := m.Int64ObservableCounter("ml.server.request.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of request bodies, decompressed."))
	errs[2] = err
	bytesOut, err := m.Int64ObservableCounter("ml.server.response.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of answers, before compression."))
	errs[3] = err
	active, err := m.Int64ObservableUpDownCounter("ml.server.active_requests", metric.WithUnit("{request}"),
		metric.WithDescription("Inference and explanation requests under way."))
	errs[4] = err
	in.panics, errs[5] = m.Int64Counter("ml.server.panics", metric.WithUnit("{panic}"),
		metric.WithDescription("Panics caught while serving."))
	in.captureFailures, errs[6] = m.Int64Counter("ml.server.capture.failures", metric.WithUnit("{prediction}"),
		metric.WithDescription("Predictions whose answers were withheld, with an error in their place, since they could not be recorded."))
	in.feedbackTaken, errs[7] = m.Int64Counter("ml.server.feedback.accepted", metric.WithUnit("{label}"),
		metric.WithDescription("Labels accepted."))
	in.feedbackBad, errs[8] = m.Int64Counter("ml.server.feedback.refused", metric.WithUnit("{label}"),
		metric.WithDescription("Labels refused."))
	in.refused, errs[9] = m.Int64Counter("ml.server.requests.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests answered with a status from 400 to 499, by the route they came by, read or not, and calls by gRPC that were not taken since too many were under way (503)."))
	in.importNames, errs[10] = m.Int64Counter("ml.server.import.names", metric.WithUnit("{name}"),
		metric.WithDescription("Names of features and outputs of imported predictions that repeated what is private: masked, or left out where another has that name."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(active, in.active.Load())
		in.sets.Range(func(_, v any) bool {
			s := v.(*series) //nolint:forcetypeassert // only of stores
			o.ObserveInt64(requests, s.requests.Load(), s.observe...)
			o.ObserveInt64(bytesIn, s.bytesIn.Load(), s.observe...)
			o.ObserveInt64(bytesOut, s.bytesOut.Load(), s.observe...)
			return true
		})
		return nil
	}, active, requests, bytesIn, bytesOut)
	return in, err
}

// of returns the series of a label set.
func (in *instruments) of(l labels) *series {
	if s, ok := in.sets.Load(l); ok {
		return s.(*series)
	}
	if in.count.Add(1) > maxSeries {
		l = labels{}
	}
	set := metric.WithAttributeSet(attribute.NewSet(
		attrModelName.String(l.model), attrModelVersion.String(l.version),
		attrHTTPRoute.String(l.route), attrHTTPStatus.Int(l.status)))
	s, _ := in.sets.LoadOrStore(l, &series{record: []metric.RecordOption{set}, observe: []metric.ObserveOption{set}})
	return s.(*series)
}

// request records one finished request.
func (in *instruments) request(ctx context.Context, l labels, seconds float64, bytesIn, bytesOut int64) {
	s := in.of(l)
	in.duration.Record(ctx, seconds, s.record...)
	s.requests.Add(1)
	s.bytesIn.Add(bytesIn)
	s.bytesOut.Add(bytesOut)
}
