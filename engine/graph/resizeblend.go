package graph

import (
	"slices"
	"sync/atomic"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// blended is a resize of images of float32 that blends their columns and their lines, what
// leaves the fewest elements between the two first. It is read only.
type blended struct {
	shape []int // of the input
	told  told  // of images whose channels lie last
	// images have high lines of wide columns of channels elements, which become lines by
	// columns of them.
	images, high, wide, channels, lines, columns int
	// blend is of the columns of one element, pixels of those of several; mix of the
	// lines. They are nil where everything stays in its place.
	blend       *vector.Blend
	pixels, mix *vector.Mix
}

// mostBlended is up to how many elements are summed in float32 for one, as is done here.
const mostBlended = 64

// newBlended returns r of a tensor of a shape, whose last two axes but for the channels are
// lines and columns; nil where other axes are resized too, an element is of many or of
// none, or nothing is blended of what has its channels first.
func newBlended(r *Resize, shape []int, channelsLast bool) *blended {
	rank := len(shape)
	at := rank - 2
	if channelsLast {
		at--
	}
	if at < 0 || volume(shape) == 0 {
		return nil
	}
	b := &blended{shape: slices.Clone(shape), images: volume(shape[:at]), high: shape[at], wide: shape[at+1], channels: volume(shape[at+2:])}
	axes := slices.Clone(r.Lines)
	if channelsLast { // a Resize has them as the file does
		axes = append(append(axes[:1:1], axes[2:]...), axes[1])
	}
	blends := false
	for a, list := range axes {
		places, same := placesOf(list, shape[a])
		if a != at && a != at+1 {
			if !same {
				return nil
			}
			continue
		}
		blends = blends || places == nil
		if slices.ContainsFunc(list, func(l Line) bool { return len(l.At) == 0 || len(l.At) > mostBlended }) {
			return nil
		}
		switch {
		case same:
		case a == at:
			b.mix = mixOf(list)
		case b.channels > 1:
			b.pixels = mixOf(list)
		default:
			b.blend = blendOf(list, b.wide)
		}
	}
	b.lines, b.columns = len(axes[at]), len(axes[at+1])
	if !blends && !channelsLast {
		return nil
	}
	return b
}

func mixOf(list []Line) *vector.Mix {
	m := &vector.Mix{}
	for _, l := range list {
		m.At = append(m.At, l.At...)
		for _, w := range l.Weight {
			m.Weights = append(m.Weights, float32(w))
		}
		m.Ends = append(m.Ends, len(m.At))
	}
	return m
}

func blendOf(list []Line, n int) *vector.Blend {
	places, weights := make([][]int, len(list)), make([][]float32, len(list))
	for i, l := range list {
		places[i] = l.At
		for _, w := range l.Weight {
			weights[i] = append(weights[i], float32(w))
		}
	}
	return vector.NewBlend(n, places, weights)
}

// between is how many elements an image has between its columns and its lines.
func (b *blended) between() int {
	if b.mix == nil || b.blend == nil && b.pixels == nil {
		return 0
	}
	return min(b.high*b.columns, b.lines*b.wide) * b.channels
}

// run resizes t to a new tensor of a shape.
func (b *blended) run(x *Exec, t *engine.Tensor, shape ...int) (*engine.Tensor, error) {
	o, out, err := rawOf[float32](x, shape...)
	if err != nil {
		return nil, err
	}
	rooms := min(max(x.threads, 1), b.images)
	if b.images < x.threads {
		rooms = 1
	}
	if err := x.reserve(engine.Float32, b.between()*rooms); err != nil {
		return nil, err
	}
	src := engine.Data[float32](t)
	if rooms < 2 {
		b.some(x, out, src, 0, b.images) // each by all threads
		return o, nil
	}
	share(x, x.inRows(b.images, b.lines*b.columns*b.channels), b.images, blendImages{b, out, src})
	return o, nil
}

// blendImages is images of which a thread resizes some.
type blendImages struct {
	b       *blended
	to, src []float32
}

func (w *blendImages) part(first, end int) {
	var alone Exec
	w.b.some(&alone, w.to, w.src, first, end)
}

// some resizes images from first to end.
func (b *blended) some(x *Exec, out, src []float32, first, end int) {
	from, to := b.high*b.wide*b.channels, b.lines*b.columns*b.channels
	borrowed(b.between(), func(room []float32) {
		for i := first; i < end; i++ {
			b.image(x, out[i*to:][:to], src[i*from:][:from], room)
		}
	})
}

// image resizes one.
func (b *blended) image(x *Exec, to, from, room []float32) {
	switch {
	case b.mix == nil:
		b.across(x, to, from, b.high)
		return
	case b.blend == nil && b.pixels == nil:
		b.down(x, to, from, b.wide)
		return
	case b.high*b.columns <= b.lines*b.wide:
		b.across(x, room, from, b.high)
		b.down(x, to, room, b.columns)
		return
	}
	b.down(x, room, from, b.wide)
	b.across(x, to, room, b.lines)
}

// across blends the columns of some lines.
func (b *blended) across(x *Exec, to, from []float32, lines int) {
	if x.threads < 2 {
		b.columnsOf(to, from, 0, lines)
		return
	}
	share(x, x.inRows(lines, b.columns*b.channels), lines, blendColumns{b, to, from})
}

// blendColumns is lines whose columns are blended.
type blendColumns struct {
	b        *blended
	to, from []float32
}

func (w *blendColumns) part(first, end int) { w.b.columnsOf(w.to, w.from, first, end) }

func (b *blended) columnsOf(to, from []float32, first, end int) {
	wide, columns := b.wide*b.channels, b.columns*b.channels
	part, of := to[first*columns:end*columns], from[first*wide:end*wide]
	if b.blend != nil {
		b.blend.Lines(part, of)
		return
	}
	if b.pixels == nil {
		copy(part, of)
		return
	}
	for i := range end - first {
		b.pixels.Runs(part[i*columns:][:columns], of[i*wide:][:wide], b.channels, 0, b.columns)
	}
}

// down mixes lines of some columns.
func (b *blended) down(x *Exec, to, from []float32, columns int) {
	n := columns * b.channels
	if x.threads < 2 {
		b.mix.Runs(to, from, n, 0, b.lines)
		return
	}
	share(x, x.inRows(b.lines, n), b.lines, blendLines{b.mix, to, from, n})
}

// blendLines is lines of n elements that are mixed.
type blendLines struct {
	mix      *vector.Mix
	to, from []float32
	n        int
}

func (w *blendLines) part(first, end int) {
	w.mix.Runs(w.to[first*w.n:end*w.n], w.from, w.n, first, end)
}

// told is what a Resize is told of besides what it resizes: nil of what is left out.
type told [][]float64

func toldBy(in []*engine.Tensor) told {
	out := make(told, len(in)-1)
	for i, t := range in[1:] {
		if t != nil {
			v, _ := t.Float64s()
			out[i] = slices.Clone(v)
		}
	}
	return out
}

// again reports whether in tells the same.
func (l told) again(x *Exec, in []*engine.Tensor) bool {
	for i, t := range in[1:] {
		if t == nil {
			if l[i] != nil {
				return false
			}
			continue
		}
		if v, _ := x.float64s(t); !slices.Equal(v, l[i]) {
			return false
		}
	}
	return true
}

// seenResize is a Resize of one shape, as it was told; blended is nil where it is not such.
type seenResize struct {
	told    told
	shape   []int
	resize  *Resize
	blended *blended
	// single says that it is of float32.
	single bool
}

// newSeen works a Resize out.
func newSeen(x *Exec, n *Node, in []*engine.Tensor) (*seenResize, error) {
	if err := reserveLines(x, n, in); err != nil {
		return nil, err
	}
	r, err := NewResize(n, in)
	if err != nil {
		return nil, err
	}
	s := &seenResize{told: toldBy(in), shape: slices.Clone(in[0].Shape()), resize: r, single: in[0].DType() == engine.Float32}
	if s.single {
		s.blended = newBlended(r, s.shape, false)
	}
	return s, nil
}

// resizer is the kernel of a Resize.
func resizer(n *Node) Kernel {
	var seen atomic.Pointer[seenResize]
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := seen.Load()
		if s == nil || s.single != (in[0].DType() == engine.Float32) || !slices.Equal(s.shape, in[0].Shape()) || !s.told.again(x, in) {
			var err error
			if s, err = newSeen(x, n, in); err != nil {
				return nil, err
			}
			if s.resize.taps() <= mostNearest {
				seen.Store(s)
			}
		}
		if s.blended != nil {
			return x.one(s.blended.run(x, in[0], s.blended.result(x)...))
		}
		switch in[0].DType() {
		case engine.Float32:
			return x.one(resized[float32](x, in[0], s.resize))
		case engine.Float64:
			return x.one(resized[float64](x, in[0], s.resize))
		}
		return resizedIntegers(x, in[0], s.resize)
	}
}

// result is the shape of what has its channels first.
func (b *blended) result(x *Exec) []int {
	shape := x.shaped(b.shape)
	shape[len(shape)-2], shape[len(shape)-1] = b.lines, b.columns
	return shape
}

// blendLast is the kernel of a Resize that blends, of images with their channels last.
func blendLast(n *Node) Kernel {
	var seen atomic.Pointer[blended]
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		b := seen.Load()
		if b == nil || !slices.Equal(b.shape, s) || !b.told.again(x, in) {
			r, err := resizeOfLast(x, n, in)
			if err != nil {
				return nil, err
			}
			if b = newBlended(r, s, true); b == nil {
				return nil, errUnfused
			}
			if b.told = toldBy(in); b.lines+b.columns <= mostNearest {
				seen.Store(b)
			}
		}
		return x.one(b.run(x, in[0], s[0], b.lines, b.columns, s[3]))
	}
}
