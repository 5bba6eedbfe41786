package graph

import (
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/blas"
	"github.com/pellucid/pellucid/engine/convolve"
	"github.com/pellucid/pellucid/engine/vector"
)

// deep is a convolution over three dimensions with constant weights: a plane of its
// output is a convolution over two of an image whose channels are those of all planes
// that its windows meet, which engine/convolve computes. Planes are gathered with their
// channels last, some at a time.
type deep struct {
	node   *Node
	shape  []int // of the weights
	filter *convolve.Filter
	// quick, where there is one, is for windows that it suits.
	quick *convolve.Winograd
	end   convolve.Finish
}

// deepConvolutions makes such steps of convolutions over three dimensions.
func (f *fuser) deepConvolutions() {
	for i := range f.p.steps {
		if f.gone[i] {
			continue
		}
		if d := f.deepOf(&f.p.steps[i]); d != nil {
			s := f.p.steps[i]
			f.p.steps[i] = step{node: s.node, op: functionOp, kernel: d.run, in: s.in[:1], out: s.out}
			f.laid[s.in[1]] = true
			f.changed = true
		}
	}
}

// deepOf lays out the weights of a step, nil where it is no such convolution or they find
// no room.
func (f *fuser) deepOf(s *step) *deep {
	n := s.node
	if n.Op != "Conv" || n.Domain != DomainONNX || len(s.in) < 2 || s.in[0] < 0 || s.in[1] < 0 || len(s.out) != 1 || f.p.types[s.in[0]] != engine.Float32 {
		return nil
	}
	w := f.p.constants[s.in[1]]
	if w == nil || w.DType() != engine.Float32 || len(w.Shape()) != 5 || w.Len() == 0 {
		return nil
	}
	if a, ok := n.Attrs["group"]; ok && a.Int != 1 {
		return nil
	}
	at, err := windowAttrs(n, 3)
	if err != nil {
		return nil
	}
	shape := w.Shape()
	var bias []float32
	if len(s.in) > 2 && s.in[2] >= 0 {
		b := f.p.constants[s.in[2]]
		if b == nil || b.DType() != engine.Float32 || b.Len() != shape[0] {
			return nil
		}
		bias = engine.Data[float32](b)
	}
	out, in, taps := shape[0], shape[1]*shape[2], shape[3]*shape[4]
	need := convolve.FilterLen(out, in*taps)
	fast := slices.Max(append(at.strides[1:], at.dilations[1:]...)) == 1 && convolve.Winogradable(out, in, taps)
	if fast {
		need += convolve.WinogradLen(out, in)
	}
	if !f.p.held.lay(4 * int64(need)) {
		return nil
	}
	d := &deep{node: n, shape: shape, end: convolve.Finish{Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}}
	weights := planesTogether(engine.Data[float32](w), shape)
	d.filter = convolve.NewFilter(out, in, taps, weights, bias)
	if fast {
		d.quick = convolve.NewWinograd(d.filter, weights, bias)
	}
	if s.function != nil {
		d.then(s.function)
	}
	return d
}

func (d *deep) then(fn *vector.Function) {
	if low, high, ok := fn.Bounds(); ok {
		d.end.Low, d.end.High = low, high
		return
	}
	d.end.Then = fn
}

// planesTogether turns weights [out, in, depth, high, wide] so that the channels of a
// plane lie behind those of the one before.
func planesTogether(w []float32, shape []int) []float32 {
	in, depth, taps := shape[1], shape[2], shape[3]*shape[4]
	to := make([]float32, len(w))
	for o := range shape[0] {
		for c := range in {
			for z := range depth {
				copy(to[((o*depth+z)*in+c)*taps:][:taps], w[((o*in+c)*depth+z)*taps:])
			}
		}
	}
	return to
}

// deepElements is about how many elements are gathered at once: they should stay in the
// second level of cache.
const deepElements = 1 << 17

// run is the kernel.
func (d *deep) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	s := in[0].Shape()
	if len(s) != 5 || in[0].DType() != engine.Float32 {
		return nil, errUnfused
	}
	c := recall[Conv](x, in)
	if c == nil {
		var err error
		if c, err = NewConv(d.node, s, d.shape); err != nil {
			return nil, err
		}
		remember(x, in, c)
	}
	if volume(c.Result) == 0 || volume(s) == 0 {
		return nil, errUnfused
	}
	t, out, err := rawOf[float32](x, c.Result...)
	if err != nil {
		return nil, err
	}
	w := convolve.Window{
		Batch: 1, Height: s[3], Width: s[4], Channels: s[1] * d.shape[2], Lines: c.Out[1], Across: c.Out[2],
		Kernel: [2]int(c.Kernel[1:]), Strides: [2]int(c.strides[1:]), Dilations: [2]int(c.dilations[1:]), Before: [2]int(c.before[1:]),
	}
	planes := s[0] * c.Out[0]
	threads := max(1, min(x.threads, planes))
	slab, result := w.Channels*w.Height*w.Width, d.shape[0]*w.Lines*w.Across
	w.Batch = max(1, min(deepElements/slab, (planes+threads-1)/threads))
	scratch := w.Scratch(1)
	if d.quick != nil && d.quick.Suits(&w) {
		scratch = d.quick.Scratch(1, &w)
	}
	room := (w.Batch + 1) * (slab + result)
	if err := x.reserve(engine.Float32, threads*(room+scratch)); err != nil {
		return nil, err
	}
	share(x, threads, planes, deepWork{d, c, w, out, engine.Data[float32](in[0]), room})
	return x.one(t, nil)
}

// deepWork is the planes of the output.
type deepWork struct {
	d        *deep
	c        *Conv
	w        convolve.Window
	out, src []float32
	room     int
}

func (k *deepWork) part(from, to int) {
	borrowed(k.room, func(v []float32) {
		for at := from; at < to; at += k.w.Batch {
			some := k.w
			some.Batch = min(some.Batch, to-at)
			k.d.planes(k.c, some, k.out, k.src, at, v)
		}
	})
}

// planes computes w.Batch planes of the output, the first of which is at.
func (d *deep) planes(c *Conv, w convolve.Window, out, src []float32, at int, room []float32) {
	plane, windows, channels := w.Height*w.Width, w.Lines*w.Across, d.shape[0]
	slab := w.Channels * plane
	gathered, last, sums := room[:slab], room[slab:][:w.Batch*slab], room[(w.Batch+1)*slab:]
	for i := range w.Batch {
		d.gather(c, gathered, src, at+i, plane)
		blas.Transpose(last[i*slab:][:slab], gathered, w.Channels, plane)
	}
	sums, turned := sums[:w.Batch*windows*channels], sums[w.Batch*windows*channels:][:windows*channels]
	if d.quick != nil && d.quick.Suits(&w) {
		d.quick.Convolve(1, &w, sums, last, d.end)
	} else {
		d.filter.Convolve(1, &w, sums, last, d.end)
	}
	for i := range w.Batch {
		blas.Transpose(turned, sums[i*windows*channels:][:windows*channels], windows, channels)
		n, z := (at+i)/c.Out[0], (at+i)%c.Out[0]
		for o := range channels {
			copy(out[((n*channels+o)*c.Out[0]+z)*windows:][:windows], turned[o*windows:])
		}
	}
}

// gather puts the planes that a plane of the output meets one behind the other, with
// zeros for those that are padding.
func (d *deep) gather(c *Conv, to, src []float32, at, plane int) {
	in, deep := d.shape[1], c.In[0]
	n, first := at/c.Out[0], at%c.Out[0]*c.strides[0]-c.before[0]
	for k := range d.shape[2] {
		part := to[k*in*plane:][:in*plane]
		z := first + k*c.dilations[0]
		if z < 0 || z >= deep {
			clear(part)
			continue
		}
		for ch := range in {
			copy(part[ch*plane:][:plane], src[((n*in+ch)*deep+z)*plane:])
		}
	}
}
