package onnx

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// maxKeys bounds the columns that are made of a map.
const maxKeys = 1 << 20

// takeMap makes a matrix of an input that is a map, a row a map and a column a key of those
// that its only reader knows: DictVectorizer, whose own answer that matrix is, or
// CastMap of a stated number of keys. It rewrites that node.
func (p *modelProto) takeMap(v *valueProto, g *graph.Graph) (engine.Spec, error) {
	refuse := func(reason string) (engine.Spec, error) {
		return engine.Spec{}, &engine.UnsupportedError{What: fmt.Sprintf("input %q: a map", v.name), Reason: reason}
	}
	var keys []string
	d := graph.TypeOfONNX(v.dtype)
	for i, n := range g.Nodes {
		if !slices.Contains(n.Inputs, v.name) {
			continue
		}
		of, err := mapKeys(n, v)
		if err != nil {
			return refuse(err.Error())
		}
		if keys != nil && !slices.Equal(keys, of) {
			return refuse("its readers know other keys each, so it has no one row")
		}
		keys = of
		if g.Nodes[i], err = unmapped(n, d); err != nil {
			return refuse(err.Error())
		}
	}
	if keys == nil {
		return refuse("no DictVectorizer or CastMap reads it, so which keys it may have is not known")
	}
	if p.keys == nil {
		p.keys = map[string][]string{}
	}
	p.keys[v.name] = keys
	return engine.Spec{Name: v.name, DType: d, Shape: []int{-1, len(keys)}}, nil
}

// mapKeys are the keys that a node knows of the map it reads.
func mapKeys(n *graph.Node, v *valueProto) ([]string, error) {
	const text, whole = 8, 7 // of ONNX's types
	switch {
	case n.Domain != graph.DomainML || len(n.Inputs) != 1:
	case n.Op == "DictVectorizer":
		keys := slices.Clone(n.Attrs["string_vocabulary"].Strings)
		of := text
		if keys == nil {
			of = whole
			for _, k := range n.Attrs["int64_vocabulary"].Ints {
				keys = append(keys, strconv.FormatInt(k, 10))
			}
		}
		sorted := slices.Clone(keys)
		slices.Sort(sorted)
		if of != v.key || len(keys) == 0 || len(keys) > maxKeys || len(slices.Compact(sorted)) != len(keys) {
			return nil, fmt.Errorf("node %q (DictVectorizer) knows %d keys of another type, or one twice", n.Label(), len(keys))
		}
		return keys, nil
	case n.Op == "CastMap":
		many := n.Attrs["max_map"].Int
		if n.Attrs["map_form"].String != "SPARSE" || v.key != whole || many < 1 || many > maxKeys {
			return nil, fmt.Errorf("node %q (CastMap) makes as many columns as the map has keys", n.Label())
		}
		keys := make([]string, many)
		for i := range keys {
			keys[i] = strconv.Itoa(i)
		}
		return keys, nil
	}
	return nil, fmt.Errorf("node %q (%s) reads it", n.Label(), n.Title())
}

// unmapped is what a node that reads a map does with the matrix that stands for it: a key
// that is not there, which is NaN or an empty text in that, counts as 0 or as such text.
func unmapped(n *graph.Node, d engine.DType) (*graph.Node, error) {
	node := func(op, domain string, version int, attrs graph.Attrs) *graph.Node {
		return &graph.Node{Name: n.Name, Domain: domain, Op: op, Version: version, Inputs: n.Inputs, Outputs: n.Outputs, Attrs: attrs}
	}
	float := d == engine.Float32 || d == engine.Float64
	switch cast := n.Attrs["cast_to"].String; {
	case n.Op == "CastMap" && d == engine.Float32 && cast == "TO_INT64":
		// Whatever NaN is made into, it is no number that a caller could mean.
		return nil, fmt.Errorf("node %q (CastMap) makes whole numbers of it", n.Label())
	case n.Op == "CastMap" && (d != engine.Float32 || cast != "" && cast != "TO_FLOAT"):
		return nil, fmt.Errorf("node %q (CastMap) casts its %s: %s", n.Label(), d, cast)
	case float:
		return node("Imputer", graph.DomainML, 1, graph.Attrs{
			"imputed_value_floats": {Kind: graph.AttrFloats, Floats: []float32{0}},
			"replaced_value_float": {Kind: graph.AttrFloat, Float: float32(math.NaN())},
		}), nil
	case d == engine.Int64 || d == engine.String:
		return node("Identity", graph.DomainONNX, 13, graph.Attrs{}), nil
	}
	return nil, fmt.Errorf("its values are %s", d)
}

// splitSequences gives each value of an output that is a sequence of a known number of
// tensors as an output of its own, NAME/0, NAME/1 and so on: what skl2onnx makes of a
// MultiOutputClassifier.
func (p *modelProto) splitSequences(g *graph.Graph) {
	makers := map[string]*graph.Node{}
	for _, n := range g.Nodes {
		if n.Op == "SequenceConstruct" && n.Domain == graph.DomainONNX && len(n.Outputs) == 1 {
			makers[n.Outputs[0]] = n
		}
	}
	if len(makers) == 0 || p.producer != "skl2onnx" {
		return
	}
	var outputs []*valueProto
	for _, v := range p.graph.outputs {
		n := makers[v.name]
		if n == nil || v.kind != "sequence" || v.inner != "tensor" || slices.Contains(n.Inputs, "") {
			outputs = append(outputs, v)
			continue
		}
		for i, from := range n.Inputs {
			out := &valueProto{name: fmt.Sprintf("%s/%d", v.name, i), kind: "tensor", shape: []int{-1, -1}}
			g.Nodes = append(g.Nodes, &graph.Node{Name: out.name, Op: "Identity", Version: n.Version, Inputs: []string{from}, Outputs: []string{out.name}, Attrs: graph.Attrs{}})
			outputs = append(outputs, out)
		}
		p.split = append(p.split, v.name)
	}
	p.graph.outputs = outputs
	g.Outputs = g.Outputs[:0]
	for _, v := range outputs {
		g.Outputs = append(g.Outputs, v.name)
	}
}

// Keyed is a model some of whose inputs and outputs are maps in the file, and matrices
// here: a row a map, a column a key.
type Keyed interface {
	engine.Model
	// Keys are the columns' keys of that input or output, nil where it is no map.
	Keys(name string) []string
}

// Keys implements Keyed.
func (m *model) Keys(name string) []string { return m.keys[name] }

// keysOf are the keys of all inputs and outputs that are maps.
func (p *modelProto) keysOf(program *graph.Program) map[string][]string {
	keys := map[string][]string{}
	for name, k := range p.keys {
		keys[name] = k
	}
	for _, v := range p.graph.outputs {
		if p.zipped(v.name) {
			keys[v.name] = labelsOf(program.Producer(v.name))
		}
	}
	return keys
}

// keyDetails say to people what the columns of maps are.
func keyDetails(p *modelProto, inputs []engine.Spec) []engine.Detail {
	var list []engine.Detail
	for _, s := range inputs {
		if keys := p.keys[s.Name]; keys != nil {
			shown := strings.Join(keys[:min(len(keys), 20)], ", ")
			if len(keys) > 20 {
				shown += ", ..."
			}
			list = append(list, engine.Detail{Name: "map " + s.Name, Value: fmt.Sprintf("a matrix, one column for each of %d keys: %s", len(keys), shown)})
		}
	}
	return list
}
