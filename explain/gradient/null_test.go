package gradient_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/explain/gradient"
)

// bends is a network of one hidden layer of ReLUs, whose integrated gradients from zeros are
// known: each unit is on for a part of the way.
type bends struct {
	width                  int
	weights, bias, outward []float64 // of the hidden units
}

func newBends(r *rand.Rand, width, units int) *bends {
	b := &bends{width: width, weights: make([]float64, units*width), bias: make([]float64, units), outward: make([]float64, units)}
	for _, list := range [][]float64{b.weights, b.bias, b.outward} {
		for i := range list {
			list[i] = r.NormFloat64()
		}
	}
	return b
}

func (b *bends) unit(h int, x []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += b.weights[h*b.width+i] * v
	}
	return sum
}

// exact are the integrated gradients of x.
func (b *bends) exact(x []float64) []float64 {
	phi := make([]float64, b.width)
	for h, bias := range b.bias {
		slope := b.unit(h, x) // bias + t slope along the way
		on := 0.0
		switch turn := -bias / slope; {
		case bias > 0 && slope < 0:
			on = min(turn, 1)
		case bias > 0:
			on = 1
		case slope > 0:
			on = max(1-turn, 0)
		}
		for i, v := range x {
			phi[i] += b.outward[h] * b.weights[h*b.width+i] * v * on
		}
	}
	return phi
}

func (b *bends) Run(context.Context, engine.Values, []string) (engine.Values, error) { return nil, nil }

func (b *bends) Logit(out engine.Target) engine.Target { return out }

func (b *bends) Weighted(context.Context, engine.Values, engine.Values, []string) (*engine.Gradient, error) {
	return nil, errors.New("nothing here weighs")
}

func (b *bends) Gradient(_ context.Context, in engine.Values, _ engine.Target, _ []string) (*engine.Gradient, error) {
	x := engine.Data[float64](in[0].Tensor)
	n := in[0].Tensor.Rows()
	g, d := &engine.Gradient{Value: make([]float64, n)}, make([]float64, len(x))
	for r := range n {
		row := x[r*b.width:][:b.width]
		for h, bias := range b.bias {
			v := bias + b.unit(h, row)
			if v <= 0 {
				continue
			}
			g.Value[r] += b.outward[h] * v
			for i := range b.width {
				d[r*b.width+i] += b.outward[h] * b.weights[h*b.width+i]
			}
		}
	}
	t, err := engine.Of(d, n, b.width)
	g.Inputs = engine.Values{{Name: "x", Tensor: t}}
	return g, err
}

// TestErrorsOfSingleAttributions holds integrated gradients of networks that bend against
// what they are exactly: what is not warned of is within 1 % of the largest, though errors
// cancel in the sum, and of 100 errors 97 are within one and a half of their estimates.
func TestErrorsOfSingleAttributions(t *testing.T) {
	const rounds = 400
	r := rand.New(rand.NewPCG(7, 8))
	over, total, worst, points := 0, 0, 0.0, 0
	for range rounds {
		width := 1 + r.IntN(8)
		b := newBends(r, width, 1+r.IntN(40))
		x := make([]float64, width)
		for i := range x {
			x[i] = r.NormFloat64()
		}
		in, err := engine.Of(x, 1, width)
		if err != nil {
			t.Fatal(err)
		}
		got, err := gradient.IntegratedGradients(t.Context(), b, engine.Values{{Name: "x", Tensor: in}}, engine.Target{}, gradient.Options{})
		if err != nil {
			t.Fatal(err)
		}
		res, want, most := got[0], b.exact(x), 0.0
		for _, v := range want {
			most = max(most, math.Abs(v))
		}
		if most == 0 {
			continue
		}
		points += res.Points
		for i, v := range want {
			off := math.Abs(res.Phi[i] - v)
			total++
			if off > 1.5*res.Errors[i]+1e-9*most {
				over++
			}
			if res.Miss == nil {
				worst = max(worst, off/most)
			}
		}
	}
	t.Logf("off by at most %.2g of the largest, %d of %d beyond the estimate, %d points a row", worst, over, total, points/rounds)
	if worst > 0.01 || over > total*3/100 {
		t.Errorf("off by up to %.2g of the largest, %d of %d beyond the estimate", worst, over, total)
	}
}
