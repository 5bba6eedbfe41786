package graph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

type signed interface {
	int8 | int16 | int32 | int64
}

type unsigned interface {
	uint8 | uint16 | uint32 | uint64
}

type float interface{ float32 | float64 }

type number interface{ signed | unsigned | float }

// BroadcastShape returns the shape of a and b under NumPy's rules.
func BroadcastShape(a, b []int) ([]int, error) {
	if len(a) < len(b) {
		a, b = b, a
	}
	return broadcastOnto(slices.Clone(a), a, b)
}

// broadcast is BroadcastShape as ints has it.
func (x *Exec) broadcast(a, b []int) ([]int, error) {
	if len(a) < len(b) {
		a, b = b, a
	}
	return broadcastOnto(x.shaped(a), a, b)
}

// broadcastOnto is BroadcastShape onto out, a copy of a, which has no fewer dimensions than b.
func broadcastOnto(out, a, b []int) ([]int, error) {
	off := len(a) - len(b)
	for i, d := range b {
		switch {
		case out[off+i] == d || d == 1:
		case out[off+i] == 1:
			out[off+i] = d
		default:
			return nil, misfit("shapes %v and %v cannot be broadcast", a, b)
		}
	}
	return out, nil
}

// strides returns the row-major strides of shape, 0 where a dimension of 1 is
// repeated to reach out's.
func broadcastStrides(shape, out []int) []int {
	s := make([]int, len(out))
	step := 1
	for i := len(shape) - 1; i >= 0; i-- {
		o := i + len(out) - len(shape)
		if shape[i] != 1 {
			s[o] = step
		}
		step *= shape[i]
	}
	return s
}

func rowMajor(shape []int) []int {
	s := make([]int, len(shape))
	step := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = step
		step *= shape[i]
	}
	return s
}

// pairWalk visits the runs of an output of the given shape: f gets the output's
// offset, the two operands' offsets, the run's length, and the operands' steps
// in it.
func pairWalk(shape, a, b []int, f func(o, ia, ib, n, sa, sb int)) {
	pairRows(shape, a, b, func(o, ia, ib int, r rows) {
		for range r.count {
			f(o, ia, ib, r.n, r.a.step, r.b.step)
			o, ia, ib = o+r.n, ia+r.a.stride, ib+r.b.stride
		}
	})
}

// rows are runs of n elements that follow each other in an output.
type rows struct {
	count, n int
	a, b     side
}

// side is how an operand goes along with rows: by stride from each to the next, by step in
// them. What is broadcast has 0; else step is 1 and stride n, or 1 where step is 0.
type side struct{ stride, step int }

// pairRows is pairWalk that visits as many runs at once as are evenly spaced.
func pairRows(shape, a, b []int, f func(o, ia, ib int, r rows)) {
	var few [4][fewDimensions]int
	var sa, sb, index []int
	if len(shape) > len(few[0]) {
		sa, sb = broadcastStrides(a, shape), broadcastStrides(b, shape)
		shape, sa, sb = collapse(shape, sa, sb)
		index = make([]int, len(shape))
	} else {
		strideInto(few[0][:len(shape)], a)
		strideInto(few[1][:len(shape)], b)
		n := collapsed(few[2][:], few[0][:], few[1][:], shape)
		shape, sa, sb, index = few[2][:n], few[0][:n], few[1][:n], few[3][:n]
	}
	last := len(shape) - 1
	r := rows{count: 1, n: shape[last], a: side{step: sa[last]}, b: side{step: sb[last]}}
	if last > 0 {
		r.count, r.a.stride, r.b.stride = shape[last-1], sa[last-1], sb[last-1]
	}
	total := 1
	for _, d := range shape {
		total *= d
	}
	if total == 0 {
		return
	}
	ia, ib := 0, 0
	for o := 0; ; o += r.count * r.n {
		f(o, ia, ib, r)
		k := last - 2
		for ; k >= 0; k-- {
			index[k]++
			ia += sa[k]
			ib += sb[k]
			if index[k] < shape[k] {
				break
			}
			ia -= sa[k] * shape[k]
			ib -= sb[k] * shape[k]
			index[k] = 0
		}
		if k < 0 {
			return
		}
	}
}

// fewDimensions are walked without lists made for them.
const fewDimensions = 8

// strideInto is broadcastStrides into s, as long as the output's shape.
func strideInto(s, shape []int) {
	step, off := 1, len(s)-len(shape)
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] != 1 {
			s[off+i] = step
		}
		step *= shape[i]
	}
}

// collapsed is collapse into s, a and b, the last two of which hold the strides; it returns
// how many dimensions are left.
func collapsed(s, a, b, shape []int) int {
	k := 0
	for i, d := range shape {
		if d == 1 {
			continue
		}
		if k > 0 && a[k-1] == a[i]*d && b[k-1] == b[i]*d {
			s[k-1], a[k-1], b[k-1] = s[k-1]*d, a[i], b[i]
			continue
		}
		s[k], a[k], b[k] = d, a[i], b[i]
		k++
	}
	if k == 0 {
		s[0], a[0], b[0] = 1, 0, 0
		k = 1
	}
	return k
}

// collapse merges neighbouring dimensions that both operands walk evenly, so
// that runs are long.
func collapse(shape, sa, sb []int) (s, a, b []int) {
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] == 1 {
			continue
		}
		if k := len(s) - 1; k >= 0 && sa[i] == a[k]*s[k] && sb[i] == b[k]*s[k] {
			s[k] *= shape[i]
			continue
		}
		s, a, b = append(s, shape[i]), append(a, sa[i]), append(b, sb[i])
	}
	if len(s) == 0 {
		return []int{1}, []int{0}, []int{0}
	}
	slices.Reverse(s)
	slices.Reverse(a)
	slices.Reverse(b)
	return s, a, b
}

// zip applies f to two broadcast operands.
func zip[T, R engine.Element](x *Exec, a, b *engine.Tensor, f func(T, T) R) (*engine.Tensor, error) {
	shape, err := x.broadcast(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	da, db := engine.Data[T](a), engine.Data[T](b)
	if da == nil && a.Len() > 0 || db == nil && b.Len() > 0 {
		return nil, fmt.Errorf("operands of types %s and %s", a.DType(), b.DType())
	}
	t, out, err := newOf[R](x, shape...)
	if err != nil {
		return nil, err
	}
	pairWalk(shape, a.Shape(), b.Shape(), func(o, ia, ib, n, sa, sb int) {
		dst := out[o : o+n]
		for i := range dst {
			dst[i] = f(da[ia], db[ib])
			ia += sa
			ib += sb
		}
	})
	return t, nil
}

// apply maps f over the elements.
func apply[T, R engine.Element](x *Exec, a *engine.Tensor, f func(T) R) (*engine.Tensor, error) {
	t, out, err := newOf[R](x, a.Shape()...)
	if err != nil {
		return nil, err
	}
	for i, v := range engine.Data[T](a) {
		out[i] = f(v)
	}
	return t, nil
}

// floatMap is the kernel of a function of one float.
func floatMap(f func(float64) float64) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) { return x.one(mapFloats(x, in[0], f)) }
}

func mapFloats(x *Exec, t *engine.Tensor, f func(float64) float64) (*engine.Tensor, error) {
	switch t.DType() {
	case engine.Float32:
		o, out, err := newOf[float32](x, t.Shape()...)
		if err != nil {
			return nil, err
		}
		for i, v := range engine.Data[float32](t) {
			out[i] = float32(f(float64(v)))
		}
		return o, nil
	case engine.Float64:
		return apply(x, t, f)
	}
	return nil, typeError(t)
}

// applying is a function over elements.
type applying struct {
	f        *vector.Function
	out, src []float32
}

func (w *applying) part(from, to int) { w.f.Apply(w.out[from:to], w.src[from:to]) }

// quickMap is floatMap whose float32 elements go through a kernel.
func quickMap(f func(float64) float64, quick *vector.Function) Kernel {
	plain := floatMap(f)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if quick == nil || in[0].DType() != engine.Float32 {
			return plain(x, in)
		}
		return x.one(quickly(x, in[0], quick))
	}
}

// quickly applies a kernel to float32 elements.
func quickly(x *Exec, t *engine.Tensor, quick *vector.Function) (*engine.Tensor, error) {
	o, out, err := overOf(x, t)
	if err != nil {
		return nil, err
	}
	src := engine.Data[float32](t)
	if x.threads < 2 || len(src) < 2*leastPart {
		quick.Apply(out, src)
		return o, nil
	}
	share(x, x.inParts(len(src)), len(src), applying{quick, out, src})
	return o, nil
}

func unary(f func(float64) float64) opDef {
	return opDef{since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(*builder) (Kernel, error) {
		return floatMap(f), nil
	}}
}

// quickUnary is unary with a kernel for float32.
func quickUnary(f func(float64) float64, quick *vector.Function) opDef {
	return opDef{since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(*builder) (Kernel, error) {
		return quickMap(f, quick), nil
	}}
}

// arithmetic holds one function for every number type.
type arithmetic int

const (
	opAdd arithmetic = iota
	opSub
	opMul
	opDiv
	opMax
	opMin
	opMod
	opFmod
)

var errDivideByZero = errors.New("integer division by zero")

func arithmeticInt[T signed | unsigned](op arithmetic) func(a, b T) T {
	switch op {
	case opAdd:
		return func(a, b T) T { return a + b }
	case opSub:
		return func(a, b T) T { return a - b }
	case opMul:
		return func(a, b T) T { return a * b }
	case opDiv:
		return func(a, b T) T { return a / b }
	case opMax:
		return func(a, b T) T { return max(a, b) }
	case opMin:
		return func(a, b T) T { return min(a, b) }
	case opFmod:
		return func(a, b T) T { return a % b }
	}
	// Mod takes the sign of the divisor, as Python does.
	return func(a, b T) T {
		m := a % b
		if m != 0 && (m < 0) != (b < 0) {
			m += b
		}
		return m
	}
}

func arithmeticFloat[T float](op arithmetic) func(a, b T) T {
	switch op {
	case opAdd:
		return func(a, b T) T { return a + b }
	case opSub:
		return func(a, b T) T { return a - b }
	case opMul:
		return func(a, b T) T { return a * b }
	case opDiv:
		return func(a, b T) T { return a / b }
	case opMax:
		return func(a, b T) T { return max(a, b) } // NaN if either is
	case opMin:
		return func(a, b T) T { return min(a, b) }
	case opFmod:
		return func(a, b T) T { return T(math.Mod(float64(a), float64(b))) }
	}
	return func(a, b T) T { return T(floorMod(float64(a), float64(b))) }
}

// zipped is a function of two operands that broadcast. What is generic makes an object of a
// function that it gives out, and so such are made once, in lists by element type.
type zipped func(x *Exec, a, b *engine.Tensor) (*engine.Tensor, error)

func zippedOf[T, R engine.Element](f func(T, T) R) zipped {
	return func(x *Exec, a, b *engine.Tensor) (*engine.Tensor, error) { return zip(x, a, b, f) }
}

func zippedInt[T signed | unsigned](op arithmetic) zipped {
	if loop := sums[T](op); loop != nil {
		return loop
	}
	f := arithmeticInt[T](op)
	return func(x *Exec, a, b *engine.Tensor) (*engine.Tensor, error) {
		if op == opDiv || op == opMod || op == opFmod {
			if slices.Contains(engine.Data[T](b), 0) {
				return nil, errDivideByZero
			}
		}
		return zip(x, a, b, f)
	}
}

func zippedFloat(op arithmetic) zipped {
	if loop := sums[float64](op); loop != nil {
		return loop
	}
	return zippedOf(arithmeticFloat[float64](op))
}

// by applies the list's function for the first operand's type.
func by(list []zipped, x *Exec, a, b *engine.Tensor) (*engine.Tensor, error) {
	d := int(a.DType())
	if d >= len(list) || list[d] == nil {
		return nil, typeError(a)
	}
	return list[d](x, a, b)
}

func arithmeticsOf(op arithmetic) []zipped {
	return []zipped{
		engine.Float32: zippedOf(arithmeticFloat[float32](op)), engine.Float64: zippedFloat(op),
		engine.Int64: zippedInt[int64](op), engine.Int32: zippedInt[int32](op), engine.Int16: zippedInt[int16](op), engine.Int8: zippedInt[int8](op),
		engine.Uint64: zippedInt[uint64](op), engine.Uint32: zippedInt[uint32](op), engine.Uint16: zippedInt[uint16](op), engine.Uint8: zippedInt[uint8](op),
	}
}

var arithmetics = [...][]zipped{
	opAdd: arithmeticsOf(opAdd), opSub: arithmeticsOf(opSub), opMul: arithmeticsOf(opMul), opDiv: arithmeticsOf(opDiv),
	opMax: arithmeticsOf(opMax), opMin: arithmeticsOf(opMin), opMod: arithmeticsOf(opMod), opFmod: arithmeticsOf(opFmod),
}

func zipArithmetic(x *Exec, a, b *engine.Tensor, op arithmetic) (*engine.Tensor, error) {
	if op <= opMin && a.DType() == engine.Float32 && b.DType() == engine.Float32 {
		return zipVector(x, a, b, vectorOps[op])
	}
	return by(arithmetics[op], x, a, b)
}

// vectorOps are the kernels' names of what they have.
var vectorOps = [...]vector.Op{opAdd: vector.Add, opSub: vector.Sub, opMul: vector.Mul, opDiv: vector.Div, opMax: vector.Max, opMin: vector.Min}

// zipVector is zip by the kernels, run by run.
func zipVector(x *Exec, a, b *engine.Tensor, op vector.Op) (*engine.Tensor, error) {
	shape, err := x.broadcast(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	var t *engine.Tensor
	var out []float32
	switch {
	case slices.Equal(shape, a.Shape()) && x.memory.ours(a):
		t, out, err = overOf(x, a)
	case slices.Equal(shape, b.Shape()) && x.memory.ours(b):
		t, out, err = overOf(x, b)
	default:
		t, out, err = rawOf[float32](x, shape...)
	}
	if err != nil {
		return nil, err
	}
	da, db := engine.Data[float32](a), engine.Data[float32](b)
	pairRows(shape, a.Shape(), b.Shape(), func(o, ia, ib int, r rows) {
		if r.count > 1 && r.n <= shortRun {
			shortRuns(op, out[o:o+r.count*r.n], da[ia:], db[ib:], r)
			return
		}
		n := r.n
		for range r.count {
			// Along the last dimension either operand is dense or repeated.
			if x.threads < 2 || n < 2*leastPart {
				vector.Binary(op, out[o:o+n], runOf(da, ia, 0, n, r.a.step), runOf(db, ib, 0, n, r.b.step))
			} else {
				zipParts(x, op, out[o:o+n], da[ia:], db[ib:], r)
			}
			o, ia, ib = o+n, ia+r.a.stride, ib+r.b.stride
		}
	})
	return t, nil
}

// zipParts computes a long run on several threads.
func zipParts(x *Exec, op vector.Op, out, a, b []float32, r rows) {
	share(x, x.inParts(len(out)), len(out), zipping{op, out, a, b, r.a.step, r.b.step})
}

// zipping is a long run of two operands, either dense or one element that is repeated.
type zipping struct {
	op           vector.Op
	out, a, b    []float32
	stepA, stepB int
}

func (w *zipping) part(from, to int) {
	vector.Binary(w.op, w.out[from:to], runOf(w.a, 0, from, to, w.stepA), runOf(w.b, 0, from, to, w.stepB))
}

// Runs up to shortRun are computed shortPiece elements at once, with what is broadcast
// written out: to call a kernel for each takes longer.
const (
	shortRun   = 48
	shortPiece = 2048
)

func shortRuns(op vector.Op, out, a, b []float32, r rows) {
	room := columnRooms.Get().(*columnRoom)
	_, v := room.of(2 * shortPiece)
	some := shortPiece / r.n
	for from := 0; from < r.count; from += some {
		to := min(from+some, r.count)
		vector.Binary(op, out[from*r.n:to*r.n], r.a.dense(v[:shortPiece], a, from, to, r.n), r.b.dense(v[shortPiece:], b, from, to, r.n))
	}
	columnRooms.Put(room)
}

// dense is an operand of rows from and up to to, of n elements each, in room where it is
// broadcast. A row that is repeated stays there from the first call, which has the most.
func (s side) dense(room, v []float32, from, to, n int) []float32 {
	room = room[:(to-from)*n]
	switch {
	case s.stride == 0 && s.step == 0:
		return v[:1]
	case s.step == 0:
		for i, e := range v[from:to] {
			row := room[i*n:][:n]
			for j := range row {
				row[j] = e
			}
		}
	case s.stride != 0:
		return v[from*n : to*n]
	case from == 0:
		for i := copy(room, v[:n]); i < len(room); {
			i += copy(room[i:], room[:i])
		}
	}
	return room
}

// runOf is elements from to to of the run at v[at], or the one that is repeated.
func runOf(v []float32, at, from, to, step int) []float32 {
	if step == 0 {
		return v[at : at+1]
	}
	return v[at+from : at+to]
}

// leastPart is how many elements a thread should have to be worth waking.
const leastPart = 1 << 15

// inParts is in how many parts to share n elements.
func (x *Exec) inParts(n int) int { return min(x.threads, n/leastPart) }

// inRows is in how many parts to share n rows of size elements, where each is computed alone
// and costs several times what its elements do in a loop of arithmetic.
func (x *Exec) inRows(n, size int) int {
	return int(min(float64(x.threads), float64(n), float64(n)*float64(size)/(leastPart/4)))
}

func binary(op arithmetic) opDef {
	return opDef{since: 7, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: func(b *builder) (Kernel, error) {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			return x.one(zipArithmetic(x, in[0], in[1], op))
		}, nil
	}}
}

// variadic folds its inputs from the left; mean divides by their number.
func variadic(op arithmetic, mean bool) opDef {
	accept := numericTypes
	if op == opAdd {
		accept = floatTypes
	}
	return opDef{since: 6, minIn: 1, maxIn: math.MaxInt32, maxOut: 1, accept: accept, half: true, build: func(*builder) (Kernel, error) {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			acc := in[0]
			var err error
			for i, t := range in[1:] {
				if t == nil {
					return nil, fmt.Errorf("input %d is left out", i+1)
				}
				if acc, err = zipArithmetic(x, acc, t, op); err != nil {
					return nil, err
				}
			}
			if mean {
				return scaleBy(x, acc, 1/float64(len(in)))
			}
			return x.one(acc, nil)
		}, nil
	}}
}

func scaleBy(x *Exec, t *engine.Tensor, f float64) ([]*engine.Tensor, error) {
	return x.one(mapFloats(x, t, func(v float64) float64 { return v * f }))
}

func buildMod(b *builder) (Kernel, error) {
	op := opMod
	if b.attrs.int("fmod", 0) == 1 {
		op = opFmod
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(zipArithmetic(x, in[0], in[1], op))
	}, nil
}

// buildPow: the result has the base's type, whatever the exponent's is.
func buildPow(b *builder) (Kernel, error) {
	quick := constantPower(b)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		a, b := in[0], in[1]
		if a.DType().IsInteger() && b.DType().IsInteger() {
			return x.one(zipAs(x, a, b, engine.Int64, intPow))
		}
		if quick != nil && a.DType() == engine.Float32 && len(b.Shape()) <= len(a.Shape()) {
			return x.one(quickly(x, a, quick))
		}
		return x.one(zipAs(x, a, b, engine.Float64, floatPow))
	}, nil
}

// constantPower is the function of a constant exponent that float32 has, nil of another.
func constantPower(b *builder) *vector.Function {
	if len(b.constants) < 2 || b.constants[1] == nil || b.constants[1].Len() != 1 {
		return nil
	}
	p, err := scalarOf(b.constants[1])
	if err != nil || float64(float32(p)) != p {
		return nil
	}
	return vector.Power(float32(p))
}

// zipAs applies f to two operands in another type, and gives the first one's.
func zipAs(x *Exec, a, b *engine.Tensor, d engine.DType, f zipped) (*engine.Tensor, error) {
	gives := x.gives(false)
	wa, err := castTensor(x, a, d, true)
	if err != nil {
		return nil, err
	}
	wb, err := castTensor(x, b, d, true)
	if err != nil {
		return nil, err
	}
	x.gives(gives && d == a.DType())
	out, err := f(x, wa, wb)
	if err != nil {
		return nil, err
	}
	x.gives(gives)
	return castTensor(x, out, a.DType(), true)
}

var floatPow = zippedOf(math.Pow)

var intPow = zippedOf(func(base, exp int64) int64 {
	if exp < 0 {
		return int64(math.Pow(float64(base), float64(exp)))
	}
	r := int64(1)
	for ; exp > 0; exp >>= 1 {
		if exp&1 == 1 {
			r *= base
		}
		base *= base
	}
	return r
})

func negAbs[T signed](x *Exec, t *engine.Tensor, op string) (*engine.Tensor, error) {
	return apply(x, t, func(v T) T {
		switch {
		case op == "Neg" || op == "Abs" && v < 0:
			return -v
		case op == "Abs":
			return v
		case v > 0: // Sign
			return 1
		case v < 0:
			return -1
		}
		return 0
	})
}

// signOp is Neg, Abs or Sign, which take integers too.
func signOp(op string, f func(float64) float64, accept typeSet) opDef {
	return opDef{since: 6, minIn: 1, maxIn: 1, maxOut: 1, accept: accept, half: true, build: func(*builder) (Kernel, error) {
		quick := vector.Abs
		switch op {
		case "Neg": // with a zero below 0 added, which leaves the sign of zeros
			quick = vector.Affine(-1, float32(math.Copysign(0, -1)))
		case "Sign":
			quick = vector.Sign
		}
		floats := quickMap(f, quick)
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			t := in[0]
			switch t.DType() {
			case engine.Int64:
				return x.one(negAbs[int64](x, t, op))
			case engine.Int32:
				return x.one(negAbs[int32](x, t, op))
			case engine.Int16:
				return x.one(negAbs[int16](x, t, op))
			case engine.Int8:
				return x.one(negAbs[int8](x, t, op))
			case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
				if op == "Abs" {
					return in[:1], nil
				}
				return x.one(signUnsigned(x, t))
			}
			return floats(x, in)
		}, nil
	}}
}

func signUnsigned(x *Exec, t *engine.Tensor) (*engine.Tensor, error) {
	switch t.DType() {
	case engine.Uint64:
		return apply(x, t, func(v uint64) uint64 { return min(v, 1) })
	case engine.Uint32:
		return apply(x, t, func(v uint32) uint32 { return min(v, 1) })
	case engine.Uint16:
		return apply(x, t, func(v uint16) uint16 { return min(v, 1) })
	}
	return apply(x, t, func(v uint8) uint8 { return min(v, 1) })
}

func sign(v float64) float64 {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return v // 0 or NaN
}

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

func softplus(v float64) float64 {
	if v > 0 {
		return v + math.Log1p(math.Exp(-v))
	}
	return math.Log1p(math.Exp(v))
}

// withAlpha is a function of one float with parameters from attributes.
func withAlpha(make func(r *attrReader) func(float64) float64) opDef {
	return opDef{since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(b *builder) (Kernel, error) {
		return floatMap(make(b.attrs)), nil
	}}
}

// withQuickAlpha is withAlpha of what has a kernel, where that is not nil.
func withQuickAlpha(make func(r *attrReader) (func(float64) float64, *vector.Function)) opDef {
	return opDef{since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(b *builder) (Kernel, error) {
		plain, quick := make(b.attrs)
		return quickMap(plain, quick), nil
	}}
}

func geluExact(v float64) float64 { return 0.5 * v * (1 + math.Erf(v/math.Sqrt2)) }

func geluTanh(v float64) float64 {
	return 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
}

func buildGelu(b *builder) (Kernel, error) {
	a := b.attrs.string("approximate", "none")
	quick, plain := geluFunction(a), geluExact
	if quick == nil {
		return nil, b.node.unsupported("approximate %q", a)
	}
	if a == "tanh" {
		plain = geluTanh
	}
	return quickMap(plain, quick), nil
}

// geluFunction is the kernel of a Gelu, nil where there is no such approximation.
func geluFunction(approximate string) *vector.Function {
	const a = 1.5957691216057308 // 2 sqrt(2/pi)
	switch approximate {
	case "", "none":
		return vector.Gelu
	case "tanh":
		return vector.CubicGate(a, 0.044715*a)
	}
	return nil
}

// buildPRelu multiplies what is below zero by a slope that broadcasts.
func buildPRelu(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		switch in[0].DType() {
		case engine.Float32:
			return x.one(zipVector(x, in[0], in[1], vector.PRelu))
		case engine.Float64:
			return x.one(zip(x, in[0], in[1], prelu[float64]))
		}
		return nil, typeError(in[0])
	}, nil
}

func prelu[T float](v, slope T) T {
	if v < 0 {
		return v * slope
	}
	return v
}

func relu[T number](x *Exec, t *engine.Tensor) (*engine.Tensor, error) {
	return apply(x, t, func(v T) T {
		if v < 0 {
			return 0
		}
		return v
	})
}

func buildRelu(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		switch in[0].DType() {
		case engine.Float32:
			return x.one(quickly(x, in[0], vector.Relu))
		case engine.Float64:
			return x.one(relu[float64](x, in[0]))
		case engine.Int64:
			return x.one(relu[int64](x, in[0]))
		case engine.Int32:
			return x.one(relu[int32](x, in[0]))
		case engine.Int16:
			return x.one(relu[int16](x, in[0]))
		case engine.Int8:
			return x.one(relu[int8](x, in[0]))
		}
		return nil, typeError(in[0])
	}, nil
}

// buildClip takes its bounds as attributes before version 11, as inputs since.
func buildClip(b *builder) (Kernel, error) {
	if b.version() >= 11 {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			t := in[0]
			if lo, hi, ok := clipBounds(in); ok {
				f := &scratchOf[vector.Function](x, 1)[0]
				*f = *vector.Clip(lo, hi)
				return x.one(quickly(x, t, f))
			}
			var err error
			for i, op := range [...]arithmetic{opMax, opMin} {
				bound := arg(in, i+1)
				if bound == nil {
					continue
				}
				if t, err = zipArithmetic(x, t, bound, op); err != nil {
					return nil, err
				}
			}
			return x.one(t, nil)
		}, nil
	}
	lo := b.attrs.float("min", math.Inf(-1))
	hi := b.attrs.float("max", math.Inf(1))
	return floatMap(func(v float64) float64 { return min(max(v, lo), hi) }), nil
}

// clipBounds are Clip's where a kernel takes them: in float32, and no NaN.
func clipBounds(in []*engine.Tensor) (lo, hi float32, ok bool) {
	bounds := [2]float32{float32(math.Inf(-1)), float32(math.Inf(1))}
	for i := range bounds {
		b := arg(in, i+1)
		if b == nil {
			continue
		}
		v := engine.Data[float32](b)
		if len(v) != 1 || len(b.Shape()) != 0 || v[0] != v[0] {
			return 0, 0, false
		}
		bounds[i] = v[0]
	}
	return bounds[0], bounds[1], in[0].DType() == engine.Float32
}

func compare(op string, since int) opDef {
	accept := numericTypes
	list := []zipped{
		engine.Float32: comparison[float32](op), engine.Float64: comparison[float64](op),
		engine.Int64: comparison[int64](op), engine.Int32: comparison[int32](op), engine.Int16: comparison[int16](op), engine.Int8: comparison[int8](op),
		engine.Uint64: comparison[uint64](op), engine.Uint32: comparison[uint32](op), engine.Uint16: comparison[uint16](op), engine.Uint8: comparison[uint8](op),
		engine.Bool: runsOf(equalRun[bool]), engine.String: runsOf(equalRun[string]),
	}
	if op == "Equal" {
		accept = anyType
	}
	return opDef{since: since, minIn: 2, maxIn: 2, maxOut: 1, accept: accept, result: isBool, half: true, build: func(*builder) (Kernel, error) {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			return x.one(by(list, x, in[0], in[1]))
		}, nil
	}}
}

func logical(f run[bool, bool]) opDef {
	runs := runsOf(f)
	return opDef{since: 7, minIn: 2, maxIn: 2, maxOut: 1, accept: boolType, result: isBool, build: func(*builder) (Kernel, error) {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			return x.one(runs(x, in[0], in[1]))
		}, nil
	}}
}

func buildNot(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t, out, err := rawOf[bool](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		v := engine.Data[bool](in[0])
		out = out[:len(v)]
		for i, e := range v {
			out[i] = !e
		}
		return x.one(t, nil)
	}, nil
}

func floatTest(f func(float64) bool) Kernel {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		switch in[0].DType() {
		case engine.Float32:
			return x.one(apply(x, in[0], func(v float32) bool { return f(float64(v)) }))
		case engine.Float64:
			return x.one(apply(x, in[0], f))
		}
		return nil, typeError(in[0])
	}
}

func buildIsInf(b *builder) (Kernel, error) {
	pos, neg := b.attrs.int("detect_positive", 1) == 1, b.attrs.int("detect_negative", 1) == 1
	return floatTest(func(v float64) bool {
		return pos && math.IsInf(v, 1) || neg && math.IsInf(v, -1)
	}), nil
}

// buildWhere chooses element by element; any type.
func buildWhere(b *builder) (Kernel, error) {
	b.result = []engine.DType{b.inType(1)}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		cond, a, c := in[0], in[1], in[2]
		if a.DType() != c.DType() {
			return nil, fmt.Errorf("branches of types %s and %s", a.DType(), c.DType())
		}
		shape, err := x.broadcast(a.Shape(), c.Shape())
		if err != nil {
			return nil, err
		}
		if shape, err = x.broadcast(shape, cond.Shape()); err != nil {
			return nil, err
		}
		if a.DType() == engine.Float32 {
			return x.one(whereFloats(x, shape, cond, a, c))
		}
		out, err := x.New(a.DType(), shape...)
		if err != nil {
			return nil, err
		}
		pick := engine.Data[bool](cond)
		fromA, fromC := copier(x, out, a), copier(x, out, c)
		// The condition's place is found by walking it twice, once with each branch.
		pairWalk(shape, cond.Shape(), a.Shape(), func(o, ic, ia, n, sc, sa int) {
			for i := range n {
				if pick[ic+i*sc] {
					fromA(o+i, ia+i*sa, 1)
				}
			}
		})
		pairWalk(shape, cond.Shape(), c.Shape(), func(o, ic, ib, n, sc, sb int) {
			for i := range n {
				if !pick[ic+i*sc] {
					fromC(o+i, ib+i*sb, 1)
				}
			}
		})
		return x.one(out, nil)
	}, nil
}

// whereFloats is Where of float32.
func whereFloats(x *Exec, shape []int, cond, a, c *engine.Tensor) (*engine.Tensor, error) {
	t, out, err := rawOf[float32](x, shape...)
	if err != nil {
		return nil, err
	}
	pick, da, dc := engine.Data[bool](cond), engine.Data[float32](a), engine.Data[float32](c)
	switch n := len(out); {
	case len(pick) == n && len(dc) == n && len(da) == 1:
		pickFrom(out, dc, pick, da[0], true)
		return t, nil
	case len(pick) == n && len(da) == n && len(dc) == 1:
		pickFrom(out, da, pick, dc[0], false)
		return t, nil
	}
	// The condition's place is found by walking it twice, once with each branch.
	for _, branch := range []struct {
		of   *engine.Tensor
		v    []float32
		when bool
	}{{a, da, true}, {c, dc, false}} {
		v, when := branch.v, branch.when
		pairWalk(shape, cond.Shape(), branch.of.Shape(), func(o, ic, iv, n, sc, sv int) {
			to := out[o : o+n]
			switch {
			case sc == 0 && pick[ic] != when:
			case sc == 0 && sv != 0:
				copy(to, v[iv:iv+n])
			default:
				for i := range to {
					if pick[ic] == when {
						to[i] = v[iv]
					}
					ic += sc
					iv += sv
				}
			}
		})
	}
	return t, nil
}

// pickFrom is out = v where pick is when, else many, element by element.
func pickFrom(out, many []float32, pick []bool, v float32, when bool) {
	pick, many = pick[:len(out)], many[:len(out)]
	for i, e := range many {
		if pick[i] == when {
			e = v
		}
		out[i] = e
	}
}

// buildIsNaN: what is not itself.
func buildIsNaN(*builder) (Kernel, error) {
	plain := floatTest(math.IsNaN)
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() != engine.Float32 {
			return plain(x, in)
		}
		t, out, err := rawOf[bool](x, in[0].Shape()...)
		if err != nil {
			return nil, err
		}
		v := engine.Data[float32](in[0])
		v = v[:len(out)]
		for i := range out {
			out[i] = v[i] != v[i]
		}
		return x.one(t, nil)
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Add": binary(opAdd), "Sub": binary(opSub), "Mul": binary(opMul), "Div": binary(opDiv),
		"Max": variadic(opMax, false), "Min": variadic(opMin, false),
		"Sum": variadic(opAdd, false), "Mean": variadic(opAdd, true),
		"Mod": {since: 10, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildMod},
		"Pow": {since: 7, minIn: 2, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildPow},
		"Neg": signOp("Neg", func(v float64) float64 { return -v }, signedTypes),
		"Abs": signOp("Abs", math.Abs, numericTypes), "Sign": signOp("Sign", sign, numericTypes),
		"Sqrt": quickUnary(math.Sqrt, vector.Sqrt), "Exp": quickUnary(math.Exp, vector.Exponential), "Log": quickUnary(math.Log, vector.Log),
		"Sigmoid": quickUnary(sigmoid, vector.Sigmoid), "Tanh": quickUnary(math.Tanh, vector.Tanh), "Erf": quickUnary(math.Erf, vector.Erf),
		"Softplus": quickUnary(softplus, vector.Softplus), "Softsign": quickUnary(func(v float64) float64 { return v / (1 + math.Abs(v)) }, vector.Softsign),
		"Reciprocal": quickUnary(func(v float64) float64 { return 1 / v }, vector.Reciprocal),
		"Floor":      quickUnary(math.Floor, vector.Floor), "Ceil": quickUnary(math.Ceil, vector.Ceil), "Round": quickUnary(math.RoundToEven, vector.Round),
		"Sin": quickUnary(math.Sin, vector.Sin), "Cos": quickUnary(math.Cos, vector.Cos), "Tan": unary(math.Tan), "Asin": unary(math.Asin),
		"Acos": unary(math.Acos), "Atan": unary(math.Atan), "Sinh": unary(math.Sinh), "Cosh": unary(math.Cosh),
		"Asinh": unary(math.Asinh), "Acosh": unary(math.Acosh), "Atanh": unary(math.Atanh),
		"Mish":      quickUnary(func(v float64) float64 { return v * math.Tanh(softplus(v)) }, vector.Mish),
		"HardSwish": quickUnary(func(v float64) float64 { return v * min(max(v/6+0.5, 0), 1) }, vector.Gate(1.0/6, 0.5, 0, 1, 1)),
		"LeakyRelu": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(b *builder) (Kernel, error) {
			alpha := b.attrs.float("alpha", 0.01)
			return quickMap(func(v float64) float64 {
				if v < 0 {
					return alpha * v
				}
				return v
			}, vector.Leaky(float32(alpha))), nil
		}},
		"Elu": withQuickAlpha(func(r *attrReader) (func(float64) float64, *vector.Function) {
			alpha := r.float("alpha", 1)
			return func(v float64) float64 {
				if v < 0 {
					return alpha * math.Expm1(v)
				}
				return v
			}, vector.Elu(float32(alpha), 1, 1)
		}),
		"Celu": withQuickAlpha(func(r *attrReader) (func(float64) float64, *vector.Function) {
			alpha := r.float("alpha", 1)
			quick := vector.Elu(float32(alpha), float32(1/alpha), 1)
			if !(alpha > 0) {
				quick = nil
			}
			return func(v float64) float64 { return max(0, v) + min(0, alpha*math.Expm1(v/alpha)) }, quick
		}),
		"Selu": withQuickAlpha(func(r *attrReader) (func(float64) float64, *vector.Function) {
			alpha, gamma := r.float("alpha", seluAlpha), r.float("gamma", seluGamma)
			return func(v float64) float64 {
				if v <= 0 {
					return gamma * alpha * math.Expm1(v)
				}
				return gamma * v
			}, vector.Elu(float32(gamma*alpha), 1, float32(gamma))
		}),
		"ThresholdedRelu": withQuickAlpha(func(r *attrReader) (func(float64) float64, *vector.Function) {
			alpha := r.float("alpha", 1)
			return func(v float64) float64 {
				if v > alpha {
					return v
				}
				return 0
			}, vector.Above(float32(alpha))
		}),
		"HardSigmoid": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: func(b *builder) (Kernel, error) {
			alpha, beta := b.attrs.float("alpha", 0.2), b.attrs.float("beta", 0.5)
			plain := func(v float64) float64 { return min(max(alpha*v+beta, 0), 1) }
			return quickMap(plain, vector.AffineClip(float32(alpha), float32(beta), 0, 1)), nil
		}},
		"Swish": withAlpha(func(r *attrReader) func(float64) float64 {
			alpha := r.float("alpha", 1)
			return func(v float64) float64 { return v * sigmoid(alpha*v) }
		}),
		"PRelu": {since: 7, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true, build: buildPRelu},
		"Gelu":  {since: 20, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: buildGelu},
		"Relu":  {since: 6, minIn: 1, maxIn: 1, maxOut: 1, accept: signedTypes, half: true, build: buildRelu},
		"Clip":  {since: 6, minIn: 1, maxIn: 3, maxOut: 1, accept: numericTypes, half: true, build: buildClip},
		"Equal": compare("Equal", 7), "Less": compare("Less", 7), "Greater": compare("Greater", 7),
		"LessOrEqual": compare("LessOrEqual", 12), "GreaterOrEqual": compare("GreaterOrEqual", 12),
		"And":   logical(andRun),
		"Or":    logical(orRun),
		"Xor":   logical(xorRun),
		"Not":   {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: boolType, result: isBool, build: buildNot},
		"IsNaN": {since: 9, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, result: isBool, half: true, build: buildIsNaN},
		"IsInf": {since: 10, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, result: isBool, half: true, build: buildIsInf},
		"Where": {since: 9, minIn: 3, maxIn: 3, maxOut: 1, accept: boolType, result: fromBuilder, build: buildWhere},
	})
}

// SELU's constants, as the operator's definition gives them.
const (
	seluAlpha = 1.67326319217681884765625
	seluGamma = 1.05070102214813232421875
)
