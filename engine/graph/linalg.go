package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/vector"
)

// Matmul adds op(a) op(b) to c, where op transposes on demand: c is m x n, the
// inner dimension is k, and all are row-major without gaps.
func Matmul[T float](c, a, b []T, m, n, k int, transA, transB bool) {
	matmul(1, c, a, b, m, n, k, transA, transB)
}

func matmul[T float](threads int, c, a, b []T, m, n, k int, transA, transB bool) {
	scaledMatmul(threads, 1, c, a, b, m, n, k, transA, transB)
}

// scaledMatmul multiplies c by beta before it adds; with 0, c is not read.
func scaledMatmul[T float](threads int, beta T, c, a, b []T, m, n, k int, transA, transB bool) {
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	blas.Gemm(threads, transA, transB, m, n, k, 1, a, max(lda, 1), b, max(ldb, 1), beta, c, max(n, 1))
}

// weights is the right operand of a product that is a constant, laid out for it
// once. A nil one is none.
type weights struct {
	tensor *engine.Tensor
	packed any // *blas.Packed of the tensor's type, of float32 where that has 8 bits
	// of are the scales and zeros of a tensor of 8 bits.
	of [2]*engine.Tensor
	// few is a matrix of float32 that is small enough for it, else nil.
	few *vector.FewColumns
}

// fewColumns lays out a small matrix, of which op takes the transpose where trans says so,
// and what is added to its products; nil of a larger one.
func fewColumns(t *engine.Tensor, trans bool, bias []float32) *vector.FewColumns {
	k, n := t.Shape()[0], t.Shape()[1]
	if k < 1 || n < 1 || k > vector.MostFew || n > vector.MostFew {
		return nil
	}
	v := engine.Data[float32](t)
	if isHalf(t.DType()) {
		v = widenedFloats(t)
	}
	if len(v) != k*n {
		return nil
	}
	if trans {
		turned := make([]float32, k*n)
		blas.Transpose(turned, v, k, n)
		v, k, n = turned, n, k
	}
	return vector.NewFewColumns(k, n, v, bias)
}

// fewPiece is how many elements of a product of few columns are ended while in the cache.
const fewPiece = 4096

// fewWork is the rows of k elements that are multiplied by a small matrix of n columns; then
// is done to each piece, nil for nothing.
type fewWork struct {
	f        *vector.FewColumns
	out, src []float32
	k, n     int
	then     func(row, col int, c []float32)
}

func (w *fewWork) part(from, to int) {
	for from < to {
		end := min(from+fewPiece/w.n, to)
		c := w.out[from*w.n : end*w.n]
		w.f.Product(c, w.src[from*w.k:end*w.k])
		if w.then != nil {
			w.then(from, 0, c)
		}
		from = end
	}
}

// fewProduct is so many rows of the work.
func (x *Exec) fewProduct(rows int, w fewWork) {
	share(x, x.inRows(rows, max(w.k, w.n)), rows, w)
}

// packs are a model's weights that were laid out, so that each is only once, whatever
// number of programs and nodes multiply by it.
type packs map[packed]*weights

type packed struct {
	tensor *engine.Tensor
	trans  bool
}

// Weights are padded to panels of at most 32 columns. Where that could more than
// double them they are laid out only while small, and a single column never: its
// product is faster without.
const (
	panelColumns = 32
	smallWeights = 1 << 20 // bytes
)

// fillsPanels reports whether a matrix of k rows and n columns is laid out.
func fillsPanels(k, n int, d engine.DType) bool {
	return k > 0 && n >= 2 && (n >= panelColumns/2 || k*panelColumns*d.Size() <= smallWeights)
}

// weightsOf lays out input i, of which op takes the transpose where trans says so.
func weightsOf(b *builder, i int, trans bool) *weights {
	if i >= len(b.constants) || b.constants[i] == nil || len(b.constants[i].Shape()) != 2 {
		return nil
	}
	t := b.constants[i]
	k, n := t.Shape()[0], t.Shape()[1]
	if trans {
		k, n = n, k
	}
	if t.DType() != engine.Float32 && t.DType() != engine.Float64 {
		return nil
	}
	if !fillsPanels(k, n, t.DType()) {
		return nil
	}
	laid := packed{t, trans}
	if w := b.packs[laid]; w != nil && w.of[0] == nil {
		return w
	}
	if !b.held.lay(packedBytes(k, n, t.DType())) {
		return nil // where it does not fit it is read as it is
	}
	w := &weights{tensor: t}
	switch t.DType() {
	case engine.Float32:
		w.packed = blas.Pack(trans, k, n, engine.Data[float32](t), t.Shape()[1])
		w.few = fewColumns(t, trans, nil)
	case engine.Float64:
		w.packed = blas.Pack(trans, k, n, engine.Data[float64](t), t.Shape()[1])
	default:
		return nil
	}
	if b.packs != nil {
		b.packs[laid] = w
	}
	return w
}

// packedBytes is what a matrix of k rows and n columns takes at most where it is laid out.
func packedBytes(k, n int, d engine.DType) int64 {
	return int64(k) * ((int64(n) + panelColumns - 1) / panelColumns * panelColumns) * int64(d.Size())
}

// packedOf returns w's layout where it is one of t, else nil: operators that
// compute in another type than the weights' give a copy.
func packedOf[T float](w *weights, t *engine.Tensor) *blas.Packed[T] {
	if w == nil || w.tensor != t {
		return nil
	}
	p, _ := w.packed.(*blas.Packed[T])
	return p
}

// gemm is alpha op(a) op(b) + beta c.
type gemm struct {
	alpha, beta    float64
	transA, transB bool
	weights        *weights
}

// gemmOf reads the attributes of a Gemm; a MatMul has none.
func gemmOf(b *builder) gemm {
	return gemm{
		alpha: b.attrs.float("alpha", 1), beta: b.attrs.float("beta", 1),
		transA: b.attrs.int("transA", 0) != 0, transB: b.attrs.int("transB", 0) != 0,
	}
}

func buildGemm(b *builder) (Kernel, error) {
	g := gemmOf(b)
	g.weights = weightsOf(b, 1, g.transB)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		for _, t := range in {
			if t != nil && t.DType() != in[0].DType() {
				return nil, fmt.Errorf("operands of types %s and %s", in[0].DType(), t.DType())
			}
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(runGemm[float32](x, g, in))
		case engine.Float64:
			return x.one(runGemm[float64](x, g, in))
		}
		// Integers go through float64, which is exact below 2^53.
		wide := x.list(len(in))
		for i, t := range in {
			if t == nil {
				continue
			}
			w, err := castTensor(x, t, engine.Float64, true)
			if err != nil {
				return nil, err
			}
			wide[i] = w
		}
		out, err := runGemm[float64](x, g, wide)
		if err != nil {
			return nil, err
		}
		return x.one(castTensor(x, out, in[0].DType(), true))
	}, nil
}

func runGemm[T float](x *Exec, g gemm, in []*engine.Tensor) (*engine.Tensor, error) {
	sa, sb := in[0].Shape(), in[1].Shape()
	if len(sa) != 2 || len(sb) != 2 {
		return nil, misfit("operands of shapes %v and %v", sa, sb)
	}
	m, k, kb, n := sa[0], sa[1], sb[0], sb[1]
	if g.transA {
		m, k = k, m
	}
	if g.transB {
		kb, n = n, kb
	}
	if k != kb {
		return nil, misfit("operands of shapes %v and %v", sa, sb)
	}
	t, out, err := rawOf[T](x, m, n)
	if err != nil {
		return nil, err
	}
	if p := packedOf[T](g.weights, in[1]); p != nil {
		p.Gemm(x.threads, g.transA, m, 1, engine.Data[T](in[0]), max(sa[1], 1), 0, out, max(n, 1))
	} else {
		scaledMatmul(x.threads, 0, out, engine.Data[T](in[0]), engine.Data[T](in[1]), m, n, k, g.transA, g.transB)
	}
	if g.alpha != 1 {
		for i := range out {
			out[i] *= T(g.alpha)
		}
	}
	c := arg(in, 2)
	if c == nil || g.beta == 0 {
		return t, nil
	}
	shape, err := x.broadcast(t.Shape(), c.Shape())
	if err != nil || len(shape) != 2 || shape[0] != m || shape[1] != n {
		return nil, misfit("bias of shape %v for a result of shape %v", c.Shape(), t.Shape())
	}
	bias, beta := engine.Data[T](c), T(g.beta)
	if v, ok := any(out).([]float32); ok && beta == 1 {
		b := any(bias).([]float32)
		pairWalk(shape, t.Shape(), c.Shape(), func(o, _, ic, n, _, sc int) {
			vector.Binary(vector.Add, v[o:o+n], v[o:o+n], runOf(b, ic, 0, n, sc))
		})
		return t, nil
	}
	pairWalk(shape, t.Shape(), c.Shape(), func(o, _, ic, n, _, sc int) {
		for i := range n {
			out[o+i] += beta * bias[ic+i*sc]
		}
	})
	return t, nil
}

// MatMulShape is the geometry of a MatMul: batch shape and matrix sizes, with
// vectors seen as matrices of one row or column.
type MatMulShape struct {
	Batch   []int
	M, K, N int
	// A and B are the operands' own batch shapes; Out the result's shape.
	A, B, Out []int
}

// NewMatMulShape works out MatMul's geometry under NumPy's rules.
func NewMatMulShape(a, b []int) (*MatMulShape, error) {
	if len(a) == 0 || len(b) == 0 {
		return nil, misfit("operands of shapes %v and %v", a, b)
	}
	rowVec, colVec := len(a) == 1, len(b) == 1
	if rowVec {
		a = []int{1, a[0]}
	}
	if colVec {
		b = []int{b[0], 1}
	}
	s := &MatMulShape{M: a[len(a)-2], K: a[len(a)-1], N: b[len(b)-1], A: a[:len(a)-2], B: b[:len(b)-2]}
	if s.K != b[len(b)-2] {
		return nil, misfit("operands of shapes %v and %v", a, b)
	}
	var err error
	if s.Batch, err = BroadcastShape(s.A, s.B); err != nil {
		return nil, err
	}
	s.Out = append(s.Out, s.Batch...)
	if !rowVec {
		s.Out = append(s.Out, s.M)
	}
	if !colVec {
		s.Out = append(s.Out, s.N)
	}
	return s, nil
}

// Each calls f for every matrix product: the index of the result's matrix and of
// the operands'.
func (s *MatMulShape) Each(f func(o, a, b int)) {
	pairWalk(s.Batch, s.A, s.B, func(o, ia, ib, n, sa, sb int) {
		for i := range n {
			f(o+i, ia+i*sa, ib+i*sb)
		}
	})
}

// matMulShapeOf is NewMatMulShape, remembered.
func matMulShapeOf(x *Exec, a, b *engine.Tensor) (*MatMulShape, error) {
	pair := [2]*engine.Tensor{a, b}
	if s := recall[MatMulShape](x, pair[:]); s != nil {
		return s, nil
	}
	s, err := NewMatMulShape(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	remember(x, pair[:], s)
	return s, nil
}

func runMatMul[T float](x *Exec, w *weights, a, b *engine.Tensor) (*engine.Tensor, error) {
	s, err := matMulShapeOf(x, a, b)
	if err != nil {
		return nil, err
	}
	t, out, err := rawOf[T](x, s.Out...)
	if err != nil {
		return nil, err
	}
	da, db := engine.Data[T](a), engine.Data[T](b)
	if len(s.B) == 0 {
		// One matrix on the right: all of a's rows in one product.
		rows := s.M
		for _, d := range s.A {
			rows *= d
		}
		p := packedOf[T](w, b)
		if p != nil && w.few != nil {
			x.fewProduct(rows, fewWork{w.few, any(out).([]float32), any(da).([]float32), s.K, s.N, nil})
		} else if p != nil {
			p.Gemm(x.threads, false, rows, 1, da, max(s.K, 1), 0, out, max(s.N, 1))
		} else {
			scaledMatmul(x.threads, 0, out, da, db, rows, s.N, s.K, false, false)
		}
		return t, nil
	}
	mk, kn, mn := s.M*s.K, s.K*s.N, s.M*s.N
	s.Each(func(o, ia, ib int) {
		scaledMatmul(x.threads, 0, out[o*mn:(o+1)*mn], da[ia*mk:(ia+1)*mk], db[ib*kn:(ib+1)*kn], s.M, s.N, s.K, false, false)
	})
	return t, nil
}

func buildMatMul(b *builder) (Kernel, error) {
	w := weightsOf(b, 1, false)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != in[1].DType() {
			return nil, fmt.Errorf("operands of types %s and %s", in[0].DType(), in[1].DType())
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(runMatMul[float32](x, w, in[0], in[1]))
		case engine.Float64:
			return x.one(runMatMul[float64](x, w, in[0], in[1]))
		}
		a, err := castTensor(x, in[0], engine.Float64, true)
		if err != nil {
			return nil, err
		}
		b, err := castTensor(x, in[1], engine.Float64, true)
		if err != nil {
			return nil, err
		}
		out, err := runMatMul[float64](x, nil, a, b)
		if err != nil {
			return nil, err
		}
		return x.one(castTensor(x, out, in[0].DType(), true))
	}, nil
}

// softmaxSpan is how softmax sees a tensor: outer x n x inner, normalised over n.
func softmaxSpan(shape []int, axis, version int) (outer, n, inner int, err error) {
	if len(shape) == 0 {
		return 1, 1, 1, nil
	}
	if axis, err = normAxis(axis, len(shape)); err != nil {
		return 0, 0, 0, err
	}
	outer, inner = split(shape, axis)
	if version < 13 {
		// Before version 13 all dimensions from axis on are one.
		return outer, shape[axis] * inner, 1, nil
	}
	return outer, shape[axis], inner, nil
}

// SoftmaxSpan returns the geometry of a Softmax or LogSoftmax node over shape.
func SoftmaxSpan(n *Node, shape []int) (outer, span, inner int, err error) {
	axis := 1
	if n.Version >= 13 {
		axis = -1
	}
	if a, ok := n.Attrs["axis"]; ok {
		axis = int(a.Int)
	}
	return softmaxSpan(shape, axis, n.Version)
}

func buildSoftmax(b *builder) (Kernel, error) {
	b.attrs.int("axis", 0) // checks its type; SoftmaxSpan reads it
	logs := b.node.Op == "LogSoftmax"
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		outer, n, inner, err := SoftmaxSpan(b.node, in[0].Shape())
		if err != nil {
			return nil, err
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(softmax[float32](x, in[0], outer, n, inner, logs))
		case engine.Float64:
			return x.one(softmax[float64](x, in[0], outer, n, inner, logs))
		case engine.Float16, engine.BFloat16:
			return x.one(halfSoftmax(x, in[0], outer, n, inner, logs))
		}
		return nil, typeError(in[0])
	}, nil
}

type softmaxRows struct {
	to, v []float32
	n     int
}

func (w *softmaxRows) part(from, end int) {
	for i := from; i < end; i++ {
		vector.Softmax(w.to[i*w.n:(i+1)*w.n], w.v[i*w.n:(i+1)*w.n])
	}
}

type logSoftmaxRows struct {
	to, v []float32
	n     int
}

func (w *logSoftmaxRows) part(from, end int) {
	borrowed(w.n, func(room []float32) {
		for i := from; i < end; i++ {
			vector.LogSoftmax(w.to[i*w.n:(i+1)*w.n], w.v[i*w.n:(i+1)*w.n], room)
		}
	})
}

type softmaxBlocks struct {
	to, v    []float32
	n, inner int
}

func (w *softmaxBlocks) part(from, end int) {
	size := w.n * w.inner
	borrowed(2*w.inner, func(room []float32) {
		for i := from; i < end; i++ {
			softmaxBlock(w.to[i*size:][:size], w.v[i*size:][:size], room[:w.inner], room[w.inner:])
		}
	})
}

func softmax[T float](x *Exec, t *engine.Tensor, outer, n, inner int, logs bool) (*engine.Tensor, error) {
	o, out, err := rawOf[T](x, t.Shape()...)
	if err != nil {
		return nil, err
	}
	src := engine.Data[T](t)
	if len(src) == 0 {
		return o, nil // where the axis has no element, the lines beside it are many of none
	}
	if v, ok := any(src).([]float32); ok && inner == 1 && !logs {
		to := any(out).([]float32)
		if x.threads < 2 {
			for i := range outer {
				vector.Softmax(to[i*n:(i+1)*n], v[i*n:(i+1)*n])
			}
			return o, nil
		}
		share(x, x.inRows(outer, n), outer, softmaxRows{to, v, n})
		return o, nil
	}
	if v, ok := any(src).([]float32); ok && !logs && inner >= 8 && n > 0 && n <= shortSums {
		if err := x.reserve(engine.Float32, max(1, x.threads)*2*inner); err != nil {
			return nil, err
		}
		to := any(out).([]float32)
		share(x, x.inRows(outer, n*inner), outer, softmaxBlocks{to, v, n, inner})
		return o, nil
	}
	if v, ok := any(src).([]float32); ok && logs && inner == 1 {
		share(x, x.inRows(outer, n), outer, logSoftmaxRows{any(out).([]float32), v, n})
		return o, nil
	}
	share(x, x.inRows(outer, n*inner), outer, softmaxLines[T]{out, src, n, inner, logs})
	return o, nil
}

// softmaxLines is blocks of n lines of inner elements, or their logarithms.
type softmaxLines[T float] struct {
	out, src []T
	n, inner int
	logs     bool
}

func (w *softmaxLines[T]) part(from, end int) {
	for i := from; i < end; i++ {
		for j := range w.inner {
			at := i*w.n*w.inner + j
			softmaxLine(w.out[at:], w.src[at:], w.n, w.inner, w.logs)
		}
	}
}

// shortSums is up to how many terms float32 sums well.
const shortSums = 256

// softmaxBlock is softmaxLine for all of the lines side by side, as many as top and
// sum have elements.
func softmaxBlock(out, src, top, sum []float32) {
	inner := len(top)
	copy(top, src)
	for at := inner; at < len(src); at += inner {
		vector.Binary(vector.Max, top, top, src[at:at+inner])
	}
	clear(sum)
	for at := 0; at < len(src); at += inner {
		row := out[at : at+inner]
		vector.Binary(vector.Sub, row, src[at:at+inner], top)
		vector.Exponential.Apply(row, row)
		vector.Binary(vector.Add, sum, sum, row)
	}
	for at := 0; at < len(src); at += inner {
		vector.Binary(vector.Div, out[at:at+inner], out[at:at+inner], sum)
	}
}

func softmaxLine[T float](out, src []T, n, step int, logs bool) {
	top := math.Inf(-1)
	for i := range n {
		top = max(top, float64(src[i*step]))
	}
	sum := 0.0
	for i := range n {
		sum += math.Exp(float64(src[i*step]) - top)
	}
	for i := range n {
		v := float64(src[i*step]) - top
		if logs {
			out[i*step] = T(v - math.Log(sum))
			continue
		}
		out[i*step] = T(math.Exp(v) / sum)
	}
}

func buildBatchNorm(b *builder) (Kernel, error) {
	eps, momentum := b.attrs.float("epsilon", 1e-5), b.attrs.float("momentum", 0.9)
	training := b.attrs.int("training_mode", 0) != 0
	if b.attrs.int("spatial", 1) != 1 {
		return nil, b.node.unsupported("spatial = 0")
	}
	b.result = []engine.DType{b.inType(0), b.inType(3), b.inType(4)}
	if training {
		return trainingNorm(eps, momentum), nil
	}
	for i, out := range b.node.Outputs {
		if i > 0 && out != "" {
			return nil, b.node.unsupported("output %d (%q) without training_mode", i, out)
		}
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		switch in[0].DType() {
		case engine.Float32:
			return x.one(batchNorm[float32](x, in, eps))
		case engine.Float64:
			return x.one(batchNorm[float64](x, in, eps))
		}
		return nil, typeError(in[0])
	}, nil
}

func batchNorm[T float](x *Exec, in []*engine.Tensor, eps float64) (*engine.Tensor, error) {
	shape := in[0].Shape()
	channels, inner := 1, 1
	if len(shape) > 1 {
		channels = shape[1]
		_, inner = split(shape, 1)
	}
	var p [4][]float64
	for i := range p {
		v, ok := x.float64s(in[i+1])
		if !ok || len(v) != channels {
			return nil, fmt.Errorf("input %d has %d elements for %d channels", i+1, in[i+1].Len(), channels)
		}
		p[i] = v
	}
	t, out, err := rawOf[T](x, shape...)
	if err != nil {
		return nil, err
	}
	src := engine.Data[T](in[0])
	if v, ok := any(src).([]float32); ok {
		batchNormFloats(any(out).([]float32), v, p, eps, inner)
		return t, nil
	}
	for at := 0; at < len(src); at += inner {
		c := at / inner % channels
		scale := p[0][c] / math.Sqrt(p[3][c]+eps)
		for i, v := range src[at : at+inner] {
			out[at+i] = T((float64(v)-p[2][c])*scale + p[1][c])
		}
	}
	return t, nil
}

// batchNormFloats is batchNorm by scale, bias, mean and variance of each channel of inner
// neighbours: a row of channels at once where each has but one.
func batchNormFloats(out, src []float32, p [4][]float64, eps float64, inner int) {
	channels := len(p[0])
	room := columnRooms.Get().(*columnRoom)
	defer columnRooms.Put(room)
	_, both := room.of(2 * channels)
	scales, shifts := both[:channels], both[channels:]
	for c := range scales {
		scale := p[0][c] / math.Sqrt(p[3][c]+eps)
		scales[c], shifts[c] = float32(scale), float32(p[1][c]-p[2][c]*scale)
	}
	if inner == 1 {
		for at := 0; at < len(src); at += channels {
			vector.Norm(out[at:at+channels], src[at:at+channels], scales, shifts, 0, 1)
		}
		return
	}
	for at := 0; at < len(src); at += inner {
		c := at / inner % channels
		vector.Scale(out[at:at+inner], src[at:at+inner], scales[c], shifts[c])
	}
}

func buildLayerNorm(b *builder) (Kernel, error) {
	axis, eps := b.attrs.int("axis", -1), b.attrs.float("epsilon", 1e-5)
	b.attrs.ignore("stash_type") // the statistics are computed in float64
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a, err := normAxis(axis, len(in[0].Shape()))
		if err != nil {
			return nil, err
		}
		switch in[0].DType() {
		case engine.Float32:
			return layerNorm[float32](x, in, a, eps)
		case engine.Float64:
			return layerNorm[float64](x, in, a, eps)
		}
		return nil, typeError(in[0])
	}, nil
}

// normWork is the rows of a layer normalisation, with what is told of each.
type normWork struct {
	out, src, means, invs, scale, bias []float32
	n                                  int
	eps                                float64
}

func (w *normWork) part(from, end int) {
	vector.NormRows(w.out[from*w.n:end*w.n], w.src[from*w.n:end*w.n], w.scale, w.bias, w.eps, w.means[from:end], w.invs[from:end])
}

func layerNorm[T float](x *Exec, in []*engine.Tensor, axis int, eps float64) ([]*engine.Tensor, error) {
	shape := in[0].Shape()
	n := 1
	for _, d := range shape[axis:] {
		n *= d
	}
	stats := x.shaped(shape)
	for i := axis; i < len(stats); i++ {
		stats[i] = 1
	}
	t, out, err := rawOf[T](x, shape...)
	if err != nil {
		return nil, err
	}
	tm, means, err := newOf[T](x, stats...)
	if err != nil {
		return nil, err
	}
	ti, invs, err := newOf[T](x, stats...)
	if err != nil {
		return nil, err
	}
	scale, err := normScale[T](x, in[1], n)
	if err != nil {
		return nil, err
	}
	var bias []T
	if b := arg(in, 2); b != nil {
		if bias, err = normScale[T](x, b, n); err != nil {
			return nil, err
		}
	}
	src := engine.Data[T](in[0])
	if _, ok := any(src).([]float32); ok && bias == nil {
		bias = roomOf[T](x, n)
		clear(bias)
	}
	if v, ok := any(src).([]float32); ok && n > 0 {
		w := normWork{any(out).([]float32), v, any(means).([]float32), any(invs).([]float32), any(scale).([]float32), any(bias).([]float32), n, eps}
		share(x, x.inRows(len(means), n), len(means), w)
		return normResults(x, t, tm, ti), nil
	}
	share(x, x.inRows(len(means), n), len(means), normLines[T]{out, src, means, invs, scale, bias, n, eps})
	return normResults(x, t, tm, ti), nil
}

// normLines is normWork for any type, and for rows of nothing.
type normLines[T float] struct {
	out, src, means, invs, scale, bias []T
	n                                  int
	eps                                float64
}

func (w *normLines[T]) part(from, end int) {
	for r := from; r < end; r++ {
		row, out := w.src[r*w.n:(r+1)*w.n], w.out[r*w.n:(r+1)*w.n]
		mean, inv := moments(row, w.eps)
		w.means[r], w.invs[r] = T(mean), T(inv)
		for i, v := range row {
			y := (float64(v) - mean) * inv * float64(w.scale[i])
			if w.bias != nil {
				y += float64(w.bias[i])
			}
			out[i] = T(y)
		}
	}
}

func normResults(x *Exec, t, mean, inv *engine.Tensor) []*engine.Tensor {
	all := x.list(3)
	all[0], all[1], all[2] = t, mean, inv
	return all
}

// normScale repeats a scale that covers only the last dimensions.
func normScale[T float](x *Exec, t *engine.Tensor, n int) ([]T, error) {
	s := engine.Data[T](t)
	if len(s) == n {
		return s, nil
	}
	if len(s) == 0 || n%len(s) != 0 {
		return nil, fmt.Errorf("scale of %d elements for %d", len(s), n)
	}
	out := roomOf[T](x, n)
	for i := range out {
		out[i] = s[i%len(s)]
	}
	return out, nil
}

func moments[T float](row []T, eps float64) (mean, inv float64) {
	if v, ok := any(row).([]float32); ok {
		mean = vector.Sum(v) / float64(len(v))
		return mean, 1 / math.Sqrt(vector.Squares(v, mean)/float64(len(v))+eps)
	}
	for _, v := range row {
		mean += float64(v)
	}
	mean /= float64(len(row))
	variance := 0.0
	for _, v := range row {
		d := float64(v) - mean
		variance += d * d
	}
	return mean, 1 / math.Sqrt(variance/float64(len(row))+eps)
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Gemm":               {since: 7, minIn: 2, maxIn: 3, maxOut: 1, accept: numericTypes, half: true, build: buildGemm},
		"MatMul":             {since: 1, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildMatMul},
		"Softmax":            {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, build: buildSoftmax},
		"LogSoftmax":         {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, build: buildSoftmax},
		"BatchNormalization": {since: 7, minIn: 5, maxIn: 5, maxOut: 3, accept: floatTypes, half: true, result: fromBuilder, build: buildBatchNorm},
		"LayerNormalization": {since: 17, minIn: 2, maxIn: 3, maxOut: 3, accept: floatTypes, half: true, build: buildLayerNorm},
	})
}
