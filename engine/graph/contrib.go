package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// DomainContrib is the domain of onnxruntime's own operators. Those here are what a reader
// cannot write in ONNX's; engine/onnx makes others of them.
const DomainContrib = "com.microsoft"

// The inputs of MultiHeadAttention behind query, key and value.
const (
	headsBias = iota + 3
	headsMask
	headsAdded
	headsPastKey
	headsPastValue
)

// manyHeads holds a MultiHeadAttention node's attributes.
type manyHeads struct {
	heads          int
	scale, hidden  float64
	unidirectional bool
}

func readMultiHead(b *builder) (composer, error) {
	a := &manyHeads{
		heads: b.attrs.int("num_heads", 0), scale: b.attrs.float("scale", 0),
		hidden: b.attrs.float("mask_filter_value", -10000), unidirectional: b.attrs.int("unidirectional", 0) == 1,
	}
	if a.heads < 1 {
		return nil, b.node.corrupt("%d heads", a.heads)
	}
	if b.inType(1) == engine.Invalid || b.inType(2) == engine.Invalid {
		return nil, b.node.unsupported("queries, keys and values that are packed in one input, which onnxruntime's CPU does not take either")
	}
	return a.compose, nil
}

// part is input i in heads, with its share of the bias, which begins at from.
func (a *manyHeads) part(f *body, i, from int) (x string, shape []int, err error) {
	x, shape = f.given(i), f.shape(i)
	switch {
	case len(shape) == 4 && i > 0 && f.given(headsBias) == "":
		if shape[1] != a.heads {
			return "", nil, misfit("%d heads of shape %v", a.heads, shape)
		}
		return x, shape, nil
	case len(shape) != 3 || shape[2]%a.heads != 0:
		return "", nil, misfit("%d heads of shape %v", a.heads, shape)
	}
	if bias := f.given(headsBias); bias != "" {
		if s := f.shape(headsBias); len(s) != 1 || s[0] < from+shape[2] {
			return "", nil, misfit("a bias of shape %v", s)
		}
		x = f.op("Add", x, f.cut(bias, 0, from, from+shape[2]))
	}
	return f.heads(x, shape, a.heads)
}

func (a *manyHeads) compose(f *body) error {
	d := f.in[0].DType()
	q, qs, err := a.part(f, 0, 0)
	if err != nil {
		return err
	}
	width := qs[1] * qs[3]
	k, ks, err := a.part(f, 1, width)
	if err != nil {
		return err
	}
	v, vs, err := a.part(f, 2, 2*width)
	if err != nil {
		return err
	}
	past := 0
	if pk, pv := f.given(headsPastKey), f.given(headsPastValue); pk != "" || pv != "" {
		if pk == "" || pv == "" || len(f.shape(headsPastKey)) != 4 {
			return misfit("a past of keys or of values only, or one that is not of four dimensions")
		}
		past = f.shape(headsPastKey)[2]
		k, v = f.concat(2, pk, k), f.concat(2, pv, v)
	}
	if ks[3] != qs[3] || vs[2] != ks[2] {
		return misfit("queries of shape %v, keys of %v, values of %v in heads", qs, ks, vs)
	}
	scale := a.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(qs[3]))
	}
	scores := f.op("Mul", f.op("MatMul", q, f.transpose(k, 0, 1, 3, 2)), f.number(d, scale))
	// What hides a key is beyond half precision, where a row that sees none would have no numbers.
	wide := d
	if d == engine.Float16 {
		wide = engine.Float32
	}
	added, err := a.added(f, wide, qs[0], qs[2], past+ks[2], past)
	if err != nil {
		return err
	}
	shares := ""
	switch {
	case added == "":
		shares = f.op("Softmax", scores)
	case wide == d:
		scores = f.op("Add", scores, added)
		shares = f.op("Softmax", scores)
	default:
		sums := f.op("Add", f.cast(scores, wide), added)
		scores, shares = f.cast(sums, d), f.cast(f.op("Softmax", sums), d)
	}
	y := f.transpose(f.op("MatMul", shares, v), 0, 2, 1, 3)
	f.give(f.op("Reshape", y, f.ints(qs[0], qs[2], a.heads*vs[3])), k, v, scores)
	return nil
}

// added is what is added to the scores of so many queries and keys, as numbers of type d; "" for
// nothing.
func (a *manyHeads) added(f *body, d engine.DType, batch, queries, keys, past int) (string, error) {
	added := ""
	if f.given(headsMask) != "" {
		shown, err := a.shown(f, batch, queries, keys)
		if err != nil {
			return "", err
		}
		added = f.op("Where", shown, f.number(d, 0), f.number(d, a.hidden))
	}
	if a.unidirectional && queries > 1 {
		if added == "" {
			added = f.number(d, 0)
		}
		at := f.op("Add", f.count(queries, 1), f.ints(past))
		added = f.op("Where", f.op("LessOrEqual", f.count(1, keys), at), added, f.number(d, -math.MaxFloat32))
	}
	if more := f.given(headsAdded); more != "" {
		s := f.shape(headsAdded)
		if len(s) != 4 || s[0] != 1 && s[0] != batch || s[1] != 1 && s[1] != a.heads || s[2] != queries || s[3] != keys {
			return "", misfit("an attention bias of shape %v for %d queries and %d keys", s, queries, keys)
		}
		if f.in[headsAdded].DType() != d {
			more = f.cast(more, d)
		}
		if added == "" {
			return more, nil
		}
		added = f.op("Add", more, added)
	}
	return added, nil
}

// shown says which keys are seen: a mask of 0 and 1 for each, or for each query and key;
// or from where on they are filling, and up to where.
func (a *manyHeads) shown(f *body, batch, queries, keys int) (string, error) {
	m, s := f.given(headsMask), f.shape(headsMask)
	if !f.in[headsMask].DType().IsInteger() {
		return "", fmt.Errorf("a mask of %s", f.in[headsMask].DType())
	}
	m = f.cast(m, engine.Int64)
	switch {
	case len(s) == 1 && (s[0] == batch || s[0] == 2*batch):
		at := f.count(1, keys)
		column := func(from int) string { return f.op("Reshape", f.cut(m, 0, from, from+batch), f.ints(batch, 1, 1, 1)) }
		shown := f.op("Less", at, column(0))
		if s[0] == 2*batch && batch > 0 {
			shown = f.op("And", shown, f.op("GreaterOrEqual", at, column(batch)))
		}
		return shown, nil
	case len(s) == 2 && s[0] == batch && s[1] == keys:
		m = f.op("Reshape", m, f.ints(batch, 1, 1, keys))
	case len(s) == 3 && s[0] == batch && s[1] == queries && s[2] == keys:
		m = f.op("Reshape", m, f.ints(batch, 1, queries, keys))
	default:
		return "", misfit("a mask of shape %v for a batch of %d, %d queries and %d keys", s, batch, queries, keys)
	}
	return f.op("Greater", m, f.ints(0)), nil
}

func init() {
	heads := opDef{since: 1, minIn: 1, maxIn: 8, maxOut: 4, accept: floatTypes, result: fromBuilder}
	register(DomainContrib, map[string]opDef{
		"MultiHeadAttention": composite(heads, typed(readMultiHead, 0, 0, 0, 0)),
		"MatMulNBits":        {since: 1, minIn: 3, maxIn: 6, maxOut: 1, accept: floatTypes, half: true, build: buildNBits},

		"GatherBlockQuantized": {since: 1, minIn: 3, maxIn: 4, maxOut: 1, half: true, result: fromBuilder, build: buildGatherBlocks},
	})
}
