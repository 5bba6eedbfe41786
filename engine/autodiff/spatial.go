package autodiff

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// inputs returns the values of n's inputs, nil where one is left out.
func (b *back[T]) inputs(n *graph.Node) []*engine.Tensor {
	in := make([]*engine.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		if name != "" {
			in[i] = b.run.Value(name)
		}
	}
	return in
}

// conv sends the gradient back to the input, the weights and the bias.
func conv[T float](b *back[T], n *graph.Node) error {
	c, err := graph.NewConv(n, b.shape(n.Inputs[0]), b.shape(n.Inputs[1]))
	if err != nil {
		return err
	}
	d := b.grads[n.Outputs[0]]
	if len(n.Inputs) > 2 {
		g, err := b.grad(n.Inputs[2])
		if err != nil {
			return err
		}
		plane := len(d) / max(c.Result[0]*c.Result[1], 1) // of no images there is none
		for i := range d {
			if g != nil {
				g[i/plane%len(g)] += d[i]
			}
		}
	}
	gw, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	if gw != nil && n.Op == "ConvTranspose" {
		graph.ConvWeights(c, gw, b.value(n.Inputs[0]), d)
	} else if gw != nil {
		graph.ConvWeights(c, gw, d, b.value(n.Inputs[0]))
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	if n.Op == "ConvTranspose" {
		graph.Gather(c, g, d, b.value(n.Inputs[1]))
		return nil
	}
	graph.Scatter(c, g, d, b.value(n.Inputs[1]))
	return nil
}

// pool: the largest element of a window (the first of equals) gets its whole
// gradient, in an average every element its share.
func pool[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	shape := b.shape(n.Inputs[0])
	w, err := graph.PoolWindows(n, shape)
	if err != nil {
		return err
	}
	largest := n.Op == "MaxPool" || n.Op == "GlobalMaxPool"
	lp := 0.0
	if n.Op == "LpPool" || n.Op == "GlobalLpPool" {
		lp = graph.LpOf(n)
	}
	x, y, d := b.value(n.Inputs[0]), b.value(n.Outputs[0]), b.grads[n.Outputs[0]]
	plane, positions := w.Plane(), w.Positions()
	for i, v := range d {
		if v == 0 {
			continue
		}
		p, from := i%positions, i/positions*plane
		if lp > 0 {
			lpShare(g[from:], x[from:], w.Index()[p*w.Taps:(p+1)*w.Taps], float64(v), float64(y[i]), lp)
			continue
		}
		share := T(0)
		if !largest {
			share = v * T(w.AverageWeight(n, p))
		}
		for _, at := range w.Index()[p*w.Taps : (p+1)*w.Taps] {
			if at < 0 {
				continue
			}
			if !largest {
				g[from+int(at)] += share
			} else if x[from+int(at)] == y[i] {
				g[from+int(at)] += v
				break
			}
		}
	}
	return nil
}

// regionPool: the largest element of a cell (the first of equals) gets its whole gradient.
// Regions are rounded to whole elements, so by them it is zero, as Round's is.
func regionPool[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	places, err := graph.LargestOfRegions(n, b.inputs(n), b.run.Value(n.Outputs[0]))
	if err != nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		if places[i] >= 0 {
			g[places[i]] += d
		}
	}
	return nil
}

// lpShare adds the gradient d of a window's norm y to its elements.
func lpShare[T float](g, x []T, taps []int32, d, y, p float64) {
	for _, at := range taps {
		if at >= 0 && y != 0 {
			v := float64(x[at])
			g[at] += T(d * sign(v) * math.Pow(math.Abs(v)/y, p-1))
		}
	}
}

// cumProd: an element takes part in the products of those behind it.
func cumProd[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	shape := b.shape(n.Inputs[0])
	axis := int(b.value(n.Inputs[1])[0])
	if axis < 0 {
		axis += len(shape)
	}
	inner := 1
	for _, s := range shape[axis+1:] {
		inner *= s
	}
	size := shape[axis]
	exclusive, reverse := n.Attrs["exclusive"].Int == 1, n.Attrs["reverse"].Int == 1
	x, d := b.value(n.Inputs[0]), b.grads[n.Outputs[0]]
	for line := range len(d) / max(size, 1) {
		at := func(k int) int {
			if reverse {
				k = size - 1 - k
			}
			return line/inner*size*inner + line%inner + k*inner
		}
		before := T(1)
		for k := range size {
			others := before
			for j := k; j < size; j++ {
				if j > k && !exclusive {
					others *= x[at(j)]
				}
				if j > k || !exclusive {
					g[at(k)] += d[at(j)] * others
				}
				if j > k && exclusive {
					others *= x[at(j)]
				}
			}
			before *= x[at(k)]
		}
	}
	return nil
}

// einsum: the derivative of a product of operands by one of them is the product
// of the others.
func einsum[T float](b *back[T], n *graph.Node) error {
	e, err := graph.NewEinsum(n, graph.ShapesOf(b.inputs(n)))
	if err != nil {
		return err
	}
	d, err := engine.Of(b.grads[n.Outputs[0]], b.shape(n.Outputs[0])...)
	if err != nil {
		return err
	}
	in := make([]*engine.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		if in[i], err = engine.Of(b.value(name), b.shape(name)...); err != nil {
			return err
		}
	}
	for i, name := range n.Inputs {
		g, err := b.grad(name)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		if err := graph.EinsumGradient(b.ctx, max(b.limit-b.live, 1), e, i, d, in, g); err != nil {
			return err
		}
	}
	return nil
}

// resize walks the axes back, each by the transpose of its weights.
func resize[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	r, err := graph.NewResize(n, b.inputs(n))
	if err != nil {
		return err
	}
	lines := r.Lines
	shape := append([]int(nil), b.shape(n.Outputs[0])...)
	from := b.shape(n.Inputs[0])
	d := b.grads[n.Outputs[0]]
	for a := len(lines) - 1; a >= 0; a-- {
		outer, inner := 1, 1
		for i, s := range shape {
			if i < a {
				outer *= s
			} else if i > a {
				inner *= s
			}
		}
		size := from[a]
		next := make([]T, outer*size*inner)
		for i := range outer {
			for j, l := range lines[a] {
				from := d[(i*len(lines[a])+j)*inner:][:inner]
				for t, at := range l.At {
					addScaled(next[(i*size+at)*inner:], from, T(l.Weight[t]))
				}
			}
		}
		shape[a], d = size, next
	}
	for i, v := range d {
		g[i] += v
	}
	return nil
}

func addScaled[T float](to, from []T, by T) {
	for i, v := range from {
		to[i] += v * by
	}
}

func prelu[T float](b *back[T], n *graph.Node) error {
	x, slope, d := b.value(n.Inputs[0]), b.value(n.Inputs[1]), b.grads[n.Outputs[0]]
	shape := b.shape(n.Outputs[0])
	ix, is := offsets(b.shape(n.Inputs[0]), shape), offsets(b.shape(n.Inputs[1]), shape)
	gx, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gs, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	for i, v := range d {
		negative := x[ix[i]] < 0
		if gs != nil && negative {
			gs[is[i]] += v * x[ix[i]]
		}
		if gx == nil {
			continue
		}
		if x[ix[i]] <= 0 { // torch takes the slope at the corner
			v *= slope[is[i]]
		}
		gx[ix[i]] += v
	}
	return nil
}

// cumSum: what an element adds to comes back in the other direction.
func cumSum[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	axes := b.value(n.Inputs[1])
	shape := b.shape(n.Inputs[0])
	axis := int(axes[0])
	if axis < 0 {
		axis += len(shape)
	}
	inner := 1
	for _, s := range shape[axis+1:] {
		inner *= s
	}
	size := shape[axis]
	exclusive, reverse := n.Attrs["exclusive"].Int == 1, n.Attrs["reverse"].Int == 1
	d := b.grads[n.Outputs[0]]
	for line := range len(d) / max(size, 1) {
		start := line/inner*size*inner + line%inner
		sum := T(0)
		for k := range size {
			if !reverse {
				k = size - 1 - k
			}
			at := start + k*inner
			if exclusive {
				g[at] += sum
			}
			sum += d[at]
			if !exclusive {
				g[at] += sum
			}
		}
	}
	return nil
}

// topK sends the gradient to the elements that were chosen.
func topK[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	shape, chosen := b.shape(n.Inputs[0]), b.shape(n.Outputs[0])
	axis := len(shape) - 1
	if a, ok := n.Attrs["axis"]; ok {
		axis = (int(a.Int) + len(shape)) % len(shape)
	}
	inner := 1
	for _, s := range shape[axis+1:] {
		inner *= s
	}
	d := b.grads[n.Outputs[0]]
	if d == nil {
		return nil
	}
	var index []int64
	if len(n.Outputs) > 1 && n.Outputs[1] != "" {
		index = engine.Data[int64](b.run.Value(n.Outputs[1]))
	} else {
		index = chosenOf(b.value(n.Inputs[0]), b.value(n.Outputs[0]), shape[axis], chosen[axis], inner)
	}
	if len(index) != len(d) {
		return fmt.Errorf("%d indices of %d values", len(index), len(d))
	}
	for i, v := range d {
		outer := i / (chosen[axis] * inner)
		g[(outer*shape[axis]+int(index[i]))*inner+i%inner] += v
	}
	return nil
}

// chosenOf finds the indices of what TopK chose of lines of size elements, inner apart: of equal
// ones the first that is not taken.
func chosenOf[T float](x, chosen []T, size, count, inner int) []int64 {
	index, taken := make([]int64, len(chosen)), make([]bool, len(x))
	for i, v := range chosen {
		line := i/(count*inner)*size*inner + i%inner
		for k := range size {
			at := line + k*inner
			if !taken[at] && (x[at] == v || x[at] != x[at] && v != v) {
				index[i], taken[at] = int64(k), true
				break
			}
		}
	}
	return index
}

// counted: every element of a range begins at its start and is some deltas away. Where it ends
// changes it only by jumps.
func counted[T float](b *back[T], n *graph.Node) error {
	start, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	delta, err := b.grad(n.Inputs[2])
	if err != nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		if start != nil {
			start[0] += d
		}
		if delta != nil {
			delta[0] += d * T(i)
		}
	}
	return nil
}

// lpNormalization is Normalizer along any axis.
func lpNormalization[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	shape := b.shape(n.Inputs[0])
	axis := len(shape) - 1
	if a, ok := n.Attrs["axis"]; ok {
		axis = (int(a.Int) + len(shape)) % len(shape)
	}
	kind := "L2"
	if a, ok := n.Attrs["p"]; ok && a.Int == 1 {
		kind = "L1"
	}
	inner := 1
	for _, s := range shape[axis+1:] {
		inner *= s
	}
	size := shape[axis]
	x, d := b.value(n.Inputs[0]), b.grads[n.Outputs[0]]
	row := make([]float64, size)
	for line := range len(d) / max(size, 1) {
		start := line/inner*size*inner + line%inner
		for k := range row {
			row[k] = float64(x[start+k*inner])
		}
		unit(row, kind, func(k int) float64 { return float64(d[start+k*inner]) }, func(k int, v float64) { g[start+k*inner] += T(v) })
	}
	return nil
}

// unit sends back through y = x / n(x): dx = (dy - dn * sum(dy*y)) / n, where dn is
// the norm's own gradient; elements that tie for the largest share it. A row of zeros is
// divided by 1.
func unit(row []float64, kind string, d func(int) float64, add func(int, float64)) {
	norm := graph.NormOf(kind, row)
	dot, ties := 0.0, 0.0
	for k, v := range row {
		dot += d(k) * v / norm
		if v == norm {
			ties++
		}
	}
	for k, v := range row {
		dn := 0.0
		switch {
		case kind == "L1":
			dn = sign(v)
		case kind == "L2":
			dn = v / norm
		case v == norm:
			dn = 1 / ties
		}
		add(k, (d(k)-dn*dot)/norm)
	}
}

func sign(v float64) float64 {
	if v == 0 {
		return 0
	}
	return math.Copysign(1, v)
}

func svmKernel[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	p, err := graph.NewSVMParams(n)
	if err != nil {
		return err
	}
	x, _ := b.run.Value(n.Inputs[0]).Float64s()
	k, _ := b.run.Value(n.Outputs[0]).Float64s()
	for i, d := range b.grads[n.Outputs[0]] {
		if d == 0 {
			continue
		}
		r, v := i/p.Vectors, i%p.Vectors
		row := x[r*p.Features : (r+1)*p.Features]
		p.Slope(row, v, k[i], float64(d), func(j int, slope float64) { g[r*p.Features+j] += T(slope) })
	}
	return nil
}

// svmOutput differentiates decisions, which pass through (of two classes as -s and
// s). Coupled probabilities are the end of an iteration: no derivative is theirs.
func svmOutput[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	d := b.grads[n.Outputs[len(n.Outputs)-1]]
	if d == nil || len(n.Attrs["prob_a"].Floats) > 0 {
		return notDifferentiable(n, "labels, and probabilities coupled by an iteration, have no derivative")
	}
	if len(d) == len(g) {
		for i, v := range d {
			g[i] += v
		}
		return nil
	}
	for i := range g {
		g[i] += d[2*i+1] - d[2*i]
	}
	return nil
}

func svmPairs[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	p, err := graph.NewSVMPairs(n)
	if err != nil {
		return err
	}
	d := b.grads[n.Outputs[0]]
	pairs := p.Classes * (p.Classes - 1) / 2
	for r := range len(d) / pairs {
		p.Each(func(pair, v int, weight float64) { g[r*p.Vectors+v] += d[r*pairs+pair] * T(weight) })
	}
	return nil
}

// recurrent walks every row's steps again and then back.
func recurrent[T float](b *back[T], n *graph.Node) error {
	var to graph.To
	for i, name := range n.Inputs {
		g, err := b.grad(name)
		if err != nil {
			return err
		}
		if g != nil {
			to[i] = func(at int, v float64) { g[at] += T(v) }
		}
	}
	r, err := graph.NewRecurrent(n, b.inputs(n))
	if err != nil {
		return err
	}
	var d [3][]T
	for i, name := range n.Outputs {
		d[i] = b.grads[name]
	}
	wide := func(v []T, at int) []float64 {
		out := make([]float64, r.Hidden)
		for i := range out {
			if v != nil {
				out[i] = float64(v[at+i])
			}
		}
		return out
	}
	for dir := range r.Directions {
		for row := range r.Batch {
			at := r.StateAt(dir, row)
			c := r.Row(dir, row, func(int, []float64) {})
			c.Back(wide(d[1], at), wide(d[2], at), func(step int) []float64 { return wide(d[0], r.YAt(step, dir, row)) }, &to)
		}
	}
	return nil
}
