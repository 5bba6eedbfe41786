package onnx_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// TestEncode reads back what was written, each kind of attribute and tensor in it.
func TestEncode(t *testing.T) {
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	node := func(domain, op string, version int, attrs graph.Attrs, out string, in ...string) *graph.Node {
		return &graph.Node{Name: out, Domain: domain, Op: op, Version: version, Inputs: in, Outputs: []string{out}, Attrs: attrs}
	}
	g := &graph.Graph{
		Inputs:  []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}, {Name: "city", DType: engine.String, Shape: []int{-1, 1}}},
		Outputs: []string{"name", "y", "scaled", "hot"},
		Nodes: []*graph.Node{
			node("", "Gelu", onnx.EncodedOpset, graph.Attrs{"approximate": {Kind: graph.AttrString, String: "tanh"}}, "g", "x"),
			node("", "LeakyRelu", onnx.EncodedOpset, graph.Attrs{"alpha": {Kind: graph.AttrFloat, Float: 0.25}}, "y", "g"),
			node("", "ArgMax", onnx.EncodedOpset, graph.Attrs{"axis": {Kind: graph.AttrInt, Int: 1}, "keepdims": {Kind: graph.AttrInt}}, "best", "x"),
			node(graph.DomainML, "ArrayFeatureExtractor", onnx.EncodedOpsetML, graph.Attrs{}, "picked", "names", "best"),
			node("", "Reshape", onnx.EncodedOpset, graph.Attrs{}, "name", "picked", "all"),
			node(graph.DomainML, "Scaler", onnx.EncodedOpsetML, graph.Attrs{"offset": {Kind: graph.AttrFloats, Floats: []float32{1, 2}}, "scale": {Kind: graph.AttrFloats, Floats: []float32{3, 4}}}, "scaled", "x"),
			node(graph.DomainML, "OneHotEncoder", onnx.EncodedOpsetML, graph.Attrs{"cats_strings": {Kind: graph.AttrStrings, Strings: []string{"Łódź", ""}}}, "hot", "city"),
		},
		Constants: map[string]*engine.Tensor{"names": of(engine.Of([]string{"no", "ja"}, 2)), "all": of(engine.Of([]int64{-1}, 1))},
	}
	made := &onnx.Made{
		Graph: g, Producer: "test", Metadata: map[string]string{"b": "2", "a": "1"},
		Outputs: []engine.Spec{
			{Name: "name", DType: engine.String, Shape: []int{-1}},
			{Name: "y", DType: engine.Float32, Shape: []int{-1, 2}},
			{Name: "scaled", DType: engine.Float32, Shape: []int{-1, 2}},
			{Name: "hot", DType: engine.Float32, Shape: []int{-1, 1, 2}},
		},
	}
	data, err := onnx.Encode(made)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := onnx.Encode(made); err != nil || !bytes.Equal(again, data) {
		t.Errorf("the same model gives other bytes (%v)", err)
	}
	m, err := onnx.Read(data, "")
	if err != nil {
		t.Fatal(err)
	}
	if info := m.Info(); !reflect.DeepEqual(info.Inputs, g.Inputs) || !reflect.DeepEqual(info.Outputs, made.Outputs) || len(info.Classes) != 2 {
		t.Errorf("%+v", info)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), engine.Values{{Name: "x", Tensor: of(engine.Of([]float32{1, 5, 4, -2}, 2, 2))}, {Name: "city", Tensor: of(engine.Of([]string{"", "Łódź"}, 2, 1))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := engine.Data[string](out[0].Tensor); !reflect.DeepEqual(v, []string{"ja", "no"}) {
		t.Errorf("names %v", v)
	}
	if v := engine.Data[float32](out[2].Tensor); !reflect.DeepEqual(v, []float32{0, 12, 9, -16}) {
		t.Errorf("scaled %v", v)
	}
	if v := engine.Data[float32](out[3].Tensor); !reflect.DeepEqual(v, []float32{0, 1, 1, 0}) {
		t.Errorf("hot %v", v)
	}
	g.Nodes[0].Attrs["body"] = graph.Attr{Kind: graph.AttrGraph}
	if _, err := onnx.Encode(made); err == nil {
		t.Error("an attribute that is a graph was written")
	}
}
