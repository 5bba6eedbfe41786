package compress

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// drawn is a network that was drawn at random, layer by layer. Every width is a multiple
// of six and of every three channels, or heads, the second is silent: zero wherever it
// is made, and so behind everything that is drawn here.
type drawn struct {
	t    testing.TB
	r    *rand.Rand
	g    *graph.Graph
	made int
	// silent has the channels be zero; else nothing is.
	silent bool
}

// image is a value of channels and squares.
type image struct {
	name           string
	channels, side int
}

func (d *drawn) name() string {
	d.made++
	return fmt.Sprintf("v%d", d.made)
}

func (d *drawn) op(op string, attrs graph.Attrs, inputs ...string) string {
	out := d.name()
	d.g.Nodes = append(d.g.Nodes, &graph.Node{Op: op, Inputs: inputs, Outputs: []string{out}, Attrs: attrs})
	return out
}

func number(v int) graph.Attr    { return graph.Attr{Kind: graph.AttrInt, Int: int64(v)} }
func list(v ...int64) graph.Attr { return graph.Attr{Kind: graph.AttrInts, Ints: v} }

// weight draws a constant whose elements with a silent index along the axis are zero;
// each index stands for so many.
func (d *drawn) weight(axis, each int, lowest float64, shape ...int) string {
	n := 1
	for _, s := range shape {
		n *= s
	}
	inner := each
	for _, s := range shape[axis+1:] {
		inner *= s
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(lowest + d.r.Float64()*2)
		if d.silent && lowest < 0 && i/inner%3 == 1 {
			v[i] = 0
		}
	}
	return d.constant(v, shape...)
}

func (d *drawn) constant(v any, shape ...int) string {
	name := d.name()
	var t *engine.Tensor
	var err error
	switch v := v.(type) {
	case []float32:
		t, err = engine.Of(v, shape...)
	case []int64:
		t, err = engine.Of(v, shape...)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.g.Constants[name] = t
	return name
}

// conv draws a convolution, perhaps with a bias, a normalisation and an activation.
func (d *drawn) conv(x image, out, groups int) image {
	k := 1 + 2*d.r.IntN(2)
	p := int64(k / 2)
	in := []string{x.name, d.weight(0, 1, -1, out, x.channels/groups, k, k)}
	if d.r.IntN(2) == 0 {
		in = append(in, d.weight(0, 1, -1, out))
	}
	y := d.op("Conv", graph.Attrs{"group": number(groups), "pads": list(p, p, p, p)}, in...)
	if d.r.IntN(2) == 0 {
		y = d.op("BatchNormalization", nil, y, d.weight(0, 1, -1, out), d.weight(0, 1, -1, out), d.weight(0, 1, -1, out), d.weight(0, 1, 0.5, out))
	}
	if op := []string{"", "Relu", "Tanh", "HardSwish"}[d.r.IntN(4)]; op != "" {
		y = d.op(op, nil, y)
	}
	return image{y, out, x.side}
}

// layer draws the next layer of an image.
func (d *drawn) layer(x image, others []image) image {
	pairs := []int64{2, 2}
	switch d.r.IntN(9) {
	case 0:
		return d.conv(x, x.channels, x.channels) // depthwise
	case 1:
		return d.conv(x, 12, 2)
	case 2:
		for _, o := range others {
			if o.channels == x.channels && o.side == x.side {
				return image{d.op("Add", nil, o.name, x.name), x.channels, x.side}
			}
		}
	case 3:
		for _, o := range others {
			if o.side == x.side && o.channels+x.channels < 60 {
				return image{d.op("Concat", graph.Attrs{"axis": number(1)}, o.name, x.name), o.channels + x.channels, x.side}
			}
		}
	case 4:
		if x.side > 2 {
			return image{d.op("MaxPool", graph.Attrs{"kernel_shape": list(pairs...), "strides": list(pairs...)}, x.name), x.channels, x.side / 2}
		}
	case 5: // squeeze and excite
		y := d.op("GlobalAveragePool", nil, x.name)
		y = d.conv(image{y, x.channels, 1}, 6, 1).name
		y = d.conv(image{y, 6, 1}, x.channels, 1).name
		return image{d.op("Mul", nil, x.name, d.op("Sigmoid", nil, y)), x.channels, x.side}
	case 6:
		half := d.op("Split", graph.Attrs{"axis": number(1)}, x.name, d.constant([]int64{6, int64(x.channels) - 6}, 2))
		if x.channels == 6 {
			d.g.Nodes = d.g.Nodes[:len(d.g.Nodes)-1]
			break
		}
		rest := d.name()
		n := d.g.Nodes[len(d.g.Nodes)-1]
		n.Outputs = append(n.Outputs, rest)
		return image{d.op("Concat", graph.Attrs{"axis": number(1)}, rest, half), x.channels, x.side}
	}
	return d.conv(x, 6+6*d.r.IntN(3), 1)
}

// convolutions draws a network of images.
func (d *drawn) convolutions() {
	d.g.Inputs = []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 3, 8, 8}}}
	x := d.conv(image{"x", 3, 8}, 12, 1)
	others := []image{x}
	for range 3 + d.r.IntN(8) {
		x = d.layer(x, others)
		others = append(others, x)
		d.r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	}
	flat, width := "", x.channels
	switch d.r.IntN(3) {
	case 0:
		flat = d.op("Flatten", nil, d.op("GlobalAveragePool", nil, x.name))
	case 1:
		flat = d.op("Reshape", nil, d.op("ReduceMean", nil, x.name, d.constant([]int64{-1, -2}, 2)), d.constant([]int64{-1, int64(width)}, 2))
	default:
		width *= x.side * x.side
		flat = d.op("Flatten", nil, x.name)
	}
	d.end(d.op("Gemm", nil, flat, d.loud(width, 5), d.loud(5)))
}

// loud is a weight of which nothing is silent.
func (d *drawn) loud(shape ...int) string {
	silent := d.silent
	d.silent = false
	name := d.weight(0, 1, -1, shape...)
	d.silent = silent
	return name
}

func (d *drawn) end(name string) { d.g.Outputs = []string{name} }

// transformer draws layers of attention with what is around them.
func (d *drawn) transformer() {
	const heads, size, words = 6, 2, 5
	wide := heads * size
	d.g.Inputs = []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, words, wide}}}
	x := "x"
	dense := func(in, out, each int, from string) string {
		return d.op("Add", nil, d.op("MatMul", nil, from, d.weight(1, each, -1, in, out)), d.weight(0, each, -1, out))
	}
	for range 1 + d.r.IntN(2) {
		var q, k, v string
		if d.r.IntN(2) == 0 { // one product for all three
			all := d.op("Reshape", nil, dense(wide, 3*wide, size, x), d.constant([]int64{0, 0, 3, heads, size}, 5))
			all = d.op("Transpose", graph.Attrs{"perm": list(2, 0, 3, 1, 4)}, all)
			pick := func(i int64) string { return d.op("Gather", nil, all, d.constant([]int64{i})) }
			q, k, v = pick(0), d.op("Transpose", graph.Attrs{"perm": list(0, 1, 3, 2)}, pick(1)), pick(2)
		} else {
			part := func(perm ...int64) string {
				return d.op("Transpose", graph.Attrs{"perm": list(perm...)}, d.op("Reshape", nil, dense(wide, wide, size, x), d.constant([]int64{-1, words, heads, size}, 4)))
			}
			q, k, v = part(0, 2, 1, 3), part(0, 2, 3, 1), part(0, 2, 1, 3)
		}
		y := d.op("Softmax", graph.Attrs{"axis": number(-1)}, d.op("Add", nil, d.op("MatMul", nil, q, k), d.loud(words)))
		y = d.op("Reshape", nil, d.op("Transpose", graph.Attrs{"perm": list(0, 2, 1, 3)}, d.op("MatMul", nil, y, v)), d.constant([]int64{0, words, -1}, 3))
		x = d.op("Add", nil, x, d.op("MatMul", nil, y, d.loud(wide, wide)))
		x = d.op("LayerNormalization", nil, x, d.loud(wide), d.loud(wide))
		h := d.op("Relu", nil, dense(wide, 2*wide, 1, x))
		x = d.op("Add", nil, x, d.op("MatMul", nil, h, d.loud(2*wide, wide)))
	}
	d.end(x)
}

// draw writes a network.
func draw(t testing.TB, seed uint64, silent bool, build func(*drawn)) []byte {
	t.Helper()
	d := &drawn{t: t, r: rand.New(rand.NewPCG(seed, 1)), g: &graph.Graph{Constants: map[string]*engine.Tensor{}}, silent: silent}
	build(d)
	data, err := onnx.Encode(&onnx.Made{Graph: d.g, Outputs: []engine.Spec{{Name: d.g.Outputs[0], DType: engine.Float32, Shape: []int{-1, -1}}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var builds = map[string]func(*drawn){"convolutions": (*drawn).convolutions, "transformer": (*drawn).transformer}

// TestSilentChannels drops, of networks drawn at random, a third of all channels, heads
// and units: those that are zero are found, and without them the outputs are the same.
func TestSilentChannels(t *testing.T) {
	for kind, build := range builds {
		dropped := 0
		for seed := range uint64(80) {
			data := draw(t, seed, true, build)
			what := fmt.Sprintf("%s %d", kind, seed)
			rows := made(t, load(t, "m.onnx", data).Info(), 3)
			for _, in := range []Input{{Name: "m.onnx", Data: data}, {Name: "m.onnx", Data: data, Rows: rows}} {
				r, err := Apply(t.Context(), in, []Step{{Structured, 1.0 / 3}})
				if errors.Is(err, ErrRefused) {
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				dropped += len(r.Changes)
				if len(r.Data) >= len(data) {
					t.Errorf("%s: %d bytes became %d", what, len(data), len(r.Data))
				}
				if kind == "convolutions" && in.Rows != nil {
					continue // a channel that is the same everywhere matters as little as one of zeros
				}
				if d := furthest(t, run(t, load(t, "m.onnx", data), rows), run(t, load(t, "m.onnx", r.Data), rows)); d > 1e-4 {
					t.Errorf("%s (rows %t): dropping what is silent moved outputs by %g: %v", what, in.Rows != nil, d, r.Changes)
				}
			}
		}
		if dropped < 150 {
			t.Errorf("%s: %d parts of networks lost something", kind, dropped)
		}
	}
}

// TestChannels drops a third of what is not silent: the outputs are those of the network
// in which nothing takes in what is gone.
func TestChannels(t *testing.T) {
	for kind, build := range builds {
		compared := 0
		for seed := range uint64(80) {
			data := draw(t, seed, false, build)
			in := Input{Name: "m.onnx", Data: data}
			f := edit(t, data)
			shapes, err := observed(t.Context(), in, f)
			if err != nil {
				t.Fatal(err)
			}
			tr := trace(f, shapes)
			weight, err := tr.weigh(nil)
			if err != nil {
				t.Fatal(err)
			}
			gone := tr.least(weight, 0.3)
			r := &Result{Data: data}
			if _, _, err := dropChannels(t.Context(), in, 0.3, r); err != nil {
				t.Fatal(err)
			}
			if len(gone) == 0 {
				continue
			}
			compared++
			for _, c := range tr.cuts {
				if c.takes != nil {
					silence(t, f, c, func(i int) bool { return gone[tr.parents.find(c.parts[i])] })
				}
			}
			without, err := f.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			rows := made(t, load(t, "m.onnx", data).Info(), 3)
			if d := furthest(t, run(t, load(t, "m.onnx", without), rows), run(t, load(t, "m.onnx", r.Data), rows)); d > 1e-4 {
				t.Errorf("%s %d: outputs differ by %g: %v", kind, seed, d, r.Changes)
			}
		}
		if compared < 60 {
			t.Errorf("%s: %d networks lost something", kind, compared)
		}
	}
}

// silence zeroes what a weight takes in of some parts.
func silence(t *testing.T, f *onnx.File, c *cutting, gone func(int) bool) {
	t.Helper()
	v, err := c.w.Value()
	if err != nil {
		t.Fatal(err)
	}
	x, _ := v.Float64s()
	inner := 1
	for _, s := range c.w.Shape[c.axis+1:] {
		inner *= s
	}
	for i := range x {
		if gone(i / inner % c.w.Shape[c.axis]) {
			x[i] = 0
		}
	}
	o, err := floatsLike(v, x, c.w.Shape)
	if err == nil {
		err = f.Replace(c.w, o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestChannelsStay tells why channels cannot go, and takes what they gave on average over.
func TestChannelsStay(t *testing.T) {
	build := func(d *drawn) {
		d.g.Inputs = []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 3, 8, 8}}}
		x := d.conv(d.conv(image{"x", 3, 8}, 6, 1), 12, 1)
		d.end(d.op("Softmax", graph.Attrs{"axis": number(1)}, x.name))
	}
	data := draw(t, 1, false, build)
	r, err := Apply(t.Context(), Input{Name: "m.onnx", Data: data}, []Step{{Structured, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Changes) != 1 || !strings.Contains(r.Changes[0].What, "3 of 6 channels") || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "Softmax") {
		t.Errorf("changes %v, notes %v", r.Changes, r.Notes)
	}
	// A channel that is the same everywhere is what a bias is.
	rows := made(t, load(t, "m.onnx", data).Info(), 3)
	data = draw(t, 1, false, func(d *drawn) {
		d.g.Inputs = []engine.Spec{{Name: "x", DType: engine.Float32, Shape: []int{-1, 3, 8, 8}}}
		w := d.weight(0, 1, -1, 6, 3, 1, 1)
		v := engine.Data[float32](d.g.Constants[w])
		for i := range v {
			if i/3%2 == 0 {
				v[i] = 0
			}
		}
		x := d.op("Conv", nil, "x", w, d.loud(6))
		x = d.op("Conv", nil, d.op("Relu", nil, x), d.loud(12, 6, 1, 1))
		d.end(d.op("Flatten", nil, x))
	})
	r, err = Apply(t.Context(), Input{Name: "m.onnx", Data: data, Rows: rows}, []Step{{Structured, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	if d := furthest(t, run(t, load(t, "m.onnx", data), rows), run(t, load(t, "m.onnx", r.Data), rows)); d > 1e-5 {
		t.Errorf("dropping constant channels moved outputs by %g", d)
	}
}
