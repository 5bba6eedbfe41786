package engine_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

func tensor[T engine.Element](t *testing.T, data []T, shape ...int) *engine.Tensor {
	t.Helper()
	x, err := engine.Of(data, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func native(format string, d engine.DType) *engine.Info {
	return &engine.Info{
		Format: format, Missing: true,
		Inputs:  []engine.Spec{{Name: "input", DType: d, Shape: []int{-1, 3}}},
		Outputs: []engine.Spec{{Name: "prediction", DType: d, Shape: []int{-1}}},
		Features: []engine.Feature{
			{Name: "age"},
			{Name: "colour", Categorical: true, Categories: []string{"red", "green"}},
			{Name: "shop", Categorical: true},
		},
	}
}

var nan = math.NaN()

func TestBindAccepts(t *testing.T) {
	xgb, lgb := native("xgboost", engine.Float32), native("lightgbm", engine.Float64)
	plain := &engine.Info{Inputs: []engine.Spec{
		{Name: "ids", DType: engine.Int64, Shape: []int{-1, 2}},
		{Name: "scale", DType: engine.Float32, Shape: []int{}},
	}}
	sequences := &engine.Info{Inputs: []engine.Spec{
		{Name: "a", DType: engine.Float32, Shape: []int{-1}},
		{Name: "b", DType: engine.Float32, Shape: []int{-1}},
	}}
	columns := &engine.Info{Missing: true, Inputs: []engine.Spec{
		{Name: "age", DType: engine.Float32, Shape: []int{-1, 1}},
		{Name: "name", DType: engine.String, Shape: []int{-1, 1}},
	}, Features: []engine.Feature{{Name: "age"}, {Name: "name", Categorical: true}}}
	text := &engine.Info{Inputs: []engine.Spec{{Name: "city", DType: engine.String, Shape: []int{-1, 1}}}, Features: []engine.Feature{{Name: "city", Categorical: true}}}
	named := func(colour *engine.Tensor) engine.Values {
		return engine.Values{
			{Name: "shop", Tensor: tensor(t, []int64{7, 16777216}, 2, 1)},
			{Name: "colour", Tensor: colour},
			{Name: "age", Tensor: tensor(t, []float64{0.1, nan}, 2)},
		}
	}
	third := 1.0 / 3
	tests := []struct {
		name string
		info *engine.Info
		in   engine.Values
		rows int
		want []any // the canonical tensors' data
	}{
		{"float64 matrix rounds to float32", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []float64{third, 1, nan}, 1, 3)}}, 1, []any{[]float32{float32(third), 1, float32(nan)}}},
		{"float32 matrix widens", lgb, engine.Values{{Name: "input", Tensor: tensor(t, []float32{0.1, 1, 2}, 1, 3)}}, 1, []any{[]float64{float64(float32(0.1)), 1, 2}}},
		{"integers round once", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []int64{1<<54 + 1<<30 + 1, 1, 2}, 1, 3)}}, 1, []any{[]float32{1<<54 + 1<<31, 1, 2}}},
		{"bools", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []bool{true, false, true}, 1, 3)}}, 1, []any{[]float32{1, 0, 1}}},
		{"columns", xgb, named(tensor(t, []string{"green", "red"}, 2)), 2, []any{[]float32{0.1, 1, 7, float32(nan), 0, 16777216}}},
		{"empty text is missing", xgb, named(tensor(t, []string{"", "red"}, 2)), 2, []any{[]float32{0.1, float32(nan), 7, float32(nan), 0, 16777216}}},
		{"an unseen name is beyond XGBoost's codes", xgb, named(tensor(t, []string{"blue", "red"}, 2)), 2, []any{[]float32{0.1, 2, 7, float32(nan), 0, 16777216}}},
		{"an unseen name is missing in LightGBM", lgb, named(tensor(t, []string{"blue", "red"}, 2)), 2, []any{[]float64{0.1, nan, 7, nan, 0, 16777216}}},
		{"codes in columns", lgb, named(tensor(t, []uint8{1, 0}, 2)), 2, []any{[]float64{0.1, 1, 7, nan, 0, 16777216}}},
		{"one row where a dimension is fixed", plain, engine.Values{{Name: "scale", Tensor: tensor(t, []float32{2})}, {Name: "ids", Tensor: tensor(t, []int32{1, 2, 3, 4}, 2, 2)}}, 1, []any{[]int64{1, 2, 3, 4}, []float32{2}}},
		{"whole floats are integers", plain, engine.Values{{Name: "ids", Tensor: tensor(t, []float64{1, -2}, 1, 2)}, {Name: "scale", Tensor: tensor(t, []float32{2})}}, 1, []any{[]int64{1, -2}, []float32{2}}},
		{"unequal lengths are one row", sequences, engine.Values{{Name: "a", Tensor: tensor(t, []float32{1}, 1)}, {Name: "b", Tensor: tensor(t, []float32{1, 2}, 2)}}, 1, []any{[]float32{1}, []float32{1, 2}}},
		{"one column of text", text, engine.Values{{Name: "city", Tensor: tensor(t, []string{"x", "y"}, 2)}}, 2, []any{[]string{"x", "y"}}},
		{"column inputs of rank 1", columns, engine.Values{{Name: "name", Tensor: tensor(t, []string{"x", "y"}, 2)}, {Name: "age", Tensor: tensor(t, []float32{1, 2}, 2, 1)}}, 2, []any{[]float32{1, 2}, []string{"x", "y"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rows, err := engine.Bind(tt.info, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if rows != tt.rows || len(got) != len(tt.info.Inputs) {
				t.Fatalf("%d rows in %d tensors, want %d", rows, len(got), tt.rows)
			}
			for i, spec := range tt.info.Inputs {
				x := got[i].Tensor
				if got[i].Name != spec.Name || x.DType() != spec.DType || len(x.Shape()) != len(spec.Shape) {
					t.Errorf("tensor %d is %q %s %v, want %v", i, got[i].Name, x.DType(), x.Shape(), spec)
				}
				if !sameData(x, tt.want[i]) {
					t.Errorf("input %q is not %v", spec.Name, tt.want[i])
				}
			}
			again, _, err := engine.Bind(tt.info, got)
			if err != nil || again[0].Tensor != got[0].Tensor {
				t.Errorf("canonical values were not taken as they are: %v", err)
			}
		})
	}
}

func sameData(x *engine.Tensor, want any) bool {
	switch w := want.(type) {
	case []float32:
		return slices.EqualFunc(engine.Data[float32](x), w, func(a, b float32) bool { return a == b || a != a && b != b })
	case []float64:
		return slices.EqualFunc(engine.Data[float64](x), w, func(a, b float64) bool { return a == b || a != a && b != b })
	case []int64:
		return slices.Equal(engine.Data[int64](x), w)
	case []string:
		return slices.Equal(engine.Data[string](x), w)
	}
	return false
}

func TestBindRefuses(t *testing.T) {
	xgb, lgb := native("xgboost", engine.Float32), native("lightgbm", engine.Float64)
	strict := native("onnx", engine.Float32)
	strict.Missing = false
	ids := &engine.Info{Inputs: []engine.Spec{{Name: "ids", DType: engine.Int32, Shape: []int{-1}}}}
	ok := func(v ...float64) *engine.Tensor { return tensor(t, v, len(v)/3, 3) }
	column := func(name string, x *engine.Tensor) engine.Values {
		in := engine.Values{
			{Name: "age", Tensor: tensor(t, []float64{1}, 1)},
			{Name: "colour", Tensor: tensor(t, []string{"red"}, 1)},
			{Name: "shop", Tensor: tensor(t, []float64{1}, 1)},
		}
		for i := range in {
			if in[i].Name == name {
				in[i].Tensor = x
				return in
			}
		}
		return append(in, engine.Named{Name: name, Tensor: x})
	}
	const secret = 987654321
	tests := []struct {
		name, input, feature, reason string
		info                         *engine.Info
		in                           engine.Values
	}{
		{"nothing", "input", "", "is absent", xgb, nil},
		{"unknown input", "inptu", "", `takes "input" FP32`, xgb, engine.Values{{Name: "inptu", Tensor: ok(1, 2, 3)}}},
		{"twice", "input", "", "more than once", xgb, engine.Values{{Name: "input", Tensor: ok(1, 2, 3)}, {Name: "input", Tensor: ok(1, 2, 3)}}},
		{"no tensor", "input", "", "has no data", xgb, engine.Values{{Name: "input"}}},
		{"one more input", "other", "", "no such input", xgb, engine.Values{{Name: "input", Tensor: ok(1, 2, 3)}, {Name: "other", Tensor: ok(1, 2, 3)}}},
		{"too few columns", "input", "", "does not fit", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []float64{1, 2}, 1, 2)}}},
		{"rank 1", "input", "", "rank 1", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []float64{1, 2, 3}, 3)}}},
		{"rank 3", "input", "", "rank 3", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []float64{1, 2, 3}, 1, 1, 3)}}},
		{"no rows", "input", "", "no rows", xgb, engine.Values{{Name: "input", Tensor: ok()}}},
		{"text matrix", "input", "", "type BYTES", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []string{"a", "b", "c"}, 1, 3)}}},
		{"too large for float32", "input", "age", "too large", xgb, engine.Values{{Name: "input", Tensor: ok(1e300, secret, 1)}}},
		{"inexact category in a matrix", "input", "shop", "category code", xgb, engine.Values{{Name: "input", Tensor: tensor(t, []int64{1, 2, 1<<24 + 1}, 1, 3)}}},
		{"inexact category in float64", "input", "shop", "category code", lgb, engine.Values{{Name: "input", Tensor: tensor(t, []int64{1, 2, 1<<53 + 1}, 1, 3)}}},
		{"huge category", "input", "shop", "category code", lgb, engine.Values{{Name: "input", Tensor: tensor(t, []int64{1, 2, math.MaxInt64}, 1, 3)}}},
		{"NaN refused", "input", "colour", "missing", strict, engine.Values{{Name: "input", Tensor: ok(1, 2, 3, secret, nan, 6)}}},
		{"NaN column refused", "age", "", "missing", strict, column("age", tensor(t, []float64{nan}, 1))},
		{"empty text refused", "colour", "", "missing", strict, column("colour", tensor(t, []string{""}, 1))},
		{"absent feature", "colour", "", "is absent", xgb, column("", nil)[:1]},
		{"unknown feature", "color", "", "no such feature", xgb, column("color", tensor(t, []float64{1}, 1))},
		{"unequal columns", "shop", "", "has 2 rows", xgb, column("shop", tensor(t, []float64{1, secret}, 2))},
		{"wide column", "shop", "", "not a column", xgb, column("shop", tensor(t, []float64{1, secret}, 1, 2))},
		{"text for a number", "age", "", "numeric", xgb, column("age", tensor(t, []string{"987654321"}, 1))},
		{"text without names", "shop", "", "does not name", xgb, column("shop", tensor(t, []string{"987654321"}, 1))},
		{"fraction for an id", "ids", "", "not a whole number", ids, engine.Values{{Name: "ids", Tensor: tensor(t, []float64{secret + 0.5}, 1)}}},
		{"NaN for an id", "ids", "", "not a whole number", ids, engine.Values{{Name: "ids", Tensor: tensor(t, []float64{nan}, 1)}}},
		{"id out of range", "ids", "", "out of the range", ids, engine.Values{{Name: "ids", Tensor: tensor(t, []uint64{1 << 63}, 1)}}},
		{"whole float out of range", "ids", "", "out of the range", ids, engine.Values{{Name: "ids", Tensor: tensor(t, []float64{1 << 40}, 1)}}},
		{"bool for an id", "ids", "", "type BOOL", ids, engine.Values{{Name: "ids", Tensor: tensor(t, []bool{true}, 1)}}},
		{"a long name is cut", strings.Repeat("n", 80) + "...", "", "no such input", xgb, engine.Values{{Name: strings.Repeat("n", 5000), Tensor: ok(1, 2, 3)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.DeleteFunc(slices.Clone(tt.in), func(n engine.Named) bool { return n.Name == "" })
			_, _, err := engine.Bind(tt.info, in)
			var e *engine.InputError
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want an InputError", err)
			}
			if e.Input != tt.input || e.Feature != tt.feature || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("error %#v, want input %q feature %q reason with %q", e, tt.input, tt.feature, tt.reason)
			}
			if strings.Contains(err.Error(), "98765432") {
				t.Errorf("the error holds a value: %v", err)
			}
		})
	}
}

// TestBindNamedLikeTheMatrix: a feature that has the matrix's name does not
// hide the matrix.
func TestBindNamedLikeTheMatrix(t *testing.T) {
	info := native("xgboost", engine.Float32)
	info.Features[0].Name = "input"
	_, rows, err := engine.Bind(info, engine.Values{{Name: "input", Tensor: tensor(t, []float32{1, 2, 3}, 1, 3)}})
	if err != nil || rows != 1 {
		t.Errorf("matrix: %d rows, %v", rows, err)
	}
	in := engine.Values{
		{Name: "input", Tensor: tensor(t, []float32{1, 2}, 2)},
		{Name: "colour", Tensor: tensor(t, []string{"red", "green"}, 2)},
		{Name: "shop", Tensor: tensor(t, []float32{1, 2}, 2)},
	}
	if _, rows, err = engine.Bind(info, in); err != nil || rows != 2 {
		t.Errorf("columns: %d rows, %v", rows, err)
	}
	info.Features[2].Name = "colour"
	if _, _, err = engine.Bind(info, in); err == nil {
		t.Error("columns of a model with two features of one name were accepted")
	}
}
