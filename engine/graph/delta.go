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
	a, err := readLinearAttention(b)
	if err != nil {
		return nil, err
	}
	state := b.inType(3)
	if state == engine.Invalid {
		state = b.inType(0)
	}
	b.result = []engine.DType{b.inType(0), state}
	return a.run, nil
}

func readLinearAttention(b *builder) (*linearAttention, error) {
	b.attrs.ignore("chunk_size") // of an order of work, which changes nothing
	a := &linearAttention{qHeads: b.attrs.int("q_num_heads", 0), kvHeads: b.attrs.int("kv_num_heads", 0), scale: b.attrs.float("scale", 0)}
	rule := b.attrs.string("update_rule", "gated_delta")
	a.gated, a.corrects = rule == "gated" || rule == "gated_delta", rule == "delta" || rule == "gated_delta"
	if a.kvHeads < 1 || a.qHeads < 1 || a.qHeads%a.kvHeads != 0 || !a.gated && !a.corrects && rule != "linear" {
		return nil, b.node.corrupt("%d heads for %d, rule %q", a.qHeads, a.kvHeads, rule)
	}
	return a, nil
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
	s := recall[deltaSizes](x, in)
	if s == nil {
		var err error
		if s, err = a.sizes(in); err != nil {
			return nil, err
		}
		remember(x, in, s)
	}
	var data [6][]float64
	var err error
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
	state, out, value := x.wide(last.Len()), x.wide(y.Len()), x.wide(s.v)
	clear(state[copy(state, data[3]):])
	for line := range s.batch * a.kvHeads {
		own := state[line*s.k*s.v:][:s.k*s.v]
		for t := range s.steps {
			if x.ctx != nil && x.ctx.Err() != nil {
				return nil, x.ctx.Err()
			}
			a.step(s, &data, own, out, value, line/a.kvHeads, line%a.kvHeads, t)
		}
	}
	if err := storeFloats(last, state); err != nil {
		return nil, err
	}
	outs := x.list(2)
	outs[0], outs[1] = y, last
	return outs, storeFloats(y, out)
}

// step updates one head's state by one step, and reads it for that head's queries. value is room
// for one.
func (a *linearAttention) step(s *deltaSizes, data *[6][]float64, state, out, value []float64, batch, head, t int) {
	at := batch*s.steps + t
	key := data[1][(at*a.kvHeads+head)*s.k:][:s.k]
	copy(value, data[2][(at*a.kvHeads+head)*s.v:])
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
	scale := a.scaleOf(s)
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

func (a *linearAttention) scaleOf(s *deltaSizes) float64 {
	if a.scale != 0 {
		return a.scale
	}
	return 1 / math.Sqrt(float64(s.k))
}

// meansLinearAttention writes the steps as a Scan over the state, in float64 as the kernel.
func meansLinearAttention(b *builder) (composer, error) {
	a, err := readLinearAttention(b)
	if err != nil {
		return nil, err
	}
	return func(f *body) error {
		s, err := a.sizes(f.in)
		if err != nil {
			return err
		}
		first, state := f.op("Expand", f.number(engine.Float64, 0), f.ints(s.batch, a.kvHeads, s.k, s.v)), f.in[0].DType()
		if f.given(3) != "" {
			first, state = f.cast(f.given(3), engine.Float64), f.in[3].DType()
		}
		walked := []string{first}
		// What is walked has a dimension of heads, then the rows and columns of a product.
		for i, sizes := range [][]int{{a.kvHeads, a.qHeads / a.kvHeads, s.k}, {a.kvHeads, 1, s.k}, {a.kvHeads, 1, s.v}, nil, {a.kvHeads, s.decay / a.kvHeads, 1}, {s.beta, 1, 1}} {
			if sizes != nil && f.given(i) != "" {
				split := f.op("Reshape", f.cast(f.given(i), engine.Float64), f.ints(slices.Concat([]int{s.batch, s.steps}, sizes)...))
				walked = append(walked, f.transpose(split, 1, 0, 2, 3, 4))
			}
		}
		scan := f.ops("Scan", 2, Attrs{"num_scan_inputs": {Kind: AttrInt, Int: int64(len(walked) - 1)}, "body": {Kind: AttrGraph, Graph: a.stepGraph()}}, walked...)
		read := f.op("Mul", f.transpose(scan[1], 1, 0, 2, 3, 4), f.number(engine.Float64, a.scaleOf(s)))
		f.give(f.cast(f.op("Reshape", read, f.ints(s.batch, s.steps, a.qHeads*s.v)), f.in[0].DType()), f.cast(scan[0], state))
		return nil
	}, nil
}

// stepGraph is step for all heads at once: a state and what is walked to a state and what
// the queries read of it.
func (a *linearAttention) stepGraph() *Graph {
	f := newBody(nil)
	walked := []string{"state", "query", "key", "value"}
	if a.gated {
		walked = append(walked, "decay")
	}
	if a.corrects {
		walked = append(walked, "beta")
	}
	for _, name := range walked {
		f.graph.Inputs = append(f.graph.Inputs, engine.Spec{Name: name, DType: engine.Float64})
	}
	state, value := "state", "value"
	if a.gated {
		state = f.op("Mul", state, f.op("Exp", "decay"))
	}
	if a.corrects {
		value = f.op("Mul", "beta", f.op("Sub", value, f.op("MatMul", "key", state)))
	}
	next := f.op("Add", state, f.op("MatMul", f.transpose("key", 0, 1, 3, 2), value))
	f.give(next, f.op("MatMul", "query", next))
	return f.graph
}

func init() {
	register(DomainONNX, map[string]opDef{
		"LinearAttention": {since: 27, minIn: 3, maxIn: 6, maxOut: 2, accept: floatTypes, result: fromBuilder, build: buildLinearAttention, means: meansLinearAttention},
	})
}
