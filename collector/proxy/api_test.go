package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

const goodBody = `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`

func TestKServeV1(t *testing.T) {
	r := newRig(t, nil)
	f := func(model, body, want string) {
		t.Helper()
		w := r.do("POST", "/v1/models/"+model+":predict", body)
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
	f("lin", `{"instances":[[1,2,3],[4,5,6]]}`, `{"predictions":[14,32]}`)
	f("lin", `{"instances":[{"c":3,"a":1,"b":2}]}`, `{"predictions":[14]}`)
	f("lin", `{"instances":[[1,2,"green"]]}`, `{"predictions":[8]}`)
	f("lin", `{"instances":[{"a":1,"b":2,"c":"green"},{"a":1,"b":2,"c":"red"}]}`, `{"predictions":[8,5]}`)
	f("lin", `{"instances":[[1,2,null]]}`, `{"predictions":[null]}`)
	f("a%2Fb%20c", `{"instances":[[1,2,3]]}`, `{"predictions":[14]}`)
	f("big", `{"instances":[9007199254740993]}`, `{"predictions":[9007199254740993]}`)
	f("text", `{"instances":["a","b"]}`, `{"predictions":[["a"],["b"]]}`)
	f("text", `{"instances":[["a"],["b"]]}`, `{"predictions":[["a"],["b"]]}`)
	if p := r.tape.last(t); p.Route != collector.RoutePredict || p.Rows != 2 {
		t.Errorf("route %s rows %d", p.Route, p.Rows)
	}
	get := func(path, want string) {
		t.Helper()
		if w := r.do("GET", path, ""); w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	get("/", `{"status":"alive"}`)
	get("/v1/models/lin", `{"name":"lin","ready":true}`)
	get("/v2/models/a%2Fb%20c/ready", `{"name":"a/b c","ready":true}`)
	get("/v2/health/live", `{"live":true}`)
	get("/v2/health/ready", `{"live":true,"ready":true}`)
	get("/v2/", `{"name":"pellucid","version":"dev","extensions":["binary_tensor_data","model_repository","explain"]}`)
}

func TestRepository(t *testing.T) {
	r := newRig(t, nil)
	if w := r.do("POST", "/v2/repository/models/lin/unload", `{"parameters":{"unload_dependents":false}}`); w.Code != 200 {
		t.Fatalf("unload: %d %s", w.Code, w.Body)
	}
	w := r.do("POST", "/v2/models/lin/infer", goodBody)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("infer on an unloaded model: %d", w.Code)
	}
	if w := r.do("GET", "/v2/models/lin/ready", ""); w.Code != 503 || strings.TrimSpace(w.Body.String()) != `{"name":"lin","ready":false}` {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	list := func(body string) (out []collector.ModelState) {
		if err := json.Unmarshal(r.do("POST", "/v2/repository/index", body).Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if all, ready := list(""), list(`{"ready":true}`); len(all) != len(ready)+1 {
		t.Errorf("index has %d models, %d ready", len(all), len(ready))
	}
	if w := r.do("POST", "/v2/repository/models/lin/load", ""); w.Code != 200 {
		t.Errorf("load: %d", w.Code)
	}
	var meta struct {
		Versions []string
		Inputs   []struct {
			Name, Datatype string
			Shape          []int
		}
	}
	if err := json.Unmarshal(r.do("GET", "/v2/models/lin/versions/1", "").Body.Bytes(), &meta); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(meta) != "{[1] [{input FP32 [-1 3]}]}" {
		t.Errorf("metadata %v", meta)
	}
}

func TestHostMustBeLoopback(t *testing.T) {
	r := newRig(t, nil)
	f := func(path string, status int, headers ...string) {
		t.Helper()
		if w := r.do("GET", path, "", headers...); w.Code != status {
			t.Errorf("%s %v: %d, want %d", path, headers, w.Code, status)
		}
	}
	for _, host := range []string{"localhost", "LOCALHOST:80", "127.0.0.1", "127.8.0.1:99", "[::1]:80", "::1", "[::ffff:127.0.0.1]:1"} {
		f("/v2", 200, "Host", host)
	}
	for _, host := range []string{"example.com", "127.0.0.1.example.com", "10.0.0.1:8080", "localhost.evil", ""} {
		f("/v2", 403, "Host", host)
		f("/healthz", 200, "Host", host)
		f("/readyz", 200, "Host", host)
	}
	f("/v2", 403, "Origin", "https://evil.example")
	f("/v2", 403, "Origin", "null")
	f("/v2", 200, "Origin", "http://localhost:3000")
	open := newRig(t, func(c *Config) { c.AllowNonLoopback = true })
	if w := open.do("GET", "/v2", "", "Host", "example.com"); w.Code != 200 {
		t.Errorf("allowed host: %d", w.Code)
	}
}

func TestMalformedQueriesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/v2/models/lin/infer?a;b", "/v2/models?%zz", "/api/v1/predictions/x?a=%z", "/healthz?a;"} {
		method := "GET"
		if strings.HasSuffix(path, "b") {
			method = "POST"
		}
		if w := r.do(method, path, goodBody); w.Code != 400 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func pack(t testing.TB, enc string, body []byte) string {
	t.Helper()
	var b bytes.Buffer
	var z io.WriteCloser = gzip.NewWriter(&b)
	if enc == "deflate" {
		z = zlib.NewWriter(&b)
	}
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompression(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxBody = 1 << 20 })
	for _, enc := range []string{"gzip", "deflate"} {
		if w := r.do("POST", "/v2/models/lin/infer", pack(t, enc, []byte(goodBody)), "Content-Encoding", enc); w.Code != 200 {
			t.Errorf("%s: %d %s", enc, w.Code, w.Body)
		}
		bomb := pack(t, enc, bytes.Repeat([]byte(" "), 64<<20))
		w := r.do("POST", "/v2/models/lin/infer", bomb, "Content-Encoding", enc)
		if w.Code != 413 || len(bomb) > 1<<20 {
			t.Errorf("%s bomb of %d bytes: %d", enc, len(bomb), w.Code)
		}
		errorBody(t, w)
		if w := r.do("POST", "/v2/models/lin/infer", pack(t, enc, []byte(goodBody))[:20], "Content-Encoding", enc); w.Code != 400 {
			t.Errorf("%s cut off: %d", enc, w.Code)
		}
	}
	if w := r.do("POST", "/v2/models/lin/infer", strings.Repeat(" ", 1<<20+1)); w.Code != 413 {
		t.Errorf("large body: %d", w.Code)
	}
	many := strings.Repeat("1,", 2999) + "1"
	body := inputs(tensor("input", "FP32", "[1000,3]", "["+many+"]"))
	plain := r.do("POST", "/v2/models/lin/infer", body).Body.String()
	w := r.do("POST", "/v2/models/lin/infer", body, "Accept-Encoding", "gzip;q=0.5, deflate;q=0.7")
	z, err := zlib.NewReader(w.Body)
	if err != nil || w.Header().Get("Content-Encoding") != "deflate" {
		t.Fatalf("deflate answer: %v, %s", err, w.Header())
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != plain {
		t.Errorf("deflate answer differs: %v", err)
	}
	if w := r.do("POST", "/v2/models/lin/infer", body, "Accept-Encoding", "gzip;q=0, identity"); w.Header().Get("Content-Encoding") != "" {
		t.Error("compressed for a client that refuses it")
	}
}

func TestHundredMegabytesOverTheWire(t *testing.T) {
	r := newRig(t, nil)
	base := listen(t, r.e)
	res, err := http.Post(base+"/v2/models/lin/infer", "application/json", bytes.NewReader(bytes.Repeat([]byte(" "), 100<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 413 || !bytes.Contains(body, []byte(`{"error":`)) {
		t.Errorf("%d %v %s", res.StatusCode, err, body)
	}
}

// listen serves e on a loopback port until the test ends.
func listen(t testing.TB, e *echo.Echo) string {
	t.Helper()
	e.HideBanner, e.HidePort = true, true
	done := make(chan error, 1)
	go func() { done <- e.Start("127.0.0.1:0") }()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	for range 1000 {
		if a := e.ListenerAddr(); a != nil {
			return "http://" + a.String()
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the server did not start")
	return ""
}

func TestCaptureDecides(t *testing.T) {
	r := newRig(t, nil)
	r.tape.err = fmt.Errorf("append: %w", collector.ErrFull)
	w := r.do("POST", "/v2/models/lin/infer", goodBody)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "14") {
		t.Errorf("full spool: %d %s", w.Code, w.Body)
	}
	// A failure that cannot be captured keeps its own answer.
	if w := r.do("POST", "/v2/models/lin/infer", "{"); w.Code != 400 || !strings.Contains(errorBody(t, w), "malformed") {
		t.Errorf("refused request with a full spool: %d", w.Code)
	}
	r.tape.err = fmt.Errorf("flatten: %w", &collector.KeysError{Err: errors.New("the file is damaged")})
	if w := r.do("POST", "/v2/models/lin/infer", goodBody); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.HasSuffix(errorBody(t, w), ": get the keys of sealed fields: the file is damaged") {
		t.Errorf("no keys: %d %s", w.Code, w.Body)
	}
	r.tape.err = &collector.KeysError{Err: syscall.ENOSPC}
	if w := r.do("POST", "/v2/models/lin/infer", goodBody); w.Code != 503 || !strings.Contains(errorBody(t, w), "disk is full") {
		t.Errorf("no room for keys: %d %s", w.Code, w.Body)
	}
	r.tape.err = errors.New("disk on fire")
	if w := r.do("POST", "/v2/models/lin/infer", goodBody); w.Code != 500 || errorBody(t, w) != "internal error" {
		t.Errorf("failing capture: %d %s", w.Code, w.Body)
	}
	if !strings.Contains(r.log.String(), "disk on fire") {
		t.Error("the reason is not in the log")
	}
	cut := newRig(t, func(c *Config) {
		c.Capture = func(_ context.Context, p *collector.Prediction, _ *collector.ModelVersion, _, _ engine.Values) error {
			p.Capture = "cut"
			return nil
		}
	})
	if w := cut.do("POST", "/v2/models/lin/infer", goodBody); w.Header().Get("Pellucid-Capture") != "cut" {
		t.Errorf("capture header %q", w.Header().Get("Pellucid-Capture"))
	}
}

func TestNoValueInStoredErrors(t *testing.T) {
	r := newRig(t, nil)
	for _, body := range []string{
		inputs(tensor("input", "FP32", "[1,3]", `[1,"secret-4711",3]`)),
		inputs(tensor("input", "FP32", "[1,3]", `[1,4711e999,3]`)),
		inputs(tensor("input", "FP32", "[1,3]", `[1,4711x,3]`)),
		inputs(tensor("input", "BYTES", "[1,3]", `["secret-4711","a","b"]`)),
		inputs(tensor("input", "INT8", "[1,3]", `[4711,1,1]`)),
	} {
		if w := r.do("POST", "/v2/models/strict/infer", body); w.Code != 400 || strings.Contains(w.Body.String(), "4711") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if p := r.tape.last(t); strings.Contains(p.Error, "4711") || p.Error == "" {
			t.Errorf("stored error %q", p.Error)
		}
	}
	for _, body := range []string{
		inputs(tensor("input", "secret-4711", "[1,3]", `[1,2,3]`)),
		inputs(tensor("input", "FP32", "[4711,3]", `[1,2,3]`)),
		inputs(tensor("input", "FP32", "[3,4711]", `[[1,2,3]]`)),
		inputs(tensor("input", "FP32", "[1,4711]", "["+strings.Repeat("1,", 4710)+"1]")),
		inputs(tensor("secret-4711", "FP32", "[1,3]", `[1,2,3]`)),
		inputs(tensor("secret-4711", "FP32", "[1,3]", `[1,2]`)),
		`{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":4711}}]}`,
		`{"parameters":{"event_time":"secret-4711"},` + goodBody[1:],
		`{"parameters":{"external_ids":"[\"secret-4711\"` + `,1]"},` + goodBody[1:],
		`{"parameters":{"secret-4711":1,"secret-4711":2},` + goodBody[1:],
		`{"outputs":[{"name":"secret-4711"}],` + goodBody[1:],
		`{"outputs":[{"name":"prediction","parameters":{"classification":4711}}],` + goodBody[1:],
	} {
		if w := r.do("POST", "/v2/models/strict/infer", body); w.Code != 400 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if p := r.tape.last(t); strings.Contains(p.Error, "4711") || strings.Trim(p.Error, ". ") == "" {
			t.Errorf("%s: stored error %q", body, p.Error)
		}
	}
	r.do("POST", "/v2/models/lin/infer", goodBody, "Inference-Header-Content-Length", "4711")
	if p := r.tape.last(t); p.Status != 400 || strings.Contains(p.Error, "4711") {
		t.Errorf("stored error %q", p.Error)
	}
	for _, body := range []string{`{"instances":[{"secret-4711":1}]}`, `{"instances":[[1,2,"secret-4711"]],"parameters":{"event_time":"4711"}}`} {
		r.do("POST", "/v1/models/strict:predict", body)
		if p := r.tape.last(t); p.Status != 400 || strings.Contains(p.Error, "4711") || p.Error == "" {
			t.Errorf("%s: stored error %d %q", body, p.Status, p.Error)
		}
	}
	r.do("POST", "/v2/models/lin/infer", inputs(tensor("input", "FP32", "[1,3]", `[666,1,1]`)))
	if p := r.tape.last(t); p.Status != 500 || p.Error != "internal error" {
		t.Errorf("panic stored as %d %q", p.Status, p.Error)
	}
}

func TestEventTimesAndIDs(t *testing.T) {
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, func(c *Config) { c.Now = func() time.Time { return now } })
	send := func(params string, status int) collector.Prediction {
		t.Helper()
		body := `{"id":"mine","parameters":` + params + `,"inputs":[` + tensor("input", "FP32", "[2,3]", "[1,2,3,4,5,6]") + `]}`
		if w := r.do("POST", "/v2/models/lin/infer", body); w.Code != status {
			t.Errorf("%s: %d %s", params, w.Code, w.Body)
		}
		return r.tape.last(t)
	}
	p := send(`{"event_times":"[\"2023-01-01T00:00:00Z\",\"2023-01-02T01:00:00+01:00\"]","external_ids":"[\"a\",7]"}`, 200)
	if fmt.Sprint(p.Times, p.ExternalIDs) != "[2023-01-01 00:00:00 +0000 UTC 2023-01-02 00:00:00 +0000 UTC] [a 7]" {
		t.Errorf("%v %v", p.Times, p.ExternalIDs)
	}
	if p := send(`{"external_id":12}`, 200); fmt.Sprint(p.ExternalIDs) != "[12]" || !p.Times[0].Equal(p.ReceivedAt) {
		t.Errorf("%v %v", p.Times, p.ExternalIDs)
	}
	if p := send(`{}`, 200); fmt.Sprint(p.ExternalIDs) != "[mine]" {
		t.Errorf("%v", p.ExternalIDs)
	}
	send(`{"event_time":"2024-01-01T00:04:59Z"}`, 200)
	send(`{"event_time":"2024-01-01T00:05:01Z"}`, 400)
	send(`{"event_time":"1969-12-31T23:59:59Z"}`, 400)
	send(`{"event_time":"2100-01-01T00:00:00Z"}`, 400)
	send(`{"event_time":"yesterday"}`, 400)
	send(`{"event_time":"2020-01-01T00:00:00,5Z"}`, 400)
	send(`{"event_time":"2020-01-01T0:00:00Z"}`, 400)
	send(`{"event_time":"2020-01-01T00:00:00.5Z"}`, 200)
	send(`{"external_ids":"[\"a\",\"b\"]]"}`, 400)
	send(`{"external_ids":"[\"a\",\"b\"] x"}`, 400)
	send(`{"external_ids":"[\"a\",\"b\"]"}`, 200)
	send(`{"event_time":true}`, 400)
	send(`{"event_times":"[\"2023-01-01T00:00:00Z\"]"}`, 400)
	send(`{"event_times":"[1"}`, 400)
	send(`{"event_time":"2023-01-01T00:00:00Z","event_times":"[]"}`, 400)
}

func TestExplain(t *testing.T) {
	var asked []collector.ExplainRequest
	var kept []collector.Explanation
	r := newRig(t, func(c *Config) {
		c.Explain = func(_ context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
			asked = append(asked, req)
			if req.Method == "no_such" {
				return nil, fmt.Errorf("method %q: %w", req.Method, collector.ErrRefused)
			}
			out := make([]collector.Explanation, rows[0].Tensor.Rows())
			for i := range out {
				out[i] = collector.Explanation{Model: v.Name, Method: "tree_shap"}
			}
			return out, nil
		}
		c.ExplainStored = func(_ context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
			asked = append(asked, req)
			if ref != (collector.Ref{Tenant: collector.DefaultTenant, ID: "x.1"}) && ref != (collector.Ref{Tenant: collector.DefaultTenant, Model: "m", ID: "x.1"}) {
				return nil, collector.ErrNotFound
			}
			return []collector.Explanation{{PredictionID: ref.ID}}, nil
		}
		c.RecordExplanations = func(_ context.Context, e []collector.Explanation) error {
			kept = append(kept, e...)
			return nil
		}
	})
	body := `{"parameters":{"method":"tree_shap","budget":"{\"evaluations\":10}","background":[[1,2,3]],"interactions":true,"baseline":"[0,0,0]"},"inputs":[` +
		tensor("input", "FP32", "[2,3]", "[1,2,3,4,5,6]") + `]}`
	w := r.do("POST", "/v2/models/lin/versions/1/explain", body)
	var a explanations
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 || len(a.Explanations) != 2 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	id := w.Header().Get("Pellucid-Prediction-Id")
	if a.Explanations[1].PredictionID != id+".1" || len(kept) != 2 {
		t.Errorf("explanations %+v, kept %d", a, len(kept))
	}
	if q := asked[0]; q.Budget.Evaluations != 10 || string(q.Background) != "[[1,2,3]]" || !q.Interactions || len(q.Baseline) != 3 {
		t.Errorf("asked %+v", q)
	}
	if p := r.tape.last(t); p.Route != collector.RouteExplain || p.Rows != 2 {
		t.Errorf("captured %+v", p)
	}
	f := func(path, body string, status int) {
		t.Helper()
		if w := r.do("POST", path, body); w.Code != status {
			t.Errorf("%s %s: %d %s", path, body, w.Code, w.Body)
		}
	}
	f("/v2/models/lin/explain", `{"parameters":{"methd":"x"},"inputs":[`+tensor("input", "FP32", "[1,3]", "[1,2,3]")+`]}`, 400)
	f("/v2/models/lin/explain", `{"parameters":{"method":"no_such"},"inputs":[`+tensor("input", "FP32", "[1,3]", "[1,2,3]")+`]}`, 422)
	f("/v1/models/lin:explain", `{"instances":[[1,2,3]]}`, 200)
	f("/api/v1/predictions/x.1/explain", "", 200)
	f("/api/v1/predictions/x.1/explain", `{"method":"tree_shap"}`, 200)
	f("/api/v1/predictions/x.1/explain", `{"method":3}`, 400)
	f("/api/v1/predictions/x.1/explain", `{"nothing":3}`, 400)
	f("/api/v1/predictions/y/explain", `{}`, 404)
	f("/api/v1/predictions/x.1/explain?model=m", `{}`, 200)
	f("/api/v1/predictions/x.1/explain?model=n", `{}`, 404)
	f("/api/v1/predictions/x.1/explain?version=1", `{}`, 400)
}

func TestReadPrediction(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.ReadPrediction = func(_ context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
			switch ref.ID {
			case "one", "one.0":
				return []collector.StoredPrediction{{ID: "one"}}, nil
			case "two":
				return []collector.StoredPrediction{{ID: "two.0"}, {ID: "two.1"}}, nil
			case "shared":
				all := []collector.StoredPrediction{{ID: "shared", Model: "a"}, {ID: "shared", Model: "b"}}
				return slices.DeleteFunc(all, func(p collector.StoredPrediction) bool { return ref.Model != "" && p.Model != ref.Model }), nil
			case "trace:abc":
				return []collector.StoredPrediction{{ID: "one"}}, nil
			}
			return nil, collector.ErrNotFound
		}
	})
	f := func(id string, status int, has string) {
		t.Helper()
		if w := r.do("GET", "/api/v1/predictions/"+id, ""); w.Code != status || !strings.HasPrefix(w.Body.String(), has) {
			t.Errorf("%s: %d %s", id, w.Code, w.Body)
		}
	}
	f("one", 200, `{"id":"one"`)
	f("two", 200, `{"predictions":[{"id":"two.0"`)
	f("trace:abc", 200, `{"predictions":[{"id":"one"`)
	f("none", 404, `{"error"`)
	f("shared", 200, `{"predictions":[{"id":"shared"`)
	f("shared?model=a", 200, `{"id":"shared"`)
	f("shared?modell=a", 400, `{"error"`)
	f("shared?model=a&model=b", 400, `{"error"`)
	f("shared?model=%zz", 400, `{"error"`)
}

func TestFeedback(t *testing.T) {
	var kept []collector.Feedback
	r := newRig(t, func(c *Config) {
		c.Feedback = func(_ context.Context, f []collector.Feedback) error { kept = append(kept, f...); return nil }
	})
	f := func(body string, status int, want string) {
		t.Helper()
		w := r.do("POST", "/api/v1/feedback", body)
		if w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	f(`{"prediction_id":"p","label":1.50,"observed_at":"2013-01-01T00:00:00Z"}`, 200, `"accepted":1,"refused":0`)
	f(`[{"external_id":"e","label":"late","model":"m"},{"external_id":"e","label":null},{"prediction_id":"p","label":true}]`, 200, `"accepted":2,"refused":1`)
	if fmt.Sprintf("%v %v %v %v %v", kept[0].Label, kept[0].ObservedAt, kept[1].Label, kept[1].Model, kept[2].Label) != "1.50 2013-01-01 00:00:00 +0000 UTC late m true" {
		t.Errorf("kept %+v", kept)
	}
	n := len(kept)
	for _, bad := range []string{
		``, `[]`, `3`, `{"label":1}`, `{"prediction_id":"p","external_id":"e","label":1}`, `{"prediction_id":"p"}`,
		`{"prediction_id":"p","label":[1]}`, `{"prediction_id":"p","label":1,"extra":2}`, `{"prediction_id":"p","label":1,"observed_at":"now"}`,
		`{"prediction_id":"trace:x","label":1}`, `{"prediction_id":"p","label":""}`, `[{"prediction_id":3,"label":1}]`, `{`,
	} {
		f(bad, 400, `"error":`)
	}
	w := r.do("POST", "/v2/models/lin/infer", inputs(tensor("input", "FP32", "[2,3]", "[1,2,3,4,5,6]")))
	id := w.Header().Get("Pellucid-Prediction-Id")
	f(`{"prediction_id":"`+id+`","label":1}`, 400, "batch")
	if len(kept) != n {
		t.Errorf("%d bad labels kept", len(kept)-n)
	}
	f(`{"prediction_id":"`+id+`.1","label":1}`, 200, `"accepted":1`)
	n = len(kept)
	for _, bad := range []string{".2", ".7", ".-1", ".", ".x", ".01", ".+1", ".1.1", ".99999999999", ".1e0"} {
		f(`{"prediction_id":"`+id+bad+`","label":1}`, 400, "row")
	}
	if len(kept) != n {
		t.Errorf("%d bad labels kept", len(kept)-n)
	}
}

// TestFeedbackAsksHowManyRowsThereAre: what this process does not remember, the
// server may still know. Ids that are not ours are anybody's, dots and all.
func TestFeedbackAsksHowManyRowsThereAre(t *testing.T) {
	const one, three, unknown = "0190163d-8694-739b-aea5-966c26f8ad91", "0190163d-8694-739b-aea5-966c26f8ad93", "0190163d-8694-739b-aea5-966c26f8ad99"
	r := newRig(t, func(c *Config) {
		c.Feedback = func(context.Context, []collector.Feedback) error { return nil }
		c.BatchRows = func(id string) (int, bool) {
			rows, known := map[string]int{one: 1, three: 3}[id]
			return rows, known
		}
	})
	for id, status := range map[string]int{
		one: 200, one + ".0": 200, one + ".1": 400, three: 400, three + ".2": 200, three + ".3": 400, three + ".-1": 400,
		unknown: 200, unknown + ".7": 200, unknown + ".-1": 400, unknown + ".99999999999": 400, unknown + ".16777216": 400,
		"order-1.-1": 200, "order-1.7": 200, "0190163d-8694-439b-aea5-966c26f8ad91.-1": 200, one + "x": 200,
	} {
		if w := r.do("POST", "/api/v1/feedback", `{"prediction_id":"`+id+`","label":1}`); w.Code != status {
			t.Errorf("%s: %d %s", id, w.Code, w.Body)
		}
	}
}

// TestAFullDiskIsNoMistakeOfOurs: what cannot be kept for want of room is to be sent
// again, and says so.
func TestAFullDiskIsNoMistakeOfOurs(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.External = func(string, string, func() (*engine.Info, error), func(*collector.ModelVersion) *engine.Info) (*collector.ModelVersion, error) {
			return nil, fmt.Errorf("keep version: %w", &fs.PathError{Op: "write", Path: "/data/x", Err: syscall.ENOSPC})
		}
	})
	w := r.do("POST", "/api/v1/predictions", `{"model":"m","features":{"a":1},"outputs":{"y":1}}`)
	if text := w.Body.String(); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(text, "disk is full") || strings.Contains(text, "/data") {
		t.Errorf("%d %v %s", w.Code, w.Header(), text)
	}
}

// TestKeysAreTakenAsTheyAreWritten: a key that is there twice, or in other letters,
// is a mistake whose meaning nobody knows. No answer speaks Go.
func TestKeysAreTakenAsTheyAreWritten(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Feedback = func(context.Context, []collector.Feedback) error { return nil }
		c.External = func(string, string, func() (*engine.Info, error), func(*collector.ModelVersion) *engine.Info) (*collector.ModelVersion, error) {
			return nil, collector.ErrNotFound
		}
		c.ExplainStored = func(context.Context, collector.Ref, collector.ExplainRequest) ([]collector.Explanation, error) {
			return nil, nil
		}
	})
	for _, c := range []struct{ path, body, says string }{
		{"feedback", `{"prediction_id":"a","label":1,"label":0}`, "twice"},
		{"feedback", `[{"prediction_id":"a","label":1,"prediction_id":"b"}]`, "twice"},
		{"feedback", `{"Prediction_ID":"a","label":1}`, "unknown field"},
		{"feedback", `{"prediction_id":"a","LABEL":1}`, "unknown field"},
		{"feedback", `[3]`, "an object expected"},
		{"feedback", `3`, "an object expected"},
		{"feedback", `{"prediction_id":3,"label":1}`, "a string expected"},
		{"predictions", `{"model":"m","model":"n"}`, "twice"},
		{"predictions", `{"Model":"m"}`, "unknown field"},
		{"predictions", `{"model":"m","features":{"a":1,"a":2}}`, "twice"},
		{"predictions", `{"model":"m","status":1.5}`, "a whole number expected"},
		{"predictions", `{"model":"m","weight":"x"}`, "a number expected"},
		{"predictions", `{"model":"m","features":[1]}`, "an object expected"},
		{"predictions/x/explain", `{"budget":{"Evaluations":1}}`, "unknown field"},
		{"predictions/x/explain", `{"baseline":1}`, "a list expected"},
		{"predictions/x/explain", `{"interactions":"yes"}`, "true or false expected"},
		{"predictions/x/explain", `{"method":"a","method":"b"}`, "twice"},
	} {
		w := r.do("POST", "/api/v1/"+c.path, c.body)
		if text := w.Body.String(); w.Code != 400 || !strings.Contains(text, c.says) || strings.Contains(text, "proxy.") || strings.Contains(text, "json.") {
			t.Errorf("%s: %d %s", c.body, w.Code, text)
		}
	}
}

func TestVersionsAndRowsMustBeSaid(t *testing.T) {
	r := newRig(t, nil)
	info := &engine.Info{Format: "onnx", Task: engine.TaskOther, Missing: true}
	for _, name := range []string{"a", "b"} {
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 3}})
		info.Outputs = append(info.Outputs, engine.Spec{Name: "y" + name, DType: engine.Float32, Shape: []int{-1, 3}})
	}
	r.shelf.models["two"], r.shelf.loaded["two"] = versionOf(t, "two", identity{info}), true
	for path, want := range map[string]int{
		"/v2/models/lin/versions//infer": 404, "/v2/models/lin/versions//explain": 404, "/v2/models/lin/versions/1/infer": 200,
	} {
		if w := r.do("POST", path, goodBody); w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := r.do("GET", "/v2/models/lin/versions/", ""); w.Code == 200 {
		t.Errorf("metadata of no version: %s", w.Body)
	}
	one := tensor("b", "FP32", "[1,3]", "[1,2,3]")
	if w := r.do("POST", "/v2/models/two/infer", inputs(tensor("a", "FP32", "[1,3]", "[1,2,3]"), one)); w.Code != 200 {
		t.Errorf("equal first dimensions: %d %s", w.Code, w.Body)
	}
	w := r.do("POST", "/v2/models/two/infer", inputs(tensor("a", "FP32", "[2,3]", "[1,2,3,4,5,6]"), one))
	if w.Code != 200 || r.tape.last(t).Rows != 1 {
		t.Errorf("unequal first dimensions: %d %s, %d rows", w.Code, w.Body, r.tape.last(t).Rows)
	}
}

func TestShedding(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 8)
	r := newRig(t, func(c *Config) { c.MaxInFlight = 1; c.Timeout = time.Second })
	slow := versionOf(t, "slow", linear{linearInfo(true)})
	run := slow.Predict
	slow.Predict = func(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return run(ctx, in, want)
	}
	r.shelf.models["slow"], r.shelf.loaded["slow"] = slow, true
	var wg sync.WaitGroup
	wg.Go(func() {
		if w := r.do("POST", "/v2/models/slow/infer", goodBody); w.Code != 200 {
			t.Errorf("first: %d %s", w.Code, w.Body)
		}
	})
	<-entered
	if w := r.do("POST", "/v2/models/slow/infer", goodBody); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("second: %d", w.Code)
	}
	close(release)
	wg.Wait()
	release = make(chan struct{})
	if w := r.do("POST", "/v2/models/slow/infer", goodBody); w.Code != 504 || r.tape.last(t).Status != 504 {
		t.Errorf("timed out: %d", w.Code)
	}
}

func TestConcurrentRequests(t *testing.T) {
	r := newRig(t, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				body := inputs(tensor("input", "FP32", "[1,3]", fmt.Sprintf("[%d,%d,0]", g, i)))
				w := r.do("POST", "/v2/models/lin/infer", body)
				want := fmt.Sprintf(`"data":[%d]`, g+2*i)
				if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
					t.Errorf("%d %s, want %s", w.Code, w.Body, want)
					return
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, p := range r.tape.rows {
		seen[p.ID] = true
	}
	if len(seen) != 1600 {
		t.Errorf("%d different ids of 1600", len(seen))
	}
}

func TestOtherRoutesKeepTheirErrors(t *testing.T) {
	r := newRig(t, nil)
	r.e.GET("/ui/x", func(echo.Context) error { panic("page") })
	if w := r.do("GET", "/ui/none", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "message") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := r.do("GET", "/ui/x", ""); w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// brokenShelf is a repository whose look-up fails for a reason of its own.
type brokenShelf struct{ *shelf }

func (brokenShelf) Find(string, string) (*collector.ModelVersion, error) {
	return nil, errors.New("the index is gone")
}

func TestLookUpThatFails(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Models = brokenShelf{c.Models.(*shelf)} })
	w := r.do("POST", "/v2/models/lin/infer", goodBody)
	if w.Code != 500 || errorBody(t, w) != "internal error" || !strings.Contains(r.log.String(), "the index is gone") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
