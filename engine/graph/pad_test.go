package graph

import (
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestPadded holds every mode against the definition, element by element, with widths
// that pad and that cut: what is cut off is not there to pad with.
func TestPadded(t *testing.T) {
	g := newPlainGraph(t)
	for round := range 400 {
		shape, before, after, cut, left := []int{}, []int{}, []int{}, []int{}, []int{}
		mode := []string{"constant", "edge", "wrap", "reflect"}[round%4]
		for range 1 + g.r.IntN(4) {
			d := 1 + g.r.IntN(5)
			b, a := g.r.IntN(2*d)-d, g.r.IntN(2*d)-d // the reach of reflect is less than d
			if round%3 == 0 {
				b, a = max(b, 0), max(a, 0)
			}
			first, n := max(-b, 0), d+min(b, 0)+min(a, 0)
			if n < 1 && mode != "constant" || n < 0 || mode == "reflect" && max(b, a) >= n {
				b, a, first, n = 0, 0, 0, d
			}
			shape, before, after, cut, left = append(shape, d), append(before, b), append(after, a), append(cut, first), append(left, n)
		}
		v := noise(t, g.r, shape...)
		got, err := padded(&Exec{limit: defaultMaxBytes}, v, before, after, mode, nil, 7)
		if err != nil {
			t.Fatal(err)
		}
		want, from, to := make([]float32, got.Len()), rowMajor(shape), rowMajor(got.Shape())
		for o := range want {
			at, inside := 0, true
			for k, d := range got.Shape() {
				p := padSource(o/to[k]%d-max(before[k], 0), left[k], mode)
				inside = inside && p >= 0
				at += (cut[k] + p) * from[k]
			}
			want[o] = 7
			if inside {
				want[o] = engine.Data[float32](v)[at]
			}
		}
		if !slices.Equal(engine.Data[float32](got), want) {
			t.Errorf("%s, %v before and %v after %v: %v, want %v", mode, before, after, shape, got, want)
		}
	}
}
