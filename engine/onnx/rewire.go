package onnx

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// SetInput has a node read another value as its input i; one behind its last is
// added.
func (f *File) SetInput(n *FileNode, i int, name string) error {
	if i == len(n.Inputs) {
		return n.take(appendText(slices.Clone(n.record.body), nodeInput, name))
	}
	return n.rename(nodeInput, i, name)
}

// SetOutput has a node give its output i another name.
func (f *File) SetOutput(n *FileNode, i int, name string) error {
	return n.rename(nodeOutput, i, name)
}

// rename gives the i-th field of that number another text.
func (n *FileNode) rename(id protowire.Number, i int, name string) error {
	at := 0
	body, err := rewrite("node", n.record.body, func(r *record, _ field) error {
		if r.id != id {
			return nil
		}
		if at == i {
			r.set([]byte(name))
		}
		at++
		return nil
	})
	if err == nil && (i < 0 || i >= at) {
		err = fmt.Errorf("node %q (%s) has no place %d", n.Name, n.Op, i)
	}
	if err != nil {
		return err
	}
	return n.take(body)
}

// take makes body the node's.
func (n *FileNode) take(body []byte) error {
	p, err := decodeNode(body, 0)
	if err != nil {
		return err
	}
	n.record.set(body)
	n.proto, n.Inputs, n.Outputs = p, p.inputs, p.outputs
	return nil
}

// Insert adds nodes right behind another, or before all where that is nil. They are
// not among Nodes.
func (f *File) Insert(behind *FileNode, nodes ...NewNode) {
	for _, n := range nodes {
		r := &record{id: graphNode}
		r.set(n.encode())
		if behind != nil {
			behind.record.after = append(behind.record.after, r)
		} else {
			f.first = append(f.first, r)
		}
	}
}

// Remove takes a node out; nobody may read what it makes.
func (f *File) Remove(n *FileNode) {
	n.record.gone = true
	f.nodes = slices.DeleteFunc(f.nodes, func(o *FileNode) bool { return o == n })
}

// Drop takes a weight out, and its declaration as an input; nobody may read it.
func (f *File) Drop(w *Weight) {
	w.record.gone = true
	f.dropInput(w.Name)
	delete(f.byName, w.Name)
	f.weights = slices.DeleteFunc(f.weights, func(o *Weight) bool { return o == w })
	if w.constant {
		f.nodes = slices.DeleteFunc(f.nodes, func(o *FileNode) bool { return o.record == w.record })
	}
}

// The fields of a model that say which operators it uses.
const (
	modelOpset     = 8
	modelFunctions = 25
	opsetDomain    = 1
	opsetVersion   = 2
)

// irOpset13 is the first version of the file format that came with operator set 13.
const irOpset13 = 7

// Operators lists the operators of ai.onnx that the file's graphs use, those of
// graphs within others too; ok is false where functions of the file's own use some.
func (f *File) Operators() (ops map[string]bool, ok bool) {
	ops = map[string]bool{}
	for _, n := range f.nodes {
		operators(n.proto, ops)
	}
	for i := range f.head {
		if f.head[i].id == modelFunctions {
			return ops, false
		}
	}
	return ops, true
}

func operators(n *nodeProto, ops map[string]bool) {
	if n.domain == "" {
		ops[n.op] = true
	}
	for _, a := range n.attrs {
		if a.graph == nil {
			continue
		}
		for _, inner := range a.graph.nodes {
			operators(inner, ops)
		}
	}
}

// Raise has the file import a later operator set of ai.onnx. That its operators mean
// the same there is the caller's to know.
func (f *File) Raise(version int) error {
	for i := range f.head {
		r := &f.head[i]
		if r.id != modelOpset {
			continue
		}
		domain := ""
		if err := eachField("operator set", r.body, func(v field) error {
			if v.id == opsetDomain {
				domain = string(v.data)
			}
			return nil
		}); err != nil {
			return err
		}
		if domain != "" && domain != "ai.onnx" {
			continue
		}
		body := protowire.AppendVarint(protowire.AppendTag(appendText(nil, opsetDomain, domain), opsetVersion, protowire.VarintType), uint64(version))
		r.set(body)
		f.opsets[""] = version
		f.ir = max(f.ir, irOpset13)
		return nil
	}
	return fmt.Errorf("the file imports no operator set of ai.onnx")
}
