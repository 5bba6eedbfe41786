package graph

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/crew"
)

// geometry is what a step has worked out from the types and shapes of its inputs, for as long
// as they stay what they are.
type geometry struct {
	of    []int
	value any
}

// recall returns what was remembered of inputs of these types and shapes, nil where nothing
// was.
func recall[T any](x *Exec, in []*engine.Tensor) *T {
	if x.geometry == nil {
		return nil
	}
	v, ok := x.geometry.value.(*T)
	if !ok {
		return nil
	}
	rest := x.geometry.of
	for _, t := range in {
		if rest, ok = cutShape(rest, t); !ok {
			return nil
		}
	}
	if len(rest) > 0 {
		return nil
	}
	return v
}

// remember keeps v for the step that runs. It must follow from the inputs' types and shapes,
// and the node, alone, hold little, and be read only.
func remember[T any](x *Exec, in []*engine.Tensor, v *T) {
	if x.geometry == nil {
		return
	}
	var of []int
	for _, t := range in {
		of = addShape(of, t)
	}
	*x.geometry = geometry{of, v}
}

// divided is work on n things, of which part does some.
type divided[S any] interface {
	*S
	part(from, to int)
}

// shared is work on several threads: it is no closure and is kept, so that a run which shares
// the same work makes no object.
type shared[S any, P divided[S]] struct {
	s        S
	n, count int
	run      func(part int)
}

func (w *shared[S, P]) part(i int) { P(&w.s).part(w.n*i/w.count, w.n*(i+1)/w.count) }

// share cuts n in so many parts for as many threads; it must not matter to the bits where. It
// is for the goroutine that the kernel was called on.
func share[S any, P divided[S]](x *Exec, count, n int, s S) {
	w := sharedOf[S, P](x)
	w.s, w.n, w.count = s, n, count
	if count < 2 {
		P(&w.s).part(0, n)
	} else {
		crew.Run(count, count, w.run)
	}
	var none S
	w.s = none
}

func sharedOf[S any, P divided[S]](x *Exec) *shared[S, P] {
	key := any((*S)(nil))
	if x.scratch != nil {
		if w, ok := x.scratch.works[key].(*shared[S, P]); ok {
			return w
		}
	}
	w := new(shared[S, P])
	w.run = w.part
	if x.scratch != nil {
		if x.scratch.works == nil {
			x.scratch.works = map[any]any{}
		}
		x.scratch.works[key] = w
	}
	return w
}
