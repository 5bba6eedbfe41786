package oip

import (
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestNamesOfTheModel: a name that is the model's own is read as it is, however it is written
// and wherever it stands, and one tensor's shape and values are not another's.
func TestNamesOfTheModel(t *testing.T) {
	info := &engine.Info{}
	for _, name := range []string{"a", `quo"te`, `back\slash`, "größe", "ab", ""} {
		info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 1}})
	}
	item := func(name, shape, data string) string {
		return `{"name":` + name + `,"datatype":"FP32","shape":` + shape + `,"data":` + data + `}`
	}
	body := `{"inputs":[` + strings.Join([]string{
		item(`"a"`, "[1,2]", "[1,2]"), item(`"quo\"te"`, "[]", "[3]"), item(` "back\\slash"`, "[3]", "[4,5,6]"), item(`"gr\u00f6ße"`, "[1,1,1]", "[[[7]]]"), item(`"abc"`, "[1]", "[8]"), item(`"\u0061b"`, "[1]", "[null]"),
	}, ",") + `]}`
	got, err := DecodeRequestFor([]byte(body), NoHeader, info)
	want, werr := DecodeRequest([]byte(body), NoHeader)
	if err != nil || werr != nil || len(got.Inputs) != 6 {
		t.Fatalf("%v, %v", err, werr)
	}
	names := []string{"a", `quo"te`, `back\slash`, "größe", "abc", "ab"}
	for i := range got.Inputs {
		g, w := got.Inputs[i], want.Inputs[i]
		if g.Name != names[i] || w.Name != names[i] || !slices.Equal(g.Tensor.Shape(), w.Tensor.Shape()) || len(engine.Data[float32](g.Tensor)) != g.Tensor.Len() {
			t.Errorf("%d: %q %v, alone %q %v", i, g.Name, g.Tensor.Shape(), w.Name, w.Tensor.Shape())
		}
	}
	if first := engine.Data[float32](got.Inputs[2].Tensor); !slices.Equal(first, []float32{4, 5, 6}) || !slices.Equal(got.Inputs[0].Tensor.Shape(), []int{1, 2}) {
		t.Errorf("the third tensor is %v, the first's shape %v", first, got.Inputs[0].Tensor.Shape())
	}
	for _, bad := range []string{item("\"a\x01\"", "[1]", "[1]"), item(`"a`, "[1]", "[1]")} {
		if _, err := DecodeRequestFor([]byte(`{"inputs":[`+bad+`]}`), NoHeader, info); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
