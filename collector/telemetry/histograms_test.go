package telemetry

import (
	"cmp"
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// TestHistogramsAreTheSDKs holds them against the SDK's own, over the same values.
func TestHistogramsAreTheSDKs(t *testing.T) {
	bounds := []float64{0, 0.5, 1, 2}
	list, theirs := &histogramList{}, sdkmetric.NewManualReader()
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(list))
	own := histograms{sdk: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), all: list}
	sdk := sdkmetric.NewMeterProvider(sdkmetric.WithReader(theirs), sdkmetric.WithCardinalityLimit(maxSeries))
	var both []metric.Float64Histogram
	for _, p := range []metric.MeterProvider{own, sdk} {
		h, err := p.Meter("room").Float64Histogram("ml.test.duration", metric.WithUnit("s"), metric.WithDescription("A test."), metric.WithExplicitBucketBoundaries(bounds...))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, h)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for i := range maxSeries {
				// Multiples of a quarter have the same sum in any order.
				value := float64(r.IntN(12)) / 4
				for _, h := range both {
					h.Record(t.Context(), value, metric.WithAttributes(attribute.String("model", strconv.Itoa(i%7))))
				}
			}
		})
	}
	wg.Wait()
	got, want := collect(t, reader), collect(t, theirs)
	if len(want.DataPoints) != 7 || !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

// collect reads the one histogram there is, but for what the SDK alone has and for times.
func collect(t *testing.T, r sdkmetric.Reader) metricdata.Histogram[float64] {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.ScopeMetrics) != 1 || all.ScopeMetrics[0].Scope.Name != "room" || len(all.ScopeMetrics[0].Metrics) != 1 {
		t.Fatalf("metrics %+v", all.ScopeMetrics)
	}
	m := all.ScopeMetrics[0].Metrics[0]
	if m.Name != "ml.test.duration" || m.Unit != "s" || m.Description != "A test." {
		t.Errorf("metric %+v", m)
	}
	h := m.Data.(metricdata.Histogram[float64])
	for i := range h.DataPoints {
		p := &h.DataPoints[i]
		p.Time, p.StartTime = time.Time{}, time.Time{}
		p.Min, p.Max, p.Exemplars = metricdata.Extrema[float64]{}, metricdata.Extrema[float64]{}, nil
	}
	slices.SortFunc(h.DataPoints, func(a, b metricdata.HistogramDataPoint[float64]) int {
		return cmp.Compare(a.Attributes.Encoded(attribute.DefaultEncoder()), b.Attributes.Encoded(attribute.DefaultEncoder()))
	})
	return h
}
