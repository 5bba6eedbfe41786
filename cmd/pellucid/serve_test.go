package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// threeModels is a models folder with an XGBoost, a LightGBM and an ONNX model.
func threeModels(t *testing.T) (dir string, cases map[string]*servedCase) {
	t.Helper()
	dir = t.TempDir()
	return dir, map[string]*servedCase{
		"xgb": treeCase(t, dir, "xgb", xgboostData, "base_binary_logistic"),
		"lgb": treeCase(t, dir, "lgb", lightgbmData, "objective_binary"),
		"net": networkCase(t, dir, "net", "mlp_relu_script"),
	}
}

// TestWholeServer is the main path: predict, read back, explain, for a model of
// every kind, against what the libraries computed.
func TestWholeServer(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	ids := map[string]string{}
	for name, c := range cases {
		id, got := r.infer(t, name, c)
		near(t, name, got, c.want)
		ids[name] = id
	}
	for _, where := range []string{"wherever it is", "ClickHouse"} {
		if where == "ClickHouse" {
			r.stored(t)
		}
		for name, c := range cases {
			checkStored(t, r, where, ids[name], name, c)
		}
	}
	for name, c := range cases {
		if c.contribs != nil {
			checkContribs(t, r.explained(t, ids[name], `{}`), ids[name], c)
		} else {
			checkGradients(t, r, ids[name], c)
		}
	}
	// One row of a batch, by its own id.
	list := r.explained(t, ids["xgb"]+".3", `{"method":"tree_shap"}`)
	if len(list) != 1 || list[0].PredictionID != ids["xgb"]+".3" {
		t.Fatalf("one row: %+v", list)
	}
	compareContribs(t, &list[0], cases["xgb"], 3)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/api/v1/predictions/nobody/explain", `{}`, 404},
		{"/api/v1/predictions/" + ids["xgb"] + "/explain", `{"method":"integrated_gradients"}`, 422},
		{"/api/v1/predictions/" + ids["xgb"] + "/explain", `{"methd":"tree_shap"}`, 400},
		{"/v2/models/absent/infer", `{"inputs":[]}`, 404},
	} {
		if status, b, _ := r.call(t, "POST", c.path, c.body); status != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.path, c.body, status, b, c.status)
		}
	}
	if status, _, _ := r.call(t, "GET", "/api/v1/predictions/nobody", ""); status != 404 {
		t.Errorf("an unknown prediction: %d", status)
	}
	for _, page := range []string{"/ui/", "/ui/models/xgb", "/ui/predictions", "/ui/predictions/" + ids["net"] + ".0", "/ui/alerts", "/metrics"} {
		if status, b, _ := r.call(t, "GET", page, ""); status != 200 || len(b) == 0 {
			t.Errorf("%s: %d", page, status)
		}
	}
}

// checkStored reads a batch back and compares every feature and output.
func checkStored(t *testing.T, r *rig, where, id, model string, c *servedCase) {
	t.Helper()
	var page collector.Page
	r.get(t, "/api/v1/predictions/"+id, &page)
	if len(page.Predictions) != len(c.rows) {
		t.Fatalf("%s: %s has %d rows, want %d", where, model, len(page.Predictions), len(c.rows))
	}
	for i, p := range page.Predictions {
		if p.ID != fmt.Sprintf("%s.%d", id, i) || p.Model != model || p.Version != "1" || p.Status != 200 || p.Capture != "full" || p.Digest == "" || p.TraceID == "" {
			t.Errorf("%s: row %d is %+v", where, i, p)
		}
		if len(p.Features) != len(c.rows[i]) {
			t.Fatalf("%s: %s row %d has features %v", where, model, i, p.Features)
		}
		for j, want := range c.rows[i] {
			got, ok := p.Features[fmt.Sprintf("f%d", j)]
			if !ok {
				got, ok = p.Features[fmt.Sprintf("%s[%d]", c.input, j)]
			}
			if !ok {
				got, ok = p.Features[fmt.Sprintf("Column_%d", j)]
			}
			f, number := got.(float64)
			if missing := math.IsNaN(want); !ok || missing != (got == nil) || !missing && (!number || float32(f) != float32(want)) {
				t.Fatalf("%s: %s row %d feature %d is %v (%t), want %g", where, model, i, j, got, ok, want)
			}
		}
	}
}

// checkContribs compares explanations of a batch with the library's.
func checkContribs(t *testing.T, list []collector.Explanation, id string, c *servedCase) {
	t.Helper()
	if len(list) != len(c.rows) {
		t.Fatalf("%d explanations for %d rows", len(list), len(c.rows))
	}
	for i := range list {
		if list[i].PredictionID != fmt.Sprintf("%s.%d", id, i) || list[i].Method != "tree_shap" || list[i].Space != "margin" {
			t.Errorf("explanation %d: %+v", i, list[i])
		}
		compareContribs(t, &list[i], c, i)
	}
}

func compareContribs(t *testing.T, e *collector.Explanation, c *servedCase, row int) {
	t.Helper()
	want := c.contribs[row][0]
	if len(e.Attributions) != len(want)-1 {
		t.Fatalf("%s: %d attributions, want %d", e.Model, len(e.Attributions), len(want)-1)
	}
	scale, sum := 0.0, e.Base
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for j, a := range e.Attributions {
		sum += a.Phi
		if !(math.Abs(a.Phi-want[j]) <= c.tolerance*scale) {
			t.Errorf("%s row %d %s: phi %.12g, the library's %.12g", e.Model, row, a.Feature, a.Phi, want[j])
		}
	}
	if base := want[len(want)-1]; !(math.Abs(e.Base-base) <= c.tolerance*max(scale, math.Abs(base))) {
		t.Errorf("%s row %d: base %g, want %g", e.Model, row, e.Base, base)
	}
	if !(math.Abs(sum-e.Prediction) <= 1e-5*max(1, scale)) || !e.Certificate.Exact || e.Certificate.ModelDigest == "" {
		t.Errorf("%s row %d: base and parts make %g, the prediction is %g; %+v", e.Model, row, sum, e.Prediction, e.Certificate)
	}
}

// checkGradients compares the gradient methods with PyTorch's gradients, and
// integrated gradients with what they must add up to.
func checkGradients(t *testing.T, r *rig, id string, c *servedCase) {
	t.Helper()
	scale := 0.0
	for _, row := range c.gradient {
		for _, g := range row {
			scale = max(scale, math.Abs(g))
		}
	}
	for method, want := range map[string]func(x, g float64) float64{
		"saliency":         func(_, g float64) float64 { return math.Abs(g) },
		"input_x_gradient": func(x, g float64) float64 { return x * g },
	} {
		list := r.explained(t, id, `{"method":"`+method+`"}`)
		if len(list) != len(c.rows) {
			t.Fatalf("%s: %d explanations", method, len(list))
		}
		for i, e := range list {
			for j, a := range e.Attributions {
				if w := want(c.rows[i][j], c.gradient[i][j]); !(math.Abs(a.Phi-w) <= 1e-4*scale*max(1, math.Abs(c.rows[i][j]))) {
					t.Errorf("%s row %d %s: %g, PyTorch's gradient makes it %g", method, i, a.Feature, a.Phi, w)
				}
			}
		}
	}
	list := r.explained(t, id, `{}`)
	if len(list) != len(c.rows) {
		t.Fatalf("%d explanations for %d rows", len(list), len(c.rows))
	}
	for i, e := range list {
		sum := e.Base
		for _, a := range e.Attributions {
			sum += a.Phi
		}
		if e.Method != "integrated_gradients" || !(math.Abs(sum-c.want[i][0]) <= 1e-3*max(1, math.Abs(c.want[i][0]))) {
			t.Errorf("row %d: %s adds up to %g, the model says %g", i, e.Method, sum, c.want[i][0])
		}
	}
}

// TestClickHouseAway: an outage costs no answer, and everything that was
// answered meanwhile is stored after it, once.
func TestClickHouseAway(t *testing.T) {
	models, cases := threeModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	before, _ := r.infer(t, "xgb", cases["xgb"])
	r.stored(t)
	f.cut()
	var ids []string
	rows := len(cases["xgb"].rows)
	for range 5 {
		for name, c := range cases {
			id, got := r.infer(t, name, c)
			near(t, name, got, c.want)
			ids = append(ids, id)
			rows += len(c.rows)
			checkStored(t, r, "spool", id, name, c)
		}
	}
	// A prediction in the spool is explained like any other.
	checkContribs(t, r.explained(t, idOf(t, r, ids, "xgb"), `{}`), idOf(t, r, ids, "xgb"), cases["xgb"])
	if status, b, _ := r.call(t, "GET", "/api/v1/predictions/"+before, ""); status != http.StatusServiceUnavailable {
		t.Errorf("what only ClickHouse has, while it is away: %d %s", status, b)
	}
	if status, _, _ := r.call(t, "GET", "/readyz", ""); status != http.StatusOK {
		t.Errorf("not ready while ClickHouse is away: %d", status)
	}
	f.open(t)
	r.stored(t)
	db := r.database(t)
	if got := sql(t, db, "SELECT count(), uniqExact(id, row) FROM predictions"); got != fmt.Sprintf("%d\t%d", rows, rows) {
		t.Errorf("rows and different rows: %s, want %d of each", got, rows)
	}
	if got := sql(t, db, "SELECT sum(rows) FROM traffic_1m"); got != fmt.Sprint(rows) {
		t.Errorf("traffic counts %s rows, want %d", got, rows)
	}
	var page collector.Page
	r.get(t, "/api/v1/predictions/"+before, &page)
	if len(page.Predictions) != len(cases["xgb"].rows) {
		t.Errorf("after the outage %d rows", len(page.Predictions))
	}
}

// idOf picks a prediction of a model.
func idOf(t *testing.T, r *rig, ids []string, model string) string {
	t.Helper()
	for _, id := range ids {
		var page collector.Page
		r.get(t, "/api/v1/predictions/"+id, &page)
		if page.Predictions[0].Model == model {
			return id
		}
	}
	t.Fatalf("no prediction of %s", model)
	return ""
}

// TestRestart: what waits in the spool of a server that ended is stored by the
// next one, and old predictions are explained by the version that made them,
// even where its files are gone.
func TestRestart(t *testing.T) {
	models, cases := threeModels(t)
	cfg := testConfig(t, models)
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.cut()
	id, _ := r.infer(t, "lgb", cases["lgb"])
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), stopTime)
	defer cancel()
	// Spans have no spool: what is lost of them is said.
	if err := r.stop(ctx); err != nil || !strings.Contains(r.log.String(), "spans were not written") {
		t.Errorf("stop while ClickHouse is away: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if err := os.RemoveAll(filepath.Join(models, "lgb")); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	r = startRig(t, cfg)
	r.stored(t)
	checkStored(t, r, "ClickHouse", id, "lgb", cases["lgb"])
	checkContribs(t, r.explained(t, id, `{}`), id, cases["lgb"])
	if status, _, _ := r.call(t, "POST", "/v2/models/lgb/infer", cases["lgb"].body("")); status != http.StatusNotFound {
		t.Errorf("a removed model: %d", status)
	}
}

func TestOneServerToAFolder(t *testing.T) {
	models, _ := threeModels(t)
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	log := slog.New(slog.DiscardHandler)
	if s, err := startServer(t.Context(), cfg, log, io.Discard); err == nil {
		t.Error("a second server started on the same folder", s.url)
	} else if !strings.Contains(err.Error(), cfg.Data) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the folder: %v", err)
	}
	other := testConfig(t, models)
	other.HTTP = strings.TrimPrefix(r.url, "http://")
	if s, err := startServer(t.Context(), other, log, io.Discard); err == nil {
		t.Error("a second server took the port", s.url)
	} else if !strings.Contains(err.Error(), other.HTTP) || !strings.Contains(err.Error(), "--http") {
		t.Errorf("a taken port: %v", err)
	}
	if status, _, _ := r.call(t, "GET", "/readyz", ""); status != http.StatusOK {
		t.Errorf("the first server: %d", status)
	}
}

// TestVersionsUnderTraffic: unload and load, a new version and a bad one.
func TestVersionsUnderTraffic(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	infer := func(want int) string {
		t.Helper()
		status, b, _ := r.call(t, "POST", "/v2/models/xgb/infer", cases["xgb"].body(""))
		if status != want {
			t.Fatalf("infer: %d %s, want %d", status, b, want)
		}
		var v struct {
			Version string `json:"model_version"`
		}
		if want == 200 {
			decode(t, "infer", status, b, &v)
		}
		return v.Version
	}
	index := func(version string) (found collector.ModelState) {
		t.Helper()
		var list []collector.ModelState
		r.post(t, "/v2/repository/index", "{}", &list)
		for _, s := range list {
			if s.Name == "xgb" && s.Version == version {
				found = s
			}
		}
		return found
	}
	r.post(t, "/v2/repository/models/xgb/unload", "{}", nil)
	infer(503)
	if s := index("1"); s.State != "UNAVAILABLE" || s.Reason != "unloaded" {
		t.Errorf("index: %+v", s)
	}
	r.post(t, "/v2/repository/models/xgb/load", "{}", nil)
	if v := infer(200); v != "1" {
		t.Errorf("version %q", v)
	}
	place(t, models, "xgb/2/model.json", `{"learner": "nonsense"}`)
	until(t, "the bad version is listed", func() bool { return index("2").State == "UNAVAILABLE" })
	if s := index("2"); s.Reason == "" || infer(200) != "1" {
		t.Errorf("with a bad version: %+v", s)
	}
	place(t, models, "xgb/10/model.json", readFile(t, filepath.Join(xgboostData, "base_binary_logistic.json")))
	until(t, "the new version answers", func() bool { return infer(200) == "10" })
	for _, policy := range []string{"seal", "dorp"} {
		v := "private-" + policy
		place(t, models, "xgb/"+v+"/model.yaml", "features: [{name: f0, private: "+policy+"}]\n")
		place(t, models, "xgb/"+v+"/model.json", readFile(t, filepath.Join(xgboostData, "base_binary_logistic.json")))
		until(t, v+" is listed", func() bool { return index(v).State != "" })
		if s := index(v); s.State != "UNAVAILABLE" || !strings.Contains(s.Reason, policy) || !strings.Contains(s.Reason, `"f0"`) {
			t.Errorf("%s: %+v", v, s)
		}
	}
}

// TestUpstream: a model that another server answers is recorded here as well.
func TestUpstream(t *testing.T) {
	models, cases := threeModels(t)
	far := startRig(t, testConfig(t, models))
	cfg := testConfig(t, t.TempDir())
	cfg.Upstreams = []upstreamConfig{{Name: "risk", URL: far.url, Model: "xgb"}}
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.cut()
	c := cases["xgb"].whole()
	id, got := r.infer(t, "risk", c)
	near(t, "risk", got, c.want)
	checkStored(t, r, "spool", id, "risk", c)
	f.open(t)
	r.stored(t)
	checkStored(t, r, "ClickHouse", id, "risk", c)
	far.stored(t)
	if n := sql(t, far.database(t), "SELECT count() FROM predictions WHERE model = 'xgb'"); n != fmt.Sprint(len(c.rows)) {
		t.Errorf("the upstream has recorded %s rows", n)
	}
	// One trace leads through both.
	var here, there collector.Page
	r.get(t, "/api/v1/predictions/"+id, &here)
	far.get(t, "/api/v1/predictions/"+url.PathEscape("trace:"+here.Predictions[0].TraceID), &there)
	if len(there.Predictions) != len(c.rows) {
		t.Errorf("the trace leads to %d rows of the upstream", len(there.Predictions))
	}
	// Nothing is known of how it computes: an explanation is refused, not faked.
	if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+id+"/explain", `{}`); status < 400 || status >= 500 {
		t.Errorf("explain an upstream's prediction: %d %s", status, b)
	}
	far.halt(t)
	status, _, h := r.call(t, "POST", "/v2/models/risk/infer", c.body(""))
	if status != http.StatusBadGateway && status != http.StatusServiceUnavailable {
		t.Errorf("with the upstream gone: %d", status)
	}
	var failed collector.StoredPrediction
	r.stored(t)
	if id := h.Get("Pellucid-Prediction-Id"); id == "" {
		t.Error("the failed request has no prediction")
	} else if r.get(t, "/api/v1/predictions/"+id+".0", &failed); failed.Status != status {
		t.Errorf("recorded as %d, answered with %d", failed.Status, status)
	}
}

// TestReferenceServesAsBackground: a tree model without covers, and a network, that
// name a reference but no background are explained against the reference, and in
// the same way after their folder has gone.
func TestReferenceServesAsBackground(t *testing.T) {
	models := t.TempDir()
	for _, name := range []string{"forest_binary", "mlp_binary"} {
		file := archived(t, "sklearn.zip", name)
		place(t, models, name+"/1/model.onnx", string(file("model.onnx")))
		place(t, models, name+"/1/model.yaml", "task: binary\nreference: rows.npy\nfeature_names: [a, b, c, d, e]\n")
		place(t, models, name+"/1/rows.npy", string(file("in_0.npy")))
	}
	rows := array(t, archived(t, "sklearn.zip", "forest_binary"), "in_0.npy")
	cfg := testConfig(t, models)
	r := startRig(t, cfg)
	before := map[string][]collector.Explanation{}
	for _, name := range []string{"forest_binary", "mlp_binary"} {
		c := &servedCase{input: "X", datatype: "FP32", rows: rows[:3]}
		h := r.post(t, "/v2/models/"+name+"/infer", c.body(""), nil)
		before[h.Get("Pellucid-Prediction-Id")] = r.explained(t, h.Get("Pellucid-Prediction-Id"), `{}`)
	}
	r.stored(t)
	r.halt(t)
	cfg.Models = t.TempDir()
	again := startRig(t, cfg)
	for id, want := range before {
		got := again.explained(t, id, `{}`)
		if got[0].Attributions[4].Feature != "e" {
			t.Errorf("the columns are not named: %+v", got[0].Attributions)
		}
		if len(got) == 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("explained as\n%+v\nwas\n%+v", got, want)
		}
		switch c := got[0].Certificate; got[0].Method {
		case "tree_shap":
			if c.Mode != "background" || c.BackgroundRows != len(rows) || c.BackgroundDigest == "" {
				t.Errorf("certificate %+v", c)
			}
		default:
			if !strings.Contains(c.Baseline, "median") {
				t.Errorf("baseline %q", c.Baseline)
			}
		}
	}
}

// TestSpansOfOthersAreTakenIn: OTLP from another program lands beside our own
// spans, once however often it is sent, and the page of a trace shows both.
func TestSpansOfOthersAreTakenIn(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	var spans []string
	for day := range 30 {
		spans = append(spans, fmt.Sprintf(`{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"%016x","name":"theirs","kind":2,"startTimeUnixNano":"%d"}`,
			day+1, time.Date(2018, 12, 1+day, 0, 0, 0, 0, time.UTC).UnixNano()))
	}
	body := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"other"}}]},"scopeSpans":[{"spans":[` + strings.Join(spans, ",") + `]}]}]}`
	for range 2 {
		r.post(t, "/v1/traces", body, nil)
	}
	if n := sql(t, r.database(t), "SELECT count() FROM otel_traces WHERE ServiceName = 'other'"); n != "30" {
		t.Errorf("%s spans", n)
	}
	list, err := r.spans(t.Context(), "5b8efff798038103d269b633813fc60c")
	if err != nil || len(list) != 30 || list[0].Name != "theirs" {
		t.Errorf("the trace has %d spans (%v)", len(list), err)
	}
}
