package train

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
	"github.com/pellucid/pellucid/engine/table"
)

var update = flag.Bool("update", false, "write the models of testdata anew (then run make_expected.py)")

// cases are fits of every form of file that is written.
var cases = []struct {
	name     string
	columns  []string
	label    string
	weighted bool
	cfg      Config
	// tune is the label that the network is fitted anew to, and its layers.
	tune   string
	layers int
}{
	{name: "linear_gaps", columns: []string{"age", "gaps", "visits"}, label: "value", cfg: Config{L2: 1e-4, Hold: 0.2}},
	{name: "logistic_mixed", columns: []string{"city", "age", "plan", "gaps"}, label: "label", weighted: true, cfg: Config{L2: 1e-3}},
	{name: "poisson_text", columns: []string{"city"}, label: "count", cfg: Config{Loss: Poisson}},
	{name: "mlp_whole", columns: numbers, label: "group", cfg: Config{Hidden: []int{12, 6}, Activation: "gelu", Epochs: 30, Batch: 32, Hold: 0.25, Seed: 5}},
	{name: "mlp_mixed", columns: []string{"visits", "plan", "score"}, label: "value", cfg: Config{Hidden: []int{8}, Activation: "tanh", Loss: Huber, Epochs: 30, Batch: 32}},
	{name: "mlp_head", columns: []string{"age", "city", "score"}, label: "label", cfg: Config{Hidden: []int{8}, Epochs: 20, Batch: 32}, tune: "label", layers: 1},
	{name: "mlp_all", columns: numbers, label: "count", cfg: Config{Hidden: []int{8}, Epochs: 20, Batch: 32}, tune: "value", layers: -1},
}

func inputs(t *testing.T, info *engine.Info, rows *table.Table) engine.Values {
	t.Helper()
	in, err := rows.Inputs(info)
	if err == nil {
		in, _, err = engine.Bind(info, in)
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func read(t *testing.T, data []byte) engine.Model {
	t.Helper()
	m, err := onnx.Read(data, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func answers(t *testing.T, data []byte, rows *table.Table) engine.Values {
	t.Helper()
	m := read(t, data)
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(t.Context(), inputs(t, m.Info(), rows), nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWrittenModels holds the files of testdata, which onnxruntime has answered for,
// against our reader, and what is fitted today against them.
func TestWrittenModels(t *testing.T) {
	rows := readRows(t)
	want := readExpected(t).Written
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, err := Fit(t.Context(), columnsOf(t, rows, c.columns...), labelsOf(t, rows, c.label, c.weighted), c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if c.tune != "" {
				n, err := Open(f.Model, "")
				if err != nil {
					t.Fatal(err)
				}
				// Numbers of another label: what a drifted one looks like.
				if f, err = n.Tune(t.Context(), inputs(t, n.Info, rows), labelsOf(t, rows, c.tune, true), Config{Layers: c.layers, Epochs: 50, Batch: 32, L2: 1e-3}); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join("testdata", c.name+".onnx")
			if *update {
				if err := os.WriteFile(path, f.Model, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(want[c.name]) == 0 {
				t.Fatal("onnxruntime has not answered for it")
			}
			for _, data := range [][]byte{file, f.Model} {
				for _, out := range answers(t, data, rows) {
					compare(t, out, want[c.name][out.Name])
				}
			}
		})
	}
}

func compare(t *testing.T, got engine.Named, want []json.RawMessage) {
	t.Helper()
	if len(want) != got.Tensor.Len() {
		t.Fatalf("%s: %d values, onnxruntime has %d", got.Name, got.Tensor.Len(), len(want))
	}
	if texts := engine.Data[string](got.Tensor); texts != nil {
		for i, s := range texts {
			var w string
			if err := json.Unmarshal(want[i], &w); err != nil || s != w {
				t.Fatalf("%s %d: %q, onnxruntime has %s", got.Name, i, s, want[i])
			}
		}
		return
	}
	v, _ := got.Tensor.Float64s()
	for i, x := range v {
		var w float64
		if err := json.Unmarshal(want[i], &w); err != nil || !near(x, w, 1e-5) {
			t.Fatalf("%s %d: %v, onnxruntime has %s", got.Name, i, x, want[i])
		}
	}
}

// TestWhatTheFileSays looks at what serving reads of the files.
func TestWhatTheFileSays(t *testing.T) {
	for name, want := range map[string]struct {
		task     engine.Task
		classes  int
		features string
		missing  bool
	}{
		"linear_gaps":    {engine.TaskRegression, 0, "age gaps visits", true},
		"logistic_mixed": {engine.TaskBinary, 2, "city* age plan* gaps", true},
		"poisson_text":   {engine.TaskRegression, 0, "city*", false},
		"mlp_whole":      {engine.TaskMulticlass, 3, "age income visits score", false},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			t.Fatal(err)
		}
		info := read(t, data).Info()
		var features []byte
		for _, f := range info.Features {
			features = append(append(features, ' '), f.Name...)
			if f.Categorical {
				features = append(features, '*')
			}
		}
		if info.Task != want.task || len(info.Classes) != want.classes || string(bytes.TrimSpace(features)) != want.features || info.Missing != want.missing {
			t.Errorf("%s: %+v, features %s", name, info, features)
		}
	}
}

// TestSameBits fits with one, two and three threads.
func TestSameBits(t *testing.T) {
	rows := readRows(t)
	// Each row four times: two parts could be added in any order, these are five.
	var many []int
	for i := range 4 * rows.Rows {
		many = append(many, i%rows.Rows)
	}
	columns := columnsOf(t, rows, "age", "gaps", "city")
	for i := range columns {
		columns[i].Numbers, columns[i].Texts = repeat(columns[i].Numbers, many), repeat(columns[i].Texts, many)
	}
	labels := labelsOf(t, rows, "label", true)
	labels.Class, labels.Weights = repeat(labels.Class, many), repeat(labels.Weights, many)
	for _, c := range []Config{
		{Hidden: []int{16}, Epochs: 8, Batch: 600, Hold: 0.1, Seed: 3},
		{L2: 1e-3},
		{Hidden: []int{8}, Epochs: 4, Batch: 400, Optimiser: SGD, Momentum: 0.9, Seed: 4},
	} {
		var files [][]byte
		var tuned [][]byte
		for _, threads := range []int{1, 2, 3, 1} {
			c.Threads = threads
			f, err := Fit(t.Context(), columns, labels, c)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f.Model)
			n, err := Open(f.Model, "")
			if err != nil {
				t.Fatal(err)
			}
			in, err := take(inputs(t, n.Info, rows), many)
			if err != nil {
				t.Fatal(err)
			}
			f, err = n.Tune(t.Context(), in, labels, Config{Layers: -1, Epochs: 3, Batch: 512, Threads: threads, Hold: 0.2, L2: 0.1})
			if err != nil {
				t.Fatal(err)
			}
			tuned = append(tuned, f.Model)
		}
		for i := range files {
			if !bytes.Equal(files[i], files[0]) || !bytes.Equal(tuned[i], tuned[0]) {
				t.Errorf("%+v: the bits of fit %d are others", c, i)
			}
		}
		c.Seed++
		f, err := Fit(t.Context(), columns, labels, c)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Hidden) > 0 && bytes.Equal(f.Model, files[0]) {
			t.Error("another seed gives the same bits")
		}
	}
}

func repeat[T any](v []T, rows []int) []T {
	var out []T
	for _, i := range rows {
		if v != nil {
			out = append(out, v[i])
		}
	}
	return out
}
