// Package explain answers why a model said what it said: it chooses the method
// and the output, checks that the model and the privacy of its features allow
// the answer, computes it, and vouches for it with a certificate.
//
// It owns the choice, the refusals, the budget and the prepared state per model
// version. The mathematics are in treeshap and gradient, the plots in
// dashboards/plots. It stores nothing and reads no request.
//
// Invariants: a method without a basis is refused with the reason (the error
// wraps collector.ErrRefused), never approximated in silence; the same row of
// the same version gives the same bits; no value or attribution of a dropped
// feature leaves this package.
package explain

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// The methods that are built.
const (
	TreeSHAP            = "tree_shap"
	Saliency            = "saliency"
	InputXGradient      = "input_x_gradient"
	IntegratedGradients = "integrated_gradients"
)

// Built lists the methods that can be asked for. Which of them explain a version
// Methods tells.
func Built() []string { return append([]string{TreeSHAP}, gradientMethods...) }

// planned are methods that have a name but are not built yet.
var planned = []string{
	"smooth_grad", "expected_gradients", "deep_lift", "grad_cam", "exact", "permutation",
	"kernel", "leverage", "linear", "ablation", "lime",
}

// Config bounds an Explainer. The zero value is the default.
type Config struct {
	// MaxRows of one request; 0 means 10,000.
	MaxRows int
	// MaxCost bounds one request's work in elementary steps (about a
	// nanosecond each); 0 means 60e9.
	MaxCost int64
	// Deadline of a request that names none, and the longest one may name; 0
	// means 60 seconds.
	Deadline time.Duration
	// MaxBackgroundRows bounds a background; 0 means 1,000,000 rows of a
	// version's own, and requests may bring a thousandth of it.
	MaxBackgroundRows int
	// CacheBytes bounds the prepared ensembles and backgrounds kept; 0 means
	// 512 MiB. One that alone is larger is prepared for each request.
	CacheBytes int64
	// MaxValues bounds the numbers of one answer (rows x outputs x features,
	// squared with interactions); 0 means 16 Mi.
	MaxValues int64
	// Engine is the version named in certificates; empty means this build's.
	Engine string
}

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.MaxRows, 10_000)
	setDefault(&c.MaxCost, 60e9)
	setDefault(&c.Deadline, time.Minute)
	setDefault(&c.MaxBackgroundRows, 1_000_000)
	setDefault(&c.CacheBytes, 512<<20)
	setDefault(&c.MaxValues, 16<<20)
	if c.Engine == "" {
		c.Engine = buildVersion()
	}
	if c.MaxRows < 0 || c.MaxCost < 0 || c.Deadline < 0 || c.MaxBackgroundRows < 0 || c.CacheBytes < 0 || c.MaxValues < 0 {
		return c, errors.New("limits of explanations must not be negative")
	}
	return c, nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "pellucid " + info.Main.Version
	}
	return "pellucid (devel)"
}

// Explainer explains predictions. It is safe for concurrent use.
type Explainer struct {
	config Config
	cache  *cache
}

// New returns an Explainer.
func New(c Config) (*Explainer, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure explanations: %w", err)
	}
	return &Explainer{config: c, cache: newCache(c.CacheBytes)}, nil
}

// standard is the Explainer of the package's own Explain. The zero Config is
// always valid.
var standard = func() *Explainer {
	c, _ := Config{}.withDefaults()
	return &Explainer{config: c, cache: newCache(c.CacheBytes)}
}()

// Explain explains rows with an Explainer of default limits that the process
// shares; see Explainer.Explain.
func Explain(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
	return standard.Explain(ctx, v, rows, req)
}

// Explain explains each row of rows, which are canonical inputs of v: one
// explanation for every row and output, row by row. An empty method is the
// model's own: tree_shap for trees, integrated_gradients for networks. What
// cannot be vouched for is refused; the error then wraps collector.ErrRefused.
func (x *Explainer) Explain(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
	if err := x.admit(v, rows, req); err != nil {
		return nil, err
	}
	method := req.Method
	if method == "" {
		var err error
		if method, err = defaultMethod(v); err != nil {
			return nil, err
		}
	}
	deadline := x.config.Deadline
	if d := time.Duration(req.Budget.DeadlineMS) * time.Millisecond; d > 0 {
		deadline = min(deadline, d)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	switch {
	case method == TreeSHAP:
		return x.trees(ctx, v, rows, req)
	case slices.Contains(gradientMethods, method):
		return x.gradients(ctx, v, rows, req, method)
	case slices.Contains(planned, method):
		return nil, refuse("method %q is known but not built yet; this model has: %s", method, strings.Join(Methods(v), ", "))
	}
	return nil, refuse("unknown method %q; this model has: %s", clip(method), strings.Join(Methods(v), ", "))
}

// Methods lists the methods that explain v, its default first.
func Methods(v *collector.ModelVersion) []string {
	if v == nil || v.Model == nil || private(v) != "" {
		return nil
	}
	if h, ok := v.Model.(tree.Holder); ok {
		if e, _ := h.Trees(); e != nil && (e.HasCovers() || hasBackground(v)) {
			return []string{TreeSHAP}
		}
		return nil
	}
	if differentiates(v.Model) {
		return slices.Clone(gradientMethods)
	}
	return nil
}

// defaultMethod returns the method of a version's kind, or why there is none.
func defaultMethod(v *collector.ModelVersion) (string, error) {
	if _, ok := v.Model.(tree.Holder); ok {
		return TreeSHAP, nil
	}
	if differentiates(v.Model) {
		return IntegratedGradients, nil
	}
	return "", refuse("model %q is neither one tree ensemble with constant leaves nor a differentiable network, and no method here only calls the model: explain the trees or the network within it as a model of its own", v.Name)
}

func differentiates(m engine.Model) bool {
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return false
	}
	_, ok := s.(engine.Differentiator)
	return ok
}

// admit checks what holds for every method.
func (x *Explainer) admit(v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) error {
	if v == nil || v.Info == nil {
		return errors.New("explain: no model version")
	}
	if v.Model == nil {
		return refuse("model %q is not computed here (an upstream answers, or its predictions were made elsewhere); no method here only calls a model: load its file, with which each recorded prediction can be explained", v.Name)
	}
	if name := private(v); name != "" {
		return refuse("feature %q is private: no value and no attribution of it may leave the server", name)
	}
	if len(rows) != len(v.Info.Inputs) || len(rows) == 0 {
		return fmt.Errorf("explain %q: %d inputs, the model has %d", v.Name, len(rows), len(v.Info.Inputs))
	}
	if n := rows[0].Tensor.Rows(); n == 0 || n > x.config.MaxRows {
		return refuse("%d rows in one request: between 1 and %d", n, x.config.MaxRows)
	}
	if req.Budget.Evaluations < 0 || req.Budget.DeadlineMS < 0 || req.Steps < 0 {
		return refuse("budget and steps must not be negative")
	}
	return nil
}

// private returns the name of a feature whose part may not be told, or "".
func private(v *collector.ModelVersion) string {
	if v.Schema != nil {
		for i := range v.Schema.Features {
			if v.Schema.Features[i].Private != collector.PrivacyNone {
				return v.Schema.Features[i].Name
			}
		}
	}
	return v.Config.PrivateFeature()
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("explain: %w: %s", collector.ErrRefused, fmt.Sprintf(format, args...))
}

// clip bounds how much of a caller's text an error repeats.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// afford refuses work beyond the limit.
func (x *Explainer) afford(what string, cost, values int64, req collector.ExplainRequest) error {
	limit := x.config.MaxCost
	if cost > limit || cost < 0 {
		return refuse("%s takes about %d steps, the limit is %d: ask for fewer rows, or one output", what, cost, limit)
	}
	if values > x.config.MaxValues || values < 0 {
		return refuse("%s gives %d numbers, the limit is %d: ask for fewer rows, or one output", what, values, x.config.MaxValues)
	}
	if n := int64(req.Budget.Evaluations); n > 0 && cost > n*1000 && what != TreeSHAP {
		return refuse("%s needs more evaluations than the budget of %d", what, n)
	}
	return nil
}
