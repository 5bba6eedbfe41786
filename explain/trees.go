package explain

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/treeshap"
)

// The modes of tree_shap.
const (
	modePath       = "path_dependent"
	modeBackground = "background"
)

// chunkCost is how much work is done between two looks at the deadline.
const chunkCost = 50e6

// treeExplainer is what both modes of tree_shap offer.
type treeExplainer interface {
	Explain(rows, phi []float64) error
	Interactions(rows, dst []float64) error
	Base() []float64
	Cost() int64
	ErrorBound() float64
}

// forest is a tree model ready to be explained.
type forest struct {
	version  *collector.ModelVersion
	ensemble *tree.Ensemble
	output   string
	// prepared names the value the trees read, features the feature of each of its
	// columns; "" and nil where that is the input itself.
	prepared string
	features []int32
	// shares are the features of each column where one is made of several; else nil.
	shares [][]int32
	treeExplainer
	certificate collector.Certificate
}

// state keys of the cache: one per version and kind of state.
type pathKey struct{ model any }

type backgroundKey struct {
	model  any
	digest string
}

// identity is what prepared state belongs to: the version's digest, or, for a
// model that has none (offline), the model itself.
func identity(v *collector.ModelVersion) any {
	if v.Digest != "" {
		return v.Digest
	}
	return v.Model
}

func (x *Explainer) trees(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) ([]collector.Explanation, error) {
	if req.Input != "" {
		return nil, refuse("input belongs to a gradient method: tree_shap explains all features")
	}
	if len(req.Baseline) > 0 || req.Steps > 0 {
		return nil, refuse("baseline and steps belong to integrated_gradients; tree_shap takes a background")
	}
	f, err := x.forest(ctx, v, req)
	if err != nil {
		return nil, err
	}
	outs, err := f.outputs(req.Output)
	if err != nil {
		return nil, err
	}
	data, err := f.columns(ctx, rows)
	if err != nil {
		return nil, fmt.Errorf("explain %q: %w", v.Name, err)
	}
	m, k := f.ensemble.Features, f.ensemble.Outputs
	n := len(data) / m
	width := int64(m)
	cost := f.Cost()
	if req.Interactions && f.features != nil {
		return nil, refuse("interactions are computed of trees that read the input itself; %q prepares its columns", v.Name)
	}
	if req.Interactions {
		width *= int64(m) + 1
		cost *= 16
	}
	if err := x.afford(TreeSHAP, int64(n)*cost, int64(n)*int64(k)*width, req); err != nil {
		return nil, err
	}
	margins, err := f.margins(ctx, rows, data)
	if err != nil {
		return nil, fmt.Errorf("explain %q: %w", v.Name, err)
	}
	show := shower(v.Info, rows)
	answer := make([]collector.Explanation, 0, n*len(outs))
	step := max(1, int(chunkCost/max(1, cost)))
	phi := make([]float64, min(step, n)*k*m)
	var pairs []float64
	if req.Interactions {
		pairs = make([]float64, min(step, n)*k*m*m)
	}
	for at := 0; at < n; at += step {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("explain %q after %d of %d rows: %w", v.Name, at, n, err)
		}
		c := min(step, n-at)
		if err := f.Explain(data[at*m:(at+c)*m], phi[:c*k*m]); err != nil {
			return nil, fmt.Errorf("explain %q: %w", v.Name, err)
		}
		if req.Interactions {
			if err := f.treeExplainer.Interactions(data[at*m:(at+c)*m], pairs[:c*k*m*m]); err != nil {
				return nil, fmt.Errorf("explain %q: %w", v.Name, err)
			}
		}
		for r := range c {
			for _, o := range outs {
				e, err := f.explanation(func(i int) any { return show(at+r, i) }, phi[(r*k+o.margin)*m:(r*k+o.margin+1)*m], margins[(at+r)*k+o.margin], o)
				if err != nil {
					return nil, fmt.Errorf("explain row %d of %q: %w", at+r, v.Name, err)
				}
				if req.Interactions {
					e.Interactions = interactions(v.Info, pairs[(r*k+o.margin)*m*m:(r*k+o.margin+1)*m*m], m, o.sign)
				}
				e.Certificate.Engine = x.config.Engine
				answer = append(answer, e)
			}
		}
	}
	return answer, nil
}

// forest finds the prepared state that v and req ask for, or refuses.
func (x *Explainer) forest(ctx context.Context, v *collector.ModelVersion, req collector.ExplainRequest) (*forest, error) {
	h, ok := v.Model.(tree.Holder)
	if !ok {
		return nil, refuse("tree_shap needs a model that is one tree ensemble with constant leaves; %q is not", v.Name)
	}
	f := &forest{version: v}
	f.ensemble, f.output = h.Trees()
	if f.ensemble == nil {
		return nil, refuse("tree_shap needs a model that is one tree ensemble with constant leaves; %q is not", v.Name)
	}
	if p, ok := v.Model.(tree.Preparer); ok {
		f.prepared, f.features = p.Columns()
	}
	if s, ok := v.Model.(tree.Sharer); ok {
		f.shares = s.Shares()
	}
	f.certificate = collector.Certificate{Method: TreeSHAP, Space: f.space(), ModelDigest: v.Digest, Exact: true}
	if f.shares != nil {
		f.certificate.Players = "a combination of features is one player, whose part they share equally"
	}
	bg, err := x.background(v, req, !f.ensemble.HasCovers())
	if err != nil {
		return nil, err
	}
	if bg != nil {
		return f, x.against(ctx, f, bg)
	}
	p, err := load(x.cache, pathKey{identity(v)}, func() (*treeshap.Path, error) { return treeshap.Prepare(f.ensemble) })
	if errors.Is(err, treeshap.ErrNoCovers) {
		return nil, refuse("%v: name a background in the request or in model.yaml", err)
	}
	if errors.Is(err, engine.ErrCorrupt) {
		return nil, refuse("%v: a background does without the covers", err)
	}
	if err != nil {
		return nil, fmt.Errorf("explain %q: %w", v.Name, err)
	}
	f.treeExplainer = p
	f.certificate.Mode, f.certificate.Cover, f.certificate.Points = modePath, string(f.ensemble.Covers), p.Points()
	f.certificate.BaseDefinition = fmt.Sprintf("expected %s over the training rows, weighted by the trees' covers (%s)", f.space(), f.ensemble.Covers)
	return f, nil
}

func (x *Explainer) against(ctx context.Context, f *forest, bg *background) error {
	b, err := load(x.cache, backgroundKey{identity(f.version), bg.digest}, func() (*treeshap.Background, error) {
		data, err := f.columns(ctx, bg.rows)
		if err != nil {
			return nil, err
		}
		return treeshap.NewBackground(f.ensemble, data, bg.digest)
	})
	if err != nil {
		return fmt.Errorf("prepare background of %q: %w", f.version.Name, err)
	}
	f.treeExplainer = b
	f.certificate.Mode = modeBackground
	f.certificate.BackgroundDigest, f.certificate.BackgroundRows = b.Digest(), b.Rows()
	f.certificate.BaseDefinition = fmt.Sprintf("mean %s over the %d rows of the background", f.space(), b.Rows())
	return nil
}

// columns returns the rows as the trees read them: as they are, or as the model
// prepares them. Shapley values of the columns made of one feature, taken together
// as one player, are those of the feature.
func (f *forest) columns(ctx context.Context, rows engine.Values) ([]float64, error) {
	if f.prepared == "" {
		return matrix(rows, f.ensemble.Features)
	}
	s, err := f.version.Model.NewSession(engine.SessionOptions{})
	if err != nil {
		return nil, err
	}
	out, err := s.Run(ctx, rows, []string{f.prepared})
	if err != nil {
		return nil, err
	}
	return matrix(out, f.ensemble.Features)
}

// space names what the trees add up to.
func (f *forest) space() string {
	if f.ensemble.Link == tree.LinkIdentity && f.version.Info.Format == "onnx" {
		if t := f.version.Info.Task; t == engine.TaskBinary || t == engine.TaskMulticlass {
			return "probability"
		}
		return "identity"
	}
	return "margin"
}

// margins returns the model's own margins of rows.
func (f *forest) margins(ctx context.Context, rows engine.Values, data []float64) ([]float64, error) {
	n := len(data) / f.ensemble.Features
	for _, s := range f.version.Info.Extra {
		if s.Name != tree.MarginName {
			continue
		}
		session, err := f.version.Model.NewSession(engine.SessionOptions{})
		if err != nil {
			return nil, err
		}
		out, err := session.Run(ctx, rows, []string{tree.MarginName})
		if err != nil {
			return nil, err
		}
		if len(out) == 1 {
			if v, ok := out[0].Tensor.Float64s(); ok && len(v) == n*f.ensemble.Outputs {
				return v, nil
			}
		}
		return nil, fmt.Errorf("the model's margins do not have %d values a row", f.ensemble.Outputs)
	}
	return evaluate(ctx, f.ensemble, data, n)
}

// evaluate computes the margins of an ensemble inside another kind of model.
func evaluate(ctx context.Context, e *tree.Ensemble, data []float64, n int) ([]float64, error) {
	v := tree.NewEvaluator(e)
	if !e.Float32 {
		out := make([]float64, n*e.Outputs)
		return out, tree.Margins(ctx, v, data, n, out, 1)
	}
	narrow, out := make([]float32, len(data)), make([]float32, n*e.Outputs)
	for i, d := range data {
		narrow[i] = float32(d)
	}
	if err := tree.Margins(ctx, v, narrow, n, out, 1); err != nil {
		return nil, err
	}
	wide := make([]float64, len(out))
	for i, d := range out {
		wide[i] = float64(d)
	}
	return wide, nil
}

// explanation builds the answer for one row and output, and checks it.
func (f *forest) explanation(value func(i int) any, phi []float64, margin float64, o output) (collector.Explanation, error) {
	phi = f.byFeature(phi)
	e := collector.Explanation{
		Model: f.version.Name, Version: f.version.Version, Method: TreeSHAP, Output: o.name, Space: f.space(),
		Base: o.sign*f.Base()[o.margin] + o.shift, Prediction: o.sign*margin + o.shift,
		Attributions: make([]collector.Attribution, len(phi)), Certificate: f.certificate,
	}
	for i, p := range phi {
		e.Attributions[i] = collector.Attribution{Feature: featureName(f.version.Info, i), Value: value(i), Phi: positive(o.sign * p)}
	}
	e.Certificate.ErrorEstimate = f.ErrorBound()
	complete(&e)
	if err := finite(&e); err != nil {
		return e, err
	}
	// Float32 margins differ from ours by their own rounding; more than that
	// means that the explanation is of something else than the prediction.
	if limit := f.slack(); e.Certificate.Residual > limit {
		return e, refuse("base and attributions miss the prediction by %g, and rounding explains %g at most", e.Certificate.Residual, limit)
	}
	return e, nil
}

// byFeature adds up what the columns of one feature are given, and divides what
// those of several are.
func (f *forest) byFeature(phi []float64) []float64 {
	if f.features == nil {
		return phi
	}
	out := make([]float64, len(f.version.Info.Features))
	for i, v := range phi {
		if f.shares == nil {
			out[f.features[i]] += v
			continue
		}
		for _, to := range f.shares[i] {
			out[to] += v / float64(len(f.shares[i]))
		}
	}
	return out
}

// shower returns what shows feature i of row r of canonical inputs.
func shower(info *engine.Info, rows engine.Values) func(r, i int) any {
	numbers := make([][]float64, len(rows))
	for k := range rows {
		numbers[k], _ = rows[k].Tensor.Float64s()
	}
	return func(r, i int) any {
		k, at := 0, r*rows[0].Tensor.RowLen()+i
		if len(rows) > 1 {
			k, at = i, r*rows[i].Tensor.RowLen()
		}
		if s := engine.Data[string](rows[k].Tensor); s != nil {
			if s[at] == "" {
				return nil
			}
			return s[at]
		}
		return shown(info, i, numbers[k][at])
	}
}

// positive turns -0 into 0.
func positive(v float64) float64 { return v + 0 }

// slack is the largest residual that rounding can leave.
func (f *forest) slack() float64 {
	eps := 1.0 / (1 << 52)
	if f.ensemble.Float32 {
		eps = 1.0 / (1 << 23)
	}
	scale := 0.0
	for _, b := range f.Base() {
		scale = max(scale, math.Abs(b))
	}
	// The error bound is eps times the sum of the trees' largest leaves times
	// the number of operations, which serves as the scale here.
	return eps*float64(len(f.ensemble.Trees)+8)*scale + f.ErrorBound()*eps*(1<<52) + 1e-12
}

// complete fills the certificate's residual from the explanation's numbers.
func complete(e *collector.Explanation) {
	sum, largest := e.Base, 0.0
	for i := range e.Attributions {
		sum += e.Attributions[i].Phi
		largest = max(largest, math.Abs(e.Attributions[i].Phi))
	}
	c := &e.Certificate
	c.Residual = math.Abs(sum - e.Prediction)
	if scale := max(math.Abs(e.Prediction-e.Base), largest); scale > 0 {
		c.ResidualRelative = c.Residual / scale
	}
}

// finite refuses an explanation that is not made of numbers: of a prediction that
// is infinite or none there is nothing to add up.
func finite(e *collector.Explanation) error {
	no := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	switch {
	case no(e.Prediction):
		return refuse("the prediction is not a finite number")
	case no(e.Base):
		return refuse("the base is not a finite number")
	case no(e.Certificate.Residual), no(e.Certificate.ErrorEstimate), no(e.Certificate.ResidualRelative):
		return refuse("base and attributions do not add up to a finite number")
	}
	for i := range e.Attributions {
		if no(e.Attributions[i].Phi) {
			return refuse("the attribution of %q is not a finite number", e.Attributions[i].Feature)
		}
	}
	return nil
}

// interactions lists the pairs that have any, in the order of their features.
func interactions(info *engine.Info, m []float64, width int, sign float64) []collector.Interaction {
	list := []collector.Interaction{}
	for i := range width {
		for j := i + 1; j < width; j++ {
			if v := m[i*width+j] + m[j*width+i]; v != 0 {
				list = append(list, collector.Interaction{A: featureName(info, i), B: featureName(info, j), Phi: sign * v})
			}
		}
	}
	return list
}

// matrix returns canonical inputs as rows of features: one matrix, or one
// column an input.
func matrix(rows engine.Values, features int) ([]float64, error) {
	if len(rows) == 1 {
		data, ok := rows[0].Tensor.Float64s()
		if !ok || len(data) != rows[0].Tensor.Rows()*features {
			return nil, fmt.Errorf("input %q of shape %v is no matrix of %d numbers a row", rows[0].Name, rows[0].Tensor.Shape(), features)
		}
		return data, nil
	}
	if len(rows) != features {
		return nil, fmt.Errorf("%d inputs for %d features", len(rows), features)
	}
	n := rows[0].Tensor.Rows()
	data := make([]float64, n*features)
	for j := range rows {
		column, ok := rows[j].Tensor.Float64s()
		if !ok || len(column) != n {
			return nil, fmt.Errorf("input %q of shape %v is no column of %d numbers", rows[j].Name, rows[j].Tensor.Shape(), n)
		}
		for i, v := range column {
			data[i*features+j] = v
		}
	}
	return data, nil
}
