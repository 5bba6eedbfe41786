package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

// client is one that sends, over connections of its own.
type client struct {
	*trial
	web      *http.Client
	conn     *grpc.ClientConn
	infer    inference.GRPCInferenceServiceClient
	recorder pellucidv1.RecorderClient
}

func (c *client) dial(addr string) (err error) {
	if c.conn, err = grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second})); err != nil {
		return err
	}
	c.infer, c.recorder = inference.NewGRPCInferenceServiceClient(c.conn), pellucidv1.NewRecorderClient(c.conn)
	return nil
}

func (c *client) close() { _ = c.conn.Close() } // the process ends

// road sends predictions and reports whether they were acknowledged. Those made elsewhere
// are sent until they are, and some once more after that, as collectors and brokers do.
type road func(ctx context.Context, c *client, ids []string) bool

// roads are those there are, and how many predictions go together at most. The first is
// the most travelled.
var roads = []struct {
	send road
	rows int
}{{sendInfer, 5}, {sendSpans, 50}, {sendEvents, 3000}, {sendPosted, 20}, {sendCall, 5}, {sendStream, 5}, {sendRecorded, 20}}

// weight is that of what was predicted elsewhere: its rows stand for more.
const weight = 2.5

// call bounds one request.
const call = 10 * time.Second

// sendInfer asks for predictions by HTTP, and labels some of them.
func sendInfer(ctx context.Context, c *client, ids []string) bool {
	list, err := json.Marshal(ids)
	if err != nil {
		return false
	}
	body, err := json.Marshal(map[string]any{
		"parameters": map[string]any{"external_ids": string(list)},
		"inputs":     []any{map[string]any{"name": "input", "datatype": "FP32", "shape": []int{len(ids), 2}, "data": inputs(len(ids))}},
	})
	if err != nil {
		return false
	}
	answer, ok := c.post(ctx, "/v2/models/m/infer", nil, body)
	if ok {
		c.label(ctx, answer.id, ids)
	}
	return ok
}

func inputs(rows int) []float32 {
	data := make([]float32, 2*rows)
	for i := range data {
		data[i] = float32(i%7) / 7
	}
	return data
}

func inferRequest(ids []string) (*inference.ModelInferRequest, error) {
	list, err := json.Marshal(ids)
	return &inference.ModelInferRequest{
		ModelName:  "m",
		Parameters: map[string]*inference.InferParameter{"external_ids": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: string(list)}}},
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: "input", Datatype: "FP32", Shape: []int64{int64(len(ids)), 2}, Contents: &inference.InferTensorContents{Fp32Contents: inputs(len(ids))},
		}},
	}, err
}

// sendCall asks by gRPC, one call at a time.
func sendCall(ctx context.Context, c *client, ids []string) bool {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	req, err := inferRequest(ids)
	if err != nil {
		return false
	}
	answer, err := c.infer.ModelInfer(ctx, req)
	if err == nil {
		c.label(ctx, answer.GetParameters()["pellucid_prediction_id"].GetStringParam(), ids)
	}
	return err == nil
}

// sendStream asks row by row over one stream, all questions before the first answer is read.
func sendStream(ctx context.Context, c *client, ids []string) bool {
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	stream, err := c.infer.ModelStreamInfer(ctx)
	if err != nil {
		return false
	}
	for i := range ids {
		req, err := inferRequest(ids[i : i+1])
		if err != nil || stream.Send(req) != nil {
			return false
		}
	}
	all := stream.CloseSend() == nil
	for i := range ids { // answers come in the order of the questions
		answer, err := stream.Recv()
		if err != nil {
			return false
		}
		if answer.GetErrorMessage() == "" {
			c.acknowledge(ids[i : i+1])
		} else {
			all = false
		}
	}
	return all
}

// sendPosted sends predictions made elsewhere as JSON.
func sendPosted(ctx context.Context, c *client, ids []string) bool {
	var list []map[string]any
	for _, id := range ids {
		list = append(list, map[string]any{"model": "posted", "id": id, "weight": weight, "features": map[string]any{"a": 0.5, "b": "x"}, "outputs": map[string]any{"p": 0.25}})
	}
	body, err := json.Marshal(list)
	if err != nil {
		return false
	}
	return again(ctx, func() bool {
		answer, ok := c.post(ctx, "/api/v1/predictions", nil, body)
		var got struct{ Accepted, Duplicate int }
		return ok && json.Unmarshal(answer.body, &got) == nil && got.Accepted+got.Duplicate == len(ids)
	})
}

// sendRecorded sends predictions made elsewhere by gRPC.
func sendRecorded(ctx context.Context, c *client, ids []string) bool {
	req, w := &pellucidv1.RecordPredictionsRequest{}, weight
	for _, id := range ids {
		req.Predictions = append(req.Predictions, &pellucidv1.Prediction{
			Model: "recorded", Id: id, Weight: &w, Features: map[string]*structpb.Value{"a": structpb.NewNumberValue(0.5)},
			Outputs: map[string]*structpb.Value{"p": structpb.NewNumberValue(0.25)},
		})
	}
	return again(ctx, func() bool {
		ctx, cancel := context.WithTimeout(ctx, call)
		defer cancel()
		got, err := c.recorder.RecordPredictions(ctx, req)
		return err == nil && got.GetAccepted()+got.GetDuplicate() == int64(len(ids))
	})
}

// labelsFrom is the time of the label before the first: each is known by its own.
var labelsFrom = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// label says what came true of one in eight predictions, by our id of a row or by the
// caller's own, over HTTP or gRPC. A label is sent once: each is an entry of the history.
func (c *client) label(ctx context.Context, ours string, ids []string) {
	if rand.IntN(8) > 0 {
		return
	}
	n, row := c.labels.Add(1), rand.IntN(len(ids))
	at := labelsFrom.Add(time.Duration(n) * time.Microsecond)
	target := map[string]any{"external_id": ids[row], "label": "1", "observed_at": at.Format(time.RFC3339Nano)}
	if ours != "" && n%2 == 0 {
		if delete(target, "external_id"); len(ids) > 1 {
			ours = fmt.Sprintf("%s.%d", ours, row)
		}
		target["prediction_id"] = ours
	}
	ok := false
	if n%4 < 2 {
		if body, err := json.Marshal(target); err == nil {
			_, ok = c.post(ctx, "/api/v1/feedback", nil, body)
		}
	} else {
		ctx, cancel := context.WithTimeout(ctx, call)
		defer cancel()
		l := &pellucidv1.Label{Label: structpb.NewStringValue("1"), ObservedAt: timestamppb.New(at)}
		l.PredictionId, _ = target["prediction_id"].(string)
		l.ExternalId, _ = target["external_id"].(string)
		got, err := c.recorder.RecordFeedback(ctx, &pellucidv1.RecordFeedbackRequest{Labels: []*pellucidv1.Label{l}})
		ok = err == nil && got.GetAccepted() == 1
	}
	if ok {
		c.mu.Lock()
		c.ackedLabels[n] = true
		c.mu.Unlock()
	}
}

// sendSpans sends spans by OTLP/HTTP.
func sendSpans(ctx context.Context, c *client, ids []string) bool {
	now := time.Now().UnixNano()
	spans := make([]string, len(ids))
	for i, id := range ids {
		spans[i] = fmt.Sprintf(`{"traceId":"%016x%016x","spanId":"%016x","name":"score","startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[
			{"key":"ml.model.name","value":{"stringValue":"spans"}},{"key":"ml.prediction.id","value":{"stringValue":%q}},
			{"key":"ml.features.a","value":{"doubleValue":0.5}},{"key":"ml.outputs.p","value":{"doubleValue":0.25}}]}`,
			rand.Uint64()|1, rand.Uint64(), rand.Uint64()|1, now-int64(time.Millisecond), now, id)
	}
	body := `{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Join(spans, ",") + `]}]}]}`
	return again(ctx, func() bool {
		_, ok := c.post(ctx, "/v1/traces", nil, []byte(body))
		return ok
	})
}

// sendEvents sends the two halves that KServe's payload logger makes of a call, in
// either order. A second half that comes again after a kill may be told that its rows
// were recorded before: of both or, where it took too long, of one alone.
func sendEvents(ctx context.Context, c *client, ids []string) bool {
	halves := []string{"request", "response"}
	rand.Shuffle(2, func(i, j int) { halves[i], halves[j] = halves[j], halves[i] })
	rows := func(row string) string { return "[" + strings.Repeat(row+",", len(ids)-1) + row + "]" }
	bodies := map[string]string{"request": `{"instances":` + rows(`{"a":0.5,"b":"x"}`) + `}`, "response": `{"predictions":` + rows("0.25") + `}`}
	id := ids[0]
	if len(ids) > 1 {
		id = strings.TrimSuffix(id, ".0")
	}
	c.mu.Lock()
	c.pairs[id] = pair{rows: len(ids)}
	c.mu.Unlock()
	both := true
	for i, half := range halves {
		header := map[string]string{
			"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "crash", "Ce-Type": "org.kubeflow.serving.inference." + half, "Ce-Inferenceservicename": "events",
		}
		recorded := false
		post := func() bool {
			answer, ok := c.post(ctx, "/api/v1/cloudevents", header, []byte(bodies[half]))
			recorded = recorded || ok && bytes.Contains(answer.body, []byte(`"recorded"`))
			return ok
		}
		if i == 1 && rand.IntN(2) == 0 { // a logger that does not come again
			return post() && recorded
		}
		if !again(ctx, post) {
			return false
		}
		if i == 0 {
			c.mu.Lock()
			c.pairs[id] = pair{rows: len(ids), acked: true}
			c.mu.Unlock()
		} else {
			both = recorded
		}
	}
	return both
}

// again sends until it is acknowledged, and one in four once more.
func again(ctx context.Context, send func() bool) bool {
	for more := rand.IntN(4) == 0; ctx.Err() == nil; {
		switch {
		case !send():
			time.Sleep(5 * time.Millisecond)
		case !more:
			return true
		default:
			more = false
		}
	}
	return false
}

// answered is a body, and the server's own id of a prediction.
type answered struct {
	body []byte
	id   string
}

// post sends JSON and returns the answer, where it is 200.
func (c *client) post(ctx context.Context, path string, header map[string]string, body []byte) (answered, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return answered{}, false
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := c.web.Do(req)
	if err != nil {
		return answered{}, false
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return answered{answer, resp.Header.Get("Pellucid-Prediction-Id")}, err == nil && resp.StatusCode == http.StatusOK
}
