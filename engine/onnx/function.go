package onnx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// The bounds of writing functions out: how deep they may call each other, and how
// many nodes a model may come to.
const (
	maxCalls   = 64
	maxWritten = 1 << 17
)

// functionProto is an operator that the model itself defines by others.
type functionProto struct {
	id              functionID
	inputs, outputs []string
	defaults        []*attrProto
	nodes           []*nodeProto
	opsets          map[string]int
}

// functionID is what a node names a function by.
type functionID struct{ domain, name, overload string }

func decodeFunction(b []byte) (*functionProto, error) {
	fn := &functionProto{}
	m := &modelProto{opsets: map[string]int{}}
	err := eachField("function", b, func(f field) error {
		switch f.id {
		case 1:
			fn.id.name = f.str()
		case 4:
			fn.inputs = append(fn.inputs, f.str())
		case 5:
			fn.outputs = append(fn.outputs, f.str())
		case 7:
			n, err := decodeNode(f.data, 0)
			fn.nodes = append(fn.nodes, n)
			return err
		case 9:
			return m.opset(f.data)
		case 10:
			fn.id.domain = f.str()
		case 11:
			a, err := decodeAttr(f.data, 0)
			fn.defaults = append(fn.defaults, a)
			return err
		case 13:
			fn.id.overload = f.str()
		}
		return nil
	})
	if fn.id.domain == "ai.onnx" {
		fn.id.domain = ""
	}
	fn.opsets = m.opsets
	return fn, err
}

// scope is where a node stands: the operator sets it is written in, the parameters
// its attributes may refer to, and the calls that lead to it.
type scope struct {
	opsets map[string]int
	params map[string]*attrProto
	calls  []functionID
}

// call writes out a node that names a function of the model's own: the function's
// nodes, under names of this call's own.
func (p *modelProto) call(n *nodeProto, fn *functionProto, at scope, dir string) ([]*graph.Node, error) {
	if slices.Contains(at.calls, fn.id) {
		return nil, corrupt("function %q calls itself", fn.id.name)
	}
	if len(at.calls) >= maxCalls {
		return nil, fmt.Errorf("functions that call each other %d deep: %w", maxCalls, engine.ErrTooLarge)
	}
	if len(n.inputs) > len(fn.inputs) || len(n.outputs) > len(fn.outputs) {
		return nil, corrupt("node %q gives function %q %d inputs and %d outputs", n.name, fn.id.name, len(n.inputs), len(n.outputs))
	}
	p.called++
	prefix := "call" + strconv.Itoa(p.called) + "/" + n.name + "/"
	names := map[string]string{"": ""}
	for i, name := range fn.inputs {
		names[name] = ""
		if i < len(n.inputs) {
			names[name] = n.inputs[i]
		}
	}
	var direct [][2]string // outputs that are inputs, or the same as another
	for i, name := range fn.outputs {
		to := ""
		if i < len(n.outputs) {
			to = n.outputs[i]
		}
		if from, taken := names[name]; taken && to != "" {
			direct = append(direct, [2]string{from, to})
		} else if to != "" {
			names[name] = to
		}
	}
	inner := scope{opsets: fn.opsets, params: n.params(fn, at), calls: append(slices.Clone(at.calls), fn.id)}
	var out []*graph.Node
	for _, body := range fn.nodes {
		nodes, err := p.nodeIn(body.renamed(names, prefix), inner, dir)
		if err != nil {
			return nil, err
		}
		out = append(out, nodes...)
		if p.written += len(nodes) + 1; p.written > maxWritten {
			return nil, fmt.Errorf("functions written out to more than %d nodes: %w", maxWritten, engine.ErrTooLarge)
		}
	}
	for _, d := range direct {
		out = append(out, &graph.Node{Name: prefix + d[1], Op: "Identity", Version: 14, Inputs: d[:1:1], Outputs: d[1:], Attrs: graph.Attrs{}})
	}
	return out, nil
}

// renamed is a node of a function under the names of one call: those in names, the
// others behind the prefix.
func (n *nodeProto) renamed(names map[string]string, prefix string) *nodeProto {
	own := *n
	own.name = prefix + n.name
	all := func(list []string) []string {
		out := make([]string, len(list))
		for i, name := range list {
			to, ok := names[name]
			if !ok {
				to = prefix + name
			}
			out[i] = to
		}
		return out
	}
	own.inputs, own.outputs = all(n.inputs), all(n.outputs)
	own.attrs = make([]*attrProto, len(n.attrs))
	for i, a := range n.attrs {
		own.attrs[i] = a
		if a.graph != nil {
			inner := *a
			inner.graph = a.graph.renamed(names, prefix)
			own.attrs[i] = &inner
		}
	}
	return &own
}

// renamed is a graph within a node of a function. What it makes itself stands behind the
// prefix as well: under its own name it could be taken for a value of the caller's.
func (g *graphProto) renamed(names map[string]string, prefix string) *graphProto {
	own := *g
	inner := maps.Clone(names)
	own.inputs = make([]*valueProto, len(g.inputs))
	for i, v := range g.inputs {
		inner[v.name] = prefix + v.name
		named := *v
		named.name = inner[v.name]
		own.inputs[i] = &named
	}
	own.initializers = make([]*tensorProto, len(g.initializers))
	for i, t := range g.initializers {
		inner[t.name] = prefix + t.name
		named := *t
		named.name = inner[t.name]
		own.initializers[i] = &named
	}
	own.sparse = make([]*sparseProto, len(g.sparse))
	for i, t := range g.sparse {
		named := *t
		if t.values != nil {
			values := *t.values
			inner[values.name] = prefix + values.name
			values.name = inner[values.name]
			named.values = &values
		}
		own.sparse[i] = &named
	}
	for _, n := range g.nodes {
		for _, out := range n.outputs {
			inner[out] = prefix + out
		}
	}
	inner[""] = ""
	own.nodes = make([]*nodeProto, len(g.nodes))
	for i, n := range g.nodes {
		own.nodes[i] = n.renamed(inner, prefix)
	}
	own.outputs = make([]*valueProto, len(g.outputs))
	for i, v := range g.outputs {
		named := *v
		to, ok := inner[v.name]
		if !ok {
			to = prefix + v.name
		}
		named.name = to
		own.outputs[i] = &named
	}
	return &own
}

// params are the values that the attributes of a function's nodes may refer to: what
// the call gives, then the function's defaults.
func (n *nodeProto) params(fn *functionProto, at scope) map[string]*attrProto {
	params := map[string]*attrProto{}
	for _, a := range fn.defaults {
		params[a.name] = a
	}
	for _, a := range n.attrs {
		if a = a.resolved(at.params); a != nil {
			params[a.name] = a
		}
	}
	return params
}

// resolved is an attribute with the value of the parameter that it refers to, nil
// where the call leaves that out.
func (a *attrProto) resolved(params map[string]*attrProto) *attrProto {
	if a.ref == "" {
		return a
	}
	value := params[a.ref]
	if value == nil {
		return nil
	}
	own := *value
	own.name = a.name
	return &own
}
