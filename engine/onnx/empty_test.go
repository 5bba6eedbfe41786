package onnx

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/autodiff"
	"github.com/pellucid/pellucid/engine/graph"
)

// TestNoElements: whatever operator meets an axis of no elements, it answers or refuses.
// Every case of the suite runs with each dimension of each input set to zero, alone and
// wherever that size occurs, and gradients are asked for; what is right is for TestEdges.
func TestNoElements(t *testing.T) {
	cases := nodeArchive(t)
	answered, refused := 0, 0
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		program, in := openNode(t, cases[name])
		if program == nil {
			continue
		}
		for _, some := range withoutElements(t, in) {
			if emptyRun(t, name, program, some) {
				answered++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d answered, %d refused", answered, refused)
	if answered < 3000 {
		t.Errorf("%d of %d runs gave an answer", answered, answered+refused)
	}
}

// openNode reads a case whose model takes inputs of any size, nil where it is refused or
// takes lists.
func openNode(t *testing.T, files map[string][]byte) (*graph.Program, engine.Values) {
	t.Helper()
	p, err := decodeModel(files["model.onnx"])
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range slices.Concat(p.graph.inputs, p.graph.outputs) {
		for i := range v.shape {
			v.shape[i] = -1
		}
	}
	g, err := p.convert("")
	if err != nil {
		return nil, nil
	}
	program, err := graph.Compile(g)
	if err != nil {
		return nil, nil
	}
	var in engine.Values
	for i, spec := range g.Inputs {
		_, x, err := ReadValue(files[fmt.Sprintf("input_%d.pb", i)], spec.DType)
		if err != nil || x.DType().IsList() {
			return nil, nil
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: x})
	}
	return program, in
}

// withoutElements are the inputs with dimensions set to zero.
func withoutElements(t *testing.T, in engine.Values) []engine.Values {
	var list []engine.Values
	cut := func(take func(input, axis, size int) bool) {
		some := slices.Clone(in)
		for i := range some {
			shape := slices.Clone(in[i].Tensor.Shape())
			for a, d := range shape {
				if take(i, a, d) {
					shape[a] = 0
				}
			}
			if slices.Contains(shape, 0) {
				x, err := engine.New(in[i].Tensor.DType(), shape...)
				if err != nil {
					t.Fatal(err)
				}
				some[i].Tensor = x
			}
		}
		list = append(list, some)
	}
	for i := range in {
		for a, d := range in[i].Tensor.Shape() {
			cut(func(input, axis, _ int) bool { return input == i && axis == a })
			cut(func(input, axis, _ int) bool { return axis == a })
			cut(func(_, _, size int) bool { return size == d })
		}
	}
	return list
}

// emptyRun reports whether a run gave an answer; a panic is the test's failure.
func emptyRun(t *testing.T, name string, p *graph.Program, in engine.Values) (answered bool) {
	t.Helper()
	var shapes []string
	for _, v := range in {
		shapes = append(shapes, fmt.Sprint(v.Tensor.Shape()))
	}
	what := "run"
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s of %s over %s: %v at %s", what, name, strings.Join(shapes, " "), r, panicLine(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	opt := graph.Options{MaxBytes: 256 << 20, MaxInner: 1 << 12}
	outputs := p.Graph().Outputs
	r, err := p.Run(ctx, opt, in, outputs)
	opt.Arena = &graph.Arena{}
	if _, again := p.Outputs(ctx, opt, in, outputs); (again == nil) != (err == nil) {
		t.Errorf("%s over %v: %v, with an arena %v", name, shapes, err, again)
	}
	if err != nil {
		return false
	}
	what = "gradient"
	for _, out := range outputs {
		if r.Value(out).DType().IsFloat() {
			for _, v := range in {
				if v.Tensor.DType().IsFloat() {
					// A refusal is as good.
					_, _ = autodiff.Gradient(ctx, p, graph.Options{MaxBytes: 256 << 20, MaxInner: 1 << 12}, in, engine.Target{Name: out}, []string{v.Name})
				}
			}
		}
	}
	return true
}

// panicLine is the first line of a stack that is of our own and no test's.
func panicLine(stack []byte) string {
	for line := range strings.Lines(string(stack)) {
		if strings.Contains(line, "/engine/") && strings.Contains(line, ".go:") && !strings.Contains(line, "_test.go") && !strings.Contains(line, "/crew/") {
			return strings.TrimSpace(line[strings.LastIndex(line, "/")+1:])
		}
	}
	return "?"
}
