package autodiff

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// refusal is why there is no derivative, and what to use instead.
type refusal struct{ reason, instead string }

const elsewhere = "an output that does not depend on this node (or a model exported without it)"

// refusals are the operators without a rule: one has to be in it or to have a rule.
var refusals = refusalsOf(map[refusal][]string{
	{"what it chooses or finds true changes only by jumps", "the scores that it decides by as the output"}: {
		"ArgMax", "ArgMin", "Hardmax", "Binarizer", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN", "NonMaxSuppression", "NonZero", "Unique",
	},
	{"it computes with whole numbers, truths or categories", "an input of floats that does not go through this node"}: {
		"And", "Or", "Not", "Xor", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BitCast", "OneHotEncoder", "CategoryMapper", "LabelEncoder",
	},
	{"it reads text or tokens", "the model behind it, of numbers or of token ids, as a model of its own"}: {
		"MurmurHash3", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Tokenizer",
	},
	{"what it makes is drawn at random", "the model exported for inference, without random draws"}: {
		"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
	},
	{"what it makes depends on shapes and settings, not on how large a value is", elsewhere}: {
		"Constant", "ConstantOfShape", "EyeLike", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "Shape", "Size", "SequenceEmpty", "SequenceLength", "OptionalHasElement",
	},
	{"it computes in 8 bits", "the network in floats that this quantised one was made of"}: {
		"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear", graph.OpQuantisedLSTM,
	},
	{"it looks up rows of codes by whole numbers", "the ids, which are explained at the vectors that they look up"}:                                   {"GatherBlockQuantized"},
	{"trees are constant but for jumps", "tree_shap with a background, on the tree ensemble as a model of its own where other nodes stand around it"}: {graph.OpTreeScores},
	{"it is a step of training", "the network that was trained as a model of its own"}:                                                                {"Adagrad", "Adam", "Momentum"},
})

// refusedInputs are the inputs of floats, by their places, that an operator with a rule has
// none by, and why.
var refusedInputs = map[string]map[int]string{
	"OneHot":           {0: "which place it marks changes only by jumps", 1: "how many places it makes is a whole number"},
	"Resize":           {1: "the engine has no rule by its region", 2: "the engine has no rule by its scales", 3: "how large it is changes only by jumps"},
	"Upsample":         {1: "the engine has no rule by its scales"},
	"MatMulNBits":      {2: "the engine has no rule by the scales of its codes", 3: "the engine has no rule by the zero points of its codes"},
	"QuantizeLinear":   {2: "rounding has no derivative by its zero point"},
	"DequantizeLinear": {2: "rounding has no derivative by its zero point"},
}

func refusalsOf(groups map[refusal][]string) map[string]refusal {
	m := map[string]refusal{}
	for r, ops := range groups {
		for _, op := range ops {
			m[op] = r
		}
	}
	return m
}

// notDifferentiable names the node, why it has no derivative and what else there is: no
// method here only calls a model, so where trees are not what stops the gradient, another
// value has to be explained. The reason is what an operator that has a rule lacks here.
func notDifferentiable(n *graph.Node, reason string) error {
	r, ok := refusals[n.Op]
	if !ok {
		r = refusal{reason, elsewhere}
	}
	switch n.Op {
	case "input":
		r.instead = "a float output"
	case "TopK", graph.OpClassifierOutput, graph.OpPostTransform, graph.OpSVMOutput:
		r.instead = "the scores that it decides by as the output"
	}
	if r.reason == "" {
		r.reason = "the engine has no rule for it"
	}
	return &engine.NotDifferentiableError{Node: n.Label(), Op: n.Op, Reason: r.reason, Instead: r.instead}
}

// noFloat refuses what a node makes that is no float.
func noFloat(n *graph.Node) error {
	return notDifferentiable(n, "what it makes is no float, and nothing else leads to the target")
}

// noRuleFor refuses an attribute's value.
func noRuleFor(n *graph.Node, attr string) error {
	return notDifferentiable(n, fmt.Sprintf("the engine has no rule for its %s %q", attr, n.Attrs[attr].String))
}
