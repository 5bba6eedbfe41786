package collector

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

func tensor[T engine.Element](t *testing.T, data []T, shape ...int) *engine.Tensor {
	t.Helper()
	x, err := engine.Of(data, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func matrixInfo(features ...string) *engine.Info {
	info := &engine.Info{
		Task: engine.TaskBinary, Classes: []string{"no", "yes"},
		Inputs:  []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, len(features)}}},
		Outputs: []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
		Missing: true,
	}
	for _, f := range features {
		info.Features = append(info.Features, engine.Feature{Name: f})
	}
	return info
}

func mustSchema(t *testing.T, info *engine.Info, cfg ModelConfig) *Schema {
	t.Helper()
	s, err := NewSchema(info, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaOfAMatrixModel(t *testing.T) {
	cfg := ModelConfig{Features: []FeatureConfig{{Name: "b", Private: PrivacyDrop}, {Name: "c", Kind: "categorical"}}}
	s := mustSchema(t, matrixInfo("a", "b", "c"), cfg)
	want := []Field{
		{Name: "a", DType: engine.Float32, Elements: 1},
		{Name: "b", DType: engine.Float32, Private: PrivacyDrop},
		{Name: "c", DType: engine.Float32, Elements: 1, Categorical: true},
	}
	if !reflect.DeepEqual(s.Features, want) {
		t.Errorf("fields %+v", s.Features)
	}
	b, err := EncodeSchema(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSchema(b)
	if err != nil || got.ID != s.ID || len(s.ID) != 64 {
		t.Errorf("id %q, then %q, %v", s.ID, got.ID, err)
	}
	if other := mustSchema(t, matrixInfo("a", "b", "c"), ModelConfig{}); other.ID == s.ID {
		t.Error("another schema has the same id")
	}
}

func TestSchemaRefusals(t *testing.T) {
	for what, cfg := range map[string]FeatureConfig{
		`no feature "z"`: {Name: "z"},
		`no feature " a", but one that is called so without the white space: write "a"`: {Name: " a", Private: PrivacyDrop},
		`private "hide"`:         {Name: "a", Private: "hide"},
		`unknown kind "strange"`: {Name: "a", Kind: "strange"},
	} {
		if _, err := NewSchema(matrixInfo("a"), ModelConfig{Features: []FeatureConfig{cfg}}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := NewSchema(matrixInfo("a", "a"), ModelConfig{}); err == nil || !strings.Contains(err.Error(), `"a" appears twice`) {
		t.Errorf("doubled name: %v", err)
	}
	for d, what := range map[engine.DType]string{engine.Sequence: "is a sequence of tensors", engine.Nothing: "is an optional value", engine.Invalid: "has no element type"} {
		info := matrixInfo("a")
		info.Outputs = []engine.Spec{{Name: "probabilities", DType: d, Shape: []int{-1}}}
		if _, err := NewSchema(info, ModelConfig{}); err == nil || !strings.Contains(err.Error(), `"probabilities" `+what) {
			t.Errorf("an output of type %v: %v", d, err)
		}
	}
}

func TestMatrixLeavesDroppedColumnsOut(t *testing.T) {
	info := matrixInfo("a", "b", "c")
	s := mustSchema(t, info, ModelConfig{Features: []FeatureConfig{{Name: "b", Private: PrivacyDrop}}})
	in := engine.Values{{Name: "input", Tensor: tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)}}
	c, err := Flatten(s.Features, in, 2)
	if err != nil || !reflect.DeepEqual(c, Columns{F32: []float32{1, 3, 4, 6}}) {
		t.Fatalf("%+v, %v", c, err)
	}
	if a, at, ok := FieldPosition(s.Features, 2); a != "F32" || at != 1 || !ok {
		t.Errorf("position %s %d %t", a, at, ok)
	}
	if _, _, ok := FieldPosition(s.Features, 1); ok {
		t.Error("a dropped field has a position")
	}
	_, err = Unflatten(s, info, []RawRow{{Features: c.Row(0, 2)}})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("restore with a dropped field: %v", err)
	}
	if n := testing.AllocsPerRun(50, func() { _, _ = Flatten(s.Features, in, 2) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}

// everyType is a model with one column of each element type.
func everyType(t *testing.T) (*engine.Info, engine.Values) {
	t.Helper()
	half, err := engine.OfBits(engine.Float16, []uint16{0x3c00, 0x0001}, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	bf, err := engine.OfBits(engine.BFloat16, []uint16{0x7fc1, 0x8000}, 2)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{
		{Name: "bool", Tensor: tensor(t, []bool{true, false}, 2)},
		{Name: "u8", Tensor: tensor(t, []uint8{255, 0}, 2, 1)},
		{Name: "u16", Tensor: tensor(t, []uint16{65535, 1}, 2)},
		{Name: "u32", Tensor: tensor(t, []uint32{math.MaxUint32, 1}, 2)},
		{Name: "u64", Tensor: tensor(t, []uint64{math.MaxUint64, 1}, 2)},
		{Name: "i8", Tensor: tensor(t, []int8{-128, 127}, 2)},
		{Name: "i16", Tensor: tensor(t, []int16{-32768, 1}, 2)},
		{Name: "i32", Tensor: tensor(t, []int32{math.MinInt32, 1}, 2)},
		{Name: "i64", Tensor: tensor(t, []int64{math.MinInt64, 1}, 2)},
		{Name: "f16", Tensor: half},
		{Name: "bf16", Tensor: bf},
		{Name: "f32", Tensor: tensor(t, []float32{1.5, float32(math.NaN())}, 2)},
		{Name: "f64", Tensor: tensor(t, []float64{math.Inf(-1), 0.1}, 2)},
		{Name: "str", Tensor: tensor(t, []string{"x", ""}, 2)},
	}
	info := &engine.Info{}
	for _, v := range in {
		shape := append([]int{-1}, v.Tensor.Shape()[1:]...)
		info.Inputs = append(info.Inputs, engine.Spec{Name: v.Name, DType: v.Tensor.DType(), Shape: shape})
		info.Features = append(info.Features, engine.Feature{Name: v.Name})
	}
	return info, in
}

// told is a tensor as text, in which NaN is itself.
func told(t *engine.Tensor) string {
	return fmt.Sprint(t.DType(), t.Shape(), engine.Data[bool](t), engine.Data[string](t), engine.Data[float32](t), engine.Data[float64](t),
		engine.Data[int8](t), engine.Data[int16](t), engine.Data[int32](t), engine.Data[int64](t), fmt.Sprintf("%x", engine.Data[uint8](t)), engine.Data[uint16](t), engine.Data[uint32](t), engine.Data[uint64](t))
}

func TestEveryTypeComesBack(t *testing.T) {
	info, in := everyType(t)
	s := mustSchema(t, info, ModelConfig{})
	c, err := Flatten(s.Features, in, 2)
	if err != nil {
		t.Fatal(err)
	}
	rows := []RawRow{{SchemaID: s.ID, Features: c.Row(0, 2)}, {SchemaID: s.ID, Features: c.Row(1, 2)}}
	back, err := Unflatten(s, info, rows)
	if err != nil {
		t.Fatal(err)
	}
	for i := range in {
		if got, want := told(back[i].Tensor), told(in[i].Tensor); got != want {
			t.Errorf("%s: %s, want %s", in[i].Name, got, want)
		}
	}
	features, _ := RowMaps(s, rows[0])
	want := map[string]any{
		"bool": true, "u8": int64(255), "u16": int64(65535), "u32": int64(math.MaxUint32), "u64": uint64(math.MaxUint64), "i8": int64(-128),
		"i16": int64(-32768), "i32": int64(math.MinInt32), "i64": int64(math.MinInt64), "f16": float32(1), "bf16": nil, "f32": float32(1.5),
		"f64": "-Infinity", "str": "x",
	}
	if !reflect.DeepEqual(features, want) {
		t.Errorf("features %v", features)
	}
	second, _ := RowMaps(s, rows[1])
	if second["str"] != nil || second["f32"] != nil {
		t.Errorf("missing values are shown as %v, %v", second["str"], second["f32"])
	}
}

func TestHalvesAreExact(t *testing.T) {
	for _, d := range []engine.DType{engine.Float16, engine.BFloat16} {
		for b := range 1 << 16 {
			got, ok := halfBits(d, engine.HalfToFloat32(d, uint16(b)))
			if !ok || got != uint16(b) {
				t.Fatalf("%s %04x came back as %04x, %t", d, b, got, ok)
			}
		}
		if _, ok := halfBits(d, 0.1); ok {
			t.Errorf("0.1 is taken for a %s", d)
		}
	}
}

// Token ids and masks are two variable inputs of one element type, beside a
// fixed one.
func TestVariableTensors(t *testing.T) {
	info := &engine.Info{
		Inputs: []engine.Spec{
			{Name: "ids", DType: engine.Int64, Shape: []int{-1, -1}},
			{Name: "scale", DType: engine.Int64, Shape: []int{-1}},
			{Name: "mask", DType: engine.Int64, Shape: []int{-1, -1}},
			{Name: "image", DType: engine.Float32, Shape: []int{-1, -1, 2, -1}},
		},
		Outputs: []engine.Spec{{Name: "pair", DType: engine.Float32, Shape: []int{-1, 2}}, {Name: "all", DType: engine.Float32, Shape: []int{1}}},
	}
	s := mustSchema(t, info, ModelConfig{})
	in := engine.Values{
		{Name: "ids", Tensor: tensor(t, []int64{1, 2, 3, 4, 5, 6}, 2, 3)},
		{Name: "scale", Tensor: tensor(t, []int64{7, 8}, 2)},
		{Name: "mask", Tensor: tensor(t, []int64{0, 1}, 2, 1)},
		{Name: "image", Tensor: tensor(t, make([]float32, 2*3*2*1), 2, 3, 2, 1)},
	}
	c, err := Flatten(s.Features, in, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int64{3, 1, 3, 2, 1, 7, 1, 2, 3, 0}; !reflect.DeepEqual(c.I64[:10], want) {
		t.Errorf("first row %v, want %v", c.I64[:10], want)
	}
	if _, at, ok := FieldPosition(s.Features, 1); at != 5 || !ok {
		t.Errorf("scale is at %d, %t", at, ok)
	}
	back, err := Unflatten(s, info, []RawRow{{Features: c.Row(0, 2)}, {Features: c.Row(1, 2)}})
	if err != nil || !reflect.DeepEqual(back, in) {
		t.Errorf("came back as %v, %v", back, err)
	}
	features, _ := RowMaps(s, RawRow{Features: c.Row(1, 2)})
	if !reflect.DeepEqual(features["ids"], []any{int64(4), int64(5), int64(6)}) || features["scale"] != int64(8) {
		t.Errorf("features %v", features)
	}
	out := engine.Values{{Name: "pair", Tensor: tensor(t, []float32{1, 2, 3, 4}, 2, 2)}, {Name: "all", Tensor: tensor(t, []float32{9}, 1)}}
	o, err := Flatten(s.Outputs, out, 2)
	if err != nil || !reflect.DeepEqual(o.F32, []float32{1, 2, 9, 3, 4, 9}) {
		t.Errorf("outputs %v, %v", o.F32, err)
	}
	if _, err := Flatten(s.Outputs, out[:1], 2); err == nil || !strings.Contains(err.Error(), `"all"`) {
		t.Errorf("an absent output: %v", err)
	}
	short := RawRow{Features: Columns{I64: []int64{-3, 1}}}
	if f, _ := RowMaps(s, short); len(f) != 0 {
		t.Errorf("a row of another schema shows %v", f)
	}
}

func TestModelOfOneRow(t *testing.T) {
	info := &engine.Info{Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{2, 3}}}}
	s := mustSchema(t, info, ModelConfig{})
	in := engine.Values{{Name: "x", Tensor: tensor(t, []float64{1, 2, 3, 4, 5, 6}, 2, 3)}}
	c, err := Flatten(s.Features, in, 1)
	if err != nil || len(c.F64) != 6 {
		t.Fatalf("%+v, %v", c, err)
	}
	if back, err := Unflatten(s, info, []RawRow{{Features: c}}); err != nil || !reflect.DeepEqual(back, in) {
		t.Errorf("%v, %v", back, err)
	}
}

func TestScores(t *testing.T) {
	nan := math.NaN()
	scalar := func(v ...float32) engine.Values {
		return engine.Values{{Name: "prediction", Tensor: tensor(t, v, len(v))}}
	}
	info := func(task engine.Task, classes ...string) *engine.Info {
		return &engine.Info{Task: task, Classes: classes, Inputs: []engine.Spec{{Name: "x", Shape: []int{-1, 1}}}}
	}
	sklearn := engine.Values{
		{Name: "label", Tensor: tensor(t, []int64{7, 3}, 2)}, {Name: "probabilities", Tensor: tensor(t, []float32{0.25, 0.75, 0.5, 0.5}, 2, 2)},
	}
	for _, c := range []struct {
		name    string
		info    *engine.Info
		out     engine.Values
		scores  []float64
		decided []string
	}{
		{"xgboost binary", info(engine.TaskBinary, "no", "yes"), scalar(0.5, 0.75, float32(nan)), []float64{0.5, 0.75, nan}, []string{"no", "yes", ""}},
		{"no class names", info(engine.TaskBinary), scalar(0.75), []float64{0.75}, []string{"1"}},
		{"scikit-learn's labels", info(engine.TaskBinary, "3", "7"), sklearn, []float64{0.75, 0.5}, []string{"7", "3"}},
		{
			"multiclass", info(engine.TaskMulticlass, "a", "b", "c"),
			engine.Values{{Name: "prediction", Tensor: tensor(t, []float32{0.25, 0.25, 0.5, 0, 1, 0}, 2, 3)}},
			[]float64{0.5, 1},
			[]string{"c", "b"},
		},
		{"multi:softmax", info(engine.TaskMulticlass, "a", "b"), scalar(1), []float64{nan}, []string{"b"}},
		{
			"logits", info(engine.TaskMulticlass, "a", "b"),
			engine.Values{{Name: "logits", Tensor: tensor(t, []float64{0, math.Log(3)}, 1, 2)}},
			[]float64{0.75},
			[]string{"b"},
		},
		{
			"columns that are no probabilities", info(engine.TaskBinary, "a", "b"),
			engine.Values{{Name: "out", Tensor: tensor(t, []float64{5, -2}, 1, 2)}},
			[]float64{nan},
			[]string{"a"},
		},
		{"regression", info(engine.TaskRegression), scalar(-3, 4), []float64{-3, 4}, nil},
		{"a tensor", info(engine.TaskOther), engine.Values{{Name: "o", Tensor: tensor(t, []float32{1, 2}, 1, 2)}}, []float64{nan}, nil},
	} {
		scores, decided := Scores(c.info, c.out)
		if fmt.Sprintf("%.12g", scores) != fmt.Sprintf("%.12g", c.scores) || !reflect.DeepEqual(decided, c.decided) {
			t.Errorf("%s: %v %q, want %v %q", c.name, scores, decided, c.scores, c.decided)
		}
	}
}

func TestBinRow(t *testing.T) {
	info := matrixInfo("a", "b", "c")
	info.Features[2] = engine.Feature{Name: "c", Categorical: true, Categories: []string{"x", "y"}}
	s := mustSchema(t, info, ModelConfig{Features: []FeatureConfig{{Name: "b", Private: PrivacyDrop}}})
	ref := &stats.Reference{Fields: []stats.FieldBins{
		{Kind: stats.KindNumeric, Edges: []float64{0, 10}},
		{Kind: stats.KindNone},
		{Kind: stats.KindCategorical, Categories: []string{"1", "0"}},
		{Kind: stats.KindNumeric, Edges: []float64{0.5}},
	}}
	nan := float32(math.NaN())
	p := &Prediction{Rows: 2, Features: Columns{F32: []float32{5, 1, nan, 2}}, Scores: []float64{0.75, math.NaN()}}
	if got := BinRow(ref, s, p, 0, nil); !reflect.DeepEqual(got, []uint16{1, stats.BinNone, 0, 1}) {
		t.Errorf("row 0: %v", got)
	}
	if got := BinRow(ref, s, p, 1, nil); !reflect.DeepEqual(got, []uint16{stats.BinMissing, stats.BinNone, stats.BinUnseen, stats.BinMissing}) {
		t.Errorf("row 1: %v", got)
	}
	p.Features = Columns{}
	if got := BinRow(ref, s, p, 0, nil); !reflect.DeepEqual(got, []uint16{stats.BinNone, stats.BinNone, stats.BinNone, 1}) {
		t.Errorf("without features: %v", got)
	}
	if got := BinRow(nil, s, p, 0, nil); got != nil {
		t.Errorf("without a reference: %v", got)
	}
	features, _ := RowMaps(s, RawRow{Features: Columns{F32: []float32{5, 1}}})
	if want := map[string]any{"a": float32(5), "c": "y"}; !reflect.DeepEqual(features, want) {
		t.Errorf("features %v", features)
	}
}

func TestStoredRows(t *testing.T) {
	p := samplePrediction()
	s := &Schema{
		Features: []Field{
			{Name: "x", DType: engine.Float32, Elements: 2},
			{Name: "y", DType: engine.Float64, Elements: 1},
			{Name: "i", DType: engine.Int64, Elements: 1},
			{Name: "s", DType: engine.String, Elements: 1},
		},
		Outputs: []Field{{Name: "prediction", DType: engine.Float64, Elements: 1}},
	}
	rows := StoredRows(p, s)
	if len(rows) != 2 || rows[0].ID != p.ID+".0" || rows[1].ID != p.ID+".1" {
		t.Fatalf("ids of %d rows: %q", len(rows), rows[0].ID)
	}
	if rows[0].ExternalID != "a" || !rows[1].Time.Equal(p.Times[1]) || rows[1].Outputs["prediction"] != 0.75 || rows[1].Features["y"] != nil {
		t.Errorf("row %+v", rows[1])
	}
	if rows[0].LatencyMS["model"] != 2 {
		t.Errorf("latency %v", rows[0].LatencyMS)
	}
	p.Rows, p.Times, p.ExternalIDs = 1, nil, []string{"one"}
	if one := StoredRows(p, s); one[0].ID != p.ID || one[0].ExternalID != "one" || !one[0].Time.Equal(p.ReceivedAt) {
		t.Errorf("one row %+v", one[0])
	}
}
