package collector

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
)

// Imported is a prediction made elsewhere as its sender tells it, in the shape
// that stored ones are read in. Values are JSON: numbers, strings, booleans and
// null, for an output also a list of them.
type Imported struct {
	ID         string                     `json:"id"`
	Time       string                     `json:"time"`
	Model      string                     `json:"model"`
	Version    string                     `json:"version"`
	TraceID    string                     `json:"trace_id"`
	SpanID     string                     `json:"span_id"`
	ExternalID string                     `json:"external_id"`
	Features   map[string]json.RawMessage `json:"features"`
	Outputs    map[string]json.RawMessage `json:"outputs"`
	Status     int                        `json:"status"`
	Error      string                     `json:"error"`
	LatencyMS  map[string]float64         `json:"latency_ms"`
	Weight     *float64                   `json:"weight"`
	Label      json.RawMessage            `json:"label"`
	ObservedAt string                     `json:"observed_at"`

	// Content are values that are a feature only where the version's configuration names
	// one so (WithContent); else nothing of them is kept.
	Content map[string]json.RawMessage `json:"-"`
	// Known are outputs with what conventions do not fix left out, as they are recorded
	// where a feature is private.
	Known map[string]json.RawMessage `json:"-"`
	// Hidden are values that were private when they came, and are not among the features:
	// what repeats them is taken out as if they still were.
	Hidden []json.RawMessage `json:"-"`
	// Alone is set where there were features that nobody here has seen.
	Alone bool `json:"-"`
	// OwnError is set where Error is a text of Pellucid's own, which repeats nothing.
	OwnError bool `json:"-"`
	// Info, if set, is what a version that is not known yet is known by, in place
	// of the values of its first rows.
	Info *engine.Info `json:"-"`
}

// ImportResult is what became of one imported prediction.
type ImportResult struct {
	ID     string `json:"id,omitempty"`
	Status string `json:"status"` // one of the constants below
	Error  string `json:"error,omitempty"`
	// Capture says how much of an accepted one is stored where it is not all: "cut" and the
	// other words of Prediction.Capture.
	Capture string `json:"capture,omitempty"`
	// Row is the number of a refused row in its request, from 1. Field is the feature or
	// output at fault, Value the beginning of what it was, where it is not private: both are
	// for whoever sent it, and in no log.
	Row   int    `json:"row,omitempty"`
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"`
}

// What becomes of an imported prediction.
const (
	ImportAccepted  = "accepted"
	ImportDuplicate = "duplicate" // recorded before: nothing changed
	ImportRefused   = "refused"
)

// ImportedFormat is the format of a model that is known by imported rows alone: its features
// are in the order of their names, not of its columns.
const ImportedFormat = "imported"

// GenerativeFormat is the format of a model whose predictions are told by OpenTelemetry's
// attributes for generative AI.
const GenerativeFormat = "gen_ai"

// GenerativeContent are those that hold what people and such a model said: the names of its
// Imported.Content.
var GenerativeContent = []string{"gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion"}

// WithContent is what is known of a model whose configuration is cfg: of what was said to
// and by a generative one, what cfg names is a feature, whether or not info has it as one.
func WithContent(info *engine.Info, cfg ModelConfig) *engine.Info {
	if info.Format != GenerativeFormat {
		return info
	}
	content := func(name string) bool { return slices.Contains(GenerativeContent, name) }
	with := *info
	with.Inputs = slices.DeleteFunc(slices.Clone(info.Inputs), func(s engine.Spec) bool { return content(s.Name) })
	with.Features = slices.DeleteFunc(slices.Clone(info.Features), func(f engine.Feature) bool { return content(f.Name) })
	add := func(name string) {
		if content(name) && !slices.ContainsFunc(with.Features, func(f engine.Feature) bool { return f.Name == name }) {
			with.Inputs = append(with.Inputs, engine.Spec{Name: name, DType: engine.String, Shape: []int{-1}})
			with.Features = append(with.Features, engine.Feature{Name: name, Categorical: true})
		}
	}
	for _, f := range cfg.Features {
		add(f.Name)
	}
	add(cfg.Subject)
	return &with
}

// AllContent is info with all content that such a model may be told of.
func AllContent(info *engine.Info) *engine.Info {
	var all ModelConfig
	for _, name := range GenerativeContent {
		all.Features = append(all.Features, FeatureConfig{Name: name})
	}
	return WithContent(info, all)
}

// ModelName turns what others call a model or a version into a name that one can
// have here: what is no letter, digit, '.', '_' or '-' becomes '_'.
func ModelName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(s, "._-")
}
