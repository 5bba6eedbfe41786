package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// blockRows is how many rows are run at a time.
const blockRows = 4096

// answer is what one model says of all rows.
type answer struct {
	info *engine.Info
	rows int
	// names are of the float outputs' elements, values row by row.
	names  []string
	values []float64
	// scores is one number a row, decided the class; nil where there are none.
	scores  []float64
	of      string
	decided []string
}

func (a *answer) width() int { return len(a.names) }

// answers runs a model over the rows.
func answers(ctx context.Context, m Model, rows engine.Values, n, threads int) (*answer, error) {
	s, err := m.Version.Model.NewSession(engine.SessionOptions{Threads: max(threads, 1)})
	if err != nil {
		return nil, fmt.Errorf("audit %s: %w", m.Name, err)
	}
	a := &answer{info: m.Version.Info, rows: n}
	for from := 0; from < n; from += blockRows {
		to := min(from+blockRows, n)
		part, err := rows.Slice(from, to)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", m.Name, err)
		}
		out, err := s.Run(ctx, part, nil)
		if err == nil {
			err = a.add(out, to-from)
		}
		if err != nil {
			return nil, fmt.Errorf("audit %s, rows %d to %d: %w", m.Name, from, to-1, err)
		}
	}
	a.settle()
	return a, nil
}

// add takes in the outputs of a block of rows.
func (a *answer) add(out engine.Values, rows int) error {
	var names []string
	var parts [][]float64
	for _, o := range out {
		if !o.Tensor.DType().IsFloat() || o.Tensor.Rows() != rows {
			continue
		}
		v, ok := o.Tensor.Float64s()
		if !ok {
			continue
		}
		k := o.Tensor.RowLen()
		for i := range k {
			name := o.Name
			if k > 1 {
				name += "[" + strconv.Itoa(i) + "]"
			}
			names = append(names, name)
		}
		parts = append(parts, v)
	}
	if a.names == nil {
		a.names = names
	}
	if !slices.Equal(a.names, names) {
		return errors.New("the outputs' shapes differ from block to block")
	}
	for r := range rows {
		for _, v := range parts {
			k := len(v) / rows
			a.values = append(a.values, v[r*k:(r+1)*k]...)
		}
	}
	scores, decided := collector.Scores(a.info, out)
	if len(scores) == rows {
		a.scores = append(a.scores, scores...)
	}
	if len(decided) == rows {
		a.decided = append(a.decided, decided...)
	}
	return nil
}

// settle decides what the score of a row is. A model whose file does not say what it
// is for, but answers several numbers a row, is taken for one that decides for the
// largest.
func (a *answer) settle() {
	if len(a.decided) != a.rows {
		a.decided = nil
	}
	finite := len(a.scores) == a.rows && !slices.ContainsFunc(a.scores, math.IsNaN)
	switch {
	case finite && a.info.Task == engine.TaskMulticlass:
		a.of = "score of the class decided for"
	case finite && a.info.Task == engine.TaskBinary:
		a.of = "score of the second class"
	case finite:
		a.of = "predicted value"
	case a.width() == 0:
		a.scores = nil
	default:
		a.largest()
	}
}

func (a *answer) largest() {
	k := a.width()
	a.of = "largest number of a row's outputs"
	a.scores = make([]float64, a.rows)
	decided := make([]string, a.rows)
	for i := range a.rows {
		at := 0
		row := a.values[i*k : (i+1)*k]
		for j, v := range row {
			if v > row[at] || row[at] != row[at] {
				at = j
			}
		}
		a.scores[i], decided[i] = row[at], a.names[at]
	}
	if a.decided == nil && k > 1 {
		a.decided = decided
	}
}

// distribution holds the scores of one model against the other's.
func (r *Report) distribution(a, b *answer) {
	d := &r.Distribution
	d.Of = a.of
	if len(a.scores) != a.rows || len(b.scores) != b.rows {
		d.Reason = "the outputs hold no numbers"
		return
	}
	x, y := finite(a.scores), finite(b.scores)
	if len(x) == 0 || len(y) == 0 {
		d.Reason = "no score is finite"
		return
	}
	slices.Sort(x)
	slices.Sort(y)
	d.KolmogorovSmirnov, d.PValue = stats.KSOfSorted(x, y)
	d.Wasserstein = stats.WassersteinOfSorted(x, y)
	columns := func(v []float64) []stats.Column {
		return []stats.Column{{Name: "score", Kind: stats.KindNumeric, Numbers: v}}
	}
	report, err := stats.CompareColumns(columns(a.scores), columns(b.scores), stats.Options{Tests: []stats.Test{stats.PSI}, MinRows: 1})
	if err != nil {
		d.Reason = "population stability index: " + err.Error()
		return
	}
	d.PSI = report.Features[0].Tests[stats.PSI].Value
}

func finite(v []float64) []float64 {
	out := make([]float64, 0, len(v))
	for _, x := range v {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			out = append(out, x)
		}
	}
	return out
}

// accuracy holds both models against the labels.
func accuracy(a, b *answer, labels []string) *Accuracy {
	keep := make([]int, 0, len(labels))
	for i, l := range labels {
		if l != "" {
			keep = append(keep, i)
		}
	}
	out := &Accuracy{Rows: len(keep), Metric: stats.MetricAccuracy}
	if len(keep) == 0 {
		out.Reason = "no row has a label"
		return out
	}
	p, err := performance(a, labels, keep)
	if err == nil {
		out.Original = p.Metrics
		p, err = performance(b, labels, keep)
	}
	if err != nil {
		out.Reason = err.Error()
		return out
	}
	out.Compressed = p.Metrics
	if _, ok := out.Original[stats.MetricRMSE]; ok {
		out.Metric = stats.MetricRMSE
		was, is := out.Original[stats.MetricRMSE], out.Compressed[stats.MetricRMSE]
		switch {
		case was > 0:
			out.Loss = is/was - 1
		case is > 0:
			out.Reason = "the original's RMSE is 0, so its growth has no share"
		}
		return out
	}
	out.Loss = out.Original[stats.MetricAccuracy] - out.Compressed[stats.MetricAccuracy]
	return out
}

func performance(a *answer, labels []string, keep []int) (stats.Performance, error) {
	pick := func(v []string) []string {
		out := make([]string, len(keep))
		for i, at := range keep {
			out[i] = v[at]
		}
		return out
	}
	scores := make([]float64, 0, len(keep))
	for _, at := range keep {
		if at < len(a.scores) {
			scores = append(scores, a.scores[at])
		}
	}
	truth := pick(labels)
	if a.decided == nil {
		values := make([]float64, len(truth))
		for i, l := range truth {
			v, err := strconv.ParseFloat(strings.TrimSpace(l), 64)
			if err != nil {
				return stats.Performance{}, fmt.Errorf("the label of row %d is no number", keep[i])
			}
			values[i] = v
		}
		return stats.RegressionPerformance(scores, values, nil)
	}
	decided := pick(a.decided)
	truth, err := a.classes(truth, decided)
	if err != nil {
		return stats.Performance{}, err
	}
	if a.info.Task != engine.TaskBinary || slices.ContainsFunc(scores, math.IsNaN) {
		return stats.MulticlassPerformance(decided, truth, nil)
	}
	positive := a.pair()[1]
	for i, l := range truth {
		if !slices.Contains(a.pair(), l) {
			return stats.Performance{}, fmt.Errorf("the label of row %d is neither of the model's two classes", keep[i])
		}
	}
	yes := func(v []string) []bool {
		out := make([]bool, len(v))
		for i := range v {
			out[i] = v[i] == positive
		}
		return out
	}
	return stats.BinaryPerformance(scores, yes(decided), yes(truth), nil)
}

// pair returns the two classes of a binary model.
func (a *answer) pair() []string {
	if len(a.info.Classes) == 2 {
		return a.info.Classes
	}
	return []string{"0", "1"}
}

// classes writes labels as decisions are written: a number by its shortest form, and
// the number of a class that has a name (or of an output's element) by that name.
func (a *answer) classes(labels, decided []string) ([]string, error) {
	known := map[string]bool{}
	for _, c := range a.info.Classes {
		known[c] = true
	}
	for _, d := range decided {
		known[d] = true
	}
	out := make([]string, len(labels))
	for i, l := range labels {
		l = strings.TrimSpace(l)
		if v, err := strconv.ParseFloat(l, 64); err == nil && !known[l] {
			l = a.numbered(v, known)
		}
		out[i] = l
	}
	if !slices.ContainsFunc(out, func(l string) bool { return known[l] }) {
		return nil, errors.New("no label is the name or the number of a class")
	}
	return out, nil
}

func (a *answer) numbered(v float64, known map[string]bool) string {
	short := strconv.FormatFloat(v, 'g', -1, 64)
	i := int(v)
	switch {
	case known[short] || v != float64(i) || i < 0:
		return short
	case i < len(a.info.Classes):
		return a.info.Classes[i]
	case len(a.info.Classes) == 0 && i < len(a.names):
		return a.names[i]
	}
	return short
}
