package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
)

// spread tells which scale stands for each element of a tensor: one for all, one
// for each place on an axis, or one for each block of it.
type spread struct {
	axis, block int
}

func readSpread(b *builder) spread {
	return spread{axis: b.attrs.int("axis", 1), block: b.attrs.int("block_size", 0)}
}

// scalePlaces tells where the scale of an element is.
type scalePlaces struct {
	// single says that there is one scale. Else n places lie inner elements apart, one scale
	// each where block is 0, blocks of them where it is not.
	single                  bool
	inner, n, block, blocks int
}

func (p scalePlaces) at(i int) int {
	switch {
	case p.single:
		return 0
	case p.block == 0:
		return i / p.inner % p.n
	}
	return (i/(p.inner*p.n)*p.blocks+i/p.inner%p.n/p.block)*p.inner + i%p.inner
}

// index returns where in scales the elements of a tensor of the given shape have theirs.
func (s spread) index(shape []int, scales *engine.Tensor) (scalePlaces, error) {
	if scales.Len() == 1 {
		return scalePlaces{single: true}, nil
	}
	a, err := normAxis(s.axis, len(shape))
	if err != nil {
		return scalePlaces{}, err
	}
	_, inner := split(shape, a)
	n := max(shape[a], 1)
	if s.block == 0 {
		if len(scales.Shape()) != 1 || scales.Len() != shape[a] {
			return scalePlaces{}, fmt.Errorf("scales of shape %v for axis %d of %v", scales.Shape(), a, shape)
		}
		return scalePlaces{inner: inner, n: n}, nil
	}
	p := scalePlaces{inner: inner, n: n, block: s.block, blocks: shape[a]}
	if s.block > 0 {
		p.blocks = (shape[a] + s.block - 1) / s.block
	}
	have := scales.Shape()
	if s.block < 0 || len(have) != len(shape) || !slices.Equal(have[:a], shape[:a]) || have[a] != p.blocks || !slices.Equal(have[a+1:], shape[a+1:]) {
		return scalePlaces{}, fmt.Errorf("scales of shape %v in blocks of %d for %v", scales.Shape(), s.block, shape)
	}
	return p, nil
}

// ScaleIndex returns for element i of a value of the given shape, which QuantizeLinear
// takes or DequantizeLinear makes, the place of its scale.
func ScaleIndex(n *Node, shape []int, scales *engine.Tensor) (func(i int) int, error) {
	s := spread{axis: 1}
	if a, ok := n.Attrs["axis"]; ok {
		s.axis = int(a.Int)
	}
	if a, ok := n.Attrs["block_size"]; ok {
		s.block = int(a.Int)
	}
	p, err := s.index(shape, scales)
	return p.at, err
}

// WholeRange is the smallest and largest number of an integer type that QuantizeLinear
// makes.
func WholeRange(d engine.DType) (low, high float64, ok bool) {
	if !quantised(d) || !wholeNumbers(d) {
		return 0, 0, false
	}
	low, high = rangeOf(d)
	return low, high, true
}

// oneScale returns the scale and zero point of a value where they are one number each
// and x is float32.
func oneScale(x *Exec, scale, zero *engine.Tensor) (s float32, z float64, ok bool) {
	if scale.DType() != engine.Float32 || scale.Len() != 1 {
		return 0, 0, false
	}
	if zero != nil {
		v, known := x.float64s(zero)
		if !known || len(v) != 1 {
			return 0, 0, false
		}
		z = v[0]
	}
	return engine.Data[float32](scale)[0], z, true
}

// quickBytes rounds float32 to bytes of one scale: what is divided is cut to the range
// before it is rounded, which gives the same.
func quickBytes(x *Exec, v []float32, out []uint8, scale, zero float32) {
	share(x, x.inParts(len(v)), len(v), rounding{out, v, qgemm.Scale{Scale: scale, Zero: zero}})
}

// quickFloats is the way back.
func quickFloats(x *Exec, q []uint8, out []float32, scale, zero float32) {
	share(x, x.inParts(len(q)), len(q), floating{out, q, qgemm.Scale{Scale: scale, Zero: zero}})
}

// floating is bytes of one scale that become floats.
type floating struct {
	out []float32
	q   []uint8
	of  qgemm.Scale
}

func (w *floating) part(from, end int) { qgemm.ToFloats(w.out[from:end], w.q[from:end], w.of) }

// points returns the zero points as numbers, nil where there are none.
func points(x *Exec, zero, scales *engine.Tensor) ([]float64, error) {
	if zero == nil {
		return nil, nil
	}
	v, ok := x.float64s(zero)
	if !ok || len(v) != scales.Len() && len(v) != 1 {
		return nil, fmt.Errorf("zero points of %s %v for scales of %v", zero.DType(), zero.Shape(), scales.Shape())
	}
	if len(v) == 1 {
		all := x.wide(max(scales.Len(), 1))
		for i := range all {
			all[i] = v[0]
		}
		v = all
	}
	return v, nil
}

// quantised are the types that QuantizeLinear makes.
func quantised(d engine.DType) bool {
	return d == engine.Uint8 || d == engine.Int8 || d == engine.Uint16 || d == engine.Int16 || d.IsNarrow() && d != engine.Float8E8M0
}

func wholeNumbers(d engine.DType) bool {
	return d.IsInteger() || d == engine.Uint4 || d == engine.Int4 || d == engine.Uint2 || d == engine.Int2
}

func buildQuantize(b *builder) (Kernel, error) {
	s, saturate := readSpread(b), b.attrs.int("saturate", 1) != 0
	d := engine.Uint8
	if t := b.inType(2); t != engine.Invalid {
		d = t
	}
	if to := b.attrs.int("output_dtype", 0); to != 0 {
		d = TypeOfONNX(to)
	}
	precision := TypeOfONNX(b.attrs.int("precision", 0))
	if !quantised(d) || b.inType(2) != engine.Invalid && b.inType(2) != d {
		return nil, b.node.unsupported("element type %s with zero points of %s", d, b.inType(2))
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		places, err := s.index(in[0].Shape(), in[1])
		if err != nil {
			return nil, err
		}
		zero, err := points(x, arg(in, 2), in[1])
		if err != nil {
			return nil, err
		}
		if scale, z, ok := oneScale(x, in[1], arg(in, 2)); ok && d == engine.Uint8 && in[0].DType() == engine.Float32 && (arg(in, 2) == nil || in[2].DType() == d) &&
			(precision == engine.Invalid || precision == engine.Float32) {
			t, out, err := rawOf[uint8](x, in[0].Shape()...)
			if err != nil {
				return nil, err
			}
			quickBytes(x, engine.Data[float32](in[0]), out, scale, float32(z))
			return x.one(t, nil)
		}
		if precision == engine.Invalid || precision == engine.Float32 {
			if t, ok, err := s.quickCodes(x, in[0], in[1], arg(in, 2), d); ok || err != nil {
				return x.one(t, err)
			}
		}
		v, err := floats(x, in[0])
		if err != nil {
			return nil, err
		}
		scale, err := floats(x, in[1])
		if err != nil {
			return nil, err
		}
		if arg(in, 2) != nil && in[2].DType() != d {
			return nil, fmt.Errorf("zero points of %s for %s", in[2].DType(), d)
		}
		o, err := x.New(d, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		if err := x.reserve(engine.Float64, len(v)); err != nil {
			return nil, err
		}
		if d.IsNarrow() && !wholeNumbers(d) && d != engine.Float4E2M1 {
			if slices.ContainsFunc(zero, func(z float64) bool { return z != 0 }) {
				return nil, fmt.Errorf("a zero point of %s that is not 0", d)
			}
		}
		work := divisionType(in[0].DType(), in[1].DType(), precision)
		out := x.wide(len(v))
		for i, f := range v {
			k := places.at(i)
			out[i] = work(work(f) / work(scale[k]))
			if wholeNumbers(d) {
				out[i] = math.RoundToEven(out[i])
			}
			if zero != nil {
				out[i] += zero[k]
			}
		}
		if wholeNumbers(d) {
			out = saturated(d, out)
		}
		if d.IsNarrow() {
			return x.one(o, o.SetNarrow(out, saturate, engine.ScaleUp))
		}
		return x.one(o, storeFloats(o, out))
	}, nil
}

// divisionType is the precision that x is divided by its scale in.
func divisionType(x, scale, precision engine.DType) func(float64) float64 {
	if precision == engine.Invalid {
		precision = engine.Float32
		if x == scale && (x == engine.Float16 || x == engine.BFloat16) {
			precision = x
		}
	}
	switch precision {
	case engine.Float16, engine.BFloat16:
		return func(v float64) float64 { return rounded(precision, v) }
	case engine.Float64:
		return func(v float64) float64 { return v }
	}
	return func(v float64) float64 { return float64(float32(v)) }
}

func buildDequantize(b *builder) (Kernel, error) {
	s := readSpread(b)
	d := b.inType(1)
	if to := b.attrs.int("output_dtype", 0); to != 0 {
		d = TypeOfONNX(to)
	}
	if in := b.inType(0); in != engine.Invalid && !quantised(in) && in != engine.Int32 || d != engine.Invalid && !d.IsFloat() {
		return nil, b.node.unsupported("element type %s to %s", in, d)
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		places, err := s.index(in[0].Shape(), in[1])
		if err != nil {
			return nil, err
		}
		zero, err := points(x, arg(in, 2), in[1])
		if err != nil {
			return nil, err
		}
		to := d
		if to == engine.Invalid {
			to = in[1].DType()
		}
		if scale, z, ok := oneScale(x, in[1], arg(in, 2)); ok && to == engine.Float32 && in[0].DType() == engine.Uint8 {
			t, out, err := rawOf[float32](x, in[0].Shape()...)
			if err != nil {
				return nil, err
			}
			quickFloats(x, engine.Data[uint8](in[0]), out, scale, float32(z))
			return x.one(t, nil)
		}
		if to == engine.Float32 {
			if t, ok, err := s.quickFloatsOf(x, in[0], in[1], arg(in, 2)); ok || err != nil {
				return x.one(t, err)
			}
		}
		v, err := floats(x, in[0])
		if err != nil {
			return nil, err
		}
		scale, err := floats(x, in[1])
		if err != nil {
			return nil, err
		}
		o, err := x.New(to, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		out := x.wide(len(v))
		for i, f := range v {
			k := places.at(i)
			if zero != nil {
				f -= zero[k]
			}
			out[i] = f * scale[k]
		}
		return x.one(o, storeFloats(o, out))
	}, nil
}

// buildDynamicQuantize finds the scale in the data.
// dynamicScale is that of bytes that span numbers and zero.
func dynamicScale(v []float32) qgemm.Scale {
	lo, hi := qgemm.Span(v)
	scale := (hi - lo) / 255
	if hi == lo {
		scale = 1 // of zeros or of nothing, as onnxruntime has it
	}
	return qgemm.Scale{Scale: scale, Zero: float32(math.RoundToEven(min(max(float64(-lo/scale), 0), 255)))}
}

// rounding is floats that are made bytes.
type rounding struct {
	out []uint8
	v   []float32
	to  qgemm.Scale
}

func (w *rounding) part(from, end int) { qgemm.ToBytes(w.out[from:end], w.v[from:end], w.to) }

func buildDynamicQuantize(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Uint8, engine.Float32, engine.Uint8}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		v := engine.Data[float32](in[0])
		if v == nil {
			return nil, typeError(in[0])
		}
		to := dynamicScale(v)
		t, out, err := rawOf[uint8](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		share(x, x.inParts(len(v)), len(v), rounding{out, v, to})
		ts, scale, err := rawOf[float32](x)
		if err != nil {
			return nil, err
		}
		tz, zero, err := rawOf[uint8](x)
		if err != nil {
			return nil, err
		}
		scale[0], zero[0] = to.Scale, uint8(to.Zero)
		outs := x.list(3)
		outs[0], outs[1], outs[2] = t, ts, tz
		return outs, nil
	}, nil
}

// shifted returns integers as float64 less their zero points: one, or one for each
// place on the axis.
func shifted(x *Exec, t, zero *engine.Tensor, axis int) (*engine.Tensor, error) {
	wide, err := castTensor(x, t, engine.Float64, false)
	if err != nil || zero == nil {
		return wide, err
	}
	places, err := spread{axis: axis}.index(t.Shape(), zero)
	if err != nil {
		return nil, err
	}
	z, ok := x.float64s(zero)
	if !ok {
		return nil, typeError(zero)
	}
	v := engine.Data[float64](wide)
	for i := range v {
		v[i] -= z[places.at(i)]
	}
	return wide, nil
}

// integerMatMul multiplies integers exactly: sums below 2^53 are in float64.
func integerMatMul(x *Exec, a, za, b, zb *engine.Tensor) (*engine.Tensor, error) {
	row := -2
	if len(a.Shape()) < 2 {
		row = -1
	}
	wa, err := shifted(x, a, za, row)
	if err != nil {
		return nil, err
	}
	wb, err := shifted(x, b, zb, -1)
	if err != nil {
		return nil, err
	}
	return runMatMul[float64](x, nil, wa, wb)
}

// wholeProduct is MatMulInteger where its right operand is a matrix; ok is false elsewhere.
func wholeProduct(x *Exec, w *octetMatrix, in []*engine.Tensor) (t *engine.Tensor, ok bool, err error) {
	if len(in[1].Shape()) != 2 {
		return nil, false, nil
	}
	shape, err := matMulShapeOf(x, in[0], in[1])
	if err != nil {
		return nil, false, err
	}
	ok, err = octetProduct(x, w, in[0], arg(in, 2), in[1], arg(in, 3), shape, func(int) (*qgemm.Finish, error) {
		f := finishes.Get().(*qgemm.Finish)
		t, f.Sums, err = rawOf[int32](x, shape.Out...)
		return f, err
	})
	return t, ok, err
}

func buildMatMulInteger(b *builder) (Kernel, error) {
	b.result = []engine.DType{engine.Int32}
	w := matrixOf(b, 1)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if t, ok, err := wholeProduct(x, w, in); ok || err != nil {
			return x.one(t, err)
		}
		if y, ok, err := exactProducts(x, in[0], arg(in, 2), in[1], arg(in, 3)); err != nil {
			return nil, err
		} else if ok {
			return x.one(castTensor(x, y, engine.Int32, true))
		}
		y, err := integerMatMul(x, in[0], arg(in, 2), in[1], arg(in, 3))
		if err != nil {
			return nil, err
		}
		return x.one(castTensor(x, y, engine.Int32, true))
	}, nil
}

// requantised scales exact sums, by two factors and over a scale, adds the zero point and
// saturates.
func requantised(x *Exec, y *engine.Tensor, d engine.DType, a, b factors, over float64, zero *engine.Tensor) ([]*engine.Tensor, error) {
	z := 0.0
	if zero != nil {
		v, ok := x.float64s(zero)
		if !ok || len(v) != 1 {
			return nil, fmt.Errorf("a zero point of %s %v", zero.DType(), zero.Shape())
		}
		z = v[0]
	}
	v := engine.Data[float64](y)
	for i := range v {
		v[i] = math.RoundToEven(v[i]*(a.at(i)*b.at(i)/over)) + z
	}
	o, err := x.New(d, y.Shape()...)
	if err != nil {
		return nil, err
	}
	return x.one(o, storeFloats(o, saturated(d, v)))
}

// scalarOf is the only element of a tensor of numbers.
func scalarOf(t *engine.Tensor) (float64, error) {
	if t.Len() != 1 || t.DType() == engine.String || t.DType().IsList() {
		return 0, fmt.Errorf("%s %v where one number is needed", t.DType(), t.Shape())
	}
	var v [1]float64
	t.Widen(v[:])
	return v[0], nil
}

// buildQLinearMatMul takes a, its scale and zero point, b, its, and the result's.
func buildQLinearMatMul(b *builder) (Kernel, error) {
	b.result = []engine.DType{b.inType(7)}
	w := matrixOf(b, 3)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if t, ok, err := linearProduct(x, w, in); ok || err != nil {
			return x.one(t, err)
		}
		if t, ok, err := batchedProduct(x, in); ok || err != nil {
			return x.one(t, err)
		}
		y, err := integerMatMul(x, in[0], in[2], in[3], in[5])
		if err != nil {
			return nil, err
		}
		sy, err := scalarOf(in[6])
		if err != nil {
			return nil, err
		}
		rows, err := scaleFactors(x, in[1], y.Shape(), -2)
		if err != nil {
			return nil, err
		}
		cols, err := scaleFactors(x, in[4], y.Shape(), -1)
		if err != nil {
			return nil, err
		}
		return requantised(x, y, in[7].DType(), rows, cols, sy, in[7])
	}, nil
}

// factors are the scales of the elements of a result.
type factors struct {
	v      []float64
	places scalePlaces
}

func (f *factors) at(i int) float64 { return f.v[f.places.at(i)] }

func scaleFactors(x *Exec, scale *engine.Tensor, shape []int, axis int) (factors, error) {
	places, err := spread{axis: axis}.index(shape, scale)
	if err != nil {
		return factors{}, err
	}
	v, ok := x.float64s(scale)
	if !ok {
		return factors{}, typeError(scale)
	}
	return factors{v, places}, nil
}

// integerConv convolves integers exactly.
func integerConv(x *Exec, plain *Node, in []*engine.Tensor, t, weights, zx, zw, bias *engine.Tensor) (*engine.Tensor, error) {
	wx, err := shifted(x, t, zx, 1)
	if err != nil {
		return nil, err
	}
	ww, err := shifted(x, weights, zw, 0)
	if err != nil {
		return nil, err
	}
	c, err := convOf(x, plain, in, wx.Shape(), ww.Shape())
	if err != nil {
		return nil, err
	}
	if bias != nil {
		if bias, err = castTensor(x, bias, engine.Float64, true); err != nil {
			return nil, err
		}
	}
	operands := x.list(3)
	operands[0], operands[1], operands[2] = wx, ww, bias
	return convThen[float64](x, plain, c, operands, nil)
}

// plainConv is a node's convolution without the rest of it.
func plainConv(n *Node) *Node {
	plain := *n
	plain.Op = "Conv"
	return &plain
}

func convAttrs(b *builder) {
	for _, name := range []string{"kernel_shape", "strides", "dilations", "pads"} {
		b.attrs.ints(name)
	}
	b.attrs.string("auto_pad", "")
	b.attrs.int("group", 1)
}

func buildConvInteger(b *builder) (Kernel, error) {
	convAttrs(b)
	b.result = []engine.DType{engine.Int32}
	held, plain := filterOf(b, 1, 3), plainConv(b.node)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if t, ok, err := convOctets(x, b.node, held, in, in[0], arg(in, 2), in[1], arg(in, 3), func(_ int, shape []int) (*engine.Tensor, *qgemm.Finish, error) {
			f := finishes.Get().(*qgemm.Finish)
			t, sums, err := rawOf[int32](x, shape...)
			f.Sums = sums
			return t, f, err
		}); ok || err != nil {
			return x.one(t, err)
		}
		y, err := integerConv(x, plain, in, in[0], in[1], arg(in, 2), arg(in, 3), nil)
		if err != nil {
			return nil, err
		}
		return x.one(castTensor(x, y, engine.Int32, true))
	}, nil
}

// buildQLinearConv takes x, its scale and zero point, w, its, the result's, and a
// bias in units of the products.
func buildQLinearConv(b *builder) (Kernel, error) {
	convAttrs(b)
	b.result = []engine.DType{b.inType(7)}
	held, plain := filterOf(b, 3, 5), plainConv(b.node)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if t, ok, err := linearConv(x, b.node, held, in); ok || err != nil {
			return x.one(t, err)
		}
		y, err := integerConv(x, plain, in, in[0], in[3], in[2], in[5], arg(in, 8))
		if err != nil {
			return nil, err
		}
		sx, err := scaleFactors(x, in[1], y.Shape(), 0)
		if err != nil {
			return nil, err
		}
		if len(sx.v) != 1 {
			return nil, fmt.Errorf("%s %v where one number is needed", in[1].DType(), in[1].Shape())
		}
		sy, err := scalarOf(in[6])
		if err != nil {
			return nil, err
		}
		sw, err := scaleFactors(x, in[4], y.Shape(), 1)
		if err != nil {
			return nil, err
		}
		return requantised(x, y, in[7].DType(), sx, sw, sy, in[7])
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"QuantizeLinear":        {since: 10, minIn: 2, maxIn: 3, maxOut: 1, accept: numericTypes, result: fromBuilder, build: buildQuantize},
		"DequantizeLinear":      {since: 10, minIn: 2, maxIn: 3, maxOut: 1, result: fromBuilder, build: buildDequantize},
		"DynamicQuantizeLinear": {since: 11, minIn: 1, maxIn: 1, maxOut: 3, accept: floatTypes, result: fromBuilder, build: buildDynamicQuantize},
		"MatMulInteger":         {since: 10, minIn: 2, maxIn: 4, maxOut: 1, accept: intTypes, result: fromBuilder, build: buildMatMulInteger},
		"QLinearMatMul":         {since: 10, minIn: 8, maxIn: 8, maxOut: 1, result: fromBuilder, build: buildQLinearMatMul},
		"ConvInteger":           {since: 10, minIn: 2, maxIn: 4, maxOut: 1, accept: intTypes, result: fromBuilder, build: buildConvInteger},
		"QLinearConv":           {since: 10, minIn: 8, maxIn: 9, maxOut: 1, accept: intTypes, result: fromBuilder, build: buildQLinearConv},
	})
}
