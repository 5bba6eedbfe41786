package graph

import "testing"

// TestUsualActivations: functions that a node names are the usual ones only where all are.
func TestUsualActivations(t *testing.T) {
	for op, lists := range map[string]map[bool][][]string{
		"RNN":  {true: {nil, {"Tanh"}, {"Tanh", "Tanh"}}, false: {{"Relu"}, {"Tanh", "Relu"}}},
		"GRU":  {true: {{"Sigmoid", "Tanh"}, {"Sigmoid", "Tanh", "Sigmoid", "Tanh"}}, false: {{"Tanh", "Sigmoid"}, {"Sigmoid"}}},
		"LSTM": {true: {{"Sigmoid", "Tanh", "Tanh"}}, false: {{"Sigmoid", "Tanh", "Relu"}, {"HardSigmoid", "Tanh", "Tanh"}, {"Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh"}}},
	} {
		for want, all := range lists {
			for _, names := range all {
				n := &Node{Op: op, Attrs: Attrs{"activations": {Kind: AttrStrings, Strings: names}}}
				if got := quickNode(n, false, false); got != want {
					t.Errorf("%s of %q: %t", op, names, got)
				}
			}
		}
	}
}
