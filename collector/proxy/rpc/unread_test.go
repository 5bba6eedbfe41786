package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
	"github.com/pellucid/pellucid/engine"
)

const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// canary is a name that nobody but a caller knows.
const canary = "k8sv3cr3t"

// one is a single model of that name, and what models has besides.
type one struct {
	models
	name string
}

func (o one) Find(model, version string) (*collector.ModelVersion, error) {
	if model != o.name {
		return o.models.Find(model, version)
	}
	return &collector.ModelVersion{Name: o.name, Version: "1", Info: &engine.Info{}}, nil
}

// watched is a server all of whose metrics, spans and rows are seen.
type watched struct {
	*Server
	url     string
	client  *http.Client
	conn    *grpc.ClientConn
	metrics *sdkmetric.ManualReader

	mu    sync.Mutex
	spans []proxy.LateSpan
	rows  []collector.Prediction
}

func watch(t *testing.T, cfg Config, m proxy.Models) *watched {
	t.Helper()
	w := &watched{metrics: sdkmetric.NewManualReader()}
	cfg.Register = append(cfg.Register, func(s *grpc.Server) { ptraceotlp.RegisterGRPCServer(s, &ptraceotlp.UnimplementedGRPCServer{}) })
	w.Server, w.conn = serveProxy(t, cfg, proxy.Config{
		Models: m, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.metrics)),
		Keep: func(l proxy.LateSpan) { w.mu.Lock(); defer w.mu.Unlock(); w.spans = append(w.spans, l) },
		Capture: func(_ context.Context, p *collector.Prediction, _ *collector.ModelVersion, _, _ engine.Values) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rows = append(w.rows, *p)
			return nil
		},
	})
	w.url = "http://" + w.conn.Target()
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport}
	return w
}

// frame is a message as gRPC puts it on the wire.
func frame(compressed byte, size int, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(size)), b...)
}

func framed(b []byte) []byte { return frame(0, len(b), b) }

// send makes a call of those very bytes.
func (w *watched) send(t *testing.T, method string, body io.Reader, headers ...string) (codes.Code, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+method, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	at := res.Trailer
	if res.Header.Get("Grpc-Status") != "" {
		at = res.Header
	}
	code, err := strconv.Atoi(at.Get("Grpc-Status"))
	if err != nil {
		t.Fatalf("%s: %v %v", method, res.Header, res.Trailer)
	}
	return codes.Code(code), at.Get("Grpc-Message")
}

// counted is a counter's sums by label sets.
func (w *watched) counted(t *testing.T, name string, labels ...attribute.Key) map[string]int {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.metrics.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != name || !ok {
				continue
			}
			for _, p := range sum.DataPoints {
				var key []string
				for _, l := range labels {
					v, _ := p.Attributes.Value(l)
					key = append(key, v.String())
				}
				out[strings.Join(key, " ")] += int(p.Value)
			}
		}
	}
	return out
}

func (w *watched) refused(t *testing.T) map[string]int {
	return w.counted(t, "ml.server.requests.refused", "http.route", "http.response.status_code")
}

func (w *watched) requests(t *testing.T) map[string]int {
	return w.counted(t, "ml.server.requests", "ml.model.name", "http.route", "http.response.status_code")
}

// await waits for calls that gRPC answers before it says that they are over.
func await(t *testing.T, want map[string]int, got func(*testing.T) map[string]int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !maps.Equal(got(t), want) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if is := got(t); !maps.Equal(is, want) {
		t.Errorf("counted %v\nwant %v", is, want)
	}
}

// TestUnreadCallsAreCounted: what gRPC refuses before a handler sees it is counted once,
// by a method that there is, and a few of it have spans; a caller's mistake is called one.
func TestUnreadCallsAreCounted(t *testing.T) {
	const times, limit = 25, 1 << 16
	infer, record := inference.GRPCInferenceService_ModelInfer_FullMethodName, pellucidv1.Recorder_RecordPredictions_FullMethodName
	stream, check := inference.GRPCInferenceService_ModelStreamInfer_FullMethodName, grpc_health_v1.Health_Check_FullMethodName
	w := watch(t, Config{MaxBody: limit}, models{})
	bad, empty := framed([]byte{0xff, 0xff, 0xff}), framed(nil)
	zipped := frame(1, 3, []byte("zip"))
	want, inferred, start := map[string]int{}, map[string]int{}, time.Now()
	for _, c := range []struct {
		what, method string
		body         []byte
		headers      []string
		code         codes.Code
		route        string
		status       int
	}{
		{"malformed", infer, bad, nil, codes.InvalidArgument, infer, 400},
		{"malformed", record, bad, nil, codes.InvalidArgument, record, 400},
		{"malformed", check, bad, nil, codes.InvalidArgument, check, 400},
		{"malformed", exportMethod, bad, nil, codes.InvalidArgument, exportMethod, 400},
		{"malformed text", record, framed([]byte{10, 3, 10, 1, 0xff}), nil, codes.InvalidArgument, record, 400},
		{"too large", infer, frame(0, limit+1, nil), nil, codes.ResourceExhausted, infer, 413},
		{"too large", stream, frame(0, limit+1, nil), nil, codes.ResourceExhausted, stream, 413},
		{"too large", exportMethod, frame(0, limit+1, nil), nil, codes.ResourceExhausted, exportMethod, 413},
		{"no gzip", infer, zipped, []string{"grpc-encoding", "gzip"}, codes.Internal, infer, 400},
		{"no gzip", stream, zipped, []string{"grpc-encoding", "gzip"}, codes.Internal, stream, 400},
		{"an encoding that there is not", record, zipped, []string{"grpc-encoding", "zip"}, codes.Unimplemented, record, 415},
		{"compressed by nothing", record, zipped, nil, codes.Internal, record, 400},
		{"no message", infer, nil, nil, codes.Internal, infer, 400},
		{"two messages", record, append(bytes.Clone(empty), empty...), nil, codes.Internal, record, 400},
		{"a good message and a malformed one", record, append(bytes.Clone(empty), bad...), nil, codes.Internal, record, 400},
		{"half a message", record, frame(0, 9, []byte("half")), nil, codes.Internal, record, 400},
		{"no such method", "/pellucid.v1.Recorder/" + canary, empty, nil, codes.Unimplemented, "none", 404},
		{"no such service", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", empty, nil, codes.Unimplemented, "none", 404},
		{"no method at all", "/" + canary, empty, nil, codes.Unimplemented, "none", 404},
		{"another authority", infer, framed(message(t, "none")), []string{"host", "evil.example"}, codes.PermissionDenied, infer, 403},
		{"another authority", record, bad, []string{"host", "evil.example"}, codes.PermissionDenied, record, 403},
		{"no such model", infer, framed(message(t, "none")), nil, codes.NotFound, infer, 404},
	} {
		want[c.route+" "+strconv.Itoa(c.status)] += times
		if c.method == infer || c.method == stream {
			inferred[" infer "+strconv.Itoa(c.status)] += times
		}
		for range times {
			if code, message := w.send(t, c.method, bytes.NewReader(c.body), c.headers...); code != c.code {
				t.Fatalf("%s %s: %s (%s)", c.method, c.what, code, message)
			}
		}
	}
	took := time.Since(start)
	await(t, want, w.refused)
	await(t, inferred, w.requests)
	//	w.malformed.Range(func(k, _ any) bool { t.Errorf("%T is still thought of", k); return true })
	statuses := map[int64]int{}
	for _, l := range w.spans {
		if l.Name != "POST" && l.Name != "predict" && l.Name != "grpc.health.v1.Health/Check" && !strings.HasPrefix(l.Name, "pellucid.v1.Recorder/RecordP") &&
			!strings.HasPrefix(l.Name, "inference.GRPCInferenceService/Model") && l.Name != exportMethod[1:] {
			t.Errorf("a span is called %q", l.Name)
		}
		if s := fmt.Sprint(l); strings.Contains(s, canary) {
			t.Errorf("a span has what a caller wrote: %s", s)
		}
		for _, a := range l.Attributes {
			if a.Key == "http.response.status_code" {
				statuses[a.Value.AsInt64()]++
			}
		}
	}
	for _, status := range []int64{400, 403, 404, 413, 415} {
		if statuses[status] < 10 || statuses[status] > mostSpans(took) {
			t.Errorf("%d spans of %d: %v", statuses[status], status, statuses)
		}
	}
}

func message(t *testing.T, model string) []byte {
	t.Helper()
	b, err := proto.Marshal(&inference.ModelInferRequest{ModelName: model})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUnreadCallsOfAModel: where a message that is cut short, or one that is not to be
// answered, still names a model, it is a failed request of that model's, as over HTTP.
func TestUnreadCallsOfAModel(t *testing.T) {
	infer, stream := inference.GRPCInferenceService_ModelInfer_FullMethodName, inference.GRPCInferenceService_ModelStreamInfer_FullMethodName
	w := watch(t, Config{}, one{name: "m"})
	broken := framed(append(message(t, "m"), 0xff))
	for _, c := range []struct {
		method string
		body   []byte
		host   string
		code   codes.Code
	}{
		{infer, broken, "localhost", codes.InvalidArgument},
		{infer, broken, "evil.example", codes.PermissionDenied},
		{infer, framed(message(t, "m")), "evil.example", codes.PermissionDenied},
		{stream, append(bytes.Clone(broken), broken...), "localhost", codes.OK}, // each is answered with its error
	} {
		if code, message := w.send(t, c.method, bytes.NewReader(c.body), "host", c.host); code != c.code {
			t.Fatalf("%s of %s: %s (%s)", c.method, c.host, code, message)
		}
	}
	await(t, map[string]int{infer + " 400": 1, infer + " 403": 2, stream + " 400": 2}, w.refused)
	await(t, map[string]int{"m infer 400": 3, "m infer 403": 2}, w.requests)
	rows := map[string]int{}
	for _, p := range w.rows {
		rows[fmt.Sprintf("%s %s %s %d %s %s", p.Model, p.Version, p.Route, p.Status, p.Capture, p.Error)]++
		if p.Latency.Decode != 0 {
			t.Errorf("%+v is none that was refused unread", p)
		}
	}
	if want := map[string]int{
		"m 1 infer 400 none the message is not valid protobuf":                                            3,
		"m 1 infer 403 none the authority is not a loopback address, and no authentication is configured": 2,
	}; !maps.Equal(rows, want) {
		t.Errorf("rows %v\nwant %v", rows, want)
	}
	if len(w.spans) != 5 || w.spans[0].Name != "predict m" {
		t.Errorf("spans %+v", w.spans)
	}
}

// TestCallsThatAreNotTaken: calls beyond as many as there may be and those whose message does
// not come in time are counted, each once.
func TestCallsThatAreNotTaken(t *testing.T) {
	const times = 40
	infer, live := inference.GRPCInferenceService_ModelInfer_FullMethodName, inference.GRPCInferenceService_ServerLive_FullMethodName
	w := watch(t, Config{Timeout: 300 * time.Millisecond}, models{})
	never, end := io.Pipe()
	if code, _ := w.send(t, infer, never); code != codes.DeadlineExceeded {
		t.Errorf("a message that never comes: %s", code)
	}
	end.Close()
	if code, _ := w.send(t, live, bytes.NewReader(framed(nil)), "grpc-timeout", "0n"); code != codes.DeadlineExceeded {
		t.Errorf("a call whose time is over: %s", code)
	}
	await(t, map[string]int{infer + " 408": 1, live + " 408": 1}, w.refused)
	await(t, map[string]int{" infer 408": 1}, w.requests)

	m := models{wait: make(chan struct{})}
	w = watch(t, Config{MaxCalls: 1}, m)
	var wg sync.WaitGroup
	wg.Go(func() { w.send(t, infer, bytes.NewReader(framed(message(t, "waits")))) })
	for w.calls.Load() < 1 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	for _, method := range []string{infer, live} {
		for range times {
			if code, _ := w.send(t, method, bytes.NewReader(framed(nil))); code != codes.Unavailable {
				t.Errorf("a call too many: %s", code)
			}
		}
	}
	took := time.Since(start)
	close(m.wait)
	wg.Wait()
	await(t, map[string]int{infer + " 503": times, live + " 503": times, infer + " 404": 1}, w.refused)
	await(t, map[string]int{" infer 404": 1, " infer 503": times}, w.requests)
	shed := 0
	for _, l := range w.spans {
		if l.Description != "" {
			shed++
		}
	}
	if shed < 10 || shed > mostSpans(took) {
		t.Errorf("%d spans of %d calls too many", shed, 2*times)
	}
}

// mostSpans is how many of one status may be kept in that time.
func mostSpans(d time.Duration) int { return 11 + int(10*d.Seconds()) }
