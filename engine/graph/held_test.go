package graph

import (
	"errors"
	"strings"
	"testing"
	"unsafe"

	"github.com/pellucid/pellucid/engine"
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
