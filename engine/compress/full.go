package compress

import (
	"context"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// int8Full keeps the weights of convolutions and products as signed bytes with a scale a
// channel, and rounds what they take in, and convolutions what they give, to unsigned
// bytes whose ranges were found by rows. The file says so by pairs of QuantizeLinear and
// DequantizeLinear around nodes that stay what they are, which runtimes put together
// to integer arithmetic.
func int8Full(ctx context.Context, in Input) (*Result, error) {
	f, err := onnx.Edit(in.Data, in.Dir)
	if err != nil {
		return nil, err
	}
	if v := f.Opset(""); v < dequantizeOpset {
		return nil, refuse("the file imports operator set %d of ai.onnx, QuantizeLinear is there since %d", v, dequantizeOpset)
	}
	r := &Result{}
	if err := leaveInner(f, r); err != nil {
		return nil, err
	}
	if err := foldNorms(f, r); err != nil {
		return nil, err
	}
	data, err := f.Bytes()
	if err != nil {
		return nil, err
	}
	raised, err := raise(ctx, in, f, data)
	if err != nil {
		return nil, err
	}
	if raised {
		r.note("operator set %d is imported, for scales of each channel", channelOpset)
		if data, err = f.Bytes(); err != nil {
			return nil, err
		}
	}
	if f, err = onnx.Edit(data, in.Dir); err != nil {
		return nil, err
	}
	q := &quantiser{structurer: newStructurer(f), r: r, values: map[string]*quantised{}, rounded: map[string]*quantised{}}
	for _, n := range f.Nodes() {
		q.choose(n)
	}
	if len(q.nodes) == 0 {
		return nil, refuse("no MatMul, Gemm or Conv of the main graph has a constant weight matrix of FP32%s", obstacles(r.Notes))
	}
	spans, rows, err := calibrate(ctx, in, data, q.order)
	if err != nil {
		return nil, err
	}
	how := in.Ranges
	if how == "" {
		how = MinMax
	}
	r.note("the ranges of %d values were taken from %d rows (%s)", len(q.order), rows, how)
	if err := q.round(spans); err != nil {
		return nil, err
	}
	if r.Data, err = f.Bytes(); err == nil && len(r.Data) >= len(in.Data) {
		r.note("the file is not smaller: what says how to round takes more than the weights")
	}
	return r, err
}

// quantiser rounds the values of one file.
type quantiser struct {
	*structurer
	r *Result
	// nodes are to compute with bytes, order the values to be rounded.
	nodes  []*onnx.FileNode
	order  []string
	values map[string]*quantised
	// rounded are the values by the names they have after that.
	rounded map[string]*quantised
}

// quantised is a value that is rounded.
type quantised struct {
	// all has every node read the rounded value: it is kept as bytes. Else only the
	// nodes that compute with bytes do, and the others stay as exact as they are.
	all     bool
	scale   float32
	zero    uint8
	kept    bool   // it has a range
	follows string // a value of whose elements it is made, whose range it shares
	nodes   []*onnx.FileNode
}

// byteOps are the operators that compute with bytes.
var byteOps = []string{"Conv", "MatMul", "Gemm"}

// choosing operators make no elements that they are not given.
var choosing = []string{"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity"}

// choose takes a node in if it can compute with bytes.
func (q *quantiser) choose(n *onnx.FileNode) {
	if n.Domain != "" || !slices.Contains(byteOps, n.Op) || len(n.Inputs) < 2 || len(n.Outputs) != 1 {
		return
	}
	w := q.file.Weight(n.Inputs[1])
	switch {
	case w == nil || w.DType != engine.Float32 || w.Len == 0 || q.file.Weight(n.Inputs[0]) != nil || n.Inputs[0] == "":
		return
	case n.Op == "Conv" && len(w.Shape) < 3, n.Op != "Conv" && len(w.Shape) != 2:
		return
	case n.Op == "Gemm" && (n.Number("alpha", 1) != 1 || n.Number("beta", 1) != 1 || n.Number("transA", 0) != 0):
		q.r.note("%s stays FP32: it scales or transposes what it takes in", label(n))
		return
	}
	q.nodes = append(q.nodes, n)
	in := q.value(n.Inputs[0])
	in.nodes = append(in.nodes, n)
	if n.Op != "Conv" {
		return
	}
	in.all = true
	if out := q.after(n); !slices.Contains(q.file.Outputs(), out) {
		q.value(out).all = true
	}
}

// after is the value that a convolution gives once what only bounds it is done.
func (q *quantiser) after(n *onnx.FileNode) string {
	out := n.Outputs[0]
	next := q.readers[out]
	if len(next) == 1 && q.reads[out] == 1 && next[0].Domain == "" && next[0].Inputs[0] == out && (next[0].Op == "Relu" || next[0].Op == "Clip") {
		return next[0].Outputs[0]
	}
	return out
}

func (q *quantiser) value(name string) *quantised {
	v := q.values[name]
	if v == nil {
		v = &quantised{}
		if m := q.makers[name]; m != nil && m.Domain == "" && slices.Contains(choosing, m.Op) && len(m.Inputs) > 0 && q.values[m.Inputs[0]] != nil {
			v.follows = m.Inputs[0]
		}
		q.values[name] = v
		q.order = append(q.order, name)
	}
	return v
}

// round writes the pairs, the weights and the biases.
func (q *quantiser) round(spans map[string]*span) error {
	for _, name := range q.order {
		v, s := q.values[name], spans[name]
		if s.no != "" {
			q.r.note("%q stays as it is: %s", clip(name), s.no)
			continue
		}
		v.kept = true
		v.scale, v.zero = s.parameters()
		if from := q.values[v.follows]; from != nil && from.kept {
			v.scale, v.zero = from.scale, from.zero
		}
		if err := q.pair(name, v); err != nil {
			return err
		}
	}
	done := map[string][]float32{}
	for _, n := range q.nodes {
		if err := q.node(n, done); err != nil {
			return err
		}
	}
	if len(q.r.Changes) == 0 {
		return refuse("nothing of the graph could be rounded%s", obstacles(q.r.Notes))
	}
	return nil
}

// pair has what reads a value read it rounded.
func (q *quantiser) pair(name string, v *quantised) error {
	scale, zero := q.file.Fresh(name+"/scale"), q.file.Fresh(name+"/zero")
	bytes := q.file.Fresh(name + "/uint8")
	to := q.file.Fresh(name + "/rounded")
	q.rounded[to] = v
	s, err := engine.Of([]float32{v.scale})
	if err != nil {
		return err
	}
	z, err := engine.Of([]uint8{v.zero})
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name string
		t    *engine.Tensor
	}{{scale, s}, {zero, z}} {
		if err := q.file.AddWeight(x.name, x.t); err != nil {
			return err
		}
	}
	readers := v.nodes
	if v.all {
		readers = q.readers[name]
	}
	for _, n := range readers {
		for i, in := range n.Inputs {
			if in != name {
				continue
			}
			if err := q.file.SetInput(n, i, to); err != nil {
				return err
			}
		}
	}
	q.file.Insert(q.makers[name],
		onnx.NewNode{Name: q.file.Fresh(name + "/quantize"), Op: "QuantizeLinear", Inputs: []string{name, scale, zero}, Outputs: []string{bytes}},
		onnx.NewNode{Name: q.file.Fresh(name + "/dequantize"), Op: "DequantizeLinear", Inputs: []string{bytes, scale, zero}, Outputs: []string{to}})
	return nil
}

// node rounds a node's weights, once for all that share them, and its bias; done has
// the scales of those that are.
func (q *quantiser) node(n *onnx.FileNode, done map[string][]float32) error {
	in := q.rounded[n.Inputs[0]]
	if in == nil {
		return nil
	}
	bias, err := q.biasOf(n)
	if err != nil {
		return err
	}
	name := n.Inputs[1]
	scales, ok := done[name]
	if !ok {
		if scales, err = q.weights(n, bias, in.scale); err != nil || scales == nil {
			return err
		}
		done[name] = scales
	}
	what := ""
	if bias != nil {
		if ok, err = q.roundBias(n, bias, scales, in.scale); err != nil {
			return err
		}
		if what = ", bias INT32"; !ok {
			what = ", bias FP32, whose numbers are too large for the scales"
		}
	}
	q.r.change(label(n), "weights INT8 with %s, what it takes in UINT8%s", count(len(scales), "scale", "scales"), what)
	return nil
}

// biasOf returns the numbers of a node's constant bias, one a channel, or nil.
func (q *quantiser) biasOf(n *onnx.FileNode) ([]float32, error) {
	if n.Op == "MatMul" || len(n.Inputs) < 3 || n.Inputs[2] == "" {
		return nil, nil
	}
	w := q.file.Weight(n.Inputs[2])
	if w == nil || w.DType != engine.Float32 || len(w.Shape) != 1 {
		return nil, nil
	}
	weights := q.file.Weight(n.Inputs[1])
	if weights != nil && w.Len != weights.Shape[channelAxis(n, 1, len(weights.Shape))] {
		return nil, nil
	}
	t, err := w.Value()
	if err != nil {
		return nil, err
	}
	return engine.Data[float32](t), nil
}

// largestBias bounds a rounded bias: sums of products come on top of it in 32 bits.
const largestBias = 1 << 30

// weights rounds those of a node; without scales they are left as they are.
func (q *quantiser) weights(n *onnx.FileNode, bias []float32, in float32) ([]float32, error) {
	w := q.file.Weight(n.Inputs[1])
	axis := channelAxis(n, 1, len(w.Shape))
	if q.file.Opset("") < channelOpset {
		axis = -1
	}
	t, err := w.Value()
	if err != nil {
		return nil, err
	}
	v := engine.Data[float32](t)
	scales, ok := symmetric(v, w.Shape, axis)
	if !ok {
		q.r.note("%s stays FP32: it holds numbers that are not finite", w.Name)
		return nil, nil
	}
	for c := range scales {
		largest := 0.0
		for i, b := range bias {
			if axis < 0 || i == c {
				largest = max(largest, math.Abs(float64(b)))
			}
		}
		// A channel of nothing but zeros has the scale that its bias needs.
		switch least := largest / float64(in) / largestBias; {
		case scales[c] == 0 && largest == 0:
			scales[c] = 1
		case scales[c] == 0:
			scales[c] = max(float32(least*(1<<10)), math.SmallestNonzeroFloat32*(1<<24))
		case float64(scales[c]) < least:
			scales[c] = float32(least)
		}
	}
	// Zero points are 0 and could be left out, but onnxruntime puts no Gemm together without.
	zero, err := q.zeros(w.Name, len(scales), axis)
	if err != nil {
		return nil, err
	}
	return scales, dequantised(q.file, w, toScale(v, w.Shape, axis, scales), scales, axis, zero)
}

// zeros adds the zero points of a weight.
func (q *quantiser) zeros(name string, n, axis int) (string, error) {
	shape := []int{n}
	if axis < 0 {
		shape = nil
	}
	t, err := engine.Of(make([]int8, n), shape...)
	if err != nil {
		return "", err
	}
	zero := q.file.Fresh(name + "/zero")
	return zero, q.file.AddWeight(zero, t)
}

// roundBias keeps a bias in units of the products; ok is false where a number would be
// too large.
func (q *quantiser) roundBias(n *onnx.FileNode, bias, scales []float32, in float32) (ok bool, err error) {
	units := make([]float32, len(scales))
	for c := range units {
		units[c] = in * scales[c]
	}
	v := make([]int32, len(bias))
	for i, b := range bias {
		x := math.RoundToEven(float64(b) / float64(units[min(i, len(units)-1)]))
		if !(math.Abs(x) <= 2*largestBias-1) {
			return false, nil
		}
		v[i] = int32(x)
	}
	t, err := engine.Of(v, len(v))
	if err != nil {
		return false, err
	}
	shape, attrs := []int{len(units)}, map[string]int64{"axis": 0}
	if len(units) == 1 && q.file.Opset("") < channelOpset {
		shape, attrs = nil, nil
	}
	u, err := engine.Of(units, shape...)
	if err != nil {
		return false, err
	}
	old := n.Inputs[2]
	from, scale, to := q.file.Fresh(old+"/int32"), q.file.Fresh(old+"/units"), q.file.Fresh(old+"/rounded")
	if err := q.file.AddWeight(from, t); err != nil {
		return false, err
	}
	if err := q.file.AddWeight(scale, u); err != nil {
		return false, err
	}
	q.file.Insert(nil, onnx.NewNode{Name: q.file.Fresh(old + "/dequantize"), Op: "DequantizeLinear", Inputs: []string{from, scale}, Outputs: []string{to}, Ints: attrs})
	if err := q.file.SetInput(n, 2, to); err != nil {
		return false, err
	}
	if q.reads[old]--; q.reads[old] == 0 {
		q.file.Drop(q.file.Weight(old))
	}
	return true, nil
}

// foldNorms puts what normalises a convolution's channels into its weights: between
// the two nothing could be rounded well.
func foldNorms(f *onnx.File, r *Result) error {
	s := newStructurer(f)
	for _, n := range slices.Clone(f.Nodes()) {
		if n.Domain != "" || n.Op != "Conv" || len(n.Inputs) < 2 || len(n.Outputs) != 1 || s.reads[n.Outputs[0]] != 1 || len(s.readers[n.Outputs[0]]) != 1 {
			continue
		}
		norm := s.readers[n.Outputs[0]][0]
		w := f.Weight(n.Inputs[1])
		if norm.Domain != "" || norm.Op != "BatchNormalization" || len(norm.Inputs) != 5 || norm.Inputs[0] != n.Outputs[0] || norm.Number("training_mode", 0) != 0 || len(norm.Outputs) != 1 ||
			w == nil || w.DType != engine.Float32 || len(w.Shape) < 3 || s.reads[w.Name] != 1 {
			continue
		}
		if err := s.foldNorm(n, norm, w, r); err != nil {
			return err
		}
	}
	return nil
}

// vector returns the numbers of a constant of n of FP32, or nil.
func (s *structurer) vector(name string, n int) ([]float32, error) {
	w := s.file.Weight(name)
	if w == nil || w.DType != engine.Float32 || w.Len != n || len(w.Shape) != 1 {
		return nil, nil
	}
	t, err := w.Value()
	if err != nil {
		return nil, err
	}
	return engine.Data[float32](t), nil
}

func (s *structurer) foldNorm(n, norm *onnx.FileNode, w *onnx.Weight, r *Result) error {
	channels := w.Shape[0]
	var p [4][]float32
	for i := range p {
		v, err := s.vector(norm.Inputs[i+1], channels)
		if err != nil || v == nil {
			return err
		}
		p[i] = v
	}
	bias, has := make([]float32, channels), len(n.Inputs) > 2 && n.Inputs[2] != ""
	if has {
		b, err := s.vector(n.Inputs[2], channels)
		if err != nil || b == nil {
			return err
		}
		bias = slices.Clone(b)
	}
	t, err := w.Value()
	if err != nil {
		return err
	}
	v := slices.Clone(engine.Data[float32](t))
	each := len(v) / max(channels, 1)
	for c := range channels {
		scale := float64(p[0][c]) / math.Sqrt(float64(p[3][c])+norm.Number("epsilon", 1e-5))
		bias[c] = float32((float64(bias[c])-float64(p[2][c]))*scale + float64(p[1][c]))
		for i := range each {
			v[c*each+i] = float32(float64(v[c*each+i]) * scale)
		}
	}
	if t, err = engine.Of(v, w.Shape...); err != nil {
		return err
	}
	if err := s.file.Replace(w, t); err != nil {
		return err
	}
	b, err := engine.Of(bias, channels)
	if err != nil {
		return err
	}
	name := s.file.Fresh(n.Outputs[0] + "/bias")
	if err := s.file.AddWeight(name, b); err != nil {
		return err
	}
	used := slices.Clone(norm.Inputs[1:])
	if has {
		used = append(used, n.Inputs[2])
	}
	if err := s.file.SetInput(n, 2, name); err != nil {
		return err
	}
	s.file.Reshaped(n.Outputs[0])
	if err := s.file.SetOutput(n, 0, norm.Outputs[0]); err != nil {
		return err
	}
	s.file.Remove(norm)
	for _, name := range used {
		if s.reads[name]--; s.reads[name] == 0 {
			s.file.Drop(s.file.Weight(name))
		}
	}
	r.change(label(n), "%s is part of its weights", label(norm))
	return nil
}
