package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// Bounds of one span's prediction.
const (
	maxSpanValues = 4096      // features and outputs
	maxSpanText   = 64 << 10  // bytes of one value
	maxSpanJSON   = 256 << 10 // bytes of ml.features or ml.outputs as JSON
	maxErrorType  = 128
)

// The attributes of a span that says ml.model.name. registry.yaml has what each
// of them means, a test holds the two against each other.
const (
	mlModelName    = "ml.model.name"
	mlModelVersion = "ml.model.version"
	mlID           = "ml.prediction.id"
	mlExternalID   = "ml.prediction.external_id"
	mlScore        = "ml.prediction.score"
	mlLabel        = "ml.prediction.label"
	mlFeatures     = "ml.features"
	mlOutputs      = "ml.outputs"
)

// The attributes of OpenTelemetry's conventions for generative AI that make a span
// of one of those operations a prediction.
const (
	genOperation     = "gen_ai.operation.name"
	genModel         = "gen_ai.request.model"
	genResponseModel = "gen_ai.response.model"
	genResponseID    = "gen_ai.response.id"
	genReasons       = "gen_ai.response.finish_reasons"
	errorType        = "error.type"
	httpStatus       = "http.response.status_code"
)

// genOperations are the operations that are a model's answer. Agents, tools and
// retrievals are not.
var genOperations = map[string]bool{"chat": true, "text_completion": true, "generate_content": true, "embeddings": true}

// genColumn is one value of a generative model's prediction: the attributes it is
// read from, the name in force first, and what it is called.
type genColumn struct {
	name  string
	from  []string
	dtype engine.DType
}

var (
	genFeatures = []genColumn{
		{"operation", []string{genOperation}, engine.String},
		{"provider", []string{"gen_ai.provider.name", "gen_ai.system"}, engine.String},
		{"temperature", []string{"gen_ai.request.temperature"}, engine.Float64},
		{"top_p", []string{"gen_ai.request.top_p"}, engine.Float64},
		{"top_k", []string{"gen_ai.request.top_k"}, engine.Float64},
		{"max_tokens", []string{"gen_ai.request.max_tokens"}, engine.Float64},
		{"frequency_penalty", []string{"gen_ai.request.frequency_penalty"}, engine.Float64},
		{"presence_penalty", []string{"gen_ai.request.presence_penalty"}, engine.Float64},
		{"choice_count", []string{"gen_ai.request.choice.count"}, engine.Float64},
		{"stream", []string{"gen_ai.request.stream"}, engine.Float64},
		{"input_tokens", []string{"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"}, engine.Float64},
		{"cache_read_input_tokens", []string{"gen_ai.usage.cache_read.input_tokens"}, engine.Float64},
		{"cache_creation_input_tokens", []string{"gen_ai.usage.cache_creation.input_tokens"}, engine.Float64},
	}
	// The first is what such a model is watched by.
	genOutputs = []genColumn{
		{"output_tokens", []string{"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"}, engine.Float64},
		{"reasoning_output_tokens", []string{"gen_ai.usage.reasoning.output_tokens"}, engine.Float64},
		{"time_to_first_chunk", []string{"gen_ai.response.time_to_first_chunk"}, engine.Float64},
		{reasonsColumn, []string{genReasons}, engine.String},
	}
	// genContent is what people and models said. It is a feature only where a
	// configuration names one so.
	genContent = collector.GenerativeContent

	genInfo = describeGenerative()
)

func describeGenerative() *engine.Info {
	info := &engine.Info{Format: collector.GenerativeFormat, Task: engine.TaskOther, Missing: true}
	for _, c := range genFeatures {
		info.Inputs = append(info.Inputs, engine.Spec{Name: c.name, DType: c.dtype, Shape: []int{-1}})
		info.Features = append(info.Features, engine.Feature{Name: c.name, Categorical: c.dtype == engine.String})
	}
	for _, c := range genOutputs {
		info.Outputs = append(info.Outputs, engine.Spec{Name: c.name, DType: c.dtype, Shape: []int{-1}})
	}
	return info
}

// predictionsOf finds the predictions among spans. Those of Pellucid itself are
// none: what they tell of is recorded already. reasons are why spans that mean to
// be predictions cannot be.
func (in *Intake) predictionsOf(traces ptrace.Traces) (list []*collector.Imported, reasons []error) {
	for _, rs := range traces.ResourceSpans().All() {
		if id, ok := rs.Resource().Attributes().Get("service.instance.id"); ok && in.cfg.Instance != "" && id.AsString() == in.cfg.Instance {
			continue
		}
		for _, ss := range rs.ScopeSpans().All() {
			if strings.HasPrefix(ss.Scope().Name(), ownScope) {
				continue
			}
			for _, s := range ss.Spans().All() {
				if !storable(s) {
					continue // counted where it is left out of the table
				}
				p, err := in.predictionOf(s)
				if err != nil {
					reasons = append(reasons, err)
				} else if p != nil {
					list = append(list, p)
				}
			}
		}
	}
	return list, reasons
}

// ownScope begins the names of the tracers that Pellucid's own spans come from.
const ownScope = "github.com/pellucid/pellucid/"

// predictionOf reads a span as a prediction; nil where it does not mean to be one.
func (in *Intake) predictionOf(s ptrace.Span) (*collector.Imported, error) {
	a := s.Attributes()
	p := &collector.Imported{
		TraceID: s.TraceID().String(), SpanID: s.SpanID().String(),
		Time: s.EndTimestamp().AsTime().UTC().Format(time.RFC3339Nano), LatencyMS: map[string]float64{"total": 0},
	}
	if end, start := s.EndTimestamp(), s.StartTimestamp(); end > start {
		p.LatencyMS["total"] = float64(end-start) / 1e6
	} else if end < start {
		p.Time = start.AsTime().UTC().Format(time.RFC3339Nano) // it has not been ended
	}
	var err error
	switch {
	case text(a, mlModelName) != "":
		err = plain(p, a)
		if err == nil && p.ID == "" && len(p.Features) == 0 && len(p.Outputs) == 0 {
			return nil, nil //nolint:nilnil // it names a model, and is about something else than a prediction
		}
	case genOperations[text(a, genOperation)] && text(a, genModel) != "":
		err = in.generative(p, a)
	default:
		return nil, nil //nolint:nilnil // no prediction
	}
	if err != nil {
		return nil, err
	}
	if p.ID == "" {
		p.ID = p.TraceID + "-" + p.SpanID
	}
	if s.Status().Code() == ptrace.StatusCodeError || text(a, errorType) != "" {
		p.Outputs = nil
		p.Status, p.Error = failureOf(a)
		p.OwnError = p.Error == spanFailed
	}
	return p, nil
}

// plain reads the ml.* attributes.
func plain(p *collector.Imported, a pcommon.Map) error {
	p.Model, p.Version, p.ID, p.ExternalID = text(a, mlModelName), text(a, mlModelVersion), text(a, mlID), text(a, mlExternalID)
	p.Features, p.Outputs = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for key, v := range a.All() {
		var err error
		switch {
		case key == mlFeatures:
			err = addAll(p.Features, mlFeatures, v, false)
		case key == mlOutputs:
			err = addAll(p.Outputs, mlOutputs, v, true)
		case key == mlScore:
			err = add(p.Outputs, "score", v, false)
		case key == mlLabel:
			err = add(p.Outputs, "label", v, false)
		case strings.HasPrefix(key, mlFeatures+"."):
			err = add(p.Features, key[len(mlFeatures)+1:], v, false)
		case strings.HasPrefix(key, mlOutputs+"."):
			err = add(p.Outputs, key[len(mlOutputs)+1:], v, true)
		}
		if err != nil {
			return err
		}
		if len(p.Features)+len(p.Outputs) > maxSpanValues {
			return fmt.Errorf("it has more than %d features and outputs", maxSpanValues)
		}
	}
	return nil
}

// addAll adds the values of a map, or of a string that holds a JSON object.
func addAll(to map[string]json.RawMessage, what string, v pcommon.Value, lists bool) error {
	switch v.Type() {
	case pcommon.ValueTypeMap:
		for name, one := range v.Map().All() {
			if err := add(to, name, one, lists); err != nil {
				return err
			}
		}
		return nil
	case pcommon.ValueTypeStr:
		var all map[string]json.RawMessage
		if len(v.Str()) > maxSpanJSON || json.Unmarshal([]byte(v.Str()), &all) != nil {
			return fmt.Errorf("%s is a string that is no JSON object of at most %d bytes", what, maxSpanJSON)
		}
		for name, raw := range all {
			if _, twice := to[name]; twice {
				return fmt.Errorf("%q is there twice", clipped(name))
			}
			to[name] = raw
		}
		return nil
	}
	return fmt.Errorf("%s is neither a map nor a string", what)
}

// add adds one value; lists says whether it may be a list of them.
func add(to map[string]json.RawMessage, name string, v pcommon.Value, lists bool) error {
	if _, twice := to[name]; twice {
		return fmt.Errorf("%q is there twice", clipped(name))
	}
	raw, err := rawOf(v, lists)
	if err != nil {
		return fmt.Errorf("%q %w", clipped(name), err)
	}
	to[name] = raw
	return nil
}

// rawOf is a value as JSON.
func rawOf(v pcommon.Value, lists bool) (json.RawMessage, error) {
	switch v.Type() {
	case pcommon.ValueTypeEmpty:
		return json.RawMessage("null"), nil
	case pcommon.ValueTypeStr:
		if len(v.Str()) > maxSpanText {
			return nil, fmt.Errorf("is longer than %d bytes", maxSpanText)
		}
		return json.Marshal(v.Str())
	case pcommon.ValueTypeBool:
		return strconv.AppendBool(nil, v.Bool()), nil
	case pcommon.ValueTypeInt:
		return strconv.AppendInt(nil, v.Int(), 10), nil
	case pcommon.ValueTypeDouble:
		switch x := v.Double(); {
		case math.IsNaN(x):
			return json.RawMessage("null"), nil
		case math.IsInf(x, 0):
			return nil, errors.New("is infinite")
		default:
			return json.Marshal(x)
		}
	case pcommon.ValueTypeSlice:
		if !lists || v.Slice().Len() > maxSpanValues {
			return nil, errors.New("is a list where one value is wanted, or a list too long")
		}
		list := make([]json.RawMessage, 0, v.Slice().Len())
		for _, one := range v.Slice().All() {
			raw, err := rawOf(one, false)
			if err != nil {
				return nil, err
			}
			list = append(list, raw)
		}
		return json.Marshal(list)
	}
	return nil, errors.New("is neither a number, a string nor a boolean")
}

// generative reads the gen_ai.* attributes.
func (in *Intake) generative(p *collector.Imported, a pcommon.Map) error {
	p.Model, p.Version, p.ID = collector.ModelName(text(a, genModel)), collector.ModelName(text(a, genResponseModel)), text(a, genResponseID)
	p.Info = genInfo
	var err error
	if p.Features, err = generativeValues(a, genFeatures); err != nil {
		return err
	}
	if p.Outputs, err = generativeValues(a, genOutputs); err != nil {
		return err
	}
	p.Known = map[string]json.RawMessage{reasonsColumn: knownReasons(p.Outputs[reasonsColumn])}
	p.Content = make(map[string]json.RawMessage, len(genContent))
	for _, key := range genContent {
		p.Content[key] = json.RawMessage("null")
		v, ok := a.Get(key)
		if !ok {
			continue
		}
		said := v.AsString()
		if len(said) > maxSpanText {
			if said = strings.ToValidUTF8(said[:maxSpanText], ""); in.cfg.BrokenOff != nil {
				said = in.cfg.BrokenOff(said)
			}
		}
		if p.Content[key], err = json.Marshal(said); err != nil {
			return err
		}
	}
	return nil
}

// reasonsColumn is the output that says why a model stopped.
const reasonsColumn = "finish_reasons"

// reasons are why models stop, in small letters: by OpenTelemetry's conventions, and as
// OpenAI, Anthropic, Google, Amazon, Cohere and Mistral call it.
var reasons = strings.Fields(`stop length content_filter tool_call tool_calls function_call error
	end_turn max_tokens stop_sequence tool_use pause_turn refusal model_context_window_exceeded compaction
	safety recitation language other blocklist prohibited_content spii malformed_function_call finish_reason_unspecified image_safety unexpected_tool_call
	finish content_filtered guardrail_intervened complete error_toxic error_limit user_cancel model_length cancelled timeout eos eos_token`)

// knownReasons are reasons of which others than those are "_OTHER", as conventions call
// what they do not list.
func knownReasons(raw json.RawMessage) json.RawMessage {
	var all string
	if json.Unmarshal(raw, &all) != nil || all == "" {
		return raw // there are none
	}
	list := strings.Split(all, ",")
	for i, one := range list {
		if !slices.Contains(reasons, strings.ToLower(one)) {
			list[i] = "_OTHER"
		}
	}
	out, _ := json.Marshal(strings.Join(list, ",")) // text always marshals
	return out
}

func generativeValues(a pcommon.Map, columns []genColumn) (map[string]json.RawMessage, error) {
	out := make(map[string]json.RawMessage, len(columns))
	for _, c := range columns {
		raw := json.RawMessage("null")
		for _, key := range c.from {
			v, ok := a.Get(key)
			if !ok {
				continue
			}
			var err error
			if raw, err = generativeValue(v, c.dtype); err != nil {
				return nil, fmt.Errorf("%s %w", key, err)
			}
			break
		}
		out[c.name] = raw
	}
	return out, nil
}

func generativeValue(v pcommon.Value, dtype engine.DType) (json.RawMessage, error) {
	if dtype == engine.String {
		if v.Type() == pcommon.ValueTypeSlice {
			var all []string
			for _, one := range v.Slice().All() {
				all = append(all, one.AsString())
			}
			v = pcommon.NewValueStr(strings.Join(all, ","))
		}
		return rawOf(pcommon.NewValueStr(v.AsString()), false)
	}
	switch v.Type() {
	case pcommon.ValueTypeBool:
		if v.Bool() {
			return json.RawMessage("1"), nil
		}
		return json.RawMessage("0"), nil
	case pcommon.ValueTypeInt, pcommon.ValueTypeDouble:
		return rawOf(v, false)
	}
	return nil, errors.New("is not a number")
}

// spanFailed is stored of a failed span that has no class of its failure.
const spanFailed = "the span failed"

// failureOf is the status of a failed span and the text that is stored of it: its
// class, since what its message says may repeat a value.
func failureOf(a pcommon.Map) (status int, message string) {
	status, message = http.StatusInternalServerError, spanFailed
	kind := text(a, errorType)
	known := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:-/$", r)
	}
	if kind != "" && len(kind) <= maxErrorType && strings.TrimFunc(kind, known) == "" {
		message = kind
	}
	if kind == "timeout" {
		status = http.StatusGatewayTimeout
	}
	for _, code := range []string{kind, text(a, httpStatus)} {
		if n, err := strconv.Atoi(code); err == nil && n >= 400 && n <= 599 {
			return n, message
		}
	}
	return status, message
}

// text is an attribute as text, "" where it is not there.
func text(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return v.AsString()
	}
	return ""
}

func clipped(name string) string {
	const limit = 128
	if len(name) > limit {
		return name[:limit] + "..."
	}
	return name
}

// spoken reports whether an attribute of an event is what was said: such events have that
// under plain names.
func spoken(event, key string) bool {
	return strings.HasPrefix(event, "gen_ai.") && !strings.HasPrefix(key, "gen_ai.") && key != errorType
}

// value reports whether an attribute holds what a prediction was made of, what was
// predicted, or what was said. Those go where a model.yaml's rules for private
// fields hold, and never into the table of spans.
func value(key string) bool {
	for _, name := range [...]string{mlFeatures, mlOutputs} {
		if key == name || strings.HasPrefix(key, name+".") {
			return true
		}
	}
	if key == mlScore || key == mlLabel {
		return true
	}
	if !strings.HasPrefix(key, "gen_ai.") {
		return false
	}
	for _, prefix := range [...]string{
		"gen_ai.system_instructions", "gen_ai.input.", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion", "gen_ai.content.",
		"gen_ai.event.content", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",
		"gen_ai.retrieval.", "gen_ai.memory.", "gen_ai.evaluation.explanation", "gen_ai.security.content.",
		"gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.tool.message", "gen_ai.choice",
	} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
