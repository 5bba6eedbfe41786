package telemetry

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
)

// histograms makes histograms of stated buckets that count for themselves and are told
// when they are asked for: the SDK's take three times as long, and some are recorded at
// every request. All other instruments are the SDK's.
type histograms struct {
	embedded.MeterProvider
	sdk *sdkmetric.MeterProvider
	all *histogramList
}

// histogramList implements sdkmetric.Producer.
type histogramList struct {
	mu   sync.Mutex
	list []*histogram
}

// Meter implements metric.MeterProvider.
func (h histograms) Meter(name string, options ...metric.MeterOption) metric.Meter {
	return histogramMeter{Meter: h.sdk.Meter(name, options...), name: name, all: h.all}
}

type histogramMeter struct {
	metric.Meter
	name string
	all  *histogramList
}

// Float64Histogram implements metric.Meter.
func (m histogramMeter) Float64Histogram(name string, options ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(options...)
	if len(c.ExplicitBucketBoundaries()) == 0 {
		return m.Meter.Float64Histogram(name, options...)
	}
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	for _, h := range m.all.list {
		if h.scope == m.name && h.name == name {
			return h, nil
		}
	}
	h := &histogram{scope: m.name, name: name, unit: c.Unit(), description: c.Description(), bounds: c.ExplicitBucketBoundaries(), began: time.Now()}
	m.all.list = append(m.all.list, h)
	return h, nil
}

// Produce implements sdkmetric.Producer.
func (l *histogramList) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	l.mu.Lock()
	list := slices.Clone(l.list)
	l.mu.Unlock()
	out := make([]metricdata.ScopeMetrics, 0, len(list))
	for _, h := range list {
		if points := h.points(time.Now()); len(points) > 0 {
			out = append(out, metricdata.ScopeMetrics{
				Scope: instrumentation.Scope{Name: h.scope},
				Metrics: []metricdata.Metrics{{
					Name: h.name, Unit: h.unit, Description: h.description,
					Data: metricdata.Histogram[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality},
				}},
			})
		}
	}
	return out, nil
}

type histogram struct {
	embedded.Float64Histogram
	scope, name, unit, description string
	bounds                         []float64
	began                          time.Time
	series                         sync.Map // attribute.Distinct -> *histogramSeries
	count                          atomic.Int64
}

// histogramSeries is what is counted under one label set.
type histogramSeries struct {
	set     attribute.Set
	buckets []bucket
	sum     atomic.Uint64 // the bits of a float64
}

// bucket counts the values up to its bound; exemplar is the last of a sampled trace.
type bucket struct {
	count    atomic.Uint64
	exemplar atomic.Pointer[metricdata.Exemplar[float64]]
}

// Enabled implements metric.Float64Histogram.
func (h *histogram) Enabled(context.Context) bool { return true }

// Record implements metric.Float64Histogram.
func (h *histogram) Record(ctx context.Context, value float64, options ...metric.RecordOption) {
	s := h.of(metric.NewRecordConfig(options).Attributes())
	at := 0
	for at < len(h.bounds) && value > h.bounds[at] {
		at++
	}
	b := &s.buckets[at]
	b.count.Add(1)
	for {
		old := s.sum.Load()
		if s.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+value)) {
			break
		}
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		t, sp := sc.TraceID(), sc.SpanID()
		b.exemplar.Store(&metricdata.Exemplar[float64]{Time: time.Now(), Value: value, SpanID: sp[:], TraceID: t[:]})
	}
}

// overflow is the label set of what is beyond maxSeries, as the SDK names it.
var overflow = attribute.NewSet(attribute.Bool("otel.metric.overflow", true))

func (h *histogram) of(set attribute.Set) *histogramSeries {
	if s, ok := h.series.Load(set.Equivalent()); ok {
		return s.(*histogramSeries)
	}
	if h.count.Add(1) >= maxSeries {
		set = overflow
	}
	s, _ := h.series.LoadOrStore(set.Equivalent(), &histogramSeries{set: set, buckets: make([]bucket, len(h.bounds)+1)})
	return s.(*histogramSeries)
}

func (h *histogram) points(now time.Time) []metricdata.HistogramDataPoint[float64] {
	var out []metricdata.HistogramDataPoint[float64]
	h.series.Range(func(_, v any) bool {
		s := v.(*histogramSeries) //nolint:forcetypeassert // only of of
		p := metricdata.HistogramDataPoint[float64]{
			Attributes: s.set, StartTime: h.began, Time: now, Bounds: h.bounds, BucketCounts: make([]uint64, len(s.buckets)),
		}
		p.Sum = math.Float64frombits(s.sum.Load())
		for i := range s.buckets {
			p.BucketCounts[i] = s.buckets[i].count.Load()
			p.Count += p.BucketCounts[i]
			if e := s.buckets[i].exemplar.Load(); e != nil {
				p.Exemplars = append(p.Exemplars, *e)
			}
		}
		out = append(out, p)
		return true
	})
	return out
}
