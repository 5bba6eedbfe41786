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

// TestRows finds the rows of inputs that do not have them first.
func TestRows(t *testing.T) {
	tensor := func(shape ...int) *Tensor {
		n, err := Elements(shape)
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(i)
		}
		x, err := Of(v, shape...)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	info := &Info{Inputs: []Spec{{Name: "x", Shape: []int{-1, -1}}, {Name: "state", Shape: []int{2, -1, 2}}, {Name: "rate"}}}
	in := Values{{Name: "x", Tensor: tensor(3, 4)}, {Name: "state", Tensor: tensor(2, 3, 2)}, {Name: "rate", Tensor: tensor()}}
	r := RowsOf(info, in)
	if r.N != 3 || !r.Apart() || r.First() {
		t.Fatalf("%+v", r)
	}
	part, err := r.Slice(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if got := Data[float32](part[1].Tensor); !slices.Equal(got, []float32{2, 3, 4, 5, 8, 9, 10, 11}) || !slices.Equal(part[1].Tensor.Shape(), []int{2, 2, 2}) {
		t.Errorf("the state is %v of %v", got, part[1].Tensor.Shape())
	}
	if got := Data[float32](part[0].Tensor); !slices.Equal(got, []float32{4, 5, 6, 7, 8, 9, 10, 11}) || part[2].Tensor != in[2].Tensor {
		t.Errorf("x is %v", got)
	}
	few, err := r.Spread(2)
	if err != nil || few.N != 2 || !slices.Equal(Data[float32](few.Values[1].Tensor), []float32{0, 1, 2, 3, 6, 7, 8, 9}) {
		t.Errorf("two of three are %+v (%v)", few, err)
	}
	if _, err := r.Slice(2, 4); err == nil {
		t.Error("rows that are not there were given")
	}
	if _, err := r.Spread(0); err == nil {
		t.Error("no rows were given")
	}
	for _, c := range []struct {
		shape []int
		x     *Tensor
		apart bool
	}{
		{[]int{-1, 3}, tensor(3, 3), true},
		{[]int{3}, tensor(3), true},         // one for all rows
		{[]int{-1, 3}, tensor(4, 3), false}, // counts something else
		{[]int{2, -1}, tensor(2, 4), false},
		{nil, tensor(4), false},
	} {
		r := RowsOf(&Info{Inputs: []Spec{info.Inputs[0], {Name: "other", Shape: c.shape}}}, Values{in[0], {Name: "other", Tensor: c.x}})
		if r.Apart() != c.apart || !c.apart && r.N != 1 {
			t.Errorf("%v of %v: %+v", c.x.Shape(), c.shape, r)
		}
	}
	fixed := RowsOf(&Info{Inputs: []Spec{{Name: "x", Shape: []int{3, 4}}}}, in[:1])
	if all, err := fixed.Slice(0, 1); err != nil || fixed.Apart() || fixed.N != 1 || all[0].Tensor != in[0].Tensor {
		t.Errorf("a batch of fixed size is %+v (%v)", fixed, err)
	}
}
