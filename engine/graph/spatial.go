package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// buildPad takes its pads and value as attributes before version 11, as inputs
// since.
func buildPad(b *builder) (Kernel, error) {
	mode := b.attrs.string("mode", "constant")
	if !slices.Contains([]string{"constant", "reflect", "edge", "wrap"}, mode) {
		return nil, b.node.unsupported("mode %q", mode)
	}
	var pads []int
	value := 0.0
	if b.version() < 11 {
		pads, value = toInts(b.attrs.ints("pads")), b.attrs.float("value", 0)
	} else if len(b.node.Inputs) < 2 {
		return nil, b.node.corrupt("has no pads")
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		t, widths := in[0], pads
		rank := len(t.Shape())
		axes := make([]int, rank)
		for i := range axes {
			axes[i] = i
		}
		var err error
		if p := arg(in, 1); p != nil {
			if widths, err = intsOf(p); err != nil {
				return nil, err
			}
		}
		if a := arg(in, 3); a != nil {
			if axes, err = intsOf(a); err != nil {
				return nil, err
			}
		}
		before, after := make([]int, rank), make([]int, rank)
		if len(widths) != 2*len(axes) {
			return nil, fmt.Errorf("%d pads for %d axes", len(widths), len(axes))
		}
		for i, a := range axes {
			if a, err = normAxis(a, rank); err != nil {
				return nil, err
			}
			before[a], after[a] = widths[i], widths[len(axes)+i]
		}
		return one(padded(x, t, before, after, mode, arg(in, 2), value))
	}, nil
}

// padded pads t; negative widths cut. fill is what constant padding holds, the
// number value where it is nil.
func padded(x *Exec, t *engine.Tensor, before, after []int, mode string, fill *engine.Tensor, value float64) (*engine.Tensor, error) {
	from := t.Shape()
	shape := make([]int, len(from))
	for i, d := range from {
		if before[i] > math.MaxInt32 || after[i] > math.MaxInt32 || before[i] < -d || after[i] < -d || d+before[i]+after[i] < 0 {
			return nil, fmt.Errorf("pads %d and %d of a dimension of %d", before[i], after[i], d)
		}
		if d == 0 && mode != "constant" || mode == "reflect" && max(before[i], after[i]) >= max(d, 1) {
			return nil, fmt.Errorf("%s of %d and %d from a dimension of %d", mode, before[i], after[i], d)
		}
		shape[i] = d + before[i] + after[i]
	}
	out, err := x.New(t.DType(), shape...)
	if err != nil {
		return nil, err
	}
	if fill == nil && value != 0 {
		if fill, err = engine.Of([]float64{value}); err != nil {
			return nil, err
		}
	}
	if fill != nil && mode == "constant" {
		if fill.Len() != 1 {
			return nil, fmt.Errorf("a padding value of %d elements", fill.Len())
		}
		if fill, err = castTensor(x, fill, t.DType(), true); err != nil {
			return nil, err
		}
		cp := copier(out, fill)
		for i := range out.Len() {
			cp(i, 0, 1)
		}
	}
	strides, outs := rowMajor(from), rowMajor(shape)
	cp := copier(out, t)
	for o := range out.Len() {
		at, inside := 0, true
		for i := range shape {
			p := padSource(o/outs[i]%shape[i]-before[i], from[i], mode)
			inside = inside && p >= 0
			at += p * strides[i]
		}
		if inside {
			cp(o, at, 1)
		}
	}
	return out, nil
}

// padSource returns the element of a dimension of n that position p shows, or a
// number below 0 where that is the constant.
func padSource(p, n int, mode string) int {
	if p >= 0 && p < n {
		return p
	}
	switch mode {
	case "edge":
		return min(max(p, 0), n-1)
	case "wrap":
		return ((p % n) + n) % n
	case "reflect":
		if p < 0 {
			return -p
		}
		return 2*(n-1) - p
	}
	return math.MinInt32
}

// buildDepthToSpace moves blocks of channels into the plane, or back.
func buildDepthToSpace(b *builder) (Kernel, error) {
	size := b.attrs.int("blocksize", 0)
	mode := b.attrs.string("mode", "DCR")
	back := b.node.Op == "SpaceToDepth"
	if size < 1 || size > 1<<10 || mode != "DCR" && mode != "CRD" || back && mode != "DCR" {
		return nil, b.node.corrupt("blocksize %d, mode %q", size, mode)
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		s := in[0].Shape()
		if len(s) != 4 || !back && s[1]%(size*size) != 0 || back && (s[2]%size != 0 || s[3]%size != 0) {
			return nil, fmt.Errorf("blocks of %d in a tensor of shape %v", size, s)
		}
		var split, perm, final []int
		switch {
		case back:
			split, perm = []int{s[0], s[1], s[2] / size, size, s[3] / size, size}, []int{0, 3, 5, 1, 2, 4}
			final = []int{s[0], s[1] * size * size, s[2] / size, s[3] / size}
		case mode == "DCR":
			split, perm = []int{s[0], size, size, s[1] / (size * size), s[2], s[3]}, []int{0, 3, 4, 1, 5, 2}
		default:
			split, perm = []int{s[0], s[1] / (size * size), size, size, s[2], s[3]}, []int{0, 1, 4, 2, 5, 3}
		}
		if !back {
			final = []int{s[0], s[1] / (size * size), s[2] * size, s[3] * size}
		}
		from := rowMajor(split)
		shape, strides := make([]int, 6), make([]int, 6)
		for i, a := range perm {
			shape[i], strides[i] = split[a], from[a]
		}
		t, err := strided(x, in[0], 0, shape, strides)
		if err != nil {
			return nil, err
		}
		return one(t.Reshape(final...))
	}, nil
}

// Line is one output element of a resized axis: where it reads, with what weight.
type Line struct {
	At     [2]int
	Weight [2]float64
}

// resize holds what a Resize node says.
type resize struct {
	mode, coordinates, nearest string
}

// lines returns what every output element of an axis reads.
func (r *resize) lines(n, out int, scale float64) ([]Line, error) {
	lines := make([]Line, out)
	for i := range lines {
		p := float64(i)
		switch r.coordinates {
		case "half_pixel":
			p = (p+0.5)/scale - 0.5
		case "pytorch_half_pixel":
			p = (p+0.5)/scale - 0.5
			if out == 1 {
				p = 0
			}
		case "align_corners":
			p *= float64(n-1) / float64(max(out-1, 1))
		case "asymmetric":
			p /= scale
		}
		if r.mode == "nearest" {
			at := math.Floor(p)
			switch r.nearest {
			case "ceil":
				at = math.Ceil(p)
			case "round_prefer_floor":
				at = math.Ceil(p - 0.5)
			case "round_prefer_ceil":
				at = math.Floor(p + 0.5)
			}
			lines[i] = Line{At: [2]int{clampIndex(at, n), 0}, Weight: [2]float64{1, 0}}
			continue
		}
		p = min(max(p, 0), float64(n-1))
		low := math.Floor(p)
		lines[i] = Line{At: [2]int{int(low), clampIndex(low+1, n)}, Weight: [2]float64{1 - (p - low), p - low}}
	}
	return lines, nil
}

func clampIndex(v float64, n int) int { return int(min(max(v, 0), float64(n-1))) }

// ResizeLines returns what a Resize node reads along every axis of its input.
func ResizeLines(n *Node, in []*engine.Tensor) ([][]Line, error) {
	text := func(name, def string) string {
		if s := n.Attrs[name].String; s != "" {
			return s
		}
		return def
	}
	r := &resize{mode: text("mode", "nearest"), coordinates: text("coordinate_transformation_mode", "half_pixel"), nearest: text("nearest_mode", "round_prefer_floor")}
	if n.Op == "Upsample" {
		r.coordinates, r.nearest = "asymmetric", "floor"
	}
	shape := in[0].Shape()
	scales, sizes := arg(in, 2), arg(in, 3)
	if n.Version < 11 {
		scales = arg(in, 1)
	}
	lines := make([][]Line, len(shape))
	for i, d := range shape {
		var out int
		var scale float64
		switch {
		case sizes != nil && sizes.Len() == len(shape):
			v, err := intsOf(sizes)
			if err != nil {
				return nil, err
			}
			out, scale = v[i], float64(v[i])/float64(d)
		case scales != nil && scales.Len() == len(shape):
			v, _ := scales.Float64s()
			scale = v[i]
			out = int(math.Floor(float64(d) * scale))
		default:
			return nil, fmt.Errorf("sizes or scales of another rank than %v", shape)
		}
		if d < 1 || out < 1 || out > maxIndex || !(scale > 0) {
			return nil, fmt.Errorf("dimension %d of %d is resized by %v", i, d, scale)
		}
		var err error
		if lines[i], err = r.lines(d, out, scale); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

func buildResize(b *builder) (Kernel, error) {
	n := b.node
	mode := b.attrs.string("mode", "nearest")
	coordinates := b.attrs.string("coordinate_transformation_mode", "half_pixel")
	nearest := b.attrs.string("nearest_mode", "round_prefer_floor")
	b.attrs.ignore("cubic_coeff_a", "extrapolation_value") // of modes that are refused
	if mode != "nearest" && mode != "linear" || !slices.Contains([]string{"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}, coordinates) {
		return nil, n.unsupported("mode %q with coordinates %q", mode, coordinates)
	}
	if !slices.Contains([]string{"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}, nearest) {
		return nil, n.unsupported("nearest_mode %q", nearest)
	}
	if b.attrs.int("exclude_outside", 0) != 0 || b.attrs.int("antialias", 0) != 0 || len(b.attrs.ints("axes")) > 0 || b.attrs.string("keep_aspect_ratio_policy", "stretch") != "stretch" {
		return nil, n.unsupported("exclude_outside, antialias, axes or keep_aspect_ratio_policy")
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		lines, err := ResizeLines(n, in)
		if err != nil {
			return nil, err
		}
		switch in[0].DType() {
		case engine.Float32:
			return one(resized[float32](x, in[0], lines))
		case engine.Float64:
			return one(resized[float64](x, in[0], lines))
		}
		return nil, typeError(in[0])
	}, nil
}

// resized works axis by axis.
func resized[T float](x *Exec, t *engine.Tensor, lines [][]Line) (*engine.Tensor, error) {
	for a, list := range lines {
		shape := slices.Clone(t.Shape())
		n := shape[a]
		outer, inner := split(shape, a)
		shape[a] = len(list)
		o, out, err := newOf[T](x, shape...)
		if err != nil {
			return nil, err
		}
		src := engine.Data[T](t)
		for i := range outer {
			for j, l := range list {
				from, to := src[i*n*inner:], out[(i*len(list)+j)*inner:][:inner]
				mix(&l, to, from, inner)
			}
		}
		t = o
	}
	return t, nil
}

// mix writes the line's blend of two runs of n elements.
func mix[T float](l *Line, to, from []T, n int) {
	for k := range n {
		v := float64(from[l.At[0]*n+k]) * l.Weight[0]
		if l.Weight[1] != 0 {
			v += float64(from[l.At[1]*n+k]) * l.Weight[1]
		}
		to[k] = T(v)
	}
}

// buildTrilu keeps the upper or lower triangle of the last two dimensions.
func buildTrilu(b *builder) (Kernel, error) {
	upper := b.attrs.int("upper", 1) != 0
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		shape := in[0].Shape()
		if len(shape) < 2 {
			return nil, fmt.Errorf("a triangle of shape %v", shape)
		}
		k := 0
		if t := arg(in, 1); t != nil {
			v, err := intsOf(t)
			if err != nil || len(v) != 1 {
				return nil, fmt.Errorf("k has %d elements", t.Len())
			}
			k = min(max(v[0], -math.MaxInt32), math.MaxInt32)
		}
		out, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		rows, cols := shape[len(shape)-2], shape[len(shape)-1]
		cp := copier(out, in[0])
		for i := range out.Len() {
			row, col := i/cols%rows, i%cols
			if upper && col-row >= k || !upper && col-row <= k {
				cp(i, i, 1)
			}
		}
		return one(out, nil)
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Pad":          {since: 2, minIn: 1, maxIn: 4, maxOut: 1, build: buildPad},
		"DepthToSpace": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, build: buildDepthToSpace},
		"SpaceToDepth": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, build: buildDepthToSpace},
		"Trilu":        {since: 14, minIn: 1, maxIn: 2, maxOut: 1, build: buildTrilu},
		"Resize":       {since: 11, minIn: 1, maxIn: 4, maxOut: 1, accept: floatTypes, half: true, build: buildResize},
		"Upsample":     {since: 9, until: 9, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true, build: buildResize},
	})
}
