package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
	"github.com/pellucid/pellucid/engine/train"
	"github.com/pellucid/pellucid/engine/train/calibrate"
)

// calibration is what --calibrate did.
type calibration struct {
	rows          int
	before, after quality
	// stays is an output of labels that could not be made anew, and why.
	stays string
}

// quality is how good probabilities are.
type quality struct{ logLoss, brier, err float64 }

func (o *fitOptions) checkCalibration() error {
	switch {
	case o.calibrate == "":
		return nil
	case o.xgboost():
		return usage(errors.New("--calibrate: XGBoost's JSON has no place for it: name an .onnx file or a folder"))
	case !(o.cfg.Hold > 0):
		return usage(errors.New("--calibrate is fitted to rows that are held out, and --holdout is 0"))
	}
	return nil
}

// calibrated puts a calibration behind the model, and returns the rows that are left to
// measure by: half of those held out, in time the last, since the other half is what it
// was fitted to. No row that the model learnt from is in either.
func (o *fitOptions) calibrated(ctx context.Context, m engine.Model, in engine.Values, labels *train.Labels, f *train.Fitted) (*calibration, []int, error) {
	if labels.Class == nil {
		return nil, nil, usage(fmt.Errorf("--calibrate: the labels of column %q are numbers, not classes", o.label))
	}
	if f.Margins {
		return nil, nil, fmt.Errorf("--calibrate: the output %q of %s is no probability", f.Output, o.from)
	}
	to, left := labels.Halves(f.Held)
	if len(to) == 0 || len(left) == 0 {
		return nil, nil, fmt.Errorf("--calibrate: %d rows held out are too few", len(f.Held))
	}
	scores, width, err := f.Scores(ctx, m, in, to)
	if err != nil {
		return nil, nil, err
	}
	if width != len(labels.Classes) {
		return nil, nil, fmt.Errorf("--calibrate: output %q has %d probabilities for %d classes", f.Output, width, len(labels.Classes))
	}
	classes, weights := of(labels.Class, to), of(labels.Weights, to)
	c, err := calibrate.FitProbabilities(calibrate.Method(o.calibrate), scores, width, classes, weights)
	if err != nil {
		return nil, nil, err
	}
	done := &calibration{rows: len(to)}
	if scores, _, err = f.Scores(ctx, m, in, left); err != nil {
		return nil, nil, err
	}
	classes, weights = of(labels.Class, left), of(labels.Weights, left)
	done.before = qualityOf(scores, width, classes, weights)
	if f.Model, f.Output, done.stays, err = c.Append(f.Model, f.Output); err != nil {
		return nil, nil, err
	}
	if m, err = o.readBack(f.Model); err != nil {
		return nil, nil, err
	}
	if scores, _, err = f.Scores(ctx, m, in, left); err != nil {
		return nil, nil, err
	}
	done.after = qualityOf(scores, width, classes, weights)
	return done, left, nil
}

// of returns some rows of v, nil of none.
func of[T any](v []T, rows []int) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(rows))
	for at, i := range rows {
		out[at] = v[i]
	}
	return out
}

// qualityOf measures probabilities, width a row. The Brier score of two classes is that
// of the second, of more the sum over all.
func qualityOf(p []float64, width int, classes []int, weights []float64) quality {
	n := len(classes)
	sure, right, truth := make([]float64, n), make([]bool, n), make([]float64, n)
	var q quality
	total := 0.0
	for r, class := range classes {
		row := p[r*width : (r+1)*width]
		best, distance := 0, 0.0
		for k, v := range row {
			if v > row[best] {
				best = k
			}
			hit := 0.0
			if k == class {
				hit = 1
			}
			distance += (v - hit) * (v - hit)
		}
		if width == 2 {
			distance /= 2
		}
		w := 1.0
		if weights != nil {
			w = weights[r]
		}
		total += w
		q.brier += w * distance
		sure[r], right[r], truth[r] = row[best], best == class, row[class]
	}
	q.brier /= total
	q.logLoss = stats.LogLoss(truth, all(n), weights)
	q.err = calibrate.Error(sure, right, weights)
	return q
}

func all(n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = true
	}
	return out
}

func (c *calibration) text(method string, left int) string {
	pair := func(a, b float64) string { return brief(a) + " -> " + brief(b) }
	text := fmt.Sprintf("%s, fitted to %d of the rows held out; over the other %d: log loss %s, Brier score %s, calibration error %s",
		method, c.rows, left, pair(c.before.logLoss, c.after.logLoss), pair(c.before.brier, c.after.brier), pair(c.before.err, c.after.err))
	if c.stays != "" {
		text += "; labels are those of before: " + c.stays
	}
	return text
}
