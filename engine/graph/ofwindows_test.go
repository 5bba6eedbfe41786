package graph

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOfWindowsIsByTheTable: columns go to the elements that the table of windows says, in the
// order of the taps, whatever the dimensions.
func TestOfWindowsIsByTheTable(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	few := func(d, least, most int) []int64 {
		v := make([]int64, d)
		for i := range v {
			v[i] = int64(least + r.IntN(most-least+1))
		}
		return v
	}
	tried := map[int]int{}
	for range 4000 {
		d := 1 + r.IntN(4)
		n := &Node{Attrs: Attrs{"strides": {Ints: few(d, 1, 3)}, "dilations": {Ints: few(d, 1, 3)}, "pads": {Ints: few(2*d, 0, 2)}}}
		shape := append([]int{1, 1}, toInts(few(d, 1, 7))...)
		w, err := NewWindows(n, shape, toInts(few(d, 1, 3)))
		if err != nil {
			continue // a window larger than the input
		}
		tried[d]++
		columns := make([]float32, w.Taps*w.Positions())
		for i := range columns {
			columns[i] = r.Float32()
		}
		got, want := make([]float32, w.Plane()), make([]float32, w.Plane())
		ofWindows(w, got, columns)
		for k := range w.Taps {
			for p := range w.Positions() {
				if at := w.Index()[p*w.Taps+k]; at >= 0 {
					want[at] += columns[k*w.Positions()+p]
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("windows %v of %v, strides %v, dilations %v, pads %v %v: %v, want %v", w.Kernel, w.In, w.strides, w.dilations, w.before, w.after, got, want)
		}
	}
	for d := 1; d <= 4; d++ {
		if tried[d] < 300 {
			t.Errorf("only %d of %d dimensions tried", tried[d], d)
		}
	}
}
