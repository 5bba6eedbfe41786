package engine_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// manyCategories is a model of one feature with n categories, and a number.
func manyCategories(n int, name func(i int) string) *engine.Info {
	names := make([]string, n)
	for i := range names {
		names[i] = name(i)
	}
	return &engine.Info{
		Format: "lightgbm", Missing: true,
		Inputs:   []engine.Spec{{Name: "input", DType: engine.Float64, Shape: []int{-1, 2}}},
		Features: []engine.Feature{{Name: "shop", Categorical: true, Categories: names}, {Name: "price"}},
	}
}

func bindOne(tb testing.TB, info *engine.Info, shops any, rows int) []float64 {
	tb.Helper()
	var shop *engine.Tensor
	var err error
	switch s := shops.(type) {
	case []string:
		shop, err = engine.Of(s, rows)
	case []float64:
		shop, err = engine.Of(s, rows)
	}
	if err != nil {
		tb.Fatal(err)
	}
	price, err := engine.Of(make([]float64, rows), rows)
	if err != nil {
		tb.Fatal(err)
	}
	out, _, err := engine.Bind(info, engine.Values{{Name: "shop", Tensor: shop}, {Name: "price", Tensor: price}})
	if err != nil {
		tb.Fatal(err)
	}
	return engine.Data[float64](out[0].Tensor)
}

// TestManyCategories: with many names and few, one row and many, the same codes are found,
// the last of names that stand twice, none of values that several stand for.
func TestManyCategories(t *testing.T) {
	for _, n := range []int{100, 1000} {
		words := manyCategories(n, func(i int) string { return "shop " + strconv.Itoa(i%(n-1)) })
		numbers := manyCategories(n, func(i int) string {
			if i == 7 {
				return "8.0" // and 8 is another's
			}
			return strconv.Itoa(i)
		})
		for _, rows := range []int{1, 40} {
			text, values := make([]string, rows), make([]float64, rows)
			for r := range rows {
				text[r], values[r] = "shop "+strconv.Itoa(r), float64(r+3)
			}
			text[rows-1] = "none"
			got, by := bindOne(t, words, text, rows), bindOne(t, numbers, values, rows)
			for r := range rows {
				code := float64(r)
				if r == 0 {
					code = float64(n - 1)
				}
				if x := got[2*r]; r < rows-1 && x != code || r == rows-1 && x == x {
					t.Errorf("%d names, row %d of %d: code %v, want %v", n, r, rows, x, code)
				}
				if x := by[2*r]; values[r] == 7 && x == x || values[r] != 7 && x != values[r] {
					t.Errorf("%d numbers, row %d of %d: %v has code %v", n, r, rows, values[r], x)
				}
			}
		}
		if words.Features[0].TakesValues() || !numbers.Features[0].TakesValues() {
			t.Errorf("%d names: words take values, or numbers do not", n)
		}
	}
}

// TestIndexesGo: what finds a model's categories goes with the model.
func TestIndexesGo(t *testing.T) {
	const each = 50_000
	use := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := use()
	for k := range 40 {
		info := manyCategories(each, func(i int) string { return fmt.Sprint("model ", k, " shop ", i) })
		bindOne(t, info, []string{"none"}, 1)
		runtime.GC() // cleanups run behind
	}
	if after := use(); after > before+100<<20 {
		t.Errorf("%d MiB are left of 40 models", (after-before)>>20)
	}
}

// BenchmarkCategories finds one name among so many, a request of one row and of a hundred.
func BenchmarkCategories(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		info := manyCategories(n, func(i int) string { return "shop " + strconv.Itoa(i) })
		for _, rows := range []int{1, 100} {
			shops := make([]string, rows)
			for r := range shops {
				shops[r] = "shop " + strconv.Itoa(r*n/rows)
			}
			b.Run(fmt.Sprintf("%d names %d rows", n, rows), func(b *testing.B) {
				for b.Loop() {
					bindOne(b, info, shops, rows)
				}
			})
		}
	}
}
