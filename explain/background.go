package explain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// background is a set of rows in the model's canonical inputs.
type background struct {
	rows   engine.Values
	digest string
}

// defaultBackground is the name requests give the version's own background.
const defaultBackground = "default"

// requestShare is the part of Config.MaxBackgroundRows a request may bring.
const requestShare = 1000

func hasBackground(v *collector.ModelVersion) bool {
	if v.Background == nil {
		return false
	}
	_, _, ok := v.Background()
	return ok
}

// background returns the set that the request or, failing it, model.yaml asks
// for. needed says that the method has no basis without one; then the version's
// default serves whether named or not. It is nil when none is asked for.
func (x *Explainer) background(v *collector.ModelVersion, req collector.ExplainRequest, needed bool) (*background, error) {
	raw := bytes.TrimSpace(req.Background)
	if len(raw) == 0 || string(raw) == "null" {
		if v.Config.Background == "" && !needed {
			return nil, nil //nolint:nilnil // no background is asked for, which is no error
		}
		if bg := x.own(v); bg != nil {
			return bg, x.bounded(bg)
		}
		if needed {
			return nil, nil //nolint:nilnil // the caller says why none is not enough
		}
		return nil, refuse("model.yaml names a background, but it is not loaded: a version with private features keeps no rows")
	}
	if raw[0] == '"' {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return nil, refuse("background is no text: %v", err)
		}
		bg := x.own(v)
		switch {
		case bg == nil:
			return nil, refuse("model %q has no background or reference: bring rows, or name one in model.yaml", v.Name)
		case name != defaultBackground && name != bg.digest:
			return nil, refuse("background %q is not known: this version has %q", clip(name), bg.digest)
		}
		return bg, x.bounded(bg)
	}
	return x.brought(v, raw)
}

// own returns the version's default background.
func (x *Explainer) own(v *collector.ModelVersion) *background {
	if v.Background == nil {
		return nil
	}
	rows, digest, ok := v.Background()
	if !ok || len(rows) == 0 {
		return nil
	}
	return &background{rows: rows, digest: digest}
}

func (x *Explainer) bounded(bg *background) error {
	if n := bg.rows[0].Tensor.Rows(); n == 0 || n > x.config.MaxBackgroundRows {
		return refuse("background of %d rows: between 1 and %d", n, x.config.MaxBackgroundRows)
	}
	return nil
}

// brought binds rows that a request holds: a list of lists, one value a
// feature, null for missing.
func (x *Explainer) brought(v *collector.ModelVersion, raw []byte) (*background, error) {
	var rows [][]any
	if err := json.Unmarshal(raw, &rows); err != nil {
		return nil, refuse("background is neither \"default\", a digest, nor a list of rows")
	}
	limit := max(1, x.config.MaxBackgroundRows/requestShare)
	if len(rows) == 0 || len(rows) > limit {
		return nil, refuse("background of %d rows in a request: between 1 and %d", len(rows), limit)
	}
	m := len(v.Info.Features)
	if m == 0 {
		return nil, refuse("model %q is not tabular: a background cannot be brought as rows", v.Name)
	}
	in := make(engine.Values, m)
	for j := range in {
		t, err := column(rows, j, m)
		if err != nil {
			return nil, refuse("background: %v", err)
		}
		in[j] = engine.Named{Name: featureName(v.Info, j), Tensor: t}
	}
	canonical, err := bindColumns(v.Info, in, len(rows))
	if err != nil {
		return nil, refuse("background: %v", err)
	}
	digest, err := digestOf(canonical)
	if err != nil {
		return nil, refuse("background: %v", err)
	}
	return &background{rows: canonical, digest: digest}, nil
}

// column returns feature j of JSON rows: numbers, or names where any is text.
func column(rows [][]any, j, m int) (*engine.Tensor, error) {
	numbers, names := make([]float64, len(rows)), make([]string, len(rows))
	text := false
	for i, row := range rows {
		if len(row) != m {
			return nil, fmt.Errorf("row %d has %d values, the model has %d features", i, len(row), m)
		}
		switch v := row[j].(type) {
		case float64:
			numbers[i] = v
		case nil:
			numbers[i] = math.NaN()
		case bool:
			if v {
				numbers[i] = 1
			}
		case string:
			names[i], text = v, true
		default:
			return nil, fmt.Errorf("row %d, feature %d: neither number, text nor null", i, j)
		}
	}
	if !text {
		return engine.Of(numbers, len(rows))
	}
	for i, row := range rows {
		if _, ok := row[j].(string); !ok && row[j] != nil {
			return nil, fmt.Errorf("row %d, feature %d: a number among names", i, j)
		}
	}
	return engine.Of(names, len(rows))
}

// bindColumns binds one column a feature. A model of one matrix whose features
// have no names of their own takes the matrix itself.
func bindColumns(info *engine.Info, in engine.Values, n int) (engine.Values, error) {
	if len(info.Inputs) == 1 {
		if whole, ok := joined(in, n); ok {
			t, err := engine.Of(whole, n, len(in))
			if err != nil {
				return nil, err
			}
			in = engine.Values{{Name: info.Inputs[0].Name, Tensor: t}}
		}
	}
	canonical, _, err := engine.Bind(info, in)
	return canonical, err
}

func joined(in engine.Values, n int) ([]float64, bool) {
	whole := make([]float64, n*len(in))
	for j := range in {
		data := engine.Data[float64](in[j].Tensor)
		if data == nil {
			return nil, false
		}
		for i, v := range data {
			whole[i*len(in)+j] = v
		}
	}
	return whole, true
}

// digestOf names rows by their bits: the number of rows and inputs, then every
// value as a float64.
func digestOf(rows engine.Values) (string, error) {
	h := sha256.New()
	var buf []byte
	for i := range rows {
		data, ok := rows[i].Tensor.Float64s()
		if !ok {
			return "", fmt.Errorf("input %q is not numeric", rows[i].Name)
		}
		buf = binary.LittleEndian.AppendUint64(buf[:0], uint64(len(rows)))
		buf = binary.LittleEndian.AppendUint64(buf, uint64(rows[i].Tensor.Rows()))
		for _, v := range data {
			buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
		}
		h.Write(buf)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
