package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/strictyaml"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine/stats"
)

// upstreamsOf reads upstreams as the configuration file has them.
func upstreamsOf(t *testing.T, text string) []upstreamConfig {
	t.Helper()
	var c config
	if err := strictyaml.Decode([]byte(text), "pellucid.yaml", &c); err != nil {
		t.Fatal(err)
	}
	return c.Upstreams
}

// TestUpstreamIsWatched: a model that another server answers has drift against a
// file of rows, performance, pages and a line in every list, and keeps its
// reference over a restart while the upstream is away.
func TestUpstreamIsWatched(t *testing.T) {
	far := startRig(t, testConfig(t, filepath.Dir(filepath.Dir(filepath.Clean(mlp)))))
	cfg := testConfig(t, t.TempDir())
	reference := mlp + "reference.parquet"
	cfg.Upstreams = upstreamsOf(t, fmt.Sprintf(`
upstreams:
  - name: far
    url: %s
    model: flights_mlp
    missing: true
    task: binary
    classes: [on_time, late]
    features: [{name: hour, kind: categorical}, {name: humid, private: drop}]
    reference: %s
`, far.url, reference))
	r := startRig(t, cfg)
	until(t, "the upstream is listed", func() bool { return len(r.models.Live()) == 1 })
	defer func() {
		if t.Failed() {
			t.Log(r.log.String())
		}
	}()
	until(t, "its reference is made", func() bool { return r.models.Live()[0].Reference() != nil })
	ref := r.models.Live()[0].Reference()
	if ref.Rows < 10_000 || ref.Provisional {
		t.Errorf("reference of %d rows, provisional %t", ref.Rows, ref.Provisional)
	}
	// 600 rows that are all alike, so that everything drifts.
	one := "{"
	for _, f := range r.models.Live()[0].Info.Features {
		one += fmt.Sprintf("%q:1,", f.Name)
	}
	one = strings.TrimSuffix(one, ",") + "}"
	h := r.post(t, "/v1/models/far:predict", `{"instances":[`+strings.TrimSuffix(strings.Repeat(one+",", 600), ",")+`]}`, nil)
	id := h.Get("Pellucid-Prediction-Id")
	for i := range 4 {
		r.post(t, "/api/v1/feedback", fmt.Sprintf(`{"prediction_id":"%s.%d","label":"%d"}`, id, i, i%2), nil)
	}
	r.stored(t)
	var report stats.Report
	r.get(t, "/api/v1/models/far/drift", &report)
	if report.Rows.Current != 600 || report.State != stats.StateDrifted {
		t.Errorf("drift of %d rows: %s", report.Rows.Current, report.State)
	}
	for _, f := range report.Features {
		if f.Name == "humid" && len(f.Tests) > 0 {
			t.Errorf("a dropped field is watched: %+v", f)
		}
	}
	var perf api.Performance
	r.get(t, "/api/v1/models/far/performance", &perf)
	if perf.Task != "binary" || perf.Rows.Labelled != 4 || perf.State != stats.StateOK {
		t.Errorf("performance %+v", perf)
	}
	for _, page := range []string{"/ui/", "/ui/models/far", "/ui/predictions?model=far"} {
		if status, b, _ := r.call(t, "GET", page, ""); status != http.StatusOK || !strings.Contains(string(b), "far") {
			t.Errorf("%s: %d", page, status)
		}
	}
	digest := r.models.Live()[0].Digest
	r.halt(t)
	far.halt(t)
	again := startRig(t, cfg)
	if got := again.models.Reference(digest); got == nil || got.ID != ref.ID {
		t.Error("the reference did not outlive a restart without the upstream")
	}
	var index []collector.ModelState
	until(t, "the index says why", func() bool {
		again.post(t, "/v2/repository/index", "{}", &index)
		return len(index) == 1 && index[0].State == "UNAVAILABLE" && index[0].Reason != ""
	})
}

// TestUpstreamConfigIsChecked refuses what could not be in force.
func TestUpstreamConfigIsChecked(t *testing.T) {
	for text, want := range map[string]string{
		"{name: a, url: http://127.0.0.1:1, background: b.csv}":                    "background",
		"{name: a, url: http://127.0.0.1:1, features: [{name: x, private: seal}]}": "seal",
		"{name: a, url: http://127.0.0.1:1, task: guess}":                          "guess",
		"{name: a, url: ftp://127.0.0.1:1}":                                        "http",
	} {
		cfg := testConfig(t, t.TempDir())
		cfg.Upstreams = upstreamsOf(t, "upstreams: ["+text+"]")
		s, err := startServer(t.Context(), cfg, slog.New(slog.DiscardHandler), nil)
		if err == nil {
			_ = s.stop(t.Context())
			t.Errorf("%s was taken", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
