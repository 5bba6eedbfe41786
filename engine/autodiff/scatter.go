package autodiff

import "github.com/pellucid/pellucid/engine/graph"

// scatter: what replaces elements moves them; what is added leaves them where they
// are, and gets what arrives at their places.
func scatter[T float](b *back[T], n *graph.Node) error {
	reduction := n.Attrs["reduction"].String
	if reduction == "" || reduction == "none" {
		return moved(b, n)
	}
	gx, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gu, err := b.grad(n.Inputs[2])
	if err != nil {
		return err
	}
	places, err := graph.UpdatePlaces(n, b.inputs(n))
	if err != nil {
		return err
	}
	switch reduction {
	case "add":
		d := b.grads[n.Outputs[0]]
		for i := range gx {
			gx[i] += d[i]
		}
		for i := range gu {
			gu[i] += d[places[i]]
		}
		return nil
	case "mul":
		return scatterProduct(b, n, places, gx, gu)
	case "min", "max":
		return scatterExtreme(b, n, places, gx, gu)
	}
	return noRuleFor(n, "reduction")
}

// scatterProduct gives each factor the product of the others at its place, those before it
// times those after it: none is divided by, so zeros need no care.
func scatterProduct[T float](b *back[T], n *graph.Node, places []int, gx, gu []T) error {
	d, x, u := b.grads[n.Outputs[0]], b.value(n.Inputs[0]), b.value(n.Inputs[2])
	others, err := b.alloc(len(u))
	if err != nil {
		return err
	}
	product, err := b.alloc(len(x))
	if err != nil {
		return err
	}
	defer func() { b.live -= int64(len(u)+len(x)) * 8 }()
	copy(product, x)
	for i, at := range places {
		others[i] = product[at]
		product[at] *= u[i]
	}
	for i := range product {
		product[i] = 1
	}
	for i := len(places) - 1; i >= 0; i-- {
		at := places[i]
		if gu != nil {
			gu[i] += d[at] * others[i] * product[at]
		}
		product[at] *= u[i]
	}
	for i := range gx {
		gx[i] += d[i] * product[i]
	}
	return nil
}

// scatterExtreme shares the gradient of a place evenly between those that tie there.
func scatterExtreme[T float](b *back[T], n *graph.Node, places []int, gx, gu []T) error {
	d, x, u, z := b.grads[n.Outputs[0]], b.value(n.Inputs[0]), b.value(n.Inputs[2]), b.value(n.Outputs[0])
	share, err := b.alloc(len(z))
	if err != nil {
		return err
	}
	defer func() { b.live -= int64(len(z)) * 8 }()
	for i, v := range x {
		if v == z[i] {
			share[i]++
		}
	}
	for i, at := range places {
		if u[i] == z[at] {
			share[at]++
		}
	}
	for i := range share {
		share[i] = d[i] / max(share[i], 1)
	}
	for i := range gx {
		if x[i] == z[i] {
			gx[i] += share[i]
		}
	}
	for i := range gu {
		if at := places[i]; u[i] == z[at] {
			gu[i] += share[at]
		}
	}
	return nil
}
