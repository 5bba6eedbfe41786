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
		axes := x.ints(rank)
		for i := range axes {
			axes[i] = i
		}
		var err error
		if p := arg(in, 1); p != nil {
			if widths, err = x.intsOf(p); err != nil {
				return nil, err
			}
		}
		if a := arg(in, 3); a != nil {
			if axes, err = x.intsOf(a); err != nil {
				return nil, err
			}
		}
		before, after := x.ints(rank), x.ints(rank)
		if len(widths) != 2*len(axes) {
			return nil, fmt.Errorf("%d pads for %d axes", len(widths), len(axes))
		}
		for i, a := range axes {
			if a, err = normAxis(a, rank); err != nil {
				return nil, err
			}
			before[a], after[a] = widths[i], widths[len(axes)+i]
		}
		return x.one(padded(x, t, before, after, mode, arg(in, 2), value))
	}, nil
}

// buildDepthToSpace moves blocks of channels into the plane, or back.
func buildDepthToSpace(b *builder) (Kernel, error) {
	size := b.attrs.int("blocksize", 0)
	mode := b.attrs.string("mode", "DCR")
	back := b.node.Op == "SpaceToDepth"
	if size < 1 || size > 1<<10 || mode != "DCR" && mode != "CRD" {
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
			if mode == "CRD" {
				perm = []int{0, 1, 3, 5, 2, 4}
			}
			final = []int{s[0], s[1] * size * size, s[2] / size, s[3] / size}
		case mode == "DCR":
			split, perm = []int{s[0], size, size, s[1] / (size * size), s[2], s[3]}, []int{0, 3, 4, 1, 5, 2}
		default:
			split, perm = []int{s[0], s[1] / (size * size), size, size, s[2], s[3]}, []int{0, 1, 4, 2, 5, 3}
		}
		if !back {
			final = []int{s[0], s[1] / (size * size), s[2] * size, s[3] * size}
		}
		from := x.rowMajor(split)
		shape, strides := x.ints(6), x.ints(6)
		for i, a := range perm {
			shape[i], strides[i] = split[a], from[a]
		}
		t, err := strided(x, in[0], 0, shape, strides)
		if err != nil {
			return nil, err
		}
		return view(x, t, final)
	}, nil
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
			v, err := x.intsOf(t)
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
		cp := copier(x, out, in[0])
		for i := 0; i < out.Len(); i += cols {
			cut := i/cols%rows + k // the diagonal's column in this row
			from, to := 0, min(max(cut+1, 0), cols)
			if upper {
				from, to = min(max(cut, 0), cols), cols
			}
			if from < to {
				cp(i+from, i+from, to-from)
			}
		}
		return x.one(out, nil)
	}, nil
}

func init() {
	register(DomainONNX, map[string]opDef{
		"Pad":          {since: 2, minIn: 1, maxIn: 4, maxOut: 1, build: buildPad},
		"DepthToSpace": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, build: buildDepthToSpace},
		"SpaceToDepth": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, build: buildDepthToSpace},
		"Trilu":        {since: 14, minIn: 1, maxIn: 2, maxOut: 1, build: buildTrilu},
	})
}
