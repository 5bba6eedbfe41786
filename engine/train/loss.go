package train

import (
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// maker writes down the nodes of a graph. Names that it makes begin with prefix, which
// nothing else in the graph does.
type maker struct {
	prefix string
	g      *graph.Graph
	count  int
	err    error
}

// op adds a node of ai.onnx and returns its output's name.
func (m *maker) op(op string, attrs graph.Attrs, in ...string) string {
	return m.node(graph.DomainONNX, onnx.EncodedOpset, op, attrs, in...)
}

// ml adds a node of ai.onnx.ml.
func (m *maker) ml(op string, attrs graph.Attrs, in ...string) string {
	return m.node(graph.DomainML, onnx.EncodedOpsetML, op, attrs, in...)
}

func (m *maker) node(domain string, version int, op string, attrs graph.Attrs, in ...string) string {
	m.count++
	out := m.prefix + op + strconv.Itoa(m.count)
	if attrs == nil {
		attrs = graph.Attrs{}
	}
	m.g.Nodes = append(m.g.Nodes, &graph.Node{Name: out, Domain: domain, Op: op, Version: version, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// call names the last node's output.
func (m *maker) call(name string) {
	m.g.Nodes[len(m.g.Nodes)-1].Outputs[0] = name
}

// constant adds an initialiser.
func (m *maker) constant(t *engine.Tensor, err error) string {
	m.count++
	name := m.prefix + "constant" + strconv.Itoa(m.count)
	if err != nil && m.err == nil {
		m.err = err
	}
	m.g.Constants[name] = t
	return name
}

// number adds a scalar of d.
func (m *maker) number(d engine.DType, v float64) string { return m.constant(floats([]float64{v}, d)) }

// ints adds a list of integers.
func (m *maker) ints(v ...int64) string { return m.constant(engine.Of(v, len(v))) }

func integer(v int64) graph.Attr { return graph.Attr{Kind: graph.AttrInt, Int: v} }

// loss adds the loss of each row, [n, 1] of d, of margins and labels [n, k] and weights
// [n, 1], and returns its name.
func (m *maker) loss(c *Config, d engine.DType, delta float64, margins, labels, weights string) string {
	var l string
	switch c.Loss {
	case Squared:
		r := m.op("Sub", nil, margins, labels)
		l = m.op("Mul", nil, m.op("Mul", nil, r, r), m.number(d, 0.5))
	case Huber:
		// q (a - q/2) with q = min(a, delta) is a*a/2 below delta and linear above.
		a := m.op("Abs", nil, m.op("Sub", nil, margins, labels))
		q := m.op("Min", nil, a, m.number(d, delta))
		l = m.op("Mul", nil, q, m.op("Sub", nil, a, m.op("Mul", nil, q, m.number(d, 0.5))))
	case Quantile:
		r := m.op("Sub", nil, labels, margins)
		l = m.op("Max", nil, m.op("Mul", nil, r, m.number(d, c.Quantile)), m.op("Mul", nil, r, m.number(d, c.Quantile-1)))
	case Poisson:
		l = m.op("Sub", nil, m.op("Exp", nil, margins), m.op("Mul", nil, labels, margins))
	case Logistic:
		l = m.op("Sub", nil, m.op("Softplus", nil, margins), m.op("Mul", nil, labels, margins))
	case CrossEntropy:
		picked := m.op("Mul", nil, m.op("LogSoftmax", graph.Attrs{"axis": integer(1)}, margins), labels)
		l = m.op("Neg", nil, m.op("ReduceSum", graph.Attrs{"keepdims": integer(1)}, picked, m.ints(1)))
	}
	return m.op("Mul", nil, l, weights)
}
