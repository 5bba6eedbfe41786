package onnx

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// lowerOptimised writes what onnxruntime's optimizer puts among ONNX's own operators in
// those: layer normalisation before there was one, and that without a mean.
func lowerOptimised(n *graph.Node) ([]*graph.Node, error) {
	switch {
	case n.Op == "LayerNormalization" && n.Version < 17:
		n.Version = 17
	case n.Op == "SimplifiedLayerNormalization":
		c := &contrib{n: n}
		if len(n.Outputs) > 1 && n.Outputs[1] != "" {
			c.refuse("the output inv_std_var")
			return nil, c.err
		}
		own := *n
		own.Op, own.Version, own.Outputs = "RMSNormalization", 23, n.Outputs[:min(1, len(n.Outputs))]
		return []*graph.Node{&own}, nil
	}
	return []*graph.Node{n}, nil
}

// fusedActivation is what an optimizer put behind a node, with its parameters in order.
func (c *contrib) fusedActivation(x string, params []float32) {
	op := c.n.Attrs["activation"].String
	names := map[string][]string{"": {}, "Relu": {}, "Tanh": {}, "Sigmoid": {}, "LeakyRelu": {"alpha"}, "HardSigmoid": {"alpha", "beta"}, "Clip": {"min", "max"}}[op]
	switch {
	case names == nil:
		c.refuse(fmt.Sprintf("activation %q", op))
		return
	case len(params) > len(names):
		c.refuse(fmt.Sprintf("%d parameters of %s", len(params), op))
		return
	case op == "":
		c.node("Identity", 14, c.n.Outputs[0], nil, x)
		return
	}
	attrs, version := graph.Attrs{}, 13
	for i, v := range params {
		attrs[names[i]] = graph.Attr{Kind: graph.AttrFloat, Float: v}
	}
	if op == "Clip" {
		version = 6 // the last that has its bounds in attributes
	}
	c.node(op, version, c.n.Outputs[0], attrs, x)
}

// without are the node's attributes but those of these names.
func (c *contrib) without(names ...string) graph.Attrs {
	attrs := graph.Attrs{}
	for name, a := range c.n.Attrs {
		if !slices.Contains(names, name) {
			attrs[name] = a
		}
	}
	return attrs
}

// fusedConv adds a fourth input before the activation.
func (c *contrib) fusedConv() {
	in := []string{c.in(0), c.in(1)}
	if b := c.in(2); b != "" {
		in = append(in, b)
	}
	x := c.add(c.node("Conv", 11, "", c.without("activation", "activation_params"), in...), c.in(3))
	c.fusedActivation(x, c.n.Attrs["activation_params"].Floats)
}

func (c *contrib) fusedGemm() {
	var params []float32
	for _, name := range []string{"activation_alpha", "activation_beta", "activation_gamma"} {
		if a, ok := c.n.Attrs[name]; ok {
			params = append(params, a.Float)
		}
	}
	if _, first := c.n.Attrs["activation_alpha"]; !first && len(params) > 0 {
		c.refuse("activation_beta without activation_alpha")
		return
	}
	in := []string{c.in(0), c.in(1)}
	if b := c.in(2); b != "" {
		in = append(in, b)
	}
	c.fusedActivation(c.node("Gemm", 13, "", c.without("activation", "activation_alpha", "activation_beta", "activation_gamma"), in...), params)
}

// turned moves the dimensions of an operand whose number is not known: its matrices lie
// transposed, or their rows outside of the batch.
func (c *contrib) turned(i int, trans, batch string) string {
	from, to := "...ij", "...ij"
	if c.n.Attrs[batch].Int != 0 {
		from = "i...j"
	}
	if c.n.Attrs[trans].Int != 0 {
		to = "...ji"
	}
	if from == to {
		return c.in(i)
	}
	return c.einsum(from+"->"+to, c.in(i))
}

func (c *contrib) einsum(equation string, in ...string) string {
	return c.node("Einsum", 12, "", graph.Attrs{"equation": {Kind: graph.AttrString, String: equation}}, in...)
}

func (c *contrib) fusedMatMul() {
	a, b := c.turned(0, "transA", "transBatchA"), c.turned(1, "transB", "transBatchB")
	alpha, ok := c.n.Attrs["alpha"]
	if !ok || alpha.Float == 1 {
		c.node("MatMul", 13, c.n.Outputs[0], nil, a, b)
		return
	}
	product := c.node("MatMul", 13, "", nil, a, b)
	c.node("Mul", 14, c.n.Outputs[0], nil, product, c.node("CastLike", 15, "", nil, c.float(alpha.Float), product))
}

// float is a constant of one element.
func (c *contrib) float(v float32) string {
	t, err := engine.Of([]float32{v})
	if err != nil {
		c.err = err
		return ""
	}
	return c.node("Constant", 13, "", graph.Attrs{"value": {Kind: graph.AttrTensor, Tensor: t}})
}

// renamed is an operator that ONNX has come to have, as it has it.
func (c *contrib) renamed(op string, version int, attrs graph.Attrs, in ...string) {
	c.node(op, version, c.n.Outputs[0], attrs, in...)
}

// pad has its widths in one row of a matrix where an exporter wrote them so.
func (c *contrib) pad() {
	in := []string{c.in(0), c.node("Reshape", 13, "", nil, c.in(1), c.ints(false, -1))}
	if v := c.in(2); v != "" {
		in = append(in, c.node("Reshape", 13, "", nil, v, c.ints(false)))
	}
	c.renamed("Pad", 13, c.n.Attrs, in...)
}

// span counts from a number to another; each may be one element of a list.
func (c *contrib) span() {
	one := func(x string) string { return c.node("Reshape", 13, "", nil, x, c.ints(false)) }
	by := c.in(2)
	if by == "" {
		by = c.node("CastLike", 15, "", nil, c.ints(true, 1), c.in(0))
	}
	c.renamed("Range", 11, nil, one(c.in(0)), one(c.in(1)), one(by))
}

// unique keeps the order of the elements; the third output of ONNX's own is the second.
func (c *contrib) unique() {
	n := &graph.Node{Name: c.n.Name, Op: "Unique", Version: 11, Inputs: c.n.Inputs, Outputs: []string{c.n.Outputs[0], ""}, Attrs: graph.Attrs{"sorted": intAttr(0)}}
	n.Outputs = append(n.Outputs, c.n.Outputs[1:]...)
	c.nodes = append(c.nodes, n)
}

// distances are between each row of the first and each of the second.
func (c *contrib) distances() {
	metric := "sqeuclidean"
	if a, ok := c.n.Attrs["metric"]; ok {
		metric = a.String
	}
	if metric != "sqeuclidean" && metric != "euclidean" {
		c.refuse(fmt.Sprintf("metric %q", metric))
		return
	}
	rows := c.ints(false, 1)
	squares := func(i int) string {
		return c.node("ReduceSumSquare", 18, "", nil, c.in(i), rows)
	}
	product := c.einsum("ik,jk->ij", c.in(0), c.in(1))
	double := c.node("Add", 14, "", nil, product, product)
	sum := c.node("Add", 14, "", nil, squares(0), c.node("Transpose", 13, "", nil, squares(1)))
	least := c.node("CastLike", 15, "", nil, c.float(0), product)
	y := c.node("Max", 13, "", nil, c.node("Sub", 14, "", nil, sum, double), least)
	if metric == "euclidean" {
		y = c.node("Sqrt", 13, "", nil, y)
	}
	c.node("Identity", 14, c.n.Outputs[0], nil, y)
}

// gridSample calls its modes as ONNX did before operator set 20.
func (c *contrib) gridSample() { c.renamed("GridSample", 16, c.n.Attrs, c.in(0), c.in(1)) }

// simpleSkipNorm is skipNorm without a mean.
func (c *contrib) simpleSkipNorm() {
	sum, epsilon := c.skipped(c.in(3))
	if c.err == nil {
		c.renamed("RMSNormalization", 23, graph.Attrs{"axis": intAttr(-1), "epsilon": epsilon}, sum, c.in(2))
	}
}

// skipped is the sum that is normalised, of the two first inputs and a bias; the fourth
// output gives it. The second and third, means and deviations, are for training.
func (c *contrib) skipped(bias string) (sum string, epsilon graph.Attr) {
	for i := 1; i < min(3, len(c.n.Outputs)); i++ {
		if c.n.Outputs[i] != "" {
			c.refuse("the outputs mean and inv_std_var")
			return "", graph.Attr{}
		}
	}
	sum = c.add(c.add(c.in(0), c.in(1)), bias)
	if len(c.n.Outputs) == 4 && c.n.Outputs[3] != "" {
		sum = c.node("Identity", 14, c.n.Outputs[3], nil, sum)
	}
	return sum, c.normEpsilon()
}

// normEpsilon is that of the normalisations here, whose default is not ONNX's.
func (c *contrib) normEpsilon() graph.Attr {
	if a, ok := c.n.Attrs["epsilon"]; ok {
		return a
	}
	return graph.Attr{Kind: graph.AttrFloat, Float: 1e-12}
}
