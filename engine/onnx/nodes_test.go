package onnx

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// The cases of ONNX's own suite in nodes.tar.gz, and how many of them are refused
// by name: 8-bit and 4-bit floats, sequences, training, a few modes.
const (
	nodeCases   = 911
	nodeRefused = 150
)

// notOurs are cases that we answer as onnxruntime and PyTorch do, unlike ONNX's
// reference.
var notOurs = map[string]string{
	"test_resize_downsample_scales_linear_align_corners": "the reference aligns the corners of an output of a fraction of an element",
	"test_averagepool_2d_ceil_last_window_starts_on_pad": "its output is written with four digits",
}

// TestNodes runs ONNX's own test of every operator: each is right, or refused by
// name before it runs.
func TestNodes(t *testing.T) {
	cases := nodeArchive(t)
	refused := 0
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		err := runNode(t, cases[name])
		var u *engine.UnsupportedError
		switch {
		case errors.As(err, &u):
			refused++
		case err != nil && notOurs[name] == "":
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(cases) != nodeCases || refused != nodeRefused {
		t.Errorf("%d cases, %d of them refused; want %d and %d", len(cases), refused, nodeCases, nodeRefused)
	}
}

// nodeArchive reads nodes.tar.gz: case, then file.
func nodeArchive(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/nodes.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return cases
		}
		if err != nil {
			t.Fatal(err)
		}
		dir, file := path.Split(h.Name)
		dir = path.Clean(dir)
		if cases[dir] == nil {
			cases[dir] = map[string][]byte{}
		}
		if cases[dir][file], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func runNode(t *testing.T, files map[string][]byte) error {
	t.Helper()
	m, err := Read(files["model.onnx"], "")
	if err != nil {
		return err
	}
	var in engine.Values
	for i, spec := range m.Info().Inputs {
		_, x, err := ReadTensor(files[fmt.Sprintf("input_%d.pb", i)])
		if err != nil {
			return err
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: x})
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return err
	}
	out, err := s.Run(t.Context(), in, nil)
	if err != nil {
		return err
	}
	for i, o := range out {
		_, want, err := ReadTensor(files[fmt.Sprintf("output_%d.pb", i)])
		if err != nil {
			return err
		}
		if err := sameTensor(o.Tensor, want); err != nil {
			return fmt.Errorf("output %d: %w", i, err)
		}
	}
	return nil
}

// sameTensor compares to 1e-5 x max(1, |want|), half precision to its own digits.
func sameTensor(got, want *engine.Tensor) error {
	if got.DType() != want.DType() || !slices.Equal(got.Shape(), want.Shape()) {
		return fmt.Errorf("%s %v, want %s %v", got.DType(), got.Shape(), want.DType(), want.Shape())
	}
	if s := engine.Data[string](want); s != nil {
		if !slices.Equal(engine.Data[string](got), s) {
			return fmt.Errorf("%q, want %q", engine.Data[string](got), s)
		}
		return nil
	}
	tolerance := 1e-5
	switch want.DType() {
	case engine.Float16:
		tolerance = 1.0 / (1 << 10)
	case engine.BFloat16:
		tolerance = 1.0 / (1 << 7)
	}
	g, _ := got.Float64s()
	w, _ := want.Float64s()
	for i := range w {
		if g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i]) {
			continue
		}
		if !(math.Abs(g[i]-w[i]) <= tolerance*max(1, math.Abs(w[i]))) {
			return fmt.Errorf("element %d is %v, want %v", i, g[i], w[i])
		}
	}
	return nil
}
