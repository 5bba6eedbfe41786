package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// network is a random chain of convolutions, scales and activations as exporters
// spell them.
type network struct {
	*Graph
	t     *testing.T
	r     *rand.Rand
	names []string
	// same are the values of the input's shape.
	same []string
}

func (n *network) op(op string, attrs Attrs, in ...string) string {
	if attrs == nil {
		attrs = Attrs{}
	}
	name := fmt.Sprintf("v%d", len(n.Nodes))
	n.Nodes = append(n.Nodes, &Node{Op: op, Version: 17, Inputs: in, Outputs: []string{name}, Attrs: attrs})
	n.names = append(n.names, name)
	return name
}

func (n *network) constant(v *engine.Tensor) string {
	name := fmt.Sprintf("c%d", len(n.Constants))
	n.Constants[name] = v
	return name
}

func (n *network) number(v float32) string {
	shape := [][]int{{}, {1}}[n.r.IntN(2)]
	t, err := engine.Of([]float32{v}, shape...)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.constant(t)
}

func (n *network) positive(shape ...int) string {
	v := noise(n.t, n.r, shape...)
	d := engine.Data[float32](v)
	for i := range d {
		d[i] = float32(math.Abs(float64(d[i]))) + 0.5
	}
	return n.constant(v)
}

const fusedChannels = 6

func (n *network) grow(x string) string {
	c := fusedChannels
	random := func(shape ...int) string { return n.constant(noise(n.t, n.r, shape...)) }
	ints := func(name string, v ...int64) Attrs { return Attrs{name: {Kind: AttrInts, Ints: v}} }
	pointwise := func(in int, x string) string { return n.op("Conv", nil, x, random(c, in, 1, 1), random(c)) }
	switch n.r.IntN(22) {
	case 13:
		p := ints("pads", 1, 1, 1, 1)
		p["kernel_shape"] = Attr{Kind: AttrInts, Ints: []int64{3, 3}}
		return n.op("MaxPool", p, x)
	case 14:
		// Squeeze and excitation.
		y := pointwise(c, n.op("Relu", nil, pointwise(c, n.op("GlobalAveragePool", nil, x))))
		pair := []string{x, n.op("HardSigmoid", nil, y)}
		n.r.Shuffle(2, func(i, j int) { pair[i], pair[j] = pair[j], pair[i] })
		return n.op("Mul", nil, pair...)
	case 15:
		return pointwise(2*c, n.op("Concat", Attrs{"axis": {Kind: AttrInt, Int: []int64{1, -3}[n.r.IntN(2)]}}, x, n.same[n.r.IntN(len(n.same))]))
	case 16:
		// Halves that change places.
		n.Nodes = append(n.Nodes, &Node{Op: "Split", Version: 17, Inputs: []string{x}, Outputs: []string{x + "a", x + "b"}, Attrs: Attrs{"axis": {Kind: AttrInt, Int: 1}}})
		n.names = append(n.names, x+"a", x+"b")
		return n.op("Concat", Attrs{"axis": {Kind: AttrInt, Int: 1}}, x+"b", x+"a")
	case 17:
		up := Attrs{"mode": {Kind: AttrString, String: "nearest"}}
		if n.r.IntN(2) == 0 {
			up["coordinate_transformation_mode"], up["nearest_mode"] = Attr{Kind: AttrString, String: "asymmetric"}, Attr{Kind: AttrString, String: "floor"}
		}
		y := n.op("Resize", up, x, "", n.constant(mustOf(n.t, []float32{1, 1, 2, 2}, 4)))
		p := ints("strides", 2, 2)
		p["pads"] = Attr{Kind: AttrInts, Ints: []int64{1, 1, 0, 0}}
		return n.op("Conv", p, y, random(c, c, 3, 3))
	case 18:
		y := n.op("ConvTranspose", ints("strides", 2, 2), x, random(c, c, 2, 2), random(c))
		p := ints("strides", 2, 2)
		p["kernel_shape"] = Attr{Kind: AttrInts, Ints: []int64{2, 2}}
		return n.op([]string{"MaxPool", "AveragePool"}[n.r.IntN(2)], p, y)
	case 19, 20:
		// A residual, from either side; sometimes one that is repeated.
		y := n.op("Conv", ints("pads", 1, 1, 1, 1), x, random(c, c, 3, 3))
		other := n.same[n.r.IntN(len(n.same))]
		if n.r.IntN(4) == 0 {
			other = pointwise(c, n.op("GlobalAveragePool", nil, x))
		}
		pair := []string{y, other}
		n.r.Shuffle(2, func(i, j int) { pair[i], pair[j] = pair[j], pair[i] })
		return n.op("Add", nil, pair...)
	case 21:
		return n.op("AveragePool", Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}, "kernel_shape": {Kind: AttrInts, Ints: []int64{3, 3}}}, x)
	case 0, 1:
		pads := Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}}
		in := []string{x, random(c, c, 3, 3), random(c)}
		return n.op("Conv", pads, in[:2+n.r.IntN(2)]...)
	case 2:
		group := Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}, "group": {Kind: AttrInt, Int: int64(c)}}
		return n.op("Conv", group, x, random(c, 1, 3, 3))
	case 3:
		return n.op("BatchNormalization", nil, x, random(c), random(c), random(c), n.positive(c))
	case 4:
		return n.op([]string{"Add", "Mul", "Sub"}[n.r.IntN(3)], nil, x, random([][]int{{1, c, 1, 1}, {c, 1, 1}, {1}}[n.r.IntN(3)]...))
	case 5:
		return n.op("Sub", nil, random(c, 1, 1), x)
	case 6:
		return n.op("Mul", nil, x, n.op("Sigmoid", nil, x))
	case 7:
		return n.op("Mul", nil, n.op("HardSigmoid", nil, x), x)
	case 8:
		y := n.op("Mul", nil, x, n.op("Clip", nil, n.op("Add", nil, x, n.number(3)), n.number(0), n.number(6)))
		return n.op([]string{"Div", "Mul"}[n.r.IntN(2)], nil, y, n.number(6))
	case 9:
		e := n.op("Add", nil, n.op("Erf", nil, n.op("Div", nil, x, n.number(math.Sqrt2))), n.number(1))
		return n.op("Mul", nil, n.op("Mul", nil, x, e), n.number(0.5))
	case 10:
		// Another reader of an inner value.
		y := n.op("Sigmoid", nil, x)
		return n.op("Add", nil, n.op("Mul", nil, x, y), y)
	case 11:
		return n.op("Mul", nil, x, n.op("Mul", nil, n.number(2), n.number(0.25)))
	default:
		return n.op([]string{"Relu", "Tanh", "HardSwish"}[n.r.IntN(3)], nil, x)
	}
}

// TestFusedComputesTheSame holds the outputs and every inner value of random networks
// against a run that keeps everything, which is not fused.
func TestFusedComputesTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	fewer := 0
	for range 400 {
		n := &network{Graph: &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}}, t: t, r: r}
		x := "x"
		n.same = []string{x}
		for range 8 {
			x = n.grow(x)
			n.same = append(n.same, x)
			// Values that stay small, so that differences do.
			if n.Nodes[len(n.Nodes)-1].Op != "Conv" && r.IntN(2) == 0 {
				x = n.op("Tanh", nil, x)
			}
		}
		n.Outputs = []string{x, n.names[r.IntN(len(n.names))]}
		p, err := Compile(n.Graph)
		if err != nil {
			t.Fatal(err)
		}
		if p.fused != nil {
			fewer += len(p.steps) - len(p.fused.steps)
		}
		in := engine.Values{{Name: "x", Tensor: noise(t, r, 2, fusedChannels, 5, 7)}}
		kept, err := p.Run(t.Context(), Options{Keep: true}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		// What was summed on the way is what rounding is relative to.
		size := 1.0
		for _, name := range n.names {
			if v := kept.Value(name); v != nil {
				for _, e := range engine.Data[float32](v) {
					size = max(size, math.Abs(float64(e)))
				}
			}
		}
		for _, want := range append([][]string{n.Outputs}, each(n.names)...) {
			run, err := p.Run(t.Context(), Options{Arena: &Arena{}, Threads: 1 + len(want)%2}, in, want)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) > 1 && p.fused != nil && p.fused.makes(want) {
				if _, err := p.runFused(t.Context(), Options{}, in, want); err != nil {
					t.Fatalf("%v: the fused program gave up: %v", nodesOf(n), err)
				}
			}
			for _, name := range want {
				whole := kept.Value(name)
				if whole == nil {
					continue
				}
				near(t, name, engine.Data[float32](run.Value(name)), engine.Data[float32](whole), size)
			}
		}
	}
	if fewer < 400 {
		t.Errorf("only %d steps were spared", fewer)
	}
}

func nodesOf(n *network) (ops []string) {
	for _, node := range n.Nodes {
		ops = append(ops, node.Op)
	}
	return ops
}

func each(names []string) [][]string {
	out := make([][]string, len(names))
	for i, n := range names {
		out[i] = []string{n}
	}
	return out
}

func near(t *testing.T, name string, got, want []float32, size float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", name, len(got), len(want))
	}
	for i, v := range want {
		if math.Abs(float64(got[i])-float64(v)) > 1e-5*size {
			t.Fatalf("element %d of %s is %v, want %v", i, name, got[i], v)
		}
	}
}

// TestFusedKeepsShapes: a number that meets a constant of one dimension becomes one,
// which only the nodes as they are written tell.
func TestFusedKeepsShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	n := &network{Graph: &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}}, t: t, r: r}
	one := func(v float32) string { return n.constant(mustOf(t, []float32{v}, 1)) }
	y := n.op("Mul", nil, "x", n.op("Clip", nil, n.op("Add", nil, "x", one(3)), n.constant(mustOf(t, []float32{0})), n.constant(mustOf(t, []float32{6}))))
	n.Outputs = []string{n.op("Div", nil, y, one(6))}
	p, err := Compile(n.Graph)
	if err != nil {
		t.Fatal(err)
	}
	if p.fused == nil {
		t.Fatal("is not fused")
	}
	run, err := p.Run(t.Context(), Options{}, engine.Values{{Name: "x", Tensor: mustOf(t, []float32{1})}}, n.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	if got := run.Value(n.Outputs[0]); len(got.Shape()) != 1 {
		t.Errorf("the result has shape %v, want [1]", got.Shape())
	}
}

func mustOf[T engine.Element](t *testing.T, v []T, shape ...int) *engine.Tensor {
	t.Helper()
	x, err := engine.Of(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestWeightsAreMadeOnce: weights that pass many steps before a convolution reads them, as
// standardised ones do, are made at the load, whatever of them there is on the way; who asks
// for what was on the way gets it.
func TestWeightsAreMadeOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 2))
	n := &network{Graph: &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}}, t: t, r: r}
	const c, side = 128, 9
	ints := func(v ...int64) string {
		shape, err := engine.Of(v, len(v))
		if err != nil {
			t.Fatal(err)
		}
		return n.constant(shape)
	}
	w := n.constant(noise(t, r, c, c, 3, 3))
	one := func() string { return n.constant(noise(t, r, c)) }
	w = n.op("Reshape", nil, w, ints(1, c, c*9))
	mean := n.op("ReduceMean", Attrs{"axes": {Kind: AttrInts, Ints: []int64{0, 2}}, "keepdims": {Kind: AttrInt, Int: 0}}, w)
	w = fmt.Sprintf("v%d", len(n.Nodes))
	n.Nodes = append(n.Nodes, &Node{
		Op: "BatchNormalization", Version: 17, Inputs: []string{fmt.Sprintf("v%d", len(n.Nodes)-2), one(), one(), mean, mean},
		Outputs: []string{w, w + "mean", w + "var"}, Attrs: Attrs{"training_mode": {Kind: AttrInt, Int: 1}},
	})
	for range 20 { // together more than may be held at once
		w = n.op("Mul", nil, w, n.number(0.7))
		w = n.op("Tanh", nil, w)
	}
	last := n.op("Reshape", nil, w, ints(c, c, 3, 3))
	y := n.op("Conv", Attrs{"pads": {Kind: AttrInts, Ints: []int64{1, 1, 1, 1}}}, "x", last)
	n.Outputs = []string{y}
	p, err := Compile(n.Graph)
	if err != nil {
		t.Fatal(err)
	}
	if p.fused == nil {
		t.Fatal("the weights are made in every run")
	}
	for _, s := range p.fused.steps {
		if s.node.Op != "Conv" {
			t.Errorf("%s %v is computed in every run", s.node.Op, s.node.Outputs)
		}
	}
	in := engine.Values{{Name: "x", Tensor: noise(t, r, 2, c, side, side)}}
	kept, err := p.Run(t.Context(), Options{Keep: true}, in, []string{y})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{y, w, last, mean} {
		run, err := p.Run(t.Context(), Options{}, in, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		near(t, name, engine.Data[float32](run.Value(name)), engine.Data[float32](kept.Value(name)), 100)
	}
}
