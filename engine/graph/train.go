package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// optimiser is one step of training: f takes a tensor, its gradient and the states
// kept of it, and changes the tensor and the states.
type optimiser struct {
	states int
	f      func(rate, turn float64, x, g []float64, state [mostStates][]float64)
}

// mostStates is how many an optimiser keeps of a tensor.
const mostStates = 2

func buildOptimiser(read func(b *builder) (*optimiser, error)) func(b *builder) (Kernel, error) {
	return func(b *builder) (Kernel, error) {
		o, err := read(b)
		if err != nil {
			return nil, err
		}
		per := 2 + o.states
		if len(b.node.Inputs) < 2+per || (len(b.node.Inputs)-2)%per != 0 {
			return nil, b.node.corrupt("has %d inputs", len(b.node.Inputs))
		}
		tensors := (len(b.node.Inputs) - 2) / per
		b.result = append(slices.Clone(b.inputs[2:2+tensors]), b.inputs[2+2*tensors:]...)
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return o.run(x, in, tensors) }, nil
	}
}

// turnOf is scalarOf for a count, without a copy.
func turnOf(t *engine.Tensor) (float64, error) {
	if v := engine.Data[int64](t); len(v) == 1 {
		return float64(v[0]), nil
	}
	return scalarOf(t)
}

// run steps each tensor; the tensors come first, then their gradients, then each
// kind of state, and so do the results.
func (o *optimiser) run(x *Exec, in []*engine.Tensor, n int) ([]*engine.Tensor, error) {
	rate, err := scalarOf(in[0])
	if err != nil {
		return nil, err
	}
	turn, err := turnOf(in[1])
	if err != nil {
		return nil, err
	}
	out := x.list(n * (1 + o.states))
	for i := range n {
		var lists [2 + mostStates][]float64
		for k := range 2 + o.states {
			t := in[2+k*n+i]
			if !slices.Equal(t.Shape(), in[2+i].Shape()) {
				return nil, fmt.Errorf("a state of shape %v for %v", t.Shape(), in[2+i].Shape())
			}
			wide, err := castTensor(x, t, engine.Float64, false)
			if err != nil {
				return nil, err
			}
			lists[k] = engine.Data[float64](wide)
		}
		o.f(rate, turn, lists[0], lists[1], [mostStates][]float64(lists[2:]))
		for k := range 1 + o.states {
			v := lists[0]
			if k > 0 {
				v = lists[1+k]
			}
			t, err := x.New(in[2+i].DType(), in[2+i].Shape()...)
			if err != nil {
				return nil, err
			}
			if err := storeFloats(t, v); err != nil {
				return nil, err
			}
			out[k*n+i] = t
		}
	}
	return out, nil
}

func readAdagrad(b *builder) (*optimiser, error) {
	norm, decay, eps := b.attrs.float("norm_coefficient", 0), b.attrs.float("decay_factor", 0), b.attrs.float("epsilon", 1e-6)
	return &optimiser{states: 1, f: func(rate, turn float64, x, g []float64, s [mostStates][]float64) {
		rate /= 1 + turn*decay
		for i := range x {
			d := norm*x[i] + g[i]
			s[0][i] += d * d
			x[i] -= rate * d / (math.Sqrt(s[0][i]) + eps)
		}
	}}, nil
}

func readAdam(b *builder) (*optimiser, error) {
	norm, post, eps := b.attrs.float("norm_coefficient", 0), b.attrs.float("norm_coefficient_post", 0), b.attrs.float("epsilon", 1e-6)
	alpha, beta := b.attrs.float("alpha", 0.9), b.attrs.float("beta", 0.999)
	return &optimiser{states: 2, f: func(rate, turn float64, x, g []float64, s [mostStates][]float64) {
		if turn > 0 {
			rate *= math.Sqrt(1-math.Pow(beta, turn)) / (1 - math.Pow(alpha, turn))
		}
		for i := range x {
			d := norm*x[i] + g[i]
			s[0][i] = alpha*s[0][i] + (1-alpha)*d
			s[1][i] = beta*s[1][i] + (1-beta)*d*d
			x[i] = (1 - post) * (x[i] - rate*s[0][i]/(math.Sqrt(s[1][i])+eps))
		}
	}}, nil
}

func readMomentum(b *builder) (*optimiser, error) {
	norm, alpha, beta := b.attrs.float("norm_coefficient", 0), b.attrs.float("alpha", 0), b.attrs.float("beta", 0)
	mode := b.attrs.string("mode", "")
	if mode != "standard" && mode != "nesterov" {
		return nil, b.node.corrupt("mode %q", mode)
	}
	return &optimiser{states: 1, f: func(rate, turn float64, x, g []float64, s [mostStates][]float64) {
		share := beta
		if turn <= 0 {
			share = 1
		}
		for i := range x {
			d := norm*x[i] + g[i]
			s[0][i] = alpha*s[0][i] + share*d
			if mode == "standard" {
				x[i] -= rate * s[0][i]
			} else {
				x[i] -= rate * (d + alpha*s[0][i])
			}
		}
	}}, nil
}

func init() {
	step := func(read func(b *builder) (*optimiser, error)) opDef {
		return opDef{since: 1, minIn: 5, maxIn: 1 << 16, maxOut: 1 << 16, accept: floatTypes, result: fromBuilder, build: buildOptimiser(read)}
	}
	register(DomainTraining, map[string]opDef{"Adagrad": step(readAdagrad), "Adam": step(readAdam), "Momentum": step(readMomentum)})
}
