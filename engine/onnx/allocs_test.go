//go:build !race

package onnx

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
	"github.com/pellucid/pellucid/engine/graph"
)

// TestCommittedNetworksAllocateResultsOnly: a session of each small network of the
// repository makes no object but its results from the second run on, on one thread and on two.
func TestCommittedNetworksAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties the kernels' pools
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for _, path := range []string{
		"../../cmd/pellucid/demo/data/models/flights_mlp/1/model.onnx", "../compress/testdata/full.onnx", "../../explain/testdata/tokens.onnx",
		"../train/testdata/mlp_whole.onnx", "../train/testdata/mlp_all.onnx", "../train/testdata/mlp_head.onnx", "../train/testdata/mlp_mixed.onnx",
		"../../explain/testdata/mixed.onnx", "../../explain/testdata/pipeline_onehot.onnx", "../../explain/testdata/pipeline_forest.onnx", "../../explain/testdata/pipeline_ordinal.onnx", "../../explain/testdata/pipeline_boosting.onnx",
	} {
		data, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Read(data, "")
		if err != nil {
			t.Fatal(path, err)
		}
		for _, rows := range []int{1, 7} {
			one, most := objects(t, m, rows)
			if one > most {
				t.Errorf("%s over %d rows: %v objects a run, its results are %v", path, rows, one, most)
			}
		}
		rows := 1000
		if strings.HasSuffix(path, "tokens.onnx") {
			rows = 16 // its places
		}
		one, _ := objects(t, m, rows) // for texts in another shape a header more than results
		if two := enginetest.SharedObjects(one, running(t, m, 2, rows, new(engine.Values))); two > one {
			t.Errorf("%s over %d rows: %v objects a run on two threads, %v on one", path, rows, two, one)
		}
	}
}

// allocating are the operators whose cases make more objects than their results, and why.
var allocating = map[string]string{
	"Identity": "lists", "If": "lists", "Loop": "lists", "OptionalGetElement": "lists", "OptionalHasElement": "lists",
	"SequenceInsert": "lists", "SequenceMap": "lists", "SplitToSequence": "lists",
	"StringConcat": "texts", "StringNormalizer": "texts",
	"ConvInteger": "weights that are no constants are laid out", "MatMulInteger": "weights that are no constants are laid out",
	"QLinearConv": "weights that are no constants are laid out", "QLinearMatMul": "weights that are no constants are laid out",
}

// TestNodeCasesAllocateResultsOnly: a session over each case of ONNX's suite makes no object
// but its results once its memory has settled, after two or three runs, but for the operators
// that are listed, none of
// which is listed for nothing.
func TestNodeCasesAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	cases := nodeArchive(t)
	found := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		m, in, err := nodeInputs(cases[name])
		if errors.As(err, new(*engine.UnsupportedError)) {
			continue
		}
		if err != nil {
			t.Fatal(name, err)
		}
		op := operatorOf(t, name, cases[name]["model.onnx"])
		if op == "(expanded)" && (strings.Contains(name, "sequence_map") || strings.Contains(name, "affine_grid")) {
			continue // lists again, and a branch that gives a constant
		}
		switch more := moreThanResults(t, m, in); {
		case more > 0 && allocating[op] == "":
			t.Errorf("%s (%s): %v objects a run more than its results", name, op, more)
		case more > 0:
			found[op] = true
		}
	}
	for op := range allocating {
		if !found[op] {
			t.Errorf("%s is listed, and allocates nothing", op)
		}
	}
}

// moreThanResults is how many objects a run makes beside its results, but for the first ones.
func moreThanResults(t *testing.T, m engine.Model, in engine.Values) float64 {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	var out engine.Values
	run := func() {
		if out, err = s.Run(t.Context(), in, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		run() // and its memory has settled
	}
	return testing.AllocsPerRun(5, run) - resultsOf(t, out)
}

// resultsOf is how many objects a list of copies is made of.
func resultsOf(t *testing.T, out engine.Values) float64 {
	t.Helper()
	return testing.AllocsPerRun(5, func() {
		results := make(engine.Values, len(out))
		var err error
		for i := range out {
			if results[i].Tensor, err = graph.Clone(out[i].Tensor); err != nil {
				t.Fatal(err)
			}
		}
		listed = results
	})
}

// running is a run over so many rows, of which it does the first.
func running(t *testing.T, m engine.Model, threads, rows int, out *engine.Values) (run func()) {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	in := noiseFor(t, rand.New(rand.NewPCG(1, 2)), m.Info(), rows)
	run = func() {
		if *out, err = s.Run(t.Context(), in, nil); err != nil {
			t.Fatal(err)
		}
	}
	run()
	return run
}

// objects is how many a run over so many rows makes on one thread, but for the first, and how
// many its results are.
func objects(t *testing.T, m engine.Model, rows int) (count, most float64) {
	t.Helper()
	var out engine.Values
	count = testing.AllocsPerRun(10, running(t, m, 1, rows, &out))
	return count, resultsOf(t, out)
}

// listed keeps a list from the stack.
var listed engine.Values

// noiseFor makes inputs of so many rows where the model leaves that open.
func noiseFor(t *testing.T, r *rand.Rand, info *engine.Info, rows int) engine.Values {
	t.Helper()
	var in engine.Values
	for _, spec := range info.Inputs {
		shape := []int{}
		for _, d := range spec.Shape {
			if d < 0 {
				d = rows
			}
			shape = append(shape, d)
		}
		v, err := engine.New(spec.DType, shape...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range engine.Data[float32](v) {
			engine.Data[float32](v)[i] = float32(r.NormFloat64())
		}
		in = append(in, engine.Named{Name: spec.Name, Tensor: v})
	}
	return in
}
