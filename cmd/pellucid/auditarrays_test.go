package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/explain/audit"
)

// drawn are random numbers as a tensor.
func drawn(t *testing.T, r *rand.Rand, shape ...int) *engine.Tensor {
	t.Helper()
	n, err := engine.Elements(shape)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64()) / 3
	}
	x, err := engine.Of(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// readAudit runs a command that writes an audit as JSON, and reads it.
func readAudit(t *testing.T, args ...string) (r audit.Report, stdout string) {
	t.Helper()
	figures := filepath.Join(t.TempDir(), "audit.json")
	status, stdout, stderr := command(t, append(args, "--audit", figures)...)
	if status != 0 {
		t.Fatalf("%v: status %d, %s%s", args, status, stdout, stderr)
	}
	text, err := os.ReadFile(figures)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r, stdout
}

// imageNet writes a convolution over images of any size, and six images with their labels.
func imageNet(t *testing.T, dir string) (model, images, labels string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	model, images, labels = filepath.Join(dir, "images.onnx"), filepath.Join(dir, "images.npy"), filepath.Join(dir, "labels.npy")
	writeModel(t, model, []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2, -1, -1}}},
		map[string]*engine.Tensor{"w": drawn(t, r, 16, 2, 3, 3), "d": drawn(t, r, 16, 12)}, engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, 12}},
		&graph.Node{Op: "Conv", Inputs: []string{"x", "w"}, Outputs: []string{"c"}}, &graph.Node{Op: "Relu", Inputs: []string{"c"}, Outputs: []string{"r"}},
		&graph.Node{Op: "GlobalAveragePool", Inputs: []string{"r"}, Outputs: []string{"p"}}, &graph.Node{Op: "Flatten", Inputs: []string{"p"}, Outputs: []string{"f"}},
		&graph.Node{Op: "MatMul", Inputs: []string{"f", "d"}, Outputs: []string{"y"}})
	writeArray(t, images, engine.Data[float32](drawn(t, r, 6, 2, 7, 5)), 6, 2, 7, 5)
	writeArray(t, labels, []int64{0, 1, 2, 3, 4, 5}, 6)
	return model, images, labels
}

// TestAuditImages judges images of four dimensions, two of them open, with labels of a file
// and without.
func TestAuditImages(t *testing.T) {
	dir := t.TempDir()
	model, images, labels := imageNet(t, dir)
	out := filepath.Join(dir, "small.onnx")
	args := []string{"model", "compress", model, "--to", "int8:full", "--calibration", images, "--out", out, "--input", images, "--rounds", "1"}
	r, stdout := readAudit(t, args...)
	e := r.Explanations
	if r.Rows != 6 || !(r.Scores.MaxDifference > 0) || r.Decisions == nil || r.Decisions.Rows != 6 || r.Distribution.Reason != "" || len(r.Worst) != 6 || r.Speed == nil {
		t.Errorf("report %+v", r)
	}
	if e == nil || e.Reason != "" || e.Rows != 6 || e.Asked != 6 || e.Features != 2*7*5 || !(e.Spearman > 0.5) {
		t.Errorf("explanations %+v", e)
	}
	if r.Accuracy != nil || !strings.Contains(stdout, "not measured: no --labels") {
		t.Errorf("accuracy without labels: %+v, %s", r.Accuracy, stdout)
	}
	r, stdout = readAudit(t, "model", "audit", model, out, "--input", images, "--labels", labels, "--rounds", "0", "--explain-rows", "0")
	if r.Accuracy == nil || r.Accuracy.Reason != "" || r.Accuracy.Rows != 6 || strings.Contains(stdout, "not measured") {
		t.Errorf("accuracy %+v, %s", r.Accuracy, stdout)
	}
	status, _, stderr := command(t, "model", "audit", model, out, "--input", images, "--labels", "late")
	if status != 2 || !strings.Contains(stderr, "arrays have no columns") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestAuditFolder judges a model of two inputs by a folder of arrays.
func TestAuditFolder(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	model, arrays := filepath.Join(dir, "two.onnx"), filepath.Join(dir, "arrays")
	writeModel(t, model, []engine.Spec{{Name: "a", DType: engine.Float32, Shape: []int{-1, 20}}, {Name: "b", DType: engine.Int64, Shape: []int{-1, -1}}},
		map[string]*engine.Tensor{"w": drawn(t, r, 20, 9), "v": drawn(t, r, 9, 3)}, engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, 3}},
		&graph.Node{Op: "MatMul", Inputs: []string{"a", "w"}, Outputs: []string{"m"}}, &graph.Node{Op: "Cast", Inputs: []string{"b"}, Outputs: []string{"f"}, Attrs: graph.Attrs{"to": {Kind: graph.AttrInt, Int: 1}}},
		&graph.Node{Op: "Mul", Inputs: []string{"m", "f"}, Outputs: []string{"p"}}, &graph.Node{Op: "MatMul", Inputs: []string{"p", "v"}, Outputs: []string{"y"}})
	if err := os.Mkdir(arrays, 0o700); err != nil {
		t.Fatal(err)
	}
	writeArray(t, filepath.Join(arrays, "a.npy"), engine.Data[float32](drawn(t, r, 4, 20)), 4, 20)
	writeArray(t, filepath.Join(arrays, "b.npy"), []int64{1, -2, 3, 1}, 4, 1)
	out := filepath.Join(dir, "small.onnx")
	got, _ := readAudit(t, "model", "compress", model, "--to", "fp16", "--out", out, "--input", arrays, "--rounds", "0")
	if got.Rows != 4 || !(got.Scores.MaxDifference > 0 && got.Scores.MaxDifference < 0.01) || got.Explanations == nil || got.Explanations.Rows != 4 || got.Explanations.Features != 20 {
		t.Errorf("report %+v, explanations %+v", got, got.Explanations)
	}
	got, _ = readAudit(t, "model", "audit", model, out, "--input", "a="+filepath.Join(arrays, "a.npy"), "--input", "b="+filepath.Join(arrays, "b.npy"), "--rounds", "0", "--explain-rows", "0")
	if got.Rows != 4 {
		t.Errorf("by name: %+v", got)
	}
}

// TestAuditState judges a recurrent model, whose state has its rows along the second
// dimension and whose factor is one for all.
func TestAuditState(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 6))
	old, changed := filepath.Join(dir, "old.onnx"), filepath.Join(dir, "new.onnx")
	for path, factor := range map[string]float32{old: 1, changed: 1.5} {
		k, err := engine.Of([]float32{factor})
		if err != nil {
			t.Fatal(err)
		}
		writeModel(t, path, []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 3}}, {Name: "state", DType: engine.Float32, Shape: []int{2, -1, 3}}, {Name: "rate", DType: engine.Float32}},
			map[string]*engine.Tensor{"k": k}, engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{2, -1, 3}},
			&graph.Node{Op: "Mul", Inputs: []string{"x", "rate"}, Outputs: []string{"m"}}, &graph.Node{Op: "Mul", Inputs: []string{"m", "k"}, Outputs: []string{"n"}},
			&graph.Node{Op: "Add", Inputs: []string{"state", "n"}, Outputs: []string{"y"}})
	}
	x := make([]float32, 5*3)
	x[2*3+1] = 4 // row 2 alone is moved
	writeArray(t, filepath.Join(dir, "x.npy"), x, 5, 3)
	writeArray(t, filepath.Join(dir, "state.npy"), engine.Data[float32](drawn(t, r, 2, 5, 3)), 2, 5, 3)
	writeArray(t, filepath.Join(dir, "rate.npy"), []float32{0.5}, 1)
	// numpy's array of no dimensions
	text, err := os.ReadFile(filepath.Join(dir, "rate.npy"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rate.npy"), []byte(strings.Replace(string(text), "(1)", "() ", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, _ := readAudit(t, "model", "audit", old, changed, "--input", dir, "--rounds", "1")
	if got.Rows != 5 || math.Abs(float64(got.Scores.MaxDifference)-1) > 1e-6 || got.Worst[0].Row != 2 || got.Worst[0].Output != "y[1]" || got.Worst[1].Difference != 0 {
		t.Errorf("report %+v", got)
	}
	if got.Explanations == nil || !strings.Contains(got.Explanations.Reason, "first dimension of every input") {
		t.Errorf("explanations %+v", got.Explanations)
	}
}
