package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
	"github.com/pellucid/pellucid/engine"
)

// UpstreamConfig describes a model that another Open Inference Protocol server
// answers. Name and URL are required.
type UpstreamConfig struct {
	// Name is the model's name here; Model its name there, by default the same.
	Name, Model string
	// Version pins a version there; empty means the newest it lists.
	Version string
	// URL is the server's address, without /v2.
	URL string
	// Config is what model.yaml would say. Task and Classes come from it, since
	// the protocol has no word for them.
	Config collector.ModelConfig
	// Protect adds to the configuration what is private of the model by rule, once it is
	// known what features it has; nil adds nothing.
	Protect func(model string, info *engine.Info, cfg *collector.ModelConfig) error
	// Shut says why nothing is to be asked of the model, nor recorded, wrapping
	// collector.ErrNotReady; nil says that of nothing.
	Shut func(name string) error
	// Inputs and Outputs are used where the server's metadata has none.
	Inputs, Outputs []engine.Spec
	// FeatureNames name the columns of a single matrix input; by default f0, f1...
	FeatureNames []string
	// Missing says that the model takes NaN for a missing value.
	Missing bool
	// Timeout bounds the requests to the server that one prediction takes; 0 means 30
	// seconds.
	Timeout time.Duration
	// Retries is how often it is asked again where it could not be reached or answered
	// 429, 502, 503 or 504, at most 10. A model that keeps something of each request
	// must not be asked twice, so the default is 0.
	Retries int
	// Refresh is how long its metadata is believed; 0 means one minute.
	Refresh time.Duration
	// MaxResponse bounds an answer in bytes; 0 means 64 MiB.
	MaxResponse int64
	// Live is told of every version the server was found to have, before the first
	// request to it; nil means nobody. It must not ask the upstream for anything.
	Live func(*collector.ModelVersion)
	// Client sends the requests; nil means a client of its own. Redirects are
	// never followed.
	Client *http.Client
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Upstream is a model on another server. Its metadata is fetched when it is
// first needed and refreshed in the background while it is used; Close waits for
// that. It is safe for concurrent use.
type Upstream struct {
	cfg    UpstreamConfig
	base   string
	client *http.Client
	ctx    context.Context //nolint:containedctx // of the background refresh, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// mu guards everything declared below.
	mu       sync.Mutex
	current  *served
	fetched  time.Time
	fetching chan struct{} // closed when the fetch under way ends; nil without one
	failed   error         // why the last fetch failed
	retryAt  time.Time
	backoff  time.Duration
}

// served is one state of the upstream's metadata.
type served struct {
	version *collector.ModelVersion
	path    string // of the model on the server
	binary  bool   // it has the binary tensor extension
	pinned  bool   // the path names the version
}

// UpstreamError is an upstream's failure. Message may hold what the upstream
// said of a request, so it is sent to that request's client and not stored.
type UpstreamError struct {
	Upstream string
	// Status is the answer's status; Reason says what went wrong, in our words.
	Status          int
	Reason, Message string
	// again says that another attempt may do better, wait how long the server asks for
	// at least.
	again bool
	wait  time.Duration
	cause error
}

func (e *UpstreamError) Error() string {
	s := fmt.Sprintf("upstream %q: %s", e.Upstream, e.Reason)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

func (e *UpstreamError) Unwrap() error { return e.cause }

func (e *UpstreamError) failure() *failure {
	f := &failure{status: e.Status, message: e.Error(), record: fmt.Sprintf("upstream %q: %s", e.Upstream, e.Reason)}
	if e.Status == http.StatusServiceUnavailable {
		f.retryAfter = 1
	}
	return f
}

// NewUpstream checks the configuration; it does not ask the server yet.
func NewUpstream(cfg UpstreamConfig) (*Upstream, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("configure upstream: Name is not set")
	case cfg.Retries < 0 || cfg.Retries > 10:
		return nil, fmt.Errorf("configure upstream %q: retries must be a number from 0 to 10", cfg.Name)
	case cfg.Timeout < 0 || cfg.Refresh < 0 || cfg.MaxResponse < 0:
		return nil, fmt.Errorf("configure upstream %q: a limit is negative", cfg.Name)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("configure upstream %q: URL is not an http or https address", cfg.Name)
	}
	if cfg.Model == "" {
		cfg.Model = cfg.Name
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Timeout = or(cfg.Timeout, 30*time.Second)
	cfg.Refresh = or(cfg.Refresh, time.Minute)
	cfg.MaxResponse = or(cfg.MaxResponse, 64<<20)
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}
	if cfg.Client != nil {
		own := *cfg.Client
		client = &own
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	up := &Upstream{cfg: cfg, base: strings.TrimRight(cfg.URL, "/"), client: client}
	up.ctx, up.cancel = context.WithCancel(context.Background())
	return up, nil
}

// Close stops a refresh under way and waits for it. It may be called twice.
func (u *Upstream) Close() {
	u.cancel()
	u.wg.Wait()
}

// Version returns the upstream's model as it was last described, fetching the
// description if there is none yet. Without one the error wraps
// collector.ErrNotReady and says why.
func (u *Upstream) Version(ctx context.Context) (*collector.ModelVersion, error) {
	sv, err := u.served(ctx)
	if err == nil {
		err = u.shut() // of a version that is known by now
	}
	if err != nil {
		return nil, err
	}
	return sv.version, nil
}

func (u *Upstream) shut() error {
	if u.cfg.Shut == nil {
		return nil
	}
	return u.cfg.Shut(u.cfg.Name)
}

func (u *Upstream) served(ctx context.Context) (*served, error) {
	sv, fetching, failed := u.touch()
	if sv != nil {
		return sv, nil
	}
	if fetching != nil {
		select {
		case <-fetching:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		u.mu.Lock()
		sv, failed = u.current, u.failed
		u.mu.Unlock()
	}
	if sv == nil {
		return nil, fmt.Errorf("upstream %q: %w: %w", u.cfg.Name, collector.ErrNotReady, failed)
	}
	return sv, nil
}

// Touch has the description fetched in the background where that is due. It does
// not wait.
func (u *Upstream) Touch() {
	_, _, _ = u.touch() // why a fetch failed is logged where it does
}

// touch starts a fetch that is due and returns what is known now: the last
// description, the fetch under way (nil without one), and why the last one failed.
func (u *Upstream) touch() (sv *served, fetching <-chan struct{}, failed error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	due := u.fetching == nil && u.ctx.Err() == nil && now.After(u.retryAt) && (u.current == nil || now.Sub(u.fetched) > u.cfg.Refresh)
	if due {
		u.fetching = make(chan struct{})
		u.wg.Go(u.refresh)
	}
	return u.current, u.fetching, u.failed
}

// refresh fetches the metadata and remembers the outcome; whoever started it has
// set fetching.
func (u *Upstream) refresh() {
	ctx, cancel := context.WithTimeout(u.ctx, min(u.cfg.Timeout, 10*time.Second))
	defer cancel()
	sv, err := u.describe(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.fetching)
	u.fetching = nil
	if err != nil {
		u.backoff = min(max(2*u.backoff, 250*time.Millisecond), 30*time.Second)
		u.failed, u.retryAt = err, time.Now().Add(u.backoff)
		u.cfg.Logger.Warn("fetch upstream metadata failed", "upstream", u.cfg.Name, "error", err)
		return
	}
	if u.current != nil && u.current.version.Digest == sv.version.Digest {
		// The same model keeps its identity, so that nothing is rebuilt for it.
		sv.version = u.current.version
	} else if u.cfg.Live != nil {
		u.cfg.Live(sv.version)
	}
	u.current, u.fetched, u.failed, u.backoff, u.retryAt = sv, time.Now(), nil, 0, time.Time{}
}

// state is the upstream's line of the repository index, as far as is known now.
func (u *Upstream) state() collector.ModelState {
	st := collector.ModelState{Name: u.cfg.Name, Version: u.cfg.Version, State: "UNAVAILABLE"}
	sv, fetching, failed := u.touch()
	switch {
	case sv != nil:
		st.Version, st.State, st.Private = sv.version.Version, "READY", sv.version.Config.Policies()
	case failed != nil:
		st.Reason = failed.Error()
	case fetching != nil:
		st.State, st.Reason = "LOADING", "its description is being fetched"
	}
	if err := u.shut(); err != nil {
		st.State, st.Reason = "UNAVAILABLE", err.Error()
	}
	return st
}

// describe asks the server what it is and what the model is.
func (u *Upstream) describe(ctx context.Context) (*served, error) {
	sv := &served{path: u.base + "/v2/models/" + url.PathEscape(u.cfg.Model)}
	var server oip.ServerMetadata
	if err := u.get(ctx, u.base+"/v2", &server); err != nil {
		return nil, err
	}
	sv.binary = slices.Contains(server.Extensions, "binary_tensor_data")
	var meta oip.ModelMetadata
	if err := u.get(ctx, sv.path, &meta); err != nil {
		return nil, err
	}
	version := u.cfg.Version
	if version == "" && len(meta.Versions) > 0 {
		version = newest(meta.Versions)
	}
	if version != "" {
		// What is recorded must be what answered, so the version is always asked for.
		sv.path += "/versions/" + url.PathEscape(version)
		sv.pinned = true
		if err := u.get(ctx, sv.path, &meta); err != nil {
			return nil, err
		}
	} else {
		version = "1"
	}
	info, err := u.info(&meta)
	if err != nil {
		return nil, err
	}
	sv.version, err = u.version(version, &meta, info)
	return sv, err
}

// newest returns the largest version: integers by value after text.
func newest(versions []string) string {
	return slices.MaxFunc(versions, func(a, b string) int {
		x, errX := strconv.ParseUint(a, 10, 63)
		y, errY := strconv.ParseUint(b, 10, 63)
		switch {
		case errX == nil && errY == nil && x != y:
			if x < y {
				return -1
			}
			return 1
		case (errX == nil) != (errY == nil):
			if errX == nil {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
}

// info turns the server's description into the engine's.
func (u *Upstream) info(meta *oip.ModelMetadata) (*engine.Info, error) {
	in, err := oip.Specs(meta.Inputs)
	if err != nil {
		return nil, fmt.Errorf("its metadata: inputs: %w", err)
	}
	out, err := oip.Specs(meta.Outputs)
	if err != nil {
		return nil, fmt.Errorf("its metadata: outputs: %w", err)
	}
	if len(in) == 0 {
		in = u.cfg.Inputs
	}
	if len(out) == 0 {
		out = u.cfg.Outputs
	}
	if len(in) == 0 || len(out) == 0 {
		return nil, errors.New("its metadata names no inputs or no outputs: declare them in the configuration")
	}
	info := &engine.Info{
		Format: "upstream", Task: u.cfg.Config.Task, Classes: u.cfg.Config.Classes,
		Inputs: in, Outputs: out, Missing: u.cfg.Missing,
		Details: []engine.Detail{{Name: "platform", Value: clip(meta.Platform)}},
	}
	if info.Task == "" {
		info.Task = engine.TaskOther
	}
	info.Features, err = u.features(in)
	return info, err
}

// features names the columns of a tabular model; nil for any other.
func (u *Upstream) features(in []engine.Spec) ([]engine.Feature, error) {
	if len(in) == 1 && len(in[0].Shape) == 2 && in[0].Shape[1] > 0 && in[0].DType.IsFloat() {
		n := in[0].Shape[1]
		if len(u.cfg.FeatureNames) != 0 && len(u.cfg.FeatureNames) != n {
			return nil, fmt.Errorf("its input has %d columns, the configuration names %d features", n, len(u.cfg.FeatureNames))
		}
		if n > 1<<16 {
			return nil, nil
		}
		out := make([]engine.Feature, n)
		for i := range out {
			out[i].Name = "f" + strconv.Itoa(i)
			if len(u.cfg.FeatureNames) != 0 {
				out[i].Name = u.cfg.FeatureNames[i]
			}
		}
		return u.kinds(out), nil
	}
	if len(in) < 2 {
		return nil, nil
	}
	out := make([]engine.Feature, 0, len(in))
	for _, s := range in {
		column := len(s.Shape) == 1 || len(s.Shape) == 2 && s.Shape[1] == 1
		if !column || s.Shape[0] != -1 {
			return nil, nil
		}
		out = append(out, engine.Feature{Name: s.Name, Categorical: s.DType == engine.String})
	}
	return u.kinds(out), nil
}

// kinds puts what the configuration says over what the types suggest.
func (u *Upstream) kinds(features []engine.Feature) []engine.Feature {
	for i := range features {
		for _, f := range u.cfg.Config.Features {
			if f.Name == features[i].Name && f.Kind != "" {
				features[i].Categorical = f.Kind == "categorical"
			}
		}
	}
	return features
}

// get fetches a JSON description.
func (u *Upstream) get(ctx context.Context, address string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := u.client.Do(req)
	if err != nil {
		return u.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<22))
	if err != nil {
		return u.unreachable(err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for its metadata: status %d: %s", res.StatusCode, upstreamMessage(body))
	}
	if err := oip.Check(body); err != nil {
		return fmt.Errorf("its metadata: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("its metadata: %w", err)
	}
	return nil
}

// unreachable maps an error of the connection.
func (u *Upstream) unreachable(err error) error {
	e := &UpstreamError{Upstream: u.cfg.Name, Status: http.StatusServiceUnavailable, Reason: "cannot be reached", again: true, cause: err}
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Status, e.Reason, e.again = http.StatusGatewayTimeout, "did not answer in time", false
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Status, e.Reason = http.StatusBadGateway, "broke off its answer"
	}
	return e
}

// upstreamMessage returns what an error body says, bounded.
func upstreamMessage(body []byte) string {
	const limit = 512
	var said struct {
		Error  any `json:"error"`
		Detail any `json:"detail"`
	}
	text := ""
	if json.Unmarshal(body, &said) == nil {
		for _, v := range []any{said.Error, said.Detail} {
			if s, ok := v.(string); ok && text == "" {
				text = s
			}
		}
	}
	if text == "" {
		text = string(bytes.TrimSpace(body[:min(len(body), limit)]))
	}
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
