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

// blockRows is how many rows are run at a time, and blockElements about how many numbers
// of the inputs.
const (
	blockRows     = 4096
	blockElements = 1 << 22
)

// answer is what one model says of all rows.
type answer struct {
	info *engine.Info
	rows int
	// block is how many rows were run at a time.
	block int
	// outputs are the float outputs that have something to say of each row, apart the
	// names of the others.
	outputs []output
	apart   []string
	// names are of the outputs' elements, values row by row.
	names  []string
	values []float64
	// scores is one number a row, decided the class; nil where there are none.
	scores  []float64
	of      string
	decided []string
}

// output is a float output with its rows along an axis, of width numbers each; with axis
// -1 all of it is one row's.
type output struct {
	name        string
	axis, width int
	vector      bool // its rows are a number or a list of them
}

func (a *answer) width() int { return len(a.names) }

// answers runs a model over the rows.
func answers(ctx context.Context, m Model, rows *engine.Rows, threads int, step func(n int)) (*answer, error) {
	s, err := m.Version.Model.NewSession(engine.SessionOptions{Threads: max(threads, 1)})
	if err != nil {
		return nil, fmt.Errorf("audit %s: %w", m.Name, err)
	}
	elements := 0
	for _, v := range rows.Values {
		elements += v.Tensor.Len()
	}
	a := &answer{info: rowInfo(m.Version.Info, rows), rows: rows.N}
	a.block = max(2, min(blockRows, blockElements/max(elements/rows.N, 1))) // two tell where the rows of outputs lie
	for from := 0; from < rows.N; {
		to := min(from+a.block, rows.N)
		out, err := runRows(ctx, s, rows, from, to)
		if errors.Is(err, engine.ErrTooLarge) && to-from > 1 {
			a.block = (to - from) / 2
			continue
		}
		if err == nil && from == 0 {
			err = a.find(ctx, s, rows, out, to)
		}
		if err == nil {
			err = a.add(out, to-from)
		}
		if err != nil {
			return nil, fmt.Errorf("audit %s, rows %d to %d: %w", m.Name, from, to-1, err)
		}
		step(to - from)
		from = to
	}
	a.settle()
	return a, nil
}

func runRows(ctx context.Context, s engine.Session, rows *engine.Rows, from, to int) (engine.Values, error) {
	part, err := rows.Slice(from, to)
	if err != nil {
		return nil, err
	}
	return s.Run(ctx, part, nil)
}

// rowInfo is what a model says of itself, with inputs that are rows also where theirs do
// not lie along the first dimension.
func rowInfo(info *engine.Info, rows *engine.Rows) *engine.Info {
	if !rows.Apart() || collector.Batched(info) {
		return info
	}
	i := *info
	i.Inputs = []engine.Spec{{Shape: []int{-1}}}
	return &i
}

// find finds out where the rows of the outputs lie: along the dimension that is 1 of one
// row and n of n.
func (a *answer) find(ctx context.Context, s engine.Session, rows *engine.Rows, out engine.Values, n int) error {
	one := out
	if n > 1 {
		var err error
		if one, err = runRows(ctx, s, rows, 0, 1); err != nil {
			return err
		}
	}
	if len(one) != len(out) {
		return errors.New("the outputs differ from block to block")
	}
	for i, o := range out {
		if !o.Tensor.DType().IsFloat() {
			continue
		}
		shape := o.Tensor.Shape()
		f := output{name: o.Name, axis: -1, width: o.Tensor.Len(), vector: len(shape) < 2 || len(shape) == 2 && shape[0] == 1}
		if n > 1 {
			if f.axis = rowAxis(shape, one[i].Tensor.Shape(), n); f.axis < 0 {
				a.apart = append(a.apart, o.Name)
				continue
			}
			f.width /= n
			f.vector = len(shape) < 3 && f.axis == 0
		}
		a.outputs = append(a.outputs, f)
		for k := range f.width {
			name := o.Name
			if f.width > 1 {
				name += "[" + strconv.Itoa(k) + "]"
			}
			a.names = append(a.names, name)
		}
	}
	return nil
}

// rowAxis is the dimension that is n of n rows and 1 of one, or -1.
func rowAxis(shape, single []int, n int) int {
	if len(shape) != len(single) {
		return -1
	}
	for i, d := range shape {
		if d == n && single[i] == 1 {
			return i
		}
	}
	return -1
}

// add takes in the outputs of a block of rows.
func (a *answer) add(out engine.Values, rows int) error {
	at := len(a.values)
	a.values = append(a.values, make([]float64, rows*a.width())...)
	block := a.values[at:]
	offset := 0
	for _, f := range a.outputs {
		t := out.Get(f.name)
		if t == nil || t.Len() != rows*f.width || f.axis >= len(t.Shape()) || f.axis >= 0 && t.Shape()[f.axis] != rows {
			return errors.New("the outputs' shapes differ from block to block")
		}
		inner := f.width
		if f.axis >= 0 {
			inner = 1
			for _, d := range t.Shape()[f.axis+1:] {
				inner *= d
			}
		}
		v, _ := t.Float64s()
		for i := 0; i < len(v); i += max(inner, 1) {
			outer, r := i/inner/rows, i/inner%rows
			copy(block[r*a.width()+offset+outer*inner:], v[i:i+inner])
		}
		offset += f.width
	}
	scores, decided := collector.Scores(a.info, a.upright(out, rows))
	if len(scores) == rows {
		a.scores = append(a.scores, scores...)
	}
	if len(decided) == rows {
		a.decided = append(a.decided, decided...)
	}
	return nil
}

// upright are the outputs that have their rows along their first dimension.
func (a *answer) upright(out engine.Values, rows int) engine.Values {
	return slices.DeleteFunc(slices.Clone(out), func(o engine.Named) bool {
		return a.rows > 1 && o.Tensor.DType().IsFloat() && (o.Tensor.Rows() != rows ||
			!slices.ContainsFunc(a.outputs, func(f output) bool { return f.name == o.Name && f.axis <= 0 }))
	})
}

// vectors reports whether all that is said of a row is a list of numbers.
func (a *answer) vectors() bool {
	return !slices.ContainsFunc(a.outputs, func(f output) bool { return !f.vector })
}

// settle decides what the score of a row is. A model whose file does not say what it
// is for, but answers a list of numbers a row, is taken for one that decides for the
// largest. One that answers boxes, images or sequences decides nothing.
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
	if a.decided == nil && k > 1 && a.vectors() {
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
	if a.decided == nil && a.width() > 1 && !a.vectors() {
		return stats.Performance{}, errors.New("the model answers neither a number nor a class a row")
	}
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
