package onnx

import (
	"fmt"
	"slices"

	"github.com/pellucid/pellucid/engine/graph"
)

// quantized is an operator of floats between numbers of 8 bits: for each operand, and
// then for the result, there are a scale and a zero point, which says the type.
func (c *contrib) quantized(op string, version, operands int, attrs graph.Attrs) {
	var in []string
	for i := range operands {
		in = append(in, c.node("DequantizeLinear", 13, "", nil, c.in(3*i), c.in(3*i+1), c.in(3*i+2)))
	}
	y := c.node(op, version, "", attrs, in...)
	c.node("QuantizeLinear", 13, c.n.Outputs[0], nil, y, c.in(3*operands), c.in(3*operands+1))
}

// around gives a node what has its channels second where they lie last, and back. Of how
// many dimensions that is, a kernel tells.
func (c *contrib) around(x string, last bool, do func(x, out string) string) {
	if !last {
		do(x, c.n.Outputs[0])
		return
	}
	rank := 0
	for name, per := range map[string]int{"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 2} {
		if n := len(c.n.Attrs[name].Ints); n > 0 {
			rank = n/per + 2
		}
	}
	if rank < 3 {
		c.refuse("channels_last without kernel_shape")
		return
	}
	second, back := []int64{0, int64(rank - 1)}, []int64{0}
	for i := 1; i < rank-1; i++ {
		second, back = append(second, int64(i)), append(back, int64(i+1))
	}
	turn := func(x, out string, perm []int64) string {
		return c.node("Transpose", 13, out, graph.Attrs{"perm": {Kind: graph.AttrInts, Ints: perm}}, x)
	}
	turn(do(turn(x, "", second), ""), c.n.Outputs[0], append(back, 1))
}

func (c *contrib) lastMaxPool() {
	c.around(c.in(0), true, func(x, out string) string { return c.node("MaxPool", 12, out, c.n.Attrs, x) })
}

func (c *contrib) quantizedConv() {
	c.around(c.in(0), c.n.Attrs["channels_last"].Int != 0, func(x, out string) string {
		return c.node("QLinearConv", 10, out, c.without("channels_last"), append([]string{x}, c.n.Inputs[1:]...)...)
	})
}

// quantizedPool is a pool between numbers of 8 bits.
func (c *contrib) quantizedPool(op string, version int) {
	attrs, last := c.without("channels_last"), c.n.Attrs["channels_last"].Int != 0
	pool := func(x, out string) string {
		y := c.node(op, version, "", attrs, c.node("DequantizeLinear", 13, "", nil, x, c.in(1), c.in(2)))
		if op == "AveragePool" && c.in(4) != "" {
			return c.zeroInside(y, c.in(3), c.in(4), out)
		}
		return c.node("QuantizeLinear", 13, out, nil, y, c.in(3), c.in(4))
	}
	if op != "GlobalAveragePool" || !last {
		c.around(c.in(0), last, pool)
		return
	}
	// No kernel tells its dimensions.
	x := c.node("DequantizeLinear", 13, "", nil, c.in(0), c.in(1), c.in(2))
	y := c.einsum("nc...->n...c", c.node(op, version, "", attrs, c.einsum("n...c->nc...", x)))
	c.node("QuantizeLinear", 13, c.n.Outputs[0], nil, y, c.in(3), c.in(4))
}

// zeroInside is QuantizeLinear that adds the zero point before it rounds, as onnxruntime's pools
// do: halves go to another number beside an odd one.
func (c *contrib) zeroInside(y, scale, zero, out string) string {
	z := c.node("Cast", 13, "", graph.Attrs{"to": intAttr(1)}, zero)
	whole := c.node("Round", 11, "", nil, c.node("Add", 14, "", nil, c.node("Div", 14, "", nil, y, scale), z))
	return c.node("QuantizeLinear", 13, out, nil, c.node("Sub", 14, "", nil, whole, z), c.float(1), zero)
}

// scaled is one of the two between floats and numbers of few bits, whose scale is one
// where no axis is named.
func (c *contrib) scaled(op string) {
	in := slices.Clone(c.n.Inputs)
	if _, along := c.n.Attrs["axis"]; !along {
		for i := 1; i < len(in); i++ {
			if in[i] != "" {
				in[i] = c.node("Reshape", 13, "", nil, in[i], c.ints(false))
			}
		}
	}
	c.renamed(op, 21, c.n.Attrs, in...)
}

func (c *contrib) quantizedWhere() {
	of := func(i int) string { return c.node("DequantizeLinear", 13, "", nil, c.in(i), c.in(i+1), c.in(i+2)) }
	y := c.node("Where", 16, "", nil, c.in(0), of(1), of(4))
	c.node("QuantizeLinear", 13, c.n.Outputs[0], nil, y, c.in(7), c.in(8))
}

// product multiplies numbers of 8 bits, of inputs a and b, to floats: of one scale, and of
// one or one a column.
func (c *contrib) product(a, b, aZero, bZero, aScale, bScale string) string {
	in := []string{a, b, aZero, bZero}
	for len(in) > 2 && in[len(in)-1] == "" {
		in = in[:len(in)-1]
	}
	whole := c.node("Cast", 13, "", graph.Attrs{"to": intAttr(1)}, c.node("MatMulInteger", 10, "", nil, in...))
	return c.node("Mul", 14, "", nil, whole, c.node("Mul", 14, "", nil, c.node("Reshape", 13, "", nil, aScale, c.ints(false)), bScale))
}

func (c *contrib) productToFloat() {
	y := c.product(c.in(0), c.in(1), c.in(4), c.in(5), c.in(2), c.in(3))
	c.node("Identity", 14, c.n.Outputs[0], nil, c.add(y, c.in(6)))
}

// quantizedAttention is attention whose first product is of numbers of 8 bits.
func (c *contrib) quantizedAttention() {
	const mask, aZero, bZero, past = 5, 6, 7, 8
	all := c.add(c.product(c.in(0), c.in(1), c.in(aZero), c.in(bZero), c.in(3), c.in(4)), c.in(2))
	c.heads(all, c.in(mask), c.in(past), "")
}

// quantizedEmbed is embed whose tables are of 8 bits, of one scale each.
func (c *contrib) quantizedEmbed() {
	const segments, tables, mask, scales, zeros = 1, 2, 7, 8, 13
	if (c.in(segments) == "") != (c.in(tables+2) == "") || (c.in(segments) == "") != (c.in(scales+2) == "") {
		c.err = corrupt("node %q (%s) has segments without their embedding, or the other way round", c.n.Label(), c.n.Title())
		return
	}
	floats := func(i int, x string) string {
		return c.node("DequantizeLinear", 13, "", nil, x, c.in(scales+i), c.in(zeros+i))
	}
	rows := func(i int, ids string) string {
		return floats(i, c.node("Gather", 13, "", nil, c.in(tables+i), ids))
	}
	c.embedded([3]string{c.in(0), c.in(segments), ""}, rows, floats(3, c.in(tables+3)), floats(4, c.in(tables+4)), c.in(mask))
}

// dynamicLSTM has weights of 8 bits that lie the other way round, and quantises what they
// are multiplied by: all of the input at once, and the state of each step.
func (c *contrib) dynamicLSTM() {
	const scales = 8
	attrs := graph.Attrs{}
	for name, a := range c.n.Attrs {
		switch {
		case name == "hidden_size" || name == "direction":
			attrs[name] = a
		case name == "input_forget" && a.Int != 0:
			c.refuse(name)
		case name == "activations" && !usualGates(a.Strings):
			c.refuse(fmt.Sprintf("activations %q", a.Strings))
		}
	}
	for i, what := range map[int]string{4: "sequence_lens", 7: "peepholes"} {
		if c.in(i) != "" {
			c.refuse(what)
		}
	}
	if c.err != nil {
		return
	}
	a := c.n.Outputs[0] + c.n.Label() + "/contribq"
	c.nodes = append(c.nodes, &graph.Node{
		Name: c.n.Name, Op: "DynamicQuantizeLinear", Version: 11, Inputs: []string{c.in(0)}, Outputs: []string{a, a + "scale", a + "zero"}, Attrs: graph.Attrs{},
	})
	x := c.node("DequantizeLinear", 13, "", nil, a, a+"scale", a+"zero")
	in := []string{x}
	for i := 1; i < scales+4; i++ {
		in = append(in, c.in(i))
	}
	c.nodes = append(c.nodes, &graph.Node{Name: c.n.Name, Domain: graph.DomainLocal, Op: graph.OpQuantisedLSTM, Version: 1, Inputs: in, Outputs: c.n.Outputs, Attrs: attrs})
}

// usualGates reports whether the functions of an LSTM's directions are those of one that
// names none.
func usualGates(names []string) bool {
	for i, name := range names {
		if name != []string{"Sigmoid", "Tanh", "Tanh"}[i%3] {
			return false
		}
	}
	return true
}

// quantizedConcat has the result's scale and zero point first.
func (c *contrib) quantizedConcat() {
	if len(c.n.Inputs)%3 != 2 {
		c.err = corrupt("node %q (%s) has %d inputs", c.n.Label(), c.n.Title(), len(c.n.Inputs))
		return
	}
	var in []string
	for i := 2; i < len(c.n.Inputs); i += 3 {
		if c.in(i) == "" || c.in(i+1) == "" || c.in(i+2) == "" {
			c.refuse(fmt.Sprintf("no input %d, %d or %d", i, i+1, i+2))
			return
		}
		in = append(in, c.node("DequantizeLinear", 13, "", nil, c.in(i), c.in(i+1), c.in(i+2)))
	}
	y := c.node("Concat", 13, "", c.n.Attrs, in...)
	c.node("QuantizeLinear", 13, c.n.Outputs[0], nil, y, c.in(0), c.in(1))
}

// quantizedGemm has a bias in units of the products, and gives floats where no scale of
// the result is given.
func (c *contrib) quantizedGemm() {
	if a, ok := c.n.Attrs["alpha"]; ok && a.Float != 1 {
		c.refuse("alpha")
		return
	}
	axis := int64(1)
	if c.n.Attrs["transB"].Int != 0 {
		axis = 0
	}
	along := func(axis int64) graph.Attrs { return graph.Attrs{"axis": {Kind: graph.AttrInt, Int: axis}} }
	in := []string{
		c.node("DequantizeLinear", 13, "", nil, c.in(0), c.in(1), c.in(2)),
		c.node("DequantizeLinear", 13, "", along(axis), c.in(3), c.in(4), c.in(5)),
	}
	if bias := c.in(6); bias != "" {
		in = append(in, c.node("DequantizeLinear", 13, "", along(0), bias, c.node("Mul", 14, "", nil, c.in(1), c.in(4))))
	}
	attrs := graph.Attrs{}
	for _, name := range []string{"transA", "transB"} {
		if a, ok := c.n.Attrs[name]; ok {
			attrs[name] = a
		}
	}
	if c.in(7) == "" {
		c.node("Gemm", 13, c.n.Outputs[0], attrs, in...)
		return
	}
	to := []string{c.node("Gemm", 13, "", attrs, in...), c.in(7)}
	if z := c.in(8); z != "" {
		to = append(to, z)
	}
	c.node("QuantizeLinear", 13, c.n.Outputs[0], nil, to...)
}

// quantizedSoftmax is Softmax of the operator set that it names.
func (c *contrib) quantizedSoftmax() {
	attrs, version := graph.Attrs{}, 13
	for name, a := range c.n.Attrs {
		if name == "axis" {
			attrs[name] = a
		} else if a.Int > 0 && a.Int < 13 {
			version = int(a.Int)
		}
	}
	c.quantized("Softmax", version, 1, attrs)
}

// dynamicMatMul quantises a by itself and multiplies it by a b of 8 bits.
func (c *contrib) dynamicMatMul() {
	a := c.n.Outputs[0] + "/contribq"
	scale, zero := a+"scale", a+"zero"
	c.nodes = append(c.nodes, &graph.Node{
		Name: c.n.Name, Op: "DynamicQuantizeLinear", Version: 11, Inputs: []string{c.in(0)}, Outputs: []string{a, scale, zero}, Attrs: graph.Attrs{},
	})
	in := []string{a, c.in(1), zero}
	if z := c.in(3); z != "" {
		in = append(in, z)
	}
	whole := c.node("MatMulInteger", 10, "", nil, in...)
	real := c.node("Cast", 13, "", graph.Attrs{"to": {Kind: graph.AttrInt, Int: 1}}, whole)
	out := c.n.Outputs[0]
	if bias := c.in(4); bias != "" {
		y := c.node("Mul", 14, "", nil, real, c.node("Mul", 14, "", nil, scale, c.in(2)))
		c.node("Add", 14, out, nil, y, bias)
		return
	}
	c.node("Mul", 14, out, nil, real, c.node("Mul", 14, "", nil, scale, c.in(2)))
}
