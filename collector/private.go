package collector

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// Masked stands for a value of a masked field that was there.
const Masked = "***"

// TextNotKept stands for a text of a sender's own that may repeat a private value.
const TextNotKept = "not kept, since the model has private fields (capture.texts)"

// transformed reports whether a field's values are stored as something else.
func transformed(f *Field) bool {
	return f.Private == PrivacyMask || f.Private == PrivacyHash || f.Private == PrivacyBucket || f.Private == PrivacySeal
}

func anyTransformed(fields []Field) bool {
	for i := range fields {
		if transformed(&fields[i]) {
			return true
		}
	}
	return false
}

// makePrivate turns a field into what is stored of it.
func makePrivate(f *Field, how Privacy, cfg *ModelConfig) error {
	key := cfg.HashKey
	if err := suits(f, how); err != nil {
		return err
	}
	switch how {
	case PrivacyNone:
		return nil
	case PrivacyDrop:
		f.Elements = 0
	case PrivacyMask:
		f.DType, f.Categorical = engine.String, true
	case PrivacyHash:
		if len(key) < 16 {
			return fmt.Errorf("feature %q: private: hash needs a key of at least 16 bytes", f.Name)
		}
		f.DType, f.Categorical, f.key, f.names = engine.String, true, key, f.Categories
		id := sha256.Sum256(append([]byte("pellucid key id\x00"), key...))
		f.KeyID = hex.EncodeToString(id[:4])
	case PrivacyBucket:
		f.DType = engine.Float64
	case PrivacySeal:
		if cfg.Keys == nil {
			return fmt.Errorf("feature %q: private: seal needs keys (capture.key)", f.Name)
		}
		plain := *f
		f.DType, f.Categorical, f.keys, f.plain = engine.String, true, cfg.Keys, &plain
	default:
		return fmt.Errorf("feature %q: private %q is no policy", f.Name, how)
	}
	// The names of its categories are values too.
	f.Private, f.Categories = how, nil
	return nil
}

// suits tells what a field cannot be private by.
func suits(f *Field, how Privacy) error {
	switch {
	case how == PrivacyNone || how == PrivacyDrop:
	case f.Elements != 1:
		return fmt.Errorf("feature %q is a tensor: only private: drop is possible", f.Name)
	case how == PrivacyBucket && (f.Categorical || f.DType == engine.String):
		return fmt.Errorf("feature %q is categorical: private: bucket is for numbers", f.Name)
	}
	return nil
}

// Suited is what a model takes over from the configuration of another, in which a feature may be
// of another kind: what it cannot be private by, as a text by bucket, is dropped.
func Suited(info *engine.Info, cfg ModelConfig) ModelConfig {
	plain := ModelConfig{Features: slices.Clone(cfg.Features)}
	for i := range plain.Features {
		plain.Features[i].Private = PrivacyNone
	}
	s, err := NewSchema(info, plain)
	if err != nil {
		return cfg // it is told where it is used, or the types are not known yet
	}
	cfg.Features = slices.Clone(cfg.Features)
	for i := range cfg.Features {
		c := &cfg.Features[i]
		if suits(fieldNamed(s.Features, c.Name), c.Private) != nil {
			c.Private = PrivacyDrop
		}
	}
	return cfg
}

// redact replaces the values of transformed fields, before anything is laid out
// to be written. It returns vals where there are none, else one column a field.
func redact(at Scope, fields []Field, vals engine.Values, rows int) (engine.Values, error) {
	if !anyTransformed(fields) {
		return vals, nil
	}
	for i := range fields {
		if t := vals.Get(fields[i].Name); t != nil && transformed(&fields[i]) && !fits(&fields[i], t, rows) {
			return nil, misshapen(&fields[i], t, rows)
		}
	}
	seal, err := sealers(at, fields, rows, func(i int) (*engine.Tensor, error) { return vals.Get(fields[i].Name), nil })
	if err != nil {
		return nil, fmt.Errorf("flatten: %w", err)
	}
	out := make(engine.Values, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if !stored(f) {
			continue
		}
		t := vals.Get(f.Name)
		if t == nil {
			return nil, fmt.Errorf("flatten: no tensor %q", f.Name)
		}
		switch {
		case f.Private == PrivacySeal:
			t, err = sealColumn(f, t, rows, at, seal)
		case transformed(f):
			t, err = redactColumn(f, t)
		}
		if err != nil {
			return nil, fmt.Errorf("flatten: %w", err)
		}
		out = append(out, engine.Named{Name: f.Name, Tensor: t})
	}
	return out, nil
}

// flattenPrivateMatrix is flattenMatrix where columns are transformed.
func flattenPrivateMatrix(at Scope, fields []Field, m *engine.Tensor, rows int) (Columns, error) {
	column := func(i int) (*engine.Tensor, error) { return columnOf(m, i) }
	seal, err := sealers(at, fields, rows, column)
	if err != nil {
		return Columns{}, fmt.Errorf("flatten: %w", err)
	}
	l, err := newLayout(fields, nil) // a matrix has no fields that vary
	if err != nil {
		return Columns{}, fmt.Errorf("flatten: %w", err)
	}
	c := makeColumns(l, rows)
	copyColumns(&c, fields, l, m, rows)
	_, value := elements(m)
	for i := range fields {
		f, sp := &fields[i], l.spans[i]
		switch {
		case !transformed(f):
		case f.Private == PrivacySeal:
			if err := sealEach(f, c.Str[sp.at:], l.width[classStr], value, i, len(fields), rows, at, seal); err != nil {
				return Columns{}, fmt.Errorf("flatten: %w", err)
			}
		default:
			t, err := column(i)
			if err == nil {
				t, err = redactColumn(f, t)
			}
			if err != nil {
				return Columns{}, fmt.Errorf("flatten: %w", err)
			}
			copyField(&c, l, sp, t, rows, false)
		}
	}
	return c, nil
}

// copyColumns copies the columns of a matrix that are stored as they are.
func copyColumns(c *Columns, fields []Field, l *layout, m *engine.Tensor, rows int) {
	switch k := classOf(m.DType()); k {
	case classF32:
		gatherPlain(c.F32, fields, l, k, rows, f32At(m))
	case classF64:
		src := engine.Data[float64](m)
		gatherPlain(c.F64, fields, l, k, rows, func(i int) float64 { return src[i] })
	case classI64:
		gatherPlain(c.I64, fields, l, k, rows, i64At(m))
	case classStr:
		src := engine.Data[string](m)
		gatherPlain(c.Str, fields, l, k, rows, func(i int) string { return src[i] })
	}
}

func gatherPlain[T any](dst []T, fields []Field, l *layout, k class, rows int, at func(int) T) {
	for i := range fields {
		if !stored(&fields[i]) || transformed(&fields[i]) {
			continue
		}
		for r := range rows {
			dst[r*l.width[k]+l.spans[i].at] = at(r*len(fields) + i)
		}
	}
}

// columnOf copies one column of a matrix, in its own type.
func columnOf(t *engine.Tensor, j int) (*engine.Tensor, error) {
	n, width := t.Rows(), t.RowLen()
	if t.DType() == engine.String {
		src, col := engine.Data[string](t), make([]string, n)
		for i := range col {
			col[i] = src[i*width+j]
		}
		return engine.Of(col, n)
	}
	if t.DType() == engine.Float32 {
		src, col := engine.Data[float32](t), make([]float32, n)
		for i := range col {
			col[i] = src[i*width+j]
		}
		return engine.Of(col, n)
	}
	src, ok := t.Float64s()
	if !ok || t.DType() != engine.Float64 {
		return nil, fmt.Errorf("flatten: a matrix of %s cannot have private columns", t.DType())
	}
	col := make([]float64, n)
	for i := range col {
		col[i] = src[i*width+j]
	}
	return engine.Of(col, n)
}

// redactColumn replaces the values of one field. Missing ones stay missing.
func redactColumn(f *Field, t *engine.Tensor) (*engine.Tensor, error) {
	texts := engine.Data[string](t)
	var numbers []float64
	if t.DType() != engine.String {
		var ok bool
		if numbers, ok = t.Float64s(); !ok {
			return nil, fmt.Errorf("tensor %q of %s cannot be private", f.Name, t.DType())
		}
	}
	n := max(len(texts), len(numbers))
	if f.Private == PrivacyBucket {
		out := make([]float64, n)
		for i, x := range numbers {
			out[i] = bucket(x)
		}
		return engine.Of(out, n)
	}
	out := make([]string, n)
	for i := range out {
		value := ""
		switch {
		case texts != nil:
			value = texts[i]
		case !math.IsNaN(numbers[i]):
			value = f.text(numbers[i])
		}
		switch {
		case value == "":
		case f.Private == PrivacyMask:
			out[i] = Masked
		default:
			out[i] = keyed(f, value)
		}
	}
	return engine.Of(out, n)
}

// text is a number as it is hashed: the name of a category where the model has
// names for its codes.
func (f *Field) text(x float64) string {
	if code := int(x); x >= 0 && x < float64(len(f.names)) && float64(code) == x {
		return f.names[code]
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

// keyed is what is stored for a value of a hashed field: the same for the same
// value of the same field under the same key, and nothing else about it.
func keyed(f *Field, value string) string {
	h := hmac.New(sha256.New, f.key)
	h.Write([]byte(f.Name))
	h.Write([]byte{0})
	h.Write([]byte(value))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// bucket rounds toward zero to one significant digit: 54,321 is 50,000.
func bucket(x float64) float64 {
	if x == 0 || math.IsNaN(x) || math.IsInf(x, 0) {
		return x
	}
	digits := strconv.FormatFloat(math.Abs(x), 'e', -1, 64)
	rough, err := strconv.ParseFloat(digits[:1]+digits[strings.IndexByte(digits, 'e'):], 64)
	if err != nil {
		return math.NaN()
	}
	return math.Copysign(rough, x)
}
