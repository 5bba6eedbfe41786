package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

func (r *rig) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(r.rpcListener.Addr().String(), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestSpansByGRPC: what TestSpansBecomePredictions holds, over gRPC.
func TestSpansByGRPC(t *testing.T) {
	models := t.TempDir()
	placeShop(t, models)
	r := startRig(t, testConfig(t, models))
	again := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := invoke(ctx, method, req, proto.Clone(reply.(proto.Message)), cc, opts...); err != nil {
					t.Error(err)
				}
			})
			if rand.N(2) == 0 {
				wg.Wait()
			}
		}
		wg.Wait()
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(r.rpcListener.Addr().String()), otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithCompressor("gzip"), otlptracegrpc.WithDialOption(grpc.WithUnaryInterceptor(again)))
	if err != nil {
		t.Fatal(err)
	}
	tracer, flush := tracerTo(t, exporter)
	id := shopSpans(t, tracer, 100)
	flush()
	checkShop(t, r, id, 100)
}

func numeric(x float64) *structpb.Value { return structpb.NewNumberValue(x) }

// TestRecorder records predictions and labels by gRPC under the rules of HTTP.
func TestRecorder(t *testing.T) {
	r := startRig(t, testConfig(t, t.TempDir()))
	client := pellucidv1.NewRecorderClient(r.dial(t))
	made := func(id string) *pellucidv1.Prediction {
		return &pellucidv1.Prediction{
			Id: id, Model: "far", Version: "2", Time: timestamppb.New(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)), TraceId: strings.Repeat("ab", 16), SpanId: strings.Repeat("cd", 8),
			ExternalId: "o-" + id, Features: map[string]*structpb.Value{"x": numeric(1.5), "c": structpb.NewStringValue("NO"), "m": numeric(math.NaN()), "b": structpb.NewBoolValue(true), "y": numeric(1)},
			Outputs:   map[string]*structpb.Value{"p": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{numeric(0.25), numeric(0.75)}})},
			LatencyMs: map[string]float64{"total": 12.5}, Weight: proto.Float64(2), Label: numeric(1),
		}
	}
	first := made("a")
	first.Features["m"] = numeric(7)
	bad := made("c")
	bad.Features["x"] = structpb.NewListValue(&structpb.ListValue{})
	other := made("d")
	other.Features["z"] = numeric(1)
	got, err := client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{first, made("b"), made("a"), bad}})
	if err != nil || got.GetAccepted() != 2 || got.GetDuplicate() != 1 || got.GetRefused() != 1 ||
		got.GetResults()[2].GetOutcome() != pellucidv1.Outcome_OUTCOME_DUPLICATE || !strings.Contains(got.GetResults()[3].GetError(), `"x" is neither`) || got.GetResults()[3].GetId() != "c" {
		t.Fatalf("%v %v", got, err)
	}
	for range 3 {
		if got, err = client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{first, made("b")}}); err != nil || got.GetRefused() != 0 {
			t.Fatalf("%v %v", got, err)
		}
		r.stored(t)
	}
	_, err = client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{other}})
	st := status.Convert(err)
	if details := st.Details(); st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), `no feature "z"`) || len(details) != 1 || details[0].(*pellucidv1.RecordPredictionsResponse).GetRefused() != 1 {
		t.Errorf("all refused: %v", err)
	}
	// Features beyond capture.body are left out, which is said.
	big := made("big")
	big.Model, big.Features["c"] = "large", structpb.NewStringValue(strings.Repeat("x", 1<<20+1))
	big.Features["m"] = numeric(7)
	if got, err = client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{big}}); err != nil ||
		got.GetAccepted() != 1 || got.GetResults()[0].GetCapture() != "cut" {
		t.Errorf("large features: %v, %v", got, err)
	}
	if n := sql(t, r.database(t), "SELECT count(), uniqExact(id) FROM predictions WHERE model = 'far'"); strings.Join(strings.Fields(n), " ") != "2 2" {
		t.Errorf("stored %s", n)
	}
	labels, err := client.RecordFeedback(t.Context(), &pellucidv1.RecordFeedbackRequest{Labels: []*pellucidv1.Label{
		{PredictionId: "b", Label: numeric(0), ObservedAt: timestamppb.Now()},
		{ExternalId: "o-a", Label: structpb.NewBoolValue(false)},
		{PredictionId: "b"},
		{Label: numeric(1)},
		{ExternalId: "o-a", Model: strings.Repeat("m", 1025), Label: numeric(1)},
	}})
	if err != nil || labels.GetAccepted() != 2 || labels.GetRefused() != 3 {
		t.Errorf("%v %v", labels, err)
	}
	if _, err = client.RecordFeedback(t.Context(), &pellucidv1.RecordFeedbackRequest{Labels: []*pellucidv1.Label{{}}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no label: %v", err)
	}
	r.stored(t)
	var p collector.StoredPrediction
	r.get(t, "/api/v1/predictions/b", &p)
	if p.Features["x"] != 1.5 || p.Features["c"] != "NO" || p.Features["m"] != nil || p.Features["b"] != true || fmt.Sprint(p.Outputs["p"]) != "[0.25 0.75]" ||
		p.ExternalID != "o-b" || p.LatencyMS["total"] != 12.5 || !p.Time.Equal(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)) || len(p.Labels) < 2 || p.Labels[0].Label != "0" || p.SpanID != strings.Repeat("cd", 8) {
		t.Errorf("read back %+v", p)
	}
	if _, err := client.RecordPredictions(t.Context(), &pellucidv1.RecordPredictionsRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty request: %v", err)
	}
}

// TestGRPCIsGuarded holds the rules of the listener.
func TestGRPCIsGuarded(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Limits.Body = 1 << 20
	cfg.Capture.SpoolBytes = leastSpool
	r := startRig(t, cfg)
	health := grpc_health_v1.NewHealthClient(r.dial(t))
	for service, want := range map[string]codes.Code{"": codes.OK, "pellucid.v1.Recorder": codes.OK, "inference.GRPCInferenceService": codes.OK, "opentelemetry.proto.collector.trace.v1.TraceService": codes.OK, "x": codes.NotFound} {
		res, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if status.Code(err) != want || want == codes.OK && res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v %v", service, res, err)
		}
	}
	stranger := r.dial(t, grpc.WithAuthority("example.com"))
	if _, err := inference.NewGRPCInferenceServiceClient(stranger).ServerLive(t.Context(), &inference.ServerLiveRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another authority: %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(stranger).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health under another authority: %v", err)
	}
	client := pellucidv1.NewRecorderClient(r.dial(t))
	large := func(n int) *pellucidv1.RecordPredictionsRequest {
		return &pellucidv1.RecordPredictionsRequest{Predictions: []*pellucidv1.Prediction{{
			Model: "m", Features: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("x", n))}, Outputs: map[string]*structpb.Value{"y": numeric(1)},
		}}}
	}
	if _, err := client.RecordPredictions(t.Context(), large(1<<20)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large: %v", err)
	}
	// A record that the spool never has room for is to be sent again, later.
	_, err := client.RecordPredictions(t.Context(), large(leastSpool))
	st := status.Convert(err)
	if details := st.Details(); st.Code() != codes.Unavailable || len(details) != 1 || details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("full: %v %v", err, details)
	}
	if err := r.dial(t).Invoke(t.Context(), "/pellucid.v1.Recorder/Nothing", large(1), large(1)); status.Code(err) != codes.Unimplemented {
		t.Errorf("no such method: %v", err)
	}
}

// TestInferenceByGRPC: the same bits as over HTTP, whichever form the tensors have,
// recorded in the same way.
func TestInferenceByGRPC(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	client := inference.NewGRPCInferenceServiceClient(r.dial(t))
	for name, c := range cases {
		c = c.whole()
		_, want := r.infer(t, name, c)
		for _, raw := range []bool{true, false} {
			var header metadata.MD
			req := c.message(name, raw)
			req.Id = "order-" + name
			req.Parameters = map[string]*inference.InferParameter{"event_time": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: "2024-05-01T12:00:00Z"}}}
			res, err := client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+strings.Repeat("ab", 16)+"-"+strings.Repeat("cd", 8)+"-01"), req, grpc.Header(&header))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := floats(t, res)
			if len(got) != len(want) || res.GetModelName() != name || res.GetModelVersion() != "1" || res.GetId() != req.GetId() || (len(res.GetRawOutputContents()) > 0) != raw {
				t.Fatalf("%s raw %v: %d numbers of %d: %v", name, raw, len(got), len(want), res)
			}
			for i := range want {
				if c.datatype == "FP32" {
					want[i] = float64(float32(want[i])) // JSON's digits are the shortest of a float32
				}
				if got[i] != want[i] {
					t.Errorf("%s raw %v: element %d is %g, over HTTP %g", name, raw, i, got[i], want[i])
				}
			}
			id := res.GetParameters()["pellucid_prediction_id"].GetStringParam()
			if h := header.Get("pellucid-prediction-id"); len(h) != 1 || h[0] != id || header.Get("pellucid-capture")[0] != "full" || !strings.Contains(header.Get("traceparent")[0], strings.Repeat("ab", 16)) {
				t.Errorf("header %v, id %s", header, id)
			}
			r.stored(t)
			var p collector.StoredPrediction
			r.get(t, "/api/v1/predictions/"+id+".0", &p)
			if p.Model != name || p.Route != collector.RouteInfer || p.ExternalID != req.GetId() || p.TraceID != strings.Repeat("ab", 16) || p.Time.Hour() != 12 || p.LatencyMS["encode"] <= 0 {
				t.Errorf("stored %+v", p)
			}
		}
	}
	for what, c := range map[string]struct {
		change func(*inference.ModelInferRequest)
		want   codes.Code
	}{
		"no such model":   {func(m *inference.ModelInferRequest) { m.ModelName = "none" }, codes.NotFound},
		"no such version": {func(m *inference.ModelInferRequest) { m.ModelVersion = "9" }, codes.NotFound},
		"no such output": {func(m *inference.ModelInferRequest) {
			m.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "none"}}
		}, codes.InvalidArgument},
		"raw and contents": {func(m *inference.ModelInferRequest) { m.RawInputContents = [][]byte{{1}} }, codes.InvalidArgument},
		"two raw": {func(m *inference.ModelInferRequest) {
			m.Inputs[0].Contents, m.RawInputContents = nil, [][]byte{{1}, {2}}
		}, codes.InvalidArgument},
		"raw of no size": {func(m *inference.ModelInferRequest) { m.Inputs[0].Contents, m.RawInputContents = nil, [][]byte{{1}} }, codes.InvalidArgument},
		"another list": {func(m *inference.ModelInferRequest) {
			m.Inputs[0].Contents = &inference.InferTensorContents{IntContents: []int32{1}}
		}, codes.InvalidArgument},
		"a wrong dimension": {func(m *inference.ModelInferRequest) { m.Inputs[0].Shape[0] = -1 }, codes.InvalidArgument},
		"a huge shape":      {func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = []int64{1 << 40, 1 << 40} }, codes.InvalidArgument},
		"shared memory": {func(m *inference.ModelInferRequest) {
			m.Inputs[0].Parameters = map[string]*inference.InferParameter{"shared_memory_region": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: "r"}}}
		}, codes.InvalidArgument},
	} {
		req := cases["xgb"].whole().message("xgb", false)
		c.change(req)
		var header metadata.MD
		if _, err := client.ModelInfer(t.Context(), req, grpc.Header(&header)); status.Code(err) != c.want {
			t.Errorf("%s: %v", what, err)
		}
		if len(header.Get("pellucid-prediction-id")) != 1 {
			t.Errorf("%s: header %v", what, header)
		}
	}
	meta, err := client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "xgb"})
	if err != nil || meta.GetPlatform() != "xgboost" || meta.GetInputs()[0].GetShape()[0] != -1 || meta.GetVersions()[0] != "1" {
		t.Errorf("%v %v", meta, err)
	}
	for name, want := range map[string]bool{"xgb": true, "none": false} {
		if res, err := client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: name}); err != nil || res.GetReady() != want {
			t.Errorf("%s: %v %v", name, res, err)
		}
	}
	r.stored(t)
	if n := sql(t, r.database(t), "SELECT count() FROM predictions WHERE status = 400 AND model = 'xgb'"); n != "8" {
		t.Errorf("%s failed rows of refused requests", n)
	}
}

// message is the inference request of all rows.
func (c *servedCase) message(model string, raw bool) *inference.ModelInferRequest {
	in := &inference.ModelInferRequest_InferInputTensor{Name: c.input, Datatype: c.datatype, Shape: []int64{int64(len(c.rows)), int64(len(c.rows[0]))}}
	m := &inference.ModelInferRequest{ModelName: model, Inputs: []*inference.ModelInferRequest_InferInputTensor{in}}
	var b bytes.Buffer
	typed := &inference.InferTensorContents{}
	for _, row := range c.rows {
		for _, v := range row {
			if c.datatype == "FP32" {
				typed.Fp32Contents = append(typed.Fp32Contents, float32(v))
				b.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(v))))
			} else {
				typed.Fp64Contents = append(typed.Fp64Contents, v)
				b.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
			}
		}
	}
	if raw {
		m.RawInputContents = [][]byte{b.Bytes()}
	} else {
		in.Contents = typed
	}
	return m
}

// floats are the elements of the first output.
func floats(t *testing.T, res *inference.ModelInferResponse) []float64 {
	t.Helper()
	out := res.GetOutputs()[0]
	var list []float64
	for _, v := range out.GetContents().GetFp32Contents() {
		list = append(list, float64(v))
	}
	list = append(list, out.GetContents().GetFp64Contents()...)
	if len(res.GetRawOutputContents()) > 0 {
		b := res.GetRawOutputContents()[0]
		for len(b) > 0 && out.GetDatatype() == "FP32" {
			list, b = append(list, float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))), b[4:]
		}
		for len(b) > 0 && out.GetDatatype() == "FP64" {
			list, b = append(list, math.Float64frombits(binary.LittleEndian.Uint64(b))), b[8:]
		}
	}
	return list
}

// TestInferenceByStream: every request of a stream is answered in its order and recorded
// before that; one that fails ends nothing.
func TestInferenceByStream(t *testing.T) {
	models, cases := threeModels(t)
	r := startRig(t, testConfig(t, models))
	stream, err := inference.NewGRPCInferenceServiceClient(r.dial(t)).ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for round := range 3 {
		for name, c := range cases {
			c = c.whole()
			_, want := r.infer(t, name, c)
			req := c.message(name, round%2 == 0)
			req.Id = fmt.Sprintf("%s-%d", name, round)
			bad := c.message(name, true)
			bad.ModelName, bad.Id = "nobody", "bad"
			for _, m := range []*inference.ModelInferRequest{req, bad} {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			res, err := stream.Recv()
			if err != nil || res.GetErrorMessage() != "" || res.GetInferResponse().GetId() != req.GetId() {
				t.Fatalf("%s: %v %v", name, res, err)
			}
			for i, x := range floats(t, res.GetInferResponse()) {
				if c.datatype == "FP32" {
					want[i] = float64(float32(want[i]))
				}
				if x != want[i] {
					t.Errorf("%s: element %d is %g, over HTTP %g", name, i, x, want[i])
				}
			}
			id := res.GetInferResponse().GetParameters()["pellucid_prediction_id"].GetStringParam()
			if got := res.GetInferResponse().GetParameters()["pellucid_capture"].GetStringParam(); got != "full" && got != "none" && got != "inputs" {
				t.Errorf("how much is recorded: %q", got)
			}
			ids = append(ids, id)
			var p collector.StoredPrediction
			r.get(t, "/api/v1/predictions/"+id+".0", &p) // in the spool, if not stored yet
			if p.Model != name || p.ExternalID != req.GetId() || p.Status != 200 {
				t.Errorf("recorded %+v", p)
			}
			if res, err = stream.Recv(); err != nil || !strings.Contains(res.GetErrorMessage(), "nobody") || res.GetInferResponse().GetId() != "bad" {
				t.Errorf("a model that is not there: %v %v", res, err)
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last request: %v", err)
	}
	// What was refused within it is counted as it is of calls.
	_, metrics, _ := r.call(t, "GET", "/metrics", "")
	counted := 0
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, "ml_server_requests_refused_total{") && strings.Contains(line, `/ModelStreamInfer"`) && strings.Contains(line, `status_code="404"`) {
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " "):], &counted); err != nil {
				t.Fatal(line, err)
			}
		}
	}
	if want := 3 * len(cases); counted != want {
		t.Errorf("%d refused requests of the stream are counted, not %d", counted, want)
	}
	r.stored(t)
	if n := sql(t, r.database(t), "SELECT uniqExact(id) FROM predictions WHERE id IN ('"+strings.Join(ids, "','")+"')"); n != fmt.Sprint(len(ids)) {
		t.Errorf("%s of %d stored", n, len(ids))
	}
}
