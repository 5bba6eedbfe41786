package trees

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
)

// exact are the cases of make_trees.py whose trees have to be XGBoost's.
var exact = map[string]struct {
	opt      Options
	columns  int
	weighted bool
}{
	"squared":  {Options{MaxDepth: 6, Rate: 1}, 5, false},
	"rounds":   {Options{MaxDepth: 4, Rate: 0.3, Lambda: 1, MinChildWeight: 5}, 5, false},
	"weighted": {Options{MaxDepth: 5, Rate: 0.5, Lambda: 2, Gamma: 3, MinChildWeight: 2}, 5, true},
	"leafwise": {Options{MaxLeaves: 17, Growth: LeafWise, Rate: 0.5, Lambda: 1, MinChildWeight: 1}, 5, false},
	"logistic": {Options{Loss: Logistic, MaxDepth: 4, Rate: 0.3, Lambda: 1, MinChildWeight: 1}, 5, true},
	"softmax":  {Options{Loss: Softmax, Classes: 3, MaxDepth: 3, Rate: 0.3, Lambda: 1, MinChildWeight: 1}, 5, false},
	"poisson":  {Options{Loss: Poisson, MaxDepth: 3, Rate: 0.3, Lambda: 1, MinChildWeight: 1}, 5, false},
	"monotone": {Options{MaxDepth: 4, Rate: 0.5, Lambda: 1, MinChildWeight: 1, Monotone: []int8{1, -1, 1, 0, 0}}, 5, false},
	"onehot":   {Options{MaxDepth: 4, Rate: 0.5, Lambda: 1, MinChildWeight: 1, OneVsRest: true}, 6, false},
	"sets":     {Options{MaxDepth: 4, Rate: 0.5, Lambda: 1, MinChildWeight: 1}, 6, false},
}

func exactData(opt *Options, width int, weighted bool) *Data {
	x, y := grid(600)
	d := &Data{X: columns(x, 6, width), Features: width, Labels: y}
	if width == 6 {
		d.Categorical = []bool{5: true}
	}
	for i, v := range y {
		switch opt.Loss {
		case Logistic:
			y[i] = 0
			if v > 4 {
				y[i] = 1
			}
		case Softmax:
			y[i] = min(max(math.Floor(v/3), 0), 2)
		case Poisson:
			y[i] = math.Floor(math.Abs(v))
		}
	}
	if weighted {
		d.Weights = uniform(4, len(y))
		for i, u := range d.Weights {
			d.Weights[i] = math.Floor(u*3)/2 + 0.25
		}
	}
	return d
}

// TestExact holds trees over few distinct values against XGBoost's, split by split.
func TestExact(t *testing.T) {
	o := readOracle(t)
	for name, c := range exact {
		t.Run(name, func(t *testing.T) {
			want, ok := o.Exact[name]
			if !ok {
				t.Fatal("make_trees.py has no such case")
			}
			c.opt.Rounds = want.Rounds
			m, _, err := Fit(context.Background(), exactData(&c.opt, c.columns, c.weighted), c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.trees) != len(want.Trees) {
				t.Fatalf("%d trees, want %d", len(m.trees), len(want.Trees))
			}
			for i, raw := range want.Trees {
				if err := same(m.trees[i], 0, raw); err != nil {
					t.Fatalf("tree %d: %v", i, err)
				}
			}
		})
	}
}

// same holds a subtree against [feature, threshold, default left, left, right] or
// [value].
func same(nodes []fitted, at int32, raw json.RawMessage) error {
	n := &nodes[at]
	var want []json.RawMessage
	if err := json.Unmarshal(raw, &want); err != nil {
		return err
	}
	if len(want) == 1 {
		var v float64
		if err := json.Unmarshal(want[0], &v); err != nil {
			return err
		}
		if n.left != 0 || math.Abs(float64(n.value)-v) > 2e-6*(1+math.Abs(v)) {
			return fmt.Errorf("node %d: %+v, want a leaf of %v", at, *n, v)
		}
		return nil
	}
	var feature int32
	var missingLeft int
	if err := json.Unmarshal(want[0], &feature); err != nil {
		return err
	}
	if err := json.Unmarshal(want[2], &missingLeft); err != nil {
		return err
	}
	if n.left == 0 || n.feature != feature || n.missingLeft != (missingLeft == 1) {
		return fmt.Errorf("node %d: %+v, want feature %d, missing left %d", at, *n, feature, missingLeft)
	}
	if err := sameRule(n, want[1]); err != nil {
		return fmt.Errorf("node %d: %w", at, err)
	}
	if err := same(nodes, n.left, want[3]); err != nil {
		return err
	}
	return same(nodes, n.right, want[4])
}

func sameRule(n *fitted, raw json.RawMessage) error {
	if n.categorical {
		var set []int32
		if err := json.Unmarshal(raw, &set); err != nil {
			return err
		}
		// XGBoost's set may have categories that no row of the node has; the leaves
		// tell whether the rows are the same.
		for _, c := range n.set {
			if !slices.Contains(set, c) {
				return fmt.Errorf("categories %v, want %v", n.set, set)
			}
		}
		return nil
	}
	var threshold float64
	if err := json.Unmarshal(raw, &threshold); err != nil {
		return err
	}
	if n.threshold != float32(threshold) {
		return fmt.Errorf("threshold %v, want %v", n.threshold, threshold)
	}
	return nil
}
