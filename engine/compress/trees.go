package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/lightgbm"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/engine/xgboost"
)

// forest is a model of trees to be trimmed.
type forest struct {
	in       Input
	format   string
	model    engine.Model
	ensemble *tree.Ensemble // nil where the leaves are linear
	// trees is their number, round how many of them are one boosting round.
	trees, round int
}

// trim makes one of the three changes to trees.
func trim(ctx context.Context, in Input, s Step) (*Result, error) {
	f, err := openForest(in)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	cut := tree.Cut{Keep: f.trees}
	switch s.Kind {
	case Trees:
		err = f.rounds(ctx, r, &cut, int(s.Amount))
	case Least:
		err = f.least(ctx, r, &cut, s.Amount)
	case Leaves:
		err = f.joinLeaves(r, &cut, s.Amount)
	}
	if err != nil {
		return nil, err
	}
	switch f.format {
	case xgboost.Format:
		r.Data, err = xgboost.Cut(in.Data, cut)
	case lightgbm.Format:
		r.Data, err = lightgbm.Cut(in.Data, cut)
	default:
		r.Data, err = cutONNX(in, cut)
	}
	return r, err
}

func openForest(in Input) (*forest, error) {
	m, err := modelfile.Read(filepath.Base(in.Name), in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	f := &forest{in: in, format: m.Info().Format, model: m, round: 1}
	e, ok := tree.Held(m)
	switch {
	case ok:
		f.ensemble, f.trees = e, len(e.Trees)
		f.round = roundOf(e)
	case f.format == lightgbm.Format:
		if f.trees, err = lightgbm.Count(in.Data); err != nil {
			return nil, err
		}
	case f.format == xgboost.Format:
		return nil, refuse("a linear booster has no trees")
	default:
		return nil, refuse("the graph is not one ensemble of trees over its inputs")
	}
	switch f.format {
	case xgboost.Format:
		f.round, err = xgboost.Round(in.Data)
	case lightgbm.Format:
		f.round, err = lightgbm.Round(in.Data)
	}
	if err != nil {
		return nil, err
	}
	if f.trees == 0 {
		return nil, refuse("the model has no trees")
	}
	return f, nil
}

// roundOf is how many trees follow each other before the outputs begin anew.
func roundOf(e *tree.Ensemble) int {
	for i := range e.Trees {
		if e.Trees[i].Output != i%e.Outputs {
			return 1
		}
	}
	return e.Outputs
}

// rounds keeps the first boosting rounds. An ONNX file does not tell a forest, whose
// leaves were divided by the number of trees, from boosting: there what the others gave
// on average stays, as one leaf.
func (f *forest) rounds(ctx context.Context, r *Result, cut *tree.Cut, n int) error {
	have := f.trees / f.round
	if n >= have {
		return refuse("the model has %s, so there is nothing to leave out", count(have, "boosting round", "boosting rounds"))
	}
	keep := n * f.round
	if f.format == xgboost.Format || f.format == lightgbm.Format {
		cut.Keep = keep
		r.change("trees", "the first %d of %d kept", keep, f.trees)
		return nil
	}
	weights, err := f.contributions(ctx)
	if err != nil {
		return err
	}
	cut.Leaves = make([]map[int32][]float64, f.trees)
	for i := keep; i < f.trees; i++ {
		cut.Root(f.ensemble, i, weights[i].mean)
	}
	r.change("trees", "the first %d of %d kept; what the others gave on average is one leaf", keep, f.trees)
	return nil
}

// least makes a leaf of each tree that varies least, by what it gives on average.
func (f *forest) least(ctx context.Context, r *Result, cut *tree.Cut, share float64) error {
	weights, err := f.contributions(ctx)
	if err != nil {
		return err
	}
	var real []int
	for i := range f.ensemble.Trees {
		if len(f.ensemble.Trees[i].Nodes) > 1 {
			real = append(real, i)
		}
	}
	n := int(math.Round(share * float64(len(real))))
	if n == 0 {
		return refuse("%s of %s is less than one", percent(share), count(len(real), "tree", "trees"))
	}
	slices.SortStableFunc(real, func(a, b int) int { return cmp.Compare(weights[a].spread, weights[b].spread) })
	cut.Leaves = make([]map[int32][]float64, f.trees)
	for _, i := range real[:n] {
		cut.Root(f.ensemble, i, weights[i].mean)
	}
	by := "over the rows given"
	if len(f.in.Rows) == 0 {
		by = "over the rows of training"
	}
	r.change("trees", "%d of %d are a single leaf each, the mean of what they gave %s", n, f.trees, by)
	return nil
}

func percent(v float64) string { return fmt.Sprintf("%g %%", 100*v) }

// joinLeaves joins pairs of leaves that are nearly equal, again and again from below.
func (f *forest) joinLeaves(r *Result, cut *tree.Cut, epsilon float64) error {
	if f.ensemble == nil {
		return refuse("its leaves are linear models, which have no one value")
	}
	cut.Leaves = make([]map[int32][]float64, f.trees)
	before, after := 0, 0
	for i := range f.ensemble.Trees {
		t := &f.ensemble.Trees[i]
		joined := join(t, f.ensemble.Outputs, epsilon)
		if len(joined) > 0 {
			cut.Leaves[i] = joined
		}
		before += (len(t.Nodes) + 1) / 2
		after += leavesLeft(t, joined)
	}
	if before == after {
		return refuse("no two leaves of one split differ by less than %g", epsilon)
	}
	r.change("trees", "%d leaves of %d are left: those that differed by less than %g are one", after, before, epsilon)
	return nil
}

// join returns the nodes of t that become leaves. Children have larger indexes than
// their parents, so one pass from the end sees them first.
func join(t *tree.Tree, outputs int, epsilon float64) map[int32][]float64 {
	width := 1
	if t.Output < 0 {
		width = outputs
	}
	out := map[int32][]float64{}
	value := func(n int32) []float64 {
		if v, ok := out[n]; ok {
			return v
		}
		if t.Nodes[n].IsLeaf() {
			return t.Values[int(n)*width:][:width]
		}
		return nil
	}
	for i := int32(len(t.Nodes)) - 1; i >= 0; i-- {
		n := &t.Nodes[i]
		if n.IsLeaf() {
			continue
		}
		a, b := value(n.Left), value(n.Right)
		if a == nil || b == nil || !alike(a, b, epsilon) {
			continue
		}
		wa, wb := t.Nodes[n.Left].Cover, t.Nodes[n.Right].Cover
		if !(wa >= 0 && wb >= 0 && wa+wb > 0) {
			wa, wb = 1, 1
		}
		mean := make([]float64, width)
		for k := range mean {
			mean[k] = (a[k]*wa + b[k]*wb) / (wa + wb)
		}
		out[i] = mean
	}
	return out
}

func alike(a, b []float64, epsilon float64) bool {
	for k := range a {
		if !(math.Abs(a[k]-b[k]) < epsilon) {
			return false
		}
	}
	return true
}

func leavesLeft(t *tree.Tree, joined map[int32][]float64) int {
	n := 0
	stack := []int32{0}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := joined[at]; ok || t.Nodes[at].IsLeaf() {
			n++
			continue
		}
		stack = append(stack, t.Nodes[at].Left, t.Nodes[at].Right)
	}
	return n
}

// contribution is what one tree gives: its mean, and how far it strays from it.
type contribution struct {
	mean   []float64
	spread float64
}

// contributions weighs each tree over the rows, or over those of training where the
// file keeps how many reached each leaf.
func (f *forest) contributions(ctx context.Context) ([]contribution, error) {
	e := f.ensemble
	if e == nil {
		return nil, refuse("its leaves are linear models: only trees:N is possible")
	}
	reached, err := f.reached(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]contribution, len(e.Trees))
	for i := range e.Trees {
		t := &e.Trees[i]
		width := 1
		if t.Output < 0 {
			width = e.Outputs
		}
		out[i] = weigh(t, width, reached[i])
	}
	return out, nil
}

func weigh(t *tree.Tree, width int, reached []float64) contribution {
	c := contribution{mean: make([]float64, width)}
	total := 0.0
	for _, w := range reached {
		total += w
	}
	if total == 0 {
		total = 1
	}
	for n, w := range reached {
		for k := range width {
			c.mean[k] += w / total * t.Values[n*width+k]
		}
	}
	for n, w := range reached {
		for k := range width {
			d := t.Values[n*width+k] - c.mean[k]
			c.spread += w / total * d * d
		}
	}
	return c
}

// reached tells for each tree how much reached each leaf.
func (f *forest) reached(ctx context.Context) ([][]float64, error) {
	e := f.ensemble
	out := make([][]float64, len(e.Trees))
	for i := range e.Trees {
		out[i] = make([]float64, len(e.Trees[i].Nodes))
	}
	if len(f.in.Rows) == 0 {
		if !e.HasCovers() {
			return nil, refuse("the file does not say how many rows reached each leaf: give rows (--input)")
		}
		for i := range e.Trees {
			for n := range e.Trees[i].Nodes {
				if e.Trees[i].Nodes[n].IsLeaf() {
					out[i][n] = max(e.Trees[i].Nodes[n].Cover, 0)
				}
			}
		}
		return out, nil
	}
	x, rows, err := f.matrix(ctx)
	if err != nil {
		return nil, err
	}
	for i := range e.Trees {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for r := range rows {
			out[i][leafOf(&e.Trees[i], x[r*e.Features:])]++
		}
	}
	return out, nil
}

func leafOf(t *tree.Tree, row []float64) int32 {
	n := int32(0)
	for !t.Nodes[n].IsLeaf() {
		node := &t.Nodes[n]
		if t.Left(node, row[node.Feature]) {
			n = node.Left
		} else {
			n = node.Right
		}
	}
	return n
}

// matrix returns the columns the trees read, of some rows.
func (f *forest) matrix(ctx context.Context) ([]float64, int, error) {
	in, err := f.in.Rows.Spread(maxRows)
	if err != nil {
		return nil, 0, err
	}
	t := in[0].Tensor
	if p, ok := f.model.(tree.Preparer); ok {
		if name, _ := p.Columns(); name != "" {
			s, err := f.model.NewSession(engine.SessionOptions{})
			if err != nil {
				return nil, 0, err
			}
			out, err := s.Run(ctx, in, []string{name})
			if err != nil {
				return nil, 0, fmt.Errorf("make the trees' columns: %w", err)
			}
			t = out[0].Tensor
		}
	}
	x, ok := t.Float64s()
	if !ok || len(t.Shape()) != 2 || t.RowLen() < f.ensemble.Features {
		return nil, 0, refuse("the rows are no matrix of the trees' columns")
	}
	if t.RowLen() != f.ensemble.Features {
		return nil, 0, refuse("the rows have %d columns, the trees read %d", t.RowLen(), f.ensemble.Features)
	}
	if f.ensemble.Float32 && t.DType() == engine.Float64 {
		x = slices.Clone(x)
		for i := range x {
			x[i] = float64(float32(x[i]))
		}
	}
	return x, t.Rows(), nil
}
