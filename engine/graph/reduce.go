package graph

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// reduction folds one group of elements.
type reduction struct {
	start float64
	step  func(acc, v float64) float64
	end   func(acc float64, n int) float64
}

func same(acc float64, _ int) float64 { return acc }

var reductions = map[string]reduction{
	"ReduceSum":       {0, func(a, v float64) float64 { return a + v }, same},
	"ReduceMean":      {0, func(a, v float64) float64 { return a + v }, func(a float64, n int) float64 { return a / float64(max(n, 1)) }},
	"ReduceMax":       {math.Inf(-1), func(a, v float64) float64 { return max(a, v) }, same},
	"ReduceMin":       {math.Inf(1), func(a, v float64) float64 { return min(a, v) }, same},
	"ReduceProd":      {1, func(a, v float64) float64 { return a * v }, same},
	"ReduceL1":        {0, func(a, v float64) float64 { return a + math.Abs(v) }, same},
	"ReduceL2":        {0, func(a, v float64) float64 { return a + v*v }, func(a float64, _ int) float64 { return math.Sqrt(a) }},
	"ReduceSumSquare": {0, func(a, v float64) float64 { return a + v*v }, same},
	"ReduceLogSum":    {0, func(a, v float64) float64 { return a + v }, func(a float64, _ int) float64 { return math.Log(a) }},
}

// reduceAxes works out which axes a Reduce node folds. none is true where it
// folds nothing (noop_with_empty_axes).
func reduceAxes(x *Exec, n *Node, in []*engine.Tensor) (fold []bool, keep, none bool, err error) {
	shape := in[0].Shape()
	since := 18
	if n.Op == "ReduceSum" {
		since = 13
	}
	keep = true
	if a, ok := n.Attrs["keepdims"]; ok {
		keep = a.Int != 0
	}
	given := n.Attrs["axes"].Ints
	axes := copyInts(x.ints(len(given)), given)
	if n.Version >= since {
		axes = nil
		if t := arg(in, 1); t != nil {
			if axes, err = x.intsOf(t); err != nil {
				return nil, false, false, err
			}
		}
	}
	fold = x.flags(len(shape))
	if len(axes) == 0 {
		if n.Attrs["noop_with_empty_axes"].Int == 1 {
			return fold, true, true, nil
		}
		for i := range fold {
			fold[i] = true
		}
	}
	for _, a := range axes {
		if a, err = normAxis(a, len(shape)); err != nil {
			return nil, false, false, err
		}
		fold[a] = true
	}
	return fold, keep, false, nil
}

// groups returns the shape of a reduction's result, with 1 for folded axes, and
// for every element its group.
func groups(x *Exec, shape []int, fold []bool) (out []int, group []int64) {
	out = reducedShape(x.ints(len(shape))[:0], shape, fold, true)
	strides := x.ints(len(shape))
	strideInto(strides, out)
	group = roomOf[int64](x, volume(shape))
	walkStrided(shape, strides, 0, func(d, s, run int) {
		for i := range run {
			group[d+i] = int64(s + i)
		}
	})
	return out, group
}

// ReduceGroups returns for every element of a Reduce node's input the element of
// its output that it is folded into.
func ReduceGroups(n *Node, in []*engine.Tensor) ([]int, error) {
	x := new(Exec)
	fold, _, _, err := reduceAxes(x, n, in)
	if err != nil {
		return nil, err
	}
	_, group := groups(x, in[0].Shape(), fold)
	return copyInts(make([]int, len(group)), group), nil
}

func buildReduce(b *builder) (Kernel, error) {
	n := b.node
	b.attrs.ignore("axes", "keepdims", "noop_with_empty_axes")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		fold, keep, none, err := reduceAxes(x, n, in)
		if err != nil {
			return nil, err
		}
		if none && (n.Op == "ReduceSum" || n.Op == "ReduceMean" || n.Op == "ReduceMax" || n.Op == "ReduceMin" || n.Op == "ReduceProd") {
			return in[:1], nil
		}
		if v, r := engine.Data[float32](in[0]), reductions[n.Op]; v != nil && r.step != nil {
			if outer, span, inner, ok := foldedBlock(in[0].Shape(), fold); ok {
				t, out, err := newOf[float32](x, reducedShape(x.ints(len(fold))[:0], in[0].Shape(), fold, keep)...)
				if err != nil {
					return nil, err
				}
				reduceBlock(n.Op, r, out, v, outer, span, inner)
				return x.one(t, nil)
			}
		}
		if err := x.reserve(engine.Int64, 2*in[0].Len()); err != nil {
			return nil, err
		}
		shape, group := groups(x, in[0].Shape(), fold)
		if !keep {
			shape = reducedShape(shape[:0], in[0].Shape(), fold, false)
		}
		o, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		if v := x.integers(in[0]); v != nil && n.Op != "ReduceMean" && n.Op != "ReduceL2" && n.Op != "ReduceLogSum" && n.Op != "ReduceLogSumExp" {
			return x.one(o, reduceInts(x, n.Op, o, v, group))
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		return x.one(o, storeFloats(o, reduceFloats(x, n.Op, v, group, o.Len())))
	}, nil
}

// foldedBlock is how a reduction of neighbouring axes sees its input: outer x span x
// inner, folded over span. ok is false for other axes.
func foldedBlock(shape []int, fold []bool) (outer, span, inner int, ok bool) {
	outer, span, inner = 1, 1, 1
	folded := false
	for i, d := range shape {
		switch {
		case fold[i] && inner != 1:
			return 0, 0, 0, false
		case fold[i]:
			span, folded = span*d, true
		case folded:
			inner *= d
		default:
			outer *= d
		}
	}
	return outer, span, inner, true
}

func reducedShape(out, shape []int, fold []bool, keep bool) []int {
	for i, d := range shape {
		switch {
		case !fold[i]:
			out = append(out, d)
		case keep:
			out = append(out, 1)
		}
	}
	return out
}

// reduceBlock folds in float64, by the kernels where they have the step: rows below each
// other, or the elements of a row.
func reduceBlock(op string, r reduction, out, v []float32, outer, span, inner int) {
	switch op {
	case "ReduceMax":
		extremeBlock(vector.Max, r, out, v, outer, span, inner)
		return
	case "ReduceMin":
		extremeBlock(vector.Min, r, out, v, outer, span, inner)
		return
	}
	sums := op == "ReduceSum" || op == "ReduceMean" || op == "ReduceLogSum"
	squares := op == "ReduceL2" || op == "ReduceSumSquare"
	if inner == 1 && (sums || squares) {
		for o := range out[:outer] {
			out[o] = float32(r.end(sumOfRow(v[o*span:][:span], squares), span))
		}
		return
	}
	if span == 2 && op == "ReduceSum" {
		// A float64 that two float32 add up to is rounded as their sum in float32 is.
		for o := range outer {
			block := v[o*2*inner:][:2*inner]
			vector.Binary(vector.Add, out[o*inner:][:inner], block[:inner], block[inner:])
		}
		return
	}
	// Columns are folded some at a time, whose sums stay in the first level of cache.
	const columns = 1024
	room := columnRooms.Get().(*columnRoom)
	defer columnRooms.Put(room)
	most := min(columns, inner)
	wide, _ := room.of(2 * most)
	clear(wide[most:])
	for o := range outer {
		block := v[o*span*inner:][:span*inner]
		for from := 0; from < inner; from += most {
			acc := wide[:min(most, inner-from)]
			for i := range acc {
				acc[i] = r.start
			}
			for k := range span {
				row := block[k*inner+from:][:len(acc)]
				switch {
				case sums:
					vector.SumColumns(acc, row)
				case squares:
					vector.SquareColumns(acc, row, wide[most:][:len(acc)])
				default:
					r.fold(acc, row)
				}
			}
			r.finish(out[o*inner+from:], acc, span)
		}
	}
}

// sumOfRow is the sum of a row, or of its squares.
func sumOfRow(row []float32, squares bool) float64 {
	const few = 8 // no kernel takes fewer
	switch {
	case len(row) >= few && squares:
		return vector.Squares(row, 0)
	case len(row) >= few:
		return vector.Sum(row)
	}
	sum := 0.0
	for _, e := range row {
		w := float64(e)
		if squares {
			w *= w
		}
		sum += w
	}
	return sum
}

// fold takes a row into sums.
func (r *reduction) fold(acc []float64, row []float32) {
	for i, e := range row {
		acc[i] = r.step(acc[i], float64(e))
	}
}

// finish writes what sums of so many elements become.
func (r *reduction) finish(out []float32, acc []float64, n int) {
	for i, a := range acc {
		out[i] = float32(r.end(a, n))
	}
}

// extremeBlock is reduceBlock of the largest or the smallest element.
func extremeBlock(op vector.Op, r reduction, out, v []float32, outer, span, inner int) {
	if inner == 1 {
		of := greatestIn
		if op == vector.Min {
			of = leastIn
		}
		for o := range out[:outer] {
			out[o] = of(float32(r.start), v[o*span:][:span])
		}
		return
	}
	for o := range outer {
		to, block := out[o*inner:][:inner], v[o*span*inner:][:span*inner]
		for i := range to {
			to[i] = float32(r.start)
		}
		for k := range span {
			vector.Binary(op, to, to, block[k*inner:][:inner])
		}
	}
}

// greatestIn is the largest of start and v, NaN where one is.
func greatestIn(start float32, v []float32) float32 {
	for _, e := range v {
		if !(e <= start) {
			if e != e {
				return e
			}
			start = e
		}
	}
	return start
}

// leastIn is as greatestIn.
func leastIn(start float32, v []float32) float32 {
	for _, e := range v {
		if !(e >= start) {
			if e != e {
				return e
			}
			start = e
		}
	}
	return start
}

func reduceFloats(x *Exec, op string, v []float64, group []int64, n int) []float64 {
	if op == "ReduceLogSumExp" {
		return logSumExp(x, v, group, n)
	}
	acc, count := x.wide(n), roomOf[int64](x, n)
	clear(count)
	r := reductions[op]
	for i := range acc {
		acc[i] = r.start
	}
	for i, g := range group {
		acc[g] = r.step(acc[g], v[i])
		count[g]++
	}
	for i := range acc {
		acc[i] = r.end(acc[i], int(count[i]))
	}
	return acc
}

func logSumExp(x *Exec, v []float64, group []int64, n int) []float64 {
	top, acc := x.wide(n), x.wide(n)
	clear(acc)
	for i := range top {
		top[i] = math.Inf(-1)
	}
	for i, g := range group {
		top[g] = max(top[g], v[i])
	}
	for i, g := range group {
		if !math.IsInf(top[g], 0) {
			acc[g] += math.Exp(v[i] - top[g])
		}
	}
	for i := range acc {
		if math.IsInf(top[i], 0) {
			acc[i] = top[i]
			continue
		}
		acc[i] = top[i] + math.Log(acc[i])
	}
	return acc
}

// integerRange is the smallest and largest number of an integer type of 64 bits at most,
// but Uint64, as int64.
func integerRange(d engine.DType) (lo, hi int64) {
	bits := d.Bits()
	switch d {
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint4, engine.Uint2:
		return 0, 1<<bits - 1
	}
	return math.MinInt64 >> (64 - bits), math.MaxInt64 >> (64 - bits)
}

// reduceInts keeps integers exact. The largest of nothing is the least there is, as
// floats have it, and the least the largest.
func reduceInts(x *Exec, op string, o *engine.Tensor, v, group []int64) error {
	acc, seen := roomOf[int64](x, o.Len()), x.seen(o.Len())
	clear(acc)
	for i, g := range group {
		e := v[i]
		switch op {
		case "ReduceL1":
			e = max(e, -e)
		case "ReduceSumSquare":
			e *= e
		}
		switch {
		case !seen[g]:
			acc[g] = e
		case op == "ReduceMax":
			acc[g] = max(acc[g], e)
		case op == "ReduceMin":
			acc[g] = min(acc[g], e)
		case op == "ReduceProd":
			acc[g] *= e
		default:
			acc[g] += e
		}
		seen[g] = true
	}
	for i := range acc {
		if seen[i] {
			continue
		}
		if o.DType() == engine.Bool {
			// No condition is all conditions, and not any.
			if op == "ReduceMin" {
				acc[i] = 1
			}
			continue
		}
		switch lo, hi := integerRange(o.DType()); op {
		case "ReduceMax":
			acc[i] = lo
		case "ReduceMin":
			acc[i] = hi
		case "ReduceProd":
			acc[i] = 1
		}
	}
	if o.DType() == engine.Bool {
		d := engine.Data[bool](o)
		for i := range d {
			d[i] = acc[i] != 0
		}
		return nil
	}
	storeInts(o, acc)
	return nil
}

// buildArg is ArgMax and ArgMin; NaN is never the extreme.
func buildArg(b *builder) (Kernel, error) {
	axis, keep := b.attrs.int("axis", 0), b.attrs.int("keepdims", 1) != 0
	last := b.attrs.int("select_last_index", 0) == 1
	largest := b.node.Op == "ArgMax"
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		final := x.shaped(shape)
		final[a] = 1
		if !keep {
			final = slices.Delete(final, a, a+1)
		}
		t, out, err := newOf[int64](x, final...)
		if err != nil {
			return nil, err
		}
		if shape[a] == 0 {
			return nil, fmt.Errorf("%s of nothing", b.node.Op)
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		for o := range outer {
			for i := range inner {
				out[o*inner+i] = argExtreme(v[o*shape[a]*inner+i:], shape[a], inner, largest, last)
			}
		}
		return x.one(t, nil)
	}, nil
}

func argExtreme(v []float64, n, step int, largest, last bool) int64 {
	best := 0
	for i := 1; i < n; i++ {
		e, top := v[i*step], v[best*step]
		if largest && e > top || !largest && e < top || last && e == top {
			best = i
		}
	}
	return int64(best)
}

// buildCumulate is CumSum and CumProd.
func buildCumulate(b *builder) (Kernel, error) {
	product := b.node.Op == "CumProd"
	exclusive, reverse := b.attrs.int("exclusive", 0) == 1, b.attrs.int("reverse", 0) == 1
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		axes, err := x.intsOf(in[1])
		if err != nil || len(axes) != 1 {
			return nil, fmt.Errorf("axis of shape %v", in[1].Shape())
		}
		shape := in[0].Shape()
		a, err := normAxis(axes[0], len(shape))
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		o, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		if v := x.integers(in[0]); v != nil {
			sums := roomOf[int64](x, len(v))
			cumulate(sums, v, outer, shape[a], inner, exclusive, reverse, product)
			storeInts(o, sums)
			return x.one(o, nil)
		}
		if v := engine.Data[float32](in[0]); v != nil && !product && !exclusive && !reverse {
			cumulateSingles(engine.Data[float32](o), v, x.wide(inner), outer, shape[a], inner)
			return x.one(o, nil)
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		sums := x.wide(len(v))
		cumulate(sums, v, outer, shape[a], inner, exclusive, reverse, product)
		return x.one(o, storeFloats(o, sums))
	}, nil
}

// cumulateSingles is cumulate as models ask for it most, to the same bits.
func cumulateSingles(out, v []float32, sums []float64, outer, n, inner int) {
	for o := range outer {
		out, v := out[o*n*inner:][:n*inner], v[o*n*inner:][:n*inner]
		if inner == 1 {
			sum := 0.0
			for k, e := range v {
				sum += float64(e)
				out[k] = float32(sum)
			}
			continue
		}
		clear(sums)
		for at := 0; at < len(v); at += inner {
			to := out[at:][:inner]
			for i, e := range v[at:][:inner] {
				sums[i] += float64(e)
				to[i] = float32(sums[i])
			}
		}
	}
}

func cumulate[T int64 | float64](out, v []T, outer, n, inner int, exclusive, reverse, product bool) {
	for o := range outer {
		for i := range inner {
			var sum T
			if product {
				sum = 1
			}
			for k := range n {
				if reverse {
					k = n - 1 - k
				}
				at := (o*n+k)*inner + i
				if exclusive {
					out[at] = sum
				}
				if product {
					sum *= v[at]
				} else {
					sum += v[at]
				}
				if !exclusive {
					out[at] = sum
				}
			}
		}
	}
}

// buildLpNormalization divides each line along an axis by its norm; a line of
// zeros stays.
func buildLpNormalization(b *builder) (Kernel, error) {
	axis, p := b.attrs.int("axis", -1), b.attrs.int("p", 2)
	if p != 1 && p != 2 {
		return nil, b.node.unsupported("p = %d", p)
	}
	kind := "L" + strconv.Itoa(p)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		o, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		outer, inner := split(shape, a)
		n := shape[a]
		y, line := x.wide(len(v)), x.wide(n)
		for at := range outer * inner {
			start := at/inner*n*inner + at%inner
			for k := range n {
				line[k] = v[start+k*inner]
			}
			norm := NormOf(kind, line)
			for k, e := range line {
				y[start+k*inner] = e / norm
			}
		}
		return x.one(o, storeFloats(o, y))
	}, nil
}

func buildTopK(b *builder) (Kernel, error) {
	axis := b.attrs.int("axis", -1)
	b.attrs.ignore("sorted") // always sorted
	largest := b.attrs.int("largest", 1) == 1
	fixed := -1
	if b.version() < 10 {
		fixed = b.attrs.int("k", -1)
	} else if len(b.node.Inputs) < 2 {
		return nil, b.node.corrupt("has no k")
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := x.shaped(in[0].Shape())
		a, err := normAxis(axis, len(shape))
		if err != nil {
			return nil, err
		}
		k := fixed
		if t := arg(in, 1); t != nil {
			v, err := x.intsOf(t)
			if err != nil || len(v) != 1 {
				return nil, fmt.Errorf("k has %d elements", t.Len())
			}
			k = v[0]
		}
		n := shape[a]
		if k < 0 || k > n {
			return nil, misfit("more of the top, or fewer than none, than there are of %d", n)
		}
		outer, inner := split(shape, a)
		shape[a] = k
		values, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		t, index, err := newOf[int64](x, shape...)
		if err != nil {
			return nil, err
		}
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		if k == 0 {
			return x.pair(values, t), nil // of an axis of no element there is nothing to order
		}
		cp, order := copier(x, values, in[0]), scratchOf[ranked](x, n)
		for o := range outer {
			for i := range inner {
				for j, e := range topOf(order, v[o*n*inner+i:], k, inner, largest) {
					to := (o*k+j)*inner + i
					cp(to, (o*n+int(e.at))*inner+i, 1)
					index[to] = int64(e.at)
				}
			}
		}
		return x.pair(values, t), nil
	}, nil
}

// ranked is an element of a line, by a number that orders as it does, and its place.
type ranked struct {
	key int64
	at  int32
}

// ahead reports how a comes before b: the larger, and of equals the first.
func (a ranked) ahead(b ranked) bool { return a.key > b.key || a.key == b.key && a.at < b.at }

// rankOf is a number that orders as v does, both zeros the same and NaN the largest. Its
// complement orders the other way.
func rankOf(v float64) int64 {
	if v != v {
		return math.MaxInt64
	}
	bits := int64(math.Float64bits(v + 0))   //nolint:gosec // the sign is meant
	return bits ^ int64(uint64(bits>>63)>>1) //nolint:gosec // so that the smaller of two negative ones is
}

// topOf is the first k of a line, in order, in room for all of it.
func topOf(room []ranked, v []float64, k, step int, largest bool) []ranked {
	turn := int64(0)
	if !largest {
		turn = -1
	}
	for i := range room[:k] {
		room[i] = ranked{rankOf(v[i*step]) ^ turn, int32(i)} //nolint:gosec // tensors have fewer elements
	}
	top := room[:k]
	if k < len(room) {
		// A heap whose first is the last of the k: most of what is left is not ahead of it.
		for i := k/2 - 1; i >= 0; i-- {
			sink(top, i)
		}
		for i := k; i < len(room); i++ {
			if e := (ranked{rankOf(v[i*step]) ^ turn, int32(i)}); e.ahead(top[0]) { //nolint:gosec // as above
				top[0] = e
				sink(top, 0)
			}
		}
	}
	slices.SortFunc(top, func(a, b ranked) int {
		switch {
		case a.ahead(b):
			return -1
		case b.ahead(a):
			return 1
		}
		return 0
	})
	return top
}

// sink brings an element of a heap, whose first is behind all others, to its place.
func sink(heap []ranked, i int) {
	for {
		last := 2*i + 1
		if last >= len(heap) {
			return
		}
		if last+1 < len(heap) && heap[last].ahead(heap[last+1]) {
			last++
		}
		if !heap[i].ahead(heap[last]) {
			return
		}
		heap[i], heap[last] = heap[last], heap[i]
		i = last
	}
}

func init() {
	defs := map[string]opDef{
		"ArgMax":          {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: numericTypes, result: isInt64, half: true, build: buildArg},
		"ArgMin":          {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: numericTypes, result: isInt64, half: true, build: buildArg},
		"CumSum":          {since: 11, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildCumulate},
		"CumProd":         {since: 26, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildCumulate},
		"LpNormalization": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: buildLpNormalization},
		"TopK":            {since: 1, minIn: 1, maxIn: 2, maxOut: 2, accept: numericTypes, result: firstThenInt64, half: true, build: buildTopK},
	}
	for op := range reductions {
		defs[op] = opDef{since: 1, minIn: 1, maxIn: 2, maxOut: 1, half: true, build: buildReduce}
	}
	defs["ReduceLogSumExp"] = opDef{since: 1, minIn: 1, maxIn: 2, maxOut: 1, half: true, build: buildReduce}
	register(DomainONNX, defs)
}
