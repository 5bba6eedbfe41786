package graph

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/qgemm"
)

// Products and convolutions of bytes. An operand on the left is unsigned to engine/qgemm
// and one on the right signed: others are shifted by 128, and their zero points with them.

// isOctet reports whether d is one byte wide and whole.
func isOctet(d engine.DType) bool { return d == engine.Uint8 || d == engine.Int8 }

// signedOctets are a tensor's elements as signed bytes, and what unsigned ones are less
// by.
func signedOctets(t *engine.Tensor) (v []int8, shift int32) {
	if v = engine.Data[int8](t); v != nil || t.DType() == engine.Int8 {
		return v, 0
	}
	u := engine.Data[uint8](t)
	v = make([]int8, len(u))
	for i, b := range u {
		v[i] = int8(b ^ 0x80)
	}
	return v, 128
}

// unsignedOctets are a tensor's elements as unsigned bytes, and what signed ones are more
// by.
func unsignedOctets(x *Exec, t *engine.Tensor) (v []uint8, shift int32, err error) {
	if t.DType() == engine.Uint8 {
		return engine.Data[uint8](t), 0, nil
	}
	s := engine.Data[int8](t)
	if _, v, err = rawOf[uint8](x, len(s)); err != nil {
		return nil, 0, err
	}
	for i, b := range s {
		v[i] = uint8(b) ^ 0x80
	}
	return v, 128, nil
}

// zerosOf are the zero points of n columns less shift, nil where all are 0: one for all,
// or one for each.
func zerosOf(t *engine.Tensor, n int, shift int32) ([]int32, error) {
	return zerosIn(make([]int32, n), t, shift)
}

// zerosIn is zerosOf with room for them.
func zerosIn(z []int32, t *engine.Tensor, shift int32) ([]int32, error) {
	clear(z)
	if t != nil {
		if t.Len() != 1 && (t.Len() != len(z) || len(t.Shape()) > 2) || !putWhole(z, t) {
			return nil, fmt.Errorf("zero points of %s %v for %d columns", t.DType(), t.Shape(), len(z))
		}
	}
	some := false
	for j := range z {
		z[j] -= shift
		some = some || z[j] != 0
	}
	if !some {
		return nil, nil
	}
	return z, nil
}

// putWhole has z be the elements of t, or its only one; it reports whether they are numbers.
func putWhole(z []int32, t *engine.Tensor) bool {
	switch t.DType() {
	case engine.Int8: // without a copy, as the next
		putEach(z, engine.Data[int8](t))
		return true
	case engine.Uint8:
		putEach(z, engine.Data[uint8](t))
		return true
	}
	if one, err := scalarOf(t); err == nil {
		putEach(z, []float64{one})
		return true
	}
	v, ok := t.Float64s()
	if ok {
		putEach(z, v)
	}
	return ok
}

func putEach[T int8 | uint8 | float64](z []int32, v []T) {
	for j := range z {
		z[j] = int32(v[min(j, len(v)-1)])
	}
}

// oneZero is a zero point that is one number, 0 where there is none.
func oneZero(t *engine.Tensor) (int32, bool) {
	if t == nil {
		return 0, true
	}
	var z [1]int32
	if t.Len() != 1 || !putWhole(z[:], t) {
		return 0, false
	}
	return z[0], true
}

// octetMatrix is a right operand that was laid out.
type octetMatrix struct {
	of    *engine.Tensor
	w     *qgemm.Weights
	k, n  int
	shift int32
}

// newOctetMatrix lays a matrix out, of which op takes the transpose where trans says so.
func newOctetMatrix(t *engine.Tensor, trans bool) *octetMatrix {
	k, n := t.Shape()[0], t.Shape()[1]
	if trans {
		k, n = n, k
	}
	v, shift := signedOctets(t)
	return &octetMatrix{of: t, w: qgemm.PackMatrix(trans, k, n, v), k: k, n: n, shift: shift}
}

// matrixOf lays input i out once where it is a constant matrix of bytes; else it is nil.
func matrixOf(b *builder, i int) *octetMatrix {
	if i >= len(b.constants) || b.constants[i] == nil {
		return nil
	}
	t := b.constants[i]
	if !isOctet(t.DType()) || len(t.Shape()) != 2 || t.Len() == 0 {
		return nil
	}
	laid := packed{t, false}
	if known := b.packs[laid]; known != nil {
		if m, ok := known.packed.(*octetMatrix); ok {
			return m
		}
		return newOctetMatrix(t, false)
	}
	if !b.held.lay(qgemm.Bytes(t.Shape()[1], t.Shape()[0])) {
		return nil
	}
	m := newOctetMatrix(t, false)
	if b.packs != nil {
		b.packs[laid] = &weights{tensor: t, packed: m}
	}
	return m
}

// rowsOfOctets are m rows of k unsigned bytes, filled up to whole groups, and the shift.
func rowsOfOctets(x *Exec, a *engine.Tensor, m, k int) (v []uint8, shift int32, err error) {
	if v, shift, err = unsignedOctets(x, a); err != nil {
		return nil, 0, err
	}
	depth := qgemm.Rounded(k)
	if depth == k {
		return v, shift, nil
	}
	_, wide, err := newOf[uint8](x, m*depth)
	if err != nil {
		return nil, 0, err
	}
	for i := range m {
		copy(wide[i*depth:], v[i*k:(i+1)*k])
	}
	return wide, shift, nil
}

// corrections are what comes to the sums of each column for the zero point of a, over
// depth elements; zeros are the columns'.
func corrections(whole, sums, zeros []int32, za int32, depth int) {
	for j, s := range sums {
		whole[j] = -za * s
		if zeros != nil {
			whole[j] += int32(depth) * za * zeros[j]
		}
	}
}

// multiplyOctets computes rows of a, less its zero point, times w less its own. end is
// given what sums there are.
func multiplyOctets(x *Exec, a *engine.Tensor, za int32, w *octetMatrix, zeros []int32, rows int, end *qgemm.Finish) error {
	v, shift, err := rowsOfOctets(x, a, rows, w.k)
	if err != nil {
		return err
	}
	if err := x.reserve(engine.Int32, w.n); err != nil {
		return err
	}
	room := octetRooms.Get().(*octetRoom)
	defer octetRooms.Put(room)
	room.whole = slices.Grow(room.whole[:0], w.n)[:w.n]
	whole := room.whole
	corrections(whole, w.w.Sums(), zeros, za+shift, w.k)
	for j, e := range end.Whole {
		whole[j] += e
	}
	end.Whole, end.Zeros = whole, zeros
	room.left = qgemm.Matrix(v, rows, w.w.Depth())
	w.w.Multiply(max(x.threads, 1), &room.left, end)
	room.left, end.Whole = qgemm.Left{}, nil
	return nil
}

// octetRoom is what a product of bytes needs beside them.
type octetRoom struct {
	whole, zeros []int32
	left         qgemm.Left
}

var octetRooms = sync.Pool{New: func() any { return new(octetRoom) }}

// octetProduct is a x b, exact, of a tensor and a matrix of bytes with zero points that
// this computes; ok is false where it does not.
func octetProduct(x *Exec, w *octetMatrix, a, za, b, zb *engine.Tensor, shape *MatMulShape, end func(n int) (*qgemm.Finish, error)) (ok bool, err error) {
	if !isOctet(a.DType()) || !isOctet(b.DType()) || len(b.Shape()) != 2 || a.Len() == 0 || b.Len() == 0 {
		return false, nil
	}
	zero, one := oneZero(za)
	if !one || zb != nil && zb.Len() != 1 && len(zb.Shape()) != 1 {
		return false, nil
	}
	if w == nil || w.of != b {
		if err := x.reserve(engine.Int8, int(qgemm.Bytes(shape.N, shape.K))); err != nil {
			return false, err
		}
		w = newOctetMatrix(b, false)
	}
	room := octetRooms.Get().(*octetRoom)
	defer octetRooms.Put(room)
	room.zeros = slices.Grow(room.zeros[:0], w.n)[:w.n]
	zeros, err := zerosIn(room.zeros, zb, w.shift)
	if err != nil {
		return false, err
	}
	rows := shape.M * volume(shape.A)
	f, err := end(w.n)
	if err != nil {
		return false, err
	}
	defer done(f)
	return true, multiplyOctets(x, a, zero, w, zeros, rows, f)
}

// outOfOctets are the bounds and the zero point of a result of 8 bits.
func outOfOctets(d engine.DType, zero int32) (low, high float32) {
	least, most := int32(0), int32(math.MaxUint8)
	if d == engine.Int8 {
		least, most = math.MinInt8, math.MaxInt8
	}
	return float32(least - zero), float32(most - zero)
}

// octetsOf are a tensor's elements of either sign as they lie in memory.
func octetsOf(t *engine.Tensor) []uint8 {
	if t.DType() == engine.Uint8 {
		return engine.Data[uint8](t)
	}
	return bytesOfSigned(engine.Data[int8](t))
}

// bytesOfSigned are signed bytes as they lie in memory.
func bytesOfSigned(v []int8) []uint8 {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*uint8)(unsafe.Pointer(&v[0])), len(v))
}
