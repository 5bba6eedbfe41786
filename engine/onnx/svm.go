package onnx

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

var svmAttrs = map[string]bool{
	"classlabels_ints": true, "classlabels_strings": true, "coefficients": true, "kernel_params": true, "kernel_type": true,
	"n_supports": true, "one_class": true, "post_transform": true, "prob_a": true, "prob_b": true, "rho": true,
	"support_vectors": true, "vectors_per_class": true,
}

// lowerSVM splits a support vector machine in the kernel, the decisions and what
// is made of them, so that a gradient can ask for the decisions.
func lowerSVM(n *graph.Node) ([]*graph.Node, error) {
	refuse := func(reason string) error {
		return &engine.UnsupportedError{What: "operator " + n.Title(), Version: fmt.Sprint(n.Version), Node: n.Label(), Reason: reason}
	}
	for name := range n.Attrs {
		if !svmAttrs[name] {
			return nil, refuse(fmt.Sprintf("attribute %q", name))
		}
	}
	if v := n.Attrs["post_transform"].String; v != "" && v != "NONE" {
		return nil, refuse(fmt.Sprintf("post_transform %q", v))
	}
	if len(n.Inputs) != 1 || len(n.Outputs) == 0 || len(n.Outputs) > 2 {
		return nil, corrupt("node %q (%s) has %d inputs and %d outputs", n.Label(), n.Title(), len(n.Inputs), len(n.Outputs))
	}
	local := func(op, in string, out []string, attrs graph.Attrs) *graph.Node {
		return &graph.Node{Name: n.Name, Domain: graph.DomainLocal, Op: op, Version: n.Version, Inputs: []string{in}, Outputs: out, Attrs: attrs}
	}
	scores := n.Outputs[len(n.Outputs)-1]
	inner, margin := scores+"/kernel", scores+MarginSuffix
	kernel := func(vectors int64) *graph.Node {
		attrs := graph.Attrs{
			"vectors": {Kind: graph.AttrInt, Int: vectors}, "support_vectors": n.Attrs["support_vectors"],
			"kernel_params": n.Attrs["kernel_params"], "kernel_type": n.Attrs["kernel_type"],
		}
		if attrs["kernel_type"].String == "" {
			attrs["kernel_type"] = graph.Attr{Kind: graph.AttrString, String: "LINEAR"}
		}
		return local(graph.OpSVMKernel, n.Inputs[0], []string{inner}, attrs)
	}
	if n.Op == "SVMRegressor" {
		none := graph.Attrs{"post_transform": {Kind: graph.AttrString, String: "NONE"}}
		linear := graph.Attrs{"coefficients": n.Attrs["coefficients"], "intercepts": n.Attrs["rho"], "targets": {Kind: graph.AttrInt, Int: 1}}
		last := []*graph.Node{local(graph.OpPostTransform, margin, n.Outputs, none)}
		if n.Attrs["one_class"].Int != 0 {
			last[0].Outputs = []string{scores + "/float"}
			signs, err := oneClass(n, last[0].Outputs[0], scores)
			if err != nil {
				return nil, err
			}
			last = append(last, signs...)
		}
		vectors := n.Attrs["n_supports"].Int
		if vectors == 0 {
			return append([]*graph.Node{local(graph.OpLinearScores, n.Inputs[0], []string{margin}, linear)}, last...), nil
		}
		return append([]*graph.Node{kernel(vectors), local(graph.OpLinearScores, inner, []string{margin}, linear)}, last...), nil
	}
	per := n.Attrs["vectors_per_class"].Ints
	if len(per) == 0 {
		return nil, refuse("without support vectors")
	}
	total := int64(0)
	for _, c := range per {
		if c < 0 || c > 1<<31 {
			return nil, corrupt("node %q (%s) has %d support vectors of a class", n.Label(), n.Title(), c)
		}
		total += c
	}
	finish := graph.Attrs{}
	for _, name := range []string{"classlabels_ints", "classlabels_strings", "prob_a", "prob_b"} {
		if a, ok := n.Attrs[name]; ok && len(a.Ints)+len(a.Strings)+len(a.Floats) > 0 {
			finish[name] = a
		}
	}
	if labels := len(finish["classlabels_ints"].Ints) + len(finish["classlabels_strings"].Strings); labels != len(per) {
		return nil, corrupt("node %q (%s) has %d labels for %d classes", n.Label(), n.Title(), labels, len(per))
	}
	pairs := graph.Attrs{"vectors_per_class": n.Attrs["vectors_per_class"], "coefficients": n.Attrs["coefficients"], "rho": n.Attrs["rho"]}
	return []*graph.Node{
		kernel(total), local(graph.OpSVMPairs, inner, []string{margin}, pairs),
		local(graph.OpSVMOutput, margin, n.Outputs, finish),
	}, nil
}

// oneClass makes of a margin what onnxruntime does for a machine that knows one class: 1
// where it is above zero, -1 elsewhere.
func oneClass(n *graph.Node, margin, scores string) ([]*graph.Node, error) {
	var list []*graph.Node
	node := func(op string, version int, out string, attrs graph.Attrs, in ...string) string {
		list = append(list, &graph.Node{Name: n.Name, Op: op, Version: version, Inputs: in, Outputs: []string{out}, Attrs: attrs})
		return out
	}
	number := func(name string, v float32) (string, error) {
		t, err := engine.Of([]float32{v}, []int{}...)
		if err != nil {
			return "", err
		}
		return node("Constant", 13, scores+name, graph.Attrs{"value": {Kind: graph.AttrTensor, Tensor: t}}), nil
	}
	var names [3]string
	for i, v := range []float32{0, 1, -1} {
		var err error
		if names[i], err = number(fmt.Sprintf("/class%d", i), v); err != nil {
			return nil, err
		}
	}
	inside := node("Greater", 13, scores+"/inside", graph.Attrs{}, margin, names[0])
	node("Where", 16, scores, graph.Attrs{}, inside, names[1], names[2])
	return list, nil
}
