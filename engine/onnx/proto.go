// Package onnx reads ONNX files: it decodes their protobuf form, checks them, and
// turns them into programs of engine/graph wrapped as an engine.Model. It owns
// what the file's fields mean; operators' numbers belong to engine/graph.
//
// It opens no file but a tensor's external data, and that only inside the
// model's own folder.
//
// Invariants: a damaged or hostile file is an error wrapping engine.ErrCorrupt
// or engine.ErrTooLarge, or an *engine.UnsupportedError, found in time and memory
// that grow with the file's size only; never a panic.
//
// ZipMap, which makes a list of maps from a matrix, passes its matrix through:
// the output is a float tensor [-1, K] in the order of the class labels. DictVectorizer
// likewise: an input that is a map is a matrix, a column a key, where NaN is a key that
// is not there.
package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"google.golang.org/protobuf/encoding/protowire"
)

// The bounds of a model file.
const (
	maxFile  = 2 << 30
	maxNodes = 1 << 20
	maxDims  = 64
	// maxNesting bounds graphs within graphs: bodies of loops, and of If, where an exporter writes
	// a chain of conditions as one within the other.
	maxNesting = 32
)

type modelProto struct {
	producer, producerVersion string
	opsets                    map[string]int
	graph                     *graphProto
	metadata                  map[string]string
	functions                 map[functionID]*functionProto
	// dense counts the bytes that sparse tensors were written out to.
	dense int64
	// keys are those of the maps that inputs and outputs are in the file, by name.
	keys map[string][]string
	// split are the sequences of the file's outputs whose values are outputs here.
	split []string
	// called and written count calls of functions, and nodes that came of them.
	called, written int
}

type graphProto struct {
	name            string
	nodes           []*nodeProto
	initializers    []*tensorProto
	sparse          []*sparseProto
	inputs, outputs []*valueProto
}

type nodeProto struct {
	name, op, domain string
	overload         string
	inputs, outputs  []string
	attrs            []*attrProto
}

type attrProto struct {
	name, ref string
	kind      int
	f         float32
	i         int64
	s         string
	t         *tensorProto
	sparse    *sparseProto
	floats    []float32
	ints      []int64
	strings   []string
	graph     *graphProto
	graphs    bool // a list of graphs, or one nested too deeply
}

type tensorProto struct {
	name    string
	dims    []int64
	dtype   int
	floats  []float32
	ints    []int64 // int32_data, int64_data and uint64_data
	doubles []float64
	strings []string
	raw     []byte
	hasRaw  bool
	// room is raw with its length before it, owned says that raw is nobody else's.
	room     []byte
	owned    bool
	external map[string]string
	location int
	segment  bool
}

type valueProto struct {
	name  string
	dtype int
	// shape is nil where the file gives none; -1 is a varying dimension.
	shape []int
	// batch is the file's name for the first dimension, where that varies and has one.
	batch string
	// kind is "tensor", or the kind of value that is not one; of a sequence or an
	// optional value, inner is the kind of what is in it.
	kind, inner string
	// key is the type of a map's keys, whose values' type dtype is.
	key int
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), engine.ErrCorrupt)
}

// field is one field of a message: num for scalars, data for bytes; those with their
// length before them are whole.
type field struct {
	id          protowire.Number
	typ         protowire.Type
	num         uint64
	data, whole []byte
}

func (f *field) str() string { return string(f.data) }

// eachField calls f for every field of message b.
func eachField(what string, b []byte, f func(field) error) error {
	for len(b) > 0 {
		id, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return corrupt("decode %s: bad tag", what)
		}
		b = b[n:]
		v := field{id: id, typ: typ}
		switch typ {
		case protowire.VarintType:
			v.num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var u uint32
			u, n = protowire.ConsumeFixed32(b)
			v.num = uint64(u)
		case protowire.Fixed64Type:
			v.num, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			if v.data, n = protowire.ConsumeBytes(b); n >= 0 {
				v.whole = b[:n]
			}
		default:
			n = -1
		}
		if n < 0 {
			return corrupt("decode %s: field %d is truncated or of an unknown kind", what, id)
		}
		b = b[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// numbers appends a repeated scalar field, packed or not.
func numbers[T any](dst []T, f field, elem protowire.Type, conv func(uint64) T) ([]T, error) {
	if f.typ == elem {
		return append(dst, conv(f.num)), nil
	}
	if f.typ != protowire.BytesType {
		return nil, corrupt("field %d has the wrong wire type", f.id)
	}
	b := f.data
	if elem == protowire.Fixed32Type {
		dst = slices.Grow(dst, len(b)/4)
	}
	for len(b) > 0 {
		var v uint64
		var n int
		switch elem {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var u uint32
			u, n = protowire.ConsumeFixed32(b)
			v = uint64(u)
		default:
			v, n = protowire.ConsumeFixed64(b)
		}
		if n < 0 {
			return nil, corrupt("packed field %d is truncated", f.id)
		}
		dst = append(dst, conv(v))
		b = b[n:]
	}
	return dst, nil
}

func toFloat32(v uint64) float32 { return math.Float32frombits(uint32(v)) }
func toInt64(v uint64) int64     { return int64(v) }
func toDouble(v uint64) float64  { return math.Float64frombits(v) }

func decodeModel(b []byte) (*modelProto, error) {
	m := &modelProto{opsets: map[string]int{}, metadata: map[string]string{}, functions: map[functionID]*functionProto{}}
	err := eachField("model", b, func(f field) (err error) {
		switch f.id {
		case 2:
			m.producer = f.str()
		case 3:
			m.producerVersion = f.str()
		case 7:
			if m.graph != nil {
				return corrupt("the model has two graphs")
			}
			m.graph, err = decodeGraph(f.data, 0)
		case 8:
			err = m.opset(f.data)
		case 14:
			var k, v string
			k, v, err = decodeEntry(f.data)
			m.metadata[k] = v
		case 25:
			var fn *functionProto
			if fn, err = decodeFunction(f.data); err == nil {
				m.functions[fn.id] = fn
			}
		}
		return err
	})
	if err == nil && m.graph == nil {
		err = corrupt("the model has no graph")
	}
	return m, err
}

func (m *modelProto) opset(b []byte) error {
	var domain string
	var version int64
	err := eachField("opset import", b, func(f field) error {
		switch f.id {
		case 1:
			domain = f.str()
		case 2:
			version = int64(f.num)
		}
		return nil
	})
	if domain == "ai.onnx" {
		domain = ""
	}
	if version < 0 || version > math.MaxInt32 {
		return corrupt("opset version %d", version)
	}
	m.opsets[domain] = int(version)
	return err
}

func decodeEntry(b []byte) (key, value string, err error) {
	err = eachField("entry", b, func(f field) error {
		switch f.id {
		case 1:
			key = f.str()
		case 2:
			value = f.str()
		}
		return nil
	})
	return key, value, err
}

// decodeGraph decodes a graph that stands inside depth others.
func decodeGraph(b []byte, depth int) (*graphProto, error) {
	g := &graphProto{}
	err := eachField("graph", b, func(f field) error {
		switch f.id {
		case 1:
			n, err := decodeNode(f.data, depth)
			g.nodes = append(g.nodes, n)
			if len(g.nodes) > maxNodes {
				return fmt.Errorf("more than %d nodes: %w", maxNodes, engine.ErrTooLarge)
			}
			return err
		case 2:
			g.name = f.str()
		case 5:
			t, err := decodeTensor(f.data)
			g.initializers = append(g.initializers, t)
			return err
		case 11:
			v, err := decodeValue(f.data)
			g.inputs = append(g.inputs, v)
			return err
		case 12:
			v, err := decodeValue(f.data)
			g.outputs = append(g.outputs, v)
			return err
		case 15:
			t, err := decodeSparse(f.data)
			g.sparse = append(g.sparse, t)
			return err
		}
		return nil
	})
	return g, err
}

func decodeNode(b []byte, depth int) (*nodeProto, error) {
	n := &nodeProto{}
	err := eachField("node", b, func(f field) error {
		switch f.id {
		case 1:
			n.inputs = append(n.inputs, f.str())
		case 2:
			n.outputs = append(n.outputs, f.str())
		case 3:
			n.name = f.str()
		case 4:
			n.op = f.str()
		case 5:
			a, err := decodeAttr(f.data, depth)
			n.attrs = append(n.attrs, a)
			return err
		case 7:
			n.domain = f.str()
		case 8:
			n.overload = f.str()
		}
		return nil
	})
	if n.domain == "ai.onnx" {
		n.domain = ""
	}
	if err == nil && slices.ContainsFunc(n.attrs, func(a *attrProto) bool { return a.graphs }) {
		return n, &engine.UnsupportedError{What: "operator " + n.op, Node: n.name, Reason: fmt.Sprintf("it has a list of graphs, or one within %d others", maxNesting)}
	}
	return n, err
}

func decodeAttr(b []byte, depth int) (*attrProto, error) {
	a := &attrProto{}
	err := eachField("attribute", b, func(f field) (err error) {
		switch f.id {
		case 1:
			a.name = f.str()
		case 2:
			a.f = toFloat32(f.num)
		case 3:
			a.i = int64(f.num)
		case 4:
			a.s = f.str()
		case 5:
			a.t, err = decodeTensor(f.data)
		case 6:
			if depth >= maxNesting {
				a.graphs = true
				return nil
			}
			a.graph, err = decodeGraph(f.data, depth+1)
		case 11:
			a.graphs = true
		case 22:
			a.sparse, err = decodeSparse(f.data)
		case 7:
			a.floats, err = numbers(a.floats, f, protowire.Fixed32Type, toFloat32)
		case 8:
			a.ints, err = numbers(a.ints, f, protowire.VarintType, toInt64)
		case 9:
			a.strings = append(a.strings, f.str())
		case 20:
			a.kind = int(f.num)
		case 21:
			a.ref = f.str()
		}
		return err
	})
	return a, err
}

func decodeTensor(b []byte) (*tensorProto, error) {
	t := &tensorProto{}
	err := eachField("tensor", b, func(f field) (err error) {
		switch f.id {
		case 1:
			t.dims, err = numbers(t.dims, f, protowire.VarintType, toInt64)
		case 2:
			t.dtype = int(f.num)
		case 3:
			t.segment = true
		case 4:
			t.floats, err = numbers(t.floats, f, protowire.Fixed32Type, toFloat32)
		case 5, 7, 11:
			t.ints, err = numbers(t.ints, f, protowire.VarintType, toInt64)
		case 6:
			t.strings = append(t.strings, f.str())
		case 8:
			t.name = f.str()
		case 9:
			t.raw, t.hasRaw, t.room = f.data, true, f.whole
		case 10:
			t.doubles, err = numbers(t.doubles, f, protowire.Fixed64Type, toDouble)
		case 13:
			var k, v string
			k, v, err = decodeEntry(f.data)
			if t.external == nil {
				t.external = map[string]string{}
			}
			t.external[k] = v
		case 14:
			t.location = int(f.num)
		}
		return err
	})
	return t, err
}

func decodeValue(b []byte) (*valueProto, error) {
	v := &valueProto{}
	err := eachField("value", b, func(f field) error {
		switch f.id {
		case 1:
			v.name = f.str()
		case 2:
			return eachField("type", f.data, v.typeField)
		}
		return nil
	})
	return v, err
}

func (v *valueProto) typeField(f field) error {
	switch f.id {
	case 1:
		v.kind = "tensor"
		return eachField("tensor type", f.data, func(f field) error {
			switch f.id {
			case 1:
				v.dtype = int(f.num)
			case 2:
				v.shape = []int{}
				return eachField("shape", f.data, v.dimension)
			}
			return nil
		})
	case 4:
		v.kind = "sequence"
		return eachField("sequence type", f.data, v.innerField)
	case 5:
		v.kind = "map"
		return eachField("map type", f.data, v.mapField)
	case 8:
		v.kind = "sparse tensor"
	case 9:
		v.kind = "optional"
		return eachField("optional type", f.data, v.innerField)
	}
	return nil
}

// mapField reads what a map's keys and values are.
func (v *valueProto) mapField(f field) error {
	switch f.id {
	case 1:
		v.key = int(f.num)
	case 2:
		return eachField("type", f.data, func(f field) error {
			if f.id != 1 {
				return nil // no tensor: takeMap refuses it
			}
			return eachField("tensor type", f.data, func(f field) error {
				if f.id == 1 {
					v.dtype = int(f.num)
				}
				return nil
			})
		})
	}
	return nil
}

func (v *valueProto) innerField(f field) error {
	if f.id != 1 {
		return nil
	}
	return eachField("type", f.data, func(f field) error {
		switch f.id {
		case 1:
			v.inner = "tensor"
		case 4:
			v.inner = "sequence"
		default:
			v.inner = "value"
		}
		return nil
	})
}

func (v *valueProto) dimension(f field) error {
	if f.id != 1 {
		return nil
	}
	if len(v.shape) >= maxDims {
		return corrupt("value %q has more than %d dimensions", v.name, maxDims)
	}
	d := -1
	err := eachField("dimension", f.data, func(f field) error {
		if f.id == 2 && len(v.shape) == 0 {
			v.batch = f.str()
		}
		if f.id == 1 {
			if int64(f.num) > math.MaxInt32 || int64(f.num) < -1 {
				return corrupt("value %q has a dimension of %d", v.name, int64(f.num))
			}
			d = int(int64(f.num))
		}
		return nil
	})
	v.shape = append(v.shape, d)
	return err
}
