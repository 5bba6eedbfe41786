package compress

import (
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// The first operator sets with DequantizeLinear, and with a scale for each channel.
const (
	dequantizeOpset = 10
	channelOpset    = 13
)

// int8Cost is about what a node, two more tensors and their names take in the file.
const int8Cost = 110

// int8Weights keeps weight matrices as 8-bit integers with one scale a channel, and has
// DequantizeLinear make floats of them where they are read. Activations stay floats.
func int8Weights(in Input) (*Result, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	if v := f.Opset(""); v < dequantizeOpset {
		return nil, refuse("the file imports operator set %d of ai.onnx, DequantizeLinear is there since %d", v, dequantizeOpset)
	}
	graphs, err := f.Graphs()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	axes := channels(graphs)
	for _, g := range graphs {
		for _, w := range g.Weights() {
			axis, ok := axes[w]
			if !ok || len(w.Shape) < 2 || axis >= len(w.Shape) {
				continue
			}
			if err := octets(g, w, axis, r); err != nil {
				return nil, err
			}
		}
	}
	if len(r.Changes) == 0 {
		return nil, refuse("no MatMul, Gemm, Conv or recurrent node has a weight matrix of FP32 that would become smaller%s", obstacles(r.Notes))
	}
	r.Data, err = f.Bytes()
	return r, err
}

// octets keeps one weight in 8 bits, if it is FP32 and becomes smaller by it.
func octets(g *onnx.File, w *onnx.Weight, axis int, r *Result) error {
	if w.DType == engine.Float64 {
		r.note("%s stays FP64: DequantizeLinear makes single precision", w.Name)
	}
	if w.DType != engine.Float32 {
		return nil
	}
	if g.Opset("") < channelOpset {
		axis = -1
	}
	n := 1
	if axis >= 0 {
		n = w.Shape[axis]
	}
	if 3*w.Len <= int8Cost+4*n+3*len(w.Name) {
		return nil
	}
	t, err := w.Value()
	if err != nil {
		return err
	}
	q, scales, ok := quantise(engine.Data[float32](t), w.Shape, axis)
	if !ok {
		r.note("%s stays FP32: it holds numbers that are not finite", w.Name)
		return nil
	}
	name := w.Name
	if err := dequantised(g, w, q, scales, axis, ""); err != nil {
		return err
	}
	r.change(name, "%d elements of FP32 kept as INT8 with %s", t.Len(), count(len(scales), "scale", "scales"))
	return nil
}

// channels tells for each weight that something multiplies by the axis of what it
// makes: along it one scale each keeps small channels exact beside large ones.
func channels(graphs []*onnx.File) map[*onnx.Weight]int {
	out := map[*onnx.Weight]int{}
	for _, g := range graphs {
		for _, n := range g.Nodes() {
			if n.Domain != "" {
				continue
			}
			for _, i := range multiplied[n.Op] {
				if i >= len(n.Inputs) {
					continue
				}
				w := g.Weight(n.Inputs[i])
				if w == nil {
					continue
				}
				if _, known := out[w]; !known {
					out[w] = channelAxis(n, i, len(w.Shape))
				}
			}
		}
	}
	return out
}

// channelAxis is the axis of input i of a node that its output has too.
func channelAxis(n *onnx.FileNode, i, rank int) int {
	last := max(rank-1, 0)
	switch n.Op {
	case "Conv":
		return 0
	case "ConvTranspose", "LSTM", "GRU", "RNN":
		return 1
	case "Gemm":
		if (i == 0) == (n.Number([]string{"transA", "transB"}[i], 0) == 0) {
			return 0
		}
		return 1
	}
	if i == 0 {
		return max(rank-2, 0)
	}
	return last
}

// quantise rounds v to 8 bits, symmetric around 0: the largest of each channel, or of
// all where axis is -1, becomes 127. ok is false where a number is not finite.
func quantise(v []float32, shape []int, axis int) (q []int8, scales []float32, ok bool) {
	if scales, ok = symmetric(v, shape, axis); !ok {
		return nil, nil, false
	}
	for k := range scales {
		if scales[k] == 0 {
			scales[k] = 1 // nothing but zeros, or less than can be told from them
		}
	}
	return toScale(v, shape, axis, scales), scales, true
}

// places returns the channel of element i along an axis, and how many there are; with
// axis -1 all are of one.
func places(shape []int, axis int) (channel func(i int) int, n int) {
	if axis < 0 {
		return func(int) int { return 0 }, 1
	}
	inner := 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	n = shape[axis]
	return func(i int) int { return i / inner % n }, n
}

// symmetric returns the scale of each channel, 0 where it holds nothing but zeros; ok is
// false where a number is not finite.
func symmetric(v []float32, shape []int, axis int) (scales []float32, ok bool) {
	channel, n := places(shape, axis)
	scales = make([]float32, n)
	for i, x := range v {
		a := math.Abs(float64(x))
		if !(a <= math.MaxFloat32) {
			return nil, false
		}
		scales[channel(i)] = max(scales[channel(i)], float32(a))
	}
	for k := range scales {
		scales[k] /= 127
	}
	return scales, true
}

// toScale rounds v to multiples of its channel's scale.
func toScale(v []float32, shape []int, axis int, scales []float32) []int8 {
	channel, _ := places(shape, axis)
	q := make([]int8, len(v))
	for i, x := range v {
		q[i] = int8(max(-127, min(127, math.RoundToEven(float64(x)/float64(scales[channel(i)])))))
	}
	return q
}

// dequantised keeps a weight as q; zero, if any, names its zero points.
func dequantised(f *onnx.File, w *onnx.Weight, q []int8, scales []float32, axis int, zero string) error {
	t, err := engine.Of(q, w.Shape...)
	if err != nil {
		return err
	}
	shape, attrs := []int{len(scales)}, map[string]int64{"axis": int64(axis)}
	if axis < 0 {
		shape, attrs = nil, nil
	}
	s, err := engine.Of(scales, shape...)
	if err != nil {
		return err
	}
	scale := f.Fresh(w.Name + "/scale")
	if err := f.AddWeight(scale, s); err != nil {
		return err
	}
	return f.Derive(w, "/int8", t, func(from, name string) []onnx.NewNode {
		in := []string{from, scale}
		if zero != "" {
			in = append(in, zero)
		}
		return []onnx.NewNode{{Name: f.Fresh(name + "/dequantize"), Op: "DequantizeLinear", Inputs: in, Outputs: []string{name}, Ints: attrs}}
	})
}
