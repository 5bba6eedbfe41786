package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// mapSlopes are of the linear maps that depend on other inputs of floats too: see MapSlopes.
var mapSlopes = map[string]func(n *Node, in []*engine.Tensor, v []float64, k int, f func(out, at int, slope float64)) error{
	"GridSample": gridSlopes, "RoiAlign": roiSlopes, "DeformConv": deformSlopes, "STFT": windowSlopes,
}

// MapSlopes visits the derivatives of a linear map by the elements of its input k, which is not
// the first: that of element out of the result by element at of the input, in parts. ok is false
// where the operator has none by that.
func MapSlopes(n *Node, in []*engine.Tensor, k int, f func(out, at int, slope float64)) (ok bool, err error) {
	slopesOf := mapSlopes[n.Op]
	if slopesOf == nil || !in[k].DType().IsFloat() {
		return false, nil
	}
	v, ok := in[0].Float64s()
	if !ok {
		return false, typeError(in[0])
	}
	return true, slopesOf(n, in, v, k, f)
}

// slopes appends to list the derivatives by p of the weights that taps has of point p.
func (s sampler) slopes(list []tap, p float64, n int) []tap {
	x := s.place(p, n)
	by := s.place(1, n) - s.place(0, n)
	if s.mode == "nearest" || !(math.Abs(x) < 1<<30) {
		return list
	}
	low := math.Floor(x)
	if s.mode == "linear" {
		return append(list, tap{s.inside(low, n), -by}, tap{s.inside(low+1, n), by})
	}
	for k := -1.0; k <= 2; k++ {
		list = append(list, tap{s.inside(low+k, n), by * cubicSlope(x-low-k, -0.75)})
	}
	return list
}

// cubicSlope is the derivative of cubicWeight by a distance that may be below 0.
func cubicSlope(d, a float64) float64 {
	t := math.Abs(d)
	switch {
	case t <= 1:
		t = (3*(a+2)*t - 2*(a+3)) * t
	case t < 2:
		t = (3*a*t-10*a)*t + 8*a
	default:
		t = 0
	}
	return math.Copysign(1, d) * t
}

func gridSlopes(n *Node, in []*engine.Tensor, v []float64, _ int, f func(out, at int, slope float64)) error {
	g, err := sampledOf(new(Exec), n, in)
	if err != nil {
		return err
	}
	r, channels := len(g.strides), g.shape[1]
	for i := range g.shape[0] * g.outs {
		for k := range r {
			g.axes[k] = g.sampler.taps(g.taps[k][:0], g.grid[i*r+r-1-k], g.shape[2+k])
		}
		for k := range r {
			at := i*r + r - 1 - k
			own := g.axes[k]
			g.axes[k] = g.sampler.slopes(nil, g.grid[at], g.shape[2+k])
			for c := range channels {
				ch := i/g.outs*channels + c
				mixed(g.axes[:r], g.strides, 0, 1, func(from int, w float64) { f(ch*g.outs+i%g.outs, at, w*v[ch*g.plane+from]) })
			}
			g.axes[k] = own
		}
	}
	return nil
}

// windowSlopes are of the window of an STFT: what it weighs, transformed.
func windowSlopes(n *Node, in []*engine.Tensor, v []float64, _ int, f func(out, at int, slope float64)) error {
	t, _, err := shortTransforms(new(Exec), n, in)
	if err != nil {
		return err
	}
	if w := float64(t.lines) * float64(t.out) * float64(t.have); w > maxWeights {
		return fmt.Errorf("a map of %v weights: %w", w, engine.ErrTooLarge)
	}
	for line := range t.lines {
		from, to := t.from.at(line, t.inner), t.to.at(line, t.inner)
		t.weights(func(o, oPart, i, iPart int, w float64) {
			f(to+o*t.to.element+oPart, i, w*v[from+i*t.from.element+iPart])
		})
	}
	return nil
}

// deformSlopes are of the weights, the offsets, the bias and the mask of a DeformConv.
func deformSlopes(n *Node, in []*engine.Tensor, v []float64, k int, f func(out, at int, slope float64)) error {
	g, _, err := deformedOf(new(Exec), n, in)
	if err != nil {
		return err
	}
	positions, plane, taps := g.w.Positions(), g.w.Plane(), g.w.Taps
	perGroup, outs := g.weights[1], g.weights[0]/g.groups
	if k == 3 {
		for i := range g.shape[0] * g.weights[0] * positions {
			f(i, i/positions%g.weights[0], 1)
		}
		return nil
	}
	for line := range g.shape[0] * g.shape[1] {
		b, ic := line/g.shape[1], line%g.shape[1]
		og := ic / (g.shape[1] / g.offs)
		for i := range taps * positions {
			tapAt, p := i/positions, i%positions
			g.sampleSlopes(b, og, tapAt, p, k, func(from, at int, w float64) {
				for o := range outs {
					oc := ic/perGroup*outs + o
					out, weight := (b*g.weights[0]+oc)*positions+p, (oc*perGroup+ic%perGroup)*taps+tapAt
					if k == 1 {
						f(out, weight, w*v[line*plane+from])
					} else {
						f(out, at, w*v[line*plane+from]*g.kernel[weight])
					}
				}
			})
		}
	}
	return nil
}

// sampleSlopes visits the elements from around where element k of window p has been moved to,
// with the derivative of the weight of each by element at of the offsets or the mask; for other
// inputs with the weight.
func (g *deformed) sampleSlopes(b, og, k, p, input int, f func(from, at int, w float64)) {
	const offsets, mask = 2, 4
	ends, ok := g.ends(b, og, k, p)
	if !ok {
		return
	}
	visit := func(at int, axes [2][2]tap, weight float64) {
		mixed([][]tap{axes[0][:], axes[1][:]}, []int{g.w.In[1], 1}, 0, weight, func(from int, w float64) { f(from, at, w) })
	}
	own := g.at(1, b, og*g.w.Taps+k, p)
	weight := 1.0
	if g.mask != nil && input != mask {
		weight = g.mask[own]
	}
	if input != offsets {
		visit(own, ends, weight)
		return
	}
	for axis := range ends {
		moved := ends
		moved[axis][0].weight, moved[axis][1].weight = -1, 1
		visit(g.at(2, b, 2*(og*g.w.Taps+k)+axis, p), moved, weight)
	}
}

// roiTap is an element that a sample of a bin reads, with its weight's derivatives by the
// corners of the region: x1, y1, x2, y2.
type roiTap struct {
	at      int
	weight  float64
	corners [4]float64
}

// slopes are the derivatives by the corners of an axis, lower and upper, of where sample k of a
// bin is, of bins. least is the region's least size.
func (r *region) slopes(bin, k, bins int, least float64) (lower, upper float64) {
	t := (float64(bin) + (float64(k)+0.5)/float64(r.samples)) / float64(bins)
	if least > 0 && r.bin*float64(bins) <= least {
		return 1, 0
	}
	return 1 - t, t
}

// between reports whether a sample lies between two elements, where it moves their weights.
func (r *region) between(bin, k int) bool {
	p := r.start + float64(bin)*r.bin + (float64(k)+0.5)*r.bin/float64(r.samples)
	return p > 0 && p < float64(r.n-1)
}

// roiTaps appends to list what sample s of a bin reads.
func roiTaps(list []roiTap, r *[2]region, bins [2]int, y, x, s, width int, scale, least float64) []roiTap {
	ky, kx := s/r[1].samples, s%r[1].samples
	ty, above := r[0].taps(y, ky)
	tx, beside := r[1].taps(x, kx)
	if !above || !beside {
		return list
	}
	y1, y2 := r[0].slopes(y, ky, bins[0], least)
	x1, x2 := r[1].slopes(x, kx, bins[1], least)
	for i, a := range ty {
		for j, b := range tx {
			dy, dx := scale*float64(2*i-1)*b.weight, scale*float64(2*j-1)*a.weight
			if !r[0].between(y, ky) {
				dy = 0
			}
			if !r[1].between(x, kx) {
				dx = 0
			}
			list = append(list, roiTap{a.at*width + b.at, a.weight * b.weight, [4]float64{dx * x1, dy * y1, dx * x2, dy * y2}})
		}
	}
	return list
}

// roiSlopes are of the regions of a RoiAlign. Of the largest it is that of what each bin is.
func roiSlopes(n *Node, in []*engine.Tensor, v []float64, _ int, f func(out, at int, slope float64)) error {
	g, err := regionsOf(new(Exec), n, in)
	if err != nil {
		return err
	}
	_, _, scale, offset := roiAttrs(n)
	least := 0.0
	if offset == 0 {
		least = 1
	}
	plane, channels, bins := g.shape[2]*g.shape[3], g.shape[1], g.bins[0]*g.bins[1]
	largest := make([]roiTap, channels)
	for i := range len(g.list) * bins {
		region, bin, first := i/bins, i%bins, true
		from := v[g.batch[region]*channels*plane:][:channels*plane]
		emit := func(c int, t *roiTap, share float64) {
			for j, d := range t.corners {
				f((region*channels+c)*bins+bin, 4*region+j, d*share*from[c*plane+t.at])
			}
		}
		g.visitTaps(region, bin, scale, least, func(t *roiTap, share float64) {
			for c := range channels {
				best := &largest[c]
				switch {
				case !g.largest:
					emit(c, t, share)
				case first || t.weight*from[c*plane+t.at] > best.weight*from[c*plane+best.at]:
					*best = *t
				}
			}
			first = false
		})
		for c := range largest {
			if g.largest && !first {
				emit(c, &largest[c], 1)
			}
		}
	}
	return nil
}

// visitTaps visits what all samples of a bin read; of a largest one, zeros too.
func (g *regions) visitTaps(i, bin int, scale, least float64, f func(t *roiTap, share float64)) {
	r := &g.list[i]
	samples := r[0].samples * r[1].samples
	var room [4]roiTap
	for s := range samples {
		own := roiTaps(room[:0], r, g.bins, bin/g.bins[1], bin%g.bins[1], s, g.shape[3], scale, least)
		if g.largest && len(own) == 0 {
			own = append(own, roiTap{})
		}
		for k := range own {
			f(&own[k], 1/float64(samples))
		}
	}
}
