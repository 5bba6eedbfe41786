package rpc

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/engine"
)

// paramPredictionID is the parameter of an answer that names its prediction, for
// clients that do not show metadata.
const paramPredictionID = "pellucid_prediction_id"

// paramCapture is the one that says how much of it is recorded, for the same.
const paramCapture = "pellucid_capture"

// inferer answers inference.GRPCInferenceService.
type inferer struct {
	inference.UnimplementedGRPCInferenceServiceServer
	proxy *proxy.Server
}

// ServerLive implements inference.GRPCInferenceServiceServer.
func (*inferer) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

// ServerReady implements inference.GRPCInferenceServiceServer.
func (i *inferer) ServerReady(context.Context, *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: i.proxy.Unready() == nil}, nil
}

// ModelReady implements inference.GRPCInferenceServiceServer. A model that is not
// known is not ready; the protocol's clients take that better than an error.
func (i *inferer) ModelReady(ctx context.Context, req *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	ready, err := i.proxy.ModelReady(ctx, req.GetName(), req.GetVersion())
	if err != nil {
		if httpStatus, _, _ := proxy.Failure(err); httpStatus != http.StatusNotFound {
			return nil, failed(err)
		}
	}
	return &inference.ModelReadyResponse{Ready: ready}, nil
}

// ServerMetadata implements inference.GRPCInferenceServiceServer.
func (i *inferer) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	m := i.proxy.Metadata()
	return &inference.ServerMetadataResponse{Name: m.Name, Version: m.Version, Extensions: m.Extensions}, nil
}

// ModelMetadata implements inference.GRPCInferenceServiceServer.
func (i *inferer) ModelMetadata(ctx context.Context, req *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	m, err := i.proxy.ModelMetadata(ctx, req.GetName(), req.GetVersion())
	if err != nil {
		return nil, failed(err)
	}
	return &inference.ModelMetadataResponse{Name: m.Name, Versions: m.Versions, Platform: m.Platform, Inputs: described(m.Inputs), Outputs: described(m.Outputs)}, nil
}

func described(list []oip.TensorMetadata) []*inference.ModelMetadataResponse_TensorMetadata {
	out := make([]*inference.ModelMetadataResponse_TensorMetadata, len(list))
	for i, t := range list {
		out[i] = &inference.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype}
		for _, n := range t.Shape {
			out[i].Shape = append(out[i].Shape, int64(n))
		}
	}
	return out
}

// ModelInfer implements inference.GRPCInferenceServiceServer.
func (i *inferer) ModelInfer(ctx context.Context, req *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	return i.answer(ctx, req, nil)
}

// answer answers a call, with why it is refused if it is.
func (i *inferer) answer(ctx context.Context, req *inference.ModelInferRequest, refusal error) (*inference.ModelInferResponse, error) {
	res, done, err := i.infer(ctx, req, refusal)
	// Sent with an error too.
	header := metadata.Pairs("pellucid-prediction-id", done.PredictionID, "traceparent", done.Traceparent, "pellucid-capture", done.Captured)
	if headerErr := grpc.SetHeader(ctx, header); headerErr != nil && err == nil {
		err = headerErr
	}
	if err != nil {
		return nil, failed(err)
	}
	return res, nil
}

// ModelStreamInfer implements inference.GRPCInferenceServiceServer. Each request is a
// prediction of its own, recorded before it is answered.
func (i *inferer) ModelStreamInfer(stream grpc.BidiStreamingServer[inference.ModelInferRequest, inference.ModelStreamInferResponse]) error {
	ctx := stream.Context()
	for {
		awaited(ctx)
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		came(ctx)
		var refusal error
		if arrivalOf(ctx).malformed {
			refusal = errMalformed
		}
		res, done, err := i.infer(ctx, req, refusal)
		out := &inference.ModelStreamInferResponse{InferResponse: res}
		if err != nil {
			var httpStatus int
			httpStatus, out.ErrorMessage, _ = proxy.Failure(err)
			// The call itself goes on and ends well: guard does not see this.
			i.proxy.Refused(ctx, inference.GRPCInferenceService_ModelStreamInfer_FullMethodName, httpOf(codeOf(httpStatus)))
			out.InferResponse = &inference.ModelInferResponse{ModelName: req.GetModelName(), ModelVersion: req.GetModelVersion(), Id: req.GetId()}
			out.InferResponse.Parameters = map[string]*inference.InferParameter{paramPredictionID: text(done.PredictionID), paramCapture: text(done.Captured)}
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

func text(s string) *inference.InferParameter {
	return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: s}}
}

func (i *inferer) infer(ctx context.Context, req *inference.ModelInferRequest, refusal error) (*inference.ModelInferResponse, proxy.Inferred, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var res *inference.ModelInferResponse
	done, err := i.proxy.Infer(ctx, proxy.Inference{
		Model: req.GetModelName(), Version: req.GetModelVersion(), Carrier: carrier(md), Bytes: int64(proto.Size(req)), Refused: refusal,
		Decode: func(info *engine.Info) (*oip.Request, error) { return request(req, info) },
		Encode: func(r *oip.Response) (int64, error) {
			res = response(r, len(req.GetRawInputContents()) > 0)
			return int64(proto.Size(res)), nil
		},
	})
	if err != nil {
		return nil, done, err
	}
	if res.Parameters == nil {
		res.Parameters = map[string]*inference.InferParameter{}
	}
	res.Parameters[paramPredictionID], res.Parameters[paramCapture] = text(done.PredictionID), text(done.Captured)
	return res, done, nil
}

// carrier is a call's metadata as propagators read it.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// request reads a message as a request of the protocol for a model: where it takes a
// matrix and the message has a column a feature, as that matrix.
func request(m *inference.ModelInferRequest, info *engine.Info) (*oip.Request, error) {
	raw := m.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(m.GetInputs()) {
		return nil, proxy.Refuse("raw_input_contents must have one entry for each input")
	}
	inputs, ok := oip.Columns(info, len(m.GetInputs()), proto.Size(m), func(i int, w *oip.Wire) bool {
		t := m.GetInputs()[i]
		return wire(w, t, raw, i) && len(t.GetParameters()) == 0
	})
	var slab engine.Slab
	if !ok {
		inputs = make([]oip.Item, len(m.GetInputs()))
	}
	for i, t := range m.GetInputs() {
		if ok {
			break
		}
		var w oip.Wire
		if !wire(&w, t, raw, i) {
			return nil, proxy.Refuse("raw_input_contents and contents exclude each other")
		}
		var err error
		if inputs[i], err = w.Item(&slab, params(t.GetParameters())); err != nil {
			return nil, err
		}
	}
	outputs := make([]oip.OutputRequest, len(m.GetOutputs()))
	for i, o := range m.GetOutputs() {
		outputs[i] = oip.OutputRequest{Name: o.GetName(), Params: params(o.GetParameters())}
	}
	return oip.NewRequest(m.GetId(), params(m.GetParameters()), inputs, outputs)
}

// wire reads a tensor; false says that it has contents besides its raw ones.
func wire(w *oip.Wire, t *inference.ModelInferRequest_InferInputTensor, raw [][]byte, i int) bool {
	c := t.GetContents()
	*w = oip.Wire{
		Name: t.GetName(), Datatype: t.GetDatatype(), Shape: t.GetShape(),
		Bools: c.GetBoolContents(), Ints: c.GetIntContents(), Longs: c.GetInt64Contents(), Uints: c.GetUintContents(), ULongs: c.GetUint64Contents(),
		Floats: c.GetFp32Contents(), Doubles: c.GetFp64Contents(), Bytes: c.GetBytesContents(),
	}
	if len(raw) == 0 {
		return true
	}
	w.Raw, w.IsRaw = raw[i], true
	return c == nil || proto.Size(c) == 0
}

// params are parameters in the order of their names.
func params(m map[string]*inference.InferParameter) oip.Params {
	if len(m) == 0 {
		return nil
	}
	out := make(oip.Params, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p := oip.Param{Name: name}
		switch v := m[name].GetParameterChoice().(type) {
		case *inference.InferParameter_BoolParam:
			p.Value = v.BoolParam
		case *inference.InferParameter_Int64Param:
			p.Value = v.Int64Param
		case *inference.InferParameter_StringParam:
			p.Value = v.StringParam
		case *inference.InferParameter_DoubleParam:
			p.Value = v.DoubleParam
		case *inference.InferParameter_Uint64Param:
			p.Value = v.Uint64Param
		default:
			continue // a parameter without a value
		}
		out = append(out, p)
	}
	return out
}

// response puts an answer into a message: raw where the request was, or where a
// datatype has no list.
func response(r *oip.Response, raw bool) *inference.ModelInferResponse {
	for i := range r.Outputs {
		raw = raw || !oip.JSONable(r.Outputs[i].Tensor.DType())
	}
	res := &inference.ModelInferResponse{ModelName: r.Model, ModelVersion: r.Version, Id: r.ID, Parameters: parameters(r.Params)}
	for i := range r.Outputs {
		w := oip.NewWire(&r.Outputs[i], raw)
		t := &inference.ModelInferResponse_InferOutputTensor{Name: w.Name, Datatype: w.Datatype, Shape: w.Shape, Parameters: parameters(r.Outputs[i].Params)}
		if raw {
			res.RawOutputContents = append(res.RawOutputContents, w.Raw)
		} else {
			t.Contents = &inference.InferTensorContents{
				BoolContents: w.Bools, IntContents: w.Ints, Int64Contents: w.Longs, UintContents: w.Uints, Uint64Contents: w.ULongs,
				Fp32Contents: w.Floats, Fp64Contents: w.Doubles, BytesContents: w.Bytes,
			}
		}
		res.Outputs = append(res.Outputs, t)
	}
	return res
}

// parameters are those of an answer that the protocol has a form for.
func parameters(list oip.Params) map[string]*inference.InferParameter {
	var out map[string]*inference.InferParameter
	for _, p := range list {
		x := &inference.InferParameter{}
		switch v := p.Value.(type) {
		case bool:
			x.ParameterChoice = &inference.InferParameter_BoolParam{BoolParam: v}
		case int64:
			x.ParameterChoice = &inference.InferParameter_Int64Param{Int64Param: v}
		case string:
			x.ParameterChoice = &inference.InferParameter_StringParam{StringParam: v}
		case float64:
			x.ParameterChoice = &inference.InferParameter_DoubleParam{DoubleParam: v}
		case uint64:
			x.ParameterChoice = &inference.InferParameter_Uint64Param{Uint64Param: v}
		default:
			continue
		}
		if out == nil {
			out = map[string]*inference.InferParameter{}
		}
		out[p.Name] = x
	}
	return out
}
