package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/tree"
	"github.com/pellucid/pellucid/explain/audit"
)

// TestCompress compresses the demo's network, reads the audit and the model back.
func TestCompress(t *testing.T) {
	dir := t.TempDir()
	out, page, figures := filepath.Join(dir, "small.onnx"), filepath.Join(dir, "audit.html"), filepath.Join(dir, "audit.json")
	args := []string{
		"model", "compress", mlp + "model.onnx", "--to", "structured:0.2,fp16", "--out", out, "--input", mlp + "reference.parquet",
		"--explain-rows", "10", "--rounds", "1", "--max-score-diff", "0.9", "--max-disagreement", "0.2",
	}
	for _, file := range []string{page, figures} {
		status, stdout, stderr := command(t, append(args, "--audit", file)...)
		if status != 0 || !strings.Contains(stdout, "units dropped") || !strings.Contains(stdout, "Spearman") {
			t.Fatalf("status %d, %s%s", status, stdout, stderr)
		}
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(out)
	if err != nil || info.Size() != r.File.Compressed || r.File.Compressed >= r.File.Original || len(r.Applied) < 3 || len(r.Verdict.Checks) != 2 || !r.Verdict.Passed {
		t.Errorf("report %+v (%v)", r, err)
	}
	if _, err := modelfile.Open(out); err != nil {
		t.Error(err)
	}
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "Within every limit") || strings.Contains(string(html), "<script") {
		t.Errorf("the page is not as it should be (%v)", err)
	}
}

// TestCompressLarger: a file that became larger is written all the same, and told of.
func TestCompressLarger(t *testing.T) {
	dir := t.TempDir()
	model, rows := filepath.Join(dir, "tiny.onnx"), filepath.Join(dir, "rows.csv")
	w, err := engine.Of([]float32{1, -2, 3, 4}, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	data, err := onnx.Encode(&onnx.Made{
		Graph: &graph.Graph{
			Inputs: []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}}, Outputs: []string{"y"},
			Constants: map[string]*engine.Tensor{"w": w}, Nodes: []*graph.Node{{Op: "MatMul", Inputs: []string{"x", "w"}, Outputs: []string{"y"}}},
		},
		Outputs: []engine.Spec{{Name: "y", DType: engine.Float32, Shape: []int{-1, 2}}}, Producer: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{model: data, rows: []byte("x0,x1\n0.5,1\n-1,2\n3,0.25\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const told = "the file became larger: "
	args := []string{"model", "compress", model, "--to", "int8:full", "--out", filepath.Join(dir, "small.onnx")}
	for _, more := range [][]string{
		{"--calibration", rows},
		{"--input", rows, "--explain-rows", "0", "--rounds", "0", "--audit", filepath.Join(dir, "audit.html")},
		{"--input", rows, "--explain-rows", "0", "--rounds", "0", "--audit", filepath.Join(dir, "audit.json")},
	} {
		status, stdout, stderr := command(t, append(args, more...)...)
		if status != 0 || !strings.Contains(stderr, "warning: "+told) || strings.Contains(stdout, told) {
			t.Errorf("%v: status %d, %q and %q", more, status, stdout, stderr)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "small.onnx"))
	if err != nil || info.Size() <= int64(len(data)) {
		t.Fatalf("%v (%v) of %d bytes", info, err, len(data))
	}
	for _, name := range []string{"audit.html", "audit.json"} {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(page), told) {
			t.Errorf("%s does not tell (%v): %s", name, err, page)
		}
	}
	status, _, stderr := command(t, append(args, "--input", rows, "--explain-rows", "0", "--rounds", "0", "--max-size-ratio", "1")...)
	if status != 1 || !strings.Contains(stderr, told) || !strings.Contains(stderr, "max-size-ratio is ") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestCompressOutsideLimits writes the audit but no model.
func TestCompressOutsideLimits(t *testing.T) {
	dir := t.TempDir()
	out, figures := filepath.Join(dir, "small.onnx"), filepath.Join(dir, "audit.json")
	status, _, stderr := command(t, "model", "compress", mlp+"model.onnx", "--to", "prune:0.9", "--out", out, "--input", mlp+"reference.parquet",
		"--audit", figures, "--explain-rows", "0", "--rounds", "0", "--max-disagreement", "0")
	if status != 1 || !strings.Contains(stderr, "max-disagreement is 0.") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "audit.json" {
		t.Errorf("the folder holds %v (%v)", left, err)
	}
}

func TestCompressUsage(t *testing.T) {
	dir := t.TempDir()
	model := mlp + "model.onnx"
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{}, 2, "one model file"},
		{[]string{model}, 2, "needs --to"},
		{[]string{model, "--to", "fp8", "--out", dir + "/x.onnx"}, 2, "fp8"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.ubj"}, 2, "the format stays"},
		{[]string{model, "--to", "int8:full", "--out", dir + "/x.onnx"}, 2, "--calibration"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.onnx", "--calibration", mlp + "reference.parquet"}, 2, "is for --to int8:full"},
		{[]string{model, "--to", "int8:full", "--out", dir + "/x.onnx", "--calibration", mlp + "reference.parquet", "--ranges", "all"}, 2, "minmax"},
		{[]string{model, "--to", "fp16", "--out", model}, 2, "never written over"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.onnx", "--max-psi", "0"}, 2, "needs --input"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.onnx", "--audit", "x.html"}, 2, "needs --input"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.onnx", "--input", mlp + "reference.parquet", "--audit", "x.pdf"}, 2, ".html or .json"},
		{[]string{model, "--to", "fp16", "--out", dir + "/x.onnx", "--input", mlp + "reference.parquet", "--labels", "nope"}, 2, "no column"},
		{[]string{gbm + "model.ubj", "--to", "fp16", "--out", dir + "/x.ubj"}, 1, "holds trees"},
		{[]string{dir + "/none.onnx", "--to", "fp16", "--out", dir + "/x.onnx"}, 1, "none.onnx"},
	} {
		status, _, stderr := command(t, append([]string{"model", "compress"}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.say) {
			t.Errorf("%v: status %d, %q; want %d, %q", c.args, status, stderr, c.status, c.say)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the folder holds %v (%v)", left, err)
	}
}

// TestCompressTrees trims the demo's boosted trees and reads the audit and the model
// back.
func TestCompressTrees(t *testing.T) {
	dir := t.TempDir()
	out, figures := filepath.Join(dir, "small.ubj"), filepath.Join(dir, "audit.json")
	status, stdout, stderr := command(t, "model", "compress", gbm+"model.ubj", "--to", "leaves:0.03,trees:60", "--out", out, "--input", gbm+"reference.parquet",
		"--audit", figures, "--explain-rows", "20", "--rounds", "1", "--min-rank-correlation", "0.5", "--max-size-ratio", "0.7")
	if status != 0 || !strings.Contains(stdout, "the first 60 of 100 kept") {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}
	m, err := modelfile.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := tree.Held(m); !ok || len(e.Trees) != 60 {
		t.Error("not 60 trees")
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal(text, &r); err != nil || r.Explanations.Method != "tree_shap" || r.Explanations.Rows != 20 {
		t.Errorf("explanations %+v (%v)", r.Explanations, err)
	}
}

// TestCompressFull keeps the demo's network in 8 bits, and holds it as a new version
// against the old one.
func TestCompressFull(t *testing.T) {
	dir := t.TempDir()
	out, page, figures := filepath.Join(dir, "small.onnx"), filepath.Join(dir, "audit.html"), filepath.Join(dir, "audit.json")
	rows := mlp + "reference.parquet"
	status, stdout, stderr := command(t, "model", "compress", mlp+"model.onnx", "--to", "int8:full", "--out", out, "--calibration", rows, "--ranges", "percentile")
	if status != 0 || !strings.Contains(stdout, "weights INT8 with") || !strings.Contains(stdout, "(percentile)") {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}
	for _, file := range []string{page, figures} {
		status, stdout, stderr = command(t, "model", "audit", mlp+"model.onnx", out, "--input", rows, "--audit", file, "--explain-rows", "10", "--rounds", "1", "--max-disagreement", "0.05",
			"--min-rank-correlation", "0.8")
		if status != 0 || !strings.Contains(stdout, "Spearman") || !strings.Contains(stdout, "limits") {
			t.Fatalf("status %d, %s%s", status, stdout, stderr)
		}
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal(text, &r); err != nil || r.Verdict == nil || !r.Verdict.Passed || len(r.Worst) == 0 || r.Explanations == nil || r.Explanations.Rows != 10 || len(r.Applied) != 0 {
		t.Errorf("report %+v (%v)", r, err)
	}
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "Within every limit") {
		t.Errorf("the page is not as it should be (%v)", err)
	}
}

func TestModelAuditRefuses(t *testing.T) {
	rows := mlp + "reference.parquet"
	figures := filepath.Join(t.TempDir(), "audit.json")
	for _, c := range []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{mlp + "model.onnx"}, 2, "two model files"},
		{[]string{mlp + "model.onnx", mlp + "model.onnx"}, 2, "needs --input"},
		{[]string{mlp + "model.onnx", mlp + "model.onnx", "--input", rows, "--audit", "x.pdf"}, 2, ".html or .json"},
		{[]string{mlp + "model.onnx", gbm + "model.ubj", "--input", rows}, 1, "10 and 1 inputs"},
		{[]string{mlp + "model.onnx", mlp + "model.onnx", "--input", rows, "--explain-rows", "0", "--rounds", "0", "--audit", figures, "--max-size-ratio", "0.5"}, 1, "max-size-ratio is 1"},
	} {
		status, _, stderr := command(t, append([]string{"model", "audit"}, c.args...)...)
		if status != c.status || !strings.Contains(stderr, c.say) {
			t.Errorf("%v: status %d, %q; want %d, %q", c.args, status, stderr, c.status, c.say)
		}
	}
	// What is outside of its limits is written down all the same.
	if _, err := os.Stat(figures); err != nil {
		t.Error(err)
	}
}
