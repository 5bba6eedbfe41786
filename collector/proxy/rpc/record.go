package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy"
	"github.com/pellucid/pellucid/collector/proxy/rpc/pellucidv1"
)

// recorder answers pellucid.v1.Recorder.
type recorder struct {
	pellucidv1.UnimplementedRecorderServer
	proxy *proxy.Server
}

// RecordPredictions implements pellucidv1.RecorderServer.
func (r *recorder) RecordPredictions(ctx context.Context, req *pellucidv1.RecordPredictionsRequest) (*pellucidv1.RecordPredictionsResponse, error) {
	list := req.GetPredictions()
	if err := count(len(list), proxy.MaxImported, "predictions"); err != nil {
		return nil, err
	}
	rows := make([]*collector.Imported, len(list))
	unread := make([]error, len(list))
	for i, p := range list {
		rows[i], unread[i] = imported(p)
	}
	results, err := r.proxy.Import(ctx, rows)
	if err != nil {
		return nil, failed(err)
	}
	res := &pellucidv1.RecordPredictionsResponse{Results: make([]*pellucidv1.Result, len(list))}
	for i, x := range results {
		out := &pellucidv1.Result{Id: x.ID, Error: x.Error, Outcome: pellucidv1.Outcome_OUTCOME_REFUSED}
		switch {
		case unread[i] != nil:
			out.Id, out.Error = list[i].GetId(), unread[i].Error()
			res.Refused++
		case x.Status == collector.ImportAccepted:
			out.Outcome, out.Capture = pellucidv1.Outcome_OUTCOME_ACCEPTED, x.Capture
			res.Accepted++
		case x.Status == collector.ImportDuplicate:
			out.Outcome = pellucidv1.Outcome_OUTCOME_DUPLICATE
			res.Duplicate++
		default:
			res.Refused++
		}
		res.Results[i] = out
	}
	if res.Refused == int64(len(list)) {
		return nil, errorOf(http.StatusBadRequest, res.Results[0].Error, 0, protoadapt.MessageV1Of(res))
	}
	return res, nil
}

// RecordFeedback implements pellucidv1.RecorderServer.
func (r *recorder) RecordFeedback(ctx context.Context, req *pellucidv1.RecordFeedbackRequest) (*pellucidv1.RecordFeedbackResponse, error) {
	list := req.GetLabels()
	if err := count(len(list), proxy.MaxLabels, "labels"); err != nil {
		return nil, err
	}
	labels := make([]*proxy.Label, len(list))
	refused := make([]error, len(list))
	for i, l := range list {
		labels[i] = &proxy.Label{PredictionID: l.GetPredictionId(), ExternalID: l.GetExternalId(), Model: l.GetModel()}
		if labels[i].Label, refused[i] = valueOf(l.GetLabel(), false); refused[i] == nil {
			labels[i].ObservedAt, refused[i] = timeOf(l.GetObservedAt())
		}
	}
	read := append([]error(nil), refused...)
	if err := r.proxy.RecordFeedback(ctx, labels, refused); err != nil {
		return nil, failed(err)
	}
	res := &pellucidv1.RecordFeedbackResponse{Results: make([]*pellucidv1.Result, len(list))}
	for i, err := range refused {
		out := &pellucidv1.Result{Id: labels[i].PredictionID, Outcome: pellucidv1.Outcome_OUTCOME_ACCEPTED}
		res.Results[i] = out
		if err == nil {
			res.Accepted++
			continue
		}
		out.Outcome, out.Error = pellucidv1.Outcome_OUTCOME_REFUSED, err.Error()
		if read[i] == nil {
			_, out.Error, _ = proxy.Failure(err)
		}
		res.Refused++
	}
	if res.Accepted == 0 {
		return nil, errorOf(http.StatusBadRequest, res.Results[0].Error, 0, protoadapt.MessageV1Of(res))
	}
	return res, nil
}

func count(n, limit int, what string) error {
	if n == 0 || n > limit {
		return errorOf(http.StatusBadRequest, fmt.Sprintf("the request has %d %s: 1 to %d are taken at once", n, what, limit), 0)
	}
	return nil
}

// imported is a prediction in the form that every road to the record has.
func imported(p *pellucidv1.Prediction) (*collector.Imported, error) {
	out := &collector.Imported{
		ID: p.GetId(), Model: p.GetModel(), Version: p.GetVersion(), TraceID: p.GetTraceId(), SpanID: p.GetSpanId(), ExternalID: p.GetExternalId(),
		Status: int(p.GetStatus()), Error: p.GetError(), LatencyMS: p.GetLatencyMs(), Weight: p.Weight, //nolint:protogetter // whether it is there counts
	}
	var err error
	if out.Features, err = valuesOf(p.GetFeatures(), false); err != nil {
		return nil, fmt.Errorf("feature %w", err)
	}
	if out.Outputs, err = valuesOf(p.GetOutputs(), true); err != nil {
		return nil, fmt.Errorf("output %w", err)
	}
	if p.GetLabel() != nil {
		if out.Label, err = valueOf(p.GetLabel(), false); err != nil {
			return nil, fmt.Errorf("label %w", err)
		}
	}
	if out.Time, err = timeOf(p.GetTime()); err != nil {
		return nil, err
	}
	out.ObservedAt, err = timeOf(p.GetObservedAt())
	return out, err
}

// timeOf is a time as text, "" for none.
func timeOf(t *timestamppb.Timestamp) (string, error) {
	if t == nil {
		return "", nil
	}
	if err := t.CheckValid(); err != nil {
		return "", errors.New("a time is not valid")
	}
	return t.AsTime().Format(time.RFC3339Nano), nil
}

func valuesOf(m map[string]*structpb.Value, lists bool) (map[string]json.RawMessage, error) {
	out := make(map[string]json.RawMessage, len(m))
	for name, v := range m {
		raw, err := valueOf(v, lists)
		if err != nil {
			if len(name) > 128 {
				name = name[:128] + "..."
			}
			return nil, fmt.Errorf("%q %w", name, err)
		}
		out[name] = raw
	}
	return out, nil
}

// valueOf is a value as JSON; lists says whether it may be a list.
func valueOf(v *structpb.Value, lists bool) (json.RawMessage, error) {
	switch k := v.GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return json.RawMessage("null"), nil
	case *structpb.Value_BoolValue:
		return strconv.AppendBool(nil, k.BoolValue), nil
	case *structpb.Value_StringValue:
		return json.Marshal(k.StringValue)
	case *structpb.Value_NumberValue:
		switch x := k.NumberValue; {
		case math.IsNaN(x):
			return json.RawMessage("null"), nil
		case math.IsInf(x, 0):
			return nil, errors.New("is infinite")
		default:
			return json.Marshal(x)
		}
	case *structpb.Value_ListValue:
		if !lists {
			break
		}
		list := make([]json.RawMessage, 0, len(k.ListValue.GetValues()))
		for _, one := range k.ListValue.GetValues() {
			raw, err := valueOf(one, false)
			if err != nil {
				return nil, err
			}
			list = append(list, raw)
		}
		return json.Marshal(list)
	}
	return nil, errors.New("is neither a number, a string nor a boolean")
}
