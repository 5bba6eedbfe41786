package calibrate

import (
	"fmt"
	"math"
)

// Temperature is the method of FitTemperature, by the name that FitProbabilities takes.
const Temperature Method = "temperature"

// Methods lists every method.
var Methods = []Method{Isotonic, Platt, Temperature}

// leastProbability keeps logarithms of probabilities in float32 finite.
const leastProbability = 1e-7

// odds is what is taken of probabilities before they are mapped.
type odds int

const (
	asIs odds = iota
	logarithm
	logOdds
)

func (o odds) of(p float64) float64 {
	if o == asIs {
		return p
	}
	p = min(max(p, leastProbability), 1-leastProbability)
	if o == logOdds {
		return math.Log(p) - math.Log(1-p)
	}
	return math.Log(p)
}

// FitProbabilities fits a calibrator of probabilities, classes a row, at least two.
// Isotonic maps them as they are, Platt their log odds and Temperature their
// logarithms, so that probabilities that are right already stay as they are.
func FitProbabilities(m Method, p []float64, classes int, labels []int, weights []float64) (*Calibrator, error) {
	if classes < 2 {
		return nil, fmt.Errorf("calibrate: probabilities of %d classes, want 2 or more", classes)
	}
	o := map[Method]odds{Platt: logOdds, Temperature: logarithm}[m]
	scores := make([]float64, len(p))
	for i, v := range p {
		if !(v >= 0 && v <= 1) {
			return nil, fmt.Errorf("calibrate: row %d: a probability is not between 0 and 1", i/classes)
		}
		scores[i] = o.of(v)
	}
	var c *Calibrator
	var err error
	if m == Temperature {
		c, err = FitTemperature(scores, classes, labels, weights)
	} else {
		c, err = Fit(m, scores, classes, labels, weights)
	}
	if err != nil {
		return nil, err
	}
	c.odds = o
	return c, nil
}

// write takes logarithms of x.
func (o odds) write(w *writer, x string) string {
	if o == asIs {
		return x
	}
	x = w.op("Max", nil, w.op("Min", nil, x, constant(w, []float64{1 - leastProbability})), constant(w, []float64{leastProbability}))
	if o == logOdds {
		return w.op("Sub", nil, w.op("Log", nil, x), w.op("Log", nil, w.op("Sub", nil, constant(w, []float64{1}), x)))
	}
	return w.op("Log", nil, x)
}

// errorBins is how many parts of the unit interval Error looks at.
const errorBins = 15

// Error is the expected calibration error: the mean distance between how sure rows of
// about one confidence were and how many of them were right, over 15 bins of equal
// width. nil weighs all rows alike; it is NaN of no weight.
func Error(confidence []float64, right []bool, weights []float64) float64 {
	var sure, hits, weight [errorBins]float64
	total := 0.0
	for i, p := range confidence {
		w := weightOf(weights, i)
		b := min(max(int(p*errorBins), 0), errorBins-1)
		sure[b] += w * p
		weight[b] += w
		total += w
		if right[i] {
			hits[b] += w
		}
	}
	sum := 0.0
	for b := range errorBins {
		sum += math.Abs(sure[b] - hits[b])
	}
	return sum / total
}
