package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The settings of L-BFGS.
const (
	// memory is how many steps the curvature is taken from.
	memory = 10
	// flat is a gradient (of a mean over standardised columns) by which weights would
	// move in their seventh digit.
	flat = 1e-7
	// slow is a share of the loss: after stalled steps in a row that gain less, columns
	// say the same and weights only move among themselves.
	slow, stalled = 1e-9, 10
	// arrived is a gradient at which a search that finds nothing better has arrived,
	// for the loss does not differ in its last bits any more.
	arrived = 1e-5
	// The Wolfe conditions: how much of the decrease that the slope promises is enough,
	// and how flat the slope must become.
	enough, flatter = 1e-4, 0.9
	// tries bounds the losses computed for one step.
	tries = 60
)

// minimiser is L-BFGS on an objective over all rows.
type minimiser struct {
	ctx  context.Context //nolint:containedctx // lives for one fit
	o    *objective
	rows []int
	// x, grad and f are where the search stands.
	x, grad []float64
	f       float64
	// moves and turns are the last steps and what they changed of the gradient.
	moves, turns [][]float64
}

// minimise takes all rows at once, with steps by L-BFGS. Of the rows held out it takes
// no notice but to measure.
func minimise(ctx context.Context, o *objective, c Config, x []float64, training, held []int, unit float64) (outcome, error) {
	m := &minimiser{ctx: ctx, o: o, rows: training, x: x, grad: make([]float64, o.size)}
	var err error
	if m.f, err = o.value(ctx, x, training, m.grad); err != nil {
		return outcome{}, err
	}
	var out outcome
	idle := 0
	for out.epochs < c.Epochs && largest(m.grad) > flat && idle < stalled {
		from := m.f
		moved, err := m.step()
		if err != nil {
			return out, inEpoch(out.epochs+1, err)
		}
		if !moved {
			break
		}
		out.epochs++
		tell(c, out.epochs, m.f*unit, math.NaN())
		if idle++; from-m.f > slow*math.Abs(m.f) {
			idle = 0
		}
	}
	if g := largest(m.grad); g > arrived && out.epochs < c.Epochs && idle < stalled {
		return out, fmt.Errorf("minimise the loss: no smaller one is found where its gradient is still %.2g", g)
	}
	out.best = out.epochs
	if out.held, err = measure(ctx, o, x, held); err != nil {
		return out, err
	}
	return finish(ctx, o, x, training, out, unit)
}

// step moves to a place that satisfies the Wolfe conditions, and reports whether there
// was one.
func (m *minimiser) step() (bool, error) {
	dir := m.direction()
	slope := dot(dir, m.grad)
	t := 1.0
	if len(m.moves) == 0 {
		t = min(1, 1/math.Sqrt(dot(m.grad, m.grad)))
	}
	low, high := 0.0, math.Inf(1)
	x, grad := make([]float64, len(m.x)), make([]float64, len(m.x))
	for range tries {
		for i := range x {
			x[i] = m.x[i] + t*dir[i]
		}
		f, err := m.o.value(m.ctx, x, m.rows, grad)
		if err != nil && !errors.Is(err, ErrDiverged) {
			return false, err
		}
		switch {
		case err != nil || !(f <= m.f+enough*t*slope+1e-15*math.Abs(m.f)):
			high = t // too far, perhaps to where the loss is no number
		case dot(dir, grad) < flatter*slope:
			low = t
		default:
			m.remember(x, grad)
			copy(m.x, x)
			copy(m.grad, grad)
			m.f = f
			return true, nil
		}
		if t = 2 * low; !math.IsInf(high, 1) {
			t = (low + high) / 2
		}
	}
	if len(m.moves) > 0 {
		// What is remembered of the curvature misleads: begin anew with the gradient.
		m.moves, m.turns = nil, nil
		return m.step()
	}
	return false, nil
}

func (m *minimiser) remember(x, grad []float64) {
	move, turn := slices.Clone(x), slices.Clone(grad)
	for i := range move {
		move[i] -= m.x[i]
		turn[i] -= m.grad[i]
	}
	if !(dot(move, turn) > 0) {
		return // rounding: it says nothing of the curvature
	}
	if len(m.moves) == memory {
		m.moves, m.turns = m.moves[1:], m.turns[1:]
	}
	m.moves, m.turns = append(m.moves, move), append(m.turns, turn)
}

// direction is the gradient, turned by the inverse of the curvature that the last
// steps tell of.
func (m *minimiser) direction() []float64 {
	d := make([]float64, len(m.grad))
	for i, g := range m.grad {
		d[i] = -g
	}
	k := len(m.moves)
	if k == 0 {
		return d
	}
	shares := make([]float64, k)
	for i := k - 1; i >= 0; i-- {
		shares[i] = dot(m.moves[i], d) / dot(m.moves[i], m.turns[i])
		along(d, -shares[i], m.turns[i])
	}
	scale := dot(m.moves[k-1], m.turns[k-1]) / dot(m.turns[k-1], m.turns[k-1])
	for i := range d {
		d[i] *= scale
	}
	for i := range k {
		along(d, shares[i]-dot(m.turns[i], d)/dot(m.moves[i], m.turns[i]), m.moves[i])
	}
	return d
}

func along(d []float64, share float64, v []float64) {
	for i := range d {
		d[i] += share * v[i]
	}
}

func dot(a, b []float64) float64 {
	var s float64
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func largest(v []float64) float64 {
	var m float64
	for _, x := range v {
		m = max(m, math.Abs(x))
	}
	return m
}
