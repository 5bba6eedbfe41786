package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// attention holds an Attention node's attributes.
type attention struct {
	scale, softcap    float64
	causal            bool
	qHeads, kvHeads   int
	precision         engine.DType
	mode, left, right int
}

// The inputs of Attention behind query, key and value.
const (
	attnMask = iota + 3
	attnPastKey
	attnPastValue
	attnLengths
)

func readAttention(b *builder) (composer, error) {
	a := &attention{
		scale: b.attrs.float("scale", 0), softcap: b.attrs.float("softcap", 0), causal: b.attrs.int("is_causal", 0) == 1,
		qHeads: b.attrs.int("q_num_heads", 0), kvHeads: b.attrs.int("kv_num_heads", 0), mode: b.attrs.int("qk_matmul_output_mode", 0),
		left: b.attrs.int("left_window_size", -1), right: b.attrs.int("right_window_size", -1),
	}
	if b.attrs.has("softmax_precision") {
		a.precision = TypeOfONNX(b.attrs.int("softmax_precision", 0))
		if !a.precision.IsFloat() {
			return nil, b.node.unsupported("softmax_precision %s", a.precision)
		}
	}
	if a.mode < 0 || a.mode > 3 || a.softcap < 0 || a.left < -1 || a.right < -1 || a.qHeads < 0 || a.kvHeads < 0 {
		return nil, b.node.corrupt("qk_matmul_output_mode %d, softcap %v, windows of %d and %d", a.mode, a.softcap, a.left, a.right)
	}
	return a.compose, nil
}

// heads turns [batch, steps, heads x size] into [batch, heads, steps, size].
func (f *body) heads(x string, shape []int, n int) (string, []int, error) {
	if len(shape) == 4 {
		return x, shape, nil
	}
	if len(shape) != 3 || n < 1 || shape[2]%n != 0 {
		return "", nil, fmt.Errorf("%d heads of shape %v", n, shape)
	}
	x = f.op("Reshape", x, f.ints(0, 0, n, shape[2]/n))
	return f.transpose(x, 0, 2, 1, 3), []int{shape[0], n, shape[1], shape[2] / n}, nil
}

// repeatHeads repeats each of n heads for the query's.
func (f *body) repeatHeads(x string, shape []int, times int) string {
	if times == 1 {
		return x
	}
	wide := f.op("Expand", f.op("Unsqueeze", x, f.ints(2)), f.ints(shape[0], shape[1], times, shape[2], shape[3]))
	return f.op("Reshape", wide, f.ints(shape[0], shape[1]*times, shape[2], shape[3]))
}

func (a *attention) compose(f *body) error {
	d := f.in[0].DType()
	q, qs, err := f.heads(f.given(0), f.shape(0), a.qHeads)
	if err != nil {
		return err
	}
	k, ks, err := f.heads(f.given(1), f.shape(1), a.kvHeads)
	if err != nil {
		return err
	}
	v, vs, err := f.heads(f.given(2), f.shape(2), a.kvHeads)
	if err != nil {
		return err
	}
	past := 0
	if p := f.given(attnPastKey); p != "" {
		if f.given(attnPastValue) == "" || f.given(attnLengths) != "" || len(f.shape(attnPastKey)) != 4 {
			return fmt.Errorf("a past key without a past value, or with nonpad_kv_seqlen")
		}
		past = f.shape(attnPastKey)[2]
		k, v = f.concat(2, p, k), f.concat(2, f.given(attnPastValue), v)
	}
	steps := ks[2] + past
	ks, vs = []int{ks[0], ks[1], steps, ks[3]}, []int{vs[0], vs[1], steps, vs[3]}
	if ks[1] < 1 || vs[1] != ks[1] || qs[1]%ks[1] != 0 {
		return fmt.Errorf("%d heads of queries, %d of keys, %d of values", qs[1], ks[1], vs[1])
	}
	times := qs[1] / ks[1]
	scale := a.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(qs[3]))
	}
	root := f.number(d, math.Sqrt(scale))
	keys := f.transpose(f.op("Mul", f.repeatHeads(k, ks, times), root), 0, 1, 3, 2)
	scores := f.op("MatMul", f.op("Mul", q, root), keys)
	shown := scores
	if a.softcap > 0 {
		limit := f.number(d, a.softcap)
		scores = f.op("Mul", f.op("Tanh", f.op("Div", scores, limit)), limit)
	}
	if a.mode == 1 {
		shown = scores
	}
	bias, err := a.bias(f, qs[2], steps, past)
	if err != nil {
		return err
	}
	masked := ""
	if bias != "" {
		// A row that may see nothing is one of zeros.
		masked = f.op("Equal", f.op("ReduceMax", bias, f.ints(-1)), f.number(d, math.Inf(-1)))
		scores = f.op("Add", scores, bias)
	}
	if a.mode == 2 {
		shown = scores
	}
	p := a.softmax(f, scores, masked, d)
	if a.mode == 3 {
		shown = p
	}
	y := f.op("MatMul", p, f.repeatHeads(v, vs, times))
	if len(f.shape(0)) == 3 {
		y = f.op("Reshape", f.transpose(y, 0, 2, 1, 3), f.ints(qs[0], qs[2], qs[1]*vs[3]))
	}
	f.give(y, k, v, shown)
	return nil
}

func (a *attention) softmax(f *body, scores, masked string, d engine.DType) string {
	zero := f.number(d, 0)
	if masked != "" {
		scores = f.op("Where", masked, zero, scores)
	}
	if a.precision != engine.Invalid && a.precision != d {
		scores = f.cast(scores, a.precision)
	}
	p := f.op("Softmax", scores)
	if a.precision != engine.Invalid && a.precision != d {
		p = f.cast(p, d)
	}
	if masked != "" {
		p = f.op("Where", masked, zero, p)
	}
	return p
}

// bias is what is added to the scores, or "" for nothing: the mask, and -Inf where
// a query may not look.
func (a *attention) bias(f *body, queries, steps, past int) (string, error) {
	d := f.in[0].DType()
	zero, never := f.number(d, 0), f.number(d, math.Inf(-1))
	bias := ""
	if m := f.given(attnMask); m != "" {
		shape := f.shape(attnMask)
		if len(shape) < 1 || len(shape) > 4 || shape[len(shape)-1] > steps {
			return "", fmt.Errorf("a mask of shape %v for %d keys", shape, steps)
		}
		if f.in[attnMask].DType() == engine.Bool {
			m = f.op("Where", m, zero, never)
		}
		if short := steps - shape[len(shape)-1]; short > 0 {
			widths := make([]int, 2*len(shape))
			widths[len(widths)-1] = short
			m = f.op("Pad", m, f.ints(widths...), never)
		}
		bias = m
	}
	lengths := f.given(attnLengths)
	limit := func(allowed string) {
		if bias == "" {
			bias = zero
		}
		bias = f.op("Where", allowed, bias, never)
	}
	// The place of a query among the keys.
	at := f.op("Add", f.count(queries, 1), f.ints(past))
	if lengths != "" {
		lengths = f.op("Reshape", lengths, f.ints(-1, 1, 1, 1))
		at = f.op("Add", f.count(queries, 1), f.op("Sub", lengths, f.ints(queries)))
	}
	key := f.count(1, steps)
	if a.causal {
		limit(f.op("LessOrEqual", key, at))
	}
	if a.left >= 0 {
		limit(f.op("LessOrEqual", f.op("Sub", at, key), f.ints(a.left)))
	}
	if a.right >= 0 {
		limit(f.op("LessOrEqual", f.op("Sub", key, at), f.ints(a.right)))
	}
	if lengths != "" {
		limit(f.op("Less", key, lengths))
	}
	return bias, nil
}

// readFlexAttention: scores and probabilities go through graphs of the model's own.
func readFlexAttention(b *builder) (composer, error) {
	scale := b.attrs.float("scale", 0)
	precision := engine.Invalid
	if b.attrs.has("softmax_precision") {
		if precision = TypeOfONNX(b.attrs.int("softmax_precision", 0)); !precision.IsFloat() {
			return nil, b.node.unsupported("softmax_precision %s", precision)
		}
	}
	var mods [2]*Graph
	for i, name := range []string{"score_mod", "prob_mod"} {
		if !b.attrs.has(name) {
			continue
		}
		g, err := b.attrs.graph(name)
		if err != nil {
			return nil, err
		}
		if len(g.Inputs) != 1 || len(g.Outputs) != 1 {
			return nil, b.node.corrupt("%s has %d inputs and %d outputs", name, len(g.Inputs), len(g.Outputs))
		}
		for _, n := range g.Nodes {
			if n.Captured > 0 {
				return nil, b.node.unsupported("graphs within %s", name)
			}
		}
		mods[i] = g
	}
	n := b.node
	return func(f *body) error {
		d, qs, ks, vs := f.in[0].DType(), f.shape(0), f.shape(1), f.shape(2)
		if len(qs) != 4 || len(ks) != 4 || len(vs) != 4 || ks[1] < 1 || vs[1] != ks[1] || qs[1]%ks[1] != 0 {
			return fmt.Errorf("queries of shape %v, keys of %v, values of %v", qs, ks, vs)
		}
		s, wide := scale, precision
		if s == 0 {
			s = 1 / math.Sqrt(float64(qs[3]))
		}
		if wide == engine.Invalid {
			if wide = d; d == engine.Float16 || d == engine.BFloat16 {
				wide = engine.Float32
			}
		}
		root := f.number(d, math.Sqrt(s))
		keys := f.transpose(f.op("Mul", f.repeatHeads(f.given(1), ks, qs[1]/ks[1]), root), 0, 1, 3, 2)
		p := f.cast(f.op("MatMul", f.op("Mul", f.given(0), root), keys), wide)
		for i, g := range mods {
			if i == 1 {
				p = f.op("Softmax", p)
			}
			if g == nil {
				continue
			}
			out, err := f.inline(n, g, fmt.Sprintf("mod%d/", i), p)
			if err != nil {
				return err
			}
			p = out
		}
		y := f.op("MatMul", p, f.cast(f.repeatHeads(f.given(2), vs, qs[1]/ks[1]), wide))
		f.give(f.cast(y, d))
		return nil
	}, nil
}

// inline writes the graph g of node n, of one input and one output, into the body.
func (f *body) inline(n *Node, g *Graph, prefix, in string) (string, error) {
	names := map[string]string{"": "", g.Inputs[0].Name: in}
	for i, name := range n.Inputs[len(n.Inputs)-n.Captured:] {
		names[name] = f.given(len(n.Inputs) - n.Captured + i)
	}
	for name, t := range g.Constants {
		names[name] = prefix + name
		f.graph.Constants[prefix+name] = t
	}
	for _, inner := range g.Nodes {
		for _, out := range inner.Outputs {
			if out != "" {
				names[out] = prefix + out
			}
		}
	}
	rename := func(list []string) ([]string, error) {
		out := make([]string, len(list))
		for i, name := range list {
			to, ok := names[name]
			if !ok {
				return nil, n.corrupt("its inner graph reads %q, which is nowhere", name)
			}
			out[i] = to
		}
		return out, nil
	}
	for _, inner := range g.Nodes {
		own := *inner
		var err error
		if own.Inputs, err = rename(inner.Inputs); err != nil {
			return "", err
		}
		if own.Outputs, err = rename(inner.Outputs); err != nil {
			return "", err
		}
		f.graph.Nodes = append(f.graph.Nodes, &own)
	}
	out, err := rename(g.Outputs)
	if err != nil {
		return "", err
	}
	return out[0], nil
}

// turner turns pairs of the first width elements of each head by angles whose cosines and
// sines are [batch, steps, width/2].
type turner struct {
	cos, sin    string
	width       int
	interleaved bool
}

func (w *turner) turn(f *body, x string, shape []int) (string, error) {
	if w.width < 2 || w.width%2 != 0 || w.width > shape[3] {
		return "", fmt.Errorf("%d of %d elements are turned", w.width, shape[3])
	}
	cos, sin := f.op("Unsqueeze", w.cos, f.ints(1)), f.op("Unsqueeze", w.sin, f.ints(1))
	var a, c string
	if w.interleaved {
		pairs := f.op("Reshape", f.cut(x, 3, 0, w.width), f.ints(shape[0], shape[1], shape[2], w.width/2, 2))
		a, c = f.op("Squeeze", f.cut(pairs, 4, 0, 1), f.ints(4)), f.op("Squeeze", f.cut(pairs, 4, 1, 2), f.ints(4))
	} else {
		a, c = f.cut(x, 3, 0, w.width/2), f.cut(x, 3, w.width/2, w.width)
	}
	re := f.op("Sub", f.op("Mul", cos, a), f.op("Mul", sin, c))
	im := f.op("Add", f.op("Mul", sin, a), f.op("Mul", cos, c))
	y := f.concat(3, re, im)
	if w.interleaved {
		y = f.concat(4, f.op("Unsqueeze", re, f.ints(4)), f.op("Unsqueeze", im, f.ints(4)))
		y = f.op("Reshape", y, f.ints(shape[0], shape[1], shape[2], w.width))
	}
	if w.width < shape[3] {
		y = f.concat(3, y, f.cut(x, 3, w.width, shape[3]))
	}
	return y, nil
}

// readRotary turns pairs of elements by the angles of their places.
func readRotary(b *builder) (composer, error) {
	interleaved, part, heads := b.attrs.int("interleaved", 0) == 1, b.attrs.int("rotary_embedding_dim", 0), b.attrs.int("num_heads", 0)
	return func(f *body) error {
		x, shape, err := f.heads(f.given(0), f.shape(0), heads)
		if err != nil {
			return err
		}
		w := &turner{cos: f.given(1), sin: f.given(2), width: part, interleaved: interleaved}
		if w.width == 0 {
			w.width = shape[3]
		}
		if at := f.given(3); at != "" {
			w.cos, w.sin = f.op("Gather", w.cos, at), f.op("Gather", w.sin, at)
		}
		y, err := w.turn(f, x, shape)
		if err != nil {
			return err
		}
		if len(f.shape(0)) == 3 {
			y = f.op("Reshape", f.transpose(y, 0, 2, 1, 3), f.ints(f.shape(0)...))
		}
		f.give(y)
		return nil
	}, nil
}

// readRMSNorm divides by the root of the mean square, computed in float32 at least.
func readRMSNorm(b *builder) (composer, error) {
	axis, eps := b.attrs.int("axis", -1), b.attrs.float("epsilon", 1e-5)
	wide := TypeOfONNX(b.attrs.int("stash_type", 1))
	if wide != engine.Float32 && wide != engine.Float64 {
		return nil, b.node.unsupported("stash_type %s", wide)
	}
	return func(f *body) error {
		d := f.in[0].DType()
		a, err := normAxis(axis, len(f.shape(0)))
		if err != nil {
			return err
		}
		var axes []int
		for i := a; i < len(f.shape(0)); i++ {
			axes = append(axes, i)
		}
		x, w := f.given(0), wide
		if d == engine.Float64 {
			w = d
		}
		if w != d {
			x = f.cast(x, w)
		}
		mean := f.op("ReduceMean", f.op("Mul", x, x), f.ints(axes...))
		y := f.op("Div", x, f.op("Sqrt", f.op("Add", mean, f.number(w, eps))))
		if w != d {
			y = f.cast(y, d)
		}
		f.give(f.op("Mul", y, f.given(1)))
		return nil
	}, nil
}

func readSwiGLU(b *builder) (composer, error) {
	alpha := b.attrs.float("alpha", 1)
	return func(f *body) error {
		d, a := f.in[0].DType(), f.given(0)
		gate := a
		if alpha != 1 {
			gate = f.op("Mul", a, f.number(d, alpha))
		}
		f.give(f.op("Mul", f.op("Mul", a, f.op("Sigmoid", gate)), f.given(1)))
		return nil
	}, nil
}

// readCausalConv convolves each channel with what came before it.
func readCausalConv(b *builder) (composer, error) {
	activation := b.attrs.string("activation", "none")
	if activation != "none" && activation != "silu" && activation != "swish" {
		return nil, b.node.corrupt("activation %q", activation)
	}
	return func(f *body) error {
		d, xs, ws := f.in[0].DType(), f.shape(0), f.shape(1)
		if len(xs) != 3 || len(ws) != 3 || ws[2] < 1 {
			return fmt.Errorf("an input of shape %v and weights of %v", xs, ws)
		}
		x, before := f.given(0), ws[2]-1
		if past := f.given(3); past != "" {
			x = f.concat(2, past, x)
		} else {
			x = f.op("Pad", x, f.ints(0, 0, before, 0, 0, 0))
		}
		y := f.with("Conv", Attrs{"group": {Kind: AttrInt, Int: int64(xs[1])}}, x, f.given(1), f.given(2))
		if activation != "none" {
			wide := f.cast(y, engine.Float32)
			if d == engine.Float64 {
				wide = y
			}
			y = f.cast(f.op("Mul", wide, f.op("Sigmoid", wide)), d)
		}
		f.give(y, f.cut(x, 2, xs[2], xs[2]+before))
		return nil
	}, nil
}

func init() {
	attn := opDef{since: 23, minIn: 3, maxIn: 7, maxOut: 4, accept: floatTypes, result: fromBuilder}
	register(DomainONNX, map[string]opDef{
		"Attention":           composite(attn, typed(readAttention, 0, 1, 2, 0)),
		"RotaryEmbedding":     composite(opDef{since: 23, minIn: 3, maxIn: 4, maxOut: 1, accept: floatTypes}, readRotary),
		"RMSNormalization":    composite(opDef{since: 23, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, result: sameAsSecond}, readRMSNorm),
		"SwiGLU":              composite(opDef{since: 28, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes}, readSwiGLU),
		"CausalConvWithState": composite(opDef{since: 27, minIn: 2, maxIn: 4, maxOut: 2, accept: floatTypes}, readCausalConv),
	})
	register(DomainPreview, map[string]opDef{
		"FlexAttention": composite(opDef{since: 1, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes}, readFlexAttention),
	})
}

// typed sets the types of a composite's outputs to those of some of its inputs.
func typed(read func(b *builder) (composer, error), of ...int) func(b *builder) (composer, error) {
	return func(b *builder) (composer, error) {
		b.result = nil
		for _, i := range of {
			b.result = append(b.result, b.inType(i))
		}
		return read(b)
	}
}
