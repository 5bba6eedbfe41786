package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// wideModel has n features of a matrix, every third a category by name, and its
// request in each form: a matrix, a column a feature, rows by name and by position.
func wideModel(t *testing.T, n int, names bool) (*collector.ModelVersion, map[string][2]string) {
	t.Helper()
	info := &engine.Info{
		Format: "xgboost", Task: engine.TaskRegression, Missing: true,
		Inputs:  []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, n}}},
		Outputs: []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
	}
	var cells, named, columns, members []string
	for i := range n {
		f := engine.Feature{Name: fmt.Sprintf("feature_%d", i)}
		cell, dtype := fmt.Sprintf("%d.25", i), []string{"FP32", "FP64"}[i%2]
		if i%3 == 2 {
			cell, dtype, f.Categorical, f.Categories = "1", "INT64", true, []string{"a", "b", "c"}
		}
		cells = append(cells, cell)
		if names && i%3 == 2 {
			cell, dtype = `"b"`, "BYTES"
		}
		named = append(named, cell)
		members = append(members, fmt.Sprintf("%q:%s", f.Name, cell))
		columns = append(columns, tensor(f.Name, dtype, "[1]", "["+cell+"]"))
		info.Features = append(info.Features, f)
	}
	return versionOf(t, "m", firstColumn{info}), map[string][2]string{
		"matrix":  {"/v2/models/m/infer", inputs(tensor("input", "FP32", fmt.Sprintf("[1,%d]", n), "["+strings.Join(cells, ",")+"]"))},
		"columns": {"/v2/models/m/infer", inputs(columns...)},
		"objects": {"/v1/models/m:predict", `{"instances":[{` + strings.Join(members, ",") + `}]}`},
		"lists":   {"/v1/models/m:predict", `{"instances":[[` + strings.Join(named, ",") + `]]}`},
	}
}

// binaryColumns is a request of a column a feature of rows rows, with their bytes behind the
// JSON, and the length of that.
func binaryColumns(n, rows int, names bool) (body string, header int) {
	var columns []string
	var tail []byte
	for i := range n {
		dtype, from := []string{"FP32", "FP64"}[i%2], len(tail)
		for range rows {
			switch {
			case i%3 == 2 && names:
				dtype, tail = "BYTES", append(binary.LittleEndian.AppendUint32(tail, 1), 'b')
			case i%3 == 2:
				dtype, tail = "INT64", binary.LittleEndian.AppendUint64(tail, 1)
			case dtype == "FP32":
				tail = binary.LittleEndian.AppendUint32(tail, math.Float32bits(float32(i)+0.25))
			default:
				tail = binary.LittleEndian.AppendUint64(tail, math.Float64bits(float64(i)+0.25))
			}
		}
		columns = append(columns, fmt.Sprintf(`{"name":"feature_%d","shape":[%d],"datatype":%q,"parameters":{"binary_data_size":%d}}`, i, rows, dtype, len(tail)-from))
	}
	head := inputs(columns...)
	return head + string(tail), len(head)
}

// TestNoAllocationPerFeature: a request takes as many allocations with 300 features as
// with 10, in whatever form they come.
func TestNoAllocationPerFeature(t *testing.T) {
	allocs := map[string][]float64{}
	for _, names := range []bool{false, true} {
		for _, n := range []int{10, 30, 100, 300} {
			v, bodies := wideModel(t, n, names)
			r := newRig(t, func(c *Config) {
				c.Capture = func(_ context.Context, p *collector.Prediction, v *collector.ModelVersion, in, _ engine.Values) error {
					_, err := collector.Flatten(v.Schema.Features, in, p.Rows)
					return err
				}
			})
			r.shelf.models["m"], r.shelf.loaded["m"] = v, true
			headers := map[string]string{}
			for _, rows := range []int{1, 40} {
				b, header := binaryColumns(n, rows, names)
				form := fmt.Sprint("binary of ", rows)
				bodies[form], headers[form] = [2]string{"/v2/models/m/infer", b}, fmt.Sprint(header)
			}
			for form, x := range bodies {
				header := headers[form]
				form := fmt.Sprint(form, " names:", names)
				allocs[form] = append(allocs[form], allocationsOf(t, r, x[0], header, x[1]))
			}
		}
	}
	for form, n := range allocs {
		t.Logf("%s: %v allocations with 10, 30, 100 and 300 features", form, n)
		// Maps of names have a few more parts when they are large, and slices of
		// rows another size class.
		if n[len(n)-1] > n[0]+8 {
			t.Errorf("%s: allocations grow with features: %v", form, n)
		}
	}
}

// allocationsOf is what a request makes, header the length of its JSON where bytes follow.
func allocationsOf(t *testing.T, r *rig, path, header, text string) float64 {
	t.Helper()
	req, err := http.NewRequest("POST", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != "" {
		req.Header.Set("Inference-Header-Content-Length", header)
	}
	req.Host, req.ContentLength = "127.0.0.1", int64(len(text))
	w := &discard{h: http.Header{}}
	return testing.AllocsPerRun(200, func() {
		clear(w.h)
		req.Body = body{strings.NewReader(text)}
		r.e.ServeHTTP(w, req)
		if w.status != 200 {
			t.Fatal(w.status)
		}
	})
}

// TestAllocationsOfAnInputAFeature: where a model has an input for each feature a request
// makes none for each, only what grows does so more often.
func TestAllocationsOfAnInputAFeature(t *testing.T) {
	counts, all := []int{10, 100, 300}, map[string][]float64{}
	for _, n := range counts {
		info := &engine.Info{Format: "onnx", Task: engine.TaskRegression, Outputs: []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}}}
		var columns, raw, members, cells []string
		var tail []byte
		for i := range n {
			name := fmt.Sprintf("feature_%d", i)
			info.Inputs = append(info.Inputs, engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 1}})
			info.Features = append(info.Features, engine.Feature{Name: name})
			cells = append(cells, fmt.Sprintf("%d.25", i))
			members = append(members, fmt.Sprintf("%q:%s", name, cells[i]))
			columns = append(columns, tensor(name, "FP32", "[1,1]", "["+cells[i]+"]"))
			raw = append(raw, fmt.Sprintf(`{"name":%q,"shape":[1,1],"datatype":"FP32","parameters":{"binary_data_size":4}}`, name))
			tail = binary.LittleEndian.AppendUint32(tail, math.Float32bits(float32(i)+0.25))
		}
		v := versionOf(t, "m", firstColumn{info})
		r := newRig(t, func(c *Config) {
			c.Capture = func(_ context.Context, p *collector.Prediction, v *collector.ModelVersion, in, _ engine.Values) error {
				_, err := collector.Flatten(v.Schema.Features, in, p.Rows)
				return err
			}
		})
		r.shelf.models["m"], r.shelf.loaded["m"] = v, true
		head := inputs(raw...)
		for form, x := range map[string][2]string{
			"JSON":    {"/v2/models/m/infer", inputs(columns...)},
			"binary":  {"/v2/models/m/infer", head + string(tail)},
			"objects": {"/v1/models/m:predict", `{"instances":[{` + strings.Join(members, ",") + `}]}`},
			"lists":   {"/v1/models/m:predict", `{"instances":[[` + strings.Join(cells, ",") + `]]}`},
		} {
			header := ""
			if form == "binary" {
				header = fmt.Sprint(len(head))
			}
			all[form] = append(all[form], allocationsOf(t, r, x[0], header, x[1]))
		}
	}
	for form, n := range all {
		t.Logf("%s: %v allocations with %v inputs", form, n, counts)
		if n[len(n)-1] > n[0]+30 {
			t.Errorf("%s: allocations grow with inputs: %v with %v", form, n, counts)
		}
	}
}

// TestColumnsAreTheMatrix: a request read straight into a matrix gives the values that
// one read column by column does, in whatever order and form.
func TestColumnsAreTheMatrix(t *testing.T) {
	v, bodies := wideModel(t, 30, true)
	r := newRig(t, nil)
	r.shelf.models["m"], r.shelf.loaded["m"] = v, true
	plain := bodies["columns"][1]
	list := strings.Split(strings.TrimSuffix(strings.TrimPrefix(plain, `{"inputs":[`), "]}"), "},{")
	list[0], list[len(list)-1] = strings.TrimPrefix(list[0], "{"), strings.TrimSuffix(list[len(list)-1], "}")
	reversed := make([]string, len(list))
	for i, s := range list {
		reversed[len(list)-1-i] = "{" + s + "}"
	}
	want := ""
	for name, body := range map[string]string{
		"plain":       plain,
		"reversed":    inputs(reversed...),
		"data first":  strings.Replace(plain, `"shape":[1],"datatype":"FP32","data":[0.25]`, `"data":[0.25],"shape":[1],"datatype":"FP32"`, 1),
		"escaped":     strings.Replace(plain, `"feature_0"`, `"feature\u005f0"`, 1),
		"[1,1]":       strings.Replace(plain, `"shape":[1],"datatype":"FP32","data":[0.25]`, `"shape":[1,1],"datatype":"FP32","data":[[0.25]]`, 1),
		"another key": strings.Replace(plain, `"shape":[1],"datatype":"FP32","data":[0.25]`, `"shape":[1],"datatype":"FP32","x":{},"data":[0.25]`, 1),
		"spaces":      strings.ReplaceAll(plain, ",", " ,\n "),
	} {
		if w := r.do("POST", "/v2/models/m/infer", body); w.Code != 200 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		in := r.tape.in[r.tape.len()-1]
		got := fmt.Sprint(in[0].Name, in[0].Tensor.Shape(), engine.Data[float32](in[0].Tensor))
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "[1 30] [0.25 1.25 1 3.25") {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
	for _, rows := range []int{1, 20} {
		b, header := binaryColumns(30, rows, true)
		if w := r.do("POST", "/v2/models/m/infer", b, "Inference-Header-Content-Length", fmt.Sprint(header)); w.Code != 200 {
			t.Fatalf("binary: %d %s", w.Code, w.Body)
		}
		in := r.tape.in[r.tape.len()-1]
		first, err := in.Slice(rows-1, rows)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(in[0].Name, first[0].Tensor.Shape(), engine.Data[float32](first[0].Tensor)); got != want {
			t.Errorf("binary of %d rows: %s, not %s", rows, got, want)
		}
		for name, c := range map[string][2]string{
			"too short": {b[:len(b)-1], "binary_data_size"}, "too long": {b + "x", "after the last binary tensor"},
			"a size that is not the column's": {strings.Replace(b, fmt.Sprintf(`"binary_data_size":%d}`, 4*rows), fmt.Sprintf(`"binary_data_size":%d}`, 4*rows+1), 1), "does not fit"},
		} {
			n := fmt.Sprint(header + len(c[0]) - len(b))
			if name != "a size that is not the column's" {
				n = fmt.Sprint(header)
			}
			if w := r.do("POST", "/v2/models/m/infer", c[0], "Inference-Header-Content-Length", n); w.Code != 400 || !strings.Contains(w.Body.String(), c[1]) {
				t.Errorf("binary, %s: %d %s", name, w.Code, w.Body)
			}
		}
	}
	for _, form := range []string{"objects", "lists"} {
		if w := r.do("POST", bodies[form][0], bodies[form][1]); w.Code != 200 {
			t.Fatalf("%s: %d %s", form, w.Code, w.Body)
		}
		in := r.tape.in[r.tape.len()-1]
		if got := fmt.Sprint(in[0].Name, in[0].Tensor.Shape(), engine.Data[float32](in[0].Tensor)); got != want {
			t.Errorf("%s: %s, not %s", form, got, want)
		}
	}
	for name, c := range map[string][2]string{
		"twice":        {strings.Replace(plain, `"feature_1"`, `"feature_0"`, 1), "twice"},
		"unknown":      {strings.Replace(plain, `"feature_1"`, `"other"`, 1), `no such feature`},
		"absent":       {inputs(reversed[1:]...), "absent"},
		"rows differ":  {strings.Replace(plain, `"shape":[1],"datatype":"FP32","data":[0.25]`, `"shape":[2],"datatype":"FP32","data":[0.25,1]`, 1), "rows"},
		"text":         {strings.Replace(plain, `"datatype":"FP32","data":[0.25]`, `"datatype":"BYTES","data":["x"]`, 1), "numeric"},
		"out of range": {strings.Replace(plain, `"datatype":"FP64","data":[1.25]`, `"datatype":"FP64","data":[1e300]`, 1), "too large"},
		"a huge shape": {strings.Replace(plain, `"shape":[1]`, `"shape":[2000000000]`, 1), "fewer"},
	} {
		if w := r.do("POST", "/v2/models/m/infer", c[0]); w.Code != 400 || !strings.Contains(w.Body.String(), c[1]) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
