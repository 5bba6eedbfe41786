package autodiff

import (
	"github.com/pellucid/pellucid/engine/graph"
)

// scalesOf returns for each element of value x, which node n rounds or makes of what was
// rounded, its scale and its zero point.
func scalesOf[T float](b *back[T], n *graph.Node, x string) (func(i int) (scale, zero T), error) {
	at, err := graph.ScaleIndex(n, b.shape(x), b.run.Value(n.Inputs[1]))
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
	return func(i int) (T, T) { k := at(i); return scales[k], zeros[k] }, nil
}

// fixed refuses a scale or zero point on the path: rounding has no derivative by them.
func fixed[T float](b *back[T], n *graph.Node) error {
	for _, in := range n.Inputs[1:] {
		if in != "" && b.needed[in] {
			return notDifferentiable(n, "its scale or zero point depends on the input, and rounding has no derivative by them")
		}
	}
	return nil
}

// quantize passes the gradient through rounding, but for what its range cuts.
func quantize[T float](b *back[T], n *graph.Node) error {
	if err := fixed(b, n); err != nil {
		return err
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
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
		scale, zero := of(i)
		if y := float64(x[i]/scale + zero); y >= low-0.5 && y <= high+0.5 {
			g[i] += v / scale
		}
	}
	return nil
}

func dequantize[T float](b *back[T], n *graph.Node) error {
	if err := fixed(b, n); err != nil {
		return err
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	of, err := scalesOf(b, n, n.Inputs[0])
	if err != nil {
		return err
	}
	for i, v := range b.grads[n.Outputs[0]] {
		scale, _ := of(i)
		g[i] += v * scale
	}
	return nil
}
