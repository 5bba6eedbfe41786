package explain

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/gradient"
)

// gradientMethods are the methods of differentiable networks, default first.
var gradientMethods = []string{IntegratedGradients, Saliency, InputXGradient}

// maxSteps bounds the quadrature points of one row.
const maxSteps = 1024

// network is a differentiable model ready to be explained.
type network struct {
	version *collector.ModelVersion
	session engine.Differentiator
	method  string
	options gradient.Options
	// baseline says in words what options.Baseline is.
	baseline string
	// elements names every attributed element of a row.
	elements []string
	// attributed are the indexes of the attributed inputs among the rows, in order.
	attributed []int
	// tokens is set where ids are attributed to, at the vectors that they look up.
	tokens *tokens
}

func (x *Explainer) gradients(ctx context.Context, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest, method string) ([]collector.Explanation, error) {
	if _, ok := v.Model.(tree.Holder); ok {
		return nil, refuse("%s needs a gradient, and a tree ensemble is constant almost everywhere: use tree_shap", method)
	}
	if req.Interactions {
		return nil, refuse("interactions are computed for tree_shap only")
	}
	if method != IntegratedGradients && (len(req.Baseline) > 0 || req.Steps > 0) {
		return nil, refuse("baseline and steps belong to integrated_gradients; %s has neither", method)
	}
	s, err := v.Model.NewSession(engine.SessionOptions{})
	if err != nil {
		return nil, fmt.Errorf("explain %q: open session: %w", v.Name, err)
	}
	d, ok := s.(engine.Differentiator)
	if !ok {
		return nil, refuse("%s needs a differentiable model, and %q is not: use tree_shap where it is trees, or a network in ONNX", method, v.Name)
	}
	n := &network{version: v, session: d, method: method}
	if err := n.prepare(ctx, x, rows, req); err != nil {
		return nil, err
	}
	count := rows[0].Tensor.Rows()
	points := 1
	if method == IntegratedGradients {
		points = n.options.MaxSteps
		if n.options.Steps > 0 {
			points = n.options.Steps
		}
	}
	width := len(n.elements)
	if n.tokens != nil {
		width = n.tokens.width
	}
	cost := int64(count) * int64(points) * int64(width) * 100
	if err := x.afford(method, cost, int64(count)*int64(len(n.elements)), collector.ExplainRequest{}); err != nil {
		return nil, err
	}
	targets, names, err := n.targets(ctx, rows, req.Output)
	if err != nil {
		return nil, err
	}
	answer := make([]collector.Explanation, 0, count)
	for r := range count {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("explain %q after %d of %d rows: %w", v.Name, r, count, err)
		}
		e, err := n.row(ctx, rows, r, targets[r], names[r])
		if err != nil {
			return nil, err
		}
		e.Certificate.Engine = x.config.Engine
		answer = append(answer, *e)
	}
	return answer, nil
}

// prepare fills what holds for all rows.
func (n *network) prepare(ctx context.Context, x *Explainer, rows engine.Values, req collector.ExplainRequest) error {
	if err := n.choose(ctx, rows, req); err != nil {
		return err
	}
	for _, i := range n.attributed {
		for j := range rows[i].Tensor.RowLen() {
			n.elements = append(n.elements, n.elementName(rows, i, j))
		}
	}
	n.options = gradient.Options{Steps: req.Steps, MaxSteps: maxSteps, Attributed: n.names(rows)}
	if slices.ContainsFunc(n.version.Info.Inputs, func(s engine.Spec) bool { return len(s.Shape) > 0 && s.Shape[0] == 1 }) {
		n.options.MaxElements = 1 // such a model takes one point at a time
	}
	if req.Steps > maxSteps {
		return refuse("%d steps: at most %d", req.Steps, maxSteps)
	}
	if b := req.Budget.Evaluations; b > 0 {
		// Doubling to n takes 2n gradients and the two ends.
		n.options.MaxSteps = max(1, min(maxSteps, (b-2)/2))
		if req.Steps > b {
			return refuse("%d steps are more than the budget of %d evaluations", req.Steps, b)
		}
		n.options.MaxSteps = max(n.options.MaxSteps, req.Steps)
	}
	if n.method != IntegratedGradients {
		return nil
	}
	if n.tokens != nil {
		return n.tokens.chooseBaseline(ctx, n, rows, req)
	}
	return n.chooseBaseline(x, rows, req)
}

// choose finds what is attributed to: the input that was asked for, else those of floats,
// else ids at the vectors that they look up.
func (n *network) choose(ctx context.Context, rows engine.Values, req collector.ExplainRequest) error {
	n.attributed = gradient.Inputs(rows)
	if req.Input == "" && len(n.attributed) > 0 {
		return nil
	}
	if req.Input != "" {
		at := slices.IndexFunc(rows, func(v engine.Named) bool { return v.Name == req.Input })
		if at < 0 {
			return refuse("no input %q: this model has %s", clip(req.Input), strings.Join(inputNames(n.version.Info), ", "))
		}
		if slices.Contains(n.attributed, at) {
			if len(n.version.Info.Features) > 0 {
				return refuse("input names a tensor; %q is tabular, all of its features of numbers are explained together", n.version.Name)
			}
			n.attributed = []int{at}
			return nil
		}
	}
	return n.chooseTokens(ctx, rows, req.Input)
}

// names are the tensors that are differentiated by.
func (n *network) names(rows engine.Values) []string {
	var list []string
	if n.tokens != nil {
		for i := range n.tokens.embeddings {
			list = append(list, n.tokens.embeddings[i].Name)
		}
		return list
	}
	for _, i := range n.attributed {
		list = append(list, rows[i].Name)
	}
	return list
}

func inputNames(info *engine.Info) []string {
	names := make([]string, len(info.Inputs))
	for i := range names {
		names[i] = info.Inputs[i].Name
	}
	return names
}

// elementName names element j of input i: a feature of a tabular model, the
// input itself where it has one element, else input[j].
func (n *network) elementName(rows engine.Values, i, j int) string {
	info := n.version.Info
	if len(info.Features) > 0 && len(rows) == 1 {
		return featureName(info, j)
	}
	if rows[i].Tensor.RowLen() == 1 {
		return rows[i].Name
	}
	return fmt.Sprintf("%s[%d]", rows[i].Name, j)
}

func (n *network) chooseBaseline(x *Explainer, rows engine.Values, req collector.ExplainRequest) error {
	if len(req.Baseline) > 0 {
		if len(req.Baseline) != len(n.elements) {
			return refuse("baseline of %d values, a row has %d", len(req.Baseline), len(n.elements))
		}
		if slices.ContainsFunc(req.Baseline, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
			return refuse("a baseline must be finite")
		}
		n.options.Baseline, n.baseline = req.Baseline, "given in the request"
		return nil
	}
	n.baseline = "zeros"
	if len(n.version.Info.Features) > 0 {
		bg, err := x.background(n.version, req, true)
		if err != nil {
			return err
		}
		if bg != nil {
			return n.center(bg)
		}
	} else if len(req.Background) > 0 {
		return refuse("model %q is not tabular: give a baseline row, not a background", n.version.Name)
	}
	if len(n.attributed) < len(rows) {
		n.baseline += " (other inputs are held as they are)"
	}
	return nil
}

// center makes the baseline of a background's medians and modes.
func (n *network) center(bg *background) error {
	base := make([]float64, 0, len(n.elements))
	for _, i := range n.attributed {
		if i >= len(bg.rows) {
			return refuse("the background lacks input %d", i)
		}
		t := bg.rows[i].Tensor
		data, ok := t.Float64s()
		if !ok {
			return refuse("background input %q is not numeric", bg.rows[i].Name)
		}
		w := t.RowLen()
		for j := range w {
			column := make([]float64, 0, t.Rows())
			for r := range t.Rows() {
				if v := data[r*w+j]; !math.IsNaN(v) {
					column = append(column, v)
				}
			}
			base = append(base, middle(column, n.categorical(len(base))))
		}
	}
	if len(base) != len(n.elements) {
		return refuse("the background has %d values a row, the model %d", len(base), len(n.elements))
	}
	n.options.Baseline = base
	n.baseline = fmt.Sprintf("medians (modes of categories) of the %d background rows %s", bg.rows[0].Tensor.Rows(), bg.digest)
	return nil
}

func (n *network) categorical(i int) bool {
	return i < len(n.version.Info.Features) && n.version.Info.Features[i].Categorical
}

// middle returns the median of a column, as numpy does the mean of the two where
// their number is even, or the smallest of its most frequent values where mode is
// asked for; 0 for an empty column.
func middle(column []float64, mode bool) float64 {
	if len(column) == 0 {
		return 0
	}
	slices.Sort(column)
	if !mode {
		low, high := column[(len(column)-1)/2], column[len(column)/2]
		return low + (high-low)/2
	}
	best, most := column[0], 0
	for i := 0; i < len(column); {
		j := i
		for j < len(column) && column[j] == column[i] {
			j++
		}
		if j-i > most {
			best, most = column[i], j-i
		}
		i = j
	}
	return best
}

// targets returns for each row the output element explained and its name.
func (n *network) targets(ctx context.Context, rows engine.Values, name string) ([]engine.Target, []string, error) {
	info := n.version.Info
	count := rows[0].Tensor.Rows()
	targets, names := make([]engine.Target, count), make([]string, count)
	base, index, indexed := splitIndex(name)
	class := slices.Index(info.Classes, name)
	spec, err := n.output(name, base, indexed, class)
	if err != nil {
		return nil, nil, err
	}
	out, err := n.session.Run(ctx, rows, []string{spec.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("explain %q: %w", n.version.Name, err)
	}
	if len(out) != 1 || out[0].Tensor.Rows() != count {
		return nil, nil, refuse("output %q does not have one row a prediction: name another output", spec.Name)
	}
	data, _ := out[0].Tensor.Float64s()
	width := out[0].Tensor.RowLen()
	if width == 0 || len(data) != width*count {
		return nil, nil, refuse("output %q has no numbers", spec.Name)
	}
	if class >= 0 && !indexed && name != spec.Name {
		index, indexed = class, true
		if width == 1 && len(info.Classes) == 2 {
			return nil, nil, refuse("output %q has one score for both classes: ask for %q", spec.Name, spec.Name)
		}
	}
	if indexed && index >= width {
		return nil, nil, refuse("no element %d in output %q: it has %d", index, spec.Name, width)
	}
	for r := range targets {
		at := index
		if !indexed {
			at = largest(data[r*width : (r+1)*width])
		}
		targets[r], names[r] = engine.Target{Name: spec.Name, Index: at}, spec.Name
		if width > 1 {
			names[r] = className(info, spec.Name, at)
		}
	}
	return targets, names, nil
}

// output finds the output that a name means: by name, by name[k], by class, or
// the model's score (its last float output: classifiers list the label first).
func (n *network) output(name, base string, indexed bool, class int) (*engine.Spec, error) {
	info := n.version.Info
	var score *engine.Spec
	var known []string
	for i := range info.Outputs {
		s := &info.Outputs[i]
		known = append(known, s.Name)
		if s.Name == name || indexed && s.Name == base {
			if !s.DType.IsFloat() {
				return nil, refuse("output %q holds no scores (%s)", s.Name, s.DType)
			}
			return s, nil
		}
		if s.DType.IsFloat() && (score == nil || strings.Contains(strings.ToLower(s.Name), "prob")) {
			score = s
		}
	}
	if score == nil {
		return nil, refuse("model %q has no float output to differentiate", n.version.Name)
	}
	if name == "" || name == tree.OutputName || indexed && base == tree.OutputName || class >= 0 {
		return score, nil
	}
	return nil, refuse("no output %q: this model has %s", clip(name), strings.Join(known, ", "))
}

func largest(v []float64) int {
	best := 0
	for i := range v {
		if v[i] > v[best] {
			best = i
		}
	}
	return best
}

// row explains row r.
func (n *network) row(ctx context.Context, rows engine.Values, r int, out engine.Target, name string) (*collector.Explanation, error) {
	one, err := takeRow(rows, r)
	if err != nil {
		return nil, fmt.Errorf("explain row %d of %q: %w", r, n.version.Name, err)
	}
	target := n.session.Logit(out)
	space := "margin"
	if target == out {
		space = "identity"
	}
	given, options := one, n.options
	if n.tokens != nil {
		if given, options, err = n.tokens.row(one, r, options); err != nil {
			return nil, fmt.Errorf("explain row %d of %q: %w", r, n.version.Name, err)
		}
	}
	var results []gradient.Result
	switch n.method {
	case Saliency:
		results, err = gradient.Saliency(ctx, n.session, given, target, options)
	case InputXGradient:
		results, err = gradient.InputXGradient(ctx, n.session, given, target, options)
	default:
		results, err = gradient.IntegratedGradients(ctx, n.session, given, target, options)
	}
	if errors.Is(err, gradient.ErrNotFinite) {
		return nil, refuse("%s of row %d of %q: %v", n.method, r, n.version.Name, err)
	}
	var broken *engine.NotDifferentiableError
	if errors.As(err, &broken) {
		return nil, fmt.Errorf("%w: %w", refuse("%s cannot explain %q, and no method here only calls the model", n.method, n.version.Name), err)
	}
	if err != nil {
		return nil, fmt.Errorf("explain row %d of %q: %w", r, n.version.Name, err)
	}
	res := &results[0]
	phi := res.Phi
	if n.tokens != nil {
		phi = n.tokens.sum(phi, r, len(n.elements))
	}
	e := &collector.Explanation{
		Model: n.version.Name, Version: n.version.Version, Method: n.method, Output: name, Space: space,
		Base: res.Base, Prediction: res.Value, Attributions: make([]collector.Attribution, len(phi)),
		Certificate: collector.Certificate{
			Method: n.method, Space: space, ModelDigest: n.version.Digest, Points: res.Points, Baseline: n.baseline,
			ErrorEstimate: max(math.Abs(res.Delta), n.errorOf(res, r)),
		},
	}
	n.describe(e, target)
	e.Certificate.Warning = warning(res)
	at := 0
	for _, i := range n.attributed {
		data, _ := one[i].Tensor.Float64s()
		for _, v := range data {
			e.Attributions[at] = collector.Attribution{Feature: n.elements[at], Value: n.shown(at, v), Phi: positive(phi[at])}
			at++
		}
	}
	complete(e)
	if err := finite(e); err != nil {
		return nil, fmt.Errorf("row %d of %q: %w", r, n.version.Name, err)
	}
	return e, nil
}

// errorOf is by how much one of the attributions may be off for the points that were taken.
func (n *network) errorOf(res *gradient.Result, r int) float64 {
	list := res.Errors
	if n.tokens != nil && len(list) > 0 { // those of a vector's elements are as good as independent
		squares := make([]float64, len(list))
		for i, v := range list {
			squares[i] = v * v
		}
		return math.Sqrt(largestOf(n.tokens.sum(squares, r, len(n.elements))))
	}
	return largestOf(list)
}

func largestOf(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return slices.Max(v)
}

// shown is a value as an answer shows it; an id is itself, whatever its feature's place.
func (n *network) shown(i int, v float64) any {
	if n.tokens != nil {
		return v
	}
	return shown(n.version.Info, i, v)
}

// describe says in words what base and numbers mean.
func (n *network) describe(e *collector.Explanation, target engine.Target) {
	c := &e.Certificate
	at := fmt.Sprintf("element %d of %q", target.Index, target.Name)
	switch n.method {
	case Saliency:
		c.BaseDefinition = "none: saliency is the absolute gradient of " + at + ", and does not add up to the prediction"
		c.ErrorEstimate = 0
	case InputXGradient:
		c.BaseDefinition = "value of " + at + " where all inputs are zero; the attributions add up only where the model is linear"
		c.Baseline = "zeros"
	default:
		c.BaseDefinition = "value of " + at + " at the baseline"
	}
	if n.tokens != nil {
		n.tokens.describe(n.method, c)
	}
}

// warning says of a row whose integrated gradients do not add up why, and what else there is.
func warning(r *gradient.Result) string {
	m := r.Miss
	if m == nil {
		return ""
	}
	s := fmt.Sprintf("the attributions miss %.3g of the difference of %.3g to the baseline (%.3g %%) with %d points: ",
		math.Abs(r.Delta), r.Value-r.Base, 100*math.Abs(r.Delta/(r.Value-r.Base)), m.Tried)
	if most, delta := largestOf(r.Errors), math.Abs(r.Delta); m.Jumps == 0 && most > delta {
		s = fmt.Sprintf("the attributions add up within %.3g, but a single one may be off by %.3g with %d points: ", delta, most, r.Points)
	} else if r.Value == r.Base {
		s = fmt.Sprintf("the attributions add up to %.3g with %d points, and there is no difference to the baseline: ", r.Delta, m.Tried)
	}
	if m.Jumps > 0 {
		return s + fmt.Sprintf("the value jumps on the way from the baseline to the row (%s, the largest by %.3g at %.3g of the way), and a jump has no gradient. "+
			"Use a baseline on the row's side of it, or a value from before it as the output (a score where this is a decision or is rounded)",
			counted(m.Jumps, "jump"), m.Jump, m.At)
	}
	if m.Tried < maxSteps {
		return s + fmt.Sprintf("the gradient changes faster than these points follow. Use more steps or a larger budget (at most %d points), or leave both out", maxSteps)
	}
	return s + "the gradient changes faster than these points follow, or the network's own rounding is more than this. Use a baseline nearer to the row"
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// takeRow returns row r of every input.
func takeRow(rows engine.Values, r int) (engine.Values, error) {
	if rows[0].Tensor.Rows() == 1 {
		return rows, nil
	}
	return gradient.Row(rows, r)
}
