package onnx

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// domainContrib is the domain of onnxruntime's own operators, which its optimizer writes.
const domainContrib = graph.DomainContrib

// contribForm is one of onnxruntime's operators and what it is made of here.
type contribForm struct {
	minIn, maxIn, maxOut int
	attrs                []string
	make                 func(c *contrib)
}

var contribForms = map[string]contribForm{
	"Gelu":        {1, 1, 1, nil, func(c *contrib) { c.gelu(c.in(0), "none") }},
	"BiasGelu":    {2, 2, 1, nil, func(c *contrib) { c.gelu(c.add(c.in(0), c.in(1)), "none") }},
	"FastGelu":    {1, 2, 1, nil, func(c *contrib) { c.gelu(c.add(c.in(0), c.in(1)), "tanh") }},
	"QuickGelu":   {1, 1, 1, []string{"alpha"}, (*contrib).quickGelu},
	"FusedMatMul": {2, 2, 1, []string{"alpha", "transA", "transB", "transBatchA", "transBatchB"}, (*contrib).fusedMatMul},

	"Attention":               {2, 7, 2, []string{"num_heads", "unidirectional", "qkv_hidden_sizes", "mask_filter_value", "scale", "do_rotary", "rotary_embedding_dim", "past_present_share_buffer"}, (*contrib).attention},
	"EmbedLayerNormalization": {7, 9, 3, []string{"epsilon", "mask_index_type"}, (*contrib).embed},

	"SkipLayerNormalization": {3, 5, 4, []string{"epsilon"}, (*contrib).skipNorm},
	"DynamicQuantizeMatMul":  {3, 5, 1, nil, (*contrib).dynamicMatMul},

	"QGemm":                    {6, 9, 1, []string{"alpha", "transA", "transB"}, (*contrib).quantizedGemm},
	"QLinearSoftmax":           {5, 5, 1, []string{"axis", "opset"}, (*contrib).quantizedSoftmax},
	"QLinearAdd":               {8, 8, 1, nil, func(c *contrib) { c.quantized("Add", 14, 2, nil) }},
	"QLinearMul":               {8, 8, 1, nil, func(c *contrib) { c.quantized("Mul", 14, 2, nil) }},
	"QLinearSigmoid":           {5, 5, 1, nil, func(c *contrib) { c.quantized("Sigmoid", 13, 1, nil) }},
	"QLinearGlobalAveragePool": {5, 5, 1, []string{"channels_last"}, func(c *contrib) { c.quantizedPool("GlobalAveragePool", 1) }},
	"QLinearAveragePool":       {5, 5, 1, []string{"channels_last", "auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"}, func(c *contrib) { c.quantizedPool("AveragePool", 11) }},
	"QLinearConcat":            {5, 1 << 16, 1, []string{"axis"}, (*contrib).quantizedConcat},
	"QLinearLeakyRelu":         {5, 5, 1, []string{"alpha"}, func(c *contrib) { c.quantized("LeakyRelu", 16, 1, c.n.Attrs) }},
}

// contrib is an operator of onnxruntime on the way to ONNX's.
type contrib struct {
	n     *graph.Node
	nodes []*graph.Node
	err   error
}

// lowerContrib writes an operator of onnxruntime in ONNX's, or leaves it to be refused.
func lowerContrib(n *graph.Node) ([]*graph.Node, error) {
	form, ok := contribForms[n.Op]
	if !ok {
		return []*graph.Node{n}, nil
	}
	c := &contrib{n: n}
	if len(n.Inputs) < form.minIn || len(n.Inputs) > form.maxIn || len(n.Outputs) == 0 || len(n.Outputs) > form.maxOut || n.Outputs[0] == "" {
		return nil, corrupt("node %q (%s) has %d inputs and %d outputs", n.Label(), n.Title(), len(n.Inputs), len(n.Outputs))
	}
	for i := range form.minIn {
		if n.Inputs[i] == "" && (n.Op != "EmbedLayerNormalization" || i != 1 && i != 4) {
			c.refuse(fmt.Sprintf("no input %d", i))
		}
	}
	known := map[string]bool{}
	for _, name := range form.attrs {
		known[name] = true
	}
	for name := range n.Attrs {
		if !known[name] {
			c.refuse(fmt.Sprintf("attribute %q", name))
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	form.make(c)
	return c.nodes, c.err
}

func (c *contrib) refuse(reason string) {
	c.err = &engine.UnsupportedError{What: "operator " + c.n.Title(), Version: fmt.Sprint(c.n.Version), Node: c.n.Label(), Reason: reason}
}

// in is an input's name, "" where it is not given.
func (c *contrib) in(i int) string {
	if i < len(c.n.Inputs) {
		return c.n.Inputs[i]
	}
	return ""
}

// node adds one that makes a value of the given name, or of one of its own.
func (c *contrib) node(op string, version int, out string, attrs graph.Attrs, in ...string) string {
	if out == "" {
		out = fmt.Sprintf("%s/contrib%d", c.n.Outputs[0], len(c.nodes))
	}
	if attrs == nil {
		attrs = graph.Attrs{}
	}
	c.nodes = append(c.nodes, &graph.Node{Name: c.n.Name, Op: op, Version: version, Inputs: in, Outputs: []string{out}, Attrs: attrs})
	return out
}

// add is the sum of a value and another that may not be there.
func (c *contrib) add(a, b string) string {
	if b == "" {
		return a
	}
	return c.node("Add", 14, "", nil, a, b)
}

func (c *contrib) gelu(x, approximate string) {
	c.node("Gelu", 20, c.n.Outputs[0], graph.Attrs{"approximate": {Kind: graph.AttrString, String: approximate}}, x)
}

func (c *contrib) quickGelu() {
	alpha := graph.Attr{Kind: graph.AttrFloat, Float: 1.702}
	if a, ok := c.n.Attrs["alpha"]; ok {
		alpha = a
	}
	c.node("Swish", 24, c.n.Outputs[0], graph.Attrs{"alpha": alpha}, c.in(0))
}

func (c *contrib) fusedMatMul() {
	if c.n.Attrs["transBatchA"].Int != 0 || c.n.Attrs["transBatchB"].Int != 0 {
		c.refuse("transBatchA or transBatchB")
		return
	}
	turned := func(i int, attr string) string {
		if c.n.Attrs[attr].Int == 0 {
			return c.in(i)
		}
		return c.node("Einsum", 12, "", graph.Attrs{"equation": {Kind: graph.AttrString, String: "...ij->...ji"}}, c.in(i))
	}
	a, b := turned(0, "transA"), turned(1, "transB")
	alpha, ok := c.n.Attrs["alpha"]
	if !ok || alpha.Float == 1 {
		c.node("MatMul", 13, c.n.Outputs[0], nil, a, b)
		return
	}
	product := c.node("MatMul", 13, "", nil, a, b)
	t, err := engine.Of([]float32{alpha.Float})
	if err != nil {
		c.err = err
		return
	}
	scale := c.node("Constant", 13, "", graph.Attrs{"value": {Kind: graph.AttrTensor, Tensor: t}})
	c.node("Mul", 14, c.n.Outputs[0], nil, product, c.node("CastLike", 15, "", nil, scale, product))
}

// skipNorm normalises the sum of an input, another and a bias; the fourth output is the
// sum. The second and third, means and deviations, are for training.
func (c *contrib) skipNorm() {
	for i := 1; i < min(3, len(c.n.Outputs)); i++ {
		if c.n.Outputs[i] != "" {
			c.refuse("the outputs mean and inv_std_var")
			return
		}
	}
	// The defaults of the two operators differ.
	epsilon := graph.Attr{Kind: graph.AttrFloat, Float: 1e-12}
	if a, ok := c.n.Attrs["epsilon"]; ok {
		epsilon = a
	}
	sum := c.add(c.add(c.in(0), c.in(1)), c.in(4))
	if len(c.n.Outputs) == 4 && c.n.Outputs[3] != "" {
		sum = c.node("Identity", 14, c.n.Outputs[3], nil, sum)
	}
	in := []string{sum, c.in(2)}
	if beta := c.in(3); beta != "" {
		in = append(in, beta)
	}
	c.node("LayerNormalization", 17, c.n.Outputs[0], graph.Attrs{"axis": {Kind: graph.AttrInt, Int: -1}, "epsilon": epsilon}, in...)
}

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

// quantizedPool is a pool whose channels lie second.
func (c *contrib) quantizedPool(op string, version int) {
	attrs := graph.Attrs{}
	for name, a := range c.n.Attrs {
		switch {
		case name != "channels_last":
			attrs[name] = a
		case a.Int != 0:
			c.refuse("channels_last")
			return
		}
	}
	c.quantized(op, version, 1, attrs)
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
