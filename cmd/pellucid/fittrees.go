package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/engine/train"
	"github.com/pellucid/pellucid/engine/train/trees"
)

const treesKind = "trees"

// treeFlags are those of --kind trees alone, notTrees those that it has not.
var (
	treeFlags = []string{"rounds", "depth", "leaves", "monotone", "lambda", "gamma", "min-child-weight", "min-child-rows", "subsample", "column-share", "level-share", "bins"}
	notTrees  = []string{"optimizer", "schedule", "momentum", "nesterov", "weight-decay", "l2", "epochs", "batch", "delta", "hidden", "activation", "layers"}
)

func (o *fitOptions) treeFlags(cmd *cobra.Command) {
	f, t := cmd.Flags(), &o.trees
	f.IntVar(&t.Rounds, "rounds", 100, "trees, of each class where there are more than two")
	f.IntVar(&t.MaxDepth, "depth", 0, "deepest level of a leaf (default: 6, or with --leaves none)")
	f.IntVar(&t.MaxLeaves, "leaves", 0, "leaves of a tree at most, those of most gain first (default: what --depth leaves)")
	f.StringSliceVar(&o.monotone, "monotone", nil, "COLUMN=+1 or COLUMN=-1: predictions may only rise, or fall, with it")
	f.Float64Var(&t.Lambda, "lambda", 1, "added to a leaf's sum of hessians")
	f.Float64Var(&t.Gamma, "gamma", 0, "least gain of a split")
	f.Float64Var(&t.MinChildWeight, "min-child-weight", 1, "least sum of hessians on each side of a split")
	f.IntVar(&t.MinChildRows, "min-child-rows", 1, "least number of rows on each side of a split")
	f.Float64Var(&t.Subsample, "subsample", 1, "share of rows that a tree sees")
	f.Float64Var(&t.FeatureShare, "column-share", 1, "share of columns that a tree sees")
	f.Float64Var(&t.LevelShare, "level-share", 1, "share of a tree's columns that each level of it sees")
	f.IntVar(&t.Bins, "bins", trees.MaxBins, "bins of a column of numbers, at most")
}

// treeLosses are the losses of trees, by the names of --loss.
var treeLosses = map[train.Loss]trees.Loss{
	"": "", train.Squared: trees.Squared, train.Quantile: trees.Quantile, train.Poisson: trees.Poisson, train.Logistic: trees.Logistic, train.CrossEntropy: trees.Softmax,
}

// checkTrees completes the options of trees.
func (o *fitOptions) checkTrees(given func(...string) error) error {
	if o.kind != treesKind {
		return given(treeFlags...)
	}
	if err := given(notTrees...); err != nil {
		return err
	}
	loss, ok := treeLosses[o.cfg.Loss]
	if !ok {
		return usage(fmt.Errorf("--loss %s is not one of trees", o.loss))
	}
	t := &o.trees
	if t.Rounds < 1 || t.MaxDepth < 0 || t.MaxLeaves < 0 || t.Bins < 1 || !(t.Subsample > 0) || !(t.FeatureShare > 0) || !(t.LevelShare > 0) || o.cfg.Rate < 0 {
		return usage(errors.New("--rounds, --bins and shares are above 0, and --depth, --leaves and --learning-rate not below"))
	}
	t.Loss, t.Quantile, t.Rate, t.Seed, t.Threads, t.Patience = loss, o.cfg.Quantile, o.cfg.Rate, o.seed, o.cfg.Threads, max(o.cfg.Patience, 0)
	if t.MaxLeaves > 0 {
		t.Growth = trees.LeafWise
	}
	// Sets of categories are XGBoost's.
	t.OneVsRest = !o.xgboost()
	return nil
}

// xgboost reports whether the file is XGBoost's JSON: where its name says so, and in a
// folder but for what only ONNX can hold.
func (o *fitOptions) xgboost() bool {
	if o.kind != treesKind {
		return false
	}
	if o.toFolder() {
		return o.calibrate == ""
	}
	return strings.EqualFold(filepath.Ext(o.output), ".json")
}

// constraints are those of --monotone, by column.
func (o *fitOptions) constraints(columns []train.Column) ([]int8, error) {
	if len(o.monotone) == 0 {
		return nil, nil
	}
	out := make([]int8, len(columns))
	for _, text := range o.monotone {
		at := strings.LastIndex(text, "=")
		if at < 0 {
			return nil, usage(fmt.Errorf("--monotone %q is no COLUMN=+1 or COLUMN=-1", text))
		}
		name := text[:at]
		sign, err := strconv.Atoi(text[at+1:])
		if err != nil || sign != 1 && sign != -1 {
			return nil, usage(fmt.Errorf("--monotone %q is no COLUMN=+1 or COLUMN=-1", text))
		}
		k := slices.IndexFunc(columns, func(c train.Column) bool { return c.Name == name })
		if k < 0 {
			return nil, usage(fmt.Errorf("--monotone: %q is none of the features", name))
		}
		if columns[k].Texts != nil {
			return nil, usage(fmt.Errorf("--monotone: %q is categories, which have no order", name))
		}
		out[k] = int8(sign)
	}
	return out, nil
}

// fitTrees fits trees and writes them in the form of the file's name.
func (o *fitOptions) fitTrees(ctx context.Context, columns []train.Column, labels *train.Labels, bar *progress) (*train.Fitted, error) {
	t := o.trees
	var err error
	if t.Monotone, err = o.constraints(columns); err != nil {
		return nil, err
	}
	bar.start("fit", t.Rounds)
	t.Progress = func(int, float64) { bar.add(1) }
	m, f, err := trees.FitColumns(ctx, columns, labels, o.cfg.Hold, t)
	bar.finish()
	if err != nil {
		return nil, err
	}
	f.Output = m.Output()
	if o.xgboost() {
		f.Output = "" // the only one
		f.Model, err = m.XGBoost()
	} else {
		f.Model, err = m.ONNX()
	}
	return f, err
}
