// Package graph runs models that are a graph of tensor operators, as ONNX files
// describe them. It owns the graph's form (Graph, Node, Attrs), its checking and
// ordering (Compile), the operators' kernels, and their execution within a
// memory limit.
//
// It reads no files (see engine/onnx) and differentiates nothing (see
// engine/autodiff, which walks a Run's kept values).
//
// Invariants: a Program is immutable and safe for concurrent use; every operator,
// version, attribute and element type it holds is one that its kernel implements
// in full, so what is not supported is refused by Compile and never ignored; a
// kernel never changes its inputs; an allocation is checked against the limit
// before it is made.
package graph

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// The domains of operators. The empty domain is ONNX's default one.
const (
	DomainONNX = ""
	DomainML   = "ai.onnx.ml"
	// DomainPreview and DomainTraining hold what ONNX tries out.
	DomainPreview  = "ai.onnx.preview"
	DomainTraining = "ai.onnx.preview.training"
	// DomainLocal holds operators that a reader makes out of others, such as the
	// scores of a linear classifier apart from their transformation.
	DomainLocal = "pellucid"
)

// Graph is a model as it was read: values named by strings, nodes in any order.
type Graph struct {
	Inputs []engine.Spec
	// Outputs names the values that are returned when nothing is asked for.
	Outputs []string
	// OutputSpecs is what a graph within another declares of its outputs, in order;
	// it may be shorter, or nil.
	OutputSpecs []engine.Spec
	Nodes       []*Node
	// Constants holds initialisers by name.
	Constants map[string]*engine.Tensor
}

// Node is one application of an operator.
type Node struct {
	Name, Domain, Op string
	// Version is the operator set the model was written for; it decides which
	// definition of the operator holds.
	Version int
	// Inputs and Outputs name values; an empty name is an optional one left out.
	Inputs, Outputs []string
	Attrs           Attrs
	// Captured counts the last Inputs, which the node's inner graphs read by name
	// from outside; see Capture.
	Captured int
}

// Label is how a node is named to people: its own name, or its first output's.
func (n *Node) Label() string {
	if n.Name != "" {
		return n.Name
	}
	for _, o := range n.Outputs {
		if o != "" {
			return o
		}
	}
	return n.Op
}

// Title is the operator with its domain.
func (n *Node) Title() string {
	if n.Domain == DomainONNX {
		return n.Op
	}
	return n.Domain + "." + n.Op
}

func (n *Node) unsupported(format string, args ...any) error {
	return &engine.UnsupportedError{
		What: "operator " + n.Title(), Version: fmt.Sprint(n.Version),
		Node: n.Label(), Reason: fmt.Sprintf(format, args...),
	}
}

func (n *Node) corrupt(format string, args ...any) error {
	return fmt.Errorf("node %q (%s): %s: %w", n.Label(), n.Title(), fmt.Sprintf(format, args...), engine.ErrCorrupt)
}

// AttrKind says which field of an Attr holds.
type AttrKind uint8

// The kinds of attribute.
const (
	AttrInvalid AttrKind = iota
	AttrFloat
	AttrInt
	AttrString
	AttrTensor
	AttrFloats
	AttrInts
	AttrStrings
	AttrGraph
	// AttrType is a type, which values carry themselves.
	AttrType
)

// Attr is the value of one attribute.
type Attr struct {
	Kind    AttrKind
	Float   float32
	Int     int64
	String  string
	Tensor  *engine.Tensor
	Floats  []float32
	Ints    []int64
	Strings []string
	Graph   *Graph
}

// Attrs holds a node's attributes by name.
type Attrs map[string]Attr

// attrReader reads a node's attributes for a kernel's builder. The first error
// sticks, and done refuses attributes that nobody read: an attribute without
// effect would be a silently wrong number.
type attrReader struct {
	node *Node
	read map[string]bool
	err  error
}

func (r *attrReader) get(name string, kind AttrKind) (Attr, bool) {
	r.read[name] = true
	a, ok := r.node.Attrs[name]
	if ok && a.Kind != kind {
		if r.err == nil {
			r.err = r.node.corrupt("attribute %q has the wrong type", name)
		}
		return Attr{}, false
	}
	return a, ok
}

func (r *attrReader) int(name string, def int) int {
	if a, ok := r.get(name, AttrInt); ok {
		return int(a.Int)
	}
	return def
}

func (r *attrReader) float(name string, def float64) float64 {
	if a, ok := r.get(name, AttrFloat); ok {
		return float64(a.Float)
	}
	return float64(float32(def)) // as if it were given
}

func (r *attrReader) string(name, def string) string {
	if a, ok := r.get(name, AttrString); ok {
		return a.String
	}
	return def
}

func (r *attrReader) ints(name string) []int64 {
	a, _ := r.get(name, AttrInts)
	return a.Ints
}

func (r *attrReader) floats(name string) []float32 {
	a, _ := r.get(name, AttrFloats)
	return a.Floats
}

func (r *attrReader) strings(name string) []string {
	a, _ := r.get(name, AttrStrings)
	return a.Strings
}

func (r *attrReader) tensor(name string) *engine.Tensor {
	a, _ := r.get(name, AttrTensor)
	return a.Tensor
}

func (r *attrReader) graph(name string) (*Graph, error) {
	a, ok := r.get(name, AttrGraph)
	if !ok || a.Graph == nil {
		return nil, r.node.unsupported("attribute %q holds no graph, or one nested too deeply", name)
	}
	return a.Graph, nil
}

func (r *attrReader) has(name string) bool {
	_, ok := r.node.Attrs[name]
	return ok
}

// ignore marks attributes that change no number at inference.
func (r *attrReader) ignore(names ...string) {
	for _, n := range names {
		r.read[n] = true
	}
}

func (r *attrReader) done() error {
	if r.err != nil {
		return r.err
	}
	for name := range r.node.Attrs {
		if !r.read[name] {
			return r.node.unsupported("attribute %q", name)
		}
	}
	return nil
}
