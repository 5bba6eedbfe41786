package autodiff

import (
	"fmt"

	"github.com/pellucid/pellucid/engine/graph"
)

// linear walks a linear map's weights the other way. What they depend on is in further inputs.
func linear[T float](b *back[T], n *graph.Node) error {
	if err := further(b, n); err != nil {
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

// further adds to the gradients of a linear map's further inputs.
func further[T float](b *back[T], n *graph.Node) error {
	d := b.grads[n.Outputs[0]]
	for k := 1; k < len(n.Inputs); k++ {
		g, err := b.grad(n.Inputs[k])
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		ok, err := graph.MapSlopes(n, b.inputs(n), k, func(out, at int, slope float64) { g[at] += d[out] * T(slope) })
		if err != nil {
			return err
		}
		if !ok {
			return notDifferentiable(n, "the engine has a rule for its first input alone")
		}
	}
	return nil
}

// largestTaps is RoiAlign where it takes the largest of a bin's weighed elements (the first of
// equals), which gets its gradient by its weight.
func largestTaps[T float](b *back[T], n *graph.Node) error {
	if err := further(b, n); err != nil {
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
