package compress

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// innerCases are inputs of inner.onnx that take each of its branches, and onnxruntime's answers.
func innerCases(t *testing.T) (in []engine.Values, want [][]float64) {
	t.Helper()
	var given struct {
		X       []float32
		Answers []struct {
			First, Second bool
			Out           []float64
		}
	}
	if err := json.Unmarshal(file(t, "testdata/inner.json"), &given); err != nil {
		t.Fatal(err)
	}
	for _, a := range given.Answers {
		in = append(in, engine.Values{
			{Name: "x", Tensor: must(engine.Of(given.X, 3, 12))},
			{Name: "first", Tensor: must(engine.Of([]bool{a.First}))},
			{Name: "second", Tensor: must(engine.Of([]bool{a.Second}))},
		})
		want = append(want, a.Out)
	}
	return in, want
}

// TestInnerGraphs compresses weights that lie in the branches of an If, and in those within
// them: each branch answers nearly what it did, and the file is smaller.
func TestInnerGraphs(t *testing.T) {
	data := file(t, "testdata/inner.onnx")
	in, want := innerCases(t)
	for _, x := range []struct {
		step    Step
		changes int
		moved   float64
	}{{Step{Kind: FP16}, 4, 2e-3}, {Step{Kind: INT8}, 4, 0.03}, {Step{Prune, 0.1}, 4, 0.2}} {
		r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{x.step})
		if err != nil {
			t.Errorf("%s: %v", x.step, err)
			continue
		}
		if len(r.Changes) != x.changes || x.step.Kind != Prune && len(r.Data) >= len(data)*4/5 {
			t.Errorf("%s: %d bytes of %d, %+v", x.step, len(r.Data), len(data), r.Changes)
		}
		m := load(t, "m.onnx", r.Data)
		for i := range in {
			got, _ := run(t, m, in[i])[0].Tensor.Float64s()
			most := 0.0
			for k, v := range got {
				most = max(most, math.Abs(v-want[i][k]))
			}
			if len(got) != len(want[i]) || !(most > 0 && most < x.moved) {
				t.Errorf("%s, branch %d: moved by %g", x.step, i, most)
			}
		}
	}
}

// TestInnerGraphsStay: what does not reach into inner graphs says whose weights stay.
func TestInnerGraphsStay(t *testing.T) {
	data := file(t, "testdata/inner.onnx")
	in, _ := innerCases(t)
	for _, s := range []Step{{Structured, 0.5}, {Kind: Full}} {
		_, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data, Rows: in[0]}, []Step{s})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the weights in the graphs within outer (If), inner (If) stay as they are") {
			t.Errorf("%s: %v", s, err)
		}
	}
	f, err := onnx.Edit(data, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Graphs(); err != nil {
		t.Fatal(err)
	}
	if out, err := f.Bytes(); err != nil || string(out) != string(data) {
		t.Errorf("%d bytes were written of %d that were read (%v)", len(out), len(data), err)
	}
}

// TestRefusalTellsEveryObstacle: a refusal names what was in the way with its reason, not
// only the first of it.
func TestRefusalTellsEveryObstacle(t *testing.T) {
	w := must(engine.Of(make([]float32, 64*64), 64, 64))
	data := encoded(t, w)
	_, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Structured, 0.5}})
	for _, want := range []string{`MatMul of a stays as it is: its constant "w" is used more than once`, `MatMul of b stays as it is: its constant "w" is used more than once`} {
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %q", err, want)
		}
	}
}

// encoded is a network of three products by one matrix.
func encoded(t *testing.T, w *engine.Tensor) []byte {
	t.Helper()
	g := &graph.Graph{
		Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 64}}}, Outputs: []string{"c"}, Constants: map[string]*engine.Tensor{"w": w},
	}
	for _, n := range [][2]string{{"x", "a"}, {"a", "b"}, {"b", "c"}} {
		g.Nodes = append(g.Nodes, &graph.Node{Op: "MatMul", Inputs: []string{n[0], "w"}, Outputs: []string{n[1]}})
	}
	data, err := onnx.Encode(&onnx.Made{Graph: g, Outputs: []engine.Spec{{Name: "c", DType: engine.Float32, Shape: []int{-1, 64}}}, Producer: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return data
}
