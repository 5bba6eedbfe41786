package collector

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// Privacy is what happens to a field before anything is written anywhere.
type Privacy string

// The privacy of a field. A version that asks for another is refused.
const (
	PrivacyNone Privacy = ""
	// PrivacyDrop: nothing of the field is kept.
	PrivacyDrop Privacy = "drop"
	// PrivacyMask: only whether there was a value.
	PrivacyMask Privacy = "mask"
	// PrivacyHash: a keyed hash of the value, so that equal values are equal.
	PrivacyHash Privacy = "hash"
	// PrivacyBucket: a number's first significant digit.
	PrivacyBucket Privacy = "bucket"
	// PrivacySeal: the value itself, for whoever holds the key.
	PrivacySeal Privacy = "seal"
)

// Known reports whether p is one of the policies.
func (p Privacy) Known() bool {
	switch p {
	case PrivacyDrop, PrivacyMask, PrivacyHash, PrivacyBucket, PrivacySeal:
		return true
	}
	return false
}

// Field is one feature or output of a schema. Elements is how many values a row
// has of it: 1 for a column, the product of the row's dimensions for a tensor,
// and -1 where that varies from request to request (such a field is the only
// one of its element type).
type Field struct {
	Name     string       `json:"name"`
	DType    engine.DType `json:"dtype"`
	Elements int          `json:"elements"`
	Shape    []int        `json:"shape,omitempty"`
	// Categorical and Categories as in engine.Feature.
	Categorical bool     `json:"categorical,omitempty"`
	Categories  []string `json:"categories,omitempty"`
	Private     Privacy  `json:"private,omitempty"`
	// KeyID names the key of a hashed field, without telling it.
	KeyID string `json:"key_id,omitempty"`
	// Subject marks the feature that says whose a row is.
	Subject bool `json:"subject,omitempty"`

	// key and names make the hashes of a hashed field, keys and plain (what the field
	// is to the model) the sealed values of a sealed one; they are never stored.
	key   []byte
	names []string
	keys  Keyring
	plain *Field
}

// Schema names a version's features and outputs by position. ID is the SHA-256
// of its canonical JSON.
type Schema struct {
	ID       string  `json:"-"`
	Features []Field `json:"features"`
	Outputs  []Field `json:"outputs"`
}

// FeatureConfig is what model.yaml says of one feature.
type FeatureConfig struct {
	Name    string
	Kind    string // "", "numeric" or "categorical"
	Private Privacy
}

// Segment is a set of rows that is watched on its own: by each value of a
// feature (By), or by a filter (Where).
type Segment struct{ Name, By, Where string }

// ModelConfig is a version's model.yaml.
type ModelConfig struct {
	Task     engine.Task
	Classes  []string
	Features []FeatureConfig
	// FeatureNames, if any, name the columns of the model's one matrix input.
	FeatureNames []string
	Segments     []Segment
	// Reference is a rows file beside the model, or a window of stored
	// predictions.
	Reference                  string
	ReferenceFrom, ReferenceTo string
	Background                 string
	KeepRows                   bool
	// HashKey is the secret of hashed fields.
	HashKey []byte `json:"-"`
	// Keys seal the values of sealed fields.
	Keys Keyring `json:"-"`
	// Subject is the feature that says whose a row is, if any: the row's sealed
	// fields are sealed under that person's own key.
	Subject string `json:",omitempty"`
}

// Policies are the private features with what is done to each, nil where there are none.
func (c *ModelConfig) Policies() map[string]Privacy {
	var out map[string]Privacy
	for _, f := range c.Features {
		if f.Private != PrivacyNone {
			if out == nil {
				out = map[string]Privacy{}
			}
			out[f.Name] = f.Private
		}
	}
	return out
}

// Policy is how the feature of a name is private.
func (c *ModelConfig) Policy(name string) Privacy {
	if i := slices.IndexFunc(c.Features, func(f FeatureConfig) bool { return f.Name == name }); i >= 0 {
		return c.Features[i].Private
	}
	return PrivacyNone
}

// PrivateAlike is how a feature is private that the model does not know and that is called like a
// private one of it; of several the strictest.
func (c *ModelConfig) PrivateAlike(name string) (how Privacy) {
	for _, f := range c.Features {
		if f.Private != PrivacyNone && Alike(f.Name, name) {
			how = Stricter(how, f.Private)
		}
	}
	return how
}

// Alike reports whether two names are the same but for capitals, full-width letters and whatever else
// Unicode holds for another way to write the same (NFKC), white space around them, signs that are not seen, what their words are parted by, what dots, colons or slashes part from one of them
// in front, and the place of an element behind one: net_income is called like NET-INCOME, net.income, in.net income and net_income[0].
func Alike(a, b string) bool {
	fold := cases.Fold() // STRASSE is straße
	a, b = fold.String(seen(a)), fold.String(seen(b))
	return endsIn(a, b) || endsIn(b, a) || endsIn(whole(a), b) || endsIn(whole(b), a)
}

// elementRule is the place of an element behind the name of what it is of.
var elementRule = regexp.MustCompile(`[[][0-9,; \]\[]*\][[:space:]]*$`)

// whole is the name of what a name says an element of.
func whole(name string) string {
	if at := elementRule.FindStringIndex(name); at != nil {
		return name[:at[0]]
	}
	return name
}

// seen is a name without the signs that are not seen, each of the others written in the one way.
func seen(name string) string {
	return norm.NFKC.String(strings.Map(func(r rune) rune {
		if Ignorable(r) || unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, name))
}

// words is a name whose words are parted by underscores, those of what it is within too: a
// field within another is often written so.
func words(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-./:", r) || unicode.IsSpace(r) {
			return '_'
		}
		return r
	}, name)
}

func endsIn(name, part string) bool {
	part = strings.TrimSpace(part)
	for part != "" {
		if name = strings.TrimSpace(name); strings.EqualFold(words(name), words(part)) {
			return true
		}
		i := strings.IndexAny(name, "./:")
		if i < 0 {
			break
		}
		name = name[i+1:]
	}
	return false
}

// PrivateFeature returns the first feature that is private in any way, "" for
// none: a prediction of such a version cannot be computed again from what is
// stored, unless sealed values are opened.
func (c *ModelConfig) PrivateFeature() string {
	for _, f := range c.Features {
		if f.Private != PrivacyNone {
			return f.Name
		}
	}
	return ""
}

// ModelVersion is one version that can answer. It is immutable but for its
// reference, which may come later.
type ModelVersion struct {
	Name, Version, Digest string
	Info                  *engine.Info
	Schema                *Schema
	Config                ModelConfig
	// Model is nil for an upstream's model.
	Model engine.Model
	// Predict answers canonical inputs (engine.Bind); want as in Session.Run.
	Predict func(ctx context.Context, in engine.Values, want []string) (engine.Values, error)
	// Reference returns the reference in force, or nil while there is none.
	Reference func() *stats.Reference
	// Background returns the default background rows as the model's canonical
	// inputs with their digest; ok is false when there is none.
	Background func() (rows engine.Values, digest string, ok bool)
}

// ModelState is one line of the repository index.
type ModelState struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"` // READY, LOADING, UNAVAILABLE
	Reason  string `json:"reason"`
	// Private are the private fields of what is in force, with what is done to each.
	Private map[string]Privacy `json:"private,omitempty"`
}
