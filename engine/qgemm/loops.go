package qgemm

import (
	"math"
	"unsafe"
)

// kept bounds v; what is no number becomes low.
func kept(v, low, high float32) float32 {
	if !(v > low) {
		v = low
	}
	if !(v < high) {
		v = high
	}
	return v
}

func nearest(v float32) int32 { return int32(math.RoundToEven(float64(v))) }

// Scale says which numbers bytes stand for: (byte - Zero) Scale.
type Scale struct {
	Scale, Zero float32
}

// Range is how far from 0, in steps of the scale, numbers go that bytes stand for.
func (s Scale) Range() (low, high float32) { return -s.Zero, math.MaxUint8 - s.Zero }

func (s Scale) float(b uint8) float32 { return float32(float32(b)-s.Zero) * s.Scale }

// byte rounds v, whose steps are kept between low and high.
func (s Scale) byte(v, low, high float32) uint8 {
	return uint8(nearest(kept(v/s.Scale, low, high)) + int32(s.Zero))
}

// vectors is how many of n elements kernels compute.
func vectors(n int) int { return n / kernels.lanes * kernels.lanes }

// ToBytes rounds numbers to bytes, halves to even.
func ToBytes(dst []uint8, src []float32, to Scale) {
	low, high := to.Range()
	n, done := len(src), 0
	_ = dst[:n]
	if n = vectors(n); n > 0 && kernels.toBytes != nil {
		s := borrow()
		s.params = [8]float32{to.Scale, low, high, to.Zero}
		kernels.toBytes(&dst[0], &src[0], &s.params[0], n)
		s.release()
		done = n
	}
	for i, v := range src[done:] {
		dst[done+i] = to.byte(v, low, high)
	}
}

// ToFloats is the way back.
func ToFloats(dst []float32, src []uint8, from Scale) {
	n, done := len(src), 0
	_ = dst[:n]
	if n = vectors(n); n > 0 && kernels.toFloats != nil {
		s := borrow()
		s.params = [8]float32{from.Scale, from.Zero}
		kernels.toFloats(&dst[0], &src[0], &s.params[0], n)
		s.release()
		done = n
	}
	for i, b := range src[done:] {
		dst[done+i] = from.float(b)
	}
}

// Add is the sum of what two bytes stand for, rounded; it is not below low steps.
func Add(dst, a, b []uint8, ofA, ofB, to Scale, low float32) {
	pair(dst, a, b, ofA, ofB, to, low, false)
}

// Mul is their product.
func Mul(dst, a, b []uint8, ofA, ofB, to Scale, low float32) {
	pair(dst, a, b, ofA, ofB, to, low, true)
}

func pair(dst, a, b []uint8, ofA, ofB, to Scale, low float32, product bool) {
	least, high := to.Range()
	low, high = max(low, least)+to.Zero, high+to.Zero
	n, done := len(dst), 0
	_, _ = a[:n], b[:n]
	kernel, p := kernels.add, sumOf(ofA, ofB, to)
	if product {
		kernel, p = kernels.mul, productOf(ofA, ofB, to)
	}
	p[3], p[4], p[5], p[6] = low, high, ofA.Zero, ofB.Zero
	if n = vectors(n); n > 0 && kernel != nil {
		s := borrow()
		s.params = p
		kernel(&dst[0], &a[0], &b[0], &s.params[0], n)
		s.release()
		done = n
	}
	for i := done; i < len(dst); i++ {
		v, w := float32(a[i]), float32(b[i])
		if product {
			v = float32(float32((v-ofA.Zero)*(w-ofB.Zero))*p[0]) + p[2]
		} else {
			v = fused(w, p[1], fused(v, p[0], p[2]))
		}
		dst[i] = uint8(nearest(kept(v, low, high)))
	}
}

// sumOf and productOf are the shares of two bytes in one of what they come to, and what is added
// to these. Its zero point is within, as onnxruntime has it: halves are rounded with it.
func sumOf(ofA, ofB, to Scale) [8]float32 {
	a, b := ofA.Scale/to.Scale, ofB.Scale/to.Scale
	return [8]float32{a, b, to.Zero - float32(float32(a*ofA.Zero)+float32(b*ofB.Zero))}
}

func productOf(ofA, ofB, to Scale) [8]float32 {
	return [8]float32{float32(ofA.Scale*ofB.Scale) / to.Scale, 0, to.Zero}
}

// fused is a b + c, rounded once.
func fused(a, b, c float32) float32 { return float32(float64(a)*float64(b) + float64(c)) }

// Span is the smallest and the largest of the numbers and 0.
func Span(v []float32) (low, high float32) {
	done := 0
	if n := vectors(len(v)); n > 0 && kernels.span != nil {
		s := borrow()
		kernels.span(&v[0], n, &s.ends[0])
		for i := range kernels.lanes {
			low, high = min(low, s.ends[i]), max(high, s.ends[kernels.lanes+i])
		}
		s.release()
		done = n
	}
	for _, e := range v[done:] {
		if e < low {
			low = e
		}
		if e > high {
			high = e
		}
	}
	return low, high
}

// Largest is, for each of the bytes of dst, the largest of src at the offsets from it.
func Largest(dst, src []uint8, offsets []int) {
	n, done := len(dst), 0
	for _, o := range offsets {
		_ = src[o : o+n]
	}
	if n = n / 16 * 16; n > 0 && kernels.largest != nil && len(offsets) > 0 {
		kernels.largest(&dst[0], &src[0], unsafe.SliceData(offsets), len(offsets), n)
		done = n
	}
	for i := done; i < len(dst); i++ {
		v := uint8(0)
		for _, o := range offsets {
			v = max(v, src[o+i])
		}
		dst[i] = v
	}
}

// mostRows bounds the rows whose bytes' sums are in 32 bits.
const mostRows = 1 << 23

// Columns sets sums to those of the columns of rows of as many bytes.
func Columns(sums []int64, src []uint8) {
	clear(sums)
	c := len(sums)
	if c == 0 || len(src)%c != 0 {
		panic("qgemm: rows of another size")
	}
	s := borrow()
	defer s.release()
	for len(src) > 0 {
		rows := min(len(src)/c, mostRows)
		for first := 0; first < c; first += eachLanes {
			cols, done := min(eachLanes, c-first), 0
			// Rows behind which a whole vector can be read.
			if n := min((len(src)-first-eachLanes)/c+1, rows); kernels.columns != nil && len(src) >= first+eachLanes {
				kernels.columns(&s.sums[0], &src[first], n, c)
				for j, v := range s.sums[:cols] {
					sums[first+j] += int64(v)
				}
				done = n
			}
			for i := done; i < rows; i++ {
				for j, v := range src[i*c+first:][:cols] {
					sums[first+j] += int64(v)
				}
			}
		}
		src = src[rows*c:]
	}
}

// Table replaces each byte.
func Table(dst, src []uint8, of *[256]uint8) {
	dst = dst[:len(src)]
	if n := len(src) / 64 * 64; n > 0 && kernels.table != nil {
		kernels.table(&dst[0], &src[0], &of[0], n)
		dst, src = dst[n:], src[n:]
	}
	for i, b := range src {
		dst[i] = of[b]
	}
}
