package graph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// LinearMap is an operator that is linear in its first input: each output element
// is a weighted sum of some elements of that, the others only say which and how
// much. The transpose of it is its gradient.
type LinearMap struct {
	// Shape is the output's.
	Shape []int
	// Each visits the pairs of elements that a weight joins.
	Each func(f func(out, in int, weight float64))
	// bias is what channel c of the output begins with, where there is one.
	bias []float64
	// weights is about how many there are, 0 where no more than the work of the
	// operator itself; fast32 and fast64 compute it with fewer.
	weights float64
	// scratch is the numbers that computing it needs room for.
	scratch int
	fast32  func(y, x []float32)
	fast64  func(y, x []float64)
}

// maxWeights bounds the weights that a gradient walks.
const maxWeights = 1 << 33

// linearMaps holds what makes the map of each such operator for its inputs.
var linearMaps = map[string]func(n *Node, in []*engine.Tensor) (*LinearMap, error){}

// NewLinearMap returns the map of node n for these inputs. ok is false where its
// operator is no linear one.
func NewLinearMap(n *Node, in []*engine.Tensor) (m *LinearMap, ok bool, err error) {
	mapOf, ok := linearMaps[n.Op]
	if !ok || n.Domain != DomainONNX || n.Op == "RoiAlign" && roiMax(n) {
		return nil, false, nil
	}
	m, err = mapOf(n, in)
	if err == nil && m.weights > maxWeights {
		err = fmt.Errorf("a map of %v weights: %w", m.weights, engine.ErrTooLarge)
	}
	return m, true, err
}

// IsLinearMap reports whether NewLinearMap has a map for n.
func IsLinearMap(n *Node) bool {
	return linearMaps[n.Op] != nil && n.Domain == DomainONNX && !(n.Op == "RoiAlign" && roiMax(n))
}

// linearOp registers an operator. check refuses at load what its map does not do.
func linearOp(op string, def opDef, check func(b *builder) error, mapOf func(n *Node, in []*engine.Tensor) (*LinearMap, error)) {
	linearMaps[op] = mapOf
	def.build = func(b *builder) (Kernel, error) {
		if err := check(b); err != nil {
			return nil, err
		}
		n := b.node
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			m, err := mapOf(n, in)
			if err != nil {
				return nil, err
			}
			o, err := x.New(in[0].DType(), m.Shape...)
			if err != nil {
				return nil, err
			}
			if err := x.reserve(engine.Float64, m.scratch); err != nil {
				return nil, err
			}
			if v := engine.Data[float32](in[0]); v != nil && m.fast32 != nil {
				m.fast32(engine.Data[float32](o), v)
				return one(o, nil)
			}
			v, err := floats(x, in[0])
			if err != nil {
				return nil, err
			}
			if err := x.reserve(engine.Float64, o.Len()); err != nil {
				return nil, err
			}
			y := make64(o.Len(), m)
			if m.fast64 != nil {
				m.fast64(y, v)
			} else if n.Op == "RoiAlign" && roiMax(n) {
				m.largest(y, v)
			} else {
				m.Each(func(out, in int, w float64) { y[out] += w * v[in] })
			}
			return one(o, storeFloats(o, y))
		}, nil
	}
	register(DomainONNX, map[string]opDef{op: def})
}

func make64(n int, m *LinearMap) []float64 {
	y := make([]float64, n)
	if m.bias != nil {
		plane := volume(m.Shape[2:])
		for i := range y {
			y[i] = m.bias[i/plane%len(m.bias)]
		}
	}
	return y
}

// largest takes the largest of the weighed elements instead of their sum.
func (m *LinearMap) largest(y, v []float64) {
	seen := make([]bool, len(y))
	m.Each(func(out, in int, w float64) {
		if e := w * v[in]; !seen[out] || e > y[out] {
			y[out], seen[out] = e, true
		}
	})
}

// tap is an element of an axis that a point between elements reads; below 0 it is
// outside and reads nothing.
type tap struct {
	at     int
	weight float64
}

// sampler holds what a GridSample node says.
type sampler struct {
	mode, padding string
	align         bool
}

func readSampler(n *Node) sampler {
	s := sampler{mode: "linear", padding: "zeros", align: n.Attrs["align_corners"].Int == 1}
	if m := n.Attrs["mode"].String; m != "" {
		s.mode = map[string]string{"bilinear": "linear", "bicubic": "cubic"}[m]
		if s.mode == "" {
			s.mode = m
		}
	}
	if p := n.Attrs["padding_mode"].String; p != "" {
		s.padding = p
	}
	return s
}

// taps returns what point p of an axis of n elements reads.
func (s sampler) taps(p float64, n int) []tap {
	x := ((p+1)*float64(n) - 1) / 2
	if s.align {
		x = (p + 1) / 2 * float64(n-1)
	}
	if !(math.Abs(x) < 1<<30) {
		x = math.Copysign(1<<30, x) // NaN too is outside
	}
	low := math.Floor(x)
	d := x - low
	var list []tap
	switch s.mode {
	case "nearest":
		list = []tap{{s.inside(math.RoundToEven(x), n), 1}}
	case "linear":
		list = []tap{{s.inside(low, n), 1 - d}, {s.inside(low+1, n), d}}
	default:
		for k := -1.0; k <= 2; k++ {
			list = append(list, tap{s.inside(low+k, n), cubicWeight(math.Abs(k-d), -0.75)})
		}
	}
	return list
}

// inside brings an index onto the axis.
func (s sampler) inside(i float64, n int) int {
	last := float64(n - 1)
	switch s.padding {
	case "border":
		return int(min(max(i, 0), last))
	case "reflection":
		lo, hi := -0.5, last+0.5
		if s.align {
			lo, hi = 0, last
		}
		return int(min(max(reflect(i, lo, hi), 0), last))
	}
	if i < 0 || i > last {
		return -1
	}
	return int(i)
}

// reflect folds x into [lo, hi] at its ends.
func reflect(x, lo, hi float64) float64 {
	span := hi - lo
	if span <= 0 {
		return lo
	}
	d := math.Mod(math.Abs(x-lo), 2*span)
	if d > span {
		d = 2*span - d
	}
	return lo + d
}

func checkSampler(b *builder) error {
	mode, padding := b.attrs.string("mode", "linear"), b.attrs.string("padding_mode", "zeros")
	b.attrs.int("align_corners", 0)
	if !slices.Contains([]string{"linear", "bilinear", "nearest", "cubic", "bicubic"}, mode) || !slices.Contains([]string{"zeros", "border", "reflection"}, padding) {
		return b.node.unsupported("mode %q with padding %q", mode, padding)
	}
	return nil
}

// maxSampled bounds the dimensions between whose elements a point may lie: each
// doubles or quadruples what it reads.
const maxSampled = 5

func gridSample(n *Node, in []*engine.Tensor) (*LinearMap, error) {
	s := readSampler(n)
	shape, g := in[0].Shape(), in[1].Shape()
	r := len(shape) - 2
	if r < 1 || r > maxSampled || len(g) != len(shape) || g[0] != shape[0] || g[len(g)-1] != r || slices.Contains(shape[2:], 0) {
		return nil, fmt.Errorf("a grid of shape %v over an input of %v", g, shape)
	}
	grid, ok := in[1].Float64s()
	if !ok {
		return nil, typeError(in[1])
	}
	outs := volume(g[1 : len(g)-1])
	plane, strides := volume(shape[2:]), rowMajor(shape[2:])
	m := &LinearMap{Shape: slices.Concat(shape[:2], g[1:len(g)-1])}
	m.Each = func(f func(out, in int, weight float64)) {
		axes := make([][]tap, r)
		for i := range shape[0] * outs {
			for k := range axes {
				// A grid's coordinates begin with the last axis.
				axes[k] = s.taps(grid[i*r+r-1-k], shape[2+k])
			}
			for c := range shape[1] {
				ch := i/outs*shape[1] + c
				mixed(axes, strides, 0, 1, func(at int, w float64) { f(ch*outs+i%outs, ch*plane+at, w) })
			}
		}
	}
	return m, nil
}

// mixed visits the elements that the axes' taps meet at.
func mixed(axes [][]tap, strides []int, at int, w float64, f func(at int, w float64)) {
	if len(axes) == 0 {
		f(at, w)
		return
	}
	for _, t := range axes[0] {
		if t.at >= 0 && t.weight != 0 {
			mixed(axes[1:], strides[1:], at+t.at*strides[0], w*t.weight, f)
		}
	}
}

func roiMax(n *Node) bool { return n.Attrs["mode"].String == "max" }

// maxSamples bounds the points that regions are sampled at.
const maxSamples = 1 << 24

func checkRoiAlign(b *builder) error {
	mode, coordinates := b.attrs.string("mode", "avg"), b.attrs.string("coordinate_transformation_mode", "half_pixel")
	h, w, ratio := b.attrs.int("output_height", 1), b.attrs.int("output_width", 1), b.attrs.int("sampling_ratio", 0)
	b.attrs.float("spatial_scale", 1)
	if mode != "avg" && mode != "max" || coordinates != "half_pixel" && coordinates != "output_half_pixel" || h < 1 || w < 1 || h > maxIndex || w > maxIndex || ratio < 0 {
		return b.node.corrupt("mode %q, coordinates %q, %d by %d with %d samples", mode, coordinates, h, w, ratio)
	}
	return nil
}

// region is one axis of a region of interest: where it begins, how large each of its
// bins is and how many samples one takes.
type region struct {
	start, bin float64
	samples, n int
	// round is what the type of corners makes of each step's number. Whether a sample is
	// inside, and how many there are, hangs on it where corners meet elements.
	round func(v float64) float64
}

func newRegion(lo, hi, offset float64, bins, ratio, n int, round func(v float64) float64) (region, error) {
	lo, hi = round(round(lo)-offset), round(round(hi)-offset)
	size := round(hi - lo)
	if offset == 0 {
		size = max(size, 1)
	}
	r := region{start: lo, bin: round(size / float64(bins)), samples: ratio, n: n, round: round}
	if ratio == 0 {
		s := math.Ceil(r.bin)
		if !(s < maxSamples) {
			return r, fmt.Errorf("a region of %v: %w", size, engine.ErrTooLarge)
		}
		r.samples = max(int(s), 0)
	}
	return r, nil
}

// taps returns what sample k of a bin reads, nil where it is outside.
func (r *region) taps(bin, k int) []tap {
	p := r.round(r.round(r.start+r.round(float64(bin)*r.bin)) + r.round(r.round((float64(k)+0.5)*r.bin)/float64(r.samples)))
	if !(p >= -1 && p <= float64(r.n)) {
		return nil
	}
	p = max(p, 0)
	low := int(p)
	if low >= r.n-1 {
		return []tap{{r.n - 1, 1}, {r.n - 1, 0}}
	}
	return []tap{{low, 1 - (p - float64(low))}, {low + 1, p - float64(low)}}
}

// roiAttrs are the bins, samples a bin, scale and offset of a RoiAlign node.
func roiAttrs(n *Node) (bins [2]int, ratio int, scale, offset float64) {
	bins, scale = [2]int{1, 1}, 1
	for i, name := range []string{"output_height", "output_width"} {
		if a, ok := n.Attrs[name]; ok {
			bins[i] = int(a.Int)
		}
	}
	if a, ok := n.Attrs["spatial_scale"]; ok {
		scale = float64(a.Float)
	}
	if n.Version >= 16 && n.Attrs["coordinate_transformation_mode"].String != "output_half_pixel" {
		offset = 0.5
	}
	return bins, int(n.Attrs["sampling_ratio"].Int), scale, offset
}

func roiAlign(n *Node, in []*engine.Tensor) (*LinearMap, error) {
	shape, rois := in[0].Shape(), in[1].Shape()
	batch, err := intsOf(in[2])
	if err != nil {
		return nil, err
	}
	boxes, ok := in[1].Float64s()
	if len(shape) != 4 || len(rois) != 2 || rois[1] != 4 || len(batch) != rois[0] || !ok || volume(shape[2:]) == 0 {
		return nil, fmt.Errorf("regions of shape %v, %d of them, over an input of %v", rois, len(batch), shape)
	}
	bins, ratio, scale, offset := roiAttrs(n)
	list, round := make([][2]region, rois[0]), func(v float64) float64 { return v }
	if in[1].DType() == engine.Float32 {
		round = func(v float64) float64 { return float64(float32(v)) }
	}
	total := 0
	for i := range list {
		if batch[i] < 0 || batch[i] >= shape[0] {
			return nil, outsideAxis(shape[0])
		}
		b := boxes[4*i:]
		for k := range 2 {
			if list[i][k], err = newRegion(b[1-k]*scale, b[3-k]*scale, offset, bins[k], ratio, shape[2+k], round); err != nil {
				return nil, err
			}
		}
		if total += list[i][0].samples * list[i][1].samples; total > maxSamples || total > maxSamples*16/(bins[0]*bins[1]) {
			return nil, fmt.Errorf("regions of %d samples a bin: %w", total, engine.ErrTooLarge)
		}
	}
	m := &LinearMap{Shape: []int{rois[0], shape[1], bins[0], bins[1]}}
	m.Each = func(f func(out, in int, weight float64)) {
		for i := range list {
			for bin := range bins[0] * bins[1] {
				visitBin(&list[i], bin/bins[1], bin%bins[1], shape[3], func(at int, w float64) {
					for c := range shape[1] {
						f((i*shape[1]+c)*bins[0]*bins[1]+bin, (batch[i]*shape[1]+c)*shape[2]*shape[3]+at, w)
					}
				}, roiMax(n))
			}
		}
	}
	if most := 4 * largestRegion(list) * bins[0] * bins[1]; most <= fewTaps && !roiMax(n) {
		m.scratch = 2*most + bins[0]*bins[1]
		m.fast32 = func(y, x []float32) { roiMeans(y, x, list, batch, bins, shape) }
	}
	return m, nil
}

// fewTaps bounds what is kept of a region's taps while its channels are computed.
const fewTaps = 1 << 18

// largestRegion is the most samples that a bin of one of them takes.
func largestRegion(list [][2]region) int {
	most := 0
	for i := range list {
		most = max(most, list[i][0].samples*list[i][1].samples)
	}
	return most
}

// roiMeans computes the bins of averaged regions: what a region's bins read is found once,
// and every channel is summed by it, in the order in which Each has it.
func roiMeans(y, x []float32, list [][2]region, batch []int, bins [2]int, shape []int) {
	n, plane := bins[0]*bins[1], shape[2]*shape[3]
	taps, ends := []tap(nil), make([]int, n)
	for i := range list {
		taps = taps[:0]
		for bin := range n {
			visitBin(&list[i], bin/bins[1], bin%bins[1], shape[3], func(at int, w float64) { taps = append(taps, tap{at, w}) }, false)
			ends[bin] = len(taps)
		}
		for c := range shape[1] {
			from := x[(batch[i]*shape[1]+c)*plane:][:plane]
			to, first := y[(i*shape[1]+c)*n:][:n], 0
			for bin, end := range ends {
				sum := 0.0
				for _, t := range taps[first:end] {
					sum += t.weight * float64(from[t.at])
				}
				to[bin], first = float32(sum), end
			}
		}
	}
}

// visitBin visits what the samples of a bin read; of a largest one, zeros too.
func visitBin(r *[2]region, y, x, width int, f func(at int, w float64), largest bool) {
	share := 1 / float64(max(r[0].samples*r[1].samples, 1))
	if largest {
		share = 1
	}
	for s := range r[0].samples * r[1].samples {
		ty, tx := r[0].taps(y, s/r[1].samples), r[1].taps(x, s%r[1].samples)
		if largest && (ty == nil || tx == nil) {
			f(0, 0)
			continue
		}
		for k := range len(ty) * len(tx) {
			a, b := ty[k/len(tx)], tx[k%len(tx)]
			if w := a.weight * b.weight * share; w != 0 || largest {
				f(a.at*width+b.at, w)
			}
		}
	}
}

// col2Im adds the columns of windows up where they lie in the image.
func col2Im(n *Node, in []*engine.Tensor) (*LinearMap, error) {
	image, err := intsOf(in[1])
	if err != nil {
		return nil, err
	}
	block, err := intsOf(in[2])
	if err != nil {
		return nil, err
	}
	shape := in[0].Shape()
	if _, err := engine.Elements(image); err != nil || len(shape) != 3 {
		return nil, misfit("columns of shape %v for an image of %d dimensions, or one of nothing", shape, len(image))
	}
	w, err := NewWindows(n, append([]int{1, 1}, image...), block)
	if errors.Is(err, engine.ErrTooLarge) {
		return nil, err
	}
	if err != nil {
		return nil, misfit("blocks of %d dimensions do not fit an image of %d", len(block), len(image)) // both may be values
	}
	if shape[1]%w.Taps != 0 || shape[2] != w.Positions() {
		return nil, misfit("columns of shape %v for an image of other windows", shape)
	}
	channels, plane, positions := shape[1]/w.Taps, w.Plane(), w.Positions()
	m := &LinearMap{Shape: append([]int{shape[0], channels}, image...)}
	m.Each = func(f func(out, in int, weight float64)) {
		for c := range shape[0] * channels {
			for k := range w.Taps {
				for p := range positions {
					if at := w.Index()[p*w.Taps+k]; at >= 0 {
						f(c*plane+int(at), (c*w.Taps+k)*positions+p, 1)
					}
				}
			}
		}
	}
	return m, nil
}

func windowAttrsOnly(names ...string) func(b *builder) error {
	return func(b *builder) error {
		for _, name := range names {
			b.attrs.ints(name)
		}
		b.attrs.int("group", 1)
		b.attrs.int("offset_group", 1)
		return nil
	}
}

// maxUnpool puts elements back where MaxPool took them from.
func maxUnpool(n *Node, in []*engine.Tensor) (*LinearMap, error) {
	shape := in[0].Shape()
	d := len(shape) - 2
	kernel := toInts(n.Attrs["kernel_shape"].Ints)
	if d < 1 || len(kernel) != d || !slices.Equal(in[1].Shape(), shape) {
		return nil, fmt.Errorf("indices of shape %v for %v, a kernel %v", in[1].Shape(), shape, kernel)
	}
	w, err := windowAttrs(n, d)
	if err != nil {
		return nil, err
	}
	inferred := slices.Clone(shape)
	for i := range d {
		inferred[2+i] = (shape[2+i]-1)*w.strides[i] - w.before[i] - w.after[i] + kernel[i]
	}
	total, err := engine.Elements(inferred)
	if err != nil || total > maxIndex {
		return nil, fmt.Errorf("an image of shape %v: %w", inferred, engine.ErrTooLarge)
	}
	index, err := positions(in[1], total)
	if err != nil {
		return nil, err
	}
	m := &LinearMap{Shape: inferred, scratch: 8 * len(index)}
	if t := arg(in, 2); t != nil {
		if m.Shape, err = intsOf(t); err != nil {
			return nil, err
		}
		fits := len(m.Shape) == len(shape)
		for i := 0; fits && i < len(shape); i++ {
			fits = m.Shape[i] >= inferred[i]
		}
		if !fits {
			return nil, misfit("an output of %d dimensions, or a smaller one, for an image of %v", len(m.Shape), inferred)
		}
	}
	last := make(map[int]int, len(index)) // of several at one place the last stays
	for i, at := range index {
		last[at] = i
	}
	from, to := rowMajor(inferred), rowMajor(m.Shape)
	m.Each = func(f func(out, in int, weight float64)) {
		for i, at := range index {
			if last[at] != i {
				continue
			}
			out := 0
			for k := range inferred {
				out += at / from[k] % inferred[k] * to[k]
			}
			f(out, i, 1)
		}
	}
	return m, nil
}

// deformed is the geometry of a DeformConv node.
type deformed struct {
	w              *Windows
	shape, weights []int
	groups, offs   int
	kernel, offset []float64
	mask           []float64
}

// deformConv is a convolution whose windows' elements are moved, each by an offset.
func deformConv(n *Node, in []*engine.Tensor) (*LinearMap, error) {
	g := &deformed{groups: 1, offs: 1, shape: in[0].Shape(), weights: in[1].Shape()}
	if a, ok := n.Attrs["group"]; ok {
		g.groups = int(a.Int)
	}
	if a, ok := n.Attrs["offset_group"]; ok {
		g.offs = int(a.Int)
	}
	if len(g.shape) != 4 || len(g.weights) != 4 || g.groups < 1 || g.offs < 1 || g.shape[1] != g.weights[1]*g.groups || g.weights[0]%g.groups != 0 || g.shape[1]%g.offs != 0 {
		return nil, fmt.Errorf("input %v and weights %v in %d groups, %d of offsets", g.shape, g.weights, g.groups, g.offs)
	}
	var err error
	if g.w, err = NewWindows(n, g.shape, g.weights[2:]); err != nil {
		return nil, err
	}
	taps := g.offs * g.w.Taps
	if want := []int{g.shape[0], 2 * taps, g.w.Out[0], g.w.Out[1]}; !slices.Equal(in[2].Shape(), want) {
		return nil, fmt.Errorf("offsets of shape %v, want %v", in[2].Shape(), want)
	}
	m := &LinearMap{Shape: append([]int{g.shape[0], g.weights[0]}, g.w.Out...)}
	g.kernel, _ = in[1].Float64s()
	g.offset, _ = in[2].Float64s()
	if t := arg(in, 3); t != nil {
		if m.bias, _ = t.Float64s(); len(m.bias) != g.weights[0] {
			return nil, fmt.Errorf("bias of %d elements for %d channels", t.Len(), g.weights[0])
		}
	}
	if t := arg(in, 4); t != nil {
		if want := []int{g.shape[0], taps, g.w.Out[0], g.w.Out[1]}; !slices.Equal(t.Shape(), want) {
			return nil, fmt.Errorf("mask of shape %v, want %v", t.Shape(), want)
		}
		g.mask, _ = t.Float64s()
	}
	m.Each = g.each
	return m, nil
}

func (g *deformed) each(f func(out, in int, weight float64)) {
	positions, plane, taps := g.w.Positions(), g.w.Plane(), g.w.Taps
	perGroup, outs := g.weights[1], g.weights[0]/g.groups
	for line := range g.shape[0] * g.shape[1] {
		b, ic := line/g.shape[1], line%g.shape[1]
		og := ic / (g.shape[1] / g.offs)
		for i := range taps * positions {
			k, p := i/positions, i%positions
			g.sample(b, og, k, p, func(at int, w float64) {
				for o := range outs {
					oc := ic/perGroup*outs + o
					f((b*g.weights[0]+oc)*positions+p, line*plane+at, w*g.kernel[(oc*perGroup+ic%perGroup)*taps+k])
				}
			})
		}
	}
}

// sample visits the elements around where element k of window p has been moved to.
func (g *deformed) sample(b, og, k, p int, f func(at int, w float64)) {
	positions := g.w.Positions()
	at := func(list, i int) int { return (b*g.offs*g.w.Taps*list+i)*positions + p }
	weight := 1.0
	if g.mask != nil {
		weight = g.mask[at(1, og*g.w.Taps+k)]
	}
	var axes [2][]tap
	for i := range 2 {
		place, tapAt := p%g.w.Out[1], k%g.w.Kernel[1]
		if i == 0 {
			place, tapAt = p/g.w.Out[1], k/g.w.Kernel[1]
		}
		x := float64(place*g.w.strides[i]+tapAt*g.w.dilations[i]-g.w.before[i]) + g.offset[at(2, 2*(og*g.w.Taps+k)+i)]
		if !(math.Abs(x) < 1<<30) {
			return
		}
		low := math.Floor(x)
		plain := sampler{padding: "zeros"}
		axes[i] = []tap{{plain.inside(low, g.w.In[i]), 1 - (x - low)}, {plain.inside(low+1, g.w.In[i]), x - low}}
	}
	mixed(axes[:], []int{g.w.In[1], 1}, 0, weight, f)
}

func init() {
	linearOp("GridSample", opDef{since: 16, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true}, checkSampler, gridSample)
	linearOp("RoiAlign", opDef{since: 10, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, checkRoiAlign, roiAlign)
	linearOp("Col2Im", opDef{since: 18, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, windowAttrsOnly("dilations", "pads", "strides"), col2Im)
	linearOp("MaxUnpool", opDef{since: 9, minIn: 2, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, windowAttrsOnly("kernel_shape", "pads", "strides"), maxUnpool)
	linearOp("DeformConv", opDef{since: 19, minIn: 3, maxIn: 5, maxOut: 1, accept: floatTypes, half: true},
		windowAttrsOnly("dilations", "kernel_shape", "pads", "strides"), deformConv)
}
