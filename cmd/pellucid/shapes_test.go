package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

// shapedModels are models whose answers, or inputs, are not shaped as their files declare.
func shapedModels(t *testing.T) string {
	t.Helper()
	models := t.TempDir()
	node := func(op, out string, attr []byte, in ...string) []byte {
		var b []byte
		for _, s := range in {
			b = append(b, pb(1, s)...)
		}
		b = append(b, pb(2, out, 4, op)...)
		if attr != nil {
			b = append(b, pb(5, attr)...)
		}
		return b
	}
	rows := func(name string) []byte { return protoValue(name, 1, -1, 2) }
	all := pb(1, 1, 2, 7, 8, "all", 9, slices.Repeat([]byte{0xff}, 8)) // -1
	axis := pb(1, "axis", 3, 1, 20, 2)
	place(t, models, "flat/1/model.onnx", string(protoModel(11, rows("x"), 12, rows("y"), 5, all, 1, node("Concat", "xx", axis, "x", "x"), 1, node("Reshape", "y", nil, "xx", "all"))))
	place(t, models, "flat/1/model.yaml", "task: regression\n")
	pair := string(protoModel(11, rows("a"), 11, rows("b"), 12, rows("y"), 1, node("Add", "y", nil, "a", "b")))
	for name, yaml := range map[string]string{"pair": "", "dropped": "features: [{name: a, private: drop}]\n"} {
		place(t, models, name+"/1/model.onnx", pair)
		place(t, models, name+"/1/model.yaml", "task: regression\n"+yaml)
	}
	return models
}

func pairBody(a ...float64) string {
	list, _ := json.Marshal(a)
	return fmt.Sprintf(`{"inputs":[{"name":"a","datatype":"FP32","shape":[%d,2],"data":%s},{"name":"b","datatype":"FP32","shape":[1,2],"data":[10,20]}]}`, len(a)/2, list)
}

// TestWhatHasOtherShapes: a prediction is recorded with its inputs and its answer, whatever
// their shapes, and every reader copes with it.
func TestWhatHasOtherShapes(t *testing.T) {
	cfg := testConfig(t, shapedModels(t))
	f := forwarded(t, &cfg)
	r := startRig(t, cfg)
	f.cut()
	rowsBody := func(rows int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,2],"data":[%s]}]}`, rows, strings.Join([]string{"1", "2", "3", "4", "5", "6"}[:2*rows], ","))
	}
	type row struct{ features, outputs map[string]any }
	list := func(v ...any) []any { return v }
	x := func(a, b float64) map[string]any { return map[string]any{"f0": a, "f1": b} }
	cases := []struct {
		model, body, capture string
		want                 []row
		id                   string
	}{
		{model: "flat", body: rowsBody(1), capture: "full", want: []row{{x(1, 2), map[string]any{"y": list(1.0, 2.0, 1.0, 2.0)}}}},
		// An answer that is no rows belongs to each.
		{model: "flat", body: rowsBody(3), capture: "full", want: slices.Repeat([]row{{nil, map[string]any{"y": list(1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0, 5.0, 6.0)}}}, 3)},
		{model: "pair", body: pairBody(1, 2, 3, 4), capture: "full", want: []row{{map[string]any{"a": list(1.0, 2.0, 3.0, 4.0), "b": list(10.0, 20.0)}, map[string]any{"y": list(11.0, 22.0, 13.0, 24.0)}}}},
		{model: "pair", body: pairBody(4, 5), capture: "full", want: []row{{map[string]any{"a": list(4.0, 5.0), "b": list(10.0, 20.0)}, map[string]any{"y": list(14.0, 25.0)}}}},
		{model: "dropped", body: pairBody(1, 2, 3, 4), capture: "full", want: []row{{map[string]any{"b": list(10.0, 20.0)}, map[string]any{"y": list(11.0, 22.0, 13.0, 24.0)}}}},
	}
	for i := range cases {
		c := &cases[i]
		h := r.post(t, "/v2/models/"+c.model+"/infer", c.body, nil)
		if c.id = h.Get("Pellucid-Prediction-Id"); h.Get("Pellucid-Capture") != c.capture {
			t.Errorf("%s: capture %q, want %q", c.model, h.Get("Pellucid-Capture"), c.capture)
		}
	}
	check := func(where string) {
		t.Helper()
		for _, c := range cases {
			var page struct {
				collector.StoredPrediction
				collector.Page
			}
			r.get(t, "/api/v1/predictions/"+c.id, &page)
			if page.ID != "" { // one row stands for itself
				page.Predictions = []collector.StoredPrediction{page.StoredPrediction}
			}
			if len(page.Predictions) != len(c.want) {
				t.Fatalf("%s: %s has %d rows, want %d", where, c.model, len(page.Predictions), len(c.want))
			}
			for i, p := range page.Predictions {
				if c.want[i].features != nil && !reflect.DeepEqual(p.Features, c.want[i].features) || !reflect.DeepEqual(p.Outputs, c.want[i].outputs) {
					t.Errorf("%s: %s row %d: %v -> %v, want %v", where, c.model, i, p.Features, p.Outputs, c.want[i])
				}
			}
		}
	}
	check("in the spool")
	f.open(t)
	r.stored(t)
	check("in the store")
	if got := sql(t, r.database(t), "SELECT countIf(isNaN(score)), countIf(NOT isNaN(score)) FROM predictions"); got != "7\t0" {
		t.Errorf("scores: %q", got)
	}
	for _, c := range cases {
		if status, b, _ := r.call(t, "GET", "/ui/predictions/"+c.id, ""); status != http.StatusOK {
			t.Errorf("page of %s: %d %.300s", c.model, status, b)
		}
	}
	r.readShapes(t, cfg, cases[0].id, cases[2].id)
}

// readShapes asks for what is made of rows: explanations, filters, exports.
func (r *rig) readShapes(t *testing.T, cfg config, flat, pair string) {
	t.Helper()
	if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+pair+"/explain", `{}`); status != http.StatusUnprocessableEntity || !strings.Contains(string(b), "shapes") {
		t.Errorf("explain inputs that are no rows: %d %s", status, b)
	}
	live, liveBody, _ := r.call(t, "POST", "/v2/models/flat/explain", `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`)
	if status, b, _ := r.call(t, "POST", "/api/v1/predictions/"+flat+"/explain", `{}`); status != live {
		t.Errorf("explain what was answered in another shape: %d %s, but %d %s of the same row", status, b, live, liveBody)
	}
	for where, want := range map[string]int{`"y[0]" = 14`: 1, `"y[1]" > 0`: 1} {
		var page collector.Page
		r.get(t, "/api/v1/predictions?"+url.Values{"model": {"pair"}, "where": {where}}.Encode(), &page)
		if len(page.Predictions) != want {
			t.Errorf("%s: %d rows, want %d", where, len(page.Predictions), want)
		}
	}
	all := "[1 2 1 2 3 4 3 4 5 6 5 6]"
	for model, want := range map[string][][]string{
		"pair":    {{"a", "b", "y"}, {"[1 2 3 4]", "[10 20]", "[11 22 13 24]"}, {"[4 5]", "[10 20]", "[14 25]"}},
		"flat":    {{"f0", "f1", "y"}, {"1", "2", "[1 2 1 2]"}, {"1", "2", all}, {"3", "4", all}, {"5", "6", all}},
		"dropped": {{"b", "y"}, {"[10 20]", "[11 22 13 24]"}},
	} {
		status, out, stderr := command(t, "export", "--model", model, "--clickhouse", cfg.ClickHouse)
		lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if status != 0 || err != nil {
			t.Fatalf("export %s: %d %v %s", model, status, err, stderr)
		}
		for i := range lines {
			lines[i] = lines[i][len(exported):]
		}
		if !reflect.DeepEqual(lines, want) {
			t.Errorf("export %s: %v, want %v", model, lines, want)
		}
	}
}
