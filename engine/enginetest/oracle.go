package enginetest

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// Oracle is what a library answered for a model of its own; the files are
// described in engine/xgboost/testdata/README.md.
type Oracle struct {
	// Name is the case, Model the path of the model's file.
	Name, Model string
	Rows        [][]float64 `json:"-"`
	Library     string
	Version     string
	Prediction  [][]float64
	Margin      [][]float64
	// Contribs is indexed by row, output and feature, the base last; nil where
	// the library computes none.
	Contribs [][][]float64
}

// Oracles returns the cases of a testdata folder.
func Oracles(t *testing.T, dir string) []*Oracle {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.expect.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no oracle in %s: %v", dir, err)
	}
	var out []*Oracle
	for _, path := range paths {
		out = append(out, loadOracle(t, strings.TrimSuffix(path, ".expect.json")))
	}
	return out
}

func loadOracle(t *testing.T, stem string) *Oracle {
	t.Helper()
	o := &Oracle{Name: filepath.Base(stem)}
	data := readAll(t, stem+".expect.json")
	if err := json.Unmarshal(data, o); err != nil {
		t.Fatalf("%s: %v", stem, err)
	}
	for _, ext := range []string{".json", ".ubj", ".txt"} {
		if _, err := os.Stat(stem + ext); err == nil {
			o.Model = stem + ext
		}
	}
	for line := range strings.Lines(string(readAll(t, stem+".rows.csv"))) {
		o.Rows = append(o.Rows, parseRow(t, strings.TrimSpace(line)))
	}
	if o.Model == "" || len(o.Rows) == 0 || len(o.Prediction) != len(o.Rows) || len(o.Margin) != len(o.Rows) {
		t.Fatalf("%s: model %q, %d rows, %d predictions, %d margins", stem, o.Model, len(o.Rows), len(o.Prediction), len(o.Margin))
	}
	return o
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parseRow(t *testing.T, line string) []float64 {
	t.Helper()
	var row []float64
	for cell := range strings.SplitSeq(line, ",") {
		v := math.NaN()
		if cell != "" {
			var err error
			if v, err = strconv.ParseFloat(cell, 64); err != nil {
				t.Fatal(err)
			}
		}
		row = append(row, v)
	}
	return row
}

// Input returns the rows as one float64 tensor with the model's input name, as
// a caller would send them.
func (o *Oracle) Input(t *testing.T, info *engine.Info) engine.Values {
	t.Helper()
	var data []float64
	for _, row := range o.Rows {
		data = append(data, row...)
	}
	x, err := engine.Of(data, len(o.Rows), len(o.Rows[0]))
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: info.Inputs[0].Name, Tensor: x}}
}

// Worst returns the largest |got-want| / max(1, |want|) over all elements. NaN
// and infinities must be equal; where they are not, or the shapes differ, it is
// +Inf. Where got is FP32, want is rounded to that first.
func Worst(got *engine.Tensor, want [][]float64) float64 {
	values, ok := got.Float64s()
	if !ok || len(want) == 0 || len(values) != len(want)*len(want[0]) {
		return math.Inf(1)
	}
	worst, i := 0.0, 0
	for _, row := range want {
		for _, w := range row {
			if got.DType() == engine.Float32 {
				w = float64(float32(w))
			}
			worst = math.Max(worst, difference(values[i], w))
			i++
		}
	}
	return worst
}

func difference(got, want float64) float64 {
	if got == want || math.IsNaN(got) && math.IsNaN(want) {
		return 0
	}
	d := math.Abs(got-want) / math.Max(1, math.Abs(want))
	if math.IsNaN(d) {
		return math.Inf(1)
	}
	return d
}

// Open reads a model file with the package's own reader.
func Open(t *testing.T, path string, read func([]byte) (engine.Model, error)) engine.Model {
	t.Helper()
	m, err := read(readAll(t, path))
	if err != nil {
		t.Fatalf("Read %s: %v", path, err)
	}
	return m
}

// Predict binds rows as a caller would send them, and returns predictions and
// margins of a native model.
func Predict(t *testing.T, m engine.Model, rows engine.Values) (prediction, margin *engine.Tensor) {
	t.Helper()
	in, _, err := engine.Bind(m.Info(), rows)
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), in, []string{"prediction", "margin"})
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return out[0].Tensor, out[1].Tensor
}

// TestLibrary holds every model of a testdata folder against what its library
// said of it, to a tolerance relative to max(1, |expected|), and against the
// engine's own contracts (TestModel).
func TestLibrary(t *testing.T, dir string, read func([]byte) (engine.Model, error), tolerance float64) {
	exact, all := 0, 0
	for _, o := range Oracles(t, dir) {
		t.Run(o.Name, func(t *testing.T) {
			m := Open(t, o.Model, read)
			prediction, margin := Predict(t, m, o.Input(t, m.Info()))
			p, g := Worst(prediction, o.Prediction), Worst(margin, o.Margin)
			if p > tolerance || g > tolerance {
				t.Errorf("prediction differs by %.3g, margin by %.3g; want at most %g", p, g, tolerance)
			}
			all++
			if p == 0 && g == 0 {
				exact++
			} else {
				t.Logf("prediction differs by %.3g, margin by %.3g", p, g)
			}
			TestModel(t, m, o.Input(t, m.Info()))
		})
	}
	t.Logf("%d of %d models equal the library to the bit", exact, all)
}
