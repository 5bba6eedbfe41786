package onnx_test

import (
	"errors"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// TestTwoBaseValues: of two classes that leaves vote for, runtimes add two base values in
// different ways; of three they agree.
func TestTwoBaseValues(t *testing.T) {
	ints := func(v ...int64) graph.Attr { return graph.Attr{Kind: graph.AttrInts, Ints: v} }
	floats := func(v ...float32) graph.Attr { return graph.Attr{Kind: graph.AttrFloats, Floats: v} }
	for _, c := range []struct {
		labels, ids []int64
		base        []float32
		refused     bool
	}{
		{[]int64{0, 1}, []int64{0, 1}, []float32{0.3, -0.4}, true},
		{[]int64{0, 1}, []int64{1, 1}, []float32{0.3, -0.4}, true},
		{[]int64{0, 1}, []int64{0, 1}, nil, true}, // the second is voted for in one leaf only
		{[]int64{0, 1}, []int64{1, 1}, nil, false},
		{[]int64{0, 1, 2}, []int64{0, 1}, []float32{0.3, -0.4, 0.1}, false},
		{[]int64{0, 1}, []int64{1, 1}, []float32{0.3}, true},
		{[]int64{0, 1}, []int64{0, 0}, []float32{0.3}, false},
	} {
		n := &graph.Node{
			Name: "trees", Domain: graph.DomainML, Op: "TreeEnsembleClassifier", Inputs: []string{"x"}, Outputs: []string{"label", "scores"},
			Attrs: graph.Attrs{
				"nodes_treeids": ints(0, 0, 0), "nodes_nodeids": ints(0, 1, 2), "nodes_featureids": ints(0, 0, 0), "nodes_values": floats(0.5, 0, 0),
				"nodes_truenodeids": ints(1, 0, 0), "nodes_falsenodeids": ints(2, 0, 0),
				"nodes_modes":   {Kind: graph.AttrStrings, Strings: []string{"BRANCH_LT", "LEAF", "LEAF"}},
				"class_treeids": ints(0, 0), "class_nodeids": ints(1, 2), "class_ids": ints(c.ids...), "class_weights": floats(1, -1),
				"classlabels_int64s": ints(c.labels...),
			},
		}
		if c.base != nil {
			n.Attrs["base_values"] = floats(c.base...)
		}
		file, err := onnx.Encode(&onnx.Made{
			Graph: &graph.Graph{
				Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 1}}}, Outputs: n.Outputs, Nodes: []*graph.Node{n},
			},
			Outputs: []engine.Spec{{Name: "label", DType: engine.Int64, Shape: []int{-1}}, {Name: "scores", DType: engine.Float32, Shape: []int{-1, len(c.labels)}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = onnx.Read(file, "")
		var unsupported *engine.UnsupportedError
		if errors.As(err, &unsupported) != c.refused || !c.refused && err != nil {
			t.Errorf("labels %v, ids %v, base %v: %v", c.labels, c.ids, c.base, err)
		}
	}
}
