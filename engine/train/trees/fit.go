package trees

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
)

// errDiverged is what huge weights, or labels far apart without Lambda, end in.
var errDiverged = errors.New("a leaf or its cover is not finite: labels and weights are too large for float32")

// fitter is one fit under way.
type fitter struct {
	opt             *Options
	data            *Data
	outputs         int
	bins            *binned
	grower          *grower
	labels, weights []float32
	margins, means  []float32 // a row's outputs stand together
	g, h            []float32 // of one output
	sample          []int32
	held            *binned
	heldMargins     []float32
	model           *Model
	report          *Report
}

// newFitter bins the data and takes all memory that a fit needs but for histograms.
func newFitter(ctx context.Context, d *Data, o *Options) (*fitter, error) {
	n, k := d.rows(), o.outputs()
	stride := (d.Features + block - 1) / block * block
	need := int64(n) * int64(stride+d.Features+40+8*k)
	if o.Valid != nil {
		need += int64(o.Valid.rows()) * int64(stride+4*k)
	}
	if need > o.MaxBytes {
		return nil, fmt.Errorf("%d rows and %d features: %w", n, d.Features, engine.ErrTooLarge)
	}
	b, err := newBins(ctx, d, o)
	if err != nil {
		return nil, err
	}
	most, err := histograms(o, b, o.MaxBytes-need)
	if err != nil {
		return nil, err
	}
	f := &fitter{
		opt: o, data: d, outputs: k, bins: b, grower: newGrower(o, b, most),
		labels: make([]float32, n), margins: make([]float32, n*k), means: make([]float32, n*k),
		g: make([]float32, n), h: make([]float32, n), report: &Report{Rows: n},
	}
	for i, y := range d.Labels {
		f.labels[i] = float32(y)
	}
	if d.Weights != nil {
		f.weights = make([]float32, n)
		for i, w := range d.Weights {
			f.weights[i] = float32(w)
		}
	}
	for i := range b.cut {
		f.report.Bins = append(f.report.Bins, b.cut[i].values)
	}
	stored, margins := base(d, o)
	f.model = newModel(d, o, stored, margins)
	repeat(f.margins, margins)
	if o.Valid != nil {
		if f.held, err = b.of(ctx, o.Valid, o, false); err != nil {
			return nil, err
		}
		f.heldMargins = make([]float32, o.Valid.rows()*k)
		repeat(f.heldMargins, margins)
	}
	return f, nil
}

func repeat(out, v []float32) {
	for i := range out {
		out[i] = v[i%len(v)]
	}
}

func (f *fitter) fit(ctx context.Context) (*Model, *Report, error) {
	least, r := math.Inf(1), f.report
	for round := 1; round <= f.opt.Rounds; round++ {
		if err := f.round(ctx, round); err != nil {
			return nil, nil, fmt.Errorf("round %d: %w", round, err)
		}
		loss := math.NaN()
		if f.held != nil {
			loss = f.opt.meanLoss(f.opt.Valid, f.heldMargins)
			r.Valid = append(r.Valid, loss)
			if loss < least {
				least, r.Best = loss, round
			}
		}
		if f.opt.Progress != nil {
			f.opt.Progress(round, loss)
		}
		if f.opt.Patience > 0 && round-r.Best >= f.opt.Patience {
			break
		}
	}
	if f.opt.Patience > 0 {
		f.model.trees = f.model.trees[:max(r.Best, 1)*f.outputs]
	}
	r.Rounds = len(f.model.trees) / f.outputs
	r.Train = f.opt.meanLoss(f.data, f.margins)
	if math.IsNaN(r.Train) || math.IsInf(r.Train, 0) {
		return nil, nil, errDiverged
	}
	return f.model, r, nil
}

// round adds a tree for each output.
func (f *fitter) round(ctx context.Context, round int) error {
	n, k := f.bins.rows, f.outputs
	spread(n, f.opt.Threads, 4096, func(_, from, to int) {
		f.opt.means(f.means[from*k:to*k], f.margins[from*k:to*k])
	})
	f.draw(round)
	for out := range k {
		if err := f.tree(ctx, round, out); err != nil {
			return err
		}
	}
	return nil
}

// mix is the finaliser of SplitMix64, so that what a row draws does not depend on
// those before it.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// draw picks the rows of a round.
func (f *fitter) draw(round int) {
	all := f.opt.Subsample >= 1
	if all && f.sample != nil {
		return
	}
	n := f.bins.rows
	f.sample = slices.Grow(f.sample[:0], n)
	bar := uint64(f.opt.Subsample * (1 << 53))
	stream := mix(f.opt.Seed ^ mix(uint64(round)))
	for r := range n {
		if all || mix(stream^uint64(r))>>11 < bar {
			f.sample = append(f.sample, int32(r))
		}
	}
	if len(f.sample) == 0 {
		f.sample = append(f.sample, int32(stream%uint64(n)))
	}
}

// pick chooses the features of a tree.
func (f *fitter) pick(round, out int) []int {
	n := f.bins.features
	picked := make([]int, n)
	for i := range picked {
		picked[i] = i
	}
	if f.opt.FeatureShare >= 1 {
		return picked
	}
	return pick(picked, f.opt.FeatureShare, rand.New(rand.NewPCG(f.opt.Seed, uint64(round)<<20|uint64(out))))
}

// tree fits a tree to the gradients of one output and adds it to the margins.
func (f *fitter) tree(ctx context.Context, round, out int) error {
	t := f.grower
	if err := f.pack(out); err != nil {
		return err
	}
	t.rows = append(t.rows[:0], f.sample...)
	t.features = f.pick(round, out)
	t.stream = mix(f.opt.Seed ^ mix(uint64(round)<<20|uint64(out)))
	if err := t.grow(ctx); err != nil {
		return err
	}
	if f.model.nodes += len(t.nodes); f.model.nodes > maxNodes {
		return fmt.Errorf("more than %d nodes: %w", maxNodes, engine.ErrTooLarge)
	}
	var leaves []int
	for i := range t.nodes {
		if t.nodes[i].left == 0 {
			leaves = append(leaves, i)
		}
	}
	covers := make([]float64, len(t.nodes))
	whole := len(f.sample) == f.bins.rows
	each(len(leaves), f.opt.Threads, func(i int) {
		n := &t.nodes[leaves[i]]
		covers[leaves[i]] = f.leaf(n, out)
		if whole {
			for _, r := range t.rows[n.from:n.to] {
				f.margins[int(r)*f.outputs+out] += n.value
			}
		}
	})
	if slices.ContainsFunc(t.nodes, func(n node) bool { return math.IsNaN(float64(n.value)) || math.IsInf(float64(n.value), 0) }) ||
		slices.ContainsFunc(covers, func(c float64) bool { return c > math.MaxFloat32 }) {
		return errDiverged
	}
	if !whole {
		f.add(f.margins, f.bins, out)
	}
	if f.held != nil {
		f.add(f.heldMargins, f.held, out)
	}
	f.model.trees = append(f.model.trees, f.bins.fitted(t, covers))
	return nil
}

// pack writes the gradients of an output as integers for the grower.
func (f *fitter) pack(out int) error {
	most := make([][2]float32, f.opt.Threads)
	spread(f.bins.rows, f.opt.Threads, 4096, func(p, from, to int) {
		most[p][0], most[p][1] = f.gradients(out, from, to)
	})
	maxG, maxH := float32(0), float32(0)
	for _, m := range most {
		maxG, maxH = max(maxG, m[0]), max(maxH, m[1])
	}
	if !(maxG <= math.MaxFloat32) || !(maxH <= math.MaxFloat32) {
		return errDiverged
	}
	s := scaleOf(float64(maxG), float64(maxH))
	f.grower.scale = s
	spread(f.bins.rows, f.opt.Threads, 4096, func(_, from, to int) {
		for r := from; r < to; r++ {
			f.grower.packed[r] = s.pack(f.g[r], f.h[r])
		}
	})
	return nil
}

// leaf gives a leaf its value, of the gradients themselves, and returns its cover.
func (f *fitter) leaf(n *node, out int) float64 {
	g, h := 0.0, 0.0
	rows := f.grower.rows[n.from:n.to]
	for _, r := range rows {
		g += float64(f.g[r])
		h += float64(f.h[r])
	}
	value := f.grower.weight(g, h, n.bounds)
	if f.opt.Loss == Quantile {
		value = f.quantileOf(rows, out)
	}
	n.value = float32(value * f.opt.Rate)
	return h
}

// quantileOf is the quantile of what is left of the labels of some rows.
func (f *fitter) quantileOf(rows []int32, out int) float64 {
	left := make([]float64, len(rows))
	var weights []float64
	for i, r := range rows {
		left[i] = float64(f.labels[r]) - float64(f.margins[int(r)*f.outputs+out])
		if f.weights != nil {
			weights = append(weights, float64(f.weights[r]))
		}
	}
	return quantile(left, weights, f.opt.Quantile)
}

// add adds the tree to the margins of all rows of b.
func (f *fitter) add(margins []float32, b *binned, out int) {
	nodes := f.grower.nodes
	spread(b.rows, f.opt.Threads, 1024, func(_, from, to int) {
		for r := from; r < to; r++ {
			margins[r*f.outputs+out] += leafOf(nodes, b.byRow[r*b.stride:]).value
		}
	})
}

// each calls f for 0..n-1, at the same time as far as threads allow.
func each(n, threads int, f func(i int)) {
	var next atomic.Int64
	spread(threads, threads, 1, func(_, _, _ int) {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	})
}
