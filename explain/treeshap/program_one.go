package treeshap

import "math"

// frameOne is the plain form for one row, the first of its word.
type frameOne struct {
	place
	slots []float64
}

// runOne is run for one row without kernels.
func (m *machine) runOne(t *pathTree, word int, phi, leaves []float64) {
	f := frameOne{place: place{m: m, t: t, n: t.n, rows: 1, word: word, phi: phi, leaves: leaves}, slots: m.one}
	copy(f.slots, t.rule.w)
	ops := t.program.ops
	for i := 0; i < len(ops); i++ {
		o := &ops[i]
		switch o.kind {
		case opDown:
			f.down(o, int(o.to), o.first, o.second == 1)
		case opBottom:
			f.bottom(o)
		case opFork:
			f.down(o, int(ops[i+1].c), o.first, true)
			f.bottom(&ops[i+1])
			f.down(o, int(ops[i+2].c), o.second, false)
			f.bottom(&ops[i+2])
			f.up(o)
			i += 2
		default:
			f.up(o)
		}
	}
}

func (f *frameOne) slot(i int) []float64 { return f.slots[i*f.n:][:f.n] }

func (f *frameOne) down(o *op, into int, rho float64, left bool) {
	test, before := f.masks(o)
	if !left {
		test = ^test
	}
	delta := choose(before, choose(test, 1-rho, -rho), 0)
	tau, _ := f.rates(o)
	c, to := f.slot(int(o.c))[:len(tau)], f.slot(into)[:len(tau)]
	for q, t := range tau {
		to[q] = c[q] * math.FMA(t, delta, rho)
	}
}

func (f *frameOne) up(o *op) {
	test, before := f.masks(o)
	tau, kappa := f.rates(o)
	kappa = kappa[:len(tau)]
	c, to := f.slot(int(o.c))[:len(tau)], f.slot(int(o.to))[:len(tau)]
	var left, right []float64
	vL, vR := 0.0, 0.0
	if o.kind == opLeftLeaf {
		vL = f.leaves[o.left]
	} else {
		left = f.slot(int(o.left))
	}
	if o.kind == opRightLeaf {
		vR = f.leaves[o.right]
	} else {
		right = f.slot(int(o.right))
	}
	sum := 0.0
	for q := range tau {
		hL, hR := vL, vR
		if left != nil {
			hL = left[q]
		}
		if right != nil {
			hR = right[q]
		}
		m := math.FMA(o.second, hR, float64(o.first*hL))
		g := choose(before, choose(test, hL, hR)-m, 0)
		t := float64(c[q] * kappa[q])
		if q == 0 {
			sum = float64(t * g)
		} else {
			sum = math.FMA(t, g, sum)
		}
		to[q] = math.FMA(tau[q], g, m)
	}
	f.phi[o.feature/8] += sum
}

func (f *frameOne) bottom(o *op) {
	test, before := f.masks(o)
	tau, kappa := f.rates(o)
	kappa = kappa[:len(tau)]
	c, to := f.slot(int(o.c))[:len(tau)], f.slot(int(o.to))[:len(tau)]
	vL, vR := f.leaves[o.left], f.leaves[o.right]
	m := math.FMA(o.second, vR, float64(o.first*vL))
	g := choose(before, choose(test, vL-m, vR-m), 0)
	sum := 0.0
	for q := range tau {
		if q == 0 {
			sum = float64(c[q] * kappa[q])
		} else {
			sum = math.FMA(c[q], kappa[q], sum)
		}
		to[q] = math.FMA(tau[q], g, m)
	}
	phi := &f.phi[o.feature/8]
	*phi = math.FMA(g, sum, *phi)
}
