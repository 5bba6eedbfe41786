package onnx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
)

// TestMisfitsAreTheCallers feeds the graph of each of ONNX's own cases shapes and values
// that it does not take, past the check of declared shapes: what fails is an error of an
// input, which names it and holds none of its values.
func TestMisfitsAreTheCallers(t *testing.T) {
	cases := nodeArchive(t)
	failed, runs := 0, 0
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		files := cases[name]
		m, err := Read(files["model.onnx"], "")
		if err != nil {
			continue // refused: TestNodes
		}
		var in engine.Values
		for i, spec := range m.Info().Inputs {
			_, x, err := ReadValue(files[fmt.Sprintf("input_%d.pb", i)], spec.DType)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, engine.Named{Name: spec.Name, Tensor: x})
		}
		p := programOf(t, m)
		for i := range p.Graph().Inputs {
			p.Graph().Inputs[i].Shape = nil
		}
		for i := range in {
			for what, x := range misfits(t, in[i].Tensor) {
				wrong := slices.Clone(in)
				wrong[i].Tensor = x
				runs++
				err := runMisfit(t, p, wrong)
				if err != nil {
					failed++
				}
				// What is written out as other operators makes shapes of values.
				if wrongly := judge(err, !strings.Contains(name, "_expanded")); wrongly != "" {
					t.Errorf("%s: input %d (%q) %s: %s: %v", name, i, in[i].Name, what, wrongly, err)
				}
			}
		}
	}
	t.Logf("%d of %d runs refused", failed, runs)
	if failed < 5000 {
		t.Errorf("only %d of %d runs were refused", failed, runs)
	}
}

func programOf(t *testing.T, m engine.Model) *graph.Program {
	t.Helper()
	switch m := m.(type) {
	case *model:
		return m.program
	case *treeModel:
		return m.program
	}
	t.Fatalf("a model of type %T", m)
	return nil
}

// strange is a number that no message has of its own accord.
const strange = 77777

// misfits are tensors unlike x: of other shapes, and of strange numbers.
func misfits(t *testing.T, x *engine.Tensor) map[string]*engine.Tensor {
	t.Helper()
	out := map[string]*engine.Tensor{}
	if x.DType().IsList() {
		return out
	}
	shapes := map[string][]int{"without dimensions": {}, "empty": {0}, "of one dimension": {3}, "of six": {2, 1, 3, 1, 2, 1}, "a row": {1, 5}}
	for i, d := range x.Shape() {
		longer := slices.Clone(x.Shape())
		longer[i]++
		shapes[fmt.Sprintf("longer in dimension %d", i)] = longer
		if d > 0 {
			shorter := slices.Clone(x.Shape())
			shorter[i]--
			shapes[fmt.Sprintf("shorter in dimension %d", i)] = shorter
		}
	}
	shapes["with one more dimension"] = append([]int{1}, x.Shape()...)
	for what, shape := range shapes {
		out[what], _ = engine.New(x.DType(), shape...)
	}
	for _, v := range []int64{strange, -strange} {
		for _, shape := range [][]int{x.Shape(), {1}, {2}} {
			n, err := engine.Elements(shape)
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("of %d in shape %v", v, shape)
			switch x.DType() {
			case engine.Int64:
				out[what] = must(engine.Of(slices.Repeat([]int64{v}, n), shape...))
			case engine.Int32:
				out[what] = must(engine.Of(slices.Repeat([]int32{int32(v)}, n), shape...))
			case engine.Float32:
				out[what] = must(engine.Of(slices.Repeat([]float32{float32(v)}, n), shape...))
			case engine.String:
				out[what] = must(engine.Of(slices.Repeat([]string{fmt.Sprint(v)}, n), shape...))
			}
		}
	}
	maps.DeleteFunc(out, func(_ string, x *engine.Tensor) bool { return x == nil })
	return out
}

func runMisfit(t *testing.T, p *graph.Program, in engine.Values) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := p.Run(ctx, graph.Options{MaxBytes: 64 << 20, MaxInner: 10000}, in, p.Graph().Outputs)
	return err
}

// judge says what is wrong with an error that is to be the caller's, and private where it
// says none of the values.
func judge(err error, private bool) string {
	var e *engine.InputError
	var u *engine.UnsupportedError
	switch {
	case err == nil, errors.Is(err, engine.ErrTooLarge), errors.As(err, &u):
	case !errors.As(err, &e):
		return "not the caller's"
	case e.Input == "":
		return "no input is named"
	case private && strings.Contains(err.Error(), fmt.Sprint(strange)):
		return "a value is told"
	}
	return ""
}
