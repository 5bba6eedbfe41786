package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/pellucid/pellucid/collector/strictyaml"
)

// sinks is a receiver of everything that a server sends of itself: spans, metrics and log
// lines by OTLP, and alerts by a webhook. It keeps what holds a canary, and whether it
// saw what it has to.
type sinks struct {
	mu    sync.Mutex
	took  map[string]int // messages by path
	seen  map[string]bool
	found []string
	// names are what spans, events, attributes and metrics were called, as "span NAME" and
	// the like.
	names map[string]bool
}

// sinkSigns are what must have come by each path, so that its messages are known to be
// read: otherwise a search of them would find nothing whatever they hold.
var sinkSigns = map[string][]string{
	"/v1/traces":  {`"http.route"`, "/v2/models/:model/infer", "ml.prediction.id"},
	"/v1/metrics": {"ml.server.requests", "ml.capture.records"},
	"/v1/logs":    {"PellucidDeadLetters", "stringValue"},
	"/hook":       {"PellucidDeadLetters", "drift of hash", "drift of seal", "errors of made"},
}

// read returns a message as text, beside its bytes (OTLP's are protobuf), and notes the
// names in it.
func (s *sinks) read(path string, body []byte) ([]byte, error) {
	switch path {
	case "/v1/traces":
		m := ptraceotlp.NewExportRequest()
		if err := m.UnmarshalProto(body); err != nil {
			return nil, err
		}
		s.spans(m.Traces())
		return m.MarshalJSON()
	case "/v1/metrics":
		m := pmetricotlp.NewExportRequest()
		if err := m.UnmarshalProto(body); err != nil {
			return nil, err
		}
		s.metrics(m.Metrics())
		return m.MarshalJSON()
	case "/v1/logs":
		m := plogotlp.NewExportRequest()
		if err := m.UnmarshalProto(body); err != nil {
			return nil, err
		}
		return m.MarshalJSON()
	case "/hook":
		return body, nil
	}
	return nil, fmt.Errorf("nothing is sent to %q", path)
}

func (s *sinks) attributes(m pcommon.Map) {
	for key := range m.All() {
		s.names["attribute "+key] = true
	}
}

func (s *sinks) spans(traces ptrace.Traces) {
	for _, of := range traces.ResourceSpans().All() {
		s.attributes(of.Resource().Attributes())
		for _, scope := range of.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				s.names["span "+span.Name()+" "+strings.ToLower(span.Kind().String())] = true
				s.attributes(span.Attributes())
				for _, event := range span.Events().All() {
					s.names["event "+event.Name()] = true
					s.attributes(event.Attributes())
				}
			}
		}
	}
}

func (s *sinks) metrics(metrics pmetric.Metrics) {
	for _, of := range metrics.ResourceMetrics().All() {
		s.attributes(of.Resource().Attributes())
		for _, scope := range of.ScopeMetrics().All() {
			for _, m := range scope.Metrics().All() {
				s.names["metric "+m.Name()] = true
				switch m.Type() {
				case pmetric.MetricTypeGauge:
					for _, p := range m.Gauge().DataPoints().All() {
						s.attributes(p.Attributes())
					}
				case pmetric.MetricTypeSum:
					for _, p := range m.Sum().DataPoints().All() {
						s.attributes(p.Attributes())
					}
				case pmetric.MetricTypeHistogram:
					for _, p := range m.Histogram().DataPoints().All() {
						s.attributes(p.Attributes())
					}
				default:
					s.found = append(s.found, "a metric of another type: "+m.Name())
				}
			}
		}
	}
}

// registered holds the names that were sent to the registry of them.
func (s *sinks) registered(t *testing.T) {
	t.Helper()
	var r struct {
		Attributes, Taken, Spans, Events, Metrics []map[string]string
	}
	const file = "../../collector/telemetry/registry.yaml"
	if err := strictyaml.Decode([]byte(readFile(t, file)), file, &r); err != nil {
		t.Fatal(err)
	}
	var forms []string
	for what, list := range map[string][]map[string]string{"attribute": r.Attributes, "span": r.Spans, "event": r.Events, "metric": r.Metrics} {
		for _, x := range list {
			kinds := strings.Split(x["kind"], ", ") // one, of none that has none
			for _, kind := range kinds {
				form := regexp.QuoteMeta(strings.TrimSpace(what + " " + x["name"] + " " + kind))
				forms = append(forms, regexp.MustCompile("<[a-z]+>").ReplaceAllString(form, `[^ ]+`))
			}
		}
	}
	all := regexp.MustCompile("^(?:" + strings.Join(forms, "|") + ")$")
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		if !all.MatchString(name) {
			t.Errorf("%s is sent, and no name in the registry", name)
		}
	}
	for _, name := range []string{"attribute service.name", "attribute ml.model.name", "span model.run internal", "span capture internal", "span predict drop server", "event upstream attempt", "metric ml.capture.records"} {
		if !s.names[name] {
			t.Errorf("no %s was sent", name)
		}
	}
}

// ServeHTTP implements http.Handler.
func (s *sinks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	var text []byte
	if err == nil {
		text, err = s.read(r.URL.Path, body)
	}
	if err != nil {
		s.found = append(s.found, "what cannot be read: "+err.Error())
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.took[r.URL.Path]++
	for _, sign := range sinkSigns[r.URL.Path] {
		if bytes.Contains(text, []byte(sign)) {
			s.seen[r.URL.Path+" "+sign] = true
		}
	}
	for _, b := range [][]byte{body, text, fmt.Append(nil, r.Header, r.URL)} {
		if canary, at := leaksAt(b); canary != "" && len(s.found) < 20 {
			s.found = append(s.found, fmt.Sprintf("%s with %s: ...%q", r.URL.Path, canary, b[max(at-400, 0):min(at+200, len(b))]))
			break
		}
	}
	if r.URL.Path != "/hook" {
		w.Header().Set("Content-Type", "application/x-protobuf")
	}
}

// missing are the signs that did not come.
func (s *sinks) missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, path := range slices.Sorted(maps.Keys(sinkSigns)) {
		for _, sign := range sinkSigns[path] {
			if !s.seen[path+" "+sign] {
				out = append(out, path+" "+sign)
			}
		}
	}
	return out
}

// outRules are alerts that say all that a rule can about models whose rows are private.
func outRules() string {
	out := "rules:\n"
	for _, model := range append(slices.Sorted(maps.Keys(policies)), "made") {
		for kind, above := range map[string]string{"drift": "0.001", "errors": "0.000001", "latency": "0.000001"} {
			if kind == "drift" && model == "made" {
				continue // of what is not served there is no reference
			}
			out += fmt.Sprintf("  - {name: %s of %s, model: %[2]s, kind: %[1]s, above: %[3]s, window: 1h, every: 10m, min_rows: 1, labels: {of: \"{{ model }}\"}, annotations: {summary: \"{{ metric }} {{ test }} of {{ features }} is {{ value }} in {{ rows }} rows\"}}\n", kind, model, above)
		}
	}
	return out
}

// earlier sends predictions whose event times are past, so that rules have windows to judge.
func (x *roads) earlier(t *testing.T) {
	t.Helper()
	v, err := x.models.Find("drop", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range slices.Sorted(maps.Keys(policies)) {
		var rows []string
		for i := range 20 {
			rows = append(rows, fmt.Sprintf(`{"model":%q,"version":"1","id":%q,"time":%q,"features":{%s},"outputs":{%q:0.5}}`,
				model, x.id("earlier"), time.Now().Add(time.Duration(-60-i)*time.Minute).UTC().Format(time.RFC3339), members(), v.Info.Outputs[0].Name))
		}
		if status, b := x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: "[" + strings.Join(rows, ",") + "]"}); status != http.StatusOK {
			t.Errorf("earlier ones of %s: %d %s", model, status, b)
		}
	}
	made := madeRow("made", x.id("earlier"), fmt.Sprintf(`,"time":%q`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)))
	if status, b := x.send(t, sent{method: "POST", path: "/api/v1/predictions", body: made}); status != http.StatusOK {
		t.Errorf("an earlier one: %d %s", status, b)
	}
}

// TestEveryRoadOut sends values of private fields by every route and method, as
// TestEveryRoad does, and looks for them in what the server sends to others of itself:
// spans, metrics and log lines by OTLP, and alerts by a webhook. What they are called is
// held to the registry of names. It is another test
// because spans go by OTLP or to the store, and in the store they are looked for, too.
func TestEveryRoadOut(t *testing.T) {
	out := &sinks{took: map[string]int{}, seen: map[string]bool{}, names: map[string]bool{}}
	back := httptest.NewServer(out)
	defer back.Close()
	dir, every := t.TempDir(), 1.0
	place(t, dir, "rules.yaml", outRules())
	x, cfg, _ := startRoads(t, func(cfg *config) {
		cfg.Telemetry.OTLP, cfg.Telemetry.Sample = back.URL, &every
		cfg.Alerts.Rules, cfg.Alerts.Webhooks = filepath.Join(dir, "rules.yaml"), []webhookConfig{{URL: back.URL + "/hook", Timeout: duration(10 * time.Second)}}
	})
	x.earlier(t)
	x.walk(t)
	x.stored(t)
	x.read = true
	x.walk(t)
	until(t, "the alerts are told", func() bool {
		return !slices.ContainsFunc(out.missing(), func(sign string) bool { return strings.HasPrefix(sign, "/hook") })
	})
	x.halt(t) // sends what waits
	searchFolder(t, cfg.Data)
	if list := out.missing(); list != nil {
		t.Errorf("what was sent lacks %q of %v messages", list, out.took)
	}
	for _, what := range out.found {
		t.Errorf("sent to %s", what)
	}
	out.registered(t)
}
