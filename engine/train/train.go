// Package train fits models to labelled rows: linear models and multi-layer
// perceptrons from tables (Fit), and dense layers of an ONNX network anew (Tune). It
// owns the losses, the optimisers and how rows become a network's inputs, and writes
// what it made as one ONNX file that takes raw values.
//
// It owns no arithmetic of its own: values and gradients are those of engine/graph
// and engine/autodiff, so what is fitted is what will be served. It reads no files
// and knows no store; trees are fitted elsewhere.
//
// Invariants: the same rows, settings and seed give the same bits, whatever the number
// of threads (rows are cut into parts by their number alone, and what the parts give is
// added in order); a row of the held-out part never moves a weight, nor a mean; a loss
// that is not finite ends the fit with an error, and nothing is written; memory is
// bounded by the rows given and Config.MaxBytes.
package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// ErrDiverged is wrapped by the error of a fit whose loss is no number any more.
var ErrDiverged = errors.New("the loss is not finite")

// Loss names what is minimised.
type Loss string

// The losses. Those of classes are over margins: a model's last step, a softmax, is
// added behind them.
const (
	Squared      Loss = "squared"
	Huber        Loss = "huber"
	Quantile     Loss = "quantile"
	Poisson      Loss = "poisson"
	Logistic     Loss = "logistic"
	CrossEntropy Loss = "cross_entropy"
)

// Losses lists every loss.
var Losses = []Loss{Squared, Huber, Quantile, Poisson, Logistic, CrossEntropy}

// Classifies reports whether the loss is of classes, not of numbers.
func (l Loss) Classifies() bool { return l == Logistic || l == CrossEntropy }

// Optimiser names how weights are moved.
type Optimiser string

// The optimisers. LBFGS takes all rows at each step and stops where the gradient
// vanishes: the choice for linear models, whose losses are convex.
const (
	LBFGS Optimiser = "lbfgs"
	SGD   Optimiser = "sgd"
	Adam  Optimiser = "adam"
)

// Optimisers lists every optimiser.
var Optimisers = []Optimiser{LBFGS, SGD, Adam}

// Schedule names how the learning rate goes on.
type Schedule string

// The schedules, from the learning rate given to 0 but for Constant.
const (
	Constant Schedule = "constant"
	Linear   Schedule = "linear"
	Cosine   Schedule = "cosine"
)

// Schedules lists every schedule.
var Schedules = []Schedule{Constant, Linear, Cosine}

// Activations are those a hidden layer may have, by the name of a flag, with ONNX's
// operator.
var Activations = map[string]string{
	"relu": "Relu", "tanh": "Tanh", "gelu": "Gelu", "sigmoid": "Sigmoid", "elu": "Elu", "selu": "Selu", "leaky_relu": "LeakyRelu", "softplus": "Softplus",
}

// Config says how to fit. The zero value of a field is the default it documents.
type Config struct {
	// Hidden are the sizes of the hidden layers; none makes a linear model.
	Hidden []int
	// Activation is one of Activations; "" means relu.
	Activation string
	// Loss is what is minimised; "" means squared for numbers, logistic for two
	// classes and cross_entropy for more.
	Loss Loss
	// Delta is where Huber's loss turns linear, in the label's unit; 0 means one
	// standard deviation of it.
	Delta float64
	// Quantile is the share of labels that the quantile loss wants below; 0 means 0.5.
	Quantile float64

	// Optimiser; "" means lbfgs for a linear model whose loss has a gradient
	// everywhere, adam for any other.
	Optimiser Optimiser
	// Rate is the learning rate; 0 means 0.001 for adam, 0.01 for sgd. Schedule is how
	// it goes on; "" means constant.
	Rate     float64
	Schedule Schedule
	// Momentum and Nesterov are sgd's. Beta1, Beta2 and Epsilon are adam's; 0 means
	// 0.9, 0.999 and 1e-8.
	Momentum              float64
	Nesterov              bool
	Beta1, Beta2, Epsilon float64
	// Decay shrinks weights by this share of the rate a step, apart from the gradient
	// (AdamW). L2 adds L2/2 times the sum of squared weights to the mean loss. Biases
	// are left out of both.
	Decay, L2 float64

	// Epochs is how often all rows are seen, at most; 0 means 100, for lbfgs 1000 steps.
	Epochs int
	// Batch is the rows of a step; 0 means 256. lbfgs takes all.
	Batch int
	// Hold is the share of rows that is held out, to stop early and to measure by: 0
	// means none. Where Labels.Order is given it is the last ones, else drawn by Seed.
	Hold float64
	// Patience is how many epochs without a smaller held-out loss end the fit; 0 means
	// 10, below 0 that none does. The weights kept are those of the best epoch.
	Patience int
	// Seed is of the split, the first weights and the order of rows.
	Seed uint64
	// Threads is how many cores to use; 0 means 1. They change no bit.
	Threads int
	// MaxBytes bounds the values of one part of a batch on one thread; 0 means 1 GiB.
	MaxBytes int64
	// Layers is how many dense layers Tune fits anew, from the last; 0 means 1, below 0
	// all.
	Layers int
	// Step, where it is not nil, is told after each epoch.
	Step func(Progress)
}

// Progress is where a fit stands. Held is NaN where no rows are held out.
type Progress struct {
	Epoch, Epochs  int
	Training, Held float64
}

// The bounds of what is fitted.
const (
	maxHidden  = 64
	maxUnits   = 1 << 16
	maxParams  = 1 << 26
	maxClasses = 1000
)

// check refuses what makes no sense and fills in what does not depend on the labels.
func (c Config) check() (Config, error) {
	if c.Activation == "" {
		c.Activation = "relu"
	}
	if Activations[c.Activation] == "" {
		return c, fmt.Errorf("activation %q is not known", c.Activation)
	}
	if c.Schedule == "" {
		c.Schedule = Constant
	}
	for _, x := range []struct {
		what, value string
		known       []string
	}{
		{"loss", string(c.Loss), texts(Losses)}, {"optimizer", string(c.Optimiser), texts(Optimisers)}, {"schedule", string(c.Schedule), texts(Schedules)},
	} {
		if x.value != "" && !slices.Contains(x.known, x.value) {
			return c, fmt.Errorf("%s %q is none of %s", x.what, x.value, strings.Join(x.known, ", "))
		}
	}
	if len(c.Hidden) > maxHidden || slices.ContainsFunc(c.Hidden, func(n int) bool { return n < 1 || n > maxUnits }) {
		return c, fmt.Errorf("hidden layers %v: at most %d, of 1 to %d units each", c.Hidden, maxHidden, maxUnits)
	}
	c.Quantile = orElse(c.Quantile, 0.5)
	c.Beta1, c.Beta2, c.Epsilon = orElse(c.Beta1, 0.9), orElse(c.Beta2, 0.999), orElse(c.Epsilon, 1e-8)
	for _, x := range []struct {
		what        string
		value, most float64 // most itself is too much
	}{
		{"delta", c.Delta, math.MaxFloat64},
		{"quantile", c.Quantile, 1},
		{"learning rate", c.Rate, math.MaxFloat64},
		{"momentum", c.Momentum, 1},
		{"beta1", c.Beta1, 1},
		{"beta2", c.Beta2, 1},
		{"epsilon", c.Epsilon, 1},
		{"weight decay", c.Decay, math.MaxFloat64},
		{"l2", c.L2, math.MaxFloat64},
		{"share held out", c.Hold, 1},
	} {
		if !(x.value >= 0 && x.value < x.most) {
			return c, fmt.Errorf("a %s of %v is out of range", x.what, x.value)
		}
	}
	if c.Nesterov && c.Momentum == 0 {
		return c, errors.New("nesterov needs a momentum")
	}
	if c.Epochs < 0 || c.Batch < 0 || c.Threads < 0 {
		return c, errors.New("epochs, batch and threads are not below 0")
	}
	c.Batch = orElse(c.Batch, 256)
	c.Patience = orElse(c.Patience, 10)
	c.Threads = max(c.Threads, 1)
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
	return c, nil
}

// choose fills in what follows from the loss.
func (c Config) choose(loss Loss, convex bool) (Config, error) {
	c.Loss = loss
	if c.Optimiser == "" {
		c.Optimiser = Adam
		if convex && loss != Quantile {
			c.Optimiser = LBFGS
		}
	}
	switch {
	case c.Optimiser == LBFGS && (c.Momentum > 0 || c.Decay > 0 || c.Rate > 0 || c.Schedule != Constant):
		return c, errors.New("lbfgs finds its own steps: a learning rate, schedule, momentum and weight decay have no effect (l2 has)")
	case c.Optimiser == Adam && c.Momentum > 0:
		return c, errors.New("momentum is sgd's; adam has beta1")
	}
	if c.Optimiser == LBFGS {
		c.Epochs = orElse(c.Epochs, 1000)
	}
	c.Epochs = orElse(c.Epochs, 100)
	rate := 0.01
	if c.Optimiser == Adam {
		rate = 0.001
	}
	c.Rate = orElse(c.Rate, rate)
	return c, nil
}

func orElse[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}
