package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// TestWeightedReference: a row that stands for three makes the reference that three such
// rows make.
func TestWeightedReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 7, 60, 3000} {
		plain, weighted := someColumns(), someColumns()
		for i, numbers := 0, 0; i < n || numbers%100 != 0; i++ { // so many that no percent lies between two rows
			w := 1 + rng.IntN(4)
			if i >= n {
				w = 1
			}
			x, few, name := rng.NormFloat64(), float64(rng.IntN(12)), fmt.Sprint("c", int(math.Abs(rng.NormFloat64()*60)))
			if rng.IntN(10) == 0 {
				x, name = math.NaN(), ""
			}
			if !math.IsNaN(x) {
				numbers += w
			}
			add := func(cols []Column) {
				cols[0].Numbers, cols[1].Numbers, cols[2].Strings = append(cols[0].Numbers, x), append(cols[1].Numbers, few), append(cols[2].Strings, name)
			}
			for range w {
				add(plain)
			}
			add(weighted)
			for i := range weighted {
				weighted[i].Weights = append(weighted[i].Weights, float64(w))
			}
		}
		want, err := NewReference(plain, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewReference(weighted, "")
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Fields {
			g, w := &got.Fields[i], &want.Fields[i]
			if math.Abs(g.Std-w.Std) > 1e-12*(1+w.Std) {
				t.Errorf("%d rows: deviation %g, of single rows %g", n, g.Std, w.Std)
			}
			g.Std = w.Std
			if !reflect.DeepEqual(g, w) || !reflect.DeepEqual(got.Counts[i], want.Counts[i]) {
				t.Errorf("%d rows, field %d:\n%+v %v\nof single rows\n%+v %v", n, i, g, got.Counts[i], w, want.Counts[i])
			}
		}
		if got.Rows != want.Rows {
			t.Errorf("%d rows, of single ones %d", got.Rows, want.Rows)
		}
	}
	for _, weights := range [][]float64{{1}, {1, math.NaN()}, {1, -1}, {0, 0}, {1, math.Inf(1)}} {
		if _, err := NewReference([]Column{{Name: "x", Kind: KindNumeric, Numbers: []float64{1, 2}, Weights: weights}}, ""); err == nil {
			t.Errorf("weights %v of two rows make a reference", weights)
		}
	}
}

func someColumns() []Column {
	return []Column{{Name: "x", Kind: KindNumeric}, {Name: "few", Kind: KindCategorical}, {Name: "name", Kind: KindCategorical}}
}
