package lightgbm

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/tree"
)

func ensemble(t *testing.T, path string) *tree.Ensemble {
	t.Helper()
	h, ok := open(t, path).(tree.Holder)
	if !ok {
		t.Fatalf("%s holds no trees", path)
	}
	e, _ := h.Trees()
	return e
}

func oracle(t *testing.T, name string) *enginetest.Oracle {
	t.Helper()
	for _, o := range enginetest.Oracles(t, "testdata") {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("no oracle %s", name)
	return nil
}

// TestCategoricalSets is trap 8: wide sets, NaN and unseen codes right. The
// routing is TestOracle's; here the case is shown to reach it.
func TestCategoricalSets(t *testing.T) {
	for _, name := range []string{"categorical", "categorical_codes"} {
		e := ensemble(t, "testdata/"+name+".txt")
		words := 0
		for i := range e.Trees {
			for _, s := range e.Trees[i].Sets {
				words = max(words, len(s))
			}
			for j := range e.Trees[i].Nodes {
				if n := &e.Trees[i].Nodes[j]; n.Rule == tree.InSet && !n.IsLeaf() && e.Trees[i].Left(n, math.NaN()) {
					t.Errorf("%s: NaN goes left at tree %d node %d", name, i, j)
				}
			}
		}
		if words < 2 {
			t.Errorf("%s: no set of more than 64 categories", name)
		}
	}
}

// TestMissingTypes is trap 9: the cases reach every kind.
func TestMissingTypes(t *testing.T) {
	for name, want := range map[string]tree.Missing{
		"missing_nan": tree.MissingNaN, "missing_none": tree.MissingNone,
		"missing_zero": tree.MissingZero, "missing_off": tree.MissingNone,
	} {
		e := ensemble(t, "testdata/"+name+".txt")
		found := false
		for i := range e.Trees {
			for j := range e.Trees[i].Nodes {
				n := &e.Trees[i].Nodes[j]
				found = found || !n.IsLeaf() && n.Missing == want
			}
		}
		if !found {
			t.Errorf("%s: no split with missing type %d", name, want)
		}
	}
}

// TestForest is trap 10: the mean of the trees, before the link.
func TestForest(t *testing.T) {
	e := ensemble(t, "testdata/rf_binary.txt")
	o := oracle(t, "rf_binary")
	sum := 0.0
	for i := range e.Trees {
		sum += e.Trees[i].Nodes[0].Cover
	}
	if e.Covers != tree.CoverCount || sum == 0 {
		t.Errorf("covers %q, %v rows in all roots", e.Covers, sum)
	}
	p := 1 / (1 + math.Exp(-o.Margin[0][0]))
	if math.Abs(p-o.Prediction[0][0]) > 1e-12 {
		t.Errorf("the oracle's margin %v is not the mean behind its prediction %v", o.Margin[0][0], o.Prediction[0][0])
	}
}

// TestForestContributions: a forest's contributions are of the mean, as its margin is.
// LightGBM's own are of the sum of its trees, which it predicts nowhere.
func TestForestContributions(t *testing.T) {
	for _, name := range []string{"rf", "rf_binary", "rf_multiclass"} {
		o := oracle(t, name)
		if len(o.Contribs) == 0 {
			t.Fatalf("%s: no contributions", name)
		}
		for r, row := range o.Contribs {
			for k, phi := range row {
				sum := 0.0
				for _, v := range phi {
					sum += v
				}
				if want := o.Margin[r][k]; math.Abs(sum-want) > 1e-9*math.Max(1, math.Abs(want)) {
					t.Errorf("%s: contributions of row %d, output %d add up to %v, the margin is %v", name, r, k, sum, want)
				}
			}
		}
	}
}

// TestStump is trap 12: trees of one leaf, beside others and alone.
func TestStump(t *testing.T) {
	for _, name := range []string{"stump", "stump_some"} {
		e := ensemble(t, "testdata/"+name+".txt")
		stumps := 0
		for i := range e.Trees {
			if len(e.Trees[i].Nodes) == 1 {
				stumps++
			}
		}
		if stumps == 0 || e.Covers != tree.CoverCount {
			t.Errorf("%s: %d stumps, covers %q", name, stumps, e.Covers)
		}
	}
}

// TestLinearTrees have no tree Shapley values, so they offer no trees.
func TestLinearTrees(t *testing.T) {
	if _, ok := open(t, "testdata/linear_tree.txt").(tree.Holder); ok {
		t.Error("linear leaves are offered to be explained as constants")
	}
}

func TestFeatures(t *testing.T) {
	f := open(t, "testdata/categorical.txt").Info().Features
	if f[0].Name != "size" || f[0].Categorical || f[0].Categories != nil {
		t.Errorf("size is %+v", f[0])
	}
	if f[1].Name != "colour" || !f[1].Categorical || len(f[1].Categories) != 8 || f[1].Categories[3] != "grün" {
		t.Errorf("colour is %+v", f[1])
	}
	if len(f[2].Categories) != 290 || f[2].Categories[289] != "389" {
		t.Errorf("shop has %d categories", len(f[2].Categories))
	}
	// An ordered column has names in the file too, but is numeric: with three
	// lists for two columns no name can be told.
	for _, f := range open(t, "testdata/categorical_ordered.txt").Info().Features {
		if f.Categories != nil {
			t.Errorf("ordered: %s is given names %v that may be another's", f.Name, f.Categories)
		}
	}
	// Lists that are too short are of other columns, even where their number fits.
	data, err := os.ReadFile("testdata/categorical.txt")
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte("pandas_categorical:"))
	m, err := Read(append(data[:at:at], "pandas_categorical:[[\"low\", \"high\"], [1, 2], [\"a\"]]\n"...))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Info().Features {
		if f.Categories != nil {
			t.Errorf("short lists: %s is given names %v", f.Name, f.Categories)
		}
	}
	f = open(t, "testdata/categorical_codes.txt").Info().Features
	if f[1].Name != "Column_1" || !f[1].Categorical || f[1].Categories != nil {
		t.Errorf("codes: %+v", f[1])
	}
}

// TestNamedColumns predicts by name, with an unseen category as missing.
func TestNamedColumns(t *testing.T) {
	o := oracle(t, "categorical")
	m := open(t, o.Model)
	var in, unseen engine.Values
	for c, f := range m.Info().Features {
		var text, other []string
		var numbers []float64
		for _, row := range o.Rows {
			numbers = append(numbers, row[c])
			name, strange := "", "never seen"
			if f.Categories != nil && !math.IsNaN(row[c]) {
				name = f.Categories[int(row[c])]
				strange = name
			}
			text, other = append(text, name), append(other, strange)
		}
		x, err := engine.Of(numbers, len(numbers))
		y := x
		if f.Categories != nil {
			x, err = engine.Of(text, len(text))
			if err == nil {
				y, err = engine.Of(other, len(other))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, engine.Named{Name: f.Name, Tensor: x})
		unseen = append(unseen, engine.Named{Name: f.Name, Tensor: y})
	}
	for _, v := range []engine.Values{in, unseen} {
		prediction, _ := enginetest.Predict(t, m, v)
		if d := enginetest.Worst(prediction, o.Prediction); d > tolerance {
			t.Errorf("prediction by name differs by %v", d)
		}
	}
}

func TestRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/categorical.txt")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the model has no %s", old)
		}
		return bytes.Replace(good, []byte(old), []byte(with), 1)
	}
	tests := []struct {
		name string
		data []byte
		want error // nil: an UnsupportedError
		text string
	}{
		{"empty", nil, engine.ErrCorrupt, "first line"},
		{"an essay", []byte("Dear reader,\n"), engine.ErrCorrupt, "first line"},
		{"truncated", good[:len(good)/3], engine.ErrCorrupt, ""},
		{"another version", replace("version=v4", "version=v9"), nil, "v9"},
		{"unknown objective", replace("objective=regression", "objective=guess"), nil, "guess"},
		{"no features", replace("max_feature_idx=3", "max_feature_idx=-1"), engine.ErrCorrupt, "max_feature_idx"},
		{"too many features", replace("max_feature_idx=3", "max_feature_idx=999999999"), engine.ErrCorrupt, "max_feature_idx"},
		{"names of others", replace("max_feature_idx=3", "max_feature_idx=4"), engine.ErrCorrupt, "feature names"},
		{"too many leaves", replace("num_leaves=7", "num_leaves=999999999"), engine.ErrCorrupt, "num_leaves"},
		{"leaves of others", replace("num_leaves=7", "num_leaves=6"), engine.ErrCorrupt, "leaf_value"},
		{"a missing tree", replace("tree_sizes=", "tree_sizes=1 "), engine.ErrCorrupt, "announces"},
		{"no iterations", replace("num_tree_per_iteration=1", "num_tree_per_iteration=4"), engine.ErrCorrupt, "whole iterations"},
		{"a word for a number", replace("threshold=", "threshold=x"), engine.ErrCorrupt, "threshold"},
		{"bounds that descend", replace("cat_boundaries=0 ", "cat_boundaries=99999 "), engine.ErrCorrupt, "cat_boundaries"},
		{"bad pandas_categorical", replace("pandas_categorical:[", "pandas_categorical:{"), engine.ErrCorrupt, "pandas_categorical"},
		{"unknown bits", replace("decision_type=", "decision_type=9"), engine.ErrCorrupt, "decision_type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(tt.data)
			var u *engine.UnsupportedError
			if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && !errors.As(err, &u) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q does not hold %q", err, tt.text)
			}
		})
	}
}

// TestOlderFormat: v3 differs in nothing that is read here.
func TestOlderFormat(t *testing.T) {
	o := oracle(t, "objective_binary")
	data, err := os.ReadFile(o.Model)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Read(bytes.ReplaceAll(bytes.Replace(data, []byte("version=v4"), []byte("version=v3"), 1), []byte("\n"), []byte("\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	prediction, _ := enginetest.Predict(t, m, o.Input(t, m.Info()))
	if d := enginetest.Worst(prediction, o.Prediction); d > tolerance {
		t.Errorf("prediction differs by %v", d)
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"stump", "stump_some", "categorical_codes", "linear_tree", "rf_multiclass", "missing_zero"} {
		data, err := os.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		head, _, _ := bytes.Cut(data, []byte("feature_importances"))
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(data)
		if err != nil {
			return
		}
		n := m.Info().Inputs[0].Shape[1]
		x := make([]float64, 2*n)
		for i := range n {
			x[n+i] = math.NaN()
		}
		in, err := engine.Of(x, 2, n)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(context.Background(), engine.Values{{Name: "input", Tensor: in}}, nil); err != nil {
			t.Fatalf("a model that was read does not run: %v", err)
		}
	})
}
