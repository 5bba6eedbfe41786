package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// tape is a spool in memory that can be full.
type tape struct {
	mu      sync.Mutex
	records []collector.Record
	err     error
}

func (s *tape) append(_ context.Context, r collector.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	r.Payload = bytes.Clone(r.Payload) // Append must not keep it
	s.records = append(s.records, r)
	return nil
}

type rig struct {
	*Capturer
	tape   *tape
	meter  *metric.ManualReader
	spans  *tracetest.InMemoryExporter
	config Config
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{tape: &tape{}, meter: metric.NewManualReader(), spans: tracetest.NewInMemoryExporter()}
	r.config = Config{
		Append: r.tape.append, MeterProvider: metric.NewMeterProvider(metric.WithReader(r.meter)),
		TracerProvider: trace.NewTracerProvider(trace.WithSyncer(r.spans)),
	}
	if change != nil {
		change(&r.config)
	}
	c, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.Capturer = c
	return r
}

// lost sums the counter of lost records.
func (r *rig) lost(t *testing.T) int64 { return r.counted(t, "ml.capture.lost") }

// counted sums a counter.
func (r *rig) counted(t *testing.T, name string) (n int64) {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := r.meter.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range sum.DataPoints {
					n += p.Value
				}
			}
		}
	}
	return n
}

// version is a model of a number and a text, of which private are dropped.
func version(t *testing.T, private ...string) *collector.ModelVersion {
	t.Helper()
	info := &engine.Info{
		Task: engine.TaskBinary, Missing: true,
		Inputs:   []engine.Spec{{Name: "age", DType: engine.Float32, Shape: []int{-1, 1}}, {Name: "city", DType: engine.String, Shape: []int{-1, 1}}},
		Outputs:  []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
		Features: []engine.Feature{{Name: "age"}, {Name: "city", Categorical: true}},
	}
	var cfg collector.ModelConfig
	for _, p := range private {
		cfg.Features = append(cfg.Features, collector.FeatureConfig{Name: p, Private: collector.PrivacyDrop})
	}
	s, err := collector.NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &collector.ModelVersion{Name: "m", Version: "1", Digest: strings.Repeat("a", 64), Info: info, Schema: s, Config: cfg}
}

func tensors(t *testing.T, ages []float32, cities []string) engine.Values {
	t.Helper()
	a, err := engine.Of(ages, len(ages), 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := engine.Of(cities, len(cities), 1)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: "age", Tensor: a}, {Name: "city", Tensor: c}}
}

func answer(t *testing.T, p ...float32) engine.Values {
	t.Helper()
	x, err := engine.Of(p, len(p))
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: "prediction", Tensor: x}}
}

func prediction(rows int) *collector.Prediction {
	return &collector.Prediction{
		ID: "0190a0b0-0000-7000-8000-000000000001", Rows: rows, Model: "m", Version: "1", Status: 200,
		Tenant: collector.DefaultTenant, TraceID: strings.Repeat("1", 32), ReceivedAt: time.Now(), Times: []time.Time{time.Now()},
	}
}

func (s *tape) only(t *testing.T, kind collector.Kind) collector.Record {
	t.Helper()
	var found []collector.Record
	for _, r := range s.records {
		if r.Kind == kind {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d records of kind %d", len(found), kind)
	}
	return found[0]
}

func TestPredictionIsRecordedAsItWas(t *testing.T) {
	r, v := newRig(t, nil), version(t)
	p := prediction(2)
	ages, cities := []float32{41.5, float32(math.NaN())}, []string{"Oslo", ""}
	if err := r.Prediction(t.Context(), p, v, tensors(t, ages, cities), answer(t, 0.25, 0.75)); err != nil {
		t.Fatal(err)
	}
	if r.tape.records[0].Kind != collector.KindSchema {
		t.Fatal("the schema is not before the prediction")
	}
	rec := r.tape.only(t, collector.KindPrediction)
	got, err := collector.DecodePrediction(rec.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if rec.ID != p.ID || rec.TraceID != p.TraceID || got.Capture != "full" || got.SchemaID != v.Schema.ID || got.Weight != 1 || got.Latency.Capture <= 0 {
		t.Errorf("recorded %+v", got)
	}
	if math.Float32bits(got.Features.F32[0]) != math.Float32bits(ages[0]) || math.Float32bits(got.Features.F32[1]) != math.Float32bits(ages[1]) || got.Features.Str[0] != "Oslo" {
		t.Errorf("features %+v", got.Features)
	}
	if len(got.Scores) != 2 || math.Abs(got.Scores[1]-0.75) > 1e-7 || got.Decided[0] == got.Decided[1] {
		t.Errorf("scores %v, decided %v", got.Scores, got.Decided)
	}
	if err := r.Prediction(t.Context(), prediction(1), v, tensors(t, ages[:1], cities[:1]), answer(t, 1)); err != nil {
		t.Fatal(err)
	}
	r.tape.only(t, collector.KindSchema) // once a process
}

// TestDroppedFieldsAreNotEncoded looks for the values of dropped fields in every
// byte that leaves the room: records, spans, errors.
func TestDroppedFieldsAreNotEncoded(t *testing.T) {
	const secret = "QXSECRETQX"
	number := float32(123456.703125)
	r, v := newRig(t, nil), version(t, "age", "city")
	p := prediction(1)
	p.Error = "nothing of it"
	if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{number}, []string{secret}), answer(t, 0.5)); err != nil {
		t.Fatal(err)
	}
	wrong := tensors(t, []float32{number, 1}, []string{secret, secret})
	err := r.Prediction(t.Context(), prediction(3), version(t, "age"), wrong, nil)
	if err == nil || r.lost(t) != 0 {
		t.Fatalf("rows that do not fit: %v, %d lost", err, r.lost(t))
	}
	said := fmt.Sprintf("%v %+v", err, r.spans.GetSpans())
	for _, rec := range r.tape.records {
		said += string(rec.Payload)
	}
	raw := string(binary.LittleEndian.AppendUint32(nil, math.Float32bits(number)))
	for _, leak := range []string{secret, "123456.7", raw} {
		if strings.Contains(said, leak) {
			t.Errorf("%q leaves the room", leak)
		}
	}
	if len(r.spans.GetSpans()) == 0 {
		t.Error("no span to look at")
	}
}

func TestFullSpool(t *testing.T) {
	for choice, refused := range map[OnFull]bool{OnFullReject: true, OnFullServe: false, "": true} {
		r, v := newRig(t, func(c *Config) { c.OnFull = choice }), version(t)
		r.tape.err = fmt.Errorf("append: %w", collector.ErrFull)
		p := prediction(1)
		err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1}, []string{"a"}), answer(t, 1))
		if (err != nil) != refused || err != nil && !errors.Is(err, collector.ErrFull) {
			t.Errorf("on_full %q: %v", choice, err)
		}
		// What was not answered is not lost.
		lost := map[bool]int64{true: 0, false: 1}[refused]
		if p.Capture != "none" || r.lost(t) != lost {
			t.Errorf("on_full %q: capture %q, %d lost", choice, p.Capture, r.lost(t))
		}
		// A label is all its sender has: it is never lost in silence.
		if err := r.Feedback(t.Context(), &collector.Feedback{PredictionID: p.ID, Label: "1"}); !errors.Is(err, collector.ErrFull) {
			t.Errorf("on_full %q: feedback %v", choice, err)
		}
		if r.lost(t) != lost {
			t.Errorf("on_full %q: a label that was refused is counted as lost", choice)
		}
		// The answer of one that failed goes out all the same.
		failed := prediction(1)
		failed.Status, failed.Answered = 500, true
		if err := r.Prediction(t.Context(), failed, v, nil, nil); (err != nil) != refused || r.lost(t) != lost+1 {
			t.Errorf("on_full %q: a failed one: %v, %d lost", choice, err, r.lost(t))
		}
		// Of a batch every row is lost.
		batch := prediction(3)
		err = r.Prediction(t.Context(), batch, v, tensors(t, []float32{1, 2, 3}, []string{"a", "b", "c"}), answer(t, 1, 0, 1))
		if rows := r.counted(t, "ml.capture.lost.rows"); (err != nil) != refused || r.lost(t) != 2*lost+1 || rows != 4*lost+1 {
			t.Errorf("on_full %q: a batch: %v, %d lost of %d rows", choice, err, r.lost(t), rows)
		}
		// Once there is room again the schema comes first, though its first try failed.
		r.tape.err = nil
		if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1}, []string{"a"}), answer(t, 1)); err != nil || p.Capture != "full" {
			t.Errorf("with room again: %v, %q", err, p.Capture)
		}
		if r.tape.records[0].Kind != collector.KindSchema {
			t.Error("no schema before the prediction")
		}
	}
	// Another failure is no choice of the operator's.
	r, v := newRig(t, func(c *Config) { c.OnFull = OnFullServe }), version(t)
	r.tape.err = errors.New("input/output error")
	if err := r.Prediction(t.Context(), prediction(1), v, tensors(t, []float32{1}, []string{"a"}), answer(t, 1)); err == nil {
		t.Error("a failing disk was served over")
	}
}

func TestWhatIsStoredOfARequest(t *testing.T) {
	v := version(t)
	long := strings.Repeat("x", 100)
	f := func(name string, maxBytes int, in, out engine.Values, want string, features, outputs bool) {
		t.Helper()
		r := newRig(t, func(c *Config) { c.MaxBytes = maxBytes })
		p := prediction(1)
		if err := r.Prediction(t.Context(), p, v, in, out); err != nil {
			t.Fatal(err)
		}
		got, err := collector.DecodePrediction(r.tape.only(t, collector.KindPrediction).Payload)
		if err != nil {
			t.Fatal(err)
		}
		if got.Capture != want || got.Features.Empty() == features || got.Outputs.Empty() == outputs {
			t.Errorf("%s: capture %q, features %+v, outputs %+v", name, got.Capture, got.Features, got.Outputs)
		}
	}
	in := func() engine.Values { return tensors(t, []float32{1}, []string{long}) }
	f("whole", 0, in(), answer(t, 1), "full", true, true)
	f("over the limit", 50, in(), answer(t, 1), "cut", false, true)
	f("no limit", -1, in(), answer(t, 1), "full", true, true)
	f("failed before its inputs were read", 0, nil, nil, "none", false, false)
	f("failed in the model", 0, in(), nil, "full", true, false)
	f("outputs of another shape than the declared", 0, in(), answer(t, 1, 2, 3), "full", true, true)
	f("no value where one is declared", 0, in(), answer(t), "full", true, true)
	f("inputs that are no rows of each other", 0, tensors(t, []float32{1, 2}, []string{long}), answer(t, 1), "full", true, true)
	f("neither", 0, tensors(t, []float32{1, 2}, []string{long}), answer(t, 1, 2), "full", true, true)
	masked, err := collector.NewSchema(v.Info, collector.ModelConfig{Features: []collector.FeatureConfig{{Name: "age", Private: collector.PrivacyMask}}})
	if err != nil {
		t.Fatal(err)
	}
	v = &collector.ModelVersion{Name: "m", Version: "1", Digest: v.Digest, Info: v.Info, Schema: masked}
	f("masked inputs that are no rows of each other", 0, tensors(t, []float32{1, 2}, []string{long}), answer(t, 1), "full", true, true)
}

// TestOtherShapes: what is as many rows as were asked for is cut into them, and anything
// else is kept with each.
func TestOtherShapes(t *testing.T) {
	r, v := newRig(t, nil), version(t)
	for _, c := range []struct {
		shape []int
		want  [2]string
	}{
		{[]int{2, 3}, [2]string{"[0 1 2]", "[3 4 5]"}},
		{[]int{3}, [2]string{"[0 1 2]", "[0 1 2]"}},
		{[]int{1, 1, 4}, [2]string{"[0 1 2 3]", "[0 1 2 3]"}},
		{[]int{0, 7}, [2]string{"[]", "[]"}},
		{[]int{2, 0}, [2]string{"[]", "[]"}},
		{nil, [2]string{"0", "0"}},
	} {
		x, err := engine.New(engine.Float32, c.shape...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range engine.Data[float32](x) {
			engine.Data[float32](x)[i] = float32(i)
		}
		p := prediction(2)
		if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1, 2}, []string{"a", "b"}), engine.Values{{Name: "prediction", Tensor: x}}); err != nil {
			t.Fatal(err)
		}
		schema := r.Schema(p.SchemaID)
		if p.Capture != "full" || schema == nil || !schema.SameFeatures(v.Schema) {
			t.Fatalf("%v: capture %q, schema %+v", c.shape, p.Capture, schema)
		}
		rows := collector.StoredRows(p, schema)
		for i := range rows {
			if got := fmt.Sprint(rows[i].Outputs["prediction"]); got != c.want[i] || rows[i].Features["city"] != []string{"a", "b"}[i] {
				t.Errorf("%v: row %d is %v -> %v, want %s", c.shape, i, rows[i].Features, got, c.want[i])
			}
		}
	}
}

// TestOtherShapesAreBounded: what a model may have recorded by answering in ever other
// shapes, and by answering many rows with one large thing, has an end.
func TestOtherShapesAreBounded(t *testing.T) {
	r, v := newRig(t, func(c *Config) { c.MaxBytes = 500 }), version(t)
	v.Info.Outputs, v.Info.Task = nil, engine.TaskOther
	for i := range 12 {
		v.Info.Outputs = append(v.Info.Outputs, engine.Spec{Name: fmt.Sprint("o", i), DType: engine.Float32, Shape: []int{-1, 2}})
	}
	s, err := collector.NewSchema(v.Info, collector.ModelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	v.Schema = s
	shaped := func(rows, bits int) string {
		t.Helper()
		var out engine.Values
		for i := range 12 {
			x, err := engine.New(engine.Float32, slices.Repeat([]int{3}, 1+bits>>i&1)...)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, engine.Named{Name: fmt.Sprint("o", i), Tensor: x})
		}
		p := prediction(rows)
		if err := r.Prediction(t.Context(), p, v, tensors(t, make([]float32, rows), make([]string, rows)), out); err != nil {
			t.Fatal(err)
		}
		return p.Capture
	}
	counts := map[string]int{}
	for bits := range 300 {
		counts[shaped(1, bits)]++
	}
	if counts["full"] != maxShaped || counts["inputs"] != 300-maxShaped || shaped(1, 0) != "full" || shaped(1, 299) != "inputs" {
		t.Errorf("%v", counts)
	}
	if got := shaped(4, 0); got != "inputs" {
		t.Errorf("144 bytes four times where 500 may be kept: %q", got)
	}
}

// TestLargeOutputsAreLeftOut: the answer is given, its features are kept, and what is
// not is said, up to what no record could hold.
func TestLargeOutputsAreLeftOut(t *testing.T) {
	for _, c := range []struct {
		limit, width int
		want         string
	}{{1000, 250, "full"}, {1000, 251, "inputs"}, {0, 1 << 18, "full"}, {0, 1<<18 + 1, "inputs"}, {-1, 1 << 20, "full"}, {-1, 20 << 20, "inputs"}, {1 << 30, 20 << 20, "inputs"}} {
		r, v := newRig(t, func(k *Config) { k.MaxBytes = c.limit }), version(t)
		v.Info.Outputs, v.Info.Task = []engine.Spec{{Name: "o", DType: engine.Float32, Shape: []int{-1, c.width}}}, engine.TaskOther
		s, err := collector.NewSchema(v.Info, collector.ModelConfig{})
		if err != nil {
			t.Fatal(err)
		}
		v.Schema = s
		x, err := engine.New(engine.Float32, 1, c.width)
		if err != nil {
			t.Fatal(err)
		}
		p := prediction(1)
		if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1}, []string{"a"}), engine.Values{{Name: "o", Tensor: x}}); err != nil {
			t.Fatal(err)
		}
		got, err := collector.DecodePrediction(r.tape.only(t, collector.KindPrediction).Payload)
		if err != nil {
			t.Fatal(err)
		}
		if p.Capture != c.want || got.Capture != c.want || got.Features.Empty() || got.Outputs.Empty() != (c.want == "inputs") {
			t.Errorf("%d elements where %d bytes may be kept: %s", c.width, c.limit, got.Capture)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	r, v := newRig(t, func(c *Config) { c.MaxError = 10 }), version(t)
	for text, want := range map[string]string{
		"short": "short", "exactly 10": "exactly 10", "äöüäöüäöü": "äöüäö", "12345678\xff\xff9": "12345678", "": "",
	} {
		p := prediction(1)
		p.Error, p.Status = text, 400
		if err := r.Prediction(t.Context(), p, v, nil, nil); err != nil {
			t.Fatal(err)
		}
		if p.Error != want || !utf8.ValidString(p.Error) || len(p.Error) > 10 {
			t.Errorf("%q became %q, want %q", text, p.Error, want)
		}
	}
}

func TestExplanationOfPrivateVersionIsRefused(t *testing.T) {
	r, v := newRig(t, nil), version(t, "age")
	if err := r.Prediction(t.Context(), prediction(1), v, tensors(t, []float32{1}, []string{"a"}), answer(t, 1)); err != nil {
		t.Fatal(err)
	}
	e := &collector.Explanation{Model: "m", Version: "1", Attributions: []collector.Attribution{{Feature: "city", Value: "a", Phi: 1}}}
	if err := r.Explanation(t.Context(), e); !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), "age") {
		t.Errorf("got %v", err)
	}
	e.Model = "other"
	if err := r.Explanation(t.Context(), e); err != nil {
		t.Error(err)
	}
	r.tape.only(t, collector.KindExplanation)
}

// TestSchemaIsFirstForEveryone: of many first requests at once, none is recorded
// before the schema, which is recorded once.
func TestSchemaIsFirstForEveryone(t *testing.T) {
	r, v := newRig(t, nil), version(t)
	var wg sync.WaitGroup
	for range 32 {
		in, out := tensors(t, []float32{1}, []string{"a"}), answer(t, 1)
		wg.Go(func() {
			if err := r.Prediction(context.Background(), prediction(1), v, in, out); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r.tape.only(t, collector.KindSchema); r.tape.records[0].Kind != collector.KindSchema || len(r.tape.records) != 33 {
		t.Errorf("%d records, the first of kind %d", len(r.tape.records), r.tape.records[0].Kind)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("without Append")
	}
	if _, err := New(Config{Append: (&tape{}).append, OnFull: "hope"}); err == nil {
		t.Error("an unknown on_full")
	}
}

// brokenKeys are keys that cannot be had.
type brokenKeys struct{ collector.Keyring }

func (brokenKeys) Sealers(string, []string) ([]collector.Sealer, error) {
	return nil, errors.New("the file of keys is damaged")
}

// TestSealingThatFailsRecordsNothing: what cannot be sealed is neither recorded nor
// answered, whatever a full spool would do.
func TestSealingThatFailsRecordsNothing(t *testing.T) {
	r := newRig(t, func(c *Config) { c.OnFull = OnFullServe })
	v := version(t)
	s, err := collector.NewSchema(v.Info, collector.ModelConfig{Keys: brokenKeys{}, Features: []collector.FeatureConfig{{Name: "city", Private: collector.PrivacySeal}}})
	if err != nil {
		t.Fatal(err)
	}
	v.Schema = s
	p := prediction(1)
	err = r.Prediction(t.Context(), p, v, tensors(t, []float32{1}, []string{"Oslo"}), answer(t, 0.5))
	if err == nil || !strings.Contains(err.Error(), "damaged") || len(r.tape.records) != 0 || r.lost(t) != 0 || !p.Features.Empty() {
		t.Errorf("%v, %d records, %+v", err, len(r.tape.records), p.Features)
	}
}

// TestIDsOfSendersAreNotOnSpans: an erasure finds spans by their traces, and an id that a sender
// chose may name a person.
func TestIDsOfSendersAreNotOnSpans(t *testing.T) {
	const theirs, ours = "patient-jane-roe", "01930b4e-7f2a-7c11-8a22-0123456789ab"
	for id, want := range map[string]bool{theirs: false, ours: true} {
		r, v := newRig(t, nil), version(t, "age", "city")
		p := prediction(1)
		p.ID = id
		if err := r.Prediction(t.Context(), p, v, tensors(t, []float32{1}, []string{"x"}), answer(t, 0.5)); err != nil {
			t.Fatal(err)
		}
		spans := r.spans.GetSpans()
		if len(spans) == 0 || strings.Contains(fmt.Sprintf("%+v", spans), id) != want {
			t.Errorf("%s: spans %+v", id, spans)
		}
	}
}
