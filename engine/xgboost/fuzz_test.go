package xgboost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// seed adds the small models of testdata.
func seed(f *testing.F, pattern string) {
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 12000 {
			f.Add(data)
		}
	}
}

// tryModel runs a model that was read: whatever it is, a row of zeros and one
// of missing values must come through.
func tryModel(t *testing.T, m engine.Model) {
	info := m.Info()
	n := info.Inputs[0].Shape[1]
	if n > 1<<12 || info.Extra[0].Shape[len(info.Extra[0].Shape)-1] > 1<<12 {
		return
	}
	x := make([]float32, 3*n)
	for i := range n {
		x[n+i] = float32(i) - 1.5
		x[2*n+i] = float32(nan())
	}
	in, err := engine.Of(x, 3, n)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), engine.Values{{Name: "input", Tensor: in}}, nil)
	if err != nil || out[0].Tensor.Rows() != 3 {
		t.Fatalf("a model that was read does not run: %v", err)
	}
}

func nan() float64 {
	var zero float64
	return zero / zero
}

func FuzzReadJSON(f *testing.F) {
	seed(f, "*.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadJSON(data); err == nil {
			tryModel(t, m)
		}
	})
}

func FuzzReadUBJ(f *testing.F) {
	seed(f, "*.ubj")
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadUBJ(data); err == nil {
			tryModel(t, m)
		}
	})
}

// FuzzDecodeJSON: what encoding/json takes, the decoder takes too, but for its
// bounds, repeated keys, and arrays that mix numbers with other things.
func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5E-1,-3],"b":[true,false],"c":{"d":"x\u00e9\n"},"e":[],"f":null}`))
	f.Add([]byte(`[NaN,-Infinity]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeJSON(data)
		if err == nil || !json.Valid(data) {
			return
		}
		var any map[string]any
		if json.Unmarshal(data, &any) != nil || v != nil {
			return
		}
		if again, err := json.Marshal(any); err != nil || tokens(t, data) != tokens(t, again) {
			return // a key that was given twice is once in the map
		}
		if simple(any, 0) {
			t.Errorf("valid JSON was refused: %v", err)
		}
	})
}

// tokens counts what valid JSON is made of.
func tokens(t *testing.T, data []byte) int {
	d, n := json.NewDecoder(bytes.NewReader(data)), 0
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
}

// simple reports whether v is an object of text and flat objects of one key.
func simple(v map[string]any, depth int) bool {
	if len(v) > 1 || depth > 5 {
		return false
	}
	for _, e := range v {
		switch e := e.(type) {
		case string, bool, nil:
		case map[string]any:
			return simple(e, depth+1)
		default:
			return false
		}
	}
	return true
}
