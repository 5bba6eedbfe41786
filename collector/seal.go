package collector

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// Scope says whose rows are laid out. Sealed values are bound to it and open in no
// other.
type Scope struct{ Tenant, Model string }

// Keyring holds the keys of sealed fields; collector/keys has the one there is. It is
// safe for concurrent use.
type Keyring interface {
	// Sealers returns what seals the values of rows, one a subject; an empty subject
	// stands for the tenant itself. The keys are on disk when it returns.
	Sealers(tenant string, subjects []string) ([]Sealer, error)
	// Open returns the value that was sealed for a field. Its error wraps ErrForgotten
	// where the key was deleted.
	Open(at Scope, field, sealed string) ([]byte, error)
	// Secret returns 32 bytes that are the tenant's for ever.
	Secret(tenant string) ([]byte, error)
}

// KeysError says that the keys of sealed fields cannot be had: rows that have some are not
// recorded.
type KeysError struct{ Err error }

func (e *KeysError) Error() string { return "get the keys of sealed fields: " + e.Err.Error() }

// Unwrap returns why.
func (e *KeysError) Unwrap() error { return e.Err }

// Sealer seals the values of one row.
type Sealer interface {
	Seal(model, field string, value []byte) (string, error)
}

// The first byte of a sealed value says what it is.
const (
	sealedF32 = 'f'
	sealedF64 = 'd'
	sealedI64 = 'i'
	sealedU64 = 'u'
	sealedStr = 's'
)

// sealedStep is what the lengths of sealed texts are multiples of, so that a
// length does not tell which of a few texts it is.
const sealedStep = 32

// opened is a value that was sealed, or is about to be.
type opened struct {
	kind byte
	bits uint64
	text string
}

func (v opened) append(dst []byte) []byte {
	switch v.kind {
	case sealedStr:
		dst = append(dst, v.kind)
		dst = binary.AppendUvarint(dst, uint64(len(v.text)))
		dst = append(dst, v.text...)
		for len(dst)%sealedStep != 0 {
			dst = append(dst, 0)
		}
		return dst
	case sealedF32:
		return binary.LittleEndian.AppendUint32(append(dst, v.kind), uint32(v.bits))
	}
	return binary.LittleEndian.AppendUint64(append(dst, v.kind), v.bits)
}

var errSealedForm = errors.New("a sealed value has a form that is not known")

// readOpened is the inverse of append.
func readOpened(b []byte) (opened, error) {
	if len(b) == 0 {
		return opened{}, errSealedForm
	}
	v, rest := opened{kind: b[0]}, b[1:]
	switch v.kind {
	case sealedStr:
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return opened{}, errSealedForm
		}
		v.text = string(rest[k : k+int(n)])
		return v, nil
	case sealedF32:
		if len(rest) != 4 {
			return opened{}, errSealedForm
		}
		v.bits = uint64(binary.LittleEndian.Uint32(rest))
		return v, nil
	case sealedF64, sealedI64, sealedU64:
		if len(rest) != 8 {
			return opened{}, errSealedForm
		}
		v.bits = binary.LittleEndian.Uint64(rest)
		return v, nil
	}
	return opened{}, errSealedForm
}

// number is the value as it is binned; ok is false for a text.
func (v opened) number() (float64, bool) {
	switch v.kind {
	case sealedF32:
		return float64(math.Float32frombits(uint32(v.bits))), true
	case sealedF64:
		return math.Float64frombits(v.bits), true
	case sealedI64:
		return float64(int64(v.bits)), true
	case sealedU64:
		return float64(v.bits), true
	}
	return 0, false
}

// missing reports whether it is a value that is not there, which is never sealed.
func (v opened) missing() bool {
	if v.kind == sealedStr {
		return v.text == ""
	}
	x, _ := v.number()
	return math.IsNaN(x)
}

// elements reads a tensor of single values as they are sealed.
func elements(t *engine.Tensor) (n int, at func(int) opened) {
	switch classOf(t.DType()) {
	case classStr:
		src := engine.Data[string](t)
		return len(src), func(i int) opened { return opened{kind: sealedStr, text: src[i]} }
	case classF32:
		src := f32At(t)
		return t.Len(), func(i int) opened { return opened{kind: sealedF32, bits: uint64(math.Float32bits(src(i)))} }
	case classF64:
		src := engine.Data[float64](t)
		return len(src), func(i int) opened { return opened{kind: sealedF64, bits: math.Float64bits(src[i])} }
	case classI64:
		src, kind := i64At(t), byte(sealedI64)
		if t.DType() == engine.Uint64 {
			kind = sealedU64
		}
		return t.Len(), func(i int) opened { return opened{kind: kind, bits: uint64(src(i))} }
	}
	return 0, nil
}

// sealColumn seals the values of one field for each of rows rows; a tensor of one
// value is every row's.
func sealColumn(f *Field, t *engine.Tensor, rows int, at Scope, seal []Sealer) (*engine.Tensor, error) {
	n, value := elements(t)
	if n != rows && n != 1 {
		return nil, fmt.Errorf("tensor %q has %d values where %d rows have one each", f.Name, n, rows)
	}
	step := 1
	if n == 1 {
		step = 0
	}
	out := make([]string, rows)
	if err := sealEach(f, out, 1, value, 0, step, rows, at, seal); err != nil {
		return nil, err
	}
	return engine.Of(out, rows)
}

// sealEach seals the values from number from on, every step-th, into every width-th
// place of dst. Missing ones stay missing.
func sealEach(f *Field, dst []string, width int, value func(int) opened, from, step, rows int, at Scope, seal []Sealer) error {
	var space [64]byte
	buf := space[:0]
	for r := range rows {
		v := value(from + r*step)
		if v.missing() {
			continue
		}
		buf = v.append(buf[:0])
		s, err := seal[min(r, len(seal)-1)].Seal(at.Model, f.Name, buf)
		if err != nil {
			return fmt.Errorf("seal feature %q: %w", f.Name, err)
		}
		dst[r*width] = s
	}
	return nil
}

// sealers returns what seals the values of each row, or of all rows where there is
// one only; none where no field is sealed. The subject is read, as column number i,
// before anything of it is taken out.
func sealers(at Scope, fields []Field, rows int, column func(i int) (*engine.Tensor, error)) ([]Sealer, error) {
	sealed, subject := false, -1
	for i := range fields {
		sealed = sealed || fields[i].Private == PrivacySeal
		if fields[i].Subject {
			subject = i
		}
	}
	if !sealed {
		return nil, nil
	}
	subjects := []string{""}
	if subject >= 0 {
		t, err := column(subject)
		if err != nil {
			return nil, err
		}
		if subjects, err = subjectTexts(&fields[subject], t, rows); err != nil {
			return nil, err
		}
	}
	return sealersFor(at, fields, subjects)
}

func sealersFor(at Scope, fields []Field, subjects []string) ([]Sealer, error) {
	keys := keyringOf(fields)
	if keys == nil {
		return nil, errors.New("a sealed field has no keys here")
	}
	if at.Tenant == "" || at.Model == "" {
		return nil, errors.New("sealed fields are bound to a tenant and a model, and none was said")
	}
	list, err := keys.Sealers(at.Tenant, subjects)
	if err != nil {
		return nil, &KeysError{err}
	}
	return list, nil
}

func keyringOf(fields []Field) Keyring {
	for i := range fields {
		if fields[i].keys != nil {
			return fields[i].keys
		}
	}
	return nil
}

// subjectTexts are the names of the rows' subjects, "" where a row has none.
func subjectTexts(f *Field, t *engine.Tensor, rows int) ([]string, error) {
	if t == nil {
		return nil, fmt.Errorf("no tensor %q, which says whose the row is", f.Name)
	}
	n, value := elements(t)
	if n != rows && n != 1 {
		return nil, fmt.Errorf("tensor %q has %d values where %d rows have one subject each", f.Name, n, rows)
	}
	out := make([]string, n)
	for i := range out {
		switch v := value(i); {
		case v.missing():
		case v.kind == sealedStr:
			out[i] = v.text
		case v.kind == sealedI64:
			out[i] = fmt.Sprint(int64(v.bits))
		case v.kind == sealedU64:
			out[i] = fmt.Sprint(v.bits)
		default:
			x, _ := v.number()
			out[i] = f.subject(x)
		}
	}
	return out, nil
}

// subject is a subject that is a number as people write it: 12345678, not in
// exponents, or the name of a category.
func (f *Field) subject(x float64) string {
	if code := int(x); x >= 0 && x < float64(len(f.names)) && float64(code) == x {
		return f.names[code]
	}
	return stats.CategoryName(x)
}

// SubjectOf is the subject that a value of JSON names, "" where it names none.
func (f *Field) SubjectOf(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return ""
	}
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if _, err := strconv.ParseInt(string(v), 10, 64); err == nil && len(f.names) == 0 {
			return string(v)
		}
		if x, err := v.Float64(); err == nil {
			return f.subject(x)
		}
	}
	return ""
}

// Sealed returns the names of the schema's sealed features.
func (s *Schema) Sealed() []string {
	var out []string
	for i := range s.Features {
		if s.Features[i].Private == PrivacySeal {
			out = append(out, s.Features[i].Name)
		}
	}
	return out
}

// Unsealed returns the schema with its sealed features as the model has them, for
// computing only: it is never stored and has no id. ok is false for a schema that was
// read back, which does not know.
func (s *Schema) Unsealed() (clear *Schema, ok bool) {
	out := &Schema{Features: slices.Clone(s.Features), Outputs: s.Outputs}
	for i := range out.Features {
		if f := &out.Features[i]; f.Private == PrivacySeal {
			if f.plain == nil {
				return nil, false
			}
			*f = *f.plain
		}
	}
	return out, true
}

// Unsealed returns v with its sealed features as the model has them, for computing
// with opened rows, and the names of those features: none where v itself is
// returned.
func (v *ModelVersion) Unsealed() (*ModelVersion, []string) {
	names := v.Schema.Sealed()
	clear, ok := v.Schema.Unsealed()
	if len(names) == 0 || !ok {
		return v, nil
	}
	out := *v
	out.Schema = clear
	out.Config.Features = slices.Clone(v.Config.Features)
	for i := range out.Config.Features {
		if f := &out.Config.Features[i]; f.Private == PrivacySeal {
			f.Private = PrivacyNone
		}
	}
	return &out, names
}

// OpenRow returns a stored row with its sealed values as the model took them, which
// is a row of s.Unsealed(). The error wraps ErrRefused, and names the feature, where
// a value cannot be opened.
func OpenRow(at Scope, s *Schema, row RawRow) (RawRow, error) {
	clear, ok := s.Unsealed()
	if !ok {
		return row, errors.New("open sealed values: the schema does not say what they were")
	}
	if row.Features.Empty() {
		return row, nil
	}
	from, err := rowLayout(s.Features, &row.Features)
	if err != nil {
		return row, fmt.Errorf("open sealed values: %w", err)
	}
	var variable [][]int
	for i := range s.Features {
		if from.spans[i].dims != nil {
			variable = append(variable, from.spans[i].dims)
		}
	}
	to, err := newLayout(clear.Features, func(k int) ([]int, error) { return variable[k], nil })
	if err != nil {
		return row, fmt.Errorf("open sealed values: %w", err)
	}
	out := makeColumns(to, 1)
	for i := range s.Features {
		f := &s.Features[i]
		switch {
		case !stored(f):
		case f.Private == PrivacySeal:
			if err := openInto(&out, to.spans[i], at, f, row.Features.Str[from.spans[i].at]); err != nil {
				return row, err
			}
		default:
			moveSpan(&out, to.spans[i], &row.Features, from.spans[i])
		}
	}
	row.SchemaID, row.Features = "", out
	return row, nil
}

// moveSpan copies a field's values from one row to another.
func moveSpan(dst *Columns, to span, src *Columns, from span) {
	for d, n := range to.dims {
		dst.I64[to.dimsAt+d] = int64(n)
	}
	switch to.class {
	case classF32:
		copy(dst.F32[to.at:to.at+to.n], src.F32[from.at:])
	case classF64:
		copy(dst.F64[to.at:to.at+to.n], src.F64[from.at:])
	case classI64:
		copy(dst.I64[to.at:to.at+to.n], src.I64[from.at:])
	case classStr:
		copy(dst.Str[to.at:to.at+to.n], src.Str[from.at:])
	}
}

// openInto opens one sealed value, "" for a missing one, into its place.
func openInto(dst *Columns, to span, at Scope, f *Field, sealed string) error {
	v, err := openValue(f.keys, at, f.Name, sealed)
	if err != nil {
		return fmt.Errorf("%w: feature %q is sealed: %w", ErrRefused, f.Name, err)
	}
	switch {
	case to.class == classStr && (sealed == "" || v.kind == sealedStr):
		dst.Str[to.at] = v.text
	case to.class == classF32 && sealed == "":
		dst.F32[to.at] = float32(math.NaN())
	case to.class == classF64 && sealed == "":
		dst.F64[to.at] = math.NaN()
	case to.class == classF32 && v.kind == sealedF32:
		dst.F32[to.at] = math.Float32frombits(uint32(v.bits))
	case to.class == classF64 && v.kind == sealedF64:
		dst.F64[to.at] = math.Float64frombits(v.bits)
	case to.class == classI64 && (v.kind == sealedI64 || v.kind == sealedU64):
		dst.I64[to.at] = int64(v.bits)
	default:
		return fmt.Errorf("%w: feature %q was sealed as another type", ErrRefused, f.Name)
	}
	return nil
}

// openValue opens one sealed value; a missing one is the zero opened.
func openValue(keys Keyring, at Scope, field, sealed string) (opened, error) {
	if sealed == "" {
		return opened{}, nil
	}
	if keys == nil {
		return opened{}, errors.New("there are no keys here")
	}
	b, err := keys.Open(at, field, sealed)
	if err != nil {
		return opened{}, err
	}
	return readOpened(b)
}
