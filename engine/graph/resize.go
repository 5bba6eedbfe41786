package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// Line is one output element of a resized axis: where it reads, with what weights.
// It reads nothing where it lies outside the region that is resized.
type Line struct {
	At     []int
	Weight []float64
}

// Resize is what a Resize node reads along every axis of its input, and what stands
// where it reads nothing.
type Resize struct {
	Lines [][]Line
	Fill  float64
	// places are the elements that each axis shows, nil where it shows others, same that it
	// is left as it is.
	places [][]int
	same   []bool
	// antialias has integers rounded.
	antialias bool
}

// taps is how many elements are read for one of each line of all axes.
func (r *Resize) taps() (n int) {
	for _, list := range r.Lines {
		for i := range list {
			n += 1 + len(list[i].At)
		}
	}
	return n
}

// resize holds what a Resize node says.
type resize struct {
	mode, coordinates, nearest string
	cubic                      float64
	antialias, inside          bool
}

// axisOf is how one axis is resized: from n elements to out, the region that is
// seen, and the scale. All is counted in float32, as onnxruntime counts: where a place
// falls between two elements, or a size between two numbers, the rounding decides.
type axisOf struct {
	n, out     int
	scale      float32
	start, end float32
}

// width is the size that the scale says, with its fraction.
func (a *axisOf) width() float32 { return a.scale * float32(a.n) }

// corner is the place of the last output element that align_corners lays upon the last of
// the input. The standard's text and onnxruntime count whole elements; the standard's suite
// also counts what a scale leaves of one, in the two cases it has, which shrink.
func (a *axisOf) corner() float32 {
	fraction := a.width() - float32(a.out)
	if a.scale < 1 && fraction > 1e-3 && fraction < 1-1e-3 {
		return a.width() - 1
	}
	return float32(a.out - 1)
}

// source returns where output element i lies in the input. Products are converted, so
// that no machine adds to them before they are rounded.
func (r *resize) source(a *axisOf, i int) float64 {
	p, n, out := float32(i), float32(a.n), float32(a.out)
	if a.scale == 1 && r.coordinates != "tf_crop_and_resize" {
		return float64(i)
	}
	switch r.coordinates {
	case "align_corners":
		last := a.corner()
		if last == 0 {
			return 0
		}
		return float64(float32(p*(n-1)) / last)
	case "asymmetric":
		return float64(p / a.scale)
	case "tf_half_pixel_for_nn":
		return float64((p + 0.5) / a.scale)
	case "pytorch_half_pixel":
		if a.out == 1 {
			return 0
		}
	case "half_pixel_symmetric":
		offset := float32(n / 2 * (1 - out/a.width()))
		return float64(float32(float64(offset) + (float64(p)+0.5)/float64(a.scale) - 0.5))
	case "tf_crop_and_resize":
		if a.out == 1 {
			return float64(float32(0.5 * float64(float32((a.start+a.end)*(n-1)))))
		}
		return float64(float32(a.start*(n-1)) + float32(float32(p*(a.end-a.start))*(n-1))/(out-1))
	}
	return float64((p+0.5)/a.scale - 0.5)
}

// lines returns what every output element of an axis reads.
func (r *resize) lines(a *axisOf) ([]Line, error) {
	lines := make([]Line, a.out)
	for i := range lines {
		p := r.source(a, i)
		if r.coordinates == "tf_crop_and_resize" && !(p >= 0 && p <= float64(a.n-1)) {
			continue
		}
		if r.mode == "nearest" {
			lines[i] = Line{At: []int{clampIndex(r.round(p, a.scale < 1), a.n)}, Weight: []float64{1}}
			continue
		}
		var err error
		if lines[i], err = r.blend(a, p); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// tie is how far from the middle of two elements onnxruntime sees a place in the middle.
const tie = 1e-6

func (r *resize) round(p float64, shrinks bool) float64 {
	middle := math.Abs(p-math.Floor(p)-0.5) <= tie
	if r.nearest == simple {
		if shrinks {
			return math.Ceil(p)
		}
		return math.Floor(p)
	}
	switch {
	case r.nearest == "ceil" || middle && r.nearest == "round_prefer_ceil":
		return math.Ceil(p)
	case r.nearest == "floor" || middle:
		return math.Floor(p)
	}
	return math.Floor(p + 0.5)
}

// blend weighs the elements around p by the mode's function of their distance, which
// antialiasing widens when the axis shrinks.
func (r *resize) blend(a *axisOf, p float64) (Line, error) {
	reach, stretch := 1.0, 1.0
	if r.mode == "cubic" {
		reach = 2
	}
	if r.antialias {
		stretch = float64(min(a.scale, 1))
	}
	reach /= stretch
	if reach > maxReach || math.Abs(p) > math.MaxInt32 {
		return Line{}, fmt.Errorf("an element made of %v: %w", 2*reach, engine.ErrTooLarge)
	}
	l, sum := Line{}, 0.0
	for i := math.Floor(p-reach) + 1; i < p+reach; i++ {
		w := r.weight(math.Abs(i-p) * stretch)
		if r.inside && (i < 0 || i >= float64(a.n)) {
			continue
		}
		sum += w
		if w != 0 {
			l.At, l.Weight = append(l.At, clampIndex(i, a.n)), append(l.Weight, w)
		}
	}
	for i := range l.Weight {
		if sum != 0 {
			l.Weight[i] /= sum
		}
	}
	return l, nil
}

// maxReach bounds the elements that antialiasing mixes on each side.
const maxReach = 1 << 16

// weight is the share of an element at distance d.
func (r *resize) weight(d float64) float64 {
	if r.mode == "linear" {
		return max(0, 1-d)
	}
	return cubicWeight(d, r.cubic)
}

// cubicWeight is Keys' convolution kernel.
func cubicWeight(d, a float64) float64 {
	switch {
	case d <= 1:
		return ((a+2)*d-(a+3))*d*d + 1
	case d < 2:
		return ((a*d-5*a)*d+8*a)*d - 4*a
	}
	return 0
}

func clampIndex(v float64, n int) int {
	if v != v {
		return 0 // as an int, NaN may be anything
	}
	return int(min(max(v, 0), float64(n-1)))
}

func readResize(n *Node) *resize {
	text := func(name, def string) string {
		if s := n.Attrs[name].String; s != "" {
			return s
		}
		return def
	}
	r := &resize{
		mode: text("mode", "nearest"), coordinates: text("coordinate_transformation_mode", "half_pixel"),
		nearest: text("nearest_mode", "round_prefer_floor"), cubic: -0.75,
		antialias: n.Attrs["antialias"].Int == 1, inside: n.Attrs["exclude_outside"].Int == 1,
	}
	if a, ok := n.Attrs["cubic_coeff_a"]; ok {
		r.cubic = float64(a.Float)
	}
	if n.Op == "Upsample" || n.Version < 11 {
		r.coordinates, r.nearest = "asymmetric", simple
	}
	return r
}

// simple is how the operators before set 11 choose the nearest element: the next one where
// the axis shrinks, the one before where it grows. ONNX leaves it open; onnxruntime does so.
const simple = "simple"

// resizeAxes works out the axes that a node resizes, nil for those it leaves.
func resizeAxes(n *Node, in []*engine.Tensor) ([]*axisOf, error) {
	shape := in[0].Shape()
	roi, scales, sizes := arg(in, 1), arg(in, 2), arg(in, 3)
	if n.Version < 11 {
		roi, scales, sizes = nil, arg(in, 1), nil
	}
	if n.Version < 9 {
		var err error
		if scales, err = engine.Of(n.Attrs["scales"].Floats, len(n.Attrs["scales"].Floats)); err != nil {
			return nil, err
		}
	}
	axes := toInts(n.Attrs["axes"].Ints)
	if len(axes) == 0 {
		for i := range shape {
			axes = append(axes, i)
		}
	}
	list := make([]*axisOf, len(shape))

	sized := sizes != nil && sizes.Len() > 0
	from := scales
	if sized {
		from = sizes
	}
	if from == nil || from.Len() != len(axes) {
		return nil, fmt.Errorf("sizes or scales of another rank than %v", shape)
	}
	given, ok := from.Float64s()
	if !ok {
		return nil, typeError(from)
	}
	region := make([]float64, 2*len(axes))
	for i := range axes {
		region[len(axes)+i] = 1
	}
	if n.Attrs["coordinate_transformation_mode"].String == "tf_crop_and_resize" {
		if roi == nil || roi.Len() != len(region) {
			return nil, fmt.Errorf("no region, or one of another rank than %v", shape)
		}
		if region, ok = roi.Float64s(); !ok {
			return nil, typeError(roi)
		}
	}
	for i, at := range axes {
		at, err := normAxis(at, len(shape))
		if err != nil {
			return nil, err
		}
		if list[at] != nil {
			return nil, fmt.Errorf("axis %d of shape %v is resized twice", at, shape)
		}
		a := &axisOf{n: shape[at], scale: float32(given[i]), start: float32(region[i]), end: float32(region[len(axes)+i])}
		list[at] = a
		size := given[i]
		if a.n == 0 && (size == 0 || !sized) {
			a.scale = 1 // of nothing there is nothing, such as of no images
			continue
		}
		if sized {
			a.scale = float32(size) / float32(a.n)
		} else {
			size = math.Floor(float64(a.width() * (a.end - a.start)))
		}
		if !(a.n > 0 && size >= 1 && size <= maxIndex && a.scale > 0) {
			return nil, misfit("dimension %d of %d is resized to nothing or too much", at, a.n)
		}
		a.out = int(size)
	}
	if policy := n.Attrs["keep_aspect_ratio_policy"].String; sized && policy != "" && policy != "stretch" {
		return list, keepAspect(list, policy)
	}
	return list, nil
}

// reserveLines counts what the lines of a node will take, as lists and as tables.
func reserveLines(x *Exec, n *Node, in []*engine.Tensor) error {
	axes, err := resizeAxes(n, in)
	if err != nil {
		return err
	}
	r := readResize(n)
	for i, a := range axes {
		out, taps := in[0].Shape()[i], 1.0
		if a != nil {
			out = a.out
			if r.mode != "nearest" {
				taps = 5
			}
			if r.antialias {
				taps /= float64(min(a.scale, 1))
			}
		}
		if !(taps < maxIndex) {
			return fmt.Errorf("an element made of %v: %w", taps, engine.ErrTooLarge)
		}
		if err := x.reserve(engine.Float64, out*(8+4*int(taps))); err != nil {
			return err
		}
	}
	return nil
}

// keepAspect gives all axes the smallest or the largest of their scales.
func keepAspect(list []*axisOf, policy string) error {
	scale := float32(math.Inf(1))
	if policy == "not_smaller" {
		scale = 0
	}
	for _, a := range list {
		switch {
		case a == nil || a.n == 0:
		case policy == "not_smaller":
			scale = max(scale, a.scale)
		default:
			scale = min(scale, a.scale)
		}
	}
	for _, a := range list {
		if a == nil || a.n == 0 {
			continue
		}
		a.scale = scale
		size := math.Round(float64(a.width()))
		if size < 1 || size > maxIndex {
			return misfit("a dimension of %d is resized to nothing or too much", a.n)
		}
		a.out = int(size)
	}
	return nil
}

// NewResize works out what a Resize or Upsample node reads.
func NewResize(n *Node, in []*engine.Tensor) (*Resize, error) {
	axes, err := resizeAxes(n, in)
	if err != nil {
		return nil, err
	}
	r := readResize(n)
	if r.coordinates != "tf_crop_and_resize" && !slices.ContainsFunc(axes, func(a *axisOf) bool { return a != nil && a.out != a.n }) {
		clear(axes) // what keeps its shape is left as it is, whatever the scales
	}
	out := &Resize{Lines: make([][]Line, len(axes)), Fill: float64(n.Attrs["extrapolation_value"].Float), antialias: r.antialias}
	for i, a := range axes {
		if a == nil || r.antialias && r.coordinates != "tf_crop_and_resize" && a.out == a.n {
			a = &axisOf{n: in[0].Shape()[i], out: in[0].Shape()[i], scale: 1}
			plain := resize{mode: "nearest", coordinates: "asymmetric", nearest: "floor"}
			if out.Lines[i], err = plain.lines(a); err != nil {
				return nil, err
			}
			continue
		}
		if out.Lines[i], err = r.lines(a); err != nil {
			return nil, err
		}
	}
	for i, list := range out.Lines {
		places, same := placesOf(list, in[0].Shape()[i])
		out.places, out.same = append(out.places, places), append(out.same, same)
	}
	return out, nil
}

func buildResize(b *builder) (Kernel, error) {
	n := b.node
	mode := b.attrs.string("mode", "nearest")
	coordinates := b.attrs.string("coordinate_transformation_mode", "half_pixel")
	nearest := b.attrs.string("nearest_mode", "round_prefer_floor")
	policy := b.attrs.string("keep_aspect_ratio_policy", "stretch")
	b.attrs.float("cubic_coeff_a", 0)
	b.attrs.float("extrapolation_value", 0)
	b.attrs.int("exclude_outside", 0)
	b.attrs.ints("axes")
	if n.Version < 9 {
		if _, ok := n.Attrs["scales"]; !ok || len(n.Inputs) > 1 {
			return nil, n.corrupt("has %d inputs, or no scales", len(n.Inputs))
		}
		b.attrs.floats("scales")
	}
	if n.Version == 9 || n.Version == 10 {
		if len(n.Inputs) != 2 {
			return nil, n.corrupt("has %d inputs, the operator takes 2", len(n.Inputs))
		}
	}
	for _, c := range []struct {
		value string
		known []string
	}{
		{mode, []string{"nearest", "linear", "cubic"}},
		{coordinates, []string{"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_crop_and_resize", "tf_half_pixel_for_nn"}},
		{nearest, []string{"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}},
		{policy, []string{"stretch", "not_larger", "not_smaller"}},
	} {
		if !slices.Contains(c.known, c.value) {
			return nil, n.unsupported("%q", c.value)
		}
	}
	if b.attrs.int("antialias", 0) != 0 && mode == "nearest" {
		return nil, n.corrupt("antialias of the nearest element")
	}
	return resizer(n), nil
}

// resizedIntegers makes integers of what a resize makes of some, and saturates: towards zero, as
// ONNX's reference and onnxruntime do, but to the nearest where antialiasing mixes them.
func resizedIntegers(x *Exec, t *engine.Tensor, r *Resize) ([]*engine.Tensor, error) {
	if !r.mixes() {
		return shownIntegers(x, t, r)
	}
	wide, err := castTensor(x, t, engine.Float32, true)
	if err != nil {
		return nil, err
	}
	shape := x.shaped(t.Shape())
	for a := range shape {
		shape[a] = len(r.Lines[a])
	}
	o, err := x.New(t.DType(), shape...)
	if err != nil {
		return nil, err
	}
	if r.plane() {
		v := x.wide(o.Len())
		r.bilinear(v, engine.Data[float32](wide), t.Shape())
		return x.one(o, storeFloats(o, saturated(t.DType(), v)))
	}
	y, err := resized[float32](x, wide, r)
	if err != nil {
		return nil, err
	}
	v := x.wide(y.Len())
	for i, f := range engine.Data[float32](y) {
		if v[i] = float64(f); !r.antialias {
			v[i] = math.Trunc(v[i])
		}
	}
	return x.one(o, storeFloats(o, saturated(t.DType(), v)))
}

// mixes reports whether any element is made of more than one.
func (r *Resize) mixes() bool {
	return slices.ContainsFunc(r.Lines, func(list []Line) bool {
		return slices.ContainsFunc(list, func(l Line) bool { return len(l.At) > 1 })
	})
}

// shownIntegers is resizedIntegers where each element is one of t's, as it is.
func shownIntegers(x *Exec, t *engine.Tensor, r *Resize) ([]*engine.Tensor, error) {
	wide, err := castTensor(x, t, engine.Float64, true)
	if err != nil {
		return nil, err
	}
	y, err := resized[float64](x, wide, r)
	if err != nil {
		return nil, err
	}
	o, err := x.New(t.DType(), y.Shape()...)
	if err != nil {
		return nil, err
	}
	return x.one(o, storeFloats(o, saturated(t.DType(), engine.Data[float64](y))))
}

// plane reports whether the last two axes, and no others, are resized by mixing two elements of
// each at most.
func (r *Resize) plane() bool {
	spatial := len(r.Lines) - 2
	if spatial < 0 || r.antialias || slices.Contains(r.same[:spatial], false) {
		return false
	}
	for _, list := range r.Lines[spatial:] {
		if slices.ContainsFunc(list, func(l Line) bool { return len(l.At) < 1 || len(l.At) > 2 }) {
			return false
		}
	}
	return true
}

// bilinear makes whole numbers of a plane's mixed elements, towards zero. It multiplies and adds
// as onnxruntime does, since the last bit may decide which one it is.
func (r *Resize) bilinear(out []float64, v []float32, shape []int) {
	h, w := shape[len(shape)-2], shape[len(shape)-1]
	rows, columns := r.Lines[len(r.Lines)-2], r.Lines[len(r.Lines)-1]
	for at := 0; at+h*w <= len(v) && h*w > 0; at += h * w {
		plane := v[at:][:h*w]
		for i := range rows {
			y1, y2, toY1, toY2 := twoOf(&rows[i], h)
			for j := range columns {
				x1, x2, toX1, toX2 := twoOf(&columns[j], w)
				sum := toX1*toY1*plane[y1*w+x1] + toX2*toY1*plane[y1*w+x2]
				sum += toX1 * toY2 * plane[y2*w+x1]
				sum += toX2 * toY2 * plane[y2*w+x2]
				out[0] = math.Trunc(float64(sum))
				out = out[1:]
			}
		}
	}
}

// twoOf is the elements that a line mixes of n, and their shares: beyond the first it is that
// alone, at the last and beyond half of it twice.
func twoOf(l *Line, n int) (a, b int, ofA, ofB float32) {
	a, b = l.At[0], l.At[len(l.At)-1]
	switch {
	case a != b:
		return a, b, float32(l.Weight[0]), float32(l.Weight[1])
	case a == n-1:
		return a, a, .5, .5
	}
	return a, a, 1, 0
}

// saturated rounds numbers to even and clamps them to what an integer type holds.
func saturated(d engine.DType, v []float64) []float64 {
	lo, hi := rangeOf(d)
	for i, f := range v {
		v[i] = min(max(math.RoundToEven(f), lo), hi)
	}
	return v
}

// rangeOf is the smallest and largest number of an integer type.
func rangeOf(d engine.DType) (lo, hi float64) {
	bits := d.Bits()
	switch d {
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64, engine.Uint4, engine.Uint2:
		return 0, math.Ldexp(1, bits) - 1
	}
	return -math.Ldexp(1, bits-1), math.Ldexp(1, bits-1) - 1
}

// resized works axis by axis.
func resized[T float](x *Exec, t *engine.Tensor, r *Resize) (*engine.Tensor, error) {
	for a, list := range r.Lines {
		shape := x.shaped(t.Shape())
		n, places := shape[a], r.places[a]
		if r.same[a] && a > 0 {
			continue // the first axis makes the result another tensor than the input
		}
		outer, inner := split(shape, a)
		shape[a] = len(list)
		o, out, err := rawOf[T](x, shape...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[T](t)
		if inner == 1 && places != nil {
			for i := range outer {
				from, to := src[i*n:(i+1)*n], out[i*len(list):(i+1)*len(list)]
				for j, at := range places {
					to[j] = from[at]
				}
			}
			t = o
			continue
		}
		for i := range outer {
			for j := range list {
				from, to := src[i*n*inner:], out[(i*len(list)+j)*inner:][:inner]
				mix(&list[j], to, from, inner, T(r.Fill))
			}
		}
		t = o
	}
	return t, nil
}

// placesOf returns the elements that lines of one each show, nil where there are
// others, and whether they are all of n in their order.
func placesOf(list []Line, n int) (places []int, same bool) {
	same = len(list) == n
	for j, l := range list {
		if len(l.At) != 1 || l.Weight[0] != 1 {
			return nil, false
		}
		places = append(places, l.At[0])
		same = same && l.At[0] == j
	}
	return places, same
}

// mix writes the line's blend of runs of n elements.
func mix[T float](l *Line, to, from []T, n int, fill T) {
	if len(l.At) == 0 {
		for k := range to {
			to[k] = fill
		}
		return
	}
	if len(l.At) == 1 && l.Weight[0] == 1 {
		copy(to, from[l.At[0]*n:][:n])
		return
	}
	for k := range n {
		v := 0.0
		for t, at := range l.At {
			v += float64(from[at*n+k]) * l.Weight[t]
		}
		to[k] = T(v)
	}
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Resize":   {since: 10, minIn: 1, maxIn: 4, maxOut: 1, accept: numericTypes, half: true, build: buildResize},
		"Upsample": {since: 7, until: 9, minIn: 1, maxIn: 2, maxOut: 1, accept: numericTypes, half: true, build: buildResize},
	})
}
