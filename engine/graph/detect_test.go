package graph

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// scattered are n boxes of both corners or of centres, and scores of which many are equal.
func scattered(r *rand.Rand, n int) (boxes, scores []float64) {
	for range n {
		boxes = append(boxes, 10*r.Float64(), 10*r.Float64(), 10*r.Float64(), 10*r.Float64())
		scores = append(scores, float64(r.IntN(n))/float64(n))
	}
	return boxes, scores
}

// TestSuppression holds the boxes that are picked against the definition: again and again
// the best that is left, without those that overlap with it.
func TestSuppression(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, centre := range []bool{false, true} {
		boxes, _ := scattered(r, 120)
		s := &suppression{boxes: boxes, centre: centre, iou: 0.3}
		for _, most := range []int{0, 7, math.MaxInt32} {
			_, scores := scattered(r, 120)
			left := slices.Clone(scores)
			want := []int{}
			for len(want) < most {
				best := slices.Index(left, slices.Max(left))
				if left[best] <= 0.2 {
					break
				}
				want = append(want, best)
				for i := range left {
					if i == best || ofUnion(s.corners(i), s.corners(best)) > 0.3 {
						left[i] = -1
					}
				}
			}
			got := s.pick(scores, most, 0.2)
			if !slices.Equal(got, want) || most > 0 && len(want) < 5 {
				t.Errorf("centre %v, at most %d: %v, want %v", centre, most, got, want)
			}
		}
	}
}

// TestSuppressionInLanes holds what is picked with lanes against what is picked without,
// among boxes of every size, some of which have no size, no end or no numbers.
func TestSuppressionInLanes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		n := 70 + r.IntN(600)
		var boxes, scores []float64
		for range n {
			wide, high := math.Exp(4*r.Float64()-3), math.Exp(4*r.Float64()-3)
			x, y := 20*r.Float64(), 20*r.Float64()*float64(round%3)
			switch odd := r.IntN(400); {
			case odd == 0:
				wide = 0
			case odd == 1:
				wide, high = 200, 200
			case odd == 2 && round%5 == 1:
				x = math.NaN()
			case odd == 3 && round%5 == 2:
				high = math.Inf(1)
			case odd == 4:
				wide = -wide
			}
			boxes, scores = append(boxes, y, x, y+high, x+wide), append(scores, r.Float64())
		}
		s := &suppression{boxes: boxes, centre: round%2 == 1, iou: []float64{0, 0.2, 0.5, 0.7}[round%4]}
		got := slices.Clone(s.pick(scores, math.MaxInt32, 0.05))
		if round == 0 && len(s.lanes.boxes) == 0 {
			t.Error("no lanes")
		}
		var want []int
		for _, i := range s.order {
			b := s.box(i)
			if !slices.ContainsFunc(want, func(k int) bool { o := s.box(k); return overlap(&b, &o) > s.iou }) {
				want = append(want, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: %d picked, want %d", round, len(got), len(want))
		}
	}
}

// ofUnion is the intersection of two boxes over their union.
func ofUnion(a, b [4]float64) float64 {
	area := func(c [4]float64) float64 { return max(c[2]-c[0], 0) * max(c[3]-c[1], 0) }
	both := area([4]float64{max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])})
	return both / (area(a) + area(b) - both)
}

// BenchmarkSuppression is of 10,000 small boxes, most of which stay.
func BenchmarkSuppression(b *testing.B) {
	boxes, scores := scattered(rand.New(rand.NewPCG(1, 1)), 10_000)
	for i := 0; i < len(boxes); i += 4 {
		boxes[i+2], boxes[i+3] = boxes[i]+0.1, boxes[i+1]+0.1
	}
	for b.Loop() {
		s := &suppression{boxes: boxes, iou: 0.5}
		s.pick(scores, math.MaxInt32, 0)
	}
}

// TestRegionsAtOnce holds regions whose taps are found once for all channels against the
// pairs that Each visits: regions of the image, across its borders and beyond them, of no
// size and turned around, with corners between elements, on them and just outside.
func TestRegionsAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	for round := range 200 {
		n, c, h, w := 1+r.IntN(3), 1+r.IntN(5), 1+r.IntN(9), 1+r.IntN(9)
		corner := func(size int) float32 {
			v := r.Float64()*float64(size+6) - 3
			if r.IntN(2) == 0 {
				v = math.Floor(2*v) / 2
			}
			return float32(v) * []float32{1, 2, 10}[round%3]
		}
		count := 1 + r.IntN(12)
		boxes, batch := make([]float32, 0, 4*count), make([]int64, count)
		for i := range count {
			boxes, batch[i] = append(boxes, corner(w), corner(h), corner(w), corner(h)), int64(r.IntN(n))
		}
		whole := func(v int) Attr { return Attr{Kind: AttrInt, Int: int64(v)} }
		node := &Node{Op: "RoiAlign", Version: 16, Attrs: Attrs{
			"output_height": whole(1 + r.IntN(7)), "output_width": whole(1 + r.IntN(7)), "sampling_ratio": whole(round % 4),
			"spatial_scale":                  {Kind: AttrFloat, Float: []float32{1, 0.5, 0.1}[round%3]},
			"coordinate_transformation_mode": {Kind: AttrString, String: []string{"half_pixel", "output_half_pixel"}[r.IntN(2)]},
		}}
		image := noise(t, r, n, c, h, w)
		of, err := engine.Of(batch, count)
		if err != nil {
			t.Fatal(err)
		}
		m, err := roiAlign(new(Exec), node, []*engine.Tensor{image, mustOf(t, boxes, count, 4), of})
		if err != nil {
			t.Fatal(err)
		}
		v := engine.Data[float32](image)
		want, got := make([]float64, volume(m.Shape)), make([]float32, volume(m.Shape))
		m.Each(func(out, in int, weight float64) { want[out] += weight * float64(v[in]) })
		for i := range got {
			got[i] = float32(math.NaN()) // each must be written
		}
		if m.fast32 == nil {
			t.Fatal("no way for all channels at once")
		}
		m.fast32(got, v)
		for i, y := range want {
			// Some processors add and multiply in one, which one of the two may not do.
			if !(math.Abs(float64(got[i])-y) <= 1e-6*max(math.Abs(y), 1)) {
				t.Fatalf("round %d, element %d of %v: %v, want %v", round, i, m.Shape, got[i], y)
			}
		}
		bins, ratio, scale, offset := roiAttrs(node)
		for i := range got {
			bin, plane := i%(bins[0]*bins[1]), i/(bins[0]*bins[1])
			k := plane / c
			b := [4]float32{}
			for j := range b {
				b[j] = float32(boxes[4*k+j]*float32(scale)) - float32(offset)
			}
			of := v[(int(batch[k])*c+plane%c)*h*w:][:h*w]
			y := regionMean(of, [2]int{h, w}, b, bins, [2]int{bin / bins[1], bin % bins[1]}, ratio, offset == 0)
			if !(math.Abs(float64(got[i])-y) <= 1e-5) {
				t.Fatalf("round %d, bin %d of region %v: %v, want %v", round, bin, b, got[i], y)
			}
		}
	}
}

// regionMean is a bin's mean by its definition, with float32 points as onnxruntime has them.
func regionMean(image []float32, size [2]int, b [4]float32, bins, bin [2]int, ratio int, wide bool) float64 {
	var points [2][]float32
	for k := range 2 {
		lo, length := b[1-k], b[3-k]-b[1-k]
		if wide {
			length = max(length, 1)
		}
		step, n := length/float32(bins[k]), ratio
		if n == 0 {
			n = int(math.Ceil(float64(step)))
		}
		for i := range max(n, 0) {
			at, within := float32(float32(bin[k])*step), float32((float32(i)+0.5)*step) // rounded: not added and multiplied in one
			points[k] = append(points[k], lo+at+within/float32(n))
		}
	}
	sum := 0.0
	for _, y := range points[0] {
		for _, x := range points[1] {
			sum += between(image, size, y, x)
		}
	}
	return sum / float64(max(len(points[0])*len(points[1]), 1))
}

// between is an image at a point, nothing where that is further outside than one.
func between(image []float32, size [2]int, y, x float32) float64 {
	sum := 0.0
	for i, v := range image {
		inside, weight := true, 1.0
		for k, p := range [2]float32{y, x} {
			inside = inside && p >= -1 && p <= float32(size[k])
			at := [2]int{i / size[1], i % size[1]}[k]
			weight *= max(1-math.Abs(min(max(float64(p), 0), float64(size[k]-1))-float64(at)), 0)
		}
		if inside {
			sum += weight * float64(v)
		}
	}
	return sum
}
