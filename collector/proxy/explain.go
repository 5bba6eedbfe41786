package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// explanations is the answer of every explain route.
type explanations struct {
	Explanations []collector.Explanation `json:"explanations"`
}

// explain answers an inference body whose parameters name a method.
func (k *call) explain() error {
	req, err := k.decode(k.decodeInfer)
	if err != nil {
		return err
	}
	return k.explainRows(req)
}

// v1Explain answers KServe v1's explain.
func (k *call) v1Explain() error {
	req, err := k.decode(func(body []byte) (*oip.Request, error) { return oip.DecodeInstances(body, k.v.Info) })
	if err != nil {
		return err
	}
	return k.explainRows(req)
}

// explainRows predicts the rows, explains them, and records both: the prediction
// under the explain route, so that it stays out of drift and performance.
func (k *call) explainRows(req *oip.Request) error {
	if k.s.cfg.Explain == nil {
		return fail(http.StatusNotImplemented, "explanations are not configured")
	}
	opts, err := explainOptions(req.Params)
	if err != nil {
		return err
	}
	in, err := k.bind(req)
	if err != nil {
		return err
	}
	// The options are for the explainer, not for an upstream's model.
	ans, err := k.run(in, nil, &oip.Request{ID: req.ID, HasID: req.HasID})
	if err != nil {
		return err
	}
	list, err := k.attribute(in, opts)
	if err != nil {
		return err
	}
	start := time.Now()
	body, err := json.Marshal(explanations{list})
	if err != nil {
		return fmt.Errorf("encode explanations: %w", err)
	}
	k.stages.Encode = int64(time.Since(start))
	if err := k.capture(in, ans.declared); err != nil {
		return err
	}
	if err := k.s.record(k.ctx, list); err != nil {
		return err
	}
	k.out = int64(len(body))
	return send(k.c, contentJSON, body)
}

// attribute runs the explainer and gives each explanation its row's id.
func (k *call) attribute(in engine.Values, opts collector.ExplainRequest) ([]collector.Explanation, error) {
	ctx, span := k.child("explain")
	defer span.End()
	list, err := k.s.cfg.Explain(ctx, k.v, in, opts)
	if err != nil {
		span.SetStatus(codes.Error, asFailure(err).recorded())
		return nil, err
	}
	if list == nil {
		list = []collector.Explanation{}
	}
	if len(list) > 0 && span.IsRecording() {
		span.SetAttributes(attrExplainMethod.String(list[0].Method), attrBatchSize.Int(k.rows))
	}
	if len(list)%k.rows != 0 {
		return nil, fmt.Errorf("explain %d rows of model %q: %d explanations", k.rows, k.v.Name, len(list))
	}
	each := len(list) / k.rows
	for i := range list {
		list[i].PredictionID = k.rowID(i / each)
	}
	return list, nil
}

// record keeps explanations, whatever the client does meanwhile.
func (s *Server) record(ctx context.Context, list []collector.Explanation) error {
	if s.cfg.RecordExplanations == nil || len(list) == 0 {
		return nil
	}
	return s.cfg.RecordExplanations(context.WithoutCancel(ctx), list)
}

// explainStored explains a prediction by its id.
func (s *Server) explainStored(c echo.Context) error {
	if s.cfg.ExplainStored == nil {
		return fail(http.StatusNotImplemented, "explanations by id are not configured")
	}
	ref, err := predictionRef(c)
	if err != nil {
		return err
	}
	var opts collector.ExplainRequest
	buf, err := s.readBody(c)
	if err != nil {
		return err
	}
	err = decodeJSON(buf.Bytes(), &opts, true)
	putBuffer(buf)
	if err != nil {
		return err
	}
	if s.inFlight.Add(1) > int64(s.cfg.MaxInFlight) {
		s.inFlight.Add(-1)
		return &failure{status: http.StatusServiceUnavailable, message: "too many requests are under way", retryAfter: 1}
	}
	defer s.inFlight.Add(-1)

	r := c.Request()
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.ExplainTimeout)
	defer cancel()
	ctx = extract(ctx, propagation.HeaderCarrier(r.Header))
	ctx, span := s.tracer.Start(ctx, "explain", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	span.SetAttributes(attrHTTPRoute.String(c.Path()), attrHTTPMethod.String(r.Method))
	if sc := span.SpanContext(); sc.IsValid() {
		c.Response().Header().Set("Traceparent", traceparent(sc))
	}
	list, err := s.cfg.ExplainStored(ctx, ref, opts)
	if err != nil {
		span.SetStatus(codes.Error, asFailure(err).recorded())
		return err
	}
	if len(list) > 0 {
		if collector.OwnID(ref.ID) { // another is whatever somebody wrote
			span.SetAttributes(attrPredictionID.String(ref.ID))
		}
		span.SetAttributes(attrExplainMethod.String(list[0].Method), attrModelName.String(list[0].Model), attrModelVersion.String(list[0].Version))
	}
	if err := s.record(ctx, list); err != nil {
		return err
	}
	if list == nil {
		list = []collector.Explanation{}
	}
	return s.reply(c, explanations{list})
}
