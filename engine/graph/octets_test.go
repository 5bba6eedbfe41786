package graph

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// octetGraph is a graph between bytes.
type octetGraph struct {
	*plainGraph
	n int
	// signed has values be of signed bytes.
	signed bool
}

func newOctetGraph(t *testing.T) *octetGraph { return &octetGraph{plainGraph: newPlainGraph(t)} }

func put[T engine.Element](g *octetGraph, v []T, shape ...int) string {
	t, err := engine.Of(v, shape...)
	if err != nil {
		g.t.Fatal(err)
	}
	name := g.name()
	g.Constants[name] = t
	return name
}

func (g *octetGraph) name() string {
	g.n++
	return "v" + string(rune('a'+g.n/26)) + string(rune('a'+g.n%26))
}

func (g *octetGraph) op(op string, attrs Attrs, in ...string) string {
	out := g.name()
	g.node(op, out, attrs, in...)
	return out
}

// pair rounds a value and returns what its bytes stand for.
func (g *octetGraph) pair(x string, scale float32, zero uint8) string {
	s, z := put(g, []float32{scale}), put(g, []uint8{zero})
	if g.signed {
		z = put(g, []int8{int8(zero ^ 0x80)})
	}
	return g.op("DequantizeLinear", nil, g.op("QuantizeLinear", nil, x, s, z), s, z)
}

// octets are constant bytes with a scale for each place on an axis, as DequantizeLinear
// gives them; unsigned ones have zero points.
func (g *octetGraph) octets(axis int, unsigned bool, shape ...int) string {
	n := volume(shape)
	scales := make([]float32, shape[axis])
	for i := range scales {
		scales[i] = 0.002 + 0.004*g.r.Float32()
	}
	along := Attrs{"axis": {Kind: AttrInt, Int: int64(axis)}}
	if unsigned {
		v, z := make([]uint8, n), make([]uint8, len(scales))
		for i := range v {
			v[i] = uint8(g.r.Uint32())
		}
		for i := range z {
			z[i] = uint8(100 + g.r.IntN(50))
		}
		return g.op("DequantizeLinear", along, put(g, v, shape...), put(g, scales, len(scales)), put(g, z, len(z)))
	}
	v := make([]int8, n)
	for i := range v {
		v[i] = int8(g.r.Uint32())
	}
	return g.op("DequantizeLinear", along, put(g, v, shape...), put(g, scales, len(scales)), put(g, make([]int8, len(scales)), len(scales)))
}

// bias are constants of 32 bits in small steps.
func (g *octetGraph) bias(n int) string {
	v := make([]int32, n)
	for i := range v {
		v[i] = g.r.Int32N(20000) - 10000
	}
	return g.op("DequantizeLinear", nil, put(g, v, n), put(g, []float32{0.0001}))
}

func ints(v ...int64) Attr { return Attr{Kind: AttrInts, Ints: v} }

// fusedSteps counts those that a fused program runs by the operator of their node.
func fusedSteps(p *Program, op string) (n int) {
	pl, err := p.fused.planned(p.graph.Outputs)
	if err != nil {
		return -1
	}
	for _, i := range pl.steps {
		if p.fused.steps[i].node.Op == op {
			n++
		}
	}
	return n
}

// apart runs a graph in fewer steps and as it was written, and returns how far the outputs
// differ at most, in steps of a scale, and in how many elements by more than a thousandth
// of one.
func apart(t *testing.T, g *Graph, x *engine.Tensor, scale float64) (p *Program, worst float64, share float64) {
	t.Helper()
	p, err := Compile(g)
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Values{{Name: "x", Tensor: x}}
	plain, err := p.Run(context.Background(), Options{Keep: true}, in, []string{"y"})
	if err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{1, 3} {
		arena := &Arena{}
		for range 2 {
			// The program of fewer steps itself: it must not be sent back.
			fused, err := p.fused.Run(context.Background(), Options{Threads: threads, Arena: arena}, in, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			a, b := engine.Data[float32](fused.Value("y")), engine.Data[float32](plain.Value("y"))
			if len(a) != len(b) || len(a) == 0 {
				t.Fatalf("%v and %v", fused.Value("y").Shape(), plain.Value("y").Shape())
			}
			off := 0
			for i := range a {
				d := math.Abs(float64(a[i])-float64(b[i])) / scale
				worst = max(worst, d)
				if d > 1e-3 {
					off++
				}
			}
			share = max(share, float64(off)/float64(len(a)))
		}
	}
	return p, worst, share
}

// images is a network of images of so many channels, with a pool, a sum, channels by
// themselves, a hard swish, and squeeze and excitation.
func (g *octetGraph) images(in string, channels int, unsigned bool) {
	pads := Attrs{"pads": ints(1, 1, 1, 1)}
	x := g.pair(in, 0.02, 120)
	a := g.op("Relu", nil, g.op("Conv", Attrs{"pads": ints(1, 1, 1, 1), "strides": ints(2, 2)}, x, g.octets(0, unsigned, 20, channels, 3, 3), g.bias(20)))
	a = g.pair(a, 0.02, 0)
	a = g.pair(g.op("MaxPool", Attrs{"kernel_shape": ints(3, 3), "pads": ints(1, 1, 1, 1), "strides": ints(1, 1)}, a), 0.02, 0)
	b := g.pair(g.op("Conv", pads, a, g.octets(0, unsigned, 20, 20, 3, 3)), 0.05, 128)
	a = g.pair(g.op("Relu", nil, g.op("Add", nil, a, b)), 0.05, 3)
	each := Attrs{"pads": ints(1, 1, 1, 1), "group": Attr{Kind: AttrInt, Int: 20}}
	a = g.pair(g.op("Conv", each, a, g.octets(0, unsigned, 20, 1, 3, 3)), 0.04, 128)
	// What exporters write for a hard swish, each value rounded.
	s := g.pair(g.op("Add", nil, a, put(g, []float32{3})), 0.05, 90)
	s = g.pair(g.op("Clip", nil, s, put(g, []float32{0}), put(g, []float32{6})), 0.03, 0)
	a = g.pair(g.op("Mul", nil, a, s), 0.08, 20)
	// Squeeze and excitation.
	one := g.pair(g.op("GlobalAveragePool", nil, a), 0.02, 100)
	one = g.pair(g.op("Conv", nil, one, g.octets(0, unsigned, 20, 20, 1, 1)), 0.03, 128)
	a = g.pair(g.op("Mul", nil, g.pair(g.op("HardSigmoid", nil, one), 1.0/255, 0), a), 0.04, 40)
	a = g.pair(g.op("GlobalAveragePool", nil, a), 0.01, 60)
	a = g.op("Flatten", nil, a)
	a = g.op("Gemm", Attrs{"transB": Attr{Kind: AttrInt, Int: 1}}, a, g.octets(0, unsigned, 7, 20), g.bias(7))
	g.op("Identity", nil, g.pair(a, 0.004, 128))
	g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
}

// TestOctetConvolutions holds a network of images in 8 bits, in integers, against the
// nodes as they are written.
func TestOctetConvolutions(t *testing.T) {
	for i := range 4 {
		unsigned := i%2 > 0
		g := newOctetGraph(t)
		g.signed = i/2 > 0
		g.images("x", 3, unsigned)
		p, worst, share := apart(t, g.Graph, noise(t, g.r, 2, 3, 14, 11), 0.004)
		if worst > 4 || share > 0.5 {
			t.Errorf("unsigned weights %t: %g steps apart, %g of the elements", unsigned, worst, share)
		}
		for _, op := range []string{"Conv", "Gemm"} {
			for _, s := range p.fused.steps {
				if s.node.Op == op && p.fused.types[s.out[0]] != engine.Uint8 {
					t.Errorf("unsigned weights %t: a %s gives %s", unsigned, op, p.fused.types[s.out[0]])
				}
			}
		}
		if n := fusedSteps(p, "Clip") + fusedSteps(p, "Div"); n > 0 {
			t.Errorf("%d steps of what a table does", n)
		}
	}
}

// TestOneOctetConvolution is within one step, and exact but for halves.
func TestOneOctetConvolution(t *testing.T) {
	for _, shape := range [][]int{{1, 3, 9, 9}, {3, 16, 7, 10}, {1, 64, 20, 20}} {
		g := newOctetGraph(t)
		x := g.pair("x", 0.02, 120)
		y := g.op("Conv", Attrs{"pads": ints(1, 0, 1, 0)}, x, g.octets(0, false, 33, shape[1], 3, 3), g.bias(33))
		g.op("Identity", nil, g.pair(y, 0.03, 100))
		g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
		if _, worst, share := apart(t, g.Graph, noise(t, g.r, shape...), 0.03); worst > 1.001 || share > 0.001 {
			t.Errorf("%v: %g steps apart, %g of the elements", shape, worst, share)
		}
	}
}

// TestOctetProducts: sums, moved values and functions around products in 8 bits.
func TestOctetProducts(t *testing.T) {
	for i := range 4 {
		unsigned := i%2 > 0
		g := newOctetGraph(t)
		g.signed = i/2 > 0
		x := g.pair("x", 0.02, 120)
		q := g.op("MatMul", nil, x, g.octets(1, unsigned, 24, 40))
		q = g.op("Sigmoid", nil, g.op("Add", nil, q, g.bias(40))) // in float32
		h := g.op("Add", nil, g.op("MatMul", nil, x, g.octets(1, unsigned, 24, 40)), g.weigh("b", 40))
		h = g.pair(g.op("Relu", nil, h), 0.02, 0)
		h = g.op("Transpose", Attrs{"perm": ints(0, 2, 1)}, g.op("Reshape", nil, h, wholeOf(g.plainGraph, "shape", 2, 5, 40)))
		h = g.pair(g.op("Transpose", Attrs{"perm": ints(0, 2, 1)}, h), 0.02, 0)
		h = g.pair(g.op("Mul", nil, h, g.pair(q, 0.004, 0)), 0.01, 10)
		g.node("Add", "y", nil, h, q)
		if p, worst, share := apart(t, g.Graph, noise(t, g.r, 2, 5, 24), 0.01); worst > 3 || share > 0.1 {
			t.Errorf("unsigned weights %t: %g steps apart, %g of the elements, %d steps", unsigned, worst, share, len(p.fused.steps))
		}
	}
}

// TestOctetForms holds networks of lines, images and volumes in 8 bits, with convolutions of
// all channels, of groups and of each channel, against the nodes as they are written.
func TestOctetForms(t *testing.T) {
	group := func(n int64, d int) Attrs {
		return Attrs{"group": Attr{Kind: AttrInt, Int: n}, "pads": ints(slices.Repeat([]int64{1}, 2*d)...)}
	}
	for d := 1; d <= 3; d++ {
		for _, unsigned := range []bool{false, true} {
			g := newOctetGraph(t)
			kernel := func(out, in int) []int { return append([]int{out, in}, slices.Repeat([]int{3}, d)...) }
			three := Attrs{"kernel_shape": ints(slices.Repeat([]int64{3}, d)...), "strides": ints(slices.Repeat([]int64{2}, d)...)}
			a := g.pair("x", 0.02, 120)
			a = g.pair(g.op("Relu", nil, g.op("Conv", group(1, d), a, g.octets(0, unsigned, kernel(24, 3)...), g.bias(24))), 0.02, 0)
			b := g.pair(g.op("Conv", group(24, d), a, g.octets(0, unsigned, kernel(24, 1)...)), 0.03, 128)
			a = g.pair(g.op("Conv", group(8, d), a, g.octets(0, unsigned, kernel(24, 3)...), g.bias(24)), 0.04, 100)
			a = g.pair(g.op("Add", nil, a, b), 0.06, 110)
			a = g.pair(g.op("MaxPool", three, a), 0.06, 110)
			a = g.pair(g.op("Conv", group(2, d), a, g.octets(0, unsigned, kernel(10, 12)...)), 0.1, 128)
			// The largest of what gets smaller before it gets larger.
			a = g.op("Mul", nil, a, g.op("HardSigmoid", nil, a))
			a = g.pair(g.op("MaxPool", Attrs{"kernel_shape": ints(slices.Repeat([]int64{2}, d)...)}, a), 0.1, 20)
			// Floats, which others read, and means.
			a = g.op("Sigmoid", nil, g.op("Conv", group(1, d), a, g.octets(0, unsigned, kernel(6, 10)...)))
			a = g.pair(g.op("GlobalAveragePool", nil, g.pair(a, 0.004, 0)), 0.004, 0)
			g.node("Flatten", "y", nil, a)
			shape := append([]int{2, 3}, []int{8, 9, 7}[:d]...)
			p, worst, share := apart(t, g.Graph, noise(t, g.r, shape...), 0.004)
			if worst > 4 || share > 0.5 {
				t.Errorf("%d dimensions, unsigned weights %t: %g steps apart, %g of the elements", d, unsigned, worst, share)
			}
			octets := 0
			for _, s := range p.fused.steps {
				if s.node.Op == "Conv" && p.fused.types[s.in[0]] == engine.Uint8 {
					octets++
				}
			}
			if n := fusedSteps(p, "Conv"); n != 5 || octets != 5 {
				t.Errorf("%d dimensions: %d of %d convolutions are of bytes", d, octets, n)
			}
		}
	}
}

// TestSnappedBesideOctets: what is rounded where nothing computes with bytes goes into the
// convolution before it as it did, with a Relu.
func TestSnappedBesideOctets(t *testing.T) {
	g := newOctetGraph(t)
	line := func(x string) string { // of weights with scales along their inputs, which stays in float32
		return g.pair(g.op("Relu", nil, g.op("Conv", nil, x, g.octets(1, false, 6, 6, 3), g.bias(6))), 0.02, 0)
	}
	y := g.op("Flatten", nil, line(line("x")))
	g.op("Identity", nil, g.pair(g.op("Gemm", nil, y, g.octets(1, false, 36, 7), g.bias(7)), 0.02, 100))
	g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
	p, worst, share := apart(t, g.Graph, noise(t, g.r, 2, 6, 10), 0.02)
	if worst > 3 || share > 0.2 {
		t.Errorf("%g steps apart, %g of the elements", worst, share)
	}
	if n := fusedSteps(p, "Relu"); n > 0 {
		t.Errorf("%d Relus are steps", n)
	}
}

// TestGatheredOctets has rows of a constant in 8 bits taken as bytes.
func TestGatheredOctets(t *testing.T) {
	g := newOctetGraph(t)
	v := make([]int8, 50*8)
	for i := range v {
		v[i] = int8(g.r.Uint32())
	}
	w := g.op("DequantizeLinear", nil, put(g, v, 50, 8), put(g, []float32{0.02}), put(g, []int8{-5}))
	w = g.op("Gather", nil, w, g.op("Cast", Attrs{"to": Attr{Kind: AttrInt, Int: 7}}, "x"))
	g.node("MatMul", "y", nil, g.pair(w, 0.02, 123), g.octets(1, false, 8, 6))
	x, err := engine.Of([]float32{3, 49, 0, 17}, 4)
	if err != nil {
		t.Fatal(err)
	}
	p, worst, _ := apart(t, g.Graph, x, 1)
	if worst > 1e-5 {
		t.Errorf("%g apart", worst)
	}
	if n := fusedSteps(p, "DequantizeLinear"); n > 0 {
		t.Errorf("%d steps make floats of all rows", n)
	}
}

// TestDynamicOctets holds products that are quantised as they come against the nodes as
// they are written, which differ by no more than float32 rounds.
func TestDynamicOctets(t *testing.T) {
	for _, form := range []string{"matrix", "image", "line", "each"} {
		for _, unsigned := range []bool{false, true} {
			g, image := newOctetGraph(t), form == "image"
			outs := []string{g.name(), g.name(), g.name()}
			g.Nodes = append(g.Nodes, &Node{Op: "DynamicQuantizeLinear", Version: 17, Inputs: []string{"x"}, Outputs: outs, Attrs: Attrs{}})
			shape, bias, op := []int{24, 40}, []int{40}, "MatMulInteger"
			x := noise(t, g.r, 2, 5, 24)
			if image {
				shape, bias, op, x = []int{10, 5, 3, 3}, []int{1, 10, 1, 1}, "ConvInteger", noise(t, g.r, 2, 5, 9, 7)
			}
			attrs := Attrs{}
			switch form {
			case "line":
				shape, bias, op, x = []int{10, 5, 3}, []int{1, 10, 1}, "ConvInteger", noise(t, g.r, 2, 5, 9)
			case "each":
				shape, bias, op, x = []int{10, 1, 3, 3}, []int{1, 10, 1, 1}, "ConvInteger", noise(t, g.r, 2, 10, 9, 7)
				attrs["group"] = Attr{Kind: AttrInt, Int: 10}
			}
			v := make([]int8, volume(shape))
			for i := range v {
				v[i] = int8(g.r.Uint32())
			}
			w, z := put(g, v, shape...), put(g, []int8{3})
			if unsigned {
				w, z = put(g, bytesOfSigned(v), shape...), put(g, []uint8{131})
			}
			y := g.op("Cast", Attrs{"to": Attr{Kind: AttrInt, Int: 1}}, g.op(op, attrs, outs[0], w, outs[2], z))
			y = g.op("Mul", nil, y, g.op("Mul", nil, outs[1], put(g, []float32{0.01})))
			y = g.op("Add", nil, y, g.weigh("b", bias...))
			g.node("Sigmoid", "y", nil, y)
			p, worst, _ := apart(t, g.Graph, x, 1)
			if worst > 1e-5 {
				t.Errorf("%s, unsigned weights %t: %g apart", form, unsigned, worst)
			}
			if fusedSteps(p, "Cast")+fusedSteps(p, "Mul") > 0 {
				t.Errorf("%s, unsigned weights %t: not one step", form, unsigned)
			}
		}
	}
}

// TestIntegerProducts holds MatMulInteger and ConvInteger over either sign and zero points
// against sums in float64.
func TestIntegerProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 8))
	tensor := func(signed bool, shape ...int) *engine.Tensor {
		u, s := make([]uint8, volume(shape)), make([]int8, volume(shape))
		for i := range u {
			u[i] = uint8(r.Uint32())
			s[i] = int8(u[i])
		}
		var x *engine.Tensor
		var err error
		if x, err = engine.Of(u, shape...); signed {
			x, err = engine.Of(s, shape...)
		}
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for i := range 64 {
		signedA, signedB, image, columns := i&1 > 0, i&2 > 0, i&4 > 0, i&8 > 0
		shapeA, shapeB, n, op := []int{2, 3, 1 + r.IntN(40)}, []int{0, 1 + r.IntN(40)}, 0, "MatMulInteger"
		shapeB[0], n = shapeA[2], shapeB[1]
		if image {
			shapeA, shapeB, op = []int{2, 1 + r.IntN(9), 6, 5}, []int{1 + r.IntN(20), 0, 3, 2}, "ConvInteger"
			shapeB[1], n = shapeA[1], shapeB[0]
		}
		a, b, za, zb := tensor(signedA, shapeA...), tensor(signedB, shapeB...), tensor(signedA), tensor(signedB)
		if columns {
			zb = tensor(signedB, n)
		}
		node := &Node{Op: op, Version: 10, Inputs: []string{"a", "b", "c", "d"}, Outputs: []string{"y"}, Attrs: Attrs{}}
		if image {
			node.Attrs["pads"] = ints(1, 0, 1, 1)
		}
		spec := func(name string, x *engine.Tensor) engine.Spec { return engine.Spec{Name: name, DType: x.DType()} }
		g := &Graph{Inputs: []engine.Spec{spec("a", a), spec("c", za), spec("d", zb)}, Outputs: []string{"y"}, Nodes: []*Node{node}, Constants: map[string]*engine.Tensor{"b": b}}
		if i&16 > 0 {
			g.Inputs, g.Constants = append(g.Inputs, spec("b", b)), nil
		}
		p, err := Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Run(context.Background(), Options{}, engine.Values{{Name: "a", Tensor: a}, {Name: "b", Tensor: b}, {Name: "c", Tensor: za}, {Name: "d", Tensor: zb}}, []string{"y"})
		if err != nil {
			t.Fatal(err)
		}
		x := &Exec{limit: defaultMaxBytes}
		want, err := integerMatMulOrConv(x, node, a, za, b, zb)
		if err != nil {
			t.Fatal(err)
		}
		v, w := engine.Data[int32](got.Value("y")), engine.Data[float64](want)
		if len(v) != len(w) {
			t.Fatalf("%v, want %v", got.Value("y").Shape(), want.Shape())
		}
		for k := range v {
			if float64(v[k]) != w[k] {
				t.Fatalf("case %d, element %d: %d, want %g", i, k, v[k], w[k])
			}
		}
	}
}

func integerMatMulOrConv(x *Exec, n *Node, a, za, b, zb *engine.Tensor) (*engine.Tensor, error) {
	if n.Op == "ConvInteger" {
		return integerConv(x, plainConv(n), []*engine.Tensor{a, b}, a, b, za, zb, nil)
	}
	return integerMatMul(x, a, za, b, zb)
}
