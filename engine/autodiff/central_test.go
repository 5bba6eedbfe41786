package autodiff

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// check is one operator on float64 inputs whose every derivative is held against
// central differences. Dimension 0 of inputs is rows unless whole is set.
type check struct {
	op, domain string
	version    int // 0 means 20
	// in are the shapes of the float inputs, all of them differentiated; constants
	// come after them.
	in        [][]int
	constants []*engine.Tensor
	attrs     graph.Attrs
	// lo and hi bound the inputs' values; both 0 means -2 to 2.
	lo, hi float64
	// target is the output differentiated, and outs the number of outputs.
	target, outs int
	// whole says that rows influence each other: the one row is everything.
	whole bool
	// free makes inputs of the constants of floats that have a rule.
	free bool
	// by are the inputs that the test of a check without in differentiates by.
	by []int
}

func aInt(v int64) graph.Attr         { return graph.Attr{Kind: graph.AttrInt, Int: v} }
func aFloat(v float32) graph.Attr     { return graph.Attr{Kind: graph.AttrFloat, Float: v} }
func aString(v string) graph.Attr     { return graph.Attr{Kind: graph.AttrString, String: v} }
func aInts(v ...int64) graph.Attr     { return graph.Attr{Kind: graph.AttrInts, Ints: v} }
func aFloats(v ...float32) graph.Attr { return graph.Attr{Kind: graph.AttrFloats, Floats: v} }

func ints(v ...int64) *engine.Tensor { return tensor(v, len(v)) }

func tensor[T engine.Element](v []T, shape ...int) *engine.Tensor {
	t, err := engine.Of(v, shape...)
	if err != nil {
		panic(err)
	}
	return t
}

// noise is a constant of random numbers between 0.3 and 1.5.
func noise(shape ...int) *engine.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	r := rand.New(rand.NewPCG(uint64(n), 7))
	v := make([]float64, n)
	for i := range v {
		v[i] = 0.3 + 1.2*r.Float64()
	}
	return tensor(v, shape...)
}

var m23 = [][]int{{2, 3}}

// unaryChecks are the functions of one element, with where they are smooth.
func unaryChecks() []check {
	var list []check
	for _, op := range []string{
		"Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Exp", "Erf", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Relu", "Sigmoid", "Tanh",
		"Softplus", "Softsign", "LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid", "HardSwish", "Mish", "Gelu", "ThresholdedRelu", "Identity", "Dropout",
	} {
		list = append(list, check{op: op, in: m23}, check{op: op, in: m23, lo: 2, hi: 4}, check{op: op, in: m23, lo: -5, hi: -2})
	}
	for _, op := range []string{"Sqrt", "Log", "Reciprocal"} {
		list = append(list, check{op: op, in: m23, lo: 0.5, hi: 3})
	}
	for _, op := range []string{"Asin", "Acos", "Atanh", "Tan"} {
		list = append(list, check{op: op, in: m23, lo: -0.8, hi: 0.8})
	}
	return append(list,
		check{op: "Acosh", in: m23, lo: 1.5, hi: 4},
		check{op: "Swish", version: 24, in: m23, attrs: graph.Attrs{"alpha": aFloat(1.7)}},
		check{op: "Gelu", in: m23, attrs: graph.Attrs{"approximate": aString("tanh")}},
		check{op: "Celu", in: m23, attrs: graph.Attrs{"alpha": aFloat(0.6)}},
		check{op: "Elu", in: m23, attrs: graph.Attrs{"alpha": aFloat(0.6)}},
		check{op: "Selu", in: m23, attrs: graph.Attrs{"alpha": aFloat(0.6), "gamma": aFloat(2)}},
		check{op: "LeakyRelu", in: m23, attrs: graph.Attrs{"alpha": aFloat(0.3)}},
		check{op: "HardSigmoid", in: m23, attrs: graph.Attrs{"alpha": aFloat(0.3), "beta": aFloat(0.4)}},
		check{op: "Clip", in: m23, constants: []*engine.Tensor{tensor([]float64{-1}), tensor([]float64{0.5})}},
		check{op: "Clip", in: m23, constants: []*engine.Tensor{nil, tensor([]float64{0.5})}},
		check{op: "Clip", in: m23, constants: []*engine.Tensor{tensor([]float64{0.5}), tensor([]float64{-1})}},
		check{op: "Clip", in: [][]int{{2, 3}, {3}, {2, 1}}, whole: true},
		check{op: "Clip", in: [][]int{{1, 1}}, constants: []*engine.Tensor{noise(3)}, whole: true},
		check{op: "Clip", version: 10, in: m23, attrs: graph.Attrs{"min": aFloat(-1), "max": aFloat(0.5)}},
		check{op: "Cast", in: m23, attrs: graph.Attrs{"to": aInt(11)}},
		check{op: "CastLike", in: m23, constants: []*engine.Tensor{noise(1)}},
	)
}

func binaryChecks() []check {
	var list []check
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"} {
		list = append(list,
			check{op: op, in: [][]int{{2, 3}, {2, 3}}, lo: 0.5, hi: 3},
			check{op: op, in: [][]int{{2, 3}}, constants: []*engine.Tensor{noise(3)}, lo: 0.5, hi: 3},
			check{op: op, in: [][]int{{2, 1}, {2, 3}}, lo: 0.5, hi: 3},
			check{op: op, in: [][]int{{3}, {2, 2, 3}}, lo: 0.5, hi: 3, whole: true})
	}
	return append(list,
		check{op: "Pow", in: m23, constants: []*engine.Tensor{tensor([]float64{3})}},
		check{op: "Max", in: [][]int{{2, 3}, {2, 3}, {2, 3}}},
		check{op: "PRelu", in: [][]int{{2, 3}, {3}}, whole: true},
		check{op: "PRelu", in: [][]int{{2, 3, 4}}, constants: []*engine.Tensor{noise(3, 1)}},
		check{op: "Gemm", in: [][]int{{2, 3}}, constants: []*engine.Tensor{noise(3, 4), noise(4)}, attrs: graph.Attrs{"alpha": aFloat(0.5), "beta": aFloat(2)}},
		check{op: "Gemm", in: [][]int{{3, 2}, {4, 3}, {1, 4}}, attrs: graph.Attrs{"transA": aInt(1), "transB": aInt(1)}, whole: true},
		check{op: "Gemm", in: [][]int{{2, 3}, {4, 3}}, attrs: graph.Attrs{"transB": aInt(1)}, whole: true},
		check{op: "Gemm", in: [][]int{{3, 2}, {3, 4}, {2, 1}}, attrs: graph.Attrs{"transA": aInt(1), "alpha": aFloat(0.5)}, whole: true},
		check{op: "Gemm", in: [][]int{{2, 3}, {3, 1}, {}}, whole: true},
		check{op: "MatMul", in: [][]int{{2, 3}, {3, 4}}, whole: true},
		check{op: "MatMul", in: [][]int{{2, 2, 3}, {2, 3, 4}}},
		check{op: "MatMul", in: [][]int{{2, 1, 2, 3}, {4, 3, 2}}, whole: true},
		check{op: "MatMul", in: [][]int{{3}, {3, 2}}, whole: true},
		check{op: "MatMul", in: [][]int{{2, 3}, {3}}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3}, {3, 4}}, attrs: graph.Attrs{"equation": aString("bi,ij->bj")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3}, {3, 3}, {2, 3}}, attrs: graph.Attrs{"equation": aString("bi,ij,bj->b")}, whole: true},
		check{op: "Einsum", in: [][]int{{3, 3}}, attrs: graph.Attrs{"equation": aString("ii")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3, 3}, {3, 4}}, attrs: graph.Attrs{"equation": aString("bii,ij->jb")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3}, {4, 2}}, attrs: graph.Attrs{"equation": aString("ij,kl->il")}, whole: true},
		check{op: "Einsum", in: [][]int{{1, 2, 3}, {2, 1, 3}}, attrs: graph.Attrs{"equation": aString("...i,...i->...")}, whole: true},
		check{op: "Einsum", in: [][]int{{1, 3}, {2, 3}}, attrs: graph.Attrs{"equation": aString("...i,...i->i")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 6, 5}, {2, 7, 5}}, attrs: graph.Attrs{"equation": aString("bid,bjd->bij")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3}, {3, 4}, {4, 2}, {2}}, attrs: graph.Attrs{"equation": aString("ab,bc,cd,a->ad")}, whole: true},
		check{op: "Einsum", in: [][]int{{2, 3, 4}}, attrs: graph.Attrs{"equation": aString("abc->ca")}, whole: true},
		check{op: "Einsum", in: slices.Repeat([][]int{{2}}, 16), attrs: graph.Attrs{"equation": aString(strings.Repeat("a,", 15) + "a->a")}, lo: 0.8, hi: 1.2, whole: true},
		check{op: "Where", in: nil, whole: true}, // see TestWhere
	)
}

func moveChecks() []check {
	shape := [][]int{{2, 2, 3}}
	return []check{
		{op: "Reshape", in: shape, constants: []*engine.Tensor{ints(0, -1)}},
		{op: "Flatten", in: shape},
		{op: "Squeeze", in: [][]int{{2, 1, 3}}, constants: []*engine.Tensor{ints(1)}},
		{op: "Unsqueeze", in: shape, constants: []*engine.Tensor{ints(1)}},
		{op: "Transpose", in: shape, attrs: graph.Attrs{"perm": aInts(0, 2, 1)}},
		{op: "Slice", in: shape, constants: []*engine.Tensor{ints(2), ints(-9), ints(2), ints(-2)}},
		{op: "Expand", in: [][]int{{2, 1, 3}}, constants: []*engine.Tensor{ints(2, 4, 3)}},
		{op: "Tile", in: shape, constants: []*engine.Tensor{ints(1, 2, 2)}},
		{op: "Gather", in: shape, constants: []*engine.Tensor{tensor([]int64{2, 0, -1, 2}, 2, 2)}, attrs: graph.Attrs{"axis": aInt(2)}},
		{op: "GatherElements", in: m23, constants: []*engine.Tensor{tensor([]int64{2, 0, 1, 1}, 2, 2)}, attrs: graph.Attrs{"axis": aInt(1)}},
		{op: "GatherND", in: m23, constants: []*engine.Tensor{tensor([]int64{0, 2, 1, 0, 0, 2}, 3, 2)}, whole: true},
		{op: "GatherND", in: shape, constants: []*engine.Tensor{tensor([]int64{1, 0}, 2, 1)}, attrs: graph.Attrs{"batch_dims": aInt(1)}},
		{op: "ScatterND", in: nil, whole: true}, // see TestScatterND
		{op: "Split", in: m23, constants: []*engine.Tensor{ints(1, 2)}, attrs: graph.Attrs{"axis": aInt(1)}, outs: 2, target: 1},
		{op: "Concat", in: [][]int{{2, 3}, {2, 2}}, attrs: graph.Attrs{"axis": aInt(1)}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(0, 1, 0, 2), tensor([]float64{7})}},
		{op: "Pad", in: shape, constants: []*engine.Tensor{ints(1, 2), tensor([]float64{7}), ints(-1)}},
		{op: "Pad", version: 10, in: m23, attrs: graph.Attrs{"pads": aInts(0, 1, 0, -1), "value": aFloat(1)}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(0, 2, 0, 1)}, attrs: graph.Attrs{"mode": aString("reflect")}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(0, 2, 0, 4)}, attrs: graph.Attrs{"mode": aString("edge")}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(0, 2, 0, 4)}, attrs: graph.Attrs{"mode": aString("wrap")}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(1, -1, 1, 2)}, attrs: graph.Attrs{"mode": aString("wrap")}},
		{op: "Pad", in: m23, constants: []*engine.Tensor{ints(-1, 1, 0, -1)}, attrs: graph.Attrs{"mode": aString("reflect")}},
		{op: "DepthToSpace", in: [][]int{{1, 8, 2, 1}}, attrs: graph.Attrs{"blocksize": aInt(2)}},
		{op: "DepthToSpace", in: [][]int{{1, 8, 2, 1}}, attrs: graph.Attrs{"blocksize": aInt(2), "mode": aString("CRD")}},
		{op: "SpaceToDepth", in: [][]int{{1, 2, 4, 2}}, attrs: graph.Attrs{"blocksize": aInt(2)}},
		{op: "Trilu", in: [][]int{{1, 3, 3}}, constants: []*engine.Tensor{tensor([]int64{1})}},
		{op: "Trilu", in: [][]int{{1, 3, 3}}, attrs: graph.Attrs{"upper": aInt(0)}},
		{op: "Compress", in: m23, constants: []*engine.Tensor{tensor([]bool{true, false, true}, 3)}, attrs: graph.Attrs{"axis": aInt(1)}},
		{op: "Det", in: [][]int{{2, 3, 3}}},
		{op: "Det", in: [][]int{{1, 1}}, whole: true},
		{op: "OneHot", constants: []*engine.Tensor{tensor([]int64{2, 0, -1, 9}, 2, 2), ints(3), tensor([]float64{-0.5, 2}, 2)}, in: [][]int{}, attrs: graph.Attrs{"axis": aInt(1)}, whole: true},
		{op: "OneHot", constants: []*engine.Tensor{tensor([]float64{1, 0}, 2), tensor([]float64{2}), tensor([]float64{-0.5, 2}, 2)}, in: [][]int{}, whole: true},
		{op: "Range", constants: []*engine.Tensor{tensor([]float64{0.5}), tensor([]float64{3.2}), tensor([]float64{0.75})}, in: [][]int{}, whole: true},
		{op: "DequantizeLinear", constants: []*engine.Tensor{tensor([]int8{3, -4, 5, 0, 7, -128}, 2, 3), noise(3), tensor([]int8{1, 0, -2}, 3)}, in: [][]int{}, whole: true},
		{op: "TopK", in: m23, constants: []*engine.Tensor{ints(2)}},
		{op: "TopK", in: shape, constants: []*engine.Tensor{ints(1)}, attrs: graph.Attrs{"axis": aInt(1), "largest": aInt(0)}},
		{op: "CumSum", in: m23, constants: []*engine.Tensor{ints(1)}},
		{op: "CumSum", in: shape, constants: []*engine.Tensor{ints(-2)}, attrs: graph.Attrs{"exclusive": aInt(1), "reverse": aInt(1)}},
		{op: "TopK", in: m23, constants: []*engine.Tensor{ints(2)}, outs: 2},
		{op: "TopK", in: shape, constants: []*engine.Tensor{ints(1)}, attrs: graph.Attrs{"axis": aInt(1), "largest": aInt(0)}, outs: 2},
	}
}

func reduceChecks() []check {
	var list []check
	for _, op := range []string{"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"} {
		list = append(list,
			check{op: op, in: [][]int{{2, 3, 2}}, constants: []*engine.Tensor{ints(1)}},
			check{op: op, in: [][]int{{2, 3, 2}}, constants: []*engine.Tensor{ints(-1, 1)}, attrs: graph.Attrs{"keepdims": aInt(0)}})
	}
	for target := range 3 { // in training rows influence each other
		list = append(list, check{
			op: "BatchNormalization", in: [][]int{{2, 3, 2}}, constants: []*engine.Tensor{noise(3), noise(3), noise(3), noise(3)},
			outs: 3, target: target, whole: true, attrs: graph.Attrs{"training_mode": aInt(1), "momentum": aFloat(0.7)},
		})
	}
	return append(list,
		check{op: "ReduceLogSum", in: m23, constants: []*engine.Tensor{ints(1)}, lo: 0.5, hi: 2},
		check{op: "Softmax", in: m23}, check{op: "LogSoftmax", in: m23},
		check{op: "Softmax", in: [][]int{{2, 3, 2}}, attrs: graph.Attrs{"axis": aInt(1)}},
		check{op: "LogSoftmax", version: 11, in: [][]int{{2, 3, 2}}, attrs: graph.Attrs{"axis": aInt(1)}},
		check{op: "LpNormalization", in: m23}, check{op: "LpNormalization", in: [][]int{{2, 3, 2}}, attrs: graph.Attrs{"axis": aInt(1), "p": aInt(1)}},
		check{op: "BatchNormalization", in: [][]int{{2, 3, 2}}, constants: []*engine.Tensor{noise(3), noise(3), noise(3), noise(3)}},
		check{op: "LayerNormalization", in: [][]int{{2, 3}}, constants: []*engine.Tensor{noise(3), noise(3)}},
		check{op: "BatchNormalization", in: [][]int{{4, 3}}, constants: []*engine.Tensor{noise(3), noise(3), noise(3), noise(3)}, whole: true},
		check{op: "LayerNormalization", in: [][]int{{2, 3}}, constants: []*engine.Tensor{noise(1), noise(1)}, outs: 3},
		check{op: "LayerNormalization", in: [][]int{{2, 3}}, constants: []*engine.Tensor{noise(3)}, outs: 3, target: 1},
		check{op: "LayerNormalization", in: [][]int{{2, 2, 2}}, constants: []*engine.Tensor{noise(4)}, outs: 3, target: 2, attrs: graph.Attrs{"axis": aInt(1), "epsilon": aFloat(0.1)}},
		check{op: "LayerNormalization", in: [][]int{{2, 3, 4}}, constants: []*engine.Tensor{noise(3, 4)}, attrs: graph.Attrs{"axis": aInt(1), "epsilon": aFloat(0.1)}},
		check{op: "InstanceNormalization", in: [][]int{{2, 3, 4}}, constants: []*engine.Tensor{noise(3), noise(3)}},
		check{op: "GroupNormalization", version: 21, in: [][]int{{2, 4, 3}}, constants: []*engine.Tensor{noise(4), noise(4)}, attrs: graph.Attrs{"num_groups": aInt(2)}},
		check{op: "GroupNormalization", version: 18, in: [][]int{{2, 4, 3}}, constants: []*engine.Tensor{noise(2), noise(2)}, attrs: graph.Attrs{"num_groups": aInt(2)}},
	)
}

func spatialChecks() []check {
	image := [][]int{{2, 2, 5, 4}}
	scales := []*engine.Tensor{nil, tensor([]float32{1, 1, 2, 1.5}, 4)}
	list := []check{
		{op: "Conv", in: image, constants: []*engine.Tensor{noise(3, 2, 3, 2), noise(3)}},
		{op: "Conv", in: image, constants: []*engine.Tensor{noise(4, 1, 2, 2)}, attrs: graph.Attrs{"group": aInt(2), "strides": aInts(2, 1), "dilations": aInts(1, 2), "pads": aInts(1, 0, 0, 2)}},
		{op: "Conv", in: image, constants: []*engine.Tensor{noise(2, 2, 3, 3)}, attrs: graph.Attrs{"auto_pad": aString("SAME_LOWER"), "strides": aInts(2, 2)}},
		{op: "Conv", in: [][]int{{2, 2, 6}}, constants: []*engine.Tensor{noise(3, 2, 3)}},
		{op: "ConvTranspose", in: image, constants: []*engine.Tensor{noise(2, 3, 3, 2), noise(3)}, attrs: graph.Attrs{"strides": aInts(2, 1), "pads": aInts(1, 0, 1, 1), "output_padding": aInts(1, 0)}},
		{op: "ConvTranspose", in: image, constants: []*engine.Tensor{noise(2, 2, 2, 2)}, attrs: graph.Attrs{"group": aInt(2), "dilations": aInts(2, 1)}},
		{op: "MaxPool", in: image, attrs: graph.Attrs{"kernel_shape": aInts(2, 3), "strides": aInts(2, 1), "pads": aInts(1, 1, 0, 0)}},
		{op: "MaxPool", in: image, attrs: graph.Attrs{"kernel_shape": aInts(2, 2), "strides": aInts(2, 3), "ceil_mode": aInt(1)}},
		{op: "AveragePool", in: image, attrs: graph.Attrs{"kernel_shape": aInts(3, 2), "pads": aInts(1, 1, 1, 0)}},
		{op: "AveragePool", in: image, attrs: graph.Attrs{"kernel_shape": aInts(3, 2), "pads": aInts(1, 1, 1, 0), "count_include_pad": aInt(1), "ceil_mode": aInt(1), "strides": aInts(3, 2)}},
		// A window larger than its input: one of three over two elements, and over the padded.
		{op: "MaxPool", in: [][]int{{2, 2, 2, 2}}, attrs: graph.Attrs{"kernel_shape": aInts(3, 3), "strides": aInts(2, 2), "ceil_mode": aInt(1)}},
		{op: "AveragePool", in: [][]int{{2, 2, 2, 2}}, attrs: graph.Attrs{"kernel_shape": aInts(3, 3), "strides": aInts(2, 2), "ceil_mode": aInt(1)}},
		{op: "AveragePool", in: [][]int{{2, 2, 1, 1}}, attrs: graph.Attrs{"kernel_shape": aInts(5, 5), "strides": aInts(3, 3), "pads": aInts(1, 1, 1, 1), "count_include_pad": aInt(1), "ceil_mode": aInt(1)}},
		{op: "GlobalAveragePool", in: image},
		{op: "GlobalMaxPool", in: image},
		{op: "Upsample", version: 9, in: image, constants: scales[1:], attrs: graph.Attrs{"mode": aString("nearest")}},
	}
	for _, coordinates := range []string{"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"} {
		for _, mode := range []string{"nearest", "linear"} {
			list = append(list, check{op: "Resize", in: image, constants: scales, attrs: graph.Attrs{"mode": aString(mode), "coordinate_transformation_mode": aString(coordinates)}})
		}
	}
	return list
}

// recurrentChecks: rows are the second dimension, so everything is one row.
func recurrentChecks() []check {
	var list []check
	for op, g := range map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4} {
		for target := range 2 {
			w := []*engine.Tensor{noise(1, g*2, 3), noise(1, g*2, 2), noise(1, 2*g*2)}
			hidden := graph.Attrs{"hidden_size": aInt(2)}
			list = append(list, check{op: op, in: [][]int{{3, 2, 3}}, constants: w, attrs: hidden, outs: 2, target: target, whole: true, lo: -0.5, hi: 0.5})
		}
		both := []*engine.Tensor{noise(2, g*2, 3), noise(2, g*2, 2), noise(2, 2*g*2), nil, noise(2, 2, 2)}
		list = append(list, check{
			op: op, in: [][]int{{3, 2, 3}}, constants: both, whole: true, lo: -0.5, hi: 0.5,
			attrs: graph.Attrs{"hidden_size": aInt(2), "direction": aString("bidirectional")},
		})
	}
	// An encoder's last state is where a decoder begins, also of rows that have no step.
	for op, g := range map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4} {
		for target := range 3 {
			for layout, lengths := range []*engine.Tensor{tensor([]int32{2, 0}, 2), nil} {
				x, state := []int{3, 2, 3}, noise(2, 2, 2)
				c := check{op: op, constants: []*engine.Tensor{noise(2, g*2, 3), noise(2, g*2, 2), noise(2, 2*g*2), lengths, state}, target: target, outs: 2, whole: true, lo: -0.5, hi: 0.5}
				if op == "LSTM" {
					c.outs, c.constants = 3, append(c.constants, noise(2, 2, 2), noise(2, 6))
				}
				if target >= c.outs {
					continue
				}
				if layout == 1 {
					x[0], x[1] = x[1], x[0]
				}
				c.in, c.attrs = [][]int{x}, graph.Attrs{"hidden_size": aInt(2), "direction": aString("bidirectional"), "layout": aInt(int64(layout))}
				list = append(list, c)
			}
		}
	}
	w := []*engine.Tensor{noise(1, 6, 3), noise(1, 6, 2)}
	return append(list,
		check{op: "GRU", in: [][]int{{3, 2, 3}}, constants: w, whole: true, attrs: graph.Attrs{"hidden_size": aInt(2), "linear_before_reset": aInt(1), "direction": aString("reverse")}},
		check{op: "LSTM", in: [][]int{{3, 2, 3}}, constants: []*engine.Tensor{noise(1, 8, 3), noise(1, 8, 2)}, outs: 3, target: 2, whole: true, attrs: graph.Attrs{"hidden_size": aInt(2)}},
		check{op: "RNN", in: [][]int{{3, 2, 3}}, constants: []*engine.Tensor{noise(1, 2, 3), noise(1, 2, 2)}, whole: true, attrs: graph.Attrs{"hidden_size": aInt(2), "activations": graph.Attr{Kind: graph.AttrStrings, Strings: []string{"Relu"}}}})
}

func mlChecks() []check {
	svm := func(kind string) graph.Attrs {
		return graph.Attrs{
			"vectors": aInt(2), "support_vectors": aFloats(0.3, -1, 2, 1, 0.5, -0.2), "kernel_type": aString(kind), "kernel_params": aFloats(0.4, 0.7, 3),
		}
	}
	list := []check{
		{op: graph.OpLinearScores, domain: graph.DomainLocal, version: 1, in: m23, attrs: graph.Attrs{"targets": aInt(2), "coefficients": aFloats(1, 2, 3, -1, 0.5, 0.2), "intercepts": aFloats(1, 2)}},
		{op: graph.OpSVMPairs, domain: graph.DomainLocal, version: 1, in: [][]int{{2, 5}}, attrs: graph.Attrs{"vectors_per_class": aInts(2, 1, 2), "coefficients": aFloats(1, 2, 3, 4, 5, -1, -2, -3, -4, -5), "rho": aFloats(0.1, 0.2, 0.3)}},
		{op: "Scaler", domain: graph.DomainML, version: 1, in: m23, attrs: graph.Attrs{"offset": aFloats(1, 2, 3), "scale": aFloats(0.5, 2, 3)}},
		{op: "Normalizer", domain: graph.DomainML, version: 1, in: m23, attrs: graph.Attrs{"norm": aString("L1")}},
		{op: "Normalizer", domain: graph.DomainML, version: 1, in: m23, attrs: graph.Attrs{"norm": aString("L2")}},
		{op: "Normalizer", domain: graph.DomainML, version: 1, in: m23, attrs: graph.Attrs{"norm": aString("MAX")}},
		{op: "Normalizer", domain: graph.DomainML, version: 1, in: m23, lo: -3, hi: -1},
		{op: "Imputer", domain: graph.DomainML, version: 1, in: m23, attrs: graph.Attrs{"imputed_value_floats": aFloats(1), "replaced_value_float": aFloat(9)}},
		{op: "ZipMap", domain: graph.DomainML, version: 1, in: m23},
		{op: "ArrayFeatureExtractor", domain: graph.DomainML, version: 1, in: m23, constants: []*engine.Tensor{ints(2, 0)}},
	}
	for _, kind := range []string{"LINEAR", "POLY", "RBF", "SIGMOID"} {
		list = append(list, check{op: graph.OpSVMKernel, domain: graph.DomainLocal, version: 1, in: m23, attrs: svm(kind)})
	}
	return list
}

// narrowChecks are of operators that make float32 whatever goes in.
func narrowChecks() []check {
	labels, two := aInts(0, 1, 2), aInts(0, 1)
	return []check{
		{op: graph.OpSVMOutput, domain: graph.DomainLocal, version: 1, in: m23, outs: 2, target: 1, attrs: graph.Attrs{"classlabels_ints": labels}},
		{op: graph.OpSVMOutput, domain: graph.DomainLocal, version: 1, in: [][]int{{2, 1}}, outs: 2, target: 1, attrs: graph.Attrs{"classlabels_ints": two}},
		{op: "FeatureVectorizer", domain: graph.DomainML, version: 1, in: [][]int{{2, 3}, {2, 1}}},
		{op: graph.OpPostTransform, domain: graph.DomainLocal, version: 1, in: m23, attrs: graph.Attrs{"post_transform": aString("NONE")}},
		{op: graph.OpPostTransform, domain: graph.DomainLocal, version: 1, in: m23, attrs: graph.Attrs{"post_transform": aString("LOGISTIC")}},
		{op: graph.OpPostTransform, domain: graph.DomainLocal, version: 1, in: m23, attrs: graph.Attrs{"post_transform": aString("SOFTMAX")}},
		{op: graph.OpClassifierOutput, domain: graph.DomainLocal, version: 1, in: m23, outs: 2, target: 1, attrs: graph.Attrs{"post_transform": aString("SOFTMAX"), "classlabels_ints": labels}},
		{op: graph.OpClassifierOutput, domain: graph.DomainLocal, version: 1, in: m23, outs: 2, target: 1, attrs: graph.Attrs{"post_transform": aString("LOGISTIC"), "classlabels_ints": labels}},
	}
}

func allChecks() []check {
	return slices.Concat(unaryChecks(), binaryChecks(), moveChecks(), reduceChecks(), spatialChecks(), recurrentChecks(), mlChecks(), bodyChecks(), mapChecks(), furtherChecks())
}

// program is compile, of a check that can be.
func (c *check) program(t *testing.T) (*graph.Program, engine.Values) {
	t.Helper()
	p, in, err := c.compile()
	if err != nil {
		t.Fatal(err)
	}
	return p, in
}

// compile compiles the one node of a check.
func (c *check) compile() (*graph.Program, engine.Values, error) {
	n := &graph.Node{Op: c.op, Domain: c.domain, Version: c.version, Attrs: c.attrs}
	if n.Version == 0 {
		n.Version = 20
	}
	if n.Attrs == nil {
		n.Attrs = graph.Attrs{}
	}
	g := &graph.Graph{Constants: map[string]*engine.Tensor{}}
	lo, hi := c.lo, c.hi
	if lo == 0 && hi == 0 {
		lo, hi = -2, 2
	}
	r := rand.New(rand.NewPCG(1, 2))
	var in engine.Values
	for i, shape := range c.in {
		name := fmt.Sprintf("x%d", i)
		if shape == nil {
			n.Inputs = append(n.Inputs, "")
			continue
		}
		v := make([]float64, volume(shape))
		for j := range v {
			v[j] = lo + (hi-lo)*r.Float64()
		}
		n.Inputs = append(n.Inputs, name)
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float64, Shape: shape})
		in = append(in, engine.Named{Name: name, Tensor: tensor(v, shape...)})
	}
	for i, k := range c.constants {
		name := fmt.Sprintf("k%d", i)
		if k == nil {
			n.Inputs = append(n.Inputs, "")
			continue
		}
		n.Inputs = append(n.Inputs, name)
		if c.free && c.frees(i) {
			g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float64, Shape: k.Shape()})
			in = append(in, engine.Named{Name: name, Tensor: tensor(slices.Clone(engine.Data[float64](k)), k.Shape()...)})
			continue
		}
		g.Constants[name] = k
	}
	for i := range max(c.outs, 1) {
		n.Outputs = append(n.Outputs, fmt.Sprintf("y%d", i))
	}
	g.Nodes, g.Outputs = []*graph.Node{n}, n.Outputs
	p, err := graph.Compile(g)
	return p, in, err
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// TestCentralDifferences holds every rule against (f(x+h) - f(x-h)) / 2h.
func TestCentralDifferences(t *testing.T) {
	for i, c := range allChecks() {
		if len(c.in) == 0 {
			continue
		}
		t.Run(fmt.Sprintf("%d %s", i, c.op), func(t *testing.T) {
			p, in := c.program(t)
			compareCentral(t, p, in, fmt.Sprintf("y%d", c.target), c.whole)
		})
	}
}

// compareCentral holds the gradients of every element of a row of the target.
func compareCentral(t *testing.T, p *graph.Program, in engine.Values, target string, whole bool) {
	t.Helper()
	var wrt []string
	for i := range in {
		wrt = append(wrt, in[i].Name)
	}
	y := values(t, p, in, target)
	width := y.RowLen()
	if whole {
		width = y.Len()
	}
	var want [][][]float64
	for i := range in {
		want = append(want, slopes(t, p, in, engine.Data[float64](in[i].Tensor), target, width, whole))
	}
	for k := range width {
		got := weighted(t, p, in, target, k, whole, wrt)
		for i := range in {
			for j, g := range engine.Data[float64](got[i].Tensor) {
				want := want[i][j][k]
				if math.IsNaN(want) && math.IsNaN(g) { // a power of what is below 0, by its exponent
					continue
				}
				if !(math.Abs(g-want) <= 1e-6*max(1, math.Abs(want))) {
					t.Fatalf("d %s[%d] / d %s[%d] = %v, central difference %v", target, k, in[i].Name, j, g, want)
				}
			}
		}
	}
}

func values(t *testing.T, p *graph.Program, in engine.Values, target string) *engine.Tensor {
	t.Helper()
	r, err := p.Run(t.Context(), graph.Options{}, in, []string{target})
	if err != nil {
		t.Fatal(err)
	}
	return r.Value(target)
}

// sum adds up element k of all rows, or takes element k of all.
func sum(y *engine.Tensor, k int, whole bool) float64 {
	v, _ := y.Float64s()
	if whole {
		return v[k]
	}
	total := 0.0
	for i := k; i < len(v); i += y.RowLen() {
		total += v[i]
	}
	return total
}

// slopes are the central differences of every element of a row of the target, by each
// element of x, which is one of the inputs.
func slopes(t *testing.T, p *graph.Program, in engine.Values, x []float64, target string, width int, whole bool) [][]float64 {
	t.Helper()
	const h = 1e-5
	all := make([][]float64, len(x))
	for j, old := range x {
		up, down := make([]float64, width), make([]float64, width)
		for side, to := range map[float64][]float64{old + h: up, old - h: down} {
			x[j] = side
			y := values(t, p, in, target) // may share what holds x
			for k := range to {
				to[k] = sum(y, k, whole)
			}
		}
		x[j] = old
		for k := range width {
			all[j] = append(all[j], (up[k]-down[k])/(2*h))
		}
	}
	return all
}

// weighted is Gradient; where rows influence each other the program is extended
// so that everything is one row.
func weighted(t *testing.T, p *graph.Program, in engine.Values, target string, k int, whole bool, wrt []string) engine.Values {
	t.Helper()
	if whole {
		g := *p.Graph()
		flat := &graph.Node{Op: "Reshape", Version: 20, Inputs: []string{target, "one row"}, Outputs: []string{"row"}, Attrs: graph.Attrs{}}
		g.Constants = map[string]*engine.Tensor{"one row": ints(1, -1)}
		for name, c := range p.Graph().Constants {
			g.Constants[name] = c
		}
		g.Nodes = append(slices.Clone(g.Nodes), flat)
		var err error
		if p, err = graph.Compile(&g); err != nil {
			t.Fatal(err)
		}
		target = "row"
	}
	got, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: target, Index: k}, wrt)
	if err != nil {
		t.Fatal(err)
	}
	return got.Inputs
}

// checkedElsewhere are the rules that tests other than TestCentralDifferences hold.
func checkedElsewhere() []check {
	list := []check{
		{op: "If"}, {op: "Loop"}, {op: "Scan", by: []int{0, 1}}, {op: "Scan", version: 8, by: []int{1, 2}}, {op: "SequenceMap", by: []int{0, 1}}, {op: "QuantizeLinear", by: []int{0, 1}}, {op: "DequantizeLinear"}, // see bodies_test.go, TestTorch
		{op: "SplitToSequence", by: []int{0}}, {op: "SequenceAt", by: []int{0}}, {op: "SequenceConstruct", by: []int{0, 1}}, {op: "SequenceInsert", by: []int{0, 1}}, {op: "SequenceErase", by: []int{0}}, {op: "ConcatFromSequence", by: []int{0}}, // see TestTorch
		{op: "Where", by: []int{1, 2}}, {op: "ScatterND", by: []int{0, 2}}, {op: "ScatterElements", by: []int{0, 2}}, {op: "Scatter", version: 10, by: []int{0, 2}},
	}
	return append(list, narrowChecks()...)
}

// ruleKey is a rule of an operator, which may have others in other versions of its set.
type ruleKey struct {
	domain, op string
	rule       uintptr
}

func keyOf(domain, op string, version int) ruleKey {
	n := &graph.Node{Op: op, Domain: domain, Version: version}
	return ruleKey{domain, op, reflect.ValueOf(ruleOf[float64](n)).Pointer()}
}

// TestEveryRuleIsChecked walks all operators that the engine runs, of every domain and in
// every version: each has a rule that a check holds, or a reason why it has none.
func TestEveryRuleIsChecked(t *testing.T) {
	checked := map[ruleKey]bool{}
	for _, c := range append(allChecks(), checkedElsewhere()...) {
		if c.version == 0 {
			c.version = 20
		}
		checked[keyOf(c.domain, c.op, c.version)] = true
	}
	rules, reasons := map[ruleKey]bool{}, map[string]bool{}
	for _, domain := range graph.Domains() {
		for _, op := range graph.Operators(domain) {
			why, refused := refusals[op]
			for version := range 40 {
				n := &graph.Node{Op: op, Domain: domain, Version: version}
				if !graph.Defined(n) {
					continue
				}
				has := ruleOf[float64](n) != nil
				switch {
				case has == refused:
					t.Errorf("operator %s version %d: a rule %t, a reason for none %t", n.Title(), version, has, refused)
				case has:
					key := keyOf(domain, op, version)
					if rules[key] = true; !checked[key] {
						t.Errorf("operator %s version %d has a rule that no check holds", n.Title(), version)
					}
				case why.reason == "" || why.instead == "":
					t.Errorf("operator %s: %+v, want a reason and what to use instead", n.Title(), why)
				default:
					reasons[op] = true
				}
			}
		}
	}
	if len(graph.Domains()) < 6 || len(reasons) != len(refusals) {
		t.Errorf("domains %q, %d operators without a rule of %d that have a reason", graph.Domains(), len(reasons), len(refusals))
	}
	t.Logf("%d rules, %d operators without one", len(rules), len(reasons))
}

// TestWhere: both branches get their own elements, the condition none.
func TestWhere(t *testing.T) {
	c := check{op: "Where", in: [][]int{{2, 3}, {1, 3}}, whole: true}
	n := &graph.Node{Op: "Where", Version: 16, Inputs: []string{"cond", "x0", "x1"}, Outputs: []string{"y0"}, Attrs: graph.Attrs{}}
	build(t, &c, n, map[string]*engine.Tensor{"cond": tensor([]bool{true, false, true, false, false, true}, 2, 3)})
}

// TestScatterND: what is overwritten gets nothing.
func TestScatterND(t *testing.T) {
	c := check{op: "ScatterND", in: [][]int{{4, 2}, {2, 2}}, whole: true}
	n := &graph.Node{Op: "ScatterND", Version: 16, Inputs: []string{"x0", "at", "x1"}, Outputs: []string{"y0"}, Attrs: graph.Attrs{}}
	build(t, &c, n, map[string]*engine.Tensor{"at": tensor([]int64{3, 1}, 2, 1)})
}

// build checks a node whose inputs are not floats first, constants after.
func build(t *testing.T, c *check, n *graph.Node, constants map[string]*engine.Tensor) {
	t.Helper()
	g := &graph.Graph{Nodes: []*graph.Node{n}, Outputs: n.Outputs, Constants: constants}
	var in engine.Values
	for i, shape := range c.in {
		name := fmt.Sprintf("x%d", i)
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float64, Shape: shape})
		in = append(in, engine.Named{Name: name, Tensor: noise(shape...)})
	}
	p, err := graph.Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	compareCentral(t, p, in, "y0", c.whole)
}

// TestFloat32Outputs holds the operators whose results are float32: differences
// over a wide step, to what float32 leaves of them.
func TestFloat32Outputs(t *testing.T) {
	for _, c := range narrowChecks() {
		t.Run(c.op, func(t *testing.T) {
			p, in := c.program(t)
			target := fmt.Sprintf("y%d", c.target)
			for k := range values(t, p, in, target).RowLen() {
				got := weighted(t, p, in, target, k, false, []string{"x0"})
				x, g := engine.Data[float64](in[0].Tensor), engine.Data[float64](got[0].Tensor)
				for j := range x {
					old := x[j]
					const h = 1e-2
					x[j] = old + h
					up := sum(values(t, p, in, target), k, false)
					x[j] = old - h
					down := sum(values(t, p, in, target), k, false)
					x[j] = old
					if want := (up - down) / (2 * h); math.Abs(g[j]-want) > 1e-4 {
						t.Fatalf("d %s[%d] / d x0[%d] = %v, central difference %v", target, k, j, g[j], want)
					}
				}
			}
		})
	}
}

// TestIntegersCarryNoGradient: a shape, an index or a comparison taken of the
// input leaves the rest differentiable; where it is the only way, it is named.
func TestIntegersCarryNoGradient(t *testing.T) {
	shape := &graph.Node{Op: "Shape", Version: 20, Inputs: []string{"x"}, Outputs: []string{"s"}, Attrs: graph.Attrs{}}
	double := &graph.Node{Op: "Add", Version: 20, Inputs: []string{"x", "x"}, Outputs: []string{"d"}, Attrs: graph.Attrs{}}
	expand := &graph.Node{Op: "Expand", Version: 20, Inputs: []string{"d", "s"}, Outputs: []string{"y"}, Attrs: graph.Attrs{}}
	cast := &graph.Node{Op: "Cast", Version: 20, Inputs: []string{"s"}, Outputs: []string{"c"}, Attrs: graph.Attrs{"to": aInt(11)}}
	g := &graph.Graph{Nodes: []*graph.Node{shape, double, expand, cast}, Outputs: []string{"y", "c"}, Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{-1, 2}}}}
	p, err := graph.Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: noise(1, 2)}}
	got, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "y"}, []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	if d := engine.Data[float64](got.Inputs[0].Tensor); d[0] != 2 || d[1] != 0 {
		t.Errorf("gradient %v, want 2 and 0", d)
	}
	if _, err = Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "c"}, []string{"x"}); err == nil {
		t.Error("a gradient through the shape alone")
	}
}
