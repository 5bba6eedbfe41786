package graph

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// labelled is a random tensor of some labels, whose extents are in size.
func labelled[T float](t *testing.T, r *rand.Rand, labels string, size map[rune]int) *engine.Tensor {
	t.Helper()
	var shape []int
	for _, l := range labels {
		shape = append(shape, size[l])
	}
	v := make([]T, volume(shape))
	for i := range v {
		v[i] = T(r.NormFloat64())
	}
	x, err := engine.Of(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// holdEinsum holds the equation as it is computed against the sum of its terms, relative
// to their magnitude. It reports whether products of matrices computed it.
func holdEinsum[T float](t *testing.T, equation string, tolerance float64, threads int, in ...*engine.Tensor) bool {
	t.Helper()
	n := &Node{Op: "Einsum", Version: 12, Attrs: Attrs{"equation": {Kind: AttrString, String: equation}}}
	e, err := NewEinsum(n, ShapesOf(in))
	if err != nil {
		t.Fatal(equation, err)
	}
	x := func() *Exec { return &Exec{ctx: t.Context(), limit: 1 << 30, threads: threads} }
	got, err := einsum[T](x(), e, in)
	if err != nil {
		t.Fatal(equation, err)
	}
	want, err := einsumTerms[T](x(), e, in)
	if err != nil {
		t.Fatal(equation, err)
	}
	size := make([]float64, want.Len())
	e.Each(func(o int, at []int) bool {
		p := 1.0
		for i, a := range at {
			p *= float64(engine.Data[T](in[i])[a])
		}
		size[o] += math.Abs(p)
		return true
	})
	if len(got.Shape()) != len(want.Shape()) || got.Len() != want.Len() {
		t.Fatalf("%s of %v: shape %v, want %v", equation, ShapesOf(in), got.Shape(), want.Shape())
	}
	for i, w := range engine.Data[T](want) {
		g := engine.Data[T](got)[i]
		if !(math.Abs(float64(g)-float64(w)) <= tolerance*size[i]) {
			t.Fatalf("%s of %v: element %d is %v, want %v", equation, ShapesOf(in), i, g, w)
		}
	}
	return newContraction(e) != nil
}

func shuffled(r *rand.Rand, labels string) string {
	v := []rune(labels)
	r.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
	return string(v)
}

// TestContractions holds every number of batch, row, column, summed and lone labels, in
// random orders and extents, against the sum of terms.
func TestContractions(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	products := 0
	for pattern := range 4 * 3 * 3 * 3 * 2 * 2 {
		take := func(from string, most int) string {
			n := pattern % (most + 1)
			pattern /= most + 1
			return from[:n]
		}
		batch, rows, columns, inner := take("abc", 3), take("ij", 2), take("kl", 2), take("xy", 2)
		first, second := take("p", 1), take("q", 1)
		for range 6 {
			size := map[rune]int{}
			for _, l := range "abcijklxypq" {
				size[l] = 1 + r.IntN(4)
			}
			left, right := shuffled(r, batch+rows+inner+first), shuffled(r, batch+columns+inner+second)
			equation := left + "," + right + "->" + shuffled(r, batch+rows+columns)
			if holdEinsum[float32](t, equation, 2e-6, 1+r.IntN(3), labelled[float32](t, r, left, size), labelled[float32](t, r, right, size)) {
				products++
			}
			holdEinsum[float64](t, equation, 1e-14, 1, labelled[float64](t, r, left, size), labelled[float64](t, r, right, size))
		}
	}
	if products < 500 {
		t.Errorf("%d of the equations are products of matrices", products)
	}
}

// TestContractionsOfOtherForms: diagonals, ellipses, broadcast ones, nothing, attention.
func TestContractionsOfOtherForms(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		equation      string
		first, second []int
		products      bool
	}{
		{"iij,jk->ik", []int{4, 4, 5}, []int{5, 6}, true},
		{"ijj,jkk->ki", []int{4, 5, 5}, []int{5, 6, 6}, true},
		{"iixx,xxi->ix", []int{4, 4, 5, 5}, []int{5, 5, 4}, false},
		{"...ij,...jk->...ik", []int{3, 1, 4, 5}, []int{2, 5, 6}, true},
		{"...ij,...jk->...ik", []int{1, 4, 5}, []int{5, 6}, true},
		{"...ij,...jk", []int{2, 4, 5}, []int{2, 5, 6}, true},
		{"...i,...i->i", []int{3, 1, 40}, []int{1, 5, 40}, false},
		{"i...,i...->...", []int{40, 3}, []int{40, 1}, true},
		{"ij,jk->ik", []int{4, 0}, []int{0, 6}, false},
		{"ij,jk->ik", []int{0, 5}, []int{5, 6}, false},
		{"ij,jk->", []int{9, 7}, []int{7, 8}, false},
		{"i,i->", []int{70}, []int{70}, true},
		{"i,j->ji", []int{20}, []int{30}, true},
		{"bhid,bhjd->bhij", []int{2, 3, 9, 8}, []int{2, 3, 7, 8}, true},
		{"bhij,bhjd->bhid", []int{2, 3, 9, 7}, []int{2, 3, 7, 8}, true},
		{"bihd,bjhd->bhij", []int{2, 9, 3, 8}, []int{2, 7, 3, 8}, true},
		{"bhij,bjhd->bihd", []int{2, 3, 9, 7}, []int{2, 7, 3, 8}, true},
		{"bhij,bhjd->hidb", []int{2, 3, 9, 7}, []int{2, 3, 7, 8}, true},
	} {
		first, second := noise(t, r, c.first...), noise(t, r, c.second...)
		if products := holdEinsum[float32](t, c.equation, 2e-6, 2, first, second); products != c.products {
			t.Errorf("%s: by products of matrices %v", c.equation, products)
		}
	}
	one, three := noise(t, r, 6), noise(t, r, 6, 7)
	holdEinsum[float32](t, "i,ij,i->j", 2e-6, 1, one, three, one)
	holdEinsum[float32](t, "ij->ji", 0, 1, three)
}

// TestChains holds equations of one operand and of three to five, whose labels are random,
// against the sum of terms.
func TestChains(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 400 {
		operands, most := []int{1, 3, 4, 5}[r.IntN(4)], 7
		size := map[rune]int{}
		for _, l := range "abcdefg"[:most] {
			size[l] = 1 + r.IntN(4)
		}
		var terms []string
		var out []rune
		for range operands {
			var term []rune
			for range r.IntN(4) {
				term = append(term, rune("abcdefg"[r.IntN(most)]))
			}
			terms = append(terms, string(term))
			for _, l := range term {
				if !slices.Contains(out, l) && r.IntN(2) == 0 {
					out = append(out, l)
				}
			}
		}
		equation := strings.Join(terms, ",") + "->" + shuffled(r, string(out))
		narrow, wide := make([]*engine.Tensor, operands), make([]*engine.Tensor, operands)
		for i, term := range terms {
			narrow[i], wide[i] = labelled[float32](t, r, term, size), labelled[float64](t, r, term, size)
		}
		holdEinsum[float32](t, equation, 4e-6, 1+r.IntN(3), narrow...)
		holdEinsum[float64](t, equation, 1e-13, 1, wide...)
	}
}

// TestChainsInGoodOrder: of many operands the cheapest pair is first, so that what would
// take 2^33 products takes some 2^20, and what a run does is counted so.
func TestChainsInGoodOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	in := []*engine.Tensor{noise(t, r, 1024, 1), noise(t, r, 1, 1024), noise(t, r, 1024, 8), noise(t, r, 8, 1024)}
	n := &Node{Op: "Einsum", Version: 12, Attrs: Attrs{"equation": {Kind: AttrString, String: "ab,bc,cd,de->ae"}}}
	e, err := NewEinsum(n, ShapesOf(in))
	if err != nil {
		t.Fatal(err)
	}
	y, err := einsum[float32](&Exec{limit: 1 << 24}, e, in)
	if err != nil {
		t.Fatal(err)
	}
	// bc with cd, de behind them, and ab before.
	want := float64(2*1024*8 + 2*8*1024 + 2*1024*1024)
	if got := operations(n, in, []*engine.Tensor{y}); got > want {
		t.Errorf("%v operations, want %v at most", got, want)
	}
	if _, err := einsumTerms[float32](&Exec{limit: 1 << 24}, e, in); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("2^33 terms, each by itself: %v", err)
	}
	product := &Node{Op: "Einsum", Version: 12, Attrs: Attrs{"equation": {Kind: AttrString, String: "ij,jk->ik"}}}
	for equation, c := range map[string]struct {
		shapes [][]int
		want   float64
	}{
		"ij,jk->ik": {[][]int{{3, 4}, {4, 5}}, 2 * 3 * 4 * 5},
		"ij->ji":    {[][]int{{3, 4}}, 0},
		"ij->i":     {[][]int{{3, 4}}, 12},
		"ij,kl->il": {[][]int{{3, 4}, {5, 6}}, 2 * (12 + 30 + 18)},
	} {
		product.Attrs["equation"] = Attr{Kind: AttrString, String: equation}
		var in []*engine.Tensor
		for _, s := range c.shapes {
			in = append(in, noise(t, r, s...))
		}
		if got := operations(product, in, nil); got != c.want {
			t.Errorf("%s: %v operations, want %v", equation, got, c.want)
		}
	}
	// A product of matrices is no larger for being written as an equation.
	product.Attrs["equation"] = Attr{Kind: AttrString, String: "ij,jk->ik"}
	if _, err := NewEinsum(product, [][]int{{1 << 12, 1 << 12}, {1 << 12, 1 << 12}}); err != nil {
		t.Error(err)
	}
	if _, err := NewEinsum(product, [][]int{{1 << 30, 1}, {1, 1 << 30}}); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("2^60 elements: %v", err)
	}
}

// TestContractionsKeepLimits: what a product needs is counted, and ends with its context.
func TestContractionsKeepLimits(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	in := []*engine.Tensor{noise(t, r, 2, 16, 16), noise(t, r, 2, 16, 16)}
	n := &Node{Op: "Einsum", Version: 12, Attrs: Attrs{"equation": {Kind: AttrString, String: "bij,bjk->ikb"}}}
	e, err := NewEinsum(n, ShapesOf(in))
	if err != nil {
		t.Fatal(err)
	}
	// The output, and the products that it is the transpose of.
	if _, err := einsum[float32](&Exec{limit: 2*4*512 - 1}, e, in); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("past the limit: %v", err)
	}
	if _, err := einsum[float32](&Exec{limit: 2 * 4 * 512}, e, in); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := einsum[float32](&Exec{ctx: ctx, limit: 1 << 20}, e, in); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkEinsum(b *testing.B) {
	for _, c := range []struct {
		equation      string
		first, second []int
	}{
		{"ij,jk->ik", []int{512, 512}, []int{512, 512}},
		{"bhid,bhjd->bhij", []int{1, 8, 128, 64}, []int{1, 8, 128, 64}},
		{"bhij,bhjd->bhid", []int{1, 8, 128, 128}, []int{1, 8, 128, 64}},
		{"bihd,bjhd->bhij", []int{1, 128, 8, 64}, []int{1, 128, 8, 64}},
	} {
		v := [2]*engine.Tensor{}
		for i, shape := range [][]int{c.first, c.second} {
			var err error
			if v[i], err = engine.New(engine.Float32, shape...); err != nil {
				b.Fatal(err)
			}
		}
		n := &Node{Op: "Einsum", Version: 12, Attrs: Attrs{"equation": {Kind: AttrString, String: c.equation}}}
		for name, run := range map[string]func(x *Exec, e *Einsum, in []*engine.Tensor) (*engine.Tensor, error){"": einsum[float32], "/terms": einsumTerms[float32]} {
			b.Run(strings.ReplaceAll(c.equation, ",", " ")+name, func(b *testing.B) {
				for b.Loop() {
					e, err := NewEinsum(n, ShapesOf(v[:]))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := run(&Exec{limit: 1 << 30, threads: 2}, e, v[:]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
