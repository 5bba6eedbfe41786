package graph

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

func buildGather(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", 0)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		index, err := x.positions(in[1], shape[a])
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		final := x.ints(len(shape) - 1 + len(in[1].Shape()))
		copy(final, shape[:a])
		copy(final[a:], in[1].Shape())
		copy(final[a+len(in[1].Shape()):], shape[a+1:])
		out, err := x.New(in[0].DType(), final...)
		if err != nil || out.Len() == 0 {
			return x.one(out, err)
		}
		switch in[0].DType() {
		case engine.Float32:
			gather[float32](out, in[0], index, outer, shape[a], inner)
		case engine.Int64:
			gather[int64](out, in[0], index, outer, shape[a], inner)
		case engine.Uint8:
			gather[uint8](out, in[0], index, outer, shape[a], inner)
		default:
			cp := copier(x, out, in[0])
			to := 0
			for o := range outer {
				for _, j := range index {
					cp(to, (o*shape[a]+j)*inner, inner)
					to += inner
				}
			}
		}
		return x.one(out, nil)
	}, nil
}

// gather copies runs of inner elements, n of which are to each of outer.
func gather[T engine.Element](dst, src *engine.Tensor, index []int, outer, n, inner int) {
	to, from := engine.Data[T](dst), engine.Data[T](src)
	for o := range outer {
		for _, j := range index {
			copy(to[:inner], from[(o*n+j)*inner:])
			to = to[inner:]
		}
	}
}

// positions reads indices along an axis of n, as ints has them; negative ones count from its end.
func (x *Exec) positions(t *engine.Tensor, n int) ([]int, error) {
	index, err := x.intsOf(t)
	if err != nil {
		return nil, err
	}
	for i, j := range index {
		if j < 0 {
			j += n
		}
		if j < 0 || j >= n {
			return nil, outsideAxis(n)
		}
		index[i] = j
	}
	return index, nil
}

func buildGatherElements(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", 0)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape, want := in[0].Shape(), in[1].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		if len(want) != len(shape) {
			return nil, misfit("indices of shape %v for data of shape %v", want, shape)
		}
		for i, d := range want {
			if i != a && d > shape[i] {
				return nil, misfit("indices of shape %v for data of shape %v", want, shape)
			}
		}
		index, err := x.positions(in[1], shape[a])
		if err != nil {
			return nil, err
		}
		out, err := x.New(in[0].DType(), want...)
		if err != nil {
			return nil, err
		}
		if v := engine.Data[float32](in[0]); v != nil && alikeBeside(shape, want, a) {
			_, inner := split(shape, a)
			gatherSingles(engine.Data[float32](out), v, index, shape[a], want[a], inner)
			return x.one(out, nil)
		}
		from, to := x.rowMajor(shape), x.rowMajor(want)
		cp := copier(x, out, in[0])
		for i, j := range index {
			s := 0
			for k := range want {
				at := i / to[k] % want[k]
				if k == a {
					at = j
				}
				s += at * from[k]
			}
			cp(i, s, 1)
		}
		return x.one(out, nil)
	}, nil
}

// alikeBeside reports whether two shapes differ along one axis at most.
func alikeBeside(a, b []int, axis int) bool {
	return slices.Equal(a[:axis], b[:axis]) && slices.Equal(a[axis+1:], b[axis+1:])
}

// gatherSingles takes n of had lines of inner elements, each element by an index of its own.
func gatherSingles(out, v []float32, index []int, had, n, inner int) {
	block := n * inner
	for o := 0; block > 0 && o < len(out); o += block {
		from := v[o/block*had*inner:][:had*inner]
		to, places := out[o:][:block], index[o:][:block]
		if inner == 1 {
			for i, j := range places {
				to[i] = from[j]
			}
			continue
		}
		for at := 0; at < block; at += inner {
			for i, j := range places[at:][:inner] {
				to[at+i] = from[j*inner+i]
			}
		}
	}
}

// Moved runs the kernel of a node that only moves elements on tensors of whole
// numbers that stand for them, all rows being one.
func Moved(n *Node, in []*engine.Tensor) ([]*engine.Tensor, error) {
	op, err := lookup(n)
	if err != nil {
		return nil, err
	}
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}, inputs: make([]engine.DType, len(in)), constants: make([]*engine.Tensor, len(in))}
	kernel, err := op.build(b)
	if err != nil {
		return nil, err
	}
	return kernel(&Exec{limit: defaultMaxBytes}, in)
}

// Floats counts the elements of a tensor of floats, or of all tensors of a sequence of
// such, one behind the other. ok is false for anything else.
func Floats(t *engine.Tensor) (n int, ok bool) {
	if t == nil || t.DType() != engine.Sequence {
		if t == nil || !t.DType().IsFloat() {
			return 0, false
		}
		return t.Len(), true
	}
	for _, item := range t.Items() {
		if !item.DType().IsFloat() {
			return 0, false
		}
		n += item.Len()
	}
	return n, true
}

// numbered is a tensor of the shape of t, or a sequence of such, whose elements are
// 1, 2, 3 and so on, or 0 where none is asked for.
func numbered(t *engine.Tensor, asked bool) (*engine.Tensor, error) {
	var at int64
	one := func(t *engine.Tensor) (*engine.Tensor, error) {
		v := make([]int64, t.Len())
		for j := range v {
			if asked {
				at++
				v[j] = at
			}
		}
		return engine.Of(v, t.Shape()...)
	}
	if t.DType() != engine.Sequence {
		return one(t)
	}
	items := slices.Clone(t.Items())
	for i := range items {
		var err error
		if items[i], err = one(items[i]); err != nil {
			return nil, err
		}
	}
	return engine.NewSequence(items), nil
}

// Origin tells for each output of a node that only moves elements which element
// of its input k stands where: 1 + its offset, or 0 for none. It runs the node's
// own kernel on offsets instead of values. The elements of a sequence are those of its
// tensors one behind the other.
func Origin(n *Node, in []*engine.Tensor, k int) ([][]int64, error) {
	op, err := lookup(n)
	if err != nil {
		return nil, err
	}
	b := &builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}}
	marked := slices.Clone(in)
	for i, t := range in {
		b.inputs = append(b.inputs, engine.Invalid)
		b.constants = append(b.constants, nil)
		if _, ok := Floats(t); !ok || n.Op == "OneHot" && i < 2 { // places may be floats
			continue
		}
		if marked[i], err = numbered(t, i == k); err != nil {
			return nil, err
		}
	}
	if n.Op == "FeatureVectorizer" {
		return vectorizerOrigin(marked)
	}
	if n.Op == "Pad" {
		// What is padded with comes from nowhere.
		bare := *n
		bare.Attrs = maps.Clone(n.Attrs)
		delete(bare.Attrs, "value")
		b.node = &bare
		b.attrs.node = &bare
	}
	kernel, err := op.build(b)
	if err != nil {
		return nil, err
	}
	outs, err := kernel(&Exec{limit: math.MaxInt64}, marked)
	if err != nil {
		return nil, err
	}
	res := make([][]int64, len(outs))
	for i, o := range outs {
		res[i] = engine.Data[int64](o)
		if o.DType() == engine.Sequence {
			for _, item := range o.Items() {
				res[i] = append(res[i], engine.Data[int64](item)...)
			}
		}
	}
	return res, nil
}

// vectorizerOrigin stands for FeatureVectorizer's kernel, which makes floats.
func vectorizerOrigin(in []*engine.Tensor) ([][]int64, error) {
	rows := in[0].Rows()
	var out []int64
	for r := range rows {
		for _, t := range in {
			_, cols, err := matrix(t)
			if err != nil {
				return nil, err
			}
			v := engine.Data[int64](t)
			if v == nil {
				return nil, typeError(t)
			}
			out = append(out, v[r*cols:(r+1)*cols]...)
		}
	}
	return [][]int64{out}, nil
}

func buildNonZero(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		shape := in[0].Shape()
		n := 0
		for _, e := range v {
			if e != 0 {
				n++
			}
		}
		t, out, err := rawOf[int64](x, len(shape), n)
		if err != nil {
			return nil, err
		}
		strides, at := x.rowMajor(shape), 0
		for i, e := range v {
			if e == 0 {
				continue
			}
			for k, s := range strides {
				out[k*n+at] = int64(i / s % shape[k])
			}
			at++
		}
		return x.one(t, nil)
	}, nil
}

func buildOneHot(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", -1)
	b.result = []engine.DType{b.inType(2)}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		depths, ok := x.float64s(in[1])
		if !ok || len(depths) != 1 || depths[0] < 1 || depths[0] > math.MaxInt32 || in[2].Len() != 2 {
			return nil, misfit("a depth that is not one number from 1 on, or values that are not two")
		}
		depth := int(depths[0])
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape)+1)
		if err != nil {
			return nil, err
		}
		final := x.ints(len(shape) + 1)
		copy(final, shape[:a])
		final[a] = depth
		copy(final[a+1:], shape[a:])
		out, err := x.New(in[2].DType(), final...)
		if err != nil {
			return nil, err
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		inner := 1
		for _, d := range shape[a:] {
			inner *= d
		}
		cp := copier(x, out, in[2])
		for i := range out.Len() {
			cp(i, 0, 1)
		}
		for i, f := range v {
			j := int(f)
			if j < 0 {
				j += depth
			}
			if j >= 0 && j < depth {
				cp((i/inner*depth+j)*inner+i%inner, 1, 1)
			}
		}
		return x.one(out, nil)
	}, nil
}

// buildGatherND reads slices at index tuples, the last dimension of the indices.
func buildGatherND(b *builder) (Kernel, error) {
	batch := b.attrs.int("batch_dims", 0)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape, want := in[0].Shape(), in[1].Shape()
		if len(want) < 1 || batch < 0 || batch >= len(want) || batch+want[len(want)-1] > len(shape) || !slices.Equal(shape[:batch], want[:batch]) {
			return nil, fmt.Errorf("indices of shape %v for data of shape %v, %d of them batch", want, shape, batch)
		}
		depth := want[len(want)-1]
		index, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		out, err := x.New(in[0].DType(), x.joined(want[:len(want)-1], shape[batch+depth:])...)
		if err != nil || out.Len() == 0 {
			return x.one(out, err)
		}
		run, strides := volume(shape[batch+depth:]), x.rowMajor(shape)
		tuples := volume(want[:len(want)-1])
		per := tuples / max(volume(want[:batch]), 1)
		cp := copier(x, out, in[0])
		for i := range tuples {
			at := i / per * volume(shape[batch:])
			for k := range depth {
				j, d := index[i*depth+k], shape[batch+k]
				if j < 0 {
					j += d
				}
				if j < 0 || j >= d {
					return nil, outsideAxis(d)
				}
				at += j * strides[batch+k]
			}
			cp(i*run, at, run)
		}
		return x.one(out, nil)
	}, nil
}

// buildScatterND writes slices over a copy of the data at index tuples.
func buildScatterND(b *builder) (Kernel, error) {
	put, err := scatterReduction(b)
	if err != nil {
		return nil, err
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != in[2].DType() {
			return nil, fmt.Errorf("updates of %s for data of %s", in[2].DType(), in[0].DType())
		}
		places, run, err := slicePlaces(x, in)
		if err != nil {
			return nil, err
		}
		out, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		if run > 0 {
			err = put(x, out, in[2], places, run)
		}
		return x.one(out, err)
	}, nil
}

// slicePlaces returns where each slice that ScatterND writes begins, and its length.
func slicePlaces(x *Exec, in []*engine.Tensor) (places []int, run int, err error) {
	shape, want := in[0].Shape(), in[1].Shape()
	if len(want) < 1 || want[len(want)-1] > len(shape) {
		return nil, 0, fmt.Errorf("indices of shape %v for data of shape %v", want, shape)
	}
	depth := want[len(want)-1]
	if !slices.Equal(in[2].Shape(), x.joined(want[:len(want)-1], shape[depth:])) {
		return nil, 0, fmt.Errorf("updates of shape %v for indices of %v and data of %v", in[2].Shape(), want, shape)
	}
	index, err := x.intsOf(in[1])
	if err != nil {
		return nil, 0, err
	}
	strides := x.rowMajor(shape)
	places = x.ints(volume(want[:len(want)-1]))
	for i := range places {
		for k := range depth {
			j := index[i*depth+k]
			if j < 0 {
				j += shape[k]
			}
			if j < 0 || j >= shape[k] {
				return nil, 0, outsideAxis(shape[k])
			}
			places[i] += j * strides[k]
		}
	}
	return places, volume(shape[depth:]), nil
}

// UpdatePlaces returns for each element of a scattering node's updates its place in
// the data.
func UpdatePlaces(n *Node, in []*engine.Tensor) ([]int, error) {
	if n.Op != "ScatterND" {
		return ScatterPlaces(n, in)
	}
	starts, run, err := slicePlaces(new(Exec), in)
	if err != nil {
		return nil, err
	}
	places := make([]int, 0, len(starts)*run)
	for _, at := range starts {
		for k := range run {
			places = append(places, at+k)
		}
	}
	return places, nil
}

// buildRange counts from start to limit, without it, in steps of delta.
func buildRange(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		var v [3]float64
		for i := range v {
			f, ok := x.float64s(in[i])
			if !ok || len(f) != 1 || in[i].DType() != in[0].DType() {
				return nil, fmt.Errorf("input %d of %s %v", i, in[i].DType(), in[i].Shape())
			}
			v[i] = f[0]
		}
		n := math.Ceil((v[1] - v[0]) / v[2])
		if n != n {
			return nil, misfit("a range from, to or by what is no number, or by 0 to where it begins")
		}
		if v[2] == 0 || !(n < math.MaxInt32) {
			return nil, fmt.Errorf("a range of %v elements: %w", n, engine.ErrTooLarge)
		}
		o, err := x.New(in[0].DType(), max(int(n), 0))
		if err != nil {
			return nil, err
		}
		out := x.wide(o.Len())
		for i := range out {
			out[i] = v[0] + float64(i)*v[2]
		}
		return x.one(o, storeFloats(o, out))
	}, nil
}

// buildCompress keeps the elements of an axis, or of the whole tensor, where the
// condition holds. Of a whole tensor it may have any shape, as in onnxruntime: PaddlePaddle
// writes the tensor's own.
func buildCompress(b *builder) (Kernel, error) {
	whole := !b.attrs.has("axis")
	axis := b.attrs.int("axis", 0)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t, cond := in[0], engine.Data[bool](in[1])
		if in[1].DType() != engine.Bool {
			return nil, typeError(in[1])
		}
		shape := t.Shape()
		if whole {
			shape = x.ints(1)
			shape[0] = t.Len()
		}
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		if !whole && len(in[1].Shape()) != 1 || len(cond) > shape[a] {
			return nil, fmt.Errorf("a condition of shape %v for %d elements", in[1].Shape(), shape[a])
		}
		keep := x.ints(len(cond))[:0]
		for i, ok := range cond {
			if ok {
				keep = append(keep, i)
			}
		}
		outer, inner := split(shape, a)
		final := x.shaped(shape)
		final[a] = len(keep)
		out, err := x.New(t.DType(), final...)
		if err != nil {
			return nil, err
		}
		cp := copier(x, out, t)
		to := 0
		for o := range outer {
			for _, j := range keep {
				cp(to, (o*shape[a]+j)*inner, inner)
				to += inner
			}
		}
		return x.one(out, nil)
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"GatherND":       {since: 11, minIn: 2, maxIn: 2, maxOut: 1, build: buildGatherND},
		"ScatterND":      {since: 11, minIn: 3, maxIn: 3, maxOut: 1, half: true, build: buildScatterND},
		"Range":          {since: 11, minIn: 3, maxIn: 3, maxOut: 1, accept: numericTypes, build: buildRange},
		"Compress":       {since: 9, minIn: 2, maxIn: 2, maxOut: 1, build: buildCompress},
		"Gather":         {since: 1, minIn: 2, maxIn: 2, maxOut: 1, build: buildGather},
		"GatherElements": {since: 11, minIn: 2, maxIn: 2, maxOut: 1, build: buildGatherElements},
		"NonZero":        {since: 9, minIn: 1, maxIn: 1, maxOut: 1, result: isInt64, build: buildNonZero},
		"OneHot":         {since: 9, minIn: 3, maxIn: 3, maxOut: 1, result: fromBuilder, build: buildOneHot},
	})
}
