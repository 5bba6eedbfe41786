package train

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Labels are the truth of the rows: Values, or Class among Classes.
type Labels struct {
	// Values are the numbers of a regression, all finite.
	Values []float64
	// Class is the index of each row's class in Classes.
	Class   []int
	Classes []string
	// Weights are what rows count for; nil means 1 each. None is below 0.
	Weights []float64
	// Order is what rows are sorted by where the last are to be held out; nil means that
	// they are drawn.
	Order []float64
}

// Rows returns the number of rows.
func (l *Labels) Rows() int { return max(len(l.Values), len(l.Class)) }

func (l *Labels) check(rows int) error {
	n := l.Rows()
	switch {
	case n != rows || (l.Values == nil) == (l.Class == nil):
		return fmt.Errorf("%d labels for %d rows", n, rows)
	case l.Weights != nil && len(l.Weights) != n || l.Order != nil && len(l.Order) != n:
		return fmt.Errorf("%d weights and %d places in order for %d rows", len(l.Weights), len(l.Order), n)
	case l.Class != nil && len(l.Classes) < 2:
		return errors.New("the labels are all of one class: there is nothing to tell apart")
	case len(l.Classes) > maxClasses:
		return fmt.Errorf("the labels are of %d classes, more than %d: is it a number that was meant?", len(l.Classes), maxClasses)
	}
	for i, v := range l.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("the label of row %d is not finite", i+1)
		}
	}
	for i, c := range l.Class {
		if c < 0 || c >= len(l.Classes) {
			return fmt.Errorf("the label of row %d is none of the classes", i+1)
		}
	}
	for i, w := range l.Weights {
		if !(w >= 0 && w <= math.MaxFloat32) {
			return fmt.Errorf("the weight of row %d is not a finite number from 0 up", i+1)
		}
	}
	return nil
}

func (l *Labels) weight(i int) float64 {
	if l.Weights == nil {
		return 1
	}
	return l.Weights[i]
}

func (l *Labels) total(rows []int) float64 {
	var sum float64
	for _, i := range rows {
		sum += l.weight(i)
	}
	return sum
}

// lossOf returns the loss that is asked for, or the one that the labels suggest.
func (l *Labels) lossOf(asked Loss) (Loss, error) {
	classes := l.Class != nil
	switch {
	case asked == "" && !classes:
		return Squared, nil
	case asked == "" && len(l.Classes) > 2:
		return CrossEntropy, nil
	case asked == "":
		return Logistic, nil
	case asked.Classifies() != classes:
		return "", fmt.Errorf("loss %s and labels that are %s", asked, map[bool]string{true: "classes", false: "numbers"}[classes])
	case asked == Logistic && len(l.Classes) > 2:
		return "", fmt.Errorf("loss %s is of two classes, and the labels are of %d: use %s", asked, len(l.Classes), CrossEntropy)
	case asked == Poisson && slices.ContainsFunc(l.Values, func(v float64) bool { return v < 0 }):
		return "", fmt.Errorf("loss %s is of counts, and a label is below 0", asked)
	}
	return asked, nil
}

// Split checks columns and their labels and divides the rows into those to learn from
// and those held out, as Fit does.
func Split(columns []Column, labels *Labels, share float64, seed uint64) (training, held []int, err error) {
	rows := 0
	if len(columns) > 0 {
		rows = columns[0].len()
	}
	if err := checkColumns(columns, rows); err != nil {
		return nil, nil, err
	}
	if err := labels.check(rows); err != nil {
		return nil, nil, err
	}
	if !(share >= 0 && share < 1) {
		return nil, nil, fmt.Errorf("a share held out of %v is out of range", share)
	}
	training, held, err = labels.split(share, seed)
	if err == nil {
		err = labels.learnable(training)
	}
	return training, held, err
}

// split divides the rows into those that move weights, in order, and those held out.
// Classes are divided each for itself, so that a rare one is on both sides.
func (l *Labels) split(share float64, seed uint64) (training, held []int, err error) {
	n := l.Rows()
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	switch {
	case share == 0:
		return all, nil, nil
	case l.Order != nil:
		slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(l.Order[a], l.Order[b]) })
		k := n - max(int(share*float64(n)), 1)
		training, held = all[:k], all[k:]
	default:
		training, held = l.draw(all, share, rand.New(rand.NewPCG(seed, streamSplit)))
	}
	slices.Sort(training)
	slices.Sort(held)
	if len(training) == 0 || len(held) == 0 {
		return nil, nil, fmt.Errorf("hold out %v of %d rows: one part would have none", share, n)
	}
	return training, held, nil
}

// Halves divides rows, those held out for one, in two: by order the first and the last,
// else alternately within each class.
func (l *Labels) Halves(rows []int) (a, b []int) {
	rows = slices.Clone(rows)
	if l.Order != nil {
		slices.SortStableFunc(rows, func(i, j int) int { return cmp.Compare(l.Order[i], l.Order[j]) })
		a, b = rows[:len(rows)/2], rows[len(rows)/2:]
		slices.Sort(a)
		slices.Sort(b)
		return a, b
	}
	seen := make([]int, max(len(l.Classes), 1))
	for _, i := range rows {
		class := 0
		if l.Class != nil {
			class = l.Class[i]
		}
		if seen[class]++; seen[class]%2 == 1 {
			a = append(a, i)
		} else {
			b = append(b, i)
		}
	}
	return a, b
}

func (l *Labels) draw(all []int, share float64, r *rand.Rand) (training, held []int) {
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	groups := make([][]int, max(len(l.Classes), 1))
	for _, i := range all {
		g := 0
		if l.Class != nil {
			g = l.Class[i]
		}
		groups[g] = append(groups[g], i)
	}
	for _, g := range groups {
		k := int(math.Round(share * float64(len(g))))
		if len(g) > 0 {
			k = min(k, len(g)-1) // a class is learnt before it is measured
		}
		held = append(held, g[:k]...)
		training = append(training, g[k:]...)
	}
	return training, held
}

// learnable refuses labels from which nothing can be learnt.
func (l *Labels) learnable(training []int) error {
	if len(training) == 0 {
		return errors.New("there are no rows to learn from")
	}
	if l.total(training) <= 0 {
		return errors.New("the weights of the rows to learn from are all 0")
	}
	if l.Class == nil {
		return nil
	}
	seen := make([]int, len(l.Classes))
	for _, i := range training {
		if l.weight(i) > 0 {
			seen[l.Class[i]]++
		}
	}
	for c, n := range seen {
		if n == 0 {
			return fmt.Errorf("class %d of %d has no row to learn from (all its rows are held out, or weigh nothing)", c+1, len(l.Classes))
		}
	}
	return nil
}

// Balanced returns weights under which every class counts as much as any other.
func (l *Labels) Balanced() []float64 {
	total, sums := 0.0, make([]float64, len(l.Classes))
	for i, c := range l.Class {
		sums[c] += l.weight(i)
		total += l.weight(i)
	}
	out := make([]float64, len(l.Class))
	for i, c := range l.Class {
		if sums[c] > 0 {
			out[i] = l.weight(i) * total / (sums[c] * float64(len(l.Classes)))
		}
	}
	return out
}

// targets lays out the labels of rows as the loss takes them: [n, k] of d, and [n, 1]
// weights.
func (l *Labels) targets(rows []int, d engine.DType, k int, s scale) (y, w *engine.Tensor, err error) {
	wide := make([]float64, len(rows)*k)
	weights := make([]float64, len(rows))
	for at, i := range rows {
		weights[at] = l.weight(i)
		switch {
		case l.Class == nil:
			wide[at] = (l.Values[i] - s.mean) / s.deviation
		case k == 1:
			wide[at] = float64(l.Class[i])
		default:
			wide[at*k+l.Class[i]] = 1
		}
	}
	if y, err = floats(wide, d, len(rows), k); err == nil {
		w, err = floats(weights, d, len(rows), 1)
	}
	return y, w, err
}

// floats returns a tensor of d, Float32 or Float64.
func floats(v []float64, d engine.DType, shape ...int) (*engine.Tensor, error) {
	if d == engine.Float64 {
		return engine.Of(v, shape...)
	}
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return engine.Of(out, shape...)
}

// scale is what labels are divided by after the mean was taken off, so that a
// network's first weights suit labels of any unit.
type scale struct{ mean, deviation float64 }

var noScale = scale{0, 1}

// scaleOf measures the labels of the rows learnt from, where the loss keeps its meaning
// under a change of unit.
func (l *Labels) scaleOf(loss Loss, rows []int) scale {
	if loss != Squared && loss != Huber && loss != Quantile {
		return noScale
	}
	mean, deviation := moments(rows, func(i int) float64 { return l.Values[i] })
	return scale{mean, deviation}
}

// unit is what a loss of scaled labels is multiplied by to be one of the labels.
func (s scale) unit(loss Loss) float64 {
	if loss == Quantile {
		return s.deviation
	}
	return s.deviation * s.deviation
}

// moments returns the mean and the standard deviation over rows of what is no NaN: 0
// and 1 where there is nothing, and 1 where nothing differs.
func moments(rows []int, value func(int) float64) (mean, deviation float64) {
	n := 0
	for _, i := range rows {
		if v := value(i); !math.IsNaN(v) {
			n++
			mean += (v - mean) / float64(n)
		}
	}
	var sum float64
	for _, i := range rows {
		if v := value(i); !math.IsNaN(v) {
			sum += (v - mean) * (v - mean)
		}
	}
	deviation = math.Sqrt(sum / float64(max(n, 1)))
	if !(deviation > 1e-12*math.Abs(mean)) || math.IsInf(deviation, 0) {
		deviation = 1
	}
	return mean, deviation
}
