package onnx

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// columnwise are the operators whose every element is made of the one at the same
// place, given that all else they take is constant.
var columnwise = map[string]bool{
	"Identity": true, "Cast": true, "Scaler": true, "Imputer": true, "Binarizer": true, "LabelEncoder": true, "CategoryMapper": true,
	"Clip": true, "Abs": true, "Neg": true, "Exp": true, "Log": true, "Sqrt": true, "Reciprocal": true, "Tanh": true, "Sigmoid": true,
	"Floor": true, "Ceil": true, "Round": true, "Sign": true, "IsNaN": true, "Not": true,
	"Add": true, "Sub": true, "Mul": true, "Div": true, "Pow": true, "Max": true, "Min": true,
	"Equal": true, "Less": true, "Greater": true, "LessOrEqual": true, "GreaterOrEqual": true,
}

// movers are the operators that only move elements within their rows.
var movers = map[string]bool{
	"Concat": true, "Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Slice": true, "Gather": true,
	"ArrayFeatureExtractor": true,
}

// maxColumns bounds the columns followed from the inputs to the trees.
const maxColumns = 1 << 16

// columnsOf tells for each column of a matrix inside the graph the one feature it
// is made of, or nil where a column is made of several or that cannot be told.
// Values are followed as one row of whole numbers, the features, moved by the
// operators' own kernels.
func (w *walker) columnsOf(name string, info *engine.Info) []int32 {
	known := map[string]*engine.Tensor{}
	for i, s := range info.Inputs {
		var features []int64
		switch {
		case len(info.Inputs) > 1 || len(info.Features) == 1:
			features = []int64{int64(i)}
		case len(s.Shape) == 2:
			for j := range info.Features {
				features = append(features, int64(j))
			}
		}
		shape := []int{1, len(features)}
		if len(s.Shape) == 1 {
			shape = []int{1}
		}
		t, err := engine.Of(features, shape...)
		if err != nil {
			return nil
		}
		known[s.Name] = t
	}
	t := w.follow(name, known, map[string]bool{})
	if t == nil || len(t.Shape()) != 2 || t.Shape()[0] != 1 {
		return nil
	}
	var out []int32
	for _, f := range engine.Data[int64](t) {
		out = append(out, int32(f))
	}
	return out
}

// follow returns the features of a value's elements, or nil. Each value is tried
// once.
func (w *walker) follow(name string, known map[string]*engine.Tensor, tried map[string]bool) *engine.Tensor {
	if t := known[name]; t != nil {
		return t
	}
	n := w.program.Producer(name)
	if n == nil || tried[name] || len(tried) > maxColumns {
		return nil
	}
	tried[name] = true
	in := make([]*engine.Tensor, len(n.Inputs))
	var from *engine.Tensor
	varying := 0
	for i, input := range n.Inputs {
		if input == "" {
			continue
		}
		if in[i] = w.program.Constant(input); in[i] != nil {
			continue
		}
		if in[i] = w.follow(input, known, tried); in[i] == nil {
			return nil
		}
		from = in[i]
		varying++
	}
	if varying == 0 || n.Outputs[0] != name || from.Len() > maxColumns {
		return nil
	}
	t := w.through(n, in, from, varying)
	if t == nil || t.Len() > maxColumns || len(t.Shape()) == 0 || t.Shape()[0] != 1 {
		return nil
	}
	known[name] = t
	return t
}

// through returns the features of what node n makes of in.
func (w *walker) through(n *graph.Node, in []*engine.Tensor, from *engine.Tensor, varying int) *engine.Tensor {
	switch {
	case n.Op == "OneHotEncoder":
		k := len(n.Attrs["cats_int64s"].Ints) + len(n.Attrs["cats_strings"].Strings)
		return repeated(from, k)
	case movers[n.Op] && (varying == 1 || n.Op == "Concat" && varying == len(in)):
		if n.Op != "Concat" && from != in[0] {
			return nil
		}
		out, err := graph.Moved(n, in)
		if err != nil || len(out) != 1 || engine.Data[int64](out[0]) == nil {
			return nil
		}
		return out[0]
	case columnwise[n.Op] && varying == 1:
		for _, t := range in {
			if t != nil && t != from && !w.spreads(t, from) {
				return nil
			}
		}
		return from
	}
	return nil
}

// spreads reports whether a constant meets each element of a row without making
// the row larger.
func (w *walker) spreads(constant, row *engine.Tensor) bool {
	if constant.Len() == 1 && len(constant.Shape()) <= len(row.Shape()) {
		return true
	}
	shape, err := graph.BroadcastShape(constant.Shape(), row.Shape())
	return err == nil && fits(shape, row.Shape())
}

// repeated gives every element k places of its own, along a last dimension.
func repeated(t *engine.Tensor, k int) *engine.Tensor {
	if k < 1 || k > maxColumns || t.Len() > maxColumns/k {
		return nil
	}
	var out []int64
	for _, f := range engine.Data[int64](t) {
		for range k {
			out = append(out, f)
		}
	}
	r, err := engine.Of(out, append(append([]int{}, t.Shape()...), k)...)
	if err != nil {
		return nil
	}
	return r
}

// groups names for each column the first that is made of the same feature.
func groups(features []int32) []int32 {
	if features == nil {
		return nil
	}
	first := map[int32]int32{}
	out := make([]int32, len(features))
	for i, f := range features {
		if _, ok := first[f]; !ok {
			first[f] = int32(i)
		}
		out[i] = first[f]
	}
	return out
}
