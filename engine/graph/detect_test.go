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
