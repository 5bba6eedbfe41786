package graph

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
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
