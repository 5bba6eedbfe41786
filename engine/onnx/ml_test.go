package onnx_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/golden"
	"github.com/pellucid/pellucid/engine/onnx"
)

// mlCases are so many as ml.json.gz holds.
const mlCases = 83

// TestML: maps, tokens, hashes, single scores and several classifiers give what
// onnxruntime gives. What is a map in the file is a row of a matrix here.
func TestML(t *testing.T) {
	for _, c := range edgesOf(t, "testdata/ml.json.gz", mlCases) {
		if err := mapped(t, &c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

func mapped(t *testing.T, c *edge) error {
	m, err := onnx.Read(c.Model, "")
	if err != nil {
		return err
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return err
	}
	in, err := laidOut(m, c.Inputs, m.Info().Inputs)
	if err != nil {
		return err
	}
	want, err := laidOut(m, c.Outputs, m.Info().Outputs)
	if err != nil {
		return err
	}
	canonical, _, err := engine.Bind(m.Info(), in)
	if err != nil {
		return err
	}
	got, err := s.Run(t.Context(), canonical, nil)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}
	for i, w := range want {
		if err := agree(got[i].Tensor, w.Tensor); err != nil {
			return fmt.Errorf("output %q: %w", got[i].Name, err)
		}
	}
	return nil
}

// laidOut reads values, maps as the rows that stand for them, and the values of a
// sequence that are outputs each.
func laidOut(m engine.Model, files [][]byte, specs []engine.Spec) (engine.Values, error) {
	var list engine.Values
	for _, b := range files {
		spec := specs[min(len(list), len(specs)-1)]
		if keys := m.(onnx.Keyed).Keys(spec.Name); keys != nil {
			if _, x, ok, err := onnx.ReadMaps(b, spec.DType, keys); ok || err != nil {
				if err != nil {
					return nil, err
				}
				list = append(list, engine.Named{Name: spec.Name, Tensor: x})
				continue
			}
		}
		if strings.HasSuffix(spec.Name, "/0") {
			_, x, err := onnx.ReadValue(b, engine.Sequence)
			if err != nil {
				return nil, err
			}
			for _, item := range x.Items() {
				list = append(list, engine.Named{Tensor: item})
			}
			continue
		}
		_, x, err := onnx.ReadTensor(b)
		if err != nil {
			return nil, err
		}
		list = append(list, engine.Named{Name: spec.Name, Tensor: x})
	}
	return list, nil
}

// TestMapsAreFeatures: the keys of a map that a pipeline takes are its features, by name
// and one by one, and one that is not given counts as 0.
func TestMapsAreFeatures(t *testing.T) {
	c := mlCase(t, "pipeline over maps")
	m, err := onnx.Read(c.Model, "")
	if err != nil {
		t.Fatal(err)
	}
	info := m.Info()
	var names []string
	for _, f := range info.Features {
		names = append(names, f.Name)
	}
	if strings.Join(names, " ") != "a b c d e" || !info.Missing || fmt.Sprint(info.Inputs[0].Shape) != "[-1 5]" {
		t.Fatalf("features %v, missing %t, inputs %v", names, info.Missing, info.Inputs)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(0)
	nan /= nan
	run := func(v float32) *engine.Tensor {
		x, err := engine.Of([]float32{1, v, -2, v, 0.5}, 1, 5)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), engine.Values{{Name: "X", Tensor: x}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out[1].Tensor
	}
	if err := agree(run(nan), run(0)); err != nil {
		t.Errorf("keys that are not there: %v", err)
	}
}

func mlCase(t *testing.T, name string) *edge {
	for _, c := range edgesOf(t, "testdata/ml.json.gz", mlCases) {
		if c.Name == name {
			return &c
		}
	}
	t.Fatalf("no case %q", name)
	return nil
}

// TestGoldenMaps: folders of test data hold maps and sequences as ONNX has them, and a
// wrong value in one is found.
func TestGoldenMaps(t *testing.T) {
	for _, name := range []string{"pipeline over maps", "pipeline over maps of integers", "several classifiers"} {
		c := mlCase(t, name)
		m, err := onnx.Read(c.Model, "")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		set := filepath.Join(dir, "test_data_set_0")
		if err := os.Mkdir(set, 0o755); err != nil {
			t.Fatal(err)
		}
		put := func(kind string, i int, b []byte) {
			if err := os.WriteFile(filepath.Join(set, fmt.Sprintf("%s_%d.pb", kind, i)), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i, b := range c.Inputs {
			put("input", i, b)
		}
		for i, b := range c.Outputs {
			put("output", i, b)
		}
		if err := golden.Check(t.Context(), m, dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wrong := slices.Clone(c.Outputs[1])
		for i := len(wrong) - 1; ; i-- {
			if wrong[i] == 0x3e { // of a float32 between an eighth and a half
				wrong[i] = 0x40
				break
			}
		}
		put("output", 1, wrong)
		var bad *golden.Mismatch
		if err := golden.Check(t.Context(), m, dir); !errors.As(err, &bad) {
			t.Errorf("%s with another output: %v", name, err)
		}
	}
}

// TestMapsRefused: a map whose keys nobody knows is refused at load, with the reason.
func TestMapsRefused(t *testing.T) {
	c := mlCase(t, "map cast")
	for from, want := range map[string]string{"SPARSE": "as many columns as the map has keys", "CastMap": "no DictVectorizer"} {
		to := map[string]string{"SPARSE": "DENSE_", "CastMap": "CastMop"}[from]
		_, err := onnx.Read([]byte(strings.Replace(string(c.Model), from, to, 1)), "")
		var u *engine.UnsupportedError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), `input "x": a map`) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
