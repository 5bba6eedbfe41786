package graph

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/vector"
)

// productGraph is x times a constant of k rows and n columns.
func productGraph(t *testing.T, k, n int) *Graph {
	t.Helper()
	w, err := engine.New(engine.Float32, k, n)
	if err != nil {
		t.Fatal(err)
	}
	return &Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, k}}}, Outputs: []string{"y"},
		Constants: map[string]*engine.Tensor{"w": w},
		Nodes:     []*Node{{Op: "MatMul", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"y"}, Attrs: Attrs{}}},
	}
}

// TestHeldIsBounded: a model is refused for constants that do not fit, and its weights
// are laid out a second time only where that fits too.
func TestHeldIsBounded(t *testing.T) {
	const size = 4 * 256 * 64
	for _, tt := range []struct {
		limit           int64
		constants, laid int64
	}{{size - 1, 0, 0}, {size, size, 0}, {2*size - 1, size, 0}, {2 * size, size, size}} {
		p, err := CompileWithin(productGraph(t, 256, 64), tt.limit)
		if tt.constants == 0 {
			if !errors.Is(err, engine.ErrTooLarge) || !strings.Contains(err.Error(), "65536 bytes") || !strings.Contains(err.Error(), "65535 bytes in use") {
				t.Errorf("limit %d: error %v", tt.limit, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if constants, laid := p.Held(); constants != tt.constants || laid != tt.laid {
			t.Errorf("limit %d: %d bytes of constants and %d laid out, want %d and %d", tt.limit, constants, laid, tt.constants, tt.laid)
		}
	}
}

// TestLaidOutIsStillThere: floats that a convolution has laid out and are held no more, and a
// table that is no longer made floats of, are made for who asks for them.
func TestLaidOutIsStillThere(t *testing.T) {
	halves := func(n int, shape ...int) *engine.Tensor {
		bits := make([]uint16, n)
		for i := range bits {
			bits[i] = vector.Half.Bits(float32(i % 7))
		}
		h, err := engine.OfBits(engine.Float16, bits, shape...)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	cast := Attrs{"to": {Kind: AttrInt, Int: 1}}
	g := &Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 8, 4, 4}}, {Name: "i", DType: engine.Int64, Shape: []int{-1}}}, Outputs: []string{"y", "e"},
		Constants: map[string]*engine.Tensor{"h": halves(8*8*9, 8, 8, 3, 3), "rows": halves(40, 10, 4)},
		Nodes: []*Node{
			{Op: "Cast", Version: 17, Inputs: []string{"h"}, Outputs: []string{"w"}, Attrs: cast},
			{Op: "Cast", Version: 17, Inputs: []string{"rows"}, Outputs: []string{"table"}, Attrs: cast},
			{Op: "Conv", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"c"}, Attrs: Attrs{}},
			{Op: "Relu", Version: 17, Inputs: []string{"c"}, Outputs: []string{"y"}, Attrs: Attrs{}},
			{Op: "Gather", Version: 17, Inputs: []string{"table", "i"}, Outputs: []string{"e"}, Attrs: Attrs{}},
		},
	}
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	x, err := engine.New(engine.Float32, 1, 8, 4, 4)
	if err != nil {
		t.Fatal(err)
	}
	at, err := engine.Of([]int64{9, 0, 3}, 3)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: x}, {Name: "i", Tensor: at}}
	for _, want := range [][]string{{"y", "e"}, {"w", "table", "y", "e"}} {
		r, err := p.Run(t.Context(), Options{}, in, want)
		if err != nil {
			t.Fatalf("%v: %v", want, err)
		}
		if got := engine.Data[float32](r.Value("e")); !slices.Equal(got, []float32{1, 2, 3, 4, 0, 1, 2, 3, 5, 6, 0, 1}) {
			t.Errorf("%v: picked %v", want, got)
		}
		if len(want) > 2 && (r.Value("w").Len() != 8*8*9 || r.Value("table").Len() != 40 || engine.Data[float32](r.Value("w"))[8] != 1) {
			t.Errorf("w is %v, table %v", r.Value("w"), r.Value("table"))
		}
	}
	if !p.fused.hidden[p.fused.slots["w"]] || !p.fused.hidden[p.fused.slots["table"]] {
		t.Error("they are held")
	}
}

// TestSlackIsCounted: what a buffer of an earlier run has beyond a value is in use with
// it, and does not take the room of a run that fits without.
func TestSlackIsCounted(t *testing.T) {
	x := &Exec{limit: 4 * 1000}
	x.memory = &buffers{arena: &Arena{}, exec: x, held: map[unsafe.Pointer]*buffer{}}
	x.memory.arena.give(&buffer{v: make([]float32, 600)})
	if _, err := x.New(engine.Float32, 200); err != nil {
		t.Fatal(err)
	}
	if x.slack != 4*400 {
		t.Fatalf("%d bytes of slack", x.slack)
	}
	if _, err := x.New(engine.Float32, 401); !errors.Is(err, engine.ErrTooLarge) {
		t.Fatalf("error %v with 200 of 1000 elements in a buffer of 600", err)
	}
	if _, err := x.New(engine.Float32, 400); err != nil {
		t.Fatal(err)
	}
}
