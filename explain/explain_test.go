package explain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain"
	"github.com/pellucid/pellucid/explain/treeshap"
)

const (
	xgboostData  = "../engine/xgboost/testdata/"
	lightgbmData = "../engine/lightgbm/testdata/"
)

// open returns a version of an oracle model and its rows as canonical inputs.
func open(t *testing.T, path string) (*collector.ModelVersion, engine.Values) {
	t.Helper()
	m, err := modelfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, n := readRows(t, strings.TrimSuffix(path, filepath.Ext(path))+".rows.csv")
	v := &collector.ModelVersion{Name: "m", Version: "3", Digest: "digest of " + path, Info: m.Info(), Model: m}
	return v, bind(t, m.Info(), rows, n)
}

func run(t *testing.T, v *collector.ModelVersion, rows engine.Values, req collector.ExplainRequest) []collector.Explanation {
	t.Helper()
	got, err := explain.Explain(t.Context(), v, rows, req)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestInteractionsOfXGBoost is trap 17: pairs are held to pred_interactions (float32), halves of
// them with main effects on the diagonal, and all of a row's make its score less the base.
func TestInteractionsOfXGBoost(t *testing.T) {
	files, err := filepath.Glob("testdata/interactions_*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		var want struct {
			Model  string          `json:"model"`
			Values [][][][]float64 `json:"values"`
		}
		readJSON(t, file, &want)
		v, rows := open(t, xgboostData+want.Model)
		e, _ := v.Model.(tree.Holder).Trees()
		p, err := treeshap.Prepare(e)
		if err != nil {
			t.Fatal(err)
		}
		m, k, n := e.Features, e.Outputs, len(want.Values)
		data, _ := rows[0].Tensor.Float64s()
		got := make([]float64, n*k*m*m)
		if err := p.Interactions(data[:n*m], got); err != nil {
			t.Fatal(err)
		}
		whole := run(t, v, rows, collector.ExplainRequest{})
		for r := range n {
			for o := range k {
				compareMatrix(t, fmt.Sprintf("%s row %d output %d", file, r, o), got[(r*k+o)*m*m:], want.Values[r][o], m)
				all := 0.0
				for _, x := range got[(r*k+o)*m*m:][:m*m] {
					all += x
				}
				if e := whole[r*k+o]; math.Abs(all-(e.Prediction-e.Base)) > 1e-5*max(1, math.Abs(e.Prediction)) {
					t.Errorf("%s row %d output %d: all pairs make %g, the score less the base is %g", file, r, o, all, e.Prediction-e.Base)
				}
			}
		}
		listed := run(t, v, rows, collector.ExplainRequest{Interactions: true})
		if got := listed[0].Interactions; len(got) == 0 || math.Abs(got[0].Phi-2*pairOf(t, v, want.Values[0][0], got[0])) > 1e-4 {
			t.Errorf("%s: listed interactions %v", file, got)
		}
	}
}

// pairOf returns the library's half of a listed pair.
func pairOf(t *testing.T, v *collector.ModelVersion, m [][]float64, p collector.Interaction) float64 {
	t.Helper()
	a, b := -1, -1
	for i, f := range v.Info.Features {
		if f.Name == p.A {
			a = i
		}
		if f.Name == p.B {
			b = i
		}
	}
	if a < 0 || b < 0 {
		t.Fatalf("no features %q and %q", p.A, p.B)
	}
	return m[a][b]
}

func compareMatrix(t *testing.T, what string, got []float64, want [][]float64, m int) {
	t.Helper()
	scale := 0.0
	for i := range m {
		for j := range m {
			scale = max(scale, math.Abs(want[i][j]))
		}
	}
	for i := range m {
		for j := range m {
			if d := math.Abs(got[i*m+j] - want[i][j]); !(d <= 1e-4*scale) {
				t.Errorf("%s: pair %d, %d is %v, XGBoost %v", what, i, j, got[i*m+j], want[i][j])
				return
			}
		}
	}
}

// TestBackgroundOfSHAP holds background values, with the background brought in
// the request, to shap's interventional ones (float32 inside).
func TestBackgroundOfSHAP(t *testing.T) {
	files, err := filepath.Glob("testdata/background_*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		var want struct {
			Model         string          `json:"model"`
			X, Values     [][]float64     `json:"-"`
			RawX          [][]float64     `json:"x"`
			RawValues     [][]float64     `json:"values"`
			RawBackground json.RawMessage `json:"background"`
			Base          float64         `json:"base"`
		}
		readJSON(t, file, &want)
		v, _ := open(t, lightgbmData+want.Model)
		var flat []float64
		for _, r := range want.RawX {
			flat = append(flat, r...)
		}
		rows := bind(t, v.Info, flat, len(want.RawX))
		got := run(t, v, rows, collector.ExplainRequest{Background: want.RawBackground})
		for r := range got {
			if d := difference(t, &got[r], append(append([]float64{}, want.RawValues[r]...), want.Base)); d > 1e-5 {
				t.Errorf("%s row %d: off by %g of the largest phi", file, r, d)
			}
		}
		c := got[0].Certificate
		if c.Mode != "background" || c.BackgroundDigest == "" || c.BackgroundRows == 0 || c.Cover != "" || !c.Exact {
			t.Errorf("%s: certificate %+v", file, c)
		}
	}
}

func TestCertificate(t *testing.T) {
	v, rows := open(t, xgboostData+"objective_binary_logistic.json")
	for _, e := range run(t, v, rows, collector.ExplainRequest{}) {
		c := e.Certificate
		if e.Method != "tree_shap" || e.Space != "margin" || e.Output != "prediction" || c.Mode != "path_dependent" || c.Cover != "hessian" ||
			c.ModelDigest != v.Digest || c.Engine == "" || c.BaseDefinition == "" || !c.Exact || c.Points == 0 {
			t.Fatalf("explanation %+v", e)
		}
		sum := e.Base
		for _, a := range e.Attributions {
			sum += a.Phi
		}
		if c.Residual != math.Abs(sum-e.Prediction) || c.Residual > 1e-5 {
			t.Fatalf("residual %v, base + sum(phi) - prediction = %v", c.Residual, sum-e.Prediction)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissingAndCategories looks at what answers show as values.
func TestMissingAndCategories(t *testing.T) {
	v, rows := open(t, xgboostData+"categorical.json")
	missing, named := 0, 0
	for _, e := range run(t, v, rows, collector.ExplainRequest{}) {
		for _, a := range e.Attributions {
			switch a.Value.(type) {
			case nil:
				missing++
			case string:
				named++
			}
		}
	}
	if missing == 0 || named == 0 {
		t.Errorf("%d missing values and %d categories by name", missing, named)
	}
}

func TestOutputs(t *testing.T) {
	v, rows := open(t, xgboostData+"objective_multi_softprob.json")
	all := run(t, v, rows, collector.ExplainRequest{})
	n := rows[0].Tensor.Rows()
	k := len(all) / n
	if k < 3 || all[1].Output != "prediction[1]" {
		t.Fatalf("%d outputs, the second is %q", k, all[1].Output)
	}
	one := run(t, v, rows, collector.ExplainRequest{Output: "prediction[1]"})
	if len(one) != n || !reflect.DeepEqual(one[2], all[2*k+1]) {
		t.Errorf("prediction[1] alone differs from the same among all")
	}
	info := *v.Info
	info.Classes = []string{"early", "on time", "late"}
	named := *v
	named.Info = &info
	if got := run(t, &named, rows, collector.ExplainRequest{Output: "late"}); len(got) != n || got[0].Output != "late" || got[0].Base != all[2].Base {
		t.Errorf("class by name: %+v", got[0])
	}
	for _, bad := range []string{"prediction[99]", "nonsense", "prediction[-1]"} {
		if _, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{Output: bad}); !errors.Is(err, collector.ErrRefused) {
			t.Errorf("output %q: %v", bad, err)
		}
	}
}

// withoutCovers hides an ensemble's covers, as an ONNX export does.
type withoutCovers struct{ engine.Model }

func (m withoutCovers) Trees() (*tree.Ensemble, string) {
	e, out := m.Model.(tree.Holder).Trees()
	bare := *e
	bare.Covers = tree.CoverNone
	return &bare, out
}

func TestBackgroundChoice(t *testing.T) {
	v, rows := open(t, lightgbmData+"objective_binary.txt")
	bare := *v
	bare.Model, bare.Digest = withoutCovers{v.Model}, "bare"
	if _, err := explain.Explain(t.Context(), &bare, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), "background") {
		t.Errorf("no covers and no background: %v", err)
	}
	if len(explain.Methods(&bare)) != 0 || !reflect.DeepEqual(explain.Methods(v), []string{"tree_shap"}) {
		t.Errorf("methods %v and %v", explain.Methods(&bare), explain.Methods(v))
	}
	bare.Background = func() (engine.Values, string, bool) { return rows, "the default's digest", true }
	byDefault := run(t, &bare, rows, collector.ExplainRequest{})
	if c := byDefault[0].Certificate; c.Mode != "background" || c.BackgroundDigest != "the default's digest" {
		t.Errorf("certificate %+v", c)
	}
	for _, name := range []string{"default", "the default's digest"} {
		raw, _ := json.Marshal(name)
		if got := run(t, &bare, rows, collector.ExplainRequest{Background: raw}); !reflect.DeepEqual(got, byDefault) {
			t.Errorf("background %q differs from the default", name)
		}
	}
	full := *v
	full.Background = bare.Background
	if got := run(t, &full, rows, collector.ExplainRequest{}); got[0].Certificate.Mode != "path_dependent" {
		t.Errorf("a model with covers and no background in model.yaml: %+v", got[0].Certificate)
	}
	full.Config.Background = "background.parquet"
	if got := run(t, &full, rows, collector.ExplainRequest{}); got[0].Certificate.Mode != "background" {
		t.Errorf("a model whose model.yaml names a background: %+v", got[0].Certificate)
	}
	for _, bad := range []string{`"unknown"`, `[]`, `[[1]]`, `{"a":1}`, `[[{},1]]`} {
		if _, err := explain.Explain(t.Context(), &full, rows, collector.ExplainRequest{Background: json.RawMessage(bad)}); !errors.Is(err, collector.ErrRefused) {
			t.Errorf("background %s: %v", bad, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	v, rows := open(t, xgboostData+"objective_binary_logistic.json")
	for method, reason := range map[string]string{
		"saliency": "constant almost everywhere", "integrated_gradients": "tree_shap", "lime": "not built yet", "deep_lift": "not built yet", "nonsense": "unknown method",
	} {
		_, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{Method: method})
		if !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", method, err)
		}
	}
	private := *v
	private.Schema = &collector.Schema{Features: []collector.Field{{Name: "income", Private: collector.PrivacyDrop}}}
	if _, err := explain.Explain(t.Context(), &private, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), "income") {
		t.Errorf("private feature: %v", err)
	}
	upstream := *v
	upstream.Model = nil
	if _, err := explain.Explain(t.Context(), &upstream, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("upstream: %v", err)
	}
	tight, err := explain.New(explain.Config{MaxRows: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tight.Explain(t.Context(), v, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("more rows than allowed: %v", err)
	}
	tight, err = explain.New(explain.Config{MaxCost: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tight.Explain(t.Context(), v, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("more work than allowed: %v", err)
	}
	tight, err = explain.New(explain.Config{Deadline: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tight.Explain(t.Context(), v, rows, collector.ExplainRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
	linear, rows := open(t, lightgbmData+"linear_tree.txt")
	if _, err := explain.Explain(t.Context(), linear, rows, collector.ExplainRequest{}); !errors.Is(err, collector.ErrRefused) {
		t.Errorf("linear leaves: %v", err)
	}
}

// TestTogether explains several versions from several goroutines through a
// cache too small for them, and wants the same bits every time.
func TestTogether(t *testing.T) {
	x, err := explain.New(explain.Config{CacheBytes: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, name := range []string{"deep.ubj", "dart.ubj", "objective_multi_softprob.json", "categorical.json"} {
		v, rows := open(t, xgboostData+name)
		want := run(t, v, rows, collector.ExplainRequest{})
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 20 {
					got, err := x.Explain(context.Background(), v, rows, collector.ExplainRequest{})
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s: differs (%v)", name, err)
						return
					}
				}
			}()
		}
	}
	wg.Wait()
}
