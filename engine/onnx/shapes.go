package onnx

import (
	"context"
	"runtime"
	"slices"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// The trial run that settles outputs' shapes: so many rows, so much memory, so many
// nodes in loops: a turn of a few bytes may be a product of gigabytes.
const (
	trialRows  = 3
	trialBytes = 1 << 26
	trialInner = 64
)

// settleShapes corrects the shapes that a file declares for its outputs by runs
// over rows of zeros. Converters declare some wrongly (a forest of three targets as
// [-1, 1], a label of shape [-1] that comes as [-1, 1]), and what is declared is what
// predictions are stored by. Where there is no such run, the file's word stands. Where it is
// known to be right there is none, as it takes as long as all else of a load.
func settleShapes(info *engine.Info, program *graph.Program) {
	if !slices.ContainsFunc(info.Outputs, func(s engine.Spec) bool { return !certain(program, s) }) {
		return
	}
	// One row tells whether more have to.
	if r := trial(info, program, 1); r != nil && !slices.ContainsFunc(info.Outputs, func(s engine.Spec) bool {
		made := r.Value(s.Name).Shape()
		return len(made) == 0 || len(s.Shape) == 0 || s.Shape[0] >= 0 || !fits(made[1:], s.Shape[1:])
	}) {
		return
	}
	r := trial(info, program, trialRows)
	if r == nil {
		return
	}
	for i := range info.Outputs {
		s := &info.Outputs[i]
		made := r.Value(s.Name).Shape()
		if len(made) == 0 || made[0] != trialRows || fits(made, s.Shape) {
			continue
		}
		s.Shape = slices.Clone(made)
		s.Shape[0] = -1
	}
}

// trial runs the model for so many rows of zeros, nil where it cannot.
func trial(info *engine.Info, program *graph.Program, rows int) *graph.Run {
	var in engine.Values
	for _, s := range info.Inputs {
		if len(s.Shape) == 0 || s.Shape[0] != -1 || slices.Min(append([]int{0}, s.Shape[1:]...)) < 0 {
			return nil
		}
		shape := slices.Clone(s.Shape)
		shape[0] = rows
		if n, err := engine.Elements(shape); err != nil || n > trialBytes/8 {
			return nil
		}
		t, err := engine.New(s.DType, shape...)
		if err != nil {
			return nil
		}
		in = append(in, engine.Named{Name: s.Name, Tensor: t})
	}
	r, err := program.Run(context.Background(), graph.Options{MaxBytes: trialBytes, MaxInner: trialInner, Threads: runtime.GOMAXPROCS(0)}, in, program.Graph().Outputs)
	if err != nil {
		return nil
	}
	return r
}

// fits reports whether a tensor's shape is one that was declared.
func fits(made, declared []int) bool {
	if len(made) != len(declared) {
		return false
	}
	for i, d := range declared {
		if d >= 0 && made[i] != d {
			return false
		}
	}
	return true
}

// keepsShape are operators whose output has the shape of their first input.
var keepsShape = map[string]bool{
	"Relu": true, "Sigmoid": true, "Tanh": true, "Softmax": true, "LogSoftmax": true, "Identity": true, "Clip": true,
	"HardSigmoid": true, "HardSwish": true, "LeakyRelu": true, "Elu": true, "Exp": true, "Sqrt": true,
}

// mostKept bounds the operators that certain looks at.
const mostKept = 8

// certain reports whether an output is known to have the shape that is declared: as the end
// of most classifiers, a Gemm with constant weights, makes it.
func certain(program *graph.Program, s engine.Spec) bool {
	name := s.Name
	for range mostKept {
		n := program.Producer(name)
		if n == nil || n.Domain != graph.DomainONNX || len(n.Inputs) == 0 {
			return false
		}
		if n.Op == "Gemm" {
			w := program.Constant(n.Inputs[1])
			if w == nil || len(w.Shape()) != 2 || len(s.Shape) != 2 {
				return false
			}
			columns := w.Shape()[1]
			if n.Attrs["transB"].Int != 0 {
				columns = w.Shape()[0]
			}
			return s.Shape[0] < 0 && (s.Shape[1] < 0 || s.Shape[1] == columns)
		}
		if !keepsShape[n.Op] {
			return false
		}
		name = n.Inputs[0]
	}
	return false
}
