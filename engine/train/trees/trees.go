// Package trees fits histogram gradient-boosted trees: values are cut to at most 255
// bins a feature, sums of gradients are kept by bin, and trees grow by the split of
// most gain, as XGBoost's hist and LightGBM do.
//
// It owns the losses, the binning, the growth, and the two forms a fitted model is
// written in (XGBoost's JSON and ONNX); engine/tree predicts. It reads no files and no
// clock.
//
// Invariants: the same data, options and seed give the same bits, whatever the number
// of threads. Sums over rows are of integers (gradients of a tree scaled by a power of
// two to 19 bits), whose order does not matter; leaves sum the gradients themselves,
// each in the order of its rows. A model's margins are those engine/tree and XGBoost
// compute from its file. Data is a stranger's: what is not usable is an error that
// holds no value of it.
package trees

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

	"github.com/pellucid/pellucid/engine"
)

// Loss is what is minimised.
type Loss string

// The losses. Classes of Softmax are labels 0, 1, and so on; labels of Logistic are 0
// and 1, or shares between them.
const (
	Squared  Loss = "squared"
	Logistic Loss = "logistic"
	Softmax  Loss = "softmax"
	Poisson  Loss = "poisson"
	Quantile Loss = "quantile"
)

// Growth is the order in which leaves are split.
type Growth string

// The orders: level by level, or the leaf of most gain first.
const (
	DepthWise Growth = "depth"
	LeafWise  Growth = "leaf"
)

// Limits of what is fitted.
const (
	MaxBins     = 255
	MaxRows     = math.MaxInt32
	MaxFeatures = 1 << 16
	MaxClasses  = 1 << 10
	// MaxCategory is the largest code of a category, as in XGBoost.
	MaxCategory = 1<<24 - 1
	maxDepth    = 64
	maxLeaves   = 1 << 20
	maxNodes    = 1 << 26 // of all trees
)

// Data is rows to fit on.
type Data struct {
	// X holds the rows, Features values each; NaN is missing.
	X        []float32
	Features int
	Labels   []float64
	// Weights of the rows; nil weighs all alike.
	Weights []float64
	// Names of the features; nil makes them f0, f1, and so on.
	Names []string
	// Categorical says which features are codes of categories: 0, 1, and so on, where
	// what is negative is missing. nil means none.
	Categorical []bool
	// Categories are the names of codes, of features that have them; nil means none.
	// Files then take those for the codes.
	Categories [][]string
	// ClassNames are what the classes are called; nil makes them 0, 1, and so on.
	ClassNames []string
}

// Options say how to fit. Zero means the default where one is named, else none.
type Options struct {
	Loss Loss // Squared
	// Classes of Softmax.
	Classes int
	// Quantile of the loss of that name, between 0 and 1.
	Quantile float64
	Rounds   int     // 100
	Rate     float64 // 0.1: the factor of each tree's leaves
	Growth   Growth  // DepthWise
	// MaxDepth is the deepest level of a leaf: 6 where MaxLeaves is 0 too, else
	// bounded by MaxLeaves only.
	MaxDepth, MaxLeaves int
	Bins                int // 255
	// Lambda is added to a leaf's sum of hessians, Gamma is the least gain of a
	// split, MinChildWeight the least sum of hessians of its sides.
	Lambda, Gamma, MinChildWeight float64
	// Subsample and FeatureShare are the shares of rows and features that each tree
	// sees, drawn by Seed; 0 means all.
	Subsample, FeatureShare float64
	Seed                    uint64
	// Monotone has an element a feature: 1 where predictions may not fall as it
	// rises, -1 where they may not rise. nil means neither.
	Monotone []int8
	// LevelShare is the share of a tree's features that each of its levels sees, drawn
	// by Seed; 0 means all.
	LevelShare float64
	// MinChildRows is the least number of drawn rows on each side of a split, whatever
	// they weigh.
	MinChildRows int
	// OneVsRest has a split of categories hold one against all others; otherwise it
	// holds a set of them, which ONNX cannot say.
	OneVsRest bool
	// Valid is held-out data, whose loss is reported. With Patience, fitting stops when
	// that has not fallen for as many rounds, and the model keeps the trees up to the
	// least.
	Valid    *Data
	Patience int
	// Threads at most; 0 means 1. They change no bit.
	Threads int
	// MaxBytes bounds the memory of the fit, its data not counted; 0 means 4 GiB.
	MaxBytes int64
	// Progress, where set, is called after each round with the held-out loss, NaN
	// without held-out data.
	Progress func(round int, loss float64)
}

// Report tells what a fit did. Losses are means a unit of weight.
type Report struct {
	Rows, Rounds int
	Train        float64
	// Valid has the held-out loss of each round that was fitted, Best the round, from
	// 1, of the least: the last that is kept.
	Valid []float64
	Best  int
	// Bins of each feature, missing not counted.
	Bins []int
}

func (o Options) withDefaults() Options {
	if o.Loss == "" {
		o.Loss = Squared
	}
	if o.Growth == "" {
		o.Growth = DepthWise
	}
	if o.Rounds == 0 {
		o.Rounds = 100
	}
	if o.Rate == 0 {
		o.Rate = 0.1
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = 6
		if o.MaxLeaves > 0 {
			o.MaxDepth = maxDepth
		}
	}
	if o.MaxLeaves == 0 {
		o.MaxLeaves = maxLeaves
	}
	if o.Bins == 0 {
		o.Bins = MaxBins
	}
	if o.Subsample == 0 {
		o.Subsample = 1
	}
	if o.FeatureShare == 0 {
		o.FeatureShare = 1
	}
	if o.LevelShare == 0 {
		o.LevelShare = 1
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	o.Threads = min(max(o.Threads, 1), 256)
	return o
}

// outputs is the number of margins.
func (o *Options) outputs() int {
	if o.Loss == Softmax {
		return o.Classes
	}
	return 1
}

func (o *Options) check(features int) error {
	finite := func(v float64) bool { return v >= 0 && v <= math.MaxFloat32 }
	share := func(v float64) bool { return v > 0 && v <= 1 }
	switch {
	case o.Loss != Squared && o.Loss != Logistic && o.Loss != Softmax && o.Loss != Poisson && o.Loss != Quantile:
		return fmt.Errorf("unknown loss %q", o.Loss)
	case o.Growth != DepthWise && o.Growth != LeafWise:
		return fmt.Errorf("unknown growth %q", o.Growth)
	case o.Loss == Softmax && (o.Classes < 2 || o.Classes > MaxClasses):
		return fmt.Errorf("%d classes, want 2 to %d", o.Classes, MaxClasses)
	case o.Loss == Quantile && !(o.Quantile > 0 && o.Quantile < 1):
		return errors.New("the quantile is not between 0 and 1")
	case o.Rounds < 1 || o.Rounds > maxLeaves:
		return fmt.Errorf("%d rounds, want 1 to %d", o.Rounds, maxLeaves)
	case !(o.Rate > 0) || !finite(o.Rate):
		return errors.New("the rate is not above 0")
	case o.MaxDepth < 1 || o.MaxDepth > maxDepth:
		return fmt.Errorf("a depth of %d, want 1 to %d", o.MaxDepth, maxDepth)
	case o.MaxLeaves < 2 || o.MaxLeaves > maxLeaves:
		return fmt.Errorf("%d leaves, want 2 to %d", o.MaxLeaves, maxLeaves)
	case o.Bins < 2 || o.Bins > MaxBins:
		return fmt.Errorf("%d bins, want 2 to %d", o.Bins, MaxBins)
	case !finite(o.Lambda) || !finite(o.Gamma) || !finite(o.MinChildWeight):
		return errors.New("lambda, gamma or the least weight of a child is negative or not finite")
	case !share(o.Subsample) || !share(o.FeatureShare) || !share(o.LevelShare):
		return errors.New("the share of rows or features is not above 0 and at most 1")
	case o.MinChildRows < 0:
		return errors.New("the least number of rows of a child is negative")
	case o.Patience < 0 || o.Patience > 0 && o.Valid == nil:
		return errors.New("patience without held-out data")
	case o.Monotone != nil && len(o.Monotone) != features:
		return fmt.Errorf("%d monotone constraints for %d features", len(o.Monotone), features)
	case o.Monotone != nil && o.Loss == Quantile:
		return &engine.UnsupportedError{What: "monotone constraints with the quantile loss", Reason: "its leaves are quantiles of what is left, which the constraints do not bound"}
	}
	return nil
}

// rows is the number of rows, which check has found to be whole.
func (d *Data) rows() int { return len(d.Labels) }

func (d *Data) categorical(f int) bool { return d.Categorical != nil && d.Categorical[f] }

// check refuses what cannot be fitted. Its errors name a feature, never a value.
func (d *Data) check(o *Options) error {
	n := d.rows()
	switch {
	case n == 0:
		return errors.New("no rows")
	case n > MaxRows:
		return fmt.Errorf("%d rows, more than %d", n, MaxRows)
	case d.Features < 1 || d.Features > MaxFeatures:
		return fmt.Errorf("%d features, want 1 to %d", d.Features, MaxFeatures)
	case len(d.X) != n*d.Features:
		return fmt.Errorf("%d values do not make %d rows of %d", len(d.X), n, d.Features)
	case d.Weights != nil && len(d.Weights) != n:
		return fmt.Errorf("%d weights for %d rows", len(d.Weights), n)
	case d.Names != nil && len(d.Names) != d.Features:
		return fmt.Errorf("%d names for %d features", len(d.Names), d.Features)
	case d.Categorical != nil && len(d.Categorical) != d.Features:
		return fmt.Errorf("%d kinds for %d features", len(d.Categorical), d.Features)
	case d.Categories != nil && len(d.Categories) != d.Features:
		return fmt.Errorf("names of categories of %d features for %d", len(d.Categories), d.Features)
	case d.ClassNames != nil && (o.Loss == Softmax && len(d.ClassNames) != o.Classes || o.Loss == Logistic && len(d.ClassNames) != 2):
		return fmt.Errorf("%d names of classes", len(d.ClassNames))
	}
	if err := d.checkTruth(o); err != nil {
		return err
	}
	for i, v := range d.X {
		f := i % d.Features
		if math.IsInf(float64(v), 0) {
			return &engine.InputError{Feature: d.name(f), Reason: "a value is infinite"}
		}
		if d.categorical(f) && (v > MaxCategory || v >= 0 && v != float32(int32(v))) {
			return &engine.InputError{Feature: d.name(f), Reason: fmt.Sprintf("a category is no whole number up to %d", MaxCategory)}
		}
		if n := d.names(f); n != nil && v >= float32(len(n)) {
			return &engine.InputError{Feature: d.name(f), Reason: "a category has no name"}
		}
	}
	for f := range d.Features {
		if d.categorical(f) && o.Monotone != nil && o.Monotone[f] != 0 {
			return &engine.InputError{Feature: d.name(f), Reason: "categories have no order that predictions could follow"}
		}
	}
	return nil
}

func (d *Data) checkTruth(o *Options) error {
	sum := 0.0
	for i, y := range d.Labels {
		w := d.weight(i)
		if !(w >= 0 && w <= math.MaxFloat32) {
			return fmt.Errorf("row %d: its weight is negative or not finite", i)
		}
		sum += w
		if fault := o.labelFault(y); fault != "" {
			return fmt.Errorf("row %d: its label %s", i, fault)
		}
	}
	if !(sum > 0) || sum > math.MaxFloat32 {
		return errors.New("the sum of the weights is 0 or too large")
	}
	return nil
}

// maxLabel keeps squares and sums of labels finite in float32.
const maxLabel = 1e15

func (o *Options) labelFault(y float64) string {
	switch {
	case !(math.Abs(y) <= maxLabel):
		return "is not finite, or too large"
	case o.Loss == Logistic && (y < 0 || y > 1):
		return "is not between 0 and 1"
	case o.Loss == Poisson && y < 0:
		return "is negative"
	case o.Loss == Softmax && (y != math.Trunc(y) || y < 0 || y >= float64(o.Classes)):
		return "is no class"
	}
	return ""
}

func (d *Data) weight(i int) float64 {
	if d.Weights == nil {
		return 1
	}
	return d.Weights[i]
}

// names are those of a feature's categories, nil where they have none.
func (d *Data) names(f int) []string {
	if d.Categories == nil || !d.categorical(f) {
		return nil
	}
	return d.Categories[f]
}

func (d *Data) name(f int) string {
	if d.Names == nil {
		return "f" + strconv.Itoa(f)
	}
	return d.Names[f]
}

// Fit fits a model to d. It ends with the context's error when ctx is done.
func Fit(ctx context.Context, d *Data, opt Options) (*Model, *Report, error) {
	o := opt.withDefaults()
	if err := o.check(d.Features); err != nil {
		return nil, nil, fmt.Errorf("fit trees: %w", err)
	}
	if err := d.check(&o); err != nil {
		return nil, nil, fmt.Errorf("fit trees: %w", err)
	}
	if v := o.Valid; v != nil {
		if v.Features != d.Features {
			return nil, nil, fmt.Errorf("fit trees: held-out rows have %d features, not %d", v.Features, d.Features)
		}
		held := *v
		held.Categorical = d.Categorical
		o.Valid = &held
		if err := held.check(&o); err != nil {
			return nil, nil, fmt.Errorf("fit trees: held-out rows: %w", err)
		}
	}
	f, err := newFitter(ctx, d, &o)
	if err != nil {
		return nil, nil, fmt.Errorf("fit trees: %w", err)
	}
	m, r, err := f.fit(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("fit trees: %w", err)
	}
	return m, r, nil
}

// spread cuts 0..n into at most threads parts of at least least, and calls f for each
// at the same time. How it cuts may change no result.
func spread(n, threads, least int, f func(part, from, to int)) {
	parts := min(threads, max(n/max(least, 1), 1))
	if parts <= 1 {
		f(0, 0, n)
		return
	}
	var wg sync.WaitGroup
	for p := 1; p < parts; p++ {
		wg.Go(func() { f(p, p*n/parts, (p+1)*n/parts) })
	}
	f(0, 0, n/parts)
	wg.Wait()
}
