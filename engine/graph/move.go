package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// copier returns a function that copies n elements from offset s of src to
// offset d of dst. Both must have the same element type. All operators that only
// move elements are written with it, so they take every type.
func copier(x *Exec, dst, src *engine.Tensor) func(d, s, n int) {
	switch src.DType().Storage() {
	case engine.Bool:
		return copierFor[bool](x, dst, src)
	case engine.Uint8:
		return copierFor[uint8](x, dst, src)
	case engine.Uint16:
		return copierFor[uint16](x, dst, src)
	case engine.Uint32:
		return copierFor[uint32](x, dst, src)
	case engine.Uint64:
		return copierFor[uint64](x, dst, src)
	case engine.Int8:
		return copierFor[int8](x, dst, src)
	case engine.Int16:
		return copierFor[int16](x, dst, src)
	case engine.Int32:
		return copierFor[int32](x, dst, src)
	case engine.Int64:
		return copierFor[int64](x, dst, src)
	case engine.Float32:
		return copierFor[float32](x, dst, src)
	case engine.Float64:
		return copierFor[float64](x, dst, src)
	}
	return copierFor[string](x, dst, src)
}

// moveRun is what copier's function does, for few elements.
func moveRun(dst, src *engine.Tensor, d, s, n int) {
	switch src.DType().Storage() {
	case engine.Bool:
		copyOf[bool](dst, src, d, s, n)
	case engine.Uint8:
		copyOf[uint8](dst, src, d, s, n)
	case engine.Uint16:
		copyOf[uint16](dst, src, d, s, n)
	case engine.Uint32:
		copyOf[uint32](dst, src, d, s, n)
	case engine.Uint64:
		copyOf[uint64](dst, src, d, s, n)
	case engine.Int8:
		copyOf[int8](dst, src, d, s, n)
	case engine.Int16:
		copyOf[int16](dst, src, d, s, n)
	case engine.Int32:
		copyOf[int32](dst, src, d, s, n)
	case engine.Int64:
		copyOf[int64](dst, src, d, s, n)
	case engine.Float32:
		copyOf[float32](dst, src, d, s, n)
	case engine.Float64:
		copyOf[float64](dst, src, d, s, n)
	default:
		copyOf[string](dst, src, d, s, n)
	}
}

func copyOf[T engine.Element](dst, src *engine.Tensor, d, s, n int) {
	copy(engine.Data[T](dst)[d:d+n], engine.Data[T](src)[s:s+n])
}

// Put writes each element of values at its place in out, which has the same type.
func Put(out, values *engine.Tensor, places []int) {
	for i, at := range places {
		moveRun(out, values, at, i, 1)
	}
}

// strided copies out of src the view with the given offset, shape and strides.
func strided(x *Exec, src *engine.Tensor, offset int, shape, strides []int) (*engine.Tensor, error) {
	out, err := x.make(src.DType(), shape, false)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return out, nil
	}
	switch src.DType().Storage() {
	case engine.Bool:
		walkOf[bool](out, src, offset, shape, strides)
	case engine.Uint8:
		walkOf[uint8](out, src, offset, shape, strides)
	case engine.Uint16:
		walkOf[uint16](out, src, offset, shape, strides)
	case engine.Uint32:
		walkOf[uint32](out, src, offset, shape, strides)
	case engine.Uint64:
		walkOf[uint64](out, src, offset, shape, strides)
	case engine.Int8:
		walkOf[int8](out, src, offset, shape, strides)
	case engine.Int16:
		walkOf[int16](out, src, offset, shape, strides)
	case engine.Int32:
		walkOf[int32](out, src, offset, shape, strides)
	case engine.Int64:
		walkOf[int64](out, src, offset, shape, strides)
	case engine.Float32:
		walkOf[float32](out, src, offset, shape, strides)
	case engine.Float64:
		walkOf[float64](out, src, offset, shape, strides)
	default:
		walkOf[string](out, src, offset, shape, strides)
	}
	return out, nil
}

func walkOf[T engine.Element](dst, src *engine.Tensor, offset int, shape, strides []int) {
	to, from := engine.Data[T](dst), engine.Data[T](src)
	run, dims := trailing(shape, strides)
	if dims == 0 {
		copy(to[:run], from[offset:])
		return
	}
	// The runs of a dimension are copied here: a call for each costs more than a short one.
	m, step := shape[dims-1], strides[dims-1]
	walkRuns(shape[:dims-1], strides[:dims-1], offset, m*run, len(to), func(d, s, n int) {
		part := to[d : d+n]
		if run == 1 {
			for i := range part {
				part[i] = from[s+i*step]
			}
			return
		}
		for i := range m {
			copy(part[i*run:][:run], from[s+i*step:])
		}
	})
}

// walkStrided visits a view run by run: cp gets the output's offset, the
// source's offset and the run's length, which is above 1 only where the source
// is contiguous.
func walkStrided(shape, strides []int, offset int, cp func(d, s, n int)) {
	run, dims := trailing(shape, strides)
	walkRuns(shape[:dims], strides[:dims], offset, run, volume(shape), cp)
}

// trailing is the run that the trailing dimensions make which are contiguous in the source,
// and how many are before them.
func trailing(shape, strides []int) (run, dims int) {
	run, dims = 1, len(shape)
	for dims > 0 && (strides[dims-1] == run || shape[dims-1] == 1) {
		run *= shape[dims-1]
		dims--
	}
	return run, dims
}

// walkRuns visits runs of so many elements, total in all, in the order of the dimensions that
// they lie in.
func walkRuns(shape, strides []int, offset, run, total int, cp func(d, s, n int)) {
	dims := len(shape)
	var few [2 * fewDimensions]int
	index := few[:]
	if dims > len(few) {
		index = make([]int, dims)
	}
	s := offset
	for d := 0; d < total; d += run {
		cp(d, s, run)
		for k := dims - 1; k >= 0; k-- {
			index[k]++
			s += strides[k]
			if index[k] < shape[k] {
				break
			}
			s -= strides[k] * shape[k]
			index[k] = 0
		}
	}
}

func view(x *Exec, t *engine.Tensor, shape []int) ([]*engine.Tensor, error) {
	return x.one(x.memory.view(t, shape))
}

func buildReshape(b *builder) (Kernel, error) {
	allowZero := b.attrs.int("allowzero", 0) == 1
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		want, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		if len(want) > maxRank {
			return nil, fmt.Errorf("%d dimensions: %w", len(want), engine.ErrTooLarge)
		}
		shape := x.shaped(want)
		hole, known := -1, 1
		for i, d := range shape {
			if d == 0 && !allowZero {
				if i >= len(in[0].Shape()) {
					return nil, fmt.Errorf("dimension %d is to be copied from a tensor of %d dimensions", i, len(in[0].Shape()))
				}
				shape[i] = in[0].Shape()[i]
			}
			if d == -1 {
				if hole >= 0 {
					return nil, misfit("the shape has two dimensions to infer")
				}
				hole = i
				continue
			}
			if known, err = product(known, shape[i]); err != nil {
				return nil, err
			}
		}
		if hole >= 0 {
			if known == 0 || in[0].Len()%known != 0 {
				return nil, misfit("the number of elements differs from that of the shape %v", in[0].Shape())
			}
			shape[hole] = in[0].Len() / known
		}
		if volume(shape) != in[0].Len() {
			return nil, misfit("the number of elements differs from that of the shape %v", in[0].Shape())
		}
		return view(x, in[0], shape)
	}, nil
}

func product(a, b int) (int, error) {
	if b < 0 {
		return 0, misfit("a negative dimension")
	}
	if b != 0 && a > math.MaxInt/b {
		return 0, engine.ErrTooLarge
	}
	return a * b, nil
}

func buildFlatten(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", 1)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a := axis
		if a < 0 {
			a += len(shape)
		}
		if a < 0 || a > len(shape) {
			return nil, misfit("an axis that a tensor of %d dimensions does not have", len(shape))
		}
		rows, cols := 1, 1
		for i, d := range shape {
			if i < a {
				rows *= d
			} else {
				cols *= d
			}
		}
		shape = x.ints(2)
		shape[0], shape[1] = rows, cols
		return view(x, in[0], shape)
	}, nil
}

// axesOf reads axes from input 1 since version 13, from the attribute before.
// ok is false where there are none.
func axesOf(b *builder, since int) func(x *Exec, in []*engine.Tensor) (axes []int, ok bool, err error) {
	if b.version() < since {
		axes := toInts(b.attrs.ints("axes"))
		given := b.attrs.has("axes")
		return func(*Exec, []*engine.Tensor) ([]int, bool, error) { return axes, given, nil }
	}
	return func(x *Exec, in []*engine.Tensor) ([]int, bool, error) {
		t := arg(in, 1)
		if t == nil {
			return nil, false, nil
		}
		axes, err := x.intsOf(t)
		return axes, true, err
	}
}

func buildSqueeze(b *builder) (Kernel, error) {
	axesFrom := axesOf(b, 13)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		axes, given, err := axesFrom(x, in)
		if err != nil {
			return nil, err
		}
		given = given && len(axes) > 0 // no axes are all that can go, as in onnxruntime
		shape := in[0].Shape()
		drop := x.ints(len(shape))
		for _, a := range axes {
			if a, err = normAxis(a, len(shape)); err != nil {
				return nil, err
			}
			if shape[a] != 1 {
				return nil, misfit("squeeze of a dimension of %d", shape[a])
			}
			drop[a] = 1
		}
		out := x.ints(len(shape))[:0]
		for i, d := range shape {
			if drop[i] == 0 && (given || d != 1) {
				out = append(out, d)
			}
		}
		return view(x, in[0], out)
	}, nil
}

func buildUnsqueeze(b *builder) (Kernel, error) {
	axesFrom := axesOf(b, 13)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		axes, _, err := axesFrom(x, in)
		if err != nil {
			return nil, err
		}
		rank := len(in[0].Shape()) + len(axes)
		if rank > maxRank {
			return nil, fmt.Errorf("%d dimensions: %w", rank, engine.ErrTooLarge)
		}
		var added [maxRank]bool
		for _, a := range axes {
			if a, err = normAxis(a, rank); err != nil {
				return nil, err
			}
			if added[a] {
				return nil, misfit("an axis is given twice")
			}
			added[a] = true
		}
		out := x.ints(rank)
		next := 0
		for i := range out {
			out[i] = 1
			if !added[i] {
				out[i] = in[0].Shape()[next]
				next++
			}
		}
		return view(x, in[0], out)
	}, nil
}

// permutation checks perm, or reverses the axes where there is none.
func permutation(perm []int64, rank int) ([]int, error) { return new(Exec).permutation(perm, rank) }

// permutation is permutation as ints has it.
func (x *Exec) permutation(perm []int64, rank int) ([]int, error) {
	if perm == nil {
		p := x.ints(rank)
		for i := range p {
			p[i] = rank - 1 - i
		}
		return p, nil
	}
	p := copyInts(x.ints(len(perm)), perm)
	seen := x.ints(rank)
	for i, a := range p {
		a, err := normAxis(a, rank)
		if err != nil {
			return nil, err
		}
		if seen[a] > 0 || len(p) != rank {
			return nil, fmt.Errorf("perm %v is no permutation of %d axes", perm, rank)
		}
		seen[a] = 1
		p[i] = a
	}
	if len(p) != rank {
		return nil, fmt.Errorf("perm %v is no permutation of %d axes", perm, rank)
	}
	return p, nil
}

func buildTranspose(b *builder) (Kernel, error) {
	perm := b.attrs.ints("perm")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		p, err := x.permutation(perm, len(in[0].Shape()))
		if err != nil {
			return nil, err
		}
		from := x.rowMajor(in[0].Shape())
		shape, strides := x.ints(len(p)), x.ints(len(p))
		for i, a := range p {
			shape[i], strides[i] = in[0].Shape()[a], from[a]
		}
		return x.one(permuted(x, in[0], shape, strides))
	}, nil
}

func buildConcat(b *builder) (Kernel, error) {
	if !b.attrs.has("axis") {
		return nil, b.node.corrupt("has no axis") // since operator set 4 there is no default
	}
	axis := b.attrs.int("axis", 1)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return concatAll(x, in, axis)
	}, nil
}

func concatAll(x *Exec, in []*engine.Tensor, axis int) ([]*engine.Tensor, error) {
	for i, t := range in {
		if t == nil || t.DType() != in[0].DType() || len(t.Shape()) != len(in[0].Shape()) {
			return nil, fmt.Errorf("input %d has another type or rank than the first", i)
		}
	}
	a, err := normAxis(axis, len(in[0].Shape()))
	if err != nil {
		return nil, err
	}
	shape := x.shaped(in[0].Shape())
	for i, t := range in[1:] {
		for k, d := range t.Shape() {
			if k != a && d != shape[k] {
				return nil, misfit("input %d has shape %v, the first has %v", i+1, t.Shape(), in[0].Shape())
			}
		}
		shape[a] += t.Shape()[a]
	}
	out, err := x.make(in[0].DType(), shape, false)
	if err != nil {
		return nil, err
	}
	outer, inner := split(shape, a)
	at := 0
	for _, t := range in {
		n := t.Shape()[a] * inner
		lay(out, t, outer, shape[a]*inner, at, n)
		at += n
	}
	return x.one(out, nil)
}

// lay is layInto for elements of any type.
func lay(dst, src *engine.Tensor, runs, size, at, n int) {
	switch src.DType().Storage() {
	case engine.Bool:
		layInto[bool](dst, src, runs, size, at, n)
	case engine.Uint8:
		layInto[uint8](dst, src, runs, size, at, n)
	case engine.Uint16:
		layInto[uint16](dst, src, runs, size, at, n)
	case engine.Uint32:
		layInto[uint32](dst, src, runs, size, at, n)
	case engine.Uint64:
		layInto[uint64](dst, src, runs, size, at, n)
	case engine.Int8:
		layInto[int8](dst, src, runs, size, at, n)
	case engine.Int16:
		layInto[int16](dst, src, runs, size, at, n)
	case engine.Int32:
		layInto[int32](dst, src, runs, size, at, n)
	case engine.Int64:
		layInto[int64](dst, src, runs, size, at, n)
	case engine.Float32:
		layInto[float32](dst, src, runs, size, at, n)
	case engine.Float64:
		layInto[float64](dst, src, runs, size, at, n)
	default:
		layInto[string](dst, src, runs, size, at, n)
	}
}

// layInto copies runs of n elements to at in runs of size.
func layInto[T engine.Element](dst, src *engine.Tensor, runs, size, at, n int) {
	to, from := engine.Data[T](dst), engine.Data[T](src)
	if n == 1 {
		for _, v := range from[:runs] {
			to[at] = v
			at += size
		}
		return
	}
	for o := range runs {
		copy(to[o*size+at:][:n], from[o*n:])
	}
}

// split returns the product of the dimensions before axis and after it.
func split(shape []int, axis int) (outer, inner int) {
	outer, inner = 1, 1
	for _, d := range shape[:axis] {
		outer *= d
	}
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	return outer, inner
}

func buildSplit(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", 0)
	outs := len(b.node.Outputs)
	if b.version() >= 18 && b.attrs.has("num_outputs") && b.attrs.int("num_outputs", 0) != outs {
		return nil, b.node.corrupt("num_outputs does not match its %d outputs", outs)
	}
	sizes := toInts(b.attrs.ints("split"))
	given := b.attrs.has("split")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		parts := sizes
		if t := arg(in, 1); t != nil {
			if parts, err = x.intsOf(t); err != nil {
				return nil, err
			}
		} else if !given {
			parts = evenParts(x, shape[a], outs)
		}
		return splitParts(x, in[0], a, parts, outs)
	}, nil
}

// evenParts splits n in equal parts; the last is smaller where it must be.
func evenParts(x *Exec, n, parts int) []int {
	size := (n + parts - 1) / parts
	out := x.ints(parts)
	for i := range out {
		out[i] = max(0, min(size, n-i*size))
	}
	return out
}

func splitParts(x *Exec, t *engine.Tensor, axis int, parts []int, outs int) ([]*engine.Tensor, error) {
	shape := t.Shape()
	sum := 0
	for _, p := range parts {
		if p < 0 || p > shape[axis] {
			return nil, misfit("parts of a dimension of %d are not in its range", shape[axis])
		}
		sum += p
	}
	if sum != shape[axis] || len(parts) != outs {
		return nil, misfit("%d parts of a dimension of %d for %d outputs, or their sum is another", len(parts), shape[axis], outs)
	}
	strides := x.rowMajor(shape)
	at := 0
	out := x.list(len(parts))
	for i, p := range parts {
		s := x.shaped(shape)
		s[axis] = p
		o, err := strided(x, t, at*strides[axis], s, strides)
		if err != nil {
			return nil, err
		}
		out[i] = o
		at += p
	}
	return out, nil
}

// buildSlice takes its bounds as attributes before version 10, as inputs since.
func buildSlice(b *builder) (Kernel, error) {
	if b.version() < 10 {
		if len(b.node.Inputs) > 1 {
			return nil, b.node.corrupt("has %d inputs, the operator takes 1 before version 10", len(b.node.Inputs))
		}
		starts, ends, axes := toInts(b.attrs.ints("starts")), toInts(b.attrs.ints("ends")), toInts(b.attrs.ints("axes"))
		given := b.attrs.has("axes")
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			if !given {
				return slice(x, in[0], starts, ends, nil, nil)
			}
			return slice(x, in[0], starts, ends, axes, nil)
		}, nil
	}
	if len(b.node.Inputs) < 3 {
		return nil, b.node.corrupt("has %d inputs, the operator takes 3 to 5", len(b.node.Inputs))
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		var lists [4][]int
		for i := range lists {
			t := arg(in, i+1)
			if t == nil {
				continue
			}
			v, err := x.intsOf(t)
			if err != nil {
				return nil, err
			}
			lists[i] = v
		}
		return slice(x, in[0], lists[0], lists[1], lists[2], lists[3])
	}, nil
}

// sliceView is the view that a slice takes: offset, shape and strides.
func (x *Exec) sliceView(shape, starts, ends, axes, steps []int) (offset int, out, strides []int, err error) {
	if axes == nil {
		axes = x.ints(len(starts))
		for i := range axes {
			axes[i] = i
		}
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return 0, nil, nil, fmt.Errorf("slice with %d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	out, strides = x.shaped(shape), x.rowMajor(shape)
	seen := x.ints(len(shape))
	for i := range starts {
		a, err := normAxis(axes[i], len(shape))
		if err != nil {
			return 0, nil, nil, err
		}
		step := 1
		if steps != nil {
			step = steps[i]
		}
		if step == 0 || step == math.MinInt || seen[a] > 0 {
			return 0, nil, nil, misfit("slice of an axis in steps of 0, or twice")
		}
		seen[a] = 1
		start, n := sliceRange(shape[a], starts[i], ends[i], step)
		out[a] = n
		if n == 0 {
			// Nothing is read; the view must only not leave the tensor.
			continue
		}
		offset += start * strides[a]
		strides[a] *= step
		if n == 1 {
			strides[a] = 0
		}
	}
	return offset, out, strides, nil
}

// sliceRange is Python's slice(start, end, step).indices(n), but that ONNX clamps a
// start before the first element to it in steps backwards too, where Python has nothing.
func sliceRange(n, start, end, step int) (first, count int) {
	lo, hi, least := 0, n, 0
	if step < 0 {
		lo, hi, least = -1, n-1, min(0, n-1)
	}
	if start < 0 {
		start += n
	}
	if end < 0 {
		end += n
	}
	start, end = min(max(start, least), hi), min(max(end, lo), hi)
	if step > 0 && end > start {
		return start, (end-start-1)/step + 1
	}
	if step < 0 && start > end {
		return start, (start-end-1)/-step + 1
	}
	return 0, 0
}

func slice(x *Exec, t *engine.Tensor, starts, ends, axes, steps []int) ([]*engine.Tensor, error) {
	offset, shape, strides, err := x.sliceView(t.Shape(), starts, ends, axes, steps)
	if err != nil {
		return nil, err
	}
	if slices.Equal(shape, t.Shape()) && !slices.ContainsFunc(steps, func(s int) bool { return s < 0 }) {
		return x.one(t, nil) // all of it
	}
	return x.one(strided(x, t, offset, shape, strides))
}

func buildExpand(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		want, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		shape, err := x.broadcast(in[0].Shape(), want)
		if err != nil {
			return nil, misfit("a tensor of shape %v cannot be broadcast to a shape of %d dimensions that differ", in[0].Shape(), len(want))
		}
		if slices.Equal(shape, in[0].Shape()) {
			return in[:1], nil
		}
		strides := x.ints(len(shape))
		strideInto(strides, in[0].Shape())
		return x.one(strided(x, in[0], 0, shape, strides))
	}, nil
}

func buildTile(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		reps, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		shape := in[0].Shape()
		if len(reps) != len(shape) {
			return nil, fmt.Errorf("%d repeats of a tensor of %d dimensions", len(reps), len(shape))
		}
		from := x.rowMajor(shape)
		wide, strides := x.ints(2 * len(shape))[:0], x.ints(2 * len(shape))[:0]
		final := x.ints(len(shape))
		for i, d := range shape {
			if final[i], err = product(d, reps[i]); err != nil {
				return nil, err
			}
			wide, strides = append(wide, reps[i], d), append(strides, 0, from[i])
		}
		out, err := x.New(in[0].DType(), final...)
		if err != nil || out.Len() == 0 {
			return x.one(out, err)
		}
		walkStrided(wide, strides, 0, copier(x, out, in[0]))
		return x.one(out, nil)
	}, nil
}

// buildShape gives the dimensions, a part of them since version 15.
func buildShape(b *builder) (Kernel, error) {
	start, end := b.attrs.int("start", 0), b.attrs.int("end", math.MaxInt)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		dims := in[0].Shape()
		first, n := sliceRange(len(dims), start, end, 1)
		t, out, err := newOf[int64](x, n)
		if err != nil {
			return nil, err
		}
		for i := range out {
			out[i] = int64(dims[first+i])
		}
		return x.one(t, nil)
	}, nil
}

func buildSize(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t, out, err := rawOf[int64](x)
		if err != nil {
			return nil, err
		}
		out[0] = int64(in[0].Len())
		return x.one(t, nil)
	}, nil
}

func buildConstantOfShape(b *builder) (Kernel, error) {
	value := b.attrs.tensor("value")
	if value == nil {
		var err error
		if value, err = engine.New(engine.Float32, 1); err != nil {
			return nil, err
		}
	}
	if value.Len() != 1 {
		return nil, b.node.corrupt("value has %d elements", value.Len())
	}
	b.result = []engine.DType{value.DType()}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape, err := x.intsOf(in[0])
		if err != nil {
			return nil, err
		}
		out, err := x.New(value.DType(), shape...)
		if err != nil {
			return nil, err
		}
		cp := copier(x, out, value)
		for i := range out.Len() {
			cp(i, 0, 1)
		}
		return x.one(out, nil)
	}, nil
}

func buildConstant(b *builder) (Kernel, error) {
	t, err := constantValue(b.attrs)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, b.node.unsupported("a Constant without a dense value")
	}
	b.result = []engine.DType{t.DType()}
	return func(*Exec, []*engine.Tensor) ([]*engine.Tensor, error) { return one(t, nil) }, nil
}

func constantValue(r *attrReader) (*engine.Tensor, error) {
	if t := r.tensor("value"); t != nil {
		return t, nil
	}
	if t := r.tensor("sparse_value"); t != nil { // the reader has written it out
		return t, nil
	}
	if r.has("value_float") {
		return engine.Of([]float32{float32(r.float("value_float", 0))})
	}
	if r.has("value_int") {
		return engine.Of([]int64{int64(r.int("value_int", 0))})
	}
	if r.has("value_string") {
		return engine.Of([]string{r.string("value_string", "")})
	}
	if r.has("value_floats") {
		v := r.floats("value_floats")
		return engine.Of(v, len(v))
	}
	if r.has("value_ints") {
		v := r.ints("value_ints")
		return engine.Of(v, len(v))
	}
	if r.has("value_strings") {
		v := r.strings("value_strings")
		return engine.Of(v, len(v))
	}
	return nil, nil
}

// passThrough is the kernel of Identity.
func passThrough(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return in[:1], nil }

func init() {
	register(DomainONNX, map[string]opDef{
		"Reshape":         {since: 5, minIn: 2, maxIn: 2, maxOut: 1, view: true, build: buildReshape},
		"Flatten":         {since: 1, minIn: 1, maxIn: 1, maxOut: 1, view: true, build: buildFlatten},
		"Squeeze":         {since: 1, minIn: 1, maxIn: 2, maxOut: 1, view: true, build: buildSqueeze},
		"Unsqueeze":       {since: 1, minIn: 1, maxIn: 2, maxOut: 1, view: true, build: buildUnsqueeze},
		"Transpose":       {since: 1, minIn: 1, maxIn: 1, maxOut: 1, build: buildTranspose},
		"Concat":          {since: 4, minIn: 1, maxIn: math.MaxInt32, maxOut: 1, build: buildConcat},
		"Split":           {since: 2, minIn: 1, maxIn: 2, maxOut: math.MaxInt32, build: buildSplit},
		"Slice":           {since: 1, minIn: 1, maxIn: 5, maxOut: 1, build: buildSlice},
		"Expand":          {since: 8, minIn: 2, maxIn: 2, maxOut: 1, build: buildExpand},
		"Tile":            {since: 6, minIn: 2, maxIn: 2, maxOut: 1, build: buildTile},
		"Shape":           {since: 1, minIn: 1, maxIn: 1, maxOut: 1, result: isInt64, build: buildShape},
		"Size":            {since: 1, minIn: 1, maxIn: 1, maxOut: 1, result: isInt64, build: buildSize},
		"ConstantOfShape": {since: 9, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildConstantOfShape},
		"Constant":        {since: 1, minIn: 0, maxIn: 0, maxOut: 1, result: fromBuilder, build: buildConstant},
		"Identity": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, view: true, lists: true, build: func(*builder) (Kernel, error) {
			return passThrough, nil
		}},
	})
}
