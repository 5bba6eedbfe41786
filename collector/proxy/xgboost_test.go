package proxy

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine/xgboost"
)

// TestXGBoostOverHTTP serves a real model file and holds the answers against
// what XGBoost itself gave for the same rows (engine/xgboost/testdata).
func TestXGBoostOverHTTP(t *testing.T) {
	const base = "../../engine/xgboost/testdata/base_binary_logistic"
	file, err := os.ReadFile(base + ".json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := xgboost.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(base + ".expect.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct{ Prediction, Margin [][]float64 }
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	csv, err := os.ReadFile(base + ".rows.csv")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(csv)) {
		cells := strings.Split(strings.TrimSpace(line), ",")
		for i, c := range cells {
			if c == "" {
				cells[i] = "null"
			}
		}
		rows = append(rows, "["+strings.Join(cells, ",")+"]")
	}
	if len(rows) != len(want.Prediction) || len(rows) == 0 {
		t.Fatalf("%d rows, %d predictions", len(rows), len(want.Prediction))
	}
	r := newRig(t, nil)
	r.shelf.models["xgb"], r.shelf.loaded["xgb"] = versionOf(t, "xgb", m), true
	in := m.Info().Inputs[0]
	data := "[" + strings.Join(rows, ",") + "]"
	body := `{"inputs":[` + tensor(in.Name, in.DType.String(), fmt.Sprintf("[%d,%d]", len(rows), in.Shape[1]), data) +
		`],"outputs":[{"name":"prediction"},{"name":"margin"}]}`
	var a struct {
		Outputs []struct{ Data []float64 }
	}
	w := r.do("POST", "/v2/models/xgb/infer", body)
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || len(a.Outputs) != 2 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var v1 struct{ Predictions []float64 }
	w = r.do("POST", "/v1/models/xgb:predict", `{"instances":`+data+`}`)
	if err := json.Unmarshal(w.Body.Bytes(), &v1); err != nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for i := range rows {
		if !near(a.Outputs[0].Data[i], want.Prediction[i][0]) || !near(a.Outputs[1].Data[i], want.Margin[i][0]) {
			t.Errorf("row %d: %v %v, want %v %v", i, a.Outputs[0].Data[i], a.Outputs[1].Data[i], want.Prediction[i], want.Margin[i])
		}
		if v1.Predictions[i] != a.Outputs[0].Data[i] {
			t.Errorf("row %d: v1 %v, v2 %v", i, v1.Predictions[i], a.Outputs[0].Data[i])
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-5*math.Max(1, math.Abs(b)) }
