package onnx

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/sbinet/npyio"
)

type arrayFile struct {
	Name, File string
	Shape      []int
}

type oracleCase struct {
	Inputs, Outputs []arrayFile
	Library         map[string]string
	Gradients       []struct {
		Output, Input, File string
		Index               int
	}
	Tree bool
}

// archive reads a zip of testdata: folder, then file.
func archive(t testing.TB, name string) map[string]map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out := map[string]map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		dir, file := path.Split(f.Name)
		dir = strings.TrimSuffix(dir, "/")
		if out[dir] == nil {
			out[dir] = map[string][]byte{}
		}
		out[dir][file] = b
	}
	return out
}

func readArray(t testing.TB, files map[string][]byte, name string, shape []int) *engine.Tensor {
	t.Helper()
	b, ok := files[name]
	if !ok {
		t.Fatalf("no file %s", name)
	}
	if strings.HasSuffix(name, ".json") {
		var s []string
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		return must(engine.Of(s, shape...))
	}
	r, err := npyio.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if shape == nil {
		shape = r.Header.Descr.Shape
	}
	switch r.Header.Descr.Type {
	case "<f4":
		return load[float32](t, r, shape)
	case "<f8":
		return load[float64](t, r, shape)
	case "<i8":
		return load[int64](t, r, shape)
	}
	t.Fatalf("%s has type %s", name, r.Header.Descr.Type)
	return nil
}

func load[T engine.Element](t testing.TB, r *npyio.Reader, shape []int) *engine.Tensor {
	var v []T
	if err := r.Read(&v); err != nil {
		t.Fatal(err)
	}
	return must(engine.Of(v, shape...))
}

func must(t *engine.Tensor, err error) *engine.Tensor {
	if err != nil {
		panic(err)
	}
	return t
}

func closeTo(t testing.TB, what string, got, want *engine.Tensor, tol float64) {
	t.Helper()
	if got.Len() != want.Len() {
		t.Errorf("%s: shape %v, want %v", what, got.Shape(), want.Shape())
		return
	}
	if s := engine.Data[string](want); s != nil {
		for i, v := range engine.Data[string](got) {
			if v != s[i] {
				t.Errorf("%s[%d] = %q, want %q", what, i, v, s[i])
				return
			}
		}
		return
	}
	g, ok := got.Float64s()
	if !ok {
		t.Errorf("%s: type %s", what, got.DType())
		return
	}
	w, _ := want.Float64s()
	for i := range w {
		if math.IsNaN(w[i]) && math.IsNaN(g[i]) || w[i] == g[i] {
			continue
		}
		if !(math.Abs(g[i]-w[i]) <= tol*max(1, math.Abs(w[i]))) {
			t.Errorf("%s[%d] = %v, want %v", what, i, g[i], w[i])
			return
		}
	}
}

func runCase(t *testing.T, files map[string][]byte) (engine.Model, engine.Values, *oracleCase) {
	t.Helper()
	var c oracleCase
	if err := json.Unmarshal(files["case.json"], &c); err != nil {
		t.Fatal(err)
	}
	m, err := Read(files["model.onnx"], "")
	if err != nil {
		t.Fatal(err)
	}
	var in engine.Values
	for _, a := range c.Inputs {
		in = append(in, engine.Named{Name: a.Name, Tensor: readArray(t, files, a.File, a.Shape)})
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range c.Outputs {
		if out[i].Name != a.Name {
			t.Errorf("output %d is %q, want %q", i, out[i].Name, a.Name)
		}
		if got, want := len(out[i].Tensor.Shape()), len(m.Info().Outputs[i].Shape); got != want {
			t.Errorf("output %q has %d dimensions, Info says %d", a.Name, got, want)
		}
		closeTo(t, a.Name, out[i].Tensor, readArray(t, files, a.File, a.Shape), 1e-5)
		if lib, ok := c.Library[a.Name]; ok {
			// The libraries compute in float64.
			closeTo(t, a.Name+" of the library", out[i].Tensor, readArray(t, files, lib, a.Shape), 1e-5)
		}
	}
	return m, in, &c
}

// scikitLearnCases are all that sklearn.zip holds: one that its script could not
// make would else be missed by nobody.
var scikitLearnCases = []string{
	"ada_classifier", "ada_regressor", "bagging", "bins", "boosting_binary", "boosting_multi", "boosting_opset_1",
	"boosting_regressor", "boosting_scaled", "calibrated", "columns", "extra_trees", "forest_binary", "forest_decisions", "forest_double",
	"forest_multi", "forest_normalised", "forest_regressor", "forest_scaled", "forest_three_targets", "gaussian_process",
	"hist_binary_nan", "hist_categories", "hist_multi_nan", "hist_regressor_nan", "imputed_linear", "isolation_forest", "kernel_pca", "lgb_binary",
	"lgb_binary_zipmap", "lgb_multi", "lgb_regressor", "linear", "linear_double", "logistic_binary", "logistic_binary_zipmap",
	"logistic_multi", "mlp_binary", "mlp_classifier", "mlp_labels", "mlp_regressor", "naive_bayes", "neighbours",
	"neighbours_distance", "neighbours_manhattan", "one_class_svm", "one_vs_rest_labels", "pca_robust", "power_poly",
	"ridge_multi_output", "scaled_logistic", "scores_raw", "stacking", "svc_binary", "svc_binary_probability", "svc_multi",
	"svc_multi_ovo", "svc_multi_probability", "svr", "svr_scaled_linear", "tree_classifier", "tree_regressor", "voting_regressor",
	"xgb_binary", "xgb_multi", "xgb_regressor", "zipmap_columns",
}

func TestScikitLearn(t *testing.T) {
	cases := archive(t, "sklearn.zip")
	if got := slices.Sorted(maps.Keys(cases)); !slices.Equal(got, scikitLearnCases) {
		t.Errorf("cases %q, want %q", got, scikitLearnCases)
	}
	for name, files := range cases {
		t.Run(name, func(t *testing.T) {
			m, in, c := runCase(t, files)
			h, ok := m.(tree.Holder)
			if c.Tree != ok {
				t.Fatalf("a tree.Holder: %v, want %v", ok, c.Tree)
			}
			if ok {
				checkHolder(t, h, m, in)
			}
			enginetest.TestModel(t, m, in)
		})
	}
}

// checkHolder holds the ensemble with its link to the output it names.
func checkHolder(t *testing.T, h tree.Holder, m engine.Model, in engine.Values) {
	t.Helper()
	e, output := h.Trees()
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	rows := in[0].Tensor.Rows()
	x, _ := in[0].Tensor.Float64s()
	if name, _ := h.(tree.Preparer).Columns(); name != "" {
		s, err := m.NewSession(engine.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Run(t.Context(), in, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		x, _ = out[0].Tensor.Float64s()
	}
	margins := marginsOf(t, e, x, rows)
	got := tree.Apply(e.Link, e.LinkScale, margins, e.Outputs)
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Run(t.Context(), in, []string{output})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := res[0].Tensor.Float64s()
	k := len(want) / rows
	for i, g := range got {
		w := want[i]
		if e.Outputs == 1 && k == 2 {
			w = want[2*i+1]
		}
		if !(math.Abs(g-w) <= 1e-5*max(1, math.Abs(w))) {
			t.Fatalf("link of margin %d is %v, the output %v", i, g, w)
		}
	}
}

// marginsOf evaluates an ensemble in its own precision.
func marginsOf(t *testing.T, e *tree.Ensemble, x []float64, rows int) []float64 {
	t.Helper()
	wide := make([]float64, rows*e.Outputs)
	v := tree.NewEvaluator(e)
	if !e.Float32 {
		if err := tree.Margins(t.Context(), v, x, rows, wide, 1); err != nil {
			t.Fatal(err)
		}
		return wide
	}
	narrow := make([]float32, len(x))
	for i, f := range x {
		narrow[i] = float32(f)
	}
	out := make([]float32, len(wide))
	if err := tree.Margins(t.Context(), v, narrow, rows, out, 1); err != nil {
		t.Fatal(err)
	}
	for i, f := range out {
		wide[i] = float64(f)
	}
	return wide
}

// torchCases are all that torch.zip holds, as above.
var torchCases = []string{
	"activations_dynamo", "activations_script", "attention_double_dynamo", "attention_double_script", "attention_dynamo",
	"attention_script", "chunks_dynamo", "chunks_script", "cnn_groups_dynamo", "cnn_groups_script", "cnn_pads_dynamo",
	"cnn_pads_script", "cnn_pools_dynamo", "cnn_pools_script", "cnn_series_dynamo", "cnn_series_script", "cnn_transposed_dynamo",
	"cnn_transposed_script", "cnn_volume_dynamo", "cnn_volume_script", "einsum_dynamo", "einsum_script", "group_norm_dynamo",
	"group_norm_script", "gru_dynamo", "gru_script", "indexed_dynamo", "indexed_script", "lstm_dynamo", "lstm_script",
	"mlp_batchnorm_sigmoid_double_dynamo", "mlp_batchnorm_sigmoid_double_script", "mlp_batchnorm_sigmoid_dynamo",
	"mlp_batchnorm_sigmoid_script", "mlp_gelu_double_dynamo", "mlp_gelu_double_script", "mlp_gelu_dynamo", "mlp_gelu_script",
	"mlp_layernorm_double_dynamo", "mlp_layernorm_double_script", "mlp_layernorm_dynamo", "mlp_layernorm_script",
	"mlp_relu_double_dynamo", "mlp_relu_double_script", "mlp_relu_dynamo", "mlp_relu_script", "mlp_selu_leaky_double_dynamo",
	"mlp_selu_leaky_double_script", "mlp_selu_leaky_dynamo", "mlp_selu_leaky_script", "mlp_tanh_softmax_double_dynamo",
	"mlp_tanh_softmax_double_script", "mlp_tanh_softmax_dynamo", "mlp_tanh_softmax_script", "moments_dynamo", "moments_script",
	"normalized_dynamo", "normalized_script", "pixel_shuffle_dynamo", "pixel_shuffle_script", "residual_double_dynamo",
	"residual_double_script", "residual_dynamo", "residual_script", "resnet_dynamo", "resnet_script", "rnn_dynamo", "rnn_script",
	"sums_dynamo", "sums_script", "trigonometry_dynamo", "trigonometry_script", "upsample_bilinear_dynamo",
	"upsample_bilinear_script", "upsample_nearest_dynamo", "upsample_nearest_script",
}

func TestTorch(t *testing.T) {
	cases := archive(t, "torch.zip")
	if got := slices.Sorted(maps.Keys(cases)); !slices.Equal(got, torchCases) {
		t.Errorf("cases %q, want %q", got, torchCases)
	}
	for name, files := range cases {
		t.Run(name, func(t *testing.T) {
			m, in, c := runCase(t, files)
			enginetest.TestModel(t, m, in)
			s, err := m.NewSession(engine.SessionOptions{})
			if err != nil {
				t.Fatal(err)
			}
			d := s.(engine.Differentiator)
			for _, g := range c.Gradients {
				got, err := d.Gradient(t.Context(), in, engine.Target{Name: g.Output, Index: g.Index}, []string{g.Input})
				if err != nil {
					t.Fatal(err)
				}
				want := readArray(t, files, g.File, nil)
				scale := 0.0
				w, _ := want.Float64s()
				for _, v := range w {
					scale = max(scale, math.Abs(v))
				}
				v, _ := got.Inputs[0].Tensor.Float64s()
				tol := 1e-4
				if want.DType() == engine.Float64 {
					tol = 1e-6 // attributes such as LeakyRelu's alpha are float32 in the file
				}
				for i := range w {
					if !(math.Abs(v[i]-w[i]) <= tol*scale) {
						t.Fatalf("gradient of %s[%d] at %d is %v, want %v", g.Output, g.Index, i, v[i], w[i])
					}
				}
			}
		})
	}
}

func TestTreesAreNotDifferentiable(t *testing.T) {
	files := archive(t, "sklearn.zip")["forest_regressor"]
	m, in, c := runCase(t, files)
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.(engine.Differentiator).Gradient(t.Context(), in, engine.Target{Name: c.Outputs[0].Name}, []string{in[0].Name})
	var nd *engine.NotDifferentiableError
	if !errors.As(err, &nd) || !strings.Contains(nd.Instead, "tree_shap") {
		t.Fatalf("error %v", err)
	}
}
