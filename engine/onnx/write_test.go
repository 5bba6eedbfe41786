package onnx

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"google.golang.org/protobuf/encoding/protowire"
)

// everyModel returns the model files of the archives by name.
func everyModel(t testing.TB) map[string][]byte {
	out := map[string][]byte{}
	for _, zip := range []string{"sklearn.zip", "torch.zip"} {
		for name, files := range archive(t, zip) {
			if m := files["model.onnx"]; m != nil {
				out[name] = m
			}
		}
	}
	if len(out) < 100 {
		t.Fatalf("%d models in the archives", len(out))
	}
	return out
}

// TestEditKeepsBytes writes every model of the archives unchanged.
func TestEditKeepsBytes(t *testing.T) {
	for name, data := range everyModel(t) {
		f, err := Edit(data, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		out, err := f.Bytes()
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %d bytes were written of %d that were read (%v)", name, len(out), len(data), err)
		}
	}
}

// TestReplaceKeepsMeaning writes every float weight anew with the values it has: the
// model that is read then is the one before.
func TestReplaceKeepsMeaning(t *testing.T) {
	replaced := 0
	for name, data := range everyModel(t) {
		f, err := Edit(data, "")
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]*engine.Tensor{}
		for _, w := range f.Weights() {
			v, err := w.Value()
			if err != nil || v.DType() == engine.String {
				continue
			}
			before[w.Name] = v
			if err := f.Replace(w, v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			replaced++
		}
		out, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Edit(out, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a, b := len(f.Nodes()), len(again.Nodes()); a != b {
			t.Errorf("%s: %d nodes became %d", name, a, b)
		}
		for _, w := range again.Weights() {
			v, err := w.Value()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if want := before[w.Name]; want != nil && (v.DType() != want.DType() || !slices.Equal(v.Shape(), want.Shape())) {
				t.Errorf("%s: %q is %s %v, was %s %v", name, w.Name, v.DType(), v.Shape(), want.DType(), want.Shape())
			} else if want != nil {
				closeTo(t, name+" "+w.Name, v, want, 0)
			}
		}
		if _, err := Read(data, ""); err != nil {
			continue
		}
		if _, err := Read(out, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if replaced < 200 {
		t.Errorf("%d weights were written", replaced)
	}
}

// TestRawOfEveryType writes and reads tensors of every element type.
func TestRawOfEveryType(t *testing.T) {
	tensors := []*engine.Tensor{
		must(engine.Of([]bool{true, false}, 2)), must(engine.Of([]uint8{1, 255}, 2)), must(engine.Of([]int8{-1, 127}, 2)),
		must(engine.Of([]uint16{1, 65535}, 2)), must(engine.Of([]int16{-1, 300}, 2)), must(engine.Of([]uint32{1, 1 << 31}, 2)),
		must(engine.Of([]int32{-1, 1 << 30}, 2)), must(engine.Of([]uint64{1, 1 << 63}, 2)), must(engine.Of([]int64{-1, 1 << 62}, 2)),
		must(engine.Of([]float32{-0.5, float32(math.Inf(1))}, 2)), must(engine.Of([]float64{math.Pi, -1}, 2)),
		must(engine.OfBits(engine.Float16, []uint16{1, 0x3c00}, 2)), must(engine.OfBits(engine.BFloat16, []uint16{1, 0x3f80}, 2)),
	}
	for _, want := range tensors {
		b, err := encodeTensor(nil, "t", want)
		if err != nil {
			t.Fatal(err)
		}
		p, err := decodeTensor(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.tensor("")
		if err != nil || got.DType() != want.DType() || p.name != "t" {
			t.Fatalf("%s: %v", want.DType(), err)
		}
		closeTo(t, want.DType().String(), got, want, 0)
	}
	if _, err := encodeTensor(nil, "t", must(engine.Of([]string{"x"}, 1))); err == nil {
		t.Error("text was written as numbers")
	}
}

// linearModel is Y = X W with W in a file of its own, and declared as an input as
// before version 4 of the format where ir is 3.
func linearModel(ir uint64, external bool) []byte {
	text := appendText
	number := func(b []byte, id protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), v)
	}
	within := func(b []byte, id protowire.Number, m []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), m)
	}
	value := func(name string, dims ...uint64) []byte {
		var shape []byte
		for _, d := range dims {
			var dim []byte
			if d > 0 {
				dim = number(nil, 1, d)
			} else {
				dim = text(nil, 2, "N")
			}
			shape = within(shape, 1, dim)
		}
		return within(text(nil, 1, name), 2, within(nil, 1, within(number(nil, 1, 1), 2, shape)))
	}
	w := number(number(number(nil, 1, 2), 1, 1), 2, 1)
	w = text(w, 8, "W")
	w = text(w, 12, "what W is")
	if external {
		w = within(w, 13, text(text(nil, 1, "location"), 2, "w.bin"))
		w = within(w, 13, text(text(nil, 1, "offset"), 2, "4"))
		w = number(w, 14, 1)
	} else {
		w = within(w, 9, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40})
	}
	n := text(text(text(text(nil, 1, "X"), 1, "W"), 2, "Y"), 4, "MatMul")
	g := within(nil, 1, n)
	g = within(g, 5, w)
	g = within(g, 11, value("X", 0, 2))
	if ir == 3 {
		g = within(g, 11, value("W", 2, 1))
	}
	g = within(g, 12, value("Y", 0, 1))
	m := number(nil, 1, ir)
	m = within(m, 7, g)
	return within(m, 8, number(nil, 2, 13))
}

// TestExternalDataIsInlined writes a model whose weights lie beside it.
func TestExternalDataIsInlined(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "w.bin"), []byte{9, 9, 9, 9, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Edit(linearModel(8, true), dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.Outside() != 8 {
		t.Errorf("%d bytes stood outside, want 8", f.Outside())
	}
	out, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("what W is")) || bytes.Contains(out, []byte("w.bin")) {
		t.Error("the documentation is lost, or the file still named")
	}
	m, err := Read(out, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Run(t.Context(), engine.Values{{Name: "X", Tensor: must(engine.Of([]float32{3, 4}, 1, 2))}}, nil)
	if err != nil || engine.Data[float32](got[0].Tensor)[0] != 11 {
		t.Errorf("Y is %v (%v), want 11", got, err)
	}
	if _, err := Edit(linearModel(8, true), ""); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("without its folder: %v", err)
	}
}

// TestDeriveOfOldFormat makes a weight computed in a file that declares its weights
// as inputs too: the input goes, and the file's version becomes one that allows it.
func TestDeriveOfOldFormat(t *testing.T) {
	f, err := Edit(linearModel(3, false), "")
	if err != nil {
		t.Fatal(err)
	}
	half := must(engine.OfBits(engine.Float16, []uint16{0x3c00, 0x4000}, 2, 1))
	err = f.Derive(f.Weight("W"), "/fp16", half, func(from, to string) []NewNode {
		return []NewNode{{Name: "cast", Op: "Cast", Inputs: []string{from}, Outputs: []string{to}, Ints: map[string]int64{"to": 1}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Weight("W") != nil || f.Weight("W/fp16") == nil {
		t.Error("the weight is not found by its new name")
	}
	out, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	p, err := decodeModel(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.graph.inputs) != 1 || p.graph.inputs[0].name != "X" || len(p.graph.nodes) != 2 {
		t.Errorf("%d inputs and %d nodes", len(p.graph.inputs), len(p.graph.nodes))
	}
	again, err := Edit(out, "")
	if err != nil || again.ir != irInitializers {
		t.Errorf("version %d of the format (%v), want %d", again.ir, err, irInitializers)
	}
}

// FuzzEdit takes hostile files apart, changes what can be changed and writes them.
func FuzzEdit(f *testing.F) {
	models := everyModel(f)
	for _, name := range slices.Sorted(maps.Keys(models)) {
		if data := models[name]; len(data) < 3000 {
			f.Add(data)
		}
	}
	f.Add(linearModel(3, false))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Edit(data, "")
		if err != nil {
			return
		}
		for _, w := range e.Weights() {
			if v, err := w.Value(); err == nil && onnxType(v.DType()) != 0 {
				if err := e.Replace(w, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		e.Readers()
		out, err := e.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Edit(out, ""); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
