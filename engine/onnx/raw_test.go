package onnx_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// written is a file of these constants, each of which is an output, and of that metadata.
func written(t *testing.T, constants map[string]*engine.Tensor, metadata string) []byte {
	t.Helper()
	g := &graph.Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}}, Constants: constants}
	made := &onnx.Made{Graph: g, Producer: "test", Metadata: map[string]string{"more": metadata}}
	for name, c := range constants {
		g.Nodes = append(g.Nodes, &graph.Node{Name: "out" + name, Op: "Identity", Version: onnx.EncodedOpset, Inputs: []string{name}, Outputs: []string{"out" + name}})
		g.Outputs = append(g.Outputs, "out"+name)
		made.Outputs = append(made.Outputs, engine.Spec{Name: "out" + name, DType: c.DType(), Shape: c.Shape()})
	}
	data, err := onnx.Encode(made)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// outputs are those of a model for one row.
func outputs(t *testing.T, m engine.Model) engine.Values {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	x, err := engine.Of([]float32{1}, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), engine.Values{{Name: "x", Tensor: x}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func codes[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64](n int) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = T(i*7 + i/256)
	}
	return v
}

// TestTake: weights of every type are the file's wherever in it they begin, taken or not; a
// file that is not taken is not changed.
func TestTake(t *testing.T) {
	const n = 20011
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	bools := make([]bool, n)
	for i := range bools {
		bools[i] = i%3 == 0
	}
	constants := map[string]*engine.Tensor{
		"a": of(engine.Of(codes[uint8](n), n)), "bc": of(engine.Of(codes[int8](n), n)), "def": of(engine.Of(codes[uint16](n), n)),
		"ghij": of(engine.Of(codes[int16](n), n)), "k": of(engine.Of(codes[uint32](n), n)), "lm": of(engine.Of(codes[int32](n), n)),
		"nop": of(engine.Of(codes[uint64](n), n)), "q": of(engine.Of(codes[int64](n), n)), "rs": of(engine.Of(codes[float32](n), n)),
		"tuv": of(engine.Of(codes[float64](n), n)), "w": of(engine.OfBits(engine.Float16, codes[uint16](n), n)),
		"xy": of(engine.OfBits(engine.BFloat16, codes[uint16](n), n)), "z": of(engine.Of(bools, n)), "few": of(engine.Of(codes[float32](3), 3)),
	}
	check := func(m engine.Model, how string) {
		t.Helper()
		for _, o := range outputs(t, m) {
			want := constants[strings.TrimPrefix(o.Name, "out")]
			if !reflect.DeepEqual(o.Tensor, want) {
				t.Fatalf("%s: constant %q of type %s is not what was written", how, o.Name, want.DType())
			}
		}
	}
	for shift := range 8 {
		data := written(t, constants, strings.Repeat("x", shift))
		// The graph comes after the producer's name, which is as long as is wanted.
		data = append([]byte{0x12, byte(shift)}, append(bytes.Repeat([]byte("p"), shift), data...)...)
		before := slices.Clone(data)
		m, err := onnx.Read(data, "")
		if err != nil {
			t.Fatal(err)
		}
		check(m, "read")
		if !bytes.Equal(data, before) {
			t.Fatal("a file that is not taken was changed")
		}
		if m, err = onnx.Take(data, "", graph.DefaultHeld); err != nil {
			t.Fatal(err)
		}
		check(m, "taken")
	}
}

// TestTakeKeepsNoMore: a file that is mostly something else is not kept for the weights in it.
func TestTakeKeepsNoMore(t *testing.T) {
	weights, err := engine.Of(codes[float32](1<<13), 1<<13)
	if err != nil {
		t.Fatal(err)
	}
	data := written(t, map[string]*engine.Tensor{"w": weights}, strings.Repeat("x", 1<<20))
	m, err := onnx.Take(data, "", graph.DefaultHeld)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if out := outputs(t, m); !reflect.DeepEqual(out[0].Tensor, weights) {
		t.Fatal("the weights lie in the file")
	}
}

// TestDeclaredShapes: what a classifier's last product says of its output's shape is taken
// for that, and a file that says otherwise is set right.
func TestDeclaredShapes(t *testing.T) {
	w, err := engine.Of(codes[float32](12), 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, declared := range [][]int{{-1, 3}, {-1, -1}, {-1, 1}, {1, 3}, {-1}} {
		node := func(op, out string, in ...string) *graph.Node {
			return &graph.Node{Name: out, Op: op, Version: onnx.EncodedOpset, Inputs: in, Outputs: []string{out}}
		}
		data, err := onnx.Encode(&onnx.Made{
			Graph: &graph.Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 4}}}, Outputs: []string{"p"},
				Nodes:     []*graph.Node{node("Gemm", "g", "x", "w"), node("Softmax", "p", "g")},
				Constants: map[string]*engine.Tensor{"w": w},
			},
			Outputs: []engine.Spec{{Name: "p", DType: engine.Float32, Shape: declared}},
		})
		if err != nil {
			t.Fatal(err)
		}
		m, err := onnx.Read(data, "")
		if err != nil {
			t.Fatal(err)
		}
		want := []int{-1, 3}
		if declared[len(declared)-1] == -1 && len(declared) == 2 {
			want = declared
		}
		if got := m.Info().Outputs[0].Shape; !slices.Equal(got, want) {
			t.Errorf("declared %v: %v, want %v", declared, got, want)
		}
	}
}
