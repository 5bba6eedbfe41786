package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSlab: tensors of one slab are zeroed, have the shape they were made with and nothing of
// one another, whatever their types and sizes, and keep it when they are appended to.
func TestSlab(t *testing.T) {
	types := []DType{Bool, Int8, Uint16, Int32, Int64, Float16, Float32, Float64, String}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var slab Slab
		type made struct {
			t     *Tensor
			shape []int
			fill  byte
		}
		var all []made
		for i := range 40 {
			d := types[rng.IntN(len(types))]
			shape := make([]int, rng.IntN(4))
			for k := range shape {
				shape[k] = rng.IntN(9)
			}
			x, err := slab.New(d, shape...)
			if err != nil {
				t.Fatal(err)
			}
			m := made{x, slices.Clone(shape), byte(i + 1)}
			for k := range shape {
				shape[k] = -1 // the caller's list is not the tensor's
			}
			if !holds(x, 0) {
				t.Fatalf("seed %d: %s %v is not zeros", seed, d, m.shape)
			}
			fill(x, m.fill)
			all = append(all, m)
		}
		for i, m := range all {
			if !slices.Equal(m.t.Shape(), m.shape) || !holds(m.t, m.fill) {
				t.Fatalf("seed %d: tensor %d, %s %v, was changed by another", seed, i, m.t.DType(), m.shape)
			}
		}
	}
	if _, err := new(Slab).New(Float32, 2, -1); err == nil {
		t.Fatal("a negative dimension is taken")
	}
	if _, err := new(Slab).New(Sequence, 2); err == nil {
		t.Fatal("a sequence of nothing is made")
	}
}

// fill sets all elements of a tensor to what stands for b, and appends to them.
func fill(t *Tensor, b byte) {
	switch d := t.data.(type) {
	case *[]bool:
		set(*d, b != 0)
	case *[]int8:
		set(*d, int8(b))
	case *[]uint16:
		set(*d, uint16(b))
	case *[]int32:
		set(*d, int32(b))
	case *[]int64:
		set(*d, int64(b))
	case *[]float32:
		set(*d, float32(b))
	case *[]float64:
		set(*d, float64(b))
	case *[]string:
		set(*d, string(b))
	}
}

func set[T any](d []T, v T) {
	for i := range d {
		d[i] = v
	}
	_ = append(d, v)
}

func holds(t *Tensor, b byte) bool {
	same := t.data != nil
	for i := range t.Len() {
		switch d := t.data.(type) {
		case *[]bool:
			same = same && (*d)[i] == (b != 0)
		case *[]int8:
			same = same && (*d)[i] == int8(b)
		case *[]uint16:
			same = same && (*d)[i] == uint16(b)
		case *[]int32:
			same = same && (*d)[i] == int32(b)
		case *[]int64:
			same = same && (*d)[i] == int64(b)
		case *[]float32:
			same = same && (*d)[i] == float32(b)
		case *[]float64:
			same = same && (*d)[i] == float64(b)
		case *[]string:
			same = same && ((*d)[i] == string(b) || b == 0 && (*d)[i] == "")
		}
	}
	return same
}
