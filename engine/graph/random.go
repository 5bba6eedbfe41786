package graph

import (
	"github.com/pellucid/pellucid/engine"
)

// twister is the Mersenne Twister MT19937, the generator behind NumPy's seeds, which
// ONNX's definition of Dropout in training names by its numbers.
type twister struct {
	state [624]uint32
	at    int
}

func (t *twister) seed(seed uint32) {
	t.at = len(t.state)
	for i := range t.state {
		t.state[i] = seed
		seed = 1812433253*(seed^seed>>30) + uint32(i) + 1
	}
}

func (t *twister) next() uint32 {
	if t.at == len(t.state) {
		for i := range t.state {
			y := t.state[i]&0x80000000 | t.state[(i+1)%624]&0x7fffffff
			t.state[i] = t.state[(i+397)%624] ^ y>>1 ^ y&1*0x9908b0df
		}
		t.at = 0
	}
	y := t.state[t.at]
	t.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// float is a number in [0, 1) of 53 bits.
func (t *twister) float() float64 {
	hi, lo := t.next()>>5, t.next()>>6
	return (float64(hi)*(1<<26) + float64(lo)) / (1 << 53)
}

// dropout is a Dropout node: what training drops follows from the seed alone.
type dropout struct {
	seeded bool
	// numeric says that the mask has the type of the input.
	numeric bool
	seed    int
	ratio   float64
}

func buildDropout(b *builder) (Kernel, error) {
	d := &dropout{seeded: b.attrs.has("seed"), seed: b.attrs.int("seed", 0), ratio: 0.5}
	b.attrs.ignore("training_mode")
	if b.version() < 12 {
		d.ratio, d.numeric = b.attrs.float("ratio", 0.5), b.version() < 10
	}
	b.result = []engine.DType{b.inType(0), engine.Bool}
	if b.version() < 10 {
		b.result[1] = b.inType(0)
	}
	if b.version() < 12 {
		return d.before12, nil
	}
	if len(b.node.Inputs) < 3 || b.node.Inputs[2] == "" {
		return d.inference, nil
	}
	mode := b.constants[2]
	if mode != nil && mode.Len() == 1 && mode.DType() == engine.Bool && !engine.Data[bool](mode)[0] {
		return d.inference, nil
	}
	if !d.seeded {
		return nil, b.node.unsupported("training mode without a seed: the same input would not give the same output again")
	}
	return d.run, nil
}

// before12 is Dropout of the operator sets that leave open what is in the mask: nothing, as
// in onnxruntime, of the input's type before set 10.
func (d *dropout) before12(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	kind := engine.Bool
	if d.numeric {
		kind = in[0].DType()
	}
	mask, err := x.New(kind, in[0].Shape()...)
	return x.pair(in[0], mask), err
}

func (d *dropout) inference(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	mask, kept, err := newOf[bool](x, in[0].Shape()...)
	if err != nil {
		return nil, err
	}
	for i := range kept {
		kept[i] = true
	}
	return x.pair(in[0], mask), nil
}

func (d *dropout) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	training, err := condition(in[2])
	if err != nil {
		return nil, err
	}
	ratio := d.ratio
	if t := arg(in, 1); t != nil {
		if ratio, err = scalarOf(t); err != nil {
			return nil, err
		}
	}
	if !training || ratio == 0 {
		return d.inference(x, in)
	}
	if !(ratio > 0 && ratio < 1) {
		return nil, misfit("a ratio that is not between 0 and 1")
	}
	o, err := x.New(in[0].DType(), in[0].Shape()...)
	if err != nil {
		return nil, err
	}
	mask, kept, err := newOf[bool](x, in[0].Shape()...)
	if err != nil {
		return nil, err
	}
	v, err := floats(x, in[0])
	if err != nil {
		return nil, err
	}
	out := x.wide(len(v))
	var r twister
	r.seed(uint32(d.seed))
	for i, e := range v {
		kept[i] = r.float() >= ratio
		if out[i] = e / (1 - ratio); !kept[i] {
			out[i] = 0
		}
	}
	return x.pair(o, mask), storeFloats(o, out)
}

// refuseRandom refuses the operators that draw at random: the definition leaves the
// numbers to the implementation, seeded or not, and a prediction has to be the same
// when it is explained later.
func refuseRandom(b *builder) (Kernel, error) {
	return nil, b.node.unsupported("it draws at random: the same input would not give the same output elsewhere or again")
}

func init() {
	defs := map[string]opDef{
		"Dropout": {since: 7, minIn: 1, maxIn: 3, maxOut: 2, result: fromBuilder, build: buildDropout},
	}
	for _, op := range []string{"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"} {
		defs[op] = opDef{since: 1, maxIn: 1, maxOut: 1, build: refuseRandom}
	}
	register(DomainONNX, defs)
}
