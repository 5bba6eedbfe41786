package autodiff

import (
	"fmt"

	"github.com/pellucid/pellucid/engine/graph"
)

// linear walks a linear map's weights the other way.
func linear[T float](b *back[T], n *graph.Node) error {
	if err := onlyFirst(b, n); err != nil {
		return err
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	m, ok, err := graph.NewLinearMap(n, b.inputs(n))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("operator %s is no linear map", n.Op)
	}
	d := b.grads[n.Outputs[0]]
	m.Each(func(out, in int, w float64) { g[in] += d[out] * T(w) })
	return nil
}

// largestTaps is RoiAlign where it takes the largest of a bin's weighed elements (the first of
// equals), which gets its gradient by its weight.
func largestTaps[T float](b *back[T], n *graph.Node) error {
	if err := onlyFirst(b, n); err != nil {
		return err
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	places, weights, err := graph.LargestTaps(n, b.inputs(n))
	if err != nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		if places[i] >= 0 {
			g[places[i]] += d * T(weights[i])
		}
	}
	return nil
}
