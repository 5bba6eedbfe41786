package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// linearAttention is a LinearAttention node: a state of keys times values that each
// step adds to, and reads.
type linearAttention struct {
	qHeads, kvHeads int
	scale           float64
	gated, corrects bool
}

func buildLinearAttention(b *builder) (Kernel, error) {
	b.attrs.ignore("chunk_size") // of an order of work, which changes nothing
	a := &linearAttention{qHeads: b.attrs.int("q_num_heads", 0), kvHeads: b.attrs.int("kv_num_heads", 0), scale: b.attrs.float("scale", 0)}
	rule := b.attrs.string("update_rule", "gated_delta")
	a.gated, a.corrects = rule == "gated" || rule == "gated_delta", rule == "delta" || rule == "gated_delta"
	if a.kvHeads < 1 || a.qHeads < 1 || a.qHeads%a.kvHeads != 0 || !a.gated && !a.corrects && rule != "linear" {
		return nil, b.node.corrupt("%d heads for %d, rule %q", a.qHeads, a.kvHeads, rule)
	}
	state := b.inType(3)
	if state == engine.Invalid {
		state = b.inType(0)
	}
	b.result = []engine.DType{b.inType(0), state}
	return a.run, nil
}

// deltaSizes are a run's sizes: steps, and the widths of a head's keys and values.
type deltaSizes struct{ batch, steps, k, v, decay, beta int }

func (a *linearAttention) sizes(in []*engine.Tensor) (*deltaSizes, error) {
	q, k, v := in[0].Shape(), in[1].Shape(), in[2].Shape()
	if len(q) != 3 || len(k) != 3 || len(v) != 3 || q[2]%a.qHeads != 0 || v[2]%a.kvHeads != 0 || !slices.Equal(q[:2], k[:2]) || !slices.Equal(q[:2], v[:2]) {
		return nil, fmt.Errorf("queries of shape %v, keys of %v, values of %v", q, k, v)
	}
	s := &deltaSizes{batch: q[0], steps: q[1], k: q[2] / a.qHeads, v: v[2] / a.kvHeads}
	if k[2] != s.k*a.kvHeads {
		return nil, fmt.Errorf("queries of shape %v, keys of %v", q, k)
	}
	if t := arg(in, 3); t != nil && !slices.Equal(t.Shape(), []int{s.batch, a.kvHeads, s.k, s.v}) {
		return nil, fmt.Errorf("a state of shape %v", t.Shape())
	}
	if (arg(in, 4) != nil) != a.gated || (arg(in, 5) != nil) != a.corrects {
		return nil, fmt.Errorf("decay or beta does not fit the rule")
	}
	for i, width := range map[int]*int{4: &s.decay, 5: &s.beta} {
		t := arg(in, i)
		if t == nil {
			continue
		}
		if len(t.Shape()) != 3 || !slices.Equal(t.Shape()[:2], q[:2]) {
			return nil, fmt.Errorf("input %d of shape %v", i, t.Shape())
		}
		*width = t.Shape()[2]
	}
	if a.gated && s.decay != a.kvHeads && s.decay != a.kvHeads*s.k || a.corrects && s.beta != a.kvHeads && s.beta != 1 {
		return nil, fmt.Errorf("decay of %d and beta of %d for %d heads", s.decay, s.beta, a.kvHeads)
	}
	return s, nil
}

func (a *linearAttention) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	s, err := a.sizes(in)
	if err != nil {
		return nil, err
	}
	var data [6][]float64
	for i := range data {
		if t := arg(in, i); t != nil {
			if data[i], err = floats(x, t); err != nil {
				return nil, err
			}
		}
	}
	stateType := in[0].DType()
	if t := arg(in, 3); t != nil {
		stateType = t.DType()
	}
	y, err := x.New(in[0].DType(), s.batch, s.steps, a.qHeads*s.v)
	if err != nil {
		return nil, err
	}
	last, err := x.New(stateType, s.batch, a.kvHeads, s.k, s.v)
	if err != nil {
		return nil, err
	}
	if err := x.reserve(engine.Float64, y.Len()+last.Len()); err != nil {
		return nil, err
	}
	state, out := make([]float64, last.Len()), make([]float64, y.Len())
	copy(state, data[3])
	for line := range s.batch * a.kvHeads {
		own := state[line*s.k*s.v:][:s.k*s.v]
		for t := range s.steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			a.step(s, &data, own, out, line/a.kvHeads, line%a.kvHeads, t)
		}
	}
	if err := storeFloats(last, state); err != nil {
		return nil, err
	}
	return []*engine.Tensor{y, last}, storeFloats(y, out)
}

// step updates one head's state by one step, and reads it for that head's queries.
func (a *linearAttention) step(s *deltaSizes, data *[6][]float64, state, out []float64, batch, head, t int) {
	at := batch*s.steps + t
	key := data[1][(at*a.kvHeads+head)*s.k:][:s.k]
	value := slices.Clone(data[2][(at*a.kvHeads+head)*s.v:][:s.v])
	if a.gated {
		per := s.decay / a.kvHeads // 1, or one for each element of a key
		for i := range s.k {
			g := math.Exp(data[4][at*s.decay+head*per+i%per])
			for j := range s.v {
				state[i*s.v+j] *= g
			}
		}
	}
	if a.corrects {
		beta := data[5][at*s.beta+head%s.beta]
		for j := range value {
			known := 0.0
			for i, k := range key {
				known += state[i*s.v+j] * k
			}
			value[j] = beta * (value[j] - known)
		}
	}
	for i, k := range key {
		for j, v := range value {
			state[i*s.v+j] += k * v
		}
	}
	scale := a.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(s.k))
	}
	times := a.qHeads / a.kvHeads
	for h := head * times; h < (head+1)*times; h++ {
		query := data[0][(at*a.qHeads+h)*s.k:][:s.k]
		for j := range s.v {
			sum := 0.0
			for i, q := range query {
				sum += q * state[i*s.v+j]
			}
			out[(at*a.qHeads+h)*s.v+j] = scale * sum
		}
	}
}

func init() {
	register(DomainONNX, map[string]opDef{
		"LinearAttention": {since: 27, minIn: 3, maxIn: 6, maxOut: 2, accept: floatTypes, result: fromBuilder, build: buildLinearAttention},
	})
}
