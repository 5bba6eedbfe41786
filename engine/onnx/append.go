package onnx

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

const graphOutput = 12

// Append adds constants and nodes behind those of the graph, and declares what they
// make in place of the output called from, which stays an inner value. Their names
// are from Fresh.
func (f *File) Append(nodes []*graph.Node, constants map[string]*engine.Tensor, from string, to engine.Spec) error {
	at := slices.Index(f.outputs, from)
	if at < 0 {
		return fmt.Errorf("the model has no output %q", from)
	}
	for _, r := range f.graph {
		if r.id != graphOutput || r.gone {
			continue
		}
		v, err := decodeValue(r.body)
		if err != nil {
			return err
		}
		if v.name == from {
			r.set(encodeValue(to))
		}
	}
	f.outputs[at] = to.Name
	for _, name := range slices.Sorted(maps.Keys(constants)) {
		if err := f.AddWeight(name, constants[name]); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		body, err := encodeNode(n)
		if err != nil {
			return fmt.Errorf("write ONNX node %q (%s): %w", n.Label(), n.Title(), err)
		}
		r := &record{id: graphNode}
		r.set(body)
		f.graph = append(f.graph, r)
	}
	return nil
}
