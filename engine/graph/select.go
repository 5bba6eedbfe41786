package graph

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// ordering compares two elements of a tensor; NaN comes last and equals itself.
func ordering(t *engine.Tensor) (func(i, j int) int, error) {
	if s := engine.Data[string](t); s != nil {
		return func(i, j int) int { return cmp.Compare(s[i], s[j]) }, nil
	}
	if u := engine.Data[uint64](t); u != nil {
		return func(i, j int) int { return cmp.Compare(u[i], u[j]) }, nil
	}
	if v := integers(t); v != nil {
		return func(i, j int) int { return cmp.Compare(v[i], v[j]) }, nil
	}
	v, ok := t.Float64s()
	if !ok {
		return nil, typeError(t)
	}
	return func(i, j int) int {
		a, b := v[i], v[j]
		if a != a || b != b {
			return -cmp.Compare(b2i(a == a), b2i(b == b))
		}
		return cmp.Compare(a, b)
	}, nil
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
			shape = []int{t.Len()}
		}
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Float64, t.Len()+4*shape[a]); err != nil {
			return nil, err
		}
		less, err := ordering(t)
		if err != nil {
			return nil, err
		}
		n := shape[a]
		outer, inner := split(shape, a)
		compare := func(i, j int) int {
			for o := range outer {
				for k := range inner {
					if c := less((o*n+i)*inner+k, (o*n+j)*inner+k); c != 0 {
						return c
					}
				}
			}
			return 0
		}
		first, group, counts := distinct(n, compare, sorted)
		shape = slices.Clone(shape)
		shape[a] = len(first)
		values, err := x.New(t.DType(), shape...)
		if err != nil {
			return nil, err
		}
		cp := copier(values, t)
		for o := range outer {
			for i, from := range first {
				cp((o*len(first)+i)*inner, (o*n+int(from))*inner, inner)
			}
		}
		out := []*engine.Tensor{values}
		for _, list := range [][]int64{first, group, counts} {
			l, err := engine.Of(list, len(list))
			if err != nil {
				return nil, err
			}
			out = append(out, l)
		}
		return out, nil
	}, nil
}

// distinct groups n things: where each group is first, the group of each, and how
// many it has.
func distinct(n int, compare func(i, j int) int, sorted bool) (first, group, counts []int64) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, compare)
	group = make([]int64, n)
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
	rank := make([]int, len(first))
	for i := range rank {
		rank[i] = i
	}
	slices.SortFunc(rank, func(i, j int) int { return cmp.Compare(first[i], first[j]) })
	place, f, c := make([]int64, len(first)), make([]int64, len(first)), make([]int64, len(first))
	for to, from := range rank {
		place[from], f[to], c[to] = int64(to), first[from], counts[from]
	}
	for i, g := range group {
		group[i] = place[g]
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
		lengths, err := intsOf(in[1])
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
		strides := rowMajor(shape)
		run := volume(shape[2:])
		cp := copier(out, in[0])
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
		return one(out, nil)
	}, nil
}

// scatterInto returns what writes n elements from offset s of updates over those at
// offset d of out.
func scatterInto(out, updates *engine.Tensor, reduction string) (func(d, s, n int), error) {
	if reduction == "none" {
		return copier(out, updates), nil
	}
	ops := map[string]arithmetic{"add": opAdd, "mul": opMul, "min": opMin, "max": opMax}
	op, ok := ops[reduction]
	if !ok {
		return nil, fmt.Errorf("reduction %q", reduction)
	}
	switch out.DType() {
	case engine.Bool:
		return reduceConditions(out, updates, op), nil
	case engine.Float32:
		return reduceFloat[float32](out, updates, op), nil
	case engine.Float64:
		return reduceFloat[float64](out, updates, op), nil
	case engine.Int64:
		return reduceInt[int64](out, updates, op), nil
	case engine.Int32:
		return reduceInt[int32](out, updates, op), nil
	case engine.Int16:
		return reduceInt[int16](out, updates, op), nil
	case engine.Int8:
		return reduceInt[int8](out, updates, op), nil
	case engine.Uint64:
		return reduceInt[uint64](out, updates, op), nil
	case engine.Uint32:
		return reduceInt[uint32](out, updates, op), nil
	case engine.Uint16:
		return reduceInt[uint16](out, updates, op), nil
	case engine.Uint8:
		return reduceInt[uint8](out, updates, op), nil
	}
	return nil, typeError(out)
}

// reduceConditions adds conditions by "or" and multiplies them by "and".
func reduceConditions(out, updates *engine.Tensor, op arithmetic) func(d, s, n int) {
	to, from := engine.Data[bool](out), engine.Data[bool](updates)
	return func(d, s, n int) {
		for i := range n {
			if op == opAdd {
				to[d+i] = to[d+i] || from[s+i]
			} else {
				to[d+i] = to[d+i] && from[s+i]
			}
		}
	}
}

func reduceFloat[T float](out, updates *engine.Tensor, op arithmetic) func(d, s, n int) {
	return reduceWith(engine.Data[T](out), engine.Data[T](updates), arithmeticFloat[T](op))
}

func reduceInt[T signed | unsigned](out, updates *engine.Tensor, op arithmetic) func(d, s, n int) {
	return reduceWith(engine.Data[T](out), engine.Data[T](updates), arithmeticInt[T](op))
}

func reduceWith[T number](to, from []T, f func(a, b T) T) func(d, s, n int) {
	return func(d, s, n int) {
		for i := range n {
			to[d+i] = f(to[d+i], from[s+i])
		}
	}
}

// ScatterPlaces returns the offset in the data that each element of a
// ScatterElements node's updates is written to.
func ScatterPlaces(n *Node, in []*engine.Tensor) ([]int, error) {
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
	index, err := positions(in[1], shape[axis])
	if err != nil {
		return nil, err
	}
	from, at, base := rowMajor(shape), make([]int, len(want)), 0 // base is where at is, without its axis
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
func scatterReduction(b *builder) (string, error) {
	reduction, d := b.attrs.string("reduction", "none"), b.inType(0)
	ordered := reduction == "min" || reduction == "max"
	if !ordered && reduction != "none" && reduction != "add" && reduction != "mul" {
		return "", b.node.unsupported("reduction %q", reduction)
	}
	if ordered && d == engine.Bool || reduction != "none" && d == engine.String {
		return "", b.node.unsupported("reduction %q of %s", reduction, d)
	}
	return reduction, nil
}

func buildScatterElements(b *builder) (Kernel, error) {
	b.attrs.int("axis", 0)
	reduction, err := scatterReduction(b)
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
		places, err := ScatterPlaces(b.node, in)
		if err != nil {
			return nil, err
		}
		out, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		put, err := scatterInto(out, in[2], reduction)
		if err != nil {
			return nil, err
		}
		if to := engine.Data[float32](out); to != nil && reduction == "none" {
			for i, v := range engine.Data[float32](in[2]) {
				to[places[i]] = v
			}
			return one(out, nil)
		}
		for i, at := range places {
			put(at, i, 1)
		}
		return one(out, nil)
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
			shape = []int{shape[0], shape[0]}
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
		return one(o, storeFloats(o, v))
	}, nil
}

// buildCenterCropPad cuts or pads axes evenly on both sides; what is odd falls to
// the end.
func buildCenterCropPad(b *builder) (Kernel, error) {
	given := toInts(b.attrs.ints("axes"))
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		want, err := intsOf(in[1])
		if err != nil {
			return nil, err
		}
		shape := in[0].Shape()
		axes := given
		if !b.attrs.has("axes") {
			axes = nil
			for i := range shape {
				axes = append(axes, i)
			}
		}
		if len(axes) != len(want) {
			return nil, fmt.Errorf("%d sizes for %d axes", len(want), len(axes))
		}
		before, after := make([]int, len(shape)), make([]int, len(shape))
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
		return one(padded(x, in[0], before, after, "constant", nil, 0))
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
		same := slices.Clone(update)
		same[a] = shape[a]
		if !slices.Equal(same, shape) {
			return nil, fmt.Errorf("an update of shape %v for a cache of %v", update, shape)
		}
		starts := make([]int, shape[0])
		if t := arg(in, 2); t != nil {
			if starts, err = intsOf(t); err != nil || len(starts) != shape[0] {
				return nil, fmt.Errorf("write_indices of %s %v", t.DType(), t.Shape())
			}
		}
		out, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		cp := copier(out, in[1])
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
		return one(out, nil)
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
