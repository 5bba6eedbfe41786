package onnx

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// ints is a constant of whole numbers, or of one as a scalar.
func (c *contrib) ints(scalar bool, v ...int64) string {
	shape := []int{len(v)}
	if scalar {
		shape = nil
	}
	t, err := engine.Of(v, shape...)
	if err != nil {
		c.err = err
		return ""
	}
	return c.node("Constant", 13, "", graph.Attrs{"value": {Kind: graph.AttrTensor, Tensor: t}})
}

func intAttr(v int64) graph.Attr { return graph.Attr{Kind: graph.AttrInt, Int: v} }

// attention makes queries, keys and values with one product and leaves the rest to
// MultiHeadAttention, which has the same masks. The past lies in one tensor here.
func (c *contrib) attention() {
	const mask, past, added, length = 3, 4, 5, 6
	if c.in(length) != "" {
		c.refuse("a past that shares the present's memory")
		return
	}
	all := c.add(c.node("MatMul", 13, "", nil, c.in(0), c.in(1)), c.in(2))
	c.heads(all, c.in(mask), c.in(past), c.in(added))
}

// heads is attention of queries, keys and values that lie side by side.
func (c *contrib) heads(all, mask, past, added string) {
	switch {
	case c.n.Attrs["do_rotary"].Int != 0:
		c.refuse("do_rotary")
	case c.n.Attrs["past_present_share_buffer"].Int != 0:
		c.refuse("a past that shares the present's memory")
	}
	if c.err != nil {
		return
	}
	split := &graph.Node{Name: c.n.Name, Op: "Split", Version: 18, Inputs: []string{all}, Attrs: graph.Attrs{"axis": intAttr(-1)}}
	if sizes := c.n.Attrs["qkv_hidden_sizes"].Ints; len(sizes) > 0 {
		split.Inputs = append(split.Inputs, c.ints(false, sizes...))
	} else {
		split.Attrs["num_outputs"] = intAttr(3)
	}
	own := c.n.Outputs[0] + "/contrib"
	split.Outputs = []string{own + "q", own + "k", own + "v"}
	c.nodes = append(c.nodes, split)
	heads := &graph.Node{
		Name: c.n.Name, Domain: domainContrib, Op: "MultiHeadAttention", Version: 1, Attrs: graph.Attrs{},
		Inputs: []string{own + "q", own + "k", own + "v", "", mask, added, "", ""}, Outputs: []string{c.n.Outputs[0]},
	}
	for _, name := range []string{"num_heads", "unidirectional", "mask_filter_value", "scale"} {
		if a, ok := c.n.Attrs[name]; ok {
			heads.Attrs[name] = a
		}
	}
	for i := range 2 {
		if past != "" {
			heads.Inputs[6+i] = c.node("Gather", 13, "", nil, past, c.ints(true, int64(i)))
		}
	}
	c.nodes = append(c.nodes, heads)
	if len(c.n.Outputs) < 2 || c.n.Outputs[1] == "" {
		return
	}
	heads.Outputs = append(heads.Outputs, own+"pk", own+"pv")
	first := c.ints(false, 0)
	c.node("Concat", 13, c.n.Outputs[1], graph.Attrs{"axis": intAttr(0)}, c.node("Unsqueeze", 13, "", nil, own+"pk", first), c.node("Unsqueeze", 13, "", nil, own+"pv", first))
}

// embed adds up to three embeddings and normalises the sum. Beside it there is how many
// of a row's mask are 1.
func (c *contrib) embed() {
	const segments, words, kinds, gamma, beta, mask, at = 1, 2, 4, 5, 6, 7, 8
	if (c.in(segments) == "") != (c.in(kinds) == "") {
		c.err = corrupt("node %q (%s) has segments without their embedding, or the other way round", c.n.Label(), c.n.Title())
		return
	}
	rows := func(i int, ids string) string { return c.node("Gather", 13, "", nil, c.in(words+i), ids) }
	c.embedded([3]string{c.in(0), c.in(segments), c.in(at)}, rows, c.in(gamma), c.in(beta), c.in(mask))
}

// embedded is the normalised sum of rows of three tables: of words, of places and of
// segments, whose ids are given, where there are some.
func (c *contrib) embedded(ids [3]string, rows func(table int, ids string) string, gamma, beta, mask string) {
	sum := rows(0, ids[0])
	at := ids[2]
	if at == "" {
		steps := c.node("Squeeze", 13, "", nil, c.node("Shape", 15, "", graph.Attrs{"start": intAttr(1), "end": intAttr(2)}, ids[0]))
		at = c.node("Range", 11, "", nil, c.ints(true, 0), steps, c.ints(true, 1))
	}
	sum = c.node("Add", 14, "", nil, sum, rows(1, at))
	if s := ids[1]; s != "" {
		sum = c.node("Add", 14, "", nil, sum, rows(2, s))
	}
	if len(c.n.Outputs) == 3 && c.n.Outputs[2] != "" {
		sum = c.node("Identity", 14, c.n.Outputs[2], nil, sum)
	}
	c.node("LayerNormalization", 17, c.n.Outputs[0], graph.Attrs{"axis": intAttr(-1), "epsilon": c.normEpsilon()}, sum, gamma, beta)
	if len(c.n.Outputs) < 2 || c.n.Outputs[1] == "" {
		return
	}
	int32s := graph.Attrs{"to": intAttr(6)}
	if mask != "" {
		one := c.node("CastLike", 15, "", nil, c.ints(true, 1), mask)
		ones := c.node("Cast", 13, "", int32s, c.node("Equal", 13, "", nil, mask, one))
		c.node("ReduceSum", 13, c.n.Outputs[1], graph.Attrs{"keepdims": intAttr(0)}, ones, c.ints(false, 1))
		return
	}
	count := c.node("Shape", 15, "", graph.Attrs{"end": intAttr(1)}, ids[0])
	c.node("Expand", 13, c.n.Outputs[1], nil, c.node("Cast", 13, "", int32s, c.ints(true, 0)), count)
}
