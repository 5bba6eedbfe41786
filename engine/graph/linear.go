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
var linearMaps = map[string]func(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error){}

// NewLinearMap returns the map of node n for these inputs. ok is false where its
// operator is no linear one.
func NewLinearMap(n *Node, in []*engine.Tensor) (m *LinearMap, ok bool, err error) {
	mapOf, ok := linearMaps[n.Op]
	if !ok || n.Domain != DomainONNX || n.Op == "RoiAlign" && roiMax(n) {
		return nil, false, nil
	}
	m, err = mapOf(new(Exec), n, in)
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
func linearOp(op string, def opDef, check func(b *builder) error, mapOf func(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error)) {
	linearMaps[op] = mapOf
	def.build = func(b *builder) (Kernel, error) {
		if err := check(b); err != nil {
			return nil, err
		}
		n := b.node
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			m, err := mapOf(x, n, in)
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
				return x.one(o, nil)
			}
			v, err := floats(x, in[0])
			if err != nil {
				return nil, err
			}
			if err := x.reserve(engine.Float64, o.Len()); err != nil {
				return nil, err
			}
			y := m.beginning(x, o.Len())
			if m.fast64 != nil {
				m.fast64(y, v)
			} else {
				w := keptOf[weighing](x)
				w.y, w.v = y, v
				m.Each(w.by(x, n.Op == "RoiAlign" && roiMax(n)))
			}
			return x.one(o, storeFloats(o, y))
		}, nil
	}
	register(DomainONNX, map[string]opDef{op: def})
}

// beginning is what the elements begin with.
func (m *LinearMap) beginning(x *Exec, n int) []float64 {
	y := x.wide(n)
	if m.bias == nil {
		clear(y)
		return y
	}
	plane := volume(m.Shape[2:])
	for i := range y {
		y[i] = m.bias[i/plane%len(m.bias)]
	}
	return y
}

func (m *LinearMap) begin() { *m = LinearMap{} }

// weighing is the elements that a map is applied to. Its functions are kept with it.
type weighing struct {
	y, v     []float64
	seen     []bool
	add, top func(out, in int, w float64)
}

func (w *weighing) begin() { w.y, w.v, w.seen = nil, nil, nil }

// by returns what adds weighed elements up, or takes the largest of them.
func (w *weighing) by(x *Exec, largest bool) func(out, in int, w float64) {
	if w.add == nil {
		w.add, w.top = w.sum, w.largest
	}
	if !largest {
		return w.add
	}
	w.seen = x.seen(len(w.y))
	return w.top
}

func (w *weighing) sum(out, in int, weight float64) { w.y[out] += weight * w.v[in] }

func (w *weighing) largest(out, in int, weight float64) {
	if e := weight * w.v[in]; !w.seen[out] || e > w.y[out] {
		w.y[out], w.seen[out] = e, true
	}
}

// pairsOf are the pairs of elements that a map joins.
type pairsOf[G any] interface {
	*G
	each(f func(out, in int, weight float64))
}

// pairs are such with what visits them, which is no closure and is kept, so that the next run
// makes no object.
type pairs[G any, P pairsOf[G]] struct {
	g    G
	each func(f func(out, in int, weight float64))
}

func (p *pairs[G, P]) begin() {
	var none G
	p.g = none
}

// eachOf is LinearMap.Each of g.
func eachOf[G any, P pairsOf[G]](x *Exec, g G) func(f func(out, in int, weight float64)) {
	p := keptOf[pairs[G, P]](x)
	if p.each == nil {
		p.each = func(f func(out, in int, weight float64)) { P(&p.g).each(f) }
	}
	p.g = g
	return p.each
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
	switch m := n.Attrs["mode"].String; m {
	case "", "bilinear":
	case "bicubic":
		s.mode = "cubic"
	default:
		s.mode = m
	}
	if p := n.Attrs["padding_mode"].String; p != "" {
		s.padding = p
	}
	return s
}

// taps appends to list what point p of an axis of n elements reads.
func (s sampler) taps(list []tap, p float64, n int) []tap {
	x := s.place(p, n)
	if !(math.Abs(x) < 1<<30) {
		x = math.Copysign(1<<30, x) // NaN too is outside
	}
	low := math.Floor(x)
	d := x - low
	switch s.mode {
	case "nearest":
		list = append(list, tap{s.inside(math.RoundToEven(x), n), 1})
	case "linear":
		list = append(list, tap{s.inside(low, n), 1 - d}, tap{s.inside(low+1, n), d})
	default:
		for k := -1.0; k <= 2; k++ {
			list = append(list, tap{s.inside(low+k, n), cubicWeight(math.Abs(k-d), -0.75)})
		}
	}
	return list
}

// place is where on an axis of n elements point p is.
func (s sampler) place(p float64, n int) float64 {
	if s.align {
		return (p + 1) / 2 * float64(n-1)
	}
	return ((p+1)*float64(n) - 1) / 2
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

// sampled are the pairs of a GridSample node.
type sampled struct {
	sampler
	shape, strides []int
	grid           []float64
	outs, plane    int
	axes           [maxSampled][]tap
	taps           [maxSampled][4]tap
}

func gridSample(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	s, err := sampledOf(x, n, in)
	if err != nil {
		return nil, err
	}
	m := keptOf[LinearMap](x)
	m.Shape = x.joined(s.shape[:2], in[1].Shape()[1:len(s.shape)-1])
	m.Each = eachOf(x, s)
	if g := samplesOf(x, &s); g != nil {
		m.fast32, m.scratch = g.run, g.taps*g.outs
	}
	return m, nil
}

func sampledOf(x *Exec, n *Node, in []*engine.Tensor) (s sampled, err error) {
	shape, g := in[0].Shape(), in[1].Shape()
	r := len(shape) - 2
	if r < 1 || r > maxSampled || len(g) != len(shape) || g[0] != shape[0] || g[len(g)-1] != r || slices.Contains(shape[2:], 0) {
		return s, fmt.Errorf("a grid of shape %v over an input of %v", g, shape)
	}
	grid, ok := x.float64s(in[1])
	if !ok {
		return s, typeError(in[1])
	}
	return sampled{
		sampler: readSampler(n), shape: shape, strides: x.rowMajor(shape[2:]), grid: grid, outs: volume(g[1 : len(g)-1]), plane: volume(shape[2:]),
	}, nil
}

func (g *sampled) each(f func(out, in int, weight float64)) {
	r, channels, outs, plane := len(g.strides), g.shape[1], g.outs, g.plane
	for i := range g.shape[0] * outs {
		for k := range r {
			// A grid's coordinates begin with the last axis.
			g.axes[k] = g.sampler.taps(g.taps[k][:0], g.grid[i*r+r-1-k], g.shape[2+k])
		}
		for c := range channels {
			ch := i/outs*channels + c
			mixed(g.axes[:r], g.strides, 0, 1, func(at int, w float64) { f(ch*outs+i%outs, ch*plane+at, w) })
		}
	}
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
	// single says that corners are of float32, as each step's number then is. Whether a sample
	// is inside, and how many there are, hangs on it where corners meet elements.
	single bool
}

func (r *region) round(v float64) float64 {
	if r.single {
		return float64(float32(v))
	}
	return v
}

func newRegion(lo, hi, offset float64, bins, ratio, n int, single bool) (region, error) {
	r := region{samples: ratio, n: n, single: single}
	lo, hi = r.round(r.round(lo)-offset), r.round(r.round(hi)-offset)
	size := r.round(hi - lo)
	if offset == 0 {
		size = max(size, 1)
	}
	r.start, r.bin = lo, r.round(size/float64(bins))
	if ratio == 0 {
		s := math.Ceil(r.bin)
		if !(s < maxSamples) {
			return r, fmt.Errorf("a region of %v: %w", size, engine.ErrTooLarge)
		}
		r.samples = max(int(s), 0)
	}
	return r, nil
}

// taps returns what sample k of a bin reads; ok is false where it is outside.
func (r *region) taps(bin, k int) (list [2]tap, ok bool) {
	p := r.round(r.round(r.start+r.round(float64(bin)*r.bin)) + r.round(r.round((float64(k)+0.5)*r.bin)/float64(r.samples)))
	if !(p >= -1 && p <= float64(r.n)) {
		return list, false
	}
	p = max(p, 0)
	low := int(p)
	if low >= r.n-1 {
		return [2]tap{{r.n - 1, 1}, {r.n - 1, 0}}, true
	}
	return [2]tap{{low, 1 - (p - float64(low))}, {low + 1, p - float64(low)}}, true
}

// roiAttrs are the bins, samples a bin, scale and offset of a RoiAlign node.
func roiAttrs(n *Node) (bins [2]int, ratio int, scale, offset float64) {
	bins, scale = [2]int{1, 1}, 1
	for i, name := range [...]string{"output_height", "output_width"} {
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

// regions are the pairs of a RoiAlign node.
type regions struct {
	list    [][2]region
	batch   []int
	bins    [2]int
	shape   []int
	largest bool
	x       *Exec
	// most is how many taps a region has at most.
	most int
	// each and means are kept with it.
	visit func(f func(out, in int, weight float64))
	means func(y, x []float32)
}

func (g *regions) begin() { *g = regions{visit: g.visit, means: g.means} }

func roiAlign(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	g, err := regionsOf(x, n, in)
	if err != nil {
		return nil, err
	}
	m := keptOf[LinearMap](x)
	m.Shape, m.Each = x.ints(4), g.visit
	m.Shape[0], m.Shape[1], m.Shape[2], m.Shape[3] = len(g.list), g.shape[1], g.bins[0], g.bins[1]
	if g.most = 4 * largestRegion(g.list) * g.bins[0] * g.bins[1]; g.most <= fewTaps && !g.largest {
		m.scratch = 2*g.most + g.bins[0]*g.bins[1]
		m.fast32 = g.means
	}
	return m, nil
}

func regionsOf(x *Exec, n *Node, in []*engine.Tensor) (*regions, error) {
	shape, rois := in[0].Shape(), in[1].Shape()
	batch, err := x.intsOf(in[2])
	if err != nil {
		return nil, err
	}
	boxes, ok := x.float64s(in[1])
	if len(shape) != 4 || len(rois) != 2 || rois[1] != 4 || len(batch) != rois[0] || !ok || volume(shape[2:]) == 0 {
		return nil, fmt.Errorf("regions of shape %v, %d of them, over an input of %v", rois, len(batch), shape)
	}
	bins, ratio, scale, offset := roiAttrs(n)
	g := keptOf[regions](x)
	if g.visit == nil {
		g.visit, g.means = g.each, g.average
	}
	g.list, g.batch, g.bins, g.shape, g.largest, g.x = scratchOf[[2]region](x, rois[0]), batch, bins, shape, roiMax(n), x
	total := 0
	for i := range g.list {
		if batch[i] < 0 || batch[i] >= shape[0] {
			return nil, outsideAxis(shape[0])
		}
		b := boxes[4*i:]
		for k := range 2 {
			if g.list[i][k], err = newRegion(b[1-k]*scale, b[3-k]*scale, offset, bins[k], ratio, shape[2+k], in[1].DType() == engine.Float32); err != nil {
				return nil, err
			}
		}
		if total += g.list[i][0].samples * g.list[i][1].samples; total > maxSamples || total > maxSamples*16/(bins[0]*bins[1]) {
			return nil, fmt.Errorf("regions of %d samples a bin: %w", total, engine.ErrTooLarge)
		}
	}
	return g, nil
}

// LargestTaps returns, for each element of the result of a RoiAlign node of the largest, the
// element of its images that it is a part of, and which part: the first of those as large, -1
// where its bin has none.
func LargestTaps(n *Node, in []*engine.Tensor) (places []int, weights []float64, err error) {
	m, err := roiAlign(new(Exec), n, in)
	if err != nil {
		return nil, nil, err
	}
	v, _ := in[0].Float64s()
	places, weights = slices.Repeat([]int{-1}, volume(m.Shape)), make([]float64, volume(m.Shape))
	m.Each(func(out, at int, w float64) {
		if best := places[out]; best < 0 || w*v[at] > weights[out]*v[best] {
			places[out], weights[out] = at, w
		}
	})
	return places, weights, nil
}

func (g *regions) each(f func(out, in int, weight float64)) {
	n, plane, channels := g.bins[0]*g.bins[1], g.shape[2]*g.shape[3], g.shape[1]
	for i := range g.list {
		for bin := range n {
			visitBin(&g.list[i], bin/g.bins[1], bin%g.bins[1], g.shape[3], func(at int, w float64) {
				for c := range channels {
					f((i*channels+c)*n+bin, (g.batch[i]*channels+c)*plane+at, w)
				}
			}, g.largest)
		}
	}
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

// average computes the bins of averaged regions: what a region's bins read is found once,
// and every channel is summed by it, in the order in which each has it.
func (g *regions) average(y, x []float32) {
	n, plane, channels := g.bins[0]*g.bins[1], g.shape[2]*g.shape[3], g.shape[1]
	places, weights, ends := roomOf[int64](g.x, g.most), roomOf[float64](g.x, g.most), g.x.ints(n)
	for i := range g.list {
		count := 0
		for bin := range n {
			visitBin(&g.list[i], bin/g.bins[1], bin%g.bins[1], g.shape[3], func(at int, w float64) {
				places[count], weights[count] = int64(at), w
				count++
			}, false)
			ends[bin] = count
		}
		for c := range channels {
			from := x[(g.batch[i]*channels+c)*plane:][:plane]
			to, first := y[(i*channels+c)*n:][:n], 0
			for bin, end := range ends {
				sum := 0.0
				some := weights[first:end]
				for k, at := range places[first:end] {
					sum += some[k] * float64(from[at])
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
		ty, above := r[0].taps(y, s/r[1].samples)
		tx, beside := r[1].taps(x, s%r[1].samples)
		if !above || !beside {
			if largest {
				f(0, 0)
			}
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

// columns are the pairs of a Col2Im node whose windows are of a block in an image.
type columns struct {
	*Windows
	image, block []int
	// channels are those of all images.
	channels int
}

// col2Im adds the columns of windows up where they lie in the image.
func col2Im(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	image, err := x.intsOf(in[1])
	if err != nil {
		return nil, err
	}
	block, err := x.intsOf(in[2])
	if err != nil {
		return nil, err
	}
	shape := in[0].Shape()
	if _, err := engine.Elements(image); err != nil || len(shape) != 3 {
		return nil, misfit("columns of shape %v for an image of %d dimensions, or one of nothing", shape, len(image))
	}
	g := recall[columns](x, in)
	if g == nil || !slices.Equal(g.image, image) || !slices.Equal(g.block, block) {
		w, err := NewWindows(n, append([]int{1, 1}, image...), block)
		if errors.Is(err, engine.ErrTooLarge) {
			return nil, err
		}
		if err != nil {
			return nil, misfit("blocks of %d dimensions do not fit an image of %d", len(block), len(image)) // both may be values
		}
		g = &columns{Windows: w, image: slices.Clone(image), block: slices.Clone(block), channels: shape[0] * (shape[1] / w.Taps)}
		if w.Taps*w.Positions() <= mostRemembered {
			remember(x, in, g)
		}
	}
	if shape[1]%g.Taps != 0 || shape[2] != g.Positions() {
		return nil, misfit("columns of shape %v for an image of other windows", shape)
	}
	m := keptOf[LinearMap](x)
	m.Shape = x.joined(shape[:2], image)
	m.Shape[1] /= g.Taps
	m.Each = eachOf(x, *g)
	return m, nil
}

func (g *columns) each(f func(out, in int, weight float64)) {
	index, plane, positions := g.Index(), g.Plane(), g.Positions()
	for c := range g.channels {
		for k := range g.Taps {
			for p := range positions {
				if at := index[p*g.Taps+k]; at >= 0 {
					f(c*plane+int(at), (c*g.Taps+k)*positions+p, 1)
				}
			}
		}
	}
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

// unpooled are the pairs of a MaxUnpool node.
type unpooled struct {
	index []int
	// from is the strides of the shape that the indices are of, to of the output's.
	inferred, from, to []int
	// keep says which elements no later one takes the place of.
	keep []bool
}

// maxUnpool puts elements back where MaxPool took them from.
func maxUnpool(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	shape := in[0].Shape()
	inferred, err := unpooledShape(x, n, in)
	if err != nil {
		return nil, err
	}
	total, err := engine.Elements(inferred)
	if err != nil || total > maxIndex {
		return nil, fmt.Errorf("an image of shape %v: %w", inferred, engine.ErrTooLarge)
	}
	index, err := x.positions(in[1], total)
	if err != nil {
		return nil, err
	}
	m := keptOf[LinearMap](x)
	m.Shape, m.scratch = inferred, 8*len(index)+total/8
	if t := arg(in, 2); t != nil {
		if m.Shape, err = x.intsOf(t); err != nil {
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
	g := unpooled{index: index, inferred: inferred, from: x.rowMajor(inferred), to: x.rowMajor(m.Shape), keep: x.seen(len(index))}
	taken := x.seen(total)
	for i := len(index) - 1; i >= 0; i-- { // of several at one place the last stays
		g.keep[i], taken[index[i]] = !taken[index[i]], true
	}
	m.Each = eachOf(x, g)
	return m, nil
}

// unpooledShape is the shape of what a MaxPool took its elements from.
func unpooledShape(x *Exec, n *Node, in []*engine.Tensor) ([]int, error) {
	if s := recall[[]int](x, in); s != nil {
		return *s, nil
	}
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
	remember(x, in, &inferred)
	return inferred, nil
}

func (g *unpooled) each(f func(out, in int, weight float64)) {
	for i, at := range g.index {
		if !g.keep[i] {
			continue
		}
		out := 0
		for k := range g.inferred {
			out += at / g.from[k] % g.inferred[k] * g.to[k]
		}
		f(out, i, 1)
	}
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
func deformConv(x *Exec, n *Node, in []*engine.Tensor) (*LinearMap, error) {
	g, bias, err := deformedOf(x, n, in)
	if err != nil {
		return nil, err
	}
	m := keptOf[LinearMap](x)
	m.Shape, m.bias = x.joined(g.shape[:2], g.w.Out), bias
	m.Shape[1] = g.weights[0]
	m.Each = eachOf(x, g)
	return m, nil
}

func deformedOf(x *Exec, n *Node, in []*engine.Tensor) (g deformed, bias []float64, err error) {
	g = deformed{groups: 1, offs: 1, shape: in[0].Shape(), weights: in[1].Shape()}
	if a, ok := n.Attrs["group"]; ok {
		g.groups = int(a.Int)
	}
	if a, ok := n.Attrs["offset_group"]; ok {
		g.offs = int(a.Int)
	}
	if len(g.shape) != 4 || len(g.weights) != 4 || g.groups < 1 || g.offs < 1 || g.shape[1] != g.weights[1]*g.groups || g.weights[0]%g.groups != 0 || g.shape[1]%g.offs != 0 {
		return g, nil, fmt.Errorf("input %v and weights %v in %d groups, %d of offsets", g.shape, g.weights, g.groups, g.offs)
	}
	if g.w = recall[Windows](x, in); g.w == nil {
		if g.w, err = NewWindows(n, g.shape, g.weights[2:]); err != nil {
			return g, nil, err
		}
		remember(x, in, g.w)
	}
	taps, want := g.offs*g.w.Taps, x.joined(g.shape[:2], g.w.Out)
	if want[1] = 2 * taps; !slices.Equal(in[2].Shape(), want) {
		return g, nil, fmt.Errorf("offsets of shape %v, want %v", in[2].Shape(), want)
	}
	g.kernel, _ = x.float64s(in[1])
	g.offset, _ = x.float64s(in[2])
	if t := arg(in, 3); t != nil {
		if bias, _ = x.float64s(t); len(bias) != g.weights[0] {
			return g, nil, fmt.Errorf("bias of %d elements for %d channels", t.Len(), g.weights[0])
		}
	}
	if t := arg(in, 4); t != nil {
		if want[1] = taps; !slices.Equal(t.Shape(), want) {
			return g, nil, fmt.Errorf("mask of shape %v, want %v", t.Shape(), want)
		}
		g.mask, _ = x.float64s(t)
	}
	return g, bias, nil
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
	weight := 1.0
	if g.mask != nil {
		weight = g.mask[g.at(1, b, og*g.w.Taps+k, p)]
	}
	ends, ok := g.ends(b, og, k, p)
	if !ok {
		return
	}
	axes := [2][]tap{ends[0][:], ends[1][:]}
	mixed(axes[:], []int{g.w.In[1], 1}, 0, weight, f)
}

// at is where window p's number i is in what holds list times as many as a mask.
func (g *deformed) at(list, b, i, p int) int {
	return (b*g.offs*g.w.Taps*list+i)*g.w.Positions() + p
}

// ends are the elements of both axes that sample is between.
func (g *deformed) ends(b, og, k, p int) (ends [2][2]tap, ok bool) {
	for i := range 2 {
		place, tapAt := p%g.w.Out[1], k%g.w.Kernel[1]
		if i == 0 {
			place, tapAt = p/g.w.Out[1], k/g.w.Kernel[1]
		}
		x := float64(place*g.w.strides[i]+tapAt*g.w.dilations[i]-g.w.before[i]) + g.offset[g.at(2, b, 2*(og*g.w.Taps+k)+i, p)]
		if !(math.Abs(x) < 1<<30) {
			return ends, false
		}
		low := math.Floor(x)
		plain := sampler{padding: "zeros"}
		ends[i] = [2]tap{{plain.inside(low, g.w.In[i]), 1 - (x - low)}, {plain.inside(low+1, g.w.In[i]), x - low}}
	}
	return ends, true
}

func init() {
	linearOp("GridSample", opDef{since: 16, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true}, checkSampler, gridSample)
	linearOp("RoiAlign", opDef{since: 10, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, checkRoiAlign, roiAlign)
	linearOp("Col2Im", opDef{since: 18, minIn: 3, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, windowAttrsOnly("dilations", "pads", "strides"), col2Im)
	linearOp("MaxUnpool", opDef{since: 9, minIn: 2, maxIn: 3, maxOut: 1, accept: floatTypes, half: true}, windowAttrsOnly("kernel_shape", "pads", "strides"), maxUnpool)
	linearOp("DeformConv", opDef{since: 19, minIn: 3, maxIn: 5, maxOut: 1, accept: floatTypes, half: true},
		windowAttrsOnly("dilations", "kernel_shape", "pads", "strides"), deformConv)
}
