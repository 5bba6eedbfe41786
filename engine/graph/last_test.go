package graph

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestPaddedFiltersAreBounded: a filter of one channel takes the room of many, which a
// model of nothing else must not multiply its size by.
func TestPaddedFiltersAreBounded(t *testing.T) {
	for _, c := range []struct {
		out, in int
		last    bool
	}{{1, 1 << 10, true}, {1, 1 << 18, false}, {64, 1 << 12, true}} {
		g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}, Outputs: []string{"y"}}
		w, err := engine.New(engine.Float32, c.out, c.in, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		g.Constants["w"] = w
		g.Nodes = []*Node{{Op: "Conv", Version: 17, Inputs: []string{"x", "w"}, Outputs: []string{"y"}, Attrs: Attrs{}}}
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		if last := p.fused != nil; last != c.last {
			t.Errorf("%d channels of %d: channels last is %v, want %v", c.out, c.in, last, c.last)
		}
	}
}

// TestConvolutionsInAllForms holds chains of convolutions of many channels, which take
// every road of engine/convolve, against the program as it was written, with the same
// bits on three threads and for an image alone.
func TestConvolutionsInAllForms(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 3))
	for _, c := range []struct{ in, out, high, wide int }{{32, 32, 20, 17}, {32, 48, 13, 40}, {3, 32, 19, 21}, {24, 40, 9, 1}, {48, 16, 5, 6}} {
		g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}, Outputs: []string{"y"}}
		weigh := func(name string, shape ...int) string {
			w := noise(t, r, shape...)
			d := engine.Data[float32](w)
			for i := range d {
				d[i] /= float32(math.Sqrt(float64(volume(shape[1:]))))
			}
			g.Constants[name] = w
			return name
		}
		pads := Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}}
		node := func(op, out string, attrs Attrs, in ...string) {
			g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
		}
		node("Conv", "a", pads, "x", weigh("w1", c.out, c.in, 3, 3), weigh("b1", c.out))
		node("Relu", "b", Attrs{}, "a")
		node("Conv", "c", pads, "b", weigh("w2", c.out, c.out, 3, 3))
		node("Add", "d", Attrs{}, "b", "c")
		node("Relu", "e", Attrs{}, "d")
		node("Conv", "f", Attrs{"group": {Kind: AttrInt, Int: int64(c.out)}}, "e", weigh("w3", c.out, 1, 1, 1))
		node("Conv", "y", Attrs{}, "f", weigh("w4", 7, c.out, 1, 1), weigh("b4", 7))
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		x := noise(t, r, 3, c.in, c.high, c.wide)
		run := func(opt Options, x *engine.Tensor) []float32 {
			got, err := p.Run(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, g.Outputs)
			if err != nil {
				t.Fatal(err)
			}
			return engine.Data[float32](got.Value("y"))
		}
		got := run(Options{}, x)
		near(t, "y", got, run(Options{Keep: true}, x), 3)
		if !slices.Equal(got, run(Options{Threads: 3}, x)) {
			t.Errorf("%+v: other bits on three threads", c)
		}
		v := engine.Data[float32](x)
		alone := run(Options{}, mustOf(t, v[len(v)/3*2:], 1, c.in, c.high, c.wide))
		if !slices.Equal(got[len(got)/3*2:], alone) {
			t.Errorf("%+v: other bits for an image alone", c)
		}
	}
}

// TestLinesInAllForms holds chains over lines, of one dimension, against the program as
// it was written, with the same bits on three threads and for a line alone.
func TestLinesInAllForms(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	ints := func(v ...int64) Attr { return Attr{Kind: AttrInts, Ints: v} }
	for _, c := range []struct{ batch, in, out, wide, stride, step int }{{1, 1, 8, 40, 3, 1}, {5, 4, 6, 9, 1, 2}, {40, 3, 32, 5, 2, 1}, {17, 2, 40, 4, 1, 1}} {
		g := &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}, Outputs: []string{"y", "m"}}
		weigh := func(name string, shape ...int) string {
			g.Constants[name] = noise(t, r, shape...)
			return name
		}
		whole := func(name string, v ...int64) string {
			e, err := engine.Of(v, len(v))
			if err != nil {
				t.Fatal(err)
			}
			g.Constants[name] = e
			return name
		}
		node := func(op, out string, attrs Attrs, in ...string) {
			if attrs == nil {
				attrs = Attrs{}
			}
			g.Nodes = append(g.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{out}, Attrs: attrs})
		}
		half := int64(c.out / 2)
		node("Conv", "a", Attrs{"pads": ints(2, 1), "strides": ints(int64(c.stride)), "dilations": ints(int64(c.step))}, "x", weigh("w1", c.out, c.in, 3), weigh("b1", c.out))
		node("Slice", "b", nil, "a", whole("s", 0, 0), whole("e", half, 1<<40), whole("axes", 1, -1))
		node("Slice", "c", nil, "a", whole("s2", half), whole("e2", 2*half), whole("axes2", -2), whole("steps2", 1))
		g.Constants["two"] = mustOf(t, []float32{2})
		node("Pow", "d", nil, "b", "two")
		node("Cast", "f", Attrs{"to": {Kind: AttrInt, Int: 1}}, "c")
		node("Add", "h", nil, "d", "f")
		node("Sigmoid", "h2", nil, "h")
		node("Sqrt", "i", nil, "h2")
		node("Concat", "j", Attrs{"axis": {Kind: AttrInt, Int: -2}}, "i", "b")
		node("Mul", "j2", nil, "j", weigh("row", 1, c.out, 1))
		node("Conv", "k", Attrs{"group": {Kind: AttrInt, Int: int64(c.out)}, "pads": ints(1, 1)}, "j2", weigh("w2", c.out, 1, 3))
		node("MaxPool", "l", Attrs{"kernel_shape": ints(2), "pads": ints(1, 0)}, "k")
		node("Conv", "l2", nil, "l", weigh("w3", c.out, c.out, 1))
		node("Add", "l3", nil, "l", "l2")
		node("Relu", "y", nil, "l3")
		node("GlobalAveragePool", "m", nil, "y")
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		if p.fused == nil || slices.ContainsFunc(p.fused.steps[1:len(p.fused.steps)-2], func(s step) bool { return s.node.Op != "Slice" && s.op != functionOp }) {
			t.Fatal("not with the channels last")
		}
		x := noise(t, r, c.batch, c.in, c.wide)
		run := func(p *Program, opt Options, x *engine.Tensor) []float32 {
			got, err := p.Run(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, g.Outputs)
			if err != nil {
				t.Fatal(err)
			}
			return append(slices.Clone(engine.Data[float32](got.Value("y"))), engine.Data[float32](got.Value("m"))...)
		}
		got := run(p.fused, Options{}, x)
		near(t, "y and m", got, run(p, Options{Keep: true}, x), 3)
		if !slices.Equal(got, run(p, Options{Threads: 3}, x)) {
			t.Errorf("%+v: other bits on three threads", c)
		}
		v := engine.Data[float32](x)
		line := len(v) / c.batch
		alone := run(p, Options{}, mustOf(t, v[len(v)-line:], 1, c.in, c.wide))
		ys := (len(got) - c.batch*c.out) / c.batch
		if last := got[ys*(c.batch-1) : ys*c.batch]; !slices.Equal(last, alone[:ys]) {
			t.Errorf("%+v: other bits for a line alone", c)
		}
	}
}

// TestPaddedAverages holds averages between convolutions against the program as it was
// written: those that count padding with the channels last, as are those without any.
func TestPaddedAverages(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 2))
	for round := range 120 {
		ints := func(v ...int) Attr {
			a := Attr{Kind: AttrInts}
			for _, e := range v {
				a.Ints = append(a.Ints, int64(e))
			}
			return a
		}
		count, ceil := round%2, round/2%3/2 // a third reach beyond what is padded
		kernel := []int{1 + r.IntN(4), 1 + r.IntN(4)}
		pads := []int{r.IntN(kernel[0]), r.IntN(kernel[1]), r.IntN(kernel[0]), r.IntN(kernel[1])}
		attrs := Attrs{
			"kernel_shape": ints(kernel...), "pads": ints(pads...), "strides": ints(1+r.IntN(3), 1+r.IntN(3)),
			"count_include_pad": {Kind: AttrInt, Int: int64(count)}, "ceil_mode": {Kind: AttrInt, Int: int64(ceil)},
		}
		version := 17
		if r.IntN(2) == 0 {
			version, attrs["dilations"] = 19, ints(1+r.IntN(2), 1+r.IntN(2))
		}
		g := newPlainGraph(t)
		g.r = r
		g.node("Conv", "a", nil, "x", g.weigh("w1", 32, 16, 1, 1))
		g.Nodes = append(g.Nodes, &Node{Op: "AveragePool", Version: version, Inputs: []string{"a"}, Outputs: []string{"b"}, Attrs: attrs})
		g.node("Conv", "y", nil, "b", g.weigh("w2", 16, 32, 1, 1))
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		last := p.fused != nil && slices.ContainsFunc(p.fused.steps, func(s step) bool { return s.node.Op == "AveragePool" && s.op == functionOp })
		if !last {
			t.Errorf("round %d: the average is not taken with its channels last", round)
		}
		x := noise(t, r, 2, 16, 7+r.IntN(6), 7+r.IntN(6))
		run := func(opt Options) []float32 {
			got, err := p.Run(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, g.Outputs)
			if err != nil {
				t.Fatal(err)
			}
			return engine.Data[float32](got.Value("y"))
		}
		got := run(Options{})
		near(t, "y", got, run(Options{Keep: true}), 40)
		if !slices.Equal(got, run(Options{Threads: 3})) {
			t.Errorf("round %d: other bits on three threads", round)
		}
	}
}

// TestGatesOfChannels: means of images and lines, and what is made of them and joined with the
// channels again, in the forms exporters write; none of it is laid out otherwise, and what is
// repeated to an image's shape is not.
func TestGatesOfChannels(t *testing.T) {
	for form := range 32 {
		lines, keep, given, expand, sum := form&1, form>>1&1, form>>2&1, form>>3&1, form>>4&1
		g := newPlainGraph(t)
		window, axes, whole := []int{3, 3}, []int64{2, -1}, []int64{2, 16, 1, 1}
		if lines == 1 {
			window, axes, whole = []int{3}, []int64{-1}, []int64{2, 16, 1}
		}
		g.node("Conv", "a", nil, "x", g.weigh("w1", append([]int{16, 4}, window...)...))
		attrs := Attrs{"keepdims": {Kind: AttrInt, Int: int64(keep)}}
		in := []string{"a"}
		if given == 1 {
			in = append(in, wholeOf(g, "axes", axes...))
		} else {
			attrs["axes"] = attrInts(axes...)
		}
		g.node("ReduceMean", "mean", attrs, in...)
		g.Nodes[1].Version = []int{17, 18}[given]
		g.node("Sigmoid", "gate", nil, "mean")
		g.node("Reshape", "gates", nil, "gate", wholeOf(g, "whole", whole...))
		gates := "gates"
		if expand == 1 {
			g.node("Shape", "shape", nil, "a")
			g.node("Expand", "wide", nil, gates, "shape")
			gates = "wide"
		}
		g.node([]string{"Mul", "Sub"}[sum], "joined", nil, []string{"a", gates}[sum], []string{gates, "a"}[sum])
		g.node("Conv", "y", nil, "joined", g.weigh("w2", append([]int{8, 16}, window...)...))
		for _, w := range []string{"w1", "w2"} {
			v := engine.Data[float32](g.Constants[w])
			for i := range v {
				v[i] /= 16 // results of around one
			}
		}
		size := []int{2, 4, 9, 7}[:len(window)+2]
		alike(t, g.Graph, engine.Values{{Name: "x", Tensor: noise(t, g.r, size...)}}, 9+keep)
	}
}
