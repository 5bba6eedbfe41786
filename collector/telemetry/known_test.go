package telemetry

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestOnlyKnownTextsAreKept: where a field is private nothing that a span says in its own
// words is kept, wherever it stands and however it is written, before its trace's
// prediction is heard of and after; what conventions fix stays, and what is named.
func TestOnlyKnownTextsAreKept(t *testing.T) {
	s := &taken{}
	private := false
	var log bytes.Buffer
	h := NewIntake(IntakeConfig{
		Write: s.write, Private: func() bool { return private }, Model: func(name string) bool { return name == "m" },
		KnownTexts: []string{"load features", "worked"}, KnownAttributes: []string{"http.route"}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}).Handler()
	const trace = "5b8efff798038103d269b633813fc60c"
	post(t, h, everywhere(trace, ""))
	if text := fmt.Sprintf("%+v", s.spans); !strings.Contains(text, saidText) {
		t.Fatalf("the test sees nothing: %s", text)
	}
	private, s.spans = true, nil
	// As its bytes in octal, by code points, with its digits apart: forms that no search is for.
	odd := `,{"key":"o","value":{"stringValue":"\\121X\\103ANARY"}},{"key":"` + saidText[1:] + `","value":{"intValue":"123456"}}`
	post(t, h, everywhere(trace, odd))
	post(t, h, everywhere(trace, odd+`,{"key":"ml.model.name","value":{"stringValue":"m"}},{"key":"ml.features.name","value":{"stringValue":"`+saidText+`"}}`))
	if len(s.spans) != 2 {
		t.Fatalf("%d spans", len(s.spans))
	}
	for i, span := range s.spans {
		// The service's name is the sender's own to choose: README says so.
		if span.ServiceName != "of "+saidText || span.ResourceAttributes["service.name"] != span.ServiceName {
			t.Errorf("service %q", span.ServiceName)
		}
		span.ServiceName = ""
		delete(span.ResourceAttributes, "service.name")
		if text := fmt.Sprintf("%+v", span); strings.Contains(text, "CANARY") || strings.Contains(text, "1234") || strings.Contains(text, "plain") {
			t.Errorf("span %d keeps %s", i, text)
		}
		if span.SpanName != "unspecified" || span.SpanAttributes[leftOut] == "" || span.TraceID != trace || span.Duration == 0 || span.StatusCode != "Error" ||
			len(span.Events) != 1 || len(span.Links) != 1 {
			t.Errorf("span %d lacks %+v", i, span)
		}
	}
	if s.spans[1].SpanAttributes["ml.model.name"] != "m" {
		t.Errorf("its model is not kept: %v", s.spans[1].SpanAttributes)
	}
	if strings.Count(log.String(), "capture.known_texts") != 1 {
		t.Errorf("told %q", log.String())
	}

	s.spans = nil
	post(t, h, `{"resourceSpans":[{"resource":{"attributes":[{"key":"telemetry.sdk.language","value":{"stringValue":"python"}},{"key":"host.name","value":{"stringValue":"h"}}]},
		"scopeSpans":[{"scope":{"name":"worked"},"spans":[`+
		known("load features", `{"key":"http.route","value":{"stringValue":"/a/{id}"}},{"key":"http.response.status_code","value":{"intValue":"503"}},{"key":"error.type","value":{"stringValue":"timeout"}}`, "worked")+`,`+
		known("GET /people/17", `{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"http.response.status_code","value":{"intValue":"41235"}},{"key":"ml.model.name","value":{"stringValue":"other"}},{"key":"error.type","value":{"stringValue":"Qx"}}`, "")+`]}]}]}`)
	want := []struct{ name, message, scope, attributes string }{
		{"load features", "worked", "worked", "map[error.type:timeout http.response.status_code:503 http.route:/a/{id}]"},
		{"GET", "", "worked", "map[http.request.method:GET ml.span.left_out:4]"},
	}
	for i, w := range want {
		got := s.spans[i]
		if got.SpanName != w.name || got.StatusMessage != w.message || got.ScopeName != w.scope || fmt.Sprint(got.SpanAttributes) != w.attributes ||
			!slices.Equal(slices.Collect(maps.Keys(got.ResourceAttributes)), []string{"telemetry.sdk.language"}) {
			t.Errorf("%+v, want %+v", got, w)
		}
	}
}

func known(name, attributes, message string) string {
	return `{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"` + name + `","kind":2,"startTimeUnixNano":"1714564800000000000",
		"endTimeUnixNano":"1714564800250000000","attributes":[` + attributes + `],"status":{"code":2,"message":"` + message + `"}}`
}
