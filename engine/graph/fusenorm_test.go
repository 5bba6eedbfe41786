package graph

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

func newNetwork(t *testing.T, r *rand.Rand) *network {
	return &network{Graph: &Graph{Inputs: []engine.Spec{{Name: "x", DType: engine.Float32}}, Constants: map[string]*engine.Tensor{}}, t: t, r: r}
}

func (n *network) ints(v ...int64) string {
	t, err := engine.Of(v, len(v))
	if err != nil {
		n.t.Fatal(err)
	}
	return n.constant(t)
}

// either are two values in any order.
func (n *network) either(op, a, b string) string {
	if n.r.IntN(2) == 0 {
		a, b = b, a
	}
	return n.op(op, nil, a, b)
}

// gelu spells the function of x in one of the ways that exporters do, and now and then in
// one that is another function.
func (n *network) gelu(x string) string {
	one := n.number([]float32{1, 1, 1, 1, 1.5}[n.r.IntN(5)])
	var s string
	if n.r.IntN(2) == 0 {
		u := n.op("Div", nil, x, n.number(math.Sqrt2))
		if n.r.IntN(2) == 0 {
			u = n.either("Mul", x, n.number([]float32{math.Sqrt2 / 2, math.Sqrt2 / 2, 0.5}[n.r.IntN(3)]))
		}
		s = n.op("Erf", nil, u)
	} else {
		s = n.op("Tanh", nil, n.cubic(x))
	}
	s = n.either("Add", s, one)
	half := n.number([]float32{0.5, 0.5, 0.5, 0.25}[n.r.IntN(4)])
	switch n.r.IntN(4) {
	case 0:
		return n.either("Mul", n.either("Mul", x, half), s)
	case 1:
		return n.either("Mul", n.either("Mul", half, s), x)
	case 2:
		return n.op("Div", nil, n.either("Mul", x, s), n.number(2))
	}
	return n.either("Mul", n.either("Mul", x, s), half)
}

// cubic is sqrt(2/pi) (x + 0.044715 x^3).
func (n *network) cubic(x string) string {
	const b = 0.044715
	var u string
	switch n.r.IntN(4) {
	case 0:
		u = n.either("Add", x, n.either("Mul", n.number(b), n.op("Pow", nil, x, n.number(3))))
	case 1:
		u = n.either("Add", x, n.either("Mul", x, n.either("Mul", x, n.either("Mul", x, n.number(b)))))
	case 2:
		square := n.op("Mul", nil, x, x)
		u = n.either("Mul", x, n.either("Add", n.number(1), n.either("Mul", square, n.number(b))))
	default:
		cube := n.op("Mul", nil, n.op("Mul", nil, x, x), x)
		u = n.op("Sub", nil, x, n.either("Mul", cube, n.number(-b)))
	}
	if n.r.IntN(8) == 0 {
		u = n.op("Add", nil, u, n.number(0.5)) // no cubic of GELU
	}
	return n.either("Mul", u, n.number(0.7978846))
}

// along is a constant that lies along an axis of a value of that rank.
func (n *network) along(axis, rank, size int) string {
	shape := slices.Repeat([]int{1}, rank)
	shape[axis] = size
	if n.r.IntN(2) == 0 {
		shape = shape[axis:]
	}
	return n.constant(noise(n.t, n.r, shape...))
}

// mean is that of x along an axis, spelled as a share of a sum where fast is set.
func (n *network) mean(x string, axis, size int, stat string, fast bool) string {
	attrs := Attrs{"axes": {Kind: AttrInts, Ints: []int64{int64(axis)}}}
	if !fast {
		return n.op("ReduceMean", attrs, x)
	}
	sum := n.op("ReduceSum", Attrs{"keepdims": {Kind: AttrInt}}, x, n.ints(int64(axis)))
	m := n.op("Mul", nil, sum, n.constant(mustOf(n.t, []float32{1 / float32(size)})))
	if stat == "" {
		return m
	}
	return n.op("Expand", nil, n.op("Reshape", nil, m, stat), stat)
}

// norm spells a normalisation of x, of the given shape, along an axis; stat holds the shape
// of its statistics.
func (n *network) norm(x string, shape []int, axis int, stat string) string {
	rank, size, at := len(shape), shape[axis], axis
	if n.r.IntN(2) == 0 {
		axis -= rank
	}
	form := n.r.IntN(3)
	mean := n.mean(x, axis, size, stat, form == 2)
	d := n.op("Sub", nil, x, mean)
	var variance string
	switch form {
	case 2: // the mean of squares less the square of the mean
		m, s := n.mean(x, axis, size, "", true), n.mean(n.op("Mul", nil, x, x), axis, size, "", true)
		less := n.op("Sub", nil, s, n.op("Mul", nil, m, m))
		variance = n.op("Reshape", nil, n.op("Max", nil, n.constant(mustOf(n.t, []float32{0})), less), stat)
	case 1:
		variance = n.mean(n.op("Pow", nil, n.op("Sub", nil, x, n.mean(x, axis, size, stat, false)), n.number(2)), axis, size, stat, false)
	default:
		variance = n.mean(n.op("Mul", nil, d, d), axis, size, stat, false)
	}
	root := n.op("Sqrt", nil, n.either("Add", variance, n.number(1e-3)))
	scale, bias := n.along(at, rank, size), n.along(at, rank, size)
	var y string
	switch n.r.IntN(4) {
	case 0:
		y = n.op("Div", nil, d, root)
	case 1:
		y = n.either("Mul", d, n.op("Reciprocal", nil, root))
	case 2:
		y = n.either("Mul", d, n.either("Mul", n.op("Div", nil, n.number(1), root), scale))
		scale = ""
	default:
		y = n.op("Div", nil, d, root)
		if n.r.IntN(2) == 0 {
			n.Outputs = append(n.Outputs, root) // somebody else wants it
		}
	}
	if scale != "" && n.r.IntN(4) > 0 {
		y = n.either("Mul", y, scale)
	}
	if n.r.IntN(4) > 0 {
		y = n.either("Add", y, bias)
	}
	return y
}

// TestFusedNormsComputeTheSame holds normalisations and activations as exporters spell them,
// and things that look like them, against a run that is not fused.
func TestFusedNormsComputeTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 8))
	norms, gates, runs := 0, 0, 0
	for range 600 {
		n := newNetwork(t, r)
		shape := []int{1 + r.IntN(3), 2 + r.IntN(20), 2 + r.IntN(20)}[:2+r.IntN(2)]
		axis := r.IntN(len(shape))
		dims := make([]int, len(shape))
		for i := range dims {
			dims[i] = i
		}
		// The shape of statistics as it is computed from the input's.
		whole := n.op("Shape", nil, "x")
		ones := make([]int64, len(shape))
		mask := make([]bool, len(shape))
		for i := range ones {
			ones[i], mask[i] = 1, i == axis
		}
		pick, err := engine.Of(mask, len(mask))
		if err != nil {
			t.Fatal(err)
		}
		stat := n.op("Where", nil, n.constant(pick), n.ints(ones...), whole)
		x := n.op("Mul", nil, "x", n.number(2))
		for range 3 {
			switch r.IntN(3) {
			case 0:
				x = n.gelu(x)
			case 1:
				x = n.norm(x, shape, axis, stat)
			default:
				x = n.either("Add", x, n.along(len(shape)-1, len(shape), shape[len(shape)-1]))
			}
		}
		n.Outputs = append(n.Outputs, n.op("Relu", nil, x))
		p, err := Compile(n.Graph)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: noise(t, r, shape...)}}
		want, err := p.Run(t.Context(), Options{Keep: true}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		if p.fused == nil {
			continue
		}
		for i := range p.fused.steps {
			s := &p.fused.steps[i]
			if s.op == functionOp && s.function != nil {
				gates++
			} else if s.op == functionOp {
				norms++
			}
		}
		got, err := p.runFused(t.Context(), Options{Arena: &Arena{}, Threads: 1 + r.IntN(2)}, in, n.Outputs)
		if errors.Is(err, errUnfused) {
			continue
		}
		if err != nil {
			t.Fatalf("%v: %v", nodesOf(n), err)
		}
		runs++
		for _, name := range n.Outputs {
			a, b := got.Value(name), want.Value(name)
			if !slices.Equal(a.Shape(), b.Shape()) {
				t.Fatalf("%v: shape %v, want %v", nodesOf(n), a.Shape(), b.Shape())
			}
			size := 1.0
			for _, v := range engine.Data[float32](b) {
				size = max(size, math.Abs(float64(v)))
			}
			near(t, name, engine.Data[float32](a), engine.Data[float32](b), 20*size)
		}
	}
	if norms < 300 || gates < 150 || runs < 400 {
		t.Errorf("%d normalisations and %d activations in %d runs", norms, gates, runs)
	}
}

// TestFusedNormsAreOfOneShape: what the shapes of statistics say is looked at by each run.
func TestFusedNormsAreOfOneShape(t *testing.T) {
	n := newNetwork(t, rand.New(rand.NewPCG(1, 1)))
	n.Inputs = append(n.Inputs, engine.Spec{Name: "stat", DType: engine.Int64})
	mean := n.op("Reshape", nil, n.op("ReduceMean", Attrs{"axes": {Kind: AttrInts, Ints: []int64{1}}}, "x"), "stat")
	d := n.op("Sub", nil, "x", mean)
	root := n.op("Sqrt", nil, n.op("Add", nil, n.op("ReduceMean", Attrs{"axes": {Kind: AttrInts, Ints: []int64{1}}}, n.op("Mul", nil, d, d)), n.number(1e-5)))
	n.Outputs = []string{n.op("Div", nil, d, root)}
	p, err := Compile(n.Graph)
	if err != nil || p.fused == nil {
		t.Fatal("is not fused", err)
	}
	for _, c := range []struct {
		stat []int64
		odd  bool
	}{{[]int64{3, 1}, false}, {[]int64{1, 3}, true}} {
		stat, err := engine.Of(c.stat, 2)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: noise(t, n.r, 3, 3)}, {Name: "stat", Tensor: stat}}
		if _, err := p.runFused(t.Context(), Options{}, in, n.Outputs); errors.Is(err, errUnfused) != c.odd {
			t.Errorf("%v: %v", c.stat, err)
		}
		want, err := p.Run(t.Context(), Options{Keep: true}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Run(t.Context(), Options{}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "y", engine.Data[float32](got.Value(n.Outputs[0])), engine.Data[float32](want.Value(n.Outputs[0])), 1)
	}
}

// TestOneHotProductsAreLookedUp holds embeddings spelled as products against the products.
func TestOneHotProductsAreLookedUp(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	lookedUp := 0
	for range 60 {
		n := newNetwork(t, r)
		d := []engine.DType{engine.Int64, engine.Int32}[r.IntN(2)]
		n.Inputs[0].DType = d
		rows, cols := 1+r.IntN(9), 1+r.IntN(40)
		counting, err := engine.New(d, []int{1, 1, rows}[r.IntN(2):]...)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := engine.New(d, 2, 7, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			v := i
			if rows > 3 && r.IntN(40) == 0 {
				v = 0 // not counting
			}
			setInt(counting, i, v)
		}
		for i := range ids.Len() {
			setInt(ids, i, r.IntN(rows+4)-2)
		}
		w := noise(t, r, rows, cols)
		if r.IntN(6) == 0 {
			engine.Data[float32](w)[0] = float32(math.Inf(1))
		}
		hot := n.op("Cast", Attrs{"to": {Kind: AttrInt, Int: 1}}, n.either("Equal", "x", n.constant(counting)))
		y := n.op("MatMul", nil, hot, n.constant(w))
		if r.IntN(2) == 0 {
			y = n.either("Add", y, n.constant(noise(t, r, []int{1, 1, cols}[r.IntN(3):]...)))
		}
		if r.IntN(2) == 0 {
			y = n.gelu(y)
		}
		n.Outputs = []string{n.op("Neg", nil, y)}
		p, err := Compile(n.Graph)
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: ids}}
		want, err := p.Run(t.Context(), Options{Keep: true}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Run(t.Context(), Options{}, in, n.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		if p.fused != nil && len(p.fused.steps) <= len(p.steps)-2 {
			lookedUp++
		}
		a, b := got.Value(n.Outputs[0]), want.Value(n.Outputs[0])
		if !slices.Equal(a.Shape(), b.Shape()) {
			t.Fatalf("shape %v, want %v", a.Shape(), b.Shape())
		}
		for i, v := range engine.Data[float32](b) {
			if g := engine.Data[float32](a)[i]; g != v && math.Abs(float64(g-v)) > 1e-5 && (g == g || v == v) {
				t.Fatalf("element %d is %v, want %v", i, g, v)
			}
		}
	}
	if lookedUp < 25 {
		t.Errorf("only %d were looked up", lookedUp)
	}
}

func setInt(t *engine.Tensor, i, v int) {
	if d := engine.Data[int64](t); d != nil {
		d[i] = int64(v)
		return
	}
	engine.Data[int32](t)[i] = int32(v)
}

// TestTransposesAreRight holds transposes of every kind, and slices and expansions of the
// whole, against their definition.
func TestTransposesAreRight(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		shape := make([]int, 2+r.IntN(3))
		perm := make([]int64, len(shape))
		for i, k := range r.Perm(len(shape)) {
			shape[i], perm[i] = []int{1, 1, 2, 5, 17}[r.IntN(5)], int64(k)
		}
		g := newPlainGraph(t)
		g.node("Transpose", "a", Attrs{"perm": {Kind: AttrInts, Ints: perm}}, "x")
		g.node("Slice", "y", nil, "a", wholeOf(g, "from", 0), wholeOf(g, "to", 99))
		p, err := Compile(g.Graph)
		if err != nil {
			t.Fatal(err)
		}
		x := noise(t, r, shape...)
		run, err := p.Run(t.Context(), Options{Arena: &Arena{}, Threads: 1 + r.IntN(2)}, engine.Values{{Name: "x", Tensor: x}}, []string{"y"})
		if err != nil {
			t.Fatal(err)
		}
		y, from := run.Value("y"), rowMajor(shape)
		for i, v := range engine.Data[float32](y) {
			at, left := 0, i
			for k := len(perm) - 1; k >= 0; k-- {
				at += left % y.Shape()[k] * from[perm[k]]
				left /= y.Shape()[k]
			}
			if want := engine.Data[float32](x)[at]; v != want {
				t.Fatalf("%v of %v: element %d is %v, want %v", perm, shape, i, v, want)
			}
		}
	}
}
