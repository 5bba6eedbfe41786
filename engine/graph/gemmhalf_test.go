package graph

import (
	"math"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestGemmRoundsOnce: in half precision the product and what is added to it are summed in
// float32, and the sum is rounded: the nearest to the exact result, or its neighbour where
// that lies half way. ONNX's reference rounds the product too; onnxruntime has no kernel
// for bfloat16 on a CPU.
func TestGemmRoundsOnce(t *testing.T) {
	const m, k, n = 3, 40, 5
	for _, d := range []engine.DType{engine.BFloat16, engine.Float16} {
		made := func(seed float64, shape ...int) (*engine.Tensor, []float64) {
			v := make([]float64, volume(shape))
			for i := range v {
				v[i] = rounded(d, math.Sin(seed+float64(i)*1.7)*2)
			}
			x, err := engine.New(d, shape...)
			if err == nil {
				err = storeFloats(x, v)
			}
			if err != nil {
				t.Fatal(err)
			}
			return x, v
		}
		a, av := made(1, m, k)
		b, bv := made(2, k, n)
		c, cv := made(3, n)
		g := &Graph{
			Inputs:  []engine.Spec{{Name: "in0", DType: d, Shape: []int{m, k}}, {Name: "in1", DType: d, Shape: []int{k, n}}, {Name: "in2", DType: d, Shape: []int{n}}},
			Outputs: []string{"y"},
			Nodes:   []*Node{{Op: "Gemm", Version: 13, Inputs: []string{"in0", "in1", "in2"}, Outputs: []string{"y"}, Attrs: Attrs{}}},
		}
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Run(t.Context(), Options{}, bodyValues([]*engine.Tensor{a, b, c}), g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := r.Value("y").Float64s()
		for i, y := range got {
			want, size := cv[i%n], math.Abs(cv[i%n])
			for j := range k {
				p := av[i/n*k+j] * bv[j*n+i%n]
				want, size = want+p, size+math.Abs(p)
			}
			slack := size * k * 0x1p-24 // of sums in float32
			if low, high := rounded(d, want-slack), rounded(d, want+slack); y < low || y > high {
				t.Errorf("%s: element %d is %v, want %v to %v", d, i, y, low, high)
			}
		}
	}
}
