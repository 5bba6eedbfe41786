package engine

import (
	"slices"
	"testing"
)

func TestSpread(t *testing.T) {
	numbers, err := Of([]int64{0, 1, 10, 11, 20, 21, 30, 31, 40, 41}, 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Of([]string{"a", "b", "c", "d", "e"}, 5)
	if err != nil {
		t.Fatal(err)
	}
	v := Values{{Name: "n", Tensor: numbers}, {Name: "s", Tensor: names}}
	got, err := v.Spread(2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(Data[int64](got[0].Tensor), []int64{0, 1, 20, 21}) || !slices.Equal(Data[string](got[1].Tensor), []string{"a", "c"}) || got[0].Tensor.Rows() != 2 {
		t.Errorf("rows %v and %v", Data[int64](got[0].Tensor), Data[string](got[1].Tensor))
	}
	if all, err := v.Spread(5); err != nil || all[0].Tensor != numbers {
		t.Errorf("all rows are copied (%v)", err)
	}
	short, err := names.Slice(0, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		v Values
		k int
	}{{Values{{Name: "n", Tensor: numbers}, {Name: "s", Tensor: short}}, 2}, {v, 0}} {
		if _, err := bad.v.Spread(bad.k); err == nil {
			t.Error("rows that do not fit were spread")
		}
	}
}
