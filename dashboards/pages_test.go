package dashboards

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// hostile closes every quote and element it might stand in.
const hostile = `"'></title></svg><script>alert(1)</script><img src=x onerror=alert(1)>`

func day(d int) time.Time { return time.Date(2013, 7, d, 0, 0, 0, 0, time.UTC) }

// empty are the answers of a server that has seen nothing.
func empty() *api.Sources {
	return &api.Sources{
		Models:      func() []*collector.ModelVersion { return nil },
		States:      func(context.Context) []collector.ModelState { return nil },
		Traffic:     func(context.Context, api.Window) ([]api.TrafficPoint, error) { return nil, nil },
		Drift:       func(context.Context, api.Window) (stats.Report, error) { return stats.Report{}, nil },
		Performance: func(context.Context, api.Window) (api.Performance, error) { return api.Performance{}, nil },
		Bins:        func(context.Context, api.Window, string) (api.Bins, error) { return api.Bins{}, collector.ErrNotFound },
		List:        func(context.Context, collector.Query) (collector.Page, error) { return collector.Page{}, nil },
		Count:       func(context.Context, collector.Query) (int64, error) { return 0, nil },
		Prediction: func(_ context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
			return nil, fmt.Errorf("prediction %q: %w", ref.ID, collector.ErrNotFound)
		},
		Privacy: func(context.Context, *collector.StoredPrediction) (api.Privacy, error) { return api.Privacy{}, nil },
		Explain: func(context.Context, collector.Ref, collector.ExplainRequest) ([]collector.Explanation, error) {
			return nil, collector.ErrNotFound
		},
		Spans:      func(context.Context, string) ([]api.Span, error) { return nil, nil },
		Extent:     func(context.Context, string, string, string) (from, to time.Time, err error) { return from, to, nil },
		Alerts:     func() []alerts.Alert { return nil },
		PastAlerts: func(context.Context, api.AlertQuery) (api.PastAlerts, error) { return api.PastAlerts{}, nil },
		Rules:      func() []api.Rule { return nil },
		Status:     func(context.Context) api.Status { return api.Status{Store: "ok"} },
		Now:        func() time.Time { return day(31) },
	}
}

// filled are the answers of a server whose every name is name.
func filled(name string) *api.Sources {
	s := empty()
	version := func(v string) *collector.ModelVersion {
		return &collector.ModelVersion{Name: name, Version: v, Digest: "abc", Info: &engine.Info{
			Format: name, Task: engine.TaskBinary, Details: []engine.Detail{{Name: name, Value: name}},
		}}
	}
	s.Models = func() []*collector.ModelVersion { return []*collector.ModelVersion{version("1"), version(name)} }
	s.States = func(context.Context) []collector.ModelState {
		return []collector.ModelState{{Name: name, Version: name, State: "UNAVAILABLE", Reason: name}}
	}
	s.Extent = func(context.Context, string, string, string) (from, to time.Time, err error) {
		return day(1), day(31), nil
	}
	s.Traffic = func(_ context.Context, w api.Window) ([]api.TrafficPoint, error) {
		return []api.TrafficPoint{{Start: w.From, End: w.To, Requests: 10, Rows: 1234567, Errors: 1, P50MS: new(0.5), P99MS: new(12.5)}}, nil
	}
	s.Drift = func(context.Context, api.Window) (stats.Report, error) {
		f := []stats.FieldDrift{{Name: name, State: stats.StateDrifted, Tests: map[stats.Test]stats.TestResult{stats.PSI: {Value: 0.25, Threshold: 0.11, Drifted: true}}}}
		start, end := day(1), day(2)
		return stats.Report{Features: f, State: stats.StateDrifted, Reason: name, Chunks: []stats.Chunk{{Start: &start, End: &end, Rows: 9, Features: f}}}, nil
	}
	s.Performance = func(context.Context, api.Window) (api.Performance, error) {
		m := map[string]float64{"auc": 0.7, name: 0.5}
		return api.Performance{Task: "binary", State: stats.StateOK, Reason: name, Metrics: m, Chunks: []api.PerformanceChunk{{Start: day(1), End: day(2), Metrics: m}}}, nil
	}
	s.Bins = func(context.Context, api.Window, string) (api.Bins, error) {
		return api.Bins{Feature: name, Labels: []string{name, "(missing)"}, Reference: []float64{9, 1}, Current: []float64{5, 5}}, nil
	}
	p := collector.StoredPrediction{
		ID: "0198c2f0-0000-7000-8000-000000000001", Time: day(3), Model: name, Version: name, TraceID: name, ExternalID: name, Error: name, Status: 500, Digest: "abc",
		Features: map[string]any{name: name, "gone": nil}, Outputs: map[string]any{name: []float32{0.25, 0.75}},
		LatencyMS: map[string]float64{name: 1, "total": 2}, Labels: []collector.StoredLabel{{Label: name}},
	}
	s.List = func(context.Context, collector.Query) (collector.Page, error) {
		return collector.Page{Predictions: []collector.StoredPrediction{p}, Next: "more"}, nil
	}
	s.Count = func(context.Context, collector.Query) (int64, error) { return 51, nil }
	s.Prediction = func(context.Context, collector.Ref) ([]collector.StoredPrediction, error) {
		return []collector.StoredPrediction{p}, nil
	}
	s.Explain = func(context.Context, collector.Ref, collector.ExplainRequest) ([]collector.Explanation, error) {
		return []collector.Explanation{explanation(name)}, nil
	}
	s.Spans = func(context.Context, string) ([]api.Span, error) {
		return []api.Span{{ID: "1", Name: name, Service: name, Start: day(3), Duration: time.Millisecond}}, nil
	}
	s.Alerts = func() []alerts.Alert {
		return []alerts.Alert{{
			Rule: name, Model: name, Severity: name, State: alerts.Firing, StartsAt: day(1), UpdatedAt: day(5), From: day(1), To: day(2),
			Findings: []alerts.Finding{{Feature: name}}, Samples: []string{name}, Annotations: map[string]string{"summary": name, "features": name + "=1"},
		}}
	}
	s.PastAlerts = func(context.Context, api.AlertQuery) (api.PastAlerts, error) {
		return api.PastAlerts{Next: "more", Alerts: []api.PastAlert{{
			Rule: name, Model: name, Version: name, Kind: name, Severity: name, State: "resolved", StartsAt: day(1), EndsAt: day(3),
			Features: name + "=1", LastFeatures: name + "=2", Summary: name, From: day(1), To: day(2), Predictions: []string{name},
		}}}, nil
	}
	s.Rules = func() []api.Rule {
		return []api.Rule{{
			Name: name, File: name, Model: name, Version: name, Kind: name, Condition: name, Timing: name, Severity: name, State: "firing", Since: day(1),
			EvaluatedAt: day(2), Signal: "drifted", Reason: name, Error: name,
		}, {Name: "fresh", File: "built in", Condition: "lag above 5", State: "inactive"}}
	}
	return s
}

func explanation(name string) collector.Explanation {
	return collector.Explanation{
		Model: name, Version: name, Method: "tree_shap", Output: name, Space: "margin", Base: 1, Prediction: 1.5,
		Attributions: []collector.Attribution{{Feature: name, Value: name, Phi: 0.75}, {Feature: "b", Phi: -0.25}},
		Certificate:  collector.Certificate{Method: name, ModelDigest: name, BaseDefinition: name, Baseline: name, Cover: name, Residual: 1e-9, Exact: true},
	}
}

func pages(t *testing.T, src *api.Sources) *echo.Echo {
	t.Helper()
	e := echo.New()
	err := Register(e, Config{
		Sources: src, Rules: func() int { return 0 }, Build: "test",
		Methods: func(*collector.ModelVersion) []string { return []string{"tree_shap"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func get(e *echo.Echo, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// everyPage are all pages of a server that has model and prediction.
func everyPage(model string) []string {
	m := "/ui/models/" + url.PathEscape(model)
	return []string{
		"/ui/", m, m + "?feature=" + url.QueryEscape(model) + "&from=2013-07-01&to=2013-07-31&step=1d", "/ui/predictions",
		"/ui/predictions?where=" + url.QueryEscape(model) + "&from=2013-07-01&model=" + url.QueryEscape(model), "/ui/predictions/one", "/ui/predictions/one/report",
		"/ui/alerts", "/ui/rules", "/ui/alerts?rule=" + url.QueryEscape(model) + "&model=" + url.QueryEscape(model),
	}
}

func TestPagesOfAServerThatHasSeenNothing(t *testing.T) {
	e := pages(t, empty())
	for path, want := range map[string]string{
		"/ui/":            "No model is loaded yet",
		"/ui/predictions": "No prediction matches",
		"/ui/alerts":      "No rules are configured",
	} {
		w := get(e, path)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, lacks %q", path, w.Code, want)
		}
	}
	for _, path := range []string{"/ui/models/nobody", "/ui/models/nobody?version=3", "/ui/predictions/nothing", "/ui/predictions/nothing/report", "/ui/nowhere", "/ui/static/none.js"} {
		w := get(e, path)
		if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `role="alert"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	src := filled("m")
	src.Traffic, src.Drift, src.Performance = empty().Traffic, empty().Drift, empty().Performance
	src.Extent, src.Spans = empty().Extent, empty().Spans
	e = pages(t, src)
	for _, path := range everyPage("m") {
		if w := get(e, path); w.Code != http.StatusOK {
			t.Errorf("%s of a model without rows: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestNamesAreNeverMarkup(t *testing.T) {
	e := pages(t, filled(hostile))
	var bodies []string
	for _, path := range everyPage(hostile) {
		w := get(e, path)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		bodies = append(bodies, w.Body.String())
	}
	for _, header := range []string{"", "true"} {
		w := post(e, "/ui/predictions/one/explain", map[string]string{"HX-Request": header})
		if w.Code != http.StatusOK {
			t.Errorf("explain: %d", w.Code)
		}
		bodies = append(bodies, w.Body.String())
	}
	// An error text may quote what was asked.
	bodies = append(bodies, get(e, "/ui/models/x"+url.PathEscape(hostile)).Body.String(), get(e, "/ui/alerts?state="+url.QueryEscape(hostile)).Body.String())
	ours := regexp.MustCompile(`<script src="/ui/static/[^"]*" defer></script>`)
	for i, b := range bodies {
		b = ours.ReplaceAllString(b, "")
		for _, bad := range []string{"<script", "<img src=x", "</svg><", `"'>`} {
			if strings.Contains(strings.ReplaceAll(b, "</svg></", ""), bad) {
				at := strings.Index(b, bad)
				t.Errorf("page %d holds %s: ...%s...", i, bad, b[max(0, at-80):min(len(b), at+80)])
			}
		}
		if !strings.Contains(html.UnescapeString(b), "alert(1)") {
			t.Errorf("page %d does not show the name at all", i)
		}
	}
}

// TestMeasuredIsNotGood: that performance could be computed is no verdict, and a step
// without a request is a gap in the chart of latency and nought in that of rows.
func TestMeasuredIsNotGood(t *testing.T) {
	src := filled("m")
	src.Traffic = func(_ context.Context, w api.Window) ([]api.TrafficPoint, error) {
		return []api.TrafficPoint{{Start: day(1), End: day(2), Requests: 1, Rows: 1, P50MS: new(0.5), P99MS: new(12.5)}, {Start: day(2), End: day(3)}}, nil
	}
	body := html.UnescapeString(get(pages(t, src), "/ui/models/m").Body.String())
	for _, want := range []string{
		`<h2>Performance <span class="state measured">measured</span></h2>`, `{"name":"p50","values":[0.5,null]}`, `{"name":"p99","values":[12.5,null]}`, `{"name":"rows","values":[1,0]}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	src.Performance = func(context.Context, api.Window) (api.Performance, error) {
		return api.Performance{Task: "binary", State: stats.StateNoData}, nil
	}
	if got := get(pages(t, src), "/ui/models/m").Body.String(); !strings.Contains(got, `<h2>Performance <span class="state no_data">no data</span>`) {
		t.Error("without labels it is not said that there is no data")
	}
}

var chartData = regexp.MustCompile(`data-chart="([^"]*)"`)

func TestValuesThatAreNoNumbers(t *testing.T) {
	src := filled("m")
	nan, inf := math.NaN(), math.Inf(1)
	src.Traffic = func(_ context.Context, w api.Window) ([]api.TrafficPoint, error) {
		return []api.TrafficPoint{{Start: w.From, End: w.To, Requests: nan, Rows: nan, Errors: inf, P50MS: &nan, P99MS: &inf}}, nil
	}
	src.Performance = func(context.Context, api.Window) (api.Performance, error) {
		m := map[string]float64{"auc": nan, "log_loss": inf}
		return api.Performance{Task: "binary", Metrics: m, Chunks: []api.PerformanceChunk{{Start: day(1), Metrics: m}, {Start: day(2)}}}, nil
	}
	src.Drift = func(context.Context, api.Window) (stats.Report, error) {
		bad := map[stats.Test]stats.TestResult{stats.PSI: {Value: nan, Threshold: inf}}
		start := day(1)
		return stats.Report{
			Features: []stats.FieldDrift{{Name: "a", Tests: bad}, {Name: "b"}, {Name: "c", State: stats.StateNoData, Reason: "too few"}},
			Chunks:   []stats.Chunk{{Features: []stats.FieldDrift{{Name: "a", Tests: bad}}}, {Start: &start}},
		}, nil
	}
	src.List = func(context.Context, collector.Query) (collector.Page, error) {
		return collector.Page{Predictions: []collector.StoredPrediction{{ID: "1", Outputs: map[string]any{"x": nil, "y": []any{nil, 0.5}}}}}, nil
	}
	e := pages(t, src)
	for _, path := range everyPage("m")[:6] {
		w := get(e, path)
		body := w.Body.String()
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, body)
		}
		for _, bad := range []string{"NaN", "+Inf", "Inf ", "&lt;nil&gt;", "0001-01-01"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s shows %s", path, bad)
			}
		}
		for _, m := range chartData.FindAllStringSubmatch(body, -1) {
			var v any
			if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &v); err != nil {
				t.Errorf("%s: a chart's data: %v", path, err)
			}
		}
	}
	body := get(e, "/ui/predictions").Body.String()
	for _, want := range []string{"x missing", "y [missing 0.5]"} {
		if !strings.Contains(body, want) {
			t.Errorf("predictions lack %q", want)
		}
	}
}

func TestEveryAnswerIsProtected(t *testing.T) {
	e := pages(t, filled("m"))
	for _, path := range append(everyPage("m"), "/ui/nowhere", "/ui/static/pellucid.css") {
		h := get(e, path).Header()
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "connect-src 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "http") || strings.Contains(csp, "unsafe-eval") || strings.Contains(csp, "script-src 'self' '") {
			t.Errorf("%s: the policy %q lets others in", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
}

func TestStaticFilesAreKeptByTheirContent(t *testing.T) {
	e := pages(t, empty())
	body := get(e, "/ui/").Body.String()
	named := regexp.MustCompile(`/ui/static/[a-zA-Z.]*\.[0-9a-f]{12}\.(js|css|svg)`)
	urls := named.FindAllString(body, -1)
	if len(urls) < 6 || strings.Count(body, "/ui/static/") != len(urls) {
		t.Errorf("the page names %q", urls)
	}
	kinds := map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
	for _, u := range urls {
		w := get(e, u)
		kind := kinds[u[strings.LastIndex(u, "."):]]
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d %v", u, w.Code, w.Header())
		}
	}
	if w := get(e, "/favicon.ico"); w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/svg+xml" {
		t.Errorf("the icon: %d %v", w.Code, w.Header())
	}
	if w := get(e, "/ui/"); w.Header().Get("Cache-Control") != "" && strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Error("a page is kept for ever")
	}
}

func post(e *echo.Echo, path string, headers map[string]string) *httptest.ResponseRecorder {
	return postForm(e, path, "method=tree_shap", headers)
}

func postForm(e *echo.Echo, path, form string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for k, v := range headers {
		if v != "" {
			r.Header.Set(k, v)
		}
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

func TestExplain(t *testing.T) {
	src := filled("m")
	asked := 0
	answer := func() ([]collector.Explanation, error) { return []collector.Explanation{explanation("m")}, nil }
	src.Explain = func(_ context.Context, ref collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
		asked++
		if ref != (collector.Ref{Tenant: collector.DefaultTenant, ID: "one"}) || req.Method != "tree_shap" {
			t.Errorf("asked for %q of %q, %+v", ref.ID, ref.Tenant, req)
		}
		return answer()
	}
	e := pages(t, src)
	const path = "/ui/predictions/one/explain"
	for _, h := range []map[string]string{{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}} {
		if w := post(e, path, h); w.Code != http.StatusForbidden || asked != 0 || !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("%v: %d after %d questions: %s", h, w.Code, asked, w.Body)
		}
	}
	part := post(e, path, map[string]string{"HX-Request": "true", "Origin": "http://example.com", "Sec-Fetch-Site": "same-origin"}).Body.String()
	for _, want := range []string{"<svg", "completeness residual", "1e-09", "0.75000", "Exact: nothing was sampled"} {
		if !strings.Contains(part, want) {
			t.Errorf("the explanation lacks %q", want)
		}
	}
	if strings.Contains(part, "<html") {
		t.Error("htmx got a whole page")
	}
	optional := filled("m")
	optional.Explain = func(_ context.Context, _ collector.Ref, req collector.ExplainRequest) ([]collector.Explanation, error) {
		if req.Output != "late" || req.Input != "x" || !slices.Equal(req.Baseline, []float64{1, -2.5, 3e4}) {
			t.Errorf("asked for %+v", req)
		}
		return answer()
	}
	of := pages(t, optional)
	const options = "output=late&input=+x&baseline=1,+-2.5%0A3e4"
	if w := postForm(of, path, options, map[string]string{"HX-Request": "true"}); !strings.Contains(w.Body.String(), "<svg") {
		t.Errorf("with options: %d %s", w.Code, w.Body)
	}
	if w := postForm(of, path, options+",x", map[string]string{"HX-Request": "true"}); !strings.Contains(w.Body.String(), "&#34;x&#34; is no number") {
		t.Errorf("with a baseline of letters: %d %s", w.Code, w.Body)
	}
	if whole := post(e, path, nil).Body.String(); !strings.Contains(whole, "<html") || !strings.Contains(whole, "completeness residual") {
		t.Error("without script the page does not hold the explanation")
	}
	answer = func() ([]collector.Explanation, error) {
		x := explanation("m")
		x.Method = "saliency" // which is no part of a sum: it gets bars
		return []collector.Explanation{x}, nil
	}
	if part := post(e, path, map[string]string{"HX-Request": "true"}).Body.String(); !strings.Contains(part, "<svg") {
		t.Errorf("saliency: %s", part)
	}
	answer = func() ([]collector.Explanation, error) {
		return nil, fmt.Errorf("a private <b>: %w", collector.ErrRefused)
	}
	if w := post(e, path, map[string]string{"HX-Request": "true"}); !strings.Contains(w.Body.String(), "a private &lt;b&gt;: refused") {
		t.Errorf("a refusal is shown as %s", w.Body)
	}
	if w := post(e, path, nil); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("a refusal without script: %d", w.Code)
	}
}

func TestAlertsTellWhatBecameOfThem(t *testing.T) {
	src := filled("m")
	var asked api.AlertQuery
	src.PastAlerts = func(_ context.Context, q api.AlertQuery) (api.PastAlerts, error) {
		asked = q
		return api.PastAlerts{Next: "c2", Alerts: []api.PastAlert{
			{Rule: "drift", Model: "m", Kind: "drift", State: "firing", StartsAt: day(4), Features: "temp=3, dewp=1", Summary: "warm", From: day(1), To: day(4), Predictions: []string{"p1"}},
			{Rule: "drift", Model: "m", Kind: "drift", State: "resolved", StartsAt: day(1), EndsAt: day(2).Add(90 * time.Minute), Features: "temp=2", LastFeatures: "temp=1"},
			{Rule: "auc", Model: "m", Kind: "performance", State: "unwatched", StartsAt: day(1), Features: "auc=0.6", Summary: "auc is 0.6"},
			{Rule: "lost", Model: "m", State: "resolved", EndsAt: day(2)},
		}}, nil
	}
	e := pages(t, src)
	w := get(e, "/ui/alerts?model=m&state=firing&from=2013-07-01&to=2013-07-09&cursor=c1")
	body := w.Body.String()
	want := api.AlertQuery{Tenant: collector.DefaultTenant, Model: "m", State: "firing", From: day(1), To: day(9), Limit: pageOfAlerts, Cursor: "c1"}
	if w.Code != http.StatusOK || asked != want {
		t.Errorf("%d, asked %+v, want %+v", w.Code, asked, want)
	}
	for _, want := range []string{
		"warm (temp=3, dewp=1)", "1 d so far", "1 d 1 h", "at last temp=1", "auc is 0.6</td>", `<span class="state unwatched">`,
		`/ui/models/m?feature=temp&amp;from=2013-07-01T00%3A00%3A00Z&amp;to=2013-07-04T00%3A00%3A00Z`, `href="/ui/predictions/p1"`,
		`<option selected>firing</option>`, `value="2013-07-09"`, "cursor=c2", ">Newest<", `<a class="lane" href="/ui/alerts?rule=auc">`,
		`class="bar firing" x="375" width="625"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(body, "feature=auc") {
		t.Error("a metric is taken for a feature")
	}
	for _, bad := range []string{"state=sleeping", "from=yesterday", "from=2013-07-02&to=2013-07-01", "limit=0", "colour=red"} {
		if w := get(e, "/ui/alerts?"+bad); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `role="alert"`) {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	src.PastAlerts = func(context.Context, api.AlertQuery) (api.PastAlerts, error) {
		return api.PastAlerts{}, collector.ErrUnavailable
	}
	if w := get(e, "/ui/alerts"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `data-alert="m"`) {
		t.Errorf("with the store away: %d, and what fires now must still be shown", w.Code)
	}
}

func TestPredictionsAreFilteredAndTurned(t *testing.T) {
	src := filled("m")
	var asked collector.Query
	list := src.List
	src.List = func(ctx context.Context, q collector.Query) (collector.Page, error) { asked = q; return list(ctx, q) }
	e := pages(t, src)
	body := get(e, "/ui/predictions?model=m&where=score+%3E+0.8&cursor=c1&limit=1000").Body.String()
	if asked.Model != "m" || asked.Where != "score > 0.8" || asked.Cursor != "c1" || asked.Limit != 50 {
		t.Errorf("asked %+v", asked)
	}
	for _, want := range []string{`value="score &gt; 0.8"`, "cursor=more", ">Newest<", ">51</span> in all", "[0.25 0.75]"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	src.List = func(context.Context, collector.Query) (collector.Page, error) {
		return collector.Page{}, fmt.Errorf("%w: no feature <x>", collector.ErrBadQuery)
	}
	if w := get(e, "/ui/predictions?where=x"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "no feature &lt;x&gt;") {
		t.Errorf("a bad filter: %d", w.Code)
	}
	if w := get(e, "/ui/find?id=+trace:0af7/x+"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/predictions/trace:0af7%2Fx" {
		t.Errorf("find: %d %v", w.Code, w.Header())
	}
	rows := []collector.StoredPrediction{{ID: "a.0"}, {ID: "a.1"}}
	src.Prediction = func(context.Context, collector.Ref) ([]collector.StoredPrediction, error) { return rows, nil }
	if body := get(e, "/ui/predictions/a").Body.String(); !strings.Contains(body, "2 rows of one request") || !strings.Contains(body, "/ui/predictions/a.1") {
		t.Error("a request of two rows does not list them")
	}
}

// TestLargeRequestsArePaged: a request of 100,000 rows is a page of some of them.
func TestLargeRequestsArePaged(t *testing.T) {
	src := filled("m")
	rows := make([]collector.StoredPrediction, 1001)
	for i := range rows {
		rows[i].ID = fmt.Sprintf("a.%d", i)
	}
	src.Prediction = func(context.Context, collector.Ref) ([]collector.StoredPrediction, error) { return rows, nil }
	e := pages(t, src)
	for path, want := range map[string][]string{
		"/ui/predictions/a": {"1001 rows of one request", ">a.0<", ">a.99<", "Rows 0 to 99.", "?row=100\"", "!a.100<", "!Earlier"}, "/ui/predictions/a?row=150": {">a.150<", ">a.249<", "?row=50\"", "?row=250\""},
		"/ui/predictions/a?row=1000": {">a.1000<", "?row=900\"", "!Later"}, "/ui/predictions/a%2Fb": {"/ui/predictions/a%2Fb?row=100"},
	} {
		body := get(e, path).Body.String()
		for _, w := range want {
			if bare, no := strings.CutPrefix(w, "!"); strings.Contains(body, bare) == no {
				t.Errorf("%s: about %q", path, w)
			}
		}
	}
	for _, bad := range []string{"row=1001", "row=-1", "row=x", "row=1&row=2", "row=1;"} {
		if w := get(e, "/ui/predictions/a?"+bad); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}

// TestPagesRefuseWhatTheyDoNotUnderstand: a filter that is dropped in silence is
// another page.
func TestPagesRefuseWhatTheyDoNotUnderstand(t *testing.T) {
	e := pages(t, filled("m"))
	for _, path := range []string{
		"/ui/?x=1", "/ui/models/m?from=2013-07-01;", "/ui/models/m?version=%zz", "/ui/models/m?step=1d&step=1h", "/ui/models/m?form=x", "/ui/models/m?to=0001-01-01",
		"/ui/predictions?where=a%3E1;", "/ui/predictions?model=%zz", "/ui/predictions?model=a&model=b", "/ui/predictions/one?x=1", "/ui/predictions/one/report?method=a;",
		"/ui/alerts?rule=a;", "/ui/alerts?rule=a&rule=b", "/ui/alerts?from=2013-07-01;", "/ui/find?id=a;b",
	} {
		if w := get(e, path); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestModelPageShowsTheWindowItWasAskedFor(t *testing.T) {
	src := filled("m")
	var asked []api.Window
	traffic := src.Traffic
	src.Traffic = func(ctx context.Context, w api.Window) ([]api.TrafficPoint, error) {
		asked = append(asked, w)
		return traffic(ctx, w)
	}
	e := pages(t, src)
	body := get(e, "/ui/models/m?version=1&from=2013-07-01&to=2013-07-31&step=1d&feature=temp").Body.String()
	if len(asked) != 2 || asked[0].Step != 24*time.Hour || asked[1].Step != 0 || !asked[0].From.Equal(day(1)) || !asked[1].To.Equal(day(31)) {
		t.Errorf("asked %+v", asked)
	}
	for _, want := range []string{`data-figure="rows">1` + "\u202f234\u202f567<", `data-figure="p99" data-value="12.5">12.5 ms<`, `data-figure="auc" data-value="0.7">0.7000<`, `data-value="0.25"`, "<option selected>1d</option>"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"from=x", "to=2013-13-01", "step=1s", "step=x", "from=2013-07-02&to=2013-07-01", "from=1990-01-01&to=2013-01-01&step=1m", "version=7"} {
		w := get(e, "/ui/models/m?"+bad)
		if w.Code != http.StatusBadRequest && w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		number(1234567): "1\u202f234\u202f567", number(-1234.0): "-1\u202f234", number(999): "999", number(math.NaN()): "–", number(math.Inf(1)): "–", number(int64(0)): "0",
		ms(0): "–", ms(0.029): "29 µs", ms(12.345): "12.3 ms", ms(1500): "1.5 s", ms(math.NaN()): "–", ms(math.Inf(1)): "–", metric(math.Inf(1)): "–", metric(0.5): "0.5000",
		when(time.Time{}): "–", tail("abc"): "…abc", short("ab"): "ab", share([]float64{1, 3}, 1): "75.00 %", share(nil, 0): "–",
		lasted(day(1), day(1).Add(time.Second)): "under a minute", lasted(day(1), day(9).Add(25*time.Minute)): "8 d 25 min", lasted(day(2), day(1)): "", lasted(time.Time{}, day(1)): "",
		value(nil): "missing", value(float32(0.1)): "0.1", value([]float64{1, math.NaN()}): "[1 NaN]", value(make([]float32, 30))[:4]: "[0 0",
		saying("", "a=1"): "a=1", saying("it is 1", "a=1"): "it is 1", saying("many", "a=1, b=2"): "many (a=1, b=2)",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestAnIdOfSeveralModels is a list of predictions that each has a page of its own.
func TestAnIdOfSeveralModels(t *testing.T) {
	src := filled("m")
	var asked []collector.Ref
	src.Prediction = func(_ context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
		asked = append(asked, ref)
		rows := []collector.StoredPrediction{
			{ID: "o/1", Model: "a&b", Version: "v1", Time: day(1), Status: 200, Capture: "full", Route: collector.RouteImported},
			{ID: "o/1", Model: "c", Version: "v2", Time: day(2), Status: 200, Capture: "full", Route: collector.RouteImported},
		}
		switch ref.Model {
		case "a&b":
			return rows[:1], nil
		case "c":
			return rows[1:], nil
		}
		return rows, nil
	}
	src.Explain = func(_ context.Context, ref collector.Ref, _ collector.ExplainRequest) ([]collector.Explanation, error) {
		asked = append(asked, ref)
		return []collector.Explanation{explanation("m")}, nil
	}
	e := pages(t, src)
	body := get(e, "/ui/predictions/o%2F1").Body.String()
	for _, want := range []string{"2 predictions of this id", `href="/ui/predictions/o%2F1?model=a%26b"`, `href="/ui/predictions/o%2F1?model=c"`, "v1", "v2", "2013-07-01 00:00:00", "2013-07-02 00:00:00"} {
		if !strings.Contains(body, want) {
			t.Errorf("the list lacks %s", want)
		}
	}
	one := get(e, "/ui/predictions/o%2F1?model=a%26b").Body.String()
	for _, want := range []string{"One prediction", `action="/ui/predictions/o%2F1/explain?model=a%26b"`, `href="/ui/predictions/o%2F1/report?model=a%26b"`} {
		if !strings.Contains(one, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	asked = nil
	post(e, "/ui/predictions/o%2F1/explain?model=a%26b", map[string]string{"HX-Request": "true"})
	get(e, "/ui/predictions/o%2F1/report?model=c")
	want := []string{"a&b", "c", "c"}
	for i, ref := range asked {
		if len(asked) != len(want) || ref.Model != want[i] || ref.ID != "o/1" {
			t.Errorf("asked %+v", asked)
		}
	}
}

// TestPrivateFieldsAreMarked, and sealed ones can be shown by who may see them.
func TestPrivateFieldsAreMarked(t *testing.T) {
	src := filled("m")
	p := collector.StoredPrediction{
		ID: "one", Model: "m", Status: 200, Capture: "full", Features: map[string]any{"a": "***", "b": 1.0, "c": "f00"}, Outputs: map[string]any{"said": "[card]"},
	}
	private := api.Privacy{Features: map[string]string{"a": "seal", "c": "hash", "d": "drop"}, Outputs: map[string]string{"said": "pattern"}, Sealed: true}
	src.Prediction = func(context.Context, collector.Ref) ([]collector.StoredPrediction, error) {
		return []collector.StoredPrediction{p}, nil
	}
	src.Privacy = func(context.Context, *collector.StoredPrediction) (api.Privacy, error) { return private, nil }
	e := pages(t, src)
	show := func(what string, want ...string) {
		t.Helper()
		body := get(e, "/ui/predictions/one").Body.String()
		for _, w := range want {
			if bare, no := strings.CutPrefix(w, "!"); strings.Contains(body, bare) == no {
				t.Errorf("%s: about %q", what, w)
			}
		}
	}
	marks := []string{`<td>a <span class="mark seal"`, `<td>c <span class="mark hash"`, `<td>d <span class="mark drop"`, "not stored", `<td>b</td>`, `<dt>said <span class="mark pattern"`}
	show("who may not", append(marks, "machine only", "!unseal=true", "!/report", "!/explain", `feature &#34;c&#34; is private (hash)`)...)
	private.MayUnseal = true
	show("who may see what does not explain", append(marks, `href="/ui/predictions/one?unseal=true"`, "!/explain")...)
	private.Features = map[string]string{"a": "seal"}
	show("who may", `href="/ui/predictions/one?unseal=true"`, `action="/ui/predictions/one/explain?unseal=true"`, `href="/ui/predictions/one/report?unseal=true"`)
	private.MayUnseal = false
	show("who may not have it explained", "Its explanation would show sealed values", "!/explain", "!/report")
	private.MayUnseal = true
	private.Unsealed = true
	show("who does", `action="/ui/predictions/one/explain?unseal=true"`, `href="/ui/predictions/one/report?unseal=true"`, `href="/ui/predictions/one">Hide them`)
	private = api.Privacy{}
	show("nothing is private", "!class=\"mark", "!unseal", `href="/ui/predictions/one/report"`)
	for capture, want := range map[string][]string{
		"sampled": {"capture.sample left them out", "It cannot be explained", "!/explain"}, "cut": {"larger than", "!/explain"}, "none": {"(none)", "!/explain"}, "full": {"brought no features"},
	} {
		p.Features, p.Capture = nil, capture
		show(capture, want...)
	}
	p.Status = 500
	show("failed", "the request failed", "nothing to explain", "!/explain")
}

// TestExplanationsSayWhatTheirNumbersAre: a unit and a residual in a sentence.
func TestExplanationsSayWhatTheirNumbersAre(t *testing.T) {
	src := filled("m")
	x := explanation("m")
	src.Explain = func(context.Context, collector.Ref, collector.ExplainRequest) ([]collector.Explanation, error) {
		return []collector.Explanation{x}, nil
	}
	e := pages(t, src)
	for _, c := range []struct {
		method, space string
		exact         bool
		want          []string
	}{
		{"tree_shap", "margin", true, []string{"log-odds", "rounding of floating point"}},
		{"tree_shap", "probability", true, []string{"five percentage points", "misses the prediction by"}},
		{"integrated_gradients", "identity", false, []string{"the model&#39;s own output", "summing the gradient"}},
		{"input_x_gradient", "identity", false, []string{"does not account for"}},
		{"saliency", "identity", false, []string{"it has no direction"}},
	} {
		x.Method, x.Space, x.Certificate.Method, x.Certificate.Exact = c.method, c.space, c.method, c.exact
		part := post(e, "/ui/predictions/one/explain", map[string]string{"HX-Request": "true"}).Body.String()
		whole := get(e, "/ui/predictions/one/report").Body.String()
		for _, w := range c.want {
			if !strings.Contains(part, w) || !strings.Contains(whole, w) && w != "misses the prediction by" {
				t.Errorf("%s in %s: %q: page %t, report %t", c.method, c.space, w, strings.Contains(part, w), strings.Contains(whole, w))
			}
		}
	}
	x.Method, x.Certificate.Method, x.Certificate.Warning = "integrated_gradients", "integrated_gradients", "the value jumps"
	for _, body := range []string{post(e, "/ui/predictions/one/explain", map[string]string{"HX-Request": "true"}).Body.String(), get(e, "/ui/predictions/one/report").Body.String()} {
		if !strings.Contains(body, "Does not add up: the value jumps.") || strings.Contains(body, "what is left of the error") {
			t.Errorf("a warning is not shown as one in %s", body)
		}
	}
}

// TestRulesAreListed with what makes them fire, where they stand and why they are not
// judged.
func TestRulesAreListed(t *testing.T) {
	src := empty()
	src.Rules = func() []api.Rule {
		return []api.Rule{{
			Name: "late flights", File: "rules.yaml", Model: "m", Version: "2", Kind: "drift", Condition: "psi above 0.2 for origin", Timing: "over 7d, every 1d", Severity: "page",
			State: "firing", Since: day(3), EvaluatedAt: day(4), Signal: "no_data", Reason: "10 rows",
		}, {Name: "PellucidLagging", File: "built in", Kind: "self", Condition: "lag above 300", State: "inactive", Error: "no numbers here"}}
	}
	e := pages(t, src)
	body := get(e, "/ui/rules").Body.String()
	for _, want := range []string{
		`data-rule="late flights" data-state="firing"`, "since 2013-07-03 00:00:00", "rules.yaml", `href="/ui/models/m"`, "psi above 0.2 for origin", "over 7d, every 1d", "2013-07-04 00:00:00",
		"no data: 10 rows", `href="/ui/alerts?rule=late&#43;flights#history"`, "Pellucid itself", "never", "no numbers here", `aria-current="page">Alerts`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if w := get(e, "/ui/rules?x=1"); w.Code != http.StatusBadRequest {
		t.Errorf("an unknown parameter: %d", w.Code)
	}
	if body := get(e, "/ui/alerts").Body.String(); !strings.Contains(body, `href="/ui/rules"`) {
		t.Error("alerts do not lead to their rules")
	}
}
