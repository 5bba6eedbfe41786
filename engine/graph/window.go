package graph

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// Windows is the geometry of a node that slides a window over the spatial
// dimensions [N, C, ...] of its input: convolutions and poolings.
type Windows struct {
	// In and Out are the spatial shapes, Kernel that of the window.
	In, Out, Kernel []int
	// Taps is the number of window elements.
	Taps int
	// index is what Index returns, once it was asked for.
	index []int32

	strides, dilations, before, after []int
}

// maxIndex bounds the elements of what Windows.Index returns.
const maxIndex = 1 << 24

// windowAttrs reads a node's strides, dilations and pads for d dimensions.
func windowAttrs(n *Node, d int) (w *Windows, err error) {
	list := func(name string, count, def int) ([]int, error) {
		v := toInts(n.Attrs[name].Ints)
		if len(v) == 0 {
			return slices.Repeat([]int{def}, count), nil
		}
		if len(v) != count {
			return nil, n.corrupt("%s has %d elements for %d dimensions", name, len(v), d)
		}
		for _, e := range v {
			if e < 0 || e > math.MaxInt32 || e == 0 && name != "pads" && name != "output_padding" {
				return nil, n.corrupt("%s holds %d", name, e)
			}
		}
		return v, nil
	}
	w = &Windows{}
	if w.strides, err = list("strides", d, 1); err != nil {
		return nil, err
	}
	if w.dilations, err = list("dilations", d, 1); err != nil {
		return nil, err
	}
	pads, err := list("pads", 2*d, 0)
	if err != nil {
		return nil, err
	}
	w.before, w.after = pads[:d:d], pads[d:]
	return w, nil
}

// NewWindows works out the windows of node n over an input of the given shape.
// kernel is the window's shape.
func NewWindows(n *Node, shape, kernel []int) (*Windows, error) {
	d := len(shape) - 2
	if d < 1 || len(kernel) != d {
		return nil, fmt.Errorf("a window %v over an input of shape %v", kernel, shape)
	}
	w, err := windowAttrs(n, d)
	if err != nil {
		return nil, err
	}
	w.In, w.Kernel = slices.Clone(shape[2:]), slices.Clone(kernel)
	w.Taps = 1
	total := 1
	for i := range d {
		reach := (kernel[i]-1)*w.dilations[i] + 1
		if kernel[i] < 1 || reach > math.MaxInt32 {
			return nil, fmt.Errorf("a window %v", kernel)
		}
		if err := w.autoPad(n, i, reach); err != nil {
			return nil, err
		}
		room := w.In[i] + w.before[i] + w.after[i] - reach
		ceil := n.Attrs["ceil_mode"].Int == 1
		if room < 0 && (!ceil || room <= -w.strides[i] || w.In[i]+w.before[i] < 1) {
			return nil, fmt.Errorf("a window of %d over %d elements", reach, w.In[i]+w.before[i]+w.after[i])
		}
		out := max(0, room)/w.strides[i] + 1 // the only one may reach beyond with ceil_mode
		if ceil && room > 0 && room%w.strides[i] != 0 && out*w.strides[i] < w.In[i]+w.before[i] {
			out++ // a last window that begins inside the input
		}
		w.Out = append(w.Out, out)
		if w.Taps, err = product(w.Taps, kernel[i]); err != nil {
			return nil, err
		}
		if total, err = product(total, out); err != nil {
			return nil, err
		}
	}
	if total > maxIndex/w.Taps {
		return nil, fmt.Errorf("%d windows of %d: %w", total, w.Taps, engine.ErrTooLarge)
	}
	return w, nil
}

// autoPad sets the padding of dimension i where the node leaves it to us.
func (w *Windows) autoPad(n *Node, i, reach int) error {
	switch mode := n.Attrs["auto_pad"].String; mode {
	case "", "NOTSET":
	case "VALID":
		w.before[i], w.after[i] = 0, 0
	case "SAME_UPPER", "SAME_LOWER":
		out := (w.In[i] + w.strides[i] - 1) / w.strides[i]
		pad := max(0, (out-1)*w.strides[i]+reach-w.In[i])
		w.before[i], w.after[i] = pad/2, pad-pad/2
		if mode == "SAME_LOWER" {
			w.before[i], w.after[i] = w.after[i], w.before[i]
		}
	default:
		return n.unsupported("auto_pad %q", mode)
	}
	return nil
}

// Index returns for every output position and window element the offset in the
// input's plane, or -1 for padding.
func (w *Windows) Index() []int32 {
	if w.index != nil {
		return w.index
	}
	total := w.Positions()
	w.index = make([]int32, total*w.Taps)
	plane, outs, taps := rowMajor(w.In), rowMajor(w.Out), rowMajor(w.Kernel)
	for o := range total {
		for k := range w.Taps {
			at := 0
			for i := range w.In {
				p := o/outs[i]%w.Out[i]*w.strides[i] + k/taps[i]%w.Kernel[i]*w.dilations[i] - w.before[i]
				if p < 0 || p >= w.In[i] {
					at = -1
					break
				}
				at += p * plane[i]
			}
			w.index[o*w.Taps+k] = int32(at)
		}
	}
	return w.index
}

// inside returns how many elements along dimension i of window o there stand in the input,
// or in that and its padding; those beyond are there only because of ceil_mode.
func (w *Windows) inside(i, o int, padded bool) (count int) {
	first, end := 0, w.In[i]
	if padded {
		first, end = -w.before[i], end+w.after[i]
	}
	start := o*w.strides[i] - w.before[i]
	for k := range w.Kernel[i] {
		if at := start + k*w.dilations[i]; at >= first && at < end {
			count++
		}
	}
	return count
}

// padded returns how many of a window's elements stand in the input or its padding.
func (w *Windows) padded(o int) int {
	outs := rowMajor(w.Out)
	count := 1
	for i := range w.In {
		count *= w.inside(i, o/outs[i]%w.Out[i], true)
	}
	return count
}

// Plane is the number of elements of the input's spatial dimensions.
func (w *Windows) Plane() int { return volume(w.In) }

// Positions is the number of windows.
func (w *Windows) Positions() int { return volume(w.Out) }

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// PoolWindows returns the windows of a pooling node; a global one has a single
// window over everything.
func PoolWindows(n *Node, shape []int) (*Windows, error) {
	if len(shape) < 3 {
		return nil, fmt.Errorf("an input of shape %v has no spatial dimensions", shape)
	}
	if globalPool(n) {
		return NewWindows(&Node{}, shape, shape[2:])
	}
	return NewWindows(n, shape, toInts(n.Attrs["kernel_shape"].Ints))
}

// AverageWeight returns the weight of each element of window o in an average:
// one over the elements that count.
func (w *Windows) AverageWeight(n *Node, o int) float64 {
	if n.Attrs["count_include_pad"].Int == 1 {
		return 1 / float64(w.padded(o))
	}
	count := 0
	for _, at := range w.Index()[o*w.Taps : (o+1)*w.Taps] {
		if at >= 0 {
			count++
		}
	}
	return 1 / float64(max(count, 1))
}

// averages are the weights of all windows, as AverageWeight has them.
func (w *Windows) averages(n *Node) []float64 {
	padded := n.Attrs["count_include_pad"].Int == 1
	counts := []int{1}
	for i, out := range w.Out {
		next := make([]int, 0, len(counts)*out)
		for _, c := range counts {
			for o := range out {
				next = append(next, c*w.inside(i, o, padded))
			}
		}
		counts = next
	}
	weights := make([]float64, len(counts))
	for i, c := range counts {
		weights[i] = 1 / float64(max(c, 1))
	}
	return weights
}

// pooling is what a pooling node's windows are, the weights of their elements, which only means
// have, and how they are laid out, nil where they are not.
type pooling struct {
	*Windows
	weights []float64
	layout  *layout
}

// poolingOf works it out for a step that runs.
func poolingOf(x *Exec, n *Node, in []*engine.Tensor) (*pooling, error) {
	if p := recall[pooling](x, in); p != nil {
		return p, nil
	}
	w, err := PoolWindows(n, in[0].Shape())
	if err != nil {
		return nil, err
	}
	p := w.pooling(n)
	if w.Taps*w.Positions() <= mostRemembered {
		remember(x, in, p)
	}
	return p, nil
}

func (w *Windows) pooling(n *Node) *pooling {
	p := &pooling{Windows: w, layout: newLayout(w)}
	if strings.HasSuffix(n.Op, "AveragePool") {
		p.weights = w.averages(n)
	}
	return p
}

func buildPool(b *builder) (Kernel, error) {
	n := b.node
	for _, name := range []string{"kernel_shape", "strides", "dilations", "pads"} {
		b.attrs.ints(name)
	}
	b.attrs.string("auto_pad", "")
	b.attrs.int("ceil_mode", 0)
	b.attrs.int("count_include_pad", 0)
	b.attrs.int("storage_order", 0)
	if p := b.attrs.int("p", 2); p < 1 {
		return nil, n.corrupt("p = %d", p)
	}
	if _, ok := n.Attrs["kernel_shape"]; !ok && !globalPool(n) {
		return nil, n.corrupt("has no kernel_shape")
	}
	largest := n.Op == "MaxPool" || n.Op == "GlobalMaxPool"
	if d := b.inType(0); d.IsInteger() && !largest {
		return nil, n.unsupported("element type %s", d)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		w, err := poolingOf(x, n, in)
		if err != nil {
			return nil, err
		}
		switch in[0].DType() {
		case engine.Float32:
			return pool[float32](x, n, w, in[0])
		case engine.Float64:
			return pool[float64](x, n, w, in[0])
		}
		wide, err := castTensor(x, in[0], engine.Float64, true)
		if err != nil {
			return nil, err
		}
		out, err := pool[float64](x, n, w, wide)
		if err != nil {
			return nil, err
		}
		out[0], err = castTensor(x, out[0], in[0].DType(), true)
		return out, err
	}, nil
}

func globalPool(n *Node) bool {
	return n.Op == "GlobalAveragePool" || n.Op == "GlobalMaxPool" || n.Op == "GlobalLpPool"
}

func pool[T float](x *Exec, n *Node, w *pooling, t *engine.Tensor) ([]*engine.Tensor, error) {
	shape := x.ints(2 + len(w.Out))
	copy(shape, t.Shape()[:2])
	copy(shape[2:], w.Out)
	o, out, err := newOf[T](x, shape...)
	if err != nil {
		return nil, err
	}
	if n.Op == "MaxPool" || n.Op == "GlobalMaxPool" {
		return poolLargest(x, n, w, engine.Data[T](t), o, out)
	}
	p := 0.0
	if n.Op == "LpPool" || n.Op == "GlobalLpPool" {
		p = LpOf(n)
	}
	src := engine.Data[T](t)
	plane, positions := w.Plane(), w.Positions()
	if v, ok := any(src).([]float32); ok && n.Op == "GlobalAveragePool" {
		for c := range t.Shape()[0] * t.Shape()[1] {
			out[c] = T(vector.Sum(v[c*plane:(c+1)*plane]) / float64(max(plane, 1)))
		}
		return x.one(o, nil)
	}
	weights := w.weights
	if v, ok := any(src).([]float32); ok && p == 0 && len(out) > 0 && w.Taps <= mostSummed && w.layout != nil {
		return x.one(o, meansOfWindows(x, w.layout, weights, any(out).([]float32), v))
	}
	for c := range t.Shape()[0] * t.Shape()[1] {
		from, to := src[c*plane:(c+1)*plane], out[c*positions:(c+1)*positions]
		for i := range positions {
			weight := 1.0
			if weights != nil {
				weight = weights[i]
			}
			to[i] = T(meanOf(from, w.Index()[i*w.Taps:(i+1)*w.Taps], weight, p))
		}
	}
	return x.one(o, nil)
}

// LpOf is the p of an LpPool node.
func LpOf(n *Node) float64 {
	if a, ok := n.Attrs["p"]; ok {
		return float64(a.Int)
	}
	return 2
}

// meanOf is the mean of a window, or its p-norm where p is above 0.
func meanOf[T float](plane []T, taps []int32, weight, p float64) float64 {
	sum := 0.0
	if p > 0 {
		for _, at := range taps {
			if at >= 0 {
				sum += math.Pow(math.Abs(float64(plane[at])), p)
			}
		}
		return math.Pow(sum, 1/p)
	}
	for _, at := range taps {
		if at >= 0 {
			sum += float64(plane[at])
		}
	}
	return sum * weight
}

// poolLargest takes the largest element of every window, and tells where among all
// elements it stands where the node asks for that.
func poolLargest[T float](x *Exec, n *Node, w *pooling, src []T, o *engine.Tensor, out []T) ([]*engine.Tensor, error) {
	size, positions := w.Plane(), w.Positions()
	results := x.list(2)
	results[0] = o
	var places *engine.Tensor
	var index []int64
	if len(n.Outputs) > 1 && n.Outputs[1] != "" {
		var err error
		if places, index, err = newOf[int64](x, o.Shape()...); err != nil {
			return nil, err
		}
	}
	if v, ok := any(src).([]float32); ok && n.Op == "GlobalMaxPool" && size > 0 {
		for i := range out {
			out[i] = T(largestAll(v[i*size : (i+1)*size]))
		}
		return results, nil
	}
	columns := n.Attrs["storage_order"].Int == 1
	if index == nil && len(out) > 0 && w.layout != nil {
		return results, mostOfWindows(x, w.layout, out, src)
	}
	for i := range out {
		c, p := i/positions, i%positions
		at := largestOf(src[c*size:(c+1)*size], w.Index()[p*w.Taps:(p+1)*w.Taps])
		if out[i] = T(math.Inf(-1)); at >= 0 {
			out[i] = src[c*size+at]
		}
		if index == nil {
			continue
		}
		if columns && at >= 0 {
			at = w.columnMajor(at)
		}
		index[i] = int64(c*size + at)
	}
	results[1] = places
	return results, nil
}

// mostOfWindows takes the largest element of every window, plane by plane.
func mostOfWindows[T float](x *Exec, l *layout, out, src []T) error {
	size, positions, plane, flat := l.size(), l.outs*l.width, l.height*l.wide, l.flat(l.outs)
	if err := x.reserve(dtypeOf[T](), size+flat); err != nil {
		return err
	}
	bottom := T(math.Inf(-1))
	borrowed(size+flat, func(v []T) {
		phases, most := v[:size], v[size:]
		for c := range len(out) / positions {
			fill(l, phases, src[c*plane:][:plane], bottom)
			if from, ok := any(phases).([]float32); ok {
				vector.Most(any(most).([]float32), from, l.offsets, float32(bottom))
			} else {
				pad(most, bottom)
				for _, o := range l.offsets {
					for i, e := range phases[o:][:flat] {
						most[i] = max(most[i], e)
					}
				}
			}
			unpadded(l, out[c*positions:], most, l.outs)
		}
	})
	return nil
}

// mostSummed is up to how many elements a window's mean is of their sum in float32.
const mostSummed = 64

// meansOfWindows takes the mean of every window, plane by plane: the sum of its elements
// and of zeros for its padding, times its weight.
func meansOfWindows(x *Exec, l *layout, weights []float64, out, src []float32) error {
	positions, taps := l.outs*l.width, len(l.offsets)
	planes := len(out) / positions
	if err := x.reserve(engine.Float32, positions+taps+(l.size()+l.flat(l.outs))*min(max(x.threads, 1), planes)); err != nil {
		return err
	}
	scale, ones := scratchOf[float32](x, positions), scratchOf[float32](x, taps)
	for i, w := range weights {
		scale[i] = float32(w)
	}
	pad(ones, 1)
	share(x, x.inRows(planes, positions*taps/4), planes, windowMeans{l, out, src, scale, ones})
	return nil
}

// windowMeans is planes of windows whose means are taken.
type windowMeans struct {
	l                     *layout
	out, src, scale, ones []float32
}

func (w *windowMeans) part(from, to int) {
	l := w.l
	size, positions, plane := l.size(), l.outs*l.width, l.height*l.wide
	borrowed(size+l.flat(l.outs), func(v []float32) {
		phases, sums := v[:size], v[size:]
		for c := from; c < to; c++ {
			fill(l, phases, w.src[c*plane:][:plane], 0)
			vector.Taps(sums, phases, w.ones, l.offsets, 0)
			means := w.out[c*positions:][:positions]
			unpadded(l, means, sums, l.outs)
			vector.Binary(vector.Mul, means, means, w.scale)
		}
	})
}

// largestAll is the largest of v, NaN where one is.
func largestAll(v []float32) float32 {
	const lanes = 256
	top := float32(0)
	borrowed(min(len(v), lanes), func(most []float32) {
		n := copy(most, v)
		for at := n; at < len(v); at += n {
			k := min(n, len(v)-at)
			vector.Binary(vector.Max, most[:k], most[:k], v[at:at+k])
		}
		top = slices.Max(most)
	})
	return top
}

// largestOf is the place of a window's largest element, or of a NaN in it; below 0
// where all of it is padding.
func largestOf[T float](plane []T, taps []int32) int {
	from := -1
	var best T
	for _, at := range taps {
		if at >= 0 && (from < 0 || plane[at] > best || plane[at] != plane[at]) {
			best, from = plane[at], int(at)
		}
	}
	return from
}

// columnMajor is the place of element at of a plane where the first axis runs fastest.
func (w *Windows) columnMajor(at int) int {
	strides := rowMajor(w.In)
	to, step := 0, 1
	for i, s := range strides {
		to += at / s % w.In[i] * step
		step *= w.In[i]
	}
	return to
}

func init() {
	pool := opDef{since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, half: true, build: buildPool}
	largest := pool
	largest.accept, largest.maxOut, largest.result = numericTypes, 2, firstThenInt64
	lp := pool
	lp.since = 2
	register(DomainONNX, map[string]opDef{
		"MaxPool": largest, "AveragePool": pool, "GlobalMaxPool": pool, "GlobalAveragePool": pool, "LpPool": lp, "GlobalLpPool": lp,
	})
}
