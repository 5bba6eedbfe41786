package calibrate

import (
	"errors"
	"fmt"
	"math"
)

// maxClasses bounds what one ONNX graph gets of nodes.
const maxClasses = 1 << 10

// Calibrator maps the scores of whole rows. Of one or two classes it maps one score,
// the only one or the second; of more each class against the rest, and makes their sum
// 1. It is immutable.
type Calibrator struct {
	classes int
	curves  []*Curve // of isotonic regression, else
	slopes  []Sigmoid
	inverse float64 // of a temperature, where neither is set
	odds    odds    // taken of scores first
}

// Fit fits a calibrator. scores holds rows of classes scores each, labels the class of
// each row, or with one class whether it is positive.
func Fit(m Method, scores []float64, classes int, labels []int, weights []float64) (*Calibrator, error) {
	if err := checkRows(scores, classes, labels); err != nil {
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	c := &Calibrator{classes: classes}
	for k := range classes {
		if classes == 2 && k == 0 {
			continue
		}
		positive := k
		if classes == 1 {
			positive = 1
		}
		var column, truth []float64
		for r, l := range labels {
			column = append(column, scores[r*classes+k])
			truth = append(truth, 0)
			if l == positive {
				truth[r] = 1
			}
		}
		if err := c.add(m, column, truth, weights); err != nil {
			return nil, fmt.Errorf("calibrate class %d: %w", k, err)
		}
	}
	return c, nil
}

func (c *Calibrator) add(m Method, scores, truth, weights []float64) error {
	switch m {
	case Isotonic:
		curve, err := FitIsotonic(scores, truth, weights)
		c.curves = append(c.curves, curve)
		return err
	case Platt:
		s, err := FitPlatt(scores, truth, weights)
		c.slopes = append(c.slopes, s)
		return err
	}
	return fmt.Errorf("unknown method %q", m)
}

func checkRows(scores []float64, classes int, labels []int) error {
	switch {
	case classes < 1 || classes > maxClasses:
		return fmt.Errorf("%d classes, want 1 to %d", classes, maxClasses)
	case len(labels) == 0 || len(scores)%classes != 0 || len(scores)/classes != len(labels):
		return fmt.Errorf("%d scores of %d classes do not make %d rows", len(scores), classes, len(labels))
	}
	for r, l := range labels {
		if l < 0 || l >= max(classes, 2) {
			return fmt.Errorf("row %d: its label is no class", r)
		}
	}
	return nil
}

// FitTemperature fits the factor of logits (or logarithms of probabilities), at least
// two a row, whose softmax is most likely. It changes no decision.
func FitTemperature(logits []float64, classes int, labels []int, weights []float64) (*Calibrator, error) {
	if classes < 2 {
		return nil, fmt.Errorf("fit a temperature: %d classes, want 2 or more", classes)
	}
	if err := checkRows(logits, classes, labels); err != nil {
		return nil, fmt.Errorf("fit a temperature: %w", err)
	}
	truth := make([]float64, len(labels))
	for k := range classes {
		column := make([]float64, len(labels))
		for r := range labels {
			column[r] = logits[r*classes+k]
		}
		if err := check(column, truth, weights); err != nil {
			return nil, fmt.Errorf("fit a temperature: %w", err)
		}
	}
	// The loss is convex in the factor. Its slope rises; the zero is found by halving
	// the exponent's range.
	slope := func(b float64) float64 {
		sum, p := 0.0, make([]float64, classes)
		for r, l := range labels {
			row := logits[r*classes : (r+1)*classes]
			softmax(p, row, b)
			mean := 0.0
			for k, v := range row {
				mean += p[k] * (v - row[l])
			}
			sum += weightOf(weights, r) * mean
		}
		return sum
	}
	low, high := math.Log(1e-4), math.Log(1e4)
	if slope(math.Exp(low)) >= 0 || slope(math.Exp(high)) <= 0 {
		return nil, errors.New("fit a temperature: none between 0.0001 and 10000 is most likely: the scores tell nothing of the labels, or all")
	}
	for range 100 {
		middle := (low + high) / 2
		if slope(math.Exp(middle)) < 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return &Calibrator{classes: classes, inverse: math.Exp((low + high) / 2)}, nil
}

// Temperature returns what logits are divided by, 0 where the calibrator is of another
// kind.
func (c *Calibrator) Temperature() float64 {
	if c.inverse == 0 {
		return 0
	}
	return 1 / c.inverse
}

func softmax(out, v []float64, factor float64) {
	top, sum := math.Inf(-1), 0.0
	for _, e := range v {
		top = max(top, e*factor)
	}
	for k, e := range v {
		out[k] = math.Exp(e*factor - top)
		sum += out[k]
	}
	for k := range out {
		out[k] /= sum
	}
}

func (c *Calibrator) at(i int, x float64) float64 {
	if c.curves != nil {
		return c.curves[i].At(x)
	}
	return c.slopes[i].At(x)
}

// Apply maps the scores of one row; out has as many elements.
func (c *Calibrator) Apply(out, scores []float64) {
	if c.odds != asIs {
		taken := make([]float64, len(scores))
		for k, p := range scores {
			taken[k] = c.odds.of(p)
		}
		scores = taken
	}
	switch {
	case c.inverse != 0:
		softmax(out, scores, c.inverse)
	case c.classes == 1:
		out[0] = c.at(0, scores[0])
	case c.classes == 2:
		out[1] = c.at(0, scores[1])
		out[0] = 1 - out[1]
	default:
		sum := 0.0
		for k, x := range scores {
			out[k] = c.at(k, x)
			sum += out[k]
		}
		for k := range out {
			if sum == 0 {
				out[k] = 1 / float64(c.classes)
			} else {
				out[k] /= sum
			}
		}
	}
}
