package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// fillAll sets all of a tensor of zeros to one element of its type.
func fillAll(x *Exec, out, fill *engine.Tensor) {
	n := out.Len()
	if v := engine.Data[float32](fill); n == 0 || v != nil && math.Float32bits(v[0]) == 0 {
		return
	}
	copier(x, out, fill)(0, 0, 1)
	again := copier(x, out, out)
	for done := 1; done < n; done *= 2 {
		again(done, 0, min(done, n-done))
	}
}

// padded pads t; negative widths cut, before what is left is padded with. fill is what
// constant padding holds, the number value where it is nil.
func padded(x *Exec, t *engine.Tensor, before, after []int, mode string, fill *engine.Tensor, value float64) (*engine.Tensor, error) {
	from := t.Shape()
	shape, left := x.ints(len(from)), x.ints(len(from))
	for i, d := range from {
		if before[i] > math.MaxInt32 || after[i] > math.MaxInt32 || before[i] < -d || after[i] < -d || d+before[i]+after[i] < 0 {
			return nil, misfit("pads that cut more off a dimension of %d than it has, or are beyond 2^31", d)
		}
		n := d + min(before[i], 0) + min(after[i], 0)
		if n == 0 && mode != "constant" || mode == "reflect" && max(before[i], after[i]) >= max(n, 1) {
			return nil, misfit("%s further than a dimension of %d reaches, of which %d are left", mode, d, n)
		}
		shape[i], left[i] = d+before[i]+after[i], n
	}
	constant := mode == "constant"
	if fill == nil && value != 0 {
		var err error
		if fill, err = engine.Of([]float64{value}); err != nil {
			return nil, err
		}
	}
	if constant && fill != nil && fill.Len() != 1 {
		return nil, fmt.Errorf("a padding value of %d elements", fill.Len())
	}
	if slices.Equal(shape, from) && !slices.ContainsFunc(before, positive) && !slices.ContainsFunc(after, positive) {
		// Windows of a transformer are padded by what their image lacks, mostly nothing.
		return t, nil
	}
	out, err := x.New(t.DType(), shape...)
	if err != nil {
		return nil, err
	}
	if fill != nil && constant {
		if fill, err = castTensor(x, fill, t.DType(), true); err != nil {
			return nil, err
		}
		fillAll(x, out, fill)
	}
	if out.Len() > 0 {
		p := padding{before: before, from: from, left: left, shape: shape, mode: mode}
		if v := engine.Data[float32](t); v != nil { // the usual ones, without a function made for each
			p.to, p.src = engine.Data[float32](out), v
		} else {
			p.copy = copier(x, out, t)
		}
		p.lines(0, 0, 0)
	}
	return out, nil
}

// padding is the copying of what is padded, dimension by dimension: the elements of a line
// that are there in one piece.
type padding struct {
	before, from, shape []int
	left                []int // how many of a dimension are not cut off
	mode                string
	to, src             []float32
	copy                func(d, s, n int) // nil where they are floats
}

func positive(n int) bool { return n > 0 }

func (p *padding) move(to, from, n int) {
	if p.copy == nil {
		copy(p.to[to:to+n], p.src[from:from+n])
		return
	}
	p.copy(to, from, n)
}

// lines copies what dimension k and those within it have at to, of what they have at from.
// Both count the elements of dimension k's own places.
func (p *padding) lines(k, to, from int) {
	if k == len(p.shape) {
		p.move(to, from, 1)
		return
	}
	n, wide, before := p.left[k], p.shape[k], max(p.before[k], 0)
	to, from = to*wide, from*p.from[k]+max(-p.before[k], 0)
	last := k == len(p.shape)-1
	for i := 0; i < wide; i++ {
		s := padSource(i-before, n, p.mode)
		switch {
		case s < 0:
		case !last:
			p.lines(k+1, to+i, from+s)
		case i == before:
			run := min(n-s, wide-i)
			p.move(to+i, from+s, run)
			i += run - 1
		default:
			p.move(to+i, from+s, 1)
		}
	}
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
