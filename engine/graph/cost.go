package graph

import (
	"github.com/pellucid/pellucid/engine"
)

// Cost counts what a run takes, in the graphs within it too.
type Cost struct {
	// Peak is the most bytes that values and their kernels' room take at once.
	Peak int64
	// Operations are two for each product that is added to a sum, and one for each element
	// of whatever else is computed; what only moves elements has none. They are counted
	// where AsWritten has the program run as it was written.
	Operations float64
	AsWritten  bool
}

// count adds what a step did. live is what is held while it
// is done, by the runs around it too.
func (c *Cost) count(s *step, in, out []*engine.Tensor, live int64) {
	c.Peak = max(c.Peak, live)
	if c.AsWritten && !s.op.view && s.op.compose == nil {
		c.Operations += operations(s.node, in, out)
	}
}

// costless are operators that compute nothing, and those whose graphs are counted themselves.
var costless = map[string]bool{}

func init() {
	for _, op := range []string{
		"Transpose", "Slice", "Expand", "Tile", "Gather", "GatherElements", "GatherND", "Split", "Concat", "Where", "Pad", "DepthToSpace", "SpaceToDepth",
		"Constant", "ConstantOfShape", "Shape", "Size", "Range", "OneHot", "Cast", "CastLike", "EyeLike", "Compress", "ReverseSequence", "Trilu",
		"ScatterND", "ScatterElements", "Scatter", "ArrayFeatureExtractor", "FeatureVectorizer", "If", "Loop", "Scan", "SequenceMap",
		"SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength", "SequenceEmpty", "SplitToSequence", "ConcatFromSequence",
	} {
		costless[op] = true
	}
}

func operations(n *Node, in, out []*engine.Tensor) float64 {
	size := func(t *engine.Tensor) float64 {
		if t == nil {
			return 0
		}
		return float64(t.Len())
	}
	y := 0.0
	if len(out) > 0 {
		y = size(out[0])
	}
	// perPlace is what each place along a matrix's first dimension holds.
	perPlace := func(w *engine.Tensor) float64 { return size(w) / float64(max(1, w.Rows())) }
	switch n.Op {
	case "MatMul", "MatMulInteger", "QLinearMatMul", "MatMulNBits":
		s := in[0].Shape()
		return 2 * y * float64(s[len(s)-1])
	case "Gemm":
		if n.Attrs["transA"].Int != 0 {
			return 2 * y * float64(in[0].Shape()[0])
		}
		return 2 * y * float64(in[0].Shape()[1])
	case "Conv", "ConvInteger", "DeformConv":
		return 2 * y * perPlace(in[1])
	case "QLinearConv":
		return 2 * y * perPlace(in[3])
	case "Einsum":
		e, err := NewEinsum(n, ShapesOf(in))
		switch {
		case err != nil: // it was computed, so there is none
			return 0
		case len(in) == 1 && e.Out == len(e.Size):
			return 0 // only moves elements
		case len(in) == 1:
			return e.cost()
		}
		return 2 * e.cost()
	case "ConvTranspose":
		return 2 * size(in[0]) * perPlace(in[1])
	case "LSTM", "GRU", "RNN":
		s := in[0].Shape()
		return 2 * float64(s[0]*s[1]) * (size(in[1]) + size(in[2]))
	}
	if costless[n.Op] {
		return 0
	}
	total := 0.0
	for _, t := range out {
		total += size(t)
	}
	return total
}
