package autodiff

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// bodyChecks are the operators that others define.
func bodyChecks() []check {
	qkv := [][]int{{1, 2, 3, 4}, {1, 2, 5, 4}, {1, 2, 5, 3}}
	mask := tensor([]bool{true, false, true, true, false, true, true, true, false, false, false, false, false, false, false}, 3, 5)
	classes := tensor([]int64{2, 0, 1, 9, 1, 0}, 2, 3)
	return []check{
		{op: "Attention", version: 23, in: qkv, whole: true, outs: 4},
		{op: "Attention", version: 23, in: qkv, constants: []*engine.Tensor{mask}, whole: true, outs: 4, target: 3, attrs: graph.Attrs{"qk_matmul_output_mode": aInt(3), "softcap": aFloat(2)}},
		{op: "Attention", version: 24, in: [][]int{{1, 3, 8}, {1, 5, 4}, {1, 5, 4}}, constants: []*engine.Tensor{nil, noise(1, 2, 2, 2), noise(1, 2, 2, 2)}, whole: true, attrs: graph.Attrs{"is_causal": aInt(1), "q_num_heads": aInt(4), "kv_num_heads": aInt(2)}},
		{op: "Attention", version: 24, in: [][]int{{1, 2, 3, 4}, {1, 2, 5, 4}, {1, 2, 5, 3}}, constants: []*engine.Tensor{noise(3, 5), nil, nil, tensor([]int64{4}, 1)}, whole: true},
		{op: "MultiHeadAttention", domain: graph.DomainContrib, version: 1, in: [][]int{{1, 3, 8}, {1, 3, 8}, {1, 3, 8}}, constants: []*engine.Tensor{nil, nil, nil, noise(1, 2, 2, 4), noise(1, 2, 2, 4)}, whole: true, outs: 3, attrs: graph.Attrs{"num_heads": aInt(2)}},
		{op: "MultiHeadAttention", domain: graph.DomainContrib, version: 1, in: [][]int{{1, 3, 8}, {1, 5, 8}, {1, 5, 4}, {20}}, constants: []*engine.Tensor{tensor([]int32{1, 1, 0, 1, 1}, 1, 5), noise(1, 2, 3, 5)}, whole: true, outs: 4, attrs: graph.Attrs{"num_heads": aInt(2), "unidirectional": aInt(1)}},
		{op: "GroupQueryAttention", domain: graph.DomainContrib, version: 1, in: [][]int{{1, 3, 16}, {1, 3, 8}, {1, 3, 8}, {1, 2, 2, 4}, {1, 2, 2, 4}}, constants: []*engine.Tensor{tensor([]int32{4}, 1), tensor([]int32{5}), noise(5, 2), noise(5, 2)}, whole: true, outs: 3, attrs: graph.Attrs{"num_heads": aInt(4), "kv_num_heads": aInt(2), "do_rotary": aInt(1), "smooth_softmax": aInt(1)}},
		{op: "GroupQueryAttention", domain: graph.DomainContrib, version: 1, in: [][]int{{2, 3, 24}}, constants: []*engine.Tensor{nil, nil, nil, nil, tensor([]int32{1, 2}, 2), tensor([]int32{3}), nil, nil, nil, noise(1, 4, 3, 3), noise(4)}, whole: true, attrs: graph.Attrs{"num_heads": aInt(4), "kv_num_heads": aInt(1), "local_window_size": aInt(2), "softcap": aFloat(1.5)}},
		{op: "GroupQueryAttention", domain: graph.DomainContrib, version: 1, in: [][]int{{1, 3, 16}, {1, 3, 8}, {1, 3, 8}}, constants: []*engine.Tensor{nil, nil, tensor([]int32{2}, 1), tensor([]int32{3}), noise(5, 2), noise(5, 2), tensor([]int64{1, 2, 3}, 1, 3)}, whole: true, attrs: graph.Attrs{"num_heads": aInt(4), "kv_num_heads": aInt(2), "do_rotary": aInt(1)}},
		{op: "RotaryEmbedding", domain: graph.DomainContrib, version: 1, in: [][]int{{1, 3, 12}}, constants: []*engine.Tensor{tensor([]int64{4}, 1), noise(7, 2), noise(7, 2)}, whole: true},
		{op: "MatMulNBits", domain: graph.DomainContrib, version: 1, in: [][]int{{2, 20}}, constants: nbits(4, 20, 3), attrs: graph.Attrs{"K": aInt(20), "N": aInt(3), "block_size": aInt(16)}},
		{op: "MatMulNBits", domain: graph.DomainContrib, version: 1, in: [][]int{{2, 2, 20}}, constants: append(nbits(8, 20, 70), nil, nil, noise(70)), attrs: graph.Attrs{"K": aInt(20), "N": aInt(70), "block_size": aInt(16), "bits": aInt(8)}},
		{op: "FlexAttention", domain: graph.DomainPreview, version: 1, in: qkv, whole: true},
		{op: "RotaryEmbedding", version: 23, in: [][]int{{1, 2, 3, 4}}, constants: []*engine.Tensor{noise(1, 3, 2), noise(1, 3, 2)}, whole: true},
		{op: "RotaryEmbedding", version: 23, in: [][]int{{1, 3, 12}}, constants: []*engine.Tensor{noise(7, 2), noise(7, 2), tensor([]int64{4, 0, 2}, 1, 3)}, whole: true, attrs: graph.Attrs{"num_heads": aInt(2), "rotary_embedding_dim": aInt(4), "interleaved": aInt(1)}},
		{op: "RMSNormalization", version: 23, in: [][]int{{2, 3}, {3}}, whole: true},
		{op: "SwiGLU", version: 28, in: [][]int{{2, 3}, {2, 3}}, attrs: graph.Attrs{"alpha": aFloat(1.5)}},
		{op: "CausalConvWithState", version: 27, in: [][]int{{1, 2, 4}}, constants: []*engine.Tensor{noise(2, 1, 3), noise(2), noise(1, 2, 2)}, whole: true, outs: 2, attrs: graph.Attrs{"activation": aString("silu")}},
		{op: "LinearAttention", version: 27, in: [][]int{{2, 3, 8}, {2, 3, 4}, {2, 3, 6}, {2, 2, 2, 3}, {2, 3, 4}, {2, 3, 2}}, whole: true, outs: 2, lo: -1, hi: 0.5, attrs: linearHeads("gated_delta")},
		{op: "LinearAttention", version: 27, in: [][]int{{1, 3, 8}, {1, 3, 4}, {1, 3, 6}, {1, 2, 2, 3}, {1, 3, 2}}, whole: true, outs: 2, target: 1, attrs: linearHeads("gated")},
		{op: "LinearAttention", version: 27, in: [][]int{{1, 3, 8}, {1, 3, 4}, {1, 3, 6}, nil, nil, {1, 3, 1}}, whole: true, outs: 2, lo: -1, hi: 0.5, attrs: linearHeads("delta")},
		{op: "LinearAttention", version: 27, in: [][]int{{1, 3, 8}, {1, 3, 4}, {1, 3, 6}}, whole: true, attrs: linearHeads("linear")},
		{op: "NegativeLogLikelihoodLoss", in: [][]int{{2, 3, 3}}, constants: []*engine.Tensor{classes, noise(3)}, whole: true, attrs: graph.Attrs{"ignore_index": aInt(9)}},
		{op: "SoftmaxCrossEntropyLoss", in: [][]int{{2, 3, 3}}, constants: []*engine.Tensor{classes}, whole: true, attrs: graph.Attrs{"ignore_index": aInt(9), "reduction": aString("sum")}},
		{op: "SoftmaxCrossEntropyLoss", in: [][]int{{2, 3, 3}}, constants: []*engine.Tensor{classes, noise(3)}, whole: true, attrs: graph.Attrs{"ignore_index": aInt(9)}},
		{op: "MeanVarianceNormalization", in: [][]int{{2, 2, 3, 2}}, whole: true},
		{op: "Shrink", in: m23, attrs: graph.Attrs{"bias": aFloat(0.2), "lambd": aFloat(0.7)}},
		{op: "LRN", in: [][]int{{1, 5, 2, 2}}, whole: true, attrs: graph.Attrs{"size": aInt(3), "alpha": aFloat(0.5)}},
	}
}

func linearHeads(rule string) graph.Attrs {
	return graph.Attrs{"q_num_heads": aInt(4), "kv_num_heads": aInt(2), "update_rule": aString(rule), "scale": aFloat(0.75)}
}

// nbits are codes and scales of a matrix of k x n in blocks of 16.
func nbits(bits, k, n int) []*engine.Tensor {
	blocks := (k + 15) / 16
	codes := make([]uint8, n*blocks*2*bits)
	for i := range codes {
		codes[i] = uint8(i * 37)
	}
	scale := make([]float32, n*blocks)
	for i := range scale {
		scale[i] = float32(i%5+1) / 64
	}
	return []*engine.Tensor{tensor(codes, n, blocks, 2*bits), tensor(scale, n*blocks)}
}

// mapChecks are the operators that are linear in their first input.
func mapChecks() []check {
	list := []check{
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float32{0, 0.5, 3, 4}, 1, 4), ints(0)}, whole: true, attrs: graph.Attrs{"output_height": aInt(2), "output_width": aInt(3)}},
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float32{0, 0.5, 3, 4, -9, 1, -3, 2, 1, -2, 6, 3}, 3, 4), ints(0, 0, 0)}, whole: true, attrs: graph.Attrs{"output_height": aInt(2), "output_width": aInt(3), "mode": aString("max")}},
		// Corners where nothing jumps: the number of samples, and what is inside.
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float64{0.2, 0.5, 3.3, 4.1}, 1, 4), ints(0)}, whole: true, attrs: graph.Attrs{"output_height": aInt(2), "output_width": aInt(3)}},
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float64{0.2, 0.5, 3.3, 4.1, -9, 1, -3, 2, 1, -2, 6, 3}, 3, 4), ints(0, 0, 0)}, whole: true, attrs: graph.Attrs{"output_height": aInt(2), "output_width": aInt(3), "mode": aString("max")}},
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float64{0.2, 0.5, 3.3, 4.1}, 1, 4), ints(0)}, whole: true, version: 10, attrs: graph.Attrs{"spatial_scale": aFloat(0.75), "output_height": aInt(2), "output_width": aInt(3)}},
		{op: "RoiAlign", in: [][]int{{1, 2, 5, 4}}, constants: []*engine.Tensor{tensor([]float64{0.2, 0.5, 0.7, 4.1, 3.1, 1.1, 3.2, 1.4}, 2, 4), ints(0, 0)}, whole: true, version: 10, attrs: graph.Attrs{"sampling_ratio": aInt(2), "output_height": aInt(2), "output_width": aInt(3)}},
		{op: "Col2Im", in: [][]int{{1, 8, 9}}, constants: []*engine.Tensor{ints(4, 4), ints(2, 2)}, whole: true},
		{op: "MaxUnpool", in: [][]int{{1, 1, 2, 2}}, constants: []*engine.Tensor{tensor([]int64{5, 7, 13, 15}, 1, 1, 2, 2)}, whole: true, attrs: graph.Attrs{"kernel_shape": aInts(2, 2), "strides": aInts(2, 2)}},
		{op: "MaxUnpool", in: [][]int{{1, 1, 2, 2}}, constants: []*engine.Tensor{tensor([]int64{5, 7, 13, 15}, 1, 1, 2, 2), ints(1, 1, 5, 5)}, whole: true, attrs: graph.Attrs{"kernel_shape": aInts(2, 2), "strides": aInts(2, 2)}},
		{op: "DeformConv", in: [][]int{{1, 2, 3, 3}}, constants: []*engine.Tensor{noise(1, 2, 2, 2), noise(1, 8, 4, 4), noise(1), noise(1, 4, 4, 4)}, whole: true, attrs: graph.Attrs{"pads": aInts(1, 1, 1, 1)}},
		{op: "DFT", in: [][]int{{1, 6, 2}}, whole: true},
		{op: "DFT", in: [][]int{{1, 5, 1}}, constants: []*engine.Tensor{tensor([]int64{7})}, whole: true, attrs: graph.Attrs{"onesided": aInt(1)}},
		{op: "DFT", in: [][]int{{1, 4, 2}}, whole: true, attrs: graph.Attrs{"onesided": aInt(1), "inverse": aInt(1)}},
		{op: "DFT", version: 17, in: [][]int{{1, 4, 2}}, whole: true, attrs: graph.Attrs{"inverse": aInt(1)}},
		{op: "STFT", in: [][]int{{1, 9, 1}}, constants: []*engine.Tensor{tensor([]int64{2}), noise(4)}, whole: true},
		{op: "DFT", in: [][]int{{1, 2, 4, 2}}, constants: []*engine.Tensor{nil, tensor([]int64{2})}, whole: true},
		{op: "STFT", in: [][]int{{1, 9, 1}}, constants: []*engine.Tensor{tensor([]int64{2}), noise(4), tensor([]int64{4})}, whole: true},
		{op: "AffineGrid", in: [][]int{{1, 2, 3}}, constants: []*engine.Tensor{ints(1, 1, 2, 3)}, whole: true},
	}
	for _, mode := range []string{"linear", "nearest", "cubic"} {
		for _, padding := range []string{"zeros", "border", "reflection"} {
			list = append(list, check{op: "GridSample", in: [][]int{{1, 2, 4, 3}}, constants: []*engine.Tensor{noise(1, 3, 2, 2)}, whole: true, attrs: graph.Attrs{"mode": aString(mode), "padding_mode": aString(padding)}})
		}
	}
	return list
}

// furtherChecks are other operators beyond those that most networks have.
func furtherChecks() []check {
	image := [][]int{{2, 2, 5, 4}}
	places := tensor([]int64{1, 0, 2, 2}, 2, 2)
	// Cells that share elements, across the image's border and beyond it, of a region turned around.
	regions := tensor([]float64{0, 0, 0, 3, 4, 1.5, 1.4, 0.6, 2.2, 3, 1.5, 2, -3, 7, 2, 0, 6, 1, 8, 3, 1.5, 3, 3, 1, 1}, 5, 5)
	list := []check{
		{op: "Mod", in: [][]int{{2, 3}, {3}}, lo: 0.6, hi: 3, whole: true},
		{op: "Mod", in: m23, constants: []*engine.Tensor{noise(3)}, lo: -3, hi: -0.6, attrs: graph.Attrs{"fmod": aInt(1)}},
		{op: "CumProd", version: 26, in: [][]int{{2, 4}}, constants: []*engine.Tensor{tensor([]int64{1})}},
		{op: "CumProd", version: 26, in: [][]int{{2, 4}}, constants: []*engine.Tensor{tensor([]int64{1})}, attrs: graph.Attrs{"exclusive": aInt(1), "reverse": aInt(1)}},
		{op: "LpPool", in: image, attrs: graph.Attrs{"kernel_shape": aInts(2, 3), "pads": aInts(1, 0, 0, 1), "p": aInt(3)}},
		{op: "LpPool", version: 18, in: [][]int{{2, 2, 2, 2}}, attrs: graph.Attrs{"kernel_shape": aInts(3, 3), "strides": aInts(2, 2), "ceil_mode": aInt(1)}},
		{op: "GlobalLpPool", in: image},
		{op: "ReverseSequence", in: [][]int{{3, 2, 2}}, constants: []*engine.Tensor{ints(2, 3)}, whole: true},
		{op: "CenterCropPad", in: [][]int{{1, 4, 2}}, constants: []*engine.Tensor{ints(1, 2, 5)}, whole: true},
		{op: "TensorScatter", version: 24, in: [][]int{{2, 4, 2}, {2, 2, 2}}, constants: []*engine.Tensor{ints(1, 3)}, whole: true, attrs: graph.Attrs{"mode": aString("circular")}},
		{op: "Optional", in: m23},
		{op: "OptionalGetElement", in: m23},
		{op: "Dropout", in: m23, constants: []*engine.Tensor{tensor([]float64{0.3}), tensor([]bool{true})}, outs: 2, attrs: graph.Attrs{"seed": aInt(3)}},
		{op: "Einsum", in: [][]int{{2, 2, 3}, {2, 3, 2}}, attrs: graph.Attrs{"equation": aString("...ij,...jk->...ik")}, whole: true},
		{op: "Resize", in: image, constants: []*engine.Tensor{tensor([]float32{0, 0, 0.2, 0.1, 1, 1, 0.9, 1.3}, 8), tensor([]float32{1, 1, 2, 1.5}, 4)}, attrs: graph.Attrs{"mode": aString("cubic"), "coordinate_transformation_mode": aString("tf_crop_and_resize"), "extrapolation_value": aFloat(3)}},
		{op: "Resize", in: image, constants: []*engine.Tensor{nil, nil, ints(2, 2, 7, 3)}, attrs: graph.Attrs{"mode": aString("linear")}},
		{op: "Resize", in: image, constants: []*engine.Tensor{nil, tensor([]float32{0.6, 0.7}, 2)}, attrs: graph.Attrs{"mode": aString("cubic"), "antialias": aInt(1), "exclude_outside": aInt(1), "axes": aInts(3, 2)}},
		{op: "ConvTranspose", in: [][]int{{1, 2, 3, 3}}, constants: []*engine.Tensor{noise(2, 1, 3, 3)}, attrs: graph.Attrs{"strides": aInts(2, 2), "output_shape": aInts(6, 5)}},
		{op: "MaxRoiPool", in: image, constants: []*engine.Tensor{regions}, whole: true, attrs: graph.Attrs{"pooled_shape": aInts(2, 3)}},
		{op: "MaxRoiPool", in: image, constants: []*engine.Tensor{regions}, whole: true, attrs: graph.Attrs{"pooled_shape": aInts(3, 2), "spatial_scale": aFloat(0.6)}},
	}
	for _, mode := range []string{"none", "add"} {
		list = append(list,
			check{op: "ScatterElements", in: nil, attrs: graph.Attrs{"axis": aInt(1), "reduction": aString(mode)}, constants: []*engine.Tensor{places}},
			check{op: "Scatter", in: nil, version: 10})
	}
	w := []*engine.Tensor{noise(1, 8, 3), noise(1, 8, 2), noise(1, 16), tensor([]int32{2, 3}, 2), nil, nil, noise(1, 6)}
	names := graph.Attr{Kind: graph.AttrStrings, Strings: []string{"HardSigmoid", "Softsign", "ScaledTanh"}}
	for target := range 3 {
		list = append(list,
			check{op: "LSTM", in: [][]int{{3, 2, 3}}, constants: w, outs: 3, target: target, whole: true, lo: -0.5, hi: 0.5, attrs: graph.Attrs{"hidden_size": aInt(2), "direction": aString("reverse")}},
			check{op: "LSTM", in: [][]int{{2, 3, 3}}, constants: w, outs: 3, target: target, whole: true, lo: -0.5, hi: 0.5, attrs: graph.Attrs{"hidden_size": aInt(2), "layout": aInt(1), "input_forget": aInt(1), "activations": names, "clip": aFloat(3)}})
	}
	for _, name := range []string{"Affine", "LeakyRelu", "ThresholdedRelu", "Elu", "Softplus", "Sigmoid"} {
		act := graph.Attr{Kind: graph.AttrStrings, Strings: []string{name}}
		list = append(list, check{op: "RNN", in: [][]int{{3, 2, 3}}, constants: []*engine.Tensor{noise(1, 2, 3), noise(1, 2, 2)}, whole: true, attrs: graph.Attrs{"hidden_size": aInt(2), "activations": act, "activation_alpha": aFloats(0.3)}})
	}
	return list
}

// TestScatterElements: every way of writing, two updates at one place, the indices between
// the two inputs.
func TestScatterElements(t *testing.T) {
	for _, mode := range []string{"none", "add", "mul", "min", "max"} {
		for _, op := range []string{"ScatterElements", "ScatterND"} {
			c := check{in: [][]int{{3, 3}, {3, 2}}, whole: true}
			at := tensor([]int64{1, 0, 1, 2, 0, 0}, 3, 2)
			if mode == "none" {
				at = tensor([]int64{1, 0, 0, 2, 2, 2}, 3, 2) // which of two replaces is not said
			}
			n := &graph.Node{Op: op, Version: 18, Inputs: []string{"x0", "at", "x1"}, Outputs: []string{"y0"}, Attrs: graph.Attrs{"reduction": aString(mode)}}
			if op == "ScatterND" {
				c.in[1] = []int{3}
			}
			build(t, &c, n, map[string]*engine.Tensor{"at": at})
		}
	}
}

// TestScatterTies: what ties shares the gradient evenly, and a product with zeros in it is
// that of the others, as PyTorch's scatter_reduce has it.
func TestScatterTies(t *testing.T) {
	for _, c := range []struct {
		mode               string
		x, u, wantX, wantU []float64
	}{
		{"max", []float64{1, 5}, []float64{1, 0, 5, 5}, []float64{1.0 / 2, 1.0 / 3}, []float64{1.0 / 2, 0, 1.0 / 3, 1.0 / 3}},
		{"min", []float64{1, 7}, []float64{1, 0, 5, 5}, []float64{0, 0}, []float64{0, 1, 1.0 / 2, 1.0 / 2}},
		{"mul", []float64{0, 3}, []float64{2, 5, 0, 0}, []float64{10, 0}, []float64{0, 0, 0, 0}},
		{"mul", []float64{4, 3}, []float64{0, 5, 0, 2}, []float64{0, 0}, []float64{20, 0, 6, 0}},
	} {
		n := &graph.Node{Op: "ScatterElements", Version: 18, Inputs: []string{"x", "at", "u"}, Outputs: []string{"y"}, Attrs: graph.Attrs{"reduction": aString(c.mode)}}
		p, err := graph.Compile(&graph.Graph{
			Nodes: []*graph.Node{n}, Outputs: []string{"y"}, Constants: map[string]*engine.Tensor{"at": ints(0, 0, 1, 1)},
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{2}}, {Name: "u", DType: engine.Float64, Shape: []int{4}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: tensor(c.x, 2)}, {Name: "u", Tensor: tensor(c.u, 4)}}
		got, err := Weighted(t.Context(), p, graph.Options{}, in, engine.Values{{Name: "y", Tensor: tensor([]float64{1, 1}, 2)}}, []string{"x", "u"})
		if err != nil {
			t.Fatal(err)
		}
		if x, u := engine.Data[float64](got.Inputs[0].Tensor), engine.Data[float64](got.Inputs[1].Tensor); !slices.Equal(x, c.wantX) || !slices.Equal(u, c.wantU) {
			t.Errorf("%s of %v and %v: gradients %v and %v, want %v and %v", c.mode, c.x, c.u, x, u, c.wantX, c.wantU)
		}
	}
}

// TestRegionPoolTies: the first of several elements that are the largest of a cell has all of
// its gradient, as often as it is read; a cell without elements has none to give, and regions,
// which are rounded to whole elements, get none.
func TestRegionPoolTies(t *testing.T) {
	n := node("MaxRoiPool", []string{"x", "rois"}, "y")
	n.Attrs["pooled_shape"] = aInts(1, 2)
	p, err := graph.Compile(&graph.Graph{
		Nodes: []*graph.Node{n}, Outputs: []string{"y"},
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{1, 1, 2, 3}}, {Name: "rois", DType: engine.Float32, Shape: []int{3, 5}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{
		{Name: "x", Tensor: tensor([]float32{1, 7, 7, 7, 0, 1}, 1, 1, 2, 3)},
		{Name: "rois", Tensor: tensor([]float32{0, 0, 0, 2, 1, 0, 1, 0, 2, 0, 0, 4, 0, 5, 1}, 3, 5)},
	}
	weights := tensor([]float64{1, 2, 4, 8, 16, 32}, 3, 1, 1, 2)
	got, err := Weighted(t.Context(), p, graph.Options{}, in, engine.Values{{Name: "y", Tensor: weights}}, []string{"x", "rois"})
	if err != nil {
		t.Fatal(err)
	}
	if x, want := engine.Data[float32](got.Inputs[0].Tensor), []float32{0, 1 + 2 + 4, 8, 0, 0, 0}; !slices.Equal(x, want) {
		t.Errorf("gradient %v, want %v", x, want)
	}
	if rois := engine.Data[float32](got.Inputs[1].Tensor); !slices.Equal(rois, make([]float32, 15)) {
		t.Errorf("gradient %v of the regions, want none", rois)
	}
}

func node(op string, in []string, out ...string) *graph.Node {
	return &graph.Node{Op: op, Version: 20, Inputs: in, Outputs: out, Attrs: graph.Attrs{}}
}

// TestBranch: the branch that is taken is differentiated.
func TestBranch(t *testing.T) {
	n := node("If", []string{"cond"}, "y0")
	n.Attrs["then_branch"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{Outputs: []string{"t"}, Nodes: []*graph.Node{node("Mul", []string{"x0", "x1"}, "t")}}}
	n.Attrs["else_branch"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{Outputs: []string{"e"}, Nodes: []*graph.Node{node("Exp", []string{"x0"}, "e")}}}
	graph.Capture(n)
	for _, taken := range []bool{true, false} {
		build(t, &check{in: [][]int{{2, 3}, {2, 3}}, whole: true}, n, map[string]*engine.Tensor{"cond": tensor([]bool{taken})})
	}
}

// loopNode multiplies what it carries by x0, and adds x1's sum of squares each turn.
func loopNode() *graph.Node {
	n := node("Loop", []string{"turns", "", "x1"}, "last", "y0")
	n.Attrs["body"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{
		Inputs:  []engine.Spec{{Name: "i"}, {Name: "c"}, {Name: "s"}},
		Outputs: []string{"c", "next", "seen"},
		Nodes: []*graph.Node{
			node("Mul", []string{"s", "x0"}, "m"), node("Tanh", []string{"m"}, "next"), node("Mul", []string{"next", "s"}, "seen"),
		},
	}}
	graph.Capture(n)
	return n
}

func TestLoopGradient(t *testing.T) {
	build(t, &check{in: [][]int{{3}, {3}}, whole: true}, loopNode(), map[string]*engine.Tensor{"turns": tensor([]int64{4})})
	n := loopNode()
	n.Outputs = []string{"y0"}
	build(t, &check{in: [][]int{{3}, {3}}, whole: true}, n, map[string]*engine.Tensor{"turns": tensor([]int64{3})})
}

func TestScanGradient(t *testing.T) {
	n := node("Scan", []string{"x0", "x1"}, "last", "y0")
	n.Attrs["num_scan_inputs"] = aInt(1)
	n.Attrs["scan_input_axes"], n.Attrs["scan_output_axes"], n.Attrs["scan_input_directions"] = aInts(1), aInts(1), aInts(1)
	n.Attrs["body"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{
		Inputs: []engine.Spec{{Name: "s"}, {Name: "e"}}, Outputs: []string{"next", "seen"},
		Nodes: []*graph.Node{node("Mul", []string{"s", "e"}, "m"), node("Add", []string{"m", "x2"}, "next"), node("Mul", []string{"next", "next"}, "seen")},
	}}
	graph.Capture(n)
	build(t, &check{in: [][]int{{2}, {2, 4}, {2}}, whole: true}, n, nil)
}

// TestScan8Gradient: each row of the batch is walked alone, one input twice, from its end,
// and all rows read the value around them.
func TestScan8Gradient(t *testing.T) {
	n := node("Scan", []string{"", "x0", "x1", "x1"}, "last", "y0")
	n.Version = 8
	n.Attrs["num_scan_inputs"], n.Attrs["directions"] = aInt(2), aInts(1, 0)
	n.Attrs["body"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{
		Inputs: []engine.Spec{{Name: "s"}, {Name: "e"}, {Name: "f"}}, Outputs: []string{"next", "seen"},
		Nodes: []*graph.Node{node("Mul", []string{"s", "e"}, "m"), node("Add", []string{"m", "x2"}, "next"), node("Mul", []string{"next", "f"}, "seen")},
	}}
	graph.Capture(n)
	for range 2 {
		build(t, &check{in: [][]int{{3, 2}, {3, 4, 2}, {2}}, whole: true}, n, nil)
		n.Outputs = []string{"y0"} // the last states alone
	}
}

// mapNode runs a body over the values of two lists, one of them twice, with a tensor that all
// have and one around it; its results are one list of what it computes and one of what it got.
func mapNode(inner ...*graph.Node) *graph.Node {
	n := node("SequenceMap", []string{"list", "other", "x1", "list"}, "made", "same")
	n.Attrs["body"] = graph.Attr{Kind: graph.AttrGraph, Graph: &graph.Graph{
		Inputs:  []engine.Spec{{Name: "a", DType: engine.Float64}, {Name: "b", DType: engine.Float64}, {Name: "c", DType: engine.Float64}, {Name: "again", DType: engine.Float64}},
		Outputs: []string{"out", "again"}, Nodes: inner,
	}}
	graph.Capture(n)
	return n
}

// mapped is a graph around such a node, of columns of x0 of unequal numbers.
func mapped(t *testing.T, n *graph.Node) (*graph.Program, engine.Values) {
	t.Helper()
	columns := func(n *graph.Node) *graph.Node { n.Attrs["axis"] = aInt(1); return n }
	g := &graph.Graph{
		Nodes: []*graph.Node{
			columns(node("SplitToSequence", []string{"x0", "lengths"}, "list")),
			node("Sin", []string{"x0"}, "sine"),
			columns(node("SplitToSequence", []string{"sine", "lengths"}, "other")),
			n,
			columns(node("ConcatFromSequence", []string{"made"}, "m")),
			columns(node("ConcatFromSequence", []string{"same"}, "s")),
			node("Mul", []string{"m", "s"}, "both"),
			node("SequenceAt", []string{"made", "one"}, "second"),
			node("ReduceSum", []string{"second", "one"}, "sum"),
			node("Add", []string{"both", "sum"}, "y0"),
		},
		Outputs: []string{"y0"}, Constants: map[string]*engine.Tensor{"lengths": ints(2, 3, 1), "one": tensor([]int64{1})},
	}
	var in engine.Values
	for i, shape := range [][]int{{2, 6}, {2, 1}, {1}} {
		name := fmt.Sprintf("x%d", i)
		g.Inputs = append(g.Inputs, engine.Spec{Name: name, DType: engine.Float64, Shape: shape})
		in = append(in, engine.Named{Name: name, Tensor: noise(shape...)})
	}
	p, err := graph.Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	return p, in
}

func TestSequenceMapGradient(t *testing.T) {
	p, in := mapped(t, mapNode(node("Mul", []string{"a", "b"}, "ab"), node("Mul", []string{"ab", "c"}, "abc"), node("Pow", []string{"abc", "x2"}, "out")))
	compareCentral(t, p, in, "y0", true)
	n := mapNode(node("Mul", []string{"a", "x2"}, "out"))
	n.Inputs[2] = "x2" // of one number, and read from around the body too
	p, in = mapped(t, n)
	compareCentral(t, p, in, "y0", true)
}

// TestSequenceMapNamesInnerNode: what has no derivative inside of a map is named.
func TestSequenceMapNamesInnerNode(t *testing.T) {
	hard := node("Hardmax", []string{"a"}, "out")
	hard.Name = "inside"
	p, in := mapped(t, mapNode(hard))
	_, err := Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "y0"}, []string{"x0"})
	var refused *engine.NotDifferentiableError
	if !errors.As(err, &refused) || refused.Node != "inside" || refused.Op != "Hardmax" || !strings.Contains(refused.Instead, "the scores that it decides by") {
		t.Errorf("error %v, want one that names the node inside", err)
	}
}

// TestNoGradientIsNamed: what has no derivative is an error that names the node, why, and
// what to use instead.
func TestNoGradientIsNamed(t *testing.T) {
	attr := func(n *graph.Node, name string, a graph.Attr) *graph.Node { n.Attrs[name] = a; return n }
	for _, c := range []struct {
		n               *graph.Node
		reason, instead string
	}{
		{node("Hardmax", []string{"x"}, "y"), "changes only by jumps", "the scores that it decides by"},
		{node("SequenceLength", []string{"s"}, "y"), "shapes and settings", "an output that"},
		{node("DynamicQuantizeLinear", []string{"x"}, "q", "y", "z"), "8 bits", "the network in floats"},
		{node("ArgMax", []string{"x"}, "y"), "changes only by jumps", "the scores that it decides by"},
		{attr(node("Cast", []string{"x"}, "y"), "to", aInt(7)), "no float", "an output that"},
		{node("TopK", []string{"x", "k"}, "v", "y"), "no float", "the scores that it decides by"},
		{attr(node("BatchNormalization", []string{"x", "x1", "x1", "x1", "x1"}, "y"), "training_mode", aInt(1)), "each row depends on all", "an output that"},
	} {
		g := &graph.Graph{
			Nodes:   []*graph.Node{node("ReduceSum", []string{"x", "zero"}, "x0"), node("Squeeze", []string{"x0", "zero"}, "x1"), c.n},
			Outputs: []string{"y"}, Constants: map[string]*engine.Tensor{"k": ints(1), "zero": ints(0)},
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{2, 3}}},
		}
		if c.n.Op == "SequenceLength" {
			g.Nodes = append(g.Nodes, node("SequenceConstruct", []string{"x"}, "s"))
		}
		p, err := graph.Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: tensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3)}}
		_, err = Gradient(t.Context(), p, graph.Options{}, in, engine.Target{Name: "y"}, []string{"x"})
		var refused *engine.NotDifferentiableError
		switch {
		case !errors.As(err, &refused):
			t.Errorf("%s: error %v, want one that names the node", c.n.Op, err)
		case refused.Node != c.n.Label() || refused.Op != c.n.Op || !strings.Contains(refused.Reason, c.reason) || !strings.Contains(refused.Instead, c.instead):
			t.Errorf("%s: %v, want node %q, reason %q, instead %q", c.n.Op, refused, c.n.Label(), c.reason, c.instead)
		}
	}
}

// TestEveryRefusalIsWhole: of each operator without a rule the error has all that helps.
func TestEveryRefusalIsWhole(t *testing.T) {
	for op, r := range refusals {
		err := notDifferentiable(&graph.Node{Op: op, Name: "here"}, "").Error()
		for _, say := range []string{`node "here" (` + op + ")", r.reason, "use " + r.instead + " instead"} {
			if !strings.Contains(err, say) {
				t.Errorf("no %q in %q", say, err)
			}
		}
	}
	if err := notDifferentiable(&graph.Node{Op: "Mystery", Name: "here"}, "").Error(); !strings.Contains(err, "no rule for it") || !strings.Contains(err, "use ") {
		t.Error(err)
	}
}
