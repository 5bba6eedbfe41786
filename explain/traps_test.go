package explain_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain"
)

// TestContributionsAreOfTheRawScore is trap 11: contributions add up to the score before
// the link, the answer says so, and that is not what the model predicts.
func TestContributionsAreOfTheRawScore(t *testing.T) {
	for _, name := range []string{"objective_poisson", "objective_gamma", "objective_tweedie", "objective_binary"} {
		file := "../engine/lightgbm/testdata/" + name + ".expect.json"
		var want struct{ Prediction, Margin [][]float64 }
		readJSON(t, file, &want)
		m, err := modelfile.Open(modelOf(t, file))
		if err != nil {
			t.Fatal(err)
		}
		rows, n := readRows(t, strings.TrimSuffix(file, ".expect.json")+".rows.csv")
		v := &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}
		got, err := explain.Explain(t.Context(), v, bind(t, m.Info(), rows, n), collector.ExplainRequest{})
		if err != nil || len(got) != len(want.Margin) {
			t.Fatalf("%s: %d explanations, %v", name, len(got), err)
		}
		for i, e := range got {
			sum := e.Base
			for _, a := range e.Attributions {
				sum += a.Phi
			}
			raw := want.Margin[i][0]
			if e.Space != "margin" || e.Certificate.Space != "margin" || math.Abs(sum-raw) > 1e-9 || math.Abs(e.Prediction-raw) > 1e-9 || math.Abs(raw-want.Prediction[i][0]) < 1e-6 {
				t.Errorf("%s row %d: space %q, base and parts %g, prediction %g; the raw score is %g, the prediction %g", name, i, e.Space, sum, e.Prediction, raw, want.Prediction[i][0])
			}
		}
	}
}

// archivedVersion is a model of scikit-learn's archive.
func archivedVersion(t *testing.T, name string) (v *collector.ModelVersion, file []byte) {
	t.Helper()
	z, err := zip.OpenReader("../engine/onnx/testdata/sklearn.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if file, err = fs.ReadFile(z, name+"/model.onnx"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := modelfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return &collector.ModelVersion{Name: "m", Version: "1", Info: m.Info(), Model: m}, file
}

// TestHitRatesAreNoCovers is traps 15 and 16: what writes ONNX gives each node a hit rate of 1, or
// none, and writes sets of categories as thresholds (hist_categories), so that only values over a background are to be had of them.
func TestHitRatesAreNoCovers(t *testing.T) {
	for _, name := range []string{"forest_regressor", "hist_regressor_nan", "hist_categories", "lgb_regressor"} {
		v, file := archivedVersion(t, name)
		if !bytes.Contains(file, []byte("nodes_hitrates")) {
			t.Fatalf("%s has no hit rates", name)
		}
		h, ok := v.Model.(tree.Holder)
		if !ok {
			t.Fatalf("%s holds no trees", name)
		}
		if e, _ := h.Trees(); e.HasCovers() {
			t.Errorf("%s: hit rates are taken for covers", name)
		}
		m := v.Info.Inputs[0].Shape[1]
		rows := make([]float64, 4*m)
		for i := range rows {
			rows[i] = math.Sin(float64(i))
		}
		in := bind(t, v.Info, rows, 4)
		if _, err := explain.Explain(t.Context(), v, in, collector.ExplainRequest{Method: explain.TreeSHAP}); err == nil || !strings.Contains(err.Error(), "background") {
			t.Errorf("%s without a background: %v", name, err)
		}
	}
}

// TestBackgroundIsUsedWhole is trap 13: what expects a mean over a background takes every row
// of it, where shap takes a hundred at random.
func TestBackgroundIsUsedWhole(t *testing.T) {
	v, in := open(t, lightgbmData+"objective_binary.txt")
	first := run(t, v, in, collector.ExplainRequest{})[0]
	const n = 150
	var flat []float64
	for r := range n {
		for j, a := range first.Attributions {
			x, _ := a.Value.(float64)
			flat = append(flat, x+math.Sin(float64(r*(j+3))))
		}
	}
	mean := func(rows int) float64 {
		sum := 0.0
		for _, e := range run(t, v, bind(t, v.Info, flat[:rows*len(first.Attributions)], rows), collector.ExplainRequest{}) {
			sum += e.Prediction
		}
		return sum / float64(rows)
	}
	var background [][]float64
	for row := range slices.Chunk(flat, len(first.Attributions)) {
		background = append(background, row)
	}
	raw, err := json.Marshal(background)
	if err != nil {
		t.Fatal(err)
	}
	whole, part := mean(n), mean(100)
	for _, e := range run(t, v, in, collector.ExplainRequest{Background: raw}) {
		if e.Certificate.BackgroundRows != n || math.Abs(e.Base-whole) > 1e-9 || math.Abs(e.Base-part) < 1e-6 {
			t.Fatalf("base %g over %d rows; the mean of all is %g, of the first hundred %g", e.Base, e.Certificate.BackgroundRows, whole, part)
		}
	}
}

// TestCoversAreOfTheFile is trap 14: rows at hand leave a tree's covers as training counted
// them, where shap counts them anew.
func TestCoversAreOfTheFile(t *testing.T) {
	for _, name := range []string{lightgbmData + "objective_binary.txt", xgboostData + "objective_binary_logistic.json"} {
		v, rows := open(t, name)
		want := run(t, v, rows, collector.ExplainRequest{})
		beside := *v
		beside.Background = func() (engine.Values, string, bool) { return rows, "rows at hand", true }
		if got := run(t, &beside, rows, collector.ExplainRequest{}); !reflect.DeepEqual(got, want) || got[0].Certificate.Mode != "path_dependent" {
			t.Errorf("%s: rows at hand change path-dependent values", name)
		}
		if got := run(t, &beside, rows, collector.ExplainRequest{Background: json.RawMessage(`"default"`)}); got[0].Certificate.Mode != "background" || got[0].Certificate.Cover != "" {
			t.Errorf("%s: over the rows at hand: %+v", name, got[0].Certificate)
		}
	}
}

// TestNothingIsSampled is trap 18: there is no explainer by samples (shap's values depend on
// a global generator and on what was asked before), so a row's bits are the same whatever is
// explained with it, before it, or in which order.
func TestNothingIsSampled(t *testing.T) {
	v, rows := open(t, lightgbmData+"objective_binary.txt")
	for _, method := range []string{"kernel_shap", "permutation", "sampling"} {
		if _, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{Method: method}); !errors.Is(err, collector.ErrRefused) {
			t.Errorf("%s: %v", method, err)
		}
	}
	all := run(t, v, rows, collector.ExplainRequest{})
	n := rows[0].Tensor.Rows()
	m := len(all[0].Attributions)
	backwards := make([]float64, 0, n*m)
	for i := n - 1; i >= 0; i-- {
		for _, a := range all[i].Attributions {
			x, ok := a.Value.(float64)
			if !ok {
				x = math.NaN()
			}
			backwards = append(backwards, x)
		}
	}
	turned := run(t, v, bind(t, v.Info, backwards, n), collector.ExplainRequest{})
	for i := range all {
		alone := run(t, v, bind(t, v.Info, backwards[(n-1-i)*m:(n-i)*m], 1), collector.ExplainRequest{})[0]
		for j, a := range all[i].Attributions {
			for what, b := range map[string]float64{"backwards": turned[n-1-i].Attributions[j].Phi, "alone": alone.Attributions[j].Phi} {
				if math.Float64bits(a.Phi) != math.Float64bits(b) {
					t.Fatalf("row %d, %s, %s: %v, with the others %v", i, a.Feature, what, b, a.Phi)
				}
			}
		}
	}
}
