package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// TestOnlyKnownWordsOfOthersAreKept: errors of imported predictions and spans, written so
// that no search finds what they repeat, where a field is private, and where the operator
// asks for a search, or nothing is private.
func TestOnlyKnownWordsOfOthersAreKept(t *testing.T) {
	const odd = `bad \\121XCAN of SECRET-17`
	span := func(trace string) string {
		return `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]},"scopeSpans":[{"spans":[{"traceId":"` + trace + `","spanId":"eee19b7ec3c1b174","name":"score ` + odd + `",
			"kind":3,"startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":[{"key":"http.response.status_code","value":{"intValue":"503"}},{"key":"of","value":{"stringValue":"` + odd + `"}}]}]}]}]}`
	}
	row := func(model, id, text string) string {
		return fmt.Sprintf(`{"model":%q,"id":%q,"status":500,"error":"%s","features":{"owner":"QXCANARYQX","age":41},"outputs":{"score":0.5}}`, model, id, text)
	}
	for name, c := range map[string]struct {
		private, texts string
		errors         string // of the rows below
		spans          string
	}{
		"known":           {"drop", textsKnown, collector.TextNotKept + "|timeout|upstream busy|" + strings.ReplaceAll(odd, `\\`, `\`), "client||503|2"},
		"cleaned":         {"drop", textsCleaned, `bad \121XCAN of SECRET-17|timeout|upstream busy|bad \121XCAN of SECRET-17`, `score bad \121XCAN of SECRET-17|bad \121XCAN of SECRET-17|503|`},
		"nothing private": {"", textsKnown, `bad \121XCAN of SECRET-17|timeout|upstream busy|bad \121XCAN of SECRET-17`, `score bad \121XCAN of SECRET-17|bad \121XCAN of SECRET-17|503|`},
	} {
		t.Run(name, func(t *testing.T) {
			models := t.TempDir()
			yaml := "task: binary\n"
			if c.private != "" {
				yaml += "features: [{name: owner, private: " + c.private + "}]\n"
			}
			place(t, models, "loans/1/model.yaml", yaml)
			cfg := testConfig(t, models)
			cfg.Capture.Texts, cfg.Capture.KnownTexts = c.texts, []string{"upstream busy"}
			r := startRig(t, cfg)
			const trace = "5b8efff798038103d269b633813fc60c"
			if status, b, _ := r.call(t, "POST", "/v1/traces", span(trace)); status != http.StatusOK {
				t.Fatalf("a span: %d %s", status, b)
			}
			rows := []string{row("loans", "a", odd), row("loans", "b", "timeout"), row("loans", "c", "upstream busy"), row("open", "d", odd)}
			if status, b, _ := r.call(t, "POST", "/api/v1/predictions", "["+strings.Join(rows, ",")+"]"); status != http.StatusOK || !strings.Contains(string(b), `"accepted":4`) {
				t.Fatalf("an import: %d %s", status, b)
			}
			r.stored(t)
			var errors []string
			for _, id := range []string{"a", "b", "c", "d"} {
				var p collector.StoredPrediction
				r.get(t, "/api/v1/predictions/"+id, &p)
				errors = append(errors, p.Error)
			}
			if got := strings.Join(errors, "|"); got != c.errors {
				t.Errorf("errors %q, want %q", got, c.errors)
			}
			got := sql(t, r.database(t), "SELECT concat(SpanName, '|', SpanAttributes['of'], '|', SpanAttributes['http.response.status_code'], '|', SpanAttributes['ml.span.left_out']) FROM otel_traces WHERE ServiceName = 'checkout' FORMAT TabSeparatedRaw")
			if got != c.spans {
				t.Errorf("the span is %q, want %q", got, c.spans)
			}
		})
	}
}
