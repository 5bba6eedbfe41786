package onnx

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestNodesGradients asks for the gradient of every output of ONNX's own cases by every
// input of floats: there is one, or a refusal that names the node, the reason and what to
// use instead.
func TestNodesGradients(t *testing.T) {
	cases := nodeArchive(t)
	var given, refused int
	reasons := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		m, in, err := nodeInputs(cases[name])
		var u *engine.UnsupportedError
		if errors.As(err, &u) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range in {
			if x.Tensor == nil || !x.Tensor.DType().IsFloat() || x.Tensor.Len() == 0 {
				continue
			}
			for _, y := range m.Info().Outputs {
				_, err := s.(engine.Differentiator).Gradient(t.Context(), in, engine.Target{Name: y.Name}, []string{x.Name})
				var no *engine.NotDifferentiableError
				var fault *engine.InputError
				switch {
				case err == nil:
					given++
				case errors.As(err, &no):
					if refused++; no.Node == "" || no.Op == "" || no.Reason == "" || no.Instead == "" {
						t.Errorf("%s: %v", name, err)
					}
					reasons[no.Op] = no.Error()
				case !errors.As(err, &fault):
					t.Errorf("%s, %s by %s: %v", name, y.Name, x.Name, err)
				}
			}
		}
	}
	for _, op := range slices.Sorted(maps.Keys(reasons)) {
		t.Log(reasons[op])
	}
	t.Logf("%d gradients, %d refused", given, refused)
}
