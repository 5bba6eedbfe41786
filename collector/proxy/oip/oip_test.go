package oip

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pellucid/pellucid/engine"
)

func TestFloatsAreNearest(t *testing.T) {
	f := func(text string) {
		t.Helper()
		s := scanner{b: []byte(text)}
		n, err := s.number()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		w64, err64 := strconv.ParseFloat(text, 64)
		if v, ok := n.float64(); ok != (err64 == nil) || ok && math.Float64bits(v) != math.Float64bits(w64) {
			t.Errorf("%s: float64 %v %v, want %v", text, v, ok, w64)
		}
		w32, err32 := strconv.ParseFloat(text, 32)
		if v, ok := n.float32(); ok != (err32 == nil) || ok && math.Float32bits(v) != math.Float32bits(float32(w32)) {
			t.Errorf("%s: float32 %v %v, want %v", text, v, ok, w32)
		}
	}
	for _, text := range []string{
		"0", "-0", "0.0", "1", "-1.5", "16777217", "16777217.0", "9007199254740993", "1e22", "1e23", "1e-45", "7e-46", "1.401298464324817e-45",
		"3.4028235e38", "3.4028236e38", "3.4028235677973366e38", "1e39", "1e308", "1e309", "5e-324", "2e-324", "123456789012345678901234567890",
		"0.1", "0.30000001192092896", "1.00000005960464477540", "1.000000059604644776", "0." + strings.Repeat("3", 50), "1e999999999999", "1e-999999999999",
		"1.17549435e-38", "1.1754943e-38", "8.589973e9",
	} {
		f(text)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		v := math.Float32frombits(r.Uint32())
		if v-v != 0 {
			continue
		}
		f(strconv.FormatFloat(float64(v), 'g', -1, 32))
		// Halfway to the next float32: where rounding twice would show.
		mid := (float64(v) + float64(math.Nextafter32(v, 2*v))) / 2
		if mid-mid == 0 {
			f(strconv.FormatFloat(mid, 'g', -1, 64))
		}
		f(strconv.FormatFloat(math.Float64frombits(r.Uint64()&^(1<<62)), 'g', 1+r.IntN(20), 64))
	}
}

func TestFloatsReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		v := math.Float32frombits(r.Uint32())
		if v-v != 0 {
			continue
		}
		b := appendFloat(nil, float64(v), 32)
		if !json.Valid(b) {
			t.Fatalf("%s is not JSON", b)
		}
		if w, err := strconv.ParseFloat(string(b), 32); err != nil || float32(w) != v {
			t.Fatalf("%v was written as %s", v, b)
		}
	}
}

func TestStringsAreStrict(t *testing.T) {
	for _, bad := range []string{`"`, `"\`, `"\x"`, `"\u12"`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, "\"\xff\"", "\"\\n\xff\"", "\"\x01\""} {
		s := scanner{b: []byte(bad)}
		if v, err := s.str(); err == nil {
			t.Errorf("%q was read as %q", bad, v)
		}
	}
	for _, good := range []string{`""`, `"é"`, `"\ud83d\ude00"`, `"a\/\b\f\n\r\t\u0000"`} {
		s := scanner{b: []byte(good)}
		var want string
		if err := json.Unmarshal([]byte(good), &want); err != nil {
			t.Fatal(err)
		}
		if v, err := s.str(); err != nil || v != want {
			t.Errorf("%s: %q %v", good, v, err)
		}
	}
}

func TestAppendStringIsJSON(t *testing.T) {
	for _, s := range []string{"", "a\"b\\c\n\r\t\x00\x1f", "é😀\u2028", "\xff\xfe", "a\xc3"} {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("%q became %q: %v", s, got, err)
		}
	}
}

// FuzzInferRequest checks that a decoder never panics, never believes a body
// that encoding/json does not, and that what it read is written and read again
// as the same bits.
func FuzzInferRequest(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","parameters":{"a":1,"b":"x","c":true,"d":1.5,"e":[1]},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,null]]}],"outputs":[{"name":"y"}]}`,
		`{"inputs":[{"data":["a","\u00e9"],"shape":[2],"name":"x","datatype":"BYTES"}]}`,
		`{"inputs":[{"name":"x","shape":[3],"datatype":"INT64","data":[9007199254740993,-1,1e3]}]}`,
		`{"inputs":[{"name":"x","shape":[0,5],"datatype":"BOOL","data":[]}]}`,
		`{"inputs":[{"name":"x","shape":[],"datatype":"UINT8","data":[255]}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := DecodeRequest(body, NoHeader)
		if err != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("decoded what is not JSON: %q", body)
		}
		again(t, req)
	})
}

// again encodes a request in both forms and compares what is read back.
func again(t *testing.T, req *Request) {
	t.Helper()
	for _, binary := range []bool{true, false} {
		for i := range req.Inputs {
			req.Inputs[i].Params = req.Inputs[i].Params.Without("nonfinite", "binary_data_size")
			req.Inputs[i].Binary = binary
			if d := req.Inputs[i].Tensor.DType(); !binary && !JSONable(d) {
				return
			}
		}
		out, header, err := AppendRequest(nil, req)
		if err != nil {
			if binary {
				t.Fatal(err)
			}
			return // strings that only binary can carry
		}
		if len(req.Inputs) == 0 {
			return
		}
		back, err := DecodeRequest(out, header)
		if err != nil {
			t.Fatalf("cannot read back %q: %v", out, err)
		}
		for i := range req.Inputs {
			a, b := req.Inputs[i].Tensor, back.Inputs[i].Tensor
			if x, y := appendBinary(nil, a), appendBinary(nil, b); !bytes.Equal(x, y) && !nan(a) {
				t.Fatalf("input %d: % x became % x", i, x, y)
			}
		}
	}
}

// nan reports whether a tensor has elements whose bits JSON does not keep.
func nan(t *engine.Tensor) bool { return nonfinite(t) != "" }

func FuzzBinary(f *testing.F) {
	head := `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}`
	f.Add([]byte(head+"\x00\x00\x80?\x00\x00\x00@"), len(head))
	head = `{"inputs":[{"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}},{"name":"h","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}]}`
	f.Add([]byte(head+"\x01\x00\x00\x00a\x00\x3c"), len(head))
	f.Add([]byte("abc"), 0)
	f.Fuzz(func(t *testing.T, body []byte, header int) {
		for _, spec := range []engine.Spec{
			{Name: "x", DType: engine.Float32, Shape: []int{-1, 3}},
			{Name: "x", DType: engine.String, Shape: []int{1}},
			{Name: "x", DType: engine.Int64, Shape: []int{-1}},
			{Name: "x", DType: engine.Bool, Shape: []int{-1, -1, -1}},
		} {
			if req, err := DecodeRaw(body, []engine.Spec{spec}); err == nil && req.Inputs[0].Tensor == nil {
				t.Fatal("no tensor and no error")
			}
		}
		if res, err := DecodeResponse(body, header); err == nil {
			for _, o := range res.Outputs {
				if n, err := engine.Elements(o.Tensor.Shape()); err != nil || n != o.Tensor.Len() {
					t.Fatal("shape and data differ")
				}
			}
		}
		req, err := DecodeRequest(body, header)
		if err != nil {
			return
		}
		again(t, req)
	})
}

func FuzzInstances(f *testing.F) {
	for _, s := range []string{`{"instances":[[1,2],[3,"b"]]}`, `{"instances":[{"a":1,"b":"x"}]}`, `{"instances":[[[1,2]]]}`, `{"instances":[1,null]}`} {
		f.Add([]byte(s))
	}
	matrix := &engine.Info{
		Inputs:   []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, 2}}},
		Features: []engine.Feature{{Name: "a"}, {Name: "b"}},
	}
	columns := &engine.Info{
		Inputs:   []engine.Spec{{Name: "a", DType: engine.Int64, Shape: []int{-1, 1}}, {Name: "b", DType: engine.String, Shape: []int{-1}}},
		Features: []engine.Feature{{Name: "a"}, {Name: "b"}},
	}
	image := &engine.Info{Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{-1, 2, 2}}}}
	pair := &engine.Info{Inputs: []engine.Spec{{Name: "a", DType: engine.Float64, Shape: []int{-1, 2}}, {Name: "b", DType: engine.Bool, Shape: []int{-1}}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, info := range []*engine.Info{matrix, columns, image, pair} {
			req, err := DecodeInstances(body, info)
			if err != nil {
				continue
			}
			if !json.Valid(body) {
				t.Fatalf("decoded what is not JSON: %q", body)
			}
			for _, it := range req.Inputs {
				if n, err := engine.Elements(it.Tensor.Shape()); err != nil || n != it.Tensor.Len() {
					t.Fatal("shape and data differ")
				}
			}
		}
	})
}

// TestCodesInATextColumn: bare integers are a tensor of integers, as a model that takes
// categories by their codes wants them; a mixture is a mistake.
func TestCodesInATextColumn(t *testing.T) {
	info := &engine.Info{
		Inputs:   []engine.Spec{{Name: "a", DType: engine.Int64, Shape: []int{-1, 1}}, {Name: "b", DType: engine.String, Shape: []int{-1, 1}}},
		Features: []engine.Feature{{Name: "a"}, {Name: "b", Categorical: true}},
	}
	for _, body := range []string{`{"instances":[{"a":1,"b":4},{"a":2,"b":-7}]}`, `{"instances":[[1,4],[2,-7]]}`} {
		req, err := DecodeInstances([]byte(body), info)
		if err != nil {
			t.Fatal(err)
		}
		b := req.Inputs[1].Tensor
		if got := engine.Data[int64](b); len(got) != 2 || got[0] != 4 || got[1] != -7 {
			t.Errorf("%s: %v", body, b)
		}
	}
	for _, body := range []string{`{"instances":[[1,"x"],[2,4]]}`, `{"instances":[[1,4],[2,"x"]]}`, `{"instances":[[1,4.5]]}`} {
		if req, err := DecodeInstances([]byte(body), info); err == nil {
			t.Errorf("%s: %v", body, req.Inputs)
		}
	}
}

// TestInstancesOfHalves: numbers of 16 bits have no form in JSON, however the rows are written.
func TestInstancesOfHalves(t *testing.T) {
	for _, d := range []engine.DType{engine.Float16, engine.BFloat16} {
		info := &engine.Info{
			Inputs:   []engine.Spec{{Name: "x", DType: d, Shape: []int{-1, 2}}},
			Features: []engine.Feature{{Name: "a"}, {Name: "b"}},
		}
		for _, body := range []string{`{"instances":[{"x":[1,2]}]}`, `{"instances":[{"a":1,"b":2}]}`, `{"instances":[[1,2]]}`} {
			if _, err := DecodeInstances([]byte(body), info); err == nil || !strings.Contains(err.Error(), "cannot be sent as JSON") {
				t.Errorf("%s %s: %v", d, body, err)
			}
		}
	}
}

// TestInstancesOfAMatrixByItsName: rows that are objects of the model's one input are its rows.
func TestInstancesOfAMatrixByItsName(t *testing.T) {
	info := &engine.Info{
		Inputs:   []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}},
		Features: []engine.Feature{{Name: "a"}, {Name: "b"}},
	}
	for body, ok := range map[string]bool{
		`{"instances":[{"x":[1,2]},{"x":[3,null]}]}`: true, `{"instances":[{"a":1,"b":2},{"b":null,"a":3}]}`: true,
		`{"instances":[{"x":[1,2]},{"a":3,"b":4}]}`: false, `{"instances":[{"x":[1,2],"a":1}]}`: false, `{"instances":[{"x":[1]}]}`: false,
		`{"instances":[{"x":[1,2],"x":[3,4]}]}`: false, `{"instances":[{"x":1}]}`: false, `{"instances":[{"x":[[1,2]]}]}`: false, `{"instances":[{"y":[1,2]}]}`: false,
	} {
		req, err := DecodeInstances([]byte(body), info)
		if (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if !ok {
			continue
		}
		got := engine.Data[float32](req.Inputs[0].Tensor)
		if len(got) != 4 || got[0] != 1 || got[1] != 2 || got[2] != 3 || !math.IsNaN(float64(got[3])) {
			t.Errorf("%s: %v", body, got)
		}
	}
}
