package collector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"
)

func samplePrediction() *Prediction {
	return &Prediction{
		ID: "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", Rows: 2,
		ReceivedAt:  time.UnixMilli(1_732_420_000_123).UTC(),
		Times:       []time.Time{time.UnixMicro(1_732_420_000_123_456).UTC(), time.UnixMicro(-5).UTC()},
		ExternalIDs: []string{"a", ""}, Tenant: DefaultTenant, Model: "flights", Version: "1",
		Digest: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Route: RouteInfer,
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7", Status: 200, Error: "no \xff error",
		Capture: "full", Weight: 1, Latency: Stages{Decode: 1, Model: 2_000_000, Encode: -3, Capture: 4, Total: math.MaxInt64},
		SchemaID: "ABCDEF0123", Features: Columns{
			F32: []float32{1, float32(math.Inf(1)), math.Float32frombits(0x7fc12345), -0}, F64: []float64{math.SmallestNonzeroFloat64, math.NaN()},
			I64: []int64{math.MinInt64, math.MaxInt64}, Str: []string{"", "äö"},
		},
		Outputs: Columns{F64: []float64{0.25, 0.75}}, Scores: []float64{0.25, math.NaN()}, Decided: []string{"late", ""},
	}
}

func TestPredictionRoundTrip(t *testing.T) {
	p := samplePrediction()
	b := AppendPrediction([]byte("head"), p)[4:]
	got, err := DecodePrediction(b)
	if err != nil {
		t.Fatal(err)
	}
	// NaN is not equal to itself: compare those by their bytes, the rest by value.
	if again := AppendPrediction(nil, got); !bytes.Equal(again, b) {
		t.Fatalf("encoded again: %x\nfirst: %x", again, b)
	}
	if math.Float32bits(got.Features.F32[2]) != 0x7fc12345 {
		t.Errorf("NaN payload %x", math.Float32bits(got.Features.F32[2]))
	}
	for _, c := range []*Prediction{p, got} {
		c.Features.F32, c.Features.F64, c.Scores = nil, nil, nil
	}
	if !reflect.DeepEqual(p, got) {
		t.Errorf("got %+v\nwant %+v", got, p)
	}
	if id, trace := PayloadKeys(KindPrediction, b); id != p.ID || trace != p.TraceID {
		t.Errorf("keys %q %q", id, trace)
	}
	if n := PayloadRows(KindPrediction, b); n != 2 {
		t.Errorf("rows %d", n)
	}
	p.Attempts = []Attempt{{503, 1.5}, {0, 30000}}
	if q, err := DecodePrediction(AppendPrediction(nil, p)); err != nil || !reflect.DeepEqual(q.Attempts, p.Attempts) {
		t.Errorf("attempts came back as %+v, %v", q, err)
	}
	p.Attempts = nil
	p.FeatureShare = 0.25
	if q, err := DecodePrediction(AppendPrediction(nil, p)); err != nil || q.FeatureShare != 0.25 || q.Label != "" || q.BinsID != "" {
		t.Errorf("the features' share came back as %+v, %v", q, err)
	}
	p.FeatureShare = 0
	p.BinsID, p.Bins = "bins", []uint16{1, 65535, 0, 7}
	if q, err := DecodePrediction(AppendPrediction(nil, p)); err != nil || q.BinsID != p.BinsID || !reflect.DeepEqual(q.Bins, p.Bins) {
		t.Errorf("bins came back as %+v, %v", q, err)
	}
	p.BinsID, p.Bins, p.Label, p.LabelObservedAt = "", nil, "late", time.UnixMicro(1_732_420_000_123_456).UTC()
	if q, err := DecodePrediction(AppendPrediction(nil, p)); err != nil || q.Label != p.Label || !q.LabelObservedAt.Equal(p.LabelObservedAt) || q.BinsID != "" {
		t.Errorf("a label came back as %+v, %v", q, err)
	} else if !q.LabelArrival.Equal(p.ReceivedAt) {
		t.Errorf("a label of an earlier version arrived at %s, received at %s", q.LabelArrival, p.ReceivedAt)
	}
	p.LabelArrival = p.ReceivedAt.Add(7 * time.Microsecond)
	if q, err := DecodePrediction(AppendPrediction(nil, p)); err != nil || q.Label != p.Label || !q.LabelArrival.Equal(p.LabelArrival) {
		t.Errorf("a label came back as %+v, %v", q, err)
	}
}

// TestArrivalsGrow: whatever the clock does, and from many goroutines at once, what
// comes later is later.
func TestArrivalsGrow(t *testing.T) {
	var a Arrivals
	at := time.UnixMilli(1_732_420_000_123)
	last := a.Next(at)
	if !last.Equal(at) {
		t.Errorf("the first at %s, the clock says %s", last, at)
	}
	for _, now := range []time.Time{at, at, at.Add(-time.Hour), at.Add(time.Microsecond), at.Add(time.Minute), at} {
		next := a.Next(now)
		if !next.After(last) || next.Before(now.Truncate(time.Microsecond)) {
			t.Errorf("%s after %s, the clock says %s", next, last, now)
		}
		last = next
	}
	var (
		wg   sync.WaitGroup
		seen sync.Map
	)
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, twice := seen.LoadOrStore(a.Next(at), true); twice {
					t.Error("one arrival twice")
				}
			}
		})
	}
	wg.Wait()
}

func TestFeedbackRoundTrip(t *testing.T) {
	f := &Feedback{
		PredictionID: "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b.3", Tenant: DefaultTenant, Model: "m", Label: "late",
		ObservedAt: time.UnixMicro(1).UTC(), ReceivedAt: time.UnixMicro(2_000_000_000_000_000).UTC(), Arrival: time.UnixMicro(2_000_000_000_000_003).UTC(),
	}
	b := AppendFeedback(nil, f)
	got, err := DecodeFeedback(b)
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if id, _ := PayloadKeys(KindFeedback, b); id != f.PredictionID {
		t.Errorf("key %q", id)
	}
	earlier := *f
	earlier.Arrival = time.Time{}
	if b = AppendFeedback(nil, &earlier); b[0] != 1 {
		t.Errorf("version %d", b[0])
	}
	if got, err = DecodeFeedback(b); err != nil || !got.Arrival.Equal(f.ReceivedAt) {
		t.Errorf("a label of version 1: %+v, %v", got, err)
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	b := AppendPrediction(nil, samplePrediction())
	for n := range b {
		if _, err := DecodePrediction(b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := DecodePrediction(append(b[:len(b):len(b)], 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	newer := bytes.Clone(b)
	newer[0] = PredictionVersion + 1
	if _, err := DecodePrediction(newer); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Errorf("newer version: %v", err)
	}
	huge := binary.AppendUvarint([]byte{PredictionVersion}, math.MaxUint64)
	if _, err := DecodePrediction(huge); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too many rows: %v", err)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	p := samplePrediction()
	dst := AppendPrediction(nil, p)
	if n := testing.AllocsPerRun(100, func() { dst = AppendPrediction(dst[:0], p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStringsOfEveryForm(t *testing.T) {
	for _, s := range []string{
		"", "a", "abcdef0", "abcdef01", "ABCDEF01", "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "0193A1B2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
		"0193a1b2xc3d4-7e5f-8a9b-0c1d2e3f4a5b", "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5g", string(make([]byte, 300)),
	} {
		r := &reader{b: appendString(nil, s)}
		if got := r.string(); got != s || r.end("string") != nil {
			t.Errorf("%q became %q, %v", s, got, r.err)
		}
	}
}

// zeroArrival returns b, whose last value is an arrival of 0 us, with the zero time there.
func zeroArrival(b []byte) []byte {
	return binary.AppendVarint(b[:len(b)-1], time.Time{}.UnixMicro())
}

func FuzzPayloads(f *testing.F) {
	f.Add(AppendPrediction(nil, samplePrediction()))
	binned := samplePrediction()
	binned.BinsID, binned.Bins = "e3b0c442", []uint16{1, 65535, 0, 7}
	f.Add(AppendPrediction(nil, binned))
	binned.Label, binned.LabelObservedAt = "1", time.UnixMicro(1_732_420_000_123_456)
	f.Add(AppendPrediction(nil, binned))
	f.Add(AppendFeedback(nil, &Feedback{ExternalID: "x"}))
	f.Add(zeroArrival(AppendFeedback(nil, &Feedback{ReceivedAt: time.UnixMilli(1), Arrival: time.UnixMicro(0)})))
	f.Add(zeroArrival(AppendPrediction(nil, &Prediction{Label: "1", ReceivedAt: time.UnixMilli(1), LabelArrival: time.UnixMicro(0)})))
	f.Add([]byte(`{"features":[{"name":"a","dtype":13,"elements":-1,"shape":[-1]}],"outputs":null}`))
	shared := &Decoder{}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePrediction(b)
		if q, qerr := shared.Prediction(b); (err == nil) != (qerr == nil) {
			t.Fatalf("alone: %v, with a decoder: %v", err, qerr)
		} else if err == nil && !bytes.Equal(AppendPrediction(nil, p), AppendPrediction(nil, q)) {
			t.Fatalf("alone %+v, with a decoder %+v", p, q)
		}
		if err == nil {
			first := AppendPrediction(nil, p)
			q, err := DecodePrediction(first)
			if err != nil {
				t.Fatalf("what was encoded cannot be decoded: %v", err)
			}
			if !bytes.Equal(first, AppendPrediction(nil, q)) {
				t.Fatal("the second encoding differs")
			}
		}
		if l, err := DecodeFeedback(b); err == nil {
			if m, err := DecodeFeedback(AppendFeedback(nil, l)); err != nil || !reflect.DeepEqual(l, m) {
				t.Fatalf("feedback %+v became %+v, %v", l, m, err)
			}
		}
		for k := KindPrediction; k <= KindSchema; k++ {
			PayloadKeys(k, b)
			PayloadRows(k, b)
		}
		s, err := DecodeSchema(b)
		if err != nil {
			return
		}
		enc, err := EncodeSchema(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeSchema(enc); err != nil || again.ID != s.ID {
			t.Fatalf("schema %v, %v", again, err)
		}
		fieldMap(s.Features, &Columns{F32: []float32{1}, I64: []int64{2, 3}, Str: []string{"x"}}, true)
	})
}

// TestDecoderKeepsPredictionsApart: what is cut from one slab must not overlap, nor
// what is in common change.
func TestDecoderKeepsPredictionsApart(t *testing.T) {
	d := &Decoder{}
	r := rand.New(rand.NewPCG(1, 1))
	var want [][]byte
	var got []*Prediction
	for i := range 3000 {
		p := samplePrediction()
		p.Model, p.Error, p.ID = fmt.Sprint("m", r.IntN(7)), string(make([]byte, r.IntN(3000))), fmt.Sprintf("%036x", i)
		p.Features.F32 = make([]float32, r.IntN(2000))
		for k := range p.Features.F32 {
			p.Features.F32[k] = r.Float32()
		}
		p.Features.Str, p.Decided = []string{fmt.Sprint(i)}, []string{fmt.Sprint("c", i%3), "x"}
		b := AppendPrediction(nil, p)
		q, err := d.Prediction(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b[:0:len(b)])
		want, got = append(want, AppendPrediction(nil, p)), append(got, q)
	}
	for i := range got {
		if !bytes.Equal(AppendPrediction(nil, got[i]), want[i]) {
			t.Fatalf("prediction %d became another", i)
		}
	}
	b := AppendPrediction(nil, samplePrediction())
	if n := testing.AllocsPerRun(1000, func() { _, _ = d.Prediction(b) }); n > 1 {
		t.Errorf("%v allocations a prediction", n)
	}
}

func BenchmarkDecodePrediction(b *testing.B) {
	p := samplePrediction()
	p.Rows, p.Times, p.ExternalIDs, p.Features = 1, p.Times[:1], nil, Columns{F32: make([]float32, 30)}
	src, d := AppendPrediction(nil, p), &Decoder{}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = DecodePrediction(src)
		}
	})
	b.Run("decoder", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = d.Prediction(src)
		}
	})
}

func BenchmarkAppendPrediction(b *testing.B) {
	p := samplePrediction()
	p.Rows, p.Times, p.ExternalIDs, p.Features = 1, p.Times[:1], nil, Columns{F32: make([]float32, 30)}
	for i := range p.Features.F32 {
		p.Features.F32[i] = rand.Float32()
	}
	dst := AppendPrediction(nil, p)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendPrediction(dst[:0], p)
	}
}
