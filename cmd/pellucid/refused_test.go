package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/dashboards/api"
)

// TestFloodOfNonsense: requests that cannot be read fill no table, and all of them are
// counted.
func TestFloodOfNonsense(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	r := startRig(t, testConfig(t, models))
	r.infer(t, "m", c)
	const clients, each = 8, 400
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				resp, err := http.Post(r.url+"/v2/models/m/infer", "application/json", strings.NewReader(`{"inputs":[`))
				if err != nil || resp.StatusCode != 400 {
					t.Errorf("nonsense: %v %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	r.stored(t)
	db := r.database(t)
	var rows, stood, counted int
	if _, err := fmt.Sscan(sql(t, db, "SELECT count(), toUInt64(sum(weight)) FROM predictions WHERE status = 400"), &rows, &stood); err != nil {
		t.Fatal(err)
	}
	_, metrics, _ := r.call(t, "GET", "/metrics", "")
	for line := range strings.Lines(string(metrics)) {
		if rest, ok := strings.CutPrefix(line, "ml_capture_refused_total "); ok {
			_, _ = fmt.Sscan(rest, &counted)
		}
	}
	if rows < 10 || rows > clients*each/4 || rows+counted != clients*each {
		t.Errorf("%d rows and %d counted of %d", rows, counted, clients*each)
	}
	if stood < rows || stood > clients*each {
		t.Errorf("the rows stand for %d of %d", stood, clients*each)
	}
	var traffic struct{ Chunks []api.TrafficPoint }
	r.get(t, "/api/v1/models/m/traffic", &traffic)
	errors := 0
	for _, p := range traffic.Chunks {
		errors += int(p.Errors)
	}
	if errors != stood {
		t.Errorf("%d errors are told, the rows stand for %d", errors, stood)
	}
	if n := sql(t, db, "SELECT sum(rows) = (SELECT count() FROM predictions) FROM traffic_1m"); n != "1" {
		t.Error("the rollup does not count the rows")
	}
}

// TestRefusedRequestsAreCounted: whatever refuses a request, and before anything of it is
// read, it is counted once by route and status.
func TestRefusedRequestsAreCounted(t *testing.T) {
	models := t.TempDir()
	treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	r := startRig(t, testConfig(t, models))
	const times = 30
	want := map[string]int{}
	for _, c := range []struct {
		method, path, body, host string
		status                   int
		route                    string
	}{
		{"POST", "/v2/models/m/infer", "{}", "evil.example", 403, "/v2/models/:model/infer"},
		{"GET", "/v2/health/live", "", "evil.example", 403, "/v2/health/live"},
		{"GET", "/v2/modelsx", "", "evil.example", 403, "none"},
		{"GET", "/v2?a=%zz", "", "", 400, "/v2"},
		{"POST", "/v2/models/m/infer", "{", "", 400, "/v2/models/:model/infer"},
		{"POST", "/v2/models/" + canaryText + "/infer", "{}", "", 404, "/v2/models/:model/infer"},
		{"POST", "/api/v1/predictions", "{", "", 400, "/api/v1/predictions"},
		{"POST", "/api/v1/cloudevents", "{", "", 400, "/api/v1/cloudevents"},
		{"POST", "/api/v1/feedback", "{", "", 400, "/api/v1/feedback"},
		{"POST", "/v1/traces", "{", "", 400, "/v1/traces"},
		{"GET", "/api/v1/predictions?unseal=1", "", "", 400, "/api/v1/predictions"},
		{"PATCH", "/healthz", "", "", 405, "/healthz"},
		{"GET", "/" + canaryText, "", "", 404, "none"},
		{"GET", "/api/v1/predictionsx/" + canaryText, "", "", 404, "none"},
		{"GET", "/v2", "", "", 200, ""},
	} {
		if c.status >= 400 {
			want[fmt.Sprintf("%s %d", c.route, c.status)] += times
		}
		for range times {
			req, err := http.NewRequestWithContext(t.Context(), c.method, r.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.body != "" {
				req.Header.Set("Content-Type", "application/json")
				if strings.HasSuffix(c.path, "cloudevents") {
					req.Header.Set("Content-Type", "application/cloudevents+json")
				}
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Fatalf("%s %s: %d", c.method, c.path, resp.StatusCode)
			}
		}
	}
	if got := r.refused(t); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// refused is what is counted as refused, by route and status.
func (r *rig) refused(t *testing.T) map[string]int {
	t.Helper()
	_, metrics, _ := r.call(t, "GET", "/metrics", "")
	got := map[string]int{}
	for line := range strings.Lines(string(metrics)) {
		rest, ok := strings.CutPrefix(line, "ml_server_requests_refused_total{")
		if !ok {
			continue
		}
		var n int
		set, value, _ := strings.Cut(rest, "} ")
		if _, err := fmt.Sscan(value, &n); err != nil {
			t.Fatal(line, err)
		}
		label := map[string]string{}
		for _, m := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(set, -1) {
			label[m[1]] = m[2]
		}
		got[label["http_route"]+" "+label["http_response_status_code"]] += n
	}
	return got
}

// bytesOnly sends messages as they are.
type bytesOnly struct{}

func (bytesOnly) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesOnly) Unmarshal([]byte, any) error   { return nil }
func (bytesOnly) Name() string                  { return "proto" }

// TestFloodsThatNobodyReads: requests of a model that come from where none may, and messages
// that are none, fill neither the spool nor the tables: ten rows a second for each cause stand
// for all of them, and every one is counted.
func TestFloodsThatNobodyReads(t *testing.T) {
	models := t.TempDir()
	c := treeCase(t, models, "m", xgboostData, "base_binary_logistic")
	cfg := testConfig(t, models)
	none := 0.0
	cfg.Telemetry.Sample = &none
	r := startRig(t, cfg)
	r.infer(t, "m", c)
	message, err := proto.Marshal(&inference.ModelInferRequest{ModelName: "m"})
	if err != nil {
		t.Fatal(err)
	}
	message = append(message, 0xff)
	infer, export := inference.GRPCInferenceService_ModelInfer_FullMethodName, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	near, far := r.dial(t), r.dial(t, grpc.WithAuthority(canaryText+".example"))
	call := func(conn *grpc.ClientConn, method string, want codes.Code) {
		if err := conn.Invoke(t.Context(), method, &message, &[]byte{}, grpc.ForceCodec(bytesOnly{})); status.Code(err) != want {
			t.Errorf("%s: %v", method, err)
		}
	}
	const clients, each = 8, 300
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				call(near, infer, codes.InvalidArgument)
				call(far, infer, codes.PermissionDenied)
				call(near, export, codes.InvalidArgument)
				call(near, "/"+canaryText+"/Nothing", codes.Unimplemented)
				req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+"/v2/models/m/infer", strings.NewReader(`{"inputs":[`))
				if err != nil {
					t.Error(err)
					return
				}
				req.Host = canaryText + ".example"
				resp, err := http.DefaultClient.Do(req)
				if err != nil || resp.StatusCode != 403 {
					t.Errorf("by another name: %v %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	most := 10 + int(10*time.Since(start).Seconds()) + 1
	const all = clients * each
	want := map[string]int{infer + " 400": all, infer + " 403": all, export + " 400": all, "none 404": all, "/v2/models/:model/infer 403": all}
	if got := r.refused(t); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	r.stored(t)
	if err := r.telemetry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := r.database(t)
	for code, asked := range map[int]int{400: all, 403: 2 * all} { // a cause is a model, version and status
		var rows, stood int
		if _, err := fmt.Sscan(sql(t, db, fmt.Sprintf("SELECT count(), toUInt64(sum(weight)) FROM predictions WHERE model = 'm' AND status = %d", code)), &rows, &stood); err != nil {
			t.Fatal(err)
		}
		if rows < 10 || rows > most || stood < rows || stood > asked {
			t.Errorf("%d rows of %d stand for %d of %d, and there may be %d", rows, code, stood, asked, most)
		}
	}
	if n := sql(t, db, "SELECT count() FROM predictions WHERE toString(tuple(*)) LIKE '%"+canaryText+"%'"); n != "0" {
		t.Errorf("%s rows have what came with the requests", n)
	}
	for code := range map[int]int{400: 0, 403: 0, 404: 0} {
		var spans int
		if _, err := fmt.Sscan(sql(t, db, fmt.Sprintf("SELECT count() FROM otel_traces WHERE ParentSpanId = '' AND SpanAttributes['http.response.status_code'] = '%d'", code)), &spans); err != nil {
			t.Fatal(err)
		}
		if spans < 10 || spans > most {
			t.Errorf("%d spans of %d, and there may be %d", spans, code, most)
		}
	}
	if n := sql(t, db, "SELECT count() FROM otel_traces WHERE toString(tuple(*)) LIKE '%"+canaryText+"%'"); n != "0" {
		t.Errorf("%s spans have what came with the requests", n)
	}
}
