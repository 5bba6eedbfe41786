package graph

import (
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// derivation says what a step's outputs follow from.
type derivation uint8

const (
	// fromElements is anything: the step runs each time.
	fromElements derivation = iota
	// fromShape is the shape of the first input and nothing else.
	fromShape
	// fromDerived is constants, and what steps make that are of neither elements.
	fromDerived
)

// derivations are those of the program's steps, by operators alone: what exporters spell as
// arithmetic of shapes, with the positions and grids that are made of it. Every kernel is a
// function of its inputs, so that these steps need to run only where a shape is another.
func (p *Program) derivations() []derivation {
	list := make([]derivation, len(p.steps))
	for i := range p.steps {
		s := &p.steps[i]
		switch {
		case s.op.lists:
		case s.node.Domain == DomainONNX && (s.node.Op == "Shape" || s.node.Op == "Size"):
			list[i] = fromShape
		case !slices.ContainsFunc(s.in, func(slot int) bool { return slot >= 0 && !p.isDerived(slot, list) }):
			list[i] = fromDerived
		}
	}
	return list
}

func (p *Program) isDerived(slot int, list []derivation) bool {
	return p.constants[slot] != nil || p.producer[slot] >= 0 && list[p.producer[slot]] != fromElements
}

// derived is what a step made of shapes in an earlier run of the session, nil where nothing
// is kept.
type derived struct {
	geometry geometry
	out      []*engine.Tensor
	// in are what it was made from: the very tensors, which are constants or kept too. Of one
	// that is made from a shape it is that.
	in    []*engine.Tensor
	shape []int
}

// The most that a session keeps of what shapes decide: bytes, in all and as a part of a
// run's limit, and programs, inner ones too.
const (
	mostDerived         = 1 << 20
	partDerived         = 64
	mostDerivedPrograms = 1 << 10
)

// derivedOf returns what is kept of a program's steps, by step, nil where there are too many
// programs.
func (a *Arena) derivedOf(p *Program) []derived {
	kept := a.derived[p]
	if kept == nil && len(a.derived) < mostDerivedPrograms {
		if a.derived == nil {
			a.derived = map[*Program][]derived{}
		}
		kept = make([]derived, len(p.steps))
		a.derived[p] = kept
	}
	return kept
}

// isKept reports whether t's elements are those of a value that is kept.
func (a *Arena) isKept(t *engine.Tensor) bool {
	at := firstOf(t)
	if at == nil {
		return false
	}
	for _, steps := range a.derived {
		for i := range steps {
			if slices.ContainsFunc(steps[i].out, func(o *engine.Tensor) bool { return firstOf(o) == at }) {
				return true
			}
		}
	}
	return false
}

// serves reports whether it is what the step would make of these inputs.
func (d *derived) serves(from derivation, in []*engine.Tensor) bool {
	if d.out == nil {
		return false
	}
	if from == fromShape {
		return in[0] != nil && slices.Equal(d.shape, in[0].Shape())
	}
	return slices.Equal(d.in, in)
}

// bytes is what it holds of its own: an output may be an input, or share its memory.
func (d *derived) bytes() int64 {
	n := int64(0)
	for _, t := range d.out {
		if t != nil {
			n += tensorBytes(t)
		}
	}
	return n
}

// keep replaces d by what a step has made, where that is not too much.
func (a *Arena) keep(d *derived, from derivation, in, out []*engine.Tensor, limit int64) {
	a.keeping -= d.bytes()
	*d = derived{geometry: d.geometry}
	made := derived{geometry: d.geometry, out: slices.Clone(out)}
	n := made.bytes()
	if a.keeping+n > min(mostDerived, limit/partDerived) || slices.ContainsFunc(out, a.isView) {
		return
	}
	if from == fromShape {
		made.shape = slices.Clone(in[0].Shape())
		if made.shape == nil {
			made.shape = []int{}
		}
	} else {
		made.in = slices.Clone(in)
	}
	*d = made
	a.keeping += n
}
