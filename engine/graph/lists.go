package graph

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// maxItems bounds a sequence.
const maxItems = 1 << 20

// sequenceOf returns a sequence of items.
func sequenceOf(x *Exec, items []*engine.Tensor) ([]*engine.Tensor, error) {
	if err := copying(x, len(items)); err != nil {
		return nil, err
	}
	return []*engine.Tensor{engine.NewSequence(items)}, nil
}

// copying counts the copy of n values, which a loop may make again and again.
func copying(x *Exec, n int) error {
	if n > maxItems {
		return fmt.Errorf("a sequence of %d values: %w", n, engine.ErrTooLarge)
	}
	if x.inner != nil {
		if *x.inner += n / 64; *x.inner > maxInner {
			return fmt.Errorf("sequences copied too often: %w", engine.ErrTooLarge)
		}
	}
	return nil
}

func itemsOf(t *engine.Tensor) ([]*engine.Tensor, error) {
	if t == nil || t.DType() != engine.Sequence {
		return nil, fmt.Errorf("a tensor where a sequence is needed")
	}
	return t.Items(), nil
}

// place reads a position in a sequence of n; negative ones count from its end, and
// most is the last one allowed.
func place(t *engine.Tensor, n, most int) (int, error) {
	v, err := intsOf(t)
	if err != nil || len(v) != 1 {
		return 0, fmt.Errorf("a position of %s %v", t.DType(), t.Shape())
	}
	at := v[0]
	if at < 0 {
		at += n
	}
	if at < 0 || at > most {
		return 0, misfit("a position outside of a sequence of %d", n)
	}
	return at, nil
}

func buildSequenceConstruct(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Sequence}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		for i, t := range in {
			if t == nil || t.DType() != in[0].DType() {
				return nil, fmt.Errorf("input %d has another type than the first", i)
			}
		}
		return sequenceOf(x, in)
	}, nil
}

func buildSequenceEmpty(b *builder) (Kernel, error) {
	if d := TypeOfONNX(b.attrs.int("dtype", 1)); d == engine.Invalid {
		return nil, b.node.unsupported("a sequence of ONNX type %d", b.attrs.int("dtype", 1))
	}
	b.result = []engine.DType{engine.Sequence}
	return func(x *Exec, _ []*engine.Tensor) ([]*engine.Tensor, error) { return sequenceOf(x, nil) }, nil
}

func buildSequenceAt(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Invalid}
	return func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		at, err := place(in[1], len(items), len(items)-1)
		if err != nil {
			return nil, err
		}
		return items[at : at+1], nil
	}, nil
}

func buildSequenceInsert(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Sequence}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		at := len(items)
		if t := arg(in, 2); t != nil {
			if at, err = place(t, len(items), len(items)); err != nil {
				return nil, err
			}
		}
		if len(items) > 0 && items[0].DType() != in[1].DType() {
			return nil, fmt.Errorf("a %s for a sequence of %s", in[1].DType(), items[0].DType())
		}
		return []*engine.Tensor{in[0].Insert(at, in[1])}, copying(x, len(items)+1)
	}, nil
}

func buildSequenceErase(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Sequence}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		at := len(items) - 1
		if t := arg(in, 1); t != nil {
			if at, err = place(t, len(items), len(items)-1); err != nil {
				return nil, err
			}
		}
		if at < 0 {
			return nil, fmt.Errorf("an empty sequence has nothing to erase")
		}
		return []*engine.Tensor{in[0].Erase(at)}, copying(x, len(items))
	}, nil
}

func buildSequenceLength(*builder) (Kernel, error) {
	return func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		return one(engine.Of([]int64{int64(len(items))}))
	}, nil
}

// buildSplitToSequence cuts an axis in pieces of one length, or of given ones.
func buildSplitToSequence(b *builder) (Kernel, error) {
	axis, keep := b.attrs.int("axis", 0), b.attrs.int("keepdims", 1) != 0
	b.result = []engine.DType{engine.Sequence}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		lengths := []int{1}
		even, single := true, true
		if t := arg(in, 1); t != nil {
			if lengths, err = intsOf(t); err != nil {
				return nil, err
			}
			even, single = len(t.Shape()) == 0, false
		}
		if even {
			if lengths[0] < 1 || shape[a]/lengths[0] >= maxItems {
				return nil, misfit("a dimension of %d in pieces that are too small, or too many", shape[a])
			}
			size := lengths[0]
			lengths = nil
			for at := 0; at < shape[a]; at += size {
				lengths = append(lengths, min(size, shape[a]-at))
			}
		}
		parts, err := splitParts(x, in[0], a, lengths, len(lengths))
		if err != nil {
			return nil, err
		}
		if single && !keep {
			for i, p := range parts {
				if parts[i], err = p.Reshape(slices.Delete(slices.Clone(p.Shape()), a, a+1)...); err != nil {
					return nil, err
				}
			}
		}
		return sequenceOf(x, parts)
	}, nil
}

// buildConcatFromSequence joins along an axis, or along a new one.
func buildConcatFromSequence(b *builder) (Kernel, error) {
	axis, fresh := b.attrs.int("axis", 0), b.attrs.int("new_axis", 0) == 1
	if !b.attrs.has("axis") {
		return nil, b.node.corrupt("has no axis")
	}
	b.result = []engine.DType{engine.Invalid}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		if len(items) == 0 || slices.ContainsFunc(items, func(t *engine.Tensor) bool { return t.DType().IsList() }) {
			return nil, fmt.Errorf("joins %d values that are no tensors, or none", len(items))
		}
		if fresh {
			return one(stack(x, items, axis))
		}
		return concatAll(x, items, axis)
	}, nil
}

// mapBody compiles the body of a SequenceMap node that is given so many inputs of its own.
func (b *builder) mapBody(given int) (*inner, error) {
	g, err := b.attrs.graph("body")
	if err != nil {
		return nil, err
	}
	types := slices.Clone(b.inputs[:given])
	for i, d := range types {
		if d == engine.Sequence {
			types[i] = engine.Invalid
		}
	}
	for i, spec := range g.Inputs {
		// A sequence's values have the type that the body declares.
		if i < len(types) && types[i] == engine.Invalid {
			types[i] = spec.DType
		}
	}
	return b.compileInner(g, types)
}

// mapParams makes params what the body is given for value i of sequences of n.
func mapParams(params, in []*engine.Tensor, i, n int) error {
	for k, t := range in[:len(params)] {
		if t.DType() != engine.Sequence {
			continue
		}
		if len(t.Items()) != n {
			return fmt.Errorf("sequences of %d and %d values", n, len(t.Items()))
		}
		params[k] = t.Items()[i]
	}
	return nil
}

// buildSequenceMap runs its body for each value of a sequence; what else it is given
// is a sequence of as many, or the same tensor for all.
func buildSequenceMap(b *builder) (Kernel, error) {
	given := len(b.node.Inputs) - b.node.Captured
	body, err := b.mapBody(given)
	if err != nil {
		return nil, err
	}
	outs := len(body.program.graph.Outputs)
	if len(b.node.Outputs) > outs {
		return nil, b.node.corrupt("a body of %d outputs for %d", outs, len(b.node.Outputs))
	}
	b.result = slices.Repeat([]engine.DType{engine.Sequence}, outs)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		items, err := itemsOf(in[0])
		if err != nil {
			return nil, err
		}
		lists := make([][]*engine.Tensor, outs)
		params := slices.Clone(in[:given])
		for i := range items {
			if err := mapParams(params, in, i, len(items)); err != nil {
				return nil, err
			}
			out, err := body.run(x, params, in)
			if err != nil {
				return nil, err
			}
			for k, t := range out {
				if err := x.reserve(t.DType(), t.Len()); err != nil {
					return nil, err
				}
				lists[k] = append(lists[k], t)
			}
		}
		var out []*engine.Tensor
		for _, l := range lists {
			s, err := sequenceOf(x, l)
			if err != nil {
				return nil, err
			}
			out = append(out, s...)
		}
		return out, nil
	}, nil
}

// buildOptional: an optional value that is there is itself.
func buildOptional(b *builder) (Kernel, error) {
	b.attrs.ignore("type") // values carry their own
	b.result = []engine.DType{engine.Invalid}
	return func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if t := arg(in, 0); t != nil {
			return in[:1], nil
		}
		return []*engine.Tensor{engine.NewNothing()}, nil
	}, nil
}

func buildOptionalHasElement(*builder) (Kernel, error) {
	return func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t := arg(in, 0)
		return one(engine.Of([]bool{t != nil && t.DType() != engine.Nothing}))
	}, nil
}

func buildOptionalGetElement(b *builder) (Kernel, error) {
	b.result = []engine.DType{b.inType(0)}
	if b.inType(0) == engine.Nothing {
		b.result[0] = engine.Invalid
	}
	return func(_ *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() == engine.Nothing {
			return nil, fmt.Errorf("the optional value is not there")
		}
		return in[:1], nil
	}, nil
}

func init() {
	list := func(since, minIn, maxIn, maxOut int, result resultType, build func(b *builder) (Kernel, error)) opDef {
		return opDef{since: since, minIn: minIn, maxIn: maxIn, maxOut: maxOut, lists: true, result: result, build: build}
	}
	optional := list(15, 0, 1, 1, fromBuilder, buildOptional)
	get := list(15, 1, 1, 1, fromBuilder, buildOptionalGetElement)
	optional.view, get.view = true, true
	register(DomainONNX, map[string]opDef{
		"SequenceConstruct":  list(11, 1, maxItems, 1, fromBuilder, buildSequenceConstruct),
		"SequenceEmpty":      list(11, 0, 0, 1, fromBuilder, buildSequenceEmpty),
		"SequenceAt":         list(11, 2, 2, 1, fromBuilder, buildSequenceAt),
		"SequenceInsert":     list(11, 2, 3, 1, fromBuilder, buildSequenceInsert),
		"SequenceErase":      list(11, 1, 2, 1, fromBuilder, buildSequenceErase),
		"SequenceLength":     list(11, 1, 1, 1, isInt64, buildSequenceLength),
		"SplitToSequence":    list(11, 1, 2, 1, fromBuilder, buildSplitToSequence),
		"ConcatFromSequence": list(11, 1, 1, 1, fromBuilder, buildConcatFromSequence),
		"SequenceMap":        list(17, 1, 1<<16, 1<<16, fromBuilder, buildSequenceMap),
		"Optional":           optional,
		"OptionalGetElement": get,
		"OptionalHasElement": list(15, 0, 1, 1, isBool, buildOptionalHasElement),
	})
}
