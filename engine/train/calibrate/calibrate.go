// Package calibrate fits maps from a model's scores to probabilities: isotonic
// regression, Platt's sigmoid, and temperature, as scikit-learn's CalibratedClassifierCV
// fits them, and writes them as ONNX behind a model or alone.
//
// It owns the fits and the nodes. It runs no model: scores and labels come from the
// caller, of rows the model was not fitted on.
//
// Invariants: everything is computed in float64, in the order of the rows, so the same
// rows give the same bits. Data is a stranger's: what is not finite is an error that
// holds no value.
package calibrate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Method is a way to map one score.
type Method string

// The methods. Isotonic needs about a thousand rows; Platt is for fewer.
const (
	Isotonic Method = "isotonic"
	Platt    Method = "platt"
)

// maxScore keeps squares of scores finite, maxWeight sums of weights.
const (
	maxScore  = 1e100
	maxWeight = 1e100
)

// Curve is a map that does not fall: linear between its points, constant beyond them.
// X rises.
type Curve struct{ X, Y []float64 }

// At returns the curve's value; NaN of NaN.
func (c *Curve) At(x float64) float64 {
	n := len(c.X)
	if x != x {
		return x
	}
	i, found := slices.BinarySearch(c.X, x)
	switch {
	case found:
		return c.Y[i]
	case i == 0:
		return c.Y[0]
	case i == n:
		return c.Y[n-1]
	}
	slope := (c.Y[i] - c.Y[i-1]) / (c.X[i] - c.X[i-1])
	return c.Y[i-1] + slope*(x-c.X[i-1])
}

// Sigmoid is 1 / (1 + exp(A x + B)).
type Sigmoid struct{ A, B float64 }

// At returns the probability of a score.
func (s Sigmoid) At(x float64) float64 { return 1 / (1 + math.Exp(s.A*x+s.B)) }

func check(scores, labels, weights []float64) error {
	switch {
	case len(scores) == 0:
		return errors.New("no rows")
	case len(labels) != len(scores):
		return fmt.Errorf("%d labels for %d scores", len(labels), len(scores))
	case weights != nil && len(weights) != len(scores):
		return fmt.Errorf("%d weights for %d scores", len(weights), len(scores))
	}
	sum := 0.0
	for i, s := range scores {
		w := weightOf(weights, i)
		switch {
		case !(math.Abs(s) <= maxScore):
			return fmt.Errorf("row %d: its score is not finite, or too large", i)
		case !(labels[i] >= 0 && labels[i] <= 1):
			return fmt.Errorf("row %d: its label is not between 0 and 1", i)
		case !(w >= 0 && w <= maxWeight):
			return fmt.Errorf("row %d: its weight is negative, not finite or too large", i)
		}
		sum += w
	}
	if !(sum > 0) {
		return errors.New("the sum of the weights is 0")
	}
	return nil
}

func weightOf(weights []float64, i int) float64 {
	if weights == nil {
		return 1
	}
	return weights[i]
}

// point is rows of one score, or a block of them: their mean label and weight.
type point struct{ x, y, w float64 }

// FitIsotonic fits the curve that does not fall and is nearest to the labels, by pool
// adjacent violators. Rows of scores that are equal, to scikit-learn's 1e-15, are
// averaged first. nil weighs all rows alike.
func FitIsotonic(scores, labels, weights []float64) (*Curve, error) {
	if err := check(scores, labels, weights); err != nil {
		return nil, fmt.Errorf("fit isotonic regression: %w", err)
	}
	var rows []point
	for i, s := range scores {
		if w := weightOf(weights, i); w > 0 {
			rows = append(rows, point{s, labels[i], w})
		}
	}
	slices.SortStableFunc(rows, func(a, b point) int { return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y)) })
	points := unique(rows)
	pool(points)
	c := &Curve{}
	last := len(points) - 1
	for i, p := range points {
		if i == 0 || i == last || p.y != points[i-1].y || p.y != points[i+1].y {
			c.X, c.Y = append(c.X, p.x), append(c.Y, p.y)
		}
	}
	return c, nil
}

// unique averages rows of one score.
func unique(rows []point) []point {
	const same = 1e-15
	out := make([]point, 0, len(rows))
	for _, r := range rows {
		r.y *= r.w
		if n := len(out); n > 0 && r.x-out[n-1].x < same {
			out[n-1].y += r.y
			out[n-1].w += r.w
			continue
		}
		out = append(out, r)
	}
	for i := range out {
		out[i].y /= out[i].w
	}
	return out
}

// pool gives neighbours that fall their common mean, until none does.
func pool(points []point) {
	type part struct {
		sum, w float64
		n      int
	}
	var parts []part
	for _, p := range points {
		parts = append(parts, part{p.y * p.w, p.w, 1})
		for n := len(parts); n > 1; n-- {
			a, b := &parts[n-2], &parts[n-1]
			if a.sum/a.w < b.sum/b.w {
				break
			}
			a.sum, a.w, a.n = a.sum+b.sum, a.w+b.w, a.n+b.n
			parts = parts[:n-1]
		}
	}
	at := 0
	for _, p := range parts {
		y := p.sum / p.w
		if p.n == 1 {
			at++ // its own mean, to the bit
			continue
		}
		for range p.n {
			points[at].y = y
			at++
		}
	}
}

// FitPlatt fits a sigmoid by Newton's method (Lin, Lin and Weng 2007) to Platt's
// targets, which keep it from certainty. Labels above 0 are positive.
func FitPlatt(scores, labels, weights []float64) (Sigmoid, error) {
	if err := check(scores, labels, weights); err != nil {
		return Sigmoid{}, fmt.Errorf("fit Platt's sigmoid: %w", err)
	}
	p := platt{weights: weights}
	largest, negative, positive := 0.0, 0.0, 0.0
	for i, s := range scores {
		largest = max(largest, math.Abs(s))
		if labels[i] > 0 {
			positive += weightOf(weights, i)
		} else {
			negative += weightOf(weights, i)
		}
	}
	if largest == 0 {
		largest = 1
	}
	for i, s := range scores {
		p.scores = append(p.scores, s/largest)
		if labels[i] > 0 {
			p.targets = append(p.targets, (positive+1)/(positive+2))
		} else {
			p.targets = append(p.targets, 1/(negative+2))
		}
	}
	s, err := p.fit(Sigmoid{0, math.Log((negative + 1) / (positive + 1))}, positive+negative)
	if err != nil {
		return Sigmoid{}, fmt.Errorf("fit Platt's sigmoid: %w", err)
	}
	return Sigmoid{s.A / largest, s.B}, nil
}

type platt struct{ scores, targets, weights []float64 }

// loss is the cross entropy of the targets.
func (p *platt) loss(s Sigmoid) float64 {
	sum := 0.0
	for i, x := range p.scores {
		z := s.A*x + s.B // of the negative class
		sum += weightOf(p.weights, i) * (p.targets[i]*z + max(-z, 0) + math.Log1p(math.Exp(-math.Abs(z))))
	}
	return sum
}

// fit takes Newton steps, halved while they do not lower the loss.
func (p *platt) fit(s Sigmoid, total float64) (Sigmoid, error) {
	const steps, halvings, ridge = 100, 40, 1e-12
	loss := p.loss(s)
	for range steps {
		var ga, gb, aa, ab, bb float64
		for i, x := range p.scores {
			w, q := weightOf(p.weights, i), s.At(x)
			d, h := w*(p.targets[i]-q), w*q*(1-q)
			ga, gb = ga+x*d, gb+d
			aa, ab, bb = aa+x*x*h, ab+x*h, bb+h
		}
		if max(math.Abs(ga), math.Abs(gb)) <= 1e-12*total {
			break
		}
		aa, bb = aa+ridge*total, bb+ridge*total
		det := aa*bb - ab*ab
		da, db := -(bb*ga-ab*gb)/det, -(aa*gb-ab*ga)/det
		moved := false
		for step, i := 1.0, 0; i < halvings && !moved; step, i = step/2, i+1 {
			next := Sigmoid{s.A + step*da, s.B + step*db}
			if l := p.loss(next); l < loss {
				s, loss, moved = next, l, true
			}
		}
		if !moved {
			break // as low as float64 tells
		}
	}
	if math.IsNaN(s.A) || math.IsInf(s.A, 0) || math.IsNaN(s.B) || math.IsInf(s.B, 0) || math.IsNaN(loss) {
		return Sigmoid{}, errors.New("it does not converge: weights are too large")
	}
	return s, nil
}
