package explain

import "testing"

func TestMiddles(t *testing.T) {
	for _, c := range []struct {
		column []float64
		mode   bool
		want   float64
	}{
		{nil, false, 0},
		{[]float64{3}, false, 3},
		{[]float64{4, 1}, false, 2.5},
		{[]float64{9, 1, 5}, false, 5},
		{[]float64{7, 1, 2, 100}, false, 4.5},
		{[]float64{2, 1, 2, 1, 3}, true, 1},
		{[]float64{5, 5, 1}, true, 5},
	} {
		if got := middle(c.column, c.mode); got != c.want {
			t.Errorf("the middle of %v (mode %t) is %g, want %g", c.column, c.mode, got, c.want)
		}
	}
}
