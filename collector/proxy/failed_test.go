package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// TestRefusedRequestsKeepTheirCallersID: where it could be read and recorded.
func TestRefusedRequestsKeepTheirCallersID(t *testing.T) {
	r := newRig(t, nil)
	wide := tensor("input", "FP32", "[2,2]", "[1,2,3,4]")
	fits := tensor("input", "FP32", "[1,3]", "[1,2,3]")
	for body, want := range map[string]string{
		`{"id":"order-7","inputs":[` + wide + `]}`:                                         "order-7",
		`{"id":"x","parameters":{"external_id":"order-8"},"inputs":[` + wide + `]}`:        "order-8",
		`{"parameters":{"external_id":9},"inputs":[` + wide + `]}`:                         "9",
		`{"id":"order-10","parameters":{"event_time":"never"},"inputs":[` + fits + `]}`:    "order-10",
		`{"id":"x","parameters":{"external_ids":"[\"a\",\"b\"]"},"inputs":[` + wide + `]}`: "",
		`{"id":"x","parameters":{"external_id":true},"inputs":[` + wide + `]}`:             "",
		`{"id":"` + strings.Repeat("x", maxExternalID+1) + `","inputs":[` + wide + `]}`:    "",

		`{"inputs":[` + wide + `]}`: "",
	} {
		before := r.tape.len()
		if w := r.do("POST", "/v2/models/lin/infer", body); w.Code != 400 || r.tape.len() != before+1 {
			t.Fatalf("%.80s: %d %s, %d records", body, w.Code, w.Body, r.tape.len()-before)
		}
		if p := r.tape.last(t); strings.Join(p.ExternalIDs, ",") != want {
			t.Errorf("%.80s: recorded under %q, want %q", body, p.ExternalIDs, want)
		}
	}
}

// TestFailedPredictionsKeepWhatWasAsked: from the moment that inputs fit the model they
// are handed on, row by row, whatever becomes of the request.
func TestFailedPredictionsKeepWhatWasAsked(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Timeout = time.Second })
	broken := tensor("input", "FP32", "[2,3]", "[[1,2,3],[777,5,6]]")
	panics := tensor("input", "FP32", "[1,3]", "[666,2,3]")
	cases := []struct {
		name, path, body string
		status, rows     int // rows with values, 0 for one without
	}{
		{"a batch", "/v2/models/lin/infer", `{"parameters":{"event_time":"2013-03-04T05:06:07Z"},"inputs":[` + broken + `]}`, 500, 2},
		{"v1", "/v1/models/lin:predict", `{"instances":[[1,2,3],[777,5,6]]}`, 500, 2},
		{"a panic", "/v2/models/lin/infer", inputs(panics), 500, 1},
		{"an answer that cannot be written", "/v2/models/text/infer", "", 400, 1},
		{"the deadline", "/v2/models/slow/infer", inputs(tensor("x", "FP64", "[2]", "[1,2]")), 504, 2},
		{"another width", "/v2/models/lin/infer", inputs(tensor("input", "FP32", "[1,2]", "[1,2]")), 400, 0},
		{"no JSON", "/v2/models/lin/infer", "{", 400, 0},
	}
	r.shelf.models["slow"] = versionOf(t, "slow", sleeper{identity{identityInfo(engine.Float64, -1)}})
	r.shelf.loaded["slow"] = true
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := r.tape.len()
			var headers []string
			if c.body == "" { // a text that JSON cannot carry
				head := `{"inputs":[{"name":"x","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`
				c.body, headers = head+"\x01\x00\x00\x00\xff", []string{"Inference-Header-Content-Length", fmt.Sprint(len(head))}
			}
			w := r.do("POST", c.path, c.body, headers...)
			if w.Code != c.status || r.tape.len() != before+1 {
				t.Fatalf("%d %s, %d records", w.Code, w.Body, r.tape.len()-before)
			}
			p, in := r.tape.last(t), r.tape.in[before]
			if p.Status != c.status || p.Rows != max(c.rows, 1) || p.Error == "" || !p.Answered || (in != nil) != (c.rows > 0) || r.tape.out[before] != nil {
				t.Errorf("recorded %+v with %v", p, in)
			}
			if in != nil && in[0].Tensor.Rows() != c.rows {
				t.Errorf("%d rows of values", in[0].Tensor.Rows())
			}
			if got := w.Header().Get("Pellucid-Capture"); got != p.Capture || (got == collector.CaptureFull) != (c.rows > 0) {
				t.Errorf("it says %q, the record %q", got, p.Capture)
			}
			if c.name == "a batch" && (len(p.Times) != 1 || p.Times[0].Year() != 2013) {
				t.Errorf("times %v", p.Times)
			}
		})
	}
}

// sleeper sleeps until its time is over.
type sleeper struct{ identity }

func (m sleeper) NewSession(engine.SessionOptions) (engine.Session, error) { return m, nil }

func (m sleeper) Run(ctx context.Context, _ engine.Values, _ []string) (engine.Values, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestTooManyLeaveARow: a request for which there was no place is recorded.
func TestTooManyLeaveARow(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxInFlight = 1 })
	r.s.inFlight.Add(1)
	w := r.do("POST", "/v2/models/lin/infer", goodBody)
	if w.Code != 503 || r.tape.len() != 1 {
		t.Fatalf("%d, %d records", w.Code, r.tape.len())
	}
	if p := r.tape.last(t); p.Status != 503 || p.Latency.Decode != 0 || p.Error == "" {
		t.Errorf("recorded %+v", p)
	}
}

// TestEveryRouteKeepsItsFailures: a request that is no inference has a span where it
// failed, with nothing in it that came with the request.
func TestEveryRouteKeepsItsFailures(t *testing.T) {
	var kept []LateSpan
	r := newRig(t, func(c *Config) { c.Keep, c.KeepRefused = func(l LateSpan) { kept = append(kept, l) }, 5 })
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	const secret = "QXSECRETQX"
	for _, c := range []struct {
		method, path, body string
		status             int
		name               string
	}{
		{"POST", "/api/v1/feedback", secret, 400, "POST /api/v1/feedback"},
		{"POST", "/api/v1/predictions", secret, 400, "POST /api/v1/predictions"},
		{"GET", "/api/v1/predictions/" + secret, "", 501, "GET /api/v1/predictions/:id"},
		{"GET", "/v2/models/" + secret, "", 404, "GET /v2/models/:model"},
		{"GET", "/api/v1/" + secret, "", 404, "GET /api/v1/" + secret},
		{secret, "/v2/models/lin", "", 405, "_OTHER /v2/models/:model"},
		{"POST", "/v2/models/" + secret + "/infer", goodBody, 404, "predict"},
		{"GET", "/v2", "", 200, ""},
	} {
		kept = nil
		w := r.do(c.method, c.path, c.body, "traceparent", parent)
		if w.Code != c.status || (len(kept) == 1) != (c.name != "") {
			t.Errorf("%s: %d, kept %+v", c.path, w.Code, kept)
			continue
		}
		if c.name == "" {
			continue
		}
		l := kept[0]
		if l.Name != c.name && c.path != "/api/v1/"+secret || l.Parent.SpanID().String() != "b7ad6b7169203331" || (l.Code != 0) != (c.status >= 500) || w.Header().Get("Traceparent") != traceparent(l.Own) {
			t.Errorf("%s: kept %+v, told %s", c.path, l, w.Header().Get("Traceparent"))
		}
		if text := fmt.Sprint(l.Name, l.Description, attribute.NewSet(l.Attributes...)); len(text) == 0 || strings.Contains(text, secret) {
			t.Errorf("%s: its span holds what came with it: %s", c.path, text)
		}
	}
	kept = nil
	for range 100 {
		r.do("POST", "/api/v1/predictions", "x")
		r.do("GET", "/api/v1/predictions/x", "")
	}
	refused := 0
	for _, l := range kept {
		if l.Code == 0 {
			refused++
		}
	}
	if len(kept)-refused != 100 || refused > 90 {
		t.Errorf("%d failures of 100 kept, and %d mistakes", len(kept)-refused, refused)
	}
}
