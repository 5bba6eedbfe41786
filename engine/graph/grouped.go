package graph

import (
	"math"

	"github.com/pellucid/pellucid/engine"
)

// The inputs of GroupQueryAttention behind query, key and value. Those behind the sink, of
// caches in 8 bits and of norms of the queries, are refused.
const (
	groupPastKey = iota + 3
	groupPastValue
	groupLengths // of each row, less one
	groupTotal   // of the longest, the past with it
	groupCos
	groupSin
	groupPlaces
	groupAdded
	groupSink
	groupInputs
)

// grouped holds a GroupQueryAttention node's attributes.
type grouped struct {
	heads, pairs, window               int
	scale, softcap                     float64
	rotary, interleaved, smooth, whole bool
}

func readGrouped(b *builder) (composer, error) {
	g := &grouped{
		heads: b.attrs.int("num_heads", 0), pairs: b.attrs.int("kv_num_heads", 0), window: b.attrs.int("local_window_size", -1),
		scale: b.attrs.float("scale", 0), softcap: b.attrs.float("softcap", 0), rotary: b.attrs.int("do_rotary", 0) == 1,
		interleaved: b.attrs.int("rotary_interleaved", 0) == 1, smooth: b.attrs.int("smooth_softmax", 0) == 1, whole: b.attrs.int("causal", 1) == 0,
	}
	for _, name := range []string{"qk_output", "sliding_window_cache"} {
		if b.attrs.int(name, 0) != 0 {
			return nil, b.node.unsupported("%s", name)
		}
	}
	for _, name := range []string{"k_quant_type", "v_quant_type"} {
		if s := b.attrs.string(name, "NONE"); s != "NONE" {
			return nil, b.node.unsupported("%s %q", name, s)
		}
	}
	// They say how, where something else says whether.
	for _, name := range []string{"kv_cache_bit_width", "qk_norm_epsilon", "q_norm_epsilon", "k_norm_epsilon"} {
		b.attrs.ignore(name)
	}
	for i := groupInputs; i < len(b.node.Inputs)-b.node.Captured; i++ {
		if b.node.Inputs[i] != "" {
			return nil, b.node.unsupported("input %d", i)
		}
	}
	if g.heads < 1 || g.pairs < 1 || g.heads%g.pairs != 0 || g.softcap < 0 || g.window > 0 && g.whole {
		return nil, b.node.corrupt("%d heads of queries, %d of keys, softcap %v, window %d", g.heads, g.pairs, g.softcap, g.window)
	}
	return g.compose, nil
}

// checkGrouped holds what a run says of lengths against its shapes: a body cannot.
func checkGrouped(in []*engine.Tensor) error {
	if in[0] == nil || len(in[0].Shape()) != 3 {
		return misfit("queries that are not [batch, steps, heads x size]")
	}
	batch, steps, past := in[0].Shape()[0], in[0].Shape()[1], 0
	if k, v := in[groupPastKey], in[groupPastValue]; k != nil && v != nil {
		if len(k.Shape()) != 4 || len(v.Shape()) != 4 || k.Shape()[2] != v.Shape()[2] {
			return misfit("a past of keys of shape %v, of values of %v", k.Shape(), v.Shape())
		}
		past = k.Shape()[2]
	} else if k != nil || v != nil {
		return misfit("a past of keys or of values only")
	}
	lengths, err := intsOf(in[groupLengths])
	if err != nil {
		return err
	}
	total, err := intsOf(in[groupTotal])
	if err != nil {
		return err
	}
	if len(lengths) != batch || len(total) != 1 || total[0] < steps || total[0] > past+steps {
		return misfit("%d lengths and a total of %v for a batch of %d, %d steps behind a past of %d", len(lengths), total, batch, steps, past)
	}
	least := steps
	if total[0] == steps {
		least = min(1, steps) // a prompt's rows may be shorter than the longest
	}
	for _, n := range lengths {
		if n+1 < least || n+1 > total[0] {
			return misfit("a row of %d of %d places, %d of them new", n+1, total[0], steps)
		}
	}
	if a := arg(in, groupAdded); a != nil {
		if s := a.Shape(); len(s) != 4 || s[3] < total[0] {
			return misfit("an attention bias of shape %v for %d places", s, total[0])
		}
	}
	return nil
}

func (g *grouped) compose(f *body) error {
	d, wide := f.in[0].DType(), f.in[0].DType()
	if isHalf(d) {
		wide = engine.Float32
	}
	q, k, v, shape, err := g.parts(f)
	if err != nil {
		return err
	}
	batch, steps, size := shape[0], shape[2], shape[3]
	past := 0
	if f.given(groupPastKey) != "" {
		want := []int{batch, g.pairs, f.shape(groupPastKey)[2], size}
		for _, i := range []int{groupPastKey, groupPastValue} {
			if s := f.shape(i); s[0] != want[0] || s[1] != want[1] || s[3] != want[3] {
				return misfit("a past of shape %v, want %v", s, want)
			}
		}
		past = want[2]
	}
	lengths := f.op("Add", f.op("Reshape", f.cast(f.given(groupLengths), engine.Int64), f.ints(batch, 1)), f.ints(1))
	total := f.op("Reshape", f.cast(f.given(groupTotal), engine.Int64), f.ints(1))
	// What lies before a row's steps: nothing where they are all that there is.
	prompt := f.op("Equal", total, f.ints(steps))
	before := f.op("Where", prompt, f.ints(0), f.op("Sub", lengths, f.ints(steps)))
	if g.rotary {
		if q, k, err = g.turned(f, q, k, shape, before, prompt); err != nil {
			return err
		}
	}
	places := f.op("Max", total, f.ints(past))
	scalar := func(x string) string { return f.op("Reshape", x, f.ints()) }
	at := f.op("Range", scalar(f.ints(0)), scalar(places), scalar(f.ints(1)))
	k, v = g.kept(f, k, past, shape, before, places, at, groupPastKey), g.kept(f, v, past, shape, before, places, at, groupPastValue)
	scale := g.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(size))
	}
	as := func(x string) string {
		if wide == d {
			return x
		}
		return f.cast(x, wide)
	}
	// The queries of a head of keys are rows of one matrix.
	rows := f.op("Reshape", f.op("Mul", as(q), f.number(wide, scale)), f.ints(batch, g.pairs, g.heads/g.pairs*steps, size))
	scores := f.op("Reshape", f.op("MatMul", rows, f.transpose(as(k), 0, 1, 3, 2)), f.concat(0, f.ints(batch, g.heads, steps), places))
	if scores, err = g.limited(f, scores, wide, shape, before, lengths, places, at); err != nil {
		return err
	}
	p := f.op("Reshape", g.softmax(f, scores, wide, batch, steps), f.concat(0, f.ints(batch, g.pairs, g.heads/g.pairs*steps), places))
	y := f.op("Reshape", f.op("MatMul", p, as(v)), f.ints(batch, g.heads, steps, size))
	y = f.op("Reshape", f.transpose(y, 0, 2, 1, 3), f.ints(batch, steps, g.heads*size))
	if wide != d {
		y = f.cast(y, d)
	}
	f.give(y, k, v)
	return nil
}

// parts are queries, keys and values in heads, which may lie in one input, and the
// queries' shape.
func (g *grouped) parts(f *body) (q, k, v string, shape []int, err error) {
	s := f.shape(0)
	batch, steps, width := s[0], s[1], s[2]
	size := width / g.heads
	q, k, v = f.given(0), f.given(1), f.given(2)
	switch {
	case k == "" && v == "":
		size = width / (g.heads + 2*g.pairs)
		if width != size*(g.heads+2*g.pairs) {
			return "", "", "", nil, misfit("%d and twice %d heads of shape %v", g.heads, g.pairs, s)
		}
		a, b := g.heads*size, (g.heads+g.pairs)*size
		q, k, v = f.cut(q, 2, 0, a), f.cut(q, 2, a, b), f.cut(q, 2, b, width)
	case k == "" || v == "":
		return "", "", "", nil, misfit("keys or values only")
	default:
		for i := range 2 {
			if s := f.shape(1 + i); len(s) != 3 || s[0] != batch || s[1] != steps || s[2] != g.pairs*size || width != g.heads*size {
				return "", "", "", nil, misfit("queries of shape %v and keys or values of %v in %d and %d heads", f.shape(0), s, g.heads, g.pairs)
			}
		}
	}
	if size < 1 {
		return "", "", "", nil, misfit("%d heads of shape %v", g.heads, s)
	}
	in := func(x string, n int) string {
		return f.transpose(f.op("Reshape", x, f.ints(batch, steps, n, size)), 0, 2, 1, 3)
	}
	return in(q, g.heads), in(k, g.pairs), in(v, g.pairs), []int{batch, g.heads, steps, size}, nil
}

// turned turns queries and keys by the angles of their places, which count from a row's
// begin where they are not given.
func (g *grouped) turned(f *body, q, k string, shape []int, before, prompt string) (string, string, error) {
	if f.given(groupCos) == "" || f.given(groupSin) == "" || len(f.shape(groupCos)) != 2 {
		return "", "", misfit("do_rotary without cos_cache and sin_cache of two dimensions")
	}
	places := f.op("Add", before, f.count(1, shape[2]))
	if given := f.given(groupPlaces); given != "" {
		if s := f.shape(groupPlaces); len(s) != 2 || s[0] != shape[0] || s[1] != shape[2] || s[0] < 1 || s[1] < 1 {
			return "", "", misfit("places of shape %v for %v", s, shape)
		}
		// Of a prompt the first place only.
		first := f.op("Reshape", f.cut(f.cut(given, 0, 0, 1), 1, 0, 1), f.ints(1, 1))
		places = f.op("Where", prompt, f.op("Add", first, f.count(1, shape[2])), given)
	}
	w := &turner{interleaved: g.interleaved, width: 2 * f.shape(groupCos)[1]}
	w.cos, w.sin = f.op("Gather", f.given(groupCos), places), f.op("Gather", f.given(groupSin), places)
	q, err := w.turn(f, q, shape)
	if err != nil {
		return "", "", err
	}
	k, err = w.turn(f, k, []int{shape[0], g.pairs, shape[2], shape[3]})
	return q, k, err
}

// kept is what a row has after its steps, in order: its past, which may be shorter than
// the place it lies in, the steps, and zeros.
func (g *grouped) kept(f *body, x string, past int, shape []int, before, places, at string, input int) string {
	batch, steps, size := shape[0], shape[2], shape[3]
	nothing, err := engine.New(f.in[0].DType(), batch, g.pairs, 1, size)
	all := []string{x, f.made(nothing, err)}
	if past > 0 {
		all = append([]string{f.given(input)}, all...)
	}
	since := f.op("Sub", at, before)
	from := f.op("Where", f.op("Less", since, f.ints(steps)), f.op("Add", since, f.ints(past)), f.ints(past+steps))
	from = f.op("Where", f.op("Less", since, f.ints(0)), at, from)
	index := f.op("Expand", f.op("Unsqueeze", from, f.ints(1, 3)), f.concat(0, f.ints(batch, g.pairs), places, f.ints(1)))
	return f.with("GatherND", Attrs{"batch_dims": {Kind: AttrInt, Int: 2}}, f.concat(2, all...), index)
}

// limited caps scores, adds to them and leaves out what a query may not see.
func (g *grouped) limited(f *body, scores string, d engine.DType, shape []int, before, lengths, places, at string) (string, error) {
	batch, steps := shape[0], shape[2]
	if g.softcap > 0 {
		limit := f.number(d, g.softcap)
		scores = f.op("Mul", f.op("Tanh", f.op("Div", scores, limit)), limit)
	}
	if more := f.given(groupAdded); more != "" {
		s := f.shape(groupAdded)
		if s[0] != 1 && s[0] != batch || s[1] != 1 && s[1] != g.heads || s[2] != steps {
			return "", misfit("an attention bias of shape %v for a batch of %d and %d steps", s, batch, steps)
		}
		if f.in[groupAdded].DType() != d {
			more = f.cast(more, d)
		}
		more = f.op("Pad", more, f.concat(0, f.ints(0, 0, 0, 0, 0, 0, 0), f.op("Sub", places, f.ints(s[3]))))
		scores = f.op("Add", scores, more)
	}
	four := func(x string) string { return f.op("Reshape", x, f.ints(batch, 1, 1, 1)) }
	query := f.op("Add", four(before), f.count(steps, 1))
	seen := f.op("LessOrEqual", at, query)
	switch {
	case g.whole:
		seen = f.op("Less", at, four(lengths))
	case g.window > 0:
		seen = f.op("And", seen, f.op("Greater", at, f.op("Sub", query, f.ints(g.window))))
	}
	return f.op("Where", seen, scores, f.number(d, math.Inf(-1))), nil
}

// softmax is that of scores and, where there is one, of a sink that takes its share.
func (g *grouped) softmax(f *body, scores string, d engine.DType, batch, steps int) string {
	sink := f.given(groupSink)
	if sink == "" && !g.smooth {
		return f.op("Softmax", scores)
	}
	if sink == "" {
		sink = f.number(d, 0)
	} else {
		if f.in[groupSink].DType() != d {
			sink = f.cast(sink, d)
		}
		sink = f.op("Reshape", sink, f.ints(1, g.heads, 1, 1))
	}
	sink = f.op("Expand", sink, f.ints(batch, g.heads, steps, 1))
	return f.cut(f.op("Softmax", f.concat(3, sink, scores)), 3, 1, math.MaxInt32)
}

// buildGrouped runs the body after it has held lengths against shapes.
func buildGrouped(read func(b *builder) (composer, error)) func(b *builder) (Kernel, error) {
	build := composite(opDef{}, read).build
	return func(b *builder) (Kernel, error) {
		run, err := build(b)
		if err != nil {
			return nil, err
		}
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			if err := checkGrouped(in); err != nil {
				return nil, err
			}
			return run(x, in)
		}, nil
	}
}

// readContribRotary is RotaryEmbedding as onnxruntime had it before ONNX did: places come
// second, and one alone is where the first step stands.
func readContribRotary(b *builder) (composer, error) {
	interleaved, part, heads := b.attrs.int("interleaved", 0) == 1, b.attrs.int("rotary_embedding_dim", 0), b.attrs.int("num_heads", 0)
	if b.attrs.int("is_packed_batching", 0) != 0 || b.attrs.float("scale", 1) != 1 {
		return nil, b.node.unsupported("is_packed_batching or scale")
	}
	return func(f *body) error {
		s, cache := f.shape(0), f.shape(2)
		if !f.in[1].DType().IsInteger() {
			return typeError(f.in[1])
		}
		if len(cache) != 2 || cache[1] < 1 || len(f.shape(3)) != 2 {
			return misfit("caches of shape %v and %v", cache, f.shape(3))
		}
		n := heads
		if n == 0 && part == 0 && len(s) == 3 {
			n = s[2] / (2 * cache[1])
		}
		x, shape, err := f.heads(f.given(0), s, n)
		if err != nil {
			return err
		}
		w := &turner{interleaved: interleaved, width: part}
		if w.width == 0 {
			w.width = shape[3]
		}
		places := f.cast(f.given(1), engine.Int64)
		if p := f.shape(1); len(p) == 1 && p[0] == 1 {
			places = f.op("Add", f.op("Reshape", places, f.ints(1, 1)), f.count(1, shape[2]))
		} else if len(p) != 2 || p[0] != shape[0] || p[1] != shape[2] {
			return misfit("places of shape %v for %v", p, shape)
		}
		w.cos, w.sin = f.op("Gather", f.given(2), places), f.op("Gather", f.given(3), places)
		y, err := w.turn(f, x, shape)
		if err != nil {
			return err
		}
		if len(s) == 3 {
			y = f.op("Reshape", f.transpose(y, 0, 2, 1, 3), f.ints(s...))
		}
		f.give(y)
		return nil
	}, nil
}

func init() {
	group := composite(opDef{since: 1, minIn: 7, maxIn: 17, maxOut: 4, optional: 5, accept: floatTypes, result: fromBuilder}, typed(readGrouped, 0, 0, 0))
	group.build = buildGrouped(group.compose)
	register(DomainContrib, map[string]opDef{
		"GroupQueryAttention": group,
		"RotaryEmbedding":     composite(opDef{since: 1, minIn: 4, maxIn: 4, maxOut: 1, accept: floatTypes}, readContribRotary),
	})
}
