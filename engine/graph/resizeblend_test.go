package graph

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestBlendedResizes holds resizes of float32, with the channels as the file has them and
// last between convolutions, against those of float64, for random sizes and all that a node
// may say of how it blends.
func TestBlendedResizes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 5))
	modes := []string{"linear", "linear", "cubic"}
	places := []string{"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"}
	for round := range 150 {
		text := func(s string) Attr { return Attr{Kind: AttrString, String: s} }
		attrs := Attrs{"mode": text(modes[r.IntN(3)]), "coordinate_transformation_mode": text(places[r.IntN(5)])}
		if round%5 == 0 {
			attrs["antialias"] = Attr{Kind: AttrInt, Int: 1}
		}
		if round%7 == 0 {
			attrs["exclude_outside"] = Attr{Kind: AttrInt, Int: 1}
		}
		channels := 32
		in := []int{1 + r.IntN(2), channels, 1 + r.IntN(19), 1 + r.IntN(40)}
		to := []int64{int64(in[0]), int64(channels), 1 + r.Int64N(30), 1 + r.Int64N(70)}
		for i := 2; i < 4; i++ { // each stays as it is now and then, both at times
			if round%(2*i-1) == 0 {
				to[i] = int64(in[i])
			}
		}
		g := newPlainGraph(t)
		g.r = r
		sizes := wholeOf(g, "sizes", to...)
		g.Nodes = append(g.Nodes, &Node{Op: "Resize", Version: 19, Inputs: []string{"x", "", "", sizes}, Outputs: []string{"y"}, Attrs: attrs})
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		x := noise(t, r, in...)
		want, err := NewResize(g.Nodes[0], []*engine.Tensor{x, nil, nil, g.Constants["sizes"]})
		if err != nil {
			t.Fatal(err)
		}
		wide := make([]float64, x.Len())
		for i, v := range engine.Data[float32](x) {
			wide[i] = float64(v)
		}
		d, err := engine.Of(wide, in...)
		if err != nil {
			t.Fatal(err)
		}
		right, err := resized[float64](NewExec(1<<30), d, want)
		if err != nil {
			t.Fatal(err)
		}
		narrow := make([]float32, right.Len())
		for i, v := range engine.Data[float64](right) {
			narrow[i] = float32(v)
		}
		run := func(p *Program, opt Options) []float32 {
			got, err := p.Run(t.Context(), opt, engine.Values{{Name: "x", Tensor: x}}, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			if shape := got.Value("y").Shape(); !slices.Equal(shape[2:], right.Shape()[2:]) {
				t.Fatalf("round %d: shape %v, want %v", round, shape, right.Shape())
			}
			return engine.Data[float32](got.Value("y"))
		}
		for range 2 { // the second time with what the first one kept
			got := run(p, Options{})
			near(t, "resize", got, narrow, 0.3)
			if !slices.Equal(got, run(p, Options{Threads: 3})) {
				t.Errorf("round %d: other bits on three threads", round)
			}
		}

		g = newPlainGraph(t)
		g.r = r
		g.node("Conv", "a", nil, "x", g.weigh("w1", 32, channels, 1, 1))
		g.Nodes = append(g.Nodes, &Node{Op: "Resize", Version: 19, Inputs: []string{"a", "", "", wholeOf(g, "sizes", to...)}, Outputs: []string{"b"}, Attrs: attrs})
		g.node("Conv", "y", nil, "b", g.weigh("w2", 16, 32, 1, 1))
		if p, err = Compile(g.Graph); err != nil {
			t.Fatal(err)
		}
		last := p.fused != nil && slices.ContainsFunc(p.fused.steps, func(s step) bool { return s.node.Op == "Resize" && s.op == functionOp })
		if want := round%5 != 0; last != want {
			t.Errorf("round %d: channels last is %v, want %v", round, last, want)
		}
		lastly := noise(t, r, in[0], in[2], in[3], channels)
		if _, err := blendLast(g.Nodes[1])(NewExec(1<<30), []*engine.Tensor{lastly, nil, nil, g.Constants["sizes"]}); err != nil && last {
			t.Errorf("round %d: from %v to %v: %v", round, in, to, err)
		}
		got := run(p, Options{})
		near(t, "channels last", got, run(p, Options{Keep: true}), 40)
		if !slices.Equal(got, run(p, Options{Threads: 3})) {
			t.Errorf("round %d: other bits on three threads, channels last", round)
		}
	}
}

// TestAverages holds the weights of all windows against those of each, and means of float32
// against float64's, for random windows over one to three dimensions.
func TestAverages(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 6))
	for round := range 300 {
		d := 1 + r.IntN(3)
		var kernel, strides, dilations, before, after []int64
		shape := []int{1 + r.IntN(2), 1 + r.IntN(5)}
		for range d {
			kernel, strides, dilations = append(kernel, 1+r.Int64N(4)), append(strides, 1+r.Int64N(3)), append(dilations, 1+r.Int64N(2))
			before, after = append(before, r.Int64N(3)), append(after, r.Int64N(3))
			shape = append(shape, 7+r.IntN(14))
		}
		n := &Node{Op: "AveragePool", Version: 19, Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: Attrs{
			"kernel_shape": ints(kernel...), "strides": ints(strides...), "dilations": ints(dilations...), "pads": ints(append(before, after...)...),
			"count_include_pad": {Kind: AttrInt, Int: int64(round % 2)}, "ceil_mode": {Kind: AttrInt, Int: int64(round / 2 % 2)},
		}}
		w, err := PoolWindows(n, shape)
		if err != nil {
			t.Fatal(err)
		}
		weights := w.averages(n)
		for o := range w.Positions() {
			if want := w.AverageWeight(n, o); weights[o] != want {
				t.Fatalf("round %d: window %d weighs %v, want %v", round, o, weights[o], want)
			}
		}
		x := noise(t, r, shape...)
		wide := make([]float64, x.Len())
		for i, v := range engine.Data[float32](x) {
			wide[i] = float64(v)
		}
		in, err := engine.Of(wide, shape...)
		if err != nil {
			t.Fatal(err)
		}
		right, err := pool[float64](NewExec(1<<30), n, w.pooling(n), in)
		if err != nil {
			t.Fatal(err)
		}
		for threads := range 3 {
			e := NewExec(1 << 30)
			e.threads = threads
			got, err := pool[float32](e, n, w.pooling(n), x)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range engine.Data[float32](got[0]) {
				if want := engine.Data[float64](right[0])[i]; math.Abs(float64(v)-want) > 1e-6 {
					t.Fatalf("round %d: mean %d is %v, want %v", round, i, v, want)
				}
			}
		}
	}
}
