package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestTransformsByFactors holds the fast transforms, of all kinds and of lengths with small,
// large and repeated factors, to the sums that they stand for.
func TestTransformsByFactors(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 8))
	lengths := []int{60, 64, 98, 100, 128, 194, 200, 251, 256, 400, 480, 512}
	for n := 1; n <= 40; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		for kind := range 8 {
			inverse, onesided, parts := kind&1 == 1, kind&2 == 2, 1+kind>>2
			for _, have := range []int{n, max(n/2, 1), max(n-1, 1)} {
				name := fmt.Sprintf("%d of length %d, inverse %t, onesided %t, %d parts", have, n, inverse, onesided, parts)
				f, err := newDFT(&Exec{}, have, n, inverse, onesided, parts)
				if err != nil {
					t.Fatal(err)
				}
				if have == n && !inverse && parts == 1 {
					f.window = make([]float64, n)
					for i := range f.window {
						f.window[i] = r.Float64()
					}
				}
				const lines = 3
				x := make([]float64, lines*max(f.have, have)*parts)
				for i := range x {
					x[i] = r.NormFloat64()
				}
				if err := f.plan(lines, 1, spacing{max(f.have, have) * parts, 0, parts}, spacing{f.out * f.outParts, 0, f.outParts}); err != nil {
					t.Fatal(err)
				}
				want, got := make([]float64, lines*f.out*f.outParts), make([]float64, lines*f.out*f.outParts)
				f.each(func(out, in int, w float64) { want[out] += w * x[in] })
				for i := range got {
					got[i] = math.NaN() // every element is written
				}
				f.doubles(got, x)
				for i, w := range want {
					if !(math.Abs(got[i]-w) < 1e-11) {
						t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
					}
				}
			}
		}
	}
}
