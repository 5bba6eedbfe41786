package xgboost

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// linearModel is a gblinear booster: margin = base + bias + sum of weight times
// value over the values that are present. XGBoost adds the first output's base
// to every output, even where the file has one for each; so does this.
type linearModel struct {
	features, outputs int
	// weights of feature i start at i*outputs; the biases come last.
	weights []float32
	base    float32
	link    tree.Link
	info    *engine.Info
}

func (l *learner) linear(booster object) (engine.Model, error) {
	model, err := booster.object("model")
	if err != nil {
		return nil, err
	}
	weights, err := model.numbers("weights")
	if err != nil {
		return nil, err
	}
	if weights.Len() != (l.features+1)*l.outputs {
		return nil, corruptf("%d weights for %d features and %d outputs", weights.Len(), l.features, l.outputs)
	}
	m := &linearModel{
		features: l.features, outputs: l.outputs, base: l.base[0],
		link: l.objective.link, info: l.info,
		weights: make([]float32, weights.Len()),
	}
	for i := range m.weights {
		m.weights[i] = float32(weights.At(i))
	}
	tree.SetSpecs(l.info, engine.Float32, l.features, l.outputs, m.link)
	return m, nil
}

func (m *linearModel) Info() *engine.Info { return m.info }

func (m *linearModel) NewSession(opt engine.SessionOptions) (engine.Session, error) {
	return &linearSession{Session: tree.NewSession(m.info, m.outputs, m.link, 1, opt, m), model: m}, nil
}

// linearSession is differentiable: weight times value is what XGBoost itself
// answers as the contribution of a value to a margin (pred_contribs), and that is
// the input times its gradient.
type linearSession struct {
	engine.Session
	model *linearModel
}

var _ engine.Differentiator = (*linearSession)(nil)

// Logit implements engine.Differentiator: the margins, from which the objective
// makes predictions of the same width.
func (s *linearSession) Logit(out engine.Target) engine.Target {
	if out.Name == tree.OutputName && s.model.link != tree.LinkArgmax {
		out.Name = tree.MarginName
	}
	return out
}

// Gradient implements engine.Differentiator for the margins. Where a value is
// missing its derivative is 0.
func (s *linearSession) Gradient(ctx context.Context, in engine.Values, target engine.Target, wrt []string) (*engine.Gradient, error) {
	if target.Index < 0 || target.Index >= s.model.outputs {
		return nil, &engine.InputError{Reason: "element " + strconv.Itoa(target.Index) + " of " + strconv.Itoa(s.model.outputs) + " margins"}
	}
	one := make([]float64, s.model.outputs)
	one[target.Index] = 1
	w, err := engine.Of(one, 1, len(one))
	if err != nil {
		return nil, err
	}
	return s.Weighted(ctx, in, engine.Values{{Name: target.Name, Tensor: w}}, wrt)
}

// Weighted implements engine.Differentiator for the margins.
func (s *linearSession) Weighted(ctx context.Context, in, weights engine.Values, wrt []string) (*engine.Gradient, error) {
	m := s.model
	x := engine.Data[float32](in[0].Tensor)
	rows := in[0].Tensor.Rows()
	total := make([]float64, rows*m.outputs)
	for i := range weights {
		name := weights[i].Name
		if name != tree.MarginName && (name != tree.OutputName || m.link != tree.LinkIdentity) {
			return nil, &engine.NotDifferentiableError{Node: name, Op: string(m.link), Reason: "margins are what this model differentiates", Instead: "the output \"" + tree.MarginName + "\""}
		}
		w, ok := weights[i].Tensor.Float64s()
		if !ok || len(w) != m.outputs && len(w) != len(total) {
			return nil, &engine.InputError{Input: name, Reason: strconv.Itoa(len(w)) + " weights for " + strconv.Itoa(m.outputs) + " margins a row"}
		}
		for k := range total {
			total[k] += w[k%len(w)]
		}
	}
	out, err := s.Run(ctx, in, []string{tree.MarginName})
	if err != nil {
		return nil, err
	}
	margins := engine.Data[float32](out[0].Tensor)
	g := &engine.Gradient{Value: make([]float64, rows)}
	slopes := make([]float32, len(x))
	for r := range rows {
		of := total[r*m.outputs:][:m.outputs]
		for k, w := range of {
			if w != 0 {
				g.Value[r] += w * float64(margins[r*m.outputs+k])
			}
		}
		for i := range m.features {
			at, slope := r*m.features+i, 0.0
			for k, w := range of {
				if w != 0 {
					slope += w * float64(m.weights[i*m.outputs+k])
				}
			}
			if x[at] == x[at] {
				slopes[at] = float32(slope)
			}
		}
	}
	for _, name := range wrt {
		if name != in[0].Name {
			return nil, &engine.InputError{Input: name, Reason: "the model has no such input"}
		}
		t, err := engine.Of(slices.Clone(slopes), in[0].Tensor.Shape()...)
		if err != nil {
			return nil, err
		}
		g.Inputs = append(g.Inputs, engine.Named{Name: name, Tensor: t})
	}
	return g, nil
}

// Margins32 implements tree.Marginer.
func (m *linearModel) Margins32(ctx context.Context, x []float32, rows int, out []float32, _ int) error {
	const rowsPerCheck = 1024
	for r := range rows {
		if r%rowsPerCheck == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		row := x[r*m.features:][:m.features]
		for k := range m.outputs {
			sum := m.weights[m.features*m.outputs+k] + m.base
			for i, v := range row {
				if v == v { // NaN is missing and adds nothing
					sum += float32(v * m.weights[i*m.outputs+k])
				}
			}
			out[r*m.outputs+k] = sum
		}
	}
	return nil
}

// Margins64 implements tree.Marginer; a session of a float32 model never asks.
func (m *linearModel) Margins64(context.Context, []float64, int, []float64, int) error {
	return errors.New("a gblinear model computes in float32")
}
