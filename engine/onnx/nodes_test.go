package onnx

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// The cases of ONNX's own suite of operators in nodes.tar.gz, and how many of them
// are refused by name: TestNodes prints which (-v).
const (
	nodeCases   = 1884
	nodeRefused = 15
)

// TestNodes runs ONNX's own test of every operator to the suite's own tolerance:
// each is right, or refused by name before it runs.
func TestNodes(t *testing.T) {
	cases := nodeArchive(t)
	table := map[string]*[3]int{}
	var total [3]int
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		err := runNode(t, cases[name])
		var u *engine.UnsupportedError
		outcome := 0
		switch {
		case errors.As(err, &u):
			outcome = 1
			t.Logf("%s: %v", name, err)
		case err != nil:
			outcome = 2
			t.Errorf("%s: %v", name, err)
		}
		total[outcome]++
		op := operatorOf(t, name, cases[name]["model.onnx"])
		if table[op] == nil {
			table[op] = new([3]int)
		}
		table[op][outcome]++
	}
	for _, op := range slices.Sorted(maps.Keys(table)) {
		t.Logf("%-32s %4d right %4d refused %4d wrong", op, table[op][0], table[op][1], table[op][2])
	}
	t.Logf("%-32s %4d right %4d refused %4d wrong", "all", total[0], total[1], total[2])
	if len(cases) != nodeCases || total[1] != nodeRefused {
		t.Errorf("%d cases, %d of them refused; want %d and %d", len(cases), total[1], nodeCases, nodeRefused)
	}
}

// operatorOf names the operator a case is of; of one that is written out as other
// operators, the case without its ending has it.
func operatorOf(t *testing.T, name string, model []byte) string {
	p, err := decodeModel(model)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(name, "_expanded") {
		return "(expanded)"
	}
	return p.graph.nodes[len(p.graph.nodes)-1].op
}

// nodeArchive reads nodes.tar.gz: case, then file.
func nodeArchive(t testing.TB) map[string]map[string][]byte {
	t.Helper()
	return enginetest.Nodes(t, "testdata/nodes.tar.gz")
}

// nodeInputs reads a case's model and inputs.
func nodeInputs(files map[string][]byte) (engine.Model, engine.Values, error) {
	m, err := Read(files["model.onnx"], "")
	if err != nil {
		return nil, nil, err
	}
	var in engine.Values
	for i, spec := range slices.Concat(m.Info().Inputs, m.Info().Optional) {
		_, x, err := ReadValue(files[fmt.Sprintf("input_%d.pb", i)], spec.DType)
		if err != nil {
			return nil, nil, err
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: x})
	}
	return m, in, nil
}

func runNode(t *testing.T, files map[string][]byte) error {
	t.Helper()
	m, in, err := nodeInputs(files)
	if err != nil {
		return err
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		return err
	}
	// What a run gave is the caller's: later ones leave it as it is, and give the same.
	var runs [3]engine.Values
	for k := range runs {
		if runs[k], err = s.Run(t.Context(), in, nil); err != nil {
			return fmt.Errorf("run %d: %w", k, err)
		}
	}
	for k, out := range runs {
		for i, o := range out {
			_, want, err := ReadValue(files[fmt.Sprintf("output_%d.pb", i)], m.Info().Outputs[i].DType)
			if err != nil {
				return err
			}
			if err := sameTensor(o.Tensor, want); err != nil {
				return fmt.Errorf("run %d, output %d: %w", k, i, err)
			}
		}
	}
	return nil
}

// sameTensor compares as the suite does: |got - want| <= 1e-7 + 1e-3 |want|.
func sameTensor(got, want *engine.Tensor) error {
	if got.DType() != want.DType() || !slices.Equal(got.Shape(), want.Shape()) {
		return fmt.Errorf("%s %v, want %s %v", got.DType(), got.Shape(), want.DType(), want.Shape())
	}
	for i, item := range want.Items() {
		if err := sameTensor(got.Items()[i], item); err != nil {
			return fmt.Errorf("value %d: %w", i, err)
		}
	}
	if s := engine.Data[string](want); s != nil {
		if !slices.Equal(engine.Data[string](got), s) {
			return fmt.Errorf("%q, want %q", engine.Data[string](got), s)
		}
		return nil
	}
	g, _ := got.Float64s()
	w, _ := want.Float64s()
	for i := range w {
		if g[i] == w[i] || math.IsNaN(g[i]) && math.IsNaN(w[i]) {
			continue
		}
		if !(math.Abs(g[i]-w[i]) <= 1e-7+1e-3*math.Abs(w[i])) {
			return fmt.Errorf("element %d is %v, want %v", i, g[i], w[i])
		}
	}
	return nil
}
