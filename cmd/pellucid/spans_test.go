package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

// fickle is a model server whose model answers as it is asked to: 5 breaks it, 7 takes
// long, 9 for ever.
func fickle(t *testing.T) *httptest.Server {
	t.Helper()
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/v2":
			_, _ = io.WriteString(w, `{"name":"s","version":"1","extensions":[]}`)
		case !strings.HasSuffix(r.URL.Path, "/infer"):
			_, _ = io.WriteString(w, `{"name":"up","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1]},{"name":"s","datatype":"BYTES","shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}`)
		case strings.Contains(string(body), `"data":[5`):
			http.Error(w, `{"error":"broken"}`, http.StatusInternalServerError)
		case strings.Contains(string(body), `"data":[9`):
			<-r.Context().Done()
		default:
			if strings.Contains(string(body), `"data":[7`) {
				time.Sleep(300 * time.Millisecond)
			}
			_, _ = io.WriteString(w, `{"model_name":"up","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1]}]}`)
		}
	}))
	t.Cleanup(back.Close)
	return back
}

// asking is a request of one row to the fickle model.
func asking(value any, text string) string {
	return fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[%v]},{"name":"s","datatype":"BYTES","shape":[1],"data":[%q]}]}`, value, text)
}

// traced sends a request of a caller that has a trace, and returns the status.
func (r *rig) traced(t *testing.T, path, body, traceparent string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("traceparent", traceparent)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestEverySpanOnce: whatever becomes of a request, sampled or not, each of its spans is
// stored once, and those of failures always are.
func TestEverySpanOnce(t *testing.T) {
	none := 0.0
	cfg := testConfig(t, t.TempDir())
	cfg.Telemetry.Sample, cfg.Telemetry.KeepSlower = &none, duration(200*time.Millisecond)
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf("upstreams: [{name: up, url: %s}]", fickle(t).URL))
	r := startRig(t, cfg)
	const all = "capture model.run predict up"
	cases := []struct {
		body    string
		status  int
		sampled bool
		want    string
	}{
		{asking(1, ""), 200, true, all},
		{asking(1, ""), 200, false, ""},
		{"{", 400, true, "capture predict up"},
		{"{", 400, false, "capture predict up"},
		{asking(5, ""), 502, true, all},
		{asking(5, ""), 502, false, all},
		{asking(7, ""), 200, true, all},
		{asking(7, ""), 200, false, all},
	}
	for i, c := range cases {
		flag := map[bool]string{true: "01", false: "00"}[c.sampled]
		if code := r.traced(t, "/v2/models/up/infer", c.body, fmt.Sprintf("00-0af7651916cd43dd8448eb211c8031%02x-b7ad6b7169203331-%s", i, flag)); code != c.status {
			t.Errorf("case %d: %d", i, code)
		}
	}
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := r.database(t)
	for i, c := range cases {
		got := sql(t, db, fmt.Sprintf("SELECT arrayStringConcat(arraySort(groupArray(SpanName)), ' ') FROM otel_traces WHERE TraceId = '0af7651916cd43dd8448eb211c8031%02x'", i))
		if got != c.want {
			t.Errorf("case %d, status %d, sampled %t: spans %q, not %q", i, c.status, c.sampled, got, c.want)
		}
	}
	if n := sql(t, db, "SELECT count() - uniqExact(TraceId, SpanId) FROM otel_traces"); n != "0" {
		t.Errorf("%s spans are there twice", n)
	}
}

// TestSpansOfAnOutage: ClickHouse is away for longer than a span sampled by chance is
// offered. Those of what failed, was slow or explains, sampled or not, are stored when it
// is back, as is the request's row.
func TestSpansOfAnOutage(t *testing.T) {
	none := 0.0
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	cfg.Telemetry.Sample, cfg.Telemetry.KeepSlower, cfg.Telemetry.retryFor = &none, duration(200*time.Millisecond), time.Millisecond
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf("upstreams: [{name: up, url: %s}]", fickle(t).URL))
	r := startRig(t, cfg)
	one := *c
	one.rows = c.rows[:1]
	cases := []struct {
		path, body string
		status     int
		flag, want string
	}{
		{"/v2/models/up/infer", asking(1, ""), 200, "01", "0"},
		{"/v2/models/up/infer", asking(5, ""), 502, "00", "3"},
		{"/v2/models/up/infer", asking(5, ""), 502, "01", "3"},
		{"/v2/models/up/infer", asking(7, ""), 200, "00", "3"},
		{"/v2/models/up/infer", asking(7, ""), 200, "01", "3"},
		{"/v2/models/m/explain", one.body(""), 200, "00", "4"},
	}
	f.cut()
	for i, c := range cases {
		parent := fmt.Sprintf("00-0af7651916cd43dd8448eb211c8032%02x-b7ad6b7169203331-%s", i, c.flag)
		if code := r.traced(t, c.path, c.body, parent); code != c.status {
			t.Fatalf("case %d: %d", i, code)
		}
	}
	until(t, "the usual spans are given up", func() bool { return r.telemetry.Stats().Failed >= 3 })
	f.open(t)
	r.stored(t)
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		trace := fmt.Sprintf("0af7651916cd43dd8448eb211c8032%02x", i)
		spans := sql(t, r.database(t), "SELECT count() FROM otel_traces WHERE TraceId = '"+trace+"'")
		if rows := sql(t, r.database(t), "SELECT count() FROM predictions WHERE trace_id = '"+trace+"'"); rows != "1" || spans != c.want {
			t.Errorf("case %d, status %d, flag %s: %s rows and %s spans, want 1 and %s", i, c.status, c.flag, rows, spans, c.want)
		}
	}
}

// TestExemplarLeadsToThePrediction goes the whole road: from a metric's bucket by its
// exemplar to the trace and the prediction, of requests that nobody sampled.
func TestExemplarLeadsToThePrediction(t *testing.T) {
	none := 0.0
	cfg := testConfig(t, t.TempDir())
	cfg.Telemetry.Sample, cfg.Telemetry.KeepSlower = &none, duration(200*time.Millisecond)
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf("upstreams: [{name: up, url: %s}]", fickle(t).URL))
	r := startRig(t, cfg)
	failed := r.mustCall(t, asking(5, "kept"), 502)
	slow := r.mustCall(t, asking(7, "kept"), 200)
	r.mustCall(t, asking(1, "usual"), 200)
	r.stored(t)
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ml_server_request_duration_seconds_bucket\{.*http_response_status_code="(\d+)".*\} \d+ # \{[^}]*trace_id="([0-9a-f]{32})"`).FindAllStringSubmatch(string(text), -1) {
		found[m[2]] = m[1]
	}
	if len(found) != 2 {
		t.Errorf("exemplars %v", found)
	}
	for id, want := range map[string]string{failed: "502", slow: "200"} {
		trace := strings.Split(id, " ")[1]
		if found[trace] != want {
			t.Errorf("no exemplar names the trace %s of status %s: %v", trace, want, found)
		}
		var of struct{ Predictions []collector.StoredPrediction }
		r.get(t, "/api/v1/predictions/trace:"+trace, &of)
		if len(of.Predictions) != 1 {
			t.Fatalf("%d predictions of the trace", len(of.Predictions))
		}
		p := of.Predictions[0]
		if p.TraceID != trace || fmt.Sprint(p.Status) != want || p.Features["s"] != "kept" || p.Capture != "full" {
			t.Errorf("the trace leads to %+v", p)
		}
		if n := sql(t, r.database(t), "SELECT count() FROM otel_traces WHERE TraceId = '"+trace+"'"); n != "3" {
			t.Errorf("%s spans of the exemplar's trace", n)
		}
	}
}

// mustCall asks the fickle model and returns the ids of the prediction and its trace.
func (r *rig) mustCall(t *testing.T, body string, want int) string {
	t.Helper()
	code, b, h := r.call(t, "POST", "/v2/models/up/infer", body)
	if code != want {
		t.Fatalf("%d %s", code, b)
	}
	return h.Get("Pellucid-Prediction-Id") + " " + strings.Split(h.Get("Traceparent"), "-")[1]
}

// TestFailedPredictionsAreStored: a failed or timed-out prediction keeps what was asked,
// is told so, and is not explained.
func TestFailedPredictionsAreStored(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Limits.Timeout = duration(time.Second)
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf("upstreams: [{name: up, url: %s, features: [{name: s, private: mask}]}]", fickle(t).URL))
	r := startRig(t, cfg)
	broken := r.mustCall(t, asking(5, canaryText), 502)
	late := r.mustCall(t, asking(9, canaryText), 504)
	batch := r.mustCall(t, `{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[5,6]},{"name":"s","datatype":"BYTES","shape":[2],"data":["`+canaryText+`","b"]}]}`, 502)
	r.stored(t)
	for id, want := range map[string]struct {
		status int
		x      float64
	}{broken + ".0": {502, 5}, late + ".0": {504, 9}, batch + ".0": {502, 5}, batch + ".1": {502, 6}} {
		id = strings.Split(id, " ")[0] + id[strings.LastIndex(id, "."):]
		var p collector.StoredPrediction
		r.get(t, "/api/v1/predictions/"+id, &p)
		if p.Status != want.status || p.Features["x"] != want.x || p.Features["s"] != "***" || p.Capture != "full" || p.Error == "" || len(p.Outputs) != 0 {
			t.Errorf("stored %+v", p)
		}
		status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`)
		if status != 422 || !strings.Contains(string(b), fmt.Sprintf("failed with status %d", want.status)) {
			t.Errorf("explain %s: %d %s", id, status, b)
		}
	}
	r.halt(t)
	searchFolder(t, cfg.Data)
	if found := leaks([]byte(r.log.String())); found != "" {
		t.Errorf("the log holds %s", found)
	}
}

// TestFailuresOfEveryRouteHaveSpans: those that are the server's fault all, those that
// are the caller's so many a second.
func TestFailuresOfEveryRouteHaveSpans(t *testing.T) {
	none := 0.0
	cfg := testConfig(t, t.TempDir())
	cfg.Telemetry.Sample = &none
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	const refusedEach, failedEach = 60, 12
	for range refusedEach {
		for _, path := range []string{"/api/v1/feedback", "/api/v1/predictions", "/api/v1/cloudevents", "/v1/traces"} {
			if code, b, _ := r.call(t, "POST", path, "x"); code < 400 || code >= 500 {
				t.Fatalf("%s: %d %s", path, code, b)
			}
		}
	}
	recorder := pellucidv1.NewRecorderClient(r.dial(t))
	if _, err := recorder.RecordFeedback(t.Context(), &pellucidv1.RecordFeedbackRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty list by gRPC: %v", err)
	}
	f.cut()
	for range failedEach {
		for _, path := range []string{"/api/v1/predictions?model=x", "/api/v1/predictions/x"} {
			if code, b, _ := r.call(t, "GET", path, ""); code < 500 {
				t.Fatalf("%s: %d %s", path, code, b)
			}
		}
		span := `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b171","name":"a","startTimeUnixNano":"1714564800000000000","endTimeUnixNano":"1714564800250000000"}]}]}]}`
		if code, b, _ := r.call(t, "POST", "/v1/traces", span); code != 503 {
			t.Fatalf("/v1/traces: %d %s", code, b)
		}
	}
	f.open(t)
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := r.database(t)
	if n := sql(t, db, "SELECT count() FROM otel_traces WHERE StatusCode = 'Error' AND SpanKind = 'Server' AND SpanAttributes['http.response.status_code'] >= '500'"); n != fmt.Sprint(3*failedEach) {
		t.Errorf("%s spans of %d failures", n, 3*failedEach)
	}
	var refused int
	if _, err := fmt.Sscan(sql(t, db, "SELECT count() FROM otel_traces WHERE SpanAttributes['http.response.status_code'] LIKE '4%'"), &refused); err != nil || refused < 10 || refused > 3*refusedEach {
		t.Errorf("%d spans of %d refusals: %v", refused, 4*refusedEach, err)
	}
}
