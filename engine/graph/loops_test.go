package graph

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// ranOn runs one node on tensors.
func ranOn(t *testing.T, op string, version int, attrs Attrs, in ...*engine.Tensor) []*engine.Tensor {
	t.Helper()
	if attrs == nil {
		attrs = Attrs{}
	}
	out, err := Moved(&Node{Op: op, Version: version, Attrs: attrs, Inputs: make([]string, len(in)), Outputs: []string{"y"}}, in)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return out
}

func whole(v int64) Attr { return Attr{Kind: AttrInt, Int: v} }

// TestLoopsOfSingles holds what has loops of its own for float32 to what all other types go
// through, for the same numbers: values and shapes of broadcasts, axes, ties, NaN and infinities.
func TestLoopsOfSingles(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	special := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 2, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	fill := func(specials bool, shape ...int) []float32 {
		v := make([]float32, volume(shape))
		for i := range v {
			if v[i] = float32(r.IntN(9) - 4); r.IntN(3) == 0 {
				v[i] = float32(r.NormFloat64())
			}
			if specials && r.IntN(12) == 0 {
				v[i] = special[r.IntN(len(special))]
			}
		}
		return v
	}
	widened := func(x *engine.Tensor) *engine.Tensor {
		v := make([]float64, x.Len())
		x.Widen(v)
		return mustOf(t, v, x.Shape()...)
	}
	same := func(what string, got, want *engine.Tensor, tolerance float64) {
		t.Helper()
		if !slices.Equal(got.Shape(), want.Shape()) {
			t.Fatalf("%s: shape %v, want %v", what, got.Shape(), want.Shape())
		}
		a, b := make([]float64, got.Len()), make([]float64, want.Len())
		got.Widen(a)
		want.Widen(b)
		for i := range a {
			if w := float64(float32(b[i])); a[i] != w && !(math.IsNaN(a[i]) && math.IsNaN(w)) && !(math.Abs(a[i]-w) <= tolerance*max(1, math.Abs(w))) {
				t.Fatalf("%s: element %d is %v, want %v", what, i, a[i], w)
			}
		}
	}
	for round := range 60 {
		shape := []int{1 + r.IntN(3), 1 + r.IntN(9), 1 + r.IntN(5)}
		x := mustOf(t, fill(true, shape...), shape...)
		plain := mustOf(t, fill(false, shape...), shape...)
		for axis := range shape {
			what := func(op string) string { return fmt.Sprintf("round %d: %s of %v along %d", round, op, shape, axis) }
			at := mustOf(t, []int64{int64(axis)}, 1)
			for _, op := range []string{"ReduceMax", "ReduceMin"} {
				same(what(op), ranOn(t, op, 18, nil, x, at)[0], ranOn(t, op, 18, nil, widened(x), at)[0], 0)
			}
			for _, op := range []string{"ReduceSum", "ReduceL2"} {
				same(what(op), ranOn(t, op, 18, nil, plain, at)[0], ranOn(t, op, 18, nil, widened(plain), at)[0], 1e-6)
			}
			one := mustOf(t, []int64{int64(axis)})
			same(what("CumSum"), ranOn(t, "CumSum", 14, nil, plain, one)[0], ranOn(t, "CumSum", 14, nil, widened(plain), one)[0], 0)
			attrs := Attrs{"axis": whole(int64(axis))}
			same(what("LogSoftmax"), ranOn(t, "LogSoftmax", 13, attrs, plain)[0], ranOn(t, "LogSoftmax", 13, attrs, widened(plain))[0], 1e-6)
			// As many elements as there are, or others along the axis.
			want := slices.Clone(shape)
			want[axis] = 1 + r.IntN(7)
			places := make([]int64, volume(want))
			for i := range places {
				places[i] = int64(r.IntN(2*shape[axis]) - shape[axis])
			}
			index := mustOf(t, places, want...)
			same(what("GatherElements"), ranOn(t, "GatherElements", 13, attrs, x, index)[0], ranOn(t, "GatherElements", 13, attrs, widened(x), index)[0], 0)
			for k := range shape[axis] + 1 {
				for _, largest := range []int64{0, 1} {
					attrs := Attrs{"axis": whole(int64(axis)), "largest": whole(largest)}
					got := ranOn(t, "TopK", 11, attrs, plain, mustOf(t, []int64{int64(k)}, 1))
					heldTop(t, what(fmt.Sprint("TopK ", k, largest)), engine.Data[float32](plain), shape, axis, k, largest == 1, engine.Data[float32](got[0]), engine.Data[int64](got[1]))
				}
			}
		}
		// Any of the two may be broadcast along any axes.
		var forms [2][]int
		for i := range forms {
			for _, d := range shape {
				if r.IntN(3) == 0 {
					d = 1
				}
				forms[i] = append(forms[i], d)
			}
		}
		a, b := mustOf(t, fill(true, forms[0]...), forms[0]...), mustOf(t, fill(true, forms[1]...), forms[1]...)
		for op, f := range map[string]func(a, b float64) bool{
			"Less": func(a, b float64) bool { return a < b }, "LessOrEqual": func(a, b float64) bool { return a <= b }, "Greater": func(a, b float64) bool { return a > b },
			"GreaterOrEqual": func(a, b float64) bool { return a >= b }, "Equal": func(a, b float64) bool { return a == b },
		} {
			want, err := zip(&Exec{limit: defaultMaxBytes}, widened(a), widened(b), f)
			if err != nil {
				t.Fatal(err)
			}
			same(op, ranOn(t, op, 16, nil, a, b)[0], want, 0)
		}
		wholes := func(x *engine.Tensor) *engine.Tensor {
			return ranOn(t, "Cast", 13, Attrs{"to": whole(7)}, x)[0]
		}
		p, q := mustOf(t, fill(false, forms[0]...), forms[0]...), mustOf(t, fill(false, forms[1]...), forms[1]...)
		for op, f := range map[string]func(a, b int64) int64{
			"Add": func(a, b int64) int64 { return a + b }, "Sub": func(a, b int64) int64 { return a - b }, "Mul": func(a, b int64) int64 { return a * b },
		} {
			want, err := zip(&Exec{limit: defaultMaxBytes}, wholes(p), wholes(q), f)
			if err != nil {
				t.Fatal(err)
			}
			same(op, ranOn(t, op, 14, nil, wholes(p), wholes(q))[0], want, 0)
		}
		bits := func(x *engine.Tensor) *engine.Tensor {
			return ranOn(t, "Cast", 13, Attrs{"to": whole(9)}, x)[0]
		}
		for op, f := range map[string]func(a, b bool) bool{
			"And": func(a, b bool) bool { return a && b }, "Or": func(a, b bool) bool { return a || b }, "Xor": func(a, b bool) bool { return a != b },
		} {
			want, err := zip(&Exec{limit: defaultMaxBytes}, bits(p), bits(q), f)
			if err != nil {
				t.Fatal(err)
			}
			same(op, ranOn(t, op, 7, nil, bits(p), bits(q))[0], want, 0)
		}
		for number, to := range map[int64]engine.DType{9: engine.Bool, 2: engine.Uint8, 3: engine.Int8, 6: engine.Int32, 7: engine.Int64, 11: engine.Float64} {
			attrs := Attrs{"to": whole(number)}
			got, want := ranOn(t, "Cast", 13, attrs, x)[0], ranOn(t, "Cast", 13, attrs, widened(x))[0]
			if got.DType() != to {
				t.Fatalf("cast to %s is of %s", to, got.DType())
			}
			same("Cast to "+to.String(), got, want, 0)
		}
	}
}

// heldTop holds TopK's answer to a line sorted.
func heldTop(t *testing.T, what string, v []float32, shape []int, axis, k int, largest bool, values []float32, index []int64) {
	t.Helper()
	outer, inner := split(shape, axis)
	n := shape[axis]
	for o := range outer {
		for i := range inner {
			order := make([]int, n)
			for j := range order {
				order[j] = j
			}
			at := func(j int) float32 { return v[(o*n+j)*inner+i] }
			slices.SortStableFunc(order, func(a, b int) int {
				if largest {
					a, b = b, a
					return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(b, a))
				}
				return cmp.Compare(at(a), at(b))
			})
			for j, from := range order[:k] {
				if to := (o*k+j)*inner + i; values[to] != at(from) || index[to] != int64(from) {
					t.Fatalf("%s: place %d has %v of %d, want %v of %d", what, j, values[to], index[to], at(from), from)
				}
			}
		}
	}
}

// TestTopOfNaN: NaN is the largest, both zeros are equal, of equals the first comes first.
func TestTopOfNaN(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		v       []float64
		k       int
		largest bool
		want    []int32
	}{
		{[]float64{.86, 1.58, nan, -3.6, 2.8, -2.6, -3.7, -2.97}, 3, false, []int32{6, 3, 7}},
		{[]float64{.86, 1.58, nan, -3.6, 2.8, -2.6, -3.7, -2.97}, 3, true, []int32{2, 4, 1}},
		{[]float64{inf, nan, -inf, nan, 0}, 5, true, []int32{1, 3, 0, 4, 2}},
		{[]float64{inf, nan, -inf, nan, 0}, 5, false, []int32{2, 4, 0, 1, 3}},
		{[]float64{math.Copysign(0, -1), 0, -1, math.Copysign(0, -1)}, 3, true, []int32{0, 1, 3}},
		{[]float64{0, math.Copysign(0, -1), 1, 5e-324, -5e-324}, 4, false, []int32{4, 0, 1, 3}},
	} {
		var got []int32
		for _, e := range topOf(make([]ranked, len(c.v)), c.v, c.k, 1, c.largest) {
			got = append(got, e.at)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v largest %t: %v, want %v", c.v, c.largest, got, c.want)
		}
	}
}

// TestSoftmaxOfNothing, in each precision.
func TestSoftmaxOfNothing(t *testing.T) {
	for _, d := range []engine.DType{engine.Float16, engine.BFloat16, engine.Float32, engine.Float64} {
		for _, shape := range [][]int{{0, 3}, {3, 0}, {0}} {
			x, err := engine.New(d, shape...)
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range []string{"Softmax", "LogSoftmax"} {
				for axis := range shape {
					if got := ranOn(t, op, 13, Attrs{"axis": whole(int64(axis))}, x)[0]; !slices.Equal(got.Shape(), shape) {
						t.Errorf("%s of %v of %s: %v", op, shape, d, got.Shape())
					}
				}
			}
		}
	}
}

// TestNearestKeepsLargeIntegers, which floats of 32 bits cannot tell apart.
func TestNearestKeepsLargeIntegers(t *testing.T) {
	x := mustOf(t, []int32{1<<24 + 1, math.MaxInt32, -1<<24 - 3, 1<<30 + 1}, 1, 1, 2, 2)
	sizes := mustOf(t, []int64{1, 1, 4, 4}, 4)
	got := ranOn(t, "Resize", 13, Attrs{"mode": {Kind: AttrString, String: "nearest"}}, x, nil, nil, sizes)[0]
	v := engine.Data[int32](x)
	for i, e := range engine.Data[int32](got) {
		if want := v[i/8*2+i%4/2]; e != want {
			t.Errorf("element %d is %d, want %d", i, e, want)
		}
	}
}

// TestTriangles of all diagonals, also those outside.
func TestTriangles(t *testing.T) {
	x := mustOf(t, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 1, 3, 4)
	for k := int64(-5); k <= 5; k++ {
		for upper := range int64(2) {
			got := engine.Data[float32](ranOn(t, "Trilu", 14, Attrs{"upper": whole(upper)}, x, mustOf(t, []int64{k}))[0])
			for i, v := range engine.Data[float32](x) {
				if d := int64(i%4 - i/4); upper == 1 && d < k || upper == 0 && d > k {
					v = 0
				}
				if got[i] != v {
					t.Fatalf("upper %d, diagonal %d: %v", upper, k, got)
				}
			}
		}
	}
}

// TestSamplesAtOnce holds GridSample's way for all channels at once to its pairs, with what
// has no end among the elements that no point reads.
func TestSamplesAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for _, mode := range []string{"nearest", "linear", "cubic"} {
		for _, padding := range []string{"zeros", "border", "reflection"} {
			for rank := 1; rank <= 3; rank++ {
				for align := range int64(2) {
					shape, grid := []int{2, 3}, []int{2}
					for range rank {
						shape, grid = append(shape, 2+r.IntN(4)), append(grid, 1+r.IntN(4))
					}
					grid = append(grid, rank)
					v, g := make([]float32, volume(shape)), make([]float32, volume(grid))
					for i := range v {
						v[i] = float32(r.NormFloat64())
					}
					for i := range g {
						g[i] = float32(1.2 * r.NormFloat64())
					}
					n := &Node{Op: "GridSample", Version: 20, Attrs: Attrs{
						"mode": {Kind: AttrString, String: mode}, "padding_mode": {Kind: AttrString, String: padding}, "align_corners": whole(align),
					}}
					for _, endless := range []bool{false, true} {
						if endless {
							v[0] = float32(math.Inf(1))
						}
						m, err := gridSample(new(Exec), n, []*engine.Tensor{mustOf(t, v, shape...), mustOf(t, g, grid...)})
						if err != nil {
							t.Fatal(err)
						}
						want, got := make([]float64, volume(m.Shape)), make([]float32, volume(m.Shape))
						m.Each(func(out, in int, weight float64) { want[out] += weight * float64(v[in]) })
						m.fast32(got, v)
						for i, w := range want {
							if d := math.Abs(float64(got[i]) - w); float64(got[i]) != w && !(d <= 3e-6) && !(math.IsNaN(w) && got[i] != got[i]) {
								t.Fatalf("%s, %s, %v, %t: element %d is %v, want %v", mode, padding, shape, endless, i, got[i], w)
							}
						}
					}
				}
			}
		}
	}
}
