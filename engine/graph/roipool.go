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

func newMaxRegionPool(b *builder) (*maxRegionPool, error) {
	shape := b.attrs.ints("pooled_shape")
	if len(shape) != 2 || min(shape[0], shape[1]) < 1 || max(shape[0], shape[1]) > maxIndex {
		return nil, b.node.corrupt("pooled_shape %v", shape)
	}
	return &maxRegionPool{height: int(shape[0]), width: int(shape[1]), scale: float32(b.attrs.float("spatial_scale", 1))}, nil
}

func buildMaxRoiPool(b *builder) (Kernel, error) {
	p, err := newMaxRegionPool(b)
	if err != nil {
		return nil, err
	}
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
	err = p.each(x, shape, regions, func(at, from int, ys, xs [][2]int) {
		largestOfCells(out[at:], v[from:], ys, xs, shape[3])
	})
	if err != nil {
		return nil, err
	}
	return one(o, storeFloats(o, out))
}

// each visits every channel of every region: where its cells begin in the result, where its
// plane begins in the images of this shape, and the rows and columns of the cells.
func (p *maxRegionPool) each(x *Exec, shape []int, regions []float64, f func(at, from int, ys, xs [][2]int)) error {
	plane, cells := shape[2]*shape[3], p.height*p.width
	for r := range len(regions) / 5 {
		if x.ctx != nil && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		region := regions[5*r : 5*r+5]
		image := math.Trunc(region[0])
		if !(image >= 0 && image < float64(shape[0])) {
			return misfit("a region in another image than there are")
		}
		ys := p.cells(region[2], region[4], p.height, shape[2])
		xs := p.cells(region[1], region[3], p.width, shape[3])
		for c := range shape[1] {
			f((r*shape[1]+c)*cells, (int(image)*shape[1]+c)*plane, ys, xs)
		}
	}
	return nil
}

// LargestOfRegions returns, for each element of a MaxRoiPool node's result, the element of its
// images that it is: the first of those of its cell that are as large, -1 where there is none.
func LargestOfRegions(n *Node, in []*engine.Tensor, result *engine.Tensor) ([]int, error) {
	p, err := newMaxRegionPool(&builder{node: n, attrs: &attrReader{node: n, read: map[string]bool{}}})
	if err != nil {
		return nil, err
	}
	v, _ := in[0].Float64s()
	regions, _ := in[1].Float64s()
	largest, _ := result.Float64s()
	shape, places := in[0].Shape(), make([]int, len(largest))
	return places, p.each(new(Exec), shape, regions, func(at, from int, ys, xs [][2]int) {
		for i, y := range ys {
			for j, x := range xs {
				cell := at + i*len(xs) + j
				places[cell] = firstEqual(v, largest[cell], from, y, x, shape[3])
			}
		}
	})
}

// firstEqual is the first element of a cell that has a value, -1 where none has it.
func firstEqual(v []float64, value float64, from int, y, x [2]int, width int) int {
	for k := y[0]; k < y[1]; k++ {
		for i := from + k*width + x[0]; i < from+k*width+x[1]; i++ {
			if v[i] == value {
				return i
			}
		}
	}
	return -1
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
