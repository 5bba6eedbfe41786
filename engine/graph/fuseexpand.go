package graph

import "slices"

// expansion drops step i where it repeats a value to the shape of another that the result is
// joined with: the operator broadcasts as well, and reads less.
func (f *fuser) expansion(i int) {
	if !f.is(i, "Expand") {
		return
	}
	s := &f.p.steps[i]
	by, join := f.p.producer[s.in[1]], f.only(s.out[0])
	if by < 0 || join < 0 || f.gone[by] || f.p.steps[by].node.Op != "Shape" || f.p.steps[by].node.Domain != DomainONNX || len(f.p.steps[by].node.Attrs) > 0 {
		return
	}
	if !f.is(join, "Add") && !f.is(join, "Sub") && !f.is(join, "Mul") && !f.is(join, "Div") {
		return
	}
	if other, two := f.other(join, s.out[0]); !two || other != f.p.steps[by].in[0] {
		return
	}
	whole := f.p.steps[join]
	whole.in = slices.Clone(whole.in)
	whole.in[slices.Index(whole.in, s.out[0])] = s.in[0]
	steps := []int{i}
	if f.only(s.in[1]) == i {
		steps = append(steps, by)
	}
	f.become(join, whole, steps...)
}
