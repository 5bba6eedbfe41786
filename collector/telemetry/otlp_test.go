package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP server of both kinds that remembers what it was sent.
type receiver struct {
	collectortrace.UnimplementedTraceServiceServer
	mu      sync.Mutex
	names   []string
	path    string
	metrics meters
	logs    lines
}

// lines takes log lines.
type lines struct {
	collectorlogs.UnimplementedLogsServiceServer
	mu   sync.Mutex
	said []string // each with its trace id and attributes
}

// Export implements collectorlogs.LogsServiceServer.
func (l *lines) Export(_ context.Context, req *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rl := range req.GetResourceLogs() {
		for _, sl := range rl.GetScopeLogs() {
			for _, r := range sl.GetLogRecords() {
				line := fmt.Sprintf("%s %x", r.GetBody().GetStringValue(), r.GetTraceId())
				for _, a := range r.GetAttributes() {
					line += " " + a.GetKey() + "=" + a.GetValue().String()
				}
				l.said = append(l.said, line)
			}
		}
	}
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}

func (l *lines) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.said, func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	})
}

// meters takes metrics.
type meters struct {
	collectormetrics.UnimplementedMetricsServiceServer
	mu   sync.Mutex
	seen map[string]bool
}

// Export implements collectormetrics.MetricsServiceServer.
func (m *meters) Export(_ context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seen = map[string]bool{}
	}
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, x := range sm.GetMetrics() {
				m.seen[x.GetName()] = true
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func (m *meters) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[name]
}

func (r *receiver) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				r.names = append(r.names, s.GetName())
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if req.URL.Path == "/v1/metrics" {
		var m collectormetrics.ExportMetricsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = r.metrics.Export(req.Context(), &m) // never fails
		w.Header().Set("Content-Type", "application/x-protobuf")
		return
	}
	if req.URL.Path == "/v1/logs" {
		var m collectorlogs.ExportLogsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = r.logs.Export(req.Context(), &m) // never fails
		w.Header().Set("Content-Type", "application/x-protobuf")
		return
	}
	var m collectortrace.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if _, err := r.Export(req.Context(), &m); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.mu.Lock()
	r.path = req.URL.Path
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestOneRoad: with an endpoint configured, spans go there and nowhere else.
func TestOneRoad(t *testing.T) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	overGRPC, overHTTP := &receiver{}, &receiver{}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, overGRPC)
	collectormetrics.RegisterMetricsServiceServer(server, &overGRPC.metrics)
	collectorlogs.RegisterLogsServiceServer(server, &overGRPC.logs)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listen) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	web := httptest.NewServer(overHTTP)
	t.Cleanup(web.Close)

	for _, c := range []struct {
		endpoint string
		at       *receiver
	}{
		{"grpc://" + listen.Addr().String(), overGRPC},
		{listen.Addr().String(), overGRPC},
		{web.URL, overHTTP},
	} {
		t.Run(c.endpoint, func(t *testing.T) {
			var out sink
			before := len(c.at.names)
			tel := start(t, Config{SampleRatio: 1, OTLPEndpoint: c.endpoint, WriteSpans: out.write})
			endSpans(t, tel, 3)
			flush(t, tel)
			c.at.mu.Lock()
			defer c.at.mu.Unlock()
			if n := len(c.at.names) - before; n != 3 {
				t.Errorf("the endpoint got %d spans, want 3", n)
			}
			if n := len(out.all()); n != 0 {
				t.Errorf("%d spans went to the store as well", n)
			}
			if s := tel.Stats(); s != (Stats{Written: 3}) {
				t.Errorf("%+v, want 3 written", s)
			}
			if err := tel.meters.ForceFlush(t.Context()); err != nil || !c.at.metrics.has("pellucid.telemetry.spans") {
				t.Errorf("metrics did not come: %v", err)
			}
			var here bytes.Buffer
			tee := NewLogTee(slog.NewTextHandler(&here, nil))
			log := slog.New(tee).With("part", "spool")
			log.Warn("too early")
			tee.Send(tel)
			ctx, span := tel.TracerProvider().Tracer("t").Start(t.Context(), "s")
			log.WithGroup("g").ErrorContext(ctx, "it failed", "why", "no reason")
			log.Debug("not shown")
			if err := tel.logs.ForceFlush(t.Context()); err != nil {
				t.Error(err)
			}
			if !c.at.logs.has("it failed", span.SpanContext().TraceID().String(), "spool", "no reason") || c.at.logs.has("too early") || c.at.logs.has("not shown") {
				t.Errorf("sent %q", c.at.logs.said)
			}
			if !strings.Contains(here.String(), "too early") || !strings.Contains(here.String(), "g.why=\"no reason\"") {
				t.Errorf("logged %s", here.String())
			}
		})
	}
	if overHTTP.path != "/v1/traces" {
		t.Errorf("path %q", overHTTP.path)
	}
}

// TestUnreachableEndpoint: nobody there costs spans, counted, and nothing else.
func TestUnreachableEndpoint(t *testing.T) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := listen.Addr().String()
	if err := listen.Close(); err != nil {
		t.Fatal(err)
	}
	tel := start(t, Config{SampleRatio: 1, OTLPEndpoint: "http://" + gone})
	endSpans(t, tel, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*attemptTimeout)
	defer cancel()
	if err := tel.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s := tel.Stats(); s != (Stats{Failed: 3}) {
		t.Errorf("%+v, want 3 failed", s)
	}
}
