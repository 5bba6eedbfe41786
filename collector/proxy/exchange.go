package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// exchange is one inference an upstream is asked for.
type exchange struct {
	id     string
	hasID  bool
	params oip.Params
	in     engine.Values
	want   []string
	// asked is told of every request to the server; nil where nobody wants to know.
	asked func(collector.Attempt)
}

// version builds the record of a model out of its description. Its digest is
// that of the description, the server's and ours, and of our name for it: what the model
// computes cannot be known from here, and two that are described alike are two models.
func (u *Upstream) version(version string, meta *oip.ModelMetadata, info *engine.Info) (*collector.ModelVersion, error) {
	cfg := u.cfg.Config
	if u.cfg.Protect != nil {
		if err := u.cfg.Protect(u.cfg.Name, info, &cfg); err != nil {
			return nil, err
		}
	}
	schema, err := collector.NewSchema(info, cfg)
	if err != nil {
		return nil, fmt.Errorf("its metadata: %w", err)
	}
	described := *meta
	described.Versions = nil
	canonical, err := json.Marshal(struct {
		Upstream, Version, Schema string
		Task                      engine.Task
		Classes                   []string
		oip.ModelMetadata
	}{u.cfg.Name, version, schema.ID, info.Task, info.Classes, described})
	if err != nil {
		return nil, fmt.Errorf("digest its metadata: %w", err)
	}
	digest := sha256.Sum256(canonical)
	v := &collector.ModelVersion{
		Name: u.cfg.Name, Version: version, Digest: hex.EncodeToString(digest[:]),
		Info: info, Schema: schema, Config: cfg,
		Reference:  func() *stats.Reference { return nil },
		Background: func() (engine.Values, string, bool) { return nil, "", false },
	}
	v.Predict = func(ctx context.Context, in engine.Values, want []string) (engine.Values, error) {
		res, err := u.exchange(ctx, v, exchange{in: in, want: want})
		if err != nil {
			return nil, err
		}
		return res.Values(), nil
	}
	return v, nil
}

// exchange has the upstream answer. Its outputs come back in the order of want,
// or of the model's description.
func (u *Upstream) exchange(ctx context.Context, v *collector.ModelVersion, x exchange) (*oip.Response, error) {
	sv, err := u.served(ctx)
	if err != nil {
		return nil, err
	}
	buf := scratch.Get().(*[]byte)
	defer putScratch(buf)
	req := oip.Request{ID: x.id, HasID: x.hasID, Params: x.params, Inputs: make([]oip.Item, len(x.in))}
	if sv.binary {
		req.Params = append(req.Params.Without("binary_data_output"), oip.Param{Name: "binary_data_output", Value: true})
	}
	for i, n := range x.in {
		req.Inputs[i] = oip.Item{Name: n.Name, Tensor: n.Tensor, Binary: sv.binary}
	}
	for _, name := range x.want {
		req.Outputs = append(req.Outputs, oip.OutputRequest{Name: name})
	}
	answerHeader := oip.NoHeader
	body, header, err := oip.AppendRequest((*buf)[:0], &req)
	if err != nil {
		return nil, err
	}
	*buf = body
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeout)
	defer cancel()
	var answer *bytes.Buffer
	err = u.retry(ctx, x.asked, func() (status int, err error) {
		answer, answerHeader, status, err = u.post(ctx, sv.path+"/infer", body, header)
		return status, err
	})
	if err != nil {
		return nil, err
	}
	defer putBuffer(answer)
	res, err := oip.DecodeResponse(answer.Bytes(), answerHeader)
	if err != nil {
		return nil, &UpstreamError{Upstream: u.cfg.Name, Status: http.StatusBadGateway, Reason: "its answer is not valid", Message: err.Error()}
	}
	if sv.pinned && res.Version != "" && res.Version != v.Version {
		return nil, &UpstreamError{
			Upstream: u.cfg.Name, Status: http.StatusBadGateway,
			Reason: fmt.Sprintf("version %q was asked and another one answered", clip(v.Version)), Message: "it says that it is " + strconv.Quote(clip(res.Version)),
		}
	}
	return u.check(v.Info, res, x.want)
}

func (u *Upstream) broken(reason string) error {
	return &UpstreamError{Upstream: u.cfg.Name, Status: http.StatusBadGateway, Reason: reason}
}

// retry sends a request, again where that may help and the configuration wants it. send
// returns what was answered, 0 where nothing was.
func (u *Upstream) retry(ctx context.Context, asked func(collector.Attempt), send func() (status int, err error)) error {
	wait := retryWait
	for try := 0; ; try++ {
		start := time.Now()
		status, err := send()
		if asked != nil {
			asked(collector.Attempt{Status: status, MS: float64(time.Since(start)) / 1e6})
		}
		var e *UpstreamError
		if err == nil || try >= u.cfg.Retries || !errors.As(err, &e) || !e.again {
			return err
		}
		pause := max(wait/2+rand.N(wait), e.wait)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return err // there would be no time left for an answer
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		wait *= 2
	}
}

// retryWait is the mean of the first wait before an upstream is asked again, doubled
// each time.
const retryWait = 50 * time.Millisecond

// post sends a request and returns the body of its answer in a pooled buffer. status is
// what was answered, 0 where nothing was.
func (u *Upstream) post(ctx context.Context, address string, body []byte, header int) (buf *bytes.Buffer, answerHeader, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, 0, 0, err
	}
	req.Header.Set("Content-Type", contentJSON)
	if header != oip.NoHeader {
		req.Header.Set("Content-Type", contentBinary)
		req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(header))
	}
	inject(ctx, propagation.HeaderCarrier(req.Header))
	res, err := u.client.Do(req)
	if err != nil {
		return nil, 0, 0, u.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	buf = buffers.Get().(*bytes.Buffer)
	n, err := buf.ReadFrom(io.LimitReader(res.Body, u.cfg.MaxResponse+1))
	switch {
	case err != nil:
		err = u.unreachable(err)
	case n > u.cfg.MaxResponse:
		err = u.broken(fmt.Sprintf("its answer is larger than the limit of %d bytes", u.cfg.MaxResponse))
	case res.StatusCode != http.StatusOK:
		err = u.refused(res, buf.Bytes())
	default:
		answerHeader, err = u.answerHeader(res, buf.Len())
	}
	if err != nil {
		putBuffer(buf)
		return nil, 0, res.StatusCode, err
	}
	return buf, answerHeader, res.StatusCode, nil
}

func (u *Upstream) answerHeader(res *http.Response, size int) (int, error) {
	text := res.Header.Get("Inference-Header-Content-Length")
	if text == "" {
		return oip.NoHeader, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 || n > size {
		return 0, u.broken("its Inference-Header-Content-Length does not lie within its answer")
	}
	return n, nil
}

// refused maps an upstream's error. A 4xx is the client's fault, but for those
// that are ours (the model is gone, our access is refused) or nobody's (busy).
func (u *Upstream) refused(res *http.Response, body []byte) error {
	status := res.StatusCode
	e := &UpstreamError{Upstream: u.cfg.Name, Status: http.StatusBadGateway, Message: upstreamMessage(body)}
	e.Reason = fmt.Sprintf("answered with status %d", status)
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		e.Status, e.again = http.StatusServiceUnavailable, true
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 && s < 1<<20 {
			e.wait = time.Duration(s) * time.Second
		}
	case status == http.StatusBadGateway:
		e.again = true
	case status == http.StatusGatewayTimeout:
		e.Status, e.again = http.StatusGatewayTimeout, true
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
	case status >= 400 && status < 500:
		e.Status, e.Reason = http.StatusBadRequest, fmt.Sprintf("refused the request with status %d", status)
	}
	return e
}

// check holds an answer against the model's description and puts its outputs in
// the order asked for. Whoever contradicts his own description is not believed.
func (u *Upstream) check(info *engine.Info, res *oip.Response, want []string) (*oip.Response, error) {
	if len(want) == 0 {
		for _, o := range info.Outputs {
			want = append(want, o.Name)
		}
	}
	if len(res.Outputs) != len(want) {
		return nil, u.broken(fmt.Sprintf("its answer has %d outputs, its metadata has %d", len(res.Outputs), len(want)))
	}
	ordered := make([]oip.Item, len(want))
	for i, name := range want {
		spec := specOf(info.Outputs, name)
		if spec == nil {
			return nil, u.broken(fmt.Sprintf("it has no output %q", clip(name)))
		}
		found := false
		for _, it := range res.Outputs {
			if it.Name == name {
				ordered[i], found = it, true
			}
		}
		if !found {
			return nil, u.broken(fmt.Sprintf("its answer has no output %q", clip(name)))
		}
		if t := ordered[i].Tensor; t.DType() != spec.DType || !fits(t.Shape(), spec.Shape) {
			return nil, u.broken(fmt.Sprintf("output %q is %s %v, its metadata says %s %v", clip(name), t.DType(), t.Shape(), spec.DType, spec.Shape))
		}
	}
	res.Outputs = ordered
	return res, nil
}

// fitsRows checks that every output has a value, or one row of them, for each row
// that was asked about.
func (u *Upstream) fitsRows(v *collector.ModelVersion, out engine.Values, rows int) error {
	if _, err := collector.Flatten(v.Schema.Outputs, out, rows); err != nil {
		return u.broken(fmt.Sprintf("its answer does not have one row of each output for each of %d rows", rows))
	}
	return nil
}

// fits reports whether a shape is one of those that -1 stands for.
func fits(shape, spec []int) bool {
	if len(shape) != len(spec) {
		return false
	}
	for i, d := range spec {
		if d != -1 && d != shape[i] {
			return false
		}
	}
	return true
}
