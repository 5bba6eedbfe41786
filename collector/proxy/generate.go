package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// The generate extension of the protocol: an object with the model's inputs by name, and
// an answer with its outputs by name, whole (generate) or as a stream of events
// (generate_stream) that are passed on as they come. Only an upstream answers it. What is
// recorded of a stream is what it came to: texts put together, of anything else the last.
// One that breaks off is recorded with what came of it until then, and with its error.

const contentEvents = "text/event-stream"

// trailerCaptured tells after a stream how it was recorded, which is not known before.
const trailerCaptured = "Pellucid-Capture"

func (k *call) generate() error       { return k.generated("/generate", k.whole) }
func (k *call) generateStream() error { return k.generated("/generate_stream", k.stream) }

// generated has the upstream answer, and answer pass that on and record it.
func (k *call) generated(path string, answer func(res *http.Response, in engine.Values) error) error {
	up := k.s.upstreams[k.v.Name]
	if up == nil {
		return fail(http.StatusNotImplemented, "model %q runs here, where an answer comes at once: use infer", oip.Own(k.v.Name))
	}
	var body []byte
	req, err := k.decode(func(b []byte) (req *oip.Request, err error) {
		if req, body, err = decodeGenerate(b, k.v.Info); err == nil {
			err = k.strange(b)
		}
		return req, err
	})
	if err != nil {
		return err
	}
	in, err := k.bind(req)
	if err != nil {
		return err
	}
	ctx, span := k.child("model.run")
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(k.modelAttributes()...)
	}
	ctx, cancel := context.WithTimeout(ctx, up.cfg.Timeout)
	defer cancel()
	sv, err := up.served(ctx)
	if err != nil {
		return err
	}
	var res *http.Response
	err = up.retry(ctx, k.asked, func() (status int, err error) {
		res, err = up.open(ctx, sv.path+path, body) //nolint:bodyclose // closed below, or by open with an error
		if res != nil {
			status = res.StatusCode
		}
		return status, err
	})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return answer(res, in)
}

// strange refuses fields that are no inputs and are called like a private feature: they would go
// to the upstream, and what its answer repeats of them is nobody's to remove.
func (k *call) strange(body []byte) error {
	var fields, params map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return fail(http.StatusBadRequest, "the body must be an object")
	}
	if raw, ok := fields["parameters"]; ok {
		_ = json.Unmarshal(raw, &params) // those that are no object were refused
	}
	for name := range maps.Keys(params) {
		fields[name] = nil
	}
	for _, spec := range k.v.Info.Inputs {
		delete(fields, spec.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if k.v.Config.Policy(name) != collector.PrivacyNone || k.v.Config.PrivateAlike(name) != collector.PrivacyNone {
			return fail(http.StatusBadRequest, "the field %q is no input of the model and is called like a private feature of it", name)
		}
	}
	return nil
}

// decodeGenerate reads a request, and writes it again without what is ours.
func decodeGenerate(body []byte, info *engine.Info) (*oip.Request, []byte, error) {
	var fields map[string]json.RawMessage
	if err := oip.CheckUnique(body); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, nil, fail(http.StatusBadRequest, "the body must be an object")
	}
	row, v1 := map[string]json.RawMessage{}, map[string]any{}
	for _, spec := range info.Inputs {
		if raw, ok := fields[spec.Name]; ok {
			row[spec.Name] = raw
		}
	}
	v1["instances"] = []any{row}
	if params, ok := fields["parameters"]; ok {
		v1["parameters"] = params
	}
	text, err := json.Marshal(v1)
	if err != nil {
		return nil, nil, fail(http.StatusBadRequest, "the body is not JSON")
	}
	// Where a model takes a matrix its columns have names: only inputs are asked for.
	req, err := oip.DecodeInstances(text, &engine.Info{Inputs: info.Inputs, Outputs: info.Outputs})
	if err != nil {
		return nil, nil, err
	}
	if raw, ok := fields["id"]; ok {
		if err := json.Unmarshal(raw, &req.ID); err != nil {
			return nil, nil, fail(http.StatusBadRequest, "the id must be a string")
		}
		req.HasID = true
	}
	if _, ok := fields["parameters"]; ok {
		fields["parameters"] = oip.AppendParams(nil, req.Params.Without(ownParams...))
	}
	out, err := json.Marshal(fields)
	return req, out, err
}

// open sends a request and returns its answer once it has begun; any other than 200 is
// an error.
func (u *Upstream) open(ctx context.Context, address string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentJSON)
	inject(ctx, propagation.HeaderCarrier(req.Header))
	res, err := u.client.Do(req)
	if err != nil {
		return nil, u.unreachable(err)
	}
	if res.StatusCode != http.StatusOK {
		defer func() { _ = res.Body.Close() }()
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16)) // what came of it is shown
		return res, u.refused(res, said)
	}
	return res, nil
}

// whole passes on an answer that comes at once, after it was recorded.
func (k *call) whole(res *http.Response, in engine.Values) error {
	up := k.s.upstreams[k.v.Name]
	body, err := io.ReadAll(io.LimitReader(res.Body, up.cfg.MaxResponse+1))
	if err != nil {
		return up.unreachable(err)
	}
	if int64(len(body)) > up.cfg.MaxResponse {
		return up.broken(fmt.Sprintf("its answer is larger than the limit of %d bytes", up.cfg.MaxResponse))
	}
	k.modelDone()
	said := collected{outputs: k.v.Info.Outputs}
	if err := said.add(body); err != nil {
		return up.broken(err.Error())
	}
	out, err := said.values()
	if err != nil {
		return up.broken(err.Error())
	}
	if err := k.capture(in, out); err != nil {
		return err
	}
	k.out = int64(len(body))
	return send(k.c, contentJSON, body)
}

// stream passes events on as they come, and records what they came to when they end. The
// answer ends after that, so who has all of it knows that it is recorded.
func (k *call) stream(res *http.Response, in engine.Values) error {
	w := k.c.Response()
	w.Header().Set("Content-Type", contentEvents)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.Header().Set("Trailer", trailerCaptured)
	w.WriteHeader(http.StatusOK)
	w.Flush()
	k.passedOn = true
	said := &collected{outputs: k.v.Info.Outputs}
	err := k.pass(res.Body, said)
	k.modelDone()
	var out engine.Values
	if err == nil {
		if out, err = said.values(); err != nil {
			err = k.s.upstreams[k.v.Name].broken(err.Error())
		}
	}
	if err != nil {
		f := asFailure(err)
		if k.s.cfg.Capture != nil {
			k.recordFailed(f, said.brokenOff(k.v, in))
			f.noRow = true // it has one
		}
		// The status has gone out as 200: the last event says what became of it.
		_, _ = w.Write(append(append([]byte("data: "), oip.AppendError(nil, f.message)...), "\n\n"...))
		return f
	}
	if err := k.capture(in, out); err != nil {
		_, _ = w.Write(append(append([]byte("data: "), oip.AppendError(nil, asFailure(err).message)...), "\n\n"...))
		return err
	}
	w.Header().Set(trailerCaptured, k.captured)
	return nil
}

// modelDone notes how long the upstream took.
func (k *call) modelDone() { k.stages.Model = int64(time.Since(k.start)) - k.stages.Decode }

// pass copies lines from an upstream to the client, event by event, and has what they say
// collected.
func (k *call) pass(from io.Reader, said *collected) error {
	up := k.s.upstreams[k.v.Name]
	w := k.c.Response()
	lines := bufio.NewReaderSize(from, 64<<10)
	var data []byte
	for {
		line, err := lines.ReadBytes('\n')
		if k.out += int64(len(line)); k.out > up.cfg.MaxResponse {
			return up.broken(fmt.Sprintf("its answer is larger than the limit of %d bytes", up.cfg.MaxResponse))
		}
		if len(line) > 0 {
			if _, err := w.Write(line); err != nil {
				return context.Canceled // the client has gone
			}
		}
		text, isData := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte("data:"))
		if isData {
			data = append(append(data, bytes.TrimPrefix(text, []byte(" "))...), '\n')
		}
		// An event ends with an empty line, the last one also with the answer.
		if len(bytes.TrimRight(line, "\r\n")) == 0 && len(data) > 0 {
			w.Flush()
			if err := said.add(data); err != nil {
				return up.broken(err.Error())
			}
			data = data[:0]
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return up.unreachable(err)
		}
	}
}

// collected is what the events of an answer came to.
type collected struct {
	outputs []engine.Spec
	texts   map[string][]byte
	last    map[string]json.RawMessage
}

// errSaid is an upstream's own error within its answer.
var errSaid = errors.New("it broke off with an error of its own")

// add takes an object with outputs by name. Data that is no object is a mark of the
// protocol's dialects ("[DONE]").
func (c *collected) add(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '{' {
		return nil
	}
	var fields map[string]json.RawMessage
	if oip.Check(data) != nil || json.Unmarshal(data, &fields) != nil {
		return errors.New("its answer is not valid")
	}
	if _, failed := fields["error"]; failed {
		return errSaid
	}
	if c.last == nil {
		c.texts, c.last = map[string][]byte{}, map[string]json.RawMessage{}
	}
	for i := range c.outputs {
		o := &c.outputs[i]
		raw, ok := fields[o.Name]
		if !ok || string(raw) == "null" {
			continue
		}
		if o.DType == engine.String {
			list := []string{""}
			if raw[0] != '[' {
				if json.Unmarshal(raw, &list[0]) != nil {
					return fmt.Errorf("its output %q is no text", clip(o.Name))
				}
			} else if json.Unmarshal(raw, &list) != nil {
				return fmt.Errorf("its output %q is no list of texts", clip(o.Name))
			}
			for _, s := range list {
				c.texts[o.Name] = append(c.texts[o.Name], s...)
			}
			continue
		}
		c.last[o.Name] = bytes.Clone(raw)
	}
	return nil
}

// values are the outputs as the record takes them, each of one row.
func (c *collected) values() (engine.Values, error) {
	out := make(engine.Values, len(c.outputs))
	for i := range c.outputs {
		t, err := c.value(&c.outputs[i])
		if err != nil {
			return nil, err
		}
		out[i] = engine.Named{Name: c.outputs[i].Name, Tensor: t}
	}
	return out, nil
}

func (c *collected) value(o *engine.Spec) (*engine.Tensor, error) {
	raw, ok := c.last[o.Name]
	if o.DType == engine.String {
		var err error
		if raw, err = json.Marshal(string(c.texts[o.Name])); err != nil {
			return nil, err
		}
	} else if !ok {
		return nil, fmt.Errorf("its answer has no output %q", clip(o.Name))
	}
	one := *o
	for d := range one.Shape {
		if one.Shape[d] == -1 {
			one.Shape = append([]int(nil), one.Shape...)
			one.Shape[d] = 1
		}
	}
	t, err := importedOutput(&one, raw)
	if err != nil {
		return nil, fmt.Errorf("its output %q: %w", clip(o.Name), err)
	}
	return t, nil
}

// brokenOff are the outputs as far as they were sent, nil where nothing was. One that never
// came, as a count that stands in the last event only, has no elements.
func (c *collected) brokenOff(v *collector.ModelVersion, in engine.Values) engine.Values {
	if len(c.texts)+len(c.last) == 0 {
		return nil
	}
	out := make(engine.Values, len(c.outputs))
	for i := range c.outputs {
		o := &c.outputs[i]
		t, err := c.value(o)
		if err != nil {
			if t, err = engine.New(o.DType, 1, 0); err != nil {
				return nil // a type that has no tensors is not served
			}
		}
		if o.DType == engine.String {
			collector.WithoutEnds(v, in, engine.Data[string](t))
		}
		out[i] = engine.Named{Name: o.Name, Tensor: t}
	}
	return out
}
