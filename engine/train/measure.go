package train

import (
	"context"
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// measured is how many rows a model answers at a time.
const measured = 1024

// Measure returns how well a model, read from Model, predicts some rows of in, by their
// labels and their weights.
func (f *Fitted) Measure(ctx context.Context, m engine.Model, in engine.Values, labels *Labels, rows []int) (stats.Performance, error) {
	scores, width, err := f.Scores(ctx, m, in, rows)
	if err != nil {
		return stats.Performance{}, err
	}
	var weights []float64
	if labels.Weights != nil {
		for _, i := range rows {
			weights = append(weights, labels.Weights[i])
		}
	}
	switch {
	case labels.Class == nil:
		truth := make([]float64, len(rows))
		for at, i := range rows {
			truth[at] = labels.Values[i]
		}
		return stats.RegressionPerformance(scores, truth, weights)
	case len(labels.Classes) == 2:
		truth, second := make([]bool, len(rows)), make([]float64, len(rows))
		for at, i := range rows {
			truth[at], second[at] = labels.Class[i] == 1, scores[(at+1)*width-1]
		}
		return stats.BinaryPerformance(second, nil, truth, weights)
	}
	truth, decided := make([]string, len(rows)), make([]string, len(rows))
	likelihood, total := 0.0, 0.0
	for at, i := range rows {
		row := scores[at*width : (at+1)*width]
		best := 0
		for k, p := range row {
			if p > row[best] {
				best = k
			}
		}
		truth[at], decided[at] = labels.Classes[labels.Class[i]], labels.Classes[best]
		likelihood -= labels.weight(i) * math.Log(max(row[labels.Class[i]], math.SmallestNonzeroFloat32))
		total += labels.weight(i)
	}
	p, err := stats.MulticlassPerformance(decided, truth, weights)
	if err == nil && total > 0 {
		p.Metrics[stats.MetricLogLoss] = likelihood / total
	}
	return p, err
}

// Scores runs the model over rows and returns probabilities of classes, or values, and
// how many each row has.
func (f *Fitted) Scores(ctx context.Context, m engine.Model, in engine.Values, rows []int) ([]float64, int, error) {
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return nil, 0, err
	}
	var all []float64
	width := 1
	for from := 0; from < len(rows); from += measured {
		some, err := take(in, rows[from:min(from+measured, len(rows))])
		if err != nil {
			return nil, 0, err
		}
		out, err := s.Run(ctx, some, []string{f.Output})
		if err != nil {
			return nil, 0, err
		}
		v, ok := out[0].Tensor.Float64s()
		if !ok {
			return nil, 0, fmt.Errorf("output %q is no number", f.Output)
		}
		width = out[0].Tensor.RowLen()
		if f.Margins && f.Loss.Classifies() {
			v = probabilities(v, width)
		}
		all = append(all, v...)
	}
	return all, width, nil
}

// probabilities takes the sigmoid of single margins and the softmax of several.
func probabilities(v []float64, width int) []float64 {
	out := make([]float64, len(v))
	for at := 0; at < len(v); at += width {
		row := v[at : at+width]
		if width == 1 {
			out[at] = 1 / (1 + math.Exp(-row[0]))
			continue
		}
		most, sum := math.Inf(-1), 0.0
		for _, x := range row {
			most = max(most, x)
		}
		for k, x := range row {
			out[at+k] = math.Exp(x - most)
			sum += out[at+k]
		}
		for k := range row {
			out[at+k] /= sum
		}
	}
	return out
}

// take returns some rows of every tensor.
func take(v engine.Values, rows []int) (engine.Values, error) {
	out := make(engine.Values, len(v))
	for i := range v {
		t, err := takeRows(v[i].Tensor, rows)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", v[i].Name, err)
		}
		out[i] = engine.Named{Name: v[i].Name, Tensor: t}
	}
	return out, nil
}

func takeRows(t *engine.Tensor, rows []int) (*engine.Tensor, error) {
	shape := append([]int{len(rows)}, t.Shape()[min(1, len(t.Shape())):]...)
	switch t.DType() {
	case engine.Float32:
		return picked[float32](t, rows, shape)
	case engine.Float64:
		return picked[float64](t, rows, shape)
	case engine.Int64:
		return picked[int64](t, rows, shape)
	case engine.Int32:
		return picked[int32](t, rows, shape)
	case engine.Uint8:
		return picked[uint8](t, rows, shape)
	case engine.Bool:
		return picked[bool](t, rows, shape)
	case engine.String:
		return picked[string](t, rows, shape)
	}
	return nil, fmt.Errorf("rows of %s are not taken", t.DType())
}

func picked[T engine.Element](t *engine.Tensor, rows, shape []int) (*engine.Tensor, error) {
	data, k := engine.Data[T](t), t.RowLen()
	out := make([]T, 0, len(rows)*k)
	for _, i := range rows {
		out = append(out, data[i*k:(i+1)*k]...)
	}
	return engine.Of(out, shape...)
}
