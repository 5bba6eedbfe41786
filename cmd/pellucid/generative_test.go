package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/pellucid/pellucid/collector"
)

// What is said to a generative model, in the forms of the conventions: of now, of before,
// and as events.
var (
	saidKeys = []string{
		"gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",
		"gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.memory.records", "gen_ai.memory.query.text", "gen_ai.evaluation.explanation", "gen_ai.security.content.input.value",
		"gen_ai.prompt", "gen_ai.completion", "gen_ai.prompt.0.content", "gen_ai.completion.0.content", "gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.event.content",
		"gen_ai.input.messages_ref", "gen_ai.user.message", "gen_ai.choice",
	}
	// Of these no convention says that they repeat it; senders do.
	repeatKeys = []string{"gen_ai.response.finish_reasons", "gen_ai.request.stop_sequences", "gen_ai.agent.description", "gen_ai.tool.description", "gen_ai.conversation.id", "gen_ai.output.type", "error.message", "input.value", "llm.prompts", "traceloop.entity.input"}
	saidEvents = []string{
		"gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.tool.message", "gen_ai.choice", "gen_ai.content.prompt", "gen_ai.content.completion",
		"gen_ai.client.inference.operation.details", "gen_ai.evaluation.result",
	}
)

// spokenOf makes one request of a chat of a model's version, of which every text says the
// canary; form is how messages are told: as text, as JSON, in a structure or in bytes.
func spokenOf(model, version, form string, n byte) ptraceotlp.ExportRequest {
	traces := ptrace.NewTraces()
	s := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	s.SetTraceID(pcommon.TraceID{7, n})
	s.SetSpanID(pcommon.SpanID{7, n})
	s.SetStartTimestamp(1714564800000000000)
	s.SetEndTimestamp(1714564800250000000)
	s.SetName("chat " + canaryText)
	s.Status().SetMessage("no " + canaryText)
	put := func(to pcommon.Value) {
		switch form {
		case "text":
			to.SetStr("my name, as you will know by now, is " + canaryText)
		case "json":
			to.SetStr(`[{"role":"user","parts":[{"type":"text","content":"my name, as you will know by now, is ` + canaryText + `"}]}]`)
		case "bytes":
			to.SetEmptyBytes().FromRaw([]byte(canaryText))
		default:
			m := to.SetEmptySlice().AppendEmpty().SetEmptyMap()
			m.PutStr("role", "user")
			m.PutStr("content", canaryText)
		}
	}
	a := s.Attributes()
	a.PutStr("gen_ai.operation.name", "chat")
	a.PutStr("gen_ai.request.model", model)
	if version != "" {
		a.PutStr("gen_ai.response.model", version)
	}
	a.PutStr("gen_ai.response.id", fmt.Sprint("chat-", n))
	a.PutStr("gen_ai.provider.name", "acme")
	a.PutInt("gen_ai.usage.output_tokens", 5)
	for _, key := range saidKeys {
		put(a.PutEmpty(key))
	}
	for _, key := range repeatKeys {
		a.PutStr(key, canaryText)
	}
	reasons := a.PutEmptySlice("gen_ai.response.finish_reasons")
	for _, one := range []string{"stop", canaryText, "said " + canaryText, "MAX_TOKENS"} {
		reasons.AppendEmpty().SetStr(one)
	}
	for _, name := range saidEvents {
		e := s.Events().AppendEmpty()
		e.SetName(name)
		for _, key := range slices.Concat(saidKeys, []string{"content", "message", "tool_calls", "body", "prompt"}) {
			put(e.Attributes().PutEmpty(key))
		}
		e.Attributes().PutStr("role", "user")
		e.Attributes().PutStr("finish_reason", canaryText)
	}
	return ptraceotlp.NewExportRequestFromTraces(traces)
}

// sendSpans sends a request in each of the three ways in turn.
func (r *rig) sendSpans(t *testing.T, i int, req ptraceotlp.ExportRequest) {
	t.Helper()
	kind, marshal := "application/json", req.MarshalJSON
	switch i % 3 {
	case 0:
		if _, err := ptraceotlp.NewGRPCClient(r.dial(t)).Export(context.WithoutCancel(t.Context()), req); err != nil {
			t.Error(err)
		}
		return
	case 1:
		kind, marshal = "application/x-protobuf", req.MarshalProto
	}
	body, err := marshal()
	if err != nil {
		t.Fatal(err)
	}
	hr, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/traces", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	hr.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%s: %d, %v", kind, res.StatusCode, err)
	}
}

// TestWhatIsSaidStaysPrivateInEveryVersion: the model that answers names its version, so
// that what another version, an upstream or a rule says is private of what is said to a
// model holds in each, in predictions and in spans.
func TestWhatIsSaidStaysPrivateInEveryVersion(t *testing.T) {
	all := ""
	for i, name := range collector.GenerativeContent {
		all += fmt.Sprintf("{name: %s, private: %s}, ", name, []string{"mask", "drop", "hash", "seal", "mask"}[i])
	}
	models := t.TempDir()
	place(t, models, "acme_chat/chat-1/model.yaml", "features: ["+all+"]\n")
	place(t, models, "some/1/model.yaml", "features: [{name: gen_ai.prompt, private: mask}]\n")
	place(t, models, "edited/1/model.yaml", "features: ["+all+"]\n")
	cfg := testConfig(t, models)
	cfg.Capture.Key.File = writeKEK(t, "1")
	cfg.Capture.Private = map[string]string{"ruled.gen_ai.*": "mask"}
	cfg.Upstreams = upstreamsOf(t, "upstreams: [{name: up, url: \"http://127.0.0.1:9\", features: ["+strings.TrimSuffix(all, ", ")+"]}]\n")
	r := startRig(t, cfg)
	failed := spokenOf("acme/chat", "chat-9", "text", 255)
	span := failed.Traces().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	span.Attributes().PutStr("error.type", canaryText)
	span.Status().SetCode(ptrace.StatusCodeError)
	r.sendSpans(t, 1, failed)
	n := byte(0)
	type made struct{ model, version string }
	ids := map[string]made{}
	say := func(r *rig, list ...made) {
		t.Helper()
		for _, m := range list {
			for _, form := range []string{"text", "json", "structure", "bytes"} {
				n++
				ids[fmt.Sprint("chat-", n)] = m
				r.sendSpans(t, int(n), spokenOf(m.model, m.version, form, n))
			}
		}
	}
	every := []made{
		{"acme/chat", "chat-1"},
		{"acme/chat", "chat-2"},
		{"acme/chat", ""},
		{"acme/chat", "chat-2026:x"},
		{"some", "1"},
		{"some", "2"},
		{"up", "1"},
		{"up", "7"},
		{"ruled", "1"},
		{"ruled", ""},
		{"edited", "1"},
		{"edited", "2"},
	}
	say(r, every...)
	// What is no longer declared is no feature, also where it was.
	place(t, models, "edited/1/model.yaml", "task: other\nfeatures: [{name: provider, private: mask}]\n")
	r.post(t, "/v2/repository/models/edited/load", "", nil)
	say(r, made{"edited", "1"})
	r.stored(t)
	r.halt(t)
	r = startRig(t, cfg)
	say(r, every...)
	r.stored(t)
	for id, m := range ids {
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if p.Outputs["finish_reasons"] != "stop,_OTHER,_OTHER,MAX_TOKENS" || p.Outputs["output_tokens"] != 5.0 || p.Features["operation"] != "chat" {
			t.Errorf("%+v: %+v", m, p)
		}
		if m.model == "acme/chat" && (p.Features["gen_ai.system_instructions"] != collector.Masked || p.Features["gen_ai.output.messages"] == nil || p.Features["gen_ai.input.messages"] != nil) {
			t.Errorf("%+v: what is declared of another version is no feature: %v", m, p.Features)
		}
		if m.model == "some" && (p.Features["gen_ai.prompt"] != collector.Masked || p.Features["gen_ai.completion"] != nil) {
			t.Errorf("%+v: %v", m, p.Features)
		}
	}
	var p collector.StoredPrediction
	if r.get(t, "/api/v1/predictions/chat-255", &p); p.Error != collector.TextNotKept || p.Version != "chat-9" || len(p.Outputs) != 0 {
		t.Errorf("a failed one: %+v", p)
	}
	db := r.database(t)
	if got := sql(t, db, "SELECT count() FROM otel_traces WHERE endsWith(TraceId, '000000000000')"); got != fmt.Sprint(n+1) {
		t.Errorf("%s spans of %d", got, n+1)
	}
	for _, table := range []string{"predictions", "otel_traces", "schemas"} {
		if rows := sql(t, db, "SELECT * FROM "+table+" FORMAT TSV"); leaks([]byte(rows)) != "" {
			t.Errorf("%s: %.3000s", table, rows)
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}

// TestSpansOfAModelThatJustCame: a request of spans that makes the first private model
// known is kept as those after it are.
func TestSpansOfAModelThatJustCame(t *testing.T) {
	models := t.TempDir()
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	if err := r.models.Load(t.Context(), "none"); err == nil {
		t.Fatal("there is a model")
	}
	place(t, models, "acme_chat/chat-1/model.yaml", "features: [{name: gen_ai.input.messages, private: drop}]\n")
	r.sendSpans(t, 1, spokenOf("acme/chat", "chat-1", "text", 1))
	r.stored(t)
	if rows := sql(t, r.database(t), "SELECT * FROM otel_traces WHERE endsWith(TraceId, '000000000000') FORMAT TSV"); leaks([]byte(rows)) != "" || !strings.Contains(rows, "left_out") {
		t.Errorf("%.2000s", rows)
	}
}
