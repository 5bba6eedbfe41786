package explain_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain"
)

// reciprocal is the network y = 1 / x.
type reciprocal struct{ info *engine.Info }

func (m reciprocal) Info() *engine.Info                                       { return m.info }
func (m reciprocal) NewSession(engine.SessionOptions) (engine.Session, error) { return m, nil }
func (m reciprocal) Logit(out engine.Target) engine.Target                    { return out }

func (m reciprocal) of(x *engine.Tensor, f func(float64) float64) []float64 {
	in := engine.Data[float64](x)
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

func (m reciprocal) Run(_ context.Context, in engine.Values, _ []string) (engine.Values, error) {
	y := m.of(in[0].Tensor, func(v float64) float64 { return 1 / v })
	t, err := engine.Of(y, len(y), 1)
	return engine.Values{{Name: "y", Tensor: t}}, err
}

func (m reciprocal) Gradient(_ context.Context, in engine.Values, _ engine.Target, _ []string) (*engine.Gradient, error) {
	y := m.of(in[0].Tensor, func(v float64) float64 { return 1 / v })
	d := m.of(in[0].Tensor, func(v float64) float64 { return -1 / (v * v) })
	t, err := engine.Of(d, len(d), 1)
	return &engine.Gradient{Value: y, Inputs: engine.Values{{Name: "x", Tensor: t}}}, err
}

func (m reciprocal) Weighted(context.Context, engine.Values, engine.Values, []string) (*engine.Gradient, error) {
	return nil, errors.New("nothing here weighs")
}

func refused(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if !errors.Is(err, collector.ErrRefused) || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v, want a refusal with %q", what, err, reason)
	}
}

// TestWhatIsNoNumberIsRefused: an infinite value or gradient is the row's, not a
// fault of the server.
func TestWhatIsNoNumberIsRefused(t *testing.T) {
	info := &engine.Info{
		Format: "onnx", Inputs: []engine.Spec{{Name: "x", DType: engine.Float64, Shape: []int{-1, 1}}},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float64, Shape: []int{-1, 1}}},
	}
	v := &collector.ModelVersion{Name: "m", Info: info, Model: reciprocal{info}}
	at := func(x float64) engine.Values {
		d, err := engine.Of([]float64{x}, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		return engine.Values{{Name: "x", Tensor: d}}
	}
	for _, method := range []string{"saliency", "input_x_gradient", "integrated_gradients"} {
		for _, x := range []float64{0, 1e-200, math.Inf(1), math.NaN()} {
			_, err := explain.Explain(t.Context(), v, at(x), collector.ExplainRequest{Method: method})
			if x == math.Inf(1) && err == nil {
				continue // 1/x and its gradient are 0 there
			}
			refused(t, method, err, "finite")
		}
	}
	_, err := explain.Explain(t.Context(), v, at(1), collector.ExplainRequest{Method: "integrated_gradients"})
	refused(t, "a baseline of zero", err, "finite")
	if _, err := explain.Explain(t.Context(), v, at(1), collector.ExplainRequest{Baseline: []float64{2}}); err != nil {
		t.Error(err)
	}
	_, err = explain.Explain(t.Context(), v, at(1), collector.ExplainRequest{Method: "saliency", Baseline: []float64{2}})
	refused(t, "a baseline of saliency", err, "integrated_gradients")
}

// TestJumpIsSaid: an answer whose parts do not add up says so, why, and what else there is.
func TestJumpIsSaid(t *testing.T) {
	floor := &graph.Node{Op: "Floor", Version: 20, Inputs: []string{"x"}, Outputs: []string{"f"}, Attrs: graph.Attrs{}}
	add := &graph.Node{Op: "Add", Version: 20, Inputs: []string{"f", "x"}, Outputs: []string{"y"}, Attrs: graph.Attrs{}}
	spec := func(name string) engine.Spec {
		return engine.Spec{Name: name, DType: engine.Float32, Shape: []int{-1, 2}}
	}
	file, err := onnx.Encode(&onnx.Made{Graph: &graph.Graph{Nodes: []*graph.Node{floor, add}, Inputs: []engine.Spec{spec("x")}, Outputs: []string{"y"}}, Outputs: []engine.Spec{spec("y")}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	v := &collector.ModelVersion{Name: "m", Info: m.Info(), Model: m}
	x, err := engine.Of([]float32{2.5, 0.25, 0.75, 0.25}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	list, err := explain.Explain(t.Context(), v, engine.Values{{Name: "x", Tensor: x}}, collector.ExplainRequest{Output: "y[0]"})
	if err != nil {
		t.Fatal(err)
	}
	c := list[0].Certificate
	if c.Points != 1024 || math.Abs(c.Residual-2) > 1e-3 {
		t.Errorf("certificate %+v", c)
	}
	for _, say := range []string{"44.4 %", "1024 points", "2 jumps", "no gradient", "baseline"} {
		if !strings.Contains(c.Warning, say) {
			t.Errorf("no %q in the warning %q", say, c.Warning)
		}
	}
	if list[1].Certificate.Warning != "" || list[1].Certificate.Points != 8 {
		t.Errorf("where nothing jumps: %+v", list[1].Certificate)
	}
	list, err = explain.Explain(t.Context(), v, engine.Values{{Name: "x", Tensor: x}}, collector.ExplainRequest{Output: "y[0]", Steps: 1})
	if err != nil || list[0].Certificate.Points != 1 || !strings.Contains(list[0].Certificate.Warning, "with 1 points") {
		t.Errorf("with the steps asked for: %+v, %v", list, err)
	}
	list, err = explain.Explain(t.Context(), v, engine.Values{{Name: "x", Tensor: x}}, collector.ExplainRequest{Output: "y[0]", Method: explain.Saliency})
	if err != nil || list[0].Certificate.Warning != "" {
		t.Errorf("saliency, which adds up to nothing: %+v, %v", list, err)
	}
}

// TestTreesThatDoNotAddUpAreRefused: corrupt covers and leaves that are not those
// the model computes with.
func TestTreesThatDoNotAddUpAreRefused(t *testing.T) {
	v, rows := open(t, lightgbmData+"objective_binary.txt")
	_, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{Baseline: []float64{1}})
	refused(t, "baseline", err, "background")
	_, err = explain.Explain(t.Context(), v, rows, collector.ExplainRequest{Steps: 3})
	refused(t, "steps", err, "integrated_gradients")
	for what, c := range map[string]struct {
		change func(*tree.Tree)
		reason string
	}{
		"a negative cover": {func(t *tree.Tree) { t.Nodes[0].Cover = -1 }, "cover -1"},
		"a NaN cover":      {func(t *tree.Tree) { t.Nodes[1].Cover = math.NaN() }, "cover NaN"},
		"other leaves":     {func(t *tree.Tree) { each(t.Values, func(v float64) float64 { return v + 1 }) }, "miss the prediction"},
		"infinite leaves":  {func(t *tree.Tree) { each(t.Values, func(float64) float64 { return math.Inf(1) }) }, "finite"},
	} {
		v, rows := open(t, lightgbmData+"objective_binary.txt")
		e, _ := v.Model.(tree.Holder).Trees()
		c.change(&e.Trees[0])
		v.Digest = what
		_, err := explain.Explain(t.Context(), v, rows, collector.ExplainRequest{})
		refused(t, what, err, c.reason)
	}
}

func each(values []float64, f func(float64) float64) {
	for i := range values {
		values[i] = f(values[i])
	}
}

// TestOutputThatIsNoRows: what has its rows behind something else is refused with the reason.
func TestOutputThatIsNoRows(t *testing.T) {
	turn := &graph.Node{Op: "Transpose", Version: 20, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: graph.Attrs{}}
	file, err := onnx.Encode(&onnx.Made{
		Graph:   &graph.Graph{Nodes: []*graph.Node{turn}, Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}}, Outputs: []string{"y"}},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{2, -1}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	x, err := engine.Of([]float32{1, 2}, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, err = explain.Explain(t.Context(), &collector.ModelVersion{Name: "m", Info: m.Info(), Model: m}, engine.Values{{Name: "x", Tensor: x}}, collector.ExplainRequest{Method: "saliency", Output: "y[0]"})
	refused(t, "an output of two rows for one", err, "one row a prediction")
}
