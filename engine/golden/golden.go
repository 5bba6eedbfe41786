// Package golden runs a model against the data its maker shipped with it: the
// test_data_set_* folders of ONNX's own layout, each with input_<i>.pb and
// output_<i>.pb.
//
// It owns the layout and the comparison. It never changes a tolerance: outputs
// agree when |a-b| <= 1e-3 x max(1, |b|), the tolerance ONNX's own backend tests
// use, and integers, booleans and strings when they are equal.
package golden

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// Tolerance is what numbers may differ by, relative to max(1, |expected|).
const Tolerance = 1e-3

// maxFile bounds one tensor file.
const maxFile = 1 << 30

// Sets returns the test_data_set_* folders of a case, in order.
func Sets(dir string) ([]string, error) {
	sets, err := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	if err != nil {
		return nil, fmt.Errorf("list golden data: %w", err)
	}
	return sets, nil
}

// Check runs the model on every set of dir and compares. A folder without sets
// passes: there is nothing to hold the model against.
func Check(ctx context.Context, m engine.Model, dir string) error {
	sets, err := Sets(dir)
	if err != nil {
		return err
	}
	for _, set := range sets {
		if err := checkSet(ctx, m, set); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(set), err)
		}
	}
	return nil
}

func checkSet(ctx context.Context, m engine.Model, set string) error {
	info := m.Info()
	in, err := readSeries(set, "input", info.Inputs)
	if err != nil {
		return err
	}
	want, err := readSeries(set, "output", info.Outputs)
	if err != nil {
		return err
	}
	if len(want) == 0 {
		return errors.New("no output_0.pb in it")
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return err
	}
	got, err := s.Run(ctx, in, nil)
	if err != nil {
		return err
	}
	for _, w := range want {
		g := got.Get(w.Name)
		if g == nil {
			return fmt.Errorf("output %q is not among the model's", w.Name)
		}
		if err := Compare(g, w.Tensor); err != nil {
			return fmt.Errorf("output %q: %w", w.Name, err)
		}
	}
	return nil
}

// readSeries reads <kind>_0.pb, <kind>_1.pb, ... and names each by the name it
// carries, else by its place in the model's own list.
func readSeries(set, kind string, specs []engine.Spec) (engine.Values, error) {
	var out engine.Values
	for i := 0; ; i++ {
		path := filepath.Join(set, fmt.Sprintf("%s_%d.pb", kind, i))
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", filepath.Base(path))
		}
		if info.Size() > maxFile {
			return nil, fmt.Errorf("%s is over the limit of %d bytes", filepath.Base(path), maxFile)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		d := engine.Invalid
		if i < len(specs) {
			d = specs[i].DType
		}
		name, t, err := onnx.ReadValue(data, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		if i < len(specs) && !named(specs, name) {
			name = specs[i].Name
		}
		out = append(out, engine.Named{Name: name, Tensor: t})
	}
}

func named(specs []engine.Spec, name string) bool {
	for _, s := range specs {
		if s.Name == name {
			return true
		}
	}
	return false
}

// Mismatch is a value that differs.
type Mismatch struct {
	Element   int
	Got, Want string
}

func (m *Mismatch) Error() string {
	return fmt.Sprintf("element %d is %s, expected %s", m.Element, m.Got, m.Want)
}

// Place says where, without the values.
func (m *Mismatch) Place() string {
	return fmt.Sprintf("element %d is not what is expected", m.Element)
}

// Compare reports how got differs from want, or nil.
func Compare(got, want *engine.Tensor) error {
	if fmt.Sprint(got.Shape()) != fmt.Sprint(want.Shape()) {
		return fmt.Errorf("shape %v, expected %v", got.Shape(), want.Shape())
	}
	if got.DType() != want.DType() {
		return fmt.Errorf("type %s, expected %s", got.DType(), want.DType())
	}
	for i, item := range want.Items() {
		if err := Compare(got.Items()[i], item); err != nil {
			return fmt.Errorf("value %d: %w", i, err)
		}
	}
	if want.DType() == engine.String {
		g, w := engine.Data[string](got), engine.Data[string](want)
		for i := range w {
			if g[i] != w[i] {
				return &Mismatch{i, quote(g[i]), quote(w[i])}
			}
		}
		return nil
	}
	g, _ := got.Float64s()
	w, _ := want.Float64s()
	tol := 0.0
	if want.DType().IsFloat() {
		tol = Tolerance
	}
	for i := range w {
		same := g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i])
		if !same && !(math.Abs(g[i]-w[i]) <= tol*max(1, math.Abs(w[i]))) {
			return &Mismatch{i, fmt.Sprintf("%g", g[i]), fmt.Sprintf("%g", w[i])}
		}
	}
	return nil
}

func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(s, "?"))
}
