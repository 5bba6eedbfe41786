package graph

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestNBitsWithoutRoom: where the matrix may not be laid out, some of its columns at a time
// give the same bits, and neither way holds the matrix in floats.
func TestNBitsWithoutRoom(t *testing.T) {
	const k, n, block = 600, 200, 32
	r := rand.New(rand.NewPCG(4, 4))
	for _, bits := range []int{4, 8} {
		blocks := (k + block - 1) / block
		codes, scale := make([]uint8, n*blocks*block*bits/8), make([]float32, n*blocks)
		for i := range codes {
			codes[i] = uint8(r.Uint32())
		}
		for i := range scale {
			scale[i] = r.Float32()
		}
		g := newPlainGraph(t)
		g.Inputs = []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, k}}}
		var errs [2]error
		g.Constants["codes"], errs[0] = engine.Of(codes, n, blocks, block*bits/8)
		g.Constants["scale"], errs[1] = engine.Of(scale, n*blocks)
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		attr := func(v int) Attr { return Attr{Kind: AttrInt, Int: int64(v)} }
		g.Nodes = append(g.Nodes, &Node{
			Domain: DomainContrib, Op: "MatMulNBits", Version: 1, Inputs: []string{"x", "codes", "scale"}, Outputs: []string{"y"},
			Attrs: Attrs{"K": attr(k), "N": attr(n), "bits": attr(bits), "block_size": attr(block)},
		})
		g.Outputs = []string{"y"}
		in := engine.Values{{Name: "x", Tensor: noise(t, r, 3, k)}}
		constants := int64(len(codes) + 4*len(scale))
		var results [2][]float32
		for i, room := range []int64{constants, DefaultHeld} {
			p, err := CompileWithin(g.Graph, room)
			if err != nil {
				t.Fatal(err)
			}
			if _, laid := p.Held(); i == 0 && laid != 0 || laid > 2*k*n*int64(bits)/8 {
				t.Errorf("%d bits: %d bytes laid out", bits, laid)
			}
			// The limit leaves no room for the matrix in floats.
			run, err := p.Run(t.Context(), Options{MaxBytes: 4*(3*n+NBitsColumns*k) + 64}, in, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			results[i] = engine.Data[float32](run.Value("y"))
		}
		if !slices.Equal(results[0], results[1]) {
			t.Errorf("%d bits: other numbers without a layout", bits)
		}
	}
}
