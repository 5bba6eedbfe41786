// Package vector computes on slices of float32: arithmetic, activations and the
// loops of normalisations and of convolutions without a sum over channels, by
// AVX-512 or AVX2 where the processor has them and in plain Go elsewhere (other
// processors, and the build tags noasm and purego).
//
// Arithmetic, conversions, Max, Min, PRelu, Relu, Clip, Leaky, Above, Snap, Rounded, Abs, Sqrt, Reciprocal, Floor, Ceil, Round and Sign are exact: as Go has them, whatever the
// processor, but for the sign of a zero in Relu and Clip. The rest is within 3 units in the last place of
// the right value (of Erf's, Gelu's and CubicGate's terms, which may cancel: 2^-22 of their
// magnitude), where that, the sigmoid in Silu and exp in Mish is no denormal number; NaN gives NaN. The kernels for
// AVX-512 and AVX2 give the same bits but for sums, and an element's bits depend
// on that element only: a slice may be computed in any parts.
//
// dst may be one of the sources. Slices have the same length, or the functions
// panic.
package vector

import (
	"math"
	"sync"
)

// Op is an operation on two operands.
type Op int

// The operations. Max and Min are NaN where either is, and tell zeros apart; PRelu is the first
// operand, times the second where it is below 0.
const (
	Add Op = iota
	Sub
	Mul
	Div
	Max
	Min
	PRelu
)

func binaryGo(op Op, dst, a, b []float32, stepA, stepB int) {
	ia, ib := 0, 0
	for i := range dst {
		x, y := a[ia], b[ib]
		switch op {
		case Add:
			dst[i] = x + y
		case Sub:
			dst[i] = x - y
		case Mul:
			dst[i] = x * y
		case Div:
			dst[i] = x / y
		case Max:
			dst[i] = max(x, y)
		case Min:
			dst[i] = min(x, y)
		default:
			if x < 0 {
				x *= y
			}
			dst[i] = x
		}
		ia += stepA
		ib += stepB
	}
}

// Binary is dst = a op b, where a slice of one element stands for any number.
func Binary(op Op, dst, a, b []float32) {
	n := len(dst)
	if len(a) != n && len(a) != 1 || len(b) != n && len(b) != 1 {
		panic("vector: operands of different lengths")
	}
	if n == 0 {
		return
	}
	if kernels == nil || n < fewElements {
		binaryGo(op, dst, a, b, min(len(a)-1, 1), min(len(b)-1, 1))
		return
	}
	repeated := len(a) != n || len(b) != n
	if !repeated {
		kernels.binary[op](&dst[0], &a[0], &b[0], n, kernels.bytes(), kernels.bytes())
		return
	}
	sc := borrow()
	defer sc.release()
	all := &sc.all
	one, many := a, b
	if len(a) == n {
		one, many = b, a
	}
	for i := range all[:kernels.lanes] {
		all[i] = one[0]
	}
	switch {
	case len(many) != n: // both are of one element
		binaryGo(op, dst, a, b, 0, 0)
	case len(a) == n:
		kernels.binary[op](&dst[0], &a[0], &all[0], n, kernels.bytes(), 0)
	default:
		kernels.binary[op](&dst[0], &all[0], &b[0], n, 0, kernels.bytes())
	}
}

const maxLanes = 16

// fewElements are faster without kernels, to the same bits.
const fewElements = 4

// scratch is what kernels read from or write to beside the slices. They are called
// through variables, which would move it from the stack to the heap each time.
type scratch struct {
	all      [maxLanes]float32
	parts    [maxLanes / 2]float64
	function Function
	offsets  [fewRuns]int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func borrow() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) release() { scratches.Put(s) }

func (k *machine) bytes() int { return 4 * k.lanes }

// machine is what a processor has.
type machine struct {
	lanes  int
	binary [PRelu + 1]func(dst, a, b *float32, n, stepA, stepB int)
	unary  [unaries]func(dst, src, p *float32, n int)
	norm   func(dst, src, scale, bias, p *float32, n int)
	lstm   func(gates, c, h *float32, n int)
	gru    func(gates, inner, h *float32, n int)
	// halves are by precision.
	halves [2]halves
	sum    func(src *float32, n int, mean float64, to *float64)
	// squares is the sum of (v - mean)^2.
	squares func(src *float32, n int, mean float64, to *float64)
	largest func(src *float32, n int, to *float32)
	// columns add what lies below each other.
	columns, columnSquares func(to *float64, src *float32, mean *float64, n int)
	tapSum, tapMost        func(dst, src, weights *float32, offsets *int, taps, n int, start *float32)
	blend                  func(dst, src, weights *float32, places *int32, taps, n int)
	normRows               func(dst, src, scale, bias *float32, p *float64, means, invs *float32, step, n, rows int)
	fewColumns             func(dst, src, tables *float32, k, groups, in, out int)
}

// Function is a function of one element, with its parameters.
type Function struct {
	kind   unary
	params [5]float32
}

type unary int

const (
	relu unary = iota
	clip
	affine
	affineClip
	gate
	snap
	exp
	sigmoid
	silu
	tanh
	erf
	gelu
	toHalf
	toBrain
	cubicGate
	leaky
	softplus
	elu
	mish
	absolute
	sqrt
	reciprocal
	floor
	ceil
	round
	sign
	logarithm
	sine
	cosine
	softsign
	above
	unaries
)

// The functions without parameters.
var (
	// Relu is 0 for what is below 0.
	Relu = &Function{kind: relu}
	// Exponential is exp(v).
	Exponential = &Function{kind: exp}
	// Sigmoid is 1/(1+exp(-v)).
	Sigmoid = &Function{kind: sigmoid}
	// Silu is v sigmoid(v).
	Silu = &Function{kind: silu}
	// Tanh is the hyperbolic tangent.
	Tanh = &Function{kind: tanh}
	// Erf is the error function.
	Erf = &Function{kind: erf}
	// Gelu is v/2 (1 + erf(v/sqrt(2))).
	Gelu = &Function{kind: gelu}
	// Softplus is log(1+exp(v)).
	Softplus = &Function{kind: softplus}
	// Mish is v tanh(log(1+exp(v))).
	Mish = &Function{kind: mish}
	// Abs, Sqrt, Reciprocal, Floor, Ceil, Round (ties to even) and Sign (of 0 and NaN itself).
	Abs        = &Function{kind: absolute}
	Sqrt       = &Function{kind: sqrt}
	Reciprocal = &Function{kind: reciprocal}
	Floor      = &Function{kind: floor}
	Ceil       = &Function{kind: ceil}
	Round      = &Function{kind: round}
	Sign       = &Function{kind: sign}
	// Log is the natural logarithm.
	Log = &Function{kind: logarithm}
	// Sin and Cos are of radians.
	Sin = &Function{kind: sine}
	Cos = &Function{kind: cosine}
	// Softsign is v/(1+|v|).
	Softsign = &Function{kind: softsign}
)

// Above is v where it is above threshold, else 0.
func Above(threshold float32) *Function { return &Function{above, [5]float32{threshold}} }

// Clip is v between low and high, neither of which is NaN.
func Clip(low, high float32) *Function { return &Function{clip, [5]float32{low, high}} }

// Affine is v scale + shift, rounded once.
func Affine(scale, shift float32) *Function { return &Function{affine, [5]float32{scale, shift}} }

// AffineClip is v scale + shift between low and high.
func AffineClip(scale, shift, low, high float32) *Function {
	return &Function{affineClip, [5]float32{scale, shift, low, high}}
}

// Gate is v times what AffineClip is, times factor.
func Gate(scale, shift, low, high, factor float32) *Function {
	return &Function{gate, [5]float32{scale, shift, low, high, factor}}
}

// CubicGate is v sigmoid(v (a + b v^2)). With a = 2 sqrt(2/pi) and b = 0.044715 a it is
// GELU's approximation v/2 (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3))).
func CubicGate(a, b float32) *Function { return &Function{cubicGate, [5]float32{a, b}} }

// Leaky is v, times slope where it is below 0.
func Leaky(slope float32) *Function { return &Function{leaky, [5]float32{slope}} }

// Elu is scale (exp(v inner) - 1) where v is below 0, and v factor elsewhere: ELU with inner and
// factor 1, CELU with inner 1/scale, SELU with a factor.
func Elu(scale, inner, factor float32) *Function {
	return &Function{elu, [5]float32{scale, inner, factor}}
}

// Snap is the multiple of scale next to v, ties to even, from low to high times scale:
// what is left of v once it was kept in few bits.
func Snap(scale, low, high float32) *Function { return &Function{snap, [5]float32{scale, low, high}} }

// NotBelow reports whether f gives for what lies below 0 what it gives for 0.
func (f *Function) NotBelow() bool { return f.kind == snap && f.params[1] == 0 }

// Bounds returns what the function keeps its argument between, ok where it does only
// that.
func (f *Function) Bounds() (low, high float32, ok bool) {
	switch f.kind {
	case relu:
		return 0, float32(math.Inf(1)), true
	case clip:
		return f.params[0], f.params[1], true
	}
	return 0, 0, false
}

// Exp is dst = exp(src - top), element by element.
func Exp(dst, src []float32, top float32) {
	s := borrow()
	s.function = Function{exp, [5]float32{top}}
	s.function.Apply(dst, src)
	s.release()
}

// Softmax is dst = exp(src - the largest of it), over the sum of that: Exp, Sum and Scale,
// which for short rows would take as long to borrow as to compute.
func Softmax(dst, src []float32) {
	s := borrow()
	s.function = Function{exp, [5]float32{s.largest(src)}}
	s.function.Apply(dst, src)
	s.function = Function{affine, [5]float32{float32(1 / s.sum(dst))}}
	s.function.Apply(dst, dst)
	s.release()
}

// LogSoftmax is the logarithm of Softmax, which has room for as many elements to work in.
func LogSoftmax(dst, src, room []float32) {
	s := borrow()
	s.function = Function{affine, [5]float32{1, -s.largest(src)}}
	s.function.Apply(dst, src)
	s.function = Function{exp, [5]float32{}}
	s.function.Apply(room[:len(src)], dst)
	s.function = Function{affine, [5]float32{1, float32(-math.Log(s.sum(room[:len(src)])))}}
	s.function.Apply(dst, dst)
	s.release()
}

// Scale is dst = src factor + shift, element by element, each rounded once.
func Scale(dst, src []float32, factor, shift float32) {
	s := borrow()
	s.function = Function{affine, [5]float32{factor, shift}}
	s.function.Apply(dst, src)
	s.release()
}

// Add is dst = f(src + shift), element by element.
func (f *Function) Add(dst, src []float32, shift float32) {
	s := borrow()
	defer s.release()
	switch f.kind {
	case relu:
		s.function = Function{affineClip, [5]float32{1, shift, 0, float32(math.Inf(1))}}
	case clip:
		s.function = Function{affineClip, [5]float32{1, shift, f.params[0], f.params[1]}}
	default:
		s.function = Function{affine, [5]float32{1, shift}}
		s.function.Apply(dst, src)
		f.Apply(dst, dst)
		return
	}
	s.function.Apply(dst, src)
}

// Apply is dst = f(src), element by element.
func (f *Function) Apply(dst, src []float32) {
	if len(dst) != len(src) {
		panic("vector: slices of different lengths")
	}
	if len(dst) == 0 {
		return
	}
	switch {
	case f.kind == power:
		f.power(dst, src)
	case kernels == nil:
		for i, v := range src {
			dst[i] = float32(f.of(float64(v)))
		}
	case f.kind == sine || f.kind == cosine:
		f.circular(dst, src)
	default:
		kernels.unary[f.kind](&dst[0], &src[0], &f.params[0], len(dst))
	}
}

// circular leaves to plain Go what is too far from 0 for the kernels.
func (f *Function) circular(dst, src []float32) {
	const farthest = 1 << 16
	for len(src) > 0 {
		near := 0
		for near < len(src) && math.Float32bits(src[near])&(1<<31-1) <= math.Float32bits(farthest) {
			near++
		}
		if near > 0 {
			kernels.unary[f.kind](&dst[0], &src[0], &f.params[0], near)
		}
		if near < len(src) {
			dst[near] = float32(f.of(float64(src[near])))
			near++
		}
		dst, src = dst[near:], src[near:]
	}
}

// of is the function in plain Go.
func (f *Function) of(v float64) float64 {
	var p [5]float64
	for i, e := range f.params {
		p[i] = float64(e)
	}
	switch f.kind {
	case power:
		return math.Pow(v, p[0])
	case relu:
		if v < 0 {
			return 0
		}
		return v
	case clip:
		return min(max(v, p[0]), p[1])
	case affine:
		return v*p[0] + p[1]
	case affineClip:
		return min(max(v*p[0]+p[1], p[2]), p[3])
	case gate:
		return v * min(max(v*p[0]+p[1], p[2]), p[3]) * p[4]
	case snap:
		q := float32(v) / f.params[0]
		if q == q {
			q = min(max(q, f.params[1]), f.params[2])
		}
		return float64(((q + 3<<22) - 3<<22) * f.params[0])
	case exp:
		return math.Exp(v - p[0])
	case sigmoid:
		return 1 / (1 + math.Exp(-v))
	case silu:
		return v / (1 + math.Exp(-v))
	case tanh:
		return math.Tanh(v)
	case erf:
		return math.Erf(v)
	case toHalf:
		return float64(Half.Value(Half.Bits(float32(v))))
	case toBrain:
		return float64(Brain.Value(Brain.Bits(float32(v))))
	case cubicGate:
		return v / (1 + math.Exp(-v*(p[0]+p[1]*v*v)))
	case leaky:
		if v < 0 {
			return v * p[0]
		}
		return v
	case softplus:
		return max(v, 0) + math.Log1p(math.Exp(-math.Abs(v)))
	case elu:
		if v < 0 {
			return p[0] * math.Expm1(p[1]*v)
		}
		return v * p[2]
	case absolute:
		return math.Abs(v)
	case sqrt:
		return math.Sqrt(v)
	case reciprocal:
		return 1 / v
	case floor:
		return math.Floor(v)
	case ceil:
		return math.Ceil(v)
	case round:
		return math.RoundToEven(v)
	case sign:
		if v == 0 || v != v {
			return v
		}
		return math.Copysign(1, v)
	case logarithm:
		return math.Log(v)
	case sine:
		return math.Sin(v)
	case cosine:
		return math.Cos(v)
	case softsign:
		return v / (1 + math.Abs(v))
	case above:
		if v > p[0] {
			return v
		}
		return 0
	case mish:
		return v * math.Tanh(max(v, 0)+math.Log1p(math.Exp(-math.Abs(v))))
	default:
		return v / 2 * (1 + math.Erf(v/math.Sqrt2))
	}
}

// Norm is dst = (src - mean) inv scale + bias.
func Norm(dst, src, scale, bias []float32, mean, inv float32) {
	n := len(dst)
	if len(src) != n || len(scale) != n || len(bias) != n {
		panic("vector: slices of different lengths")
	}
	if n == 0 {
		return
	}
	if kernels != nil {
		s := borrow()
		s.all[0], s.all[1] = mean, inv
		kernels.norm(&dst[0], &src[0], &scale[0], &bias[0], &s.all[0], n)
		s.release()
		return
	}
	for i, v := range src {
		dst[i] = float32((float64(v)-float64(mean))*float64(inv)*float64(scale[i]) + float64(bias[i]))
	}
}

// LSTM takes a step of n cells: gates holds what goes into the input, the output and the
// forget gate and into the candidate, n of each; c is the state and h what is shown of it.
func LSTM(gates, c, h []float32) {
	n := len(c)
	if len(gates) != 4*n || len(h) != n {
		panic("vector: slices of different lengths")
	}
	if n == 0 {
		return
	}
	if kernels != nil {
		kernels.lstm(&gates[0], &c[0], &h[0], n)
		return
	}
	gate := func(i, at int) float32 { return float32(Sigmoid.of(float64(gates[at*n+i]))) }
	for i := range c {
		c[i] = c[i]*gate(i, 2) + gate(i, 0)*float32(math.Tanh(float64(gates[3*n+i])))
		h[i] = gate(i, 1) * float32(math.Tanh(float64(c[i])))
	}
}

// GRU takes a step of n cells: gates holds what goes into the update and the reset gate
// and, of the input alone, into the candidate, n of each; inner is what the state adds to
// the candidate where the reset gate lets it, h is the state.
func GRU(gates, inner, h []float32) {
	n := len(h)
	if len(gates) != 3*n || len(inner) != n {
		panic("vector: slices of different lengths")
	}
	if n == 0 {
		return
	}
	if kernels != nil {
		kernels.gru(&gates[0], &inner[0], &h[0], n)
		return
	}
	for i, was := range h {
		reset := Sigmoid.of(float64(gates[n+i]))
		y := math.Tanh(float64(gates[2*n+i]) + reset*float64(inner[i]))
		h[i] = float32(y + Sigmoid.of(float64(gates[i]))*(float64(was)-y))
	}
}

// Sum returns the sum of v, computed in float64.
func Sum(v []float32) float64 {
	s := borrow()
	defer s.release()
	return s.sum(v)
}

func (s *scratch) sum(v []float32) float64 {
	whole, sum := 0, 0.0
	if kernels != nil {
		if whole = len(v) / kernels.lanes * kernels.lanes; whole > 0 {
			kernels.sum(&v[0], whole, 0, &s.parts[0])
			for _, p := range s.parts[:kernels.lanes/2] {
				sum += p
			}
		}
	}
	for _, e := range v[whole:] {
		sum += float64(e)
	}
	return sum
}

// Squares returns the sum of the squared distances from mean, computed in float64.
func Squares(v []float32, mean float64) float64 {
	whole, sum := 0, 0.0
	if kernels != nil {
		if whole = len(v) / kernels.lanes * kernels.lanes; whole > 0 {
			s := borrow()
			kernels.squares(&v[0], whole, mean, &s.parts[0])
			for _, p := range s.parts[:kernels.lanes/2] {
				sum += p
			}
			s.release()
		}
	}
	for _, e := range v[whole:] {
		sum += (float64(e) - mean) * (float64(e) - mean)
	}
	return sum
}

// SumColumns adds v to sums, element by element, in float64.
func SumColumns(sums []float64, v []float32) {
	if len(sums) != len(v) {
		panic("vector: slices of different lengths")
	}
	whole := 0
	if kernels != nil {
		if whole = len(v) / kernels.lanes * kernels.lanes; whole > 0 {
			kernels.columns(&sums[0], &v[0], nil, whole)
		}
	}
	for i, e := range v[whole:] {
		sums[whole+i] += float64(e)
	}
}

// SquareColumns adds the squared distances of v from means to sums, element by element,
// in float64.
func SquareColumns(sums []float64, v []float32, means []float64) {
	if len(sums) != len(v) || len(means) != len(v) {
		panic("vector: slices of different lengths")
	}
	whole := 0
	if kernels != nil {
		if whole = len(v) / kernels.lanes * kernels.lanes; whole > 0 {
			kernels.columnSquares(&sums[0], &v[0], &means[0], whole)
		}
	}
	for i, e := range v[whole:] {
		d := float64(e) - means[whole+i]
		sums[whole+i] += d * d
	}
}

// Largest returns the largest element but for NaN, which may be passed over; -Inf
// of nothing.
func Largest(v []float32) float32 {
	s := borrow()
	defer s.release()
	return s.largest(v)
}

func (s *scratch) largest(v []float32) float32 {
	top := float32(math.Inf(-1))
	if kernels != nil && len(v) > 0 {
		kernels.largest(&v[0], len(v), &s.all[0])
		return s.all[0]
	}
	for _, e := range v {
		if e > top {
			top = e
		}
	}
	return top
}

// Taps is dst[i] = start + the sum of weights[t] src[i+offsets[t]], in the order of
// the taps.
func Taps(dst, src, weights []float32, offsets []int, start float32) {
	if len(weights) != len(offsets) {
		panic("vector: weights and offsets of different lengths")
	}
	if !fits(dst, src, offsets) {
		return
	}
	if kernels != nil {
		s := borrow()
		s.all[0] = start
		kernels.tapSum(&dst[0], &src[0], &weights[0], &offsets[0], len(offsets), len(dst), &s.all[0])
		s.release()
		return
	}
	for i := range dst {
		sum := start
		for t, o := range offsets {
			sum += weights[t] * src[i+o]
		}
		dst[i] = sum
	}
}

// Most is dst[i] = the largest of start and src[i+offsets[t]], NaN where one is.
func Most(dst, src []float32, offsets []int, start float32) {
	if !fits(dst, src, offsets) {
		return
	}
	if kernels != nil {
		s := borrow()
		s.all[0] = start
		kernels.tapMost(&dst[0], &src[0], &s.all[0], &offsets[0], len(offsets), len(dst), &s.all[0])
		s.release()
		return
	}
	for i := range dst {
		top := start
		for _, o := range offsets {
			top = max(top, src[i+o])
		}
		dst[i] = top
	}
}

// fits reports whether there is something to do, and panics where taps would lie
// outside of src.
func fits(dst, src []float32, offsets []int) bool {
	if len(dst) == 0 {
		return false
	}
	if len(offsets) == 0 {
		panic("vector: no taps")
	}
	for _, o := range offsets {
		if o < 0 || o > len(src)-len(dst) {
			panic("vector: a tap outside of the source")
		}
	}
	return true
}
