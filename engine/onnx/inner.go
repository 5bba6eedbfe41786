package onnx

import (
	"bytes"
)

// inner is a graph in an attribute of a node, taken apart.
type inner struct {
	node *FileNode
	at   int // among the node's graphs
	body []byte
	file *File
}

// Graphs returns the main graph and those within its nodes (the branches of an If, the
// body of a Loop), the outer ones first. Each is a File whose weights and nodes can be
// changed; it is written where it stands by the Bytes of the main one.
func (f *File) Graphs() ([]*File, error) { return f.graphs(0) }

func (f *File) graphs(depth int) ([]*File, error) {
	list := []*File{f}
	if depth == maxNesting {
		return list, nil
	}
	if !f.opened {
		f.opened = true
		for _, n := range f.nodes {
			if err := f.open(n); err != nil {
				return nil, err
			}
		}
	}
	for i := range f.inner {
		within, err := f.inner[i].file.graphs(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, within...)
	}
	return list, nil
}

// open takes the graphs of a node apart.
func (f *File) open(n *FileNode) error {
	var protos []*graphProto
	for _, a := range n.proto.attrs {
		if a.graph != nil {
			protos = append(protos, a.graph)
		}
	}
	if len(protos) == 0 {
		return nil
	}
	_, err := n.eachGraph(func(at int, body []byte) ([]byte, error) {
		if at >= len(protos) {
			return nil, nil
		}
		g := &File{
			opsets: f.opsets, ir: f.ir, names: f.names, outer: f, Within: n,
			inputs: map[string]*record{}, shapes: map[string]*record{}, byName: map[string]*Weight{},
		}
		for _, o := range protos[at].outputs {
			g.outputs = append(g.outputs, o.name)
		}
		f.inner = append(f.inner, inner{node: n, at: at, body: body, file: g})
		return nil, g.takeGraph(body)
	})
	return err
}

// eachGraph calls change for each of a node's graphs, and returns the node with what that
// gave in their places; nil leaves one as it is.
func (n *FileNode) eachGraph(change func(at int, body []byte) ([]byte, error)) ([]byte, error) {
	at := 0
	return rewrite("node", n.record.body, func(r *record, _ field) error {
		if r.id != nodeAttr {
			return nil
		}
		changed := false
		attr, err := rewrite("attribute", r.body, func(a *record, _ field) error {
			if a.id != attrGraph {
				return nil
			}
			body, err := change(at, a.body)
			at++
			if body != nil {
				a.set(body)
				changed = true
			}
			return err
		})
		if changed {
			r.set(attr)
		}
		return err
	})
}

// putBack writes the inner graphs that were changed into their nodes.
func (f *File) putBack() error {
	for i := range f.inner {
		in := &f.inner[i]
		if err := in.file.putBack(); err != nil {
			return err
		}
		body := in.file.graphBytes()
		if bytes.Equal(body, in.body) {
			continue
		}
		node, err := in.node.eachGraph(func(at int, _ []byte) ([]byte, error) {
			if at != in.at {
				return nil, nil
			}
			return body, nil
		})
		if err != nil {
			return err
		}
		if err := in.node.take(node); err != nil {
			return err
		}
		in.body = body
		f.ir = max(f.ir, in.file.ir)
	}
	return nil
}
