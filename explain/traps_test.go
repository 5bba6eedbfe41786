package explain_test

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
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
