package graph

import (
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestOctetsOfARunAreNotKept: a step that the fusion of bytes puts in for a value of none of the
// file's bears no node of the file, as the first one, a Shape maybe: a session keeps what a shape
// makes. One that ran before gives what a new one does.
func TestOctetsOfARunAreNotKept(t *testing.T) {
	for _, signed := range []bool{false, true} {
		g := newOctetGraph(t)
		g.signed = signed
		shape := g.op("Shape", nil, "x")
		v := g.pair(g.op("MatMul", nil, g.pair("x", 0.02, 128), g.octets(1, false, 32, 32)), 0.02, 128)
		v = g.pair(g.op("Reshape", nil, v, shape), 0.02, 128)
		v = g.pair(g.op("Mul", nil, v, g.pair(g.op("Tanh", nil, v), 0.008, 128)), 0.01, 128)
		v = g.pair(g.op("Reshape", nil, v, put(g, []int64{-1, 8}, 2)), 0.01, 128)
		g.node("Reshape", "y", nil, v, shape)
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		run := func(opt Options, x *engine.Tensor) []float32 {
			out, err := p.Outputs(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, g.Outputs)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Clone(engine.Data[float32](out[0].Tensor))
		}
		kept := Options{Arena: &Arena{}}
		for range 4 {
			x := noise(t, g.r, 3, 32)
			if got, want := run(kept, x), run(Options{Arena: &Arena{}}, x); !slices.Equal(got, want) {
				t.Errorf("signed %t: %v, want %v", signed, got[:8], want[:8])
			}
		}
	}
}
