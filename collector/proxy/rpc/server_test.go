package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
	"github.com/pellucid/pellucid/engine"
)

// models has models that answer as their names say.
type models struct{ wait chan struct{} }

func (m models) Find(model, _ string) (*collector.ModelVersion, error) {
	switch model {
	case "panics":
		panic("on purpose")
	case "waits":
		<-m.wait
	}
	return nil, collector.ErrNotFound
}

func (models) Index(context.Context) []collector.ModelState { return nil }
func (models) Load(context.Context, string) error           { return nil }
func (models) Unload(context.Context, string) error         { return nil }

// serve starts a server over a proxy with those models.
func serve(t *testing.T, cfg Config, m models, ready func() error) (*Server, *grpc.ClientConn) {
	t.Helper()
	return serveProxy(t, cfg, proxy.Config{Models: m, Ready: ready})
}

// serveProxy starts a server over a proxy.
func serveProxy(t *testing.T, cfg Config, p proxy.Config) (*Server, *grpc.ClientConn) {
	t.Helper()
	p.Logger = slog.New(slog.DiscardHandler)
	var err error
	if cfg.Proxy, err = proxy.New(p); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.grpc.Stop()
		wg.Wait()
	})
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

func (s *Server) idle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); s.calls.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d calls are still counted", s.calls.Load())
		}
	}
}

// TestNothingHoldsTheServer: a panic, a message that never comes and too many calls
// cost their caller only, and are over when they are.
func TestNothingHoldsTheServer(t *testing.T) {
	m := models{wait: make(chan struct{})}
	s, c := serve(t, Config{Timeout: 300 * time.Millisecond, MaxCalls: 2}, m, nil)
	client := inference.NewGRPCInferenceServiceClient(c)
	if _, err := client.ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "panics"}); status.Code(err) != codes.Internal || bytes.Contains([]byte(err.Error()), []byte("purpose")) {
		t.Errorf("a panic: %v", err)
	}
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, inference.GRPCInferenceService_ModelInfer_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&inference.ModelInferResponse{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a message that never comes: %v", err)
	}
	s.idle(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := client.ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "waits"}); status.Code(err) != codes.NotFound && status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a call that waits: %v", err)
			}
		})
	}
	for s.calls.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	_, err = client.ServerLive(t.Context(), &inference.ServerLiveRequest{})
	close(m.wait)
	wg.Wait()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("one call more than there may be: %v", err)
	}
	s.idle(t)
	if _, err := client.ServerLive(t.Context(), &inference.ServerLiveRequest{}); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestStreamsThatStandStill end, those in which something comes do not; they are calls like
// any other.
func TestStreamsThatStandStill(t *testing.T) {
	const limit = time.Second
	s, c := serve(t, Config{Timeout: limit, MaxCalls: 1}, models{}, nil)
	client := inference.NewGRPCInferenceServiceClient(c)
	stream, err := client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if err := stream.Send(&inference.ModelInferRequest{ModelName: "none", Id: "a"}); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil || res.GetErrorMessage() == "" || res.GetInferResponse().GetId() != "a" {
			t.Fatalf("%v %v", res, err)
		}
		time.Sleep(limit / 4) // in all longer than the limit
	}
	if _, err := client.ServerLive(t.Context(), &inference.ServerLiveRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call beside as many as there may be: %v", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a stream that stands still: %v", err)
	}
	s.idle(t)
	if stream, err = client.ModelStreamInfer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&inference.ModelInferRequest{ModelName: "panics"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("a panic: %v", err)
	}
	s.idle(t)
}

// TestStop waits for calls under way, and not for ever.
func TestStop(t *testing.T) {
	m := models{wait: make(chan struct{})}
	s, c := serve(t, Config{}, m, func() error { return errors.New("not yet") })
	if res, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil || res.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health: %v %v", res, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := inference.NewGRPCInferenceServiceClient(c).ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "waits"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a call that was cut off: %v", err)
		}
	})
	for s.calls.Load() < 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	time.AfterFunc(100*time.Millisecond, func() { close(m.wait) })
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	wg.Wait()
}

// TestCodes: every status of HTTP that is an error has a code that is one.
func TestCodes(t *testing.T) {
	for s := 400; s < 600; s++ {
		if c := codeOf(s); c == codes.OK || (s >= 500) != (c == codes.Internal || c == codes.Unavailable || c == codes.Unimplemented || c == codes.DeadlineExceeded) && s != http.StatusRequestTimeout {
			t.Errorf("%d is %s", s, c)
		}
	}
}

// FuzzModelInfer: any bytes are a request that is right in itself, or an error.
func FuzzModelInfer(f *testing.F) {
	for _, m := range []*inference.ModelInferRequest{
		{ModelName: "m", Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 2}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{1, 2}}}}},
		{ModelName: "m", Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "BYTES", Shape: []int64{1}}}, RawInputContents: [][]byte{{1, 0, 0, 0, 'a'}}},
		{ModelName: "m", Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "INT8", Shape: []int64{2}, Contents: &inference.InferTensorContents{IntContents: []int32{1, 300}}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, _ := wide(2, 1, false)
		m := &inference.ModelInferRequest{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		req, err := request(m, info)
		if err != nil {
			return
		}
		for i := range req.Inputs {
			x := req.Inputs[i].Tensor
			if n, err := engine.Elements(x.Shape()); err != nil || n != x.Len() {
				t.Errorf("tensor of %d elements and shape %v", x.Len(), x.Shape())
			}
			for _, raw := range []bool{true, x.DType() == engine.Float16 || x.DType() == engine.BFloat16} {
				it, err := oip.NewWire(&req.Inputs[i], raw).Item(&engine.Slab{}, nil)
				if err != nil || it.Tensor.Len() != x.Len() || it.Tensor.DType() != x.DType() {
					t.Errorf("%s %v does not come back: %v", x.DType(), x.Shape(), err)
				}
			}
		}
	})
}

// FuzzPrediction: any bytes are a prediction whose values are JSON, or an error.
func FuzzPrediction(f *testing.F) {
	b, err := proto.Marshal(&pellucidv1.Prediction{Id: "a", Model: "m", Features: map[string]*structpb.Value{"x": structpb.NewNumberValue(1)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &pellucidv1.Prediction{}
		if proto.Unmarshal(b, p) != nil {
			return
		}
		out, err := imported(p)
		if err != nil {
			return
		}
		for name, raw := range out.Features {
			if len(raw) == 0 || raw[0] == '[' || raw[0] == '{' {
				t.Errorf("feature %q is %s", name, raw)
			}
		}
	})
}
