package trees

import (
	"context"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/train"
)

// maxNames bounds the categories of one column of text.
const maxNames = 1 << 16

// FitColumns fits a model to columns, of which those of text are categories, and holds
// out a share of the rows as train.Split does. Rows without a text are missing ones.
// opt's loss is of the labels: Squared and so on of values, Logistic of two classes,
// Softmax of any; "" is what they suggest.
func FitColumns(ctx context.Context, columns []train.Column, labels *train.Labels, hold float64, opt Options) (*Model, *train.Fitted, error) {
	training, held, err := train.Split(columns, labels, hold, opt.Seed)
	if err != nil {
		return nil, nil, err
	}
	if err := opt.lossOf(labels); err != nil {
		return nil, nil, err
	}
	kinds, err := categoriesOf(columns, training)
	if err != nil {
		return nil, nil, err
	}
	d, err := matrixOf(columns, kinds, labels, training)
	if err != nil {
		return nil, nil, err
	}
	if len(held) > 0 {
		if opt.Valid, err = matrixOf(columns, kinds, labels, held); err != nil {
			return nil, nil, err
		}
	} else {
		opt.Patience = 0
	}
	m, r, err := Fit(ctx, d, opt)
	if err != nil {
		return nil, nil, err
	}
	f := &train.Fitted{
		Loss: losses[opt.Loss], Training: training, Held: held, Weights: m.Nodes(), Epochs: r.Rounds, Best: r.Rounds,
		TrainingLoss: r.Train, HeldLoss: math.NaN(),
	}
	if n := len(r.Valid); n > 0 {
		f.Epochs, f.HeldLoss = n, r.Valid[r.Rounds-1]
	}
	return m, f, nil
}

// losses are the names that engine/train has for them.
var losses = map[Loss]train.Loss{
	Squared: train.Squared, Logistic: train.Logistic, Softmax: train.CrossEntropy, Poisson: train.Poisson, Quantile: train.Quantile,
}

// lossOf fills in the loss that labels suggest, and refuses one that does not fit them.
func (o *Options) lossOf(l *train.Labels) error {
	switch {
	case o.Loss != "":
	case l.Class == nil:
		o.Loss = Squared
	case len(l.Classes) == 2:
		o.Loss = Logistic
	default:
		o.Loss = Softmax
	}
	switch {
	case (o.Loss == Logistic || o.Loss == Softmax) != (l.Class != nil):
		return fmt.Errorf("fit trees: loss %s does not go with these labels", losses[o.Loss])
	case o.Loss == Logistic && len(l.Classes) != 2:
		return fmt.Errorf("fit trees: loss %s is of two classes, and the labels are of %d", losses[o.Loss], len(l.Classes))
	case o.Loss == Softmax:
		o.Classes = len(l.Classes)
	}
	return nil
}

// categoriesOf lists the categories that the rows learnt from have in each column of
// text, nil for columns of numbers.
func categoriesOf(columns []train.Column, training []int) ([][]string, error) {
	out := make([][]string, len(columns))
	for k := range columns {
		c := &columns[k]
		if c.Texts == nil {
			continue
		}
		seen := map[string]bool{}
		for _, i := range training {
			s := c.Texts[i]
			if s == "" || seen[s] {
				continue
			}
			if seen[s] = true; len(seen) > maxNames {
				return nil, fmt.Errorf("column %q has more than %d categories: leave it out, or join some", c.Name, maxNames)
			}
			if !utf8.ValidString(s) {
				return nil, fmt.Errorf("column %q has a category that is no UTF-8", c.Name)
			}
		}
		out[k] = make([]string, 0, len(seen))
		for s := range seen {
			out[k] = append(out[k], s)
		}
		slices.Sort(out[k])
	}
	return out, nil
}

// matrixOf makes the matrix of some rows. A category that is none of those learnt from
// is missing there.
func matrixOf(columns []train.Column, names [][]string, labels *train.Labels, rows []int) (*Data, error) {
	d := &Data{Features: len(columns), X: make([]float32, len(rows)*len(columns)), ClassNames: labels.Classes}
	for k := range columns {
		c := &columns[k]
		d.Names, d.Categorical, d.Categories = append(d.Names, c.Name), append(d.Categorical, c.Texts != nil), names
		for at, i := range rows {
			v := float32(math.NaN())
			if c.Texts == nil {
				if v = float32(c.Numbers[i]); math.IsInf(float64(v), 0) {
					return nil, &engine.InputError{Feature: c.Name, Reason: "a value is not one of 32 bits"}
				}
			} else if code, ok := slices.BinarySearch(names[k], c.Texts[i]); ok {
				v = float32(code)
			}
			d.X[at*d.Features+k] = v
		}
	}
	for _, i := range rows {
		if labels.Class != nil {
			d.Labels = append(d.Labels, float64(labels.Class[i]))
		} else {
			d.Labels = append(d.Labels, labels.Values[i])
		}
		if labels.Weights != nil {
			d.Weights = append(d.Weights, labels.Weights[i])
		}
	}
	return d, nil
}
