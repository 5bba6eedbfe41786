package onnx

import (
	"fmt"
	"slices"

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

	"SkipLayerNormalization":           {3, 5, 4, []string{"epsilon"}, (*contrib).skipNorm},
	"SkipSimplifiedLayerNormalization": {3, 4, 4, []string{"epsilon"}, (*contrib).simpleSkipNorm},
	"DynamicQuantizeMatMul":            {3, 5, 1, nil, (*contrib).dynamicMatMul},

	"FusedConv":       {2, 4, 1, append([]string{"activation", "activation_params"}, convAttrs...), (*contrib).fusedConv},
	"FusedGemm":       {2, 3, 1, []string{"activation", "activation_alpha", "activation_beta", "activation_gamma", "alpha", "beta", "transA", "transB"}, (*contrib).fusedGemm},
	"TransposeMatMul": {2, 2, 1, []string{"alpha", "transA", "transB"}, (*contrib).fusedMatMul},
	"Trilu":           {1, 2, 1, []string{"upper"}, func(c *contrib) { c.renamed("Trilu", 14, c.n.Attrs, c.n.Inputs...) }},
	"GatherND":        {2, 2, 1, nil, func(c *contrib) { c.renamed("GatherND", 12, nil, c.n.Inputs...) }},
	"Pad":             {2, 3, 1, []string{"mode"}, (*contrib).pad},
	"Range":           {2, 3, 1, nil, (*contrib).span},
	"Unique":          {1, 1, 3, nil, (*contrib).unique},
	"CDist":           {2, 2, 1, []string{"metric"}, (*contrib).distances},
	"GridSample":      {2, 2, 1, []string{"align_corners", "mode", "padding_mode"}, (*contrib).gridSample},
	"ExpandDims": {2, 2, 1, nil, func(c *contrib) {
		c.renamed("Unsqueeze", 13, nil, c.in(0), c.node("Reshape", 13, "", nil, c.node("Cast", 13, "", graph.Attrs{"to": intAttr(7)}, c.in(1)), c.ints(false, 1)))
	}},

	"QGemm":                    {6, 9, 1, []string{"alpha", "transA", "transB"}, (*contrib).quantizedGemm},
	"QLinearSoftmax":           {5, 5, 1, []string{"axis", "opset"}, (*contrib).quantizedSoftmax},
	"QLinearAdd":               {8, 8, 1, nil, func(c *contrib) { c.quantized("Add", 14, 2, nil) }},
	"QLinearMul":               {8, 8, 1, nil, func(c *contrib) { c.quantized("Mul", 14, 2, nil) }},
	"QLinearSigmoid":           {5, 5, 1, nil, func(c *contrib) { c.quantized("Sigmoid", 13, 1, nil) }},
	"QLinearGlobalAveragePool": {5, 5, 1, []string{"channels_last"}, func(c *contrib) { c.quantizedPool("GlobalAveragePool", 1) }},
	"QLinearAveragePool":       {5, 5, 1, []string{"channels_last", "auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"}, func(c *contrib) { c.quantizedPool("AveragePool", 11) }},
	"QLinearConv":              {8, 9, 1, append([]string{"channels_last"}, convAttrs...), (*contrib).quantizedConv},
	"NhwcMaxPool":              {1, 1, 1, []string{"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"}, (*contrib).lastMaxPool},
	"QLinearWhere":             {9, 9, 1, nil, (*contrib).quantizedWhere},
	"QuantizeLinear":           {2, 3, 1, []string{"axis"}, func(c *contrib) { c.scaled("QuantizeLinear") }},
	"DequantizeLinear":         {2, 3, 1, []string{"axis"}, func(c *contrib) { c.scaled("DequantizeLinear") }},
	"MatMulIntegerToFloat":     {4, 7, 1, nil, (*contrib).productToFloat},
	"QAttention":               {5, 9, 2, []string{"num_heads", "unidirectional", "mask_filter_value", "scale", "do_rotary", "past_present_share_buffer"}, (*contrib).quantizedAttention},
	"QEmbedLayerNormalization": {18, 18, 2, []string{"epsilon"}, (*contrib).quantizedEmbed},
	"DynamicQuantizeLSTM":      {12, 12, 3, []string{"activation_alpha", "activation_beta", "activations", "direction", "hidden_size", "input_forget"}, (*contrib).dynamicLSTM},
	"QLinearConcat":            {5, 1 << 16, 1, []string{"axis"}, (*contrib).quantizedConcat},
	"QLinearLeakyRelu":         {5, 5, 1, []string{"alpha"}, func(c *contrib) { c.quantized("LeakyRelu", 16, 1, c.n.Attrs) }},
}

// convAttrs are those of ONNX's own convolutions.
var convAttrs = []string{"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}

// mayLack are inputs that may be left out though others that must be there follow.
var mayLack = map[string][]int{
	"EmbedLayerNormalization":  {1, 4},
	"QEmbedLayerNormalization": {1, 4, 7, 10, 15},
	"DynamicQuantizeLSTM":      {3, 4, 5, 6, 7},
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
	if len(n.Inputs) < form.minIn || len(n.Inputs) > form.maxIn || len(n.Outputs) == 0 || len(n.Outputs) > form.maxOut || n.Outputs[0] == "" && n.Op != "DynamicQuantizeLSTM" {
		return nil, corrupt("node %q (%s) has %d inputs and %d outputs", n.Label(), n.Title(), len(n.Inputs), len(n.Outputs))
	}
	for i := range form.minIn {
		if n.Inputs[i] == "" && !slices.Contains(mayLack[n.Op], i) {
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

// skipNorm normalises the sum of an input, another and a bias.
func (c *contrib) skipNorm() {
	sum, epsilon := c.skipped(c.in(4))
	if c.err != nil {
		return
	}
	in := []string{sum, c.in(2)}
	if beta := c.in(3); beta != "" {
		in = append(in, beta)
	}
	c.node("LayerNormalization", 17, c.n.Outputs[0], graph.Attrs{"axis": {Kind: graph.AttrInt, Int: -1}, "epsilon": epsilon}, in...)
}
