package catboost

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/tree"
)

// small is a tree of one split: f0 > 0.5.
const small = `{"features_info":{"float_features":[{"borders":[0.5],"feature_id":"","feature_index":0,"flat_feature_index":0,"nan_value_treatment":"AsIs"}]},
"model_info":{},"oblivious_trees":[{"leaf_values":[1,2],"leaf_weights":[3,4],"splits":[{"border":0.5,"float_feature_index":0,"split_index":0,"split_type":"FloatFeature"}]}],
"scale_and_bias":[1,[0]]}`

// smallCategories has a one-hot value and a statistic of the same feature.
const smallCategories = `{"ctr_data":{"a":{"counter_denominator":0,"hash_map":["18446744073709551615",1,2,"7",3,4],"hash_stride":3}},
"features_info":{"categorical_features":[{"feature_id":"c","feature_index":0,"flat_feature_index":0,"values":[5]}],
"ctrs":[{"borders":[6],"ctr_type":"Borders","elements":[{"cat_feature_index":0,"combination_element":"cat_feature_value"}],"identifier":"a","prior_denomerator":1,"prior_numerator":0,"scale":15,"shift":0,"target_border_idx":0}]},
"model_info":{},"scale_and_bias":[1,[0]],
"trees":[{"split":{"split_index":0,"split_type":"OneHotFeature","cat_feature_index":0,"value":5},"left":{"value":1,"weight":2},
"right":{"split":{"split_index":1,"split_type":"OnlineCtr","border":6,"ctr_target_border_idx":0},"left":{"value":3,"weight":4},"right":{"value":5,"weight":6}}}]}`

// TestBorderInFloat32: a float64 goes the way its float32 does, ties to even
// included, at every kind of border.
func TestBorderInFloat32(t *testing.T) {
	borders := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, 0.1, 16777216, 16777217, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32,
		1.1754944e-38, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)),
	}
	for _, b := range borders {
		rule, threshold := above(b)
		n := &tree.Node{Rule: rule, Threshold: threshold}
		up, down := math.Nextafter32(b, float32(math.Inf(1))), math.Nextafter32(b, float32(math.Inf(-1)))
		for _, v := range []float64{
			float64(b), float64(up), float64(down), (float64(b) + float64(up)) / 2, (float64(b) + float64(down)) / 2,
			0, 1e-46, 1e300, -1e300, math.MaxFloat32, 0x1.ffffffp127, -0x1.ffffffp127, math.Inf(1), math.Inf(-1),
		} {
			for _, x := range []float64{v, math.Nextafter(v, math.Inf(1)), math.Nextafter(v, math.Inf(-1))} {
				if x != x {
					continue
				}
				if got, want := !(&tree.Tree{}).Left(n, x), float32(x) > b; got != want {
					t.Errorf("%g above %g: %v, want %v", x, b, got, want)
				}
			}
		}
	}
}

// TestNaN: a value that is missing goes where the file says, also past the border
// of the largest float32, which the library puts there to tell it from the rest.
func TestNaN(t *testing.T) {
	for treatment, want := range map[string]float64{"AsIs": 1, "AsFalse": 1, "AsTrue": 2} {
		for _, border := range []string{"0.5", "3.4028234663852886e+38", "-3.4028234663852886e+38"} {
			text := strings.ReplaceAll(strings.ReplaceAll(small, "0.5", border), "AsIs", treatment)
			m, err := Read([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			p, _ := enginetest.Predict(t, m, input(t, m.Info(), [][]string{{""}}))
			if got := engine.Data[float64](p)[0]; got != want {
				t.Errorf("NaN %s at border %s gives %g, want %g", treatment, border, got, want)
			}
		}
	}
}

// TestMarkerOfFreePlaces: the hash that the library fills free places of its table
// with is no category's, although it is in the file with numbers behind it.
func TestMarkerOfFreePlaces(t *testing.T) {
	m, err := Read([]byte(smallCategories))
	if err != nil {
		t.Fatal(err)
	}
	index := m.(*model).statistics[0].table.index
	if _, ok := index[math.MaxUint64]; ok || len(index) != 1 {
		t.Errorf("the table has %d hashes, want the one that is a category's", len(index))
	}
}

// TestIntegersAreTheirText: a category that comes as a number is the text it is
// written as; a real number is none.
func TestIntegersAreTheirText(t *testing.T) {
	o := named(t, "onehot")
	m := enginetest.Open(t, o.model, Read)
	in := input(t, m.Info(), o.cells)
	codes := engine.Data[string](in.Get("code"))
	whole := make([]int64, len(codes))
	for i := range codes {
		whole[i] = int64(i) - 2
		codes[i] = []string{"-2", "-1", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13"}[i]
	}
	want, _ := enginetest.Predict(t, m, in)
	for i := range in {
		if in[i].Name == "code" {
			x, err := engine.Of(whole, len(whole))
			if err != nil {
				t.Fatal(err)
			}
			in[i].Tensor = x
		}
	}
	got, _ := enginetest.Predict(t, m, in)
	for i, v := range engine.Data[float64](got) {
		if v != engine.Data[float64](want)[i] {
			t.Errorf("row %d as a number gives %g, as text %g", i, v, engine.Data[float64](want)[i])
		}
	}
	for i := range in {
		if in[i].Name == "code" {
			x, err := engine.Of(make([]float64, len(whole)), len(whole))
			if err != nil {
				t.Fatal(err)
			}
			in[i].Tensor = x
		}
	}
	var bad *engine.InputError
	if _, _, err := engine.Bind(m.Info(), in); !errors.As(err, &bad) {
		t.Errorf("a real number as a category: %v", err)
	}
}

// TestClasses: names and their order are the file's, whatever type they are of.
func TestClasses(t *testing.T) {
	for name, want := range map[string]string{
		"classes_text": "no yes", "classes_order": "high low mid", "classes_unseen": "0 1 2 3 4", "classes_bool": "False True", "loss_multiclass": "0 1 2",
		"loss_logloss": "0 1", "loss_rmse": "",
	} {
		m := enginetest.Open(t, "testdata/"+name+".json", Read)
		if got := strings.Join(m.Info().Classes, " "); got != want {
			t.Errorf("%s has classes %q, want %q", name, got, want)
		}
	}
}

// TestRefusals: damage is ErrCorrupt, what the engine does not have is named.
func TestRefusals(t *testing.T) {
	replaced := func(text, old, new string) string {
		out := strings.Replace(text, old, new, 1)
		if out == text {
			t.Fatalf("nothing to replace: %s", old)
		}
		return out
	}
	corrupt := map[string]string{
		"no document":        "[]",
		"truncated":          small[:200],
		"deep":               `{"trees":[` + strings.Repeat(`{"left":`, 20000),
		"levels":             replaced(small, `"splits":[`, `"splits":[`+strings.Repeat(`{},`, 70)),
		"leaf values":        replaced(small, "[1,2]", "[1,2,3]"),
		"leaf weights":       replaced(small, "[3,4]", "[3]"),
		"another border":     replaced(small, `"border":0.5`, `"border":0.25`),
		"index out of range": replaced(small, `"split_index":0`, `"split_index":1`),
		"negative index":     replaced(small, `"split_index":0`, `"split_index":-1`),
		"no index":           replaced(small, `"split_index":0,`, ``),
		"feature twice": replaced(small, `"float_features":[`,
			`"float_features":[{"feature_index":0,"flat_feature_index":1,"nan_value_treatment":"AsIs"},`),
		"flat index":     replaced(small, `"flat_feature_index":0`, `"flat_feature_index":1000000000`),
		"NaN border":     replaced(small, `"borders":[0.5]`, `"borders":[NaN]`),
		"huge border":    replaced(small, `"borders":[0.5]`, `"borders":[1e39]`),
		"two biases":     replaced(small, `[1,[0]]`, `[1,[0,1]]`),
		"no scale":       replaced(small, `[1,[0]]`, `[]`),
		"no features":    `{"model_info":{}}`,
		"stride":         replaced(smallCategories, `"hash_stride":3`, `"hash_stride":2`),
		"hash":           replaced(smallCategories, `"7"`, `"x"`),
		"numbers first":  replaced(smallCategories, `["184`, `[3,"184`),
		"uneven":         replaced(smallCategories, `"7",3,4`, `3,"7",4`),
		"no table":       replaced(smallCategories, `"identifier":"a"`, `"identifier":"b"`),
		"target":         replaced(smallCategories, `"target_border_idx":0`, `"target_border_idx":9`),
		"element":        replaced(smallCategories, `"elements":[{"cat_feature_index":0`, `"elements":[{"cat_feature_index":3`),
		"no category":    replaced(smallCategories, `"elements":[{"cat_feature_index":0,"combination_element":"cat_feature_value"}]`, `"elements":[]`),
		"half a node":    replaced(smallCategories, `"left":{"value":1,"weight":2},`, ``),
		"null node":      replaced(smallCategories, `"left":{"value":1,"weight":2}`, `"left":null`),
		"vector leaf":    replaced(smallCategories, `"value":3,`, `"value":[3,4],`),
		"both":           replaced(smallCategories, `"trees"`, `"oblivious_trees":[{"leaf_values":[1]}],"trees"`),
		"null tree":      `{"features_info":{"categorical_features":[{"feature_index":0}]},"trees":[null]}`,
		"loss's outputs": replaced(small, `"model_info":{}`, `"model_info":{"params":{"loss_function":{"type":"RMSEWithUncertainty"}}}`),
		"classes": replaced(small, `"model_info":{}`,
			`"model_info":{"class_params":{"class_names":["a","b","c"]},"params":{"loss_function":{"type":"Logloss"}}}`),
		"a thousand million classes": replaced(small, `"model_info":{}`,
			`"model_info":{"class_params":{"class_to_label":[0],"classes_count":1000000000},"params":{"loss_function":{"type":"MultiClass"}}}`),
	}
	for name, text := range corrupt {
		if _, err := Read([]byte(text)); !errors.Is(err, engine.ErrCorrupt) {
			t.Errorf("%s: error %v, want a corrupt file", name, err)
		}
	}
	unsupported := map[string]string{
		"text":      replaced(small, `"features_info":{`, `"features_info":{"text_features":[{}],`),
		"embedding": replaced(small, `"features_info":{`, `"features_info":{"embedding_features":[{}],`),
		"loss":      replaced(small, `"model_info":{}`, `"model_info":{"params":{"loss_function":{"type":"Tomorrow"}}}`),
		"split":     replaced(small, `"FloatFeature"`, `"EstimatedFeature"`),
		"nan":       replaced(small, `"AsIs"`, `"AsYouLike"`),
		"statistic": replaced(smallCategories, `"ctr_type":"Borders"`, `"ctr_type":"Tomorrow"`),
		"targets":   replaced(smallCategories, `"model_info":{}`, `"model_info":{"params":{"loss_function":{"type":"MultiRMSE"}}}`),
		"divided": replaced(smallCategories, `"model_info":{}`,
			`"model_info":{"params":{"cat_feature_params":{"simple_ctrs":[{"ctr_type":"Borders","target_binarization":{"border_count":1}},{"ctr_type":"Borders","target_binarization":{"border_count":3}}]}}}`),
	}
	var refused *engine.UnsupportedError
	for name, text := range unsupported {
		if _, err := Read([]byte(text)); !errors.As(err, &refused) {
			t.Errorf("%s: error %v, want a refusal by name", name, err)
		}
	}
}

// TestIs tells CatBoost's JSON from XGBoost's by the first key.
func TestIs(t *testing.T) {
	for text, want := range map[string]bool{
		small: true, smallCategories: true, "{\n \"model_info\" : {}}": true, `{"learner":{}}`: false, `{"version":[3]}`: false,
		`{"treeship":1}`: false, `[`: false, ``: false, `{`: false,
	} {
		if got := Is([]byte(text)); got != want {
			t.Errorf("Is(%.20s) = %v, want %v", text, got, want)
		}
	}
}
