package collector

import (
	"math"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/engine"
)

// RowID returns the id of row r of a request of rows rows.
func RowID(id string, r, rows int) string {
	if rows == 1 {
		return id
	}
	return id + "." + strconv.Itoa(r)
}

// StoredRows returns the rows of p as the API shows them.
func StoredRows(p *Prediction, s *Schema) []StoredPrediction {
	out := make([]StoredPrediction, p.Rows)
	for r := range out {
		raw := RawRow{SchemaID: p.SchemaID, Features: p.Features.Row(r, p.Rows), Outputs: p.Outputs.Row(r, p.Rows), Score: math.NaN()}
		if r < len(p.Scores) {
			raw.Score = p.Scores[r]
		}
		if r < len(p.Decided) {
			raw.Decided = p.Decided[r]
		}
		features, outputs := RowMaps(s, raw)
		out[r] = StoredPrediction{
			ID: RowID(p.ID, r, p.Rows), Time: oneOrEach(p.Times, r), ReceivedAt: p.ReceivedAt,
			Model: p.Model, Version: p.Version, TraceID: p.TraceID,
			Features: features, Outputs: outputs, Status: p.Status, Error: p.Error,
			LatencyMS: p.Latency.Milliseconds(), Labels: []StoredLabel{},
			Digest: p.Digest, Route: p.Route, SpanID: p.SpanID,
			ExternalID: p.ExternalID(r), Capture: p.Capture, Attempts: p.Attempts, Raw: raw,
		}
		if p.Weight != 1 {
			out[r].Weight = p.Weight
		}
		if len(p.Times) == 0 {
			out[r].Time = p.ReceivedAt
		}
	}
	return out
}

// ExternalID is the caller's own id of a row, "" where there is none.
func (p *Prediction) ExternalID(row int) string { return oneOrEach(p.ExternalIDs, row) }

func oneOrEach[T time.Time | string](v []T, r int) T {
	var zero T
	switch {
	case len(v) == 1:
		return v[0]
	case r < len(v):
		return v[r]
	}
	return zero
}

// Milliseconds returns the stages by name, in milliseconds.
func (s Stages) Milliseconds() map[string]float64 {
	return map[string]float64{
		"decode": float64(s.Decode) / 1e6, "model": float64(s.Model) / 1e6, "encode": float64(s.Encode) / 1e6,
		"capture": float64(s.Capture) / 1e6, "total": float64(s.Total) / 1e6,
	}
}

// RowMaps returns a stored row's features and outputs by name. Values are
// float32, float64, int64, uint64, bool or string in their own type, a flat
// list of them for a field that is not one value, and nil for a missing feature
// (NaN, or an empty category). A category's code is shown by its name where the
// schema has names. Numbers that JSON cannot hold are the strings "NaN",
// "Infinity" and "-Infinity". Dropped fields are absent, sealed ones Masked, and both maps are empty
// where nothing was stored.
func RowMaps(s *Schema, row RawRow) (features, outputs map[string]any) {
	return fieldMap(s.Features, &row.Features, true), fieldMap(s.Outputs, &row.Outputs, false)
}

func fieldMap(fields []Field, row *Columns, missing bool) map[string]any {
	m := make(map[string]any, len(fields))
	if row.Empty() {
		return m
	}
	l, err := rowLayout(fields, row)
	if err != nil {
		return m // the row belongs to another schema: nothing true can be said of it
	}
	for i := range fields {
		if !stored(&fields[i]) {
			continue
		}
		m[fields[i].Name] = fieldValue(&fields[i], row, l.spans[i], missing)
	}
	return m
}

func fieldValue(f *Field, row *Columns, sp span, missing bool) any {
	if f.Elements == 1 {
		return elementValue(f, row, sp, 0, missing)
	}
	list := make([]any, sp.n)
	for i := range list {
		list[i] = elementValue(f, row, sp, i, missing)
	}
	return list
}

func elementValue(f *Field, row *Columns, sp span, i int, missing bool) any {
	at := sp.at + i
	switch sp.class {
	case classF32:
		v := row.F32[at]
		if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) || f.Categories != nil {
			return floatValue(f, x, v, missing)
		}
		return v
	case classF64:
		return floatValue(f, row.F64[at], row.F64[at], missing)
	case classI64:
		return integerValue(f, row.I64[at])
	case classStr:
		switch {
		case row.Str[at] == "" && missing:
			return nil
		case f.Private == PrivacySeal:
			return Masked // what is stored opens nothing to whoever reads it here
		}
		return row.Str[at]
	}
	return nil
}

// floatValue shows x, whose own type is that of v.
func floatValue(f *Field, x float64, v any, missing bool) any {
	switch {
	case math.IsNaN(x) && missing:
		return nil
	case math.IsNaN(x):
		return "NaN"
	case math.IsInf(x, 1):
		return "Infinity"
	case math.IsInf(x, -1):
		return "-Infinity"
	case f.Categorical && x >= 0 && x < float64(len(f.Categories)) && x == math.Trunc(x):
		return f.Categories[int(x)]
	}
	return v
}

func integerValue(f *Field, v int64) any {
	switch {
	case f.DType == engine.Bool:
		return v != 0
	case f.Categorical && v >= 0 && v < int64(len(f.Categories)):
		return f.Categories[v]
	case f.DType == engine.Uint64:
		return uint64(v)
	}
	return v
}
