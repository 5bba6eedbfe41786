package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
)

const tokensModel = "../../explain/testdata/tokens.onnx"

// tokenInputs are two rows of ids, what kind they are, and which of them count.
var tokenInputs = map[string][]int64{
	"input_ids":      {2, 7, 11, 3, 0, 2, 19, 5, 5, 3},
	"token_type_ids": {0, 0, 0, 0, 0, 0, 0, 1, 1, 1},
	"attention_mask": {1, 1, 1, 1, 0, 1, 1, 1, 1, 1},
}

func tokenBody(t *testing.T, parameters string) string {
	t.Helper()
	var inputs []string
	for _, name := range []string{"input_ids", "token_type_ids", "attention_mask"} {
		data, err := json.Marshal(tokenInputs[name])
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":"INT64","shape":[2,5],"data":%s}`, name, data))
	}
	return `{"inputs":[` + strings.Join(inputs, ",") + `],"parameters":` + parameters + `}`
}

// npyInts writes an array of NumPy's format, version 1.
func npyInts(t *testing.T, path string, v []int64, rows int) {
	t.Helper()
	header := fmt.Sprintf("{'descr': '<i8', 'fortran_order': False, 'shape': (%d, %d), }", rows, len(v)/rows)
	header += strings.Repeat(" ", 127-10-len(header)) + "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	b = append(b, header...)
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTokensExplained: a model of tokens is explained a token at a time, and by every
// road alike: with the request, by the id of what is stored, on its page, offline.
func TestTokensExplained(t *testing.T) {
	models := t.TempDir()
	file, err := os.ReadFile(tokensModel)
	if err != nil {
		t.Fatal(err)
	}
	place(t, models, "tokens/1/model.onnx", string(file))
	r := startRig(t, testConfig(t, models))
	var live struct{ Explanations []collector.Explanation }
	r.post(t, "/v2/models/tokens/explain", tokenBody(t, `{"output":"logits[1]","baseline":"[0]"}`), &live)
	id := r.post(t, "/v2/models/tokens/infer", tokenBody(t, `{}`), nil).Get("Pellucid-Prediction-Id")
	r.stored(t)
	stored := r.explained(t, id, `{"output":"logits[1]","baseline":[0]}`)

	dir := t.TempDir()
	for name, v := range tokenInputs {
		npyInts(t, filepath.Join(dir, name+".npy"), v, 2)
	}
	status, out, stderr := command(t, "explain", "--model", tokensModel, "--input", dir, "--output-name", "logits[1]", "--baseline", "0")
	if status != 0 {
		t.Fatal(stderr)
	}
	var offline []collector.Explanation
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var e collector.Explanation
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		offline = append(offline, e)
	}
	if len(live.Explanations) != 2 || len(stored) != 2 || len(offline) != 2 {
		t.Fatalf("%d, %d and %d explanations", len(live.Explanations), len(stored), len(offline))
	}
	for i := range offline {
		sum := offline[i].Base
		for k, a := range offline[i].Attributions {
			sum += a.Phi
			want := fmt.Sprintf("input_ids[%d]", k)
			for road, e := range map[string]collector.Explanation{"live": live.Explanations[i], "stored": stored[i], "offline": offline[i]} {
				if got := e.Attributions[k]; got != a || got.Feature != want || got.Value != float64(tokenInputs["input_ids"][5*i+k]) {
					t.Errorf("%s, row %d: %+v, want %+v of %s", road, i, got, a, want)
				}
			}
		}
		if p := offline[i].Prediction; len(offline[i].Attributions) != 5 || math.Abs(sum-p) > 1e-3*max(1, math.Abs(p)) {
			t.Errorf("row %d: %d tokens, base and effects make %g of %g", i, len(offline[i].Attributions), sum, p)
		}
	}
	for method, path := range map[string]string{http.MethodPost: "/explain", http.MethodGet: "/report"} {
		status, b, _ := r.call(t, method, "/ui/predictions/"+stored[0].PredictionID+path, "")
		if status != http.StatusOK || !strings.Contains(string(b), "input_ids[3]") {
			t.Errorf("page %s: %d %.300s", path, status, b)
		}
	}
	if status, page, stderr := command(t, "explain", "--model", tokensModel, "--input", dir, "--format", "html"); status != 0 || !strings.Contains(page, "input_ids[3]") || !strings.Contains(page, "vectors of zeros") {
		t.Errorf("report: %d %s", status, stderr)
	}
	if status, b, _ := r.call(t, http.MethodPost, "/v2/models/tokens/explain", tokenBody(t, `{"input":"attention_mask"}`)); status != http.StatusUnprocessableEntity || !strings.Contains(string(b), "look up vectors") {
		t.Errorf("attributed to the mask: %d %s", status, b)
	}
}
