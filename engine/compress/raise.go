package compress

import (
	"context"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// raisable is the first operator set from which a file of steady operators can be
// raised to channelOpset.
const raisable = 11

// steady are the operators that mean the same, for the floats and attributes they take,
// from operator set 11 to 13; Softmax where its axis is the last.
var steady = []string{
	"Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Div",
	"Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "GRU", "Gather", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "HardSigmoid", "Identity",
	"InstanceNormalization", "LSTM", "LeakyRelu", "Less", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "PRelu", "Pad", "Pow", "Range",
	"ReduceMax", "ReduceMean", "ReduceMin", "Reciprocal", "Relu", "Reshape", "Selu", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Softplus", "Sqrt", "Sub", "Tanh",
	"Tile", "Transpose", "Where",
}

// raise has a file of operator set 11 or 12 import 13, in which each channel of a weight
// can have its own scale, where that changes nothing else.
func raise(ctx context.Context, in Input, f *onnx.File, data []byte) (bool, error) {
	if v := f.Opset(""); v < raisable || v >= channelOpset {
		return false, nil
	}
	ops, ok := f.Operators()
	for op := range ops {
		ok = ok && slices.Contains(steady, op)
	}
	rows := in.calibration()
	if !ok || len(rows) == 0 || rows[0].Tensor.Rows() == 0 {
		return false, nil
	}
	axes := map[string]int{}
	var names []string
	for _, n := range f.Nodes() {
		if n.Domain == "" && (n.Op == "Softmax" || n.Op == "LogSoftmax") && len(n.Inputs) == 1 {
			axes[n.Inputs[0]] = int(n.Number("axis", 1))
			names = append(names, n.Inputs[0])
		}
	}
	if len(names) > 0 {
		m, err := modelfile.Read(in.Name, data, in.Dir)
		if err != nil {
			return false, err
		}
		one, err := engine.RowsOf(m.Info(), rows).Spread(1)
		if err != nil {
			return false, err
		}
		err = eachBlock(ctx, m, one.Values, names, func(v engine.Values) {
			for _, o := range v {
				last := len(o.Tensor.Shape()) - 1
				ok = ok && (axes[o.Name] == last || axes[o.Name] == -1)
			}
		})
		// Without an axis it is the last one from 13 on, which it was just seen to be.
		if err != nil || !ok {
			return false, err
		}
	}
	return true, f.Raise(channelOpset)
}
