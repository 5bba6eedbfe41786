package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// infer answers an Open Inference Protocol request: decode, validate, run,
// encode, capture, send.
func (k *call) infer() error {
	req, err := k.decode(k.decodeInfer)
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
	buf := scratch.Get().(*[]byte)
	defer putScratch(buf)
	start := time.Now()
	res, err := want.response(k, req, ans)
	if err != nil {
		return err
	}
	body, header, err := oip.AppendResponse((*buf)[:0], res)
	if err != nil {
		return err
	}
	*buf = body
	k.stages.Encode = int64(time.Since(start))
	if err := k.capture(in, ans.declared); err != nil {
		return err
	}
	k.out = int64(len(body))
	if header == oip.NoHeader {
		return send(k.c, contentJSON, body)
	}
	k.header(3, "Inference-Header-Content-Length", strconv.Itoa(header))
	return send(k.c, contentBinary, body)
}

func putScratch(b *[]byte) {
	if cap(*b) <= keepBuffer {
		scratch.Put(b)
	}
}

// decode has the body decoded; its buffer is not needed afterwards.
func (k *call) decode(decode func(body []byte) (*oip.Request, error)) (*oip.Request, error) {
	defer k.drop()
	k.in = int64(k.body.Len())
	return decode(k.body.Bytes())
}

func (k *call) decodeInfer(body []byte) (*oip.Request, error) {
	header, err := headerLength(k.c.Request(), len(body))
	if err != nil {
		return nil, err
	}
	if header == 0 {
		return oip.DecodeRaw(body, k.v.Info.Inputs)
	}
	return oip.DecodeRequestFor(body, header, k.v.Info)
}

// bind checks the inputs against the model, counts rows and reads what the
// parameters say of them. A request that is refused keeps its caller's id.
func (k *call) bind(req *oip.Request) (engine.Values, error) {
	in, err := k.bindRows(req)
	if err != nil && len(k.externalIDs) == 0 {
		k.nameRefused(req)
	}
	return in, err
}

func (k *call) bindRows(req *oip.Request) (engine.Values, error) {
	in, rows, err := engine.Bind(k.v.Info, req.Values())
	if err != nil {
		return nil, err
	}
	if rows < 1 {
		return nil, fail(http.StatusBadRequest, "the request has no rows")
	}
	if rows > k.s.cfg.MaxRows {
		return nil, fail(http.StatusRequestEntityTooLarge, "the request has %d rows, the limit is %d", rows, oip.Number(k.s.cfg.MaxRows))
	}
	k.rows = rows
	if err := k.mark(req); err != nil {
		return nil, err
	}
	if k.span.IsRecording() {
		k.span.SetAttributes(attrBatchSize.Int(rows), attrFeatureCount.Int(len(k.v.Info.Features)))
	}
	k.stages.Decode = int64(time.Since(k.start))
	k.bound = in
	return in, nil
}

// answer is what a model gave: its declared outputs, in their order, and those
// that were asked for besides. params and items are an upstream's parameters.
type answer struct {
	declared, extra engine.Values
	params          oip.Params
	items           []oip.Item
}

// run has the model answer. Its declared outputs are always computed, whatever
// the request asks for, because the record needs them.
func (k *call) run(in engine.Values, extra []string, req *oip.Request) (*answer, error) {
	var want []string
	if len(extra) > 0 {
		for _, o := range k.v.Info.Outputs {
			want = append(want, o.Name)
		}
		want = append(want, extra...)
	}
	ctx, span := k.child("model.run")
	if span.IsRecording() {
		span.SetAttributes(k.modelAttributes()...)
		span.SetAttributes(attrBatchSize.Int(k.rows))
	}
	defer span.End()
	start := time.Now()
	ans := &answer{}
	out, err := engine.Values(nil), error(nil)
	if up := k.s.upstreams[k.v.Name]; up != nil {
		var res *oip.Response
		if res, err = up.exchange(ctx, k.v, exchange{id: req.ID, hasID: req.HasID, params: req.Params.Without(ownParams...), in: in, want: want, asked: k.asked}); err == nil {
			out, ans.params, ans.items = res.Values(), res.Params, res.Outputs
			err = up.fitsRows(k.v, out, k.rows)
		}
	} else {
		out, err = k.v.Predict(ctx, in, want)
	}
	k.stages.Model = int64(time.Since(start))
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		f := k.runFailure(err)
		span.SetAttributes(attrErrorType.String(strconv.Itoa(f.status)))
		span.SetStatus(codes.Error, f.recorded())
		return nil, f
	}
	n := len(k.v.Info.Outputs)
	if len(out) != n+len(extra) {
		return nil, fmt.Errorf("run model %q: %d outputs, %d expected", k.v.Name, len(out), n+len(extra))
	}
	ans.declared, ans.extra = out[:n], out[n:]
	return ans, nil
}

// asked notes an attempt at an upstream.
func (k *call) asked(a collector.Attempt) {
	k.attempts = append(k.attempts, a)
	if k.span.IsRecording() {
		k.span.AddEvent("upstream attempt", trace.WithAttributes(attrHTTPStatus.Int(a.Status)))
	}
}

// runFailure says why a run failed. What the engine says of a run that it should
// have been able to do is for the log only.
func (k *call) runFailure(err error) *failure {
	f := asFailure(err)
	if f.cause != nil {
		f = &failure{status: f.status, message: "the model failed to run", cause: f.cause}
	}
	return f
}

// wanted is a request's outputs in the order they are answered.
type wanted struct {
	items []oip.Item
	extra []string // those not among the declared outputs
}

// plan settles which outputs a request wants, and in which form.
func plan(info *engine.Info, req *oip.Request) (*wanted, error) {
	w := &wanted{items: make([]oip.Item, 0, max(len(req.Outputs), len(info.Outputs)))}
	for _, o := range req.Outputs {
		if slices.ContainsFunc(w.items, func(it oip.Item) bool { return it.Name == o.Name }) {
			return nil, fail(http.StatusBadRequest, "output %q is asked for twice", clip(o.Name))
		}
		spec := specOf(info.Outputs, o.Name)
		if spec == nil {
			if spec = specOf(info.Extra, o.Name); spec == nil {
				return nil, fail(http.StatusBadRequest, "the model has no output %q", clip(o.Name))
			}
			w.extra = append(w.extra, o.Name)
		}
		if err := w.add(spec, o.Binary); err != nil {
			return nil, err
		}
	}
	if len(req.Outputs) > 0 {
		return w, nil
	}
	for i := range info.Outputs {
		if err := w.add(&info.Outputs[i], req.Binary); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func specOf(specs []engine.Spec, name string) *engine.Spec {
	for i := range specs {
		if specs[i].Name == name {
			return &specs[i]
		}
	}
	return nil
}

func (w *wanted) add(spec *engine.Spec, binary bool) error {
	if !binary && !oip.JSONable(spec.DType) {
		return fail(http.StatusBadRequest, "output %q is %s, which JSON cannot carry: ask for binary_data", oip.Own(spec.Name), spec.DType)
	}
	w.items = append(w.items, oip.Item{Name: spec.Name, Binary: binary})
	return nil
}

// response puts the wanted outputs together.
func (w *wanted) response(k *call, req *oip.Request, ans *answer) (*oip.Response, error) {
	res := &oip.Response{
		Model: k.v.Name, Version: k.v.Version, ID: req.ID, HasID: req.HasID, Params: ans.params,
		Outputs: w.items,
	}
	for i := range w.items {
		name := w.items[i].Name
		t := ans.declared.Get(name)
		if t == nil {
			t = ans.extra.Get(name)
		}
		if t == nil {
			return nil, fmt.Errorf("run model %q: no output %q", k.v.Name, name)
		}
		res.Outputs[i].Tensor = t
		for _, it := range ans.items {
			if it.Name == name {
				res.Outputs[i].Params = it.Params
			}
		}
	}
	return res, nil
}

// v1Predict answers a KServe v1 request: one prediction a row, an object by
// output name where the model has several.
func (k *call) v1Predict() error {
	req, err := k.decode(func(body []byte) (*oip.Request, error) { return oip.DecodeInstances(body, k.v.Info) })
	if err != nil {
		return err
	}
	in, err := k.bind(req)
	if err != nil {
		return err
	}
	ans, err := k.run(in, nil, req)
	if err != nil {
		return err
	}
	start := time.Now()
	buf := scratch.Get().(*[]byte)
	defer putScratch(buf)
	body, err := oip.AppendPredictions((*buf)[:0], ans.declared)
	if err != nil {
		return err
	}
	*buf = body
	k.stages.Encode = int64(time.Since(start))
	if err := k.capture(in, ans.declared); err != nil {
		return err
	}
	k.out = int64(len(body))
	return send(k.c, contentJSON, body)
}
