package convolve

import (
	"unsafe"

	"github.com/pellucid/pellucid/engine/vector"
)

// Narrow is weights in 8 or 16 bits, [out, in, taps]: numbers (byte - zero) scale or half
// scale, with a zero and a scale for each channel of output. Halves may have no scales.
type Narrow struct {
	Bytes       []int8
	Halves      []uint16
	Precision   vector.Precision
	Scale, Zero []float32
}

// narrow is panels in 8 or 16 bits, which are made floats one at a time, where and when
// they are read, into the memory of a thread. Then they are those of the filter of floats.
type narrow struct {
	bytes     []int8
	halves    []uint16
	precision vector.Precision
	// scale and zero are of the channels, filled up to whole panels.
	scale, zero []float32
}

// NewNarrow is NewFilter for weights in 8 or 16 bits, which stay so. Its results have the
// bits of those of the filter of floats.
func NewNarrow(out, in, taps int, w Narrow, bias []float32) *Filter {
	size := out * in * taps
	if out < 1 || in < 1 || taps < 1 || len(w.Bytes)+len(w.Halves) != size || bias != nil && len(bias) != out ||
		len(w.Scale) != out && (w.Bytes != nil || w.Scale != nil) || w.Bytes != nil && len(w.Zero) != out {
		panic("convolve: weights or biases of another size")
	}
	f := &Filter{groups: 1, in: in, out: out, taps: taps, width: panelWidth(), narrow: &narrow{precision: w.Precision}}
	count := (out + f.width - 1) / f.width
	f.bias = make([]float32, count*f.width)
	copy(f.bias, bias)
	n := f.narrow
	if w.Scale != nil {
		n.scale, n.zero = make([]float32, count*f.width), make([]float32, count*f.width)
		copy(n.scale, w.Scale)
		copy(n.zero, w.Zero)
	}
	if w.Bytes != nil {
		n.bytes = panelsOf(f, w.Bytes)
	} else {
		n.halves = panelsOf(f, w.Halves)
	}
	return f
}

// panelsOf lays out weights [out, in, taps] in panels.
func panelsOf[T int8 | uint16](f *Filter, weights []T) []T {
	panels := make([]T, len(f.bias)*f.taps*f.in)
	for o := 0; o < f.out; o += f.width {
		panel, n := panels[o*f.taps*f.in:], min(f.width, f.out-o)
		for c := range f.in {
			for t := range f.taps {
				// A panel's places are written one after the other, and each channel's weights read so.
				from, to := weights[(o*f.in+c)*f.taps+t:], panel[(t*f.in+c)*f.width:][:n]
				for i := range to {
					to[i] = from[i*f.in*f.taps]
				}
			}
		}
	}
	return panels
}

// Room is how many elements a run on so many threads makes floats of at once.
func (f *Filter) Room(threads int) int {
	if f.narrow == nil {
		return 0
	}
	return threads * f.taps * f.in * f.width
}

// floats returns panel q of a filter as floats: where it lies, or made in a room.
func (f *Filter) floats(q int, r *room) []float32 {
	size := f.taps * f.in * f.width
	n := f.narrow
	if n == nil {
		return f.panels[q*size:]
	}
	if cap(r.panel) < size {
		r.panel = make([]float32, size)
	}
	to, rows := r.panel[:size], f.taps*f.in
	if n.bytes != nil {
		from := n.bytes[q*size:][:size]
		scale, zero := n.scale[q*f.width:][:f.width], n.zero[q*f.width:][:f.width]
		if kernels != nil {
			kernels.widen(&to[0], &from[0], &scale[0], &zero[0], rows)
			return to
		}
		for i, v := range from {
			to[i] = (float32(v) - zero[i%f.width]) * scale[i%f.width]
		}
		return to
	}
	vector.Widen(n.precision, to, n.halves[q*size:][:size])
	if n.scale == nil {
		return to
	}
	scale := n.scale[q*f.width:][:f.width]
	if kernels != nil {
		kernels.scale(&to[0], &scale[0], rows)
		return to
	}
	for i := range to {
		to[i] *= scale[i%f.width]
	}
	return to
}

// start has a tile read panels of floats.
func (t *tile) start(panels []float32) { t.b = unsafe.Pointer(&panels[0]) }
