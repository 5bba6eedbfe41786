package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/alerts"
	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/stats"
)

func day(d int) time.Time { return time.Date(2013, 7, d, 0, 0, 0, 0, time.UTC) }

// recorder answers every question with nothing and keeps what was asked.
type recorder struct {
	window Window
	query  collector.Query
	alerts AlertQuery
	asked  int
	err    error
}

func (r *recorder) sources() *Sources {
	return &Sources{
		States: func(context.Context) []collector.ModelState { return []collector.ModelState{{Name: "m"}} },
		Traffic: func(_ context.Context, w Window) ([]TrafficPoint, error) {
			r.window, r.asked = w, r.asked+1
			return []TrafficPoint{}, r.err
		},
		Drift: func(_ context.Context, w Window) (stats.Report, error) {
			r.window, r.asked = w, r.asked+1
			return stats.Report{}, r.err
		},
		Performance: func(_ context.Context, w Window) (Performance, error) {
			r.window, r.asked = w, r.asked+1
			return Performance{}, r.err
		},
		List: func(_ context.Context, q collector.Query) (collector.Page, error) {
			r.query, r.asked = q, r.asked+1
			return collector.Page{Predictions: []collector.StoredPrediction{}}, r.err
		},
		Count: func(_ context.Context, q collector.Query) (int64, error) {
			r.query, r.asked = q, r.asked+1
			return 7, r.err
		},
		Alerts: func() []alerts.Alert {
			return []alerts.Alert{{Rule: "r", State: alerts.Firing, Labels: map[string]string{"alertname": "r"}}}
		},
		PastAlerts: func(_ context.Context, q AlertQuery) (PastAlerts, error) {
			r.alerts, r.asked = q, r.asked+1
			return PastAlerts{Alerts: []PastAlert{{Rule: "r", Predictions: []string{}}}}, r.err
		},
		Receivers: []string{"log"},
	}
}

func get(t *testing.T, r *recorder, path string) *httptest.ResponseRecorder {
	t.Helper()
	e := echo.New()
	Register(e, r.sources())
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("%s is answered as %q", path, kind)
	}
	return w
}

// What is not understood is refused before anything is asked: a misspelt bound
// must not become an answer about another time.
func TestBadParametersAreRefused(t *testing.T) {
	window := []string{
		"from=yesterday", "to=2013-13-01", "from=2013-07-02&to=2013-07-01", "from=2013-07-01&to=2013-07-01", "step=soon", "step=1s", "step=-1h", "step=0s",
		"from=0001-01-01", "to=9999-01-01", "from=1677-01-01", "to=2300-01-01", "from=1969-12-31T23:59:59Z", "step=90s", "from=1970-01-01&to=2020-01-01&step=1d",
		"from=2013-07-01T00:00:00,5Z", "version=%zz", "version=1;", "from=2013-07-01;", "step=1h&step=1d", "version=1&version=1",
		"step=20000d", "step=1m&from=2000-01-01&to=2013-01-01", "tests=guess", "form=2013-07-01", "limit=5",
	}
	listing := []string{
		"limit=0", "limit=1001", "limit=-1", "limit=ten", "from=1", "to=x", "from=2013-07-02&to=2013-07-01", "order=up", "count=true&model=pub&where=age%3E99999999;", "model=%zz", "model=pub;", "from=2030-01-01;",
		"to=0001-01-01", "model=a&model=b", "limit=5&limit=5", "%3D", "model=a&;",
	}
	bad := map[string][]string{
		"/api/v1/models/m/drift": window, "/api/v1/models/m/performance": window, "/api/v1/models/m/traffic": window,
		"/api/v1/predictions": append(listing, "count=yes", "count=1", "count=true&count=true"), "/api/v1/models": {"model=m", "%zz"}, "/api/v1/alerts": append(listing, "state=asleep", "where=x"),
	}
	for path, queries := range bad {
		for _, q := range queries {
			r := &recorder{}
			w := get(t, r, path+"?"+q)
			var got map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusBadRequest || got["error"] == "" || len(got) != 1 || r.asked != 0 {
				t.Errorf("%s?%s: %d %s, after %d questions", path, q, w.Code, w.Body, r.asked)
			}
		}
	}
}

func TestParametersReachTheQuestion(t *testing.T) {
	r := &recorder{}
	get(t, r, "/api/v1/models/a%20b%2Fc/drift?version=3&from=2013-07-01&to=2013-07-02T00:00:00%2B02:00&step=1h&tests=psi,wasserstein")
	want := Window{
		Tenant: collector.DefaultTenant, Model: "a b/c", Version: "3", From: day(1), To: day(1).Add(22 * time.Hour), Step: time.Hour,
		Tests: []stats.Test{stats.PSI, stats.Wasserstein},
	}
	if !reflect.DeepEqual(r.window, want) {
		t.Errorf("drift asked for %+v, want %+v", r.window, want)
	}
	get(t, r, "/api/v1/predictions?model=m&version=1&external_id=o%267&from=2013-07-01&where="+url.QueryEscape("score > 0.5")+"&limit=1000&cursor=c")
	if want := (collector.Query{Tenant: collector.DefaultTenant, Model: "m", Version: "1", ExternalID: "o&7", From: day(1), Where: "score > 0.5", Limit: 1000, Cursor: "c"}); !reflect.DeepEqual(r.query, want) {
		t.Errorf("predictions asked for %+v, want %+v", r.query, want)
	}
	if w := get(t, r, "/api/v1/predictions?count=true"); strings.TrimSpace(w.Body.String()) != `{"count":7}` || r.query.Limit != defaultLimit {
		t.Errorf("count: %s, limit %d", w.Body, r.query.Limit)
	}
	w := get(t, r, "/api/v1/alerts?model=m&rule=r&state=resolved&to=2013-07-02&limit=2&cursor=c")
	if want := (AlertQuery{Tenant: collector.DefaultTenant, Model: "m", Rule: "r", State: "resolved", To: day(2), Limit: 2, Cursor: "c"}); r.alerts != want {
		t.Errorf("alerts asked for %+v, want %+v", r.alerts, want)
	}
	if body := w.Body.String(); strings.Contains(body, "ends_at") || strings.Contains(body, "0001-01-01") || !strings.Contains(body, `"predictions":[]`) {
		t.Errorf("an alert without times is %s", body)
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("model %q: %w", "nobody", collector.ErrNotFound), http.StatusNotFound},
		{collector.ErrRefused, http.StatusUnprocessableEntity},
		{collector.ErrUnavailable, http.StatusServiceUnavailable},
		{collector.ErrNotReady, http.StatusServiceUnavailable},
		{fmt.Errorf("%w: cursor", collector.ErrBadQuery), http.StatusBadRequest},
		{BadRequest(errors.New("no")), http.StatusBadRequest},
		{Conflict(fmt.Errorf("nothing imported: %w", collector.ErrNotReady)), http.StatusConflict},
		{errors.New("trouble"), http.StatusInternalServerError},
	} {
		for _, path := range []string{"/api/v1/models/nobody/drift", "/api/v1/models/nobody/performance", "/api/v1/models/nobody/traffic", "/api/v1/predictions", "/api/v1/predictions?count=true", "/api/v1/alerts"} {
			w := get(t, &recorder{err: c.err}, path)
			var got map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.want || got["error"] != c.err.Error() {
				t.Errorf("%s with %v: %d %s, want %d", path, c.err, w.Code, w.Body, c.want)
			}
		}
	}
}

func TestAlertmanagerShape(t *testing.T) {
	for query, want := range map[string]int{
		"": 1, "?active=false": 0, "?filter=alertname%3D%22r%22": 1, "?filter=alertname%3D%22s%22": 0, "?receiver=log": 1, "?receiver=mail": 0,
	} {
		w := get(t, &recorder{}, "/api/v2/alerts"+query)
		var got []map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || len(got) != want {
			t.Errorf("%q: %d %s, want %d", query, w.Code, w.Body, want)
		}
	}
	for _, query := range []string{"?active=maybe", "?filter=nonsense", "?receiver=("} {
		w := get(t, &recorder{}, "/api/v2/alerts"+query)
		var got string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusBadRequest || got == "" {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
	if w := get(t, &recorder{}, "/api/v1/models"); strings.TrimSpace(w.Body.String()) != `{"models":[{"name":"m","version":"","state":"","reason":""}]}` {
		t.Errorf("models: %s", w.Body)
	}
}

// Names come as clients escape them.
func TestNamesAreUnescaped(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/models/%70ub/traffic": "pub", "/api/v1/models/a%20b%2Fc/traffic": "a b/c", "/api/v1/models/a+b/traffic": "a+b", "/api/v1/models/a%2525/traffic": "a%25",
	} {
		r := &recorder{}
		if w := get(t, r, path); w.Code != http.StatusOK || r.window.Model != want {
			t.Errorf("%s: %d, asked of %q", path, w.Code, r.window.Model)
		}
	}
	r := &recorder{}
	if get(t, r, "/api/v1/predictions?model=%70ub&where=age%3E9%3B"); r.query.Model != "pub" || r.query.Where != "age>9;" {
		t.Errorf("asked %+v", r.query)
	}
	// Alertmanager's clients repeat filter, and nothing else.
	if w := get(t, r, "/api/v2/alerts?filter=a%3Db&filter=c%3Dd&active=true&unprocessed=true"); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, q := range []string{"active=true&active=false", "filter=a;", "fliter=a%3Db", "receiver=%zz"} {
		if w := get(t, r, "/api/v2/alerts?"+q); w.Code != http.StatusBadRequest || !strings.HasPrefix(w.Body.String(), `"`) {
			t.Errorf("%s: %d %s", q, w.Code, w.Body)
		}
	}
}
