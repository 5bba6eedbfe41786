package compress

import (
	"context"
	"encoding/csv"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/tree"
)

// treeFiles returns the files of trees of the readers' test data, by path.
func treeFiles(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, pattern := range []string{"../xgboost/testdata/*.json", "../xgboost/testdata/*.ubj", "../lightgbm/testdata/*.txt"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".expect.json") {
				out[name] = file(t, name)
			}
		}
	}
	if len(out) < 90 {
		t.Fatalf("%d files of trees", len(out))
	}
	return out
}

// rowsBeside reads the rows a model's expected values were made for, or nil where
// there are none.
func rowsBeside(t testing.TB, name string, info *engine.Info) engine.Values {
	t.Helper()
	f, err := os.Open(strings.TrimSuffix(name, filepath.Ext(name)) + ".rows.csv")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var v []float64
	for _, r := range records {
		for _, text := range r {
			x, err := strconv.ParseFloat(text, 64)
			if err != nil {
				x = math.NaN()
			}
			v = append(v, x)
		}
	}
	wide := must(engine.Of(v, len(records), len(info.Features)))
	rows, _, err := engine.Bind(info, engine.Values{{Name: tree.InputName, Tensor: wide}})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// margins adds up an ensemble's trees plainly, stopping at the nodes of a cut.
func margins(e *tree.Ensemble, cut tree.Cut, x []float64, scale float64) []float64 {
	rows := len(x) / e.Features
	out := make([]float64, 0, rows*e.Outputs)
	for r := range rows {
		sum := make([]float64, e.Outputs)
		for i := range e.Trees[:cut.Keep] {
			t := &e.Trees[i]
			n, row := int32(0), x[r*e.Features:]
			value := cut.Of(i)[n]
			for value == nil && !t.Nodes[n].IsLeaf() {
				if t.Left(&t.Nodes[n], row[t.Nodes[n].Feature]) {
					n = t.Nodes[n].Left
				} else {
					n = t.Nodes[n].Right
				}
				value = cut.Of(i)[n]
			}
			switch {
			case value == nil && t.Output < 0:
				value = t.Values[int(n)*e.Outputs:][:e.Outputs]
			case value == nil:
				value = t.Values[n : n+1]
			}
			for k, v := range value {
				sum[max(t.Output, 0)+k] += v * scale
			}
		}
		for k := range sum {
			out = append(out, sum[k]+e.Base[k])
		}
	}
	return out
}

// steps are the changes the tests make to trees.
func treeSteps() []Step {
	return []Step{{Trees, 1}, {Trees, 2}, {Least, 0.5}, {Leaves, 0.05}, {Leaves, 1e9}}
}

// TestTrimFiles trims every file of trees in every way, and holds the file that is
// read again against the ensemble with the same parts cut off.
func TestTrimFiles(t *testing.T) {
	done := map[string]int{}
	for name, data := range treeFiles(t) {
		m := load(t, name, data)
		for _, s := range treeSteps() {
			in := Input{Name: name, Data: data, Rows: rowsBeside(t, name, m.Info())}
			r, err := Apply(t.Context(), in, []Step{s})
			if errors.Is(err, ErrRefused) {
				continue
			}
			var unsupported *engine.UnsupportedError
			if errors.As(err, &unsupported) && strings.Contains(err.Error(), "vector leaves") {
				continue
			}
			if err != nil {
				t.Errorf("%s to %s: %v", name, s, err)
				continue
			}
			if len(r.Data) >= len(data) {
				t.Errorf("%s to %s: %d bytes became %d", name, s, len(data), len(r.Data))
			}
			again := load(t, name, r.Data)
			if _, ok := tree.Held(again); !ok {
				done["linear"]++
				continue
			}
			done[string(s.Kind)+filepath.Ext(name)]++
			sameMargins(t, name+" to "+s.String(), in, again, s)
		}
	}
	for _, kind := range []Kind{Trees, Least, Leaves} {
		for _, ext := range []string{".json", ".ubj", ".txt"} {
			if done[string(kind)+ext] < 8 {
				t.Errorf("%d files %s were trimmed to %s", done[string(kind)+ext], ext, kind)
			}
		}
	}
	if done["linear"] == 0 {
		t.Error("no model of linear leaves lost trees")
	}
}

// cutOf makes the cut of a step anew.
func cutOf(t *testing.T, f *forest, s Step) tree.Cut {
	t.Helper()
	r, cut := &Result{}, tree.Cut{Keep: f.trees}
	var err error
	switch s.Kind {
	case Trees:
		err = f.rounds(context.Background(), r, &cut, int(s.Amount))
	case Least:
		err = f.least(context.Background(), r, &cut, s.Amount)
	default:
		err = f.joinLeaves(r, &cut, s.Amount)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cut
}

// sameMargins compares the model that was read again with the cut original.
func sameMargins(t *testing.T, what string, in Input, again engine.Model, s Step) {
	t.Helper()
	f, err := openForest(in)
	if err != nil {
		t.Fatal(err)
	}
	rows := in.Rows
	if rows == nil {
		rows = made(t, f.model.Info(), 20)
	}
	g := &forest{in: Input{Rows: rows}, model: f.model, ensemble: f.ensemble}
	x, _, err := g.matrix(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	cut := cutOf(t, f, s)
	scale := 1.0
	if f.format == "lightgbm" && strings.Contains(string(in.Data[:min(len(in.Data), 4000)]), "\naverage_output") {
		scale = float64(f.trees) / float64(cut.Keep)
	}
	want := margins(f.ensemble, cut, x, scale)
	e, _ := tree.Held(again)
	got := margins(e, tree.Cut{Keep: len(e.Trees)}, x, 1)
	if len(got) != len(want) {
		t.Fatalf("%s: %d margins, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= 2e-5*max(1, math.Abs(want[i]))) {
			t.Errorf("%s: margin %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// TestTrimONNX trims the zoo's tree ensembles.
func TestTrimONNX(t *testing.T) {
	done := map[Kind]int{}
	for name, data := range zoo(t) {
		m, err := modelfile.Read("m.onnx", data, "")
		if err != nil {
			continue
		}
		if _, ok := tree.Held(m); !ok {
			if _, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Trees, 1}}); !errors.Is(err, ErrRefused) {
				t.Errorf("%s without trees: %v", name, err)
			}
			continue
		}
		rows := made(t, m.Info(), 200)
		if rows == nil {
			continue
		}
		for _, s := range treeSteps() {
			in := Input{Name: "m.onnx", Data: data, Rows: rows}
			r, err := Apply(t.Context(), in, []Step{s})
			if errors.Is(err, ErrRefused) {
				continue
			}
			if err != nil {
				t.Errorf("%s to %s: %v", name, s, err)
				continue
			}
			if len(r.Data) >= len(data) {
				t.Errorf("%s to %s: %d bytes became %d", name, s, len(data), len(r.Data))
			}
			done[s.Kind]++
			sameMargins(t, name+" to "+s.String(), in, load(t, "m.onnx", r.Data), s)
		}
	}
	for _, kind := range []Kind{Trees, Least, Leaves} {
		if done[kind] < 8 {
			t.Errorf("%d ensembles were trimmed to %s", done[kind], kind)
		}
	}
}

// TestTrimOneTarget: of one target's leaf with several weights the first counts, of one
// with none what stands where splits have their numbers, in the file that is written too:
// trees that are such a leaf are added up.
func TestTrimOneTarget(t *testing.T) {
	ints := func(v ...int64) graph.Attr { return graph.Attr{Kind: graph.AttrInts, Ints: v} }
	floats := func(v ...float32) graph.Attr { return graph.Attr{Kind: graph.AttrFloats, Floats: v} }
	data, err := onnx.Encode(&onnx.Made{
		Graph: &graph.Graph{
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}}, Outputs: []string{"y"},
			Nodes: []*graph.Node{{
				Name: "trees", Domain: graph.DomainML, Op: "TreeEnsembleRegressor", Inputs: []string{"x"}, Outputs: []string{"y"},
				Attrs: graph.Attrs{
					"nodes_treeids": ints(0, 0, 0, 1, 2, 3, 3, 3), "nodes_nodeids": ints(0, 1, 2, 0, 0, 0, 1, 2), "nodes_featureids": ints(0, 0, 0, 0, 0, 0, 0, 0),
					"nodes_values": floats(0.1, 0, 0.5, 0, 0.75, 0.2, 0, 0), "nodes_truenodeids": ints(1, 0, 0, 0, 0, 1, 0, 0), "nodes_falsenodeids": ints(2, 0, 0, 0, 0, 2, 0, 0),
					"nodes_modes":    {Kind: graph.AttrStrings, Strings: []string{"BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"}},
					"target_treeids": ints(0, 0, 1, 1, 3, 3), "target_nodeids": ints(1, 1, 0, 0, 1, 2), "target_ids": ints(0, 0, 0, 0, 0, 0),
					"target_weights": floats(1, 2, 4, 8, 16, 32), "n_targets": {Kind: graph.AttrInt, Int: 1},
				},
			}},
		},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1, 1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, in := Step{Trees, 3}, Input{Name: "m.onnx", Data: data, Rows: made(t, load(t, "m.onnx", data).Info(), 20)}
	r, err := Apply(t.Context(), in, []Step{s})
	if err != nil {
		t.Fatal(err)
	}
	sameMargins(t, "one target", in, load(t, "m.onnx", r.Data), s)
}

// TestTrimRefusals tells why trees cannot be trimmed.
func TestTrimRefusals(t *testing.T) {
	data := file(t, "../lightgbm/testdata/binary_sigmoid.txt")
	if _, err := Apply(t.Context(), Input{Name: "m.txt", Data: data}, []Step{{Leaves, 1e-12}}); !errors.Is(err, ErrRefused) {
		t.Errorf("nothing to join: %v", err)
	}
	if _, err := Apply(t.Context(), Input{Name: "m.txt", Data: data}, []Step{{Trees, 1 << 20}}); !errors.Is(err, ErrRefused) {
		t.Errorf("nothing to leave out: %v", err)
	}
	linear := file(t, "../lightgbm/testdata/linear_tree.txt")
	for _, s := range []Step{{Leaves, 1}, {Least, 0.5}} {
		if _, err := Apply(t.Context(), Input{Name: "m.txt", Data: linear}, []Step{s}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "linear") {
			t.Errorf("%s of linear leaves: %v", s, err)
		}
	}
	booster := file(t, "../xgboost/testdata/linear.json")
	if _, err := Apply(t.Context(), Input{Name: "m.json", Data: booster}, []Step{{Trees, 1}}); !errors.Is(err, ErrRefused) {
		t.Errorf("a linear booster: %v", err)
	}
	forest := zoo(t)["forest_binary"]
	if _, err := Apply(t.Context(), Input{Name: "m.onnx", Data: forest}, []Step{{Least, 0.5}}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "--input") {
		t.Errorf("without rows or covers: %v", err)
	}
}

// FuzzTrees trims hostile files of every format, which a number chooses: most
// changes to a name would make one that nothing reads.
func FuzzTrees(f *testing.F) {
	exts := []string{".json", ".ubj", ".txt"}
	for name, data := range treeFiles(f) {
		if len(data) < 20000 {
			f.Add(uint8(slices.Index(exts, filepath.Ext(name))), data)
		}
	}
	f.Fuzz(func(t *testing.T, format uint8, data []byte) {
		ext := exts[int(format)%len(exts)]
		if _, err := modelfile.Read("m"+ext, data, ""); err != nil {
			return
		}
		for _, s := range treeSteps() {
			r, err := Apply(context.Background(), Input{Name: "m" + ext, Data: data}, []Step{s})
			if err != nil {
				continue
			}
			if _, err := modelfile.Read("m"+ext, r.Data, ""); err != nil {
				t.Fatalf("%s: what was written cannot be read: %v", s, err)
			}
		}
	})
}

// TestCatBoostIsRefusedByName: its files are read and not written.
func TestCatBoostIsRefusedByName(t *testing.T) {
	data, err := os.ReadFile("../catboost/testdata/loss_rmse.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Step{{Trees, 2}, {Least, 0.5}, {Leaves, 0.1}, {FP16, 0}} {
		if _, err := Apply(t.Context(), Input{Name: "m.json", Data: data}, []Step{s}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "CatBoost") {
			t.Errorf("%s: %v", s, err)
		}
	}
}
