package autodiff_test

import (
	"archive/zip"
	"compress/gzip"
	"encoding/json"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/autodiff"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// torchCase is one of testdata/make_gradients.py: a model, and what PyTorch has for it.
type torchCase struct {
	Name   string
	Model  []byte
	Inputs []struct {
		Name             string
		Shape            []int
		Float32          bool
		Values, Gradient []float64
	}
	Shape      []int
	Y, Weights []float64
}

func torchCases(t *testing.T) []torchCase {
	t.Helper()
	f, err := os.Open("testdata/gradients.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var list []torchCase
	if err := json.NewDecoder(z).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list
}

// inputs are the case's, and whether anything of it is in single precision.
func (c *torchCase) inputs(t *testing.T) (in engine.Values, single bool) {
	t.Helper()
	for _, x := range c.Inputs {
		v, err := engine.Of(x.Values, x.Shape...)
		if err == nil && x.Float32 {
			single = true
			v, err = graph.Cast(v, engine.Float32)
		}
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, engine.Named{Name: x.Name, Tensor: v})
	}
	return in, single
}

// TestTorch holds the values and gradients of every case against PyTorch's.
func TestTorch(t *testing.T) {
	for _, c := range torchCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			g, err := onnx.ReadGraph(c.Model, "")
			if err != nil {
				t.Fatal(err)
			}
			p, err := graph.Compile(g)
			if err != nil {
				t.Fatal(err)
			}
			in, single := c.inputs(t)
			run, err := p.Run(t.Context(), graph.Options{Keep: true}, in, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			y, _ := run.Value("y").Float64s()
			// Attributes of floats are float32 in a file; Resize has its places in float32, as
			// onnxruntime has.
			tol := 1e-7
			if single || strings.HasPrefix(c.Name, "Resize") || run.Value("y").DType() == engine.Float32 {
				tol = 1e-5
			}
			same(t, "y", y, c.Y, tol)
			weights, err := engine.Of(c.Weights, c.Shape...)
			if err != nil {
				t.Fatal(err)
			}
			var wrt []string
			for i := range in {
				wrt = append(wrt, in[i].Name)
			}
			got, err := autodiff.Weighted(t.Context(), p, graph.Options{}, in, engine.Values{{Name: "y", Tensor: weights}}, wrt)
			if err != nil {
				t.Fatal(err)
			}
			for i := range in {
				v, _ := got.Inputs[i].Tensor.Float64s()
				same(t, "the gradient by "+wrt[i], v, c.Inputs[i].Gradient, tol)
			}
		})
	}
}

func same(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	scale := 0.0
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i, w := range want {
		if !(math.Abs(got[i]-w) <= tol*scale) {
			t.Fatalf("%s at %d is %v, want %v", what, i, got[i], w)
		}
	}
}

// noCounterpart are the rules that PyTorch has nothing for, and why.
var noCounterpart = map[string]string{
	"ZipMap":          "names columns and moves nothing; central differences",
	graph.OpSVMPairs:  "the votes of libsvm's pairs of classes: values against scikit-learn's, central differences",
	graph.OpSVMOutput: "what onnxruntime makes of those votes: values against scikit-learn's, central differences",
}

// TestEveryRuleHasTorch fails for a rule whose operator is in no model with values of
// PyTorch's, here or in torch.zip of engine/onnx, and has no reason for that.
func TestEveryRuleHasTorch(t *testing.T) {
	held := map[string]bool{}
	count := func(model []byte) {
		g, err := onnx.ReadGraph(model, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range g.Nodes {
			held[n.Op] = true
		}
	}
	for _, c := range torchCases(t) {
		count(c.Model)
	}
	z, err := zip.OpenReader("../onnx/testdata/torch.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".onnx") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		count(b)
	}
	rules := 0
	for _, domain := range graph.Domains() {
		for _, op := range graph.Operators(domain) {
			if !autodiff.HasRule(op, domain) {
				if noCounterpart[op] != "" {
					t.Errorf("%s has a reason and no rule", op)
				}
				continue
			}
			rules++
			switch reason := noCounterpart[op]; {
			case !held[op] && reason == "":
				t.Errorf("no case holds the rule of %s (%q) against PyTorch, and no reason is given", op, domain)
			case held[op] && reason != "":
				t.Errorf("%s has a case and a reason for having none", op)
			}
		}
	}
	if rules < 166 {
		t.Errorf("%d rules: some went missing", rules)
	}
}
