package compress

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// layered writes a network whose layers, each made of the value before it, are those of
// build.
func layered(t *testing.T, in engine.Spec, layers int, build func(d *drawn, x string, layer int) string) []byte {
	t.Helper()
	d := &drawn{t: t, r: rand.New(rand.NewPCG(3, 9)), g: &graph.Graph{Inputs: []engine.Spec{in}, Constants: map[string]*engine.Tensor{}}}
	x := in.Name
	for i := range layers {
		x = build(d, x, i)
	}
	d.g.Outputs = []string{x}
	shape := make([]int, len(in.Shape))
	for i := range shape {
		shape[i] = -1
	}
	data, err := onnx.Encode(&onnx.Made{Graph: d.g, Outputs: []engine.Spec{{Name: x, DType: engine.Float32, Shape: shape}}, Producer: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// kinds are networks of every kind of layer whose weights are compressed.
func kinds(t *testing.T) map[string][]byte {
	image := func(channels int) engine.Spec {
		return engine.Spec{Name: "x", DType: engine.Float32, Shape: []int{-1, channels, 8, 8}}
	}
	rows := func(n int) engine.Spec {
		return engine.Spec{Name: "x", DType: engine.Float32, Shape: []int{-1, n}}
	}
	conv := func(groups, out, in, side int) func(d *drawn, x string, _ int) string {
		return func(d *drawn, x string, _ int) string {
			bias := d.weight(0, 1, -1, out)
			pad := int64(side / 2)
			return d.op("Relu", nil, d.op("Conv", graph.Attrs{"group": number(groups), "pads": list(pad, pad, pad, pad)}, x, d.weight(0, 1, -1, out, in, side, side), bias))
		}
	}
	product := func(k, n int) func(d *drawn, x string, _ int) string {
		return func(d *drawn, x string, _ int) string {
			return d.op("Relu", nil, d.op("Add", nil, d.op("MatMul", nil, x, d.weight(1, 1, -1, k, n)), d.weight(0, 1, -1, n)))
		}
	}
	return map[string][]byte{
		"convolutions of 96 channels":           layered(t, image(96), 4, conv(1, 96, 96, 3)),
		"convolutions of 512 in 8 groups":       layered(t, image(512), 4, conv(8, 512, 64, 3)),
		"convolutions of 64 by one element":     layered(t, image(64), 4, conv(1, 64, 64, 1)),
		"convolutions of each channel":          layered(t, image(128), 4, conv(128, 128, 1, 5)),
		"products of 480 by 480":                layered(t, rows(480), 4, product(480, 480)),
		"products of 24 by 24":                  layered(t, rows(24), 4, product(24, 24)),
		"products of 900 by 900":                layered(t, rows(900), 2, product(900, 900)),
		"a product with no more behind it":      layered(t, rows(300), 2, func(d *drawn, x string, _ int) string { return d.op("MatMul", nil, x, d.weight(1, 1, -1, 300, 300)) }),
		"products of a Gemm":                    layered(t, rows(200), 3, gemmLayer(200, number(1))),
		"products of a Gemm by another's turns": layered(t, rows(200), 3, gemmLayer(200, number(0))),
		"transposed convolutions": layered(t, image(64), 2, func(d *drawn, x string, _ int) string {
			return d.op("ConvTranspose", graph.Attrs{"strides": list(2, 2)}, x, d.weight(1, 1, -1, 64, 64, 2, 2))
		}),
		"a table": layered(t, engine.Spec{Name: "x", DType: engine.Int64, Shape: []int{-1, 7}}, 1, func(d *drawn, x string, _ int) string {
			return d.op("Gather", nil, d.weight(1, 1, -1, 4000, 64), x)
		}),
	}
}

func gemmLayer(n int, trans graph.Attr) func(d *drawn, x string, _ int) string {
	return func(d *drawn, x string, _ int) string {
		return d.op("Gemm", graph.Attrs{"transB": trans}, x, d.weight(1, 1, -1, n, n), d.weight(0, 1, -1, n))
	}
}

// some are so many rows of a network's inputs.
func some(t *testing.T, info *engine.Info, n int) engine.Values {
	t.Helper()
	if in := made(t, info, n); in != nil {
		return in
	}
	var in engine.Values
	for _, s := range info.Inputs {
		x, err := engine.New(s.DType, append([]int{n}, s.Shape[1:]...)...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range engine.Data[int64](x) {
			engine.Data[int64](x)[i] = int64(100 * i)
		}
		in = append(in, engine.Named{Name: s.Name, Tensor: x})
	}
	return in
}

// heldBy is what a network says that it holds, after a run.
func heldBy(t *testing.T, name string, data []byte) int64 {
	t.Helper()
	m := load(t, name+".onnx", data)
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cost, err := s.(engine.Coster).Cost(context.Background(), some(t, m.Info(), 2))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return cost.Weights + cost.Laid
}

// TestCompressedHoldsNoMore: what reads the weights holds them once, in the file's form or
// in its own, and so no more than of the network that was compressed.
func TestCompressedHoldsNoMore(t *testing.T) {
	for name, data := range kinds(t) {
		before := heldBy(t, name, data)
		for _, how := range []string{"fp16", "int8"} {
			small := compressed(t, name, data, how)
			if small == nil {
				continue // there is nothing in it that this compresses
			}
			after := heldBy(t, name, small)
			t.Logf("%s, %s: %d of %d bytes", name, how, after, before)
			if after > before {
				t.Errorf("%s, %s: %d bytes, %d before", name, how, after, before)
			}
			if how == "int8" {
				continue // TestINT8 has what it computes
			}
			rows := some(t, load(t, name+".onnx", data).Info(), 3)
			if d := furthest(t, run(t, load(t, name+".onnx", rounded(t, data)), rows), run(t, load(t, name+".onnx", small), rows)); d > 1e-12 {
				t.Errorf("%s: outputs differ by %g from those of rounded weights", name, d)
			}
		}
	}
}

// compressed is a network with its weights in 8 or 16 bits, nil where none becomes smaller.
func compressed(t *testing.T, name string, data []byte, how string) []byte {
	t.Helper()
	steps, err := Parse(how)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Apply(context.Background(), Input{Name: name + ".onnx", Data: data}, steps)
	if err != nil {
		t.Logf("%s, %s: %v", name, how, err)
		return nil
	}
	return r.Data
}

// TestCompressedTakesNoMore holds the heap against the same: what is counted is what there
// is.
func TestCompressedTakesNoMore(t *testing.T) {
	for _, name := range []string{"convolutions of 96 channels", "products of 480 by 480"} {
		data := kinds(t)[name]
		before := heapOf(t, name, data)
		for _, how := range []string{"fp16", "int8"} {
			after := heapOf(t, name, compressed(t, name, data, how))
			t.Logf("%s, %s: %d of %d bytes", name, how, after, before)
			if after > before {
				t.Errorf("%s, %s: %d bytes in use, %d before", name, how, after, before)
			}
		}
	}
}

// heapOf is what a loaded network that has run leaves in use: of some, since threads that
// wait may hold what they last worked on.
func heapOf(t *testing.T, name string, data []byte) int64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	in := some(t, load(t, name+".onnx", data).Info(), 1)
	var models [16]engine.Model
	before := inUse()
	for i := range models {
		var err error
		if models[i], err = modelfile.Open(path); err != nil {
			t.Fatal(err)
		}
		run(t, models[i], in)
	}
	after := inUse()
	runtime.KeepAlive(&models)
	return (after - before) / int64(len(models))
}

func inUse() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
