package graph

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// codesCase is QuantizeLinear and DequantizeLinear of one type of numbers.
func codesCase[T code](t *testing.T, name string, r *rand.Rand, zeroed bool) {
	t.Helper()
	of := func(x *engine.Tensor, err error) *engine.Tensor {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	least, most := rangeOf(dtypeOf[T]())
	shape := []int{3, 5, 7}
	for axis := -1; axis < 3; axis++ { // -1: one scale for all
		places, inner := 1, volume(shape)
		if axis >= 0 {
			places = shape[axis]
			_, inner = split(shape, axis)
		}
		scale, zero := make([]float32, places), make([]T, places)
		for i := range scale {
			scale[i] = float32(math.Ldexp(1+r.Float64(), -r.IntN(4)))
			if zeroed {
				zero[i] = T(least + math.Floor(r.Float64()*(most-least)))
			}
		}
		v := make([]float32, volume(shape))
		for i := range v {
			s := scale[i/inner%places]
			switch r.IntN(4) {
			case 0:
				v[i] = s * (float32(r.IntN(200)-100) + 0.5) // ties
			case 1:
				v[i] = s * float32(r.NormFloat64()*3*most)
			case 2:
				v[i] = []float32{float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, 0}[r.IntN(4)]
			default:
				v[i] = s * float32(r.NormFloat64()*100)
			}
		}
		dims := []int{places}
		if axis < 0 {
			dims = []int{}
		}
		g := newOctetGraph(t)
		attrs := Attrs{"axis": {Kind: AttrInt, Int: int64(max(axis, 0))}}
		s, z := put(g, scale, dims...), put(g, zero, dims...)
		g.node("QuantizeLinear", "q", attrs, "x", s, z)
		g.node("DequantizeLinear", "y", attrs, "q", s, z)
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: of(engine.Of(v, shape...))}}
		run, err := p.Run(t.Context(), Options{Keep: true}, in, []string{"q", "y"})
		if err != nil {
			t.Fatal(err)
		}
		q, y := engine.Data[T](run.Value("q")), engine.Data[float32](run.Value("y"))
		for i := range v {
			k := i / inner % places
			want := T(min(max(math.RoundToEven(float64(v[i]/scale[k]))+float64(zero[k]), least), most))
			if q[i] != want {
				t.Fatalf("%s, axis %d: of %g in steps of %g from %d is %d, want %d", name, axis, v[i], scale[k], zero[k], q[i], want)
			}
			if back := float32((float64(want) - float64(zero[k])) * float64(scale[k])); y[i] != back {
				t.Fatalf("%s, axis %d: %d in steps of %g from %d stands for %g, want %g", name, axis, want, scale[k], zero[k], y[i], back)
			}
		}
	}
}

// TestCodes holds the loops between floats and numbers of 8 and 16 bits against arithmetic in
// float64.
func TestCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 11))
	for range 4 {
		for _, zeroed := range []bool{false, true} {
			codesCase[uint8](t, "uint8", r, zeroed)
			codesCase[int8](t, "int8", r, zeroed)
			codesCase[uint16](t, "uint16", r, zeroed)
			codesCase[int16](t, "int16", r, zeroed)
		}
	}
}

// TestWideWeights: what 16 bits stand for is computed once where products read it, and a
// small constant that is rounded again is no step.
func TestWideWeights(t *testing.T) {
	g := newOctetGraph(t)
	codes := func(shape ...int) string {
		v := make([]int16, volume(shape))
		for i := range v {
			v[i] = int16(g.r.Uint32())
		}
		return g.op("DequantizeLinear", nil, put(g, v, shape...), put(g, []float32{1e-5}), put(g, []int16{0}))
	}
	round := func(x string) string {
		s, z := put(g, []float32{1e-4}), put(g, []uint16{32768})
		return g.op("DequantizeLinear", nil, g.op("QuantizeLinear", nil, x, s, z), s, z)
	}
	y := round(g.op("Add", nil, round(g.op("MatMul", nil, round("x"), codes(24, 40))), round(g.op("Identity", nil, codes(40)))))
	y = g.op("Conv", nil, g.op("Reshape", nil, y, wholeOf(g.plainGraph, "shape", 2, 5, 40)), codes(6, 5, 3))
	y = g.op("ConvTranspose", nil, round(y), codes(6, 3, 4))
	g.op("Identity", nil, round(y))
	g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
	p, worst, _ := apart(t, g.Graph, noise(t, g.r, 2, 5, 24), 1e-4)
	if worst > 2 {
		t.Errorf("%g steps apart", worst)
	}
	functions := 0
	for _, s := range p.fused.steps {
		switch {
		case s.node.Op == "QuantizeLinear", s.node.Op == "DequantizeLinear" && s.function == nil:
			t.Errorf("a step of %s is left", s.node.Op)
		case s.node.Op == "DequantizeLinear":
			functions++
		}
	}
	if functions > 5 {
		t.Errorf("%d steps round, with the constant's", functions)
	}
}

// TestBatchedProducts holds QLinearMatMul and MatMulInteger over batches of either sign
// against sums in float64, up to and beyond what float32 sums exactly.
func TestBatchedProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 19))
	for i := range 48 {
		signedA, signedB, signedY, far := i&1 > 0, i&2 > 0, i&4 > 0, i&8 > 0
		k := []int{1 + r.IntN(40), exactDepth, exactDepth + 1}[i%3]
		m, n := 1+r.IntN(9), 1+r.IntN(20)
		octets := func(g *octetGraph, signed bool, shape ...int) (string, []float64) {
			v, wide := make([]uint8, volume(shape)), make([]float64, volume(shape))
			for i := range v {
				v[i] = uint8(r.Uint32())
				if far { // sums as large as they can be
					v[i] = 255
				}
				if wide[i] = float64(v[i]); signed {
					v[i] ^= 0x80
					wide[i] = float64(int8(v[i]))
				}
			}
			if !signed {
				return put(g, v, shape...), wide
			}
			s := make([]int8, len(v))
			copy(bytesOfSigned(s), v)
			return put(g, s, shape...), wide
		}
		zero := func(g *octetGraph, signed bool) (string, float64) {
			z := uint8(r.Uint32())
			if far {
				z = 0
			}
			if signed {
				return put(g, []int8{int8(z ^ 0x80)}), float64(int8(z ^ 0x80))
			}
			return put(g, []uint8{z}), float64(z)
		}
		g := newOctetGraph(t)
		a, va := octets(g, signedA, 2, 3, m, k)
		b, vb := octets(g, signedB, 3, k, n)
		za, fa := zero(g, signedA)
		zb, fb := zero(g, signedB)
		zy, fy := zero(g, signedY)
		sy := float32(float64(k) * 30)
		g.node("QLinearMatMul", "y", nil, a, put(g, []float32{0.5}), za, b, put(g, []float32{0.25}), zb, put(g, []float32{sy}), zy)
		g.node("MatMulInteger", "whole", nil, a, b, za, zb)
		g.Inputs, g.Outputs = nil, []string{"y", "whole"}
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		run, err := p.Run(t.Context(), Options{}, nil, g.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := run.Value("y").Float64s()
		whole := engine.Data[int32](run.Value("whole"))
		least, most := rangeOf(run.Value("y").DType())
		for at := range got {
			batch, row, col := at/(m*n), at/n%m, at%n
			sum := 0.0
			for l := range k {
				sum += (va[(batch*m+row)*k+l] - fa) * (vb[(batch%3*k+l)*n+col] - fb)
			}
			if float64(whole[at]) != sum {
				t.Fatalf("depth %d: element %d is %d, want %g", k, at, whole[at], sum)
			}
			// The product with the scale is rounded to float32 here and there.
			want := sum * (0.5 * 0.25 / float64(sy))
			want = min(max(math.RoundToEven(want)+fy, least), most)
			if d := math.Abs(got[at] - want); d > 1 || d > 0 && math.Abs(sum*(0.5*0.25/float64(sy))-math.Trunc(sum*(0.5*0.25/float64(sy)))) < 0.49 {
				t.Fatalf("depth %d: element %d of sum %g is %g, want %g", k, at, sum, got[at], want)
			}
		}
	}
}

// TestOctetsWithOne: a value of bytes with one byte, of no dimension or some, on either side.
func TestOctetsWithOne(t *testing.T) {
	for i := range 16 {
		g := newOctetGraph(t)
		g.signed = i&1 > 0
		op := "Add"
		if i&2 > 0 {
			op = "Mul"
		}
		one := g.op("ReduceMax", Attrs{"keepdims": Attr{Kind: AttrInt, Int: int64(i >> 3 & 1)}}, "x")
		in := []string{g.pair("x", 0.02, 120), g.pair(one, 0.02, 7)}
		if i&4 > 0 {
			in[0], in[1] = in[1], in[0]
		}
		y := g.pair(g.op(op, nil, in...), 0.05, 100)
		g.op("Identity", nil, y)
		g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
		for _, shape := range [][]int{{2, 3, 100}, {3, 2}} {
			if _, worst, _ := apart(t, g.Graph, noise(t, g.r, shape...), 0.05); worst > 0 {
				t.Errorf("%s %d, %v: %g steps apart", op, i, shape, worst)
			}
		}
	}
}

// TestNormRuns holds what is normalised run by run against float64, with a mean that is far
// larger than the deviation.
func TestNormRuns(t *testing.T) {
	for _, op := range []string{"InstanceNormalization", "GroupNormalization"} {
		for _, version := range []int{18, 21} {
			g := newPlainGraph(t)
			const channels, groups, inner = 6, 3, 5000
			parameters, per := channels, 1
			attrs := Attrs{}
			if op == "GroupNormalization" {
				attrs["num_groups"] = Attr{Kind: AttrInt, Int: groups}
				per = channels / groups
				if version < 21 {
					parameters = groups
				}
			}
			g.node(op, "y", attrs, "x", g.weigh("s", parameters), g.weigh("b", parameters))
			g.Nodes[0].Version = version
			x := noise(t, g.r, 2, channels, inner)
			v := engine.Data[float32](x)
			for i := range v {
				v[i] += 100.000003
			}
			p, err := Compile(g.Graph)
			if err != nil {
				t.Fatal(err)
			}
			run, err := p.Run(t.Context(), Options{}, engine.Values{{Name: "x", Tensor: x}}, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			y := engine.Data[float32](run.Value("y"))
			s, b := engine.Data[float32](g.Constants["s"]), engine.Data[float32](g.Constants["b"])
			span := per * inner
			for r := range len(v) / span {
				mean, squares := 0.0, 0.0
				for _, e := range v[r*span:][:span] {
					mean += float64(e) / float64(span)
				}
				for _, e := range v[r*span:][:span] {
					squares += (float64(e) - mean) * (float64(e) - mean) / float64(span)
				}
				for i := r * span; i < (r+1)*span; i++ {
					k := i / inner % channels
					if parameters == groups {
						k /= per
					}
					want := (float64(v[i])-mean)/math.Sqrt(squares+1e-5)*float64(s[k]) + float64(b[k])
					if math.Abs(float64(y[i])-want) > 3e-6 {
						t.Fatalf("%s %d: element %d is %g, want %g", op, version, i, y[i], want)
					}
				}
			}
		}
	}
}

// TestFusedMish: what exporters write as Softplus, Tanh and a product is one step.
func TestFusedMish(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		g := newOctetGraph(t)
		in := []string{g.op("Tanh", nil, g.op("Softplus", nil, "x")), "x"}
		if swapped {
			in[0], in[1] = in[1], in[0]
		}
		g.node("Mul", "y", nil, in...)
		p, worst, _ := apart(t, g.Graph, noise(t, g.r, 3, 500), 1)
		if worst > 1e-6 {
			t.Errorf("%g apart", worst)
		}
		if n := len(p.fused.steps); n != 1 {
			t.Errorf("%d steps", n)
		}
	}
	// Softplus that somebody else reads stays.
	g := newOctetGraph(t)
	soft := g.op("Softplus", nil, "x")
	g.node("Add", "y", nil, soft, g.op("Mul", nil, g.op("Tanh", nil, soft), "x"))
	p, err := Compile(g.Graph)
	if err != nil {
		t.Fatal(err)
	}
	if p.fused != nil {
		t.Errorf("%d steps of 4", len(p.fused.steps))
	}
}

// TestSharedBias: a bias that several nodes read through an Identity, as exporters share
// equal ones, does not keep a convolution from computing with bytes.
func TestSharedBias(t *testing.T) {
	g := newOctetGraph(t)
	bias := g.bias(20)
	a := g.pair(g.op("Conv", nil, g.pair("x", 0.02, 120), g.octets(0, false, 20, 3, 3, 3), bias), 0.02, 100)
	a = g.pair(g.op("Conv", nil, a, g.octets(0, false, 20, 20, 3, 3), g.op("Identity", nil, bias)), 0.05, 128)
	g.op("Identity", nil, a)
	g.Nodes[len(g.Nodes)-1].Outputs[0] = "y"
	p, worst, share := apart(t, g.Graph, noise(t, g.r, 2, 3, 14, 11), 0.05)
	if worst > 2 || share > 0.1 {
		t.Errorf("%g steps apart, %g of the elements", worst, share)
	}
	for _, s := range p.fused.steps {
		if s.node.Op == "Conv" && p.fused.types[s.out[0]] != engine.Uint8 {
			t.Errorf("a convolution gives %s", p.fused.types[s.out[0]])
		}
	}
}
