package explain_test

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

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain"
)

// expect is what a library said of a model's rows; see the README beside the
// models.
type expect struct {
	Margin   [][]float64   `json:"margin"`
	Contribs [][][]float64 `json:"contribs"`
}

// library is a folder of oracle models and the tolerance of its values: XGBoost
// computes in float32, LightGBM in float64.
type library struct {
	dir       string
	tolerance float64
	least     int
}

var libraries = []library{
	{"../engine/xgboost/testdata", 1e-4, 25},
	{"../engine/lightgbm/testdata", 1e-9, 25},
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}

func readRows(t *testing.T, path string) (rows []float64, n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		for _, s := range r {
			v := math.NaN()
			if s != "" {
				if v, err = strconv.ParseFloat(s, 64); err != nil {
					t.Fatal(err)
				}
			}
			rows = append(rows, v)
		}
	}
	return rows, len(records)
}

// bind makes canonical inputs of rows for a model of one matrix.
func bind(t *testing.T, info *engine.Info, rows []float64, n int) engine.Values {
	t.Helper()
	x, err := engine.Of(rows, n, len(rows)/n)
	if err != nil {
		t.Fatal(err)
	}
	in, _, err := engine.Bind(info, engine.Values{{Name: info.Inputs[0].Name, Tensor: x}})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// modelOf returns the model file beside an expectation.
func modelOf(t *testing.T, expectFile string) string {
	t.Helper()
	stem := strings.TrimSuffix(expectFile, ".expect.json")
	for _, ext := range []string{".json", ".ubj", ".txt"} {
		if _, err := os.Stat(stem + ext); err == nil {
			return stem + ext
		}
	}
	t.Fatalf("no model beside %s", expectFile)
	return ""
}

// TestContributionsOfLibraries holds every oracle model's path-dependent values
// and bases to what its own library prints.
func TestContributionsOfLibraries(t *testing.T) {
	for _, l := range libraries {
		files, err := filepath.Glob(filepath.Join(l.dir, "*.expect.json"))
		if err != nil {
			t.Fatal(err)
		}
		compared := 0
		for _, file := range files {
			t.Run(filepath.Base(l.dir)+"/"+filepath.Base(file), func(t *testing.T) {
				if compareContributions(t, file, l.tolerance) {
					compared++
				}
			})
		}
		if compared < l.least {
			t.Errorf("%s: %d models compared, want at least %d", l.dir, compared, l.least)
		}
	}
}

func compareContributions(t *testing.T, file string, tolerance float64) bool {
	var want expect
	readJSON(t, file, &want)
	m, err := modelfile.Open(modelOf(t, file))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := m.(tree.Holder); !ok || want.Contribs == nil {
		return false
	}
	rows, n := readRows(t, strings.TrimSuffix(file, ".expect.json")+".rows.csv")
	v := &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}
	got, err := explain.Explain(t.Context(), v, bind(t, m.Info(), rows, n), collector.ExplainRequest{})
	if err != nil {
		t.Fatal(err)
	}
	k := len(want.Contribs[0])
	if len(got) != n*k {
		t.Fatalf("%d explanations for %d rows of %d outputs", len(got), n, k)
	}
	worst := 0.0
	for i := range got {
		worst = max(worst, difference(t, &got[i], want.Contribs[i/k][i%k]))
	}
	if worst > tolerance {
		t.Errorf("off by %.2g of the row's largest phi, tolerance %g", worst, tolerance)
	}
	return true
}

// TestLinearBoosters holds XGBoost's gblinear models, whose contributions are
// input times gradient of the margin, to pred_contribs.
func TestLinearBoosters(t *testing.T) {
	files, err := filepath.Glob("../engine/xgboost/testdata/linear*.expect.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var want expect
			readJSON(t, file, &want)
			m, err := modelfile.Open(modelOf(t, file))
			if err != nil {
				t.Fatal(err)
			}
			rows, n := readRows(t, strings.TrimSuffix(file, ".expect.json")+".rows.csv")
			v := &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}
			for k := range want.Contribs[0] {
				req := collector.ExplainRequest{Output: fmt.Sprintf("%s[%d]", tree.OutputName, k)}
				got, err := explain.Explain(t.Context(), v, bind(t, m.Info(), rows, n), req)
				if err != nil {
					t.Fatal(err)
				}
				for r := range got {
					if d := difference(t, &got[r], want.Contribs[r][k]); d > 1e-5 {
						t.Errorf("row %d, output %d: off by %.2g", r, k, d)
					}
				}
			}
		})
	}
}

// difference returns the largest difference relative to the row's largest value.
func difference(t *testing.T, e *collector.Explanation, want []float64) float64 {
	t.Helper()
	if len(e.Attributions)+1 != len(want) {
		t.Fatalf("%d attributions, want %d", len(e.Attributions), len(want)-1)
	}
	scale, worst := 0.0, math.Abs(e.Base-want[len(want)-1])
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for i := range e.Attributions {
		worst = max(worst, math.Abs(e.Attributions[i].Phi-want[i]))
	}
	if math.IsNaN(worst) {
		t.Fatalf("an attribution is no number")
	}
	if scale == 0 {
		return worst
	}
	return worst / scale
}
