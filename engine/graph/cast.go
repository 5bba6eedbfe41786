package graph

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// TypeOfONNX maps the numbers of TensorProto.DataType to element types;
// Invalid for those the engine does not have.
func TypeOfONNX(n int) engine.DType {
	types := [...]engine.DType{
		1: engine.Float32, 2: engine.Uint8, 3: engine.Int8, 4: engine.Uint16, 5: engine.Int16, 6: engine.Int32,
		7: engine.Int64, 8: engine.String, 9: engine.Bool, 10: engine.Float16, 11: engine.Float64, 12: engine.Uint32,
		13: engine.Uint64, 16: engine.BFloat16, 17: engine.Float8E4M3FN, 18: engine.Float8E4M3FNUZ, 19: engine.Float8E5M2, 20: engine.Float8E5M2FNUZ,
		21: engine.Uint4, 22: engine.Int4, 23: engine.Float4E2M1, 24: engine.Float8E8M0, 25: engine.Uint2, 26: engine.Int2,
	}
	if n < 0 || n >= len(types) {
		return engine.Invalid
	}
	return types[n]
}

// storeFloats puts v in o, truncating towards zero where o holds integers.
func storeFloats(o *engine.Tensor, v []float64) error {
	if o.DType().IsNarrow() {
		return o.SetNarrow(v, true, engine.ScaleUp)
	}
	switch o.DType() {
	case engine.Float64:
		copy(engine.Data[float64](o), v)
	case engine.Float32:
		narrow(engine.Data[float32](o), v)
	case engine.Float16, engine.BFloat16:
		bits := engine.Data[uint16](o)
		for i, f := range v {
			bits[i] = halfBits(o.DType(), f)
		}
	case engine.Int64:
		narrowSigned(engine.Data[int64](o), v)
	case engine.Int32:
		narrowSigned(engine.Data[int32](o), v)
	case engine.Int16:
		narrowSigned(engine.Data[int16](o), v)
	case engine.Int8:
		narrowSigned(engine.Data[int8](o), v)
	case engine.Uint64:
		d := engine.Data[uint64](o)
		for i, f := range v {
			d[i] = uint64(clampFloat(f))
			if f >= 1<<63 {
				d[i] = uint64(f)
			}
		}
	case engine.Uint32:
		narrowSigned(engine.Data[uint32](o), v)
	case engine.Uint16:
		narrowSigned(engine.Data[uint16](o), v)
	case engine.Uint8:
		narrowSigned(engine.Data[uint8](o), v)
	case engine.Bool:
		d := engine.Data[bool](o)
		for i, f := range v {
			d[i] = f != 0
		}
	default:
		return typeError(o)
	}
	return nil
}

func narrow(dst []float32, v []float64) {
	for i, f := range v {
		dst[i] = float32(f)
	}
}

// narrowSigned goes through int64, so that what does not fit wraps in the same
// way on every machine.
func narrowSigned[T signed | unsigned, F float](dst []T, v []F) {
	dst = dst[:len(v)]
	for i, f := range v {
		dst[i] = T(clampFloat(float64(f)))
	}
}

// clampFloat truncates to int64; NaN and what does not fit become the smallest,
// as on x86.
func clampFloat(f float64) int64 {
	if f >= -(1<<63) && f < 1<<63 {
		return int64(f)
	}
	return math.MinInt64
}

// halfBits rounds to nearest, ties to even.
func halfBits(d engine.DType, f float64) uint16 { return precisionOf(d).Bits(float32(f)) }

// integers returns the elements of an integer or bool tensor as int64, wrapping
// uint64, or nil. They are to be read only.
func (x *Exec) integers(t *engine.Tensor) []int64 {
	switch t.DType() {
	case engine.Int64:
		return engine.Data[int64](t)
	case engine.Int32:
		return widenInt(x, engine.Data[int32](t))
	case engine.Int16:
		return widenInt(x, engine.Data[int16](t))
	case engine.Int8:
		return widenInt(x, engine.Data[int8](t))
	case engine.Uint64:
		return widenInt(x, engine.Data[uint64](t))
	case engine.Uint32:
		return widenInt(x, engine.Data[uint32](t))
	case engine.Uint16:
		return widenInt(x, engine.Data[uint16](t))
	case engine.Uint8:
		return widenInt(x, engine.Data[uint8](t))
	case engine.Bool:
		out := roomOf[int64](x, t.Len())
		for i, v := range engine.Data[bool](t) {
			out[i] = int64(b2i(v))
		}
		return out
	}
	return nil
}

func widenInt[T signed | unsigned](x *Exec, v []T) []int64 {
	out := roomOf[int64](x, len(v))
	for i, e := range v {
		out[i] = int64(e)
	}
	return out
}

func storeInts(o *engine.Tensor, v []int64) {
	switch o.DType() {
	case engine.Int64:
		copy(engine.Data[int64](o), v)
	case engine.Int32:
		narrowInt(engine.Data[int32](o), v)
	case engine.Int16:
		narrowInt(engine.Data[int16](o), v)
	case engine.Int8:
		narrowInt(engine.Data[int8](o), v)
	case engine.Uint64:
		narrowInt(engine.Data[uint64](o), v)
	case engine.Uint32:
		narrowInt(engine.Data[uint32](o), v)
	case engine.Uint16:
		narrowInt(engine.Data[uint16](o), v)
	case engine.Uint8:
		narrowInt(engine.Data[uint8](o), v)
	}
}

func narrowInt[T signed | unsigned](dst []T, v []int64) {
	for i, e := range v {
		dst[i] = T(e)
	}
}

// castTensor converts t to type d. With share, a tensor that already has the
// type is returned as it is.
func castTensor(x *Exec, t *engine.Tensor, d engine.DType, share bool) (*engine.Tensor, error) {
	if t.DType() == d && share {
		return t, nil
	}
	between := isHalf(d) && t.DType() == engine.Float32 || isHalf(t.DType()) && d == engine.Float32
	o, err := x.make(d, t.Shape(), !between && d != engine.Float32 && t.DType() != engine.Float32)
	if err != nil {
		return nil, err
	}
	switch {
	case between && d == engine.Float32:
		vector.Widen(precisionOf(t.DType()), engine.Data[float32](o), engine.Data[uint16](t))
		return o, nil
	case between:
		vector.Narrow(precisionOf(d), engine.Data[uint16](o), engine.Data[float32](t))
		return o, nil
	}
	if t.DType() == d {
		moveRun(o, t, 0, 0, t.Len())
		return o, nil
	}
	if t.DType() == engine.String {
		return o, parseStrings(x, o, engine.Data[string](t))
	}
	if d == engine.String {
		return o, formatStrings(x, engine.Data[string](o), t)
	}
	if d.IsInteger() {
		if castWide(o, t) {
			return o, nil
		}
		if v := x.integers(t); v != nil {
			storeInts(o, v)
			return o, nil
		}
	}
	if d == engine.Float32 && castSingle(engine.Data[float32](o), t) || t.DType() == engine.Float32 && fromSingle(o, engine.Data[float32](t)) {
		return o, nil
	}
	// The temporary float64 copy is counted, since it may be the largest.
	if t.DType() != engine.Float64 {
		if err := x.reserve(engine.Float64, t.Len()); err != nil {
			return nil, err
		}
	}
	v, ok := x.float64s(t)
	if !ok {
		return nil, typeError(t)
	}
	return o, storeFloats(o, v)
}

// castWide casts the two types of ids to each other, without a copy of them; it reports
// whether t and o are such.
func castWide(o, t *engine.Tensor) bool {
	switch {
	case o.DType() == engine.Int64 && t.DType() == engine.Int32:
		v := engine.Data[int32](t)
		to := engine.Data[int64](o)[:len(v)]
		for i, e := range v {
			to[i] = int64(e)
		}
	case o.DType() == engine.Int32 && t.DType() == engine.Int64:
		narrowInt(engine.Data[int32](o), engine.Data[int64](t))
	default:
		return false
	}
	return true
}

// castSingle casts what models make numbers of most, without a copy in float64, to
// the same bits; it reports whether t is such.
func castSingle(o []float32, t *engine.Tensor) bool {
	switch t.DType() {
	case engine.Bool:
		v := engine.Data[bool](t)
		o = o[:len(v)]
		for i, e := range v {
			o[i] = 0
			if e {
				o[i] = 1
			}
		}
	case engine.Uint8:
		singles(o, engine.Data[uint8](t))
	case engine.Int32:
		singles(o, engine.Data[int32](t))
	case engine.Int64:
		singles(o, engine.Data[int64](t))
	case engine.Float64:
		singles(o, engine.Data[float64](t))
	default:
		return false
	}
	return true
}

// fromSingle casts float32 to what models make of it most, as castSingle does; it reports
// whether o is such.
func fromSingle(o *engine.Tensor, v []float32) bool {
	switch o.DType() {
	case engine.Bool:
		to := engine.Data[bool](o)[:len(v)]
		for i, e := range v {
			to[i] = e != 0
		}
	case engine.Uint8:
		narrowSigned(engine.Data[uint8](o), v)
	case engine.Int8:
		narrowSigned(engine.Data[int8](o), v)
	case engine.Int32:
		narrowSigned(engine.Data[int32](o), v)
	case engine.Int64:
		narrowSigned(engine.Data[int64](o), v)
	case engine.Float64:
		to := engine.Data[float64](o)[:len(v)]
		for i, e := range v {
			to[i] = float64(e)
		}
	default:
		return false
	}
	return true
}

func singles[T uint8 | int32 | int64 | float64](o []float32, v []T) {
	o = o[:len(v)]
	for i, e := range v {
		o[i] = float32(float64(e))
	}
}

func parseStrings(x *Exec, o *engine.Tensor, text []string) error {
	v, exact := x.wide(len(text)), roomOf[int64](x, len(text))
	whole := o.DType().IsInteger()
	for i, s := range text {
		s = strings.TrimSpace(s)
		if n, err := strconv.ParseInt(s, 10, 64); whole && err == nil {
			v[i], exact[i] = float64(n), n
			continue
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || strings.Contains(s, "_") { // as Go's own source may part digits
			return fmt.Errorf("element %d is not a number", i)
		}
		v[i], exact[i] = f, clampFloat(f)
	}
	if whole {
		storeInts(o, exact)
		return nil
	}
	return storeFloats(o, v)
}

// formatStrings writes numbers as onnxruntime does: integers in full, floats of every type
// with 8 digits, which is not always enough to read the same number back.
func formatStrings(x *Exec, dst []string, t *engine.Tensor) error {
	if t.DType() == engine.Uint64 {
		for i, v := range engine.Data[uint64](t) {
			dst[i] = strconv.FormatUint(v, 10)
		}
		return nil
	}
	if v := x.integers(t); v != nil {
		for i, n := range v {
			dst[i] = strconv.FormatInt(n, 10)
		}
		return nil
	}
	v, ok := t.Float64s()
	if !ok {
		return typeError(t)
	}
	for i, f := range v {
		dst[i] = formatFloat(f)
	}
	return nil
}

// textDigits is how many digits a number is written with.
const textDigits = 8

// formatFloat is C's %.8g: an exponent of two digits below 1e-4 and from 1e8 on, no zeros
// at the end.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "INF"
	case math.IsInf(f, -1):
		return "-INF"
	}
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(f, 'e', textDigits-1, 64), "e")
	if e, err := strconv.Atoi(power); err == nil && e >= -4 && e < textDigits {
		return trimZeros(strconv.FormatFloat(f, 'f', textDigits-1-e, 64))
	}
	return trimZeros(mantissa) + "e" + power
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// narrowing says what becomes of numbers that a narrow float cannot hold.
type narrowing struct {
	saturate bool
	rounding engine.ScaleRounding
}

func readNarrowing(b *builder) (n narrowing, err error) {
	n.saturate = b.attrs.int("saturate", 1) != 0
	switch mode := b.attrs.string("round_mode", "up"); mode {
	case "up":
	case "down":
		n.rounding = engine.ScaleDown
	case "nearest":
		n.rounding = engine.ScaleNearest
	default:
		return n, b.node.unsupported("round_mode %q", mode)
	}
	return n, nil
}

func (n narrowing) cast(x *Exec, t *engine.Tensor, d engine.DType) (*engine.Tensor, error) {
	if !d.IsNarrow() || t.DType() == d || t.DType() == engine.String {
		return castTensor(x, t, d, true)
	}
	v, err := floats(x, t)
	if err != nil {
		return nil, err
	}
	o, err := x.New(d, t.Shape()...)
	if err != nil {
		return nil, err
	}
	return o, o.SetNarrow(v, n.saturate, n.rounding)
}

// floats returns the elements as float64; a copy is counted.
func floats(x *Exec, t *engine.Tensor) ([]float64, error) {
	if t.DType() != engine.Float64 {
		if err := x.reserve(engine.Float64, t.Len()); err != nil {
			return nil, err
		}
	}
	v, ok := x.float64s(t)
	if !ok {
		return nil, typeError(t)
	}
	return v, nil
}

func buildCast(b *builder) (Kernel, error) {
	to := b.attrs.int("to", 0)
	n, err := readNarrowing(b)
	if err != nil {
		return nil, err
	}
	d := TypeOfONNX(to)
	if d == engine.Invalid {
		return nil, b.node.unsupported("cast to ONNX type %d", to)
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(n.cast(x, in[0], d))
	}, nil
}

func buildCastLike(b *builder) (Kernel, error) {
	n, err := readNarrowing(b)
	if err != nil {
		return nil, err
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(n.cast(x, in[0], in[1].DType()))
	}, nil
}

// buildBitCast sees the bits of elements as another type of the same width.
func buildBitCast(b *builder) (Kernel, error) {
	to := b.attrs.int("to", 0)
	d := TypeOfONNX(to)
	if d == engine.Invalid || d == engine.String {
		return nil, b.node.unsupported("cast to ONNX type %d", to)
	}
	if from := b.inType(0); from != engine.Invalid && from.Bits() != d.Bits() {
		return nil, b.node.corrupt("casts the bits of %s to %s", from, d)
	}
	b.result = []engine.DType{d}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType().Bits() != d.Bits() || d.Bits() < 8 {
			return nil, fmt.Errorf("the bits of %s seen as %s", in[0].DType(), d)
		}
		o, err := x.make(d, in[0].Shape(), false)
		if err != nil {
			return nil, err
		}
		from := bytesOf(in[0])
		if d == engine.Bool {
			for i, v := range from {
				engine.Data[bool](o)[i] = v != 0
			}
			return x.one(o, nil)
		}
		copy(bytesOf(o), from)
		return x.one(o, nil)
	}, nil
}

// bytesOf is the memory of a tensor's elements, of which there is a byte each at least.
func bytesOf(t *engine.Tensor) []byte {
	return unsafe.Slice((*byte)(firstOf(t)), t.Len()*t.DType().Size())
}

func init() {
	register(DomainONNX, map[string]opDef{
		"BitCast":  {since: 26, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildBitCast},
		"Cast":     {since: 6, minIn: 1, maxIn: 1, maxOut: 1, result: fromBuilder, build: buildCast},
		"CastLike": {since: 15, minIn: 2, maxIn: 2, maxOut: 1, result: sameAsSecond, build: buildCastLike},
	})
}

// Cast returns t with its elements converted to another type, as the operator does.
func Cast(t *engine.Tensor, d engine.DType) (*engine.Tensor, error) {
	return castTensor(&Exec{limit: defaultMaxBytes}, t, d, true)
}
