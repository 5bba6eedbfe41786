package proxy

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// Inference is an inference request that did not come by HTTP.
type Inference struct {
	Model, Version string
	// Carrier has the caller's trace context.
	Carrier propagation.TextMapCarrier
	// Decode reads the request once its model is known, whose description it is given;
	// Bytes is its size.
	Decode func(info *engine.Info) (*oip.Request, error)
	Bytes  int64
	// Refused says why the request goes no further: of all else there may then be nothing
	// but the model's name.
	Refused error
	// Encode makes the answer ready to be sent and returns its size.
	Encode func(*oip.Response) (int64, error)
}

// Inferred is what is told of an answer beside it, of a failed one too.
type Inferred struct{ PredictionID, Traceparent, Captured string }

// Infer answers a request by the very path of those that come by HTTP: the same
// checks, limits, spans and records. The answer may be sent when it returns.
func (s *Server) Infer(ctx context.Context, x Inference) (Inferred, error) {
	k := &call{s: s, start: time.Now(), route: collector.RouteInfer, rows: 1, captured: "none", turnedAway: x.Refused != nil}
	s.metrics.active.Add(1)
	defer s.metrics.active.Add(-1)
	if err := k.identify(); err != nil {
		return Inferred{}, err
	}
	err := x.Refused
	if err != nil {
		k.v = s.known(x.Model, x.Version)
	} else if v, missing := s.find(ctx, x.Model, x.Version); missing != nil {
		err = missing
	} else {
		k.v = v
	}
	k.trace(ctx, x.Carrier)
	k.in = x.Bytes
	if err == nil {
		err = k.admit(func(k *call) error { return k.inferDirect(&x) })
	}
	k.end(err)
	return Inferred{PredictionID: k.id, Traceparent: k.parent, Captured: k.captured}, err
}

func (k *call) inferDirect(x *Inference) error {
	req, err := x.Decode(k.v.Info)
	if err != nil {
		return err
	}
	want, err := plan(k.v.Info, req)
	if err != nil {
		return err
	}
	in, err := k.bind(req)
	if err != nil {
		return err
	}
	ans, err := k.run(in, want.extra, req)
	if err != nil {
		return err
	}
	start := time.Now()
	res, err := want.response(k, req, ans)
	if err != nil {
		return err
	}
	if k.out, err = x.Encode(res); err != nil {
		return err
	}
	k.stages.Encode = int64(time.Since(start))
	return k.capture(in, ans.declared)
}
