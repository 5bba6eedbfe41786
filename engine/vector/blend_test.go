package vector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestBlends holds lines blended element by element and run by run against sums in float64,
// at lengths around the vectors' and with one to five taps.
func TestBlends(t *testing.T) {
	onEach(t, func(t *testing.T) {
		for _, n := range lengths[1:] {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(n), 4))
				wide, m := 1+r.IntN(2*n), &Mix{}
				places, weights := make([][]int, n), make([][]float32, n)
				for i := range n {
					for range 1 + r.IntN(5) {
						places[i], weights[i] = append(places[i], r.IntN(wide)), append(weights[i], float32(r.NormFloat64()))
					}
					if len(places[i]) == 1 && r.IntN(2) == 0 {
						weights[i][0] = 1
					}
					m.At, m.Weights = append(m.At, places[i]...), append(m.Weights, weights[i]...)
					m.Ends = append(m.Ends, len(m.At))
				}
				const rows = 3
				src := make([]float32, rows*wide)
				for i := range src {
					src[i] = float32(r.NormFloat64())
				}
				src[r.IntN(len(src))] = float32(math.Inf(1))
				lines, runs := guarded(rows*n), guarded(rows*n)
				NewBlend(wide, places, weights).Lines(lines[guard:guard+rows*n], src)
				half := n / 2 // of runs of three elements, in two parts
				m.Runs(runs[guard:guard+rows*half], src, rows, 0, half)
				m.Runs(runs[guard+rows*half:guard+rows*n], src, rows, half, n)
				held(t, lines)
				held(t, runs)
				for i := range n {
					for row := range rows {
						line, run, size := 0.0, 0.0, 1.0
						for k, at := range places[i] {
							line += float64(weights[i][k]) * float64(src[row*wide+at])
							run += float64(weights[i][k]) * float64(src[at*rows+row])
							size += 10 * math.Abs(float64(weights[i][k]))
						}
						close := func(what string, got float32, want float64) {
							if g := float64(got); math.IsNaN(g) != math.IsNaN(want) || math.IsInf(g, 0) != math.IsInf(want, 0) || math.Abs(g-want) > 1e-6*size {
								t.Fatalf("element %d, %d of %s is %v, want %v", i, row, what, got, want)
							}
						}
						close("lines", lines[guard+row*n+i], line)
						close("runs", runs[guard+i*rows+row], run)
					}
				}
			})
		}
	})
}

// TestBlendsOfWhatIsNotThere: a place outside of the source is refused before it is read.
func TestBlendsOfWhatIsNotThere(t *testing.T) {
	onEach(t, func(t *testing.T) {
		v := make([]float32, 6)
		for name, f := range map[string]func(){
			"a place behind a line": func() { NewBlend(3, [][]int{{3}}, [][]float32{{1}}) },
			"a place before a line": func() { NewBlend(3, [][]int{{-1}}, [][]float32{{1}}) },
			"an element of nothing": func() { NewBlend(3, [][]int{{}}, [][]float32{{}}) },
			"another line":          func() { NewBlend(3, [][]int{{2}}, [][]float32{{1}}).Lines(v[:1], v[:2]) },
			"a run behind all": func() {
				(&Mix{Ends: []int{2}, At: []int{0, 3}, Weights: []float32{1, 1}}).Runs(make([]float32, 2), v, 2, 0, 1)
			},
			"a run before all": func() {
				(&Mix{Ends: []int{2}, At: []int{0, -1}, Weights: []float32{1, 1}}).Runs(make([]float32, 2), v, 2, 0, 1)
			},
			"a sum of nothing": func() { (&Mix{Ends: []int{0}}).Runs(make([]float32, 2), v, 2, 0, 1) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", name)
					}
				}()
				f()
			}()
		}
	})
}
