package telemetry

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/pellucid/pellucid/collector"
)

const (
	saidText   = "QXCANARYQX"
	saidNumber = 123456.703125
)

// everywhere is a request whose span repeats the values wherever a text can stand, in
// every form that is looked for. id is its trace's, more its further attributes.
func everywhere(id, more string) string {
	float := binary.LittleEndian.AppendUint64(nil, math.Float64bits(saidNumber))
	b64 := base64.StdEncoding.EncodeToString
	said := `no ` + saidText + ` of 123,456.70 or 1.234567e+05 (` + b64([]byte("x"+saidText)) + `, ` + hex.EncodeToString([]byte(saidText)) + `)`
	attributes := `[{"key":"s","value":{"stringValue":"` + said + `"}},{"key":"is ` + saidText + `","value":{"boolValue":true}},{"key":"d","value":{"doubleValue":123456.703125}},
		{"key":"b","value":{"bytesValue":"` + b64([]byte("it is "+saidText)) + `"}},{"key":"f","value":{"bytesValue":"` + b64(float) + `"}},
		{"key":"l","value":{"arrayValue":{"values":[{"stringValue":"` + said + `"},{"doubleValue":123456.703125},{"bytesValue":"` + b64(float) + `"}]}}},
		{"key":"m","value":{"kvlistValue":{"values":[{"key":"` + saidText + `","value":{"kvlistValue":{"values":[{"key":"deep","value":{"bytesValue":"` + b64([]byte(saidText)) + `"}}]}}}]}}},
		{"key":"service.name","value":{"stringValue":"of ` + saidText + `"}},{"key":"exception.message","value":{"stringValue":"` + said + `"}},{"key":"ml.prediction.external_id","value":{"stringValue":"` + saidText + `"}},
		{"key":"gen_ai.agent.name","value":{"stringValue":"` + saidText + `"}},{"key":"kept","value":{"stringValue":"plain"}},{"key":"kept bytes","value":{"bytesValue":"cGxhaW4="}}`
	return `{"resourceSpans":[{"schemaUrl":"https://x/` + saidText + `","resource":{"attributes":` + attributes + `]},"scopeSpans":[{"schemaUrl":"https://x/` + saidText + `",
		"scope":{"name":"` + saidText + `","version":"` + saidText + `","attributes":` + attributes + `]},"spans":[{"traceId":"` + id + `","spanId":"eee19b7ec3c1b174","name":"` + said + `","traceState":"v=` + saidText + `",
		"startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000","attributes":` + attributes + more + `],"status":{"code":2,"message":"` + said + `"},
		"events":[{"name":"` + said + `","timeUnixNano":"1714564800000000001","attributes":` + attributes + `]}],
		"links":[{"traceId":"` + id + `","spanId":"eee19b7ec3c1b175","traceState":"v=` + saidText + `","attributes":` + attributes + `]}]}]}]}]}`
}

func post(t *testing.T, h http.Handler, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/v1/traces", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

// TestValuesAreTakenOutOfSpans: wherever and however the spans of a prediction's trace
// repeat its values, in the same request and in later ones.
func TestValuesAreTakenOutOfSpans(t *testing.T) {
	s := &taken{}
	h := NewIntake(IntakeConfig{Write: s.write}).Handler()
	const trace, another = "5b8efff798038103d269b633813fc60c", "5b8efff798038103d269b633813fc60d"
	prediction := `,{"key":"ml.model.name","value":{"stringValue":"m"}},{"key":"ml.features.name","value":{"stringValue":"` + saidText + `"}},{"key":"ml.features.income","value":{"doubleValue":123456.703125}}`
	post(t, h, everywhere(trace, prediction)) // the prediction's own
	post(t, h, everywhere(trace, ""))         // and later
	secrets := []string{saidText, "123456.7", "123,456.7", "1.234567e", hex.EncodeToString([]byte(saidText)), "NBUllR"}
	for offset := range 3 {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", offset) + saidText))[4:12])
	}
	secrets = append(secrets, base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, math.Float64bits(saidNumber)))[:8])
	for i, span := range s.spans {
		text := fmt.Sprintf("%+v", span)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("span %d has %q: %s", i, secret, text)
			}
		}
		if span.SpanAttributes["kept"] != "plain" || span.SpanAttributes["kept bytes"] != "cGxhaW4=" || span.SpanAttributes["ml.model.name"] != map[int]string{0: "m"}[i] || !strings.HasPrefix(span.SpanName, "no *** of ***") {
			t.Errorf("span %d lacks %s", i, text)
		}
	}
	if post(t, h, everywhere(another, "")); len(s.spans) != 3 || !strings.Contains(s.spans[2].SpanName, saidText) || s.spans[2].SpanAttributes["f"] == collector.Masked {
		t.Errorf("the test sees nothing, or another trace is cleaned: %+v", s.spans)
	}
}

// TestTracesAreForgotten in time and where there is too much to remember, which is told.
func TestTracesAreForgotten(t *testing.T) {
	var m traceValues
	value := func(i int) collector.Scrubber {
		return collector.NewScrubber([]json.RawMessage{json.RawMessage(fmt.Sprintf(`"value %04d"`, i))}, nil)
	}
	each := value(0).Size() + traceCost
	m.limit(10*each, time.Minute)
	at := func(i int) (id pcommon.TraceID) {
		binary.LittleEndian.PutUint32(id[:], uint32(i))
		return id
	}
	now := time.Unix(1, 0)
	has := func(i int, now time.Time) bool {
		x, _ := m.with(at(i), collector.Scrubber{}, now)
		return x.Text(fmt.Sprintf("value %04d", i)) == collector.Masked
	}
	var lost int64
	for i := range 30 {
		x, n := m.with(at(i), value(i), now.Add(time.Duration(i)*time.Second))
		if lost += n; x.Empty() {
			t.Error("a request's own values are not looked for")
		}
	}
	if lost != 20 || len(m.by) != 10 || m.order.Len() != 10 || m.bytes > m.most || has(19, now) || !has(20, now) || !has(29, now) {
		t.Errorf("%d forgotten, %d of %d bytes", lost, m.bytes, m.most)
	}
	// What is spoken of again stays longer, and has both.
	if x, _ := m.with(at(20), value(7777), now.Add(65*time.Second)); x.Text("value 0020 value 7777") != "*** ***" {
		t.Error("what was said before is lost")
	}
	if has(20, now.Add(100*time.Second)) != true || has(29, now.Add(100*time.Second)) || len(m.by) != 1 {
		t.Errorf("%d traces after their time", len(m.by))
	}
	if has(20, now.Add(200*time.Second)) || m.bytes != 0 || m.order.Len() != 0 {
		t.Errorf("%d bytes of nothing", m.bytes)
	}
}

// TestManyValuesOfOneTrace: all are looked for, however many rows a batch has.
func TestManyValuesOfOneTrace(t *testing.T) {
	var rows []map[string]any
	for i := range 2 * maxSpanValues {
		rows = append(rows, map[string]any{"ml.model.name": "m", "ml.features.x": fmt.Sprintf("secret-%d-of-somebody", i)})
	}
	rows = append(rows, map[string]any{"said": fmt.Sprintf("secret-%d-of-somebody", 2*maxSpanValues-1)})
	var got []Span
	in := NewIntake(IntakeConfig{Write: func(_ context.Context, spans []Span) error { got = spans; return nil }})
	traces := tracesOf(t, rows...)
	got, _ = spansOf(traces, in.scrubbers(t.Context(), traces))
	if text := fmt.Sprint(got[len(got)-1]); strings.Contains(text, "secret") || len(got) < maxSpanValues {
		t.Error(text)
	}
}

// TestShortValuesInAttributes are taken out of their values, of keys and of trace states, but for
// what programs bear.
func TestShortValuesInAttributes(t *testing.T) {
	s := &taken{}
	h := NewIntake(IntakeConfig{Write: s.write}).Handler()
	attributes := `{"key":"str","value":{"stringValue":"who Ann is 734"}},{"key":"int","value":{"intValue":"734"}},{"key":"Ann","value":{"boolValue":true}},
		{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"Ann"},{"intValue":"41"}]}}},{"key":"db.Ann","value":{"stringValue":"x41"}},{"key":"service.version","value":{"stringValue":"41"}}`
	span := func(more string) string {
		return `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"n","traceState":"v=Ann","startTimeUnixNano":"1714564800000000000","attributes":[` + attributes + more + `]}]}]}]}`
	}
	post(t, h, span(`,{"key":"ml.model.name","value":{"stringValue":"m"}},{"key":"ml.features.who","value":{"stringValue":"Ann"}},{"key":"ml.features.age","value":{"intValue":"734"}},{"key":"ml.features.n","value":{"intValue":"41"}}`))
	post(t, h, span(""))
	for i := range s.spans {
		got := s.spans[i].SpanAttributes
		delete(got, "ml.model.name")
		want := map[string]string{"str": "who *** is ***", "int": "***", "***": "true", "list": `["***",***]`, "db.Ann": "x41", "service.version": "41"}
		if !maps.Equal(got, want) || s.spans[i].TraceState != "v=***" {
			t.Errorf("span %d: %q, state %q, want %q", i, got, s.spans[i].TraceState, want)
		}
	}
	if len(s.spans) != 2 {
		t.Errorf("%d spans", len(s.spans))
	}
}
