package compress

import (
	"archive/zip"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/modelfile"
	"github.com/pellucid/pellucid/engine/onnx"
)

// zoo returns the ONNX models of the readers' own test data, by name.
func zoo(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range []string{"sklearn.zip", "torch.zip"} {
		z, err := zip.OpenReader("../onnx/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			if path.Base(f.Name) != "model.onnx" {
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
			out[path.Dir(f.Name)] = b
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 100 {
		t.Fatalf("%d models in the archives", len(out))
	}
	return out
}

const mlp = "../../cmd/pellucid/demo/data/models/flights_mlp/1/model.onnx"

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t testing.TB, name string, data []byte) engine.Model {
	t.Helper()
	m, err := modelfile.Read(name, data, "")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// made returns rows of made-up numbers that a model takes, or nil where it takes
// something else than floats of a known shape.
func made(t testing.TB, info *engine.Info, n int) engine.Values {
	t.Helper()
	var out engine.Values
	state := uint64(12345)
	next := func() float64 {
		state = state*6364136223846793005 + 1442695040888963407
		return float64(int64(state>>11))/(1<<52)*2 - 2
	}
	for _, s := range info.Inputs {
		shape := append([]int{}, s.Shape...)
		if len(shape) == 0 || shape[0] != -1 {
			return nil
		}
		shape[0] = n
		for _, d := range shape {
			if d < 0 {
				return nil
			}
		}
		count, err := engine.Elements(shape)
		if err != nil {
			t.Fatal(err)
		}
		if count > 1<<20 {
			return nil
		}
		v := make([]float64, count)
		for i := range v {
			v[i] = next()
		}
		wide, err := engine.Of(v, shape...)
		if err != nil {
			t.Fatal(err)
		}
		if s.DType == engine.Float32 {
			if wide, err = floatsLike(must(engine.New(engine.Float32, 1)), v, shape); err != nil {
				t.Fatal(err)
			}
		} else if s.DType != engine.Float64 {
			return nil
		}
		out = append(out, engine.Named{Name: s.Name, Tensor: wide})
	}
	return out
}

func must(t *engine.Tensor, err error) *engine.Tensor {
	if err != nil {
		panic(err)
	}
	return t
}

func run(t testing.TB, m engine.Model, rows engine.Values) engine.Values {
	t.Helper()
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run(context.Background(), rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// furthest is the largest difference of float outputs, by the size of the numbers.
func furthest(t testing.TB, a, b engine.Values) float64 {
	t.Helper()
	worst := 0.0
	for i := range a {
		x, ok := a[i].Tensor.Float64s()
		y, _ := b[i].Tensor.Float64s()
		if !ok || !a[i].Tensor.DType().IsFloat() {
			continue
		}
		if len(x) != len(y) {
			t.Fatalf("%q has %d numbers, had %d", a[i].Name, len(y), len(x))
		}
		for j := range x {
			if d := math.Abs(x[j]-y[j]) / max(1, math.Abs(x[j])); !(d <= worst) {
				worst = d
			}
		}
	}
	return worst
}

func TestParse(t *testing.T) {
	steps, err := Parse("fp16, structured:0.25")
	if err != nil || len(steps) != 2 || steps[0].String() != "structured:0.25" || steps[1].String() != "fp16" {
		t.Errorf("steps %v (%v)", steps, err)
	}
	steps, err = Parse("leaves:0.001,least:0.5,trees:100")
	if err != nil || len(steps) != 3 || steps[0].String() != "trees:100" || steps[2].String() != "leaves:0.001" {
		t.Errorf("steps %v (%v)", steps, err)
	}
	steps, err = Parse("fp16,int8:full")
	if err != nil || len(steps) != 2 || steps[0].Kind != Full || steps[0].String() != "int8:full" {
		t.Errorf("steps %v (%v)", steps, err)
	}
	for _, bad := range []string{"int8:half", "int8:", "trees:0", "trees:1.5", "trees:-1", "trees:1e30", "leaves:0", "leaves:Inf", "least:1", "", "fp8", "fp16:2", "prune", "prune:x", "prune:0", "prune:1", "prune:NaN", "fp16,fp16", "structured:-1", "prune:0.5,"} {
		if steps, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %v", bad, steps)
		}
	}
}

// TestHalf holds the rounding to half precision against every half there is.
func TestHalf(t *testing.T) {
	for b := range 1 << 16 {
		f := float64(engine.HalfToFloat32(engine.Float16, uint16(b)))
		got := half(f)
		if f != f {
			if got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
				t.Fatalf("NaN %#x became %#x", b, got)
			}
			continue
		}
		if got != uint16(b) {
			t.Fatalf("%#x (%v) became %#x", b, f, got)
		}
		if b&0x7fff >= 0x7bff || b&0x8000 != 0 {
			continue
		}
		// Between neighbours: to the nearest, from the middle to the even one.
		g := float64(engine.HalfToFloat32(engine.Float16, uint16(b+1)))
		even := uint16(b + b&1)
		if m := half((f + g) / 2); m != even {
			t.Fatalf("the middle above %#x became %#x, want %#x", b, m, even)
		}
		if l, h := half(f+(g-f)*0.499), half(f+(g-f)*0.501); l != uint16(b) || h != uint16(b+1) {
			t.Fatalf("near the middle above %#x: %#x and %#x", b, l, h)
		}
	}
}

// TestFP16 rounds the weights of every network of the zoo: the outputs stay near, and
// are those of the model whose weights were rounded and kept as they are.
func TestFP16(t *testing.T) {
	smaller := 0
	for name, data := range zoo(t) {
		r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Kind: FP16}})
		if errors.Is(err, ErrRefused) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(r.Data) >= len(data) {
			t.Errorf("%s: %d bytes became %d", name, len(data), len(r.Data))
		}
		before, err := modelfile.Read("m.onnx", data, "")
		if err != nil {
			continue // what the engine does not run is compressed all the same
		}
		rows := made(t, before.Info(), 7)
		if rows == nil {
			continue
		}
		smaller++
		got := run(t, load(t, "m.onnx", r.Data), rows)
		if d := furthest(t, run(t, load(t, "m.onnx", rounded(t, data)), rows), got); d > 1e-12 {
			t.Errorf("%s: outputs differ by %g from those of rounded weights", name, d)
		}
		if d := furthest(t, run(t, before, rows), got); d > 0.05 {
			t.Errorf("%s: outputs moved by %g", name, d)
		}
	}
	if smaller < 20 {
		t.Errorf("%d models became smaller", smaller)
	}
}

// rounded replaces float weights by what half precision makes of them, those that
// fp16 leaves alone too.
func rounded(t *testing.T, data []byte) []byte {
	t.Helper()
	f, err := onnx.Edit(data, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range f.Weights() {
		if !w.DType.IsFloat() || w.Len*(w.DType.Size()-2) <= derivedCost+2*len(w.Name) {
			continue
		}
		v, err := w.Value()
		if err != nil {
			t.Fatal(err)
		}
		bits, _, fits := halves(v)
		if !fits {
			continue
		}
		wide := make([]float64, len(bits))
		for i, b := range bits {
			wide[i] = float64(engine.HalfToFloat32(engine.Float16, b))
		}
		o, err := floatsLike(v, wide, w.Shape)
		if err == nil {
			err = f.Replace(w, o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestINT8 quantises the weights of every network of the zoo: each is off by half a
// step of its channel at most, and the outputs are those of a model with such weights.
func TestINT8(t *testing.T) {
	smaller := 0
	for name, data := range zoo(t) {
		r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Kind: INT8}})
		if errors.Is(err, ErrRefused) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(r.Data) >= len(data) {
			t.Errorf("%s: %d bytes became %d", name, len(data), len(r.Data))
		}
		before, after := edit(t, data), edit(t, r.Data)
		axes := channels([]*onnx.File{before})
		for _, c := range r.Changes {
			w := before.Weight(c.Part)
			if err := before.Replace(w, restored(t, name, w, after, axes[w])); err != nil {
				t.Fatal(err)
			}
		}
		plain, err := before.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		m := load(t, "m.onnx", r.Data)
		rows := made(t, m.Info(), 7)
		if rows == nil {
			continue
		}
		smaller++
		if d := furthest(t, run(t, load(t, "m.onnx", plain), rows), run(t, m, rows)); d > 1e-6 {
			t.Errorf("%s: outputs differ by %g from those of the same weights", name, d)
		}
	}
	if smaller < 15 {
		t.Errorf("%d models became smaller", smaller)
	}
}

// restored multiplies a weight's integers by their scales.
func restored(t *testing.T, name string, w *onnx.Weight, after *onnx.File, axis int) *engine.Tensor {
	t.Helper()
	x, q, s := floats(t, w), floats(t, after.Weight(w.Name+"/int8")), floats(t, after.Weight(w.Name+"/scale"))
	inner := 1
	for _, d := range w.Shape[axis+1:] {
		inner *= d
	}
	out := make([]float64, len(x))
	for i := range x {
		scale := s[i/inner%len(s)]
		out[i] = q[i] * scale
		if math.Abs(out[i]-x[i]) > scale*0.5000001 {
			t.Errorf("%s: %s[%d] is %v, was %v, a step is %v", name, w.Name, i, out[i], x[i], scale)
		}
	}
	o, err := floatsLike(must(engine.New(engine.Float32, 1)), out, w.Shape)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestQuantise(t *testing.T) {
	v := []float32{1, -127, 0, 0, 0.5, 254}
	q, s, ok := quantise(v, []int{3, 2}, 0)
	if !ok || s[0] != 1 || s[1] != 1 || s[2] != 2 || q[1] != -127 || q[4] != 0 || q[5] != 127 {
		t.Errorf("by row: %v %v", q, s)
	}
	if q, s, ok = quantise(v, []int{3, 2}, 1); !ok || len(s) != 2 || q[5] != 127 || q[1] != -64 {
		t.Errorf("by column: %v %v", q, s)
	}
	if q, s, ok = quantise(v, []int{3, 2}, -1); !ok || len(s) != 1 || q[5] != 127 || q[0] != 0 {
		t.Errorf("as one: %v %v", q, s)
	}
	if _, _, ok = quantise([]float32{float32(math.NaN()), 1}, []int{1, 2}, 0); ok {
		t.Error("what is no number was rounded")
	}
	if q, _, ok = quantise([]float32{1e-45, 0}, []int{1, 2}, 0); !ok || q[0] != 0 {
		t.Errorf("what has no step is %v", q)
	}
}

// TestFP16LeavesLargeNumbers keeps a weight that half precision cannot hold.
func TestFP16LeavesLargeNumbers(t *testing.T) {
	f, err := onnx.Edit(file(t, mlp), "")
	if err != nil {
		t.Fatal(err)
	}
	w := f.Weight("coefficient")
	v, err := w.Value()
	if err != nil {
		t.Fatal(err)
	}
	engine.Data[float32](v)[7] = 70000
	if err := f.Replace(w, v); err != nil {
		t.Fatal(err)
	}
	data, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Kind: FP16}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Changes) != 1 || r.Changes[0].Part != "coefficient1" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "65504") {
		t.Errorf("changes %v, notes %v", r.Changes, r.Notes)
	}
}

// TestPrune counts the zeros of pruned models and looks that nothing else changed.
func TestPrune(t *testing.T) {
	pruned := 0
	for name, data := range zoo(t) {
		r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Prune, 0.5}})
		if errors.Is(err, ErrRefused) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pruned++
		a, b := edit(t, data), edit(t, r.Data)
		changed := map[string]bool{}
		for _, c := range r.Changes {
			changed[c.Part] = true
		}
		for _, w := range a.Weights() {
			if w.DType != engine.Float32 && w.DType != engine.Float64 {
				continue
			}
			x, y := floats(t, w), floats(t, b.Weight(w.Name))
			zeros, largestGone, smallestKept := 0, 0.0, math.Inf(1)
			for i := range x {
				switch {
				case y[i] == 0:
					zeros++
					largestGone = max(largestGone, math.Abs(x[i]))
				case x[i] != y[i]:
					t.Fatalf("%s: %s[%d] was %v and is %v", name, w.Name, i, x[i], y[i])
				default:
					smallestKept = min(smallestKept, math.Abs(x[i]))
				}
			}
			if changed[w.Name] && (zeros < int(math.Round(float64(len(x))*0.5)) || largestGone > smallestKept) {
				t.Errorf("%s: %s has %d zeros of %d, up to %v, and keeps %v", name, w.Name, zeros, len(x), largestGone, smallestKept)
			}
		}
	}
	if pruned < 20 {
		t.Errorf("%d models were pruned", pruned)
	}
}

func edit(t testing.TB, data []byte) *onnx.File {
	t.Helper()
	f, err := onnx.Edit(data, "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func floats(t testing.TB, w *onnx.Weight) []float64 {
	t.Helper()
	v, err := w.Value()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := v.Float64s()
	return out
}

// TestStructured drops units of every model of the zoo that has hidden layers. Units
// that give nothing are dropped without any change.
func TestStructured(t *testing.T) {
	cut := 0
	for name, data := range zoo(t) {
		r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Structured, 0.3}})
		if errors.Is(err, ErrRefused) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cut++
		if len(r.Data) >= len(data) {
			t.Errorf("%s: %d bytes became %d", name, len(data), len(r.Data))
		}
		m := load(t, "m.onnx", r.Data)
		rows := made(t, m.Info(), 5)
		if rows == nil {
			continue
		}
		run(t, m, rows)
		exact(t, name, data, rows)
	}
	if cut < 8 {
		t.Errorf("units of %d models were dropped", cut)
	}
}

// exact silences a third of each hidden layer's units, by zeroing what takes them in,
// and looks that dropping that share finds those and changes nothing.
func exact(t *testing.T, name string, data []byte, rows engine.Values) {
	t.Helper()
	f := edit(t, data)
	s := newStructurer(f)
	var units []int
	for _, n := range f.Nodes() {
		l, _ := s.layer(n)
		if l == nil {
			continue
		}
		units = append(units, l.units)
		for _, r := range l.reads {
			v, err := r.w.Value()
			if err != nil {
				t.Fatal(err)
			}
			x, _ := v.Float64s()
			inner := 1
			if r.axis == 0 {
				inner = r.w.Shape[1]
			}
			for i := range x {
				if i/inner%l.units%3 == 1 {
					x[i] = 0
				}
			}
			o, err := floatsLike(v, x, r.w.Shape)
			if err == nil {
				err = f.Replace(r.w, o)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	silenced, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if len(units) == 0 {
		return // channels or heads alone, which TestSilentChannels is about
	}
	share := 0.0
	for _, u := range units {
		share = max(share, 1/float64(u)+1e-9) // at least one unit of the smallest
		if float64((u+1)/3) < share*float64(u) {
			return
		}
	}
	for _, in := range []Input{{Name: "m.onnx", Data: silenced}, {Name: "m.onnx", Data: silenced, Rows: rows}} {
		r, err := Apply(t.Context(), in, []Step{{Structured, share}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if d := furthest(t, run(t, load(t, "m.onnx", silenced), rows), run(t, load(t, "m.onnx", r.Data), rows)); d > 1e-5 {
			t.Errorf("%s (rows %t): dropping silent units moved outputs by %g", name, in.Rows != nil, d)
		}
	}
}

// TestRefusals tells why a model cannot be compressed.
func TestRefusals(t *testing.T) {
	models := zoo(t)
	for _, x := range []struct {
		name string
		data []byte
		step Step
		why  string
	}{
		{"m.ubj", []byte("{"), Step{Kind: FP16}, "trees"},
		{"m.txt", []byte("tree"), Step{Prune, 0.5}, "trees"},
		{"m.onnx", models["forest_binary"], Step{Kind: FP16}, "no float weights"},
		{"m.onnx", models["forest_binary"], Step{Prune, 0.5}, "no MatMul"},
		{"m.onnx", models["forest_binary"], Step{Structured, 0.5}, "hidden layer"},
		{"m.ubj", []byte("{"), Step{Kind: Full}, "trees"},
		{"m.onnx", models["forest_binary"], Step{Kind: Full}, "no MatMul, Gemm or Conv"},
		{"m.onnx", file(t, mlp), Step{Kind: Full}, "none were given"},
		{"m.onnx", models["linear"], Step{Structured, 0.5}, "hidden layer"},
	} {
		_, err := Apply(t.Context(), Input{Name: x.name, Data: x.data}, []Step{x.step})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), x.why) {
			t.Errorf("%s of %s: %v, want %q", x.step, x.name, err, x.why)
		}
	}
	if _, err := Apply(t.Context(), Input{Name: "m.onnx", Data: []byte("no model")}, []Step{{Kind: FP16}}); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("of no model: %v", err)
	}
}

// FuzzONNX compresses hostile files in every way.
func FuzzONNX(f *testing.F) {
	f.Add(file(f, "testdata/inner.onnx"))
	for name, data := range zoo(f) {
		if strings.HasPrefix(name, "mlp") || strings.HasPrefix(name, "tree") {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := modelfile.Read("m.onnx", data, "")
		if err != nil {
			return
		}
		rows := made(t, m.Info(), 2)
		for _, s := range []Step{{Kind: FP16}, {Kind: INT8}, {Kind: Full}, {Prune, 0.5}, {Structured, 0.5}} {
			in := Input{Name: "m.onnx", Data: data}
			if s.Kind == Full {
				in.Rows, in.Ranges = rows, Entropy
			}
			r, err := Apply(context.Background(), in, []Step{s})
			if err != nil {
				continue
			}
			if _, err := onnx.Edit(r.Data, ""); err != nil {
				t.Fatalf("%s: what was written cannot be read: %v", s, err)
			}
		}
	})
}
