package catboost

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// tolerance is relative to max(1, |expected|).
const tolerance = 1e-12

// oracle is what CatBoost answered; see the README beside the models.
type oracle struct {
	name, model string
	cells       [][]string
	Prediction  extended
	Margin      extended
}

// extended is a list of rows in which 1e999 is infinite.
type extended [][]float64

// UnmarshalJSON implements json.Unmarshaler.
func (e *extended) UnmarshalJSON(data []byte) error {
	var rows [][]json.Number
	if err := json.Unmarshal(data, &rows); err != nil {
		return err
	}
	for _, row := range rows {
		out := make([]float64, len(row))
		for i, n := range row {
			out[i], _ = strconv.ParseFloat(n.String(), 64) // out of range is infinite
		}
		*e = append(*e, out)
	}
	return nil
}

func oracles(t *testing.T, dir string) []*oracle {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.expect.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no oracle in %s: %v", dir, err)
	}
	var out []*oracle
	for _, path := range paths {
		stem := strings.TrimSuffix(path, ".expect.json")
		o := &oracle{name: filepath.Base(stem), model: stem + ".json"}
		if err := json.Unmarshal(readFile(t, path), o); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if o.cells, err = csv.NewReader(strings.NewReader(string(readFile(t, stem+".rows.csv")))).ReadAll(); err != nil {
			t.Fatalf("%s: %v", stem, err)
		}
		if len(o.cells) == 0 || len(o.Prediction) != len(o.cells) || len(o.Margin) != len(o.cells) {
			t.Fatalf("%s: %d rows, %d predictions, %d margins", stem, len(o.cells), len(o.Prediction), len(o.Margin))
		}
		out = append(out, o)
	}
	return out
}

func named(t *testing.T, name string) *oracle {
	t.Helper()
	for _, o := range oracles(t, "testdata") {
		if o.name == name {
			return o
		}
	}
	t.Fatalf("no oracle %s", name)
	return nil
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// input returns the rows as a caller would send them.
func input(t *testing.T, info *engine.Info, cells [][]string) engine.Values {
	t.Helper()
	var in engine.Values
	var whole []float64
	for f := range info.Features {
		numbers, texts := make([]float64, len(cells)), make([]string, len(cells))
		for i, row := range cells {
			texts[i], numbers[i] = row[f], math.NaN()
			if !info.Features[f].Categorical && row[f] != "" {
				v, err := strconv.ParseFloat(row[f], 64)
				if err != nil {
					t.Fatal(err)
				}
				numbers[i] = v
			}
		}
		x, err := engine.Of(numbers, len(cells))
		if info.Features[f].Categorical {
			x, err = engine.Of(texts, len(cells))
		}
		if err != nil {
			t.Fatal(err)
		}
		in, whole = append(in, engine.Named{Name: info.Features[f].Name, Tensor: x}), append(whole, numbers...)
	}
	if len(info.Inputs) > 1 {
		return in
	}
	m, n := len(info.Features), len(cells)
	matrix := make([]float64, m*n)
	for i := range matrix {
		matrix[i] = whole[i%m*n+i/m]
	}
	x, err := engine.Of(matrix, n, m)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Values{{Name: info.Inputs[0].Name, Tensor: x}}
}

// TestOracle holds every model of testdata, and of the folder in
// CATBOOST_MODELS, against what CatBoost itself said.
func TestOracle(t *testing.T) {
	all := oracles(t, "testdata")
	if dir := os.Getenv("CATBOOST_MODELS"); dir != "" {
		all = append(all, oracles(t, dir)...)
	}
	exact, worst := 0, 0.0
	for _, o := range all {
		t.Run(o.name, func(t *testing.T) {
			m := enginetest.Open(t, o.model, Read)
			rows := input(t, m.Info(), o.cells)
			prediction, margin := enginetest.Predict(t, m, rows)
			p, g := enginetest.Worst(prediction, o.Prediction), enginetest.Worst(margin, o.Margin)
			if p > tolerance || g > tolerance {
				t.Errorf("prediction differs by %.3g, margin by %.3g; want at most %g", p, g, tolerance)
				got, _ := margin.Float64s()
				k := len(o.Margin[0])
				for i, want := range o.Margin {
					if fmt.Sprint(got[i*k:i*k+k]) != fmt.Sprint(want) {
						t.Logf("row %d %q: margin %v, want %v", i, o.cells[i], got[i*k:i*k+k], want)
					}
				}
			}
			if g == 0 {
				exact++
			}
			worst = max(worst, p, g)
			enginetest.TestModel(t, m, rows)
		})
	}
	t.Logf("%d of %d models have the library's margins to the bit; the worst difference is %.3g", exact, len(all), worst)
}
