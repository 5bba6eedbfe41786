package clickhouse

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// BenchmarkWrite stores batches of 50,000 rows of 30 float32 features, as single
// predictions and as requests of 100 rows, with and without bins.
func BenchmarkWrite(b *testing.B) {
	const rows, features = 50_000, 30
	s := &collector.Schema{Outputs: []collector.Field{{Name: "prediction", DType: engine.Float32, Elements: 1}}}
	for f := range features {
		s.Features = append(s.Features, collector.Field{Name: fmt.Sprintf("f%d", f), DType: engine.Float32, Elements: 1})
	}
	doc, err := collector.EncodeSchema(s)
	if err != nil {
		b.Fatal(err)
	}
	if s, err = collector.DecodeSchema(doc); err != nil {
		b.Fatal(err)
	}
	for _, per := range []int{1, 100} {
		records, ref := benchRecords(b, s, rows, per, features)
		for _, binned := range []bool{false, true} {
			b.Run(fmt.Sprintf("rows_per_request=%d/bins=%v", per, binned), func(b *testing.B) {
				store := open(b)
				w := writer(b, store, WriterConfig{Schema: func(string) *collector.Schema { return s }, Reference: func(string) *stats.Reference {
					if binned {
						return ref
					}
					return nil
				}})
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					n++
					if err := w.Write(b.Context(), &collector.Batch{Token: fmt.Sprint("t", n), Records: records}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(rows*n)/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(number(b, store, "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() AND table = 'predictions'")/
					number(b, store, "SELECT count() FROM predictions"), "disk_B/row")
			})
		}
	}
}

func benchRecords(b *testing.B, s *collector.Schema, rows, per, features int) ([]collector.Record, *stats.Reference) {
	rng := rand.New(rand.NewSource(3))
	var records []collector.Record
	var ref *stats.Reference
	for i := range rows / per {
		id, err := uuid.NewV7()
		if err != nil {
			b.Fatal(err)
		}
		at := base.Add(time.Duration(i) * 10 * time.Millisecond)
		p := &collector.Prediction{
			ID: id.String(), Rows: per, ReceivedAt: at, Tenant: "default", Model: "m", Version: "1", Digest: "d", Route: collector.RouteInfer,
			TraceID: fmt.Sprintf("%032x", rng.Int63()), SpanID: fmt.Sprintf("%016x", rng.Int63()), Status: 200, Capture: "full", Weight: 1, SchemaID: s.ID,
			Latency: collector.Stages{Decode: 9000, Model: 20000, Encode: 5000, Total: 50000 + rng.Int63n(10000)},
		}
		for range per {
			for range features {
				p.Features.F32 = append(p.Features.F32, float32(rng.NormFloat64()))
			}
			p.Outputs.F32 = append(p.Outputs.F32, rng.Float32())
			p.Scores = append(p.Scores, float64(p.Outputs.F32[len(p.Outputs.F32)-1]))
			p.Decided = append(p.Decided, "a")
		}
		records = append(records, record(p))
	}
	big := collector.Columns{}
	var scores []float64
	for range 2000 {
		for range features {
			big.F32 = append(big.F32, float32(rng.NormFloat64()))
		}
		scores = append(scores, rng.Float64())
	}
	ref, err := stats.NewReference(collector.StatColumns(s, engine.TaskBinary, big, 2000, scores, nil), "bench")
	if err != nil {
		b.Fatal(err)
	}
	return records, ref
}
