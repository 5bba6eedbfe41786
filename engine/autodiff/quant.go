package autodiff

import (
	"github.com/pellucid/pellucid/engine/graph"
)

// scalesOf returns for each element of value x, which node n rounds or makes of what was
// rounded, the place of its scale, that and its zero point.
func scalesOf[T float](b *back[T], n *graph.Node, x string) (func(i int) (at int, scale, zero T), error) {
	place, err := graph.ScaleIndex(n, b.shape(x), b.run.Value(n.Inputs[1]))
	if err != nil {
		return nil, err
	}
	scales := b.value(n.Inputs[1])
	zeros := make([]T, len(scales))
	if len(n.Inputs) > 2 && n.Inputs[2] != "" {
		given := b.value(n.Inputs[2])
		for i := range zeros {
			zeros[i] = given[min(i, len(given)-1)]
		}
	}
	return func(i int) (int, T, T) { k := place(i); return k, scales[k], zeros[k] }, nil
}

// quantize passes the gradient through rounding, but for what its range cuts: to what is
// rounded, and to the scale that it is divided by.
func quantize[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gs, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	low, high, ok := graph.WholeRange(b.run.Value(n.Outputs[0]).DType())
	if !ok {
		return notDifferentiable(n, "it rounds to a type that is not one of whole numbers")
	}
	of, err := scalesOf(b, n, n.Inputs[0])
	if err != nil {
		return err
	}
	x := b.value(n.Inputs[0])
	for i, v := range b.grads[n.Outputs[0]] {
		at, scale, zero := of(i)
		if y := float64(x[i]/scale + zero); !(y >= low-0.5 && y <= high+0.5) {
			continue
		}
		if g != nil {
			g[i] += v / scale
		}
		if gs != nil {
			gs[at] -= v * x[i] / (scale * scale)
		}
	}
	return nil
}

func dequantize[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gs, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	of, err := scalesOf(b, n, n.Inputs[0])
	if err != nil {
		return err
	}
	var q []T
	if gs != nil {
		q = b.value(n.Inputs[0])
	}
	for i, v := range b.grads[n.Outputs[0]] {
		at, scale, zero := of(i)
		if g != nil {
			g[i] += v * scale
		}
		if gs != nil {
			gs[at] += v * (q[i] - zero)
		}
	}
	return nil
}
