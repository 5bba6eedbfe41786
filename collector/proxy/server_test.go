package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// linear is a model: prediction = 1*x0 + 2*x1 + 3*x2, margin = 2*prediction. A
// first feature of 666 makes it panic, 777 makes it fail.
type linear struct{ info *engine.Info }

func (m linear) Info() *engine.Info { return m.info }

func (m linear) NewSession(engine.SessionOptions) (engine.Session, error) { return m, nil }

func (m linear) Run(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
	x := engine.Data[float32](in[0].Tensor)
	n := in[0].Tensor.Rows()
	y, margin := make([]float32, n), make([]float32, n)
	for r := range n {
		switch row := x[3*r:]; row[0] {
		case 666:
			panic("a value: 666")
		case 777:
			return nil, errors.New("the linear model cannot add")
		default:
			y[r] = row[0] + 2*row[1] + 3*row[2]
			margin[r] = 2 * y[r]
		}
	}
	a, err := engine.Of(y, n)
	if err != nil {
		return nil, err
	}
	b, err := engine.Of(margin, n)
	if err != nil {
		return nil, err
	}
	out := engine.Values{{Name: "prediction", Tensor: a}}
	for _, w := range want {
		if w == "margin" {
			out = append(out, engine.Named{Name: "margin", Tensor: b})
		}
	}
	return out, nil
}

// identity answers its inputs.
type identity struct{ info *engine.Info }

func (m identity) Info() *engine.Info { return m.info }

func (m identity) NewSession(engine.SessionOptions) (engine.Session, error) { return m, nil }

func (m identity) Run(_ context.Context, in engine.Values, _ []string) (engine.Values, error) {
	out := make(engine.Values, len(in))
	for i := range in {
		out[i] = engine.Named{Name: m.info.Outputs[i].Name, Tensor: in[i].Tensor}
	}
	return out, nil
}

func linearInfo(missing bool) *engine.Info {
	return &engine.Info{
		Format: "xgboost", Task: engine.TaskRegression, Missing: missing,
		Inputs:   []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, 3}}},
		Outputs:  []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
		Extra:    []engine.Spec{{Name: "margin", DType: engine.Float32, Shape: []int{-1}}},
		Features: []engine.Feature{{Name: "a"}, {Name: "b"}, {Name: "c", Categorical: true, Categories: []string{"red", "green"}}},
	}
}

func identityInfo(d engine.DType, shape ...int) *engine.Info {
	return &engine.Info{
		Format: "onnx", Task: engine.TaskOther, Missing: true,
		Inputs:  []engine.Spec{{Name: "x", DType: d, Shape: shape}},
		Outputs: []engine.Spec{{Name: "y", DType: d, Shape: shape}},
	}
}

func versionOf(t testing.TB, name string, m engine.Model) *collector.ModelVersion {
	t.Helper()
	schema, err := collector.NewSchema(m.Info(), collector.ModelConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &collector.ModelVersion{
		Name: name, Version: "1", Digest: "d1", Info: m.Info(), Schema: schema, Model: m,
		Predict: func(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
			return s.Run(ctx, in, want)
		},
	}
}

// shelf is the models of a test by name.
type shelf struct {
	mu     sync.Mutex
	models map[string]*collector.ModelVersion
	loaded map[string]bool
}

func (s *shelf) Find(model, version string) (*collector.ModelVersion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.models[model]
	if v == nil || version != "" && version != v.Version {
		return nil, fmt.Errorf("model %q: %w", model, collector.ErrNotFound)
	}
	if !s.loaded[model] {
		return nil, fmt.Errorf("model %q: %w", model, collector.ErrNotReady)
	}
	return v, nil
}

func (s *shelf) Index(context.Context) []collector.ModelState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []collector.ModelState
	for name, v := range s.models {
		state := "UNAVAILABLE"
		if s.loaded[name] {
			state = "READY"
		}
		out = append(out, collector.ModelState{Name: name, Version: v.Version, State: state})
	}
	return out
}

func (s *shelf) set(model string, to bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.models[model] == nil {
		return fmt.Errorf("model %q: %w", model, collector.ErrNotFound)
	}
	s.loaded[model] = to
	return nil
}

func (s *shelf) Load(_ context.Context, model string) error   { return s.set(model, true) }
func (s *shelf) Unload(_ context.Context, model string) error { return s.set(model, false) }

// tape keeps what was captured.
type tape struct {
	mu   sync.Mutex
	rows []collector.Prediction
	in   []engine.Values
	out  []engine.Values
	err  error
}

func (p *tape) capture(_ context.Context, r *collector.Prediction, _ *collector.ModelVersion, in, out engine.Values) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.rows, p.in, p.out = append(p.rows, *r), append(p.in, in), append(p.out, out)
	return nil
}

func (p *tape) last(t testing.TB) collector.Prediction {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rows) == 0 {
		t.Fatal("nothing was captured")
	}
	return p.rows[len(p.rows)-1]
}

func (p *tape) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rows)
}

// rig is a server under test.
type rig struct {
	e     *echo.Echo
	s     *Server
	tape  *tape
	shelf *shelf
	log   *bytes.Buffer
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{e: echo.New(), tape: &tape{}, log: &bytes.Buffer{}}
	r.shelf = &shelf{models: map[string]*collector.ModelVersion{}, loaded: map[string]bool{}}
	for name, m := range map[string]engine.Model{
		"lin":    linear{linearInfo(true)},
		"strict": linear{linearInfo(false)},
		"a/b c":  linear{linearInfo(true)},
		"wide":   identity{identityInfo(engine.Float64, -1)},
		"text":   identity{identityInfo(engine.String, -1, 1)},
		"big":    identity{identityInfo(engine.Int64, -1)},
		"ubig":   identity{identityInfo(engine.Uint64, -1)},
		"byte":   identity{identityInfo(engine.Uint8, -1)},
		"int":    identity{identityInfo(engine.Int32, -1)},
		"half":   identity{identityInfo(engine.Float16, -1)},
		"flag":   identity{identityInfo(engine.Bool, -1)},
	} {
		r.shelf.models[name] = versionOf(t, name, m)
		r.shelf.loaded[name] = true
	}
	cfg := Config{Models: r.shelf, Capture: r.tape.capture, Logger: slog.New(slog.NewTextHandler(r.log, nil))}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.s.Register(r.e)
	return r
}

// do sends a request; headers are pairs.
func (r *rig) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "127.0.0.1:8080"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.e.ServeHTTP(w, req)
	return w
}

func tensor(name, dtype, shape, data string) string {
	return fmt.Sprintf(`{"name":%q,"shape":%s,"datatype":%q,"data":%s}`, name, shape, dtype, data)
}

func inputs(tensors ...string) string {
	return `{"inputs":[` + strings.Join(tensors, ",") + `]}`
}

// errorBody checks that an answer has the protocol's error form.
func errorBody(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var b map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil || len(b) != 1 || b["error"] == "" {
		t.Errorf("error body %q", w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type of an error is %q", ct)
	}
	return b["error"]
}

// TestGoldenMatrix is the requests that other servers answer in different ways,
// and what this one answers.
func TestGoldenMatrix(t *testing.T) {
	good := inputs(tensor("input", "FP32", "[1,3]", "[1,2,3]"))
	withOutputs := func(outputs string) string {
		return strings.TrimSuffix(good, "}") + `,"outputs":` + outputs + `}`
	}
	lin := "/v2/models/lin/infer"
	head := `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`
	ihcl := func(n int) []string {
		return []string{"Inference-Header-Content-Length", fmt.Sprint(n)}
	}
	raw := strings.Repeat("\x00", 12)
	cases := []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		says                     string
	}{
		{"unknown model infer", "POST", "/v2/models/nope/infer", good, nil, 404, "nope"},
		{"unknown model metadata", "GET", "/v2/models/nope", "", nil, 404, "nope"},
		{"unknown model ready", "GET", "/v2/models/nope/ready", "", nil, 404, "nope"},
		{"version 99", "POST", "/v2/models/lin/versions/99/infer", good, nil, 404, ""},
		{"version 1", "POST", "/v2/models/lin/versions/1/infer", good, nil, 200, ""},
		{"empty body", "POST", lin, "", nil, 400, "empty"},
		{"malformed JSON", "POST", lin, `{"inputs":[`, nil, 400, "malformed"},
		{"not JSON", "POST", lin, `hello`, nil, 400, "malformed"},
		{"trailing data", "POST", lin, good + "x", nil, 400, "after the end"},
		{"no inputs", "POST", lin, `{"id":"1"}`, nil, 400, "inputs"},
		{"no shape", "POST", lin, `{"inputs":[{"name":"input","datatype":"FP32","data":[1,2,3]}]}`, nil, 400, "no shape"},
		{"no datatype", "POST", lin, `{"inputs":[{"name":"input","shape":[1,3],"data":[1,2,3]}]}`, nil, 400, "no datatype"},
		{"no data", "POST", lin, `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32"}]}`, nil, 400, "no data"},
		{"no name", "POST", lin, `{"inputs":[{"shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, nil, 400, "no name"},
		{"data before shape", "POST", lin, `{"inputs":[{"data":[[1,2,3]],"name":"input","datatype":"FP32","shape":[1,3]}]}`, nil, 200, ""},
		{"too little data", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[1,2]")), nil, 400, "fewer"},
		{"too much data", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[1,2,3,4]")), nil, 400, "more"},
		{"nesting", "POST", lin, inputs(tensor("input", "FP32", "[2,3]", "[[1,2],[3,4],[5,6]]")), nil, 400, "fewer"},
		{"wrong rank", "POST", lin, inputs(tensor("input", "FP32", "[3]", "[1,2,3]")), nil, 400, ""},
		{"wrong width", "POST", lin, inputs(tensor("input", "FP32", "[1,2]", "[1,2]")), nil, 400, ""},
		{"wrong datatype", "POST", lin, inputs(tensor("input", "BYTES", "[1,3]", `["1","2","3"]`)), nil, 400, ""},
		{"unknown datatype", "POST", lin, inputs(tensor("input", "FP99", "[1,3]", "[1,2,3]")), nil, 400, "FP99"},
		{"string in FP32", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", `[1,"2",3]`)), nil, 400, "element 1"},
		{"boolean in FP32", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", `[1,true,3]`)), nil, 400, "boolean"},
		{"NaN", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", `[1,NaN,3]`)), nil, 400, "null"},
		{"null, missing values taken", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", `[1,null,3]`)), nil, 200, ""},
		{"null, none taken", "POST", "/v2/models/strict/infer", inputs(tensor("input", "FP32", "[1,3]", `[1,null,3]`)), nil, 400, `"b"`},
		{"null integer", "POST", "/v2/models/int/infer", inputs(tensor("x", "INT32", "[1]", `[null]`)), nil, 400, "null"},
		{"unknown input", "POST", lin, inputs(tensor("other", "FP32", "[1,3]", "[1,2,3]")), nil, 400, "other"},
		{"one input too many", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[1,2,3]"), tensor("other", "FP32", "[1,3]", "[1,2,3]")), nil, 400, "other"},
		{"duplicate input", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[1,2,3]"), tensor("input", "FP32", "[1,3]", "[1,2,3]")), nil, 400, "twice"},
		{"no rows", "POST", lin, inputs(tensor("input", "FP32", "[0,3]", "[]")), nil, 400, "no rows"},
		{"no tensors", "POST", lin, `{"inputs":[]}`, nil, 400, "input"},
		{"unknown output", "POST", lin, withOutputs(`[{"name":"zz"}]`), nil, 400, "zz"},
		{"duplicate output", "POST", lin, withOutputs(`[{"name":"prediction"},{"name":"prediction"}]`), nil, 400, "twice"},
		{"extra output", "POST", lin, withOutputs(`[{"name":"margin"}]`), nil, 200, ""},
		{"classification", "POST", lin, withOutputs(`[{"name":"prediction","parameters":{"classification":2}}]`), nil, 400, "classification"},
		{"negative dimension", "POST", lin, inputs(tensor("input", "FP32", "[-1,3]", "[1,2,3]")), nil, 400, "negative"},
		{"overflowing shape", "POST", lin, inputs(tensor("input", "FP32", "[9223372036854775807,9223372036854775807]", "[1]")), nil, 400, "too large"},
		{"overflowing dimension", "POST", lin, inputs(tensor("input", "FP32", "[99999999999999999999]", "[1]")), nil, 400, "range"},
		{"huge shape", "POST", lin, inputs(tensor("input", "FP32", "[4000000000,3]", "[1]")), nil, 400, "fewer"},
		{"300 for UINT8", "POST", "/v2/models/byte/infer", inputs(tensor("x", "UINT8", "[1]", "[300]")), nil, 400, "range"},
		{"-1 for UINT8", "POST", "/v2/models/byte/infer", inputs(tensor("x", "UINT8", "[1]", "[-1]")), nil, 400, "range"},
		{"1.5 for INT32", "POST", "/v2/models/int/infer", inputs(tensor("x", "INT32", "[1]", "[1.5]")), nil, 400, "integer"},
		{"1.0 for INT32", "POST", "/v2/models/int/infer", inputs(tensor("x", "INT32", "[1]", "[1.0]")), nil, 200, ""},
		{"1e400", "POST", "/v2/models/wide/infer", inputs(tensor("x", "FP64", "[1]", "[1e400]")), nil, 400, "range"},
		{"1e39 for FP32", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[1e39,1,1]")), nil, 400, "range"},
		{"FP16 as JSON", "POST", "/v2/models/half/infer", inputs(tensor("x", "FP16", "[1]", "[1]")), nil, 400, "FP16"},
		{"deep JSON", "POST", lin, `{"parameters":{"p":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `},"inputs":[]}`, nil, 400, "deep"},
		{"binary", "POST", lin, head + raw, ihcl(len(head)), 200, ""},
		{"binary short", "POST", lin, head + raw[:11], ihcl(len(head)), 400, "12"},
		{"binary with extra bytes", "POST", lin, head + raw + "x", ihcl(len(head)), 400, "1 bytes after"},
		{"binary without header length", "POST", lin, head, nil, 400, "Inference-Header-Content-Length"},
		{"header length abc", "POST", lin, head + raw, []string{"Inference-Header-Content-Length", "abc"}, 400, "not a number"},
		{"header length beyond body", "POST", lin, head + raw, ihcl(10000), 400, "10000"},
		{"header length -1", "POST", lin, head + raw, ihcl(-1), 400, "not a number"},
		{"raw binary", "POST", lin, raw, ihcl(0), 200, ""},
		{"raw binary, odd size", "POST", lin, raw + "x", ihcl(0), 400, "13"},
		{"index, empty body", "POST", "/v2/repository/index", "", nil, 200, ""},
		{"index, bad body", "POST", "/v2/repository/index", `{"ready":3}`, nil, 400, "ready"},
		{"index, 250k deep", "POST", "/v2/repository/index", strings.Repeat("[", 250000), nil, 400, "deep"},
		{"unload unknown", "POST", "/v2/repository/models/nope/unload", "", nil, 404, "nope"},
		{"load with a config", "POST", "/v2/repository/models/lin/load", `{"parameters":{"config":"{}"}}`, nil, 400, "config"},
		{"GET infer", "GET", lin, "", nil, 405, ""},
		{"unknown path", "GET", "/v2/nothing", "", nil, 404, ""},
		{"unknown encoding", "POST", lin, good, []string{"Content-Encoding", "br"}, 415, "gzip"},
		{"not gzip", "POST", lin, good, []string{"Content-Encoding", "gzip"}, 400, "gzip"},
		{"v1 no instances", "POST", "/v1/models/lin:predict", `{}`, nil, 400, "instances"},
		{"v1 instances no list", "POST", "/v1/models/lin:predict", `{"instances":3}`, nil, 400, "list"},
		{"v1 empty", "POST", "/v1/models/lin:predict", `{"instances":[]}`, nil, 400, "no rows"},
		{"v1 malformed", "POST", "/v1/models/lin:predict", `{"instances":[[1,2,3]`, nil, 400, "malformed"},
		{"v1 ragged", "POST", "/v1/models/lin:predict", `{"instances":[[1,2,3],[1,2]]}`, nil, 400, ""},
		{"v1 absent feature", "POST", "/v1/models/lin:predict", `{"instances":[{"a":1,"b":2}]}`, nil, 400, `"c"`},
		{"v1 unknown feature", "POST", "/v1/models/lin:predict", `{"instances":[{"a":1,"b":2,"c":3,"d":4}]}`, nil, 400, `"d"`},
		{"v1 unknown verb", "POST", "/v1/models/lin:train", `{}`, nil, 404, "train"},
		{"v1 no verb", "POST", "/v1/models/lin", `{}`, nil, 405, "verb"},
		{"v1 unknown model", "GET", "/v1/models/nope", "", nil, 404, ""},
		{"panic", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[666,2,3]")), nil, 500, "internal error"},
		{"failing model", "POST", lin, inputs(tensor("input", "FP32", "[1,3]", "[777,2,3]")), nil, 500, "failed to run"},
		{"explain without explainer", "POST", "/v2/models/lin/explain", good, nil, 501, ""},
	}
	r := newRig(t, nil)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := r.tape.len()
			w := r.do(c.method, c.path, c.body, c.headers...)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d: %.300s", w.Code, c.status, w.Body)
			}
			known := strings.Contains(c.path, "/infer") || strings.Contains(c.path, ":predict") || strings.Contains(c.path, "/explain")
			known = known && c.method == "POST" && c.status != 404
			if got := r.tape.len() - before; known && got != 1 || !known && got != 0 {
				t.Errorf("%d rows captured", got)
			}
			if known {
				checkRow(t, r.tape.last(t), w)
			}
			if c.status == 200 {
				return
			}
			if msg := errorBody(t, w); !strings.Contains(msg, c.says) {
				t.Errorf("error %q does not say %q", msg, c.says)
			}
		})
	}
}

// checkRow holds a captured row against its answer.
func checkRow(t *testing.T, p collector.Prediction, w *httptest.ResponseRecorder) {
	t.Helper()
	if p.Status != w.Code || (p.Error == "") != (w.Code == 200) {
		t.Errorf("captured status %d, error %q", p.Status, p.Error)
	}
	if p.ID != w.Header().Get("Pellucid-Prediction-Id") || p.Rows < 1 || len(p.Times) == 0 || p.Weight != 1 {
		t.Errorf("captured row %+v", p)
	}
	if tp := w.Header().Get("Traceparent"); tp != "00-"+p.TraceID+"-"+p.SpanID+tp[len(tp)-3:] {
		t.Errorf("traceparent %q of trace %s span %s", tp, p.TraceID, p.SpanID)
	}
	want := "full"
	if w.Code != 200 && p.Latency.Decode == 0 {
		want = "none" // what was asked did not fit the model
	}
	if got := w.Header().Get("Pellucid-Capture"); got != want || p.Capture != want {
		t.Errorf("capture %q, row says %q", got, p.Capture)
	}
}

type inferAnswer struct {
	ID      *string `json:"id"`
	Model   string  `json:"model_name"`
	Version string  `json:"model_version"`
	Outputs []struct {
		Name, Datatype string
		Shape          []int
		Data           []any
		Parameters     map[string]any
	}
}

func parse(t testing.TB, w *httptest.ResponseRecorder) inferAnswer {
	t.Helper()
	var a inferAnswer
	d := json.NewDecoder(w.Body)
	d.UseNumber()
	if err := d.Decode(&a); err != nil || w.Code != 200 {
		t.Fatalf("status %d: %v: %.300s", w.Code, err, w.Body)
	}
	return a
}

func TestInferAnswers(t *testing.T) {
	r := newRig(t, nil)
	body := `{"id":"","parameters":{"event_time":"2013-03-04T05:06:07.123456Z"},"inputs":[` + tensor("input", "FP32", "[2,3]", "[[1,2,3],[4,5,6]]") +
		`],"outputs":[{"name":"margin"},{"name":"prediction"}]}`
	w := r.do("POST", "/v2/models/lin/infer", body, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	a := parse(t, w)
	if a.Model != "lin" || a.Version != "1" || a.ID == nil || *a.ID != "" || len(a.Outputs) != 2 {
		t.Fatalf("answer %+v", a)
	}
	if got := fmt.Sprint(a.Outputs[0].Name, a.Outputs[0].Data, a.Outputs[1].Name, a.Outputs[1].Data, a.Outputs[1].Shape); got != "margin[28 64]prediction[14 32] [2]" {
		t.Errorf("outputs %s", got)
	}
	p := r.tape.last(t)
	if p.TraceID != "0af7651916cd43dd8448eb211c80319c" || p.SpanID == "b7ad6b7169203331" {
		t.Errorf("trace %s span %s", p.TraceID, p.SpanID)
	}
	if p.Rows != 2 || len(p.Times) != 1 || p.Times[0].Format("2006-01-02T15:04:05.000000") != "2013-03-04T05:06:07.123456" {
		t.Errorf("rows %d times %v", p.Rows, p.Times)
	}
	// The record has what the model declares, whatever was asked for.
	if out := r.tape.out[len(r.tape.out)-1]; len(out) != 1 || out[0].Name != "prediction" {
		t.Errorf("captured outputs %v", out)
	}
	if !strings.HasPrefix(p.ID, fmt.Sprintf("%08x", p.ReceivedAt.UnixMilli()>>16)) {
		t.Errorf("received_at %v is not the time inside %s", p.ReceivedAt, p.ID)
	}
}

func TestNumbersSurvive(t *testing.T) {
	r := newRig(t, nil)
	check := func(model, dtype, sent, want string) {
		t.Helper()
		w := r.do("POST", "/v2/models/"+model+"/infer", inputs(tensor("x", dtype, fmt.Sprintf("[%d]", strings.Count(sent, ",")+1), "["+sent+"]")))
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"data":[`+want+`]`) {
			t.Errorf("%s %s: %d %s", dtype, sent, w.Code, w.Body)
		}
	}
	check("big", "INT64", "9007199254740993,-9223372036854775808,9223372036854775807", "9007199254740993,-9223372036854775808,9223372036854775807")
	check("ubig", "UINT64", "18446744073709551615,9007199254740993", "18446744073709551615,9007199254740993")
	check("wide", "FP64", "0.1,1e-300,-0.0,5e-324,1.7976931348623157e308,123456789012345678", "0.1,1e-300,-0,5e-324,1.7976931348623157e+308,123456789012345680")
	check("flag", "BOOL", "true,false,1,0", "true,false,true,false")
	w := r.do("POST", "/v2/models/text/infer", inputs(tensor("x", "BYTES", "[3,1]", `["\u00e9\ud83d\ude00","a\"\\\n",null]`)))
	if a := parse(t, w); fmt.Sprintf("%q", a.Outputs[0].Data) != `["é😀" "a\"\\\n" ""]` {
		t.Errorf("strings %q", a.Outputs[0].Data)
	}
	w = r.do("POST", "/v2/models/wide/infer", inputs(tensor("x", "FP64", "[3]", "[1,null,2]")))
	if a := parse(t, w); a.Outputs[0].Data[1] != nil || a.Outputs[0].Parameters["nonfinite"] != "1:nan" {
		t.Errorf("nonfinite %+v", a.Outputs)
	}
}

func TestBinaryOutputs(t *testing.T) {
	r := newRig(t, nil)
	head := `{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[3],"datatype":"FP64","parameters":{"binary_data_size":24}}]}`
	raw := string(le64(math.Inf(1), math.NaN(), 0.1))
	w := r.do("POST", "/v2/models/wide/infer", head+raw, "Inference-Header-Content-Length", fmt.Sprint(len(head)))
	n := 0
	if _, err := fmt.Sscan(w.Header().Get("Inference-Header-Content-Length"), &n); err != nil || w.Code != 200 {
		t.Fatalf("%d %v %s", w.Code, err, w.Body)
	}
	if got := w.Body.String()[n:]; got != raw || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("raw output % x", got)
	}
	// An output's own wish wins over the request's.
	head = strings.TrimSuffix(head, "}") + `,"outputs":[{"name":"y","parameters":{"binary_data":false}}]}`
	w = r.do("POST", "/v2/models/wide/infer", head+raw, "Inference-Header-Content-Length", fmt.Sprint(len(head)))
	if a := parse(t, w); a.Outputs[0].Parameters["nonfinite"] != "0:inf,1:nan" || w.Header().Get("Inference-Header-Content-Length") != "" {
		t.Errorf("outputs %+v", a.Outputs)
	}
	// FP16 goes through as bits, and only as bits.
	head = `{"inputs":[{"name":"x","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}}]}`
	w = r.do("POST", "/v2/models/half/infer", head+"\x00\x3c\x00\xc0", "Inference-Header-Content-Length", fmt.Sprint(len(head)))
	if msg := errorBody(t, w); w.Code != 400 || !strings.Contains(msg, "binary_data") {
		t.Errorf("FP16 as JSON: %d %s", w.Code, msg)
	}
	w = r.do("POST", "/v2/models/half/infer", "\x00\x3c\x00\xc0", "Inference-Header-Content-Length", "0")
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), "\x00\x3c\x00\xc0") {
		t.Errorf("raw FP16: %d %q", w.Code, w.Body)
	}
}

func le64(values ...float64) []byte {
	var b []byte
	for _, v := range values {
		for i, u := 0, math.Float64bits(v); i < 8; i++ {
			b = append(b, byte(u>>(8*i)))
		}
	}
	return b
}
