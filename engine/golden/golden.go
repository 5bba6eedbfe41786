// Package golden runs a model against the data its maker shipped with it: the
// test_data_set_* folders of ONNX's own layout, each with input_<i>.pb and
// output_<i>.pb.
//
// It owns the layout and the comparison. It never changes a tolerance: outputs
// agree when |a-b| <= 1e-3 x max(|b|, min(1, the largest of b)) or 1e-7, and integers, booleans
// and strings when they are equal. 1e-3 and 1e-7 are those of ONNX's own backend tests, which
// measure each element by itself alone (1e-7 + 1e-3 x |b|): that refuses small elements beside
// large ones that another order of sums gives. The project's own test of ONNX's cases does that.
package golden

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// Tolerance is what numbers may differ by, relative to the expected one or, where that is
// greater, to the largest of its tensor, up to 1: small elements are what is left of large
// ones. Least is what they may differ by in any case.
const (
	Tolerance = 1e-3
	Least     = 1e-7
)

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
	in, err := Inputs(m, set)
	if err != nil {
		return err
	}
	want, err := readSeries(m, set, "output", info.Outputs)
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

// Inputs reads the inputs of one set.
func Inputs(m engine.Model, set string) (engine.Values, error) {
	info := m.Info()
	return readSeries(m, set, "input", slices.Concat(info.Inputs, info.Optional))
}

// readSeries reads <kind>_0.pb, <kind>_1.pb, ... and names each by the name it
// carries, else by its place in the model's own list. A sequence whose values the model
// gives one by one (NAME/0, NAME/1, ...) is as many of these.
func readSeries(m engine.Model, set, kind string, specs []engine.Spec) (engine.Values, error) {
	var out engine.Values
	for i := 0; ; i++ {
		path := filepath.Join(set, fmt.Sprintf("%s_%d.pb", kind, i))
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var spec engine.Spec
		if len(out) < len(specs) {
			spec = specs[len(out)]
		}
		list, err := readValues(m, data, spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		for _, v := range list {
			if at := len(out); at < len(specs) && (len(list) > 1 || !named(specs, v.Name)) {
				v.Name = specs[at].Name
			}
			out = append(out, v)
		}
	}
}

// readValues reads what a file has of the input or output spec, and of those behind it
// where it holds a sequence that is several.
func readValues(m engine.Model, data []byte, spec engine.Spec) (engine.Values, error) {
	if k, ok := m.(onnx.Keyed); ok {
		if keys := k.Keys(spec.Name); keys != nil {
			name, t, ok, err := onnx.ReadMaps(data, spec.DType, keys)
			if ok || err != nil {
				return engine.Values{{Name: name, Tensor: t}}, err
			}
		}
	}
	if strings.HasSuffix(spec.Name, "/0") {
		if _, list, err := onnx.ReadValue(data, engine.Sequence); err == nil && len(list.Items()) > 0 {
			var out engine.Values
			for _, t := range list.Items() {
				out = append(out, engine.Named{Tensor: t})
			}
			return out, nil
		}
	}
	name, t, err := onnx.ReadValue(data, spec.DType)
	return engine.Values{{Name: name, Tensor: t}}, err
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", filepath.Base(path))
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is over the limit of %d bytes", filepath.Base(path), maxFile)
	}
	return os.ReadFile(path)
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
	floats, scale := want.DType().IsFloat(), scaleOf(w)
	for i := range w {
		same := g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i])
		if !same && !(floats && math.Abs(g[i]-w[i]) <= max(Least, Tolerance*max(scale, math.Abs(w[i])))) {
			return &Mismatch{i, fmt.Sprintf("%g", g[i]), fmt.Sprintf("%g", w[i])}
		}
	}
	return nil
}

// scaleOf is the largest of some numbers, up to 1.
func scaleOf(w []float64) (scale float64) {
	for _, x := range w {
		if x = math.Abs(x); x > scale && !math.IsInf(x, 0) {
			scale = x
		}
	}
	return min(scale, 1)
}

func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(s, "?"))
}
