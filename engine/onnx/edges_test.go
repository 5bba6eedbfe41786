package onnx_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"google.golang.org/protobuf/encoding/protowire"
)

// edgeCases are so many as edges.json.gz holds.
const edgeCases = 676

// edge is a model with what onnxruntime answers; inputs and outputs are TensorProtos.
type edge struct {
	Name    string   `json:"name"`
	Model   []byte   `json:"model"`
	Inputs  [][]byte `json:"inputs"`
	Outputs [][]byte `json:"outputs"`
}

// edgesOf reads the cases of an archive, which has so many.
func edgesOf(t *testing.T, path string, n int) []edge {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []edge
	if err := json.NewDecoder(z).Decode(&cases); err != nil || len(cases) != n {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	return cases
}

// TestEdges: axes of no elements, old operator sets, rare attributes and sparse tensors
// give what onnxruntime gives, in its type and shape.
func TestEdges(t *testing.T) {
	cases := edgesOf(t, "testdata/edges.json.gz", edgeCases)
	for i := range cases {
		if err := cases[i].check(t); err != nil {
			t.Errorf("%s: %v", cases[i].Name, err)
		}
	}
}

func (c *edge) check(t *testing.T) error {
	_, _, _, err := c.run(t)
	return err
}

// run checks what a case answers, and returns it with what it was asked and of whom.
func (c *edge) run(t *testing.T) (s engine.Session, in, got engine.Values, err error) {
	m, err := onnx.Read(c.Model, "")
	if err != nil {
		return nil, nil, nil, err
	}
	if s, err = m.NewSession(engine.SessionOptions{}); err != nil {
		return nil, nil, nil, err
	}
	if in, err = tensors(c.Inputs); err != nil {
		return nil, nil, nil, err
	}
	want, err := tensors(c.Outputs)
	if err != nil {
		return nil, nil, nil, err
	}
	if got, err = s.Run(t.Context(), in, nil); err != nil {
		return nil, nil, nil, err
	}
	for i, w := range want {
		if err := agree(got[i].Tensor, w.Tensor); err != nil {
			return nil, nil, nil, fmt.Errorf("output %q: %w", w.Name, err)
		}
	}
	return s, in, got, nil
}

func tensors(files [][]byte) (engine.Values, error) {
	var list engine.Values
	for _, b := range files {
		name, x, err := onnx.ReadTensor(b)
		if err != nil {
			return nil, err
		}
		list = append(list, engine.Named{Name: name, Tensor: x})
	}
	return list, nil
}

// agree compares to 1e-5 of max(1, |want|), in half precision to its own digits.
func agree(got, want *engine.Tensor) error {
	if got.DType() != want.DType() || !slices.Equal(got.Shape(), want.Shape()) {
		return fmt.Errorf("%s %v, want %s %v", got.DType(), got.Shape(), want.DType(), want.Shape())
	}
	if want.DType() == engine.String {
		if g, w := engine.Data[string](got), engine.Data[string](want); !slices.Equal(g, w) {
			return fmt.Errorf("%q, want %q", g, w)
		}
		return nil
	}
	tolerance := 1e-5
	if want.DType() == engine.Float16 {
		tolerance = 1e-3
	}
	g, ok := got.Float64s()
	w, known := want.Float64s()
	if !ok || !known {
		return errors.New("no numbers")
	}
	for i := range w {
		same := g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i])
		if !same && !(math.Abs(g[i]-w[i]) <= tolerance*max(1, math.Abs(w[i]))) {
			return fmt.Errorf("element %d is %v, want %v", i, g[i], w[i])
		}
	}
	return nil
}

// TestSparseIsBounded: a few bytes name a tensor of any size, and indices anywhere; neither
// costs memory.
func TestSparseIsBounded(t *testing.T) {
	number := func(b []byte, id protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), v)
	}
	message := func(b []byte, id protowire.Number, m []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), m)
	}
	model := func(dims []uint64, index ...uint64) []byte {
		values := number(number(nil, 1, uint64(len(index))), 2, 1)
		indices := number(number(nil, 1, uint64(len(index))), 2, 7)
		for _, v := range index {
			values = protowire.AppendFixed32(protowire.AppendTag(values, 4, protowire.Fixed32Type), math.Float32bits(2))
			indices = number(indices, 7, v)
		}
		sparse := message(message(nil, 1, message(values, 8, []byte("w"))), 2, indices)
		for _, d := range dims {
			sparse = number(sparse, 3, d)
		}
		node := message(message(message(nil, 1, []byte("w")), 2, []byte("y")), 4, []byte("Identity"))
		graph := message(message(message(nil, 1, node), 15, sparse), 12, message(nil, 1, []byte("y")))
		return message(message(nil, 7, graph), 8, number(nil, 2, 17))
	}
	for _, c := range []struct {
		model []byte
		want  error
	}{
		{model([]uint64{3}, 0, 2), nil},
		{model([]uint64{1 << 40}, 0, 2), engine.ErrTooLarge},
		{model([]uint64{1 << 20, 1 << 20, 1 << 30}, 0), engine.ErrCorrupt},
		{model([]uint64{3}, 0, 3), engine.ErrCorrupt},
		{model([]uint64{3}, 0, math.MaxUint64), engine.ErrCorrupt},
		{model([]uint64{3}, 2, 1), engine.ErrCorrupt},
		{model([]uint64{3}, 1, 1), engine.ErrCorrupt},
		{model([]uint64{math.MaxUint64}, 0), engine.ErrCorrupt},
		{model(nil, 0), engine.ErrCorrupt},
	} {
		if _, err := onnx.Read(c.model, ""); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
}
