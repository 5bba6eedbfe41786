package xgboost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/tree"
)

func ensemble(t *testing.T, m engine.Model) *tree.Ensemble {
	t.Helper()
	h, ok := m.(tree.Holder)
	if !ok {
		t.Fatal("the model holds no trees")
	}
	e, _ := h.Trees()
	return e
}

// TestFloat32Rounding is trap 1: rows between a threshold and the midpoint to
// its float32 neighbour go the way of their float32, which TestOracle checks.
// Here the case is shown to have teeth: compared in float64, some go astray.
func TestFloat32Rounding(t *testing.T) {
	for _, o := range enginetest.Oracles(t, "testdata") {
		if o.Name != "rounding" {
			continue
		}
		astray := 0
		e := ensemble(t, open(t, o.Model))
		for _, row := range o.Rows {
			for i := range e.Trees {
				for j := range e.Trees[i].Nodes {
					n := &e.Trees[i].Nodes[j]
					v := row[n.Feature]
					if !n.IsLeaf() && e.Trees[i].Left(n, v) != e.Trees[i].Left(n, float64(float32(v))) {
						astray++
					}
				}
			}
		}
		if astray == 0 {
			t.Error("no row of the case depends on the rounding")
		}
		return
	}
	t.Fatal("no case called rounding")
}

// TestBaseScore is trap 2: the forms of base_score, and the inverse link it is
// stored behind.
func TestBaseScore(t *testing.T) {
	tests := []struct {
		objective, text string
		outputs         int
		want            []float64
	}{
		{"binary:logistic", "5E-1", 1, []float64{0}},
		{"binary:logistic", "[3E-1]", 1, []float64{math.Log(0.3 / 0.7)}},
		{"reg:logistic", "3E-1", 1, []float64{math.Log(0.3 / 0.7)}},
		{"binary:logitraw", "[3E-1]", 1, []float64{0.3}},
		{"count:poisson", "2E0", 1, []float64{math.Ln2}},
		{"reg:gamma", "2", 1, []float64{math.Ln2}},
		{"reg:tweedie", "[2]", 1, []float64{math.Ln2}},
		{"survival:cox", "2", 1, []float64{math.Ln2}},
		{"survival:aft", "2", 1, []float64{math.Ln2}},
		{"reg:squarederror", "-1.5E0", 1, []float64{-1.5}},
		{"rank:ndcg", "5E-1", 1, []float64{0.5}},
		{"binary:hinge", "5E-1", 1, []float64{0.5}},
		{"multi:softprob", "5E-1", 3, []float64{0.5, 0.5, 0.5}},
		{"multi:softprob", "[-1E0, 2E0,3]", 3, []float64{-1, 2, 3}},
	}
	for _, tt := range tests {
		got, err := readBase(object{"base_score": tt.text}, objectives[tt.objective], tt.outputs, false)
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%s %s: %v, %v", tt.objective, tt.text, got, err)
			continue
		}
		for i := range got {
			if math.Abs(float64(got[i])-tt.want[i]) > 1e-6 {
				t.Errorf("%s %s: margins %v, want %v", tt.objective, tt.text, got, tt.want)
			}
		}
	}
	for _, bad := range []struct{ objective, text string }{
		{"binary:logistic", "-1E-7"},
		{"binary:logistic", "[1.5]"},
		{"reg:logistic", "NaN"},
		{"count:poisson", "0"},
		{"count:poisson", "-1"},
		{"reg:squarederror", "NaN"},
		{"reg:squarederror", ""},
		{"reg:squarederror", "[1,2]"},
		{"reg:squarederror", "x"},
	} {
		if got, err := readBase(object{"base_score": bad.text}, objectives[bad.objective], 1, false); !errors.Is(err, engine.ErrCorrupt) {
			t.Errorf("%s %q: %v, %v, want ErrCorrupt", bad.objective, bad.text, got, err)
		}
	}
}

// TestBoundedBase: XGBoost 3.2 and later keep a probability from 0 and 1, earlier
// versions refuse these two and take the logit of all between them. The margins are
// what 2.1.4, 3.2.0 and 3.4.1 answer.
func TestBoundedBase(t *testing.T) {
	for _, tt := range []struct {
		text    string
		version int
		want    float32
	}{
		{"[0E0]", 302, -13.81551},
		{"[1E0]", 302, 13.74516},
		{"[1E-7]", 302, -13.81551},
		{"[9.9999994E-1]", 304, 13.74516},
		{"1E-7", 201, -16.118095},
		{"9.9999994E-1", 201, 15.942385},
		{"0E0", 201, -13.81551},
		{"[1E0]", 301, 13.74516},
	} {
		o := objectives["binary:logistic"]
		o.bounded = tt.version >= boundedSince
		got, err := readBase(object{"base_score": tt.text}, o, 1, false)
		if err != nil || math.Abs(float64(got[0]-tt.want)) > 1e-6 {
			t.Errorf("%s of version %d: %v, %v, want %v", tt.text, tt.version, got, err, tt.want)
		}
	}
}

// TestDart is trap 3: the weights of dropped trees are in the leaves.
func TestDart(t *testing.T) {
	const stem = "testdata/dart_multi"
	data, err := os.ReadFile(stem + ".json")
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(`"weight_drop":[`))
	head, tail, ok := strings.Cut(string(data[at:]), "]")
	if at < 0 || !ok || !strings.Contains(head, "E-1") {
		t.Fatalf("the case has no weights below 1: %q", head)
	}
	ones := `"weight_drop":[1` + strings.Repeat(",1", strings.Count(head, ",")) + "]"
	unweighted, err := Read([]byte(string(data[:at]) + ones + tail))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range enginetest.Oracles(t, "testdata") {
		if o.Name == "dart_multi" {
			_, margin := enginetest.Predict(t, unweighted, o.Input(t, unweighted.Info()))
			if d := enginetest.Worst(margin, o.Margin); d < 1e-3 {
				t.Errorf("without its weights the margin differs by %v only: the case cannot tell", d)
			}
		}
	}
	short := `"weight_drop":[1]`
	if _, err := Read([]byte(string(data[:at]) + short + tail)); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("one weight for many trees: %v, want ErrCorrupt", err)
	}
}

// TestCovers is trap 4: hessians, as they are in the file.
func TestCovers(t *testing.T) {
	e := ensemble(t, open(t, "testdata/objective_binary_logistic.json"))
	if e.Covers != tree.CoverHessian {
		t.Errorf("covers are %q", e.Covers)
	}
	root := e.Trees[0].Nodes[0].Cover
	if root <= 0 || root > 100+1e-3 { // 400 rows of hessian p(1-p) <= 1/4
		t.Errorf("the root's cover is %v", root)
	}
}

// TestEarlyStopping is trap 5: all trees are used, and the details say so.
func TestEarlyStopping(t *testing.T) {
	m := open(t, "testdata/early.json")
	for _, d := range m.Info().Details {
		if d.Name == "best_iteration" && strings.Contains(d.Value, "all trees are used") {
			return
		}
	}
	t.Errorf("the details do not tell of best_iteration: %v", m.Info().Details)
}

// TestShapes is trap 6: outputs by kind.
func TestShapes(t *testing.T) {
	tests := []struct {
		name               string
		prediction, margin int
		task               engine.Task
	}{
		{"objective_binary_logistic.json", 1, 1, engine.TaskBinary},
		{"objective_multi_softprob.json", 3, 3, engine.TaskMulticlass},
		{"objective_multi_softmax.json", 1, 3, engine.TaskMulticlass},
		{"objective_reg_quantileerror.json", 3, 3, engine.TaskRegression},
		{"vector_leaf.json", 3, 3, engine.TaskRegression},
		{"labels.json", 2, 2, engine.TaskOther},
		{"objective_rank_ndcg.json", 1, 1, engine.TaskRanking},
		{"parallel_multi.ubj", 3, 3, engine.TaskMulticlass},
	}
	for _, tt := range tests {
		info := open(t, "testdata/"+tt.name).Info()
		width := func(s engine.Spec) int {
			if len(s.Shape) == 1 {
				return 1
			}
			return s.Shape[1]
		}
		if p, m := width(info.Outputs[0]), width(info.Extra[0]); p != tt.prediction || m != tt.margin || info.Task != tt.task {
			t.Errorf("%s: %d predictions and %d margins a row of task %s, want %+v", tt.name, p, m, info.Task, tt)
		}
	}
}

// TestCategories is trap 7: what the file says of categories, by name and by
// code, JSON and UBJSON alike; how they are routed is TestOracle's.
func TestCategories(t *testing.T) {
	for _, name := range []string{"categorical.json", "categorical_ubj.ubj"} {
		m := open(t, "testdata/"+name)
		f := m.Info().Features
		if len(f) != 5 || f[0].Name != "size" || f[0].Categorical || f[0].Categories != nil {
			t.Fatalf("%s: features %+v", name, f)
		}
		if f[1].Name != "colour" || !f[1].Categorical || len(f[1].Categories) != 8 || f[1].Categories[3] != "grey" {
			t.Errorf("%s: colour is %+v", name, f[1])
		}
		if !f[2].Categorical || f[2].Categories != nil {
			t.Errorf("%s: accent is %+v, though its names are cut wrongly in the file", name, f[2])
		}
		if len(f[3].Categories) != 90 || f[3].Categories[0] != "100" || f[3].Categories[89] != "189" {
			t.Errorf("%s: shop is %+v", name, f[3])
		}
		set, wide := false, false
		e := ensemble(t, m)
		for i := range e.Trees {
			for j := range e.Trees[i].Nodes {
				n := &e.Trees[i].Nodes[j]
				if !n.IsLeaf() && n.Rule == tree.InSet {
					set = true
					wide = wide || len(e.Trees[i].Sets[n.Set]) > 1
				}
			}
		}
		if !set || !wide {
			t.Errorf("%s: no split by a set (%v) of more than one word (%v)", name, set, wide)
		}
	}
	accent := open(t, "testdata/categorical.v3_4.json").Info().Features[2]
	if got := strings.Join(accent.Categories, " "); got != "a o é" {
		t.Errorf("version 3.4: accent has categories %q", got)
	}
	f := open(t, "testdata/categorical_codes.json").Info().Features
	if f[0].Name != "f0" || f[0].Categorical || !f[1].Categorical || f[1].Categories != nil {
		t.Errorf("features without names: %+v", f)
	}
}

// TestNamedColumns predicts by name and category, as design 3 lets callers do.
func TestNamedColumns(t *testing.T) {
	m := open(t, "testdata/categorical.json")
	info := m.Info()
	for _, o := range enginetest.Oracles(t, "testdata") {
		if o.Name != "categorical" {
			continue
		}
		var in engine.Values
		for c := range info.Features {
			f := &info.Features[c]
			var text []string
			var numbers []float64
			for _, row := range o.Rows {
				v := row[c]
				numbers = append(numbers, v)
				switch {
				case math.IsNaN(v) || f.Categories == nil:
					text = append(text, "")
				default:
					text = append(text, f.Categories[int(v)])
				}
			}
			x, err := engine.Of(numbers, len(numbers))
			if f.Categories != nil {
				x, err = engine.Of(text, len(text), 1)
			}
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, engine.Named{Name: f.Name, Tensor: x})
		}
		prediction, _ := enginetest.Predict(t, m, in)
		if d := enginetest.Worst(prediction, o.Prediction); d > tolerance {
			t.Errorf("prediction by name differs by %v", d)
		}
	}
}

func TestRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/stump.json")
	if err != nil {
		t.Fatal(err)
	}
	ubj, err := os.ReadFile("testdata/dart.ubj")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the model has no %s", old)
		}
		return bytes.Replace(good, []byte(old), []byte(with), 1)
	}
	bomb := binary.BigEndian.AppendUint64([]byte("{L\x00\x00\x00\x00\x00\x00\x00\x01a[$d#L"), 1<<33)
	tests := []struct {
		name string
		data []byte
		want error  // nil: an UnsupportedError
		text string // in the error
	}{
		{"empty", nil, engine.ErrCorrupt, "neither"},
		{"text", []byte("hello"), engine.ErrCorrupt, "neither"},
		{"another JSON", []byte(`{"a":1}`), engine.ErrCorrupt, `"learner"`},
		{"truncated", good[:len(good)/2], engine.ErrCorrupt, "at byte"},
		{"truncated UBJSON", ubj[:len(ubj)/2], engine.ErrCorrupt, "ends early"},
		{"a huge count", bomb, engine.ErrCorrupt, "ends early"},
		{"deep JSON", []byte(`{"a":` + strings.Repeat("[[", 1000)), engine.ErrCorrupt, "nested"},
		{"deep UBJSON", []byte("{i\x01a" + strings.Repeat("[", 1000)), engine.ErrCorrupt, "nested"},
		{"trailing text", append(bytes.Clone(good), "{}"...), engine.ErrCorrupt, "after the document"},
		{"a key twice", replace(`"version":`, `"learner":1,"version":`), engine.ErrCorrupt, "twice"},
		{"unknown objective", replace("reg:squarederror", "reg:cubederror"), nil, "reg:cubederror"},
		{"unknown booster", replace(`"name":"gbtree"`, `"name":"gbforest"`), nil, "gbforest"},
		{"too many features", replace(`"num_feature":"6","num_target"`, `"num_feature":"999999999","num_target"`), engine.ErrTooLarge, "num_feature"},
		{"too many classes", replace(`"num_class":"0"`, `"num_class":"99999999"`), engine.ErrTooLarge, "num_class"},
		{"negative classes", replace(`"num_class":"0"`, `"num_class":"-1"`), engine.ErrCorrupt, "num_class"},
		{"more nodes than arrays", replace(`"num_nodes":"1"`, `"num_nodes":"3"`), engine.ErrCorrupt, "left_children"},
		{"no trees", replace(`"trees":[{`, `"twigs":[{`), engine.ErrCorrupt, `"trees"`},
		{"a member nobody knows", replace(`"tree_info":[`, `"tree_scale":[2],"tree_info":[`), nil, `"tree_scale" of model`},
		{"and beside the model", replace(`"name":"gbtree"`, `"drop":[2],"name":"gbtree"`), nil, `"drop" of gradient_booster`},
		{"class out of range", replace(`"tree_info":[0`, `"tree_info":[7`), engine.ErrCorrupt, "output 7"},
		{"vector leaves of another width", replace(`"size_leaf_vector":"1"`, `"size_leaf_vector":"2"`), engine.ErrCorrupt, "2 values"},
		{"a child that is no node", replace(`"left_children":[-1]`, `"left_children":[5]`), engine.ErrCorrupt, "child"},
		{"its own child", replace(`"left_children":[-1]`, `"left_children":[0]`), engine.ErrCorrupt, "child"},
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

// TestTruncated cuts a model at every 61st byte: always an error, never a panic.
func TestTruncated(t *testing.T) {
	for _, path := range []string{"testdata/categorical.json", "testdata/dart.ubj", "testdata/linear_multi.ubj"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(data); n += 61 {
			if _, err := Read(data[:n]); err == nil {
				t.Errorf("%s cut at byte %d was read", path, n)
			}
		}
	}
}

// TestDecodersAgree: a model saved both ways is one model.
func TestDecodersAgree(t *testing.T) {
	a, b := ensemble(t, open(t, "testdata/categorical.json")), ensemble(t, open(t, "testdata/categorical_ubj.ubj"))
	if len(a.Trees) != len(b.Trees) {
		t.Fatalf("%d and %d trees", len(a.Trees), len(b.Trees))
	}
	for i := range a.Trees {
		for j := range a.Trees[i].Nodes {
			if a.Trees[i].Nodes[j] != b.Trees[i].Nodes[j] || a.Trees[i].Values[j] != b.Trees[i].Values[j] {
				t.Errorf("tree %d node %d: %+v and %+v", i, j, a.Trees[i].Nodes[j], b.Trees[i].Nodes[j])
			}
		}
	}
}
