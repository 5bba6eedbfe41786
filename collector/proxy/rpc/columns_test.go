package rpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
	"github.com/pellucid/pellucid/engine"
)

// wide is a model of n features, every third a category by name, and a request of a column
// a feature for it, in lists or in bytes.
func wide(n, rows int, raw bool) (*engine.Info, *inference.ModelInferRequest) {
	info := &engine.Info{
		Format: "xgboost", Task: engine.TaskRegression, Missing: true,
		Inputs:  []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, n}}},
		Outputs: []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
	}
	m := &inference.ModelInferRequest{ModelName: "m"}
	for i := range n {
		f := engine.Feature{Name: fmt.Sprintf("feature_%d", i)}
		t := &inference.ModelInferRequest_InferInputTensor{Name: f.Name, Shape: []int64{int64(rows)}, Contents: &inference.InferTensorContents{}}
		var b []byte
		for r := range rows {
			switch x := i + r; i % 3 {
			case 0:
				t.Datatype, t.Contents.Fp32Contents = "FP32", append(t.Contents.Fp32Contents, float32(x)+0.25)
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)+0.25))
			case 1:
				t.Datatype, t.Contents.IntContents = "INT16", append(t.Contents.IntContents, int32(x-300))
				b = binary.LittleEndian.AppendUint16(b, uint16(int16(x-300)))
			default:
				name := []string{"a", "b", "c", "unheard", ""}[x%5]
				f.Categorical, f.Categories = true, []string{"a", "b", "c"}
				t.Datatype, t.Contents.BytesContents = "BYTES", append(t.Contents.BytesContents, []byte(name))
				b = append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
			}
		}
		if raw {
			t.Contents, m.RawInputContents = nil, append(m.RawInputContents, b)
		}
		info.Features, m.Inputs = append(info.Features, f), append(m.Inputs, t)
	}
	return info, m
}

// bound is what the model is given, or why not.
func bound(m *inference.ModelInferRequest, decoded, info *engine.Info) (engine.Values, int, string) {
	req, err := request(m, decoded)
	if err != nil {
		return nil, 0, err.Error()
	}
	in, rows, err := engine.Bind(info, req.Values())
	if err != nil {
		return nil, 0, err.Error()
	}
	return in, rows, ""
}

// TestColumnsAreTheMatrix: a message that is read straight into the matrix gives what one
// that is read tensor by tensor gives, errors included.
func TestColumnsAreTheMatrix(t *testing.T) {
	changes := map[string]func(m *inference.ModelInferRequest){
		"as it is":   func(*inference.ModelInferRequest) {},
		"reversed":   func(m *inference.ModelInferRequest) { m.Inputs[0], m.Inputs[9] = m.Inputs[9], m.Inputs[0] },
		"[n,1]":      func(m *inference.ModelInferRequest) { m.Inputs[1].Shape = append(m.Inputs[1].Shape, 1) },
		"text [n,1]": func(m *inference.ModelInferRequest) { m.Inputs[2].Shape = append(m.Inputs[2].Shape, 1) },
		"[1,n]":      func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = append([]int64{1}, m.Inputs[0].Shape...) },
		"absent":     func(m *inference.ModelInferRequest) { m.Inputs = m.Inputs[1:] },
		"twice":      func(m *inference.ModelInferRequest) { m.Inputs[3].Name = m.Inputs[0].Name },
		"unknown":    func(m *inference.ModelInferRequest) { m.Inputs[0].Name = "other" },
		"no name":    func(m *inference.ModelInferRequest) { m.Inputs[0].Name = "" },
		"the matrix": func(m *inference.ModelInferRequest) { m.Inputs[0].Name = "input" },
		"no type":    func(m *inference.ModelInferRequest) { m.Inputs[0].Datatype = "" },
		"other type": func(m *inference.ModelInferRequest) { m.Inputs[0].Datatype = "INT64" },
		"a number where text is": func(m *inference.ModelInferRequest) {
			m.Inputs[2].Datatype = "FP32"
		},
		"text for a number": func(m *inference.ModelInferRequest) { m.Inputs[0].Datatype = "BYTES" },
		"no rows":           func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = []int64{0} },
		"other rows":        func(m *inference.ModelInferRequest) { m.Inputs[0].Shape[0]++ },
		"a huge shape":      func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = []int64{1 << 40} },
		"a negative shape":  func(m *inference.ModelInferRequest) { m.Inputs[0].Shape = []int64{-1} },
		"two lists": func(m *inference.ModelInferRequest) {
			m.Inputs[0].Contents = &inference.InferTensorContents{Fp32Contents: []float32{1}, BoolContents: []bool{true}}
		},
		"out of range": func(m *inference.ModelInferRequest) {
			if c := m.Inputs[1].Contents; c != nil {
				c.IntContents[0] = 1 << 20
			}
		},
		"cut": func(m *inference.ModelInferRequest) {
			if raw := m.RawInputContents; raw != nil {
				raw[2] = raw[2][:len(raw[2])-1]
			}
		},
		"more": func(m *inference.ModelInferRequest) {
			if raw := m.RawInputContents; raw != nil {
				raw[0] = append(raw[0], 0, 0, 0, 0)
			}
		},
	}
	for name, change := range changes {
		for _, rows := range []int{1, 2, 40} {
			for _, raw := range []bool{false, true} {
				for _, missing := range []bool{true, false} {
					info, m := wide(10, rows, raw)
					info.Missing = missing
					change(m)
					again := proto.Clone(m).(*inference.ModelInferRequest)
					got, n, failed := bound(m, info, info)
					want, wantRows, wantFailed := bound(again, &engine.Info{}, info)
					if failed != wantFailed || n != wantRows || failed == "" && !equal(got, want) {
						t.Errorf("%s, %d rows, raw %t: %v %d %q, not %v %d %q", name, rows, raw, got, n, failed, want, wantRows, wantFailed)
					}
					if fine := name == "as it is" || name == "reversed" && !raw || name == "[n,1]"; fine && missing != (failed == "") && rows > 4 {
						t.Errorf("%s, %d rows: %q", name, rows, failed)
					}
				}
			}
		}
	}
}

// equal compares the bits of one matrix.
func equal(a, b engine.Values) bool {
	bits := func(v engine.Values) (out []uint32) {
		for _, x := range engine.Data[float32](v[0].Tensor) {
			out = append(out, math.Float32bits(x))
		}
		return out
	}
	return len(a) == 1 && len(b) == 1 && a[0].Name == b[0].Name && reflect.DeepEqual(a[0].Tensor.Shape(), b[0].Tensor.Shape()) && reflect.DeepEqual(bits(a), bits(b))
}

// TestNoAllocationPerFeature: a message of 300 columns is read with as many allocations as
// one of 9.
func TestNoAllocationPerFeature(t *testing.T) {
	for _, raw := range []bool{false, true} {
		for _, rows := range []int{1, 40} {
			var allocs []float64
			for _, n := range []int{9, 300} {
				info, m := wide(n, rows, raw)
				allocs = append(allocs, testing.AllocsPerRun(100, func() {
					req, err := request(m, info)
					if err != nil || len(req.Inputs) != 1 {
						t.Fatal(err)
					}
				}))
			}
			t.Logf("raw %t, %d rows: %v", raw, rows, allocs)
			if allocs[1] > allocs[0]+4 {
				t.Errorf("raw %t, %d rows: allocations grow with features: %v", raw, rows, allocs)
			}
		}
	}
}
