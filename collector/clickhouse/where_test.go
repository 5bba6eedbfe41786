package clickhouse

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// outputsSchema is a schema of outputs of every type, some of which have names of columns.
func outputsSchema(t testing.TB) *collector.Schema {
	t.Helper()
	doc, err := collector.EncodeSchema(&collector.Schema{
		Features: []collector.Field{{Name: "x", DType: engine.Float32, Elements: 1}},
		Outputs: []collector.Field{
			{Name: "verdict", DType: engine.String, Elements: 1},
			{Name: "parts", DType: engine.Float64, Elements: 3, Shape: []int{3}},
			{Name: "score", DType: engine.Float32, Elements: 1},
			{Name: "n", DType: engine.Int64, Elements: 1},
			{Name: "sure", DType: engine.Bool, Elements: 1},
			{Name: "who", DType: engine.String, Elements: 1, Private: collector.PrivacySeal},
			{Name: "gone", DType: engine.String, Private: collector.PrivacyDrop},
			{Name: "boxes", DType: engine.Float32, Elements: collector.Variable, Shape: []int{-1}},
			{Name: "x", DType: engine.Float32, Elements: 1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := collector.DecodeSchema(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFiltersNameOutputs: each output is usable by its name, in the tables and outside of
// them alike, and what is private of them is not.
func TestFiltersNameOutputs(t *testing.T) {
	s, m := open(t), newMaker(t)
	schema := outputsSchema(t)
	doc, err := collector.EncodeSchema(schema)
	if err != nil {
		t.Fatal(err)
	}
	records := []collector.Record{{Kind: collector.KindSchema, Version: collector.SchemaVersion, Payload: doc}}
	var list []*collector.Prediction
	for i := range 12 {
		p := m.prediction(t, 1, base.Add(time.Duration(i)*time.Second))
		v := float64(i)
		p.SchemaID, p.Scores = schema.ID, []float64{100 + v}
		p.Features = collector.Columns{F32: []float32{-1}}
		// One dimension first, then in order; the variable output's values are last.
		p.Outputs = collector.Columns{
			F32: []float32{float32(i) / 8, float32(i), 7}, F64: []float64{v, 2 * v, math.NaN()}, I64: []int64{1, int64(i % 5), int64(i % 2)},
			Str: []string{[]string{"good", "bad", "it's"}[i%3], "sealed"},
		}
		if i == 11 { // sampled out: no features
			p.Features, p.Capture = collector.Columns{}, collector.CaptureSampled
		}
		list = append(list, p)
		records = append(records, record(p))
	}
	write(t, writer(t, s, WriterConfig{}), "b", records...)
	for where, want := range map[string]int{
		"verdict = 'good'": 4, "verdict in ('bad', 'it''s')": 8, "output.verdict != 'good'": 8, `"parts[1]" >= 10`: 7, `"output.parts[0]" = 3`: 1,
		`"parts[2]" is null`: 12, `"parts[2]" != 1`: 0, "n = 4": 2, "n is null": 0, "sure = true": 6, "not sure = 1": 6,
		"score >= 100": 12, "prediction.score < 103": 3, "output.score <= 0.25": 3, "x = -1": 11, "output.x = 3": 1, "output.x >= 11": 1,
		"verdict = 'good' and n < 2 or id = 'none'": 2,
	} {
		q := collector.Query{Tenant: "default", Model: "delay", Where: where}
		if got, err := s.Count(t.Context(), q); err != nil || int(got) != want {
			t.Errorf("%s: %d, want %d, %v", where, got, want, err)
		}
		// Outside of the tables the same is said.
		x, n := Subject{Tenant: "default", Model: "delay", Where: where}, 0
		for _, p := range list {
			r := collector.StoredRows(p, schema)[0]
			v, err := x.Matches(&Outside{
				Features: r.Features, Fields: schema.Features, Outputs: r.Outputs, OutputFields: schema.Outputs, Columns: map[string]any{"score": r.Raw.Score, "id": p.ID},
			})
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if v == Yes {
				n++
			}
		}
		if n != want {
			t.Errorf("%s: %d outside of the tables, want %d", where, n, want)
		}
		half, err := x.Matches(&Outside{Features: map[string]any{"x": -1.0}, OutputFields: schema.Outputs, Columns: map[string]any{"id": "h"}})
		if err != nil || strings.Contains(where, "verdict") && half != Maybe {
			t.Errorf("%s of a request alone: %v, %v", where, half, err)
		}
	}
	for where, want := range map[string]string{
		"parts > 1": `"parts[0]"`, "who = 'ann'": "seal", "boxes = 1": "size varies", "output.nothing = 1": "unknown name", `"parts[3]" = 1`: "unknown name",
		"gone = 'x'": "drop", "verdict > 1 and": "wanted", `"parts[-1]" = 1`: "unknown name", "output.status = 1": "unknown name",
	} {
		if _, err := s.Count(t.Context(), collector.Query{Tenant: "default", Model: "delay", Where: where}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", where, err, want)
		}
	}
}

// TestFiltersTakeClearValues: what a filter names in clear is turned into what is stored,
// and never sent as it is.
func TestFiltersTakeClearValues(t *testing.T) {
	schema := &collector.Schema{ID: "s", Features: []collector.Field{
		{Name: "who", DType: engine.String, Elements: 1, Private: collector.PrivacyHash}, {Name: "note", DType: engine.String, Elements: 1},
	}}
	clear := func(context.Context) (func(*collector.Field, string) ([]string, error), func(string) ([]string, error)) {
		return func(f *collector.Field, v string) ([]string, error) { return []string{"H(" + f.Name + v + ")"}, nil }, nil
	}
	s := open(t)
	s.clear = clear
	s.modelIDs["default\x00m"] = modelSchemas{time.Now().Add(time.Hour), []*collector.Schema{schema}}
	for _, where := range []string{"who = 'ann'", "who in ('ann')", "not who != 'ann'"} {
		sql, args, err := s.conditions(t.Context(), collector.Query{Tenant: "default", Model: "m", Where: where})
		if text := fmt.Sprint(sql, args); err != nil || !strings.Contains(text, "H(whoann)") || strings.Contains(strings.ReplaceAll(text, "whoann", ""), "ann") {
			t.Errorf("%s: %s, %v", where, text, err)
		}
	}
	for _, where := range []string{"who > 'ann'", "who <= 'ann'"} {
		if _, _, err := s.conditions(t.Context(), collector.Query{Tenant: "default", Model: "m", Where: where}); err == nil || strings.Contains(err.Error(), "ann") {
			t.Errorf("%s: %v", where, err)
		}
	}
}
