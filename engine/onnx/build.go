package onnx

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"google.golang.org/protobuf/encoding/protowire"
)

// The operator sets and the version of the format that Encode writes: the first in
// which everything engine/train writes is defined (Gelu since 20), so that the oldest
// runtimes read it.
const (
	// EncodedOpset is the operator set of ai.onnx, EncodedOpsetML of ai.onnx.ml.
	EncodedOpset   = 20
	EncodedOpsetML = 3
	encodedIR      = 9
)

// maxProtobuf is what one protobuf message may hold: other runtimes read no larger.
const maxProtobuf = math.MaxInt32

// Made is a model that was made here and is to be written.
type Made struct {
	// Graph holds the nodes in an order in which each comes after those it reads; its
	// constants become initialisers.
	Graph *graph.Graph
	// Outputs declare Graph.Outputs, in order.
	Outputs []engine.Spec
	// Producer names the program, Metadata are the file's properties.
	Producer string
	Metadata map[string]string
}

// Encode writes a model as an ONNX file that stands for itself. The same model gives
// the same bytes.
func Encode(m *Made) ([]byte, error) {
	var g []byte
	for _, n := range m.Graph.Nodes {
		b, err := encodeNode(n)
		if err != nil {
			return nil, fmt.Errorf("write ONNX node %q (%s): %w", n.Label(), n.Title(), err)
		}
		g = appendMessage(g, graphNode, b)
	}
	g = appendText(g, 2, "pellucid")
	for _, name := range slices.Sorted(maps.Keys(m.Graph.Constants)) {
		b, err := encodeAnyTensor(name, m.Graph.Constants[name])
		if err != nil {
			return nil, fmt.Errorf("write ONNX initialiser %q: %w", name, err)
		}
		g = appendMessage(g, graphInitializer, b)
	}
	for _, s := range m.Graph.Inputs {
		g = appendMessage(g, graphInput, encodeValue(s))
	}
	for _, s := range m.Outputs {
		g = appendMessage(g, 12, encodeValue(s))
	}
	out := appendVarint(nil, modelIRVersion, encodedIR)
	out = appendText(out, 2, m.Producer)
	out = appendMessage(out, modelGraph, g)
	out = appendMessage(out, 8, appendVarint(nil, 2, EncodedOpset))
	out = appendMessage(out, 8, appendVarint(appendText(nil, 1, graph.DomainML), 2, EncodedOpsetML))
	for _, k := range slices.Sorted(maps.Keys(m.Metadata)) {
		out = appendMessage(out, 14, appendText(appendText(nil, 1, k), 2, m.Metadata[k]))
	}
	if len(out) > maxProtobuf {
		return nil, fmt.Errorf("write ONNX model: %d bytes, more than one file may hold: %w", len(out), engine.ErrTooLarge)
	}
	return out, nil
}

func appendVarint(b []byte, id protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), v)
}

func appendMessage(b []byte, id protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), m)
}

func encodeNode(n *graph.Node) ([]byte, error) {
	var b []byte
	for _, in := range n.Inputs {
		b = appendText(b, nodeInput, in)
	}
	for _, out := range n.Outputs {
		b = appendText(b, nodeOutput, out)
	}
	b = appendText(appendText(b, nodeName, n.Name), nodeOp, n.Op)
	for _, name := range slices.Sorted(maps.Keys(n.Attrs)) {
		a, err := encodeAttribute(name, n.Attrs[name])
		if err != nil {
			return nil, err
		}
		b = appendMessage(b, nodeAttr, a)
	}
	if n.Domain != graph.DomainONNX {
		b = appendText(b, 7, n.Domain)
	}
	return b, nil
}

func encodeAttribute(name string, a graph.Attr) ([]byte, error) {
	b := appendText(nil, attrName, name)
	switch a.Kind {
	case graph.AttrInt:
		return appendVarint(appendVarint(b, attrInt, uint64(a.Int)), attrKind, 2), nil
	case graph.AttrFloat:
		b = protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(a.Float))
		return appendVarint(b, attrKind, 1), nil
	case graph.AttrString:
		return appendVarint(appendText(b, 4, a.String), attrKind, 3), nil
	case graph.AttrInts:
		return encodeAttr(name, a.Ints)
	case graph.AttrFloats:
		return encodeAttr(name, a.Floats)
	case graph.AttrStrings:
		return encodeAttr(name, a.Strings)
	}
	return nil, fmt.Errorf("attribute %q is of a kind that is not written", name)
}

// encodeAnyTensor is encodeTensor, for text too.
func encodeAnyTensor(name string, t *engine.Tensor) ([]byte, error) {
	if t.DType() != engine.String {
		return encodeTensor(nil, name, t)
	}
	var b []byte
	for _, d := range t.Shape() {
		b = appendVarint(b, 1, uint64(d))
	}
	b = appendVarint(b, 2, 8)
	for _, s := range engine.Data[string](t) {
		b = appendText(b, 6, s)
	}
	return appendText(b, 8, name), nil
}

// encodeValue declares an input or output; dimensions that vary are all called N.
func encodeValue(s engine.Spec) []byte {
	var shape []byte
	for _, d := range s.Shape {
		dim := appendText(nil, 2, "N")
		if d >= 0 {
			dim = appendVarint(nil, 1, uint64(d))
		}
		shape = appendMessage(shape, 1, dim)
	}
	d := onnxType(s.DType)
	if s.DType == engine.String {
		d = 8
	}
	tensor := appendMessage(appendVarint(nil, 1, uint64(d)), 2, shape)
	return appendMessage(appendText(nil, 1, s.Name), 2, appendMessage(nil, 1, tensor))
}
