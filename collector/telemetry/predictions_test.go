package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pellucid/pellucid/collector"
)

// tracesOf makes one trace of spans with those attributes, each 250 ms long.
func tracesOf(t *testing.T, list ...map[string]any) ptrace.Traces {
	t.Helper()
	traces := ptrace.NewTraces()
	spans := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for i, attributes := range list {
		s := spans.AppendEmpty()
		s.SetTraceID([16]byte{1})
		s.SetSpanID([8]byte{byte(i + 1)})
		s.SetStartTimestamp(1714564800000000000)
		s.SetEndTimestamp(1714564800250000000)
		if err := s.Attributes().FromRaw(attributes); err != nil {
			t.Fatal(err)
		}
	}
	return traces
}

func asJSON(t *testing.T, values map[string]json.RawMessage) string {
	t.Helper()
	b, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPredictionsOutOfSpans reads the contract of registry.yaml.
func TestPredictionsOutOfSpans(t *testing.T) {
	const trace, span = "01000000000000000000000000000000", "0100000000000000"
	for _, c := range []struct {
		name                      string
		attributes                map[string]any
		id, model, version        string
		features, outputs, refuse string
		status                    int
		text                      string
	}{
		{
			name:       "values one by one",
			attributes: map[string]any{"ml.model.name": "m", "ml.model.version": "2", "ml.prediction.id": "a", "ml.features.x": 3, "ml.features.a.b": "t", "ml.features.n": math.NaN(), "ml.prediction.score": 0.5, "ml.outputs.p": []any{0.5, 0.5}},
			id:         "a", model: "m", version: "2", features: `{"a.b":"t","n":null,"x":3}`, outputs: `{"p":[0.5,0.5],"score":0.5}`,
		},
		{
			name:       "as a map and as JSON",
			attributes: map[string]any{"ml.model.name": "m", "ml.features": map[string]any{"x": 1.5, "b": true}, "ml.outputs": `{"y":1,"z":null}`, "ml.prediction.label": "yes"},
			id:         trace + "-" + span, model: "m", features: `{"b":true,"x":1.5}`, outputs: `{"label":"yes","y":1,"z":null}`,
		},
		{
			name:       "failed",
			attributes: map[string]any{"ml.model.name": "m", "ml.features.x": 1, "ml.outputs.y": 1, "error.type": "429"},
			id:         trace + "-" + span, model: "m", features: `{"x":1}`, outputs: `null`, status: 429, text: "429",
		},
		{
			name:       "failed, and its class repeats what was asked",
			attributes: map[string]any{"ml.model.name": "m", "ml.features.x": 1, "error.type": "no such customer: Ann Lee"},
			id:         trace + "-" + span, model: "m", features: `{"x":1}`, outputs: `null`, status: 500, text: "the span failed",
		},
		{
			name: "chat",
			attributes: map[string]any{
				"gen_ai.operation.name": "chat", "gen_ai.request.model": "openai/gpt-x:latest", "gen_ai.response.model": "gpt-x-2026", "gen_ai.response.id": "chatcmpl-1",
				"gen_ai.system": "openai", "gen_ai.request.temperature": 0.25, "gen_ai.request.stream": true, "gen_ai.usage.prompt_tokens": 100, "gen_ai.usage.output_tokens": 7,
				"gen_ai.response.finish_reasons": []any{"stop", "length"}, "gen_ai.input.messages": "a secret",
			},
			id: "chatcmpl-1", model: "openai_gpt-x_latest", version: "gpt-x-2026",
			features: `{"cache_creation_input_tokens":null,"cache_read_input_tokens":null,"choice_count":null,"frequency_penalty":null,"input_tokens":100,"max_tokens":null,"operation":"chat","presence_penalty":null,"provider":"openai","stream":1,"temperature":0.25,"top_k":null,"top_p":null}`,
			outputs:  `{"finish_reasons":"stop,length","output_tokens":7,"reasoning_output_tokens":null,"time_to_first_chunk":null}`,
		},
		{name: "a model's name only", attributes: map[string]any{"ml.model.name": "m"}},
		{name: "features of no model", attributes: map[string]any{"ml.features.x": 1}},
		{name: "an agent", attributes: map[string]any{"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}},
		{name: "a list", attributes: map[string]any{"ml.model.name": "m", "ml.features.x": []any{1, 2}}, refuse: "is a list"},
		{name: "an infinity", attributes: map[string]any{"ml.model.name": "m", "ml.outputs.y": math.Inf(1)}, refuse: "infinite"},
		{name: "twice", attributes: map[string]any{"ml.model.name": "m", "ml.features.x": 1, "ml.features": `{"x":1}`}, refuse: "twice"},
		{name: "no JSON", attributes: map[string]any{"ml.model.name": "m", "ml.features": "x=1"}, refuse: "no JSON object"},
		{name: "no map", attributes: map[string]any{"ml.model.name": "m", "ml.outputs": 3}, refuse: "neither a map"},
		{name: "too long", attributes: map[string]any{"ml.model.name": "m", "ml.features.x": strings.Repeat("x", maxSpanText+1)}, refuse: "longer"},
		{name: "tokens in words", attributes: map[string]any{"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "ten"}, refuse: "not a number"},
	} {
		list, reasons := me.predictionsOf(tracesOf(t, c.attributes))
		switch {
		case c.refuse != "":
			if len(list) != 0 || len(reasons) != 1 || !strings.Contains(reasons[0].Error(), c.refuse) {
				t.Errorf("%s: %v, %v", c.name, list, reasons)
			}
			continue
		case c.id == "":
			if len(list)+len(reasons) != 0 {
				t.Errorf("%s: %v, %v", c.name, list, reasons)
			}
			continue
		case len(list) != 1 || len(reasons) != 0:
			t.Errorf("%s: %v, %v", c.name, list, reasons)
			continue
		}
		p := list[0]
		if p.ID != c.id || p.Model != c.model || p.Version != c.version || p.TraceID != trace || p.SpanID != span || p.Status != c.status || p.Error != c.text ||
			p.Time != "2024-05-01T12:00:00.25Z" || p.LatencyMS["total"] != 250 || asJSON(t, p.Features) != c.features || asJSON(t, p.Outputs) != c.outputs {
			t.Errorf("%s: %+v\n%s\n%s", c.name, p, asJSON(t, p.Features), asJSON(t, p.Outputs))
		}
	}
}

// me has made none of the spans of tests.
var me = NewIntake(IntakeConfig{Instance: "me"})

// TestWhatIsCutBreaksOff: what was said is cut before anybody has looked for what is private
// in it by its form.
func TestWhatIsCutBreaksOff(t *testing.T) {
	in := NewIntake(IntakeConfig{BrokenOff: func(s string) string { return s[:strings.IndexByte(s, ' ')] }})
	said := strings.Repeat("x", maxSpanText-6) + " 4111 1111 1111 1111"
	list, reasons := in.predictionsOf(tracesOf(t, map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.prompt": said, "gen_ai.completion": "all of it",
	}))
	if len(list) != 1 || len(reasons) != 0 {
		t.Fatal(list, reasons)
	}
	if got := string(list[0].Content["gen_ai.prompt"]); got != `"`+said[:maxSpanText-6]+`"` {
		t.Errorf("it ends with %q", got[len(got)-10:])
	}
	if got := string(list[0].Content["gen_ai.completion"]); got != `"all of it"` {
		t.Errorf("what is whole becomes %s", got)
	}
}

// TestOwnSpansAreNoPredictions: what this process, or another Pellucid, tells of
// itself is recorded already.
func TestOwnSpansAreNoPredictions(t *testing.T) {
	traces := tracesOf(t, map[string]any{"ml.model.name": "m", "ml.prediction.id": "a", "ml.features.x": 1})
	if list, _ := me.predictionsOf(traces); len(list) != 1 {
		t.Fatal("a stranger's span is no prediction")
	}
	rs := traces.ResourceSpans().At(0)
	rs.Resource().Attributes().PutStr("service.instance.id", "me")
	if list, _ := me.predictionsOf(traces); len(list) != 0 {
		t.Error("its own span is a prediction")
	}
	rs.ScopeSpans().At(0).Scope().SetName("github.com/pellucid/pellucid/collector/proxy")
	if list, _ := NewIntake(IntakeConfig{Instance: "another"}).predictionsOf(traces); len(list) != 0 {
		t.Error("another Pellucid's span is a prediction")
	}
}

// TestValuesAreNotKeptWithSpans: features, outputs and what was said go where
// model.yaml's rules hold, and never into otel_traces.
func TestValuesAreNotKeptWithSpans(t *testing.T) {
	traces := tracesOf(t, map[string]any{
		"ml.model.name": "m", "ml.features.x": "secret", "ml.features": `{"y":"secret"}`, "ml.outputs.z": "secret", "ml.prediction.label": "secret",
		"gen_ai.security.content.input.value": "secret", "gen_ai.user.message": "secret", "gen_ai.input.messages": "secret", "gen_ai.prompt.0.content": "secret", "gen_ai.tool.call.arguments": "secret", "gen_ai.usage.input_tokens": 7,
	})
	s := traces.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	e := s.Events().AppendEmpty()
	e.SetName("gen_ai.user.message")
	e.Attributes().PutStr("content", "secret")
	e.Attributes().PutStr("gen_ai.system", "openai")
	spans, _ := spansOf(traces, nil)
	if text := fmt.Sprintf("%+v", spans); strings.Contains(text, "secret") {
		t.Error(text)
	}
	if len(spans) != 1 || spans[0].SpanAttributes["ml.model.name"] != "m" || spans[0].SpanAttributes["gen_ai.usage.input_tokens"] != "7" || spans[0].Events[0].Attributes["gen_ai.system"] != "openai" {
		t.Errorf("%+v", spans)
	}
}

// TestWhatBecomesOfPredictions: refused ones are told in the partial success, which
// nobody sends again; what could not be recorded now is sent again as a whole.
func TestWhatBecomesOfPredictions(t *testing.T) {
	traces := tracesOf(t,
		map[string]any{"ml.model.name": "m", "ml.features.x": 1, "ml.outputs.y": 1},
		map[string]any{"ml.model.name": "m", "ml.features.x": []any{1}},
		map[string]any{"ml.model.name": "m", "ml.features.z": 1, "ml.outputs.y": 1},
		map[string]any{"other": 1})
	var wrote, asked int
	var full error
	in := NewIntake(IntakeConfig{
		Write: func(_ context.Context, spans []Span) error { wrote += len(spans); return nil },
		Predict: func(_ context.Context, list []*collector.Imported) ([]collector.ImportResult, error) {
			asked += len(list)
			return []collector.ImportResult{{Status: collector.ImportAccepted}, {Status: collector.ImportRefused, Error: "no such feature"}}, full
		},
	})
	send := func() (*httptest.ResponseRecorder, ptraceotlp.ExportResponse) {
		body, err := ptraceotlp.NewExportRequestFromTraces(traces).MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/traces", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/x-protobuf")
		w := httptest.NewRecorder()
		in.Handler().ServeHTTP(w, r)
		res := ptraceotlp.NewExportResponse()
		if w.Code == http.StatusOK {
			if err := res.UnmarshalProto(w.Body.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		return w, res
	}
	w, res := send()
	if partial := res.PartialSuccess(); w.Code != 200 || partial.RejectedSpans() != 2 || !strings.Contains(partial.ErrorMessage(), "2 spans") || wrote != 4 || asked != 2 {
		t.Errorf("%d %v, %d spans, %d predictions", w.Code, partial.ErrorMessage(), wrote, asked)
	}
	full = errors.New("the spool is full")
	if w, _ := send(); w.Code != 503 || w.Header().Get("Retry-After") == "" || wrote != 4 {
		t.Errorf("full: %d %v, %d spans", w.Code, w.Header(), wrote)
	}
	in.cfg.Why = func(err error) string { return "free some room" }
	if w, _ := send(); w.Code != 503 || !strings.Contains(w.Body.String(), "recorded now: free some room") {
		t.Errorf("why is not said: %d %s", w.Code, w.Body)
	}
	req := ptraceotlp.NewExportRequestFromTraces(traces)
	_, err := (&traceServer{in: in}).Export(t.Context(), req)
	if st := status.Convert(err); st.Code() != codes.Unavailable || !strings.Contains(st.Message(), "recorded now: free some room") {
		t.Errorf("why is not said by gRPC: %v", err)
	}
}
