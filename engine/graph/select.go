package graph

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// ordering compares two elements of a tensor; NaN comes last and equals itself.
type ordering struct {
	text     []string
	unsigned []uint64
	whole    []int64
	floats   []float64
}

func (x *Exec) ordering(t *engine.Tensor) (ordering, error) {
	o := ordering{text: engine.Data[string](t), unsigned: engine.Data[uint64](t)}
	if o.text != nil || o.unsigned != nil {
		return o, nil
	}
	if o.whole = x.integers(t); o.whole != nil {
		return o, nil
	}
	var ok bool
	if o.floats, ok = x.float64s(t); !ok {
		return o, typeError(t)
	}
	return o, nil
}

func (o *ordering) compare(i, j int) int {
	switch {
	case o.text != nil:
		return cmp.Compare(o.text[i], o.text[j])
	case o.unsigned != nil:
		return cmp.Compare(o.unsigned[i], o.unsigned[j])
	case o.whole != nil:
		return cmp.Compare(o.whole[i], o.whole[j])
	}
	a, b := o.floats[i], o.floats[j]
	if a != a || b != b {
		return -cmp.Compare(b2i(a == a), b2i(b == b))
	}
	return cmp.Compare(a, b)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// buildUnique finds the different elements of a tensor, or slices along an axis.
func buildUnique(b *builder) (Kernel, error) {
	whole := !b.attrs.has("axis")
	axis, sorted := b.attrs.int("axis", 0), b.attrs.int("sorted", 1) == 1
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t := in[0]
		shape := t.Shape()
		if whole {
			shape = x.ints(1)
			shape[0] = t.Len()
		}
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Float64, t.Len()+4*shape[a]); err != nil {
			return nil, err
		}
		order, err := x.ordering(t)
		if err != nil {
			return nil, err
		}
		n := shape[a]
		outer, inner := split(shape, a)
		compare := func(i, j int) int {
			for o := range outer {
				for k := range inner {
					if c := order.compare((o*n+i)*inner+k, (o*n+j)*inner+k); c != 0 {
						return c
					}
				}
			}
			return 0
		}
		first, group, counts := distinct(x, n, compare, sorted)
		shape = x.shaped(shape)
		shape[a] = len(first)
		values, err := x.New(t.DType(), shape...)
		if err != nil {
			return nil, err
		}
		cp := copier(x, values, t)
		for o := range outer {
			for i, from := range first {
				cp((o*len(first)+i)*inner, (o*n+int(from))*inner, inner)
			}
		}
		out := x.list(4)
		out[0] = values
		for i, list := range [...][]int64{first, group, counts} {
			if 1+i >= len(b.node.Outputs) || b.node.Outputs[1+i] == "" {
				continue
			}
			l, v, err := rawOf[int64](x, len(list))
			if err != nil {
				return nil, err
			}
			copy(v, list)
			out[1+i] = l
		}
		return out, nil
	}, nil
}

// distinct groups n things: where each group is first, the group of each, and how
// many it has.
func distinct(x *Exec, n int, compare func(i, j int) int, sorted bool) (first, group, counts []int64) {
	order := x.ints(n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, compare)
	first, group, counts = roomOf[int64](x, n)[:0], roomOf[int64](x, n), roomOf[int64](x, n)[:0]
	for k, i := range order {
		if k == 0 || compare(order[k-1], i) != 0 {
			first, counts = append(first, int64(i)), append(counts, 0)
		}
		group[i] = int64(len(first) - 1)
		counts[len(counts)-1]++
	}
	if sorted {
		return first, group, counts
	}
	rank := order[:len(first)]
	for i := range rank {
		rank[i] = i
	}
	slices.SortFunc(rank, func(i, j int) int { return cmp.Compare(first[i], first[j]) })
	place, f, c := x.ints(len(first)), roomOf[int64](x, len(first)), roomOf[int64](x, len(first))
	for to, from := range rank {
		place[from], f[to], c[to] = to, first[from], counts[from]
	}
	for i, g := range group {
		group[i] = int64(place[g])
	}
	return f, group, c
}

// buildReverseSequence turns the first elements of each row's time axis round.
func buildReverseSequence(b *builder) (Kernel, error) {
	batch, time := b.attrs.int("batch_axis", 1), b.attrs.int("time_axis", 0)
	if batch+time != 1 || batch*time != 0 {
		return nil, b.node.corrupt("batch_axis %d and time_axis %d", batch, time)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		lengths, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		if len(shape) < 2 || len(lengths) != shape[batch] {
			return nil, fmt.Errorf("%d lengths for shape %v", len(lengths), shape)
		}
		out, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		strides := x.rowMajor(shape)
		run := volume(shape[2:])
		cp := copier(x, out, in[0])
		for i, n := range lengths {
			if n < 0 || n > shape[time] {
				return nil, misfit("a length that an axis of %d does not have", shape[time])
			}
			for t := range shape[time] {
				from := t
				if t < n {
					from = n - 1 - t
				}
				cp(i*strides[batch]+t*strides[time], i*strides[batch]+from*strides[time], run)
			}
		}
		return x.one(out, nil)
	}, nil
}

// scattering puts runs of updates, one behind the other, together with what is at their places.
type scattering func(x *Exec, out, updates *engine.Tensor, places []int, run int) error

func scatter(x *Exec, out, updates *engine.Tensor, places []int, run int) error {
	if to := engine.Data[float32](out); to != nil && run == 1 {
		for i, v := range engine.Data[float32](updates) {
			to[places[i]] = v
		}
		return nil
	}
	cp := copier(x, out, updates)
	for i, at := range places {
		cp(at, i*run, run)
	}
	return nil
}

func scatterWith[T engine.Element](f func(a, b T) T) scattering {
	return func(_ *Exec, out, updates *engine.Tensor, places []int, run int) error {
		to, from := engine.Data[T](out), engine.Data[T](updates)
		for i, at := range places {
			for k, v := range from[i*run:][:run] {
				to[at+k] = f(to[at+k], v)
			}
		}
		return nil
	}
}

// scatterBy scatters with an operation. It adds conditions by "or" and multiplies them by "and".
func scatterBy(op arithmetic) scattering {
	both := func(a, b bool) bool { return a && b }
	if op == opAdd {
		both = func(a, b bool) bool { return a || b }
	}
	list := []scattering{
		engine.Bool: scatterWith(both), engine.Float32: scatterWith(arithmeticFloat[float32](op)), engine.Float64: scatterWith(arithmeticFloat[float64](op)),
		engine.Int64: scatterWith(arithmeticInt[int64](op)), engine.Int32: scatterWith(arithmeticInt[int32](op)), engine.Int16: scatterWith(arithmeticInt[int16](op)), engine.Int8: scatterWith(arithmeticInt[int8](op)),
		engine.Uint64: scatterWith(arithmeticInt[uint64](op)), engine.Uint32: scatterWith(arithmeticInt[uint32](op)), engine.Uint16: scatterWith(arithmeticInt[uint16](op)), engine.Uint8: scatterWith(arithmeticInt[uint8](op)),
	}
	return func(x *Exec, out, updates *engine.Tensor, places []int, run int) error {
		d := int(out.DType())
		if d >= len(list) || list[d] == nil {
			return typeError(out)
		}
		return list[d](x, out, updates, places, run)
	}
}

// ScatterPlaces returns the offset in the data that each element of a
// ScatterElements node's updates is written to.
func ScatterPlaces(n *Node, in []*engine.Tensor) ([]int, error) {
	return scatterPlaces(new(Exec), n, in)
}

func scatterPlaces(x *Exec, n *Node, in []*engine.Tensor) ([]int, error) {
	shape, want := in[0].Shape(), in[1].Shape()
	axis, err := normAxis(int(n.Attrs["axis"].Int), len(shape))
	if err != nil {
		return nil, err
	}
	if len(want) != len(shape) || !slices.Equal(want, in[2].Shape()) {
		return nil, fmt.Errorf("indices of shape %v and updates of %v for data of shape %v", want, in[2].Shape(), shape)
	}
	for i, d := range want {
		if i != axis && d > shape[i] {
			return nil, fmt.Errorf("indices of shape %v for data of shape %v", want, shape)
		}
	}
	index, err := x.positions(in[1], shape[axis])
	if err != nil {
		return nil, err
	}
	from, at, base := x.rowMajor(shape), x.ints(len(want)), 0 // base is where at is, without its axis
	for i, j := range index {
		index[i] = base + j*from[axis]
		for k := len(want) - 1; k >= 0; k-- {
			at[k]++
			if k != axis {
				base += from[k]
			}
			if at[k] < want[k] {
				break
			}
			if k != axis {
				base -= at[k] * from[k]
			}
			at[k] = 0
		}
	}
	return index, nil
}

// scatterReduction reads how a node puts updates together with what is there. Conditions
// have no order, and text has neither order nor sum.
func scatterReduction(b *builder) (scattering, error) {
	reduction, d := b.attrs.string("reduction", "none"), b.inType(0)
	op, known := map[string]arithmetic{"add": opAdd, "mul": opMul, "min": opMin, "max": opMax}[reduction]
	switch {
	case !known && reduction != "none":
		return nil, b.node.unsupported("reduction %q", reduction)
	case known && (d == engine.String || d == engine.Bool && (op == opMin || op == opMax)):
		return nil, b.node.unsupported("reduction %q of %s", reduction, d)
	case known:
		return scatterBy(op), nil
	}
	return scatter, nil
}

func buildScatterElements(b *builder) (Kernel, error) {
	b.attrs.int("axis", 0)
	put, err := scatterReduction(b)
	if err != nil {
		return nil, err
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != in[2].DType() {
			return nil, fmt.Errorf("updates of %s for data of %s", in[2].DType(), in[0].DType())
		}
		if err := x.reserve(engine.Int64, in[1].Len()); err != nil {
			return nil, err
		}
		places, err := scatterPlaces(x, b.node, in)
		if err != nil {
			return nil, err
		}
		out, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		return x.one(out, put(x, out, in[2], places, 1))
	}, nil
}

// buildEyeLike makes a matrix of the input's shape with ones on a diagonal.
func buildEyeLike(b *builder) (Kernel, error) {
	d, k := b.inType(0), b.attrs.int("k", 0)
	if b.attrs.has("dtype") {
		d = TypeOfONNX(b.attrs.int("dtype", 0))
	}
	if !d.IsFloat() && !d.IsInteger() && d != engine.Bool {
		return nil, b.node.unsupported("element type %s", d)
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		if len(shape) == 1 {
			n := shape[0]
			shape = x.ints(2)
			shape[0], shape[1] = n, n
		}
		if len(shape) != 2 {
			return nil, fmt.Errorf("a matrix like shape %v", shape)
		}
		o, err := x.New(d, shape...)
		if err != nil {
			return nil, err
		}
		v, err := floats(x, o)
		if err != nil {
			return nil, err
		}
		for r := range shape[0] {
			if c := r + k; c >= 0 && c < shape[1] {
				v[r*shape[1]+c] = 1
			}
		}
		return x.one(o, storeFloats(o, v))
	}, nil
}

// buildCenterCropPad cuts or pads axes evenly on both sides; what is odd falls to
// the end.
func buildCenterCropPad(b *builder) (Kernel, error) {
	given := toInts(b.attrs.ints("axes"))
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		want, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		shape := in[0].Shape()
		axes := given
		if !b.attrs.has("axes") {
			axes = x.ints(len(shape))
			for i := range axes {
				axes[i] = i
			}
		}
		if len(axes) != len(want) {
			return nil, fmt.Errorf("%d sizes for %d axes", len(want), len(axes))
		}
		before, after := x.ints(len(shape)), x.ints(len(shape))
		for i, a := range axes {
			if a, err = normAxis(a, len(shape)); err != nil {
				return nil, err
			}
			if want[i] < 0 || want[i] > 1<<31-1 {
				return nil, misfit("a size that is negative or beyond 2^31")
			}
			extra := want[i] - shape[a]
			before[a] = extra / 2
			if extra < 0 {
				before[a] = -(-extra / 2)
			}
			after[a] = extra - before[a]
		}
		return x.one(padded(x, in[0], before, after, "constant", nil, 0))
	}, nil
}

// buildTensorScatter writes rows into a cache, each batch from its own place on.
func buildTensorScatter(b *builder) (Kernel, error) {
	axis, mode := b.attrs.int("axis", -2), b.attrs.string("mode", "linear")
	if mode != "linear" && mode != "circular" {
		return nil, b.node.corrupt("mode %q", mode)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape, update := in[0].Shape(), in[1].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		if a == 0 || len(update) != len(shape) || in[0].DType() != in[1].DType() || update[a] > shape[a] {
			return nil, fmt.Errorf("an update of %s %v for a cache of %s %v", in[1].DType(), update, in[0].DType(), shape)
		}
		same := x.shaped(update)
		same[a] = shape[a]
		if !slices.Equal(same, shape) {
			return nil, fmt.Errorf("an update of shape %v for a cache of %v", update, shape)
		}
		starts := x.ints(shape[0])
		if t := arg(in, 2); t != nil {
			if starts, err = x.intsOf(t); err != nil || len(starts) != shape[0] {
				return nil, fmt.Errorf("write_indices of %s %v", t.DType(), t.Shape())
			}
		}
		out, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		cp := copier(x, out, in[1])
		for o := range outer {
			for k := range update[a] {
				to := starts[o/(outer/shape[0])] + k
				if mode == "circular" && to >= 0 {
					to %= shape[a]
				}
				if to < 0 || to >= shape[a] {
					return nil, outsideAxis(shape[a])
				}
				cp((o*shape[a]+to)*inner, (o*update[a]+k)*inner, inner)
			}
		}
		return x.one(out, nil)
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Unique":          {since: 11, minIn: 1, maxIn: 1, maxOut: 4, result: firstThenInt64, build: buildUnique},
		"ReverseSequence": {since: 10, minIn: 2, maxIn: 2, maxOut: 1, build: buildReverseSequence},
		"Scatter":         {since: 9, until: 10, minIn: 3, maxIn: 3, maxOut: 1, half: true, build: buildScatterElements},
		"ScatterElements": {since: 11, minIn: 3, maxIn: 3, maxOut: 1, half: true, build: buildScatterElements},
		"EyeLike":         {since: 9, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildEyeLike},
		"CenterCropPad":   {since: 18, minIn: 2, maxIn: 2, maxOut: 1, build: buildCenterCropPad},
		"TensorScatter":   {since: 24, minIn: 2, maxIn: 3, maxOut: 1, build: buildTensorScatter},
	})
}
