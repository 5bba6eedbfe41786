package collector

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// Variable is Field.Elements of a field whose number of values a row changes
// from request to request.
const Variable = -1

// NewSchema returns the schema of a model under its configuration.
//
// A tabular model has one field a feature, of one element. Any other model has
// one field an input: a request of n rows where every input's first dimension
// is -1 (see Batched), else a request of one row that is the whole tensor.
// Outputs have one field each. A dropped field keeps its name and type, and
// nothing else.
func NewSchema(info *engine.Info, cfg ModelConfig) (*Schema, error) {
	s := &Schema{}
	var err error
	if info.Features != nil {
		s.Features, err = tabularFields(info)
	} else {
		s.Features, err = tensorFields(info.Inputs, Batched(info), "input")
	}
	if err != nil {
		return nil, fmt.Errorf("make schema: %w", err)
	}
	if s.Outputs, err = tensorFields(info.Outputs, Batched(info), "output"); err != nil {
		return nil, fmt.Errorf("make schema: %w", err)
	}
	if err := applyFeatureConfig(s.Features, cfg); err != nil {
		return nil, fmt.Errorf("make schema: %w", err)
	}
	if s.ID, err = schemaID(s); err != nil {
		return nil, err
	}
	return s, nil
}

// ForShapes returns the schema under which the values of a request are recorded that are
// not shaped as s says, s itself where all are. A field whose tensor does not fit it
// becomes one of as many dimensions as that has, which each row says: those of the
// tensor's own rows, or all of it, for every row. Of a field that is private, what
// is stored is made value by value of what was declared: it is dropped. ok is false
// where the field that says whose a row is does not fit, since what cannot be found for
// that person is not to be kept. in or out may be nil.
func (s *Schema) ForShapes(in, out engine.Values, rows int) (shaped *Schema, ok bool, err error) {
	shaped = &Schema{}
	var changed [2]bool
	if shaped.Features, changed[0], ok = fieldsFor(s.Features, in, rows); !ok {
		return nil, false, nil
	}
	if shaped.Outputs, changed[1], ok = fieldsFor(s.Outputs, out, rows); !ok || !changed[0] && !changed[1] {
		return s, ok, nil
	}
	shaped.ID, err = schemaID(shaped)
	return shaped, err == nil, err
}

func fieldsFor(fields []Field, vals engine.Values, rows int) (out []Field, changed, ok bool) {
	for i := range fields {
		f := fields[i]
		t := vals.Get(f.Name)
		if t == nil || !stored(&f) || fits(&f, t, rows) {
			continue
		}
		switch {
		case f.Subject:
			return nil, false, false
		case f.Private != PrivacyNone:
			f.Private, f.Elements, f.Shape = PrivacyDrop, 0, nil
		default:
			n := len(t.Shape())
			if n > 0 && t.Rows() == rows {
				n--
			}
			f.Elements, f.Shape = Variable, slices.Repeat([]int{-1}, n)
			if n == 0 {
				f.Elements = 1
			}
		}
		if !changed {
			out, changed = slices.Clone(fields), true
		}
		out[i] = f
	}
	if !changed {
		out = fields
	}
	return out, changed, true
}

// SameFeatures reports whether rows of both schemas lie in the same way and mean the same,
// whatever their outputs.
func (s *Schema) SameFeatures(other *Schema) bool {
	return slices.EqualFunc(s.Features, other.Features, func(a, b Field) bool {
		return a.Name == b.Name && a.DType == b.DType && a.Elements == b.Elements && slices.Equal(a.Shape, b.Shape) &&
			a.Private == b.Private && a.KeyID == b.KeyID && a.Subject == b.Subject
	})
}

// Batched reports whether a request of this model is as many predictions as
// its inputs' common first dimension; where it is false a request is one.
func Batched(info *engine.Info) bool {
	for _, in := range info.Inputs {
		if len(in.Shape) == 0 || in.Shape[0] != -1 {
			return false
		}
	}
	return len(info.Inputs) > 0
}

func tabularFields(info *engine.Info) ([]Field, error) {
	matrix := len(info.Inputs) == 1
	if !matrix && len(info.Inputs) != len(info.Features) {
		return nil, fmt.Errorf("model has %d features but %d inputs", len(info.Features), len(info.Inputs))
	}
	fields := make([]Field, len(info.Features))
	seen := make(map[string]bool, len(fields))
	for i, f := range info.Features {
		in := info.Inputs[0]
		if !matrix {
			in = info.Inputs[i]
		}
		if !matrix && in.Name != f.Name {
			return nil, fmt.Errorf("feature %q is not named as its input %q", f.Name, in.Name)
		}
		if seen[f.Name] {
			return nil, fmt.Errorf("feature %q appears twice", f.Name)
		}
		seen[f.Name] = true
		fields[i] = Field{
			Name: f.Name, DType: in.DType, Elements: 1,
			Categorical: f.Categorical || in.DType == engine.String, Categories: f.Categories,
		}
	}
	return fields, nil
}

func tensorFields(specs []engine.Spec, batched bool, what string) ([]Field, error) {
	fields := make([]Field, len(specs))
	seen := make(map[string]bool, len(fields))
	for i, spec := range specs {
		if seen[spec.Name] {
			return nil, fmt.Errorf("%s %q appears twice", what, spec.Name)
		}
		seen[spec.Name] = true
		if spec.DType == engine.Sequence {
			return nil, fmt.Errorf("%s %q is a sequence of tensors, which a record has no place for: leave it out, or export one tensor, or each of its "+
				"tensors (ConcatFromSequence or SequenceAt behind it)", what, spec.Name)
		}
		if spec.DType == engine.Nothing {
			return nil, fmt.Errorf("%s %q is an optional value, which a record has no place for: export a tensor in its place", what, spec.Name)
		}
		if classOf(spec.DType) == classNone {
			return nil, fmt.Errorf("%s %q has no element type", what, spec.Name)
		}
		shape := spec.Shape
		if batched && len(shape) > 0 && shape[0] == -1 {
			shape = shape[1:]
		}
		n, err := fieldElements(shape)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", what, spec.Name, err)
		}
		fields[i] = Field{Name: spec.Name, DType: spec.DType, Elements: n, Shape: append([]int(nil), shape...)}
	}
	return fields, nil
}

func fieldElements(shape []int) (int, error) {
	for _, d := range shape {
		if d == -1 {
			return Variable, nil
		}
	}
	return engine.Elements(shape)
}

func applyFeatureConfig(fields []Field, cfg ModelConfig) error {
	seen := make(map[string]bool, len(cfg.Features))
	for _, c := range cfg.Features {
		f := fieldNamed(fields, c.Name)
		if f == nil {
			return noFeature(fields, c.Name)
		}
		if seen[c.Name] {
			return fmt.Errorf("feature %q is configured twice", c.Name)
		}
		seen[c.Name] = true
		switch c.Kind {
		case "":
		case "numeric":
			if f.DType == engine.String {
				return fmt.Errorf("feature %q is text and cannot be numeric", c.Name)
			}
			f.Categorical, f.Categories = false, nil
		case "categorical":
			f.Categorical = true
		default:
			return fmt.Errorf("feature %q: unknown kind %q", c.Name, c.Kind)
		}
	}
	if cfg.Subject != "" {
		if err := markSubject(fields, cfg.Subject); err != nil {
			return err
		}
	}
	for _, c := range cfg.Features {
		if err := makePrivate(fieldNamed(fields, c.Name), c.Private, &cfg); err != nil {
			return err
		}
	}
	return nil
}

// noFeature says that a configuration names what is none, and which was meant where only
// white space is beside it.
func noFeature(fields []Field, name string) error {
	if bare := strings.TrimSpace(name); bare != name && fieldNamed(fields, bare) != nil {
		return fmt.Errorf("the model has no feature %q, but one that is called so without the white space: write %q", name, bare)
	}
	return fmt.Errorf("the model has no feature %q", name)
}

func markSubject(fields []Field, name string) error {
	f := fieldNamed(fields, name)
	switch {
	case f == nil:
		return fmt.Errorf("subject: %w", noFeature(fields, name))
	case f.Elements != 1:
		return fmt.Errorf("subject: feature %q is a tensor", name)
	}
	f.Subject, f.names = true, f.Categories
	return nil
}

func fieldNamed(fields []Field, name string) *Field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

// schemaID hashes the canonical JSON: struct fields in their declared order, no
// space, nothing but what is stored.
func schemaID(s *Schema) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode schema: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// EncodeSchema returns the canonical JSON of s, whose SHA-256 is its ID.
func EncodeSchema(s *Schema) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return b, nil
}

// DecodeSchema is the inverse of EncodeSchema. It computes the ID again.
func DecodeSchema(b []byte) (*Schema, error) {
	s := &Schema{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	for _, f := range append(append([]Field(nil), s.Features...), s.Outputs...) {
		if f.Elements < Variable || classOf(f.DType) == classNone {
			return nil, fmt.Errorf("decode schema: field %q: %d elements of type %s", f.Name, f.Elements, f.DType)
		}
	}
	var err error
	s.ID, err = schemaID(s)
	return s, err
}
