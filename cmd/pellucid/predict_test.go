package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sbinet/npyio"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// writeModel writes an ONNX file of some nodes.
func writeModel(t *testing.T, path string, inputs []engine.Spec, constants map[string]*engine.Tensor, output engine.Spec, nodes ...*graph.Node) {
	t.Helper()
	g := &graph.Graph{Inputs: inputs, Outputs: []string{output.Name}, Constants: constants, Nodes: nodes}
	for _, n := range nodes {
		if n.Version = onnx.EncodedOpset; n.Attrs == nil {
			n.Attrs = graph.Attrs{}
		}
	}
	b, err := onnx.Encode(&onnx.Made{Graph: g, Outputs: []engine.Spec{output}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeArray writes values in order as an NPY file of a shape, whose header is NumPy's.
func writeArray[T float32 | int64](t *testing.T, path string, v []T, shape ...int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := npyio.Write(f, v); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dims := make([]string, len(shape))
	for i, d := range shape {
		dims[i] = strconv.Itoa(d)
	}
	// One of several dimensions in the place of one: the padding gives the room.
	was, now := fmt.Sprintf("(%d,)", len(v)), "("+strings.Join(dims, ", ")+")"
	text := strings.Replace(string(b), was, now, 1)
	text = strings.Replace(text, strings.Repeat(" ", len(now)-len(was)+1)+"\n", " \n", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPredictArrays: images of four dimensions, a folder of arrays and arrays by name.
func TestPredictArrays(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	writeModel(t, in("images.onnx"), []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2, -1, -1}}}, nil,
		engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, 2, 1, 1}}, &graph.Node{Op: "GlobalAveragePool", Inputs: []string{"x"}, Outputs: []string{"y"}})
	pixels := make([]float32, 3*2*4*5)
	for i := range pixels {
		pixels[i] = float32(i / 20)
	}
	writeArray(t, in("images.npy"), pixels, 3, 2, 4, 5)
	status, out, errs := command(t, "predict", "--model", in("images.onnx"), "--input", in("images.npy"))
	if want := "y[0],y[1]\n0,1\n2,3\n4,5\n"; status != 0 || out != want {
		t.Errorf("images: %d %q %s, want %q", status, out, errs, want)
	}

	// An input in half precision takes an array of any.
	writeModel(t, in("half.onnx"), []engine.Spec{{Name: "x", DType: engine.Float16, Shape: []int{-1, 2}}}, nil, engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, 2}},
		&graph.Node{Op: "Cast", Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: graph.Attrs{"to": {Kind: graph.AttrInt, Int: 1}}})
	writeArray(t, in("float.npy"), []float32{0.1, 1, 2, 3}, 2, 2)
	for _, input := range []string{in("float.npy"), "x=" + in("float.npy")} {
		status, out, errs := command(t, "predict", "--model", in("half.onnx"), "--input", input)
		if want := "y[0],y[1]\n0.099975586,1\n2,3\n"; status != 0 || out != want {
			t.Errorf("halves: %d %q %s, want %q", status, out, errs, want)
		}
	}

	writeModel(t, in("two.onnx"), []engine.Spec{{Name: "a", DType: engine.Float32, Shape: []int{-1, 2}}, {Name: "b", DType: engine.Int64, Shape: []int{-1, 2}}}, nil,
		engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, 2}},
		&graph.Node{Op: "Cast", Inputs: []string{"b"}, Outputs: []string{"f"}, Attrs: graph.Attrs{"to": {Kind: graph.AttrInt, Int: 1}}},
		&graph.Node{Op: "Add", Inputs: []string{"a", "f"}, Outputs: []string{"y"}})
	if err := os.Mkdir(in("arrays"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeArray(t, in("arrays/a.npy"), []float32{0.5, 1, 2, 3}, 2, 2)
	writeArray(t, in("arrays/b.npy"), []int64{10, 20, 30, 40}, 2, 2)
	for _, args := range [][]string{
		{"--input", in("arrays")},
		{"--input", "b=" + in("arrays/b.npy"), "--input", "a=" + in("arrays/a.npy")},
	} {
		status, out, errs := command(t, append([]string{"predict", "--model", in("two.onnx")}, args...)...)
		if want := "y[0],y[1]\n10.5,21\n32,43\n"; status != 0 || out != want {
			t.Errorf("%v: %d %q %s, want %q", args, status, out, errs, want)
		}
	}
	writeArray(t, in("long.npy"), []int64{1, 2, 3, 4, 5, 6}, 3, 2)
	for _, c := range []struct {
		status int
		say    string
		args   []string
	}{
		{2, "twice", []string{"--input", "a=x.npy", "--input", "a=y.npy"}},
		{2, "NAME=FILE.npy", []string{"--input", "x.csv", "--input", "y.csv"}},
		{2, ".npy", []string{"--input", "a=x.csv", "--input", "b=y.npy"}},
		{1, `"b"`, []string{"--input", "a=" + in("arrays/a.npy")}},
		{1, `"c"`, []string{"--input", "c=" + in("arrays/a.npy")}},
		{1, "cannot be broadcast", []string{"--input", "a=" + in("arrays/a.npy"), "--input", "b=" + in("long.npy")}},
		{1, "find input", []string{"--input", dir}},
	} {
		if status, _, errs := command(t, append([]string{"predict", "--model", in("two.onnx")}, c.args...)...); status != c.status || !strings.Contains(errs, c.say) {
			t.Errorf("%v: %d %s", c.args, status, errs)
		}
	}
}

// TestPredictLyingOutput: an output that gives a number a row side by side is written as
// the one beside it, whatever the file declares and also by blocks; one that is not of the
// rows is refused.
func TestPredictLyingOutput(t *testing.T) {
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows.csv")
	if err := os.WriteFile(rows, []byte("a,b\n1,2\n3,4\n-5,6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}}
	lying, err := engine.Of([]int64{1, -1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	axis := func(i int64) *engine.Tensor {
		a, err := engine.Of([]int64{i}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i, declared := range [][]int{{-1}, {1, -1}, {-1, 1}, {-1, -1}} {
		path := filepath.Join(dir, fmt.Sprintf("lying%d.onnx", i))
		writeModel(t, path, x, map[string]*engine.Tensor{"shape": lying, "axes": axis(1)}, engine.Spec{Name: "label", DType: engine.Float32, Shape: declared},
			&graph.Node{Op: "ReduceMax", Inputs: []string{"x", "axes"}, Outputs: []string{"most"}},
			&graph.Node{Op: "Reshape", Inputs: []string{"most", "shape"}, Outputs: []string{"label"}})
		status, out, errs := command(t, "predict", "--model", path, "--input", rows)
		if want := "label\n2\n4\n6\n"; status != 0 || out != want {
			t.Errorf("declared %v: %d %q %s, want %q", declared, status, out, errs, want)
		}
	}
	path := filepath.Join(dir, "other.onnx")
	writeModel(t, path, x, map[string]*engine.Tensor{"axes": axis(0)}, engine.Spec{Name: "most", DType: engine.Float32, Shape: []int{1, -1}},
		&graph.Node{Op: "ReduceMax", Inputs: []string{"x", "axes"}, Outputs: []string{"most"}})
	if status, _, errs := command(t, "predict", "--model", path, "--input", rows); status != 1 || !strings.Contains(errs, `"most" has 1 rows for 3 rows`) {
		t.Errorf("an output of the whole batch: %d %s", status, errs)
	}
}

// TestPredictTargets: an output that has its rows behind its targets, as classifiers of several
// targets do, is written a row each, also where there are as many rows as targets.
func TestPredictTargets(t *testing.T) {
	dir := t.TempDir()
	first, err := engine.Of([]int64{0}, 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "targets.onnx")
	writeModel(t, path, []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 2}}}, map[string]*engine.Tensor{"first": first},
		engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{2, -1, 2}},
		&graph.Node{Op: "Unsqueeze", Inputs: []string{"x", "first"}, Outputs: []string{"one"}}, &graph.Node{Op: "Neg", Inputs: []string{"one"}, Outputs: []string{"other"}},
		&graph.Node{Op: "Concat", Inputs: []string{"one", "other"}, Outputs: []string{"y"}, Attrs: graph.Attrs{"axis": {Kind: graph.AttrInt, Int: 0}}})
	lines := []string{"1,2,-1,-2\n", "3,4,-3,-4\n", "5,6,-5,-6\n"}
	for n := 1; n <= 3; n++ {
		rows := filepath.Join(dir, "rows.csv")
		if err := os.WriteFile(rows, []byte("a,b\n"+strings.Join([]string{"1,2\n", "3,4\n", "5,6\n"}[:n], "")), 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, errs := command(t, "predict", "--model", path, "--input", rows)
		if want := "y[0],y[1],y[2],y[3]\n" + strings.Join(lines[:n], ""); status != 0 || out != want {
			t.Errorf("%d rows: %d %q %s, want %q", n, status, out, errs, want)
		}
	}
}

// TestInspectBatch holds what a run takes against what is known of it.
func TestInspectBatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dense.onnx")
	w, err := engine.New(engine.Float32, 10, 20)
	if err != nil {
		t.Fatal(err)
	}
	writeModel(t, path, []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, -1, 10}}}, map[string]*engine.Tensor{"w": w},
		engine.Spec{Name: "y", DType: engine.Float32, Shape: []int{-1, -1, 20}},
		&graph.Node{Op: "MatMul", Inputs: []string{"x", "w"}, Outputs: []string{"p"}}, &graph.Node{Op: "Relu", Inputs: []string{"p"}, Outputs: []string{"y"}})
	status, out, errs := command(t, "model", "inspect", path, "--batch", "4", "--shape", "x=4,3,10", "--format", "json")
	var got struct{ Run runCost }
	if err := json.Unmarshal([]byte(out), &got); status != 0 || err != nil {
		t.Fatalf("%d %v %s", status, err, errs)
	}
	r := got.Run
	if r.Operations != 4*3*20*(2*10+1) || r.Weights != 4*10*20 || r.Peak < 4*4*3*20 || fmt.Sprint(r.Outputs[0].Shape) != "[4 3 20]" || r.Batch != 4 {
		t.Errorf("%+v", r)
	}
	if status, out, errs = command(t, "model", "inspect", path, "--shape", "x=4,3,10"); status != 0 || !strings.Contains(out, "5.04 kFLOP") {
		t.Errorf("%d %s %s", status, out, errs)
	}
	if status, _, errs = command(t, "model", "inspect", path, "--batch", "4"); status != 2 || !strings.Contains(errs, "--shape 'x=4,128,10'") {
		t.Errorf("%d %s", status, errs)
	}
	if status, out, errs = command(t, "model", "inspect", gbm+"model.ubj", "--batch", "8"); status != 0 || !strings.Contains(out, "comparisons") || !strings.Contains(out, "8 rows") || strings.Count(out, "KiB of trees, ") != 1 || !strings.Contains(out, "memory") || strings.Contains(out, "FLOP") {
		t.Errorf("%d %s %s", status, out, errs)
	}
}
