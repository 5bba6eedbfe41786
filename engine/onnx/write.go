package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of the messages that are written.
const (
	modelIRVersion = 1
	modelGraph     = 7

	graphNode        = 1
	graphInitializer = 5
	graphInput       = 11
	graphValueInfo   = 13

	nodeInput  = 1
	nodeOutput = 2
	nodeName   = 3
	nodeOp     = 4
	nodeAttr   = 5

	attrName   = 1
	attrInt    = 3
	attrTensor = 5
	attrGraph  = 6
	attrFloats = 7
	attrInts   = 8
	attrTexts  = 9
	attrKind   = 20
)

// irInitializers is the first version of the file format in which an initialiser
// need not be an input of the graph as well.
const irInitializers = 4

// File is an ONNX file taken apart, so that parts of its main graph can be changed
// and the whole be written again. What is not changed is written byte for byte
// as it was read, fields this package does not know included; only tensors kept in
// files beside the model are put inside it.
//
// A File belongs to one goroutine. It keeps the bytes it was made of, which must
// not be changed.
type File struct {
	head  []record // the model's fields; the graph's stands for graph
	graph []*record
	first []*record // nodes that come before all others
	// inputs and shapes are what the graph says of its inputs and inner values.
	inputs, shapes map[string]*record
	byName         map[string]*Weight
	opsets         map[string]int
	ir             int
	names          map[string]bool
	outputs        []string
	weights        []*Weight
	nodes          []*FileNode
	outside        int
	// Within is the node that holds this graph, nil of a main one; outer is the graph
	// that the node stands in.
	Within *FileNode
	outer  *File
	inner  []inner
	opened bool
}

// record is one field of a message: raw is what was read, tag and all, nil where it
// was changed, and body the value of one that has a length.
type record struct {
	id        protowire.Number
	raw, body []byte
	gone      bool
	after     []*record // what was added behind it
}

func (r *record) set(body []byte) { r.body, r.raw = body, nil }

// Weight is a tensor that the main graph holds: an initialiser, or the value of a
// Constant node.
type Weight struct {
	Name  string
	DType engine.DType
	Shape []int
	// Len is the number of elements, Bytes their size in the file.
	Len, Bytes int
	proto      *tensorProto
	record     *record
	constant   bool // the record is a Constant node's
}

// FileNode is a node of the main graph. Its fields are for reading.
type FileNode struct {
	Name, Op, Domain string
	Inputs, Outputs  []string
	proto            *nodeProto
	record           *record
}

// NewNode is a node to be added.
type NewNode struct {
	Name, Op        string
	Inputs, Outputs []string
	// Ints are its attributes, each one integer.
	Ints map[string]int64
}

// Edit takes the ONNX file in data apart. dir is the folder of its external data.
// The file must be one that Read accepts in form: what is damaged, or too large to
// stand in one file, is refused.
func Edit(data []byte, dir string) (*File, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("a model of %d bytes: %w", len(data), engine.ErrTooLarge)
	}
	whole, err := decodeModel(data)
	if err != nil {
		return nil, fmt.Errorf("decode ONNX model: %w", err)
	}
	f := &File{
		opsets: whole.opsets, names: map[string]bool{},
		inputs: map[string]*record{}, shapes: map[string]*record{}, byName: map[string]*Weight{},
	}
	f.nameAll(whole.graph)
	for _, o := range whole.graph.outputs {
		f.outputs = append(f.outputs, o.name)
	}
	in := &inliner{dir: dir}
	err = eachRecord("model", data, func(r *record, v field) error {
		if r.id == modelIRVersion {
			f.ir = int(min(v.num, math.MaxInt32))
		}
		f.head = append(f.head, *r)
		if r.id != modelGraph {
			return nil
		}
		body, _, err := in.graph(r.body)
		if err != nil {
			return err
		}
		f.outside = in.total
		return f.takeGraph(body)
	})
	if err != nil {
		return nil, fmt.Errorf("take ONNX model apart: %w", err)
	}
	return f, nil
}

// nameAll notes every name of a graph and of those within it.
func (f *File) nameAll(g *graphProto) {
	for _, v := range slices.Concat(g.inputs, g.outputs) {
		f.names[v.name] = true
	}
	for _, t := range g.initializers {
		f.names[t.name] = true
	}
	for _, n := range g.nodes {
		f.names[n.name] = true
		for _, name := range slices.Concat(n.inputs, n.outputs) {
			f.names[name] = true
		}
		for _, a := range n.attrs {
			if a.graph != nil {
				f.nameAll(a.graph)
			}
		}
	}
}

// eachRecord calls f for every field of message b with its bytes.
func eachRecord(what string, b []byte, f func(*record, field) error) error {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return corrupt("decode %s: a field is truncated or of an unknown kind", what)
		}
		raw := b[:n:n]
		b = b[n:]
		err := eachField(what, raw, func(v field) error { return f(&record{id: v.id, raw: raw, body: v.data}, v) })
		if err != nil {
			return err
		}
	}
	return nil
}

// append writes the record behind out.
func (r *record) append(out []byte) []byte {
	if r.gone {
		return out
	}
	if r.raw != nil {
		return append(out, r.raw...)
	}
	return protowire.AppendBytes(protowire.AppendTag(out, r.id, protowire.BytesType), r.body)
}

func (f *File) takeGraph(body []byte) error {
	return eachRecord("graph", body, func(r *record, v field) error {
		f.graph = append(f.graph, r)
		switch r.id {
		case graphInput, graphValueInfo:
			v, err := decodeValue(r.body)
			if err != nil {
				return err
			}
			if r.id == graphInput {
				f.inputs[v.name] = r
			} else {
				f.shapes[v.name] = r
			}
		case graphInitializer:
			t, err := decodeTensor(r.body)
			if err != nil {
				return err
			}
			return f.weigh(t, t.name, r, false)
		case graphNode:
			n, err := decodeNode(r.body, 0)
			if err != nil {
				return err
			}
			f.nodes = append(f.nodes, &FileNode{Name: n.name, Op: n.op, Domain: n.domain, Inputs: n.inputs, Outputs: n.outputs, proto: n, record: r})
			if n.op != "Constant" || n.domain != "" || len(n.outputs) != 1 {
				return nil
			}
			for _, a := range n.attrs {
				if a.name == "value" && a.t != nil {
					return f.weigh(a.t, n.outputs[0], r, true)
				}
			}
		}
		return nil
	})
}

func (f *File) weigh(t *tensorProto, name string, r *record, constant bool) error {
	w := &Weight{Name: name, DType: graph.TypeOfONNX(t.dtype), proto: t, record: r, constant: constant, Bytes: len(r.body)}
	if len(t.dims) > maxDims {
		return corrupt("tensor %q has %d dimensions", name, len(t.dims))
	}
	for _, d := range t.dims {
		w.Shape = append(w.Shape, int(d))
	}
	n, err := engine.Elements(w.Shape)
	if err != nil {
		return corrupt("tensor %q: %v", name, err)
	}
	w.Len = n
	f.weights = append(f.weights, w)
	f.byName[name] = w
	return nil
}

// Outside returns how many bytes of the file's tensors stood in files beside it.
func (f *File) Outside() int { return f.outside }

// Opset returns the version of a domain's operator set that the file imports, 0
// where it imports none.
func (f *File) Opset(domain string) int { return f.opsets[domain] }

// Weights returns the tensors of the graph, in the file's order.
func (f *File) Weights() []*Weight { return f.weights }

// Weight returns the tensor called name, of the graph or of one around it, or nil.
func (f *File) Weight(name string) *Weight {
	for ; f != nil; f = f.outer {
		if w := f.byName[name]; w != nil {
			return w
		}
	}
	return nil
}

// Nodes returns the nodes of the graph, in the file's order.
func (f *File) Nodes() []*FileNode { return f.nodes }

// Outputs returns the names of the graph's outputs.
func (f *File) Outputs() []string { return f.outputs }

// Readers returns how often each name is read: by nodes, by the graphs inside
// them, or as an output.
func (f *File) Readers() map[string]int {
	count := map[string]int{}
	for _, o := range f.outputs {
		count[o]++
	}
	for _, n := range f.nodes {
		countReads(n.proto, count)
	}
	return count
}

func countReads(n *nodeProto, count map[string]int) {
	for _, in := range n.inputs {
		count[in]++
	}
	for _, a := range n.attrs {
		if a.graph == nil {
			continue
		}
		for _, o := range a.graph.outputs {
			count[o.name]++
		}
		for _, inner := range a.graph.nodes {
			countReads(inner, count)
		}
	}
}

// Value decodes a weight.
func (w *Weight) Value() (*engine.Tensor, error) { return w.proto.tensor("") }

// Replace gives a weight other values, and with them perhaps another shape or
// element type; the rest of the graph has to fit.
func (f *File) Replace(w *Weight, t *engine.Tensor) error { return f.put(w, w.Name, t) }

// put writes a weight under a name.
func (f *File) put(w *Weight, name string, t *engine.Tensor) error {
	var body []byte
	var err error
	if w.constant {
		body, err = constantNode(w.record.body, name, t)
	} else {
		body, err = encodeTensor(w.record.body, name, t)
	}
	if err != nil {
		return err
	}
	w.record.set(body)
	w.Name, w.DType, w.Shape, w.Len, w.Bytes = name, t.DType(), slices.Clone(t.Shape()), t.Len(), len(body)
	raw, err := rawOf(t)
	w.proto = &tensorProto{name: name, dtype: onnxType(t.DType()), raw: raw, hasRaw: true, dims: dimsOf(t)}
	return err
}

// constantNode writes a Constant node anew, with another output and value.
func constantNode(body []byte, output string, t *engine.Tensor) ([]byte, error) {
	return rewrite("node", body, func(r *record, _ field) error {
		switch r.id {
		case nodeOutput:
			r.set([]byte(output))
		case nodeAttr:
			a, err := constantAttr(r.body, t)
			if err != nil {
				return err
			}
			r.set(a)
		}
		return nil
	})
}

// constantAttr writes the attribute of a Constant node anew.
func constantAttr(body []byte, t *engine.Tensor) ([]byte, error) {
	return rewrite("attribute", body, func(r *record, _ field) error {
		if r.id != attrTensor {
			return nil
		}
		b, err := encodeTensor(r.body, "", t)
		if err != nil {
			return err
		}
		r.set(b)
		return nil
	})
}

// Derive makes a weight be computed: it is kept as t under a name of its own, and
// the nodes that build makes of that name compute what was called by the weight's
// name. Nothing that reads the weight changes.
func (f *File) Derive(w *Weight, suffix string, t *engine.Tensor, build func(from, to string) []NewNode) error {
	to := w.Name
	from := f.Fresh(to + suffix)
	if err := f.put(w, from, t); err != nil {
		return err
	}
	delete(f.byName, to)
	f.byName[from] = w
	f.dropInput(to)
	for _, n := range build(from, to) {
		r := &record{id: graphNode}
		r.set(n.encode())
		if w.constant {
			w.record.after = append(w.record.after, r)
		} else {
			f.first = append(f.first, r)
		}
	}
	return nil
}

// Fresh returns a name that the file does not use, and takes it.
func (f *File) Fresh(name string) string {
	for f.names[name] {
		name += "_"
	}
	f.names[name] = true
	return name
}

// AddWeight adds an initialiser under a name from Fresh.
func (f *File) AddWeight(name string, t *engine.Tensor) error {
	body, err := encodeAnyTensor(name, t)
	if err != nil {
		return err
	}
	r := &record{id: graphInitializer}
	r.set(body)
	f.graph = append(f.graph, r)
	f.ir = max(f.ir, irInitializers)
	proto, err := decodeTensor(body)
	if err != nil {
		return err
	}
	return f.weigh(proto, name, r, false)
}

// dropInput removes the graph input by which an initialiser could be given other
// values: files before version 4 of the format declare all of them so.
func (f *File) dropInput(name string) {
	if r := f.inputs[name]; r != nil && !r.gone {
		r.gone = true
		f.ir = max(f.ir, irInitializers)
	}
}

// Reshaped forgets what the file says of the shapes of inner values, and of the
// weights declared as inputs, because they have changed.
func (f *File) Reshaped(names ...string) {
	for _, name := range names {
		if r := f.shapes[name]; r != nil {
			r.gone = true
		}
		if f.byName[name] != nil {
			f.dropInput(name)
		}
	}
}

// Number returns an attribute of one number, or def where the node has none of that
// name.
func (n *FileNode) Number(name string, def float64) float64 {
	for _, a := range n.proto.attrs {
		switch {
		case a.name != name:
		case a.kind == 1 || a.kind == 0 && a.f != 0:
			return float64(a.f)
		case a.kind == 2 || a.kind == 0:
			return float64(a.i)
		}
	}
	return def
}

// Attr returns an attribute that is a list; ok is false where the node has none of
// that name.
func (n *FileNode) Attr(name string) (ints []int64, floats []float32, texts []string, ok bool) {
	for _, a := range n.proto.attrs {
		if a.name == name {
			return a.ints, a.floats, a.strings, true
		}
	}
	return nil, nil, nil, false
}

// Text returns an attribute of one text, "" where the node has none of that name.
func (n *FileNode) Text(name string) string {
	for _, a := range n.proto.attrs {
		if a.name == name {
			return a.s
		}
	}
	return ""
}

// AttrNames lists the attributes of a node, in the file's order.
func (n *FileNode) AttrNames() []string {
	var out []string
	for _, a := range n.proto.attrs {
		out = append(out, a.name)
	}
	return out
}

// AttrTensor returns a tensor attribute of a node, or nil.
func (n *FileNode) AttrTensor(name string) (*engine.Tensor, error) {
	for _, a := range n.proto.attrs {
		if a.name == name && a.t != nil {
			return a.t.tensor("")
		}
	}
	return nil, nil
}

// SetAttr gives an attribute that the node has another value: an int64, or a list of
// them, []float32, []string or a tensor.
func (n *FileNode) SetAttr(name string, v any) error {
	found := false
	body, err := rewrite("node", n.record.body, func(r *record, _ field) error {
		if r.id != nodeAttr {
			return nil
		}
		a, err := decodeAttr(r.body, maxNesting)
		if err != nil || a.name != name {
			return err
		}
		found = true
		b, err := encodeAttr(name, v)
		if err != nil {
			return err
		}
		r.set(b)
		return nil
	})
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("node %q (%s) has no attribute %q", n.Name, n.Op, name)
	}
	n.record.set(body)
	n.proto, err = decodeNode(body, 0)
	return err
}

// encodeAttr writes a list attribute.
func encodeAttr(name string, v any) ([]byte, error) {
	b := appendText(nil, attrName, name)
	kind := uint64(0)
	switch v := v.(type) {
	case int64:
		kind = 2
		b = protowire.AppendVarint(protowire.AppendTag(b, attrInt, protowire.VarintType), uint64(v))
	case []int64:
		kind = 7
		for _, i := range v {
			b = protowire.AppendVarint(protowire.AppendTag(b, attrInts, protowire.VarintType), uint64(i))
		}
	case []float32:
		kind = 6
		for _, f := range v {
			b = protowire.AppendFixed32(protowire.AppendTag(b, attrFloats, protowire.Fixed32Type), math.Float32bits(f))
		}
	case []string:
		kind = 8
		for _, s := range v {
			b = appendText(b, attrTexts, s)
		}
	case *engine.Tensor:
		kind = 4
		t, err := encodeTensor(nil, "", v)
		if err != nil {
			return nil, err
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, attrTensor, protowire.BytesType), t)
	default:
		return nil, fmt.Errorf("attribute %q: %T cannot be written", name, v)
	}
	return protowire.AppendVarint(protowire.AppendTag(b, attrKind, protowire.VarintType), kind), nil
}

// graphBytes writes the graph.
func (f *File) graphBytes() []byte {
	var g []byte
	for _, r := range f.all() {
		g = r.append(g)
	}
	return g
}

// Bytes writes the file.
func (f *File) Bytes() ([]byte, error) {
	if err := f.putBack(); err != nil {
		return nil, fmt.Errorf("write ONNX model: %w", err)
	}
	size := 0
	for _, r := range f.all() {
		size += max(len(r.raw), len(r.body)+16)
	}
	if size > maxFile {
		return nil, fmt.Errorf("write ONNX model: %d bytes, more than one file may hold: %w", size, engine.ErrTooLarge)
	}
	g := make([]byte, 0, size)
	for _, r := range f.all() {
		g = r.append(g)
	}
	out := make([]byte, 0, len(g)+1024)
	versioned := false
	for i := range f.head {
		switch r := &f.head[i]; r.id {
		case modelGraph:
			out = protowire.AppendBytes(protowire.AppendTag(out, modelGraph, protowire.BytesType), g)
		case modelIRVersion:
			versioned = true
			out = protowire.AppendVarint(protowire.AppendTag(out, modelIRVersion, protowire.VarintType), uint64(f.ir))
		default:
			out = r.append(out)
		}
	}
	if !versioned && f.ir > 0 {
		out = protowire.AppendVarint(protowire.AppendTag(out, modelIRVersion, protowire.VarintType), uint64(f.ir))
	}
	if len(out) > maxFile {
		return nil, fmt.Errorf("write ONNX model: %d bytes, more than one file may hold: %w", len(out), engine.ErrTooLarge)
	}
	return out, nil
}

// all lists the graph's fields in the order they are written.
func (f *File) all() []*record {
	out := make([]*record, 0, len(f.graph)+len(f.first))
	begun := false
	for _, r := range f.graph {
		if r.id == graphNode && !begun {
			out, begun = append(out, f.first...), true
		}
		out = append(append(out, r), r.after...)
	}
	if !begun {
		out = append(out, f.first...)
	}
	return out
}

func (n *NewNode) encode() []byte {
	var b []byte
	for _, in := range n.Inputs {
		b = appendText(b, nodeInput, in)
	}
	for _, out := range n.Outputs {
		b = appendText(b, nodeOutput, out)
	}
	b = appendText(appendText(b, nodeName, n.Name), nodeOp, n.Op)
	names := make([]string, 0, len(n.Ints))
	for name := range n.Ints {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := appendText(nil, attrName, name)
		a = protowire.AppendVarint(protowire.AppendTag(a, attrInt, protowire.VarintType), uint64(n.Ints[name]))
		a = protowire.AppendVarint(protowire.AppendTag(a, attrKind, protowire.VarintType), 2)
		b = protowire.AppendBytes(protowire.AppendTag(b, nodeAttr, protowire.BytesType), a)
	}
	return b
}

func appendText(b []byte, id protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, id, protowire.BytesType), s)
}

// rewrite writes message b anew, with each field as change leaves it.
func rewrite(what string, b []byte, change func(*record, field) error) ([]byte, error) {
	out := make([]byte, 0, len(b))
	err := eachRecord(what, b, func(r *record, v field) error {
		if err := change(r, v); err != nil {
			return err
		}
		out = r.append(out)
		return nil
	})
	return out, err
}

// tensorData are the fields of a tensor that say what it holds.
var tensorData = []protowire.Number{1, 2, 4, 5, 6, 7, 9, 10, 11, 13, 14}

// encodeTensor writes t with what else an earlier tensor says, its documentation for
// one, and its name where name is empty.
func encodeTensor(from []byte, name string, t *engine.Tensor) ([]byte, error) {
	d := onnxType(t.DType())
	if d == 0 {
		return nil, fmt.Errorf("a tensor of %s cannot be written", t.DType())
	}
	raw, err := rawOf(t)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(raw)+len(name)+64)
	for _, v := range t.Shape() {
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(v))
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(d))
	if name != "" {
		b = appendText(b, 8, name)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, 9, protowire.BytesType), raw)
	err = eachRecord("tensor", from, func(r *record, _ field) error {
		if !slices.Contains(tensorData, r.id) && (r.id != 8 || name == "") {
			b = r.append(b)
		}
		return nil
	})
	return b, err
}

func dimsOf(t *engine.Tensor) []int64 {
	out := make([]int64, len(t.Shape()))
	for i, v := range t.Shape() {
		out[i] = int64(v)
	}
	return out
}

// onnxType is the number of an element type in TensorProto.DataType, 0 for none.
func onnxType(d engine.DType) int {
	for n := 1; n <= 16; n++ {
		if graph.TypeOfONNX(n) == d && d != engine.String && d != engine.Invalid {
			return n
		}
	}
	return 0
}

// rawOf lays a tensor's elements out as raw_data, little endian.
func rawOf(t *engine.Tensor) ([]byte, error) {
	b := make([]byte, 0, t.Len()*max(t.DType().Size(), 1))
	le := binary.LittleEndian
	switch t.DType() {
	case engine.Bool:
		for _, v := range engine.Data[bool](t) {
			b = append(b, map[bool]byte{true: 1}[v])
		}
	case engine.Uint8:
		b = append(b, engine.Data[uint8](t)...)
	case engine.Int8:
		for _, v := range engine.Data[int8](t) {
			b = append(b, byte(v))
		}
	case engine.Uint16, engine.Float16, engine.BFloat16:
		for _, v := range engine.Data[uint16](t) {
			b = le.AppendUint16(b, v)
		}
	case engine.Int16:
		for _, v := range engine.Data[int16](t) {
			b = le.AppendUint16(b, uint16(v))
		}
	case engine.Uint32:
		for _, v := range engine.Data[uint32](t) {
			b = le.AppendUint32(b, v)
		}
	case engine.Int32:
		for _, v := range engine.Data[int32](t) {
			b = le.AppendUint32(b, uint32(v))
		}
	case engine.Uint64:
		for _, v := range engine.Data[uint64](t) {
			b = le.AppendUint64(b, v)
		}
	case engine.Int64:
		for _, v := range engine.Data[int64](t) {
			b = le.AppendUint64(b, uint64(v))
		}
	case engine.Float32:
		for _, v := range engine.Data[float32](t) {
			b = le.AppendUint32(b, math.Float32bits(v))
		}
	case engine.Float64:
		for _, v := range engine.Data[float64](t) {
			b = le.AppendUint64(b, math.Float64bits(v))
		}
	default:
		return nil, fmt.Errorf("a tensor of %s cannot be written", t.DType())
	}
	return b, nil
}

// inliner puts external data inside the tensors that refer to it.
type inliner struct {
	dir   string
	total int
}

// graph returns a graph whose tensors are all inside; changed is false, and the
// bytes the same, where they were.
func (in *inliner) graph(b []byte) (out []byte, changed bool, err error) {
	return in.within("graph", b, map[protowire.Number]func([]byte) ([]byte, bool, error){
		graphInitializer: in.tensor, graphNode: in.node,
	})
}

func (in *inliner) node(b []byte) ([]byte, bool, error) {
	return in.within("node", b, map[protowire.Number]func([]byte) ([]byte, bool, error){nodeAttr: in.attr})
}

func (in *inliner) attr(b []byte) ([]byte, bool, error) {
	return in.within("attribute", b, map[protowire.Number]func([]byte) ([]byte, bool, error){attrTensor: in.tensor, attrGraph: in.graph})
}

func (in *inliner) within(what string, b []byte, parts map[protowire.Number]func([]byte) ([]byte, bool, error)) ([]byte, bool, error) {
	changed := false
	var records []*record
	err := eachRecord(what, b, func(r *record, _ field) error {
		records = append(records, r)
		part := parts[r.id]
		if part == nil {
			return nil
		}
		body, did, err := part(r.body)
		if did && err == nil {
			r.set(body)
			changed = true
		}
		return err
	})
	if err != nil || !changed {
		return b, false, err
	}
	var out []byte
	for _, r := range records {
		out = r.append(out)
	}
	return out, true, nil
}

func (in *inliner) tensor(b []byte) ([]byte, bool, error) {
	t, err := decodeTensor(b)
	if err != nil || t.location != 1 {
		return b, false, err
	}
	v, err := t.tensor(in.dir)
	if err != nil {
		return nil, false, err
	}
	if in.total += v.Len() * v.DType().Size(); in.total > maxFile {
		return nil, false, fmt.Errorf("external data of more than %d bytes does not fit in one file: %w", maxFile, engine.ErrTooLarge)
	}
	out, err := encodeTensor(b, t.name, v)
	return out, true, err
}
