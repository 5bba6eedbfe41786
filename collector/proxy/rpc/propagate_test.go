package rpc

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
)

// ask makes a prediction by a call or by a stream, and returns the traceparent that a call
// is answered with.
func ask(ctx context.Context, t *testing.T, client inference.GRPCInferenceServiceClient, way string, req *inference.ModelInferRequest) string {
	t.Helper()
	if way == "call" {
		var header metadata.MD
		if _, err := client.ModelInfer(ctx, req, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		return strings.Join(header.Get("traceparent"), " and ")
	}
	stream, err := client.ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(req); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); err != nil || res.GetErrorMessage() != "" {
		t.Fatal(res, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return ""
}

// TestB3 takes a trace from B3's metadata where W3C's is not there, by calls and streams,
// and passes it on to the upstream in the form it came in.
func TestB3(t *testing.T) {
	const (
		id     = "0af7651916cd43dd8448eb211c80319c"
		parent = "b7ad6b7169203331"
		other  = "11111111111111111111111111111111"
	)
	w3c := []string{"traceparent", "00-" + other + "-" + parent + "-01"}
	multi := []string{"x-b3-traceid", id, "x-b3-spanid", parent, "x-b3-sampled", "1"}
	var passed http.Header // of the last request; calls come one by one
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"name":"lin","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,1]}]}`
		switch {
		case r.URL.Path == "/v2":
			answer = `{"name":"s","version":"1","extensions":[]}`
		case r.Method == http.MethodPost:
			passed = r.Header.Clone()
			answer = `{"model_name":"lin","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[2]}]}`
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer back.Close()
	u, err := proxy.NewUpstream(proxy.UpstreamConfig{Name: "front", Model: "lin", URL: back.URL, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, c := serveProxy(t, Config{}, proxy.Config{Models: models{}, Upstreams: []*proxy.Upstream{u}})
	client := inference.NewGRPCInferenceServiceClient(c)
	req := &inference.ModelInferRequest{ModelName: "front", Inputs: []*inference.ModelInferRequest_InferInputTensor{
		{Name: "x", Datatype: "FP32", Shape: []int64{1, 1}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{1}}},
	}}
	for name, c := range map[string]struct {
		pairs []string
		trace string
		b3    bool
	}{
		"single":      {[]string{"b3", id + "-" + parent + "-1"}, id, true},
		"multi":       {multi, id, true},
		"64 bits":     {[]string{"b3", parent + "-" + parent + "-1"}, strings.Repeat("0", 16) + parent, true},
		"both":        {append(w3c, multi...), other, false},
		"W3C":         {w3c, other, false},
		"only a flag": {[]string{"b3", "0"}, "", false},
		"garbage":     {[]string{"b3", "x", "x-b3-traceid", "y"}, "", false},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.pairs...)
		for _, way := range []string{"call", "stream"} {
			passed = nil
			if told := ask(ctx, t, client, way, req); way == "call" && !strings.HasPrefix(told, "00-"+c.trace) {
				t.Errorf("%s by a %s: the caller is told %q", name, way, told)
			}
			if got := passed.Get("Traceparent"); !strings.HasPrefix(got, "00-"+c.trace) || strings.HasSuffix(got, "-"+parent+"-01") {
				t.Errorf("%s by a %s: traceparent %q is passed on", name, way, got)
			}
			single, trace := passed.Get("B3"), passed.Get("X-B3-Traceid")
			if b3 := strings.HasPrefix(single, c.trace+"-") && trace == c.trace; b3 != c.b3 || !c.b3 && single+trace != "" {
				t.Errorf("%s by a %s: passed on %v", name, way, passed)
			}
		}
	}
}
