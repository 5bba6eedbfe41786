package autodiff

import (
	"math"

	"github.com/pellucid/pellucid/engine/graph"
)

// gradsOf are the places where the gradients of a node's inputs are added up, nil where nobody
// needs one or it is left out.
func (b *back[T]) gradsOf(n *graph.Node) (all [5][]T, err error) {
	for i, name := range n.Inputs {
		if all[i], err = b.grad(name); err != nil {
			return all, err
		}
	}
	return all, nil
}

func batchNorm[T float](b *back[T], n *graph.Node) error {
	g, err := b.gradsOf(n)
	if err != nil {
		return err
	}
	shape := b.shape(n.Inputs[0])
	inner := 1
	for _, d := range shape[min(2, len(shape)):] {
		inner *= d
	}
	if n.Attrs["training_mode"].Int != 0 {
		return trainingNorm(b, n, g, inner)
	}
	scale, mean, variance := b.value(n.Inputs[1]), b.value(n.Inputs[3]), b.value(n.Inputs[4])
	d, eps := b.grads[n.Outputs[0]], attrFloat(n, "epsilon", 1e-5)
	inv := make([]float64, len(scale))
	for c, v := range variance {
		inv[c] = 1 / math.Sqrt(float64(v)+eps)
	}
	if g[0] != nil {
		for i, v := range d {
			c := i / inner % len(scale)
			g[0][i] += v * scale[c] * T(inv[c])
		}
	}
	if g[1] == nil && g[2] == nil && g[3] == nil && g[4] == nil {
		return nil
	}
	x := b.value(n.Inputs[0])
	sum, dot := make([]float64, len(scale)), make([]float64, len(scale)) // of d, and of it and x less the mean
	for i, v := range d {
		c := i / inner % len(scale)
		sum[c] += float64(v)
		dot[c] += float64(v) * (float64(x[i]) - float64(mean[c]))
	}
	for c := range scale {
		s := float64(scale[c]) * inv[c]
		for k, v := range [...]float64{1: dot[c] * inv[c], 2: sum[c], 3: -sum[c] * s, 4: -dot[c] * s * inv[c] * inv[c] / 2} {
			if k > 0 && g[k] != nil {
				g[k][c] += T(v)
			}
		}
	}
	return nil
}

// trainingNorm is BatchNormalization by the mean and variance of what it is given, which move
// the running ones.
func trainingNorm[T float](b *back[T], n *graph.Node, g [5][]T, inner int) error {
	if b.rows > 1 {
		return notDifferentiable(n, "in training mode each row depends on all, so a gradient of several is none of their own")
	}
	x, scale := b.value(n.Inputs[0]), b.value(n.Inputs[1])
	eps, momentum := attrFloat(n, "epsilon", 1e-5), attrFloat(n, "momentum", 0.9)
	var d [3][]T
	for i, name := range n.Outputs {
		d[i] = b.grads[name]
	}
	for c := range scale {
		var row, out []T
		var at []int
		for i, v := range x {
			if i/inner%len(scale) == c {
				at, row = append(at, i), append(row, v)
				if d[0] != nil {
					out = append(out, d[0][i])
				}
			}
		}
		gx := make([]T, len(row))
		if out != nil {
			normRow(gx, row, out, scale[c:c+1], eps)
			normParameters(g[1], g[2], row, out, eps, func(int) int { return c })
		}
		mean, _ := moments(row, eps)
		for i, v := range row {
			if d[1] != nil {
				gx[i] += d[1][c] * T((1-momentum)/float64(len(row)))
			}
			if d[2] != nil {
				gx[i] += d[2][c] * T((1-momentum)*2*(float64(v)-mean)/float64(len(row)))
			}
			if g[0] != nil {
				g[0][at[i]] += gx[i]
			}
		}
		for k := 1; k < 3; k++ {
			if g[2+k] != nil && d[k] != nil {
				g[2+k][c] += d[k][c] * T(momentum)
			}
		}
	}
	return nil
}

func layerNorm[T float](b *back[T], n *graph.Node) error {
	g, err := b.gradsOf(n)
	if err != nil {
		return err
	}
	var d [3][]T
	for i, name := range n.Outputs {
		d[i] = b.grads[name]
	}
	shape := b.shape(n.Inputs[0])
	axis := -1
	if a, ok := n.Attrs["axis"]; ok {
		axis = int(a.Int)
	}
	if axis < 0 {
		axis += len(shape)
	}
	span := 1
	for _, d := range shape[axis:] {
		span *= d
	}
	x, scale := b.value(n.Inputs[0]), b.value(n.Inputs[1])
	eps := attrFloat(n, "epsilon", 1e-5)
	for r := 0; span > 0 && (r+1)*span <= len(x); r++ {
		at := r * span
		row := x[at : at+span]
		if d[0] != nil && g[0] != nil {
			normRow(g[0][at:at+span], row, d[0][at:at+span], scale, eps)
		}
		if d[0] != nil {
			normParameters(g[1], nil, row, d[0][at:at+span], eps, func(i int) int { return i % len(g[1]) })
			normParameters(nil, g[2], row, d[0][at:at+span], eps, func(i int) int { return i % len(g[2]) })
		}
		if g[0] != nil && (d[1] != nil || d[2] != nil) {
			momentsBack(g[0][at:at+span], row, d[1], d[2], r, eps)
		}
	}
	return nil
}

// momentsBack adds to the gradient of row r what arrives at its mean and at one over its
// deviation.
func momentsBack[T float](g, row, ofMean, ofInverse []T, r int, eps float64) {
	mean, inv := moments(row, eps)
	n := float64(len(row))
	for i, v := range row {
		if ofMean != nil {
			g[i] += ofMean[r] / T(n)
		}
		if ofInverse != nil {
			g[i] -= ofInverse[r] * T((float64(v)-mean)*inv*inv*inv/n)
		}
	}
}

// channelNorm is InstanceNormalization and GroupNormalization.
func channelNorm[T float](b *back[T], n *graph.Node) error {
	g, err := b.gradsOf(n)
	if err != nil {
		return err
	}
	l, err := graph.NewNormLayout(n, b.shape(n.Inputs[0]))
	if err != nil {
		return err
	}
	x, scale, d := b.value(n.Inputs[0]), b.value(n.Inputs[1]), b.grads[n.Outputs[0]]
	eps := attrFloat(n, "epsilon", 1e-5)
	own := make([]T, l.Span)
	for r := 0; l.Span > 0 && (r+1)*l.Span <= len(x); r++ {
		for i := range own {
			own[i] = scale[l.Scale(r, i)]
		}
		at := r * l.Span
		row, out := x[at:at+l.Span], d[at:at+l.Span]
		if g[0] != nil {
			normRow(g[0][at:at+l.Span], row, out, own, eps)
		}
		normParameters(g[1], g[2], row, out, eps, func(i int) int { return l.Scale(r, i) })
	}
	return nil
}

// moments are a row's mean and one over its deviation.
func moments[T float](x []T, eps float64) (mean, inv float64) {
	variance := 0.0
	for _, v := range x {
		mean += float64(v)
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean)
	}
	return mean, 1 / math.Sqrt(variance/float64(len(x))+eps)
}

// normRow adds to g the gradient of what a row is normalised from: d is that of the result.
func normRow[T float](g, x, d, scale []T, eps float64) {
	n, sum, dot := float64(len(x)), 0.0, 0.0
	mean, inv := moments(x, eps)
	for i, v := range d {
		w := float64(v) * float64(scale[i%len(scale)])
		sum += w
		dot += w * (float64(x[i]) - mean) * inv
	}
	for i, v := range d {
		w := float64(v) * float64(scale[i%len(scale)])
		g[i] += T(inv * (w - sum/n - (float64(x[i])-mean)*inv*dot/n))
	}
}

// normParameters adds to the gradients of the scale and the bias, whose element i's are at at(i).
func normParameters[T float](scale, bias, x, d []T, eps float64, at func(i int) int) {
	if scale != nil {
		mean, inv := moments(x, eps)
		for i, v := range d {
			scale[at(i)] += v * T((float64(x[i])-mean)*inv)
		}
	}
	if bias != nil {
		for i, v := range d {
			bias[at(i)] += v
		}
	}
}
