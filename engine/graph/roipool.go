package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// maxRegionPool is a MaxRoiPool node: of each region (batch, x1, y1, x2, y2) of an image
// the largest element in each of height x width cells.
type maxRegionPool struct {
	height, width int
	scale         float32
}

func buildMaxRoiPool(b *builder) (Kernel, error) {
	shape := b.attrs.ints("pooled_shape")
	if len(shape) != 2 || min(shape[0], shape[1]) < 1 || max(shape[0], shape[1]) > maxIndex {
		return nil, b.node.corrupt("pooled_shape %v", shape)
	}
	p := &maxRegionPool{height: int(shape[0]), width: int(shape[1]), scale: float32(b.attrs.float("spatial_scale", 1))}
	return p.run, nil
}

func (p *maxRegionPool) run(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
	shape, rois := in[0].Shape(), in[1].Shape()
	if len(shape) != 4 || len(rois) != 2 || rois[1] != 5 {
		return nil, fmt.Errorf("regions of shape %v in images of %v", rois, shape)
	}
	if in[0].DType() != in[1].DType() {
		return nil, fmt.Errorf("regions of %s in images of %s", in[1].DType(), in[0].DType())
	}
	if err := x.reserve(engine.Float64, in[0].Len()+in[1].Len()); err != nil {
		return nil, err
	}
	v, ok := in[0].Float64s()
	regions, numbers := in[1].Float64s()
	if !ok || !numbers {
		return nil, typeError(in[0])
	}
	o, err := x.New(in[0].DType(), rois[0], shape[1], p.height, p.width)
	if err != nil {
		return nil, err
	}
	if err := x.reserve(engine.Float64, o.Len()); err != nil {
		return nil, err
	}
	out := make([]float64, o.Len())
	plane, cells := shape[2]*shape[3], p.height*p.width
	for r := range rois[0] {
		if x.ctx != nil && x.ctx.Err() != nil {
			return nil, x.ctx.Err()
		}
		region := regions[5*r : 5*r+5]
		image := math.Trunc(region[0])
		if !(image >= 0 && image < float64(shape[0])) {
			return nil, misfit("a region in another image than there are")
		}
		ys := p.cells(region[2], region[4], p.height, shape[2])
		xs := p.cells(region[1], region[3], p.width, shape[3])
		for c := range shape[1] {
			from := v[(int(image)*shape[1]+c)*plane:][:plane]
			largestOfCells(out[(r*shape[1]+c)*cells:][:cells], from, ys, xs, shape[3])
		}
	}
	return one(o, storeFloats(o, out))
}

// cells are the elements [from, to) of each of count cells of a region's side, of n
// elements: the side is rounded to whole elements, its ends in it, one at least; cells may
// share elements.
func (p *maxRegionPool) cells(from, to float64, count, n int) [][2]int {
	start, end := p.place(from), p.place(to)
	size := float32(max(end-start+1, 1)) / float32(count)
	list := make([][2]int, count)
	for i := range list {
		lo := start + math.Floor(float64(float32(i)*size))
		hi := start + math.Ceil(float64(float32(i+1)*size))
		list[i] = [2]int{clampTo(lo, n), clampTo(hi, n)}
	}
	return list
}

// place is the element that a coordinate names, halves away from zero.
func (p *maxRegionPool) place(v float64) float64 { return math.Round(float64(float32(v) * p.scale)) }

// clampTo is v as an integer of 0 to n; what is no number is 0.
func clampTo(v float64, n int) int {
	if v != v {
		return 0
	}
	return int(min(max(v, 0), float64(n)))
}

// largestOfCells writes the largest element of each cell, zero where a cell has none.
func largestOfCells(out, plane []float64, ys, xs [][2]int, width int) {
	for i, y := range ys {
		for j, x := range xs {
			if y[0] >= y[1] || x[0] >= x[1] {
				continue
			}
			best := math.Inf(-1)
			for k := y[0]; k < y[1]; k++ {
				for _, e := range plane[k*width:][x[0]:x[1]] {
					best = max(best, e)
				}
			}
			out[i*len(xs)+j] = best
		}
	}
}

func init() {
	register(DomainONNX, map[string]opDef{
		"MaxRoiPool": {since: 1, minIn: 2, maxIn: 2, maxOut: 1, accept: floatTypes, half: true, build: buildMaxRoiPool},
	})
}
