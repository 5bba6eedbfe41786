package autodiff

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// rule adds to the gradients of n's inputs, given those of its outputs.
type rule[T float] func(b *back[T], n *graph.Node) error

// ruleOf returns an operator's rule, or nil where it has no derivative.
func ruleOf[T float](n *graph.Node) rule[T] {
	if f := derivative(n); f != nil {
		return pointwise[T](f)
	}
	if graph.IsComposite(n) {
		return composite[T]
	}
	if graph.IsLinearMap(n) {
		return linear[T]
	}
	if graph.HasTurns(n) {
		return turns[T]
	}
	if graph.IsScan8(n) {
		return scanRows[T]
	}
	switch n.Op {
	case "Add", "Sub", "Mul", "Div", "Pow", "Mod":
		return binary[T]
	case "Sum", "Mean":
		return addAll[T]
	case "Max", "Min":
		return extreme[T]
	case "Gemm":
		return gemm[T]
	case "MatMul":
		return matmul[T]
	case "MatMulNBits":
		return matmulNBits[T]
	case graph.OpLinearScores:
		return linearScores[T]
	case "Scaler":
		return scaler[T]
	case "Normalizer":
		return normalizer[T]
	case "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "ZipMap", "Optional", "OptionalGetElement":
		return pass[T]
	case "Dropout":
		return dropout[T]
	case "Cast", "CastLike":
		return castRule[T]
	case "QuantizeLinear":
		return quantize[T]
	case "DequantizeLinear":
		return dequantize[T]
	case "Softmax", "LogSoftmax":
		return softmax[T]
	case graph.OpPostTransform, graph.OpClassifierOutput:
		return postTransform[T]
	case "BatchNormalization":
		return batchNorm[T]
	case "LayerNormalization":
		return layerNorm[T]
	case "Transpose", "Slice", "Expand", "Tile", "Gather", "GatherElements", "Split", "Concat", "Where", "ArrayFeatureExtractor", "FeatureVectorizer",
		"OneHot", "Pad", "DepthToSpace", "SpaceToDepth", "Trilu", "GatherND", "Compress", "ReverseSequence", "CenterCropPad", "TensorScatter",
		"SplitToSequence", "SequenceAt", "SequenceConstruct", "SequenceInsert", "SequenceErase", "ConcatFromSequence":
		return moved[T]
	case "ScatterND", "ScatterElements", "Scatter":
		return scatter[T]
	case "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd":
		return reduce[T]
	}
	return spatialRule[T](n)
}

// spatialRule returns the rules of spatial.go.
func spatialRule[T float](n *graph.Node) rule[T] {
	switch n.Op {
	case "Conv", "ConvTranspose":
		return conv[T]
	case "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool", "GlobalLpPool":
		return pool[T]
	case "MaxRoiPool":
		return regionPool[T]
	case "RoiAlign": // of the mean it is a linear map
		return largestTaps[T]
	case "InstanceNormalization", "GroupNormalization":
		return channelNorm[T]
	case "Einsum":
		return einsum[T]
	case "Resize", "Upsample":
		return resize[T]
	case "PRelu":
		return prelu[T]
	case "Det":
		return det[T]
	case "CumSum":
		return cumSum[T]
	case "Range":
		return counted[T]
	case "CumProd":
		return cumProd[T]
	case "TopK":
		return topK[T]
	case "LpNormalization":
		return lpNormalization[T]
	case "RNN", "GRU", "LSTM":
		return recurrent[T]
	case graph.OpSVMKernel:
		return svmKernel[T]
	case graph.OpSVMPairs:
		return svmPairs[T]
	case graph.OpSVMOutput:
		return svmOutput[T]
	}
	return nil
}

func attrFloat(n *graph.Node, name string, def float64) float64 {
	if a, ok := n.Attrs[name]; ok {
		return float64(a.Float)
	}
	return def
}

func heaviside(x float64) float64 {
	if x > 0 {
		return 1
	}
	return 0
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func zero(_, _ float64) float64 { return 0 }

// derivative returns dy/dx of a function of one element, from x and y.
func derivative(n *graph.Node) func(x, y float64) float64 {
	switch n.Op {
	case "Neg":
		return func(_, _ float64) float64 { return -1 }
	case "Abs":
		return func(x, _ float64) float64 {
			if x == 0 {
				return 0
			}
			return math.Copysign(1, x)
		}
	case "Sign", "Floor", "Ceil", "Round":
		return zero
	case "Sqrt":
		return func(_, y float64) float64 { return 0.5 / y }
	case "Exp":
		return func(_, y float64) float64 { return y }
	case "Log":
		return func(x, _ float64) float64 { return 1 / x }
	case "Reciprocal":
		return func(_, y float64) float64 { return -y * y }
	case "Erf":
		return func(x, _ float64) float64 { return 2 / math.Sqrt(math.Pi) * math.Exp(-x*x) }
	case "Sin":
		return func(x, _ float64) float64 { return math.Cos(x) }
	case "Cos":
		return func(x, _ float64) float64 { return -math.Sin(x) }
	case "Tan":
		return func(_, y float64) float64 { return 1 + y*y }
	case "Asin":
		return func(x, _ float64) float64 { return 1 / math.Sqrt(1-x*x) }
	case "Acos":
		return func(x, _ float64) float64 { return -1 / math.Sqrt(1-x*x) }
	case "Atan":
		return func(x, _ float64) float64 { return 1 / (1 + x*x) }
	case "Sinh":
		return func(x, _ float64) float64 { return math.Cosh(x) }
	case "Cosh":
		return func(x, _ float64) float64 { return math.Sinh(x) }
	case "Asinh":
		return func(x, _ float64) float64 { return 1 / math.Sqrt(x*x+1) }
	case "Acosh":
		return func(x, _ float64) float64 { return 1 / math.Sqrt(x*x-1) }
	case "Atanh":
		return func(x, _ float64) float64 { return 1 / (1 - x*x) }
	case "Clip", "Imputer":
		// A bound, or what a missing value is replaced by, is a constant: where it
		// holds, y differs from x.
		return func(x, y float64) float64 {
			if x == y {
				return 1
			}
			return 0
		}
	}
	return activation(n)
}

func activation(n *graph.Node) func(x, y float64) float64 {
	switch n.Op {
	case "Relu":
		return func(x, _ float64) float64 { return heaviside(x) }
	case "Sigmoid":
		return func(_, y float64) float64 { return y * (1 - y) }
	case "Tanh":
		return func(_, y float64) float64 { return 1 - y*y }
	case "Softplus":
		return func(x, _ float64) float64 { return sigmoid(x) }
	case "Softsign":
		return func(x, _ float64) float64 { d := 1 + math.Abs(x); return 1 / (d * d) }
	case "LeakyRelu":
		alpha := attrFloat(n, "alpha", 0.01)
		return func(x, _ float64) float64 { return heaviside(x) + alpha*(1-heaviside(x)) }
	case "Elu":
		alpha := attrFloat(n, "alpha", 1)
		return func(x, _ float64) float64 { return expBranch(x, alpha, 1) }
	case "Celu":
		alpha := attrFloat(n, "alpha", 1)
		return func(x, _ float64) float64 { return expBranch(x/alpha, 1, 1) }
	case "Selu":
		alpha, gamma := attrFloat(n, "alpha", 1.67326319217681884765625), attrFloat(n, "gamma", 1.05070102214813232421875)
		return func(x, _ float64) float64 { return expBranch(x, alpha, 1) * gamma }
	case "Swish":
		alpha := attrFloat(n, "alpha", 1)
		return func(x, y float64) float64 { s := sigmoid(alpha * x); return s + alpha*y*(1-s) }
	case "Mish":
		return func(x, _ float64) float64 {
			t := math.Tanh(math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))))
			return t + x*(1-t*t)*sigmoid(x)
		}
	case "HardSwish":
		return func(x, _ float64) float64 {
			switch {
			case x < -3:
				return 0
			case x < 3:
				return x/3 + 0.5
			}
			return 1
		}
	case "ThresholdedRelu":
		alpha := attrFloat(n, "alpha", 1)
		return func(x, _ float64) float64 { return heaviside(x - alpha) }
	case "HardSigmoid":
		alpha := attrFloat(n, "alpha", 0.2)
		return func(_, y float64) float64 {
			if y > 0 && y < 1 {
				return alpha
			}
			return 0
		}
	case "Gelu":
		if n.Attrs["approximate"].String == "tanh" {
			return geluTanh
		}
		return func(x, _ float64) float64 {
			return 0.5*(1+math.Erf(x/math.Sqrt2)) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		}
	}
	return nil
}

func expBranch(x, alpha, slope float64) float64 {
	if x > 0 {
		return slope
	}
	return alpha * math.Exp(x)
}

func geluTanh(x, _ float64) float64 {
	c := math.Sqrt(2 / math.Pi)
	t := math.Tanh(c * (x + 0.044715*x*x*x))
	return 0.5*(1+t) + 0.5*x*(1-t*t)*c*(1+3*0.044715*x*x)
}

func pointwise[T float](f func(x, y float64) float64) rule[T] {
	return func(b *back[T], n *graph.Node) error {
		if n.Op == "Clip" && len(n.Inputs) > 1 {
			if done, err := clip(b, n); done || err != nil {
				return err
			}
		}
		g, err := b.grad(n.Inputs[0])
		if err != nil || g == nil {
			return err
		}
		out := b.grads[n.Outputs[0]]
		x, y := b.value(n.Inputs[0]), b.value(n.Outputs[0])
		if n.Op == "Relu" {
			rectified(g, x, out)
			return nil
		}
		for i, d := range out {
			if d != 0 {
				g[i] += d * T(f(float64(x[i]), float64(y[i])))
			}
		}
		return nil
	}
}

// clip is Clip's rule where its bounds, the only further inputs that a function of one element
// has, have a gradient too or make more of the first: what is beyond one goes to it. Where they
// cross, all is the upper.
func clip[T float](b *back[T], n *graph.Node) (done bool, err error) {
	shape, out := b.shape(n.Outputs[0]), b.grads[n.Outputs[0]]
	var g [3][]T
	for k, name := range n.Inputs {
		if g[k], err = b.grad(name); err != nil {
			return false, err
		}
	}
	if g[1] == nil && g[2] == nil && len(b.value(n.Inputs[0])) == len(out) {
		return false, nil
	}
	v, at := [3][]T{nil, {T(math.Inf(-1))}, {T(math.Inf(1))}}, [3][]int{1: make([]int, len(out)), 2: make([]int, len(out))}
	for k, name := range n.Inputs {
		if name != "" {
			v[k], at[k] = b.value(name), offsets(b.shape(name), shape)
		}
	}
	for i, d := range out {
		x, low, high := v[0][at[0][i]], v[1][at[1][i]], v[2][at[2][i]]
		to := 0
		switch {
		case x > high || low > high:
			to = 2
		case x < low && low < high:
			to = 1
		case !(x >= low && x <= high):
			continue
		}
		if g[to] != nil {
			g[to][at[to][i]] += d
		}
	}
	return true, nil
}

// rectified is the commonest activation's rule, without a call an element, and in 32 bits
// without a branch, which would be taken by chance.
func rectified[T float](g, x, out []T) {
	g, x = g[:len(out)], x[:len(out)]
	if g, ok := any(g).([]float32); ok {
		x, out := any(x).([]float32), any(out).([]float32)
		for i, d := range out {
			// All bits where x is above 0 and no NaN: its own, less 1, are below infinity's.
			above := (uint64(math.Float32bits(x[i])-1) - infinity32) >> 32
			g[i] += math.Float32frombits(math.Float32bits(d) & uint32(above))
		}
		return
	}
	for i, d := range out {
		if x[i] > 0 {
			g[i] += d
		}
	}
}

// infinity32 are the bits of infinity in 32.
const infinity32 = 0x7f800000

// offsets lists, for every element of a broadcast result, the element of the
// operand it came from.
func offsets(shape, out []int) []int {
	n := 1
	for _, d := range out {
		n *= d
	}
	index := make([]int, n)
	stride := 1
	run := 1
	strides := make([]int, len(out))
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] != 1 {
			strides[i+len(out)-len(shape)] = stride
		}
		stride *= shape[i]
	}
	for k := len(out) - 1; k >= 0; k-- {
		if out[k] != 0 {
			for i := range index {
				index[i] += i / run % out[k] * strides[k]
			}
		}
		run *= out[k]
	}
	return index
}

func binary[T float](b *back[T], n *graph.Node) error {
	out := b.grads[n.Outputs[0]]
	shape := b.shape(n.Outputs[0])
	x, y, z := b.value(n.Inputs[0]), b.value(n.Inputs[1]), b.value(n.Outputs[0])
	gx, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gy, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	if len(x) == len(out) && len(y) == len(out) { // nothing is broadcast
		for i, d := range out {
			if d == 0 {
				continue
			}
			dx, dy := partials(n, float64(x[i]), float64(y[i]), float64(z[i]), gy != nil)
			if gx != nil {
				gx[i] += d * T(dx)
			}
			if gy != nil {
				gy[i] += d * T(dy)
			}
		}
		return nil
	}
	ix, iy := offsets(b.shape(n.Inputs[0]), shape), offsets(b.shape(n.Inputs[1]), shape)
	for i, d := range out {
		if d == 0 {
			continue
		}
		dx, dy := partials(n, float64(x[ix[i]]), float64(y[iy[i]]), float64(z[i]), gy != nil)
		if gx != nil {
			gx[ix[i]] += d * T(dx)
		}
		if gy != nil {
			gy[iy[i]] += d * T(dy)
		}
	}
	return nil
}

func partials(n *graph.Node, x, y, z float64, second bool) (dx, dy float64) {
	switch n.Op {
	case "Add":
		return 1, 1
	case "Sub":
		return 1, -1
	case "Mul":
		return y, x
	case "Div":
		return 1 / y, -x / (y * y)
	case "Mod":
		// The remainder is x less a whole number of y.
		return 1, (z - x) / y
	}
	if y == 0 {
		dx = 0
	} else {
		dx = y * math.Pow(x, y-1)
	}
	if second && (x != 0 || y < 0) { // 0 is that to any higher power too
		dy = z * math.Log(x)
	}
	return dx, dy
}

func addAll[T float](b *back[T], n *graph.Node) error {
	out := b.grads[n.Outputs[0]]
	scale := T(1)
	if n.Op == "Mean" {
		scale = 1 / T(len(n.Inputs))
	}
	for _, name := range n.Inputs {
		g, err := b.grad(name)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		for i, j := range offsets(b.shape(name), b.shape(n.Outputs[0])) {
			g[j] += out[i] * scale
		}
	}
	return nil
}

// extreme shares the gradient of Max and Min evenly between inputs that tie.
func extreme[T float](b *back[T], n *graph.Node) error {
	out, shape, z := b.grads[n.Outputs[0]], b.shape(n.Outputs[0]), b.value(n.Outputs[0])
	ties := make([]T, len(out))
	index := make([][]int, len(n.Inputs))
	values := make([][]T, len(n.Inputs))
	for k, name := range n.Inputs {
		index[k], values[k] = offsets(b.shape(name), shape), b.value(name)
		for i, j := range index[k] {
			if values[k][j] == z[i] {
				ties[i]++
			}
		}
	}
	for k, name := range n.Inputs {
		g, err := b.grad(name)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		for i, j := range index[k] {
			if values[k][j] == z[i] {
				g[j] += out[i] / ties[i]
			}
		}
	}
	return nil
}

func gemm[T float](b *back[T], n *graph.Node) error {
	ta, tb := n.Attrs["transA"].Int != 0, n.Attrs["transB"].Int != 0
	alpha, beta := T(attrFloat(n, "alpha", 1)), T(attrFloat(n, "beta", 1))
	out, shape := b.grads[n.Outputs[0]], b.shape(n.Outputs[0])
	rows, cols := shape[0], shape[1]
	k := b.shape(n.Inputs[0])[1]
	if ta {
		k = b.shape(n.Inputs[0])[0]
	}
	scaled := out
	if alpha != 1 {
		scaled = make([]T, len(out))
		for i, d := range out {
			scaled[i] = alpha * d
		}
	}
	ga, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	if w := b.value(n.Inputs[1]); ga != nil && ta {
		graph.Matmul(ga, w, scaled, k, rows, cols, tb, true) // (k x cols)(cols x rows)
	} else if ga != nil {
		graph.Matmul(ga, scaled, w, rows, k, cols, false, !tb)
	}
	gb, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	if a := b.value(n.Inputs[0]); gb != nil && tb {
		graph.Matmul(gb, scaled, a, cols, k, rows, true, ta)
	} else if gb != nil {
		graph.Matmul(gb, a, scaled, k, cols, rows, !ta, false)
	}
	if len(n.Inputs) < 3 {
		return nil
	}
	gc, err := b.grad(n.Inputs[2])
	if err != nil || gc == nil {
		return err
	}
	if len(gc) == cols && cols > 0 && lastDim(b.shape(n.Inputs[2])) == cols { // one number a column
		for ; len(out) > 0; out = out[cols:] {
			for j, d := range out[:cols] {
				gc[j] += beta * d
			}
		}
		return nil
	}
	for i, j := range offsets(b.shape(n.Inputs[2]), shape) {
		gc[j] += beta * out[i]
	}
	return nil
}

func matmul[T float](b *back[T], n *graph.Node) error {
	s, err := graph.NewMatMulShape(b.shape(n.Inputs[0]), b.shape(n.Inputs[1]))
	if err != nil {
		return err
	}
	ga, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	gb, err := b.grad(n.Inputs[1])
	if err != nil {
		return err
	}
	out := b.grads[n.Outputs[0]]
	va, vb := b.value(n.Inputs[0]), b.value(n.Inputs[1])
	mk, kn, mn := s.M*s.K, s.K*s.N, s.M*s.N
	s.Each(func(o, ia, ib int) {
		d := out[o*mn : (o+1)*mn]
		if ga != nil {
			graph.Matmul(ga[ia*mk:(ia+1)*mk], d, vb[ib*kn:(ib+1)*kn], s.M, s.K, s.N, false, true)
		}
		if gb != nil {
			graph.Matmul(gb[ib*kn:(ib+1)*kn], va[ia*mk:(ia+1)*mk], d, s.K, s.N, s.M, true, false)
		}
	})
	return nil
}

// matmulNBits makes floats of a part of the matrix at a time, as the product does.
func matmulNBits[T float](b *back[T], n *graph.Node) error {
	constants := make([]*engine.Tensor, len(n.Inputs))
	for i, name := range n.Inputs {
		if i > 0 && name != "" {
			constants[i] = b.run.Value(name)
		}
	}
	w, err := graph.NewNBits(n, constants)
	if err != nil {
		return err
	}
	out := b.grads[n.Outputs[0]]
	if len(n.Inputs) > graph.NBitsBias {
		gb, err := b.grad(n.Inputs[graph.NBitsBias])
		if err != nil {
			return err
		}
		for i, v := range out {
			if gb == nil {
				break
			}
			gb[i%w.N] += v
		}
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	rows := len(out) / w.N
	wide, err := b.alloc(graph.NBitsColumns * w.K)
	if err != nil {
		return err
	}
	some, err := b.alloc(graph.NBitsColumns * rows)
	if err != nil {
		return err
	}
	for from := 0; from < w.N; from += graph.NBitsColumns {
		width := min(graph.NBitsColumns, w.N-from)
		graph.WriteColumns(w, wide, from, from+width)
		for i := range rows {
			copy(some[i*width:(i+1)*width], out[i*w.N+from:])
		}
		graph.Matmul(g, some, wide, rows, w.K, width, false, false)
	}
	return nil
}

func linearScores[T float](b *back[T], n *graph.Node) error {
	p, err := graph.NewLinearParams(n)
	if err != nil {
		return err
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		if d == 0 {
			continue
		}
		row, k := i/p.Outputs*p.Features, i%p.Outputs*p.Features
		for j := range p.Features {
			g[row+j] += d * T(p.Coefs[k+j])
		}
	}
	return nil
}

func lastDim(shape []int) int {
	if len(shape) == 0 {
		return 1
	}
	return shape[len(shape)-1]
}

func scaler[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	cols := lastDim(b.shape(n.Inputs[0]))
	_, scale, err := graph.ScalerParams(n, cols)
	if err != nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		g[i] += d * T(scale(i%cols))
	}
	return nil
}

func normalizer[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	kind := n.Attrs["norm"].String
	x, out := b.value(n.Inputs[0]), b.grads[n.Outputs[0]]
	cols := lastDim(b.shape(n.Inputs[0]))
	row := make([]float64, cols)
	for at := 0; at+cols <= len(x) && cols > 0; at += cols {
		for j := range cols {
			row[j] = float64(x[at+j])
		}
		unit(row, kind, func(j int) float64 { return float64(out[at+j]) }, func(j int, v float64) { g[at+j] += T(v) })
	}
	return nil
}

func pass[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	for i, d := range b.grads[n.Outputs[0]] {
		g[i] += d
	}
	return nil
}

func castRule[T float](b *back[T], n *graph.Node) error {
	if !b.run.Value(n.Outputs[0]).DType().IsFloat() || !b.run.Value(n.Inputs[0]).DType().IsFloat() {
		return noFloat(n)
	}
	return pass(b, n)
}

func softmax[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	outer, span, inner, err := graph.SoftmaxSpan(n, b.shape(n.Inputs[0]))
	if err != nil {
		return err
	}
	y, out := b.value(n.Outputs[0]), b.grads[n.Outputs[0]]
	if span == 0 {
		return nil
	}
	for o := range outer {
		for i := range inner {
			at := o*span*inner + i
			softmaxLine(g[at:], y[at:], out[at:], span, inner, n.Op == "LogSoftmax")
		}
	}
	return nil
}

func softmaxLine[T float](g, y, d []T, n, step int, logs bool) {
	sum := T(0)
	for i := range n {
		if logs {
			sum += d[i*step]
		} else {
			sum += d[i*step] * y[i*step]
		}
	}
	for i := range n {
		if logs {
			g[i*step] += d[i*step] - T(math.Exp(float64(y[i*step])))*sum
			continue
		}
		g[i*step] += y[i*step] * (d[i*step] - sum)
	}
}

// postTransform differentiates the scores; the labels have no gradient.
func postTransform[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	name := n.Outputs[len(n.Outputs)-1]
	y, d := b.value(name), b.grads[name]
	if d == nil || n.Attrs["second_class"].String == graph.SecondPositive || n.Attrs["second_class"].String == graph.SecondMixed {
		return notDifferentiable(n, "of two classes by one score, labels and the scores made of them have no derivative")
	}
	k := lastDim(b.shape(name))
	switch n.Attrs["post_transform"].String {
	case "NONE":
		for i := range d {
			g[i] += d[i]
		}
	case "LOGISTIC":
		for i := range d {
			g[i] += d[i] * y[i] * (1 - y[i])
		}
	case "SOFTMAX":
		for at := 0; at+k <= len(d); at += k {
			softmaxLine(g[at:], y[at:], d[at:], k, 1, false)
		}
	default:
		return noRuleFor(n, "post_transform")
	}
	return nil
}

// moved is the rule of every operator that only moves elements: it asks the
// graph which element went where, and sends the gradient the same way back.
func moved[T float](b *back[T], n *graph.Node) error {
	for k, name := range n.Inputs {
		g, err := b.grad(name)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		origin, err := graph.Origin(n, b.inputs(n), k)
		if err != nil {
			return err
		}
		for o, name := range n.Outputs {
			d := b.grads[name]
			if name == "" || d == nil {
				continue
			}
			if len(origin[o]) != len(d) {
				return fmt.Errorf("%d elements moved, %d expected", len(origin[o]), len(d))
			}
			for i, from := range origin[o] {
				if from > 0 {
					g[from-1] += d[i]
				}
			}
		}
	}
	return nil
}

// reduce: every element's derivative follows from it and its group's result.
func reduce[T float](b *back[T], n *graph.Node) error {
	g, err := b.grad(n.Inputs[0])
	if err != nil || g == nil {
		return err
	}
	group, err := graph.ReduceGroups(n, b.inputs(n))
	if err != nil {
		return err
	}
	x, y, d := b.value(n.Inputs[0]), b.value(n.Outputs[0]), b.grads[n.Outputs[0]]
	totals := make([]groupTotals, len(y))
	for o := range totals {
		totals[o].product = 1
	}
	for i, o := range group {
		totals[o].add(float64(x[i]), x[i] == y[o])
	}
	for i, o := range group {
		if d[o] == 0 {
			continue
		}
		s, ok := totals[o].slope(n.Op, float64(x[i]), float64(y[o]))
		if !ok {
			return notDifferentiable(n, "")
		}
		g[i] += d[o] * T(s)
	}
	return nil
}

// groupTotals are what the derivative of a reduction needs to know of a group.
type groupTotals struct {
	count, ties, zeros float64
	product            float64 // of what is not zero
}

func (t *groupTotals) add(v float64, tie bool) {
	t.count++
	if tie {
		t.ties++
	}
	if v == 0 {
		t.zeros++
	} else {
		t.product *= v
	}
}

// slope is the derivative of a group's result z by its element v.
func (t *groupTotals) slope(op string, v, z float64) (s float64, ok bool) {
	switch op {
	case "ReduceSum":
		s = 1
	case "ReduceMean":
		s = 1 / t.count
	case "ReduceMax", "ReduceMin":
		if v == z {
			s = 1 / t.ties
		}
	case "ReduceL1":
		s = sign(v)
	case "ReduceL2":
		if z != 0 {
			s = v / z
		}
	case "ReduceSumSquare":
		s = 2 * v
	case "ReduceLogSum":
		s = math.Exp(-z)
	case "ReduceLogSumExp":
		s = math.Exp(v - z)
	case "ReduceProd":
		switch {
		case t.zeros == 0:
			s = t.product / v
		case t.zeros == 1 && v == 0:
			s = t.product
		}
	default:
		return 0, false
	}
	return s, true
}

// dropout passes on what was kept, scaled as it was.
func dropout[T float](b *back[T], n *graph.Node) error {
	if len(n.Inputs) < 3 || n.Inputs[2] == "" || !engine.Data[bool](b.run.Value(n.Inputs[2]))[0] {
		return pass(b, n)
	}
	g, err := b.grad(n.Inputs[0])
	if err != nil {
		return err
	}
	ratio, err := b.grad(n.Inputs[1])
	if err != nil || g == nil && ratio == nil {
		return err
	}
	if len(n.Outputs) < 2 || n.Outputs[1] == "" {
		return notDifferentiable(n, "without its mask as an output what was dropped is not known")
	}
	scale := T(2)
	if n.Inputs[1] != "" {
		scale = 1 / (1 - b.value(n.Inputs[1])[0])
	}
	kept, x := engine.Data[bool](b.run.Value(n.Outputs[1])), b.value(n.Inputs[0])
	for i, d := range b.grads[n.Outputs[0]] {
		if kept[i] && g != nil {
			g[i] += d * scale
		}
		if kept[i] && ratio != nil {
			ratio[0] += d * x[i] * scale * scale
		}
	}
	return nil
}
