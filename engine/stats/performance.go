package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Metric names a measure of performance against labels.
type Metric string

// The metrics. Of a binary model the score is P(second class); of a regression
// it is the value.
const (
	MetricAUC       Metric = "auc"
	MetricAccuracy  Metric = "accuracy"
	MetricPrecision Metric = "precision"
	MetricRecall    Metric = "recall"
	MetricF1        Metric = "f1"
	MetricLogLoss   Metric = "log_loss"
	MetricBrier     Metric = "brier"
	MetricMacroF1   Metric = "macro_f1"
	MetricRMSE      Metric = "rmse"
	MetricMAE       Metric = "mae"
	MetricR2        Metric = "r2"
)

// Metrics lists every metric.
var Metrics = []Metric{MetricAUC, MetricAccuracy, MetricPrecision, MetricRecall, MetricF1, MetricLogLoss, MetricBrier, MetricMacroF1, MetricRMSE, MetricMAE, MetricR2}

// HigherIsBetter reports whether a larger value of m is a better model.
func (m Metric) HigherIsBetter() bool {
	switch m {
	case MetricLogLoss, MetricBrier, MetricRMSE, MetricMAE:
		return false
	}
	return true
}

// Performance is how well rows were predicted. A metric that is not defined for
// the rows (AUC with one class) is absent.
type Performance struct {
	// Rows have a label; Weight is what they stand for.
	Rows    int                `json:"rows"`
	Weight  float64            `json:"weight"`
	Metrics map[Metric]float64 `json:"metrics"`
}

// BinaryPerformance measures scores P(positive) against labels, deciding for the
// positive class where decided says so, or from 0.5 up when decided is nil.
// weights may be nil. A NaN score is an error.
func BinaryPerformance(scores []float64, decided, labels []bool, weights []float64) (Performance, error) {
	p := Performance{Rows: len(scores), Metrics: map[Metric]float64{}}
	if len(labels) != len(scores) || decided != nil && len(decided) != len(scores) {
		return p, fmt.Errorf("measure performance: %d scores, %d labels, %d decisions", len(scores), len(labels), len(decided))
	}
	if err := checkWeights(weights, len(scores)); err != nil {
		return p, err
	}
	for i, s := range scores {
		if math.IsNaN(s) {
			return p, fmt.Errorf("measure performance: score %d is NaN", i)
		}
	}
	if len(scores) == 0 {
		return p, nil
	}
	c := confusion(scores, decided, labels, weights)
	p.Weight = c.total()
	c.metrics(p.Metrics)
	if auc, ok := AUC(scores, labels, weights); ok {
		p.Metrics[MetricAUC] = auc
	}
	if outOfUnit(scores) {
		return p, nil // margins: no probability to hold against labels
	}
	p.Metrics[MetricLogLoss] = LogLoss(scores, labels, weights)
	p.Metrics[MetricBrier] = Brier(scores, labels, weights)
	return p, nil
}

func outOfUnit(scores []float64) bool {
	return slices.ContainsFunc(scores, func(s float64) bool { return s < 0 || s > 1 })
}

func checkWeights(w []float64, n int) error {
	if w == nil {
		return nil
	}
	if len(w) != n {
		return fmt.Errorf("measure performance: %d rows, %d weights", n, len(w))
	}
	var total float64
	for i, v := range w {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("measure performance: weight %d is %v", i, v)
		}
		total += v
	}
	if n > 0 && total <= 0 {
		return fmt.Errorf("measure performance: the weights are all 0")
	}
	return nil
}

func weightOf(w []float64, i int) float64 {
	if w == nil {
		return 1
	}
	return w[i]
}

// cells are a binary confusion matrix.
type cells struct{ tp, fp, fn, tn float64 }

func confusion(scores []float64, decided, labels []bool, weights []float64) cells {
	var c cells
	for i, s := range scores {
		yes := s >= 0.5
		if decided != nil {
			yes = decided[i]
		}
		w := weightOf(weights, i)
		switch {
		case yes && labels[i]:
			c.tp += w
		case yes:
			c.fp += w
		case labels[i]:
			c.fn += w
		default:
			c.tn += w
		}
	}
	return c
}

func (c cells) total() float64 { return c.tp + c.fp + c.fn + c.tn }

// metrics sets what the matrix gives. As in scikit-learn, precision, recall and
// F1 are 0 where their denominator is.
func (c cells) metrics(m map[Metric]float64) {
	m[MetricAccuracy] = ratio(c.tp+c.tn, c.total())
	m[MetricPrecision] = ratio(c.tp, c.tp+c.fp)
	m[MetricRecall] = ratio(c.tp, c.tp+c.fn)
	m[MetricF1] = ratio(2*c.tp, 2*c.tp+c.fp+c.fn)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// AUC returns the area under the ROC curve: the share of (positive, negative)
// pairs that the scores order, ties for a half. It is exact, and not ok where a
// class has no weight. Scores must not be NaN.
func AUC(scores []float64, labels []bool, weights []float64) (auc float64, ok bool) {
	type row struct {
		score, weight float64
		positive      bool
	}
	rows := make([]row, len(scores))
	for i, s := range scores {
		rows[i] = row{s, weightOf(weights, i), labels[i]}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.score, b.score) })
	var area, neg, pos float64
	for i := 0; i < len(rows); {
		var tiePos, tieNeg float64
		j := i
		for ; j < len(rows) && rows[j].score == rows[i].score; j++ {
			if rows[j].positive {
				tiePos += rows[j].weight
			} else {
				tieNeg += rows[j].weight
			}
		}
		area += tiePos * (neg + tieNeg/2)
		pos += tiePos
		neg += tieNeg
		i = j
	}
	if pos <= 0 || neg <= 0 {
		return 0, false
	}
	return area / pos / neg, true
}

// logLossEpsilon is where scikit-learn clips a float64 probability.
const logLossEpsilon = 0x1p-52

// LogLoss returns the mean negative log-likelihood, probabilities clipped as
// scikit-learn does.
func LogLoss(scores []float64, labels []bool, weights []float64) float64 {
	return weightedMean(len(scores), weights, func(i int) float64 {
		p := min(max(scores[i], logLossEpsilon), 1-logLossEpsilon)
		if labels[i] {
			return -math.Log(p)
		}
		return -math.Log(1 - p)
	})
}

// Brier returns the mean squared difference of probability and label.
func Brier(scores []float64, labels []bool, weights []float64) float64 {
	return weightedMean(len(scores), weights, func(i int) float64 {
		d := scores[i]
		if labels[i] {
			d--
		}
		return d * d
	})
}

func weightedMean(n int, weights []float64, f func(int) float64) float64 {
	var total, weight float64
	for i := range n {
		w := weightOf(weights, i)
		total += w * f(i)
		weight += w
	}
	return ratio(total, weight)
}

// MulticlassPerformance measures decided classes against labels: accuracy, and
// F1 averaged over the classes seen on either side.
func MulticlassPerformance(decided, labels []string, weights []float64) (Performance, error) {
	p := Performance{Rows: len(decided), Metrics: map[Metric]float64{}}
	if len(labels) != len(decided) {
		return p, fmt.Errorf("measure performance: %d decisions, %d labels", len(decided), len(labels))
	}
	if err := checkWeights(weights, len(decided)); err != nil {
		return p, err
	}
	if len(decided) == 0 {
		return p, nil
	}
	classes := map[string]*cells{}
	at := func(c string) *cells {
		if classes[c] == nil {
			classes[c] = &cells{}
		}
		return classes[c]
	}
	var right float64
	for i, d := range decided {
		w := weightOf(weights, i)
		p.Weight += w
		if d == labels[i] {
			right += w
			at(d).tp += w
			continue
		}
		at(d).fp += w
		at(labels[i]).fn += w
	}
	names := make([]string, 0, len(classes))
	for c := range classes {
		names = append(names, c)
	}
	slices.Sort(names) // the same bits each time
	var f1 float64
	for _, name := range names {
		c := classes[name]
		f1 += ratio(2*c.tp, 2*c.tp+c.fp+c.fn)
	}
	p.Metrics[MetricAccuracy] = ratio(right, p.Weight)
	p.Metrics[MetricMacroF1] = f1 / float64(len(classes))
	return p, nil
}

// RegressionPerformance measures values against the truth. R2 is absent where
// the truth is constant.
func RegressionPerformance(values, truth, weights []float64) (Performance, error) {
	p := Performance{Rows: len(values), Metrics: map[Metric]float64{}}
	if len(truth) != len(values) {
		return p, fmt.Errorf("measure performance: %d values, %d labels", len(values), len(truth))
	}
	if err := checkWeights(weights, len(values)); err != nil {
		return p, err
	}
	for i := range values {
		if s := values[i] + truth[i]; math.IsNaN(s) || math.IsInf(s, 0) {
			return p, fmt.Errorf("measure performance: row %d is not finite", i)
		}
		p.Weight += weightOf(weights, i)
	}
	if len(values) == 0 {
		return p, nil
	}
	n := len(values)
	mse := weightedMean(n, weights, func(i int) float64 { return (values[i] - truth[i]) * (values[i] - truth[i]) })
	centre := weightedMean(n, weights, func(i int) float64 { return truth[i] })
	spread := weightedMean(n, weights, func(i int) float64 { return (truth[i] - centre) * (truth[i] - centre) })
	p.Metrics[MetricRMSE] = math.Sqrt(mse)
	p.Metrics[MetricMAE] = weightedMean(n, weights, func(i int) float64 { return math.Abs(values[i] - truth[i]) })
	if spread > 0 && n > 1 {
		p.Metrics[MetricR2] = 1 - mse/spread
	}
	return p, nil
}
